//! Accuracy of the reference: how far the simulator's writes differ from its script, in every
//! dialect.

use std::{error::Error, fmt::Write, fs, path::Path, process::Command};

use langmart_prober::simulator::SimulatedService;

use super::{
    account::{quantile, sorted},
    setting::{KEY, VARIABLE},
    simulator::{Beside, Request},
};

/// Microseconds of the script, and its tokens.
const PROCESSING: f64 = 5_000.0;
const FIRST_TOKEN: f64 = 50_000.0;
const TOKEN: f64 = 10_000.0;
const TOKENS: usize = 20;
/// Number of repetitions of each dialect.
const TIMES: usize = 10;

const SERVICES: [(SimulatedService, &str); 6] = [
    (SimulatedService::Langmart, "openai/gpt-4o-mini"),
    (SimulatedService::Openai, "gpt-4o-mini"),
    (SimulatedService::Anthropic, "claude-haiku-4-5-20251001"),
    (SimulatedService::Groq, "llama-3.1-8b-instant"),
    (SimulatedService::Google, "gemini-2.5-flash-lite"),
    (SimulatedService::Openrouter, "mistralai/mistral-nemo"),
];

/// Prints a row for each dialect. Returns the number of broken guarantees.
pub(crate) fn print(program: &Path) -> Result<usize, Box<dyn Error>> {
    let streams = play(program)?;
    println!("\n## Writes of the simulator after their scripted moments, ms");
    println!(
        "{:<11} {:>7} {:>6} {:>7} {:>7} {:>7} {:>7}",
        "dialect", "streams", "writes", "min", "p50", "p99", "max"
    );
    let mut broken = 0;
    for (service, model) in SERVICES {
        let streams: Vec<_> = streams.iter().filter(|stream| stream.model == model).collect();
        let late: Vec<Vec<f64>> = streams.iter().filter_map(|stream| lateness(stream)).collect();
        let whole = late.iter().filter(|late| late.len() == TOKENS).count();
        let late = sorted(late.concat());
        let [min, p50, p99, max] = [0.0, 0.5, 0.99, 1.0].map(|share| quantile(&late, share));
        println!(
            "{:<11} {:>7} {:>6} {min:>7.3} {p50:>7.3} {p99:>7.3} {max:>7.3}",
            service.name(),
            streams.len(),
            late.len()
        );
        if whole != TIMES || min < 0.0 {
            println!(
                "      {whole} of {TIMES} streams with {TOKENS} writes, none of them early  PROMISE BROKEN"
            );
            broken += 1;
        }
    }
    Ok(broken)
}

/// Returns the milliseconds by which each token was written late. Returns `None` without tokens.
fn lateness(stream: &Request) -> Option<Vec<f64>> {
    let first = stream.first_token?;
    let begin = stream.received + PROCESSING + FIRST_TOKEN;
    let tokens = stream.writes.iter().filter(|at| **at >= first).zip(0_u32..);
    Some(tokens.map(|(at, number)| (at - begin - TOKEN * f64::from(number)) / 1e3).collect())
}

fn play(program: &Path) -> Result<Vec<Request>, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let milliseconds = [PROCESSING, FIRST_TOKEN, TOKEN].map(|pause| pause / 1e3);
    let [processing, first_token, token] = milliseconds;
    let pace = format!(
        "processing = \"{processing}ms\", first_token = \"{first_token}ms\", token = \"{token}ms\", tokens = {TOKENS}"
    );
    fs::write(at("scenario.toml"), format!("[[rule]]\npace = {{ {pace} }}\n"))?;
    let simulator = Beside::start(&at("scenario.toml"), &[])?;
    let mut text = String::new();
    for (service, model) in SERVICES {
        let name = service.name();
        writeln!(
            text,
            "[provider.{name}]\nbase_url = \"http://{}{}\"\n{KEY}\n\
             [[probe]]\nname = \"{name}-stream\"\nprovider = \"{name}\"\ncheck = \"stream\"\nmodel = \"{model}\"",
            simulator.address,
            service.prefix()
        )?;
    }
    fs::write(at("config.toml"), text)?;
    for _ in 0..TIMES {
        let output = Command::new(program)
            .env(VARIABLE.0, VARIABLE.1)
            .args(["once", "--config"])
            .arg(at("config.toml"))
            .output()?;
        if !output.status.success() {
            let [table, remedies] =
                [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
            return Err(format!("once ended with {}:\n{table}{remedies}", output.status).into());
        }
    }
    simulator.end()
}
