//! Tests of the network check with real faults of the guide's connection section: reason, detail,
//! remedy.

use std::{
    collections::BTreeSet,
    fs,
    net::ToSocketAddrs,
    thread,
    time::{Duration, Instant, SystemTime},
};

use langmart_prober::{
    config::{Probe, Provider},
    metrics::Metrics,
    outcome::{AddressFailure, Api, Check, Fault, Outcome, Reason},
    simulator::{FullListener, Options, Scenario, Simulator},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::harness::{
    lab::{Lab, SERVER},
    parts,
    probes::{config, detail_of, probe, provider, run},
    raw::scripted,
    tunnel::{Chain, TlsServer},
};

const PROBER: &str = env!("CARGO_BIN_EXE_langmart-prober");

/// Above the duration of any run over loopback on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of runs that must reach it.
const SHORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the first of January of that year, as in the test certificates.
fn january(year: u64) -> SystemTime {
    // Years from 2020 on, with leap days, which are regular until 2100.
    let days = 18_262 + (year - 2020) * 365 + (year - 2017) / 4;
    SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400)
}

fn simulator(listen: &str, scenario: &str) -> Simulator {
    let listen = format!("{listen}:0").parse().unwrap();
    let scenario = Scenario::parse(scenario).unwrap();
    Simulator::start(Options { listen, tls_listen: Some(listen), scenario }).unwrap()
}

fn trusting(authority: &CertificateDer<'static>, base_url: &str) -> Provider {
    Provider { ca_certificates: vec![authority.clone()], ..provider(Api::Openai, base_url) }
}

fn network(provider: Provider, timeout: Duration) -> Outcome {
    run(Probe { timeout, ..probe(provider, Check::Network) })
}

/// Prints the row of a fault, and compares verdict, detail and remedy.
#[track_caller]
fn row(fault: &str, outcome: &Outcome, reason: Reason, blamed: Fault, detail: &str, remedy: &str) {
    let Outcome { reason: found, fault: whose, hint, .. } = outcome;
    let text = detail_of(outcome);
    println!("{fault:<36} | {found:<8} | {whose:<8} | {text} | {hint}");
    assert_eq!((*found, *whose), (reason, blamed), "{fault}: {outcome:#?}");
    assert!(text.contains(detail), "{fault}: {detail:?} is not in the detail of {outcome:#?}");
    assert!(hint.contains(remedy), "{fault}: {remedy:?} is not in the hint of {outcome:#?}");
    assert_eq!(hint.is_empty(), reason == Reason::Ok, "{fault}: {outcome:#?}");
    let sum: Duration = outcome.phases.durations().iter().sum();
    assert_eq!(sum, outcome.duration, "{fault}: {outcome:#?}");
    let [.., processing, transfer] = outcome.phases.durations();
    assert_eq!((processing, transfer), (Duration::ZERO, Duration::ZERO), "{fault}: {outcome:#?}");
    assert_eq!((outcome.http_status, outcome.http_version), (None, None), "{fault}: {outcome:#?}");
}

#[test]
fn good_network_is_one_connection_and_no_request() {
    for listen in ["127.0.0.1", "[::1]"] {
        let simulator = simulator(listen, "");
        let authority = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
        let address = simulator.tls_address().unwrap();
        let outcome = network(trusting(&authority, &format!("https://{address}/openai/v1")), TIMEOUT);
        row(&format!("none, {listen}"), &outcome, Reason::Ok, Fault::None, "", "");
        assert_eq!(outcome.remote_address, Some(address));
        let tls = outcome.tls.unwrap();
        assert_eq!(tls.version, Some("1.3"));
        assert!(tls.cipher.unwrap().starts_with("TLS13_"), "{tls:?}");
        assert_eq!(outcome.phases.resolve, Duration::ZERO, "an address is not looked up");
        assert!(outcome.dns.is_empty() && outcome.network.as_ref().unwrap().dns_servers.is_empty());

        let plain = simulator.address();
        let outcome = network(provider(Api::Openai, &format!("http://{plain}/openai/v1")), TIMEOUT);
        row(&format!("none, {listen}, plain http"), &outcome, Reason::Ok, Fault::None, "", "");
        assert_eq!((outcome.tls, outcome.phases.tls), (None, Duration::ZERO));
        let start = Instant::now();
        while simulator.connections() < 2 && start.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(1)); // it accepts when it comes to it
        }
        assert_eq!((simulator.connections(), simulator.requests().len()), (2, 0));
    }
}

