//! The values of one probe, written by its runs and read by scrapes and the status page.

use std::{
    array,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    families::flag,
    histogram::{Bound, Histogram},
    page::Labels,
    streak::Streak,
    values::{Counter, Gauge, Sum},
};
use crate::{
    config::Probe,
    outcome::{
        Balance, DnsServer, Fault, LimitedBy, Network, Outcome, Phases, RateLimit, Reason, Resource,
        SkipCause, StatusPage, Subject, Tls, possible_failures, unix_seconds,
    },
    sync::Mutex,
};

/// Maximum number of error codes of a probe with a series of their own; further ones share `other`.
const MAX_ERROR_CODES: usize = 64;

/// Bounds of durations and times to first token. From 50 ms to 30 s each is at most 1.24 times the
/// one before, so that a value in the middle of a bucket is at most 12 % off.
const DURATION_BOUNDS: &[Bound] = &[
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.06, "0.06"),
    (0.071, "0.071"),
    (0.084, "0.084"),
    (0.1, "0.1"),
    (0.123, "0.123"),
    (0.152, "0.152"),
    (0.187, "0.187"),
    (0.23, "0.23"),
    (0.285, "0.285"),
    (0.35, "0.35"),
    (0.43, "0.43"),
    (0.53, "0.53"),
    (0.655, "0.655"),
    (0.81, "0.81"),
    (1.0, "1"),
    (1.23, "1.23"),
    (1.52, "1.52"),
    (1.87, "1.87"),
    (2.3, "2.3"),
    (2.85, "2.85"),
    (3.5, "3.5"),
    (4.3, "4.3"),
    (5.3, "5.3"),
    (6.55, "6.55"),
    (8.1, "8.1"),
    (10.0, "10"),
    (12.0, "12"),
    (14.4, "14.4"),
    (17.3, "17.3"),
    (20.8, "20.8"),
    (25.0, "25"),
    (30.0, "30"),
    (60.0, "60"),
    (120.0, "120"),
];

/// Bounds of times per output token, as fine from 4 ms to 1 s: 250 to 1 tokens per second.
const PER_TOKEN_BOUNDS: &[Bound] = &[
    (0.002, "0.002"),
    (0.004, "0.004"),
    (0.0049, "0.0049"),
    (0.006, "0.006"),
    (0.0074, "0.0074"),
    (0.009, "0.009"),
    (0.011, "0.011"),
    (0.0135, "0.0135"),
    (0.0165, "0.0165"),
    (0.02, "0.02"),
    (0.0245, "0.0245"),
    (0.03, "0.03"),
    (0.037, "0.037"),
    (0.045, "0.045"),
    (0.055, "0.055"),
    (0.067, "0.067"),
    (0.082, "0.082"),
    (0.1, "0.1"),
    (0.123, "0.123"),
    (0.152, "0.152"),
    (0.187, "0.187"),
    (0.23, "0.23"),
    (0.285, "0.285"),
    (0.35, "0.35"),
    (0.43, "0.43"),
    (0.53, "0.53"),
    (0.655, "0.655"),
    (0.81, "0.81"),
    (1.0, "1"),
    (2.5, "2.5"),
    (5.0, "5"),
];

/// Maximum number of seconds that one hint adds to the sum of hints: a month.
const MAX_HINT_SECONDS: f64 = 31.0 * 86_400.0;

/// Series of one probe. Its values are shared across reloads; the other members are created again.
#[derive(Debug)]
pub struct Series {
    probe: Arc<Probe>,
    /// `probe`, `provider`, `check` and `model`, rendered once.
    pub(super) labels: Labels,
    /// All labels of `langmart_probe_info`: the same four, then the description of the probe.
    pub(super) info: Labels,
    /// Whether a failure has a series from the start, by [`Failures::index`].
    pub(super) expected: [bool; Failures::COUNT],
    pub(super) values: Arc<Values>,
}

/// Result of the last run of a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Last {
    /// Start of the run.
    pub time: SystemTime,
    /// End of the run, by the monotonic clock.
    pub(super) ended: Instant,
    /// Reason of the result.
    pub reason: Reason,
    /// Responsible party.
    pub fault: Fault,
    /// Duration of the run.
    pub duration: Duration,
    pub(super) phases: Phases,
    pub(super) http_status: Option<u16>,
    pub(super) retry_after: Option<f64>,
    pub(super) time_to_first_token: Option<Duration>,
    pub(super) streak: Streak,
    /// Whether the requested model answered, by the last run that could decide; `None` before the
    /// first.
    pub model_match: Option<bool>,
    /// Whether the stream was held back, by the last run that could decide; `None` before the
    /// first.
    pub buffered: Option<bool>,
}

