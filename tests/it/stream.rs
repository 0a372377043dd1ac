//! Tests of the stream check with a server that sends scripted bytes at scripted times, below any
//! HTTP library.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use langmart_prober::{
    config::Task,
    outcome::{Api, Check, Fault, Outcome, Reason, possible_failures},
};
use serde_json::Value;

use crate::harness::probes::{detail_of, probe, provider, run};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// Time for which the last counts of a complete answer are awaited.
const GRACE: Duration = Duration::from_secs(1);

/// Stall timeout and timeout that no test reaches.
const LONG_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// Actions of a server after a request.
enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Keeps the connection open until the client closes it.
    Hold,
    /// Sends the same bytes repeatedly until the client closes the connection.
    Repeat(Vec<u8>),
    /// Resets the connection.
    Reset,
}

use Step::{Hold, Pause, Repeat, Reset, Send};

/// Observations of a server.
struct Seen {
    request: String,
    accepted: Instant,
    /// Time after each [`Send`].
    sent: Vec<Instant>,
}

fn send(text: impl AsRef<str>) -> Step {
    Send(text.as_ref().as_bytes().to_vec())
}

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Runs a stream check against a server that performs these actions once.
fn play(api: Api, steps: Vec<Step>) -> (Outcome, Seen) {
    play_with(api, LONG_TIMEOUTS, steps)
}

fn play_with(api: Api, limits: (Duration, Duration), steps: Vec<Step>) -> (Outcome, Seen) {
    play_check(Check::Stream, api, limits, steps)
}

fn play_check(
    check: Check,
    api: Api,
    (stall, timeout): (Duration, Duration),
    steps: Vec<Step>,
) -> (Outcome, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (report, seen) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        report.send(serve(&mut stream, steps)).unwrap();
    });
    let mut probe = probe(provider(api, &format!("http://{address}")), check);
    if let Task::Stream(task) = &mut probe.task {
        task.stall_timeout = stall;
    }
    probe.timeout = timeout;
    let outcome = run(probe);
    let phases: Duration = outcome.phases.durations().iter().sum();
    assert_eq!(phases, outcome.duration, "the phases fill the run");
    assert!(outcome.success() || !outcome.hint.is_empty(), "a failure has a hint");
    // A run must close its connection; otherwise a server that keeps it open would block here.
    (outcome, seen.recv_timeout(Duration::from_secs(10)).unwrap())
}

