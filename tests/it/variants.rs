//! Variants of the example responses: other statuses, nestings and header notations of the same
//! failures, with their results.

use langmart_prober::outcome::{Api, Check, Fault, Outcome, Reason};
use serde_json::Value;

use crate::harness::{
    probes::{detail_of, probe, provider, run},
    raw::{RawServer, on_the_wire},
    simulate::simulator,
};

/// Results of answers (status line, headers and body) for a chat.
struct Bench {
    server: RawServer,
}

impl Bench {
    fn new() -> Self {
        Self { server: RawServer::start() }
    }

    fn play(&self, api: Api, check: Check, head: &str, body: &str) -> Outcome {
        self.server.play(on_the_wire(&format!("HTTP/1.1 {head}\n\n{body}")));
        run(probe(provider(api, &format!("http://{}", self.server.address)), check))
    }

    #[track_caller]
    fn check(&self, api: Api, head: &str, body: &str, expected: (Reason, Fault)) -> Outcome {
        let outcome = self.play(api, Check::Chat, head, body);
        assert_eq!((outcome.reason, outcome.fault), expected, "{api}: {head} {body}\n{outcome:?}");
        assert!(!outcome.hint.is_empty(), "{api}: {head} {body}");
        outcome
    }
}

#[test]
fn permanent_limit_is_billing_in_every_dialect() {
    let bench = Bench::new();
    let ours = (Reason::Billing, Fault::Caller);
    let theirs = (Reason::Billing, Fault::Provider);
    let inactive = r#"{"error":{"message":"Your account is not active","type":"billing_not_active","param":null,"code":null}}"#;
    let outcome = bench.check(Api::Openai, "429 X", inactive, ours);
    assert_eq!(outcome.error_code.as_deref(), Some("billing_not_active"));
    // Google's plan without any requests for the model; with a limit above 0 the same text is a
    // temporary limit.
    let google = |limit: u32| {
        format!(
            r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: x/generate_content_free_tier_requests, limit: {limit}, model: gemini-3-pro\nPlease retry in 25.4s.","details":[{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"25s"}}]}}}}"#
        )
    };
    bench.check(Api::Google, "429 X", &google(0), ours);
    let limited = bench.check(Api::Google, "429 X", &google(20), (Reason::RateLimited, Fault::Caller));
    assert_eq!(limited.retry_after, Some(25.0));
    let disabled = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"x","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"BILLING_DISABLED"}]}}"#;
    bench.check(Api::Google, "403 X", disabled, ours);
    // xAI, Moonshot and others that imitate DeepSeek: OpenAI's dialect.
    let spent = r#"{"code":"x","error":"Your team has either used all available credits or reached its monthly spending limit."}"#;
    bench.check(Api::Openai, "403 X", spent, ours);
    bench.check(
        Api::Openai,
        "429 X",
        r#"{"error":{"message":"x","type":"exceeded_current_quota_error"}}"#,
        ours,
    );
    bench.check(Api::Openai, "429 X", r#"{"error":{"code":"1113","message":"Insufficient balance"}}"#, ours);
    // Behind a gateway that passes on only the provider's text or details.
    let wrapped =
        |code: &str, message: &str| format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#);
    let quota = "You exceeded your current quota, please check your plan and billing details.";
    bench.check(Api::Langmart, "429 X", &wrapped("PROVIDER_OPENAI_429", quota), theirs);
    let limited = (Reason::RateLimited, Fault::Provider);
    bench.check(Api::Langmart, "429 X", &wrapped("PROVIDER_GOOGLE_429", quota), limited);
    let low = "Your credit balance is too low to access the Anthropic API.";
    bench.check(Api::Langmart, "400 X", &wrapped("PROVIDER_ANTHROPIC_400", low), theirs);
    let details = r#"{"error":{"type":"rate_limit_error","code":"PROVIDER_OPENAI_429","message":"x","details":{"code":"insufficient_quota"}}}"#;
    bench.check(Api::Langmart, "429 X", details, theirs);
    let raw = r#"{"error":{"code":400,"message":"Provider returned error","metadata":{"provider_name":"Anthropic","raw":"{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Your credit balance is too low\"}}"}}}"#;
    bench.check(Api::Openrouter, "400 X", raw, theirs);
}

#[test]
fn limit_of_zero_is_permanent() {
    let bench = Bench::new();
    let body = r#"{"type":"rate_limited","message":"Rate limit exceeded","code":"1300"}"#;
    let mistral = |limit: u32, more: &str| {
        format!("429 X\nx-ratelimit-limit-req-minute: {limit}\nx-ratelimit-remaining-req-minute: 0{more}")
    };
    let none = bench.check(Api::Openai, &mistral(0, ""), body, (Reason::Billing, Fault::Caller));
    assert!(detail_of(&none).contains("the limit itself is 0"), "{}", detail_of(&none));
    bench.check(Api::Openai, &mistral(60, ""), body, (Reason::RateLimited, Fault::Caller));
    // A hint for a retry shows that the limit is temporary.
    let later =
        bench.check(Api::Openai, &mistral(0, "\nRetry-After: 9"), body, (Reason::RateLimited, Fault::Caller));
    assert_eq!(later.retry_after, Some(9.0));
}

#[test]
fn bad_key_is_auth_failed_for_every_status() {
    let bench = Bench::new();
    let ours = (Reason::AuthFailed, Fault::Caller);
    let theirs = (Reason::AuthFailed, Fault::Provider);
    let google = r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#;
    // Google's own dialect, and its imitation of OpenAI's.
    for api in [Api::Google, Api::Openai] {
        let outcome = bench.check(api, "400 X", google, ours);
        assert_eq!(outcome.error_code.as_deref(), Some("INVALID_ARGUMENT"), "{api}");
    }
    let expired = r#"{"error":{"code":400,"message":"API key expired. Please renew the API key.","status":"INVALID_ARGUMENT"}}"#;
    bench.check(Api::Google, "400 X", expired, ours);
    let xai = r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***. You can obtain an API key from x."}"#;
    bench.check(Api::Openai, "400 X", xai, ours);
    let stored = r#"{"error":{"code":"PROVIDER_GOOGLE_400","message":"API key not valid. Please pass a valid API key."}}"#;
    let outcome = bench.check(Api::Langmart, "400 X", stored, theirs);
    assert_eq!(outcome.upstream, Some("google"));
    // A gateway that reports the provider's refusal as a bad gateway.
    let masked =
        r#"{"error":{"code":"PROVIDER_OPENAI_401","message":"Provider authentication failed","status":502}}"#;
    let outcome = bench.check(Api::Langmart, "502 X", masked, theirs);
    assert_eq!((outcome.upstream, outcome.http_status), (Some("openai"), Some(502)));
    // LangMart's client also knows a string next to the code.
    let flat = r#"{"success":false,"error":"Invalid API key","code":"GATEWAY1_AUTH_001"}"#;
    let outcome = bench.check(Api::Langmart, "401 X", flat, ours);
    assert_eq!(outcome.error_code.as_deref(), Some("GATEWAY1_AUTH_001"));
}

#[test]
fn key_without_permission_is_no_bad_key() {
    let bench = Bench::new();
    let forbidden = (Reason::Permission, Fault::Caller);
    let scopes = r#"{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: model.request.","type":"invalid_request_error","param":null,"code":null}}"#;
    bench.check(Api::Openai, "401 X", scopes, forbidden);
    let disabled = r#"{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#;
    bench.check(Api::Anthropic, "400 X", disabled, forbidden);
    let restricted = r#"{"error":{"message":"Organization has been restricted.","type":"invalid_request_error","code":"organization_restricted"}}"#;
    bench.check(Api::Groq, "400 X", restricted, forbidden);
    let blocked = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"x","details":[{"reason":"SERVICE_DISABLED"}]}}"#;
    let outcome = bench.check(Api::Google, "403 X", blocked, forbidden);
    assert_eq!(outcome.error_code.as_deref(), Some("SERVICE_DISABLED"));
}

