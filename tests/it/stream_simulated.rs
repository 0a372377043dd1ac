//! Tests of the stream check with the simulator, whose record has the time of the write of the
//! first token.

use std::{sync::Arc, time::Duration};

use langmart_prober::{
    config::{Probe, Task},
    outcome::{Api, Check, Detail, Fault, Outcome, Reason},
    probe::{NetworkStack, Target},
    simulator::{Options, Scenario, SimulatedService, Simulator},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::harness::probes::{config, probe, provider};

const SERVICES: [(Api, SimulatedService, &str); 6] = [
    (Api::Langmart, SimulatedService::Langmart, "openai/gpt-4o-mini"),
    (Api::Openai, SimulatedService::Openai, "gpt-4o-mini"),
    (Api::Anthropic, SimulatedService::Anthropic, "claude-haiku-4-5-20251001"),
    (Api::Groq, SimulatedService::Groq, "openai/gpt-oss-20b"),
    (Api::Google, SimulatedService::Google, "gemini-2.5-flash-lite"),
    (Api::Openrouter, SimulatedService::Openrouter, "mistralai/mistral-nemo"),
];

fn simulator(rule: &str) -> Simulator {
    let scenario = Scenario::parse(&format!("[[rule]]\n{rule}\n")).unwrap();
    let loopback = ([127, 0, 0, 1], 0).into();
    Simulator::start(Options { listen: loopback, tls_listen: Some(loopback), scenario }).unwrap()
}

/// Returns a stream probe of that service, over TLS and so HTTP/2 if requested.
fn stream(simulator: &Simulator, (api, service, model): (Api, SimulatedService, &str), tls: bool) -> Probe {
    let base = if tls {
        let address = simulator.tls_address().unwrap();
        format!("https://localhost:{}{}", address.port(), service.prefix())
    } else {
        format!("http://{}{}", simulator.address(), service.prefix())
    };
    let mut provider = provider(api, &base);
    provider.ca_certificates.push(CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap());
    Probe { model: Some(model.to_owned()), ..probe(provider, Check::Stream) }
}

/// Performs consecutive runs.
fn runs(probe: Probe, count: usize) -> Vec<Outcome> {
    let targets = Target::prepare(&config(vec![probe]), &Arc::new(NetworkStack::new())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut outcomes = Vec::new();
        for _ in 0..count {
            outcomes.push(targets[0].run().await);
        }
        outcomes
    })
}

#[test]
fn broken_streams_have_their_reason_in_every_dialect() {
    use Reason::{NoContent, Ok, StreamError, StreamStalled, StreamTruncated};

    let rules = [
        ("stream_error_first", "", StreamError),
        ("stream_error_first", "variant = \"done\"", StreamError),
        ("stream_error_first", "variant = \"x_groq\"", StreamError),
        ("stream_error_mid", "", StreamError),
        ("stream_error_mid", "variant = \"done\"", StreamError),
        ("stream_error_mid", "variant = \"recorded\"", StreamError),
        ("stream_error_mid", "variant = \"x_groq\"", StreamError),
        ("stream_truncated", "", StreamTruncated),
        ("stream_truncated", "variant = \"close\"", StreamTruncated),
        ("stream_truncated", "variant = \"reset\"", StreamTruncated),
        ("stream_comments_only", "", StreamTruncated),
        ("stream_comments_only", "variant = \"reset\"", StreamTruncated),
        ("stream_stalled", "", StreamStalled),
        ("stream_endless", "", Reason::Timeout),
        ("stream_endless", "variant = \"after_done\"", Ok),
        ("stream_after_done", "", Ok),
        ("stream_empty", "", NoContent),
        ("stream_multibyte", "", Ok),
    ];
    for (fault, more, reason) in rules {
        let simulator = simulator(&format!("fault = \"{fault}\"\n{more}"));
        let both_ways = |service| [false, true].map(|tls| hasty(stream(&simulator, service, tls)));
        for (api, outcome) in at_once(SERVICES.into_iter().flat_map(both_ways).collect()) {
            let whose = match reason {
                Ok => Fault::None,
                NoContent => Fault::Caller,
                _ => api.endpoint(),
            };
            assert_eq!((outcome.reason, outcome.fault), (reason, whose), "{fault} {more} {api}: {outcome:?}");
        }
    }
}

/// Sets short timeouts.
fn hasty(mut probe: Probe) -> Probe {
    if let Task::Stream(task) = &mut probe.task {
        task.stall_timeout = Duration::from_secs(2);
    }
    Probe { timeout: Duration::from_secs(6), ..probe }
}

/// Performs one run of each, concurrently.
fn at_once(probes: Vec<Probe>) -> Vec<(Api, Outcome)> {
    let targets = Target::prepare(&config(probes), &Arc::new(NetworkStack::new())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut runs = tokio::task::JoinSet::new();
        for target in targets {
            runs.spawn(async move { (target.probe().provider.api, target.run().await) });
        }
        runs.join_all().await
    })
}

#[test]
fn gateway_error_naming_a_provider_is_provider_fault() {
    let simulator = simulator("fault = \"stream_error_mid\"\nupstream = \"anthropic\"");
    let outcome = runs(stream(&simulator, SERVICES[0], false), 1).remove(0);
    let found = (outcome.reason, outcome.fault, outcome.upstream);
    assert_eq!(found, (Reason::StreamError, Fault::Provider, Some("anthropic")), "{outcome:?}");
}

