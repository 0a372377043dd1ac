//! Anthropic's Messages API.

use serde_json::{Value, json};

use super::service::{Call, Endpoint, Failure, request_number};
use crate::simulator::fault::Parameters;

pub(super) fn endpoint(path: &str) -> Option<(&'static str, Endpoint)> {
    match path {
        "/v1/models" => Some(("GET", Endpoint::Models)),
        "/v1/messages" => Some(("POST", Endpoint::Chat)),
        _ => None,
    }
}

pub(super) fn check_version<'a>(call: &Call<'_>) -> Result<(), Failure<'a>> {
    match call.request.header("anthropic-version") {
        None => Err(Failure::invalid("anthropic-version: header is required")),
        Some("2023-06-01" | "2023-01-01") => Ok(()),
        Some(_) => Err(Failure::invalid("anthropic-version: is not a valid version")),
    }
}

pub(super) fn check_chat<'a>(body: &Value) -> Result<(), Failure<'a>> {
    if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
        return Err(Failure::invalid("max_tokens: Field required"));
    }
    if body["model"].as_str().is_some_and(|model| model.starts_with("claude-haiku-5"))
        && body.get("temperature").is_some_and(|temperature| temperature != 1)
    {
        return Err(Failure::invalid("temperature: only 1 is supported by this model"));
    }
    Ok(())
}

pub(super) fn success(endpoint: Endpoint, call: &Call<'_>) -> Value {
    match endpoint {
        Endpoint::Chat => json!({
            "model": call.model(),
            "id": format!("msg_01Sim{}", request_number()),
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "OK"}],
            "stop_reason": "end_turn",
            "stop_sequence": null,
            "usage": {
                "input_tokens": call.input_tokens(), "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "output_tokens": 4, "service_tier": "standard",
            },
        }),
        _ => models(call),
    }
}

/// A page of the list: `limit` (20 where it is not given) models after the one that `after_id` names.
fn models(call: &Call<'_>) -> Value {
    let models = call.models();
    let limit = call.request.query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
    let after = call.request.query("after_id").and_then(|id| models.iter().position(|model| *model == id));
    let rest = &models[after.map_or(0, |position| position + 1)..];
    let page = &rest[..rest.len().min(limit)];
    let row = |model: &&str| json!({"type": "model", "id": model, "display_name": model, "created_at": "2025-10-15T00:00:00Z"});
    json!({
        "data": page.iter().map(row).collect::<Vec<_>>(),
        "has_more": page.len() < rest.len(),
        "first_id": page.first(),
        "last_id": page.last(),
    })
}

pub(super) fn failure(what: Failure<'_>, parameters: &Parameters) -> (u16, Value) {
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
    (status, json!({"type": "error", "error": error, "request_id": request_id()}))
}

pub(super) fn request_id() -> String {
    format!("req_011CSim{:017x}", request_number())
}
