//! The bounded queue of lines in front of a writer.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::writer::{Inbox, WriteClock, Writer};

/// How many lines wait at most; one more is dropped.
const CAPACITY: usize = 4096;

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
    /// Since when writes are in progress.
    pub clock: WriteClock,
}

impl Counters {
    fn add(&self, fate: Fate, lines: u64) {
        let counter = match fate {
            Fate::Written => &self.written,
            Fate::Dropped => &self.dropped,
            Fate::Failed => &self.errors,
        };
        counter.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The queue of one file and its writer. Dropping it lets the writer write what is queued and end by itself.
pub struct Lines<T: Send + 'static> {
    writer: Writer<VecDeque<T>>,
    counters: Counters,
}

impl<T: Send + 'static> Inbox for VecDeque<T> {
    type Batch = T;

    fn take(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn may_gather(&self) -> bool {
        self.is_empty()
    }

    fn is_filling(&self) -> bool {
        self.len() >= CAPACITY / 2
    }
}

/// A line that is being written. Dropped, its fate is counted, also after a panic.
struct Counted<'a>(&'a Counters, Fate);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(self.1, 1);
    }
}

impl<T: Send + 'static> Lines<T> {
    /// Starts the writer, which hands each line to `write` in the order given. Once it has written all, it lets lines
    /// gather for that long; zero: it does not.
    pub fn start(
        thread_name: &str,
        counters: Counters,
        gathering: Duration,
        mut write: impl FnMut(T) -> Fate + Send + 'static,
    ) -> io::Result<Self> {
        let counted = counters.clone();
        let write = move |line| {
            let mut line_fate = Counted(&counted, Fate::Failed);
            line_fate.1 = write(line);
        };
        let observed = (Arc::clone(&counters.restarts), counters.clock.clone());
        let writer = Writer::start(thread_name, VecDeque::new(), gathering, observed, write)?;
        Ok(Self { writer, counters })
    }

    /// Takes a line without ever waiting: one for which there is no room is dropped and counted.
    pub fn give(&self, line: T) {
        let taken = self.writer.change(|waiting| {
            let has_room = waiting.len() < CAPACITY;
            if has_room {
                waiting.push_back(line);
            }
            has_room
        });
        if !taken {
            self.counters.add(Fate::Dropped, 1);
        }
    }

    /// Takes no more lines and waits until the queued ones are written, at most until the deadline. What is still
    /// queued then is dropped and counted; a thread stuck in a write is left to itself.
    pub fn stop(&self, deadline: Duration) {
        self.writer.stop(deadline, |waiting| {
            self.counters.add(Fate::Dropped, waiting.len() as u64);
            waiting.clear();
        });
    }

    /// Takes no more lines; the thread writes the queued ones and ends by itself.
    pub fn close(&self) {
        self.writer.close();
    }

    /// Whether the thread is gone.
    pub fn has_ended(&self) -> bool {
        self.writer.has_ended()
    }
}

impl<T: Send + 'static> fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("counters", &self.counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn counted(counters: &Counters) -> (u64, u64, u64) {
        let Counters { written, dropped, errors, restarts: _, clock: _ } = counters;
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
            while !lines.writer.look(|_, gathering| gathering) {
                thread::yield_now();
            }
        };
        lines.give(0);
        assert_eq!(written.recv(), Ok(0), "the first is written at once");
        until_it_rests();
        (1..CAPACITY / 2).for_each(|line| lines.give(line));
        assert_eq!(lines.writer.look(|waiting, _| waiting.len()), CAPACITY / 2 - 1);
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
