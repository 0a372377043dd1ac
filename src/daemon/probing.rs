//! The thread that times probes, and does nothing else: a single-threaded runtime with the scheduler on it.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};

use super::delivery::{Delivery, Watched};
use crate::{
    config::Schedule,
    health::Beat,
    schedule::{Anchor, Demand, Scheduler},
    server::RunRequest,
};

/// How often the scheduler's runtime says that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// Stack and runtime of blocking work beside the timing thread: taking large bodies apart, at most two at a time.
const MAX_BLOCKING_THREADS: usize = 2;

/// The thread, from outside.
pub(super) struct Probing {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    Apply { limits: Schedule, targets: Vec<Arc<Watched>>, done: oneshot::Sender<()> },
    Stop { within: Duration, aborted: oneshot::Sender<usize> },
}

/// The thread has ended, which only a panic can make it do before it is told to.
#[derive(Debug, thiserror::Error)]
#[error("the scheduler has ended by itself; the log says why")]
pub(super) struct Ended;

impl Probing {
    /// Starts the thread, without probes.
    pub(super) fn start(
        delivery: Delivery,
        limits: Schedule,
        beat: Beat,
        demands: mpsc::Receiver<RunRequest>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .build()?;
        let (orders, receiver) = mpsc::channel(1);
        let thread = thread::Builder::new().name("probes".to_owned()).spawn(move || {
            runtime.block_on(follow(receiver, demands, delivery, limits, beat));
            // What still blocks, blocks nobody: the process is about to end.
            runtime.shutdown_background();
        })?;
        Ok(Self { orders, thread })
    }

    /// Puts a configuration in force, and returns when every probe of it is scheduled.
    pub(super) async fn apply(&self, limits: Schedule, targets: Vec<Arc<Watched>>) -> Result<(), Ended> {
        let (done, applied) = oneshot::channel();
        self.orders.send(Order::Apply { limits, targets, done }).await.map_err(|_| Ended)?;
        applied.await.map_err(|_| Ended)
    }

    /// Starts no new run and waits for those in flight, no longer than `within`; the number is of those aborted.
    pub(super) async fn stop(self, within: Duration) -> Result<usize, Ended> {
        let (aborted, stopped) = oneshot::channel();
        self.orders.send(Order::Stop { within, aborted }).await.map_err(|_| Ended)?;
        stopped.await.map_err(|_| Ended)
    }

    /// Whether the thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

async fn follow(
    mut orders: mpsc::Receiver<Order>,
    mut demands: mpsc::Receiver<RunRequest>,
    delivery: Delivery,
    limits: Schedule,
    beat: Beat,
) {
    let mut scheduler = Scheduler::new(Arc::new(delivery), Anchor::now(), &limits);
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            Some(RunRequest { probe, within, answer }) = demands.recv() => {
                scheduler.demand(&probe, Demand { deadline: Instant::now() + within, answer });
                continue;
            }
            _ = ticks.tick() => {
                beat.beat();
                continue;
            }
        };
        match order {
            Some(Order::Apply { limits, targets, done }) => {
                scheduler.apply(&limits, targets);
                // Whoever asked may be gone, which changes nothing.
                let _ = done.send(());
            }
            Some(Order::Stop { within, aborted }) => {
                let _ = aborted.send(scheduler.stop(Instant::now() + within).await);
                return;
            }
            None => return,
        }
    }
}
