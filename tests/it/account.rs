//! Tests of `report --account` against a simulated account API.

use std::{
    fmt::Write,
    fs,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use langmart_prober::{
    outcome::{Check, Fault, Outcome, Reason, Record, Subject, rfc3339},
    simulator::Simulator,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    daemon::PROBER,
    simulate::{play, simulator},
};

const KEY: &str = "sk-langmart-canary-1";

/// Text of LangMart that must not be shown.
const FOREIGN: &str = "acme-tenant";

const MARK: &str = "As LangMart reports it; not measured by this prober.";

/// A rule that answers requests whose path contains `path`.
fn respond(path: &str, status: u16, body: &str) -> String {
    let headers = "{ Content-Type = \"application/json\", Location = \"/elsewhere\" }";
    let body = body.replace('\n', " ");
    let answer = format!("{{ status = {status}, headers = {headers}, body = '{body}' }}");
    format!("[[rule]]\npath = \"{path}\"\nrespond = {answer}\n")
}

const ERRORS: &str = r#"{"data": [{"status_code": 503, "error_code": "GATEWAY3_CONN_001", "count": 12,
    "message": "acme-tenant", "last_occurrence": "2026-11-22T08:00:00Z"},
    {"status_code": 429, "error_code": "acme-tenant", "count": 1}, 7]}"#;

const LOGS: &str = r#"{"logs": [{"id": "log_2", "request_id": "req_of_another", "status_code": 200},
    {"id": "log_1", "request_id": "req_0", "model": "acme-tenant", "status_code": 503, "latency_ms": 1234.5,
    "cost": 0.0001, "created_at": "2026-11-22T08:00:00Z", "api_key_prefix": "sk-langmart-canary-1"}],
    "pagination": {"total": 2, "limit": 100, "offset": 0, "hasMore": false}}"#;

const DETAILS: &str = r#"{"id": "log_1", "error": {"message": "acme-tenant"},
    "request": {"prompt": "acme-tenant"},
    "resolution_attempts": {"summary": {"totalCandidatesTried": 3}, "attempts": ["acme-tenant"]}}"#;

/// Answers of the account API as documented.
fn documented() -> String {
    respond("/account/errors", 200, ERRORS)
        + &respond("/log_1/details", 200, DETAILS)
        + &respond("/request-logs", 200, LOGS)
}

/// Runs the report with records of that many failed requests and with this key.
fn report_of(simulator: &Simulator, requests: u32, api_key: &str, arguments: &[&str]) -> (TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let mut records = String::new();
    for number in 0..requests {
        let outcome = Outcome {
            request_id: Some(format!("req_{number}")),
            http_status: Some(503),
            ..Outcome::new(now - Duration::from_secs(5), Reason::Unavailable, Fault::Gateway)
        };
        // Five requests of each failure are listed.
        let probe = format!("chat-{}", number % 4);
        let model = Some("openai/gpt-4o");
        let subject = Subject { probe: &probe, provider: "langmart", check: Check::Chat, model };
        let record = Record { subject, outcome: &outcome };
        writeln!(records, "{}", serde_json::to_string(&record).unwrap()).unwrap();
    }
    let name = format!("results.jsonl.{}", &rfc3339(now)[..10]);
    fs::write(directory.path().join(name), records).unwrap();
    let config = format!(
        "log.directory = \"{}\"\n[provider.langmart]\nbase_url = \"http://{}/langmart\"\n\
         api_key = {{ env = \"{api_key}\" }}\nchecks = [\"health\"]\n\
         [provider.groq]\napi_key = {{ env = \"ABSENT\" }}\nchecks = [\"models\"]\n",
        directory.path().display(),
        simulator.address()
    );
    let path = directory.path().join("config.toml");
    fs::write(&path, config).unwrap();
    let mut prober = Command::new(PROBER);
    prober.env_clear().env("KEY", KEY).args(["report", "--config"]).arg(&path).args(arguments);
    let output = prober.output().unwrap();
    (directory, output)
}

