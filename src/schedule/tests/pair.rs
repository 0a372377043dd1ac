//! Tests of pairs of probes, on paused time.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::harness::{
    Harness, MINUTE, SECOND, Script, Step, TIMER, Target, UNLIMITED, at_provider, ok, probe, provider, quick,
    with,
};
use crate::{
    config::{Comparison, Probe, Schedule},
    outcome::{Compared, Outcome, Pair, PairVerdict, Reason, Side},
    schedule::Event,
};

/// Returns the two probes of a comparison, each with a provider of its own.
fn pair(interval: Duration, gateway: Script, direct: Script) -> Vec<Arc<Target>> {
    let comparison =
        Arc::new(Comparison { name: "c".into(), gateway: "by-gateway".into(), direct: "direct".into() });
    let target = |name, script| {
        let comparison = Some(Arc::clone(&comparison));
        let timeout = interval / 2;
        with(Probe { timeout, comparison, ..probe(name, &provider(name, "k"), interval) }, script)
    };
    vec![target("by-gateway", gateway), target("direct", direct)]
}

struct Run {
    begun: Instant,
    ended: Instant,
    lag: Duration,
    compared: Compared,
}

/// Returns the finished runs of one probe of a comparison.
fn runs(harness: &Harness, name: &str) -> Vec<Run> {
    let mut begun = None;
    let mut runs = Vec::new();
    for entry in harness.entries(name) {
        match entry.event {
            Event::Started { lag } => begun = Some((entry.at, lag)),
            Event::Finished(Outcome { compared, .. }) => {
                let (begun, lag) = begun.take().unwrap();
                runs.push(Run { begun, ended: entry.at, lag, compared: *compared.unwrap() });
            }
            _ => {}
        }
    }
    runs
}

fn pairs(runs: &[Run]) -> usize {
    runs.iter().filter(|run| run.compared.pair.is_some()).count()
}

#[tokio::test(start_paused = true)]
async fn pair_runs_back_to_back_in_the_gateways_slots() {
    const MS: Duration = Duration::from_millis(1);
    let targets = pair(SECOND, |_| ok(180 * MS), |_| ok(100 * MS));
    let harness = Harness::start(&UNLIMITED, targets.clone());
    let due = harness.first_due(&targets[0].probe);
    harness.until(due + 599 * SECOND + SECOND / 2).await;
    let [gateway, direct] = ["by-gateway", "direct"].map(|name| runs(&harness, name));
    assert_eq!((gateway.len(), direct.len()), (600, 600));
    let mut gateway_first = 0;
    for (number, (gateway, direct)) in (0..).zip(gateway.iter().zip(&direct)) {
        let [first, second] =
            if gateway.begun < direct.begun { [gateway, direct] } else { [direct, gateway] };
        gateway_first += u32::from(first.compared.side == Side::Gateway);
        let due = harness.anchor.monotonic + due + SECOND * number;
        assert!(first.begun >= due && first.begun < due + TIMER && first.lag < TIMER);
        assert_eq!((second.begun, second.lag), (first.ended, Duration::ZERO));
        assert_eq!(first.compared.pair, None);
        let Pair { gateway, direct } = second.compared.pair.unwrap();
        assert_eq!((gateway.duration, direct.duration), (180 * MS, 100 * MS));
    }
    assert!((250..350).contains(&gateway_first), "{gateway_first}");
}

