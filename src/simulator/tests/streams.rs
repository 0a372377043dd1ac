//! Tests of streams: events, faults, and the time of the first token.

use std::net::Shutdown;

use super::{
    connections::{handshake, http2_client},
    *,
};

const DONE: &str = "[DONE]";

/// The body of a stream, without its chunked coding.
#[derive(Debug)]
struct Streamed {
    head: String,
    body: Vec<u8>,
    /// Whether HTTP announced the end.
    complete: bool,
    end: io::Result<()>,
}

impl Streamed {
    fn parse(bytes: &[u8], end: io::Result<()>) -> Self {
        let Answer { status, head, body: mut rest } = Answer::parse(bytes);
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
        let (mut body, mut complete) = (Vec::new(), false);
        while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
            let length = usize::from_str_radix(str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            complete = length == 0;
            let end = (line + 2 + length).min(rest.len());
            body.extend_from_slice(&rest[line + 2..end]);
            rest.drain(..(end + 2).min(rest.len()));
        }
        Self { head, body, complete, end }
    }

    /// Parses the blocks: `:comment`, `[DONE]`, or the event's data with its name in `event`.
    fn blocks(&self) -> Vec<Value> {
        let text = str::from_utf8(&self.body).unwrap();
        text.split_terminator("\n\n").map(block).collect()
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

fn block(text: &str) -> Value {
    if let Some(comment) = text.strip_prefix(": ") {
        return json!(format!(":{comment}"));
    }
    let (name, data) = match text.split_once('\n') {
        Some((name, data)) => (name.strip_prefix("event: "), data),
        None => (None, text),
    };
    let data = data.strip_prefix("data: ").unwrap_or_else(|| panic!("no data: {text}"));
    let mut value = serde_json::from_str(data).unwrap_or_else(|_| json!(data));
    if let Some(name) = name {
        assert!(value["type"] == name, "{text}");
    }
    if let Some(members) = value.as_object_mut() {
        for name in ["id", "created", "obfuscation"] {
            members.remove(name);
        }
    }
    value
}

/// Returns the call of a stream: path, headers, body.
fn stream_call(
    provider: SimulatedService,
    model: Option<&str>,
    more: &Value,
) -> (String, &'static str, String) {
    let (path, headers, body) = chat(provider);
    let mut body: Value = serde_json::from_str(&body).unwrap();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    if provider == SimulatedService::Google {
        let model = model.unwrap_or("gemini-2.5-flash-lite");
        let path = format!("/google/v1beta/models/{model}:streamGenerateContent?alt=sse");
        return (path, headers, body.to_string());
    }
    body["stream"] = json!(true);
    if let Some(model) = model {
        body["model"] = json!(model);
    }
    (path, headers, body.to_string())
}

fn send(simulator: &Simulator, call: &(String, &'static str, String), headers: &str) -> TcpStream {
    let mut stream = connect(simulator);
    let (path, own, body) = call;
    stream.write_all(request("POST", path, &format!("{own}{headers}"), body).as_bytes()).unwrap();
    stream
}

/// Sends a call and reads until the server closes.
fn ask_call(simulator: &Simulator, call: &(String, &'static str, String), simulate: &str) -> Streamed {
    let mut stream = send(simulator, call, &format!("Connection: close\r\nx-simulate: {simulate}\r\n"));
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map(drop);
    Streamed::parse(&bytes, end)
}

/// Sends a call and closes the sending side: a server that waits for the client's end closes then.
fn ask_and_leave(simulator: &Simulator, provider: SimulatedService, simulate: &str) -> Streamed {
    let call = stream_call(provider, None, &json!({}));
    let mut stream = send(simulator, &call, &format!("x-simulate: {simulate}\r\n"));
    stream.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map(drop);
    Streamed::parse(&bytes, end)
}

fn ask_stream(simulator: &Simulator, provider: SimulatedService, simulate: &str) -> Streamed {
    ask_call(simulator, &stream_call(provider, None, &json!({})), simulate)
}

/// Returns the blocks' members under these pointers, as far as they exist.
fn members(blocks: &[Value], pointers: &[&str]) -> Vec<Value> {
    let of = |block: &Value| -> Value {
        if block.is_string() {
            return block.clone();
        }
        pointers.iter().filter_map(|pointer| block.pointer(pointer).cloned()).collect()
    };
    blocks.iter().map(of).collect()
}

#[track_caller]
fn check_blocks(streamed: &Streamed, pointers: &[&str], expected: &Value) {
    assert_eq!(json!(members(&streamed.blocks(), pointers)), *expected, "{}", streamed.text());
    assert!(streamed.complete && streamed.end.is_ok(), "{streamed:?}");
}

const OPENAI: [&str; 3] = ["/choices/0/delta", "/choices/0/finish_reason", "/usage"];

#[test]
fn openai_streams_with_and_without_usage() {
    let simulator = fair();
    let plain = ask_stream(&simulator, SimulatedService::Openai, "pace");
    let role = json!({"role": "assistant", "content": "", "refusal": null});
    check_blocks(
        &plain,
        &OPENAI,
        &json!([[role, null], [{"content": "O"}, null], [{"content": "K"}, null], [{}, "stop"], DONE]),
    );
    assert!(plain.head.contains("Content-Type: text/event-stream; charset=utf-8"), "{}", plain.head);
    assert!(plain.head.contains("x-ratelimit-reset-requests") && plain.head.contains("x-request-id"));
    assert_eq!(plain.text().matches("\"obfuscation\":\"a").count(), 4);

    let asked = json!({"stream_options": {"include_usage": true}});
    let call = stream_call(SimulatedService::Openai, None, &asked);
    let blocks = ask_call(&simulator, &call, "pace; tokens=1").blocks();
    assert_eq!(members(&blocks[..3], &["/usage"]), [json!([null]), json!([null]), json!([null])]);
    assert_eq!(blocks[3]["choices"], json!([]));
    assert_eq!((&blocks[3]["usage"]["completion_tokens"], &blocks[4]), (&json!(1), &json!(DONE)));
    assert!(!ask_call(&simulator, &call, "pace; usage=false").text().contains("usage"));
    let unasked = ask_stream(&simulator, SimulatedService::Langmart, "pace; usage=true");
    assert_eq!(unasked.blocks()[4]["usage"]["total_tokens"], json!(9));
}

#[test]
fn openai_compatible_streams_differ() {
    let simulator = fair();
    check_blocks(
        &ask_stream(&simulator, SimulatedService::Langmart, "pace; tokens=1"),
        &OPENAI,
        &json!([[{"role": "assistant", "content": ""}, null], [{"content": "OK"}, null], [{}, "stop"], DONE]),
    );
    let groq = ask_stream(&simulator, SimulatedService::Groq, "pace; tokens=1");
    let role = json!({"role": "assistant", "content": ""});
    let thought = json!({"reasoning": "User wants OK."});
    check_blocks(
        &groq,
        &OPENAI,
        &json!([[role, null], [thought, null], [{"content": "OK"}, null], [{}, "stop"], DONE]),
    );
    let blocks = groq.blocks();
    assert!(blocks[0]["x_groq"]["id"].is_string() && blocks[1].get("x_groq").is_none());
    assert_eq!(blocks[3]["x_groq"]["usage"]["completion_tokens"], json!(2));
    let plain = stream_call(SimulatedService::Groq, Some("llama-3.1-8b-instant"), &json!({}));
    assert!(!ask_call(&simulator, &plain, "pace").text().contains("reasoning"));

    let openrouter = ask_stream(&simulator, SimulatedService::Openrouter, "pace; tokens=1");
    let processing = ":OPENROUTER PROCESSING";
    let blocks = openrouter.blocks();
    let usage = blocks[5]["usage"].clone();
    assert_eq!((&usage["completion_tokens"], &blocks[5]["provider"]), (&json!(1), &json!("Simulated")));
    let empty = json!({"role": "assistant", "content": ""});
    check_blocks(
        &openrouter,
        &OPENAI,
        &json!([
            processing, processing, processing, [{"role": "assistant", "content": "OK"}, null],
            [{"content": ""}, "stop"], [empty, "stop", usage], DONE
        ]),
    );

    let deepseek = stream_call(SimulatedService::Openai, Some("deepseek-reasoner"), &json!({}));
    check_blocks(
        &ask_call(&simulator, &deepseek, "pace; tokens=1"),
        &OPENAI[..1],
        &json!([
            [{"role": "assistant", "content": null, "reasoning_content": ""}],
            [{"content": null, "reasoning_content": "User wants OK."}],
            [{"content": "OK", "reasoning_content": null}], [{"content": ""}], DONE
        ]),
    );
    let mistral = stream_call(SimulatedService::Openai, Some("magistral-small-latest"), &json!({}));
    let thought = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "User wants OK."}]}]);
    check_blocks(
        &ask_call(&simulator, &mistral, "pace"),
        &OPENAI[..1],
        &json!([
            [{"role": "assistant", "content": ""}], [{"content": thought}],
            [{"content": [{"type": "text", "text": "O"}]}], [{"content": "K"}], [{"content": ""}], DONE
        ]),
    );
}

