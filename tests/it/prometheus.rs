//! Tests of the metrics with promtool and a real Prometheus.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use langmart_prober::simulator::Simulator;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, PROBER, Place},
    host::Host,
    parts,
    process::Process,
    prometheus::Prometheus,
    simulate::simulator,
    wait::{WAIT_TIMEOUT, wait_for},
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

/// Returns the code block behind the comment of that name on the page about Prometheus.
#[track_caller]
fn documented(name: &str) -> String {
    let page = include_str!("../../docs/guides/prometheus.md");
    let (_, rest) = page.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let (_, block) = rest.split_once('\n').unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn documented_remote_scrape_by_name_works() {
    let Some(host) = parts::has(&["prometheus"], false).then(Host::new).flatten() else { return };
    host.etc("hosts", "127.0.0.1 localhost\n10.77.0.65 prober.example\n");
    let made = rcgen::generate_simple_self_signed(["prober.example".to_owned()]).unwrap();
    let place = Place::new("");
    place.write("tls.crt", &made.cert.pem());
    place.write("tls.key", &made.signing_key.serialize_pem());
    place.write("langmart-prober.password", "wonderland");
    let here = |name: &str| place.path(name).display().to_string();
    let config = documented("remote.toml")
        .replace("/etc/langmart-prober", &here(""))
        .replace("$2y$10$…", &bcrypt::hash("wonderland", 5).unwrap());
    place.write("config.toml", &(config + "[provider.langmart]\nchecks = [\"network\"]\nproxy = \"none\"\n"));
    let mut prober = host.on(PROBER);
    prober.args(["run", "--config", &here("config.toml")]).env("SIM_KEY", "sk-test");
    let mut daemon = Daemon::start(prober);

    let scrape = documented("remote.yml").replace("/etc/prometheus", &here(""));
    place.write("prometheus.yml", &format!("global: {{ scrape_interval: 1s }}\n{scrape}"));
    let mut prometheus = host.on("prometheus");
    prometheus.arg(format!("--config.file={}", here("prometheus.yml")));
    prometheus.arg(format!("--storage.tsdb.path={}", here("tsdb")));
    prometheus.arg("--web.listen-address=127.0.0.1:9090").env("SSL_CERT_FILE", here("tls.crt"));
    let mut prometheus = Process::start(prometheus);
    prometheus.logs("Prometheus to be ready", |log| log.contains("ready to receive").then_some(()));
    let target = wait_for("a scrape", || {
        let answer = host.on("curl").args(["-s", "http://127.0.0.1:9090/api/v1/targets"]).output().unwrap();
        let targets: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        let target = targets["data"]["activeTargets"][0].clone();
        // There is no target before the first discovery.
        (target["health"].as_str()? != "unknown").then_some(target)
    });
    assert_eq!(target["scrapeUrl"], "https://prober.example:10429/metrics", "{target}");
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
    let log = daemon.stop();
    assert!(!log.contains("server.hostnames"), "{log}");
}

#[test]
fn refused_host_is_logged_once_with_remedy() {
    let place =
        Place::new(&format!("{LISTEN}[provider.langmart]\nchecks = [\"network\"]\nproxy = \"none\"\n"));
    let mut daemon = place.daemon();
    let ask = |path: &str, headers: &str| {
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: canary.example\r\nConnection: close\r\n{headers}\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    for path in ["/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(ask(path, ""), "200", "{path}");
        assert_eq!(ask(path, "Accept-Language: en\r\n"), "403", "{path}");
    }
    for _ in 0..3 {
        assert_eq!(ask("/", ""), "403");
    }
    let log = daemon.stop();
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("Request refused")).collect();
    assert_eq!(refusals.len(), 1, "{log}");
    assert!(refusals[0].contains("server.hostnames") && refusals[0].contains("client=127.0.0.1"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}
