//! What one probe has done so far, as numbers: written by its runs, read by scrapes and by the landing page.

use std::{
    array,
    collections::BTreeMap,
    sync::{Arc, MutexGuard},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    streak::Streak,
    text,
    values::{Bound, Counter, Gauge, Histogram, Sum},
};
use crate::{
    config::Probe,
    outcome::{
        Balance, DnsServer, Fault, LimitedBy, Network, Outcome, Phases, RateLimit, Reason, Resource,
        SkipCause, StatusPage, Subject, Tls, possible_failures, unix_seconds,
    },
    sync::Mutex,
};

/// Distinct error codes of a probe that have a series of their own; those after them share `other`.
const MAX_ERROR_CODES: usize = 64;

const DURATION_BOUNDS: &[Bound] = &[
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (1.0, "1"),
    (2.0, "2"),
    (5.0, "5"),
    (10.0, "10"),
    (15.0, "15"),
    (30.0, "30"),
    (60.0, "60"),
    (90.0, "90"),
    (120.0, "120"),
];

const FIRST_TOKEN_BOUNDS: &[Bound] = &[
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (0.75, "0.75"),
    (1.0, "1"),
    (1.5, "1.5"),
    (2.0, "2"),
    (3.0, "3"),
    (5.0, "5"),
    (7.5, "7.5"),
    (10.0, "10"),
    (20.0, "20"),
    (30.0, "30"),
    (60.0, "60"),
];

const PER_TOKEN_BOUNDS: &[Bound] = &[
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.075, "0.075"),
    (0.1, "0.1"),
    (0.15, "0.15"),
    (0.2, "0.2"),
    (0.3, "0.3"),
    (0.4, "0.4"),
    (0.5, "0.5"),
    (0.75, "0.75"),
    (1.0, "1"),
    (2.5, "2.5"),
];

/// The most that one hint adds to the sum of hints, in seconds: a month.
const LONGEST_HINT: f64 = 31.0 * 86_400.0;

/// The series of one probe. What a reload may change belongs to this struct, what it must not is shared.
#[derive(Debug)]
pub struct Series {
    probe: Arc<Probe>,
    /// `probe`, `provider`, `check` and `model`, rendered once.
    pub(super) labels: String,
    /// All labels of `langmart_probe_info`: the same four, then what describes the probe.
    pub(super) info: String,
    /// The failures that have a series from the start.
    pub(super) expected: Vec<(Reason, Fault)>,
    pub(super) values: Arc<Values>,
}

/// What the last run of a probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Last {
    /// When it began.
    pub time: SystemTime,
    /// When it ended, by the clock that is not set.
    pub(super) ended: Instant,
    /// Why it ended as it did.
    pub reason: Reason,
    /// Whose part failed.
    pub fault: Fault,
    /// What to do about it, in our own words; empty on success.
    pub hint: &'static str,
    /// How long it took.
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

/// The numbers of one probe, kept as long as probe, provider, check and model stay the same.
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
    /// What the name servers said in the last run of a network check.
    dns_servers: Mutex<Vec<DnsServer>>,
    last: Mutex<Option<Last>>,
    status_page: Mutex<Option<StatusPage>>,
    balance: Mutex<Option<Balance>>,
    /// When a run that reported the limits of a resource began, and the limits.
    rate_limits: Mutex<[Option<(SystemTime, RateLimit)>; Resource::ALL.len()]>,
    error_codes: Mutex<BTreeMap<String, u64>>,
}

impl Series {
    /// The series of a probe that was not configured before.
    pub(super) fn new(probe: &Arc<Probe>) -> Self {
        Self::over(probe, Arc::new(Values::new()))
    }

