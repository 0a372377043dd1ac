//! The Prometheus text format 0.0.4.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use super::values::Histogram;

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Name, type, labels and help text of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Names of the labels that its samples have in addition to those of their subject.
    pub(super) labels: &'static [&'static str],
    /// One or two sentences, without backslash or line feed, which would need escaping.
    pub(super) help: &'static str,
}

/// Size from which the bytes of a page are passed on.
const BUFFER_BYTES: usize = 64 << 10;

/// A page being written. The samples of a family follow its [`Page::family`].
pub(super) struct Page<'a> {
    /// Time of the page.
    pub(super) now: SystemTime,
    out: &'a mut dyn Write,
    /// The bytes that have not been passed on.
    bytes: Vec<u8>,
    /// The first error of `out`.
    result: io::Result<()>,
    family: Option<&'static Header>,
    /// Whether the family has a sample. The header is written before the first one, so that a
    /// family without samples is omitted.
    begun: bool,
    /// Rendered labels of the subject of the next samples.
    subject: &'a str,
}

impl<'a> Page<'a> {
    /// Creates an empty page.
    pub(super) fn new(now: SystemTime, out: &'a mut dyn Write) -> Self {
        let bytes = Vec::with_capacity(2 * BUFFER_BYTES);
        Self { now, out, bytes, result: Ok(()), family: None, begun: false, subject: "" }
    }

    /// Begins a family.
    pub(super) fn family(&mut self, header: &'static Header) {
        (self.family, self.begun, self.subject) = (Some(header), false, "");
    }

    /// Sets the rendered labels of the following samples: those of a probe, pool or comparison.
    pub(super) fn subject(&mut self, labels: &'a str) {
        self.subject = labels;
    }

    /// Writes a sample without labels of its own, unless the value is `None`.
    pub(super) fn value(&mut self, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.line("", self.subject, [], value);
        }
    }

    /// Writes a sample with values for the labels of the family.
    pub(super) fn each<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        let names = self.family.map_or(&[][..], |family| family.labels);
        debug_assert_eq!(names.len(), N, "labels of {:?}", self.family);
        self.line("", self.subject, names.iter().copied().zip(labels), value);
    }

    /// Writes an info metric with these rendered labels.
    pub(super) fn info(&mut self, labels: &str) {
        self.line("", labels, [], 1.0);
    }

    /// Writes the samples of a histogram.
    pub(super) fn histogram(&mut self, histogram: &Histogram) {
        let mut count = 0;
        for (bound, cumulative) in histogram.cumulative() {
            count = cumulative;
            self.line("_bucket", self.subject, [("le", bound)], cumulative as f64);
        }
        self.line("_sum", self.subject, [], histogram.sum());
        self.line("_count", self.subject, [], count as f64);
    }

    /// Passes the rest on. Returns the first error of the output.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush();
        self.result
    }

    fn flush(&mut self) {
        if self.result.is_ok() {
            self.result = self.out.write_all(&self.bytes);
        }
        self.bytes.clear();
    }

    fn line<'b>(
        &mut self,
        suffix: &str,
        subject: &str,
        labels: impl IntoIterator<Item = (&'b str, &'b str)>,
        value: f64,
    ) {
        let Some(family) = self.family else { return };
        if !self.begun {
            self.begun = true;
            self.head(family);
        }
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(family.name.as_bytes());
        bytes.extend_from_slice(suffix.as_bytes());
        let mut separator = b'{';
        if !subject.is_empty() {
            bytes.push(separator);
            bytes.extend_from_slice(subject.as_bytes());
            separator = b',';
        }
        for (name, text) in labels {
            bytes.push(separator);
            write_label(bytes, name, text);
            separator = b',';
        }
        if separator == b',' {
            bytes.push(b'}');
        }
        bytes.push(b' ');
        write_number(bytes, value);
        bytes.push(b'\n');
        if bytes.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn head(&mut self, Header { name, kind, help, .. }: &Header) {
        let kind = kind.name();
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
        let mut text = Vec::new();
        let mut page = Page::new(SystemTime::UNIX_EPOCH, &mut text);
        page.family(&Header { name: "silent", kind: Kind::Gauge, labels: &[], help: "Nothing." });
        page.value(None);
        page.family(&Header { name: "spoken", kind: Kind::Counter, labels: &["a"], help: "Something." });
        page.value(1.0);
        page.each(["b"], 2.0);
        page.subject("x=\"y\"");
        page.each(["b"], 3.0);
        page.finish().unwrap();
        let text = String::from_utf8(text).unwrap();
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
        let mut text = Vec::new();
        let mut page = Page::new(SystemTime::UNIX_EPOCH, &mut text);
        page.family(&Header { name: "h", kind: Kind::Histogram, labels: &[], help: "H." });
        page.histogram(&histogram);
        page.finish().unwrap();
        let text = String::from_utf8(text).unwrap();
        let samples: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(samples, ["h_bucket{le=\"1\"} 1", "h_bucket{le=\"+Inf\"} 2", "h_sum 2.5", "h_count 2"]);
    }
}