#[test]
fn anthropic_streams_blocks() {
    let simulator = fair();
    let pointers = ["/type", "/index", "/content_block/type", "/delta", "/usage"];
    let text = |text: &str| json!(["content_block_delta", 0, {"type": "text_delta", "text": text}]);
    let ended = json!({"stop_reason": "end_turn", "stop_sequence": null});
    let streamed = ask_stream(&simulator, SimulatedService::Anthropic, "pace");
    check_blocks(
        &streamed,
        &pointers,
        &json!([
            ["message_start"], ["content_block_start", 0, "text"], ["ping"], text("O"), text("K"),
            ["content_block_stop", 0], ["message_delta", ended, {"output_tokens": 2}], ["message_stop"]
        ]),
    );
    assert!(streamed.text().contains(" }\n\n"), "padded before the brace");
    assert_eq!(streamed.blocks()[0]["message"]["usage"]["input_tokens"], json!(7));
    assert!(
        !ask_stream(&simulator, SimulatedService::Anthropic, "pace; usage=false").text().contains("usage")
    );

    let call = stream_call(SimulatedService::Anthropic, Some("claude-haiku-5-5"), &json!({}));
    let types = members(
        &ask_call(&simulator, &call, "pace; tokens=1").blocks(),
        &["/type", "/index", "/content_block/type", "/delta/type"],
    );
    let expected = json!([
        ["message_start"],
        ["content_block_start", 0, "thinking"],
        ["ping"],
        ["content_block_delta", 0, "thinking_delta"],
        ["content_block_delta", 0, "signature_delta"],
        ["content_block_stop", 0],
        ["content_block_start", 1, "text"],
        ["content_block_delta", 1, "text_delta"],
        ["content_block_stop", 1],
        ["message_delta"],
        ["message_stop"]
    ]);
    assert_eq!(json!(types), expected);
    let disabled = json!({"thinking": {"type": "disabled"}});
    let call = stream_call(SimulatedService::Anthropic, Some("claude-haiku-5-5"), &disabled);
    assert!(!ask_call(&simulator, &call, "pace").text().contains("thinking"));
}

