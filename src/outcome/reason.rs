//! Reasons, and the table of their implications.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Api, Check, Fault};

/// Implications of a reason.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct ReasonInfo {
    /// The reason in a few words.
    pub summary: &'static str,
    /// The remedy, unless the outcome allows a more specific one; empty on success.
    pub remedy: &'static str,
    /// The checks whose runs can end for this reason.
    checks: &'static [Check],
    /// The possible responsible parties, the usual one first.
    parties: &'static [Party],
    /// Whether an upstream provider named in the body is responsible. It is not if the probe itself
    /// is wrong, or if there was no body.
    blames_upstream: bool,
    /// The backoff after a failure without a hint.
    pub backoff: BackoffClass,
    /// Whether a failed completion costs nothing, because no model can have answered.
    pub is_free: bool,
    /// Whether it often passes within seconds, so that a recheck is useful.
    pub is_brief: bool,
    /// Whether the duration of the run counts. Fast refusals would lower the percentiles, and so
    /// would the absence of timeouts.
    pub is_timed: bool,
}

/// A party in the table of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    /// The same for every API.
    Is(Fault),
    /// The addressed service: gateway or provider.
    Endpoint,
}

/// Bound of a backoff without a hint, which doubles with each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffClass {
    /// No backoff.
    None,
    /// Up to four intervals.
    Short,
    /// Up to `max_backoff`.
    Long,
}

const NETWORK: Party = Party::Is(Fault::Network);
const CALLER: Party = Party::Is(Fault::Caller);

/// Checks that send a request.
const REQUESTS: &[Check] = &[
    Check::Health,
    Check::Auth,
    Check::Models,
    Check::Chat,
    Check::Stream,
    Check::Status,
    Check::Balance,
    Check::Http,
];
const COMPLETIONS: &[Check] = &[Check::Chat, Check::Stream];
const STREAM: &[Check] = &[Check::Stream];

/// A failure of a request, for which the addressed service is responsible.
const SERVICE: ReasonInfo = ReasonInfo {
    summary: "",
    remedy: "",
    checks: REQUESTS,
    parties: &[Party::Endpoint],
    blames_upstream: false,
    backoff: BackoffClass::None,
    is_free: false,
    is_brief: false,
    is_timed: false,
};
/// A failure of the service, or of an upstream provider that it names.
const UPSTREAM: ReasonInfo = ReasonInfo { blames_upstream: true, ..SERVICE };
/// A failure on the network path, of any check.
const PATH: ReasonInfo = ReasonInfo { checks: Check::ALL, parties: &[NETWORK], ..SERVICE };
/// A refusal caused by the operator's account, or by the gateway's account at a named upstream
/// provider.
const ACCOUNT: ReasonInfo = ReasonInfo { parties: &[CALLER], is_free: true, ..UPSTREAM };
/// A request that is wrong.
const REQUEST: ReasonInfo = ReasonInfo { parties: &[CALLER], is_free: true, ..SERVICE };

