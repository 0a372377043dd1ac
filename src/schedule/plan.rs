//! Slots of a probe, in nanoseconds, and the clock that they refer to.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Maximum delay of a run that was held back, for any interval.
const MAX_LATENESS: Duration = Duration::from_secs(5);
/// Maximum delay of a run because the previous one has just ended, for any interval.
const MAX_GRACE: Duration = Duration::from_millis(250);

/// Longest interval without an extra first run. Probes with longer intervals run once soon after
/// the start, because the schedule alone would yield a result too late.
const LONGEST_INTERVAL_WITHOUT_FIRST_RUN: Duration = Duration::from_secs(600);
/// Time after the start within which the first run takes place, and by which a first run is
/// postponed if it was held back.
pub(super) const FIRST_RUN_WITHIN: Duration = Duration::from_secs(60);

/// Nanoseconds since the Unix epoch, as the [`Anchor`] counts them. Saturates in the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(pub(super) u64);

impl Timestamp {
    pub(super) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    pub(super) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }

    /// Returns the time since an earlier moment, or zero if it is later.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Converts to a wall-clock time, for a wall clock that is ahead by `skew` nanoseconds. The
    /// minimum is 1970.
    pub(super) fn wall(self, skew: i128) -> SystemTime {
        let nanoseconds = u64::try_from((i128::from(self.0) + skew).max(0)).unwrap_or(u64::MAX);
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
    }

    /// Returns how far a wall clock that shows `clock` at this moment is ahead of it, in
    /// nanoseconds.
    pub(super) fn skew(self, clock: SystemTime) -> i128 {
        let shown = match clock.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_nanos().cast_signed(),
            Err(before) => -before.duration().as_nanos().cast_signed(),
        };
        shown - i128::from(self.0)
    }
}

/// A point in time on both clocks. Later times are measured by the monotonic clock alone, so that a
/// step of the wall clock moves no run. Reported times are those of the current wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// On the monotonic clock, which stops while a test pauses it.
    pub monotonic: Instant,
    /// On the wall clock. Times before 1970 count as 1970.
    pub wall: SystemTime,
}

impl Anchor {
    /// Reads both clocks. Called once in the life of a daemon.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Converts an instant to a moment. Instants before the anchor are the anchor's moment.
    pub(super) fn timestamp(&self, instant: Instant) -> Timestamp {
        self.epoch().plus(instant.saturating_duration_since(self.monotonic))
    }

    /// Converts a moment to an instant. Moments before the anchor are the anchor's instant.
    pub(super) fn instant(&self, moment: Timestamp) -> Instant {
        self.monotonic + moment.since(self.epoch())
    }

    /// Returns the anchor's moment.
    pub(super) fn epoch(&self) -> Timestamp {
        Timestamp(nanoseconds(self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()))
    }
}

/// Slots of a probe: slot k is due at offset + k × interval since the Unix epoch.
///
/// The offset is the [`hash`] of the name modulo the interval, which spreads probes over the
/// interval and keeps the slots of each across restarts, reloads and versions. Example: the hash of
/// `langmart-health` is 3765831937574976198. With an interval of 60 s the offset is 37.574976198 s,
/// so it runs 37.57 s into every minute. Slot 0 was in the first minute of 1970; slot 30,000,000 is
/// due at 2027-01-15T08:00:37.574976198Z.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Nanoseconds, below the interval.
    offset: u64,
    /// Nanoseconds, at least 1.
    interval: u64,
}

impl Plan {
    /// Creates the slots of a probe with that name.
    pub(super) fn new(name: &str, interval: Duration) -> Self {
        // The configuration rejects an interval of zero; a division by zero must be impossible
        // nevertheless.
        let interval = nanoseconds(interval).max(1);
        Self { offset: hash(name) % interval, interval }
    }

    /// Returns when slot `number` is due.
    pub(super) fn due(&self, number: u64) -> Timestamp {
        Timestamp(self.interval.saturating_mul(number).saturating_add(self.offset))
    }

    /// Returns the first slot at or after a moment.
    pub(super) fn first_from(&self, moment: Timestamp) -> u64 {
        moment.0.saturating_sub(self.offset).div_ceil(self.interval)
    }

