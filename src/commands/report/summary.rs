//! Aggregates records by failure and by probe.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{
    account::{AccountReport, FailedRequest},
    damage::Damage,
    durations::Durations,
};
use crate::{
    config::{Config, Probe},
    outcome::{Check, FailedAddress, Fault, LimitedBy, RateLimit, Reason, in_record},
    probe::RequestSummary,
    records::Entry,
};

/// Number of failing runs that are listed per failure.
const MAX_LISTED_RUNS: usize = 5;

/// Maximum number of different failures, and of probes. No configuration has that many in use.
const MAX_GROUPS: usize = 50_000;

/// The runs of a period. Its JSON is the report with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    version: &'static str,
    #[serde(serialize_with = "in_record")]
    pub(super) since: SystemTime,
    #[serde(serialize_with = "in_record")]
    pub(super) until: SystemTime,
    /// Local clock minus that of a service in seconds, by the last response with a Date.
    #[serde(rename = "clock_offset_seconds", skip_serializing_if = "Option::is_none")]
    pub(super) clock_offset: Option<f64>,
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

/// What was probed. A reload can change what a probe's name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    probe: String,
    provider: String,
    check: &'static str,
    model: Option<String>,
}

impl Subject {
    fn of(entry: &Entry<'_>) -> Self {
        Self {
            probe: entry.probe.to_owned(),
            provider: entry.provider.to_owned(),
            check: entry.check.name(),
            model: entry.model.as_deref().map(str::to_owned),
        }
    }
}

/// Identifies a failure: runs that agree in these fields are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FailureKey {
    subject: Subject,
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
    /// Number of runs while the prober itself was offline. Beyond the first and last time, these
    /// count for the rest only if there are no others.
    pub(super) offline_runs: u64,
    /// Start of the probe's first failed run since its last success. `None` if it has recovered.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub(super) failing_since: Option<SystemTime>,
    /// The probe's last success in the period.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub(super) last_success: Option<SystemTime>,
    /// The probe's first success after the last of these runs.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub(super) recovered_at: Option<SystemTime>,
    #[serde(serialize_with = "in_record")]
    pub(super) first: SystemTime,
    #[serde(serialize_with = "in_record")]
    pub(super) last: SystemTime,
    /// Number of runs by HTTP status, without runs that had no response.
    pub(super) http_status: BTreeMap<u16, u64>,
    /// Base URL of the provider, as configured now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base_url: Option<String>,
    /// Name of the service for display, as configured now.
    #[serde(skip)]
    pub(super) service: Option<ServiceName>,
    /// The request, as configured now. `None` if the probe is no longer configured like that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<RequestSummary>,
    /// Whether the last run sent a request.
    pub(super) is_request_sent: bool,
    /// Address of the last connection; of the proxy, if one is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remote_address: Option<SocketAddr>,
    /// Addresses that the last run could not connect to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failed_addresses: Vec<FailedAddress>,
    /// Rate limits reported in the last run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ratelimit: Vec<RateLimit>,
    /// Earliest expiry in the certificate chain of the last run.
    #[serde(
        rename = "certificate_not_after",
        skip_serializing_if = "Option::is_none",
        serialize_with = "in_record"
    )]
    pub(super) certificate_end: Option<SystemTime>,
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
    /// Number of rechecks after these runs, and of those that succeeded.
    pub(super) rechecks: u64,
    pub(super) succeeded_rechecks: u64,
    /// The last runs, newest first.
    pub(super) latest: VecDeque<Instance>,
}

/// A service as configured now.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceName {
    /// Name for display.
    pub(super) name: &'static str,
    /// Whether it forwards requests to providers.
    pub(super) is_gateway: bool,
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
    /// Number of runs that failed while the prober itself was offline.
    pub(super) offline_runs: u64,
    /// Mean duration of the successes in seconds. `None` without one.
    #[serde(rename = "mean_success_duration_seconds", skip_serializing_if = "Option::is_none")]
    pub(super) mean_success: Option<f64>,
    #[serde(skip)]
    state: State,
}

/// Whether a probe fails, as it was configured last. Runs while the prober itself was offline are
/// left out.
#[derive(Debug)]
struct State {
    subject: Subject,
    last_success: Option<SystemTime>,
    /// Start of the first failed run since then.
    failing_since: Option<SystemTime>,
    /// Failures without a success since.
    open: Vec<FailureKey>,
    /// Failure of the last failed run, to which rechecks belong.
    last_failure: Option<FailureKey>,
}

impl Summary {
    pub(super) fn new(since: SystemTime, until: SystemTime) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            since,
            until,
            clock_offset: None,
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

    /// Completes the failures by the configuration and by the state of their probes.
    pub(super) fn complete(&mut self, config: &Config) {
        let probes: HashMap<&str, &Probe> =
            config.probes.iter().map(|probe| (probe.name.as_str(), &**probe)).collect();
        for failure in self.failures.values_mut() {
            if let Some(provider) = config.providers.get(&failure.provider) {
                failure.base_url = Some(provider.base_url.to_string());
                let is_gateway = provider.api.endpoint() == Fault::Gateway;
                failure.service = Some(ServiceName { name: provider.api.profile().display_name, is_gateway });
            }
            let probe = probes.get(failure.probe.as_str()).filter(|probe| failure.is_of(probe));
            failure.request = probe.and_then(|probe| RequestSummary::of(probe));
            let total = self.probes.get(&failure.probe);
            if let Some(Total { state, .. }) = total.filter(|total| total.state.is_of(failure)) {
                failure.last_success = state.last_success;
                failure.failing_since = state.failing_since.filter(|_| failure.recovered_at.is_none());
            }
        }
    }

