//! Anthropic's Messages API.

use std::time::Duration;

use serde_json::{Value, json};

#[cfg(test)]
use super::service::SampleChat;
use super::{
    limits::rfc3339,
    service::{Call, Endpoint, Facts, Failure, Service, bearer, request_number},
    status_page,
    stream::{Events, Finish, Outline, Piece},
};
use crate::simulator::{
    exchange::{Reply, Request},
    fault::Parameters,
};

/// The simulated service.
pub(super) struct Anthropic;

impl Service for Anthropic {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "anthropic",
            prefix: "/anthropic",
            status_path: "/status/anthropic/api/v2/summary.json",
            models: &["claude-haiku-4-5-20251001", "claude-haiku-5-5"],
        }
    }

    fn status_page(&self, incident: Option<&str>) -> Value {
        status_page::statuspage("Claude API (api.anthropic.com)", incident)
    }

    /// Returns the key in its documented header, or in the one of its SDKs.
    fn key<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.header("x-api-key").or_else(|| bearer(request))
    }

    fn thinks(&self, call: &Call<'_>) -> bool {
        thinks(call)
    }

    fn endpoint(&self, path: &str) -> Option<(&'static str, Endpoint)> {
        match path {
            "/v1/models" => Some(("GET", Endpoint::Models)),
            "/v1/messages" => Some(("POST", Endpoint::Chat)),
            _ => None,
        }
    }

    fn check(&self, call: &Call<'_>) -> Result<(), Failure<'static>> {
        match call.request.header("anthropic-version") {
            None => Err(Failure::invalid("anthropic-version: header is required")),
            Some("2026-10-21" | "2023-06-01" | "2023-01-01") => Ok(()),
            Some(_) => Err(Failure::invalid("anthropic-version: is not a valid version")),
        }
    }

    fn check_chat(&self, call: &Call<'_>, model: &str, body: &Value) -> Result<(), Failure<'static>> {
        let is_current = call.request.header("anthropic-version") == Some("2026-10-21");
        let removed = ["temperature", "top_p", "top_k"].into_iter().find(|name| body.get(name).is_some());
        if is_current && removed.is_some() {
            return Err(Failure::Invalid {
                message: "is not supported in this API version",
                parameter: removed,
                code: None,
            });
        }
        if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
            return Err(Failure::invalid("max_tokens: Field required"));
        }
        if model.starts_with("claude-haiku-5")
            && body.get("temperature").is_some_and(|temperature| temperature != 1)
        {
            return Err(Failure::invalid("temperature: only 1 is supported by this model"));
        }
        Ok(())
    }

    fn success(&self, endpoint: Endpoint, call: &Call<'_>) -> Value {
        match endpoint {
            Endpoint::Chat => json!({
                "model": call.answered_model(),
                "id": format!("msg_01Sim{}", call.number),
                "type": "message",
                "role": "assistant",
                "content": content(call),
                "stop_reason": stop_reason(call.finish()),
                "stop_sequence": null,
                "usage": usage(call, call.output_tokens()),
            }),
            _ => models(call),
        }
    }

    fn failure(&self, what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
        const REQUEST: &str = "invalid_request_error";
        let variant = parameters.variant.as_deref();
        let (status, kind, message) = match what {
            Failure::UnknownPath => (404, "not_found_error", "Not found".to_owned()),
            Failure::WrongMethod => (405, REQUEST, "Method Not Allowed".to_owned()),
            Failure::MissingKey => (401, "authentication_error", "x-api-key header is required".to_owned()),
            Failure::InvalidKey | Failure::UpstreamKey => (401, "authentication_error", "invalid x-api-key".to_owned()),
            Failure::UnknownModel(model) => (404, "not_found_error", format!("model: {model}")),
            Failure::Invalid { message, parameter, .. } => {
                (400, REQUEST, parameter.map_or_else(|| message.to_owned(), |name| format!("{name}: {message}")))
            }
            Failure::RateLimited => (
                429,
                "rate_limit_error",
                "This request would exceed your organization's rate limit of 50 requests per minute. For details, refer \
                 to: https://docs.claude.com/en/api/rate-limits."
                    .to_owned(),
            ),
            Failure::Billing => match variant {
                Some("usage_limit") => (
                    400,
                    REQUEST,
                    "You have reached your specified API usage limits. You will regain access on 2099-12-01 at 00:00 UTC."
                        .to_owned(),
                ),
                Some("billing_error") => {
                    (402, "billing_error", "There is an issue with your billing or payment information.".to_owned())
                }
                Some("spend_limit") => (429, "rate_limit_error", "You have reached your spend limit.".to_owned()),
                _ => (
                    400,
                    REQUEST,
                    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade \
                     or purchase credits."
                        .to_owned(),
                ),
            },
            Failure::Unavailable => (503, "api_error", "Service unavailable".to_owned()),
            Failure::GatewayTimeout => (parameters.status.unwrap_or(504), "timeout_error", "Request timed out".to_owned()),
            Failure::Overloaded => (529, "overloaded_error", "Overloaded".to_owned()),
            Failure::ServerError => {
                (parameters.status.unwrap_or(500), "api_error", "Internal server error".to_owned())
            }
        };
        let mut error = json!({"type": kind, "message": message});
        if what == Failure::Billing && variant == Some("spend_limit") {
            error["details"] = json!({"error_code": "enforced_spend_limit_reached"});
        }
        (status, json!({"type": "error", "error": error, "request_id": request_id(call)}))
    }

    fn dress(&self, call: &Call<'_>, reply: Reply) -> Reply {
        reply.with("request-id", request_id(call))
    }

    fn with_limits(&self, reply: Reply) -> Reply {
        let now = rfc3339(Duration::ZERO);
        let limits = [
            ("requests", 4000, 3999),
            ("input-tokens", 400_000, 400_000),
            ("output-tokens", 80_000, 80_000),
            ("tokens", 480_000, 480_000),
        ];
        limits.into_iter().fold(reply, |reply, (resource, limit, remaining)| {
            with_limit(reply, resource, limit, remaining, &now)
        })
    }

    fn wait_header(&self, _variant: Option<&str>) -> Option<&'static str> {
        Some("retry-after")
    }

    fn with_reached_limit(&self, wait: Duration, _variant: Option<&str>, reply: Reply) -> Reply {
        let reply = with_limit(reply, "requests", 50, 0, &rfc3339(wait));
        with_limit(reply, "tokens", 40_000, 40_000, &rfc3339(Duration::ZERO))
    }

    fn events(&self, call: &Call<'_>, outline: &Outline<'_>) -> Events {
        events(call, outline)
    }

    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    #[cfg(test)]
    fn sample_chat(&self) -> SampleChat {
        SampleChat {
            path: "/v1/messages".to_owned(),
            headers: "Content-Type: application/json\r\nx-api-key: sk-secret-canary\r\nanthropic-version: 2023-06-01\r\n",
            ..SampleChat::of_openai(self.facts().models[0])
        }
    }

    #[cfg(test)]
    fn blocks_after_tokens(&self) -> usize {
        3
    }
}

