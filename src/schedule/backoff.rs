//! Backoff: which slots a probe skips after a service has asked it to slow down.

use std::time::Duration;

use super::plan::{Plan, Timestamp};
use crate::outcome::{BackoffClass, Outcome, Reason};

/// Maximum wait after `overloaded`, in intervals. Overload passes quickly, and its end should be
/// observed.
const MAX_OVERLOADED_WAIT: u64 = 4;

/// Backoff of one probe.
///
/// With a hint (`Retry-After` or equivalent), the next run is the first slot at or after now +
/// min(hint, `max_backoff`) + jitter of up to a tenth of that.
///
/// Without a hint, `rate_limited`, `billing` and `overloaded` double the wait, which is counted in
/// whole intervals from the slot of the failed run. The first wait is one interval, so the schedule
/// does not change. The maximum is the number of intervals in `max_backoff`, at least one, and four
/// for `overloaded`. Example: a probe with an interval of 7 min and a `max_backoff` of 1 h that is
/// rate limited from minute 0 on runs at minutes 7 (1 interval), 21 (2), 49 (4), 105 (8, the
/// maximum for one hour), 161 (8), and so on.
///
/// A success, or a reload that changes the probe, ends the backoff. Other failures cause no wait
/// and do not reduce the next one, because a timeout between two `rate_limited` shows nothing of
/// the limit. The same holds for failures with a hint.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The last wait without a hint, in intervals. 0 if there was none since the last success.
    wait: u64,
    /// The first slot that is not skipped. `None` if none is skipped.
    resume: Option<u64>,
    /// End of the wait, followed by the run of `resume`. Set together with `resume`.
    over: Timestamp,
    /// Time until which the service asked to wait, even if no slot is skipped for it. `None` if it
    /// did not ask.
    asked: Option<Timestamp>,
    /// State of the random number generator for jitter.
    random: u64,
}

impl Backoff {
    /// Creates a state without a wait. Different seeds lead to different jitter.
    pub(super) fn new(seed: u64) -> Self {
        Self { wait: 0, resume: None, over: Timestamp(0), asked: None, random: seed }
    }

    /// Ends the backoff.
    pub(super) fn end(&mut self) {
        (self.wait, self.resume, self.asked) = (0, None, None);
    }

    /// Returns the slot that ends the wait, if slots from `next` on are skipped until then.
    pub(super) fn resume(&self, next: u64) -> Option<u64> {
        self.resume.filter(|&resume| resume >= next)
    }

    /// Returns whether an on-demand run at `now` would be sooner than the service asked for.
    /// Scheduled runs need no check, since their slots are skipped.
    pub(super) fn forbids(&self, now: Timestamp) -> bool {
        self.asked.is_some_and(|asked| now < asked)
    }

    /// Returns the end of the wait, for scheduled or on-demand runs, and the step of the doubling.
    /// Returns `None` if there is neither.
    pub(super) fn persisted(&self, next: u64) -> Option<(Option<Timestamp>, u64)> {
        let over = self.resume(next).map(|_| self.over).max(self.asked);
        (over.is_some() || self.wait > 0).then_some((over, self.wait))
    }

    /// Restores a persisted backoff. A wait or a step beyond the maximum is limited to it.
    pub(super) fn restore(
        &mut self,
        (over, wait): (Option<Timestamp>, u64),
        now: Timestamp,
        plan: &Plan,
        max_backoff: Duration,
    ) {
        let ceiling = plan.intervals_in(max_backoff).max(1);
        self.wait = wait.min(ceiling);
        let longest = max_backoff.saturating_add(max_backoff / 10).max(plan.due(1).since(plan.due(0)));
        if let Some(over) = over.filter(|over| *over > now) {
            self.over = over.min(now.plus(longest));
            self.resume = Some(plan.first_from(self.over));
            self.asked = Some(self.over);
        }
    }

    /// Applies the outcome of run `number`, which ended at `ended`. `next` is the first slot that
    /// could follow it.
    pub(super) fn record(
        &mut self,
        outcome: &Outcome,
        (number, next): (u64, u64),
        ended: Timestamp,
        plan: &Plan,
        max_backoff: Duration,
    ) {
        (self.resume, self.asked) = (None, None);
        if outcome.success() {
            self.wait = 0;
            return;
        }
        let resume = if let Some(wait) = hinted(outcome.retry_after, max_backoff) {
            self.over = ended.plus(wait).plus(self.jitter(wait));
            self.asked = Some(self.over);
            plan.first_from(self.over)
        } else if let Some(longest) = longest_wait(outcome.reason, plan, max_backoff) {
            self.wait = self.wait.saturating_mul(2).clamp(1, longest);
            let resume = number.saturating_add(self.wait);
            // End slightly before the slot, so that a restart finds the same one despite rounding
            // of the clocks.
            self.over = plan.due(resume).minus(plan.grace());
            resume
        } else {
            return;
        };
        self.resume = Some(resume).filter(|&resume| resume > next);
    }

