//! What the daemon remembers over a restart: reads it at the start, and has it written before a run's record is.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tracing::warn;

use crate::{
    config::{Config, Probe},
    metrics::{BudgetNow, Metrics},
    outcome::Outcome,
    records::Records,
    schedule::{Budget, Spent, Wait},
    state::{self, Claim, Identity, Keeper, Kept, KeptBackoff, KeptProbe, KeptSpending, Taken},
};

/// A finished run, whose record waits until the state is written.
type Given = (Arc<Probe>, Arc<Outcome>);

/// Where finished runs and what follows from them go, none of which waits.
pub(super) struct Memory {
    /// `None`: the configuration has no state directory, and nothing is kept.
    keeper: Option<Keeper<Given>>,
    /// As configured at the start; no reload changes it.
    directory: Option<PathBuf>,
    /// `None`: there is no directory, or none that can be locked.
    _claim: Option<Claim>,
    records: Arc<Records>,
    /// Also what came since the start: a scheduler that is started again after a panic asks for it.
    probes: Mutex<BTreeMap<Identity, KeptProbe>>,
}

/// Keeps other daemons from the state directory; `None` where there is none, or it cannot be locked.
pub(super) fn claim(config: &Config) -> Result<Option<Claim>, Taken> {
    config.state_directory.as_deref().map_or(Ok(None), state::claim)
}

/// What was kept for these probes before the restart. It is said in the log why there is none, if there should be.
pub(super) fn recall(config: &Config) -> Kept {
    let Some(directory) = &config.state_directory else { return Kept::default() };
    let mut loaded = state::load(directory, SystemTime::now());
    if let Some(warning) = &loaded.warning {
        warn!(%warning, "State is lost");
    }
    let identities = identities(config);
    loaded.kept.probes.retain(|who, _| identities.binary_search_by(|known| (**known).cmp(who)).is_ok());
    loaded.kept
}

/// The day's account, with what was spent before the restart.
pub(super) fn budget(config: &Config, kept: &Kept) -> Arc<Budget> {
    let spent = kept.spending.map(|KeptSpending { day, usd, tokens }| Spent { day, usd, tokens });
    Arc::new(Budget::new(config.budget, spent, SystemTime::now))
}

/// Exports when the probes ran last before the restart.
pub(super) fn show_last_runs(config: &Config, kept: &Kept, metrics: &Metrics) {
    for probe in &config.probes {
        if let Some(kept) = kept.probes.get(&Identity::of(probe.subject())) {
            metrics.series(probe).restore(kept.last_run, kept.last_success);
        }
    }
}

/// Exports how the day's budget stands.
pub(super) fn show(budget: &Budget, metrics: &Metrics) {
    let Spent { day: _, usd, tokens } = budget.spent();
    metrics.set_budget(budget.limits().map(|limits| BudgetNow {
        limits,
        spent_usd: usd,
        spent_tokens: tokens,
        resumes: budget.resumes(),
    }));
}

impl Memory {
    /// Keeps the state in that directory, which is claimed, beginning with what is kept there already.
    pub(super) fn start(
        directory: Option<&Path>,
        claim: Option<Claim>,
        kept: Kept,
        records: Arc<Records>,
    ) -> io::Result<Self> {
        let probes = Mutex::new(kept.probes.clone());
        let released = Arc::clone(&records);
        let release = move |(probe, outcome)| released.give(probe, outcome);
        let keeper = directory.map(|path| Keeper::start(path.to_owned(), kept, release)).transpose()?;
        let directory = directory.map(Path::to_owned);
        Ok(Self { keeper, directory, _claim: claim, records, probes })
    }

    /// Where the state is kept; `None`: nowhere.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Exports what the writer counts.
    pub(super) fn count(&self, metrics: &Metrics) {
        if let Some(keeper) = &self.keeper {
            metrics.count_writer("state", keeper.counters());
        }
    }

    /// Follows a reload.
    pub(super) fn retain(&self, config: &Config) {
        let identities = identities(config);
        self.lock().retain(|who, _| identities.binary_search_by(|known| (**known).cmp(who)).is_ok());
        if let Some(keeper) = &self.keeper {
            keeper.retain(identities, config.budget.is_some());
        }
    }

