//! The bounded queue and the thread behind it, so that a disk or a pipe delays nobody but that thread.

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// How many lines wait at most; one more is dropped.
const CAPACITY: usize = 4096;

/// How long the thread pauses after a panic, which would be a bug of ours.
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the file.
    Written,
    /// It was not tried: there was no room for it.
    Dropped,
    /// It was tried, or could not be for lack of a file, and is not in the file as a whole.
    Failed,
}

/// What became of the lines of one file since the start, over reloads. The three sum up to the lines given, but for
/// those still waiting.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Lines in the file.
    pub written: Arc<AtomicU64>,
    /// Lines for which there was no room: the queue was full, or the file at its size limit, or writing had stopped.
    pub dropped: Arc<AtomicU64>,
    /// Lines lost to errors of the disk or pipe, or to a panic in writing them.
    pub errors: Arc<AtomicU64>,
    /// Panics in writing, after which it went on.
    pub restarts: Arc<AtomicU64>,
}

impl Counters {
    fn count(&self, fate: Fate) {
        self.add(fate, 1);
    }

    fn add(&self, fate: Fate, lines: u64) {
        let counter = match fate {
            Fate::Written => &self.written,
            Fate::Dropped => &self.dropped,
            Fate::Failed => &self.errors,
        };
        counter.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The queue of one file and its thread. Dropping it lets the thread write what is queued and end by itself.
pub struct Lines<T> {
    queue: Arc<Queue<T>>,
}

struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    counters: Counters,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// The thread looks at the queue by itself before long, and need not be woken for a line.
    resting: bool,
    /// No more is taken in.
    closed: bool,
    /// The thread is gone.
    ended: bool,
}

impl<T: Send + 'static> Lines<T> {
    /// Starts the thread, which hands each line to `write` in the order given. Whenever it has written all there were,
    /// it rests that long, so that a stream of lines wakes it once a rest and not for each; zero: never.
    pub fn start(
        thread_name: &str,
        counters: Counters,
        rest: Duration,
        write: impl FnMut(T) -> Fate + Send + 'static,
    ) -> io::Result<Self> {
        let state = State { waiting: VecDeque::new(), resting: false, closed: false, ended: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new(), counters });
        let served = Arc::clone(&queue);
        thread::Builder::new().name(thread_name.to_owned()).spawn(move || serve(&served, rest, write))?;
        Ok(Self { queue })
    }

    /// Takes a line without ever waiting: one for which there is no room is dropped and counted.
    pub fn give(&self, line: T) {
        let mut state = self.queue.lock();
        if state.closed || state.waiting.len() >= CAPACITY {
            drop(state);
            self.queue.counters.count(Fate::Dropped);
        } else {
            state.waiting.push_back(line);
            let wake = !state.resting || state.is_filling();
            drop(state);
            if wake {
                self.queue.changed.notify_all();
            }
        }
    }

    /// Takes no more lines and waits until the queued ones are written, at most until the deadline. What is still
    /// queued then is dropped and counted; a thread stuck in a write is left to itself.
    pub fn stop(&self, deadline: Duration) {
        let mut state = self.queue.lock();
        state.closed = true;
        self.queue.changed.notify_all();
        let waited = self.queue.changed.wait_timeout_while(state, deadline, |state| !state.ended);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        self.queue.discard(&mut state);
    }

    /// Takes no more lines; the thread writes the queued ones and ends by itself.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }

    /// Whether the thread is gone.
    pub fn has_ended(&self) -> bool {
        self.queue.lock().ended
    }
}

impl<T> Drop for Lines<T> {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl<T> fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("counters", &self.queue.counters).finish_non_exhaustive()
    }
}

impl<T> State<T> {
    /// Whether it is time to write, however short the rest has been.
    fn is_filling(&self) -> bool {
        self.waiting.len() >= CAPACITY / 2
    }
}

impl<T> Queue<T> {
    /// A poisoned queue is as good as any: nothing is left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next line; `None`: closed, and nothing is left.
    fn next(&self) -> Option<T> {
        let wait = |state: &mut State<T>| state.waiting.is_empty() && !state.closed;
        let mut state = self.changed.wait_while(self.lock(), wait).unwrap_or_else(PoisonError::into_inner);
        state.waiting.pop_front()
    }

    /// Lets lines gather for that long, unless they become many or the last ones.
    fn rest(&self, rest: Duration) {
        let mut state = self.lock();
        if rest.is_zero() || !state.waiting.is_empty() {
            return;
        }
        state.resting = true;
        let gather = |state: &mut State<T>| !state.closed && !state.is_filling();
        let waited = self.changed.wait_timeout_while(state, rest, gather);
        waited.unwrap_or_else(PoisonError::into_inner).0.resting = false;
    }

    fn discard(&self, state: &mut State<T>) {
        self.counters.add(Fate::Dropped, state.waiting.len() as u64);
        state.waiting.clear();
    }
}

