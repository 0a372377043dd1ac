//! The schedule on paused time: whole loops, whose due times are accounted for one by one.

mod budget;
mod demand;
mod first_run;
mod loops;
mod pacing;
mod pair;
mod recheck;
mod stage;
