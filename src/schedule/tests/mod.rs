//! Tests of the schedule on paused time, which check that every slot is accounted for.

mod budget;
mod first_run;
mod harness;
mod loops;
mod on_demand;
mod pair;
mod rate_limiter;
mod recheck;
