//! Tests of `report --incidents` on a month of records whose outages are known, and on the records of
//! a daemon whose simulated services fail as often in two minutes.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    ops::Range,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use langmart_prober::{
    commands::{self, EXIT_OK, Report, ReportFormat},
    config::Environment,
    line_writer::compress,
    outcome::{Api, Check, Fault, Outcome, Reason, Record, Subject, rfc3339},
    records as record_files,
    simulator::{SimulatedService, Simulator},
};
use serde_json::Value;

use crate::harness::{
    daemon::{KEY, LISTEN, Place, records},
    random::Random,
    simulate::{play, simulator},
};

/// Begin of the month: 2026-10-01.
const BEGIN: u64 = 1_790_812_800;
const DAY: u64 = 86_400;
const DAYS: u64 = 31;

/// Interval of every probe. The real one is shorter, which needs more records for the same test.
const INTERVAL: u64 = 300;

/// Number of outages in the script.
const OUTAGES: usize = 30;

/// A probe of the script.
struct Probe {
    name: &'static str,
    provider: &'static str,
    check: Check,
    model: Option<&'static str>,
}

const PROBES: &[Probe] = &[
    Probe { name: "langmart-health", provider: "langmart", check: Check::Health, model: None },
    Probe { name: "langmart-auth", provider: "langmart", check: Check::Auth, model: None },
    Probe { name: "langmart-openai", provider: "langmart", check: Check::Chat, model: Some("openai/gpt-4o") },
    Probe {
        name: "langmart-groq",
        provider: "langmart",
        check: Check::Stream,
        model: Some("groq/gpt-oss-20b"),
    },
    Probe { name: "openai-chat", provider: "openai", check: Check::Chat, model: Some("gpt-4o") },
    Probe { name: "openai-mini", provider: "openai", check: Check::Chat, model: Some("gpt-4o-mini") },
    Probe { name: "groq-auth", provider: "groq", check: Check::Auth, model: None },
    Probe { name: "groq-stream", provider: "groq", check: Check::Stream, model: Some("openai/gpt-oss-20b") },
];

/// What fails in an outage.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cause {
    provider: &'static str,
    fault: Fault,
    reason: Reason,
    upstream: Option<&'static str>,
    /// The only model that fails. `None` for every probe of the provider.
    model: Option<&'static str>,
}

impl Cause {
    const fn new(
        provider: &'static str,
        fault: Fault,
        reason: Reason,
        upstream: Option<&'static str>,
        model: Option<&'static str>,
    ) -> Self {
        Self { provider, fault, reason, upstream, model }
    }
}

/// The causes, in pairs that overlap: two models of a provider, a gateway that hides the provider
/// behind it, and twice two providers.
const CAUSES: &[Cause] = &[
    Cause::new("openai", Fault::Provider, Reason::Overloaded, None, Some("gpt-4o")),
    Cause::new("openai", Fault::Provider, Reason::ServerError, None, Some("gpt-4o-mini")),
    Cause::new("langmart", Fault::Provider, Reason::ServerError, Some("openai"), Some("openai/gpt-4o")),
    Cause::new("langmart", Fault::Gateway, Reason::Unavailable, None, None),
    Cause::new("groq", Fault::Network, Reason::Connect, None, None),
    Cause::new("langmart", Fault::Gateway, Reason::StreamStalled, None, Some("groq/gpt-oss-20b")),
    Cause::new("openai", Fault::Network, Reason::Dns, None, None),
    Cause::new("groq", Fault::Provider, Reason::Disconnected, None, Some("openai/gpt-oss-20b")),
];

/// An outage of the script, in seconds since [`BEGIN`].
#[derive(Clone, Debug)]
struct Scripted {
    cause: Cause,
    time: Range<u64>,
    /// Whether the service recovers for single runs in between.
    flaps: bool,
}

impl Scripted {
    fn affects(&self, probe: &Probe) -> bool {
        probe.provider == self.cause.provider
            && self.cause.model.is_none_or(|model| probe.model == Some(model))
    }

    /// Returns whether the probe fails. A flapping service fails in the first and the last run of
    /// each probe.
    fn fails(&self, probe: &Probe, second: u64) -> bool {
        if !self.affects(probe) || !self.time.contains(&second) {
            return false;
        }
        let is_last = second + INTERVAL >= self.time.end;
        let run = (second - self.time.start) / INTERVAL;
        !self.flaps || run.is_multiple_of(3) || is_last
    }
}

