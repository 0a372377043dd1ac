//! `[log]`, `[state]`, `[schedule]` and `[defaults]`.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    context::{Context, Defaults, Timing},
    values::{absolute, choice},
};
use crate::config::{
    duration,
    model::{Log, LogFormat, Rotation, Schedule},
    problem::{not_one_of, shown},
    raw::Section,
    service::Usage,
};

pub(super) fn state_directory(mut section: Section<'_>, context: &Context<'_>) -> Option<PathBuf> {
    let directory = section.text("directory", absolute).or_else(|| context.environment.state_directory());
    if let Some(directory) = &directory {
        context.check_writable(directory, Usage::State, &section.place_of("directory"));
    }
    section.finish();
    directory
}

pub(super) fn schedule(mut section: Section<'_>) -> Schedule {
    const RUNS: RangeInclusive<u32> = 1..=10_000;
    const BACKOFFS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
    let schedule = Schedule {
        max_concurrent: section.number("max_concurrent", &RUNS).unwrap_or(64) as usize,
        max_concurrent_per_provider: section.number("max_concurrent_per_provider", &RUNS).unwrap_or(8)
            as usize,
        max_backoff: section.duration("max_backoff", &BACKOFFS).unwrap_or(Duration::from_secs(3_600)),
    };
    section.finish();
    schedule
}

pub(super) fn defaults(mut section: Section<'_>) -> Defaults {
    let mut generation = section.section("generation");
    let seconds = Duration::from_secs;
    let defaults = Defaults {
        plain: Timing { interval: seconds(60), timeout: seconds(30) }.overridden_by(&mut section),
        generation: Timing { interval: seconds(300), timeout: seconds(90) }.overridden_by(&mut generation),
    };
    generation.finish();
    section.finish();
    defaults
}

pub(super) fn log(mut section: Section<'_>, context: &Context<'_>) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let rotations = [("hourly", Rotation::Hourly), ("daily", Rotation::Daily)];
    let log = Log {
        filter: section.text("level", filter).unwrap_or_else(|| "info".to_owned()),
        format: section.text("format", |text| choice(text, &formats)).unwrap_or(LogFormat::Text),
        stderr: section.flag("stderr").unwrap_or(true),
        directory: section.text("directory", absolute).or_else(|| context.environment.logs_directory()),
        rotation: section.text("rotation", |text| choice(text, &rotations)).unwrap_or(Rotation::Daily),
        max_files: section.number("max_files", &(2..=10_000)).unwrap_or(14) as usize,
        max_file_size: section.text("max_file_size", log_size).unwrap_or(100 << 20),
        compress: section.flag("compress").unwrap_or(false),
    };
    if let Some(directory) = &log.directory {
        context.check_writable(directory, Usage::Logs, &section.place_of("directory"));
    }
    if !log.stderr && log.directory.is_none() {
        let message = "nothing will be logged; set log.directory, or leave log.stderr true";
        context.report.warning(&section.place_of("stderr"), message);
    }
    section.finish();
    log
}

/// Parses a tracing filter. Single words must be levels: tracing takes a misspelt level for the
/// name of a module.
fn filter(text: &str) -> Result<String, String> {
    let levels = ["error", "warn", "info", "debug", "trace"];
    let lone = |part: &&str| !part.contains(['=', '[']) && part.parse::<LevelFilter>().is_err();
    if text.trim().is_empty() {
        return Err(format!("is empty; allowed: {} or a tracing filter", levels.join(", ")));
    }
    if let Some(part) = text.split(',').map(str::trim).find(lone) {
        return Err(format!(
            "{}, or a tracing filter such as \"info,hyper=warn\"",
            not_one_of(part, &levels)
        ));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err(format!("{} is not a tracing filter; use one such as \"info,hyper=warn\"", shown(text)))
        }
    }
}

/// Parses the maximum size of a log file.
fn log_size(text: &str) -> Result<u64, String> {
    match duration::parse_size(text) {
        Ok(size) if (4 << 10..=1 << 40).contains(&size) => Ok(size),
        Ok(_) => Err(format!("{} is out of range; allowed: \"4KiB\" to \"1024GiB\"", shown(text))),
        Err(message) => Err(format!("{} {message}", shown(text))),
    }
}
