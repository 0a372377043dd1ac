//! Bodies as JSON, bounded, and the error that one may carry, in whichever of the known shapes.

use serde_json::{Map, Value};

use super::{hints, sse::BOM};

/// Bytes of JSON that are taken apart as a tree: errors and short completions have a few thousand. Lists are read
/// without one.
pub(super) const MAX_TREE: usize = 512 * 1024;

/// Bytes of a message that are searched for what its code does not say.
const MAX_MESSAGE: usize = 4096;

/// Rows of an error's lists that are considered.
const MAX_ITEMS: usize = 8;

/// Bytes of a finish reason; real ones have some thirty.
const MAX_FINISH: usize = 64;

/// What a body is.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing, or white space.
    Empty,
    /// JSON.
    Json(Value),
    /// A page for people: a proxy, a CDN or a captive portal answers in the API's place.
    Html,
    /// Anything else.
    Other,
}

impl Body {
    /// Recognises a body, whatever content type it claims: `DeepSeek`'s errors come as octet-stream, plain ones as HTML.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let bytes = text(bytes);
        if bytes.is_empty() {
            return Self::Empty;
        }
        if bytes[0] == b'<' {
            return Self::Html;
        }
        if bytes.len() > MAX_TREE {
            return Self::Other;
        }
        serde_json::from_slice(bytes).map_or(Self::Other, Self::Json)
    }

    /// The beginning of a body that is a page or a plain text, as far as it is searched.
    pub(super) fn prose(bytes: &[u8]) -> String {
        let bytes = text(bytes);
        String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_MESSAGE)]).into_owned()
    }

    /// The JSON, if it is any.
    pub(super) fn json(&self) -> &Value {
        match self {
            Self::Json(value) => value,
            _ => &Value::Null,
        }
    }
}

/// A body without a byte order mark and the blanks around it.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes).trim_ascii()
}

/// The error in a body. Its words serve to understand it and are never passed on.
#[derive(Debug)]
pub(super) struct ErrorBody<'a> {
    /// The object that describes the error, the whole body where there is no such member; `None` where that is no object.
    object: Option<&'a Map<String, Value>>,
    /// The whole body, out of Google's array if it was in one.
    root: &'a Value,
}

/// Members that hold an error's message, by the names that services use.
const MESSAGES: [&str; 10] = [
    "message",
    "error",
    "detail",
    "details",
    "msg",
    "error_msg",
    "error_message",
    "errorMessage",
    "status_msg",
    "title",
];

/// Members that hold its code.
const CODES: [&str; 7] = ["code", "type", "status", "reason", "error_code", "error_type", "errorCode"];

impl<'a> ErrorBody<'a> {
    /// Finds the error in any of the shapes: `{"error":{…}}`, `{"error":"…","code":…}`, `{"message":"…"}`, `[{"error":{…}}]`.
    pub(super) fn read(body: &'a Value) -> Self {
        let root = match body {
            Value::Array(items) => items.first().unwrap_or(&Value::Null),
            other => other,
        };
        let object = match root.get("error") {
            Some(Value::Object(object)) => Some(object),
            Some(_) => root.as_object(),
            // OpenRouter's way of telling that the provider failed amid an answer.
            None => root.pointer("/choices/0/error").and_then(Value::as_object).or(root.as_object()),
        };
        Self { object, root }
    }

