//! Tests of proxies of every kind, with the network check and one that sends a request: good ones,
//! bad ones, and secrets.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use langmart_prober::{
    config::{Environment, Key, KeySource, Keys, Probe, Provider, Secret, parse},
    outcome::{Api, Check, Fault, Outcome, Reason, Record},
    probe::{NetworkStack, Target},
    simulator::{Options, Scenario, Simulator},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::harness::{
    lab::{Lab, SERVER},
    parts,
    probes::{config, detail_of, probe, provider, run},
    raw::{RawServer, scripted},
    tunnel::{Chain, Manner, TlsServer},
};

const PROBER: &str = env!("CARGO_BIN_EXE_langmart-prober");

/// Above the duration of any run over loopback on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A loopback address without a listener.
const CLOSED_ADDRESS: &str = "127.77.0.1:9";

/// Credentials with special characters of URLs and headers, and the same in base64.
const CREDENTIALS: &str = "us%er:canary:p@ss/wörd";
const IN_BASE64: &str = "dXMlZXI6Y2FuYXJ5OnBAc3Mvd8O2cmQ=";

fn simulator() -> Simulator {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Simulator::start(Options { listen, tls_listen: Some(listen), scenario: Scenario::default() }).unwrap()
}

/// Returns a provider behind a proxy, with credentials if there are any.
fn behind(proxy: &str, credentials: Option<&str>, target: &str) -> Provider {
    let key =
        |text: &str| Key { value: Secret::new(text.to_owned()), source: KeySource::Env("P".to_owned()) };
    Provider {
        proxy: Some(proxy.parse().unwrap()),
        proxy_auth: credentials.map(key),
        ..provider(Api::Openai, target)
    }
}

/// Runs both checks through the proxy, which must agree, and prints their row.
#[track_caller]
fn both(
    fault: &str,
    provider: impl Fn() -> Provider,
    reason: Reason,
    detail: &str,
    remedy: &str,
) -> [Outcome; 2] {
    [Check::Network, Check::Auth].map(|check| {
        let outcome = run(Probe { timeout: TIMEOUT, ..probe(provider(), check) });
        let Outcome { reason: found, fault: whose, hint, .. } = &outcome;
        let said = detail_of(&outcome);
        println!("{fault:<34} | {check:<7} | {found:<5} | {whose:<7} | {said} | {hint}");
        let blamed = if reason == Reason::Ok { Fault::None } else { Fault::Network };
        assert_eq!((*found, *whose), (reason, blamed), "{fault}, {check}: {outcome:#?}");
        assert!(said.contains(detail), "{fault}, {check}: {detail:?} is not in {outcome:#?}");
        assert!(hint.contains(remedy), "{fault}, {check}: {remedy:?} is not in {outcome:#?}");
        let sum: Duration = outcome.phases.durations().iter().sum();
        assert!(sum.abs_diff(outcome.duration) < Duration::from_millis(1), "{fault}, {check}: {outcome:#?}");
        if reason == Reason::Proxy {
            assert_eq!(outcome.tls, None, "{fault}, {check}: the target was not reached: {outcome:#?}");
        }
        outcome
    })
}

const TARGET: &str = "https://192.0.2.1/v1";

