//! The thread behind every file that is written, and the inbox in front of it, so that a slow disk
//! or pipe delays only that thread.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use crate::sync::{Condvar, Mutex};

/// Pause of a writer after a panic.
const PANIC_PAUSE: Duration = Duration::from_millis(100);

/// Pending work of a writer. Callers add to it, the writer takes it out in batches.
pub trait Inbox: Send + 'static {
    /// One unit of writing.
    type Batch;

    /// Takes the next batch. Returns `None` if the inbox is empty.
    fn take(&mut self) -> Option<Self::Batch>;

    /// Returns whether the writer may wait for more before it takes the next batch.
    fn may_gather(&self) -> bool;

    /// Returns whether the inbox is so full that it must be written immediately.
    fn is_filling(&self) -> bool;
}

/// Start times of the writes in progress, by thread. A writer that a reload has replaced may still
/// be writing.
#[derive(Clone, Debug, Default)]
pub struct WriteClock(Arc<Mutex<HashMap<ThreadId, Instant>>>);

/// A write in progress, which ends when this is dropped.
struct Writing<'a>(&'a WriteClock);

impl WriteClock {
    /// Returns the age of the oldest write in progress. Returns zero if there is none.
    pub fn in_progress(&self) -> Duration {
        self.lock().values().min().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Registers a write that started at `begun` and never ends.
    #[cfg(test)]
    pub(crate) fn block_since(&self, begun: Instant) {
        self.lock().insert(thread::current().id(), begun);
    }

    fn begin(&self) -> Writing<'_> {
        self.lock().insert(thread::current().id(), Instant::now());
        Writing(self)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ThreadId, Instant>> {
        self.0.lock()
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&thread::current().id());
    }
}

/// Handle of a writer thread. When it is dropped, the thread writes the rest and ends.
pub struct Writer<I: Inbox> {
    shared: Arc<Shared<I>>,
}

struct Shared<I> {
    state: Mutex<State<I>>,
    changed: Condvar,
}

struct State<I> {
    inbox: I,
    /// Whether the thread is waiting for more and will wake by itself.
    gathering: bool,
    /// Whether the inbox is closed.
    closed: bool,
    /// Whether the thread has ended.
    ended: bool,
}

impl<I: Inbox> Writer<I> {
    /// Starts the thread, which passes each batch to `write`. After a batch it waits for
    /// `gathering`, so that frequent changes wake it once per interval instead of once each; zero
    /// disables this. A panic in `write` loses the batch and is counted in `restarts`.
    pub fn start(
        thread_name: &str,
        inbox: I,
        gathering: Duration,
        (restarts, clock): (Arc<AtomicU64>, WriteClock),
        mut write: impl FnMut(I::Batch) + Send + 'static,
    ) -> io::Result<Self> {
        let state = State { inbox, gathering: false, closed: false, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let served = Arc::clone(&shared);
        thread::Builder::new().name(thread_name.to_owned()).spawn(move || {
            // Close the inbox even after a panic, so that no caller waits for the thread or fills
            // the inbox.
            let _end = End(&*served);
            while let Some(batch) = served.next() {
                let written = catch_unwind(AssertUnwindSafe(|| {
                    let _writing = clock.begin();
                    write(batch);
                }));
                if written.is_err() {
                    restarts.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PANIC_PAUSE);
                }
                served.gather(gathering);
            }
        })?;
        Ok(Self { shared })
    }

    /// Changes the inbox without waiting for the writer. `change` returns whether it changed
    /// anything. Returns false if it did not, or if the inbox is closed.
    pub fn change(&self, change: impl FnOnce(&mut I) -> bool) -> bool {
        let mut state = self.shared.lock();
        if state.closed || !change(&mut state.inbox) {
            return false;
        }
        let wake = !state.gathering || state.inbox.is_filling();
        drop(state);
        if wake {
            self.shared.changed.notify_all();
        }
        true
    }

