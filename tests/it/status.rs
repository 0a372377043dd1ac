//! Tests of status pages and balances over real sockets: redirects, invalid pages, and faults.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use langmart_prober::{
    config::{Probe, StatusSource, Task},
    outcome::{Api, Check, Fault, Indicator, Outcome, Reason, Record, possible_failures},
    simulator::{Options, Scenario, SimulatedService, Simulator},
};
use serde_json::{Value, json};

use crate::harness::{
    probes::{self, detail_of},
    raw::on_the_wire,
};

/// Text that must not appear in output, in everything that these servers send.
const CANARY: &str = "cAnArY";

const QUIET: &str = r#"{"status":{"indicator":"none"},"components":[{"name":"API","status":"operational"}]}"#;

/// A server on loopback with a response for each path, which records requests, until the test
/// process ends. Unknown paths are never answered.
struct Pages {
    address: SocketAddr,
    responses: Arc<Mutex<BTreeMap<String, String>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Self { address, responses: Arc::default(), requests: Arc::default() };
        let (responses, requests) = (pages.responses.clone(), pages.requests.clone());
        thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = head(&mut stream) else { continue };
                let path = request.split(' ').nth(1).unwrap().to_owned();
                requests.lock().unwrap().push(request);
                match responses.lock().unwrap().get(&path) {
                    // A client may leave early.
                    Some(response) => drop(stream.write_all(&on_the_wire(response))),
                    None => unanswered.push(stream),
                }
            }
        });
        pages
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets the response of that path.
    fn put(&self, path: &str, response: impl Into<String>) {
        self.responses.lock().unwrap().insert(path.to_owned(), response.into());
    }

    fn json(&self, path: &str, body: &str) {
        self.put(path, format!("HTTP/1.1 200 OK\nContent-Type: application/json\n\n{body}"));
    }

    fn redirect(&self, path: &str, location: &str) {
        self.put(path, format!("HTTP/1.1 302 Found\nLocation: {location}\n\n"));
    }

    /// Returns the requests so far.
    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads a request without a body.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    Some(String::from_utf8(request).unwrap())
}

/// Returns a probe of a status page, of a provider with a key and an extra header.
fn status(api: Api, url: &str, components: &[&str]) -> Probe {
    let mut provider = probes::provider(api, "http://127.0.0.1:9");
    provider.headers = vec![("x-tenant".parse().unwrap(), CANARY.parse().unwrap())];
    provider.status_source = Some(StatusSource {
        url: url.parse().unwrap(),
        components: components.iter().map(ToString::to_string).collect(),
    });
    probes::probe(provider, Check::Status)
}

fn ask(url: &str) -> Outcome {
    probes::run(status(Api::Anthropic, url, &["API"]))
}

fn indicator(outcome: &Outcome) -> Option<Indicator> {
    outcome.status_page.as_ref().map(|page| page.indicator)
}

fn record(probe: &Probe, outcome: &Outcome) -> Value {
    serde_json::to_value(Record { subject: probe.subject(), outcome }).unwrap()
}

