//! The processing time that a service reports. It is not verified.

use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::api::{gate, hints};

/// Metrics of a Server-Timing header that are considered; real ones have a handful.
const MAX_METRICS: usize = 16;

/// Names of Server-Timing metrics that a cache or edge writes about itself.
const EDGE_METRICS: &[&str] =
    &["cfl4", "cfedge", "cfcachestatus", "cfextpri", "edge", "cdn", "cdn-cache", "ak_p"];

/// Returns the time in the headers of `OpenAI` or Envoy, else in Server-Timing.
pub(super) fn processing(headers: &HeaderMap) -> Option<Duration> {
    let milliseconds = |name| {
        let milliseconds = hints::text(headers, name).and_then(hints::decimal)?;
        gate::processing(milliseconds / 1000.0)
    };
    milliseconds("openai-processing-ms")
        .or_else(|| milliseconds("x-envoy-upstream-service-time"))
        .or_else(|| server_timing(headers))
}

/// Returns the metric `total`, else the longest one except those of an edge: `gfet4t7; dur=412`,
/// `db;dur=53, total;dur=120.5`.
fn server_timing(headers: &HeaderMap) -> Option<Duration> {
    const MAX_BYTES: usize = 1024;
    let texts = headers.get_all("server-timing").iter().filter_map(|value| value.to_str().ok());
    let metrics =
        texts.filter(|text| text.len() <= MAX_BYTES).flat_map(|text| text.split(',')).take(MAX_METRICS);
    let metrics = metrics.filter_map(|metric| {
        let mut parts = metric.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let duration = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("dur").then(|| value.trim().trim_matches('"'))
        })?;
        let duration = gate::processing(hints::decimal(duration)? / 1000.0)?;
        (!EDGE_METRICS.contains(&name.as_str())).then_some((name == "total", duration))
    });
    metrics.max().map(|(_, duration)| duration)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> Option<f64> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        processing(&pairs.collect()).map(|duration| duration.as_secs_f64())
    }

    #[test]
    fn processing_time_of_a_service_is_read() {
        for (pairs, expected) in [
            (&[("openai-processing-ms", "412")][..], 0.412),
            (&[("openai-processing-ms", "0")], 0.0),
            (&[("openai-processing-ms", "412.5")], 0.4125),
            (&[("openai-processing-ms", "412"), ("server-timing", "a;dur=9")], 0.412),
            (&[("x-envoy-upstream-service-time", "87")], 0.087),
            (&[("server-timing", "gfet4t7; dur=326")], 0.326),
            (&[("server-timing", "db;dur=53, app;dur=47.2")], 0.053),
            (&[("server-timing", "db;dur=530, total;dur=120.5")], 0.1205),
            (&[("server-timing", "app;desc=\"x\";dur=47")], 0.047),
            (&[("server-timing", "cfEdge;dur=12,cfOrigin;dur=30")], 0.03),
            (&[("server-timing", "cdn-cache; desc=MISS, edge; dur=1, origin; dur=230")], 0.23),
            (&[("openai-processing-ms", "soon"), ("x-envoy-upstream-service-time", "87")], 0.087),
            (&[("server-timing", "app;dur=\"47\"")], 0.047),
        ] {
            let found = read(pairs).unwrap_or_else(|| panic!("{pairs:?}"));
            assert!((found - expected).abs() < 1e-9, "{pairs:?}: {found}");
        }
    }

    #[test]
    fn other_header_values_are_no_processing_time() {
        let long = format!("app;dur={}", "9".repeat(2000));
        for pairs in [
            &[][..],
            &[("openai-processing-ms", "-1")],
            &[("openai-processing-ms", "NaN")],
            &[("openai-processing-ms", "inf")],
            &[("openai-processing-ms", "1e3")],
            &[("openai-processing-ms", "99999999999")],
            &[("x-envoy-upstream-service-time", "87ms")],
            &[("server-timing", "app")],
            &[("server-timing", "app;desc=\"dur=9\"")],
            &[("server-timing", "dur=9")],
            &[("server-timing", "cfL4;desc=\"x\", cfEdge;dur=12")],
            &[("server-timing", "app;dur=-4")],
            &[("server-timing", &long)],
            &[("x-response-time", "40")],
        ] {
            assert_eq!(read(pairs), None, "{pairs:?}");
        }
    }
}
