//! Bodies as JSON, bounded, and the error that one may carry, in whichever of the known shapes.

use serde_json::{Map, Value};

use super::hints;

/// Bytes of JSON that are taken apart as a tree: errors and short completions have a few thousand. Lists are read
/// without one.
pub(super) const MAX_TREE: usize = 512 * 1024;

/// Bytes of a message that are searched for what its code does not say.
const MAX_MESSAGE: usize = 4096;

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
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii()
}

/// The error in a body. Its words serve to understand it and are never passed on.
#[derive(Debug)]
pub(super) struct ErrorBody<'a> {
    /// The object that describes the error, the whole body where there is no such member; `None` where that is no object.
    object: Option<&'a Map<String, Value>>,
    /// The whole body, out of Google's array if it was in one.
    root: &'a Value,
}

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

    /// Whether a body that came with a 2xx says that it is an error all the same.
    pub(super) fn denies_success(&self) -> bool {
        let error = match self.root.get("error") {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        let choice_failed = self.root.pointer("/choices/0/error").is_some_and(Value::is_object)
            || self.root.pointer("/choices/0/finish_reason").and_then(Value::as_str) == Some("error");
        let is_false = |name| self.root.get(name) == Some(&Value::Bool(false));
        let is_error = |name| self.root.get(name).and_then(Value::as_str) == Some("error");
        error
            || choice_failed
            || is_false("ok")
            || is_false("success")
            || is_error("type")
            || is_error("object")
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

    /// Whether its code or type is one of these, or the one that its details repeat of another service.
    pub(super) fn is(&self, words: &[&str]) -> bool {
        let details = self.member("details").unwrap_or(&Value::Null);
        let own = ["code", "type"].map(|name| self.text(name));
        let further = ["code", "type", "error_code"].map(|name| details.get(name).and_then(Value::as_str));
        own.into_iter().chain(further).flatten().any(|word| words.contains(&word))
    }

    /// Whether its message has one of these phrases, which are in lower case.
    pub(super) fn says(&self, phrases: &[&str]) -> bool {
        let mut said = [self.text("message"), self.root_text("error")].into_iter().flatten().map(|message| {
            let end = (0..=MAX_MESSAGE.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
            message[..end.unwrap_or(0)].to_ascii_lowercase()
        });
        said.any(|message| phrases.iter().any(|phrase| message.contains(phrase)))
    }

    /// Whether it is about the limit of a day: by its words (Groq, OpenRouter) or by a `google.rpc.QuotaFailure`.
    pub(super) fn is_daily(&self) -> bool {
        let details = self.member("details").and_then(Value::as_array).into_iter().flatten();
        let violations = details.filter_map(|detail| detail.get("violations")?.as_array()).flatten();
        let mut quotas = violations.filter_map(|violation| violation.get("quotaId")?.as_str());
        quotas.any(|quota| quota.contains("PerDay")) || self.says(&["per day", "per-day"])
    }

    /// The wait in a `google.rpc.RetryInfo` of its details, in seconds.
    pub(super) fn retry_delay(&self) -> Option<f64> {
        let details = self.member("details")?.as_array()?;
        let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        hints::protobuf_duration(delay)
    }
}
