//! Test harness: scripted runs, and an account of every slot.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    config::{Key, KeySource, Probe, Provider, Schedule, Secret, Task, testing},
    outcome::{Api, Fault, Outcome, Phases, Reason, SkipCause},
    schedule::{
        Anchor, DailyBudget, Event, Scheduler, Wait, Work,
        plan::{Plan, Timestamp},
    },
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// A timer fires in the millisecond after its time, and a run may begin after two timers.
pub(super) const TIMER: Duration = Duration::from_millis(2);

pub(super) const UNLIMITED: Schedule =
    Schedule { max_concurrent: 10_000, max_concurrent_per_provider: 10_000, max_backoff: MINUTE };

/// Result of each run of a target, by its number from 0.
pub(super) type Script = fn(usize) -> Step;

#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) lasts: Duration,
    /// `None` if the run panics.
    pub(super) result: Option<(Reason, Option<f64>)>,
}

pub(super) fn ok(lasts: Duration) -> Step {
    Step { lasts, result: Some((Reason::Ok, None)) }
}

pub(super) fn quick(_run: usize) -> Step {
    ok(Duration::from_millis(10))
}

pub(super) struct Target {
    pub(super) probe: Arc<Probe>,
    pub(super) script: Script,
    pub(super) wait: Option<Wait>,
    /// Start of the last run before the restart.
    pub(super) last_run: Option<SystemTime>,
}

#[derive(Clone)]
pub(super) struct Entry {
    /// Position among the entries of all probes.
    pub(super) order: usize,
    pub(super) at: Instant,
    pub(super) name: String,
    pub(super) target: Arc<Target>,
    pub(super) event: Event,
}

/// Executes the scripts and keeps the reported events.
pub(super) struct ScriptedWork {
    /// Anchor of the wall clock.
    anchor: Anchor,
    /// Step of the wall clock, in seconds.
    set: AtomicI64,
    /// Whether the next report panics.
    pub(super) trap: AtomicBool,
    /// Events by probe name.
    entries: Mutex<HashMap<String, Vec<Entry>>>,
    reported: AtomicUsize,
    runs: Mutex<HashMap<String, usize>>,
    pub(super) budget: Option<Arc<DailyBudget>>,
}

impl Work for ScriptedWork {
    type Target = Target;

    fn probe(target: &Target) -> &Arc<Probe> {
        &target.probe
    }

    fn budget(&self) -> Option<&DailyBudget> {
        self.budget.as_deref()
    }

    fn persisted_wait(&self, target: &Target) -> Option<Wait> {
        target.wait
    }

    fn last_run(&self, target: &Target) -> Option<SystemTime> {
        target.last_run
    }

