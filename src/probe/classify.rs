//! The verdict on a whole response: reason, fault, and what of it may be told.
//!
//! The status decides first, then what the body says beyond it, then whom the body names.

use std::borrow::Cow;

use reqwest::Url;
use serde::{
    Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    balance,
    body::{self, Body, ErrorBody, MAX_TREE},
    dialect::{self, Acceptance, Completion, Content, Dialect},
    exchange::Response,
    gate,
    hints::{self, Clocks},
    refusal::{refusal, status_reason},
    status_page,
    stream::Ending,
};
use crate::{
    config::{BYTES_PER_TOKEN, Chat, Expect, Probe, StatusSource, Task},
    outcome::{Api, Balance, Check, Fault, RateLimit, Reason, StatusPage},
};

/// What is said of a limit that leaves nothing to wait for.
const NO_ALLOWANCE: &str =
    "the limit itself is 0: the plan has no allowance for this, and waiting does not help";

/// What is said of a status page's redirect that was not followed.
const NO_WAY: &str = "a redirect that is not followed: one too many, without an address, or away from https";

/// What a response comes to.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) reason: Reason,
    pub(super) fault: Fault,
    pub(super) detail: Cow<'static, str>,
    pub(super) error_code: Option<Cow<'static, str>>,
    pub(super) upstream: Option<&'static str>,
    pub(super) request_id: Option<String>,
    pub(super) retry_after: Option<f64>,
    pub(super) ratelimit: Vec<RateLimit>,
    pub(super) tokens: Tokens,
    pub(super) status_page: Option<StatusPage>,
    pub(super) balance: Option<Balance>,
}

/// Tokens of a whole answer; `None`: it says nothing of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    /// Whether any of them is our estimate.
    pub(super) estimated: bool,
}

impl Tokens {
    /// As the answer counts them, estimated where it does not and there is something to estimate them from.
    fn of(chat: &Chat, completion: &Completion) -> Self {
        let Completion { input_tokens, output_tokens, bytes, content: _ } = *completion;
        let estimated = bytes > 0 && (input_tokens.is_none() || output_tokens.is_none());
        Self {
            input: input_tokens.or_else(|| estimated.then(|| chat.estimated_input_tokens())),
            output: output_tokens.or_else(|| estimated.then(|| bytes.div_ceil(BYTES_PER_TOKEN) as u64)),
            estimated,
        }
    }
}

/// What one check finds in an answer, before faults and codes.
struct Finding {
    reason: Reason,
    detail: Cow<'static, str>,
    tokens: Tokens,
    balance: Option<Balance>,
}

impl Finding {
    fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), tokens: Tokens::default(), balance: None }
    }

    fn ok() -> Self {
        Self::new(Reason::Ok, "")
    }
}

/// The verdict on a response that came whole.
pub(super) fn classify(probe: &Probe, response: &Response, clocks: &Clocks) -> Verdict {
    if let Task::Status(source) = &probe.task {
        return of_status_page(source, response, clocks);
    }
    let dialect = dialect::of(probe.provider.api);
    let body = Body::read(&response.body);
    let error = ErrorBody::read(body.json());
    let finding = match &probe.task {
        Task::Http(request) if response.is_success() || request.expect.status.contains(&response.status) => {
            expectation(&request.expect, response)
        }
        task if response.is_success() => answer(task, probe, response, &body, &error, dialect),
        task => {
            let (reason, detail) = refusal(task, response.status, &body, &error, dialect);
            Finding::new(reason, detail)
        }
    };
    let finding = if from_the_proxy(probe, &finding, &body) {
        Finding::new(
            Reason::Proxy,
            "an HTML page in place of the API's answer, and a proxy that could send one",
        )
    } else {
        finding
    };
    verdict(probe, response, clocks, dialect, &error, finding)
}

/// The verdict on a stream that came to some end.
pub(super) fn stream(probe: &Probe, response: &Response, clocks: &Clocks, ending: &Ending<'_>) -> Verdict {
    let finding = match ending {
        Ending::Complete => Finding::ok(),
        Ending::Empty(why) => Finding::new(Reason::NoContent, *why),
        Ending::Malformed(how) => Finding::new(Reason::Malformed, *how),
        Ending::Failed { late: false, .. } => {
            Finding::new(Reason::StreamError, "an error inside the stream, before any content")
        }
        Ending::Failed { late: true, .. } => {
            Finding::new(Reason::StreamError, "an error inside the stream, after content had begun")
        }
        Ending::Truncated { late: false } => {
            Finding::new(Reason::StreamTruncated, "the stream ended before any content")
        }
        Ending::Truncated { late: true } => {
            Finding::new(Reason::StreamTruncated, "the stream ended amid its content, without its end mark")
        }
    };
    let event = match ending {
        Ending::Failed { event, .. } => event,
        _ => &Value::Null,
    };
    let dialect = dialect::of(probe.provider.api);
    verdict(probe, response, clocks, dialect, &ErrorBody::read(event), finding)
}

