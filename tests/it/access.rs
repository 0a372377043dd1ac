//! Tests of a public listener: users and passwords, TLS, and renewed certificates.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Output, Stdio},
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    parts,
    simulate::simulator,
    wait::{WAIT_TIMEOUT, wait_for},
};

fn basic_auth(users: &[(&str, &str, u32)]) -> String {
    let entry = |(user, password, cost): &(&str, &str, u32)| {
        format!("{user} = \"{}\"", bcrypt::hash(password, *cost).unwrap())
    };
    format!("basic_auth = {{ {} }}\n", users.iter().map(entry).collect::<Vec<_>>().join(", "))
}

fn authorization(credentials: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials))
}

/// Sends a request whose head ends here, without reading the response.
fn send(daemon: &Daemon, request_line: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address).unwrap();
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    write!(stream, "{request_line} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").unwrap();
    stream
}

/// Returns the complete response.
fn ask(daemon: &Daemon, request_line: &str, headers: &str) -> String {
    let mut answer = String::new();
    send(daemon, request_line, headers).read_to_string(&mut answer).unwrap();
    answer
}

/// Requests that need a user, whether their path exists or not.
const REQUESTS: [&str; 11] = [
    "GET /metrics",
    "GET /",
    "GET /-/healthy",
    "GET /-/ready",
    "GET /nowhere",
    "HEAD /metrics",
    "POST /-/reload",
    "DELETE /metrics",
    "OPTIONS *",
    "BREW /",
    "GET http://elsewhere.example/",
];