    /// Applies the hint of an attempt between slots: slots from `next` on are skipped until the
    /// wait is over. Other results of the attempt have no effect. Returns false if there was no
    /// hint.
    pub(super) fn apply_hint(
        &mut self,
        outcome: &Outcome,
        next: u64,
        ended: Timestamp,
        plan: &Plan,
        max_backoff: Duration,
    ) -> bool {
        let Some(wait) = hinted(outcome.retry_after, max_backoff).filter(|_| !outcome.success()) else {
            return false;
        };
        let over = ended.plus(wait).plus(self.jitter(wait));
        self.asked = self.asked.max(Some(over));
        let resume = plan.first_from(over);
        if resume > self.resume(next).unwrap_or(next) {
            (self.over, self.resume) = (over, Some(resume));
        }
        true
    }

    /// Returns a random duration between zero and a tenth of the wait.
    fn jitter(&mut self, wait: Duration) -> Duration {
        let tenth = u64::try_from((wait / 10).as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(((u128::from(tenth) * u128::from(self.draw())) >> 64) as u64)
    }

    /// Returns the next number of `SplitMix64`, which is small, seeded, and random enough to keep
    /// probes apart.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Converts a hint in seconds to a wait, limited to the maximum. A negative hint is a wait of zero.
/// NaN is not a hint.
fn hinted(seconds: Option<f64>, max_backoff: Duration) -> Option<Duration> {
    let seconds = seconds.filter(|seconds| !seconds.is_nan())?;
    // Only values too large for a `Duration` fail here.
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX).min(max_backoff))
}