#[test]
fn upstream_status_behind_a_gateway_decides() {
    let bench = Bench::new();
    for (head, code, reason) in [
        ("502 X", "PROVIDER_OPENAI_429", Reason::RateLimited),
        ("503 X", "PROVIDER_ANTHROPIC_529", Reason::Overloaded),
        ("500 X", "PROVIDER_GOOGLE_504", Reason::GatewayTimeout),
        ("502 X", "PROVIDER_GROQ_402", Reason::Billing),
        ("503 X", "PROVIDER_MISTRAL_200", Reason::Unavailable),
        ("502 X", "PROVIDER_OPENAI_407", Reason::ServerError),
        ("503 X", "PROVIDER_MISTRAL_503", Reason::Unavailable),
    ] {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"x"}}}}"#);
        bench.check(Api::Langmart, head, &body, (reason, Fault::Provider));
    }
    let waits = r#"{"error":{"code":"PROVIDER_OPENAI_429","message":"x"}}"#;
    let outcome = bench.play(Api::Langmart, Check::Chat, "502 X\nRetry-After: 7", waits);
    assert_eq!(outcome.retry_after, Some(7.0));
    assert_eq!(detail_of(&outcome), "the provider's 429 behind the gateway's 502");
    let overloaded = r#"{"error":{"code":"PROVIDER_ANTHROPIC_529","message":"x"}}"#;
    let outcome = bench.play(Api::Langmart, Check::Chat, "502 X\nRetry-After: 7", overloaded);
    assert_eq!((outcome.reason, outcome.retry_after), (Reason::Overloaded, Some(7.0)));
    let broken = r#"{"error":{"code":"PROVIDER_ANTHROPIC_500","message":"x"}}"#;
    let outcome = bench.play(Api::Langmart, Check::Chat, "502 X\nRetry-After: 7", broken);
    assert_eq!((outcome.reason, outcome.retry_after), (Reason::ServerError, None));
}