#[test]
fn rejected_max_tokens_is_no_downtime() {
    let names = ["openai/gpt-5-mini", "gpt-5-mini", "alice/openai/o3"];
    let simulator = simulator(&format!("pace = {{ tokens = 2 }}\n[models]\nlangmart = {names:?}"));
    for model in names.into_iter().chain(["anthropic/claude-haiku-4-5-20251001"]) {
        let outcome =
            runs(stream(&simulator, (Api::Langmart, SimulatedService::Langmart, model), false), 1).remove(0);
        assert!(outcome.success(), "{model}: {outcome:?}");
    }
    let luna = (Api::Openai, SimulatedService::Openai, "gpt-5.6-luna");
    assert!(runs(stream(&simulator, luna, false), 1).remove(0).success());
}

#[test]
fn reasoning_is_no_first_token() {
    let simulator = simulator("pace = { first_token = \"40ms\" }");
    for (service, model) in
        [(1, "deepseek-reasoner"), (1, "magistral-small-latest"), (3, "openai/gpt-oss-20b")]
    {
        let (api, service, _) = SERVICES[service];
        let outcome = runs(stream(&simulator, (api, service, model), false), 1).remove(0);
        assert!(outcome.success(), "{model}: {outcome:?}");
        assert!(outcome.time_to_first_token.unwrap() >= Duration::from_millis(40), "{model}: {outcome:?}");
        assert!(outcome.time_to_first_reasoning < outcome.time_to_first_token, "{model}: {outcome:?}");
        assert!(outcome.time_to_first_reasoning.is_some(), "{model}: {outcome:?}");
    }
}

#[test]
fn compressed_stream_is_malformed() {
    let simulator = simulator("fault = \"compressed\"");
    for tls in [false, true] {
        let outcome = runs(stream(&simulator, SERVICES[1], tls), 1).remove(0);
        assert_eq!((outcome.reason, outcome.fault), (Reason::Malformed, Fault::Provider), "{outcome:?}");
        assert_eq!(outcome.detail, Some(Detail::Compressed("gzip")));
    }
}

#[test]
fn implausible_usage_is_not_counted() {
    let simulator = simulator("pace = { usage = true }\nfault = \"wrong_usage\"");
    for service in SERVICES {
        let outcome = runs(stream(&simulator, service, false), 1).remove(0);
        assert!(outcome.success() && outcome.output_tokens < Some(100), "{service:?}: {outcome:?}");
        assert_eq!(outcome.detail, Some(Detail::MalformedUsage), "{service:?}");
    }
}

#[test]
fn model_names_are_sent_verbatim() {
    let model = r#"a "b" <c>%22d?e#f+g"#;
    let simulator = simulator(&format!("pace = {{ tokens = 2 }}\n[models]\ngoogle = ['{model}']"));
    let streamed = || stream(&simulator, (Api::Google, SimulatedService::Google, model), false);
    let chat =
        Probe { task: probe(provider(Api::Google, "http://127.0.0.1"), Check::Chat).task, ..streamed() };
    for probe in [streamed(), chat] {
        let outcome = runs(probe, 1).remove(0);
        assert!(outcome.success(), "{outcome:?}");
    }
    let asked: Vec<_> = simulator.requests().into_iter().filter_map(|request| request.model).collect();
    assert_eq!(asked, [model, model]);
}

/// Tests that measure time.
mod phases {
    use super::*;

    /// Returns the difference of the measured first token from the simulator's record. It is the
    /// minimum of some runs, because a busy machine delays either side, while a clock that stops at the
    /// wrong event is wrong every time.
    fn measured_apart(service: (Api, SimulatedService, &str), tls: bool) -> Duration {
        let simulator = simulator(
            "pace = { processing = \"5ms\", first_token = \"30ms\", token = \"10ms\", tokens = 5, usage = true }",
        );
        let outcomes = runs(stream(&simulator, service, tls), 5);
        let (mut apart, mut paces) = (Vec::new(), Vec::new());
        for (outcome, request) in outcomes.iter().zip(simulator.requests()) {
            assert!(outcome.success(), "{service:?}: {outcome:?}");
            assert_eq!(outcome.http_version, Some(if tls { "2" } else { "1.1" }));
            assert!(
                !outcome.tokens_estimated && outcome.output_tokens >= Some(5),
                "{service:?}: {outcome:?}"
            );
            paces.push(outcome.time_per_output_token.unwrap());
            let own = request.first_token.unwrap() - request.received.unwrap();
            apart.push(
                outcome.time_to_first_token.unwrap().checked_sub(own).expect("not before it was written"),
            );
        }
        assert_eq!(apart.len(), 5);
        // Five events with 10 ms between them; other tokens that the service counts make the pace
        // faster.
        let pace = paces.into_iter().min().unwrap();
        assert!(
            (Duration::from_millis(3)..Duration::from_millis(13)).contains(&pace),
            "{service:?}: {pace:?}"
        );
        apart.into_iter().min().unwrap()
    }

    #[test]
    fn first_token_time_matches_its_write() {
        for service in SERVICES {
            let apart = [measured_apart(service, false), measured_apart(service, true)];
            println!("{:<12} {apart:?}", service.0);
            assert!(apart.iter().all(|apart| *apart < Duration::from_millis(8)), "{service:?}: {apart:?}");
        }
    }
}
