//! OpenAI, and Groq, which speaks the same with differences: no `param` in errors, other codes, other ids.

use serde_json::{Value, json};

use super::{
    Provider,
    limits::{self, go_duration},
    service::{Call, Endpoint, Failure, request_number, unix_seconds},
};
use crate::simulator::fault::Parameters;

pub(super) fn endpoint(path: &str) -> Option<(&'static str, Endpoint)> {
    match path {
        "/models" => Some(("GET", Endpoint::Models)),
        "/chat/completions" => Some(("POST", Endpoint::Chat)),
        _ => None,
    }
}

pub(super) fn success(endpoint: Endpoint, call: &Call<'_>) -> Value {
    match endpoint {
        Endpoint::Chat => completion(call),
        _ => models(call, |_| if call.provider == Provider::Groq { "Simulated" } else { "system" }),
    }
}

/// The list, in the shape that every imitator of OpenAI has; Groq's rows say more.
pub(super) fn models(call: &Call<'_>, owner: impl Fn(&str) -> &str) -> Value {
    let row = |model: &str| {
        let mut row =
            json!({"id": model, "object": "model", "created": 1_721_172_741, "owned_by": owner(model)});
        if call.provider == Provider::Groq {
            row["active"] = json!(true);
            row["context_window"] = json!(131_072);
            row["public_apps"] = Value::Null;
            row["max_completion_tokens"] = json!(65_536);
        }
        row
    };
    json!({"object": "list", "data": call.models().into_iter().map(row).collect::<Vec<_>>()})
}

/// A completion that says OK.
pub(super) fn completion(call: &Call<'_>) -> Value {
    let mut message = json!({"role": "assistant", "content": call.pace.texts().concat()});
    if call.provider == Provider::Openai {
        message["refusal"] = Value::Null;
        message["annotations"] = json!([]);
    }
    json!({
        "id": format!("chatcmpl-sim{}", request_number()),
        "object": "chat.completion",
        "created": unix_seconds(),
        "model": call.answered_model(),
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}],
        "usage": usage(call, call.output_tokens(1)),
        "system_fingerprint": "fp_simulated",
    })
}

/// The tokens of an answer with so many of them.
pub(super) fn usage(call: &Call<'_>, output: usize) -> Value {
    let input = call.input_tokens();
    let mut usage =
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
    match call.provider {
        Provider::Openai => {
            usage["prompt_tokens_details"] = json!({"cached_tokens": call.cached_tokens, "audio_tokens": 0});
            usage["completion_tokens_details"] = json!({
                "reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            });
        }
        Provider::Groq => {
            for (name, seconds) in [
                ("queue_time", 0.02),
                ("prompt_time", 0.003),
                ("completion_time", 0.015),
                ("total_time", 0.018),
            ] {
                usage[name] = json!(seconds);
            }
        }
        Provider::Openrouter => {
            usage["cost"] = json!(2e-7);
            usage["is_byok"] = json!(false);
        }
        _ => {}
    }
    if call.cached_tokens > 0 && call.provider != Provider::Openai {
        usage["prompt_tokens_details"] = json!({"cached_tokens": call.cached_tokens});
    }
    usage
}

/// Reasoning models refuse `max_tokens`. A gateway passes that on, with the provider's name in front of the model.
pub(super) fn check_token_limit<'a>(model: &str, body: &Value) -> Result<(), Failure<'a>> {
    let bare = model.rsplit('/').next().unwrap_or(model);
    let of_o_family =
        bare.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if body.get("max_tokens").is_some() && (bare.starts_with("gpt-5") || of_o_family) {
        return Err(Failure::Invalid {
            message: "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                      'max_completion_tokens' instead.",
            parameter: Some("max_tokens"),
            code: Some("unsupported_parameter"),
        });
    }
    Ok(())
}

pub(super) fn failure(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
    let (status, body) = if call.provider == Provider::Groq {
        groq(what, call, parameters)
    } else {
        openai(what, call, parameters)
    };
    let Body { message, kind, code, parameter } = body;
    let mut error = json!({"message": message, "type": kind, "param": parameter, "code": code});
    if let Some(members) = error.as_object_mut().filter(|_| call.provider == Provider::Groq) {
        members.remove("param");
        members.retain(|_, value| !value.is_null());
    }
    (status, json!({"error": error}))
}

struct Body<'a> {
    message: String,
    kind: &'static str,
    code: Option<&'a str>,
    parameter: Option<&'a str>,
}

fn body<'a>(message: impl Into<String>, kind: &'static str, code: Option<&'a str>) -> Body<'a> {
    Body { message: message.into(), kind, code, parameter: None }
}

fn openai<'a>(what: Failure<'a>, call: &Call<'_>, parameters: &'a Parameters) -> (u16, Body<'a>) {
    const REQUEST: &str = "invalid_request_error";
    match what {
        Failure::UnknownPath => {
            (404, body(format!("Invalid URL ({} {})", call.request.method, call.path), REQUEST, None))
        }
        Failure::WrongMethod => (
            405,
            body(
                format!("Not allowed to {} on {}.", call.request.method, call.path),
                REQUEST,
                Some("method_not_supported"),
            ),
        ),
        Failure::MissingKey => (
            401,
            body(
                "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                 Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
                REQUEST,
                None,
            ),
        ),
        // The real answer echoes a part of the key: so does this one, for those who must not pass it on.
        Failure::InvalidKey | Failure::UpstreamKey => {
            let shown = masked(call.key.unwrap_or_default());
            let link = "You can find your API key at https://platform.openai.com/account/api-keys.";
            (
                401,
                body(
                    format!("Incorrect API key provided: {shown}. {link}"),
                    REQUEST,
                    Some("invalid_api_key"),
                ),
            )
        }
        Failure::UnknownModel(model) => (
            404,
            body(
                format!("The model `{model}` does not exist or you do not have access to it."),
                REQUEST,
                Some("model_not_found"),
            ),
        ),
        Failure::Invalid { message, parameter, code } => {
            (400, Body { message: message.to_owned(), kind: REQUEST, code, parameter })
        }
        Failure::RateLimited => (
            429,
            body(
                "Rate limit reached for requests in organization org-simulated on requests per min (RPM): Limit 60, \
                 Used 60, Requested 1.",
                "requests",
                Some("rate_limit_exceeded"),
            ),
        ),
        Failure::Billing => (
            429,
            body(
                "You exceeded your current quota, please check your plan and billing details. For more information \
                 on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
                "insufficient_quota",
                Some(billing_code(parameters)),
            ),
        ),
        Failure::Unavailable => (503, body("Service temporarily unavailable.", "server_error", None)),
        Failure::GatewayTimeout => {
            (parameters.status.unwrap_or(504), body("The request timed out.", "server_error", None))
        }
        Failure::Overloaded => (
            503,
            body(
                "The engine is currently overloaded, please try again later",
                "service_unavailable_error",
                Some("server_is_overloaded"),
            ),
        ),
        Failure::ServerError => (
            parameters.status.unwrap_or(500),
            body(
                "The server had an error while processing your request. Sorry about that!",
                "server_error",
                None,
            ),
        ),
    }
}

