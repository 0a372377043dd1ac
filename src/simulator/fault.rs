//! Faults and their parameters.

use std::time::Duration;

use super::{pace::Pace, scenario::parse_duration};

/// A fault and its parameters, which are valid for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) parameters: Parameters,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The caller's key is rejected.
    AuthFailed,
    /// The key that a gateway has stored for the provider is rejected.
    ProviderAuthFailed,
    RateLimited,
    Billing,
    Unavailable,
    GatewayTimeout,
    Overloaded,
    ServerError,
    /// Delays the successful answer by `ms` after the request.
    SlowHeaders,
    /// Sends the successful answer in four pieces, with a pause of `ms` before each.
    SlowBody,
    /// Never answers.
    Stall,
    /// Closes the connection after half of the body.
    Cut,
    /// Resets the connection after half of the body.
    Reset,
    CutBeforeHeaders,
    /// Sends bytes that are not HTTP.
    Garbage,
    /// Sends an HTML page instead of JSON.
    Html,
    /// Redirects to `/elsewhere`.
    Redirect,
    /// Prepends five MiB of white space to the successful answer.
    Oversized,
    /// Adds a thousand headers, half a MiB, to the successful answer.
    HeaderFlood,
    ErrorIn200,
    /// Sends half of the successful body, as if it were complete.
    Malformed,
    /// Sends the head of the successful answer only.
    Empty,
    /// Compresses the successful answer, which the client did not ask for.
    Compressed,
    /// Reports more tokens than the request allows.
    WrongUsage,
    /// A stream whose first event is an error.
    StreamErrorFirst,
    /// A stream that ends with an error in the service's format.
    StreamErrorMid,
    /// A stream that ends after its tokens, without its end marker.
    StreamTruncated,
    /// A stream that stalls after its tokens, with the connection open.
    StreamStalled,
    /// A stream that repeats its last token.
    StreamEndless,
    /// A complete stream with a token after its end marker, then a stall with the connection open.
    StreamAfterDone,
    /// A complete stream without visible content, because reasoning has used up its tokens.
    StreamEmpty,
    /// A complete stream whose content is split inside characters.
    StreamMultibyte,
    /// A stream that ends after some comments.
    StreamCommentsOnly,
    /// On a status page: an incident.
    Incident,
    /// In a balance: almost nothing left.
    LowBalance,
    /// Pauses the listener for `ms`; later connections wait too.
    SlowAccept,
    /// Delays the TLS handshake by `ms`.
    SlowHandshake,
    /// Resets the connection after the `ClientHello`.
    ResetHandshake,
}

/// Parameters of a fault. `None` means the usual value of the service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parameters {
    pub(super) pause: Option<Duration>,
    pub(super) retry_after: Option<Duration>,
    pub(super) variant: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) upstream: Option<String>,
}

struct Spec {
    kind: Kind,
    name: &'static str,
    takes: &'static [&'static str],
    variants: &'static [&'static str],
}

const fn spec(
    kind: Kind,
    name: &'static str,
    takes: &'static [&'static str],
    variants: &'static [&'static str],
) -> Spec {
    Spec { kind, name, takes, variants }
}

/// Other ways in which a stream without an end marker may end: closed or reset inside the body.
const BREAKS: &[&str] = &["close", "reset"];

