//! Tests that failed runs leave no descriptor and no thread behind.

use std::{
    fmt::{self, Write},
    net::{Ipv4Addr, UdpSocket},
    process::{self, Command},
    thread,
};

use langmart_prober::simulator::Simulator;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, PROBER, Place},
    parts,
    raw::{RawServer, scripted},
    scrape::Scrape,
    simulate::simulator,
    wait::wait_for,
};

/// A loopback address without a listener.
const CLOSED: &str = "127.77.0.1:9";

/// Interval of the failing probes, and timeout of their runs.
const INTERVAL: &str = "1s";

/// Number of descriptors, and threads, that the first run may open permanently.
const ALLOWED_GROWTH: f64 = 4.0;

/// Maximum number of failures to wait for at a time.
const MAX_WAITED_FAILURES: f64 = 500.0;

type Reasons = &'static [&'static str];

/// Server that makes the runs fail, until it is dropped.
enum Server {
    None,
    Simulator(Simulator),
    Raw { _server: RawServer },
}

/// One kind of failure.
pub struct Kind {
    pub name: &'static str,
    /// Possible reasons of its runs, if the machine is fast enough for their timeout.
    reasons: Reasons,
    /// Configuration of the provider and of each probe.
    provider: String,
    probe: &'static str,
    _server: Server,
    name_server: Option<NameServer>,
    ca_pem: String,
}

/// The only name server of the daemon, which has its own mount namespace for this.
#[derive(Clone, Copy)]
struct NameServer {
    address: Ipv4Addr,
    /// Response code of its answers (RFC 1035, section 4.1.1). `None` if nothing listens at the
    /// address.
    code: Option<u8>,
}

impl Kind {
    fn new(name: &'static str, reasons: Reasons, provider: String, server: Server) -> Self {
        let ca_pem = match &server {
            Server::Simulator(simulator) => simulator.ca_pem().to_owned(),
            Server::None | Server::Raw { .. } => String::new(),
        };
        let probe = "check = \"auth\"";
        Self { name, reasons, provider, probe, _server: server, name_server: None, ca_pem }
    }

    /// Returns a failure that the simulator applies to every request.
    fn simulated(name: &'static str, reasons: Reasons, fault: &str, provider: &str) -> Self {
        let simulator = simulator(&format!("[[rule]]\nfault = \"{fault}\"\n"));
        let (plain, tls) = (simulator.address(), simulator.tls_address().unwrap());
        let provider = provider.replace("HTTPS", &format!("https://{tls}/openai/v1"));
        let provider = provider.replace("HTTP", &format!("http://{plain}/openai/v1"));
        Self::new(name, reasons, provider, Server::Simulator(simulator))
    }

    fn with_probe(self, probe: &'static str) -> Self {
        Self { probe, ..self }
    }
}

const HTTP: &str = "base_url = \"HTTP\"";
const HTTPS: &str = "base_url = \"HTTPS\"\nca_file = \"CA\"";
const DEADLINE: &str = "check = \"auth\"\ntimeout = \"20ms\"";

pub fn refused() -> Kind {
    Kind::new("refused", &["connect"], format!("base_url = \"http://{CLOSED}/v1\""), Server::None)
}

pub fn reset_in_handshake() -> Kind {
    Kind::simulated("reset in the handshake", &["tls"], "reset_handshake", HTTPS)
}

pub fn untrusted() -> Kind {
    Kind::simulated("TLS untrusted", &["tls"], "garbage", "base_url = \"HTTPS\"")
}

pub fn disconnect() -> Kind {
    Kind::simulated("disconnect", &["disconnected"], "cut_before_headers", HTTP)
}

pub fn disconnect_http2() -> Kind {
    Kind::simulated("disconnect, HTTP/2", &["disconnected"], "cut", HTTPS)
}

pub fn malformed() -> Kind {
    Kind::simulated("malformed", &["malformed"], "garbage", HTTP)
}

pub fn timeout() -> Kind {
    Kind::simulated("timeout at 20 ms", &["timeout"], "stall", HTTP).with_probe(DEADLINE)
}

