//! The daemon's own metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    histogram::{Bound, Histogram},
    values::Gauge,
};
use crate::{line_writer::Counters, outcome::unix_seconds, sync::Mutex};

/// Version, revision and compiler of this build.
pub(super) const BUILD: [&str; 3] = [
    env!("CARGO_PKG_VERSION"),
    match option_env!("LANGMART_PROBER_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
    env!("LANGMART_PROBER_RUSTC"),
];

const LAG_BOUNDS: &[Bound] = &[
    (0.0005, "0.0005"),
    (0.001, "0.001"),
    (0.0025, "0.0025"),
    (0.005, "0.005"),
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (1.0, "1"),
    (2.5, "2.5"),
    (5.0, "5"),
    (10.0, "10"),
];

/// State of the daemon, as its metrics show it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnNow {
    /// Whether the last configuration load succeeded.
    pub reload_successful: bool,
    /// Time at which the current configuration was loaded. `None` if none was.
    pub reloaded: Option<SystemTime>,
    /// 99th percentile of the schedule lag, as the upper bound of a bucket. `None` if no run has
    /// started or the percentile is above the highest bound.
    pub lag: Option<Duration>,
    /// Lines of log or records that were dropped.
    pub lines_dropped: u64,
    /// Failed writes of log or records.
    pub write_errors: u64,
    /// Restarts of tasks.
    pub restarts: u64,
}

/// The daemon's own metrics.
#[derive(Debug)]
pub(super) struct Own {
    reload_successful: AtomicBool,
    /// Absent before the first load.
    reload_timestamp: Gauge,
    pub(super) lag: Histogram,
    runs_in_flight: AtomicU64,
    /// Number of restarts, by task.
    tasks: Mutex<Vec<(&'static str, Arc<AtomicU64>)>>,
    /// Counters of the writers, by file.
    files: Mutex<Vec<(&'static str, Counters)>>,
}

/// Returns the number of lines that were dropped.
pub(super) fn dropped(counters: &Counters) -> f64 {
    counters.dropped.load(Ordering::Relaxed) as f64
}

/// Returns the number of lines that could not be written.
pub(super) fn errors(counters: &Counters) -> f64 {
    counters.errors.load(Ordering::Relaxed) as f64
}

impl Own {
    pub(super) fn new() -> Self {
        Self {
            reload_successful: AtomicBool::new(false),
            reload_timestamp: Gauge::absent(),
            lag: Histogram::new(LAG_BOUNDS),
            runs_in_flight: AtomicU64::new(0),
            tasks: Mutex::default(),
            files: Mutex::default(),
        }
    }

    pub(super) fn record_reload(&self, ok: bool, at: SystemTime) {
        self.reload_successful.store(ok, Ordering::Relaxed);
        if ok {
            self.reload_timestamp.set(unix_seconds(at));
        }
    }

    pub(super) fn reload_successful(&self) -> bool {
        self.reload_successful.load(Ordering::Relaxed)
    }

    /// Returns the time of the last successful load; `None` before the first.
    pub(super) fn reloaded(&self) -> Option<SystemTime> {
        let since_epoch = Duration::try_from_secs_f64(self.reload_timestamp.value()?).ok()?;
        Some(SystemTime::UNIX_EPOCH + since_epoch)
    }

    pub(super) fn run_started(&self) {
        self.runs_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn run_ended(&self) {
        self.runs_in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn runs_in_flight(&self) -> u64 {
        self.runs_in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn count_restarts(&self, task: &'static str, restarts: Arc<AtomicU64>) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|(name, _)| *name != task);
        tasks.push((task, restarts));
    }

    pub(super) fn count_writer(&self, name: &'static str, counters: &Counters) {
        self.count_restarts(name, Arc::clone(&counters.restarts));
        let mut files = self.files.lock();
        files.retain(|(file, _)| *file != name);
        files.push((name, counters.clone()));
    }

    pub(super) fn each_task(&self, mut use_task: impl FnMut(&'static str, u64)) {
        self.tasks
            .lock()
            .iter()
            .for_each(|(task, restarts)| use_task(task, restarts.load(Ordering::Relaxed)));
    }

    pub(super) fn each_file(&self, mut use_file: impl FnMut(&'static str, &Counters)) {
        self.files.lock().iter().for_each(|(file, counters)| use_file(file, counters));
    }

    pub(super) fn writes_in_progress(&self) -> Vec<(&'static str, Duration)> {
        self.files.lock().iter().map(|(file, counters)| (*file, counters.clock.in_progress())).collect()
    }

    /// Returns the state of the daemon, for a page.
    pub(super) fn now(&self) -> OwnNow {
        let mut now = OwnNow {
            reload_successful: self.reload_successful(),
            reloaded: self.reloaded(),
            lag: self.lag_percentile(0.99),
            ..OwnNow::default()
        };
        self.each_task(|_, restarts| now.restarts += restarts);
        self.each_file(|_, counters| {
            now.lines_dropped += counters.dropped.load(Ordering::Relaxed);
            now.write_errors += counters.errors.load(Ordering::Relaxed);
        });
        now
    }

    /// Returns the upper bound of the bucket of a percentile of the schedule lag. Returns `None`
    /// without runs, and above the highest bound.
    fn lag_percentile(&self, share: f64) -> Option<Duration> {
        let lag = self.lag.snapshot();
        let count = lag.count();
        let mut above =
            lag.buckets().filter(|bucket| count > 0 && bucket.cumulative as f64 >= share * count as f64);
        Duration::try_from_secs_f64(above.next()?.bound).ok()
    }
}
