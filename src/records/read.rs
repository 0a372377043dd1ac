//! Reads the records of a period. Lines that are not valid records are skipped and counted.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::civil::Date;
use serde::{Deserialize, de::IgnoredAny};

use super::PREFIX;
use crate::{
    config::open_regular,
    outcome::{Check, Fault, Reason},
};

/// Maximum length of a line in bytes. A record has one or two thousand.
const MAX_LINE_BYTES: usize = 64 << 10;

/// One record. Its strings are validated to be printable and short, because the files can be edited
/// and the strings reach a terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Start of the run.
    pub time: SystemTime,
    /// The probe's name.
    pub probe: String,
    /// The provider's name.
    pub provider: String,
    /// The probe's check.
    pub check: Check,
    /// The model. `None` if the probe has none.
    pub model: Option<String>,
    /// Reason of the result.
    pub reason: Reason,
    /// Party responsible for the failure.
    pub fault: Fault,
    /// Details of the failure; empty if the reason is sufficient.
    pub detail: String,
    /// Remedy; empty on success.
    pub hint: String,
    /// HTTP status of the response. `None` if there was no response.
    pub http_status: Option<u16>,
    /// Error code of the service.
    pub error_code: Option<String>,
    /// Provider named in a gateway's error.
    pub upstream: Option<String>,
    /// Request ID assigned by the service.
    pub request_id: Option<String>,
    /// Duration of the run.
    pub duration: Duration,
    /// Whether the run was a recheck after a failure. Rechecks do not count for availability.
    pub recheck: bool,
}

/// Summary of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Number of files that could hold records of the period.
    pub files: usize,
    /// Lines that are not records: incomplete, too long or foreign.
    pub skipped_lines: u64,
}

/// Failure to read the records.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ReadError {
    path: PathBuf,
    source: io::Error,
}

/// Calls `visit` with the records of the runs that started at `since` or later, file by file in
/// chronological order. Files whose period ended before `since` are not opened.
pub fn read(directory: &Path, since: SystemTime, mut visit: impl FnMut(Entry)) -> Result<Read, ReadError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadError { path, source }
    };
    let mut read = Read::default();
    for path in files(directory, since).map_err(error(directory))? {
        let file = match open_regular(&path) {
            // The daemon removes old files whenever it starts a new one.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(error(&path))?,
        };
        read.files += 1;
        read.skipped_lines += read_file(BufReader::new(file), since, &mut visit).map_err(error(&path))?;
    }
    Ok(read)
}

/// Returns the files that can hold records of the period, oldest first.
fn files(directory: &Path, since: SystemTime) -> io::Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((begin, end)) = name.to_str().and_then(period) else { continue };
        // A record is written when its run ends, so never to a file that ended before the run
        // began.
        if end > since {
            // After a change of rotation, a daily file sorts before the hourly files of the same
            // day.
            files.insert((begin, std::cmp::Reverse(end), name), entry.path());
        }
    }
    Ok(files.into_values().collect())
}

/// Returns the period that a file covers, by its name. Returns `None` if the name is not one of a
/// records file.
fn period(name: &str) -> Option<(SystemTime, SystemTime)> {
    let written = name.strip_prefix(PREFIX)?.strip_prefix('.')?;
    let shape: String = written.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let (date, hour, hours) = match shape.as_str() {
        "0000-00-00" => (written, 0, 24),
        "0000-00-00-00" => (&written[..10], written[11..].parse().ok()?, 1),
        _ => return None,
    };
    let date: Date = date.parse().ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let begin = SystemTime::from(midnight) + Duration::from_secs(hour * 3_600);
    Some((begin, begin + Duration::from_secs(hours * 3_600)))
}

/// Visits the records of the period in one file. Returns the number of lines skipped.
fn read_file(mut file: impl BufRead, since: SystemTime, visit: &mut impl FnMut(Entry)) -> io::Result<u64> {
    let mut skipped = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        if file.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(skipped);
        }
        if line.len() > MAX_LINE_BYTES {
            if line.last() != Some(&b'\n') {
                file.skip_until(b'\n')?;
            }
            skipped += 1;
            continue;
        }
        match entry(line.trim_ascii()) {
            Some(entry) if entry.time >= since => visit(entry),
            Some(_) => {}
            None => skipped += 1,
        }
    }
}

/// A record as written. Members that are not needed are omitted.
#[derive(Deserialize)]
struct Line {
    time: String,
    probe: String,
    provider: String,
    check: String,
    model: Option<String>,
    reason: String,
    fault: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    hint: String,
    http_status: Option<u16>,
    error_code: Option<String>,
    upstream: Option<String>,
    request_id: Option<String>,
    duration_seconds: f64,
    recheck: Option<IgnoredAny>,
}