/// The variants of other providers are none here.
fn billing_code(parameters: &Parameters) -> &str {
    match parameters.variant.as_deref() {
        Some(
            code @ ("credit_balance_exhausted"
            | "organization_spend_limit_exceeded"
            | "project_spend_limit_exceeded"
            | "organization_usage_limit_exceeded"
            | "billing_hard_limit_reached"),
        ) => code,
        _ => "insufficient_quota",
    }
}

fn groq<'a>(what: Failure<'a>, call: &Call<'_>, parameters: &'a Parameters) -> (u16, Body<'a>) {
    match what {
        Failure::UnknownPath => {
            let message = format!("Unknown request URL: {} {}.", call.request.method, call.path);
            (404, body(message, "invalid_request_error", Some("unknown_url")))
        }
        Failure::MissingKey | Failure::InvalidKey | Failure::UpstreamKey => {
            (401, body("Invalid API Key", "invalid_request_error", Some("invalid_api_key")))
        }
        Failure::RateLimited => {
            let model = call.model().unwrap_or("unknown");
            let wait = go_duration(limits::wait(parameters));
            let message = format!(
                "Rate limit reached for model `{model}` in organization `org_simulated` service tier `on_demand` on \
                 tokens per minute (TPM): Limit 8000, Used 7739, Requested 1108. Please try again in {wait}. Need more \
                 tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
            );
            (429, body(message, "tokens", Some("rate_limit_exceeded")))
        }
        Failure::Unavailable => (503, body("Service Unavailable", "internal_server_error", None)),
        Failure::Overloaded => {
            (498, body("Flex tier capacity exceeded", "internal_server_error", Some("capacity_exceeded")))
        }
        Failure::ServerError => {
            (parameters.status.unwrap_or(500), body("Internal Server Error", "internal_server_error", None))
        }
        other => openai(other, call, parameters),
    }
}

/// As OpenAI masks keys: the first eight characters, stars, the last four.
fn masked(key: &str) -> String {
    let characters: Vec<char> = key.chars().collect();
    match characters.len() {
        0..=12 => "*".repeat(characters.len()),
        length => {
            let first: String = characters[..8].iter().collect();
            let last: String = characters[length - 4..].iter().collect();
            format!("{first}{}{last}", "*".repeat((length - 12).min(64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_limit(model: &str, body: &Value, accepted: bool) {
        assert_eq!(check_token_limit(model, body).is_ok(), accepted, "{model} {body}");
    }

    #[test]
    fn reasoning_models_refuse_max_tokens() {
        let (old, new) = (json!({"max_tokens": 32}), json!({"max_completion_tokens": 32}));
        for model in ["gpt-5.6-luna", "openai/gpt-5.6-luna", "o4-mini"] {
            check_limit(model, &old, false);
            check_limit(model, &new, true);
        }
        for model in ["gpt-4o-mini", "openai/gpt-oss-20b", "omni"] {
            check_limit(model, &old, true);
        }
    }

    #[test]
    fn keys_are_masked_as_openai_masks_them() {
        assert_eq!(masked("sk-invalid-0123456789"), "sk-inval*********6789");
        assert_eq!(masked("sk-short"), "********");
    }
}