/// Adds to a finding whose part it is, and what of the response may be told.
fn verdict(
    probe: &Probe,
    response: &Response,
    clocks: &Clocks,
    dialect: &dyn Dialect,
    error: &ErrorBody<'_>,
    finding: Finding,
) -> Verdict {
    let Finding { mut reason, mut detail, tokens, balance } = finding;
    let failed = reason != Reason::Ok;
    // Where the answer is no error, its type is another's: Anthropic's "message".
    let is_error = !response.is_success() || reason == Reason::StreamError || error.denies_success();
    let reports_error = failed && is_error && !matches!(reason, Reason::NoContent | Reason::Malformed);
    let upstream = dialect.upstream(error);
    let ratelimit = dialect.rate_limits(&response.headers, error, clocks);
    let retry_after = wait(dialect, reason, response, error, &ratelimit, clocks);
    // Mistral's answer to a key whose plan has nothing of a model.
    let nothing_allowed = || {
        let used_up = |limit: &RateLimit| limit.limit > Some(0) && limit.remaining == Some(0);
        ratelimit.iter().any(|limit| limit.limit == Some(0)) && !ratelimit.iter().any(used_up)
    };
    if reason == Reason::RateLimited && retry_after.is_none() && nothing_allowed() {
        (reason, detail) = (Reason::Billing, NO_ALLOWANCE.into());
    }
    Verdict {
        reason,
        fault: fault(probe.provider.api, reason, upstream.blamed),
        detail,
        error_code: reports_error.then(|| dialect.error_code(error).map(gate::error_code)).flatten(),
        upstream: failed.then_some(upstream.name).flatten(),
        request_id: request_id(probe, dialect, response, error),
        retry_after,
        ratelimit,
        tokens,
        status_page: None,
        balance,
    }
}

/// The verdict on what a status page's host answered. It speaks no dialect: of its errors the status alone counts.
fn of_status_page(source: &StatusSource, response: &Response, clocks: &Clocks) -> Verdict {
    let (reason, detail, status_page) = match response.status {
        200..=299 => match status_page::read(&response.body, &source.components) {
            Ok((page, detail)) => (Reason::Ok, detail, Some(page)),
            Err(why) => (Reason::Malformed, why, None),
        },
        300..=399 => (Reason::UnexpectedStatus, NO_WAY, None),
        407 => (Reason::Proxy, "the proxy wants credentials (407)", None),
        status => (status_reason(status), "", None),
    };
    let waits = matches!(response.status, 429 | 503 | 529);
    Verdict {
        reason,
        fault: match reason {
            Reason::Ok => Fault::None,
            Reason::Proxy => Fault::Network,
            _ => Fault::Caller,
        },
        detail: detail.into(),
        error_code: None,
        upstream: None,
        request_id: None,
        retry_after: waits.then(|| hints::retry_after(&response.headers, clocks)).flatten(),
        ratelimit: Vec::new(),
        tokens: Tokens::default(),
        status_page,
        balance: None,
    }
}

/// What a body that was cut short still tells by its headers.
pub(super) fn headers_only(
    probe: &Probe,
    response: &Response,
    clocks: &Clocks,
) -> (Option<String>, Vec<RateLimit>) {
    if !probe.check().addresses_service() {
        return (None, Vec::new());
    }
    let dialect = dialect::of(probe.provider.api);
    let error = ErrorBody::read(&Value::Null);
    (request_id(probe, dialect, response, &error), dialect.rate_limits(&response.headers, &error, clocks))
}

/// Whether a bad answer is a page of the proxy: plain http goes through an HTTP proxy without a tunnel, so that the
/// proxy's own errors look like the target's, but for the page that they are.
fn from_the_proxy(probe: &Probe, finding: &Finding, body: &Body) -> bool {
    let provider = &probe.provider;
    let untunnelled =
        |proxy: &Url| provider.base_url.scheme() == "http" && proxy.scheme().starts_with("http");
    finding.reason != Reason::Ok
        && matches!(body, Body::Html)
        && !matches!(probe.task, Task::Http(_))
        && provider.proxy.as_ref().is_some_and(untunnelled)
}

