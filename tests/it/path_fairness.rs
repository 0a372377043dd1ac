//! Tests of fairness: a provider that floods its connections delays no run of another provider.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs, thread,
    time::{Duration, Instant},
};

use langmart_prober::simulator::Simulator;
use rustix::process::Pid;
use serde_json::Value;

use crate::harness::{
    daemon::{KEY, LISTEN, Place, records},
    flood::{Flood, FloodServer},
    simulate::simulator,
    wait::WAIT_TIMEOUT,
};

/// Maximum growth of the daemon's resident memory in mebibytes.
pub const MAX_GROWTH_MIB: f64 = 64.0;

/// Interval between reads of the records.
const READ_INTERVAL: Duration = Duration::from_millis(100);

/// Probes of the provider that is not flooded, and the number of runs to measure.
pub struct Victims {
    pub probes: u32,
    pub interval: &'static str,
    pub runs: usize,
}

/// Result of a flood.
pub struct Report {
    /// Durations of the victims' runs in milliseconds, in ascending order; fewer than requested if
    /// there were not enough.
    pub durations: Vec<f64>,
    /// Number of the victims' runs that failed, and that were skipped.
    pub failed: f64,
    pub skipped: f64,
    /// Distinct reasons of the flooded runs: of those with a timeout of 5 s, and of those with 100
    /// ms.
    pub reasons: [BTreeSet<String>; 2],
    /// Growth of the daemon's resident memory to its peak, in mebibytes.
    pub growth: f64,
    /// Received data of the flood in megabytes per second.
    pub rate: f64,
}