/// Returns thirty outages in pairs, the second of which begins in the middle of the first. Those of
/// one cause are days apart. Each begins and ends at any second.
fn script(random: &mut Random) -> Vec<Scripted> {
    let every = DAYS * DAY / (OUTAGES as u64 + 1);
    let mut outages: Vec<Scripted> = Vec::new();
    for number in 0..OUTAGES {
        let cause = CAUSES[number % CAUSES.len()];
        let length = 10 * INTERVAL + random.draw() % (5 * 3600);
        let regular = every * (number as u64 + 1) - random.draw() % 7200;
        let mut time = regular..regular + length;
        let mut flaps = random.draw().is_multiple_of(3);
        if let Some(first) = outages.last_mut().filter(|_| number % 2 == 1) {
            let middle = first.time.start.midpoint(first.time.end);
            time = middle..middle + length;
            if first.cause.provider == cause.provider && cause.fault < first.cause.fault {
                // It hides the first one, whose end must be visible.
                time.end = time.end.min(first.time.end - 2 * INTERVAL);
                (first.flaps, flaps) = (false, false);
            }
        }
        outages.push(Scripted { cause, time, flaps });
    }
    outages
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN + second)
}

/// Returns the result of a run: by the outage on the lowest layer, if there is any.
fn outcome(script: &[Scripted], probe: &Probe, second: u64) -> Outcome {
    let failing = script.iter().filter(|outage| outage.fails(probe, second));
    let Some(outage) = failing.min_by_key(|outage| outage.cause.fault) else {
        // Failures without an outage: the caller's, the prober's, and those of an offline prober.
        let is_near = |outage: &Scripted| {
            (outage.time.start..outage.time.end + 4 * INTERVAL).contains(&(second + 2 * INTERVAL))
        };
        let (reason, fault, offline) = match second / INTERVAL % 97 {
            _ if script.iter().any(is_near) => (Reason::Ok, Fault::None, false),
            3 => (Reason::RateLimited, Fault::Caller, false),
            50 => (Reason::Internal, Fault::Prober, false),
            70 | 71 => (Reason::Connect, Fault::Network, true),
            _ => (Reason::Ok, Fault::None, false),
        };
        return Outcome { offline, ..Outcome::new(at(second), reason, fault) };
    };
    let Cause { reason, fault, upstream, .. } = outage.cause;
    Outcome {
        upstream,
        request_id: Some(format!("req_{second}")),
        http_status: (fault != Fault::Network).then_some(503),
        duration: Duration::from_millis(120),
        ..Outcome::new(at(second), reason, fault)
    }
}

/// Writes the records of the month, a file for each day.
fn write_month(directory: &Path, script: &[Scripted]) {
    for day in 0..DAYS {
        let mut text = String::new();
        for slot in day * DAY / INTERVAL..(day + 1) * DAY / INTERVAL {
            for (number, probe) in PROBES.iter().enumerate() {
                let second = slot * INTERVAL + number as u64 * INTERVAL / PROBES.len() as u64;
                let Probe { name, provider, check, model } = *probe;
                let subject = Subject { probe: name, provider, check, model };
                let record = Record { subject, outcome: &outcome(script, probe, second) };
                writeln!(text, "{}", serde_json::to_string(&record).unwrap()).unwrap();
            }
        }
        fs::write(file(directory, day), text).unwrap();
    }
    let config = format!("[log]\ndirectory = \"{}\"\n", directory.display());
    fs::write(directory.join("config.toml"), config).unwrap();
}

fn file(directory: &Path, day: u64) -> std::path::PathBuf {
    directory.join(format!("results.jsonl.{}", &rfc3339(at(day * DAY))[..10]))
}

fn packed(directory: &Path, day: u64) -> std::path::PathBuf {
    let name = file(directory, day).file_name().unwrap().to_str().unwrap().to_owned();
    directory.join(name + ".gz")
}

