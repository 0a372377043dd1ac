//! `requests_per_minute`: limits the request rate of a provider's probes, and orders them.
//!
//! In any 60 seconds, no more of a provider's requests begin than configured. A run counts from its
//! admission until 60 s after its request was sent, so that the limit also holds as the provider
//! counts. In addition, a token bucket of size [`BURST`] limits bursts; it refills evenly.
//!
//! Slots repeat in the same order, so with first come, first served an overloaded provider would
//! always skip the same probes. Therefore the probe whose last run is the oldest goes first.
//! Capacity is reserved for each probe that was skipped, is due again before that capacity would be
//! free again, and whose last run is older than that of the probe asking. So each of k probes with
//! equal intervals gets 1/k of the runs, give or take one. The cost is some unused capacity under
//! overload, because the probes that it is reserved for run only when they are due.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    iter,
    ops::RangeInclusive,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use tokio::{
    select,
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use crate::{config::Probe, outcome::Outcome, sync::Mutex};

/// Period of the rate limit.
const MINUTE: Duration = Duration::from_secs(60);

/// Maximum number of requests in a burst.
const BURST: u32 = 5;

/// Maximum time between handing a request to the connection and its arrival at the server. A slower
/// request counts as sent this much later.
const MAX_TRANSIT_TIME: Duration = Duration::from_secs(1);

/// Rate limits of all providers that have one.
#[derive(Debug, Default)]
pub(super) struct RateLimiter {
    queues: Mutex<HashMap<String, ProviderQueue>>,
}

/// Time at which a probe's last run was admitted, `None` if there was none, and its name. The
/// smallest priority goes first.
type Priority = (Option<Instant>, String);

/// Runs of a probe before its provider was rate limited here.
#[derive(Clone, Copy, Debug)]
struct Runs {
    /// Age of the last run. `None` if none is known.
    last: Option<Duration>,
    interval: Duration,
}

impl Runs {
    /// Returns the ages of the runs that may have begun in the last minute: the last run, and those
    /// scheduled before it.
    fn of_last_minute(self) -> impl Iterator<Item = Duration> {
        let before = move |age: &Duration| age.checked_add(self.interval);
        iter::successors(self.last, before).take_while(|age| *age <= MINUTE + MAX_TRANSIT_TIME)
    }
}

/// Requests of one provider.
#[derive(Debug)]
struct ProviderQueue {
    bucket: Bucket,
    /// Waiting probes, each at most once.
    waiting: BTreeMap<Priority, oneshot::Sender<()>>,
    /// Time of the last admission, by probe.
    last: HashMap<String, Instant>,
    /// Probes that were skipped since their last run.
    skipped: BTreeSet<Priority>,
    /// Next slot and its latest start, by skipped probe.
    due_again: HashMap<String, (Instant, Instant)>,
    /// Notifies waiting probes that the time of their admission may have changed.
    changed: Arc<Notify>,
}

impl RateLimiter {
    /// Applies the configured rate limits. Requests sent before still count, also those before a
    /// restart: each probe comes with the age of its last run, if it is known.
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
        let mut queues = self.lock();
        // A provider that a reload restores within a minute keeps its count.
        queues.retain(|name, queue| names.contains_key(name.as_str()) || queue.is_used(now));
        for (provider, (pace, probes)) in names {
            let new = || ProviderQueue::after_restart(pace, &probes, now);
            let queue = queues.entry(provider.to_owned()).or_insert_with(new);
            queue.bucket.pace = pace;
            queue.last.retain(|name, _| probes.contains_key(name.as_str()));
            queue.skipped.retain(|(_, name)| probes.contains_key(name.as_str()));
            queue.due_again.retain(|name, _| probes.contains_key(name.as_str()));
            queue.admit(now);
            queue.changed.notify_waiters();
        }
    }

    /// Waits until the probe may send a request. Dropping the future leaves the queue.
    pub(super) async fn permit(self: &Arc<Self>, probe: &Probe) -> Permit {
        let Some((mut turn, mut permit)) = self.enter(probe) else { return Permit(None) };
        let changed = Arc::clone(&permit.changed);
        loop {
            // Registered before the check, so that no change is missed.
            let change = changed.notified();
            let next = self.admit_waiting(&probe.provider.name);
            select! {
                biased;
                turn = &mut turn => {
                    if turn.is_ok() {
                        permit.state = State::Unused;
                    }
                    // Without a turn the provider has lost its limit in a reload.
                    return Permit(turn.is_ok().then_some(permit));
                }
                () = sleep_until(next) => {}
                () = change => {}
            }
        }
    }

    /// Records that the probe was skipped, and when it is due again.
    pub(super) fn record_skip(&self, probe: &Probe, due: Instant, lateness: Duration) {
        if let Some(queue) = self.lock().get_mut(&probe.provider.name) {
            queue.skipped.insert(queue.priority(&probe.name));
            queue.due_again.insert(probe.name.clone(), (due, due + lateness));
        }
    }

    /// Queues the probe. Returns `None` if its provider has no rate limit.
    fn enter(self: &Arc<Self>, probe: &Probe) -> Option<(oneshot::Receiver<()>, PermitInner)> {
        probe.provider.requests_per_minute.filter(|_| probe.is_rate_limited())?;
        let (sender, turn) = oneshot::channel();
        let mut queues = self.lock();
        let queue = queues.get_mut(&probe.provider.name)?;
        let priority = queue.priority(&probe.name);
        queue.waiting.insert(priority.clone(), sender);
        queue.admit(Instant::now());
        let provider = probe.provider.name.clone();
        let changed = Arc::clone(&queue.changed);
        Some((
            turn,
            PermitInner { limiter: Arc::clone(self), provider, changed, priority, state: State::Waiting },
        ))
    }

    /// Admits all probes that may run. Returns when to check again.
    fn admit_waiting(&self, provider: &str) -> Instant {
        let now = Instant::now();
        let mut queues = self.lock();
        queues.get_mut(provider).map_or(now + MINUTE, |queue| {
            queue.admit(now);
            queue.bucket.next_change(now)
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ProviderQueue>> {
        self.queues.lock()
    }
}

impl ProviderQueue {
    /// Creates the queue of a provider after a restart, from the last runs of its probes.
    fn after_restart(pace: u32, probes: &BTreeMap<&str, Runs>, now: Instant) -> Self {
        let began = |(name, runs): (&&str, &Runs)| Some(((*name).to_owned(), now.checked_sub(runs.last?)?));
        Self {
            bucket: Bucket::after_restart(pace, probes.values(), now),
            waiting: BTreeMap::new(),
            last: probes.iter().filter_map(began).collect(),
            skipped: BTreeSet::new(),
            due_again: HashMap::new(),
            changed: Arc::default(),
        }
    }

    /// Returns whether a probe waits, or a sent request still counts.
    fn is_used(&mut self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.bucket.is_used(now)
    }

    fn priority(&self, probe: &str) -> Priority {
        (self.last.get(probe).copied(), probe.to_owned())
    }

    /// Admits probes by priority, as long as there is capacity beyond what is reserved.
    fn admit(&mut self, now: Instant) {
        while let Some((priority, _)) = self.waiting.first_key_value() {
            let Free { at_once, in_minute } = self.bucket.free(now);
            let step = self.bucket.step();
            if self.reserved_before(priority, now..=now + step, at_once) >= at_once
                || self.reserved_before(priority, now..=now + MINUTE, in_minute) >= in_minute
            {
                return;
            }
            let Some((priority, turn)) = self.waiting.pop_first() else { return };
            self.skipped.remove(&priority);
            self.due_again.remove(&priority.1);
            self.last.insert(priority.1, now);
            self.bucket.take(now);
            // A probe that has just left the queue drops its permit next, which returns the
            // capacity.
            let _ = turn.send(());
        }
    }

    /// Returns how many probes before `priority` have capacity reserved within that time, counted
    /// up to `most`.
    fn reserved_before(&self, priority: &Priority, time: RangeInclusive<Instant>, most: u32) -> u32 {
        let comes = |(_, probe): &&Priority| {
            self.due_again.get(probe).is_some_and(|(due, until)| until >= time.start() && due <= time.end())
        };
        let kept = self.skipped.range(..priority).filter(comes).take(most as usize).count();
        u32::try_from(kept).unwrap_or(most)
    }

    /// Reverts the admission of a probe.
    fn give_back(&mut self, priority: &Priority) {
        let (last, name) = priority;
        match last {
            Some(last) => self.last.insert(name.clone(), *last),
            None => self.last.remove(name),
        };
        self.bucket.give_back();
    }
}

/// Permission to send one request. It is empty if the provider has no rate limit.
#[derive(Debug)]
pub(super) struct Permit(Option<PermitInner>);

#[derive(Debug)]
struct PermitInner {
    limiter: Arc<RateLimiter>,
    provider: String,
    changed: Arc<Notify>,
    priority: Priority,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the queue.
    Waiting,
    /// Admitted; nothing has been sent.
    Unused,
    /// The run began at this time.
    Begun(Instant),
    /// The request had reached the server at this time.
    Sent(Instant),
}

impl Permit {
    /// Marks the permit as used, when the run begins.
    pub(super) fn begin(&mut self) {
        if let Some(inner) = &mut self.0 {
            inner.state = State::Begun(Instant::now());
        }
    }

    /// Records when the request was sent, after the run.
    pub(super) fn end(mut self, outcome: &Outcome) {
        if let Some(inner) = &mut self.0
            && let State::Begun(begun) = inner.state
        {
            let phases = outcome.phases;
            let before = phases.resolve + phases.connect + phases.tls;
            let sent = begun + before + phases.processing.min(MAX_TRANSIT_TIME);
            // Never later than now, even if the outcome is wrong.
            inner.state = State::Sent(sent.min(Instant::now()));
        }
    }
}

impl Drop for PermitInner {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut queues = self.limiter.lock();
        let Some(queue) = queues.get_mut(&self.provider) else { return };
        match self.state {
            State::Waiting => {
                let waited = queue.waiting.remove(&self.priority).is_some();
                if !waited {
                    queue.give_back(&self.priority);
                }
            }
            State::Unused => queue.give_back(&self.priority),
            // The run was aborted, and may have just sent its request.
            State::Begun(_) => queue.bucket.sent(now),
            State::Sent(at) => queue.bucket.sent(at),
        }
        queue.admit(now);
        self.changed.notify_waiters();
    }
}

/// Number of requests that may begin.
#[derive(Clone, Copy, Debug)]
struct Free {
    /// According to the token bucket.
    at_once: u32,
    /// According to the count of the last minute.
    in_minute: u32,
}

/// Token bucket and request count of one provider.
#[derive(Debug)]
struct Bucket {
    /// Requests per minute, at least 1.
    pace: u32,
    /// Requests admitted and not known to have arrived at the server.
    in_flight: u32,
    /// Times at which requests of the last minute stop to count.
    counts_until: BinaryHeap<Reverse<Instant>>,
    /// Time at which the bucket is full again.
    full_at: Instant,
}

impl Bucket {
    fn new(pace: u32, now: Instant) -> Self {
        Self { pace, in_flight: 0, counts_until: BinaryHeap::new(), full_at: now }
    }

    /// Restores a bucket after a restart from each probe's last run. The slots before it may have
    /// been runs too. At most `pace` requests count, the latest ones, which count the longest.
    fn after_restart<'a>(pace: u32, runs: impl Iterator<Item = &'a Runs>, now: Instant) -> Self {
        let mut ages: Vec<_> = runs.flat_map(|runs| runs.of_last_minute()).collect();
        ages.sort_unstable();
        ages.truncate(pace as usize);
        // Each may have been sent this much later than its run began.
        let until = |age| Reverse(now + (MINUTE + MAX_TRANSIT_TIME).saturating_sub(age));
        Self { counts_until: ages.into_iter().map(until).collect(), ..Self::new(pace, now) }
    }

    /// Returns the time in which one token is refilled.
    fn step(&self) -> Duration {
        MINUTE / self.pace
    }

    /// Returns how many requests may begin now.
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

    /// Returns when more requests may begin than now, if no run ends before.
    fn next_change(&self, now: Instant) -> Instant {
        // A token is added whenever the time until the bucket is full is a whole number of steps.
        let lacks = self.full_at.saturating_duration_since(now).as_nanos();
        let step = self.step().as_nanos();
        let part = u64::try_from((lacks + step - 1) % step + 1).unwrap_or(u64::MAX);
        let fuller = (lacks > 0).then(|| now + Duration::from_nanos(part));
        // A request still counts at the time at which it stops to count.
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

    /// Returns whether past requests still limit new ones.
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
    fn bucket_allows_a_burst_then_refills_evenly() {
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
    fn minute_counts_from_the_sent_request() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1, start);
        bucket.take(start);
        // A running request may be sent at any time, however long the run takes.
        assert_eq!(free(&mut bucket, start + 90 * SECOND), 0);
        bucket.sent(start + 2 * SECOND);
        assert_eq!(free(&mut bucket, start + 62 * SECOND), 0);
        let next = bucket.next_change(start + 61 * SECOND);
        assert!(next > start + 62 * SECOND && free(&mut bucket, next) == 1, "{:?}", next - start);
    }

    #[test]
    fn unused_permit_is_returned() {
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
        fn no_minute_exceeds_the_limit(
            paces in prop::collection::vec(1_u32..200, 1..4),
            // Pause before the next admission, time until the request is sent, and time from there
            // to the end of the run.
            steps in prop::collection::vec((0_u64..3_000, 0_u64..5_000, 0_u64..40_000), 1..1_000),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(paces[0], now);
            let mut running: Vec<(Instant, Instant)> = Vec::new();
            let mut sent = Vec::new();
            for (index, (pause, way, rest)) in steps.iter().enumerate() {
                now += Duration::from_millis(*pause);
                // A reload may raise the limit; a lower one applies to later requests only.
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
        fn bucket_changes_at_the_predicted_time(
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
                    // Requests stop to count with a resolution of milliseconds.
                    let before = next - Duration::from_millis(2);
                    prop_assert_eq!(free(&mut bucket, before.max(now)), 0, "missed");
                    now = next;
                }
                now += Duration::from_micros(pause);
            }
        }
    }
}
