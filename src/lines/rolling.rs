//! A file that rolls by the hour or day and outlives full, vanished and unwritable disks.
//!
//! tracing-appender's rolling file is not used: on just those disks it writes to standard error by `eprintln!`, which
//! panics or blocks where that is broken too, and it tells neither its path nor its errors, size or clock.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::queue::Fate;

/// How long a file that failed is left alone, and how often one is looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the files of one kind are, and how many and how large they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Created, readable for the group, if it is missing.
    pub directory: PathBuf,
    /// The names are `PREFIX.2026-11-22`, or `PREFIX.2026-11-22-08` by the hour.
    pub prefix: &'static str,
    /// When a new file begins.
    pub period: Period,
    /// How many are kept, the current one included.
    pub max_files: usize,
    /// Bytes beyond which lines of the period are dropped.
    pub max_size: u64,
}

/// When a new file begins, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// On the hour.
    Hour,
    /// At midnight.
    Day,
}

/// A file that cannot be opened at start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot open {}: {source}; give the prober's user the right to write there, or set log.directory to another directory",
    path.display()
)]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// The current file of one kind.
#[derive(Debug)]
pub struct RollingFile {
    files: Files,
    current: Option<Current>,
    /// No attempt to open before it; `None`: at once.
    retry_at: Option<Instant>,
    /// The last attempt to write succeeded.
    healthy: bool,
}

/// An open file.
#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    period: u64,
    size: u64,
    /// Its last line has no end: a write before this one was cut short.
    torn: bool,
    /// It was said that it is at its size limit.
    full: bool,
    looked_at: Instant,
}

impl RollingFile {
    /// Opens the current period's file, to find at start what will not work later.
    pub fn open(files: Files) -> Result<Self, OpenError> {
        Self::open_at(files, SystemTime::now(), Instant::now())
    }

    fn open_at(files: Files, time: SystemTime, now: Instant) -> Result<Self, OpenError> {
        match Current::open(&files, time, now) {
            Ok(current) => {
                current.remove_old(&files);
                Ok(Self { files, current: Some(current), retry_at: None, healthy: true })
            }
            Err(source) => Err(OpenError { path: files.path(time), source }),
        }
    }

    /// Writes one line, which ends with its only newline.
    pub fn write(&mut self, line: &[u8]) -> Fate {
        self.write_at(line, SystemTime::now(), Instant::now())
    }

    fn write_at(&mut self, line: &[u8], time: SystemTime, now: Instant) -> Fate {
        if self.retry_at.is_some_and(|retry_at| now < retry_at) {
            return Fate::Failed;
        }
        match self.try_write(line, time, now) {
            Ok(fate) => {
                self.retry_at = None;
                if fate == Fate::Written && !self.healthy {
                    self.healthy = true;
                    tracing::info!(file = %self.files.path(time).display(), "File is written again");
                }
                fate
            }
            Err(error) => {
                // A new descriptor heals what a full disk or a stale mount did, and finds the torn line.
                self.current = None;
                self.retry_at = Some(now + PAUSE);
                if self.healthy {
                    self.healthy = false;
                    tracing::error!(file = %self.files.path(time).display(), %error, "File cannot be written");
                }
                Fate::Failed
            }
        }
    }

    fn try_write(&mut self, line: &[u8], time: SystemTime, now: Instant) -> io::Result<Fate> {
        let period = self.files.period.index(time);
        let open = |current: &mut Current| current.period == period && current.still_there(now);
        if !self.current.as_mut().is_some_and(open) {
            let current = Current::open(&self.files, time, now)?;
            current.remove_old(&self.files);
            self.current = Some(current);
        }
        let current = self.current.as_mut().expect("opened just above where it was not");
        current.write(line, self.files.max_size)
    }
}

impl Files {
    fn path(&self, time: SystemTime) -> PathBuf {
        let format = match self.period {
            Period::Hour => "%Y-%m-%d-%H",
            Period::Day => "%Y-%m-%d",
        };
        // A clock beyond the calendar is put at its beginning: what counts is that writing goes on.
        let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        self.directory.join(format!("{}.{}", self.prefix, time.strftime(format)))
    }

    /// Whether a file name is one of ours, by the hour or day.
    fn owns(&self, name: &str) -> bool {
        let date = name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.'));
        date.is_some_and(|date| {
            let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            shape == "0000-00-00" || shape == "0000-00-00-00"
        })
    }
}

impl Period {
    /// Numbers the periods since the Unix epoch.
    fn index(self, time: SystemTime) -> u64 {
        let seconds = match self {
            Self::Hour => 3600,
            Self::Day => 86400,
        };
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / seconds)
    }
}

impl Current {
    fn open(files: &Files, time: SystemTime, now: Instant) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o750).create(&files.directory)?;
        let path = files.path(time);
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        let size = file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(end) = size.checked_sub(1) {
            file.read_exact_at(&mut last, end)?;
        }
        let period = files.period.index(time);
        Ok(Self { file, path, period, size, torn: last != [b'\n'], full: false, looked_at: now })
    }

    /// Looks once a second whether the path is still this file: one that was removed or moved away would be written
    /// to for ever without anybody seeing it.
    fn still_there(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked_at) < PAUSE {
            return true;
        }
        self.looked_at = now;
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    fn write(&mut self, line: &[u8], max_size: u64) -> io::Result<Fate> {
        if self.size + u64::from(self.torn) + line.len() as u64 > max_size {
            if !self.full {
                self.full = true;
                tracing::warn!(file = %self.path.display(), max_size, "File is full until the next begins");
            }
            return Ok(Fate::Dropped);
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.size += 1;
            self.torn = false;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(Fate::Written)
    }

    /// Removes the oldest files of the kind, by their names, until as many as wanted are left.
    fn remove_old(&self, files: &Files) {
        let Ok(entries) = fs::read_dir(&files.directory) else { return };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| files.owns(name) && Path::new(name).file_name() != self.path.file_name())
            .collect();
        names.sort_unstable();
        let surplus = (names.len() + 1).saturating_sub(files.max_files);
        for name in names.into_iter().take(surplus) {
            let path = files.directory.join(name);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "Old file cannot be removed");
            }
        }
    }
}
