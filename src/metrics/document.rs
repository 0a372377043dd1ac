//! Generates METRICS.md from the table of families. The test writes it to `target/METRICS.md`.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Metrics,
    budget_state::BudgetNow,
    families::{FAMILIES, Family, Samples},
    page::Header,
    testing::{chat, config, page, probe, provider, stream},
    tests::{acme, rich, status},
};
use crate::{
    config::{Budget, Comparison, Pool, PoolMember, Probe, Provider, Recheck, Shard, Task},
    line_writer::Counters,
    outcome::{
        Api, ComponentStatus, Fault, Indicator, LimitedBy, Measure, Outcome, Pair, PairVerdict, Phases,
        Reason, Resource, SkipCause,
    },
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

const HEAD: &str = "# Metrics

Generated from the code and checked by a test: the metrics of `/metrics`, in its order. *probe* stands for the labels `probe`, `provider`,
`check` and `model` (empty if the probe has none). Label values come from the configuration or from the closed sets below. The
counters of a probe start at 0 when the probe is configured, and are removed with it.
Durations are in seconds, times in seconds since the Unix epoch.

Recording rules, alerts and dashboards are in [packaging](packaging/README.md).

| metric | type | labels | description |
|---|---|---|---|
";

/// Returns metrics with samples in every family.
pub(super) fn whole() -> Metrics {
    let metrics = Metrics::new(NOW);
    let acme = acme(Api::Langmart);
    let other = Arc::new(Provider {
        base_url: "https://other.example".parse().expect("the URL is well-formed"),
        ..provider("other", Api::Groq)
    });
    let probes = vec![
        chat("chat", &other, "m"),
        stream("stream", &acme, "m"),
        stream("direct", &other, "m"),
        status("status", &acme, &["API"]),
        Arc::new(probe("balance", &acme, Task::Balance)),
        Arc::new(Probe {
            slow_after: Some(Duration::ZERO),
            recheck: Some(Recheck { after: Duration::ZERO, step: Duration::ZERO, times: 1 }),
            ..probe("network", &acme, Task::Network)
        }),
    ];
    let comparison = Comparison { name: "c".into(), gateway: "stream".into(), direct: "direct".into() };
    let members = vec![PoolMember { probe: "chat".into(), weight: 1 }];
    let mut config = config(probes.clone());
    config.comparisons.push(Arc::new(comparison.clone()));
    config.pools.push(Pool { name: "pool".into(), members });
    config.shard = Some(Shard { index: 0, total: 1 });
    metrics.configure(&config);
    let measure = Measure {
        fault: Fault::None,
        duration: Duration::ZERO,
        first_token: Some(Duration::ZERO),
        is_of_another_model: false,
    };
    let compared = metrics.comparison(&comparison).expect("the comparison is configured");
    compared.observe(&Pair { gateway: measure, direct: measure });
    metrics.count_writer("log", &Counters::default());
    metrics.lag(Duration::ZERO);
    metrics.set_budget(Some(BudgetNow {
        limits: Budget { daily_cost_usd: Some(1.0), daily_tokens: Some(1) },
        spent_usd: 0.0,
        spent_tokens: 0,
        resumes: None,
    }));
    for probe in &probes {
        let series = metrics.series(probe);
        series.observe(&rich());
        series.waiting(NOW, None);
        series.observe(&Outcome { reason: Reason::Ok, fault: Fault::None, ..rich() });
        series.observe(&rich());
    }
    metrics
}

/// Returns the labels that every sample of the family has for its subject.
fn subject(family: &Family) -> &'static [&'static str] {
    match family.samples {
        Samples::Prober(_) => &[],
        Samples::Probe(_) => &["probe", "provider", "check", "model"],
        Samples::Comparison(_) => &["comparison"],
        Samples::Pool(_) => &["pool"],
    }
}

fn row(family: &Family) -> String {
    let Header { name, kind, labels, help } = family.header;
    let subject = match family.samples {
        Samples::Probe(_) => vec!["*probe*".to_owned()],
        _ => subject(family).iter().map(|name| format!("`{name}`")).collect(),
    };
    let labels = subject.into_iter().chain(labels.iter().map(|name| format!("`{name}`")));
    let labels = labels.collect::<Vec<_>>().join(", ");
    format!("| `{name}` | {} | {labels} | {help} |\n", kind.name())
}

/// Renders the values of the labels with closed sets.
fn values() -> String {
    fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> String {
        all.iter().map(|&value| format!("`{}`", name(value))).collect::<Vec<_>>().join(", ")
    }
    let failures: Vec<Reason> = Reason::ALL.iter().copied().filter(|reason| *reason != Reason::Ok).collect();
    let rows = [
        ("reason", names(&failures, Reason::name)),
        ("fault", names(Fault::ALL, Fault::name)),
        ("phase", Phases::NAMES.map(|name| format!("`{name}`")).join(", ")),
        ("cause", names(SkipCause::ALL, SkipCause::name)),
        ("resource", names(Resource::ALL, Resource::name)),
        ("limited_by", names(LimitedBy::ALL, LimitedBy::name)),
        ("indicator", names(Indicator::ALL, Indicator::name)),
        ("verdict", names(PairVerdict::ALL, PairVerdict::name)),
        ("status", names(ComponentStatus::ALL, ComponentStatus::name)),
    ];
    let rows = rows.map(|(label, values)| format!("| `{label}` | {values} |\n"));
    format!("\n| label | values |\n|---|---|\n{}", rows.concat())
}

#[test]
fn metrics_md_is_the_table_of_families() {
    let rows: String = FAMILIES.iter().map(row).collect();
    let expected = format!("{HEAD}{rows}{}", values());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = fs::read_to_string(root.join("METRICS.md")).unwrap_or_default();
    if found != expected {
        fs::create_dir_all(root.join("target")).expect("target is writable");
        fs::write(root.join("target/METRICS.md"), &expected).expect("target is writable");
        panic!(
            "METRICS.md differs from the code; cp target/METRICS.md METRICS.md, and review the difference"
        );
    }
}

#[test]
fn page_has_every_family_with_its_labels() {
    let page = page(&whole(), NOW);
    let mut families = FAMILIES.iter();
    let mut samples = 1;
    let mut family = None;
    for line in page.lines().filter(|line| !line.starts_with("# TYPE ")) {
        if let Some(header) = line.strip_prefix("# HELP ") {
            assert!(samples > 0, "no sample before {header}");
            family = families.next();
            let Header { name, help, .. } = family.expect("a family of the table").header;
            assert_eq!(header, format!("{name} {help}"));
            samples = 0;
            continue;
        }
        let family = family.expect("a header precedes samples");
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let names = labels.split("\",").filter(|pair| !pair.is_empty());
        let names: Vec<_> =
            names.map(|pair| pair.split_once('=').unwrap().0).filter(|name| *name != "le").collect();
        assert_eq!(names, [subject(family), family.header.labels].concat(), "{line}");
        samples += 1;
    }
    assert!(families.next().is_none(), "a family has no sample on the page");
}
