//! Pages in the formats of Prometheus: families, their samples and the labels of these.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use super::{histogram::Histogram, protobuf, text};
use crate::{outcome::unix_seconds, pieces::Pieces};

/// Format of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The text format 0.0.4.
    Text,
    /// `OpenMetrics` 1.0: text with exemplars.
    OpenMetrics,
    /// Delimited protobuf messages, with native histograms and exemplars.
    Protobuf,
}

impl Format {
    /// All formats, the default first.
    pub const ALL: &[Self] = &[Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Returns the media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

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
    /// One or two sentences, without backslash, line feed and quotes, which would need escaping.
    pub(super) help: &'static str,
}

/// Labels, rendered once for all samples of a series.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    text: String,
    protobuf: Vec<u8>,
}

static NO_LABELS: Labels = Labels { text: String::new(), protobuf: Vec::new() };

impl Labels {
    pub(super) fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut text, mut protobuf) = (Vec::new(), Vec::new());
        for (name, value) in pairs {
            if !text.is_empty() {
                text.push(b',');
            }
            text::write_label(&mut text, name, value);
            protobuf::write_label(&mut protobuf, name, value);
        }
        let text = String::from_utf8(text).expect("strings joined by ASCII are a string");
        Self { text, protobuf }
    }
}

/// Size from which the bytes of a page are passed on.
const BUFFER_BYTES: usize = 64 << 10;

/// A page being written. The samples of a family follow its [`Page::family`].
pub(super) struct Page<'a> {
    /// Time of the page.
    pub(super) now: SystemTime,
    format: Format,
    out: &'a mut dyn Write,
    /// The bytes that have not been passed on.
    bytes: Vec<u8>,
    /// The metrics of the family in protobuf, which begins with its length.
    metrics: Pieces,
    /// The first error of a write.
    result: io::Result<()>,
    family: Option<&'static Header>,
    /// Whether the family has a sample. The header is written before the first one, so that a
    /// family without samples is omitted.
    begun: bool,
    /// Labels of the subject of the next samples.
    subject: &'a Labels,
}

impl<'a> Page<'a> {
    /// Creates an empty page.
    pub(super) fn new(now: SystemTime, format: Format, out: &'a mut dyn Write) -> Self {
        Self {
            now,
            format,
            out,
            bytes: Vec::with_capacity(2 * BUFFER_BYTES),
            metrics: Pieces::default(),
            result: Ok(()),
            family: None,
            begun: false,
            subject: &NO_LABELS,
        }
    }

    /// Begins a family.
    pub(super) fn family(&mut self, header: &'static Header) {
        self.end_family();
        (self.family, self.begun, self.subject) = (Some(header), false, &NO_LABELS);
    }

    /// Sets the labels of the following samples: those of a probe, pool or comparison.
    pub(super) fn subject(&mut self, labels: &'a Labels) {
        self.subject = labels;
    }