/// Values of one probe, kept across reloads as long as probe, provider, check and model are the
/// same.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) runs: Counter,
    pub(super) slow_runs: Counter,
    /// Attempts after failed runs: those that succeeded, and those that did not.
    pub(super) rechecks: [Counter; 2],
    pub(super) failures: Failures,
    pub(super) duration: Histogram,
    /// In the order of [`Phases::NAMES`].
    pub(super) phases: [Sum; Phases::NAMES.len()],
    pub(super) responses: Responses,
    pub(super) retry_after_hints: Counter,
    pub(super) retry_after_seconds: Sum,
    /// In the order of [`LimitedBy::ALL`].
    pub(super) rate_limited: [Counter; LimitedBy::ALL.len()],
    /// Of the last run.
    pub(super) reported_processing: Gauge,
    pub(super) model_shutdown: Gauge,
    /// 1 or 0 of the last run that could decide.
    pub(super) model_match: Gauge,
    pub(super) model_mismatches: Counter,
    pub(super) buffered: Gauge,
    pub(super) buffered_streams: Counter,
    pub(super) next_run: Gauge,
    pub(super) backoff_until: Gauge,
    /// In the order of [`SkipCause::ALL`].
    pub(super) skipped: [Counter; SkipCause::ALL.len()],
    pub(super) time_to_first_token: Histogram,
    pub(super) time_per_output_token: Histogram,
    pub(super) input_tokens: Counter,
    pub(super) cached_input_tokens: Counter,
    pub(super) output_tokens: Counter,
    /// US dollars.
    pub(super) cost: Sum,
    pub(super) certificate_not_after: Gauge,
    pub(super) clock_offset: Gauge,
    pub(super) last_run: Gauge,
    pub(super) last_success: Gauge,
    /// Version and cipher suite of the last good handshake of a network check.
    tls: Mutex<Option<(&'static str, &'static str)>>,
    /// Answers of the name servers in the last run of a network check.
    dns_servers: Mutex<Vec<DnsServer>>,
    last: Mutex<Option<Last>>,
    status_page: Mutex<Option<StatusPage>>,
    balance: Mutex<Option<Balance>>,
    /// Start of the run that reported the limits of a resource, and the limits.
    rate_limits: Mutex<[Option<(SystemTime, RateLimit)>; Resource::ALL.len()]>,
    error_codes: Mutex<BTreeMap<String, u64>>,
}

impl Series {
    /// Creates the series of a new probe.
    pub(super) fn new(probe: &Arc<Probe>) -> Self {
        Self::over(probe, Arc::new(Values::new()))
    }

    /// Creates the series of a probe in a new configuration, with its previous values.
    pub(super) fn over(probe: &Arc<Probe>, values: Arc<Values>) -> Self {
        let Subject { probe: name, provider, check, model } = probe.subject();
        let subject = [
            ("probe", name),
            ("provider", provider),
            ("check", check.name()),
            ("model", model.unwrap_or_default()),
        ];
        let own = [
            ("host", probe.host()),
            ("api", probe.provider.api.name()),
            ("connection", probe.connection.name()),
        ];
        let configured = probe.provider.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let info = Labels::new(subject.into_iter().chain(own).chain(configured));
        let labels = Labels::new(subject);
        let mut expected = [false; Failures::COUNT];
        for (reason, fault) in possible_failures(probe.provider.api, check) {
            expected[Failures::index(reason, fault)] = true;
        }
        Self { probe: Arc::clone(probe), labels, info, expected, values }
    }

    /// Returns the probe.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Returns the result of the last run. Returns `None` before the first run.
    pub fn last(&self) -> Option<Last> {
        *self.values.last.lock()
    }