/// Runs the report with the record of one failed request.
fn report(simulator: &Simulator, arguments: &[&str]) -> Output {
    report_of(simulator, 1, "KEY", arguments).1
}

/// Returns what the program printed, which is a report without any secret.
#[track_caller]
fn printed(output: &Output) -> String {
    let text = String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap();
    for secret in [KEY, FOREIGN] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    text
}

#[test]
fn account_is_shown_as_the_words_of_langmart() {
    let simulator = simulator(&documented());
    for arguments in [&["--account"][..], &["--account", "--incidents"]] {
        let text = printed(&report(&simulator, arguments));
        let (_, section) = text.split_once("## LangMart's own account, provider langmart\n").expect(&text);
        for part in [
            MARK,
            "| 503 | GATEWAY3_CONN_001 | 12 | 2026-11-22T08:00:00Z |",
            "| 429 | other | 1 | - |",
            "| req_0 | log_1 | 2026-11-22T08:00:00Z | 503 | 1234.5 ms | - | 0.0001 | 3 |",
        ] {
            assert!(section.contains(part), "{part} in {text}");
        }
        assert!(!section.contains("Not read") && !section.contains("req_of_another"), "{text}");
    }
    let requests = simulator.requests();
    assert_eq!(requests.len(), 6, "{requests:?}");
    for request in &requests {
        assert!(request.path.starts_with("/langmart/api/account/"), "{request:?}");
        assert_eq!((&*request.method, request.key_header), ("GET", Some("authorization")));
    }
    let query = requests[1].query.as_deref().unwrap();
    assert!(query.starts_with("limit=100&offset=0&start_date=20"), "{query}");
}

#[test]
fn account_in_json_has_its_mark() {
    let simulator = simulator(&documented());
    for arguments in [&["--account", "--json"][..], &["--account", "--incidents", "--json"]] {
        let output = report(&simulator, arguments);
        printed(&output);
        let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
        let account = &listing["account"][0];
        assert_eq!(account["requests"][0]["candidates_tried"], 3, "{account}");
        assert_eq!((&account["provider"], &account["note"]), (&"langmart".into(), &MARK.into()));
        assert!(account.get("failures").is_none(), "{account}");
    }
}

/// Checks what the report lists as not read if the scenario answers.
#[track_caller]
fn check_failure(scenario: &str, expected: &str) {
    let simulator = simulator(scenario);
    let text = printed(&report(&simulator, &["--account"]));
    assert!(text.contains(&format!("- Not read: {expected}")), "{expected} in {text}");
    assert!(text.contains("1 of 1 runs failed"), "{text}");
    assert!(simulator.requests().iter().all(|request| !request.path.contains("elsewhere")), "redirected");
}

#[test]
fn undocumented_answer_is_listed_with_its_cause() {
    for (status, body, expected) in [
        (200, "<html>", "error statistics: answered, but not as documented: its body is not JSON"),
        (
            200,
            "{\"errors\": 5}",
            "error statistics: answered, but not as documented: it has no list of errors",
        ),
        (200, "{}", "request req_0: answered, but not as documented: it has no list of requests"),
        (
            200,
            "{\"success\": false, \"data\": []}",
            "error statistics: answered, but not as documented: it reports",
        ),
        (
            200,
            "{\"error\": \"acme-tenant\"}",
            "request req_0: answered, but not as documented: it reports an error",
        ),
        (401, "{}", "error statistics: answered with status 401: check that the key is an API key"),
        (302, "{}", "error statistics: answered with status 302"),
        (429, "{}", "error statistics: answered with status 429: wait and repeat"),
        (500, "acme-tenant", "request req_0: answered with status 500"),
        (404, "{}", "request req_0: answered with status 404: there is no such log"),
        (200, "[]", "request req_0: LangMart lists no request with this ID"),
    ] {
        check_failure(&respond("/account/", status, body), expected);
    }
    let listed = respond("/account/errors", 200, "[]") + &respond("/details", 404, "{}");
    check_failure(
        &(listed + &respond("/request-logs", 200, LOGS)),
        "request req_0: answered with status 404",
    );
}

