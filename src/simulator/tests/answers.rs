//! Tests of whole answers: their end, their tokens and their reasoning, and rows of model lists.

use super::*;

/// Asks a model for a whole answer, with further members in the body, or, for null, without them.
fn ask_model(
    simulator: &Simulator,
    provider: SimulatedService,
    model: &str,
    more: &Value,
    simulate: &str,
) -> Answer {
    let (path, headers, body) = chat(provider);
    let mut body: Value = serde_json::from_str(&body).unwrap();
    if provider != SimulatedService::Google {
        body["model"] = json!(model);
    }
    let members = body.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    members.retain(|_, value| !value.is_null());
    let path = path.replace("gemini-2.5-flash-lite", model);
    ask(simulator, "POST", &path, &format!("{headers}x-simulate: {simulate}\r\n"), &body.to_string())
}

#[test]
fn answer_ends_at_max_tokens() {
    let simulator = fair();
    let check = |provider, model: &str, more: Value, members: &[(&str, Value)]| {
        check_members(&ask_model(&simulator, provider, model, &more, "pace; tokens=5"), 200, members);
    };
    let (finish, usage) = ("/choices/0/finish_reason", "/usage/completion_tokens");
    let content = "/choices/0/message/content";
    let cut = [(content, json!("OK OK")), (finish, json!("length")), (usage, json!(3))];
    check(SimulatedService::Openai, "gpt-4o", json!({"max_tokens": 3}), &cut);
    check(SimulatedService::Langmart, "auto", json!({"max_tokens": 3}), &cut);
    check(
        SimulatedService::Openai,
        "gpt-5.6-luna",
        json!({"max_tokens": null, "max_completion_tokens": 3}),
        &cut,
    );
    let whole = [(finish, json!("stop")), (usage, json!(5))];
    check(SimulatedService::Openai, "gpt-4o", json!({"max_tokens": 5}), &whole);
    check(SimulatedService::Openai, "gpt-4o", json!({"max_tokens": null}), &whole);
    // Reasoning counts first.
    let reasoned = [(content, json!("")), (finish, json!("length")), (usage, json!(1))];
    check(SimulatedService::Groq, "openai/gpt-oss-20b", json!({"max_tokens": 1}), &reasoned);
    check(
        SimulatedService::Anthropic,
        "claude-haiku-4-5-20251001",
        json!({"max_tokens": 3}),
        &[
            ("/content/0/text", json!("OK OK")),
            ("/stop_reason", json!("max_tokens")),
            ("/usage/output_tokens", json!(3)),
        ],
    );
    check(
        SimulatedService::Google,
        "gemini-2.5-flash-lite",
        json!({"generationConfig": {"maxOutputTokens": 3}}),
        &[
            ("/candidates/0/content/parts/0/text", json!("OK OK")),
            ("/candidates/0/finishReason", json!("MAX_TOKENS")),
            ("/usageMetadata/candidatesTokenCount", json!(3)),
        ],
    );
}

#[test]
fn several_answers_are_numbered_and_counted() {
    let two = json!({"n": 2});
    let answer = ask_model(&fair(), SimulatedService::Openai, "gpt-4o", &two, "pace; tokens=3").json();
    assert_eq!(answer["choices"][1]["index"], json!(1));
    assert_eq!(answer["choices"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer["usage"]["completion_tokens"], json!(6));
}

#[test]
fn model_reasons_in_whole_answers_too() {
    let simulator = fair();
    let check = |provider, model: &str, members: &[(&str, Value)]| {
        check_members(&ask_model(&simulator, provider, model, &json!({}), "pace"), 200, members);
    };
    check(
        SimulatedService::Anthropic,
        "claude-haiku-5-5",
        &[
            ("/content/0/type", json!("thinking")),
            ("/content/1/text", json!("OK")),
            ("/usage/output_tokens", json!(3)),
        ],
    );
    check(
        SimulatedService::Google,
        "gemini-2.5-flash",
        &[
            ("/candidates/0/content/parts/0/thought", json!(true)),
            ("/candidates/0/content/parts/1/text", json!("OK")),
            ("/usageMetadata/thoughtsTokenCount", json!(1)),
        ],
    );
    let thought = json!("User wants OK.");
    check(
        SimulatedService::Openai,
        "deepseek-reasoner",
        &[("/choices/0/message/reasoning_content", thought.clone())],
    );
    check(
        SimulatedService::Openai,
        "magistral-small-latest",
        &[("/choices/0/message/content/0/thinking/0/text", thought.clone())],
    );
    check(SimulatedService::Openrouter, "openai/gpt-oss-20b", &[("/choices/0/message/reasoning", thought)]);
}

#[test]
fn wrong_usage_counts_what_no_request_allows() {
    let simulator = fair();
    for (service, pointer) in [
        (SimulatedService::Langmart, "/usage/completion_tokens"),
        (SimulatedService::Anthropic, "/usage/output_tokens"),
        (SimulatedService::Google, "/usageMetadata/totalTokenCount"),
    ] {
        let answer = ask_chat(&simulator, service, "wrong_usage").json();
        assert!(answer.pointer(pointer).unwrap().as_u64() > Some(1_000_000), "{answer}");
    }
}

#[test]
fn compressed_answer_is_gzip() {
    let answer = ask_chat(&fair(), SimulatedService::Openai, "compressed");
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    // The magic number, after the size of the first chunk.
    let begin = answer.body.windows(2).position(|window| window == b"\r\n").unwrap() + 2;
    assert_eq!(answer.body[begin..begin + 2], [0x1f, 0x8b]);
}

#[test]
fn row_of_a_model_can_be_asked_for() {
    let simulator = fair();
    let get = |path: &str| {
        let headers = "Authorization: Bearer k\r\nx-goog-api-key: k\r\nanthropic-version: 2026-10-21\r\n";
        ask(&simulator, "GET", path, headers, "")
    };
    for (path, id) in [
        ("/openai/v1/models/gpt-4o", "gpt-4o"),
        ("/groq/openai/v1/models/llama-3.1-8b-instant", "llama-3.1-8b-instant"),
        ("/langmart/v1/models/openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("/openrouter/api/v1/models/mistralai/mistral-nemo", "mistralai/mistral-nemo"),
        ("/anthropic/v1/models/claude-haiku-5-5", "claude-haiku-5-5"),
    ] {
        check_members(&get(path), 200, &[("/id", json!(id))]);
    }
    let name = json!("models/gemini-2.5-flash");
    check_members(&get("/google/v1beta/models/gemini-2.5-flash"), 200, &[("/name", name)]);
    for path in ["/openai/v1/models/none", "/google/v1/models/none", "/anthropic/v1/models/none"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
}
