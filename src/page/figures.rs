//! Statistics of the runs in memory: quantiles, availability, speed.

use std::{sync::Arc, time::Duration};

use crate::{history::Run, outcome::Pair};

/// Statistics of runs. A figure is `None` if no run has the value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Over successful runs and runs that hit a deadline, like the metrics.
    pub(super) p50: Option<Duration>,
    pub(super) p95: Option<Duration>,
    pub(super) first_token: Option<Duration>,
    pub(super) per_token: Option<Duration>,
    /// Share of runs without a fault of gateway, provider or network; runs while the prober was
    /// offline are excluded.
    pub(super) availability: Option<f64>,
}

impl Figures {
    pub(super) fn new(runs: &[Arc<Run>]) -> Self {
        let timed = runs.iter().filter(|run| run.reason.info().is_timed);
        let mut durations: Vec<_> = timed.map(|run| run.duration()).collect();
        durations.sort_unstable();
        Self {
            p50: quantile(&durations, 0.5),
            p95: quantile(&durations, 0.95),
            first_token: median(runs.iter().filter_map(|run| run.first_token())),
            per_token: median(runs.iter().filter_map(|run| run.per_token())),
            availability: availability(runs.iter()),
        }
    }
}

/// Returns the share of runs without downtime, or `None` if no run is conclusive.
pub(super) fn availability<'a>(runs: impl Iterator<Item = &'a Arc<Run>>) -> Option<f64> {
    let (all, down) = runs
        .filter_map(|run| run.is_downtime())
        .fold((0_u32, 0_u32), |(all, down), is_down| (all + 1, down + u32::from(is_down)));
    (all > 0).then(|| f64::from(all - down) / f64::from(all))
}

/// Returns the median; the lower one of an even number.
pub(super) fn median(durations: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut durations: Vec<_> = durations.collect();
    durations.sort_unstable();
    quantile(&durations, 0.5)
}

/// Returns the quantile by the nearest-rank method.
fn quantile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The overhead of a gateway, over pairs of successful runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Overhead {
    pub(super) gateway: Duration,
    pub(super) direct: Duration,
    /// Median of the differences in seconds; negative if the gateway is faster.
    pub(super) seconds: f64,
    pub(super) pairs: usize,
}

impl Overhead {
    pub(super) fn new(pairs: &[&Pair]) -> Option<Self> {
        let good: Vec<_> =
            pairs.iter().filter(|pair| pair.verdict() == crate::outcome::PairVerdict::Ok).collect();
        let mut differences: Vec<f64> = good
            .iter()
            .map(|pair| pair.gateway.duration.as_secs_f64() - pair.direct.duration.as_secs_f64())
            .collect();
        differences.sort_by(f64::total_cmp);
        Some(Self {
            gateway: median(good.iter().map(|pair| pair.gateway.duration))?,
            direct: median(good.iter().map(|pair| pair.direct.duration))?,
            seconds: *differences.get((differences.len() - 1) / 2)?,
            pairs: good.len(),
        })
    }
}
