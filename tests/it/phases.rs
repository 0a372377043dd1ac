//! Compares each phase of a run with curl's timings of the same server, over a network with known
//! delays.

use std::{fmt::Write as _, fs};

use serde_json::Value;

use crate::harness::{
    daemon::PROBER,
    lab::{Lab, SERVER},
    parts,
};

/// Number of pairs of runs, of which the median is compared; a busy machine needs more of them.
const RUNS: std::ops::RangeInclusive<usize> = 15..=60;

/// Maximum difference from curl in milliseconds.
const TOLERANCE: f64 = 2.0;

/// Phases of a run in milliseconds.
type Phases = [f64; 5];

const NAMES: [&str; 5] = ["resolve", "connect", "tls", "processing", "transfer"];

/// Starts a lab with 10 ms in each direction and 15 ms in the name server.
fn lab() -> Option<Lab> {
    parts::has(&["ip", "ethtool", "python3", "curl"], true).then(|| Lab::start(0.010, 0.015))
}

/// Runs the prober once. Returns the phases and the HTTP version.
fn ours(lab: &Lab, config: &str) -> (Phases, String) {
    let mut prober = lab.on_client(PROBER);
    let output =
        prober.env("SIM_KEY", "sk-test").args(["once", "--json", "--config", config]).output().unwrap();
    let record: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(record["reason"], "ok", "{record}");
    let phases = NAMES.map(|name| record["phases"][name].as_f64().unwrap() * 1e3);
    let (sum, duration) = (phases.iter().sum::<f64>(), record["duration_seconds"].as_f64().unwrap() * 1e3);
    assert!((sum - duration).abs() < 1.0, "the phases sum to {sum} ms, the run took {duration} ms");
    (phases, record["http_version"].as_str().unwrap().to_owned())
}

/// Runs curl once.
fn curls(lab: &Lab, arguments: &[&str], url: &str) -> Phases {
    let format = "%{time_namelookup} %{time_connect} %{time_appconnect} %{time_starttransfer} %{time_total}";
    let mut curl = lab.on_client("curl");
    curl.args(["-sS", "-o", "/dev/null", "-H", "Authorization: Bearer sk-test", "-w", format]);
    let output = curl.args(arguments).arg(url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let moments: Vec<f64> = text.split(' ').map(|moment| moment.parse::<f64>().unwrap() * 1e3).collect();
    let [lookup, connect, tls, headers, end] = moments.try_into().unwrap();
    // Without TLS curl reports 0; then the connection is ready when it is established.
    let tls = if tls == 0.0 { connect } else { tls };
    [lookup, connect - lookup, tls - connect, headers - tls, end - headers]
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Runs both alternately, and compares the median of each phase. `own_work` is the time in
/// milliseconds that curl's handshakes take beyond ours. Returns that time for these runs.
fn compare(
    lab: &Lab,
    what: &str,
    version: &str,
    provider: &str,
    curl: &[&str],
    url: &str,
    own_work: f64,
) -> f64 {
    let path = lab.directory().join("config.toml");
    let config = format!(
        "[provider.sim]\napi = \"openai\"\nbase_url = \"{url}\"\napi_key = {{ env = \"SIM_KEY\" }}\n\
         allow_plain_http = true\nchecks = [\"auth\"]\n{provider}"
    );
    fs::write(&path, config).unwrap();
    let mut figures: Vec<(Phases, Phases)> = Vec::new();
    loop {
        let (mut ours, spoken) = ours(lab, path.to_str().unwrap());
        assert_eq!(spoken, version, "{what}");
        let mut curls = curls(lab, curl, &format!("{url}/models"));
        if what == "CONNECT" {
            // For curl a proxy is connected before CONNECT, for the prober after it; the sum with
            // TLS is the same.
            for phases in [&mut ours, &mut curls] {
                phases[1] += std::mem::take(&mut phases[2]);
            }
        }
        figures.push((ours, curls));
        if figures.len() < *RUNS.start() {
            continue;
        }
        let (table, right) = judge(what, &figures, own_work);
        if right || figures.len() == *RUNS.end() {
            println!("{table}");
            assert!(right, "more than {TOLERANCE} ms apart over {} runs:\n{table}", figures.len());
            let tls = |of: fn(&(Phases, Phases)) -> Phases| {
                median(figures.iter().map(|pair| of(pair)[2]).collect())
            };
            return (tls(|(_, curls)| *curls) - tls(|(ours, _)| *ours)).max(0.0);
        }
    }
}

/// Returns the medians, and whether ours are correct.
fn judge(what: &str, figures: &[(Phases, Phases)], own_work: f64) -> (String, bool) {
    let (mut table, mut right) = (String::new(), true);
    let ours = |index: usize| median(figures.iter().map(|(ours, _)| ours[index]).collect());
    for (index, name) in NAMES.into_iter().enumerate() {
        let curls = median(figures.iter().map(|(_, curls)| curls[index]).collect());
        writeln!(table, "{what:<8} {name:<10} ours {:7.2} ms  curl {curls:7.2} ms", ours(index)).unwrap();
        // curl's handshake includes some of its own work, so ours may be shorter, down to the
        // single round trip of TLS 1.3 and TCP.
        let least = match name {
            "tls" => ours(1).min(curls) - TOLERANCE / 2.0,
            "connect" => curls - own_work - TOLERANCE,
            _ => curls - TOLERANCE,
        };
        right &= (least..=curls + TOLERANCE).contains(&ours(index));
    }
    (table, right)
}

#[test]
fn phases_match_curl_over_http_1_http_2_and_connect() {
    let Some(mut lab) = lab() else { return };
    let ca = lab.simulator();
    let slow = |fault: &str| format!("headers = {{ \"x-simulate\" = \"{fault}\" }}\n");
    let ca_key = format!("ca_file = \"{ca}\"\n");
    let (headers, body) = ("slow_headers; ms=40", "slow_body; ms=25");
    let (plain, tls) = ("http://slow.sim.test:8080/openai/v1", "https://slow.sim.test:8443/openai/v1");

    let mut own_work: f64 = 0.0;
    for fault in [headers, body] {
        let header = format!("x-simulate: {fault}");
        compare(&lab, "HTTP/1.1", "1.1", &slow(fault), &["-H", &header], plain, 0.0);
        let provider = format!("{}{ca_key}", slow(fault));
        let curl = ["-H", &header, "--http2", "--cacert", &ca];
        own_work = own_work.max(compare(&lab, "HTTP/2", "2", &provider, &curl, tls, 0.0));
    }

    let mut proxy = lab.on_server("python3");
    proxy.args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/proxy.py"), SERVER, "8888"]);
    lab.spawn(proxy);
    let provider = format!("{}{ca_key}proxy = \"http://proxy.sim.test:8888\"\n", slow(headers));
    let header = format!("x-simulate: {headers}");
    let curl = ["-H", &header, "--http2", "--cacert", &ca, "--proxy", "http://proxy.sim.test:8888"];
    // curl's own work in the handshake is part of the sum of connect and tls.
    compare(&lab, "CONNECT", "2", &provider, &curl, tls, own_work);
}
