//! Tests of connections: their end, their pace and its record, TLS, and HTTP/2.

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::*;

#[test]
fn connections_end_as_scripted() {
    let simulator = fair();
    let broken = |simulate: &str| {
        let (path, headers, body) = chat(SimulatedService::Openai);
        let (bytes, end) = exchange(
            &simulator,
            &request("POST", &path, &format!("{headers}x-simulate: {simulate}\r\n"), &body),
        );
        (bytes, end.map_err(|error| error.kind()))
    };
    let promised = |bytes: &[u8]| {
        let answer = Answer::parse(bytes);
        (answer.body.len(), answer.header("content-length").unwrap().parse::<usize>().unwrap())
    };
    let (bytes, end) = broken("cut");
    let (came, whole) = promised(&bytes);
    assert_eq!((came, end), (whole / 2, Ok(())));
    let (bytes, end) = broken("reset");
    let (came, whole) = promised(&bytes);
    assert_eq!((came, end), (whole / 2, Err(io::ErrorKind::ConnectionReset)));
    assert_eq!(broken("cut_before_headers"), (Vec::new(), Ok(())));
    assert_eq!(
        broken("cut_before_headers; variant=reset"),
        (Vec::new(), Err(io::ErrorKind::ConnectionReset))
    );
    let (bytes, end) = broken("garbage");
    assert!(end.is_ok() && !bytes.is_empty() && !bytes.starts_with(b"HTTP"));
    let names: Vec<_> =
        simulator.requests().into_iter().map(|recorded| (recorded.fault, recorded.status)).collect();
    let expected = [
        (Some("cut"), Some(200)),
        (Some("reset"), Some(200)),
        (Some("cut_before_headers"), None),
        (Some("cut_before_headers"), None),
        (Some("garbage"), None),
    ];
    assert_eq!(names, expected);
}

#[test]
fn stop_ends_stalled_connections() {
    let mut simulator = fair();
    let mut stream = connect(&simulator);
    stream.write_all(request("GET", "/langmart/health", "x-simulate: stall\r\n", "").as_bytes()).unwrap();
    while simulator.requests().iter().all(|recorded| recorded.fault.is_none()) {
        std::thread::yield_now();
    }
    assert_eq!(simulator.requests()[0].closed, None);
    let asked = Instant::now();
    simulator.stop();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    assert!(simulator.requests()[0].closed.is_some() && simulator.requests()[0].writes.is_empty());
    assert!(TcpStream::connect(simulator.address()).is_err(), "the listener is closed");
}

#[test]
fn record_has_request_properties_but_no_key() {
    let simulator = fair();
    let mut stream = connect(&simulator);
    let mut buffer = [0; 4096];
    for path in ["/openai/v1/models", "/google/v1beta/models?pageSize=1&key=sk-secret-canary"] {
        stream
            .write_all(request("GET", path, "Authorization: Bearer sk-secret-canary\r\n", "").as_bytes())
            .unwrap();
        assert!(stream.read(&mut buffer).unwrap() > 0);
    }
    let (path, headers, body) = chat(SimulatedService::Google);
    ask(&simulator, "POST", &path, headers, &body);
    let records = simulator.requests();
    assert_eq!(simulator.connections(), 2);
    let [first, second, third] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((first.connection, second.connection, third.connection), (1, 1, 2));
    assert_eq!((first.provider, first.key_header), (Some(SimulatedService::Openai), Some("authorization")));
    assert_eq!(
        (second.path.as_str(), second.query.as_deref()),
        ("/google/v1beta/models", Some("pageSize=1"))
    );
    assert_eq!((third.method.as_str(), third.model.as_deref()), ("POST", Some("gemini-2.5-flash-lite")));
    assert_eq!(
        (third.key_header, third.status, third.http_version),
        (Some("x-goog-api-key"), Some(200), "1.1")
    );
    assert!(!format!("{records:?}").contains("canary"), "{records:?}");
}

/// Reads until the end, with the time of each read.
fn observe(stream: &mut impl Read) -> Vec<(Instant, usize)> {
    let mut buffer = vec![0; 1 << 16];
    let mut seen = Vec::new();
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        seen.push((Instant::now(), bytes));
    }
    seen
}

/// Checks that each byte was recorded as written before it was read.
#[track_caller]
fn check_order(writes: &[Write], seen: &[(Instant, usize)]) {
    let written: usize = writes.iter().map(|write| write.bytes).sum();
    assert_eq!(written, seen.iter().map(|(_, bytes)| bytes).sum::<usize>());
    let mut writes = writes.iter();
    let (mut came, mut left) = (0, 0);
    let mut last = None;
    for (at, bytes) in seen {
        came += bytes;
        while left < came {
            let write = writes.next().unwrap();
            last = Some(write.at);
            left += write.bytes;
        }
        assert!(last.unwrap() <= *at, "seen before it was written");
    }
}

