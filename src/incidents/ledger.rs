//! Follows each probe and assigns its failures to outages.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::{
    availability::{Account, LAYERS, ProviderMonth},
    name::Name,
    outage::{Outage, Subject},
    run::Observed,
    status_pages::StatusPages,
};
use crate::outcome::{Check, PairVerdict, Side};

/// Maximum number of listed outages. Later ones count only in the account of their provider.
pub const MAX_OUTAGES: usize = 10_000;

/// Maximum number of probes, and of comparisons. No configuration has that many in use.
const MAX_NAMES: usize = 50_000;

/// Number of consecutive runs that show the service up after which an outage is over for a probe.
/// Fewer are a recovery that may not last.
const RECOVERY_RUNS: u64 = 3;

/// Number of intervals for which a run counts: a backoff without a hint is up to four intervals.
const VALID_INTERVALS: u32 = 6;

/// Time for which the first run of a probe counts, whose interval is not known yet.
const VALID_AT_FIRST: Duration = Duration::from_secs(3600);

/// Maximum wait requested by a service that is taken into account.
const MAX_WAIT_SECONDS: f64 = 7.0 * 86_400.0;

/// Number of gaps between runs from which the interval of a probe is derived.
const GAPS: usize = 5;

/// Reads runs in the order of their ends, and collects outages.
#[derive(Debug, Default)]
pub struct Ledger {
    tracks: HashMap<Name, Track>,
    comparisons: HashMap<Name, [Option<Name>; Side::ALL.len()]>,
    /// Time up to which no failing probe falls silent. `None` if no probe is failing.
    sight_until: Option<SystemTime>,
    books: Books,
}

/// The outages of a period, and the account of each provider.
#[derive(Debug)]
pub struct Incidents {
    /// The outages by start, at most [`MAX_OUTAGES`].
    pub outages: Vec<Outage>,
    /// Number of further outages.
    pub omitted_outages: u64,
    /// Availability and downtime, by provider and month.
    pub months: Vec<ProviderMonth>,
    /// Runs that were ignored, because there were too many probes.
    pub ignored_runs: u64,
}

/// Everything that the runs of all probes are entered into.
#[derive(Debug, Default)]
struct Books {
    outages: Vec<Outage>,
    /// Indices of the outages that are not over.
    open: Vec<usize>,
    omitted: u64,
    accounts: HashMap<Name, Account>,
    pages: StatusPages,
    ignored_runs: u64,
}

/// The state of a probe.
#[derive(Debug)]
struct Track {
    probe: Name,
    provider: Name,
    check: Check,
    model: Option<Name>,
    last_run: SystemTime,
    gaps: Gaps,
    /// Time up to which the last run that shows anything counts.
    valid_until: SystemTime,
    /// Time of that run, plus the wait that the service requested.
    valid_from: SystemTime,
    /// Last run that showed a layer up.
    last_up: [Option<SystemTime>; LAYERS.len()],
    failing: [Option<Failing>; LAYERS.len()],
}

/// Part of a probe in an outage.
#[derive(Clone, Copy, Debug)]
struct Failing {
    /// Index of the outage. `None` if it is not listed.
    outage: Option<usize>,
    /// Index of the probe in the outage. `None` if it is not listed.
    member: Option<usize>,
    /// Whether the last run showed it down.
    is_down: bool,
    /// Number of runs since the last failure that showed it up, and the start of the first of them.
    successes: u64,
    up_since: SystemTime,
}

impl Ledger {
    /// Adds a run. Rechecks and on-demand runs must be left out.
    pub fn add(&mut self, run: &Observed<'_>) {
        if self.sight_until.is_some_and(|until| until < run.time) {
            self.lose_sight_of_silent(run.time);
        }
        if !run.check.addresses_service() {
            self.books.pages.add(run, &mut self.books.outages);
            return;
        }
        let is_full = self.tracks.len() >= MAX_NAMES;
        let track = match self.tracks.get_mut(run.probe) {
            Some(track) if track.is_of(run) => track,
            Some(track) => {
                // A reload changed what the name stands for. Nothing is known of the old probe
                // since the new one began.
                track.valid_until = track.valid_until.min(run.time.max(track.last_run));
                self.books.lose_sight(track);
                *track = Track::new(run);
                track
            }
            None if is_full => {
                self.books.ignored_runs += 1;
                return;
            }
            None => self.tracks.entry(run.probe.into()).or_insert_with(|| Track::new(run)),
        };
        self.books.observe(track, run);
        if track.is_failing() {
            let until = track.valid_until;
            self.sight_until = Some(self.sight_until.map_or(until, |known| known.min(until)));
        }
        if let Some((comparison, side, verdict)) = run.comparison {
            self.compare(comparison, (run.probe, side), verdict);
        }
    }

    /// Ends the outages of the probes whose last run no longer counts at that time. They may have
    /// no further run, so that runs of others show that time has passed.
    fn lose_sight_of_silent(&mut self, time: SystemTime) {
        let failing = self.tracks.values_mut().filter(|track| track.is_failing());
        let (mut silent, seen): (Vec<_>, Vec<_>) = failing.partition(|track| track.valid_until < time);
        self.sight_until = seen.iter().map(|track| track.valid_until).min();
        silent.sort_unstable_by(|a, b| (a.valid_until, &a.probe).cmp(&(b.valid_until, &b.probe)));
        for track in silent {
            self.books.lose_sight(track);
        }
    }

