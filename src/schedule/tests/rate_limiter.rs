//! Tests of providers with a rate limit, on paused time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::harness::{
    Entry, Harness, MINUTE, SECOND, Script, Step, Target, UNLIMITED, ok, probe, provider, quick, with,
};
use crate::{
    config::{Probe, Provider, Recheck, Schedule, Task},
    outcome::{Reason, SkipCause},
    schedule::{Anchor, Event},
};

fn paced(pace: u32) -> Arc<Provider> {
    let provider = Arc::into_inner(provider("corp", "k")).unwrap();
    Arc::new(Provider { requests_per_minute: Some(pace), ..provider })
}

fn targets(count: usize, pace: u32, interval: Duration, script: Script) -> Vec<Arc<Target>> {
    let provider = paced(pace);
    (0..count).map(|n| with(probe(&format!("p{n}"), &provider, interval), script)).collect()
}

/// Returns the start times of runs, in order.
fn starts(harness: &Harness) -> Vec<Instant> {
    let entries = harness.work.all().into_iter();
    entries.filter(|entry| matches!(entry.event, Event::Started { .. })).map(|entry| entry.at).collect()
}

/// Checks that no more runs began in any minute, including both of its ends.
#[track_caller]
fn check_windows(starts: &[Instant], pace: usize) {
    for window in starts.windows(pace + 1) {
        let apart = window[pace] - window[0];
        assert!(apart > MINUTE, "{} runs within {apart:?}", pace + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn schedule_below_the_rate_limit_skips_nothing() {
    // Twelve per minute, at any offsets.
    let targets = targets(10, 12, MINUTE, quick);
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(30 * MINUTE).await;
    for target in targets {
        let account = harness.account(&target.probe);
        assert!((29..=30).contains(&account.runs) && account.pacing == 0, "{account:?}");
    }
    check_windows(&starts(&harness), 12);
}

/// Runs probes of equal intervals with a limit below their number. Returns the number of runs of
/// each.
async fn shares(probes: usize, pace: u32, interval: Duration, script: Script) -> (Vec<u64>, usize) {
    let targets = targets(probes, pace, interval, script);
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(60 * MINUTE).await;
    let starts = starts(&harness);
    check_windows(&starts, pace as usize);
    let mut runs = Vec::new();
    for target in targets {
        let account = harness.account(&target.probe);
        assert!(account.max_lag <= (interval / 4).min(5 * SECOND), "{account:?}");
        assert!(account.pacing > 0, "{account:?}");
        runs.push(account.runs);
    }
    (runs, starts.len())
}

#[tokio::test(start_paused = true)]
async fn overload_is_shared_equally() {
    fn slow(run: usize) -> Step {
        ok(Duration::from_millis(1 + 700 * (run as u64 % 9)))
    }
    let cases = [
        (2, 1, MINUTE),
        (3, 2, MINUTE),
        (20, 10, MINUTE),
        (40, 10, MINUTE),
        (30, 20, 10 * SECOND),
        (100, 60, 30 * SECOND),
        (7, 1, 20 * SECOND),
        (40, 10, 3 * MINUTE),
    ];
    for (probes, pace, interval) in cases {
        for script in [quick as Script, slow] {
            let (runs, all) = shares(probes, pace, interval, script).await;
            let (least, most) = (runs.iter().min().unwrap(), runs.iter().max().unwrap());
            let share = all as f64 / probes as f64;
            println!(
                "{probes} probes each {interval:?} at {pace} a minute: {all} runs, {least} to {most} a probe"
            );
            // A share is not always an integer.
            let (floor, ceiling) = (share.floor() - 1.0, share.ceil() + 1.0);
            assert!(*least as f64 >= floor && *most as f64 <= ceiling, "{share}: {runs:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn overload_with_different_intervals_starves_no_probe() {
    let provider = paced(4);
    let intervals = [5, 10, 30, 60, 120].map(|seconds| SECOND * seconds);
    let targets: Vec<_> = intervals
        .iter()
        .map(|interval| with(probe(&format!("p{}", interval.as_secs()), &provider, *interval), quick))
        .collect();
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(120 * MINUTE).await;
    let runs: Vec<_> = targets.iter().map(|target| harness.account(&target.probe).runs).collect();
    println!("{runs:?}");
    // Each has most of an equal share, or of its own rate if that is lower.
    let share = 4.0 * 120.0 / 5.0;
    for (runs, interval) in runs.iter().zip(intervals) {
        let asked = 120.0 * 60.0 / interval.as_secs_f64();
        assert!(*runs as f64 >= 0.6 * asked.min(share), "{runs} with {interval:?}");
    }
    check_windows(&starts(&harness), 4);
}

#[tokio::test(start_paused = true)]
async fn rate_limited_run_starts_late_or_is_skipped() {
    // The bucket has a size of five, and gains one token each 3 s.
    let harness = Harness::start(&UNLIMITED, targets(40, 20, MINUTE, quick));
    harness.until(5 * MINUTE).await;
    let lags = harness.work.all().into_iter().filter_map(|entry| match entry.event {
        Event::Started { lag } => Some(lag),
        _ => None,
    });
    let most = lags.max().unwrap();
    assert!((3 * SECOND..=5 * SECOND).contains(&most), "{most:?}");
    let skipped = harness.work.all().into_iter().filter_map(|entry| match entry.event {
        Event::Skipped { cause, runs } => Some((cause, runs)),
        _ => None,
    });
    assert!(
        skipped.clone().count() > 50
            && skipped.clone().all(|(cause, runs)| (cause, runs) == (SkipCause::Pacing, 1))
    );
}

#[tokio::test(start_paused = true)]
async fn reload_keeps_the_request_count() {
    let mut harness = Harness::start(&UNLIMITED, targets(30, 10, 20 * SECOND, quick));
    for reload in 1..=90 {
        harness.until(SECOND * 7 * reload).await;
        harness.scheduler.apply(&UNLIMITED, targets(30, 10, 20 * SECOND, quick));
    }
    check_windows(&starts(&harness), 10);
    // Without a limit, every slot is a run.
    let unpaced =
        || (0..30).map(|n| with(probe(&format!("p{n}"), &provider("corp", "k"), 20 * SECOND), quick));
    harness.scheduler.apply(&UNLIMITED, unpaced().collect());
    let before = starts(&harness).len();
    harness.until(11 * MINUTE).await;
    let minutes = (11.0 * 60.0 - 630.0) / 20.0;
    let runs = (starts(&harness).len() - before) as f64;
    assert!((runs - 30.0 * minutes).abs() <= 30.0, "{runs} runs");
}

#[tokio::test(start_paused = true)]
async fn repeated_restarts_keep_the_rate_limit() {
    let (first, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 30_000_000 * MINUTE);
    for (probes, pace, interval) in [(40, 10, MINUTE), (3, 2, 10 * SECOND), (30, 20, 5 * SECOND)] {
        let mut targets = targets(probes, pace, interval, quick);
        let mut all = Vec::new();
        for life in 1..=100 {
            let anchor = Anchor { monotonic: Instant::now(), wall: wall + first.elapsed() };
            let harness = Harness::start_at(anchor, &UNLIMITED, targets.clone(), None);
            harness.until(SECOND * (life * 7 % 17)).await;
            all.extend(starts(&harness));
            targets = targets.iter().map(|target| after_restart(&harness, target)).collect();
        }
        check_windows(&all, pace as usize);
        println!(
            "{probes} probes each {interval:?} at {pace} a minute: {} runs in {:?}",
            all.len(),
            first.elapsed()
        );
        assert!(all.len() > 3 * pace as usize, "runs continue: {}", all.len());
    }
}

/// Returns the target as a new process creates it from the persisted state.
fn after_restart(harness: &Harness, target: &Target) -> Arc<Target> {
    let started = |entry: &Entry| matches!(entry.event, Event::Started { .. });
    let last = harness.entries(&target.probe.name).into_iter().rfind(started);
    let last_run = last.map(|last| harness.anchor.wall + (last.at - harness.anchor.monotonic));
    let Target { probe, script, .. } = target;
    let last_run = last_run.or(target.last_run);
    Arc::new(Target { probe: Arc::clone(probe), script: *script, wait: None, last_run })
}

#[tokio::test(start_paused = true)]
async fn checks_without_requests_are_not_rate_limited() {
    let provider = paced(1);
    let network = || Probe { task: Task::Network, ..probe("network", &provider, SECOND) };
    let targets = vec![with(network(), quick), with(probe("auth", &provider, SECOND), quick)];
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(10 * MINUTE).await;
    assert!(harness.account(&targets[0].probe).runs >= 599);
    assert!((9..=10).contains(&harness.account(&targets[1].probe).runs));
}

#[tokio::test(start_paused = true)]
async fn rate_limited_provider_delays_no_other() {
    let limits = Schedule { max_concurrent: 1, ..UNLIMITED };
    let mut all = targets(20, 1, SECOND, quick);
    let other = with(probe("other", &provider("other", "k"), SECOND), quick);
    all.push(other.clone());
    let harness = Harness::start(&limits, all);
    harness.until(5 * MINUTE).await;
    let account = harness.account(&other.probe);
    assert!(account.runs >= 299 && account.max_lag < Duration::from_millis(30), "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn rechecks_count_as_requests() {
    fn down(_run: usize) -> Step {
        Step { lasts: SECOND / 100, result: Some((Reason::Unavailable, None)) }
    }
    let recheck = Some(Recheck { after: SECOND, step: Duration::ZERO, times: 10 });
    let provider = paced(8);
    let target = with(Probe { recheck, ..probe("p", &provider, 20 * SECOND) }, down);
    let harness = Harness::start(&UNLIMITED, vec![target.clone()]);
    harness.until(20 * MINUTE).await;
    let mut begun: Vec<Instant> = harness
        .work
        .all()
        .into_iter()
        .filter(|entry| matches!(entry.event, Event::Finished(_) | Event::Rechecked(_)))
        .map(|entry| entry.at)
        .collect();
    begun.sort();
    assert!(begun.len() >= 8 * 19, "{}", begun.len());
    check_windows(&begun, 8);
}
