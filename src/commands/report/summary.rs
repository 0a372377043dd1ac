//! Aggregates records by failure and by probe.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use crate::{
    outcome::{Check, Fault, Reason, rfc3339},
    records::Entry,
};

/// Number of failing runs that are listed per failure.
const MAX_LISTED_RUNS: usize = 5;

/// Maximum number of different failures, and of probes. No configuration has that many in use.
const MAX_GROUPS: usize = 50_000;

/// Maximum number of durations in memory per failure.
const MAX_DURATIONS: usize = 1_024;

/// The runs of a period. Its JSON is the report with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    version: &'static str,
    #[serde(serialize_with = "time")]
    pub(super) since: SystemTime,
    #[serde(serialize_with = "time")]
    pub(super) until: SystemTime,
    /// Lines that are not records, or that exceed [`MAX_GROUPS`].
    pub(super) skipped_lines: u64,
    #[serde(serialize_with = "values")]
    failures: BTreeMap<FailureKey, Failure>,
    #[serde(serialize_with = "values")]
    pub(super) probes: BTreeMap<String, Total>,
}

/// Identifies a failure: runs that agree in these fields are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FailureKey {
    probe: String,
    reason: Reason,
    fault: Fault,
    error_code: Option<String>,
    upstream: Option<String>,
}

/// The failing runs of one key.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    pub(super) probe: String,
    pub(super) provider: String,
    pub(super) check: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    pub(super) reason: Reason,
    pub(super) fault: Fault,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<String>,
    pub(super) count: u64,
    #[serde(serialize_with = "time")]
    pub(super) first: SystemTime,
    #[serde(serialize_with = "time")]
    pub(super) last: SystemTime,
    /// Number of runs by HTTP status, without runs that had no response.
    pub(super) http_status: BTreeMap<u16, u64>,
    #[serde(rename = "duration_seconds")]
    pub(super) durations: Durations,
    /// Detail of the last run.
    pub(super) detail: String,
    /// Remedy of the last run.
    pub(super) hint: String,
    /// The last runs, newest first.
    pub(super) latest: VecDeque<Instance>,
}

/// A failing run.
#[derive(Debug, Serialize)]
pub(super) struct Instance {
    #[serde(serialize_with = "time")]
    pub(super) time: SystemTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_status: Option<u16>,
    #[serde(serialize_with = "seconds", rename = "duration_seconds")]
    pub(super) duration: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<String>,
}

/// The number of runs of a probe.
#[derive(Debug, Serialize)]
pub(super) struct Total {
    pub(super) probe: String,
    pub(super) runs: u64,
    pub(super) succeeded: u64,
}

impl Summary {
    pub(super) fn new(since: SystemTime, until: SystemTime) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            since,
            until,
            skipped_lines: 0,
            failures: BTreeMap::new(),
            probes: BTreeMap::new(),
        }
    }

    /// Adds a record.
    pub(super) fn add(&mut self, entry: Entry) {
        if entry.recheck {
            return;
        }
        if self.probes.len().max(self.failures.len()) >= MAX_GROUPS {
            self.skipped_lines += 1;
            return;
        }
        let total = self.probes.entry(entry.probe.clone()).or_insert_with(|| Total {
            probe: entry.probe.clone(),
            runs: 0,
            succeeded: 0,
        });
        total.runs += 1;
        if entry.reason == Reason::Ok {
            total.succeeded += 1;
            return;
        }
        let key = FailureKey {
            probe: entry.probe.clone(),
            reason: entry.reason,
            fault: entry.fault,
            error_code: entry.error_code.clone(),
            upstream: entry.upstream.clone(),
        };
        self.failures.entry(key).or_insert_with(|| Failure::new(&entry)).add(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }

    /// Returns the failures, the most frequent first.
    pub(super) fn failures(&self) -> Vec<&Failure> {
        let mut failures: Vec<&Failure> = self.failures.values().collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        failures
    }
}

impl Failure {
    /// Returns a failure with the key of this record and without runs.
    fn new(entry: &Entry) -> Self {
        Self {
            probe: entry.probe.clone(),
            provider: entry.provider.clone(),
            check: entry.check,
            model: entry.model.clone(),
            reason: entry.reason,
            fault: entry.fault,
            error_code: entry.error_code.clone(),
            upstream: entry.upstream.clone(),
            count: 0,
            first: entry.time,
            last: entry.time,
            http_status: BTreeMap::new(),
            durations: Durations::default(),
            detail: String::new(),
            hint: String::new(),
            latest: VecDeque::new(),
        }
    }

    fn add(&mut self, entry: Entry) {
        self.count += 1;
        // Records are in the order in which runs ended, which is not exactly the order of their
        // starts.
        self.first = self.first.min(entry.time);
        self.last = self.last.max(entry.time);
        if let Some(status) = entry.http_status {
            *self.http_status.entry(status).or_default() += 1;
        }
        self.durations.add(entry.duration);
        (self.detail, self.hint) = (entry.detail, entry.hint);
        self.latest.push_front(Instance {
            time: entry.time,
            http_status: entry.http_status,
            duration: entry.duration,
            request_id: entry.request_id,
        });
        self.latest.truncate(MAX_LISTED_RUNS);
    }
}

/// A bounded sample of durations: all of them at first, then every second one, every fourth, and so
/// on.
#[derive(Debug, Default)]
pub(super) struct Durations {
    sample: Vec<Duration>,
    /// One of so many durations is added to the sample; 0 means 1.
    stride: u64,
    count: u64,
    longest: Duration,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        self.longest = self.longest.max(duration);
        if self.sample.len() == MAX_DURATIONS {
            let mut index = 0;
            self.sample.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = self.stride.max(1) * 2;
        }
        if self.count.is_multiple_of(self.stride.max(1)) {
            self.sample.push(duration);
        }
        self.count += 1;
    }

    /// Returns the median of the sample, which is exact for up to [`MAX_DURATIONS`].
    pub(super) fn median(&self) -> Duration {
        let mut sorted = self.sample.clone();
        sorted.sort_unstable();
        let middle = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let half = sorted.len() / 2;
        if sorted.len().is_multiple_of(2) {
            (middle(half.saturating_sub(1)) + middle(half)) / 2
        } else {
            middle(half)
        }
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }
}

impl Serialize for Durations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Form {
            #[serde(serialize_with = "seconds")]
            median: Duration,
            #[serde(serialize_with = "seconds")]
            max: Duration,
        }
        Form { median: self.median(), max: self.longest }.serialize(serializer)
    }
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// Serializes seconds with microsecond precision.
fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
}

fn values<K, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_exact_for_few_and_close_for_many() {
        let mut durations = Durations::default();
        assert_eq!(durations.median(), Duration::ZERO);
        for (milliseconds, median) in [(30, 30), (10, 20), (20, 20)] {
            durations.add(Duration::from_millis(milliseconds));
            assert_eq!(durations.median(), Duration::from_millis(median));
        }
        let mut durations = Durations::default();
        for milliseconds in 1..=100_000 {
            durations.add(Duration::from_millis(milliseconds));
            assert!(durations.sample.len() <= MAX_DURATIONS);
        }
        let median = durations.median().as_secs_f64();
        assert!((49.0..51.0).contains(&median), "{median}");
        assert_eq!(durations.longest(), Duration::from_secs(100));
    }
}