    /// Returns the first slot after a moment.
    pub(super) fn first_after(&self, moment: Timestamp) -> u64 {
        self.first_from(Timestamp(moment.0.saturating_add(1)))
    }

    /// Returns when a probe that starts at `start` makes its first run, at an offset within the
    /// minute that follows from its hash. Returns `None` if a slot is as soon, or the interval is
    /// 10 minutes or less.
    pub(super) fn first_run(&self, start: Timestamp) -> Option<Timestamp> {
        let is_rare = self.interval > nanoseconds(LONGEST_INTERVAL_WITHOUT_FIRST_RUN);
        let is_due_soon = self.due(self.first_after(start)).since(start) < FIRST_RUN_WITHIN;
        let offset = Duration::from_nanos(self.offset % nanoseconds(FIRST_RUN_WITHIN));
        (is_rare && !is_due_soon).then(|| start.plus(offset))
    }

    /// Returns the number of whole intervals in a duration.
    pub(super) fn intervals_in(&self, duration: Duration) -> u64 {
        nanoseconds(duration) / self.interval
    }

    /// Returns the maximum delay of a run that was held back: a quarter of the interval, at most 5
    /// s.
    pub(super) fn lateness(&self) -> Duration {
        Duration::from_nanos(self.interval / 4).min(MAX_LATENESS)
    }

