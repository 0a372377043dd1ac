//! Waiting for a condition instead of a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Time after which a wait fails, far above what a healthy machine needs.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Polls until there is a value.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WAIT_TIMEOUT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {WAIT_TIMEOUT:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
