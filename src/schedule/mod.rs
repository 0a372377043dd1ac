//! Scheduling of probes: phase-locked slots, backoff, budget and limits.
//!
//! This module knows neither HTTP nor Prometheus: running a probe and reporting events are behind
//! [`Work`].
//!
//! - `plan` computes the slots of a probe, and converts between clocks. It is pure.
//! - `backoff` computes which slots are skipped after a failure. It is pure.
//! - `budget` accounts for the spending of a UTC day.
//! - `limits` limits concurrent runs.
//! - `rate_limiter` limits the request rate per provider.
//! - `recheck` makes extra attempts between a failed run and the next slot.
//! - `pair` coordinates two probes that run one after the other.
//! - `on_demand` runs a probe on request.
//! - `worker` is the loop of one probe.
//! - `scheduler` starts, reconfigures and stops the workers.
//!
//! Every slot of a probe either becomes a run or is counted as skipped, exactly once.

mod backoff;
mod budget;
mod limits;
mod on_demand;
mod pair;
mod plan;
mod rate_limiter;
mod recheck;
mod scheduler;
mod work;
mod worker;

#[cfg(test)]
mod tests;

pub use self::{
    budget::{DailyBudget, Spent},
    on_demand::OnDemandRequest,
    plan::Anchor,
    scheduler::Scheduler,
    work::{Event, Wait, Work},
};
