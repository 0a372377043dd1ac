//! Anthropic's Messages API.

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::{Completion, Content, Dialect, count, rate_limit};
use crate::{
    config::{Chat, Provider},
    outcome::{RateLimit, Reason, Resource},
    probe::{
        body::ErrorBody,
        gate,
        hints::{self, Clocks},
    },
};

/// See the module.
pub(super) struct Anthropic;

impl Dialect for Anthropic {
    fn key_header(&self) -> (HeaderName, &'static str) {
        (HeaderName::from_static("x-api-key"), "")
    }

    fn fixed_headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", "2023-06-01")]
    }

    fn auth_path(&self) -> &'static str {
        "/v1/models?limit=1"
    }

    fn models_path(&self) -> &'static str {
        // A page has 20 rows by default and 1,000 at the most.
        "/v1/models?limit=1000"
    }

    fn chat_path(&self, _model: &str) -> String {
        "/v1/messages".to_owned()
    }

    fn chat_body(&self, _provider: &Provider, model: &str, chat: &Chat) -> Value {
        // Newer models think by default, which would use up a small budget before any visible content.
        json!({
            "model": model,
            "max_tokens": chat.max_tokens,
            "thinking": { "type": "disabled" },
            "messages": [{ "role": "user", "content": chat.prompt }],
        })
    }

    fn completion(&self, answer: &Value) -> Completion {
        let Some(blocks) = answer.get("content").and_then(Value::as_array) else {
            return Completion::missing();
        };
        let text = |block: &Value| {
            block.get("type").and_then(Value::as_str) == Some("text")
                && block.get("text").and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty())
        };
        let content = if blocks.iter().any(text) {
            Content::Visible
        } else {
            match answer.get("stop_reason").and_then(Value::as_str) {
                Some("refusal") => Content::Empty("the model refused"),
                Some("max_tokens") => Content::Empty("max_tokens was used up before any visible content"),
                _ => Content::Empty("the answer is empty"),
            }
        };
        let usage = |name| answer.get("usage")?.get(name).and_then(gate::tokens);
        Completion { content, input_tokens: usage("input_tokens"), output_tokens: usage("output_tokens") }
    }

    fn reason(&self, status: u16, error: &ErrorBody<'_>) -> Option<Reason> {
        let detail =
            error.member("details").and_then(|details| details.get("error_code")).and_then(Value::as_str);
        (status == 429 && detail == Some("enforced_spend_limit_reached")).then_some(Reason::Billing)
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
            rate_limit(
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
