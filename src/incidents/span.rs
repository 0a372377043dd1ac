//! Time in which at least one of several probes was down.

use std::time::SystemTime;

/// The period in which at least one probe is down. Probes enter and leave it; when the last one
/// leaves, it is over and the next may begin.
#[derive(Debug)]
pub(super) struct Span {
    probes: u32,
    since: SystemTime,
    until: SystemTime,
}

impl Default for Span {
    fn default() -> Self {
        Self { probes: 0, since: SystemTime::UNIX_EPOCH, until: SystemTime::UNIX_EPOCH }
    }
}

impl Span {
    /// Adds a probe that is down since then.
    pub(super) fn enter(&mut self, at: SystemTime) {
        if self.probes == 0 {
            // Runs come in the order of their ends, so that a start can lie before the last end.
            self.since = at.max(self.until);
            self.until = self.since;
        }
        self.probes += 1;
    }

    /// Removes a probe that is down no longer. Returns the period if it was the last one.
    pub(super) fn leave(&mut self, at: SystemTime) -> Option<(SystemTime, SystemTime)> {
        self.until = self.until.max(at);
        self.probes = self.probes.saturating_sub(1);
        (self.probes == 0).then_some((self.since, self.until))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn overlapping_probes_count_once() {
        let mut span = Span::default();
        span.enter(at(10));
        span.enter(at(20));
        assert_eq!(span.leave(at(40)), None);
        // A probe that fell silent leaves at an earlier time than the others.
        assert_eq!(span.leave(at(30)), Some((at(10), at(40))));
        span.enter(at(35));
        assert_eq!(span.leave(at(50)), Some((at(40), at(50))), "no second counts twice");
    }
}
