//! The benchmark of leaks: open resources before and after ten thousand failed runs of each kind.
//!
//! `cargo bench --bench leaks` runs the cases of `tests/it/path_leaks.rs`, with more runs and in a
//! release build.

#![expect(unreachable_pub, reason = "the harness is shared with the integration tests")]
#![expect(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

#[path = "../../tests/it/harness/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod harness;
#[path = "../../tests/it/path_leaks.rs"]
#[allow(dead_code, reason = "its tests are for the integration tests")]
mod path_leaks;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::Parser;

use self::path_leaks::Kind;

/// Makes runs fail in every way, and prints the daemon's open resources before and after.
#[derive(Debug, Parser)]
struct Arguments {
    /// Failing runs of each kind
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only kinds whose name has this in it
    #[arg(long, default_value = "")]
    kind: String,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

/// Number of probes of each kind, each with an interval of a second.
const PROBES: u32 = 500;

fn main() -> ExitCode {
    let Arguments { runs, kind, bench } = Arguments::parse();
    if !bench {
        println!("It takes minutes, and is run by: cargo bench --bench leaks");
        return ExitCode::SUCCESS;
    }
    println!("## {runs} failing runs of each kind\n\n| kind | before | after |\n|---|---|---|");
    let kinds: [fn() -> Kind; 13] = [
        path_leaks::refused,
        path_leaks::reset_in_handshake,
        path_leaks::untrusted,
        path_leaks::disconnect,
        path_leaks::disconnect_http2,
        path_leaks::malformed,
        path_leaks::timeout,
        path_leaks::timeout_http2,
        path_leaks::timeout_warm,
        path_leaks::proxy_refusal,
        path_leaks::socks_refusal,
        path_leaks::no_such_name,
        path_leaks::no_name_server,
    ];
    let mut failed = false;
    for make in kinds {
        let made = make();
        if !made.name.contains(&kind) || !path_leaks::is_possible(&made) {
            continue;
        }
        // The harness panics if a kind leaks, and reports what is open.
        let measure = AssertUnwindSafe(|| path_leaks::measure(&made, runs.into(), PROBES));
        if let Ok([before, after]) = catch_unwind(measure) {
            println!("| {} | {before} | {after} |", made.name);
        } else {
            println!("| {} | **leaks, or does not fail as it should** | |", made.name);
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