#[test]
fn writes_are_paced_and_recorded_before_they_arrive() {
    let simulator = fair();
    let pause = Duration::from_millis(20);
    let (path, headers, body) = chat(SimulatedService::Openai);
    let mut stream = connect(&simulator);
    let headers = format!("Connection: close\r\n{headers}x-simulate: slow_body; ms=20\r\n");
    stream.write_all(request("POST", &path, &headers, &body).as_bytes()).unwrap();
    let seen = observe(&mut stream);
    let recorded = simulator.requests().remove(0);
    check_order(&recorded.writes, &seen);
    assert_eq!(recorded.writes.len(), 5, "the head and four pieces: {recorded:?}");
    for (number, write) in recorded.writes.iter().enumerate() {
        let after = write.at - recorded.received.unwrap();
        assert!(after >= pause * number as u32, "piece {number} after {after:?}");
    }
    assert!(recorded.accepted <= recorded.head_received && recorded.head_received <= recorded.writes[0].at);
    assert!(recorded.closed.is_some_and(|closed| closed >= recorded.writes[4].at));
}

#[test]
fn slow_headers_delay_from_the_end_of_the_request() {
    let simulator = scripted("[[rule]]\nfault = 'slow_headers'\nms = 30");
    let answer = ask(&simulator, "GET", "/langmart/health", "", "");
    check_members(&answer, 200, &[("/status", json!("ok"))]);
    let recorded = simulator.requests().remove(0);
    assert!(recorded.writes[0].at - recorded.head_received >= Duration::from_millis(30));
    assert_eq!(recorded.writes.len(), 1, "head and body in one");
}

fn tls_config(simulator: &Simulator, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Performs a handshake as a client that requests this name.
pub(super) fn handshake(
    simulator: &Simulator,
    name: &str,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = Arc::new(tls_config(simulator, &["http/1.1"]));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(config, name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(simulator.tls_address().unwrap())?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

#[test]
fn certificate_validity_depends_on_the_name() {
    let simulator = fair();
    for name in ["localhost", "127.0.0.1", "::1", "api.sim.test", "sim.test"] {
        handshake(&simulator, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let refused = [
        ("expired.sim.test", "expired"),
        ("expired.localhost", "expired"),
        ("future.sim.test", "not valid yet"),
        ("wrong.sim.test", "not valid for"),
        ("selfsigned.sim.test", "UnknownIssuer"),
    ];
    for (name, expected) in refused {
        let message = handshake(&simulator, name).unwrap_err().to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
    let error = handshake(&simulator, "reset.sim.test").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(simulator.requests().is_empty());
    assert_eq!(simulator.connections(), 11);
}

#[test]
fn handshakes_can_be_slow_or_reset() {
    let simulator = scripted("[[rule]]\ncalls = { to = 1 }\nfault = 'slow_handshake'\nms = 40");
    let asked = Instant::now();
    let mut stream = handshake(&simulator, "localhost").unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(40));
    stream.write_all(request("GET", "/langmart/health", "Connection: close\r\n", "").as_bytes()).unwrap();
    let seen = observe(&mut stream);
    let recorded = simulator.requests().remove(0);
    assert!(recorded.tls_done.unwrap() - recorded.accepted >= Duration::from_millis(40));
    assert!(recorded.tls_done.unwrap() <= recorded.head_received);
    assert!(recorded.writes[0].at <= seen[0].0 && recorded.writes[0].bytes > seen[0].1, "encrypted");
    simulator.set_scenario(Scenario::parse("[[rule]]\nfault = 'reset_handshake'").unwrap());
    assert_eq!(handshake(&simulator, "localhost").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    simulator.set_scenario(Scenario::parse("[[rule]]\nfault = 'slow_accept'\nms = 40").unwrap());
    let asked = Instant::now();
    handshake(&simulator, "localhost").unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(40));
}

/// Creates a client with one connection per request and without retries.
pub(super) fn http2_client(simulator: &Simulator) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls_config(simulator, &["h2"]))
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

#[test]
fn http2_has_the_same_answers_and_endings() {
    let simulator = fair();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = http2_client(&simulator);
    let base = format!("https://{}", simulator.tls_address().unwrap());
    let ask = async |simulate: &'static str| {
        let url = format!("{base}/langmart/v1/models");
        let request = client.get(url).header("x-simulate", simulate).bearer_auth("sk-good");
        let response = request.send().await?;
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        let status = response.status().as_u16();
        response.bytes().await.map(|body| (status, body))
    };
    runtime.block_on(async {
        let (status, whole) = ask("slow_headers; ms=10").await.unwrap();
        assert_eq!((status, whole.starts_with(b"{")), (200, true));
        let (status, slow) = ask("slow_body; ms=10").await.unwrap();
        assert_eq!((status, slow), (200, whole));
        assert_eq!(ask("rate_limited").await.unwrap().0, 429);
        assert_eq!(ask("oversized").await.unwrap().1.len() >> 20, 5);
        for broken in ["cut", "reset", "cut_before_headers", "garbage", "header_flood"] {
            let error = ask(broken).await.unwrap_err();
            assert!(!error.is_timeout(), "{broken}: {error:?}");
        }
    });
    let records = simulator.requests();
    assert!(records.iter().all(|recorded| recorded.http_version == "2" && !recorded.path.is_empty()));
    let paced = &records[1].writes;
    assert!(paced.last().unwrap().at - records[1].head_received >= Duration::from_millis(40), "{paced:?}");
    let cut = records.iter().find(|recorded| recorded.fault == Some("cut")).unwrap();
    assert!(!cut.writes.is_empty(), "half of the body was written");
}