fn serve(stream: &mut TcpStream, steps: Vec<Step>) -> Seen {
    let accepted = Instant::now();
    stream.set_nodelay(true).unwrap();
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the client left during its request");
        request.extend_from_slice(&buffer[..read]);
    }
    let mut sent = Vec::new();
    for step in steps {
        match step {
            Send(bytes) => {
                // The client may have left.
                let _ = stream.write_all(&bytes);
                sent.push(Instant::now());
            }
            Pause(duration) => thread::sleep(duration),
            Hold => {
                let _ = stream.read(&mut buffer);
            }
            Repeat(bytes) => while stream.write_all(&bytes).is_ok() {},
            Reset => {
                // The bytes sent before arrive first.
                thread::sleep(milliseconds(50));
                let socket = tokio::net::TcpSocket::from_std_stream(stream.try_clone().unwrap());
                socket.set_zero_linger().unwrap();
                return Seen { request: String::from_utf8(request).unwrap(), accepted, sent };
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    Seen { request: String::from_utf8(request).unwrap(), accepted, sent }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

fn content(text: &str) -> String {
    event(&format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#))
}

fn finish(reason: &str) -> String {
    event(&format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#))
}

const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[track_caller]
fn check(api: Api, body: &str, reason: Reason, fault: Fault) -> Outcome {
    let (outcome, _) = play(api, vec![send(HEAD), send(body)]);
    assert_eq!((outcome.reason, outcome.fault), (reason, fault), "{api}: {body:?}: {}", detail_of(&outcome));
    outcome
}

#[test]
fn stream_request_has_the_format_of_its_api() {
    let body = |seen: &Seen| -> Value {
        serde_json::from_str(seen.request.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    for api in [Api::Langmart, Api::Openai, Api::Groq, Api::Openrouter] {
        let (outcome, seen) = play(api, vec![send(HEAD), send(content("OK")), send(DONE)]);
        assert!(outcome.success(), "{api}: {outcome:?}");
        let path = if api == Api::Langmart { "/v1/chat/completions" } else { "/chat/completions" };
        assert!(seen.request.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{}", seen.request);
        let body = body(&seen);
        assert_eq!(body["stream"], true, "{api}");
        assert_eq!(body["stream_options"]["include_usage"], true, "{api}");
        assert_eq!(body["max_tokens"], 32, "{api}");
        assert_eq!(body.get("temperature"), None, "{api}");
    }
    let (_, seen) = play(Api::Anthropic, vec![send(HEAD)]);
    assert!(seen.request.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{}", seen.request);
    assert_eq!(body(&seen)["stream"], true);
    assert_eq!(body(&seen).get("stream_options"), None);
    let (_, seen) = play(Api::Google, vec![send(HEAD)]);
    let path = "/models/some-model:streamGenerateContent?alt=sse";
    assert!(seen.request.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{}", seen.request);
    assert_eq!(body(&seen).get("stream"), None);
}

/// Returns the result of a run with this many bytes per write.
fn in_pieces(case: &Case, size: usize) -> Outcome {
    let (head, body) = case.text.split_once("\n\n").unwrap();
    let head = format!("{}\r\nConnection: close\r\n\r\n", head.replace('\n', "\r\n"));
    let mut steps = vec![send(head)];
    for piece in body.as_bytes().chunks(size) {
        steps.extend([Send(piece.to_vec()), Pause(Duration::from_micros(100))]);
    }
    play(case.api, steps).0
}

struct Case {
    file: String,
    api: Api,
    text: String,
    expect: Value,
}

fn cases() -> Vec<Case> {
    let index: Value = serde_json::from_str(include_str!("../fixtures/index.json")).unwrap();
    let rows = index["cases"].as_array().unwrap().iter().filter(|row| row["check"] == "stream");
    let cases: Vec<_> = rows
        .map(|row| {
            let file = row["file"].as_str().unwrap().to_owned();
            let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let api = Api::from_name(row["api"].as_str().unwrap()).unwrap();
            Case { file, api, text, expect: row["expect"].clone() }
        })
        .collect();
    assert!(cases.len() >= 19, "only {} streams were found", cases.len());
    cases
}

#[test]
fn piece_size_changes_no_verdict() {
    for case in cases() {
        for size in [31, 512] {
            let outcome = in_pieces(&case, size);
            let found = (outcome.reason.name(), outcome.fault.name());
            let expected = (case.expect["reason"].as_str().unwrap(), case.expect["fault"].as_str().unwrap());
            assert_eq!(found, expected, "{} by {size}", case.file);
            let tokens = case.expect.get("completion_tokens").or(case.expect.get("output_tokens"));
            if let Some(tokens) = tokens {
                assert_eq!(outcome.output_tokens, tokens.as_u64(), "{} by {size}", case.file);
                assert!(!outcome.tokens_estimated, "{}", case.file);
            }
            if let Some(code) = case.expect.get("error_type") {
                assert_eq!(outcome.error_code.as_deref(), code.as_str(), "{}", case.file);
            }
        }
    }
}

#[test]
fn without_counts_the_tokens_are_estimated() {
    let body = [ROLE, &content("0123456789"), &content("!"), DONE].concat();
    let outcome = check(Api::Openai, &body, Reason::Ok, Fault::None);
    // 11 bytes are 3 tokens; "Say OK." is 2, and 8 for the frame.
    assert_eq!((outcome.input_tokens, outcome.output_tokens), (Some(10), Some(3)));
    assert!(outcome.tokens_estimated);
    // Many small pieces count as many tokens, even if the stream then fails.
    let outcome = check(Api::Openai, &content("a").repeat(7), Reason::StreamTruncated, Fault::Provider);
    assert_eq!((outcome.output_tokens, outcome.tokens_estimated), (Some(7), true));
    assert_eq!(outcome.time_per_output_token, None, "no pace of an incomplete stream");
    assert!(outcome.time_to_first_token.is_some());
    // If nothing arrived, usage is unknown.
    let outcome = check(Api::Openai, ROLE, Reason::StreamTruncated, Fault::Provider);
    assert_eq!((outcome.input_tokens, outcome.output_tokens, outcome.tokens_estimated), (None, None, false));
    assert_eq!(outcome.time_to_first_token, None);
}

#[test]
fn without_counts_tokens_of_chat_are_estimated() {
    let openai = r#"{"choices":[{"message":{"content":"0123456789!","reasoning_content":"Hm"},"finish_reason":"stop"}]}"#;
    let anthropic = r#"{"type":"message","content":[{"type":"thinking","thinking":"Hm"},{"type":"text","text":"0123456789!"}]}"#;
    let google = r#"{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true},{"text":"0123456789!"}]},"finishReason":"STOP"}]}"#;
    let ask = |api, answer: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        let (outcome, _) = play_check(Check::Chat, api, LONG_TIMEOUTS, vec![send(head), send(answer)]);
        assert!(outcome.success(), "{api}: {outcome:?}");
        (outcome.input_tokens, outcome.output_tokens, outcome.tokens_estimated)
    };
    for (api, answer) in
        [(Api::Langmart, openai), (Api::Openai, openai), (Api::Anthropic, anthropic), (Api::Google, google)]
    {
        // 13 bytes are 4 tokens; "Say OK." is 2, and 8 for the frame.
        assert_eq!(ask(api, answer), (Some(10), Some(4), true), "{api}");
    }
    let counted = openai.replacen('{', r#"{"usage":{"prompt_tokens":9,"completion_tokens":5},"#, 1);
    assert_eq!(ask(Api::Openai, &counted), (Some(9), Some(5), false));
}

#[test]
fn counts_come_in_every_dialects_way() {
    let tokens = |api, events: &[&str]| {
        let body: String = events.iter().map(|data| event(data)).collect();
        let outcome = check(api, &body, Reason::Ok, Fault::None);
        assert!(!outcome.tokens_estimated, "{api}");
        (outcome.input_tokens.unwrap(), outcome.output_tokens.unwrap())
    };
    let answer = r#"{"choices":[{"delta":{"content":"OK"},"finish_reason":"stop"}]}"#;
    let last = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
    assert_eq!(tokens(Api::Openai, &[answer, last, "[DONE]"]), (9, 2));
    let groq = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null,"x_groq":{"usage":
        {"prompt_tokens":8,"completion_tokens":14}}}"#
        .replace('\n', "");
    assert_eq!(tokens(Api::Groq, &[answer, &groq, "[DONE]"]), (8, 14));
    let repeated = r#"{"choices":[{"delta":{"content":""},"finish_reason":"stop"}],"usage":
        {"prompt_tokens":7,"completion_tokens":3}}"#
        .replace('\n', "");
    assert_eq!(tokens(Api::Openrouter, &[answer, &repeated, "[DONE]"]), (7, 3));
    let google = |text: &str, counts: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}}}],"usageMetadata":{{{counts}}}}}"#
        )
    };
    let first = google("O", r#""promptTokenCount":9,"thoughtsTokenCount":5"#);
    let second = google("K", r#""promptTokenCount":9,"candidatesTokenCount":2,"thoughtsTokenCount":5"#);
    let end = r#"{"candidates":[{"finishReason":"STOP"}]}"#;
    assert_eq!(tokens(Api::Google, &[&first, &second, end]), (9, 7));
    let anthropic = [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"OK"}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    assert_eq!(tokens(Api::Anthropic, &anthropic), (9, 4));
}

#[test]
fn stream_is_not_read_after_its_end_marker() {
    let anthropic = [
        event(r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"OK"}}"#),
        event(r#"{"type":"message_stop"}"#),
    ]
    .concat();
    for (api, body) in [(Api::Openai, content("OK") + DONE), (Api::Anthropic, anthropic)] {
        for rest in [Hold, Repeat(content("more").into_bytes()), Repeat(b"data: {\"error\":{}}\n\n".to_vec())]
        {
            let (outcome, _) = play(api, vec![send(HEAD), send(&body), rest]);
            assert!(outcome.success(), "{outcome:?}");
            assert!(outcome.duration < LONG_TIMEOUTS.0, "{outcome:?}");
        }
    }
}

#[test]
fn missing_last_marker_is_awaited_briefly_only() {
    let google = event(r#"{"candidates":[{"content":{"parts":[{"text":"OK"}]},"finishReason":"STOP"}]}"#);
    for (api, body) in [(Api::Openai, content("OK") + &finish("stop")), (Api::Google, google)] {
        for rest in [Hold, Repeat(b": ping\n\n".to_vec())] {
            let began = Instant::now();
            let (outcome, _) = play(api, vec![send(HEAD), send(&body), rest]);
            assert!(outcome.success(), "{outcome:?}");
            assert!(outcome.duration < GRACE, "{outcome:?}");
            assert!(began.elapsed() < LONG_TIMEOUTS.0, "{:?}", began.elapsed());
        }
        // It is no timeout either if the run's timeout passes during that wait.
        let limits = (milliseconds(5000), milliseconds(900));
        let (outcome, _) = play_with(api, limits, vec![send(HEAD), send(&body), Hold]);
        assert!(outcome.success() && outcome.duration < limits.1, "{outcome:?}");
        let (outcome, _) = play(api, vec![send(HEAD), send(&body), Reset]);
        assert!(outcome.success(), "{outcome:?}");
    }
}

#[test]
fn stream_error_takes_precedence() {
    let error = event(r#"{"error":{"message":"x","type":"server_error","code":null}}"#);
    let same_event = event(
        r#"{"error":{"code":502,"message":"x"},"choices":[{"delta":{"content":"OK"},"finish_reason":"stop"}]}"#,
    );
    for api in [Api::Openai, Api::Groq, Api::Langmart, Api::Openrouter] {
        for body in [
            [&error, DONE].concat(),
            [&content("OK"), &error, DONE].concat(),
            [&content("OK"), &finish("stop"), &error, DONE].concat(),
            [&content("OK"), &same_event, DONE].concat(),
            [&content("OK"), &finish("error"), DONE].concat(),
            format!("event: error\ndata: not JSON\n\n{DONE}"),
        ] {
            check(api, &body, Reason::StreamError, api.endpoint());
        }
    }
    let outcome = check(Api::Openai, &error, Reason::StreamError, Fault::Provider);
    assert_eq!(outcome.error_code.as_deref(), Some("server_error"));
    assert_eq!(outcome.http_status, Some(200));
    // Groq reports the error of an early stop in a choice that looks finished.
    let stopped = event(
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"req_1","error":"canary"}}"#,
    );
    let outcome =
        check(Api::Groq, &[&content("OK"), &*stopped, DONE].concat(), Reason::StreamError, Fault::Provider);
    assert_eq!(outcome.error_code, None);
    check(
        Api::Groq,
        &[&content("OK"), &*stopped.replace("\"canary\"", "null"), DONE].concat(),
        Reason::Ok,
        Fault::None,
    );
    let array = event(r#"[{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}]"#);
    let outcome = check(Api::Google, &array, Reason::StreamError, Fault::Provider);
    assert_eq!(outcome.error_code.as_deref(), Some("UNAVAILABLE"));
    // The body of an error as is, between events.
    let begun = event(r#"{"candidates":[{"content":{"parts":[{"text":"O"}]}}]}"#);
    let bare = "{\n  \"error\": {\n    \"code\": 503,\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n";
    let outcome = check(Api::Google, &(begun + bare), Reason::StreamError, Fault::Provider);
    assert_eq!(outcome.error_code.as_deref(), Some("UNAVAILABLE"));
}

#[test]
fn error_naming_a_provider_is_provider_fault() {
    let langmart = event(r#"{"error":{"code":"PROVIDER_ANTHROPIC_529","message":"canary"}}"#);
    let outcome = check(Api::Langmart, &langmart, Reason::StreamError, Fault::Provider);
    assert_eq!(
        (outcome.upstream, outcome.error_code.as_deref()),
        (Some("anthropic"), Some("PROVIDER_ANTHROPIC_529"))
    );
    let openrouter = event(r#"{"error":{"code":502,"message":"x","metadata":{"provider_name":"Groq"}}}"#);
    let outcome = check(Api::Openrouter, &openrouter, Reason::StreamError, Fault::Provider);
    assert_eq!(outcome.upstream, Some("groq"));
    let unknown = event(r#"{"error":{"code":"EVIL canary","message":"x"}}"#);
    let outcome = check(Api::Langmart, &unknown, Reason::StreamError, Fault::Gateway);
    assert_eq!(outcome.error_code.as_deref(), Some("other"));
    let pairs = possible_failures(Api::Langmart, Check::Stream);
    for fault in [Fault::Gateway, Fault::Provider] {
        assert!(pairs.contains(&(Reason::StreamError, fault)), "{pairs:?}");
    }
}

#[test]
fn early_end_of_stream_is_truncated() {
    let bodies = ["", "\n\n", ": ping\n\n", ROLE, "data: [DONE]", &content("Hel")];
    for body in bodies {
        check(Api::Openai, body, Reason::StreamTruncated, Fault::Provider);
        check(Api::Openrouter, body, Reason::StreamTruncated, Fault::Gateway);
        let (outcome, _) = play(Api::Openai, vec![send(HEAD), send(body), Reset]);
        assert_eq!(outcome.reason, Reason::StreamTruncated, "{body:?}");
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\ndata: ";
    let (outcome, _) = play(Api::Openai, vec![send(chunked)]);
    assert_eq!(outcome.reason, Reason::StreamTruncated);
    // Not the end markers of other APIs.
    check(Api::Anthropic, DONE, Reason::StreamTruncated, Fault::Provider);
    check(Api::Google, DONE, Reason::StreamTruncated, Fault::Provider);
    let stop = event(r#"{"type":"message_stop"}"#);
    check(Api::Openai, &stop, Reason::StreamTruncated, Fault::Provider);
}

#[test]
fn stall_is_silence_and_any_byte_ends_it() {
    let limits = (milliseconds(200), milliseconds(5000));
    for body in ["", ": ping\n\n", ROLE, &content("Hel"), "data: {\"choi"] {
        let (outcome, _) = play_with(Api::Openai, limits, vec![send(HEAD), send(body), Hold]);
        assert_eq!((outcome.reason, outcome.fault), (Reason::StreamStalled, Fault::Provider), "{body:?}");
        assert!(outcome.duration >= milliseconds(200), "{outcome:?}");
    }
    // Far from the limit, because a busy machine lengthens pauses.
    let limits = (milliseconds(2000), milliseconds(30_000));
    let mut steps = vec![send(HEAD)];
    for _ in 0..8 {
        steps.extend([Pause(milliseconds(300)), send(": ping\n\n")]);
    }
    steps.push(send(content("OK") + DONE));
    let (outcome, _) = play_with(Api::Openai, limits, steps);
    assert!(outcome.success() && outcome.duration > milliseconds(2000), "{outcome:?}");
    // Before the headers only the timeout applies.
    let steps = vec![Pause(milliseconds(2500)), send(HEAD), send(content("OK") + DONE)];
    assert!(play_with(Api::Openai, limits, steps).0.success());
}

#[test]
fn endless_stream_ends_at_the_timeout() {
    let limits = (milliseconds(5000), milliseconds(500));
    for text in [": ping\n\n", "data: {}\n\n"] {
        // Slow enough not to exceed the size limit first.
        let mut steps = vec![send(HEAD)];
        for _ in 0..60 {
            steps.extend([send(text), Pause(milliseconds(10))]);
        }
        let (outcome, _) = play_with(Api::Openai, limits, steps);
        assert_eq!((outcome.reason, outcome.fault), (Reason::Timeout, Fault::Provider));
    }
    // At full speed it is cut off by the size limit.
    let (outcome, _) = play(Api::Openai, vec![send(HEAD), Repeat(content("more").repeat(100).into_bytes())]);
    assert_eq!(outcome.reason, Reason::Malformed, "{outcome:?}");
}

#[test]
fn answer_without_content_is_no_content() {
    for (body, detail) in [
        (ROLE.to_owned() + &finish("length") + DONE, "max_tokens was used up before any visible content"),
        (ROLE.to_owned() + &finish("content_filter") + DONE, "the answer was filtered"),
        (ROLE.to_owned() + &finish("tool_calls") + DONE, "a tool call in place of an answer"),
        // Reasoning that a server leaves in the text, and that the budget cut off.
        (
            content("<think>The user wants ") + &content("an ok") + &finish("length") + DONE,
            "max_tokens was used up before any visible content",
        ),
        (event(r#"{"choices":[{"delta":{"refusal":"No."}}]}"#) + &finish("stop") + DONE, "the model refused"),
    ] {
        let outcome = check(Api::Openai, &body, Reason::NoContent, Fault::Caller);
        assert_eq!(detail_of(&outcome), detail);
    }
    let blocked =
        event(r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9}}"#);
    assert_eq!(
        detail_of(&check(Api::Google, &blocked, Reason::NoContent, Fault::Caller)),
        "the prompt was blocked"
    );
    let call = event(
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]},"finishReason":"STOP"}]}"#,
    );
    assert_eq!(
        detail_of(&check(Api::Google, &call, Reason::NoContent, Fault::Caller)),
        "a tool call in place of an answer"
    );
    let last = event(r#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}]}"#);
    let earlier = event(r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#) + &last;
    check(Api::Google, &earlier, Reason::NoContent, Fault::Caller);
    let thoughts = event(
        r#"{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true}]},"finishReason":"MAX_TOKENS"}]}"#,
    );
    let outcome = check(Api::Google, &thoughts, Reason::NoContent, Fault::Caller);
    assert!(outcome.time_to_first_reasoning.is_some() && outcome.time_to_first_token.is_none());
    let refused =
        event(r#"{"type":"message_delta","delta":{"stop_reason":"refusal"},"usage":{"output_tokens":1}}"#);
    check(Api::Anthropic, &refused, Reason::NoContent, Fault::Caller);
}

#[test]
fn exhausted_credit_in_a_stream_is_billing() {
    for (api, body) in [
        (Api::Openai, event(r#"{"error":{"message":"x","code":"insufficient_quota"}}"#)),
        (Api::Openai, content("o") + &event(r#"{"error":{"message":"x","type":"insufficient_quota"}}"#)),
        (
            Api::Anthropic,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"billing_error\",\"message\":\"x\"}}\n\n"
                .to_owned(),
        ),
        (Api::Openrouter, event(r#"{"error":{"code":402,"message":"Insufficient credits"},"choices":[]}"#)),
    ] {
        check(api, &body, Reason::Billing, Fault::Caller);
    }
    let bare = "event: error\ndata: {\"code\":\"insufficient_quota\",\"message\":\"x\"}\n\n";
    let outcome = check(Api::Openai, bare, Reason::Billing, Fault::Caller);
    assert_eq!(outcome.error_code.as_deref(), Some("insufficient_quota"));
}

#[test]
fn hidden_tokens_are_no_part_of_the_speed() {
    // 300 tokens in two bytes: the rest is reasoning that is neither shown nor counted apart.
    let usage = event(r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":300}}"#);
    let of_none = usage.replace("300", r#"300,"completion_tokens_details":{"reasoning_tokens":0}"#);
    for usage in [&usage, &of_none] {
        let short = content("o") + &content("k") + &finish("stop") + usage + DONE;
        let (outcome, _) = play(Api::Openai, vec![send(HEAD), send(short)]);
        assert_eq!((outcome.reason, outcome.output_tokens), (Reason::Ok, Some(300)), "{outcome:?}");
        assert_eq!(outcome.buffered, None);
    }
    // 0 tokens beside an answer are no count.
    let none = event(r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#);
    let (outcome, _) =
        play(Api::Openai, vec![send(HEAD), send(content("ok") + &finish("stop") + &none + DONE)]);
    assert_eq!((outcome.output_tokens, outcome.tokens_estimated), (Some(1), true), "{outcome:?}");
    let mut steps = vec![send(HEAD)];
    for _ in 0..21 {
        steps.extend([send(content("ok ")), Pause(milliseconds(10))]);
    }
    steps.push(send(finish("stop") + &usage + DONE));
    let (outcome, _) = play(Api::Openai, steps);
    let per_token = outcome.time_per_output_token.unwrap();
    assert!(per_token >= milliseconds(5), "{per_token:?}");
}

#[test]
fn empty_stop_is_malformed() {
    for (api, body) in [
        (Api::Openai, content(" ") + &finish("stop") + DONE),
        (Api::Openai, ROLE.to_owned() + &finish("stop") + DONE),
        (Api::Google, event(r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP"}]}"#)),
        (Api::Anthropic, event(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#)),
    ] {
        let outcome = check(api, &body, Reason::Malformed, Fault::Provider);
        assert_eq!(detail_of(&outcome), "the answer is empty, and nothing in it explains why");
        assert!(!outcome.hint.contains("max_tokens"), "{}", outcome.hint);
    }
}

#[test]
fn end_mark_alone_is_truncated() {
    for body in [
        DONE.to_owned(),
        ROLE.to_owned() + DONE,
        event(r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}"#) + DONE,
        event(r#"{"choices":[{"delta":{}}]}"#) + DONE,
        ": ping\n\n".to_owned() + DONE,
        "data: [DONE]".to_owned(),
        ROLE.to_owned() + "data: [DONE]\n",
    ] {
        check(Api::Openai, &body, Reason::StreamTruncated, Fault::Provider);
    }
}

#[test]
fn end_marker_without_line_end_counts() {
    for mark in ["data: [DONE]", "data:[DONE]", "data: [DONE]\n", "data: [DONE]\r\n", "data: [DONE] "] {
        check(Api::Openai, &(content("OK") + mark), Reason::Ok, Fault::None);
    }
    for no_mark in ["data: [DON", "data: [DONE] x", "[DONE]", ": [DONE]", "event: [DONE]", "data: DONE"] {
        check(Api::Openai, &(content("OK") + no_mark), Reason::StreamTruncated, Fault::Provider);
    }
    check(Api::Google, "data: [DONE]", Reason::StreamTruncated, Fault::Provider);
}

#[test]
fn failing_finish_reason_is_stream_error() {
    for reason in [
        "error",
        "ERROR",
        "Error",
        "network_error",
        "insufficient_system_resource",
        "timeout",
        "internal_server_error",
        "abort",
        "aborted",
        "failed",
        "engine_overloaded",
        "service_unavailable",
        "exception",
    ] {
        check(Api::Openai, &(content("O") + &finish(reason) + DONE), Reason::StreamError, Fault::Provider);
        check(Api::Langmart, &(finish(reason) + DONE), Reason::StreamError, Fault::Gateway);
    }
    for reason in [
        "stop",
        "STOP",
        "length",
        "eos",
        "eos_token",
        "end_turn",
        "stop_sequence",
        "max_tokens",
        "content_filter",
        "tool_calls",
    ] {
        check(Api::Openai, &(content("O") + &finish(reason) + DONE), Reason::Ok, Fault::None);
    }
    for reason in ["MALFORMED_RESPONSE", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "ERROR"] {
        let body = event(&format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"O"}}]}},"finishReason":"{reason}"}}]}}"#
        ));
        check(Api::Google, &body, Reason::StreamError, Fault::Provider);
    }
}

#[test]
fn error_by_another_name_is_stream_error() {
    for error in [
        "error: {\"code\":500,\"message\":\"x\"}\n\n".to_owned(),
        "error: Failed to process the batch\n\n".to_owned(),
        event(r#"{"detail":"Internal error"}"#),
        event(r#"{"detail":[{"msg":"x"}]}"#),
        event(r#"{"message":"x","code":500}"#),
        event(r#"{"message":"x","statusCode":500}"#),
        event(r#"{"errors":[{"message":"x"}]}"#),
        event(r#"{"status":"error"}"#),
        event(r#"{"status":"failed","id":"x"}"#),
        event(r#"{"base_resp":{"status_code":1000,"status_msg":"x"}}"#),
        event(r#"{"success":false}"#),
        format!("event: exception\n{}", event("{}")),
        format!("event: error\n{}", event("x")),
    ] {
        check(Api::Openai, &(error.clone() + DONE), Reason::StreamError, Fault::Provider);
        check(Api::Langmart, &(content("O") + &error + DONE), Reason::StreamError, Fault::Gateway);
    }
    for no_error in [
        event("{}"),
        event(r#"{"type":"ping"}"#),
        event(r#"{"id":"x","object":"chat.completion.chunk"}"#),
        event(r#"{"choices":[],"error":{}}"#),
        event(r#"{"choices":[],"error":null,"message":""}"#),
        event(r#"{"choices":[],"prompt_filter_results":[{"code":1}]}"#),
        event(r#"{"usage":{"prompt_tokens":9}}"#),
        event(r#"{"detail":""}"#),
        event(r#"{"errors":[]}"#),
        event(r#"{"status":"processing"}"#),
        event(r#"{"base_resp":{"status_code":0}}"#),
        format!("event: progress\n{}", event(r#"{"code":7}"#)),
        "errors: 0\n\n".to_owned(),
    ] {
        let body = no_error + &content("OK") + &finish("stop") + DONE;
        check(Api::Openai, &body, Reason::Ok, Fault::None);
    }
}

#[test]
fn empty_body_without_a_stream_is_malformed() {
    for (head, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Reason::Malformed),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", Reason::Malformed),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n",
            Reason::StreamTruncated,
        ),
    ] {
        let (outcome, _) = play(Api::Openai, vec![send(head)]);
        assert_eq!((outcome.reason, outcome.fault), (reason, Fault::Provider), "{head} {outcome:?}");
    }
}

#[test]
fn usage_beyond_the_request_is_unknown() {
    let usage = |input: &str, output: &str| {
        let usage = format!(r#""usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}"#);
        content("OK") + &finish("stop") + &event(&format!(r#"{{"choices":[],{usage}}}"#)) + DONE
    };
    for (input, output) in [
        ("100000000", "100000000"),
        ("9", "100000000"),
        ("100000000", "2"),
        ("9", "5000"),
        ("9", "18446744073709551615"),
        ("1e300", "2"),
        ("-1", "2"),
        ("9", "-2"),
        ("9", "1.5"),
        ("1e9", "1e9"),
    ] {
        let outcome = check(Api::Openai, &usage(input, output), Reason::Ok, Fault::None);
        assert!(
            detail_of(&outcome).starts_with("malformed usage"),
            "{input} {output}: {}",
            detail_of(&outcome)
        );
        let counted = (outcome.input_tokens, outcome.output_tokens, outcome.tokens_estimated);
        assert_eq!(counted, (None, None, false), "{input} {output}");
    }
    for (input, output) in
        [("9", "2"), ("9", "32"), ("9", "33"), ("9", "128"), ("1000", "2"), ("9.0", "2.0"), ("2e1", "2")]
    {
        let outcome = check(Api::Openai, &usage(input, output), Reason::Ok, Fault::None);
        assert_eq!(detail_of(&outcome), "", "{input} {output}");
        assert_eq!(outcome.output_tokens, output.parse().ok().map(|output: f64| output as u64));
    }
}

#[test]
fn groq_reports_its_processing_time() {
    let last = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"x_groq":{"usage":{"queue_time":0.1,"prompt_tokens":9,"completion_tokens":2,"total_time":0.3}}}"#;
    let outcome = check(Api::Groq, &(content("OK") + &event(last) + DONE), Reason::Ok, Fault::None);
    assert_eq!(outcome.reported_processing, Some(milliseconds(400)));
    for hostile in ["-1", "1e300", "null", "\"1\"", "86401"] {
        let last = last.replace("0.3", hostile);
        let outcome = check(Api::Groq, &(content("OK") + &event(&last) + DONE), Reason::Ok, Fault::None);
        assert_eq!(outcome.reported_processing, None, "{hostile}");
    }
}

#[test]
fn other_answers_are_distinguished_from_streams() {
    use Reason::{ErrorIn200, Malformed};

    let completion = r#"{"choices":[{"message":{"content":"OK"},"finish_reason":"stop"}]}"#;
    for (body, reason) in [
        (r#"{"error":{"message":"x","code":"server_error"}}"#, ErrorIn200),
        ("\u{feff} \n{\"success\":false}", ErrorIn200),
        (r#"[{"error":{"code":503,"status":"UNAVAILABLE"}}]"#, ErrorIn200),
        ("<html>a portal</html>", Malformed),
        (completion, Malformed),
        (r#"[{"candidates":[]},{"candidates":[]}]"#, Malformed),
        ("{\"cut", Malformed),
        ("upstream connect error", Malformed),
        ("data: not JSON\n\n", Malformed),
        ("data: {\"choices\":\n\n", Malformed),
    ] {
        check(Api::Google, body, reason, Fault::Provider);
        check(Api::Langmart, body, reason, Fault::Gateway);
    }
    let line = format!("data: {}\n\n", "x".repeat(512 * 1024));
    check(Api::Openai, &line, Malformed, Fault::Provider);
    let event = format!("{}\n", "data: 0123456789\n".repeat(60_000));
    check(Api::Openai, &event, Malformed, Fault::Provider);
}

#[test]
fn refusal_is_no_stream() {
    for (status, body, reason) in [
        (429, r#"{"error":{"code":"PROVIDER_OPENAI_429"}}"#, Reason::RateLimited),
        (503, "data: {}\n\n", Reason::Unavailable),
        (404, r#"{"error":{"code":"model_not_found"}}"#, Reason::ModelNotFound),
        (400, r#"{"error":{"message":"unknown parameter stream_options"}}"#, Reason::InvalidRequest),
    ] {
        let head = format!("HTTP/1.1 {status} X\r\nRetry-After: 7\r\nContent-Length: {}\r\n\r\n", body.len());
        let (outcome, _) = play(Api::Langmart, vec![send(head), send(body)]);
        assert_eq!(outcome.reason, reason, "{outcome:?}");
        assert_eq!(outcome.retry_after, matches!(status, 429 | 503).then_some(7.0));
    }
}

/// Tests that measure time.
mod phases {
    use super::*;

    #[test]
    fn first_token_and_pace_match_the_server() {
        // A busy machine occasionally delays either side by some milliseconds; a clock that starts or
        // stops at the wrong event, of which there is one every 20 ms, is wrong every time.
        let apart: Vec<[Duration; 3]> = (0..7).map(|_| measured_apart()).collect();
        for index in 0..3 {
            let least = apart.iter().map(|apart| apart[index]).min().unwrap();
            assert!(least < milliseconds(2), "{index}: {least:?} of {apart:?}");
        }
    }

    /// Returns the differences of first reasoning, first token and pace from the times of the server's
    /// writes.
    fn measured_apart() -> [Duration; 3] {
        let counts = r#"{"usage":{"prompt_tokens":9,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":2}}}"#;
        let steps = vec![
            send(HEAD),
            send(": waiting\n\n"),
            Pause(milliseconds(20)),
            send(ROLE),
            Pause(milliseconds(20)),
            send(event(r#"{"choices":[{"delta":{"reasoning_content":"Hm"}}]}"#)),
            Pause(milliseconds(20)),
            send(content("O")),
            Pause(milliseconds(20)),
            send(content("K")),
            Pause(milliseconds(20)),
            send(content("!")),
            send(finish("stop")),
            send(event(counts)),
            send(DONE),
        ];
        let (outcome, seen) = play(Api::Openai, steps);
        assert!(outcome.success(), "{outcome:?}");
        assert_eq!((outcome.input_tokens, outcome.output_tokens), (Some(9), Some(5)));
        assert!(!outcome.tokens_estimated);
        assert!(outcome.duration >= milliseconds(100), "{outcome:?}");
        let since_accept = |index: usize| seen.sent[index] - seen.accepted;
        [
            outcome.time_to_first_reasoning.unwrap().abs_diff(since_accept(3)),
            outcome.time_to_first_token.unwrap().abs_diff(since_accept(4)),
            outcome.time_per_output_token.unwrap().abs_diff((seen.sent[6] - seen.sent[4]) / 2),
        ]
    }
}
