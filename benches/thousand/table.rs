//! The printed table, and the guarantees among its figures.

use std::collections::BTreeMap;

use super::{
    Observed,
    account::{Account, quantile},
    page::Page,
    process::Usage,
    setting::Scheme,
};

/// Prints the table of a run. Returns the number of broken guarantees.
pub(crate) fn print(observed: &Observed) -> usize {
    let Observed { scheme, probes, first, last, account, page, .. } = observed;
    let seconds = (last.at - first.at).as_secs_f64();
    println!("## {probes} {} health probes, interval 1 s, {seconds:.1} s", scheme.name());
    let broken = promises(account, page);
    skipped(page);
    time(account, page);
    processor(observed, seconds);
    memory(observed);
    println!();
    broken
}

fn row(name: &str, value: impl AsRef<str>) {
    println!("{name:<34} {}", value.as_ref());
}

/// Prints the rows of guarantees that do not depend on the speed of the machine.
fn promises(account: &Account, page: &Page) -> usize {
    let lines_lost: f64 =
        ["langmart_prober_log_lines_dropped_total", "langmart_prober_log_write_errors_total"]
            .iter()
            .flat_map(|name| page.samples(name))
            .map(|(_, value)| value)
            .sum();
    let promises = [
        ("runs lost (due - run - skipped)", account.lost),
        ("skipped runs counted too many", account.overcounted),
        ("runs twice", account.doubled),
        ("runs that overlap, of one probe", account.overlaps),
        ("runs off the grid", account.off_grid),
        ("records lost", lines_lost as u64),
    ];
    row("due, over by the last scrape", account.due.to_string());
    row("run", account.runs.to_string());
    for (name, count) in promises {
        row(name, if count == 0 { "0".to_owned() } else { format!("{count}  PROMISE BROKEN") });
    }
    if account.records == 0 {
        row("records", "0  PROMISE BROKEN");
    }
    promises.iter().filter(|(_, count)| *count > 0).count() + usize::from(account.records == 0)
}

fn skipped(page: &Page) {
    let causes: BTreeMap<_, _> =
        page.sums("langmart_probe_skipped_runs_total", "cause").into_iter().collect();
    let causes: Vec<_> = causes.iter().map(|(cause, runs)| format!("{cause} {runs}")).collect();
    row("skipped (aim: none)", causes.join(", "));
}

fn time(account: &Account, page: &Page) {
    let Account { deviations, durations, drift: [begin, end], failures, .. } = account;
    let failures: Vec<_> = failures.iter().map(|(reason, runs)| format!("{reason} {runs}")).collect();
    row("failed runs (aim: none)", if failures.is_empty() { "0".to_owned() } else { failures.join(", ") });
    let at = |values: &[f64], share| format!("{:.0}", quantile(values, share));
    row(
        "start after due, by records, ± 1 ms",
        format!(
            "min {}, median {}, p99 {}, max {} ms",
            at(deviations, 0.0),
            at(deviations, 0.5),
            at(deviations, 0.99),
            at(deviations, 1.0)
        ),
    );
    row("the same, median, first/last tenth", format!("{begin:.1}, {end:.1} ms"));
    row("start after due, by metrics", lag(page));
    row(
        "duration of runs, ms",
        format!(
            "median {:.2}, p99 {:.2}, max {:.2}",
            quantile(durations, 0.5),
            quantile(durations, 0.99),
            quantile(durations, 1.0)
        ),
    );
    row("runs in flight, at most", account.most_in_flight.to_string());
}

/// Returns the histogram of the schedule lag, without empty buckets.
fn lag(page: &Page) -> String {
    let mut below = 0.0;
    let mut parts = Vec::new();
    for (labels, value) in page.samples("langmart_prober_schedule_lag_seconds_bucket") {
        let bound = labels.trim_start_matches("le=").trim_matches('"');
        if value > below {
            let bound = bound.parse::<f64>().ok().filter(|bound| bound.is_finite());
            let bound = bound.map_or_else(|| "more".to_owned(), |bound| format!("≤ {} ms", bound * 1e3));
            parts.push(format!("{bound}: {}", value - below));
        }
        below = value;
    }
    parts.join(", ")
}

/// Returns the share of a core of each of the daemon's threads, the largest first.
fn threads(observed: &Observed, seconds: f64) -> String {
    let Observed { first, last, .. } = observed;
    let mut threads: Vec<_> = last
        .daemon
        .threads
        .iter()
        .map(|(name, used)| (used - first.daemon.threads.get(name).copied().unwrap_or_default(), name))
        .collect();
    threads.sort_by(|one, other| other.0.total_cmp(&one.0));
    let threads: Vec<_> =
        threads.iter().map(|(used, name)| format!("{name} {:.1} %", used / seconds * 100.0)).collect();
    threads.join(", ")
}

fn processor(observed: &Observed, seconds: f64) {
    let Observed { scheme, first, last, account, scrapes, page, bare, .. } = observed;
    let runs_a_second = account.begun as f64 / seconds;
    let (user, system) = spent(&first.daemon, &last.daemon);
    let aim = match scheme {
        Scheme::Http => "  (aim: at most 33 %)",
        Scheme::Https => "",
    };
    let share = (user + system) / seconds;
    row(
        "daemon, share of one core",
        format!(
            "{:.1} % ({:.1} user, {:.1} kernel){aim}",
            share * 100.0,
            user / seconds * 100.0,
            system / seconds * 100.0
        ),
    );
    row(
        "daemon, CPU-s per 1,000 runs",
        format!("{:.3} at {runs_a_second:.0} runs a second", share / runs_a_second * 1000.0),
    );
    let bare_cost = bare.seconds / bare.requests as f64;
    row(
        "bare loop, CPU-s per 1,000",
        format!(
            "{:.3} ({} requests); the daemon: {:.2} times that",
            bare_cost * 1000.0,
            bare.requests,
            share / runs_a_second / bare_cost
        ),
    );
    row("daemon, by thread", threads(observed, seconds));
    let slowest = scrapes.iter().max().copied().unwrap_or_default();
    row(
        "scrapes",
        format!(
            "{} of {:.1} MB, the slowest {:.0} ms",
            scrapes.len(),
            page.bytes() as f64 / 1e6,
            slowest.as_secs_f64() * 1e3
        ),
    );
    let (user, system) = spent(&first.simulator, &last.simulator);
    row("simulator, share of one core", format!("{:.1} %", (user + system) / seconds * 100.0));
    let busy = last.machine.busy - first.machine.busy;
    let stolen = last.machine.stolen - first.machine.stolen;
    row(
        "whole machine, cores busy",
        format!("{:.2}, of which taken by other machines {:.2}", busy / seconds, stolen / seconds),
    );
}

fn spent(first: &Usage, last: &Usage) -> (f64, f64) {
    (last.user - first.user, last.system - first.system)
}

fn memory(observed: &Observed) {
    let Observed { first, last, settled, account, .. } = observed;
    let mebibytes = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    row(
        "daemon, resident MiB",
        format!(
            "ready {}, after 10 s {}, end {}, peak {}",
            mebibytes(first.daemon.resident),
            settled.map_or_else(|| "-".to_owned(), mebibytes),
            mebibytes(last.daemon.resident),
            mebibytes(last.daemon.peak)
        ),
    );
    row("daemon, threads", format!("{} → {}", first.daemon.thread_count, last.daemon.thread_count));
    row("daemon, descriptors", format!("{} → {}", first.daemon.descriptors, last.daemon.descriptors));
    row("record, bytes on average", (account.record_bytes / account.records.max(1)).to_string());
}
