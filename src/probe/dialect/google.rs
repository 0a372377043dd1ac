//! The Gemini developer API.

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::{Acceptance, Completion, Content, Dialect, Emptiness, Piece, Usage};
use crate::{
    config::{Chat, Provider, Stream},
    outcome::{RateLimit, Reason},
    probe::{
        body::{ErrorBody, is_failing_finish},
        gate,
        hints::Clocks,
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
        format!("/models/{}:generateContent", escaped(model))
    }

    fn chat_body(&self, _provider: &Provider, model: &str, chat: &Chat) -> Value {
        let mut generation = json!({ "maxOutputTokens": chat.max_tokens });
        if bare(model) == "gemini-2.5-flash" {
            // It thinks by default, and may be told not to; the others either do not, or may not, or want other words.
            generation["thinkingConfig"] = json!({ "thinkingBudget": 0 });
        }
        json!({
            "contents": [{ "role": "user", "parts": [{ "text": chat.prompt }] }],
            "generationConfig": generation,
        })
    }

    fn stream_path(&self, model: &str) -> String {
        // Without alt=sse it is one JSON array.
        format!("/models/{}:streamGenerateContent?alt=sse", escaped(model))
    }

    fn stream_body(&self, provider: &Provider, model: &str, stream: &Stream) -> Value {
        self.chat_body(provider, model, &stream.chat)
    }

    fn piece<'a>(&self, event: &'a Value) -> Piece<'a> {
        let candidate = event.pointer("/candidates/0").unwrap_or(&Value::Null);
        let blocked = event.pointer("/promptFeedback/blockReason").is_some_and(Value::is_string);
        let reason = candidate.get("finishReason").and_then(Value::as_str);
        let finish = reason.map(why_empty);
        Piece {
            text: texts(candidate, false).collect::<String>().into(),
            reasoning: texts(candidate, true).map(str::len).sum(),
            finish: finish.or(blocked.then_some(Emptiness::BlockedPrompt)),
            failed: reason.is_some_and(is_failing_finish),
            usage: usage(event),
            ..Piece::default()
        }
    }

    fn ends_with_done(&self) -> bool {
        false
    }

    fn accepted(&self, answer: &Value) -> Acceptance {
        if answer.get("models").is_some_and(Value::is_array) {
            Acceptance::Accepted
        } else {
            Acceptance::Unclear
        }
    }

    fn is_model(&self, listed: &str, model: &str) -> bool {
        bare(listed) == bare(model)
    }

    fn completion(&self, answer: &Value) -> Completion {
        let candidate = answer.pointer("/candidates/0").filter(|candidate| candidate.is_object());
        let blocked = answer.pointer("/promptFeedback/blockReason").is_some_and(Value::is_string);
        let reason = candidate.and_then(|candidate| candidate.get("finishReason")).and_then(Value::as_str);
        let content = match candidate {
            Some(_) if reason.is_some_and(is_failing_finish) => Content::Failed,
            Some(candidate) if texts(candidate, false).any(|text| !text.trim().is_empty()) => {
                Content::Visible
            }
            Some(_) => Content::Empty(why_empty(reason.unwrap_or_default())),
            None if blocked => Content::Empty(Emptiness::BlockedPrompt),
            None => Content::Missing,
        };
        let bytes =
            |candidate| [false, true].map(|thoughts| texts(candidate, thoughts).map(str::len).sum::<usize>());
        let bytes = candidate.map_or(0, |candidate| bytes(candidate).iter().sum());
        let text = candidate.into_iter().flat_map(|candidate| texts(candidate, false)).map(str::to_owned);
        Completion { content, usage: usage(answer), bytes, text: text.collect() }
    }

    fn answered_model<'a>(&self, answer: &'a Value) -> Option<&'a str> {
        answer.get("modelVersion")?.as_str()
    }

    fn reason(&self, status: u16, error: &ErrorBody<'_>) -> Option<Reason> {
        let state = error.text("status").unwrap_or_default();
        match status {
            // A bad key is a 400.
            400 | 403 if detail_reason(error) == Some("API_KEY_INVALID") => Some(Reason::AuthFailed),
            403 if detail_reason(error) == Some("BILLING_DISABLED") => Some(Reason::Billing),
            400 if state == "FAILED_PRECONDITION" => Some(Reason::Permission),
            503 if state == "UNAVAILABLE" => Some(Reason::Overloaded),
            _ => None,
        }
    }

    fn speaks_google(&self) -> bool {
        true
    }

    fn error_code<'a>(&self, error: &ErrorBody<'a>) -> Option<&'a str> {
        detail_reason(error).or_else(|| error.text("status")).or_else(|| error.text("code"))
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

/// The texts of a candidate's parts that are thoughts, or of those that are not.
fn texts(candidate: &Value, thoughts: bool) -> impl Iterator<Item = &str> {
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array).into_iter().flatten();
    let wanted = move |part: &&Value| (part.get("thought") == Some(&Value::Bool(true))) == thoughts;
    parts.filter(wanted).filter_map(|part| part.get("text")?.as_str())
}

/// Why an answer that ended so has no content, if it has none.
fn why_empty(finish_reason: &str) -> Emptiness {
    match finish_reason {
        "MAX_TOKENS" => Emptiness::Budget("maxOutputTokens"),
        "SAFETY" | "PROHIBITED_CONTENT" | "BLOCKLIST" | "SPII" | "RECITATION" | "LANGUAGE" => {
            Emptiness::Filter
        }
        _ => Emptiness::Unexplained,
    }
}

/// Thoughts are counted beside the answer; where there is no answer, only they are.
fn usage(answer: &Value) -> Usage {
    let tokens = |name| answer.get("usageMetadata")?.get(name).and_then(gate::tokens);
    let (candidates, thoughts) = (tokens("candidatesTokenCount"), tokens("thoughtsTokenCount"));
    let output = (candidates.is_some() || thoughts.is_some())
        .then(|| candidates.unwrap_or(0).saturating_add(thoughts.unwrap_or(0)));
    Usage {
        input: tokens("promptTokenCount"),
        cached: tokens("cachedContentTokenCount"),
        output,
        reasoning: thoughts,
        processing: None,
    }
}

/// A model's name without the collection that lists put before it.
fn bare(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

/// The same in a path, of which nothing in it is the end.
fn escaped(model: &str) -> String {
    bare(model).replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_models_name_ends_the_path() {
        assert_eq!(Google.chat_path("models/a%b?c#d"), "/models/a%25b%3Fc%23d:generateContent");
        assert_eq!(
            Google.stream_path("models/a%b?c#d"),
            "/models/a%25b%3Fc%23d:streamGenerateContent?alt=sse"
        );
    }
}
