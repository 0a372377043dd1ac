//! `requests_per_minute`: how many requests a provider's probes may send, and whose turn it is.
//!
//! In no 60 seconds do more of a provider's requests begin than its pace says. A run holds its place from the moment that
//! it is let in until 60 s after its request was on its way, so that this holds as the provider counts it, too. Besides,
//! a bucket of [`BURST`] lets no more than these go at once; it fills evenly.
//!
//! The grid of due times repeats itself: were places given to whoever comes first, a provider with too many probes would
//! always skip the same ones. So the one whose last run was the longest ago goes first, and a place is kept for each probe
//! that was passed over, is due again before the place would be free again, and whose last run is older than that of whoever
//! asks. Each of k probes of one interval has a k-th of the runs so, give or take one. The price is that under overload some
//! places stay empty, since whom they are kept for comes when it is due.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    iter,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use crate::{config::Probe, outcome::Outcome};

/// What a pace counts requests in.
const MINUTE: Duration = Duration::from_secs(60);

/// Requests that may begin at once, after a pause.
const BURST: u32 = 5;

/// How long a request may be on its way to the server, after it was handed to the connection. Later it is as if it had
/// been sent later.
const MOST_ON_THE_WAY: Duration = Duration::from_secs(1);

/// The paces of all providers that have one.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    lanes: Mutex<HashMap<String, Lane>>,
}

/// When a probe's last run was let in, and its name; in the order of who goes first. `None`: there was none.
type Rank = (Option<Instant>, String);

/// What is known of a probe's runs before its provider was paced here.
#[derive(Clone, Copy, Debug)]
struct Runs {
    /// How long ago the last one began; `None`: there was none, as far as is known.
    last: Option<Duration>,
    interval: Duration,
}

impl Runs {
    /// How long ago each of the last minute's may have begun: the last one, and those that were due before it.
    fn of_last_minute(self) -> impl Iterator<Item = Duration> {
        let before = move |age: &Duration| age.checked_add(self.interval);
        iter::successors(self.last, before).take_while(|age| *age <= MINUTE + MOST_ON_THE_WAY)
    }
}

/// The requests of one provider.
#[derive(Debug)]
struct Lane {
    bucket: Bucket,
    /// Probes that wait, each at most once.
    waiting: BTreeMap<Rank, oneshot::Sender<()>>,
    /// By the name of each probe that was let in, when that was the last time.
    last: HashMap<String, Instant>,
    /// Probes that were passed over since their last run.
    passed_over: BTreeSet<Rank>,
    /// By the name of each of them, when it is due again and when that is over.
    due_again: HashMap<String, (Instant, Instant)>,
    /// Tells those that wait that it may be their turn at another time.
    changed: Arc<Notify>,
}

