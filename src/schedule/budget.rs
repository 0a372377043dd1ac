//! What the generation checks may spend of a UTC day, in money and in tokens.
//!
//! A run is charged with the most that it can take before it starts: the tokens of its prompt, estimated, and
//! `max_tokens`. At its end the charge becomes what the service counted. A run whose charge would take the day beyond a
//! limit does not start, so that runs in flight together keep it too.
//!
//! An example: 100 tokens a day, and two probes that take 40 at most and 13 in truth. Both start at once (80 charged,
//! then 26 spent). So it goes on while what is spent leaves room for 40: the last run starts at 52 spent, the next
//! finds 65 and is refused; whoever needs 40 waits for the next day, and a probe that takes less may still run.
//!
//! The day is the wall clock's, but it begins only as time passes, which the monotonic clock shows. A wall clock that is
//! set to another day changes the date of the account and not what is spent of it: a clock that was wrong gives no budget
//! back, and costs at most the day in which it is corrected.

use std::{
    fmt, mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    config::{self, Chat, Probe},
    outcome::{Outcome, Reason},
};

/// Seconds of a UTC day as Unix time counts them.
pub(super) const DAY: u64 = 86_400;

/// How far the wall clock may be set without a doubt about the day: a day that it brings so much nearer begins, and one
/// that has begun stays.
const SMALL_STEP: Duration = Duration::from_secs(3600);

/// What rounding may add to a sum of dollars, as a share of the limit.
const ROUNDING: f64 = 1e-9;

/// The wall clock, which a test replaces.
type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// The account of a day, for all probes. It is asked and told on the thread that times runs, and read by others.
pub struct Budget {
    clock: Clock,
    ledger: Mutex<Ledger>,
}

/// What a day has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// The UTC day, counted from 1970-01-01.
    pub day: u64,
    /// US dollars, 0 or more.
    pub usd: f64,
    /// Tokens, input and output together.
    pub tokens: u64,
}

#[derive(Debug)]
struct Ledger {
    /// `None`: the configuration has no budget, and nothing is refused.
    limits: Option<config::Budget>,
    /// When it was last looked at, by both clocks.
    seen: (SystemTime, Instant),
    /// Counts the days that have begun.
    number: u64,
    day: u64,
    /// The day before, and what it took: the wall clock may be set back to it.
    before: (u64, Amount),
    /// Of runs that have ended.
    settled: Amount,
    /// The charges of runs in flight.
    in_flight: Amount,
    runs_in_flight: u64,
    /// A run was refused today that runs in flight cannot make room for.
    reached: bool,
    /// That was told.
    told: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Amount {
    usd: f64,
    tokens: u64,
}

/// A run that has been charged. Dropped without [`Charge::settle`], it has taken all that it could.
pub(super) struct Charge<'a> {
    budget: &'a Budget,
    /// Of the ledger's day.
    number: u64,
    most: Amount,
    taken: Amount,
}

impl Budget {
    /// A budget, with what has been spent of it before a restart. What was spent on a later day than this was spent by a
    /// clock that was wrong, and counts for today.
    pub fn new(
        limits: Option<config::Budget>,
        spent: Option<Spent>,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let seen = (clock(), Instant::now());
        let spent = spent.unwrap_or_default();
        let usd = if spent.usd.is_finite() { spent.usd.max(0.0) } else { 0.0 };
        let mut ledger = Ledger {
            limits,
            seen,
            number: 0,
            day: spent.day.min(day_of(seen.0) + 1),
            before: (0, Amount::default()),
            settled: Amount { usd, tokens: spent.tokens },
            in_flight: Amount::default(),
            runs_in_flight: 0,
            reached: false,
            told: false,
        };
        ledger.advance_to(seen);
        Self { clock: Box::new(clock), ledger: Mutex::new(ledger) }
    }

    /// Follows a reload: what is spent stays spent.
    pub fn set_limits(&self, limits: Option<config::Budget>) {
        let mut ledger = self.today();
        if ledger.limits != limits {
            (ledger.limits, ledger.reached, ledger.told) = (limits, false, false);
        }
    }

    /// The limits; `None`: there is no budget.
    pub fn limits(&self) -> Option<config::Budget> {
        self.today().limits
    }

    /// What this day has taken, the charges of runs in flight included.
    pub fn spent(&self) -> Spent {
        let ledger = self.today();
        let Amount { usd, tokens } = ledger.settled.plus(ledger.in_flight);
        Spent { day: ledger.day, usd, tokens }
    }

    /// When the runs go on that were refused; `None`: none was refused for good today.
    pub fn resumes(&self) -> Option<SystemTime> {
        let ledger = self.today();
        ledger.reached.then(|| ledger.end_of_day())
    }

    /// The same, once a day.
    pub fn announce(&self) -> Option<SystemTime> {
        let mut ledger = self.today();
        let news = ledger.reached && !ledger.told;
        ledger.told |= news;
        news.then(|| ledger.end_of_day())
    }

    /// For how long the probe has to wait, where it does not fit in what the runs that have ended left of the day;
    /// `None`: it fits, or spends nothing.
    pub(super) fn pause(&self, probe: &Probe) -> Option<Duration> {
        let most = Amount::most_of(probe)?;
        let ledger = self.today();
        let fits = ledger.limits.is_none_or(|limits| ledger.settled.plus(most).is_within(&limits));
        // The clock may have gone on, which only makes the wait too long by as much.
        (!fits).then(|| ledger.end_of_day().duration_since((self.clock)()).unwrap_or_default())
    }

