//! No request before a hint is over, as the simulated services see it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    configuration::{MAX_BACKOFF, PROVIDERS, prober_of},
    faults::Weather,
    services::Seen,
};

/// Statuses with which a hint counts.
const WAITED_FOR: [u64; 3] = [429, 503, 529];

/// How long a request may be with the services before they decide what it meets, in seconds.
const UNCERTAIN: f64 = 1.0;

/// How long a run with the key from before a reload may go on, in seconds: its timeout, and a machine that is busy.
const OLD_RUN: f64 = 1.0;

/// How long after its end a run may be missing in a scrape, and how long before its request was taken from the network it
/// may have been given up, in seconds.
const COUNTED: f64 = 2.0;

/// Remembers what was asked for, and finds who did not wait.
#[derive(Default)]
pub struct Hints {
    /// By when it began for certain and when it may have begun; the newest last.
    weathers: VecDeque<(f64, f64, BTreeMap<&'static str, f64>)>,
    /// By the probe: when the hint was given, how long it is, and with what.
    waits: HashMap<String, (f64, f64, String)>,
    /// By provider: from when to when a change of its key may have taken effect. An infinite end is one to come.
    changes: HashMap<usize, Vec<(f64, f64)>>,
    /// Failures without an answer that the daemon could have read, by probe, at moments.
    unanswered: VecDeque<(f64, HashMap<String, f64>)>,
    /// Who came early, and why that may be: when the hint was given, when the request came, whose it was.
    doubts: Vec<(f64, f64, String, String)>,
    pub given: u64,
    pub excused: u64,
    pub early: Vec<String>,
}

impl Hints {
    /// Another scenario is played.
    pub fn weather(&mut self, weather: &Weather, (before, after): (f64, f64)) {
        self.weathers.push_back((before, after, weather.hints.clone()));
        if self.weathers.len() > 60 {
            self.weathers.pop_front();
        }
    }

    /// The provider's key was written anew, which ends its waits with the next reload.
    pub fn rotated(&mut self, provider: usize, now: f64) {
        self.changes.entry(provider).or_default().push((now, f64::INFINITY));
    }

    /// A reload that succeeded has ended.
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

    /// How many runs of each probe have found no answer so far.
    pub fn unanswered(&mut self, now: f64, counts: HashMap<String, f64>) {
        self.unanswered.push_back((now, counts));
        if self.unanswered.len() > 60 {
            self.unanswered.pop_front();
        }
    }

    /// Looks at one request; they come in the order of their times.
    pub fn request(&mut self, seen: &Seen) {
        let Some((provider, probe)) = prober_of(&seen.query, &seen.model) else { return };
        if let Some((given, wait, what)) = self.waits.remove(&probe) {
            let ends_waits = |(from, to): &(f64, f64)| *to >= given && *from <= seen.at;
            let changed = self.changes.get(&provider).is_some_and(|changes| changes.iter().any(ends_waits));
            if seen.at < given + wait && !changed {
                let after = seen.at - given;
                let text =
                    format!("{probe} was told to wait for {wait} s by {what}, and came after {after} s");
                self.doubts.push((given, seen.at, probe.clone(), text));
            }
        }
        if let Some(wait) = self.hint(seen).filter(|_| WAITED_FOR.contains(&seen.status)) {
            self.given += 1;
            let what = format!("{} {}", seen.fault, seen.status);
            self.waits.insert(probe, (seen.at, wait.min(MAX_BACKOFF), what));
        }
    }

    /// The least that the request can have been told.
    fn hint(&self, seen: &Seen) -> Option<f64> {
        let mut least = f64::INFINITY;
        let mut later = f64::INFINITY;
        for (before, after, hints) in self.weathers.iter().rev() {
            let begun = *before <= seen.at + UNCERTAIN;
            let over = later <= seen.at;
            later = *after;
            if begun && !over {
                least = least.min(hints.get(seen.fault.as_str()).copied()?);
            }
        }
        Some(least).filter(|least| least.is_finite() && *least > 0.0)
    }

    /// How many were waited for, without those that may not have been read.
    pub fn certain(&self) -> u64 {
        self.given.saturating_sub(self.excused + self.doubts.len() as u64)
    }

    /// Decides about those who came early, once it is known how their runs ended: a run that is counted as one that found
    /// no answer has not read the hint, however early the services had it. Last: what is not known by now never will be.
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
