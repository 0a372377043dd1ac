//! The reason of a refusal, by status, codes and messages.

use reqwest::{
    Url,
    header::{HeaderMap, LOCATION, WWW_AUTHENTICATE},
};

use super::{classify::proxy_refusal, exchange::Response};
use crate::{
    api::{
        Dialect,
        body::{Body, ErrorBody},
        words::{self, LOST_ROUTE_HEADERS, Words},
    },
    config::{Probe, Task},
    outcome::{Detail, Emptiness, Intermediary, Reason},
};

/// A refusal, and what it is judged by.
struct Refused<'a> {
    probe: &'a Probe,
    response: &'a Response,
    body: &'a Body,
    error: &'a ErrorBody<'a>,
    dialect: &'a dyn Dialect,
    words: &'a Words,
    /// The response's own, unless the body of a gateway names the provider's.
    status: u16,
}

/// Returns reason and detail of a status other than 2xx.
pub(super) fn refusal(
    probe: &Probe,
    response: &Response,
    body: &Body,
    error: &ErrorBody<'_>,
    dialect: &dyn Dialect,
) -> (Reason, Option<Detail>) {
    let mut words = words_of(error, dialect);
    // Under 5xx, text is more often a proxy's than the API's.
    if matches!(body, Body::Other) && matches!(response.status, 400..=499) {
        words.join(Words::of_prose(&Body::prose(&response.body)));
    }
    let status = dialect.status(response.status, error);
    let refused = Refused { probe, response, body, error, dialect, words: &words, status };
    let reason = refused.reason();
    (reason, refused.detail(reason))
}

/// Returns the codes and sentences of an error, including those of a provider's error that a
/// gateway forwards.
pub(super) fn words_of(error: &ErrorBody<'_>, dialect: &dyn Dialect) -> Words {
    let mut words = Words::of(error);
    words.join(Words::of(&ErrorBody::read(&dialect.wrapped(error))));
    if dialect.speaks_google() || matches!(dialect.upstream(error).name, Some("google" | "vertex")) {
        words.by_google();
    }
    words
}

