//! Attacks on the listener, and their effect on the lag of the probes: measured in one run, with
//! and without.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use langmart_prober::simulator::Simulator;
use rustix::{
    param::clock_ticks_per_second,
    process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit},
};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    http,
    scrape::Scrape,
    simulate::simulator,
    wait::wait_for,
};

/// Twenty runs a second, each of which may be five seconds late before it is skipped, more than any
/// machine needs.
const PROBES: u32 = 400;
const INTERVAL: &str = "20s";

/// Number of runs per measurement.
const RUNS: f64 = 50.0;

/// Number of connections of the largest flood, if the limit of descriptors permits.
const FLOOD: u64 = 10_000;

fn place(simulator: &Simulator) -> Place {
    let probe =
        |number| format!("[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"auth\"\n");
    let probes: Vec<_> = (0..PROBES).map(probe).collect();
    Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"{INTERVAL}\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n\
         checks = []\n{}",
        simulator.address(),
        probes.concat()
    ))
}

/// Measurements of some runs.
struct Window {
    /// Mean lag in milliseconds.
    lag: f64,
    /// Processor time of the scheduling thread for [`RUNS`] of them, in milliseconds.
    processor: f64,
}

/// Returns the first successful scrape that meets the condition. During a flood of connections,
/// idle ones are closed, possibly this one; it is retried, as Prometheus does.
fn scrape(daemon: &Daemon, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
    wait_for(what, || {
        let response = http::request(daemon.address, "GET", "/metrics").ok()?;
        (response.status == 200).then(|| Scrape::parse(&response.body)).filter(&is_so)
    })
}

/// Measures some runs, and prints the result.
fn watch(daemon: &Daemon, name: &str) -> Window {
    let (before, processor) = (scrape(daemon, "a scrape to get through", |_| true), processor_time(daemon));
    let after = scrape(daemon, "runs to continue", |scrape| runs(scrape) >= runs(&before) + RUNS);
    let processor = processor_time(daemon) - processor;
    let grown = |name: &str, labels: &[(&str, &str)]| after.value(name, labels) - before.value(name, labels);
    let lag = "langmart_prober_schedule_lag_seconds";
    let count = grown(&format!("{lag}_count"), &[]);
    let processor = processor / count * RUNS;
    let late = 1.0 - grown(&format!("{lag}_bucket"), &[("le", "0.01")]) / count;
    let lag = grown(&format!("{lag}_sum"), &[]) / count * 1e3;
    println!(
        "{name}: {count} runs, lag {lag:.2} ms on average, {:.0} % above 10 ms; their thread ran {processor:.0} ms for {RUNS}",
        late * 100.0
    );
    Window { lag, processor }
}

/// Returns the processor time of the scheduling thread in milliseconds.
fn processor_time(daemon: &Daemon) -> f64 {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid().as_raw_nonzero())).unwrap();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    let name = |stat: &String| stat.contains("(probes)");
    let stat = stats.into_iter().find(name).expect("a thread of that name");
    // See proc_pid_stat(5): the state, which is field 3, follows the name; 14 and 15 are the ticks
    // of user and system.
    let ticks: f64 = stat.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks * 1e3 / clock_ticks_per_second() as f64
}

fn median(windows: &[Window], of: impl Fn(&Window) -> f64) -> f64 {
    let mut values: Vec<f64> = windows.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn runs(scrape: &Scrape) -> f64 {
    scrape.sum("langmart_probe_runs_total")
}

/// Stops an attack when it is dropped, also if a check fails.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An attack on that address, which runs until the flag is set.
type Attack = fn(SocketAddr, &AtomicBool);

fn slow_heads(address: SocketAddr, stop: &AtomicBool) {
    let open = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nx: ").ok()?;
        Some(stream)
    };
    let mut slow: Vec<_> = (0..500).filter_map(|_| open()).collect();
    while !stop.load(Ordering::Relaxed) {
        for stream in &mut slow {
            if stream.write_all(b"y").is_err()
                && let Some(another) = open()
            {
                *stream = another;
            }
        }
    }
}

