//! Runs of now in the loop of a probe, on paused time.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::stage::{MINUTE, SECOND, Step, TIMER, Theatre, UNLIMITED, ok, target};
use crate::{
    outcome::{Demanded, Reason},
    schedule::{Demand, Event},
};

const LASTS: Duration = Duration::from_secs(2);

fn good(_run: usize) -> Step {
    ok(LASTS)
}

fn limited(_run: usize) -> Step {
    Step { lasts: LASTS, result: Some((Reason::RateLimited, Some(300.0))) }
}

fn ask(theatre: &Theatre, within: Duration) -> oneshot::Receiver<Demanded> {
    let (answer, result) = oneshot::channel();
    theatre.scheduler.demand("p", Demand { deadline: Instant::now() + within, answer });
    result
}

fn demanded(theatre: &Theatre) -> usize {
    theatre.entries("p").iter().filter(|entry| matches!(entry.event, Event::Demanded(_))).count()
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_at_once_share_one_run_and_the_schedule_does_not_move() {
    let target = target("p", MINUTE, good);
    let theatre = Theatre::open(&UNLIMITED, vec![target.clone()]);
    theatre.until(theatre.first_due(&target.probe) + SECOND * 10).await;
    let asked = Instant::now();
    let early = [ask(&theatre, MINUTE), ask(&theatre, MINUTE)];
    sleep(SECOND).await;
    let late = ask(&theatre, MINUTE);
    for result in early.into_iter().chain([late]) {
        let Ok(Demanded::Ran(outcome)) = result.await else { panic!("no run") };
        assert!(outcome.success());
    }
    assert!(asked.elapsed() <= LASTS + TIMER * 3, "{:?}", asked.elapsed());
    assert_eq!(demanded(&theatre), 1);
    theatre.until(theatre.first_due(&target.probe) + MINUTE * 2 + SECOND * 10).await;
    let account = theatre.account(&target.probe);
    assert_eq!((account.runs, account.overrun), (3, 0), "{account:?}");
    assert!(account.max_lag <= TIMER, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn a_due_run_in_flight_or_about_to_begin_is_shared() {
    let target = target("p", MINUTE, good);
    let theatre = Theatre::open(&UNLIMITED, vec![target.clone()]);
    let first = theatre.first_due(&target.probe);
    theatre.until(first + SECOND).await;
    assert!(matches!(ask(&theatre, MINUTE).await, Ok(Demanded::Ran(_))));
    theatre.until(first + Duration::from_millis(59_500)).await;
    assert!(matches!(ask(&theatre, MINUTE).await, Ok(Demanded::Ran(_))));
    assert_eq!((demanded(&theatre), theatre.account(&target.probe).runs), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_run_has_the_time_that_who_asks_has() {
    let target = target("p", MINUTE, good);
    let theatre = Theatre::open(&UNLIMITED, vec![target.clone()]);
    theatre.until(theatre.first_due(&target.probe) + SECOND * 10).await;
    let Ok(Demanded::Ran(outcome)) = ask(&theatre, SECOND).await else { panic!("no run") };
    assert_eq!(outcome.reason, Reason::Timeout);
}

#[tokio::test(start_paused = true)]
async fn who_has_gone_costs_nothing() {
    let target = target("p", MINUTE, good);
    let theatre = Theatre::open(&UNLIMITED, vec![target.clone()]);
    theatre.until(theatre.first_due(&target.probe) + SECOND * 10).await;
    drop(ask(&theatre, MINUTE));
    theatre.until(theatre.first_due(&target.probe) + SECOND * 20).await;
    assert_eq!(demanded(&theatre), 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_waits_is_not_run() {
    use crate::outcome::SkipCause;
    let target = target("p", MINUTE, limited);
    let theatre = Theatre::open(&UNLIMITED, vec![target.clone()]);
    theatre.until(theatre.first_due(&target.probe) + SECOND * 10).await;
    assert!(matches!(ask(&theatre, MINUTE).await, Ok(Demanded::Waits(SkipCause::Backoff))));
    assert_eq!(demanded(&theatre), 0);
    assert!(ask(&Theatre::open(&UNLIMITED, vec![]), MINUTE).await.is_err(), "of a probe that is not there");
}

#[tokio::test(start_paused = true)]
async fn what_it_is_told_to_wait_binds_the_due_runs() {
    let target = target("p", MINUTE, |run| if run == 1 { limited(run) } else { good(run) });
    let theatre = Theatre::open(&UNLIMITED, vec![target.clone()]);
    let first = theatre.first_due(&target.probe);
    theatre.until(first + SECOND * 10).await;
    assert!(matches!(ask(&theatre, MINUTE).await, Ok(Demanded::Ran(_))));
    // A minute is the longest wait here.
    theatre.until(first + SECOND * 110).await;
    assert_eq!((demanded(&theatre), theatre.account(&target.probe).runs), (1, 1));
    assert!(theatre.told("p").1);
    theatre.until(first + SECOND * 130).await;
    assert_eq!(theatre.account(&target.probe).runs, 2);
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_ends_before_the_next_due_time_is_kept_too() {
    fn briefly(run: usize) -> Step {
        let limited = Step { lasts: LASTS, result: Some((Reason::RateLimited, Some(20.0))) };
        [limited, good(1), limited].into_iter().nth(run).unwrap_or(good(run))
    }
    use crate::outcome::SkipCause;
    let waits = |answer| matches!(answer, Ok(Demanded::Waits(SkipCause::Backoff)));
    let target = target("p", MINUTE, briefly);
    let theatre = Theatre::open(&UNLIMITED, vec![target.clone()]);
    let first = theatre.first_due(&target.probe);
    theatre.until(first + SECOND * 10).await;
    assert!(waits(ask(&theatre, MINUTE).await), "a due run was asked to wait");
    // A tenth more at most.
    theatre.until(first + SECOND * 25).await;
    assert!(matches!(ask(&theatre, MINUTE).await, Ok(Demanded::Ran(_))));
    theatre.until(first + SECOND * 30).await;
    assert!(matches!(ask(&theatre, MINUTE).await, Ok(Demanded::Ran(_))));
    theatre.until(first + SECOND * 35).await;
    assert!(waits(ask(&theatre, MINUTE).await), "who asked before was asked to wait");
    theatre.until(first + SECOND * 70).await;
    assert_eq!(theatre.account(&target.probe).runs, 2, "no due run is passed over for it");
}
