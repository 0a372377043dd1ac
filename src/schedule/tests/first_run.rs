//! Tests of extra first runs of probes with long intervals, on paused time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::harness::{
    Harness, MINUTE, SECOND, Script, Step, TIMER, Target, UNLIMITED, ok, probe, provider, quick, target, with,
};
use crate::{
    config::{Comparison, Probe, Provider, Schedule},
    outcome::Reason,
    schedule::{Event, Wait},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Returns the start times of a probe's runs.
fn starts(harness: &Harness, name: &str) -> Vec<Instant> {
    let entries = harness.entries(name).into_iter();
    entries.filter(|entry| matches!(entry.event, Event::Started { .. })).map(|entry| entry.at).collect()
}

/// Returns a target whose last run began that long before the start.
fn last_ran(ago: Duration, interval: Duration) -> Arc<Target> {
    let opens = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_800_000_000_123_456_789);
    let target = target("p", interval, quick);
    Arc::new(Target { probe: Arc::clone(&target.probe), last_run: Some(opens - ago), ..*target })
}

/// Returns the number of runs within two minutes of the start.
async fn early_runs(target: Arc<Target>) -> usize {
    let harness = Harness::start(&UNLIMITED, vec![Arc::clone(&target)]);
    assert!(harness.first_due(&target.probe) > 2 * MINUTE, "the slot of this name is too early");
    harness.until(2 * MINUTE).await;
    starts(&harness, "p").len()
}

#[tokio::test(start_paused = true)]
async fn rare_probe_runs_soon_and_keeps_its_schedule() {
    for interval in [11 * MINUTE, HOUR, DAY, 7 * DAY] {
        let targets: Vec<_> = (0..20).map(|n| target(&format!("p{n}"), interval, quick)).collect();
        let harness = Harness::start(&UNLIMITED, targets.clone());
        harness.until(MINUTE + TIMER).await;
        for target in &targets {
            let begun = starts(&harness, &target.probe.name);
            assert!(!begun.is_empty(), "{interval:?}");
            let next_run = harness.last_reported(&target.probe.name).0;
            let due = harness.anchor.epoch().plus(harness.first_due(&target.probe));
            assert!(next_run == due || due.since(harness.anchor.epoch()) < MINUTE, "{interval:?}");
        }
        harness.until(3 * interval).await;
        for target in &targets {
            let account = harness.account(&target.probe);
            assert!((3..=4).contains(&account.runs) && account.overrun == 0, "{account:?}");
            assert!(account.max_lag <= TIMER, "{account:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn frequent_probe_has_no_extra_first_run() {
    let target = target("p", 10 * MINUTE, quick);
    let harness = Harness::start(&UNLIMITED, vec![Arc::clone(&target)]);
    harness.until(harness.first_due(&target.probe).saturating_sub(SECOND)).await;
    assert_eq!(starts(&harness, "p").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn restart_after_a_recent_run_has_no_first_run() {
    assert_eq!(early_runs(target("p", DAY, quick)).await, 1);
    assert_eq!(early_runs(last_ran(SECOND, DAY)).await, 0);
    assert_eq!(early_runs(last_ran(DAY.saturating_sub(SECOND), DAY)).await, 0);
    assert_eq!(early_runs(last_ran(DAY, DAY)).await, 1, "the prober was down in the last slot");
    // The clock was set back since then.
    let target = last_ran(Duration::ZERO, DAY);
    let ahead = target.last_run.map(|time| time + HOUR);
    let target = Target { probe: Arc::clone(&target.probe), last_run: ahead, ..*target };
    assert_eq!(early_runs(Arc::new(target)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn first_run_respects_backoff_across_a_restart() {
    let opens = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_800_000_000_123_456_789);
    let target = target("p", DAY, quick);
    let wait = Some(Wait { until: Some(opens + HOUR), step: 0 });
    let waiting = Target { probe: Arc::clone(&target.probe), wait, ..*target };
    assert_eq!(early_runs(Arc::new(waiting)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn reload_repeats_first_run_for_another_model_only() {
    let target = target("p", DAY, quick);
    let mut harness = Harness::start(&UNLIMITED, vec![Arc::clone(&target)]);
    harness.until(2 * MINUTE).await;
    assert_eq!(starts(&harness, "p").len(), 1);
    let ran = Some(harness.anchor.wall + MINUTE);
    let again = |probe: Probe, last_run| {
        Arc::new(Target { probe: Arc::new(probe), script: quick, wait: None, last_run })
    };
    let plain = || probe("p", &provider("corp", "k"), DAY);
    let same = again(plain(), ran);
    let slower = again(Probe { timeout: HOUR, ..plain() }, ran);
    let other = again(Probe { model: Some("m".to_owned()), ..plain() }, None);
    for (number, (target, runs)) in (1..).zip([(same, 1), (slower, 1), (other, 2)]) {
        harness.scheduler.apply(&UNLIMITED, vec![target]);
        harness.until(2 * MINUTE * (number + 1)).await;
        assert_eq!(starts(&harness, "p").len(), runs, "reload {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn first_run_without_permit_is_postponed() {
    let corp = Arc::into_inner(provider("corp", "k")).unwrap();
    let paced = Arc::new(Provider { requests_per_minute: Some(1), ..corp });
    let targets: Vec<_> = (0..5).map(|n| with(probe(&format!("p{n}"), &paced, DAY), quick)).collect();
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(10 * MINUTE).await;
    for target in &targets {
        assert_eq!(starts(&harness, &target.probe.name).len(), 1, "{}", target.probe.name);
    }
    let narrow = Schedule { max_concurrent: 1, ..UNLIMITED };
    let rare = target("rare", HOUR, quick);
    let busy = target("busy", 90 * SECOND, |_| ok(89 * SECOND));
    let harness = Harness::start(&narrow, vec![rare, busy]);
    harness.until(HOUR).await;
    assert!(!starts(&harness, "rare").is_empty());
}

#[tokio::test(start_paused = true)]
async fn failed_first_run_keeps_the_schedule() {
    fn fails(run: usize) -> Step {
        Step { result: Some((Reason::RateLimited, None)), ..quick(run) }
    }
    let target = target("p", HOUR, fails);
    let harness = Harness::start(&UNLIMITED, vec![Arc::clone(&target)]);
    harness.until(harness.first_due(&target.probe) + SECOND).await;
    let account = harness.account(&target.probe);
    assert_eq!((account.runs, account.backoff), (2, 0), "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn pair_makes_its_first_run_together() {
    let comparison =
        Arc::new(Comparison { name: "c".into(), gateway: "by-gateway".into(), direct: "direct".into() });
    let side = |name, script: Script| {
        let comparison = Some(Arc::clone(&comparison));
        with(Probe { timeout: MINUTE, comparison, ..probe(name, &provider(name, "k"), DAY) }, script)
    };
    let harness = Harness::start(&UNLIMITED, vec![side("by-gateway", quick), side("direct", quick)]);
    harness.until(MINUTE + SECOND).await;
    let [gateway, direct] = ["by-gateway", "direct"].map(|name| starts(&harness, name)[0]);
    assert!(gateway.max(direct) - gateway.min(direct) <= Duration::from_millis(10) + TIMER);
    let pairs = harness.work.all().into_iter().filter(|entry| match &entry.event {
        Event::Finished(outcome) => outcome.compared.as_ref().unwrap().pair.is_some(),
        _ => false,
    });
    assert_eq!(pairs.count(), 1);
}
