//! The state that survives a restart: loaded at the start, and written before the record of a run.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard},
    time::{Duration, SystemTime},
};

use tracing::warn;

use crate::{
    config::{Config, Probe},
    metrics::Metrics,
    outcome::Outcome,
    records::Records,
    schedule::{DailyBudget, Spent, Wait},
    state::{
        self, AlreadyLocked, DirLock, Identity, PersistedBackoff, PersistedProbe, PersistedSpending,
        PersistedState, StateWriter,
    },
    sync::Mutex,
};

/// A finished run, whose record is written after the state.
type PendingRecord = (Arc<Probe>, Arc<Outcome>);

/// Stores the state of probes and passes the records of runs on. No method blocks.
pub(super) struct StateStore {
    /// The writer of the state. `None` without a state directory.
    writer: Option<StateWriter<PendingRecord>>,
    /// The directory that was configured at the start; a reload does not change it.
    directory: Option<PathBuf>,
    /// The lock of the directory. `None` without a directory, or if it cannot be locked.
    _lock: Option<DirLock>,
    records: Arc<Records>,
    /// Includes changes since the start, for a scheduler that is restarted after a panic.
    probes: Mutex<BTreeMap<Identity, PersistedProbe>>,
}

/// Locks the state directory. Returns `None` without one, or if it cannot be locked.
pub(super) fn lock_directory(config: &Config) -> Result<Option<DirLock>, AlreadyLocked> {
    config.state_directory.as_deref().map_or(Ok(None), state::lock_directory)
}

/// Loads the state of the configured probes. Logs a warning if it cannot be read.
pub(super) fn restore(config: &Config) -> PersistedState {
    let Some(directory) = &config.state_directory else { return PersistedState::default() };
    let mut loaded = state::load(directory, SystemTime::now());
    if let Some(warning) = &loaded.warning {
        warn!(%warning, "State could not be restored");
    }
    let identities = identities(config);
    loaded.kept.probes.retain(|who, _| identities.binary_search_by(|known| (**known).cmp(who)).is_ok());
    loaded.kept
}

/// Returns the budget with the spending of the day before the restart.
pub(super) fn budget(config: &Config, kept: &PersistedState) -> Arc<DailyBudget> {
    let spent = kept.spending.map(|PersistedSpending { day, usd, tokens }| Spent { day, usd, tokens });
    Arc::new(DailyBudget::new(config.budget, spent, SystemTime::now))
}

/// Exports the times of the last runs before the restart.
pub(super) fn export_last_runs(config: &Config, kept: &PersistedState, metrics: &Metrics) {
    for probe in &config.probes {
        if let Some(kept) = kept.probes.get(&Identity::new(probe.subject())) {
            metrics.series(probe).restore(kept.last_run, kept.last_success);
        }
    }
}

impl StateStore {
    /// Starts the writer of the locked state directory, with the state that was loaded from it.
    pub(super) fn start(
        directory: Option<&Path>,
        lock: Option<DirLock>,
        kept: PersistedState,
        records: Arc<Records>,
    ) -> io::Result<Self> {
        let probes = Mutex::new(kept.probes.clone());
        let released = Arc::clone(&records);
        let release = move |(probe, outcome)| released.push(probe, outcome);
        let writer = directory.map(|path| StateWriter::start(path.to_owned(), kept, release)).transpose()?;
        let directory = directory.map(Path::to_owned);
        Ok(Self { writer, directory, _lock: lock, records, probes })
    }

    /// Returns the state directory, if any.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Registers the counters of the writer.
    pub(super) fn count(&self, metrics: &Metrics) {
        if let Some(writer) = &self.writer {
            metrics.count_writer("state", writer.counters());
        }
    }

    /// Forgets probes that the new configuration does not have.
    pub(super) fn retain(&self, config: &Config) {
        let identities = identities(config);
        self.lock().retain(|who, _| identities.binary_search_by(|known| (**known).cmp(who)).is_ok());
        if let Some(writer) = &self.writer {
            writer.retain(identities, config.budget.is_some());
        }
    }

