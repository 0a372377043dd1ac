//! Where probes, schedule, metrics and records meet: what a run is, and who hears of it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::{error, info, warn};

use super::memory::{self, Memory};
use crate::{
    config::Probe,
    history::{History, ProbeHistory, Waiting},
    metrics::{ComparisonSeries, Last, Metrics, Series},
    outcome::{Outcome, Reason, SkipCause, Subject, rfc3339},
    probe::Target,
    schedule::{Budget, Event, Spent, Wait, Work},
    state::{Identity, Kept},
};

/// A probe made ready, with the series that its runs write to.
pub(super) struct Watched {
    target: Arc<Target>,
    series: Arc<Series>,
    history: Arc<ProbeHistory>,
    /// What the pairs of the probe's comparison write to; `None`: it is in none.
    comparison: Option<Arc<ComparisonSeries>>,
    identity: Arc<Identity>,
    /// From before the restart.
    wait: Option<Wait>,
}

impl Watched {
    /// With what was kept of it over a restart, if anything.
    pub(super) fn new(target: Arc<Target>, metrics: &Metrics, history: &History, kept: &Kept) -> Arc<Self> {
        let history = history.of(target.probe());
        let series = metrics.series(target.probe());
        let comparison = target.probe().comparison.as_deref().and_then(|wanted| metrics.comparison(wanted));
        let identity = Arc::new(Identity::of(target.probe().subject()));
        let kept = kept.probes.get(&*identity);
        if let Some(kept) = kept {
            series.restore(kept.last_run, kept.last_success);
        }
        Arc::new(Self { target, series, history, comparison, identity, wait: kept.and_then(memory::wait) })
    }
}

/// Hands the scheduler the probes' runs, and everybody else what they found. Nothing here waits.
pub(super) struct Delivery {
    pub(super) metrics: Arc<Metrics>,
    pub(super) memory: Arc<Memory>,
    pub(super) budget: Arc<Budget>,
}

impl Delivery {
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

    fn remembered(target: &Watched) -> Option<Wait> {
        target.wait
    }

    async fn run(&self, target: Arc<Watched>) -> Outcome {
        target.target.run().await
    }

    async fn recheck(&self, target: Arc<Watched>, within: Duration) -> Outcome {
        target.target.run_within(within).await
    }

    fn report(&self, target: &Arc<Watched>, event: Event) {
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
                self.metrics.run_started();
                self.spent(target);
            }
            Event::Remember(wait) => self.memory.waits(&target.identity, wait),
            Event::Finished(outcome) => {
                self.metrics.run_ended();
                log_change(target.target.probe(), target.series.last().as_ref(), &outcome);
                target.series.observe(&outcome);
                let outcome = Arc::new(outcome);
                target.history.observe(&outcome);
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
