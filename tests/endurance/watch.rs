//! Invariants of each scrape: counters that never decrease, parts that never fail, and sizes that
//! do not grow.

use std::collections::{BTreeMap, HashMap};

use super::line_account::check;
use crate::harness::scrape::Scrape;

const MIB: f64 = 1024.0 * 1024.0;

/// Reasons after which the daemon may not have read the answer.
const UNANSWERED: [&str; 4] = ["timeout", "internal", "disconnected", "proxy"];

/// Resources of the process at a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub resident_mib: f64,
    pub threads: f64,
    pub descriptors: f64,
}

/// All scrapes so far.
#[derive(Default)]
pub struct Watch {
    last: Option<Scrape>,
    held: Vec<(f64, Held)>,
    /// Number of failures by reason.
    pub reasons: BTreeMap<String, f64>,
    pub broken: Vec<String>,
    pub scrapes: u64,
}

impl Watch {
    /// Checks a page of metrics. Returns how many runs of each probe found no answer.
    pub fn page(&mut self, page: &str, now: f64) -> HashMap<String, f64> {
        check(&mut self.broken, "/metrics", page);
        self.scrapes += 1;
        let scrape = Scrape::parse(page);
        if let Some(last) = &self.last {
            let setbacks =
                scrape.setbacks(last).into_iter().filter(|series| !series.contains("probe=\"extra-"));
            self.broken.extend(setbacks.map(|series| format!("a counter fell: {series}")));
        }
        let restarts = scrape.sum("langmart_prober_task_restarts_total");
        if restarts > 0.0 {
            self.broken.push(format!("tasks were restarted: {restarts}"));
        }
        let held = |name: &str| scrape.sum(name);
        self.held.push((
            now,
            Held {
                resident_mib: held("process_resident_memory_bytes") / MIB,
                threads: held("process_threads"),
                descriptors: held("process_open_fds"),
            },
        ));
        self.last = Some(scrape);
        self.reasons.clear();
        let mut unanswered: HashMap<String, f64> = HashMap::new();
        for line in page.lines().filter(|line| line.starts_with("langmart_probe_failures_total{")) {
            let (probe, reason) = (label(line, "probe"), label(line, "reason"));
            let count: f64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
            *self.reasons.entry(reason.to_owned()).or_default() += count;
            if UNANSWERED.contains(&reason) {
                *unanswered.entry(probe.to_owned()).or_default() += count;
            }
        }
        unanswered
    }

    /// Returns the last scrape.
    pub fn last(&self) -> &Scrape {
        self.last.as_ref().expect("there was one before the failures began")
    }

    /// Returns the resources of the process at the last scrape.
    pub fn rest(&self) -> Held {
        self.held[self.held.len() - 1].1
    }

    /// Returns the means of a quarter of the time, counted from 0.
    pub fn quarter(&self, number: u32) -> Held {
        let (from, to) = (self.held[0].0, self.held[self.held.len() - 1].0);
        let quarter = (to - from) / 4.0;
        let (from, to) = (from + quarter * f64::from(number), from + quarter * f64::from(number + 1));
        let held: Vec<_> =
            self.held.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, held)| held).collect();
        let mean = |of: fn(&Held) -> f64| held.iter().map(|held| of(held)).sum::<f64>() / held.len() as f64;
        Held {
            resident_mib: mean(|held| held.resident_mib),
            threads: mean(|held| held.threads),
            descriptors: mean(|held| held.descriptors),
        }
    }
}

/// Returns the value of a label of a series as written.
fn label<'a>(series: &'a str, name: &str) -> &'a str {
    series.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}
