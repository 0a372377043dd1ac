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
        shared.commit(shared.prepare(log)?);
        let printer = Printer(Arc::clone(&shared));
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(filter_layer).with(printer));
        Ok((Self { shared, filter }, dispatch))
    }

    /// Does for a reloaded configuration whatever can fail. Opens files: not for a thread that has other things to do.
    pub fn prepare_change(&self, log: &Log) -> Result<LoggingChange, LoggingError> {
        let filter = EnvFilter::try_new(&log.filter)?;
        Ok(LoggingChange { filter, change: self.shared.prepare(log)? })
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
    fn prepare(&self, log: &Log) -> Result<Change, LoggingError> {
        let (old_stderr, old_files) = {
            let outputs = self.outputs.read().unwrap_or_else(PoisonError::into_inner);
            (outputs.stderr.is_some(), outputs.file.as_ref().map(|(files, _)| files.clone()))
        };
        let new_files = files(log);
        let opened = match &new_files {
            Some(files) if old_files.as_ref() != Some(files) => {
                Some((files.clone(), self.write_file(files)?))
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

    fn write_file(&self, files: &Files) -> Result<Lines<Vec<u8>>, LoggingError> {
        let mut file = RollingFile::open(files.clone())?;
        let counters = self.counters.file.clone();
        Ok(Lines::start("log-file", counters, Duration::ZERO, move |line: Vec<u8>| file.write(&line))?)
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
mod tests {
    use std::{
        collections::BTreeSet,
        convert::Infallible,
        env, fs,
        io::{PipeReader, Read},
        os::fd::OwnedFd,
        path::{Path, PathBuf},
        process::Command,
        sync::{Mutex, atomic::Ordering},
    };

    use http_body_util::Empty;
    use hyper::{Response, body::Bytes, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const CANARY: &str = "canary-5up3r-s3cr3t";

    fn log(filter: &str, directory: Option<PathBuf>) -> Log {
        Log {
            filter: filter.to_owned(),
            format: LogFormat::Text,
            stderr: true,
            directory,
            rotation: Rotation::Daily,
            max_files: 2,
            max_file_size: 1 << 20,
        }
    }

    /// A log whose standard error is a pipe.
    fn prepare(log: &Log) -> (Logging, Dispatch, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let stderr = File::from(OwnedFd::from(writer));
        let (logging, dispatch) = Logging::prepare(log, Surroundings::default(), stderr).unwrap();
        (logging, dispatch, reader)
    }

    /// Ends the log and returns what it wrote to standard error.
    fn finish(logging: Logging, dispatch: Dispatch, mut reader: PipeReader) -> String {
        logging.stop(LONG);
        drop((logging, dispatch));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    fn only_file(directory: &Path) -> String {
        let names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [path] = names.as_slice() else { panic!("one file is expected: {names:?}") };
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("prober.log."), "{path:?}");
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_go_to_standard_error_and_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (logging, dispatch, reader) = prepare(&log("info", Some(directory.path().to_owned())));
        dispatcher::with_default(&dispatch, || {
            tracing::info!(probe = "p", "Shown");
            tracing::debug!("Hidden");
        });
        let counters = logging.counters();
        let text = finish(logging, dispatch, reader);
        assert!(
            text.ends_with("INFO langmart_prober::logging::install::tests: Shown probe=\"p\"\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(only_file(directory.path()), text);
        for counters in [counters.file, counters.stderr] {
            assert_eq!(counters.written.load(Ordering::Relaxed), 1, "{counters:?}");
        }
    }

    #[test]
    fn a_reload_changes_level_format_and_places_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let [logs, moved] = ["logs", "moved"].map(|name| directory.path().join(name));
        let (logging, dispatch, reader) = prepare(&log("warn", None));
        dispatcher::with_default(&dispatch, || {
            tracing::debug!("First");
            logging.commit(logging.prepare_change(&log("debug", None)).unwrap());
            tracing::debug!("Second");
            logging.commit(
                logging.prepare_change(&Log { format: LogFormat::Json, ..log("debug", None) }).unwrap(),
            );
            tracing::debug!("Third");

            let taken = directory.path().join("taken");
            fs::write(&taken, "").unwrap();
            logging.prepare_change(&log("error", Some(taken))).unwrap_err();
            logging.prepare_change(&log("no=such=filter", None)).unwrap_err();
            tracing::debug!("Fourth");

            logging.commit(
                logging.prepare_change(&Log { stderr: false, ..log("debug", Some(logs.clone())) }).unwrap(),
            );
            tracing::debug!("Fifth");
            let json = LogFormat::Json;
            logging.commit(
                logging.prepare_change(&Log { format: json, ..log("debug", Some(moved.clone())) }).unwrap(),
            );
            tracing::debug!("Sixth");
        });
        let counters = logging.counters();
        let text = finish(logging, dispatch, reader);
        let (json, plain): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('{'));
        let [second] = plain.as_slice() else { panic!("{text}") };
        assert!(second.ends_with(": Second"), "{text}");
        let messages = json.iter().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect(line);
            line["message"].as_str().unwrap().to_owned()
        });
        // A set, since the thread that was switched off may write its last after the new one's first.
        let messages: BTreeSet<_> = messages.collect();
        assert_eq!(messages, ["Third", "Fourth", "Sixth"].map(String::from).into(), "{text}");
        let sixth = only_file(&moved);
        assert!(sixth.contains("\"message\":\"Sixth\"") && sixth.lines().count() == 1, "{sixth}");
        assert_eq!(counters.stderr.written.load(Ordering::Relaxed), 4, "counters go on over reloads");
    }

    #[test]
    fn a_stuck_pipe_blocks_nobody_and_loses_no_line_uncounted() {
        let (logging, dispatch, mut reader) = prepare(&log("info", None));
        let given = 20_000;
        // More than pipe and queue hold, while nobody reads: a call that blocked would never return.
        dispatcher::with_default(&dispatch, || {
            for number in 0..given {
                tracing::info!(number, "Filler");
            }
        });
        logging.stop(Duration::from_millis(1));
        let counters = logging.counters().stderr;
        assert!(counters.dropped.load(Ordering::Relaxed) > 0, "{counters:?}");

        // Once read it writes the line in its hand and ends, and then every line is accounted for.
        drop((logging, dispatch));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let [written, dropped, errors] =
            [&counters.written, &counters.dropped, &counters.errors].map(|c| c.load(Ordering::Relaxed));
        assert_eq!(text.lines().count() as u64, written, "{counters:?}");
        assert_eq!((written + dropped, errors), (given, 0), "{counters:?}");
    }

    #[test]
    fn a_broken_standard_error_fails_lines() {
        let stderr = File::options().write(true).open("/dev/full").unwrap();
        let (logging, dispatch) =
            Logging::prepare(&log("info", None), Surroundings::default(), stderr).unwrap();
        dispatcher::with_default(&dispatch, || tracing::info!("Nobody reads this"));
        logging.stop(LONG);
        let counters = logging.counters().stderr;
        assert_eq!(counters.errors.load(Ordering::Relaxed), 1, "{counters:?}");
    }

    #[test]
    fn what_is_wrong_at_start_is_said() {
        let (_reader, writer) = io::pipe().unwrap();
        let stderr = File::from(OwnedFd::from(writer));
        let failure = |log: &Log| {
            let stderr = stderr.try_clone().unwrap();
            Logging::prepare(log, Surroundings::default(), stderr).unwrap_err().to_string()
        };
        assert!(failure(&log("no=such=filter", None)).starts_with("log.level is no filter: "));
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join("taken");
        fs::write(&taken, "").unwrap();
        let error = failure(&log("info", Some(taken.clone())));
        assert!(error.starts_with(&format!("cannot open {}", taken.display())), "{error}");
    }

    /// One HTTP/2 request with the canary in a header, client and server in this thread.
    fn exchange() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
                let _ = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let tls = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .http2_prior_knowledge()
                .no_proxy()
                .build()
                .unwrap();
            let url = format!("http://{address}/{CANARY}");
            client.get(url).header("authorization", CANARY).send().await.unwrap();
            server.abort();
        });
        // What some version of a library may say; the present ones say `received frame=Headers` and no values.
        tracing::trace!(target: "hyper::proto::h1::role", "authorization: {CANARY}");
    }

    #[test]
    fn libraries_show_no_header_even_at_trace() {
        #[derive(Clone, Default)]
        struct Everything(Arc<Mutex<String>>);
        impl<S: Subscriber> Layer<S> for Everything {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let line = Line::new(event, SystemTime::UNIX_EPOCH).text(TextStyle::default());
                self.0.lock().unwrap().push_str(&String::from_utf8(line).unwrap());
            }
        }
        let everything = Everything::default();
        let subscriber = tracing_subscriber::registry().with(everything.clone());
        tracing::subscriber::with_default(subscriber, exchange);
        let everything = everything.0.lock().unwrap();
        for said in ["received frame=Headers", CANARY] {
            assert!(
                everything.contains(said),
                "without the cap it is said, or this test shows nothing: {said}"
            );
        }

        for filter in ["trace", "hyper=trace,h2=trace,reqwest=trace,hyper_util=trace,langmart_prober=trace"] {
            let (logging, dispatch, reader) = prepare(&log(filter, None));
            dispatcher::with_default(&dispatch, || {
                exchange();
                tracing::trace!("Ours");
            });
            let text = finish(logging, dispatch, reader);
            assert!(text.contains(": Ours\n"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn the_journal_is_told_by_the_identity_of_standard_error() {
        let identity = standard_error().unwrap().metadata().unwrap();
        let own = format!("{}:{}", identity.dev(), identity.ino());
        let journal = |stream| Surroundings::of_standard_error(stream, None).journal;
        assert!(journal(Some(OsStr::new(&own))));
        assert!(!journal(Some(OsStr::new("0:0"))), "a child's standard error may be another");
        assert!(!journal(None));
        let colour = |no_color| Surroundings::of_standard_error(None, no_color).colour;
        let terminal = io::stderr().is_terminal();
        assert_eq!(colour(None), terminal);
        assert_eq!(colour(Some(OsStr::new(""))), terminal);
        assert!(!colour(Some(OsStr::new("1"))));
    }

    #[test]
    fn a_target_is_ours_by_its_first_part() {
        #[track_caller]
        fn check(target: &str, expected: bool) {
            assert_eq!(is_ours(target), expected, "{target}");
        }
        check("langmart_prober", true);
        check("langmart_prober::probe::client", true);
        check("langmart_prober_other", false);
        check("hyper::client", false);
        check("log", false);
    }

    /// Set for the process that installs the log: a test may not do so in the one that runs the others.
    const PLAY: &str = "LANGMART_PROBER_TEST_LOGGING";

    #[test]
    fn a_panic_becomes_a_line_without_what_was_at_hand() {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "logging::install::tests::play", "--nocapture", "--test-threads=1"])
            .env(PLAY, "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = said.lines().collect();
        let [quoting, literal] = lines.as_slice() else { panic!("{said}") };
        assert!(quoting.contains("Panicked location=\"src/logging/install.rs:"), "{said}");
        assert!(!said.contains(CANARY), "{said}");
        assert!(literal.ends_with("cause=\"a literal\""), "{said}");
    }

    #[test]
    fn play() {
        if env::var_os(PLAY).is_none() {
            return;
        }
        let logging = Logging::start(&log("info", None), Surroundings::default()).unwrap();
        assert!(matches!(
            Logging::start(&log("info", None), Surroundings::default()),
            Err(LoggingError::Twice)
        ));
        let said = String::from(CANARY);
        panic::catch_unwind(|| panic!("cannot read {said}")).unwrap_err();
        panic::catch_unwind(|| panic!("a literal")).unwrap_err();
        logging.stop(LONG);
    }
}