    /// The series of a probe in a new configuration, with the numbers that it had so far.
    pub(super) fn over(probe: &Arc<Probe>, values: Arc<Values>) -> Self {
        let Subject { probe: name, provider, check, model } = probe.subject();
        let labels = text::labels([
            ("probe", name),
            ("provider", provider),
            ("check", check.name()),
            ("model", model.unwrap_or_default()),
        ]);
        let own = [
            ("host", probe.host()),
            ("api", probe.provider.api.name()),
            ("connection", probe.connection.name()),
        ];
        let configured = probe.provider.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let info = format!("{labels},{}", text::labels(own.into_iter().chain(configured)));
        let expected = possible_failures(probe.provider.api, check);
        Self { probe: Arc::clone(probe), labels, info, expected, values }
    }

    /// The probe that these are the series of.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// What the last run found; `None` before the first.
    pub fn last(&self) -> Option<Last> {
        *lock(&self.values.last)
    }

    /// Takes a finished run in.
    pub fn observe(&self, outcome: &Outcome) {
        // Taken apart in full, so that a new member of the outcome does not compile until it is exported here or
        // named as not exported: what is not, the records have.
        let &Outcome {
            time,
            reason,
            fault,
            detail: _,
            hint,
            http_status,
            http_version: _,
            ref error_code,
            upstream: _,
            request_id: _,
            retry_after,
            limited_by,
            clue: _,
            reported_processing,
            model_shutdown,
            // A name from the network is no label.
            answered_model: _,
            model_match,
            duration,
            phases,
            remote_address: _,
            ref ratelimit,
            tls,
            dns: _,
            // An address is no label.
            failed_addresses: _,
            clock: _,
            ref network,
            clock_offset,
            time_to_first_token,
            time_to_first_reasoning: _,
            time_per_output_token,
            stream: _,
            buffered,
            input_tokens: _,
            cached_input_tokens: _,
            output_tokens: _,
            tokens_estimated: _,
            estimated_cost_usd: _,
            ref status_page,
            balance,
            recheck: _,
            connection: _,
            slow,
            // A pair is the comparison's, not the probe's.
            compared: _,
        } = outcome;
        let values = &*self.values;
        values.slow_runs.add(u64::from(slow));
        values.count_run(time, reason, fault, duration);
        for (sum, phase) in values.phases.iter().zip(phases.durations()) {
            sum.add(phase.as_secs_f64());
        }
        values.count_answer(http_status, error_code.as_deref(), retry_after);
        values.keep_rate_limits(time, ratelimit);
        if let Some(limit) = limited_by {
            values.rate_limited[limit as usize].add(1);
        }
        values.reported_processing.set(reported_processing.map_or(f64::NAN, |time| time.as_secs_f64()));
        // A failure that shows no list leaves what is announced.
        if outcome.success() || model_shutdown.is_some() {
            values.model_shutdown.set(model_shutdown.map_or(f64::NAN, unix_seconds));
        }
        values.keep_findings(model_match, buffered);
        if let Some(tls) = tls {
            values.keep_handshake(tls);
        }
        if let Some(Network { dns_servers }) = network.as_deref() {
            lock(&values.dns_servers).clone_from(dns_servers);
        }
        if let Some(offset) = clock_offset {
            values.clock_offset.set(offset);
        }
        if let Some(duration) = time_to_first_token {
            values.time_to_first_token.observe(duration.as_secs_f64());
        }
        if let Some(duration) = time_per_output_token {
            values.time_per_output_token.observe(duration.as_secs_f64());
        }
        values.spend(outcome);
        lock(&values.status_page).clone_from(status_page);
        // A failure that tells no balance leaves the last one standing; after a success without one there is none.
        if balance.is_some() || outcome.success() {
            *lock(&values.balance) = balance;
        }
        let streak = self.streak_after(reason, fault);
        *lock(&values.last) = Some(Last {
            time,
            ended: Instant::now(),
            reason,
            fault,
            hint,
            duration,
            phases,
            http_status,
            retry_after,
            time_to_first_token,
            streak,
            model_match: values.model_match.value().map(|value| value > 0.0),
            buffered: values.buffered.value().map(|value| value > 0.0),
        });
    }

    /// The runs in a row, with one more that ended so.
    fn streak_after(&self, reason: Reason, fault: Fault) -> Streak {
        let streak = self.last().map_or_else(Streak::default, |last| last.streak);
        streak.after(reason, fault, self.probe.check().addresses_service())
    }

