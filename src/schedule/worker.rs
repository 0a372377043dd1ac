//! The loop of one probe: sleep until it is due, be let in, run, see what follows.

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
    demand::Demands,
    limits::{Limits, Slot},
    pacing::{Pacing, Permit},
    pair::{Cue, Meetings, Seat, Turn},
    plan::{Anchor, FIRST_RUN_WITHIN, Moment, Plan, hash},
    recheck::Failed,
    work::{Event, Wait, Work},
};
use crate::{
    health::catch_panic,
    outcome::{Fault, Measure, Outcome, Reason, SkipCause},
};

/// How long a probe rests whose loop panicked.
const PAUSE: Duration = Duration::from_secs(1);

/// Who waits for the other probe of a comparison leaves a part of the time by which it may be late: one in so many.
const ADMISSION_PART: u32 = 5;

/// How far the wall clock may drift before the next run is told anew, in nanoseconds: half a second.
pub(super) const DRIFT: u128 = 500_000_000;

/// One probe. It is one task, and every run of the probe is inside that task: runs cannot overlap.
pub(super) struct Worker<W: Work> {
    pub(super) work: Arc<W>,
    pub(super) turns: Turns,
    /// Where the probe meets the other one of its comparison; `None`: it is in none.
    seat: Option<Seat>,
    pub(super) anchor: Anchor,
    /// What the configuration in force has for this probe; `None`: nothing any more.
    pub(super) targets: watch::Receiver<Option<Arc<W::Target>>>,
    pub(super) target: Arc<W::Target>,
    pub(super) plan: Plan,
    /// The number of the first due time that is neither run nor skipped yet.
    pub(super) next: u64,
    /// The slot that the first run of a rare probe takes, the last one before its start, and when it is due instead.
    /// `None` if there is no first run beside the schedule.
    moved: Option<(u64, Moment)>,
    pub(super) backoff: Backoff,
    /// Who asks for a run of now.
    pub(super) demands: Demands,
    /// What the target was last told of its next run and backoff; `None`: nothing yet.
    told: Option<(SystemTime, Option<SystemTime>)>,
    /// How far the wall clock is ahead of the anchor's, in nanoseconds; 0 until it was set.
    skew: i128,
    /// The loop panicked, which is not told yet.
    panicked: bool,
}

/// What lets the runs of all probes in.
pub(super) struct Turns {
    pub(super) limits: Arc<Limits>,
    pub(super) pacing: Arc<Pacing>,
    pub(super) meetings: Arc<Meetings>,
}

/// What one run is let in with, until it has ended.
pub(super) struct Admission {
    pub(super) permit: Permit,
    /// Held until it is dropped.
    _slot: Slot,
}

/// What the configuration in force says of the probe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To be run as before.
    Unchanged,
    /// To be run in another way.
    Changed,
    /// Not to be run: removed, or the scheduler stops.
    Gone,
}

impl<W: Work> Worker<W> {
    pub(super) fn new(
        work: Arc<W>,
        turns: Turns,
        anchor: Anchor,
        target: Arc<W::Target>,
        targets: watch::Receiver<Option<Arc<W::Target>>>,
        demands: Demands,
    ) -> Self {
        let probe = W::probe(&target);
        let plan = Plan::new(probe.slot_name(), probe.interval);
        // With the time of the start in it, equal probes on different hosts draw different jitter.
        let seed = hash(&probe.name) ^ anchor.epoch().0;
        let now = anchor.moment(Instant::now());
        let mut backoff = Backoff::new(seed);
        if let Some(Wait { until, step }) = work.remembered(&target) {
            // What is left of it by the clock that it was told by, which may have been set since the anchor was.
            let left = |until: SystemTime| until.duration_since(work.wall_clock()).unwrap_or_default();
            let over = until.map(|until| now.plus(left(until)));
            backoff.restore((over, step), now, &plan, turns.limits.max_backoff());
        }
        let next = plan.first_after(now);
        let mut worker = Self {
            work,
            turns,
            seat: None,
            anchor,
            targets,
            target,
            plan,
            next,
            moved: None,
            backoff,
            demands,
            told: None,
            skew: 0,
            panicked: false,
        };
        worker.plan_first_run();
        worker.seat = worker.turns.meetings.seat(W::probe(&worker.target), worker.next);
        worker
    }