/// Returns the maximum wait after this failure without a hint, in intervals. Returns `None` if the
/// failure causes no wait.
fn longest_wait(reason: Reason, plan: &Plan, max_backoff: Duration) -> Option<u64> {
    let ceiling = plan.intervals_in(max_backoff).max(1);
    match reason.info().backoff {
        BackoffClass::Long => Some(ceiling),
        BackoffClass::Short => Some(ceiling.min(MAX_OVERLOADED_WAIT)),
        BackoffClass::None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::outcome::Fault;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn outcome(reason: Reason, retry_after: Option<f64>) -> Outcome {
        let fault = if reason == Reason::Ok { Fault::None } else { Fault::Caller };
        let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, reason, fault);
        outcome.retry_after = retry_after;
        outcome
    }

    /// Checks the wait in intervals after each of these failures, where each run that ends a wait
    /// fails in the next way.
    #[track_caller]
    fn check_waits(interval: Duration, max_backoff: Duration, outcomes: &[(Reason, Option<f64>, u64)]) {
        let plan = Plan::new("p", interval);
        let mut backoff = Backoff::new(1);
        let mut number = plan.first_from(Timestamp(1_800_000_000_000_000_000));
        for (step, &(reason, hint, expected)) in outcomes.iter().enumerate() {
            let ended = plan.due(number).plus(Duration::from_millis(300));
            backoff.record(&outcome(reason, hint), (number, number + 1), ended, &plan, max_backoff);
            let next = backoff.resume(number + 1).unwrap_or(number + 1);
            assert_eq!(next - number, expected, "step {step}: {reason} with {hint:?}");
            number = next;
        }
    }

    #[test]
    fn documented_example_holds() {
        let limited = Reason::RateLimited;
        check_waits(7 * MINUTE, HOUR, &[1, 2, 4, 8, 8, 8].map(|wait| (limited, None, wait)));
    }

    #[test]
    fn waits_without_a_hint_double() {
        use Reason::{Billing, Ok, Overloaded, RateLimited, ServerError, Timeout};
        for reason in [RateLimited, Billing] {
            let waits = [1, 2, 4, 8, 16, 32, 60, 60];
            check_waits(MINUTE, HOUR, &waits.map(|wait| (reason, None, wait)));
        }
        check_waits(MINUTE, HOUR, &[1, 2, 4, 4, 4].map(|wait| (Overloaded, None, wait)));
        // The maximum applies to `overloaded` too, and no wait is shorter than the interval.
        check_waits(MINUTE, 3 * MINUTE, &[1, 2, 3, 3].map(|wait| (Overloaded, None, wait)));
        check_waits(HOUR, MINUTE, &[1, 1, 1].map(|wait| (Billing, None, wait)));
        // A success ends the backoff; other failures keep the schedule and the next wait.
        let doubling = [
            (RateLimited, None, 1),
            (RateLimited, None, 2),
            (Timeout, None, 1),
            (ServerError, None, 1),
            (RateLimited, None, 4),
            (Ok, None, 1),
            (RateLimited, None, 1),
        ];
        check_waits(MINUTE, HOUR, &doubling);
        // Each reason doubles the wait before it, up to its own maximum.
        let mixed = [
            (RateLimited, None, 1),
            (RateLimited, None, 2),
            (RateLimited, None, 4),
            (RateLimited, None, 8),
            (Overloaded, None, 4),
            (Billing, None, 8),
        ];
        check_waits(MINUTE, HOUR, &mixed);
    }

    #[test]
    fn hint_moves_the_next_run_but_not_the_doubling() {
        use Reason::{Ok, RateLimited, Unavailable};
        let waits = [
            // The run ends 0.3 s after its slot, so a hint of one interval skips the next slot.
            (RateLimited, Some(60.0), 2),
            (Unavailable, Some(59.0 / 1.1), 1),
            (RateLimited, Some(0.0), 1),
            (RateLimited, Some(-5.0), 1),
            (RateLimited, Some(f64::NEG_INFINITY), 1),
            // A hint neither starts nor changes the doubling, and applies to any reason.
            (RateLimited, None, 1),
            (RateLimited, Some(90.0), 2),
            (RateLimited, None, 2),
            // NaN is not a hint.
            (RateLimited, Some(f64::NAN), 4),
            (Unavailable, Some(f64::NAN), 1),
            // A success causes no wait, even with a hint.
            (Ok, Some(600.0), 1),
            (RateLimited, None, 1),
        ];
        check_waits(MINUTE, HOUR, &waits);
    }

    #[test]
    fn huge_hint_is_limited_to_max_backoff() {
        let plan = Plan::new("p", MINUTE);
        for hint in [1e300, f64::INFINITY, f64::MAX, 3600.0] {
            let ended = plan.due(1000);
            let mut backoff = Backoff::new(1);
            backoff.record(&outcome(Reason::RateLimited, Some(hint)), (1000, 1001), ended, &plan, HOUR);
            let resume = backoff.resume(1001).unwrap();
            assert!((1060..=1066).contains(&resume), "{hint}: {resume}");
        }
        // An unlimited maximum does not overflow.
        let mut backoff = Backoff::new(1);
        let hint = Some(f64::INFINITY);
        backoff.record(&outcome(Reason::RateLimited, hint), (1, 2), plan.due(1), &plan, Duration::MAX);
        assert_eq!(backoff.resume(2), Some(plan.first_from(Timestamp(u64::MAX))));
    }

    #[test]
    fn jitter_differs_by_seed_and_fills_its_tenth() {
        let mut backoff = Backoff::new(7);
        let drawn: Vec<_> = (0..1000).map(|_| backoff.jitter(HOUR).as_secs()).collect();
        assert!(drawn.iter().all(|&seconds| seconds < 360));
        assert!(drawn.iter().min() < Some(&10) && drawn.iter().max() > Some(&350));
        assert_eq!(Backoff::new(7).jitter(HOUR).as_secs(), drawn[0]);
        assert_ne!(Backoff::new(8).jitter(HOUR), Backoff::new(7).jitter(HOUR));
        assert_eq!(Backoff::new(7).jitter(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn backoff_ends_with_its_run_or_a_reload() {
        let plan = Plan::new("p", MINUTE);
        let mut backoff = Backoff::new(1);
        backoff.record(&outcome(Reason::RateLimited, Some(600.0)), (1, 2), plan.due(1), &plan, HOUR);
        let resume = backoff.resume(2).unwrap();
        assert_eq!(backoff.resume(resume), Some(resume));
        assert_eq!(backoff.resume(resume + 1), None);
        backoff.end();
        assert_eq!(backoff.resume(2), None);
    }

    proptest! {
        #[test]
        fn hint_ends_at_the_first_slot_after_it(
            seed: u64,
            hint in prop_oneof![0.0..1e5, any::<f64>()],
            interval in 1_u64..10_000_000,
            max_backoff in 0_u64..100_000_000,
            late in 0_u64..10_000_000,
            number in 100_000_u64..1_000_000,
        ) {
            let plan = Plan::new("p", Duration::from_millis(interval));
            let max_backoff = Duration::from_millis(max_backoff);
            let ended = plan.due(number).plus(Duration::from_micros(late));
            let next = plan.first_after(ended);
            let mut backoff = Backoff::new(seed);
            backoff.record(&outcome(Reason::Unavailable, Some(hint)), (number, next), ended, &plan, max_backoff);
            let resume = backoff.resume(next).unwrap_or(next);
            let waited = plan.due(resume).since(ended);
            let wait = if hint.is_nan() || hint <= 0.0 {
                Duration::ZERO
            } else {
                Duration::try_from_secs_f64(hint).unwrap_or(Duration::MAX).min(max_backoff)
            };
            prop_assert!(waited >= wait, "{waited:?} < {wait:?}");
            // No later than jitter and the slots explain.
            prop_assert!(waited <= wait + wait / 10 + Duration::from_millis(interval));
        }
    }
}
