//! Tests of comparisons and pools with the whole daemon, with the simulator as gateway and
//! provider.

use std::collections::BTreeMap;

use langmart_prober::simulator::{Recorded, SimulatedService, Simulator};
use serde_json::Value;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place, records},
    scrape::Scrape,
    simulate::simulator,
};

const OF_GPT: [(&str, &str); 1] = [("comparison", "gpt")];

/// Returns a comparison of LangMart with OpenAI, with records, and further sections at the end.
fn configuration(simulator: &Simulator, place: &Place, timing: &str, check: &str, rest: &str) -> String {
    let address = simulator.address();
    let log = place.path("logs");
    format!(
        "{LISTEN}[log]\ndirectory = \"{}\"\n[schedule]\nmax_backoff = \"1h\"\n[defaults.generation]\n{timing}\n\
         [provider.langmart]\nbase_url = \"http://{address}/langmart\"\n{KEY}\n\
         [provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n{KEY}\n\
         [[probe]]\nname = \"gateway\"\nprovider = \"langmart\"\ncheck = \"{check}\"\nmodel = \"openai/gpt-4o-mini\"\n\
         [[probe]]\nname = \"direct\"\nprovider = \"openai\"\ncheck = \"{check}\"\nmodel = \"gpt-4o-mini\"\n\
         [[comparison]]\nname = \"gpt\"\ngateway = \"gateway\"\ndirect = \"direct\"\n{rest}\n",
        log.display()
    )
}

/// Interval and timeout that leave each probe of a pair a second.
const SLOW_TIMING: &str = "interval = \"2s\"\ntimeout = \"1s\"";

/// Starts a daemon with that comparison of chats.
fn compared(simulator: &Simulator) -> (Place, Daemon) {
    let place = Place::new("");
    place.write("config.toml", &configuration(simulator, &place, SLOW_TIMING, "chat", ""));
    let daemon = place.daemon();
    (place, daemon)
}

fn fault(provider: &str, fault: &str) -> String {
    format!("[[rule]]\nprovider = \"{provider}\"\npath = \"/chat\"\nfault = \"{fault}\"\n")
}

fn of_gpt(scrape: &Scrape, name: &str) -> f64 {
    scrape.value(&format!("langmart_comparison_{name}"), &OF_GPT)
}

/// Returns the number of pairs by verdict, if not zero.
fn verdicts(scrape: &Scrape) -> BTreeMap<&'static str, f64> {
    let all = ["ok", "gateway_fault", "provider_fault", "direct_fault", "inconclusive"];
    let count = |verdict| {
        scrape.value("langmart_comparison_verdicts_total", &[("comparison", "gpt"), ("verdict", verdict)])
    };
    all.map(|verdict| (verdict, count(verdict))).into_iter().filter(|(_, count)| *count > 0.0).collect()
}

#[track_caller]
fn check_verdict(scenario: &str, expected: &str) {
    let simulator = simulator(scenario);
    let (place, mut daemon) = compared(&simulator);
    let scrape = daemon.scrape_until("two pairs", |scrape| verdicts(scrape).values().sum::<f64>() >= 2.0);
    assert_eq!(verdicts(&scrape).into_keys().collect::<Vec<_>>(), [expected]);
    let good = expected == "ok";
    assert_eq!(of_gpt(&scrape, "pairs_total") >= 2.0, good);
    assert_eq!(scrape.find("langmart_comparison_last_overhead_seconds", &OF_GPT).is_some(), good);
    assert_eq!(of_gpt(&scrape, "gateway_seconds_total") > 0.0, good);
    assert_eq!(of_gpt(&scrape, "direct_seconds_total") > 0.0, good);
    assert!(scrape.values("langmart_comparison_gateway_first_token_seconds_total", &[]).is_empty());
    daemon.stop();
    check_records(&records(place.files("logs", "results.jsonl")), expected);
}

/// Checks that each record names its comparison and side, and that the second of a pair has the
/// verdict.
#[track_caller]
fn check_records(records: &[Value], verdict: &str) {
    assert!(records.len() >= 4, "{records:#?}");
    for record in records {
        assert_eq!(record["comparison"], "gpt", "{record}");
        assert_eq!(record["side"], record["probe"], "{record}");
    }
    for pair in records.chunks_exact(2) {
        assert_ne!(pair[0]["side"], pair[1]["side"], "{pair:#?}");
        assert_eq!((pair[0].get("verdict"), &pair[1]["verdict"]), (None, &verdict.into()), "{pair:#?}");
    }
}

#[test]
fn both_ways_good() {
    check_verdict("", "ok");
}

#[test]
fn gateway_failure_is_gateway_fault() {
    check_verdict(&fault("langmart", "unavailable"), "gateway_fault");
}

