//! Successes that are none: another model answers, the answer is wrong, the stream is held back, a
//! cache flatters.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use langmart_prober::{
    config::{ExpectedAnswer, ModelPattern, PROMPT_NONCE, Probe, Task},
    outcome::{Api, Check, Fault, Outcome, Reason, Record},
    probe::{NetworkStack, Target},
    simulator::{SimulatedService, Simulator},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    daemon::{KEY, LISTEN, Place, records},
    parts,
    probes::{config, detail_of, probe, provider},
    simulate::{play, simulator},
    wait::wait_for,
};

/// What no output may show of an answer.
const CANARY: &str = "zxqv";

/// An API, the simulated service, a model of it, and the host at which the names of its models are
/// compared.
type Service = (Api, SimulatedService, &'static str, &'static str);

const SERVICES: [Service; 6] = [
    (Api::Langmart, SimulatedService::Langmart, "openai/gpt-4o-mini", "api.langmart.ai"),
    (Api::Openai, SimulatedService::Openai, "gpt-4o-mini", "api.openai.com"),
    (Api::Anthropic, SimulatedService::Anthropic, "claude-haiku-4-5-20251001", "api.anthropic.com"),
    (Api::Groq, SimulatedService::Groq, "openai/gpt-oss-20b", "api.groq.com"),
    (Api::Google, SimulatedService::Google, "gemini-2.5-flash-lite", "generativelanguage.googleapis.com"),
    (Api::Openrouter, SimulatedService::Openrouter, "mistralai/mistral-nemo", "openrouter.ai"),
];

const BOTH: [Check; 2] = [Check::Chat, Check::Stream];

/// A probe of the simulated service at its own host, to which the simulator is the proxy.
fn at_own_host(simulator: &Simulator, (api, service, model, host): Service, check: Check) -> Probe {
    let mut provider = provider(api, &format!("http://{host}{}", service.prefix()));
    provider.proxy = Some(format!("http://{}", simulator.address()).parse().unwrap());
    Probe { model: Some(model.to_owned()), ..probe(provider, check) }
}

/// A probe of the simulated service at another host.
fn elsewhere(simulator: &Simulator, (api, service, model, _): Service, check: Check) -> Probe {
    let provider = provider(api, &format!("http://{}{}", simulator.address(), service.prefix()));
    Probe { model: Some(model.to_owned()), ..probe(provider, check) }
}

/// So many runs of one target.
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

fn run(probe: Probe) -> Outcome {
    let outcome = runs(probe, 1).remove(0);
    let subject =
        langmart_prober::outcome::Subject { probe: "p", provider: "p", check: Check::Chat, model: None };
    let record = serde_json::to_string(&Record { subject, outcome: &outcome }).unwrap();
    assert!(!record.contains(CANARY) && !format!("{outcome:?}").contains(CANARY), "{outcome:?}");
    outcome
}

fn ask(probe: &mut Probe, change: impl FnOnce(&mut langmart_prober::config::Chat)) {
    match &mut probe.task {
        Task::Chat(chat) => change(chat),
        Task::Stream(stream) => change(&mut stream.chat),
        _ => panic!("the check asks no model"),
    }
}

#[test]
fn answered_model_is_found_in_every_dialect() {
    let simulator = simulator("");
    for service in SERVICES {
        for check in BOTH {
            let outcome = run(at_own_host(&simulator, service, check));
            assert!(outcome.success() && outcome.hint.is_empty(), "{service:?}: {outcome:?}");
            assert_eq!(outcome.answered_model.as_deref(), Some(service.2), "{service:?}");
            assert_eq!(outcome.model_match, Some(true), "{service:?}");
            // Names of deployments decide nothing.
            assert_eq!(run(elsewhere(&simulator, service, check)).model_match, None, "{service:?}");
        }
    }
}

#[test]
fn another_model_is_a_finding_and_no_failure() {
    let simulator = simulator("[[rule]]\npace = { answered_model = \"tiny-cheap-model-q4\" }");
    for service in SERVICES {
        for check in BOTH {
            let outcome = run(at_own_host(&simulator, service, check));
            assert!(outcome.success(), "{service:?}: {outcome:?}");
            assert_eq!(outcome.answered_model.as_deref(), Some("tiny-cheap-model-q4"), "{service:?}");
            assert_eq!(outcome.model_match, Some(false), "{service:?}");
            assert!(outcome.hint.starts_with("another model answered"), "{service:?}: {outcome:?}");
        }
    }
}

