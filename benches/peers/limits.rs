//! The daemon alone: maximum rate, duration of scrape, start and reload, and size.

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{Bench, Manner, account::quantile, cpu, mebibytes, ours::Ours, page::Page};

/// Runs per second, the last of them more than two cores can do together with the server.
const RATES: [u32; 5] = [100, 1_000, 2_000, 4_000, 8_000];
/// Number of repetitions of start, scrape and reload.
const TIMES: usize = 11;

pub(crate) fn print(bench: &mut Bench<'_>) -> Result<(), Box<dyn Error>> {
    bench.server.hold(Duration::ZERO)?;
    rates(bench)?;
    println!("## Memory, start, scrape, reload");
    for probes in [1, 100, 1_000] {
        rest(bench, probes)?;
    }
    println!("program: {:.1} MiB", fs::metadata(bench.program)?.len() as f64 / f64::from(1 << 20));
    package();
    Ok(())
}

/// The daemon's own counters of its runs.
struct Exported {
    at: Instant,
    cpu: f64,
    lag: Vec<(f64, f64)>,
    runs: f64,
    skipped: f64,
}

impl Exported {
    fn by(ours: &Ours) -> Result<Self, Box<dyn Error>> {
        let (at, cpu) = (Instant::now(), cpu(ours.running.id())?);
        let page = Page::fetch(ours.address)?;
        let sum = |name: &str| page.samples(name).map(|(_, value)| value).sum::<f64>();
        let bucket = |(labels, value): (&str, f64)| {
            let bound = labels.trim_start_matches("le=").trim_matches('"');
            (bound.parse().unwrap_or(f64::INFINITY), value)
        };
        let lag = page.samples("langmart_prober_schedule_lag_seconds_bucket").map(bucket).collect();
        let (runs, skipped) = (sum("langmart_probe_runs_total"), sum("langmart_probe_skipped_runs_total"));
        Ok(Self { at, cpu, lag, runs, skipped })
    }