const SPECS: [Spec; 38] = [
    spec(Kind::AuthFailed, "auth_failed", &[], &[]),
    spec(Kind::ProviderAuthFailed, "provider_auth_failed", &["upstream"], &[]),
    spec(
        Kind::RateLimited,
        "rate_limited",
        &["retry_after", "variant", "upstream"],
        &["http_date", "retry_after_ms", "fractional", "none", "upstream", "body_only"],
    ),
    spec(
        Kind::Billing,
        "billing",
        &["retry_after", "variant"],
        &[
            // OpenAI: error codes of its 429.
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            // Anthropic: 400, 402 and 429.
            "usage_limit",
            "billing_error",
            "spend_limit",
            // Google: its 429 before 2026.
            "old",
            // LangMart: its second error format.
            "insufficient_credits",
            // OpenRouter: the temporary 402, and the 403 of a key's own budget.
            "in_flight_budget",
            "key_limit",
        ],
    ),
    spec(Kind::Unavailable, "unavailable", &["retry_after"], &[]),
    spec(Kind::GatewayTimeout, "gateway_timeout", &["status"], &[]),
    spec(Kind::Overloaded, "overloaded", &["retry_after", "upstream"], &[]),
    spec(Kind::ServerError, "server_error", &["status"], &[]),
    spec(Kind::SlowHeaders, "slow_headers", &["ms"], &[]),
    spec(Kind::SlowBody, "slow_body", &["ms"], &[]),
    spec(Kind::Stall, "stall", &[], &[]),
    spec(Kind::Cut, "cut", &[], &[]),
    spec(Kind::Reset, "reset", &[], &[]),
    spec(Kind::CutBeforeHeaders, "cut_before_headers", &["variant"], &["reset"]),
    spec(Kind::Garbage, "garbage", &[], &[]),
    spec(Kind::Html, "html", &["status"], &[]),
    spec(Kind::Redirect, "redirect", &["status"], &[]),
    spec(Kind::Oversized, "oversized", &[], &[]),
    spec(Kind::HeaderFlood, "header_flood", &[], &[]),
    spec(Kind::ErrorIn200, "error_in_200", &["variant"], &["ok_false"]),
    spec(Kind::Malformed, "malformed", &[], &[]),
    spec(Kind::Empty, "empty", &[], &[]),
    spec(Kind::Compressed, "compressed", &[], &[]),
    spec(Kind::WrongUsage, "wrong_usage", &[], &[]),
    // `done`: with an end marker. `recorded`: as recorded from OpenRouter, unlike its
    // documentation. `x_groq`: Groq's other format, a member of a chunk that resembles a regular
    // end.
    spec(Kind::StreamErrorFirst, "stream_error_first", &["variant", "upstream"], &["done", "x_groq"]),
    spec(Kind::StreamErrorMid, "stream_error_mid", &["variant", "upstream"], &["done", "recorded", "x_groq"]),
    spec(Kind::StreamTruncated, "stream_truncated", &["variant"], BREAKS),
    spec(Kind::StreamStalled, "stream_stalled", &[], &[]),
    spec(Kind::StreamEndless, "stream_endless", &["variant"], &["after_done"]),
    spec(Kind::StreamAfterDone, "stream_after_done", &[], &[]),
    spec(Kind::StreamEmpty, "stream_empty", &[], &[]),
    spec(Kind::StreamMultibyte, "stream_multibyte", &[], &[]),
    spec(Kind::StreamCommentsOnly, "stream_comments_only", &["variant"], BREAKS),
    spec(Kind::Incident, "incident", &["variant"], &["minor", "major", "critical", "maintenance"]),
    spec(Kind::LowBalance, "low_balance", &[], &[]),
    spec(Kind::SlowAccept, "slow_accept", &["ms"], &[]),
    spec(Kind::SlowHandshake, "slow_handshake", &["ms"], &[]),
    spec(Kind::ResetHandshake, "reset_handshake", &[], &[]),
];

/// Maximum scripted pause.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(3600);

impl Kind {
    fn spec(self) -> &'static Spec {
        SPECS.iter().find(|spec| spec.kind == self).expect("a test checks every kind")
    }

    pub(super) fn name(self) -> &'static str {
        self.spec().name
    }

    /// Returns whether the fault applies before a request is read, so that rules cannot match one.
    pub(super) fn is_for_connections(self) -> bool {
        matches!(self, Self::SlowAccept | Self::SlowHandshake | Self::ResetHandshake)
    }

    /// Returns whether the fault applies to requests for a stream only.
    pub(super) fn is_for_streams(self) -> bool {
        matches!(
            self,
            Self::StreamErrorFirst
                | Self::StreamErrorMid
                | Self::StreamTruncated
                | Self::StreamStalled
                | Self::StreamEndless
                | Self::StreamAfterDone
                | Self::StreamEmpty
                | Self::StreamMultibyte
                | Self::StreamCommentsOnly
        )
    }
}