    /// Returns the backoff of the probe, if any.
    pub(super) fn wait(&self, who: &Identity) -> Option<Wait> {
        let PersistedBackoff { until, step } = self.lock().get(who)?.backoff?;
        Some(Wait { until, step })
    }

    /// Returns the start of the probe's last run, if known.
    pub(super) fn last_run(&self, who: &Identity) -> Option<SystemTime> {
        self.lock().get(who)?.last_run
    }

    /// Records the backoff of a probe, or its end.
    pub(super) fn set_backoff(&self, who: &Arc<Identity>, wait: Option<Wait>) {
        let backoff = wait.map(|Wait { until, step }| PersistedBackoff { until, step });
        self.change(who, |probe| probe.backoff = backoff);
        if let Some(writer) = &self.writer {
            writer.set_backoff(who, backoff);
        }
    }

    /// Records the spending of the day.
    pub(super) fn spent(&self, budget: &DailyBudget) {
        if let Some(writer) = self.writer.as_ref().filter(|_| budget.limits().is_some()) {
            writer.set_spending(|| {
                let Spent { day, usd, tokens } = budget.spent();
                PersistedSpending { day, usd, tokens }
            });
        }
    }

    /// Records a run. Its record is written after all earlier changes of the state.
    pub(super) fn ran(&self, who: &Arc<Identity>, probe: Arc<Probe>, outcome: Arc<Outcome>) {
        let (time, success, record) = (outcome.time, outcome.success(), (probe, outcome));
        self.change(who, |probe| probe.last_run = Some(time));
        match &self.writer {
            Some(writer) => writer.record_run(who, time, success, record),
            None => self.records.push(record.0, record.1),
        }
    }

    /// Passes on the record of a recheck, to be written after all earlier changes of the state.
    pub(super) fn rechecked(&self, probe: Arc<Probe>, outcome: Outcome) {
        let outcome = Arc::new(outcome);
        match &self.writer {
            Some(writer) => writer.release_after_write((probe, outcome)),
            None => self.records.push(probe, outcome),
        }
    }

    fn change(&self, who: &Arc<Identity>, change: impl FnOnce(&mut PersistedProbe)) {
        let mut probes = self.lock();
        match probes.get_mut(&**who) {
            Some(probe) => change(probe),
            None => change(probes.entry((**who).clone()).or_default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Identity, PersistedProbe>> {
        // No code panics while holding the lock.
        self.probes.lock()
    }

    /// Writes what is pending, until the deadline.
    pub(super) fn stop(&self, deadline: Duration) {
        if let Some(writer) = &self.writer {
            writer.stop(deadline);
        }
    }
}

/// Returns the identities of all probes, sorted.
fn identities(config: &Config) -> Vec<Arc<Identity>> {
    let mut identities: Vec<_> =
        config.probes.iter().map(|probe| Arc::new(Identity::new(probe.subject()))).collect();
    identities.sort();
    identities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Log, LogFormat, Rotation},
        outcome::{Check, Subject},
    };

    fn identity(probe: &str) -> Arc<Identity> {
        Arc::new(Identity::new(Subject { probe, provider: "groq", check: Check::Chat, model: None }))
    }

    #[test]
    fn backoff_since_the_start_is_remembered() {
        let log = Log {
            filter: "info".to_owned(),
            format: LogFormat::Text,
            stderr: false,
            directory: None,
            rotation: Rotation::Daily,
            max_files: 2,
            max_file_size: 1,
            compress: false,
        };
        let mut kept = PersistedState::default();
        let backoff = PersistedBackoff { until: None, step: 2 };
        kept.probes.insert(
            (*identity("before")).clone(),
            PersistedProbe { backoff: Some(backoff), ..PersistedProbe::default() },
        );
        let store = StateStore::start(None, None, kept, Arc::new(Records::start(&log).unwrap())).unwrap();
        assert_eq!(store.wait(&identity("before")), Some(Wait { until: None, step: 2 }));
        let since = Wait { until: Some(SystemTime::UNIX_EPOCH), step: 0 };
        store.set_backoff(&identity("since"), Some(since));
        assert_eq!(store.wait(&identity("since")), Some(since));
        store.set_backoff(&identity("before"), None);
        assert_eq!(store.wait(&identity("before")), None);
    }
}
