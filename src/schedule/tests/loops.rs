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

use super::stage::{
    Account, Entry, MINUTE, SECOND, Stage, Step, TIMER, Theatre, UNLIMITED, at_provider, ok, probe, provider,
    quick, target, with,
};
use crate::{
    config::{Probe, Schedule},
    outcome::{Fault, Outcome, Reason},
    schedule::{
        Event,
        plan::{Moment, Plan},
    },
};

#[tokio::test(start_paused = true)]
async fn thousand_probes_start_in_their_slots() {
    let targets: Vec<_> = (0..1000).map(|n| target(&format!("p{n}"), SECOND, quick)).collect();
    let theatre = Theatre::open(&UNLIMITED, targets.clone());
    theatre.until(MINUTE).await;
    for target in targets {
        let account = theatre.account(&target.probe);
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
    let theatre = Theatre::open(&limits, targets.clone());
    theatre.until(24 * 60 * MINUTE).await;
    let mut total = Account::default();
    for target in targets {
        let account = theatre.account(&target.probe);
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
    let theatre = Theatre::open(&limits, targets.clone());
    theatre.until(MINUTE).await;
    for target in targets {
        let account = theatre.account(&target.probe);
        assert!(account.runs > 30 && account.max_lag <= SECOND / 4, "{account:?}");
    }
    let mut in_flight = 0;
    let mut last_due = theatre.anchor.monotonic;
    let mut held_back = 0;
    for entry in theatre.stage.all() {
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
        let mut theatre = Theatre::open(&tight, targets.clone());
        let latest = theatre.anchor.monotonic + theatre.first_due(&held.probe) + 5 * SECOND;
        theatre.until(theatre.first_due(&held.probe) + 4 * SECOND).await;
        let turn = if too_late { latest + moment } else { latest - moment };
        advance(turn - Instant::now()).await;
        theatre.scheduler.apply(&UNLIMITED, targets);
        sleep(TIMER).await;
        let account = theatre.account(&held.probe);
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
    let theatre = Theatre::open(&limits, targets);
    let start = theatre.first_due(&blocker.probe);
    theatre.until(start + 40 * SECOND).await;
    let account = theatre.account(&held.probe);
    assert!((29..=30).contains(&account.concurrency), "{account:?}");
    assert_eq!((account.overrun, account.backoff), (0, 0));
    let account = theatre.account(&free.probe);
    assert_eq!(account.concurrency, 0);
    assert!(account.max_lag < TIMER, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn slots_during_a_long_run_are_skipped() {
    let slow = target("slow", SECOND, |_| ok(Duration::from_millis(2500)));
    let theatre = Theatre::open(&UNLIMITED, vec![Arc::clone(&slow)]);
    let first = theatre.first_due(&slow.probe);
    theatre.until(first + Duration::from_millis(59_900)).await;
    let expected = Account { runs: 20, overrun: 40, ..Account::default() };
    let account = theatre.account(&slow.probe);
    assert_eq!(Account { max_lag: Duration::ZERO, ..account }, expected);
    assert!(account.max_lag < TIMER, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn timeout_equal_to_interval_skips_no_slot() {
    let silent =
        target("silent", 10 * SECOND, |_| Step { lasts: 10 * SECOND, result: Some((Reason::Timeout, None)) });
    let theatre = Theatre::open(&UNLIMITED, vec![Arc::clone(&silent)]);
    theatre.until(60 * MINUTE).await;
    let account = theatre.account(&silent.probe);
    assert!(account.overrun <= 10 && account.runs >= 350, "{account:?}");
    assert!(account.max_lag <= Duration::from_millis(250), "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn process_stall_is_followed_by_no_burst() {
    let targets: Vec<_> = (0..20).map(|n| target(&format!("p{n}"), SECOND, quick)).collect();
    let theatre = Theatre::open(&UNLIMITED, targets.clone());
    theatre.until(5 * SECOND).await;
    advance(100 * SECOND).await;
    theatre.until(110 * SECOND).await;
    for target in targets {
        let account = theatre.account(&target.probe);
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
    let theatre = Theatre::open(&UNLIMITED, vec![Arc::clone(&limited)]);
    let first = theatre.first_due(&limited.probe);
    let start = theatre.anchor.epoch();
    yield_now().await;
    assert_eq!(theatre.told("limited"), (start.plus(first), false));
    theatre.until(first + SECOND / 2).await;
    let (next_run, backing_off) = theatre.told("limited");
    assert!(backing_off);
    // 10.01 s and up to a second of jitter after the slot, with slots each second: all but the last
    // are skipped.
    let wait = next_run.since(start.plus(first));
    assert!(wait == 11 * SECOND || wait == 12 * SECOND, "{wait:?}");
    let skipped = wait.as_secs() - 1;
    theatre.until(first + SECOND * skipped as u32 + SECOND / 2).await;
    assert_eq!(theatre.told("limited"), (next_run, true));
    let account = theatre.account(&limited.probe);
    assert_eq!((account.runs, account.backoff), (1, skipped));
    theatre.until(first + wait + SECOND / 2).await;
    assert_eq!(theatre.told("limited"), (next_run.plus(SECOND), false));
    let account = theatre.account(&limited.probe);
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
    let mut theatre = Theatre::open(&UNLIMITED, make("first"));
    theatre.until(2 * SECOND).await;
    let before = theatre.told("same");
    assert!(before.1 && theatre.told("other-key").1);
    let targets = make("second");
    theatre.scheduler.apply(&UNLIMITED, targets.clone());
    theatre.until(2 * SECOND + TIMER).await;
    assert_eq!(theatre.told("same"), before);
    // The new target, which may have other series, receives events too.
    assert!(Arc::ptr_eq(&theatre.entries("same").last().unwrap().target, &targets[0]));
    let (next_run, backing_off) = theatre.told("other-key");
    assert!(!backing_off);
    assert!(next_run.since(theatre.anchor.moment(Instant::now())) <= SECOND);
    theatre.until(10 * SECOND).await;
    let probes = targets.iter().map(|target| theatre.account(&target.probe).runs);
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
    let mut theatre = Theatre::open(&UNLIMITED, make(0));
    for second in 1..=300 {
        theatre.until(SECOND * second).await;
        theatre.scheduler.apply(&UNLIMITED, make(second.into()));
    }
    for (n, target) in make(0).iter().enumerate() {
        if n % 4 < 2 {
            let account = theatre.account(&target.probe);
            assert!((299..=300).contains(&account.runs), "{n}: {account:?}");
            assert!(account.max_lag < TIMER, "{n}: {account:?}");
        }
        let mut running = false;
        for Entry { event, at, target, .. } in theatre.entries(&target.probe.name) {
            match event {
                Event::Started { lag } => {
                    assert!(!running, "{n}");
                    running = true;
                    let plan = Plan::new(&target.probe.name, target.probe.interval);
                    let due = theatre.anchor.moment(at).minus(lag);
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
    let mut theatre = Theatre::open(&UNLIMITED, vec![slow(), idle()]);
    let probe = Arc::clone(&slow().probe);
    let first = theatre.first_due(&probe);
    theatre.until(first + SECOND / 2).await;
    theatre.scheduler.apply(&UNLIMITED, Vec::new());
    theatre.until(first + 5 * SECOND).await;
    theatre.scheduler.apply(&UNLIMITED, vec![slow()]);
    theatre.until(first + 9 * SECOND).await;
    assert_eq!(theatre.account(&probe).runs, 1);
    theatre.until(first + 12 * SECOND).await;
    assert_eq!(theatre.account(&probe).runs, 2);
    // Now removed permanently: the second run ends and is reported, and none follows.
    theatre.scheduler.apply(&UNLIMITED, Vec::new());
    theatre.until(first + 2 * MINUTE).await;
    let finished = theatre.entries("slow").pop().unwrap();
    assert!(matches!(finished.event, Event::Finished(_)), "{:?}", finished.event);
    assert!(finished.at < theatre.anchor.monotonic + first + 22 * SECOND);
    assert!(theatre.entries("idle").iter().all(|entry| matches!(entry.event, Event::Waiting { .. })));
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
        let mut theatre = Theatre::open(&tight, make("corp"));
        let held = Arc::clone(&make("corp")[1].probe);
        // The first slot of the waiting probe during the run of the blocker.
        let blocked = theatre.first_due(&make("corp")[0].probe);
        let plan = Plan::new(&held.name, held.interval);
        let start = theatre.anchor.epoch();
        let due = plan.due(plan.first_after(start.plus(blocked))).since(start);
        assert!(
            due + 6 * SECOND < blocked + 20 * SECOND,
            "unsuitable offsets of the names: {blocked:?} {due:?}"
        );
        theatre.until(due + 2 * SECOND).await;
        let before = theatre.account(&held).runs;
        theatre.scheduler.apply(limits, make(provider));
        theatre.until(due + 3 * SECOND).await;
        assert_eq!(theatre.account(&held).runs - before, u64::from(released), "{provider}");
        theatre.until(due + 6 * SECOND).await;
        assert_eq!(theatre.account(&held).concurrency, u64::from(!released), "{provider}");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_in_run_is_an_outcome() {
    fn panics_first(run: usize) -> Step {
        let step = ok(SECOND / 10);
        if run == 0 { Step { result: None, ..step } } else { step }
    }
    let theatre = Theatre::open(&UNLIMITED, vec![target("p", SECOND, panics_first)]);
    theatre.until(5 * SECOND).await;
    let outcomes: Vec<_> = theatre
        .entries("p")
        .into_iter()
        .filter_map(|entry| if let Event::Finished(outcome) = entry.event { Some(outcome) } else { None })
        .collect();
    assert_eq!((outcomes[0].reason, outcomes[0].fault), (Reason::Internal, Fault::Prober));
    assert_eq!(outcomes[0].detail, "the run panicked");
    assert!(outcomes[0].duration >= SECOND / 10);
    assert!(outcomes.len() >= 4 && outcomes[1..].iter().all(Outcome::success));
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_runs_until_the_deadline() {
    #[track_caller]
    fn check(aborted: usize, took: Duration, expected: (usize, Duration), finished: usize, theatre: &Stage) {
        assert_eq!(aborted, expected.0);
        assert!(took >= expected.1 && took < expected.1 + SECOND, "{took:?}");
        let entries = theatre.all();
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
        let theatre = Theatre::open(&UNLIMITED, targets);
        theatre.until(SECOND).await;
        let (stage, stopped) = (Arc::clone(&theatre.stage), Instant::now());
        let count = theatre.scheduler.stop(stopped + grace).await;
        let took = if aborted == 0 { 29 * SECOND } else { grace };
        check(count, stopped.elapsed(), (aborted, took), finished, &stage);
        let reported = stage.all().len();
        sleep(2 * MINUTE).await;
        assert_eq!(stage.all().len(), reported, "a run continued");
    }
}

#[tokio::test(start_paused = true)]
async fn stop_starts_no_waiting_run() {
    let limits = Schedule { max_concurrent: 1, ..UNLIMITED };
    for grace in [MINUTE, Duration::ZERO] {
        let held = target("held", 20 * SECOND, quick);
        let targets = vec![target("long", SECOND, |_| ok(30 * SECOND)), Arc::clone(&held)];
        let mut theatre = Theatre::open(&limits, targets.clone());
        let due = theatre.first_due(&held.probe);
        assert!(due > SECOND, "unsuitable offset of the name: {due:?}");
        theatre.until(due + SECOND).await;
        // It is admitted at the moment of the stop.
        theatre.scheduler.apply(&UNLIMITED, targets);
        let stage = Arc::clone(&theatre.stage);
        let aborted = theatre.scheduler.stop(Instant::now() + grace).await;
        assert_eq!(aborted, usize::from(grace.is_zero()));
        let entries = stage.all();
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
    let mut theatre = Theatre::open(&limits, make());
    for second in 1..=100 {
        theatre.until(SECOND * second).await;
        // The order of the file differs from the order of arrival.
        let mut targets = make();
        targets.rotate_left(second as usize * 3);
        theatre.scheduler.apply(&limits, targets);
    }
    let entries = theatre.stage.all();
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
fn starts(theatre: &Theatre, name: &str) -> Vec<Duration> {
    let started = |entry: Entry| {
        matches!(entry.event, Event::Started { .. }).then(|| entry.at - theatre.anchor.monotonic)
    };
    theatre.entries(name).into_iter().filter_map(started).collect()
}

#[tokio::test(start_paused = true)]
async fn clock_step_moves_reported_times_but_no_run() {
    const DAY: i64 = 86_400;
    let make = || vec![target("p", MINUTE, quick), target("limited", MINUTE, always_limited)];
    let undisturbed = Theatre::open(&UNLIMITED, make());
    undisturbed.until(20 * MINUTE).await;
    let expected = starts(&undisturbed, "p");
    drop(undisturbed);

    let mut theatre = Theatre::open(&UNLIMITED, make());
    let mut was = 0;
    // From the third minute on, when the other probe waits.
    for (set, minute) in [DAY, -DAY, 0, 7, -7, 400 * DAY].into_iter().zip(3..) {
        theatre.until(MINUTE * minute).await;
        assert_eq!(theatre.scheduler.check_wall_clock(), None, "no step");
        let before = ["p", "limited"].map(|name| theatre.told(name));
        theatre.stage.set_clock(set);
        let jump = set - mem::replace(&mut was, set);
        assert_eq!(theatre.scheduler.check_wall_clock(), Some(jump as f64));
        sleep(TIMER).await;
        for (name, (next_run, backing_off)) in ["p", "limited"].into_iter().zip(before) {
            let moved = next_run.0.checked_add_signed(jump * 1_000_000_000).unwrap();
            assert_eq!(theatre.told(name), (Moment(moved), backing_off), "{name} by {jump} s");
        }
    }
    theatre.until(20 * MINUTE).await;
    assert_eq!(starts(&theatre, "p"), expected);
    for target in make() {
        theatre.account(&target.probe);
    }
}

#[tokio::test(start_paused = true)]
async fn clock_drift_is_reported_with_the_next_run() {
    let mut theatre = Theatre::open(&UNLIMITED, vec![target("p", MINUTE, quick)]);
    theatre.until(SECOND / 10).await;
    let told = theatre.entries("p").len();
    for _ in 0..100 {
        assert_eq!(theatre.scheduler.check_wall_clock(), None);
    }
    sleep(TIMER).await;
    assert_eq!(theatre.entries("p").len(), told);
}

#[tokio::test(start_paused = true)]
async fn worker_restarts_after_a_panic() {
    let trapped = target("trapped", SECOND, quick);
    let other = target("other", SECOND, quick);
    let mut theatre = Theatre::open(&UNLIMITED, vec![Arc::clone(&trapped), Arc::clone(&other)]);
    // At any point of the loop: asleep, in a run, or just after one. Each panic is over before the
    // next.
    for round in 0..14_u32 {
        theatre.until(SECOND * 3 * round + SECOND / 14 * round).await;
        theatre.stage.trap.store(true, Ordering::Relaxed);
    }
    theatre.until(MINUTE).await;
    let all = theatre.stage.all();
    let restarts = all.iter().filter(|entry| matches!(entry.event, Event::Restarted)).count();
    assert!(restarts >= 12, "{restarts}");
    for target in [trapped, other] {
        let name = &target.probe.name;
        let late = starts(&theatre, name).into_iter().filter(|start| *start > 45 * SECOND).count();
        assert!((14..=15).contains(&late), "{name}: {late}");
    }
    theatre.scheduler.apply(&UNLIMITED, Vec::new());
    assert_eq!(theatre.scheduler.stop(Instant::now() + MINUTE).await, 0, "no permit is lost");
}
