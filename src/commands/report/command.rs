//! The command: reads configuration and records, and writes one of the two formats.

use std::{
    io::{self, Write},
    path::Path,
    time::{Duration, SystemTime},
};

use super::{markdown::markdown, summary::Summary};
use crate::{
    commands::{EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, EXIT_USAGE},
    config::{self, Environment, Keys, duration},
    records,
};

/// Arguments of the command.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The configuration.
    pub path: &'a Path,
    /// Length of the period, as a duration of the configuration.
    pub since: &'a str,
    /// Name of the only probe. `None` for all.
    pub probe: Option<&'a str>,
    /// Whether to write JSON instead of Markdown.
    pub json: bool,
    /// End of the period.
    pub now: SystemTime,
    /// The directory of the packaged service, which is read if neither the configuration nor the
    /// environment has one.
    pub packaged_logs: &'a Path,
}

/// The directory of the packaged service's records: its unit sets `LOGS_DIRECTORY` to it.
pub const PACKAGED_LOGS: &str = "/var/log/langmart-prober";

/// Runs the command. Writes the report to `out` and all else to `err`, and returns the exit status.
pub fn report(
    request: &Report<'_>,
    environment: &Environment<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let length = match duration::parse(request.since) {
        Ok(length) => length,
        Err(message) => {
            writeln!(err, "--since {:?} {message}", request.since)?;
            return Ok(EXIT_USAGE);
        }
    };
    let loaded = match config::load(request.path, Keys::Skipped, environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(EXIT_CONFIGURATION);
        }
    };
    let known = loaded.config.probes.iter().map(|probe| probe.name.as_str());
    if let Some(probe) = request.probe.filter(|probe| known.clone().all(|name| name != *probe)) {
        let known = known.collect::<Vec<_>>().join(", ");
        writeln!(err, "warning: no probe is named {probe}; the configuration has: {known}")?;
    }
    let packaged = || Some(request.packaged_logs.to_owned()).filter(|directory| directory.is_dir());
    let Some(directory) = loaded.config.log.directory.or_else(packaged) else {
        writeln!(
            err,
            "no records are kept by {}: it has no log.directory, LOGS_DIRECTORY is not set, and {} does not exist; set \
             log.directory to the directory of results.jsonl.*",
            request.path.display(),
            request.packaged_logs.display()
        )?;
        return Ok(EXIT_FAILED);
    };
    let Some(summary) = summarize(request, &directory, length, err)? else { return Ok(EXIT_FAILED) };
    if request.json {
        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    } else {
        out.write_all(markdown(&summary).as_bytes())?;
    }
    out.flush()?;
    Ok(EXIT_OK)
}

/// Returns the summary of the period. Returns `None` if there is none, and writes the cause to
/// `err`.
fn summarize(
    request: &Report<'_>,
    directory: &Path,
    length: Duration,
    err: &mut impl Write,
) -> io::Result<Option<Summary>> {
    // There are no records from before the epoch.
    let earliest = SystemTime::UNIX_EPOCH;
    let since = request.now.checked_sub(length).unwrap_or(earliest).max(earliest);
    let mut summary = Summary::new(since, request.now);
    let read = records::read(directory, since, |entry| {
        if request.probe.is_none_or(|probe| entry.probe == probe) {
            summary.add(entry);
        }
    });
    match read {
        Ok(read) => summary.skipped_lines += read.skipped_lines,
        Err(error) => {
            let is_missing = !directory.exists();
            let remedy = if is_missing {
                "set log.directory to the directory of results.jsonl.*, and start the daemon"
            } else {
                "read it as root, or as a member of the prober's group"
            };
            writeln!(err, "{error}; {remedy}")?;
            return Ok(None);
        }
    }
    if summary.is_empty() {
        let whose = request.probe.map_or_else(String::new, |probe| format!(" of a probe named {probe}"));
        writeln!(err, "no record{whose} of the last {} in {}", request.since, directory.display())?;
        if summary.skipped_lines > 0 {
            writeln!(err, "{} lines there are no records", summary.skipped_lines)?;
        }
        return Ok(None);
    }
    Ok(Some(summary))
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
    }

    fn run(path: &Path, since: &str, probe: Option<&str>, json: bool) -> (u8, String, String) {
        let variable = |_: &str| None::<OsString>;
        let environment = Environment { variable: &variable, system_roots: &Vec::new };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let packaged_logs = Path::new("/nonexistent");
        let request = Report { path, since, probe, json, now: now(), packaged_logs };
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
            since: "1d",
            probe: Some("groq-chat"),
            json: false,
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
