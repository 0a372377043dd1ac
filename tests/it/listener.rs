//! The listener in the running daemon: what no unit test can take from a process, its descriptors.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use rustix::process::{Resource, Rlimit, prlimit};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    simulate::simulator,
    wait::{PATIENCE, wait_for},
};

fn limit_descriptors(daemon: &Daemon, limit: u64) {
    let limit = Rlimit { current: Some(limit), maximum: Some(20_000) };
    prlimit(Some(daemon.pid()), Resource::Nofile, limit).unwrap();
}

fn descriptors(daemon: &Daemon) -> u64 {
    let directory = format!("/proc/{}/fd", daemon.pid().as_raw_nonzero());
    fs::read_dir(directory).unwrap().count() as u64
}

#[test]
fn it_survives_a_time_without_descriptors() {
    let simulator = simulator("");
    let place = Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"100ms\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n\
         checks = [\"auth\"]\n",
        simulator.address()
    ));
    let mut daemon = place.daemon();
    let before = daemon.scrape_until("a success", |scrape| scrape.sum("langmart_probe_success") == 1.0);
    // None left beyond standard error's, whatever is open now.
    limit_descriptors(&daemon, 3);
    let mut waiting = TcpStream::connect(daemon.address).unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(waiting, "GET /-/ready HTTP/1.0\r\n\r\n").unwrap();
    wait_for("accepting to fail", || (daemon.logged("Connections cannot be accepted") == 1).then_some(()));
    wait_for("the prober to blame itself", || {
        (daemon.logged("reason=internal fault=prober") == 1).then_some(())
    });

    limit_descriptors(&daemon, 1024);
    // Who waited is answered, and so is who comes.
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    wait_for("the log to say so", || (daemon.logged("Connections are accepted again") == 1).then_some(()));
    let after =
        daemon.scrape_until("the probe to recover", |scrape| scrape.sum("langmart_probe_success") == 1.0);
    assert_eq!(after.setbacks(&before), [""; 0]);
    assert!(
        after.value("langmart_probe_failures_total", &[("reason", "internal"), ("fault", "prober")]) >= 1.0
    );
    let log = daemon.stop();
    assert_eq!(log.matches("Connections cannot be accepted").count(), 1, "told once: {log}");
}

#[test]
fn idle_and_broken_connections_do_not_keep_scrapes_out() {
    let simulator = simulator("");
    let place = Place::new(&format!(
        "{LISTEN}[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
        simulator.address()
    ));
    let mut daemon = place.daemon();
    let idle = descriptors(&daemon);
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    for request in ["\r\n", "GET", "nonsense\r\n\r\n", "\u{16}\u{3}\u{1}"] {
        let mut broken = TcpStream::connect(daemon.address).unwrap();
        broken.write_all(request.as_bytes()).unwrap();
    }
    assert_eq!(daemon.get("/-/ready").status, 200);
    assert!(descriptors(&daemon) < idle + 200, "{} of 300 connections are held", descriptors(&daemon) - idle);
    drop(silent);
    wait_for("the connections to be gone", || (descriptors(&daemon) <= idle + 2).then_some(()));
    daemon.stop();
}
