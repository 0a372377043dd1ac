//! The benchmark of fairness: the effect of a provider that floods its connections on the runs of
//! another provider.
//!
//! `cargo bench --bench fairness` runs the floods of `tests/it/path_fairness.rs`, with timeouts for
//! a calm machine and a release build.

#![expect(unreachable_pub, reason = "the harness is shared with the integration tests")]
#![expect(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

#[path = "../../tests/it/harness/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod harness;
#[path = "../../tests/it/path_fairness.rs"]
#[allow(dead_code, reason = "its tests are for the integration tests")]
mod path_fairness;

use std::process::ExitCode;

use clap::Parser;

use self::{
    harness::flood::Flood,
    path_fairness::{MAX_GROWTH_MIB, Report, Victims, measure},
};

/// Floods the probes of one provider, and prints the effect on the runs of another.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of each flood
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(2..=50))]
    seconds: u32,
    /// Only floods whose name has this in it
    #[arg(long, default_value = "")]
    flood: String,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

/// Number of probes of the provider that is not flooded, each with an interval of a second.
const PROBES: u32 = 40;

/// Aim for the 99th percentile of their durations in milliseconds.
const MAX_P99: f64 = 50.0;

fn main() -> ExitCode {
    let Arguments { seconds, flood: part, bench } = Arguments::parse();
    if !bench {
        println!("It takes minutes, and is run by: cargo bench --bench fairness");
        return ExitCode::SUCCESS;
    }
    let victims = Victims { probes: PROBES, interval: "1s", runs: (PROBES * seconds) as usize };
    println!(
        "## {PROBES} runs a second beside a flood; aims: p99 below {MAX_P99} ms, none failed, none skipped\n"
    );
    println!(
        "| flood | MB/s | runs | p50 ms | p99 ms | max ms | failed | skipped | MiB more | flooded runs end as | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut missed = print("none", &measure(None, &victims));
    for flood in Flood::all().iter().filter(|flood| flood.name.contains(&part)) {
        missed |= print(flood.name, &measure(Some(flood), &victims));
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints a row. Returns whether it misses an aim.
fn print(name: &str, report: &Report) -> bool {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| report.quantile(share));
    let Report { durations, failed, skipped, reasons, growth, rate } = report;
    let met = p99 < MAX_P99 && failed + skipped == 0.0 && *growth < MAX_GROWTH_MIB;
    let reasons: Vec<_> = reasons.iter().flatten().map(String::as_str).collect();
    println!(
        "| {name} | {rate:.0} | {} | {p50:.2} | {p99:.2} | {max:.2} | {failed} | {skipped} | {growth:.1} | {} | {} |",
        durations.len(),
        reasons.join(", "),
        if met { "met" } else { "**missed**" }
    );
    !met
}
