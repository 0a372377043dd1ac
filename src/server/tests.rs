//! Tests of the listener over real sockets.

mod clients;
mod waiting;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use flate2::read::GzDecoder;
use tokio::sync::mpsc;

use super::{
    ControlHandles, HttpServer, ReloadRequest, RunRequest, ServerState, activity::Timeouts, bind,
    listener::Limits,
};
use crate::{
    config::{self, Task},
    health::{Health, Readiness},
    history::History,
    metrics::{
        Format, Metrics,
        testing::{block_write, chat, config, probe, provider},
    },
    outcome::{Api, Fault, OnDemandResult, Outcome, Reason, SkipCause},
};

/// Timeout of a test that would otherwise block.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const LIMITS: Limits = Limits {
    timeouts: Timeouts { head: TEST_TIMEOUT, request: TEST_TIMEOUT, idle: TEST_TIMEOUT, login: TEST_TIMEOUT },
    connections: 16,
};

/// Returns a configuration without users and TLS, with these host names.
fn configured(hostnames: &[&str]) -> config::Server {
    config::Server {
        listen: ([127, 0, 0, 1], 0).into(),
        hostnames: hostnames.iter().map(ToString::to_string).collect(),
        tls: None,
        users: BTreeMap::new(),
        allow_unauthenticated: false,
        probe_generation: false,
    }
}

struct Running {
    server: HttpServer,
    state: Arc<ServerState>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    health: Arc<Health>,
    reloads: mpsc::Receiver<ReloadRequest>,
    run_requests: mpsc::Receiver<RunRequest>,
    address: SocketAddr,
}

impl Running {
    fn start(limits: Limits) -> Self {
        let metrics = Arc::new(Metrics::new(SystemTime::now()));
        let history = Arc::new(History::default());
        let health = Arc::new(Health::new());
        let (reload, reloads) = mpsc::channel(1);
        let (runs, run_requests) = mpsc::channel(1);
        let state = Arc::new(ServerState::new(
            Arc::clone(&metrics),
            Arc::clone(&history),
            Arc::clone(&health),
            ControlHandles { reload, runs },
            &configured(&[]),
        ));
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let server = HttpServer::start_with(listener, Arc::clone(&state), limits).unwrap();
        let address = server.address();
        Self { server, state, metrics, history, health, reloads, run_requests, address }
    }

    /// Starts a server with so many probes that a page does not fit into the buffers of a socket.
    fn start_large(limits: Limits) -> Self {
        let running = Self::start(limits);
        let acme = Arc::new(provider("acme", Api::Langmart));
        let probes = (0..1000).map(|number| chat(&format!("probe-{number}"), &acme, "model")).collect();
        running.metrics.configure(&config(probes));
        running
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream
    }

    fn head(&self, request_line: &str, headers: &str) -> String {
        format!("{request_line} HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", self.address)
    }

    /// Sends a request on a new connection.
    fn ask(&self, request_line: &str, headers: &str) -> Reply {
        let mut stream = self.connect();
        let head = self.head(request_line, &format!("connection: close\r\n{headers}"));
        stream.write_all(head.as_bytes()).unwrap();
        Reply::parse(&read_to_end(&mut stream))
    }

    /// Requests a run; the test answers instead of the scheduler.
    fn ask_for_run(&self, target: &str, host: &str, headers: &str) -> thread::JoinHandle<Reply> {
        let mut stream = self.connect();
        let head = format!(
            "GET /probe?target={target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
        );
        thread::spawn(move || {
            stream.write_all(head.as_bytes()).unwrap();
            Reply::parse(&read_to_end(&mut stream))
        })
    }
}