fn ledger(directory: &Path, format: ReportFormat) -> String {
    let variable = |_: &str| None::<OsString>;
    let environment = Environment { variable: &variable, system_roots: &Vec::new };
    let request = Report {
        path: &directory.join("config.toml"),
        incidents: true,
        since: None,
        probe: None,
        provider: None,
        format,
        account: false,
        vantages: &[],
        terminal: false,
        now: at(DAYS * DAY),
        packaged_logs: Path::new("/nonexistent"),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = commands::report(&request, &environment, &mut out, &mut err).unwrap();
    assert_eq!((status, String::from_utf8(err).unwrap()), (EXIT_OK, String::new()));
    String::from_utf8(out).unwrap()
}

fn listing(directory: &Path) -> Value {
    serde_json::from_str(&ledger(directory, ReportFormat::Json)).unwrap()
}

fn second(time: &Value) -> u64 {
    let time: jiff::Timestamp = time.as_str().expect("a time").parse().unwrap();
    time.as_second() as u64 - BEGIN
}

/// Checks that the ledger has the outages of the script, to one probe interval, and no other.
/// Records of `lost` are missing.
#[track_caller]
fn check(listing: &Value, script: &[Scripted], lost: &Range<u64>) {
    let is_known = |outage: &&Scripted| !(lost.start <= outage.time.start && outage.time.end <= lost.end);
    let expected: Vec<_> = script.iter().filter(is_known).collect();
    let mut listed: Vec<&Value> = listing["outages"].as_array().unwrap().iter().collect();
    for scripted in &expected {
        let Cause { provider, fault, upstream, model, reason } = scripted.cause;
        let matches = |outage: &&Value| {
            let affected = outage["probes"].as_array().unwrap().iter();
            let affected: Vec<_> = affected.map(|probe| probe["probe"].as_str().unwrap()).collect();
            let probes = PROBES.iter().filter(|probe| scripted.affects(probe));
            outage["provider"] == provider
                && outage["fault"] == fault.name()
                && outage["upstream"].as_str() == upstream
                && (model.is_none() || outage["models"][0].as_str() == model)
                && probes.map(|probe| probe.name).all(|name| affected.contains(&name))
                && (second(&outage["start"]).abs_diff(scripted.time.start) <= INTERVAL
                    || lost.contains(&scripted.time.start))
                && (second(&outage["end"]).abs_diff(scripted.time.end) <= INTERVAL
                    || lost.contains(&scripted.time.end))
        };
        let found = listed.iter().position(matches);
        let found = found.unwrap_or_else(|| panic!("{scripted:?} is not in {listed:#?}"));
        let outage = listed.remove(found);
        assert_eq!(outage["reasons"][0]["reason"], reason.name());
        assert!(outage["requests"][0]["request_id"].as_str().unwrap().starts_with("req_"), "{outage}");
    }
    // What continues behind the missing records is listed again.
    listed.retain(|outage| {
        !lost.contains(&second(&outage["start"])) && second(&outage["start"]).abs_diff(lost.end) > INTERVAL
    });
    assert_eq!(listed, [&Value::Null; 0], "not in the script");
}

#[test]
fn ledger_of_a_month_agrees_with_its_script() {
    let mut random = Random(21);
    for _ in 0..2 {
        let script = script(&mut random);
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        write_month(directory, &script);
        let plain = listing(directory);
        check(&plain, &script, &(0..0));
        check_downtime(&plain, &script);

        for day in 0..DAYS - 2 {
            compress(&file(directory, day)).unwrap();
        }
        assert_eq!(listing(directory), plain, "compressed");

        // A line of one file is torn, and the second half of another is lost.
        let torn = file(directory, DAYS - 2);
        let text = fs::read(&torn).unwrap();
        let middle = text.len() / 2;
        fs::write(&torn, [&text[..middle], &text[middle + 200..]].concat()).unwrap();
        let day = 9 + random.draw() % 10;
        let cut = packed(directory, day);
        let length = fs::metadata(&cut).unwrap().len();
        fs::File::options().write(true).open(&cut).unwrap().set_len(length / 2).unwrap();
        let mut last = 0;
        let visit = |entry: &record_files::Entry<'_>| {
            let second = entry.time.duration_since(at(0)).unwrap().as_secs();
            last = if second < (day + 1) * DAY { last.max(second) } else { last };
        };
        record_files::read(directory, at(0), visit, |_| ()).unwrap();
        assert!((day * DAY..(day + 1) * DAY).contains(&last), "a part of the day is readable: {last}");
        let damaged = listing(directory);
        check(&damaged, &script, &(last - INTERVAL..(day + 1) * DAY + INTERVAL));
        let name = cut.file_name().unwrap().to_str().unwrap();
        assert_eq!(damaged["damaged_files"], serde_json::json!([name]));
        let skipped = damaged["skipped_lines"].as_u64().unwrap();
        assert!((1..=3).contains(&skipped), "{skipped}");
    }
}

