//! Proactive negotiation (RFC 9110, 12): the weighted lists of Accept and Accept-Encoding.

use std::{borrow::Cow, cmp::Reverse};

use hyper::header::{ACCEPT, HeaderMap, HeaderName};

use crate::metrics::Format;

/// A member of a list: a content coding or media range with its parameters.
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    /// All but the weight.
    pub(super) parameters: Vec<(&'a str, Cow<'a, str>)>,
    /// In thousandths: 1000 if there is none, 0 if it is invalid.
    pub(super) weight: u16,
}

/// Returns the members of all lines of a header. Lines that are not ASCII are ignored.
pub(super) fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Member<'_>> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| split(line, b',')).map(Member::parse)
}

impl<'a> Member<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = split(text, b';');
        let name = parts.next().unwrap_or_default().trim();
        let mut member = Self { name, parameters: Vec::new(), weight: 1000 };
        for (name, value) in parts.map(|part| part.split_once('=').unwrap_or((part, ""))) {
            let (name, value) = (name.trim(), unquote(value.trim()));
            if name.eq_ignore_ascii_case("q") {
                member.weight = weight(&value);
            } else if !name.is_empty() {
                member.parameters.push((name, value));
            }
        }
        member
    }

    /// Returns the type and subtype of a media range.
    fn media(&self) -> (&'a str, &'a str) {
        self.name.split_once('/').unwrap_or((self.name, ""))
    }

    /// Returns how specific the range is if it matches the media type (RFC 9110, 12.5.1). A
    /// parameter excludes the type only if the type has it with another value. Parameters which the
    /// type does not have, such as Prometheus' `escaping`, exclude nothing.
    fn specificity(&self, media_type: &Member<'_>) -> Option<(u8, usize)> {
        let (range, own) = (self.media(), media_type.media());
        let is_same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
        let level = match range {
            ("*", "*") => 0,
            (kind, "*") if is_same(kind, own.0) => 1,
            (kind, subtype) if is_same(kind, own.0) && is_same(subtype, own.1) => 2,
            _ => return None,
        };
        let mut equal = 0;
        for (name, value) in &self.parameters {
            match media_type.parameters.iter().find(|(own, _)| is_same(own, name)) {
                Some((_, own)) if is_same(own, value) => equal += 1,
                Some(_) => return None,
                None => {}
            }
        }
        Some((level, equal))
    }
}

/// Returns the format of `/metrics` that the client prefers: the one with the highest weight, of
/// these the one that is named most exactly, of these the first in the header. Without preference,
/// and if no format is acceptable, it is the text format.
pub(super) fn preferred_format(headers: &HeaderMap) -> Format {
    let ranges: Vec<_> = members(headers, ACCEPT).collect();
    let rank = |format: &Format| {
        let media_type = Member::parse(format.content_type());
        let matching = ranges.iter().enumerate().filter_map(|(position, range)| {
            Some((range.specificity(&media_type)?, Reverse(position), range.weight))
        });
        let ((level, _), position, weight) = matching.max()?;
        (weight > 0).then_some((weight, level, position))
    };
    let ranked = Format::ALL.iter().filter_map(|format| Some((rank(format)?, Reverse(format), *format)));
    ranked.max().map_or(Format::Text, |(_, _, format)| format)
}

/// Splits at a separator that is not part of a quoted string (RFC 9110, 5.6.4).
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            byte == separator && !quoted
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Returns the content of a quoted string, and any other text as it is.
fn unquote(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    let mut content = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        content.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    Cow::Owned(content)
}