    /// Assigns the verdict on a pair to the outages of both sides.
    fn compare(&mut self, comparison: &str, (probe, side): (&str, Side), verdict: Option<PairVerdict>) {
        if !self.comparisons.contains_key(comparison) && self.comparisons.len() >= MAX_NAMES {
            return;
        }
        let name = Name::from(comparison);
        let sides = self.comparisons.entry(name.clone()).or_default();
        let this = &mut sides[side as usize];
        if this.as_deref() != Some(probe) {
            *this = Some(probe.into());
        }
        let Some(verdict) = verdict else { return };
        for probe in sides.iter().flatten() {
            let failing = self.tracks.get(probe).into_iter().flat_map(|track| track.failing.iter().flatten());
            for index in failing.filter(|failing| failing.is_down).filter_map(|failing| failing.outage) {
                self.books.outages[index].compare(&name, verdict);
            }
        }
    }

    /// Ends the period.
    pub fn finish(mut self, now: SystemTime) -> Incidents {
        let mut tracks: Vec<Track> = self.tracks.into_values().collect();
        tracks.sort_by_key(|track| track.last_run);
        for track in &mut tracks {
            self.books.finish(track, now);
        }
        let Books { mut outages, omitted, accounts, pages, ignored_runs, .. } = self.books;
        for outage in &mut outages {
            outage.complete(now);
            pages.complete(outage, now);
        }
        outages.sort_by(|a, b| (a.start, &a.provider).cmp(&(b.start, &b.provider)));
        let mut months: Vec<_> =
            accounts.iter().flat_map(|(provider, account)| account.months(provider)).collect();
        months.sort_by(|a, b| (&a.provider, &a.month).cmp(&(&b.provider, &b.month)));
        Incidents { outages, omitted_outages: omitted, months, ignored_runs }
    }
}

impl Books {
    /// Enters a run.
    fn observe(&mut self, track: &mut Track, run: &Observed<'_>) {
        // A step of the clock moves no run before the one before it.
        let run = &Observed { time: run.time.max(track.last_run), ..*run };
        track.gaps.add(run.time.duration_since(track.last_run).unwrap_or_default());
        track.last_run = run.time;
        if run.time > track.valid_until {
            self.lose_sight(track);
        }
        self.account(&track.provider).count(run);
        let Some(is_down) = run.shows_downtime() else {
            // It shows the interval, which the last run that shows anything may not have known.
            track.valid_until = track.valid_until.min(track.valid_from + track.gaps.validity());
            return;
        };
        track.valid_from = run.time + wait(run.retry_after);
        track.valid_until = track.valid_from + track.gaps.validity();
        for (layer, fault) in LAYERS.into_iter().enumerate() {
            if !is_down || run.fault > fault {
                self.up(track, layer, run.time);
            } else if run.fault == fault {
                self.down(track, layer, run);
            } else {
                self.hidden(track, layer, run.time);
            }
        }
    }

    /// Enters a run that shows a layer down.
    fn down(&mut self, track: &mut Track, layer: usize, run: &Observed<'_>) {
        let mut failing = match track.failing[layer] {
            Some(failing) => failing,
            None => self.begin(track, layer, run),
        };
        if !failing.is_down {
            failing.is_down = true;
            self.account(&track.provider).enter(layer, run.time);
            if let Some(outage) = failing.outage {
                self.outages[outage].enter(run.time);
            }
        }
        if let Some(outage) = failing.outage {
            self.outages[outage].add_failure((&track.probe, failing.member), run, failing.successes);
        }
        track.failing[layer] = Some(Failing { successes: 0, ..failing });
    }

    /// Assigns a probe that begins to fail to an outage.
    fn begin(&mut self, track: &Track, layer: usize, run: &Observed<'_>) -> Failing {
        let Track { probe, provider, check, model, .. } = track;
        let last_up = track.last_up[layer];
        let interval = track.gaps.usual().unwrap_or_default();
        let subject = Subject { probe, check: *check, model: model.as_ref(), last_up, interval };
        let includes = |index: &&usize| self.outages[**index].includes(provider, &subject, run);
        let outage = match self.open.iter().rev().find(includes) {
            Some(&index) => Some(index),
            None if self.outages.len() < MAX_OUTAGES => {
                let mut outage = Outage::new(provider, run, last_up);
                outage.status_page = self.pages.at_start(&outage);
                self.outages.push(outage);
                self.open.push(self.outages.len() - 1);
                Some(self.outages.len() - 1)
            }
            None => {
                self.omitted += 1;
                None
            }
        };
        let member = outage.and_then(|index| self.outages[index].join(&subject, run.time));
        Failing { outage, member, is_down: false, successes: 0, up_since: run.time }
    }

