//! Tests of the formats of the page: each has the samples of the others.

use std::{fmt::Write, time::SystemTime};

use prost::Message;

use super::{
    Format, Metrics,
    document::whole,
    families::FAMILIES,
    page::Kind,
    protobuf::{FamilyHead, HistogramValue, LabelPair, Number},
    testing::page_in,
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A `MetricFamily`.
#[derive(Clone, PartialEq, Message)]
struct Family {
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramValue>,
}

/// Returns the lines of a page except those of the process, whose values change.
fn lines(page: &str) -> Vec<String> {
    page.lines().filter(|line| !line.contains("process_")).map(str::to_owned).collect()
}

#[track_caller]
fn check_lines(found: &[String], expected: &[String]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

fn text(metrics: &Metrics) -> Vec<String> {
    lines(&page_in(metrics, NOW, Format::Text))
}

fn protobuf(metrics: &Metrics) -> Vec<(FamilyHead, Family)> {
    let mut page = Vec::new();
    metrics.render(NOW, Format::Protobuf, &mut page).unwrap();
    let mut rest = &page[..];
    let mut families = Vec::new();
    while !rest.is_empty() {
        let length = prost::decode_length_delimiter(&mut rest).unwrap();
        let (message, more) = rest.split_at(length);
        families.push((FamilyHead::decode(message).unwrap(), Family::decode(message).unwrap()));
        rest = more;
    }
    families
}

/// Returns the labels as the text format has them.
fn labels(pairs: &[LabelPair], le: Option<f64>) -> String {
    let pair = |pair: &LabelPair| {
        let value = pair.value.as_ref().unwrap().replace('\\', "\\\\").replace('"', "\\\"");
        format!("{}=\"{value}\"", pair.name.as_ref().unwrap())
    };
    let bound = |le: f64| if le.is_infinite() { "le=\"+Inf\"".to_owned() } else { format!("le=\"{le}\"") };
    let pairs: Vec<String> = pairs.iter().map(pair).chain(le.map(bound)).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

#[test]
fn protobuf_has_the_samples_of_the_text() {
    let metrics = whole();
    let mut page = String::new();
    for (FamilyHead { name, help, kind }, Family { metric }) in protobuf(&metrics) {
        let kind = ["counter", "gauge", "", "", "histogram"][kind.unwrap() as usize];
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap();
        for Metric { label, gauge, counter, histogram } in metric {
            let own = labels(&label, None);
            let number = match kind {
                "counter" => counter,
                "gauge" => gauge,
                _ => None,
            };
            if let Some(value) = number {
                writeln!(page, "{name}{own} {}", value.value.unwrap()).unwrap();
            }
            let Some(histogram) = histogram else { continue };
            for bucket in &histogram.bucket {
                let own = labels(&label, bucket.upper_bound);
                writeln!(page, "{name}_bucket{own} {}", bucket.cumulative_count.unwrap()).unwrap();
            }
            writeln!(page, "{name}_sum{own} {}", histogram.sample_sum.unwrap()).unwrap();
            writeln!(page, "{name}_count{own} {}", histogram.sample_count.unwrap()).unwrap();
        }
    }
    check_lines(&lines(&page), &text(&metrics));
}

#[test]
fn native_buckets_have_the_count_of_the_histogram() {
    let mut histograms = 0;
    for (_, Family { metric }) in protobuf(&whole()) {
        for histogram in metric.into_iter().filter_map(|metric| metric.histogram) {
            let HistogramValue { positive_span, positive_delta, zero_count, sample_count, .. } = histogram;
            let counts = positive_delta.iter().scan(0, |count, delta| {
                *count += delta;
                Some(*count)
            });
            let sum: i64 = counts.sum();
            assert_eq!(sum.cast_unsigned() + zero_count.unwrap(), sample_count.unwrap());
            let spanned: u32 = positive_span.iter().map(|span| span.length.unwrap()).sum();
            assert_eq!(spanned as usize, positive_delta.len());
            // Prometheus recognizes a native histogram by its threshold.
            assert!(histogram.zero_threshold.unwrap() > 0.0 && histogram.schema.is_some());
            assert!(histogram.created_timestamp.unwrap().seconds > 0);
            histograms += usize::from(sample_count.unwrap() > 1);
        }
    }
    assert!(histograms > 3, "{histograms} histograms have values");
}

#[test]
fn open_metrics_is_the_text_in_its_own_form() {
    let metrics = whole();
    let page = page_in(&metrics, NOW, Format::OpenMetrics);
    assert!(page.ends_with("\n# EOF\n") && page.matches("# EOF").count() == 1);
    let mut exemplars = 0;
    let mut found = Vec::new();
    for line in lines(&page).into_iter().filter(|line| !line.contains("_created") && line != "# EOF") {
        let sample = line.split_once(" # ").map_or(line.as_str(), |(sample, exemplar)| {
            exemplars += 1;
            assert!(exemplar.starts_with("{request_id=\"canary-id\"} "), "{line}");
            assert!(exemplar.ends_with(" 50"), "the start of the run: {line}");
            assert!(sample.contains("_bucket{"), "{line}");
            sample
        });
        found.push(sample.to_owned());
    }
    assert!(exemplars > 3);
    let counters: Vec<&str> = FAMILIES
        .iter()
        .filter(|family| family.header.kind == Kind::Counter)
        .map(|family| family.header.name.strip_suffix("_total").unwrap())
        .collect();
    let expected = text(&metrics).into_iter().map(|line| {
        let bucket = line.split_once("le=\"").filter(|(before, _)| before.contains("_bucket{"));
        if let Some((before, after)) = bucket {
            let (bound, after) = after.split_once('"').unwrap();
            let dot = if bound.contains(['.', 'I']) { "" } else { ".0" };
            return format!("{before}le=\"{bound}{dot}\"{after}");
        }
        let name = line.split(' ').nth(2).unwrap_or_default();
        match name.strip_suffix("_total").filter(|name| line.starts_with("# ") && counters.contains(name)) {
            Some(family) => line.replacen(name, family, 1),
            None => line,
        }
    });
    check_lines(&found, &expected.collect::<Vec<_>>());
}

#[test]
fn names_and_help_texts_need_no_escaping() {
    for family in FAMILIES {
        assert!(!family.header.help.contains(['\\', '"', '\n']), "{}", family.header.help);
        // OpenMetrics forms the names of samples from those of families.
        let is_counter = family.header.kind == Kind::Counter;
        assert_eq!(family.header.name.ends_with("_total"), is_counter, "{}", family.header.name);
        assert!(
            !["_bucket", "_sum", "_count", "_created"].iter().any(|end| family.header.name.ends_with(end))
        );
    }
}
