//! Result of one run.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use super::{
    Balance, Clock, Clue, Compared, ConnectionUse, FailedAddress, Fault, LimitedBy, Network, Phases,
    RateLimit, Reason, StatusPage, StreamShape, Tls,
};

/// Result of one run. A failed run is data, not an error.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Start of the run, by the wall clock.
    pub time: SystemTime,
    /// Reason of the result.
    pub reason: Reason,
    /// Party responsible for the failure.
    pub fault: Fault,
    /// Details of the failure; empty if the reason is sufficient.
    pub detail: Cow<'static, str>,
    /// Remedy; empty on a success without a finding.
    pub hint: &'static str,
    /// HTTP status of the response. `None` if there was no response.
    pub http_status: Option<u16>,
    /// `1.0`, `1.1` or `2`. `None` if there was no response.
    pub http_version: Option<&'static str>,
    /// Error code of the service, from the allowlist of `probe::gate`.
    pub error_code: Option<Cow<'static, str>>,
    /// Provider named in a gateway's error, from the allowlist. [`OTHER`] if it is unknown.
    pub upstream: Option<&'static str>,
    /// Request ID assigned by the service, validated.
    pub request_id: Option<String>,
    /// Wait requested by the service, in seconds. `None` if it requested none or the run succeeded.
    pub retry_after: Option<f64>,
    /// Limit exceeded by a rate-limited run. `None` for other results.
    pub limited_by: Option<LimitedBy>,
    /// Detail of the failure that its remedy depends on. `None` if there is none.
    pub clue: Option<Clue>,
    /// Processing time reported by the service. It is not verified and never subtracted from
    /// measurements. `None` if none is reported.
    pub reported_processing: Option<Duration>,
    /// Date on which the requested model is announced to shut down. `None` if none is announced.
    pub model_shutdown: Option<SystemTime>,
    /// The model that the response names, gated; `None` if it names none.
    pub answered_model: Option<Box<str>>,
    /// Whether that is the requested model; `None` if it cannot be decided.
    pub model_match: Option<bool>,
    /// Sum of the phases. It excludes the prober's own work between them.
    pub duration: Duration,
    /// Duration of each phase.
    pub phases: Phases,
    /// Address of the connection (of the proxy, if one is used).
    pub remote_address: Option<SocketAddr>,
    /// Rate limits reported by the response.
    pub ratelimit: Vec<RateLimit>,
    /// Result of the TLS handshake. `None` if there was none.
    pub tls: Option<Tls>,
    /// Addresses returned by the lookup; empty if there was none.
    pub dns: Vec<IpAddr>,
    /// Addresses of the host or proxy that could not be connected to, in the order of their
    /// failure.
    pub failed_addresses: Vec<FailedAddress>,
    /// Clock of the arrival times. `None` if no HTTP connection was made.
    pub clock: Option<Clock>,
    /// Findings of the network check. `None` for other checks.
    pub network: Option<Box<Network>>,
    /// Local clock minus the server's Date header in seconds, accurate to a second. `None` if the
    /// header is absent.
    pub clock_offset: Option<f64>,
    /// Time from handing the request to the connection to the first visible content of a stream.
    /// `None` if there was none.
    pub time_to_first_token: Option<Duration>,
    /// The same to the first reasoning content. `None` if there was none.
    pub time_to_first_reasoning: Option<Duration>,
    /// Mean time between the visible tokens of a complete stream. `None` if there were fewer than
    /// two, or the stream was buffered.
    pub time_per_output_token: Option<Duration>,
    /// Arrival of the content of a stream. `None` without content, and for other checks.
    pub stream: Option<Box<StreamShape>>,
    /// Whether an intermediary held a complete stream back. `None` if that is undecided, as below
    /// 64 tokens.
    pub buffered: Option<bool>,
    /// Input tokens, as reported by the service.
    pub input_tokens: Option<u64>,
    /// Input tokens served by the provider's prompt cache. `None` if they are not reported.
    pub cached_input_tokens: Option<u64>,
    /// Output tokens including reasoning, as reported by the service.
    pub output_tokens: Option<u64>,
    /// Whether one of the counts is an estimate, because the service reported none.
    pub tokens_estimated: bool,
    /// Cost of the tokens in US dollars, by the probe's price. `None` without a price or token
    /// counts.
    pub estimated_cost_usd: Option<f64>,
    /// Content of the status page. `None` for other checks, and if the page could not be read.
    pub status_page: Option<StatusPage>,
    /// Remaining balance of the account. `None` if it is not reported, unlimited, or not in US
    /// dollars.
    pub balance: Option<Balance>,
    /// Number of the recheck after a failed run, from 1. `None` if it was not a recheck.
    pub recheck: Option<u32>,
    /// Origin of the connection of a probe that keeps it alive. `None` if each run has its own.
    pub connection: Option<ConnectionUse>,
    /// Whether it succeeded, but took longer than the probe's `slow_after`.
    pub slow: bool,
    /// Comparison that the run belongs to. `None` if there is none, or if it was run by hand.
    pub compared: Option<Box<Compared>>,
}

/// Minimum number of output tokens for measuring the speed and for detecting a buffered stream. A
/// shorter answer arrives in a few pieces at random distances.
pub const MIN_SPEED_TOKENS: u64 = 64;

/// Substitute for codes and names from the network that are not on the allowlist.
pub const OTHER: &str = "other";

impl Outcome {
    /// Creates an outcome with a verdict only.
    pub fn new(time: SystemTime, reason: Reason, fault: Fault) -> Self {
        Self {
            time,
            reason,
            fault,
            detail: Cow::Borrowed(""),
            hint: "",
            http_status: None,
            http_version: None,
            error_code: None,
            upstream: None,
            request_id: None,
            retry_after: None,
            limited_by: None,
            clue: None,
            reported_processing: None,
            model_shutdown: None,
            answered_model: None,
            model_match: None,
            duration: Duration::ZERO,
            phases: Phases::default(),
            remote_address: None,
            ratelimit: Vec::new(),
            tls: None,
            dns: Vec::new(),
            failed_addresses: Vec::new(),
            clock: None,
            network: None,
            clock_offset: None,
            time_to_first_token: None,
            time_to_first_reasoning: None,
            time_per_output_token: None,
            stream: None,
            buffered: None,
            input_tokens: None,
            cached_input_tokens: None,
            output_tokens: None,
            tokens_estimated: false,
            estimated_cost_usd: None,
            status_page: None,
            balance: None,
            recheck: None,
            connection: None,
            slow: false,
            compared: None,
        }
    }

    /// Returns the upstream's name, if it is known. `other` is a label and not a name.
    pub fn known_upstream(&self) -> Option<&'static str> {
        self.upstream.filter(|name| *name != OTHER)
    }

    /// Returns the time between tokens, of a stream that is long enough to measure it.
    pub fn token_time(&self) -> Option<Duration> {
        let is_long = self.output_tokens.is_some_and(|tokens| tokens >= MIN_SPEED_TOKENS);
        self.time_per_output_token.filter(|_| is_long)
    }

    /// Returns whether the run succeeded.
    pub fn success(&self) -> bool {
        self.reason == Reason::Ok
    }
}
