//! Tests of the pages in every state, and of escaping.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;

use super::*;
use crate::{
    config::{self, Config, Pool, PoolMember, Probe, StatusSource, Task},
    history::{MAX_RUNS, Waiting},
    metrics::testing::{chat, config as configured, probe, provider, stream},
    outcome::{
        AddressFailure, Api, Balance, Clock, Compared, ConnectionUse, Detail, DnsServer, FailedAddress,
        Fault, Indicator, LimitedBy, Maintenance, Measure, Network, Outcome, Pair, Phases, RateLimit, Reason,
        Resource, Side, SkipCause, StatusPage, StreamShape, Tls, rfc3339,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + HOUR * 24 * 365
}

fn view(history: &History) -> View<'_> {
    View {
        history,
        budget: None,
        prober: Prober {
            readiness: "ready",
            stuck: None,
            offline: None,
            started: now() - HOUR * 3,
            own: OwnNow { reload_successful: true, reloaded: Some(now() - HOUR), ..OwnNow::default() },
        },
        now: now(),
    }
}

fn of(probes: &[Arc<Probe>]) -> History {
    let history = History::default();
    history.configure(&configured(probes.to_vec()), |_| "curl <x>".to_owned());
    history
}

fn run(history: &History, probe: &Arc<Probe>, ago: u64, reason: Reason) -> Outcome {
    let fault = if reason == Reason::Ok { Fault::None } else { Fault::Gateway };
    let duration = Duration::from_millis(100 + ago % 7);
    let outcome = Outcome {
        duration,
        phases: Phases { processing: duration, ..Phases::default() },
        hint: if reason == Reason::Ok { "" } else { "<b>look</b>" }.into(),
        ..Outcome::new(now() - Duration::from_secs(ago), reason, fault)
    };
    history.for_probe(probe).observe(&Arc::new(outcome.clone()));
    outcome
}

fn probes() -> Vec<Arc<Probe>> {
    let acme = Arc::new(provider("acme", Api::Langmart));
    ["failing", "limited", "paused", "slow", "unknown", "up"]
        .map(|name| chat(name, &acme, "<m>&\"'"))
        .to_vec()
}

fn every_state() -> History {
    let probes = probes();
    let history = of(&probes);
    for (probe, reason) in
        probes.iter().zip([Reason::Unavailable, Reason::RateLimited, Reason::Ok, Reason::Ok])
    {
        run(&history, probe, 60, reason);
    }
    run(&history, &probes[5], 60, Reason::Ok);
    let waits = Waiting { next_run: Some(now() + HOUR), backoff_until: Some(now() + HOUR) };
    history.for_probe(&probes[1]).set_waiting(waits);
    history.for_probe(&probes[2]).add_skipped(SkipCause::Budget, 1);
    let slow = Outcome { slow: true, ..run(&history, &probes[3], 60, Reason::Ok) };
    history.for_probe(&probes[3]).observe(&Arc::new(slow));
    history
}

fn spent() -> BudgetNow {
    BudgetNow {
        limits: config::Budget { daily_cost_usd: Some(1.0), daily_tokens: None },
        spent_usd: 1.0,
        spent_tokens: 0,
        resumes: Some(now() + HOUR),
    }
}

#[test]
fn every_state_is_shown_with_the_worst_first() {
    let history = every_state();
    let view = View { budget: Some(spent()), ..view(&history) };
    let json: Value = serde_json::from_slice(&super::probes(&view, &Filter::default())).unwrap();
    for probe in json["probes"].as_array().unwrap() {
        assert_eq!(probe["state"], probe["probe"], "{probe}");
    }
    let page = overview(&view);
    let problems = page.split("id=\"providers\"").next().unwrap();
    let position = |name: &str| problems.find(&format!("/probes/{name}")).unwrap_or_else(|| panic!("{name}"));
    assert!(position("failing") < position("paused") && position("paused") < position("limited"), "{page}");
    assert!(!problems.contains("/probes/up"), "{page}");
    for part in
        ["Fault</dt><dd>the gateway", "Since", "Waiting until", "1 failing", "the daily budget is used up"]
    {
        assert!(problems.contains(part), "{part} in {page}");
    }
}

