//! Rechecks: extra attempts between a failed run and the next due one, which show how soon the service is back.
//!
//! They follow a run that ended as [`Reason::Unavailable`], [`Reason::Connect`] or [`Reason::GatewayTimeout`], which often
//! pass within seconds. With `after` and `step` of 5 s and three `times` they begin 5, 15 and 30 s after it, and as much
//! later as they themselves take. The first success ends them, and so does whatever else an attempt finds, a service that
//! asks for a longer wait, a reload that changes the probe, and the next due time: an attempt that is in flight then would
//! delay the run, so each has no more time than there is until then. They need a place and budget like any run. They move
//! nothing of the schedule, but where a service asks one of them to wait for longer than until the next due time, the due
//! runs wait too.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep_until},
};

use super::{
    work::{Event, Work},
    worker::{Admission, Verdict, Worker, attempt},
};
use crate::outcome::{Outcome, Reason};

/// What an attempt leaves free before the next due time: timers fire late by a millisecond or two.
const MARGIN: Duration = Duration::from_millis(10);

/// An attempt with less time than this would fail for that alone, unless it never has more.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// Why a run failed, as far as it decides on rechecks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// How long the service asks to wait.
    retry_after: Option<f64>,
}

impl Failed {
    /// `None`: it did not fail, or not in a way that may pass within seconds.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        let passes = matches!(outcome.reason, Reason::Unavailable | Reason::Connect | Reason::GatewayTimeout);
        passes.then_some(Self { retry_after: outcome.retry_after })
    }

    /// Whether the service may be asked again so soon.
    fn allows(self, wait: Duration) -> bool {
        // What is no number is no hint.
        self.retry_after.is_none_or(|hint| hint.is_nan() || hint <= wait.as_secs_f64())
    }
}

impl<W: Work> Worker<W> {
    /// Attempts again after a failure, as the probe's configuration says.
    pub(super) async fn recheck_after(&mut self, failed: Option<Failed>) {
        let Some((recheck, mut failed)) = W::probe(&self.target).recheck.zip(failed) else { return };
        self.tell_next_run();
        for number in 1..=recheck.times {
            let wait = recheck.wait(number);
            if !failed.allows(wait) || !self.rest(Instant::now() + wait).await {
                return;
            }
            let Some(outcome) = self.recheck().await else { return };
            let next = Failed::of(&outcome);
            self.report(Event::Rechecked(Outcome { recheck: Some(number), ..outcome }));
            match next {
                Some(next) => failed = next,
                None => return,
            }
        }
    }

    /// Sleeps until then. False: the next run is due before, or a reload has changed the probe.
    async fn rest(&mut self, until: Instant) -> bool {
        loop {
            if self.time_left(until).is_none() {
                return false;
            }
            select! {
                biased;
                _ = self.targets.changed() => if self.follow() != Verdict::Unchanged { return false },
                () = sleep_until(until) => return true,
            }
            // It was woken since the target is new or the wall clock was set: either has to be told.
            self.tell_next_run();
        }
    }

    /// One attempt; `None`: there is no time for it, no place, or no budget.
    async fn recheck(&mut self) -> Option<Outcome> {
        let due = self.anchor.instant(self.due(self.next));
        let admission = self.admitted(due).await.ok()?;
        let within = self.time_left(Instant::now())?;
        // A due run that finds no room is counted as skipped; an attempt that nobody waits for is just not made.
        self.attempt_between(admission, within).await
    }

    /// One attempt between due runs, which the budget is charged with, and whose hint the due runs wait for like one of
    /// their own; `None`: the budget has no room for it.
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
            // Before it begins: a process that ends in the middle of it must not forget what it may have taken.
            self.report(Event::Charged);
        }
        admission.permit.begin();
        let runner = Arc::clone(&work);
        let outcome = attempt(async move { runner.recheck(target, within).await }).await;
        admission.permit.end(&outcome);
        if let Some(charge) = charge {
            charge.settle(&probe, &outcome);
        }
        let (ended, max_backoff) = (self.now(), self.turns.limits.max_backoff());
        if self.backoff.heed(&outcome, self.next, ended, &self.plan, max_backoff) {
            self.remember();
        }
        Some(outcome)
    }

    /// How long an attempt from then on may take; `None`: not long enough to be of use.
    pub(super) fn time_left(&self, from: Instant) -> Option<Duration> {
        let due = self.anchor.instant(self.due(self.next));
        let timeout = W::probe(&self.target).timeout;
        let left = due.saturating_duration_since(from).saturating_sub(MARGIN).min(timeout);
        (left >= LEAST_TIME.min(timeout)).then_some(left)
    }
}
