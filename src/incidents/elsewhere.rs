//! The outages in the view of other vantage points.

use std::{collections::HashMap, time::SystemTime};

use super::{
    name::Name,
    outage::{Elsewhere, Outage},
    run::Observed,
};

/// Counts the runs of another prober during outages.
#[derive(Debug)]
pub struct Vantage {
    name: Name,
    /// The outages of each provider, by start.
    windows: HashMap<Name, Vec<Window>>,
    /// Runs and failed runs of each outage.
    counts: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Window {
    start: SystemTime,
    end: SystemTime,
    /// End of the longest window up to this one.
    latest_end: SystemTime,
    outage: usize,
}

impl Vantage {
    /// Creates the counts of outages that are sorted by their starts.
    pub fn new(name: &str, outages: &[Outage], now: SystemTime) -> Self {
        let mut windows: HashMap<Name, Vec<Window>> = HashMap::new();
        for (index, outage) in outages.iter().enumerate() {
            let of_provider = windows.entry(outage.provider.clone()).or_default();
            let (start, end) = (outage.start, outage.end.unwrap_or(now));
            let latest_end = of_provider.last().map_or(end, |last| last.latest_end.max(end));
            of_provider.push(Window { start, end, latest_end, outage: index });
        }
        Self { name: name.into(), windows, counts: vec![(0, 0); outages.len()] }
    }

    /// Counts a run for the outages of its probe at that time.
    pub fn add(&mut self, run: &Observed<'_>, outages: &[Outage]) {
        let Some(is_down) = run.shows_downtime().filter(|_| run.check.addresses_service()) else { return };
        let Some(windows) = self.windows.get(run.provider) else { return };
        let begun = windows.partition_point(|window| window.start <= run.time);
        let recent = windows[..begun].iter().rev().take_while(|window| window.latest_end > run.time);
        for window in recent.filter(|window| window.end > run.time) {
            if outages[window.outage].probes.iter().any(|affected| *affected.probe == *run.probe) {
                let (runs, failed) = &mut self.counts[window.outage];
                *runs += 1;
                *failed += u64::from(is_down);
            }
        }
    }

    /// Adds the counts to the outages.
    pub fn finish(self, outages: &mut [Outage]) {
        for (outage, (runs, failed_runs)) in outages.iter_mut().zip(self.counts) {
            outage.vantage_points.push(Elsewhere { vantage: self.name.clone(), runs, failed_runs });
        }
    }
}