#[test]
fn google_streams_events_or_an_array() {
    let simulator = fair();
    let pointers =
        ["/candidates/0/content/parts", "/candidates/0/finishReason", "/usageMetadata/totalTokenCount"];
    let streamed = ask_stream(&simulator, SimulatedService::Google, "pace");
    check_blocks(&streamed, &pointers, &json!([[[{"text": "O"}], 8], [[{"text": "K"}], "STOP", 9]]));
    assert!(streamed.head.contains("Content-Disposition: attachment"), "{}", streamed.head);

    let thinking = stream_call(SimulatedService::Google, Some("gemini-2.5-flash"), &json!({}));
    let thought = json!([{"text": "The user wants OK.", "thought": true}]);
    check_blocks(
        &ask_call(&simulator, &thinking, "pace; tokens=1"),
        &pointers,
        &json!([[thought, 8], [[{"text": "OK"}], "STOP", 9]]),
    );
    let (path, headers, body) = thinking;
    let array = (path.replace("?alt=sse", ""), headers, body);
    let streamed = ask_call(&simulator, &array, "pace");
    let values: Value = serde_json::from_slice(&streamed.body).unwrap();
    assert_eq!(values.as_array().map(Vec::len), Some(3));
    assert_eq!(values.pointer("/2/candidates/0/finishReason"), Some(&json!("STOP")));
    assert!(streamed.head.contains("Content-Type: application/json"), "{}", streamed.head);
    let broken = ask_call(&simulator, &array, "stream_error_mid; tokens=1");
    let values: Value = serde_json::from_str(&format!("{}]", broken.text())).unwrap();
    assert_eq!(values.pointer("/2/error/status"), Some(&json!("UNAVAILABLE")));
    let answer =
        ask(&simulator, "POST", &array.0, &format!("{headers}x-simulate: rate_limited\r\n"), &array.2);
    check_members(&answer, 429, &[("/0/error/status", json!("RESOURCE_EXHAUSTED"))]);
}