pub fn timeout_http2() -> Kind {
    Kind::simulated("timeout at 20 ms, HTTP/2", &["timeout"], "stall", HTTPS).with_probe(DEADLINE)
}

pub fn timeout_warm() -> Kind {
    let probe = "check = \"auth\"\ntimeout = \"20ms\"\nconnection = \"warm\"";
    Kind::simulated("timeout at 20 ms, warm", &["timeout"], "stall", HTTPS).with_probe(probe)
}

pub fn proxy_refusal() -> Kind {
    let server = RawServer::start();
    server.play(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into());
    let provider = format!("base_url = \"https://{CLOSED}/v1\"\nproxy = \"http://{}\"", server.address);
    Kind::new("proxy refusal", &["proxy"], provider, Server::Raw { _server: server })
}

pub fn socks_refusal() -> Kind {
    // No acceptable authentication method (RFC 1928, section 3).
    let address = scripted(&[b"\x05\xff"]);
    let provider = format!("base_url = \"https://{CLOSED}/v1\"\nproxy = \"socks5h://{address}\"");
    Kind::new("SOCKS refusal", &["proxy"], provider, Server::None)
}

pub fn no_such_name() -> Kind {
    lookup("no such name", &["dns"], Some(3))
}

pub fn no_name_server() -> Kind {
    // The resolver's retries may exceed the timeout.
    lookup("no name server", &["dns", "timeout"], None)
}

fn lookup(name: &'static str, reasons: Reasons, code: Option<u8>) -> Kind {
    let provider = "base_url = \"https://nothing.example/v1\"".to_owned();
    // An address for this process only, because loopback is shared with the machine.
    let [.., high, low] = process::id().to_be_bytes();
    let name_server =
        NameServer { address: Ipv4Addr::new(127, 100 + code.unwrap_or_default(), high, low), code };
    Kind { name_server: Some(name_server), ..Kind::new(name, reasons, provider, Server::None) }
}

impl NameServer {
    /// Answers every query until the process ends.
    fn start(self) {
        let Some(code) = self.code else { return };
        let socket = UdpSocket::bind((self.address, 53)).unwrap();
        thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut message) {
                if length > 3 {
                    message[2] |= 0x80;
                    message[3] = 0x80 | code;
                    // The client may have ended its run.
                    let _ = socket.send_to(&message[..length], client);
                }
            }
        });
    }
}

/// Open resources of a process while no run is in flight.
#[derive(Clone, Copy)]
pub struct Open {
    pub descriptors: f64,
    pub threads: f64,
    pub resident: f64,
}

impl fmt::Display for Open {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, threads, resident } = self;
        write!(formatter, "{descriptors} descriptors, {threads} threads, {resident:.1} MiB")
    }
}

impl Open {
    fn of(daemon: &Daemon) -> Self {
        let scrape = daemon.scrape();
        let sum = |name: &str| scrape.sum(name);
        Self {
            descriptors: sum("process_open_fds"),
            threads: sum("process_threads"),
            resident: sum("process_resident_memory_bytes") / f64::from(1 << 20),
        }
    }
}

