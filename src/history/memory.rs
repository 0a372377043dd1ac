//! The memory itself: a ring of runs a probe, written on the thread that times runs and read by pages.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::SystemTime,
};

use super::run::Run;
use crate::{
    config::{Comparison, Config, Pool, Probe},
    outcome::{Balance, Outcome, Pair, RateLimit, SkipCause, StatusPage, Tls},
};

/// Runs that are kept of each probe; the oldest goes when one more ends.
pub const MAX_RUNS: usize = 100;

/// Runs that are kept whole, of all probes together; of each its share, which is [`MAX_RUNS`] up to fifty probes. A whole
/// one takes most of a kilobyte, ten times what the strips and charts need.
const MAX_WHOLE: usize = 5_000;

/// Pairs that are kept of each comparison.
const MAX_PAIRS: usize = MAX_RUNS;

/// All that is remembered.
#[derive(Debug, Default)]
pub struct History {
    probes: RwLock<Arc<BTreeMap<String, Arc<ProbeHistory>>>>,
    comparisons: RwLock<Arc<Vec<Arc<Comparison>>>>,
    pools: RwLock<Arc<Vec<Pool>>>,
}

/// The memory of one probe.
#[derive(Debug)]
pub struct ProbeHistory {
    /// The probe as configured now.
    pub probe: Arc<Probe>,
    /// The `curl` line that asks the same; empty: it sends no request.
    pub curl: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: VecDeque<Arc<Run>>,
    pairs: VecDeque<Pair>,
    failing_since: Option<SystemTime>,
    told: Told,
    latest: Option<Arc<Outcome>>,
    whole: VecDeque<Arc<Outcome>>,
    /// None of a probe that no page shows.
    most_whole: usize,
    waiting: Waiting,
    held: Option<Held>,
}

/// What was told last, by whichever run told it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Limits, and when the run began that told them.
    pub ratelimit: Option<(SystemTime, Vec<RateLimit>)>,
    /// What a handshake showed.
    pub tls: Option<Tls>,
    /// What is left on the account.
    pub balance: Option<Balance>,
    /// What the status page says.
    pub status_page: Option<StatusPage>,
}

/// What the probe waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// When it is due; `None`: not told yet.
    pub next_run: Option<SystemTime>,
    /// Until when the service's limits keep it; `None`: they do not.
    pub backoff_until: Option<SystemTime>,
}

/// Due runs that did not take place since the last one that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Why the latest did not.
    pub cause: SkipCause,
    /// How many.
    pub runs: u64,
}

/// The memory of a probe as it is now.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The oldest first, at most [`MAX_RUNS`].
    pub runs: Vec<Arc<Run>>,
    /// Pairs of runs that ended with one of this probe, the oldest first.
    pub pairs: Vec<Pair>,
    /// When the first of the failures began that no success has ended; `None`: it does not fail.
    pub failing_since: Option<SystemTime>,
    /// See [`Told`].
    pub told: Told,
    /// The last run in full; `None` before the first.
    pub latest: Option<Arc<Outcome>>,
    /// See [`Waiting`].
    pub waiting: Waiting,
    /// See [`Held`]; `None`: every due run since the last took place.
    pub held: Option<Held>,
}

