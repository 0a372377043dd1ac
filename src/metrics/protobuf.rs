//! The Prometheus protobuf format: delimited messages `io.prometheus.client.MetricFamily`.
//!
//! The messages have the fields that are used of `io/prometheus/client/metrics.proto` in
//! <https://github.com/prometheus/client_model>. Labels and the list of metrics are written by
//! hand, because the labels of a series are encoded once, and a family is larger than a message
//! should be in memory.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use prost::{Message, encode_length_delimiter, length_delimiter_len};

use super::{
    histogram::{EXEMPLAR_LABEL, Exemplar, NativeBuckets, Snapshot, ZERO_THRESHOLD},
    page::{Header, Kind},
};
use crate::pieces::Pieces;

/// Returns the first byte of a field of a type that has a length, by the number of the field.
const fn key(field: u8) -> u8 {
    field << 3 | 2
}

/// `Metric.label` and `Exemplar.label`.
const LABEL: u8 = key(1);
const LABEL_NAME: u8 = key(1);
const LABEL_VALUE: u8 = key(2);
/// `MetricFamily.metric`.
const METRIC: u8 = key(4);

/// A `MetricFamily` without its metrics.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FamilyHead {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) help: String,
    /// 0: counter, 1: gauge, 4: histogram.
    #[prost(int32, optional, tag = "3")]
    pub(super) kind: Option<i32>,
}

/// A `Metric` without its labels.
#[derive(Clone, PartialEq, Message)]
struct MetricValue {
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramValue>,
}

/// A `Gauge` or `Counter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Number {
    #[prost(double, optional, tag = "1")]
    pub(super) value: Option<f64>,
}

/// A `Histogram`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HistogramValue {
    #[prost(uint64, optional, tag = "1")]
    pub(super) sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<BucketValue>,
    #[prost(sint32, optional, tag = "5")]
    pub(super) schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub(super) zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    pub(super) positive_span: Vec<Span>,
    /// The number of each bucket minus that of the bucket before it.
    #[prost(sint64, repeated, tag = "13")]
    pub(super) positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    pub(super) created_timestamp: Option<Timestamp>,
}

/// A classic `Bucket`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BucketValue {
    #[prost(uint64, optional, tag = "1")]
    pub(super) cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) upper_bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    pub(super) exemplar: Option<ExemplarValue>,
}

/// A `BucketSpan`: consecutive buckets, and the number of empty ones before them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(sint32, optional, tag = "1")]
    pub(super) offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub(super) length: Option<u32>,
}

/// An `Exemplar`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExemplarValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<LabelPair>,
    #[prost(double, optional, tag = "2")]
    pub(super) value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    pub(super) timestamp: Option<Timestamp>,
}

/// A `LabelPair`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelPair {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

/// A `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since_epoch.as_secs().cast_signed(), nanos: since_epoch.subsec_nanos().cast_signed() }
    }
}

/// Writes a label as a field of a metric.
pub(super) fn write_label(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let field_len = |text: &str| 1 + length_delimiter_len(text.len()) + text.len();
    write_key(bytes, LABEL, field_len(name) + field_len(value));
    for (key, text) in [(LABEL_NAME, name), (LABEL_VALUE, value)] {
        write_key(bytes, key, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
}

fn write_key(bytes: &mut Vec<u8>, key: u8, length: usize) {
    bytes.push(key);
    encode_length_delimiter(length, bytes).expect("a Vec takes every write");
}

/// Writes the value of a counter or gauge as a field of a metric.
pub(super) fn write_number(bytes: &mut Vec<u8>, kind: Kind, value: f64) {
    let number = Some(Number { value: Some(value) });
    let value = match kind {
        Kind::Counter => MetricValue { counter: number, ..MetricValue::default() },
        Kind::Gauge | Kind::Histogram => MetricValue { gauge: number, ..MetricValue::default() },
    };
    value.encode(bytes).expect("a Vec takes every write");
}

/// Writes a histogram as a field of a metric.
pub(super) fn write_histogram(bytes: &mut Vec<u8>, snapshot: &Snapshot<'_>) {
    let histogram = Some(HistogramValue::from(snapshot));
    MetricValue { histogram, ..MetricValue::default() }.encode(bytes).expect("a Vec takes every write");
}

/// Appends a metric to those of its family.
pub(super) fn append_metric(metrics: &mut Pieces, metric: &[u8]) -> io::Result<()> {
    let mut head = [METRIC; 11];
    let mut rest = &mut head[1..];
    encode_length_delimiter(metric.len(), &mut rest).expect("ten bytes are sufficient for every length");
    let length = 11 - rest.len();
    metrics.write_all(&head[..length])?;
    metrics.write_all(metric)
}

/// Writes a family with its metrics.
pub(super) fn write_family(out: &mut dyn Write, header: &Header, metrics: &Pieces) -> io::Result<()> {
    let kind = match header.kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Histogram => 4,
    };
    let head = FamilyHead { name: header.name.to_owned(), help: header.help.to_owned(), kind: Some(kind) };
    let mut bytes = Vec::new();
    encode_length_delimiter(head.encoded_len() + metrics.bytes(), &mut bytes)
        .and_then(|()| head.encode(&mut bytes))
        .expect("a Vec takes every write");
    out.write_all(&bytes)?;
    metrics.iter().try_for_each(|piece| out.write_all(piece))
}

impl From<&Snapshot<'_>> for HistogramValue {
    fn from(snapshot: &Snapshot<'_>) -> Self {
        let native = snapshot.native();
        let (positive_span, positive_delta) = spans(native);
        // Prometheus requires the exemplars of a native histogram in order of time, and 2.42 does
        // not sort them.
        let latest = snapshot.latest_exemplar();
        Self {
            sample_count: Some(snapshot.count()),
            sample_sum: Some(snapshot.sum()),
            bucket: snapshot
                .buckets()
                .map(|bucket| BucketValue {
                    cumulative_count: Some(bucket.cumulative),
                    upper_bound: Some(bucket.bound),
                    exemplar: bucket.exemplar.filter(|found| Some(*found) == latest).map(ExemplarValue::from),
                })
                .collect(),
            schema: Some(native.schema.into()),
            zero_threshold: Some(ZERO_THRESHOLD),
            zero_count: Some(native.zero),
            positive_span,
            positive_delta,
            created_timestamp: Some(snapshot.created.into()),
        }
    }
}

impl From<&Exemplar> for ExemplarValue {
    fn from(Exemplar { request_id, value, time }: &Exemplar) -> Self {
        let label = LabelPair { name: Some(EXEMPLAR_LABEL.to_owned()), value: Some(request_id.to_string()) };
        Self { label: vec![label], value: Some(*value), timestamp: Some((*time).into()) }
    }
}

/// Returns the spans of the buckets that are not empty, and the differences of their numbers.
fn spans(native: &NativeBuckets) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<Span>::new(), Vec::new());
    // The index after the previous bucket, which is 0 before the first.
    let (mut next, mut previous) = (0, 0);
    for &(index, count) in &native.counts {
        let offset = i32::from(index) - next;
        match spans.last_mut() {
            Some(Span { length: Some(length), .. }) if offset == 0 => *length += 1,
            _ => spans.push(Span { offset: Some(offset), length: Some(1) }),
        }
        let count = count.cast_signed();
        deltas.push(count - previous);
        (next, previous) = (i32::from(index) + 1, count);
    }
    (spans, deltas)
}