#[test]
fn provider_failure_on_both_paths_is_provider_fault() {
    check_verdict(
        &(fault("langmart", "gateway_timeout") + &fault("openai", "server_error")),
        "provider_fault",
    );
}

#[test]
fn direct_failure_is_direct_fault() {
    check_verdict(&fault("openai", "server_error"), "direct_fault");
}

#[test]
fn bad_key_is_inconclusive() {
    check_verdict(&fault("langmart", "auth_failed"), "inconclusive");
}

#[test]
fn probe_in_backoff_makes_no_pair_and_delays_no_other() {
    let simulator = simulator(&(fault("openai", "rate_limited") + "retry_after = \"3600s\"\n"));
    let (place, mut daemon) = compared(&simulator);
    let runs = |scrape: &Scrape, probe| scrape.value("langmart_probe_runs_total", &[("probe", probe)]);
    let scrape = daemon.scrape_until("runs by the gateway", |scrape| runs(scrape, "gateway") >= 4.0);
    assert_eq!(runs(&scrape, "direct"), 1.0);
    // The only slot in which both ran.
    assert_eq!(verdicts(&scrape), BTreeMap::from([("inconclusive", 1.0)]));
    assert_eq!(of_gpt(&scrape, "pairs_total"), 0.0);
    assert_eq!(
        scrape.value("langmart_probe_skipped_runs_total", &[("probe", "gateway"), ("cause", "overrun")]),
        0.0
    );
    daemon.stop();
    let with_verdict = |record: &&Value| record.get("verdict").is_some();
    assert_eq!(records(place.files("logs", "results.jsonl")).iter().filter(with_verdict).count(), 1);
}

#[test]
fn reload_keeps_counters_of_unchanged_comparison() {
    let simulator = simulator("");
    let place = Place::new("");
    let config = configuration(&simulator, &place, SLOW_TIMING, "chat", "");
    place.write("config.toml", &config);
    let daemon = place.daemon();
    let before = daemon.scrape_until("a pair", |scrape| of_gpt(scrape, "pairs_total") >= 1.0);

    // With a week between pairs, so that later values are not from a run.
    let rare = config.replace(SLOW_TIMING, "interval = \"168h\"\ntimeout = \"1s\"");
    place.write("config.toml", &rare);
    daemon.reload();
    let kept = daemon.scrape();
    assert_eq!(kept.setbacks(&before), [""; 0]);
    assert_eq!(of_gpt(&kept, "pairs_total"), verdicts(&kept)["ok"]);
    // Both use the slots of the gateway's probe.
    let next_run = |probe| kept.value("langmart_probe_next_run_timestamp_seconds", &[("probe", probe)]);
    assert_eq!(next_run("gateway"), next_run("direct"));

    // Another model makes another probe, and so another comparison.
    place.write("config.toml", &rare.replace("\"gpt-4o-mini\"", "\"gpt-4o-mini-2024-07-18\""));
    daemon.reload();
    let other = daemon.scrape();
    assert_eq!(of_gpt(&other, "pairs_total"), 0.0);
    assert_eq!(verdicts(&other), BTreeMap::new());

    let (alone, _) = config.split_once("[[comparison]]").unwrap();
    place.write("config.toml", alone);
    daemon.reload();
    assert!(!daemon.scrape().mentions(("comparison", "gpt")));
}

#[test]
fn pool_availability_is_weighted() {
    let simulator = simulator(&fault("langmart", "unavailable"));
    let pools = "[provider.groq]\nbase_url = \"http://SIMULATOR/groq/openai/v1\"\nchecks = [\"auth\"]\nKEY\n\
                 [defaults]\ninterval = \"168h\"\n\
                 [[pool]]\nname = \"chat\"\nmembers = [{ probe = \"gateway\" }, { probe = \"direct\", weight = 3 }, \
                 { probe = \"groq-auth\", weight = 9 }]\n\
                 [[pool]]\nname = \"rest\"\nmembers = [{ probe = \"groq-auth\" }]\n"
        .replace("SIMULATOR", &simulator.address().to_string())
        .replace("KEY", KEY);
    let place = Place::new("");
    place.write("config.toml", &configuration(&simulator, &place, SLOW_TIMING, "chat", &pools));
    let daemon = place.daemon();
    let members = |scrape: &Scrape, pool| {
        ["up", "down", "unknown"]
            .map(|state| scrape.value("langmart_pool_members", &[("pool", pool), ("state", state)]))
    };
    let ratio = |scrape: &Scrape, pool| scrape.find("langmart_pool_available_ratio", &[("pool", pool)]);
    let scrape = daemon.scrape_until("a run of both", |scrape| members(scrape, "chat")[2] == 1.0);
    assert_eq!(members(&scrape, "chat"), [1.0, 1.0, 1.0]);
    assert_eq!(ratio(&scrape, "chat"), Some(0.75));
    assert_eq!((members(&scrape, "rest"), ratio(&scrape, "rest")), ([0.0, 0.0, 1.0], None));
    let failed = ["gateway", "direct", "groq-auth"].map(|probe| {
        scrape.find("langmart_pool_member_consecutive_failures", &[("pool", "chat"), ("probe", probe)])
    });
    assert_eq!(failed, [Some(1.0), Some(0.0), None]);
}

