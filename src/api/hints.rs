//! Requested waits and resets of limits, in every notation that providers use.
//!
//! An ambiguous value is `None`, because a wrong wait is worse than none.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Maximum length of a value; real ones have about 30 characters.
const MAX_LENGTH: usize = 64;

/// Maximum wait, in seconds. Larger numbers are seconds since the epoch, from 2001 on.
const MAX_WAIT: f64 = 1e8;

/// Difference below which two clocks count as equal: the Date header has a resolution of a second,
/// and the response took time.
const SAME_CLOCK: Duration = Duration::from_secs(2);

/// The local clock and the server's, at the arrival of the response headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// The local time.
    pub(crate) now: SystemTime,
    /// The server's time, by its Date header. `None` if the header is absent or malformed.
    pub(crate) date: Option<SystemTime>,
}

impl Clocks {
    /// Reads the Date header (RFC 9110, 6.6.1).
    pub(crate) fn read(now: SystemTime, headers: &HeaderMap) -> Self {
        Self { now, date: text(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok()) }
    }

    /// Returns the local time minus the server's, in seconds.
    pub(crate) fn offset(&self) -> Option<f64> {
        let date = self.date?;
        Some(match self.now.duration_since(date) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        })
    }

    /// Returns the seconds until a time of the server's clock. Returns 0 if it has passed, as
    /// Anthropic's resets often have.
    pub(crate) fn until(&self, moment: SystemTime) -> f64 {
        moment.duration_since(self.date.unwrap_or(self.now)).map_or(0.0, |wait| wait.as_secs_f64())
    }

    /// Converts a time of the server's clock to the local clock. A past time becomes the current
    /// one.
    pub(crate) fn ours(&self, moment: SystemTime) -> Option<SystemTime> {
        let date = self.date.unwrap_or(self.now);
        let moment = moment.max(date);
        if self.offset().is_none_or(|offset| offset.abs() <= SAME_CLOCK.as_secs_f64()) {
            return Some(moment);
        }
        self.now.checked_add(moment.duration_since(date).ok()?)
    }

    /// Returns the local time in that many seconds.
    pub(crate) fn after(&self, seconds: f64) -> Option<SystemTime> {
        self.now.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
    }
}

/// Returns a wait in seconds if it is plausible: above 0, and less than years.
pub(crate) fn plausible_wait(seconds: f64) -> Option<f64> {
    (seconds > 0.0 && seconds <= MAX_WAIT).then_some(seconds)
}

/// Returns the requested wait in seconds: of `retry-after-ms` (Azure, `OpenAI`'s SDKs), else of
/// Retry-After (RFC 9110, 10.2.3), else of the header in which `LiteLLM` forwards it. A wait of 0
/// or one that has passed is ignored, as by openai-python, as are waits of years; the prober's own
/// backoff applies.
pub(crate) fn retry_after(headers: &HeaderMap, clocks: &Clocks) -> Option<f64> {
    let milliseconds =
        |name| text(headers, name).and_then(decimal).map(|ms| ms / 1000.0).and_then(plausible_wait);
    let seconds = |name| text(headers, name).and_then(|value| delay(value, clocks)).and_then(plausible_wait);
    milliseconds("retry-after-ms")
        .or_else(|| milliseconds("x-ms-retry-after-ms"))
        .or_else(|| seconds(RETRY_AFTER.as_str()))
        .or_else(|| seconds("llm_provider-retry-after"))
}

/// Parses a Retry-After as services write it: seconds, also with a fraction (Groq), an HTTP date, a
/// Go duration, RFC 3339, or seconds since the epoch, which would be decades as a wait.
fn delay(value: &str, clocks: &Clocks) -> Option<f64> {
    match decimal(value) {
        Some(seconds) if seconds <= MAX_WAIT => Some(seconds),
        Some(_) => epoch(value).map(|moment| clocks.until(moment)),
        None => {
            let date = httpdate::parse_http_date(value).ok();
            let moment = date.or_else(|| rfc3339(value)).map(|moment| clocks.until(moment));
            moment.or_else(|| go_duration(value))
        }
    }
}