#[test]
fn probes_json_has_durations_as_the_configuration_writes_them() {
    let probe = Probe {
        interval: Duration::from_secs(90 * 60),
        timeout: Duration::from_secs(90),
        ..Arc::into_inner(probes().remove(0)).expect("the only reference")
    };
    let json: Value =
        serde_json::from_slice(&super::probes(&view(&of(&[Arc::new(probe)])), &Filter::default())).unwrap();
    assert_eq!([&json["probes"][0]["interval"], &json["probes"][0]["timeout"]], ["1h30m", "1m30s"]);
}

#[test]
fn overdue_probe_is_unknown() {
    let probes = probes();
    let history = of(&probes);
    run(&history, &probes[5], 7200, Reason::Ok);
    history.for_probe(&probes[5]).set_waiting(Waiting { next_run: Some(now() - HOUR), backoff_until: None });
    let json: Value = serde_json::from_slice(&super::probes(&view(&history), &Filter::default())).unwrap();
    assert_eq!(json["probes"][5]["state"], "unknown");
    assert!(overview(&view(&history)).contains("overdue"));
}

#[test]
fn delayed_probe_shows_cause_and_keeps_its_state() {
    let probes = probes();
    let history = of(&probes);
    run(&history, &probes[5], 60, Reason::Ok);
    for probe in [&probes[4], &probes[5]] {
        history.for_probe(probe).set_waiting(Waiting { next_run: Some(now() + HOUR), backoff_until: None });
        history.for_probe(probe).add_skipped(SkipCause::Pacing, 3);
    }
    let json: Value = serde_json::from_slice(&super::probes(&view(&history), &Filter::default())).unwrap();
    for (number, state) in [(4, "unknown"), (5, "up")] {
        let probe = &json["probes"][number];
        assert_eq!((&probe["state"], &probe["waits_for"]), (&state.into(), &"pacing".into()), "{probe}");
        assert_eq!(probe["waits_until"], rfc3339(now() + HOUR));
    }
    let held = "waiting because of requests_per_minute of its provider";
    assert_eq!(overview(&view(&history)).matches(held).count(), 2);
    let page = detail(&view(&history), &history.for_probe(&probes[5]));
    assert!(page.contains("3 runs, the latest because of requests_per_minute of its provider"), "{page}");
}

#[test]
fn failure_while_offline_is_not_downtime() {
    let probes = probes();
    let history = of(&probes[..1]);
    let ends = |reason, fault, offline| {
        let outcome = Outcome { offline, ..Outcome::new(now(), reason, fault) };
        history.for_probe(&probes[0]).observe(&Arc::new(outcome));
    };
    let available = || -> Value {
        let json: Value =
            serde_json::from_slice(&super::probes(&view(&history), &Filter::default())).unwrap();
        json["probes"][0]["available_ratio"].clone()
    };
    ends(Reason::Dns, Fault::Network, true);
    assert_eq!(available(), Value::Null, "nothing is known");
    ends(Reason::Ok, Fault::None, false);
    ends(Reason::Connect, Fault::Network, true);
    assert_eq!(available(), 1.0);
    ends(Reason::Unavailable, Fault::Gateway, false);
    assert_eq!(available(), 0.5, "the gateway was reached");
    ends(Reason::Connect, Fault::Network, false);
    assert_eq!(available(), 1.0 / 3.0);
}

