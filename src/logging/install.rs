//! Installs the tracing subscriber, once, and changes over a reload what can change.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, IsTerminal, Write},
    mem,
    os::{fd::AsFd, unix::fs::MetadataExt},
    panic,
    sync::{Arc, PoisonError, RwLock},
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
    lines::{Counters, Fate, Files, Lines, OpenError, Period, Retired, RollingFile},
};

/// The target of our own events begins with the crate's name.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// The log, from its start to its stop.
#[derive(Debug)]
pub struct Logging {
    shared: Arc<Shared>,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// What standard error is, found by the caller: nothing here reads the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// It is the journal's: text carries priorities and no times.
    pub journal: bool,
    /// It shows colours.
    pub colour: bool,
}

impl Surroundings {
    /// Of this process' standard error, given the values of `JOURNAL_STREAM` (systemd.exec(5): device and inode of the
    /// journal's socket) and `NO_COLOR`; `None`: not set.
    pub fn of_standard_error(journal_stream: Option<&OsStr>, no_color: Option<&OsStr>) -> Self {
        let identity = standard_error().and_then(|file| file.metadata());
        Self {
            // A service's child inherits the variable but may have another standard error.
            journal: identity.is_ok_and(|is| {
                journal_stream.is_some_and(|stream| stream == format!("{}:{}", is.dev(), is.ino()).as_str())
            }),
            colour: io::stderr().is_terminal() && no_color.is_none_or(OsStr::is_empty),
        }
    }
}

