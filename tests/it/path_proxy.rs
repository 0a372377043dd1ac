//! Tests of proxies: the status of a refusal, every tunnel that RFC 9110 allows, `no_proxy` as curl
//! reads it, and proxies of the environment.

use serde_json::{Value, json};

use crate::harness::{
    certificates::{Issued, Subject},
    host::{Ask, Host},
    script::{end, good, good_listener, listener, response},
    table::Table,
};

const CHECKS: &[&str] = &["network", "auth"];

/// Returns answers to CONNECT that open no tunnel, with a part of the detail.
fn refusals() -> Vec<(String, Value, &'static str)> {
    let page =
        |status: &str, headers: &str| json!([response(status, headers, "<html>no</html>"), end("close")]);
    let mut cases: Vec<(String, Value, &str)> = [
        ("302 Found", "302"),
        ("403 Forbidden", "403"),
        ("407 Proxy Authentication Required", "credentials (407)"),
        ("429 Too Many Requests", "429"),
        ("502 Bad Gateway", "502"),
        ("503 Service Unavailable", "503"),
        ("504 Gateway Timeout", "504"),
        ("511 Network Authentication Required", "511"),
        // Further statuses.
        ("301 Moved Permanently", "301"),
        ("400 Bad Request", "400"),
        ("401 Unauthorized", "401"),
        ("404 Not Found", "404"),
        ("405 Method Not Allowed", "405"),
        ("500 Internal Server Error", "500"),
        ("599 Something Else", "599"),
    ]
    .map(|(status, detail)| {
        (format!("F16 {status}"), page(status, "Location: http://portal.test/\r\n"), detail)
    })
    .into();
    let kept = |text: &str| json!([text]);
    let endless = |text: &str| json!({ "repeat": text, "times": null });
    cases.extend([
        ("503 over HTTP/1.0, reset".to_owned(), json!(["HTTP/1.0 503 Busy\r\n\r\n", end("reset")]), "503"),
        ("503 without a reason".to_owned(), kept("HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n"), "503"),
        ("503 with a body of no length".to_owned(), kept("HTTP/1.1 503 Busy\r\n\r\nwait"), "503"),
        ("no HTTP".to_owned(), json!(["\u{0}\u{1}garbage\r\n\r\n", end("close")]), ""),
        ("closed".to_owned(), json!([end("close")]), "closed"),
        ("reset".to_owned(), json!([end("reset")]), ""),
        ("a head without end".to_owned(), json!(["HTTP/1.1 200 OK\r\n", endless(&long_header())]), ""),
        ("100 without end".to_owned(), json!([endless("HTTP/1.1 100 Continue\r\n\r\n")]), ""),
    ]);
    cases
}

/// Returns a header line of one KiB.
fn long_header() -> String {
    format!("X-Long: {}\r\n", "x".repeat(1014))
}

/// Returns a tunnel preceded by that many KiB of headers.
fn tunnel_after(kib: usize) -> Value {
    json!(["HTTP/1.1 200 OK\r\n", { "repeat": long_header(), "times": kib }, "\r\n", { "tunnel": true }])
}