    /// Closes the inbox and waits until everything is written, up to the deadline. `left` receives
    /// what remains. A thread blocked in a write is abandoned.
    pub fn stop(&self, deadline: Duration, left: impl FnOnce(&mut I)) {
        self.close();
        let state = self.shared.lock();
        let mut waited = self.shared.changed.wait_timeout_while(state, deadline, |state| !state.ended);
        left(&mut waited.inbox);
    }

    /// Closes the inbox. The thread writes the rest and ends.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }

    /// Returns whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Inspects the inbox, and whether the thread is gathering.
    #[cfg(test)]
    pub(crate) fn inspect<R>(&self, inspect: impl FnOnce(&I, bool) -> R) -> R {
        let state = self.shared.lock();
        inspect(&state.inbox, state.gathering)
    }
}

impl<I: Inbox> Drop for Writer<I> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Marks the writer as ended when it is dropped.
struct End<'a, I>(&'a Shared<I>);

impl<I> Drop for End<'_, I> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.closed, state.ended) = (true, true);
        self.0.changed.notify_all();
    }
}

impl<I> Shared<I> {
    /// Locks the state. A poisoned lock is safe to use, because no change is left half done.
    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock()
    }
}

impl<I: Inbox> Shared<I> {
    /// Waits for the next batch. Returns `None` if the inbox is closed and empty.
    fn next(&self) -> Option<I::Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.inbox.take() {
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state);
        }
    }

    /// Waits for more changes, until `gathering` has passed, the inbox fills or it is closed.
    fn gather(&self, gathering: Duration) {
        let mut state = self.lock();
        if gathering.is_zero() || !state.inbox.may_gather() {
            return;
        }
        state.gathering = true;
        let gathers = |state: &mut State<I>| !state.closed && !state.inbox.is_filling();
        let mut waited = self.changed.wait_timeout_while(state, gathering, gathers);
        waited.gathering = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Numbers that are taken one by one.
    struct Numbers(Vec<u32>);

    impl Inbox for Numbers {
        type Batch = u32;

        fn take(&mut self) -> Option<u32> {
            self.0.pop()
        }

        fn may_gather(&self) -> bool {
            true
        }

        fn is_filling(&self) -> bool {
            false
        }
    }

    #[test]
    fn write_clock_runs_during_any_write() {
        let clock = WriteClock::default();
        assert_eq!(clock.in_progress(), Duration::ZERO);
        let start = || {
            let (entered, inside) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let writer = Writer::start(
                "clock",
                Numbers(vec![1]),
                Duration::ZERO,
                (Arc::default(), clock.clone()),
                move |_| {
                    entered.send(()).unwrap();
                    let _ = released.recv();
                },
            );
            inside.recv().unwrap();
            (writer.unwrap(), release)
        };
        let (replaced, release_replaced) = start();
        let begun = Instant::now();
        let (current, release_current) = start();
        drop(release_current);
        current.stop(Duration::from_secs(60), |_| ());
        while begun.elapsed() < Duration::from_millis(5) {
            thread::yield_now();
        }
        assert!(clock.in_progress() >= Duration::from_millis(5), "{clock:?}");
        drop(release_replaced);
        replaced.stop(Duration::from_secs(60), |_| ());
        assert_eq!(clock.in_progress(), Duration::ZERO);
    }

    #[test]
    fn write_clock_stops_if_a_write_panics() {
        let clock = WriteClock::default();
        let restarts = Arc::<AtomicU64>::default();
        let written = |number: u32| assert!(number != 1, "on purpose");
        let numbers = Numbers(vec![3, 1, 2]);
        let writer =
            Writer::start("panic", numbers, Duration::ZERO, (restarts.clone(), clock.clone()), written);
        writer.unwrap().stop(Duration::from_secs(60), |numbers| assert!(numbers.0.is_empty()));
        assert_eq!((restarts.load(Ordering::Relaxed), clock.in_progress()), (1, Duration::ZERO));
    }
}