    /// Whether a run that starts now would find room.
    pub(super) fn has_room(&self, probe: &Probe) -> bool {
        Amount::most_of(probe).is_none_or(|most| self.today().admit(most))
    }

    /// Charges a run of the probe, which starts now: it has found room.
    pub(super) fn charge(&self, probe: &Probe) -> Option<Charge<'_>> {
        let most = Amount::most_of(probe)?;
        let mut ledger = self.today();
        ledger.in_flight = ledger.in_flight.plus(most);
        ledger.runs_in_flight += 1;
        Some(Charge { budget: self, number: ledger.number, most, taken: most })
    }

    /// The ledger of the day that it is.
    fn today(&self) -> MutexGuard<'_, Ledger> {
        // Nothing panics while it is held.
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.advance_to(((self.clock)(), Instant::now()));
        ledger
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Follows the clocks. A later day begins as time passes; where the wall clock was set to another day, that day has
    /// taken what the one before had.
    fn advance_to(&mut self, seen: (SystemTime, Instant)) {
        let (wall, monotonic) = seen;
        let expected = self.seen.0 + monotonic.saturating_duration_since(self.seen.1);
        self.seen = seen;
        let today = day_of(wall);
        if today > self.day && start_of(today) <= expected + SMALL_STEP {
            *self = Self {
                limits: self.limits,
                seen,
                number: self.number + 1,
                day: today,
                before: (self.day, self.settled.plus(self.in_flight)),
                settled: Amount::default(),
                in_flight: Amount::default(),
                runs_in_flight: 0,
                reached: false,
                told: false,
            };
        } else if today > self.day {
            self.day = today;
        } else if today < self.day && start_of(self.day) > wall + SMALL_STEP {
            self.day = today;
            let (day, amount) = mem::take(&mut self.before);
            if day == today {
                self.settled = self.settled.plus(amount);
            }
        }
    }

    fn end_of_day(&self) -> SystemTime {
        start_of(self.day + 1)
    }

    /// Whether there is room for a run, and takes note where there will be none today.
    fn admit(&mut self, most: Amount) -> bool {
        let Some(limits) = self.limits else { return true };
        if self.settled.plus(self.in_flight).plus(most).is_within(&limits) {
            return true;
        }
        // Runs in flight may yet make room; and what a run alone could never take says nothing of the day.
        self.reached |= most.is_within(&limits) && !self.settled.plus(most).is_within(&limits);
        false
    }
}

impl Amount {
    /// The most that a run of the probe can take; `None`: it spends nothing.
    fn most_of(probe: &Probe) -> Option<Self> {
        let chat = probe.chat()?;
        Some(Self::of(chat, chat.estimated_input_tokens(), u64::from(chat.max_tokens)))
    }

    fn of(chat: &Chat, input: u64, output: u64) -> Self {
        Self {
            usd: chat.price.map_or(0.0, |price| price.cost(input, output)),
            tokens: input.saturating_add(output),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self { usd: self.usd + other.usd, tokens: self.tokens.saturating_add(other.tokens) }
    }

    fn minus(self, other: Self) -> Self {
        Self { usd: self.usd - other.usd, tokens: self.tokens.saturating_sub(other.tokens) }
    }

    fn is_within(self, limits: &config::Budget) -> bool {
        limits.daily_cost_usd.is_none_or(|limit| self.usd <= limit * (1.0 + ROUNDING))
            && limits.daily_tokens.is_none_or(|limit| self.tokens <= limit)
    }
}

impl Charge<'_> {
    /// Puts what the run took in the place of its charge: as counted; nothing where it was refused or never asked; and
    /// all that it could where that is not known, since a model may well have answered to a connection that was gone.
    pub(super) fn settle(mut self, probe: &Probe, outcome: &Outcome) {
        let Some(chat) = probe.chat() else { return };
        // What was counted until a stream broke off is not what the service counts.
        let counted = outcome.success() || !outcome.tokens_estimated;
        let (input, output) = (outcome.input_tokens, outcome.output_tokens.filter(|_| counted));
        self.taken = if input.is_some() || output.is_some() {
            let most = || (chat.estimated_input_tokens(), u64::from(chat.max_tokens));
            Amount::of(chat, input.unwrap_or_else(|| most().0), output.unwrap_or_else(|| most().1))
        } else if is_free(outcome) {
            Amount::default()
        } else {
            self.most
        };
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        let mut ledger = self.budget.today();
        // What was spent yesterday is yesterday's.
        if ledger.number == self.number {
            ledger.settled = ledger.settled.plus(self.taken);
            ledger.runs_in_flight -= 1;
            // Differences of dollars round; none in flight is exactly nothing.
            ledger.in_flight = match ledger.runs_in_flight {
                0 => Amount::default(),
                _ => ledger.in_flight.minus(self.most),
            };
        }
    }
}

/// Whether no model can have answered: the request was never sent, or was refused.
fn is_free(outcome: &Outcome) -> bool {
    let refused = matches!(
        outcome.reason,
        Reason::AuthFailed
            | Reason::Permission
            | Reason::Billing
            | Reason::RateLimited
            | Reason::Overloaded
            | Reason::Unavailable
            | Reason::ServerError
            | Reason::ModelNotFound
            | Reason::InvalidRequest
            | Reason::UnexpectedStatus
    );
    refused || outcome.http_status.is_none() && outcome.phases.processing.is_zero()
}

/// Returns when a UTC day begins.
fn start_of(day: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY)
}

/// The UTC day of a time, counted from 1970-01-01; what is before is that day.
fn day_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY
}
