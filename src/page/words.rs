//! Times and figures as a person reads them at a glance.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::outcome::{Fault, Reason, SkipCause};

/// A time of day in UTC, with the date where it is not today's.
pub(super) fn clock(time: SystemTime, now: SystemTime) -> String {
    let stamp = |time| Timestamp::try_from(time).unwrap_or_default();
    let (time, now) = (stamp(time), stamp(now));
    let day = |stamp: Timestamp| stamp.strftime("%F").to_string();
    let format = if day(time) == day(now) { "%H:%M:%S" } else { "%F %H:%M" };
    time.strftime(format).to_string()
}

/// How long ago, or how far ahead: in whole minutes, so that a page does not change with each second.
pub(super) fn span(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "under a minute".to_owned(),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// The time from one to the other, 0 where it is negative.
pub(super) fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

/// How long something took.
pub(super) fn took(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.01 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.1} s")
    }
}

/// The same where there may be none.
pub(super) fn took_or_none(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "–".to_owned(), took)
}

/// A share, rounded down, so that only what never failed is 100 %.
pub(super) fn share(share: f64) -> String {
    if share >= 1.0 { "100 %".to_owned() } else { format!("{:.1} %", (share * 1000.0).floor() / 10.0) }
}

/// A configured span of time: `5m`, `90s`, `500ms`.
pub(super) fn interval(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    match (seconds, milliseconds) {
        (0, _) => format!("{milliseconds}ms"),
        (_, 1..) => format!("{}ms", duration.as_millis()),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// What keeps a probe from running.
pub(super) fn wait(cause: SkipCause) -> &'static str {
    match cause {
        SkipCause::Backoff => "the service's limits",
        SkipCause::Budget => "the next day's budget",
        SkipCause::Pacing => "requests_per_minute of its provider",
        SkipCause::Overrun => "the run before it",
        SkipCause::Concurrency => "a place among the runs in flight",
    }
}

/// A reason in a few plain words.
pub(super) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Ok => "succeeded",
        Reason::Dns => "name does not resolve",
        Reason::Connect => "no connection",
        Reason::Proxy => "proxy failed",
        Reason::Tls => "TLS failed",
        Reason::Timeout => "timed out",
        Reason::Disconnected => "disconnected",
        Reason::AuthFailed => "key not accepted",
        Reason::Permission => "not permitted",
        Reason::Billing => "credit or quota used up",
        Reason::RateLimited => "rate limited",
        Reason::Overloaded => "overloaded",
        Reason::Unavailable => "unavailable",
        Reason::GatewayTimeout => "gateway timeout",
        Reason::ServerError => "server error",
        Reason::ModelNotFound => "model not found",
        Reason::InvalidRequest => "request refused",
        Reason::UnexpectedStatus => "unexpected status",
        Reason::Malformed => "malformed answer",
        Reason::ErrorIn200 => "error inside a 200",
        Reason::NoContent => "no visible content",
        Reason::StreamError => "error in the stream",
        Reason::StreamTruncated => "stream cut short",
        Reason::StreamStalled => "stream stalled",
        Reason::UnmetExpectation => "expectation not met",
        Reason::Internal => "prober failed",
    }
}

/// Whose part failed, as an answer to the question whose fault it is.
pub(super) fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "nobody's",
        Fault::Network => "the network on the way there",
        Fault::Gateway => "the gateway",
        Fault::Provider => "the provider",
        Fault::Caller => "ours: key, credit, limits or probe",
        Fault::Prober => "the prober itself",
    }
}
