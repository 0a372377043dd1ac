//! Connects the scheduler with probes, metrics, history, state, records and log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tracing::{error, info, warn};

use super::state_store::StateStore;
use crate::{
    config::Probe,
    health::{Health, Liveness},
    history::{History, ProbeHistory, Waiting},
    metrics::{BudgetNow, ComparisonSeries, Last, Metrics, Series},
    outcome::{Fault, Outcome, Reason, SkipCause, Subject, rfc3339},
    probe::Target,
    schedule::{DailyBudget, Event, Spent, Wait, Work},
    state::Identity,
    sync::Mutex,
};

/// Time after the expected end of a run or wait before the probe counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// A target with everything that its outcomes update.
pub(super) struct ProbeTarget {
    target: Arc<Target>,
    series: Arc<Series>,
    history: Arc<ProbeHistory>,
    /// The metrics of the probe's comparison, if any.
    comparison: Option<Arc<ComparisonSeries>>,
    identity: Arc<Identity>,
    liveness: Liveness,
}

impl ProbeTarget {
    pub(super) fn new(
        target: Arc<Target>,
        metrics: &Metrics,
        history: &History,
        health: &Health,
    ) -> Arc<Self> {
        let probe = target.probe();
        let series = metrics.series(probe);
        let history = history.for_probe(probe);
        let comparison = probe.comparison.as_deref().and_then(|wanted| metrics.comparison(wanted));
        let identity = Arc::new(Identity::new(probe.subject()));
        let liveness = health.liveness(format!("probe {}", probe.name), longest_run(probe));
        Arc::new(Self { target, series, history, comparison, identity, liveness })
    }

    /// Updates when the next event of the probe is expected.
    fn on_event(&self, event: &Event) {
        match event {
            // A delayed probe starts or is skipped within seconds.
            Event::Waiting { next_run, .. } => {
                let wait = next_run.duration_since(SystemTime::now()).unwrap_or_default();
                self.liveness.expect_within(wait + STUCK_AFTER);
            }
            // An on-demand run is independent of the schedule, and ends before the next slot.
            Event::OnDemand(_) | Event::Charged => {}
            _ => self.liveness.expect_within(longest_run(self.target.probe())),
        }
    }
}

fn longest_run(probe: &Probe) -> Duration {
    probe.interval + probe.timeout + STUCK_AFTER
}

/// Executes runs for the scheduler and distributes their outcomes. No method blocks.
pub(super) struct Delivery {
    metrics: Arc<Metrics>,
    state_store: Arc<StateStore>,
    budget: Arc<DailyBudget>,
    restarts: Arc<AtomicU64>,
    offline: Offline,
}

/// Time for which the decision whether the prober is offline is cached.
const OFFLINE_CACHE_TTL: Duration = Duration::from_secs(1);

/// Caches whether the prober is offline, so that a thousand probes which fail in the same second do
/// not evaluate the last runs of all probes each.
#[derive(Debug, Default)]
struct Offline(Mutex<Option<(Instant, bool)>>);

impl Offline {
    /// Returns whether a run failed while the prober was offline.
    fn at(&self, outcome: &Outcome, metrics: &Metrics) -> bool {
        if outcome.fault != Fault::Network {
            return false;
        }
        let mut cached = self.0.lock();
        match *cached {
            Some((at, offline)) if at.elapsed() < OFFLINE_CACHE_TTL => offline,
            _ => {
                let offline = metrics.offline(SystemTime::now()) == Some(true);
                *cached = Some((Instant::now(), offline));
                offline
            }
        }
    }
}

/// Counts a run as in flight until it is dropped, even if the run panics or is aborted.
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
    /// Creates the delivery. `restarts` counts the restarted probe loops.
    pub(super) fn new(
        metrics: Arc<Metrics>,
        state_store: Arc<StateStore>,
        budget: Arc<DailyBudget>,
        restarts: Arc<AtomicU64>,
    ) -> Self {
        Self { metrics, state_store, budget, restarts, offline: Offline::default() }
    }

    /// Exports and stores the spending after a change by a generation check.
    fn spent(&self, target: &ProbeTarget) {
        if target.target.probe().check().generates() {
            export_budget(&self.budget, &self.metrics);
            self.state_store.spent(&self.budget);
        }
    }

    /// Logs once per day that the budget is reached.
    fn log_budget_reached(&self) {
        if let Some(resumes) = self.budget.announce() {
            let Spent { day: _, usd, tokens } = self.budget.spent();
            let resumes = rfc3339(resumes);
            export_budget(&self.budget, &self.metrics);
            warn!(spent_usd = usd, spent_tokens = tokens, %resumes, "Budget reached; generation checks paused");
        }
    }
}

/// Exports the state of the budget.
pub(super) fn export_budget(budget: &DailyBudget, metrics: &Metrics) {
    let Spent { day: _, usd, tokens } = budget.spent();
    metrics.set_budget(budget.limits().map(|limits| BudgetNow {
        limits,
        spent_usd: usd,
        spent_tokens: tokens,
        resumes: budget.resumes(),
    }));
}

impl Work for Delivery {
    type Target = ProbeTarget;

    fn probe(target: &ProbeTarget) -> &Arc<Probe> {
        target.target.probe()
    }

