//! Parts with a heartbeat or a deadline, and the readiness of the daemon.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::sync::Mutex;

/// The liveness and readiness of the daemon. Time is monotonic, so that a clock step makes no part
/// look stuck.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    parts: Mutex<Vec<Part>>,
    /// Parts with a deadline; removed when their [`Liveness`] is dropped.
    expected: Mutex<Vec<Weak<Until>>>,
    readiness: AtomicU8,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    timeout: Duration,
    last_beat: Arc<AtomicU64>,
}

/// The heartbeat of a part. Dropping it does not remove the part: a part that ended is reported as
/// stuck.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    origin: Instant,
    last_beat: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Reports that the part is alive.
    pub fn beat(&self) {
        self.last_beat.fetch_max(milliseconds(self.origin.elapsed()), Ordering::Relaxed);
    }
}

/// The deadline of a part that is idle for long, such as a probe between its runs. Dropping it
/// removes the part.
#[derive(Debug)]
pub struct Liveness {
    origin: Instant,
    until: Arc<Until>,
}

#[derive(Debug)]
struct Until {
    name: String,
    /// Milliseconds since the origin of [`Health`].
    until: AtomicU64,
}

impl Liveness {
    /// Reports that the part is alive, and expects the next report within `at_most`.
    pub fn expect_within(&self, at_most: Duration) {
        let until = milliseconds(self.origin.elapsed()).saturating_add(milliseconds(at_most));
        self.until.until.store(until, Ordering::Relaxed);
    }
}

/// The stage of the daemon's life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not all probes are scheduled yet.
    Starting = 0,
    /// All probes are scheduled.
    Ready = 1,
    /// The daemon is stopping.
    Stopping = 2,
}

impl Readiness {
    /// Returns the name of the stage.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
        }
    }
}

impl Health {
    /// Returns the health of a daemon that is starting, without parts.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            parts: Mutex::default(),
            expected: Mutex::default(),
            readiness: AtomicU8::new(Readiness::Starting as u8),
        }
    }

    /// Registers a part that must beat at least once per `timeout`. It replaces a part with the
    /// same name, such as that of a restarted listener.
    pub fn part(&self, name: &'static str, timeout: Duration) -> Heartbeat {
        let beat = Heartbeat { origin: self.origin, last_beat: Arc::default() };
        beat.beat();
        let part = Part { name, timeout, last_beat: Arc::clone(&beat.last_beat) };
        let mut parts = self.parts.lock();
        parts.retain(|other| other.name != name);
        parts.push(part);
        beat
    }

    /// Registers a part whose first report is expected within `at_most`. Several may have the same
    /// name, for example during a reload.
    pub fn liveness(&self, name: String, at_most: Duration) -> Liveness {
        let until = Arc::new(Until { name, until: AtomicU64::new(0) });
        let liveness = Liveness { origin: self.origin, until };
        liveness.expect_within(at_most);
        let mut expected = self.expected.lock();
        expected.push(Arc::downgrade(&liveness.until));
        liveness
    }

    /// Returns the name of the first part whose heartbeat or report is overdue, if any.
    pub fn stuck(&self, now: Instant) -> Option<String> {
        let now = milliseconds(now.saturating_duration_since(self.origin));
        self.without_heartbeat(now).map(str::to_owned).or_else(|| self.overdue(now))
    }

    fn overdue(&self, now: u64) -> Option<String> {
        let mut stuck = None;
        let mut expected = self.expected.lock();
        // Dropped parts are removed here, because this is called every few seconds.
        expected.retain(|liveness| {
            let Some(until) = liveness.upgrade() else { return false };
            if stuck.is_none() && now > until.until.load(Ordering::Relaxed) {
                stuck = Some(until.name.clone());
            }
            true
        });
        stuck
    }

    fn without_heartbeat(&self, now: u64) -> Option<&'static str> {
        let parts = self.parts.lock();
        parts
            .iter()
            .find(|part| {
                let since_beat = now.saturating_sub(part.last_beat.load(Ordering::Relaxed));
                since_beat > milliseconds(part.timeout)
            })
            .map(|part| part.name)
    }

    /// Advances to this stage. An earlier stage is ignored, so that a late reload does not undo a
    /// stop.
    pub fn advance_to(&self, readiness: Readiness) {
        self.readiness.fetch_max(readiness as u8, Ordering::Relaxed);
    }

    /// Returns the current stage.
    pub fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Relaxed) {
            0 => Readiness::Starting,
            1 => Readiness::Ready,
            _ => Readiness::Stopping,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn part_without_heartbeat_is_stuck() {
        let health = Health::new();
        let start = Instant::now();
        assert_eq!(health.stuck(start + TIMEOUT * 9), None, "no part, nothing stuck");
        let scheduler = health.part("scheduler", TIMEOUT);
        let _server = health.part("server", TIMEOUT * 2);
        assert_eq!(health.stuck(start + TIMEOUT / 2), None);
        assert_eq!(health.stuck(start + TIMEOUT * 3 / 2).as_deref(), Some("scheduler"));
        drop(scheduler);
        assert_eq!(
            health.stuck(start + TIMEOUT * 3).as_deref(),
            Some("scheduler"),
            "dropping the heartbeat does not remove the part"
        );
    }

    #[test]
    fn heartbeat_counts_from_its_time() {
        let health = Health::new();
        let beat = health.part("scheduler", Duration::from_millis(1));
        let silent = Instant::now() + Duration::from_millis(50);
        assert_eq!(health.stuck(silent).as_deref(), Some("scheduler"));
        while Instant::now() < silent {
            std::thread::yield_now();
        }
        beat.beat();
        assert_eq!(health.stuck(silent), None);
    }

    #[test]
    fn part_replaces_one_with_the_same_name() {
        let health = Health::new();
        let _old = health.part("server", Duration::ZERO);
        let _new = health.part("server", TIMEOUT);
        assert_eq!(health.stuck(Instant::now() + TIMEOUT / 2), None);
    }

    #[test]
    fn part_past_its_deadline_is_stuck_until_dropped() {
        let health = Health::new();
        let start = Instant::now();
        let late = start + TIMEOUT * 2;
        let liveness = health.liveness("probe a".to_owned(), TIMEOUT);
        let other = health.liveness("probe b".to_owned(), TIMEOUT * 9);
        assert_eq!(health.stuck(start + TIMEOUT / 2), None);
        assert_eq!(health.stuck(late).as_deref(), Some("probe a"));
        liveness.expect_within(TIMEOUT * 3);
        assert_eq!(health.stuck(late), None, "reported again");
        liveness.expect_within(Duration::ZERO);
        drop(liveness);
        assert_eq!(health.stuck(late), None, "a dropped part is removed");
        drop(other);
        assert!(health.expected.lock().len() <= 1, "it was removed");
    }

    #[test]
    fn readiness_only_moves_forward() {
        let health = Health::new();
        assert_eq!(health.readiness(), Readiness::Starting);
        health.advance_to(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Ready);
        health.advance_to(Readiness::Stopping);
        health.advance_to(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Stopping);
    }
}
