//! The verdict on a whole response: reason, fault and sanitized details.
//!
//! The status decides first, then the body, then the provider that the body names.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::Value;

use super::{
    answer::{self, Served, Tokens},
    balance,
    exchange::Response,
    expectation,
    model_list::{self, Listed},
    proxy::credentials_failure,
    refusal::{refusal, status_reason, words_of},
    reported,
    request_id::request_id,
    status_page,
    stream::{Ending, Listener},
};
use crate::{
    api::{
        self, Acceptance, AnswerText, Completion, Content, Dialect,
        body::{Body, ErrorBody},
        gate,
        hints::{self, Clocks},
        limits,
    },
    config::{Probe, StatusSource, Task},
    outcome::{Balance, Check, Detail, Emptiness, Fault, LimitedBy, Outcome, RateLimit, Reason, StatusPage},
};

/// Result of a response.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) reason: Reason,
    pub(super) fault: Fault,
    pub(super) detail: Option<Detail>,
    pub(super) error_code: Option<Cow<'static, str>>,
    pub(super) upstream: Option<&'static str>,
    pub(super) request_id: Option<String>,
    pub(super) retry_after: Option<f64>,
    pub(super) limited_by: Option<LimitedBy>,
    pub(super) ratelimit: Vec<RateLimit>,
    pub(super) reported_processing: Option<Duration>,
    pub(super) model_shutdown: Option<SystemTime>,
    pub(super) served: Served,
    pub(super) tokens: Tokens,
    pub(super) status_page: Option<StatusPage>,
    pub(super) balance: Option<Balance>,
}

impl Verdict {
    /// Writes the verdict into the outcome of the run.
    pub(super) fn write_into(self, outcome: &mut Outcome) {
        let Self {
            reason,
            fault,
            detail,
            error_code,
            upstream,
            request_id,
            retry_after,
            limited_by,
            ratelimit,
            reported_processing,
            model_shutdown,
            served,
            tokens,
            status_page,
            balance,
        } = self;
        (outcome.reason, outcome.fault, outcome.detail) = (reason, fault, detail);
        (outcome.error_code, outcome.upstream, outcome.request_id) = (error_code, upstream, request_id);
        (outcome.retry_after, outcome.ratelimit, outcome.limited_by) = (retry_after, ratelimit, limited_by);
        (outcome.reported_processing, outcome.model_shutdown) = (reported_processing, model_shutdown);
        (outcome.answered_model, outcome.model_match) = (served.model, served.matches);
        (outcome.input_tokens, outcome.output_tokens) = (tokens.input, tokens.output);
        outcome.cached_input_tokens = tokens.cached;
        outcome.tokens_estimated = tokens.estimated;
        (outcome.status_page, outcome.balance) = (status_page, balance);
    }
}

/// Findings of one check in an answer, before faults and codes.
struct Finding {
    reason: Reason,
    detail: Option<Detail>,
    tokens: Tokens,
    balance: Option<Balance>,
    reported_processing: Option<Duration>,
    model_shutdown: Option<SystemTime>,
    served: Served,
}

impl Finding {
    fn new(reason: Reason, detail: impl Into<Option<Detail>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            tokens: Tokens::default(),
            balance: None,
            reported_processing: None,
            model_shutdown: None,
            served: Served::default(),
        }
    }

    fn ok() -> Self {
        Self::new(Reason::Ok, None)
    }

    /// Returns the finding of an answer without content, by its stated cause if there is one.
    fn empty(why: Emptiness) -> Self {
        let reason = if why == Emptiness::Unexplained { Reason::Malformed } else { Reason::NoContent };
        Self::new(reason, Detail::Empty(why))
    }
}

/// Returns the verdict on a complete response.
pub(super) fn classify(probe: &Probe, response: &Response, clocks: &Clocks) -> Verdict {
    if let Task::Status(source) = &probe.task {
        return of_status_page(probe, source, response, clocks);
    }
    let dialect = api::of(probe.provider.api);
    let body = Body::read(&response.body);
    let error = ErrorBody::read(body.json());
    let finding = match &probe.task {
        Task::Http(request) if response.is_success() || request.expect.status.contains(&response.status) => {
            let unmet = expectation::unmet(&request.expect, response);
            unmet.map_or_else(Finding::ok, |what| Finding::new(Reason::UnmetExpectation, what))
        }
        task if response.is_success() => answer(task, probe, response, &body, &error, dialect),
        _ => {
            let (reason, detail) = refusal(probe, response, &body, &error, dialect);
            Finding::new(reason, detail)
        }
    };
    let finding = if from_the_proxy(probe, &finding, &body) {
        Finding::new(Reason::Proxy, Detail::ProxyPage(response.status))
    } else {
        finding
    };
    verdict(probe, response, clocks, dialect, &error, finding)
}

