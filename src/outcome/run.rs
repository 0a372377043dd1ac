//! What one run found.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use super::{
    Balance, Clock, Clue, Compared, ConnectionUse, FailedAddress, Fault, LimitedBy, Network, Phases,
    RateLimit, Reason, StatusPage, Tls,
};

/// What one run found. A failed run is data like any other.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When the run began, by the wall clock.
    pub time: SystemTime,
    /// Why it ended as it did.
    pub reason: Reason,
    /// Whose part failed.
    pub fault: Fault,
    /// What exactly happened, in our own words; empty where the reason says it all.
    pub detail: Cow<'static, str>,
    /// What to do about it, in our own words; empty on success.
    pub hint: &'static str,
    /// Status of the response; `None` without one.
    pub http_status: Option<u16>,
    /// `1.0`, `1.1` or `2`; `None` without a response.
    pub http_version: Option<&'static str>,
    /// The service's own code, gated: see `probe::gate`.
    pub error_code: Option<Cow<'static, str>>,
    /// The provider that a gateway's error names, gated; [`OTHER`]: one that we do not know.
    pub upstream: Option<&'static str>,
    /// The service's id of the request, gated.
    pub request_id: Option<String>,
    /// How long the service asks to wait, in seconds, as received; `None` where it does not ask or the run succeeded.
    pub retry_after: Option<f64>,
    /// The limit that a rate-limited run has met; `None` for any other result.
    pub limited_by: Option<LimitedBy>,
    /// A detail of the failure that its remedy depends on; `None` if there is none.
    pub clue: Option<Clue>,
    /// Processing time that the service itself reports: a claim, never subtracted from our own measurement. `None` if it
    /// reports none.
    pub reported_processing: Option<Duration>,
    /// Date on which the requested model is announced to shut down; `None` if none is announced.
    pub model_shutdown: Option<SystemTime>,
    /// The sum of the phases: what the run waited for, without the prober's own work in between.
    pub duration: Duration,
    /// Where the duration went.
    pub phases: Phases,
    /// The address that the connection went to (a proxy's, where one is set).
    pub remote_address: Option<SocketAddr>,
    /// Limits told by the response.
    pub ratelimit: Vec<RateLimit>,
    /// What the TLS handshake showed; `None` without one.
    pub tls: Option<Tls>,
    /// What the lookup answered; empty without one.
    pub dns: Vec<IpAddr>,
    /// Addresses of the host, or of the proxy, without a connection, in the order in which they failed.
    pub failed_addresses: Vec<FailedAddress>,
    /// The clock of the arrival times; `None` where no HTTP connection was made.
    pub clock: Option<Clock>,
    /// What only the network check finds; `None` for the others.
    pub network: Option<Box<Network>>,
    /// Our clock minus the server's Date header, in seconds, good to a second; `None` where it sent none.
    pub clock_offset: Option<f64>,
    /// From handing the request to the connection until the first visible content of a stream arrived; `None` where
    /// there was none, or no stream.
    pub time_to_first_token: Option<Duration>,
    /// The same until the first piece of reasoning; `None` where none was shown.
    pub time_to_first_reasoning: Option<Duration>,
    /// Between the visible tokens of a complete stream, on average; `None` where it cannot be told: fewer than two, or
    /// all of them in one piece.
    pub time_per_output_token: Option<Duration>,
    /// Tokens of the prompt, as the service counted them.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer, as the service counted them, reasoning included.
    pub output_tokens: Option<u64>,
    /// Whether one of the counts is our estimate, because the service told none.
    pub tokens_estimated: bool,
    /// What the tokens cost in US dollars, by the probe's price; `None` where it has none, or no tokens are known.
    pub estimated_cost_usd: Option<f64>,
    /// What the status page says; `None` for other checks, and where the page could not be read.
    pub status_page: Option<StatusPage>,
    /// What is left on the account; `None` where it was not told, is unlimited, or is not in US dollars.
    pub balance: Option<Balance>,
    /// Which attempt after a failed run this was, from 1 on; `None`: it was a run.
    pub recheck: Option<u32>,
    /// Where the connection of a probe that keeps it came from; `None`: each run of the probe has its own.
    pub connection: Option<ConnectionUse>,
    /// Whether it succeeded, but took longer than the probe's `slow_after`.
    pub slow: bool,
    /// The comparison that the run belongs to; `None`: to none, or it was run by hand.
    pub compared: Option<Box<Compared>>,
}

/// What stands for a code or a name of the network's that we do not know.
pub const OTHER: &str = "other";

impl Outcome {
    /// An outcome with nothing but its verdict.
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
            input_tokens: None,
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

    /// The upstream, if it is one whose name we know: `other` is a label, no name for a sentence.
    pub fn known_upstream(&self) -> Option<&'static str> {
        self.upstream.filter(|name| *name != OTHER)
    }

    /// Whether the run succeeded.
    pub fn success(&self) -> bool {
        self.reason == Reason::Ok
    }
}
