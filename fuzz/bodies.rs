//! Bodies of the fuzz targets, which the integration tests run on damaged examples.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, SystemTime},
};

use langmart_prober::{
    config::{self, Config, Environment, Keys, Probe},
    health::Health,
    metrics::Metrics,
    probe::fuzzing,
    server::{self, ControlHandles, Server, ServerState},
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

/// Returns a probe of every check of every API.
pub fn probes() -> Vec<Arc<Probe>> {
    configured().probes
}

fn configured() -> Config {
    let mut parts = Vec::new();
    for (api, checks) in [
        ("langmart", "auth models chat balance health"),
        ("openai", "auth models chat status"),
        ("anthropic", "auth models chat"),
        ("groq", "auth chat"),
        ("google", "auth models chat status"),
        ("openrouter", "auth models chat balance"),
    ] {
        parts.push(format!("[provider.{api}]\napi_key = {{ env = \"KEY\" }}\nchecks = []\n"));
        for check in checks.split(' ') {
            let name =
                format!("[[probe]]\nname = \"{api}-{check}\"\nprovider = \"{api}\"\ncheck = \"{check}\"\n");
            parts.push(name + if check == "chat" { "model = \"m\"\n" } else { "" });
        }
    }
    let loaded = config::parse(&parts.concat(), "probes", Keys::Skipped, &NOWHERE);
    loaded.unwrap_or_else(|problems| panic!("{problems}")).config
}

/// Passes the bytes as an answer to each of the probes.
pub fn answers(probes: &[Arc<Probe>], bytes: &[u8]) {
    for probe in probes {
        fuzzing::answer(probe, bytes);
    }
}

/// A listener on loopback.
pub struct Listener {
    server: Server,
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
        let server = Server::start(listener, Arc::new(state)).expect("a thread can be had");
        Self { server, _reloads: reloads, _run_requests: run_requests }
    }

    /// Sends the bytes to the listener. It must answer with HTTP or close the connection, and then
    /// serve the next client.
    pub fn hears(&self, bytes: &[u8]) {
        let said = exchange(self.server.address(), bytes, true);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&said));
        let address = self.server.address();
        let request = format!("GET /-/healthy HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let said = exchange(address, request.as_bytes(), false);
        assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
    }
}

/// Returns the response to these bytes, followed by their end if `end` is set.
fn exchange(address: SocketAddr, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("the timeout is not zero");
    let mut said = Vec::new();
    // A connection that is closed before all bytes were sent or read is valid.
    let _ = stream.write_all(bytes);
    if end {
        let _ = stream.shutdown(Shutdown::Write);
    }
    if let Err(error) = stream.read_to_end(&mut said) {
        assert!(error.kind() != std::io::ErrorKind::WouldBlock, "no end of the connection");
    }
    said
}
