//! Metrics of comparisons between a gateway and the provider behind it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    page::Labels,
    series::Series,
    values::{Counter, Gauge, Sum},
};
use crate::{
    config::{Comparison, Config},
    outcome::{Check, Measure, Pair, PairVerdict, Side},
};

/// Metrics of one comparison.
#[derive(Debug)]
pub struct ComparisonSeries {
    comparison: Arc<Comparison>,
    /// The probes' series. If a reload replaces one of them, the comparison starts again.
    probes: [Arc<Series>; 2],
    /// Label `comparison`, rendered once.
    pub(super) labels: Labels,
    pub(super) values: Arc<ComparisonValues>,
}

/// Values of one comparison, kept across reloads as long as it and its two probes are the same.
#[derive(Debug)]
pub(super) struct ComparisonValues {
    /// Indexed in the order of [`PairVerdict::ALL`].
    pub(super) verdicts: [Counter; PairVerdict::ALL.len()],
    pub(super) pairs: Counter,
    pub(super) gateway: Sums,
    pub(super) direct: Sums,
    pub(super) last_overhead: Gauge,
}

/// Total seconds of one side, over pairs that both succeeded.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) duration: Sum,
    first_token: Sum,
}

impl Sums {
    fn add(&self, measure: &Measure) {
        self.duration.add(measure.duration.as_secs_f64());
        self.first_token.add(measure.first_token.unwrap_or_default().as_secs_f64());
    }
}

impl ComparisonSeries {
    /// Returns whether they belong to this comparison.
    pub(super) fn is_of(&self, comparison: &Comparison) -> bool {
        *self.comparison == *comparison
    }

    /// Adds a pair of runs.
    pub fn observe(&self, pair: &Pair) {
        let ComparisonValues { verdicts, pairs, gateway, direct, last_overhead } = &*self.values;
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

/// Returns the series of every comparison of a configuration. Unchanged comparisons keep their
/// values.
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
                Arc::new(ComparisonValues {
                    verdicts: Default::default(),
                    pairs: Counter::default(),
                    gateway: Sums::default(),
                    direct: Sums::default(),
                    last_overhead: Gauge::absent(),
                })
            },
            |before| Arc::clone(&before.values),
        );
        let labels = Labels::new([("comparison", comparison.name.as_str())]);
        Some(Arc::new(ComparisonSeries { comparison: Arc::clone(comparison), probes, labels, values }))
    };
    // Sorted by name, as the probes are, so that the order of the file does not matter.
    let mut configured: Vec<_> = config.comparisons.iter().filter_map(of).collect();
    configured.sort_by(|one, other| one.comparison.name.cmp(&other.comparison.name));
    configured
}

impl ComparisonSeries {
    /// Returns the sum of times to first token. Returns `None` if the comparison is not one of
    /// streams.
    pub(super) fn first_token(&self, sums: &Sums) -> Option<f64> {
        let [gateway, _] = &self.probes;
        (gateway.probe().check() == Check::Stream).then(|| sums.first_token.value())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        config::Probe,
        metrics::{
            Metrics,
            testing::{self, chat, config, provider, stream},
        },
        outcome::{Api, Fault},
    };

    /// Returns the metrics of a comparison between two such probes.
    fn compared(probe: fn(&str, &Arc<crate::config::Provider>, &str) -> Arc<Probe>) -> (Metrics, Comparison) {
        let comparison = Comparison { name: "c".into(), gateway: "g".into(), direct: "d".into() };
        let [gateway, direct] = [("langmart", Api::Langmart), ("openai", Api::Openai)]
            .map(|(name, api)| Arc::new(provider(name, api)));
        let mut config = config(vec![probe("g", &gateway, "m"), probe("d", &direct, "m")]);
        config.comparisons.push(Arc::new(comparison.clone()));
        let metrics = Metrics::new(SystemTime::UNIX_EPOCH);
        metrics.configure(&config);
        (metrics, comparison)
    }

    /// Returns the samples of comparisons, without their common prefix.
    fn samples(metrics: &Metrics) -> Vec<String> {
        let page = testing::page(metrics, SystemTime::UNIX_EPOCH);
        page.lines().filter_map(|line| Some(line.strip_prefix("langmart_comparison_")?.to_owned())).collect()
    }

    #[test]
    fn comparison_counters_start_at_zero() {
        let verdicts = ["ok", "gateway_fault", "provider_fault", "direct_fault", "inconclusive"]
            .map(|verdict| format!("verdicts_total{{comparison=\"c\",verdict=\"{verdict}\"}} 0"));
        let sums = |names: &[&str]| -> Vec<String> {
            let sums = names.iter().map(|name| format!("{name}_total{{comparison=\"c\"}} 0"));
            sums.chain(verdicts.clone()).collect()
        };
        assert_eq!(samples(&compared(chat).0), sums(&["pairs", "gateway_seconds", "direct_seconds"]));
        assert_eq!(
            samples(&compared(stream).0),
            sums(&[
                "pairs",
                "gateway_seconds",
                "direct_seconds",
                "gateway_first_token_seconds",
                "direct_first_token_seconds"
            ])
        );
    }

    #[test]
    fn sums_contain_successful_pairs_only() {
        let measure = |fault, milliseconds| Measure {
            fault,
            duration: Duration::from_millis(milliseconds),
            first_token: Some(Duration::from_millis(milliseconds / 2)),
            is_of_another_model: false,
        };
        let (metrics, comparison) = compared(stream);
        let series = metrics.comparison(&comparison).unwrap();
        series.observe(&Pair { gateway: measure(Fault::None, 250), direct: measure(Fault::None, 500) });
        series.observe(&Pair { gateway: measure(Fault::None, 750), direct: measure(Fault::Network, 9000) });
        let samples = samples(&metrics);
        for expected in [
            "pairs_total{comparison=\"c\"} 1",
            "gateway_seconds_total{comparison=\"c\"} 0.25",
            "direct_seconds_total{comparison=\"c\"} 0.5",
            "gateway_first_token_seconds_total{comparison=\"c\"} 0.125",
            "direct_first_token_seconds_total{comparison=\"c\"} 0.25",
            "last_overhead_seconds{comparison=\"c\"} -0.25",
            "verdicts_total{comparison=\"c\",verdict=\"ok\"} 1",
            "verdicts_total{comparison=\"c\",verdict=\"inconclusive\"} 1",
        ] {
            assert!(samples.iter().any(|sample| sample == expected), "{expected} is not among {samples:#?}");
        }
    }
}
