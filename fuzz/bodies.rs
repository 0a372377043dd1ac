//! Bodies of the fuzz targets, which the integration tests run on damaged examples.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use langmart_prober::{
    config::{self, Config, Environment, Keys, Probe, Task},
    health::Health,
    metrics::Metrics,
    outcome::{Api, Check},
    probe::fuzzing,
    records::{self, Entry},
    server::{self, ControlHandles, HttpServer, ServerState},
};
use tokio::sync::mpsc;

/// Without the environment of the machine.
const NOWHERE: Environment<'_> = Environment { variable: &|_| None, system_roots: &Vec::new };

/// Parses a configuration: it is accepted, or rejected with problems that each name their line.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Err(problems) = config::parse(text, "fuzz.toml", Keys::Skipped, &NOWHERE) else { return };
    for problem in problems.to_string().lines() {
        assert!(problem.starts_with("fuzz.toml:"), "{problem}");
    }
}

/// Parses hints.
pub fn hints(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        fuzzing::hint(text);
    }
}

/// Returns a probe of every check of every API that has a response.
pub fn probes() -> Vec<Arc<Probe>> {
    configured().probes
}

/// Number of probes: auth, models, chat and stream of six APIs, and seven of the checks that only
/// some of them have.
const PROBES: usize = 31;

fn configured() -> Config {
    let parse = |text: &str| config::parse(text, "probes", Keys::Skipped, &NOWHERE);
    let mut text = String::new();
    for api in Api::ALL {
        // A page's components are read one by one where some are named.
        let components = if *api == Api::Google { "components = [\"API\", \"Chat\"]\n" } else { "" };
        let provider = format!("[provider.{api}]\napi_key = {{ env = \"KEY\" }}\nchecks = []\n{components}");
        text += &provider;
        for check in Check::ALL.iter().filter(|check| **check != Check::Network) {
            let model = if check.generates() { "model = \"m\"\n" } else { "" };
            let probe = format!(
                "[[probe]]\nname = \"{api}-{check}\"\nprovider = \"{api}\"\ncheck = \"{check}\"\n{model}"
            );
            // The configuration knows which API has which check; all of them have these.
            let parsed = parse(&(provider.clone() + &probe));
            assert!(
                parsed.is_ok() || !matches!(check, Check::Auth | Check::Chat | Check::Stream),
                "{api} {check}"
            );
            if parsed.is_ok() {
                text += &probe;
            }
        }
    }
    let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}")).config;
    // So that none drops out unnoticed.
    assert_eq!(config.probes.len(), PROBES);
    config
}

/// Passes the bytes as an answer to each of the probes.
pub fn answers(probes: &[Arc<Probe>], bytes: &[u8]) {
    for probe in probes {
        fuzzing::answer(probe, bytes);
    }
}

/// Counts of tokens made of any bytes, for each of the probes that generate.
pub fn usage(probes: &[Arc<Probe>], bytes: &[u8]) {
    for probe in probes {
        fuzzing::usage(probe, bytes);
    }
}

/// Status pages of any bytes, for probes of every component and of some.
pub fn status_page(probes: &[Arc<Probe>], bytes: &[u8]) {
    let answer = [b"HTTP/1.1 200 OK\ncontent-type: application/json\n\n", bytes].concat();
    for probe in probes.iter().filter(|probe| matches!(probe.task, Task::Status(_))) {
        fuzzing::answer(probe, &answer);
    }
}

/// A directory of records, removed with the value.
pub struct RecordFiles(PathBuf);

impl RecordFiles {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("langmart-prober-fuzz-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the directory for temporary files can be written");
        Self(path)
    }

    /// Files of any bytes are read to their end; what is found in them is plain, and every line is an entry, of an earlier
    /// time, or counted as skipped.
    pub fn holds(&self, bytes: &[u8]) {
        fs::write(self.0.join("results.jsonl.2026-11-22"), bytes).expect("the file can be written");
        let mut entries = 0;
        let visit = |entry: &Entry<'_>| {
            entries += 1;
            let Entry { probe, provider, model, detail, hint, error_code, upstream, request_id, .. } = entry;
            let texts = [Some(*probe), Some(*provider), model.as_deref(), Some(detail), Some(hint)];
            for text in texts.into_iter().chain([*error_code, *upstream, *request_id]).flatten() {
                assert!(text.len() <= 1024 && !text.contains(char::is_control), "{text:?}");
            }
        };
        let read =
            records::read(&self.0, SystemTime::UNIX_EPOCH, visit, |_| ()).expect("the file can be read");
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').count() as u64;
        assert!(read.skipped_lines + entries <= lines, "{entries} entries, {read:?}, {lines} lines");
    }
}