#[test]
fn name_of_another_form_is_left_out() {
    let simulator = simulator("");
    for name in ["", "<script>", "two words", &"m".repeat(129)] {
        play(&simulator, &format!("[[rule]]\npace = {{ answered_model = \"{name}\" }}"));
        for service in SERVICES {
            let outcome = run(at_own_host(&simulator, service, Check::Chat));
            assert_eq!((outcome.answered_model, outcome.model_match), (None, None), "{name} {service:?}");
        }
    }
}

#[test]
fn expected_model_is_demanded_at_any_host() {
    let simulator = simulator("");
    let service = SERVICES[1];
    for (pattern, expected) in
        [("gpt-4o*", Reason::Ok), ("GPT-4O-MINI", Reason::Ok), ("gpt-4o", Reason::UnmetExpectation)]
    {
        for check in BOTH {
            let mut probe = elsewhere(&simulator, service, check);
            ask(&mut probe, |chat| chat.expected_model = Some(ModelPattern::new(pattern)));
            let outcome = run(probe);
            assert_eq!(outcome.reason, expected, "{pattern}: {outcome:?}");
            assert_eq!(outcome.model_match, Some(expected == Reason::Ok), "{pattern}: {outcome:?}");
        }
    }
    play(&simulator, "[[rule]]\npace = { answered_model = \"\" }");
    let mut probe = elsewhere(&simulator, service, Check::Chat);
    ask(&mut probe, |chat| chat.expected_model = Some(ModelPattern::new("*")));
    let outcome = run(probe);
    assert_eq!((outcome.reason, outcome.model_match), (Reason::UnmetExpectation, None), "{outcome:?}");
}

#[test]
fn wrong_answer_is_caught_in_every_dialect() {
    let simulator = simulator("");
    for (text, expected) in [
        ("OK.", Reason::Ok),
        ("**Okay!**", Reason::Ok),
        ("zxqv 12 !!", Reason::WrongAnswer),
        ("zxqv token broken book", Reason::WrongAnswer),
    ] {
        play(&simulator, &format!("[[rule]]\npace = {{ text = \"{text}\" }}"));
        for service in SERVICES {
            for check in BOTH {
                let mut probe = elsewhere(&simulator, service, check);
                ask(&mut probe, |chat| chat.expected_answer = ExpectedAnswer::Ok);
                let outcome = run(probe);
                assert_eq!(outcome.reason, expected, "{text} {service:?} {check}: {outcome:?}");
                let fault = if expected == Reason::Ok { Fault::None } else { service.0.endpoint() };
                assert_eq!(outcome.fault, fault, "{text} {service:?} {check}");
                // With a prompt of the operator's own, any answer is as good.
                assert_eq!(run(elsewhere(&simulator, service, check)).reason, Reason::Ok);
            }
        }
    }
}

