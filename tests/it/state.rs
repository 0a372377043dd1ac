//! Tests of persistence across restarts, crashes and damaged files.

use std::{
    env,
    fmt::Write,
    fs, thread,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use langmart_prober::simulator::Simulator;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    random::Random,
    scrape::Scrape,
    simulate::simulator,
    wait::wait_for,
};

/// Default number of kills, if the variable KILLS is not set. Each takes about 0.8 s.
const KILLS: u64 = 20;

/// Number of probes during the kills.
const KILLED_PROBES: u32 = 8;

const STATE: &str = "state/state.json";

/// Returns a Groq probe with state and records.
fn groq(simulator: &Simulator, interval: &str) -> Place {
    let place = Place::new("");
    configure(&place, simulator, interval);
    place
}

fn configure(place: &Place, simulator: &Simulator, interval: &str) {
    let text = format!(
        "{LISTEN}[state]\ndirectory = \"{}\"\n[log]\ndirectory = \"{}\"\n[budget]\n\
         [defaults.generation]\ninterval = \"{interval}\"\n\
         [provider.groq]\nbase_url = \"http://{}/groq/openai/v1\"\n{KEY}\nchecks = []\n\
         [[probe]]\nname = \"groq\"\nprovider = \"groq\"\ncheck = \"chat\"\nmodel = \"llama-3.1-8b-instant\"\n",
        place.path("state").display(),
        place.path("log").display(),
        simulator.address()
    );
    place.write("config.toml", &text);
}

