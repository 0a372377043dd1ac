//! What befalls a machine: the process is stopped, an interface goes down and comes up, the time zone changes.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use langmart_prober::{outcome::rfc3339, simulator::Simulator};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place, records},
    host::{Ask, Host},
    script::good_listener,
    simulate::simulator,
    wait::wait_for,
};

/// Probes of the daemon that is stopped, and how long it is.
const PROBES: u32 = 5;
const STOPPED: Duration = Duration::from_secs(6);

const RUNS: &str = "langmart_probe_runs_total";
const SKIPPED: &str = "langmart_probe_skipped_runs_total";

/// Returns a configuration whose probes run once a second.
fn config(simulator: &Simulator, place: &Place) -> String {
    let probe = |number: u32| {
        let connection = if number.is_multiple_of(2) { "cold" } else { "warm" };
        format!(
            "[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"auth\"\ninterval = \"1s\"\n\
             connection = \"{connection}\"\n"
        )
    };
    let probes: String = (0..PROBES).map(probe).collect();
    format!(
        "{LISTEN}[state]\ndirectory = \"{}\"\n[log]\ndirectory = \"{}\"\n[budget]\ndaily_tokens = 1000000\n\
         [provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = []\n{probes}",
        place.path("state").display(),
        place.path("logs").display(),
        simulator.address()
    )
}

#[test]
fn stopped_process_skips_its_slots_without_fault() {
    let simulator = simulator("");
    let place = Place::new("");
    place.write("config.toml", &config(&simulator, &place));
    let mut daemon = place.daemon();
    daemon.scrape_until("two runs of each", |scrape| scrape.sum(RUNS) >= f64::from(2 * PROBES));
    let (before, begun) = (daemon.scrape(), Instant::now());
    daemon.signal(Signal::STOP);
    thread::sleep(STOPPED);
    daemon.signal(Signal::CONT);
    let after = daemon.scrape_until("two more runs of each", |scrape| {
        scrape.sum(RUNS) >= before.sum(RUNS) + f64::from(3 * PROBES)
    });
    let seconds = begun.elapsed().as_secs_f64();
    let grown = |name: &str| after.sum(name) - before.sum(name);
    let (runs, skipped) = (grown(RUNS), grown(SKIPPED));
    println!("{runs} runs and {skipped} skipped in {seconds:.1} s");
    assert_eq!(after.sum("langmart_probe_failures_total"), 0.0);
    // Every slot is one or the other; at both ends one of each probe may be in flight.
    let due = seconds * f64::from(PROBES);
    let (slack, accounted) = (f64::from(2 * PROBES), runs + skipped);
    assert!(accounted <= due + slack, "a burst: {accounted} slots of {due:.1}");
    assert!(accounted >= due - slack, "lost: {accounted} slots of {due:.1}");
    assert!(skipped >= f64::from(PROBES) * (STOPPED.as_secs_f64() - 2.0), "{skipped} skipped");
    assert_eq!(daemon.get("/-/healthy").body, "healthy\n");
    daemon.stop();
}

/// A process in a machine's network namespace, which stands for the namespace.
fn inhabitant(host: &Host) -> Child {
    let script = "import time\nprint('ready', flush=True)\ntime.sleep(600)";
    let mut child = host.on("python3").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    child
}

#[test]
fn interface_that_goes_down_is_the_networks_until_it_is_up() {
    let (Some(host), Some(mut other)) = (Host::new(), Host::new()) else { return };
    let mut inhabitant = inhabitant(&other);
    host.ip("link add up0 type veth peer name up1");
    host.ip(&format!("link set up1 netns {}", inhabitant.id()));
    for (machine, interface, address) in [(&host, "up0", "10.78.0.1/24"), (&other, "up1", "10.78.0.2/24")] {
        machine.ip(&format!("addr add {address} dev {interface}"));
        machine.ip(&format!("link set {interface} up"));
    }
    other.servers(&serde_json::json!([good_listener("there", "10.78.0.2:8080")]));
    let probe = |connection: &str| {
        format!(
            "[[probe]]\nname = \"{connection}\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"1s\"\n\
             timeout = \"1s\"\nconnection = \"{connection}\"\n"
        )
    };
    let sections = probe("cold") + &probe("warm");
    let ask = Ask { url: "http://10.78.0.2:8080/v1", checks: &[], sections: &sections, ..Ask::default() };
    let mut daemon = host.daemon(&ask.config());
    for _ in 0..2 {
        let seen = wait_for_last(&host, ["cold", "warm"], 0, |record| record["success"] == true);
        host.ip("link set up0 down");
        // A run in flight, or on a kept connection, may have sent its request already.
        let seen = wait_for_last(&host, ["cold", "warm"], seen, |record| record["fault"] == "network");
        host.ip("link set up0 up");
        let seen = wait_for_last(&host, ["cold", "warm"], seen, |record| record["success"] == true);
        println!("{seen} records");
    }
    let failed = host.results("cold").into_iter().filter(|record| record["fault"] == "provider");
    let failed: Vec<Value> = failed.collect();
    assert!(failed.len() <= 2, "more than the run in flight blames the provider: {failed:#?}");
    daemon.stop();
    inhabitant.kill().unwrap();
    inhabitant.wait().unwrap();
}

