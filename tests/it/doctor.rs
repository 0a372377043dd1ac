//! Tests of `doctor` and `report`, which compare each row of the guide with the output, in
//! tests/doctor.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use langmart_prober::simulator::{FullListener, Options, Scenario, Simulator};
use regex::{Captures, Regex};
use serde_json::Value;
use tokio::net::TcpSocket;

const PROBER: &str = env!("CARGO_BIN_EXE_langmart-prober");

/// A simulator, a configuration for it, and placeholders for their addresses.
struct Bench {
    simulator: Simulator,
    directory: tempfile::TempDir,
    names: Vec<(String, &'static str)>,
    /// A bound port without a listener, which no other process gets.
    closed: Option<TcpSocket>,
}

impl Bench {
    fn new(scenario: &str) -> Self {
        Self::with(Scenario::parse(scenario).unwrap())
    }

    fn with(scenario: Scenario) -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        let simulator = Simulator::start(Options { listen, tls_listen: Some(listen), scenario }).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), simulator.ca_pem()).unwrap();
        let names = vec![
            (simulator.address().to_string(), "SIMULATOR"),
            (simulator.tls_address().unwrap().port().to_string(), "TLSPORT"),
            (directory.path().display().to_string(), "DIRECTORY"),
        ];
        Self { simulator, directory, names, closed: None }
    }

    /// Adds an address without a listener.
    fn with_closed_port(mut self) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        self.names.push((socket.local_addr().unwrap().to_string(), "CLOSED"));
        self.closed = Some(socket);
        self
    }

    /// Runs a command on the configuration, in which placeholders are replaced by addresses.
    fn run(&self, command: &str, config: &str, arguments: &[&str]) -> Output {
        let mut text = config.to_owned();
        for (address, name) in &self.names {
            text = text.replace(name, address);
        }
        let path = self.directory.path().join("config.toml");
        fs::write(&path, text).unwrap();
        let mut prober = Command::new(PROBER);
        prober
            .env_clear()
            .env("KEY", "sk-langmart-1")
            .env("BAD_KEY", "sk-langmart-invalid")
            .env("EMPTY_KEY", "");
        let output = prober.arg(command).arg("--config").arg(path).args(arguments).output().unwrap();
        let said = String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap();
        assert!(!said.contains("sk-langmart"), "a key is shown: {said}");
        output
    }

    /// Returns the output with placeholders for addresses, times and durations.
    fn seen(&self, output: &Output) -> String {
        let mut text = String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap();
        for (address, name) in &self.names {
            text = text.replace(address, name);
        }
        for (what, name) in [
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
            (r"\bin \d+ ms", "in N ms"),
            (r"request ID [\w.-]+", "request ID ID"),
            (r"\s+\(name\s+servers:[^)]*\)", " (name servers: SERVERS)"),
            // Depends on the C library of this machine.
            (r"(?m)^.*  getaddrinfo .*\n", ""),
            // Depends on whether it has an address ::1, where the simulator does not listen.
            (
                r"(?m)^  \S+ +tcp +connected to 127\.0\.0\.1:TLSPORT, in N ms.*$",
                "  ok      tcp            connected to 127.0.0.1:TLSPORT, in N ms",
            ),
            (r"\.localhost is [0-9a-f:., ]+, in", ".localhost is ADDRESSES, in"),
        ] {
            text = Regex::new(what).unwrap().replace_all(&text, name).into_owned();
        }
        text
    }

    /// Runs the doctor and compares the output with the file of that name, which begins with the
    /// guide's text.
    #[track_caller]
    fn check(&self, name: &str, config: &str, arguments: &[&str], status: i32) {
        let output = self.run("doctor", config, arguments);
        let seen = self.seen(&output);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor").join(format!("{name}.txt"));
        let file = fs::read_to_string(&path).unwrap_or_default();
        let is_guide = |line: &&str| line.starts_with("# ");
        let expected: String = file.split_inclusive('\n').skip_while(is_guide).collect();
        if seen != expected {
            let actual = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.txt"));
            fs::write(&actual, &seen).unwrap();
            panic!("{}, expected:\n{expected}--- {} has:\n{seen}", path.display(), actual.display());
        }
        assert_eq!(output.status.code(), Some(status), "{seen}");
    }
}

const LANGMART: &str = r#"
[provider.langmart]
base_url = "http://SIMULATOR/langmart"
api_key = { env = "KEY" }
checks = ["health"]
"#;

const CHAT: &str = r#"
[[probe]]
name = "langmart-chat"
provider = "langmart"
check = "chat"
model = "openai/gpt-4o-mini"
"#;

fn with_chat() -> String {
    format!("{LANGMART}{CHAT}")
}

#[test]
fn all_well() {
    Bench::new("").check("all_well", &with_chat(), &[], 0);
}

