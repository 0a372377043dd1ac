//! Tests of rate limits, rechecks and slow runs as seen by the simulator, in metrics and in
//! records.

use std::{collections::BTreeMap, time::Duration};

use langmart_prober::simulator::Simulator;

use crate::harness::{
    daemon::{KEY, LISTEN, Place, records},
    scrape::Scrape,
    simulate::simulator,
    wait::wait_for,
};

fn openai(simulator: &Simulator, logs: &Place, provider: &str, probes: &str) -> String {
    format!(
        "{LISTEN}[log]\ndirectory = \"{}\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n{provider}\n{probes}",
        logs.path("logs").display(),
        simulator.address()
    )
}

fn probe(name: &str, check: &str, rest: &str) -> String {
    format!("[[probe]]\nname = \"{name}\"\nprovider = \"openai\"\ncheck = \"{check}\"\n{rest}\n")
}

fn of(scrape: &Scrape, name: &str, probe: &str, label: (&str, &str)) -> f64 {
    scrape.value(&format!("langmart_probe_{name}"), &[("probe", probe), label])
}

#[test]
fn provider_gets_no_more_requests_than_its_limit() {
    const PROBES: usize = 4;
    let simulator = simulator("");
    let place = Place::new("");
    let fast = "interval = \"100ms\"";
    let probes: String = (0..PROBES).map(|n| probe(&format!("p{n}"), "auth", fast)).collect();
    let network = probe("network", "network", fast);
    place.write(
        "config.toml",
        &openai(&simulator, &place, "requests_per_minute = 60", &format!("{probes}{network}")),
    );
    let mut daemon = place.daemon();
    // Five in a burst, and then one per second.
    let scrape = daemon.scrape_until("nine requests", |_| simulator.requests().len() >= 9);
    daemon.reload();
    daemon.scrape_until("eleven requests", |_| simulator.requests().len() >= 11);
    let log = daemon.stop();
    assert!(log.contains("the probes would send 2400.0 requests per minute"), "{log}");

    let arrived: Vec<_> = simulator.requests().iter().map(|request| request.head_received).collect();
    for some in arrived.windows(6) {
        // Minus the possible difference in transit time.
        assert!(some[5] - some[0] > Duration::from_millis(500), "{:?}", some[5] - some[0]);
    }
    let mut runs = BTreeMap::new();
    for record in records(place.files("logs", "results.jsonl")) {
        *runs.entry(record["probe"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    let network = runs.remove("network").unwrap();
    assert!(network > 11, "the network check sends no request: {network}");
    assert_eq!(runs.len(), PROBES, "{runs:?}");
    assert!(runs.values().max().unwrap() - runs.values().min().unwrap() <= 2, "{runs:?}");
    for probe in runs.keys() {
        assert!(of(&scrape, "skipped_runs_total", probe, ("cause", "pacing")) > 5.0);
        for cause in ["backoff", "budget", "concurrency"] {
            assert_eq!(of(&scrape, "skipped_runs_total", probe, ("cause", cause)), 0.0, "{cause}");
        }
    }
    assert_eq!(of(&scrape, "skipped_runs_total", "network", ("cause", "pacing")), 0.0);
}

#[test]
fn restart_keeps_the_minute_of_the_rate_limit() {
    let simulator = simulator("");
    let place = Place::new("");
    let state =
        format!("requests_per_minute = 1\n[state]\ndirectory = \"{}\"", place.path("state").display());
    let probe = probe("p", "auth", "interval = \"2s\"");
    place.write("config.toml", &openai(&simulator, &place, &state, &probe));
    for _ in 1..=2 {
        let mut daemon = place.daemon();
        wait_for("a request of the first life", || (!simulator.requests().is_empty()).then_some(()));
        daemon.scrape_until("two due times to be skipped", |scrape| {
            of(scrape, "skipped_runs_total", "p", ("cause", "pacing")) >= 2.0
        });
        daemon.stop();
    }
    let arrived: Vec<_> = simulator.requests().iter().map(|request| request.head_received).collect();
    for two in arrived.windows(2) {
        // A slow machine may have measured another pair, which may be late.
        assert!(two[1] - two[0] > Duration::from_secs(60), "{:?}", two[1] - two[0]);
    }
}

#[test]
fn rechecks_report_the_recovery_only() {
    let simulator = simulator("[[rule]]\ncalls = { from = 1, to = 3 }\nfault = \"unavailable\"");
    let place = Place::new("");
    let chat = |name, rest| {
        let timing = "model = \"gpt-4o-mini\"\ninterval = \"5s\"\ntimeout = \"1s\"";
        probe(name, "chat", &format!("{timing}\n{rest}"))
    };
    let rechecks = "recheck = { after = \"200ms\", step = \"200ms\", times = 3 }";
    place.write("config.toml", &openai(&simulator, &place, "", &chat("chat", rechecks)));
    let mut daemon = place.daemon();
    let before = daemon.scrape();
    assert_eq!(of(&before, "rechecks_total", "chat", ("result", "ok")), 0.0);
    assert_eq!(of(&before, "rechecks_total", "chat", ("result", "failed")), 0.0);
    let after = daemon.scrape_until("a recheck that succeeds", |scrape| {
        of(scrape, "rechecks_total", "chat", ("result", "ok")) == 1.0
    });
    assert_eq!(of(&after, "rechecks_total", "chat", ("result", "failed")), 2.0);
    assert_eq!(of(&after, "runs_total", "chat", ("check", "chat")), 1.0);
    assert_eq!(of(&after, "success", "chat", ("check", "chat")), 0.0);
    assert_eq!(of(&after, "http_status_code", "chat", ("check", "chat")), 503.0);
    assert_eq!(of(&after, "http_responses_total", "chat", ("code", "503")), 1.0);
    assert_eq!(of(&after, "http_responses_total", "chat", ("code", "200")), 0.0);
    assert_eq!(after.find("langmart_probe_last_success_timestamp_seconds", &[("probe", "chat")]), None);
    assert!(of(&after, "tokens_total", "chat", ("direction", "output")) > 0.0);
    let next_run = of(&after, "next_run_timestamp_seconds", "chat", ("check", "chat"));
    assert!(next_run > of(&after, "last_run_timestamp_seconds", "chat", ("check", "chat")) + 4.0);
    daemon.scrape_until("the next run", |scrape| of(scrape, "success", "chat", ("check", "chat")) == 1.0);
    daemon.stop();

    let records = records(place.files("logs", "results.jsonl"));
    let found: Vec<_> =
        records.iter().map(|record| (record["recheck"].as_u64(), record["success"].as_bool())).collect();
    assert_eq!(
        found,
        [
            (None, Some(false)),
            (Some(1), Some(false)),
            (Some(2), Some(false)),
            (Some(3), Some(true)),
            (None, Some(true))
        ]
    );
    let report = place.run("report", &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["probes"][0]["runs"], &report["probes"][0]["succeeded"]), (&2.into(), &1.into()));
    let requests = simulator.requests();
    let waits: Vec<_> = requests.windows(2).map(|two| two[1].head_received - two[0].head_received).collect();
    for (wait, least) in waits.iter().zip([200, 400, 600]) {
        assert!(*wait >= Duration::from_millis(least), "{waits:?}");
    }
}

#[test]
fn hint_prevents_rechecks() {
    let simulator = simulator("[[rule]]\nfault = \"unavailable\"\nretry_after = \"30s\"");
    let place = Place::new("");
    let rechecks =
        "interval = \"3s\"\ntimeout = \"1s\"\nrecheck = { after = \"100ms\", step = \"0s\", times = 5 }";
    place.write("config.toml", &openai(&simulator, &place, "", &probe("auth", "auth", rechecks)));
    let daemon = place.daemon();
    let scrape = daemon.scrape_until("a due time that is passed over", |scrape| {
        of(scrape, "skipped_runs_total", "auth", ("cause", "backoff")) >= 1.0
    });
    assert_eq!(of(&scrape, "retry_after_seconds", "auth", ("check", "auth")), 30.0);
    assert_eq!(simulator.requests().len(), 1);
}

#[test]
fn slow_run_is_measured_by_first_token_or_duration() {
    let simulator = simulator(
        "[[rule]]\npace = { processing = \"20ms\", first_token = \"100ms\", token = \"60ms\", tokens = 6 }",
    );
    let place = Place::new("");
    let each = |name, check, slow_after| {
        probe(name, check, &format!("model = \"gpt-4o-mini\"\ninterval = \"1s\"\n{slow_after}"))
    };
    // The first token comes after 120 ms, the last after about 420 ms.
    let probes = [
        each("stream-slow", "stream", "slow_after = \"100ms\""),
        each("stream-quick", "stream", "slow_after = \"300ms\""),
        each("chat-slow", "chat", "slow_after = \"300ms\""),
        each("chat-any", "chat", ""),
    ];
    place.write("config.toml", &openai(&simulator, &place, "", &probes.concat()));
    let mut daemon = place.daemon();
    let slow = |scrape: &Scrape, probe| scrape.find("langmart_probe_slow_runs_total", &[("probe", probe)]);
    let before = daemon.scrape();
    for probe in ["stream-slow", "stream-quick", "chat-slow"] {
        assert_eq!(slow(&before, probe), Some(0.0), "{probe}");
    }
    let scrape = daemon.scrape_until("two runs of each", |scrape| {
        scrape.values("langmart_probe_runs_total", &[]).iter().all(|runs| *runs >= 2.0)
    });
    daemon.stop();
    assert_eq!(slow(&scrape, "chat-any"), None);
    for probe in ["stream-slow", "chat-slow"] {
        let runs = scrape.value("langmart_probe_runs_total", &[("probe", probe)]);
        assert_eq!(slow(&scrape, probe), Some(runs), "{probe}");
    }
    for record in records(place.files("logs", "results.jsonl")) {
        let expected = record["probe"].as_str().unwrap().ends_with("-slow").then_some(true);
        // On a busy machine a quick one may be slow.
        if record["probe"] != "stream-quick" {
            assert_eq!(record["slow"].as_bool(), expected, "{record}");
        }
    }
}