/// Reads until the connection is closed or reset.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "after {} bytes", bytes.len()),
    }
    bytes
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let (status_line, headers) = head.split_once("\r\n").unwrap();
        Self {
            status: status_line.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: headers
                .split("\r\n")
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

#[test]
fn metrics_are_served() {
    let running = Running::start(LIMITS);
    let reply = running.ask("GET /metrics?ignored=1", "");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(reply.header("vary"), Some("Accept, Accept-Encoding"));
    assert_eq!(reply.header("content-encoding"), None);
    assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
    assert!(reply.text().contains("langmart_prober_build_info{"), "{}", reply.text());
}

#[test]
fn metrics_have_the_format_that_is_accepted() {
    let running = Running::start(LIMITS);
    let protobuf = Format::Protobuf.content_type();
    let open = Format::OpenMetrics.content_type();
    let text = Format::Text.content_type();
    // Twice, because pages are cached.
    for _ in 0..2 {
        for (accept, expected) in [(protobuf, protobuf), (open, open), (text, text), ("*/*", text)] {
            for encoding in ["identity", "gzip"] {
                let headers = format!("accept: {accept}\r\naccept-encoding: {encoding}\r\n");
                let reply = running.ask("GET /metrics", &headers);
                assert_eq!((reply.status, reply.header("content-type")), (200, Some(expected)));
                assert_eq!(reply.header("vary"), Some("Accept, Accept-Encoding"));
                let body = match reply.header("content-encoding") {
                    Some("gzip") => {
                        let mut body = Vec::new();
                        GzDecoder::new(&*reply.body).read_to_end(&mut body).unwrap();
                        body
                    }
                    other => {
                        assert_eq!((other, encoding), (None, "identity"));
                        reply.body
                    }
                };
                let is_open = body.ends_with(b"\n# EOF\n");
                let is_text = body.starts_with(b"# HELP ");
                let expected = [expected == open, expected != protobuf];
                assert_eq!([is_open, is_text], expected, "{accept}");
            }
        }
    }
}

#[test]
fn compressed_page_has_the_same_content() {
    let running = Running::start_large(LIMITS);
    let plain = running.ask("GET /metrics", "");
    let compressed = running.ask("GET /metrics", "accept-encoding: deflate, gzip;q=0.8\r\n");
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert!(compressed.body.len() * 10 < plain.body.len(), "{} bytes", compressed.body.len());
    let mut text = String::new();
    GzDecoder::new(&*compressed.body).read_to_string(&mut text).unwrap();
    let stable = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("process_")).map(str::to_owned).collect()
    };
    assert!(stable(&text) == stable(plain.text()), "the pages differ");
}

#[test]
fn head_has_the_headers_and_no_body() {
    let running = Running::start(LIMITS);
    for path in ["/", "/-/healthy", "/-/ready"] {
        let (get, head) = (running.ask(&format!("GET {path}"), ""), running.ask(&format!("HEAD {path}"), ""));
        assert!(!get.body.is_empty() && head.body.is_empty(), "{path}: {head:?}");
        assert_eq!((get.status, get.header("content-length")), (head.status, head.header("content-length")));
    }
    let head = running.ask("HEAD /metrics", "");
    assert!(head.status == 200 && head.body.is_empty(), "{head:?}");
}