/// Waits for that many failures. Returns what was open before and after them. Fails if the number
/// of open resources does not return to its previous value.
#[track_caller]
pub fn measure(kind: &Kind, runs: f64, probes: u32) -> [Open; 2] {
    let place = Place::new("");
    place.write("ca.pem", &kind.ca_pem);
    let at_rest = format!(
        "{LISTEN}[schedule]\nmax_concurrent_per_provider = 64\n[provider.rest]\napi = \"openai\"\n\
         base_url = \"http://{CLOSED}/v1\"\n{KEY}\nchecks = []\n\
         [[probe]]\nname = \"rest\"\nprovider = \"rest\"\ncheck = \"auth\"\ninterval = \"24h\"\n"
    );
    let provider = kind.provider.replace("\"CA\"", &format!("\"{}\"", place.path("ca.pem").display()));
    let mut failing =
        format!("{at_rest}[provider.failing]\napi = \"openai\"\n{provider}\n{KEY}\nchecks = []\n");
    for number in 0..probes {
        let probe = format!("provider = \"failing\"\ninterval = \"{INTERVAL}\"\n{}", kind.probe);
        writeln!(failing, "[[probe]]\nname = \"failing-{number}\"\n{probe}").unwrap();
    }
    place.write("config.toml", &at_rest);
    let daemon = start(kind, &place);
    let before = Open::of(&daemon);
    place.write("config.toml", &failing);
    daemon.reload();
    wait_for_failures(&daemon, kind, runs);
    place.write("config.toml", &at_rest);
    daemon.reload();
    let after = wait_for(&format!("{} to close everything, before it {before}", kind.name), || {
        let open = Open::of(&daemon);
        let leaks = open.descriptors > before.descriptors + ALLOWED_GROWTH
            || open.threads > before.threads + ALLOWED_GROWTH;
        (!leaks).then_some(open)
    });
    [before, after]
}

/// Starts the daemon, with a name server of its own if the kind has one.
#[track_caller]
fn start(kind: &Kind, place: &Place) -> Daemon {
    let Some(name_server) = kind.name_server else { return place.daemon() };
    name_server.start();
    place.write("resolv.conf", &format!("nameserver {}\n", name_server.address));
    let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount]).arg(place.path("resolv.conf"));
    command.args([PROBER, "run", "--config"]).arg(place.path("config.toml")).env("SIM_KEY", "sk-test");
    Daemon::start(command)
}

#[track_caller]
fn wait_for_failures(daemon: &Daemon, kind: &Kind, runs: f64) {
    let failures = |scrape: &Scrape, reason: &str| -> f64 {
        let labels: &[_] = &[("provider", "failing"), ("reason", reason)];
        scrape
            .values("langmart_probe_failures_total", &labels[..=usize::from(!reason.is_empty())])
            .iter()
            .sum()
    };
    let mut wanted = 0.0;
    while wanted < runs {
        wanted = runs.min(wanted + MAX_WAITED_FAILURES);
        daemon.scrape_until(&format!("{wanted} runs to fail, some by {:?}", kind.reasons), |scrape| {
            let as_expected: f64 = kind.reasons.iter().map(|reason| failures(scrape, reason)).sum();
            failures(scrape, "") >= wanted && as_expected > 0.0
        });
    }
}

/// Returns whether the machine has what the kind needs.
pub fn is_possible(kind: &Kind) -> bool {
    kind.name_server.is_none() || parts::has(&["unshare", "mount"], true)
}

#[track_caller]
fn check(kind: &Kind) {
    if is_possible(kind) {
        let [before, after] = measure(kind, 500.0, 100);
        println!("{}: {before}; after 500 failures: {after}", kind.name);
    }
}

#[test]
fn refused_connections_leak_nothing() {
    check(&refused());
}

#[test]
fn resets_in_the_handshake_leak_nothing() {
    check(&reset_in_handshake());
}

#[test]
fn untrusted_certificates_leak_nothing() {
    check(&untrusted());
}

#[test]
fn disconnects_leak_nothing() {
    check(&disconnect());
}

#[test]
fn disconnects_over_http2_leak_nothing() {
    check(&disconnect_http2());
}

#[test]
fn malformed_responses_leak_nothing() {
    check(&malformed());
}

#[test]
fn timeouts_leak_nothing() {
    check(&timeout());
}

#[test]
fn timeouts_over_http2_leak_nothing() {
    check(&timeout_http2());
}

#[test]
fn timeouts_of_kept_connections_leak_nothing() {
    check(&timeout_warm());
}

#[test]
fn refusals_of_a_proxy_leak_nothing() {
    check(&proxy_refusal());
}

#[test]
fn refusals_of_a_socks_proxy_leak_nothing() {
    check(&socks_refusal());
}

#[test]
fn names_that_do_not_exist_leak_nothing() {
    check(&no_such_name());
}

#[test]
fn lookups_without_a_server_leak_nothing() {
    check(&no_name_server());
}
