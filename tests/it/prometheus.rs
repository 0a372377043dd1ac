//! Tests of the metrics with promtool and a real Prometheus.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use langmart_prober::simulator::Simulator;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    parts,
    prometheus::Prometheus,
    simulate::simulator,
    wait::wait_for,
};

/// Starts a daemon with probes that succeed, fail, back off and are slow.
fn busy() -> (Simulator, Place, Daemon) {
    let simulator = simulator(
        "[[rule]]\nprovider = \"groq\"\npath = \"/chat\"\nfault = \"rate_limited\"\n\
         [[rule]]\nprovider = \"anthropic\"\nfault = \"overloaded\"\nprobability = 0.3\n\
         [[rule]]\nprovider = \"google\"\nfault = \"cut\"\nprobability = 0.3\n",
    );
    let provider = |(name, path): (&str, &str)| {
        let address = simulator.address();
        format!(
            "[provider.{name}]\nbase_url = \"http://{address}/{path}\"\n{KEY}\nlabels = {{ team = \"a\\\"\\\\b\" }}\n\
             checks = [\"auth\", \"models\"]\n"
        )
    };
    let providers: String = [
        ("langmart", "langmart"),
        ("openai", "openai/v1"),
        ("anthropic", "anthropic"),
        ("groq", "groq/openai/v1"),
        ("google", "google/v1beta"),
        ("openrouter", "openrouter/api/v1"),
    ]
    .map(provider)
    .concat();
    let place = Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"100ms\"\n[defaults.generation]\ninterval = \"100ms\"\n{providers}\
         [[probe]]\nname = \"groq-chat\"\nprovider = \"groq\"\ncheck = \"chat\"\nmodel = \"llama-3.1-8b-instant\"\n\
         [[probe]]\nname = \"openai-chat\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"gpt-4o-mini\"\n\
         [provider.odd]\napi = \"openai\"\nbase_url = \"http://nothing.invalid\"\n{KEY}\nallow_plain_http = true\n\
         checks = [\"auth\"]\n"
    ));
    let daemon = place.daemon();
    daemon.scrape_until("runs of every probe", |scrape| {
        scrape.values("langmart_probe_runs_total", &[]).iter().all(|runs| *runs >= 1.0)
    });
    (simulator, place, daemon)
}

#[test]
fn promtool_reports_no_problem() {
    if !parts::has(&["promtool"], false) {
        return;
    }
    let (_simulator, _place, daemon) = busy();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(daemon.get("/metrics").body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
}

/// Returns the value of a query. Returns `None` if there is no series.
#[track_caller]
fn value(prometheus: &Prometheus, query: &str) -> Option<f64> {
    prometheus.query(query).first().map(|(_, value)| *value)
}

#[test]
fn real_prometheus_scrapes_the_daemon() {
    if !parts::has(&["prometheus"], false) {
        return;
    }
    let (_simulator, place, daemon) = busy();
    // Rendering takes less than a second on any machine, so a scrape fails only because of its
    // content.
    let prometheus = Prometheus::start(
        &place,
        &format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs: [ {{ job_name: langmart, static_configs: [ {{ targets: [ '{}' ] }} ] }} ]\n",
            daemon.address
        ),
    );
    wait_for("three good scrapes", || (value(&prometheus, "sum_over_time(up[1m])")? >= 3.0).then_some(()));
    assert_eq!(value(&prometheus, "min_over_time(up[1m])"), Some(1.0));
    let targets = prometheus.ask("/api/v1/targets");
    assert_eq!(targets["activeTargets"][0]["lastError"], "", "{targets}");
    assert_eq!(value(&prometheus, "langmart_probe_success{probe=\"openai-auth\"}"), Some(1.0));
    assert_eq!(value(&prometheus, "langmart_probe_success{probe=\"odd-auth\"}"), Some(0.0));
    assert_eq!(value(&prometheus, "langmart_probe_info{probe=\"groq-chat\", team=~\"a.*b\"}"), Some(1.0));
    let rate = "sum by (provider) (rate(langmart_probe_runs_total{provider=\"openai\"}[1m])) > bool 0";
    let quantile =
        "histogram_quantile(0.9, sum by (le) (rate(langmart_probe_duration_seconds_bucket[1m]))) < bool 1";
    let dropped = "sum(scrape_samples_scraped - scrape_samples_post_metric_relabeling)";
    wait_for("a rate over two scrapes", || value(&prometheus, rate).filter(|holds| *holds == 1.0));
    assert_eq!(value(&prometheus, quantile), Some(1.0));
    assert_eq!(value(&prometheus, dropped), Some(0.0));
    let log = prometheus.process.log();
    assert!(!log.contains("level=warn") && !log.contains("level=error"), "{log}");
}
