//! Why a service refuses: what its status says, and what codes and words say beyond it.

use std::borrow::Cow;

use super::{
    body::{Body, ErrorBody},
    dialect::Dialect,
};
use crate::{config::Task, outcome::Reason};

/// Codes and types that mean money, not time: these never heal by waiting.
const BILLING: &[&str] = &[
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit_balance_exhausted",
    "enforced_spend_limit_reached",
    "exceeded_current_quota_error",
    "insufficient_credits",
    "insufficient_quota",
    "organization_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "project_spend_limit_exceeded",
];

/// What Anthropic, Google, xAI and Moonshot say where their codes do not tell money from other faults. The last two are
/// Google's where a plan has nothing of a model, which its codes do not tell from a limit that is reached.
const BILLING_PHRASES: &[&str] = &[
    "credit balance is too low",
    "specified api usage limits",
    "workspace api usage limits",
    "prepayment credits are depleted",
    "used all available credits",
    "insufficient balance",
    "limit: 0,",
    "limit: 0\n",
];

const OVERLOAD: &[&str] = &["overloaded_error", "provider_overloaded", "server_is_overloaded", "slow_down"];

/// How Groq and `OpenAI` tell overload where no code does.
const OVERLOAD_PHRASES: &[&str] = &["over capacity", "overloaded"];

/// How `OpenAI` and Groq say that no wait makes room for a request.
const TOO_LARGE_PHRASES: &[&str] = &["request too large"];

const BAD_KEY: &[&str] = &["expired_api_key", "invalid_api_key", "missing_api_key"];

/// What Google, also by its imitation of `OpenAI` and behind gateways, and xAI say of a key under a 400 or 403.
const BAD_KEY_PHRASES: &[&str] = &[
    "unregistered callers",
    "api key not valid",
    "api key expired",
    "api key was reported",
    "incorrect api key provided",
];

/// Accounts that are known and shut out: Groq's code, and Anthropic's words under one that serves for everything.
const SHUT_OUT: &[&str] = &["organization_restricted"];

/// See [`SHUT_OUT`].
const SHUT_OUT_PHRASES: &[&str] = &["organization has been disabled"];

/// How `OpenAI` says, under a 401, that a key is good and may not do this.
const NOT_ALLOWED_PHRASES: &[&str] = &["missing scopes", "insufficient permissions"];

const NO_MODEL: &[&str] = &["DeploymentNotFound", "model_decommissioned", "model_not_found"];

/// What is said of an unknown model under codes that serve for everything.
const NO_MODEL_PHRASES: &[&str] = &[
    "not a valid model",
    "invalid model",
    "model not exist",
    "model does not exist",
    "has been decommissioned",
    "does not exist or you do not have access",
];

/// What is said of a path that nothing is at, which may be that of the models: by `OpenAI`, Groq, Fastify and Express.
const NO_PATH_PHRASES: &[&str] =
    &["invalid url", "unknown request url", "route get", "route post", "cannot get", "cannot post"];

/// What a status other than 2xx comes to, and what there is to say of it.
pub(super) fn refusal(
    task: &Task,
    status: u16,
    body: &Body,
    error: &ErrorBody<'_>,
    dialect: &dyn Dialect,
) -> (Reason, Cow<'static, str>) {
    let asks_for_model = matches!(task, Task::Chat(_) | Task::Stream(_) | Task::Models | Task::Http(_));
    let own = status;
    let status = dialect.status(own, error);
    let wrapped = dialect.wrapped(error);
    let by_body = dialect
        .reason(status, error)
        .or_else(|| generic_reason(status, asks_for_model, error, dialect))
        .or_else(|| generic_reason(status, asks_for_model, &ErrorBody::read(&wrapped), dialect));
    let reason = by_body.unwrap_or_else(|| status_reason(status));
    let detail: Cow<'static, str> = match (reason, status, body) {
        _ if status != own => format!("the provider's {status} behind the gateway's {own}").into(),
        (Reason::Billing, 402, _) => "".into(),
        (Reason::Billing, ..) => format!("a {status} that is about money, not about time").into(),
        (Reason::AuthFailed, 401, _) => "".into(),
        (Reason::AuthFailed, ..) => format!("a {status} that is about the key").into(),
        (Reason::InvalidRequest, 413 | 429, _) if error.says(TOO_LARGE_PHRASES) => {
            "this one request is larger than the limit of a whole window".into()
        }
        (Reason::InvalidRequest, 400, _) if error.says(&["max_tokens or model output limit was reached"]) => {
            "max_tokens was used up before any visible content".into()
        }
        // Google asks for a wait of seconds all the same.
        (Reason::RateLimited, ..) if error.is_daily() => {
            "a limit of the day is reached, not one of the minute".into()
        }
        (Reason::Proxy, ..) => "the proxy wants credentials (407)".into(),
        (Reason::UnexpectedStatus, 300..=399, _) => "a redirect, which a probe does not follow".into(),
        (_, _, Body::Html) => "an HTML page in place of the API's error: a proxy or CDN answers".into(),
        _ => "".into(),
    };
    (reason, detail)
}

/// What codes and phrases that several APIs share say beyond the status.
fn generic_reason(
    status: u16,
    asks_for_model: bool,
    error: &ErrorBody<'_>,
    dialect: &dyn Dialect,
) -> Option<Reason> {
    let no_model = || {
        error.is(NO_MODEL)
            || status == 400 && error.says(NO_MODEL_PHRASES)
            // A wrong path is a 404 too; one about the model says so, or comes from beyond the path.
            || status == 404
                && (dialect.upstream(error).name.is_some()
                    || error.says(&["model", "deployment", "no endpoints"]))
                && !error.says(NO_PATH_PHRASES)
    };
    match status {
        400 | 402 | 403 | 429 if error.is(BILLING) || error.says(BILLING_PHRASES) => Some(Reason::Billing),
        400 | 403 if error.is(BAD_KEY) || error.says(BAD_KEY_PHRASES) => Some(Reason::AuthFailed),
        400 if error.is(SHUT_OUT) || error.says(SHUT_OUT_PHRASES) => Some(Reason::Permission),
        401 if error.says(NOT_ALLOWED_PHRASES) => Some(Reason::Permission),
        400 | 403 | 404 | 410 if asks_for_model && no_model() => Some(Reason::ModelNotFound),
        429 if error.says(TOO_LARGE_PHRASES) => Some(Reason::InvalidRequest),
        503 if error.is(OVERLOAD) || error.says(OVERLOAD_PHRASES) => Some(Reason::Overloaded),
        _ => None,
    }
}

/// What a status says by itself (RFC 9110, 15; 498 is Groq's, 524 Cloudflare's, 529 Anthropic's).
pub(super) fn status_reason(status: u16) -> Reason {
    match status {
        401 => Reason::AuthFailed,
        402 => Reason::Billing,
        403 => Reason::Permission,
        407 => Reason::Proxy,
        408 | 504 | 524 => Reason::GatewayTimeout,
        429 => Reason::RateLimited,
        498 | 529 => Reason::Overloaded,
        503 => Reason::Unavailable,
        400..=499 => Reason::InvalidRequest,
        500..=599 => Reason::ServerError,
        _ => Reason::UnexpectedStatus,
    }
}
