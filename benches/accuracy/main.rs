//! The benchmark of accuracy: how far the daemon's figures differ from the server's.
//!
//! `cargo bench --bench accuracy` compares each run with the simulator's record of the same
//! request. The simulator runs at a high priority, so that its record is accurate on a busy
//! machine. Four busy loops occupy the machine during the first part. `blackbox_exporter` is
//! measured as well if it is installed.

#[path = "../peers/blackbox.rs"]
mod blackbox;
mod calm;
mod daemon;
mod floor;
mod loaded;
#[path = "../thousand/page.rs"]
#[expect(dead_code, reason = "other benchmarks use the rest")]
mod page;
#[path = "../thousand/process.rs"]
#[expect(dead_code, reason = "other benchmarks use the rest")]
mod process;
#[path = "../first_token/simulator.rs"]
#[expect(dead_code, reason = "another benchmark uses the rest")]
mod simulator;
#[path = "../peers/table.rs"]
mod table;

use std::{
    error::Error,
    hint, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use clap::Parser;

use self::{blackbox::Blackbox, process::machine_name, simulator::Request, table::Table};

/// Compares the daemon's figures with the simulator's record, on a busy machine and on a calm one.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of the measurement under load, and of each one without
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=120))]
    seconds: u32,
    /// Another build of langmart-prober in place of this one, to compare them
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_langmart-prober"))]
    program: PathBuf,
    /// Be the simulator with this scenario, as the benchmark has it run beside itself
    #[arg(long, value_name = "FILE", hide = true)]
    simulate: Option<PathBuf>,
    /// Run that many busy loops, until standard input ends
    #[arg(long, hide = true)]
    busy: Option<usize>,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments {
        Arguments { simulate: Some(scenario), .. } => simulator::serve(scenario),
        Arguments { busy: Some(loops), .. } => spin(*loops),
        Arguments { bench: true, .. } => measure(&arguments),
        _ => {
            println!("Nothing is measured without optimisation: cargo bench --bench accuracy");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Occupies processors until standard input ends.
fn spin(loops: usize) -> Result<(), Box<dyn Error>> {
    for _ in 0..loops {
        thread::spawn(|| {
            loop {
                hint::spin_loop();
            }
        });
    }
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    println!("machine: {}", machine_name()?);
    let priority = priority();
    let name = if priority.is_empty() { "not permitted".to_owned() } else { priority.join(" ") };
    println!("priority of the simulator: {name}");
    let peer = Blackbox::version();
    println!("peer: {}\n", peer.as_deref().unwrap_or("prometheus-blackbox-exporter is not installed"));
    let setting =
        Setting { program: &arguments.program, seconds: arguments.seconds, priority, peer: peer.is_some() };
    let mut table = Table::default();
    loaded::print(&setting, &mut table)?;
    calm::print(&setting, &mut table)?;
    table.print();
    Ok(())
}

/// Common parameters of the measurements.
struct Setting<'a> {
    program: &'a Path,
    seconds: u32,
    priority: &'static [&'static str],
    /// Whether `blackbox_exporter` is installed.
    peer: bool,
}

/// Returns the command that runs the simulator at the highest permitted priority; empty if there is
/// none.
fn priority() -> &'static [&'static str] {
    let output = |words: &[&str]| Command::new(words[0]).args(&words[1..]).output().ok();
    if output(&["chrt", "--fifo", "50", "true"]).is_some_and(|output| output.status.success()) {
        return &["chrt", "--fifo", "50"];
    }
    // `nice` runs the command even if a priority is not permitted; without a command it prints its
    // own.
    if output(&["nice", "-n", "-20", "nice"]).is_some_and(|output| output.stdout == b"-20\n") {
        return &["nice", "-n", "-20"];
    }
    &[]
}

/// Returns measured minus served duration in milliseconds, of runs and requests in the same order.
/// Served is the time from accepting the connection to the last write.
fn excess(measured: &[f64], requests: &[&Request]) -> Vec<f64> {
    let served = |request: &Request| Some((request.writes.last()? - request.accepted) / 1e3);
    measured
        .iter()
        .zip(requests)
        .filter_map(|(measured, request)| Some(measured - served(request)?))
        .collect()
}

/// Returns the value that this share of the values does not exceed; NaN without values.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
