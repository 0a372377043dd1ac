//! Tests that every example response gets the verdict in its index, and that mutated responses
//! never expose text from the network.

use std::{
    collections::BTreeSet,
    fmt::{Debug, Write as _},
    time::SystemTime,
};

use langmart_prober::outcome::{Api, Check, Fault, LimitedBy, Outcome, RateLimit, Reason, Record, Resource};
use serde_json::Value;

use crate::harness::{
    probes::{detail_of, probe, provider, run},
    raw::{RawServer, on_the_wire},
};

/// The indexes and their folders.
const INDEXES: [(&str, &str); 2] =
    [("", include_str!("../fixtures/index.json")), ("real/", include_str!("../fixtures/real/index.json"))];

/// One row of an index.
struct Case {
    file: String,
    text: String,
    api: Api,
    check: Check,
    model: Option<String>,
    expect: Value,
}

/// Returns the cases of implemented checks.
fn cases() -> Vec<Case> {
    let rows = INDEXES.iter().flat_map(|(folder, index)| {
        let index: Value = serde_json::from_str(index).unwrap();
        let rows = index["cases"].as_array().unwrap().clone();
        rows.into_iter().map(move |row| (*folder, row))
    });
    rows.filter_map(|(folder, row)| case(folder, &row)).flatten().collect()
}

/// Returns the cases of a row, one for each of its APIs.
fn case(folder: &str, row: &Value) -> Option<Vec<Case>> {
    let file = format!("{folder}{}", row["file"].as_str()?);
    let check = Check::from_name(row["check"].as_str()?)?;
    // A redirect would leave this machine; the tests of the status check follow it to a local
    // server.
    if row["expect"]["location"].is_string() {
        return None;
    }
    let apis = match row["api"].as_str()? {
        "any" => Api::ALL.to_vec(),
        name => vec![Api::from_name(name)?],
    };
    let case = |api| Case {
        text: fixture(&file),
        file: file.clone(),
        api,
        check,
        model: row["model"].as_str().map(str::to_owned),
        expect: row["expect"].clone(),
    };
    Some(apis.into_iter().map(case).collect())
}

/// Reads a response from a file, which has a whole response or only a body.
fn fixture(file: &str) -> String {
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    if text.starts_with("HTTP/") {
        return text;
    }
    format!("HTTP/1.1 200 OK\nDate: Sun, 22 Nov 2026 08:00:00 GMT\nContent-Type: application/json\n\n{text}")
}

/// Runs the check against a server that sends these bytes.
fn play(server: &RawServer, api: Api, check: Check, wire: Vec<u8>) -> Outcome {
    server.play(wire);
    run(probe(provider(api, &format!("http://{}", server.address)), check))
}

/// Runs the check of a case.
fn play_case(server: &RawServer, case: &Case, text: &str) -> Outcome {
    server.play(on_the_wire(text));
    let mut probe = probe(provider(case.api, &format!("http://{}", server.address)), case.check);
    if case.model.is_some() {
        probe.model.clone_from(&case.model);
    }
    run(probe)
}

fn seconds_from(outcome: &Outcome, moment: SystemTime) -> f64 {
    // The response arrives within milliseconds of the start of the run.
    moment.duration_since(outcome.time).map_or(0.0, |wait| wait.as_secs_f64())
}

fn reset(outcome: &Outcome, resource: Resource) -> Option<f64> {
    let limit: &RateLimit = outcome.ratelimit.iter().find(|limit| limit.resource == resource)?;
    Some(seconds_from(outcome, limit.reset?))
}

