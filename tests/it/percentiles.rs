//! Percentiles as a real Prometheus calculates them, compared with the values that were observed.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use langmart_prober::{
    config::Probe,
    health::Health,
    metrics::Metrics,
    outcome::{Api, Check, Fault, Outcome, Reason},
    server::{self, ControlHandles, HttpServer, ServerState},
};
use tokio::sync::mpsc;

use crate::harness::{
    daemon::Place,
    parts,
    probes::{config, probe, provider},
    prometheus::Prometheus,
    random::Random,
    wait::wait_for,
};

/// Number of values of each distribution.
const VALUES: usize = 5000;

/// Uniform numbers above 0 and up to 1.
struct Uniform(Random);

impl Uniform {
    fn draw(&mut self) -> f64 {
        ((self.0.draw() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Draws from the normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.draw().ln()).sqrt() * (std::f64::consts::TAU * self.draw()).cos()
    }

    fn exponential(&mut self) -> f64 {
        -self.draw().ln()
    }
}

type Draw = fn(&mut Uniform) -> f64;

/// Distributions of seconds, with a median between 50 ms and 30 s. The gaps of those with several
/// modes are not at the percentiles that are compared.
const DISTRIBUTIONS: [(&str, Draw); 20] = [
    ("constant 51 ms", |_| 0.051),
    ("constant 152.1 ms, above a classic bound", |_| 0.1521),
    ("constant 1 s, on a classic bound", |_| 1.0),
    ("constant 1.001 s, above a native bound", |_| 1.001),
    ("constant 25.001 s", |_| 25.001),
    ("uniform 0 to 200 ms", |random| 0.2 * random.draw()),
    ("uniform 1 to 2 s", |random| 1.0 + random.draw()),
    ("uniform 5 to 55 s", |random| 5.0 + 50.0 * random.draw()),
    ("normal, mean 400 ms, deviation 20 ms", |random| 0.4 + 0.02 * random.normal()),
    ("normal, mean 3 s, deviation 0.5 s", |random| (3.0 + 0.5 * random.normal()).abs()),
    ("exponential, mean 100 ms", |random| 0.1 * random.exponential()),
    ("exponential, mean 8 s", |random| 8.0 * random.exponential()),
    ("100 ms and exponential, mean 50 ms", |random| 0.1 + 0.05 * random.exponential()),
    ("lognormal, median 300 ms, narrow", |random| 0.3 * (0.1 * random.normal()).exp()),
    ("lognormal, median 700 ms", |random| 0.7 * (0.5 * random.normal()).exp()),
    ("lognormal, median 2 s, wide", |random| 2.0 * (1.2 * random.normal()).exp()),
    ("Pareto from 80 ms, exponent 2", |random| 0.08 / random.draw().sqrt()),
    ("Weibull, shape 1.5, scale 1.2 s", |random| 1.2 * random.exponential().powf(1.0 / 1.5)),
    ("70 % about 200 ms, 30 % about 4 s", |random| {
        let mode = if random.draw() < 0.7 { 0.2 } else { 4.0 };
        mode * (0.1 * random.normal()).exp()
    }),
    ("97 % about 90 ms, 3 % about 30 s", |random| {
        let mode = if random.draw() < 0.97 { 0.09 } else { 30.0 };
        mode * (0.05 * random.normal()).exp()
    }),
];

/// The metrics of a probe for each distribution, served as the daemon serves them.
struct Served {
    server: HttpServer,
    /// Sorted values of each distribution.
    values: Vec<Vec<f64>>,
    _control: (mpsc::Receiver<server::ReloadRequest>, mpsc::Receiver<server::RunRequest>),
}

impl Served {
    fn start() -> Self {
        let numbered = |number| Probe {
            name: format!("d{number:02}"),
            ..probe(provider(Api::Openai, "http://127.0.0.1:1"), Check::Stream)
        };
        let config = config((0..DISTRIBUTIONS.len()).map(numbered).collect());
        let metrics = Arc::new(Metrics::new(SystemTime::now()));
        metrics.configure(&config);
        let mut random = Uniform(Random(20));
        let mut values = Vec::new();
        for (probe, (_, draw)) in config.probes.iter().zip(DISTRIBUTIONS) {
            let series = metrics.series(probe);
            let mut drawn: Vec<f64> = (0..VALUES).map(|_| draw(&mut random)).collect();
            for seconds in &drawn {
                let time = Duration::from_secs_f64(*seconds);
                series.observe(&Outcome {
                    duration: time,
                    time_to_first_token: Some(time),
                    request_id: Some("req-1".to_owned()),
                    ..Outcome::new(SystemTime::now(), Reason::Ok, Fault::None)
                });
            }
            drawn.sort_by(f64::total_cmp);
            values.push(drawn);
        }
        let (reload, reloads) = mpsc::channel(1);
        let (runs, run_requests) = mpsc::channel(1);
        let control = ControlHandles { reload, runs };
        let state =
            ServerState::new(metrics, Arc::default(), Arc::new(Health::new()), control, &config.server);
        let listener = server::bind(config.server.listen).unwrap();
        let server = HttpServer::start(listener, Arc::new(state)).unwrap();
        Self { server, values, _control: (reloads, run_requests) }
    }

