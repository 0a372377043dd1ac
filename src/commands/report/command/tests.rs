//! Tests of the command on records.

use std::{ffi::OsString, fs, net::IpAddr, time::Duration};

use super::*;
use crate::outcome::{
    AddressFailure, Check, Detail, FailedAddress, Fault, LimitedBy, Outcome, Phases, RateLimit, Reason,
    Record, Resource, Subject, Tls,
};

const NOW: Duration = Duration::from_secs(1_795_334_460);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

fn line(probe: &str, ago: u64, reason: Reason, fault: Fault) -> String {
    let failed = reason != Reason::Ok;
    let outcome = Outcome {
        http_status: Some(if failed { 429 } else { 200 }),
        request_id: failed.then(|| format!("req_{ago}")),
        error_code: failed.then(|| "rate_limit_exceeded".into()),
        detail: failed.then(|| Detail::JsonDiffers("limited | by <tokens>".into())),
        hint: if failed { "wait as asked" } else { "" }.into(),
        duration: Duration::from_millis(100 + ago),
        ..Outcome::new(now() - Duration::from_secs(ago), reason, fault)
    };
    let subject = Subject { probe, provider: "groq", check: Check::Chat, model: Some("a|b") };
    serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap()
}

struct Bench {
    directory: tempfile::TempDir,
    /// Path to the configuration.
    path: PathBuf,
}

impl Bench {
    fn new(lines: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("results.jsonl.2026-11-22"), lines.join("\n")).unwrap();
        let config = format!("[log]\ndirectory = \"{}\"\n", directory.path().display());
        let path = directory.path().join("config.toml");
        fs::write(&path, config).unwrap();
        Self { directory, path }
    }

    fn run(&self, since: &str, probe: Option<&str>, json: bool) -> (u8, String, String) {
        run(&self.path, since, probe, json)
    }

    fn run_with<'a>(&'a self, change: impl FnOnce(Report<'a>) -> Report<'a>) -> (u8, String, String) {
        run_as(&self.path, change)
    }

    fn run_ledger(&self, incidents: bool, vantages: &[String]) -> (u8, String, String) {
        run_as(&self.path, |request| Report { incidents, vantages, ..request })
    }
}

fn run(path: &Path, since: &str, probe: Option<&str>, json: bool) -> (u8, String, String) {
    let format = if json { ReportFormat::Json } else { ReportFormat::Markdown };
    run_as(path, |request| Report { since: Some(since), probe, format, ..request })
}