    /// Returns the maximum delay of a run because the previous one has just ended: a twentieth of
    /// the interval, at most 250 ms.
    ///
    /// It is needed when the timeout equals the interval, as with an inherited timeout and a short
    /// interval: timers fire a millisecond or two late, so a run that times out ends just after the
    /// next slot. Without this grace period every other run against an unresponsive service would
    /// be skipped.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_nanos(self.interval / 20).min(MAX_GRACE)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the 64-bit FNV-1a hash with the finalizer of `MurmurHash3`, because FNV alone maps names
/// that differ in the last letter to close values. It must never change, because it determines the
/// slots of every probe.
pub(super) fn hash(name: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::rfc3339;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn hash_never_changes() {
        #[track_caller]
        fn check(name: &str, expected: u64) {
            assert_eq!(hash(name), expected, "{name:?}");
        }
        check("", 0xefd0_1f60_ba99_2926);
        check("a", 0x82a2_a958_a9be_ce5b);
        check("langmart-health", 0x3442_ec31_eafa_3ac6);
        check("langmart-auth", 0x6152_c165_bdb8_e75d);
        check("langmart-gpt-4o-mini", 0xd473_5076_b05f_969d);
        check("openai-gpt-4o-mini", 0x0611_5681_eaa3_45a2);
    }

    #[test]
    fn similar_names_spread_over_the_interval() {
        let mut tenths = [0_u32; 10];
        for number in 0..1000 {
            let offset = Plan::new(&format!("probe-{number}"), MINUTE).offset;
            tenths[usize::try_from(offset / 6_000_000_000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|&probes| (70..=130).contains(&probes)), "{tenths:?}");
    }

    #[test]
    fn documented_example_holds() {
        let plan = Plan::new("langmart-health", MINUTE);
        assert_eq!(plan.offset, 37_574_976_198);
        let due = plan.due(30_000_000);
        assert_eq!(due, Timestamp(1_800_000_037_574_976_198));
        assert_eq!(rfc3339(due.wall(0)), "2027-01-15T08:00:37.574Z");
    }

    #[test]
    fn next_due_is_strictly_after() {
        #[track_caller]
        fn check(now: u64, from: u64, after: u64) {
            let plan = Plan { offset: 30, interval: 100 };
            assert_eq!(
                (plan.first_from(Timestamp(now)), plan.first_after(Timestamp(now))),
                (from, after),
                "{now}"
            );
        }
        check(0, 0, 0);
        check(29, 0, 0);
        check(30, 0, 1);
        check(31, 1, 1);
        check(129, 1, 1);
        check(130, 1, 2);
        check(131, 2, 2);
    }

    #[test]
    fn lateness_and_grace_are_shares_of_the_interval() {
        #[track_caller]
        fn check(interval: Duration, lateness: Duration, grace: Duration) {
            let plan = Plan::new("p", interval);
            assert_eq!((plan.lateness(), plan.grace()), (lateness, grace), "{interval:?}");
        }
        let milliseconds = Duration::from_millis;
        check(milliseconds(1000), milliseconds(250), milliseconds(50));
        check(milliseconds(20_000), milliseconds(5000), milliseconds(250));
        check(MINUTE, milliseconds(5000), milliseconds(250));
    }

    #[test]
    fn first_runs_spread_over_a_minute() {
        let start = Timestamp(1_800_000_000_000_000_000);
        let mut sixths = [0_u32; 6];
        for number in 0..600 {
            let plan = Plan::new(&format!("probe-{number}"), 168 * 60 * MINUTE);
            let Some(at) = plan.first_run(start) else { continue };
            assert_eq!(plan.first_run(start), Some(at), "the same at each start");
            sixths[usize::try_from(at.since(start).as_secs() / 10).unwrap()] += 1;
        }
        assert!(sixths.iter().all(|&probes| (70..=130).contains(&probes)), "{sixths:?}");
    }

    #[test]
    fn first_run_is_for_intervals_above_ten_minutes() {
        let start = Timestamp(1_800_000_000_000_000_000);
        for (interval, expected) in [
            (MINUTE, false),
            (10 * MINUTE, false),
            (10 * MINUTE + Duration::from_nanos(1), true),
            (24 * 60 * MINUTE, true),
            (Duration::MAX, true),
        ] {
            assert_eq!(Plan::new("p", interval).first_run(start).is_some(), expected, "{interval:?}");
        }
        let plan = Plan::new("p", 60 * MINUTE);
        let due = plan.due(plan.first_after(start));
        assert_eq!(plan.first_run(due.minus(Duration::from_secs(59))), None, "it is due as soon");
        assert!(plan.first_run(due.minus(MINUTE)).is_some());
        assert!(plan.first_run(due).is_some(), "a slot at the start itself is over");
    }

    #[test]
    fn extreme_intervals_do_not_overflow() {
        for interval in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let plan = Plan::new("p", interval);
            let now = Anchor::now();
            let next = plan.due(plan.first_after(now.epoch()));
            assert!(next > now.epoch(), "{interval:?}");
            assert!(now.instant(next) > now.monotonic, "{interval:?}");
            assert!(next.wall(0) > now.wall, "{interval:?}");
        }
    }

    #[test]
    fn anchor_converts_both_ways() {
        let anchor = Anchor {
            monotonic: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        let later = anchor.monotonic + Duration::new(86_400, 1);
        let moment = anchor.timestamp(later);
        assert_eq!(moment, Timestamp(1_800_086_400_000_000_001));
        assert_eq!(anchor.instant(moment), later);
        assert_eq!(moment.wall(0), anchor.wall + Duration::new(86_400, 1));
        assert_eq!(moment.wall(-86_400_000_000_001), anchor.wall);
        assert_eq!(Timestamp(1).wall(-2), SystemTime::UNIX_EPOCH);
        assert_eq!(moment.skew(anchor.wall), -86_400_000_000_001);
        assert_eq!(anchor.epoch().skew(anchor.wall + MINUTE), 60_000_000_000);
        assert_eq!(anchor.instant(Timestamp(0)), anchor.monotonic);
        let before_1970 = Anchor { wall: SystemTime::UNIX_EPOCH - MINUTE, monotonic: anchor.monotonic };
        assert_eq!(before_1970.timestamp(anchor.monotonic), Timestamp(0));
    }

    proptest! {
        #[test]
        fn slots_are_equidistant(
            name in "[a-z0-9._-]{1,64}",
            interval in 1_000_000..1_000_000_000_000_000_u64,
            now in 0..4_000_000_000_000_000_000_u64,
        ) {
            let plan = Plan::new(&name, Duration::from_nanos(interval));
            let next = plan.first_after(Timestamp(now));
            let due = plan.due(next);
            prop_assert!(due.0 > now);
            prop_assert!(due.0 - now <= interval || next == 0);
            prop_assert_eq!(due.0 % interval, hash(&name) % interval);
            // From a slot on, the next one is exactly one interval later, and the slot itself is
            // the first.
            prop_assert_eq!(plan.first_after(due), next + 1);
            prop_assert_eq!(plan.first_from(due), next);
            prop_assert_eq!(plan.due(next + 1).since(due), Duration::from_nanos(interval));
        }
    }
}
