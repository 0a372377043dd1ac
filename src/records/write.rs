//! Writes one line per run, on a thread of its own.

use std::{
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::PREFIX;
use crate::{
    config::{Log, Probe, Rotation},
    line_writer::{
        Counters, DrainingWriters, LineWriter, LogFiles, OpenError, Period, RollingFile, WriteResult,
    },
    outcome::{Outcome, Record},
    sync::RwLock,
};

/// Time for which records gather before they are written, because waking the thread for each record
/// costs more than writing it.
const GATHERING: Duration = Duration::from_millis(50);

/// Writer of the records.
#[derive(Debug)]
pub struct Records {
    /// `None` if the configuration has no log directory, so that no records are written.
    current: RwLock<Option<(LogFiles, LineWriter<FinishedRun>)>>,
    draining: DrainingWriters<FinishedRun>,
    counters: Counters,
}

/// A prepared change of the records: opened, but without effect until it is committed.
#[derive(Debug)]
pub struct RecordsChange(Change);

#[derive(Debug)]
enum Change {
    None,
    WriteTo(LogFiles, LineWriter<FinishedRun>),
    /// Records are no longer written.
    Disabled,
}

/// A finished run in the queue.
type FinishedRun = (Arc<Probe>, Arc<Outcome>);

/// Failure to start or reconfigure the records.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The log directory cannot be created or written.
    #[error(transparent)]
    File(#[from] OpenError),
    /// The thread could not be started.
    #[error("cannot start writing records: {0}")]
    Thread(#[from] io::Error),
}

impl Records {
    /// Starts the thread if the configuration has a log directory. The file is opened with the
    /// first record, so that an unwritable directory loses records, which are counted, but does not
    /// prevent the start.
    pub fn start(log: &Log) -> Result<Self, RecordsError> {
        let (current, draining) = (RwLock::new(None), DrainingWriters::default());
        let records = Self { current, draining, counters: Counters::default() };
        if let Some(files) = files(log) {
            let lines = records.write_to(RollingFile::new(files.clone()))?;
            records.commit(RecordsChange(Change::WriteTo(files, lines)));
        }
        Ok(records)
    }

    /// Performs the steps of a reload that can fail. Opens files, so it must not run on a thread
    /// with deadlines.
    pub fn prepare(&self, log: &Log) -> Result<RecordsChange, RecordsError> {
        let files = files(log);
        let current = self.current.read();
        if current.as_ref().map(|(files, _)| files) == files.as_ref() {
            return Ok(RecordsChange(Change::None));
        }
        drop(current);
        Ok(RecordsChange(match files {
            Some(files) => {
                let lines = self.write_to(RollingFile::open(files.clone())?)?;
                Change::WriteTo(files, lines)
            }
            None => Change::Disabled,
        }))
    }

    /// Applies a prepared change. The old thread finishes its queue and ends by itself.
    pub fn commit(&self, change: RecordsChange) {
        let opened = match change.0 {
            Change::None => return,
            Change::WriteTo(files, lines) => Some((files, lines)),
            Change::Disabled => None,
        };
        let mut current = self.current.write();
        let replaced = mem::replace(&mut *current, opened);
        drop(current);
        if let Some((_, lines)) = replaced {
            self.draining.add(lines);
        }
    }

    /// Queues a record without blocking. If the queue is full, the record is dropped and counted.
    pub fn push(&self, probe: Arc<Probe>, outcome: Arc<Outcome>) {
        if let Some((_, lines)) = &*self.current.read() {
            lines.push((probe, outcome));
        }
    }

    /// Returns the counters, which continue across reloads.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Stops accepting records and writes the queued ones, up to the deadline.
    pub fn stop(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        if let Some((_, lines)) = &*self.current.read() {
            lines.stop(deadline);
        }
        self.draining.stop(end);
    }

    fn write_to(&self, mut file: RollingFile) -> io::Result<LineWriter<FinishedRun>> {
        let mut line = Vec::new();
        LineWriter::start(
            "records",
            self.counters.clone(),
            GATHERING,
            move |(probe, outcome): FinishedRun| {
                line.clear();
                let record = Record { subject: probe.subject(), outcome: &outcome };
                if serde_json::to_writer(&mut line, &record).is_err() {
                    return WriteResult::Failed;
                }
                line.push(b'\n');
                file.write(&line)
            },
        )
    }
}

fn files(log: &Log) -> Option<LogFiles> {
    Some(LogFiles {
        directory: log.directory.clone()?,
        prefix: PREFIX,
        period: match log.rotation {
            Rotation::Hourly => Period::Hour,
            Rotation::Daily => Period::Day,
        },
        max_files: log.max_files,
        max_size: log.max_file_size,
        compress: log.compress,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::atomic::Ordering,
        time::SystemTime,
    };

    use serde_json::Value;

    use super::*;
    use crate::{
        config::{
            LogFormat, Task,
            testing::{self, provider},
        },
        outcome::{Api, Fault, Reason},
    };

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    fn log(directory: Option<PathBuf>) -> Log {
        Log {
            filter: "info".to_owned(),
            format: LogFormat::Text,
            stderr: false,
            directory,
            rotation: Rotation::Daily,
            max_files: 2,
            max_file_size: 1 << 20,
            compress: false,
        }
    }

    fn probe() -> Arc<Probe> {
        let langmart = Arc::new(provider("langmart", Api::Langmart, "https://api.langmart.ai"));
        Arc::new(testing::probe("langmart-health", &langmart, Task::Health))
    }

    fn outcome() -> Arc<Outcome> {
        Arc::new(Outcome::new(SystemTime::now(), Reason::Ok, Fault::None))
    }

    /// Returns every record in the directory, parsed.
    fn lines(directory: &Path) -> Vec<Value> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.file_name().unwrap().to_str().unwrap().starts_with("results.jsonl."), "{path:?}");
            let text = fs::read_to_string(path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str(line).expect(line)));
        }
        lines
    }

    #[test]
    fn each_run_is_recorded_as_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::start(&log(Some(directory.path().to_owned()))).unwrap();
        let (probe, outcome) = (probe(), outcome());
        for _ in 0..100 {
            records.push(Arc::clone(&probe), Arc::clone(&outcome));
        }
        records.stop(TEST_TIMEOUT);
        let expected = serde_json::to_value(Record { subject: probe.subject(), outcome: &outcome }).unwrap();
        assert_eq!(lines(directory.path()), vec![expected; 100]);
        assert_eq!(records.counters().written.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn reload_moves_the_file_and_loses_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
        let records = Records::start(&log(None)).unwrap();
        records.push(probe(), outcome());
        let reconfigure =
            |directory: &PathBuf| records.commit(records.prepare(&log(Some(directory.clone()))).unwrap());
        reconfigure(&first);
        records.push(probe(), outcome());
        reconfigure(&first);
        records.push(probe(), outcome());

        let taken = directory.path().join("taken");
        fs::write(&taken, "").unwrap();
        records.prepare(&log(Some(taken))).unwrap_err();
        records.push(probe(), outcome());
        assert!(!second.exists());

        // A change that is prepared but not committed has no effect.
        drop(records.prepare(&log(Some(second.clone()))).unwrap());
        records.push(probe(), outcome());
        reconfigure(&second);
        records.push(probe(), outcome());
        records.stop(TEST_TIMEOUT);
        assert_eq!(
            lines(&first).len(),
            4,
            "all records since there is a directory, including those of the replaced queue"
        );
        assert_eq!(lines(&second).len(), 1);
        let counters = records.counters();
        assert_eq!(counters.written.load(Ordering::Relaxed), 5, "{counters:?}");
    }

    #[test]
    fn records_given_are_written_dropped_or_failed() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log { max_file_size: 10_000, ..log(Some(directory.path().to_owned())) };
        let records = Records::start(&log).unwrap();
        let (probe, outcome) = (probe(), outcome());
        for _ in 0..20_000 {
            records.push(Arc::clone(&probe), Arc::clone(&outcome));
        }
        records.stop(TEST_TIMEOUT);
        let counters = records.counters();
        let [written, dropped, errors] =
            [&counters.written, &counters.dropped, &counters.errors].map(|c| c.load(Ordering::Relaxed));
        assert_eq!(written + dropped + errors, 20_000, "{counters:?}");
        assert_eq!(lines(directory.path()).len() as u64, written);
        assert!(written > 0 && dropped > 0, "{counters:?}");
    }
}