/// Returns the value of a header if it is short and visible ASCII.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= MAX_LENGTH).then_some(value)
}

/// Parses a decimal number of digits with an optional fraction, without sign and exponent.
pub(crate) fn decimal(value: &str) -> Option<f64> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if value.len() > MAX_LENGTH || !digits(whole) || !digits(fraction) {
        return None;
    }
    value.parse().ok()
}

/// Parses a duration as Go prints it, in seconds: `1s`, `6m0s`, `2m59.56s`, `12ms`,
/// `17.399999999s`. A number without unit (Azure) is ambiguous.
pub(crate) fn go_duration(value: &str) -> Option<f64> {
    let mut rest = value;
    let mut seconds = 0.0;
    if value.is_empty() || value.len() > MAX_LENGTH {
        return None;
    }
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount = decimal(&rest[..unit_at])?;
        rest = &rest[unit_at..];
        // The longer unit first: `m` begins `ms`.
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        seconds += amount * scale;
        rest = &rest[unit.len()..];
    }
    Some(seconds)
}

/// Parses the JSON form of protobuf's Duration, in seconds: `37s`, `0.123456789s`.
pub(crate) fn protobuf_duration(value: &str) -> Option<f64> {
    decimal(value.strip_suffix('s')?)
}

/// Parses RFC 3339 with any offset.
pub(crate) fn rfc3339(value: &str) -> Option<SystemTime> {
    let moment: jiff::Timestamp = value.parse().ok()?;
    Some(moment.into())
}

/// Parses an announced date: RFC 3339, or only its date, which begins at midnight UTC. Returns
/// `None` for implausible dates.
pub(crate) fn date(value: &str) -> Option<SystemTime> {
    const YEARS: std::ops::Range<i16> = 2000..2200;
    let day = || {
        let date: jiff::civil::Date = value.parse().ok()?;
        YEARS.contains(&date.year()).then(|| date.to_zoned(jiff::tz::TimeZone::UTC).ok())?
    };
    let moment = || {
        let moment: jiff::Timestamp = value.parse().ok()?;
        YEARS.contains(&moment.to_zoned(jiff::tz::TimeZone::UTC).year()).then(|| moment.into())
    };
    if value.len() > MAX_LENGTH {
        return None;
    }
    moment().or_else(|| day().map(|day| day.timestamp().into()))
}

/// Parses a count of a rate-limit header: `60`, `60.0`, and `60, 60;w=60`, of which the first is
/// the current limit.
pub(crate) fn count(value: &str) -> Option<u64> {
    let first = value.split([',', ';']).next()?.trim();
    let number = decimal(first)?;
    (number.fract() == 0.0 && number < 1e15).then_some(number as u64)
}