#[test]
fn maintenance_is_in_the_record() {
    let pages = Pages::start();
    let page = |rows: &str| {
        format!(r#"{{"status":{{"indicator":"none"}},"components":[],"scheduled_maintenances":[{rows}]}}"#)
    };
    pages.json(
        "/",
        &page(
            r#"{"status":"in_progress","name":"cAnArY","scheduled_for":"2026-11-22T10:00:00Z","scheduled_until":"2199-01-01T00:00:00Z"}"#,
        ),
    );
    let probe = status(Api::Anthropic, &pages.url("/"), &[]);
    let outcome = probes::run(status(Api::Anthropic, &pages.url("/"), &[]));
    let maintenance = record(&probe, &outcome)["status_page"]["maintenance"].clone();
    let expected =
        json!({"start": "2026-11-22T10:00:00Z", "end": "2199-01-01T00:00:00Z", "in_progress": true});
    assert_eq!(maintenance, expected);
    pages.json("/", &page(r#"{"status":"completed","scheduled_for":"2026-11-22T10:00:00Z"}"#));
    let outcome = probes::run(status(Api::Anthropic, &pages.url("/"), &[]));
    assert!(outcome.status_page.unwrap().maintenance.is_none());
}

#[test]
fn record_describes_the_page_in_own_words() {
    let pages = Pages::start();
    pages.json("/", r#"{"status":{"indicator":"major"},"components":[{"name":"API","status":"partial_outage"}],"incidents":[{}]}"#);
    let probe = status(Api::Anthropic, &pages.url("/"), &["API", "Web"]);
    let target = status(Api::Anthropic, &pages.url("/"), &["API", "Web"]);
    let record = record(&probe, &probes::run(target));
    assert_eq!(
        record["status_page"],
        json!({"indicator": "major", "open_incidents": 1,
            "components": {"API": "partial_outage", "Web": "unknown"}})
    );
    assert_eq!((&record["success"], &record["fault"]), (&json!(true), &json!("none")));
    assert_eq!(record["detail"], "a component is not on the page, or in a state that is not known");

    let mut request = pages.requests().concat().to_lowercase();
    request.retain(|c| c != '\r');
    let expected = format!(
        "get / http/1.1\naccept-encoding: identity\naccept: */*\nuser-agent: langmart-prober/{}\nhost: {}\n\n",
        env!("CARGO_PKG_VERSION"),
        pages.address
    );
    assert_eq!(request, expected, "neither a key nor a header of the provider's");
}

#[test]
fn redirects_are_followed_three_times_without_credentials() {
    let (pages, other) = (Pages::start(), Pages::start());
    pages.redirect("/old", "/1");
    pages.redirect("/1", &other.url("/2#part"));
    other.redirect("/2", "3");
    other.json("/3", QUIET);
    let outcome = ask(&pages.url("/old"));
    assert_eq!((outcome.reason, indicator(&outcome)), (Reason::Ok, Some(Indicator::None)));
    assert_eq!(outcome.http_status, Some(200));
    assert_eq!(outcome.remote_address, Some(other.address), "of the last host");
    let requests = [pages.requests(), other.requests()].concat();
    assert_eq!(requests.len(), 4);
    for request in requests {
        let request = request.to_lowercase();
        assert!(
            !request.contains("sk-test-canary") && !request.contains(&CANARY.to_lowercase()),
            "{request}"
        );
        assert!(!request.contains("referer") && !request.contains("#part"), "{request}");
    }

    pages.redirect("/older", "/old");
    let outcome = ask(&pages.url("/older"));
    assert_eq!((outcome.reason, outcome.fault), (Reason::UnexpectedStatus, Fault::Caller));
    assert_eq!((outcome.http_status, outcome.status_page), (Some(302), None));

    pages.redirect("/loop", "/loop");
    assert_eq!(ask(&pages.url("/loop")).reason, Reason::UnexpectedStatus);
}

#[test]
fn redirects_to_unsuitable_hosts_are_not_followed() {
    let (pages, other) = (Pages::start(), Pages::start());
    other.json("/", QUIET);
    let locations = [
        format!("http://user:{CANARY}@{}/", other.address),
        "ftp://a.example/".into(),
        "http://".into(),
        String::new(),
    ];
    for location in locations {
        pages.redirect("/", &location);
        let outcome = ask(&pages.url("/"));
        assert_eq!((outcome.reason, outcome.fault), (Reason::UnexpectedStatus, Fault::Caller), "{location}");
        assert!(!format!("{outcome:?}").contains(CANARY), "{outcome:?}");
    }
    pages.put("/", "HTTP/1.1 301 Moved Permanently\nX: y\n\n");
    assert_eq!(ask(&pages.url("/")).reason, Reason::UnexpectedStatus);
    assert_eq!(other.requests(), [""; 0]);
}

#[test]
fn redirect_of_the_old_anthropic_page_is_followed() {
    let index: Value = serde_json::from_str(include_str!("../fixtures/index.json")).unwrap();
    let case = index["cases"].as_array().unwrap().iter().find(|case| case["expect"]["location"].is_string());
    let location = case.unwrap()["expect"]["location"].as_str().unwrap();
    let fixture = include_str!("../fixtures/status/anthropic_redirect.txt");
    assert!(fixture.contains(&format!("Location: {location}\n")), "{fixture}");
    // The path of the page itself, on another host.
    let (pages, page) = (Pages::start(), Pages::start());
    pages.put("/", fixture.replace("https://status.claude.com", &page.url("")));
    page.json("/api/v2/summary.json", include_str!("../fixtures/status/statuspage_summary_major.json"));
    let outcome = ask(&pages.url("/"));
    assert_eq!((outcome.reason, indicator(&outcome)), (Reason::Ok, Some(Indicator::Major)));
}

#[test]
fn redirected_run_has_one_timeout_and_exact_phases() {
    let scenario = r#"
        [[rule]]
        path = "/moved"
        respond = { status = 302, headers = { Location = "/status/groq/api/v2/summary.json" } }
        [[rule]]
        path = "/status/groq"
        fault = "slow_headers"
        ms = 50
        [[rule]]
        path = "/stalled"
        respond = { status = 302, headers = { Location = "/never" } }
        [[rule]]
        path = "/never"
        fault = "stall"
    "#;
    let simulator = simulator(scenario);
    let url = |path: &str| format!("http://{}{path}", simulator.address());
    let outcome = ask(&url("/moved"));
    assert_eq!(outcome.reason, Reason::Ok, "{outcome:?}");
    assert_eq!(outcome.phases.total(), outcome.duration);
    assert!(outcome.phases.processing >= Duration::from_millis(50), "{outcome:?}");

    let timeout = Duration::from_secs(3);
    let outcome = probes::run(Probe { timeout, ..status(Api::Groq, &url("/stalled"), &[]) });
    assert_eq!((outcome.reason, outcome.fault), (Reason::Timeout, Fault::Caller));
    assert_eq!(outcome.phases.total(), outcome.duration);
    assert!(outcome.duration + Duration::from_millis(2) >= timeout, "{outcome:?}");
    assert!(outcome.duration < 2 * timeout, "{outcome:?}");
    assert!(detail_of(&outcome).ends_with("within 3s"), "{}", detail_of(&outcome));
}

fn simulator(scenario: &str) -> Simulator {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let scenario = Scenario::parse(scenario).unwrap();
    Simulator::start(Options { listen, tls_listen: Some(listen), scenario }).unwrap()
}

/// Checks the result of a page that fails, for every API: its reason, and a fault that is no
/// downtime.
#[track_caller]
fn check_failure(url: &str, reason: Reason, fault: Fault) {
    for &api in Api::ALL {
        let timeout = Duration::from_millis(if reason == Reason::Timeout { 200 } else { 10_000 });
        let outcome = probes::run(Probe { timeout, ..status(api, url, &["API"]) });
        assert_eq!((outcome.reason, outcome.fault), (reason, fault), "{url} of {api}: {outcome:?}");
        assert_eq!((outcome.status_page, outcome.upstream), (None, None), "{url}");
        assert_eq!((outcome.error_code, outcome.request_id), (None, None), "{url}");
        assert!(
            possible_failures(api, Check::Status).contains(&(reason, fault)),
            "{reason} {fault}: no counter"
        );
        assert!(!outcome.hint.is_empty() && !outcome.hint.contains("base_url"), "{url}: {}", outcome.hint);
    }
}

#[test]
fn failed_page_is_unknown_and_no_downtime() {
    let simulator = simulator("");
    let page = SimulatedService::Anthropic.status_path();
    check_failure(
        &format!("http://{}/elsewhere", simulator.address()),
        Reason::InvalidRequest,
        Fault::Caller,
    );
    // The simulator's port at an address without a listener.
    let refused = format!("http://127.0.0.2:{}/", simulator.address().port());
    check_failure(&refused, Reason::Connect, Fault::Network);
    // An untrusted certificate for the right name.
    let tls = simulator.tls_address().unwrap();
    check_failure(&format!("https://{tls}{page}"), Reason::Tls, Fault::Network);

    let faults = [
        ("html", Reason::Malformed),
        ("malformed", Reason::Malformed),
        ("empty", Reason::Malformed),
        ("oversized", Reason::Malformed),
        ("garbage", Reason::Malformed),
        ("header_flood", Reason::Malformed),
        ("error_in_200", Reason::Malformed),
        ("redirect", Reason::InvalidRequest),
        ("stall", Reason::Timeout),
        ("cut", Reason::Disconnected),
        ("reset", Reason::Disconnected),
        ("cut_before_headers", Reason::Disconnected),
        ("html\"\nstatus = 403\n#", Reason::Permission),
        ("html\"\nstatus = 404\n#", Reason::InvalidRequest),
        ("html\"\nstatus = 429\n#", Reason::RateLimited),
        ("html\"\nstatus = 500\n#", Reason::ServerError),
        ("html\"\nstatus = 503\n#", Reason::Unavailable),
        ("html\"\nstatus = 504\n#", Reason::GatewayTimeout),
        ("html\"\nstatus = 529\n#", Reason::Overloaded),
    ];
    for (fault, reason) in faults {
        let simulator = self::simulator(&format!("[[rule]]\npath = \"/status\"\nfault = \"{fault}\""));
        check_failure(&format!("http://{}{page}", simulator.address()), reason, Fault::Caller);
    }
}

#[test]
fn retry_after_of_a_page_is_respected() {
    let pages = Pages::start();
    pages.put("/", "HTTP/1.1 429 Too Many Requests\nRetry-After: 120\nx-request-id: req_1\n\n{}");
    let outcome = ask(&pages.url("/"));
    assert_eq!((outcome.reason, outcome.fault), (Reason::RateLimited, Fault::Caller));
    assert_eq!(outcome.retry_after, Some(120.0));
}

#[test]
fn page_text_never_reaches_output() {
    let fixtures = [
        include_str!("../fixtures/status/statuspage_summary_major.json"),
        include_str!("../fixtures/status/statuspage_status_none.json"),
        include_str!("../fixtures/status/groq_summary_ok.json"),
        include_str!("../fixtures/status/gcp_incidents_open_absent_end.json"),
        include_str!("../fixtures/status/gcp_incidents_quiet.json"),
    ];
    let pages = Pages::start();
    let (mut understood, mut refused) = (0, 0);
    for fixture in fixtures {
        let whole: Value = serde_json::from_str(fixture).unwrap();
        let members = pointers(&whole);
        let poisons = [
            json!(CANARY),
            json!({CANARY: CANARY}),
            json!([CANARY]),
            json!(-1e300),
            json!(true),
            Value::Null,
        ];
        // Each member in turn, so that every branch of the parser is covered.
        for (number, pointer) in members.iter().enumerate() {
            let mut page = whole.clone();
            *page.pointer_mut(pointer).unwrap() = poisons[number % poisons.len()].clone();
            pages.json("/", &page.to_string());
            let probe = status(Api::Openai, &pages.url("/"), &["API", "Vertex Gemini API"]);
            let outcome = probes::run(status(Api::Openai, &pages.url("/"), &["API", "Vertex Gemini API"]));
            let told = format!("{} {outcome:?}", record(&probe, &outcome));
            assert!(!told.contains(CANARY), "{pointer}: {told}");
            match (outcome.reason, outcome.fault) {
                (Reason::Ok, Fault::None) => understood += 1,
                (Reason::Malformed, Fault::Caller) => refused += 1,
                verdict => panic!("{pointer}: {verdict:?}"),
            }
        }
    }
    assert!(understood > 100 && refused > 5, "too few results: {understood} {refused}");
}

/// Returns a pointer to every value in a body.
fn pointers(value: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut below = |name: &str, value: &Value| {
        found.extend(pointers(value).iter().map(|rest| format!("/{name}{rest}")));
    };
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| below(&index.to_string(), item));
        }
        Value::Object(members) => members.iter().for_each(|(name, member)| below(name, member)),
        _ => {}
    }
    found
}

#[test]
fn simulated_pages_are_parsed_in_every_state() {
    let mut wrong = String::new();
    for provider in SimulatedService::ALL {
        for (variant, expected) in [
            (None, "none"),
            (Some("minor"), "minor"),
            (Some("major"), "major"),
            (Some("critical"), "critical"),
            (Some("maintenance"), "maintenance"),
        ] {
            let rule = |variant| {
                format!("[[rule]]\npath = \"/status\"\nfault = \"incident\"\nvariant = \"{variant}\"")
            };
            let simulator = simulator(&variant.map(rule).unwrap_or_default());
            let url = format!("http://{}{}", simulator.address(), provider.status_path());
            let outcome = probes::run(status(Api::Google, &url, &[]));
            // Google has no status for maintenance, only for information.
            let expected = if (provider, expected) == (SimulatedService::Google, "maintenance") {
                "none"
            } else {
                expected
            };
            if indicator(&outcome).map(Indicator::name) != Some(expected) {
                writeln!(wrong, "{url} {variant:?}: {outcome:?}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn balance_is_compared_with_the_accounts_minimum() {
    let simulator = simulator("[[rule]]\ncalls = { from = 3 }\nfault = \"low_balance\"");
    let balance = |api, provider: SimulatedService, path: Option<&str>| {
        let mut target =
            probes::provider(api, &format!("http://{}{}", simulator.address(), provider.prefix()));
        target.paths.balance = path.map(str::to_owned);
        let probe = probes::probe(target, Check::Balance);
        let subject = probes::probe(probes::provider(api, "http://127.0.0.1:9"), Check::Balance);
        assert!(matches!(probe.task, Task::Balance));
        record(&subject, &probes::run(probe))
    };
    let langmart = balance(Api::Langmart, SimulatedService::Langmart, None);
    assert_eq!(langmart["balance"], json!({"usd": 12.5, "minimum_usd": 0.1}));
    assert_eq!(langmart["reason"], "ok");
    let openrouter = balance(Api::Openrouter, SimulatedService::Openrouter, None);
    assert_eq!((&openrouter["balance"], &openrouter["reason"]), (&json!({"usd": 7.25}), &json!("ok")));

    let low = balance(Api::Langmart, SimulatedService::Langmart, Some("/api/account/balance?of=me"));
    assert_eq!(low["balance"], json!({"usd": 0.05, "minimum_usd": 0.1}));
    assert_eq!((&low["reason"], &low["fault"]), (&json!("billing"), &json!("caller")));
    let low = balance(Api::Openrouter, SimulatedService::Openrouter, None);
    assert_eq!((&low["balance"], &low["reason"]), (&json!({"usd": 0.0}), &json!("billing")));

    let wrong = balance(Api::Langmart, SimulatedService::Langmart, Some("/v1/models"));
    assert_eq!((&wrong["reason"], &wrong["fault"]), (&json!("malformed"), &json!("gateway")));
    let requests = simulator.requests();
    assert_eq!(requests[2].query.as_deref(), Some("of=me"));
    assert!(requests.iter().all(|request| request.key_header == Some("authorization")), "{requests:?}");
}