#[test]
fn failed_addresses_are_reported() {
    // A loopback name has two addresses, and the simulator listens on one of them.
    let simulator = simulator("127.0.0.1", "");
    let authority = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
    let port = simulator.tls_address().unwrap().port();
    let outcome = network(trusting(&authority, &format!("https://localhost:{port}")), TIMEOUT);
    row("one address of two refuses", &outcome, Reason::Ok, Fault::None, "", "");
    let network = outcome.network.unwrap();
    let known = ("localhost", 0).to_socket_addrs().unwrap().count();
    assert_eq!(outcome.dns.len(), known, "as returned by the C library: {network:?}");
    assert_eq!(network.dns_servers.len(), 1, "{network:?}");
    // If IPv6 is disabled on loopback, the address is unreachable instead of refused.
    for failed in &outcome.failed_addresses {
        assert_eq!(failed.address.to_string(), "::1");
        assert_ne!(failed.error, AddressFailure::NoAnswer);
    }
    assert_eq!(outcome.failed_addresses.len(), known - 1);
    assert_eq!((simulator.connections(), simulator.requests().len()), (1, 0));
}

#[test]
fn failed_connections_have_their_reason() {
    let refused = network(provider(Api::Openai, "https://127.77.0.1:9"), TIMEOUT);
    row("TCP refused", &refused, Reason::Connect, Fault::Network, "connection refused", "firewalls");
    assert_eq!(refused.failed_addresses[0].error, AddressFailure::Refused);
    let unknown = network(provider(Api::Openai, "https://nothing.invalid"), TIMEOUT);
    row(
        "no such name",
        &unknown,
        Reason::Dns,
        Fault::Network,
        "NXDOMAIN",
        "ask a name server of the network that the name belongs to",
    );

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let full = runtime.block_on(FullListener::start()).unwrap();
    let filtered = network(provider(Api::Openai, &format!("https://{}", full.address())), SHORT_TIMEOUT);
    let detail = "no connection was made within 2s";
    row("TCP filtered", &filtered, Reason::Timeout, Fault::Network, detail, "firewall and proxy");
    assert_eq!(filtered.failed_addresses[0].error, AddressFailure::NoAnswer);
    assert!(filtered.phases.connect >= SHORT_TIMEOUT);
}

