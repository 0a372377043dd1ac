//! A ring of the latest runs of each probe, written on the scheduling thread and read by the pages.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, MutexGuard},
    time::SystemTime,
};

use super::run::Run;
use crate::{
    config::{Comparison, Config, Pool, Probe},
    outcome::{Balance, Outcome, Pair, RateLimit, SkipCause, StatusPage, Tls},
    sync::{Mutex, RwLock},
};

/// Number of runs kept per probe.
pub const MAX_RUNS: usize = 100;

/// Number of complete runs kept for all probes together. Each probe gets an equal share, which is
/// [`MAX_RUNS`] for up to fifty probes. A complete run takes almost a kilobyte, ten times what
/// strips and charts need.
const MAX_WHOLE: usize = 5_000;

/// Number of pairs kept per comparison.
const MAX_PAIRS: usize = MAX_RUNS;

/// History of all probes.
#[derive(Debug, Default)]
pub struct History {
    probes: RwLock<Arc<BTreeMap<String, Arc<ProbeHistory>>>>,
    comparisons: RwLock<Arc<Vec<Arc<Comparison>>>>,
    pools: RwLock<Arc<Vec<Pool>>>,
}

/// History of one probe.
#[derive(Debug)]
pub struct ProbeHistory {
    /// The probe as currently configured.
    pub probe: Arc<Probe>,
    /// The equivalent `curl` command; empty if the probe sends no request.
    pub curl: String,
    kept: Arc<Mutex<Buffers>>,
}

#[derive(Debug, Default)]
struct Buffers {
    runs: VecDeque<Arc<Run>>,
    pairs: VecDeque<Pair>,
    failing_since: Option<SystemTime>,
    last_reported: LastReported,
    latest: Option<Arc<Outcome>>,
    whole: VecDeque<Arc<Outcome>>,
    /// Zero for a probe that no page shows.
    max_whole: usize,
    waiting: Waiting,
    skipped: Option<SkippedRuns>,
}

/// Values that a run may omit, as last reported.
#[derive(Clone, Debug, Default)]
pub struct LastReported {
    /// Rate limits, and the start of the run that reported them.
    pub ratelimit: Option<(SystemTime, Vec<RateLimit>)>,
    /// Result of the last TLS handshake.
    pub tls: Option<Tls>,
    /// Remaining balance of the account.
    pub balance: Option<Balance>,
    /// Content of the provider's status page.
    pub status_page: Option<StatusPage>,
}

/// Pending run of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Time of the next run. `None` if it is not known yet.
    pub next_run: Option<SystemTime>,
    /// End of the backoff. `None` if there is none.
    pub backoff_until: Option<SystemTime>,
}

/// Scheduled runs that were skipped since the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedRuns {
    /// Cause of the latest skip.
    pub cause: SkipCause,
    /// Number of skipped runs.
    pub runs: u64,
}

/// Copy of a probe's history.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Runs, oldest first, at most [`MAX_RUNS`].
    pub runs: Vec<Arc<Run>>,
    /// Pairs of runs that ended with one of this probe, oldest first.
    pub pairs: Vec<Pair>,
    /// Start of the first failure since the last success. `None` if the last run succeeded.
    pub failing_since: Option<SystemTime>,
    /// See [`LastReported`].
    pub last_reported: LastReported,
    /// The last run in full. `None` before the first run.
    pub latest: Option<Arc<Outcome>>,
    /// See [`Waiting`].
    pub waiting: Waiting,
    /// Skipped runs. `None` if no run was skipped since the last one.
    pub skipped: Option<SkippedRuns>,
}

impl History {
    /// Applies a configuration. `curl` renders a probe's command. A probe keeps its history if its
    /// name, provider, check and model are unchanged.
    pub fn configure(&self, config: &Config, curl: impl Fn(&Probe) -> String) {
        let old = self.all();
        let max_whole = whole_per_probe(config.probes.len());
        let new = config.probes.iter().map(|probe| {
            let kept = old.get(&probe.name).filter(|old| old.probe.subject() == probe.subject());
            let kept = kept.map(|old| Arc::clone(&old.kept)).unwrap_or_default();
            let history = ProbeHistory { probe: Arc::clone(probe), curl: curl(probe), kept };
            history.kept().share(max_whole);
            (probe.name.clone(), Arc::new(history))
        });
        let new = Arc::new(new.collect());
        *self.probes.write() = new;
        *self.comparisons.write() = Arc::new(config.comparisons.clone());
        *self.pools.write() = Arc::new(config.pools.clone());
    }

