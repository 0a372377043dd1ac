//! `[shard]`: which part of the file's probes is this daemon's.

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
    model::{Budget, Comparison, KeySource, Pool, Shard},
    problem::{Place, Report},
    raw::Section,
    surroundings::Keys,
};

/// How many daemons can share a file.
const TOTALS: RangeInclusive<u32> = 1..=1_000;

/// The shard of a file; `None`: the whole file is this daemon's.
pub(super) fn shard(root: &mut Section<'_>, context: &Context<'_>) -> Option<Shard> {
    let written = root.has("shard");
    let mut section = root.section("shard");
    for key in ["index", "total"] {
        if section.is_table() && !section.has(key) {
            section.problem(key, "is missing; a shard is index = 0 to total - 1, of total daemons");
        }
    }
    let total = section.number("total", &TOTALS);
    // What the total is when it is bad itself must not make the index bad.
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

/// `index = { env = "VARIABLE" }`, so that all daemons can have the same file. `None`: bad, which is reported, or not
/// looked at.
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
    let Some(text) = (context.surroundings.variable)(&variable) else {
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
            .problem("index", format!("environment variable {variable} must hold a whole number of {range}"));
    }
    number
}

impl Shard {
    /// Whether what hashes by that word is this shard's.
    fn holds(self, word: &str) -> bool {
        // As the action hashmod of Prometheus' relabelling: the last eight bytes, the first of them the highest.
        let digest = u128::from_be_bytes(md5::compute(word).0) as u64;
        digest % u64::from(self.total) == u64::from(self.index)
    }

    /// This daemon's part of the budget: all parts together are not above the whole.
    pub(super) fn of_budget(self, budget: Budget) -> Budget {
        Budget {
            daily_cost_usd: budget.daily_cost_usd.map(|usd| usd / f64::from(self.total)),
            daily_tokens: budget.daily_tokens.map(|tokens| tokens / u64::from(self.total)),
        }
    }
}

/// This daemon's part of a provider's `requests_per_minute`, whose place that is.
pub(super) fn of_pace(
    shard: Option<Shard>,
    whole: Option<u32>,
    place: &Place,
    report: &Report,
) -> Option<u32> {
    let (Some(Shard { total, .. }), Some(requests)) = (shard, whole) else { return whole };
    if requests < total {
        let message = format!(
            "{requests} cannot be shared by the {total} daemons of shard.total; each needs 1 or more"
        );
        report.error(place, message);
    }
    Some((requests / total).max(1))
}

/// Leaves the shard's probes, comparisons and pools. Probes of one comparison or pool stay together.
pub(super) fn keep(
    shard: Shard,
    probes: &mut Vec<Placed>,
    comparisons: &mut Vec<Arc<Comparison>>,
    pools: &mut Vec<Pool>,
    report: &Report,
) {
    let held: BTreeSet<String> = {
        let words = words(comparisons, pools);
        let word = |name: &str| words.get(name).map_or(name, |word| *word).to_owned();
        let names = probes.iter().map(|placed| &placed.probe.name);
        names.filter(|name| shard.holds(&word(name))).cloned().collect()
    };
    probes.retain(|placed| held.contains(&placed.probe.name));
    comparisons.retain(|comparison| held.contains(&comparison.gateway));
    pools.retain(|pool| pool.members.iter().any(|member| held.contains(&member.probe)));
    if probes.is_empty() {
        let Shard { index, total } = shard;
        let message = format!("none of the probes is in shard {index} of {total}; use fewer shards");
        report.warning(&Place::default(), message);
    }
}

/// For each probe that is in a comparison or a pool the word that its shard follows from: the first name, in
/// alphabetical order, of all that it hangs together with.
fn words<'a>(comparisons: &'a [Arc<Comparison>], pools: &'a [Pool]) -> BTreeMap<&'a str, &'a str> {
    let pairs = comparisons.iter().map(|pair| vec![pair.gateway.as_str(), pair.direct.as_str()]);
    let pools = pools.iter().map(|pool| pool.members.iter().map(|member| member.probe.as_str()).collect());
    let groups: Vec<Vec<&str>> = pairs.chain(pools).collect();
    let mut words: BTreeMap<&str, &str> = groups.iter().flatten().map(|name| (*name, *name)).collect();
    loop {
        let mut settled = true;
        for group in &groups {
            let Some(first) = group.iter().map(|name| words[name]).min() else { continue };
            for name in group {
                settled &= words.insert(name, first) == Some(first);
            }
        }
        if settled {
            return words;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `relabel.Process` of Prometheus 2.42 gives it for `action: hashmod, modulus: 1000`.
    #[track_caller]
    fn check(word: &str, modulus: u32) {
        let index = (0..1000).find(|index| Shard { index: *index, total: 1000 }.holds(word));
        assert_eq!(index, Some(modulus), "{word}");
    }

    #[test]
    fn the_hash_is_that_of_prometheus() {
        check("langmart-health", 620);
        check("groq-chat", 893);
        check("bench-0000", 638);
    }
}
