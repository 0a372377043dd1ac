//! The probe worker loop: wait for the next slot, acquire permits, run, apply backoff.

use std::{
    mem,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    backoff::Backoff,
    limits::{Limits, Slot},
    on_demand::Waiters,
    pair::{PairCoordinator, PairDecision, PairHandle, StartSlot},
    plan::{Anchor, FIRST_RUN_WITHIN, Plan, Timestamp, hash},
    rate_limiter::{Permit, RateLimiter},
    recheck::Failed,
    work::{Event, Wait, Work},
};
use crate::{
    health::catch_panic,
    outcome::{Detail, Fault, Measure, Outcome, Reason, SkipCause},
};

/// Pause after a panic of the loop.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// Part of the allowed delay that a probe leaves for acquiring permits while it waits for the other
/// side of its comparison: one in this number.
const PERMIT_TIME_SHARE: u32 = 5;

/// Drift of the wall clock above which the next run is reported again, in nanoseconds: half a
/// second.
pub(super) const MAX_CLOCK_DRIFT: u128 = 500_000_000;

/// The worker of one probe. It is a single task that includes the runs, so runs of a probe cannot
/// overlap.
pub(super) struct Worker<W: Work> {
    pub(super) work: Arc<W>,
    pub(super) control: AdmissionControl,
    /// The probe's side of its comparison. `None` if it has none.
    pair: Option<PairHandle>,
    pub(super) anchor: Anchor,
    /// The probe's target in the current configuration. `None` if it was removed.
    pub(super) targets: watch::Receiver<Option<Arc<W::Target>>>,
    pub(super) target: Arc<W::Target>,
    pub(super) plan: Plan,
    /// First slot that is neither run nor skipped.
    pub(super) next: u64,
    /// Slot of the extra first run of a probe with a long interval, which is the last slot before
    /// its start, and when it is due instead. `None` if there is no extra first run.
    moved: Option<(u64, Timestamp)>,
    pub(super) backoff: Backoff,
    /// Requests for on-demand runs.
    pub(super) waiters: Waiters,
    /// Next run and end of the backoff, as last reported. `None` if not reported yet.
    reported: Option<(SystemTime, Option<SystemTime>)>,
    /// Lead of the wall clock over the anchor's, in nanoseconds. 0 until the clock is set.
    skew: i128,
    /// Whether the loop panicked and this has not been reported.
    panicked: bool,
}

/// Admission control shared by all probes.
pub(super) struct AdmissionControl {
    pub(super) limits: Arc<Limits>,
    pub(super) rate_limiter: Arc<RateLimiter>,
    pub(super) pairs: Arc<PairCoordinator>,
}

/// Permits of one run, held until it has ended.
pub(super) struct Admission {
    pub(super) permit: Permit,
    /// Released when it is dropped.
    _slot: Slot,
}

/// Relation of the current configuration to the worker's target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetChange {
    /// The configuration is equal.
    Unchanged,
    /// The configuration has changed.
    Changed,
    /// The probe was removed, or the scheduler stops.
    Gone,
}

impl<W: Work> Worker<W> {
    pub(super) fn new(
        work: Arc<W>,
        control: AdmissionControl,
        anchor: Anchor,
        target: Arc<W::Target>,
        targets: watch::Receiver<Option<Arc<W::Target>>>,
        waiters: Waiters,
    ) -> Self {
        let probe = W::probe(&target);
        let plan = Plan::new(probe.slot_name(), probe.interval);
        // Includes the start time, so that equal probes on different hosts have different jitter.
        let seed = hash(&probe.name) ^ anchor.epoch().0;
        let now = anchor.timestamp(Instant::now());
        let mut backoff = Backoff::new(seed);
        if let Some(Wait { until, step }) = work.persisted_wait(&target) {
            // Compare with the current wall clock, which may have been set since the anchor was.
            let left = |until: SystemTime| until.duration_since(work.wall_clock()).unwrap_or_default();
            let over = until.map(|until| now.plus(left(until)));
            backoff.restore((over, step), now, &plan, control.limits.max_backoff());
        }
        let next = plan.first_after(now);
        let mut worker = Self {
            work,
            control,
            pair: None,
            anchor,
            targets,
            target,
            plan,
            next,
            moved: None,
            backoff,
            waiters,
            reported: None,
            skew: 0,
            panicked: false,
        };
        worker.plan_first_run();
        worker.pair = worker.control.pairs.register(W::probe(&worker.target), worker.next);
        worker
    }

