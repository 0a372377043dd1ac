//! What the kept runs come to: quantiles, availability, speed.

use std::{sync::Arc, time::Duration};

use crate::{
    history::Run,
    outcome::{Pair, Reason},
};

/// Over the runs that are kept. `None`: no run says anything of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Of successes and of runs that ended at a deadline, as the metrics have it.
    pub(super) p50: Option<Duration>,
    pub(super) p95: Option<Duration>,
    pub(super) first_token: Option<Duration>,
    pub(super) per_token: Option<Duration>,
    /// The share of runs without fault of gateway, provider or network, but for those while the prober was offline.
    pub(super) availability: Option<f64>,
}

impl Figures {
    pub(super) fn of(runs: &[Arc<Run>]) -> Self {
        let telling =
            |run: &&Arc<Run>| run.success() || matches!(run.reason, Reason::Timeout | Reason::StreamStalled);
        let mut durations: Vec<_> = runs.iter().filter(telling).map(|run| run.duration()).collect();
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

/// The share of runs that are no downtime, of those that say so.
pub(super) fn availability<'a>(runs: impl Iterator<Item = &'a Arc<Run>>) -> Option<f64> {
    let (all, down) = runs
        .filter_map(|run| run.is_downtime())
        .fold((0_u32, 0_u32), |(all, down), is_down| (all + 1, down + u32::from(is_down)));
    (all > 0).then(|| f64::from(all - down) / f64::from(all))
}

/// The middle one; of an even number the lower.
pub(super) fn median(durations: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut durations: Vec<_> = durations.collect();
    durations.sort_unstable();
    quantile(&durations, 0.5)
}

/// The smallest that so large a share of them does not exceed (nearest rank).
fn quantile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// What a gateway adds, over the pairs of which both succeeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Overhead {
    pub(super) gateway: Duration,
    pub(super) direct: Duration,
    /// The median of the differences, in seconds; negative where the gateway is faster.
    pub(super) seconds: f64,
    pub(super) pairs: usize,
}

impl Overhead {
    pub(super) fn of(pairs: &[&Pair]) -> Option<Self> {
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