/// Returns whether curl uses the proxy for the URL with that `no_proxy`.
fn curl_uses_proxy(url: &str, no_proxy: &str) -> bool {
    let [proxy, target] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = |listener: &TcpListener| listener.local_addr().unwrap();
    let mut curl = Command::new("curl");
    curl.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
    curl.env("http_proxy", format!("http://{}", address(&proxy))).env("no_proxy", no_proxy);
    // Direct connections of curl lead to the target.
    curl.args(["-s", "-o", "/dev/null", "--max-time", "20", "--connect-to"]);
    curl.arg(format!("::127.0.0.1:{}", address(&target).port())).arg(url);
    let mut child = curl.spawn().unwrap();
    let asked = loop {
        let accepted = [&proxy, &target].map(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept().is_ok()
        });
        match accepted {
            [true, _] => break true,
            [_, true] => break false,
            _ => assert!(child.try_wait().unwrap().is_none(), "curl ended without a connection: {url}"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    asked
}

#[test]
fn no_proxy_is_read_as_curl_reads_it() {
    if !parts::has(&["curl"], false) {
        return;
    }
    let mut differing = Vec::new();
    for (host, no_proxy) in [
        ("api.corp.test", "corp.test"),
        ("api.corp.test", "CORP.test."),
        ("api.corp.test", "api.corp.test."),
        ("api.corp.test.", "corp.test"),
        ("api.corp.test.", "api.corp.test."),
        ("api.corp.test", "other.test,\tcorp.test"),
        ("api.corp.test", "other.test \t corp.test"),
        ("api.corp.test", "\tcorp.test\t"),
        ("api.corp.test", "other.test,,, corp.test"),
        ("api.corp.test", ".corp.test."),
        ("api.corp.test", "..corp.test"),
        ("api.corp.test", "corp.test.."),
        ("api.corp.test", "."),
        ("api.corp.test.", "."),
        ("api.corp.test", "test"),
        ("api.corp.test", "orp.test"),
        ("api.corp.test", "api.corp"),
        ("corp.test", ".corp.test"),
        ("corp.test", "api.corp.test"),
        ("a_b.corp.test", "B.corp.test"),
        ("corp.test", "*"),
        ("corp.test", " "),
        ("192.0.2.9", "192.0.2.9"),
        ("192.0.2.9", "2.9"),
        ("192.0.2.9", ".0.2.9"),
        ("192.0.2.9", "192.0.2.9."),
        ("192.0.2.9", "192.0.2.0/24"),
        ("192.0.2.9", "192.0.3.0/24\t192.0.2.8/31"),
        ("192.0.2.9", "192.0.2.8/32"),
        // curl 7.88 compares IPv6 as text, and does not support other notations and networks.
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8:1::/48"),
        ("[2001:db8::9]", "db8::9"),
    ] {
        let url = format!("http://{host}/v1");
        let proxy = "http://127.0.0.1:3128";
        let variable = |name: &str| match name {
            "http_proxy" => Some(proxy.into()),
            "no_proxy" => Some(no_proxy.into()),
            _ => None,
        };
        let environment = Environment { variable: &variable, system_roots: &Vec::new };
        let text = format!("[provider.openai]\nbase_url = {url:?}\n");
        let config = parse(&text, "config.toml", Keys::Required, &environment).unwrap().config;
        let ours = config.providers["openai"].proxy.is_some();
        if ours != curl_uses_proxy(&url, no_proxy) {
            differing.push(format!("{host} with {no_proxy:?}: by the proxy: {ours}"));
        }
    }
    assert!(differing.is_empty(), "curl differs:\n{}", differing.join("\n"));
}

#[test]
fn unreachable_proxies_are_reported() {
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let remedy = "check proxy in the provider's section";
        let refused = || behind(&format!("{scheme}://{CLOSED_ADDRESS}"), None, TARGET);
        let detail = "connecting to the proxy: connection refused";
        both(&format!("{scheme} refused"), refused, Reason::Proxy, detail, remedy);
        let unknown = || behind(&format!("{scheme}://proxy.invalid:8080"), None, TARGET);
        let detail = "looking up the proxy: the name does not exist (NXDOMAIN)";
        both(&format!("{scheme} unknown"), unknown, Reason::Proxy, detail, remedy);
    }
    let target = || behind("socks5://127.0.0.1:9", None, "https://nothing.invalid");
    both("socks5, the target unknown", target, Reason::Proxy, "looking up the target: the name does not", "");
}

#[test]
fn proxies_with_bad_answers_are_reported() {
    let server = RawServer::start();
    let proxy = format!("http://{}", server.address);
    let page = "Content-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>";
    let through = |credentials| {
        let proxy = proxy.clone();
        move || behind(&proxy, credentials, TARGET)
    };
    for (status, credentials, detail, remedy) in [
        (
            "403 Forbidden",
            None,
            "the proxy answered CONNECT with 403: it does not allow the target",
            "whether it allows the target",
        ),
        (
            "502 Bad Gateway",
            None,
            "the proxy answered CONNECT with 502: it cannot reach the target",
            "whether it allows the target",
        ),
        ("407 Authenticate", None, "the proxy requires credentials (407)", "by proxy_auth"),
        (
            "407 Authenticate",
            Some(CREDENTIALS),
            "the proxy does not accept the credentials (407)",
            "correct it",
        ),
    ] {
        server.play(format!("HTTP/1.1 {status}\r\n{page}").into_bytes());
        both(&format!("http, {status}"), through(credentials), Reason::Proxy, detail, remedy);
    }
    server.play(page.as_bytes().to_vec());
    both("http, no HTTP", through(None), Reason::Proxy, "the proxy's answer could not be understood", "");
    server.play(Vec::new());
    both("http, closed", through(None), Reason::Proxy, "the proxy closed the connection", "");
    // It claims to be connected, so later failures count as the target's handshake.
    server.play(format!("HTTP/1.1 200 OK\r\n{page}").into_bytes());
    both("http, a page in place of a tunnel", through(None), Reason::Tls, "handshake", "");
    // Plain http has no tunnel, so the proxy's own pages look like the target's.
    for status in ["502 Bad Gateway", "503 Unavailable", "403 Forbidden", "200 OK"] {
        server.play(format!("HTTP/1.1 {status}\r\n{page}").into_bytes());
        let outcome = run(probe(behind(&proxy, None, "http://192.0.2.1/v1"), Check::Auth));
        assert_eq!((outcome.reason, outcome.fault), (Reason::Proxy, Fault::Network), "{outcome:#?}");
    }
}

#[test]
fn refusals_of_socks_proxies_are_reported() {
    // RFC 1928: no acceptable method; then each reply code of a proxy without authentication.
    let refusal = |answers: &[&'static [u8]], credentials: Option<&'static str>, detail: &str| {
        for scheme in ["socks5", "socks5h"] {
            let proxy = format!("{scheme}://{}", scripted(answers));
            both(
                &format!("{scheme} {detail}"),
                || behind(&proxy, credentials, TARGET),
                Reason::Proxy,
                detail,
                "",
            );
        }
    };
    refusal(&[&[5, 0xff]], None, "the proxy requires credentials");
    refusal(&[&[5, 0xff]], Some("a:b"), "the proxy does not accept the credentials");
    refusal(&[&[5, 2], &[1, 1]], Some("a:b"), "the proxy does not accept the credentials");
    refusal(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"], None, "the proxy's answer could not be understood");
    let replies: [(&[u8], &str); 7] = [
        (&[5, 1, 0, 1, 0, 0, 0, 0, 0, 0], "the proxy failed"),
        (&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0], "the proxy does not allow the target"),
        (&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0], "cannot reach the target: network unreachable"),
        (&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0], "cannot reach the target: host unreachable"),
        (&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0], "cannot reach the target: connection refused"),
        (&[5, 6, 0, 1, 0, 0, 0, 0, 0, 0], "cannot reach the target: no answer"),
        (&[5, 99, 0, 1, 0, 0, 0, 0, 0, 0], "the proxy's answer could not be understood"),
    ];
    for (reply, detail) in replies {
        refusal(&[&[5, 0], reply], None, detail);
    }
    refusal(&[&[5, 0], &[]], None, "the proxy closed the connection");
}