#[test]
fn invalid_api_key() {
    let config = LANGMART.replace("\"KEY\"", "\"BAD_KEY\"");
    Bench::new("").check("invalid_api_key", &config, &[], 1);
}

#[test]
fn key_not_readable() {
    let config = LANGMART.replace("\"KEY\"", "\"UNSET_KEY\"");
    Bench::new("").check("key_not_readable", &config, &[], 1);
}

#[test]
fn credential_hint_uses_systemd_run() {
    let config = LANGMART.replace("env = \"KEY\"", "credential = \"langmart\"");
    let bench = Bench::new("");
    let output = bench.run("doctor", &config, &[]);
    let seen = bench.seen(&output);
    assert_eq!(output.status.code(), Some(1), "{seen}");
    let line = "systemd-run --pipe --wait --collect --quiet --property=LoadCredential=langmart:/etc/credstore/langmart \
                langmart-prober doctor --config DIRECTORY/config.toml\n";
    assert!(seen.contains(line), "{seen}");
    let seen = bench.seen(&bench.run("doctor", &config, &["--generate", "langmart"]));
    assert!(seen.contains("doctor --config DIRECTORY/config.toml --generate langmart\n"), "{seen}");
}

#[test]
fn still_having_issues() {
    let bench = Bench::new("[[rule]]\npath = \"/chat\"\nfault = \"server_error\"\n");
    bench.check("still_having_issues", &with_chat(), &["--generate"], 1);
}

#[test]
fn provider_connection_failure() {
    let bench =
        Bench::new("[[rule]]\npath = \"/chat\"\nfault = \"provider_auth_failed\"\nupstream = \"openai\"\n");
    bench.check("provider_connection_failure", &with_chat(), &["--generate"], 1);
}

#[test]
fn unknown_provider_has_no_name() {
    let bench =
        Bench::new("[[rule]]\npath = \"/chat\"\nfault = \"provider_auth_failed\"\nupstream = \"newcomer\"\n");
    let seen = bench.seen(&bench.run("doctor", &with_chat(), &["--generate"]));
    assert!(seen.contains("LangMart stores for the provider is wrong"), "{seen}");
}

#[test]
fn rate_limiting() {
    let bench = Bench::new("[[rule]]\npath = \"/auth\"\nfault = \"rate_limited\"\nretry_after = \"60s\"\n");
    bench.check("rate_limiting", LANGMART, &[], 1);
}

#[test]
fn timeout_errors() {
    let bench = Bench::new("[[rule]]\npath = \"/chat\"\nfault = \"gateway_timeout\"\n");
    bench.check("timeout_errors", &with_chat(), &["--generate"], 1);
}

#[test]
fn gateway_unavailable() {
    let bench = Bench::new("[[rule]]\nprovider = \"langmart\"\nfault = \"unavailable\"\n");
    bench.check("gateway_unavailable", LANGMART, &[], 1);
}

#[test]
fn provider_status() {
    let body =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/status/statuspage_summary_major.json"));
    let page = [b"HTTP/1.1 200 OK\nContent-Type: application/json\n\n", &*body.unwrap()].concat();
    let fault = "[[rule]]\nprovider = \"langmart\"\npath = \"/auth\"\nfault = \"overloaded\"\n";
    let scenario = Scenario::parse(fault).unwrap().play(Some("/summary.json"), &page).unwrap();
    let config = format!(
        "{LANGMART}status_url = \"http://SIMULATOR/summary.json\"\ncomponents = [\"Claude API (api.anthropic.com)\"]\n"
    );
    Bench::with(scenario).check("provider_status", &config, &[], 1);
}

#[test]
fn account_issues() {
    let body = r#"{"balance": 0.05, "currency": "USD", "minimum_required": 0.1}"#;
    let respond = format!("respond = {{ status = 200, body = '{body}' }}\n");
    let bench = Bench::new(&format!("[[rule]]\npath = \"/balance\"\n{respond}"));
    bench.check("account_issues", LANGMART, &[], 1);
}

#[test]
fn dns_failure() {
    // RFC 6761, 6.4: resolvers answer it without a query.
    let config = LANGMART.replace("http://SIMULATOR", "https://llm.invalid");
    Bench::new("").check("dns_failure", &config, &[], 1);
}

#[test]
fn rejecting_firewall_is_diagnosed() {
    let config = LANGMART.replace("SIMULATOR", "CLOSED");
    Bench::new("").with_closed_port().check("firewall_that_rejects", &config, &[], 1);
}

#[test]
fn dropping_firewall_is_diagnosed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let full = runtime.block_on(FullListener::start()).unwrap();
    let mut bench = Bench::new("");
    let address = full.address();
    bench.names.push((address.to_string(), "SILENT"));
    bench.names.push((format!("port {}", address.port()), "port PORT"));
    let config = format!("[defaults]\ntimeout = \"1s\"\n{}", LANGMART.replace("SIMULATOR", "SILENT"));
    bench.check("firewall_that_drops", &config, &[], 1);
}

