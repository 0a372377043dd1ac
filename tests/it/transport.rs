//! Tests of runs that end without a proper response: the verdict, and that there was a single
//! attempt.

use std::{fs, process::Command, time::Duration};

use langmart_prober::{
    config::{Probe, Provider},
    outcome::{Api, Check, Fault, Outcome, Reason},
    simulator::{FullListener, Simulator},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::harness::{
    daemon::{KEY, PROBER, Place, records},
    lab::{Lab, SERVER},
    parts,
    probes::{detail_of, probe, provider, run},
    raw::RawServer,
    simulate::simulator,
    wait::wait_for,
};

/// A loopback address without a listener.
const CLOSED_ADDRESS: &str = "127.77.0.1:9";

/// Above the duration of any run over loopback on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of runs that must reach it.
const SHORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns a provider at that base URL that trusts the simulator's authority.
fn trusting(simulator: &Simulator, api: Api, base_url: &str) -> Provider {
    let authority = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
    Provider { ca_certificates: vec![authority], ..provider(api, base_url) }
}

fn auth(provider: Provider, timeout: Duration) -> Outcome {
    run(Probe { timeout, ..probe(provider, Check::Auth) })
}

#[track_caller]
fn check(outcome: &Outcome, reason: Reason, fault: Fault, detail: &str) {
    assert_eq!((outcome.reason, outcome.fault), (reason, fault), "{outcome:#?}");
    assert!(detail_of(outcome).contains(detail), "{detail:?} is not in the detail of {outcome:#?}");
    assert_eq!(outcome.hint.is_empty(), reason == Reason::Ok, "{outcome:#?}");
    let sum: Duration = outcome.phases.durations().iter().sum();
    assert!(sum.abs_diff(outcome.duration) < Duration::from_millis(1), "phases sum to {sum:?}: {outcome:#?}");
}

/// Checks the same in a record of `once --json`.
#[track_caller]
fn check_record(record: &Value, verdict: &str, detail: &str) {
    let found = [&record["reason"], &record["fault"]].map(|member| member.as_str().unwrap()).join(" ");
    let said = record["detail"].as_str().unwrap_or_default();
    assert!(found == verdict && said.contains(detail), "{verdict:?} with {detail:?} is not in {record:#}");
}

#[test]
fn nonexistent_name_is_dns() {
    let outcome = auth(provider(Api::Openai, "http://nothing.invalid"), TIMEOUT);
    check(&outcome, Reason::Dns, Fault::Network, "NXDOMAIN");
}

#[test]
fn closed_port_is_connect() {
    let outcome = auth(provider(Api::Openai, &format!("http://{CLOSED_ADDRESS}")), TIMEOUT);
    check(&outcome, Reason::Connect, Fault::Network, "connection refused");
}

/// Checks the result for that server name on the simulator's TLS port.
#[track_caller]
fn check_tls(simulator: &Simulator, name: &str, reason: Reason, fault: Fault, detail: &str) {
    let port = simulator.tls_address().unwrap().port();
    let before = (simulator.connections(), simulator.requests().len());
    let outcome =
        auth(trusting(simulator, Api::Openai, &format!("https://{name}:{port}/openai/v1")), TIMEOUT);
    check(&outcome, reason, fault, detail);
    let requests = usize::from(reason == Reason::Ok);
    let after = (simulator.connections(), simulator.requests().len());
    assert_eq!(after, (before.0 + 1, before.1 + requests), "{name}: connections and requests");
    // The expiry is known as soon as the chain was received.
    let known = outcome.tls.is_some_and(|tls| tls.not_after.is_some());
    assert_eq!(known, !detail.starts_with("handshake"), "{outcome:#?}");
}

#[test]
fn certificates_and_handshakes() {
    let simulator = simulator("");
    check_tls(&simulator, "localhost", Reason::Ok, Fault::None, "");
    check_tls(&simulator, "expired.localhost", Reason::Tls, Fault::Provider, "certificate expired");
    check_tls(&simulator, "future.localhost", Reason::Tls, Fault::Network, "certificate not yet valid");
    check_tls(&simulator, "wrong.localhost", Reason::Tls, Fault::Provider, "wrong name");
    check_tls(&simulator, "selfsigned.localhost", Reason::Tls, Fault::Network, "untrusted issuer");
    check_tls(
        &simulator,
        "reset.localhost",
        Reason::Tls,
        Fault::Network,
        "handshake: the connection was reset",
    );

    let tls = simulator.tls_address().unwrap();
    let stranger = auth(provider(Api::Openai, &format!("https://{tls}/openai/v1")), TIMEOUT);
    check(&stranger, Reason::Tls, Fault::Network, "untrusted issuer");
    let plain = format!("https://{}/openai/v1", simulator.address());
    let plain = auth(trusting(&simulator, Api::Openai, &plain), TIMEOUT);
    check(&plain, Reason::Tls, Fault::Network, "handshake: the answer is not TLS");
    // The alert of a TLS server is not HTTP.
    let swapped = auth(provider(Api::Openai, &format!("http://{tls}/openai/v1")), TIMEOUT);
    check(&swapped, Reason::Malformed, Fault::Provider, "not HTTP");
    assert!(swapped.hint.contains("write https://"), "{}", swapped.hint);
}

#[test]
fn scripted_reset_in_the_handshake_is_tls() {
    let simulator = simulator("[[rule]]\nfault = \"reset_handshake\"");
    let base_url = format!("https://{}/openai/v1", simulator.tls_address().unwrap());
    let outcome = auth(trusting(&simulator, Api::Openai, &base_url), TIMEOUT);
    check(&outcome, Reason::Tls, Fault::Network, "handshake: the connection was reset");
}

/// Checks the result of an auth call with a fault, over HTTP/1.1 and HTTP/2, for a provider and a
/// gateway.
#[track_caller]
fn check_fault(fault: &str, timeout: Duration, reason: Reason, details: [&str; 2]) {
    let simulator = simulator("");
    let bases = [("http", simulator.address(), "1.1"), ("https", simulator.tls_address().unwrap(), "2")];
    for ((scheme, address, version), detail) in bases.into_iter().zip(details) {
        for (api, prefix, endpoint) in
            [(Api::Openai, "/openai/v1", Fault::Provider), (Api::Langmart, "/langmart", Fault::Gateway)]
        {
            let before = (simulator.connections(), simulator.requests().len());
            let mut provider = trusting(&simulator, api, &format!("{scheme}://{address}{prefix}"));
            provider.headers.push(("x-simulate".parse().unwrap(), fault.parse().unwrap()));
            let outcome = auth(provider, timeout);
            let blamed = if reason == Reason::Ok { Fault::None } else { endpoint };
            check(&outcome, reason, blamed, detail);
            assert_eq!(simulator.connections(), before.0 + 1, "{fault}: connections over HTTP/{version}");
            let requests = simulator.requests();
            assert_eq!(requests.len(), before.1 + 1, "{fault}: requests over HTTP/{version}");
            let last = requests.last().unwrap();
            assert_eq!(last.http_version, version, "{fault}");
            assert!(fault.starts_with(last.fault.unwrap()), "{fault}: {last:?}");
        }
    }
}

#[test]
fn disconnected() {
    let (closed, reset) = ("closed before", "reset before");
    check_fault("cut", TIMEOUT, Reason::Disconnected, [closed, ""]);
    check_fault("reset", TIMEOUT, Reason::Disconnected, [reset, ""]);
    check_fault("cut_before_headers", TIMEOUT, Reason::Disconnected, [closed, ""]);
    check_fault("cut_before_headers; variant=reset", TIMEOUT, Reason::Disconnected, [reset, ""]);
}

#[test]
fn invalid_responses_are_malformed() {
    check_fault("header_flood", TIMEOUT, Reason::Malformed, ["headers are too large"; 2]);
    check_fault("oversized", TIMEOUT, Reason::Malformed, ["larger than 4 MiB"; 2]);
    check_fault("html", TIMEOUT, Reason::Malformed, [""; 2]);
    check_fault("malformed", TIMEOUT, Reason::Malformed, [""; 2]);
    check_fault("empty", TIMEOUT, Reason::Malformed, [""; 2]);
    check_fault("error_in_200", TIMEOUT, Reason::ErrorIn200, [""; 2]);
    check_fault("html; status=302", TIMEOUT, Reason::UnexpectedStatus, [""; 2]);
}

#[test]
fn bytes_that_are_not_http_are_malformed() {
    // HTTP/2 cannot carry garbage, so the simulator closes the connection.
    let simulator = simulator("[[rule]]\nfault = \"garbage\"");
    let outcome = auth(provider(Api::Openai, &format!("http://{}/openai/v1", simulator.address())), TIMEOUT);
    check(&outcome, Reason::Malformed, Fault::Provider, "not HTTP");
    assert_eq!((simulator.connections(), simulator.requests().len()), (1, 1));
}

#[test]
fn redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        check_fault(&format!("redirect; status={status}"), TIMEOUT, Reason::UnexpectedStatus, [""; 2]);
    }
}

