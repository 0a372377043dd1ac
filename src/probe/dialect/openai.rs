//! OpenAI's dialect, as OpenAI, Groq, Azure, Mistral, `DeepSeek` and self-hosted imitators speak it.

use std::borrow::Cow;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{Acceptance, Completion, Content, Dialect, Emptiness, Piece, Usage, count};
use crate::{
    config::{Chat, MaxTokensParameter, Provider, Stream},
    outcome::{Api, RateLimit, Resource},
    probe::{
        body::{ErrorBody, is_failing_finish},
        gate,
        hints::{self, Clocks},
        limits,
    },
};

/// `LiteLLM`'s, which stands beside the upstream's; `OpenAI`'s own, Azure's, Mistral's, Kong's and `DeepSeek`'s.
pub(super) const REQUEST_ID_HEADERS: &[&str] = &[
    "x-litellm-call-id",
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

pub(super) fn stream_body(provider: &Provider, model: &str, stream: &Stream) -> Value {
    let mut body = chat_body(provider, model, &stream.chat);
    body["stream"] = json!(true);
    if stream.include_usage {
        body["stream_options"] = json!({ "include_usage": true });
    }
    body
}

/// `max_tokens` is deprecated at OpenAI and Groq, and OpenAI's reasoning models refuse it; imitators and gateways may
/// know nothing else.
fn max_tokens_parameter(provider: &Provider, model: &str) -> MaxTokensParameter {
    let own_host = matches!(provider.host(), "api.openai.com" | "api.groq.com");
    // LangMart takes `gpt-5`, `openai/gpt-5` and `HANDLE/openai/gpt-5`.
    let mut parts = model.rsplit('/');
    let family = parts.next().unwrap_or(model);
    let openais = provider.api == Api::Openai || parts.next().is_none_or(|owner| owner == "openai");
    let reasons = ["o1", "o3", "o4", "gpt-5"].iter().any(|prefix| family.starts_with(prefix));
    if own_host || openais && reasons {
        MaxTokensParameter::MaxCompletionTokens
    } else {
        MaxTokensParameter::MaxTokens
    }
}

pub(super) fn accepted(answer: &Value) -> Acceptance {
    // Together's list is a bare array; an empty one is null where Go writes it.
    let is_list = |list: &Value| list.is_array() || list.is_null();
    let listed =
        answer.is_array() || ["data", "models"].iter().any(|name| answer.get(*name).is_some_and(is_list));
    if listed { Acceptance::Accepted } else { Acceptance::Unclear }
}

pub(super) fn completion(answer: &Value) -> Completion {
    let Some(choice) = answer.pointer("/choices/0").filter(|choice| choice.is_object()) else {
        return Completion::missing();
    };
    let Some(message) = choice.get("message").filter(|message| message.is_object()) else {
        return Completion::missing();
    };
    let finish = choice.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
    let (text, thinking) = message.get("content").map_or_else(Default::default, content);
    let bytes = text.len() + reasoning(message, thinking);
    let content = if is_failing_finish(finish) {
        Content::Failed
    } else if !text.trim().is_empty() {
        Content::Visible
    } else if message.get("refusal").and_then(Value::as_str).is_some_and(|refusal| !refusal.is_empty()) {
        Content::Empty(Emptiness::Refusal)
    } else if message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty()) {
        Content::Empty(Emptiness::ToolCall)
    } else {
        Content::Empty(why_empty(finish))
    };
    let text = std::iter::once(text.into_owned()).collect();
    Completion { content, usage: usage(answer.get("usage")), bytes, text }
}

/// Why an answer that ended so has no content, if it has none. Gateways hand on the words of other APIs.
fn why_empty(finish_reason: &str) -> Emptiness {
    match finish_reason.to_ascii_lowercase().as_str() {
        "length" | "max_tokens" => Emptiness::Budget("max_tokens"),
        "model_context_window_exceeded" => Emptiness::ContextWindow,
        "content_filter" | "safety" | "sensitive" => Emptiness::Filter,
        "refusal" => Emptiness::Refusal,
        "tool_calls" | "tool_use" | "function_call" => Emptiness::ToolCall,
        _ => Emptiness::Unexplained,
    }
}

/// The counts, and Groq's times beside them.
fn usage(usage: Option<&Value>) -> Usage {
    let tokens = |pointer| usage?.pointer(pointer).and_then(gate::tokens);
    let seconds = |name| usage?.get(name).and_then(Value::as_f64).and_then(gate::processing);
    // OpenAI's name and those of its imitators; who sends several repeats itself.
    let cached = [
        "/prompt_tokens_details/cached_tokens",
        "/input_tokens_details/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/cache_read_input_tokens",
        "/cached_tokens",
        "/num_cached_tokens",
    ];
    Usage {
        input: tokens("/prompt_tokens"),
        cached: cached.into_iter().filter_map(tokens).max(),
        output: tokens("/completion_tokens"),
        reasoning: tokens("/completion_tokens_details/reasoning_tokens"),
        processing: seconds("total_time").map(|total| total + seconds("queue_time").unwrap_or_default()),
    }
}

