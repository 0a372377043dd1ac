//! Runs in numbers, of every kind, successful and not: what the daemon holds does not grow with them.

use std::{
    fmt::{self, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use langmart_prober::simulator::{SimulatedService, Simulator};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    scrape::Scrape,
    simulate::simulator,
};

/// Probes, and how often each of them runs.
const PROBES: u32 = 150;
const INTERVAL: &str = "500ms";

/// How much more the last quarter of the runs may hold on the average than the second.
const MORE_MIB: f64 = 6.0;
const MORE_THREADS: f64 = 2.0;
const MORE_DESCRIPTORS: f64 = 8.0;

/// Within this time there must be a further run.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

const MIB: f64 = 1024.0 * 1024.0;

/// What the daemon holds after so many runs.
#[derive(Clone, Copy, Default)]
struct Sample {
    runs: f64,
    resident_mib: f64,
    threads: f64,
    descriptors: f64,
}

impl Sample {
    fn of(scrape: &Scrape) -> Self {
        Self {
            runs: scrape.sum("langmart_probe_runs_total"),
            resident_mib: scrape.sum("process_resident_memory_bytes") / MIB,
            threads: scrape.sum("process_threads"),
            descriptors: scrape.sum("process_open_fds"),
        }
    }

    /// Returns the mean of those samples whose runs are in this quarter, counted from 0.
    fn quarter(samples: &[Self], number: u32) -> Self {
        let total = samples.last().map_or(0.0, |last| last.runs);
        let [from, to] = [number, number + 1].map(|quarter| total / 4.0 * f64::from(quarter));
        let held: Vec<_> = samples.iter().filter(|sample| (from..=to).contains(&sample.runs)).collect();
        let mean = |of: fn(&Self) -> f64| held.iter().map(|held| of(held)).sum::<f64>() / held.len() as f64;
        Self {
            runs: mean(|sample| sample.runs),
            resident_mib: mean(|sample| sample.resident_mib),
            threads: mean(|sample| sample.threads),
            descriptors: mean(|sample| sample.descriptors),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, resident_mib, threads, descriptors } = self;
        write!(
            f,
            "{runs:>9.0} runs, {resident_mib:.1} MiB, {threads:.1} threads, {descriptors:.1} descriptors"
        )
    }
}

/// Returns providers that answer well, over plain HTTP and TLS, and some that cannot be reached, are late or fail.
fn config(simulator: &Simulator, place: &Place) -> String {
    let (plain, tls) = (simulator.address(), simulator.tls_address().unwrap());
    place.write("ca.pem", simulator.ca_pem());
    let (ca, directory) = (place.path("ca.pem"), place.path("logs"));
    let mut text = format!(
        "{LISTEN}[log]\ndirectory = \"{}\"\n[schedule]\nmax_backoff = \"1s\"\nmax_concurrent = 200\n\
         max_concurrent_per_provider = 100\n",
        directory.display()
    );
    let urls = [
        ("plain", format!("http://{plain}/openai/v1")),
        ("secure", format!("https://{tls}/openai/v1")),
        ("named", format!("https://localhost:{}/openai/v1", tls.port())),
        ("refused", "http://127.77.0.1:9/v1".to_owned()),
        ("broken", format!("http://{plain}/broken")),
        ("late", format!("http://{plain}/late")),
        ("missing", "http://missing.invalid/v1".to_owned()),
    ];
    for (name, url) in &urls {
        writeln!(
            text,
            "[provider.{name}]\napi = \"openai\"\nbase_url = \"{url}\"\nallow_plain_http = true\nchecks = []\n\
             ca_file = \"{}\"\nstatus_url = \"http://{plain}{}\"\n{KEY}",
            ca.display(),
            SimulatedService::Openai.status_path()
        )
        .unwrap();
    }
    let checks = ["auth", "models", "chat", "stream", "network", "status", "warm", "chat"];
    for number in 0..PROBES {
        let check = checks[number as usize % checks.len()];
        let warm = if check == "warm" { "connection = \"warm\"\n" } else { "" };
        let check = if check == "warm" { "chat" } else { check };
        let model = if ["chat", "stream"].contains(&check) { "model = \"gpt-4o-mini\"\n" } else { "" };
        // Three of four by a provider that answers.
        let which = if number % 4 == 3 { 3 + number / 4 % 4 } else { number / 4 % 3 };
        writeln!(
            text,
            "[[probe]]\nname = \"p{number}\"\nprovider = \"{}\"\ncheck = \"{check}\"\ninterval = \"{INTERVAL}\"\n\
             timeout = \"400ms\"\n{model}{warm}",
            urls[which as usize].0
        )
        .unwrap();
    }
    text
}

/// Runs it; what does not hold is printed.
pub fn run(runs: u32) -> ExitCode {
    let scenario =
        "[[rule]]\npath = \"/broken\"\nfault = \"cut\"\n[[rule]]\npath = \"/late\"\nfault = \"stall\"\n";
    let simulator = simulator(scenario);
    let place = Place::new("");
    place.write("config.toml", &config(&simulator, &place));
    let mut daemon = place.daemon();
    let samples = sample(&daemon, f64::from(runs));
    let last = daemon.scrape();
    let skipped = last.sum("langmart_probe_skipped_runs_total");
    let failures = last.sum("langmart_probe_failures_total");
    println!("{failures} of the runs failed, {skipped} were skipped");
    let mut broken = Vec::new();
    let own: f64 = last.values("langmart_probe_failures_total", &[("fault", "prober")]).iter().sum();
    if own > 0.0 {
        broken.push(format!("{own} failures are the prober's own"));
    }
    if samples.last().is_none_or(|last| last.runs < f64::from(runs)) {
        broken.push(format!("no run came for {RUN_TIMEOUT:?}"));
    }
    broken.extend(growth(&samples));
    daemon.stop();
    for line in &broken {
        println!("BROKEN: {line}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Looks once a second until there were so many runs, or there are no more, and prints every tenth of the way.
fn sample(daemon: &Daemon, runs: f64) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let (mut printed, mut progress) = (0.0, Instant::now());
    loop {
        let sample = Sample::of(&daemon.scrape());
        if samples.last().is_none_or(|last| sample.runs > last.runs) {
            progress = Instant::now();
        }
        samples.push(sample);
        if sample.runs >= printed {
            println!("{sample}");
            printed = sample.runs + runs / 10.0;
        }
        if sample.runs >= runs || progress.elapsed() > RUN_TIMEOUT {
            return samples;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Compares the last quarter with the second.
fn growth(samples: &[Sample]) -> Vec<String> {
    let (second, last) = (Sample::quarter(samples, 1), Sample::quarter(samples, 3));
    println!("second quarter: {second}\n  last quarter: {last}");
    let figures = [
        ("MiB resident", second.resident_mib, last.resident_mib, MORE_MIB),
        ("threads", second.threads, last.threads, MORE_THREADS),
        ("descriptors", second.descriptors, last.descriptors, MORE_DESCRIPTORS),
    ];
    // No number, where nothing was seen, is no answer either.
    let grows = figures
        .into_iter()
        .filter(|(_, before, after, more)| before.is_nan() || after.is_nan() || after - before > *more);
    grows.map(|(what, before, after, _)| format!("{what} grew from {before:.1} to {after:.1}")).collect()
}
