//! Rate limits: headers that name no resource, and the limit that a refused request exceeded.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{
    Dialect,
    body::ErrorBody,
    hints::{self, Clocks},
    words::Words,
};
use crate::outcome::{LimitedBy, RateLimit, Resource};

/// Window from which on a limit counts as a daily one.
const DAY: Duration = Duration::from_secs(86_400);

/// Phrases of messages about each limit, the most specific limit first: a message about input
/// tokens contains "tokens" as well.
const PHRASES: [(LimitedBy, &[&str]); 6] = [
    (
        LimitedBy::Day,
        &[
            "per day",
            "per-day",
            "/day",
            "daily",
            "(tpd)",
            "(rpd)",
            " tpd",
            " rpd",
            "per 1 day",
            "86400s",
            "每日",
            "每天",
            "当日",
        ],
    ),
    (
        LimitedBy::Concurrency,
        &[
            "concurren",
            "in parallel",
            "parallel request",
            "parallel_request",
            "simultaneous",
            "in flight",
            "in-flight",
            "at the same time",
            "并发",
        ],
    ),
    (LimitedBy::InputTokens, &["input token", "input-token", "prompt token", "(itpm)"]),
    (
        LimitedBy::OutputTokens,
        &["output token", "output-token", "completion token", "generated token", "(otpm)"],
    ),
    (
        LimitedBy::Tokens,
        &[
            "tokens per",
            "token per",
            "tpm",
            "token limit",
            "tokens limit",
            "token rate",
            "token quota",
            "tokens/",
            "too many tokens",
            "limit type: tokens",
        ],
    ),
    (
        LimitedBy::Requests,
        &[
            "requests per",
            "request per",
            "rpm",
            "request limit",
            "requests limit",
            "request rate",
            "requests/",
            "call rate",
            "calls per",
            "call volume",
            "queries per",
            "qps",
            "-per-min",
            "requests rate",
            "limit type: requests",
            "请求过于频繁",
            "频率过高",
        ],
    ),
];

/// Words of codes, types and Google's quota IDs about each limit.
const CODES: [(LimitedBy, &[&[&str]]); 6] = [
    (LimitedBy::Day, &[&["per", "day"], &["daily"], &["day"], &["rpd"], &["tpd"]]),
    (LimitedBy::Concurrency, &[&["concurrency"], &["concurrent"], &["parallel"], &["flight"]]),
    (LimitedBy::InputTokens, &[&["input", "tokens"], &["input", "token"]]),
    (LimitedBy::OutputTokens, &[&["output", "tokens"], &["output", "token"]]),
    (LimitedBy::Tokens, &[&["tokens"], &["token", "quota"], &["token", "limit"], &["tpm"]]),
    (LimitedBy::Requests, &[&["requests", "per"], &["request", "quota"], &["request", "limit"], &["rpm"]]),
];

/// Returns the limit that a refused request exceeded: by codes and messages, else by the limit that
/// is exhausted.
pub(crate) fn limited_by(
    dialect: &dyn Dialect,
    error: &ErrorBody<'_>,
    words: &Words,
    headers: &HeaderMap,
    limits: &[RateLimit],
) -> LimitedBy {
    let mut words_and_quotas = Words::of_codes(error.quotas());
    // OpenRouter names the limit here.
    let source = error.member("metadata").and_then(|metadata| metadata.get("limit_source"));
    words_and_quotas.join(Words::of_codes(source.and_then(Value::as_str)));
    let by_code = |(_, codes): &&(LimitedBy, &[&[&str]])| {
        codes.iter().any(|code| words_and_quotas.has_code(code) || words.has_code(code))
    };
    // The type of OpenAI's and Groq's errors is the resource.
    let types = || {
        let kind = error.text("type").or(error.text("code"));
        (kind == Some("requests")).then_some(LimitedBy::Requests)
    };
    let by_phrase = |(_, phrases): &&(LimitedBy, &[&str])| words.contain(phrases);
    let said = PHRASES.iter().find(by_phrase).map(|(limit, _)| *limit);
    let coded = CODES.iter().find(by_code).map(|(limit, _)| *limit).or_else(types);
    let named = match (said, coded) {
        // Both name a limit: the more specific one, which is listed first.
        (Some(said), Some(coded)) => Some(if rank(said) <= rank(coded) { said } else { coded }),
        (said, coded) => said.or(coded),
    };
    named.or_else(|| exhausted(dialect, headers, limits)).unwrap_or(LimitedBy::Unknown)
}