    /// Moves the last slot before now to within a minute from now if the probe has a long interval
    /// and no run in the last interval is known. The schedule alone would yield no result for that
    /// long.
    fn plan_first_run(&mut self) {
        let now = self.now();
        let next = self.plan.first_after(now);
        self.moved = None;
        let ago = |last: SystemTime| self.work.wall_clock().duration_since(last).unwrap_or_default();
        let is_known =
            self.work.last_run(&self.target).is_some_and(|last| ago(last) < W::probe(&self.target).interval);
        let first = self.plan.first_run(now).zip(next.checked_sub(1));
        if let Some((at, slot)) = first.filter(|_| !is_known && self.backoff.resume(next).is_none()) {
            self.skip_to(slot, SkipCause::Overrun);
            self.next = slot;
            self.moved = Some((slot, at));
        }
    }

    /// Postpones a first run that was held back by a minute, unless the next slot is as soon.
    /// Returns whether it did.
    fn postpone_first_run(&mut self) -> bool {
        let Some((slot, at)) = self.moved.filter(|(slot, _)| *slot == self.next) else { return false };
        let later = at.plus(FIRST_RUN_WITHIN);
        let fits = later.plus(self.plan.lateness()) < self.plan.due(slot + 1);
        if fits {
            self.moved = Some((slot, later));
        }
        fits
    }

    /// Returns when a slot is due.
    pub(super) fn due(&self, number: u64) -> Timestamp {
        self.moved.filter(|(slot, _)| *slot == number).map_or_else(|| self.plan.due(number), |(_, at)| at)
    }

    /// Runs the probe in its slots until it is removed or the scheduler stops. A run in flight is
    /// always awaited. After a panic the loop restarts with a pause; every slot is still accounted
    /// for.
    pub(super) async fn run(mut self) {
        while catch_panic(self.run_loop()).await.is_err() {
            self.panicked = true;
            select! {
                _ = self.targets.changed() => {}
                () = sleep(PANIC_PAUSE) => {}
            }
        }
    }

    async fn run_loop(&mut self) {
        if mem::take(&mut self.panicked) {
            self.reported = None;
            self.report(Event::Restarted);
        }
        while self.apply_target() != TargetChange::Gone {
            self.report_next_run();
            let due = self.anchor.instant(self.due(self.next));
            select! {
                biased;
                _ = self.targets.changed() => continue,
                () = sleep_until(due) => {}
                request = self.waiters.next() => {
                    self.run_on_demand(request).await;
                    continue;
                }
            }
            self.skip_missed_slots();
            if self.next_is_due()
                && self.has_budget()
                && let Some(start) = self.wait_for_pair().await
                && let Some(admission) = self.admission(start).await
            {
                let failed = self.run_next(start, admission).await;
                self.recheck_after(failed).await;
            }
        }
    }

    /// Applies the latest configuration. With the same interval the slots stay, and each is
    /// accounted for across the reload; with another interval the new slots begin now.
    pub(super) fn apply_target(&mut self) -> TargetChange {
        // The channel is closed when the scheduler stops.
        let open = self.targets.has_changed().is_ok();
        let Some(target) = self.targets.borrow_and_update().clone().filter(|_| open) else {
            return TargetChange::Gone;
        };
        if Arc::ptr_eq(&target, &self.target) {
            return TargetChange::Unchanged;
        }
        self.reported = None;
        let before = mem::replace(&mut self.target, target);
        let (before, after) = (W::probe(&before), W::probe(&self.target));
        if before == after {
            return TargetChange::Unchanged;
        }
        self.backoff.end();
        self.report_backoff();
        self.waiters.drop_waiting();
        let regrouped = before.comparison != after.comparison;
        if before.interval != after.interval || before.slot_name() != after.slot_name() {
            self.plan = Plan::new(after.slot_name(), after.interval);
            self.next = self.plan.first_after(self.now());
        }
        // With another provider, check or model it has no run yet.
        self.plan_first_run();
        self.report_progress();
        if regrouped {
            self.pair = self.control.pairs.register(W::probe(&self.target), self.next);
        }
        TargetChange::Changed
    }

    pub(super) fn report_next_run(&mut self) {
        let resume = self.backoff.resume(self.next);
        let next_run = self.due(self.paused_until(resume.unwrap_or(self.next)));
        self.report_waiting(next_run, resume.map(|resume| self.due(resume)));
    }

    /// Reports when the probe runs next, by the current wall clock, if that has changed.
    fn report_waiting(&mut self, next_run: Timestamp, backoff_until: Option<Timestamp>) {
        let skew = self.now().skew(self.work.wall_clock());
        // Smaller differences come from reading two clocks one after the other.
        if skew.abs_diff(self.skew) >= MAX_CLOCK_DRIFT {
            self.skew = skew;
            if self.backoff.persisted(self.next).is_some() {
                // It is persisted in wall-clock time.
                self.report_backoff();
            }
        }
        let wall = |due: Timestamp| due.wall(self.skew);
        let waiting = (wall(next_run), backoff_until.map(wall));
        if self.reported.replace(waiting) != Some(waiting) {
            let (next_run, backoff_until) = waiting;
            self.report(Event::Waiting { next_run, backoff_until });
        }
    }