/// Returns the complete records.
fn records(place: &Place) -> Vec<Value> {
    let text = if place.path("log").exists() { place.files("log", "results.jsonl") } else { String::new() };
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn time(text: &Value) -> SystemTime {
    text.as_str().unwrap().parse::<Timestamp>().unwrap().into()
}

fn state(place: &Place) -> Value {
    serde_json::from_str(&fs::read_to_string(place.path(STATE)).unwrap()).unwrap()
}

/// Returns a probe for each of these providers, distinguished by the query of its requests.
fn many(simulator: &Simulator) -> Place {
    let place = Place::new("");
    let mut text = format!(
        "{LISTEN}[state]\ndirectory = \"{}\"\n[log]\ndirectory = \"{}\"\n[defaults.generation]\ninterval = \"100ms\"\n",
        place.path("state").display(),
        place.path("log").display()
    );
    for number in 0..KILLED_PROBES {
        write!(
            text,
            "[provider.p{number}]\napi = \"groq\"\nbase_url = \"http://{}/groq/openai/v1\"\n{KEY}\nchecks = []\n\
             chat_path = \"/chat/completions?p{number}\"\n\
             [[probe]]\nname = \"p{number}\"\nprovider = \"p{number}\"\ncheck = \"chat\"\nmodel = \"llama-3.1-8b-instant\"\n",
            simulator.address()
        )
        .unwrap();
    }
    place.write("config.toml", &text);
    place
}

/// Checks that no record is later than the persisted state of its probe.
#[track_caller]
fn check_no_record_is_ahead(place: &Place, kill: u64) {
    let records = records(place);
    if records.is_empty() {
        return;
    }
    let state = state(place);
    for kept in state["probes"].as_array().unwrap() {
        if let Some(last) = records.iter().rev().find(|record| record["probe"] == kept["probe"]) {
            let ahead = time(&kept["last_run"]) < time(&last["time"]);
            assert!(!ahead, "kill {kill}: {last} is ahead of the state, {kept}");
        }
    }
}

#[test]
fn kill_loses_no_hint_of_a_written_record() {
    let kills = env::var("KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    // Some successes, so that the state changes continuously.
    let rule = "[[rule]]\nfault = \"rate_limited\"\nretry_after = \"1s\"\nprobability = 0.7\n";
    let simulator = simulator(rule);
    let place = many(&simulator);
    // The same time on both clocks: the simulator uses one, the records the other.
    let (instant, wall) = (Instant::now(), SystemTime::now());
    let mut random = Random(20_261_122);
    let mut requests = Vec::new();
    for kill in 0..kills {
        let mut daemon = place.daemon();
        assert!(!daemon.log().contains("State could not be restored"), "{}", daemon.log());
        let moment = random.draw();
        if kill % 2 == 0 {
            thread::sleep(Duration::from_millis(moment % 900));
        } else {
            // Around the end of a run, when state and record are written.
            let begun = Instant::now();
            let asked = || simulator.requests().last().is_some_and(|last| last.head_received > begun);
            wait_for("a request", || asked().then_some(()));
            thread::sleep(Duration::from_micros(moment % 300_000));
        }
        daemon.signal(Signal::KILL);
        daemon.wait();
        check_no_record_is_ahead(&place, kill);
        // Before the simulator drops the oldest.
        let known = requests.last().map(|(at, _)| *at);
        let all = simulator.requests().into_iter();
        let new = all.filter(|request| known.is_none_or(|known| request.head_received > known));
        requests.extend(new.map(|request| (request.head_received, request.query.unwrap_or_default())));
    }
    let records = records(&place);
    let hints = || records.iter().filter(|record| record["retry_after_seconds"] == 1.0);
    for record in hints() {
        let ended =
            time(&record["time"]) + Duration::from_secs_f64(record["duration_seconds"].as_f64().unwrap());
        let until = ended + Duration::from_secs(1);
        // The duration excludes the prober's own work, so the record's own request may seem to come
        // after its end.
        let after = ended + Duration::from_millis(200);
        let early = requests.iter().find(|(at, query)| {
            *query == record["probe"] && (after..until).contains(&(wall + (*at - instant)))
        });
        assert!(early.is_none(), "{early:?} after {record}");
    }
    let count = hints().count() as u64;
    assert!(count > kills, "only {count} hints of {} records", records.len());
    println!(
        "{kills} kills, {} requests, {} records, {count} of them with a hint",
        requests.len(),
        records.len()
    );
}

#[test]
fn backoff_is_kept_and_exported_after_a_restart() {
    let simulator = simulator("[[rule]]\nfault = \"rate_limited\"\nretry_after = \"1h\"");
    let place = groq(&simulator, "2s");
    let until = |scrape: &Scrape| {
        scrape.value("langmart_probe_backoff_until_timestamp_seconds", &[("probe", "groq")])
    };
    let mut daemon = place.daemon();
    let before = until(&daemon.scrape_until("the wait to begin", |scrape| until(scrape) > 0.0));
    daemon.stop();
    let mut daemon = place.daemon();
    let after = until(&daemon.scrape_until("the backoff to be exported", |scrape| until(scrape) > 0.0));
    assert!((after - before).abs() <= 2.1, "{before}, then {after}: at most one slot apart");
    daemon.scrape_until("due times to be passed over", |scrape| {
        let labels = [("probe", "groq"), ("cause", "backoff")];
        scrape.value("langmart_probe_skipped_runs_total", &labels) >= 2.0
    });
    daemon.stop();
    assert_eq!(simulator.requests().len(), 1);
    // A wait beyond max_backoff, which is an hour, is limited.
    let text = fs::read_to_string(place.path(STATE)).unwrap();
    let stated = state(&place)["probes"][0]["backoff"]["until"].as_str().unwrap().to_owned();
    place.write(STATE, &text.replace(&stated, "9999-01-01T00:00:00Z"));
    let daemon = place.daemon();
    let cut = until(&daemon.scrape_until("the backoff to be exported", |scrape| until(scrape) > 0.0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(cut <= now + 3960.0 + 4.0, "{cut} at {now}");
}

#[test]
fn times_of_the_last_runs_are_kept() {
    let simulator = simulator("[[rule]]\ncalls = { from = 2 }\nfault = \"server_error\"");
    let place = groq(&simulator, "2s");
    let mut daemon = place.daemon();
    daemon.scrape_until("two runs", |scrape| {
        scrape.value("langmart_probe_runs_total", &[("probe", "groq")]) >= 2.0
    });
    daemon.stop();
    let kept = state(&place);
    let records = records(&place);
    // A week, so that there is no run after the restart.
    configure(&place, &simulator, "168h");
    let daemon = place.daemon();
    let scrape = daemon.scrape();
    let of = |name: &str| scrape.find(&format!("langmart_probe_{name}"), &[("probe", "groq")]);
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let near = |name: &str, expected: &Value| {
        let difference = of(name).unwrap() - seconds(time(expected));
        assert!(difference.abs() < 0.002, "{name}: {difference}");
    };
    near("last_run_timestamp_seconds", &kept["probes"][0]["last_run"]);
    near("last_run_timestamp_seconds", &records.last().unwrap()["time"]);
    near("last_success_timestamp_seconds", &records[0]["time"]);
    assert_eq!(of("success"), None, "the last run was of another process");
    assert_eq!(of("runs_total"), Some(0.0));
}

#[test]
fn damaged_state_is_set_aside_and_daemon_starts() {
    let simulator = simulator("");
    let place = groq(&simulator, "100ms");
    let mut daemon = place.daemon();
    daemon.scrape_until("a run", |_| daemon.runs("groq") > 0.0);
    daemon.stop();
    let whole = fs::read_to_string(place.path(STATE)).unwrap();
    configure(&place, &simulator, "168h");
    // The unit test tries every length; here some, with the whole daemon.
    let cut = (0..whole.len() - 1).step_by(23).map(|length| whole[..length].to_owned());
    let others = ["{\"version\":99,\"probes\":[]}".to_owned(), "\0".repeat(4096), "[".repeat(9999)];
    for text in cut.chain(others) {
        place.write(STATE, &text);
        let mut daemon = place.daemon();
        assert_eq!(daemon.scrape().find("langmart_probe_last_run_timestamp_seconds", &[]), None);
        let log = daemon.stop();
        assert_eq!(log.matches("State could not be restored").count(), 1, "{text:?}: {log}");
        assert!(log.contains("it was renamed to state.json.damaged-"), "{log}");
        let damaged = fs::read_dir(place.path("state")).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("state.json.damaged-")
        });
        assert_eq!(damaged.count(), 1);
        assert_eq!(state(&place)["version"], 1, "a new file is written");
    }
}

#[test]
fn unwritable_state_directory_is_a_warning() {
    let simulator = simulator("");
    let place = groq(&simulator, "100ms");
    place.write("state", "a file in the place of the directory");
    let mut daemon = place.daemon();
    let scrape = daemon.scrape_until("runs", |_| daemon.runs("groq") > 2.0);
    assert!(scrape.value("langmart_prober_log_write_errors_total", &[("file", "state")]) >= 1.0);
    assert_eq!(scrape.value("langmart_prober_log_write_errors_total", &[("file", "results")]), 0.0);
    let log = daemon.stop();
    assert_eq!(log.matches("Failed to write state").count(), 1, "{log}");
    assert!(records(&place).len() >= 3, "records do not depend on it");
    // The directory is created, and removed while the daemon runs.
    fs::remove_file(place.path("state")).unwrap();
    let daemon = place.daemon();
    for _ in 0..2 {
        wait_for("the state", || place.path(STATE).exists().then_some(()));
        fs::remove_dir_all(place.path("state")).unwrap_or_default();
    }
    wait_for("the state", || place.path(STATE).exists().then_some(()));
    assert!(daemon.runs("groq") >= 0.0);
}

#[test]
fn second_daemon_on_the_same_directory_is_rejected() {
    let simulator = simulator("");
    let place = groq(&simulator, "168h");
    let mut first = place.daemon();
    let second = place.run("run", &[]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    let why =
        format!("state.directory {} is in use by another langmart-prober", place.path("state").display());
    assert!(said.contains(&why), "{said}");
    first.signal(Signal::KILL);
    first.wait();
    place.daemon();
}

#[test]
fn reload_with_another_directory_is_a_warning() {
    let simulator = simulator("");
    let place = groq(&simulator, "168h");
    let text = fs::read_to_string(place.path("config.toml")).unwrap();
    let elsewhere = text.replacen("/state\"", "/elsewhere\"", 1);
    let mut daemon = place.daemon();
    let warned = "Change of state.directory requires a restart";
    for (text, warnings) in [(&elsewhere, 1), (&elsewhere, 2), (&text, 2)] {
        place.write("config.toml", text);
        daemon.reload();
        assert_eq!(daemon.logged(warned), warnings, "{}", daemon.log());
    }
    daemon.stop();
}

#[test]
fn systemd_state_directory_is_the_default() {
    let simulator = simulator("");
    let place = groq(&simulator, "2s");
    let text = fs::read_to_string(place.path("config.toml")).unwrap();
    let (before, after) = text.split_once("[state]").unwrap();
    let (_, after) = after.split_once("[log]").unwrap();
    place.write("config.toml", &format!("{before}[log]{after}"));
    let with_directory = |subcommand: &str| {
        let mut command = place.command(subcommand);
        command.env("STATE_DIRECTORY", place.path("systemds"));
        command
    };
    let mut daemon = Daemon::start(with_directory("run"));
    wait_for("the state", || place.path("systemds/state.json").exists().then_some(()));
    daemon.stop();
    // Commands by hand neither read nor write it.
    place.write("systemds/state.json", "not to be touched");
    for subcommand in ["once", "check-config"] {
        assert!(with_directory(subcommand).output().unwrap().status.success());
    }
    assert_eq!(place.files("systemds", ""), "not to be touched");
}
