//! Runs the bodies of the fuzz targets on damaged examples, within an ordinary test run.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};

#[path = "../../fuzz/bodies.rs"]
mod bodies;

/// Positions and lengths of cuts, and their replacements.
type Cuts = Vec<(Index, usize, Vec<u8>)>;

fn cuts() -> impl Strategy<Value = Cuts> {
    let scrap = prop_oneof![
        vec(any::<u8>(), 0..8),
        prop::sample::select(vec![
            "\"", "{", "}", "[[", "]", "=", "\n\n", "1e999", "-1", "null", "\u{feff}", ": "
        ])
        .prop_map(|scrap| scrap.as_bytes().to_vec()),
    ];
    vec((any::<Index>(), 0..40_usize, scrap), 1..6)
}

fn damaged(example: &[u8], cuts: &Cuts) -> Vec<u8> {
    let mut bytes = example.to_vec();
    for (place, length, scrap) in cuts {
        let start = place.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, scrap.iter().copied());
    }
    bytes
}

/// Runs a number of cases with a damaged example.
fn play(cases: u32, examples: &[Vec<u8>], body: impl Fn(&[u8])) {
    // Reproducible; random cases are left to the fuzzer.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    for example in examples {
        body(example);
    }
    let test = |(example, cuts): (Index, Cuts)| -> TestCaseResult {
        body(&damaged(&examples[example.index(examples.len())], &cuts));
        Ok(())
    };
    runner.run(&(any::<Index>(), cuts()), test).unwrap_or_else(|error| panic!("{error}"));
}

/// Reads the files of these folders of the repository.
fn examples(folders: &[impl AsRef<Path>]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    let files: BTreeSet<_> = files.collect();
    let examples: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(examples.len() > 5);
    examples
}

#[test]
fn damaged_configurations() {
    let mut examples = examples(&["tests/config/bad"]);
    examples.push(fs::read(format!("{}/config.toml.example", env!("CARGO_MANIFEST_DIR"))).unwrap());
    play(3000, &examples, bodies::configuration);
}

#[test]
fn damaged_hints() {
    let examples = [
        "60",
        "0.5",
        "1e3",
        "6m0s",
        "2m59.56s",
        "17.399999999s",
        "37s",
        "1800000000",
        "1800000000000",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "2026-11-22T08:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
        "-1",
    ];
    play(20_000, &examples.map(|example| example.as_bytes().to_vec()), bodies::hints);
}

#[test]
fn damaged_answers() {
    let probes = bodies::probes();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let parents = [fixtures.join("real"), fixtures];
    let entries = parents.iter().flat_map(|parent| fs::read_dir(parent).unwrap());
    let folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    play(1500, &examples(&folders), |bytes| bodies::answers(&probes, bytes));
}

#[test]
fn damaged_counts_of_tokens() {
    let probes = bodies::probes();
    // Of each name a small count and a huge one, then one of each kind.
    let of = |kind: u8, number: u64| -> Vec<u8> {
        (0..13).flat_map(|name| [&[name, kind], number.to_le_bytes().as_slice()].concat()).collect()
    };
    let mut examples: Vec<Vec<u8>> = (0..8).map(|kind| of(kind, 7)).collect();
    examples.extend((0..8).map(|kind| of(kind, u64::MAX)));
    examples.extend((0..8).map(|kind| of(kind, f64::MAX.to_bits())));
    play(3000, &examples, |bytes| bodies::usage(&probes, bytes));
}

#[test]
fn damaged_status_pages() {
    let probes = bodies::probes();
    play(3000, &examples(&["tests/fixtures/status"]), |bytes| bodies::status_page(&probes, bytes));
}

#[test]
fn damaged_records() {
    let line = r#"{"time":"2026-11-22T08:00:00Z","probe":"p","provider":"openai","check":"chat","model":"m","success":false,"reason":"rate_limited","fault":"caller","detail":"d","hint":"h","http_status":429,"error_code":"c","upstream":"u","request_id":"r","duration_seconds":1.25}"#;
    let examples =
        [format!("{line}\n{line}\n"), format!("{line}\n\n{{}}\nnull"), String::new(), "x".repeat(100_000)];
    let files = bodies::RecordFiles::new();
    play(2000, &examples.map(String::into_bytes), |bytes| files.holds(bytes));
}

#[test]
fn damaged_negotiations() {
    let examples = [
        "",
        "text/plain\0gzip",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1\0gzip;q=0",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7\0identity",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8\0*;q=0",
        "*/*;q=nan,,;;q=,text/plain;q=2\0gzip;q=1e999",
    ];
    let listener = bodies::Listener::start();
    play(300, &examples.map(|example| example.as_bytes().to_vec()), |bytes| listener.negotiates(bytes));
}

#[test]
fn damaged_requests() {
    let examples = [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0",
    ];
    let listener = bodies::Listener::start();
    play(300, &examples.map(|example| example.as_bytes().to_vec()), |bytes| listener.hears(bytes));
}
