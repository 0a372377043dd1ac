//! A parsed page of metrics, with lookups that fail with all samples of the name.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// Samples by series as written: name and labels.
    samples: BTreeMap<String, f64>,
    /// Names of counters.
    counters: BTreeSet<String>,
}

impl Scrape {
    #[track_caller]
    pub fn parse(page: &str) -> Self {
        let mut scrape = Self { samples: BTreeMap::new(), counters: BTreeSet::new() };
        for line in page.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                match family.split_once(' ') {
                    Some((name, "counter")) => scrape.counters.extend([name.to_owned()]),
                    Some((name, "histogram")) => {
                        let parts = ["_bucket", "_sum", "_count"];
                        scrape.counters.extend(parts.map(|part| format!("{name}{part}")));
                    }
                    _ => {}
                }
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
                let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                let before = scrape.samples.insert(series.to_owned(), value);
                assert!(before.is_none(), "twice on a page: {series}");
            }
        }
        scrape
    }

    /// Returns the values of all series of that name with these labels.
    pub fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let samples = self.samples.iter();
        samples.filter(|(series, _)| is(series, name, labels)).map(|(_, value)| *value).collect()
    }

    /// Returns the value of the only series of that name with these labels. Returns `None` if there
    /// is none.
    #[track_caller]
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        match *self.values(name, labels) {
            [] => None,
            [value] => Some(value),
            ref values => panic!("{name} {labels:?} has {} series", values.len()),
        }
    }

    /// Returns the same, and fails if there is no such series.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| {
            let of_name: Vec<_> = self.samples.iter().filter(|(series, _)| is(series, name, &[])).collect();
            panic!("{name} {labels:?} is missing; of that name there are {of_name:#?}")
        })
    }

    /// Returns the sum over all series of that name.
    pub fn sum(&self, name: &str) -> f64 {
        self.values(name, &[]).iter().sum()
    }

    /// Returns whether any series has the label.
    pub fn mentions(&self, label: (&str, &str)) -> bool {
        self.samples.keys().any(|series| carries(series, label))
    }

    /// Returns the counters that have decreased or disappeared since an earlier scrape.
    pub fn setbacks(&self, earlier: &Self) -> Vec<String> {
        let counters =
            earlier.samples.iter().filter(|(series, _)| earlier.counters.contains(name_of(series)));
        counters
            .filter_map(|(series, before)| match self.samples.get(series) {
                Some(now) if now >= before => None,
                now => Some(format!("{series}: {before}, then {now:?}")),
            })
            .collect()
    }
}

fn name_of(series: &str) -> &str {
    series.split_once('{').map_or(series, |(name, _)| name)
}

fn is(series: &str, name: &str, labels: &[(&str, &str)]) -> bool {
    name_of(series) == name && labels.iter().all(|label| carries(series, *label))
}

fn carries(series: &str, (key, value): (&str, &str)) -> bool {
    ["{", ","].iter().any(|before| series.contains(&format!("{before}{key}=\"{value}\"")))
}