#[test]
fn tls_proxy_works() {
    let simulator = simulator();
    let chain = Chain::new();
    let authority = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
    let target = format!("https://{}/openai/v1", simulator.tls_address().unwrap());
    let guarded = TlsServer::proxy(&chain, Manner::Guarded(IN_BASE64));
    let trusting = |proxy: SocketAddr, credentials: Option<&str>| Provider {
        ca_certificates: vec![authority.clone(), chain.root.clone()],
        ..behind(&format!("https://{proxy}"), credentials, &target)
    };
    let good = || trusting(guarded.address, Some(CREDENTIALS));
    for outcome in both("https, credentials", good, Reason::Ok, "", "") {
        assert_eq!(outcome.remote_address, Some(guarded.address));
        // The proxy's handshake is part of the connection; the reported one is the target's.
        let [_, connect, tls, ..] = outcome.phases.durations();
        assert!(connect > Duration::ZERO && tls > Duration::ZERO, "{outcome:#?}");
        assert_ne!(outcome.tls.unwrap().not_after, None);
        let year_2099 = Duration::from_secs(4_070_908_800);
        assert_eq!(
            outcome.tls.unwrap().not_after.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap(),
            year_2099
        );
    }
    for head in guarded.heads.lock().unwrap().iter() {
        assert!(!head.contains("sk-test"), "the key is sent to the target only: {head}");
    }
    let none = || trusting(guarded.address, None);
    both("https, no credentials", none, Reason::Proxy, "the proxy requires credentials (407)", "proxy_auth");
    let wrong = || trusting(guarded.address, Some("user:canary"));
    both(
        "https, wrong credentials",
        wrong,
        Reason::Proxy,
        "does not accept the credentials (407)",
        "correct it",
    );

    let open = TlsServer::proxy(&chain, Manner::Open);
    both("https, good", || trusting(open.address, None), Reason::Ok, "", "");
    let stranger = || Provider { ca_certificates: vec![authority.clone()], ..trusting(open.address, None) };
    let detail = "TLS with the proxy: certificate of an untrusted issuer";
    both("https, untrusted", stranger, Reason::Proxy, detail, "");
    let other = || {
        let mut provider = trusting(open.address, None);
        provider.ca_certificates.remove(0);
        provider
    };
    both("https, the target untrusted", other, Reason::Tls, "certificate of an untrusted issuer", "ca_file");
    let plain = scripted(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]);
    let detail = "TLS with the proxy: handshake: the answer is not TLS";
    both("https, plain", || trusting(plain, None), Reason::Proxy, detail, "");
}

