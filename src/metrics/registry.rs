//! All metrics, and the rendering of the page.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    budget_state::BudgetNow,
    comparison::{self, ComparisonSeries},
    families::{FAMILIES, Samples},
    offline::{self, LastRun},
    own::{Own, OwnNow},
    page::{Format, Page},
    pool::PoolState,
    process::Process,
    series::Series,
};
use crate::{
    config::{Budget, Comparison, Config, Pool, Probe, Shard},
    line_writer::Counters,
    outcome::unix_seconds,
    sync::RwLock,
};

/// All metrics of the daemon.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    own: Own,
    series: RwLock<Arc<BTreeMap<String, Arc<Series>>>>,
    budget: RwLock<Option<BudgetNow>>,
    groups: RwLock<Arc<Groups>>,
    /// Number of successful and failed configuration loads.
    loads: AtomicUsize,
}

/// Groups of probes.
#[derive(Debug, Default)]
struct Groups {
    comparisons: Vec<Arc<ComparisonSeries>>,
    pools: Vec<Pool>,
    /// `None` if this daemon runs all probes of the file.
    shard: Option<Shard>,
}

impl Metrics {
    /// Creates the metrics of a process that started at that time, without probes.
    pub fn new(started: SystemTime) -> Self {
        Self {
            started,
            own: Own::new(),
            series: RwLock::default(),
            budget: RwLock::default(),
            groups: RwLock::default(),
            loads: AtomicUsize::new(0),
        }
    }

    /// Applies a configuration. New probes get series, removed probes lose theirs. A probe keeps
    /// its counters if its name, provider, check and model are unchanged; a comparison keeps its
    /// own if both probes do.
    pub fn configure(&self, config: &Config) {
        let old = self.all();
        let new = config.probes.iter().map(|probe| {
            let same = |series: &&Arc<Series>| series.probe().subject() == probe.subject();
            let series = match old.get(&probe.name).filter(same) {
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
        *self.groups.write() = Arc::new(groups);
        *self.series.write() = new;
    }

    /// Returns the series that runs of a probe are added to. Callers keep it instead of looking it
    /// up for each run. A probe that is not configured gets series that are not exported.
    pub fn series(&self, probe: &Arc<Probe>) -> Arc<Series> {
        match self.all().get(&probe.name).filter(|series| series.probe().subject() == probe.subject()) {
            Some(series) => Arc::clone(series),
            None => Arc::new(Series::new(probe)),
        }
    }

    /// Returns the series that pairs of a comparison are added to. Callers keep it instead of
    /// looking it up for each pair. Returns `None` if the comparison is not configured.
    pub fn comparison(&self, comparison: &Comparison) -> Option<Arc<ComparisonSeries>> {
        let groups = self.groups();
        groups.comparisons.iter().find(|series| series.is_of(comparison)).cloned()
    }

    fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups.read())
    }

    /// Returns the series of every configured probe, by name.
    pub fn all(&self) -> Arc<BTreeMap<String, Arc<Series>>> {
        Arc::clone(&self.series.read())
    }

    /// Records a successful or failed configuration load.
    pub fn reloaded(&self, ok: bool, at: SystemTime) {
        self.own.record_reload(ok, at);
        self.loads.fetch_add(1, Ordering::Release);
    }

    /// Returns a number that changes with each configuration load, which makes pages rendered
    /// before it outdated.
    pub fn edition(&self) -> usize {
        self.loads.load(Ordering::Acquire)
    }

    /// Returns the state of the daily budget. Returns `None` if there is no budget.
    pub fn budget(&self) -> Option<BudgetNow> {
        *self.budget.read()
    }

    /// Sets the state of the daily budget, or `None` if there is no budget.
    pub fn set_budget(&self, budget: Option<BudgetNow>) {
        *self.budget.write() = budget;
    }

    /// Records the delay between the scheduled and the actual start of a run.
    pub fn lag(&self, lag: Duration) {
        self.own.lag.observe(lag.as_secs_f64(), self.started, None);
    }

    /// Counts a run in progress.
    pub fn run_started(&self) {
        self.own.run_started();
    }

    /// Ends a run in progress.
    pub fn run_ended(&self) {
        self.own.run_ended();
    }

    /// Exports the counters of the writer of a file (`log`, `results`, `state`).
    pub fn count_writer(&self, file: &'static str, counters: &Counters) {
        self.own.count_writer(file, counters);
    }

    /// Returns the duration of the write in progress of each file; zero if there is none.
    pub fn writes_in_progress(&self) -> Vec<(&'static str, Duration)> {
        self.own.writes_in_progress()
    }

    /// Exports the number of restarts of a task.
    pub fn count_restarts(&self, task: &'static str, restarts: Arc<AtomicU64>) {
        self.own.count_restarts(task, restarts);
    }

    /// Returns the wall-clock time at which the process started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Returns the state of the daemon.
    pub fn own(&self) -> OwnNow {
        self.own.now()
    }

    /// Returns whether the prober itself is offline: the last run of every provider failed on the
    /// network. Returns `None` if this is unknown.
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

    /// Renders the page in a format. Fails only if the output does.
    pub fn render(&self, now: SystemTime, format: Format, out: &mut dyn Write) -> io::Result<()> {
        let (all, groups) = (self.all(), self.groups());
        let prober = Prober {
            own: &self.own,
            started: self.started,
            process: Process::read(),
            offline: self.offline(now),
            budget: self.budget(),
            shard: groups.shard,
        };
        let mut pools: Vec<_> = groups.pools.iter().map(|pool| PoolState::new(pool, &all)).collect();
        pools.sort_by(|one, other| one.labels.cmp(&other.labels));
        let mut page = Page::new(now, format, out);
        for family in FAMILIES {
            page.family(&family.header);
            match family.samples {
                Samples::Prober(write) => write(&prober, &mut page),
                Samples::Probe(write) => {
                    for series in all.values() {
                        page.subject(&series.labels);
                        write(series, &mut page);
                    }
                }
                Samples::Comparison(write) => {
                    for series in &groups.comparisons {
                        page.subject(&series.labels);
                        write(series, &mut page);
                    }
                }
                Samples::Pool(write) => {
                    for pool in &pools {
                        page.subject(&pool.labels);
                        write(pool, &mut page);
                    }
                }
            }
        }
        page.finish()
    }
}

/// The daemon as the subject of families.
pub(super) struct Prober<'a> {
    pub(super) own: &'a Own,
    pub(super) started: SystemTime,
    /// `None` if it cannot be read.
    pub(super) process: Option<Process>,
    pub(super) offline: Option<bool>,
    pub(super) budget: Option<BudgetNow>,
    pub(super) shard: Option<Shard>,
}

impl Prober<'_> {
    /// Returns the limits of the budget. Returns `None` without a budget.
    pub(super) fn limits(&self) -> Option<Budget> {
        self.budget.map(|budget| budget.limits)
    }
}
