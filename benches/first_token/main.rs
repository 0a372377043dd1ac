//! The benchmark of the first token: how far the prober's figure differs from the simulator's
//! record of its writes.
//!
//! `cargo bench --bench first_token` runs the simulator and the prober as processes: the daemon in
//! its own rhythm, then `once`, which starts all streams as soon as it can. It fails if a guarantee
//! is broken that does not depend on the speed of the machine; figures of speed are printed with
//! their aims.

mod account;
#[path = "../thousand/process.rs"]
#[expect(dead_code, reason = "another benchmark uses the rest")]
mod process;
mod script;
mod setting;
mod simulator;
mod table;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

use self::{process::machine_name, setting::Setting};

/// Compares the prober's times to first token with the simulator's record of its writes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Numbers of concurrent streams, one table each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 400])]
    streams: Vec<usize>,
    /// Seconds that the daemon runs for each table
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u64).range(9..))]
    seconds: u64,
    /// Another build of langmart-prober in place of this one, to compare them
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_langmart-prober"))]
    program: PathBuf,
    /// Be the simulator with this scenario, as the benchmark has it run beside itself
    #[arg(long, value_name = "FILE", hide = true)]
    simulate: Option<PathBuf>,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(scenario) = &arguments.simulate {
        return told(simulator::serve(scenario));
    }
    if !arguments.bench {
        eprintln!("nothing is measured without optimisation: cargo bench --bench first_token");
        return ExitCode::SUCCESS;
    }
    match measure(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(broken) => {
            eprintln!("{broken} promises are broken");
            ExitCode::FAILURE
        }
        Err(error) => told(Err(error)),
    }
}

fn told(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints every table. Returns the number of broken guarantees.
fn measure(arguments: &Arguments) -> Result<usize, Box<dyn Error>> {
    let Arguments { streams, seconds, program, .. } = arguments;
    println!("{}", machine_name()?);
    let mut broken = script::print(program)?;
    println!("\n## Error of time_to_first_token, ms, the way through loopback and back included");
    table::head();
    for &streams in streams {
        let setting = Setting::new(program, streams)?;
        let daemon = setting.daemon(Duration::from_secs(*seconds))?;
        broken += table::row("run", streams, &daemon);
    }
    for &streams in streams {
        let setting = Setting::new(program, streams)?;
        let once = setting.once()?;
        broken += table::row("once", streams, &once);
    }
    Ok(broken)
}
