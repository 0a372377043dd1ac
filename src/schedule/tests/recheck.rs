//! Tests of rechecks, on paused time.

use std::{sync::Arc, time::Duration};

use super::harness::{
    Harness, MINUTE, SECOND, Script, Step, TIMER, Target, UNLIMITED, ok, probe, provider, with,
};
use crate::{
    config::{Probe, Recheck},
    outcome::Reason,
    schedule::Event,
};

const LASTS: Duration = Duration::from_millis(10);

/// The example of the guide.
const GUIDE: Recheck = Recheck { after: Duration::from_secs(5), step: Duration::from_secs(5), times: 3 };

fn failed(reason: Reason) -> Step {
    Step { lasts: LASTS, result: Some((reason, None)) }
}

fn down(_attempt: usize) -> Step {
    failed(Reason::Unavailable)
}

fn target(interval: Duration, script: Script) -> Arc<Target> {
    with(Probe { recheck: Some(GUIDE), ..probe("p", &provider("corp", "k"), interval) }, script)
}

/// Returns what ended after the first run until shortly before the second, with the seconds since
/// the first run's end.
async fn after_the_first_run(target: &Arc<Target>) -> Vec<(u32, Reason, f64)> {
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    let second = harness.first_due(&target.probe) + target.probe.interval;
    harness.until(second + SECOND / 2).await;
    let entries = harness.entries("p");
    let ended = |event: &Event| matches!(event, Event::Finished(_));
    let first = entries.iter().find(|entry| ended(&entry.event)).unwrap().at;
    let account = harness.account(&target.probe);
    assert_eq!((account.runs, account.overrun, account.concurrency), (2, 0, 0), "{account:?}");
    assert!(account.max_lag <= TIMER, "a recheck delays a run: {account:?}");
    let rechecks = entries.iter().filter_map(|entry| match &entry.event {
        Event::Rechecked(outcome) => {
            Some((outcome.recheck.unwrap(), outcome.reason, (entry.at - first).as_secs_f64()))
        }
        _ => None,
    });
    rechecks.filter(|(.., at)| *at < target.probe.interval.as_secs_f64() - 0.1).collect()
}

