//! LangMart's gateway: `OpenAI`'s responses, and its own three shapes of errors.

use std::time::Duration;

use serde_json::{Value, json};

#[cfg(test)]
use super::service::SampleChat;
use super::{
    limits::rfc3339,
    openai,
    service::{Call, Endpoint, Facts, Failure, Service},
};
use crate::simulator::{
    exchange::{Reply, phrase},
    fault::Parameters,
};

/// The simulated service.
pub(super) struct Langmart;

impl Service for Langmart {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "langmart",
            prefix: "/langmart",
            status_path: "/status/langmart/api/v2/summary.json",
            models: &[
                "openai/gpt-4o-mini",
                "openai/gpt-5.6-luna",
                "anthropic/claude-haiku-4-5-20251001",
                "groq/llama-3.1-8b-instant",
                "google/gemini-2.5-flash-lite",
                "auto",
            ],
        }
    }

    /// Accepts the name with the handle of an owner before it, and without its provider.
    fn is_model(&self, known: &str, model: &str) -> bool {
        known == model || known.ends_with(&format!("/{model}")) || model.ends_with(&format!("/{known}"))
    }

    fn endpoint(&self, path: &str) -> Option<(&'static str, Endpoint)> {
        match path {
            "/health" => Some(("GET", Endpoint::Health)),
            // LangMart's own client omits the /v1.
            "/v1/auth/validate" | "/auth/validate" => Some(("GET", Endpoint::Validate)),
            "/v1/models" => Some(("GET", Endpoint::Models)),
            "/v1/chat/completions" => Some(("POST", Endpoint::Chat)),
            "/api/account/balance" => Some(("GET", Endpoint::Balance)),
            _ => None,
        }
    }

    fn check_chat(&self, _call: &Call<'_>, model: &str, body: &Value) -> Result<(), Failure<'static>> {
        openai::check_token_limit(model, body)
    }

    fn success(&self, endpoint: Endpoint, call: &Call<'_>) -> Value {
        match endpoint {
            Endpoint::Validate => {
                json!({"valid": true, "user": {"id": "user_123", "email": "user@example.com"}})
            }
            Endpoint::Balance => json!({"balance": 12.5, "currency": "USD", "minimum_required": 0.1}),
            Endpoint::Models => {
                openai::models(call, |model| model.split_once('/').map_or("langmart", |(owner, _)| owner))
            }
            Endpoint::Chat => openai::completion(call),
            Endpoint::Health | Endpoint::Key => json!({"status": "ok", "service": "gateway"}),
        }
    }

    fn failure(&self, what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
        failure(what, call, parameters)
    }

    fn with_reached_limit(&self, wait: Duration, _variant: Option<&str>, reply: Reply) -> Reply {
        reply
            .with("X-RateLimit-Limit", "60")
            .with("X-RateLimit-Remaining", "0")
            .with("X-RateLimit-Reset", rfc3339(wait))
    }

    #[cfg(test)]
    fn sample_chat(&self) -> SampleChat {
        SampleChat {
            path: "/v1/chat/completions".to_owned(),
            ..SampleChat::of_openai(self.facts().models[0])
        }
    }
}

pub(super) fn failure(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
    let upstream = call.upstream(parameters).to_uppercase();
    let variant = parameters.variant.as_deref();
    match what {
        Failure::UnknownPath => (404, json!({"error": "Not found"})),
        Failure::WrongMethod => (405, json!({"error": "Method not allowed"})),
        Failure::MissingKey => second(401, "missing_api_key", "authentication_error", "No API key provided"),
        Failure::InvalidKey => first(401, "GATEWAY1_AUTH_001", "authentication_error", "Invalid API key"),
        Failure::UpstreamKey => first(
            401,
            &format!("PROVIDER_{upstream}_401"),
            "authentication_error",
            "Provider authentication failed",
        ),
        Failure::UnknownModel(model) => {
            second(404, "model_not_found", "invalid_request_error", &format!("Model {model} not found"))
        }
        Failure::Invalid { message, code: Some(_), .. } => {
            first(400, &format!("PROVIDER_{upstream}_400"), "invalid_request_error", message)
        }
        Failure::Invalid { .. } => {
            first(400, "API_VALIDATION_001", "invalid_request_error", "Invalid request format")
        }
        Failure::RateLimited => {
            first(429, &format!("PROVIDER_{upstream}_429"), "rate_limit_error", "Rate limit exceeded")
        }
        Failure::Billing if variant == Some("insufficient_credits") => {
            second(402, "insufficient_credits", "billing_error", "Insufficient credits")
        }
        Failure::Billing => first(
            402,
            "GATEWAY1_BILLING_001",
            "billing_error",
            "Insufficient credits. Your balance ($0.05) is below the minimum required ($0.10). Please add credits to \
             continue.",
        ),
        Failure::Unavailable => {
            first(503, "GATEWAY3_CONN_001", "service_unavailable", "Gateway temporarily unavailable")
        }
        Failure::GatewayTimeout => {
            let status = parameters.status.unwrap_or(504);
            first(status, "GATEWAY_TIMEOUT_001", "gateway_timeout", "Gateway did not respond within 60s")
        }
        Failure::Overloaded => {
            first(529, &format!("PROVIDER_{upstream}_529"), "overloaded_error", "Overloaded")
        }
        Failure::ServerError => {
            let status = parameters.status.unwrap_or(500);
            (status, json!({"message": phrase(status)}))
        }
    }
}

/// Returns an error in the shape of the guide: upper-case code, and the status.
fn first(status: u16, code: &str, kind: &str, message: &str) -> (u16, Value) {
    (status, json!({"error": {"code": code, "message": message, "type": kind, "status": status}}))
}

/// Returns an error in the shape of the API reference: lower-case code, no status.
fn second(status: u16, code: &str, kind: &str, message: &str) -> (u16, Value) {
    (status, json!({"error": {"type": kind, "code": code, "message": message}}))
}
