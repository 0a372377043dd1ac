//! Rechecks: extra attempts between a failed run and the next slot, which show how soon the service
//! recovers.
//!
//! Rechecks follow a run that ended as `unavailable`, `connect` or `gateway_timeout`, which are
//! often over within seconds. With `after` and `step` of 5 s and `times` of 3 they begin 5, 15 and
//! 30 s after it, delayed by the duration of the attempts themselves. They end with the first
//! success, with any other failure, when the service asks for a longer wait, when a reload changes
//! the probe, and at the next slot, which bounds the duration of each attempt. Rechecks need a
//! permit and budget like any run. They do not change the schedule, except that a wait requested by
//! the service that is longer than the time to the next slot applies to scheduled runs too.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep_until},
};

use super::{
    work::{Event, Work},
    worker::{Admission, TargetChange, Worker, attempt},
};
use crate::outcome::Outcome;

/// Time left between an attempt and the next slot, because timers fire a millisecond or two late.
const MARGIN: Duration = Duration::from_millis(10);

/// Minimum time for an attempt, unless the probe's timeout is shorter. With less time it would fail
/// for that reason alone.
const MIN_ATTEMPT_TIME: Duration = Duration::from_secs(1);

/// A failure that may be over within seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// Wait requested by the service.
    retry_after: Option<f64>,
}

impl Failed {
    /// Returns `None` if the run succeeded, or failed in a way that is not rechecked.
    pub(super) fn from_outcome(outcome: &Outcome) -> Option<Self> {
        outcome.reason.info().is_brief.then_some(Self { retry_after: outcome.retry_after })
    }

    /// Returns whether the service permits an attempt after that wait.
    fn allows(self, wait: Duration) -> bool {
        // NaN is not a hint.
        self.retry_after.is_none_or(|hint| hint.is_nan() || hint <= wait.as_secs_f64())
    }
}

impl<W: Work> Worker<W> {
    /// Makes the configured number of attempts after a failure.
    pub(super) async fn recheck_after(&mut self, failed: Option<Failed>) {
        let Some((recheck, mut failed)) = W::probe(&self.target).recheck.zip(failed) else { return };
        self.report_next_run();
        for number in 1..=recheck.times {
            let wait = recheck.wait(number);
            if !failed.allows(wait) || !self.sleep_until_attempt(Instant::now() + wait).await {
                return;
            }
            let Some(outcome) = self.recheck().await else { return };
            let next = Failed::from_outcome(&outcome);
            self.report(Event::Rechecked(Outcome { recheck: Some(number), ..outcome }));
            match next {
                Some(next) => failed = next,
                None => return,
            }
        }
    }

    /// Sleeps until a time. Returns false if the next slot is sooner, or if a reload has changed
    /// the probe.
    async fn sleep_until_attempt(&mut self, until: Instant) -> bool {
        loop {
            if self.time_left(until).is_none() {
                return false;
            }
            select! {
                biased;
                _ = self.targets.changed() => if self.apply_target() != TargetChange::Unchanged { return false },
                () = sleep_until(until) => return true,
            }
            // The worker was woken by a new target or a step of the wall clock; report the next run
            // to either.
            self.report_next_run();
        }
    }

    /// Makes one attempt. Returns `None` if there is no time, permit or budget for it.
    async fn recheck(&mut self) -> Option<Outcome> {
        let due = self.anchor.instant(self.due(self.next));
        let admission = self.acquire_permits(due).await.ok()?;
        let within = self.time_left(Instant::now())?;
        // A scheduled run without budget is counted as skipped; a recheck is simply omitted.
        self.attempt_between(admission, within).await
    }

    /// Makes one attempt between slots. It is charged to the budget, and a hint of the service
    /// applies to scheduled runs as well. Returns `None` if there is no budget for it.
    pub(super) async fn attempt_between(
        &mut self,
        mut admission: Admission,
        within: Duration,
    ) -> Option<Outcome> {
        let (work, target) = (Arc::clone(&self.work), Arc::clone(&self.target));
        let probe = Arc::clone(W::probe(&target));
        work.budget().is_none_or(|budget| budget.has_room(&probe)).then_some(())?;
        let charge = work.budget().and_then(|budget| budget.charge(&probe));
        if charge.is_some() {
            // Reported before the attempt begins, so that a crash during it does not lose the
            // charge.
            self.report(Event::Charged);
        }
        admission.permit.begin();
        let runner = Arc::clone(&work);
        let outcome = attempt(async move { runner.run_within(target, within).await }).await;
        admission.permit.end(&outcome);
        if let Some(charge) = charge {
            charge.settle(&probe, &outcome);
        }
        let (ended, max_backoff) = (self.now(), self.control.limits.max_backoff());
        if self.backoff.apply_hint(&outcome, self.next, ended, &self.plan, max_backoff) {
            self.report_backoff();
        }
        Some(outcome)
    }

    /// Returns how long an attempt from that time on may take. Returns `None` if that is too short.
    pub(super) fn time_left(&self, from: Instant) -> Option<Duration> {
        let due = self.anchor.instant(self.due(self.next));
        let timeout = W::probe(&self.target).timeout;
        let left = due.saturating_duration_since(from).saturating_sub(MARGIN).min(timeout);
        (left >= MIN_ATTEMPT_TIME.min(timeout)).then_some(left)
    }
}