impl Fault {
    /// Creates the fault with that name, if its parameters are valid.
    pub(super) fn new(name: &str, parameters: Parameters) -> Result<Self, String> {
        let Some(spec) = SPECS.iter().find(|spec| spec.name == name) else {
            let known: Vec<_> = SPECS.iter().map(|spec| spec.name).collect();
            return Err(format!("unknown fault {name:?}; known faults: {}", known.join(", ")));
        };
        let Parameters { pause, retry_after, variant, status, upstream } = &parameters;
        let given = [
            ("ms", pause.is_some()),
            ("retry_after", retry_after.is_some()),
            ("variant", variant.is_some()),
            ("status", status.is_some()),
            ("upstream", upstream.is_some()),
        ];
        for (parameter, _) in given.into_iter().filter(|(_, given)| *given) {
            if !spec.takes.contains(&parameter) {
                return Err(format!("the fault {name} takes no {parameter}"));
            }
        }
        if let Some(variant) = variant.as_deref().filter(|variant| !spec.variants.contains(variant)) {
            return Err(format!(
                "the fault {name} has no variant {variant:?}; it has {}",
                spec.variants.join(", ")
            ));
        }
        if spec.takes.contains(&"ms") && pause.is_none() {
            return Err(format!("the fault {name} needs ms"));
        }
        if pause.is_some_and(|pause| pause > MAX_PAUSE) {
            return Err("ms must be at most 3600000".to_owned());
        }
        if status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err("status must be from 200 to 599".to_owned());
        }
        if upstream.as_ref().is_some_and(|upstream| !is_name(upstream)) {
            return Err("upstream must have at most 32 letters and digits".to_owned());
        }
        Ok(Self { kind: spec.kind, parameters })
    }

    /// Parses `NAME; key=value; key=value`, as in the header `x-simulate`: a fault, or `pace` for
    /// none, and the pace.
    pub(super) fn parse(text: &str) -> Result<(Option<Self>, Pace), String> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let (mut parameters, mut pace) = (Parameters::default(), Pace::default());
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not key=value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{key} is not a number"));
            match key {
                "ms" => parameters.pause = Some(Duration::from_millis(number()?)),
                "retry_after" => parameters.retry_after = Some(parse_duration(value)?),
                "variant" => parameters.variant = Some(value.to_owned()),
                "status" => parameters.status = Some(u16::try_from(number()?).unwrap_or(u16::MAX)),
                "upstream" => parameters.upstream = Some(value.to_owned()),
                _ if pace.set(key, value)? => {}
                _ => return Err(format!("unknown parameter {key:?}")),
            }
        }
        if name == "pace" && parameters == Parameters::default() {
            return Ok((None, pace));
        }
        Ok((Some(Self::new(name, parameters)?), pace))
    }
}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let message = Fault::parse(text).unwrap_err();
        assert!(message.contains(expected), "{text:?}: {message}");
    }

    #[test]
    fn fault_names_convert_both_ways() {
        for spec in &SPECS {
            assert_eq!(spec.kind.name(), spec.name);
            let text = if spec.takes.contains(&"ms") {
                format!("{}; ms=1", spec.name)
            } else {
                spec.name.to_owned()
            };
            assert_eq!(Fault::parse(&text).unwrap().0.unwrap().kind, spec.kind);
            assert_eq!(spec.kind.is_for_streams(), spec.name.starts_with("stream_"), "{}", spec.name);
        }
        assert_eq!(SPECS.len(), Kind::ResetHandshake as usize + 1, "a kind without a name");
    }

    #[test]
    fn header_sets_parameters() {
        let (fault, pace) = Fault::parse("rate_limited; retry_after=6.5s ;variant=fractional").unwrap();
        let fault = fault.unwrap();
        assert_eq!(fault.kind, Kind::RateLimited);
        assert_eq!(fault.parameters.retry_after, Some(Duration::from_millis(6500)));
        assert_eq!(fault.parameters.variant.as_deref(), Some("fractional"));
        assert_eq!(pace, Pace::default());
    }

    #[test]
    fn header_sets_pace_with_or_without_fault() {
        let (fault, pace) = Fault::parse("pace; tokens=3").unwrap();
        assert_eq!((fault, pace.tokens), (None, Some(3)));
        let (fault, pace) = Fault::parse("stream_stalled; token=5ms").unwrap();
        assert_eq!(fault.unwrap().kind, Kind::StreamStalled);
        assert_eq!(pace.token(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn invalid_fault_is_rejected() {
        check_refused("rate_limit", "unknown fault \"rate_limit\"; known faults: auth_failed, ");
        check_refused("slow_headers", "the fault slow_headers needs ms");
        check_refused("slow_headers; ms=x", "ms is not a number");
        check_refused("slow_headers; ms=3600001", "ms must be at most 3600000");
        check_refused("pace; ms=3", "unknown fault \"pace\"");
        check_refused("stream_stalled; tokens=x", "tokens is not a number");
        check_refused("stall; ms=3", "the fault stall takes no ms");
        check_refused("stall; ms", "\"ms\" is not key=value");
        check_refused("stall; a=b", "unknown parameter \"a\"");
        check_refused("html; status=199", "status must be from 200 to 599");
        check_refused("html; variant=x", "the fault html takes no variant");
        check_refused(
            "billing; variant=x",
            "the fault billing has no variant \"x\"; it has insufficient_quota, ",
        );
        check_refused("overloaded; upstream=a_b", "upstream must have at most 32 letters and digits");
    }
}