#[test]
fn unknown_upstream_model_is_model_not_found() {
    let bench = Bench::new();
    let unknown = (Reason::ModelNotFound, Fault::Caller);
    let gone = r#"{"error":{"code":"PROVIDER_GROQ_400","message":"The model `llama` has been decommissioned and is no longer supported."}}"#;
    bench.check(Api::Langmart, "400 X", gone, unknown);
    let not_found = r#"{"error":{"code":"PROVIDER_ANTHROPIC_404","message":"Not found"}}"#;
    bench.check(Api::Langmart, "404 X", not_found, unknown);
    let vllm =
        r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}"#;
    bench.check(Api::Openai, "404 X", vllm, unknown);
    // An auth check names no model, so a 404 refers to the path.
    let outcome = bench.play(Api::Langmart, Check::Auth, "404 X", not_found);
    assert_eq!(outcome.reason, Reason::InvalidRequest);
}

#[test]
fn alias_matches_a_list_of_dated_models() {
    let bench = Bench::new();
    let list = r#"{"data":[{"type":"model","id":"claude-haiku-4-5-20251001"},{"type":"model","id":"claude-opus-5"}]}"#;
    for (model, reason) in [
        ("claude-haiku-4-5-20251001", Reason::Ok),
        ("claude-haiku-4-5", Reason::Ok),
        ("claude-haiku-4-5-latest", Reason::Ok),
        ("claude-opus-5", Reason::Ok),
        ("claude-haiku-4", Reason::ModelNotFound),
        ("claude-haiku", Reason::ModelNotFound),
        ("claude-haiku-4-5-20250101", Reason::ModelNotFound),
        ("latest", Reason::ModelNotFound),
    ] {
        bench.server.play(on_the_wire(&format!("HTTP/1.1 200 OK\n\n{list}")));
        let provider = provider(Api::Anthropic, &format!("http://{}", bench.server.address));
        let mut probe = probe(provider, Check::Models);
        probe.model = Some(model.to_owned());
        assert_eq!(run(probe).reason, reason, "{model}");
    }
}