fn serve<T>(queue: &Queue<T>, rest: Duration, mut write: impl FnMut(T) -> Fate) {
    // However this thread ends, nobody waits for it, nor fills a queue that nothing empties.
    struct End<'a, T>(&'a Queue<T>);
    impl<T> Drop for End<'_, T> {
        fn drop(&mut self) {
            let mut state = self.0.lock();
            state.closed = true;
            state.ended = true;
            self.0.discard(&mut state);
            self.0.changed.notify_all();
        }
    }
    let _end = End(queue);
    while let Some(line) = queue.next() {
        let fate = catch_unwind(AssertUnwindSafe(|| write(line))).unwrap_or_else(|_| {
            queue.counters.restarts.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
            Fate::Failed
        });
        queue.counters.count(fate);
        queue.rest(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn counted(counters: &Counters) -> (u64, u64, u64) {
        let Counters { written, dropped, errors, restarts: _ } = counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(written), load(dropped), load(errors))
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_never_the_caller() {
        let counters = Counters::default();
        let (entered, inside) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let lines = Lines::start("stuck", counters.clone(), Duration::ZERO, move |_: u32| {
            entered.send(()).unwrap();
            released.recv().map_or(Fate::Failed, |()| Fate::Written)
        })
        .unwrap();
        lines.give(0);
        inside.recv().unwrap();
        // The thread holds one line; the queue takes its capacity, and the rest has no room.
        for line in 0..CAPACITY as u32 + 10 {
            lines.give(line);
        }
        assert_eq!(counted(&counters), (0, 10, 0));

        lines.stop(Duration::from_millis(1));
        assert_eq!(counted(&counters), (0, 10 + CAPACITY as u64, 0), "what waits at the deadline is dropped");
        lines.give(1);
        assert_eq!(counted(&counters), (0, 11 + CAPACITY as u64, 0), "what comes after the stop is dropped");

        release.send(()).unwrap();
        lines.stop(Duration::from_secs(60));
        assert_eq!(
            counted(&counters),
            (1, 11 + CAPACITY as u64, 0),
            "the line in hand is counted at its end"
        );
    }

    #[test]
    fn stop_writes_what_is_queued_in_order() {
        let counters = Counters::default();
        let (sender, written) = mpsc::channel();
        let lines = Lines::start("order", counters.clone(), Duration::ZERO, move |line: u32| {
            sender.send(line).unwrap();
            if line.is_multiple_of(3) { Fate::Failed } else { Fate::Written }
        })
        .unwrap();
        for line in 0..1000 {
            lines.give(line);
        }
        lines.stop(Duration::from_secs(60));
        assert_eq!(written.into_iter().collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
        assert_eq!(counted(&counters), (666, 0, 334));
    }

    #[test]
    fn lines_gather_during_a_rest_until_they_are_many_or_the_last() {
        let counters = Counters::default();
        let (sender, written) = mpsc::channel();
        let lines = Lines::start("rest", counters.clone(), Duration::from_secs(3600), move |line: usize| {
            sender.send(line).unwrap();
            Fate::Written
        })
        .unwrap();
        let until_it_rests = || {
            while !lines.queue.lock().resting {
                thread::yield_now();
            }
        };
        lines.give(0);
        assert_eq!(written.recv(), Ok(0), "the first is written at once");
        until_it_rests();
        (1..CAPACITY / 2).for_each(|line| lines.give(line));
        assert_eq!(lines.queue.lock().waiting.len(), CAPACITY / 2 - 1);
        lines.give(CAPACITY / 2);
        assert!((1..=CAPACITY / 2).all(|line| written.recv() == Ok(line)), "many are written at once");
        until_it_rests();
        lines.give(0);
        lines.stop(Duration::from_secs(60));
        assert_eq!(counted(&counters), (CAPACITY as u64 / 2 + 2, 0, 0), "the last one ends the rest");
    }

    #[test]
    fn a_dropped_queue_is_still_written() {
        let (sender, written) = mpsc::channel();
        let lines = Lines::start("dropped", Counters::default(), Duration::ZERO, move |line: u32| {
            sender.send(line).unwrap();
            Fate::Written
        })
        .unwrap();
        lines.give(1);
        lines.give(2);
        drop(lines);
        // The iterator ends when the thread, and with it the sender, is gone.
        assert_eq!(written.into_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_panic_costs_the_line_in_hand_and_is_counted() {
        let counters = Counters::default();
        let lines = Lines::start("panic", counters.clone(), Duration::ZERO, |line: u32| {
            assert!(line != 1, "on purpose");
            Fate::Written
        })
        .unwrap();
        for line in 0..5 {
            lines.give(line);
        }
        lines.stop(Duration::from_secs(60));
        assert_eq!(counted(&counters), (4, 0, 1));
        assert_eq!(counters.restarts.load(Ordering::Relaxed), 1);
    }
}