    /// Starts a Prometheus that scrapes it with these features.
    fn scraped_by(&self, program: &Path, place: &Place, features: &[&str]) -> Prometheus {
        let configuration = format!(
            "global: {{ scrape_interval: 1s }}\n\
             scrape_configs: [ {{ job_name: langmart, static_configs: [ {{ targets: [ '{}' ] }} ] }} ]\n",
            self.server.address()
        );
        let prometheus = Prometheus::start_program(program, place, &configuration, features);
        wait_for("two good scrapes", || {
            let scrapes = prometheus.query("sum_over_time(up[1m])");
            (scrapes.first()?.1 >= 2.0).then_some(())
        });
        prometheus
    }

    /// Compares a percentile of every distribution with Prometheus' estimate from a selector.
    #[track_caller]
    fn check(&self, prometheus: &Prometheus, selector: &str, quantile: f64, tolerance: f64) {
        let rows = prometheus.query(&format!("histogram_quantile({quantile}, {selector})"));
        assert_eq!(rows.len(), DISTRIBUTIONS.len(), "{selector}");
        let mut worst: f64 = 0.0;
        for (labels, estimate) in rows {
            let number: usize = labels["probe"].as_str().unwrap()[1..].parse().unwrap();
            let rank = (quantile * VALUES as f64).ceil() as usize;
            let truth = self.values[number][rank - 1];
            let error = (estimate / truth - 1.0).abs();
            let (name, _) = DISTRIBUTIONS[number];
            assert!(
                error <= tolerance,
                "{selector}: {quantile} of {name} is {truth}, estimated as {estimate}"
            );
            worst = worst.max(error);
        }
        println!("{selector}: percentile {quantile}, largest error {:.1} %", worst * 100.0);
    }
}

/// Checks that Prometheus has a run of at least so many distributions.
#[track_caller]
fn check_exemplars(prometheus: &Prometheus, name: &str, least: usize) {
    let found = prometheus.ask(&format!("/api/v1/query_exemplars?query={name}&start=0&end=9999999999"));
    let series = found.as_array().unwrap();
    let probes: BTreeSet<&str> =
        series.iter().map(|series| series["seriesLabels"]["probe"].as_str().unwrap()).collect();
    assert!(probes.len() >= least, "{name}: {found}");
    assert_eq!(series[0]["exemplars"][0]["labels"], serde_json::json!({ "request_id": "req-1" }));
}

/// Compares percentiles by a Prometheus with native histograms, then by one without.
fn percentiles_by(program: &Path) {
    let served = Served::start();
    let families = ["langmart_probe_duration_seconds", "langmart_probe_time_to_first_token_seconds"];
    let place = Place::new("");
    let native = served.scraped_by(program, &place, &["native-histograms", "exemplar-storage"]);
    for quantile in [0.5, 0.95, 0.99] {
        for family in families {
            served.check(&native, family, quantile, 0.05);
        }
    }
    // Of a family of native histograms, 3.5 reads exemplars of the first series only.
    check_exemplars(&native, families[0], 1);
    let place = Place::new("");
    let classic = served.scraped_by(program, &place, &["exemplar-storage"]);
    for family in families {
        served.check(&classic, &format!("{family}_bucket"), 0.5, 0.12);
    }
    check_exemplars(&classic, "langmart_probe_duration_seconds_bucket", DISTRIBUTIONS.len());
    for prometheus in [native, classic] {
        let log = prometheus.process.log().to_lowercase();
        assert!(!log.contains("level=warn") && !log.contains("level=error"), "{log}");
    }
}

#[test]
fn percentiles_are_true_in_prometheus() {
    if parts::has(&["prometheus"], false) {
        percentiles_by(Path::new("prometheus"));
    }
}

#[test]
fn percentiles_are_true_in_newer_prometheus() {
    if let Some(program) = parts::tool_path("prometheus3/root/usr/bin/prometheus") {
        percentiles_by(&program);
    }
}