impl Report {
    /// Returns the duration that this share of the victims' runs does not exceed, in milliseconds; NaN without runs.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.durations.len().saturating_sub(1);
        self.durations.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Returns the configuration of the victims and of the flooded probes: some with long connections,
/// and some that reconnect continuously.
fn configuration(
    place: &Place,
    victims: &Victims,
    simulator: &Simulator,
    flood: Option<(&Flood, &FloodServer)>,
) -> String {
    let Victims { probes, interval, .. } = victims;
    let mut text = format!(
        "{LISTEN}[log]\ndirectory = \"{}\"\n[defaults]\ninterval = \"{interval}\"\n[provider.victim]\n\
         api = \"openai\"\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = []\n",
        place.path("logs").display(),
        simulator.address()
    );
    for number in 0..*probes {
        let probe = format!("name = \"victim-{number}\"\nprovider = \"victim\"\ncheck = \"auth\"");
        writeln!(text, "[[probe]]\n{probe}").unwrap();
    }
    let Some((flood, server)) = flood else { return text };
    place.write("ca.pem", &server.ca_pem);
    let (scheme, ca_file) = (if flood.http2 { "https" } else { "http" }, place.path("ca.pem"));
    writeln!(
        text,
        "[provider.flood]\napi = \"openai\"\nbase_url = \"{scheme}://{}/v1\"\nca_file = \"{}\"\n{KEY}\nchecks = []",
        server.address,
        ca_file.display()
    )
    .unwrap();
    for number in 0..2 {
        for (check, model) in [("auth", ""), ("stream", "model = \"gpt-4o-mini\"\n")] {
            for (kind, bound) in [("long", "5s"), ("short", "100ms")] {
                writeln!(
                    text,
                    "[[probe]]\nname = \"flood-{kind}-{check}-{number}\"\nprovider = \"flood\"\ncheck = \"{check}\"\n\
                     {model}interval = \"{bound}\"\ntimeout = \"{bound}\""
                )
                .unwrap();
            }
        }
    }
    text
}

/// Runs the victims during a flood, or undisturbed, in a daemon of its own.
#[track_caller]
pub fn measure(flood: Option<&Flood>, victims: &Victims) -> Report {
    let simulator = simulator("");
    let server = flood.map(FloodServer::start);
    let place = Place::new("");
    place.write("config.toml", &configuration(&place, victims, &simulator, flood.zip(server.as_ref())));
    let daemon = place.daemon();
    let (before, began) = (resident(daemon.pid(), "VmRSS:"), Instant::now());
    // A flood that starves the daemon is a result, too.
    while began.elapsed() < WAIT_TIMEOUT && durations(&place).len() < victims.runs {
        thread::sleep(READ_INTERVAL);
    }
    let sent = server.as_ref().map_or(0, FloodServer::sent);
    let rate = sent as f64 / 1e6 / began.elapsed().as_secs_f64();
    let reasons = || ["flood-long", "flood-short"].map(|prefix| reasons(&place, prefix));
    while flood.is_some() && began.elapsed() < WAIT_TIMEOUT && reasons().iter().any(BTreeSet::is_empty) {
        thread::sleep(READ_INTERVAL);
    }
    let scrape = daemon.scrape();
    let sum = |name: &str| scrape.values(name, &[("provider", "victim")]).iter().sum();
    Report {
        durations: durations(&place),
        failed: sum("langmart_probe_failures_total"),
        skipped: sum("langmart_probe_skipped_runs_total"),
        reasons: reasons(),
        growth: resident(daemon.pid(), "VmHWM:") - before,
        rate,
    }
}

/// Returns the recorded durations of the victims' runs in milliseconds, in ascending order.
fn durations(place: &Place) -> Vec<f64> {
    let of_victims = recorded(place).into_iter().filter(|record| record["provider"] == "victim");
    let mut durations: Vec<_> =
        of_victims.map(|record| record["duration_seconds"].as_f64().unwrap() * 1e3).collect();
    durations.sort_by(f64::total_cmp);
    durations
}

fn recorded(place: &Place) -> Vec<Value> {
    let lines = place.files("logs", "results.jsonl");
    // The last line may be incomplete.
    records(lines.rsplit_once('\n').map_or("", |(whole, _)| whole))
}

fn reasons(place: &Place, prefix: &str) -> BTreeSet<String> {
    let text = |record: &Value, member| record[member].as_str().unwrap().to_owned();
    let of_probes = recorded(place).into_iter().filter(|record| text(record, "probe").starts_with(prefix));
    of_probes.map(|record| text(&record, "reason")).collect()
}

/// Returns a line of the process's status (`proc_pid_status(5)`) in mebibytes.
pub fn resident(pid: Pid, key: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Forty runs a second, each of which may be five seconds late before it is skipped, and take 20 s
/// before it fails.
const SLOWEST_MACHINE: Victims = Victims { probes: 800, interval: "20s", runs: 80 };

#[track_caller]
fn check(floods: &[Flood]) {
    for flood in floods {
        let report = measure(Some(flood), &SLOWEST_MACHINE);
        let (p50, p99) = (report.quantile(0.5), report.quantile(0.99));
        println!(
            "{}: p50 {p50:.2} ms, p99 {p99:.2} ms, +{:.1} MiB, {:.0} MB/s, {:?}",
            flood.name, report.growth, report.rate, report.reasons
        );
        let (runs, wanted) = (report.durations.len(), SLOWEST_MACHINE.runs);
        assert!(runs >= wanted, "{}: {runs} of {wanted} runs within {WAIT_TIMEOUT:?}", flood.name);
        assert_eq!((report.failed, report.skipped), (0.0, 0.0), "{}: failed, skipped", flood.name);
        assert!(report.growth < MAX_GROWTH_MIB, "{}: {} MiB", flood.name, report.growth);
        let bounds = |reason: &String| ["malformed", "timeout"].contains(&reason.as_str());
        assert!(report.reasons.iter().flatten().all(bounds), "{}: {:?}", flood.name, report.reasons);
        let [long, _] = &report.reasons;
        let bounded = flood.has_head || long.iter().eq(["malformed"]);
        assert!(bounded, "{}: without a final head, runs ended as {long:?}", flood.name);
    }
}

fn floods(http2: bool) -> Vec<Flood> {
    Flood::all().into_iter().filter(|flood| flood.http2 == http2).collect()
}

#[test]
fn http1_floods_fail_no_run_of_another_provider() {
    check(&floods(false));
}

#[test]
fn http2_floods_fail_no_run_of_another_provider() {
    check(&floods(true));
}
