//! Groq: `OpenAI`'s dialect without `param` in errors, with other codes and IDs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    limits::{self, go_duration},
    openai::{self, Body, body},
    service::{Call, Endpoint, Facts, Failure, Service},
};
use crate::simulator::{exchange::Reply, fault::Parameters};

/// The simulated service.
pub(super) struct Groq;

impl Service for Groq {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "groq",
            prefix: "/groq/openai/v1",
            status_path: "/status/groq/api/v2/summary.json",
            models: &["openai/gpt-oss-20b", "llama-3.1-8b-instant"],
        }
    }

    fn success(&self, endpoint: Endpoint, call: &Call<'_>) -> Value {
        if endpoint == Endpoint::Chat {
            let mut body = openai::completion(call);
            // LiteLLM fails without it.
            body["service_tier"] = json!("on_demand");
            return body;
        }
        let mut list = openai::models(call, |_| "Simulated");
        for row in list["data"].as_array_mut().into_iter().flatten() {
            row["active"] = json!(true);
            row["context_window"] = json!(131_072);
            row["public_apps"] = Value::Null;
            row["max_completion_tokens"] = json!(65_536);
        }
        list
    }

    fn failure(&self, what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
        let (status, Body { message, kind, code, .. }) = error(what, call, parameters);
        let mut error = json!({"message": message, "type": kind});
        if let Some(code) = code {
            error["code"] = json!(code);
        }
        (status, json!({"error": error}))
    }

    fn dress(&self, call: &Call<'_>, reply: Reply) -> Reply {
        reply.with("x-request-id", format!("req_01simulated{:014x}", call.number))
    }

    /// Adds limits of requests per day and tokens per minute.
    fn with_limits(&self, reply: Reply) -> Reply {
        reply
            .with("x-ratelimit-limit-requests", "14400")
            .with("x-ratelimit-limit-tokens", "18000")
            .with("x-ratelimit-remaining-requests", "14370")
            .with("x-ratelimit-remaining-tokens", "17997")
            .with("x-ratelimit-reset-requests", "2m59.56s")
            .with("x-ratelimit-reset-tokens", "7.66s")
    }

    fn wait_header(&self, _variant: Option<&str>) -> Option<&'static str> {
        Some("retry-after")
    }

    fn with_reached_limit(&self, wait: Duration, _variant: Option<&str>, reply: Reply) -> Reply {
        reply
            .with("x-ratelimit-limit-requests", "14400")
            .with("x-ratelimit-remaining-requests", "14000")
            .with("x-ratelimit-reset-requests", "6s")
            .with("x-ratelimit-limit-tokens", "8000")
            .with("x-ratelimit-remaining-tokens", "0")
            .with("x-ratelimit-reset-tokens", go_duration(wait))
    }
}

fn error<'a>(what: Failure<'a>, call: &Call<'_>, parameters: &'a Parameters) -> (u16, Body<'a>) {
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
        other => openai::error(other, call, parameters),
    }
}