impl History {
    /// Takes over a configuration; `curl` writes a probe's line. A probe whose name, provider, check and model stay keeps
    /// its memory, one that is gone loses it.
    pub fn configure(&self, config: &Config, curl: impl Fn(&Probe) -> String) {
        let old = self.all();
        let most_whole = whole_per_probe(config.probes.len());
        let new = config.probes.iter().map(|probe| {
            let kept = old.get(&probe.name).filter(|old| old.probe.subject() == probe.subject());
            let kept = kept.map(|old| Arc::clone(&old.kept)).unwrap_or_default();
            let history = ProbeHistory { probe: Arc::clone(probe), curl: curl(probe), kept };
            history.kept().share(most_whole);
            (probe.name.clone(), Arc::new(history))
        });
        let new = Arc::new(new.collect());
        *self.probes.write().unwrap_or_else(PoisonError::into_inner) = new;
        *self.comparisons.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(config.comparisons.clone());
        *self.pools.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.pools.clone());
    }

    /// The memory of every configured probe by its name.
    pub fn all(&self) -> Arc<BTreeMap<String, Arc<ProbeHistory>>> {
        Arc::clone(&self.probes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The comparisons in force.
    pub fn comparisons(&self) -> Arc<Vec<Arc<Comparison>>> {
        Arc::clone(&self.comparisons.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The pools in force.
    pub fn pools(&self) -> Arc<Vec<Pool>> {
        Arc::clone(&self.pools.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the runs of a probe write to: to be kept, not asked for at each run. A probe that is not configured (any more)
    /// gets a memory that no page shows.
    pub fn of(&self, probe: &Arc<Probe>) -> Arc<ProbeHistory> {
        match self.all().get(&probe.name).filter(|history| history.probe.subject() == probe.subject()) {
            Some(history) => Arc::clone(history),
            None => {
                Arc::new(ProbeHistory { probe: Arc::clone(probe), curl: String::new(), kept: Arc::default() })
            }
        }
    }
}

/// How many runs of each of so many probes are kept whole.
pub fn whole_per_probe(probes: usize) -> usize {
    (MAX_WHOLE / probes.max(1)).clamp(1, MAX_RUNS)
}

impl ProbeHistory {
    /// A run has ended, while the prober itself was offline or was not.
    pub fn observe(&self, outcome: &Arc<Outcome>, offline: bool) {
        // Made outside of the lock, which the listener's thread may hold for a moment.
        let run = Arc::new(Run::of(outcome, offline));
        let mut kept = self.kept();
        kept.failing_since = if run.success() { None } else { Some(kept.failing_since.unwrap_or(run.time)) };
        push(&mut kept.runs, run, MAX_RUNS);
        if let Some(pair) = outcome.compared.as_deref().and_then(|compared| compared.pair) {
            push(&mut kept.pairs, pair, MAX_PAIRS);
        }
        if !outcome.ratelimit.is_empty() {
            kept.told.ratelimit = Some((outcome.time, outcome.ratelimit.clone()));
        }
        kept.told.tls = outcome.tls.or(kept.told.tls);
        kept.told.balance =
            if outcome.success() { outcome.balance } else { outcome.balance.or(kept.told.balance) };
        kept.told.status_page.clone_from(&outcome.status_page);
        kept.latest = Some(Arc::clone(outcome));
        let most_whole = kept.most_whole;
        push(&mut kept.whole, Arc::clone(outcome), most_whole);
        kept.held = None;
    }

    /// The probe waits like this from now on.
    pub fn waits(&self, waiting: Waiting) {
        self.kept().waiting = waiting;
    }

    /// Due runs did not take place.
    pub fn skipped(&self, cause: SkipCause, runs: u64) {
        let mut kept = self.kept();
        let before = kept.held.map_or(0, |held| held.runs);
        kept.held = Some(Held { cause, runs: before + runs });
    }

    /// All of it, as it is now. The lock is held while pointers are copied.
    pub fn snapshot(&self) -> Snapshot {
        let kept = self.kept();
        Snapshot {
            runs: kept.runs.iter().cloned().collect(),
            pairs: kept.pairs.iter().copied().collect(),
            failing_since: kept.failing_since,
            told: kept.told.clone(),
            latest: kept.latest.clone(),
            waiting: kept.waiting,
            held: kept.held,
        }
    }

    /// The runs that are kept whole, the oldest first.
    pub fn whole(&self) -> Vec<Arc<Outcome>> {
        self.kept().whole.iter().cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// From now on so many runs are kept whole.
    fn share(&mut self, most_whole: usize) {
        self.most_whole = most_whole;
        let gone = self.whole.len().saturating_sub(most_whole);
        self.whole.drain(..gone);
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    ring.push_back(item);
    if ring.len() > most {
        ring.pop_front();
    }
}
