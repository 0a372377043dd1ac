//! Tests of the listener in a running daemon that depend on its descriptors.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::ExitStatusExt,
    },
    process::Command,
    thread,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, PROBER, Place},
    parts,
    simulate::simulator,
    wait::{WAIT_TIMEOUT, wait_for},
};
use crate::path_fairness::resident;

fn limit_descriptors(daemon: &Daemon, limit: u64) {
    let limit = Rlimit { current: Some(limit), maximum: Some(20_000) };
    prlimit(Some(daemon.pid()), Resource::Nofile, limit).unwrap();
}

#[test]
fn memory_of_pages_returns_to_the_system() {
    let simulator = simulator("");
    let probes: Vec<_> = (0..1000)
        .map(|number| format!("[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"auth\"\n"))
        .collect();
    let probes = probes.concat();
    let place = Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"5m\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n\
         checks = []\n{probes}",
        simulator.address()
    ));
    // With the defaults of the C library, not with the settings of the unit.
    let daemon = Daemon::start(place.command("run"));
    let before = resident(daemon.pid(), "VmRSS:");
    let mut latest = String::new();
    // Cached pages are reused for a while.
    let pages = [(); 4].map(|()| {
        latest =
            wait_for("another page", || Some(daemon.get("/metrics").body).filter(|page| *page != latest));
        latest.len() as f64 / f64::from(1 << 20)
    });
    assert!(pages[0] > 8.0, "{pages:?} MiB");
    wait_for("the memory of the pages", || {
        (resident(daemon.pid(), "VmRSS:") < before + pages[0] / 2.0).then_some(())
    });
    let peak = resident(daemon.pid(), "VmHWM:") - before;
    assert!(peak < 1.5 * pages[0], "{peak} MiB for pages of {pages:?} MiB");
}

#[test]
fn listener_survives_lack_of_descriptors() {
    let simulator = simulator("");
    let place = Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"100ms\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n\
         checks = [\"auth\"]\n",
        simulator.address()
    ));
    let mut daemon = place.daemon();
    let before = daemon.scrape_until("a success", |scrape| scrape.sum("langmart_probe_success") == 1.0);
    // No descriptors beyond standard error.
    limit_descriptors(&daemon, 3);
    let mut waiting = TcpStream::connect(daemon.address).unwrap();
    waiting.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    write!(waiting, "GET /-/ready HTTP/1.0\r\n\r\n").unwrap();
    wait_for("accepting to fail", || (daemon.logged("Failed to accept connection") == 1).then_some(()));
    wait_for("the prober to blame itself", || {
        (daemon.logged("reason=internal fault=prober") == 1).then_some(())
    });

    limit_descriptors(&daemon, 1024);
    // The waiting client is answered, and so are new ones.
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    wait_for("the log to report it", || (daemon.logged("Accepting connections again") == 1).then_some(()));
    let after =
        daemon.scrape_until("the probe to recover", |scrape| scrape.sum("langmart_probe_success") == 1.0);
    assert_eq!(after.setbacks(&before), [""; 0]);
    assert!(
        after.value("langmart_probe_failures_total", &[("reason", "internal"), ("fault", "prober")]) >= 1.0
    );
    let log = daemon.stop();
    assert_eq!(log.matches("Failed to accept connection").count(), 1, "logged once: {log}");
}

#[test]
fn idle_and_broken_connections_do_not_keep_scrapes_out() {
    let simulator = simulator("");
    let place = Place::new(&format!(
        "{LISTEN}[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
        simulator.address()
    ));
    let mut daemon = place.daemon();
    let idle = daemon.descriptors();
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    for request in ["\r\n", "GET", "nonsense\r\n\r\n", "\u{16}\u{3}\u{1}"] {
        let mut broken = TcpStream::connect(daemon.address).unwrap();
        broken.write_all(request.as_bytes()).unwrap();
    }
    assert_eq!(daemon.get("/-/ready").status, 200);
    assert!(
        daemon.descriptors() < idle + 200,
        "{} of 300 connections are still open",
        daemon.descriptors() - idle
    );
    drop(silent);
    wait_for("the connections to be gone", || (daemon.descriptors() <= idle + 2).then_some(()));
    daemon.stop();
}

/// Number of connections in a flood, if the limit of descriptors permits.
const FLOOD: u64 = 10_000;

/// Starts a daemon with two runs per second, each of which may be four seconds late.
fn probing(simulator: &langmart_prober::simulator::Simulator) -> (Place, Daemon) {
    let probe =
        |number| format!("[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"auth\"\n");
    let place = Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"4s\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n\
         checks = []\n{}",
        simulator.address(),
        (0..8).map(probe).collect::<String>()
    ));
    let daemon = place.daemon();
    (place, daemon)
}

