//! Steps by the outcomes that they are based on.

use super::*;
use crate::{
    config::testing::provider,
    outcome::{Api, Fault, LookupFailure, Network, Phases, Resource, StatusPage, Tls},
};

const MOMENT: Duration = Duration::from_millis(5);

fn outcome(reason: Reason, phases: Phases) -> Outcome {
    Outcome { phases, ..Outcome::new(SystemTime::UNIX_EPOCH, reason, Fault::Network) }
}

#[track_caller]
fn check_reached(proxy: Option<&str>, reason: Reason, phases: Phases, expected: Reached) {
    let provider = Provider {
        proxy: proxy.map(|proxy| proxy.parse().unwrap()),
        ..provider("langmart", Api::Langmart, "https://api.example")
    };
    assert_eq!(reached(&provider, &outcome(reason, phases)), expected, "{proxy:?} {reason}");
}

#[test]
fn reached_phase_follows_from_reason_and_phases() {
    let none = Phases::default();
    let resolve = Phases { resolve: MOMENT, ..none };
    let connect = Phases { connect: MOMENT, ..resolve };
    let tls = Phases { tls: MOMENT, ..connect };
    let processing = Phases { processing: MOMENT, ..tls };
    check_reached(None, Reason::Dns, resolve, Reached::Lookup);
    check_reached(None, Reason::Connect, connect, Reached::Connection);
    check_reached(None, Reason::Tls, tls, Reached::Handshake);
    check_reached(None, Reason::Unavailable, processing, Reached::Service);
    check_reached(None, Reason::Disconnected, processing, Reached::Service);
    check_reached(None, Reason::Timeout, resolve, Reached::Lookup);
    check_reached(None, Reason::Timeout, connect, Reached::Connection);
    check_reached(None, Reason::Timeout, tls, Reached::Handshake);
    check_reached(None, Reason::Timeout, processing, Reached::Service);
    check_reached(Some("http://proxy.example:1"), Reason::Proxy, resolve, Reached::Lookup);
    check_reached(Some("http://192.0.2.1:1"), Reason::Proxy, connect, Reached::Connection);
    check_reached(Some("socks5://192.0.2.1:1"), Reason::Proxy, resolve, Reached::Lookup);
    check_reached(Some("socks5h://192.0.2.1:1"), Reason::Proxy, connect, Reached::Connection);
}

#[test]
fn name_server_that_cannot_answer_is_noted() {
    let provider = provider("langmart", Api::Langmart, "https://api.example");
    let server = |answer| DnsServer { server: "192.0.2.53".to_owned(), answer, duration: MOMENT };
    let check = |answer: Result<Vec<IpAddr>, LookupFailure>, verdict, text: &str| {
        let mut outcome = outcome(Reason::Ok, Phases { resolve: MOMENT, ..Phases::default() });
        outcome.dns = vec!["192.0.2.1".parse().unwrap()];
        let step = dns(&provider, &outcome, &[server(answer)]);
        assert_eq!(step.verdict, verdict, "{}", step.text);
        let expected = format!("api.example is 192.0.2.1, in 5 ms (name servers: 192.0.2.53 {text})");
        assert_eq!(step.text, expected);
    };
    check(Ok(vec!["192.0.2.1".parse().unwrap()]), Verdict::Ok, "answers 192.0.2.1");
    // The hosts file has a name that no server knows.
    check(Err(LookupFailure::NoSuchName), Verdict::Ok, "answers NXDOMAIN");
    check(Err(LookupFailure::NoAnswer), Verdict::Note, "did not answer");
    check(Err(LookupFailure::ServerFailure), Verdict::Note, "failed with SERVFAIL");
}

#[track_caller]
fn check_clock(offset: f64, verdict: Verdict, text: &str) {
    let mut outcome = outcome(Reason::Ok, Phases::default());
    outcome.clock_offset = Some(offset);
    let step = clock(&outcome);
    assert_eq!((step.verdict, step.text.as_str()), (verdict, text));
}

#[test]
fn clock_offset_determines_the_verdict() {
    check_clock(-1.9, Verdict::Ok, "agrees with the service's");
    check_clock(12.3, Verdict::Note, "this machine's is 12s ahead of the service's");
    check_clock(-100.0, Verdict::Failed, "this machine's is 1m40s behind the service's");
    check_clock(86_401.2, Verdict::Failed, "this machine's is 1d ahead of the service's");
    assert_eq!(clock(&outcome(Reason::Ok, Phases::default())).verdict, Verdict::Skipped);
}

