//! Tests of the daemon as a process: start, metrics and files, stop.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    time::{Duration, Instant},
};

use langmart_prober::{
    outcome::{Api, Check, SkipCause, possible_failures},
    simulator::Simulator,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place, records},
    simulate::{play, simulator},
    wait::wait_for,
};

/// Returns OpenAI's auth check against the simulator, with that interval.
fn auth(simulator: &Simulator, interval: &str) -> String {
    format!(
        "[defaults]\ninterval = \"{interval}\"\ntimeout = \"60s\"\n[provider.openai]\n\
         base_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
        simulator.address()
    )
}

#[test]
fn before_first_run_counters_are_zero_and_gauges_absent() {
    let simulator = simulator("");
    // With an interval of a week there is no run during the test.
    let place = Place::new(&format!("{LISTEN}{}", auth(&simulator, "168h")));
    let daemon = place.daemon();
    for path in ["/-/ready", "/-/healthy", "/", "/metrics"] {
        assert_eq!(daemon.get(path).status, 200, "{path}");
    }
    assert_eq!((daemon.get("/nowhere").status, daemon.request("POST", "/metrics").status), (404, 405));
    let scrape = daemon.scrape();
    let probe = [("probe", "openai-auth"), ("provider", "openai"), ("check", "auth"), ("model", "")];
    for name in ["runs_total", "retry_after_seconds", "retry_after_hints_total", "duration_seconds_count"] {
        assert_eq!(scrape.value(&format!("langmart_probe_{name}"), &probe), 0.0, "{name}");
    }
    for (reason, fault) in possible_failures(Api::Openai, Check::Auth) {
        let pair = [("probe", "openai-auth"), ("reason", reason.name()), ("fault", fault.name())];
        assert_eq!(scrape.value("langmart_probe_failures_total", &pair), 0.0);
    }
    for code in ["200", "401", "429", "503", "504", "529"] {
        assert_eq!(scrape.value("langmart_probe_http_responses_total", &[("code", code)]), 0.0);
    }
    for cause in SkipCause::ALL {
        assert_eq!(scrape.value("langmart_probe_skipped_runs_total", &[("cause", cause.name())]), 0.0);
    }
    assert_eq!(scrape.value("langmart_probe_interval_seconds", &probe), 604_800.0);
    assert_eq!(scrape.value("langmart_probe_info", &[("host", "127.0.0.1"), ("api", "openai")]), 1.0);
    assert_eq!(scrape.value("langmart_prober_config_last_reload_successful", &[]), 1.0);
    for name in ["success", "last_run_fault", "last_run_timestamp_seconds", "http_status_code"] {
        assert_eq!(scrape.find(&format!("langmart_probe_{name}"), &probe), None, "{name}");
    }
    assert!(simulator.requests().is_empty());
}

#[test]
fn run_has_its_record() {
    let simulator = simulator("[[rule]]\nfault = \"unavailable\"\nprobability = 0.3");
    let probe = |number| {
        format!(
            "[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"gpt-4o-mini\"\n"
        )
    };
    let probes = (0..20).map(probe).collect::<Vec<_>>().concat();
    let directory = "[log]\ndirectory = \"LOGS\"\n";
    let place = Place::new("");
    let directory = directory.replace("LOGS", place.path("logs").to_str().unwrap());
    let config = |interval: &str| {
        let generation = format!("[defaults.generation]\ninterval = \"{interval}\"\n");
        format!("{LISTEN}{directory}{}{generation}{probes}", auth(&simulator, interval))
    };
    place.write("config.toml", &config("100ms"));
    let mut daemon = place.daemon();
    daemon.scrape_until("some hundred runs", |scrape| scrape.sum("langmart_probe_runs_total") > 300.0);
    // The same probes with an interval of a week, so that the count no longer changes.
    place.write("config.toml", &config("168h"));
    daemon.reload();
    let counted = daemon.scrape_until("the end of all runs", |scrape| {
        scrape.value("langmart_prober_runs_in_flight", &[]) == 0.0
    });
    let log = daemon.stop();
    let records = records(place.files("logs", "results.jsonl"));
    let lost = ["langmart_prober_log_lines_dropped_total", "langmart_prober_log_write_errors_total"]
        .map(|name| counted.value(name, &[("file", "results")]));
    let runs = counted.sum("langmart_probe_runs_total");
    assert_eq!(records.len() as f64 + lost[0] + lost[1], runs, "{lost:?}");
    let failed = records.iter().filter(|record| record["success"] == false).count() as f64;
    assert_eq!(failed, counted.sum("langmart_probe_failures_total"));
    assert!(failed > 0.0 && failed < runs);
    let probes: BTreeSet<_> = records.iter().map(|record| record["probe"].as_str().unwrap()).collect();
    assert_eq!(probes.len(), 21);
    // The same lines in both outputs, in different formats.
    assert_eq!(place.files("logs", "prober.log").lines().count(), log.lines().count());
}