impl Pacing {
    /// Takes over the paces of these probes' providers. What has been sent already still counts, also before a restart:
    /// beside each probe is how long ago its last run began, if that is known.
    pub(super) fn set<'a>(&self, probes: impl Iterator<Item = (&'a Arc<Probe>, Option<Duration>)>) {
        let now = Instant::now();
        let mut names: HashMap<&str, (u32, BTreeMap<&str, Runs>)> = HashMap::new();
        for (probe, last) in probes.filter(|(probe, _)| probe.is_rate_limited()) {
            if let Some(pace) = probe.provider.requests_per_minute {
                let runs = Runs { last, interval: probe.interval };
                names
                    .entry(&probe.provider.name)
                    .or_insert((pace, BTreeMap::new()))
                    .1
                    .insert(&probe.name, runs);
            }
        }
        let mut lanes = self.lock();
        // One that comes back within the minute finds what it had sent.
        lanes.retain(|name, lane| names.contains_key(name.as_str()) || lane.is_used(now));
        for (provider, (pace, probes)) in names {
            let new = || Lane::after(pace, &probes, now);
            let lane = lanes.entry(provider.to_owned()).or_insert_with(new);
            lane.bucket.pace = pace;
            lane.last.retain(|name, _| probes.contains_key(name.as_str()));
            lane.passed_over.retain(|(_, name)| probes.contains_key(name.as_str()));
            lane.due_again.retain(|name, _| probes.contains_key(name.as_str()));
            lane.let_in(now);
            lane.changed.notify_waiters();
        }
    }

    /// Waits until the probe may send a request. Dropping the future gives up the place in the queue.
    pub(super) async fn permit(self: &Arc<Self>, probe: &Probe) -> Permit {
        let Some((mut turn, mut permit)) = self.enter(probe) else { return Permit(None) };
        let changed = Arc::clone(&permit.changed);
        loop {
            // Before the look, so that no change is missed after it.
            let change = changed.notified();
            let next = self.look(&probe.provider.name);
            select! {
                biased;
                turn = &mut turn => {
                    if turn.is_ok() {
                        permit.state = State::Unused;
                    }
                    // Without a turn the provider has lost its pace by a reload.
                    return Permit(turn.is_ok().then_some(permit));
                }
                () = sleep_until(next) => {}
                () = change => {}
            }
        }
    }

    /// Notes that the probe was not let in before its time was over, and when it is due again.
    pub(super) fn pass_over(&self, probe: &Probe, due: Instant, lateness: Duration) {
        if let Some(lane) = self.lock().get_mut(&probe.provider.name) {
            lane.passed_over.insert(lane.rank(&probe.name));
            lane.due_again.insert(probe.name.clone(), (due, due + lateness));
        }
    }

    /// Queues the probe; `None`: it is not paced.
    fn enter(self: &Arc<Self>, probe: &Probe) -> Option<(oneshot::Receiver<()>, Held)> {
        probe.provider.requests_per_minute.filter(|_| probe.is_rate_limited())?;
        let (sender, turn) = oneshot::channel();
        let mut lanes = self.lock();
        let lane = lanes.get_mut(&probe.provider.name)?;
        let rank = lane.rank(&probe.name);
        lane.waiting.insert(rank.clone(), sender);
        lane.let_in(Instant::now());
        let provider = probe.provider.name.clone();
        let changed = Arc::clone(&lane.changed);
        Some((turn, Held { pacing: Arc::clone(self), provider, changed, rank, state: State::Waiting }))
    }

    /// Lets in whoever may go, and says when to look again.
    fn look(&self, provider: &str) -> Instant {
        let now = Instant::now();
        let mut lanes = self.lock();
        lanes.get_mut(provider).map_or(now + MINUTE, |lane| {
            lane.let_in(now);
            lane.bucket.next_change(now)
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Lane>> {
        // Nothing panics while it is held.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// After a restart, of which no more is known than these probes' last runs.
    fn after(pace: u32, probes: &BTreeMap<&str, Runs>, now: Instant) -> Self {
        let began = |(name, runs): (&&str, &Runs)| Some(((*name).to_owned(), now.checked_sub(runs.last?)?));
        Self {
            bucket: Bucket::after(pace, probes.values(), now),
            waiting: BTreeMap::new(),
            last: probes.iter().filter_map(began).collect(),
            passed_over: BTreeSet::new(),
            due_again: HashMap::new(),
            changed: Arc::default(),
        }
    }

    /// Whether anybody waits, or has sent anything that still counts.
    fn is_used(&mut self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.bucket.is_used(now)
    }

    fn rank(&self, probe: &str) -> Rank {
        (self.last.get(probe).copied(), probe.to_owned())
    }

    /// Lets in whoever may go: the first in rank, as long as there is a place beside those that are kept.
    fn let_in(&mut self, now: Instant) {
        while let Some((rank, _)) = self.waiting.first_key_value() {
            let Free { at_once, in_minute } = self.bucket.free(now);
            let step = self.bucket.step();
            if self.kept_before(rank, now..=now + step, at_once) >= at_once
                || self.kept_before(rank, now..=now + MINUTE, in_minute) >= in_minute
            {
                return;
            }
            let Some((rank, turn)) = self.waiting.pop_first() else { return };
            self.passed_over.remove(&rank);
            self.due_again.remove(&rank.1);
            self.last.insert(rank.1, now);
            self.bucket.take(now);
            // One that has given up in this moment drops its permit next, which gives the place back.
            let _ = turn.send(());
        }
    }

    /// How many places are kept for probes that come before `rank` within this time, counted up to `most`.
    fn kept_before(&self, rank: &Rank, time: RangeInclusive<Instant>, most: u32) -> u32 {
        let comes = |(_, probe): &&Rank| {
            self.due_again.get(probe).is_some_and(|(due, until)| until >= time.start() && due <= time.end())
        };
        let kept = self.passed_over.range(..rank).filter(comes).take(most as usize).count();
        u32::try_from(kept).unwrap_or(most)
    }

    /// Undoes what letting this one in has changed.
    fn give_back(&mut self, rank: &Rank) {
        let (last, name) = rank;
        match last {
            Some(last) => self.last.insert(name.clone(), *last),
            None => self.last.remove(name),
        };
        self.bucket.give_back();
    }
}

/// The permission to send one request, or to do without one where nothing is paced.
#[derive(Debug)]
pub(super) struct Permit(Option<Held>);

#[derive(Debug)]
struct Held {
    pacing: Arc<Pacing>,
    provider: String,
    changed: Arc<Notify>,
    rank: Rank,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the queue.
    Waiting,
    /// Let in; nothing is sent yet.
    Unused,
    /// A run began then.
    Begun(Instant),
    /// The request was at the server by then.
    Sent(Instant),
}

impl Permit {
    /// The run begins: from now on the permit counts as used.
    pub(super) fn begin(&mut self) {
        if let Some(held) = &mut self.0 {
            held.state = State::Begun(Instant::now());
        }
    }

    /// The run is over, and tells when its request was sent.
    pub(super) fn end(mut self, outcome: &Outcome) {
        if let Some(held) = &mut self.0
            && let State::Begun(begun) = held.state
        {
            let phases = outcome.phases;
            let before = phases.resolve + phases.connect + phases.tls;
            let sent = begun + before + phases.processing.min(MOST_ON_THE_WAY);
            // Never later than now, whatever an outcome tells.
            held.state = State::Sent(sent.min(Instant::now()));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut lanes = self.pacing.lock();
        let Some(lane) = lanes.get_mut(&self.provider) else { return };
        match self.state {
            State::Waiting => {
                let waited = lane.waiting.remove(&self.rank).is_some();
                if !waited {
                    lane.give_back(&self.rank);
                }
            }
            State::Unused => lane.give_back(&self.rank),
            // The run was cut off, and may have sent its request a moment ago.
            State::Begun(_) => lane.bucket.sent(now),
            State::Sent(at) => lane.bucket.sent(at),
        }
        lane.let_in(now);
        self.changed.notify_waiters();
    }
}

/// How many requests may begin.
#[derive(Clone, Copy, Debug)]
struct Free {
    /// By the bucket.
    at_once: u32,
    /// By the minute.
    in_minute: u32,
}

/// How many requests of a provider may begin, by the times of those before.
#[derive(Debug)]
struct Bucket {
    /// Requests in a minute, at least 1.
    pace: u32,
    /// Let in, and not known to be at the server.
    in_flight: u32,
    /// When each request of the last minute stops to count.
    counts_until: BinaryHeap<Reverse<Instant>>,
    /// When [`BURST`] may begin at once again.
    full_at: Instant,
}

impl Bucket {
    fn new(pace: u32, now: Instant) -> Self {
        Self { pace, in_flight: 0, counts_until: BinaryHeap::new(), full_at: now }
    }

    /// A bucket after a restart, of which the state tells no more than each probe's last run. Those that were due before
    /// may have been runs too; there were no more than the pace, the latest of which count the longest.
    fn after<'a>(pace: u32, runs: impl Iterator<Item = &'a Runs>, now: Instant) -> Self {
        let mut ages: Vec<_> = runs.flat_map(|runs| runs.of_last_minute()).collect();
        ages.sort_unstable();
        ages.truncate(pace as usize);
        // Each may have been sent as late as that after its run began.
        let until = |age| Reverse(now + (MINUTE + MOST_ON_THE_WAY).saturating_sub(age));
        Self { counts_until: ages.into_iter().map(until).collect(), ..Self::new(pace, now) }
    }

    /// The time in which the bucket fills by one.
    fn step(&self) -> Duration {
        MINUTE / self.pace
    }

    /// How many may begin now.
    fn free(&mut self, now: Instant) -> Free {
        while self.counts_until.peek().is_some_and(|Reverse(until)| *until < now) {
            self.counts_until.pop();
        }
        let counted = u32::try_from(self.counts_until.len()).unwrap_or(u32::MAX);
        let missing = self.full_at.saturating_duration_since(now).as_nanos().div_ceil(self.step().as_nanos());
        Free {
            at_once: BURST.saturating_sub(u32::try_from(missing).unwrap_or(BURST)),
            in_minute: self.pace.saturating_sub(self.in_flight.saturating_add(counted)),
        }
    }

    /// When more may begin than now, if nothing ends before.
    fn next_change(&self, now: Instant) -> Instant {
        // The bucket gains one when what it lacks is a whole number of steps.
        let lacks = self.full_at.saturating_duration_since(now).as_nanos();
        let step = self.step().as_nanos();
        let part = u64::try_from((lacks + step - 1) % step + 1).unwrap_or(u64::MAX);
        let fuller = (lacks > 0).then(|| now + Duration::from_nanos(part));
        // The time at which a request stops to count is itself still counted.
        let fewer = self.counts_until.peek().map(|Reverse(until)| *until + Duration::from_millis(1));
        [fuller, fewer].into_iter().flatten().filter(|at| *at > now).min().unwrap_or(now + MINUTE)
    }

    fn take(&mut self, now: Instant) {
        self.in_flight += 1;
        self.full_at = self.full_at.max(now) + self.step();
    }

    fn give_back(&mut self) {
        self.in_flight -= 1;
        self.full_at -= self.step();
    }

    fn sent(&mut self, at: Instant) {
        self.in_flight -= 1;
        self.counts_until.push(Reverse(at + MINUTE));
    }

    /// Whether what was sent still holds anything back.
    fn is_used(&mut self, now: Instant) -> bool {
        self.free(now);
        self.in_flight > 0 || !self.counts_until.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn free(bucket: &mut Bucket, now: Instant) -> u32 {
        let Free { at_once, in_minute } = bucket.free(now);
        at_once.min(in_minute)
    }

    #[test]
    fn a_few_at_once_and_the_rest_evenly() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        assert_eq!(free(&mut bucket, start), BURST);
        for left in (0..BURST).rev() {
            bucket.take(start);
            bucket.sent(start);
            assert_eq!(free(&mut bucket, start), left);
        }
        assert_eq!(bucket.next_change(start), start + SECOND);
        assert_eq!(free(&mut bucket, start + SECOND - Duration::from_nanos(1)), 0);
        assert_eq!(free(&mut bucket, start + SECOND), 1);
        assert_eq!(free(&mut bucket, start + 10 * SECOND), BURST);
    }

    #[test]
    fn a_minute_counts_from_when_the_request_was_sent() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1, start);
        bucket.take(start);
        // However long the run takes, it may send its request at any moment.
        assert_eq!(free(&mut bucket, start + 90 * SECOND), 0);
        bucket.sent(start + 2 * SECOND);
        assert_eq!(free(&mut bucket, start + 62 * SECOND), 0);
        let next = bucket.next_change(start + 61 * SECOND);
        assert!(next > start + 62 * SECOND && free(&mut bucket, next) == 1, "{:?}", next - start);
    }

    #[test]
    fn what_was_not_used_is_given_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, start);
        bucket.take(start);
        bucket.take(start);
        assert_eq!(free(&mut bucket, start), 0);
        bucket.give_back();
        assert_eq!(free(&mut bucket, start), 1);
        assert!(bucket.is_used(start));
        bucket.give_back();
        assert_eq!(free(&mut bucket, start), 2);
        assert!(!bucket.is_used(start));
    }

    proptest! {
        #[test]
        fn in_no_minute_are_there_more_than_the_pace(
            paces in prop::collection::vec(1_u32..200, 1..4),
            // Between two looks, from the permission to the request, and from there to the end of the run.
            steps in prop::collection::vec((0_u64..3_000, 0_u64..5_000, 0_u64..40_000), 1..1_000),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(paces[0], now);
            let mut running: Vec<(Instant, Instant)> = Vec::new();
            let mut sent = Vec::new();
            for (index, (pause, way, rest)) in steps.iter().enumerate() {
                now += Duration::from_millis(*pause);
                // A reload that raises the pace; one that lowers it binds what follows only.
                let pace = *paces[..=index * paces.len() / steps.len()].iter().max().unwrap();
                bucket.pace = pace;
                running.retain(|(at, end)| {
                    if *end <= now {
                        bucket.sent(*at);
                    }
                    *end > now
                });
                if free(&mut bucket, now) > 0 {
                    bucket.take(now);
                    let at = now + Duration::from_millis(*way);
                    running.push((at, at + Duration::from_millis(*rest)));
                    sent.push(at);
                }
            }
            sent.sort();
            let most = *paces.iter().max().unwrap();
            for window in sent.windows(most as usize + 1) {
                prop_assert!(window[most as usize] - window[0] > MINUTE, "{most} a minute: {:?}", window);
            }
        }

        #[test]
        fn the_bucket_changes_when_it_says(
            pace in 1_u32..5_000,
            pauses in prop::collection::vec(0_u64..70_000, 1..200),
        ) {
            let mut now = Instant::now();
            let mut bucket = Bucket::new(pace, now);
            for pause in pauses {
                if free(&mut bucket, now) > 0 {
                    bucket.take(now);
                    bucket.sent(now);
                } else {
                    let next = bucket.next_change(now);
                    prop_assert!(next > now);
                    // What stops to count does so by the millisecond.
                    let before = next - Duration::from_millis(2);
                    prop_assert_eq!(free(&mut bucket, before.max(now)), 0, "missed");
                    now = next;
                }
                now += Duration::from_micros(pause);
            }
        }
    }
}