#[test]
fn certificate_that_expires_soon_is_noted() {
    let provider = provider("langmart", Api::Langmart, "https://api.example");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_334_400);
    let verdict = |days: u64| {
        let not_after = Some(now + Duration::from_secs(days * 86_400));
        let tls = Some(Tls { version: Some("1.3"), cipher: None, not_after });
        let phases = Phases { tls: MOMENT, processing: MOMENT, ..Phases::default() };
        let step = super::tls(&provider, &Outcome { tls, ..outcome(Reason::Ok, phases) }, now);
        assert!(step.text.starts_with("TLS 1.3, in 5 ms, certificates good until 2026-"), "{}", step.text);
        step.verdict
    };
    assert_eq!((verdict(13), verdict(14)), (Verdict::Note, Verdict::Ok));
}

#[test]
fn details_of_the_network_check_are_shown() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let server = |server: &str, answer| DnsServer { server: server.to_owned(), answer, duration: MOMENT };
    let found = |failed: &[(&str, AddressFailure)]| {
        let failed =
            failed.iter().map(|(failed, error)| FailedAddress { address: address(failed), error: *error });
        let network = Network {
            dns_servers: vec![
                server(DnsServer::SYSTEM, Err(LookupFailure::NoAnswer)),
                server("192.0.2.53", Ok(vec![address("192.0.2.1")])),
                server("192.0.2.54", Err(LookupFailure::Refused)),
            ],
        };
        let failed_addresses = failed.collect();
        let phases = Phases { connect: MOMENT, processing: MOMENT, ..Phases::default() };
        Outcome { network: Some(Box::new(network)), failed_addresses, ..outcome(Reason::Ok, phases) }
    };
    let mut provider = provider("langmart", Api::Langmart, "https://api.example");
    provider.dns_servers = ["192.0.2.53:53", "192.0.2.54:53"].map(|server| server.parse().unwrap()).into();
    let lines: Vec<(Verdict, String)> = other_name_servers(&provider, &found(&[]))
        .into_iter()
        .map(|step| (step.verdict, step.text))
        .collect();
    let expected = [
        (Verdict::Ok, "192.0.2.53 answers 192.0.2.1, in 5 ms"),
        (Verdict::Note, "192.0.2.54 refused with REFUSED, in 5 ms"),
    ];
    assert_eq!(lines, expected.map(|(verdict, text)| (verdict, text.to_owned())));

    for (failed, verdict, text) in [
        (&[][..], Verdict::Ok, ""),
        (
            &[("2001:db8::1", AddressFailure::Unreachable)][..],
            Verdict::Ok,
            "; not to 2001:db8::1 (unreachable)",
        ),
        (&[("192.0.2.2", AddressFailure::NoAnswer)][..], Verdict::Note, "; not to 192.0.2.2 (no_answer)"),
    ] {
        let step = tcp(&provider, &found(failed));
        let expected = format!("connected to api.example:443, in 5 ms{text}");
        assert_eq!((step.verdict, step.text), (verdict, expected));
    }
}

#[test]
fn exhausted_rate_limit_is_noted() {
    let limit = |resource, remaining| RateLimit { resource, limit: Some(60), remaining, reset: None };
    let step = limits(&[limit(Resource::Requests, Some(1)), limit(Resource::Tokens, None)]);
    assert_eq!(
        (step.verdict, step.text.as_str()),
        (Verdict::Ok, "requests: 1 of 60 left; tokens: ? of 60 left")
    );
    assert_eq!(limits(&[limit(Resource::Requests, Some(0))]).verdict, Verdict::Note);
}

#[test]
fn maintenance_in_progress_is_noted() {
    let page = |in_progress| {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let maintenance = Maintenance { start: at(0), end: at(3600), in_progress };
        let status_page = StatusPage {
            indicator: Indicator::None,
            open_incidents: Some(0),
            components: Vec::new(),
            maintenance: Some(maintenance),
        };
        status(&Outcome { status_page: Some(status_page), ..outcome(Reason::Ok, Phases::default()) })
    };
    let times = "from 1970-01-01T00:00:00Z until 1970-01-01T01:00:00Z";
    for (in_progress, verdict, words) in
        [(true, Verdict::Note, "in progress"), (false, Verdict::Ok, "announced")]
    {
        let step = page(in_progress);
        let expected = format!("the page reports none, 0 open incidents, maintenance {words} {times}");
        assert_eq!((step.verdict, step.text), (verdict, expected));
    }
}
