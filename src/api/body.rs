//! Bodies as bounded JSON, and the error in a body, in any of the known shapes.

use serde_json::{Map, Value};

use super::hints;

/// The byte order mark in UTF-8, which may precede a response body.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Maximum size of JSON that is parsed to a tree, in bytes: errors and short completions have a few
/// thousand. Lists are read without a tree.
pub(crate) const MAX_TREE: usize = 512 * 1024;

/// Maximum number of bytes of a message that are searched.
const MAX_MESSAGE: usize = 4096;

/// Maximum number of rows of an error's lists that are read.
const MAX_ITEMS: usize = 8;

/// Maximum size of a finish reason in bytes; real ones have about thirty.
const MAX_FINISH: usize = 64;

/// Kind of a body.
#[derive(Debug)]
pub(crate) enum Body {
    /// Empty, or white space.
    Empty,
    /// JSON.
    Json(Value),
    /// A page of a proxy, CDN or captive portal that answered in place of the API.
    Html,
    /// Anything else.
    Other,
}

impl Body {
    /// Recognizes a body regardless of its content type: `DeepSeek` sends errors as octet-stream,
    /// other services send plain text as HTML.
    pub(crate) fn read(bytes: &[u8]) -> Self {
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

    /// Returns the searched beginning of a body that is a page or plain text.
    pub(crate) fn prose(bytes: &[u8]) -> String {
        let bytes = text(bytes);
        String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_MESSAGE)]).into_owned()
    }

    /// Returns the JSON. Returns null if the body is not JSON.
    pub(crate) fn json(&self) -> &Value {
        match self {
            Self::Json(value) => value,
            _ => &Value::Null,
        }
    }
}

/// Returns a body without byte order mark and surrounding white space.
pub(crate) fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes).trim_ascii()
}

/// The error in a body. Its text is used for classification and never passed on.
#[derive(Debug)]
pub(crate) struct ErrorBody<'a> {
    /// The object that describes the error, or the whole body if there is no such member. `None` if
    /// that is not an object.
    object: Option<&'a Map<String, Value>>,
    /// The whole body, without Google's surrounding array.
    root: &'a Value,
}

/// Names of the members with an error's message.
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

/// Names of the members with an error's code.
const CODES: [&str; 8] =
    ["code", "type", "__type", "status", "reason", "error_code", "error_type", "errorCode"];

impl<'a> ErrorBody<'a> {
    /// Finds the error in any of the shapes `{"error":{…}}`, `{"error":"…","code":…}`,
    /// `{"message":"…"}` and `[{"error":{…}}]`.
    pub(crate) fn read(body: &'a Value) -> Self {
        let root = match body {
            Value::Array(items) => items.first().unwrap_or(&Value::Null),
            other => other,
        };
        let object = match root.get("error") {
            Some(Value::Object(object)) => Some(object),
            Some(_) => root.as_object(),
            // OpenRouter's error of a provider that failed during an answer.
            None => root.pointer("/choices/0/error").and_then(Value::as_object).or(root.as_object()),
        };
        Self { object, root }
    }

    /// Returns whether the body of a 2xx response is an error. An empty `error` is ignored, as by
    /// openai-python.
    pub(crate) fn denies_success(&self) -> bool {
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
        // MiniMax has the status in this member.
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

    /// Returns whether an unexpected event of a stream is an error in another form: `FastAPI`'s
    /// `detail`, `errors`, or a message with a code.
    pub(crate) fn is_error_event(&self) -> bool {
        let Some(members) = self.root.as_object() else { return false };
        let filled = |name: &str| match members.get(name) {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(object)) => !object.is_empty(),
            _ => false,
        };
        let code = ["code", "status", "status_code", "statusCode", "error_code", "errorCode"]
            .iter()
            .any(|name| members.get(*name).is_some_and(|code| code.is_string() || code.is_number()));
        let failed = members.get("status").and_then(Value::as_str).is_some_and(is_failing_finish);
        let message = ["message", "msg", "error_msg", "error_message", "errorMessage"].iter().any(|name| {
            members.get(*name).and_then(Value::as_str).is_some_and(|message| !message.is_empty())
        });
        filled("detail") || filled("errors") || failed || message && code
    }

    /// Returns whether the body has a code or a message, as an API's error has.
    pub(crate) fn is_an_error(&self) -> bool {
        self.root.get("error").is_some_and(Value::is_object)
            || !self.codes().is_empty()
            || !self.messages().is_empty()
    }

