//! A file that rolls by the hour or day and outlives full, vanished and unwritable disks.
//!
//! tracing-appender opens and writes each period's file. When the next one begins is decided here, with a new appender:
//! one that rolls over by itself tells nobody but standard error, by `eprintln!`, that it could not, which panics or
//! blocks where that is broken too, and it goes on in the old file. Counting, limits and healing are ours as well.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, Metadata, OpenOptions},
    io::{self, Write},
    mem,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use tracing_appender::rolling::{RollingFileAppender, Rotation};

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

/// A file that cannot be opened for a reload.
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
    appender: RollingFileAppender,
    path: PathBuf,
    /// Which file is written to, whatever the path is by now.
    identity: (u64, u64),
    period: u64,
    size: u64,
    /// Its last line has no end: a write before this one was cut short.
    torn: bool,
    /// The old files of the kind were removed.
    alone: bool,
    /// It was said that it is at its size limit.
    full: bool,
    looked_at: Instant,
}

impl RollingFile {
    /// A file that is opened with the first line: a directory that cannot be written fails lines, and not the start.
    pub fn new(files: Files) -> Self {
        Self { files, current: None, retry_at: None, healthy: true }
    }

    /// Opens the current period's file, so that a reload finds what will not work later. Old files go with the first line, so
    /// that a configuration that is refused after all has removed nothing.
    pub fn open(files: Files) -> Result<Self, OpenError> {
        Self::open_at(files, SystemTime::now(), Instant::now())
    }

    fn open_at(files: Files, time: SystemTime, now: Instant) -> Result<Self, OpenError> {
        match Current::open(&files, time, now) {
            Ok(current) => Ok(Self { current: Some(current), ..Self::new(files) }),
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
                if let Some(current) = &self.current {
                    current.remove_torn(line.len());
                }
                // A new descriptor heals what a full disk or a stale mount did, and finds the torn line.
                self.current = None;
                self.retry_at = Some(now + PAUSE);
                if self.healthy {
                    self.healthy = false;
                    tracing::warn!(file = %self.files.path(time).display(), %error, "File cannot be written");
                }
                Fate::Failed
            }
        }
    }

    fn try_write(&mut self, line: &[u8], time: SystemTime, now: Instant) -> io::Result<Fate> {
        let period = self.files.period.index(time);
        let open = |current: &mut Current| current.period == period && current.still_there(now);
        if !self.current.as_mut().is_some_and(open) {
            self.current = Some(Current::open(&self.files, time, now)?);
        }
        let current = self.current.as_mut().expect("opened just above where it was not");
        if !mem::replace(&mut current.alone, true) {
            current.remove_old(&self.files);
        }
        current.write(line, self.files.max_size)
    }
}

impl Files {
    fn path(&self, time: SystemTime) -> PathBuf {
        self.directory.join(self.name(time))
    }

    fn name(&self, time: SystemTime) -> String {
        let format = match self.period {
            Period::Hour => "%Y-%m-%d-%H",
            Period::Day => "%Y-%m-%d",
        };
        // A clock beyond the calendar is put at its beginning: what counts is that writing goes on.
        let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{}.{}", self.prefix, time.strftime(format))
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
        // An appender leaves the mode to the umask and cannot read, so the file is there before it. Should another take
        // its place meanwhile, the next look sees it: this one is open until the appender is, so its inode is not reused.
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        let metadata = file.metadata()?;
        let size = metadata.len();
        let mut last = [b'\n'];
        if let Some(end) = size.checked_sub(1) {
            file.read_exact_at(&mut last, end)?;
        }
        // Never, since any other rotation reads the clock again in each write and may roll over there.
        let appender = RollingFileAppender::builder()
            .rotation(Rotation::NEVER)
            .filename_prefix(files.name(time))
            .build(&files.directory)
            .map_err(io::Error::other)?;
        Ok(Self {
            appender,
            path,
            identity: identity(&metadata),
            period: files.period.index(time),
            size,
            torn: last != [b'\n'],
            alone: false,
            full: false,
            looked_at: now,
        })
    }

    /// Looks once a second whether the path is still this file: one that was removed or moved away would be written
    /// to for ever without anybody seeing it.
    fn still_there(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked_at) < PAUSE {
            return true;
        }
        self.looked_at = now;
        fs::metadata(&self.path).is_ok_and(|there| identity(&there) == self.identity)
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
            self.appender.write_all(b"\n")?;
            self.size += 1;
            self.torn = false;
        }
        self.appender.write_all(line)?;
        self.size += line.len() as u64;
        Ok(Fate::Written)
    }

    /// Cuts off what was written of a line of that length before an error. Where that fails too, or it is not certain
    /// that the end is ours, it stays, and the next line begins behind a newline.
    fn remove_torn(&self, length: usize) {
        let Ok(file) = OpenOptions::new().write(true).open(&self.path) else { return };
        let torn = |there: Metadata| {
            identity(&there) == self.identity
                && (1..=length as u64).contains(&(there.len() - self.size.min(there.len())))
        };
        if file.metadata().is_ok_and(torn) {
            // The next look at the file shows what came of it.
            let _ = file.set_len(self.size);
        }
    }

    /// Removes the oldest files of the kind, by their names, until as many as wanted are left. Files of later periods,
    /// which a clock has begun that was wrong, are neither counted nor removed before there are as many of them: were it
    /// this clock that is wrong, they would be the right ones.
    ///
    /// Not by the appender's `max_log_files`: that takes whatever begins with the prefix, goes by the time of creation,
    /// counts the current file as an old one (at most one file: a restart erases it), and fails by `eprintln!`.
    fn remove_old(&self, files: &Files) {
        let Ok(entries) = fs::read_dir(&files.directory) else { return };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| files.owns(name) && Path::new(name).file_name() != self.path.file_name())
            .collect();
        names.sort_unstable();
        let (earlier, later): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| Some(OsStr::new(name)) < self.path.file_name());
        let surplus = |names: &[String]| (names.len() + 1).saturating_sub(files.max_files);
        for name in earlier.iter().take(surplus(&earlier)).chain(later.iter().take(surplus(&later))) {
            let path = files.directory.join(name);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "Old file cannot be removed");
            }
        }
    }
}

/// Device and inode: unique as long as the file is open.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests;