#[test]
fn invalid_stream_call_is_rejected_before_the_stream() {
    let simulator = scripted("[[rule]]\nfault = 'stream_truncated'");
    let (path, headers, body) = stream_call(SimulatedService::Openai, Some("gone"), &json!({}));
    let answer = ask(&simulator, "POST", &path, headers, &body);
    check_members(&answer, 404, &[("/error/code", json!("model_not_found"))]);
    let (path, headers, body) = chat(SimulatedService::Openai);
    let answer = ask(&simulator, "POST", &path, headers, &body);
    check_members(&answer, 200, &[("/choices/0/message/content", json!("OK"))]);
    let answer = ask(&simulator, "POST", &path, &format!("{headers}x-simulate: stream_empty\r\n"), &body);
    check_members(&answer, 200, &[("/choices/0/message/content", json!("OK"))]);
    let faults: Vec<_> = simulator.requests().into_iter().map(|recorded| recorded.fault).collect();
    assert_eq!(faults, [Some("stream_truncated"), None, None], "no streams, no faults of streams");
}

#[test]
fn stream_errors_have_the_format_of_their_service() {
    let simulator = fair();
    let last = |provider, simulate: &str| {
        let streamed = ask_stream(&simulator, provider, simulate);
        assert!(streamed.complete, "{streamed:?}");
        let mut blocks = streamed.blocks();
        (blocks.pop().unwrap(), blocks)
    };
    let (error, before) = last(SimulatedService::Openai, "stream_error_mid; tokens=1");
    assert_eq!((&error["error"]["type"], &error["error"]["code"]), (&json!("server_error"), &json!(null)));
    assert_eq!(members(&before, &["/choices/0/delta/content"]), [json!([""]), json!(["OK"])]);
    let (done, before) = last(SimulatedService::Openai, "stream_error_mid; variant=done");
    assert_eq!((&done, before[3]["error"].is_object()), (&json!(DONE), true));
    let (error, before) = last(SimulatedService::Openai, "stream_error_first");
    assert!(error["error"].is_object() && before.is_empty());

    let (error, _) = last(SimulatedService::Langmart, "stream_error_mid");
    let expected = json!({"code": "GATEWAY_TIMEOUT_001", "message": "Gateway did not respond within 60s",
        "type": "gateway_timeout", "status": 504});
    assert_eq!(error, json!({"error": expected}));
    let (error, _) = last(SimulatedService::Langmart, "stream_error_mid; upstream=anthropic");
    assert_eq!(error["error"]["code"], json!("PROVIDER_ANTHROPIC_529"));
    let (error, _) = last(SimulatedService::Groq, "stream_error_mid");
    assert_eq!(error["error"]["type"], json!("internal_server_error"));
    let (error, before) = last(SimulatedService::Groq, "stream_error_mid; tokens=1; variant=x_groq");
    assert_eq!(error["x_groq"]["error"], json!("over_capacity"));
    assert_eq!((&error["choices"][0]["finish_reason"], before.is_empty()), (&json!("stop"), false));

    let (error, before) = last(SimulatedService::Anthropic, "stream_error_mid; tokens=1");
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("overloaded_error")));
    assert_eq!(before.len(), 4);
    let (error, before) = last(SimulatedService::Anthropic, "stream_error_first");
    assert_eq!((&error["type"], before.len()), (&json!("error"), 0));
    let (error, before) = last(SimulatedService::Google, "stream_error_mid; tokens=1");
    assert_eq!((&error["error"]["code"], before.len()), (&json!(503), 1));
    assert!(before[0]["candidates"][0].get("finishReason").is_none());

    let (error, before) = last(SimulatedService::Openrouter, "stream_error_mid; tokens=1");
    assert_eq!((&error["error"]["code"], before.len()), (&json!("server_error"), 4));
    assert_eq!(error["choices"][0]["finish_reason"], json!("error"));
    let (done, before) = last(SimulatedService::Openrouter, "stream_error_mid; tokens=0; variant=recorded");
    let reasons = members(&before[3..], &["/choices/0/finish_reason", "/error/code"]);
    assert_eq!((&done, json!(reasons)), (&json!(DONE), json!([["length"], [null, 400]])));
    let (error, before) = last(SimulatedService::Openrouter, "stream_error_first");
    assert!(error["error"].is_object() && before.iter().all(Value::is_string) && before.len() == 3);
}

