//! Times and durations as records and metrics write them.

use std::time::{Duration, SystemTime};

/// RFC 3339 in UTC, with milliseconds where there are any. A time that the calendar cannot hold is its nearest end.
pub fn rfc3339(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(if time < SystemTime::UNIX_EPOCH {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    if timestamp.subsec_nanosecond() / 1_000_000 == 0 {
        timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        timestamp.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }
}

/// Seconds since the Unix epoch, negative before it.
pub fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// Seconds with microsecond precision, so that records stay readable.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// The UTC date of a time, `2026-12-11`.
pub fn date(time: SystemTime) -> String {
    rfc3339(time).chars().take_while(|character| *character != 'T').collect()
}
