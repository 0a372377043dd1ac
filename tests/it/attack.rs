//! Attacks on the listener, and what they do to the lag of the probes: measured in one run, with and without.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use langmart_prober::simulator::Simulator;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    scrape::Scrape,
    simulate::simulator,
};

/// Twenty runs a second, each of which may be five seconds late before it is skipped: no machine is as busy as that.
const PROBES: u32 = 400;
const INTERVAL: &str = "20s";

/// Runs that are measured at a time.
const RUNS: f64 = 50.0;

/// Connections of the largest flood, where the limit of descriptors of this process allows so many.
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

/// The means of the lag over some runs, in milliseconds, and the share of them that was later than 10 ms.
fn measure(daemon: &Daemon) -> (f64, f64) {
    let before = daemon.scrape();
    let after = daemon.scrape_until("runs to go on", |scrape| runs(scrape) >= runs(&before) + RUNS);
    let grown = |name: &str, labels: &[(&str, &str)]| after.value(name, labels) - before.value(name, labels);
    let lag = "langmart_prober_schedule_lag_seconds";
    let count = grown(&format!("{lag}_count"), &[]);
    let in_time = grown(&format!("{lag}_bucket"), &[("le", "0.01")]);
    (grown(&format!("{lag}_sum"), &[]) / count * 1e3, (count - in_time) / count)
}

fn runs(scrape: &Scrape) -> f64 {
    scrape.sum("langmart_probe_runs_total")
}

/// Goes on until told to stop; it opens its connections at that address.
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

/// Writes the same over and over, on ever new connections, and reads little of what comes.
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
fn under_attack_every_run_begins_and_the_lag_is_told_with_and_without() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let simulator = simulator("");
    let place = place(&simulator);
    let mut daemon = place.daemon();
    let before = daemon.scrape();
    let (calm, late) = measure(&daemon);
    println!("calm: lag {calm:.2} ms on average, {:.0} % above 10 ms", late * 100.0);
    let attacks: [(&str, Attack); 5] = [
        ("slow heads", slow_heads),
        ("10,000 connections", ten_thousand),
        ("request lines of a gigabyte", endless_line),
        ("pipelining", pipelining),
        ("bad HTTP", bad_http),
    ];
    for (name, attack) in attacks {
        let (stop, address) = (AtomicBool::new(false), daemon.address);
        thread::scope(|scope| {
            scope.spawn(|| {
                // It stands for other machines, which take none of this one's time.
                let _ = setpriority_process(None, 19);
                attack(address, &stop);
            });
            let (lag, late) = measure(&daemon);
            stop.store(true, Ordering::Relaxed);
            println!("{name}: lag {lag:.2} ms on average, {:.0} % above 10 ms", late * 100.0);
        });
        assert_eq!(daemon.get("/-/healthy").body, "healthy\n", "{name}");
    }
    let after = daemon.scrape();
    let (lag, late) = measure(&daemon);
    println!("calm again: lag {lag:.2} ms on average, {:.0} % above 10 ms", late * 100.0);
    assert_eq!(after.sum("langmart_probe_skipped_runs_total"), 0.0);
    assert_eq!(after.sum("langmart_probe_failures_total"), 0.0);
    assert_eq!(after.setbacks(&before), [""; 0]);
    // None was lost: each is one request of the simulator's, where those that have just begun are not counted yet.
    let asked = simulator.requests().len() as f64;
    assert!(asked >= runs(&after) && runs(&after) >= 6.0 * RUNS, "{asked} requests, {} runs", runs(&after));
    daemon.stop();
}