    /// Observes a finished run.
    pub fn observe(&self, outcome: &Outcome) {
        let &Outcome { time, reason, fault, duration, phases, http_status, retry_after, .. } = outcome;
        let values = &*self.values;
        values.count_run(outcome);
        values.count_answer(outcome);
        values.keep_findings(outcome);
        values.keep_answer(outcome);
        values.spend(outcome);
        let streak = self.streak_after(reason, fault);
        *values.last.lock() = Some(Last {
            time,
            ended: Instant::now(),
            reason,
            fault,
            duration,
            phases,
            http_status,
            retry_after,
            time_to_first_token: outcome.time_to_first_token,
            streak,
            model_match: values.model_match.value().map(|value| value > 0.0),
            buffered: values.buffered.value().map(|value| value > 0.0),
        });
    }

    /// Returns the counts of consecutive runs, including this one.
    fn streak_after(&self, reason: Reason, fault: Fault) -> Streak {
        let streak = self.last().map_or_else(Streak::default, |last| last.streak);
        streak.after(reason, fault, self.probe.check().addresses_service())
    }

    /// Counts a recheck and its tokens. It does not count as a run.
    pub fn observe_recheck(&self, outcome: &Outcome) {
        let [ok, failed] = &self.values.rechecks;
        if outcome.success() { ok } else { failed }.add(1);
        self.observe_demanded(outcome);
    }

    /// Counts only the tokens and costs of an on-demand run.
    pub fn observe_demanded(&self, outcome: &Outcome) {
        self.values.spend(outcome);
    }

    /// Restores the times of the last run and the last success from before a restart, if they are
    /// known.
    pub fn restore(&self, last_run: Option<SystemTime>, last_success: Option<SystemTime>) {
        for (gauge, time) in [(&self.values.last_run, last_run), (&self.values.last_success, last_success)] {
            if let Some(time) = time {
                gauge.set(unix_seconds(time));
            }
        }
    }

    /// Sets the time of the next run and the end of the backoff. `None` if the probe does not back
    /// off.
    pub fn waiting(&self, next_run: SystemTime, backoff_until: Option<SystemTime>) {
        self.values.next_run.set(unix_seconds(next_run));
        self.values.backoff_until.set(backoff_until.map_or(0.0, unix_seconds));
    }

    /// Counts scheduled runs that did not take place.
    pub fn skipped(&self, cause: SkipCause, runs: u64) {
        self.values.skipped[cause as usize].add(runs);
    }
}

impl Values {
    fn new() -> Self {
        Self {
            runs: Counter::default(),
            slow_runs: Counter::default(),
            rechecks: Default::default(),
            failures: Failures(array::from_fn(|_| Counter::default())),
            duration: Histogram::new(DURATION_BOUNDS),
            phases: Default::default(),
            responses: Responses(array::from_fn(|_| Counter::default())),
            retry_after_hints: Counter::default(),
            retry_after_seconds: Sum::default(),
            rate_limited: Default::default(),
            reported_processing: Gauge::absent(),
            model_shutdown: Gauge::absent(),
            model_match: Gauge::absent(),
            model_mismatches: Counter::default(),
            buffered: Gauge::absent(),
            buffered_streams: Counter::default(),
            next_run: Gauge::absent(),
            backoff_until: Gauge::absent(),
            skipped: Default::default(),
            time_to_first_token: Histogram::new(DURATION_BOUNDS),
            time_per_output_token: Histogram::new(PER_TOKEN_BOUNDS),
            input_tokens: Counter::default(),
            cached_input_tokens: Counter::default(),
            output_tokens: Counter::default(),
            cost: Sum::default(),
            certificate_not_after: Gauge::absent(),
            clock_offset: Gauge::absent(),
            last_run: Gauge::absent(),
            last_success: Gauge::absent(),
            tls: Mutex::default(),
            dns_servers: Mutex::default(),
            last: Mutex::default(),
            status_page: Mutex::default(),
            balance: Mutex::default(),
            rate_limits: Mutex::default(),
            error_codes: Mutex::default(),
        }
    }

    /// Returns the status page of the last run. It is `None` if it is unknown.
    pub(super) fn status_page(&self) -> Option<StatusPage> {
        self.status_page.lock().clone()
    }

    /// Returns the balance, as last reported.
    pub(super) fn balance(&self) -> Option<Balance> {
        *self.balance.lock()
    }

    /// Returns version and cipher suite of the last successful handshake of a network check.
    /// Returns `None` before the first.
    pub(super) fn tls(&self) -> Option<(&'static str, &'static str)> {
        *self.tls.lock()
    }

