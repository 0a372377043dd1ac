//! Reads the records of a period. Lines that are not valid records are skipped and counted.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::civil::Date;

use super::{COMPRESSED, PREFIX, entry::Entry, gzip::GzipReader};
use crate::{config::open_regular, line_writer::PARTIAL};

/// Maximum length of a line in bytes. A record has one or two thousand.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Size of the read buffer of a file.
const BUFFER_BYTES: usize = 64 << 10;

/// Number of lines between two reports of the progress.
const LINES_PER_REPORT: u64 = 1_024;

/// Summary of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Number of files that could hold records of the period.
    pub files: usize,
    /// Lines that are not records: incomplete, too long or foreign.
    pub skipped_lines: u64,
    /// Names of the compressed files that are damaged. Their readable parts were read.
    pub damaged_files: Vec<String>,
}

/// Progress of a read, in bytes of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were read.
    pub read: u64,
    /// Bytes of all files of the period.
    pub total: u64,
}

/// Failure to read the records.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ReadError {
    path: PathBuf,
    source: io::Error,
}

/// Calls `visit` with the records of the runs that started at `since` or later, file by file in
/// chronological order. Files whose period ended before `since` are not opened. `report` is called
/// with the progress every thousand lines.
pub fn read(
    directory: &Path,
    since: SystemTime,
    mut visit: impl FnMut(&Entry<'_>),
    mut report: impl FnMut(Progress),
) -> Result<Read, ReadError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadError { path, source }
    };
    let mut read = Read::default();
    let files = files(directory, since).map_err(error(directory))?;
    let total = files.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
    let bytes = Cell::new(0);
    for path in &files {
        let Some((file, path)) = open(path, &files).map_err(error(path))? else { continue };
        read.files += 1;
        let mut lines = Lines { since, visit: &mut visit, skipped: 0 };
        let mut progress = || report(Progress { read: bytes.get(), total });
        let source = BufReader::with_capacity(BUFFER_BYTES, Counted { file, bytes: &bytes });
        let done = if is_compressed(&path) {
            let mut source = BufReader::with_capacity(BUFFER_BYTES, GzipReader::new(source));
            let done = lines.read(&mut source, &mut progress);
            if source.get_ref().is_damaged() {
                read.damaged_files.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
            done
        } else {
            lines.read(source, &mut progress)
        };
        read.skipped_lines += lines.skipped;
        done.map_err(error(&path))?;
    }
    Ok(read)
}

/// Opens a listed file, and returns the path at which it was found: the daemon may have compressed
/// it meanwhile. Returns `None` if it is gone: the daemon removes old files whenever it starts a
/// new one.
fn open(path: &Path, listed: &[PathBuf]) -> io::Result<Option<(File, PathBuf)>> {
    let with = |extension: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let compressed = with(&format!(".{COMPRESSED}"));
    // The partial file is complete if the original is gone. It is renamed at any time.
    let places = [path.to_owned(), compressed.clone(), with(PARTIAL), compressed.clone()];
    let is_only_here = is_compressed(path) || listed.contains(&compressed);
    for place in places.into_iter().take(if is_only_here { 1 } else { 4 }) {
        match open_regular(&place) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(|file| Some((file, place))),
        }
    }
    Ok(None)
}

/// Returns whether a file is compressed, complete or not, by its name.
fn is_compressed(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    path.extension().is_some_and(|extension| extension == COMPRESSED) || name.ends_with(PARTIAL.as_bytes())
}

/// A file that counts the bytes read.
struct Counted<'a> {
    file: File,
    bytes: &'a Cell<u64>,
}

impl io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Returns the files that can hold records of the period, oldest first. One that is being
/// compressed is returned under the name of its original, which may be gone.
fn files(directory: &Path, since: SystemTime) -> io::Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = name.strip_suffix(PARTIAL).unwrap_or(&name).to_owned();
        let Some((begin, end)) = period(&name) else { continue };
        // A record is written when its run ends, so never to a file that ended before the run
        // began.
        if end > since {
            // After a change of rotation, a daily file sorts before the hourly files of the same
            // day.
            let path = directory.join(&name);
            // A day has two files if it was written to again after it had been compressed.
            let is_later = path.extension().is_none_or(|extension| extension != COMPRESSED);
            files.insert((begin, std::cmp::Reverse(end), is_later, name), path);
        }
    }
    Ok(files.into_values().collect())
}

