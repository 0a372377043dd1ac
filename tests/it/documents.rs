//! What the documents say of reasons, checks, metrics and files is so.

use std::{collections::BTreeSet, fs, path::Path};

use langmart_prober::outcome::{Api, Check, Fault, Reason, possible_failures};
use regex::Regex;

const README: &str = include_str!("../../README.md");

const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", README),
    ("ARCHITECTURE.md", include_str!("../../ARCHITECTURE.md")),
    ("CHANGELOG.md", include_str!("../../CHANGELOG.md")),
    ("CONTRIBUTING.md", include_str!("../../CONTRIBUTING.md")),
    ("METRICS.md", include_str!("../../METRICS.md")),
    ("SECURITY.md", include_str!("../../SECURITY.md")),
    ("BENCHMARKS.md", include_str!("../../BENCHMARKS.md")),
    ("docs/api.md", include_str!("../../docs/api.md")),
    ("docs/decisions.md", include_str!("../../docs/decisions.md")),
    ("docs/scale.md", include_str!("../../docs/scale.md")),
];

/// The first and the last cell of each row of a table of the README, by its first line.
#[track_caller]
fn table(header: &str) -> Vec<(&'static str, &'static str)> {
    let (_, rest) = README.split_once(header).unwrap_or_else(|| panic!("the README has no table {header}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &'static str| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].trim_matches('`'), cells[cells.len() - 1])
    };
    rows.map(cells).collect()
}

#[test]
fn the_readme_has_every_reason_with_every_fault_that_it_can_have() {
    let pairs: BTreeSet<(Reason, Fault)> = Api::ALL
        .iter()
        .flat_map(|&api| Check::ALL.iter().map(move |&check| (api, check)))
        // A status page's failures are said apart: none of them is the service's.
        .filter(|(_, check)| *check != Check::Status)
        .flat_map(|(api, check)| possible_failures(api, check))
        .chain([(Reason::Ok, Fault::None)])
        .collect();
    let faults = |reason: Reason| {
        let faults = Fault::ALL.iter().filter(|fault| pairs.contains(&(reason, **fault)));
        faults.map(|fault| fault.name()).collect::<Vec<_>>()
    };
    let expected: Vec<(&str, Vec<&str>)> =
        Reason::ALL.iter().map(|&reason| (reason.name(), faults(reason))).collect();
    let mut rows: Vec<(&str, Vec<&str>)> = table("| reason | when | faults |")
        .iter()
        .map(|(reason, faults)| (*reason, faults.split(", ").collect()))
        .collect();
    let order = |fault: &&str| Fault::from_name(fault);
    for (_, faults) in &mut rows {
        faults.sort_by_key(order);
    }
    assert_eq!(rows, expected);
}

#[test]
fn the_readme_has_every_check() {
    let rows: Vec<&str> =
        table("| check | request | succeeds if |").into_iter().map(|(check, _)| check).collect();
    assert_eq!(rows, Check::ALL.iter().map(|check| check.name()).collect::<Vec<_>>());
}

#[test]
fn every_metric_in_a_document_exists() {
    // What is scraped from /metrics, and the answer of /probe.
    let sources: String = ["src/metrics", "src/page"]
        .iter()
        .flat_map(|part| fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(part)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let name = Regex::new("langmart_prober?_[a-z_]+[a-z]").unwrap();
    for (file, text) in DOCUMENTS {
        for found in name.find_iter(text) {
            assert!(sources.contains(&format!("\"{}\"", found.as_str())), "{file}: {}", found.as_str());
        }
    }
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#]+)[^)]*\)").unwrap();
    let mut count = 0;
    for (file, text) in DOCUMENTS {
        for captures in link.captures_iter(text).filter(|captures| !captures[1].contains("://")) {
            let folder = Path::new(file).parent().expect("a document is a file");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(&captures[1]);
            assert!(path.exists(), "{file}: {}", &captures[1]);
            count += 1;
        }
    }
    assert!(count > 0, "no link was found");
}
