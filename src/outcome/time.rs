//! Formatting of times and durations in records and metrics.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// Formats a time as RFC 3339 in UTC, with milliseconds unless they are zero. Times outside the
/// calendar are limited to its range.
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

/// Returns the seconds since the Unix epoch, negative before it.
pub fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// Returns seconds with microsecond precision, so that records stay readable.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// A time or a duration as a record writes it, or its absence; for serde's `serialize_with`.
pub trait InRecord {
    /// Returns the value to write.
    fn in_record(&self) -> impl Serialize;
}

impl InRecord for Duration {
    fn in_record(&self) -> impl Serialize {
        seconds(*self)
    }
}

impl InRecord for SystemTime {
    fn in_record(&self) -> impl Serialize {
        rfc3339(*self)
    }
}

impl<T: InRecord> InRecord for Option<T> {
    fn in_record(&self) -> impl Serialize {
        self.as_ref().map(InRecord::in_record)
    }
}

/// Serializes a time or a duration as a record writes it.
pub fn in_record<S: Serializer>(value: &impl InRecord, serializer: S) -> Result<S::Ok, S::Error> {
    value.in_record().serialize(serializer)
}

/// Returns the UTC date of a time, such as `2026-12-11`.
pub fn date(time: SystemTime) -> String {
    rfc3339(time).chars().take_while(|character| *character != 'T').collect()
}
