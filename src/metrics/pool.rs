//! Metrics of pools: availability according to the last runs of the members.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    series::Series,
    text::{self, Header, Kind, Page},
};
use crate::{config::Pool, outcome::Reason};

/// Members of a pool by the result of their last run.
#[derive(Debug, Default, PartialEq)]
struct Standing {
    up: u32,
    down: u32,
    unknown: u32,
    up_weight: f64,
    known_weight: f64,
}

impl Standing {
    fn of(pool: &Pool, series: &BTreeMap<String, Arc<Series>>) -> Self {
        let mut standing = Self::default();
        for member in &pool.members {
            let weight = f64::from(member.weight);
            match series.get(&member.probe).and_then(|series| series.last()) {
                Some(last) if last.reason == Reason::Ok => {
                    standing.up += 1;
                    standing.up_weight += weight;
                    standing.known_weight += weight;
                }
                Some(_) => {
                    standing.down += 1;
                    standing.known_weight += weight;
                }
                None => standing.unknown += 1,
            }
        }
        standing
    }

    /// Returns `None` if no member has run yet.
    fn available_ratio(&self) -> Option<f64> {
        (self.known_weight > 0.0).then(|| self.up_weight / self.known_weight)
    }
}

/// Writes the metrics of all pools, family by family.
pub(super) fn write(pools: &[Pool], series: &BTreeMap<String, Arc<Series>>, page: &mut Page) {
    let standings: BTreeMap<&str, Standing> =
        pools.iter().map(|pool| (pool.name.as_str(), Standing::of(pool, series))).collect();
    page.family(Header {
        name: "langmart_pool_available_ratio",
        kind: Kind::Gauge,
        help: "Share of the pool's weight held by members whose last run succeeded, among members that have run. Absent before the first run.",
    });
    for (name, standing) in &standings {
        if let Some(ratio) = standing.available_ratio() {
            page.sample(&text::labels([("pool", *name)]), ratio);
        }
    }
    page.family(Header {
        name: "langmart_pool_members",
        kind: Kind::Gauge,
        help: "Members by state: up or down according to the last run, unknown before the first run.",
    });
    for (name, Standing { up, down, unknown, .. }) in &standings {
        for (state, count) in [("up", up), ("down", down), ("unknown", unknown)] {
            page.sample(&text::labels([("pool", *name), ("state", state)]), f64::from(*count));
        }
    }
    page.family(Header {
        name: "langmart_pool_member_consecutive_failures",
        kind: Kind::Gauge,
        help: "Consecutive failed runs of the member, up to the last run. Absent before the first run.",
    });
    // Sorted by name, as the other families.
    for (name, members) in pools.iter().map(|pool| (&pool.name, &pool.members)).collect::<BTreeMap<_, _>>() {
        for member in members {
            if let Some(last) = series.get(&member.probe).and_then(|series| series.last()) {
                let labels = text::labels([("pool", name.as_str()), ("probe", &member.probe)]);
                page.sample(&labels, last.streak.failed as f64);
            }
        }
    }
}
