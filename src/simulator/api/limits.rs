//! Rate limits and waits, in each service's own headers and time formats.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use super::{Provider, service::Failure};
use crate::simulator::{exchange::Reply, fault::Parameters};

/// The wait of the variant `fractional`, as Groq's clients report it.
pub(super) const FRACTIONAL_WAIT: Duration = Duration::from_micros(6_352_500);

/// How long a rate limit lasts, as scripted.
pub(super) fn wait(parameters: &Parameters) -> Duration {
    parameters.retry_after.unwrap_or(Duration::from_secs(30))
}

/// Adds what a service says of its limits on a completion. The others say nothing there.
pub(super) fn of_success(provider: Provider, reply: Reply) -> Reply {
    match provider {
        Provider::Openai => reply
            .with("x-ratelimit-limit-requests", "10000")
            .with("x-ratelimit-limit-tokens", "200000")
            .with("x-ratelimit-remaining-requests", "9999")
            .with("x-ratelimit-remaining-tokens", "199982")
            .with("x-ratelimit-reset-requests", "8.64s")
            .with("x-ratelimit-reset-tokens", "5ms"),
        // Requests of a day, tokens of a minute.
        Provider::Groq => reply
            .with("x-ratelimit-limit-requests", "14400")
            .with("x-ratelimit-limit-tokens", "18000")
            .with("x-ratelimit-remaining-requests", "14370")
            .with("x-ratelimit-remaining-tokens", "17997")
            .with("x-ratelimit-reset-requests", "2m59.56s")
            .with("x-ratelimit-reset-tokens", "7.66s"),
        Provider::Anthropic => {
            let now = rfc3339(Duration::ZERO);
            let family = [
                ("requests", 4000, 3999),
                ("input-tokens", 400_000, 400_000),
                ("output-tokens", 80_000, 80_000),
                ("tokens", 480_000, 480_000),
            ];
            family.into_iter().fold(reply, |reply, (resource, limit, remaining)| {
                anthropic(reply, resource, limit, remaining, &now)
            })
        }
        Provider::Langmart | Provider::Google | Provider::Openrouter => reply,
    }
}

/// Adds what a service says when a limit is reached. Google tells it in the body only.
pub(super) fn of_refusal(provider: Provider, parameters: &Parameters, reply: Reply) -> Reply {
    let wait = wait(parameters);
    let variant = parameters.variant.as_deref();
    match (provider, variant) {
        (_, Some("none"))
        | (Provider::Google, None | Some("fractional"))
        | (Provider::Openrouter, Some("body_only")) => return reply,
        _ => {}
    }
    let reply = match variant {
        Some("http_date") => reply.with("Retry-After", httpdate::fmt_http_date(SystemTime::now() + wait)),
        Some("retry_after_ms") => reply.with("retry-after-ms", wait.as_millis().to_string()),
        Some("fractional") => {
            let wait = parameters.retry_after.unwrap_or(FRACTIONAL_WAIT);
            reply.with("retry-after", wait.as_secs_f64().to_string())
        }
        _ => match provider {
            Provider::Openrouter if variant.is_none() => reply,
            Provider::Langmart | Provider::Openai | Provider::Openrouter => {
                reply.with("Retry-After", seconds(wait))
            }
            Provider::Anthropic | Provider::Groq => reply.with("retry-after", seconds(wait)),
            Provider::Google => reply,
        },
    };
    family(provider, wait, variant, reply)
}

