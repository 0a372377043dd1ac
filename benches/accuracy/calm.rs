//! Without load: how far the measured duration exceeds the server's own, for all clients in
//! alternation.

use std::{
    error::Error,
    fs, thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Setting, blackbox::Blackbox, daemon::Daemon, excess, floor, page::Page, quantile, simulator::Beside,
    table::Table,
};

/// Delays of the server's answers in milliseconds; the aim applies to one of them.
const HOLDS: [u32; 4] = [0, 5, 50, 500];
const HOLD_WITH_AIM: u32 = 50;

/// Maximum excess of the measured duration over the server's own, in milliseconds.
const MAX_EXCESS: f64 = 0.25;

/// Idle time between two requests in milliseconds, so that no client benefits from the previous
/// one's caches.
const IDLE_MILLISECONDS: u32 = 100;

pub(crate) fn print(setting: &Setting<'_>, table: &mut Table) -> Result<(), Box<dyn Error>> {
    println!(
        "## Calm, in alternation: median of measured minus served, GET over http, the connection included, ms"
    );
    println!("{:<8} {:>5} {:>8} {:>9} {:>17}", "handling", "n", "ours", "blackbox", "blocking sockets");
    for hold in HOLDS {
        let Excess { count, ours, peer, floor } = alternate(setting, hold)?;
        println!("{hold:<8} {count:>5} {ours:>8.3} {peer:>9.3} {floor:>17.3}");
        if hold == HOLD_WITH_AIM {
            let what = format!("excess of the measured duration at {hold} ms");
            table.at_most(&what, ours, MAX_EXCESS, "ms");
            table.at_most(&format!("{what}, of blocking sockets'"), ours / floor, 1.0, "");
        }
    }
    println!();
    Ok(())
}

/// Medians in milliseconds, and the number of requests of each.
struct Excess {
    count: usize,
    ours: f64,
    peer: f64,
    floor: f64,
}

/// Lets the daemon, blocking sockets and the peer send requests in turn, one each per interval.
fn alternate(setting: &Setting<'_>, hold: u32) -> Result<Excess, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let scenario = directory.path().join("scenario.toml");
    let rule =
        if hold == 0 { String::new() } else { format!("[[rule]]\nfault = \"slow_headers\"\nms = {hold}\n") };
    fs::write(&scenario, rule)?;
    let simulator = Beside::start(&scenario, setting.priority)?;
    let address = simulator.address;
    let turn = hold + IDLE_MILLISECONDS;
    let interval = 3 * turn;
    let daemon = Daemon::start(
        setting.program,
        &format!(
            "defaults.interval = \"{interval}ms\"\n[provider.langmart]\nbase_url = \"http://{address}/langmart\"\n\
             [[probe]]\nname = \"{PROBE}\"\nprovider = \"langmart\"\ncheck = \"http\"\npath = \"/health?by=ours\"\n"
        ),
    )?;
    let blackbox = setting.peer.then(|| Blackbox::start(directory.path(), None)).transpose()?;
    let first = next_run(&daemon)?;
    let milliseconds = |count: u32| Duration::from_millis(count.into());
    let times = setting.seconds * 1000 / interval;
    let schedule = |place: u32, url: String| -> Vec<_> {
        let due = |number: u32| first + milliseconds(number * interval + place * turn);
        (0..times).map(|number| (due(number), url.clone())).collect()
    };
    let sockets = schedule(1, "/langmart/health?by=floor".to_owned());
    let blocking = thread::spawn(move || floor::run(address, &sockets));
    let peer = blackbox
        .map(|blackbox| {
            blackbox.ask("http", schedule(2, format!("http://{address}/langmart/health?by=peer")))
        })
        .transpose()?
        .unwrap_or_default();
    let floor = blocking.join().map_err(|_| "the thread of blocking sockets panicked")??;
    let records = daemon.stop()?;
    let requests = simulator.end()?;
    let ours: Vec<_> = records.iter().map(|record| record.duration_seconds * 1e3).collect();
    let median = |measured: &[f64], by: &str| {
        let requests: Vec<_> =
            requests.iter().filter(|request| request.query == format!("by={by}")).collect();
        if requests.len() != measured.len() {
            return Err(format!("{} runs and {} requests by {by}", measured.len(), requests.len()));
        }
        Ok(quantile(&excess(measured, &requests), 0.5))
    };
    Ok(Excess {
        count: floor.len(),
        ours: median(&ours, "ours")?,
        peer: median(&peer, "peer")?,
        floor: median(&floor, "floor")?,
    })
}

const PROBE: &str = "alternating";

/// Returns the time of the daemon's next run, according to its metric.
fn next_run(daemon: &Daemon) -> Result<Instant, Box<dyn Error>> {
    let page = Page::fetch(daemon.address)?;
    let next = page.samples("langmart_probe_next_run_timestamp_seconds").next().ok_or("no next run")?.1;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    // A run that is due now precedes the first turn, which the first request of the others then
    // shares.
    Ok(Instant::now() + Duration::from_secs_f64((next - now).max(0.0)))
}