#[test]
fn page_shows_pools_and_the_prober() {
    let probes = probes();
    let history = History::default();
    let member = |number: usize, weight| PoolMember { probe: probes[number].name.clone(), weight };
    let pools =
        vec![Pool { name: "alternatives".into(), members: vec![member(5, 3), member(0, 1), member(4, 9)] }];
    history.configure(&Config { pools, ..configured(probes.clone()) }, |_| String::new());
    run(&history, &probes[0], 60, Reason::Unavailable);
    run(&history, &probes[5], 60, Reason::Ok);
    let mut view = view(&history);
    let page = overview(&view);
    let pools = page.split("id=\"pools\"").nth(1).unwrap().split("</section>").next().unwrap();
    assert!(pools.contains("alternatives") && pools.contains("75.0 %") && pools.contains(" × 9"), "{pools}");
    assert!(!page.contains("role=\"alert\""), "{page}");
    view.prober.own = OwnNow {
        reload_successful: false,
        lag: Some(Duration::from_millis(5)),
        lines_dropped: 7,
        write_errors: 8,
        restarts: 9,
        ..view.prober.own
    };
    let page = overview(&view);
    for part in [
        "The last reload failed.",
        "99 % of runs started within 5.0 ms",
        "7 dropped, 8 failed writes",
        "Restarted tasks</dt><dd>9",
        "UTC, 3 h 0 min",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

#[test]
fn all_values_are_escaped() {
    let history = every_state();
    let all = history.all();
    let pages = all.values().map(|probe| detail(&view(&history), probe)).chain([overview(&view(&history))]);
    for page in pages {
        for raw in ["<m>", "<b>look", "<x>"] {
            assert!(!page.contains(raw), "{raw} in {page}");
        }
        assert!(
            page.contains("&lt;m&gt;&amp;&quot;") && !page.contains("style=\"") && !page.contains(" onclick")
        );
    }
}

#[test]
fn filters_select_records() {
    let history = every_state();
    let view = view(&history);
    let ask = |query: &str| -> Value {
        serde_json::from_slice(&results(&view, &Filter::parse(query, Listing::Results).unwrap())).unwrap()
    };
    let count = |query: &str| ask(query)["results"].as_array().unwrap().len();
    assert_eq!(count(""), 7);
    assert_eq!(count("success=false"), 2);
    assert_eq!(count("reason=unavailable&probe=failing&provider=acme&check=chat&fault=gateway"), 1);
    assert_eq!(count("model=%3Cm%3E%26%22%27"), 7);
    assert_eq!(count("model=other"), 0);
    assert_eq!(count("limit=2"), 2);
    assert_eq!(count("since=2999-01-01T00:00:00Z"), 0);
    for (query, listing) in [
        ("limit=0", Listing::Results),
        ("limit=10001", Listing::Results),
        ("reason=x", Listing::Results),
        ("since=yesterday", Listing::Results),
        ("x=1", Listing::Results),
        ("reason=ok", Listing::Probes),
    ] {
        assert!(Filter::parse(query, listing).is_err(), "{query}");
    }
}

/// Returns a status page with maintenance in progress.
fn maintained() -> StatusPage {
    StatusPage {
        indicator: Indicator::None,
        open_incidents: None,
        components: Vec::new(),
        maintenance: Some(Maintenance { start: Some(now()), end: Some(now() + HOUR), in_progress: true }),
    }
}

/// Returns an outcome with every member, so that a new one does not compile until it is added here.
fn full(reason: Reason, fault: Fault) -> Outcome {
    let address: IpAddr = [192, 0, 2, 7].into();
    let server = || DnsServer { server: "system".to_owned(), answer: Ok(vec![address]), duration: HOUR };
    let measure =
        Measure { fault: Fault::None, duration: HOUR, first_token: None, is_of_another_model: false };
    let pair = Some(Pair::new(Side::Direct, measure, measure));
    let compared = Compared { comparison: "c".to_owned(), side: Side::Direct, pair };
    let limit = RateLimit { resource: Resource::Tokens, limit: Some(1), remaining: None, reset: None };
    Outcome {
        time: now(),
        reason,
        fault,
        duration: HOUR,
        phases: Phases::default(),
        detail: Some(Detail::JsonDiffers("/d".into())),
        hint: "h".into(),
        http_status: Some(200),
        http_version: Some("1.1"),
        error_code: Some("other".into()),
        upstream: Some("openai"),
        request_id: Some("r".to_owned()),
        retry_after: Some(1.0),
        limited_by: Some(LimitedBy::Tokens),
        reported_processing: Some(HOUR),
        model_shutdown: Some(now()),
        answered_model: Some("m".into()),
        model_match: Some(true),
        remote_address: Some((address, 443).into()),
        ratelimit: vec![limit],
        tls: Some(Tls::default()),
        dns: vec![address],
        network: Some(Box::new(Network { dns_servers: vec![server()] })),
        failed_addresses: vec![FailedAddress { address, error: AddressFailure::Reset }],
        clock: Some(Clock::Process),
        clock_offset: Some(0.5),
        time_to_first_token: Some(HOUR),
        time_to_first_reasoning: Some(HOUR),
        time_per_output_token: Some(HOUR),
        stream: Some(Box::new(StreamShape { pieces: 80, bursts: 78, longest_gap: HOUR })),
        buffered: Some(false),
        input_tokens: Some(1),
        cached_input_tokens: Some(1),
        output_tokens: Some(1),
        tokens_estimated: true,
        estimated_cost_usd: Some(0.5),
        status_page: Some(maintained()),
        balance: Some(Balance { usd: 1.0, minimum_usd: None }),
        recheck: Some(1),
        connection: Some(ConnectionUse::New),
        slow: reason == Reason::Ok,
        offline: reason != Reason::Ok,
        compared: Some(Box::new(compared)),
    }
}

#[test]
fn api_members_are_documented() {
    const DOCUMENT: &str = include_str!("../../docs/reference/http-api.md");
    let documented = |mark: &str| -> Vec<&str> {
        let (_, rest) = DOCUMENT.split_once(&format!("<!-- members of {mark} -->\n")).unwrap();
        let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','))
            .map(|cell| cell.trim().trim_matches('`'))
            .collect()
    };
    let acme = Arc::new(provider("acme", Api::Langmart));
    let probe = stream("p", &acme, "m");
    let history = of(std::slice::from_ref(&probe));
    history.for_probe(&probe).observe(&Arc::new(full(Reason::Ok, Fault::None)));
    history.for_probe(&probe).observe(&Arc::new(full(Reason::Timeout, Fault::Gateway)));
    history
        .for_probe(&probe)
        .set_waiting(Waiting { next_run: Some(now()), backoff_until: Some(now() + HOUR) });
    for (mark, answer) in [
        ("results", results(&view(&history), &Filter::default())),
        ("probes", super::probes(&view(&history), &Filter::default())),
    ] {
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["kept_per_probe"], MAX_RUNS);
        let rows = answer[mark].as_array().unwrap();
        let mut found: Vec<&str> =
            rows.iter().flat_map(|row| row.as_object().unwrap().keys()).map(String::as_str).collect();
        found.sort_unstable();
        found.dedup();
        let mut expected = documented(mark);
        expected.sort_unstable();
        assert_eq!(found, expected, "{mark}");
    }
}

