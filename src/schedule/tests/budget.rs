//! Tests of the budget alone, and of probe workers with a budget on paused time.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::harness::{
    Harness, MINUTE, SECOND, ScriptedWork, Step, Target, UNLIMITED, ok, probe, provider, target,
};
use crate::{
    config::{self, Chat, Price, Probe, Recheck, Task},
    outcome::{Fault, Outcome, Reason},
    schedule::{Anchor, DailyBudget, Event, Spent, Wait, Work, budget::DAY},
};

/// Noon of a day in 2027.
const NOON: u64 = 20_833 * DAY + DAY / 2;
const HOUR: Duration = Duration::from_secs(3600);

/// Returns a probe charged with 40 tokens or 400 millionths of a dollar: 8 tokens for the frame of
/// the prompt, one for its text, 31 for the answer.
fn chat_probe(name: &str, interval: Duration) -> Probe {
    let price =
        Price { input_usd_per_mtok: 10.0, cached_input_usd_per_mtok: None, output_usd_per_mtok: 10.0 };
    let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 31, price: Some(price), ..Chat::default() };
    Probe { task: Task::Chat(chat), ..probe(name, &provider("corp", "k"), interval) }
}

fn chat_target(name: &str, interval: Duration) -> Arc<Target> {
    Arc::new(Target {
        probe: Arc::new(chat_probe(name, interval)),
        script: |_| ok(SECOND / 100),
        wait: None,
        last_run: None,
    })
}

fn limits(daily_cost_usd: Option<f64>, daily_tokens: Option<u64>) -> config::Budget {
    config::Budget { daily_cost_usd, daily_tokens }
}

fn wall(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Returns a clock that the test sets, in seconds since 1970.
fn clock(now: &Arc<Mutex<u64>>) -> impl Fn() -> SystemTime + Send + Sync + use<> {
    let now = Arc::clone(now);
    move || wall(*now.lock().unwrap())
}

fn counted(input: u64, output: u64) -> Outcome {
    let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, Reason::Ok, Fault::None);
    (outcome.input_tokens, outcome.output_tokens) = (Some(input), Some(output));
    outcome
}

/// Returns an anchor at that time, for a wall clock that follows the paused one.
fn anchor(seconds: u64) -> Anchor {
    Anchor { monotonic: Instant::now(), wall: wall(seconds) }
}

fn follows(anchor: Anchor) -> impl Fn() -> SystemTime + Send + Sync {
    move || anchor.wall + anchor.monotonic.elapsed()
}

#[test]
fn charge_is_replaced_by_reported_usage() {
    let now = Arc::new(Mutex::new(NOON));
    let budget = DailyBudget::new(Some(limits(Some(1.0), Some(100))), None, clock(&now));
    let probe = chat_probe("p", MINUTE);
    let charge = budget.charge(&probe).unwrap();
    assert_eq!(budget.spent(), Spent { day: 20_833, usd: 40e-5, tokens: 40 });
    charge.settle(&probe, &counted(9, 4));
    assert_eq!(budget.spent(), Spent { day: 20_833, usd: 13e-5, tokens: 13 });
    // The maximum of an aborted run remains charged.
    drop(budget.charge(&probe));
    assert_eq!(budget.spent().tokens, 53);
    assert!(DailyBudget::new(None, None, clock(&now)).charge(&target_probe()).is_none());
}

fn target_probe() -> Probe {
    probe("auth", &provider("corp", "k"), MINUTE)
}

