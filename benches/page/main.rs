//! The benchmark of the pages: duration and size with a thousand probes, and the effect of a reader
//! on the probes.
//!
//! `cargo bench --bench page [-- --seconds N]` runs the daemon and the simulator as processes, with
//! a tenth of failures, and waits until the history is full. It fails if a page exceeds its
//! guaranteed size; figures of time are printed with their aims.

#[path = "../thousand/page.rs"]
#[expect(dead_code, reason = "another benchmark uses the rest")]
mod page;
#[path = "../thousand/process.rs"]
#[expect(dead_code, reason = "another benchmark uses the rest")]
mod process;
#[path = "../thousand/setting.rs"]
#[expect(dead_code, reason = "another benchmark uses records and HTTPS")]
mod setting;

use std::{
    error::Error,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

use self::{
    page::Page,
    process::Usage,
    setting::{Scheme, Setting},
};

/// Measures the pages of a daemon with many probes at an interval of one second.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of each turn, of which there are two with a reader and two without
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=600))]
    seconds: u64,
    /// Seconds that the daemon runs before it is measured; after 100 s the history is full
    #[arg(long, default_value_t = 105)]
    warm: u64,
    /// Number of probes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000))]
    probes: u32,
    /// Another build of langmart-prober in place of this one, to compare them
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_langmart-prober"))]
    program: PathBuf,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

/// Occasional failures, so that strips are varied and the page lists problems.
const SCENARIO: &str = "seed = 8\n[[rule]]\npath = \"/health\"\nprobability = 0.1\nfault = \"unavailable\"\n";

/// Aim for a page in seconds, and guaranteed size of a compressed one in bytes.
const AIM_SECONDS: f64 = 0.1;
const MAX_BYTES: usize = 300_000;

/// Number of requests of each page, and the time between them, in which it is rendered again.
const SAMPLES: u32 = 10;
const APART: Duration = Duration::from_millis(700);
/// Interval of a reader.
const READER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("It takes minutes, and is run by: cargo bench --bench page");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a page is larger than promised");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all pages are within their guaranteed size.
fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    println!("machine: {}", process::machine_name()?);
    let mut setting = Setting::start(&arguments.program, arguments.probes, Scheme::Http, Some(SCENARIO))?;
    thread::sleep(Duration::from_secs(arguments.warm));
    setting.daemon.check_alive()?;
    println!(
        "{} health probes, interval 1 s, one run in ten fails, after {} s\n",
        arguments.probes, arguments.warm
    );
    println!("{:<28} {:>10} {:>10} {:>10}", "page (aim: 100 ms, 300 kB)", "median ms", "worst ms", "bytes");
    let detail = format!("/probes/{}", setting.probes[setting.probes.len() / 2]);
    let mut small = true;
    for path in ["/", &detail, "/api/v1/probes"] {
        for compressed in [false, true] {
            small &= page_row(setting.address, path, compressed)?;
        }
    }
    println!(
        "\n{:<28} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "turn", "runs", "lag ms", "late", "run ms", "CPU ms", "server"
    );
    for reader in [false, true, false, true] {
        turn(&mut setting, reader, Duration::from_secs(arguments.seconds))?;
    }
    println!(
        "\nlag: from due to start, on average; late: share above 10 ms; run: duration of a success, on average;"
    );
    println!("CPU: of the thread that times probes, for each run, independent of other load of the machine;");
    println!("server: the listener's thread, share of a core, the two scrapes of the turn included");
    setting.daemon.stop()?;
    Ok(small)
}

/// Returns whether the page is within its guaranteed size, if it has one.
fn page_row(address: SocketAddr, path: &str, compressed: bool) -> Result<bool, Box<dyn Error>> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        samples.push(fetch(address, path, compressed)?);
        thread::sleep(APART);
    }
    samples.sort_unstable();
    let (median, _) = samples[samples.len() / 2];
    let (worst, _) = samples[samples.len() - 1];
    let bytes = samples.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
    let name = format!("{path}{}", if compressed { ", gzip" } else { "" });
    let large = compressed && bytes > MAX_BYTES;
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!(
        "{name:<28} {:>10.1} {:>10.1} {bytes:>10}{}{}",
        milliseconds(median),
        milliseconds(worst),
        if median.as_secs_f64() > AIM_SECONDS { "  above the aim" } else { "" },
        if large { "  PROMISE BROKEN" } else { "" }
    );
    Ok(!large)
}

/// Returns the duration of a request from connection to last byte, and the size of the body.
fn fetch(address: SocketAddr, path: &str, compressed: bool) -> Result<(Duration, usize), Box<dyn Error>> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let coding = if compressed { "gzip" } else { "identity" };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: {coding}\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let took = begin.elapsed();
    let head = response
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or("an answer without an end of its head")?;
    if !response.starts_with(b"HTTP/1.1 200 ") {
        return Err(format!("{path}: {}", String::from_utf8_lossy(&response[..head])).into());
    }
    Ok((took, response.len() - head - 4))
}

/// The daemon's counters.
struct Counted {
    runs: f64,
    lag: f64,
    within: f64,
    /// Number and total duration of successful runs.
    successes: f64,
    seconds: f64,
    /// Processor seconds of the scheduling thread, and of the listener's.
    probes: f64,
    server: f64,
    at: Instant,
}

impl Counted {
    fn now(setting: &Setting) -> Result<Self, Box<dyn Error>> {
        let page = Page::fetch(setting.address)?;
        let sum = |name: &str| page.samples(name).map(|(_, value)| value).sum::<f64>();
        let within = page
            .samples("langmart_prober_schedule_lag_seconds_bucket")
            .find(|(labels, _)| *labels == "le=\"0.01\"")
            .map_or(0.0, |(_, value)| value);
        let usage = Usage::of(setting.daemon.id())?;
        Ok(Self {
            runs: sum("langmart_prober_schedule_lag_seconds_count"),
            lag: sum("langmart_prober_schedule_lag_seconds_sum"),
            within,
            successes: sum("langmart_probe_duration_seconds_count"),
            seconds: sum("langmart_probe_duration_seconds_sum"),
            probes: usage.threads.get("probes").copied().unwrap_or_default(),
            server: usage.threads.get("server").copied().unwrap_or_default(),
            at: Instant::now(),
        })
    }
}

/// Measures for some seconds with or without a reader that requests the status page once a second.
fn turn(setting: &mut Setting, reader: bool, length: Duration) -> Result<(), Box<dyn Error>> {
    let first = Counted::now(setting)?;
    let end = first.at + length;
    let mut next = first.at + READER;
    while next < end {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if reader {
            fetch(setting.address, "/", true)?;
        }
        next += READER;
    }
    thread::sleep(end.saturating_duration_since(Instant::now()));
    setting.daemon.check_alive()?;
    let last = Counted::now(setting)?;
    let runs = last.runs - first.runs;
    println!(
        "{:<28} {runs:>10} {:>10.2} {:>9.1}% {:>10.2} {:>10.3} {:>9.1}%",
        if reader { "a reader every second" } else { "no reader" },
        (last.lag - first.lag) / runs * 1e3,
        (1.0 - (last.within - first.within) / runs) * 100.0,
        (last.seconds - first.seconds) / (last.successes - first.successes) * 1e3,
        (last.probes - first.probes) / runs * 1e3,
        (last.server - first.server) / (last.at - first.at).as_secs_f64() * 100.0
    );
    Ok(())
}