/// Returns the blocks without values that differ between streams, and without Google's end marker,
/// which is part of its content.
fn comparable(streamed: &Streamed) -> Vec<Value> {
    let mut blocks = streamed.blocks();
    for block in &mut blocks {
        for (pointer, name) in
            [("", "x_groq"), ("", "responseId"), ("/message", "id"), ("/candidates/0", "finishReason")]
        {
            if let Some(members) = block.pointer_mut(pointer).and_then(Value::as_object_mut) {
                members.remove(name);
            }
        }
    }
    blocks
}

#[test]
fn streams_can_end_without_end_marker() {
    let simulator = fair();
    for provider in SimulatedService::ALL {
        let whole = comparable(&ask_stream(&simulator, provider, "pace; tokens=3"));
        let expected = &whole[..whole.len() - provider.blocks_after_tokens()];
        let check = |streamed: Streamed, complete: bool, end: Result<(), io::ErrorKind>| {
            assert_eq!(comparable(&streamed), expected);
            assert!(!streamed.text().contains("finishReason"));
            assert_eq!((streamed.complete, streamed.end.map_err(|error| error.kind())), (complete, end));
        };
        check(ask_stream(&simulator, provider, "stream_truncated; tokens=3"), true, Ok(()));
        check(ask_stream(&simulator, provider, "stream_truncated; tokens=3; variant=close"), false, Ok(()));
        let reset = Err(io::ErrorKind::ConnectionReset);
        check(ask_stream(&simulator, provider, "stream_truncated; tokens=3; variant=reset"), false, reset);
        // Here the client ends the connection.
        check(ask_and_leave(&simulator, provider, "stream_stalled; tokens=3"), false, Ok(()));
    }
    let comments = ask_stream(&simulator, SimulatedService::Openrouter, "stream_comments_only");
    assert_eq!(
        (comments.text(), comments.complete),
        (": OPENROUTER PROCESSING\n\n".repeat(3).as_str(), true)
    );
    let comments = ask_stream(&simulator, SimulatedService::Openai, "stream_comments_only; variant=close");
    assert_eq!((comments.text(), comments.complete), (": keep-alive\n\n".repeat(3).as_str(), false));
}

#[test]
fn streams_can_continue_after_end_marker() {
    let simulator = fair();
    for provider in SimulatedService::ALL {
        let whole = comparable(&ask_stream(&simulator, provider, "pace; tokens=3"));
        let streamed = ask_and_leave(&simulator, provider, "stream_after_done; tokens=3; token=0ms");
        let blocks = comparable(&streamed);
        assert_eq!(blocks[..whole.len()], whole);
        assert_eq!(blocks.len(), whole.len() + 1);
        assert!(blocks[whole.len()].to_string().contains("\" OK\""), "{blocks:?}");
        assert!(!streamed.complete, "the connection stays open");
    }
}

/// Reads that many bytes of the answer, as far as they are complete blocks.
fn read_some(simulator: &Simulator, provider: SimulatedService, simulate: &str, bytes: usize) -> Streamed {
    let call = stream_call(provider, None, &json!({}));
    let mut stream = send(simulator, &call, &format!("x-simulate: {simulate}\r\n"));
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).unwrap();
    let mut streamed = Streamed::parse(&read, Ok(()));
    let whole = streamed.text().rfind("\n\n").unwrap();
    streamed.body.truncate(whole + 2);
    streamed
}