/// Why logging cannot start or change.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.level` is no filter.
    #[error("log.level is no filter: {0}")]
    Filter(#[from] ParseError),
    /// The directory cannot be made or written.
    #[error(transparent)]
    File(#[from] OpenError),
    /// No thread, or no copy of standard error, can be had.
    #[error("cannot start logging: {0}")]
    System(#[from] io::Error),
    /// The process has a subscriber already.
    #[error("logging was started twice")]
    Twice,
}

/// What a new configuration asks for, made ready: parsed and opened, and without any effect so far.
#[derive(Debug)]
pub struct LoggingChange {
    filter: EnvFilter,
    change: Change,
}

/// What became of the lines, for the metrics.
#[derive(Clone, Debug, Default)]
pub struct LoggingCounters {
    /// Lines of `prober.log`; all zero without a directory.
    pub file: Counters,
    /// Lines of standard error.
    pub stderr: Counters,
}

impl Logging {
    /// Installs the subscriber for the whole process, and a panic hook that logs.
    pub fn start(log: &Log, surroundings: Surroundings) -> Result<Self, LoggingError> {
        let (logging, dispatch) = Self::prepare(log, surroundings, standard_error()?)?;
        dispatcher::set_global_default(dispatch).map_err(|_| LoggingError::Twice)?;
        panic::set_hook(Box::new(log_panic));
        Ok(logging)
    }

    /// Everything but the installation, so that a test can have a log of its own.
    fn prepare(
        log: &Log,
        surroundings: Surroundings,
        stderr: File,
    ) -> Result<(Self, Dispatch), LoggingError> {
        let (filter_layer, filter) = reload::Layer::new(EnvFilter::try_new(&log.filter)?);
        let counters = LoggingCounters::default();
        let outputs = Outputs { format: log.format, stderr: None, file: None };
        let (outputs, retired) = (RwLock::new(outputs), Retired::default());
        let shared = Arc::new(Shared { surroundings, stderr, counters, outputs, retired });
        // A file that cannot be written loses lines, which are counted, and not the start.
        shared.commit(shared.prepare(log, |files| Ok(RollingFile::new(files)))?);
        let printer = Printer(Arc::clone(&shared));
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(filter_layer).with(printer));
        Ok((Self { shared, filter }, dispatch))
    }

    /// Does for a reloaded configuration whatever can fail. Opens files: not for a thread that has other things to do.
    pub fn prepare_change(&self, log: &Log) -> Result<LoggingChange, LoggingError> {
        let filter = EnvFilter::try_new(&log.filter)?;
        Ok(LoggingChange { filter, change: self.shared.prepare(log, RollingFile::open)? })
    }

    /// Follows what was prepared.
    pub fn commit(&self, change: LoggingChange) {
        let LoggingChange { filter, change } = change;
        self.shared.commit(change);
        // It fails only when the subscriber is gone, and then nobody logs.
        let _ = self.filter.reload(filter);
    }

    /// Counters that go on over reloads.
    pub fn counters(&self) -> LoggingCounters {
        self.shared.counters.clone()
    }

    /// Writes what is queued, within the deadline, and takes no more lines.
    pub fn stop(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        let outputs = self.shared.outputs.read().unwrap_or_else(PoisonError::into_inner);
        let files = outputs.file.as_ref().map(|(_, lines)| lines);
        for lines in outputs.stderr.iter().chain(files) {
            lines.stop(end.saturating_duration_since(Instant::now()));
        }
        self.shared.retired.stop(end);
    }
}

#[derive(Debug)]
struct Shared {
    surroundings: Surroundings,
    stderr: File,
    counters: LoggingCounters,
    outputs: RwLock<Outputs>,
    retired: Retired<Vec<u8>>,
}

/// The outputs of a new configuration; the files are those that it asks for.
#[derive(Debug)]
struct Change {
    format: LogFormat,
    /// Whether lines are to go to standard error, and the way there where there was none.
    to_stderr: bool,
    stderr: Option<Lines<Vec<u8>>>,
    /// Whether lines are to go to files, and the way there where they are others than before.
    to_files: bool,
    file: Option<(Files, Lines<Vec<u8>>)>,
}

/// Where lines go. What is replaced ends by itself after what it has queued.
#[derive(Debug)]
struct Outputs {
    format: LogFormat,
    stderr: Option<Lines<Vec<u8>>>,
    file: Option<(Files, Lines<Vec<u8>>)>,
}

impl Shared {
    fn prepare(
        &self,
        log: &Log,
        open: impl Fn(Files) -> Result<RollingFile, OpenError>,
    ) -> Result<Change, LoggingError> {
        let (old_stderr, old_files) = {
            let outputs = self.outputs.read().unwrap_or_else(PoisonError::into_inner);
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

    /// Everything at once.
    fn commit(&self, change: Change) {
        let Change { format, to_stderr, stderr, to_files, file } = change;
        let mut replaced = Vec::new();
        let mut outputs = self.outputs.write().unwrap_or_else(PoisonError::into_inner);
        outputs.format = format;
        if stderr.is_some() || !to_stderr {
            replaced.extend(mem::replace(&mut outputs.stderr, stderr));
        }
        if file.is_some() || !to_files {
            replaced.extend(mem::replace(&mut outputs.file, file).map(|(_, lines)| lines));
        }
        drop(outputs);
        for lines in replaced {
            self.retired.add(lines);
        }
    }

    fn write_file(&self, mut file: RollingFile) -> io::Result<Lines<Vec<u8>>> {
        let counters = self.counters.file.clone();
        Lines::start("log-file", counters, Duration::ZERO, move |line: Vec<u8>| file.write(&line))
    }

    fn write_stderr(&self) -> io::Result<Lines<Vec<u8>>> {
        let mut stderr = self.stderr.try_clone()?;
        let mut torn = false;
        Lines::start("log-stderr", self.counters.stderr.clone(), Duration::ZERO, move |mut line: Vec<u8>| {
            if torn {
                line.insert(0, b'\n');
            }
            torn = stderr.write_all(&line).is_err();
            if torn { Fate::Failed } else { Fate::Written }
        })
    }

    fn print(&self, line: &Line) {
        let outputs = self.outputs.read().unwrap_or_else(PoisonError::into_inner);
        let Surroundings { journal, colour } = self.surroundings;
        let render = |style: TextStyle| match outputs.format {
            LogFormat::Text => line.text(style),
            // The journal takes the priority off, and keeps the object.
            LogFormat::Json if style.journal => {
                [format!("<{}>", line.priority()).into_bytes(), line.json()].concat()
            }
            LogFormat::Json => line.json(),
        };
        if let Some(stderr) = &outputs.stderr {
            stderr.give(render(TextStyle { journal, colour }));
        }
        if let Some((_, file)) = &outputs.file {
            file.give(render(TextStyle::default()));
        }
    }
}

/// The layer behind the filter.
struct Printer(Arc<Shared>);

impl<S: Subscriber> Layer<S> for Printer {
    /// Libraries get no further than warnings, whatever the filter says: below that they show headers, and with them
    /// keys, and whatever the network said.
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

fn files(log: &Log) -> Option<Files> {
    Some(Files {
        directory: log.directory.clone()?,
        prefix: "prober.log",
        period: match log.rotation {
            Rotation::Hourly => Period::Hour,
            Rotation::Daily => Period::Day,
        },
        max_files: log.max_files,
        max_size: log.max_file_size,
    })
}

/// A descriptor of our own: the standard library's handle has a lock, and a thread stuck in a full pipe would hold it.
fn standard_error() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// The message only where it is a literal of the source: others quote what was at hand, a response's text too.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let cause = panic.payload().downcast_ref::<&'static str>();
    tracing::error!(location, cause, "Panicked");
}

#[cfg(test)]
mod tests;