    /// The wait that the probe is in; `None`: it is in none.
    pub(super) fn wait(&self, who: &Identity) -> Option<Wait> {
        let KeptBackoff { until, step } = self.lock().get(who)?.backoff?;
        Some(Wait { until, step })
    }

    /// When the probe's last run began, as far as that is known.
    pub(super) fn last_run(&self, who: &Identity) -> Option<SystemTime> {
        self.lock().get(who)?.last_run
    }

    /// A probe waits like this from now on.
    pub(super) fn waits(&self, who: &Arc<Identity>, wait: Option<Wait>) {
        let backoff = wait.map(|Wait { until, step }| KeptBackoff { until, step });
        self.change(who, |probe| probe.backoff = backoff);
        if let Some(keeper) = &self.keeper {
            keeper.waits(who, backoff);
        }
    }

    /// The day's account has changed.
    pub(super) fn spent(&self, budget: &Budget) {
        if let Some(keeper) = self.keeper.as_ref().filter(|_| budget.limits().is_some()) {
            keeper.spent(|| {
                let Spent { day, usd, tokens } = budget.spent();
                KeptSpending { day, usd, tokens }
            });
        }
    }

    /// A run has ended: its record follows what was told before.
    pub(super) fn ran(&self, who: &Arc<Identity>, probe: Arc<Probe>, outcome: Arc<Outcome>) {
        let (time, success, given) = (outcome.time, outcome.success(), (probe, outcome));
        self.change(who, |probe| probe.last_run = Some(time));
        match &self.keeper {
            Some(keeper) => keeper.ran(who, time, success, given),
            None => self.records.give(given.0, given.1),
        }
    }

    /// An attempt after a failed run has ended: its record follows the wait that it was asked for.
    pub(super) fn rechecked(&self, probe: Arc<Probe>, outcome: Outcome) {
        let outcome = Arc::new(outcome);
        match &self.keeper {
            Some(keeper) => keeper.follows((probe, outcome)),
            None => self.records.give(probe, outcome),
        }
    }

    fn change(&self, who: &Arc<Identity>, change: impl FnOnce(&mut KeptProbe)) {
        let mut probes = self.lock();
        match probes.get_mut(&**who) {
            Some(probe) => change(probe),
            None => change(probes.entry((**who).clone()).or_default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Identity, KeptProbe>> {
        // Nothing panics while it is held.
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is left, within the deadline.
    pub(super) fn stop(&self, deadline: Duration) {
        if let Some(keeper) = &self.keeper {
            keeper.stop(deadline);
        }
    }
}

/// Those of all probes, sorted.
fn identities(config: &Config) -> Vec<Arc<Identity>> {
    let mut identities: Vec<_> =
        config.probes.iter().map(|probe| Arc::new(Identity::of(probe.subject()))).collect();
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
        Arc::new(Identity::of(Subject { probe, provider: "groq", check: Check::Chat, model: None }))
    }

    #[test]
    fn a_scheduler_that_starts_again_is_told_of_the_waits_that_began_since() {
        let log = Log {
            filter: "info".to_owned(),
            format: LogFormat::Text,
            stderr: false,
            directory: None,
            rotation: Rotation::Daily,
            max_files: 2,
            max_file_size: 1,
        };
        let mut kept = Kept::default();
        let backoff = KeptBackoff { until: None, step: 2 };
        kept.probes.insert(
            (*identity("before")).clone(),
            KeptProbe { backoff: Some(backoff), ..KeptProbe::default() },
        );
        let memory = Memory::start(None, None, kept, Arc::new(Records::start(&log).unwrap())).unwrap();
        assert_eq!(memory.wait(&identity("before")), Some(Wait { until: None, step: 2 }));
        let since = Wait { until: Some(SystemTime::UNIX_EPOCH), step: 0 };
        memory.waits(&identity("since"), Some(since));
        assert_eq!(memory.wait(&identity("since")), Some(since));
        memory.waits(&identity("before"), None);
        assert_eq!(memory.wait(&identity("before")), None);
    }
}