    /// Moves the slot before the next one to within a minute from now where the probe is rare and no run of the last
    /// interval is known: by the schedule alone there would be no result for as long.
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

    /// Moves a first run that was held back to a minute later, unless the next slot is as soon. Returns whether it did.
    fn postpone_first_run(&mut self) -> bool {
        let Some((slot, at)) = self.moved.filter(|(slot, _)| *slot == self.next) else { return false };
        let later = at.plus(FIRST_RUN_WITHIN);
        let fits = later.plus(self.plan.lateness()) < self.plan.due(slot + 1);
        if fits {
            self.moved = Some((slot, later));
        }
        fits
    }

    /// When a slot is due.
    pub(super) fn due(&self, number: u64) -> Moment {
        self.moved.filter(|(slot, _)| *slot == number).map_or_else(|| self.plan.due(number), |(_, at)| at)
    }

    /// Runs the probe at its due times until it is removed or the scheduler stops. A run in flight is always awaited.
    /// A panic, which would be a bug of ours, costs a pause; every due time is accounted for over it.
    pub(super) async fn run(mut self) {
        while catch_panic(self.live()).await.is_err() {
            self.panicked = true;
            select! {
                _ = self.targets.changed() => {}
                () = sleep(PAUSE) => {}
            }
        }
    }

    async fn live(&mut self) {
        if mem::take(&mut self.panicked) {
            self.told = None;
            self.report(Event::Restarted);
        }
        while self.follow() != Verdict::Gone {
            self.tell_next_run();
            let due = self.anchor.instant(self.due(self.next));
            select! {
                biased;
                _ = self.targets.changed() => continue,
                () = sleep_until(due) => {}
                demand = self.demands.next() => {
                    self.serve(demand).await;
                    continue;
                }
            }
            self.skip_what_is_missed();
            if self.next_is_due()
                && self.has_budget()
                && let Some(cue) = self.cue().await
                && let Some(admission) = self.admission(cue).await
            {
                let failed = self.run_next(cue, admission).await;
                self.recheck_after(failed).await;
            }
        }
    }

    /// Takes over what the last reload says. With the same interval the grid stays, and every due time is accounted
    /// for over the reload; with another, the new grid begins now.
    pub(super) fn follow(&mut self) -> Verdict {
        // The channel is closed when the scheduler stops.
        let open = self.targets.has_changed().is_ok();
        let Some(target) = self.targets.borrow_and_update().clone().filter(|_| open) else {
            return Verdict::Gone;
        };
        if Arc::ptr_eq(&target, &self.target) {
            return Verdict::Unchanged;
        }
        self.told = None;
        let before = mem::replace(&mut self.target, target);
        let (before, after) = (W::probe(&before), W::probe(&self.target));
        if before == after {
            return Verdict::Unchanged;
        }
        self.backoff.end();
        self.remember();
        self.demands.dismiss();
        let regrouped = before.comparison != after.comparison;
        if before.interval != after.interval || before.slot_name() != after.slot_name() {
            self.plan = Plan::new(after.slot_name(), after.interval);
            self.next = self.plan.first_after(self.now());
        }
        // With another provider, check or model it has no run yet.
        self.plan_first_run();
        self.tell_other();
        if regrouped {
            self.seat = self.turns.meetings.seat(W::probe(&self.target), self.next);
        }
        Verdict::Changed
    }

    pub(super) fn tell_next_run(&mut self) {
        let resume = self.backoff.resume(self.next);
        let next_run = self.due(self.paused_until(resume.unwrap_or(self.next)));
        self.tell(next_run, resume.map(|resume| self.due(resume)));
    }

    /// Tells when the probe runs next, by the wall clock of now, where that has changed.
    fn tell(&mut self, next_run: Moment, backoff_until: Option<Moment>) {
        let skew = self.now().skew(self.work.wall_clock());
        // Only a clock that was set counts: reading two clocks one after the other differs by a little each time.
        if skew.abs_diff(self.skew) >= DRIFT {
            self.skew = skew;
            if self.backoff.kept(self.next).is_some() {
                // It is kept by the wall clock.
                self.remember();
            }
        }
        let wall = |due: Moment| due.wall(self.skew);
        let waiting = (wall(next_run), backoff_until.map(wall));
        if self.told.replace(waiting) != Some(waiting) {
            let (next_run, backoff_until) = waiting;
            self.report(Event::Waiting { next_run, backoff_until });
        }
    }