#[test]
fn streams_can_be_endless() {
    let simulator = fair();
    for provider in SimulatedService::ALL {
        let streamed = read_some(&simulator, provider, "stream_endless; token=0ms", 1 << 18);
        let blocks = comparable(&streamed);
        assert!(blocks[20..].iter().all(|block| *block == blocks[20]), "{provider:?}");
        assert!(
            !streamed.complete
                && blocks.iter().all(|block| *block != DONE && block["type"] != "message_stop")
        );
    }
    let streamed = read_some(
        &simulator,
        SimulatedService::Openai,
        "stream_endless; variant=after_done; token=0ms",
        1 << 18,
    );
    let blocks = comparable(&streamed);
    assert_eq!((&blocks[4], blocks.iter().filter(|block| **block == DONE).count()), (&json!(DONE), 1));
    assert!(blocks[5..].iter().all(|block| *block == blocks[5]));
    while simulator.requests().iter().any(|recorded| recorded.closed.is_none()) {
        std::thread::yield_now();
    }
}

#[test]
fn streams_can_be_empty_or_cut_inside_characters() {
    let simulator = fair();
    let empty = ask_stream(&simulator, SimulatedService::Openai, "stream_empty");
    let role = json!({"role": "assistant", "content": "", "refusal": null});
    check_blocks(&empty, &OPENAI, &json!([[role, null], [{}, "length"], DONE]));
    let empty = ask_stream(&simulator, SimulatedService::Anthropic, "stream_empty");
    check_blocks(
        &empty,
        &["/type", "/delta/stop_reason"],
        &json!([
            ["message_start"],
            ["content_block_start"],
            ["ping"],
            ["content_block_stop"],
            ["message_delta", "max_tokens"],
            ["message_stop"]
        ]),
    );
    let empty = ask_stream(&simulator, SimulatedService::Google, "stream_empty");
    let content = json!({"role": "model"});
    check_blocks(
        &empty,
        &["/candidates/0/content", "/candidates/0/finishReason"],
        &json!([[content, "MAX_TOKENS"]]),
    );
    for provider in SimulatedService::ALL {
        let streamed = ask_stream(&simulator, provider, "stream_multibyte");
        assert!(streamed.complete && streamed.text().contains("\"héllo – 你好 🙂\""), "{streamed:?}");
        let recorded = simulator.requests().pop().unwrap();
        let number = recorded.writes.iter().position(|write| Some(write.at) == recorded.first_token).unwrap();
        assert!(number >= 10, "the write with the last piece: {recorded:?}");
    }
    assert_eq!(simulator.requests().iter().filter(|recorded| recorded.first_token.is_none()).count(), 3);
}

