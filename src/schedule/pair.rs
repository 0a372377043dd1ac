//! Two probes that run as a pair: at the same due times, one after the other, in random order.
//!
//! Each has its worker as any other, with waits, limits and turns of its own. They meet here: who goes second at a due
//! time waits until the first has run or was held back, and learns what the first found. Nobody waits for a probe that
//! has no worker, is not there in time, takes longer than it may, or has passed the due time over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::plan::{Moment, hash};
use crate::{
    config::{Comparison, Probe},
    outcome::{Compared, Measure, Pair, Side},
};

/// Where the two sides of each comparison find each other.
#[derive(Debug, Default)]
pub(super) struct Meetings(Mutex<HashMap<Arc<Comparison>, Weak<Meeting>>>);

/// How far each side has come; `None`: it has no worker.
#[derive(Debug, Default)]
struct Meeting {
    gateway: watch::Sender<Option<Progress>>,
    direct: watch::Sender<Option<Progress>>,
}

impl Meeting {
    fn side(&self, side: Side) -> &watch::Sender<Option<Progress>> {
        match side {
            Side::Gateway => &self.gateway,
            Side::Direct => &self.direct,
        }
    }
}

/// What one side has done with its due times.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The first due time that is neither run nor skipped.
    next: u64,
    /// The run in flight, and when it ends at the latest.
    running: Option<(u64, Moment)>,
    /// The run that ended last, and what it found.
    ended: Option<(u64, Measure)>,
}

/// What a run that may begin is given on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cue {
    /// Since when it should begin: its due time, or when the other side was done.
    pub(super) since: Moment,
    /// When it begins at the latest, however long it waits for the other side and for a place together.
    pub(super) latest: Moment,
    /// What the other side found at the same due time; `None`: this one is the first, or alone.
    pub(super) other: Option<Measure>,
}

/// What a side is to do at a due time, as far as the other one tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    /// To wait: the other one runs, until then at the latest.
    After(Moment),
    /// To wait: the other one has still to come.
    Wait,
    /// To run; with what the other one found at this due time, if it was there.
    Now(Option<Measure>),
}

impl Meetings {
    /// The probe's place in its comparison, with all due times before `next` passed; `None`: it is in none.
    pub(super) fn seat(&self, probe: &Probe, next: u64) -> Option<Seat> {
        let comparison = probe.comparison.as_ref()?;
        // Nothing panics while it is held.
        let mut meetings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meeting = meetings.get(comparison).and_then(Weak::upgrade).unwrap_or_else(|| {
            meetings.retain(|_, meeting| meeting.strong_count() > 0);
            let meeting = Arc::default();
            meetings.insert(Arc::clone(comparison), Arc::downgrade(&meeting));
            meeting
        });
        let side = comparison.side(&probe.name);
        meeting.side(side).send_replace(Some(Progress { next, ..Progress::default() }));
        let other = meeting.side(side.other()).subscribe();
        Some(Seat { comparison: Arc::clone(comparison), side, meeting, other })
    }
}

/// One probe's place in its comparison. Dropped, the other side no longer waits for it.
#[derive(Debug)]
pub(super) struct Seat {
    comparison: Arc<Comparison>,
    side: Side,
    meeting: Arc<Meeting>,
    other: watch::Receiver<Option<Progress>>,
}

impl Seat {
    /// What a run's outcome says of the comparison: the run, and the one before it at the same due time.
    pub(super) fn compared(&self, run: Measure, other: Option<Measure>) -> Compared {
        Compared {
            comparison: self.comparison.name.clone(),
            side: self.side,
            pair: other.map(|other| Pair::new(self.side, run, other)),
        }
    }

    /// All due times before `next` are run or skipped.
    pub(super) fn passed(&self, next: u64) {
        self.note(|progress| progress.next = next);
    }

    /// Run `number` begins, and ends then at the latest.
    pub(super) fn begins(&self, number: u64, end: Moment) {
        self.note(|progress| (progress.next, progress.running) = (number + 1, Some((number, end))));
    }

