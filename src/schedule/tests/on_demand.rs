//! Tests of on-demand runs, on paused time.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::harness::{Harness, MINUTE, SECOND, Step, TIMER, UNLIMITED, ok, probe, provider, target, with};
use crate::{
    config::{self, Chat, Probe, Provider, Schedule, Task},
    outcome::{OnDemandResult, Reason, SkipCause},
    schedule::{Anchor, DailyBudget, Event, OnDemandRequest},
};

const LASTS: Duration = Duration::from_secs(2);

fn good(_run: usize) -> Step {
    ok(LASTS)
}

fn limited(_run: usize) -> Step {
    Step { lasts: LASTS, result: Some((Reason::RateLimited, Some(300.0))) }
}

fn ask(harness: &Harness, within: Duration) -> oneshot::Receiver<OnDemandResult> {
    let (answer, result) = oneshot::channel();
    harness.scheduler.run_on_demand("p", OnDemandRequest { deadline: Instant::now() + within, answer });
    result
}

fn demanded(harness: &Harness) -> usize {
    harness.entries("p").iter().filter(|entry| matches!(entry.event, Event::OnDemand(_))).count()
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_run() {
    let target = target("p", MINUTE, good);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    harness.until(harness.first_due(&target.probe) + SECOND * 10).await;
    let asked = Instant::now();
    let early = [ask(&harness, MINUTE), ask(&harness, MINUTE)];
    sleep(SECOND).await;
    let late = ask(&harness, MINUTE);
    for result in early.into_iter().chain([late]) {
        let Ok(OnDemandResult::Ran(outcome)) = result.await else { panic!("no run") };
        assert!(outcome.success());
    }
    assert!(asked.elapsed() <= LASTS + TIMER * 3, "{:?}", asked.elapsed());
    assert_eq!(demanded(&harness), 1);
    harness.until(harness.first_due(&target.probe) + MINUTE * 2 + SECOND * 10).await;
    let account = harness.account(&target.probe);
    assert_eq!((account.runs, account.overrun), (3, 0), "{account:?}");
    assert!(account.max_lag <= TIMER, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn scheduled_run_answers_waiting_requests() {
    let target = target("p", MINUTE, good);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    let first = harness.first_due(&target.probe);
    harness.until(first + SECOND).await;
    assert!(matches!(ask(&harness, MINUTE).await, Ok(OnDemandResult::Ran(_))));
    harness.until(first + Duration::from_millis(59_500)).await;
    assert!(matches!(ask(&harness, MINUTE).await, Ok(OnDemandResult::Ran(_))));
    assert_eq!((demanded(&harness), harness.account(&target.probe).runs), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn on_demand_run_ends_by_the_deadline_of_its_request() {
    let target = target("p", MINUTE, good);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    harness.until(harness.first_due(&target.probe) + SECOND * 10).await;
    let Ok(OnDemandResult::Ran(outcome)) = ask(&harness, SECOND).await else { panic!("no run") };
    assert_eq!(outcome.reason, Reason::Timeout);
}

#[tokio::test(start_paused = true)]
async fn abandoned_request_causes_no_run() {
    let target = target("p", MINUTE, good);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    harness.until(harness.first_due(&target.probe) + SECOND * 10).await;
    drop(ask(&harness, MINUTE));
    harness.until(harness.first_due(&target.probe) + SECOND * 20).await;
    assert_eq!(demanded(&harness), 0);
}

#[tokio::test(start_paused = true)]
async fn probe_in_backoff_is_not_run_on_demand() {
    let target = target("p", MINUTE, limited);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    harness.until(harness.first_due(&target.probe) + SECOND * 10).await;
    assert!(matches!(ask(&harness, MINUTE).await, Ok(OnDemandResult::Skipped(SkipCause::Backoff))));
    assert_eq!(demanded(&harness), 0);
    assert!(ask(&Harness::start(&UNLIMITED, vec![]), MINUTE).await.is_err(), "an unknown probe");
}

#[tokio::test(start_paused = true)]
async fn hint_of_on_demand_run_applies_to_scheduled_runs() {
    let target = target("p", MINUTE, |run| if run == 1 { limited(run) } else { good(run) });
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    let first = harness.first_due(&target.probe);
    harness.until(first + SECOND * 10).await;
    assert!(matches!(ask(&harness, MINUTE).await, Ok(OnDemandResult::Ran(_))));
    // The maximum wait here is a minute.
    harness.until(first + SECOND * 110).await;
    assert_eq!((demanded(&harness), harness.account(&target.probe).runs), (1, 1));
    assert!(harness.last_reported("p").1);
    harness.until(first + SECOND * 130).await;
    assert_eq!(harness.account(&target.probe).runs, 2);
}

#[tokio::test(start_paused = true)]
async fn hint_that_ends_before_the_next_slot_is_kept() {
    fn briefly(run: usize) -> Step {
        let limited = Step { lasts: LASTS, result: Some((Reason::RateLimited, Some(20.0))) };
        [limited, good(1), limited].into_iter().nth(run).unwrap_or(good(run))
    }
    let waits = |answer| matches!(answer, Ok(OnDemandResult::Skipped(SkipCause::Backoff)));
    let target = target("p", MINUTE, briefly);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    let first = harness.first_due(&target.probe);
    harness.until(first + SECOND * 10).await;
    assert!(waits(ask(&harness, MINUTE).await), "a scheduled run was asked to wait");
    // Jitter adds at most a tenth.
    harness.until(first + SECOND * 25).await;
    assert!(matches!(ask(&harness, MINUTE).await, Ok(OnDemandResult::Ran(_))));
    harness.until(first + SECOND * 30).await;
    assert!(matches!(ask(&harness, MINUTE).await, Ok(OnDemandResult::Ran(_))));
    harness.until(first + SECOND * 35).await;
    assert!(waits(ask(&harness, MINUTE).await), "the previous request was asked to wait");
    harness.until(first + SECOND * 70).await;
    assert_eq!(harness.account(&target.probe).runs, 2, "no slot is skipped for it");
}

/// Requests a run half a second before a slot. Returns the answer, and its time after the slot.
async fn ask_before_a_slot(harness: &Harness, due: Duration) -> (Option<SkipCause>, Duration) {
    harness.until(due.saturating_sub(SECOND / 2)).await;
    let cause = match ask(harness, MINUTE).await {
        Ok(OnDemandResult::Skipped(cause)) => Some(cause),
        Ok(OnDemandResult::Ran(_)) | Err(_) => None,
    };
    (cause, harness.anchor.monotonic.elapsed().saturating_sub(due))
}

#[tokio::test(start_paused = true)]
async fn request_before_slot_without_budget_is_answered() {
    let limits = config::Budget { daily_cost_usd: None, daily_tokens: Some(1) };
    let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 32, ..Chat::default() };
    let probe = Probe { task: Task::Chat(chat), ..probe("p", &provider("corp", "k"), MINUTE) };
    let target = with(probe, good);
    let wall = std::time::UNIX_EPOCH + SECOND * 1_800_000_000;
    let anchor = Anchor { monotonic: Instant::now(), wall };
    let budget = Arc::new(DailyBudget::new(Some(limits), None, move || wall));
    let harness = Harness::start_at(anchor, &UNLIMITED, vec![target.clone()], Some(budget));
    let due = harness.first_due(&target.probe);
    assert_eq!(ask_before_a_slot(&harness, due).await, (Some(SkipCause::Budget), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn request_before_slot_without_permit_is_answered() {
    let narrow = Schedule { max_concurrent: 1, ..UNLIMITED };
    let busy = target("busy", SECOND, |_| ok(MINUTE * 10));
    let p = target("p", MINUTE, good);
    let harness = Harness::start(&narrow, vec![busy, p.clone()]);
    let due = harness.first_due(&p.probe);
    let (cause, after) = ask_before_a_slot(&harness, due).await;
    assert_eq!(cause, Some(SkipCause::Concurrency));
    assert!(after <= 5 * SECOND + TIMER * 3, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn request_before_rate_limited_slot_is_answered() {
    let corp = Arc::into_inner(provider("corp", "k")).unwrap();
    let paced = Arc::new(Provider { requests_per_minute: Some(1), ..corp });
    let [other, p] = ["other", "p"].map(|name| with(probe(name, &paced, MINUTE), good));
    let harness = Harness::start(&UNLIMITED, vec![other, p.clone()]);
    let first = harness.first_due(&p.probe);
    let mut causes = Vec::new();
    for minute in 1..6 {
        causes.push(ask_before_a_slot(&harness, first + MINUTE * minute).await.0);
    }
    assert!(causes.contains(&Some(SkipCause::Pacing)), "{causes:?}");
    assert!(!causes.contains(&Some(SkipCause::Concurrency)), "{causes:?}");
}

#[tokio::test(start_paused = true)]
async fn request_before_slot_moved_by_reload_is_answered() {
    let before = target("p", MINUTE, good);
    let mut harness = Harness::start(&UNLIMITED, vec![before.clone()]);
    harness.until(harness.first_due(&before.probe).saturating_sub(SECOND / 2)).await;
    let result = ask(&harness, MINUTE * 10);
    sleep(TIMER).await;
    harness.scheduler.apply(&UNLIMITED, vec![target("p", MINUTE * 7, good)]);
    let asked = Instant::now();
    assert!(result.await.is_err(), "the client asks again");
    assert!(asked.elapsed() <= TIMER);
}

#[tokio::test(start_paused = true)]
async fn request_during_overrunning_run_gets_its_result() {
    let target = target("p", SECOND * 10, |_| ok(SECOND * 25));
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    let due = harness.first_due(&target.probe);
    harness.until(due.saturating_sub(SECOND / 2)).await;
    assert!(matches!(ask(&harness, MINUTE).await, Ok(OnDemandResult::Ran(_))));
}
