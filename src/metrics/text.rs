//! The Prometheus text format 0.0.4.

use std::{io::Write, time::SystemTime};

use super::values::Histogram;

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Name, type and help text of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// One sentence, without backslash or line feed, which would need escaping.
    pub(super) help: &'static str,
}

/// A page being written. The samples of a family follow its [`Page::family`].
#[derive(Debug)]
pub(super) struct Page {
    /// Time of the page.
    pub(super) now: SystemTime,
    bytes: Vec<u8>,
    family: &'static str,
    /// Header that is written before the first sample, so that a family without samples is omitted.
    header: Option<Header>,
}

impl Page {
    /// Creates an empty page with a capacity in bytes.
    pub(super) fn new(now: SystemTime, capacity: usize) -> Self {
        Self { now, bytes: Vec::with_capacity(capacity), family: "", header: None }
    }

    /// Begins a family.
    pub(super) fn family(&mut self, header: Header) {
        self.family = header.name;
        self.header = Some(header);
    }

    /// Writes a sample with the rendered labels of a series.
    pub(super) fn sample(&mut self, labels: &str, value: f64) {
        self.line("", labels, &[], value);
    }

    /// Writes a sample with additional labels.
    pub(super) fn labelled(&mut self, labels: &str, more: &[(&str, &str)], value: f64) {
        self.line("", labels, more, value);
    }

    /// Writes the samples of a histogram.
    pub(super) fn histogram(&mut self, labels: &str, histogram: &Histogram) {
        let mut count = 0;
        for (bound, cumulative) in histogram.cumulative() {
            count = cumulative;
            self.line("_bucket", labels, &[("le", bound)], cumulative as f64);
        }
        self.line("_sum", labels, &[], histogram.sum());
        self.line("_count", labels, &[], count as f64);
    }

    /// Appends families that are already in the format.
    pub(super) fn append(&mut self, families: &[u8]) {
        self.bytes.extend_from_slice(families);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn line(&mut self, suffix: &str, labels: &str, more: &[(&str, &str)], value: f64) {
        if let Some(header) = self.header.take() {
            self.head(header);
        }
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(self.family.as_bytes());
        bytes.extend_from_slice(suffix.as_bytes());
        if !(labels.is_empty() && more.is_empty()) {
            bytes.push(b'{');
            bytes.extend_from_slice(labels.as_bytes());
            for (index, (name, text)) in more.iter().enumerate() {
                if index > 0 || !labels.is_empty() {
                    bytes.push(b',');
                }
                write_label(bytes, name, text);
            }
            bytes.push(b'}');
        }
        bytes.push(b' ');
        write_number(bytes, value);
        bytes.push(b'\n');
    }

    fn head(&mut self, Header { name, kind, help }: Header) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        writeln!(self.bytes, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a Vec takes every write");
    }
}

/// Renders labels once, for all samples of a series.
pub(super) fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut bytes = Vec::new();
    for (index, (name, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        write_label(&mut bytes, name, value);
    }
    String::from_utf8(bytes).expect("strings joined by ASCII are a string")
}

fn write_label(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"=\"");
    for &byte in value.as_bytes() {
        match byte {
            b'\\' => bytes.extend_from_slice(br"\\"),
            b'"' => bytes.extend_from_slice(br#"\""#),
            b'\n' => bytes.extend_from_slice(br"\n"),
            _ => bytes.push(byte),
        }
    }
    bytes.push(b'"');
}

/// Writes a number. Most values are integers, which are written several times faster as such.
fn write_number(bytes: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: smaller integers are exact
    if value.fract() == 0.0 && (0.0..EXACT).contains(&value) {
        let mut digits = [0; 16];
        let mut start = digits.len();
        let mut rest = value as u64;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        bytes.extend_from_slice(&digits[start..]);
    } else if value.is_infinite() {
        bytes.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else {
        write!(bytes, "{value}").expect("a Vec takes every write");
    }
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
        let rendered = labels([("a", "back\\slash"), ("b", "quo\"te"), ("c", "line\nfeed"), ("d", "ü")]);
        assert_eq!(rendered, r#"a="back\\slash",b="quo\"te",c="line\nfeed",d="ü""#);
    }

    #[test]
    fn family_without_samples_is_omitted() {
        let mut page = Page::new(SystemTime::UNIX_EPOCH, 0);
        page.family(Header { name: "silent", kind: Kind::Gauge, help: "Nothing." });
        page.family(Header { name: "spoken", kind: Kind::Counter, help: "Something." });
        page.sample("", 1.0);
        page.labelled("", &[("a", "b")], 2.0);
        page.labelled("x=\"y\"", &[("a", "b")], 3.0);
        let text = String::from_utf8(page.into_bytes()).unwrap();
        assert_eq!(
            text,
            "# HELP spoken Something.\n# TYPE spoken counter\nspoken 1\nspoken{a=\"b\"} 2\nspoken{x=\"y\",a=\"b\"} 3\n"
        );
    }

    #[test]
    fn histogram_ends_with_its_count() {
        let histogram = Histogram::new(&[(1.0, "1")]);
        histogram.observe(0.5);
        histogram.observe(2.0);
        let mut page = Page::new(SystemTime::UNIX_EPOCH, 0);
        page.family(Header { name: "h", kind: Kind::Histogram, help: "H." });
        page.histogram("", &histogram);
        let text = String::from_utf8(page.into_bytes()).unwrap();
        let samples: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(samples, ["h_bucket{le=\"1\"} 1", "h_bucket{le=\"+Inf\"} 2", "h_sum 2.5", "h_count 2"]);
    }
}
