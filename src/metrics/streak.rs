//! Consecutive failures, which alerts are based on: unlike ranges of counters they work for every
//! interval, across gaps between scrapes and after a restart.

use crate::outcome::{Fault, Reason};

/// Consecutive runs up to the last one. All zero after a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak {
    /// Runs that failed for the same reason and fault as the last one.
    pub(super) same: u64,
    /// Runs that failed with fault gateway, provider or network, which counts as downtime.
    pub(super) down: u64,
    /// Failed runs.
    pub(super) failed: u64,
    of: Option<(Reason, Fault)>,
}

impl Streak {
    /// Returns the streak after one more run. `is_of_service` is false if its failures are no
    /// downtime, as with a status page.
    pub(super) fn after(self, reason: Reason, fault: Fault, is_of_service: bool) -> Self {
        if reason == Reason::Ok {
            return Self::default();
        }
        let same = if self.of == Some((reason, fault)) { self.same + 1 } else { 1 };
        let down = match fault.shows_downtime() {
            Some(true) if is_of_service => self.down + 1,
            Some(_) => 0,
            None => self.down,
        };
        Self { same, down, failed: self.failed + 1, of: Some((reason, fault)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(runs: &[(Reason, Fault)], same: u64, down: u64) {
        let after = |streak: Streak, &(reason, fault): &(Reason, Fault)| streak.after(reason, fault, true);
        let streak = runs.iter().fold(Streak::default(), after);
        assert_eq!((streak.same, streak.down), (same, down), "{runs:?}");
        let failed = runs.iter().rev().take_while(|(reason, _)| *reason != Reason::Ok).count();
        assert_eq!(streak.failed, failed as u64, "{runs:?}");
    }

    #[test]
    fn streak_counts_failures_and_ends_with_a_success() {
        let ok = (Reason::Ok, Fault::None);
        let unavailable = (Reason::Unavailable, Fault::Gateway);
        let connect = (Reason::Connect, Fault::Network);
        let limited = (Reason::RateLimited, Fault::Caller);
        check(&[], 0, 0);
        check(&[ok], 0, 0);
        check(&[unavailable], 1, 1);
        check(&[unavailable, unavailable], 2, 2);
        check(&[unavailable, unavailable, ok], 0, 0);
        // Another reason starts its own streak; the downtime continues.
        check(&[unavailable, unavailable, connect], 1, 3);
        check(&[unavailable, (Reason::Unavailable, Fault::Provider)], 1, 2);
        // The service answered, so it is not down.
        check(&[unavailable, limited, limited], 2, 0);
        check(&[limited, unavailable], 1, 1);
        // Nothing was requested.
        check(&[unavailable, unavailable, (Reason::Internal, Fault::Prober)], 1, 2);
    }

    #[test]
    fn status_page_failure_is_no_downtime() {
        let streak = Streak::default().after(Reason::Connect, Fault::Network, false);
        assert_eq!((streak.same, streak.down), (1, 0));
    }
}