#[track_caller]
fn check(found: &[(u32, Reason, f64)], expected: &[(Reason, f64)]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (number, (found, (reason, at))) in (1..).zip(found.iter().zip(expected)) {
        assert_eq!((found.0, found.1), (number, *reason));
        // Each attempt takes some time, and each timer fires a millisecond late.
        assert!((*at..at + 0.1).contains(&found.2), "{number}: {found:?}, not {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn rechecks_run_after_5_15_and_30_seconds() {
    use Reason::Unavailable;
    let found = after_the_first_run(&target(MINUTE, down)).await;
    check(&found, &[(Unavailable, 5.0), (Unavailable, 15.0), (Unavailable, 30.0)]);
}

#[tokio::test(start_paused = true)]
async fn first_success_ends_rechecks() {
    fn back(attempt: usize) -> Step {
        if attempt < 2 { down(attempt) } else { ok(LASTS) }
    }
    let found = after_the_first_run(&target(MINUTE, back)).await;
    check(&found, &[(Reason::Unavailable, 5.0), (Reason::Ok, 15.0)]);
}

#[tokio::test(start_paused = true)]
async fn other_failure_ends_rechecks() {
    fn limited(attempt: usize) -> Step {
        if attempt < 1 { down(attempt) } else { failed(Reason::RateLimited) }
    }
    let found = after_the_first_run(&target(MINUTE, limited)).await;
    check(&found, &[(Reason::RateLimited, 5.0)]);
}

#[tokio::test(start_paused = true)]
async fn only_transient_failures_are_rechecked() {
    let scripts: [(Script, usize); 6] = [
        (|_| failed(Reason::Unavailable), 3),
        (|_| failed(Reason::Connect), 3),
        (|_| failed(Reason::GatewayTimeout), 3),
        (|_| failed(Reason::Timeout), 0),
        (|_| failed(Reason::AuthFailed), 0),
        (|_| ok(LASTS), 0),
    ];
    for (script, rechecks) in scripts {
        assert_eq!(after_the_first_run(&target(MINUTE, script)).await.len(), rechecks);
    }
}

#[tokio::test(start_paused = true)]
async fn hint_longer_than_the_wait_prevents_rechecks() {
    fn hinted(seconds: f64) -> Step {
        Step { lasts: LASTS, result: Some((Reason::Unavailable, Some(seconds))) }
    }
    let found = after_the_first_run(&target(MINUTE, |_| hinted(5.5))).await;
    check(&found, &[]);
    let found = after_the_first_run(&target(MINUTE, |_| hinted(5.0))).await;
    assert_eq!(found.len(), 3);
    // A hint of the first recheck applies to the second.
    let found = after_the_first_run(&target(MINUTE, |n| hinted(if n == 1 { 11.0 } else { 1.0 }))).await;
    check(&found, &[(Reason::Unavailable, 5.0)]);
}

#[tokio::test(start_paused = true)]
async fn hint_of_recheck_applies_to_scheduled_runs() {
    fn limited(attempt: usize) -> Step {
        let hinted = Step { lasts: LASTS, result: Some((Reason::RateLimited, Some(100.0))) };
        [down(0), hinted].into_iter().nth(attempt).unwrap_or(ok(LASTS))
    }
    let target = target(MINUTE, limited);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    let first = harness.first_due(&target.probe);
    harness.until(first + 7 * SECOND).await;
    let (_, backs_off) = harness.last_reported("p");
    assert!(backs_off, "the backoff is reported");
    assert!(harness.entries("p").iter().any(|entry| matches!(entry.event, Event::PersistWait(Some(_)))));
    // From second 5 on a minute, the maximum here, and at most a tenth of jitter, so the slot at
    // second 60 is skipped.
    harness.until(first + 110 * SECOND).await;
    assert_eq!(harness.account(&target.probe).runs, 1);
    harness.until(first + 130 * SECOND).await;
    let account = harness.account(&target.probe);
    assert_eq!((account.runs, account.overrun), (2, 0), "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn rechecks_end_before_the_next_slot() {
    use Reason::{Timeout, Unavailable};
    fn slow(attempt: usize) -> Step {
        Step { lasts: if attempt == 3 { MINUTE } else { LASTS }, ..failed(Unavailable) }
    }
    // Cut off shortly before the slot, 31.99 s after the end of the first run.
    let found = after_the_first_run(&target(32 * SECOND, slow)).await;
    check(&found, &[(Unavailable, 5.0), (Unavailable, 15.0)]);
    let harness = Harness::start(&UNLIMITED, vec![target(32 * SECOND, slow)]);
    harness.until(80 * SECOND).await;
    let cut = harness.entries("p").into_iter().find_map(|entry| match entry.event {
        Event::Rechecked(outcome) if outcome.recheck == Some(3) => Some(outcome.reason),
        _ => None,
    });
    assert_eq!(cut, Some(Timeout));
    // With less than a second left it does not begin.
    let found = after_the_first_run(&target(SECOND * 305 / 10, down)).await;
    check(&found, &[(Unavailable, 5.0), (Unavailable, 15.0)]);
}

#[tokio::test(start_paused = true)]
async fn reload_that_changes_the_probe_ends_rechecks() {
    let unchanged = target(MINUTE, down);
    let mut harness = Harness::start(&UNLIMITED, vec![unchanged.clone()]);
    let first = harness.first_due(&unchanged.probe);
    harness.until(first + 7 * SECOND).await;
    harness.scheduler.apply(&UNLIMITED, vec![target(MINUTE, down)]);
    harness.until(first + 20 * SECOND).await;
    let changed =
        Probe { timeout: SECOND, recheck: Some(GUIDE), ..probe("p", &provider("corp", "k"), MINUTE) };
    harness.scheduler.apply(&UNLIMITED, vec![with(changed, down)]);
    harness.until(first + 50 * SECOND).await;
    let events = harness.entries("p").into_iter();
    assert_eq!(events.filter(|entry| matches!(entry.event, Event::Rechecked(_))).count(), 2);
    let (next_run, backs_off) = harness.last_reported("p");
    assert!(!backs_off && next_run > harness.anchor.timestamp(tokio::time::Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn next_run_is_reported_during_rechecks() {
    let target = target(MINUTE, down);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    harness.until(harness.first_due(&target.probe) + 7 * SECOND).await;
    let (next_run, _) = harness.last_reported("p");
    assert!(next_run > harness.anchor.timestamp(tokio::time::Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn clock_step_between_rechecks_is_reported() {
    let target = target(MINUTE, down);
    let mut harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    harness.until(harness.first_due(&target.probe) + 7 * SECOND).await;
    let (before, _) = harness.last_reported("p");
    harness.work.set_clock(3600);
    assert!(harness.scheduler.check_wall_clock().is_some());
    harness.until(harness.first_due(&target.probe) + 8 * SECOND).await;
    assert_eq!(harness.last_reported("p").0, before.plus(3600 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn panic_ends_rechecks() {
    fn broken(attempt: usize) -> Step {
        if attempt == 1 { Step { lasts: LASTS, result: None } } else { down(attempt) }
    }
    let found = after_the_first_run(&target(MINUTE, broken)).await;
    check(&found, &[(Reason::Internal, 5.0)]);
}