/// Whose part it is: the operator's own matters are theirs, the rest is the addressed service's, unless it names a
/// provider behind it.
fn fault(api: Api, reason: Reason, upstream_blamed: bool) -> Fault {
    let own = match reason {
        Reason::Ok => return Fault::None,
        Reason::Proxy => return Fault::Network,
        Reason::AuthFailed
        | Reason::Permission
        | Reason::Billing
        | Reason::RateLimited
        | Reason::ModelNotFound
        | Reason::InvalidRequest
        | Reason::NoContent => Fault::Caller,
        _ => api.endpoint(),
    };
    if upstream_blamed && reason.blames_named_upstream() { Fault::Provider } else { own }
}

/// What a 2xx comes to.
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
    // A key that is told to be bad is so, whatever else the answer says of it.
    if matches!(task, Task::Auth) && dialect.accepted(body.json()) == Acceptance::Rejected {
        return Finding::new(Reason::AuthFailed, "the answer says that the key is not valid");
    }
    if error.denies_success() {
        return Finding::new(Reason::ErrorIn200, "a success status with an error in the body");
    }
    match (task, body) {
        (_, Body::Html) => Finding::new(
            Reason::Malformed,
            "an HTML page in place of the API's answer: a proxy, CDN or portal",
        ),
        (_, Body::Empty) => Finding::new(Reason::Malformed, "an empty body in place of the API's answer"),
        (Task::Models, _) => models(dialect, &response.body, probe.model.as_deref()),
        (Task::Stream(_), Body::Json(_) | Body::Other) => {
            Finding::new(Reason::Malformed, "the whole answer at once in place of a stream, or no answer")
        }
        (_, Body::Other) => Finding::new(Reason::Malformed, "the body is not JSON, or too much of it"),
        (Task::Auth, Body::Json(answer)) => match dialect.accepted(answer) {
            Acceptance::Accepted => Finding::ok(),
            Acceptance::Rejected | Acceptance::Unclear => {
                Finding::new(Reason::Malformed, "the answer does not say whether the key is valid")
            }
        },
        (Task::Balance, Body::Json(answer)) => {
            let (reason, detail, balance) = balance::judge(dialect.account(answer));
            Finding { balance, ..Finding::new(reason, detail) }
        }
        (_, Body::Json(answer)) => {
            let completion = dialect.completion(answer);
            let mut finding = match completion.content {
                Content::Visible => Finding::ok(),
                Content::Empty(why) => Finding::new(Reason::NoContent, why),
                Content::Missing => Finding::new(Reason::Malformed, "the answer is not a completion"),
            };
            finding.tokens = probe.chat().map(|chat| Tokens::of(chat, &completion)).unwrap_or_default();
            finding
        }
    }
}

/// How long the service asks to wait. Only failures that waiting can heal are listened to: Anthropic sends Retry-After
/// with one success in thirteen.
fn wait(
    dialect: &dyn Dialect,
    reason: Reason,
    response: &Response,
    error: &ErrorBody<'_>,
    limits: &[RateLimit],
    clocks: &Clocks,
) -> Option<f64> {
    // OpenRouter's 402 that waiting heals and a provider's own 429, 503 or 529 under a gateway's 502 count; what is the
    // probe's own does not.
    let limited = reason == Reason::RateLimited;
    let heals = |status| matches!(status, 429 | 503 | 529) && reason != Reason::InvalidRequest;
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
    // See `hints::retry_after`.
    let some = |seconds: &f64| *seconds > 0.0;
    let by_header = hints::retry_after(&response.headers, clocks);
    by_header.or_else(|| error.retry_delay().filter(some)).or_else(|| until_reset().filter(some))
}

fn request_id(
    probe: &Probe,
    dialect: &dyn Dialect,
    response: &Response,
    error: &ErrorBody<'_>,
) -> Option<String> {
    let by_header = |name: &&str| gate::request_id(response.headers.get(*name)?.to_str().ok()?);
    dialect
        .request_id_headers()
        .iter()
        .find_map(by_header)
        .or_else(|| error.root_text("request_id").and_then(gate::request_id))
        .or_else(|| error.text("request_id").and_then(gate::request_id))
        // Google's, which sends no header with one.
        .or_else(|| error.root_text("responseId").and_then(gate::request_id))
        .filter(|id| !echoes_a_secret(probe, id))
}