impl Drop for RecordFiles {
    fn drop(&mut self) {
        // What is left is the machine's to remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A listener on loopback.
pub struct Listener {
    server: HttpServer,
    /// Kept, so that a reload is rejected as one too many rather than because of a stop.
    _reloads: mpsc::Receiver<server::ReloadRequest>,
    _run_requests: mpsc::Receiver<server::RunRequest>,
}

impl Listener {
    pub fn start() -> Self {
        let (reload, reloads) = mpsc::channel(1);
        let (runs, run_requests) = mpsc::channel(1);
        let metrics = Arc::new(Metrics::new(SystemTime::UNIX_EPOCH));
        let settings = configured().server;
        let state = ServerState::new(
            metrics,
            Arc::default(),
            Arc::new(Health::new()),
            ControlHandles { reload, runs },
            &settings,
        );
        let listener = server::bind(([127, 0, 0, 1], 0).into()).expect("loopback has free ports");
        let server = HttpServer::start(listener, Arc::new(state)).expect("a thread can be had");
        Self { server, _reloads: reloads, _run_requests: run_requests }
    }

    /// Sends any value of Accept and Accept-Encoding. The answer must be a page in a known format.
    pub fn negotiates(&self, bytes: &[u8]) {
        let mut parts = bytes.split(|byte| *byte == 0).chain([&[][..]; 2]);
        let is_value = |byte: &u8| *byte == b'\t' || (b' '..0x7f).contains(byte) || *byte >= 0x80;
        let mut value =
            || parts.next().unwrap_or_default().iter().copied().filter(is_value).collect::<Vec<u8>>();
        let address = self.server.address();
        let mut request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n").into_bytes();
        for (name, value) in [("Accept: ", value()), ("Accept-Encoding: ", value())] {
            request.extend([name.as_bytes(), &value, b"\r\n"].concat());
        }
        let response = exchange(address, &[request, b"\r\n".to_vec()].concat(), false);
        let head = String::from_utf8_lossy(&response[..response.len().min(4096)]).to_ascii_lowercase();
        // 431: the head is too large.
        let is_refused =
            ["http/1.1 400 ", "http/1.1 431 ", "http/1.1 406 "].iter().any(|begin| head.starts_with(begin));
        assert!(is_refused || head.starts_with("http/1.1 200 "), "{head}");
        let formats = ["text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"];
        let is_known = formats.iter().any(|format| head.contains(&format!("\r\ncontent-type: {format}")));
        assert!(is_refused || is_known, "{head}");
    }

    /// Sends the bytes to the listener. It must answer with HTTP or close the connection, and then
    /// serve the next client.
    pub fn hears(&self, bytes: &[u8]) {
        let response = exchange(self.server.address(), bytes, true);
        assert!(
            response.is_empty() || response.starts_with(b"HTTP/1."),
            "{}",
            String::from_utf8_lossy(&response)
        );
        let address = self.server.address();
        let request = format!("GET /-/healthy HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let response = exchange(address, request.as_bytes(), false);
        assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&response));
    }
}

/// Returns the response to these bytes, followed by their end if `end` is set.
fn exchange(address: SocketAddr, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("the timeout is not zero");
    let mut response = Vec::new();
    // A connection that is closed before all bytes were sent or read is valid.
    let _ = stream.write_all(bytes);
    if end {
        let _ = stream.shutdown(Shutdown::Write);
    }
    if let Err(error) = stream.read_to_end(&mut response) {
        assert!(error.kind() != std::io::ErrorKind::WouldBlock, "no end of the connection");
    }
    response
}