/// Waits until the last two records of each probe, beyond the first of them all, are so. Returns how many there are.
#[track_caller]
fn wait_for_last(host: &Host, probes: [&str; 2], beyond: usize, is_so: impl Fn(&Value) -> bool) -> usize {
    let are_so = |probe: &str| {
        let records = host.results(probe);
        let new = records.get(beyond..).unwrap_or_default();
        (new.len() >= 2 && new[new.len() - 2..].iter().all(&is_so)).then_some(records.len())
    };
    wait_for("two such consecutive records of each", || {
        probes.iter().map(|probe| are_so(probe)).collect::<Option<Vec<_>>>()?.into_iter().max()
    })
}

/// A time zone (RFC 8536) so many hours east of UTC.
fn zone(hours: i32) -> Vec<u8> {
    let block = |version: u8| {
        let mut block = b"TZif".to_vec();
        block.push(version);
        block.extend([0; 15]);
        for count in [0_u32, 0, 0, 0, 1, 4] {
            block.extend(count.to_be_bytes());
        }
        block.extend((hours * 3600).to_be_bytes());
        block.extend([0, 0]);
        block.extend(b"ABC\0");
        block
    };
    let footer = format!("\nABC{}\n", -hours);
    [block(b'2'), block(b'2'), footer.into_bytes()].concat()
}

/// Returns a moment of now as `date` writes it.
fn date(format: &str) -> String {
    let output = Command::new("date").args(["-u", format]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn time_zone_that_changes_moves_neither_records_nor_the_day() {
    let simulator = simulator("");
    let place = Place::new("");
    let chat = "[[probe]]\nname = \"chat\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"gpt-4o-mini\"\ninterval = \"1s\"\n";
    place.write("config.toml", &(config(&simulator, &place) + chat));
    fs::write(place.path("zone"), zone(0)).unwrap();
    let mut command = place.command("run");
    command.env("TZ", format!(":{}", place.path("zone").display()));
    let mut daemon = Daemon::start(command);
    for zone in [zone(14), zone(-12), b"garbage".to_vec(), zone(0)] {
        fs::write(place.path("zone"), zone).unwrap();
        daemon.reload();
        let (runs, changed) = (daemon.scrape().sum(RUNS), SystemTime::now());
        daemon.scrape_until("runs in that zone", |scrape| scrape.sum(RUNS) >= runs + f64::from(3 * PROBES));
        let (changed, seconds) = (rfc3339(changed), |time: &Value| time.as_str().unwrap()[..19].to_owned());
        let is_later = |record: &&Value| *seconds(&record["time"]) > changed[..19];
        let text = place.files("logs", "results.jsonl");
        let written = records(&text[..text.rfind('\n').map_or(0, |end| end + 1)]);
        let last = written.iter().rev().find(is_later).expect("a record since the change");
        let now = rfc3339(SystemTime::now());
        assert!(*seconds(&last["time"]) <= now[..19], "{last} at {now}");
    }
    assert_eq!(daemon.scrape().sum("langmart_probe_failures_total"), 0.0);
    let (before, log) = (date("+%Y-%m-%d"), daemon.stop());
    let (state, today) = (fs::read_to_string(place.path("state/state.json")).unwrap(), date("+%Y-%m-%d"));
    let is_of_today = [before, today].iter().any(|day| state.contains(&format!("\"day\":\"{day}\"")));
    assert!(is_of_today, "{state}");
    assert!(log.lines().all(|line| line.contains('Z')), "a line without the time in UTC:\n{log}");
}
