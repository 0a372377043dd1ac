//! The way in for the fuzz targets: streams, answers and hints as a run meets them, without a network.

use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::{
    classify::classify,
    exchange::Response,
    hints::{self, Clocks},
    limits, reported,
    stream::{Ending, Listener},
};
use crate::{
    config::{Chat, Probe, Stream},
    outcome::{Api, Fault, Outcome, Reason, possible_failures},
};

/// What a stream of these chunks comes to, in words that depend on the bytes alone and not on how they are cut.
pub fn stream<'a>(api: Api, chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 32, max_tokens_parameter: None, price: None };
    let task = Stream { chat, stall_timeout: Duration::from_secs(1), include_usage: true };
    let mut listener = Listener::new(api, &task);
    let now = Instant::now();
    for chunk in chunks {
        if listener.hear(chunk, now).is_break() {
            break;
        }
    }
    let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, Reason::Ok, Fault::None);
    listener.measure(&mut outcome, Some(now));
    let Outcome { time_to_first_token, input_tokens, output_tokens, tokens_estimated, .. } = outcome;
    let ending: Ending<'_> = listener.ending();
    let foreign = listener.foreign().map(<[u8]>::len);
    format!(
        "{ending:?} foreign {foreign:?} token {} counts {input_tokens:?} {output_tokens:?} {tokens_estimated}",
        time_to_first_token.is_some()
    )
}

/// Judges an answer: a status line, headers and, behind an empty line, a body, as the fixtures have them, newlines for
/// CRLF. Panics where the verdict is none that this probe can have, or passes on what it must not.
pub fn answer(probe: &Probe, bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| str::from_utf8(line.get(9..12)?).ok()?.parse().ok());
    let headers: HeaderMap = lines.filter_map(header).collect();
    let clocks = Clocks::read(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), &headers);
    let status = status.filter(|status| (100..1000).contains(status)).unwrap_or(200);
    let response = Response { status, version: "1.1", headers, body: body.to_vec(), remote_address: None };
    let verdict = classify(probe, &response, &clocks);

    let (api, check) = (probe.provider.api, probe.check());
    let pair = (verdict.reason, check.blame(verdict.fault));
    assert!(
        pair == (Reason::Ok, Fault::None) || possible_failures(api, check).contains(&pair),
        "{pair:?} of {api} {check}"
    );
    assert!(verdict.retry_after.is_none_or(|seconds| seconds.is_finite() && seconds >= 0.0), "{verdict:?}");
    assert!(clocks.offset().is_none_or(f64::is_finite), "{clocks:?}");
    assert_eq!(verdict.limited_by.is_some(), verdict.reason == Reason::RateLimited, "{verdict:?}");
    let bounded = |time: &Duration| *time <= Duration::from_secs(2 * 86_400);
    assert!(verdict.reported_processing.as_ref().is_none_or(bounded), "{verdict:?}");
    let counted = verdict.tokens.input.unwrap_or(0).max(verdict.tokens.output.unwrap_or(0));
    assert!(counted < 1_000_000, "{verdict:?}");
    let id_is_plain = |id: &String| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
    };
    assert!(verdict.request_id.as_ref().is_none_or(id_is_plain), "{verdict:?}");
    let code_is_short = |code: &str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(verdict.error_code.as_deref().is_none_or(code_is_short), "{verdict:?}");
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

/// Reads a text in every way in which services write waits and moments. Panics at one that is no time to wait.
pub fn hint(value: &str) {
    for parse in [hints::decimal, hints::go_duration, hints::protobuf_duration] {
        assert!(parse(value).is_none_or(|seconds| seconds.is_finite() && seconds >= 0.0), "{value:?}");
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut headers = HeaderMap::new();
    for name in [
        "retry-after",
        "retry-after-ms",
        "llm_provider-retry-after",
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "server-timing",
        "openai-processing-ms",
        "date",
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
        let clocks = Clocks::read(now, &headers);
        let wait = hints::retry_after(&headers, &clocks);
        assert!(wait.is_none_or(|seconds| seconds.is_finite() && seconds >= 0.0), "{value:?}");
        let processing = reported::processing(&headers);
        assert!(processing.is_none_or(|time| time <= Duration::from_secs(86_400)), "{value:?}");
        limits::without_family(&headers, &clocks);
        hints::count(value);
        for parse in [hints::rfc3339, hints::epoch, hints::date] {
            let Some(moment) = parse(value) else { continue };
            let until = clocks.until(moment);
            assert!(until.is_finite() && until >= 0.0, "{value:?}");
            clocks.after(until);
            clocks.ours(moment);
        }
    }
}