/// Returns the verdict on a stream that ended.
pub(super) fn stream(probe: &Probe, response: &Response, clocks: &Clocks, listener: &Listener) -> Verdict {
    let ending = &listener.ending();
    let dialect = api::of(probe.provider.api);
    let served = Served::new(probe, listener.model());
    let finding = match ending {
        Ending::Complete => complete(probe, listener.text(), &served),
        Ending::Empty(why) => Finding::empty(*why),
        Ending::Nothing if !is_event_stream(&response.headers) => {
            Finding::new(Reason::Malformed, Detail::EmptyStream)
        }
        Ending::Nothing => Finding::new(Reason::StreamTruncated, Detail::EndedBeforeFirstByte),
        Ending::Silent => Finding::new(Reason::StreamTruncated, Detail::EndedWithoutContent),
        Ending::Malformed(how) => Finding::new(Reason::Malformed, how.clone()),
        // Exhausted credit counts under any status.
        Ending::Failed { event, .. } if words_of(&ErrorBody::read(event), dialect).is_money() => {
            Finding::new(Reason::Billing, Detail::MoneyErrorIn200)
        }
        Ending::Failed { late: false, .. } => Finding::new(Reason::StreamError, Detail::ErrorBeforeContent),
        Ending::Failed { late: true, .. } => Finding::new(Reason::StreamError, Detail::ErrorAfterContent),
        Ending::Truncated { late: false } => {
            Finding::new(Reason::StreamTruncated, Detail::EndedBeforeContent)
        }
        Ending::Truncated { late: true } => Finding::new(Reason::StreamTruncated, Detail::EndedAmidContent),
    };
    let event = match ending {
        Ending::Failed { event, .. } => event,
        _ => &Value::Null,
    };
    let finding = Finding { served, ..finding };
    verdict(probe, response, clocks, dialect, &ErrorBody::read(event), finding)
}

