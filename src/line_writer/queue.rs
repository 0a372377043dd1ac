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

/// Maximum number of lines in the queue. Further lines are dropped.
const CAPACITY: usize = 4096;

/// Result of writing one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// The line is in the file.
    Written,
    /// The line was not tried, because the queue or the file was full or writing had stopped.
    Dropped,
    /// The line is missing from the file or incomplete, because a write failed or no file could be
    /// opened.
    Failed,
}

/// Line counters of one file since the start, across reloads. The sum of the first three is the
/// number of lines pushed, without those still in the queue.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Lines in the file.
    pub written: Arc<AtomicU64>,
    /// Lines dropped because the queue was full, the file had reached its size limit, or writing
    /// had stopped.
    pub dropped: Arc<AtomicU64>,
    /// Lines lost to write errors or to a panic while writing.
    pub errors: Arc<AtomicU64>,
    /// Panics of the writer thread, after each of which it continued.
    pub restarts: Arc<AtomicU64>,
    /// Start times of the writes in progress.
    pub clock: WriteClock,
}

impl Counters {
    fn add(&self, result: WriteResult, lines: u64) {
        let counter = match result {
            WriteResult::Written => &self.written,
            WriteResult::Dropped => &self.dropped,
            WriteResult::Failed => &self.errors,
        };
        counter.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Queue of one file and its writer. When it is dropped, the thread writes the queued lines and
/// ends.
pub struct LineWriter<T: Send + 'static> {
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

/// A line that is being written. Its result is counted when it is dropped, also after a panic.
struct Counted<'a>(&'a Counters, WriteResult);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(self.1, 1);
    }
}

impl<T: Send + 'static> LineWriter<T> {
    /// Starts the writer thread, which passes each line to `write` in order. Whenever the queue is
    /// empty, the thread waits for `gathering` so that lines are written in batches; zero disables
    /// this.
    pub fn start(
        thread_name: &str,
        counters: Counters,
        gathering: Duration,
        mut write: impl FnMut(T) -> WriteResult + Send + 'static,
    ) -> io::Result<Self> {
        let counted = counters.clone();
        let write = move |line| {
            let mut line_result = Counted(&counted, WriteResult::Failed);
            line_result.1 = write(line);
        };
        let observed = (Arc::clone(&counters.restarts), counters.clock.clone());
        let writer = Writer::start(thread_name, VecDeque::new(), gathering, observed, write)?;
        Ok(Self { writer, counters })
    }

    /// Queues a line without blocking. If the queue is full, the line is dropped and counted.
    pub fn push(&self, line: T) {
        let taken = self.writer.change(|waiting| {
            let has_room = waiting.len() < CAPACITY;
            if has_room {
                waiting.push_back(line);
            }
            has_room
        });
        if !taken {
            self.counters.add(WriteResult::Dropped, 1);
        }
    }

    /// Closes the queue and waits until its lines are written, up to the deadline. Lines still in
    /// the queue then are dropped and counted. A thread blocked in a write is abandoned.
    pub fn stop(&self, deadline: Duration) {
        self.writer.stop(deadline, |waiting| {
            self.counters.add(WriteResult::Dropped, waiting.len() as u64);
            waiting.clear();
        });
    }

    /// Closes the queue. The thread writes the queued lines and ends.
    pub fn close(&self) {
        self.writer.close();
    }

    /// Returns whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.writer.has_ended()
    }
}

impl<T: Send + 'static> fmt::Debug for LineWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWriter").field("counters", &self.counters).finish_non_exhaustive()
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
    fn blocked_writer_drops_lines_without_blocking_callers() {
        let counters = Counters::default();
        let (entered, inside) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let lines = LineWriter::start("stuck", counters.clone(), Duration::ZERO, move |_: u32| {
            entered.send(()).unwrap();
            released.recv().map_or(WriteResult::Failed, |()| WriteResult::Written)
        })
        .unwrap();
        lines.push(0);
        inside.recv().unwrap();
        // The thread has taken one line and the queue is full; the other lines are dropped.
        for line in 0..CAPACITY as u32 + 10 {
            lines.push(line);
        }
        assert_eq!(counted(&counters), (0, 10, 0));

        lines.stop(Duration::from_millis(1));
        assert_eq!(
            counted(&counters),
            (0, 10 + CAPACITY as u64, 0),
            "lines queued at the deadline are dropped"
        );
        lines.push(1);
        assert_eq!(counted(&counters), (0, 11 + CAPACITY as u64, 0), "lines after the stop are dropped");

        release.send(()).unwrap();
        lines.stop(Duration::from_secs(60));
        assert_eq!(
            counted(&counters),
            (1, 11 + CAPACITY as u64, 0),
            "the line being written is counted when its write ends"
        );
    }

    #[test]
    fn stop_writes_what_is_queued_in_order() {
        let counters = Counters::default();
        let (sender, written) = mpsc::channel();
        let lines = LineWriter::start("order", counters.clone(), Duration::ZERO, move |line: u32| {
            sender.send(line).unwrap();
            if line.is_multiple_of(3) { WriteResult::Failed } else { WriteResult::Written }
        })
        .unwrap();
        for line in 0..1000 {
            lines.push(line);
        }
        lines.stop(Duration::from_secs(60));
        assert_eq!(written.into_iter().collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
        assert_eq!(counted(&counters), (666, 0, 334));
    }

    #[test]
    fn lines_gather_until_queue_is_half_full_or_closed() {
        let counters = Counters::default();
        let (sender, written) = mpsc::channel();
        let lines =
            LineWriter::start("rest", counters.clone(), Duration::from_secs(3600), move |line: usize| {
                sender.send(line).unwrap();
                WriteResult::Written
            })
            .unwrap();
        let wait_until_gathering = || {
            while !lines.writer.inspect(|_, gathering| gathering) {
                thread::yield_now();
            }
        };
        lines.push(0);
        assert_eq!(written.recv(), Ok(0), "the first line is written immediately");
        wait_until_gathering();
        (1..CAPACITY / 2).for_each(|line| lines.push(line));
        assert_eq!(lines.writer.inspect(|waiting, _| waiting.len()), CAPACITY / 2 - 1);
        lines.push(CAPACITY / 2);
        assert!(
            (1..=CAPACITY / 2).all(|line| written.recv() == Ok(line)),
            "a half-full queue is written immediately"
        );
        wait_until_gathering();
        lines.push(0);
        lines.stop(Duration::from_secs(60));
        assert_eq!(counted(&counters), (CAPACITY as u64 / 2 + 2, 0, 0), "stopping ends the wait");
    }

    #[test]
    fn dropped_queue_is_written() {
        let (sender, written) = mpsc::channel();
        let lines = LineWriter::start("dropped", Counters::default(), Duration::ZERO, move |line: u32| {
            sender.send(line).unwrap();
            WriteResult::Written
        })
        .unwrap();
        lines.push(1);
        lines.push(2);
        drop(lines);
        // The iterator ends when the thread, and with it the sender, is dropped.
        assert_eq!(written.into_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn panic_loses_one_line_and_is_counted() {
        let counters = Counters::default();
        let lines = LineWriter::start("panic", counters.clone(), Duration::ZERO, |line: u32| {
            assert!(line != 1, "on purpose");
            WriteResult::Written
        })
        .unwrap();
        for line in 0..5 {
            lines.push(line);
        }
        lines.stop(Duration::from_secs(60));
        assert_eq!(counted(&counters), (4, 0, 1));
        assert_eq!(counters.restarts.load(Ordering::Relaxed), 1);
    }
}
