//! Durations and sizes in the configuration's notation: integers with units, such as `1h30m` and
//! `100MiB`.

use std::time::Duration;

/// The units of a duration in their order, with the milliseconds of each.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The units of a size, with the bytes of each.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Parses a duration. Fractions are rejected, because a smaller unit is exact.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text.contains(['.', ',']) {
        return Err("has a fraction; use whole numbers of smaller units, such as \"1s500ms\"".to_owned());
    }
    let malformed =
        || "is not a duration; use whole numbers with a unit: \"500ms\", \"30s\", \"5m\", \"1h30m\", \"7d\"";
    let mut rest = text;
    let mut milliseconds: u64 = 0;
    let mut units = DURATION_UNITS.iter();
    while !rest.is_empty() {
        let (number, unit, behind) = leading_quantity(rest).ok_or_else(malformed)?;
        // The iterator continues after the previous unit, so that units are unique and in order.
        let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        milliseconds = number
            .checked_mul(*factor)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or("is longer than any allowed duration")?;
        rest = behind;
    }
    if text.is_empty() {
        return Err(malformed().to_owned());
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Formats a duration in the shortest notation. Parts below a millisecond are omitted.
pub fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, factor) in DURATION_UNITS {
        if rest >= factor {
            parts.push(format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// Parses a size in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    leading_quantity(text)
        .filter(|(_, _, behind)| behind.is_empty())
        .and_then(|(number, unit, _)| {
            let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
            number.checked_mul(*factor)
        })
        .ok_or_else(|| {
            "is not a size; use a whole number with a unit: \"512KiB\", \"100MiB\", \"1GiB\"".to_owned()
        })
}

/// Splits the text into the leading number, its unit and the rest.
fn leading_quantity(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, behind) = text.split_at(digits);
    let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
    let (unit, rest) = behind.split_at(letters);
    // Parsing fails only on overflow; the maximum exceeds every allowed value.
    (!number.is_empty()).then(|| (number.parse().unwrap_or(u64::MAX), unit, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, milliseconds: Option<u64>) {
        assert_eq!(parse(text).ok(), milliseconds.map(Duration::from_millis), "{text:?}: {:?}", parse(text));
    }

    #[test]
    fn durations_are_whole_numbers_with_units() {
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("1h30m", Some(5_400_000));
        check("7d", Some(604_800_000));
        check("1d1h", Some(90_000_000));
        check("1m5ms", Some(60_005));
        check("0s", Some(0));
    }

    #[test]
    fn malformed_duration_is_rejected() {
        for text in [
            "",
            "5",
            "s",
            "1.5h",
            "1,5h",
            "-5s",
            "+5s",
            " 5s",
            "5 s",
            "5s ",
            "5S",
            "5min",
            "30m1h",
            "5s5s",
            "1h1d",
            "0x5s",
            "٣s",
            "18446744073709551616s",
            "18446744073709551615h",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn overlong_duration_has_its_own_message() {
        for text in ["99999999999999999999h", "18446744073709551615h", "5m18446744073709551616ms"] {
            assert_eq!(parse(text).unwrap_err(), "is longer than any allowed duration", "{text}");
        }
    }

    #[test]
    fn duration_is_formatted_in_shortest_form() {
        assert_eq!(format(Duration::ZERO), "0s");
        assert_eq!(format(Duration::from_secs(60)), "1m");
        assert_eq!(format(Duration::from_secs(5_430)), "1h30m30s");
        assert_eq!(format(Duration::from_millis(1_500)), "1s500ms");
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(parse_size("100MiB"), Ok(104_857_600));
        assert_eq!(parse_size("4kB"), Ok(4_000));
        for text in ["", "100", "100M", "MiB", "1.5GiB", "100MiB ", "1MiB1KiB", "18446744073709551615KiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn formatted_duration_parses_to_itself(milliseconds in 0..u64::MAX / 2) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "\\PC{0,12}|[0-9]{0,22}[hms]{0,3}[0-9]{0,3}[hms]{0,3}") {
            let _ = parse(&text);
            let _ = parse_size(&text);
        }
    }
}
