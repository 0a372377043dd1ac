//! Tests of the exported values.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use super::{Format, Metrics, OwnNow, Series};

use crate::{
    config::{Probe, Provider, Recheck, StatusSource, Task},
    line_writer::Counters,
    metrics::testing::{self, chat, config, probe, provider, stream},
    outcome::{
        AddressFailure, Api, Balance, Clock, ComponentStatus, Detail, DnsServer, FailedAddress, Fault,
        Indicator, LimitedBy, LookupFailure, Maintenance, Network, Outcome, Phases, RateLimit, Reason,
        Resource, SkipCause, StatusPage, StreamShape, Tls,
    },
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const CHAT: &str = r#"probe="p",provider="acme",check="chat",model="m""#;

fn later(seconds: u64) -> SystemTime {
    NOW + Duration::from_secs(seconds)
}

/// Returns the samples of a page, by name and labels.
fn samples(metrics: &Metrics, now: SystemTime) -> BTreeMap<String, f64> {
    let page = testing::page(metrics, now);
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

pub(super) fn acme(api: Api) -> Arc<Provider> {
    Arc::new(provider("acme", api))
}

/// Returns metrics with one chat probe, and its series.
fn one_chat(api: Api) -> (Metrics, Arc<Series>) {
    let metrics = Metrics::new(NOW);
    let probe = chat("p", &acme(api), "m");
    metrics.configure(&config(vec![Arc::clone(&probe)]));
    let series = metrics.series(&probe);
    (metrics, series)
}

#[track_caller]
fn check(metrics: &Metrics, now: SystemTime, expected: &[(&str, Option<f64>)]) {
    let samples = samples(metrics, now);
    for (name, value) in expected {
        let name = match name.split_once('{') {
            Some((family, labels)) => format!("langmart_probe_{family}{{{CHAT},{labels}"),
            None => format!("langmart_probe_{name}{{{CHAT}}}"),
        };
        assert_eq!(samples.get(&name).copied(), *value, "{name} in {samples:#?}");
    }
}

/// Returns an outcome with a value in every field.
pub(super) fn rich() -> Outcome {
    Outcome {
        detail: Some(Detail::JsonDiffers("canary-detail".into())),
        hint: "canary-hint".into(),
        http_status: Some(429),
        http_version: Some("1.1"),
        error_code: Some("PROVIDER_OPENAI_429".into()),
        upstream: Some("canary-upstream"),
        request_id: Some("canary-id".to_owned()),
        retry_after: Some(60.5),
        limited_by: Some(LimitedBy::InputTokens),
        reported_processing: Some(Duration::from_millis(412)),
        model_shutdown: Some(later(6000)),
        answered_model: Some("canary-model".into()),
        model_match: Some(false),
        stream: Some(Box::new(StreamShape {
            pieces: 80,
            bursts: 78,
            longest_gap: Duration::from_millis(31),
        })),
        buffered: Some(true),
        duration: Duration::from_millis(1500),
        phases: Phases { connect: Duration::from_millis(250), ..Phases::default() },
        remote_address: Some(([192, 0, 2, 77], 443).into()),
        ratelimit: vec![limit(Resource::Requests, 60, 0, Some(later(100)))],
        tls: Some(Tls { version: Some("1.3"), cipher: Some("TLS_A"), not_after: Some(later(5000)) }),
        dns: vec![[192, 0, 2, 77].into()],
        network: Some(Box::new(Network {
            dns_servers: vec![dns_server(DnsServer::SYSTEM, Ok(vec![[192, 0, 2, 77].into()]))],
        })),
        failed_addresses: vec![FailedAddress {
            address: [192, 0, 2, 77].into(),
            error: AddressFailure::Refused,
        }],
        clock: Some(Clock::Kernel),
        clock_offset: Some(-3.0),
        time_to_first_token: Some(Duration::from_millis(310)),
        time_to_first_reasoning: Some(Duration::from_millis(200)),
        time_per_output_token: Some(Duration::from_millis(20)),
        input_tokens: Some(9),
        cached_input_tokens: Some(3),
        output_tokens: Some(4),
        tokens_estimated: true,
        status_page: Some(StatusPage {
            maintenance: Some(Maintenance {
                start: Some(later(40)),
                end: Some(later(7000)),
                in_progress: true,
            }),
            ..page(Indicator::Major, Some(1), &[("API", ComponentStatus::PartialOutage)])
        }),
        balance: Some(Balance { usd: 12.5, minimum_usd: Some(0.1) }),
        ..Outcome::new(later(50), Reason::RateLimited, Fault::Caller)
    }
}

fn dns_server(server: &str, answer: Result<Vec<IpAddr>, LookupFailure>) -> DnsServer {
    DnsServer { server: server.to_owned(), answer, duration: Duration::ZERO }
}

fn limit(resource: Resource, limit: u64, remaining: u64, reset: Option<SystemTime>) -> RateLimit {
    RateLimit { resource, limit: Some(limit), remaining: Some(remaining), reset }
}

/// Returns a probe of a status page with these components.
pub(super) fn status(name: &str, provider: &Arc<Provider>, components: &[&str]) -> Arc<Probe> {
    let components = components.iter().map(ToString::to_string).collect();
    let url = "https://status.example/api/v2/summary.json".parse().unwrap();
    Arc::new(probe(name, provider, Task::Status(StatusSource { url, components })))
}

fn page(indicator: Indicator, open: Option<u64>, components: &[(&str, ComponentStatus)]) -> StatusPage {
    let components = components.iter().map(|(name, status)| ((*name).to_owned(), *status)).collect();
    StatusPage { indicator, open_incidents: open, components, maintenance: None }
}

/// Returns the labels of the samples of a family that are 1, and the number of samples.
fn ones(metrics: &Metrics, family: &str) -> (Vec<String>, usize) {
    let samples = samples(metrics, NOW);
    let family = samples.iter().filter(|(name, _)| name.starts_with(&format!("langmart_probe_{family}{{")));
    let labels = |name: &str| name.split_once("model=\"\",").unwrap().1.trim_end_matches('}').to_owned();
    let ones = family.clone().filter(|(_, value)| **value != 0.0).map(|(name, _)| labels(name)).collect();
    (ones, family.count())
}

#[test]
fn status_page_is_unknown_after_a_failure() {
    let metrics = Metrics::new(NOW);
    let provider = acme(Api::Anthropic);
    let probe = status("s", &provider, &["API", "Web"]);
    metrics.configure(&config(vec![Arc::clone(&probe)]));
    let series = metrics.series(&probe);
    let labels = r#"{probe="s",provider="acme",check="status",model=""}"#;
    let open =
        || samples(&metrics, NOW).get(&format!("langmart_probe_status_page_open_incidents{labels}")).copied();
    let unknown = || {
        assert_eq!(ones(&metrics, "status_page_indicator"), (vec![r#"indicator="unknown""#.to_owned()], 6));
        let components = ["API", "Web"].map(|name| format!(r#"component="{name}",status="unknown""#));
        assert_eq!(ones(&metrics, "status_page_component"), (components.to_vec(), 12));
        assert_eq!(open(), None);
    };
    unknown();

    let said = page(
        Indicator::None,
        Some(2),
        &[("API", ComponentStatus::MajorOutage), ("Gone", ComponentStatus::Operational)],
    );
    let success = |said| Outcome { status_page: Some(said), ..Outcome::new(NOW, Reason::Ok, Fault::None) };
    series.observe(&success(said));
    assert_eq!(ones(&metrics, "status_page_indicator").0, [r#"indicator="none""#]);
    let components = [r#"component="API",status="major_outage""#, r#"component="Web",status="unknown""#];
    assert_eq!(ones(&metrics, "status_page_component"), (components.map(str::to_owned).to_vec(), 12));
    assert_eq!(open(), Some(2.0));

    series.observe(&Outcome::new(NOW, Reason::Malformed, Fault::Caller));
    unknown();
    series.observe(&success(page(Indicator::Maintenance, None, &[])));
    assert_eq!(ones(&metrics, "status_page_indicator").0, [r#"indicator="maintenance""#]);
    assert_eq!(open(), None);
    let host = r#"host="status.example""#;
    assert!(samples(&metrics, NOW).keys().any(|name| name.contains(host)));
}

#[test]
fn status_page_metrics_exist_for_status_checks_only() {
    let (metrics, _) = one_chat(Api::Openai);
    assert!(
        !samples(&metrics, NOW).keys().any(|name| name.contains("status_page") || name.contains("balance"))
    );
    metrics.configure(&config(vec![status("s", &acme(Api::Langmart), &[])]));
    let samples = samples(&metrics, NOW);
    let failures = samples.keys().filter(|name| name.starts_with("langmart_probe_failures_total"));
    assert!(failures.clone().count() > 15);
    for name in failures {
        assert!(!name.contains("gateway\"") && !name.contains("provider\"}"), "{name}");
    }
}

#[track_caller]
fn check_balance(metrics: &Metrics, usd: Option<f64>, minimum: Option<f64>) {
    let samples = samples(metrics, NOW);
    let of = |name: &str| {
        let labels = r#"{probe="b",provider="acme",check="balance",model=""}"#;
        samples.get(&format!("langmart_probe_balance_{name}{labels}")).copied()
    };
    assert_eq!((of("usd"), of("minimum_usd")), (usd, minimum));
}

#[test]
fn balance_keeps_the_last_reported_value() {
    let metrics = Metrics::new(NOW);
    let probe = Arc::new(probe("b", &acme(Api::Langmart), Task::Balance));
    metrics.configure(&config(vec![Arc::clone(&probe)]));
    let series = metrics.series(&probe);
    let told = |reason, usd, minimum_usd| Outcome {
        balance: Some(Balance { usd, minimum_usd }),
        ..Outcome::new(NOW, reason, Fault::None)
    };
    check_balance(&metrics, None, None);
    series.observe(&told(Reason::Ok, 12.5, Some(0.1)));
    check_balance(&metrics, Some(12.5), Some(0.1));
    series.observe(&Outcome::new(NOW, Reason::Timeout, Fault::Gateway));
    check_balance(&metrics, Some(12.5), Some(0.1));
    series.observe(&told(Reason::Billing, -0.05, None));
    check_balance(&metrics, Some(-0.05), None);
    series.observe(&Outcome::new(NOW, Reason::Ok, Fault::None));
    check_balance(&metrics, None, None);
}

#[tokio::test(start_paused = true)]
async fn offline_if_no_service_can_be_reached() {
    let metrics = Metrics::new(NOW);
    let other = Arc::new(Provider {
        base_url: "https://other.example".parse().unwrap(),
        ..provider("other", Api::Groq)
    });
    let acme = acme(Api::Openai);
    let probes = vec![
        chat("a", &acme, "m"),
        status("a-status", &acme, &[]),
        chat("b", &other, "m"),
        status("b-status", &other, &[]),
    ];
    metrics.configure(&config(probes.clone()));
    let [a, a_status, b, b_status] = [0, 1, 2, 3].map(|index| metrics.series(&probes[index]));
    let run = |series: &Series, fault| series.observe(&Outcome::new(NOW, Reason::Connect, fault));
    let offline = || samples(&metrics, NOW).get("langmart_prober_offline").copied();
    let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
    assert_eq!(offline(), None);
    // Status pages are on other hosts, so neither failures nor successes of two of them count.
    run(&a_status, Fault::Network);
    run(&b_status, Fault::Network);
    assert_eq!(offline(), None);
    run(&a, Fault::Network);
    assert_eq!(offline(), None);
    run(&b, Fault::None);
    assert_eq!(offline(), Some(0.0));
    pass(1).await;
    run(&b, Fault::Network);
    run(&a_status, Fault::None);
    assert_eq!(offline(), Some(1.0));
    assert_eq!(metrics.offline(NOW), Some(true));
    // A probe in backoff is ignored, as is one that has not run for two intervals.
    b.waiting(later(500), Some(later(500)));
    assert_eq!(offline(), None);
    b.waiting(later(60), None);
    pass(119).await;
    assert_eq!(offline(), Some(1.0));
    pass(1).await;
    assert_eq!(offline(), None);
}

#[tokio::test(start_paused = true)]
async fn offline_is_independent_of_the_wall_clock() {
    let metrics = Metrics::new(NOW);
    let other = Arc::new(Provider {
        base_url: "https://other.example".parse().unwrap(),
        ..provider("other", Api::Groq)
    });
    let acme = acme(Api::Openai);
    let probes = [&acme, &acme, &other].into_iter().zip(["a", "a-2", "b"]);
    let probes: Vec<_> = probes.map(|(provider, name)| chat(name, provider, "m")).collect();
    metrics.configure(&config(probes.clone()));
    let noon = 1_000_000_000;
    let run = |index: usize, at: u64, fault| {
        let outcome = Outcome::new(later(at), Reason::Connect, fault);
        metrics.series(&probes[index]).observe(&outcome);
    };
    run(0, noon, Fault::None);
    tokio::time::advance(Duration::from_secs(1)).await;
    // The network fails; then the clock is set back, forward, by a year, and to the epoch.
    for at in [noon - 600, noon + 600, noon + 366 * 86_400, 0, noon] {
        run(1, at, Fault::Network);
        run(2, at, Fault::Network);
        for now in [at, noon, noon - 600, noon + 30 * 86_400] {
            assert_eq!(metrics.offline(later(now)), Some(true), "runs at {at}, now {now}");
        }
    }
}

#[test]
fn before_first_run_counters_are_zero_and_gauges_absent() {
    let (metrics, _) = one_chat(Api::Langmart);
    let expected = [
        ("success", None),
        ("last_run_fault{fault=\"none\"}", None),
        ("runs_total", Some(0.0)),
        ("failures_total{reason=\"rate_limited\",fault=\"caller\"}", Some(0.0)),
        ("failures_total{reason=\"rate_limited\",fault=\"provider\"}", Some(0.0)),
        ("failures_total{reason=\"ok\",fault=\"none\"}", None),
        ("failures_total{reason=\"unmet_expectation\",fault=\"gateway\"}", Some(0.0)),
        ("failures_total{reason=\"wrong_answer\",fault=\"gateway\"}", Some(0.0)),
        ("failures_total{reason=\"wrong_answer\",fault=\"provider\"}", None),
        ("answered_model_match", None),
        ("model_mismatches_total", Some(0.0)),
        ("stream_buffered", None),
        ("buffered_streams_total", None),
        ("duration_seconds_count", Some(0.0)),
        ("duration_seconds_bucket{le=\"120\"}", Some(0.0)),
        ("last_duration_seconds", None),
        ("phase_seconds_total{phase=\"tls\"}", Some(0.0)),
        ("last_phase_duration_seconds{phase=\"tls\"}", None),
        ("http_responses_total{code=\"529\"}", Some(0.0)),
        ("http_responses_total{code=\"404\"}", None),
        ("http_responses_total{code=\"other\"}", None),
        ("http_status_code", None),
        ("retry_after_seconds", Some(0.0)),
        ("retry_after_hints_total", Some(0.0)),
        ("backoff_until_timestamp_seconds", Some(0.0)),
        ("next_run_timestamp_seconds", None),
        ("skipped_runs_total{cause=\"overrun\"}", Some(0.0)),
        ("tokens_total{direction=\"input\"}", Some(0.0)),
        ("last_run_timestamp_seconds", None),
        ("last_success_timestamp_seconds", None),
        ("interval_seconds", Some(60.0)),
        ("timeout_seconds", Some(30.0)),
        ("info{host=\"api.example\",api=\"langmart\",connection=\"cold\"}", Some(1.0)),
    ];
    check(&metrics, NOW, &expected);
}

#[test]
fn failed_run_is_exported_in_every_family() {
    let (metrics, series) = one_chat(Api::Langmart);
    series.observe(&rich());
    let expected = [
        ("success", Some(0.0)),
        ("last_run_fault{fault=\"caller\"}", Some(1.0)),
        ("last_run_fault{fault=\"none\"}", Some(0.0)),
        ("runs_total", Some(1.0)),
        ("failures_total{reason=\"rate_limited\",fault=\"caller\"}", Some(1.0)),
        ("consecutive_down_runs", Some(0.0)),
        ("consecutive_failures{reason=\"rate_limited\",fault=\"caller\"}", Some(1.0)),
        ("duration_seconds_count", Some(0.0)),
        ("last_duration_seconds", Some(1.5)),
        ("phase_seconds_total{phase=\"connect\"}", Some(0.25)),
        ("last_phase_duration_seconds{phase=\"connect\"}", Some(0.25)),
        ("last_phase_duration_seconds{phase=\"transfer\"}", Some(0.0)),
        ("http_responses_total{code=\"429\"}", Some(1.0)),
        ("http_status_code", Some(429.0)),
        ("api_errors_total{code=\"PROVIDER_OPENAI_429\"}", Some(1.0)),
        ("retry_after_seconds", Some(60.5)),
        ("retry_after_hints_total", Some(1.0)),
        ("retry_after_hint_seconds_total", Some(60.5)),
        ("ratelimit_limit{resource=\"requests\"}", Some(60.0)),
        ("ratelimit_remaining{resource=\"requests\"}", Some(0.0)),
        ("ratelimit_reset_timestamp_seconds{resource=\"requests\"}", Some(100.0)),
        ("tokens_total{direction=\"input\"}", Some(9.0)),
        ("tokens_total{direction=\"output\"}", Some(4.0)),
        ("tls_certificate_not_after_timestamp_seconds", Some(5000.0)),
        ("tls_info{version=\"1.3\",cipher=\"TLS_A\"}", Some(1.0)),
        ("dns_addresses", Some(1.0)),
        ("dns_server_success{server=\"system\"}", Some(1.0)),
        ("clock_offset_seconds", Some(-3.0)),
        ("last_run_timestamp_seconds", Some(50.0)),
        ("last_success_timestamp_seconds", None),
    ];
    check(&metrics, NOW, &expected);
    let page = testing::page(&metrics, NOW);
    assert!(!page.contains("canary") && !page.contains("192.0.2.77"), "{page}");
}

#[test]
fn network_check_exports_name_servers_and_no_http() {
    let metrics = Metrics::new(NOW);
    let with_servers = |servers: &[[u8; 4]]| {
        let servers = servers.iter().map(|address| (*address, 53).into()).collect();
        let provider = Provider { dns_servers: servers, ..provider("acme", Api::Openai) };
        config(vec![Arc::new(probe("n", &Arc::new(provider), Task::Network))])
    };
    let asked = with_servers(&[[192, 0, 2, 1], [192, 0, 2, 2]]);
    metrics.configure(&asked);
    let of = |name: &str, more: &str| {
        let labels = "probe=\"n\",provider=\"acme\",check=\"network\",model=\"\"";
        samples(&metrics, NOW).get(&format!("langmart_probe_{name}{{{labels}{more}}}")).copied()
    };
    let server = |server: &str| of("dns_server_success", &format!(",server=\"{server}\""));
    assert_eq!((of("dns_addresses", ""), server("system")), (None, None));
    assert_eq!(of("failures_total", ",reason=\"timeout\",fault=\"network\""), Some(0.0));
    for (reason, fault) in [("timeout", "provider"), ("rate_limited", "caller"), ("server_error", "provider")]
    {
        assert_eq!(
            of("failures_total", &format!(",reason=\"{reason}\",fault=\"{fault}\"")),
            None,
            "{reason}"
        );
    }
    assert_eq!(of("http_responses_total", ",code=\"200\""), None);

    let answers = vec![
        dns_server(DnsServer::SYSTEM, Err(LookupFailure::ServerFailure)),
        dns_server("192.0.2.1", Ok(vec![[192, 0, 2, 77].into()])),
        dns_server("192.0.2.2", Err(LookupFailure::NoAnswer)),
    ];
    let network = Network { dns_servers: answers };
    let outcome =
        Outcome { network: Some(Box::new(network)), ..Outcome::new(NOW, Reason::Dns, Fault::Network) };
    metrics.series(&asked.probes[0]).observe(&outcome);
    assert_eq!(of("dns_addresses", ""), Some(0.0));
    let success = ["system", "192.0.2.1", "192.0.2.2"].map(&server);
    assert_eq!(success, [Some(0.0), Some(1.0), Some(0.0)]);
    assert_eq!(of("tls_info", ",version=\"1.3\",cipher=\"TLS_A\""), None);

    metrics.configure(&with_servers(&[[192, 0, 2, 2]]));
    assert_eq!(["system", "192.0.2.1", "192.0.2.2"].map(&server), [Some(0.0), None, Some(0.0)]);
}

#[test]
fn successes_and_timeouts_count_as_durations() {
    let (metrics, series) = one_chat(Api::Openai);
    let of = |reason, fault, milliseconds| Outcome {
        duration: Duration::from_millis(milliseconds),
        ..Outcome::new(later(7), reason, fault)
    };
    series.observe(&of(Reason::Ok, Fault::None, 250));
    series.observe(&of(Reason::Timeout, Fault::Provider, 30_000));
    series.observe(&of(Reason::Connect, Fault::Network, 1));
    let expected = [
        ("duration_seconds_bucket{le=\"0.1\"}", Some(0.0)),
        ("duration_seconds_bucket{le=\"0.23\"}", Some(0.0)),
        ("duration_seconds_bucket{le=\"0.285\"}", Some(1.0)),
        ("duration_seconds_bucket{le=\"30\"}", Some(2.0)),
        ("duration_seconds_bucket{le=\"+Inf\"}", Some(2.0)),
        ("duration_seconds_sum", Some(30.25)),
        ("duration_seconds_count", Some(2.0)),
        ("last_success_timestamp_seconds", Some(7.0)),
        ("http_status_code", Some(0.0)),
    ];
    check(&metrics, NOW, &expected);
}

#[test]
fn stream_exports_first_token_and_time_per_token() {
    let metrics = Metrics::new(NOW);
    let probe = stream("p", &acme(Api::Openai), "m");
    metrics.configure(&config(vec![Arc::clone(&probe)]));
    let series = metrics.series(&probe);
    let value = |name: &str, more: &str| {
        let labels = r#"probe="p",provider="acme",check="stream",model="m""#;
        samples(&metrics, NOW).get(&format!("langmart_probe_{name}{{{labels}{more}}}")).copied()
    };
    assert_eq!(value("time_to_first_token_seconds_count", ""), Some(0.0));
    assert_eq!(value("time_per_output_token_seconds_bucket", ",le=\"2.5\""), Some(0.0));
    assert_eq!(value("last_time_to_first_token_seconds", ""), None);
    assert_eq!(value("failures_total", ",reason=\"stream_stalled\",fault=\"provider\""), Some(0.0));
    series.observe(&Outcome {
        time_to_first_token: Some(Duration::from_millis(750)),
        time_per_output_token: Some(Duration::from_millis(80)),
        ..Outcome::new(NOW, Reason::Ok, Fault::None)
    });
    assert_eq!(value("time_to_first_token_seconds_bucket", ",le=\"0.655\""), Some(0.0));
    assert_eq!(value("time_to_first_token_seconds_bucket", ",le=\"0.81\""), Some(1.0));
    assert_eq!(value("last_time_to_first_token_seconds", ""), Some(0.75));
    assert_eq!(value("time_per_output_token_seconds_bucket", ",le=\"0.1\""), Some(1.0));
    assert_eq!(value("time_per_output_token_seconds_sum", ""), Some(0.08));
    // A stall counts as a duration, as a timeout does, and has no first token.
    series.observe(&Outcome {
        duration: Duration::from_secs(20),
        ..Outcome::new(NOW, Reason::StreamStalled, Fault::Provider)
    });
    assert_eq!(value("duration_seconds_sum", ""), Some(20.0));
    assert_eq!(value("time_to_first_token_seconds_count", ""), Some(1.0));
    assert_eq!(value("last_time_to_first_token_seconds", ""), None);
}

#[test]
fn unexpected_reason_and_fault_are_counted() {
    let (metrics, series) = one_chat(Api::Openai);
    let pair = "failures_total{reason=\"dns\",fault=\"gateway\"}";
    check(&metrics, NOW, &[(pair, None)]);
    series.observe(&Outcome::new(NOW, Reason::Dns, Fault::Gateway));
    check(&metrics, NOW, &[(pair, Some(1.0))]);
}

#[test]
fn unregistered_statuses_and_surplus_codes_share_a_series() {
    let (metrics, series) = one_chat(Api::Openai);
    for number in 0..70_u16 {
        series.observe(&Outcome {
            http_status: Some(900 + number),
            error_code: Some(format!("CODE_{number}").into()),
            ..Outcome::new(NOW, Reason::UnexpectedStatus, Fault::Provider)
        });
    }
    series.observe(&Outcome { http_status: Some(404), ..Outcome::new(NOW, Reason::Ok, Fault::None) });
    let expected = [
        ("http_responses_total{code=\"other\"}", Some(70.0)),
        ("http_responses_total{code=\"404\"}", Some(1.0)),
        ("api_errors_total{code=\"CODE_63\"}", Some(1.0)),
        ("api_errors_total{code=\"CODE_64\"}", None),
        ("api_errors_total{code=\"other\"}", Some(6.0)),
    ];
    check(&metrics, NOW, &expected);
}

#[test]
fn tightest_window_of_a_resource_is_exported() {
    let (metrics, series) = one_chat(Api::Anthropic);
    let told = |ratelimit| Outcome { ratelimit, ..Outcome::new(NOW, Reason::Ok, Fault::None) };
    let unknown = RateLimit { resource: Resource::Tokens, limit: None, remaining: Some(0), reset: None };
    series.observe(&told(vec![
        limit(Resource::Requests, 100, 50, Some(later(10))),
        limit(Resource::Requests, 1000, 20, Some(later(20))),
        unknown,
        limit(Resource::Tokens, 10, 10, None),
    ]));
    series.observe(&told(Vec::new()));
    let requests = "ratelimit_limit{resource=\"requests\"}";
    let tokens = "ratelimit_remaining{resource=\"tokens\"}";
    check(&metrics, later(19), &[(requests, Some(1000.0)), (tokens, Some(10.0))]);
}

#[test]
fn rate_limits_expire_after_two_intervals() {
    let (metrics, series) = one_chat(Api::Anthropic);
    let run = |second, reason, ratelimit| {
        let fault = if reason == Reason::Ok { Fault::None } else { Fault::Caller };
        series.observe(&Outcome { ratelimit, ..Outcome::new(later(second), reason, fault) });
    };
    let left = |second, remaining: Option<f64>| {
        let reset = "ratelimit_reset_timestamp_seconds{resource=\"requests\"}";
        let expected = [
            ("ratelimit_remaining{resource=\"requests\"}", remaining),
            ("ratelimit_limit{resource=\"requests\"}", remaining.map(|_| 60.0)),
            (reset, remaining.map(|_| 0.0)),
        ];
        check(&metrics, later(second), &expected);
    };
    // Limits that reset immediately, before the response arrived.
    let reading = |remaining| vec![limit(Resource::Requests, 60, remaining, Some(NOW))];
    run(0, Reason::Ok, reading(50));
    left(0, Some(50.0));
    left(119, Some(50.0));
    // Responses without limits, such as a timeout, or with other resources only.
    run(60, Reason::Timeout, Vec::new());
    run(90, Reason::Ok, vec![limit(Resource::Tokens, 9, 9, None)]);
    left(120, Some(50.0));
    left(121, None);
    run(180, Reason::RateLimited, reading(0));
    left(181, Some(0.0));
    left(300, Some(0.0));
    left(301, None);
    // A clock that was set back removes nothing.
    left(10, Some(0.0));
}

#[test]
fn backoff_and_skips_are_exported() {
    let (metrics, series) = one_chat(Api::Openai);
    series.waiting(later(90), Some(later(80)));
    series.skipped(SkipCause::Backoff, 3);
    let until = "backoff_until_timestamp_seconds";
    let skipped = "skipped_runs_total{cause=\"backoff\"}";
    check(&metrics, later(79), &[("next_run_timestamp_seconds", Some(90.0)), (until, Some(80.0))]);
    check(&metrics, later(80), &[(until, Some(0.0)), (skipped, Some(3.0))]);
    series.waiting(later(150), None);
    check(&metrics, NOW, &[("next_run_timestamp_seconds", Some(150.0)), (until, Some(0.0))]);
}

#[test]
fn reload_keeps_series_of_unchanged_probes_only() {
    let metrics = Metrics::new(NOW);
    let old = [chat("p", &acme(Api::Openai), "m"), chat("gone", &acme(Api::Openai), "m")];
    metrics.configure(&config(old.to_vec()));
    let running = metrics.series(&old[0]);
    running.observe(&Outcome::new(NOW, Reason::Ok, Fault::None));

    let labels = BTreeMap::from([("team".to_owned(), "s\"re".to_owned())]);
    let moved = Arc::new(Provider {
        base_url: "https://moved.example".parse().unwrap(),
        labels,
        ..provider("acme", Api::Openai)
    });
    let new = chat("p", &moved, "m");
    metrics.configure(&config(vec![Arc::clone(&new)]));
    let info = "info{host=\"moved.example\",api=\"openai\",connection=\"cold\",team=\"s\\\"re\"}";
    check(&metrics, NOW, &[("runs_total", Some(1.0)), (info, Some(1.0))]);
    assert!(!samples(&metrics, NOW).keys().any(|name| name.contains("gone")));
    running.observe(&Outcome::new(NOW, Reason::Ok, Fault::None));
    metrics.series(&new).observe(&Outcome::new(NOW, Reason::Ok, Fault::None));
    check(&metrics, NOW, &[("runs_total", Some(3.0))]);

    metrics.series(&old[1]).observe(&Outcome::new(NOW, Reason::Ok, Fault::None));
    assert!(!samples(&metrics, NOW).keys().any(|name| name.contains("gone")));
    metrics.configure(&config(vec![chat("p", &moved, "other")]));
    let count = samples(&metrics, NOW)
        .into_iter()
        .filter(|(name, _)| name.starts_with("langmart_probe_runs_total"))
        .collect::<Vec<_>>();
    let name = r#"langmart_probe_runs_total{probe="p",provider="acme",check="chat",model="other"}"#;
    assert_eq!(count, [(name.to_owned(), 0.0)], "another model is another probe");
}

#[test]
fn own_metrics_are_exported() {
    let metrics = Metrics::new(later(1_000));
    let results = Counters { errors: Arc::new(AtomicU64::new(2)), ..Counters::default() };
    metrics.count_writer("results", &results);
    metrics.count_restarts("scheduler", Arc::new(AtomicU64::new(3)));
    metrics.reloaded(true, later(5));
    metrics.reloaded(false, later(6));
    metrics.lag(Duration::from_millis(2));
    metrics.run_started();
    metrics.run_started();
    metrics.run_ended();
    results.dropped.store(7, Ordering::Relaxed);
    let samples = samples(&metrics, NOW);
    let expected = [
        ("langmart_prober_log_write_in_progress_seconds{file=\"results\"}", 0.0),
        ("langmart_prober_config_last_reload_successful", 0.0),
        ("langmart_prober_config_last_reload_success_timestamp_seconds", 5.0),
        ("langmart_prober_schedule_lag_seconds_bucket{le=\"0.001\"}", 0.0),
        ("langmart_prober_schedule_lag_seconds_bucket{le=\"0.0025\"}", 1.0),
        ("langmart_prober_schedule_lag_seconds_bucket{le=\"10\"}", 1.0),
        ("langmart_prober_runs_in_flight", 1.0),
        ("langmart_prober_log_lines_dropped_total{file=\"results\"}", 7.0),
        ("langmart_prober_log_write_errors_total{file=\"results\"}", 2.0),
        ("langmart_prober_task_restarts_total{task=\"scheduler\"}", 3.0),
        ("process_start_time_seconds", 1000.0),
    ];
    for (name, value) in expected {
        assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
    }
    let build = samples.keys().find(|name| name.starts_with("langmart_prober_build_info")).unwrap();
    assert!(build.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{build}");
    assert!(build.contains("rustversion=\"1."), "{build}");
}

/// Returns a health probe with rechecks and `slow_after`.
fn watchful(name: &str, provider: &Arc<Provider>) -> Arc<Probe> {
    let second = Duration::from_secs(1);
    let recheck = Some(Recheck { after: second, step: second, times: 3 });
    Arc::new(Probe { slow_after: Some(second), recheck, ..probe(name, provider, Task::Health) })
}

#[test]
fn recheck_changes_only_its_count_and_tokens() {
    let (metrics, provider) = (Metrics::new(NOW), acme(Api::Langmart));
    let probes = vec![watchful("h", &provider), chat("p", &provider, "m")];
    metrics.configure(&config(probes.clone()));
    let before = samples(&metrics, NOW);
    for probe in &probes {
        metrics.series(probe).observe_recheck(&rich());
        metrics.series(probe).observe_recheck(&Outcome::new(NOW, Reason::Ok, Fault::None));
    }
    let after = samples(&metrics, NOW);
    let ours = |name: &&String| name.starts_with("langmart_probe");
    assert!(before.keys().filter(ours).eq(after.keys().filter(ours)));
    let changed: Vec<_> = after
        .iter()
        .filter(|(name, value)| ours(name) && before[*name].total_cmp(value).is_ne())
        .map(|(name, _)| name)
        .collect();
    let health = r#"probe="h",provider="acme",check="health",model="""#;
    let expected = [
        format!("langmart_probe_cached_input_tokens_total{{{CHAT}}}"),
        format!("langmart_probe_rechecks_total{{{health},result=\"failed\"}}"),
        format!("langmart_probe_rechecks_total{{{health},result=\"ok\"}}"),
        format!("langmart_probe_tokens_total{{{CHAT},direction=\"input\"}}"),
        format!("langmart_probe_tokens_total{{{CHAT},direction=\"output\"}}"),
    ];
    assert_eq!(changed, expected.iter().collect::<Vec<_>>());
}

#[test]
fn slow_runs_are_exported_only_with_slow_after() {
    let (metrics, provider) = (Metrics::new(NOW), acme(Api::Langmart));
    let probes = vec![watchful("h", &provider), chat("p", &provider, "m")];
    metrics.configure(&config(probes.clone()));
    let counted = || {
        let slow =
            |(name, value): (String, f64)| name.starts_with("langmart_probe_slow").then_some((name, value));
        samples(&metrics, NOW).into_iter().filter_map(slow).collect::<Vec<_>>()
    };
    let health = r#"langmart_probe_slow_runs_total{probe="h",provider="acme",check="health",model=""}"#;
    assert_eq!(counted(), [(health.to_owned(), 0.0)]);
    for slow in [true, false, true] {
        metrics.series(&probes[0]).observe(&Outcome { slow, ..Outcome::new(NOW, Reason::Ok, Fault::None) });
    }
    assert_eq!(counted(), [(health.to_owned(), 2.0)]);
}

/// Checks the rules of `promtool check metrics` and of Prometheus' parser.
#[test]
fn page_conforms_to_the_text_format() {
    let metrics = Metrics::new(NOW);
    let provider = acme(Api::Langmart);
    let probes = vec![
        chat("p", &provider, "m"),
        chat("q", &provider, "quo\"te\\d"),
        stream("t", &provider, "m"),
        watchful("h", &provider),
        status("s", &provider, &["API"]),
        Arc::new(probe("b", &provider, Task::Balance)),
    ];
    metrics.configure(&config(probes.clone()));
    metrics.count_writer("log", &Counters::default());
    for probe in &probes {
        let time_to_first_token = Some(Duration::from_millis(300));
        metrics
            .series(probe)
            .observe(&Outcome { time_to_first_token, ..Outcome::new(NOW, Reason::Ok, Fault::None) });
        metrics.series(probe).observe(&rich());
        metrics.series(probe).waiting(later(90), None);
    }
    let page = testing::page(&metrics, NOW);
    assert!(page.ends_with('\n'));
    let mut families = HashSet::new();
    let mut seen = HashSet::new();
    let mut current = (String::new(), String::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(text.len() > 5 && text.ends_with('.'), "{line}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(families.insert(name.to_owned()), "{name} is split");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            for unit in ["_ms", "_milliseconds", "_count", "_sum", "_bucket", "_minutes"] {
                assert!(!name.ends_with(unit), "{line}");
            }
            current = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        assert!(seen.insert(series.to_owned()), "{series} twice");
        let name = series.split('{').next().unwrap();
        let suffix = name.strip_prefix(&*current.0).unwrap();
        let allowed: &[&str] = if current.1 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(allowed.contains(&suffix), "{line}");
    }
    let of_health = |line: &&str| line.contains("probe=\"h\",provider=\"acme\",check=\"health\",model=\"\"");
    assert!(page.lines().filter(of_health).count() > 80, "{page}");
    assert!(!page.lines().filter(of_health).any(|line| line.contains("tokens_total")), "{page}");
}

#[test]
fn histogram_is_consistent_during_updates() {
    let (metrics, series) = one_chat(Api::Openai);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: [_; 2] = std::array::from_fn(|_| {
            scope.spawn(|| {
                let mut milliseconds = 1;
                while !stop.load(Ordering::Relaxed) {
                    milliseconds = milliseconds * 7 % 200_003;
                    series.observe(&Outcome {
                        duration: Duration::from_millis(milliseconds),
                        ..Outcome::new(NOW, Reason::Ok, Fault::None)
                    });
                }
            })
        });
        let mut before = 0.0;
        for _ in 0..200 {
            let page = testing::page(&metrics, NOW);
            let of = |suffix: &str| -> Vec<f64> {
                let name = format!("langmart_probe_duration_seconds_{suffix}{{");
                let lines = page.lines().filter(|line| line.starts_with(&name));
                lines.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
            };
            let (buckets, counts) = (of("bucket"), of("count"));
            assert!(buckets.is_sorted(), "{buckets:?}");
            assert_eq!(buckets.last(), counts.last());
            assert!(counts[0] >= before, "{counts:?} after {before}");
            before = counts[0];
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
    });
}

#[test]
fn own_state_equals_the_exported_metrics() {
    let metrics = Metrics::new(NOW);
    assert_eq!(metrics.own(), OwnNow::default());
    metrics.reloaded(true, later(100));
    metrics.reloaded(false, later(200));
    for _ in 0..99 {
        metrics.lag(Duration::from_millis(2));
    }
    metrics.lag(Duration::from_secs(60));
    let log = Counters::default();
    metrics.count_writer("log", &log);
    for (counter, count) in [(&log.dropped, 1), (&log.errors, 2), (&log.restarts, 3)] {
        counter.store(count, Ordering::Relaxed);
    }
    let expected = OwnNow {
        reload_successful: false,
        reloaded: Some(later(100)),
        lag: Some(Duration::from_micros(2500)),
        lines_dropped: 1,
        write_errors: 2,
        restarts: 3,
    };
    assert_eq!(metrics.own(), expected);
    metrics.lag(Duration::from_secs(60));
    assert_eq!(metrics.own().lag, None, "more than one percent is above the highest bound");
}

/// A client to which runs of the series are entered while it takes the page.
struct Observing(Vec<Arc<Series>>);

impl std::io::Write for Observing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for series in self.0.iter().map(Arc::clone) {
            let (entered, is_entered) = mpsc::channel();
            thread::spawn(move || {
                series.observe(&Outcome {
                    error_code: Some("late".into()),
                    ..Outcome::new(NOW, Reason::Unavailable, Fault::Provider)
                });
                entered.send(())
            });
            is_entered.recv_timeout(Duration::from_secs(60)).expect("no lock is held");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn page_is_written_without_the_locks_of_a_probe() {
    // Each list alone is longer than what is passed on at once.
    let names: Vec<String> = (0..50).map(|number| format!("{number:02000}")).collect();
    let components: Vec<&str> = names.iter().map(String::as_str).collect();
    let provider = acme(Api::Openai);
    let probes = [chat("p", &provider, "m"), status("s", &provider, &components)];
    let metrics = Metrics::new(NOW);
    metrics.configure(&config(probes.to_vec()));
    let series = probes.each_ref().map(|probe| metrics.series(probe));
    for code in &names {
        let failed = Outcome::new(NOW, Reason::Unavailable, Fault::Provider);
        series[0].observe(&Outcome { error_code: Some(code.clone().into()), ..failed });
    }
    let operational: Vec<_> = components.iter().map(|name| (*name, ComponentStatus::Operational)).collect();
    series[1].observe(&Outcome {
        status_page: Some(page(Indicator::None, None, &operational)),
        ..Outcome::new(NOW, Reason::Ok, Fault::None)
    });
    metrics.render(NOW, Format::Text, &mut Observing(series.to_vec())).unwrap();
}
