//! A file with hourly or daily rotation that recovers from full, missing and unwritable disks.
//!
//! tracing-appender opens and writes the file of each period. Rotation is done here, with a new
//! appender, because an appender that rotates by itself reports errors only with `eprintln!`, which
//! panics or blocks if standard error is broken, and then continues in the old file. Counting, size
//! limits and recovery are also done here.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, DirBuilder, Metadata, OpenOptions},
    io::{self, Write},
    mem,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use tracing_appender::rolling::{RollingFileAppender, Rotation};

use super::{
    compress::{Compressor, EXTENSION, PARTIAL},
    queue::WriteResult,
};

/// Delay before a failed file is retried, and interval at which an open file is checked for
/// replacement.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Location, naming, number and size of the files of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// Directory of the files. It is created, readable for the group, if it is missing.
    pub directory: PathBuf,
    /// Prefix of the file names: `PREFIX.2026-11-22`, or `PREFIX.2026-11-22-08` with hourly
    /// rotation.
    pub prefix: &'static str,
    /// Rotation period.
    pub period: Period,
    /// Number of files to keep, including the current one.
    pub max_files: usize,
    /// Maximum size of a file in bytes. Further lines of the period are dropped.
    pub max_size: u64,
    /// Whether files of earlier periods are compressed.
    pub compress: bool,
}

/// Rotation period, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// On the hour.
    Hour,
    /// At midnight.
    Day,
}

/// Failure to open a file during a reload.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {}: {source}; {}", path.display(), self.remedy())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

impl OpenError {
    /// Returns the remedy. Under systemd, a read-only directory is one outside of the unit's
    /// sandbox.
    fn remedy(&self) -> String {
        match (self.source.kind(), self.path.parent()) {
            (io::ErrorKind::ReadOnlyFilesystem, Some(directory)) => format!(
                "under systemd, add ReadWritePaths={} under [Service] with: systemctl edit langmart-prober",
                directory.display()
            ),
            _ => "grant the prober's user write access, or set log.directory to another directory".to_owned(),
        }
    }
}

/// The current file of one kind.
#[derive(Debug)]
pub struct RollingFile {
    files: LogFiles,
    current: Option<Current>,
    /// Earliest time of the next attempt to open the file. `None` means immediately.
    retry_at: Option<Instant>,
    /// Whether the last write succeeded.
    healthy: bool,
    compressor: Compressor,
}

/// An open file.
#[derive(Debug)]
struct Current {
    appender: RollingFileAppender,
    path: PathBuf,
    /// Device and inode of the open file, which stay the same if the path is moved.
    identity: (u64, u64),
    period: u64,
    size: u64,
    /// Whether the last line is incomplete, because an earlier write was cut short.
    torn: bool,
    /// Whether old files have been removed.
    old_removed: bool,
    /// Whether the size limit has been logged.
    full: bool,
    checked_at: Instant,
}

impl RollingFile {
    /// Creates a file that is opened with the first line, so that an unwritable directory loses
    /// lines but does not prevent the start.
    pub fn new(files: LogFiles) -> Self {
        Self { files, current: None, retry_at: None, healthy: true, compressor: Compressor::default() }
    }

    /// Opens the file of the current period, so that a reload fails early. Old files are removed
    /// with the first line only, so that a rejected configuration removes nothing.
    pub fn open(files: LogFiles) -> Result<Self, OpenError> {
        Self::open_at(files, SystemTime::now(), Instant::now())
    }

    fn open_at(files: LogFiles, time: SystemTime, now: Instant) -> Result<Self, OpenError> {
        match Current::open(&files, time, now) {
            Ok(current) => Ok(Self { current: Some(current), ..Self::new(files) }),
            Err(source) => Err(OpenError { path: files.path(time), source }),
        }
    }

    /// Writes one line, which must end with its only newline.
    pub fn write(&mut self, line: &[u8]) -> WriteResult {
        self.write_at(line, SystemTime::now(), Instant::now())
    }

    fn write_at(&mut self, line: &[u8], time: SystemTime, now: Instant) -> WriteResult {
        if self.retry_at.is_some_and(|retry_at| now < retry_at) {
            return WriteResult::Failed;
        }
        match self.try_write(line, time, now) {
            Ok(result) => {
                self.retry_at = None;
                if result == WriteResult::Written && !self.healthy {
                    self.healthy = true;
                    tracing::info!(file = %self.files.path(time).display(), "File writable again");
                }
                result
            }
            Err(error) => {
                if let Some(current) = &self.current {
                    current.remove_torn(line.len());
                }
                // Reopen the file: this recovers from a full disk or a stale mount, and detects an
                // incomplete line.
                self.current = None;
                self.retry_at = Some(now + RETRY_INTERVAL);
                if self.healthy {
                    self.healthy = false;
                    tracing::warn!(file = %self.files.path(time).display(), %error, "Failed to write file");
                }
                WriteResult::Failed
            }
        }
    }

    fn try_write(&mut self, line: &[u8], time: SystemTime, now: Instant) -> io::Result<WriteResult> {
        let period = self.files.period.index(time);
        let open = |current: &mut Current| current.period == period && current.is_current(now);
        if !self.current.as_mut().is_some_and(open) {
            self.current = Some(Current::open(&self.files, time, now)?);
        }
        let current = self.current.as_mut().expect("opened just above where it was not");
        if !mem::replace(&mut current.old_removed, true) {
            current.remove_old(&self.files);
            if self.files.compress {
                self.compressor.start(current.earlier_files(&self.files));
            }
        }
        current.write(line, self.files.max_size)
    }
}

impl LogFiles {
    fn path(&self, time: SystemTime) -> PathBuf {
        self.directory.join(self.name(time))
    }

