//! Aggregates records by failure and by probe.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{
    account::{AccountReport, FailedRequest},
    damage::Damage,
};
use crate::{
    config::Config,
    outcome::{Check, Fault, LimitedBy, Reason, in_record},
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
    #[serde(serialize_with = "in_record")]
    pub(super) since: SystemTime,
    #[serde(serialize_with = "in_record")]
    pub(super) until: SystemTime,
    #[serde(flatten)]
    pub(super) damage: Damage,
    /// What LangMart reports, if it was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) account: Vec<AccountReport>,
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
    #[serde(serialize_with = "in_record")]
    pub(super) first: SystemTime,
    #[serde(serialize_with = "in_record")]
    pub(super) last: SystemTime,
    /// Number of runs by HTTP status, without runs that had no response.
    pub(super) http_status: BTreeMap<u16, u64>,
    /// Base URL of the provider, as configured now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base_url: Option<String>,
    /// Address of the last connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remote_address: Option<SocketAddr>,
    /// Limit that the last run exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limited_by: Option<LimitedBy>,
    /// Wait that the service requested in the last run.
    #[serde(rename = "retry_after_seconds", skip_serializing_if = "Option::is_none")]
    pub(super) retry_after: Option<f64>,
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
    #[serde(serialize_with = "in_record")]
    pub(super) time: SystemTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_status: Option<u16>,
    #[serde(serialize_with = "in_record", rename = "duration_seconds")]
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
            damage: Damage::default(),
            account: Vec::new(),
            failures: BTreeMap::new(),
            probes: BTreeMap::new(),
        }
    }

    /// Returns the listed runs of a provider that have a request ID.
    pub(super) fn requests(&self, provider: &str) -> Vec<FailedRequest> {
        let failures = self.failures.values().filter(|failure| failure.provider == provider);
        let runs = failures.flat_map(|failure| &failure.latest);
        runs.filter_map(|run| Some((run.time, run.request_id.clone()?))).collect()
    }

    /// Adds the base URLs of the providers.
    pub(super) fn add_base_urls(&mut self, config: &Config) {
        for failure in self.failures.values_mut() {
            failure.base_url =
                config.providers.get(&failure.provider).map(|provider| provider.base_url.to_string());
        }
    }

    /// Adds a record.
    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        if entry.recheck {
            return;
        }
        if self.probes.len().max(self.failures.len()) >= MAX_GROUPS {
            self.damage.omitted_runs += 1;
            return;
        }
        let total = self.probes.entry(entry.probe.to_owned()).or_insert_with(|| Total {
            probe: entry.probe.to_owned(),
            runs: 0,
            succeeded: 0,
        });
        total.runs += 1;
        if entry.reason == Reason::Ok {
            total.succeeded += 1;
            return;
        }
        let key = FailureKey {
            probe: entry.probe.to_owned(),
            reason: entry.reason,
            fault: entry.fault,
            error_code: entry.error_code.map(str::to_owned),
            upstream: entry.upstream.map(str::to_owned),
        };
        self.failures.entry(key).or_insert_with(|| Failure::new(entry)).add(entry);
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
    fn new(entry: &Entry<'_>) -> Self {
        Self {
            probe: entry.probe.to_owned(),
            provider: entry.provider.to_owned(),
            check: entry.check,
            model: entry.model.as_deref().map(str::to_owned),
            reason: entry.reason,
            fault: entry.fault,
            error_code: entry.error_code.map(str::to_owned),
            upstream: entry.upstream.map(str::to_owned),
            count: 0,
            first: entry.time,
            last: entry.time,
            http_status: BTreeMap::new(),
            base_url: None,
            remote_address: None,
            limited_by: None,
            retry_after: None,
            durations: Durations::default(),
            detail: String::new(),
            hint: String::new(),
            latest: VecDeque::new(),
        }
    }

    fn add(&mut self, entry: &Entry<'_>) {
        self.count += 1;
        // Records are in the order in which runs ended, which is not exactly the order of their
        // starts.
        self.first = self.first.min(entry.time);
        self.last = self.last.max(entry.time);
        if let Some(status) = entry.http_status {
            *self.http_status.entry(status).or_default() += 1;
        }
        self.durations.add(entry.duration);
        self.remote_address = entry.remote_address.or(self.remote_address);
        (self.limited_by, self.retry_after) = (entry.limited_by, entry.retry_after);
        (self.detail, self.hint) = (entry.detail.clone().into_owned(), entry.hint.clone().into_owned());
        self.latest.push_front(Instance {
            time: entry.time,
            http_status: entry.http_status,
            duration: entry.duration,
            request_id: entry.request_id.map(str::to_owned),
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
            #[serde(serialize_with = "in_record")]
            median: Duration,
            #[serde(serialize_with = "in_record")]
            max: Duration,
        }
        Form { median: self.median(), max: self.longest }.serialize(serializer)
    }
}

fn values<K, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_beyond_the_limit_are_no_foreign_lines() {
        let line = r#"{"time":"2026-11-22T08:00:00Z","probe":"p","provider":"groq","check":"chat","reason":"ok",
            "fault":"none","duration_seconds":1}"#;
        let entry = Entry::parse(line.as_bytes()).unwrap();
        let mut summary = Summary::new(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        for number in 0..MAX_GROUPS + 2 {
            summary.add(&Entry { probe: &number.to_string(), ..entry.clone() });
        }
        let json = serde_json::to_value(&summary.damage).unwrap();
        assert_eq!(json, serde_json::json!({"skipped_lines": 0, "omitted_runs": 2}));
        let expected = ["2 runs are not counted: there are too many probes or failures."];
        assert_eq!(summary.damage.sentences(), expected);
    }

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
