//! Pauses with an accuracy of some tenths of a millisecond, without busy waiting.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    io,
    sync::{Arc, MutexGuard},
    thread::{Builder, JoinHandle},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::sync::{Condvar, Mutex};

/// Number of entries above which abandoned pauses are removed.
const PRUNE_ABOVE: usize = 4096;

/// A thread that sleeps on behalf of tasks. tokio's timer counts whole milliseconds and fires after
/// them; a sleeping thread is woken by the kernel about 0.1 ms late.
pub(super) struct Timer {
    clock: Clock,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    pub(super) fn start() -> io::Result<Self> {
        let clock = Clock(Arc::default());
        let thread = Builder::new().name("simulator-timer".to_owned()).spawn({
            let clock = clock.clone();
            move || clock.run()
        })?;
        Ok(Self { clock, thread: Some(thread) })
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock.clone()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clock.lock().stopped = true;
        self.clock.0.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook, and nothing is left to clean up.
            drop(thread.join());
        }
    }
}

/// A handle with which tasks wait.
#[derive(Clone)]
pub(super) struct Clock(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    entries: BinaryHeap<Entry>,
    stopped: bool,
}

struct Entry {
    due: Instant,
    wake: oneshot::Sender<()>,
}

impl Clock {
    /// Waits until `due`, or returns immediately if it has passed. After the end of the timer it
    /// never returns, because the simulator has ended too.
    pub(super) async fn until(&self, due: Instant) {
        if due <= Instant::now() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        {
            let mut queue = self.lock();
            if queue.entries.len() >= PRUNE_ABOVE {
                queue.entries.retain(|entry| !entry.wake.is_closed());
            }
            let earliest = queue.entries.peek().is_none_or(|first| due < first.due);
            queue.entries.push(Entry { due, wake });
            if earliest {
                self.0.changed.notify_one();
            }
        }
        if woken.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn run(&self) {
        let mut queue = self.lock();
        while !queue.stopped {
            let now = Instant::now();
            queue = match queue.entries.peek().map(|first| first.due) {
                None => self.0.changed.wait(queue),
                Some(due) if due > now => self.0.changed.wait_timeout(queue, due - now).0,
                Some(_) => {
                    if let Some(entry) = queue.entries.pop() {
                        // It fails if the pause was abandoned.
                        let _ = entry.wake.send(());
                    }
                    queue
                }
            };
        }
        queue.entries.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock()
    }
}

impl Ord for Entry {
    /// Orders the earliest entry as the greatest, because the heap returns the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn pauses_end_in_order_and_never_early() {
        let timer = Timer::start().unwrap();
        let clock = timer.clock();
        runtime().block_on(async {
            let start = Instant::now();
            let order = Mutex::new(Vec::new());
            let wait = async |ms: u64| {
                clock.until(start + Duration::from_millis(ms)).await;
                assert!(start.elapsed() >= Duration::from_millis(ms));
                order.lock().push(ms);
            };
            tokio::join!(wait(9), wait(3), wait(6), wait(0));
            assert_eq!(*order.lock(), [0, 3, 6, 9]);
        });
    }

    #[test]
    fn abandoned_pauses_are_removed() {
        let timer = Timer::start().unwrap();
        let clock = timer.clock();
        runtime().block_on(async {
            let far = Instant::now() + Duration::from_secs(3600);
            for _ in 0..3 * PRUNE_ABOVE {
                tokio::select! {
                    biased;
                    () = clock.until(far) => unreachable!("an hour has not passed"),
                    () = std::future::ready(()) => {}
                }
            }
        });
        assert!(clock.lock().entries.len() <= PRUNE_ABOVE);
    }

    #[test]
    fn dropped_timer_ends_despite_a_pending_pause() {
        let timer = Timer::start().unwrap();
        let clock = timer.clock();
        runtime().block_on(async {
            let far = clock.until(Instant::now() + Duration::from_secs(3600));
            tokio::select! { biased; () = far => unreachable!("an hour has not passed"), () = std::future::ready(()) => {} }
        });
        drop(timer);
        assert!(clock.lock().stopped && clock.lock().entries.is_empty());
    }
}
