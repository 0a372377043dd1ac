//! The daemon's own metrics, kept by the prometheus crate in a registry of ours.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Metric},
};

use super::text::{Header, Kind, Page, labels};
use crate::{line_writer::Counters, outcome::unix_seconds, sync::Mutex};

const LAG_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

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
    registry: Registry,
    reload_successful: IntGauge,
    reload_success_timestamp: Gauge,
    lag: Histogram,
    runs_in_flight: IntGauge,
    /// Restarts by task.
    tasks: Mutex<Vec<(&'static str, Arc<AtomicU64>)>>,
    files: Mutex<Vec<File>>,
}

/// Name and counters of a file that is written.
#[derive(Debug)]
struct File {
    name: &'static str,
    counters: Counters,
}

impl Own {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let build = registered(
            &registry,
            IntGaugeVec::new(
                Opts::new("langmart_prober_build_info", "Build information. Value is always 1."),
                &["version", "revision", "rustversion"],
            ),
        );
        let revision = option_env!("LANGMART_PROBER_REVISION").unwrap_or("unknown");
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), revision, env!("LANGMART_PROBER_RUSTC")]).set(1);
        let lag = HistogramOpts::new(
            "langmart_prober_schedule_lag_seconds",
            "Delay between the scheduled and the actual start of a run.",
        );
        Self {
            reload_successful: registered(
                &registry,
                IntGauge::new(
                    "langmart_prober_config_last_reload_successful",
                    "Whether the last configuration load succeeded (1) or failed (0).",
                ),
            ),
            reload_success_timestamp: registered(
                &registry,
                Gauge::new(
                    "langmart_prober_config_last_reload_success_timestamp_seconds",
                    "Unix time of the last successful configuration load.",
                ),
            ),
            lag: registered(&registry, Histogram::with_opts(lag.buckets(LAG_BOUNDS.to_vec()))),
            runs_in_flight: registered(
                &registry,
                IntGauge::new(
                    "langmart_prober_runs_in_flight",
                    "Number of probe runs currently in progress.",
                ),
            ),
            registry,
            tasks: Mutex::default(),
            files: Mutex::default(),
        }
    }

    pub(super) fn reloaded(&self, ok: bool, at: SystemTime) {
        self.reload_successful.set(i64::from(ok));
        if ok {
            self.reload_success_timestamp.set(unix_seconds(at));
        }
    }

    pub(super) fn lag(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    pub(super) fn runs_in_flight(&self) -> &IntGauge {
        &self.runs_in_flight
    }

    pub(super) fn count_restarts(&self, task: &'static str, restarts: Arc<AtomicU64>) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|(name, _)| *name != task);
        tasks.push((task, restarts));
    }

    pub(super) fn count_writer(&self, name: &'static str, counters: &Counters) {
        self.count_restarts(name, Arc::clone(&counters.restarts));
        let mut files = self.files.lock();
        files.retain(|file| file.name != name);
        files.push(File { name, counters: counters.clone() });
    }

    pub(super) fn writes_in_progress(&self) -> Vec<(&'static str, Duration)> {
        let files = self.files.lock();
        files.iter().map(|file| (file.name, file.counters.clock.in_progress())).collect()
    }

    /// Returns the state of the daemon, for a page.
    pub(super) fn now(&self) -> OwnNow {
        let lag = self.lag.metric();
        let lag = lag.get_histogram();
        let most = 0.99 * lag.get_sample_count() as f64;
        let bucket = lag.get_bucket().iter().find(|bucket| bucket.cumulative_count() as f64 >= most);
        let reloaded = Duration::try_from_secs_f64(self.reload_success_timestamp.get()).unwrap_or_default();
        let files = self.files.lock();
        let tasks = self.tasks.lock();
        let sum = |counter: fn(&File) -> &AtomicU64| {
            files.iter().map(|file| counter(file).load(Ordering::Relaxed)).sum()
        };
        OwnNow {
            reload_successful: self.reload_successful.get() == 1,
            reloaded: (!reloaded.is_zero()).then_some(SystemTime::UNIX_EPOCH + reloaded),
            lag: bucket
                .filter(|_| lag.get_sample_count() > 0)
                .and_then(|bucket| Duration::try_from_secs_f64(bucket.upper_bound()).ok()),
            lines_dropped: sum(|file| &file.counters.dropped),
            write_errors: sum(|file| &file.counters.errors),
            restarts: tasks.iter().map(|(_, restarts)| restarts.load(Ordering::Relaxed)).sum(),
        }
    }

    pub(super) fn write(&self, page: &mut Page) {
        let mut families = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut families)
            .expect("gathered families have samples, and a Vec takes every write");
        page.append(&families);
        page.family(Header {
            name: "langmart_prober_task_restarts_total",
            kind: Kind::Counter,
            help: "Number of times a task was restarted after a failure.",
        });
        for (task, restarts) in &*self.tasks.lock() {
            page.sample(&labels([("task", *task)]), restarts.load(Ordering::Relaxed) as f64);
        }
        let files = self.files.lock();
        page.family(Header {
            name: "langmart_prober_log_lines_dropped_total",
            kind: Kind::Counter,
            help: "Lines dropped before they were written, by file.",
        });
        for file in &*files {
            page.sample(&labels([("file", file.name)]), file.counters.dropped.load(Ordering::Relaxed) as f64);
        }
        page.family(Header {
            name: "langmart_prober_log_write_errors_total",
            kind: Kind::Counter,
            help: "Failed writes, by file.",
        });
        for file in &*files {
            page.sample(&labels([("file", file.name)]), file.counters.errors.load(Ordering::Relaxed) as f64);
        }
        page.family(Header {
            name: "langmart_prober_log_write_in_progress_seconds",
            kind: Kind::Gauge,
            help: "Duration of the write in progress, by file; 0 if there is none.",
        });
        for file in &*files {
            page.sample(&labels([("file", file.name)]), file.counters.clock.in_progress().as_secs_f64());
        }
    }
}

/// Registers a new collector. This fails only if the name is invalid or taken, which tests detect.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("the name is well-formed");
    registry.register(Box::new(collector.clone())).expect("the name is taken once");
    collector
}
