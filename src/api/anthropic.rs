//! Anthropic's Messages API.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    AnswerText, ApiPaths, ChatRequest, Completion, Content, Dialect, Piece, Profile, Usage,
    body::{ErrorBody, is_failing_finish},
    count, gate,
    hints::{self, Clocks},
};
use crate::outcome::{Emptiness, RateLimit, Resource};

/// Facts about the API.
pub(super) const PROFILE: Profile = Profile {
    display_name: "Anthropic",
    base_url: "https://api.anthropic.com",
    is_imitated: true,
    key_header: "x-api-key",
    key_scheme: "",
    key_prefixes: &["sk-ant-"],
    keys_page: Some("https://console.anthropic.com/settings/keys"),
    limits_page: Some("https://console.anthropic.com/settings/limits"),
    status_page: Some("https://status.claude.com"),
    status_data: Some("https://status.claude.com/api/v2/summary.json"),
    fixed_headers: &[("anthropic-version", "2026-10-21")],
    paths: ApiPaths {
        auth: "/v1/models?limit=1",
        // A page has 20 rows by default and 1,000 at most.
        models: "/v1/models?limit=1000",
        chat: "/v1/messages",
        stream: "/v1/messages",
        ..ApiPaths::OPENAI
    },
    takes_openai_parameters: false,
    reasoning_models: &["claude-haiku-5", "claude-sonnet-5", "claude-opus-5"],
    disables_reasoning: |_| true,
    error_codes: &[
        "api_error",
        "authentication_error",
        "billing_error",
        "conflict_error",
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "not_found_error",
        "overloaded_error",
        "permission_error",
        "ramp_limit_exceeded",
        "request_too_large",
        "timeout_error",
    ],
    ..Profile::OPENAI
};

/// Dialect of the API.
pub(super) struct Anthropic;

impl Dialect for Anthropic {
    fn chat_body(&self, request: &ChatRequest<'_>) -> Value {
        // Newer models reason by default, which would exhaust a small budget before any visible
        // content.
        let mut body = json!({
            "model": request.model,
            "max_tokens": request.max_tokens,
            "thinking": { "type": "disabled" },
            "messages": [{ "role": "user", "content": request.prompt }],
        });
        if request.stream {
            body["stream"] = json!(true);
        }
        body
    }

    fn piece<'a>(&self, event: &'a Value) -> Piece<'a> {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        // Other types, such as ping, have no information about the answer.
        match text("/type") {
            "message_start" => {
                // Its output tokens are only those of the beginning.
                Piece {
                    usage: Usage { output: None, ..usage(event.pointer("/message/usage")) },
                    ..Piece::default()
                }
            }
            "content_block_start" => Piece { text: text("/content_block/text").into(), ..Piece::default() },
            "content_block_delta" => Piece {
                text: text("/delta/text").into(),
                reasoning: text("/delta/thinking").len(),
                ..Piece::default()
            },
            "message_delta" => Piece {
                finish: event.pointer("/delta/stop_reason").and_then(Value::as_str).map(why_empty),
                failed: is_failing_finish(text("/delta/stop_reason")),
                usage: usage(event.get("usage")),
                ..Piece::default()
            },
            "message_stop" => Piece { done: true, ..Piece::default() },
            _ => Piece::default(),
        }
    }

    fn ends_with_done(&self) -> bool {
        false
    }

    fn completion(&self, answer: &Value) -> Completion {
        let Some(blocks) = answer.get("content").and_then(Value::as_array) else {
            return Completion::missing();
        };
        let is_text = |block: &&Value| block.get("type").and_then(Value::as_str) == Some("text");
        let texts = blocks.iter().filter(is_text).filter_map(|block| block.get("text")?.as_str());
        let text: AnswerText = texts.map(str::to_owned).collect();
        let stop_reason = answer.get("stop_reason").and_then(Value::as_str).unwrap_or_default();
        let content = if is_failing_finish(stop_reason) {
            Content::Failed
        } else if text.is_visible() {
            Content::Visible
        } else {
            Content::Empty(why_empty(stop_reason))
        };
        let length = |block: &Value, name| block.get(name).and_then(Value::as_str).map_or(0, str::len);
        Completion {
            content,
            usage: usage(answer.get("usage")),
            bytes: blocks.iter().map(|block| length(block, "text") + length(block, "thinking")).sum(),
            text,
        }
    }

    fn answered_model<'a>(&self, answer: &'a Value) -> Option<&'a str> {
        // In a stream, only message_start names it.
        answer.get("message").unwrap_or(answer).get("model")?.as_str()
    }

    fn is_model(&self, listed: &str, model: &str) -> bool {
        // The list has only dated names; an alias omits the date, or has `latest` in its place.
        let alias = model.strip_suffix("-latest").unwrap_or(model);
        let date = listed.strip_prefix(alias).and_then(|rest| rest.strip_prefix('-'));
        let dated = |date: &str| date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
        listed == model || date.is_some_and(dated)
    }

    fn rate_limits(&self, headers: &HeaderMap, _error: &ErrorBody<'_>, clocks: &Clocks) -> Vec<RateLimit> {
        const FAMILIES: [(&str, Resource); 4] = [
            ("requests", Resource::Requests),
            ("tokens", Resource::Tokens),
            ("input-tokens", Resource::InputTokens),
            ("output-tokens", Resource::OutputTokens),
        ];
        let read = |(family, resource)| {
            let reset = hints::text(headers, &format!("anthropic-ratelimit-{family}-reset"))
                .and_then(hints::rfc3339)
                .and_then(|moment| clocks.ours(moment));
            RateLimit::from_figures(
                resource,
                count(headers, &format!("anthropic-ratelimit-{family}-limit")),
                count(headers, &format!("anthropic-ratelimit-{family}-remaining")),
                reset,
            )
        };
        FAMILIES.into_iter().filter_map(read).collect()
    }

    fn request_id_headers(&self) -> &'static [&'static str] {
        &["request-id", "x-request-id"]
    }
}

/// Returns the counts. Input tokens that a cache served or stored are counted apart, and are part
/// of the input here.
fn usage(usage: Option<&Value>) -> Usage {
    let tokens = |name| usage?.get(name).and_then(gate::tokens);
    let cached = tokens("cache_read_input_tokens");
    let beside = cached.unwrap_or(0).saturating_add(tokens("cache_creation_input_tokens").unwrap_or(0));
    Usage {
        input: tokens("input_tokens").map(|input| input.saturating_add(beside)),
        cached,
        output: tokens("output_tokens"),
        ..Usage::default()
    }
}

/// Returns the cause of an answer without content, by its stop reason.
fn why_empty(stop_reason: &str) -> Emptiness {
    match stop_reason {
        "refusal" => Emptiness::Refusal,
        "max_tokens" => Emptiness::MaxTokens,
        "model_context_window_exceeded" => Emptiness::ContextWindow,
        "tool_use" => Emptiness::ToolCall,
        _ => Emptiness::Unexplained,
    }
}