#[tokio::test(start_paused = true)]
async fn probe_in_backoff_does_not_delay_its_pair() {
    fn limited_once(run: usize) -> Step {
        let result = (run == 0).then_some((Reason::RateLimited, Some(60.0)));
        Step { result: result.or(Some((Reason::Ok, None))), ..quick(run) }
    }
    for who in [0, 1] {
        let mut scripts: [Script; 2] = [quick, quick];
        scripts[who] = limited_once;
        let targets = pair(10 * SECOND, scripts[0], scripts[1]);
        let harness = Harness::start(&UNLIMITED, targets.clone());
        harness.until(harness.first_due(&targets[0].probe) + 2 * MINUTE + SECOND).await;
        let [waiting, other] = [who, 1 - who].map(|who| runs(&harness, &targets[who].probe.name));
        // At 0 s, and from 70 s on (60 s and up to a tenth of jitter).
        assert_eq!((waiting.len(), other.len()), (7, 13));
        assert_eq!(pairs(&waiting) + pairs(&other), 7);
        assert!(other.iter().all(|run| run.lag < TIMER));
        let alone = other.iter().filter(|run| {
            !waiting.iter().any(|held| held.begun.max(run.begun) - held.begun.min(run.begun) < SECOND)
        });
        assert!(alone.map(|run| run.compared.pair).all(|pair| pair.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn probe_without_permit_does_not_delay_its_pair() {
    let limits = Schedule { max_concurrent_per_provider: 1, ..UNLIMITED };
    for (who, name) in [(0, "by-gateway"), (1, "direct")] {
        let mut targets = pair(20 * SECOND, quick, quick);
        // It holds the provider's only permit for most of the time.
        targets.push(at_provider("blocker", name, MINUTE, |_| ok(59 * SECOND)));
        let harness = Harness::start(&limits, targets.clone());
        harness.until(20 * MINUTE).await;
        let [held, other] = [who, 1 - who].map(|who| runs(&harness, &targets[who].probe.name));
        assert!(held.len() <= 21, "{}", held.len());
        assert!((59..=60).contains(&other.len()), "{}", other.len());
        assert!(pairs(&held) + pairs(&other) <= held.len());
        // It waits no longer than the other side may be late, and only in slots where that side
        // goes first.
        let late = other.iter().filter(|run| run.lag >= TIMER).count();
        assert!((10..=40).contains(&late), "{late}");
        assert!(other.iter().all(|run| run.lag <= 5 * SECOND + TIMER));
    }
}

#[tokio::test(start_paused = true)]
async fn waits_for_pair_and_permit_share_one_lateness() {
    let limits = Schedule { max_concurrent_per_provider: 1, ..UNLIMITED };
    let mut targets = pair(20 * SECOND, quick, quick);
    // Each side also waits for its provider's permit, which is free for four seconds at varying
    // times.
    for (name, provider) in [("blocker-g", "by-gateway"), ("blocker-d", "direct")] {
        targets.push(at_provider(name, provider, 21 * SECOND, |_| ok(17 * SECOND)));
    }
    let harness = Harness::start(&limits, targets.clone());
    harness.until(120 * MINUTE).await;
    let lags = targets[..2].iter().flat_map(|target| runs(&harness, &target.probe.name)).map(|run| run.lag);
    let most = lags.max().unwrap();
    assert!((4 * SECOND..=5 * SECOND + TIMER).contains(&most), "{most:?}");
}

#[tokio::test(start_paused = true)]
async fn single_permit_is_enough_for_a_pair() {
    let limits = Schedule { max_concurrent: 1, ..UNLIMITED };
    let harness = Harness::start(&limits, pair(SECOND, quick, quick));
    harness.until(MINUTE).await;
    let [gateway, direct] = ["by-gateway", "direct"].map(|name| runs(&harness, name));
    assert!(gateway.len() >= 59 && direct.len() >= 59);
    assert_eq!(pairs(&gateway) + pairs(&direct), gateway.len().min(direct.len()));
}

#[tokio::test(start_paused = true)]
async fn second_of_pair_reports_its_latest_start() {
    let targets = pair(MINUTE, |_| ok(20 * SECOND), |_| ok(20 * SECOND));
    let harness = Harness::start(&UNLIMITED, targets.clone());
    let due = harness.first_due(&targets[0].probe);
    for number in 0..8 {
        let due = due + MINUTE * number;
        harness.until(due + 10 * SECOND).await;
        let reported = ["by-gateway", "direct"].map(|name| harness.last_reported(name).0);
        let due = harness.anchor.timestamp(harness.anchor.monotonic + due);
        let (first, second) = (reported[0].min(reported[1]), reported[0].max(reported[1]));
        assert_eq!(first, due);
        let turn = second.since(due);
        assert!(turn >= 30 * SECOND && turn < 30 * SECOND + TIMER, "{turn:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reload_splits_and_joins_pairs() {
    let joined = pair(MINUTE, |_| ok(20 * SECOND), |_| ok(20 * SECOND));
    let alone: Vec<_> = joined
        .iter()
        .map(|target| {
            let name = &target.probe.name;
            let timeout = target.probe.timeout;
            with(Probe { timeout, ..probe(name, &provider(name, "k"), MINUTE) }, target.script)
        })
        .collect();
    let mut harness = Harness::start(&UNLIMITED, joined.clone());
    let due = harness.first_due(&joined[0].probe);
    harness.until(due + 10 * SECOND).await;
    harness.scheduler.apply(&UNLIMITED, alone);
    harness.until(due + 5 * MINUTE + 10 * SECOND).await;
    let parted = harness.work.all();
    let of = |name: &str| {
        parted
            .iter()
            .filter(|entry| entry.name == name && matches!(entry.event, Event::Started { .. }))
            .count()
    };
    // Five runs each in their own slots, and the one that was in flight.
    assert!(of("by-gateway") >= 5 && of("direct") >= 5);
    let last = harness.entries("direct").into_iter().rev().find_map(|entry| match entry.event {
        Event::Finished(outcome) => Some(outcome),
        _ => None,
    });
    assert_eq!(last.unwrap().compared, None);
    harness.scheduler.apply(&UNLIMITED, joined);
    let before = harness.work.all().len();
    harness.until(due + 10 * MINUTE + 50 * SECOND).await;
    let verdicts = harness.work.all().split_off(before).into_iter().filter_map(|entry| match entry.event {
        Event::Finished(outcome) => outcome.compared?.pair.map(|pair| pair.verdict()),
        _ => None,
    });
    assert_eq!(verdicts.collect::<Vec<_>>(), [PairVerdict::Ok; 5]);
}

#[tokio::test(start_paused = true)]
async fn second_of_pair_waits_at_most_one_timeout() {
    let targets = pair(MINUTE, |_| ok(50 * SECOND), quick);
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(harness.first_due(&targets[0].probe) + 1199 * SECOND).await;
    let [gateway, direct] = ["by-gateway", "direct"].map(|name| runs(&harness, name));
    assert_eq!((gateway.len(), direct.len()), (20, 20));
    // Its timeout of 30 s and four of the 5 s that a run may be late. If the quick side goes first,
    // there is a pair.
    let alone: Vec<_> = direct.iter().filter(|run| run.lag >= TIMER).collect();
    assert!(!alone.is_empty() && alone.len() < 20);
    let patience = 34 * SECOND..34 * SECOND + 2 * TIMER;
    assert!(alone.iter().all(|run| run.compared.pair.is_none() && patience.contains(&run.lag)));
    assert_eq!(pairs(&gateway) + pairs(&direct), 20 - alone.len());
}

#[tokio::test(start_paused = true)]
async fn removed_probe_does_not_delay_its_pair() {
    let targets = pair(10 * SECOND, quick, quick);
    let mut harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(harness.first_due(&targets[0].probe) + SECOND).await;
    harness.scheduler.apply(&UNLIMITED, targets[1..].to_vec());
    harness.until(10 * MINUTE).await;
    let direct = runs(&harness, "direct");
    assert!(direct.len() >= 59, "{}", direct.len());
    assert!(direct.iter().all(|run| run.lag < TIMER));
    assert!(pairs(&direct) <= 1);
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_first_and_skips_second_of_pair() {
    let targets = pair(MINUTE, |_| ok(20 * SECOND), |_| ok(20 * SECOND));
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(harness.first_due(&targets[0].probe) + 10 * SECOND).await;
    let Harness { work, scheduler, .. } = harness;
    assert_eq!(scheduler.stop(Instant::now() + MINUTE).await, 0);
    let started = work.all().iter().filter(|entry| matches!(entry.event, Event::Started { .. })).count();
    assert_eq!(started, 1);
}