/// Declares the reasons: name, summary, implications (a base and the differences from it), remedy.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $summary:literal, $base:ident { $($field:ident: $value:expr),* }
        => $remedy:literal;)+) => {
        named! {
            /// Reason of a result.
            Reason { $($(#[$doc])* $variant = $name,)+ }
        }

        /// Implications of each reason, in the order of [`Reason::ALL`].
        static REASONS: [ReasonInfo; Reason::ALL.len()] =
            [$(ReasonInfo { summary: $summary, remedy: $remedy, $($field: $value,)* ..$base },)+];
    };
}

reasons! {
    /// Success.
    Ok = "ok", "succeeded", SERVICE { checks: &[], parties: &[Party::Is(Fault::None)], is_timed: true }
        => "";
    /// The name could not be resolved.
    Dns = "dns", "name does not resolve", PATH {}
        => "check /etc/resolv.conf and the name in base_url; ask another resolver: nslookup HOST 8.8.8.8";
    /// The connection was refused, or the address is unreachable.
    Connect = "connect", "no connection", PATH { is_brief: true }
        => "check that firewalls let this machine out to the port, and that base_url names the right one";
    /// The proxy failed or requires credentials.
    Proxy = "proxy", "proxy failed", PATH {}
        => "check proxy in the provider's section: address, port, credentials, and whether it allows the target";
    /// The handshake or the certificate failed.
    Tls = "tls", "TLS failed", PATH { parties: &[NETWORK, Party::Endpoint, CALLER] }
        => "check proxies, firewalls and TLS inspection between here and the service, and that the port speaks TLS";
    /// The probe's timeout passed.
    Timeout = "timeout", "timed out", PATH { parties: &[NETWORK, Party::Endpoint], is_timed: true }
        => "the service is slow: compare other models and providers; raise timeout if this model needs longer";
    /// Closed or reset before the response was complete.
    Disconnected = "disconnected", "disconnected", SERVICE {}
        => "the service dropped the connection: if it repeats, contact support with the timestamps and request IDs";
    /// The key is missing, wrong, expired or revoked.
    AuthFailed = "auth_failed", "key rejected", ACCOUNT {}
        => "check the key in the provider's console: active, complete, of this environment; create a new one";
    /// The key is valid, but not permitted to do this.
    Permission = "permission", "not permitted", ACCOUNT {}
        => "the key is known but may not do this: check its scopes, project, region and IP restrictions, and that its account is open";
    /// Credit, quota or spend limit exhausted. Retrying does not help.
    Billing = "billing", "credit or quota used up", ACCOUNT { backoff: BackoffClass::Long }
        => "add credit or raise the spend limit of this account; waiting does not help";
    /// Too many requests or tokens in a short time. Waiting helps.
    RateLimited = "rate_limited", "rate limited", ACCOUNT { backoff: BackoffClass::Long }
        => "wait as asked; send fewer requests, spread them over providers, or raise the tier";
    /// The service reports that it is overloaded.
    Overloaded = "overloaded", "overloaded", UPSTREAM { backoff: BackoffClass::Short, is_free: true }
        => "the service has no capacity: use another model or provider until it recovers";
    /// Other 503.
    Unavailable = "unavailable", "unavailable", UPSTREAM { is_free: true, is_brief: true }
        => "check the service's status page for maintenance or incidents; use another provider meanwhile";
    /// 504, 524, or 408 answered by the server.
    GatewayTimeout = "gateway_timeout", "gateway timeout", UPSTREAM { is_brief: true }
        => "make the request smaller, stream it, or use a faster model; check the provider's status";
    /// Other 5xx.
    ServerError = "server_error", "server error", UPSTREAM { is_free: true }
        => "the service failed: check its status page; contact support with the request ID";
    /// Unknown or retired model, or one missing from the list.
    ModelNotFound = "model_not_found", "model not found", REQUEST { checks: &[Check::Models, Check::Chat, Check::Stream, Check::Http] }
        => "the model is unknown or retired: see the models check or the provider's model list";
    /// Other 4xx. The probe is wrong, not the service.
    InvalidRequest = "invalid_request", "request rejected", REQUEST {}
        => "the probe's request is refused: check base_url and the check's path";
    /// 3xx and any other status.
    UnexpectedStatus = "unexpected_status", "unexpected status", UPSTREAM { is_free: true }
        => "check base_url and paths: this status is none that the API documents";
    /// 2xx with a response that violates the API.
    Malformed = "malformed", "malformed response", SERVICE {}
        => "check base_url: something other than the API may be answering, a proxy or portal perhaps";
    /// 2xx with an error in the body.
    ErrorIn200 = "error_in_200", "error inside a 200", UPSTREAM { checks: &[Check::Auth, Check::Models, Check::Chat, Check::Stream, Check::Balance] }
        => "the service reports an error under a success status: check its status page";
    /// Completed without visible content.
    NoContent = "no_content", "no visible content", REQUEST { checks: COMPLETIONS, is_free: false }
        => "raise max_tokens or use a model that does not reason; change the prompt if it is filtered";
    /// Completed, but the answer does not meet the built-in expectation.
    WrongAnswer = "wrong_answer", "wrong answer", SERVICE { checks: COMPLETIONS }
        => "the model answers something other than the prompt requests: check the service's status page, use another model or provider, and report it with the request ID";
    /// An error inside a stream that began successfully.
    StreamError = "stream_error", "error in the stream", UPSTREAM { checks: STREAM }
        => "the service gave up while it answered: check its status page; contact support with the request ID";
    /// A stream ended without its end marker.
    StreamTruncated = "stream_truncated", "stream truncated", SERVICE { checks: STREAM }
        => "the service or a proxy before it cut the stream off: check idle and response time limits there";
    /// No bytes of a stream for the probe's `stall_timeout`.
    StreamStalled = "stream_stalled", "stream stalled", SERVICE { checks: STREAM, is_timed: true }
        => "the stream fell silent: raise stall_timeout if this model thinks longer; check the service's status";
    /// The custom expectation is not met.
    UnmetExpectation = "unmet_expectation", "expectation not met", SERVICE { checks: &[Check::Chat, Check::Stream, Check::Http] }
        => "the response is not what expect asks for: compare it, by once --verbose, with expect";
    /// The prober itself failed.
    Internal = "internal", "prober failed", PATH { parties: &[Party::Is(Fault::Prober)] }
        => "the prober itself is short of something: see its log, LimitNOFILE and memory";
}

impl Party {
    const fn fault(self, api: Api) -> Fault {
        match self {
            Self::Is(fault) => fault,
            Self::Endpoint => api.endpoint(),
        }
    }
}

impl Reason {
    /// Returns the implications of the reason.
    pub const fn info(self) -> &'static ReasonInfo {
        &REASONS[self as usize]
    }

    /// Returns the party responsible for a failed response. `upstream_blamed` is true if the body
    /// names an upstream provider as the cause.
    pub fn fault(self, api: Api, upstream_blamed: bool) -> Fault {
        let ReasonInfo { parties, blames_upstream, .. } = self.info();
        if upstream_blamed && *blames_upstream { Fault::Provider } else { parties[0].fault(api) }
    }
}

/// Returns every possible failure of this check against this API, so that each has a counter from
/// the start.
pub fn possible_failures(api: Api, check: Check) -> Vec<(Reason, Fault)> {
    let mut pairs = Vec::new();
    for &reason in Reason::ALL {
        let info = reason.info();
        if !info.checks.contains(&check) {
            continue;
        }
        let faults = info.parties.iter().map(|party| party.fault(api));
        let upstream = info.blames_upstream && api.endpoint() == Fault::Gateway;
        let faults = faults.chain(upstream.then_some(Fault::Provider));
        // The network check sends no request that the endpoint could be slow to answer.
        let silent = check == Check::Network && reason == Reason::Timeout;
        pairs.extend(
            faults.take(if silent { 1 } else { usize::MAX }).map(|fault| (reason, check.blame(fault))),
        );
    }
    // Two faults of a reason can lead to the same party; they are adjacent.
    pairs.dedup();
    pairs
}
