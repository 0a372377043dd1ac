//! Tests of the whole log: outputs, reloads, and secrets that must not be logged.

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

const TEST_TIMEOUT: Duration = Duration::from_secs(60);
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
        compress: false,
    }
}

/// Creates a log whose standard error is a pipe.
fn prepare(log: &Log) -> (Logging, Dispatch, PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let stderr = File::from(OwnedFd::from(writer));
    let (logging, dispatch) = Logging::prepare(log, StderrKind::default(), stderr).unwrap();
    (logging, dispatch, reader)
}

/// Stops the log and returns what it wrote to standard error.
fn finish(logging: Logging, dispatch: Dispatch, mut reader: PipeReader) -> String {
    logging.stop(TEST_TIMEOUT);
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
    assert!(text.ends_with("INFO langmart_prober::logging::install::tests: Shown probe=\"p\"\n"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(only_file(directory.path()), text);
    for counters in [counters.file, counters.stderr] {
        assert_eq!(counters.written.load(Ordering::Relaxed), 1, "{counters:?}");
    }
}

#[test]
fn reload_changes_all_settings_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let [logs, moved] = ["logs", "moved"].map(|name| directory.path().join(name));
    let (logging, dispatch, reader) = prepare(&log("warn", None));
    dispatcher::with_default(&dispatch, || {
        tracing::debug!("First");
        logging.commit(logging.prepare_change(&log("debug", None)).unwrap());
        tracing::debug!("Second");
        logging
            .commit(logging.prepare_change(&Log { format: LogFormat::Json, ..log("debug", None) }).unwrap());
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
    // A set, because the stopped thread may write its last line after the first line of the new
    // one.
    let messages: BTreeSet<_> = messages.collect();
    assert_eq!(messages, ["Third", "Fourth", "Sixth"].map(String::from).into(), "{text}");
    let sixth = only_file(&moved);
    assert!(sixth.contains("\"message\":\"Sixth\"") && sixth.lines().count() == 1, "{sixth}");
    assert_eq!(counters.stderr.written.load(Ordering::Relaxed), 4, "counters continue across reloads");
}

#[test]
fn blocked_pipe_counts_every_lost_line() {
    let (logging, dispatch, mut reader) = prepare(&log("info", None));
    let given = 20_000;
    // More than the pipe and the queue hold, while the pipe is not read: a blocking call would
    // never return.
    dispatcher::with_default(&dispatch, || {
        for number in 0..given {
            tracing::info!(number, "Filler");
        }
    });
    logging.stop(Duration::from_millis(1));
    let counters = logging.counters().stderr;
    assert!(counters.dropped.load(Ordering::Relaxed) > 0, "{counters:?}");

    // Once the pipe is read, the thread writes its current line and ends, and every line is
    // accounted for.
    drop((logging, dispatch));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let [written, dropped, errors] =
        [&counters.written, &counters.dropped, &counters.errors].map(|c| c.load(Ordering::Relaxed));
    assert_eq!(text.lines().count() as u64, written, "{counters:?}");
    assert_eq!((written + dropped, errors), (given, 0), "{counters:?}");
}

#[test]
fn broken_standard_error_fails_lines() {
    let stderr = File::options().write(true).open("/dev/full").unwrap();
    let (logging, dispatch) = Logging::prepare(&log("info", None), StderrKind::default(), stderr).unwrap();
    dispatcher::with_default(&dispatch, || tracing::info!("Lost"));
    logging.stop(TEST_TIMEOUT);
    let counters = logging.counters().stderr;
    assert_eq!(counters.errors.load(Ordering::Relaxed), 1, "{counters:?}");
}

#[test]
fn invalid_filter_is_an_error_at_start() {
    let stderr = File::from(OwnedFd::from(io::pipe().unwrap().1));
    let error = Logging::prepare(&log("no=such=filter", None), StderrKind::default(), stderr).unwrap_err();
    assert!(error.to_string().starts_with("log.level is not a valid filter: "), "{error}");
}

#[test]
fn unwritable_log_file_at_start_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    fs::write(&taken, "").unwrap();
    let (logging, dispatch, reader) = prepare(&log("info", Some(taken.clone())));
    dispatcher::with_default(&dispatch, || {
        tracing::info!("Shown");
        let error = logging.prepare_change(&log("info", Some(taken.join("below")))).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot open {}", taken.display())),
            "a reload is refused: {error}"
        );
    });
    let counters = logging.counters();
    let text = finish(logging, dispatch, reader);
    assert!(text.contains("Shown"), "{text}");
    assert_eq!(counters.file.errors.load(Ordering::Relaxed), 1, "{counters:?}");
}

/// Performs one HTTP/2 request with the canary in a header; client and server run on this thread.
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
    // A header value as a future version of a library may log it; present versions log `received
    // frame=Headers` only.
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
    for expected in ["received frame=Headers", CANARY] {
        assert!(everything.contains(expected), "must be logged without the limit: {expected}");
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
fn journal_is_detected_by_identity_of_standard_error() {
    let identity = standard_error().unwrap().metadata().unwrap();
    let own = format!("{}:{}", identity.dev(), identity.ino());
    let journal = |stream| StderrKind::detect(stream, None).journal;
    assert!(journal(Some(OsStr::new(&own))));
    assert!(!journal(Some(OsStr::new("0:0"))), "a child's standard error may be another");
    assert!(!journal(None));
    let colour = |no_color| StderrKind::detect(None, no_color).colour;
    let terminal = io::stderr().is_terminal();
    assert_eq!(colour(None), terminal);
    assert_eq!(colour(Some(OsStr::new(""))), terminal);
    assert!(!colour(Some(OsStr::new("1"))));
}

#[test]
fn target_is_ours_by_its_first_segment() {
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

/// Set in the child process that installs the log, because a test must not do so in the process of
/// the other tests.
const INSTALL_VARIABLE: &str = "LANGMART_PROBER_TEST_LOGGING";

#[test]
fn panic_is_logged_without_formatted_values() {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "logging::install::tests::install_in_child", "--nocapture", "--test-threads=1"])
        .env(INSTALL_VARIABLE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [quoting, literal] = lines.as_slice() else { panic!("{text}") };
    assert!(quoting.contains("Panicked location=\"src/logging/install/tests.rs:"), "{text}");
    assert!(!text.contains(CANARY), "{text}");
    assert!(literal.ends_with("cause=\"a literal\""), "{text}");
}

#[test]
fn install_in_child() {
    if env::var_os(INSTALL_VARIABLE).is_none() {
        return;
    }
    let logging = Logging::start(&log("info", None), StderrKind::default()).unwrap();
    assert!(matches!(Logging::start(&log("info", None), StderrKind::default()), Err(LoggingError::Twice)));
    let secret = String::from(CANARY);
    panic::catch_unwind(|| panic!("cannot read {secret}")).unwrap_err();
    panic::catch_unwind(|| panic!("a literal")).unwrap_err();
    logging.stop(TEST_TIMEOUT);
}
