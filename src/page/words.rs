//! Formats times and figures for people.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::outcome::{Fault, SkipCause};

pub(super) use crate::config::duration::format as interval;

/// Formats a time in UTC, with the date if it is not today.
pub(super) fn clock(time: SystemTime, now: SystemTime) -> String {
    let stamp = |time| Timestamp::try_from(time).unwrap_or_default();
    let (time, now) = (stamp(time), stamp(now));
    let day = |stamp: Timestamp| stamp.strftime("%F").to_string();
    let format = if day(time) == day(now) { "%H:%M:%S" } else { "%F %H:%M" };
    time.strftime(format).to_string()
}

/// Formats a period in whole minutes, so that a page does not change every second.
pub(super) fn span(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "under a minute".to_owned(),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Returns the time between both, or 0 if it is negative.
pub(super) fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

/// Formats a duration.
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

/// Formats a duration that may be unknown.
pub(super) fn took_or_none(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "–".to_owned(), took)
}

/// Formats a share, rounded down, so that 100 % means no failure.
pub(super) fn share(share: f64) -> String {
    if share >= 1.0 { "100 %".to_owned() } else { format!("{:.1} %", (share * 1000.0).floor() / 10.0) }
}

/// Returns the cause of a delay in words.
pub(super) fn wait(cause: SkipCause) -> &'static str {
    match cause {
        SkipCause::Backoff => "backoff",
        SkipCause::Budget => "the daily budget",
        SkipCause::Pacing => "requests_per_minute of its provider",
        SkipCause::Overrun => "the previous run",
        SkipCause::Concurrency => "max_concurrent",
    }
}

/// Returns the responsible party in words.
pub(super) fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "none",
        Fault::Network => "the network",
        Fault::Gateway => "the gateway",
        Fault::Provider => "the provider",
        Fault::Caller => "our side: key, credit, limits or configuration",
        Fault::Prober => "the prober itself",
    }
}