    async fn run(&self, target: Arc<Target>) -> Outcome {
        let run = {
            let mut runs = self.runs.lock().unwrap();
            let count = runs.entry(target.probe.name.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let Step { lasts, result } = (target.script)(run);
        sleep(lasts).await;
        let (reason, retry_after) = result.expect("this script has a run that panics");
        let fault = if reason == Reason::Ok { Fault::None } else { Fault::Caller };
        let phases = Phases { processing: lasts, ..Phases::default() };
        let nothing = Outcome::new(SystemTime::UNIX_EPOCH, reason, fault);
        Outcome { retry_after, duration: lasts, phases, ..nothing }
    }

    async fn run_within(&self, target: Arc<Target>, within: Duration) -> Outcome {
        let cut = timeout(within, self.run(target)).await;
        cut.unwrap_or_else(|_| Outcome::new(SystemTime::UNIX_EPOCH, Reason::Timeout, Fault::Caller))
    }

    fn wall_clock(&self) -> SystemTime {
        let undisturbed = self.anchor.wall + (Instant::now() - self.anchor.monotonic);
        let seconds = self.set.load(Ordering::Relaxed);
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { undisturbed - distance } else { undisturbed + distance }
    }

    fn report(&self, target: &Arc<Target>, event: Event) {
        assert!(!self.trap.swap(false, Ordering::Relaxed), "on purpose");
        let (target, name) = (Arc::clone(target), target.probe.name.clone());
        let order = self.reported.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { order, at: Instant::now(), name: name.clone(), target, event };
        self.entries.lock().unwrap().entry(name).or_default().push(entry);
    }
}

impl ScriptedWork {
    fn new(anchor: Anchor) -> Self {
        Self {
            anchor,
            budget: None,
            set: AtomicI64::new(0),
            trap: AtomicBool::new(false),
            entries: Mutex::default(),
            reported: AtomicUsize::new(0),
            runs: Mutex::default(),
        }
    }

    /// Sets the wall clock that far from its original time, forward or (if negative) back.
    pub(super) fn set_clock(&self, seconds: i64) {
        self.set.store(seconds, Ordering::Relaxed);
    }

    /// Returns the events of all probes, in order.
    pub(super) fn all(&self) -> Vec<Entry> {
        let mut all: Vec<_> = self.entries.lock().unwrap().values().flatten().cloned().collect();
        all.sort_by_key(|entry| entry.order);
        all
    }
}

pub(super) struct Harness {
    pub(super) work: Arc<ScriptedWork>,
    pub(super) anchor: Anchor,
    pub(super) scheduler: Scheduler<ScriptedWork>,
}

/// Number of a probe's slots by result.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) runs: u64,
    pub(super) backoff: u64,
    pub(super) budget: u64,
    pub(super) overrun: u64,
    pub(super) concurrency: u64,
    pub(super) pacing: u64,
    pub(super) max_lag: Duration,
}

impl Harness {
    pub(super) fn start(limits: &Schedule, targets: Vec<Arc<Target>>) -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_800_000_000_123_456_789);
        let anchor = Anchor { monotonic: Instant::now(), wall };
        Self::start_at(anchor, limits, targets, None)
    }

    /// Opens at that time and with that budget.
    pub(super) fn start_at(
        anchor: Anchor,
        limits: &Schedule,
        targets: Vec<Arc<Target>>,
        budget: Option<Arc<DailyBudget>>,
    ) -> Self {
        let work = Arc::new(ScriptedWork { budget, ..ScriptedWork::new(anchor) });
        let mut scheduler = Scheduler::new(Arc::clone(&work), anchor, limits);
        scheduler.apply(limits, targets);
        Self { work, anchor, scheduler }
    }

    /// Sleeps until this long after the opening.
    pub(super) async fn until(&self, elapsed: Duration) {
        sleep_until(self.anchor.monotonic + elapsed).await;
    }

    /// Returns the time of the probe's first slot, relative to the opening.
    pub(super) fn first_due(&self, probe: &Probe) -> Duration {
        let plan = Plan::new(probe.slot_name(), probe.interval);
        plan.due(plan.first_after(self.anchor.epoch())).since(self.anchor.epoch())
    }

    pub(super) fn entries(&self, name: &str) -> Vec<Entry> {
        self.work.entries.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    /// Follows a probe through all events. Checks that each slot since the opening is run or
    /// skipped once and in order, that every run starts at or after its slot, and that none starts
    /// before the previous one has ended.
    #[track_caller]
    pub(super) fn account(&self, probe: &Probe) -> Account {
        let plan = Plan::new(&probe.name, probe.interval);
        let opening = self.anchor.epoch();
        let mut next = plan.first_after(opening);
        let unknown = |entry: &Entry| entry.target.last_run.is_none() && entry.target.wait.is_none();
        let has_first_run = self.entries(&probe.name).first().is_some_and(unknown);
        // An extra first run takes the slot before the opening.
        let first_run = plan.first_run(opening).filter(|_| has_first_run).map(|at| (next - 1, at));
        next -= u64::from(first_run.is_some());
        let due = |number| match first_run {
            Some((slot, at)) if slot == number => at,
            _ => plan.due(number),
        };
        let mut account = Account::default();
        let mut running = false;
        for Entry { at, event, .. } in self.entries(&probe.name) {
            match event {
                Event::Waiting { .. }
                | Event::Charged
                | Event::Rechecked(_)
                | Event::OnDemand(_)
                | Event::PersistWait(_)
                | Event::Restarted => {}
                Event::Skipped { cause, runs } => {
                    assert!(runs > 0, "{}", probe.name);
                    next += runs;
                    match cause {
                        SkipCause::Backoff => account.backoff += runs,
                        SkipCause::Budget => account.budget += runs,
                        SkipCause::Overrun => account.overrun += runs,
                        SkipCause::Concurrency => account.concurrency += runs,
                        SkipCause::Pacing => account.pacing += runs,
                    }
                }
                Event::Started { lag } => {
                    assert!(!running, "{}: runs overlap", probe.name);
                    assert_eq!(self.anchor.timestamp(at).minus(lag), due(next), "{}", probe.name);
                    running = true;
                    next += 1;
                    account.runs += 1;
                    account.max_lag = account.max_lag.max(lag);
                }
                Event::Finished(_) => {
                    assert!(running, "{}: ended without a start", probe.name);
                    running = false;
                }
            }
        }
        let now = self.anchor.timestamp(Instant::now());
        // A slot that is waiting for a permit, or that passes during a run, is not accounted for
        // yet.
        let is_pending = due(next) > now.minus(plan.lateness().max(TIMER));
        let settled = if running || is_pending {
            next
        } else {
            plan.first_after(now.minus(plan.lateness().max(TIMER)))
        };
        assert!((settled..=plan.first_after(now)).contains(&next), "{}: slots are missing", probe.name);
        account
    }

    /// Returns the next run and whether it is due to backoff, as last reported.
    pub(super) fn last_reported(&self, name: &str) -> (Timestamp, bool) {
        let waiting = self.entries(name).into_iter().rev().find_map(|entry| match entry.event {
            Event::Waiting { next_run, backoff_until } => Some((next_run, backoff_until)),
            _ => None,
        });
        let (next_run, backoff_until) = waiting.unwrap();
        assert!(backoff_until.is_none_or(|until| until == next_run));
        let since_1970 = next_run.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        (Timestamp(0).plus(since_1970), backoff_until.is_some())
    }
}

pub(super) fn provider(name: &str, key: &str) -> Arc<Provider> {
    let key = Key { value: Secret::new(key.to_owned()), source: KeySource::Env("KEY".to_owned()) };
    Arc::new(Provider { key: Some(key), ..testing::provider(name, Api::Openai, "https://llm.example/v1") })
}

pub(super) fn probe(name: &str, provider: &Arc<Provider>, interval: Duration) -> Probe {
    Probe { interval, timeout: interval, ..testing::probe(name, provider, Task::Auth) }
}

pub(super) fn target(name: &str, interval: Duration, script: Script) -> Arc<Target> {
    at_provider(name, "corp", interval, script)
}

pub(super) fn at_provider(
    name: &str,
    provider_name: &str,
    interval: Duration,
    script: Script,
) -> Arc<Target> {
    with(probe(name, &provider(provider_name, "k"), interval), script)
}

pub(super) fn with(probe: Probe, script: Script) -> Arc<Target> {
    Arc::new(Target { probe: Arc::new(probe), script, wait: None, last_run: None })
}
