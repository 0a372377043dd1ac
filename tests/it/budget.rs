//! Tests of the daily budget with the whole daemon: spending, exhaustion, restart and cost.

use std::{cell::Cell, fs, time::SystemTime};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use langmart_prober::simulator::Simulator;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    scrape::Scrape,
    simulate::{play, simulator},
    wait::wait_for,
};

/// Maximum number of tokens of a run in these tests: 8 for the frame of the prompt, one for its
/// text, 10 for the answer.
const MAX_RUN_TOKENS: f64 = 19.0;

/// Returns a chat probe with an interval of one second, and an auth probe that costs nothing, with
/// that budget.
fn place(simulator: &Simulator, budget: &str) -> Place {
    let place = Place::new("");
    configure(&place, simulator, budget);
    place
}

fn configure(place: &Place, simulator: &Simulator, budget: &str) {
    let text = format!(
        "{LISTEN}[budget]\n{budget}\n[state]\ndirectory = \"{}\"\n[log]\ndirectory = \"{}\"\n\
         [defaults]\ninterval = \"100ms\"\n[defaults.generation]\ninterval = \"1s\"\n\
         [provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n\
         [[probe]]\nname = \"spender\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"gpt-4o-mini\"\n\
         prompt = \"Hi\"\nmax_tokens = 10\nprice = {{ input_usd_per_mtok = 1000, output_usd_per_mtok = 2000 }}\n",
        place.path("state").display(),
        place.path("log").display(),
        simulator.address()
    );
    place.write("config.toml", &text);
}

fn skipped(scrape: &Scrape) -> f64 {
    scrape.value("langmart_probe_skipped_runs_total", &[("probe", "spender"), ("cause", "budget")])
}

/// Waits until five slots have passed without a run.
#[track_caller]
fn stopped(daemon: &Daemon) -> Scrape {
    let since = Cell::new((f64::NAN, 0.0));
    daemon.scrape_until("runs to stop", |scrape| {
        let runs = scrape.value("langmart_probe_runs_total", &[("probe", "spender")]);
        if since.get().0 != runs {
            since.set((runs, skipped(scrape)));
        }
        skipped(scrape) >= since.get().1 + 5.0
    })
}

fn completions(simulator: &Simulator) -> usize {
    simulator.requests().iter().filter(|request| request.method == "POST").count()
}

/// Returns the first second of the next UTC day, as Unix time.
fn midnight() -> f64 {
    let tomorrow = Timestamp::now().to_zoned(TimeZone::UTC).start_of_day().unwrap() + 1.day();
    tomorrow.timestamp().as_second() as f64
}

#[test]
fn exhausted_budget_survives_a_restart_until_next_day() {
    let simulator = simulator("");
    let place = place(&simulator, "daily_tokens = 60");
    let mut daemon = place.daemon();
    let scrape = stopped(&daemon);
    let spent = scrape.value("langmart_budget_spent_tokens", &[]);
    assert!(spent <= 60.0 && spent + MAX_RUN_TOKENS > 60.0, "{spent}");
    assert_eq!(spent, scrape.sum("langmart_probe_tokens_total"), "as reported by the service");
    assert_eq!(scrape.value("langmart_budget_limit_tokens", &[]), 60.0);
    assert_eq!(scrape.find("langmart_budget_limit_usd", &[]), None);
    let asked = completions(&simulator);
    assert!(asked > 0);
    let next = scrape.value("langmart_probe_next_run_timestamp_seconds", &[("probe", "spender")]);
    assert!((midnight()..midnight() + 1.0).contains(&next), "{next}");
    let date = Timestamp::from_second(midnight() as i64).unwrap().to_string();
    let page = daemon.get("/").body;
    assert!(page.contains(&format!("chat and stream resume at <time datetime=\"{date}\">")), "{page}");
    let auth = daemon.runs("openai-auth");
    daemon.scrape_until("checks without generation to continue", |_| daemon.runs("openai-auth") > auth + 2.0);
    // A run by hand is not limited, and reports that.
    let once = place.run("once", &["--json", "spender"]);
    assert!(once.status.success());
    assert!(String::from_utf8_lossy(&once.stderr).contains("do not count towards the budget"), "{once:?}");
    let log = daemon.stop();
    assert_eq!(log.matches("Budget reached").count(), 1, "{log}");
    assert!(log.contains(&format!("resumes={date}")), "{log}");

    let mut daemon = place.daemon();
    let again = stopped(&daemon);
    assert_eq!(again.value("langmart_budget_spent_tokens", &[]), spent);
    assert_eq!(completions(&simulator), asked + 1, "only the run by hand");
    daemon.stop();

    // Pretend that the state is from yesterday.
    let state = fs::read_to_string(place.path("state/state.json")).unwrap();
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let yesterday =
        state.replace(&format!("\"day\":\"{today}\""), &format!("\"day\":\"{}\"", today - 1.day()));
    assert_ne!(state, yesterday);
    place.write("state/state.json", &yesterday);
    let daemon = place.daemon();
    stopped(&daemon);
    assert_eq!(completions(&simulator), 2 * asked + 1, "as many as on the previous day");
}