/// Waits for three more runs in time, with a scrape meanwhile.
#[track_caller]
fn check_goes_on(daemon: &Daemon, simulator: &langmart_prober::simulator::Simulator) {
    let (before, asked) = (daemon.scrape(), simulator.requests().len());
    let after = daemon.scrape_until("runs to continue", |scrape| {
        scrape.sum("langmart_probe_runs_total") >= before.sum("langmart_probe_runs_total") + 3.0
    });
    assert!(simulator.requests().len() >= asked + 2, "the simulator saw fewer");
    let failures = |scrape: &crate::harness::scrape::Scrape| scrape.sum("langmart_probe_failures_total");
    assert_eq!(failures(&after), failures(&before));
    assert_eq!(daemon.get("/-/healthy").body, "healthy\n");
}

#[test]
fn idle_connections_and_slow_heads_block_no_client() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let flood = limit.maximum.map_or(FLOOD, |most| FLOOD.min(most.saturating_sub(2_000)));
    assert!(flood > 500, "too few descriptors for a flood: {limit:?}");
    let simulator = simulator("");
    let (_place, mut daemon) = probing(&simulator);
    let idle = daemon.descriptors();
    let mut open = Vec::new();
    for number in 0..flood {
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        if number % 2 == 0 {
            // It may have been closed to make room.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nx: ");
        }
        open.push(stream);
        if number % 2_000 == 1_999 {
            check_goes_on(&daemon, &simulator);
        }
    }
    for stream in open.iter_mut().rev().take(128) {
        let _ = stream.write_all(b"y");
    }
    check_goes_on(&daemon, &simulator);
    assert!(daemon.descriptors() < idle + 200, "{} of {flood} are held", daemon.descriptors() - idle);
    drop(open);
    wait_for("the connections to be gone", || (daemon.descriptors() <= idle + 2).then_some(()));
    daemon.stop();
}

#[test]
fn huge_request_line_is_cut_off() {
    const GIGABYTE: usize = 1 << 30;

    let simulator = simulator("");
    let (_place, mut daemon) = probing(&simulator);
    let resident = || daemon.scrape().sum("process_resident_memory_bytes");
    let before = resident();
    let address = daemon.address;
    let streaming = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let chunk = vec![b'a'; 64 << 10];
        stream.write_all(b"GET /").unwrap();
        let mut sent = 0;
        while sent < GIGABYTE && stream.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        sent
    });
    check_goes_on(&daemon, &simulator);
    let sent = streaming.join().unwrap();
    assert!(sent < GIGABYTE / 10, "{sent} bytes were taken");
    assert!(resident() < before + f64::from(32 << 20), "{before} bytes, then {}", resident());
    daemon.stop();
}

#[test]
fn floods_of_requests_keep_nothing_out() {
    let simulator = simulator("");
    let (_place, mut daemon) = probing(&simulator);
    let address = daemon.address;
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    // Each writes without end and never reads.
    let floods =
        ["HEAD /metrics", "GET /metrics", "GET /", "POST /-/reload", "nonsense", "PRI *"].map(|line| {
            let requests = head(line).repeat(50);
            thread::spawn(move || {
                let mut connections = 0;
                while let Ok(mut stream) = TcpStream::connect(address) {
                    stream.set_write_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
                    connections += 1;
                    for _ in 0..200 {
                        if stream.write_all(requests.as_bytes()).is_err() {
                            break;
                        }
                    }
                }
                connections
            })
        });
    for _ in 0..3 {
        check_goes_on(&daemon, &simulator);
    }
    let log = daemon.stop();
    assert!(!log.contains("panicked") && !log.contains("stuck"), "{log}");
    for flood in floods {
        assert!(flood.join().unwrap() > 0);
    }
}

#[test]
fn core_file_has_no_key() {
    if !parts::has(&["prlimit"], false) {
        return;
    }
    let place = Place::new(LISTEN);
    let mut command = Command::new("prlimit");
    command.args(["--core=unlimited", PROBER, "run", "--config"]).arg(place.path("config.toml"));
    command.current_dir(place.path(""));
    let mut daemon = Daemon::start(command);
    daemon.signal(Signal::ABORT);
    let (status, log) = daemon.wait();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false), "{log}");
}

#[test]
fn process_is_not_readable_by_the_same_user() {
    const NOBODY: u32 = 65_534;

    if !parts::has(&["setpriv"], true) {
        return;
    }
    let place = Place::new(LISTEN);
    // In a directory that that user can read.
    let [program, config] = ["langmart-prober", "config.toml"].map(|name| place.path(name));
    fs::copy(PROBER, &program).unwrap();
    for (path, mode) in [(place.path(""), 0o755), (program.clone(), 0o755), (config.clone(), 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(&program);
    command.args(["run", "--config"]).arg(&config);
    let mut daemon = Daemon::start(command);
    let owner =
        |what: &str| fs::metadata(format!("/proc/{}/{what}", daemon.pid().as_raw_nonzero())).unwrap().uid();
    assert_eq!(owner("environ"), 0, "it is readable");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t")), "{status}");
    let scrape = daemon.scrape();
    for name in [
        "cpu_seconds_total",
        "start_time_seconds",
        "threads",
        "virtual_memory_bytes",
        "resident_memory_bytes",
        "open_fds",
        "max_fds",
    ] {
        assert!(scrape.value(&format!("process_{name}"), &[]) > 0.0, "{name}");
    }
    daemon.stop();
}
