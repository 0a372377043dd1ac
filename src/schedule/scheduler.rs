//! Starts, tells and ends the workers of all probes.

use std::{collections::HashMap, mem, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, yield_now},
    time::{Instant, timeout_at},
};

use super::{
    demand::{Demand, Demands, MOST_WAITING},
    limits::Limits,
    pacing::Pacing,
    pair::Meetings,
    plan::Anchor,
    work::Work,
    worker::{DRIFT, Turns, Worker},
};
use crate::config::Schedule;

/// Runs every probe of the configuration in force at its due times.
///
/// It lives on one single-threaded runtime, and is called from there: on one thread, a probe that is removed and added
/// again either still has its worker or has none, and nothing is in between. Dropped, it ends its runs too.
pub struct Scheduler<W: Work> {
    work: Arc<W>,
    anchor: Anchor,
    limits: Arc<Limits>,
    pacing: Arc<Pacing>,
    meetings: Arc<Meetings>,
    /// By the probe's name; those of removed probes too, as long as a run of theirs may be in flight.
    probes: HashMap<String, Handle<W::Target>>,
    /// How far the wall clock was ahead of the anchor's when last looked at, in nanoseconds.
    skew: i128,
}

/// A worker, from outside.
struct Handle<T> {
    /// What it is to run; `None`: nothing any more. The worker ends when this is dropped.
    target: watch::Sender<Option<Arc<T>>>,
    task: JoinHandle<()>,
    /// Asks it for a run of now.
    demands: mpsc::Sender<Demand>,
}

impl<W: Work> Scheduler<W> {
    /// A scheduler without probes.
    pub fn new(work: Arc<W>, anchor: Anchor, limits: &Schedule) -> Self {
        let skew = anchor.moment(Instant::now()).skew(work.wall_clock());
        Self {
            work,
            anchor,
            limits: Limits::new(limits.clone()),
            pacing: Arc::default(),
            meetings: Arc::default(),
            probes: HashMap::new(),
            skew,
        }
    }

    /// Looks at the wall clock, which may have been set: then every probe tells its next run anew. The value is how far
    /// it jumped, in seconds, backwards where negative; `None`: it did not. To be called every now and then.
    pub fn follow_wall_clock(&mut self) -> Option<f64> {
        let skew = self.anchor.moment(Instant::now()).skew(self.work.wall_clock());
        if skew.abs_diff(self.skew) < DRIFT {
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

    /// Puts a configuration in force: its limits, and these targets, each with a name of its own, and no others.
    ///
    /// A probe whose configuration is equal goes on undisturbed, keeps its wait, and takes the new target from its next
    /// run on. One that has changed loses its wait, and its grid only with another interval. One that is gone finishes
    /// a run in flight, which is reported; should it come back before, its next run waits for the end of that one.
    /// A lower `max_backoff` shortens no wait that has begun.
    pub fn apply(&mut self, limits: &Schedule, targets: Vec<Arc<W::Target>>) {
        self.limits.set(limits.clone());
        let now = self.work.wall_clock();
        let last_run = |target: &W::Target| {
            W::probe(target).provider.requests_per_minute?;
            now.duration_since(self.work.last_run(target)?).ok()
        };
        self.pacing.set(targets.iter().map(|target| (W::probe(target), last_run(target))));
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
        let turns = Turns {
            limits: Arc::clone(&self.limits),
            pacing: Arc::clone(&self.pacing),
            meetings: Arc::clone(&self.meetings),
        };
        let (demands, incoming) = mpsc::channel(MOST_WAITING);
        let incoming = Demands::new(incoming);
        let worker = Worker::new(Arc::clone(&self.work), turns, self.anchor, target, targets, incoming);
        Handle { target: sender, task: tokio::spawn(worker.run()), demands }
    }

    /// Asks a probe for a run of now. Who asks for one that is not there, or has too many waiting, is not answered.
    pub fn demand(&self, probe: &str, demand: Demand) {
        if let Some(handle) = self.probes.get(probe) {
            // What does not fit is dropped, which says so.
            let _ = handle.demands.try_send(demand);
        }
    }

    /// Starts no new run, waits for the runs in flight until the deadline, aborts the rest, and says how many it
    /// aborted. Those are not reported.
    pub async fn stop(mut self, deadline: Instant) -> usize {
        let mut tasks: Vec<_> = mem::take(&mut self.probes).into_values().map(|handle| handle.task).collect();
        // The workers have just been woken by the loss of their senders. Let those without a run end, so that none of
        // them holds a slot that it was given in this moment, and what is in flight afterwards are runs.
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
    /// Whoever takes this one's place must not meet a run of it.
    fn drop(&mut self) {
        for handle in self.probes.values() {
            handle.task.abort();
        }
    }
}
