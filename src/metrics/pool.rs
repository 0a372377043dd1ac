//! The series of a pool: how much of it is available, by the last runs of its members.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    series::Series,
    text::{self, Header, Kind, Page},
};
use crate::{config::Pool, outcome::Reason};

/// What the last runs of a pool's members say.
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

    /// `None`: no member has run yet.
    fn available_ratio(&self) -> Option<f64> {
        (self.known_weight > 0.0).then(|| self.up_weight / self.known_weight)
    }
}

/// Writes the series of all pools, family by family.
pub(super) fn write(pools: &[Pool], series: &BTreeMap<String, Arc<Series>>, page: &mut Page) {
    let standings: BTreeMap<&str, Standing> =
        pools.iter().map(|pool| (pool.name.as_str(), Standing::of(pool, series))).collect();
    page.family(Header {
        name: "langmart_pool_available_ratio",
        kind: Kind::Gauge,
        help: "Weight of the members whose last run succeeded over that of those that have run. Absent before the first run.",
    });
    for (name, standing) in &standings {
        if let Some(ratio) = standing.available_ratio() {
            page.sample(&text::labels([("pool", *name)]), ratio);
        }
    }
    page.family(Header {
        name: "langmart_pool_members",
        kind: Kind::Gauge,
        help: "Members by state: up and down by their last run, unknown before the first.",
    });
    for (name, Standing { up, down, unknown, .. }) in &standings {
        for (state, count) in [("up", up), ("down", down), ("unknown", unknown)] {
            page.sample(&text::labels([("pool", *name), ("state", state)]), f64::from(*count));
        }
    }
    page.family(Header {
        name: "langmart_pool_member_failed_runs_in_a_row",
        kind: Kind::Gauge,
        help: "Runs of the member up to the last that failed, whatever the reason, 0 where the last did not. Absent before the first run.",
    });
    // By name, as the others.
    for (name, members) in pools.iter().map(|pool| (&pool.name, &pool.members)).collect::<BTreeMap<_, _>>() {
        for member in members {
            if let Some(last) = series.get(&member.probe).and_then(|series| series.last()) {
                let labels = text::labels([("pool", name.as_str()), ("probe", &member.probe)]);
                page.sample(&labels, last.streak.failed as f64);
            }
        }
    }
}
