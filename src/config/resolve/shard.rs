//! `[shard]`: the part of the file's probes that belongs to this daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use super::{
    context::{Context, Placed},
    values::source,
};
use crate::config::{
    environment::Keys,
    model::{Budget, Comparison, KeySource, Pool, Shard},
    problem::{Place, Report},
    raw::Section,
};

/// Range of the number of daemons that share a file.
const TOTALS: RangeInclusive<u32> = 1..=1_000;

/// Reads the shard of a file. Returns `None` if the whole file belongs to this daemon.
pub(super) fn shard(root: &mut Section<'_>, context: &Context<'_>) -> Option<Shard> {
    let written = root.has("shard");
    let mut section = root.section("shard");
    for key in ["index", "total"] {
        if section.is_table() && !section.has(key) {
            section.problem(
                key,
                "is missing; set total to the number of daemons, and index to 0 up to total - 1",
            );
        }
    }
    let total = section.number("total", &TOTALS);
    // An invalid total must not make the index invalid, too.
    let indexes = 0..=total.unwrap_or(*TOTALS.end()) - 1;
    let by_variable = section.value("index").is_some_and(|value| value.as_table().is_some());
    let index = if by_variable {
        index_by_variable(&mut section, &indexes, context)
    } else {
        section.number("index", &indexes)
    };
    section.finish();
    written.then_some(Shard { index: index?, total: total? })
}

/// Reads `index = { env = "VARIABLE" }`, which allows all daemons to share one file. Returns `None`
/// if it is invalid, which is reported, or not read.
fn index_by_variable(
    section: &mut Section<'_>,
    indexes: &RangeInclusive<u32>,
    context: &Context<'_>,
) -> Option<u32> {
    let variable = match source(section.section("index"), context.report)? {
        KeySource::Env(variable) => variable,
        KeySource::File(_) | KeySource::Credential(_) => {
            section.problem("index", "must be a whole number or { env = \"VARIABLE\" }");
            return None;
        }
    };
    if context.keys == Keys::Skipped {
        return None;
    }
    let Some(text) = (context.environment.variable)(&variable) else {
        section.problem(
            "index",
            format!("environment variable {variable} is not set; set it to this daemon's index"),
        );
        return None;
    };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| indexes.contains(number));
    if number.is_none() {
        let range = format!("{} to {}", indexes.start(), indexes.end());
        section
            .problem("index", format!("environment variable {variable} must be a whole number from {range}"));
    }
    number
}

impl Shard {
    /// Returns whether the hash of `key` belongs to this shard.
    fn owns(self, key: &str) -> bool {
        // As hashmod in Prometheus' relabelling: the last eight bytes of the MD5 digest,
        // big-endian.
        let digest = u128::from_be_bytes(md5::compute(key).0) as u64;
        digest % u64::from(self.total) == u64::from(self.index)
    }

    /// Returns this daemon's part of the budget. All parts together do not exceed the whole.
    pub(super) fn of_budget(self, budget: Budget) -> Budget {
        Budget {
            daily_cost_usd: budget.daily_cost_usd.map(|usd| usd / f64::from(self.total)),
            daily_tokens: budget.daily_tokens.map(|tokens| tokens / u64::from(self.total)),
        }
    }
}

/// Returns this daemon's part of a provider's `requests_per_minute`, whose place is `place`.
pub(super) fn of_rate_limit(
    shard: Option<Shard>,
    whole: Option<u32>,
    place: &Place,
    report: &Report,
) -> Option<u32> {
    let (Some(Shard { total, .. }), Some(requests)) = (shard, whole) else { return whole };
    if requests < total {
        let message =
            format!("{requests} cannot be divided among {total} daemons (shard.total); use {total} or more");
        report.error(place, message);
    }
    Some((requests / total).max(1))
}

/// Removes probes, comparisons and pools of other shards. Probes of one comparison or pool stay
/// together.
pub(super) fn keep(
    shard: Shard,
    probes: &mut Vec<Placed>,
    comparisons: &mut Vec<Arc<Comparison>>,
    pools: &mut Vec<Pool>,
    report: &Report,
) {
    let own: BTreeSet<String> = {
        let keys = hash_keys(comparisons, pools);
        let key = |name: &str| keys.get(name).map_or(name, |key| *key).to_owned();
        let names = probes.iter().map(|placed| &placed.probe.name);
        names.filter(|name| shard.owns(&key(name))).cloned().collect()
    };
    probes.retain(|placed| own.contains(&placed.probe.name));
    comparisons.retain(|comparison| own.contains(&comparison.gateway));
    pools.retain(|pool| pool.members.iter().any(|member| own.contains(&member.probe)));
    if probes.is_empty() {
        let Shard { index, total } = shard;
        let message = format!("none of the probes is in shard {index} of {total}; use fewer shards");
        report.warning(&Place::default(), message);
    }
}

/// Returns the hash key of each probe in a comparison or pool: the alphabetically first name of all
/// probes that it is connected with.
fn hash_keys<'a>(comparisons: &'a [Arc<Comparison>], pools: &'a [Pool]) -> BTreeMap<&'a str, &'a str> {
    let pairs = comparisons.iter().map(|pair| vec![pair.gateway.as_str(), pair.direct.as_str()]);
    let pools = pools.iter().map(|pool| pool.members.iter().map(|member| member.probe.as_str()).collect());
    let groups: Vec<Vec<&str>> = pairs.chain(pools).collect();
    let mut keys: BTreeMap<&str, &str> = groups.iter().flatten().map(|name| (*name, *name)).collect();
    loop {
        let mut settled = true;
        for group in &groups {
            let Some(first) = group.iter().map(|name| keys[name]).min() else { continue };
            for name in group {
                settled &= keys.insert(name, first) == Some(first);
            }
        }
        if settled {
            return keys;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks against `relabel.Process` of Prometheus 2.42 with `action: hashmod, modulus: 1000`.
    #[track_caller]
    fn check(key: &str, modulus: u32) {
        let index = (0..1000).find(|index| Shard { index: *index, total: 1000 }.owns(key));
        assert_eq!(index, Some(modulus), "{key}");
    }

    #[test]
    fn hash_equals_that_of_prometheus() {
        check("langmart-health", 620);
        check("groq-chat", 893);
        check("bench-0000", 638);
    }
}