#[test]
fn failed_handshakes_have_their_reason() {
    let simulator = simulator("127.0.0.1", "");
    let authority = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
    let port = simulator.tls_address().unwrap().port();
    let rows = [
        ("expired", Fault::Provider, "certificate expired", "renew its certificate"),
        ("future", Fault::Network, "certificate not yet valid", "clock"),
        ("wrong", Fault::Provider, "certificate for a wrong name", "host that the certificate is not for"),
        ("selfsigned", Fault::Network, "certificate of an untrusted issuer", "CA certificates"),
        ("reset", Fault::Network, "handshake: the connection was reset", "TLS inspection"),
    ];
    for (name, fault, detail, remedy) in rows {
        let before = simulator.connections();
        let outcome = network(trusting(&authority, &format!("https://{name}.localhost:{port}")), TIMEOUT);
        row(name, &outcome, Reason::Tls, fault, detail, remedy);
        assert_eq!((simulator.connections(), simulator.requests().len()), (before + 1, 0), "{name}");
        let tls = outcome.tls.unwrap();
        assert_eq!(tls.not_after.is_some(), name != "reset", "{tls:?}");
        assert_eq!(tls.cipher, None, "{tls:?}");
        if name == "expired" {
            assert_eq!(tls.not_after, Some(january(2020)));
        }
    }
    let plain = scripted(&[b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"]);
    let plain = network(trusting(&authority, &format!("https://{plain}")), TIMEOUT);
    let detail = "handshake: the answer is not TLS";
    row("plain http on the TLS port", &plain, Reason::Tls, Fault::Network, detail, "speaks TLS");

    simulator.set_scenario(Scenario::parse("[[rule]]\nfault = \"slow_handshake\"\nms = 60000").unwrap());
    let slow = network(trusting(&authority, &format!("https://127.0.0.1:{port}")), SHORT_TIMEOUT);
    let detail = "the connection was made, but the peer did not complete the TLS handshake within 2s";
    row("handshake without end", &slow, Reason::Timeout, Fault::Network, detail, "the port is open");
    assert!(slow.phases.tls > slow.phases.connect);
}

#[test]
fn missing_intermediate_is_the_servers_fault() {
    let chain = Chain::new();
    let whole = TlsServer::start(&chain, vec![chain.leaf.clone(), chain.intermediate.clone()]);
    let outcome = network(trusting(&chain.root, &format!("https://{}", whole.address)), TIMEOUT);
    row("none, a chain of three", &outcome, Reason::Ok, Fault::None, "", "");
    assert_eq!(outcome.tls.unwrap().not_after, Some(january(2040)), "the earliest of the chain");

    let partial = TlsServer::start(&chain, vec![chain.leaf.clone()]);
    let outcome = network(trusting(&chain.root, &format!("https://{}", partial.address)), TIMEOUT);
    let detail = "the server did not send its intermediate certificate";
    row("missing intermediate", &outcome, Reason::Tls, Fault::Network, detail, "intermediate");
    assert_eq!(outcome.tls.unwrap().not_after, Some(january(2050)));
}

#[test]
fn invalid_certificate_expiry_is_exported() {
    let simulator = simulator("127.0.0.1", "");
    let authority = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
    let metrics = Metrics::new(SystemTime::now());
    let names = ["localhost", "expired.localhost"];
    let probes = names.map(|name| {
        let base_url = format!("https://{name}:{}", simulator.tls_address().unwrap().port());
        Probe { name: name.to_owned(), ..probe(trusting(&authority, &base_url), Check::Network) }
    });
    let config = config(probes.into());
    metrics.configure(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let resolver = std::sync::Arc::new(langmart_prober::probe::NetworkStack::new());
    for target in langmart_prober::probe::Target::prepare(&config, &resolver).unwrap() {
        metrics.series(target.probe()).observe(&runtime.block_on(target.run()));
    }
    let known = ("localhost", 0).to_socket_addrs().unwrap().count().to_string();
    let mut page = Vec::new();
    metrics.render(SystemTime::now(), langmart_prober::metrics::Format::Text, &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    for (family, name, more, value) in [
        ("success", "localhost", "", "1"),
        ("success", "expired.localhost", "", "0"),
        ("tls_certificate_not_after_timestamp_seconds", "localhost", "", "4070908800"),
        ("tls_certificate_not_after_timestamp_seconds", "expired.localhost", "", "1577836800"),
        ("tls_info", "localhost", ",version=\"1.3\",cipher=\"TLS13_AES_256_GCM_SHA384\"", "1"),
        ("dns_addresses", "localhost", "", &known),
        ("dns_server_success", "localhost", ",server=\"system\"", "1"),
    ] {
        let labels = format!("probe=\"{name}\",provider=\"openai\",check=\"network\",model=\"\"{more}");
        let line = format!("langmart_probe_{family}{{{labels}}} {value}\n");
        assert!(page.contains(&line), "{line} is not in {page}");
    }
}

/// A name server of the lab with one reaction to every name.
struct NameServer {
    address: &'static str,
    mode: &'static str,
    answers: &'static [&'static str],
}

const GOOD: NameServer = NameServer { address: "10.77.0.10", mode: "ok", answers: &[SERVER, "fd00:77::2"] };
const SILENT: NameServer = NameServer { address: "10.77.0.14", mode: "silent", answers: &[] };
const NAME_SERVERS: [NameServer; 9] = [
    GOOD,
    NameServer { address: "10.77.0.11", mode: "nxdomain", answers: &[] },
    NameServer { address: "10.77.0.12", mode: "servfail", answers: &[] },
    NameServer { address: "10.77.0.13", mode: "refused", answers: &[] },
    SILENT,
    NameServer { address: "10.77.0.15", mode: "0.3", answers: &[SERVER] },
    NameServer { address: "10.77.0.16", mode: "empty", answers: &[] },
    // Addresses that do not exist, so that packets are lost; one that refuses; and a working one.
    NameServer { address: "10.77.0.17", mode: "ok", answers: &["10.77.0.66", "10.77.0.9", SERVER] },
    NameServer { address: "10.77.0.18", mode: "ok", answers: &["fd00:77::2"] },
];

/// Returns the lab with its name servers and a simulator, and the path of the simulator's
/// authority.
fn lab() -> Option<(Lab, String)> {
    if !parts::has(&["ip", "ethtool", "python3"], true) {
        return None;
    }
    let mut lab = Lab::start(0.0, 0.0);
    let on = |lab: &Lab, server: bool, arguments: &str| {
        let mut ip = if server { lab.on_server("ip") } else { lab.on_client("ip") };
        assert!(ip.args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
    };
    on(&lab, false, "addr add fd00:77::1/64 dev eth0 nodad");
    on(&lab, true, "addr add fd00:77::2/64 dev eth0 nodad");
    on(&lab, true, "addr add 10.77.0.9/24 dev eth0");
    on(&lab, false, "route add unreachable 192.0.2.1");
    // Frames to a host that does not exist, as with a firewall that drops them.
    on(&lab, false, "neigh add 10.77.0.66 lladdr 02:00:00:00:00:66 dev eth0 nud permanent");
    for NameServer { address, mode, answers } in NAME_SERVERS {
        on(&lab, true, &format!("addr add {address}/24 dev eth0"));
        let mut server = lab.on_server("python3");
        server.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/dns_faults.py"));
        lab.spawn({
            server.args([address, mode]).args(answers);
            server
        });
    }
    let ca = lab.directory().join("ca.pem").to_str().unwrap().to_owned();
    for (host, ca) in [(SERVER, &ca), ("[fd00:77::2]", &format!("{ca}.6"))] {
        let mut simulator = lab.on_server(PROBER);
        simulator.args(["simulate", "--listen", &format!("{host}:8080")]);
        simulator.args(["--tls-listen", &format!("{host}:8443"), "--ca-file", ca]);
        lab.spawn(simulator);
    }
    let both = fs::read_to_string(&ca).unwrap() + &fs::read_to_string(format!("{ca}.6")).unwrap();
    fs::write(&ca, both).unwrap();
    Some((lab, ca))
}

/// Returns the record of a network check of that URL in the lab, with that name server as the
/// system's.
fn once(lab: &Lab, system: &str, ca: &str, base_url: &str, extra: &str) -> Value {
    lab.ask_name_server(system);
    let path = lab.directory().join("network.toml");
    let text = format!(
        "[defaults]\ntimeout = \"2s\"\n[provider.p]\napi = \"openai\"\nbase_url = \"{base_url}\"\n\
         checks = [\"network\"]\nca_file = \"{ca}\"\n{extra}\n"
    );
    fs::write(&path, text).unwrap();
    let output = lab.on_client(PROBER).args(["once", "--json", "--config"]).arg(&path).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Prints the row of a fault in the lab, and compares it.
#[track_caller]
fn lab_row(fault: &str, record: &Value, verdict: &str, detail: &str, remedy: &str) {
    let text = |member: &str| record[member].as_str().unwrap_or_default();
    let found = format!("{} {}", text("reason"), text("fault"));
    println!("{fault:<36} | {found:<17} | {} | {}", text("detail"), text("hint"));
    assert_eq!(found, verdict, "{fault}: {record:#}");
    assert!(text("detail").contains(detail), "{fault}: {detail:?} is not in {record:#}");
    assert!(text("hint").contains(remedy), "{fault}: {remedy:?} is not in {record:#}");
}

const HTTPS: &str = "https://api.sim.test:8443/openai/v1";

#[test]
fn failed_name_servers_in_the_lab() {
    let Some((lab, ca)) = lab() else { return };
    let check = "check /etc/resolv.conf";
    for (server, verdict, detail, remedy) in [
        ("10.77.0.10", "ok none", "", ""),
        ("10.77.0.11", "dns network", "the name does not exist (NXDOMAIN)", check),
        ("10.77.0.12", "dns network", "the name server failed (SERVFAIL)", check),
        ("10.77.0.13", "dns network", "the name server refused to answer (REFUSED)", check),
        ("10.77.0.14", "timeout network", "the name lookup was not answered within 2s", "DNS"),
        ("10.77.0.15", "ok none", "", ""),
        ("10.77.0.16", "dns network", "the name has no address", check),
    ] {
        let mode = NAME_SERVERS.iter().find(|known| known.address == server).unwrap().mode;
        let alone = once(&lab, server, &ca, HTTPS, "");
        lab_row(&format!("DNS {mode}"), &alone, verdict, detail, remedy);
        // If the C library has no address, each of its servers is queried.
        let servers = if verdict == "ok none" { 1 } else { 2 };
        assert_eq!(alone["dns_servers"].as_array().unwrap().len(), servers, "{alone:#}");
        let resolve = alone["phases"]["resolve"].as_f64().unwrap();
        let expected = match mode {
            "0.3" => 0.3..1.5,
            "silent" => 1.9..2.5,
            _ => 0.0..0.3,
        };
        assert!(expected.contains(&resolve), "DNS {mode}: {alone:#}");
        if verdict == "ok none" {
            continue;
        }
        // The guide's first row: the system's resolver fails, another one answers.
        let other = once(&lab, server, &ca, HTTPS, "dns_servers = [\"10.77.0.10\", \"10.77.0.13\"]");
        let detail = format!("{detail}; 10.77.0.10 answers");
        lab_row(&format!("DNS {mode}, another answers"), &other, verdict, &detail, "such as 8.8.8.8");
        let answers = |name: &str| {
            let mut of_it = other["dns_servers"].as_array().unwrap().iter().filter(|it| it["server"] == name);
            let first = of_it.next().unwrap();
            assert!(of_it.next().is_none(), "{name} appears once: {other:#}");
            first
        };
        let [system, good, refused] = ["system", "10.77.0.10", "10.77.0.13"].map(answers);
        assert_eq!((&system["server"], &system["ok"]), (&"system".into(), &false.into()), "{other:#}");
        assert_eq!((&good["server"], &good["ok"]), (&"10.77.0.10".into(), &true.into()), "{other:#}");
        let addresses: BTreeSet<&str> =
            good["addresses"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(addresses, BTreeSet::from([SERVER, "fd00:77::2"]), "{other:#}");
        assert_eq!((&refused["ok"], &refused["error"]), (&false.into(), &"refused".into()), "{other:#}");
        assert_eq!(
            other["remote_address"],
            Value::Null,
            "addresses from another server are not connected to"
        );
    }
}

#[test]
fn other_name_servers_delay_nothing() {
    let Some((lab, ca)) = lab() else { return };
    let record = once(&lab, GOOD.address, &ca, HTTPS, "dns_servers = [\"10.77.0.14\", \"10.77.0.15\"]");
    lab_row("another name server is silent", &record, "ok none", "", "");
    let duration = record["duration_seconds"].as_f64().unwrap();
    assert!(duration < 0.3, "less than the slower lookup alone: {record:#}");
    let [system, silent, slow] = [0, 1, 2].map(|index| &record["dns_servers"][index]);
    assert_eq!((&silent["error"], &slow["ok"]), (&"no_answer".into(), &true.into()), "{record:#}");
    assert_eq!(system["ok"], true, "{record:#}");
    assert!(slow["duration_seconds"].as_f64().unwrap() >= 0.3, "{record:#}");
    let resolve = record["phases"]["resolve"].as_f64().unwrap();
    assert!(resolve < 0.3 && resolve > 0.0, "{record:#}");
}

#[test]
fn addresses_in_the_lab() {
    let Some((lab, ca)) = lab() else { return };
    let good = GOOD.address;
    for (fault, url, verdict, detail) in [
        ("TCP refused", format!("https://{SERVER}:1"), "connect network", "connection refused"),
        ("TCP filtered", "https://10.77.0.66:8443".to_owned(), "timeout network", "no connection was made"),
        ("unreachable", "https://192.0.2.1".to_owned(), "connect network", "host unreachable"),
        ("no route", "https://198.51.100.1".to_owned(), "connect network", "network unreachable"),
        // The simulator's certificate is for names, so only its name check fails.
        ("none, IPv6", "https://[fd00:77::2]:8443".to_owned(), "tls provider", "wrong name"),
    ] {
        let record = once(&lab, good, &ca, &url, "");
        lab_row(fault, &record, verdict, detail, "");
    }
    let mixed = once(&lab, "10.77.0.17", &ca, HTTPS, "");
    lab_row("two dead addresses, one living", &mixed, "ok none", "", "");
    assert_eq!(mixed["remote_address"], format!("{SERVER}:8443"));
    // The C library sorts the addresses (RFC 6724), here with the working one first; path_dial has
    // the other orders.
    let connect = mixed["phases"]["connect"].as_f64().unwrap();
    assert!((0.0..1.0).contains(&connect), "at most one head start: {mixed:#}");

    let six = once(&lab, "10.77.0.18", &ca, HTTPS, "");
    lab_row("none, IPv6 alone", &six, "ok none", "", "");
    assert_eq!(six["remote_address"], "[fd00:77::2]:8443");
    let both = once(&lab, good, &ca, HTTPS, "");
    lab_row("none, IPv4 and IPv6", &both, "ok none", "", "");
    assert_eq!(both["failed_addresses"], Value::Null);
}

#[test]
fn public_name_at_private_address_is_reported() {
    let Some((lab, ca)) = lab() else { return };
    let note = "the name resolves to a private address";
    let plain = once(&lab, GOOD.address, &ca, "http://api.provider.example:8080", "");
    lab_row("private address, connected", &plain, "ok none", note, "");
    let tls = once(&lab, GOOD.address, &ca, "https://api.provider.example:8443", "");
    let detail = format!("certificate for a wrong name; {note}");
    lab_row("private address, another's name", &tls, "tls provider", &detail, "/etc/hosts");
    let local = once(&lab, GOOD.address, &ca, "http://api.sim.test:8080", "");
    assert_eq!(local["detail"], Value::Null, "a local name may have a local address: {local:#}");
}

#[test]
fn only_configured_hosts_are_contacted() {
    let Some((mut lab, ca)) = lab() else { return };
    let path = lab.directory().join("packets");
    let mut recorder = lab.on_client("python3");
    recorder.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/record.py")).arg(&path);
    lab.spawn(recorder);
    // Another server's answers differ, and are not used.
    let record = once(
        &lab,
        "10.77.0.18",
        &ca,
        HTTPS,
        "dns_servers = [\"10.77.0.17\", \"10.77.0.11\", \"10.77.0.14\"]",
    );
    lab_row("none, four name servers", &record, "ok none", "", "");
    let packets = fs::read_to_string(&path).unwrap();
    let packets: BTreeSet<&str> = packets.lines().collect();
    let expected = BTreeSet::from([
        "tcp fd00:77::2 8443",
        "udp 10.77.0.11 53",
        "udp 10.77.0.14 53",
        "udp 10.77.0.17 53",
        "udp 10.77.0.18 53",
    ]);
    assert_eq!(packets, expected);
}
