//! Availability of pools according to the last runs of the members.

use std::{collections::BTreeMap, sync::Arc};

use super::{page::Labels, series::Series};
use crate::{config::Pool, outcome::Reason};

/// Members of a pool by the result of their last run.
#[derive(Debug)]
pub(super) struct PoolState {
    /// Label `pool`, rendered.
    pub(super) labels: Labels,
    pub(super) up: u32,
    pub(super) down: u32,
    pub(super) unknown: u32,
    up_weight: f64,
    known_weight: f64,
    /// Consecutive failures of each member that has run, by name.
    pub(super) consecutive_failures: Vec<(String, u64)>,
}

impl PoolState {
    pub(super) fn new(pool: &Pool, series: &BTreeMap<String, Arc<Series>>) -> Self {
        let mut state = Self {
            labels: Labels::new([("pool", pool.name.as_str())]),
            up: 0,
            down: 0,
            unknown: 0,
            up_weight: 0.0,
            known_weight: 0.0,
            consecutive_failures: Vec::new(),
        };
        for member in &pool.members {
            let Some(last) = series.get(&member.probe).and_then(|series| series.last()) else {
                state.unknown += 1;
                continue;
            };
            let weight = f64::from(member.weight);
            state.known_weight += weight;
            if last.reason == Reason::Ok {
                state.up += 1;
                state.up_weight += weight;
            } else {
                state.down += 1;
            }
            state.consecutive_failures.push((member.probe.clone(), last.streak.failed));
        }
        state
    }

    /// Returns the available share by weight. Returns `None` if no member has run yet.
    pub(super) fn available_ratio(&self) -> Option<f64> {
        (self.known_weight > 0.0).then(|| self.up_weight / self.known_weight)
    }
}