    /// Returns a string member of the error.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.member(name)?.as_str()
    }

    /// Returns a member of the error.
    pub(crate) fn member(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name)
    }

    /// Returns a string member of the whole body.
    pub(crate) fn root_text(&self, name: &str) -> Option<&'a str> {
        self.root.get(name)?.as_str()
    }

    /// Returns the codes, types and statuses, including those in its details.
    pub(crate) fn codes(&self) -> Vec<&'a str> {
        let of = |value: &'a Value| CODES.iter().filter_map(|name| value.get(name)?.as_str());
        let own = CODES.iter().filter_map(|name| self.text(name));
        let details = self.member("details").unwrap_or(&Value::Null);
        let items = details.as_array().into_iter().flatten().take(MAX_ITEMS);
        let root = [self.root].into_iter().chain(self.errors()).chain(self.root.get("base_resp"));
        own.chain(root.flat_map(of)).chain(of(details)).chain(items.flat_map(of)).collect()
    }

    /// Returns the messages, each truncated to the searched length.
    pub(crate) fn messages(&self) -> Vec<&'a str> {
        let object =
            self.object.into_iter().flat_map(|object| MESSAGES.iter().filter_map(|name| object.get(*name)));
        let of = |value: &'a Value| MESSAGES.iter().filter_map(|name| value.get(name));
        let nested = [self.root].into_iter().chain(self.errors()).chain(self.root.get("base_resp"));
        let values = object.chain(nested.flat_map(of));
        // FastAPI has a detail for each member; Cloudflare has errors as lines.
        let lines = self.errors().filter(|row| row.is_string());
        let texts = values.chain(lines).flat_map(|value| match value {
            Value::Array(items) => items.iter().take(MAX_ITEMS).flat_map(of).collect(),
            Value::Object(_) => of(value).collect(),
            text => vec![text],
        });
        texts.filter_map(Value::as_str).filter(|text| !text.trim().is_empty()).map(cut).collect()
    }

    /// Returns the rows of the `errors` array of the error or the body. A row may be a string.
    fn errors(&self) -> impl Iterator<Item = &'a Value> {
        let own = self.member("errors").into_iter();
        own.chain(self.root.get("errors")).filter_map(Value::as_array).flatten().take(MAX_ITEMS)
    }

    /// Returns the quotas that a `google.rpc.QuotaFailure` in its details names.
    pub(crate) fn quotas(&self) -> Vec<&'a str> {
        self.violations("quotaId").collect()
    }

    /// Returns whether a quota of a `google.rpc.QuotaFailure` allows nothing.
    pub(crate) fn has_zero_quota(&self) -> bool {
        self.violations("quotaValue").any(|value| value == "0")
    }

    fn violations(&self, member: &'static str) -> impl Iterator<Item = &'a str> {
        let details = self.member("details").and_then(Value::as_array).into_iter().flatten();
        let violations = details.filter_map(|detail| detail.get("violations")?.as_array()).flatten();
        violations.filter_map(move |violation| violation.get(member)?.as_str()).take(MAX_ITEMS)
    }

    /// Returns the wait in a `google.rpc.RetryInfo` in its details, in seconds.
    pub(crate) fn retry_delay(&self) -> Option<f64> {
        let details = self.member("details")?.as_array()?;
        let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        hints::protobuf_duration(delay).and_then(hints::plausible_wait)
    }
}

/// Returns whether a finish reason means that the service failed, such as `DeepSeek`'s
/// `insufficient_system_resource`, Z.AI's `network_error`, Google's `MALFORMED_RESPONSE` and vLLM's
/// `abort`. It is recognized by words, because services add new ones.
pub(crate) fn is_failing_finish(finish_reason: &str) -> bool {
    const FAILURES: [&str; 18] = [
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
        // No request of the prober is cancelled by its side.
        "cancel",
        "preempt",
        "disconnect",
        "memory",
        "capacity",
        "crash",
    ];
    finish_reason.len() <= MAX_FINISH && {
        let lower = finish_reason.to_ascii_lowercase();
        FAILURES.iter().any(|word| lower.contains(word))
    }
}

/// Returns the searched beginning of a message.
fn cut(message: &str) -> &str {
    let end = (0..=MAX_MESSAGE.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    &message[..end.unwrap_or(0)]
}