/// Returns whether an outcome meets an expectation, and what it has.
fn compare<'a>(outcome: &'a Outcome, member: &str, expected: &Value) -> (bool, Box<dyn Debug + 'a>) {
    let text = expected.as_str();
    let page = outcome.status_page.as_ref();
    let balance = outcome.balance;
    match member {
        "reason" => (text == Some(outcome.reason.name()), Box::new(outcome.reason)),
        "reason_any" => (any_of(expected, outcome.reason.name()), Box::new(outcome.reason)),
        "fault" => (text == Some(outcome.fault.name()), Box::new(outcome.fault)),
        "fault_any" => (any_of(expected, outcome.fault.name()), Box::new(outcome.fault)),
        "upstream" => (text == outcome.upstream, Box::new(outcome.upstream)),
        "code" | "error_type" => (text == outcome.error_code.as_deref(), Box::new(&outcome.error_code)),
        "retry_after_s" => (near(outcome.retry_after, expected), Box::new(outcome.retry_after)),
        "reset_in_s" | "reset_requests_s" => {
            (near(reset(outcome, Resource::Requests), expected), Box::new(&outcome.ratelimit))
        }
        "reset_tokens_s" => (near(reset(outcome, Resource::Tokens), expected), Box::new(&outcome.ratelimit)),
        "ratelimit" => (has_limits(outcome, expected), Box::new(&outcome.ratelimit)),
        "limited_by" => (text == outcome.limited_by.map(LimitedBy::name), Box::new(outcome.limited_by)),
        "indicator" => (text == page.map(|page| page.indicator.name()), Box::new(page)),
        "open_incidents" => (expected.as_u64() == page.and_then(|page| page.open_incidents), Box::new(page)),
        "detail_says" => (detail_of(outcome).contains(text.unwrap()), Box::new(&outcome.detail)),
        "hint_says" => (outcome.hint.contains(text.unwrap()), Box::new(&outcome.hint)),
        "hint_not" => (!outcome.hint.contains(text.unwrap()), Box::new(&outcome.hint)),
        "balance" => (balance.map(|balance| balance.usd) == expected.as_f64(), Box::new(balance)),
        "minimum" => {
            (balance.and_then(|balance| balance.minimum_usd) == expected.as_f64(), Box::new(balance))
        }
        "completion_tokens" | "output_tokens" => {
            (outcome.output_tokens == expected.as_u64(), Box::new(outcome.output_tokens))
        }
        // Parsed but not kept: the number of rows of a list, the first words of a stream (covered
        // by the tests of streams), and whether it was complete, which the reason shows.
        "models" | "first_content" | "complete" => (true, Box::new(())),
        unknown => panic!("the index expects {unknown}, which nothing checks"),
    }
}