    /// Enters a run that shows a layer up.
    fn up(&mut self, track: &mut Track, layer: usize, time: SystemTime) {
        track.last_up[layer] = Some(time);
        let Some(failing) = track.failing[layer] else { return };
        self.leave(&track.provider, failing, layer, time);
        let up_since = if failing.successes == 0 { time } else { failing.up_since };
        let failing = Failing { is_down: false, successes: failing.successes + 1, up_since, ..failing };
        track.failing[layer] = Some(failing);
        if failing.successes >= RECOVERY_RUNS {
            track.failing[layer] = None;
            self.end(failing, up_since, true);
        }
    }

    /// Enters a run that failed before it reached a layer.
    fn hidden(&mut self, track: &mut Track, layer: usize, time: SystemTime) {
        let Some(failing) = track.failing[layer] else { return };
        self.leave(&track.provider, failing, layer, time);
        track.failing[layer] = Some(Failing { is_down: false, ..failing });
    }

    /// Ends the outages of a probe whose last run no longer counts.
    fn lose_sight(&mut self, track: &mut Track) {
        for layer in 0..LAYERS.len() {
            track.last_up[layer] = None;
            let Some(failing) = track.failing[layer].take() else { continue };
            self.leave(&track.provider, failing, layer, track.valid_until);
            let recovered = failing.successes > 0;
            self.end(failing, if recovered { failing.up_since } else { track.valid_until }, recovered);
        }
    }

    /// Ends the period of a probe: an outage continues if its last run still counts.
    fn finish(&mut self, track: &mut Track, now: SystemTime) {
        if now > track.valid_until {
            return self.lose_sight(track);
        }
        for layer in 0..LAYERS.len() {
            let Some(failing) = track.failing[layer].take() else { continue };
            self.leave(&track.provider, failing, layer, now);
            if failing.successes > 0 {
                self.end(failing, failing.up_since, true);
            }
        }
    }

    /// Ends downtime, if the last run of the probe showed it down.
    fn leave(&mut self, provider: &Name, failing: Failing, layer: usize, at: SystemTime) {
        if failing.is_down {
            self.account(provider).leave(layer, at);
            if let Some(outage) = failing.outage {
                self.outages[outage].leave(at);
            }
        }
    }

    /// Ends an outage for a probe.
    fn end(&mut self, failing: Failing, at: SystemTime, observed: bool) {
        let Some(outage) = failing.outage else { return };
        if self.outages[outage].recover(failing.member, at, observed) {
            self.open.retain(|open| *open != outage);
        }
    }

    fn account(&mut self, provider: &Name) -> &mut Account {
        if !self.accounts.contains_key(provider) {
            self.accounts.insert(provider.clone(), Account::default());
        }
        self.accounts.get_mut(provider).expect("it was inserted above")
    }
}

impl Track {
    fn new(run: &Observed<'_>) -> Self {
        Self {
            probe: run.probe.into(),
            provider: run.provider.into(),
            check: run.check,
            model: run.model.map(Name::from),
            last_run: run.time,
            gaps: Gaps::default(),
            valid_until: run.time,
            valid_from: run.time,
            last_up: [None; LAYERS.len()],
            failing: [None; LAYERS.len()],
        }
    }

    fn is_failing(&self) -> bool {
        self.failing.iter().any(Option::is_some)
    }

    fn is_of(&self, run: &Observed<'_>) -> bool {
        *self.provider == *run.provider && self.check == run.check && self.model.as_deref() == run.model
    }
}

/// The last gaps between runs of a probe.
#[derive(Debug, Default)]
struct Gaps {
    last: [Duration; GAPS],
    count: usize,
}

impl Gaps {
    /// Adds a gap. The first run, which has none, is ignored.
    fn add(&mut self, gap: Duration) {
        if !gap.is_zero() {
            self.last[self.count % GAPS] = gap;
            self.count += 1;
        }
    }

    /// Returns the median gap. Returns `None` if there is no gap yet.
    fn usual(&self) -> Option<Duration> {
        let mut known = self.last;
        let known = &mut known[..self.count.min(GAPS)];
        known.sort_unstable();
        known.get(known.len() / 2).copied()
    }

    /// Returns the time for which a run counts.
    fn validity(&self) -> Duration {
        self.usual().map_or(VALID_AT_FIRST, |usual| usual * VALID_INTERVALS)
    }
}

/// Returns the wait that a service requested, bounded.
fn wait(retry_after: Option<f64>) -> Duration {
    let seconds = retry_after.filter(|seconds| seconds.is_finite()).unwrap_or_default();
    Duration::from_secs_f64(seconds.clamp(0.0, MAX_WAIT_SECONDS))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn validity_follows_the_usual_gap() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.validity(), VALID_AT_FIRST);
        for seconds in [60, 60, 3600, 61, 60] {
            gaps.add(Duration::from_secs(seconds));
        }
        assert_eq!(gaps.validity(), Duration::from_secs(360));
        assert_eq!(wait(Some(f64::NAN)) + wait(Some(-1.0)) + wait(None), Duration::ZERO);
        assert_eq!(wait(Some(1e300)), Duration::from_secs(7 * 86_400));
    }
}
