//! What to do about a failure, by the guide's remedies, in our own words.

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
    match outcome.reason {
        Reason::Ok => finding(outcome),
        Reason::Dns | Reason::Timeout if answers_instead(outcome) => {
            "the system's resolver fails where another one answers: check /etc/resolv.conf, or use the other, such as 8.8.8.8"
        }
        Reason::Dns => {
            "check /etc/resolv.conf and the name in base_url; ask another resolver: nslookup HOST 8.8.8.8"
        }
        Reason::Connect => {
            "check that firewalls let this machine out to the port, and that base_url names the right one"
        }
        Reason::Proxy => {
            "check proxy in the provider's section: address, port, credentials, and whether it allows the target"
        }
        Reason::Tls => {
            "check proxies, firewalls and TLS inspection between here and the service, and that the port speaks TLS"
        }
        Reason::Timeout if outcome.fault == Fault::Network => {
            "packets are lost on the way: check firewall, proxy and DNS of this machine"
        }
        Reason::Timeout => {
            "the service is slow: compare other models and providers; raise timeout if this model needs longer"
        }
        Reason::Disconnected => {
            "the service dropped the connection: if it goes on, give the support the times and request ids"
        }
        Reason::AuthFailed => auth_failed(api, outcome.fault),
        Reason::Permission => {
            "the key is known but may not do this: check its scopes, project, region and IP restrictions, and that its account is open"
        }
        Reason::Billing if outcome.fault == Fault::Provider => {
            "the provider account behind the gateway has no credit or quota: top it up or switch the connection"
        }
        Reason::Billing => "add credit or raise the spend limit of this account; waiting does not help",
        Reason::RateLimited if outcome.fault == Fault::Provider => {
            "the gateway's provider account is at its limit: add connections to a pool or raise the provider's tier"
        }
        Reason::RateLimited
            if matches!(outcome.limited_by, None | Some(LimitedBy::Unknown))
                && outcome.retry_after.is_some() =>
        {
            "wait as asked; send fewer requests, spread them over providers, or raise the tier"
        }
        Reason::RateLimited => rate_limited(outcome.limited_by.unwrap_or(LimitedBy::Unknown)),
        Reason::Overloaded => {
            "the service has too much to do: use another model or provider until it recovers"
        }
        Reason::Unavailable if matches!(outcome.http_status, Some(403 | 404 | 405 | 410)) => {
            "check base_url; if it is right, the service behind this address is gone: look at its deployment or status page"
        }
        Reason::Unavailable => {
            "look at the service's status page for maintenance or incidents; use another provider meanwhile"
        }
        Reason::GatewayTimeout => {
            "make the request smaller, stream it, or use a faster model; look at the provider's status"
        }
        Reason::ServerError if outcome.request_id.is_none() => {
            "the service failed: look at its status page; contact support with the timestamps"
        }
        Reason::ServerError => {
            "the service failed: look at its status page; contact support with the request ID"
        }
        Reason::ModelNotFound => {
            "the model is unknown or retired: see the models check or the provider's model list"
        }
        Reason::InvalidRequest => invalid_request(check),
        Reason::UnexpectedStatus => "check base_url and paths: this status is none that the API documents",
        Reason::Malformed => {
            "check base_url: something other than the API may be answering, a proxy or portal perhaps"
        }
        Reason::ErrorIn200 => "the service reports an error under a success status: look at its status page",
        Reason::NoContent => {
            "raise max_tokens or take a model that does not reason; change the prompt if it is filtered"
        }
        Reason::WrongAnswer => {
            "the model answers something else than it is asked for: look at the service's status page, use another model or provider, and report it with the request ID"
        }
        Reason::StreamError => {
            "the service gave up while it answered: look at its status page; give the support the request id"
        }
        Reason::StreamTruncated => {
            "the service or a proxy on the way cut the stream off: check idle and response time limits there"
        }
        Reason::StreamStalled => {
            "the stream fell silent: raise stall_timeout if this model thinks longer; look at the service's status"
        }
        Reason::UnmetExpectation if outcome.model_match == Some(false) => ANOTHER_MODEL,
        Reason::UnmetExpectation => {
            "the response is not what expect asks for: look at it with once --verbose, or at expect"
        }
        Reason::Internal => "the prober itself is short of something: see its log, LimitNOFILE and memory",
    }
}

/// What to do if another model answers.
const ANOTHER_MODEL: &str = "another model answered than the one requested: check the gateway's fallbacks, aliases and routing rules, and the model's list of deprecations";

/// What to do if a stream arrives in bursts.
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

/// The hint for a failure whose clue says more than its reason.
fn by_clue(outcome: &Outcome) -> Option<&'static str> {
    Some(match (outcome.clue?, outcome.reason) {
        (Clue::Intermediary, Reason::AuthFailed | Reason::Permission) => {
            "the answer is not the API's, which may never have seen the request: check base_url, and what a proxy, CDN or firewall before the API wants; if the API does answer so, check the key"
        }
        (Clue::Intermediary, Reason::ServerError) => {
            "a proxy or load balancer before the service answers in its place: look at its log, and at the service's status page"
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
            "the model answered nothing, although it was neither cut off nor filtered: use another model or provider if it repeats"
        }
        (Clue::ToolCall, Reason::NoContent) => {
            "the model called a tool that the request does not offer: change the prompt, or the gateway that adds tools"
        }
        _ => return None,
    })
}

/// What to do about each limit.
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

/// Whatever fails here is a page about the service: what it would say is unknown.
fn status_page(reason: Reason) -> &'static str {
    match reason {
        Reason::Ok => "",
        Reason::Internal => "the prober itself is short of something: see its log, LimitNOFILE and memory",
        Reason::Proxy => {
            "check proxy in the provider's section: address, port, credentials, and whether it allows the status page"
        }
        Reason::Dns | Reason::Connect | Reason::Tls | Reason::Timeout => {
            "the status page cannot be reached, which says nothing of the service: check status_url, DNS and firewall"
        }
        Reason::RateLimited => "the status page is asked too often: raise the interval",
        Reason::Disconnected
        | Reason::Overloaded
        | Reason::Unavailable
        | Reason::GatewayTimeout
        | Reason::ServerError => {
            "the status page itself fails, which says nothing of the service: its other checks tell how it is"
        }
        _ => "check status_url: it must be a Statuspage summary.json, or Google's incidents.json",
    }
}

fn answers_instead(outcome: &Outcome) -> bool {
    outcome.network.as_ref().is_some_and(|network| network.answers_instead().is_some())
}

fn auth_failed(api: Api, fault: Fault) -> &'static str {
    match (fault, api) {
        (Fault::Provider, Api::Openrouter) => {
            "the provider refuses the key that OpenRouter uses: replace your own (BYOK) in its settings; another is its matter"
        }
        (Fault::Provider, _) => {
            "the provider key stored in the gateway is bad: replace it under Connections and press Test there"
        }
        (_, Api::Langmart) => {
            "check the key under Settings > API Keys: active, complete, of this environment; make a new one"
        }
        _ => "check the key in the provider's console: active, complete, of this environment; make a new one",
    }
}

fn invalid_request(check: Check) -> &'static str {
    match check {
        Check::Chat => "the probe's request is refused: check model, max_tokens and max_tokens_parameter",
        Check::Stream => {
            "the probe's request is refused: check model, max_tokens, max_tokens_parameter and include_usage"
        }
        Check::Http => "the probe's request is refused: check method, path, headers and body",
        Check::Network | Check::Health | Check::Auth | Check::Models | Check::Status | Check::Balance => {
            "the probe's request is refused: check base_url and the check's path"
        }
    }
}