#[test]
fn fixture_has_its_verdict() {
    let server = RawServer::start();
    let mut wrong = String::new();
    let cases = cases();
    assert!(cases.len() >= 150, "only {} fixtures were found", cases.len());
    for case in &cases {
        let outcome = play_case(&server, case, &case.text);
        for (member, expected) in case.expect.as_object().unwrap() {
            let (met, found) = compare(&outcome, member, expected);
            if !met {
                writeln!(wrong, "{}: {member} is {found:?}, not {expected:?}", case.file).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "of {} fixtures:\n{wrong}", cases.len());
}

fn any_of(expected: &Value, found: &str) -> bool {
    expected.as_array().unwrap().iter().any(|name| name == found)
}

/// Returns whether each of the limits was found.
fn has_limits(outcome: &Outcome, expected: &Value) -> bool {
    expected.as_array().unwrap().iter().all(|expected| {
        outcome.ratelimit.iter().any(|found| {
            expected["resource"] == found.resource.name()
                && expected["limit"].as_u64() == found.limit
                && expected["remaining"].as_u64() == found.remaining
        })
    })
}

/// Returns whether values are equal within a tenth of a second, the maximum delay of the socket.
fn near(found: Option<f64>, expected: &Value) -> bool {
    match (found, expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() < 0.1,
        (found, expected) => found.is_none() && expected.is_none(),
    }
}

/// Checks the result of a status whose body is unknown.
#[track_caller]
fn check_status(server: &RawServer, status: u16, body: &str, expected: (Reason, Fault)) {
    let fixture = format!("HTTP/1.1 {status} Whatever\nContent-Type: application/json\n\n{body}");
    let outcome = play(server, Api::Langmart, Check::Chat, on_the_wire(&fixture));
    assert_eq!((outcome.reason, outcome.fault), expected, "{status} with {body}");
}

#[test]
fn status_decides_without_a_known_code() {
    use Fault::{Caller, Gateway, Network};

    let server = RawServer::start();
    let bodies = [
        "",
        "{}",
        "null",
        "[]",
        "[[]]",
        "<html><body>model insufficient_quota</body></html>",
        "upstream connect error",
        "\u{0}\u{1}\u{2}",
        r#"{"error":{"code":"EVIL_CODE","type":"evil_type","message":"evil","status":999}}"#,
        r#"{"error":{"code":{"a":1},"type":["b"],"message":7,"metadata":"x","details":5}}"#,
        r#"{"error":{"code":"GATEWAY1_EVIL_001"}}"#,
        r#"{"error":[1,2]}"#,
        r#"{"error":true}"#,
        r#"{"error":"evil"}"#,
        r#"{"message":{}}"#,
        r#"{"error":{"message":"trunc"#,
    ];
    for body in bodies {
        // If nothing in the answer is the API's own error, the path is wrong.
        let own = body.contains("evil") || body.contains("EVIL") || body.contains("code");
        let own = own && serde_json::from_str::<Value>(body).is_ok();
        let not_found = if own { (Reason::InvalidRequest, Caller) } else { (Reason::Unavailable, Gateway) };
        for (status, reason, fault) in [
            (302, Reason::UnexpectedStatus, Gateway),
            (400, Reason::InvalidRequest, Caller),
            (401, Reason::AuthFailed, Caller),
            (402, Reason::Billing, Caller),
            (403, Reason::Permission, Caller),
            (404, not_found.0, not_found.1),
            (405, not_found.0, not_found.1),
            (407, Reason::Proxy, Network),
            (408, Reason::GatewayTimeout, Gateway),
            (413, Reason::InvalidRequest, Caller),
            (418, Reason::InvalidRequest, Caller),
            (424, Reason::ServerError, Gateway),
            (429, Reason::RateLimited, Caller),
            (498, Reason::Overloaded, Gateway),
            (499, Reason::ServerError, Gateway),
            (500, Reason::ServerError, Gateway),
            (502, Reason::ServerError, Gateway),
            (503, Reason::Unavailable, Gateway),
            (504, Reason::GatewayTimeout, Gateway),
            (520, Reason::ServerError, Gateway),
            (524, Reason::GatewayTimeout, Gateway),
            (529, Reason::Overloaded, Gateway),
            (599, Reason::ServerError, Gateway),
            (700, Reason::UnexpectedStatus, Gateway),
            (999, Reason::UnexpectedStatus, Gateway),
        ] {
            check_status(&server, status, body, (reason, fault));
        }
    }
}

#[test]
fn unknown_upstream_is_still_an_upstream() {
    let server = RawServer::start();
    for (status, reason) in
        [(401, Reason::AuthFailed), (429, Reason::RateLimited), (500, Reason::ServerError)]
    {
        let body = format!(r#"{{"error":{{"code":"PROVIDER_NEWCOMER_{status}","message":"x"}}}}"#);
        let fixture = format!("HTTP/1.1 {status} X\n\n{body}");
        let outcome = play(&server, Api::Langmart, Check::Chat, on_the_wire(&fixture));
        assert_eq!((outcome.reason, outcome.fault), (reason, Fault::Provider));
        assert_eq!((outcome.upstream, outcome.error_code.as_deref()), (Some("other"), Some("other")));
    }
}

#[test]
fn headers_in_another_case_and_order_change_nothing() {
    let server = RawServer::start();
    for case in cases() {
        let (head, body) = case.text.split_once("\n\n").unwrap();
        let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
        let status_line = lines.remove(0);
        let shouted = lines.iter().rev().map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}", name.to_ascii_uppercase()),
            None => line.clone(),
        });
        let mutated: Vec<String> = std::iter::once(status_line).chain(shouted).collect();
        let mutated = format!("{}\n\n{body}", mutated.join("\n"));
        let [plain, mutated] = [&case.text, &mutated].map(|text| play_case(&server, &case, text));
        let gist = |outcome: &Outcome| {
            let Outcome { reason, fault, error_code, upstream, request_id, retry_after, .. } =
                outcome.clone();
            let limits: Vec<_> =
                outcome.ratelimit.iter().map(|l| (l.resource, l.limit, l.remaining)).collect();
            (reason, fault, error_code, upstream, request_id, retry_after.map(f64::round), limits)
        };
        assert_eq!(gist(&plain), gist(&mutated), "{}", case.file);
    }
}

