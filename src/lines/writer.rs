//! The thread behind every file that is written, and the inbox in front of it, so that a disk or a pipe delays only that
//! thread.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

/// Pause of a writer after a panic, which is a bug of ours.
const PANIC_PAUSE: Duration = Duration::from_millis(100);

/// What waits for a writer. The callers put it in, the writer takes it out in batches.
pub trait Inbox: Send + 'static {
    /// What is written at once.
    type Batch;

    /// Takes the next batch. Returns `None` if nothing waits.
    fn take(&mut self) -> Option<Self::Batch>;

    /// Returns whether the writer may let more gather before it takes the next batch.
    fn may_gather(&self) -> bool;

    /// Returns whether so much waits that it must be written at once.
    fn is_filling(&self) -> bool;
}

/// Start times of the writes in progress, by thread: a writer that a reload has replaced may still be in its write.
#[derive(Clone, Debug, Default)]
pub struct WriteClock(Arc<Mutex<HashMap<ThreadId, Instant>>>);

/// A write in progress, until it is dropped.
struct Writing<'a>(&'a WriteClock);

impl WriteClock {
    /// Returns for how long the oldest write in progress has been so; zero if there is none.
    pub fn in_progress(&self) -> Duration {
        self.lock().values().min().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Begins a write that never ends, at that time.
    #[cfg(test)]
    pub(crate) fn block_since(&self, begun: Instant) {
        self.lock().insert(thread::current().id(), begun);
    }

    fn begin(&self) -> Writing<'_> {
        self.lock().insert(thread::current().id(), Instant::now());
        Writing(self)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ThreadId, Instant>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&thread::current().id());
    }
}

/// A writer, from outside. Dropped, it lets the thread write what waits and end by itself.
pub struct Writer<I: Inbox> {
    shared: Arc<Shared<I>>,
}

struct Shared<I> {
    state: Mutex<State<I>>,
    changed: Condvar,
}

struct State<I> {
    inbox: I,
    /// The thread looks at the inbox by itself before long, and need not be woken.
    gathering: bool,
    /// Nothing more is taken in.
    closed: bool,
    /// The thread has ended.
    ended: bool,
}

impl<I: Inbox> Writer<I> {
    /// Starts the thread, which hands each batch to `write`. After a batch it lets more gather for that long, so that a
    /// stream of changes wakes it once a gathering and not for each; zero: it does not. A panic in `write` costs the
    /// batch, and is counted in `restarts`.
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
            // However the thread ends, no caller waits for it or fills an inbox that is never emptied.
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

    /// Changes the inbox without ever waiting for the writer. `change` returns whether it did. Returns false if it did
    /// not, or the writer is closed.
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

    /// Takes in nothing more, and waits until all is written, at most until the deadline. What waits then is `left` to
    /// the caller; a thread that is blocked in a write is left to itself.
    pub fn stop(&self, deadline: Duration, left: impl FnOnce(&mut I)) {
        self.close();
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, deadline, |state| !state.ended);
        left(&mut waited.unwrap_or_else(PoisonError::into_inner).0.inbox);
    }

    /// Takes in nothing more; the thread writes what waits and ends by itself.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }

    /// Returns whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Looks at the inbox, and whether more is gathering.
    #[cfg(test)]
    pub(crate) fn look<R>(&self, look: impl FnOnce(&I, bool) -> R) -> R {
        let state = self.shared.lock();
        look(&state.inbox, state.gathering)
    }
}

impl<I: Inbox> Drop for Writer<I> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ends the writer when it is dropped.
struct End<'a, I>(&'a Shared<I>);

impl<I> Drop for End<'_, I> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.closed, state.ended) = (true, true);
        self.0.changed.notify_all();
    }
}

impl<I> Shared<I> {
    /// A poisoned state is as good as any: nothing is left half done while it is locked.
    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Inbox> Shared<I> {
    /// Waits for the next batch. Returns `None` if the writer is closed and nothing is left.
    fn next(&self) -> Option<I::Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.inbox.take() {
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets more gather for that long, unless it becomes much or the last.
    fn gather(&self, gathering: Duration) {
        let mut state = self.lock();
        if gathering.is_zero() || !state.inbox.may_gather() {
            return;
        }
        state.gathering = true;
        let gathers = |state: &mut State<I>| !state.closed && !state.inbox.is_filling();
        let waited = self.changed.wait_timeout_while(state, gathering, gathers);
        waited.unwrap_or_else(PoisonError::into_inner).0.gathering = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Numbers, taken one by one.
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
    fn write_clock_runs_while_any_writer_is_in_a_write() {
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
    fn write_clock_stops_where_a_write_panics() {
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
