//! What the scheduler is given: how to run a target, and whom to tell.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::budget::Budget;
use crate::{
    config::Probe,
    outcome::{Outcome, SkipCause},
};

/// How to run a target and whom to tell: the daemon's side of the schedule.
pub trait Work: Send + Sync + 'static {
    /// A probe with whatever its runs need.
    type Target: Send + Sync + 'static;

    /// The configuration of a target. While it stays equal over reloads, so do the probe's due times and waits.
    fn probe(target: &Self::Target) -> &Arc<Probe>;

    /// The account that generation checks are charged to; `None`: they are not.
    fn budget(&self) -> Option<&Budget> {
        None
    }

    /// The wait that the probe was in before the process began, or before the scheduler was started again; `None`: it was
    /// in none. Asked once, when a probe starts.
    fn remembered(&self, _target: &Self::Target) -> Option<Wait> {
        None
    }

    /// When the probe's last run began that ended before the process began, or since then; `None`: that is not known. A
    /// rare probe without one in its last interval runs soon after its start.
    fn last_run(&self, _target: &Self::Target) -> Option<SystemTime> {
        None
    }

    /// One run. It may panic, and be dropped half-way when the scheduler stops.
    fn run(&self, target: Arc<Self::Target>) -> impl Future<Output = Outcome> + Send;

    /// An extra attempt after a failed run, which may take no longer than `within`. It may do what a run may.
    fn recheck(&self, target: Arc<Self::Target>, within: Duration) -> impl Future<Output = Outcome> + Send;

    /// What the wall clock shows; runs do not go by it, only what is told of them does.
    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Takes note of an event. It is called on the thread that times the runs: it neither blocks nor panics.
    fn report(&self, target: &Arc<Self::Target>, event: Event);
}

/// What a restart must not forget of a probe's backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// No run before then, by the wall clock as it is now; `None`: only the step is left.
    pub until: Option<SystemTime>,
    /// The last wait without a hint, in intervals; 0: none since the last success.
    pub step: u64,
}

/// What happens to a probe, in this order for each due time: waiting, then skipped, or started and finished.
#[derive(Clone, Debug)]
pub enum Event {
    /// The probe sleeps. Told whenever one of the members changes, be it because the wall clock was set, and once to
    /// each new target.
    Waiting {
        /// When the next run is due by the wall clock of now, waits included.
        next_run: SystemTime,
        /// The same time where a service's limits make the probe pass over due times until then; `None`: it keeps
        /// its schedule.
        backoff_until: Option<SystemTime>,
    },
    /// Due times passed without a run.
    Skipped {
        /// Why.
        cause: SkipCause,
        /// How many, at least 1.
        runs: u64,
    },
    /// A run begins.
    Started {
        /// How long after its due time.
        lag: Duration,
    },
    /// An attempt beside the schedule begins, and the budget has been charged with the most that it can take.
    Charged,
    /// What is to be remembered of the probe's backoff from now on; `None`: nothing. Told before the end of each run.
    Remember(Option<Wait>),
    /// The run that began last has ended.
    Finished(Outcome),
    /// An extra attempt after it has ended: it is no run.
    Rechecked(Outcome),
    /// An attempt that somebody asked for has ended: it is no run.
    Demanded(Outcome),
    /// The probe's loop panicked, outside of a run or in telling of one, and goes on. A run that had begun is over.
    Restarted,
}