    /// Takes in an attempt after a failed run: what it spent, and how it ended, which is no run's result.
    pub fn observe_recheck(&self, outcome: &Outcome) {
        let [ok, failed] = &self.values.rechecks;
        if outcome.success() { ok } else { failed }.add(1);
        self.observe_demanded(outcome);
    }

    /// Takes in an attempt that somebody asked for: what it spent, and nothing else.
    pub fn observe_demanded(&self, outcome: &Outcome) {
        self.values.spend(outcome);
    }

    /// Takes over when the probe ran and succeeded last before a restart; `None`: that is not known.
    pub fn restore(&self, last_run: Option<SystemTime>, last_success: Option<SystemTime>) {
        for (gauge, time) in [(&self.values.last_run, last_run), (&self.values.last_success, last_success)] {
            if let Some(time) = time {
                gauge.set(unix_seconds(time));
            }
        }
    }

    /// Says when the next run is due, waits included, and until when the probe backs off; `None`: it does not.
    pub fn waiting(&self, next_run: SystemTime, backoff_until: Option<SystemTime>) {
        self.values.next_run.set(unix_seconds(next_run));
        self.values.backoff_until.set(backoff_until.map_or(0.0, unix_seconds));
    }

    /// Counts due runs that did not take place.
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
            time_to_first_token: Histogram::new(FIRST_TOKEN_BOUNDS),
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

    /// What the status page said in the last run; `None`: that is not known.
    pub(super) fn status_page(&self) -> MutexGuard<'_, Option<StatusPage>> {
        lock(&self.status_page)
    }

    /// The balance as last told.
    pub(super) fn balance(&self) -> Option<Balance> {
        *lock(&self.balance)
    }

    /// Version and cipher suite of the last good handshake of a network check; `None` before there was one.
    pub(super) fn tls(&self) -> Option<(&'static str, &'static str)> {
        *lock(&self.tls)
    }

    /// What the name servers said in the last run of a network check, the system's resolver first.
    pub(super) fn dns_servers(&self) -> MutexGuard<'_, Vec<DnsServer>> {
        lock(&self.dns_servers)
    }

    /// The codes seen so far, with their counts.
    pub(super) fn error_codes(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        lock(&self.error_codes)
    }

    /// The limits last reported, by a run that began at most so long ago. A reset that has passed does not end them.
    pub(super) fn rate_limits(&self, now: SystemTime, longest: Duration) -> Vec<RateLimit> {
        let is_recent = |begun| now.duration_since(begun).unwrap_or_default() <= longest;
        let limits = lock(&self.rate_limits).into_iter().flatten();
        limits.filter_map(|(begun, limit)| is_recent(begun).then_some(limit)).collect()
    }

    /// When a run began, and how it ended.
    fn count_run(&self, time: SystemTime, reason: Reason, fault: Fault, duration: Duration) {
        let success = reason == Reason::Ok;
        self.runs.add(1);
        self.last_run.set(unix_seconds(time));
        if success {
            self.last_success.set(unix_seconds(time));
        } else {
            self.failures.of(reason, fault).add(1);
        }
        // A quick refusal would flatter the quantiles, a timeout left out would as well.
        if success || matches!(reason, Reason::Timeout | Reason::StreamStalled) {
            self.duration.observe(duration.as_secs_f64());
        }
    }

    /// What the service answered: status, its own code, and for how many seconds it asks to wait.
    fn count_answer(&self, http_status: Option<u16>, error_code: Option<&str>, retry_after: Option<f64>) {
        if let Some(status) = http_status {
            self.responses.of(status).add(1);
        }
        if let Some(code) = error_code {
            self.count_error_code(code);
        }
        if let Some(seconds) = retry_after {
            self.retry_after_hints.add(1);
            // An absurd one would make the sum deaf to all later ones.
            self.retry_after_seconds.add(seconds.min(LONGEST_HINT));
        }
    }

    /// Keeps what the last run that could decide found of the model and the stream.
    fn keep_findings(&self, model_match: Option<bool>, buffered: Option<bool>) {
        if let Some(matches) = model_match {
            self.model_match.set(f64::from(u8::from(matches)));
            self.model_mismatches.add(u64::from(!matches));
        }
        if let Some(buffered) = buffered {
            self.buffered.set(f64::from(u8::from(buffered)));
            self.buffered_streams.add(u64::from(buffered));
        }
    }

    /// What of the handshake is known replaces what was known before.
    fn keep_handshake(&self, Tls { version, cipher, not_after }: Tls) {
        if let Some(not_after) = not_after {
            self.certificate_not_after.set(unix_seconds(not_after));
        }
        if let Some(session) = version.zip(cipher) {
            *lock(&self.tls) = Some(session);
        }
    }

    /// What an attempt took, in tokens and US dollars; `None`: that is not known, or it took none.
    fn spend(&self, outcome: &Outcome) {
        self.input_tokens.add(outcome.input_tokens.unwrap_or(0));
        self.cached_input_tokens.add(outcome.cached_input_tokens.unwrap_or(0));
        self.output_tokens.add(outcome.output_tokens.unwrap_or(0));
        self.cost.add(outcome.estimated_cost_usd.unwrap_or(0.0));
    }

    fn count_error_code(&self, code: &str) {
        let mut codes = lock(&self.error_codes);
        if let Some(count) = codes.get_mut(code) {
            *count += 1;
        } else if codes.len() < MAX_ERROR_CODES {
            codes.insert(code.to_owned(), 1);
        } else {
            *codes.entry("other".to_owned()).or_default() += 1;
        }
    }

    /// Each resource has the limits of the last run that reported them; a run that reported none of it changes nothing.
    fn keep_rate_limits(&self, begun: SystemTime, reported: &[RateLimit]) {
        let mut kept = lock(&self.rate_limits);
        for (slot, &resource) in kept.iter_mut().zip(Resource::ALL) {
            let windows = reported.iter().filter(|limit| limit.resource == resource);
            if let Some(tightest) = windows.min_by(|one, other| share_left(one).total_cmp(&share_left(other)))
            {
                *slot = Some((begun, *tightest));
            }
        }
    }
}

