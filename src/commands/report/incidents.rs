//! The ledger of outages: reads the records of this prober, then those of other vantage points.

use std::{
    io::{self, Write},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;

use super::{
    account::{AccountQuery, AccountReport, FailedRequest},
    command::{Period, Report, ReportFormat, none, remedy, write_empty},
    csv,
    damage::Damage,
    ledger,
};
use crate::{
    api::gate,
    commands::{EXIT_FAILED, EXIT_OK, EXIT_USAGE},
    incidents::{Incidents, Ledger, Observed, Outage, ProviderMonth, Vantage},
    outcome::in_record,
    records::{self, Entry, Progress, Read, ReadError},
};

/// Interval between two updates of the progress line.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of other vantage points.
const MAX_VANTAGES: usize = 16;

/// The ledger as the formats need it. Its JSON is the report with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    version: &'static str,
    #[serde(serialize_with = "in_record")]
    pub(super) since: SystemTime,
    #[serde(serialize_with = "in_record")]
    pub(super) until: SystemTime,
    #[serde(flatten)]
    pub(super) damage: Damage,
    /// Number of outages that are not listed.
    pub(super) omitted_outages: u64,
    pub(super) outages: Vec<Outage>,
    pub(super) availability: Vec<ProviderMonth>,
    /// What LangMart reports, if it was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) account: Vec<AccountReport>,
}

/// Prints the ledger. Returns the exit status.
pub(super) fn incidents(
    request: &Report<'_>,
    period: &Period<'_>,
    query: Option<&AccountQuery<'_>>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let mut vantages = Vec::new();
    for argument in request.vantages {
        let Some(named) = vantage(argument).filter(|_| vantages.len() < MAX_VANTAGES) else {
            writeln!(
                err,
                "--vantage {argument:?} is not NAME=DIRECTORY, or is one of more than {MAX_VANTAGES}"
            )?;
            return Ok(EXIT_USAGE);
        };
        vantages.push(named);
    }
    let mut listing = match listing(request, period, err) {
        Ok(listing) => listing,
        Err(error) => {
            writeln!(err, "{error}; {}", remedy(&period.directory))?;
            return Ok(EXIT_FAILED);
        }
    };
    if listing.availability.is_empty() {
        write_empty(request, period, &listing.damage, err)?;
        return Ok(EXIT_FAILED);
    }
    for (name, directory) in vantages {
        if let Err(error) = listing.add_vantage(request, period, (name, directory), err)? {
            writeln!(
                err,
                "--vantage {name}: {error}; copy the records of that prober there, readable for you"
            )?;
            return Ok(EXIT_FAILED);
        }
    }
    if let Some(query) = query {
        listing.account = query.run(|provider| listing.requests(provider), err)?;
    }
    match request.format {
        ReportFormat::Markdown => out.write_all(ledger::markdown(&listing).as_bytes())?,
        ReportFormat::Json => writeln!(out, "{}", serde_json::to_string(&listing)?)?,
        ReportFormat::OutagesCsv => out.write_all(csv::outages(&listing).as_bytes())?,
        ReportFormat::AvailabilityCsv => out.write_all(csv::availability(&listing).as_bytes())?,
    }
    out.flush()?;
    Ok(EXIT_OK)
}

impl Listing {
    /// Adds the runs of another prober, and warns of what could not be read of them. One without
    /// any record is left out: it did not see that nothing failed.
    fn add_vantage(
        &mut self,
        request: &Report<'_>,
        period: &Period<'_>,
        (name, directory): (&str, &Path),
        err: &mut impl Write,
    ) -> io::Result<Result<(), ReadError>> {
        let mut vantage = Vantage::new(name, &self.outages, request.now);
        let mut is_empty = true;
        let add = |run: &Observed<'_>| {
            is_empty = false;
            vantage.add(run, &self.outages);
        };
        let mut damage = Damage::default();
        match visit(request, (directory, period.since), add, err) {
            Ok(read) => damage.add(read),
            Err(error) => return Ok(Err(error)),
        }
        if is_empty {
            writeln!(err, "warning: --vantage {name}: {}", none(request, period, directory))?;
        } else {
            vantage.finish(&mut self.outages);
        }
        for sentence in damage.sentences() {
            writeln!(err, "warning: --vantage {name}: {sentence}")?;
        }
        Ok(Ok(()))
    }

    /// Returns the listed requests of a provider that have an ID.
    fn requests(&self, provider: &str) -> Vec<FailedRequest> {
        let outages = self.outages.iter().filter(|outage| *outage.provider == *provider);
        let requests = outages.flat_map(Outage::requests);
        let with_id = requests.filter_map(|request| Some((request.time, request.request_id.as_deref()?)));
        with_id.map(|(time, id)| (time, id.to_owned())).collect()
    }
}

