//! The current state of a probe.

use std::time::{Duration, SystemTime};

use crate::{
    config::Probe,
    history::{Run, Snapshot},
    metrics::BudgetNow,
    outcome::{Reason, SkipCause},
};

/// A probe is stuck if it has not run until this long after its due time and timeout (contract of
/// `langmart_probe_next_run_timestamp_seconds`).
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// The state of a probe, in order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// The last run failed.
    Failing,
    /// It backs off for a reason that may not pass by waiting, or the budget is used up.
    Paused,
    /// It is rate limited and backs off.
    Limited,
    /// The last run succeeded but was slow.
    Slow,
    /// It has not run yet, or is overdue.
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

    /// Returns whether an operator may have to act.
    pub(super) const fn needs_attention(self) -> bool {
        matches!(self, Self::Failing | Self::Paused | Self::Limited | Self::Slow)
    }
}

/// The state of a probe with its details.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) state: State,
    /// The cause that delays the next run, or has skipped the last one, and the time of the next
    /// run.
    pub(super) wait: Option<(SkipCause, SystemTime)>,
    /// Whether the run is overdue.
    pub(super) stuck: bool,
}

impl Now {
    pub(super) fn new(probe: &Probe, kept: &Snapshot, budget: Option<&BudgetNow>, now: SystemTime) -> Self {
        let wait = wait(probe, kept, budget, now);
        let stuck = kept.waiting.next_run.is_some_and(|due| due + probe.timeout + STUCK_AFTER < now);
        let state = match (kept.runs.last(), wait) {
            _ if stuck => State::Unknown,
            (_, Some((SkipCause::Budget, _))) => State::Paused,
            (Some(run), Some((SkipCause::Backoff, _))) if run.reason == Reason::Billing => State::Paused,
            (_, Some((SkipCause::Backoff, _))) => State::Limited,
            // Other delays are short: the last result remains valid.
            (last, _) => last.map_or(State::Unknown, |run| state_after(run)),
        };
        Self { state, wait, stuck }
    }
}

/// Returns the state after a run, regardless of delays.
pub(super) fn state_after(run: &Run) -> State {
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
    match (kept.skipped.map(|held| held.cause), resumes, backoff) {
        (Some(SkipCause::Budget), Some(resumes), _) => Some((SkipCause::Budget, resumes)),
        (_, _, Some(until)) => Some((SkipCause::Backoff, until)),
        (Some(cause @ (SkipCause::Pacing | SkipCause::Concurrency)), _, None) => {
            kept.waiting.next_run.map(|due| (cause, due))
        }
        _ => None,
    }
}
