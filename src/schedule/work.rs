//! The interface between the scheduler and the daemon: running a target and reporting events.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::budget::DailyBudget;
use crate::{
    config::Probe,
    outcome::{Outcome, SkipCause},
};

/// Runs targets and receives events: the daemon's side of the schedule.
pub trait Work: Send + Sync + 'static {
    /// A probe with everything that its runs need.
    type Target: Send + Sync + 'static;

    /// Returns the configuration of a target. While it is equal across reloads, so are the probe's
    /// slots and backoff.
    fn probe(target: &Self::Target) -> &Arc<Probe>;

    /// Returns the account that generation checks are charged to. `None` if there is none.
    fn budget(&self) -> Option<&DailyBudget> {
        None
    }

    /// Returns the probe's backoff from before the start of the process or of the scheduler. `None`
    /// if there was none. Called once, when a probe starts.
    fn persisted_wait(&self, _target: &Self::Target) -> Option<Wait> {
        None
    }

    /// Returns the start of the probe's last finished run, before or after the start of the
    /// process. `None` if unknown. A probe with a long interval and no run in the last interval
    /// runs soon after its start.
    fn last_run(&self, _target: &Self::Target) -> Option<SystemTime> {
        None
    }

    /// Performs one run. It may panic, and is dropped if the scheduler stops.
    fn run(&self, target: Arc<Self::Target>) -> impl Future<Output = Outcome> + Send;

    /// Makes an attempt between slots, a recheck or on demand, limited to `within`. The same
    /// applies as for a run.
    fn run_within(&self, target: Arc<Self::Target>, within: Duration)
    -> impl Future<Output = Outcome> + Send;

    /// Returns the wall-clock time. It affects reported times only, not when runs start.
    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Receives an event, on the thread that times the runs. It must neither block nor panic.
    fn report(&self, target: &Arc<Self::Target>, event: Event);
}

/// Backoff of a probe to persist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Time until which no run takes place, by the current wall clock. `None` if only the step
    /// remains.
    pub until: Option<SystemTime>,
    /// The last wait without a hint, in intervals. 0 if there was none since the last success.
    pub step: u64,
}

/// Events of a probe. For each slot they come in this order: waiting, then skipped, or started and
/// finished.
#[derive(Clone, Debug)]
pub enum Event {
    /// The probe sleeps. Reported whenever a field changes, for example because the wall clock was
    /// set, and once to each new target.
    Waiting {
        /// Time of the next run by the current wall clock, including backoff.
        next_run: SystemTime,
        /// Equal to `next_run` while the probe skips slots because of a service's limits. `None` if
        /// it does not.
        backoff_until: Option<SystemTime>,
    },
    /// Slots passed without a run.
    Skipped {
        /// Cause.
        cause: SkipCause,
        /// Number of slots, at least 1.
        runs: u64,
    },
    /// A run begins.
    Started {
        /// Delay after its slot.
        lag: Duration,
    },
    /// An attempt outside the schedule begins, and the budget has been charged with its maximum.
    Charged,
    /// Backoff to persist. `None` if there is none. Reported before the end of each run.
    PersistWait(Option<Wait>),
    /// The last started run has ended.
    Finished(Outcome),
    /// A recheck has ended. It does not count as a run.
    Rechecked(Outcome),
    /// An on-demand attempt has ended. It does not count as a run.
    OnDemand(Outcome),
    /// The probe's loop panicked, outside of a run or in reporting one, and continues. A run that
    /// had begun is over.
    Restarted,
}
