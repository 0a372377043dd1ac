//! `OpenAI`'s dialect, which Groq, Azure, Mistral, `DeepSeek` and self-hosted servers use as well.

use std::borrow::Cow;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    Acceptance, AnswerText, ChatRequest, Completion, Content, Dialect, MaxTokensParameter, Piece, Profile,
    Usage,
    body::{ErrorBody, is_failing_finish},
    count, gate,
    hints::{self, Clocks},
    limits,
};
use crate::outcome::{Api, Emptiness, RateLimit, Resource};

/// Facts about the API.
pub(super) const PROFILE: Profile = Profile {
    display_name: "OpenAI",
    base_url: "https://api.openai.com/v1",
    is_imitated: true,
    may_be_keyless: true,
    // The plain prefix `sk-` is used by many services.
    key_prefixes: &["sk-proj-"],
    keys_page: Some("https://platform.openai.com/api-keys"),
    limits_page: Some("https://platform.openai.com/account/limits"),
    status_page: Some("https://status.openai.com"),
    status_data: Some("https://status.openai.com/api/v2/summary.json"),
    deprecates_max_tokens: true,
    reasoning_models: &["o1", "o3", "o4", "gpt-5"],
    error_codes: &[
        "account_deactivated",
        "billing_hard_limit_reached",
        "billing_not_active",
        "content_filter",
        "context_length_exceeded",
        "credit_balance_exhausted",
        "insufficient_quota",
        "internal_server_error",
        "invalid_api_key",
        "invalid_request_error",
        "model_decommissioned",
        "model_not_found",
        "organization_restricted",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
        "rate_limit_error",
        "rate_limit_exceeded",
        "requests",
        "server_error",
        "server_is_overloaded",
        "service_unavailable_error",
        "slow_down",
        "tokens",
        "unsupported_country_region_territory",
        "unsupported_parameter",
        "unsupported_value",
        "DeploymentNotFound",
    ],
    ..Profile::OPENAI
};

/// Headers with the request ID, of `LiteLLM`, `OpenAI`, Azure, Mistral, Kong and `DeepSeek`.
/// `LiteLLM` sends its own beside the upstream's.
pub(crate) const REQUEST_ID_HEADERS: &[&str] = &[
    "x-litellm-call-id",
    "x-request-id",
    "request-id",
    "apim-request-id",
    "mistral-correlation-id",
    "x-kong-request-id",
    "x-ds-trace-id",
];

/// Dialect of the API.
pub(super) struct Openai;

impl Dialect for Openai {}

pub(super) fn chat_body(request: &ChatRequest<'_>) -> Value {
    let parameter = match request.max_tokens_parameter.unwrap_or_else(|| max_tokens_parameter(request)) {
        MaxTokensParameter::MaxTokens => "max_tokens",
        MaxTokensParameter::MaxCompletionTokens => "max_completion_tokens",
    };
    // No temperature: reasoning models reject all values but their default.
    let mut body = json!({
        "model": request.model,
        "messages": [{ "role": "user", "content": request.prompt }],
        parameter: request.max_tokens,
        "stream": request.stream,
    });
    if request.stream && request.include_usage {
        body["stream_options"] = json!({ "include_usage": true });
    }
    body
}

/// Returns the parameter by host and model. Some APIs deprecate `max_tokens`, and `OpenAI`'s
/// reasoning models reject it; imitators and gateways may know no other.
fn max_tokens_parameter(request: &ChatRequest<'_>) -> MaxTokensParameter {
    let at_host = |api: &&Api| api.profile().deprecates_max_tokens && api.profile().is_at(request.host);
    // LangMart accepts `gpt-5`, `openai/gpt-5` and `HANDLE/openai/gpt-5`.
    let mut parts = request.model.rsplit('/');
    let family = parts.next().unwrap_or(request.model);
    let openais = request.api == Api::Openai || parts.next().is_none_or(|owner| owner == "openai");
    let reasons = PROFILE.reasoning_models.iter().any(|prefix| family.starts_with(prefix));
    if Api::ALL.iter().any(|api| at_host(&api)) || openais && reasons {
        MaxTokensParameter::MaxCompletionTokens
    } else {
        MaxTokensParameter::MaxTokens
    }
}

pub(crate) fn accepted(answer: &Value) -> Acceptance {
    // Together's list is a bare array; servers in Go write an empty one as null.
    let is_list = |list: &Value| list.is_array() || list.is_null();
    let listed =
        answer.is_array() || ["data", "models"].iter().any(|name| answer.get(*name).is_some_and(is_list));
    if listed { Acceptance::Accepted } else { Acceptance::Unclear }
}

pub(crate) fn completion(answer: &Value) -> Completion {
    let Some(choice) = answer.pointer("/choices/0").filter(|choice| choice.is_object()) else {
        return Completion::missing();
    };
    let Some(message) = choice.get("message").filter(|message| message.is_object()) else {
        return Completion::missing();
    };
    let finish = choice.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
    let (text, thinking) = message.get("content").map_or_else(Default::default, content);
    let bytes = text.len() + reasoning(message, thinking);
    let text: AnswerText = std::iter::once(text.into_owned()).collect();
    let content = if is_failing_finish(finish) {
        Content::Failed
    } else if text.is_visible() {
        Content::Visible
    } else if refuses(message) {
        Content::Empty(Emptiness::Refusal)
    } else if message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty()) {
        Content::Empty(Emptiness::ToolCall)
    } else {
        Content::Empty(why_empty(finish))
    };
    Completion { content, usage: usage(answer.get("usage")), bytes, text }
}

