//! Checks that rules, dashboards and runbooks name existing metrics, and match their source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;
use serde_json::Value;

use crate::harness::parts;

const PROBE: &[&str] = &["probe", "provider", "check", "model"];

/// Labels and names that Prometheus, its targets and the rules add.
const ADDED: &[&str] = &[
    "job",
    "instance",
    "vantage",
    "le",
    "quantile",
    "measure",
    "day",
    "alertname",
    "alertstate",
    "severity",
];

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(packaging(name)).unwrap()
}

/// Every metric with its labels, and the values of labels with closed sets.
struct Known {
    metrics: BTreeMap<String, BTreeSet<String>>,
    values: BTreeMap<String, BTreeSet<String>>,
}

impl Known {
    fn new() -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("METRICS.md")).unwrap();
        let mut known = Self { metrics: BTreeMap::new(), values: BTreeMap::new() };
        let quoted = Regex::new("`([^`]+)`").unwrap();
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let name = cells[0].trim_matches('`').to_owned();
            let names = |cell: &str| quoted.captures_iter(cell).map(|found| found[1].to_owned()).collect();
            if let [_, values] = cells[..] {
                known.values.insert(name, names(values));
                continue;
            }
            let mut labels: BTreeSet<String> = names(cells[2]);
            if cells[2].contains("*probe*") {
                labels.extend(PROBE.iter().map(ToString::to_string));
            }
            if cells[1] == "histogram" {
                for suffix in ["_bucket", "_sum", "_count"] {
                    known.metrics.insert(format!("{name}{suffix}"), labels.clone());
                }
            }
            known.metrics.insert(name, labels);
        }
        assert!(known.metrics.len() > 50 && known.values.len() > 5, "METRICS.md could not be read");
        for record in Regex::new("- record: (\\S+)")
            .unwrap()
            .captures_iter(&read("prometheus/langmart-prober.rules.yml"))
        {
            let kind = record[1].split(':').next().unwrap();
            let labels: &[&str] = match kind {
                "langmart_probe" => &["probe", "provider", "check", "model", "resource"],
                "langmart_comparison" => &["comparison"],
                _ => &[],
            };
            known.metrics.insert(record[1].to_owned(), labels.iter().map(ToString::to_string).collect());
        }
        known
    }

    /// Checks every name, label and closed value in a text.
    fn check(&self, place: &str, text: &str) {
        let text = text.replace("\\\"", "\"");
        let selector = Regex::new(r"\b((?:langmart|process)_?[a-z0-9_:]*[a-z0-9])(?:\{([^}]*)\})?").unwrap();
        let matcher = Regex::new("([a-z_]+)(=~|=|!=|!~)['\"]([^'\"]*)['\"]").unwrap();
        for found in selector.captures_iter(&text) {
            let name = &found[1];
            // A path, a job or a user name, not a metric.
            if !name.contains('_') && !name.contains(':') {
                continue;
            }
            let labels = self.metrics.get(name).unwrap_or_else(|| panic!("{place}: there is no {name}"));
            for matcher in found.get(2).iter().flat_map(|inside| matcher.captures_iter(inside.as_str())) {
                let (label, value) = (&matcher[1], &matcher[3]);
                assert!(
                    labels.contains(label) || ADDED.contains(&label),
                    "{place}: {name} has no label {label}"
                );
                let Some(values) = self.values.get(label).filter(|_| !value.contains('$')) else { continue };
                for value in value.split('|') {
                    assert!(values.contains(value), "{place}: {label} of {name} is never {value}");
                }
            }
        }
        let grouping =
            Regex::new(r"\b(?:by|on|without|ignoring|group_left|group_right) ?\(([^)]*)\)").unwrap();
        for found in grouping.captures_iter(&text) {
            for label in found[1].split(',').map(str::trim).filter(|label| !label.is_empty()) {
                let exists =
                    ADDED.contains(&label) || self.metrics.values().any(|labels| labels.contains(label));
                assert!(exists, "{place}: no metric has the label {label}");
            }
        }
    }
}

/// Collects the queries of a dashboard, from its panels and variables.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(text) if key == "expr" || key == "query" => found.push(text.clone()),
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| queries(element, found)),
        _ => {}
    }
}