    /// Skips what a stall of the process has made too late, so that no burst follows it, and what a wait passes over.
    ///
    /// A probe that waits wakes at each due time and skips one: the counter grows as time goes by, and is right
    /// whenever a reload ends the wait.
    fn skip_what_is_missed(&mut self) {
        let now = self.now();
        let first = self.plan.first_from(now.minus(self.plan.lateness()));
        if let Some(resume) = self.backoff.resume(self.next) {
            self.skip_to(resume.min(self.plan.first_after(now)), SkipCause::Backoff);
        }
        // A first run is late by its own due time, which is behind that of its slot.
        let in_time = self.due(self.next).plus(self.plan.lateness()) >= now;
        if !in_time {
            self.skip_to(first, SkipCause::Overrun);
        }
    }

    fn next_is_due(&self) -> bool {
        self.due(self.next) <= self.now()
    }

    /// Waits for the other probe of a comparison where that one goes first; `None`: a reload has changed the probe. A part
    /// of the time by which it may be late is left, for being let in.
    async fn cue(&mut self) -> Option<Cue> {
        let lateness = self.plan.lateness();
        let mut since = self.due(self.next);
        let mut cue = Cue { since, latest: since.plus(lateness), other: None };
        loop {
            let Some(seat) = &mut self.seat else { return Some(cue) };
            match seat.turn(self.next) {
                Turn::Now(None) => return Some(cue),
                Turn::Now(other) => return Some(Cue { since, latest: since.plus(lateness), other }),
                Turn::Wait => {}
                Turn::After(end) => {
                    cue.latest = end.plus(lateness);
                    self.tell(end, None);
                }
            }
            let deadline = self.anchor.instant(cue.latest.minus(lateness / ADMISSION_PART));
            if Instant::now() >= deadline {
                return Some(cue);
            }
            let Some(seat) = &mut self.seat else { return Some(cue) };
            select! {
                biased;
                _ = self.targets.changed() => if self.follow() != Verdict::Unchanged { return None },
                () = seat.changed(deadline) => {}
            }
            since = self.now();
        }
    }

    /// Waits until pace and limits let the run in that is due; `None`: it came too late, or a reload has changed the
    /// probe. The pace comes first: nobody holds one of the places of all while waiting for its provider's.
    async fn admission(&mut self, cue: Cue) -> Option<Admission> {
        let latest = self.anchor.instant(cue.latest);
        match self.admitted(latest).await {
            Ok(admission) => Some(admission),
            Err(cause) => {
                let cause = cause?;
                let again = if self.postpone_first_run() { self.next } else { self.next + 1 };
                if cause == SkipCause::Pacing {
                    let due = self.anchor.instant(self.due(again));
                    self.turns.pacing.pass_over(W::probe(&self.target), due, self.plan.lateness());
                }
                self.skip_to(again, cause);
                self.demands.skip(cause);
                None
            }
        }
    }

    /// Waits until pace and limits let an attempt in, until `latest`. The error is what held it back for so long; `None`:
    /// a reload has changed the probe.
    pub(super) async fn admitted(&mut self, latest: Instant) -> Result<Admission, Option<SkipCause>> {
        let target = Arc::clone(&self.target);
        let Turns { limits, pacing, meetings: _ } = &self.turns;
        let (limits, pacing) = (Arc::clone(limits), Arc::clone(pacing));
        let permit = self.turn(pacing.permit(W::probe(&target)), latest, SkipCause::Pacing).await?;
        let slot = limits.slot(&W::probe(&target).provider.name);
        let slot = self.turn(slot, latest, SkipCause::Concurrency).await?;
        Ok(Admission { permit, _slot: slot })
    }

    /// Waits for a turn; an unchanged probe keeps its place in the queue over reloads.
    async fn turn<T>(
        &mut self,
        turn: impl Future<Output = T>,
        latest: Instant,
        cause: SkipCause,
    ) -> Result<T, Option<SkipCause>> {
        let mut turn = pin!(turn);
        let turn = loop {
            select! {
                biased;
                _ = self.targets.changed() => if self.follow() != Verdict::Unchanged { return Err(None) },
                turn = &mut turn => break Some(turn),
                () = sleep_until(latest) => break None,
            }
        };
        // Timers are late by a millisecond or two, in which a turn can come.
        turn.filter(|_| Instant::now() <= latest).ok_or(Some(cause))
    }

