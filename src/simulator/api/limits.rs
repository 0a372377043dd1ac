//! Rate limits and waits in the headers and time formats of each service.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::service::{Failure, Service};
use crate::simulator::{exchange::Reply, fault::Parameters};

/// Wait of the variant `fractional`, as Groq sends it.
pub(super) const FRACTIONAL_WAIT: Duration = Duration::from_micros(6_352_500);

/// Returns the scripted duration of a rate limit.
pub(super) fn wait(parameters: &Parameters) -> Duration {
    parameters.retry_after.unwrap_or(Duration::from_secs(30))
}

/// Adds the headers of a service whose limit is reached.
pub(super) fn of_refusal(service: &dyn Service, parameters: &Parameters, reply: Reply) -> Reply {
    let wait = wait(parameters);
    let variant = parameters.variant.as_deref();
    if variant == Some("none") || service.hides_limit(variant) {
        return reply;
    }
    let reply = match variant {
        Some("http_date") => {
            // A date has whole seconds, of which none may be missing.
            let end = SystemTime::now() + wait + Duration::from_nanos(999_999_999);
            reply.with("Retry-After", httpdate::fmt_http_date(end))
        }
        Some("retry_after_ms") => reply.with("retry-after-ms", wait.as_millis().to_string()),
        Some("fractional") => {
            let wait = parameters.retry_after.unwrap_or(FRACTIONAL_WAIT);
            reply.with("retry-after", wait.as_secs_f64().to_string())
        }
        _ => match service.wait_header(variant) {
            Some(name) => reply.with(name, seconds(wait)),
            None => reply,
        },
    };
    service.with_reached_limit(wait, variant, reply)
}

/// Adds a Retry-After to a failure other than a rate limit, if the scenario or the failure has one.
pub(super) fn retry_after(
    what: Failure<'_>,
    service: &dyn Service,
    parameters: &Parameters,
    reply: Reply,
) -> Reply {
    let usual = service.usual_wait(what, parameters.variant.as_deref());
    match parameters.retry_after.or(usual.map(Duration::from_secs)) {
        Some(wait) => reply.with("Retry-After", seconds(wait)),
        None => reply,
    }
}

/// Formats a wait in whole seconds, rounded up, as most services write Retry-After.
fn seconds(wait: Duration) -> String {
    wait.as_secs_f64().ceil().to_string()
}

/// Formats the time after a wait as RFC 3339, in whole seconds and UTC.
pub(super) fn rfc3339(from_now: Duration) -> String {
    let time = Timestamp::try_from(SystemTime::now() + from_now).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Formats a duration as Go does: `12ms`, `7.66s`, `6m0s`, `1h0m5s`.
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
