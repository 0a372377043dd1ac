//! Queues replaced by a reload: each is written out by its own thread, and a stop waits for all of
//! them.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::queue::Lines;

/// Maximum number of replaced queues that may still be writing. Beyond it, which takes a disk that
/// blocks during several reloads, the lines of the oldest queue are dropped.
const MOST: usize = 4;

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
        let mut retired = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|lines| !lines.has_ended());
        if retired.len() >= MOST {
            retired.remove(0).stop(Duration::ZERO);
        }
        retired.push(lines);
    }

    /// Waits until all queues are written, up to `end`. The remaining lines are dropped and
    /// counted.
    pub fn stop(&self, end: Instant) {
        for lines in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
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
        let lines = LineWriter::start("retired", counters.clone(), Duration::ZERO, move |_: u32| {
            released.recv().map_or(WriteResult::Failed, |()| WriteResult::Written)
        })
        .unwrap();
        (0..3).for_each(|line| lines.push(line));
        let retired = DrainingWriters::default();
        retired.add(lines);
        (0..3).for_each(|_| release.send(()).unwrap());
        retired.stop(Instant::now() + Duration::from_secs(60));
        assert_eq!(counters.written.load(Ordering::Relaxed), 3, "{counters:?}");
    }

    #[test]
    fn blocked_queues_are_bounded_and_their_lines_counted() {
        let counters = Counters::default();
        let retired = DrainingWriters::default();
        let mut hung = Vec::new();
        for _ in 0..=MOST {
            let (entered, inside) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let lines = LineWriter::start("hung", counters.clone(), Duration::ZERO, move |_: u32| {
                entered.send(()).unwrap();
                released.recv().map_or(WriteResult::Failed, |()| WriteResult::Written)
            })
            .unwrap();
            lines.push(0);
            inside.recv().unwrap();
            lines.push(1);
            retired.add(lines);
            hung.push(release);
        }
        assert_eq!(retired.0.lock().unwrap().len(), MOST);
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 1, "the second line of the oldest queue");
        retired.stop(Instant::now());
        assert_eq!(counters.dropped.load(Ordering::Relaxed), MOST as u64 + 1);
    }
}