/// Returns whether a message or a part of one is a refusal, in a member or among the parts of its
/// content.
fn refuses(message: &Value) -> bool {
    let parts = message.get("content").and_then(Value::as_array).into_iter().flatten();
    parts
        .chain([message])
        .any(|part| part.get("refusal").and_then(Value::as_str).is_some_and(|refusal| !refusal.is_empty()))
}

/// Returns the cause of an answer without content, by its finish reason. Gateways forward the
/// reasons of other APIs.
fn why_empty(finish_reason: &str) -> Emptiness {
    match finish_reason.to_ascii_lowercase().as_str() {
        "length" | "max_tokens" => Emptiness::MaxTokens,
        "model_context_window_exceeded" => Emptiness::ContextWindow,
        "content_filter" | "safety" | "sensitive" => Emptiness::Filter,
        "refusal" => Emptiness::Refusal,
        "tool_calls" | "tool_use" | "function_call" => Emptiness::ToolCall,
        _ => Emptiness::Unexplained,
    }
}

/// Returns the token counts, and Groq's processing time.
fn usage(usage: Option<&Value>) -> Usage {
    let tokens = |pointer| usage?.pointer(pointer).and_then(gate::tokens);
    let seconds = |name| usage?.get(name).and_then(Value::as_f64).and_then(gate::processing);
    // OpenAI's name and those of its imitators; if there are several, they are equal.
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

pub(crate) fn piece(event: &Value) -> Piece<'_> {
    // Groq has the counts in a member of its own. The chunk with the counts may have no choice, or
    // repeat the last one.
    let counts = event.get("usage").filter(|usage| usage.is_object());
    let usage = usage(counts.or_else(|| event.pointer("/x_groq/usage")));
    // Groq reports there why it stopped early.
    let stopped_early = event.pointer("/x_groq/error").is_some_and(|error| !error.is_null());
    let Some(choice) = event.pointer("/choices/0") else {
        // A chunk without choices may be an error in another form.
        let failed =
            stopped_early || event.get("choices").is_none() && ErrorBody::read(event).is_error_event();
        return Piece { failed, usage, ..Piece::default() };
    };
    let delta = choice.get("delta").unwrap_or(&Value::Null);
    let (text, thinking) = delta.get("content").map_or_else(Default::default, content);
    // Some imitators write an empty reason instead of null.
    let finish = choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
    Piece {
        text,
        reasoning: reasoning(delta, thinking),
        instead: refuses(delta).then_some(Emptiness::Refusal),
        finish: finish.map(why_empty),
        done: false,
        failed: stopped_early
            || finish.is_some_and(is_failing_finish)
            || choice.get("error").is_some_and(Value::is_object),
        usage,
    }
}

/// Returns the bytes of reasoning in a message or a part of one. `thinking` is the number in its
/// content.
fn reasoning(message: &Value, thinking: usize) -> usize {
    let length = |name: &str| message.get(name).and_then(Value::as_str).map_or(0, str::len);
    // DeepSeek's name and Groq's; if there are both, they are equal.
    thinking.max(length("reasoning_content")).max(length("reasoning"))
}

/// Returns the visible content and the bytes of reasoning in it. Content is a string, or Mistral's
/// array of parts.
fn content(content: &Value) -> (Cow<'_, str>, usize) {
    let Value::Array(parts) = content else {
        return (content.as_str().unwrap_or_default().into(), 0);
    };
    let is_text = |part: &&Value| part.get("type").and_then(Value::as_str) == Some("text");
    let texts = parts.iter().filter(is_text).filter_map(|part| part.get("text")?.as_str());
    let thinking = parts.iter().filter_map(|part| part.get("thinking")).map(thinking_bytes).sum();
    (texts.collect::<String>().into(), thinking)
}

/// Returns the bytes of reasoning, which is a string or an array of parts.
fn thinking_bytes(thinking: &Value) -> usize {
    let text = |part: &Value| part.get("text").and_then(Value::as_str).map_or(0, str::len);
    match thinking {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(text).sum(),
        _ => 0,
    }
}

/// Returns `code`, `type` if the code is null, or Google's `status`. A code that only repeats the
/// HTTP status in digits (Azure, `OpenRouter`) is ignored.
pub(crate) fn error_code<'a>(error: &ErrorBody<'a>) -> Option<&'a str> {
    let is_specific = |code: &&str| !code.is_empty() && !code.bytes().all(|byte| byte.is_ascii_digit());
    let names = ["code", "type", "status", "reason", "error_type"];
    names.into_iter().find_map(|name| error.text(name).filter(is_specific))
}

/// Reads `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` and the families of Mistral,
/// Cerebras and Fireworks. Resets are Go durations; bare numbers (Azure, Cerebras) have no agreed
/// unit and are ignored.
pub(crate) fn rate_limits(headers: &HeaderMap, clocks: &Clocks) -> Vec<RateLimit> {
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