    /// The first run at or after that one for which there can be budget.
    fn paused_until(&self, number: u64) -> u64 {
        let pause = self.work.budget().and_then(|budget| budget.pause(W::probe(&self.target)));
        pause.map_or(number, |pause| number.max(self.plan.first_from(self.now().plus(pause))))
    }

    /// Whether there is budget for the run that is due; skips it where there is not.
    fn has_budget(&mut self) -> bool {
        let room = self.has_room();
        if !room {
            self.skip_to(self.next + 1, SkipCause::Budget);
        }
        room
    }

    /// Whether there is budget for a run.
    pub(super) fn has_room(&self) -> bool {
        self.work.budget().is_none_or(|budget| budget.has_room(W::probe(&self.target)))
    }

    /// One run, and what follows from it. The value is the reason and the hint of a failed one.
    async fn run_next(&mut self, cue: Cue, mut admission: Admission) -> Option<Failed> {
        // While it waited to be let in, others may have spent what there was.
        if !self.has_budget() {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let (work, probe) = (Arc::clone(&self.work), Arc::clone(W::probe(&self.target)));
        let charge = work.budget().and_then(|budget| budget.charge(&probe));
        let begun = self.now();
        if let Some(seat) = &self.seat {
            seat.begins(number, begun.plus(probe.timeout));
        }
        // The second of a pair begins when it should; one that waited in vain is late.
        self.report(Event::Started { lag: begun.since(cue.since) });
        admission.permit.begin();
        let (runner, target) = (Arc::clone(&self.work), Arc::clone(&self.target));
        let mut outcome = attempt(async move { runner.run(target).await }).await;
        admission.permit.end(&outcome);
        let measure = Measure::of(&outcome);
        outcome.compared = self.seat.as_ref().map(|seat| Box::new(seat.compared(measure, cue.other)));
        let ended = self.now();
        if let Some(charge) = charge {
            charge.settle(&probe, &outcome);
        }
        self.demands.share(&outcome);
        let first = self.plan.first_from(ended.minus(self.plan.grace()));
        self.skip_to(first, SkipCause::Overrun);
        let max_backoff = self.turns.limits.max_backoff();
        self.backoff.note(&outcome, (number, self.next), ended, &self.plan, max_backoff);
        self.remember();
        let failed = Failed::of(&outcome);
        self.report(Event::Finished(outcome));
        // The other one begins now: what this run leaves to do is done.
        if let Some(seat) = &self.seat {
            seat.ended(number, measure);
        }
        failed
    }

    /// Tells what a restart must not forget. By the wall clock of now: the anchor's may have been set since.
    pub(super) fn remember(&self) {
        let kept = self.backoff.kept(self.next);
        // The wall clock is read last: what is rounded makes the wait longer, never shorter.
        let wall = |over: Moment| {
            let left = over.since(self.now());
            self.work.wall_clock() + left
        };
        let wait = kept.map(|(over, step)| Wait { until: over.map(wall), step });
        self.report(Event::Remember(wait));
    }

    /// Counts every due time before run `number` that is not accounted for yet as skipped.
    fn skip_to(&mut self, number: u64, cause: SkipCause) {
        let runs = number.saturating_sub(self.next);
        if runs > 0 {
            self.next = number;
            self.tell_other();
            self.report(Event::Skipped { cause, runs });
            self.demands.skip(cause);
        }
    }

    /// Tells the other probe of a comparison how far this one has come.
    fn tell_other(&self) {
        if let Some(seat) = &self.seat {
            seat.passed(self.next);
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.anchor.moment(Instant::now())
    }

    pub(super) fn report(&self, event: Event) {
        self.work.report(&self.target, event);
    }
}

/// One run. A panic in it becomes an outcome, so that it takes neither the probe's loop nor another probe along. It is
/// boxed so that a sleeping probe does not hold the memory of a run.
pub(super) async fn attempt(run: impl Future<Output = Outcome>) -> Outcome {
    let (time, begun) = (SystemTime::now(), Instant::now());
    catch_panic(Box::pin(run)).await.unwrap_or_else(|_| {
        let mut outcome = Outcome::new(time, Reason::Internal, Fault::Prober);
        outcome.detail = "the run panicked".into();
        outcome.duration = begun.elapsed();
        outcome
    })
}