/// Writes a configuration of one probe of the simulated OpenAI, and returns the records of `once`.
fn once(simulator: &Simulator, lines: &str) -> (Vec<Value>, String) {
    let address = simulator.address();
    let place = Place::new(&format!(
        "[provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n{KEY}\n\
         [[probe]]\nname = \"p\"\nprovider = \"openai\"\nmodel = \"gpt-4o-mini\"\n{lines}\n"
    ));
    let output = place.run("once", &["--json"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(!printed.contains(CANARY) && !shown.contains(CANARY), "{shown}{printed}");
    (records(&output.stdout), printed)
}

#[test]
fn built_in_prompts_are_verified_as_configured() {
    let simulator = simulator("");
    for (text, lines, expected) in [
        ("ok", "check = \"chat\"", "ok"),
        ("zxqv", "check = \"chat\"", "wrong_answer"),
        ("zxqv", "check = \"stream\"", "wrong_answer"),
        ("zxqv", "check = \"chat\"\nprompt_words = 60", "wrong_answer"),
        ("zxqv", "check = \"chat\"\nprompt = \"Hi\"", "ok"),
        ("zxqv 7", "check = \"chat\"\nexpect = { answer_regex = 'v [0-9]$' }", "ok"),
        ("zxqv 7", "check = \"stream\"\nexpect = { answer_regex = 'v [0-9]$' }", "ok"),
        (
            "zxqv x",
            "check = \"chat\"\nprompt = \"Hi\"\nexpect = { answer_regex = 'v [0-9]$' }",
            "unmet_expectation",
        ),
        ("zxqv x", "check = \"stream\"\nexpect = { answer_regex = 'v [0-9]$' }", "unmet_expectation"),
        ("count 200", "check = \"stream\"\nworkload = \"speed\"", "ok"),
        ("count 200", "check = \"chat\"\nworkload = \"speed\"", "ok"),
        ("count 90", "check = \"stream\"\nworkload = \"speed\"", "wrong_answer"),
        ("zxqv", "check = \"stream\"\nworkload = \"speed\"", "wrong_answer"),
    ] {
        play(&simulator, &format!("[[rule]]\npace = {{ text = \"{text}\" }}"));
        let (records, printed) = once(&simulator, lines);
        assert_eq!(records.len(), 1, "{lines}: {printed}");
        assert_eq!(records[0]["reason"], expected, "{text} {lines}: {:#}", records[0]);
    }
}

/// A stream of so many tokens with a pause before each, through a proxy with such a buffer.
fn shape(
    simulator: &Simulator,
    service: Service,
    tokens: usize,
    pause: u64,
    buffer: Option<usize>,
) -> Outcome {
    let buffer = buffer.map_or_else(String::new, |bytes| format!(", buffer = {bytes}"));
    play(
        simulator,
        &format!("[[rule]]\npace = {{ token = \"{pause}ms\", tokens = {tokens}, usage = true{buffer} }}"),
    );
    let mut probe = elsewhere(simulator, service, Check::Stream);
    ask(&mut probe, |chat| chat.max_tokens = 1024);
    let outcome = run(probe);
    assert!(outcome.success(), "{outcome:?}");
    outcome
}

/// nginx before the simulator, until it is dropped.
struct Nginx {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Nginx {
    fn start(simulator: &Simulator, settings: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = directory.path().display();
        let text = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/log;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;\n\
             uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; {settings} }} }} }}\n",
            simulator.address()
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let mut nginx = Command::new("nginx");
        let child = nginx.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("nginx to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, port, _directory: directory }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn cached_tokens_are_reported_in_every_dialect() {
    let simulator = simulator("[[rule]]\npace = { prefill = \"10ms\", usage = true }");
    for service in SERVICES {
        for check in BOTH {
            let long = |words: &str| {
                let mut probe = elsewhere(&simulator, service, check);
                ask(&mut probe, |chat| chat.prompt = format!("{check} {words}"));
                probe
            };
            let prompt = "word ".repeat(800);
            let outcomes = runs(long(&prompt), 2);
            let cached: Vec<_> =
                outcomes.iter().map(|outcome| outcome.cached_input_tokens.unwrap_or(0)).collect();
            assert!(cached[0] == 0 && (900..=1010).contains(&cached[1]), "{service:?} {check}: {cached:?}");
            assert_eq!(outcomes[0].input_tokens, outcomes[1].input_tokens, "{service:?} {check}");
            assert!(detail_of(&outcomes[0]).is_empty(), "{:?}", outcomes[0]);
            assert!(detail_of(&outcomes[1]).contains("prompt cache"), "{:?}", outcomes[1]);
            // With a nonce at its beginning it is another prompt.
            let fresh = runs(long(&format!("x{prompt}")).with_nonce(), 3);
            assert!(fresh.iter().all(|outcome| outcome.cached_input_tokens.unwrap_or(0) == 0), "{fresh:?}");
        }
    }
}

trait WithNonce {
    fn with_nonce(self) -> Self;
}

impl WithNonce for Probe {
    fn with_nonce(mut self) -> Self {
        ask(&mut self, |chat| chat.prompt = format!("{PROMPT_NONCE} {}", chat.prompt));
        self
    }
}

#[test]
fn retirement_is_shown_and_named_once_it_has_passed() {
    let simulator = simulator("");
    let (records, _) = once(&simulator, "check = \"chat\"\nretires = \"2099-12-11\"");
    assert_eq!((&records[0]["success"], &records[0]["model_shutdown"]), (&true.into(), &"2099-12-11".into()));
    play(
        &simulator,
        "[[rule]]\npath = \"/chat\"\nrespond = { status = 404, body = '{\"error\":{\"code\":\"model_not_found\"}}' }",
    );
    let (records, _) = once(&simulator, "check = \"chat\"\nretires = \"2099-12-11\"");
    assert_eq!(records[0]["reason"], "model_not_found");
    assert!(!records[0]["detail"].as_str().unwrap_or_default().contains("retired"), "{:#}", records[0]);
    let (records, _) = once(&simulator, "check = \"chat\"\nretires = \"2020-12-11\"");
    assert_eq!(records[0]["reason"], "model_not_found");
    assert!(records[0]["detail"].as_str().unwrap().contains("retired"), "{:#}", records[0]);
    assert!(records[0]["hint"].as_str().unwrap().contains("successor"), "{:#}", records[0]);
}

const SWAP: &str = "[[rule]]\nprovider = \"langmart\"\npace = { answered_model = \"tiny-model-q4\" }";