/// Parses one line. Returns `None` if it is not a record of this version.
fn entry(line: &[u8]) -> Option<Entry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let name = |text: &String| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        (1..=128).contains(&text.len()) && text.bytes().all(fits)
    };
    let model = |text: &String| text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
    let sentence = |text: &String| text.len() <= 1_024 && !text.contains(|c: char| c.is_control());
    let names = [&line.probe, &line.provider];
    let codes = [&line.error_code, &line.upstream, &line.request_id];
    if !names.into_iter().all(name)
        || !codes.into_iter().flatten().all(name)
        || !line.model.iter().all(model)
        || ![&line.detail, &line.hint].into_iter().all(sentence)
    {
        return None;
    }
    Some(Entry {
        time: line.time.parse::<jiff::Timestamp>().ok()?.into(),
        check: Check::from_name(&line.check)?,
        reason: Reason::from_name(&line.reason)?,
        fault: Fault::from_name(&line.fault)?,
        duration: Duration::try_from_secs_f64(line.duration_seconds).ok()?,
        probe: line.probe,
        provider: line.provider,
        model: line.model,
        detail: line.detail,
        hint: line.hint,
        http_status: line.http_status,
        error_code: line.error_code,
        upstream: line.upstream,
        request_id: line.request_id,
        recheck: line.recheck.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::{Outcome, Record, Subject};

    fn time(text: &str) -> SystemTime {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    fn line(at: &str, probe: &str) -> String {
        let outcome = Outcome {
            request_id: Some("req_1".to_owned()),
            duration: Duration::from_millis(1_250),
            http_status: Some(429),
            ..Outcome::new(time(at), Reason::RateLimited, Fault::Caller)
        };
        let subject = Subject { probe, provider: "openai", check: Check::Chat, model: Some("gpt/x:1") };
        serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap()
    }

    /// Returns the probes of the records read, and the number of lines skipped.
    fn read_text(text: &[u8], since: &str) -> (Vec<String>, u64) {
        let mut probes = Vec::new();
        let skipped = read_file(text, time(since), &mut |entry| probes.push(entry.probe)).unwrap();
        (probes, skipped)
    }

    #[test]
    fn written_record_is_read_back() {
        let written = line("2026-11-22T08:00:00.123Z", "openai-chat");
        let entry = entry(written.as_bytes()).unwrap();
        assert_eq!(
            entry,
            Entry {
                time: time("2026-11-22T08:00:00.123Z"),
                probe: "openai-chat".to_owned(),
                provider: "openai".to_owned(),
                check: Check::Chat,
                model: Some("gpt/x:1".to_owned()),
                reason: Reason::RateLimited,
                fault: Fault::Caller,
                detail: String::new(),
                hint: String::new(),
                http_status: Some(429),
                error_code: None,
                upstream: None,
                request_id: Some("req_1".to_owned()),
                duration: Duration::from_millis(1_250),
                recheck: false,
            }
        );
    }

    #[test]
    fn invalid_lines_are_skipped_and_counted() {
        let good = line("2026-11-22T08:00:00Z", "good");
        let long = "x".repeat(3 * MAX_LINE_BYTES);
        let text = format!("{good}\n{}\n\n{{}}\n{long}\nnull\n{good}\n\u{1}\n{good}", &good[..40]);
        assert_eq!(
            read_text(text.as_bytes(), "2026-11-22T00:00:00Z"),
            (["good"; 3].map(str::to_owned).to_vec(), 6)
        );
        // A line of exactly the maximum length, and one a byte longer.
        let exact = format!("{}{good}\n", " ".repeat(MAX_LINE_BYTES - good.len() - 1));
        assert_eq!(read_text(exact.as_bytes(), "2026-11-22T00:00:00Z").1, 0);
        assert_eq!(read_text(format!(" {exact}{good}").as_bytes(), "2026-11-22T00:00:00Z").1, 1);
        let reader = BufReader::with_capacity(7, text.as_bytes());
        assert_eq!(read_file(reader, SystemTime::UNIX_EPOCH, &mut |_| {}).unwrap(), 6, "in small pieces");
    }

    #[test]
    fn record_with_deceptive_text_is_rejected() {
        let good = line("2026-11-22T08:00:00Z", "good");
        assert!(entry(good.as_bytes()).is_some());
        for (what, by) in [
            ("req_1", "req 1"),
            ("req_1", "\\u001b[31m"),
            ("\"good\"", "\"<b>\""),
            ("gpt/x:1", "gpt\\nx"),
            ("rate_limited", "rate_limitedx"),
            ("1.25", "-1.25"),
            ("2026-11-22T08", "then"),
            ("\"success\"", "\"detail\":\"\\u0007\",\"success\""),
        ] {
            assert!(entry(good.replacen(what, by, 1).as_bytes()).is_none(), "{what} {by}");
        }
    }

    #[test]
    fn only_files_of_the_period_are_read_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, lines: &[String]| {
            fs::write(directory.path().join(name), lines.join("\n") + "\n").unwrap();
        };
        write("results.jsonl.2026-11-22-09", &[line("2026-11-22T09:10:00Z", "d")]);
        write(
            "results.jsonl.2026-11-22",
            &[line("2026-11-22T07:00:00Z", "early"), line("2026-11-22T08:30:00Z", "b")],
        );
        write("results.jsonl.2026-11-22-08", &[line("2026-11-22T08:50:00Z", "c")]);
        write("results.jsonl.2026-11-22-07", &["garbage of an earlier hour".to_owned()]);
        write("results.jsonl.2026-11-21", &["garbage of an earlier day".to_owned()]);
        write("prober.log.2026-11-22", &["garbage of another kind".to_owned()]);
        write("results.jsonl.2026-11-22.gz", &["garbage of another program".to_owned()]);
        write("results.jsonl.2026-13-41", &["garbage without a date".to_owned()]);
        let mut probes = Vec::new();
        let read = read(directory.path(), time("2026-11-22T08:00:00Z"), |entry| probes.push(entry.probe));
        assert_eq!(read.unwrap(), Read { files: 3, skipped_lines: 0 });
        assert_eq!(probes, ["b", "c", "d"]);
    }

    #[test]
    fn missing_directory_is_named() {
        let error = read(Path::new("/nonexistent"), SystemTime::now(), |_| {}).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nonexistent: "), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
            let skipped = read_file(bytes.as_slice(), SystemTime::UNIX_EPOCH, &mut |_| {}).unwrap();
            prop_assert!(skipped >= lines.saturating_sub(1));
        }
    }
}
