//! The thread that schedules probes: a single-threaded runtime with the scheduler on it.

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

use super::delivery::{Delivery, ProbeTarget};
use crate::{
    config::Schedule,
    health::{GaveUp, Heartbeat, Supervisor},
    schedule::{Anchor, OnDemandRequest, Scheduler},
    server::RunRequest,
};

/// Interval of the scheduler's heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of threads for blocking work, which is the parsing of large bodies.
const MAX_BLOCKING_THREADS: usize = 2;

/// Number of task polls between two checks for I/O events and timers. A low value limits how long a
/// few runs with large responses can delay events of the others.
const EVENT_INTERVAL: u32 = 7;

/// A handle of the thread.
pub(super) struct Probing {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<Result<(), GaveUp>>,
}

enum Command {
    Apply { limits: Schedule, targets: Vec<Arc<ProbeTarget>>, done: oneshot::Sender<()> },
    Stop { within: Duration, aborted: oneshot::Sender<usize> },
}

/// Timeout for the answer to a command, in addition to the duration of the command itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for aborting the runs that are still in flight at the deadline of a stop.
const ABORT_TIMEOUT: Duration = Duration::from_millis(500);

/// The thread has not executed a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// It panicked during the command, and continues with the previous configuration.
    #[error("the scheduler panicked; please report it with the lines \"Panicked\" of the log")]
    Panicked,
    /// It is busy, and will execute the command later.
    #[error("the scheduler has not answered within {ANSWER_TIMEOUT:?}")]
    Busy,
    /// It has not accepted the previous command; this one was not sent.
    #[error("the scheduler has not accepted the previous command for {ANSWER_TIMEOUT:?}")]
    Stuck,
}

impl Probing {
    /// Starts the thread without probes.
    pub(super) fn start(
        delivery: Delivery,
        limits: Schedule,
        beat: Heartbeat,
        requests: mpsc::Receiver<RunRequest>,
        mut supervisor: Supervisor,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .event_interval(EVENT_INTERVAL)
            .build()?;
        let (commands, receiver) = mpsc::channel(1);
        let (delivery, anchor, applied) = (Arc::new(delivery), Anchor::now(), (limits, Vec::new()));
        let mut timing = ProbeLoop { commands: receiver, requests, delivery, anchor, beat, applied };
        let thread = thread::Builder::new().name("probes".to_owned()).spawn(move || {
            let ended = supervisor.run_restarting(|| runtime.block_on(timing.run()));
            // Blocked work does not delay the end of the process.
            runtime.shutdown_background();
            ended
        })?;
        Ok(Self { commands, thread })
    }

    /// Applies a configuration. Returns when all its probes are scheduled.
    pub(super) async fn apply(
        &self,
        limits: Schedule,
        targets: Vec<Arc<ProbeTarget>>,
    ) -> Result<(), CommandError> {
        let (done, applied) = oneshot::channel();
        self.send(Command::Apply { limits, targets, done }, applied, ANSWER_TIMEOUT).await
    }

    /// Starts no new run and waits for those in flight, at most `within`. Returns the number of
    /// aborted runs.
    pub(super) async fn stop(self, within: Duration) -> Result<usize, CommandError> {
        let (aborted, stopped) = oneshot::channel();
        self.send(Command::Stop { within, aborted }, stopped, within + ABORT_TIMEOUT).await
    }

    async fn send<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
        timeout: Duration,
    ) -> Result<T, CommandError> {
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, self.commands.send(command)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(CommandError::Panicked),
            Err(_) => return Err(CommandError::Stuck),
        }
        match timeout_at(deadline, answer).await {
            Ok(answer) => answer.map_err(|_| CommandError::Panicked),
            Err(_) => Err(CommandError::Busy),
        }
    }

    /// Returns whether the thread has ended, which happens only if it was stopped or gave up.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of the thread and returns why it has ended.
    pub(super) fn end(self) -> Result<(), GaveUp> {
        self.thread.join().expect("its panics are caught")
    }
}

/// The state that the thread keeps if the scheduler panics.
struct ProbeLoop {
    commands: mpsc::Receiver<Command>,
    requests: mpsc::Receiver<RunRequest>,
    delivery: Arc<Delivery>,
    /// Shared by consecutive schedulers, so that probes keep their schedule slots.
    anchor: Anchor,
    beat: Heartbeat,
    /// The applied configuration.
    applied: (Schedule, Vec<Arc<ProbeTarget>>),
}

impl ProbeLoop {
    async fn run(&mut self) {
        let (limits, targets) = &self.applied;
        let mut scheduler = Scheduler::new(Arc::clone(&self.delivery), self.anchor, limits);
        scheduler.apply(limits, targets.clone());
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                Some(RunRequest { probe, within, answer }) = self.requests.recv() => {
                    scheduler.run_on_demand(&probe, OnDemandRequest { deadline: Instant::now() + within, answer });
                    continue;
                }
                _ = ticks.tick() => {
                    self.beat.beat();
                    if let Some(seconds) = scheduler.check_wall_clock() {
                        warn!(seconds, "System clock stepped; schedule unaffected");
                    }
                    continue;
                }
            };
            match command {
                Some(Command::Apply { limits, targets, done }) => {
                    scheduler.apply(&limits, targets.clone());
                    self.applied = (limits, targets);
                    // The sender of the command may have timed out.
                    let _ = done.send(());
                }
                Some(Command::Stop { within, aborted }) => {
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
    async fn late_and_unaccepted_commands_are_distinguished() {
        let limits = || Schedule {
            max_concurrent: 1,
            max_concurrent_per_provider: 1,
            max_backoff: Duration::from_secs(60),
        };
        // Nothing receives: the first command waits for an answer, the second does not fit into the
        // queue.
        let (commands, mut receiver) = mpsc::channel(1);
        let probing = Probing { commands, thread: thread::spawn(|| Ok(())) };
        assert!(matches!(probing.apply(limits(), Vec::new()).await, Err(CommandError::Busy)));
        assert!(matches!(probing.apply(limits(), Vec::new()).await, Err(CommandError::Stuck)));
        let Some(Command::Apply { done, .. }) = receiver.recv().await else { panic!("it was sent") };
        assert!(done.is_closed());
        drop(receiver);
        assert!(matches!(probing.apply(limits(), Vec::new()).await, Err(CommandError::Panicked)));
    }
}
