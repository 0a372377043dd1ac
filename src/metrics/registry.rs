//! The whole of what is exported: which probes have series, and the page of all.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    budget::{self, BudgetNow},
    comparison::{self, ComparisonSeries},
    families::FAMILIES,
    offline::{self, LastRun},
    own::{Own, OwnNow},
    pool, process,
    series::Series,
    text::{self, Header, Kind, Page},
};
use crate::{
    config::{Comparison, Config, Pool, Probe, Shard},
    lines::Counters,
    outcome::{Subject, unix_seconds},
};

/// Everything exported.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    own: Own,
    series: RwLock<Arc<BTreeMap<String, Arc<Series>>>>,
    budget: RwLock<Option<BudgetNow>>,
    groups: RwLock<Arc<Groups>>,
    /// Of the last page in bytes: the next one is about as long.
    length: AtomicUsize,
    /// How often a configuration was loaded, or could not be.
    loads: AtomicUsize,
}

/// What puts probes together.
#[derive(Debug, Default)]
struct Groups {
    comparisons: Vec<Arc<ComparisonSeries>>,
    pools: Vec<Pool>,
    /// `None`: all probes of the file are here.
    shard: Option<Shard>,
}

impl Metrics {
    /// Without probes, for a process that started then by the wall clock.
    pub fn new(started: SystemTime) -> Self {
        Self {
            started,
            own: Own::new(),
            series: RwLock::default(),
            budget: RwLock::default(),
            groups: RwLock::default(),
            length: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
        }
    }

    /// Takes over a configuration: a probe has its series from here on, and one that is gone loses them. A probe
    /// whose name, provider, check and model stay keeps its counters, whatever else changes; a comparison of the same two
    /// keeps its own.
    pub fn configure(&self, config: &Config) {
        let old = self.all();
        let new = config.probes.iter().map(|probe| {
            let series = match old.get(&probe.name).filter(|series| same(series.probe(), probe)) {
                Some(kept) => Series::over(probe, Arc::clone(&kept.values)),
                None => Series::new(probe),
            };
            (probe.name.clone(), Arc::new(series))
        });
        let new: Arc<BTreeMap<_, _>> = Arc::new(new.collect());
        let groups = Groups {
            comparisons: comparison::configured(config, &new, &self.groups().comparisons),
            pools: config.pools.clone(),
            shard: config.shard,
        };
        *self.groups.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(groups);
        *self.series.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// What the runs of a configured probe write to: to be kept, not asked for at each run. A probe that is not
    /// configured (any more) gets series that no page shows.
    pub fn series(&self, probe: &Arc<Probe>) -> Arc<Series> {
        match self.all().get(&probe.name).filter(|series| same(series.probe(), probe)) {
            Some(series) => Arc::clone(series),
            None => Arc::new(Series::new(probe)),
        }
    }

    /// What the pairs of a configured comparison write to: to be kept, not asked for at each run; `None`: there is no
    /// such comparison (any more).
    pub fn comparison(&self, comparison: &Comparison) -> Option<Arc<ComparisonSeries>> {
        let groups = self.groups();
        groups.comparisons.iter().find(|series| series.is_of(comparison)).cloned()
    }

    fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The series of every configured probe by its name.
    pub fn all(&self) -> Arc<BTreeMap<String, Arc<Series>>> {
        Arc::clone(&self.series.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The configuration was loaded, at the start or again, or could not be.
    pub fn reloaded(&self, ok: bool, at: SystemTime) {
        self.own.reloaded(ok, at);
        self.loads.fetch_add(1, Ordering::Release);
    }

    /// Another number after each load: a page that was rendered before it is out of date, however new it is.
    pub fn edition(&self) -> usize {
        self.loads.load(Ordering::Acquire)
    }

    /// How the day's budget stands; `None`: there is none.
    pub fn budget(&self) -> Option<BudgetNow> {
        *self.budget.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how the day's budget stands; `None`: there is none.
    pub fn set_budget(&self, budget: Option<BudgetNow>) {
        *self.budget.write().unwrap_or_else(PoisonError::into_inner) = budget;
    }

    /// A run started this much after it was due.
    pub fn lag(&self, lag: Duration) {
        self.own.lag(lag);
    }

    /// A run is under way from now on.
    pub fn run_started(&self) {
        self.own.runs_in_flight().inc();
    }

    /// A run that was under way is over.
    pub fn run_ended(&self) {
        self.own.runs_in_flight().dec();
    }

    /// Exports what the writer of a file (`log`, `results`, `state`) counts, and for how long it is in its write.
    pub fn count_writer(&self, file: &'static str, counters: &Counters) {
        self.own.count_writer(file, counters);
    }

    /// Returns for how long the write in progress of each file has been so; zero if there is none.
    pub fn writes_in_progress(&self) -> Vec<(&'static str, Duration)> {
        self.own.writes_in_progress()
    }

    /// Exports how often a task that is started again when it fails was so.
    pub fn count_restarts(&self, task: &'static str, restarts: Arc<AtomicU64>) {
        self.own.count_restarts(task, restarts);
    }

    /// When the process started, by the wall clock.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// How the daemon itself fares.
    pub fn own(&self) -> OwnNow {
        self.own.now()
    }

    /// Whether the prober itself is cut off from the network, since the last run of every provider failed there; `None`
    /// where it cannot be told.
    pub fn offline(&self, now: SystemTime) -> Option<bool> {
        let all = self.all();
        let runs = all.values().filter(|series| series.probe().check().addresses_service());
        let runs = runs.filter_map(|series| {
            let last = series.last()?;
            let probe = series.probe();
            Some(LastRun {
                provider: &probe.provider.name,
                host: probe.provider.host(),
                age: last.ended.elapsed(),
                fault: last.fault,
                interval: probe.interval,
                waiting: series.values.backoff_until.value().is_some_and(|until| until > unix_seconds(now)),
            })
        });
        offline::offline(runs)
    }

    /// The whole page in the text format 0.0.4.
    pub fn render(&self, now: SystemTime) -> Vec<u8> {
        let mut page = Page::new(now, self.length.load(Ordering::Relaxed) + 4096);
        self.own.write(&mut page);
        process::write(&mut page, self.started);
        page.family(Header {
            name: "langmart_prober_offline",
            kind: Kind::Gauge,
            help: "Whether the last runs of all providers failed on the network. Absent where it cannot be told.",
        });
        if let Some(offline) = self.offline(now) {
            page.sample("", f64::from(u8::from(offline)));
        }
        budget::write(self.budget().as_ref(), &mut page);
        let all = self.all();
        for family in FAMILIES {
            page.family(family.header);
            for series in all.values() {
                (family.write)(series, &mut page);
            }
        }
        let groups = self.groups();
        comparison::write(&groups.comparisons, &mut page);
        pool::write(&groups.pools, &all, &mut page);
        page.family(Header {
            name: "langmart_prober_shard_info",
            kind: Kind::Gauge,
            help: "Always 1, with the index and the total of this daemon's [shard]. Absent without one.",
        });
        if let Some(Shard { index, total }) = groups.shard {
            let [index, total] = [index, total].map(|number| number.to_string());
            page.sample(&text::labels([("index", &*index), ("total", &*total)]), 1.0);
        }
        let bytes = page.into_bytes();
        self.length.store(bytes.len(), Ordering::Relaxed);
        bytes
    }
}

/// Whether a probe is the same over a reload.
fn same(old: &Probe, new: &Probe) -> bool {
    let Subject { probe, provider, check, model } = old.subject();
    let new = new.subject();
    probe == new.probe && provider == new.provider && check == new.check && model == new.model
}
