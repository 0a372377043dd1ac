//! Tests of the content and size of the history.

use std::{
    mem::size_of,
    sync::Arc,
    time::{Duration, SystemTime},
};

use langmart_prober::{
    config::{Config, Probe},
    history::{History, MAX_RUNS, ProbeHistory, Run, SkippedRuns},
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
        hint: if reason == Reason::Ok { "" } else { "wait" }.into(),
        ..Outcome::new(at(seconds), reason, fault)
    })
}

/// Returns a configuration of chat probes with these names and models.
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
fn history_is_bounded_and_keeps_failing_since() {
    let history = History::default();
    let config = config(&[("p", "m")]);
    history.configure(&config, no_curl);
    let probe = &config.probes[0];
    let kept = history.for_probe(probe);
    kept.add_skipped(SkipCause::Backoff, 2);
    kept.add_skipped(SkipCause::Budget, 1);
    assert_eq!(kept.snapshot().skipped, Some(SkippedRuns { cause: SkipCause::Budget, runs: 3 }));
    for second in 0..=MAX_RUNS as u64 {
        kept.observe(&outcome(second, if second < 10 { Reason::Ok } else { Reason::Unavailable }));
    }
    let now = kept.snapshot();
    assert_eq!((now.runs.len(), now.runs[0].time), (MAX_RUNS, at(1)));
    assert_eq!((now.failing_since, now.skipped), (Some(at(10)), None));
    let last = &now.runs[MAX_RUNS - 1];
    assert_eq!((last.duration(), last.reason), (Duration::from_micros(1_234_567), Reason::Unavailable));
    assert_eq!(last.failure.as_deref().map(|failure| &*failure.hint), Some("wait"));
    kept.observe(&outcome(200, Reason::Ok));
    assert_eq!(kept.snapshot().failing_since, None);
}

#[test]
fn reload_keeps_history_of_unchanged_probe() {
    let history = History::default();
    let before = config(&[("stays", "m"), ("changes", "m")]);
    history.configure(&before, no_curl);
    for probe in &before.probes {
        history.for_probe(probe).observe(&outcome(1, Reason::Ok));
    }
    history.configure(&config(&[("stays", "m"), ("changes", "another")]), no_curl);
    let runs = history.all().values().map(|kept| kept.snapshot().runs.len()).collect::<Vec<_>>();
    assert_eq!(runs, [0, 1], "in the order of names");
    history.for_probe(&before.probes[1]).observe(&outcome(2, Reason::Ok));
    assert_eq!(history.all()["changes"].snapshot().runs.len(), 0, "the run of a removed probe");
}

#[test]
fn complete_runs_are_shared_among_probes() {
    let many: Vec<_> = (0..1000).map(|number| format!("p{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "m")).collect();
    let [few, many] = [config(&many[..50]), config(&many)];
    let history = History::default();
    history.configure(&few, no_curl);
    let kept = history.for_probe(&few.probes[0]);
    let whole = |kept: &ProbeHistory| kept.whole().iter().map(|outcome| outcome.time).collect::<Vec<_>>();
    for second in 0..=MAX_RUNS as u64 {
        kept.observe(&outcome(second, Reason::Ok));
    }
    assert_eq!(whole(&kept), (1..=100).map(at).collect::<Vec<_>>(), "all runs with fifty probes");
    history.configure(&many, no_curl);
    assert_eq!(whole(&kept), (96..=100).map(at).collect::<Vec<_>>(), "an equal share with a thousand probes");
    kept.observe(&outcome(200, Reason::Ok));
    let expected: Vec<_> = (97..=100).chain([200]).map(at).collect();
    assert_eq!(
        whole(&kept),
        expected,
        "also where a run's task still writes to the memory of before the reload"
    );
    history.configure(&few, no_curl);
    assert_eq!(
        whole(&history.for_probe(&few.probes[0])),
        expected,
        "and none is removed when there is room again"
    );
}

#[test]
fn run_has_bounded_size() {
    assert!(size_of::<Run>() <= 64, "{}", size_of::<Run>());
    assert!(size_of::<Outcome>() <= 752, "{}", size_of::<Outcome>());
}
