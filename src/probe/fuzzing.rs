//! Entry points of the fuzz targets: streams, responses and hints, without a network.

use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{
    answer::is_plausible,
    classify::classify,
    exchange::Response,
    reported,
    stream::{Ending, Listener},
};
use crate::{
    api::{
        hints::{self, Clocks},
        limits,
    },
    config::{Chat, Probe, Stream, Task},
    outcome::{Api, Fault, Outcome, Reason, possible_failures},
};

/// Describes the end of a stream of these chunks, independently of how the bytes are split.
pub fn stream<'a>(api: Api, chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 32, ..Chat::default() };
    let task = Stream { chat, stall_timeout: Duration::from_secs(1), include_usage: true };
    let mut listener = Listener::new(api, &task);
    let now = Instant::now();
    for chunk in chunks {
        if listener.receive(chunk, now).is_break() {
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

/// Classifies a response as in the fixtures: status line, headers and, after an empty line, a body,
/// with newlines instead of CRLF. Panics if the verdict is impossible for this probe, or passes on
/// what it must not.
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
    if let (Task::Status(source), Some(page)) = (&probe.task, &verdict.status_page) {
        let names: Vec<_> = page.components.iter().map(|(name, _)| name).collect();
        assert_eq!(names, source.components.iter().collect::<Vec<_>>(), "{verdict:?}");
        assert!(
            page.maintenance.is_none_or(|found| found.start.is_some() || found.in_progress),
            "{verdict:?}"
        );
    }
    let code_is_short = |code: &str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(verdict.error_code.as_deref().is_none_or(code_is_short), "{verdict:?}");
}

/// Classifies a completion and a stream, in every dialect at once, with token counts made of these
/// bytes. Panics on a count that no request of this probe can have.
pub fn usage(probe: &Probe, bytes: &[u8]) {
    let Some(chat) = probe.chat() else { return };
    let counts = counts(bytes);
    let body = json!({
        "type": "message_delta",
        "message": { "usage": counts },
        "choices": [{ "message": { "content": "ok" }, "delta": { "content": "ok" }, "finish_reason": "stop" }],
        "content": [{ "type": "text", "text": "ok" }],
        "candidates": [{ "content": { "parts": [{ "text": "ok" }] }, "finishReason": "STOP" }],
        "usage": counts,
        "usageMetadata": counts,
        "x_groq": { "usage": counts },
    });
    let headers = HeaderMap::new();
    let clocks = Clocks::read(SystemTime::UNIX_EPOCH, &headers);
    let bytes = body.to_string().into_bytes();
    let response = Response { status: 200, version: "1.1", headers, body: bytes, remote_address: None };
    let tokens = classify(probe, &response, &clocks).tokens;
    assert!(is_plausible(chat, tokens.input, tokens.output), "{tokens:?} of {body}");

    let (prompt, max_tokens) = (chat.prompt.clone(), chat.max_tokens);
    let streamed = Chat { prompt, max_tokens, price: chat.price, ..Chat::default() };
    let task = Stream { chat: streamed, stall_timeout: Duration::from_secs(1), include_usage: true };
    let mut listener = Listener::new(probe.provider.api, &task);
    let now = Instant::now();
    // The counts of an event may add to those before it.
    let event = format!("data: {body}\n\n").repeat(3);
    let _ = listener.receive(event.as_bytes(), now);
    let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, Reason::Ok, Fault::None);
    listener.measure(&mut outcome, Some(now));
    let (input, output) = (outcome.input_tokens, outcome.output_tokens);
    assert!(is_plausible(chat, input, output), "{input:?} and {output:?} of {body}");
    let cached = outcome.cached_input_tokens.unwrap_or(0);
    assert!(cached <= input.unwrap_or(0), "{cached} of {input:?} in {body}");
    let cost = chat.price.map_or(0.0, |price| price.cost(input.unwrap_or(0), cached, output.unwrap_or(0)));
    assert!(cost.is_finite() && cost >= 0.0, "{cost} of {body}");
}

/// Returns counts of tokens by the names of all dialects: of ten bytes each, the first is the name,
/// the second the kind of the value.
fn counts(bytes: &[u8]) -> Value {
    const NAMES: [&str; 13] = [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "promptTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "cachedContentTokenCount",
        "prompt_tokens_details",
        "completion_tokens_details",
    ];
    let mut counts = serde_json::Map::new();
    for chunk in bytes.chunks(10) {
        let [name, kind, rest @ ..] = chunk else { break };
        let mut number = [0; 8];
        number[..rest.len()].copy_from_slice(rest);
        let number = u64::from_le_bytes(number);
        let value = match kind % 8 {
            0 => json!(number),
            1 => json!(number % 5000),
            2 => json!(number.cast_signed()),
            3 => json!(f64::from_bits(number)),
            4 => json!(number.to_string()),
            5 => json!([number]),
            6 => json!({ "cached_tokens": number, "reasoning_tokens": number }),
            _ => Value::Null,
        };
        counts.insert(NAMES[usize::from(*name) % NAMES.len()].to_owned(), value);
    }
    counts.into()
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

/// Reads a text in every notation of waits and times. Panics on an invalid wait.
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