    fn budget(&self) -> Option<&DailyBudget> {
        Some(&self.budget)
    }

    fn persisted_wait(&self, target: &ProbeTarget) -> Option<Wait> {
        self.state_store.wait(&target.identity)
    }

    fn last_run(&self, target: &ProbeTarget) -> Option<SystemTime> {
        self.state_store.last_run(&target.identity)
    }

    async fn run(&self, target: Arc<ProbeTarget>) -> Outcome {
        let _in_flight = InFlight::new(&self.metrics);
        target.target.run().await
    }

    async fn run_within(&self, target: Arc<ProbeTarget>, within: Duration) -> Outcome {
        target.target.run_within(within).await
    }

    fn report(&self, target: &Arc<ProbeTarget>, event: Event) {
        target.on_event(&event);
        match event {
            Event::Waiting { next_run, backoff_until } => {
                target.series.waiting(next_run, backoff_until);
                target.history.set_waiting(Waiting { next_run: Some(next_run), backoff_until });
            }
            Event::Skipped { cause, runs } => {
                target.series.skipped(cause, runs);
                target.history.add_skipped(cause, runs);
                if cause == SkipCause::Budget {
                    self.log_budget_reached();
                }
            }
            Event::Started { lag } => {
                self.metrics.lag(lag);
                self.spent(target);
            }
            Event::Charged => self.spent(target),
            Event::PersistWait(wait) => self.state_store.set_backoff(&target.identity, wait),
            Event::Finished(mut outcome) => {
                let last = target.series.last();
                log_change(target.target.probe(), last.as_ref(), &outcome);
                log_findings(target.target.probe(), last.as_ref(), &outcome);
                target.series.observe(&outcome);
                outcome.offline = self.offline.at(&outcome, &self.metrics);
                let outcome = Arc::new(outcome);
                target.history.observe(&outcome);
                let pair = outcome.compared.as_deref().and_then(|compared| compared.pair);
                if let Some((comparison, pair)) = target.comparison.as_ref().zip(pair) {
                    comparison.observe(&pair);
                }
                self.spent(target);
                self.state_store.ran(&target.identity, target.target.probe().clone(), outcome);
            }
            // An on-demand run counts only in tokens, cost and budget.
            Event::OnDemand(outcome) => {
                target.series.observe_demanded(&outcome);
                self.spent(target);
            }
            Event::Restarted => {
                self.restarts.fetch_add(1, Ordering::Relaxed);
                error!(probe = %target.target.probe().name, "Probe loop restarted after a panic");
            }
            Event::Rechecked(outcome) => {
                target.series.observe_recheck(&outcome);
                self.spent(target);
                self.state_store.rechecked(target.target.probe().clone(), outcome);
            }
        }
    }
}

/// Logs a change of the probe's state. Other results are in metrics and records only.
fn log_change(probe: &Probe, before: Option<&Last>, outcome: &Outcome) {
    let Subject { probe, provider, check, model: _ } = probe.subject();
    let Outcome { reason, fault, ref detail, ref hint, .. } = *outcome;
    let hint = &**hint;
    let verdict = (reason, fault);
    // A `None` field is omitted from the line.
    let detail = detail.as_ref().map(tracing::field::display);
    match before.map(|last| (last.reason, last.fault)) {
        Some(last) if last == verdict => {}
        None if reason == Reason::Ok => info!(probe, provider, %check, "Probe succeeding"),
        Some((was, _)) if reason == Reason::Ok => {
            let last_failure = before.map(|last| seconds_since(last.time)).unwrap_or_default();
            info!(probe, provider, %check, %was, last_failure_seconds = last_failure, "Probe recovered");
        }
        _ if reason == Reason::Internal => {
            error!(probe, provider, %check, %reason, %fault, detail, hint, "Probe failed internally");
        }
        _ => {
            let (status, code) = (outcome.http_status, outcome.error_code.as_deref());
            warn!(probe, provider, %check, %reason, %fault, status, code, detail, hint, "Probe failing");
        }
    }
}

/// Logs when another model begins or ceases to answer, and when a stream begins or ceases to be
/// held back.
fn log_findings(probe: &Probe, before: Option<&Last>, outcome: &Outcome) {
    let Subject { probe, provider, check, model } = probe.subject();
    let Outcome { ref hint, answered_model: ref answered, model_match, buffered, .. } = *outcome;
    let hint = &**hint;
    let answered = answered.as_deref();
    let was = before.and_then(|last| last.model_match).unwrap_or(true);
    match model_match {
        Some(false) if was => {
            warn!(probe, provider, %check, model, answered_model = answered, hint, "Another model answers");
        }
        Some(true) if !was => {
            info!(probe, provider, %check, model, answered_model = answered, "Requested model answers again");
        }
        _ => {}
    }
    let was = before.and_then(|last| last.buffered).unwrap_or(false);
    match buffered {
        Some(true) if !was => warn!(probe, provider, %check, model, hint, "Stream is held back"),
        Some(false) if was => info!(probe, provider, %check, model, "Stream is no longer held back"),
        _ => {}
    }
}

fn seconds_since(time: SystemTime) -> u64 {
    time.elapsed().unwrap_or_default().as_secs()
}
