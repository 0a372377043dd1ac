//! The series of a comparison: what its pairs of runs found, by the gateway and directly.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    series::Series,
    text::{self, Header, Kind, Page},
    values::{Counter, Gauge, Sum},
};
use crate::{
    config::{Comparison, Config},
    outcome::{Check, Measure, Pair, PairVerdict, Side},
};

/// The series of one comparison.
#[derive(Debug)]
pub struct ComparisonSeries {
    comparison: Arc<Comparison>,
    /// The probes' series: a probe that is another after a reload makes another comparison.
    probes: [Arc<Series>; 2],
    /// `comparison`, rendered once.
    labels: String,
    values: Arc<Values>,
}

/// The numbers of one comparison, kept as long as it and its two probes stay the same.
#[derive(Debug)]
struct Values {
    /// In the order of [`PairVerdict::ALL`].
    verdicts: [Counter; PairVerdict::ALL.len()],
    pairs: Counter,
    gateway: Sums,
    direct: Sums,
    last_overhead: Gauge,
}

/// Seconds of one side, summed up over pairs of which both succeeded.
#[derive(Debug, Default)]
struct Sums {
    duration: Sum,
    first_token: Sum,
}

impl Sums {
    fn add(&self, measure: &Measure) {
        self.duration.add(measure.duration.as_secs_f64());
        self.first_token.add(measure.first_token.unwrap_or_default().as_secs_f64());
    }
}

impl ComparisonSeries {
    /// Whether they are of this comparison.
    pub(super) fn is_of(&self, comparison: &Comparison) -> bool {
        *self.comparison == *comparison
    }

    /// Takes a pair of runs in.
    pub fn observe(&self, pair: &Pair) {
        let Values { verdicts, pairs, gateway, direct, last_overhead } = &*self.values;
        let verdict = pair.verdict();
        verdicts[verdict as usize].add(1);
        if verdict == PairVerdict::Ok {
            pairs.add(1);
            gateway.add(&pair.gateway);
            direct.add(&pair.direct);
            last_overhead.set(pair.gateway.duration.as_secs_f64() - pair.direct.duration.as_secs_f64());
        }
    }
}

/// The series of every comparison of a configuration, with the numbers that they had so far.
pub(super) fn configured(
    config: &Config,
    series: &BTreeMap<String, Arc<Series>>,
    old: &[Arc<ComparisonSeries>],
) -> Vec<Arc<ComparisonSeries>> {
    let of = |comparison: &Arc<Comparison>| {
        let probe = |side| series.get(comparison.probe(side)).map(Arc::clone);
        let probes = [probe(Side::Gateway)?, probe(Side::Direct)?];
        let same = |before: &&Arc<ComparisonSeries>| {
            let kept = |(old, new): (&Arc<Series>, &Arc<Series>)| Arc::ptr_eq(&old.values, &new.values);
            before.is_of(comparison) && before.probes.iter().zip(&probes).all(kept)
        };
        let values = old.iter().find(same).map_or_else(
            || {
                Arc::new(Values {
                    verdicts: Default::default(),
                    pairs: Counter::default(),
                    gateway: Sums::default(),
                    direct: Sums::default(),
                    last_overhead: Gauge::absent(),
                })
            },
            |before| Arc::clone(&before.values),
        );
        let labels = text::labels([("comparison", comparison.name.as_str())]);
        Some(Arc::new(ComparisonSeries { comparison: Arc::clone(comparison), probes, labels, values }))
    };
    // Sorted by name, as the probes are: a page looks the same whatever the order of the file.
    let mut configured: Vec<_> = config.comparisons.iter().filter_map(of).collect();
    configured.sort_by(|one, other| one.comparison.name.cmp(&other.comparison.name));
    configured
}

/// Writes the series of all comparisons, family by family.
pub(super) fn write(comparisons: &[Arc<ComparisonSeries>], page: &mut Page) {
    for (name, help, sum) in SUMS {
        page.family(Header { name, kind: Kind::Counter, help });
        for series in comparisons {
            if let Some(sum) = sum(series) {
                page.sample(&series.labels, sum);
            }
        }
    }
    page.family(Header {
        name: "langmart_comparison_last_overhead_seconds",
        kind: Kind::Gauge,
        help: "Duration by the gateway minus the direct one, of the last pair of which both succeeded.",
    });
    for series in comparisons {
        if let Some(overhead) = series.values.last_overhead.value() {
            page.sample(&series.labels, overhead);
        }
    }
    page.family(Header {
        name: "langmart_comparison_verdicts_total",
        kind: Kind::Counter,
        help: "Pairs of runs, by what the two together say of whose part failed.",
    });
    for series in comparisons {
        for (verdict, counter) in PairVerdict::ALL.iter().zip(&series.values.verdicts) {
            page.labelled(&series.labels, &[("verdict", verdict.name())], counter.value() as f64);
        }
    }
}

/// The counters: name, help, and the value; `None`: it says nothing for this check.
type Summed = (&'static str, &'static str, fn(&ComparisonSeries) -> Option<f64>);

const SUMS: [Summed; 5] = [
    ("langmart_comparison_pairs_total", "Pairs of runs of which both succeeded.", |series| {
        Some(series.values.pairs.value() as f64)
    }),
    (
        "langmart_comparison_gateway_seconds_total",
        "Time that the runs by the gateway took, of pairs of which both succeeded.",
        |series| Some(series.values.gateway.duration.value()),
    ),
    (
        "langmart_comparison_direct_seconds_total",
        "Time that the direct runs took, of pairs of which both succeeded.",
        |series| Some(series.values.direct.duration.value()),
    ),
    (
        "langmart_comparison_gateway_first_token_seconds_total",
        "Time to the first token by the gateway, of pairs of which both succeeded.",
        |series| series.of_streams(&series.values.gateway),
    ),
    (
        "langmart_comparison_direct_first_token_seconds_total",
        "Time to the first token directly, of pairs of which both succeeded.",
        |series| series.of_streams(&series.values.direct),
    ),
];

impl ComparisonSeries {
    fn of_streams(&self, sums: &Sums) -> Option<f64> {
        let [gateway, _] = &self.probes;
        (gateway.probe().check() == Check::Stream).then(|| sums.first_token.value())
    }
}
