//! Where probes, schedule, metrics and records meet: what a run is, and who hears of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tracing::{error, info, warn};

use super::memory::{self, Memory};
use crate::{
    config::Probe,
    health::{Health, Silence},
    history::{History, ProbeHistory, Waiting},
    metrics::{ComparisonSeries, Last, Metrics, Series},
    outcome::{Fault, Outcome, Reason, SkipCause, Subject, rfc3339},
    probe::Target,
    schedule::{Budget, Event, Spent, Wait, Work},
    state::Identity,
};

/// How much longer than it may take a probe is silent before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A probe made ready, with the series that its runs write to.
pub(super) struct Watched {
    target: Arc<Target>,
    series: Arc<Series>,
    history: Arc<ProbeHistory>,
    /// What the pairs of the probe's comparison write to; `None`: it is in none.
    comparison: Option<Arc<ComparisonSeries>>,
    identity: Arc<Identity>,
    silence: Silence,
}

impl Watched {
    pub(super) fn new(
        target: Arc<Target>,
        metrics: &Metrics,
        history: &History,
        health: &Health,
    ) -> Arc<Self> {
        let probe = target.probe();
        let series = metrics.series(probe);
        let history = history.of(probe);
        let comparison = probe.comparison.as_deref().and_then(|wanted| metrics.comparison(wanted));
        let identity = Arc::new(Identity::of(probe.subject()));
        let silence = health.silence(format!("probe {}", probe.name), longest_run(probe));
        Arc::new(Self { target, series, history, comparison, identity, silence })
    }

    /// Takes note of what the probe does: how long it may be silent from here on.
    fn hear(&self, event: &Event) {
        match event {
            // Held back, it starts or is skipped within seconds.
            Event::Waiting { next_run, .. } => {
                let wait = next_run.duration_since(SystemTime::now()).unwrap_or_default();
                self.silence.lasts(wait + PATIENCE);
            }
            // It is beside the schedule, and has ended before the next run is due.
            Event::Demanded(_) | Event::Charged => {}
            _ => self.silence.lasts(longest_run(self.target.probe())),
        }
    }
}

fn longest_run(probe: &Probe) -> Duration {
    probe.interval + probe.timeout + PATIENCE
}

/// Hands the scheduler the probes' runs, and everybody else what they found. Nothing here waits.
pub(super) struct Delivery {
    metrics: Arc<Metrics>,
    memory: Arc<Memory>,
    budget: Arc<Budget>,
    restarts: Arc<AtomicU64>,
    offline: Offline,
}

/// How long it is taken for granted whether the prober is offline.
const OFFLINE_FOR: Duration = Duration::from_secs(1);

/// Whether the prober itself was offline when it was last looked at: a thousand probes whose runs fail on the network in
/// the same second do not look at the last runs of a thousand each.
#[derive(Debug, Default)]
struct Offline(Mutex<Option<(Instant, bool)>>);

impl Offline {
    /// Whether an outcome came while it was.
    fn at(&self, outcome: &Outcome, metrics: &Metrics) -> bool {
        if outcome.fault != Fault::Network {
            return false;
        }
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *looked {
            Some((at, offline)) if at.elapsed() < OFFLINE_FOR => offline,
            _ => {
                let offline = metrics.offline(SystemTime::now()) == Some(true);
                *looked = Some((Instant::now(), offline));
                offline
            }
        }
    }
}

/// A run under way. Dropped, it is over, also where it panicked or was aborted.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.run_started();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.run_ended();
    }
}

impl Delivery {
    /// `restarts` counts how often the loop of a probe was started again.
    pub(super) fn new(
        metrics: Arc<Metrics>,
        memory: Arc<Memory>,
        budget: Arc<Budget>,
        restarts: Arc<AtomicU64>,
    ) -> Self {
        Self { metrics, memory, budget, restarts, offline: Offline::default() }
    }

    /// Tells what a generating run has changed.
    fn spent(&self, target: &Watched) {
        if target.target.probe().check().generates() {
            memory::show(&self.budget, &self.metrics);
            self.memory.spent(&self.budget);
        }
    }

