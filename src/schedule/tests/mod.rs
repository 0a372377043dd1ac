//! Tests of the schedule on paused time, which check that every slot is accounted for.

mod budget;
mod first_run;
mod loops;
mod on_demand;
mod pacing;
mod pair;
mod recheck;
mod stage;