/// Returns answers to CONNECT that open a tunnel.
fn tunnels() -> Vec<(&'static str, Value)> {
    let answer = |text: &str| json!([text, { "tunnel": true }]);
    let pause = json!({ "pause": 0.05 });
    vec![
        ("200", answer("HTTP/1.1 200 Connection established\r\n\r\n")),
        ("201", answer("HTTP/1.1 201 Created\r\n\r\n")),
        ("202", answer("HTTP/1.1 202 Accepted\r\n\r\n")),
        ("299", answer("HTTP/1.1 299 Fine\r\n\r\n")),
        ("204", answer("HTTP/1.1 204 No Content\r\n\r\n")),
        ("headers of 9 KiB", tunnel_after(9)),
        ("headers of 60 KiB", tunnel_after(60)),
        ("200 over HTTP/1.0", answer("HTTP/1.0 200 OK\r\nProxy-agent: x\r\n\r\n")),
        ("200 without a reason", answer("HTTP/1.1 200\r\n\r\n")),
        (
            "200 with Content-Length, which does not count",
            answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ),
        (
            "200 with Transfer-Encoding, which does not count",
            answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        ("200 with Connection: close", answer("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")),
        (
            "in pieces",
            json!(["HTTP/1.1 200", pause, " OK\r", pause, "\n\r", pause, "\n", { "tunnel": true }]),
        ),
    ]
}

/// Starts a machine with proxies that send these answers, on ports from 9000 on, and a TLS server
/// behind them.
fn host(answers: &[&Value]) -> Option<(Host, String)> {
    let mut host = Host::new()?;
    let root = Issued::self_signed(&Subject::authority("root"));
    let issued = root.issue(&Subject::new(&["api.corp.test"]));
    let tls = issued.served(&host, "server", &[]);
    let ca = host.write("ca.pem", &root.pem());
    host.etc("hosts", "127.0.0.1 localhost api.corp.test\n");
    let mut target = good_listener("target", "127.0.0.1:8443");
    target["tls"] = tls;
    let mut listeners = vec![target];
    for (number, answer) in answers.iter().enumerate() {
        let at = format!("127.0.0.1:{}", 9000 + number);
        listeners.push(listener("proxy", &at, (*answer).clone()));
    }
    host.servers(&Value::Array(listeners));
    Some((host, ca))
}

const TARGET: &str = "https://api.corp.test:8443/v1";

#[test]
fn status_of_a_refused_tunnel_is_in_the_detail() {
    let cases = refusals();
    let answers: Vec<&Value> = cases.iter().map(|(_, answer, _)| answer).collect();
    let Some((host, ca)) = host(&answers) else { return };
    let mut table = Table::default();
    for (number, (case, _, detail)) in cases.iter().enumerate() {
        let proxy = format!("http://127.0.0.1:{}", 9000 + number);
        let curl = host.curl(
            &["--cacert", &ca, "-m", "3", "-x", &proxy, "-w", "%{http_connect} %{time_total} x"],
            &[],
            TARGET,
        );
        let provider = format!("ca_file = \"{ca}\"\nproxy = \"{proxy}\"");
        let ask = Ask { url: TARGET, checks: CHECKS, provider: &provider, timeout: "4s", ..Ask::default() };
        for record in host.once(&ask) {
            table.row(case, &record, "proxy network", detail, &curl);
            table.expect(case, record["tls"].is_null(), "the target was not reached");
        }
    }
    let reached = host.requests().iter().any(|request| request["listener"] == "target");
    table.expect("all", !reached, "the target was reached");
    table.finish();
}

#[test]
fn silent_proxy_is_reported_as_reached() {
    let Some((host, ca)) = host(&[&json!([end("hang")])]) else { return };
    let proxy = "http://127.0.0.1:9000";
    let curl = host.curl(&["--cacert", &ca, "-m", "2", "-x", proxy], &[], TARGET);
    let provider = format!("ca_file = \"{ca}\"\nproxy = \"{proxy}\"");
    let ask = Ask { url: TARGET, checks: CHECKS, provider: &provider, timeout: "2s", ..Ask::default() };
    let mut table = Table::default();
    for record in host.once(&ask) {
        let detail = "the proxy was reached, but opened no tunnel within 2s";
        table.row("silent proxy", &record, "timeout network", detail, &curl);
        let hint = record["hint"].as_str().unwrap_or_default();
        table.expect("silent proxy", hint.contains("proxy's log"), hint);
    }
    let doctor = host.prober("doctor", &ask).output().unwrap();
    let text = String::from_utf8(doctor.stdout).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    table.expect("doctor", text.contains("does not reach api.corp.test:8443"), &text);
    table.finish();
}

#[test]
fn every_2xx_to_connect_is_a_tunnel() {
    let cases = tunnels();
    let answers: Vec<&Value> = cases.iter().map(|(_, answer)| answer).collect();
    let Some((host, ca)) = host(&answers) else { return };
    let mut table = Table::default();
    for (number, (case, _)) in cases.iter().enumerate() {
        let proxy = format!("http://127.0.0.1:{}", 9000 + number);
        let curl = host.curl(&["--cacert", &ca, "-m", "3", "-x", &proxy], &[], TARGET);
        let provider = format!("ca_file = \"{ca}\"\nproxy = \"{proxy}\"");
        let ask = Ask { url: TARGET, checks: CHECKS, provider: &provider, timeout: "4s", ..Ask::default() };
        for record in host.once(&ask) {
            table.row(case, &record, "ok none", "", &curl);
        }
    }
    table.finish();
}

/// `no_proxy`, the host of the URL, and whether the connection is direct.
const NO_PROXY: &[(&str, &str, &str, bool)] = &[
    ("F18 capitals and a dot at the end", "CORP.test.", "api.corp.test", true),
    ("F18 the host with a dot at its end", "api.corp.test.", "api.corp.test", true),
    ("F18 a dot at the end of the URL's host", "corp.test", "api.corp.test.", true),
    ("F18 a tab after the comma", "x,\tcorp.test", "api.corp.test", true),
    ("both end with a dot", "corp.test.", "api.corp.test.", true),
    ("spaces in place of commas", "x corp.test y", "api.corp.test", true),
    ("tabs in place of commas", "x\tcorp.test\ty", "api.corp.test", true),
    ("spaces around", "  corp.test  ", "api.corp.test", true),
    ("a dot before, a dot at the end", ".corp.test.", "api.corp.test", true),
    ("empty entries", ",,x,,corp.test,,", "api.corp.test", true),
    ("an address with spaces", " 127.0.0.2 ,x", "127.0.0.2", true),
    ("a network with a tab", "x,\t127.0.0.0/8", "127.0.0.2", true),
    ("IPv6 with a space", "x, ::1", "[::1]", true),
    ("the end of a label is no domain", "orp.test", "api.corp.test", false),
    ("a longer name", "api.corp.test.example", "api.corp.test", false),
    ("semicolons do not separate", "x;corp.test", "api.corp.test", false),
    ("nothing but separators", " ,\t, ", "api.corp.test", false),
];

#[test]
fn no_proxy_is_read_as_curl_reads_it() {
    let Some(mut host) = Host::new() else { return };
    let names = json!({ "A": ["127.0.0.2"] });
    host.name_servers(&json!({ "127.0.0.53": { "names": { "api.corp.test": names } } }));
    // A proxy for plain http, which answers in place of the target.
    host.servers(&json!([
        good_listener("proxy", "127.0.0.1:3128"),
        good_listener("direct", "127.0.0.2:8080"),
        good_listener("direct", "[::1]:8080"),
    ]));
    let mut table = Table::default();
    for (case, no_proxy, name, is_direct) in NO_PROXY {
        let url = format!("http://{name}:8080/v1/models");
        let variables = &[("http_proxy", "http://127.0.0.1:3128"), ("no_proxy", *no_proxy)];
        let curl = host.curl(&["-g"], variables, &url);
        table.expect(
            case,
            (curl.address != "127.0.0.1") == *is_direct,
            format!("curl disagrees with the case: {curl}"),
        );
        let url = format!("http://{name}:8080/v1");
        let port = if *is_direct { ":8080" } else { ":3128" };
        for record in host.once(&Ask { url: &url, variables, ..Ask::default() }) {
            table.row(case, &record, "ok none", "", &curl);
            let to = record["remote_address"].as_str().unwrap_or_default();
            table.expect(case, to.ends_with(port), format!("connected to {to:?}"));
        }
    }
    table.finish();
}

/// A variable with a proxy, and the address that curl connects to.
const ENVIRONMENT: &[(&str, &str, &str, &str)] = &[
    ("with user and password", "http_proxy", "http://user:canary@127.0.0.1:3128", "127.0.0.1:3128"),
    (
        "escaped characters in the password",
        "http_proxy",
        "http://us%40er:can%3aary%2Fx@127.0.0.1:3128",
        "127.0.0.1:3128",
    ),
    ("a user without password", "http_proxy", "http://canary@127.0.0.1:3128", "127.0.0.1:3128"),
    (
        "without a scheme, with user and password",
        "http_proxy",
        "user:canary@127.0.0.1:3128",
        "127.0.0.1:3128",
    ),
    ("ALL_PROXY with user and password", "ALL_PROXY", "http://user:canary@127.0.0.1:3128/", "127.0.0.1:3128"),
    ("http without a port", "http_proxy", "http://127.0.0.1", "127.0.0.1:80"),
    ("http without a port, with a slash", "http_proxy", "http://127.0.0.1/", "127.0.0.1:80"),
    ("neither scheme nor port", "http_proxy", "127.0.0.1", "127.0.0.1:80"),
    ("no port, with user and password", "http_proxy", "http://user:canary@127.0.0.1", "127.0.0.1:80"),
    ("a name and a port", "http_proxy", "http://proxy.corp.test:3128", "127.0.0.1:3128"),
    ("port 80 in so many words", "http_proxy", "http://127.0.0.1:80", "127.0.0.1:80"),
];

#[test]
fn proxy_of_the_environment_is_understood_as_by_curl() {
    let Some(mut host) = Host::new() else { return };
    let names = json!({ "proxy.corp.test": { "A": ["127.0.0.1"] }, "api.corp.test": { "A": ["127.0.0.2"] } });
    host.name_servers(&json!({ "127.0.0.53": { "names": names } }));
    let proxy = |port: u16| good_listener("proxy", &format!("127.0.0.1:{port}"));
    host.servers(&json!([proxy(3128), proxy(1080), proxy(80)]));
    let mut table = Table::default();
    for (case, variable, value, address) in ENVIRONMENT {
        let variables = &[(*variable, *value)];
        let output = host
            .on("curl")
            .args(["-sv", "-m", "5", "http://api.corp.test:8080/v1/models"])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let curl = said.lines().find(|line| line.contains("Trying")).unwrap_or_default();
        // Without a port curl uses 1080 for http as well; Go and the prober use the default of the
        // scheme.
        let schemes_own = address.ends_with(":80") && !value.ends_with(":80");
        let as_curl = curl.contains(address) || schemes_own;
        table.expect(case, as_curl, format!("curl disagrees with the case: {curl}"));
        // A rejected configuration has no record.
        let ask = Ask { url: "http://api.corp.test:8080/v1", variables, ..Ask::default() };
        let output = host.prober("once", &ask).arg("--json").output().unwrap();
        let shown =
            String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
        let record: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!({ "detail": shown }));
        table.row(case, &record, "ok none", "", curl);
        table.expect(case, record["remote_address"] == *address, &record["remote_address"]);
        for secret in ["canary", "can%3aary", "can:ary"] {
            table.expect(case, !shown.contains(secret), "the password is shown");
        }
    }
    table.finish();
}

