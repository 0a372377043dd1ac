//! `OpenAI`, whose dialect most other services use with variations.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    SimulatedService, chunks,
    limits::go_duration,
    service::{Call, Endpoint, Facts, Failure, Service, bearer, unix_seconds},
    status_page,
    stream::Finish,
};
use crate::simulator::{
    exchange::{Reply, Request},
    fault::Parameters,
};

/// The simulated service.
pub(super) struct Openai;

impl Service for Openai {
    fn facts(&self) -> &'static Facts {
        // The last two stand for DeepSeek and Mistral, which use variants of its dialect.
        &Facts {
            name: "openai",
            prefix: "/openai/v1",
            status_path: "/status/openai/api/v2/summary.json",
            models: &["gpt-4o-mini", "gpt-4o", "gpt-5.6-luna", "deepseek-reasoner", "magistral-small-latest"],
        }
    }

    fn status_page(&self, incident: Option<&str>) -> Value {
        status_page::incident_io(incident)
    }

    fn key<'a>(&self, request: &'a Request) -> Option<&'a str> {
        bearer(request).or_else(|| request.header("api-key"))
    }

    fn check_chat(&self, _call: &Call<'_>, model: &str, body: &Value) -> Result<(), Failure<'static>> {
        check_token_limit(model, body)
    }

    fn success(&self, endpoint: Endpoint, call: &Call<'_>) -> Value {
        let mut body = success(endpoint, call);
        if endpoint == Endpoint::Models {
            for row in body["data"].as_array_mut().into_iter().flatten() {
                row["shutdown_date"] = Value::Null;
            }
        }
        body
    }

    fn dress(&self, call: &Call<'_>, reply: Reply) -> Reply {
        reply
            .with("openai-organization", "org-simulated")
            .with("openai-processing-ms", "1")
            .with("openai-version", "2020-10-01")
            .with("x-request-id", format!("req_{:032x}", call.number))
    }

    fn with_limits(&self, reply: Reply) -> Reply {
        reply
            .with("x-ratelimit-limit-requests", "10000")
            .with("x-ratelimit-limit-tokens", "200000")
            .with("x-ratelimit-remaining-requests", "9999")
            .with("x-ratelimit-remaining-tokens", "199982")
            .with("x-ratelimit-reset-requests", "8.64s")
            .with("x-ratelimit-reset-tokens", "5ms")
    }

    fn with_reached_limit(&self, wait: Duration, _variant: Option<&str>, reply: Reply) -> Reply {
        reply
            .with("x-ratelimit-limit-requests", "60")
            .with("x-ratelimit-limit-tokens", "150000")
            .with("x-ratelimit-remaining-requests", "0")
            .with("x-ratelimit-remaining-tokens", "149984")
            .with("x-ratelimit-reset-requests", go_duration(wait))
            .with("x-ratelimit-reset-tokens", "6m0s")
    }

    fn usual_wait(&self, what: Failure<'_>, _variant: Option<&str>) -> Option<u64> {
        (what == Failure::Overloaded).then_some(10)
    }

    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn stream_header(&self) -> Option<(&'static str, &'static str)> {
        None
    }
}

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
        _ => models(call, |_| "system"),
    }
}

/// Returns the model list, in the shape of all imitators.
pub(super) fn models(call: &Call<'_>, owner: impl Fn(&str) -> &str) -> Value {
    let row = |model: &str| json!({"id": model, "object": "model", "created": 1_721_172_741, "owned_by": owner(model)});
    json!({"object": "list", "data": call.models().into_iter().map(row).collect::<Vec<_>>()})
}

/// Returns a completion.
pub(super) fn completion(call: &Call<'_>) -> Value {
    let message = chunks::message(call);
    let choice = |index| json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish_reason(call.finish())});
    json!({
        "id": format!("chatcmpl-sim{}", call.number),
        "object": "chat.completion",
        "created": unix_seconds(),
        "model": call.answered_model(),
        "choices": (0..choices(call)).map(choice).collect::<Vec<_>>(),
        "usage": usage(call, call.output_tokens()),
        "system_fingerprint": "fp_simulated",
    })
}

/// Returns the number of requested answers.
pub(super) fn choices(call: &Call<'_>) -> usize {
    const MAX_CHOICES: usize = 8;
    let asked = call.body.as_ref().and_then(|body| body.get("n")?.as_u64()).unwrap_or(1);
    usize::try_from(asked).unwrap_or(MAX_CHOICES).clamp(1, MAX_CHOICES)
}

pub(super) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// Returns the usage of answers with that many tokens each.
pub(super) fn usage(call: &Call<'_>, output: usize) -> Value {
    let (input, output) = (call.input_tokens(), output * choices(call));
    let mut usage =
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
    match call.provider {
        SimulatedService::Openai => {
            usage["prompt_tokens_details"] = json!({"cached_tokens": call.cached_tokens, "audio_tokens": 0});
            usage["completion_tokens_details"] = json!({
                "reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            });
        }
        SimulatedService::Groq => {
            for (name, seconds) in [
                ("queue_time", 0.02),
                ("prompt_time", 0.003),
                ("completion_time", 0.015),
                ("total_time", 0.018),
            ] {
                usage[name] = json!(seconds);
            }
        }
        SimulatedService::Openrouter => {
            usage["cost"] = json!(2e-7);
            usage["is_byok"] = json!(false);
        }
        _ => {}
    }
    if call.cached_tokens > 0 && call.provider != SimulatedService::Openai {
        usage["prompt_tokens_details"] = json!({"cached_tokens": call.cached_tokens});
    }
    usage
}

/// Refuses `max_tokens` for reasoning models. A gateway forwards that, with the provider's name
/// before the model.
pub(super) fn check_token_limit(model: &str, body: &Value) -> Result<(), Failure<'static>> {
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
    let (status, body) = error(what, call, parameters);
    let Body { message, kind, code, parameter } = body;
    (status, json!({"error": {"message": message, "type": kind, "param": parameter, "code": code}}))
}

/// Returns an error in `OpenAI`'s shape.
pub(super) struct Body<'a> {
    pub(super) message: String,
    pub(super) kind: &'static str,
    pub(super) code: Option<&'a str>,
    parameter: Option<&'a str>,
}

pub(super) fn body<'a>(message: impl Into<String>, kind: &'static str, code: Option<&'a str>) -> Body<'a> {
    Body { message: message.into(), kind, code, parameter: None }
}

/// Returns status and error of a failure.
pub(super) fn error<'a>(what: Failure<'a>, call: &Call<'_>, parameters: &'a Parameters) -> (u16, Body<'a>) {
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
        // The real response contains a part of the key, which clients must not pass on.
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
        _ => error_of_service(what, parameters),
    }
}

/// Returns an error that is not caused by the request.
fn error_of_service<'a>(what: Failure<'a>, parameters: &'a Parameters) -> (u16, Body<'a>) {
    match what {
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
        _ => (
            parameters.status.unwrap_or(500),
            body(
                "The server had an error while processing your request. Sorry about that!",
                "server_error",
                None,
            ),
        ),
    }
}

/// Returns the code of the variant. Variants of other services are ignored.
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

/// Masks a key as `OpenAI` does: the first eight characters, stars, and the last four.
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
