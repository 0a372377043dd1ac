//! Parts that must beat or say how long they will be silent, and how far the daemon is between start and stop.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What the daemon knows about its own life. Time is monotonic: a corrected wall clock makes nothing look stuck.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    parts: Mutex<Vec<Part>>,
    /// Those that come and go: gone when their [`Silence`] is dropped.
    silences: Mutex<Vec<Weak<Until>>>,
    readiness: AtomicU8,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    patience: Duration,
    beaten: Arc<AtomicU64>,
}

/// What a part holds to say that it is alive. Dropping it does not: a part that died must be found missing.
#[derive(Clone, Debug)]
pub struct Beat {
    origin: Instant,
    beaten: Arc<AtomicU64>,
}

impl Beat {
    /// Says that the part is alive now.
    pub fn beat(&self) {
        self.beaten.fetch_max(milliseconds(self.origin.elapsed()), Ordering::Relaxed);
    }
}

/// What a part holds that is silent for long as a rule, as a probe between its runs. Dropped, there is no such part.
#[derive(Debug)]
pub struct Silence {
    origin: Instant,
    until: Arc<Until>,
}

#[derive(Debug)]
struct Until {
    name: String,
    /// Milliseconds since the origin.
    until: AtomicU64,
}

impl Silence {
    /// Says that the part is alive now, and will be heard of again before that much time has passed.
    pub fn lasts(&self, at_most: Duration) {
        let until = milliseconds(self.origin.elapsed()).saturating_add(milliseconds(at_most));
        self.until.until.store(until, Ordering::Relaxed);
    }
}

/// How far the daemon is. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not every probe is scheduled yet.
    Starting = 0,
    /// Every probe is scheduled.
    Ready = 1,
    /// On the way out.
    Stopping = 2,
}

impl Readiness {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
        }
    }
}

impl Health {
    /// Without parts, starting.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            parts: Mutex::default(),
            silences: Mutex::default(),
            readiness: AtomicU8::new(Readiness::Starting as u8),
        }
    }

    /// Registers a part that must beat at least once in every `patience`, beginning now. A part of the same name
    /// takes the place of the one before it, as a restarted listener does.
    pub fn part(&self, name: &'static str, patience: Duration) -> Beat {
        let beat = Beat { origin: self.origin, beaten: Arc::default() };
        beat.beat();
        let part = Part { name, patience, beaten: Arc::clone(&beat.beaten) };
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|other| other.name != name);
        parts.push(part);
        beat
    }

    /// Registers a part that says itself how long it will be silent, which is `at_most` that much for now. There may
    /// be several of one name, as while a reload replaces one.
    pub fn silence(&self, name: String, at_most: Duration) -> Silence {
        let until = Arc::new(Until { name, until: AtomicU64::new(0) });
        let silence = Silence { origin: self.origin, until };
        silence.lasts(at_most);
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        silences.push(Arc::downgrade(&silence.until));
        silence
    }

    /// The name of the first registered part that has not beaten for longer than its patience, or has been silent for
    /// longer than it said; `None`: all live.
    pub fn stuck(&self, now: Instant) -> Option<String> {
        let now = milliseconds(now.saturating_duration_since(self.origin));
        self.beatless(now).map(str::to_owned).or_else(|| self.silent(now))
    }

    fn silent(&self, now: u64) -> Option<String> {
        let mut stuck = None;
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        // The dropped ones are cleared away here, since this is called every few seconds.
        silences.retain(|silence| {
            let Some(until) = silence.upgrade() else { return false };
            if stuck.is_none() && now > until.until.load(Ordering::Relaxed) {
                stuck = Some(until.name.clone());
            }
            true
        });
        stuck
    }

    fn beatless(&self, now: u64) -> Option<&'static str> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .find(|part| {
                let silence = now.saturating_sub(part.beaten.load(Ordering::Relaxed));
                silence > milliseconds(part.patience)
            })
            .map(|part| part.name)
    }

    /// Moves on to this stage; a stage already behind is ignored, so that a late reload does not undo a stop.
    pub fn reach(&self, readiness: Readiness) {
        self.readiness.fetch_max(readiness as u8, Ordering::Relaxed);
    }

    /// The stage reached.
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

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_silent_part_is_named_after_its_patience() {
        let health = Health::new();
        let start = Instant::now();
        assert_eq!(health.stuck(start + PATIENCE * 9), None, "no part, nothing stuck");
        let scheduler = health.part("scheduler", PATIENCE);
        let _server = health.part("server", PATIENCE * 2);
        assert_eq!(health.stuck(start + PATIENCE / 2), None);
        assert_eq!(health.stuck(start + PATIENCE * 3 / 2).as_deref(), Some("scheduler"));
        drop(scheduler);
        assert_eq!(
            health.stuck(start + PATIENCE * 3).as_deref(),
            Some("scheduler"),
            "a dropped beat is a dead part"
        );
    }

    #[test]
    fn a_beat_counts_from_when_it_was_made() {
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
    fn a_part_of_the_same_name_replaces_the_old_one() {
        let health = Health::new();
        let _old = health.part("server", Duration::ZERO);
        let _new = health.part("server", PATIENCE);
        assert_eq!(health.stuck(Instant::now() + PATIENCE / 2), None);
    }

    #[test]
    fn a_part_that_is_silent_for_longer_than_it_said_is_named_until_it_is_gone() {
        let health = Health::new();
        let start = Instant::now();
        let late = start + PATIENCE * 2;
        let silence = health.silence("probe a".to_owned(), PATIENCE);
        let other = health.silence("probe b".to_owned(), PATIENCE * 9);
        assert_eq!(health.stuck(start + PATIENCE / 2), None);
        assert_eq!(health.stuck(late).as_deref(), Some("probe a"));
        silence.lasts(PATIENCE * 3);
        assert_eq!(health.stuck(late), None, "it has spoken");
        silence.lasts(Duration::ZERO);
        drop(silence);
        assert_eq!(health.stuck(late), None, "a removed part is none");
        drop(other);
        assert!(health.silences.lock().unwrap().len() <= 1, "it was cleared away");
    }

    #[test]
    fn readiness_only_moves_forward() {
        let health = Health::new();
        assert_eq!(health.readiness(), Readiness::Starting);
        health.reach(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Ready);
        health.reach(Readiness::Stopping);
        health.reach(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Stopping);
    }
}