/// Parses `NAME=DIRECTORY`.
fn vantage(argument: &str) -> Option<(&str, &Path)> {
    let (name, directory) = argument.split_once('=')?;
    (gate::is_plain_name(name) && !directory.is_empty()).then(|| (name, Path::new(directory)))
}

fn listing(request: &Report<'_>, period: &Period<'_>, err: &mut impl Write) -> Result<Listing, ReadError> {
    let mut ledger = Ledger::default();
    let add = |run: &Observed<'_>| ledger.add(run);
    let read = visit(request, (&period.directory, period.since), add, err)?;
    let Incidents { outages, omitted_outages, months, ignored_runs } = ledger.finish(request.now);
    let mut damage = Damage::default();
    damage.add(read);
    damage.omitted_runs = ignored_runs;
    Ok(Listing {
        version: env!("CARGO_PKG_VERSION"),
        since: period.since,
        until: request.now,
        damage,
        omitted_outages,
        outages,
        availability: months,
        account: Vec::new(),
    })
}

/// Reads the records of a directory since that time, up to now and without rechecks.
fn visit(
    request: &Report<'_>,
    (directory, since): (&Path, SystemTime),
    mut add: impl FnMut(&Observed<'_>),
    err: &mut impl Write,
) -> Result<Read, ReadError> {
    let is_wanted = |entry: &Entry<'_>| {
        // Without the runs of a status check, the ledger would lack what its page reported.
        let is_included = !entry.check.addresses_service() || request.includes(entry.probe, entry.provider);
        is_included && !entry.recheck && entry.time <= request.now
    };
    let mut line = ProgressLine { shown: None, terminal: request.terminal };
    let visit = |entry: &Entry<'_>| {
        if is_wanted(entry) {
            add(&observed(entry));
        }
    };
    let read = records::read(directory, since, visit, |progress| line.show(progress, err));
    line.clear(err);
    read
}

fn observed<'a>(entry: &'a Entry<'_>) -> Observed<'a> {
    Observed {
        time: entry.time,
        probe: entry.probe,
        provider: entry.provider,
        check: entry.check,
        model: entry.model.as_deref(),
        reason: entry.reason,
        fault: entry.fault,
        offline: entry.offline,
        detail: &entry.detail,
        http_status: entry.http_status,
        error_code: entry.error_code,
        upstream: entry.upstream,
        request_id: entry.request_id,
        retry_after: entry.retry_after,
        comparison: entry.comparison,
        status_page: entry.status_page.as_ref(),
    }
}

/// A line on a terminal that shows how much has been read.
struct ProgressLine {
    shown: Option<Instant>,
    terminal: bool,
}

impl ProgressLine {
    fn show(&mut self, progress: Progress, err: &mut impl Write) {
        if !self.terminal || self.shown.is_some_and(|shown| shown.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        let Progress { read, total } = progress;
        let percent = (read.min(total) * 100).checked_div(total).unwrap_or(100);
        let megabytes = |bytes: u64| bytes / 1_000_000;
        // Write errors of standard error are ignored.
        let _ = write!(
            err,
            "\rReading records: {percent} %, {} of {} MB\x1b[K",
            megabytes(read),
            megabytes(total)
        );
        let _ = err.flush();
    }

    fn clear(&self, err: &mut impl Write) {
        if self.shown.is_some() {
            let _ = write!(err, "\r\x1b[K");
            let _ = err.flush();
        }
    }
}
