//! The benchmark of the ledger: gigabytes of records in bounded time and memory.
//!
//! `cargo bench --bench records [-- --gigabytes N] [--compressed]` writes the records of 30 days,
//! runs `report --incidents` on them, and prints its duration and its largest memory. It fails
//! above 100 MiB, or if the ledger has other outages than the records.

#![expect(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use langmart_prober::{
    line_writer::compress,
    outcome::{Check, Detail, Fault, Outcome, Phases, Reason, Record, Subject, rfc3339},
};

/// Writes records and reads them by `report --incidents`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the records; so much space is needed
    #[arg(long, default_value_t = 10.0)]
    gigabytes: f64,
    /// Compress the records, as the daemon does with log.compress
    #[arg(long)]
    compressed: bool,
    /// Directory for the records
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

const DAY: u64 = 86_400;
const DAYS: u64 = 30;
const INTERVAL: u64 = 60;

/// Memory that the report must not exceed.
const MAX_KIB: u64 = 100 << 10;

/// One outage of ten minutes begins at this second of each day, for every probe.
const OUTAGE: std::ops::Range<u64> = 36_000..36_600;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("It takes minutes and 10 GB, and is run by: cargo bench --bench records");
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir_in(&arguments.directory).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let begin = now / DAY * DAY - DAYS * DAY;
    let bytes = (arguments.gigabytes * 1e9) as u64;
    let written = write(directory.path(), begin, bytes / DAYS, arguments.compressed);
    let config = directory.path().join("config.toml");
    fs::write(&config, format!("[log]\ndirectory = \"{}\"\n", directory.path().display())).unwrap();
    let (seconds, kib, outages) = report(&config);
    println!(
        "| records | form | duration | MB per second | largest memory | outages |\n|---|---|---|---|---|---|\n\
         | {:.1} GB | {} | {seconds:.0} s | {:.0} | {:.1} MiB | {outages} |",
        written as f64 / 1e9,
        if arguments.compressed { "gzip" } else { "plain" },
        written as f64 / 1e6 / seconds,
        kib as f64 / 1024.0
    );
    let is_right = kib <= MAX_KIB && outages as u64 == DAYS;
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

/// Returns a record of a failed or successful completion, with that time.
fn record(probe: &str, second: u64, failed: bool) -> String {
    let (reason, fault) =
        if failed { (Reason::Unavailable, Fault::Gateway) } else { (Reason::Ok, Fault::None) };
    let duration = Duration::from_micros(812_345);
    let outcome = Outcome {
        detail: failed.then(|| Detail::JsonDiffers("/status".into())),
        http_status: Some(if failed { 503 } else { 200 }),
        http_version: Some("2"),
        request_id: Some(format!("req_{second}_{probe}")),
        duration,
        phases: Phases { processing: duration, ..Phases::default() },
        remote_address: Some(([192, 0, 2, 1], 443).into()),
        dns: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
        input_tokens: Some(12),
        output_tokens: Some(2),
        ..Outcome::new(at(second), reason, fault)
    };
    let subject =
        Subject { probe, provider: "langmart", check: Check::Chat, model: Some("openai/gpt-4o-mini") };
    serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap()
}

/// Writes a file for each day. Returns the size of all of them before compression.
fn write(directory: &Path, begin: u64, bytes_per_day: u64, compressed: bool) -> u64 {
    let length = record("chat-0000", begin, false).len() as u64 + 1;
    let probes = (bytes_per_day / (DAY / INTERVAL) / length).max(1);
    let mut total = 0;
    for day in 0..DAYS {
        let path = directory.join(format!("results.jsonl.{}", &rfc3339(at(begin + day * DAY))[..10]));
        let mut file = BufWriter::new(File::create(&path).unwrap());
        // Serializing each record would take longer than reading it: only times and names differ.
        let templates = [false, true].map(|failed| {
            let text = record("PROBE", 0, failed).replace("req_0_", "req_SECOND_");
            text.replace(&rfc3339(at(0)), "TIME")
        });
        let templates = templates.each_ref().map(|text| text.split("TIME").collect::<Vec<_>>());
        for second in (0..DAY).step_by(INTERVAL as usize) {
            let [before, after] = templates[usize::from(OUTAGE.contains(&second))][..] else {
                panic!("a record has one time")
            };
            let now = begin + day * DAY + second;
            let (time, id) = (rfc3339(at(now)), now.to_string());
            let after = after.replace("SECOND", &id);
            for probe in 0..probes {
                let name = format!("chat-{probe:04}");
                let line = format!("{before}{time}{}\n", after.replace("PROBE", &name));
                file.write_all(line.as_bytes()).unwrap();
                total += line.len() as u64;
            }
        }
        file.into_inner().unwrap().sync_all().unwrap();
        if compressed {
            compress(&path).unwrap();
        }
    }
    total
}

/// Runs the report. Returns its duration, its largest memory in KiB and the number of outages.
fn report(config: &Path) -> (f64, u64, usize) {
    let started = Instant::now();
    let output = config.with_file_name("ledger.csv");
    let mut child = Command::new(env!("CARGO_BIN_EXE_langmart-prober"))
        .args(["report", "--incidents", "--csv", "--config"])
        .arg(config)
        .stdout(Stdio::from(File::create(&output).unwrap()))
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut largest = 0;
    while child.try_wait().unwrap().is_none() {
        // The kernel keeps the maximum, so that no growth between two readings is missed.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        largest = largest.max(kib.unwrap_or(0));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
    let outages = fs::read_to_string(output).unwrap().lines().count() - 1;
    (started.elapsed().as_secs_f64(), largest, outages)
}