/// Checks the minutes of downtime by fault: those of the script, to one interval at either end of
/// each outage. Runs that succeed in a flapping outage are no downtime.
#[track_caller]
fn check_downtime(listing: &Value, script: &[Scripted]) {
    for month in listing["availability"].as_array().unwrap() {
        for fault in [Fault::Network, Fault::Gateway, Fault::Provider] {
            let of_provider = || script.iter().filter(|outage| outage.cause.provider == month["provider"]);
            let of_fault = || of_provider().filter(|outage| outage.cause.fault == fault);
            let (mut least, mut most) = (0, 0);
            for minute in 0..DAYS * DAY / 60 {
                let is_now = |outage: &Scripted| outage.time.contains(&(minute * 60));
                let hidden = of_provider().any(|outage| outage.cause.fault < fault && is_now(outage));
                least += u64::from(!hidden && of_fault().any(|outage| !outage.flaps && is_now(outage)));
                most += u64::from(of_fault().any(is_now));
            }
            let inaccuracy = (of_provider().count() as u64 * 2 * INTERVAL / 60) as f64;
            let minutes = month["downtime_minutes"][fault.name()].as_f64().unwrap();
            let range = least as f64 - inaccuracy..=most as f64 + inaccuracy;
            assert!(range.contains(&minutes), "{fault}: {range:?}: {month}");
        }
    }
}

#[test]
fn formats_of_the_ledger_have_the_same_outages() {
    let directory = tempfile::tempdir().unwrap();
    let script = script(&mut Random(7));
    write_month(directory.path(), &script);
    let markdown = ledger(directory.path(), ReportFormat::Markdown);
    assert!(
        markdown.starts_with("# Outages from 2026-10-01T00:00:00Z to 2026-11-01T00:00:00Z\n\n30 outages. "),
        "{markdown}"
    );
    let sections = markdown.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(sections, OUTAGES + 1, "and the availability");
    let csv = ledger(directory.path(), ReportFormat::OutagesCsv);
    assert_eq!(csv.lines().count(), OUTAGES + 1);
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns), "{csv}");
    let availability = ledger(directory.path(), ReportFormat::AvailabilityCsv);
    assert_eq!(availability.lines().count(), 4, "a month of three providers: {availability}");
}

/// Number of providers, each with one probe of a model of its own.
const PROVIDERS: usize = 10;

/// Returns the simulated service of a provider.
fn service(provider: usize) -> SimulatedService {
    SimulatedService::ALL[provider % SimulatedService::ALL.len()]
}

/// The simulator's faults, and their reasons.
const FAULTS: [(&str, Reason); 4] = [
    ("unavailable", Reason::Unavailable),
    ("server_error", Reason::ServerError),
    ("gateway_timeout", Reason::GatewayTimeout),
    ("cut_before_headers", Reason::Disconnected),
];

/// An outage of the scenario, in milliseconds since it began.
struct Played {
    provider: usize,
    reason: Reason,
    time: Range<i64>,
    flaps: bool,
}

/// Returns the scenario, and its thirty outages: three of each provider, of which the second recovers
/// for two seconds in between, and a rejected key after each, which is no outage.
fn scenario(random: &mut Random) -> (String, Vec<Played>) {
    let (mut rules, mut outages) = (String::new(), Vec::new());
    let mut rule = |provider: usize, fault: &str, time: Range<i64>| {
        let Range { start, end } = time;
        writeln!(
            rules,
            "[[rule]]\nmodel = \"m{provider}\"\nfault = \"{fault}\"\nafter = \"{start}ms\"\nuntil = \"{end}ms\""
        )
        .unwrap();
    };
    for provider in 0..PROVIDERS {
        let mut end = 0;
        for number in 0..OUTAGES / PROVIDERS {
            let (fault, reason) = FAULTS[(provider + number) % FAULTS.len()];
            let mut about = |least: i64| least + (random.draw() % 4_000).cast_signed();
            let start = end + about(18_000);
            end = start + about(12_000);
            let flaps = number == 1;
            if flaps {
                rule(provider, fault, start..start + 5_000);
                rule(provider, fault, start + 7_000..end);
            } else {
                rule(provider, fault, start..end);
            }
            rule(provider, "auth_failed", end + 8_000..end + 10_000);
            outages.push(Played { provider, reason, time: start..end, flaps });
        }
    }
    let mut models = "[models]\n".to_owned();
    for known in SimulatedService::ALL {
        let own = (0..PROVIDERS).filter(|provider| service(*provider) == known);
        writeln!(
            models,
            "{} = {:?}",
            known.name(),
            own.map(|provider| format!("m{provider}")).collect::<Vec<_>>()
        )
        .unwrap();
    }
    (models + &rules, outages)
}

