//! How a probe is now, in one word and what belongs to it.

use std::time::{Duration, SystemTime};

use crate::{
    config::Probe,
    history::{Run, Snapshot},
    metrics::BudgetNow,
    outcome::{Reason, SkipCause},
};

/// Beyond its due time, its timeout and this, a probe is stuck (contract of `langmart_probe_next_run_timestamp_seconds`).
const PATIENCE: Duration = Duration::from_secs(60);

/// How a probe is now. The order is that of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// The last run failed.
    Failing,
    /// It waits since the service asked for it, for a reason that waiting alone may not heal.
    Paused,
    /// The service limits it, and it waits.
    Limited,
    /// The last run succeeded too slowly.
    Slow,
    /// It has not run yet, or should have long ago.
    Unknown,
    /// The last run succeeded.
    Up,
}

impl State {
    pub(super) const ALL: [Self; 6] =
        [Self::Failing, Self::Paused, Self::Limited, Self::Slow, Self::Unknown, Self::Up];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Paused => "paused",
            Self::Limited => "limited",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
            Self::Up => "up",
        }
    }

    /// Whether somebody may have to do something.
    pub(super) const fn needs_attention(self) -> bool {
        matches!(self, Self::Failing | Self::Paused | Self::Limited | Self::Slow)
    }
}

/// A probe with its state.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) state: State,
    /// What keeps it from running, or kept it the last time that it was due, and when it is to run; `None`: nothing.
    pub(super) wait: Option<(SkipCause, SystemTime)>,
    /// It should have run long ago.
    pub(super) stuck: bool,
}

impl Now {
    pub(super) fn of(probe: &Probe, kept: &Snapshot, budget: Option<&BudgetNow>, now: SystemTime) -> Self {
        let wait = wait(probe, kept, budget, now);
        let stuck = kept.waiting.next_run.is_some_and(|due| due + probe.timeout + PATIENCE < now);
        let state = match (kept.runs.last(), wait) {
            _ if stuck => State::Unknown,
            (_, Some((SkipCause::Budget, _))) => State::Paused,
            (Some(run), Some((SkipCause::Backoff, _))) if run.reason == Reason::Billing => State::Paused,
            (_, Some((SkipCause::Backoff, _))) => State::Limited,
            // Its turn comes: what the last run found holds until then.
            (last, _) => last.map_or(State::Unknown, |run| of_run(run)),
        };
        Self { state, wait, stuck }
    }
}

/// The state that a run alone tells.
pub(super) fn of_run(run: &Run) -> State {
    match run.reason {
        Reason::Ok if run.slow => State::Slow,
        Reason::Ok => State::Up,
        Reason::RateLimited => State::Limited,
        _ => State::Failing,
    }
}

fn wait(
    probe: &Probe,
    kept: &Snapshot,
    budget: Option<&BudgetNow>,
    now: SystemTime,
) -> Option<(SkipCause, SystemTime)> {
    let backoff = kept.waiting.backoff_until.filter(|until| *until > now);
    let resumes = budget.and_then(|budget| budget.resumes).filter(|_| probe.check().generates());
    match (kept.held.map(|held| held.cause), resumes, backoff) {
        (Some(SkipCause::Budget), Some(resumes), _) => Some((SkipCause::Budget, resumes)),
        (_, _, Some(until)) => Some((SkipCause::Backoff, until)),
        (Some(cause @ (SkipCause::Pacing | SkipCause::Concurrency)), _, None) => {
            kept.waiting.next_run.map(|due| (cause, due))
        }
        _ => None,
    }
}