    /// Skips slots that are too late after a stall of the process, so that no burst follows it, and
    /// slots during backoff.
    ///
    /// A probe in backoff wakes in each slot and skips one, so that the counter increases
    /// continuously and is right whenever a reload ends the backoff.
    fn skip_missed_slots(&mut self) {
        let now = self.now();
        let first = self.plan.first_from(now.minus(self.plan.lateness()));
        if let Some(resume) = self.backoff.resume(self.next) {
            self.skip_to(resume.min(self.plan.first_after(now)), SkipCause::Backoff);
        }
        // An extra first run is measured by its own due time, which is later than its slot.
        let in_time = self.due(self.next).plus(self.plan.lateness()) >= now;
        if !in_time {
            self.skip_to(first, SkipCause::Overrun);
        }
    }

    fn next_is_due(&self) -> bool {
        self.due(self.next) <= self.now()
    }

    /// Waits for the other side of the comparison if that one goes first. Returns `None` if a
    /// reload has changed the probe. It leaves part of the allowed delay for acquiring permits.
    async fn wait_for_pair(&mut self) -> Option<StartSlot> {
        let lateness = self.plan.lateness();
        let mut since = self.due(self.next);
        let mut start = StartSlot { since, latest: since.plus(lateness), other: None };
        loop {
            let Some(pair) = &mut self.pair else { return Some(start) };
            match pair.decide(self.next) {
                PairDecision::Now(None) => return Some(start),
                PairDecision::Now(other) => {
                    return Some(StartSlot { since, latest: since.plus(lateness), other });
                }
                PairDecision::Wait => {}
                PairDecision::After(end) => {
                    start.latest = end.plus(lateness);
                    self.report_waiting(end, None);
                }
            }
            let deadline = self.anchor.instant(start.latest.minus(lateness / PERMIT_TIME_SHARE));
            if Instant::now() >= deadline {
                return Some(start);
            }
            let Some(pair) = &mut self.pair else { return Some(start) };
            select! {
                biased;
                _ = self.targets.changed() => if self.apply_target() != TargetChange::Unchanged { return None },
                () = pair.wait_for_progress(deadline) => {}
            }
            since = self.now();
        }
    }

    /// Waits for the permits of a scheduled run. Returns `None` if they came too late, or if a
    /// reload has changed the probe. The rate limit comes first, so that no probe holds one of the
    /// total slots while it waits for its provider.
    async fn admission(&mut self, start: StartSlot) -> Option<Admission> {
        let latest = self.anchor.instant(start.latest);
        match self.acquire_permits(latest).await {
            Ok(admission) => Some(admission),
            Err(cause) => {
                let cause = cause?;
                let again = if self.postpone_first_run() { self.next } else { self.next + 1 };
                if cause == SkipCause::Pacing {
                    let due = self.anchor.instant(self.due(again));
                    self.control.rate_limiter.record_skip(W::probe(&self.target), due, self.plan.lateness());
                }
                self.skip_to(again, cause);
                self.waiters.skip(cause);
                None
            }
        }
    }

    /// Waits for the permits of an attempt, until `latest`. The error is the cause of the delay, or
    /// `None` if a reload has changed the probe.
    pub(super) async fn acquire_permits(&mut self, latest: Instant) -> Result<Admission, Option<SkipCause>> {
        let target = Arc::clone(&self.target);
        let AdmissionControl { limits, rate_limiter, pairs: _ } = &self.control;
        let (limits, rate_limiter) = (Arc::clone(limits), Arc::clone(rate_limiter));
        let permit = self.wait_for(rate_limiter.permit(W::probe(&target)), latest, SkipCause::Pacing).await?;
        let slot = limits.slot(&W::probe(&target).provider.name);
        let slot = self.wait_for(slot, latest, SkipCause::Concurrency).await?;
        Ok(Admission { permit, _slot: slot })
    }

    /// Waits for a permit. A probe whose configuration is unchanged keeps its queue position across
    /// reloads.
    async fn wait_for<T>(
        &mut self,
        turn: impl Future<Output = T>,
        latest: Instant,
        cause: SkipCause,
    ) -> Result<T, Option<SkipCause>> {
        let mut turn = pin!(turn);
        let turn = loop {
            select! {
                biased;
                _ = self.targets.changed() => if self.apply_target() != TargetChange::Unchanged { return Err(None) },
                turn = &mut turn => break Some(turn),
                () = sleep_until(latest) => break None,
            }
        };
        // Timers fire a millisecond or two late, and a permit may come in that time.
        turn.filter(|_| Instant::now() <= latest).ok_or(Some(cause))
    }

