//! Result of one run.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    ops::Not,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{
    Balance, Clock, Compared, ConnectionUse, Detail, FailedAddress, Fault, LimitedBy, Network, Phases,
    RateLimit, Reason, StatusPage, StreamShape, Tls,
    time::{date, in_record},
};

/// Result of one run. A failed run is data, not an error. Records have its members, except those
/// without a value.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Start of the run, by the wall clock.
    #[serde(skip)]
    pub time: SystemTime,
    /// Reason of the result.
    pub reason: Reason,
    /// Party responsible for the failure.
    pub fault: Fault,
    /// Detail of the failure, or a remark on a success. `None` if the reason is sufficient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
    /// Remedy; empty on a success without a finding.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: Cow<'static, str>,
    /// HTTP status of the response. `None` if there was no response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// `1.0`, `1.1` or `2`. `None` if there was no response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_version: Option<&'static str>,
    /// Error code of the service, from the allowlist of `api::gate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<Cow<'static, str>>,
    /// Provider named in a gateway's error, from the allowlist. [`OTHER`] if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'static str>,
    /// Request ID assigned by the service, validated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Wait requested by the service, in seconds. `None` if it requested none or the run succeeded.
    #[serde(rename = "retry_after_seconds", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
    /// Limit exceeded by a rate-limited run. `None` for other results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<LimitedBy>,
    /// Processing time reported by the service. It is not verified and never subtracted from
    /// measurements. `None` if none is reported.
    #[serde(
        rename = "reported_processing_seconds",
        skip_serializing_if = "Option::is_none",
        serialize_with = "in_record"
    )]
    pub reported_processing: Option<Duration>,
    /// Date on which the requested model is announced to shut down. `None` if none is announced.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_date")]
    pub model_shutdown: Option<SystemTime>,
    /// The model that the response names, gated. `None` if it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_model: Option<Box<str>>,
    /// Whether that is the requested model. `None` if it cannot be decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_match: Option<bool>,
    /// Sum of the phases. It excludes the prober's own work between them.
    #[serde(rename = "duration_seconds", serialize_with = "in_record")]
    pub duration: Duration,
    /// Duration of each phase.
    pub phases: Phases,
    /// Address of the connection (of the proxy, if one is used).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_address: Option<SocketAddr>,
    /// Rate limits reported by the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ratelimit: Vec<RateLimit>,
    /// Result of the TLS handshake. `None` if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Addresses returned by the lookup; empty if there was none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Addresses of the host or proxy that could not be connected to, in the order of their
    /// failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_addresses: Vec<FailedAddress>,
    /// Clock of the arrival times. `None` if no HTTP connection was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// Findings of the network check. `None` for other checks.
    #[serde(flatten)]
    pub network: Option<Box<Network>>,
    /// Local clock minus the server's Date header in seconds, accurate to a second. `None` if the
    /// header is absent.
    #[serde(rename = "clock_offset_seconds", skip_serializing_if = "Option::is_none")]
    pub clock_offset: Option<f64>,
    /// Time from handing the request to the connection to the first visible content of a stream.
    /// `None` if there was none.
    #[serde(
        rename = "time_to_first_token_seconds",
        skip_serializing_if = "Option::is_none",
        serialize_with = "in_record"
    )]
    pub time_to_first_token: Option<Duration>,
    /// The same to the first reasoning content. `None` if there was none.
    #[serde(
        rename = "time_to_first_reasoning_seconds",
        skip_serializing_if = "Option::is_none",
        serialize_with = "in_record"
    )]
    pub time_to_first_reasoning: Option<Duration>,
    /// Mean time between the visible tokens of a complete stream. `None` if there were fewer than
    /// two, or the stream was buffered.
    #[serde(
        rename = "time_per_output_token_seconds",
        skip_serializing_if = "Option::is_none",
        serialize_with = "in_record"
    )]
    pub time_per_output_token: Option<Duration>,
    /// Arrival of the content of a stream. `None` without content, and for other checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Box<StreamShape>>,
    /// Whether an intermediary held a complete stream back. `None` if that is undecided, as below
    /// 64 tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffered: Option<bool>,
    /// Input tokens, as reported by the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Input tokens served by the provider's prompt cache. `None` if they are not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input_tokens: Option<u64>,
    /// Output tokens including reasoning, as reported by the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Whether one of the counts is an estimate, because the service reported none.
    #[serde(skip_serializing_if = "Not::not")]
    pub tokens_estimated: bool,
    /// Cost of the tokens in US dollars, by the probe's price. `None` without a price or token
    /// counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_cost_usd: Option<f64>,
    /// Content of the status page. `None` for other checks, and if the page could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_page: Option<StatusPage>,
    /// Remaining balance of the account. `None` if it is not reported, unlimited, or not in US
    /// dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// Number of the recheck after a failed run, from 1. `None` if it was not a recheck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recheck: Option<u32>,
    /// Origin of the connection of a probe that keeps it alive. `None` if each run has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionUse>,
    /// Whether it succeeded, but took longer than the probe's `slow_after`.
    #[serde(skip_serializing_if = "Not::not")]
    pub slow: bool,
    /// Whether it failed on the network while the prober itself was offline, so that it is no
    /// evidence about the service.
    #[serde(skip_serializing_if = "Not::not")]
    pub offline: bool,
    /// Comparison that the run belongs to. `None` if there is none, or if it was run by hand.
    #[serde(flatten)]
    pub compared: Option<Box<Compared>>,
}

/// Serializes a time by its date.
#[expect(clippy::ref_option, reason = "serde passes a field by reference")]
fn as_date<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(date).serialize(serializer)
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
            detail: None,
            hint: Cow::Borrowed(""),
            http_status: None,
            http_version: None,
            error_code: None,
            upstream: None,
            request_id: None,
            retry_after: None,
            limited_by: None,
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
            offline: false,
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

    /// Returns the detail without remarks.
    pub fn cause(&self) -> Option<&Detail> {
        self.detail.as_ref().map(Detail::cause)
    }

    /// Returns whether the run succeeded.
    pub fn success(&self) -> bool {
        self.reason == Reason::Ok
    }
}