#[test]
fn failed_run_is_charged_by_its_reason() {
    #[track_caller]
    fn check(change: impl Fn(&mut Outcome), tokens: u64) {
        let budget = DailyBudget::new(Some(limits(None, Some(100))), None, || wall(NOON));
        let probe = chat_probe("p", MINUTE);
        let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, Reason::Timeout, Fault::Provider);
        outcome.phases.processing = SECOND;
        change(&mut outcome);
        budget.charge(&probe).unwrap().settle(&probe, &outcome);
        assert_eq!(budget.spent().tokens, tokens, "{outcome:?}");
    }
    // It was sent, but the usage is unknown.
    check(|_| {}, 40);
    check(|outcome| (outcome.reason, outcome.http_status) = (Reason::GatewayTimeout, Some(504)), 40);
    // It was never sent, or was refused.
    check(|outcome| outcome.phases.processing = Duration::ZERO, 0);
    for reason in [Reason::RateLimited, Reason::Overloaded, Reason::AuthFailed, Reason::ServerError] {
        check(|outcome| (outcome.reason, outcome.http_status) = (reason, Some(429)), 0);
    }
    // A stream that broke off has used more than was received; one with reported usage has not.
    let broken = |outcome: &mut Outcome| {
        (outcome.reason, outcome.http_status) = (Reason::StreamTruncated, Some(200));
        (outcome.input_tokens, outcome.output_tokens) = (Some(9), Some(2));
    };
    check(broken, 11);
    check(
        |outcome| {
            broken(outcome);
            outcome.tokens_estimated = true;
        },
        40,
    );
}

#[test]
fn runs_in_flight_together_keep_the_limit() {
    let budget = DailyBudget::new(Some(limits(None, Some(100))), None, || wall(NOON));
    let probe = chat_probe("p", MINUTE);
    let charges: Vec<_> = (0..2).filter_map(|_| budget.charge(&probe)).collect();
    assert!(!budget.has_room(&probe), "80 of 100 tokens are charged");
    assert_eq!((budget.resumes(), budget.pause(&probe)), (None, None), "but runs in flight may leave room");
    for charge in charges {
        charge.settle(&probe, &counted(9, 4));
    }
    assert!(budget.has_room(&probe));
    budget.charge(&probe).unwrap().settle(&probe, &counted(9, 31));
    assert!(!budget.has_room(&probe), "66 of 100 tokens are spent");
    assert_eq!(budget.pause(&probe), Some(12 * HOUR));
    assert_eq!(budget.resumes(), Some(wall(20_834 * DAY)));
    assert_eq!((budget.announce(), budget.announce()), (Some(wall(20_834 * DAY)), None));
}

#[test]
fn dollars_are_limited_too_and_reach_their_limit_exactly() {
    // Ten runs of 0.0004 with full usage; their sum has rounding errors.
    let budget = DailyBudget::new(Some(limits(Some(0.004), None)), None, || wall(NOON));
    let probe = chat_probe("p", MINUTE);
    for run in 0..10 {
        assert!(budget.has_room(&probe), "run {run}");
        budget.charge(&probe).unwrap().settle(&probe, &counted(9, 31));
    }
    assert!(!budget.has_room(&probe));
}

#[test]
fn run_above_the_limit_does_not_exhaust_the_budget() {
    let budget = DailyBudget::new(Some(limits(None, Some(39))), None, || wall(NOON));
    assert!(!budget.has_room(&chat_probe("p", MINUTE)));
    assert_eq!(budget.resumes(), None);
    assert!(budget.pause(&chat_probe("p", MINUTE)).is_some());
}

/// A budget of 50 tokens with runs of 40, and its clocks.
struct Clocks {
    budget: DailyBudget,
    probe: Probe,
    /// Lead of the wall clock over the correct time, in seconds.
    ahead: Arc<Mutex<i64>>,
}

impl Clocks {
    /// Starts at noon, after a restart with that amount spent before.
    fn at_noon(spent: Option<Spent>, ahead: i64) -> Self {
        let (anchor, ahead) = (anchor(NOON), Arc::new(Mutex::new(ahead)));
        let set = Arc::clone(&ahead);
        let clock = move || {
            let now = anchor.wall + anchor.monotonic.elapsed();
            let ahead = *set.lock().unwrap();
            let by = Duration::from_secs(ahead.unsigned_abs());
            if ahead < 0 { now - by } else { now + by }
        };
        let budget = DailyBudget::new(Some(limits(None, Some(50))), spent, clock);
        Self { budget, probe: chat_probe("p", MINUTE), ahead }
    }

