//! The soak test: the daemon at high speed with random failures of everything around it, and
//! invariants that must hold.
//!
//! Run by `tests/soak`; the printed seed reproduces the failures. The program restarts itself in
//! its own namespaces (mounts, network, processes), so that it can break disk, name server and
//! `/etc`, and everything is removed at its end.

#![expect(clippy::float_cmp, reason = "counts are whole numbers, which f64 holds exactly")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]
#![expect(unreachable_pub, reason = "the harness is shared with the integration tests")]

mod bad_clients;
mod client;
mod configuration;
mod draw;
mod failures;
mod faults;
mod flat;
mod hints;
mod line_account;
mod names;
mod services;
mod soak;
mod watch;
mod world;

#[path = "../it/harness/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod harness;

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Parser, Subcommand};

use self::harness::parts;

/// Set in the namespaces.
const INSIDE: &str = "SOAK_INSIDE";

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Runs the daemon under all failures.
    Soak {
        /// Duration of the failures in minutes
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: u64,
        /// Seed of all random choices; by default a different one each time
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs probes of every kind in short intervals, and compares memory, threads and descriptors.
    Flat {
        /// Number of runs.
        #[arg(default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..))]
        runs: u32,
    },
    /// Runs the simulated services.
    Services,
}

fn main() -> ExitCode {
    // `cargo test` runs every test program with arguments that are meant for others.
    let Ok(Arguments { command }) = Arguments::try_parse() else {
        println!("It takes minutes, and is run by: tests/soak");
        return ExitCode::SUCCESS;
    };
    let (minutes, seed) = match command {
        Order::Soak { minutes, seed } => (minutes, seed),
        Order::Flat { runs } => return flat::run(runs),
        Order::Services => {
            services::serve();
            return ExitCode::SUCCESS;
        }
    };
    if !parts::has(&["unshare", "mount", "ip", "faketime", "cp"], true) {
        return ExitCode::SUCCESS;
    }
    let seed = seed.unwrap_or_else(|| {
        u64::from(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos()))
    });
    if env::var_os(INSIDE).is_none() {
        let mut again = Command::new("unshare");
        again.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        again.arg(env::current_exe().unwrap()).args(["soak", "--minutes", &minutes.to_string()]);
        let error = again.args(["--seed", &seed.to_string()]).env(INSIDE, "1").exec();
        eprintln!("unshare cannot be run: {error}");
        return ExitCode::FAILURE;
    }
    soak::run(minutes, seed)
}
