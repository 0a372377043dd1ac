//! LangMart's gateway: `OpenAI`'s dialect for models and completions, with errors of its own in three shapes.

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{Acceptance, Account, Dialect, Upstream};
use crate::{
    outcome::{RateLimit, Reason},
    probe::{body::ErrorBody, gate, hints::Clocks, limits},
};

/// See the module.
pub(super) struct Langmart;

impl Dialect for Langmart {
    fn auth_path(&self) -> &'static str {
        "/v1/auth/validate"
    }

    fn models_path(&self) -> &'static str {
        "/v1/models"
    }

    fn chat_path(&self, _model: &str) -> String {
        "/v1/chat/completions".to_owned()
    }

    fn balance_path(&self) -> &'static str {
        "/api/account/balance"
    }

    /// `{"balance":0.05,"currency":"USD","minimum_required":0.10}`.
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
        // LangMart's own examples name models bare as well: gpt-4o for openai/gpt-4o.
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
        // PROVIDER_OPENAI_429 is the provider's 429, also under the 502 or 503 of a gateway that cannot go on.
        let told = error.text("code").and_then(gate::langmart_status);
        // A 407 would be a matter of our own proxy.
        told.filter(|told| status >= 500 && (400..=599).contains(told) && *told != 407).unwrap_or(status)
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