fn run_as<'a>(path: &'a Path, change: impl FnOnce(Report<'a>) -> Report<'a>) -> (u8, String, String) {
    let variable = |_: &str| None::<OsString>;
    let environment = Environment { variable: &variable, system_roots: &Vec::new };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let request = change(Report {
        path,
        incidents: false,
        since: Some("1h"),
        probe: None,
        provider: None,
        format: ReportFormat::Markdown,
        account: false,
        vantages: &[],
        terminal: false,
        now: now(),
        packaged_logs: Path::new("/nonexistent"),
    });
    let status = report(&request, &environment, &mut out, &mut err).unwrap();
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn records() -> Bench {
    Bench::new(&[
        line("early", 3_700, Reason::RateLimited, Fault::Caller),
        line("groq-chat", 3_000, Reason::Ok, Fault::None),
        line("groq-chat", 120, Reason::RateLimited, Fault::Caller),
        line("groq-chat", 60, Reason::RateLimited, Fault::Caller),
        "torn".to_owned(),
        line("groq-auth", 30, Reason::Ok, Fault::None),
    ])
}

#[test]
fn report_lists_failures_and_runs() {
    let (status, out, err) = records().run("1h", None, false);
    let expected = "\
# Failed requests from 2026-11-22T07:01:00Z to 2026-11-22T08:01:00Z (UTC)

2 of 4 runs failed; 1 of 2 probes affected. Recorded by langmart-prober VERSION.

## rate_limited: 429, code rate_limit_exceeded, responsible: the caller (probe groq-chat)

- State: failing since 2026-11-22T07:59:00Z; last success at 2026-11-22T07:11:00Z
- Request: check chat of provider groq, model a\\|b; the configuration has no such probe now
- Runs: 2, the first at 2026-11-22T07:59:00Z, the last at 2026-11-22T08:00:00Z
- HTTP status: 429 (2)
- Duration: median 0.19 s, longest 0.22 s
- What happened: expect.json: limited \\| by \\<tokens> has another value
- Suggested to the caller: wait as asked

| start (UTC) | status | duration | request ID |
|---|---|---|---|
| 2026-11-22T08:00:00Z | 429 | 0.16 s | req_60 |
| 2026-11-22T07:59:00Z | 429 | 0.22 s | req_120 |

## Runs

| probe | runs | succeeded | share | mean duration of a success |
|---|---|---|---|---|
| groq-auth | 1 | 1 | 100 % | 0.13 s |
| groq-chat | 3 | 1 | 33.3 % | 3.1 s |

1 line of the files is not a record and was skipped.

## To be completed before sending (never paste a key or its header)

- Account, and name of the key in the provider's console:
- Public source address, network and region; proxy, yes or no:
- Other clients affected:
- Already tried, with result:
";
    assert_eq!(out, expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
    assert_eq!((status, err.as_str()), (EXIT_OK, ""));
}

#[test]
fn json_report_has_the_same_facts() {
    let (status, out, _) = records().run("1h", Some("groq-chat"), true);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let failure = &report["failures"][0];
    assert_eq!(
        (status, report["skipped_lines"].as_u64(), failure["count"].as_u64()),
        (EXIT_OK, Some(1), Some(2))
    );
    assert_eq!(failure["latest"][0]["request_id"], "req_60");
    assert_eq!(failure["duration_seconds"], serde_json::json!({"median": 0.19, "max": 0.22}));
    assert_eq!(failure["http_status"], serde_json::json!({"429": 2}));
    assert_eq!(report["probes"].as_array().unwrap().len(), 1);
    assert_eq!(report["probes"][0]["mean_success_duration_seconds"], 3.1);
    assert!(report.get("upstream").is_none());
}

#[test]
fn records_of_the_package_are_found() {
    let bench = records();
    let config = bench.directory.path().join("config.toml");
    fs::write(&config, "[provider.langmart]\nchecks = [\"health\"]\n").unwrap();
    let environment = Environment { variable: &|_| None, system_roots: &Vec::new };
    let request = Report {
        path: &config,
        incidents: false,
        since: Some("1d"),
        probe: Some("groq-chat"),
        provider: None,
        format: ReportFormat::Markdown,
        account: false,
        vantages: &[],
        terminal: false,
        now: now(),
        packaged_logs: bench.directory.path(),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(report(&request, &environment, &mut out, &mut err).unwrap(), EXIT_OK);
    assert!(String::from_utf8(out).unwrap().contains("2 of 3 runs failed"));
    assert_eq!(
        String::from_utf8(err).unwrap(),
        "warning: no probe is named groq-chat; the configuration has: langmart-health\n"
    );
}

const LANGMART: Subject<'static> = Subject {
    probe: "langmart-chat",
    provider: "langmart",
    check: Check::Chat,
    model: Some("openai/gpt-4o-mini"),
};

/// Returns an outcome of that many seconds ago.
fn outcome(ago: u64, reason: Reason, fault: Fault) -> Outcome {
    Outcome::new(now() - Duration::from_secs(ago), reason, fault)
}

/// Returns the ticket of these outcomes of a configured chat probe. `settings` are of its
/// provider.
#[track_caller]
fn ticket(settings: &str, outcomes: &[Outcome]) -> String {
    let record = |outcome| serde_json::to_string(&Record { subject: LANGMART, outcome }).unwrap();
    let bench = Bench::new(&outcomes.iter().map(record).collect::<Vec<_>>());
    let config = format!(
        "[log]\ndirectory = \"{}\"\n[provider.langmart]\napi_key = {{ env = \"KEY\" }}\n{settings}\n\
         [[probe]]\nname = \"langmart-chat\"\nprovider = \"langmart\"\ncheck = \"chat\"\n\
         model = \"openai/gpt-4o-mini\"\nmax_tokens = 32\ntimeout = \"20s\"\n",
        bench.directory.path().display()
    );
    fs::write(&bench.path, config).unwrap();
    let (status, out, err) = bench.run("1h", None, false);
    assert_eq!(status, EXIT_OK, "{err}");
    out
}

#[track_caller]
fn contains(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|other| other == *line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn ticket_of_a_request_has_what_support_asks_for() {
    let seconds = Duration::from_secs_f64;
    let failed = Outcome {
        http_status: Some(504),
        error_code: Some("other".into()),
        upstream: Some("openai"),
        remote_address: Some(([203, 0, 113, 7], 443).into()),
        clock_offset: Some(0.4),
        duration: seconds(60.04),
        phases: Phases { connect: seconds(0.03), processing: seconds(60.01), ..Phases::default() },
        ..outcome(60, Reason::GatewayTimeout, Fault::Provider)
    };
    let recheck = Outcome { recheck: Some(1), ..failed.clone() };
    let request = format!(
        "- Request: POST https://api.langmart.ai/v1/chat/completions, model openai/gpt-4o-mini, at most 32 tokens, \
         not streamed, key in \"authorization: Bearer\", timeout 20s, every 5m, User-Agent langmart-prober/{} (as configured now)",
        env!("CARGO_PKG_VERSION")
    );
    let text = ticket("", &[failed, recheck.clone(), recheck]);
    contains(
        &text,
        &[
            "## gateway_timeout: 504, an undocumented code, not shown, responsible: openai behind LangMart \
             (probe langmart-chat)",
            &request,
            "- Connected to: 203.0.113.7:443",
            "- Runs: 1, at 2026-11-22T08:00:00Z",
            "- Time spent: connecting 0.03 s, waiting for the response 60.01 s",
            "- Rechecks: 2 after the failed run, none succeeded",
            "- Request IDs: none in the responses; find these requests by time (UTC) and User-Agent",
            "| start (UTC) | status | duration |",
            "| 2026-11-22T08:00:00Z | 504 | 60.04 s |",
            "- Account, and name of the key under Settings > API Keys:",
        ],
    );
    assert!(text.contains("Its clock agrees with the service's within 2 s."), "{text}");
    assert!(!text.contains("median"), "{text}");
}

#[test]
fn ticket_never_shows_the_proxy_as_the_service() {
    let proxy = IpAddr::from([192, 0, 2, 3]);
    let connected = Outcome {
        remote_address: Some((proxy, 3128).into()),
        ..outcome(60, Reason::Timeout, Fault::Gateway)
    };
    let refused = Outcome {
        failed_addresses: vec![FailedAddress { address: proxy, error: AddressFailure::Refused }],
        ..outcome(60, Reason::Proxy, Fault::Network)
    };
    let settings = "proxy = \"http://192.0.2.3:3128\"";
    for settings in [settings, ""] {
        for (outcome, line) in [
            (&connected, "- Connected through a proxy"),
            (&refused, "- Not connected: tried a proxy (refused)"),
        ] {
            let text = ticket(settings, std::slice::from_ref(outcome));
            contains(&text, &[line]);
            assert!(!text.contains("192.0.2.3"), "{text}");
        }
    }
    let direct = Outcome { reason: Reason::Connect, ..refused };
    contains(
        &ticket("", &[direct]),
        &[
            "- Not connected: tried 192.0.2.3:443 (refused)",
            "- Request IDs: none, because no request was sent",
        ],
    );
}

#[test]
fn ticket_excludes_runs_while_offline() {
    let offline = |ago| Outcome { offline: true, ..outcome(ago, Reason::Dns, Fault::Network) };
    let text = ticket("", &[outcome(900, Reason::Dns, Fault::Network), offline(600), offline(300)]);
    contains(
        &text,
        &[
            "- State: failing since 2026-11-22T07:46:00Z; no success in this period",
            "- While this machine was offline: 2 of these 3 runs; they are no evidence about the service",
            "- Runs: 3, the first at 2026-11-22T07:46:00Z, the last at 2026-11-22T07:56:00Z",
            "| 2026-11-22T07:46:00Z | - | 0 s |",
            "| langmart-chat | 3 | 0 | 2 | 0 % | - |",
        ],
    );
    assert!(text.contains("3 of 3 runs failed, 2 of them while this machine was offline; 1 of"), "{text}");
    assert!(!text.contains("| 2026-11-22T07:56:00Z |"), "{text}");
    contains(
        &ticket("", &[offline(300)]),
        &[
            "## dns: no HTTP response, responsible: this machine, which was offline (probe langmart-chat)",
            "- State: unknown, because this machine was offline",
            "- While this machine was offline: this run; it is no evidence about the service",
            "| langmart-chat | 1 | 0 | 1 | - | - |",
            "- Other hosts reached from this machine, yes or no:",
        ],
    );
}

#[test]
fn ticket_has_no_advice_to_wait_for_the_service() {
    for (reason, fault, has_advice) in [
        (Reason::Unavailable, Fault::Gateway, false),
        (Reason::GatewayTimeout, Fault::Provider, false),
        (Reason::ServerError, Fault::Gateway, false),
        (Reason::Overloaded, Fault::Provider, false),
        (Reason::Permission, Fault::Provider, true),
        (Reason::Malformed, Fault::Gateway, true),
        (Reason::StreamStalled, Fault::Provider, true),
        (Reason::Tls, Fault::Gateway, true),
    ] {
        let failed = Outcome { hint: "do this".into(), ..outcome(60, reason, fault) };
        let text = ticket("", &[failed]);
        assert_eq!(text.contains("- Suggested to the caller: do this\n"), has_advice, "{reason}: {text}");
    }
}

#[test]
fn ticket_asks_for_errors_that_have_no_code() {
    for (status, error_code, asks) in [
        (500, None, true),
        (500, Some("other"), true),
        (500, Some("internal_error"), false),
        (200, None, false),
    ] {
        let failed = Outcome {
            http_status: Some(status),
            error_code: error_code.map(Into::into),
            ..outcome(60, Reason::Malformed, Fault::Gateway)
        };
        let text = ticket("", &[failed]);
        assert_eq!(text.contains("once --verbose langmart-chat` prints"), asks, "{status}: {text}");
    }
}

#[test]
fn ticket_has_the_state_of_each_failure() {
    let failed = |ago, reason| outcome(ago, reason, Fault::Gateway);
    let ok = |ago| outcome(ago, Reason::Ok, Fault::None);
    let text = ticket(
        "",
        &[ok(900), failed(600, Reason::Unavailable), ok(540), ok(480), failed(60, Reason::ServerError)],
    );
    contains(
        &text,
        &[
            "- State: recovered at 2026-11-22T07:52:00Z",
            "- State: failing since 2026-11-22T08:00:00Z; last success at 2026-11-22T07:53:00Z",
        ],
    );
    let relapsed = ticket("", &[failed(90, Reason::Unavailable), ok(60), failed(30, Reason::Unavailable)]);
    contains(
        &relapsed,
        &["- State: failing since 2026-11-22T08:00:30Z; last success at 2026-11-22T08:00:00Z"],
    );
}

#[test]
fn success_of_a_changed_probe_is_no_recovery() {
    let success = line("p", 60, Reason::Ok, Fault::None);
    let failure = line("p", 120, Reason::RateLimited, Fault::Caller);
    let state = |success: &str| {
        let (_, out, _) = Bench::new(&[failure.clone(), success.to_owned()]).run("1h", None, false);
        out.lines().find(|line| line.starts_with("- State: ")).unwrap().to_owned()
    };
    assert_eq!(state(&success), "- State: recovered at 2026-11-22T08:00:00Z");
    assert_eq!(state(&success.replace("a|b", "another")), "- State: unknown");
    assert_eq!(state(&success.replace("groq", "openai")), "- State: unknown");
    let later = state(&success.replace("2026-11-22T08:00", "2026-11-23T08:00"));
    assert_eq!(later, "- State: failing since 2026-11-22T07:59:00Z; no success in this period", "a clock");
}

#[test]
fn ticket_has_the_figures_of_the_limit() {
    let limited = |limited_by, resource| Outcome {
        http_status: Some(429),
        limited_by: Some(limited_by),
        retry_after: Some(60.0),
        ratelimit: vec![RateLimit { resource, limit: Some(60), remaining: Some(0), reset: Some(now()) }],
        ..outcome(60, Reason::RateLimited, Fault::Caller)
    };
    for (limited_by, resource, line) in [
        (
            LimitedBy::Requests,
            Resource::Requests,
            "- Limit: requests, 0 of 60 left, full again at 2026-11-22T08:01:00Z; requested wait: 60 s",
        ),
        (
            LimitedBy::Unknown,
            Resource::OutputTokens,
            "- Limit: unknown; output tokens, 0 of 60 left, full again at 2026-11-22T08:01:00Z; requested wait: 60 s",
        ),
        (LimitedBy::Tokens, Resource::Requests, "- Limit: tokens; requested wait: 60 s"),
    ] {
        contains(&ticket("", &[limited(limited_by, resource)]), &[line]);
    }
}

#[test]
fn certificate_failure_has_the_end_of_validity() {
    let tls = Some(Tls { not_after: Some(now() - Duration::from_secs(61)), ..Tls::default() });
    let text = ticket("", &[Outcome { tls, ..outcome(60, Reason::Tls, Fault::Gateway) }]);
    contains(&text, &["- Certificate: a certificate of the chain is valid until 2026-11-22T07:59:59Z"]);
}

#[test]
fn provider_selects_all_its_probes() {
    let line = |probe, provider| {
        let outcome = outcome(60, Reason::Unavailable, Fault::Gateway);
        let subject = Subject { probe, provider, ..LANGMART };
        serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap()
    };
    let bench = Bench::new(&[line("a", "langmart"), line("b", "langmart"), line("c", "groq")]);
    for incidents in [false, true] {
        let provider = Some("langmart");
        let (status, out, err) = bench.run_with(|request| Report { incidents, provider, ..request });
        assert_eq!(status, EXIT_OK, "{err}");
        let expected = "warning: no provider is named langmart; the configuration has: \n";
        assert_eq!(err, expected);
        assert!(out.contains(if incidents { "a (chat), b (chat)" } else { "2 of 2 runs failed" }), "{out}");
        assert!(!out.contains("groq"), "{out}");
    }
}

#[track_caller]
fn check(since: &str, probe: Option<&str>, status: u8, message: &str) {
    let (actual, out, err) = records().run(since, probe, false);
    assert_eq!((actual, out.as_str()), (status, ""), "{err}");
    assert!(err.contains(message), "{err}");
}

/// Writes a compressed file that is damaged at its beginning.
fn write_damaged(directory: &Path) {
    fs::write(directory.join("results.jsonl.2026-11-22.gz"), "not gzip").unwrap();
}

#[test]
fn damage_is_named_if_nothing_can_be_read() {
    for incidents in [false, true] {
        let bench = Bench::new(&["torn".to_owned()]);
        write_damaged(bench.directory.path());
        let (status, out, err) = bench.run_ledger(incidents, &[]);
        assert_eq!((status, out.as_str()), (EXIT_FAILED, ""));
        for sentence in
            ["\nresults.jsonl.2026-11-22.gz is damaged; ", "\n2 lines of the files are not records"]
        {
            assert!(err.contains(sentence), "{err}");
        }
    }
    let (_, _, err) = Bench::new(&["torn".to_owned()]).run_ledger(true, &[]);
    assert!(err.contains("\n1 line of the files is not a record"), "{err}");
}

#[test]
fn vantage_point_without_records_is_named() {
    let outage = [line("groq-chat", 60, Reason::Unavailable, Fault::Provider)];
    let (bench, other) = (Bench::new(&outage), Bench::new(&outage));
    let given = |directory: &Path| vec![format!("fra={}", directory.display())];
    let good = given(other.directory.path());
    let (status, out, err) = bench.run_ledger(true, &good);
    assert_eq!((status, err.as_str()), (EXIT_OK, ""));
    assert!(out.contains("- Vantage point fra: 1 of 1 runs failed"), "{out}");

    write_damaged(other.directory.path());
    let (_, out, err) = bench.run_ledger(true, &good);
    assert!(out.contains("- Vantage point fra: 1 of 1 runs failed"), "{out}");
    assert!(err.contains("warning: --vantage fra: results.jsonl.2026-11-22.gz is damaged"), "{err}");

    let empty = tempfile::tempdir().unwrap();
    let (status, out, err) = bench.run_ledger(true, &given(empty.path()));
    assert!(status == EXIT_OK && !out.contains("Vantage point"), "{out}");
    let expected =
        format!("warning: --vantage fra: no record of the last 1h in {}\n", empty.path().display());
    assert_eq!(err, expected);

    let (status, out, err) = bench.run_ledger(true, &given(Path::new("/nonexistent")));
    assert_eq!((status, out.as_str()), (EXIT_FAILED, ""));
    assert!(err.starts_with("--vantage fra: cannot read /nonexistent: "), "{err}");
    assert!(
        err.contains("; copy the records of that prober there") && !err.contains("log.directory"),
        "{err}"
    );
}

#[test]
fn report_without_records_names_the_cause() {
    check("1s", None, EXIT_FAILED, "no record of the last 1s in /");
    let (status, _, err) = records().run_with(|request| Report { provider: Some("acme"), ..request });
    assert_eq!(status, EXIT_FAILED);
    assert!(err.contains("no record of a provider named acme of the last 1h in /"), "{err}");
    check("1h", Some("other"), EXIT_FAILED, "no record of a probe named other of the last 1h in /");
    let (_, out, _) = records().run("99999999h", None, false);
    assert!(out.starts_with("# Failed requests from 1970-01-01T00:00:00Z to "), "{out}");
    check("yesterday", None, EXIT_USAGE, "--since \"yesterday\" ");
    let bench = records();
    let path = bench.directory.path().join("config.toml");
    fs::write(&path, "[log]\ndirectory = \"/nonexistent\"\n").unwrap();
    let (status, _, err) = bench.run("1h", None, false);
    assert_eq!(status, EXIT_FAILED);
    assert!(err.starts_with("cannot read /nonexistent: ") && err.contains("; set log.directory"), "{err}");
    fs::write(&path, "").unwrap();
    let (status, _, err) = bench.run("1h", None, false);
    assert_eq!(status, EXIT_FAILED);
    assert!(err.contains("/nonexistent does not exist; set log.directory to"), "{err}");
    assert_eq!(run(Path::new("/nonexistent"), "1h", None, false).0, EXIT_CONFIGURATION);
}