#[test]
fn log_reports_state_changes_only() {
    let simulator = simulator("");
    let place = Place::new(&format!("{LISTEN}{}", auth(&simulator, "1s")));
    let mut daemon = place.daemon();
    let more_runs = |daemon: &Daemon| {
        let before = daemon.runs("openai-auth");
        wait_for("two more runs", || (daemon.runs("openai-auth") > before + 1.0).then_some(()));
    };
    more_runs(&daemon);
    play(&simulator, "[[rule]]\nfault = \"server_error\"");
    more_runs(&daemon);
    play(&simulator, "[[rule]]\nfault = \"cut\"");
    more_runs(&daemon);
    play(&simulator, "");
    more_runs(&daemon);
    let log = daemon.stop();
    let of_probe: Vec<_> = log.lines().filter(|line| line.contains("openai-auth")).collect();
    let [succeeds, fails, otherwise, recovers] = of_probe.as_slice() else { panic!("{of_probe:#?}") };
    assert!(succeeds.contains("INFO") && succeeds.contains("Probe succeeding"), "{succeeds}");
    assert!(fails.contains("WARN") && fails.contains("Probe failing"), "{fails}");
    assert!(fails.contains("reason=server_error") && fails.contains("fault=provider"), "{fails}");
    assert!(otherwise.contains("reason=disconnected"), "{otherwise}");
    assert!(recovers.contains("Probe recovered") && recovers.contains("was=disconnected"), "{recovers}");
}

/// Starts a daemon with at least one run in progress that takes that long.
fn in_the_middle_of_a_run(milliseconds: u64) -> (Simulator, Place, Daemon) {
    let simulator = simulator(&format!("[[rule]]\nfault = \"slow_headers\"\nms = {milliseconds}"));
    let place = Place::new("");
    let log = format!("[log]\ndirectory = \"{}\"\n", place.path("logs").display());
    // An interval of a minute permits slow runs; with sixty probes, one is due within seconds.
    let config: String = (0..60).fold(auth(&simulator, "60s"), |config, number| {
        config + &format!("[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"auth\"\n")
    });
    place.write("config.toml", &format!("{LISTEN}{log}{config}"));
    let daemon = place.daemon();
    wait_for("a request", || (!simulator.requests().is_empty()).then_some(()));
    (simulator, place, daemon)
}

#[test]
fn stop_waits_for_runs_in_flight() {
    let (simulator, place, mut daemon) = in_the_middle_of_a_run(1500);
    daemon.signal(Signal::TERM);
    wait_for("readiness to end", || (daemon.get("/-/ready").status == 503).then_some(()));
    assert_eq!(daemon.get("/-/healthy").status, 200, "it is healthy while it stops");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("aborted"), "{log}");
    let records = records(place.files("logs", "results.jsonl"));
    assert_eq!(records.len(), simulator.requests().len(), "a record for each request");
    assert!(records.iter().all(|record| record["success"] == Value::Bool(true)), "{records:#?}");
}

#[test]
fn stop_takes_at_most_ten_seconds() {
    let (_simulator, _place, mut daemon) = in_the_middle_of_a_run(60_000);
    let asked = Instant::now();
    let log = daemon.stop();
    // Eight seconds and some overhead; the run would have continued for a minute.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(log.contains("runs in flight aborted"), "{log}");
    assert!(log.trim_end().ends_with("Daemon stopped"), "{log}");
}

#[test]
fn second_stop_ends_immediately() {
    let (_simulator, _place, mut daemon) = in_the_middle_of_a_run(60_000);
    daemon.signal(Signal::TERM);
    wait_for("the stop to begin", || (daemon.get("/-/ready").status == 503).then_some(()));
    let asked = Instant::now();
    daemon.signal(Signal::INT);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(asked.elapsed() < Duration::from_secs(8), "draining took {:?}", asked.elapsed());
}

#[test]
fn daemon_restarts_after_a_kill() {
    let simulator = simulator("");
    let place = Place::new("");
    let log = format!("[log]\ndirectory = \"{}\"\n", place.path("logs").display());
    place.write("config.toml", &format!("{LISTEN}{log}{}", auth(&simulator, "100ms")));
    for round in 0..3 {
        let mut daemon = place.daemon();
        daemon.scrape_until("three runs", |scrape| scrape.sum("langmart_probe_runs_total") >= 3.0);
        daemon.signal(Signal::KILL);
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), None, "round {round}: {log}");
        // A warning may come from a probe whose short timeout a busy machine exceeds.
        assert!(!log.contains("ERROR"), "round {round}: {log}");
    }
    place.daemon().stop();
    // A kill may truncate the last line; the next round starts on a new line.
    let results = place.files("logs", "results.jsonl");
    let torn = results.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert!(torn <= 3 && results.lines().count() >= 6, "{results}");
}

#[test]
fn bad_configuration_is_reported_in_full() {
    let place = Place::new(
        "[server]\nlisten = \"nowhere\"\n[log]\nlevel = 7\n[provider.acme]\nchecks = [\"chat\"]\n",
    );
    let output = place.run("run", &[]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let problems = String::from_utf8(output.stderr).unwrap();
    for problem in ["server.listen", "log.level", "provider.acme"] {
        assert!(
            problems.lines().any(|line| line.contains("config.toml:") && line.contains(problem)),
            "{problems}"
        );
    }
}

#[test]
fn address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let simulator = simulator("");
    let place = Place::new(&format!("[server]\nlisten = \"{address}\"\n{}", auth(&simulator, "60s")));
    let output = place.run("run", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains(&format!("cannot listen on {address}")) && message.contains("server.listen"),
        "{message}"
    );
}