#[test]
fn swap_is_logged_counted_shown_and_compared_with_nothing() {
    let simulator = simulator("");
    let address = simulator.address();
    let place = Place::new(&format!(
        "{LISTEN}[defaults.generation]\ninterval = \"1s\"\ntimeout = \"500ms\"\n\
         [provider.langmart]\nbase_url = \"http://api.langmart.ai/langmart\"\nproxy = \"http://{address}\"\n\
         allow_plain_http = true\n{KEY}\n\
         [provider.openai]\nbase_url = \"http://api.openai.com/openai/v1\"\nproxy = \"http://{address}\"\n\
         allow_plain_http = true\n{KEY}\n\
         [[probe]]\nname = \"gateway\"\nprovider = \"langmart\"\ncheck = \"chat\"\nmodel = \"openai/gpt-4o-mini\"\n\
         [[probe]]\nname = \"direct\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"gpt-4o-mini\"\n\
         [[comparison]]\nname = \"c\"\ngateway = \"gateway\"\ndirect = \"direct\"\n"
    ));
    let daemon = place.daemon();
    let of = |probe: &'static str| [("probe", probe)];
    let matches = "langmart_probe_answered_model_match";
    daemon.scrape_until("both models", |scrape| {
        ["gateway", "direct"].iter().all(|probe| scrape.find(matches, &of(probe)) == Some(1.0))
    });
    assert_eq!(daemon.logged("Another model answers"), 0, "{}", daemon.log());
    play(&simulator, SWAP);
    let swapped = daemon.scrape_until("three swaps", |scrape| {
        scrape.value("langmart_probe_model_mismatches_total", &of("gateway")) >= 3.0
    });
    assert_eq!(swapped.find(matches, &of("gateway")), Some(0.0));
    assert_eq!(swapped.find("langmart_probe_success", &of("gateway")), Some(1.0));
    assert_eq!(swapped.value("langmart_probe_model_mismatches_total", &of("direct")), 0.0);
    let verdict = [("comparison", "c"), ("verdict", "inconclusive")];
    assert!(swapped.value("langmart_comparison_verdicts_total", &verdict) >= 1.0);
    let page = daemon.get("/probes/gateway").body;
    assert!(page.contains("tiny-model-q4") && page.contains("not the requested model"), "{page}");
    assert!(daemon.get("/").body.contains("another model answers"));
    assert_eq!(daemon.logged("Another model answers"), 1, "{}", daemon.log());
    assert_eq!(daemon.logged("answered_model=\"tiny-model-q4\""), 1, "{}", daemon.log());
    play(&simulator, "");
    daemon.scrape_until("the requested model", |scrape| scrape.find(matches, &of("gateway")) == Some(1.0));
    assert_eq!(daemon.logged("Requested model answers again"), 1, "{}", daemon.log());
}

/// Tests that measure time.
mod phases {
    use super::*;

    #[test]
    fn speed_workload_has_enough_tokens_to_measure() {
        // The simulated model counts as it is asked to.
        let simulator = simulator("[[rule]]\npace = { first_token = \"20ms\", token = \"2ms\" }");
        for service in SERVICES {
            let mut probe = elsewhere(&simulator, service, Check::Stream);
            ask(&mut probe, |chat| {
                chat.prompt = "Write the whole numbers from 1 to 200 in order.".to_owned();
                chat.expected_answer = ExpectedAnswer::Count(200);
                chat.max_tokens = 1024;
            });
            let outcome = run(probe);
            assert!(outcome.success(), "{service:?}: {outcome:?}");
            assert!(outcome.output_tokens >= Some(200), "{service:?}: {outcome:?}");
            assert_eq!(outcome.buffered, Some(false), "{service:?}: {outcome:?}");
            let each = outcome.token_time().unwrap();
            assert!((Duration::from_millis(1)..Duration::from_millis(4)).contains(&each), "{each:?}");
        }
    }

    #[test]
    fn buffered_streams_are_recognised() {
        let simulator = simulator("");
        for service in SERVICES {
            for (tokens, pause) in [(64, 10), (200, 2)] {
                let open = shape(&simulator, service, tokens, pause, None);
                assert_eq!(open.buffered, Some(false), "{service:?} {tokens}: {:?}", open.stream);
                assert!(open.hint.is_empty() && open.time_per_output_token.is_some());
                assert_eq!(open.stream.unwrap().pieces, tokens as u64, "{service:?}");
                for buffer in [0, 4096, 16384] {
                    let held = shape(&simulator, service, tokens, pause, Some(buffer));
                    assert_eq!(held.buffered, Some(true), "{service:?} {tokens} {buffer}: {:?}", held.stream);
                    assert_eq!(held.time_per_output_token, None);
                    assert!(held.hint.contains("proxy_buffering") && held.hint.contains("X-Accel-Buffering"));
                }
            }
            for buffer in [None, Some(0)] {
                let short = shape(&simulator, service, 5, 5, buffer);
                assert_eq!(short.buffered, None, "{service:?}");
            }
        }
    }