    /// Returns counters later than `before`. A page is cached for four times its rendering time,
    /// which is long on a busy machine, and two reads of one page would show no runs.
    fn renewed(ours: &Ours, before: &Self) -> Result<Self, Box<dyn Error>> {
        let begin = Instant::now();
        loop {
            let now = Self::by(ours)?;
            if now.runs > before.runs {
                return Ok(now);
            }
            if begin.elapsed() > Duration::from_secs(60) {
                return Err(
                    "the daemon gives the same page for 60 s: the machine is too slow or too busy".into()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the smallest bound of the lag's histogram, in milliseconds, that covers that share
    /// of the runs since then.
    fn lag(&self, since: &Self, share: f64) -> f64 {
        let new: Vec<_> =
            self.lag.iter().zip(&since.lag).map(|(now, then)| (now.0, now.1 - then.1)).collect();
        let all = new.last().map_or(0.0, |last| last.1);
        new.iter().find(|(_, count)| *count >= all * share).map_or(f64::INFINITY, |(bound, _)| bound * 1e3)
    }
}

fn rates(bench: &mut Bench<'_>) -> Result<(), Box<dyn Error>> {
    println!("## Runs a second, http, each probe once a second");
    println!(
        "{:>6} {:>8} {:>8} {:>12} {:>12} {:>14} {:>9}",
        "due/s", "run/s", "skip/s", "lag p50 ≤ ms", "lag p99 ≤ ms", "CPU-s per 1000", "cores"
    );
    for rate in RATES {
        let ours = Ours::start(&bench.load(Manner::Http, rate))?;
        thread::sleep(Duration::from_secs(2));
        let first = Exported::by(&ours)?;
        thread::sleep(Duration::from_secs(bench.seconds.into()));
        let last = Exported::renewed(&ours, &first)?;
        let seconds = (last.at - first.at).as_secs_f64();
        let (runs, cpu) = (last.runs - first.runs, last.cpu - first.cpu);
        let lag = last.lag(&first, 0.99);
        if rate == 1_000 {
            bench.table.at_most("start lag p99 at 1,000 runs a second, bound of its bucket", lag, 5.0, "ms");
        }
        println!(
            "{rate:>6} {:>8.0} {:>8.0} {:>12} {:>12} {:>14.3} {:>9.2}",
            runs / seconds,
            (last.skipped - first.skipped) / seconds,
            last.lag(&first, 0.5),
            lag,
            cpu / runs * 1e3,
            cpu / seconds,
        );
    }
    println!();
    Ok(())
}

/// Scrapes plainly and with gzip. Returns the median times in milliseconds.
fn scrapes(ours: &Ours) -> Result<[f64; 2], Box<dyn Error>> {
    let id = ours.running.id();
    let mut page_times = [0.0; 2];
    for (page_time, (name, gzip)) in page_times.iter_mut().zip([("plain", false), ("gzip", true)]) {
        let (mut bytes, mut times, mut used) = (0, Vec::new(), 0.0);
        for _ in 0..TIMES {
            // A page rendered for another reader would be cached.
            thread::sleep(Duration::from_millis(400));
            let start = cpu(id)?;
            let (length, time) = ours.scrape(gzip)?;
            used += cpu(id)? - start;
            bytes = length;
            times.push(time);
        }
        *page_time = median(times);
        println!(
            "  scrape, {name}: {:.1} ms, {:.2} MB, {:.1} CPU-ms with the probes' own",
            *page_time,
            bytes as f64 / 1e6,
            used / TIMES as f64 * 1e3
        );
    }
    Ok(page_times)
}

fn rest(bench: &mut Bench<'_>, probes: u32) -> Result<(), Box<dyn Error>> {
    let load = bench.load(Manner::Http, probes);
    let mut starts = Vec::new();
    for _ in 0..TIMES {
        starts.push(Ours::start(&load)?.ready_after);
    }
    let ours = Ours::start(&load)?;
    let id = ours.running.id();
    thread::sleep(Duration::from_secs(2));
    let (ready, resting) = (median(starts), mebibytes(id)?);
    let noun = if probes == 1 { "probe" } else { "probes" };
    println!("{probes} {noun}: READY after {ready:.1} ms, then {resting:.1} MiB");
    let quiet = Exported::by(&ours)?;
    thread::sleep(Duration::from_secs(5));
    let before = Exported::renewed(&ours, &quiet)?;
    let page_times = scrapes(&ours)?;
    // After the compressed scrapes, which are Prometheus'. A plain page is resident while it is cached.
    let resident = mebibytes(id)?;
    let after = Exported::renewed(&ours, &before)?;
    let (unscraped, scraped, plain) = (before.lag(&quiet, 0.99), after.lag(&before, 0.99), mebibytes(id)?);
    println!(
        "  lag p99 ≤ {unscraped} ms unscraped, ≤ {scraped} ms scraped; {resident:.1} MiB, with a plain page {plain:.1} MiB"
    );
    let memory = match probes {
        1 => 13.0,
        100 => 24.0,
        _ => 48.0,
    };
    let table = &mut bench.table;
    table.at_most(&format!("resident memory, {probes} {noun}, scraped"), resident, memory, "MiB");
    if probes == 100 {
        table.at_most("READY after the start, 100 probes", ready, 50.0, "ms");
    }
    if probes == 1_000 {
        table.at_most("scrape of 1,000 probes, plain", page_times[0], 30.0, "ms");
        table.at_most("scrape of 1,000 probes, gzip", page_times[1], 100.0, "ms");
        table.at_most("lag p99 while 1,000 are scraped, against without", scraped, unscraped, "ms");
    }
    let mut reloads = Vec::new();
    for _ in 0..TIMES {
        reloads.push(ours.reload()?);
    }
    let reloaded = Exported::renewed(&ours, &after)?;
    println!(
        "  reload: {:.1} ms; lag p99 of the runs meanwhile ≤ {} ms, skipped {}",
        median(reloads),
        reloaded.lag(&after, 0.99),
        reloaded.skipped - after.skipped
    );
    Ok(())
}

/// Prints the size of the package that `packaging/release` has built.
fn package() {
    let Ok(files) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release-files")) else {
        println!("package: not made; packaging/release makes it");
        return;
    };
    for file in files.flatten().filter(|file| file.path().extension().is_some_and(|end| end == "deb")) {
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        println!("package: {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    }
}

fn median(times: Vec<Duration>) -> f64 {
    let mut milliseconds: Vec<_> = times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect();
    milliseconds.sort_unstable_by(f64::total_cmp);
    quantile(&milliseconds, 0.5)
}