#[test]
fn password_of_an_environment_proxy_reaches_the_proxy_alone() {
    let Some(mut host) = Host::new() else { return };
    host.servers(&json!([
        listener("proxy", "127.0.0.1:3128", json!(["HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"])),
    ]));
    let mut table = Table::default();
    // user:can/ary, as curl decodes and sends it.
    let variables = &[("https_proxy", "http://user:can%2Fary@127.0.0.1:3128")];
    let url = "https://api.corp.test:8443/v1";
    host.curl(&[], variables, url);
    let header = "proxy-authorization: basic dxnlcjpjyw4vyxj5";
    let sent = |host: &Host| {
        let heads = host.requests();
        heads
            .iter()
            .filter(|request| request["head"].as_str().unwrap().to_ascii_lowercase().contains(header))
            .count()
    };
    table.expect("curl", sent(&host) == 1, "curl does not send the credentials");
    let ask = Ask { url, checks: CHECKS, variables, ..Ask::default() };
    let output = host.prober("once", &ask).arg("--json").output().unwrap();
    let shown = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        table.row("407 to credentials of the environment", &record, "proxy network", "(407)", "curl: 407");
    }
    table.expect("ours", sent(&host) == 3, format!("the credentials were sent {} times", sent(&host)));
    table.expect("ours", !shown.contains("can/ary") && !shown.contains("can%2Fary"), "the password is shown");
    let (doctor, page) =
        (host.prober("doctor", &ask).output().unwrap(), host.prober("check-config", &ask).output().unwrap());
    for output in [doctor, page] {
        let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        table.expect(
            "doctor, check-config",
            !shown.contains("can/ary") && !shown.contains("can%2Fary"),
            &shown,
        );
    }
    table.finish();
}

