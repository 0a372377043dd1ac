//! Duration of each phase of a run.

use std::time::{Duration, Instant};

use crate::outcome::{Phase, Phases};

/// The phases of a run, in their order. Time between two phases is the prober's own work and counts
/// in none.
#[derive(Debug)]
pub(super) struct Timeline {
    durations: [Duration; 5],
    phase: Phase,
    /// Start of the current phase. `None` between two phases.
    since: Option<Instant>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { durations: [Duration::ZERO; 5], phase: Phase::Resolve, since: None }
    }

    /// Begins a phase at a moment, which ends the one before it.
    pub(super) fn begin(&mut self, phase: Phase, at: Instant) {
        self.end(at);
        (self.phase, self.since) = (phase, Some(at));
    }

    /// Ends the current phase at a moment, if one has begun.
    pub(super) fn end(&mut self, at: Instant) {
        if let Some(since) = self.since.take() {
            self.durations[self.phase as usize] += at.saturating_duration_since(since);
        }
    }

    /// Moves the beginning of the current phase, if it is known better afterwards.
    pub(super) fn restart(&mut self, at: Option<Instant>) {
        if self.since.is_some() && at.is_some() {
            self.since = at;
        }
    }

    /// Returns the current phase, or the last one.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn phases(&self) -> Phases {
        let [resolve, connect, tls, processing, transfer] = self.durations;
        Phases { resolve, connect, tls, processing, transfer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_exclude_the_time_between_them() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut timeline = Timeline::new();
        timeline.begin(Phase::Resolve, at(0));
        timeline.end(at(5));
        timeline.begin(Phase::Connect, at(6));
        timeline.begin(Phase::Tls, at(16));
        timeline.end(at(37));
        timeline.begin(Phase::Processing, at(38));
        timeline.begin(Phase::Transfer, at(50));
        timeline.end(at(60));
        timeline.end(at(70));
        assert_eq!(timeline.phases().durations().map(|phase| phase.as_millis()), [5, 10, 21, 12, 10]);
    }

    #[test]
    fn phase_that_is_cut_short_is_charged_with_its_time() {
        let start = Instant::now();
        let mut timeline = Timeline::new();
        timeline.begin(Phase::Connect, start);
        timeline.end(start + Duration::from_millis(30));
        assert_eq!(timeline.phases().durations().map(|phase| phase.as_millis()), [0, 30, 0, 0, 0]);
        assert_eq!(timeline.phase(), Phase::Connect);
    }
}