    fn set(&self, ahead: i64) {
        *self.ahead.lock().unwrap() = ahead;
    }

    async fn pass(&self, time: Duration) {
        // At least as rarely as the daemon checks.
        for _ in 0..time.as_secs() / 60 {
            tokio::time::advance(MINUTE).await;
            self.budget.spent();
        }
    }

    fn spend(&self) {
        self.budget.charge(&self.probe).unwrap().settle(&self.probe, &counted(9, 31));
    }

    /// Returns the day, counted from the first, and the amount spent.
    fn day(&self) -> (i64, u64) {
        let Spent { day, tokens, .. } = self.budget.spent();
        (day.cast_signed() - 20_833, tokens)
    }
}

const DAYS: i64 = DAY.cast_signed();

#[tokio::test(start_paused = true)]
async fn clock_ahead_costs_at_most_the_current_day() {
    for ahead in [DAYS, 30 * DAYS, 366 * DAYS, 40 * 365 * DAYS] {
        let clocks = Clocks::at_noon(None, 0);
        clocks.spend();
        clocks.set(ahead);
        assert!(!clocks.budget.has_room(&clocks.probe), "setting the clock frees no budget");
        tokio::time::advance(4 * SECOND).await;
        assert_eq!(clocks.day(), (ahead / DAYS, 40));
        clocks.set(0);
        assert_eq!(clocks.day(), (0, 40), "{ahead}");
        let resumes = clocks.budget.resumes().unwrap();
        assert_eq!(resumes, wall(20_834 * DAY), "{ahead}");
        clocks.pass(12 * HOUR).await;
        assert_eq!(clocks.day(), (1, 0), "{ahead}");
        assert!(clocks.budget.has_room(&clocks.probe));
    }
}

#[tokio::test(start_paused = true)]
async fn clock_behind_frees_no_budget() {
    for behind in [-DAYS, -30 * DAYS, -20_833 * DAYS] {
        let clocks = Clocks::at_noon(None, 0);
        clocks.spend();
        clocks.set(behind);
        assert!(!clocks.budget.has_room(&clocks.probe), "{behind}");
        tokio::time::advance(4 * SECOND).await;
        assert_eq!(clocks.day(), (behind / DAYS, 40));
        clocks.set(0);
        assert_eq!(clocks.day(), (0, 40), "{behind}");
        clocks.pass(12 * HOUR).await;
        assert_eq!(clocks.day(), (1, 0), "{behind}");
    }
}