#[test]
fn page_of_a_thousand_probes_is_small() {
    let acme = Arc::new(provider("acme", Api::Langmart));
    let probes: Vec<_> = (0..1000).map(|number| chat(&format!("probe-{number}"), &acme, "model")).collect();
    let history = of(&probes);
    for (number, probe) in probes.iter().enumerate() {
        for seconds in (1..=MAX_RUNS).rev() {
            let reason = if (number + seconds) % 9 == 0 { Reason::Unavailable } else { Reason::Ok };
            run(&history, probe, seconds as u64, reason);
        }
    }
    let begun = Instant::now();
    let page = overview(&view(&history));
    println!("{} bytes in {:?}", page.len(), begun.elapsed());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, page.as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap().len();
    assert!(bytes < 300_000, "{bytes}");
}

#[test]
fn blackbox_response_has_expected_metrics() {
    let probes = probes();
    let history = of(&probes);
    let outcome = Outcome {
        http_status: Some(503),
        http_version: Some("1.1"),
        ..run(&history, &probes[0], 5, Reason::Unavailable)
    };
    let asked = Answer { probe: &probes[0], outcome: &outcome, not_run: None, debug: false, now: now() };
    let text = answer(&asked);
    for line in [
        "probe_success 0",
        "probe_http_status_code 503",
        "probe_http_version 1.1",
        "probe_http_ssl 1",
        "probe_http_duration_seconds{phase=\"processing\"} 0.105",
        "probe_duration_seconds 0.105",
        "langmart_prober_result_cached 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let debug = answer(&Answer { not_run: Some(SkipCause::Budget), debug: true, ..asked });
    assert!(
        debug.contains("Reason unavailable, fault gateway.") && debug.contains("What to do: <b>look</b>"),
        "{debug}"
    );
    assert!(debug.contains("langmart_prober_result_cached 1"), "{debug}");
}

#[test]
fn ranking_shows_prompt_sizes_if_they_differ() {
    let acme = Arc::new(provider("acme", Api::Langmart));
    let asked = |name: &str, prompt: String| {
        let mut probe = Arc::into_inner(chat(name, &acme, "m")).unwrap();
        if let Task::Chat(chat) = &mut probe.task {
            chat.prompt = prompt;
        }
        Arc::new(probe)
    };
    let page = |probes: &[Arc<Probe>]| {
        let history = of(probes);
        for probe in probes {
            run(&history, probe, 60, Reason::Ok);
        }
        overview(&view(&history))
    };
    let short = asked("short", "Answer OK.".to_owned());
    let long = asked("long", "word ".repeat(400));
    assert!(!page(std::slice::from_ref(&short)).contains("prompt of"));
    let both = page(&[short, long]);
    assert!(both.contains("prompt of 2 words") && both.contains("prompt of 400 words"), "{both}");
}

#[test]
fn outages_in_memory_are_listed_with_their_evidence() {
    let probes = probes();
    let history = of(&probes);
    let failing = |ago: u64, reason| {
        let mut outcome = run(&history, &probes[0], ago, reason);
        if reason != Reason::Ok {
            outcome.request_id = Some(format!("req_{ago}"));
            outcome.time = now() - Duration::from_secs(ago - 30);
            history.for_probe(&probes[0]).observe(&Arc::new(outcome));
        }
    };
    run(&history, &probes[5], 600, Reason::Ok);
    assert!(overview(&view(&history)).contains("None in the last 100 runs"));
    failing(600, Reason::Ok);
    failing(540, Reason::Unavailable);
    failing(480, Reason::Unavailable);
    for ago in [420, 360, 300] {
        failing(ago, Reason::Ok);
    }
    let page = overview(&view(&history));
    let outages = page.split("id=\"outages\"").nth(1).unwrap();
    let outages = outages.split("</section>").next().unwrap();
    assert_eq!(outages.matches("<details").count(), 1, "{outages}");
    for part in [
        "acme",
        "unavailable",
        "the gateway",
        "4 of 4",
        "req_540",
        "req_480",
        "/probes/failing",
        "2 min",
        "report --incidents",
    ] {
        assert!(outages.contains(part), "{part} in {outages}");
    }
    assert!(!outages.contains("/probes/up"), "{outages}");
    assert!(!outages.contains("<m>"), "escaped: {outages}");
}

#[test]
fn incident_of_the_oldest_read_is_no_first_admission() {
    let mut probes = probes();
    let url = "https://status.example/api/v2/summary.json".parse().unwrap();
    let task = Task::Status(StatusSource { url, components: Vec::new() });
    let status_probe = Arc::new(probe("status", &probes[0].provider, task));
    probes.push(Arc::clone(&status_probe));
    let history = of(&probes);
    let reads = |ago, indicator| {
        let mut outcome = Outcome::new(now() - Duration::from_secs(ago), Reason::Ok, Fault::None);
        outcome.status_page = Some(StatusPage { indicator, ..maintained() });
        history.for_probe(&status_probe).observe(&Arc::new(outcome));
    };
    run(&history, &probes[0], 600, Reason::Unavailable);
    reads(540, Indicator::Major);
    reads(480, Indicator::Major);
    assert!(!overview(&view(&history)).contains("first incident seen at"));
    reads(420, Indicator::None);
    reads(360, Indicator::Major);
    run(&history, &probes[0], 300, Reason::Unavailable);
    for ago in [240, 180, 120] {
        run(&history, &probes[0], ago, Reason::Ok);
    }
    run(&history, &probes[0], 60, Reason::Unavailable);
    assert!(overview(&view(&history)).contains("first incident seen at"), "of the second outage");
}
