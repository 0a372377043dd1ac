//! Daily budget of the generation checks, in US dollars and tokens.
//!
//! Before it starts, a run is charged with the maximum that it can spend: its estimated input
//! tokens and `max_tokens`. When it ends, the charge is replaced by the usage that the service
//! reported. A run whose charge would exceed a limit does not start, so concurrent runs keep the
//! limit too.
//!
//! Example: 100 tokens a day, and two probes that are charged 40 tokens and use 13. Both start
//! together (80 charged, then 26 spent). This continues while 40 tokens remain: the last run starts
//! at 52 spent, and the next one finds 65 and is refused. Probes that are charged 40 wait for the
//! next day; a probe that is charged less may still run.
//!
//! The day is that of the wall clock, but it advances only as the monotonic clock does. If the wall
//! clock is set to another day, the date of the account changes but the amount spent does not: a
//! wrong clock never resets the budget, and costs at most the rest of the day on which it is
//! corrected.

use std::{
    fmt, mem,
    sync::MutexGuard,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    config::{self, Chat, Probe},
    outcome::Outcome,
    sync::Mutex,
};

/// Seconds of a UTC day.
pub(super) const DAY: u64 = 86_400;

/// Clock adjustment that does not affect the day: a day that becomes due by a smaller step starts,
/// and a day that has started does not end by one.
const SMALL_STEP: Duration = Duration::from_secs(3600);

/// Tolerance for rounding errors in sums of dollars, as a share of the limit.
const ROUNDING: f64 = 1e-9;

/// The wall clock, which tests replace.
type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// Account of the current day, for all probes. It is charged on the scheduling thread and read by
/// others.
pub struct DailyBudget {
    clock: Clock,
    ledger: Mutex<Ledger>,
}

/// Amount spent in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Day number, counted from 1970-01-01.
    pub day: u64,
    /// US dollars, not negative.
    pub usd: f64,
    /// Input and output tokens.
    pub tokens: u64,
}

#[derive(Debug)]
struct Ledger {
    /// `None` if the configuration has no budget.
    limits: Option<config::Budget>,
    /// Time of the last update, by both clocks.
    seen: (SystemTime, Instant),
    /// Number of days that have started.
    number: u64,
    day: u64,
    /// The previous day and its amount, because the wall clock may be set back to it.
    before: (u64, Amount),
    /// Amount of runs that have ended.
    settled: Amount,
    /// Charges of runs in flight.
    in_flight: Amount,
    runs_in_flight: u64,
    /// Whether a run was refused today that would be refused even without the runs in flight.
    reached: bool,
    /// Whether this has been announced.
    announced: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Amount {
    usd: f64,
    tokens: u64,
}

/// Charge of one run. If it is dropped without [`Charge::settle`], the maximum remains charged.
pub(super) struct Charge<'a> {
    budget: &'a DailyBudget,
    /// Number of the ledger's day.
    number: u64,
    most: Amount,
    taken: Amount,
}

impl DailyBudget {
    /// Creates a budget, with the amount spent before a restart. An amount that a wrong clock has
    /// dated later than today counts for today.
    pub fn new(
        limits: Option<config::Budget>,
        spent: Option<Spent>,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let seen = (clock(), Instant::now());
        let spent = spent.unwrap_or_default();
        let today = day_of(seen.0);
        let usd = if spent.usd.is_finite() { spent.usd.max(0.0) } else { 0.0 };
        let mut ledger = Ledger {
            limits,
            seen,
            number: 0,
            // Tomorrow's may be of a clock that was set back by little just before midnight.
            day: if spent.day > today + 1 { today } else { spent.day },
            before: (0, Amount::default()),
            settled: Amount { usd, tokens: spent.tokens },
            in_flight: Amount::default(),
            runs_in_flight: 0,
            reached: false,
            announced: false,
        };
        ledger.advance_to(seen);
        Self { clock: Box::new(clock), ledger: Mutex::new(ledger) }
    }

    /// Applies reloaded limits. The amount spent does not change.
    pub fn set_limits(&self, limits: Option<config::Budget>) {
        let mut ledger = self.today();
        if ledger.limits != limits {
            (ledger.limits, ledger.reached, ledger.announced) = (limits, false, false);
        }
    }

    /// Returns the limits. Returns `None` if there is no budget.
    pub fn limits(&self) -> Option<config::Budget> {
        self.today().limits
    }

    /// Returns the amount spent today, including the charges of runs in flight.
    pub fn spent(&self) -> Spent {
        let ledger = self.today();
        let Amount { usd, tokens } = ledger.settled.plus(ledger.in_flight);
        Spent { day: ledger.day, usd, tokens }
    }