#[test]
fn request_without_user_gets_401_on_every_path() {
    let place = Place::new("");
    let config = |users: &str| format!("{LISTEN}{users}");
    place.write("config.toml", &config(&basic_auth(&[("alice", "wonderland", 5), ("bob", "builder", 6)])));
    let mut daemon = place.daemon();
    let host = format!("Host: {}\r\n", daemon.address);
    let wrong =
        ["alice:builder", "bob:", "carol:wonderland", "alice:wonderland\n", "alice"].map(authorization);
    let alice = authorization("alice:wonderland");
    let twice = alice.repeat(2);
    let credentials =
        wrong.iter().map(String::as_str).chain(["", &twice, "Authorization: Bearer alice:wonderland\r\n"]);
    for credentials in credentials {
        for request in REQUESTS {
            for foreign in ["", "Host: elsewhere.example\r\n", "Origin: https://elsewhere.example\r\n"] {
                let host = if foreign.starts_with("Host") { "" } else { &host };
                let answer = ask(&daemon, request, &format!("{host}{foreign}{credentials}"));
                assert!(answer.starts_with("HTTP/1.1 401 "), "{request} {foreign}: {answer}");
                let challenge =
                    "\r\nwww-authenticate: Basic realm=\"langmart-prober\", charset=\"UTF-8\"\r\n";
                assert!(answer.contains(challenge), "{request}: {answer}");
            }
        }
    }
    let status = |daemon: &Daemon, request: &str, credentials: &str| {
        ask(daemon, request, &format!("{host}{credentials}"))[9..12].to_owned()
    };
    let bob = authorization("bob:builder");
    for (request, expected) in [
        ("GET /metrics", "200"),
        ("GET /", "200"),
        ("GET /-/healthy", "200"),
        ("GET /nowhere", "404"),
        ("DELETE /metrics", "405"),
        ("POST /-/reload", "200"),
        // A password permits any name.
        ("GET http://elsewhere.example/", "200"),
    ] {
        assert_eq!(status(&daemon, request, &alice), expected, "{request}");
        assert_eq!(status(&daemon, request, &bob), expected, "{request}");
    }

    // A removed user is rejected immediately.
    place.write("config.toml", &config(&basic_auth(&[("bob", "builder", 5)])));
    assert_eq!(status(&daemon, "POST /-/reload", &alice), "200");
    assert_eq!(status(&daemon, "GET /metrics", &alice), "401");
    assert_eq!(status(&daemon, "GET /metrics", &bob), "200");
    let log = daemon.stop();
    for secret in ["wonderland", "builder", "$2", "YWxpY2U6"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn password_checks_delay_neither_runs_nor_scrapes() {
    let simulator = simulator("");
    let probe = format!(
        "[defaults]\ninterval = \"500ms\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
        simulator.address()
    );
    // Each check takes a second or more.
    let place = Place::new(&format!("{LISTEN}{}{probe}", basic_auth(&[("alice", "wonderland", 14)])));
    let mut daemon = place.daemon();
    let alice = format!("Host: {}\r\n{}", daemon.address, authorization("alice:wonderland"));
    // A check yields to other work. On a busy machine it outlasts the request, and its result is
    // cached nevertheless.
    wait_for("alice to be known", || {
        ask(&daemon, "GET /metrics", &alice).starts_with("HTTP/1.1 200 ").then_some(())
    });
    let guesses: Vec<_> = (0..40)
        .map(|number| send(&daemon, "GET /metrics", &authorization(&format!("alice:guess-{number}"))))
        .collect();
    let before = simulator.requests().len();
    wait_for("some runs", || {
        let answer = ask(&daemon, "GET /metrics", &alice);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        (simulator.requests().len() >= before + 6).then_some(())
    });
    let unanswered = guesses.iter().filter(|guess| {
        guess.set_nonblocking(true).unwrap();
        guess.peek(&mut [0]).is_err()
    });
    assert!(unanswered.count() >= 20, "the checks were too quick to delay anything");
    assert!(ask(&daemon, "GET /-/healthy", &alice).ends_with("\r\n\r\nhealthy\n"));
    daemon.stop();
}

/// Writes a certificate and its key to files of these names.
fn certify(place: &Place, certificate: &str, key: &str) {
    let made = rcgen::generate_simple_self_signed(["prober.example".to_owned()]).unwrap();
    place.write(key, &made.signing_key.serialize_pem());
    place.write(certificate, &made.cert.pem());
}

/// Starts a daemon with TLS, with the files tls.crt and tls.key.
fn secure(place: &Place) -> Daemon {
    place.write(
        "config.toml",
        &format!(
            "{LISTEN}hostnames = [\"prober.example\"]\ntls = {{ cert_file = \"{}\", key_file = \"{}\" }}\n",
            place.path("tls.crt").display(),
            place.path("tls.key").display()
        ),
    );
    place.daemon()
}

/// Returns the status that curl gets with this certificate as its only root, or `000` if there is
/// none.
fn curl(daemon: &Daemon, root: &std::path::Path, path: &str, more: &[&str]) -> String {
    let port = daemon.address.port();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "60"]);
    curl.args(["--noproxy", "*", "--resolve", &format!("prober.example:{port}:127.0.0.1"), "--cacert"])
        .arg(root);
    let output = curl.args(more).arg(format!("https://prober.example:{port}{path}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn only_modern_tls_is_spoken() {
    if !parts::has(&["openssl", "curl"], false) {
        return;
    }
    let place = Place::new("");
    certify(&place, "tls.crt", "tls.key");
    let mut daemon = secure(&place);
    assert_eq!(curl(&daemon, &place.path("tls.crt"), "/metrics", &["--http2"]), "200");
    let address = daemon.address.to_string();
    let client = |arguments: &[&str]| -> Output {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &address, "-servername", "prober.example"]).args(arguments);
        openssl.stdin(Stdio::null()).output().unwrap()
    };
    let succeeds = |arguments: &[&str]| client(arguments).status.success();
    assert!(succeeds(&["-tls1_3"]) && succeeds(&["-tls1_2"]), "{:?}", client(&["-tls1_2"]));
    assert!(!succeeds(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]), "TLS 1.1 is spoken");
    assert!(!succeeds(&["-tls1", "-cipher", "ALL:@SECLEVEL=0"]), "TLS 1.0 is spoken");
    assert!(!succeeds(&["-alpn", "h2"]), "HTTP/2 is not");
    assert!(succeeds(&["-alpn", "h2,http/1.1"]));

    let all =
        Command::new("openssl").args(["ciphers", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]).output();
    let all = String::from_utf8(all.unwrap().stdout).unwrap();
    let suites: Vec<&str> = all.trim().split(':').filter(|suite| !suite.starts_with("TLS_")).collect();
    assert!(suites.len() > 40 && suites.contains(&"AES128-SHA"), "{suites:?}");
    let spoken: Vec<&str> = suites
        .into_iter()
        .filter(|suite| succeeds(&["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")]))
        .collect();
    let modern = |suite: &&str| {
        suite.starts_with("ECDHE-ECDSA-") && (suite.contains("-GCM-") || suite.contains("CHACHA20"))
    };
    assert!(!spoken.is_empty() && spoken.iter().all(modern), "{spoken:?}");

    // Requests without TLS get no answer, and have no effect.
    let mut plain = TcpStream::connect(daemon.address).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
    plain.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    assert_eq!(curl(&daemon, &place.path("tls.crt"), "/metrics", &[]), "200");
    drop(silent);
    assert_eq!(curl(&daemon, &place.path("tls.crt"), "/-/reload", &["--request", "POST"]), "200");
    daemon.stop();
}