/// The headers that tell which limit it was.
fn family(provider: Provider, wait: Duration, variant: Option<&str>, reply: Reply) -> Reply {
    match provider {
        Provider::Langmart => reply
            .with("X-RateLimit-Limit", "60")
            .with("X-RateLimit-Remaining", "0")
            .with("X-RateLimit-Reset", rfc3339(wait)),
        Provider::Openai => reply
            .with("x-ratelimit-limit-requests", "60")
            .with("x-ratelimit-limit-tokens", "150000")
            .with("x-ratelimit-remaining-requests", "0")
            .with("x-ratelimit-remaining-tokens", "149984")
            .with("x-ratelimit-reset-requests", go_duration(wait))
            .with("x-ratelimit-reset-tokens", "6m0s"),
        Provider::Groq => reply
            .with("x-ratelimit-limit-requests", "14400")
            .with("x-ratelimit-remaining-requests", "14000")
            .with("x-ratelimit-reset-requests", "6s")
            .with("x-ratelimit-limit-tokens", "8000")
            .with("x-ratelimit-remaining-tokens", "0")
            .with("x-ratelimit-reset-tokens", go_duration(wait)),
        Provider::Anthropic => {
            let reply = anthropic(reply, "requests", 50, 0, &rfc3339(wait));
            anthropic(reply, "tokens", 40_000, 40_000, &rfc3339(Duration::ZERO))
        }
        Provider::Openrouter if variant != Some("upstream") => openrouter(wait)
            .into_iter()
            .fold(reply, |reply, (name, value)| reply.with(name, value.as_str().unwrap_or_default())),
        Provider::Openrouter | Provider::Google => reply,
    }
}

/// Adds a Retry-After to a failure that is no rate limit: where the scenario asks for one, and where it belongs to it.
pub(super) fn retry_after(
    what: Failure<'_>,
    provider: Provider,
    parameters: &Parameters,
    reply: Reply,
) -> Reply {
    let in_flight = parameters.variant.as_deref() == Some("in_flight_budget");
    let habit = match (provider, what) {
        (Provider::Openai, Failure::Overloaded) => Some(10),
        (Provider::Openrouter, Failure::Billing) if in_flight => Some(3),
        _ => None,
    };
    match parameters.retry_after.or(habit.map(Duration::from_secs)) {
        Some(wait) => reply.with("Retry-After", seconds(wait)),
        None => reply,
    }
}

/// `OpenRouter`'s three, its reset in milliseconds since the epoch.
pub(super) fn openrouter(wait: Duration) -> [(&'static str, Value); 3] {
    let reset =
        (SystemTime::now() + wait).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    [
        ("X-RateLimit-Limit", Value::from("20")),
        ("X-RateLimit-Remaining", Value::from("0")),
        ("X-RateLimit-Reset", Value::from(reset.to_string())),
    ]
}

fn anthropic(reply: Reply, resource: &str, limit: u32, remaining: u32, reset: &str) -> Reply {
    let name = |what: &str| format!("anthropic-ratelimit-{resource}-{what}");
    reply
        .with(&name("limit"), limit.to_string())
        .with(&name("remaining"), remaining.to_string())
        .with(&name("reset"), reset)
}

/// Whole seconds, as most write Retry-After; never less than the wait.
fn seconds(wait: Duration) -> String {
    wait.as_secs_f64().ceil().to_string()
}

/// So long from now, in whole seconds and UTC.
fn rfc3339(from_now: Duration) -> String {
    let time = Timestamp::try_from(SystemTime::now() + from_now).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As Go prints a duration: `12ms`, `7.66s`, `6m0s`, `1h0m5s`.
pub(super) fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return if duration.is_zero() {
            "0s".to_owned()
        } else {
            format!("{}ms", duration.as_secs_f64() * 1e3)
        };
    }
    let minutes = duration.as_secs() / 60;
    let rest = duration.saturating_sub(Duration::from_secs(minutes * 60)).as_secs_f64();
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_go(milliseconds: u64, expected: &str) {
        assert_eq!(go_duration(Duration::from_millis(milliseconds)), expected);
    }

    #[test]
    fn durations_look_like_go() {
        check_go(0, "0s");
        check_go(12, "12ms");
        check_go(7660, "7.66s");
        check_go(360_000, "6m0s");
        check_go(179_560, "2m59.56s");
        check_go(3_605_000, "1h0m5s");
    }
}