    /// Returns the first slot from `number` on for which there can be budget.
    fn paused_until(&self, number: u64) -> u64 {
        let pause = self.work.budget().and_then(|budget| budget.pause(W::probe(&self.target)));
        pause.map_or(number, |pause| number.max(self.plan.first_from(self.now().plus(pause))))
    }

    /// Returns whether there is budget for the scheduled run, and skips it if there is none.
    fn has_budget(&mut self) -> bool {
        let room = self.has_room();
        if !room {
            self.skip_to(self.next + 1, SkipCause::Budget);
        }
        room
    }

    /// Returns whether there is budget for a run.
    pub(super) fn has_room(&self) -> bool {
        self.work.budget().is_none_or(|budget| budget.has_room(W::probe(&self.target)))
    }

    /// Runs the probe and applies the result. Returns the failure if it may be rechecked.
    async fn run_next(&mut self, start: StartSlot, mut admission: Admission) -> Option<Failed> {
        // While it waited for permits, other probes may have spent the budget.
        if !self.has_budget() {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let (work, probe) = (Arc::clone(&self.work), Arc::clone(W::probe(&self.target)));
        let charge = work.budget().and_then(|budget| budget.charge(&probe));
        let begun = self.now();
        if let Some(pair) = &self.pair {
            pair.run_started(number, begun.plus(probe.timeout));
        }
        // The delay of the second side of a pair counts from the end of the first.
        self.report(Event::Started { lag: begun.since(start.since) });
        admission.permit.begin();
        let (runner, target) = (Arc::clone(&self.work), Arc::clone(&self.target));
        let mut outcome = attempt(async move { runner.run(target).await }).await;
        admission.permit.end(&outcome);
        let measure = Measure::new(&outcome);
        outcome.compared = self.pair.as_ref().map(|pair| Box::new(pair.comparison(measure, start.other)));
        let ended = self.now();
        if let Some(charge) = charge {
            charge.settle(&probe, &outcome);
        }
        self.waiters.answer(&outcome);
        let first = self.plan.first_from(ended.minus(self.plan.grace()));
        self.skip_to(first, SkipCause::Overrun);
        let max_backoff = self.control.limits.max_backoff();
        self.backoff.record(&outcome, (number, self.next), ended, &self.plan, max_backoff);
        self.report_backoff();
        let failed = Failed::from_outcome(&outcome);
        self.report(Event::Finished(outcome));
        // Release the other side last, when everything else is done.
        if let Some(pair) = &self.pair {
            pair.run_ended(number, measure);
        }
        failed
    }

    /// Reports the backoff to persist, in current wall-clock time.
    pub(super) fn report_backoff(&self) {
        let kept = self.backoff.persisted(self.next);
        // The wall clock is read last, so that rounding makes the wait longer, never shorter.
        let wall = |over: Timestamp| {
            let left = over.since(self.now());
            self.work.wall_clock() + left
        };
        let wait = kept.map(|(over, step)| Wait { until: over.map(wall), step });
        self.report(Event::PersistWait(wait));
    }

    /// Counts the slots before `number` that are not accounted for as skipped.
    fn skip_to(&mut self, number: u64, cause: SkipCause) {
        let runs = number.saturating_sub(self.next);
        if runs > 0 {
            self.next = number;
            self.report_progress();
            self.report(Event::Skipped { cause, runs });
            self.waiters.skip(cause);
        }
    }

    /// Reports this probe's progress to the other side of its comparison.
    fn report_progress(&self) {
        if let Some(pair) = &self.pair {
            pair.set_next(self.next);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.anchor.timestamp(Instant::now())
    }

    pub(super) fn report(&self, event: Event) {
        self.work.report(&self.target, event);
    }
}

/// Performs one run. A panic becomes an outcome, so that neither the worker nor another probe is
/// affected. The future is boxed so that a sleeping probe does not hold the memory of a run.
pub(super) async fn attempt(run: impl Future<Output = Outcome>) -> Outcome {
    let (time, begun) = (SystemTime::now(), Instant::now());
    catch_panic(Box::pin(run)).await.unwrap_or_else(|_| {
        let mut outcome = Outcome::new(time, Reason::Internal, Fault::Prober);
        outcome.detail = Some(Detail::Panicked);
        outcome.duration = begun.elapsed();
        outcome
    })
}
