//! Tests of the simulator as a client sees it: raw bytes over TCP, rustls over TCP, and reqwest for
//! HTTP/2.

use std::{
    io::{self, Read, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

use super::*;

mod answers;
mod connections;
mod streams;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn start(scenario: Scenario) -> Simulator {
    Simulator::start(Options { listen: LOOPBACK, tls_listen: Some(LOOPBACK), scenario }).unwrap()
}

fn scripted(text: &str) -> Simulator {
    start(Scenario::parse(text).unwrap())
}

fn fair() -> Simulator {
    start(Scenario::default())
}

/// A response as received, on a connection closed by the server.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn parse(raw: &[u8]) -> Self {
        let end = raw.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: raw[end + 4..].to_vec() }
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn connect(simulator: &Simulator) -> TcpStream {
    let stream = TcpStream::connect(simulator.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

/// Sends one request and reads until the server closes. Returns all bytes, and the result of the
/// last read.
fn exchange(simulator: &Simulator, request: &str) -> (Vec<u8>, io::Result<()>) {
    let mut stream = connect(simulator);
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map(drop);
    (bytes, end)
}

fn ask(simulator: &Simulator, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("Connection: close\r\n{headers}");
    let (bytes, end) = exchange(simulator, &request(method, path, &headers, body));
    end.unwrap();
    Answer::parse(&bytes)
}

/// Returns a valid chat of a service: path, headers, body.
fn chat(provider: SimulatedService) -> (String, &'static str, String) {
    let chat = provider.sample_chat();
    (format!("{}{}", provider.prefix(), chat.path), chat.headers, chat.body.to_string())
}

fn ask_chat(simulator: &Simulator, provider: SimulatedService, simulate: &str) -> Answer {
    let (path, headers, body) = chat(provider);
    ask(simulator, "POST", &path, &format!("{headers}x-simulate: {simulate}\r\n"), &body)
}

#[track_caller]
fn check_members(answer: &Answer, status: u16, members: &[(&str, Value)]) {
    assert_eq!(answer.status, status, "{answer:?}");
    for (pointer, expected) in members {
        assert_eq!(answer.json().pointer(pointer), Some(expected), "{pointer} in {answer:?}");
    }
}

#[test]
fn completions_have_the_format_of_their_service() {
    let simulator = fair();
    let check = |provider, members: &[(&str, Value)]| {
        let (path, headers, body) = chat(provider);
        let answer = ask(&simulator, "POST", &path, headers, &body);
        check_members(&answer, 200, members);
        let date = httpdate::parse_http_date(answer.header("date").unwrap()).unwrap();
        assert!(SystemTime::now().duration_since(date).unwrap() < Duration::from_secs(5));
        answer
    };
    let openai = [
        ("/object", json!("chat.completion")),
        ("/choices/0/message/content", json!("OK")),
        ("/choices/0/finish_reason", json!("stop")),
        ("/usage/prompt_tokens", json!(7)),
        ("/usage/total_tokens", json!(9)),
    ];
    check(SimulatedService::Langmart, &openai);
    let answer = check(SimulatedService::Openai, &openai);
    assert_eq!(answer.header("x-ratelimit-reset-requests"), Some("8.64s"));
    assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
    let reasoned = [&openai[..4], &[("/usage/total_tokens", json!(10))]].concat();
    let answer = check(SimulatedService::Groq, &reasoned);
    assert_eq!(answer.header("x-ratelimit-reset-requests"), Some("2m59.56s"));
    let answer = check(SimulatedService::Openrouter, &openai);
    assert!(answer.header("x-generation-id").unwrap().starts_with("gen-"));
    let answer = check(
        SimulatedService::Anthropic,
        &[
            ("/type", json!("message")),
            ("/content/0/text", json!("OK")),
            ("/stop_reason", json!("end_turn")),
            ("/usage/output_tokens", json!(2)),
        ],
    );
    assert!(answer.header("request-id").unwrap().starts_with("req_011C"));
    assert!(answer.header("anthropic-ratelimit-input-tokens-reset").unwrap().ends_with('Z'));
    check(
        SimulatedService::Google,
        &[
            ("/candidates/0/content/parts/0/text", json!("OK")),
            ("/candidates/0/finishReason", json!("STOP")),
            ("/usageMetadata/totalTokenCount", json!(9)),
        ],
    );
}

#[test]
fn other_endpoints_answer() {
    let simulator = fair();
    let bearer = "Authorization: Bearer sk-good\r\n";
    let check = |path: &str, headers: &str, members: &[(&str, Value)]| {
        check_members(&ask(&simulator, "GET", path, headers, ""), 200, members);
    };
    check("/langmart/health", "", &[("/status", json!("ok"))]);
    check("/langmart/v1/auth/validate", bearer, &[("/valid", json!(true)), ("/user/id", json!("user_123"))]);
    check(
        "/langmart/v1/models",
        bearer,
        &[("/data/0/id", json!("openai/gpt-4o-mini")), ("/data/0/owned_by", json!("openai"))],
    );
    check(
        "/langmart/api/account/balance",
        bearer,
        &[("/balance", json!(12.5)), ("/minimum_required", json!(0.1))],
    );
    check(
        "/openai/v1/models",
        "api-key: azure\r\n",
        &[("/object", json!("list")), ("/data/0/id", json!("gpt-4o-mini"))],
    );
    check("/groq/openai/v1/models", bearer, &[("/data/0/active", json!(true))]);
    check("/openrouter/api/v1/key", bearer, &[("/data/limit_remaining", json!(7.25))]);
    check("/openrouter/api/v1/models", "", &[("/data/0/id", json!("mistralai/mistral-nemo"))]);
    let anthropic = "x-api-key: k\r\nanthropic-version: 2023-06-01\r\n";
    let first = "claude-haiku-4-5-20251001";
    check(
        "/anthropic/v1/models?limit=1",
        anthropic,
        &[("/has_more", json!(true)), ("/last_id", json!(first))],
    );
    let next = format!("/anthropic/v1/models?limit=1&after_id={first}");
    check(&next, anthropic, &[("/has_more", json!(false)), ("/data/0/id", json!("claude-haiku-5-5"))]);
    let google = "x-goog-api-key: k\r\n";
    let name = "/models/0/name";
    check(
        "/google/v1beta/models?pageSize=1",
        google,
        &[(name, json!("models/gemini-2.5-flash-lite")), ("/nextPageToken", json!("1"))],
    );
    let second = ask(&simulator, "GET", "/google/v1beta/models?pageToken=1", google, "");
    check_members(&second, 200, &[(name, json!("models/gemini-2.5-flash"))]);
    assert_eq!(second.json().get("nextPageToken"), None);
}

#[test]
fn invalid_keys_are_rejected_in_the_service_format() {
    let simulator = fair();
    let check = |path: &str, headers: &str, status: u16, members: &[(&str, Value)]| {
        check_members(&ask(&simulator, "GET", path, headers, ""), status, members);
    };
    let invalid = "Authorization: Bearer sk-invalid-0123456789\r\n";
    let code = "/error/code";
    let [langmart, openai] = ["/langmart/v1/models", "/openai/v1/models"];
    let [anthropic, google] = ["/anthropic/v1/models", "/google/v1beta/models"];
    check(langmart, "", 401, &[(code, json!("missing_api_key"))]);
    check(langmart, "Authorization: sk-without-bearer\r\n", 401, &[(code, json!("missing_api_key"))]);
    check(langmart, invalid, 401, &[(code, json!("GATEWAY1_AUTH_001")), ("/error/status", json!(401))]);
    check(openai, "", 401, &[(code, json!(null))]);
    check(openai, invalid, 401, &[(code, json!("invalid_api_key")), ("/error/param", json!(null))]);
    check(anthropic, "x-api-key: invalid\r\n", 401, &[("/error/type", json!("authentication_error"))]);
    check(
        anthropic,
        "x-api-key: k\r\n",
        400,
        &[("/error/message", json!("anthropic-version: header is required"))],
    );
    check(
        "/groq/openai/v1/models",
        invalid,
        401,
        &[(
            "/error",
            json!({"message": "Invalid API Key", "type": "invalid_request_error", "code": "invalid_api_key"}),
        )],
    );
    check(google, "", 403, &[("/error/status", json!("PERMISSION_DENIED"))]);
    check(
        google,
        "x-goog-api-key: invalid\r\n",
        400,
        &[("/error/details/0/reason", json!("API_KEY_INVALID"))],
    );
    check(
        "/openrouter/api/v1/key",
        "",
        401,
        &[(code, json!(401)), ("/error/message", json!("Missing Authentication header"))],
    );
}

#[test]
fn invalid_calls_are_distinguished() {
    let simulator = scripted("[models]\nopenai = ['added']");
    let json = "Content-Type: application/json\r\nAuthorization: Bearer k\r\n";
    let check = |method: &str, path: &str, body: &Value, status: u16, members: &[(&str, Value)]| {
        check_members(&ask(&simulator, method, path, json, &body.to_string()), status, members);
    };
    let chat = "/openai/v1/chat/completions";
    let messages = json!([{"role": "user", "content": "x"}]);
    let code = "/error/code";
    check("POST", chat, &json!({"model": "added", "messages": messages}), 200, &[("/model", json!("added"))]);
    check(
        "POST",
        chat,
        &json!({"model": "gone", "messages": messages}),
        404,
        &[(code, json!("model_not_found"))],
    );
    check(
        "POST",
        chat,
        &json!({"messages": messages}),
        400,
        &[("/error/type", json!("invalid_request_error"))],
    );
    check("POST", chat, &json!({"model": "added"}), 400, &[("/error/param", json!("messages"))]);
    check("POST", chat, &json!("no object"), 400, &[("/error/type", json!("invalid_request_error"))]);
    let reasoning = json!({"model": "gpt-5.6-luna", "messages": messages, "max_tokens": 8});
    check(
        "POST",
        chat,
        &reasoning,
        400,
        &[(code, json!("unsupported_parameter")), ("/error/param", json!("max_tokens"))],
    );
    check("GET", chat, &json!(null), 405, &[]);
    check("GET", "/openai/v1/nowhere", &json!(null), 404, &[(code, json!(null))]);
    let gone = json!({"model": "gone", "messages": messages, "max_tokens": 8});
    let langmart = "/langmart/v1/chat/completions";
    check("POST", langmart, &gone, 404, &[(code, json!("model_not_found"))]);
    check("POST", langmart, &json!({"model": "gpt-4o-mini", "messages": messages}), 200, &[]);
    check("POST", langmart, &json!({"model": "owner/openai/gpt-4o-mini", "messages": messages}), 200, &[]);
    check("POST", "/groq/openai/v1/chat/completions", &gone, 404, &[(code, json!("model_not_found"))]);
    check("POST", "/openrouter/api/v1/chat/completions", &gone, 404, &[(code, json!(404))]);
    let anthropic = "Content-Type: application/json\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n";
    let answer = ask(&simulator, "POST", "/anthropic/v1/messages", anthropic, &gone.to_string());
    check_members(
        &answer,
        404,
        &[("/error/type", json!("not_found_error")), ("/error/message", json!("model: gone"))],
    );
    assert_eq!(answer.json()["request_id"].as_str(), answer.header("request-id"));
    let path = "/google/v1beta/models/gone:generateContent";
    let google = "Content-Type: application/json\r\nx-goog-api-key: k\r\n";
    let answer = ask(&simulator, "POST", path, google, "{\"contents\":[{}]}");
    check_members(&answer, 404, &[("/error/status", json!("NOT_FOUND"))]);
}

#[test]
fn body_needs_json_content_type_and_bounded_size() {
    let simulator = fair();
    let (path, _, body) = chat(SimulatedService::Openai);
    let answer = ask(&simulator, "POST", &path, "Authorization: Bearer k\r\n", &body);
    check_members(&answer, 400, &[("/error/type", json!("invalid_request_error"))]);
    let mut stream = connect(&simulator);
    write!(stream, "POST {path} HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::parse(&bytes).status, 413);
}

#[test]
fn anthropic_key_may_be_a_bearer_token() {
    let simulator = fair();
    let models = |headers: &str| ask(&simulator, "GET", "/anthropic/v1/models", headers, "");
    let version = "anthropic-version: 2026-10-21\r\n";
    let answer = models(&format!("Authorization: Bearer k\r\n{version}"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["data"][0]["lifecycle"], json!("active"));
    assert_eq!(models(&format!("Authorization: Bearer invalid\r\n{version}")).status, 401);
    assert_eq!(models(&format!("Authorization: k\r\n{version}")).status, 401);
}

#[test]
fn anthropic_refuses_sampling_since_its_new_version() {
    let simulator = fair();
    let status = |version: &str, name: &str| {
        let headers =
            format!("Content-Type: application/json\r\nx-api-key: k\r\nanthropic-version: {version}\r\n");
        let messages = json!([{"role": "user", "content": "Type OK"}]);
        let body =
            json!({"model": "claude-haiku-4-5-20251001", "max_tokens": 8, "messages": messages, name: 1});
        ask(&simulator, "POST", "/anthropic/v1/messages", &headers, &body.to_string()).status
    };
    for name in ["temperature", "top_p", "top_k"] {
        assert_eq!(status("2026-10-21", name), 400, "{name}");
        assert_eq!(status("2023-06-01", name), 200, "{name}");
    }
    assert_eq!(status("2026-10-21", "metadata"), 200);
}

#[test]
fn rows_have_the_members_that_sdks_require() {
    let simulator = fair();
    let get = |path: &str| ask(&simulator, "GET", path, "Authorization: Bearer k\r\n", "").json();
    let listed = get("/openai/v1/models");
    assert_eq!(listed.pointer("/data/0/shutdown_date"), Some(&Value::Null));
    let listed = get("/openrouter/api/v1/models");
    assert_eq!(listed["total_count"].as_u64(), listed["data"].as_array().map(|rows| rows.len() as u64));
    for member in ["/links/next", "/data/0/architecture/modality", "/data/0/top_provider/is_moderated"] {
        assert!(listed.pointer(member).is_some(), "{member}");
    }
    let key = get("/openrouter/api/v1/key");
    for member in ["budgets", "byok_usage", "effective_budget", "free_model_daily_requests"] {
        assert!(key["data"].get(member).is_some(), "{member}");
    }
}

#[test]
fn groq_completion_names_its_service_tier() {
    let answer = ask_chat(&fair(), SimulatedService::Groq, "pace");
    assert_eq!(answer.json()["service_tier"], json!("on_demand"));
}

#[test]
fn http_date_is_not_before_the_end_of_the_wait() {
    let simulator = fair();
    for milliseconds in [1000, 1250, 1500, 1750, 1999] {
        let before = SystemTime::now();
        let simulate = format!("rate_limited; variant=http_date; retry_after={milliseconds}ms");
        let answer = ask_chat(&simulator, SimulatedService::Openai, &simulate);
        let date = httpdate::parse_http_date(answer.header("retry-after").unwrap()).unwrap();
        assert!(date >= before + Duration::from_millis(milliseconds), "{milliseconds} ms");
    }
}

#[test]
fn requests_of_other_kinds_are_answered_or_refused() {
    let simulator = fair();
    let status = |text: &str| Answer::parse(&exchange(&simulator, text).0).status;
    assert_eq!(status("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 411);
    assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), 400);
    assert_eq!(status("nothing like HTTP\r\n\r\n"), 400);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\na: {}", "x".repeat(1 << 16))), 431);
    let (bytes, _) = exchange(&simulator, "GET /langmart/health HTTP/1.0\r\n\r\n");
    check_members(&Answer::parse(&bytes), 200, &[("/status", json!("ok"))]);
    let answer = ask(&simulator, "HEAD", "/langmart/health", "", "");
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("35"), 0));
}

#[test]
fn rate_limits_come_in_each_dialect() {
    let simulator = fair();
    let refused = |provider, simulate: &str| {
        let answer = ask_chat(&simulator, provider, simulate);
        assert_eq!(answer.status, 429, "{answer:?}");
        answer
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let is_in_a_minute =
        |unix_seconds: f64| assert!((55.0..70.0).contains(&(unix_seconds - now)), "{unix_seconds}");

    let answer = refused(SimulatedService::Langmart, "rate_limited; retry_after=60s; upstream=anthropic");
    check_members(&answer, 429, &[("/error/code", json!("PROVIDER_ANTHROPIC_429"))]);
    assert_eq!(answer.header("Retry-After"), Some("60"));
    let reset: jiff::Timestamp = answer.header("X-RateLimit-Reset").unwrap().parse().unwrap();
    is_in_a_minute(reset.as_second() as f64);

    let answer = refused(SimulatedService::Openai, "rate_limited; retry_after=90s");
    assert_eq!(answer.header("x-ratelimit-reset-requests"), Some("1m30s"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
    let answer = refused(SimulatedService::Openai, "rate_limited; variant=retry_after_ms; retry_after=864ms");
    assert_eq!((answer.header("retry-after-ms"), answer.header("retry-after")), (Some("864"), None));
    let answer = refused(SimulatedService::Openai, "rate_limited; variant=http_date; retry_after=60s");
    let date = httpdate::parse_http_date(answer.header("retry-after").unwrap()).unwrap();
    is_in_a_minute(date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64());
    let answer = refused(SimulatedService::Openai, "rate_limited; variant=none");
    assert!(!answer.head.to_lowercase().contains("ratelimit") && answer.header("retry-after").is_none());

    let answer = refused(SimulatedService::Groq, "rate_limited; variant=fractional");
    assert_eq!(answer.header("retry-after"), Some("6.3525"));
    let answer = refused(SimulatedService::Anthropic, "rate_limited; retry_after=60s");
    assert_eq!(answer.header("retry-after"), Some("60"));
    let reset: jiff::Timestamp =
        answer.header("anthropic-ratelimit-requests-reset").unwrap().parse().unwrap();
    is_in_a_minute(reset.as_second() as f64);
    let answer = refused(SimulatedService::Google, "rate_limited; retry_after=37s");
    check_members(&answer, 429, &[("/error/details/1/retryDelay", json!("37s"))]);
    assert_eq!(answer.header("retry-after"), None);
    let answer = refused(SimulatedService::Openrouter, "rate_limited; retry_after=60s");
    let reset = answer.header("x-ratelimit-reset").unwrap();
    let body = answer.json();
    let in_body = body.pointer("/error/metadata/headers/X-RateLimit-Reset").and_then(Value::as_str).unwrap();
    // Each is computed from a separate reading of the clock.
    for reset in [reset, in_body] {
        is_in_a_minute(reset.parse::<f64>().unwrap() / 1e3);
    }
    check_members(&answer, 429, &[]);
    let answer = refused(SimulatedService::Openrouter, "rate_limited; variant=body_only");
    assert!(answer.header("x-ratelimit-reset").is_none() && answer.header("retry-after").is_none());
    assert!(answer.json().pointer("/error/metadata/headers/X-RateLimit-Reset").is_some());
}

#[test]
fn failures_have_status_and_code_of_their_service() {
    use SimulatedService::{Anthropic, Google, Groq, Langmart, Openai, Openrouter};
    let simulator = fair();
    let check = |provider, simulate: &str, status: u16, pointer: &str, expected: Value| {
        check_members(&ask_chat(&simulator, provider, simulate), status, &[(pointer, expected)]);
    };
    let code = "/error/code";
    let kind = "/error/type";
    check(Langmart, "auth_failed", 401, code, json!("GATEWAY1_AUTH_001"));
    check(Langmart, "provider_auth_failed", 401, code, json!("PROVIDER_OPENAI_401"));
    check(Langmart, "provider_auth_failed; upstream=google", 401, code, json!("PROVIDER_GOOGLE_401"));
    check(Langmart, "billing", 402, code, json!("GATEWAY1_BILLING_001"));
    check(Langmart, "billing; variant=insufficient_credits", 402, code, json!("insufficient_credits"));
    check(Langmart, "unavailable", 503, code, json!("GATEWAY3_CONN_001"));
    check(Langmart, "gateway_timeout", 504, code, json!("GATEWAY_TIMEOUT_001"));
    check(Langmart, "server_error; status=502", 502, "/message", json!("Bad Gateway"));
    check(Openai, "billing", 429, code, json!("insufficient_quota"));
    check(Openai, "billing; variant=credit_balance_exhausted", 429, code, json!("credit_balance_exhausted"));
    check(Openai, "overloaded", 503, code, json!("server_is_overloaded"));
    check(Anthropic, "billing", 400, kind, json!("invalid_request_error"));
    check(
        Anthropic,
        "billing; variant=spend_limit",
        429,
        "/error/details/error_code",
        json!("enforced_spend_limit_reached"),
    );
    check(Anthropic, "overloaded", 529, kind, json!("overloaded_error"));
    check(Groq, "overloaded", 498, code, json!("capacity_exceeded"));
    check(Google, "billing", 402, "/error/status", json!("RESOURCE_EXHAUSTED"));
    check(Google, "overloaded", 503, "/error/status", json!("UNAVAILABLE"));
    check(Google, "gateway_timeout", 504, "/error/status", json!("DEADLINE_EXCEEDED"));
    check(Openrouter, "provider_auth_failed", 401, "/error/metadata/provider_name", json!("Mistralai"));
    check(Openrouter, "overloaded", 529, "/error/metadata/error_type", json!("provider_overloaded"));
    check(Openrouter, "gateway_timeout", 524, code, json!(524));
    let answer = ask_chat(&simulator, Openrouter, "billing; variant=in_flight_budget");
    assert_eq!((answer.status, answer.header("retry-after")), (402, Some("3")));
    let answer = ask_chat(&simulator, Anthropic, "overloaded");
    assert!(answer.head.starts_with("HTTP/1.1 529 Site Overloaded\r\n"), "{answer:?}");
}

#[test]
fn status_200_can_carry_a_failure() {
    let simulator = fair();
    let answer = ask_chat(&simulator, SimulatedService::Langmart, "error_in_200");
    check_members(&answer, 200, &[("/success", json!(false))]);
    let answer = ask_chat(&simulator, SimulatedService::Langmart, "error_in_200; variant=ok_false");
    check_members(&answer, 200, &[("/ok", json!(false))]);
    let answer = ask_chat(&simulator, SimulatedService::Openrouter, "error_in_200");
    check_members(&answer, 200, &[("/error/code", json!(500))]);
    let answer = ask_chat(&simulator, SimulatedService::Openai, "malformed");
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some(&*answer.body.len().to_string()))
    );
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err() && !answer.body.is_empty());
    let answer = ask_chat(&simulator, SimulatedService::Openai, "empty");
    assert_eq!((answer.status, answer.body.len(), answer.header("content-length")), (200, 0, Some("0")));
    let answer = ask_chat(&simulator, SimulatedService::Openai, "html; status=502");
    assert_eq!(answer.status, 502);
    assert!(answer.body.starts_with(b"<!DOCTYPE html>"));
    let answer = ask_chat(&simulator, SimulatedService::Openai, "redirect");
    assert_eq!((answer.status, answer.header("location")), (302, Some("/elsewhere")));
    let answer = ask_chat(&simulator, SimulatedService::Openai, "header_flood");
    assert_eq!((answer.status, answer.head.len() > 400_000), (200, true));
    let answer = ask_chat(&simulator, SimulatedService::Openai, "oversized");
    assert_eq!((answer.header("transfer-encoding"), answer.body.len() > 5 << 20), (Some("chunked"), true));
    let answer = ask_chat(&simulator, SimulatedService::Openai, "no such thing");
    assert_eq!(answer.status, 400);
    assert!(answer.body.starts_with(b"x-simulate: unknown fault"));
    assert_eq!(ask_chat(&simulator, SimulatedService::Openai, "reset_handshake").status, 400);
}

#[test]
fn status_pages_and_balances_have_states() {
    let simulator = scripted(
        r#"
        [[rule]]
        path = "/status/groq"
        fault = "incident"
        variant = "maintenance"
        [[rule]]
        path = "/balance"
        fault = "low_balance"
        "#,
    );
    let check = |path: &str, headers: &str, members: &[(&str, Value)]| {
        check_members(&ask(&simulator, "GET", path, headers, ""), 200, members);
    };
    let (indicator, component) = ("/status/indicator", "/components/1/status");
    let incident = "x-simulate: incident; variant=critical\r\n";
    let page = |provider: SimulatedService| provider.status_path();
    check(page(SimulatedService::Anthropic), "", &[(indicator, json!("none")), ("/incidents", json!([]))]);
    check(
        page(SimulatedService::Anthropic),
        incident,
        &[(indicator, json!("critical")), (component, json!("major_outage"))],
    );
    check(page(SimulatedService::Groq), "", &[(indicator, json!("maintenance")), ("/incidents", json!([]))]);
    check(page(SimulatedService::Openai), "", &[(indicator, json!("none")), ("/incidents", Value::Null)]);
    check(page(SimulatedService::Openai), incident, &[("/incidents/0/impact", json!("critical"))]);
    let end = "/0/end";
    check(page(SimulatedService::Google), "", &[(end, json!("2026-11-20T01:00:00+00:00"))]);
    check(page(SimulatedService::Google), incident, &[("/0/status_impact", json!("SERVICE_OUTAGE"))]);
    assert_eq!(ask(&simulator, "GET", "/status/groq/incidents.json", "", "").status, 404);

    let bearer = "Authorization: Bearer sk-good\r\n";
    check("/langmart/api/account/balance", bearer, &[("/balance", json!(0.05))]);
    let low = format!("{bearer}x-simulate: low_balance\r\n");
    check(
        "/openrouter/api/v1/key",
        &low,
        &[("/data/limit_remaining", json!(0.0)), ("/data/limit", json!(10.0))],
    );
}

#[test]
fn scripted_response_is_sent_unchanged() {
    let raw = b"HTTP/1.1 429 Too Many Requests\nx-SECOND: 2\nDate: Sun, 22 Nov 2026 08:00:00 GMT\nA-first: 1\n\n{\"a\": 1}";
    let simulator = start(Scenario::default().play(Some("/models"), raw).unwrap());
    let (bytes, end) =
        exchange(&simulator, &request("GET", "/openai/v1/models", "Connection: close\r\n", ""));
    end.unwrap();
    let expected = "HTTP/1.1 429 Too Many Requests\r\nx-SECOND: 2\r\nDate: Sun, 22 Nov 2026 08:00:00 GMT\r\nA-first: 1\r\n\
                    Connection: close\r\nContent-Length: 8\r\n\r\n{\"a\": 1}";
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    let (path, headers, body) = chat(SimulatedService::Openai);
    assert_eq!(ask(&simulator, "POST", &path, headers, &body).status, 200, "another path");
    let faults: Vec<_> = simulator.requests().into_iter().map(|recorded| recorded.fault).collect();
    assert_eq!(faults, [Some("raw"), None]);
}

#[test]
fn scenario_can_be_replaced() {
    let simulator = scripted(
        "[[rule]]\nprovider = 'openai'\nmodel = 'gpt-4o-mini'\ncalls = { from = 2, to = 2 }\nfault = 'unavailable'\nretry_after = '5s'\n\
         [[rule]]\npath = '/teapot'\nrespond = { status = 418, headers = { X-Tea = 'green' }, body = 'short' }",
    );
    let (path, headers, body) = chat(SimulatedService::Openai);
    let ask_once = || ask(&simulator, "POST", &path, headers, &body);
    assert_eq!(ask_once().status, 200);
    let second = ask_once();
    assert_eq!((second.status, second.header("retry-after")), (503, Some("5")));
    assert_eq!(ask_once().status, 200);
    let tea = ask(&simulator, "GET", "/teapot", "", "");
    assert_eq!((tea.status, tea.header("x-tea"), tea.body.as_slice()), (418, Some("green"), &b"short"[..]));
    simulator.set_scenario(Scenario::default());
    assert_eq!(ask(&simulator, "GET", "/teapot", "", "").status, 404);
}
