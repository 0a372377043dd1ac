//! Queues replaced by a reload: each is written out by its own thread, and a stop waits for all of
//! them.

use std::time::{Duration, Instant};

use super::queue::LineWriter;
use crate::sync::Mutex;

/// Maximum number of replaced queues that may still be writing. Beyond it, which takes a disk that
/// blocks during several reloads, the lines of the oldest queue are dropped.
const MAX_DRAINING: usize = 4;

/// Replaced queues that are still being written.
#[derive(Debug)]
pub struct DrainingWriters<T: Send + 'static>(Mutex<Vec<LineWriter<T>>>);

impl<T: Send + 'static> Default for DrainingWriters<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> DrainingWriters<T> {
    /// Adds a queue and closes it.
    pub fn add(&self, lines: LineWriter<T>) {
        lines.close();
        let mut draining = self.0.lock();
        draining.retain(|lines| !lines.has_ended());
        if draining.len() >= MAX_DRAINING {
            draining.remove(0).stop(Duration::ZERO);
        }
        draining.push(lines);
    }

    /// Waits until all queues are written, up to `end`. The remaining lines are dropped and
    /// counted.
    pub fn stop(&self, end: Instant) {
        for lines in &*self.0.lock() {
            lines.stop(end.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{atomic::Ordering, mpsc};

    use super::*;
    use crate::line_writer::{Counters, WriteResult};

    #[test]
    fn stop_waits_for_replaced_queues() {
        let counters = Counters::default();
        let (release, released) = mpsc::channel::<()>();
        let lines = LineWriter::start("draining", counters.clone(), Duration::ZERO, move |_: u32| {
            released.recv().map_or(WriteResult::Failed, |()| WriteResult::Written)
        })
        .unwrap();
        (0..3).for_each(|line| lines.push(line));
        let draining = DrainingWriters::default();
        draining.add(lines);
        (0..3).for_each(|_| release.send(()).unwrap());
        draining.stop(Instant::now() + Duration::from_secs(60));
        assert_eq!(counters.written.load(Ordering::Relaxed), 3, "{counters:?}");
    }

    #[test]
    fn blocked_queues_are_bounded_and_their_lines_counted() {
        let counters = Counters::default();
        let draining = DrainingWriters::default();
        let mut blocked = Vec::new();
        for _ in 0..=MAX_DRAINING {
            let (entered, inside) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let lines = LineWriter::start("blocked", counters.clone(), Duration::ZERO, move |_: u32| {
                entered.send(()).unwrap();
                released.recv().map_or(WriteResult::Failed, |()| WriteResult::Written)
            })
            .unwrap();
            lines.push(0);
            inside.recv().unwrap();
            lines.push(1);
            draining.add(lines);
            blocked.push(release);
        }
        assert_eq!(draining.0.lock().len(), MAX_DRAINING);
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 1, "the second line of the oldest queue");
        draining.stop(Instant::now());
        assert_eq!(counters.dropped.load(Ordering::Relaxed), MAX_DRAINING as u64 + 1);
    }
}
