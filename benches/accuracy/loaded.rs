//! Under load: first token and duration while busy loops occupy every processor.

use std::{
    error::Error,
    fmt::Write,
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Setting,
    blackbox::Blackbox,
    daemon::{Daemon, Record},
    excess,
    process::{Machine, Running},
    quantile,
    simulator::{Beside, Request},
    table::Table,
};

/// Number of busy loops.
const LOOPS: usize = 4;

/// Number of probes of each kind, each with an interval of a second, and of requests of the peer
/// per second.
const PROBES: u32 = 20;

/// Aims for median and 99th percentile in milliseconds.
const AIMS: [f64; 2] = [0.3, 1.0];

/// A stream with its first token after 50 ms and five more at intervals of 20 ms; a GET request is
/// answered after 50 ms.
const SCENARIO: &str = "[[rule]]\nprovider = \"openai\"\n\
    pace = { first_token = \"50ms\", token = \"20ms\", tokens = 6 }\n\
    [[rule]]\nprovider = \"langmart\"\nfault = \"slow_headers\"\nms = 50\n";

pub(crate) fn print(setting: &Setting<'_>, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let scenario = directory.path().join("scenario.toml");
    let models: Vec<_> = (0..PROBES).map(model).collect();
    fs::write(&scenario, format!("[models]\nopenai = {models:?}\n{SCENARIO}"))?;
    let simulator = Beside::start(&scenario, setting.priority)?;
    let target = format!("http://{}/langmart/health?", simulator.address);
    let _busy = Running::start(
        "the busy loops",
        Command::new(std::env::current_exe()?).args(["--busy", &LOOPS.to_string()]).stdin(Stdio::piped()),
    )?;
    let daemon = Daemon::start(setting.program, &configuration(&simulator)?)?;
    let blackbox = setting.peer.then(|| Blackbox::start(directory.path(), None)).transpose()?;
    let (before, began) = (Machine::now()?.busy, Instant::now());
    let mut peer = Vec::new();
    if let Some(blackbox) = blackbox {
        let schedule = (0..PROBES * setting.seconds).map(|number| {
            (began + Duration::from_secs(1) * number / PROBES, format!("{target}{}", peer_query(number)))
        });
        peer = blackbox.ask("http", schedule.collect())?;
    }
    thread::sleep(Duration::from_secs(setting.seconds.into()).saturating_sub(began.elapsed()));
    let busy = (Machine::now()?.busy - before) / began.elapsed().as_secs_f64();
    let records = daemon.stop()?;
    let requests = simulator.end()?;
    println!("## {LOOPS} busy loops, {busy:.2} cores busy: measured minus served, ms");
    println!("{:<34} {:>6} {:>8} {:>7} {:>7} {:>7} {:>8}", "", "n", "min", "p50", "p90", "p99", "max");
    let streams = Matched::by(&records, &requests, |number| (stream_name(number), model(number)));
    let gets = Matched::by(&records, &requests, |number| (get_name(number), get_query(number)));
    row("first token", &streams.first_token_errors(), Some(table));
    row("duration of a stream", &streams.duration_errors(), Some(table));
    row("duration of a GET request", &gets.duration_errors(), Some(table));
    if setting.peer {
        let requests: Vec<_> = (0..PROBES * setting.seconds)
            .filter_map(|number| requests.iter().find(|request| request.query == peer_query(number)))
            .collect();
        row("the same, blackbox_exporter", &excess(&peer, &requests), None);
    }
    println!(
        "runs that failed: {}; on one side only: {}\n",
        streams.failed + gets.failed,
        streams.lost + gets.lost
    );
    Ok(())
}

fn model(number: u32) -> String {
    format!("m{number:02}")
}

fn stream_name(number: u32) -> String {
    format!("stream-{number}")
}

fn get_name(number: u32) -> String {
    format!("get-{number}")
}

fn get_query(number: u32) -> String {
    format!("ours={number}")
}

fn peer_query(number: u32) -> String {
    format!("peer={number}")
}

fn configuration(simulator: &Beside) -> Result<String, std::fmt::Error> {
    let address = simulator.address;
    let mut text = format!(
        "defaults.interval = \"1s\"\ndefaults.generation.interval = \"1s\"\n\
         [provider.openai]\nbase_url = \"http://{address}/openai/v1\"\napi_key = {{ env = \"BENCH_KEY\" }}\n\
         [provider.langmart]\nbase_url = \"http://{address}/langmart\"\n"
    );
    for number in 0..PROBES {
        writeln!(
            text,
            "[[probe]]\nname = \"{}\"\nprovider = \"openai\"\ncheck = \"stream\"\nmodel = \"{}\"\n\
             [[probe]]\nname = \"{}\"\nprovider = \"langmart\"\ncheck = \"http\"\npath = \"/health?{}\"",
            stream_name(number),
            model(number),
            get_name(number),
            get_query(number)
        )?;
    }
    Ok(text)
}

/// Runs with the requests that they made.
#[derive(Default)]
struct Matched<'a> {
    pairs: Vec<(&'a Record, &'a Request)>,
    failed: usize,
    /// Runs and requests of probes whose numbers differ between the two sides; they are not
    /// compared.
    lost: usize,
}

impl<'a> Matched<'a> {
    /// Matches by probe name, and by the model or query of the probe. Runs of a probe never
    /// overlap, so the k-th run made the k-th request.
    fn by(records: &'a [Record], requests: &'a [Request], of: impl Fn(u32) -> (String, String)) -> Self {
        let mut matched = Self::default();
        for (probe, key) in (0..PROBES).map(of) {
            let runs: Vec<_> = records.iter().filter(|record| record.probe == probe).collect();
            let requests: Vec<_> =
                requests.iter().filter(|request| request.model == key || request.query == key).collect();
            matched.failed += runs.iter().filter(|run| !run.success).count();
            if runs.len() == requests.len() {
                matched.pairs.extend(runs.into_iter().zip(requests).filter(|(run, _)| run.success));
            } else {
                matched.lost += runs.len() + requests.len();
            }
        }
        matched
    }

    fn first_token_errors(&self) -> Vec<f64> {
        let error = |(record, request): &(&Record, &Request)| {
            let served = request.first_token? - request.received;
            Some(record.time_to_first_token_seconds? * 1e3 - served / 1e3)
        };
        self.pairs.iter().filter_map(error).collect()
    }

    fn duration_errors(&self) -> Vec<f64> {
        let (measured, requests): (Vec<_>, Vec<_>) =
            self.pairs.iter().map(|(record, request)| (record.duration_seconds * 1e3, *request)).unzip();
        excess(&measured, &requests)
    }
}

/// Prints the distribution of the errors, with signs at its ends only, and the aims if there is a
/// table.
fn row(what: &str, errors: &[f64], table: Option<&mut Table>) {
    let sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| quantile(&sizes, share));
    let [min, max] = [0.0, 1.0].map(|share| quantile(errors, share));
    println!("{what:<34} {:>6} {min:>8.3} {p50:>7.3} {p90:>7.3} {p99:>7.3} {max:>8.3}", errors.len());
    if let Some(table) = table {
        for (name, figure, aim) in [("p50", p50, AIMS[0]), ("p99", p99, AIMS[1])] {
            table.at_most(&format!("error under load, {what}, {name}"), figure, aim, "ms");
        }
    }
}