    fn name(&self, time: SystemTime) -> String {
        let format = match self.period {
            Period::Hour => "%Y-%m-%d-%H",
            Period::Day => "%Y-%m-%d",
        };
        // A time outside the calendar is replaced by the epoch, so that writing continues.
        let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{}.{}", self.prefix, time.strftime(format))
    }

    /// Returns whether a file name belongs to this kind of file, with hourly or daily rotation,
    /// compressed or not, or partly.
    fn matches(&self, name: &str) -> bool {
        let date = name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.'));
        let original = |date| str::strip_suffix(date, EXTENSION).or_else(|| date.strip_suffix(PARTIAL));
        date.map(|date| original(date).unwrap_or(date)).is_some_and(|date| {
            let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            shape == "0000-00-00" || shape == "0000-00-00-00"
        })
    }
}

impl Period {
    /// Returns the number of the period since the Unix epoch.
    fn index(self, time: SystemTime) -> u64 {
        let seconds = match self {
            Self::Hour => 3600,
            Self::Day => 86400,
        };
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / seconds)
    }
}

impl Current {
    fn open(files: &LogFiles, time: SystemTime, now: Instant) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o750).create(&files.directory)?;
        let path = files.path(time);
        // The file is created here because an appender leaves the mode to the umask and cannot
        // read. If the path is replaced before the appender opens it, the next check detects that:
        // this descriptor is open until then, so its inode is not reused.
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        let metadata = file.metadata()?;
        let size = metadata.len();
        let mut last = [b'\n'];
        if let Some(end) = size.checked_sub(1) {
            file.read_exact_at(&mut last, end)?;
        }
        // `NEVER`, because any other rotation reads the clock again in each write and may rotate
        // there.
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
            old_removed: false,
            full: false,
            checked_at: now,
        })
    }

    /// Checks once a second whether the path still refers to this file. Lines written to a file
    /// that was removed or moved would be lost unnoticed.
    fn is_current(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.checked_at) < RETRY_INTERVAL {
            return true;
        }
        self.checked_at = now;
        fs::metadata(&self.path).is_ok_and(|there| identity(&there) == self.identity)
    }

    fn write(&mut self, line: &[u8], max_size: u64) -> io::Result<WriteResult> {
        if self.size + u64::from(self.torn) + line.len() as u64 > max_size {
            if !self.full {
                self.full = true;
                tracing::warn!(file = %self.path.display(), max_size, "File reached its size limit; lines are dropped until the next rotation");
            }
            return Ok(WriteResult::Dropped);
        }
        if self.torn {
            self.appender.write_all(b"\n")?;
            self.size += 1;
            self.torn = false;
        }
        self.appender.write_all(line)?;
        self.size += line.len() as u64;
        Ok(WriteResult::Written)
    }

    /// Truncates what was written of a line of that length before an error. If this fails, or the
    /// end of the file may belong to another writer, the fragment stays, and the next line starts
    /// after a newline.
    fn remove_torn(&self, length: usize) {
        let Ok(file) = OpenOptions::new().write(true).open(&self.path) else { return };
        let torn = |there: Metadata| {
            identity(&there) == self.identity
                && (1..=length as u64).contains(&(there.len() - self.size.min(there.len())))
        };
        if file.metadata().is_ok_and(torn) {
            // The next check of the file detects a failure.
            let _ = file.set_len(self.size);
        }
    }

    /// Removes the oldest files of the kind, by name, until `max_files` are left. Files of later
    /// periods, which a wrong clock has created, are counted separately: if the current clock is
    /// the wrong one, these are the right files.
    ///
    /// The appender's `max_log_files` is not used: it matches any file with the prefix, orders by
    /// creation time, counts the current file as an old one (so that with one file a restart erases
    /// it), and reports errors with `eprintln!`.
    fn remove_old(&self, files: &LogFiles) {
        let (earlier, later) = self.other_names(files);
        let surplus = |names: &[String]| (names.len() + 1).saturating_sub(files.max_files);
        for name in earlier.iter().take(surplus(&earlier)).chain(later.iter().take(surplus(&later))) {
            // With what a compression that was interrupted left of it.
            for (name, is_left) in [(name.clone(), false), (format!("{name}{PARTIAL}"), true)] {
                let path = files.directory.join(name);
                match fs::remove_file(&path) {
                    Err(error) if is_left && error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        tracing::warn!(file = %path.display(), %error, "Failed to remove old file");
                    }
                    Ok(()) => {}
                }
            }
        }
    }

    /// Returns the names of the other files of the kind, in order: those before this file, and
    /// those after it. A partly compressed file is one of them only if its original is gone.
    fn other_names(&self, files: &LogFiles) -> (Vec<String>, Vec<String>) {
        let Ok(entries) = fs::read_dir(&files.directory) else { return (Vec::new(), Vec::new()) };
        let names: BTreeSet<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| files.matches(name))
            .collect();
        let is_other = |name: &&String| {
            let original = name.strip_suffix(PARTIAL);
            Some(OsStr::new(name)) != self.path.file_name()
                && original.is_none_or(|original| !names.contains(original))
        };
        names
            .iter()
            .filter(is_other)
            .cloned()
            .partition(|name| Some(OsStr::new(name)) < self.path.file_name())
    }

    /// Returns the paths of the files before this one that are not compressed, or whose compression
    /// was interrupted after they had been removed.
    fn earlier_files(&self, files: &LogFiles) -> Vec<PathBuf> {
        let (earlier, _) = self.other_names(files);
        let uncompressed = earlier.into_iter().filter(|name| !name.ends_with(EXTENSION));
        uncompressed.map(|name| files.directory.join(name.trim_end_matches(PARTIAL))).collect()
    }
}

/// Returns the device and inode, which are unique while the file is open.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests;