/// Checks the wait of a 429.
#[track_caller]
fn check_wait(bench: &Bench, api: Api, headers: &str, body: &Value, expected: Option<f64>) {
    let head = format!("429 X\nDate: Sun, 22 Nov 2026 08:00:00 GMT{headers}");
    let outcome = bench.play(api, Check::Chat, &head, &body.to_string());
    assert_eq!(outcome.reason, Reason::RateLimited, "{api} {headers} {body}");
    let near = match (outcome.retry_after, expected) {
        (Some(found), Some(expected)) => (found - expected).abs() < 1e-6,
        (found, expected) => found == expected,
    };
    assert!(near, "{api} {headers} {body}: {:?}, not {expected:?}", outcome.retry_after);
}

#[test]
fn first_valid_hint_counts() {
    let bench = Bench::new();
    let check = |api, headers: &str, body: &Value, expected| check_wait(&bench, api, headers, body, expected);
    let retry_info =
        |delay: &str| serde_json::json!({"error": {"code": 429, "details": [{"retryDelay": delay}]}});
    let bare = Value::Null;
    check(Api::Openai, "\nretry-after-ms: 1500\nretry-after: 9", &bare, Some(1.5));
    check(Api::Openai, "\nRETRY-AFTER: Sun, 22 Nov 2026 08:00:09 GMT", &bare, Some(9.0));
    check(Api::Google, "\nRetry-After: 9", &retry_info("37s"), Some(9.0));
    check(Api::Google, "\nRetry-After: soon", &retry_info("37.5s"), Some(37.5));
    // Google with its imitation of OpenAI's dialect.
    check(Api::Openai, "", &retry_info("37s"), Some(37.0));
    // A wait of zero, or one that is over, is no hint, so the backoff doubles.
    check(Api::Openai, "\nRetry-After: 0", &bare, None);
    check(Api::Openai, "\nretry-after-ms: 0", &bare, None);
    check(Api::Openai, "\nretry-after-ms: 0\nretry-after: 9", &bare, Some(9.0));
    check(Api::Google, "\nRetry-After: 0", &retry_info("37s"), Some(37.0));
    check(Api::Openai, "\nRetry-After: Sun, 22 Nov 2026 07:59:00 GMT", &bare, None);
    let exhausted = |reset: &str| format!("\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: {reset}");
    for api in [Api::Langmart, Api::Openrouter] {
        check(api, &exhausted("2026-11-22T08:01:00Z"), &bare, Some(60.0));
        check(api, &exhausted("2026-11-22T09:01:00+01:00"), &bare, Some(60.0));
        check(api, &exhausted("1795334460"), &bare, Some(60.0));
        check(api, &exhausted("1795334460000"), &bare, Some(60.0));
        check(api, &exhausted("2026-11-22T07:00:00Z"), &bare, None);
        // Possibly seconds, but not a time since 1970: no wait is better than a wrong one.
        check(api, &exhausted("60"), &bare, None);
        check(api, &(exhausted("1795334460") + "\nRetry-After: 5"), &bare, Some(5.0));
    }
    // The copy in OpenRouter's body, in any case, and as numbers.
    for (name, reset) in
        [("X-RateLimit-Reset", "1795334460000".into()), ("x-ratelimit-reset", 1_795_334_460_000_u64.into())]
    {
        let mut headers = serde_json::json!({"X-RateLimit-Limit": 20, "x-ratelimit-remaining": 0});
        headers[name] = Value::clone(&reset);
        check(
            Api::Openrouter,
            "",
            &serde_json::json!({"error": {"code": 429, "metadata": {"headers": headers}}}),
            Some(60.0),
        );
    }
}