    /// Says once a day that the budget is reached.
    fn announce(&self) {
        if let Some(resumes) = self.budget.announce() {
            let Spent { day: _, usd, tokens } = self.budget.spent();
            let resumes = rfc3339(resumes);
            memory::show(&self.budget, &self.metrics);
            warn!(spent_usd = usd, spent_tokens = tokens, %resumes, "Budget is reached, generation checks stop");
        }
    }
}

impl Work for Delivery {
    type Target = Watched;

    fn probe(target: &Watched) -> &Arc<Probe> {
        target.target.probe()
    }

    fn budget(&self) -> Option<&Budget> {
        Some(&self.budget)
    }

    fn remembered(&self, target: &Watched) -> Option<Wait> {
        self.memory.wait(&target.identity)
    }

    fn last_run(&self, target: &Watched) -> Option<SystemTime> {
        self.memory.last_run(&target.identity)
    }

    async fn run(&self, target: Arc<Watched>) -> Outcome {
        let _in_flight = InFlight::new(&self.metrics);
        target.target.run().await
    }

    async fn recheck(&self, target: Arc<Watched>, within: Duration) -> Outcome {
        target.target.run_within(within).await
    }

    fn report(&self, target: &Arc<Watched>, event: Event) {
        target.hear(&event);
        match event {
            Event::Waiting { next_run, backoff_until } => {
                target.series.waiting(next_run, backoff_until);
                target.history.waits(Waiting { next_run: Some(next_run), backoff_until });
            }
            Event::Skipped { cause, runs } => {
                target.series.skipped(cause, runs);
                target.history.skipped(cause, runs);
                if cause == SkipCause::Budget {
                    self.announce();
                }
            }
            Event::Started { lag } => {
                self.metrics.lag(lag);
                self.spent(target);
            }
            Event::Charged => self.spent(target),
            Event::Remember(wait) => self.memory.waits(&target.identity, wait),
            Event::Finished(outcome) => {
                log_change(target.target.probe(), target.series.last().as_ref(), &outcome);
                target.series.observe(&outcome);
                let outcome = Arc::new(outcome);
                target.history.observe(&outcome, self.offline.at(&outcome, &self.metrics));
                let pair = outcome.compared.as_deref().and_then(|compared| compared.pair);
                if let Some((comparison, pair)) = target.comparison.as_ref().zip(pair) {
                    comparison.observe(&pair);
                }
                self.spent(target);
                self.memory.ran(&target.identity, target.target.probe().clone(), outcome);
            }
            // It counts in tokens, cost and budget alone.
            Event::Demanded(outcome) => {
                target.series.observe_demanded(&outcome);
                self.spent(target);
            }
            Event::Restarted => {
                self.restarts.fetch_add(1, Ordering::Relaxed);
                error!(probe = %target.target.probe().name, "Probe's loop panicked and goes on");
            }
            Event::Rechecked(outcome) => {
                target.series.observe_recheck(&outcome);
                self.spent(target);
                self.memory.rechecked(target.target.probe().clone(), outcome);
            }
        }
    }
}

/// The log speaks when a probe's state changes; the metrics and records carry the rest.
fn log_change(probe: &Probe, before: Option<&Last>, outcome: &Outcome) {
    let Subject { probe, provider, check, model: _ } = probe.subject();
    let Outcome { reason, fault, ref detail, hint, .. } = *outcome;
    let verdict = (reason, fault);
    // A field without a value is left out of the line.
    let detail = (!detail.is_empty()).then_some(&**detail);
    match before.map(|last| (last.reason, last.fault)) {
        Some(last) if last == verdict => {}
        None if reason == Reason::Ok => info!(probe, provider, %check, "Probe succeeds"),
        Some((was, _)) if reason == Reason::Ok => {
            let last_failure = before.map(|last| seconds_since(last.time)).unwrap_or_default();
            info!(probe, provider, %check, %was, last_failure_seconds = last_failure, "Probe recovered");
        }
        _ if reason == Reason::Internal => {
            error!(probe, provider, %check, %reason, %fault, detail, hint, "Probe cannot run");
        }
        _ => {
            let (status, code) = (outcome.http_status, outcome.error_code.as_deref());
            warn!(probe, provider, %check, %reason, %fault, status, code, detail, hint, "Probe fails");
        }
    }
}

fn seconds_since(time: SystemTime) -> u64 {
    time.elapsed().unwrap_or_default().as_secs()
}