#[test]
fn network_text_never_reaches_a_record() {
    // With a blank, because otherwise it would be accepted as a request ID.
    const CANARY: &str = "cAnArY w0rd";

    let server = RawServer::start();
    let mut seen = BTreeSet::new();
    for case in cases() {
        let (head, body) = case.text.split_once("\n\n").unwrap();
        let status_line = head.lines().next().unwrap();
        for how in ["suffix", "replace", "html", "array", "headers"] {
            let body = match how {
                "suffix" => poisoned(body, &|text| format!("{text} {CANARY}")),
                "replace" => poisoned(body, &|_| CANARY.to_owned()),
                "html" => format!("<html>{CANARY}</html>"),
                "array" => format!("[{}]", poisoned(body, &|text| format!("{CANARY}{text}"))),
                _ => body.to_owned(),
            };
            let head = if how == "headers" {
                let poison = |line: &str| format!("{line} {CANARY}\"<>");
                let lines: Vec<String> = head.lines().skip(1).map(poison).collect();
                format!("{status_line} {CANARY}\n{}", lines.join("\n"))
            } else {
                head.to_owned()
            };
            let outcome = play_case(&server, &case, &format!("{}\n\n{body}", head.trim_end()));
            let record = record(&case, &outcome);
            assert!(!record.contains(CANARY), "{} ({how}): {record}", case.file);
            assert!(!format!("{outcome:?}").contains(CANARY), "{} ({how})", case.file);
            assert!(!record.contains("sk-test-canary"), "{} ({how}): {record}", case.file);
            let pairs = langmart_prober::outcome::possible_failures(case.api, case.check);
            let pair = (outcome.reason, outcome.fault);
            assert!(
                outcome.success() || pairs.contains(&pair),
                "{} ({how}): {pair:?} has no counter",
                case.file
            );
            seen.insert(outcome.reason);
        }
    }
    assert!(seen.len() >= 12, "too few reasons: {seen:?}");
}

fn record(case: &Case, outcome: &Outcome) -> String {
    let probe = probe(provider(case.api, "http://127.0.0.1"), case.check);
    serde_json::to_string(&Record { subject: probe.subject(), outcome }).unwrap()
}

/// Returns a body with every string changed.
fn poisoned(body: &str, change: &dyn Fn(&str) -> String) -> String {
    fn walk(value: &mut Value, change: &dyn Fn(&str) -> String) {
        match value {
            Value::String(text) => *text = change(text),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
            Value::Object(members) => members.values_mut().for_each(|member| walk(member, change)),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str(body) else { return change(body) };
    walk(&mut value, change);
    value.to_string()
}

#[test]
fn key_echoed_as_request_id_is_not_recorded() {
    let server = RawServer::start();
    for id in ["sk-test-canary", "req_sk-test-canary_1"] {
        let fixture = format!("HTTP/1.1 500 X\nx-request-id: {id}\n\n{{}}");
        let outcome = play(&server, Api::Openai, Check::Chat, on_the_wire(&fixture));
        assert_eq!(outcome.request_id, None, "{id}");
    }
}

/// Checks the result of a complete body.
#[track_caller]
fn check_body(api: Api, check: Check, status: u16, body: &str, expected: (Reason, Fault)) {
    let server = RawServer::start();
    let outcome = play(&server, api, check, on_the_wire(&format!("HTTP/1.1 {status} X\n\n{body}")));
    assert_eq!((outcome.reason, outcome.fault), expected, "{api} {check} {body}");
}

#[test]
fn bad_key_code_takes_precedence() {
    let body = r#"{"valid":false,"error":"Invalid or expired token"}"#;
    check_body(Api::Langmart, Check::Auth, 200, body, (Reason::AuthFailed, Fault::Caller));
}

#[test]
fn error_inside_a_choice_is_an_error() {
    let body = r#"{"choices":[{"finish_reason":"error","error":{"code":502,"metadata":{"provider_name":"Groq"}},"message":{"content":"O"}}]}"#;
    check_body(Api::Openrouter, Check::Chat, 200, body, (Reason::ErrorIn200, Fault::Provider));
}

#[test]
fn wrong_path_is_no_unknown_model() {
    let body =
        r#"{"error":{"message":"Invalid URL (GET /models)","type":"invalid_request_error","code":null}}"#;
    check_body(Api::Openai, Check::Models, 404, body, (Reason::InvalidRequest, Fault::Caller));
}

#[test]
fn one_code_has_one_spelling() {
    for code in ["PROVIDER_O_P_E_N_A_I_429", "PROVIDER__OPENAI__429"] {
        let server = RawServer::start();
        let fixture = format!("HTTP/1.1 429 X\n\n{{\"error\":{{\"code\":\"{code}\"}}}}");
        let outcome = play(&server, Api::Langmart, Check::Chat, on_the_wire(&fixture));
        assert_eq!(outcome.error_code.as_deref(), Some("other"), "{code}");
    }
}