/// The share of a window that is left. A window that does not tell comes after all that do.
fn share_left(limit: &RateLimit) -> f64 {
    match (limit.limit, limit.remaining) {
        (Some(0), Some(_)) => 0.0,
        (Some(limit), Some(remaining)) => remaining as f64 / limit as f64,
        (_, None) | (None, Some(_)) => f64::INFINITY,
    }
}

/// One counter for each pair of reason and fault, also for those that should not occur: nothing is lost.
#[derive(Debug)]
pub(super) struct Failures([Counter; Reason::ALL.len() * Fault::ALL.len()]);

impl Failures {
    pub(super) fn of(&self, reason: Reason, fault: Fault) -> &Counter {
        &self.0[reason as usize * Fault::ALL.len() + fault as usize]
    }
}

/// Statuses registered with IANA (as of 2026), and after them those that the providers use beside: Groq's 498 and
/// 499, Cloudflare's 524, Anthropic's 529. Sorted.
const STATUSES: [u16; 66] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421,
    422, 423, 424, 425, 426, 428, 429, 431, 451, 498, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510,
    511, 524, 529,
];

/// One counter for each status, and a last one for all others.
#[derive(Debug)]
pub(super) struct Responses([Counter; STATUSES.len() + 1]);

impl Responses {
    fn of(&self, status: u16) -> &Counter {
        &self.0[STATUSES.binary_search(&status).unwrap_or(STATUSES.len())]
    }

    /// The counters by status; `None`: all other statuses.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let statuses = STATUSES.into_iter().map(Some).chain([None]);
        statuses.zip(&self.0).map(|(status, counter)| (status, counter.value()))
    }
}

/// A panic elsewhere leaves numbers, which are never half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
