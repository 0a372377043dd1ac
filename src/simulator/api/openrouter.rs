//! The `OpenRouter` gateway: numeric codes, and the provider's error in `metadata`.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    chunks, limits, openai,
    service::{Call, Endpoint, Facts, Failure, Service, unix_seconds},
};
use crate::simulator::{exchange::Reply, fault::Parameters};

/// The simulated service.
pub(super) struct Openrouter;

impl Service for Openrouter {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "openrouter",
            prefix: "/openrouter/api/v1",
            status_path: "/status/openrouter/api/v2/summary.json",
            models: &["mistralai/mistral-nemo", "openai/gpt-oss-20b"],
        }
    }

    fn endpoint(&self, path: &str) -> Option<(&'static str, Endpoint)> {
        match path {
            "/key" => Some(("GET", Endpoint::Key)),
            "/models" => Some(("GET", Endpoint::Models)),
            "/chat/completions" => Some(("POST", Endpoint::Chat)),
            _ => None,
        }
    }

    fn is_public(&self, endpoint: Endpoint) -> bool {
        endpoint == Endpoint::Models
    }

    fn success(&self, endpoint: Endpoint, call: &Call<'_>) -> Value {
        match endpoint {
            Endpoint::Chat => {
                let mut body = openai::completion(call);
                body["provider"] = json!("Simulated");
                body["choices"][0]["native_finish_reason"] = json!("stop");
                body
            }
            Endpoint::Models => {
                let rows: Vec<_> = call.models().into_iter().map(model_row).collect();
                json!({"total_count": rows.len(), "links": {"next": null}, "data": rows})
            }
            _ => json!({"data": key_row()}),
        }
    }

    fn failure(&self, what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
        failure(what, call, parameters)
    }

    fn dress(&self, call: &Call<'_>, reply: Reply) -> Reply {
        if call.path != "/chat/completions" {
            return reply;
        }
        reply.with("X-Generation-Id", format!("gen-{}-{:020x}", unix_seconds(), call.number))
    }

    fn hides_limit(&self, variant: Option<&str>) -> bool {
        variant == Some("body_only")
    }

    fn wait_header(&self, variant: Option<&str>) -> Option<&'static str> {
        variant.map(|_| "Retry-After")
    }

    fn with_reached_limit(&self, wait: Duration, variant: Option<&str>, reply: Reply) -> Reply {
        if variant == Some("upstream") {
            return reply;
        }
        let headers = limit_headers(wait).into_iter();
        headers.fold(reply, |reply, (name, value)| reply.with(name, value.as_str().unwrap_or_default()))
    }

    fn usual_wait(&self, what: Failure<'_>, variant: Option<&str>) -> Option<u64> {
        (what == Failure::Billing && variant == Some("in_flight_budget")).then_some(3)
    }

    fn comment(&self) -> &'static str {
        chunks::PROCESSING
    }

    #[cfg(test)]
    fn blocks_after_tokens(&self) -> usize {
        3
    }
}

/// Returns a row of the model list, with every member that its SDK requires.
fn model_row(model: &str) -> Value {
    json!({
        "id": model, "canonical_slug": model, "name": model, "created": 1_721_172_741,
        "context_length": 131_072, "architecture": {
            "modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"],
        },
        "pricing": {"prompt": "0.000000019", "completion": "0.00000003"},
        "top_provider": {"is_moderated": false, "context_length": 131_072, "max_completion_tokens": null},
        "supported_parameters": ["max_tokens", "temperature"], "default_parameters": null,
        "per_request_limits": null, "supported_voices": null, "expiration_date": null,
        "links": {"details": format!("/api/v1/models/{model}/endpoints")},
    })
}

