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
    let known = config.probes.iter().map(|probe| probe.name.as_str());
    if let Some(probe) = request.probe.filter(|probe| known.clone().all(|name| name != *probe)) {
        let known = known.collect::<Vec<_>>().join(", ");
        writeln!(err, "warning: no probe is named {probe}; the configuration has: {known}")?;
    }
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

/// Prints the failures. Returns the exit status.
fn failures(
    request: &Report<'_>,
    period: &Period<'_>,
    (config, query): (&Config, Option<&AccountQuery<'_>>),
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let Some(mut summary) = summarize(request, period, err)? else { return Ok(EXIT_FAILED) };
    summary.add_base_urls(config);
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
        if request.probe.is_none_or(|probe| entry.probe == probe) {
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
    let whose = request.probe.map_or_else(String::new, |probe| format!(" of a probe named {probe}"));
    format!("no record{whose} of the last {} in {}", period.length, directory.display())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs, time::Duration};

    use super::*;
    use crate::outcome::{Check, Detail, Fault, Outcome, Reason, Record, Subject};

    const NOW: Duration = Duration::from_secs(1_795_334_460);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    fn line(probe: &str, ago: u64, reason: Reason, fault: Fault) -> String {
        let failed = reason != Reason::Ok;
        let outcome = Outcome {
            http_status: Some(if failed { 429 } else { 200 }),
            request_id: failed.then(|| format!("req_{ago}")),
            error_code: failed.then(|| "rate_limit_exceeded".into()),
            detail: failed.then(|| Detail::JsonDiffers("limited | by <tokens>".into())),
            hint: if failed { "wait as asked" } else { "" }.into(),
            duration: Duration::from_millis(100 + ago),
            ..Outcome::new(now() - Duration::from_secs(ago), reason, fault)
        };
        let subject = Subject { probe, provider: "groq", check: Check::Chat, model: Some("a|b") };
        serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap()
    }

    struct Bench {
        directory: tempfile::TempDir,
    }

    impl Bench {
        fn new(lines: &[String]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("results.jsonl.2026-11-22"), lines.join("\n")).unwrap();
            let config = format!("[log]\ndirectory = \"{}\"\n", directory.path().display());
            fs::write(directory.path().join("config.toml"), config).unwrap();
            Self { directory }
        }

        fn run(&self, since: &str, probe: Option<&str>, json: bool) -> (u8, String, String) {
            run(&self.directory.path().join("config.toml"), since, probe, json)
        }

        fn run_ledger(&self, incidents: bool, vantages: &[String]) -> (u8, String, String) {
            let path = self.directory.path().join("config.toml");
            run_as(&path, |request| Report { incidents, vantages, ..request })
        }
    }

    fn run(path: &Path, since: &str, probe: Option<&str>, json: bool) -> (u8, String, String) {
        let format = if json { ReportFormat::Json } else { ReportFormat::Markdown };
        run_as(path, |request| Report { since: Some(since), probe, format, ..request })
    }

    fn run_as<'a>(path: &'a Path, change: impl FnOnce(Report<'a>) -> Report<'a>) -> (u8, String, String) {
        let variable = |_: &str| None::<OsString>;
        let environment = Environment { variable: &variable, system_roots: &Vec::new };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let request = change(Report {
            path,
            incidents: false,
            since: Some("1h"),
            probe: None,
            format: ReportFormat::Markdown,
            account: false,
            vantages: &[],
            terminal: false,
            now: now(),
            packaged_logs: Path::new("/nonexistent"),
        });
        let status = report(&request, &environment, &mut out, &mut err).unwrap();
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn records() -> Bench {
        Bench::new(&[
            line("early", 3_700, Reason::RateLimited, Fault::Caller),
            line("groq-chat", 3_000, Reason::Ok, Fault::None),
            line("groq-chat", 120, Reason::RateLimited, Fault::Caller),
            line("groq-chat", 60, Reason::RateLimited, Fault::Caller),
            "torn".to_owned(),
            line("groq-auth", 30, Reason::Ok, Fault::None),
        ])
    }

    #[test]
    fn report_lists_failures_and_runs() {
        let (status, out, err) = records().run("1h", None, false);
        let expected = "\
# Failures from 2026-11-22T07:01:00Z to 2026-11-22T08:01:00Z

2 of 4 runs failed, of 1 of 2 probes. Recorded by langmart-prober VERSION.

## groq-chat: rate_limited, fault caller, code rate_limit_exceeded

- Probe: chat at provider groq, model `a|b`
- Runs: 2, the first at 2026-11-22T07:59:00Z, the last at 2026-11-22T08:00:00Z
- HTTP status: 429 (2)
- Duration: median 0.19 s, longest 0.22 s
- What happened: expect.json: limited \\| by \\<tokens> has another value
- What to do: wait as asked

| time | status | duration | request ID |
|---|---|---|---|
| 2026-11-22T08:00:00Z | 429 | 0.16 s | req_60 |
| 2026-11-22T07:59:00Z | 429 | 0.22 s | req_120 |

## Runs

| probe | runs | succeeded | share |
|---|---|---|---|
| groq-auth | 1 | 1 | 100 % |
| groq-chat | 3 | 1 | 33.3 % |

1 line of the files is not a record and was skipped.
";
        assert_eq!(out, expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
        assert_eq!((status, err.as_str()), (EXIT_OK, ""));
    }

    #[test]
    fn json_report_has_the_same_facts() {
        let (status, out, _) = records().run("1h", Some("groq-chat"), true);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let failure = &report["failures"][0];
        assert_eq!(
            (status, report["skipped_lines"].as_u64(), failure["count"].as_u64()),
            (EXIT_OK, Some(1), Some(2))
        );
        assert_eq!(failure["latest"][0]["request_id"], "req_60");
        assert_eq!(failure["duration_seconds"], serde_json::json!({"median": 0.19, "max": 0.22}));
        assert_eq!(failure["http_status"], serde_json::json!({"429": 2}));
        assert_eq!(report["probes"].as_array().unwrap().len(), 1);
        assert!(report.get("upstream").is_none());
    }

    #[test]
    fn records_of_the_package_are_found() {
        let bench = records();
        let config = bench.directory.path().join("config.toml");
        fs::write(&config, "[provider.langmart]\nchecks = [\"health\"]\n").unwrap();
        let environment = Environment { variable: &|_| None, system_roots: &Vec::new };
        let request = Report {
            path: &config,
            incidents: false,
            since: Some("1d"),
            probe: Some("groq-chat"),
            format: ReportFormat::Markdown,
            account: false,
            vantages: &[],
            terminal: false,
            now: now(),
            packaged_logs: bench.directory.path(),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(report(&request, &environment, &mut out, &mut err).unwrap(), EXIT_OK);
        assert!(String::from_utf8(out).unwrap().contains("2 of 3 runs failed"));
        assert_eq!(
            String::from_utf8(err).unwrap(),
            "warning: no probe is named groq-chat; the configuration has: langmart-health\n"
        );
    }

    #[track_caller]
    fn check(since: &str, probe: Option<&str>, status: u8, message: &str) {
        let (actual, out, err) = records().run(since, probe, false);
        assert_eq!((actual, out.as_str()), (status, ""), "{err}");
        assert!(err.contains(message), "{err}");
    }

    /// Writes a compressed file that is damaged at its beginning.
    fn write_damaged(directory: &Path) {
        fs::write(directory.join("results.jsonl.2026-11-22.gz"), "not gzip").unwrap();
    }

    #[test]
    fn damage_is_named_if_nothing_can_be_read() {
        for incidents in [false, true] {
            let bench = Bench::new(&["torn".to_owned()]);
            write_damaged(bench.directory.path());
            let (status, out, err) = bench.run_ledger(incidents, &[]);
            assert_eq!((status, out.as_str()), (EXIT_FAILED, ""));
            for sentence in
                ["\nresults.jsonl.2026-11-22.gz is damaged; ", "\n2 lines of the files are not records"]
            {
                assert!(err.contains(sentence), "{err}");
            }
        }
        let (_, _, err) = Bench::new(&["torn".to_owned()]).run_ledger(true, &[]);
        assert!(err.contains("\n1 line of the files is not a record"), "{err}");
    }

    #[test]
    fn vantage_point_without_records_is_named() {
        let outage = [line("groq-chat", 60, Reason::Unavailable, Fault::Provider)];
        let (bench, other) = (Bench::new(&outage), Bench::new(&outage));
        let given = |directory: &Path| vec![format!("fra={}", directory.display())];
        let good = given(other.directory.path());
        let (status, out, err) = bench.run_ledger(true, &good);
        assert_eq!((status, err.as_str()), (EXIT_OK, ""));
        assert!(out.contains("- Vantage point fra: 1 of 1 runs failed"), "{out}");

        write_damaged(other.directory.path());
        let (_, out, err) = bench.run_ledger(true, &good);
        assert!(out.contains("- Vantage point fra: 1 of 1 runs failed"), "{out}");
        assert!(err.contains("warning: --vantage fra: results.jsonl.2026-11-22.gz is damaged"), "{err}");

        let empty = tempfile::tempdir().unwrap();
        let (status, out, err) = bench.run_ledger(true, &given(empty.path()));
        assert!(status == EXIT_OK && !out.contains("Vantage point"), "{out}");
        let expected =
            format!("warning: --vantage fra: no record of the last 1h in {}\n", empty.path().display());
        assert_eq!(err, expected);

        let (status, out, err) = bench.run_ledger(true, &given(Path::new("/nonexistent")));
        assert_eq!((status, out.as_str()), (EXIT_FAILED, ""));
        assert!(err.starts_with("--vantage fra: cannot read /nonexistent: "), "{err}");
        assert!(
            err.contains("; copy the records of that prober there") && !err.contains("log.directory"),
            "{err}"
        );
    }

    #[test]
    fn report_without_records_names_the_cause() {
        check("1s", None, EXIT_FAILED, "no record of the last 1s in /");
        check("1h", Some("other"), EXIT_FAILED, "no record of a probe named other of the last 1h in /");
        let (_, out, _) = records().run("99999999h", None, false);
        assert!(out.starts_with("# Failures from 1970-01-01T00:00:00Z to "), "{out}");
        check("yesterday", None, EXIT_USAGE, "--since \"yesterday\" ");
        let bench = records();
        let path = bench.directory.path().join("config.toml");
        fs::write(&path, "[log]\ndirectory = \"/nonexistent\"\n").unwrap();
        let (status, _, err) = bench.run("1h", None, false);
        assert_eq!(status, EXIT_FAILED);
        assert!(
            err.starts_with("cannot read /nonexistent: ") && err.contains("; set log.directory"),
            "{err}"
        );
        fs::write(&path, "").unwrap();
        let (status, _, err) = bench.run("1h", None, false);
        assert_eq!(status, EXIT_FAILED);
        assert!(err.contains("/nonexistent does not exist; set log.directory to"), "{err}");
        assert_eq!(run(Path::new("/nonexistent"), "1h", None, false).0, EXIT_CONFIGURATION);
    }
}