fn rank(limit: LimitedBy) -> usize {
    PHRASES.iter().position(|(named, _)| *named == limit).unwrap_or(PHRASES.len())
}

/// Returns the limit that is exhausted. A limit of 0 is a placeholder.
fn exhausted(dialect: &dyn Dialect, headers: &HeaderMap, limits: &[RateLimit]) -> Option<LimitedBy> {
    let order = [Resource::InputTokens, Resource::OutputTokens, Resource::Requests, Resource::Tokens];
    let is_spent = |limit: &&RateLimit| limit.remaining == Some(0) && limit.limit != Some(0);
    let spent = |resource| limits.iter().filter(is_spent).any(|limit| limit.resource == resource);
    let resource = order.into_iter().find(|resource| spent(*resource))?;
    let of_a_day = dialect.limits_requests_by_day() && resource == Resource::Requests
        || window(headers).is_some_and(|window| window >= DAY)
        || headers.iter().any(|(name, value)| {
            let name = name.as_str();
            name.contains("ratelimit-remaining") && name.ends_with("-day") && value.as_bytes() == b"0"
        });
    Some(if of_a_day { LimitedBy::Day } else { resource.into() })
}

/// Returns the limits of headers that name no resource: `X-RateLimit-*` (LangMart, Together) and
/// `x-tokenlimit-*` (Together), the `RateLimit-*` headers of older IETF drafts, and the `RateLimit`
/// and `RateLimit-Policy` fields of newer ones.
pub(crate) fn without_family(headers: &HeaderMap, clocks: &Clocks) -> Vec<RateLimit> {
    let plain = |prefix: &str, resource| {
        let read = |name: &str| hints::text(headers, &format!("{prefix}{name}"));
        let (limit, remaining) = (read("limit"), read("remaining"));
        // Only in the drafts of the IETF does a bare number mean seconds.
        let reset = read("reset").and_then(|reset| {
            let moment = hints::rfc3339(reset).or_else(|| hints::epoch(reset));
            let delta = || {
                let seconds = if prefix == "ratelimit-" { hints::decimal(reset) } else { None };
                clocks.after(seconds.or_else(|| hints::go_duration(reset))?)
            };
            moment.map_or_else(delta, |moment| clocks.ours(moment))
        });
        RateLimit::from_figures(
            resource,
            limit.and_then(hints::count),
            remaining.and_then(hints::count),
            reset,
        )
    };
    let fields = || ietf(headers, clocks);
    let requests = plain("x-ratelimit-", Resource::Requests)
        .or_else(|| plain("ratelimit-", Resource::Requests))
        .or_else(fields);
    requests.into_iter().chain(plain("x-tokenlimit-", Resource::Tokens)).collect()
}

/// Reads `RateLimit: "api";r=0;t=231` and `RateLimit-Policy: "api";q=500;w=300`, or the older
/// `limit=100, remaining=0, reset=5`. Of several policies, the one of the same name counts, else
/// the first.
fn ietf(headers: &HeaderMap, clocks: &Clocks) -> Option<RateLimit> {
    let field = parameters(headers, "ratelimit")?;
    let policy = policy(headers);
    let number = |parts: &[(String, String)], names: &[&str]| {
        parts
            .iter()
            .find(|(name, _)| names.contains(&name.as_str()))
            .and_then(|(_, value)| hints::count(value))
    };
    let limit = number(&field, &["limit"]).or_else(|| number(policy.as_deref()?, &["q"]));
    let reset = number(&field, &["t", "reset"]).and_then(|seconds| clocks.after(seconds as f64));
    let tokens = policy.iter().flatten().any(|(name, unit)| name == "qu" && unit.contains("token"));
    let resource = if tokens { Resource::Tokens } else { Resource::Requests };
    RateLimit::from_figures(resource, limit, number(&field, &["r", "remaining"]), reset)
}

/// Returns the window of the current policy.
fn window(headers: &HeaderMap) -> Option<Duration> {
    let policy = policy(headers)?;
    let (_, seconds) = policy.iter().find(|(name, _)| name == "w")?;
    hints::count(seconds).map(Duration::from_secs)
}

/// Returns the parameters of the policy that the `RateLimit` field names, else of the first.
fn policy(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let text = text(headers, "ratelimit-policy")?;
    let name = text_name(headers);
    let named = name.and_then(|name| text.split(',').find(|policy| policy.contains(&name)));
    Some(split(named.unwrap_or(text.split(',').next()?)))
}

