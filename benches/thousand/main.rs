//! The benchmark of the core: a thousand probes per second, their cost and their guarantees.
//!
//! `cargo bench --bench thousand [-- --seconds N]` runs the daemon and the simulator as processes,
//! first with http, then with https. It fails if a guarantee is broken that does not depend on the
//! speed of the machine; figures of speed are printed with their aims.

mod account;
mod bare;
mod page;
mod process;
mod setting;
mod table;

use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;

use self::{
    account::Account,
    bare::Bare,
    page::Page,
    process::{Machine, Usage},
    setting::{Scheme, Setting},
};

/// Measures the daemon with many probes at an interval of one second against the simulator.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds that the daemon runs with each scheme
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
    /// Number of probes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000))]
    probes: u32,
    /// Only one of the two schemes
    #[arg(long, value_enum)]
    only: Option<Scheme>,
    /// Another build of langmart-prober in place of this one, to compare them
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_langmart-prober"))]
    program: PathBuf,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

/// Interval of scrapes.
const SCRAPES: Duration = Duration::from_secs(5);
/// Time after the start of the second memory measurement.
const SETTLED: Duration = Duration::from_secs(10);

/// Observations of one run of the daemon.
struct Observed {
    scheme: Scheme,
    probes: u32,
    first: Look,
    last: Look,
    /// Resident bytes after [`SETTLED`]. `None` if it did not run that long.
    settled: Option<u64>,
    /// Duration of each scrape, from the connection to the last byte.
    scrapes: Vec<Duration>,
    /// The last scrape.
    page: Page,
    account: Account,
    bare: Bare,
}

/// Resources of all processes at one time.
struct Look {
    at: Instant,
    daemon: Usage,
    simulator: Usage,
    machine: Machine,
}

impl Look {
    fn at(setting: &Setting) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            at: Instant::now(),
            daemon: Usage::of(setting.daemon.id())?,
            simulator: Usage::of(setting.simulator.id())?,
            machine: Machine::now()?,
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("It takes minutes, and is run by: cargo bench --bench thousand");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(broken) => {
            eprintln!("promises broken: {broken}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of broken guarantees.
fn run(arguments: &Arguments) -> Result<usize, Box<dyn Error>> {
    println!("machine: {}\n", process::machine_name()?);
    let mut broken = 0;
    for scheme in [Scheme::Http, Scheme::Https] {
        if arguments.only.is_none_or(|only| only == scheme) {
            broken += table::print(&observe(arguments, scheme)?);
        }
    }
    Ok(broken)
}

fn observe(arguments: &Arguments, scheme: Scheme) -> Result<Observed, Box<dyn Error>> {
    let started = SystemTime::now();
    let mut setting = Setting::start(&arguments.program, arguments.probes, scheme, None)?;
    let ready = SystemTime::now();
    let first = Look::at(&setting)?;
    let end = first.at + Duration::from_secs(arguments.seconds);
    let mut settled = None;
    let mut scrapes = Vec::new();
    let (last, asked, page) = loop {
        let next = (Instant::now() + SCRAPES).min(end);
        if settled.is_none() && next > first.at + SETTLED {
            sleep_until(first.at + SETTLED);
            settled = Some(Usage::of(setting.daemon.id())?.resident);
        }
        sleep_until(next);
        setting.daemon.check_alive()?;
        // Before the last scrape, so that whole periods are between the samples.
        let look = (next == end).then(|| Look::at(&setting)).transpose()?;
        let (asked, clock) = (SystemTime::now(), Instant::now());
        let page = Page::fetch(setting.address)?;
        scrapes.push(clock.elapsed());
        if let Some(look) = look {
            break (look, asked, page);
        }
    };
    setting.daemon.stop()?;
    let account = Account::of(&setting.logs(), &setting.probes, [started, ready, asked], &page)?;
    let bare = bare::run(&setting.url(), &setting.ca_file(), arguments.probes, arguments.seconds)?;
    Ok(Observed { scheme, probes: arguments.probes, first, last, settled, scrapes, page, account, bare })
}

fn sleep_until(end: Instant) {
    thread::sleep(end.saturating_duration_since(Instant::now()));
}