#[test]
fn long_prompt_is_sent_and_answered() {
    let simulator = simulator("");
    let place = Place::new("");
    let config = configuration(&simulator, &place, "interval = \"10m\"", "stream", "");
    place.write("config.toml", &config.replace("check = ", "prompt_words = 20000\ncheck = "));
    let output = place.run("once", &["--json"]);
    let records = records(&output.stdout);
    assert_eq!(records.len(), 2);
    // A run by hand does not compare them.
    let as_wished = |record: &Value| record["success"] == true && record.get("comparison").is_none();
    assert!(records.iter().all(as_wished), "{records:#?}");
    // As counted by the service.
    let is_long = |record: &Value| record["input_tokens"].as_u64() > Some(20_000);
    assert!(records.iter().all(is_long), "{records:#?}");
}

/// Tests that measure time.
mod phases {
    use std::time::{Duration, Instant};

    use super::*;

    const PAIRS: usize = 30;

    /// Returns the mean time from the connection to the event that `what` selects, over the pairs,
    /// in seconds.
    fn mean(requests: &[Recorded], provider: SimulatedService, what: impl Fn(&Recorded) -> Instant) -> f64 {
        let of_provider = requests.iter().filter(|request| request.provider == Some(provider));
        let spans: Vec<Duration> =
            of_provider.take(PAIRS).map(|request| what(request) - request.accepted).collect();
        assert_eq!(spans.len(), PAIRS);
        spans.iter().sum::<Duration>().as_secs_f64() / PAIRS as f64
    }

    #[test]
    fn gateway_overhead_is_measured_exactly() {
        let simulator = simulator(
            "[[rule]]\npath = \"/chat\"\npace = { processing = \"5ms\", first_token = \"20ms\", token = \"5ms\", \
             tokens = 5, usage = true }\n\
             [[rule]]\nprovider = \"langmart\"\npath = \"/chat\"\npace = { extra = \"80ms\" }\n",
        );
        let place = Place::new("");
        let timing = "interval = \"600ms\"\ntimeout = \"300ms\"";
        place.write("config.toml", &configuration(&simulator, &place, timing, "stream", ""));
        let daemon = place.daemon();
        let pairs = PAIRS as f64;
        // A run that ends during a scrape may be counted in a part of it.
        let scrape = daemon.scrape_until("that many pairs, and their runs", |scrape| {
            let runs = |probe| scrape.value("langmart_probe_runs_total", &[("probe", probe)]);
            of_gpt(scrape, "pairs_total") == pairs && (runs("gateway"), runs("direct")) == (pairs, pairs)
        });
        let requests = simulator.requests();
        let overhead = |what: fn(&Recorded) -> Instant| {
            mean(&requests, SimulatedService::Langmart, what)
                - mean(&requests, SimulatedService::Openai, what)
        };
        let written = overhead(|request| request.writes.last().unwrap().at);
        let first_token = overhead(|request| request.first_token.unwrap());
        let measured = |unit: &str| {
            let of = |side| of_gpt(&scrape, &format!("{side}_{unit}_total"));
            (of("gateway") - of("direct")) / pairs
        };
        let by_metrics = [measured("seconds"), measured("first_token_seconds")];
        println!("added by the simulator's record: {written:.6} s, until the first token {first_token:.6} s");
        println!("by the metrics: {:.6} s, until the first token {:.6} s", by_metrics[0], by_metrics[1]);
        for (measured, reference) in by_metrics.into_iter().zip([written, first_token]) {
            assert!((measured - reference).abs() < 0.002, "{measured} and {reference}");
            assert!((measured - 0.08).abs() < 0.002, "{measured}");
        }
        let last = of_gpt(&scrape, "last_overhead_seconds");
        assert!((0.05..0.11).contains(&last), "{last}");

        // One after the other, either of them first.
        let first = |pair: &[Recorded]| {
            assert_ne!(pair[0].provider, pair[1].provider);
            assert!(pair[0].writes.last().unwrap().at < pair[1].accepted);
            pair[0].provider == Some(SimulatedService::Langmart)
        };
        let gateway_first = requests.chunks_exact(2).map(first).filter(|first| *first).count();
        assert!((1..PAIRS).contains(&gateway_first), "{gateway_first} of {PAIRS}");
    }
}
