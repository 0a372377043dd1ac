//! The text formats: Prometheus 0.0.4 and `OpenMetrics` 1.0.

use std::io::Write;

use super::{
    histogram::{EXEMPLAR_LABEL, Exemplar},
    page::{Format, Header, Kind},
};
use crate::outcome::unix_seconds;

/// Writes help and type of a family. In `OpenMetrics`, the name of a counter's family lacks the
/// `_total` of its samples.
pub(super) fn write_head(bytes: &mut Vec<u8>, header: &Header, format: Format) {
    let Header { mut name, kind, help, .. } = *header;
    if (kind, format) == (Kind::Counter, Format::OpenMetrics) {
        name = name.strip_suffix("_total").unwrap_or(name);
    }
    let kind = kind.name();
    writeln!(bytes, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a Vec takes every write");
}

/// Writes the rendered labels of a subject and further ones, in braces if there are any.
pub(super) fn write_labels<'a>(
    bytes: &mut Vec<u8>,
    subject: &str,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    let mut separator = b'{';
    if !subject.is_empty() {
        bytes.push(separator);
        bytes.extend_from_slice(subject.as_bytes());
        separator = b',';
    }
    for (name, value) in labels {
        bytes.push(separator);
        write_label(bytes, name, value);
        separator = b',';
    }
    if separator == b',' {
        bytes.push(b'}');
    }
}

pub(super) fn write_label(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"=\"");
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(match rest[at] {
            b'\\' => br"\\",
            b'"' => br#"\""#,
            _ => br"\n",
        });
        rest = &rest[at + 1..];
    }
    bytes.extend_from_slice(rest);
    bytes.push(b'"');
}

/// Writes the start of a bucket's line, up to the value of `le`.
pub(super) fn write_bucket_start(bytes: &mut Vec<u8>, family: &str, subject: &str) {
    bytes.extend_from_slice(family.as_bytes());
    bytes.extend_from_slice(b"_bucket{");
    if !subject.is_empty() {
        bytes.extend_from_slice(subject.as_bytes());
        bytes.push(b',');
    }
    bytes.extend_from_slice(b"le=\"");
}

/// Writes an exemplar behind a sample of `OpenMetrics`.
pub(super) fn write_exemplar(bytes: &mut Vec<u8>, exemplar: &Exemplar) {
    bytes.extend_from_slice(b" # ");
    write_labels(bytes, "", [(EXEMPLAR_LABEL, &*exemplar.request_id)]);
    for number in [exemplar.value, unix_seconds(exemplar.time)] {
        bytes.push(b' ');
        write_number(bytes, number);
    }
}

/// Writes a number. Most values are integers, which are written several times faster as such.
pub(super) fn write_number(bytes: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: smaller integers are exact
    if value.fract() == 0.0 && (0.0..EXACT).contains(&value) {
        write_integer(bytes, value as u64);
    } else if value.is_infinite() {
        bytes.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else {
        write!(bytes, "{value}").expect("a Vec takes every write");
    }
}

/// Writes an integer in decimal.
pub(super) fn write_integer(bytes: &mut Vec<u8>, value: u64) {
    const MAX_DIGITS: usize = u64::MAX.ilog10() as usize + 1;
    let mut digits = [0; MAX_DIGITS];
    let (mut start, mut rest) = (MAX_DIGITS, value);
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f64, expected: &str) {
        let mut bytes = Vec::new();
        write_number(&mut bytes, value);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn numbers_are_exact() {
        check(0.0, "0");
        check(-0.0, "0");
        check(10.0, "10");
        check(429.0, "429");
        check(9_007_199_254_740_991.0, "9007199254740991");
        check(9_007_199_254_740_992.0, "9007199254740992");
        check(1e21, "1000000000000000000000");
        check(0.1, "0.1");
        check(-3.0, "-3");
        check(1_795_334_460.123_456, "1795334460.123456");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
    }

    #[test]
    fn labels_are_escaped() {
        let mut bytes = Vec::new();
        write_labels(
            &mut bytes,
            "x=\"y\"",
            [("a", "back\\slash"), ("b", "quo\"te"), ("c", "line\nfeed"), ("d", "ü")],
        );
        assert_eq!(bytes, r#"{x="y",a="back\\slash",b="quo\"te",c="line\nfeed",d="ü"}"#.as_bytes());
    }
}