#[test]
fn daily_limit_is_reported() {
    let bench = Bench::new();
    let google = |quota: &str| {
        format!(
            r#"{{"error":{{"code":429,"message":"x","details":[{{"violations":[{{"quotaId":"GenerateRequestsPer{quota}PerProjectPerModel-FreeTier"}}]}},{{"retryDelay":"51s"}}]}}}}"#
        )
    };
    let groq = |window: &str| {
        format!(r#"{{"error":{{"message":"Rate limit reached on tokens per {window}: Limit 8000"}}}}"#)
    };
    let openrouter = |window: &str| {
        format!(r#"{{"error":{{"code":429,"message":"Rate limit exceeded: free-models-per-{window}."}}}}"#)
    };
    for (api, day, minute) in [
        (Api::Google, google("Day"), google("Minute")),
        (Api::Groq, groq("day (TPD)"), groq("minute (TPM)")),
        (Api::Openrouter, openrouter("day"), openrouter("min")),
    ] {
        for (body, detail) in [(day, "a limit of the day is reached, not one of the minute"), (minute, "")] {
            let outcome = bench.check(api, "429 X", &body, (Reason::RateLimited, Fault::Caller));
            assert_eq!(detail_of(&outcome), detail, "{body}");
            assert_eq!(outcome.retry_after, (api == Api::Google).then_some(51.0), "{body}");
        }
    }
}

#[test]
fn google_response_id_is_in_the_body() {
    let body = r#"{"responseId":"abc-123_x","candidates":[{"content":{"parts":[{"text":"OK"}]},"finishReason":"STOP"}]}"#;
    let outcome = Bench::new().play(Api::Google, Check::Chat, "200 OK", body);
    assert_eq!(outcome.request_id.as_deref(), Some("abc-123_x"));
}

#[test]
fn daily_and_minute_limits_are_reported() {
    let bench = Bench::new();
    let cerebras = "200 OK\nx-ratelimit-limit-requests-day: 14400\nx-ratelimit-remaining-requests-day: 13693\n\
         x-ratelimit-reset-requests-day: 11726.2840924263\nx-ratelimit-limit-req-minute: 60\n\
         x-ratelimit-remaining-req-minute: 59";
    let body = r#"{"choices":[{"message":{"content":"OK"},"finish_reason":"stop"}]}"#;
    let outcome = bench.play(Api::Openai, Check::Chat, cerebras, body);
    let told: Vec<_> =
        outcome.ratelimit.iter().map(|limit| (limit.limit, limit.remaining, limit.reset)).collect();
    assert_eq!(told, [(Some(60), Some(59), None), (Some(14400), Some(13693), None)]);
}

#[test]
fn invalid_request_is_caller_fault() {
    let bench = Bench::new();
    let own = (Reason::InvalidRequest, Fault::Caller);
    let large = r#"{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    // Groq reports the same with 413.
    for head in ["429 X\nRetry-After: 9", "413 X\nRetry-After: 9"] {
        let outcome = bench.check(Api::Openai, head, large, own);
        assert_eq!(outcome.retry_after, None, "{head}");
        assert_eq!(
            detail_of(&outcome),
            "this one request is larger than the limit of a whole window",
            "{head}"
        );
    }
    let thrift = r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit was reached.","type":"invalid_request_error","code":null}}"#;
    let outcome = bench.check(Api::Openai, "400 X", thrift, own);
    assert_eq!(detail_of(&outcome), "max_tokens was used up before any visible content");
    // The provider is named as the moderator, not as responsible.
    let flagged = r#"{"error":{"code":403,"message":"x requires moderation","metadata":{"reasons":["violence"],"flagged_input":"x","provider_name":"OpenAI"}}}"#;
    bench.check(Api::Openrouter, "403 X", flagged, own);
}

#[test]
fn overload_is_detected_by_text_too() {
    let bench = Bench::new();
    let words =
        |message: &str| format!(r#"{{"error":{{"message":"{message}","type":"internal_server_error"}}}}"#);
    let (overloaded, down) = ((Reason::Overloaded, Fault::Provider), (Reason::Unavailable, Fault::Provider));
    bench.check(Api::Groq, "503 X", &words("x is currently over capacity. Please try again."), overloaded);
    bench.check(Api::Openai, "503 X", &words("The engine is currently overloaded"), overloaded);
    bench.check(Api::Openai, "503 X", &words("Service Unavailable"), down);
    bench.check(Api::Google, "503 X", "<html>overloaded</html>", down);
}

#[test]
fn answer_without_error_has_no_code() {
    let bench = Bench::new();
    let refused = r#"{"type":"message","status":"completed","content":[],"stop_reason":"refusal"}"#;
    let outcome = bench.check(Api::Anthropic, "200 OK", refused, (Reason::NoContent, Fault::Caller));
    assert_eq!(outcome.error_code, None);
    let other = r#"{"type":"message","status":"completed"}"#;
    let outcome = bench.check(Api::Openai, "200 OK", other, (Reason::Malformed, Fault::Provider));
    assert_eq!(outcome.error_code, None);
    let invalid = r#"{"valid":false,"type":"key"}"#;
    let outcome = bench.play(Api::Langmart, Check::Auth, "200 OK", invalid);
    assert_eq!((outcome.reason, outcome.error_code), (Reason::AuthFailed, None));
}

#[test]
fn path_with_models_is_no_unknown_model() {
    let bench = Bench::new();
    for wrong_path in [
        r#"{"error":{"message":"Invalid URL (GET /v1/models)","type":"invalid_request_error","code":null}}"#,
        r#"{"error":{"message":"Unknown request URL: GET /v1/models","type":"invalid_request_error","code":"unknown_url"}}"#,
        r#"{"message":"Route GET:/v1/models not found","error":"Not Found","statusCode":404}"#,
        r#"{"error":"Cannot POST /v1/models/x"}"#,
    ] {
        let outcome = bench.play(Api::Openai, Check::Models, "404 X", wrong_path);
        assert_eq!((outcome.reason, outcome.fault), (Reason::InvalidRequest, Fault::Caller), "{wrong_path}");
    }
}

#[test]
fn zero_limit_beside_an_exhausted_one_is_temporary() {
    let bench = Bench::new();
    let limits = |requests: u32, tokens: u32| {
        format!(
            "429 X\nx-ratelimit-limit-requests: {requests}\nx-ratelimit-remaining-requests: 0\n\
             x-ratelimit-limit-tokens: {tokens}\nx-ratelimit-remaining-tokens: 0"
        )
    };
    let error = r#"{"error":{"message":"x"}}"#;
    bench.check(Api::Openai, &limits(0, 0), error, (Reason::Billing, Fault::Caller));
    bench.check(Api::Openai, &limits(60, 0), error, (Reason::RateLimited, Fault::Caller));
}

#[test]
fn byte_order_mark_before_a_list_is_ignored() {
    let bench = Bench::new();
    let outcome = bench.play(Api::Openai, Check::Models, "200 OK", "\u{feff}{\"data\":[{\"id\":\"gpt\"}]}");
    assert_eq!(outcome.reason, Reason::Ok, "{outcome:?}");
}

#[test]
fn path_with_two_slashes_counts_from_the_host() {
    let simulator = simulator("");
    let health = |path: &str| {
        let mut gateway = provider(Api::Openai, &format!("http://{}/openai/v1", simulator.address()));
        gateway.paths.health = Some(path.to_owned());
        run(probe(gateway, Check::Health)).http_status
    };
    assert_eq!(health("//langmart/health"), Some(200));
    assert_eq!(health("//langmart/health?full=1"), Some(200));
    assert_eq!(health("/langmart/health"), Some(404));
}