#[test]
fn reload_keeps_spending_and_raises_the_limit() {
    let simulator = simulator("");
    let place = place(&simulator, "daily_cost_usd = 0.08");
    let mut daemon = place.daemon();
    let before = stopped(&daemon);
    let spent = before.value("langmart_budget_spent_usd", &[]);
    assert!(spent > 0.0 && spent <= 0.08, "{spent}");
    assert_eq!(before.value("langmart_budget_limit_usd", &[]), 0.08);
    assert_eq!(before.find("langmart_budget_limit_tokens", &[]), None);
    daemon.reload();
    let same = stopped(&daemon);
    assert_eq!(same.value("langmart_budget_spent_usd", &[]), spent);
    configure(&place, &simulator, "daily_cost_usd = 0.16");
    daemon.reload();
    let after = stopped(&daemon);
    let more = after.value("langmart_budget_spent_usd", &[]);
    assert!(more > spent && more <= 0.16, "{spent}, then {more}");
    configure(&place, &simulator, "");
    daemon.reload();
    let unlimited = daemon.scrape();
    assert_eq!(unlimited.find("langmart_budget_limit_usd", &[]), None);
    assert!(unlimited.value("langmart_budget_spent_usd", &[]) >= more, "it still counts");
    daemon.stop();
}

#[test]
fn run_is_charged_for_its_tokens() {
    let simulator = simulator(
        "[[rule]]\npath = \"/chat\"\ncalls = { from = 3, to = 3 }\nfault = \"rate_limited\"\nretry_after = \"0s\"",
    );
    let place = place(&simulator, "");
    let mut daemon = place.daemon();
    let scrape = daemon.scrape_until("runs", |scrape| {
        scrape.value("langmart_probe_runs_total", &[("probe", "spender")]) >= 5.0
    });
    let of = |name: &str, labels: &[(&str, &str)]| scrape.value(&format!("langmart_probe_{name}"), labels);
    let input = of("tokens_total", &[("direction", "input")]);
    let output = of("tokens_total", &[("direction", "output")]);
    let cost = of("estimated_cost_usd_total", &[]);
    assert!(cost > 0.0 && (cost - (input * 1000.0 + output * 2000.0) / 1e6).abs() < 1e-9, "{cost}");
    daemon.stop();
    let records = place.files("log", "results.jsonl");
    let costs: Vec<Option<f64>> = records
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|record| record["probe"] == "spender")
        .map(|record| record["estimated_cost_usd"].as_f64())
        .collect();
    assert!(costs[0].is_some_and(|cost| cost > 0.0), "{records}");
    assert_eq!(costs[2], None, "a refused run has no tokens: {records}");
}

#[test]
fn outage_charges_only_runs_that_may_be_answered() {
    for (fault, takes) in [("fault = \"unavailable\"", false), ("fault = \"gateway_timeout\"", true)] {
        let simulator = simulator("");
        play(&simulator, &format!("[[rule]]\npath = \"/chat\"\n{fault}"));
        let place = place(&simulator, "daily_tokens = 100");
        let daemon = place.daemon();
        let failed = |scrape: &Scrape| {
            let runs = scrape.value("langmart_probe_runs_total", &[("probe", "spender")]);
            runs >= 10.0 || skipped(scrape) > 0.0
        };
        let scrape = daemon.scrape_until("failed runs", failed);
        assert_eq!(skipped(&scrape) > 0.0, takes, "{fault}");
        assert_eq!(scrape.sum("langmart_probe_tokens_total"), 0.0);
        let expected = if takes { MAX_RUN_TOKENS * 5.0 } else { 0.0 };
        let spent = scrape.value("langmart_budget_spent_tokens", &[]);
        // A run may be in flight, and is charged with its maximum.
        assert!(spent == expected || spent == expected + MAX_RUN_TOKENS, "{fault}: {spent}");
    }
}

#[test]
fn next_midnight_is_in_the_future() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(midnight() > now && midnight() - now <= 86_400.0);
}

#[test]
fn spending_survives_removal_of_the_budget() {
    let simulator = simulator("");
    let place = place(&simulator, "daily_tokens = 40");
    let with_budget = fs::read_to_string(place.path("config.toml")).unwrap();
    let without = with_budget.replace("[budget]\ndaily_tokens = 40\n", "");
    assert_ne!(with_budget, without);
    let daemon = place.daemon();
    stopped(&daemon);
    for (text, kept) in [(without, false), (with_budget, true)] {
        place.write("config.toml", &text);
        daemon.reload();
        // No run starts with a budget, so the reload itself must report it.
        wait_for("the state to follow", || {
            let state = fs::read_to_string(place.path("state/state.json")).ok()?;
            (state.contains("spent_tokens") == kept).then_some(())
        });
    }
}