    /// Returns the answers of the name servers in the last run of a network check, that of the
    /// system's resolver first.
    pub(super) fn dns_servers(&self) -> Vec<DnsServer> {
        self.dns_servers.lock().clone()
    }

    /// Returns the error codes so far, with their counts.
    pub(super) fn error_codes(&self) -> BTreeMap<String, u64> {
        self.error_codes.lock().clone()
    }

    /// Returns the limits of runs that began at most `max_age` ago. A reset that has passed does
    /// not remove them.
    pub(super) fn rate_limits(&self, now: SystemTime, max_age: Duration) -> Vec<RateLimit> {
        let is_recent = |begun| now.duration_since(begun).unwrap_or_default() <= max_age;
        let limits = self.rate_limits.lock().into_iter().flatten();
        limits.filter_map(|(begun, limit)| is_recent(begun).then_some(limit)).collect()
    }

    /// Counts a run by its result, with the time that it took.
    fn count_run(&self, outcome: &Outcome) {
        let &Outcome { time, reason, fault, duration, phases, slow, .. } = outcome;
        self.runs.add(1);
        self.slow_runs.add(u64::from(slow));
        self.last_run.set(unix_seconds(time));
        if outcome.success() {
            self.last_success.set(unix_seconds(time));
        } else {
            self.failures.of(reason, fault).add(1);
        }
        if reason.info().is_timed {
            self.duration.observe(duration.as_secs_f64(), outcome.time, outcome.request_id.as_deref());
        }
        for (sum, phase) in self.phases.iter().zip(phases.durations()) {
            sum.add(phase.as_secs_f64());
        }
    }

    /// Counts the response: status, code, wait and limits; the times of a stream.
    fn count_answer(&self, outcome: &Outcome) {
        if let Some(status) = outcome.http_status {
            self.responses.of(status).add(1);
        }
        if let Some(code) = &outcome.error_code {
            self.count_error_code(code);
        }
        if let Some(seconds) = outcome.retry_after {
            self.retry_after_hints.add(1);
            // An absurd wait would hide all later ones in the sum.
            self.retry_after_seconds.add(seconds.min(MAX_HINT_SECONDS));
        }
        if let Some(limit) = outcome.limited_by {
            self.rate_limited[limit as usize].add(1);
        }
        self.keep_rate_limits(outcome.time, &outcome.ratelimit);
        let processing = outcome.reported_processing;
        self.reported_processing.set(processing.map_or(f64::NAN, |time| time.as_secs_f64()));
        if let Some(time) = outcome.time_to_first_token {
            self.time_to_first_token.observe(time.as_secs_f64(), outcome.time, outcome.request_id.as_deref());
        }
        if let Some(time) = outcome.time_per_output_token {
            self.time_per_output_token.observe(
                time.as_secs_f64(),
                outcome.time,
                outcome.request_id.as_deref(),
            );
        }
    }

    /// Keeps what replaces earlier findings.
    fn keep_findings(&self, outcome: &Outcome) {
        let Outcome { model_shutdown, tls, network, clock_offset, status_page, balance, .. } = outcome;
        // A failure without a list leaves what is announced.
        if outcome.success() || model_shutdown.is_some() {
            self.model_shutdown.set(model_shutdown.map_or(f64::NAN, unix_seconds));
        }
        if let Some(tls) = tls {
            self.keep_handshake(*tls);
        }
        if let Some(Network { dns_servers }) = network.as_deref() {
            self.dns_servers.lock().clone_from(dns_servers);
        }
        if let Some(offset) = clock_offset {
            self.clock_offset.set(*offset);
        }
        self.status_page.lock().clone_from(status_page);
        // A failure without a balance leaves the last one; a success without one removes it.
        if balance.is_some() || outcome.success() {
            *self.balance.lock() = *balance;
        }
    }

    /// Keeps whether the requested model answered and whether the stream was buffered, if the run
    /// could decide it.
    fn keep_answer(&self, outcome: &Outcome) {
        if let Some(matches) = outcome.model_match {
            self.model_match.set(flag(matches));
            self.model_mismatches.add(u64::from(!matches));
        }
        if let Some(buffered) = outcome.buffered {
            self.buffered.set(flag(buffered));
            self.buffered_streams.add(u64::from(buffered));
        }
    }

