//! Installs the tracing subscriber and applies reloaded settings to it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, IsTerminal, Write},
    mem,
    os::{fd::AsFd, unix::fs::MetadataExt},
    panic,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::ParseError,
    layer::{Context, SubscriberExt},
    reload,
};

use super::line::{Line, TextStyle};
use crate::{
    config::{Log, LogFormat, Rotation},
    line_writer::{
        Counters, DrainingWriters, LineWriter, LogFiles, OpenError, Period, RollingFile, WriteResult,
    },
    sync::RwLock,
};

/// Prefix of the targets of this crate's events.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// The running log.
#[derive(Debug)]
pub struct Logging {
    shared: Arc<Shared>,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Kind of standard error. The caller determines it: this module reads no environment variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StderrKind {
    /// Whether standard error is the journal's socket. Text then carries priorities and no
    /// timestamps.
    pub journal: bool,
    /// Whether standard error shows colours.
    pub colour: bool,
}

impl StderrKind {
    /// Determines the kind of this process' standard error from the values of `JOURNAL_STREAM`
    /// (systemd.exec(5): device and inode of the journal's socket) and `NO_COLOR`.
    pub fn detect(journal_stream: Option<&OsStr>, no_color: Option<&OsStr>) -> Self {
        let identity = standard_error().and_then(|file| file.metadata());
        Self {
            // A child of a service inherits the variable but may have another standard error.
            journal: identity.is_ok_and(|is| {
                journal_stream.is_some_and(|stream| stream == format!("{}:{}", is.dev(), is.ino()).as_str())
            }),
            colour: io::stderr().is_terminal() && no_color.is_none_or(OsStr::is_empty),
        }
    }
}

/// Failure to start or reconfigure logging.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.level` is not a valid filter.
    #[error("log.level is not a valid filter: {0}")]
    Filter(#[from] ParseError),
    /// The log directory cannot be created or written.
    #[error(transparent)]
    File(#[from] OpenError),
    /// A thread or a copy of standard error could not be created.
    #[error("cannot start logging: {0}")]
    System(#[from] io::Error),
    /// The process already has a subscriber.
    #[error("logging was started twice")]
    Twice,
}

/// A prepared change of the log: parsed and opened, but without effect until it is committed.
#[derive(Debug)]
pub struct LoggingChange {
    filter: EnvFilter,
    change: Change,
}

/// Line counters for the metrics.
#[derive(Clone, Debug, Default)]
pub struct LoggingCounters {
    /// Lines of `prober.log`; all zero without a directory.
    pub file: Counters,
    /// Lines written to standard error.
    pub stderr: Counters,
}

impl Logging {
    /// Installs the subscriber for the whole process, and a panic hook that logs.
    pub fn start(log: &Log, stderr_kind: StderrKind) -> Result<Self, LoggingError> {
        let (logging, dispatch) = Self::prepare(log, stderr_kind, standard_error()?)?;
        dispatcher::set_global_default(dispatch).map_err(|_| LoggingError::Twice)?;
        panic::set_hook(Box::new(log_panic));
        Ok(logging)
    }

    /// Prepares everything except the installation, so that a test can have a log of its own.
    fn prepare(log: &Log, stderr_kind: StderrKind, stderr: File) -> Result<(Self, Dispatch), LoggingError> {
        let (filter_layer, filter) = reload::Layer::new(EnvFilter::try_new(&log.filter)?);
        let counters = LoggingCounters::default();
        let outputs = Outputs { format: log.format, stderr: None, file: None };
        let (outputs, draining) = (RwLock::new(outputs), DrainingWriters::default());
        let shared = Arc::new(Shared { stderr_kind, stderr, counters, outputs, draining });
        // An unwritable file loses lines, which are counted, but does not prevent the start.
        shared.commit(shared.prepare(log, |files| Ok(RollingFile::new(files)))?);
        let printer = Printer(Arc::clone(&shared));
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(filter_layer).with(printer));
        Ok((Self { shared, filter }, dispatch))
    }

    /// Performs the steps of a reload that can fail. Opens files, so it must not run on a thread
    /// with deadlines.
    pub fn prepare_change(&self, log: &Log) -> Result<LoggingChange, LoggingError> {
        let filter = EnvFilter::try_new(&log.filter)?;
        Ok(LoggingChange { filter, change: self.shared.prepare(log, RollingFile::open)? })
    }

    /// Applies a prepared change.
    pub fn commit(&self, change: LoggingChange) {
        let LoggingChange { filter, change } = change;
        self.shared.commit(change);
        // It fails only if the subscriber is gone.
        let _ = self.filter.reload(filter);
    }

    /// Returns the counters, which continue across reloads.
    pub fn counters(&self) -> LoggingCounters {
        self.shared.counters.clone()
    }

    /// Closes the log and writes the queued lines, up to the deadline.
    pub fn stop(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        let outputs = self.shared.outputs.read();
        let files = outputs.file.as_ref().map(|(_, lines)| lines);
        for lines in outputs.stderr.iter().chain(files) {
            lines.stop(end.saturating_duration_since(Instant::now()));
        }
        self.shared.draining.stop(end);
    }
}

#[derive(Debug)]
struct Shared {
    stderr_kind: StderrKind,
    stderr: File,
    counters: LoggingCounters,
    outputs: RwLock<Outputs>,
    draining: DrainingWriters<Vec<u8>>,
}

/// Outputs of a new configuration.
#[derive(Debug)]
struct Change {
    format: LogFormat,
    /// Whether lines go to standard error, and its writer if there was none before.
    to_stderr: bool,
    stderr: Option<LineWriter<Vec<u8>>>,
    /// Whether lines go to files, and their writer if the files have changed.
    to_files: bool,
    file: Option<(LogFiles, LineWriter<Vec<u8>>)>,
}

/// Outputs in use. A replaced writer finishes its queue and ends by itself.
#[derive(Debug)]
struct Outputs {
    format: LogFormat,
    stderr: Option<LineWriter<Vec<u8>>>,
    file: Option<(LogFiles, LineWriter<Vec<u8>>)>,
}

impl Shared {
    fn prepare(
        &self,
        log: &Log,
        open: impl Fn(LogFiles) -> Result<RollingFile, OpenError>,
    ) -> Result<Change, LoggingError> {
        let (old_stderr, old_files) = {
            let outputs = self.outputs.read();
            (outputs.stderr.is_some(), outputs.file.as_ref().map(|(files, _)| files.clone()))
        };
        let new_files = files(log);
        let opened = match &new_files {
            Some(files) if old_files.as_ref() != Some(files) => {
                Some((files.clone(), self.write_file(open(files.clone())?)?))
            }
            _ => None,
        };
        let started = if log.stderr && !old_stderr { Some(self.write_stderr()?) } else { None };
        Ok(Change {
            format: log.format,
            to_stderr: log.stderr,
            stderr: started,
            to_files: new_files.is_some(),
            file: opened,
        })
    }

    /// Applies all parts of a change.
    fn commit(&self, change: Change) {
        let Change { format, to_stderr, stderr, to_files, file } = change;
        let mut replaced = Vec::new();
        let mut outputs = self.outputs.write();
        outputs.format = format;
        if stderr.is_some() || !to_stderr {
            replaced.extend(mem::replace(&mut outputs.stderr, stderr));
        }
        if file.is_some() || !to_files {
            replaced.extend(mem::replace(&mut outputs.file, file).map(|(_, lines)| lines));
        }
        drop(outputs);
        for lines in replaced {
            self.draining.add(lines);
        }
    }

    fn write_file(&self, mut file: RollingFile) -> io::Result<LineWriter<Vec<u8>>> {
        let counters = self.counters.file.clone();
        LineWriter::start("log-file", counters, Duration::ZERO, move |line: Vec<u8>| file.write(&line))
    }

    fn write_stderr(&self) -> io::Result<LineWriter<Vec<u8>>> {
        let mut stderr = self.stderr.try_clone()?;
        let mut torn = false;
        LineWriter::start(
            "log-stderr",
            self.counters.stderr.clone(),
            Duration::ZERO,
            move |mut line: Vec<u8>| {
                if torn {
                    line.insert(0, b'\n');
                }
                torn = stderr.write_all(&line).is_err();
                if torn { WriteResult::Failed } else { WriteResult::Written }
            },
        )
    }

    fn print(&self, line: &Line) {
        let outputs = self.outputs.read();
        let StderrKind { journal, colour } = self.stderr_kind;
        let render = |style: TextStyle| match outputs.format {
            LogFormat::Text => line.text(style),
            // The journal strips the priority and keeps the object.
            LogFormat::Json if style.journal => {
                [format!("<{}>", line.priority()).into_bytes(), line.json()].concat()
            }
            LogFormat::Json => line.json(),
        };
        if let Some(stderr) = &outputs.stderr {
            stderr.push(render(TextStyle { journal, colour }));
        }
        if let Some((_, file)) = &outputs.file {
            file.push(render(TextStyle::default()));
        }
    }
}

/// The layer behind the filter.
struct Printer(Arc<Shared>);

impl<S: Subscriber> Layer<S> for Printer {
    /// Limits libraries to warnings, regardless of the filter: below that level they log headers,
    /// and with them keys and text from the network.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Level::WARN || is_ours(metadata.target())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.print(&Line::new(event, SystemTime::now()));
    }
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn files(log: &Log) -> Option<LogFiles> {
    Some(LogFiles {
        directory: log.directory.clone()?,
        prefix: "prober.log",
        period: match log.rotation {
            Rotation::Hourly => Period::Hour,
            Rotation::Daily => Period::Day,
        },
        max_files: log.max_files,
        max_size: log.max_file_size,
        compress: log.compress,
    })
}

/// Duplicates standard error, because the standard library's handle has a lock that a thread
/// blocked in a full pipe would hold.
fn standard_error() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// Logs a panic. Its message is logged only if it is a literal, because formatted messages may
/// quote response text.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let cause = panic.payload().downcast_ref::<&'static str>();
    tracing::error!(location, cause, "Panicked");
}

#[cfg(test)]
mod tests;