    /// Returns when refused runs resume. Returns `None` if the budget is not exhausted.
    pub fn resumes(&self) -> Option<SystemTime> {
        let ledger = self.today();
        ledger.reached.then(|| ledger.end_of_day())
    }

    /// Returns the same as [`DailyBudget::resumes`], but only once per day.
    pub fn announce(&self) -> Option<SystemTime> {
        let mut ledger = self.today();
        let news = ledger.reached && !ledger.announced;
        ledger.announced |= news;
        news.then(|| ledger.end_of_day())
    }

    /// Returns how long the probe must wait because its charge exceeds what finished runs have
    /// left. Returns `None` if it can run.
    pub(super) fn pause(&self, probe: &Probe) -> Option<Duration> {
        let most = Amount::maximum_of(probe)?;
        let ledger = self.today();
        let fits = ledger.limits.is_none_or(|limits| ledger.settled.plus(most).is_within(&limits));
        // The clock may have advanced meanwhile, which makes the wait too long by as much.
        (!fits).then(|| ledger.end_of_day().duration_since((self.clock)()).unwrap_or_default())
    }

    /// Returns whether the budget has room for a run that starts now.
    pub(super) fn has_room(&self, probe: &Probe) -> bool {
        Amount::maximum_of(probe).is_none_or(|most| self.today().admit(most))
    }

    /// Charges a run of the probe. The caller has checked that there is room.
    pub(super) fn charge(&self, probe: &Probe) -> Option<Charge<'_>> {
        let most = Amount::maximum_of(probe)?;
        let mut ledger = self.today();
        ledger.in_flight = ledger.in_flight.plus(most);
        ledger.runs_in_flight += 1;
        Some(Charge { budget: self, number: ledger.number, most, taken: most })
    }

    /// Returns the ledger, advanced to the current day.
    fn today(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock();
        ledger.advance_to(((self.clock)(), Instant::now()));
        ledger
    }
}

impl fmt::Debug for DailyBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyBudget").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Advances the ledger to the current time. A later day starts as time passes; if the wall
    /// clock was set to another day, the amount is carried over to that day.
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
                announced: false,
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

    /// Returns whether there is room for a run, and notes if the budget is exhausted for today.
    fn admit(&mut self, most: Amount) -> bool {
        let Some(limits) = self.limits else { return true };
        if self.settled.plus(self.in_flight).plus(most).is_within(&limits) {
            return true;
        }
        // Runs in flight may still leave room, and a run that exceeds the limit alone does not
        // exhaust the day.
        self.reached |= most.is_within(&limits) && !self.settled.plus(most).is_within(&limits);
        false
    }
}

impl Amount {
    /// Returns the maximum that a run of the probe can spend. Returns `None` if it spends nothing.
    fn maximum_of(probe: &Probe) -> Option<Self> {
        let chat = probe.chat()?;
        Some(Self::new(chat, chat.estimated_input_tokens(), u64::from(chat.max_tokens)))
    }

    fn new(chat: &Chat, input: u64, output: u64) -> Self {
        Self {
            usd: chat.price.map_or(0.0, |price| price.cost(input, 0, output)),
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
    /// Replaces the charge by the actual usage: the reported tokens; nothing if the request was
    /// refused or never sent; and the whole charge if the usage is unknown, because a model may
    /// have answered on a connection that was lost.
    pub(super) fn settle(mut self, probe: &Probe, outcome: &Outcome) {
        let Some(chat) = probe.chat() else { return };
        // Tokens counted until a stream broke off differ from what the service bills.
        let counted = outcome.success() || !outcome.tokens_estimated;
        let (input, output) = (outcome.input_tokens, outcome.output_tokens.filter(|_| counted));
        self.taken = if input.is_some() || output.is_some() {
            let most = || (chat.estimated_input_tokens(), u64::from(chat.max_tokens));
            Amount::new(chat, input.unwrap_or_else(|| most().0), output.unwrap_or_else(|| most().1))
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
        // A run that started yesterday was charged to yesterday.
        if ledger.number == self.number {
            ledger.settled = ledger.settled.plus(self.taken);
            ledger.runs_in_flight -= 1;
            // Differences of dollars have rounding errors; with no run in flight the sum is exactly
            // zero.
            ledger.in_flight = match ledger.runs_in_flight {
                0 => Amount::default(),
                _ => ledger.in_flight.minus(self.most),
            };
        }
    }
}

/// Returns whether no model can have answered, because the request was never sent or was refused.
fn is_free(outcome: &Outcome) -> bool {
    outcome.reason.info().is_free || outcome.http_status.is_none() && outcome.phases.processing.is_zero()
}

/// Returns the start of a UTC day.
fn start_of(day: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY)
}

/// Returns the UTC day of a time, counted from 1970-01-01. Earlier times are in day 0.
fn day_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY
}
