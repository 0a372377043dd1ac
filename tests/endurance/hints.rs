//! Checks that no request comes before a hint is over, according to the simulated services.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    configuration::{MAX_BACKOFF, PROVIDERS, probe_of_request},
    faults::FaultScenario,
    services::Seen,
};

/// Statuses with which a hint counts.
const WAITED_FOR: [u64; 3] = [429, 503, 529];

/// Maximum seconds between the arrival of a request and the choice of its fault.
const UNCERTAIN: f64 = 1.0;

/// Maximum seconds that a run with a key from before a reload may continue: its timeout, and some
/// overhead.
const OLD_RUN: f64 = 1.0;

/// Maximum seconds after its end until a run appears in a scrape, and by which a run may have timed
/// out before its request was accepted.
const COUNTED: f64 = 2.0;

/// Records hints, and finds requests that came too early.
#[derive(Default)]
pub struct Hints {
    /// Scenarios with their latest and earliest start, newest last.
    scenarios: VecDeque<(f64, f64, BTreeMap<&'static str, f64>)>,
    /// By probe: time, duration and cause of the hint.
    waits: HashMap<String, (f64, f64, String)>,
    /// By provider: from when to when a change of its key may have taken effect, infinite if still
    /// pending.
    changes: HashMap<usize, Vec<(f64, f64)>>,
    /// Failures without an answer that the daemon could have read, by probe, over time.
    unanswered: VecDeque<(f64, HashMap<String, f64>)>,
    /// Early requests that may be justified: time of the hint, time of the request, and probe.
    doubts: Vec<(f64, f64, String, String)>,
    pub given: u64,
    pub excused: u64,
    pub early: Vec<String>,
}

impl Hints {
    /// Records a new scenario.
    pub fn scenario(&mut self, scenario: &FaultScenario, (before, after): (f64, f64)) {
        self.scenarios.push_back((before, after, scenario.hints.clone()));
        if self.scenarios.len() > 60 {
            self.scenarios.pop_front();
        }
    }

    /// Records a new key of the provider, which ends its backoff with the next reload.
    pub fn rotated(&mut self, provider: usize, now: f64) {
        self.changes.entry(provider).or_default().push((now, f64::INFINITY));
    }

    /// Records a successful reload.
    pub fn reloaded(&mut self, now: f64) {
        for (_, end) in self.changes.values_mut().flatten() {
            *end = end.min(now + OLD_RUN);
        }
        for provider in 0..PROVIDERS {
            if let Some(changes) = self.changes.get_mut(&provider) {
                changes.retain(|(_, end)| *end > now - 60.0);
            }
        }
    }

    /// Records the number of runs of each probe without an answer so far.
    pub fn unanswered(&mut self, now: f64, counts: HashMap<String, f64>) {
        self.unanswered.push_back((now, counts));
        if self.unanswered.len() > 60 {
            self.unanswered.pop_front();
        }
    }

    /// Checks a request. Requests come in the order of their times.
    pub fn request(&mut self, seen: &Seen) {
        let Some((provider, probe)) = probe_of_request(&seen.query, &seen.model) else { return };
        if let Some((given, wait, what)) = self.waits.remove(&probe) {
            let ends_waits = |(from, to): &(f64, f64)| *to >= given && *from <= seen.at;
            let changed = self.changes.get(&provider).is_some_and(|changes| changes.iter().any(ends_waits));
            if seen.at < given + wait && !changed {
                let after = seen.at - given;
                let text =
                    format!("{probe} was asked to wait for {wait} s by {what}, and came after {after} s");
                self.doubts.push((given, seen.at, probe.clone(), text));
            }
        }
        if let Some(wait) = self.hint(seen).filter(|_| WAITED_FOR.contains(&seen.status)) {
            self.given += 1;
            let what = format!("{} {}", seen.fault, seen.status);
            self.waits.insert(probe, (seen.at, wait.min(MAX_BACKOFF), what));
        }
    }

    /// Returns the minimum hint that the request may have got.
    fn hint(&self, seen: &Seen) -> Option<f64> {
        let mut least = f64::INFINITY;
        let mut later = f64::INFINITY;
        for (before, after, hints) in self.scenarios.iter().rev() {
            let begun = *before <= seen.at + UNCERTAIN;
            let over = later <= seen.at;
            later = *after;
            if begun && !over {
                least = least.min(hints.get(seen.fault.as_str()).copied()?);
            }
        }
        Some(least).filter(|least| least.is_finite() && *least > 0.0)
    }

    /// Returns the number of hints that were certainly respected.
    pub fn certain(&self) -> u64 {
        self.given.saturating_sub(self.excused + self.doubts.len() as u64)
    }

    /// Decides about early requests once the results of their runs are known: a run that counts as
    /// one without an answer has not read the hint. In the last call, unknown results count as
    /// failures.
    pub fn judge(&mut self, last: bool) {
        let count =
            |counts: &HashMap<String, f64>, probe: &str| counts.get(probe).copied().unwrap_or_default();
        for (given, came, probe, text) in std::mem::take(&mut self.doubts) {
            let mut before = self.unanswered.iter().rev().filter(|(at, _)| *at < given - COUNTED);
            let mut after = self.unanswered.iter().filter(|(at, _)| *at > came + COUNTED);
            let newest = self.unanswered.back().filter(|_| last);
            let (Some((_, before)), Some((_, after))) = (before.next(), after.next().or(newest)) else {
                if last {
                    self.excused += 1;
                } else {
                    self.doubts.push((given, came, probe, text));
                }
                continue;
            };
            if count(after, &probe) > count(before, &probe) {
                self.excused += 1;
            } else {
                self.early.push(text);
            }
        }
    }
}