fn ten_thousand(address: SocketAddr, stop: &AtomicBool) {
    let most = getrlimit(Resource::Nofile).current.map_or(FLOOD, |most| most.saturating_sub(2_000));
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        open.extend(TcpStream::connect(address));
        if open.len() as u64 >= FLOOD.min(most) {
            open.clear();
        }
    }
}

fn endless_line(address: SocketAddr, stop: &AtomicBool) {
    const GIGABYTE: usize = 1 << 30;
    let chunk = vec![b'a'; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.write_all(b"GET /");
        for _ in 0..GIGABYTE / chunk.len() {
            if stop.load(Ordering::Relaxed) || stream.write_all(&chunk).is_err() {
                break;
            }
        }
    }
}

fn pipelining(address: SocketAddr, stop: &AtomicBool) {
    let requests = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(50);
    flood(address, requests.as_bytes(), stop);
}

fn bad_http(address: SocketAddr, stop: &AtomicBool) {
    let nonsense = b"nonsense\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x16\x03\x01";
    flood(address, &nonsense.repeat(50), stop);
}

/// Sends the same bytes repeatedly on new connections, and reads little.
fn flood(address: SocketAddr, bytes: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
        let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
        while !stop.load(Ordering::Relaxed) && stream.write_all(bytes).is_ok() {
            if !stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                break;
            }
        }
    }
}

#[test]
fn attack_delays_no_run() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let simulator = simulator("");
    let place = place(&simulator);
    let mut daemon = place.daemon();
    let before = daemon.scrape();
    let attacks: [(&str, Attack); 5] = [
        ("slow heads", slow_heads),
        ("10,000 connections", ten_thousand),
        ("request lines of a gigabyte", endless_line),
        ("pipelining", pipelining),
        ("bad HTTP", bad_http),
    ];
    // Alternately, so that other load of the machine affects both.
    let mut calm = vec![watch(&daemon, "calm")];
    let mut attacked = Vec::new();
    for (name, attack) in attacks {
        let (stop, address) = (AtomicBool::new(false), daemon.address);
        thread::scope(|scope| {
            scope.spawn(|| {
                // Low priority, because it stands for other machines.
                let _ = setpriority_process(None, 19);
                attack(address, &stop);
            });
            let _stopping = Stopping(&stop);
            attacked.push(watch(&daemon, name));
        });
        assert_eq!(daemon.get("/-/healthy").body, "healthy\n", "{name}");
        calm.push(watch(&daemon, "calm"));
    }
    let after = daemon.scrape();
    assert_eq!(after.sum("langmart_probe_skipped_runs_total"), 0.0);
    assert_eq!(after.sum("langmart_probe_failures_total"), 0.0);
    assert_eq!(after.setbacks(&before), [""; 0]);
    // No run was lost: each is a request of the simulator, except for those that have just begun.
    let asked = simulator.requests().len() as f64;
    assert!(asked >= runs(&after) && runs(&after) >= 11.0 * RUNS, "{asked} requests, {} runs", runs(&after));
    check_noise(&calm, &attacked);
    daemon.stop();
}

/// Checks that lag and processor time under attack exceed the calm ones only by noise. The slack is
/// far above the noise of a machine, and far below the effect of a listener that shares a thread or
/// lock with the probes.
#[track_caller]
fn check_noise(calm: &[Window], attacked: &[Window]) {
    const SLACK: f64 = 250.0;
    let [calm_lag, lag] = [calm, attacked].map(|windows| median(windows, |window| window.lag));
    println!("median of the lag: calm {calm_lag:.2} ms, under attack {lag:.2} ms");
    assert!(lag <= 2.0 * calm_lag + SLACK, "{lag} ms under attack, {calm_lag} ms without");
    let calmest = calm.iter().map(|window| window.processor).fold(f64::INFINITY, f64::min);
    for Window { processor, .. } in attacked {
        assert!(*processor <= 3.0 * calmest + SLACK, "{processor} ms under attack, {calmest} ms without");
    }
}
