//! Restarts parts that panicked, and gives up if they panic repeatedly.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

/// Number of failures within the window after which the part is given up.
const MAX_FAILURES: usize = 5;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Pause after the first failure of a window; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The error of a future that panicked. The panic hook logs the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// An essential part has failed repeatedly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {part} panicked {MAX_FAILURES} times within a minute; this is a bug, please report it with the lines \"Panicked\" of the log"
)]
pub struct GaveUp {
    part: &'static str,
}

/// Counts the failures of a part.
#[derive(Debug)]
pub struct Supervisor {
    part: &'static str,
    restarts: Arc<AtomicU64>,
    /// Failures within the window, oldest first.
    failures: VecDeque<Instant>,
}

impl Supervisor {
    /// Returns the supervisor of a part without failures.
    pub fn new(part: &'static str) -> Self {
        Self { part, restarts: Arc::default(), failures: VecDeque::new() }
    }

    /// Returns the counter of restarts.
    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.restarts)
    }

    /// Records a failure. Returns the pause before the restart of the part.
    pub fn record_failure(&mut self, now: Instant) -> Result<Duration, GaveUp> {
        self.failures.retain(|failure| now.saturating_duration_since(*failure) < FAILURE_WINDOW);
        self.failures.push_back(now);
        let failures = self.failures.len();
        let part = self.part;
        if failures >= MAX_FAILURES {
            return Err(GaveUp { part });
        }
        self.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(part, failures, "Part panicked; restarting it");
        Ok(FIRST_PAUSE * (1 << (failures - 1)))
    }

    /// Runs `life` on this thread until it returns, and restarts it after a panic.
    pub fn run_restarting(&mut self, mut life: impl FnMut()) -> Result<(), GaveUp> {
        while catch_unwind(AssertUnwindSafe(&mut life)).is_err() {
            thread::sleep(self.record_failure(Instant::now())?);
        }
        Ok(())
    }
}

/// Waits for the future, and returns an error if it panics. The future is polled in the caller's
/// task.
pub async fn catch_panic<F: Future>(life: F) -> Result<F::Output, Panicked> {
    let mut life = pin!(life);
    // A future that has panicked is not polled again.
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| life.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_is_given_up_after_five_failures() {
        let mut supervisor = Supervisor::new("server");
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let pauses = [100, 200, 400, 800].map(Duration::from_millis);
        for (number, pause) in (0..).zip(pauses) {
            assert_eq!(supervisor.record_failure(start + second * number), Ok(pause));
        }
        // The first failure has left the window by then.
        assert_eq!(supervisor.record_failure(start + FAILURE_WINDOW), Ok(pauses[3]));
        let gave_up = supervisor.record_failure(start + FAILURE_WINDOW).unwrap_err();
        assert!(gave_up.to_string().starts_with("the server panicked 5 times within a minute"), "{gave_up}");
        assert_eq!(supervisor.restarts().load(Ordering::Relaxed), 5);
        assert_eq!(
            supervisor.record_failure(start + FAILURE_WINDOW * 3),
            Ok(pauses[0]),
            "old failures are forgotten"
        );
    }

    #[test]
    fn part_is_restarted_until_it_returns() {
        let mut supervisor = Supervisor::new("server");
        let mut lives = 0;
        let ended = supervisor.run_restarting(|| {
            lives += 1;
            assert!(lives >= 3, "on purpose");
        });
        assert_eq!((ended, lives, supervisor.restarts().load(Ordering::Relaxed)), (Ok(()), 3, 2));
        assert!(supervisor.run_restarting(|| panic!("on purpose")).is_err());
    }

    #[tokio::test]
    async fn panic_of_a_future_is_caught() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        let later = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        assert_eq!(
            catch_panic::<futures_core::future::BoxFuture<'_, ()>>(Box::pin(later)).await,
            Err(Panicked)
        );
    }
}
