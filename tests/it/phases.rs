//! Each phase of a run, against curl's own timings of the same server in the same run, over a network with known delays.

use std::fs;

use serde_json::Value;

use crate::harness::{daemon::PROBER, lab::Lab, parts};

/// Pairs of runs; of each figure the least counts. On a busy machine more are needed before some run is undisturbed.
const RUNS: usize = 10;
const MAX_RUNS: usize = 80;

/// How far a figure may be from curl's, in milliseconds: below 1 on an idle machine, but curl's handshakes, each in a
/// process of its own, take up to 2 more than ours on a busy one.
const TOLERANCE: f64 = 3.0;

/// Moments since the start, in milliseconds: looked up, connected, TLS done, first byte, last byte.
type Moments = [f64; 5];

const NAMES: [&str; 5] = ["lookup", "connect", "tls", "headers", "end"];

/// 10 ms each way, 15 ms for the name server to think.
fn lab() -> Option<Lab> {
    parts::has(&["ip", "ethtool", "python3", "curl", "tinyproxy"], true).then(|| Lab::start(0.010, 0.015))
}

/// One run of ours, and its HTTP version.
fn ours(lab: &Lab, config: &str) -> (Moments, String) {
    let output = lab
        .on_client(PROBER)
        .args(["once", "--json", "--config", config])
        .env("SIM_KEY", "sk-test")
        .output()
        .unwrap();
    let record: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(record["reason"], "ok", "{record}");
    let phase = |name: &str| record["phases"][name].as_f64().unwrap() * 1e3;
    let mut sum = 0.0;
    let moments = ["resolve", "connect", "tls", "processing", "transfer"].map(|name| {
        sum += phase(name);
        sum
    });
    let duration = record["duration_seconds"].as_f64().unwrap() * 1e3;
    assert!((sum - duration).abs() < 1.0, "the phases sum to {sum} ms, the run took {duration} ms");
    (moments, record["http_version"].as_str().unwrap().to_owned())
}

/// One run of curl's.
fn curls(lab: &Lab, arguments: &[&str], url: &str) -> Moments {
    let format = "%{time_namelookup} %{time_connect} %{time_appconnect} %{time_starttransfer} %{time_total}";
    let mut curl = lab.on_client("curl");
    curl.args(["-sS", "-o", "/dev/null", "-H", "Authorization: Bearer sk-test", "-w", format]);
    let output = curl.args(arguments).arg(url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split(' ').map(|figure| figure.parse::<f64>().unwrap() * 1e3).collect();
    let [lookup, connect, tls, headers, end] = figures.try_into().unwrap();
    // Without TLS curl says 0; then the connection is ready as soon as it stands.
    [lookup, connect, if tls == 0.0 { connect } else { tls }, headers, end]
}

/// The lesser of each: what else the machine does only ever adds to a figure.
fn lesser(one: Moments, other: Moments) -> Moments {
    std::array::from_fn(|index| one[index].min(other[index]))
}

/// Runs both, alternating, and compares the chosen moments.
fn compare(
    lab: &Lab,
    what: &str,
    version: &str,
    provider: &str,
    curl: &[&str],
    url: &str,
    moments: &[usize],
) {
    let path = lab.directory().join("config.toml");
    fs::write(
        &path,
        format!(
            "[provider.sim]\napi = \"openai\"\nbase_url = \"{url}\"\napi_key = {{ env = \"SIM_KEY\" }}\n\
             allow_plain_http = true\nchecks = [\"auth\"]\n{provider}"
        ),
    )
    .unwrap();
    let mut least = ([f64::INFINITY; 5], [f64::INFINITY; 5]);
    let apart = |(ours, curls): (Moments, Moments)| {
        moments.iter().copied().filter(|&index| (ours[index] - curls[index]).abs() > TOLERANCE).count()
    };
    for run in 0..MAX_RUNS {
        if run >= RUNS && apart(least) == 0 {
            break;
        }
        let (moments, spoken) = ours(lab, path.to_str().unwrap());
        assert_eq!(spoken, version, "{what}");
        least.0 = lesser(least.0, moments);
        least.1 = lesser(least.1, curls(lab, curl, &format!("{url}/models")));
    }
    for (name, (ours, curls)) in NAMES.iter().zip(least.0.iter().zip(least.1)) {
        println!("{what:<10} {name:<8} ours {ours:7.2} ms  curl {curls:7.2} ms");
    }
    assert_eq!(
        apart(least),
        0,
        "{what}: figures more than {TOLERANCE} ms apart, ours and curl's: {least:.2?}"
    );
}

#[test]
fn the_phases_are_curls_over_http_1_http_2_and_connect() {
    let Some(mut lab) = lab() else { return };
    let ca = lab.simulator();
    let slow = |fault: &str| format!("headers = {{ \"x-simulate\" = \"{fault}\" }}\n");
    let ca_key = format!("ca_file = \"{ca}\"\n");
    let (headers, body) = ("slow_headers; ms=40", "slow_body; ms=25");
    let (plain, tls) = ("http://slow.sim.test:8080/openai/v1", "https://slow.sim.test:8443/openai/v1");

    for fault in [headers, body] {
        let header = format!("x-simulate: {fault}");
        compare(&lab, "HTTP/1.1", "1.1", &slow(fault), &["-H", &header], plain, &[0, 1, 3, 4]);
        let provider = format!("{}{ca_key}", slow(fault));
        let curl = ["-H", &header, "--http2", "--cacert", &ca];
        compare(&lab, "HTTP/2", "2", &provider, &curl, tls, &[0, 1, 2, 3, 4]);
    }

    lab.tinyproxy(8888, "ConnectPort 8443\n");
    let provider = format!("{}{ca_key}proxy = \"http://proxy.sim.test:8888\"\n", slow(headers));
    let header = format!("x-simulate: {headers}");
    let curl =
        ["-H", &header, "--http2", "--cacert", &ca, "--proxy", "http://proxy.sim.test:8888", "--noproxy", ""];
    // curl counts a proxy as connected before its CONNECT, we after it: the end of TLS is the same. What follows is not:
    // tinyproxy holds a small packet back until the one before is acknowledged, and the two send different ones.
    compare(&lab, "CONNECT", "2", &provider, &curl, tls, &[0, 2]);
}