/// Returns the finding of an answer with visible content.
fn complete(probe: &Probe, text: &AnswerText, served: &Served) -> Finding {
    answer::unmet(probe, text, served).map_or_else(Finding::ok, |(reason, what)| Finding::new(reason, what))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Adds the responsible party and sanitized details of the response to a finding.
fn verdict(
    probe: &Probe,
    response: &Response,
    clocks: &Clocks,
    dialect: &dyn Dialect,
    error: &ErrorBody<'_>,
    finding: Finding,
) -> Verdict {
    let Finding { mut reason, mut detail, tokens, balance, reported_processing, model_shutdown, served } =
        finding;
    let failed = reason != Reason::Ok;
    // Where the answer is no error, its type is another's: Anthropic's "message".
    let is_error = !response.is_success()
        || reason == Reason::StreamError
        || detail == Some(Detail::MoneyErrorIn200)
        || error.denies_success();
    let reports_error = failed && is_error && !matches!(reason, Reason::NoContent | Reason::Malformed);
    let upstream = dialect.upstream(error);
    let ratelimit = dialect.rate_limits(&response.headers, error, clocks);
    let retry_after = wait(dialect, reason, response, error, &ratelimit, clocks);
    if reason == Reason::RateLimited
        && (error.has_zero_quota() || retry_after.is_none() && nothing_allowed(&ratelimit))
    {
        (reason, detail) = (Reason::Billing, Some(Detail::NoAllowance));
    }
    let limited_by = (reason == Reason::RateLimited).then(|| {
        let words = words_of(error, dialect);
        limits::limited_by(dialect, error, &words, &response.headers, &ratelimit)
    });
    if limited_by == Some(LimitedBy::Day) && detail.is_none() {
        // Google asks for a wait of seconds all the same.
        detail = Some(Detail::DailyLimit);
    }
    Verdict {
        reason,
        fault: reason.fault(probe.provider.api, upstream.blamed),
        detail,
        error_code: reports_error.then(|| dialect.error_code(error).map(gate::error_code)).flatten(),
        upstream: failed.then_some(upstream.name).flatten(),
        request_id: request_id(probe, dialect, response, error),
        retry_after,
        limited_by,
        ratelimit,
        reported_processing: reported::processing(&response.headers).or(reported_processing),
        model_shutdown,
        served,
        tokens,
        status_page: None,
        balance,
    }
}

/// Returns whether the plan does not include the request, as Mistral reports for some models. A
/// limit of 0 beside a larger one is a placeholder.
fn nothing_allowed(limits: &[RateLimit]) -> bool {
    let has_some = |limit: &RateLimit| limit.limit > Some(0) || limit.remaining > Some(0);
    limits.iter().any(|limit| limit.limit == Some(0)) && !limits.iter().any(has_some)
}

/// Returns whether a `Retry-After` with this status is a request to wait.
const fn asks_to_wait(status: u16) -> bool {
    matches!(status, 429 | 503 | 529)
}

/// Returns the verdict on the response of a status page's host. It has no dialect, so only the
/// status of its errors counts.
fn of_status_page(probe: &Probe, source: &StatusSource, response: &Response, clocks: &Clocks) -> Verdict {
    let (reason, detail, status_page) = match response.status {
        200..=299 => match status_page::read(&response.body, &source.components, clocks.now) {
            Ok((page, detail)) => (Reason::Ok, detail, Some(page)),
            Err(why) => (Reason::Malformed, Some(why), None),
        },
        300..=399 => (Reason::UnexpectedStatus, Some(Detail::UnfollowedRedirect), None),
        407 => (Reason::Proxy, Some(proxy_refusal(probe)), None),
        status => (status_reason(status), None, None),
    };
    let waits = asks_to_wait(response.status);
    Verdict {
        reason,
        fault: match reason {
            Reason::Ok => Fault::None,
            Reason::Proxy => Fault::Network,
            _ => Fault::Caller,
        },
        detail,
        error_code: None,
        upstream: None,
        request_id: None,
        retry_after: waits.then(|| hints::retry_after(&response.headers, clocks)).flatten(),
        limited_by: (reason == Reason::RateLimited).then_some(LimitedBy::Unknown),
        ratelimit: Vec::new(),
        reported_processing: None,
        model_shutdown: None,
        served: Served::default(),
        tokens: Tokens::default(),
        status_page,
        balance: None,
    }
}

/// Returns the detail of a 407.
pub(super) fn proxy_refusal(probe: &Probe) -> Detail {
    Detail::Proxy(credentials_failure(probe.provider.proxy_credentials().is_some(), Some(407)))
}

/// Returns the verdict on a response with a truncated body, by its headers.
pub(super) fn headers_only(
    probe: &Probe,
    response: &Response,
    clocks: &Clocks,
) -> (Option<String>, Vec<RateLimit>) {
    if !probe.check().addresses_service() {
        return (None, Vec::new());
    }
    let dialect = api::of(probe.provider.api);
    let error = ErrorBody::read(&Value::Null);
    (request_id(probe, dialect, response, &error), dialect.rate_limits(&response.headers, &error, clocks))
}

/// Returns whether an invalid response is a page of the proxy: plain http passes an HTTP proxy
/// without a tunnel, so the proxy's errors differ from the target's only in being a page.
fn from_the_proxy(probe: &Probe, finding: &Finding, body: &Body) -> bool {
    let provider = &probe.provider;
    let untunnelled =
        |proxy: &Url| provider.base_url.scheme() == "http" && proxy.scheme().starts_with("http");
    !matches!(finding.reason, Reason::Ok | Reason::Proxy)
        && matches!(body, Body::Html)
        && !matches!(probe.task, Task::Http(_))
        && provider.proxy.as_ref().is_some_and(untunnelled)
}

/// Returns the finding of a 2xx response.
fn answer(
    task: &Task,
    probe: &Probe,
    response: &Response,
    body: &Body,
    error: &ErrorBody<'_>,
    dialect: &dyn Dialect,
) -> Finding {
    if matches!(task, Task::Health) {
        return Finding::ok();
    }
    // A key that is reported as invalid is invalid, regardless of the rest of the response.
    if matches!(task, Task::Auth) && dialect.accepted(body.json()) == Acceptance::Rejected {
        return Finding::new(Reason::AuthFailed, Detail::KeyReportedInvalid);
    }
    // Errors without a flag, in place of a completion.
    let replaces_completion = || {
        matches!(task, Task::Chat(_))
            && error.is_error_event()
            && matches!(dialect.completion(body.json()).content, Content::Missing)
    };
    if error.denies_success() || replaces_completion() {
        // Exhausted credit counts under any status.
        if words_of(error, dialect).is_money() {
            return Finding::new(Reason::Billing, Detail::MoneyErrorIn200);
        }
        return Finding::new(Reason::ErrorIn200, Detail::ErrorIn200);
    }
    match (task, body) {
        (_, Body::Html) => Finding::new(Reason::Malformed, Detail::HtmlAnswer),
        (_, Body::Empty) => Finding::new(Reason::Malformed, Detail::EmptyBody),
        (Task::Models, _) => of_model_list(model_list::find(dialect, &response.body, probe.model.as_deref())),
        (Task::Stream(_), Body::Json(_) | Body::Other) => {
            Finding::new(Reason::Malformed, Detail::NotStreamed)
        }
        (_, Body::Other) => Finding::new(Reason::Malformed, Detail::NotJson),
        (Task::Auth, Body::Json(answer)) => match dialect.accepted(answer) {
            Acceptance::Accepted => Finding::ok(),
            Acceptance::Rejected | Acceptance::Unclear => {
                Finding::new(Reason::Malformed, Detail::KeyNotReported)
            }
        },
        (Task::Balance, Body::Json(answer)) => {
            let (reason, detail, balance) = balance::judge(dialect.account(answer));
            Finding { balance, ..Finding::new(reason, detail) }
        }
        (_, Body::Json(answer)) => {
            let served = Served::new(probe, dialect.answered_model(answer));
            of_completion(probe, &dialect.completion(answer), served)
        }
    }
}

fn of_completion(probe: &Probe, completion: &Completion, served: Served) -> Finding {
    let mut finding = match completion.content {
        Content::Visible => complete(probe, &completion.text, &served),
        Content::Empty(why) => Finding::empty(why),
        Content::Missing => Finding::new(Reason::Malformed, Detail::NotACompletion),
        Content::Failed => Finding::new(Reason::ErrorIn200, Detail::FinishedByFailure),
    };
    finding.served = served;
    finding.reported_processing = completion.usage.processing;
    match probe.chat().map(|chat| Tokens::new(chat, completion)) {
        Some(Some(tokens)) => finding.tokens = tokens,
        Some(None) if finding.detail.is_none() => finding.detail = Some(Detail::MalformedUsage),
        Some(None) | None => {}
    }
    finding
}

fn of_model_list(listed: Listed) -> Finding {
    match listed {
        Listed::Found(model_shutdown) => Finding { model_shutdown, ..Finding::ok() },
        Listed::Retired(model_shutdown) => {
            Finding { model_shutdown, ..Finding::new(Reason::ModelNotFound, Detail::ModelListedAsRetired) }
        }
        Listed::Missing => Finding::new(Reason::ModelNotFound, Detail::ModelNotListed),
        Listed::NoList(how) => Finding::new(Reason::Malformed, how),
    }
}

/// Returns the wait that the service requests. It is only read for failures that a wait may
/// resolve: Anthropic sends Retry-After with one success in thirteen.
fn wait(
    dialect: &dyn Dialect,
    reason: Reason,
    response: &Response,
    error: &ErrorBody<'_>,
    limits: &[RateLimit],
    clocks: &Clocks,
) -> Option<f64> {
    // OpenRouter's 402 that a wait resolves, and a provider's 429, 503 or 529 in a gateway's 502
    // count; failures of the probe itself do not.
    let limited = reason == Reason::RateLimited;
    let heals = |status| asks_to_wait(status) && reason != Reason::InvalidRequest;
    let told = dialect.status(response.status, error);
    if reason == Reason::Ok || !(heals(response.status) || heals(told) || limited) {
        return None;
    }
    let until_reset = || {
        let exhausted = limits.iter().filter(|limit| limit.remaining == Some(0));
        let reset = exhausted.filter_map(|limit| limit.reset).max().filter(|_| dialect.reset_is_a_wait())?;
        let server_now = clocks.ours(clocks.date.unwrap_or(clocks.now))?;
        Some(reset.duration_since(server_now).map_or(0.0, |wait| wait.as_secs_f64()))
    };
    let by_header = hints::retry_after(&response.headers, clocks);
    by_header.or_else(|| error.retry_delay()).or_else(|| until_reset().and_then(hints::plausible_wait))
}

/// Returns whether classification may take long, so that it must not run on the thread that times
/// probes: a large response is parsed, or a configured pattern searches the body.
pub(super) fn is_heavy(check: Check, body: &[u8]) -> bool {
    const SMALL: usize = 64 * 1024;
    const SMALL_SEARCH: usize = 1024;
    match check {
        Check::Health => false,
        Check::Http => body.len() > SMALL_SEARCH,
        _ => body.len() > SMALL,
    }
}