    /// Writes a sample without labels of its own, unless the value is `None`.
    pub(super) fn value(&mut self, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.sample(self.subject, [], value);
        }
    }

    /// Writes a sample with values for the labels of the family.
    pub(super) fn each<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        let names = self.family.map_or(&[][..], |family| family.labels);
        debug_assert_eq!(names.len(), N, "labels of {:?}", self.family);
        self.sample(self.subject, names.iter().copied().zip(labels), value);
    }

    /// Writes an info metric with these labels.
    pub(super) fn info(&mut self, labels: &Labels) {
        self.sample(labels, [], 1.0);
    }

    /// Writes the samples of a histogram.
    pub(super) fn histogram(&mut self, histogram: &Histogram) {
        match self.format {
            Format::Protobuf => self.metric(self.subject, [], |bytes, _| {
                protobuf::write_histogram(bytes, &histogram.snapshot());
            }),
            Format::Text | Format::OpenMetrics => self.classic_histogram(histogram),
        }
    }

    fn classic_histogram(&mut self, histogram: &Histogram) {
        let Some(family) = self.begun_family() else { return };
        let is_open = self.format == Format::OpenMetrics;
        let bytes = &mut self.bytes;
        // The lines of buckets, which are most of a page, begin with this.
        let mut start = Vec::new();
        text::write_bucket_start(&mut start, family.name, &self.subject.text);
        let snapshot = histogram.snapshot();
        for bucket in snapshot.buckets() {
            bytes.extend_from_slice(&start);
            bytes.extend_from_slice(bucket.label.as_bytes());
            // OpenMetrics writes the bound 1 as 1.0.
            if is_open && bucket.label.bytes().all(|byte| byte.is_ascii_digit()) {
                bytes.extend_from_slice(b".0");
            }
            bytes.extend_from_slice(b"\"} ");
            text::write_integer(bytes, bucket.cumulative);
            if let Some(exemplar) = bucket.exemplar.filter(|_| is_open) {
                text::write_exemplar(bytes, exemplar);
            }
            bytes.push(b'\n');
        }
        let (sum, count, created) = (snapshot.sum(), snapshot.count(), snapshot.created);
        // Observations do not wait for the output of the lines.
        drop(snapshot);
        let mut line = |suffix, value| self.line(self.subject, [], suffix, value);
        line("_sum", sum);
        line("_count", count as f64);
        if is_open {
            line("_created", unix_seconds(created));
        }
    }

    /// Ends the page. Returns the first error of the output.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end_family();
        if self.format == Format::OpenMetrics {
            self.bytes.extend_from_slice(b"# EOF\n");
        }
        self.flush();
        self.result
    }

    fn sample<'b>(
        &mut self,
        subject: &Labels,
        labels: impl IntoIterator<Item = (&'b str, &'b str)>,
        value: f64,
    ) {
        match self.format {
            Format::Protobuf => {
                self.metric(subject, labels, |bytes, kind| protobuf::write_number(bytes, kind, value));
            }
            Format::Text | Format::OpenMetrics => {
                self.line(subject, labels, "", value);
            }
        }
    }

    /// Writes a line of a text format.
    fn line<'b>(
        &mut self,
        subject: &Labels,
        labels: impl IntoIterator<Item = (&'b str, &'b str)>,
        suffix: &'static str,
        value: f64,
    ) {
        let Some(family) = self.begun_family() else { return };
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(family.name.as_bytes());
        bytes.extend_from_slice(suffix.as_bytes());
        text::write_labels(bytes, &subject.text, labels);
        bytes.push(b' ');
        text::write_number(bytes, value);
        bytes.push(b'\n');
        if bytes.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Returns the family, whose head is written before its first line in a text format.
    fn begun_family(&mut self) -> Option<&'static Header> {
        let family = self.family?;
        if !self.begun {
            self.begun = true;
            text::write_head(&mut self.bytes, family, self.format);
        }
        Some(family)
    }

    /// Adds a metric to those of the family.
    fn metric<'b>(
        &mut self,
        subject: &Labels,
        labels: impl IntoIterator<Item = (&'b str, &'b str)>,
        write_value: impl FnOnce(&mut Vec<u8>, Kind),
    ) {
        let Some(family) = self.family else { return };
        self.begun = true;
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(&subject.protobuf);
        for (name, value) in labels {
            protobuf::write_label(bytes, name, value);
        }
        write_value(bytes, family.kind);
        if self.result.is_ok() {
            self.result = protobuf::append_metric(&mut self.metrics, bytes);
        }
        bytes.clear();
    }

    fn end_family(&mut self) {
        let Some(family) = self.family.filter(|_| self.begun && self.format == Format::Protobuf) else {
            return;
        };
        if self.result.is_ok() {
            self.result = protobuf::write_family(self.out, family, &self.metrics);
        }
        self.metrics = Pieces::default();
    }

    fn flush(&mut self) {
        if self.result.is_ok() {
            self.result = self.out.write_all(&self.bytes);
        }
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// Returns what is written as text.
    fn written(write: impl FnOnce(&mut Page<'_>)) -> String {
        let mut text = Vec::new();
        let mut page = Page::new(NOW, Format::Text, &mut text);
        write(&mut page);
        page.finish().unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn family_without_samples_is_omitted() {
        let labels = Labels::new([("x", "y")]);
        let mut text = Vec::new();
        let mut page = Page::new(NOW, Format::Text, &mut text);
        page.family(&Header { name: "silent", kind: Kind::Gauge, labels: &[], help: "Nothing." });
        page.value(None);
        page.family(&Header { name: "spoken", kind: Kind::Counter, labels: &["a"], help: "Something." });
        page.value(1.0);
        page.each(["b"], 2.0);
        page.subject(&labels);
        page.each(["b"], 3.0);
        page.finish().unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "# HELP spoken Something.\n# TYPE spoken counter\nspoken 1\nspoken{a=\"b\"} 2\nspoken{x=\"y\",a=\"b\"} 3\n"
        );
    }

    #[test]
    fn histogram_ends_with_its_count() {
        let histogram = Histogram::new(&[(1.0, "1")]);
        for value in [0.5, 2.0] {
            histogram.observe(value, NOW, Some("not in this format"));
        }
        let text = written(|page| {
            page.family(&Header { name: "h", kind: Kind::Histogram, labels: &[], help: "H." });
            page.histogram(&histogram);
        });
        let samples: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(samples, ["h_bucket{le=\"1\"} 1", "h_bucket{le=\"+Inf\"} 2", "h_sum 2.5", "h_count 2"]);
    }

    /// An output that accepts a number of bytes.
    struct Limited(usize);

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn error_of_output_ends_the_page() {
        const HEADER: Header = Header { name: "many", kind: Kind::Gauge, labels: &[], help: "Many." };
        for format in Format::ALL {
            for (limit, is_written) in [(10 * BUFFER_BYTES, true), (3, false), (BUFFER_BYTES + 4096, false)] {
                let mut out = Limited(limit);
                let mut page = Page::new(NOW, *format, &mut out);
                page.family(&HEADER);
                for _ in 0..20_000 {
                    page.value(1.0);
                }
                assert_eq!(page.finish().is_ok(), is_written, "{format:?} {limit}");
            }
        }
    }
}