/// Returns the quoted name of the `RateLimit` field.
fn text_name(headers: &HeaderMap) -> Option<String> {
    let text = text(headers, "ratelimit")?;
    Some(text.split(';').next()?.trim().to_owned()).filter(|name| name.starts_with('"') && name.len() > 2)
}

fn parameters(headers: &HeaderMap, name: &str) -> Option<Vec<(String, String)>> {
    Some(split(text(headers, name)?))
}

fn split(text: &str) -> Vec<(String, String)> {
    let parts = text.split([';', ',']).filter_map(|part| part.split_once('='));
    parts.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// Returns a structured field of bounded length.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    const MAX_BYTES: usize = 512;
    headers.get(name)?.to_str().ok().filter(|value| value.len() <= MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    /// Resource, limit, remainder and seconds until the reset.
    type Row = (Resource, Option<u64>, Option<u64>, Option<u64>);

    #[track_caller]
    fn check(pairs: &[(&'static str, &'static str)], expected: &[Row]) {
        let headers = headers(pairs);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_334_400);
        let found = without_family(&headers, &Clocks { now, date: Some(now) });
        let found: Vec<_> = found
            .iter()
            .map(|limit| {
                let reset = limit.reset.map(|reset| reset.duration_since(now).unwrap().as_secs());
                (limit.resource, limit.limit, limit.remaining, reset)
            })
            .collect();
        assert_eq!(found, expected, "{pairs:?}");
    }

    #[test]
    fn headers_without_resource_are_read() {
        use Resource::{Requests, Tokens};

        let (limit, remaining, reset) = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset");
        check(&[(limit, "60"), (remaining, "0")], &[(Requests, Some(60), Some(0), None)]);
        check(&[(limit, "60, 60;w=60"), (remaining, "60.0")], &[(Requests, Some(60), Some(60), None)]);
        check(&[(remaining, "5"), (reset, "2026-11-22T08:01:00Z")], &[(Requests, None, Some(5), Some(60))]);
        check(&[(remaining, "5"), (reset, "1795334460")], &[(Requests, None, Some(5), Some(60))]);
        check(&[(remaining, "5"), (reset, "1795334460000")], &[(Requests, None, Some(5), Some(60))]);
        check(&[(remaining, "5"), (reset, "1m0s")], &[(Requests, None, Some(5), Some(60))]);
        check(&[(remaining, "5"), (reset, "60")], &[(Requests, None, Some(5), None)]);
        let draft = [("ratelimit-limit", "100"), ("ratelimit-remaining", "9"), ("ratelimit-reset", "50")];
        check(&draft, &[(Requests, Some(100), Some(9), Some(50))]);
        check(
            &[("ratelimit", "limit=100, remaining=9, reset=50")],
            &[(Requests, Some(100), Some(9), Some(50))],
        );
        let policy = |policy| [("ratelimit", "\"api\";r=3;t=231"), ("ratelimit-policy", policy)];
        check(&policy("\"api\";q=500;w=300"), &[(Requests, Some(500), Some(3), Some(231))]);
        check(&policy("\"x\";q=9;w=1, \"api\";q=500;w=300"), &[(Requests, Some(500), Some(3), Some(231))]);
        check(&policy("\"fixed window\";\"api\";q=500;w=300"), &[(Requests, Some(500), Some(3), Some(231))]);
        check(&policy("\"api\";q=500;qu=\"tokens\""), &[(Tokens, Some(500), Some(3), Some(231))]);
        check(
            &[("x-tokenlimit-limit", "180000"), ("x-tokenlimit-remaining", "9")],
            &[(Tokens, Some(180_000), Some(9), None)],
        );
    }

    #[test]
    fn other_headers_are_ignored() {
        for pairs in [
            &[][..],
            &[("x-ratelimit-limit", "many")],
            &[("x-ratelimit-reset", "60")],
            &[("x-rate-limit-limit", "60")],
            &[("ratelimit-policy", "\"api\";q=500;w=300")],
            &[("ratelimit", "\"api\"")],
            &[("ratelimit", "\"api\";r=-1")],
            &[("ratelimit", "r")],
            &[("ratelimit", ";;=;,")],
            &[("x-ratelimit-remaining", "-1")],
            &[("x-tokenlimit-limit", "")],
        ] {
            check(pairs, &[]);
        }
    }
}
