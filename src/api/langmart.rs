//! LangMart's gateway: `OpenAI`'s dialect for models and completions, with errors of its own in
//! three shapes.

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{
    Acceptance, Account, ApiPaths, Dialect, Profile, Upstream, body::ErrorBody, gate, hints::Clocks, limits,
};
use crate::outcome::{RateLimit, Reason};

/// Facts about the API.
pub(super) const PROFILE: Profile = Profile {
    display_name: "LangMart",
    base_url: "https://api.langmart.ai",
    // Its documentation has the base URL with the version that its paths already have.
    drops_version: true,
    keys_belong_to_api: true,
    key_prefixes: &["sk-langmart-"],
    key_remedy: Some(
        "check the key under Settings > API Keys: active, complete, of this environment; create a new one",
    ),
    stored_key_remedy: "the provider key stored in the gateway is bad: replace it under Connections and press Test there",
    error_log: Some("other requests' errors: Error Analytics in LangMart's dashboard"),
    paths: ApiPaths {
        health: Some("/health"),
        auth: "/v1/auth/validate",
        models: "/v1/models",
        chat: "/v1/chat/completions",
        stream: "/v1/chat/completions",
        balance: Some("/api/account/balance"),
    },
    error_codes: &[
        "expired_api_key",
        "gateway_timeout",
        "insufficient_credits",
        "missing_api_key",
        "service_unavailable",
    ],
    ..Profile::OPENAI
};

/// Dialect of the API.
pub(super) struct Langmart;

impl Dialect for Langmart {
    /// Reads `{"balance":0.05,"currency":"USD","minimum_required":0.10}`.
    fn account(&self, answer: &Value) -> Option<Account> {
        let amount = gate::money(answer.get("balance")?)?;
        let minimum = match answer.get("minimum_required") {
            None | Some(Value::Null) => None,
            Some(minimum) => Some(gate::money(minimum).filter(|minimum| *minimum >= 0.0)?),
        };
        let in_usd = match answer.get("currency") {
            None | Some(Value::Null) => true,
            Some(currency) => currency.as_str()?.eq_ignore_ascii_case("usd"),
        };
        Some(Account::Left { amount, minimum, in_usd })
    }

    fn accepted(&self, answer: &Value) -> Acceptance {
        match answer.get("valid") {
            Some(Value::Bool(true)) => Acceptance::Accepted,
            Some(Value::Bool(false)) => Acceptance::Rejected,
            _ => Acceptance::Unclear,
        }
    }

    fn is_model(&self, listed: &str, model: &str) -> bool {
        // LangMart's examples use short names as well: gpt-4o for openai/gpt-4o.
        listed == model || !model.contains('/') && listed.rsplit('/').next() == Some(model)
    }

    fn reason(&self, status: u16, error: &ErrorBody<'_>) -> Option<Reason> {
        let code = error.text("code")?;
        match (status, gate::langmart_area(code)) {
            (400..=499, Some("BILLING")) => Some(Reason::Billing),
            (400 | 403, Some("AUTH")) => Some(Reason::AuthFailed),
            _ => None,
        }
    }

    fn status(&self, status: u16, error: &ErrorBody<'_>) -> u16 {
        // PROVIDER_OPENAI_429 is the provider's 429, also in a 502 or 503 of the gateway.
        let named = error.text("code").and_then(gate::langmart_status);
        // A 407 can only come from the prober's own proxy.
        named.filter(|named| status >= 500 && (400..=599).contains(named) && *named != 407).unwrap_or(status)
    }

    fn upstream(&self, error: &ErrorBody<'_>) -> Upstream {
        let name = error.text("code").and_then(gate::langmart_provider);
        Upstream { name, blamed: name.is_some() }
    }

    fn reset_is_a_wait(&self) -> bool {
        true
    }

    fn rate_limits(&self, headers: &HeaderMap, _error: &ErrorBody<'_>, clocks: &Clocks) -> Vec<RateLimit> {
        limits::without_family(headers, clocks)
    }
}