#[test]
fn slow_but_whole_is_good() {
    check_fault("slow_headers; ms=50", TIMEOUT, Reason::Ok, [""; 2]);
    check_fault("slow_body; ms=20", TIMEOUT, Reason::Ok, [""; 2]);
}

#[test]
fn slow_service_is_a_timeout() {
    check_fault("stall", SHORT_TIMEOUT, Reason::Timeout, ["no response came within 2s"; 2]);
    check_fault("slow_headers; ms=60000", SHORT_TIMEOUT, Reason::Timeout, ["no response came within 2s"; 2]);
    check_fault("slow_body; ms=60000", SHORT_TIMEOUT, Reason::Timeout, ["the response was not complete"; 2]);
}

#[test]
fn slow_network_is_a_timeout() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let full = runtime.block_on(FullListener::start()).unwrap();
    for scheme in ["http", "https"] {
        let dropped = auth(provider(Api::Openai, &format!("{scheme}://{}", full.address())), SHORT_TIMEOUT);
        check(&dropped, Reason::Timeout, Fault::Network, "no connection was made within 2s");
        assert!(dropped.phases.connect >= SHORT_TIMEOUT, "{dropped:#?}");
    }
    let slow = simulator("[[rule]]\nfault = \"slow_handshake\"\nms = 60000");
    let base_url = format!("https://{}/langmart", slow.tls_address().unwrap());
    let handshake = auth(trusting(&slow, Api::Langmart, &base_url), SHORT_TIMEOUT);
    check(&handshake, Reason::Timeout, Fault::Network, "did not complete the TLS handshake within 2s");
    assert!(handshake.phases.tls > handshake.phases.connect, "{handshake:#?}");
}