/// Parses seconds since the Unix epoch, or milliseconds if the number is too large for seconds.
/// Returns `None` before 2001 and after 5138: such numbers are something else, such as a wait.
pub(crate) fn epoch(value: &str) -> Option<SystemTime> {
    let seconds = match decimal(value)? {
        seconds @ 1e9..1e11 => seconds,
        milliseconds @ 1e12..1e14 => milliseconds / 1000.0,
        _ => return None,
    };
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[track_caller]
    fn check_retry_after(pairs: &[(&'static str, &str)], expected: Option<f64>) {
        let headers = headers(pairs);
        let clocks = Clocks::read(SystemTime::now(), &headers);
        assert_eq!(retry_after(&headers, &clocks), expected, "{pairs:?}");
    }

    #[test]
    fn hostile_date_gives_bounded_offset_or_none() {
        let offset = |date: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("date", HeaderValue::from_bytes(date).unwrap());
            Clocks::read(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), &headers).offset()
        };
        assert_eq!(offset(b"Fri, 15 Jan 2027 08:00:00 GMT"), Some(0.0));
        assert_eq!(offset(b"Fri, 15 Jan 2027 07:59:57 GMT"), Some(3.0));
        assert_eq!(offset(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(1.8e9));
        // The calendar of RFC 9110, 5.6.7 ends with the year 9999.
        assert_eq!(offset(b"Fri, 31 Dec 9999 23:59:59 GMT"), Some(1_800_000_000.0 - 253_402_300_799.0));
        for date in
            ["", "0", "now", "Fri, 15 Jan 99999 08:00:00 GMT", "Fri, 45 Jan 2027 08:00:00 GMT", "-1e300"]
        {
            assert_eq!(offset(date.as_bytes()), None, "{date}");
        }
        assert_eq!(offset(b"\xff\xfe"), None);
        assert_eq!(offset(&[b'9'; 10_000]), None);
    }

    #[test]
    fn retry_after_is_read_in_every_notation() {
        check_retry_after(&[], None);
        check_retry_after(&[("retry-after", "120")], Some(120.0));
        check_retry_after(&[("retry-after", " 0 ")], None);
        check_retry_after(&[("retry-after-ms", "0"), ("retry-after", "9")], Some(9.0));
        check_retry_after(&[("retry-after", "6.3525")], Some(6.3525));
        check_retry_after(&[("retry-after", "198300")], Some(198_300.0));
        check_retry_after(&[("retry-after-ms", "864"), ("retry-after", "9")], Some(0.864));
        check_retry_after(&[("retry-after-ms", "soon"), ("retry-after", "9")], Some(9.0));
        let date = ("date", "Sun, 22 Nov 2026 08:00:00 GMT");
        check_retry_after(&[date, ("retry-after", "Sun, 22 Nov 2026 08:00:30 GMT")], Some(30.0));
        check_retry_after(&[date, ("retry-after", "Sun, 22 Nov 2026 07:00:30 GMT")], None);
        // Times: seconds and milliseconds since the epoch, RFC 3339.
        check_retry_after(&[date, ("retry-after", "1795334460")], Some(60.0));
        check_retry_after(&[date, ("retry-after", "1795334460000")], Some(60.0));
        check_retry_after(&[date, ("retry-after", "1795334340")], None);
        check_retry_after(&[date, ("retry-after", "2026-11-22T08:01:00Z")], Some(60.0));
        check_retry_after(&[("retry-after", "1m30s")], Some(90.0));
        check_retry_after(&[("retry-after", "60s")], Some(60.0));
        check_retry_after(&[("x-ms-retry-after-ms", "2500"), ("retry-after", "9")], Some(2.5));
        check_retry_after(&[("llm_provider-retry-after", "20")], Some(20.0));
        check_retry_after(&[("llm_provider-retry-after", "20"), ("retry-after", "9")], Some(9.0));
    }

    #[test]
    fn other_retry_after_values_are_ignored() {
        let long = "9".repeat(400);
        for value in [
            "-1",
            "NaN",
            "inf",
            "1e9",
            "+5",
            "0x10",
            "",
            "1,5",
            ".5",
            "5.",
            "60 s",
            "soon",
            // Neither a wait nor a time.
            "500000000",
            "99999999999",
            &long,
        ] {
            check_retry_after(&[("retry-after", value)], None);
        }
    }

    #[test]
    fn wait_of_years_is_ignored_in_every_notation() {
        let date = ("date", "Sun, 22 Nov 2026 08:00:00 GMT");
        for (name, value) in [
            ("retry-after-ms", "200000000000"),
            ("x-ms-retry-after-ms", "200000000000"),
            ("llm_provider-retry-after", "100000h"),
            ("retry-after", "100000h"),
            ("retry-after", "Fri, 22 Nov 2030 08:00:00 GMT"),
            ("retry-after", "2030-11-22T08:00:00Z"),
            ("retry-after", "1921564800"),
        ] {
            check_retry_after(&[date, (name, value)], None);
        }
        check_retry_after(&[("retry-after-ms", "200000000000"), ("retry-after", "9")], Some(9.0));
    }

    #[track_caller]
    fn check_go(value: &str, expected: Option<f64>) {
        let seconds = go_duration(value);
        match (seconds, expected) {
            (Some(seconds), Some(expected)) => {
                assert!((seconds - expected).abs() < 1e-9, "{value}: {seconds}");
            }
            _ => assert_eq!(seconds, expected, "{value}"),
        }
    }

    #[test]
    fn go_durations_are_read() {
        check_go("1s", Some(1.0));
        check_go("0s", Some(0.0));
        check_go("6m0s", Some(360.0));
        check_go("2m59.56s", Some(179.56));
        check_go("20m52.666s", Some(1252.666));
        check_go("12ms", Some(0.012));
        check_go("577.5ms", Some(0.5775));
        check_go("17.399999999s", Some(17.399_999_999));
        check_go("1h2m3s", Some(3723.0));
        check_go("5µs", Some(5e-6));
        check_go("5us", Some(5e-6));
        check_go("5ns", Some(5e-9));
        for value in ["", "500", "-1s", "1d", "s", "1s2", "..s", "1.2.3s", "1 s", "∞s"] {
            check_go(value, None);
        }
    }

    #[test]
    fn times_are_read() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(rfc3339("2026-11-22T08:01:00Z"), at(1_795_334_460));
        assert_eq!(rfc3339("2026-11-22T09:01:00+01:00"), at(1_795_334_460));
        assert_eq!(rfc3339("tomorrow"), None);
        assert_eq!(epoch("1795334460000"), at(1_795_334_460));
        assert_eq!(epoch("1795334460"), at(1_795_334_460));
        for no_moment in ["-1", "0", "60", "500", "198300", "1795334460000000", &"9".repeat(60)] {
            assert_eq!(epoch(no_moment), None, "{no_moment}");
        }
        assert_eq!(protobuf_duration("37s"), Some(37.0));
        assert_eq!(protobuf_duration("0.123456789s"), Some(0.123_456_789));
        assert_eq!(protobuf_duration("37"), None);
    }

    #[test]
    fn shutdown_dates_are_days_or_times() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date("2026-12-11"), at(1_796_947_200));
        assert_eq!(date("2026-12-11T00:00:00Z"), at(1_796_947_200));
        assert_eq!(date("2026-12-11T02:00:00+02:00"), at(1_796_947_200));
        assert_eq!(date("2026-12-11T12:30:00.250Z").map(|_| ()), Some(()));
        for foreign in [
            "",
            "soon",
            "2026-13-01",
            "2026-12",
            "11.12.2026",
            "1796947200",
            "9999-12-31",
            "0001-01-01",
            "-",
            "null",
        ] {
            assert_eq!(date(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn counts_of_rate_limit_headers_are_read() {
        for (value, expected) in [
            ("60", Some(60)),
            ("0", Some(0)),
            ("60.0", Some(60)),
            ("60, 60;w=60", Some(60)),
            ("60;w=60", Some(60)),
            ("150000", Some(150_000)),
            ("59.5", None),
            ("-1", None),
            ("many", None),
            ("", None),
            (",60", None),
            ("1e3", None),
            ("99999999999999999", None),
        ] {
            assert_eq!(count(value), expected, "{value}");
        }
    }

    #[test]
    fn server_times_are_converted_and_never_past() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let minute = Duration::from_secs(60);
        let same = Clocks { now: date + Duration::from_millis(700), date: Some(date) };
        assert_eq!(same.ours(date + minute), Some(date + minute), "as it was sent");
        assert_eq!(same.ours(date - minute), Some(date));
        let hour = Duration::from_secs(3600);
        let ahead = Clocks { now: date + hour, date: Some(date) };
        assert_eq!(ahead.ours(date + minute), Some(date + hour + minute));
        assert_eq!(ahead.ours(date - minute), Some(date + hour));
        assert_eq!(ahead.offset(), Some(3600.0));
        assert!((ahead.until(date + minute) - 60.0).abs() < 1e-9);
        assert!(ahead.until(date - minute).abs() < 1e-9);
    }
}
