//! Remedies for failures and findings, after LangMart's guide.

use crate::outcome::{Api, Check, Clue, Fault, LimitedBy, Outcome, Reason};

/// Returns the general hint for an outcome, where its cause has none of its own; empty on a success
/// without a finding.
pub(super) fn remedy(api: Api, check: Check, outcome: &Outcome) -> &'static str {
    if check == Check::Status {
        return status_page(outcome.reason);
    }
    if let Some(hint) = by_clue(outcome) {
        return hint;
    }
    refined(api, check, outcome).unwrap_or(outcome.reason.info().remedy)
}

/// Returns the hint for an outcome of which fault, status, limits or findings narrow the cause.
fn refined(api: Api, check: Check, outcome: &Outcome) -> Option<&'static str> {
    Some(match outcome.reason {
        Reason::Ok => finding(outcome),
        Reason::Dns | Reason::Timeout if answers_instead(outcome) => {
            "the system's resolver fails where another one answers: check /etc/resolv.conf, or use the other, such as 8.8.8.8"
        }
        Reason::Timeout if outcome.fault == Fault::Network => {
            "packets are lost on the network path: check firewall, proxy and DNS of this machine"
        }
        Reason::AuthFailed if outcome.fault == Fault::Provider => api.profile().stored_key_remedy,
        Reason::AuthFailed => return api.profile().key_remedy,
        Reason::Billing if outcome.fault == Fault::Provider => {
            "the provider account behind the gateway has no credit or quota: top it up or switch the connection"
        }
        Reason::RateLimited if outcome.fault == Fault::Provider => {
            "the gateway's provider account is at its limit: add connections to a pool or raise the provider's tier"
        }
        Reason::RateLimited => match outcome.limited_by.unwrap_or(LimitedBy::Unknown) {
            LimitedBy::Unknown if outcome.retry_after.is_some() => return None,
            limit => rate_limited(limit),
        },
        Reason::Unavailable if matches!(outcome.http_status, Some(403 | 404 | 405 | 410)) => {
            "check base_url; if it is right, the service behind this address is gone: check its deployment or status page"
        }
        Reason::ServerError if outcome.request_id.is_none() => {
            "the service failed: check its status page; contact support with the timestamps"
        }
        Reason::InvalidRequest => return invalid_request(check),
        Reason::UnmetExpectation if outcome.model_match == Some(false) => ANOTHER_MODEL,
        _ => return None,
    })
}

/// Remedy if another model answers.
const ANOTHER_MODEL: &str = "another model answered than the one requested: check the gateway's fallbacks, aliases and routing rules, and the model's list of deprecations";

/// Remedy if a stream arrives in bursts.
const HELD_BACK: &str = "a proxy or gateway holds the stream back: with nginx set proxy_buffering off, or send X-Accel-Buffering: no with the response; elsewhere switch off buffering, compression and response caching for text/event-stream";

/// Returns the hint for a success with a finding; empty without one.
fn finding(outcome: &Outcome) -> &'static str {
    if outcome.model_match == Some(false) {
        ANOTHER_MODEL
    } else if outcome.buffered == Some(true) {
        HELD_BACK
    } else {
        ""
    }
}

/// Returns the remedy of a failure with a clue. Returns `None` if the clue changes nothing.
fn by_clue(outcome: &Outcome) -> Option<&'static str> {
    Some(match (outcome.clue?, outcome.reason) {
        (Clue::Intermediary, Reason::AuthFailed | Reason::Permission) => {
            "the answer is not the API's, which may never have seen the request: check base_url, and the requirements of a proxy, CDN or firewall before the API; if it is the API's answer, check the key"
        }
        (Clue::Intermediary, Reason::ServerError) => {
            "a proxy or load balancer before the service answers in its place: check its log, and the service's status page"
        }
        (Clue::ModelRetired, Reason::ModelNotFound) => {
            "the model has been retired: set model to its successor in the provider's list of deprecations"
        }
        (Clue::RequestTooLarge, Reason::InvalidRequest) => {
            "the request is larger than the service, or a proxy before it, accepts: shorten the prompt, or raise the size limit there"
        }
        (Clue::RedirectToHttps, Reason::UnexpectedStatus) => {
            "write https:// in base_url: the server redirects plain http there, and a probe follows no redirect"
        }
        (Clue::EmptyAnswer, Reason::Malformed) => {
            "the answer is empty, although it was neither cut off nor filtered: use another model or provider if this repeats"
        }
        (Clue::ToolCall, Reason::NoContent) => {
            "the model called a tool that the request does not offer: change the prompt, or the gateway that adds tools"
        }
        _ => return None,
    })
}

/// Returns the remedy for each limit.
fn rate_limited(limit: LimitedBy) -> &'static str {
    match limit {
        LimitedBy::Requests => {
            "too many requests in a window: send fewer, raise intervals, spread them over providers, or raise the tier"
        }
        LimitedBy::Tokens => {
            "too many tokens in a window: shorten prompts, lower max_tokens, send fewer requests, or raise the tier"
        }
        LimitedBy::InputTokens => {
            "too many input tokens in a window: shorten prompts, send fewer requests, or raise the tier"
        }
        LimitedBy::OutputTokens => {
            "too many output tokens in a window: lower max_tokens, send fewer requests, or raise the tier"
        }
        LimitedBy::Concurrency => {
            "too many requests at the same time: lower max_concurrent_per_provider, or raise the tier"
        }
        LimitedBy::Day => {
            "a limit of the day is reached: wait for the next day, raise intervals, or raise the tier"
        }
        LimitedBy::Unknown => {
            "a limit is reached that the service does not name: send fewer requests, spread them over providers, or raise the tier"
        }
    }
}

/// Returns the remedy for a status page that cannot be read.
fn status_page(reason: Reason) -> &'static str {
    match reason {
        Reason::Ok => "",
        Reason::Internal => reason.info().remedy,
        Reason::Proxy => {
            "check proxy in the provider's section: address, port, credentials, and whether it allows the status page"
        }
        Reason::Dns | Reason::Connect | Reason::Tls | Reason::Timeout => {
            "the status page cannot be reached, which is no failure of the service: check status_url, DNS and firewall"
        }
        Reason::RateLimited => "too many requests for the status page: raise the interval",
        Reason::Disconnected
        | Reason::Overloaded
        | Reason::Unavailable
        | Reason::GatewayTimeout
        | Reason::ServerError => {
            "the status page itself fails, which is no failure of the service: see the other checks of the service"
        }
        _ => "check status_url: it must be a Statuspage summary.json, or Google's incidents.json",
    }
}

fn answers_instead(outcome: &Outcome) -> bool {
    outcome.network.as_ref().is_some_and(|network| network.answers_instead().is_some())
}

fn invalid_request(check: Check) -> Option<&'static str> {
    Some(match check {
        Check::Chat => "the probe's request is refused: check model, max_tokens and max_tokens_parameter",
        Check::Stream => {
            "the probe's request is refused: check model, max_tokens, max_tokens_parameter and include_usage"
        }
        Check::Http => "the probe's request is refused: check method, path, headers and body",
        _ => return None,
    })
}