    /// Returns the history of every configured probe, by name.
    pub fn all(&self) -> Arc<BTreeMap<String, Arc<ProbeHistory>>> {
        Arc::clone(&self.probes.read())
    }

    /// Returns the comparisons in force.
    pub fn comparisons(&self) -> Arc<Vec<Arc<Comparison>>> {
        Arc::clone(&self.comparisons.read())
    }

    /// Returns the pools in force.
    pub fn pools(&self) -> Arc<Vec<Pool>> {
        Arc::clone(&self.pools.read())
    }

    /// Returns the history that runs of a probe are added to. Callers keep it instead of looking it
    /// up for each run. A probe that is not configured gets a history that no page shows.
    pub fn for_probe(&self, probe: &Arc<Probe>) -> Arc<ProbeHistory> {
        match self.all().get(&probe.name).filter(|history| history.probe.subject() == probe.subject()) {
            Some(history) => Arc::clone(history),
            None => {
                Arc::new(ProbeHistory { probe: Arc::clone(probe), curl: String::new(), kept: Arc::default() })
            }
        }
    }
}

/// Returns the number of complete runs kept for each of that many probes.
pub fn whole_per_probe(probes: usize) -> usize {
    (MAX_WHOLE / probes.max(1)).clamp(1, MAX_RUNS)
}

impl ProbeHistory {
    /// Adds a finished run.
    pub fn observe(&self, outcome: &Arc<Outcome>) {
        // Built outside of the lock, which the listener's thread may hold briefly.
        let run = Arc::new(Run::new(outcome));
        let mut kept = self.kept();
        kept.failing_since = if run.success() { None } else { Some(kept.failing_since.unwrap_or(run.time)) };
        push(&mut kept.runs, run, MAX_RUNS);
        if let Some(pair) = outcome.compared.as_deref().and_then(|compared| compared.pair) {
            push(&mut kept.pairs, pair, MAX_PAIRS);
        }
        if !outcome.ratelimit.is_empty() {
            kept.last_reported.ratelimit = Some((outcome.time, outcome.ratelimit.clone()));
        }
        kept.last_reported.tls = outcome.tls.or(kept.last_reported.tls);
        kept.last_reported.balance =
            if outcome.success() { outcome.balance } else { outcome.balance.or(kept.last_reported.balance) };
        kept.last_reported.status_page.clone_from(&outcome.status_page);
        kept.latest = Some(Arc::clone(outcome));
        let max_whole = kept.max_whole;
        push(&mut kept.whole, Arc::clone(outcome), max_whole);
        kept.skipped = None;
    }

    /// Sets the pending run.
    pub fn set_waiting(&self, waiting: Waiting) {
        self.kept().waiting = waiting;
    }

    /// Counts skipped runs.
    pub fn add_skipped(&self, cause: SkipCause, runs: u64) {
        let mut kept = self.kept();
        let before = kept.skipped.map_or(0, |skipped| skipped.runs);
        kept.skipped = Some(SkippedRuns { cause, runs: before + runs });
    }

    /// Returns a copy of the history. The lock is held only while pointers are copied.
    pub fn snapshot(&self) -> Snapshot {
        let kept = self.kept();
        Snapshot {
            runs: kept.runs.iter().cloned().collect(),
            pairs: kept.pairs.iter().copied().collect(),
            failing_since: kept.failing_since,
            last_reported: kept.last_reported.clone(),
            latest: kept.latest.clone(),
            waiting: kept.waiting,
            skipped: kept.skipped,
        }
    }

    /// Returns the complete runs, oldest first.
    pub fn whole(&self) -> Vec<Arc<Outcome>> {
        self.kept().whole.iter().cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Buffers> {
        self.kept.lock()
    }
}

impl Buffers {
    /// Sets the number of complete runs to keep.
    fn share(&mut self, max_whole: usize) {
        self.max_whole = max_whole;
        let gone = self.whole.len().saturating_sub(max_whole);
        self.whole.drain(..gone);
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    ring.push_back(item);
    if ring.len() > most {
        ring.pop_front();
    }
}