/// Runs a probe through a proxy.
fn proxied(proxy: &str, target: &str) -> Outcome {
    let proxy = Some(format!("http://{proxy}").parse().unwrap());
    auth(Provider { proxy, ..provider(Api::Openai, target) }, TIMEOUT)
}

#[test]
fn broken_proxies_are_reported() {
    for target in ["http://192.0.2.1/v1", "https://192.0.2.1/v1"] {
        let refused = proxied(CLOSED_ADDRESS, target);
        check(&refused, Reason::Proxy, Fault::Network, "connecting to the proxy: connection refused");
        let unknown = proxied("proxy.invalid:8080", target);
        check(&unknown, Reason::Proxy, Fault::Network, "looking up the proxy: the name does not exist");
    }
    let server = RawServer::start();
    let page = "Content-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>";
    let address = server.address.to_string();
    let tunnel = |status: &str| {
        server.play(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{page}").into_bytes());
        proxied(&address, "https://192.0.2.1/v1")
    };
    check(&tunnel("403 Forbidden"), Reason::Proxy, Fault::Network, "the proxy answered CONNECT with ");
    check(&tunnel("503 Unavailable"), Reason::Proxy, Fault::Network, "the proxy answered CONNECT with ");
    check(&tunnel("407 Proxy Authentication Required"), Reason::Proxy, Fault::Network, "credentials (407)");
    // It claims to be connected, so later failures count as the target's handshake.
    check(&tunnel("200 OK"), Reason::Tls, Fault::Network, "handshake");
    server.play(Vec::new());
    check(&proxied(&address, "https://192.0.2.1/v1"), Reason::Proxy, Fault::Network, "");
    server.play(b"\x00garbage\r\n\r\n".to_vec());
    check(&proxied(&address, "https://192.0.2.1/v1"), Reason::Proxy, Fault::Network, "");
}

/// Returns a configuration of auth probes, one for each base URL.
fn config(extra: &str, base_urls: &[&str]) -> String {
    let provider = |(index, base_url): (usize, &&str)| {
        format!(
            "[provider.p{index}]\napi = \"openai\"\nbase_url = \"{base_url}\"\n{KEY}\nallow_plain_http = true\n\
             checks = [\"auth\"]\n{extra}\n"
        )
    };
    base_urls.iter().enumerate().map(provider).collect()
}

/// Returns their records from the lab's client.
fn once_in(lab: &Lab, extra: &str, base_urls: &[&str]) -> Vec<Value> {
    let path = lab.directory().join("config.toml");
    let timeout = "[defaults]\ntimeout = \"2s\"\n";
    fs::write(&path, format!("{timeout}{}", config(extra, base_urls))).unwrap();
    let mut once = lab.on_client(PROBER);
    once.env("SIM_KEY", "sk-test").args(["once", "--json", "--config"]).arg(path);
    let found = records(once.output().unwrap().stdout);
    assert_eq!(found.len(), base_urls.len());
    found
}

fn lab() -> Option<Lab> {
    parts::has(&["ip", "ethtool", "python3", "tinyproxy"], true).then(|| Lab::start(0.0, 0.0))
}

#[test]
fn failed_name_servers_are_dns() {
    let Some(lab) = lab() else { return };
    let labels = ["nxdomain", "servfail", "refused", "empty", "garbled", "silent"];
    let urls = labels.map(|label| format!("http://{label}.sim.test:8080"));
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let found = once_in(&lab, "", &urls);
    check_record(&found[0], "dns network", "the name does not exist (NXDOMAIN)");
    check_record(&found[1], "dns network", "the name server failed (SERVFAIL)");
    check_record(&found[2], "dns network", "the name server refused to answer (REFUSED)");
    check_record(&found[3], "dns network", "the name has no address");
    check_record(&found[4], "dns network", "the name server's answer could not be understood");
    check_record(&found[5], "timeout network", "the name lookup was not answered within 2s");
}

#[test]
fn blocked_network_paths_are_reported() {
    let Some(lab) = lab() else { return };
    let client = |arguments: &str| {
        let status = lab.on_client("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    };
    client("route add unreachable 192.0.2.1");
    client("route add prohibit 192.0.2.2");
    // Frames to a host that does not exist, as with a firewall that drops them.
    client("neigh add 10.77.0.66 lladdr 02:00:00:00:00:66 dev eth0 nud permanent");
    let urls =
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "10.77.0.66", SERVER].map(|to| format!("http://{to}:1"));
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let found = once_in(&lab, "", &urls);
    check_record(&found[0], "connect network", "host unreachable");
    check_record(&found[1], "connect network", "connection forbidden on this machine");
    check_record(&found[2], "connect network", "network unreachable");
    check_record(&found[3], "timeout network", "no connection was made within 2s");
    check_record(&found[4], "connect network", "connection refused");
    let found = once_in(&lab, "proxy = \"http://192.0.2.1:3128\"", &["https://sim.test", "http://sim.test"]);
    for record in &found {
        check_record(record, "proxy network", "connecting to the proxy: host unreachable");
    }
}

#[test]
fn real_proxy_works() {
    let Some(mut lab) = lab() else { return };
    let ca = lab.simulator();
    lab.tinyproxy(8888, "ConnectPort 8443\nConnectPort 1\n");
    lab.tinyproxy(8889, "BasicAuth user secret\n");
    let [https, http, refused, forbidden] = [(8443, "https"), (8080, "http"), (1, "https"), (2, "https")]
        .map(|(port, scheme)| format!("{scheme}://sim.test:{port}/openai/v1"));
    let ca = format!("ca_file = \"{ca}\"\n");
    let through = |port: u16| format!("{ca}proxy = \"http://proxy.sim.test:{port}\"");
    let found = once_in(&lab, &through(8888), &[&https, &http, &refused, &forbidden]);
    check_record(&found[0], "ok none", "");
    check_record(&found[1], "ok none", "");
    check_record(&found[2], "proxy network", "the proxy answered CONNECT with ");
    check_record(&found[3], "proxy network", "the proxy answered CONNECT with ");
    let found = once_in(&lab, &through(8889), &[&https, &http]);
    check_record(&found[0], "proxy network", "the proxy requires credentials (407)");
    check_record(&found[1], "proxy network", "");
    assert_eq!(found[1]["http_status"], 407);
}

#[test]
fn lack_of_descriptors_is_prober_fault() {
    if !parts::has(&["prlimit"], false) {
        return;
    }
    let simulator = simulator("");
    let by_address = format!("http://{}/openai/v1", simulator.address());
    // With a name that must be looked up, so that the lookup lacks a socket, too.
    let place = Place::new(&config("", &[&by_address, "http://sim.test/openai/v1"]));
    let mut limits = 3..;
    let blamed = wait_for("a limit under which the prober starts but cannot connect", || {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={}", limits.next()?)).args([PROBER, "once", "--json", "--config"]);
        let output = command.arg(place.path("config.toml")).env("SIM_KEY", "sk-test").output().unwrap();
        assert_ne!(output.status.code(), Some(0), "no limit was too low for the run alone: {output:?}");
        Some(records(output.stdout)).filter(|found| !found.is_empty())
    });
    for record in blamed {
        check_record(&record, "internal prober", "the prober ");
    }
}