    #[test]
    fn nginx_is_seen_to_buffer_or_not() {
        if !parts::has(&["nginx"], false) {
            return;
        }
        let simulator = simulator("");
        let buffered = |version: &str, size: &str| {
            format!(
                "proxy_http_version {version}; proxy_buffering on; proxy_buffer_size {size}; proxy_buffers 8 {size}; proxy_busy_buffers_size {size};"
            )
        };
        let mut settings = vec![
            ("proxy_http_version 1.0; proxy_buffering off;".to_owned(), false),
            ("proxy_http_version 1.1; proxy_buffering off;".to_owned(), false),
        ];
        settings.extend(
            ["1k", "2k", "4k", "8k", "16k", "32k", "64k", "256k"].map(|size| (buffered("1.0", size), true)),
        );
        // The chunks of an upstream that speaks HTTP/1.1 are passed on as they arrive, regardless of the
        // buffers.
        settings.extend(["2k", "256k"].map(|size| (buffered("1.1", size), false)));
        for (settings, expected) in settings {
            let nginx = Nginx::start(&simulator, &settings);
            for (tokens, pause) in [(64, 50), (64, 1), (200, 5), (500, 1)] {
                play(
                    &simulator,
                    &format!("[[rule]]\npace = {{ token = \"{pause}ms\", tokens = {tokens}, usage = true }}"),
                );
                let provider = provider(Api::Openai, &format!("http://127.0.0.1:{}/openai/v1", nginx.port));
                let mut probe =
                    Probe { model: Some("gpt-4o-mini".to_owned()), ..probe(provider, Check::Stream) };
                ask(&mut probe, |chat| chat.max_tokens = 1024);
                let outcome = run(probe);
                println!("{expected} {settings} {tokens} tokens, {pause} ms: {:?}", outcome.stream);
                assert_eq!(
                    outcome.buffered,
                    Some(expected),
                    "{settings}, {tokens} at {pause} ms: {outcome:?}"
                );
            }
        }
    }

    #[test]
    fn latency_by_prompt_size_is_that_of_an_uncached_prompt() {
        let simulator = simulator("[[rule]]\npace = { prefill = \"300ms\", usage = true }");
        let mut times = BTreeMap::new();
        for cache in ["avoid", "allow"] {
            let lines = format!("check = \"stream\"\nprompt_words = 800\nprompt_cache = \"{cache}\"");
            let address = simulator.address();
            let probe = |name: &str| {
                format!(
                    "[[probe]]\nname = \"{name}\"\nprovider = \"openai\"\nmodel = \"gpt-4o-mini\"\n{lines}\nprice = {{ input_usd_per_mtok = 1.0, cached_input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.0 }}\n"
                )
            };
            let place = Place::new(&format!(
                "[schedule]\nmax_concurrent = 1\n[provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n{KEY}\n{}{}",
                probe("first"),
                probe("second")
            ));
            let output = place.run("once", &["--json"]);
            let found = records(&output.stdout);
            assert!(found.iter().all(|record| record["success"] == true), "{found:#?}");
            times.insert(cache, found);
        }
        let seconds = |record: &Value| record["time_to_first_token_seconds"].as_f64().unwrap();
        let cost = |record: &Value| record["estimated_cost_usd"].as_f64().unwrap();
        for record in &times["avoid"] {
            let truth = record["input_tokens"].as_f64().unwrap() * 0.3 / 1000.0;
            assert!(seconds(record) >= truth && seconds(record) < truth * 1.02 + 0.02, "{truth}: {record:#}");
            assert!(
                (cost(record) - record["input_tokens"].as_f64().unwrap() / 1e6).abs() < 1e-9,
                "{record:#}"
            );
        }
        let flattered = &times["allow"][1];
        assert!(seconds(flattered) < 0.1, "{flattered:#}");
        let (input, cached) =
            (flattered["input_tokens"].as_f64().unwrap(), flattered["cached_input_tokens"].as_f64().unwrap());
        assert!((cost(flattered) - (input - cached + cached * 0.1) / 1e6).abs() < 1e-9, "{flattered:#}");
    }
}
