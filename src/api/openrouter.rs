//! `OpenRouter`'s gateway: `OpenAI`'s dialect for models and completions, errors with metadata,
//! limits in epoch milliseconds.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    Acceptance, Account, ApiPaths, Dialect, Profile, Upstream,
    body::ErrorBody,
    gate,
    hints::{self, Clocks},
    words::Words,
};
use crate::outcome::{OTHER, RateLimit, Reason, Resource};

/// Facts about the API.
pub(super) const PROFILE: Profile = Profile {
    display_name: "OpenRouter",
    base_url: "https://openrouter.ai/api/v1",
    key_prefixes: &["sk-or-"],
    stored_key_remedy: "the provider refuses the key that OpenRouter uses: replace your own (BYOK) in its settings; OpenRouter is responsible for any other",
    keys_page: Some("https://openrouter.ai/settings/keys"),
    status_page: Some("https://status.openrouter.ai"),
    paths: ApiPaths {
        auth: "/key", // its /models is public
        balance: Some("/key"),
        ..ApiPaths::OPENAI
    },
    error_codes: &["payment_required", "permission_denied", "provider_overloaded", "provider_unavailable"],
    ..Profile::OPENAI
};

/// Dialect of the API.
pub(super) struct Openrouter;

impl Dialect for Openrouter {
    /// Reads `{"data":{"limit":10,"limit_remaining":7.25,…}}`, both null if the key has no limit.
    fn account(&self, answer: &Value) -> Option<Account> {
        let key = answer.get("data")?.as_object()?;
        let remaining = key.get("limit_remaining")?;
        if remaining.is_null() && key.get("limit").is_none_or(Value::is_null) {
            return Some(Account::Unlimited);
        }
        Some(Account::Left { amount: gate::money(remaining)?, minimum: None, in_usd: true })
    }

    fn accepted(&self, answer: &Value) -> Acceptance {
        if answer.get("data").is_some_and(Value::is_object) {
            Acceptance::Accepted
        } else {
            Acceptance::Unclear
        }
    }

    fn reason(&self, status: u16, error: &ErrorBody<'_>) -> Option<Reason> {
        let metadata = |name| metadata(error, name);
        let text = |name| metadata(name).and_then(Value::as_str);
        match status {
            402 if text("limit_source") == Some("openrouter_in_flight_budget") => Some(Reason::RateLimited),
            // The key's budget is exhausted; its permissions are not the cause.
            403 if text("resets_at").is_some() => Some(Reason::Billing),
            403 if Words::of(error).contain(&["key limit exceeded"]) => Some(Reason::Billing),
            // The named provider was not asked yet.
            403 if metadata("flagged_input").is_some() => Some(Reason::InvalidRequest),
            503 if text("error_type") == Some("provider_overloaded") => Some(Reason::Overloaded),
            _ => None,
        }
    }

    fn wrapped(&self, error: &ErrorBody<'_>) -> Value {
        // It is a string: JSON, or a sentence.
        let raw = metadata(error, "raw").and_then(Value::as_str).filter(|raw| !raw.starts_with('<'));
        let read = |raw: &str| serde_json::from_str(raw).unwrap_or_else(|_| json!({ "message": raw }));
        raw.map(read).unwrap_or_default()
    }

    fn error_code<'a>(&self, error: &ErrorBody<'a>) -> Option<&'a str> {
        metadata(error, "error_type").and_then(Value::as_str).or_else(|| super::openai::error_code(error))
    }

    fn upstream(&self, error: &ErrorBody<'_>) -> Upstream {
        let spelled =
            metadata(error, "provider_name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let known = spelled.and_then(gate::provider);
        let typed = metadata(error, "error_type").and_then(Value::as_str);
        // A name that is not on the allowlist still means a provider.
        Upstream {
            name: known.or(spelled.map(|_| OTHER)),
            blamed: spelled.is_some() || typed.is_some_and(|kind| kind.starts_with("provider_")),
        }
    }

    fn reset_is_a_wait(&self) -> bool {
        true
    }

    fn rate_limits(&self, headers: &HeaderMap, error: &ErrorBody<'_>, clocks: &Clocks) -> Vec<RateLimit> {
        // Often only the body has a copy of the headers.
        let copied = metadata(error, "headers");
        let read = |name: &str| {
            let copy = || {
                let (_, value) =
                    copied?.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                // A string or a number.
                Some(value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned()))
            };
            hints::text(headers, &name.to_ascii_lowercase()).map(str::to_owned).or_else(copy)
        };
        let count = |name| hints::count(&read(name)?);
        let reset = read("X-RateLimit-Reset")
            .and_then(|reset| hints::epoch(&reset).or_else(|| hints::rfc3339(&reset)))
            .and_then(|moment| clocks.ours(moment));
        let limit = count("X-RateLimit-Limit");
        RateLimit::from_figures(Resource::Requests, limit, count("X-RateLimit-Remaining"), reset)
            .into_iter()
            .collect()
    }

    fn request_id_headers(&self) -> &'static [&'static str] {
        &["x-generation-id", "x-request-id"]
    }
}

fn metadata<'a>(error: &ErrorBody<'a>, name: &str) -> Option<&'a Value> {
    error.member("metadata")?.get(name).filter(|value| !value.is_null())
}
