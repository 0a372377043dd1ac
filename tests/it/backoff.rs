//! Tests of backoff with the whole daemon: hints of the service, exported values, and the next
//! request.

use std::time::Duration;

use langmart_prober::simulator::{Recorded, Simulator};

use crate::harness::{
    daemon::{KEY, LISTEN, Place},
    scrape::Scrape,
    simulate::simulator,
};

/// Returns a Groq probe with an interval of 500 ms.
fn groq(simulator: &Simulator, max_backoff: &str) -> Place {
    Place::new(&format!(
        "{LISTEN}[schedule]\nmax_backoff = \"{max_backoff}\"\n[defaults.generation]\ninterval = \"500ms\"\n\
         [provider.groq]\nbase_url = \"http://{}/groq/openai/v1\"\n{KEY}\nchecks = []\n\
         [[probe]]\nname = \"groq\"\nprovider = \"groq\"\ncheck = \"chat\"\nmodel = \"llama-3.1-8b-instant\"\n",
        simulator.address()
    ))
}

fn of_probe(scrape: &Scrape, name: &str) -> f64 {
    scrape.value(&format!("langmart_probe_{name}"), &[("probe", "groq")])
}

fn skipped(scrape: &Scrape) -> f64 {
    scrape.value("langmart_probe_skipped_runs_total", &[("probe", "groq"), ("cause", "backoff")])
}

/// Returns the time from the end of the first answer with that status to the next request.
fn wait_after(requests: &[Recorded], status: u16) -> Duration {
    let first = requests.iter().position(|request| request.status == Some(status)).unwrap();
    requests[first + 1].head_received - requests[first].writes.last().unwrap().at
}

#[test]
fn hint_delays_the_next_request() {
    let limited = "[[rule]]\ncalls = { from = 3, to = 3 }\nfault = \"rate_limited\"\nretry_after = \"2s\"";
    let simulator = simulator(limited);
    let place = groq(&simulator, "1h");
    let daemon = place.daemon();
    let waiting = daemon.scrape_until("the wait to begin", |scrape| {
        of_probe(scrape, "backoff_until_timestamp_seconds") > 0.0
    });
    let ended =
        of_probe(&waiting, "last_run_timestamp_seconds") + of_probe(&waiting, "last_duration_seconds");
    let until = of_probe(&waiting, "backoff_until_timestamp_seconds");
    // Up to a tenth of jitter, and up to the next slot.
    assert!((2.0 - 0.01..2.2 + 0.5 + 0.1).contains(&(until - ended)), "from {ended} until {until}");
    assert_eq!(of_probe(&waiting, "next_run_timestamp_seconds"), until);
    assert_eq!(of_probe(&waiting, "retry_after_seconds"), 2.0);
    assert_eq!(of_probe(&waiting, "retry_after_hints_total"), 1.0);
    assert_eq!(of_probe(&waiting, "retry_after_hint_seconds_total"), 2.0);
    let failure = [("reason", "rate_limited"), ("fault", "caller")];
    assert_eq!(waiting.value("langmart_probe_failures_total", &failure), 1.0);

    daemon.scrape_until("due times to be passed over", |scrape| skipped(scrape) >= skipped(&waiting) + 1.0);
    let over = daemon.scrape_until("the wait to end", |scrape| of_probe(scrape, "success") == 1.0);
    assert_eq!(of_probe(&over, "backoff_until_timestamp_seconds"), 0.0);
    assert_eq!(of_probe(&over, "retry_after_seconds"), 0.0);
    assert!(skipped(&over) >= 3.0, "{} of about four slots", skipped(&over));
    daemon
        .scrape_until("another run", |scrape| of_probe(scrape, "runs_total") > of_probe(&over, "runs_total"));
    let wait = wait_after(&simulator.requests(), 429);
    assert!(wait >= Duration::from_secs(2), "{wait:?}");
}

#[test]
fn backoff_is_limited_to_max_backoff() {
    let limited = "[[rule]]\ncalls = { from = 1, to = 1 }\nfault = \"rate_limited\"\nretry_after = \"1h\"";
    let simulator = simulator(limited);
    let place = groq(&simulator, "1s");
    let daemon = place.daemon();
    let over = daemon.scrape_until("the wait to end", |scrape| {
        scrape.find("langmart_probe_success", &[("probe", "groq")]) == Some(1.0)
    });
    assert_eq!(of_probe(&over, "retry_after_hint_seconds_total"), 3600.0, "as received");
    let wait = wait_after(&simulator.requests(), 429);
    assert!(wait >= Duration::from_secs(1), "{wait:?}");
}

#[test]
fn reload_with_another_key_ends_backoff() {
    let limited = "[[rule]]\nkey_contains = \"test\"\nfault = \"rate_limited\"\nretry_after = \"1h\"";
    let simulator = simulator(limited);
    let place = groq(&simulator, "1h");
    let daemon = place.daemon();
    let waiting = |scrape: &Scrape| of_probe(scrape, "backoff_until_timestamp_seconds") > 0.0;
    daemon.scrape_until("the wait to begin", waiting);
    daemon.reload();
    assert!(waiting(&daemon.scrape()), "a reload without changes keeps the backoff");
    place.write("key", "sk-another-0123456789");
    let key = format!("api_key = {{ file = \"{}\" }}", place.path("key").display());
    let config = std::fs::read_to_string(place.path("config.toml")).unwrap();
    place.write("config.toml", &config.replace(KEY, &key));
    daemon.reload();
    let over = daemon.scrape_until("a success", |scrape| of_probe(scrape, "success") == 1.0);
    assert!(!waiting(&over));
}
