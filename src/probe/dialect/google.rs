//! The Gemini developer API.

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::{Acceptance, Completion, Content, Dialect};
use crate::{
    config::{Chat, Provider},
    outcome::{RateLimit, Reason},
    probe::{
        body::ErrorBody,
        gate,
        hints::{self, Clocks},
    },
};

/// See the module.
pub(super) struct Google;

impl Dialect for Google {
    fn key_header(&self) -> (HeaderName, &'static str) {
        // Never `?key=`, which lands in logs.
        (HeaderName::from_static("x-goog-api-key"), "")
    }

    fn auth_path(&self) -> &'static str {
        "/models?pageSize=1"
    }

    fn models_path(&self) -> &'static str {
        // A page has 50 rows by default and 1,000 at the most.
        "/models?pageSize=1000"
    }

    fn chat_path(&self, model: &str) -> String {
        // Whatever would end the path is none of it.
        let model = bare(model).replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        format!("/models/{model}:generateContent")
    }

    fn chat_body(&self, _provider: &Provider, _model: &str, chat: &Chat) -> Value {
        json!({
            "contents": [{ "role": "user", "parts": [{ "text": chat.prompt }] }],
            "generationConfig": { "maxOutputTokens": chat.max_tokens },
        })
    }

    fn accepted(&self, answer: &Value) -> Acceptance {
        if answer.get("models").is_some_and(Value::is_array) {
            Acceptance::Accepted
        } else {
            Acceptance::Unclear
        }
    }

    fn list_members(&self) -> (&'static str, &'static str) {
        ("models", "name")
    }

    fn is_model(&self, listed: &str, model: &str) -> bool {
        bare(listed) == bare(model)
    }

    fn completion(&self, answer: &Value) -> Completion {
        let candidate = answer.pointer("/candidates/0").filter(|candidate| candidate.is_object());
        let blocked = answer.pointer("/promptFeedback/blockReason").is_some_and(Value::is_string);
        let content = match candidate {
            Some(candidate) if has_text(candidate) => Content::Visible,
            Some(candidate) => match candidate.get("finishReason").and_then(Value::as_str) {
                Some("MAX_TOKENS") => {
                    Content::Empty("maxOutputTokens was used up before any visible content")
                }
                Some("SAFETY" | "PROHIBITED_CONTENT" | "BLOCKLIST" | "SPII" | "RECITATION") => {
                    Content::Empty("the answer was filtered")
                }
                _ => Content::Empty("the answer is empty"),
            },
            None if blocked => Content::Empty("the prompt was blocked"),
            None => Content::Missing,
        };
        let usage = |name| answer.get("usageMetadata")?.get(name).and_then(gate::tokens);
        let thoughts = usage("thoughtsTokenCount").unwrap_or(0);
        Completion {
            content,
            input_tokens: usage("promptTokenCount"),
            output_tokens: usage("candidatesTokenCount").map(|tokens| tokens + thoughts),
        }
    }

    fn reason(&self, status: u16, error: &ErrorBody<'_>) -> Option<Reason> {
        let state = error.text("status").unwrap_or_default();
        let about_key = error.says(&["unregistered callers", "api key not valid", "api key was reported"]);
        match status {
            // A bad key is a 400, a missing one a 403.
            400 | 403 if about_key || detail_reason(error) == Some("API_KEY_INVALID") => {
                Some(Reason::AuthFailed)
            }
            400 if state == "FAILED_PRECONDITION" => Some(Reason::Permission),
            503 if state == "UNAVAILABLE" => Some(Reason::Overloaded),
            _ => None,
        }
    }

    fn error_code<'a>(&self, error: &ErrorBody<'a>) -> Option<&'a str> {
        detail_reason(error).or_else(|| error.text("status")).or_else(|| error.text("code"))
    }

    fn body_hint(&self, error: &ErrorBody<'_>) -> Option<f64> {
        let details = error.member("details")?.as_array()?;
        let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        hints::protobuf_duration(delay)
    }

    fn rate_limits(&self, _headers: &HeaderMap, _error: &ErrorBody<'_>, _clocks: &Clocks) -> Vec<RateLimit> {
        Vec::new() // it tells none
    }
}

/// The reason in the error's `google.rpc.ErrorInfo`.
fn detail_reason<'a>(error: &ErrorBody<'a>) -> Option<&'a str> {
    let details = error.member("details")?.as_array()?;
    details.iter().find_map(|detail| detail.get("reason")?.as_str())
}

/// Whether a candidate has a part with text that is not a thought.
fn has_text(candidate: &Value) -> bool {
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
    parts.into_iter().flatten().any(|part| {
        part.get("thought") != Some(&Value::Bool(true))
            && part.get("text").and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty())
    })
}

/// A model's name without the collection that lists put before it.
fn bare(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}
