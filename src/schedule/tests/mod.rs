//! Tests of the schedule on paused time, which check that every slot is accounted for.

mod budget;
mod demand;
mod first_run;
mod loops;
mod pacing;
mod pair;
mod recheck;
mod stage;
