//! `results.jsonl`: one line for each run, written on a thread of its own.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::{
    config::{Log, Probe, Rotation},
    lines::{Counters, Fate, Files, Lines, OpenError, Period, RollingFile},
    outcome::{Outcome, Record},
};

/// The writing half.
#[derive(Debug)]
pub struct Records {
    /// `None`: the configuration has no directory, and records are not kept.
    current: RwLock<Option<(Files, Lines<Given>)>>,
    counters: Counters,
}

/// A finished run, as it waits in the queue.
type Given = (Arc<Probe>, Arc<Outcome>);

/// Why records cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The directory cannot be made or written.
    #[error(transparent)]
    File(#[from] OpenError),
    /// No thread can be had.
    #[error("cannot start writing records: {0}")]
    Thread(#[from] io::Error),
}

impl Records {
    /// Opens the file and starts the thread, where the configuration has a directory.
    pub fn start(log: &Log) -> Result<Self, RecordsError> {
        let records = Self { current: RwLock::new(None), counters: Counters::default() };
        records.reconfigure(log)?;
        Ok(records)
    }

    /// Follows a reloaded configuration, or changes nothing. Opens files: not for a thread that times probes.
    pub fn reconfigure(&self, log: &Log) -> Result<(), RecordsError> {
        let files = files(log);
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().map(|(files, _)| files) == files.as_ref() {
            return Ok(());
        }
        drop(current);
        let opened = files.map(|files| self.open(files)).transpose()?;
        // The old thread writes what it has queued and ends by itself.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(())
    }

    /// Takes a record without ever waiting: one for which there is no room is dropped and counted.
    pub fn give(&self, probe: Arc<Probe>, outcome: Arc<Outcome>) {
        if let Some((_, lines)) = &*self.current.read().unwrap_or_else(PoisonError::into_inner) {
            lines.give((probe, outcome));
        }
    }

    /// Counters that go on over reloads.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Writes what is queued, within the deadline, and takes no more records.
    pub fn stop(&self, deadline: Duration) {
        if let Some((_, lines)) = &*self.current.read().unwrap_or_else(PoisonError::into_inner) {
            lines.stop(deadline);
        }
    }

    fn open(&self, files: Files) -> Result<(Files, Lines<Given>), RecordsError> {
        let mut file = RollingFile::open(files.clone())?;
        let mut line = Vec::new();
        let lines = Lines::start("records", self.counters.clone(), move |(probe, outcome): Given| {
            line.clear();
            let record = Record { subject: probe.subject(), outcome: &outcome };
            if serde_json::to_writer(&mut line, &record).is_err() {
                return Fate::Failed;
            }
            line.push(b'\n');
            file.write(&line)
        })?;
        Ok((files, lines))
    }
}

fn files(log: &Log) -> Option<Files> {
    Some(Files {
        directory: log.directory.clone()?,
        prefix: "results.jsonl",
        period: match log.rotation {
            Rotation::Hourly => Period::Hour,
            Rotation::Daily => Period::Day,
        },
        max_files: log.max_files,
        max_size: log.max_file_size,
    })
}
