//! Tests of warm connections: reused between runs, replaced if dead before a request, and closed by
//! a reload.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use langmart_prober::{
    config::{Connection, Probe, Provider},
    outcome::{Api, Check, ConnectionUse, Outcome, Phases, Reason},
    probe::{NetworkStack, Target},
    simulator::Simulator,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::harness::{
    daemon::{KEY, LISTEN, Place, records},
    probes::{config, probe, provider},
    simulate::simulator,
};

/// Returns a warm probe of the simulator's `OpenAI`, over either protocol.
fn warm(simulator: &Simulator, check: Check, tls: bool) -> Probe {
    let authority = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
    let base_url = if tls {
        format!("https://localhost:{}/openai/v1", simulator.tls_address().unwrap().port())
    } else {
        format!("http://{}/openai/v1", simulator.address())
    };
    let provider = Provider { ca_certificates: vec![authority], ..provider(Api::Openai, &base_url) };
    Probe {
        model: check.generates().then(|| "gpt-4o-mini".to_owned()),
        connection: Connection::Warm,
        ..probe(provider, check)
    }
}

/// Performs consecutive runs of one probe, with an action before each.
fn runs(probe: Probe, times: usize, mut between: impl FnMut(usize)) -> Vec<Outcome> {
    let targets = Target::prepare(&config(vec![probe]), &Arc::new(NetworkStack::new())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut outcomes = Vec::new();
        for run in 0..times {
            if run > 0 {
                between(run);
                // The client's tasks notice the actions of the other side.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            outcomes.push(targets[0].run().await);
        }
        outcomes
    })
}

#[track_caller]
fn check(outcomes: &[Outcome], expected: &[ConnectionUse]) {
    let found: Vec<_> = outcomes.iter().map(|outcome| outcome.connection.unwrap()).collect();
    assert_eq!(found, expected, "{outcomes:#?}");
    for outcome in outcomes.iter().filter(|outcome| outcome.connection == Some(ConnectionUse::Reused)) {
        let Phases { resolve, connect, tls, processing, .. } = outcome.phases;
        assert_eq!([resolve, connect, tls], [Duration::ZERO; 3], "{outcome:?}");
        assert!(processing > Duration::ZERO, "{outcome:?}");
        assert_eq!(outcome.remote_address.is_some(), outcome.http_status.is_some(), "{outcome:?}");
        assert!(outcome.dns.is_empty() && outcome.tls.is_none(), "{outcome:?}");
        assert_eq!(outcome.phases.total(), outcome.duration);
    }
}

#[test]
fn connection_is_kept_alive_over_either_protocol() {
    use ConnectionUse::{New, Reused};
    for check_kind in [Check::Auth, Check::Models, Check::Chat, Check::Stream] {
        for (tls, version) in [(false, "1.1"), (true, "2")] {
            let simulator = simulator("");
            let outcomes = runs(warm(&simulator, check_kind, tls), 4, |_| ());
            assert!(outcomes.iter().all(Outcome::success), "{check_kind}: {outcomes:#?}");
            assert!(outcomes.iter().all(|outcome| outcome.http_version == Some(version)));
            check(&outcomes, &[New, Reused, Reused, Reused]);
            assert_eq!(simulator.connections(), 1, "{check_kind} over HTTP/{version}");
            assert_eq!(simulator.requests().len(), 4);
            let first = outcomes[0].phases;
            assert!(first.connect > Duration::ZERO && (first.tls > Duration::ZERO) == tls, "{first:?}");
            if check_kind == Check::Stream {
                assert!(outcomes.iter().all(|outcome| outcome.time_to_first_token.is_some()));
            }
        }
    }
}

#[test]
fn cold_probe_reports_no_connection_use() {
    let simulator = simulator("");
    let cold = Probe { connection: Connection::Cold, ..warm(&simulator, Check::Auth, true) };
    let outcomes = runs(cold, 3, |_| ());
    assert!(outcomes.iter().all(|outcome| outcome.success() && outcome.connection.is_none()));
    assert!(outcomes.iter().all(|outcome| outcome.phases.tls > Duration::ZERO));
    assert_eq!(simulator.connections(), 3);
}

#[test]
fn failed_http_1_run_leaves_no_connection() {
    use ConnectionUse::{New, Reused};
    let simulator = simulator("[[rule]]\ncalls = { from = 2, to = 2 }\nfault = \"cut\"");
    let outcomes = runs(warm(&simulator, Check::Models, false), 4, |_| ());
    let reasons: Vec<_> = outcomes.iter().map(|outcome| outcome.reason).collect();
    assert_eq!(reasons, [Reason::Ok, Reason::Disconnected, Reason::Ok, Reason::Ok]);
    check(&outcomes, &[New, Reused, New, Reused]);
}