#[test]
fn warm_tunnel_is_reused() {
    let Some((host, ca)) = host(&[&json!(["HTTP/1.1 200 OK\r\n\r\n", { "tunnel": true }])]) else { return };
    let probe = "[[probe]]\nname = \"warm\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"1s\"\n\
                 timeout = \"1s\"\nconnection = \"warm\"\n";
    let provider = format!("ca_file = \"{ca}\"\nproxy = \"http://127.0.0.1:9000\"");
    let mut daemon = host.daemon(
        &Ask { url: TARGET, checks: &[], provider: &provider, sections: probe, ..Ask::default() }.config(),
    );
    let records = crate::harness::wait::wait_for("three runs", || {
        Some(host.results("warm")).filter(|records| records.len() >= 3)
    });
    daemon.stop();
    let mut table = Table::default();
    for (record, connection) in records.iter().zip(["new", "reused", "reused"]) {
        table.row("warm through a tunnel", record, "ok none", "", "");
        table.expect("warm through a tunnel", record["connection"] == connection, &record["connection"]);
    }
    let tunnels = host.requests().iter().filter(|request| request["listener"] == "proxy").count();
    table.expect("warm through a tunnel", tunnels == 1, format!("{tunnels} tunnels"));
    table.finish();
}

#[test]
fn good_proxy_needs_no_name_of_the_target() {
    let Some(mut host) = Host::new() else { return };
    host.servers(&json!([listener("proxy", "127.0.0.1:3128", json!([good()]))]));
    let provider = "proxy = \"http://127.0.0.1:3128\"";
    let ask = Ask { url: "http://nowhere.invalid:8080/v1", provider, ..Ask::default() };
    let mut table = Table::default();
    table.row("the proxy looks the name up", &host.once(&ask)[0], "ok none", "", "");
    table.finish();
}