pub(super) fn piece(event: &Value) -> Piece<'_> {
    // Groq counts in a member of its own. Everyone's chunk with the counts may have no choice, or repeat the last one.
    let counts = event.get("usage").filter(|usage| usage.is_object());
    let usage = usage(counts.or_else(|| event.pointer("/x_groq/usage")));
    // And tells there, in its own words, why it stopped early.
    let stopped_early = event.pointer("/x_groq/error").is_some_and(|error| !error.is_null());
    let Some(choice) = event.pointer("/choices/0") else {
        // What stands in the place of choices may be an error by another name.
        let failed =
            stopped_early || event.get("choices").is_none() && ErrorBody::read(event).is_error_event();
        return Piece { failed, usage, ..Piece::default() };
    };
    let delta = choice.get("delta").unwrap_or(&Value::Null);
    let (text, thinking) = delta.get("content").map_or_else(Default::default, content);
    // Imitators write an empty reason where others write null.
    let finish = choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
    Piece {
        text,
        reasoning: reasoning(delta, thinking),
        refused: delta.get("refusal").and_then(Value::as_str).is_some_and(|refusal| !refusal.is_empty()),
        finish: finish.map(why_empty),
        done: false,
        failed: stopped_early
            || finish.is_some_and(is_failing_finish)
            || choice.get("error").is_some_and(Value::is_object),
        usage,
    }
}

/// The bytes of reasoning in a message or a part of one, beside those in its content.
fn reasoning(message: &Value, thinking: usize) -> usize {
    let length = |name: &str| message.get(name).and_then(Value::as_str).map_or(0, str::len);
    // DeepSeek's name and Groq's; who sends both repeats itself.
    thinking.max(length("reasoning_content")).max(length("reasoning"))
}

/// Content as it is seen, and the bytes of thinking in it: a string, or Mistral's array of parts.
fn content(content: &Value) -> (Cow<'_, str>, usize) {
    let Value::Array(parts) = content else {
        return (content.as_str().unwrap_or_default().into(), 0);
    };
    let is_text = |part: &&Value| part.get("type").and_then(Value::as_str) == Some("text");
    let texts = parts.iter().filter(is_text).filter_map(|part| part.get("text")?.as_str());
    let thinking = parts.iter().filter_map(|part| part.get("thinking")).map(thinking_bytes).sum();
    (texts.collect::<String>().into(), thinking)
}

/// Thinking is a string, or again an array of parts.
fn thinking_bytes(thinking: &Value) -> usize {
    let text = |part: &Value| part.get("text").and_then(Value::as_str).map_or(0, str::len);
    match thinking {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(text).sum(),
        _ => 0,
    }
}

/// `code`, or `type` where the code is null, or Google's `status` behind the same dialect; a code that only repeats the
/// status in digits (Azure, `OpenRouter`) is none.
pub(super) fn error_code<'a>(error: &ErrorBody<'a>) -> Option<&'a str> {
    let says_something = |code: &&str| !code.is_empty() && !code.bytes().all(|byte| byte.is_ascii_digit());
    let names = ["code", "type", "status", "reason", "error_type"];
    names.into_iter().find_map(|name| error.text(name).filter(says_something))
}

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` and the families of imitators: Mistral's, Cerebras', Fireworks'.
/// Resets are Go durations; bare numbers (Azure, Cerebras) have no agreed unit and Mistral sends none.
pub(super) fn rate_limits(headers: &HeaderMap, clocks: &Clocks) -> Vec<RateLimit> {
    const FAMILIES: [(&str, Resource); 12] = [
        ("requests", Resource::Requests),
        ("tokens", Resource::Tokens),
        ("project-tokens", Resource::Tokens),
        ("req-10-second", Resource::Requests),
        ("req-minute", Resource::Requests),
        ("requests-day", Resource::Requests),
        ("tokens-minute", Resource::Tokens),
        ("tokens-month", Resource::Tokens),
        ("tokens-prompt", Resource::InputTokens),
        ("tokens-generated", Resource::OutputTokens),
        ("input-tokens", Resource::InputTokens),
        ("output-tokens", Resource::OutputTokens),
    ];
    let read = |(family, resource)| {
        let reset = hints::text(headers, &format!("x-ratelimit-reset-{family}"))
            .and_then(hints::go_duration)
            .and_then(|seconds| clocks.after(seconds));
        RateLimit::from_figures(
            resource,
            count(headers, &format!("x-ratelimit-limit-{family}")),
            count(headers, &format!("x-ratelimit-remaining-{family}")),
            reset,
        )
    };
    FAMILIES.into_iter().filter_map(read).chain(limits::without_family(headers, clocks)).collect()
}
