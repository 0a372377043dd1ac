//! Tests of all workers together, on paused time.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};

use super::harness::{
    Account, Entry, Harness, MINUTE, SECOND, ScriptedWork, Step, TIMER, UNLIMITED, at_provider, ok, probe,
    provider, quick, target, with,
};
use crate::{
    config::{Probe, Schedule},
    outcome::{Detail, Fault, Outcome, Reason},
    schedule::{
        Event,
        plan::{Plan, Timestamp},
    },
};

#[tokio::test(start_paused = true)]
async fn thousand_probes_start_in_their_slots() {
    let targets: Vec<_> = (0..1000).map(|n| target(&format!("p{n}"), SECOND, quick)).collect();
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(MINUTE).await;
    for target in targets {
        let account = harness.account(&target.probe);
        assert!((59..=60).contains(&account.runs), "{account:?}");
        assert!(account.max_lag < TIMER, "{account:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_slot_of_a_day_is_run_or_skipped() {
    fn moody(run: usize) -> Step {
        let reasons = [Reason::RateLimited, Reason::Ok, Reason::Overloaded, Reason::Timeout, Reason::Billing];
        // Durations without a common factor, so that all combinations occur during the day.
        let lasts = Duration::from_millis(37 + 4999 * (run as u64 % 13));
        let hint = run.is_multiple_of(7).then_some((run % 11) as f64 * 17.5);
        Step { lasts, result: Some((reasons[run % reasons.len()], hint)) }
    }
    let limits = Schedule { max_concurrent: 6, max_concurrent_per_provider: 3, max_backoff: 10 * MINUTE };
    let providers = ["a", "b", "c"];
    let targets: Vec<_> = (0..12_u32)
        .map(|n| {
            let interval = SECOND * (20 + 7 * n);
            at_provider(&format!("p{n}"), providers[n as usize % 3], interval, moody)
        })
        .collect();
    let harness = Harness::start(&limits, targets.clone());
    harness.until(24 * 60 * MINUTE).await;
    let mut total = Account::default();
    for target in targets {
        let account = harness.account(&target.probe);
        assert!(account.runs > 50, "{account:?}");
        assert!(account.max_lag <= 5 * SECOND, "{account:?}");
        total.backoff += account.backoff;
        total.overrun += account.overrun;
        total.concurrency += account.concurrency;
    }
    // All causes have occurred.
    assert!(total.backoff > 100 && total.overrun > 100 && total.concurrency > 100, "{total:?}");
}

#[tokio::test(start_paused = true)]
async fn overloaded_schedule_admits_by_due_time() {
    let limits = Schedule { max_concurrent: 1, ..UNLIMITED };
    let targets: Vec<_> = (0..6)
        .map(|n| at_provider(&format!("p{n}"), ["a", "b"][n % 2], SECOND, |_| ok(Duration::from_millis(110))))
        .collect();
    let harness = Harness::start(&limits, targets.clone());
    harness.until(MINUTE).await;
    for target in targets {
        let account = harness.account(&target.probe);
        assert!(account.runs > 30 && account.max_lag <= SECOND / 4, "{account:?}");
    }
    let mut in_flight = 0;
    let mut last_due = harness.anchor.monotonic;
    let mut held_back = 0;
    for entry in harness.work.all() {
        match entry.event {
            Event::Started { lag } => {
                in_flight += 1;
                assert!(entry.at - lag + TIMER >= last_due, "{} ran before earlier slots", entry.name);
                last_due = entry.at - lag;
                held_back += u32::from(lag > TIMER);
            }
            Event::Finished(_) => in_flight -= 1,
            _ => {}
        }
        assert!(in_flight <= 1);
    }
    assert!(held_back > 30, "{held_back}");
}

#[tokio::test(start_paused = true)]
async fn permit_after_the_latest_start_is_not_used() {
    let tight = Schedule { max_concurrent: 1, ..UNLIMITED };
    let moment = Duration::from_micros(50);
    for (too_late, runs) in [(false, 1), (true, 0)] {
        let held = target("held", 20 * SECOND, quick);
        let targets = vec![target("long", SECOND, |_| ok(30 * SECOND)), Arc::clone(&held)];
        let mut harness = Harness::start(&tight, targets.clone());
        let latest = harness.anchor.monotonic + harness.first_due(&held.probe) + 5 * SECOND;
        harness.until(harness.first_due(&held.probe) + 4 * SECOND).await;
        let turn = if too_late { latest + moment } else { latest - moment };
        advance(turn - Instant::now()).await;
        harness.scheduler.apply(&UNLIMITED, targets);
        sleep(TIMER).await;
        let account = harness.account(&held.probe);
        assert_eq!((account.runs, account.concurrency), (runs, 1 - runs), "{too_late}");
        assert!(account.max_lag <= 5 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn run_without_permit_is_skipped_once_per_slot() {
    let limits = Schedule { max_concurrent_per_provider: 1, ..UNLIMITED };
    let blocker = target("blocker", MINUTE, |_| ok(30 * SECOND));
    let held = target("held", SECOND, quick);
    let free = at_provider("free", "other", SECOND, quick);
    let targets = vec![Arc::clone(&blocker), Arc::clone(&held), Arc::clone(&free)];
    let harness = Harness::start(&limits, targets);
    let start = harness.first_due(&blocker.probe);
    harness.until(start + 40 * SECOND).await;
    let account = harness.account(&held.probe);
    assert!((29..=30).contains(&account.concurrency), "{account:?}");
    assert_eq!((account.overrun, account.backoff), (0, 0));
    let account = harness.account(&free.probe);
    assert_eq!(account.concurrency, 0);
    assert!(account.max_lag < TIMER, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn slots_during_a_long_run_are_skipped() {
    let slow = target("slow", SECOND, |_| ok(Duration::from_millis(2500)));
    let harness = Harness::start(&UNLIMITED, vec![Arc::clone(&slow)]);
    let first = harness.first_due(&slow.probe);
    harness.until(first + Duration::from_millis(59_900)).await;
    let expected = Account { runs: 20, overrun: 40, ..Account::default() };
    let account = harness.account(&slow.probe);
    assert_eq!(Account { max_lag: Duration::ZERO, ..account }, expected);
    assert!(account.max_lag < TIMER, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn timeout_equal_to_interval_skips_no_slot() {
    let silent =
        target("silent", 10 * SECOND, |_| Step { lasts: 10 * SECOND, result: Some((Reason::Timeout, None)) });
    let harness = Harness::start(&UNLIMITED, vec![Arc::clone(&silent)]);
    harness.until(60 * MINUTE).await;
    let account = harness.account(&silent.probe);
    assert!(account.overrun <= 10 && account.runs >= 350, "{account:?}");
    assert!(account.max_lag <= Duration::from_millis(250), "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn process_stall_is_followed_by_no_burst() {
    let targets: Vec<_> = (0..20).map(|n| target(&format!("p{n}"), SECOND, quick)).collect();
    let harness = Harness::start(&UNLIMITED, targets.clone());
    harness.until(5 * SECOND).await;
    advance(100 * SECOND).await;
    harness.until(110 * SECOND).await;
    for target in targets {
        let account = harness.account(&target.probe);
        assert!((99..=100).contains(&account.overrun), "{account:?}");
        assert!((9..=11).contains(&account.runs), "{account:?}");
        assert!(account.max_lag <= SECOND / 4, "{account:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hint_is_respected_and_reported() {
    fn limited_once(run: usize) -> Step {
        let result = if run == 0 { (Reason::RateLimited, Some(10.0)) } else { (Reason::Ok, None) };
        Step { lasts: Duration::from_millis(10), result: Some(result) }
    }
    let limited = target("limited", SECOND, limited_once);
    let harness = Harness::start(&UNLIMITED, vec![Arc::clone(&limited)]);
    let first = harness.first_due(&limited.probe);
    let start = harness.anchor.epoch();
    yield_now().await;
    assert_eq!(harness.last_reported("limited"), (start.plus(first), false));
    harness.until(first + SECOND / 2).await;
    let (next_run, backing_off) = harness.last_reported("limited");
    assert!(backing_off);
    // 10.01 s and up to a second of jitter after the slot, with slots each second: all but the last
    // are skipped.
    let wait = next_run.since(start.plus(first));
    assert!(wait == 11 * SECOND || wait == 12 * SECOND, "{wait:?}");
    let skipped = wait.as_secs() - 1;
    harness.until(first + SECOND * skipped as u32 + SECOND / 2).await;
    assert_eq!(harness.last_reported("limited"), (next_run, true));
    let account = harness.account(&limited.probe);
    assert_eq!((account.runs, account.backoff), (1, skipped));
    harness.until(first + wait + SECOND / 2).await;
    assert_eq!(harness.last_reported("limited"), (next_run.plus(SECOND), false));
    let account = harness.account(&limited.probe);
    assert_eq!((account.runs, account.backoff), (2, skipped));
}

fn always_limited(_run: usize) -> Step {
    Step { lasts: Duration::from_millis(10), result: Some((Reason::RateLimited, Some(1e300))) }
}

#[tokio::test(start_paused = true)]
async fn reload_ends_backoff_of_changed_probes_only() {
    let make = |key: &str| {
        let same = target("same", SECOND, always_limited);
        let other_key = with(probe("other-key", &provider("corp", key), SECOND), always_limited);
        vec![same, other_key]
    };
    let mut harness = Harness::start(&UNLIMITED, make("first"));
    harness.until(2 * SECOND).await;
    let before = harness.last_reported("same");
    assert!(before.1 && harness.last_reported("other-key").1);
    let targets = make("second");
    harness.scheduler.apply(&UNLIMITED, targets.clone());
    harness.until(2 * SECOND + TIMER).await;
    assert_eq!(harness.last_reported("same"), before);
    // The new target, which may have other series, receives events too.
    assert!(Arc::ptr_eq(&harness.entries("same").last().unwrap().target, &targets[0]));
    let (next_run, backing_off) = harness.last_reported("other-key");
    assert!(!backing_off);
    assert!(next_run.since(harness.anchor.timestamp(Instant::now())) <= SECOND);
    harness.until(10 * SECOND).await;
    let probes = targets.iter().map(|target| harness.account(&target.probe).runs);
    assert_eq!(probes.collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn reloads_keep_slots_and_never_overlap_runs() {
    // Runs of up to 0.9 s and a reload each second, so that some reload comes during a run.
    fn long(run: usize) -> Step {
        ok(Duration::from_millis(100 * (run as u64 % 10)))
    }
    let names: Vec<_> = (0..20).map(|n| format!("p{n}")).collect();
    let make = |second: u64| -> Vec<_> {
        let present = names.iter().enumerate().filter(|(n, _)| n % 4 != 3 || second.is_multiple_of(2));
        let targets = present.map(|(n, name)| match n % 4 {
            // The same configuration as a new target, or with a changing timeout.
            1 => with(
                Probe {
                    timeout: SECOND / (2 + second as u32 % 2),
                    ..probe(name, &provider("corp", "k"), SECOND)
                },
                long,
            ),
            // A different interval each time.
            2 => target(name, SECOND * (1 + second as u32 % 3), long),
            // The last of four is removed and added again.
            _ => target(name, SECOND, long),
        });
        targets.collect()
    };
    let mut harness = Harness::start(&UNLIMITED, make(0));
    for second in 1..=300 {
        harness.until(SECOND * second).await;
        harness.scheduler.apply(&UNLIMITED, make(second.into()));
    }
    for (n, target) in make(0).iter().enumerate() {
        if n % 4 < 2 {
            let account = harness.account(&target.probe);
            assert!((299..=300).contains(&account.runs), "{n}: {account:?}");
            assert!(account.max_lag < TIMER, "{n}: {account:?}");
        }
        let mut running = false;
        for Entry { event, at, target, .. } in harness.entries(&target.probe.name) {
            match event {
                Event::Started { lag } => {
                    assert!(!running, "{n}");
                    running = true;
                    let plan = Plan::new(&target.probe.name, target.probe.interval);
                    let due = harness.anchor.timestamp(at).minus(lag);
                    assert_eq!(plan.due(plan.first_from(due)), due, "{n}: not a slot");
                }
                Event::Finished(_) => running = false,
                _ => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn removed_probe_finishes_its_run() {
    let slow = || target("slow", SECOND, |_| ok(10 * SECOND));
    let idle = || target("idle", MINUTE, quick);
    let mut harness = Harness::start(&UNLIMITED, vec![slow(), idle()]);
    let probe = Arc::clone(&slow().probe);
    let first = harness.first_due(&probe);
    harness.until(first + SECOND / 2).await;
    harness.scheduler.apply(&UNLIMITED, Vec::new());
    harness.until(first + 5 * SECOND).await;
    harness.scheduler.apply(&UNLIMITED, vec![slow()]);
    harness.until(first + 9 * SECOND).await;
    assert_eq!(harness.account(&probe).runs, 1);
    harness.until(first + 12 * SECOND).await;
    assert_eq!(harness.account(&probe).runs, 2);
    // Now removed permanently: the second run ends and is reported, and none follows.
    harness.scheduler.apply(&UNLIMITED, Vec::new());
    harness.until(first + 2 * MINUTE).await;
    let finished = harness.entries("slow").pop().unwrap();
    assert!(matches!(finished.event, Event::Finished(_)), "{:?}", finished.event);
    assert!(finished.at < harness.anchor.monotonic + first + 22 * SECOND);
    assert!(harness.entries("idle").iter().all(|entry| matches!(entry.event, Event::Waiting { .. })));
}

#[tokio::test(start_paused = true)]
async fn reload_applies_limits_and_keeps_the_queue() {
    let make = |provider: &str| {
        let blocker = target("blocker", 4 * MINUTE, |_| ok(20 * SECOND));
        vec![blocker, at_provider("held", provider, 20 * SECOND, quick)]
    };
    let tight = Schedule { max_concurrent_per_provider: 1, ..UNLIMITED };
    for (limits, provider, released) in
        [(&tight, "corp", false), (&UNLIMITED, "corp", true), (&tight, "other", true)]
    {
        let mut harness = Harness::start(&tight, make("corp"));
        let held = Arc::clone(&make("corp")[1].probe);
        // The first slot of the waiting probe during the run of the blocker.
        let blocked = harness.first_due(&make("corp")[0].probe);
        let plan = Plan::new(&held.name, held.interval);
        let start = harness.anchor.epoch();
        let due = plan.due(plan.first_after(start.plus(blocked))).since(start);
        assert!(
            due + 6 * SECOND < blocked + 20 * SECOND,
            "unsuitable offsets of the names: {blocked:?} {due:?}"
        );
        harness.until(due + 2 * SECOND).await;
        let before = harness.account(&held).runs;
        harness.scheduler.apply(limits, make(provider));
        harness.until(due + 3 * SECOND).await;
        assert_eq!(harness.account(&held).runs - before, u64::from(released), "{provider}");
        harness.until(due + 6 * SECOND).await;
        assert_eq!(harness.account(&held).concurrency, u64::from(!released), "{provider}");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_in_run_is_an_outcome() {
    fn panics_first(run: usize) -> Step {
        let step = ok(SECOND / 10);
        if run == 0 { Step { result: None, ..step } } else { step }
    }
    let harness = Harness::start(&UNLIMITED, vec![target("p", SECOND, panics_first)]);
    harness.until(5 * SECOND).await;
    let outcomes: Vec<_> = harness
        .entries("p")
        .into_iter()
        .filter_map(|entry| if let Event::Finished(outcome) = entry.event { Some(outcome) } else { None })
        .collect();
    assert_eq!((outcomes[0].reason, outcomes[0].fault), (Reason::Internal, Fault::Prober));
    assert_eq!(outcomes[0].detail, Some(Detail::Panicked));
    assert!(outcomes[0].duration >= SECOND / 10);
    assert!(outcomes.len() >= 4 && outcomes[1..].iter().all(Outcome::success));
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_runs_until_the_deadline() {
    #[track_caller]
    fn check(
        aborted: usize,
        took: Duration,
        expected: (usize, Duration),
        finished: usize,
        harness: &ScriptedWork,
    ) {
        assert_eq!(aborted, expected.0);
        assert!(took >= expected.1 && took < expected.1 + SECOND, "{took:?}");
        let entries = harness.all();
        let count = entries.iter().filter(|entry| matches!(entry.event, Event::Finished(_))).count();
        assert_eq!(count, finished);
    }
    for (grace, aborted, finished) in [(MINUTE, 0, 2), (5 * SECOND, 1, 1), (Duration::ZERO, 2, 0)] {
        // Two runs in flight, one of which ends within 5 s, and a sleeping probe.
        let targets = vec![
            target("short", SECOND, |_| ok(4 * SECOND)),
            target("long", SECOND, |_| ok(30 * SECOND)),
            target("sleeping", 1000 * MINUTE, quick),
        ];
        let harness = Harness::start(&UNLIMITED, targets);
        harness.until(SECOND).await;
        let (work, stopped) = (Arc::clone(&harness.work), Instant::now());
        let count = harness.scheduler.stop(stopped + grace).await;
        let took = if aborted == 0 { 29 * SECOND } else { grace };
        check(count, stopped.elapsed(), (aborted, took), finished, &work);
        let reported = work.all().len();
        sleep(2 * MINUTE).await;
        assert_eq!(work.all().len(), reported, "a run continued");
    }
}

#[tokio::test(start_paused = true)]
async fn stop_starts_no_waiting_run() {
    let limits = Schedule { max_concurrent: 1, ..UNLIMITED };
    for grace in [MINUTE, Duration::ZERO] {
        let held = target("held", 20 * SECOND, quick);
        let targets = vec![target("long", SECOND, |_| ok(30 * SECOND)), Arc::clone(&held)];
        let mut harness = Harness::start(&limits, targets.clone());
        let due = harness.first_due(&held.probe);
        assert!(due > SECOND, "unsuitable offset of the name: {due:?}");
        harness.until(due + SECOND).await;
        // It is admitted at the moment of the stop.
        harness.scheduler.apply(&UNLIMITED, targets);
        let work = Arc::clone(&harness.work);
        let aborted = harness.scheduler.stop(Instant::now() + grace).await;
        assert_eq!(aborted, usize::from(grace.is_zero()));
        let entries = work.all();
        let started = entries.iter().filter(|entry| matches!(entry.event, Event::Started { .. }));
        assert_eq!(started.map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["long"]);
    }
}

#[tokio::test(start_paused = true)]
async fn reload_keeps_the_order_of_the_queue() {
    let limits = Schedule { max_concurrent: 1, ..UNLIMITED };
    // Each waits up to 5 s for the run of the probe that was due first.
    let make = || -> Vec<_> {
        let interval = 1000 * SECOND;
        (0..400).map(|n| target(&format!("p{n}"), interval, |_| ok(SECOND * 3 / 2))).collect()
    };
    let mut harness = Harness::start(&limits, make());
    for second in 1..=100 {
        harness.until(SECOND * second).await;
        // The order of the file differs from the order of arrival.
        let mut targets = make();
        targets.rotate_left(second as usize * 3);
        harness.scheduler.apply(&limits, targets);
    }
    let entries = harness.work.all();
    let dues: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry.event {
            Event::Started { lag } => Some(entry.at - lag),
            _ => None,
        })
        .collect();
    assert!(dues.len() > 20, "{}", dues.len());
    assert!(dues.windows(2).all(|pair| pair[0] <= pair[1] + TIMER), "admitted out of order");
}

/// Returns the starts of a probe's runs, relative to the start of the scheduler.
fn starts(harness: &Harness, name: &str) -> Vec<Duration> {
    let started = |entry: Entry| {
        matches!(entry.event, Event::Started { .. }).then(|| entry.at - harness.anchor.monotonic)
    };
    harness.entries(name).into_iter().filter_map(started).collect()
}

#[tokio::test(start_paused = true)]
async fn clock_step_moves_reported_times_but_no_run() {
    const DAY: i64 = 86_400;
    let make = || vec![target("p", MINUTE, quick), target("limited", MINUTE, always_limited)];
    let undisturbed = Harness::start(&UNLIMITED, make());
    undisturbed.until(20 * MINUTE).await;
    let expected = starts(&undisturbed, "p");
    drop(undisturbed);

    let mut harness = Harness::start(&UNLIMITED, make());
    let mut was = 0;
    // From the third minute on, when the other probe waits.
    for (set, minute) in [DAY, -DAY, 0, 7, -7, 400 * DAY].into_iter().zip(3..) {
        harness.until(MINUTE * minute).await;
        assert_eq!(harness.scheduler.check_wall_clock(), None, "no step");
        let before = ["p", "limited"].map(|name| harness.last_reported(name));
        harness.work.set_clock(set);
        let jump = set - mem::replace(&mut was, set);
        assert_eq!(harness.scheduler.check_wall_clock(), Some(jump as f64));
        sleep(TIMER).await;
        for (name, (next_run, backing_off)) in ["p", "limited"].into_iter().zip(before) {
            let moved = next_run.0.checked_add_signed(jump * 1_000_000_000).unwrap();
            assert_eq!(harness.last_reported(name), (Timestamp(moved), backing_off), "{name} by {jump} s");
        }
    }
    harness.until(20 * MINUTE).await;
    assert_eq!(starts(&harness, "p"), expected);
    for target in make() {
        harness.account(&target.probe);
    }
}

#[tokio::test(start_paused = true)]
async fn clock_drift_is_reported_with_the_next_run() {
    let mut harness = Harness::start(&UNLIMITED, vec![target("p", MINUTE, quick)]);
    harness.until(SECOND / 10).await;
    let before = harness.entries("p").len();
    for _ in 0..100 {
        assert_eq!(harness.scheduler.check_wall_clock(), None);
    }
    sleep(TIMER).await;
    assert_eq!(harness.entries("p").len(), before);
}

#[tokio::test(start_paused = true)]
async fn worker_restarts_after_a_panic() {
    let trapped = target("trapped", SECOND, quick);
    let other = target("other", SECOND, quick);
    let mut harness = Harness::start(&UNLIMITED, vec![Arc::clone(&trapped), Arc::clone(&other)]);
    // At any point of the loop: asleep, in a run, or just after one. Each panic is over before the
    // next.
    for round in 0..14_u32 {
        harness.until(SECOND * 3 * round + SECOND / 14 * round).await;
        harness.work.trap.store(true, Ordering::Relaxed);
    }
    harness.until(MINUTE).await;
    let all = harness.work.all();
    let restarts = all.iter().filter(|entry| matches!(entry.event, Event::Restarted)).count();
    assert!(restarts >= 12, "{restarts}");
    for target in [trapped, other] {
        let name = &target.probe.name;
        let late = starts(&harness, name).into_iter().filter(|start| *start > 45 * SECOND).count();
        assert!((14..=15).contains(&late), "{name}: {late}");
    }
    harness.scheduler.apply(&UNLIMITED, Vec::new());
    assert_eq!(harness.scheduler.stop(Instant::now() + MINUTE).await, 0, "no permit is lost");
}