#[test]
fn proxy_password_is_not_recorded() {
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let provider = || behind(&format!("{scheme}://{CLOSED_ADDRESS}"), Some(CREDENTIALS), TARGET);
        let probes =
            [Check::Network, Check::Auth].map(|check| Probe { timeout: TIMEOUT, ..probe(provider(), check) });
        let config = config(probes.into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for target in Target::prepare(&config, &NetworkStack::new().into()).unwrap() {
            let outcome = runtime.block_on(target.run());
            let record = Record { subject: target.probe().subject(), outcome: &outcome };
            let shown =
                format!("{target:?} {outcome:?} {config:?} {}", serde_json::to_string(&record).unwrap());
            for secret in ["canary", "us%er", IN_BASE64, "p%40ss"] {
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
        }
    }
}

/// Starts the lab with a simulator, two tinyproxies and two microsocks, each with and without
/// credentials. Returns also the path of the simulator's authority.
fn lab() -> Option<(Lab, String)> {
    if !parts::has(&["ip", "ethtool", "python3", "tinyproxy", "microsocks"], true) {
        return None;
    }
    let mut lab = Lab::start(0.0, 0.0);
    let ca = lab.directory().join("ca.pem").to_str().unwrap().to_owned();
    let mut simulator = lab.on_server(PROBER);
    simulator.args(["simulate", "--listen", &format!("{SERVER}:8080")]);
    simulator.args(["--tls-listen", &format!("{SERVER}:8443"), "--ca-file", &ca]);
    lab.spawn(simulator);
    for (port, rest) in [(8888, ""), (8889, "BasicAuth user canary-pass\n")] {
        let path = lab.directory().join(format!("tinyproxy-{port}.conf"));
        let text = format!(
            "Port {port}\nListen {SERVER}\nTimeout 60\nMaxClients 20\nConnectPort 8443\nConnectPort 1\n{rest}"
        );
        fs::write(&path, text).unwrap();
        announced(&mut lab, port, &format!("tinyproxy -d -c {}", path.display()));
    }
    announced(&mut lab, 1080, &format!("microsocks -i {SERVER} -p 1080"));
    announced(&mut lab, 1081, &format!("microsocks -i {SERVER} -p 1081 -u user -P canary-pass"));
    Some((lab, ca))
}

/// Starts a server that does not report when it is ready.
fn announced(lab: &mut Lab, port: u16, command: &str) {
    let look = format!(
        "import socket, time\nfor _ in range(600):\n try:\n  socket.create_connection(('{SERVER}', {port}), 1)\n  \
         print('ready')\n  break\n except OSError: time.sleep(0.05)"
    );
    let mut shell = lab.on_server("sh");
    shell.args(["-c", &format!("python3 -c \"$LOOK\" & exec {command} >/dev/null 2>&1")]).env("LOOK", look);
    lab.spawn(shell);
}

/// Returns the records of network and auth checks of that URL through that proxy in the lab.
fn once(lab: &Lab, ca: &str, proxy: &str, credentials: Option<&str>, base_url: &str) -> Vec<Value> {
    let path = lab.directory().join("proxies.toml");
    let proxy_auth = credentials.map_or("", |_| "proxy_auth = { env = \"PROXY_AUTH\" }\n");
    let text = format!(
        "[defaults]\ntimeout = \"5s\"\n[provider.p]\napi = \"openai\"\nbase_url = \"{base_url}\"\nca_file = \"{ca}\"\n\
         api_key = {{ env = \"SIM_KEY\" }}\nallow_plain_http = true\nchecks = [\"network\", \"auth\"]\n\
         proxy = \"{proxy}\"\n{proxy_auth}"
    );
    fs::write(&path, text).unwrap();
    let mut once = lab.on_client(PROBER);
    once.env("SIM_KEY", "sk-test").env("PROXY_AUTH", credentials.unwrap_or_default());
    let output = once.args(["once", "--json", "--config"]).arg(&path).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!out.contains("canary") && !err.contains("canary"), "{out}{err}");
    let records: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2, "{err}");
    records
}