#[tokio::test(start_paused = true)]
async fn clock_wrong_at_start_costs_at_most_the_current_day() {
    // The state has the correct day and is read by a clock that is ahead until it is synchronised.
    let spent = Spent { day: 20_833, usd: 0.0, tokens: 40 };
    let clocks = Clocks::at_noon(Some(spent), 9 * 3600 + 4 * 3600);
    assert_eq!(clocks.day(), (1, 0));
    clocks.set(0);
    assert_eq!(clocks.day(), (0, 40), "the persisted day continues");
    // The state was written by a clock that was ahead and is read by a correct one.
    let ahead = Spent { day: 20_833 + 366, ..spent };
    let last_hour = Clocks::at_noon(Some(ahead), 11 * 3600 + 1800);
    assert_eq!(last_hour.day(), (0, 40), "also in the last hour of a day");
    let clocks = Clocks::at_noon(Some(ahead), 0);
    assert_eq!(clocks.day(), (0, 40));
    clocks.pass(12 * HOUR).await;
    assert_eq!(clocks.day(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn clock_steps_around_midnight_start_one_day() {
    let clocks = Clocks::at_noon(None, 0);
    clocks.spend();
    clocks.pass(11 * HOUR + 59 * MINUTE).await;
    assert_eq!(clocks.day(), (0, 40));
    clocks.set(120);
    assert_eq!(clocks.day(), (1, 0), "the day begins a minute early");
    clocks.spend();
    clocks.set(0);
    assert_eq!(clocks.day(), (1, 40), "the day does not begin again");
    clocks.pass(2 * MINUTE).await;
    assert_eq!(clocks.day(), (1, 40));
    clocks.set(-3000);
    assert_eq!(clocks.day(), (1, 40), "a day that has begun continues");
    // Set back by more, to the previous day, which then has the amounts of both.
    clocks.set(-7200);
    assert_eq!(clocks.day(), (0, 80));
    clocks.set(0);
    assert_eq!(clocks.day().0, 1);
}

#[tokio::test(start_paused = true)]
async fn run_during_a_clock_step_is_settled() {
    let clocks = Clocks::at_noon(None, 0);
    let charge = clocks.budget.charge(&clocks.probe).unwrap();
    clocks.set(366 * DAYS);
    assert_eq!(clocks.day(), (366, 40));
    charge.settle(&clocks.probe, &counted(9, 4));
    assert_eq!(clocks.day(), (366, 13));
    clocks.set(0);
    assert_eq!(clocks.day(), (0, 13));
}

#[tokio::test(start_paused = true)]
async fn run_across_midnight_counts_for_its_first_day() {
    let clocks = Clocks::at_noon(None, 0);
    let Clocks { budget, probe, .. } = &clocks;
    budget.set_limits(Some(limits(None, Some(100))));
    let charge = budget.charge(probe).unwrap();
    clocks.pass(12 * HOUR).await;
    let other = budget.charge(probe).unwrap();
    charge.settle(probe, &counted(9, 4));
    assert_eq!(budget.spent().tokens, 40, "only today's run");
    other.settle(probe, &counted(9, 4));
    assert_eq!(budget.spent().tokens, 13);
}

#[test]
fn spending_survives_a_restart() {
    #[track_caller]
    fn check(day: u64, usd: f64, expected: (u64, f64, u64)) {
        let spent = Some(Spent { day, usd, tokens: 7 });
        let Spent { day, usd, tokens } = DailyBudget::new(None, spent, || wall(NOON)).spent();
        assert_eq!((day, usd, tokens), expected);
    }
    check(20_833, 0.5, (20_833, 0.5, 7));
    check(20_832, 0.5, (20_833, 0.0, 0));
    // The clock was wrong, so the amount counts for today.
    check(20_834, 0.5, (20_833, 0.5, 7));
    check(u64::MAX, 0.5, (20_833, 0.5, 7));
    for hostile in [f64::NAN, f64::INFINITY, -1.0] {
        check(20_833, hostile, (20_833, 0.0, 7));
    }
}

#[test]
fn spending_survives_a_reload() {
    let budget = DailyBudget::new(Some(limits(None, Some(50))), None, || wall(NOON));
    let probe = chat_probe("p", MINUTE);
    budget.charge(&probe).unwrap().settle(&probe, &counted(9, 31));
    assert!(!budget.has_room(&probe) && budget.announce().is_some());
    budget.set_limits(Some(limits(None, Some(50))));
    assert!(budget.resumes().is_some());
    budget.set_limits(Some(limits(None, Some(80))));
    assert!(budget.resumes().is_none() && budget.has_room(&probe));
    assert_eq!(budget.spent().tokens, 40);
    budget.set_limits(None);
    assert!(budget.has_room(&probe));
    assert_eq!(budget.spent().tokens, 40);
}

#[tokio::test(start_paused = true)]
async fn exhausted_budget_pauses_runs_until_the_next_day() {
    // Ten minutes before midnight, with 200 tokens. Each run costs its maximum of 40, because no
    // usage is reported.
    let anchor = anchor(20_834 * DAY - 600);
    let budget = Arc::new(DailyBudget::new(Some(limits(None, Some(200))), None, follows(anchor)));
    let (spender, other) =
        (chat_target("spender", 10 * SECOND), target("auth", 10 * SECOND, |_| ok(SECOND / 100)));
    let targets = vec![Arc::clone(&spender), Arc::clone(&other)];
    let harness = Harness::start_at(anchor, &UNLIMITED, targets, Some(Arc::clone(&budget)));
    harness.until(8 * MINUTE).await;
    let account = harness.account(&spender.probe);
    assert_eq!((account.runs, account.budget), (5, 43), "{account:?}");
    assert_eq!(harness.account(&other.probe).runs, 48, "checks without generation continue");
    // The next run is reported to be the first of the next day.
    let (next_run, backing_off) = harness.last_reported("spender");
    assert!(!backing_off);
    let midnight = anchor.epoch().plus(10 * MINUTE);
    assert!(next_run >= midnight && next_run < midnight.plus(10 * SECOND), "{next_run:?}");
    harness.until(10 * MINUTE + 30 * SECOND).await;
    assert_eq!(harness.account(&spender.probe).runs, 8);
    assert_eq!(
        budget.spent(),
        Spent { day: 20_834, usd: budget.spent().usd, tokens: 120 },
        "of the new day only"
    );
}

#[tokio::test(start_paused = true)]
async fn backoff_continues_after_a_restart() {
    fn remembered(wait: Wait) -> Arc<Target> {
        let probe = probe("limited", &provider("corp", "k"), SECOND);
        let script = |_| Step { lasts: SECOND / 100, result: Some((Reason::RateLimited, None)) };
        Arc::new(Target { probe: Arc::new(probe), script, wait: Some(wait), last_run: None })
    }
    let reported = |work: &ScriptedWork| {
        let waits = work.all().into_iter().filter_map(|entry| match entry.event {
            Event::PersistWait(wait) => Some(wait),
            _ => None,
        });
        waits.collect::<Vec<_>>()
    };
    let anchor = anchor(NOON);
    let start = anchor.wall;
    for (until, step, waited, next) in [
        (Some(start + 20 * SECOND), 4, 20 * SECOND, 8),
        // Only the step of an expired wait is restored; a wait beyond the maximum is limited.
        (Some(start - HOUR), 4, Duration::ZERO, 8),
        (None, 2, Duration::ZERO, 4),
        (Some(start + 9000 * HOUR), u64::MAX, MINUTE * 11 / 10, 60),
    ] {
        let anchor = Anchor { monotonic: Instant::now(), ..anchor };
        let target = remembered(Wait { until, step });
        let harness = Harness::start_at(anchor, &UNLIMITED, vec![Arc::clone(&target)], None);
        harness.until(waited + SECOND).await;
        let account = harness.account(&target.probe);
        assert_eq!(account.runs, 1, "{until:?}: {account:?}");
        assert_eq!(account.backoff, waited.as_secs(), "{until:?}: {account:?}");
        let kept = reported(&harness.work);
        assert_eq!(kept.last().unwrap().unwrap().step, next, "{kept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clock_step_changes_no_backoff() {
    fn limited(_run: usize) -> Step {
        Step { lasts: SECOND / 100, result: Some((Reason::RateLimited, Some(30.0))) }
    }
    for seconds in [86_400, -86_400] {
        let mut harness = Harness::start(&UNLIMITED, vec![target("asked", MINUTE, limited)]);
        harness.until(MINUTE).await;
        harness.work.set_clock(seconds);
        assert!(harness.scheduler.check_wall_clock().is_some());
        harness.until(MINUTE + SECOND / 10).await;
        let kept = harness.entries("asked").into_iter().rev().find_map(|entry| match entry.event {
            Event::PersistWait(wait) => Some((entry.at, wait.unwrap())),
            _ => None,
        });
        // The persisted wait is relative to the current wall clock.
        let (at, wait) = kept.unwrap();
        assert!(at >= harness.anchor.monotonic + MINUTE, "it is reported again");
        let left = wait.until.unwrap().duration_since(harness.work.wall_clock()).unwrap_or_default();
        assert!(left <= MINUTE, "{left:?}");

        // A restarted scheduler whose anchor is older than the step.
        let probe = probe("again", &provider("corp", "k"), SECOND);
        let until = Some(harness.work.wall_clock() + 20 * SECOND);
        let wait = Some(Wait { until, step: 0 });
        let again =
            Arc::new(Target { probe: Arc::new(probe), script: |_| ok(SECOND / 100), wait, last_run: None });
        harness.scheduler.apply(&UNLIMITED, vec![again]);
        let runs = |harness: &Harness| {
            let started = |event: &Event| matches!(event, Event::Started { .. });
            harness.entries("again").iter().filter(|entry| started(&entry.event)).count()
        };
        harness.until(MINUTE + 19 * SECOND).await;
        assert_eq!(runs(&harness), 0);
        harness.until(MINUTE + 23 * SECOND).await;
        assert!(runs(&harness) >= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn recheck_without_budget_is_omitted() {
    fn down(attempt: usize) -> Step {
        let reason = if attempt == 1 { Reason::Timeout } else { Reason::Unavailable };
        Step { lasts: SECOND / 100, result: Some((reason, None)) }
    }
    let recheck = Some(Recheck { after: SECOND, step: Duration::ZERO, times: 2 });
    let probe = Arc::new(Probe { recheck, ..chat_probe("p", MINUTE) });
    let target = Arc::new(Target { probe: Arc::clone(&probe), script: down, wait: None, last_run: None });
    let anchor = anchor(NOON);
    let begun = anchor.monotonic;
    let clock = move || wall(NOON) + begun.elapsed();
    let budget = Arc::new(DailyBudget::new(Some(limits(None, Some(79))), None, clock));
    let harness = Harness::start_at(anchor, &UNLIMITED, vec![target], Some(Arc::clone(&budget)));
    harness.until(harness.first_due(&probe) + 30 * SECOND).await;
    // The run was refused, which is free; the recheck may have been answered.
    assert_eq!(budget.spent().tokens, 40);
    harness.until(harness.first_due(&probe) + 5 * MINUTE).await;
    assert_eq!(budget.spent().tokens, 40);
    let rechecks =
        harness.entries("p").into_iter().filter(|entry| matches!(entry.event, Event::Rechecked(_)));
    assert_eq!(rechecks.count(), 1);
    let account = harness.account(&probe);
    assert_eq!(account.runs, 1, "{account:?}");
    assert!(account.budget >= 4, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn recheck_is_charged_before_it_begins() {
    fn down(_run: usize) -> Step {
        Step { lasts: SECOND, result: Some((Reason::Unavailable, None)) }
    }
    let recheck = Some(Recheck { after: SECOND, step: Duration::ZERO, times: 1 });
    let probe = Arc::new(Probe { recheck, ..chat_probe("p", MINUTE) });
    let target = Arc::new(Target { probe: Arc::clone(&probe), script: down, wait: None, last_run: None });
    let anchor = anchor(NOON);
    let budget = Arc::new(DailyBudget::new(Some(limits(None, Some(1000))), None, follows(anchor)));
    let harness = Harness::start_at(anchor, &UNLIMITED, vec![target], Some(budget));
    harness.until(harness.first_due(&probe) + 10 * SECOND).await;
    let entries = harness.entries("p");
    let at = |wanted: fn(&Event) -> bool| entries.iter().find(|entry| wanted(&entry.event)).unwrap().at;
    let charged = at(|event| matches!(event, Event::Charged));
    let ended = at(|event| matches!(event, Event::Rechecked(_)));
    assert!(charged > at(|event| matches!(event, Event::Finished(_))));
    // It lasts a second, during which the process may end.
    assert!(ended - charged >= SECOND, "{:?}", ended - charged);
}
