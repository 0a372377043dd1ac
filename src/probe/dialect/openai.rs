//! OpenAI's dialect, as OpenAI, Groq, Azure, Mistral, `DeepSeek` and self-hosted imitators speak it.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{Acceptance, Completion, Content, Dialect, count, rate_limit};
use crate::{
    config::{Chat, MaxTokensParameter, Provider},
    outcome::{Api, RateLimit, Resource},
    probe::{
        body::ErrorBody,
        gate,
        hints::{self, Clocks},
    },
};

/// OpenAI's own, Azure's, Mistral's, Kong's and `DeepSeek`'s names for it.
pub(super) const REQUEST_ID_HEADERS: &[&str] = &[
    "x-request-id",
    "request-id",
    "apim-request-id",
    "mistral-correlation-id",
    "x-kong-request-id",
    "x-ds-trace-id",
];

/// See the module.
pub(super) struct Openai;

impl Dialect for Openai {}

pub(super) fn chat_body(provider: &Provider, model: &str, chat: &Chat) -> Value {
    let parameter = match chat.max_tokens_parameter.unwrap_or_else(|| max_tokens_parameter(provider, model)) {
        MaxTokensParameter::MaxTokens => "max_tokens",
        MaxTokensParameter::MaxCompletionTokens => "max_completion_tokens",
    };
    // No temperature: reasoning models refuse any but their own.
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": chat.prompt }],
        parameter: chat.max_tokens,
        "stream": false,
    })
}

/// `max_tokens` is deprecated at OpenAI and Groq, and OpenAI's reasoning models refuse it; imitators and gateways may
/// know nothing else.
fn max_tokens_parameter(provider: &Provider, model: &str) -> MaxTokensParameter {
    let own_host = matches!(provider.host(), "api.openai.com" | "api.groq.com");
    let family = model.rsplit('/').next().unwrap_or(model);
    let openais = provider.api == Api::Openai || model.starts_with("openai/");
    let reasons = ["o1", "o3", "o4", "gpt-5"].iter().any(|prefix| family.starts_with(prefix));
    if own_host || openais && reasons {
        MaxTokensParameter::MaxCompletionTokens
    } else {
        MaxTokensParameter::MaxTokens
    }
}

pub(super) fn accepted(answer: &Value) -> Acceptance {
    if answer.get("data").is_some_and(Value::is_array) { Acceptance::Accepted } else { Acceptance::Unclear }
}

pub(super) fn completion(answer: &Value) -> Completion {
    let Some(choice) = answer.pointer("/choices/0").filter(|choice| choice.is_object()) else {
        return Completion::missing();
    };
    let Some(message) = choice.get("message").filter(|message| message.is_object()) else {
        return Completion::missing();
    };
    let finish = choice.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
    let content = if message.get("content").is_some_and(is_visible) {
        Content::Visible
    } else if message.get("refusal").is_some_and(Value::is_string) {
        Content::Empty("the model refused")
    } else {
        match finish {
            "length" => Content::Empty("max_tokens was used up before any visible content"),
            "content_filter" => Content::Empty("the answer was filtered"),
            _ => Content::Empty("the answer is empty"),
        }
    };
    let usage = |name| answer.get("usage")?.get(name).and_then(gate::tokens);
    Completion { content, input_tokens: usage("prompt_tokens"), output_tokens: usage("completion_tokens") }
}

/// Content is a string, or Mistral's array of parts, of which the text counts and the thinking does not.
fn is_visible(content: &Value) -> bool {
    match content {
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(parts) => parts
            .iter()
            .filter(|part| part.get("type").and_then(Value::as_str) == Some("text"))
            .filter_map(|part| part.get("text")?.as_str())
            .any(|text| !text.trim().is_empty()),
        _ => false,
    }
}

/// `code`, or `type` where the code is null; a code that only repeats the status in digits (Azure, `OpenRouter`) is none.
pub(super) fn error_code<'a>(error: &ErrorBody<'a>) -> Option<&'a str> {
    let says_something = |code: &&str| !code.is_empty() && !code.bytes().all(|byte| byte.is_ascii_digit());
    error.text("code").filter(says_something).or_else(|| error.text("type").filter(says_something))
}

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` and the families of imitators. Resets are Go durations;
/// Azure's bare integers have no agreed unit and Mistral sends none.
pub(super) fn rate_limits(headers: &HeaderMap, clocks: &Clocks) -> Vec<RateLimit> {
    const FAMILIES: [(&str, Resource); 6] = [
        ("requests", Resource::Requests),
        ("tokens", Resource::Tokens),
        ("project-tokens", Resource::Tokens),
        ("req-10-second", Resource::Requests),
        ("tokens-minute", Resource::Tokens),
        ("tokens-month", Resource::Tokens),
    ];
    let read = |(family, resource)| {
        let reset = hints::text(headers, &format!("x-ratelimit-reset-{family}"))
            .and_then(hints::go_duration)
            .and_then(|seconds| clocks.after(seconds));
        rate_limit(
            resource,
            count(headers, &format!("x-ratelimit-limit-{family}")),
            count(headers, &format!("x-ratelimit-remaining-{family}")),
            reset,
        )
    };
    FAMILIES.into_iter().filter_map(read).collect()
}
