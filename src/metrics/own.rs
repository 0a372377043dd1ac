//! What is the daemon's own, kept by the prometheus crate in a registry of ours.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use super::text::{Header, Kind, Page, labels};
use crate::outcome::unix_seconds;

const LAG_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The daemon's own metrics.
#[derive(Debug)]
pub(super) struct Own {
    registry: Registry,
    reload_successful: IntGauge,
    reload_success_timestamp: Gauge,
    lag: Histogram,
    runs_in_flight: IntGauge,
    /// By task, how often it was started again.
    tasks: Mutex<Vec<(&'static str, Arc<AtomicU64>)>>,
    files: Mutex<Vec<File>>,
}

/// A file of lines, whose writer counts what it loses.
#[derive(Debug)]
struct File {
    name: &'static str,
    dropped: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
}

impl Own {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let build = registered(
            &registry,
            IntGaugeVec::new(
                Opts::new("langmart_prober_build_info", "Always 1, with what this program was built from."),
                &["version", "revision", "rustversion"],
            ),
        );
        let revision = option_env!("LANGMART_PROBER_REVISION").unwrap_or("unknown");
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), revision, env!("LANGMART_PROBER_RUSTC")]).set(1);
        let lag = HistogramOpts::new(
            "langmart_prober_schedule_lag_seconds",
            "How much later than due runs started.",
        );
        Self {
            reload_successful: registered(
                &registry,
                IntGauge::new(
                    "langmart_prober_config_last_reload_successful",
                    "Whether the last attempt to load the configuration succeeded.",
                ),
            ),
            reload_success_timestamp: registered(
                &registry,
                Gauge::new(
                    "langmart_prober_config_last_reload_success_timestamp_seconds",
                    "When the configuration was last loaded.",
                ),
            ),
            lag: registered(&registry, Histogram::with_opts(lag.buckets(LAG_BOUNDS.to_vec()))),
            runs_in_flight: registered(
                &registry,
                IntGauge::new("langmart_prober_runs_in_flight", "Runs under way now."),
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
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|(name, _)| *name != task);
        tasks.push((task, restarts));
    }

    pub(super) fn count_lines(&self, name: &'static str, dropped: Arc<AtomicU64>, errors: Arc<AtomicU64>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| file.name != name);
        files.push(File { name, dropped, errors });
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
            help: "Tasks started again after a failure.",
        });
        for (task, restarts) in &*self.tasks.lock().unwrap_or_else(PoisonError::into_inner) {
            page.sample(&labels([("task", *task)]), restarts.load(Ordering::Relaxed) as f64);
        }
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        page.family(Header {
            name: "langmart_prober_log_lines_dropped_total",
            kind: Kind::Counter,
            help: "Lines that were not written, by file.",
        });
        for file in &*files {
            page.sample(&labels([("file", file.name)]), file.dropped.load(Ordering::Relaxed) as f64);
        }
        page.family(Header {
            name: "langmart_prober_log_write_errors_total",
            kind: Kind::Counter,
            help: "Writes of lines that failed, by file.",
        });
        for file in &*files {
            page.sample(&labels([("file", file.name)]), file.errors.load(Ordering::Relaxed) as f64);
        }
    }
}

/// Registers what was just made. Both fail only for names that are malformed or taken, which the tests would see.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("the name is well-formed");
    registry.register(Box::new(collector.clone())).expect("the name is taken once");
    collector
}