#[test]
fn failed_exchange_is_listed_with_its_cause() {
    for (fault, expected) in [
        ("reset", "error statistics: no complete answer: "),
        ("oversized", "error statistics: no complete answer: malformed, "),
        ("garbage", "error statistics: no complete answer: "),
    ] {
        check_failure(&format!("[[rule]]\npath = \"/account\"\nfault = \"{fault}\"\n"), expected);
    }
}

#[test]
fn numbers_of_requests_and_rows_are_bounded() {
    let row = |number: usize| format!("{{\"request_id\": \"req_{number}\", \"status_code\": 503}}");
    let rows = |numbers: std::ops::Range<usize>| numbers.map(row).collect::<Vec<_>>().join(", ");
    let errors = vec!["{\"status_code\": 500, \"count\": 1}"; 60].join(", ");
    let errors = respond("/account/errors", 200, &format!("[{errors}]"));

    let logs = respond("/request-logs", 200, &format!("[{}]", rows(0..20)));
    let simulator = simulator(&(errors.clone() + &logs));
    let (_directory, output) = report_of(&simulator, 20, "KEY", &["--account"]);
    let text = printed(&output);
    assert_eq!(text.matches("| 500 | - | 1 | - |").count(), 50, "{text}");
    assert_eq!(text.matches(" | - | - | 503 | - | - | - | - |").count(), 10, "{text}");
    assert_eq!(simulator.requests().len(), 2, "one page has all requests");

    // A page of more than 100 rows, and always one more.
    let endless = format!("{{\"logs\": [{}], \"pagination\": {{\"hasMore\": true}}}}", rows(1_000..1_200));
    let endless = endless.replace("req_1150", "req_0");
    play(&simulator, &(errors + &respond("/request-logs", 200, &endless)));
    let text = printed(&report(&simulator, &["--account"]));
    let cut = "request req_0: not among the 200 listed requests around that time; LangMart has more";
    assert!(text.contains(cut), "{text}");
    assert_eq!(simulator.requests().len(), 2 + 1 + 2, "two pages");
}

#[test]
fn report_without_account_sends_nothing() {
    let simulator = simulator(&documented());
    for arguments in [&["--incidents"][..], &[]] {
        assert!(!printed(&report(&simulator, arguments)).contains("own account"));
    }
    assert_eq!(simulator.requests().len(), 0);
}

#[test]
fn missing_key_is_listed_and_nothing_sent() {
    let simulator = simulator(&documented());
    let (_directory, output) = report_of(&simulator, 1, "UNSET", &["--account"]);
    let text = printed(&output);
    assert!(text.contains("- Not read: it has no key that can be read"), "{text}");
    assert!(text.contains("warning: ") && text.contains("UNSET"), "{text}");
    assert_eq!(simulator.requests().len(), 0);
}

#[test]
fn request_without_id_is_not_looked_up() {
    let simulator = simulator(&documented());
    let (directory, _) = report_of(&simulator, 0, "KEY", &[]);
    let now = SystemTime::now();
    let outcome = Outcome::new(now, Reason::Timeout, Fault::Gateway);
    let subject = Subject { probe: "chat", provider: "langmart", check: Check::Chat, model: None };
    let record = serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap();
    let name = format!("results.jsonl.{}", &rfc3339(now)[..10]);
    fs::write(directory.path().join(name), record + "\n").unwrap();
    let mut prober = Command::new(PROBER);
    prober.env_clear().env("KEY", KEY).args(["report", "--account", "--config"]);
    let text = printed(&prober.arg(directory.path().join("config.toml")).output().unwrap());
    assert!(text.contains("- Not read: requests: no failed run of the report has a request ID"), "{text}");
    assert_eq!(simulator.requests().len(), 1, "the statistics only");
}
