//! What is kept, and that it is bounded.

use std::{
    mem::size_of,
    sync::Arc,
    time::{Duration, SystemTime},
};

use langmart_prober::{
    config::{Config, Probe},
    history::{Held, History, MAX_RUNS, Run},
    outcome::{Api, Check, Fault, Outcome, Reason, SkipCause},
};

use crate::harness::probes;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn outcome(seconds: u64, reason: Reason) -> Arc<Outcome> {
    let fault = if reason == Reason::Ok { Fault::None } else { Fault::Gateway };
    Arc::new(Outcome {
        duration: Duration::from_micros(1_234_567),
        hint: if reason == Reason::Ok { "" } else { "wait" },
        ..Outcome::new(at(seconds), reason, fault)
    })
}

/// A configuration of chat probes with these names and models.
fn config(probes: &[(&str, &str)]) -> Config {
    let probe = |(name, model): &(&str, &str)| Probe {
        name: (*name).to_owned(),
        model: Some((*model).to_owned()),
        ..probes::probe(probes::provider(Api::Langmart, "http://127.0.0.1:9"), Check::Chat)
    };
    probes::config(probes.iter().map(probe).collect())
}

fn no_curl(_: &Probe) -> String {
    String::new()
}

#[test]
fn the_oldest_run_goes_and_failures_are_counted_from_their_first() {
    let history = History::default();
    let config = config(&[("p", "m")]);
    history.configure(&config, no_curl);
    let probe = &config.probes[0];
    let kept = history.of(probe);
    kept.skipped(SkipCause::Backoff, 2);
    kept.skipped(SkipCause::Budget, 1);
    assert_eq!(kept.snapshot().held, Some(Held { cause: SkipCause::Budget, runs: 3 }));
    for second in 0..=MAX_RUNS as u64 {
        kept.observe(&outcome(second, if second < 10 { Reason::Ok } else { Reason::Unavailable }), false);
    }
    let now = kept.snapshot();
    assert_eq!((now.runs.len(), now.runs[0].time), (MAX_RUNS, at(1)));
    assert_eq!((now.failing_since, now.held), (Some(at(10)), None));
    let record = serde_json::to_value(now.runs[MAX_RUNS - 1].record(probe.subject())).unwrap();
    assert_eq!(record["duration_seconds"], 1.234_567);
    assert_eq!((&record["reason"], &record["hint"]), (&"unavailable".into(), &"wait".into()));
    kept.observe(&outcome(200, Reason::Ok), false);
    assert_eq!(kept.snapshot().failing_since, None);
}

#[test]
fn a_reload_keeps_the_memory_of_a_probe_that_stays_the_same() {
    let history = History::default();
    let before = config(&[("stays", "m"), ("changes", "m")]);
    history.configure(&before, no_curl);
    for probe in &before.probes {
        history.of(probe).observe(&outcome(1, Reason::Ok), false);
    }
    history.configure(&config(&[("stays", "m"), ("changes", "another")]), no_curl);
    let runs = history.all().values().map(|kept| kept.snapshot().runs.len()).collect::<Vec<_>>();
    assert_eq!(runs, [0, 1], "in the order of names");
    history.of(&before.probes[1]).observe(&outcome(2, Reason::Ok), false);
    assert_eq!(history.all()["changes"].snapshot().runs.len(), 0, "the run of a probe that is gone");
}

#[test]
fn a_run_takes_little() {
    assert!(size_of::<Run>() <= 96, "{}", size_of::<Run>());
}