fn alerts() -> Vec<String> {
    let text = read("prometheus/langmart-prober.alerts.yml");
    Regex::new("- alert: (\\S+)").unwrap().captures_iter(&text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn rules_name_only_what_exists() {
    let known = Known::new();
    for name in [
        "langmart-prober.rules.yml",
        "langmart-prober.alerts.yml",
        "tests/alerts.test.yml",
        "tests/days.test.yml",
        "tests/kinds.test.yml",
    ] {
        known.check(name, &read(&format!("prometheus/{name}")));
    }
}

#[test]
fn dashboards_name_only_what_exists() {
    let known = Known::new();
    for name in ["overview", "drill-down", "prober"] {
        let mut found = Vec::new();
        queries(&serde_json::from_str(&read(&format!("grafana/{name}.json"))).unwrap(), &mut found);
        assert!(found.len() > 10, "{name}: {found:?}");
        for query in &found {
            known.check(name, query);
        }
    }
}

#[test]
fn unknown_metric_name_is_detected() {
    let known = Known::new();
    let missed = |text: &str| std::panic::catch_unwind(|| known.check("", text)).is_err();
    assert!(missed("langmart_probe_sucess"));
    assert!(missed("langmart_probe_success{modell=\"m\"}"));
    assert!(missed("langmart_probe_failures_total{reason=\"ok|down\"}"));
    assert!(missed("sum by (modell) (up)"));
    assert!(!missed("sum by (model) (langmart_probe_failures_total{fault=~\"gateway|network\"})"));
}

#[test]
fn alerts_and_runbooks_correspond() {
    let alerts = alerts();
    assert!(alerts.len() > 30);
    let pages = fs::read_dir(packaging("runbooks")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages: BTreeSet<String> = pages.map(|name| name.into_string().unwrap()).collect();
    let expected = alerts.iter().map(|name| format!("{name}.md")).chain(["README.md".to_owned()]);
    assert_eq!(pages, expected.collect());
    let rules = read("prometheus/langmart-prober.alerts.yml");
    for name in alerts {
        let page = read(&format!("runbooks/{name}.md"));
        for part in [
            &format!("# {name}\n"),
            "## What it means\n",
            "## Look here\n",
            "## Do this\n",
            "## How to silence\n",
        ] {
            assert!(page.contains(part), "{name}.md has no {part:?}");
        }
        assert!(
            rules.contains(&format!("/packaging/runbooks/{name}.md\n")),
            "{name} does not lead to its runbook"
        );
        assert!(
            read("runbooks/README.md").contains(&format!("[{name}]({name}.md)")),
            "{name} is not in the list"
        );
    }
}

#[test]
fn runbooks_state_the_severity() {
    let rules = read("prometheus/langmart-prober.alerts.yml");
    for rule in rules.split("      - alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let value = |key: &str| rule.lines().find_map(|line| line.trim().strip_prefix(key));
        let wait = value("for: ").map(|wait| format!(", after {wait}")).unwrap_or_default();
        let fault = value("fault: ").unwrap_or("as labelled");
        let urgency = format!("\n\nSeverity {}, fault {fault}{wait}.\n\n", value("severity: ").unwrap());
        assert!(read(&format!("runbooks/{name}.md")).contains(&urgency), "{name}.md: {urgency:?}");
    }
}

/// Returns the titles of all panels, from the text of the dashboards.
fn panel_titles() -> BTreeSet<String> {
    let title = Regex::new("\"title\": \"([^\"]+)\"").unwrap();
    let files = ["overview", "drill-down", "prober"].map(|name| read(&format!("grafana/{name}.json")));
    files.iter().flat_map(|text| title.captures_iter(text)).map(|found| found[1].to_owned()).collect()
}

#[test]
fn runbooks_name_only_what_exists() {
    let known = Known::new();
    let alerts = alerts();
    let alert = Regex::new("Langmart[A-Z][A-Za-z0-9]+").unwrap();
    let panel = Regex::new(r"\*([A-Z][^*]+)\*").unwrap();
    let titles = panel_titles();
    for entry in fs::read_dir(packaging("runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        known.check(&path.display().to_string(), &text);
        for found in alert.find_iter(&text) {
            assert!(
                alerts.iter().any(|name| name == found.as_str()),
                "{}: {}",
                path.display(),
                found.as_str()
            );
        }
        // README.md has placeholders in italics, and Prometheus has pages of its own.
        let of_dashboards =
            text.lines().filter(|line| line.starts_with("- ") && !line.contains("Prometheus'"));
        for found in of_dashboards.flat_map(|line| panel.captures_iter(line)) {
            assert!(titles.contains(&found[1]), "{}: no panel {:?}", path.display(), &found[1]);
        }
    }
    let receivers = read("alertmanager/alertmanager.yml");
    for found in Regex::new("alertname=\"(Langmart\\w+)\"").unwrap().captures_iter(&receivers) {
        assert!(alerts.iter().any(|name| *name == found[1]), "alertmanager.yml: {}", &found[1]);
    }
}

#[test]
fn generated_files_match_their_source() {
    if !parts::has(&["python3"], false) {
        return;
    }
    let output = Command::new(packaging("generate.py")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