/// Returns the caller's key, with every member that its SDK requires.
fn key_row() -> Value {
    json!({
        "label": "sk-or-v1-sim...000", "limit": 10.0, "limit_remaining": 7.25, "limit_reset": "monthly",
        "include_byok_in_limit": false,
        "usage": 2.75, "usage_daily": 0.25, "usage_weekly": 1.5, "usage_monthly": 2.75,
        "byok_usage": 0.0, "byok_usage_daily": 0.0, "byok_usage_weekly": 0.0, "byok_usage_monthly": 0.0,
        "is_free_tier": false, "is_management_key": false, "is_provisioning_key": false,
        "creator_user_id": "user_simulated", "organization_id": null, "workspace_id": null,
        "allowed_data_regions": [], "budgets": [], "effective_budget": null,
        "free_model_daily_requests": {"limit": 50, "remaining": 50, "used": 0},
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
    })
}

/// Returns its three headers, with the reset in milliseconds since the epoch.
fn limit_headers(wait: Duration) -> [(&'static str, Value); 3] {
    let reset =
        (SystemTime::now() + wait).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    [
        ("X-RateLimit-Limit", Value::from("20")),
        ("X-RateLimit-Remaining", Value::from("0")),
        ("X-RateLimit-Reset", Value::from(reset.to_string())),
    ]
}

fn failure(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
    const UPSTREAM_ERROR: &str = "Provider returned error";
    let variant = parameters.variant.as_deref();
    match what {
        Failure::UnknownPath => error(404, "Not Found", Value::Null),
        Failure::WrongMethod => error(405, "Method Not Allowed", Value::Null),
        Failure::MissingKey => error(401, "Missing Authentication header", Value::Null),
        Failure::InvalidKey => error(401, "User not found.", Value::Null),
        Failure::UpstreamKey => error(
            401,
            UPSTREAM_ERROR,
            json!({"provider_name": provider_name(call, parameters), "provider_code": 401}),
        ),
        Failure::UnknownModel(model) => error(404, &format!("No endpoints found for {model}."), Value::Null),
        Failure::Invalid { message, .. } => error(400, message, json!({"error_type": "invalid_request"})),
        Failure::RateLimited if variant == Some("upstream") => {
            let raw = "temporarily rate-limited upstream. Please retry shortly.";
            error(429, UPSTREAM_ERROR, json!({"provider_name": provider_name(call, parameters), "raw": raw}))
        }
        Failure::RateLimited => {
            let (status, mut body) = error(429, "Rate limit exceeded: free-models-per-min. ", json!({}));
            if variant != Some("none") {
                let headers = limit_headers(limits::wait(parameters));
                body["error"]["metadata"]["headers"] = headers.into_iter().collect();
            }
            body["user_id"] = json!("user_simulated");
            (status, body)
        }
        Failure::Billing => match variant {
            Some("in_flight_budget") => error(
                402,
                "In-flight budget exhausted",
                json!({"error_type": "payment_required", "limit_source": "openrouter_in_flight_budget",
                    "reason": "in_flight_budget_exhausted"}),
            ),
            Some("key_limit") => error(
                403,
                "Key limit exceeded",
                json!({"error_type": "permission_denied", "resets_at": "2099-12-01T00:00:00Z"}),
            ),
            _ => error(
                402,
                "Insufficient credits. Add more using https://openrouter.ai/credits",
                json!({"error_type": "payment_required"}),
            ),
        },
        Failure::Unavailable => error(
            503,
            "There is no available model provider that meets your routing requirements",
            Value::Null,
        ),
        Failure::GatewayTimeout => error(parameters.status.unwrap_or(524), "Request timed out", Value::Null),
        Failure::Overloaded => error(529, UPSTREAM_ERROR, json!({"error_type": "provider_overloaded"})),
        Failure::ServerError => error(parameters.status.unwrap_or(500), "Internal Server Error", Value::Null),
    }
}

fn provider_name(call: &Call<'_>, parameters: &Parameters) -> String {
    let name = call.upstream(parameters);
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn error(code: u16, message: &str, metadata: Value) -> (u16, Value) {
    let mut error = json!({"code": code, "message": message});
    if !metadata.is_null() {
        error["metadata"] = metadata;
    }
    (code, json!({"error": error}))
}