/// End of a connection after its first answer.
#[derive(Clone, Copy)]
enum Then {
    /// It is closed immediately.
    Closed,
    /// It is closed when the next request arrives.
    ClosedAfterRequest,
    /// It is closed immediately, as the answer announced.
    Announced,
}

/// Starts a server that answers one request per connection, and reports each request.
fn forgetful(then: Then) -> (SocketAddr, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            // A client may leave early.
            if stream.read(&mut request).is_ok_and(|read| read > 0) {
                let _ = tell.send(());
                let close = if let Then::Announced = then { "Connection: close\r\n" } else { "" };
                let body = r#"{"object":"list","data":[]}"#;
                let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
            if let Then::ClosedAfterRequest = then
                && stream.read(&mut request).is_ok_and(|read| read > 0)
            {
                let _ = tell.send(());
            }
        }
    });
    (address, requests)
}

fn of_forgetful(then: Then) -> (Vec<Outcome>, usize) {
    let (address, requests) = forgetful(then);
    let provider = provider(Api::Openai, &format!("http://{address}/v1"));
    let probe = Probe { connection: Connection::Warm, ..probe(provider, Check::Models) };
    let outcomes = runs(probe, 3, |_| ());
    (outcomes, requests.try_iter().count())
}

#[test]
fn dead_connection_is_replaced_before_a_request() {
    use ConnectionUse::{New, Replaced};
    let (outcomes, requests) = of_forgetful(Then::Closed);
    assert!(outcomes.iter().all(Outcome::success), "{outcomes:#?}");
    check(&outcomes, &[New, Replaced, Replaced]);
    assert_eq!(requests, 3);
    assert!(outcomes[1].phases.connect > Duration::ZERO);
    // The announced close lost nothing.
    let (outcomes, _) = of_forgetful(Then::Announced);
    check(&outcomes, &[New, New, New]);
}

#[test]
fn idle_close_that_crosses_the_request_is_replaced() {
    use ConnectionUse::{New, Replaced};
    let (outcomes, requests) = of_forgetful(Then::ClosedAfterRequest);
    let reasons: Vec<_> = outcomes.iter().map(|outcome| outcome.reason).collect();
    assert_eq!(reasons, [Reason::Ok; 3], "{outcomes:#?}");
    check(&outcomes, &[New, Replaced, Replaced]);
    assert_eq!(requests, 5, "the second and third run sent two requests");
}

#[test]
fn reload_with_another_key_closes_connections() {
    let simulator = simulator("");
    let place = Place::new("");
    place.write("key", "sk-good-0123456789");
    let (key, logs) = (place.path("key"), place.path("logs"));
    let file = |interval: &str| {
        format!(
            "{LISTEN}[log]\ndirectory = \"{}\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n\
             api_key = {{ file = \"{}\" }}\n[[probe]]\nname = \"warm\"\nprovider = \"openai\"\ncheck = \"auth\"\n\
             connection = \"warm\"\ninterval = \"{interval}\"\n",
            logs.display(),
            simulator.address(),
            key.display()
        )
    };
    place.write("config.toml", &file("1s"));
    let mut daemon = place.daemon();
    let runs = |at_least: f64| {
        daemon.scrape_until("runs", |scrape| {
            scrape.value("langmart_probe_runs_total", &[("probe", "warm")]) >= at_least
        })
    };
    let scrape = runs(3.0);
    assert_eq!(scrape.value("langmart_probe_info", &[("connection", "warm")]), 1.0);
    assert_eq!(simulator.connections(), 1);
    place.write("key", "sk-another-0123456789");
    daemon.reload();
    let before = daemon.runs("warm");
    runs(before + 3.0);
    daemon.stop();
    assert_eq!(simulator.connections(), 2);
    let requests = simulator.requests();
    let first_of_second = requests.iter().position(|request| request.connection == 2).unwrap();
    assert!(requests[..first_of_second].iter().all(|request| request.connection == 1));
    assert!(requests[first_of_second..].iter().all(|request| request.connection == 2), "{requests:#?}");
    let records = records(place.files("logs", "results.jsonl"));
    let uses: Vec<_> = records.iter().map(|record| record["connection"].as_str().unwrap()).collect();
    assert_eq!(uses.iter().filter(|connection| **connection == "new").count(), 2, "{uses:?}");
    assert!(uses.iter().all(|connection| ["new", "reused"].contains(connection)), "{uses:?}");
}

#[test]
fn single_run_has_a_new_connection() {
    let simulator = simulator("");
    let place = Place::new(&format!(
        "[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n[[probe]]\nname = \"warm\"\n\
         provider = \"openai\"\ncheck = \"auth\"\nconnection = \"warm\"\n",
        simulator.address()
    ));
    let output = place.run("once", &["--json"]);
    let record = &records(&output.stdout)[0];
    assert_eq!((record["success"].as_bool(), record["connection"].as_str()), (Some(true), Some("new")));
}