    /// Run `number` has ended.
    pub(super) fn ended(&self, number: u64, measure: Measure) {
        self.note(|progress| (progress.running, progress.ended) = (None, Some((number, measure))));
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.meeting.side(self.side).send_modify(|progress| change(progress.get_or_insert_default()));
    }

    /// What to do at due time `number`.
    pub(super) fn turn(&mut self, number: u64) -> Turn {
        let other = *self.other.borrow_and_update();
        if first(&self.comparison.name, number) == self.side {
            return Turn::Now(None);
        }
        match other {
            Some(Progress { running: Some((running, end)), .. }) if running == number => Turn::After(end),
            Some(Progress { ended: Some((ended, measure)), .. }) if ended == number => {
                Turn::Now(Some(measure))
            }
            Some(Progress { next, .. }) if next <= number => Turn::Wait,
            Some(_) | None => Turn::Now(None),
        }
    }

    /// Returns when the other side has done something, or at the latest then.
    pub(super) async fn changed(&mut self, latest: Instant) {
        // In time or not: what there is to do, the next look tells.
        let _ = timeout_at(latest, self.other.changed()).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.meeting.side(self.side).send_replace(None);
    }
}

/// Who goes first at a due time. Both sides draw the same, without a word to each other.
fn first(comparison: &str, number: u64) -> Side {
    if hash(&format!("{comparison} {number}")).is_multiple_of(2) { Side::Gateway } else { Side::Direct }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::Schedule,
        outcome::{Outcome, PairVerdict, Reason},
        schedule::{
            Event,
            stage::{
                MINUTE, SECOND, Script, Step, TIMER, Target, Theatre, UNLIMITED, at_provider, ok, probe,
                provider, quick, with,
            },
        },
    };

    /// The two probes of a comparison, each with a provider of its own.
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

    /// The finished runs of a probe in a comparison.
    fn runs(theatre: &Theatre, name: &str) -> Vec<Run> {
        let mut begun = None;
        let mut runs = Vec::new();
        for entry in theatre.entries(name) {
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
    async fn a_pair_runs_back_to_back_in_either_order_at_the_due_times_of_the_gateways_probe() {
        const MS: Duration = Duration::from_millis(1);
        let targets = pair(SECOND, |_| ok(180 * MS), |_| ok(100 * MS));
        let theatre = Theatre::open(&UNLIMITED, targets.clone());
        let due = theatre.first_due(&targets[0].probe);
        theatre.until(due + 599 * SECOND + SECOND / 2).await;
        let [gateway, direct] = ["by-gateway", "direct"].map(|name| runs(&theatre, name));
        assert_eq!((gateway.len(), direct.len()), (600, 600));
        let mut gateway_first = 0;
        for (number, (gateway, direct)) in (0..).zip(gateway.iter().zip(&direct)) {
            let [first, second] =
                if gateway.begun < direct.begun { [gateway, direct] } else { [direct, gateway] };
            gateway_first += u32::from(first.compared.side == Side::Gateway);
            let due = theatre.anchor.monotonic + due + SECOND * number;
            assert!(first.begun >= due && first.begun < due + TIMER && first.lag < TIMER);
            assert_eq!((second.begun, second.lag), (first.ended, Duration::ZERO));
            assert_eq!(first.compared.pair, None);
            let Pair { gateway, direct } = second.compared.pair.unwrap();
            assert_eq!((gateway.duration, direct.duration), (180 * MS, 100 * MS));
        }
        assert!((250..350).contains(&gateway_first), "{gateway_first}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_held_back_by_a_wait_leaves_the_other_alone_and_in_time() {
        fn limited_once(run: usize) -> Step {
            let result = (run == 0).then_some((Reason::RateLimited, Some(60.0)));
            Step { result: result.or(Some((Reason::Ok, None))), ..quick(run) }
        }
        for who in [0, 1] {
            let mut scripts: [Script; 2] = [quick, quick];
            scripts[who] = limited_once;
            let targets = pair(10 * SECOND, scripts[0], scripts[1]);
            let theatre = Theatre::open(&UNLIMITED, targets.clone());
            theatre.until(theatre.first_due(&targets[0].probe) + 2 * MINUTE + SECOND).await;
            let [waiting, other] = [who, 1 - who].map(|who| runs(&theatre, &targets[who].probe.name));
            // At 0 s, and from 70 s (60 s and up to a tenth) on.
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
    async fn who_finds_no_place_leaves_the_other_alone() {
        let limits = Schedule { max_concurrent_per_provider: 1, ..UNLIMITED };
        for (who, name) in [(0, "by-gateway"), (1, "direct")] {
            let mut targets = pair(20 * SECOND, quick, quick);
            // It holds the provider's only place for most of the time.
            targets.push(at_provider("blocker", name, MINUTE, |_| ok(59 * SECOND)));
            let theatre = Theatre::open(&limits, targets.clone());
            theatre.until(20 * MINUTE).await;
            let [held, other] = [who, 1 - who].map(|who| runs(&theatre, &targets[who].probe.name));
            assert!(held.len() <= 21, "{}", held.len());
            assert!((59..=60).contains(&other.len()), "{}", other.len());
            assert!(pairs(&held) + pairs(&other) <= held.len());
            // It waits no longer than the other one may be late, and only where that one would have been first.
            let late = other.iter().filter(|run| run.lag >= TIMER).count();
            assert!((10..=40).contains(&late), "{late}");
            assert!(other.iter().all(|run| run.lag <= 5 * SECOND + TIMER));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_later_than_a_run_may_be_for_waiting_twice() {
        let limits = Schedule { max_concurrent_per_provider: 1, ..UNLIMITED };
        let mut targets = pair(20 * SECOND, quick, quick);
        // Each side waits for its provider's place, too, which is free for four seconds at ever other times.
        for (name, provider) in [("blocker-g", "by-gateway"), ("blocker-d", "direct")] {
            targets.push(at_provider(name, provider, 21 * SECOND, |_| ok(17 * SECOND)));
        }
        let theatre = Theatre::open(&limits, targets.clone());
        theatre.until(120 * MINUTE).await;
        let lags =
            targets[..2].iter().flat_map(|target| runs(&theatre, &target.probe.name)).map(|run| run.lag);
        let most = lags.max().unwrap();
        assert!((4 * SECOND..=5 * SECOND + TIMER).contains(&most), "{most:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_place_for_all_is_enough_for_a_pair() {
        let limits = Schedule { max_concurrent: 1, ..UNLIMITED };
        let theatre = Theatre::open(&limits, pair(SECOND, quick, quick));
        theatre.until(MINUTE).await;
        let [gateway, direct] = ["by-gateway", "direct"].map(|name| runs(&theatre, name));
        assert!(gateway.len() >= 59 && direct.len() >= 59);
        assert_eq!(pairs(&gateway) + pairs(&direct), gateway.len().min(direct.len()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_other_says_when_its_turn_comes_at_the_latest() {
        let targets = pair(MINUTE, |_| ok(20 * SECOND), |_| ok(20 * SECOND));
        let theatre = Theatre::open(&UNLIMITED, targets.clone());
        let due = theatre.first_due(&targets[0].probe);
        for number in 0..8 {
            let due = due + MINUTE * number;
            theatre.until(due + 10 * SECOND).await;
            let told = ["by-gateway", "direct"].map(|name| theatre.told(name).0);
            let due = theatre.anchor.moment(theatre.anchor.monotonic + due);
            let (first, second) = (told[0].min(told[1]), told[0].max(told[1]));
            assert_eq!(first, due);
            let turn = second.since(due);
            assert!(turn >= 30 * SECOND && turn < 30 * SECOND + TIMER, "{turn:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_parts_and_joins_probes_also_while_one_waits() {
        let joined = pair(MINUTE, |_| ok(20 * SECOND), |_| ok(20 * SECOND));
        let alone: Vec<_> = joined
            .iter()
            .map(|target| {
                let name = &target.probe.name;
                let timeout = target.probe.timeout;
                with(Probe { timeout, ..probe(name, &provider(name, "k"), MINUTE) }, target.script)
            })
            .collect();
        let mut theatre = Theatre::open(&UNLIMITED, joined.clone());
        let due = theatre.first_due(&joined[0].probe);
        theatre.until(due + 10 * SECOND).await;
        theatre.scheduler.apply(&UNLIMITED, alone);
        theatre.until(due + 5 * MINUTE + 10 * SECOND).await;
        let parted = theatre.stage.all();
        let of = |name: &str| {
            parted
                .iter()
                .filter(|entry| entry.name == name && matches!(entry.event, Event::Started { .. }))
                .count()
        };
        // Five runs each on the grid of its own, and the one that was in flight.
        assert!(of("by-gateway") >= 5 && of("direct") >= 5);
        let last = theatre.entries("direct").into_iter().rev().find_map(|entry| match entry.event {
            Event::Finished(outcome) => Some(outcome),
            _ => None,
        });
        assert_eq!(last.unwrap().compared, None);
        theatre.scheduler.apply(&UNLIMITED, joined);
        let before = theatre.stage.all().len();
        theatre.until(due + 10 * MINUTE + 50 * SECOND).await;
        let verdicts =
            theatre.stage.all().split_off(before).into_iter().filter_map(|entry| match entry.event {
                Event::Finished(outcome) => outcome.compared?.pair.map(|pair| pair.verdict()),
                _ => None,
            });
        assert_eq!(verdicts.collect::<Vec<_>>(), [PairVerdict::Ok; 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_a_run_may_take() {
        let targets = pair(MINUTE, |_| ok(50 * SECOND), quick);
        let theatre = Theatre::open(&UNLIMITED, targets.clone());
        theatre.until(theatre.first_due(&targets[0].probe) + 1199 * SECOND).await;
        let [gateway, direct] = ["by-gateway", "direct"].map(|name| runs(&theatre, name));
        assert_eq!((gateway.len(), direct.len()), (20, 20));
        // Its timeout of 30 s and four of the 5 s that a run may be late; where the quick one is first, there is a pair.
        let alone: Vec<_> = direct.iter().filter(|run| run.lag >= TIMER).collect();
        assert!(!alone.is_empty() && alone.len() < 20);
        let patience = 34 * SECOND..34 * SECOND + 2 * TIMER;
        assert!(alone.iter().all(|run| run.compared.pair.is_none() && patience.contains(&run.lag)));
        assert_eq!(pairs(&gateway) + pairs(&direct), 20 - alone.len());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_probe_that_is_gone() {
        let targets = pair(10 * SECOND, quick, quick);
        let mut theatre = Theatre::open(&UNLIMITED, targets.clone());
        theatre.until(theatre.first_due(&targets[0].probe) + SECOND).await;
        theatre.scheduler.apply(&UNLIMITED, targets[1..].to_vec());
        theatre.until(10 * MINUTE).await;
        let direct = runs(&theatre, "direct");
        assert!(direct.len() >= 59, "{}", direct.len());
        assert!(direct.iter().all(|run| run.lag < TIMER));
        assert!(pairs(&direct) <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_first_and_does_not_begin_the_second() {
        let targets = pair(MINUTE, |_| ok(20 * SECOND), |_| ok(20 * SECOND));
        let theatre = Theatre::open(&UNLIMITED, targets.clone());
        theatre.until(theatre.first_due(&targets[0].probe) + 10 * SECOND).await;
        let Theatre { stage, scheduler, .. } = theatre;
        assert_eq!(scheduler.stop(Instant::now() + MINUTE).await, 0);
        let started = stage.all().iter().filter(|entry| matches!(entry.event, Event::Started { .. })).count();
        assert_eq!(started, 1);
    }
}