#[test]
fn stream_ends_at_max_tokens() {
    let simulator = fair();
    let cut = |provider, more: Value, pointers: &[&str]| {
        let call = stream_call(provider, None, &more);
        members(&ask_call(&simulator, &call, "pace; tokens=5").blocks(), pointers)
    };
    let limit = json!({"max_tokens": 2, "stream_options": {"include_usage": true}});
    let openai =
        cut(SimulatedService::Openai, limit, &["/choices/0/finish_reason", "/usage/completion_tokens"]);
    assert!(json!(openai).to_string().contains(r#"["length"],[2]"#), "{openai:?}");
    let anthropic = cut(
        SimulatedService::Anthropic,
        json!({"max_tokens": 2}),
        &["/delta/stop_reason", "/usage/output_tokens"],
    );
    assert!(anthropic.contains(&json!(["max_tokens", 2])), "{anthropic:?}");
    let google = json!({"generationConfig": {"maxOutputTokens": 2}});
    let google = cut(
        SimulatedService::Google,
        google,
        &["/candidates/0/finishReason", "/usageMetadata/candidatesTokenCount"],
    );
    assert_eq!(google.last(), Some(&json!(["MAX_TOKENS", 2])));
    // Thoughts have used up what was asked for.
    let empty = ask_call(
        &simulator,
        &stream_call(SimulatedService::Anthropic, None, &json!({"max_tokens": 12})),
        "stream_empty",
    );
    assert!(empty.blocks().iter().any(|block| block.pointer("/usage/output_tokens") == Some(&json!(12))));
}

#[test]
fn error_in_a_stream_has_the_request_id_of_the_response() {
    let streamed = ask_stream(&fair(), SimulatedService::Anthropic, "stream_error_mid");
    let id = streamed.blocks().last().unwrap()["request_id"].as_str().unwrap().to_owned();
    assert!(streamed.head.contains(&format!("request-id: {id}")), "{}", streamed.head);
}

#[test]
fn stream_call_can_have_another_answer() {
    let simulator = fair();
    let (path, headers, body) = stream_call(SimulatedService::Openrouter, None, &json!({}));
    let error = format!("{headers}x-simulate: error_in_200\r\n");
    let answer = ask(&simulator, "POST", &path, &error, &body);
    check_members(&answer, 200, &[("/error/code", json!(500))]);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = ask(&simulator, "POST", &path, &format!("{headers}x-simulate: empty\r\n"), &body);
    assert_eq!(answer.body, b"0\r\n\r\n");
}

/// Returns the time from the complete request to the first token, in milliseconds.
#[track_caller]
fn first_token_ms(recorded: &Recorded) -> f64 {
    (recorded.first_token.unwrap() - recorded.received.unwrap()).as_secs_f64() * 1e3
}

const PACE: &str = "first_token=40ms; token=15ms; tokens=4";

#[test]
fn record_has_the_write_of_the_first_token() {
    let simulator = fair();
    for (provider, before) in [
        (SimulatedService::Openai, 1),
        (SimulatedService::Groq, 2),
        (SimulatedService::Openrouter, 1),
        (SimulatedService::Anthropic, 1),
        (SimulatedService::Google, 1),
    ] {
        let (path, headers, body) = stream_call(provider, None, &json!({}));
        let headers = format!("{headers}x-simulate: pace; processing=10ms; {PACE}\r\n");
        assert_eq!(ask(&simulator, "POST", &path, &headers, &body).status, 200);
        let recorded = simulator.requests().pop().unwrap();
        let writes: Vec<_> = recorded.writes.iter().map(|write| write.at).collect();
        // The head with everything that needs no generation, reasoning, four tokens, the last one
        // with the events of the end, and the last chunk of HTTP.
        assert_eq!(writes.len(), before + 5, "{provider:?}");
        assert_eq!(recorded.first_token, Some(writes[before]), "{provider:?}");
        let received = recorded.received.unwrap();
        assert!(recorded.head_received <= received);
        for (number, at) in writes[before..before + 4].iter().enumerate() {
            let due = Duration::from_millis(50 + 15 * number as u64);
            assert!(*at - received >= due, "{provider:?}: token {number} after {:?}", *at - received);
        }
        if provider == SimulatedService::Groq {
            assert!(writes[1] - received >= Duration::from_millis(30), "a thought, halfway");
        }
    }
}

#[test]
fn pace_applies_to_whole_answers_and_errors() {
    let simulator = scripted(
        "[[rule]]\nprovider = 'langmart'\npace = { extra = '30ms' }\n\
         [[rule]]\npace = { processing = '5ms', first_token = '10ms', token = '5ms', tokens = 3 }",
    );
    let delay = |provider, simulate: &str| {
        let answer = match simulate {
            "" => {
                let (path, headers, body) = chat(provider);
                ask(&simulator, "POST", &path, headers, &body)
            }
            _ => ask_chat(&simulator, provider, simulate),
        };
        let recorded = simulator.requests().pop().unwrap();
        (answer, recorded.writes[0].at - recorded.received.unwrap())
    };
    let (answer, took) = delay(SimulatedService::Openai, "");
    check_members(
        &answer,
        200,
        &[("/choices/0/message/content", json!("OK OK")), ("/usage/completion_tokens", json!(3))],
    );
    assert!(took >= Duration::from_millis(25), "{took:?}");
    let (_, took) = delay(SimulatedService::Langmart, "");
    assert!(took >= Duration::from_millis(55), "{took:?}");
    let (answer, took) = delay(SimulatedService::Langmart, "rate_limited");
    assert_eq!(answer.status, 429);
    assert!(took >= Duration::from_millis(30), "{took:?}");
    let (answer, _) = delay(SimulatedService::Google, "pace; tokens=1; usage=false");
    assert_eq!(answer.json().get("usageMetadata"), None);
}

#[test]
fn first_token_is_recorded_through_tls() {
    let simulator = fair();
    let mut stream = handshake(&simulator, "localhost").unwrap();
    let (path, headers, body) = stream_call(SimulatedService::Openai, None, &json!({}));
    let headers = format!("{headers}Connection: close\r\nx-simulate: pace; {PACE}\r\n");
    stream.write_all(request("POST", &path, &headers, &body).as_bytes()).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains("\"content\":\"O\"") {
        let bytes = stream.read(&mut buffer).unwrap();
        assert!(bytes > 0, "{text}");
        text.push_str(str::from_utf8(&buffer[..bytes]).unwrap());
    }
    let seen = Instant::now();
    let recorded = simulator.requests().remove(0);
    let number = recorded.writes.iter().position(|write| Some(write.at) == recorded.first_token);
    assert_eq!(number, Some(1), "behind the head: {recorded:?}");
    assert!(recorded.first_token.unwrap() <= seen);
    assert!(first_token_ms(&recorded) >= 40.0);
}

#[test]
fn http_1_0_stream_ends_with_the_connection() {
    let simulator = fair();
    let (path, headers, body) = stream_call(SimulatedService::Openai, None, &json!({}));
    let request = request("POST", &path, headers, &body).replace("HTTP/1.1", "HTTP/1.0");
    let (bytes, end) = exchange(&simulator, &request);
    let answer = Answer::parse(&bytes);
    assert!(end.is_ok() && answer.body.starts_with(b"data: {") && answer.body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!((answer.header("transfer-encoding"), answer.header("content-length")), (None, None));
}

#[test]
fn http2_stream_faults_and_first_token_are_recorded() {
    let simulator = fair();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = http2_client(&simulator);
    let (path, _, body) = stream_call(SimulatedService::Openai, None, &json!({}));
    let url = format!("https://{}{path}", simulator.tls_address().unwrap());
    let open = async |simulate: &str| {
        let request = client.post(&url).header("x-simulate", simulate).bearer_auth("sk-good");
        let response =
            request.header("content-type", "application/json").body(body.clone()).send().await.unwrap();
        assert_eq!((response.version(), response.content_length()), (reqwest::Version::HTTP_2, None));
        response
    };
    runtime.block_on(async {
        let mut response = open(&format!("pace; {PACE}")).await;
        let mut visible = None;
        while let Some(chunk) = response.chunk().await.unwrap() {
            if visible.is_none() && str::from_utf8(&chunk).unwrap().contains("\"content\":\"O\"") {
                visible = Some(Instant::now());
            }
        }
        let recorded = simulator.requests().remove(0);
        assert!(recorded.first_token.unwrap() <= visible.unwrap());
        assert!(first_token_ms(&recorded) >= 40.0);
        assert!(recorded.writes.iter().any(|write| Some(write.at) == recorded.first_token));

        let whole = open("stream_truncated").await.text().await.unwrap();
        assert!(whole.contains("\"content\":\"K\"") && !whole.contains(DONE), "{whole}");
        for broken in ["stream_truncated; variant=close", "stream_truncated; variant=reset"] {
            let error = open(broken).await.text().await.unwrap_err();
            assert!(!error.is_timeout(), "{broken}: {error:?}");
        }
        for (endless, bytes) in
            [("stream_stalled", 500), ("stream_after_done", 900), ("stream_endless; token=0ms", 1 << 20)]
        {
            let mut response = open(endless).await;
            let mut left: usize = bytes;
            while left > 0 {
                let chunk = response.chunk().await.unwrap().expect(endless);
                left = left.saturating_sub(chunk.len());
            }
        }
    });
}

#[test]
fn concurrent_streams_keep_their_pace() {
    const STREAMS: usize = 400;
    let simulator = scripted("[[rule]]\npace = { first_token = '50ms', token = '5ms', tokens = 5 }");
    let call = stream_call(SimulatedService::Openai, None, &json!({}));
    let asked = Instant::now();
    let mut streams: Vec<_> =
        (0..STREAMS).map(|_| send(&simulator, &call, "Connection: close\r\n")).collect();
    for stream in &mut streams {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert!(bytes.ends_with(b"0\r\n\r\n"));
    }
    let took = asked.elapsed();
    // One after the other would take half a minute.
    assert!(took < Duration::from_secs(25), "{took:?}");
    let records = simulator.requests();
    assert_eq!(records.len(), STREAMS);
    let late: Vec<_> = records.iter().map(|recorded| first_token_ms(recorded) - 50.0).collect();
    assert!(late.iter().all(|late| *late >= 0.0), "{late:?}");
}
