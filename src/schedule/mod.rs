//! When to run which probe: the phase-locked schedule, its waits and its limits.
//!
//! It knows neither HTTP nor Prometheus: what a run does and who is told are behind [`Work`].
//!
//! - `plan` is pure: the grid of due times of a probe, and the clock that the grid is read by.
//! - `backoff` is pure: which due times a failed run passes over.
//! - `budget` is the account of what a UTC day may cost.
//! - `limits` lets runs in, first come first served.
//! - `pacing` lets requests of a paced provider go, in turn.
//! - `recheck` attempts again between a failure and the next due time.
//! - `pair` is where two probes that run one after the other meet.
//! - `demand` runs a probe for whoever asks, beside its schedule.
//! - `worker` is the loop of one probe, a task that sleeps from one due time to the next.
//! - `scheduler` starts, tells and ends the workers.
//!
//! For every probe, each due time either becomes a run or is counted as skipped, once.

mod backoff;
mod budget;
mod demand;
mod limits;
mod pacing;
mod pair;
mod plan;
mod recheck;
mod scheduler;
mod work;
mod worker;

#[cfg(test)]
mod tests;

pub use self::{
    budget::{Budget, Spent},
    demand::Demand,
    plan::Anchor,
    scheduler::Scheduler,
    work::{Event, Wait, Work},
};