#[test]
fn status_page_has_security_headers() {
    let running = Running::start(LIMITS);
    let reply = running.ask("GET /", "");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    assert!(reply.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    assert!(reply.text().contains("href=\"/metrics\""), "{}", reply.text());
}

#[track_caller]
fn check_refusal(reply: &Reply, status: u16, allow: Option<&str>) {
    assert_eq!((reply.status, reply.header("allow")), (status, allow), "{reply:?}");
    assert_eq!(reply.text().matches('\n').count(), 1, "one line: {reply:?}");
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let running = Running::start(LIMITS);
    check_refusal(&running.ask("GET /metrics/", ""), 404, None);
    check_refusal(&running.ask("GET /favicon.ico", ""), 404, None);
    check_refusal(&running.ask("POST /nowhere", ""), 404, None);
    check_refusal(&running.ask("POST /metrics", "content-length: 0\r\n"), 405, Some("GET, HEAD"));
    check_refusal(&running.ask("DELETE /", ""), 405, Some("GET, HEAD"));
    check_refusal(&running.ask("OPTIONS /-/ready", ""), 405, Some("GET, HEAD"));
    check_refusal(&running.ask("GET /-/reload", ""), 405, Some("POST"));
}

#[test]
fn foreign_host_is_refused_until_configured() {
    let running = Running::start(LIMITS);
    let ask = |host: &str, more: &str| {
        let mut stream = running.connect();
        write!(stream, "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n").unwrap();
        Reply::parse(&read_to_end(&mut stream))
    };
    let own = running.address.to_string();
    assert_eq!(ask(&own, "").status, 200);
    let foreign = ask("prober.example", "");
    assert!(foreign.status == 403 && foreign.text().contains("`hostnames` in [server]"), "{foreign:?}");
    let origin = "origin: https://prober.example\r\n";
    let foreign = ask(&own, origin);
    assert!(foreign.status == 403 && foreign.text().contains("`hostnames` in [server]"), "{foreign:?}");
    running.state.reconfigure(&configured(&["prober.example"]));
    assert_eq!(ask("prober.example", "").status, 200);
    assert_eq!(ask(&own, origin).status, 200);
}

#[test]
fn health_names_a_stuck_part() {
    let running = Running::start(LIMITS);
    let healthy = running.ask("GET /-/healthy", "");
    assert_eq!((healthy.status, healthy.text()), (200, "healthy\n"));
    let registered = Instant::now();
    let _silent = running.health.part("scheduler", Duration::ZERO);
    while registered.elapsed() < Duration::from_millis(5) {
        thread::yield_now();
    }
    let stuck = running.ask("GET /-/healthy", "");
    assert_eq!((stuck.status, stuck.text()), (503, "scheduler is stuck\n"));
}

#[test]
fn health_names_a_blocked_file() {
    let running = Running::start(LIMITS);
    block_write(&running.metrics, "results", Duration::from_secs(5));
    let healthy = running.ask("GET /-/healthy", "");
    assert_eq!((healthy.status, healthy.text()), (200, "healthy\n"));
    block_write(&running.metrics, "state", Duration::from_secs(60));
    let healthy = running.ask("GET /-/healthy", "");
    assert_eq!(healthy.status, 200, "the probing continues");
    assert!(healthy.text().starts_with("healthy\nstate: write blocked for 6"), "{}", healthy.text());
}

#[test]
fn readiness_follows_the_daemon() {
    let running = Running::start(LIMITS);
    let ready = || running.ask("GET /-/ready", "");
    assert_eq!((ready().status, ready().text()), (503, "starting\n"));
    running.health.advance_to(Readiness::Ready);
    assert_eq!((ready().status, ready().text()), (200, "ready\n"));
    running.health.advance_to(Readiness::Stopping);
    assert_eq!((ready().status, ready().text()), (503, "stopping\n"));
}

#[test]
fn reload_responds_with_its_result() {
    let mut running = Running::start(LIMITS);
    let post = "POST /-/reload HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n";
    let mut ask = |result: Result<(), String>| {
        let mut stream = running.connect();
        write!(stream, "{post}host: {}\r\n\r\n", running.address).unwrap();
        running.reloads.blocking_recv().unwrap().answer.send(result).unwrap();
        Reply::parse(&read_to_end(&mut stream))
    };
    let reloaded = ask(Ok(()));
    assert_eq!((reloaded.status, reloaded.text()), (200, "The configuration was reloaded.\n"));
    let refused = ask(Err("one problem\nanother".to_owned()));
    assert_eq!((refused.status, refused.text()), (500, "one problem\nanother\n"));
    assert_eq!(refused.header("content-type"), Some("text/plain; charset=utf-8"));

    let mut waiting = running.connect();
    write!(waiting, "{post}host: {}\r\n\r\n", running.address).unwrap();
    while running.reloads.is_empty() {
        thread::yield_now();
    }
    assert_eq!(running.ask("POST /-/reload", "content-length: 0\r\n").status, 503, "only one can wait");
    drop(running.reloads.blocking_recv().unwrap());
    assert_eq!(Reply::parse(&read_to_end(&mut waiting)).status, 503, "the answer was dropped");
    running.reloads.close();
    assert_eq!(running.ask("POST /-/reload", "content-length: 0\r\n").status, 503, "the channel is closed");
}

#[test]
fn pages_and_assets_have_entity_tags() {
    let running = Running::start(LIMITS);
    let acme = Arc::new(provider("acme", Api::Langmart));
    let probes = config(vec![chat("p", &acme, "m")]);
    running.history.configure(&probes, |_| String::new());
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/probes/p", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/api/v1/results", "application/json"),
        ("/api/v1/probes?probe=p", "application/json"),
    ] {
        let reply = running.ask(&format!("GET {path}"), "");
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(content_type)), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        let tag = reply.header("etag").unwrap().to_owned();
        if path != "/" {
            let again = running.ask(&format!("GET {path}"), &format!("if-none-match: \"x\", W/{tag}\r\n"));
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
            assert_eq!(running.ask(&format!("GET {path}"), "if-none-match: *\r\n").status, 304, "{path}");
        }
        let head = running.ask(&format!("HEAD {path}"), "");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(running.ask(&format!("POST {path}"), "").status, 405, "{path}");
    }
    for path in ["/probes/", "/probes/other", "/probes/../p", "/api/v1/other"] {
        assert_eq!(running.ask(&format!("GET {path}"), "").status, 404, "{path}");
    }
    assert_eq!(running.ask("GET /api/v1/results?limit=none", "").status, 400);
}