impl Refused<'_> {
    fn reason(&self) -> Reason {
        let Self { error, dialect, words, status, .. } = *self;
        let by_words = || match status {
            _ if words.is_money() => Some(Reason::Billing),
            403 | 404 | 405 | 410 if self.is_lost_route() => Some(Reason::Unavailable),
            400 | 403 if words.is_bad_key() => Some(Reason::AuthFailed),
            400 if words.is_shut_out() || words.is_region() => Some(Reason::Permission),
            401 if words.is_not_allowed() && !words.is_bad_key() => Some(Reason::Permission),
            400 | 403 | 404 | 410 | 422 if self.asks_for_model() && self.is_no_model() => {
                Some(Reason::ModelNotFound)
            }
            400 | 403 if words.is_rate() => Some(Reason::RateLimited),
            429 if words.is_too_large() => Some(Reason::InvalidRequest),
            429 | 503 if words.is_capacity() => Some(Reason::Overloaded),
            // OpenAI's slow_down under 429 is the caller's fault; Google reports an overloaded
            // model as UNAVAILABLE.
            503 if words.has_code(&["slow", "down"]) || self.is_googles_unavailable() => {
                Some(Reason::Overloaded)
            }
            500 | 502 if words.has_capacity_code() => Some(Reason::Overloaded),
            _ => None,
        };
        dialect.reason(status, error).or_else(by_words).unwrap_or_else(|| status_reason(status))
    }

    /// Returns whether it is Google's status, alone or besides its number as in its imitations of
    /// other APIs.
    fn is_googles_unavailable(&self) -> bool {
        let code = self.error.member("code").and_then(serde_json::Value::as_u64);
        self.error.text("status") == Some("UNAVAILABLE") && code == Some(503)
    }

    fn asks_for_model(&self) -> bool {
        matches!(self.probe.task, Task::Chat(_) | Task::Stream(_) | Task::Models | Task::Http(_))
    }

    fn is_no_model(&self) -> bool {
        let Self { words, status, .. } = *self;
        let through_gateway = || self.dialect.upstream(self.error).name.is_some();
        match status {
            // Another path than that of a model may be gone.
            410 => {
                let names_model = match self.probe.task {
                    Task::Chat(_) | Task::Stream(_) => true,
                    Task::Models => self.probe.model.is_some(),
                    _ => false,
                };
                names_model || words.is_no_model()
            }
            // A wrong path is a 404 too. One about the model mentions it, or the path is known to
            // exist.
            404 => {
                words.has_no_model_code()
                    || (through_gateway() || words.contain(&["model", "deployment", "no endpoints"]))
                        && !words.is_no_path()
            }
            _ => words.is_no_model(),
        }
    }

    /// Returns whether the route to the application is lost: an ingress, router or tunnel reports
    /// it, or a documented path has no response of the API. A configured path may be wrong itself.
    fn is_lost_route(&self) -> bool {
        let Self { response, error, words, .. } = *self;
        if self.status != response.status {
            return false;
        }
        let header = |(name, expected): &(&str, Option<&str>)| {
            let value = response.headers.get(*name).and_then(|value| value.to_str().ok());
            value.is_some_and(|value| expected.is_none_or(|expected| expected == value))
        };
        let prose = || match self.body {
            Body::Html | Body::Other => words::is_lost_route(&Body::prose(&response.body)),
            Body::Empty | Body::Json(_) => false,
        };
        let silent = || !error.is_an_error() && matches!(response.status, 404 | 405) && self.is_promised();
        LOST_ROUTE_HEADERS.iter().any(header) || words.is_lost_route() || prose() || silent()
    }

    /// Returns whether the API documents the path.
    fn is_promised(&self) -> bool {
        let paths = &self.probe.provider.paths;
        match &self.probe.task {
            Task::Health => true,
            Task::Auth => paths.auth.is_none(),
            Task::Models => paths.models.is_none(),
            Task::Chat(_) | Task::Stream(_) => paths.chat.is_none(),
            Task::Balance => paths.balance.is_none(),
            Task::Network | Task::Status(_) | Task::Http(_) => false,
        }
    }

    /// Returns what answered in place of the API. Returns `None` if it may have been the API. APIs
    /// answer in JSON, except at health paths and paths of an operator.
    fn intermediary(&self) -> Option<Detail> {
        let free = matches!(self.probe.task, Task::Health | Task::Http(_));
        let basic = |value: &reqwest::header::HeaderValue| {
            value.as_bytes().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
        };
        if self.response.status < 400 {
            return None;
        }
        if self.status == 401 && self.response.headers.get_all(WWW_AUTHENTICATE).iter().any(basic) {
            return Some(Detail::Intermediary(Intermediary::BasicAuthentication));
        }
        Some(Detail::Intermediary(match self.body {
            Body::Html => Intermediary::Html,
            Body::Empty if !free => Intermediary::Empty,
            Body::Other if !free => Intermediary::Text,
            Body::Empty | Body::Other | Body::Json(_) => return None,
        }))
    }

    /// Returns whether the response redirects to https on the same host.
    fn redirects_to_https(&self) -> bool {
        let base = &self.probe.provider.base_url;
        let target = location(&self.response.headers, base);
        base.scheme() == "http"
            && target.is_some_and(|target| target.scheme() == "https" && target.host() == base.host())
    }

    /// Returns what the server lacks of the connection, by the pages of nginx, Apache and Go.
    fn of_the_connection(&self) -> Option<Detail> {
        if self.response.status != 400 || !matches!(self.body, Body::Html | Body::Other) {
            return None;
        }
        let page = Body::prose(&self.response.body).to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| page.contains(part));
        let plain =
            ["sent to https port", "http request to an https server", "http to an ssl-enabled server"];
        if self.probe.provider.base_url.scheme() == "http" && has(&plain) {
            Some(Detail::PlainHttpToTls)
        } else {
            has(&["no required ssl certificate was sent"]).then_some(Detail::ClientCertificateRequired)
        }
    }

    fn detail(&self, reason: Reason) -> Option<Detail> {
        let Self { response, words, status, .. } = *self;
        if let Some(detail) = self.of_the_connection() {
            return Some(detail);
        }
        Some(match (reason, status) {
            (Reason::ModelNotFound, _) if status == 410 || words.is_retired() => Detail::ModelRetired,
            (Reason::InvalidRequest, 413 | 429) if words.is_too_large() => Detail::RequestAboveWindow,
            (Reason::InvalidRequest, _) if status == 413 || words.is_too_large() => {
                self.intermediary().unwrap_or(Detail::RequestTooLarge)
            }
            _ if status != response.status => Detail::ProviderStatus(status, response.status),
            (Reason::Billing, 402) | (Reason::AuthFailed, 401) => return self.intermediary(),
            (Reason::Billing, _) => Detail::AboutMoney(status),
            (Reason::AuthFailed, _) => Detail::AboutKey(status),
            (Reason::RateLimited, 400 | 403) => Detail::AboutLimit(status),
            (Reason::Overloaded, 429) => Detail::AboutCapacity,
            (Reason::Unavailable, 403 | 404 | 405 | 410) => Detail::NothingAtPath,
            (Reason::InvalidRequest, 400)
                if words.contain(&["max_tokens or model output limit was reached"]) =>
            {
                Detail::Empty(Emptiness::MaxTokens)
            }
            (Reason::Proxy, _) => proxy_refusal(self.probe),
            (Reason::UnexpectedStatus, 300..=399) if self.redirects_to_https() => Detail::RedirectToHttps,
            (Reason::UnexpectedStatus, 300..=399) => Detail::Redirect,
            _ => return self.intermediary(),
        })
    }
}

fn location(headers: &HeaderMap, base: &Url) -> Option<Url> {
    const MAX_BYTES: usize = 2048;
    let text = headers.get(LOCATION)?.to_str().ok().filter(|text| text.len() <= MAX_BYTES)?;
    base.join(text).ok()
}

/// Returns the reason of a status alone (RFC 9110, 15; 498 is Groq's, 524 Cloudflare's, 529
/// Anthropic's). 424 is a failed generation (TGI, Groq), 499 one that the service cancelled
/// (Google): the prober cancels none.
pub(super) fn status_reason(status: u16) -> Reason {
    match status {
        401 => Reason::AuthFailed,
        402 => Reason::Billing,
        // 451 is for legal reasons: a region, mostly (RFC 7725).
        403 | 451 => Reason::Permission,
        407 => Reason::Proxy,
        408 | 504 | 524 => Reason::GatewayTimeout,
        429 => Reason::RateLimited,
        498 | 529 => Reason::Overloaded,
        503 => Reason::Unavailable,
        424 | 499 | 500..=599 => Reason::ServerError,
        400..=499 => Reason::InvalidRequest,
        _ => Reason::UnexpectedStatus,
    }
}
