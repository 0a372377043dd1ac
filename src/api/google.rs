//! The Gemini developer API.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    Acceptance, AnswerText, ApiPaths, ChatRequest, Completion, Content, Dialect, Piece, Profile, Usage,
    body::{ErrorBody, is_failing_finish},
    gate,
    hints::Clocks,
};
use crate::outcome::{Emptiness, RateLimit, Reason};

/// Facts about the API.
pub(super) const PROFILE: Profile = Profile {
    display_name: "Google",
    base_url: "https://generativelanguage.googleapis.com/v1beta",
    // Not `?key=`, which is written to logs.
    key_header: "x-goog-api-key",
    key_scheme: "",
    key_prefixes: &["AIza"],
    keys_page: Some("https://aistudio.google.com/apikey"),
    limits_page: Some("https://console.cloud.google.com/apis/quotas"),
    // It covers Vertex, whose incidents the Gemini API shares.
    status_page: Some("https://status.cloud.google.com"),
    status_data: Some("https://status.cloud.google.com/incidents.json"),
    paths: ApiPaths {
        auth: "/models?pageSize=1",
        // A page has 50 rows by default and 1,000 at most.
        models: "/models?pageSize=1000",
        chat: "/models/MODEL:generateContent",
        // Without alt=sse, the response is one JSON array.
        stream: "/models/MODEL:streamGenerateContent?alt=sse",
        ..ApiPaths::OPENAI
    },
    takes_openai_parameters: false,
    reasoning_models: &[
        "gemini-2.5-pro",
        "gemini-2.5-flash",
        "gemini-3",
        "gemini-pro-latest",
        "gemini-flash-latest",
    ],
    disables_reasoning: |model| bare(model) == FLASH,
    error_codes: &[
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_INVALID",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "API_KEY_SERVICE_BLOCKED",
        "BILLING_DISABLED",
        "CONSUMER_SUSPENDED",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "RATE_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "SERVICE_DISABLED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
    ],
    ..Profile::OPENAI
};

/// The model whose reasoning the request disables. Other models do not reason, cannot be switched,
/// or have another parameter.
const FLASH: &str = "gemini-2.5-flash";

/// Dialect of the API.
pub(super) struct Google;

impl Dialect for Google {
    fn path_of(&self, template: &'static str, model: &str) -> String {
        template.replace("MODEL", &escaped(model))
    }

    fn chat_body(&self, request: &ChatRequest<'_>) -> Value {
        let mut generation = json!({ "maxOutputTokens": request.max_tokens });
        if bare(request.model) == FLASH {
            generation["thinkingConfig"] = json!({ "thinkingBudget": 0 });
        }
        json!({
            "contents": [{ "role": "user", "parts": [{ "text": request.prompt }] }],
            "generationConfig": generation,
        })
    }

    fn piece<'a>(&self, event: &'a Value) -> Piece<'a> {
        let candidate = event.pointer("/candidates/0").unwrap_or(&Value::Null);
        let blocked = event.pointer("/promptFeedback/blockReason").is_some_and(Value::is_string);
        let reason = candidate.get("finishReason").and_then(Value::as_str);
        let finish = reason.map(|reason| why_empty(candidate, reason));
        Piece {
            text: texts(candidate, false).collect::<String>().into(),
            reasoning: texts(candidate, true).map(str::len).sum(),
            instead: calls(candidate).then_some(Emptiness::ToolCall),
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
        let text = candidate.into_iter().flat_map(|candidate| texts(candidate, false)).map(str::to_owned);
        let text: AnswerText = text.collect();
        let content = match candidate {
            Some(_) if reason.is_some_and(is_failing_finish) => Content::Failed,
            Some(_) if text.is_visible() => Content::Visible,
            Some(candidate) => Content::Empty(why_empty(candidate, reason.unwrap_or_default())),
            None if blocked => Content::Empty(Emptiness::BlockedPrompt),
            None => Content::Missing,
        };
        let bytes =
            |candidate| [false, true].map(|thoughts| texts(candidate, thoughts).map(str::len).sum::<usize>());
        let bytes = candidate.map_or(0, |candidate| bytes(candidate).iter().sum());
        Completion { content, usage: usage(answer), bytes, text }
    }

    fn answered_model<'a>(&self, answer: &'a Value) -> Option<&'a str> {
        answer.get("modelVersion")?.as_str()
    }

    fn reason(&self, status: u16, error: &ErrorBody<'_>) -> Option<Reason> {
        let state = error.text("status").unwrap_or_default();
        match status {
            // An invalid key is reported as 400.
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
        Vec::new() // it reports none
    }
}

/// Returns the reason in the error's `google.rpc.ErrorInfo`.
fn detail_reason<'a>(error: &ErrorBody<'a>) -> Option<&'a str> {
    let details = error.member("details")?.as_array()?;
    details.iter().find_map(|detail| detail.get("reason")?.as_str())
}

/// Returns the texts of a candidate's parts that are thoughts, or of the others.
fn texts(candidate: &Value, thoughts: bool) -> impl Iterator<Item = &str> {
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array).into_iter().flatten();
    let wanted = move |part: &&Value| (part.get("thought") == Some(&Value::Bool(true))) == thoughts;
    parts.filter(wanted).filter_map(|part| part.get("text")?.as_str())
}

/// Returns whether a candidate calls a tool.
fn calls(candidate: &Value) -> bool {
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
    parts.into_iter().flatten().any(|part| part.get("functionCall").is_some())
}

/// Returns the cause of an answer without content, by its parts and its finish reason.
fn why_empty(candidate: &Value, finish_reason: &str) -> Emptiness {
    // With prefixes for each kind of content, such as IMAGE_SAFETY.
    const FILTERS: [&str; 6] = ["SAFETY", "PROHIBITED", "BLOCKLIST", "SPII", "RECITATION", "LANGUAGE"];
    match finish_reason {
        "MAX_TOKENS" => Emptiness::MaxOutputTokens,
        "TOO_MANY_TOOL_CALLS" => Emptiness::ToolCall,
        _ if calls(candidate) => Emptiness::ToolCall,
        _ if FILTERS.iter().any(|filter| finish_reason.contains(filter)) => Emptiness::Filter,
        _ => Emptiness::Unexplained,
    }
}

/// Returns the token counts. Thoughts are counted apart from the answer, also without an answer.
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

/// Returns the name of a model without the collection that lists put before it.
fn bare(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

/// Returns the name of a model, escaped for a path.
fn escaped(model: &str) -> String {
    bare(model).replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_name_is_escaped_in_path() {
        let path = |template| Google.path_of(template, "models/a%b?c#d");
        assert_eq!(path(PROFILE.paths.chat), "/models/a%25b%3Fc%23d:generateContent");
        assert_eq!(path(PROFILE.paths.stream), "/models/a%25b%3Fc%23d:streamGenerateContent?alt=sse");
    }
}