fn with_limit(reply: Reply, resource: &str, limit: u32, remaining: u32, reset: &str) -> Reply {
    let name = |what: &str| format!("anthropic-ratelimit-{resource}-{what}");
    reply
        .with(&name("limit"), limit.to_string())
        .with(&name("remaining"), remaining.to_string())
        .with(&name("reset"), reset)
}

fn usage(call: &Call<'_>, output: usize) -> Value {
    json!({
        "input_tokens": call.input_tokens() - call.cached_tokens, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": call.cached_tokens, "output_tokens": output, "service_tier": "standard",
    })
}

const THOUGHT: &str = "The user wants OK.";
const SIGNATURE: &str = "c2ltdWxhdGVk";

/// Returns the blocks of an answer in one piece.
fn content(call: &Call<'_>) -> Vec<Value> {
    let thought =
        thinks(call).then(|| json!({"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}));
    let texts = call.texts();
    let text = (!texts.is_empty()).then(|| json!({"type": "text", "text": texts.concat()}));
    thought.into_iter().chain(text).collect()
}

fn events(call: &Call<'_>, outline: &Outline<'_>) -> Events {
    let thinks = thinks(call);
    let tells_usage = call.pace.usage.unwrap_or(true);
    let mut message = json!({
        "model": call.answered_model(), "id": format!("msg_01Sim{}", call.number), "type": "message",
        "role": "assistant", "content": [], "stop_reason": null, "stop_sequence": null,
    });
    let mut ending =
        json!({"delta": {"stop_reason": outline.finish.map(stop_reason), "stop_sequence": null}});
    if tells_usage {
        message["usage"] = usage(call, 1);
        ending["usage"] = json!({"output_tokens": outline.tokens});
    }
    let block = |index: usize, block: Value| {
        event("content_block_start", json!({"index": index, "content_block": block}))
    };
    let delta =
        |index: usize, delta: Value| event("content_block_delta", json!({"index": index, "delta": delta}));
    let stop = |index: usize| event("content_block_stop", json!({"index": index}));
    let text = usize::from(thinks);
    let mut opening = vec![event("message_start", json!({"message": message}))];
    let mut reasoning = Vec::new();
    if thinks {
        opening.push(block(0, json!({"type": "thinking", "thinking": "", "signature": ""})));
        reasoning = vec![
            delta(0, json!({"type": "thinking_delta", "thinking": THOUGHT})),
            delta(0, json!({"type": "signature_delta", "signature": SIGNATURE})),
            stop(0),
            block(text, json!({"type": "text", "text": ""})),
        ];
    } else {
        opening.push(block(text, json!({"type": "text", "text": ""})));
    }
    opening.push(Piece::Named("ping", "{\"type\": \"ping\"}".to_owned()));
    let content = |said: &str| delta(text, json!({"type": "text_delta", "text": said}));
    let closing = || vec![stop(text), event("message_delta", ending), event("message_stop", json!({}))];
    let error = Anthropic.failure(Failure::Overloaded, call, outline.parameters).1;
    Events {
        opening,
        reasoning,
        content: outline.texts.iter().map(|said| content(said)).collect(),
        closing: outline.finish.map_or_else(Vec::new, |_| closing()),
        error: vec![Piece::Named("error", error.to_string())],
        further: content(" OK"),
    }
}

/// Returns whether the model reasons: models of 2026 do by default, older ones on request.
fn thinks(call: &Call<'_>) -> bool {
    match call.body.as_ref().and_then(|body| body.pointer("/thinking/type")).and_then(Value::as_str) {
        Some(thinking) => thinking != "disabled",
        None => call.model().is_some_and(|model| model.starts_with("claude-haiku-5")),
    }
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
    }
}

/// Returns an event whose data repeats its name and has padding of varying length before its last
/// brace.
fn event(name: &'static str, mut data: Value) -> Piece {
    data["type"] = json!(name);
    let mut text = data.to_string();
    text.pop();
    text.push_str(&" ".repeat(request_number() as usize % 16));
    text.push('}');
    Piece::Named(name, text)
}

/// Returns a page of the list: `limit` (20 by default) models after `after_id`.
fn models(call: &Call<'_>) -> Value {
    let models = call.models();
    let limit = call.request.query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
    let after = call.request.query("after_id").and_then(|id| models.iter().position(|model| *model == id));
    let rest = &models[after.map_or(0, |position| position + 1)..];
    let page = &rest[..rest.len().min(limit)];
    let row = |model: &&str| {
        json!({
            "type": "model", "id": model, "display_name": model, "created_at": "2025-10-15T00:00:00Z",
            "lifecycle": "active", "deprecated_at": null, "retires_at": null,
        })
    };
    json!({
        "data": page.iter().map(row).collect::<Vec<_>>(),
        "has_more": page.len() < rest.len(),
        "first_id": page.first(),
        "last_id": page.last(),
    })
}

fn request_id(call: &Call<'_>) -> String {
    format!("req_011CSim{:017x}", call.number)
}
