//! Starts parts again that panicked, which would be a bug of ours, and gives up where that does not help.

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

/// As many failures as this within the window, and the part is given up.
const MOST: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// The pause after the first failure of a window; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(100);

/// A future panicked; what it panicked with is the panic hook's to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// A part without which the daemon is of no use failed again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {part} panicked {MOST} times within a minute; this is a bug, please report it with the lines \"Panicked\" of the log"
)]
pub struct GaveUp {
    part: &'static str,
}

/// Counts the failures of one part.
#[derive(Debug)]
pub struct Supervisor {
    part: &'static str,
    restarts: Arc<AtomicU64>,
    /// Of the last minute, oldest first.
    failures: VecDeque<Instant>,
}

impl Supervisor {
    /// Of a part that has not failed yet.
    pub fn new(part: &'static str) -> Self {
        Self { part, restarts: Arc::default(), failures: VecDeque::new() }
    }

    /// How often the part was started again.
    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.restarts)
    }

    /// Notes a failure: the value is how long to rest before the part is started again.
    pub fn failed(&mut self, now: Instant) -> Result<Duration, GaveUp> {
        self.failures.retain(|failure| now.saturating_duration_since(*failure) < WINDOW);
        self.failures.push_back(now);
        let failures = self.failures.len();
        let part = self.part;
        if failures >= MOST {
            return Err(GaveUp { part });
        }
        self.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(part, failures, "A part panicked and is started again");
        Ok(PAUSE * (1 << (failures - 1)))
    }

    /// Lives a thread's life until it ends by itself, anew after each panic.
    pub fn keep_alive(&mut self, mut life: impl FnMut()) -> Result<(), GaveUp> {
        while catch_unwind(AssertUnwindSafe(&mut life)).is_err() {
            thread::sleep(self.failed(Instant::now())?);
        }
        Ok(())
    }
}

/// What the future comes to, or that it panicked. It is polled inside the caller's task: the price is a landing pad.
pub async fn caught<F: Future>(life: F) -> Result<F::Output, Panicked> {
    let mut life = pin!(life);
    // One that has panicked is not polled again, only dropped.
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
    fn a_part_is_given_up_after_five_failures_within_a_minute() {
        let mut supervisor = Supervisor::new("server");
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let pauses = [100, 200, 400, 800].map(Duration::from_millis);
        for (number, pause) in (0..).zip(pauses) {
            assert_eq!(supervisor.failed(start + second * number), Ok(pause));
        }
        // The first of them is a minute old by then.
        assert_eq!(supervisor.failed(start + WINDOW), Ok(pauses[3]));
        let gave_up = supervisor.failed(start + WINDOW).unwrap_err();
        assert!(gave_up.to_string().starts_with("the server panicked 5 times within a minute"), "{gave_up}");
        assert_eq!(supervisor.restarts().load(Ordering::Relaxed), 5);
        assert_eq!(supervisor.failed(start + WINDOW * 3), Ok(pauses[0]), "old failures are forgotten");
    }

    #[test]
    fn a_life_goes_on_after_a_panic_and_ends_by_itself() {
        let mut supervisor = Supervisor::new("server");
        let mut lives = 0;
        let ended = supervisor.keep_alive(|| {
            lives += 1;
            assert!(lives >= 3, "on purpose");
        });
        assert_eq!((ended, lives, supervisor.restarts().load(Ordering::Relaxed)), (Ok(()), 3, 2));
        assert!(supervisor.keep_alive(|| panic!("on purpose")).is_err());
    }

    #[tokio::test]
    async fn a_future_that_panics_is_caught_wherever_it_does() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let later = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        assert_eq!(caught::<futures_core::future::BoxFuture<'_, ()>>(Box::pin(later)).await, Err(Panicked));
    }
}