#[test]
fn on_demand_run_is_requested_or_refused() {
    let mut running = Running::start(LIMITS);
    let acme = Arc::new(provider("acme", Api::Langmart));
    let auth = Arc::new(probe("auth", &acme, Task::Auth));
    running.history.configure(&config(vec![chat("chat", &acme, "m"), auth]), |_| String::new());
    let ask = |query: &str, headers: &str| running.ask(&format!("GET /probe{query}"), headers).status;
    assert_eq!(ask("", ""), 400);
    assert_eq!(ask("?target=https://elsewhere.example", ""), 404);
    assert_eq!(ask("?target=chat", ""), 403, "it consumes tokens");
    assert_eq!(ask("?target=auth", "sec-fetch-site: cross-site\r\n"), 403);
    assert_eq!(running.ask("HEAD /probe?target=auth", "").status, 405);
    let address = running.address.to_string();
    let asking =
        running.ask_for_run("auth&module=http_2xx", &address, "x-prometheus-scrape-timeout-seconds: 3\r\n");
    let RunRequest { probe, within, answer } = running.run_requests.blocking_recv().unwrap();
    assert_eq!((probe.as_str(), within), ("auth", Duration::from_millis(2500)));
    let outcome = Outcome::new(SystemTime::now(), Reason::Ok, Fault::None);
    answer.send(OnDemandResult::Ran(Arc::new(outcome))).unwrap();
    let reply = asking.join().unwrap();
    assert!(reply.text().contains("\nprobe_success 1\n"), "{}", reply.text());
}

#[test]
fn delayed_probe_without_result_has_no_samples() {
    let mut running = Running::start(LIMITS);
    let acme = Arc::new(provider("acme", Api::Langmart));
    running.history.configure(&config(vec![chat("chat", &acme, "m")]), |_| String::new());
    running.state.reconfigure(&config::Server { probe_generation: true, ..configured(&[]) });
    let asking = running.ask_for_run("chat&debug=true", &running.address.to_string(), "");
    let RunRequest { answer, .. } = running.run_requests.blocking_recv().unwrap();
    answer.send(OnDemandResult::Skipped(SkipCause::Backoff)).unwrap();
    let reply = asking.join().unwrap();
    assert_eq!(reply.status, 503);
    assert!(
        reply.text().contains("(backoff)") && !reply.text().contains("probe_success"),
        "{}",
        reply.text()
    );
}

#[test]
fn generation_is_refused_to_pages_of_other_sites() {
    let mut running = Running::start(LIMITS);
    let acme = Arc::new(provider("acme", Api::Langmart));
    let auth = Arc::new(probe("auth", &acme, Task::Auth));
    running.history.configure(&config(vec![chat("chat", &acme, "m"), auth]), |_| String::new());
    running.state.reconfigure(&config::Server { probe_generation: true, ..configured(&["prober.example"]) });
    let address = running.address.to_string();
    // An image of a page elsewhere: without Origin, and over plain HTTP without fetch metadata.
    let reply = running.ask_for_run("chat", "prober.example", "").join().unwrap();
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("X-Prometheus-Scrape-Timeout-Seconds"), "{}", reply.text());
    for (target, host, headers) in [
        ("chat", "prober.example", "x-prometheus-scrape-timeout-seconds: 3\r\n"),
        ("chat", "prober.example", "sec-fetch-site: none\r\n"),
        ("chat", &*address, ""),
        ("auth", "prober.example", ""),
    ] {
        let asking = running.ask_for_run(target, host, headers);
        drop(running.run_requests.blocking_recv().unwrap());
        assert_eq!(
            asking.join().unwrap().status,
            503,
            "{target} {host} {headers}: requested, without an answer"
        );
    }
}
