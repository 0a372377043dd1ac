//! Starts, reconfigures and stops the worker of each probe.

use std::{collections::HashMap, mem, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, yield_now},
    time::{Instant, timeout_at},
};

use super::{
    limits::Limits,
    on_demand::{MAX_WAITERS, OnDemandRequest, Waiters},
    pair::PairCoordinator,
    plan::Anchor,
    rate_limiter::RateLimiter,
    work::Work,
    worker::{AdmissionControl, MAX_CLOCK_DRIFT, Worker},
};
use crate::config::Schedule;

/// Runs every probe of the current configuration in its slots.
///
/// It lives on a single-threaded runtime and is called from there, so that a probe that is removed
/// and added again either still has its worker or has none. Dropping it aborts the runs in flight.
pub struct Scheduler<W: Work> {
    work: Arc<W>,
    anchor: Anchor,
    limits: Arc<Limits>,
    rate_limiter: Arc<RateLimiter>,
    pairs: Arc<PairCoordinator>,
    /// Workers by probe name, including those of removed probes that may have a run in flight.
    probes: HashMap<String, Handle<W::Target>>,
    /// Lead of the wall clock over the anchor's at the last check, in nanoseconds.
    skew: i128,
}

/// Handle of a worker.
struct Handle<T> {
    /// Target to run. `None` if the probe was removed. The worker ends when this is dropped.
    target: watch::Sender<Option<Arc<T>>>,
    task: JoinHandle<()>,
    /// Requests for on-demand runs.
    requests: mpsc::Sender<OnDemandRequest>,
}

impl<W: Work> Scheduler<W> {
    /// Creates a scheduler without probes.
    pub fn new(work: Arc<W>, anchor: Anchor, limits: &Schedule) -> Self {
        let skew = anchor.timestamp(Instant::now()).skew(work.wall_clock());
        Self {
            work,
            anchor,
            limits: Limits::new(limits.clone()),
            rate_limiter: Arc::default(),
            pairs: Arc::default(),
            probes: HashMap::new(),
            skew,
        }
    }

    /// Checks whether the wall clock was set; if so, every probe reports its next run again.
    /// Returns the size of the step in seconds, negative if backwards, or `None` if there was none.
    /// Call it periodically.
    pub fn check_wall_clock(&mut self) -> Option<f64> {
        let skew = self.anchor.timestamp(Instant::now()).skew(self.work.wall_clock());
        if skew.abs_diff(self.skew) < MAX_CLOCK_DRIFT {
            return None;
        }
        let jump = skew - self.skew;
        self.skew = skew;
        for handle in self.probes.values() {
            // Wakes the worker, which finds the same target.
            handle.target.send_modify(|_| ());
        }
        Some(jump as f64 / 1e9)
    }

    /// Applies a configuration: its limits and exactly these targets, whose names are unique.
    ///
    /// A probe whose configuration is equal continues undisturbed, keeps its backoff, and uses the
    /// new target from its next run on. A changed probe loses its backoff, and its slots change
    /// only with its interval. A removed probe finishes its run in flight, which is reported; if it
    /// is added again before that, its next run waits for the end of that run. A lower
    /// `max_backoff` does not shorten a wait in progress.
    pub fn apply(&mut self, limits: &Schedule, targets: Vec<Arc<W::Target>>) {
        self.limits.set(limits.clone());
        let now = self.work.wall_clock();
        let last_run = |target: &W::Target| {
            W::probe(target).provider.requests_per_minute?;
            now.duration_since(self.work.last_run(target)?).ok()
        };
        self.rate_limiter.set(targets.iter().map(|target| (W::probe(target), last_run(target))));
        let mut before = mem::take(&mut self.probes);
        for target in targets {
            let name = W::probe(&target).name.clone();
            let handle = match before.remove(&name) {
                Some(handle) if !handle.target.is_closed() => {
                    handle.target.send_replace(Some(target));
                    handle
                }
                _ => self.start(target),
            };
            self.probes.insert(name, handle);
        }
        for (name, handle) in before {
            handle.target.send_replace(None);
            if !handle.target.is_closed() {
                self.probes.insert(name, handle);
            }
        }
    }

    fn start(&self, target: Arc<W::Target>) -> Handle<W::Target> {
        let (sender, targets) = watch::channel(Some(Arc::clone(&target)));
        let control = AdmissionControl {
            limits: Arc::clone(&self.limits),
            rate_limiter: Arc::clone(&self.rate_limiter),
            pairs: Arc::clone(&self.pairs),
        };
        let (requests, incoming) = mpsc::channel(MAX_WAITERS);
        let incoming = Waiters::new(incoming);
        let worker = Worker::new(Arc::clone(&self.work), control, self.anchor, target, targets, incoming);
        Handle { target: sender, task: tokio::spawn(worker.run()), requests }
    }

    /// Requests a run of a probe. The request is dropped if the probe does not exist or has too
    /// many requests waiting.
    pub fn run_on_demand(&self, probe: &str, request: OnDemandRequest) {
        if let Some(handle) = self.probes.get(probe) {
            // Dropping the request rejects it.
            let _ = handle.requests.try_send(request);
        }
    }

    /// Stops the schedule, waits for the runs in flight until the deadline, and aborts the rest.
    /// Returns the number of aborted runs, which are not reported.
    pub async fn stop(mut self, deadline: Instant) -> usize {
        let mut tasks: Vec<_> = mem::take(&mut self.probes).into_values().map(|handle| handle.task).collect();
        // The workers have just been woken by the loss of their senders. Let those without a run
        // end, so that none of them holds a slot that it has just received and only runs remain in
        // flight.
        yield_now().await;
        let ended = timeout_at(deadline, async {
            for task in &mut tasks {
                // A worker that panicked has ended too.
                let _ = task.await;
            }
        });
        if ended.await.is_ok() {
            return 0;
        }
        let aborted = self.limits.in_flight();
        tasks.retain(|task| !task.is_finished());
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
        aborted
    }
}

impl<W: Work> Drop for Scheduler<W> {
    /// Aborts the workers, so that a new scheduler never overlaps an old run.
    fn drop(&mut self) {
        for handle in self.probes.values() {
            handle.task.abort();
        }
    }
}
