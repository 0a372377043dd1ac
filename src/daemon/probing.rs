//! The thread that times probes, and does nothing else: a single-threaded runtime with the scheduler on it.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tracing::warn;

use super::delivery::{Delivery, Watched};
use crate::{
    config::Schedule,
    health::{Beat, GaveUp, Supervisor},
    schedule::{Anchor, Demand, Scheduler},
    server::RunRequest,
};

/// How often the scheduler's runtime says that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// Stack and runtime of blocking work beside the timing thread: taking large bodies apart, at most two at a time.
const MAX_BLOCKING_THREADS: usize = 2;

/// Turns of tasks between two looks at sockets and timers: a few runs whose peers flood them have a turn each, some of it long,
/// and must not delay what has arrived for the others.
const EVENT_INTERVAL: u32 = 7;

/// The thread, from outside.
pub(super) struct Probing {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<Result<(), GaveUp>>,
}

enum Order {
    Apply { limits: Schedule, targets: Vec<Arc<Watched>>, done: oneshot::Sender<()> },
    Stop { within: Duration, aborted: oneshot::Sender<usize> },
}

/// How long the thread may take to answer an order beside what the order itself takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the abort of runs may take that a stop does not wait for.
const ABORT: Duration = Duration::from_millis(500);

/// The thread has not done what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silent {
    /// It panicked over the order, and goes on with what it did before.
    #[error("the scheduler failed over it, the log says where; please report it")]
    Panicked,
    /// It does something else for long; what it was told will be done.
    #[error("the scheduler has not answered within {PATIENCE:?}")]
    Busy,
    /// It has not even taken the order before; this one is not given to it.
    #[error("the scheduler has not taken the order before for {PATIENCE:?}")]
    Stuck,
}

impl Probing {
    /// Starts the thread, without probes.
    pub(super) fn start(
        delivery: Delivery,
        limits: Schedule,
        beat: Beat,
        demands: mpsc::Receiver<RunRequest>,
        mut supervisor: Supervisor,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .event_interval(EVENT_INTERVAL)
            .build()?;
        let (orders, orders_taken) = mpsc::channel(1);
        let (delivery, anchor, applied) = (Arc::new(delivery), Anchor::now(), (limits, Vec::new()));
        let mut timing = Timing { orders: orders_taken, demands, delivery, anchor, beat, applied };
        let thread = thread::Builder::new().name("probes".to_owned()).spawn(move || {
            let ended = supervisor.keep_alive(|| runtime.block_on(timing.follow()));
            // What still blocks, blocks nobody: the process is about to end.
            runtime.shutdown_background();
            ended
        })?;
        Ok(Self { orders, thread })
    }

    /// Puts a configuration in force, and returns when every probe of it is scheduled.
    pub(super) async fn apply(&self, limits: Schedule, targets: Vec<Arc<Watched>>) -> Result<(), Silent> {
        let (done, applied) = oneshot::channel();
        self.give(Order::Apply { limits, targets, done }, applied, PATIENCE).await
    }

    /// Starts no new run and waits for those in flight, no longer than `within`; the number is of those aborted.
    pub(super) async fn stop(self, within: Duration) -> Result<usize, Silent> {
        let (aborted, stopped) = oneshot::channel();
        // The abort of what is left takes no time worth waiting for.
        self.give(Order::Stop { within, aborted }, stopped, within + ABORT).await
    }

    async fn give<T>(
        &self,
        order: Order,
        answer: oneshot::Receiver<T>,
        patience: Duration,
    ) -> Result<T, Silent> {
        let deadline = Instant::now() + patience;
        match timeout_at(deadline, self.orders.send(order)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Silent::Panicked),
            Err(_) => return Err(Silent::Stuck),
        }
        match timeout_at(deadline, answer).await {
            Ok(answer) => answer.map_err(|_| Silent::Panicked),
            Err(_) => Err(Silent::Busy),
        }
    }

    /// Whether the thread has ended, which it does only when it was stopped or gave up.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Why the thread has ended; waits for its end.
    pub(super) fn end(self) -> Result<(), GaveUp> {
        self.thread.join().expect("its panics are caught")
    }
}

/// What the thread goes on with after a panic.
struct Timing {
    orders: mpsc::Receiver<Order>,
    demands: mpsc::Receiver<RunRequest>,
    delivery: Arc<Delivery>,
    /// The same for all schedulers, so that each probe keeps its due times.
    anchor: Anchor,
    beat: Beat,
    /// The configuration in force.
    applied: (Schedule, Vec<Arc<Watched>>),
}

impl Timing {
    async fn follow(&mut self) {
        let (limits, targets) = &self.applied;
        let mut scheduler = Scheduler::new(Arc::clone(&self.delivery), self.anchor, limits);
        scheduler.apply(limits, targets.clone());
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let order = tokio::select! {
                order = self.orders.recv() => order,
                Some(RunRequest { probe, within, answer }) = self.demands.recv() => {
                    scheduler.demand(&probe, Demand { deadline: Instant::now() + within, answer });
                    continue;
                }
                _ = ticks.tick() => {
                    self.beat.beat();
                    if let Some(seconds) = scheduler.follow_wall_clock() {
                        warn!(seconds, "Wall clock was set, which moves no run");
                    }
                    continue;
                }
            };
            match order {
                Some(Order::Apply { limits, targets, done }) => {
                    scheduler.apply(&limits, targets.clone());
                    self.applied = (limits, targets);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Schedule;

    #[tokio::test(start_paused = true)]
    async fn an_order_that_is_taken_late_is_told_from_one_that_is_not_given() {
        let limits = || Schedule {
            max_concurrent: 1,
            max_concurrent_per_provider: 1,
            max_backoff: Duration::from_secs(60),
        };
        // Nobody reads: the first order waits, the second finds no room.
        let (orders, mut taken) = mpsc::channel(1);
        let probing = Probing { orders, thread: thread::spawn(|| Ok(())) };
        assert!(matches!(probing.apply(limits(), Vec::new()).await, Err(Silent::Busy)));
        assert!(matches!(probing.apply(limits(), Vec::new()).await, Err(Silent::Stuck)));
        let Some(Order::Apply { done, .. }) = taken.recv().await else { panic!("it was given") };
        assert!(done.is_closed());
        drop(taken);
        assert!(matches!(probing.apply(limits(), Vec::new()).await, Err(Silent::Panicked)));
    }
}
