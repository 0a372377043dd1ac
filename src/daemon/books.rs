//! Files, metrics and the thread of the probes: the first parts to start, in their order.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

use super::{
    delivery::{Delivery, export_budget},
    fatal::Fatal,
    probing::Probing,
    state_store::{self, StateStore},
};
use crate::{
    config::Config,
    health::{Health, Supervisor},
    history::History,
    logging::Logging,
    metrics::Metrics,
    probe::curl,
    records::Records,
    schedule::DailyBudget,
    server::{self, RunRequest},
};

/// Time without a heartbeat before the scheduler counts as stuck.
const SCHEDULER_STUCK_AFTER: Duration = Duration::from_secs(10);

/// Files and metrics, which outlive runs.
pub(super) struct Books {
    pub(super) records: Arc<Records>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) history: Arc<History>,
    pub(super) state_store: Arc<StateStore>,
    pub(super) budget: Arc<DailyBudget>,
}

impl Books {
    /// Opens the files, and restores the state from before a restart.
    pub(super) fn open(config: &Config, started: SystemTime, logging: &Logging) -> Result<Self, Fatal> {
        // Before anything is opened that may belong to another daemon.
        let lock = state_store::lock_directory(config).map_err(|taken| Fatal::Other(taken.to_string()))?;
        let records = Arc::new(Records::start(&config.log).map_err(|error| Fatal::Other(error.to_string()))?);
        let metrics = Arc::new(Metrics::new(started));
        metrics.count_writer("log", &logging.counters().file);
        metrics.count_writer("results", &records.counters());
        metrics.configure(config);
        let history = Arc::new(History::default());
        history.configure(config, curl);
        let kept = state_store::restore(config);
        let budget = state_store::budget(config, &kept);
        export_budget(&budget, &metrics);
        state_store::export_last_runs(config, &kept, &metrics);
        let directory = config.state_directory.as_deref();
        let state_store = StateStore::start(directory, lock, kept, records.clone());
        let state_store = Arc::new(state_store.map_err(Fatal::other("cannot start the state thread"))?);
        state_store.count(&metrics);
        Ok(Self { records, metrics, history, state_store, budget })
    }

    /// Starts the thread that times the probes. Returns it with the sender of requests for runs.
    pub(super) fn start_probing(
        &self,
        config: &Config,
        health: &Health,
    ) -> Result<(Probing, mpsc::Sender<RunRequest>), Fatal> {
        let restarts = Arc::<AtomicU64>::default();
        self.metrics.count_restarts("probe", restarts.clone());
        let delivery =
            Delivery::new(self.metrics.clone(), self.state_store.clone(), self.budget.clone(), restarts);
        let beat = health.part("scheduler", SCHEDULER_STUCK_AFTER);
        let supervisor = Supervisor::new("scheduler");
        self.metrics.count_restarts("scheduler", supervisor.restarts());
        let (runs, requests) = mpsc::channel(server::MAX_RUN_REQUESTS);
        let probing = Probing::start(delivery, config.schedule.clone(), beat, requests, supervisor)
            .map_err(Fatal::other("cannot start the scheduler thread"))?;
        Ok((probing, runs))
    }
}