/// Returns the configuration: a probe of each provider, every two seconds.
fn providers(place: &Place, simulator: &Simulator) -> String {
    let mut config = format!("{LISTEN}[log]\ndirectory = \"{}\"\n", place.path("logs").display());
    for number in 0..PROVIDERS {
        let service = service(number);
        let url = format!("http://{}{}", simulator.address(), service.prefix());
        write!(
            config,
            "[provider.p{number}]\napi = \"{}\"\nbase_url = \"{url}\"\nchecks = []\n{KEY}\n\
             [[probe]]\nname = \"p{number}\"\nprovider = \"p{number}\"\ncheck = \"chat\"\n\
             model = \"m{number}\"\ninterval = \"2s\"\n",
            service.name()
        )
        .unwrap();
    }
    config
}

#[test]
fn ledger_of_a_daemon_agrees_with_its_simulated_services() {
    let (scenario, outages) = scenario(&mut Random(30));
    let simulator = simulator("");
    let place = Place::new("");
    place.write("config.toml", &providers(&place, &simulator));
    let mut daemon = place.daemon();
    let began = SystemTime::now();
    play(&simulator, &scenario);
    // The scenario has times, so that it cannot end earlier.
    let end = outages.iter().map(|outage| outage.time.end).max().unwrap() + 16_000;
    thread::sleep(Duration::from_millis(end.unsigned_abs()));
    daemon.stop();

    let runs: Vec<_> = records(place.files("logs", "results.jsonl"))
        .iter()
        .map(|run| (run["probe"].as_str().unwrap().to_owned(), millisecond(&run["time"], began)))
        .collect();
    let ledger = || -> Value {
        let output = place.run("report", &["--incidents", "--since", "1h", "--json"]);
        assert_eq!(str::from_utf8(&output.stderr), Ok(""));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let listing = ledger();
    check_played(&listing, &outages, &runs, began);

    // As after a rotation on another day.
    let written = fs::read_dir(place.path("logs")).unwrap().map(|entry| entry.unwrap().path());
    for path in written.filter(|path| path.to_str().unwrap().contains("results.jsonl")) {
        compress(&path).unwrap();
    }
    assert_eq!(ledger()["outages"], listing["outages"], "compressed");
}

/// Checks that the ledger has the outages of the scenario, to one run of the probe, and no other.
/// `runs` are probe and millisecond of all runs.
#[track_caller]
fn check_played(listing: &Value, outages: &[Played], runs: &[(String, i64)], began: SystemTime) {
    let mut listed: Vec<&Value> = listing["outages"].as_array().unwrap().iter().collect();
    let mut relapses = 0;
    for Played { provider, reason, time, flaps } in outages {
        let name = format!("p{provider}");
        let fault = Api::from_name(service(*provider).name()).unwrap().endpoint();
        // At most one run of the probe between the script and the ledger.
        let is_near = |listed: &Value, scripted: i64| {
            let listed = millisecond(listed, began);
            let between = listed.min(scripted)..listed.max(scripted);
            runs.iter().filter(|(probe, time)| *probe == name && between.contains(time)).count() <= 1
        };
        let found = listed.iter().position(|outage| {
            outage["provider"] == name
                && outage["fault"] == fault.name()
                && outage["reasons"][0]["reason"] == reason.name()
                && is_near(&outage["start"], time.start)
                && is_near(&outage["end"], time.end)
        });
        let found = found.unwrap_or_else(|| panic!("{name} {reason} {time:?} is not in {listed:#?}"));
        let outage = listed.remove(found);
        let count = outage["relapses"].as_u64().unwrap();
        assert!(*flaps || count == 0, "{outage}");
        relapses += count;
    }
    assert_eq!(listed, [&Value::Null; 0], "not in the script");
    assert!(relapses > 0, "no run of ten saw a recovery of two seconds");
}

/// Returns the milliseconds from `began` to a time of a record.
fn millisecond(time: &Value, began: SystemTime) -> i64 {
    let time: jiff::Timestamp = time.as_str().expect("a time").parse().unwrap();
    time.as_millisecond() - jiff::Timestamp::try_from(began).unwrap().as_millisecond()
}