#[test]
fn certificate_for_another_name() {
    tls("certificate_for_another_name", "wrong.localhost", true);
}

#[test]
fn expired_certificate_is_diagnosed() {
    tls("certificate_that_has_ended", "expired.localhost", true);
}

#[test]
fn future_certificate_is_diagnosed() {
    tls("certificate_that_has_not_begun", "future.localhost", true);
}

#[test]
fn untrusted_certificate_is_diagnosed() {
    tls("certificate_of_a_stranger", "127.0.0.1", false);
}

#[track_caller]
fn tls(name: &str, host: &str, trusted: bool) {
    let ca = if trusted { "ca_file = \"DIRECTORY/ca.pem\"\n" } else { "" };
    let config = LANGMART.replace("http://SIMULATOR", &format!("https://{host}:TLSPORT"));
    Bench::new("").check(name, &format!("{config}{ca}"), &[], 1);
}

#[test]
fn wrong_clock_is_diagnosed() {
    let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(86_400));
    let respond = |path: &str, body: &str| {
        let headers = format!("{{ Date = \"{date}\", Content-Type = \"application/json\" }}");
        format!(
            "[[rule]]\npath = \"{path}\"\nrespond = {{ status = 200, headers = {headers}, body = '{body}' }}\n"
        )
    };
    let scenario = respond("/health", "{\"status\":\"ok\"}") + &respond("/auth", "{\"valid\":true}");
    Bench::new(&scenario).check("clock_off_by_a_day", LANGMART, &[], 1);
}

#[test]
fn unreachable_proxy_is_diagnosed() {
    let config = LANGMART.replace("http://SIMULATOR", "https://llm.invalid");
    let bench = Bench::new("").with_closed_port();
    bench.check("proxy_that_is_gone", &format!("{config}proxy = \"http://CLOSED\"\n"), &[], 1);
}

/// Checks three concurrent faults, as the documentation shows them.
#[test]
fn three_faults() {
    let config = r#"
[provider.corp]
api = "openai"
base_url = "http://CLOSED/v1"
checks = ["models"]

[provider.groq]
base_url = "http://SIMULATOR/groq/openai/v1"
api_key = { env = "KEY" }
checks = ["auth"]

[provider.langmart]
base_url = "http://SIMULATOR/langmart"
api_key = { env = "BAD_KEY" }
checks = ["health", "auth"]
"#;
    let scenario = "[[rule]]\nprovider = \"groq\"\nfault = \"rate_limited\"\nretry_after = \"40s\"\n";
    Bench::new(scenario).with_closed_port().check("three_faults", config, &[], 1);
}

