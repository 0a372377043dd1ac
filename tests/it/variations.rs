//! Variations of answers, in other words, shapes and statuses than the recorded ones, and near
//! misses: each with the verdict it must get.

use langmart_prober::outcome::{Api, Check, LimitedBy, Outcome};
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{
    probes::{probe, provider, run},
    raw::{RawServer, on_the_wire},
};

/// Answers around one rule.
#[derive(Deserialize)]
struct Rule {
    name: String,
    /// Part of the verdicts on answers that the rule applies to.
    meaning: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    /// Reason and fault, and the exceeded limit if it is known.
    verdict: String,
    api: String,
    check: String,
    /// Status line without version, and headers.
    head: String,
    /// JSON, or text.
    body: Value,
}

fn rules() -> Vec<Rule> {
    serde_json::from_str(include_str!("../fixtures/variations.json")).unwrap()
}

fn play(server: &RawServer, row: &Row) -> Outcome {
    let body = row.body.as_str().map_or_else(|| row.body.to_string(), str::to_owned);
    server.play(on_the_wire(&format!("HTTP/1.1 {}\n\n{body}", row.head)));
    let (api, check) = (Api::from_name(&row.api).unwrap(), Check::from_name(&row.check).unwrap());
    let mut probe = probe(provider(api, &format!("http://{}", server.address)), check);
    probe.model =
        matches!(check, Check::Chat | Check::Stream | Check::Models).then(|| "test-model".to_owned());
    run(probe)
}

fn verdict(outcome: &Outcome) -> String {
    match outcome.limited_by {
        None | Some(LimitedBy::Unknown) => format!("{}/{}", outcome.reason, outcome.fault),
        Some(limit) => format!("{}/{} by {}", outcome.reason, outcome.fault, limit.name()),
    }
}

#[test]
fn variation_has_its_verdict() {
    let server = RawServer::start();
    let mut wrong = Vec::new();
    for Rule { name, rows, .. } in rules() {
        for row in rows {
            let found = verdict(&play(&server, &row));
            if found != row.verdict {
                wrong.push(format!("{name}: {found}, not {}: {} {}", row.verdict, row.head, row.body));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn rule_has_ten_variations_and_ten_near_misses() {
    for Rule { name, meaning, rows } in rules() {
        let (variations, near_misses): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| row.verdict.contains(&meaning));
        let counts = (variations.len(), near_misses.len());
        assert!(counts.0 >= 10 && counts.1 >= 10, "{name}: {counts:?}");
    }
}