const HTTPS: &str = "https://api.sim.test:8443/openai/v1";
const HTTP: &str = "http://api.sim.test:8080/openai/v1";
const CLOSED: &str = "https://api.sim.test:1/openai/v1";
const UNLISTED: &str = "https://api.sim.test:2/openai/v1";
const ADDRESS: &str = "https://10.77.0.2:8443/openai/v1";
const GOOD: Option<&str> = Some("user:canary-pass");
const BAD: Option<&str> = Some("user:canary-wrong");

/// Proxy, credentials, target, verdict and a part of the detail.
type Proxied = (&'static str, Option<&'static str>, &'static str, &'static str, &'static str);

const PROXIED: &[Proxied] = &[
    ("http://proxy.sim.test:8888", None, HTTPS, "ok none", ""),
    ("http://proxy.sim.test:8888", None, HTTP, "ok none", ""),
    ("http://proxy.sim.test:8888", None, CLOSED, "proxy network", "the proxy answered CONNECT with "),
    ("http://proxy.sim.test:8888", None, UNLISTED, "proxy network", "the proxy answered CONNECT with "),
    ("http://proxy.sim.test:8889", None, HTTPS, "proxy network", "the proxy requires credentials (407)"),
    // tinyproxy answers 401 to bad credentials, and the client distinguishes no status of
    // CONNECT except 407.
    ("http://proxy.sim.test:8889", BAD, HTTPS, "proxy network", "the proxy answered CONNECT with "),
    ("http://proxy.sim.test:8889", GOOD, HTTPS, "ok none", ""),
    ("socks5://proxy.sim.test:1080", None, HTTPS, "ok none", ""),
    ("socks5://proxy.sim.test:1080", None, HTTP, "ok none", ""),
    ("socks5h://proxy.sim.test:1080", None, HTTPS, "ok none", ""),
    ("socks5h://10.77.0.2:1080", None, HTTP, "ok none", ""),
    ("socks5h://10.77.0.2:1080", None, ADDRESS, "tls provider", "wrong name"),
    ("socks5://10.77.0.2:1080", None, CLOSED, "proxy network", "cannot reach the target: connection refused"),
    (
        "socks5h://10.77.0.2:1080",
        None,
        CLOSED,
        "proxy network",
        "cannot reach the target: connection refused",
    ),
    ("socks5h://10.77.0.2:1081", None, HTTPS, "proxy network", "the proxy requires credentials"),
    ("socks5h://10.77.0.2:1081", BAD, HTTPS, "proxy network", "the proxy does not accept the credentials"),
    ("socks5h://10.77.0.2:1081", GOOD, HTTPS, "ok none", ""),
    ("socks5://10.77.0.2:1081", GOOD, HTTPS, "ok none", ""),
    ("http://10.77.0.2:1080", None, HTTPS, "proxy network", ""),
    // tinyproxy waits for the rest of an apparent request.
    ("socks5://10.77.0.2:8888", None, HTTPS, "timeout network", "reached, but opened no tunnel within 5s"),
];

#[test]
fn real_proxies_in_the_lab() {
    let Some((lab, ca)) = lab() else { return };
    for &(proxy, credentials, target, verdict, detail) in PROXIED {
        for record in once(&lab, &ca, proxy, credentials, target) {
            let text = |member: &str| record[member].as_str().unwrap_or_default();
            let found = format!("{} {}", text("reason"), text("fault"));
            println!(
                "{proxy:<30} | {:<7} | {found:<13} | {} | {}",
                text("check"),
                text("detail"),
                text("hint")
            );
            assert_eq!(found, verdict, "{proxy} {target}: {record:#}");
            let said = text("detail");
            assert!(said.contains(detail), "{proxy} {target}: {detail:?} is not in {record:#}");
            if verdict == "ok none" && text("check") == "network" {
                let port = proxy.rsplit(':').next().unwrap();
                assert_eq!(text("remote_address"), format!("{SERVER}:{port}"));
                assert_eq!(
                    said.contains("only the proxy was reached"),
                    target == HTTP && proxy.starts_with("http")
                );
            }
        }
    }
}

#[test]
fn lookups_happen_at_client_or_proxy_by_kind() {
    let Some((mut lab, ca)) = lab() else { return };
    let path = lab.directory().join("packets");
    let mut recorder = lab.on_client("python3");
    recorder.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/record.py")).arg(&path);
    lab.spawn(recorder);
    let https = "https://api.sim.test:8443/openai/v1";
    for (proxy, expected) in [
        ("socks5h://10.77.0.2:1080", "tcp 10.77.0.2 1080\n"),
        ("http://10.77.0.2:8888", "tcp 10.77.0.2 8888\n"),
        ("socks5://10.77.0.2:1080", "udp 10.77.0.2 53\n"),
    ] {
        let before = fs::read_to_string(&path).unwrap_or_default();
        for record in once(&lab, &ca, proxy, None, https) {
            assert_eq!(record["reason"], "ok", "{record:#}");
            let resolve = record["phases"]["resolve"].as_f64().unwrap();
            assert_eq!(resolve > 0.0, proxy.starts_with("socks5:"), "{record:#}");
        }
        // Each destination is recorded once: the last proxy is known by then, the name server is
        // not.
        assert_eq!(fs::read_to_string(&path).unwrap(), before + expected, "{proxy}");
    }
}

#[test]
fn daemon_never_shows_the_proxy_password() {
    let simulator = simulator();
    let chain = Chain::new();
    let guarded = TlsServer::proxy(&chain, Manner::Guarded(IN_BASE64));
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, format!("{}{}", simulator.ca_pem(), chain.root_pem)).unwrap();
    let path = directory.path().join("config.toml");
    let target = format!("https://{}/openai/v1", simulator.tls_address().unwrap());
    let provider = |name: &str, proxy: &str| {
        format!(
            "[provider.{name}]\napi = \"openai\"\nbase_url = \"{target}\"\napi_key = {{ env = \"SIM_KEY\" }}\n\
             ca_file = \"{}\"\nchecks = [\"network\", \"auth\"]\nproxy = \"{proxy}\"\n\
             proxy_auth = {{ env = \"PROXY_AUTH\" }}\n",
            ca.display()
        )
    };
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"trace\"\ndirectory = \"{}\"\n\
         [defaults]\ninterval = \"1s\"\n{}{}{}",
        directory.path().display(),
        provider("good", &format!("https://{}", guarded.address)),
        provider("socks", &format!("socks5h://{CLOSED_ADDRESS}")),
        provider("bad", &format!("http://{CLOSED_ADDRESS}")),
    );
    fs::write(&path, text).unwrap();
    let daemon = Command::new(PROBER)
        .args(["run", "--config"])
        .arg(&path)
        .env("SIM_KEY", "sk-test-canary")
        .env("PROXY_AUTH", CREDENTIALS)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let kept = || -> String {
        let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let written = files.filter(|file| *file != path);
        written.map(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned()).collect()
    };
    let start = Instant::now();
    let all_ran = |kept: &str| {
        let checks = ["good-network", "good-auth", "socks-network", "socks-auth", "bad-network", "bad-auth"];
        checks.iter().all(|name| kept.matches(&format!("\"probe\":\"{name}\"")).count() > 1)
    };
    while !all_ran(&kept()) && start.elapsed() < 6 * TIMEOUT {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    let output = daemon.wait_with_output().unwrap();
    let shown = kept() + &String::from_utf8_lossy(&output.stderr) + &String::from_utf8_lossy(&output.stdout);
    assert!(all_ran(&shown), "{shown}");
    assert!(shown.contains("\"reason\":\"ok\""), "{shown}");
    for secret in ["canary", "us%er", IN_BASE64, "p%40ss", "p@ss"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn environment_proxies_and_no_proxy_are_used() {
    let simulator = simulator();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, simulator.ca_pem()).unwrap();
    let path = directory.path().join("config.toml");
    let once = |extra: &str, variables: &[(&str, String)]| -> (String, String) {
        let text = format!(
            "[provider.p]\napi = \"openai\"\nbase_url = \"https://nowhere.invalid\"\nca_file = \"{}\"\n\
             checks = [\"network\"]\n{extra}\n",
            ca.display()
        );
        fs::write(&path, text).unwrap();
        let mut once = Command::new(PROBER);
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.to_string_lossy().to_lowercase().ends_with("_proxy"))
        {
            once.env_remove(name);
        }
        once.envs(variables.iter().map(|(name, value)| (name, value)));
        let output =
            once.args(["once", "--json", "--config"]).arg(&path).stderr(Stdio::inherit()).output().unwrap();
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |member: &str| record[member].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("detail"))
    };
    let proxy = |detail: &str| ("proxy".to_owned(), detail.to_owned());
    let direct = ("dns".to_owned(), "the name does not exist (NXDOMAIN)".to_owned());
    let refused = proxy("connecting to the proxy: connection refused");
    let set = |name, value: &str| (name, value.to_owned());
    assert_eq!(once("", &[]), direct);
    assert_eq!(once("", &[set("https_proxy", CLOSED_ADDRESS)]), refused);
    assert_eq!(once("", &[set("ALL_PROXY", &format!("socks5h://{CLOSED_ADDRESS}"))]), refused);
    assert_eq!(
        once("", &[set("HTTPS_PROXY", CLOSED_ADDRESS), set("no_proxy", ""), set("NO_PROXY", "invalid")]),
        direct
    );
    assert_eq!(once("proxy = \"none\"", &[set("HTTPS_PROXY", CLOSED_ADDRESS)]), direct);
}
