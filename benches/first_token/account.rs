//! Compares the prober's measurements with the simulator's writes, stream by stream.

use std::{collections::BTreeMap, error::Error};

use serde::Deserialize;

use super::simulator::Request;

/// Members read from a record.
#[derive(Debug, Deserialize)]
pub(crate) struct Measured {
    time: String,
    model: String,
    reason: String,
    time_to_first_token_seconds: Option<f64>,
}

impl Measured {
    /// Parses records, one per line.
    pub(crate) fn read(lines: &[u8]) -> Result<Vec<Self>, Box<dyn Error>> {
        str::from_utf8(lines)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// Errors of the measurement, and the conditions for it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The prober's time to first token minus the simulator's in milliseconds, in ascending order,
    /// of each stream that counts.
    pub(crate) errors: Vec<f64>,
    /// Difference of the two medians in milliseconds.
    pub(crate) bias: f64,
    /// Maximum number of streams in flight, according to the simulator.
    pub(crate) most_in_flight: usize,
    /// Streams known to only one of the two.
    pub(crate) unmatched: usize,
    /// Runs that failed or had no first token.
    pub(crate) failed: usize,
    /// Mean number of busy cores of the machine.
    pub(crate) busy: f64,
    /// CPU seconds of the daemon per 1,000 streams, including its start. `None` if it was not the
    /// daemon.
    pub(crate) cpu: Option<f64>,
}

impl Account {
    /// Counts streams whose first token was written while at least `least` were in flight,
    /// including itself.
    pub(crate) fn of(
        mut measured: Vec<Measured>,
        streams: &[Request],
        least: usize,
        busy: f64,
    ) -> Result<Self, Box<dyn Error>> {
        let mut account = Self { busy, ..Self::default() };
        let crowd = Crowd::of(streams);
        account.most_in_flight = crowd.most();
        measured.sort_by(|one, other| one.time.cmp(&other.time));
        let mut ours: BTreeMap<&str, Vec<&Measured>> = BTreeMap::new();
        for run in &measured {
            ours.entry(&run.model).or_default().push(run);
        }
        let mut theirs: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
        for stream in streams {
            theirs.entry(&stream.model).or_default().push(stream);
        }
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for (model, theirs) in &theirs {
            // Runs of a probe never overlap, so the k-th of one side is the k-th of the other.
            let ours = ours.remove(model).unwrap_or_default();
            account.unmatched += ours.len().abs_diff(theirs.len());
            for (run, stream) in ours.iter().zip(theirs) {
                let times =
                    (run.time_to_first_token_seconds, stream.time_to_first_token(), stream.first_token);
                let (Some(our), Some(their), Some(at)) = times else {
                    account.failed += 1;
                    continue;
                };
                account.failed += usize::from(run.reason != "ok");
                if crowd.at(at) >= least {
                    our_times.push(our * 1e3);
                    their_times.push(their / 1e3);
                }
            }
        }
        account.unmatched += ours.values().map(Vec::len).sum::<usize>();
        if our_times.is_empty() {
            return Err(format!(
                "of {} streams at most {} were in flight at once",
                streams.len(),
                crowd.most()
            )
            .into());
        }
        account.errors = sorted(our_times.iter().zip(&their_times).map(|(our, their)| our - their).collect());
        account.bias = quantile(&sorted(our_times), 0.5) - quantile(&sorted(their_times), 0.5);
        Ok(account)
    }
}

/// Returns the value below which that share of the ascending values is. Zero without values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Number of streams in flight over time: each from its complete request to its last write.
struct Crowd {
    /// Times, and the number from each on.
    steps: Vec<(f64, usize)>,
}

impl Crowd {
    fn of(streams: &[Request]) -> Self {
        let begun = streams.iter().map(|stream| (stream.received, 1_isize));
        let ended = streams.iter().filter_map(|stream| Some((*stream.writes.last()?, -1)));
        let mut changes: Vec<_> = begun.chain(ended).collect();
        changes.sort_by(|one, other| one.0.total_cmp(&other.0));
        let count = |now: &mut usize, (at, change): (f64, isize)| {
            *now = now.saturating_add_signed(change);
            Some((at, *now))
        };
        Self { steps: changes.into_iter().scan(0, count).collect() }
    }

    fn at(&self, moment: f64) -> usize {
        let next = self.steps.partition_point(|(at, _)| *at <= moment);
        next.checked_sub(1).map_or(0, |last| self.steps[last].1)
    }

    fn most(&self) -> usize {
        self.steps.iter().map(|(_, count)| *count).max().unwrap_or_default()
    }
}