/// Whether a service sends back what was sent to it in confidence: a key has the form of an id.
fn echoes_a_secret(probe: &Probe, id: &str) -> bool {
    /// Shorter ones, a version or a flag, are no secrets that could be told in an id.
    const SHORTEST: usize = 6;
    let provider = &probe.provider;
    let own = match &probe.task {
        Task::Http(request) => &request.headers[..],
        _ => &[],
    };
    let key = provider.key.iter().map(|key| key.value.expose());
    let headers = provider.headers.iter().chain(own).filter_map(|(_, value)| value.to_str().ok());
    let password = provider.proxy_credentials().map(|(_, password)| password);
    // Of `Token abc…` the last word is the secret.
    let mut words = key.chain(headers).chain(password).flat_map(str::split_whitespace);
    words.any(|secret| {
        secret.len() >= SHORTEST && (id.contains(secret) || id.len() >= SHORTEST && secret.contains(id))
    })
}

/// The operator's own expectation.
fn expectation(expect: &Expect, response: &Response) -> Finding {
    let unmet = |what: String| Finding::new(Reason::UnmetExpectation, what);
    if !expect.status.is_empty() && !expect.status.contains(&response.status) {
        return unmet(format!("the status {} is not among those expected", response.status));
    }
    if expect.body_regex.as_ref().is_some_and(|pattern| !pattern.is_match(&response.body)) {
        return unmet("expect.body_regex does not match the body".into());
    }
    if expect.json.is_empty() {
        return Finding::ok();
    }
    if response.body.len() > MAX_TREE {
        return unmet(format!("expect.json is set, and the body is larger than {} KiB", MAX_TREE >> 10));
    }
    let Ok(body) = serde_json::from_slice::<Value>(body::text(&response.body)) else {
        return unmet("expect.json is set, and the body is not JSON".into());
    };
    for (pointer, value) in &expect.json {
        match body.pointer(pointer) {
            Some(found) if equal(found, value) => {}
            Some(_) => return unmet(format!("expect.json: {pointer} has another value")),
            None => return unmet(format!("expect.json: the body has no {pointer}")),
        }
    }
    Finding::ok()
}

/// JSON values as people compare them: 1 is 1.0.
fn equal(found: &Value, expected: &Value) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= f64::EPSILON * expected.abs(),
        _ => found == expected,
    }
}

/// A model list, read without building a tree: LangMart's full one has over a megabyte.
fn models(dialect: &dyn Dialect, body: &[u8], model: Option<&str>) -> Finding {
    let (list, id) = dialect.list_members();
    let is_wanted = |listed: &str| model.is_some_and(|model| dialect.is_model(listed, model));
    let mut found = false;
    let visitor = List { member: list, id, visit: &mut |listed: &str| found |= is_wanted(listed) };
    let mut deserializer = serde_json::Deserializer::from_slice(body::text(body));
    match deserializer.deserialize_map(visitor).and_then(|listed| deserializer.end().map(|()| listed)) {
        Ok(true) if model.is_none() || found => Finding::ok(),
        Ok(true) => Finding::new(Reason::ModelNotFound, "the model is not in the list"),
        Ok(false) => Finding::new(Reason::Malformed, "the answer has no model list"),
        Err(_) => Finding::new(Reason::Malformed, "the answer is not a well-formed model list"),
    }
}

/// Reads `{"<member>": [{"<id>": "…"}, …]}`, whatever else is in it; the value is whether the member was there.
struct List<'a, F> {
    member: &'a str,
    id: &'a str,
    visit: &'a mut F,
}

impl<'de, F: FnMut(&str)> Visitor<'de> for List<'_, F> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a model list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut there = false;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == self.member {
                map.next_value_seed(Rows { id: self.id, visit: &mut *self.visit })?;
                there = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(there)
    }
}

struct Rows<'a, F> {
    id: &'a str,
    visit: &'a mut F,
}

impl<'de, F: FnMut(&str)> de::DeserializeSeed<'de> for Rows<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&str)> Visitor<'de> for Rows<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rows of a model list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(Row { id: self.id, visit: &mut *self.visit })?.is_some() {}
        Ok(())
    }
}

struct Row<'a, F> {
    id: &'a str,
    visit: &'a mut F,
}

impl<'de, F: FnMut(&str)> de::DeserializeSeed<'de> for Row<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&str)> Visitor<'de> for Row<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a row with an id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let mut identified = false;
        while let Some(name) = row.next_key::<Cow<'de, str>>()? {
            if name == self.id {
                (self.visit)(&row.next_value::<Cow<'de, str>>()?);
                identified = true;
            } else {
                row.next_value::<IgnoredAny>()?;
            }
        }
        if identified { Ok(()) } else { Err(de::Error::custom("a row without an id")) }
    }
}

/// Whether this check's answer may be large, so that taking it apart is not for the thread that times probes.
pub(super) fn is_heavy(check: Check, body: &[u8]) -> bool {
    const SMALL: usize = 64 * 1024;
    check != Check::Health && body.len() > SMALL
}