#[test]
fn named_providers_only_with_one_json_object_each() {
    let bench = Bench::new("").with_closed_port();
    let config = format!("{LANGMART}[provider.corp]\napi = \"openai\"\nbase_url = \"http://CLOSED\"\n");
    let output = bench.run("doctor", &config, &["--json", "langmart"]);
    assert_eq!(output.status.code(), Some(0), "{}", bench.seen(&output));
    let walk: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((walk["provider"].as_str(), walk["ok"].as_bool()), (Some("langmart"), Some(true)));
    assert!(walk.get("diagnosis").is_none());

    let output = bench.run("doctor", &config, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let walks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [corp, langmart] = walks.as_slice() else { panic!("{text}") };
    assert_eq!((corp["provider"].as_str(), langmart["provider"].as_str()), (Some("corp"), Some("langmart")));
    assert_eq!(corp["diagnosis"]["chapter"], "Network Connectivity Issues: firewall blocking");
    let steps = corp["steps"].as_array().unwrap();
    let tcp = steps.iter().find(|step| step["step"] == "tcp").unwrap();
    assert_eq!(
        (tcp["verdict"].as_str(), tcp["record"]["reason"].as_str()),
        (Some("failed"), Some("connect"))
    );
    let taken: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(
        taken,
        ["configuration", "proxy", "dns", "tcp", "status"],
        "a service out of reach is not called"
    );
}

#[test]
fn unselected_provider_with_bad_key_is_ignored() {
    let bench = Bench::new("");
    let config = format!(
        "{LANGMART}[provider.corp]\napi = \"openai\"\nbase_url = \"http://SIMULATOR/openai/v1\"\n\
         api_key = {{ env = \"EMPTY_KEY\" }}\nheaders = {{ x-tenant = {{ credential = \"tenant\" }} }}\n"
    );
    let output = bench.run("doctor", &config, &["langmart"]);
    let seen = bench.seen(&output);
    assert_eq!(output.status.code(), Some(0), "{seen}");
    assert!(!seen.contains("EMPTY_KEY") && !seen.contains("tenant"), "{seen}");
    for arguments in [&["corp"][..], &[]] {
        let output = bench.run("doctor", &config, arguments);
        let seen = bench.seen(&output);
        assert_eq!(output.status.code(), Some(78), "{seen}");
        assert!(seen.contains("provider.corp.api_key: the key is empty"), "{seen}");
    }
}

#[test]
fn walk_without_generate_sends_no_completion() {
    let bench = Bench::new("");
    for (arguments, completions) in [(&[][..], 0), (&["--generate"][..], 1)] {
        let output = bench.run("doctor", &with_chat(), arguments);
        assert_eq!(output.status.code(), Some(0), "{}", bench.seen(&output));
        let sent = bench.simulator.requests();
        let sent = sent.iter().filter(|request| request.path.contains("/chat")).count();
        assert_eq!(sent, completions);
    }
}

#[test]
fn impossible_walk_has_its_exit_status() {
    let bench = Bench::new("");
    for (config, arguments, status, says) in [
        ("[log]\nlevl = 1\n", &[][..], 78, "unknown key"),
        (LANGMART, &["other"][..], 2, "no provider is named other; the configuration has: langmart"),
        ("", &[][..], 1, "the configuration has no provider"),
    ] {
        let output = bench.run("doctor", config, arguments);
        assert_eq!(output.status.code(), Some(status), "{config}");
        assert!(bench.seen(&output).contains(says), "{}", bench.seen(&output));
    }
}

/// Checks the text that a user would paste into a ticket, for each chapter of the guide.
#[test]
fn ticket_of_each_chapter_is_complete() {
    let rule = |path: &str, fault: &str| format!("[[rule]]\npath = \"{path}\"\nfault = \"{fault}\"\n");
    let auth = || LANGMART.replace("health", "auth");
    let bad_key = || auth().replace("\"KEY\"", "\"BAD_KEY\"");
    let upstream = rule("/chat", "provider_auth_failed") + "upstream = \"openai\"\n";
    let limited = rule("/chat", "rate_limited") + "upstream = \"openai\"\nretry_after = \"60s\"\n";
    let chapters = [
        ("invalid_api_key", String::new(), bad_key()),
        ("provider_connection_failures", upstream, with_chat()),
        ("rate_limiting", limited, with_chat()),
        ("timeout_errors", rule("/chat", "gateway_timeout"), with_chat()),
        ("gateway_unavailable", rule("/", "unavailable"), LANGMART.to_owned()),
        ("network_connectivity", String::new(), LANGMART.replace("http://SIMULATOR", "https://llm.invalid")),
        ("still_having_issues", rule("/chat", "server_error"), with_chat()),
    ];
    // Phases below a millisecond are left out, so that the line depends on the machine.
    let duration = Regex::new(r"(?m)<?\b[\d.]+ s\b|^- Time spent:.*\n").unwrap();
    for (chapter, scenario, config) in chapters {
        let bench = Bench::new(&scenario);
        let record = bench.run("once", &config, &["--json"]);
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let records = bench.directory.path().join(format!("results.jsonl.{today}"));
        fs::write(records, record.stdout).unwrap();
        let config = format!("log.directory = \"DIRECTORY\"\n{config}");
        let output = bench.run("report", &config, &["--since", "1h"]);
        let seen = bench.seen(&output);
        let name = |found: &Captures<'_>| if found[0].starts_with('-') { "" } else { "N s" };
        let seen = duration.replace_all(&seen, name);
        let seen = seen.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/tickets").join(format!("{chapter}.md"));
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if seen != expected {
            let actual = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{chapter}.md"));
            fs::write(&actual, &seen).unwrap();
            panic!("{}, expected:\n{expected}--- {} has:\n{seen}", path.display(), actual.display());
        }
    }
}

#[test]
fn report_has_the_failures_of_its_records() {
    let bench = Bench::new("");
    let config = format!("[log]\ndirectory = \"DIRECTORY\"\n{LANGMART}");
    let output = bench.run("report", &config, &[]);
    assert_eq!(output.status.code(), Some(1), "no records: {}", bench.seen(&output));

    let record = bench.run("once", &LANGMART.replace("SIMULATOR/", "SIMULATOR/nowhere/"), &["--json"]);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d");
    fs::write(bench.directory.path().join(format!("results.jsonl.{now}")), record.stdout).unwrap();
    let output = bench.run("report", &config, &["--since", "5m"]);
    let seen = bench.seen(&output);
    assert_eq!(output.status.code(), Some(0), "{seen}");
    let title = "## unavailable: 404, responsible: the gateway (probe langmart-health)\n";
    assert!(seen.contains(title), "{seen}");
    assert!(seen.contains("- HTTP status: 404 (1)\n"), "{seen}");
}