    /// Keeps the known facts of a handshake.
    fn keep_handshake(&self, Tls { version, cipher, not_after }: Tls) {
        if let Some(not_after) = not_after {
            self.certificate_not_after.set(unix_seconds(not_after));
        }
        if let Some(session) = version.zip(cipher) {
            *self.tls.lock() = Some(session);
        }
    }

    /// Adds the tokens and US dollars that an attempt took, as far as they are known.
    fn spend(&self, outcome: &Outcome) {
        self.input_tokens.add(outcome.input_tokens.unwrap_or(0));
        self.cached_input_tokens.add(outcome.cached_input_tokens.unwrap_or(0));
        self.output_tokens.add(outcome.output_tokens.unwrap_or(0));
        self.cost.add(outcome.estimated_cost_usd.unwrap_or(0.0));
    }

    fn count_error_code(&self, code: &str) {
        let mut codes = self.error_codes.lock();
        if let Some(count) = codes.get_mut(code) {
            *count += 1;
        } else if codes.len() < MAX_ERROR_CODES {
            codes.insert(code.to_owned(), 1);
        } else {
            *codes.entry("other".to_owned()).or_default() += 1;
        }
    }

    /// Keeps the limits of each resource that the run reported, of several windows the tightest
    /// one.
    fn keep_rate_limits(&self, begun: SystemTime, reported: &[RateLimit]) {
        let mut kept = self.rate_limits.lock();
        for (slot, &resource) in kept.iter_mut().zip(Resource::ALL) {
            let windows = reported.iter().filter(|limit| limit.resource == resource);
            if let Some(tightest) = windows.min_by(|one, other| share_left(one).total_cmp(&share_left(other)))
            {
                *slot = Some((begun, *tightest));
            }
        }
    }
}

/// Returns the remaining share of a window. It is infinite if it is unknown.
fn share_left(limit: &RateLimit) -> f64 {
    match (limit.limit, limit.remaining) {
        (Some(0), Some(_)) => 0.0,
        (Some(limit), Some(remaining)) => remaining as f64 / limit as f64,
        (_, None) | (None, Some(_)) => f64::INFINITY,
    }
}

/// Counters of each pair of reason and fault, including those that should not occur.
#[derive(Debug)]
pub(super) struct Failures([Counter; Self::COUNT]);

impl Failures {
    /// Number of combinations.
    pub(super) const COUNT: usize = Reason::ALL.len() * Fault::ALL.len();

    /// Returns the place of a combination.
    pub(super) fn index(reason: Reason, fault: Fault) -> usize {
        reason as usize * Fault::ALL.len() + fault as usize
    }

    pub(super) fn of(&self, reason: Reason, fault: Fault) -> &Counter {
        &self.0[Self::index(reason, fault)]
    }
}

/// Statuses registered with IANA (as of 2026), and those that providers use besides: Groq's 498 and
/// 499, Cloudflare's 524, Anthropic's 529. Sorted.
const STATUSES: [u16; 66] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421,
    422, 423, 424, 425, 426, 428, 429, 431, 451, 498, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510,
    511, 524, 529,
];

/// Counters of each status, and a last one for all others.
#[derive(Debug)]
pub(super) struct Responses([Counter; STATUSES.len() + 1]);

impl Responses {
    fn of(&self, status: u16) -> &Counter {
        &self.0[STATUSES.binary_search(&status).unwrap_or(STATUSES.len())]
    }

    /// Iterates over the counters by status. The status is `None` for all others.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let statuses = STATUSES.into_iter().map(Some).chain([None]);
        statuses.zip(&self.0).map(|(status, counter)| (status, counter.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bounds: &[Bound], start: f64, end: f64) {
        for (bound, label) in bounds {
            assert_eq!(label.parse(), Ok(*bound));
        }
        let bounds: Vec<f64> = bounds.iter().map(|(bound, _)| *bound).collect();
        assert!(bounds.contains(&start) && bounds.contains(&end) && bounds.len() < 40);
        for pair in bounds.windows(2) {
            let ratio = pair[1] / pair[0];
            let most = if (start..end).contains(&pair[0]) { 1.24 } else { 3.0 };
            assert!(ratio > 1.0 && ratio <= most, "{pair:?}");
        }
    }

    #[test]
    fn values_in_the_middle_of_buckets_are_12_per_cent_off() {
        check(DURATION_BOUNDS, 0.05, 30.0);
        check(PER_TOKEN_BOUNDS, 0.004, 1.0);
    }
}