    /// Adds a record.
    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        self.clock_offset = entry.clock_offset.or(self.clock_offset);
        if entry.recheck {
            self.add_recheck(entry);
            return;
        }
        if self.probes.len().max(self.failures.len()) >= MAX_GROUPS {
            self.damage.omitted_runs += 1;
            return;
        }
        let total = self.probes.entry(entry.probe.to_owned()).or_insert_with(|| Total::new(entry));
        total.runs += 1;
        let subject = Subject::of(entry);
        if total.state.subject != subject {
            total.state = State::new(subject);
        }
        if entry.reason == Reason::Ok {
            total.succeeded += 1;
            let seconds = entry.duration.as_secs_f64();
            let mean = total.mean_success.get_or_insert(seconds);
            *mean += (seconds - *mean) / total.succeeded as f64;
            for key in total.state.recover(entry.time) {
                let failure = self.failures.get_mut(&key);
                failure.expect("it is added before it is open").recovered_at = Some(entry.time);
            }
            return;
        }
        let key = FailureKey::of(entry);
        let failure = self.failures.entry(key.clone()).or_insert_with(|| Failure::new(entry));
        failure.add(entry);
        total.offline_runs += u64::from(entry.offline);
        total.state.last_failure = Some(key.clone());
        if !entry.offline {
            total.state.failing_since.get_or_insert(entry.time);
            if failure.recovered_at.take().is_some() || failure.evident_runs() == 1 {
                total.state.open.push(key);
            }
        }
    }

    /// Adds a recheck to the failure that it followed.
    fn add_recheck(&mut self, entry: &Entry<'_>) {
        let last = self.probes.get(entry.probe).and_then(|total| total.state.last_failure.as_ref());
        if let Some(failure) = last.and_then(|key| self.failures.get_mut(key)) {
            failure.rechecks += 1;
            failure.succeeded_rechecks += u64::from(entry.reason == Reason::Ok);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }

    /// Returns the failures, the most frequent first. Runs while the prober was offline count last.
    pub(super) fn failures(&self) -> Vec<&Failure> {
        let mut failures: Vec<&Failure> = self.failures.values().collect();
        failures.sort_by_key(|failure| std::cmp::Reverse((failure.evident_runs(), failure.count)));
        failures
    }
}

impl FailureKey {
    fn of(entry: &Entry<'_>) -> Self {
        Self {
            subject: Subject::of(entry),
            reason: entry.reason,
            fault: entry.fault,
            error_code: entry.error_code.map(str::to_owned),
            upstream: entry.upstream.map(str::to_owned),
        }
    }
}

impl Total {
    fn new(entry: &Entry<'_>) -> Self {
        Self {
            probe: entry.probe.to_owned(),
            runs: 0,
            succeeded: 0,
            offline_runs: 0,
            mean_success: None,
            state: State::new(Subject::of(entry)),
        }
    }
}

impl State {
    fn new(subject: Subject) -> Self {
        Self { subject, last_success: None, failing_since: None, open: Vec::new(), last_failure: None }
    }

    fn is_of(&self, failure: &Failure) -> bool {
        let Subject { provider, check, model, .. } = &self.subject;
        *provider == failure.provider && *check == failure.check.name() && *model == failure.model
    }

    /// Enters a success. Returns the failures that it ends.
    fn recover(&mut self, time: SystemTime) -> Vec<FailureKey> {
        self.last_success = Some(time);
        self.failing_since = None;
        mem::take(&mut self.open)
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
            offline_runs: 0,
            failing_since: None,
            last_success: None,
            recovered_at: None,
            first: entry.time,
            last: entry.time,
            http_status: BTreeMap::new(),
            base_url: None,
            service: None,
            request: None,
            is_request_sent: false,
            remote_address: None,
            failed_addresses: Vec::new(),
            ratelimit: Vec::new(),
            certificate_end: None,
            limited_by: None,
            retry_after: None,
            durations: Durations::default(),
            detail: String::new(),
            hint: String::new(),
            rechecks: 0,
            succeeded_rechecks: 0,
            latest: VecDeque::new(),
        }
    }

    /// Returns the number of runs that are evidence about the service.
    pub(super) fn evident_runs(&self) -> u64 {
        self.count - self.offline_runs
    }

    /// Returns whether the cause is an account: its key, permissions, credit or limits.
    pub(super) fn is_of_account(&self) -> bool {
        matches!(self.reason, Reason::AuthFailed | Reason::Permission | Reason::Billing | Reason::RateLimited)
    }

    /// Returns whether a probe of the configuration is the one that failed.
    fn is_of(&self, probe: &Probe) -> bool {
        self.provider == probe.provider.name && self.check == probe.check() && self.model == probe.model
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
        self.offline_runs += u64::from(entry.offline);
        match (entry.offline, self.evident_runs()) {
            (true, 1..) => return,
            (false, 1) => {
                self.durations = Durations::default();
                self.latest.clear();
            }
            _ => {}
        }
        self.durations.add(entry.duration, &entry.phases);
        self.remote_address = entry.remote_address.or(self.remote_address);
        // All time until the response of a status page is processing.
        let is_connected =
            !matches!(entry.reason, Reason::Dns | Reason::Connect | Reason::Tls | Reason::Proxy);
        self.is_request_sent = entry.check != Check::Network
            && (entry.http_status.is_some() || is_connected && !entry.phases.processing.is_zero());
        self.failed_addresses.clone_from(&entry.failed_addresses);
        self.ratelimit.clone_from(&entry.ratelimit);
        self.certificate_end = entry.certificate_end;
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
}