/// Returns a weight in thousandths, and 0 for what is not a number from 0 to 1.
fn weight(text: &str) -> u16 {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse::<f64>() {
        Ok(weight) if is_plain && weight <= 1.0 => (weight * 1000.0).round() as u16,
        Ok(_) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: Format) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        assert_eq!(preferred_format(&headers), expected, "{lines:?}");
    }

    const PROTOBUF: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn prometheus_gets_the_format_that_it_prefers() {
        // 2.42, without and with the feature `native-histograms`.
        let open = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        check(&[open], Format::OpenMetrics);
        let native = "application/openmetrics-text;version=1.0.0;q=0.8,\
                      application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        check(&[&format!("{PROTOBUF},{native}")], Format::Protobuf);
        // 3.x, without and with it.
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,\
                     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        check(&[three], Format::OpenMetrics);
        check(&[&format!("{PROTOBUF};q=0.7,{three}")], Format::Protobuf);
        check(&[&format!("{PROTOBUF};escaping=allow-utf-8;q=0.7,{three}")], Format::Protobuf);
        // `scrape_protocols: [PrometheusText0.0.4]`.
        check(&["text/plain;version=0.0.4;q=0.3,*/*;q=0.2"], Format::Text);
    }

    #[test]
    fn text_is_the_default() {
        check(&[], Format::Text);
        check(&[""], Format::Text);
        check(&["*/*"], Format::Text);
        check(&["text/*"], Format::Text);
        check(&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Format::Text);
        check(&["application/json"], Format::Text);
        check(&["application/openmetrics-text;q=0"], Format::Text);
        check(&["*/*;q=0"], Format::Text);
        check(&["application/openmetrics-text;version=0.0.1"], Format::Text);
        check(&["application/vnd.google.protobuf;encoding=text"], Format::Text);
        check(&["application/vnd.google.protobuf;proto=other"], Format::Text);
    }

    #[test]
    fn weight_decides_before_exactness_and_order() {
        check(&["text/plain;q=0.5, application/openmetrics-text;q=0.6"], Format::OpenMetrics);
        check(&["application/openmetrics-text;q=0.5", "text/plain;q=0.501"], Format::Text);
        check(&["application/openmetrics-text, */*"], Format::OpenMetrics);
        check(&["application/openmetrics-text, text/plain"], Format::OpenMetrics);
        check(&["text/plain, application/openmetrics-text;version=1.0.0"], Format::Text);
        check(&["application/*"], Format::OpenMetrics);
        check(&["application/*, application/openmetrics-text;q=0"], Format::Protobuf);
        check(&["*/*, text/plain;q=0.1"], Format::OpenMetrics);
        // The most exact range sets the weight, not the highest one.
        check(
            &[
                "application/openmetrics-text;version=1.0.0;q=0.1, application/*, text/plain;q=0.2",
                "application/vnd.google.protobuf;q=0",
            ],
            Format::Text,
        );
    }

    #[test]
    fn parameters_are_read_as_rfc_9110_defines_them() {
        check(&["APPLICATION/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=1"], Format::OpenMetrics);
        check(&["application/openmetrics-text; version=\"1.\\0.0\""], Format::OpenMetrics);
        check(
            &["application/openmetrics-text; x=\",text/plain;q=1,\"; q=0.9, text/plain;q=0.8"],
            Format::OpenMetrics,
        );
        check(&["application/openmetrics-text;q=0.4;version=1.0.0, text/plain;q=0.3"], Format::OpenMetrics);
        check(&[",, ;q=1 ,application/openmetrics-text,"], Format::OpenMetrics);
    }

    #[test]
    fn invalid_weights_do_not_count() {
        for weight in ["", "x", "-1", "1.1", "2", "nan", "inf", "1e-1", "+1", "0x1", ".", "\"", "0.5.5"] {
            check(&[&format!("application/openmetrics-text;q={weight}")], Format::Text);
        }
        for weight in ["1", "1.", "1.000", "0.001", "\"0.5\"", ".5"] {
            check(&[&format!("application/openmetrics-text;q={weight}")], Format::OpenMetrics);
        }
    }

    #[test]
    fn long_headers_are_read_in_linear_time() {
        for unit in
            ["*/*,", "a/b;q=0;", "\"", "\\", ";", ",", "application/openmetrics-text;q=0.1,", "a=\"\\\","]
        {
            let header = unit.repeat(200_000 / unit.len());
            let format = if unit.starts_with("application") { Format::OpenMetrics } else { Format::Text };
            check(&[&header], format);
        }
    }
}