/// Returns the period that a file covers, by its name. Returns `None` if the name is not one of a
/// records file.
fn period(name: &str) -> Option<(SystemTime, SystemTime)> {
    let written = name.strip_prefix(PREFIX)?.strip_prefix('.')?;
    let uncompressed = written.strip_suffix(COMPRESSED).and_then(|name| name.strip_suffix('.'));
    let written = uncompressed.unwrap_or(written);
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

/// Reads lines and passes on the records of the period.
struct Lines<V> {
    since: SystemTime,
    visit: V,
    skipped: u64,
}

impl<V: FnMut(&Entry<'_>)> Lines<V> {
    fn read(&mut self, mut file: impl BufRead, report: &mut impl FnMut()) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let limit = MAX_LINE_BYTES as u64 + 1;
            if file.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if number.is_multiple_of(LINES_PER_REPORT) {
                report();
            }
            if line.len() > MAX_LINE_BYTES {
                if line.last() != Some(&b'\n') {
                    file.skip_until(b'\n')?;
                }
                self.skipped += 1;
                continue;
            }
            match Entry::parse(line.trim_ascii()) {
                Some(entry) if entry.time >= self.since => (self.visit)(&entry),
                Some(_) => {}
                None => self.skipped += 1,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::{
        AddressFailure, Check, FailedAddress, Fault, Outcome, Phases, RateLimit, Reason, Record, Resource,
        Subject, Tls,
    };

    fn time(text: &str) -> SystemTime {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    fn line(at: &str, probe: &str) -> String {
        let outcome = Outcome {
            request_id: Some("req_1".to_owned()),
            duration: Duration::from_millis(1_250),
            http_status: Some(429),
            failed_addresses: vec![FailedAddress {
                address: [203, 0, 113, 7].into(),
                error: AddressFailure::Refused,
            }],
            ratelimit: vec![RateLimit {
                resource: Resource::Requests,
                limit: Some(60),
                remaining: Some(0),
                reset: Some(time("2026-11-22T08:01:00Z")),
            }],
            tls: Some(Tls { not_after: Some(time("2026-12-24T00:00:00Z")), ..Tls::default() }),
            clock_offset: Some(-0.5),
            phases: Phases { connect: Duration::from_millis(30), ..Phases::default() },
            ..Outcome::new(time(at), Reason::RateLimited, Fault::Caller)
        };
        let subject = Subject { probe, provider: "openai", check: Check::Chat, model: Some("gpt/x:1") };
        serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap()
    }

    /// Returns the probes of the records read, and the number of lines skipped.
    fn read_text(text: &[u8], since: &str) -> (Vec<String>, u64) {
        let mut probes = Vec::new();
        let visit = |entry: &Entry<'_>| probes.push(entry.probe.to_owned());
        let mut lines = Lines { since: time(since), visit, skipped: 0 };
        lines.read(text, &mut || ()).unwrap();
        let skipped = lines.skipped;
        (probes, skipped)
    }

    #[test]
    fn written_record_is_read_back() {
        let written = line("2026-11-22T08:00:00.123Z", "openai-chat");
        let entry = Entry::parse(written.as_bytes()).unwrap();
        assert_eq!(
            entry,
            Entry {
                time: time("2026-11-22T08:00:00.123Z"),
                probe: "openai-chat",
                provider: "openai",
                check: Check::Chat,
                model: Some("gpt/x:1".into()),
                reason: Reason::RateLimited,
                fault: Fault::Caller,
                detail: "".into(),
                hint: "".into(),
                http_status: Some(429),
                error_code: None,
                upstream: None,
                request_id: Some("req_1"),
                retry_after: None,
                limited_by: None,
                remote_address: None,
                failed_addresses: vec![FailedAddress {
                    address: [203, 0, 113, 7].into(),
                    error: AddressFailure::Refused,
                }],
                ratelimit: vec![RateLimit {
                    resource: Resource::Requests,
                    limit: Some(60),
                    remaining: Some(0),
                    reset: Some(time("2026-11-22T08:01:00Z")),
                }],
                certificate_end: Some(time("2026-12-24T00:00:00Z")),
                clock_offset: Some(-0.5),
                duration: Duration::from_millis(1_250),
                phases: Phases { connect: Duration::from_millis(30), ..Phases::default() },
                status_page: None,
                recheck: false,
                offline: false,
                comparison: None,
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
        let mut lines = Lines { since: SystemTime::UNIX_EPOCH, visit: |_: &Entry<'_>| (), skipped: 0 };
        lines.read(BufReader::with_capacity(7, text.as_bytes()), &mut || ()).unwrap();
        assert_eq!(lines.skipped, 6, "in small pieces");
    }

    #[test]
    fn record_with_deceptive_text_is_rejected() {
        let good = line("2026-11-22T08:00:00Z", "good");
        assert!(Entry::parse(good.as_bytes()).is_some());
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
            assert!(Entry::parse(good.replacen(what, by, 1).as_bytes()).is_none(), "{what} {by}");
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
        write("results.jsonl.2026-11-22.xz", &["garbage of another program".to_owned()]);
        write("results.jsonl.2026-13-41", &["garbage without a date".to_owned()]);
        let mut probes = Vec::new();
        let mut last = None;
        let visit = |entry: &Entry<'_>| probes.push(entry.probe.to_owned());
        let read =
            read(directory.path(), time("2026-11-22T08:00:00Z"), visit, |progress| last = Some(progress));
        assert_eq!(read.unwrap(), Read { files: 3, ..Read::default() });
        assert_eq!(last, None, "too few lines for a report of progress");
        assert_eq!(probes, ["b", "c", "d"]);
    }

    /// Returns the probes and the summary of all records of a directory.
    fn read_all(directory: &Path) -> (Vec<String>, Read) {
        let mut probes = Vec::new();
        let visit = |entry: &Entry<'_>| probes.push(entry.probe.to_owned());
        let read = read(directory, SystemTime::UNIX_EPOCH, visit, |_| ()).unwrap();
        (probes, read)
    }

    #[test]
    fn file_compressed_during_the_read_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] =
            ["21", "22"].map(|day| directory.path().join(format!("{PREFIX}.2026-11-{day}")));
        fs::write(&first, line("2026-11-21T08:00:00Z", "first")).unwrap();
        fs::write(&second, line("2026-11-22T08:00:00Z", "second")).unwrap();
        let mut probes = Vec::new();
        let visit = |entry: &Entry<'_>| {
            probes.push(entry.probe.to_owned());
            if entry.probe == "first" {
                crate::line_writer::compress(&second).unwrap();
            }
        };
        let summary = read(directory.path(), SystemTime::UNIX_EPOCH, visit, |_| ()).unwrap();
        assert_eq!(
            (probes, summary),
            (vec!["first".into(), "second".into()], Read { files: 2, ..Read::default() })
        );
    }

    #[test]
    fn partial_file_counts_only_without_its_original() {
        let directory = tempfile::tempdir().unwrap();
        let original = directory.path().join(format!("{PREFIX}.2026-11-22"));
        let [complete, partial] =
            [".gz", PARTIAL].map(|end| directory.path().join(format!("{PREFIX}.2026-11-22{end}")));
        let text = line("2026-11-22T08:00:00Z", "p") + "\n";
        fs::write(&original, &text).unwrap();
        fs::write(&partial, "incomplete").unwrap();
        let whole = Read { files: 1, ..Read::default() };
        assert_eq!(read_all(directory.path()), (vec!["p".into()], whole.clone()));
        // The daemon ended between the removal of the original and the new name.
        crate::line_writer::compress(&original).unwrap();
        fs::rename(&complete, &partial).unwrap();
        assert_eq!(read_all(directory.path()), (vec!["p".into()], whole.clone()));
        // It ended before, and the original was removed by its age.
        let bytes = fs::read(&partial).unwrap();
        fs::write(&partial, &bytes[..bytes.len() - 9]).unwrap();
        let damaged = vec![format!("{PREFIX}.2026-11-22.gz.tmp")];
        assert_eq!(read_all(directory.path()).1.damaged_files, damaged);
        // Nothing is read twice.
        fs::write(&complete, &bytes).unwrap();
        assert_eq!(read_all(directory.path()), (vec!["p".into()], whole));
    }

    #[test]
    fn model_with_escapes_is_read() {
        for model in ["a\"b", "a\\b", "\"", "plain/x:1"] {
            let outcome = Outcome::new(time("2026-11-22T08:00:00Z"), Reason::Ok, Fault::None);
            let subject = Subject { probe: "p", provider: "openai", check: Check::Chat, model: Some(model) };
            let written = serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap();
            let entry = Entry::parse(written.as_bytes()).unwrap_or_else(|| panic!("{written}"));
            assert_eq!(entry.model.as_deref(), Some(model));
        }
    }

    #[test]
    fn record_of_an_impossible_duration_is_rejected() {
        let good = line("2026-11-22T08:00:00Z", "good");
        for duration in ["1e19", "1e300", "86400.001"] {
            assert!(Entry::parse(good.replace("1.25", duration).as_bytes()).is_none(), "{duration}");
        }
        assert!(Entry::parse(good.replace("1.25", "86400").as_bytes()).is_some());
    }

    #[test]
    fn missing_directory_is_named() {
        let error = read(Path::new("/nonexistent"), SystemTime::now(), |_| (), |_| ()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nonexistent: "), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
            prop_assert!(read_text(&bytes, "1970-01-01T00:00:00Z").1 >= lines.saturating_sub(1));
        }
    }
}
