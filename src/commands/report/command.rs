//! The command: reads configuration and records, and writes one of the formats.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    account::AccountQuery, damage::Damage, incidents::incidents, markdown::markdown, summary::Summary,
};
use crate::{
    commands::{EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, EXIT_USAGE},
    config::{self, Config, Environment, Keys, duration},
    records,
};

/// The command with its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The configuration.
    pub path: &'a Path,
    /// Whether to print the ledger of outages instead of the failures.
    pub incidents: bool,
    /// Length of the period, as a duration of the configuration. `None` for the default.
    pub since: Option<&'a str>,
    /// Name of the only probe. `None` for all.
    pub probe: Option<&'a str>,
    /// Name of the only provider. `None` for all.
    pub provider: Option<&'a str>,
    /// The format.
    pub format: ReportFormat,
    /// Whether to ask LangMart's account API about the failed requests.
    pub account: bool,
    /// Other vantage points of the ledger, as `NAME=DIRECTORY`.
    pub vantages: &'a [String],
    /// Whether standard error is a terminal, which shows the progress.
    pub terminal: bool,
    /// End of the period.
    pub now: SystemTime,
    /// The directory of the packaged service, which is read if neither the configuration nor the
    /// environment has one.
    pub packaged_logs: &'a Path,
}

impl Report<'_> {
    /// Returns whether the runs of a probe are reported.
    pub(super) fn includes(&self, probe: &str, provider: &str) -> bool {
        self.probe.is_none_or(|name| name == probe) && self.provider.is_none_or(|name| name == provider)
    }
}

/// The directory of the packaged service's records: its unit sets `LOGS_DIRECTORY` to it.
pub const PACKAGED_LOGS: &str = "/var/log/langmart-prober";

/// A format of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// For people and tickets.
    Markdown,
    /// For scripts.
    Json,
    /// The outages of the ledger, for a spreadsheet.
    OutagesCsv,
    /// The availability of the ledger, for a spreadsheet.
    AvailabilityCsv,
}

/// The records to read.
#[derive(Debug)]
pub(super) struct Period<'a> {
    /// The directory of the files.
    pub(super) directory: PathBuf,
    /// The length as written.
    pub(super) length: &'a str,
    /// Start of the period.
    pub(super) since: SystemTime,
}

/// Runs the command. Writes the report to `out` and all else to `err`, and returns the exit status.
pub fn report(
    request: &Report<'_>,
    environment: &Environment<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let default = if request.incidents { "31d" } else { "1h" };
    let length = request.since.unwrap_or(default);
    let since = match duration::parse(length) {
        Ok(length) => begin(request.now, length),
        Err(message) => {
            writeln!(err, "--since {length:?} {message}")?;
            return Ok(EXIT_USAGE);
        }
    };
    let config = match config::load(request.path, Keys::Skipped, environment) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(EXIT_CONFIGURATION);
        }
    };
    warn_of_unknown(request, &config, err)?;
    let packaged = || Some(request.packaged_logs.to_owned()).filter(|directory| directory.is_dir());
    let Some(directory) = config.log.directory.clone().or_else(packaged) else {
        writeln!(
            err,
            "no records are kept by {}: it has no log.directory, LOGS_DIRECTORY is not set, and {} does not exist; set \
             log.directory to the directory of results.jsonl.*",
            request.path.display(),
            request.packaged_logs.display()
        )?;
        return Ok(EXIT_FAILED);
    };
    let period = Period { directory, length, since };
    let query = request.account.then(|| AccountQuery::new(request, environment, &config, since));
    if request.incidents {
        incidents(request, &period, query.as_ref(), out, err)
    } else {
        failures(request, &period, (&config, query.as_ref()), out, err)
    }
}

/// Warns of a name that the configuration does not have. Its records may be older.
fn warn_of_unknown(request: &Report<'_>, config: &Config, err: &mut impl Write) -> io::Result<()> {
    let probes = config.probes.iter().map(|probe| probe.name.as_str()).collect();
    let providers = config.providers.keys().map(String::as_str).collect();
    let names: [(_, _, Vec<&str>); 2] =
        [("probe", request.probe, probes), ("provider", request.provider, providers)];
    for (kind, name, known) in names {
        if let Some(name) = name.filter(|name| !known.contains(name)) {
            let known = known.join(", ");
            writeln!(err, "warning: no {kind} is named {name}; the configuration has: {known}")?;
        }
    }
    Ok(())
}

/// Prints the failures. Returns the exit status.
fn failures(
    request: &Report<'_>,
    period: &Period<'_>,
    (config, query): (&Config, Option<&AccountQuery<'_>>),
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let Some(mut summary) = summarize(request, period, err)? else { return Ok(EXIT_FAILED) };
    summary.complete(config);
    if let Some(query) = query {
        summary.account = query.run(|provider| summary.requests(provider), err)?;
    }
    if request.format == ReportFormat::Json {
        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    } else {
        out.write_all(markdown(&summary).as_bytes())?;
    }
    out.flush()?;
    Ok(EXIT_OK)
}

/// Returns the begin of a period up to now. There are no records from before the epoch.
fn begin(now: SystemTime, length: Duration) -> SystemTime {
    let earliest = SystemTime::UNIX_EPOCH;
    now.checked_sub(length).unwrap_or(earliest).max(earliest)
}

/// Returns the summary of the period. Returns `None` if there is none, and writes the cause to
/// `err`.
fn summarize(request: &Report<'_>, period: &Period<'_>, err: &mut impl Write) -> io::Result<Option<Summary>> {
    let mut summary = Summary::new(period.since, request.now);
    let visit = |entry: &records::Entry<'_>| {
        if entry.time <= request.now && request.includes(entry.probe, entry.provider) {
            summary.add(entry);
        }
    };
    match records::read(&period.directory, period.since, visit, |_| ()) {
        Ok(read) => summary.damage.add(read),
        Err(error) => {
            writeln!(err, "{error}; {}", remedy(&period.directory))?;
            return Ok(None);
        }
    }
    if summary.is_empty() {
        write_empty(request, period, &summary.damage, err)?;
        return Ok(None);
    }
    Ok(Some(summary))
}

/// Returns the remedy if the own records cannot be read.
pub(super) fn remedy(directory: &Path) -> &'static str {
    if directory.exists() {
        "read it as root, or as a member of the prober's group"
    } else {
        "set log.directory to the directory of results.jsonl.*, and start the daemon"
    }
}

/// Writes that the period has no records.
pub(super) fn write_empty(
    request: &Report<'_>,
    period: &Period<'_>,
    damage: &Damage,
    err: &mut impl Write,
) -> io::Result<()> {
    writeln!(err, "{}", none(request, period, &period.directory))?;
    damage.sentences().iter().try_for_each(|sentence| writeln!(err, "{sentence}"))
}

/// Returns that a directory has no record of the period.
pub(super) fn none(request: &Report<'_>, period: &Period<'_>, directory: &Path) -> String {
    let named = [(" of a probe", request.probe), (" of a provider", request.provider)];
    let named = named.iter().filter_map(|(kind, name)| Some(format!("{kind} named {}", (*name)?)));
    let whose: String = named.collect();
    format!("no record{whose} of the last {} in {}", period.length, directory.display())
}

#[cfg(test)]
mod tests;