    /// Whether a body that came with a 2xx says that it is an error all the same. An `error` that is empty is none, as
    /// openai-python reads it.
    pub(super) fn denies_success(&self) -> bool {
        let error = match self.root.get("error") {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Object(members)) => !members.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::Bool(true)) => true,
        };
        let choice = self.root.pointer("/choices/0");
        let finish = choice.and_then(|choice| choice.get("finish_reason")).and_then(Value::as_str);
        let choice_failed = choice.and_then(|choice| choice.get("error")).is_some_and(Value::is_object)
            || finish.is_some_and(is_failing_finish);
        // MiniMax has its status in a member of its own.
        let base_status = self.root.pointer("/base_resp/status_code").and_then(Value::as_i64);
        let is_false = |name| self.root.get(name) == Some(&Value::Bool(false));
        let is_error = |name| self.root.get(name).and_then(Value::as_str) == Some("error");
        error
            || choice_failed
            || base_status.is_some_and(|status| status != 0)
            || is_false("ok")
            || is_false("success")
            || is_error("type")
            || is_error("object")
            || is_error("status")
    }

    /// Whether an event that has no place in a stream is an error by another name: `FastAPI`'s `detail`, `errors`, a message
    /// with a code.
    pub(super) fn is_error_event(&self) -> bool {
        let Some(members) = self.root.as_object() else { return false };
        let filled = |name: &str| match members.get(name) {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(object)) => !object.is_empty(),
            _ => false,
        };
        let code = ["code", "status", "status_code", "statusCode", "error_code"]
            .iter()
            .any(|name| members.get(*name).is_some_and(|code| code.is_string() || code.is_number()));
        let failed = members.get("status").and_then(Value::as_str).is_some_and(is_failing_finish);
        let message = ["message", "msg", "error_msg"].iter().any(|name| {
            members.get(*name).and_then(Value::as_str).is_some_and(|message| !message.is_empty())
        });
        filled("detail") || filled("errors") || failed || message && code
    }

    /// Whether the body has anything that an API's error has: a code or a message.
    pub(super) fn is_an_error(&self) -> bool {
        self.root.get("error").is_some_and(Value::is_object)
            || !self.codes().is_empty()
            || !self.messages().is_empty()
    }

    /// A string member of the error.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.member(name)?.as_str()
    }

    /// A member of the error.
    pub(super) fn member(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name)
    }

    /// A string member of the whole body.
    pub(super) fn root_text(&self, name: &str) -> Option<&'a str> {
        self.root.get(name)?.as_str()
    }

    /// Its codes, types and statuses, and those that its details repeat of another service.
    pub(super) fn codes(&self) -> Vec<&'a str> {
        let of = |value: &'a Value| CODES.iter().filter_map(|name| value.get(name)?.as_str());
        let own = CODES.iter().filter_map(|name| self.text(name));
        let details = self.member("details").unwrap_or(&Value::Null);
        let items = details.as_array().into_iter().flatten().take(MAX_ITEMS);
        let root = [self.root].into_iter().chain(self.errors()).chain(self.root.get("base_resp"));
        own.chain(root.flat_map(of)).chain(of(details)).chain(items.flat_map(of)).collect()
    }

    /// Its messages, each cut to the length that is searched.
    pub(super) fn messages(&self) -> Vec<&'a str> {
        let object =
            self.object.into_iter().flat_map(|object| MESSAGES.iter().filter_map(|name| object.get(*name)));
        let of = |value: &'a Value| MESSAGES.iter().filter_map(|name| value.get(name));
        let nested = [self.root].into_iter().chain(self.errors()).chain(self.root.get("base_resp"));
        let values = object.chain(nested.flat_map(of));
        // FastAPI has a detail for each member, Cloudflare an error of several lines.
        let lines = self.errors().filter(|row| row.is_string());
        let texts = values.chain(lines).flat_map(|value| match value {
            Value::Array(items) => items.iter().take(MAX_ITEMS).flat_map(of).collect(),
            Value::Object(_) => of(value).collect(),
            text => vec![text],
        });
        texts.filter_map(Value::as_str).filter(|text| !text.trim().is_empty()).map(cut).collect()
    }

    /// The rows of an `errors` array, of the error or of the body; a row may be a text.
    fn errors(&self) -> impl Iterator<Item = &'a Value> {
        let own = self.member("errors").into_iter();
        own.chain(self.root.get("errors")).filter_map(Value::as_array).flatten().take(MAX_ITEMS)
    }

    /// The quotas that a `google.rpc.QuotaFailure` of its details names.
    pub(super) fn quotas(&self) -> Vec<&'a str> {
        let details = self.member("details").and_then(Value::as_array).into_iter().flatten();
        let violations = details.filter_map(|detail| detail.get("violations")?.as_array()).flatten();
        violations.filter_map(|violation| violation.get("quotaId")?.as_str()).take(MAX_ITEMS).collect()
    }

    /// The wait in a `google.rpc.RetryInfo` of its details, in seconds.
    pub(super) fn retry_delay(&self) -> Option<f64> {
        let details = self.member("details")?.as_array()?;
        let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        hints::protobuf_duration(delay)
    }
}

/// Whether a finish reason means that the service failed: `DeepSeek`'s `insufficient_system_resource`, Z.AI's
/// `network_error`, Google's `MALFORMED_RESPONSE`, vLLM's `abort`. By their words, since services invent new ones.
pub(super) fn is_failing_finish(finish_reason: &str) -> bool {
    const FAILURES: [&str; 12] = [
        "error",
        "fail",
        "abort",
        "timeout",
        "timed_out",
        "insufficient",
        "overload",
        "unavailable",
        "interrupted",
        "exception",
        "malformed",
        "unexpected",
    ];
    finish_reason.len() <= MAX_FINISH && {
        let lower = finish_reason.to_ascii_lowercase();
        FAILURES.iter().any(|word| lower.contains(word))
    }
}

/// The beginning of a message, as far as it is searched.
fn cut(message: &str) -> &str {
    let end = (0..=MAX_MESSAGE.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    &message[..end.unwrap_or(0)]
}