/// Returns the result of a TLS scan: the versions, and each suite with its version and strength.
fn scan(address: SocketAddr) -> (Vec<String>, Vec<[String; 3]>) {
    let output =
        Command::new("sslscan").args(["--no-colour", "--xml=-", &address.to_string()]).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    let attribute = |line: &str, name: &str| -> String {
        let value = line.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.unwrap_or_else(|| panic!("no {name}: {line}")).to_owned()
    };
    let lines = |element: &'static str| {
        report.lines().map(str::trim).filter(move |line| line.starts_with(&format!("<{element} ")))
    };
    let versions = lines("protocol")
        .filter(|line| attribute(line, "enabled") == "1")
        .map(|line| format!("{} {}", attribute(line, "type"), attribute(line, "version")))
        .collect();
    let suites = lines("cipher")
        .map(|line| ["sslversion", "cipher", "strength"].map(|name| attribute(line, name)))
        .collect();
    for flaw in lines("heartbleed") {
        assert_eq!(attribute(flaw, "vulnerable"), "0", "{flaw}");
    }
    (versions, suites)
}

#[test]
fn tls_scan_finds_1_2_and_1_3_and_no_weak_suite() {
    if !parts::has(&["sslscan", "openssl"], false) {
        return;
    }
    let place = Place::new("");
    certify(&place, "tls.crt", "tls.key");
    let mut daemon = secure(&place);
    let (versions, suites) = scan(daemon.address);
    println!("{versions:?}: {suites:?}");
    assert_eq!(versions, ["tls 1.2", "tls 1.3"]);
    // Strong suites of TLS 1.2; for 1.3 those of RFC 8446, which the scanner does not rate.
    assert!(suites.len() >= 4, "{suites:?}");
    for [version, suite, strength] in &suites {
        let modern = match version.as_str() {
            "TLSv1.3" => {
                suite.ends_with("_GCM_SHA256") || suite.ends_with("_GCM_SHA384") || suite.contains("CHACHA20")
            }
            _ => strength == "strong" && suite.starts_with("ECDHE-"),
        };
        assert!(modern, "{version} {suite} {strength}");
    }
    assert_eq!(curl(&daemon, &place.path("tls.crt"), "/-/healthy", &[]), "200", "the scan harms nothing");
    daemon.stop();

    // The scanner detects other suites if they are offered.
    let mut weak = Command::new("openssl");
    weak.args([
        "s_server",
        "-accept",
        "127.0.0.1:0",
        "-min_protocol",
        "TLSv1",
        "-cipher",
        "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0",
    ]);
    weak.arg("-cert").arg(place.path("tls.crt")).arg("-key").arg(place.path("tls.key"));
    let mut weak = weak.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(weak.stdout.take().unwrap()).lines();
    let address = said.find_map(|line| line.unwrap().strip_prefix("ACCEPT ")?.parse().ok()).unwrap();
    // Otherwise it would block when it reports a connection.
    thread::spawn(move || said.for_each(drop));
    let (versions, suites) = scan(address);
    weak.kill().unwrap();
    weak.wait().unwrap();
    assert!(versions.contains(&"tls 1.0".to_owned()), "{versions:?}");
    assert!(suites.iter().any(|[_, suite, _]| suite.ends_with("-AES128-SHA")), "{suites:?}");
}

#[test]
fn renewed_valid_certificate_is_loaded() {
    if !parts::has(&["curl"], false) {
        return;
    }
    let place = Place::new("");
    certify(&place, "tls.crt", "tls.key");
    certify(&place, "next.crt", "next.key");
    let text = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    place.write("first.crt", &text("tls.crt"));
    place.write("first.key", &text("tls.key"));
    let mut daemon = secure(&place);
    let status = |daemon: &Daemon, root: &str| curl(daemon, &place.path(root), "/-/ready", &[]);
    assert_eq!((status(&daemon, "first.crt"), status(&daemon, "next.crt")), ("200".into(), "000".into()));

    // The key of another certificate is rejected by a reload and by the periodic check, and logged
    // once.
    place.write("tls.key", &text("next.key"));
    daemon.reload();
    assert_eq!(daemon.logged("is not the key of the certificate in"), 1, "{}", daemon.log());
    wait_for("the change to be noticed", || {
        (daemon.logged("Renewed listener certificate rejected") == 1).then_some(())
    });
    assert_eq!(status(&daemon, "first.crt"), "200");

    place.write("tls.crt", &text("next.crt"));
    wait_for("the new certificate", || (daemon.logged("Listener certificate renewed") == 1).then_some(()));
    assert_eq!((status(&daemon, "first.crt"), status(&daemon, "next.crt")), ("000".into(), "200".into()));

    place.write("tls.key", &text("first.key"));
    place.write("tls.crt", &text("first.crt"));
    daemon.reload();
    assert_eq!((status(&daemon, "first.crt"), status(&daemon, "next.crt")), ("200".into(), "000".into()));
    let log = daemon.stop();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}
