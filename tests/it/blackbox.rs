//! Compares `/probe` with a real `blackbox_exporter`, with the same queries in a real Prometheus.

use std::{net::SocketAddr, process::Command};

use langmart_prober::simulator::Simulator;
use serde_json::Value;

use crate::harness::{
    daemon::{Daemon, KEY, Place},
    parts,
    process::Process,
    prometheus::{Prometheus, listening},
    simulate::simulator,
    wait::wait_for,
};

/// Seconds by which the simulator delays its answers, and maximum overhead of the quickest of
/// several runs on a busy machine. The overhead is less than the delay, so that an exporter cannot
/// omit or double it.
const ANSWER_DELAY: f64 = 0.6;
const NOISE: f64 = 0.4;

const EXPORTER: &str = "prometheus-blackbox-exporter";

/// Returns the value of a query for each target and, if there are any, each phase.
#[track_caller]
fn by_target(prometheus: &Prometheus, query: &str) -> Vec<(String, f64)> {
    let name = |labels: &Value| {
        let [instance, phase] = ["instance", "phase"].map(|label| labels[label].as_str());
        [instance, phase].into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let mut values: Vec<_> =
        prometheus.query(query).into_iter().map(|(labels, value)| (name(&labels), value)).collect();
    values.sort_by(|one, other| one.0.cmp(&other.0));
    values
}

/// Returns a scrape job with the usual configuration for an exporter with targets.
fn job(name: &str, exporter: SocketAddr, targets: &[(&str, &str)]) -> String {
    let targets = targets
        .iter()
        .map(|(instance, target)| {
            format!("  - {{ targets: ['{target}'], labels: {{ instance: {instance} }} }}\n")
        })
        .collect::<Vec<_>>()
        .concat();
    format!(
        "- job_name: {name}\n  metrics_path: /probe\n  params: {{ module: [http_any] }}\n  static_configs:\n{targets}\
         \x20 relabel_configs:\n  - {{ source_labels: [__address__], target_label: __param_target }}\n\
         \x20 - {{ target_label: __address__, replacement: '{exporter}' }}\n"
    )
}

/// Writes the simulator's root and a configuration with two probes. Returns the daemon.
fn prober(simulator: &Simulator, place: &Place, base: &str) -> Daemon {
    place.write("ca.pem", simulator.ca_pem());
    let ca = place.path("ca.pem");
    let provider = |name: &str, path: &str, checks: &str| {
        format!(
            "[provider.{name}]\nbase_url = \"{base}/{path}\"\n{KEY}\nca_file = \"{}\"\nchecks = [{checks}]\n",
            ca.display()
        )
    };
    place.write(
        "config.toml",
        &format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[defaults]\ninterval = \"1h\"\n{}{}",
            provider("langmart", "langmart", "\"health\""),
            provider("openai", "openai/v1", "\"auth\"")
        ),
    );
    place.daemon()
}

/// Starts `blackbox_exporter`. Returns it with its address.
fn exporter(place: &Place) -> (Process, SocketAddr) {
    let ca = place.path("ca.pem");
    place.write(
        "blackbox.yml",
        &format!(
            "modules:\n  http_any:\n    prober: http\n    timeout: 5s\n    http:\n      valid_http_versions: [HTTP/1.1, HTTP/2.0]\n\
             \x20     preferred_ip_protocol: ip4\n      headers: {{ authorization: Bearer sk-test-0123456789 }}\n\
             \x20     tls_config: {{ ca_file: '{}' }}\n",
            ca.display()
        ),
    );
    let mut command = Command::new(EXPORTER);
    command.arg(format!("--config.file={}", place.path("blackbox.yml").display()));
    command.arg("--web.listen-address=127.0.0.1:0");
    let mut exporter = Process::start(command);
    let address = exporter.logs("blackbox_exporter to be ready", listening);
    (exporter, address)
}

/// Compares a duration. The quickest of several scrapes is free of other load: both exporters
/// measure the delay completely, in the same phase and in no other.
#[track_caller]
fn check_duration(prometheus: &Prometheus, metric: &str) {
    let [ours, theirs] = ["job=\"ours\"", "job=\"theirs\""].map(|job| {
        let quickest = format!("min by (instance, phase) (min_over_time({metric}{{{job}}}[5m]))");
        by_target(prometheus, &quickest)
    });
    let names = |values: &[(String, f64)]| values.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{metric}");
    for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let difference = format!("{metric} of {name}: ours {ours}, theirs {theirs}");
        let held = matches!(name.as_str(), "slow" | "slow processing");
        let band = if held { ANSWER_DELAY..ANSWER_DELAY + NOISE } else { 0.0..NOISE };
        assert!(band.contains(ours) && band.contains(theirs), "{difference}, not in {band:?}");
    }
}

#[test]
fn blackbox_queries_give_the_same_results() {
    if !parts::has(&["prometheus", EXPORTER], false) {
        return;
    }
    let simulator = simulator(
        "[[rule]]\nprovider = \"langmart\"\npath = \"/health\"\nfault = \"slow_headers\"\nms = 600\n\
         [[rule]]\nprovider = \"openai\"\npath = \"/models\"\nfault = \"unavailable\"\n",
    );
    let tls = simulator.tls_address().unwrap();
    let base = format!("https://{}:{}", "localhost", tls.port());
    let place = Place::new("");
    let daemon = prober(&simulator, &place, &base);
    let (_exporter, exporter_address) = exporter(&place);

    let jobs = [
        job("ours", daemon.address, &[("slow", "langmart-health"), ("down", "openai-auth")]),
        job(
            "theirs",
            exporter_address,
            &[("slow", &format!("{base}/langmart/health")), ("down", &format!("{base}/openai/v1/models"))],
        ),
    ];
    let prometheus = Prometheus::start(
        &place,
        &format!("global: {{ scrape_interval: 2s, scrape_timeout: 2s }}\nscrape_configs:\n{}", jobs.concat()),
    );
    wait_for("scrapes of both", || {
        (by_target(&prometheus, "count_over_time(probe_success[5m]) >= 4").len() == 4).then_some(())
    });

    let same = |metric: &str| {
        let of = |job: &str| by_target(&prometheus, &metric.replace("JOB", job));
        let (ours, theirs) = (of("job=\"ours\""), of("job=\"theirs\""));
        assert!(!theirs.is_empty(), "{metric} finds nothing of blackbox_exporter's");
        assert_eq!(ours, theirs, "{metric}");
    };
    same("probe_success{JOB}");
    same("probe_http_status_code{JOB}");
    same("probe_http_ssl{JOB}");
    same("probe_http_redirects{JOB}");
    same("probe_ip_protocol{JOB}");
    same("probe_ssl_earliest_cert_expiry{JOB}");
    same("count by (instance, phase) (probe_http_duration_seconds{JOB})");
    check_duration(&prometheus, "probe_duration_seconds");
    check_duration(&prometheus, "probe_http_duration_seconds");
    same("avg_over_time(probe_success{JOB}[1m])");
    // Runs for /probe are not counted as runs of the probe.
    assert_eq!(daemon.scrape().sum("langmart_probe_runs_total"), 0.0);
}
