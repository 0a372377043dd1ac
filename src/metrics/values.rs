//! Atomic values of the series, which a run changes while a scrape reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// An integer counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A sum of seconds: a float stored in the bits of an integer.
#[derive(Debug, Default)]
pub(super) struct Sum(AtomicU64);

impl Sum {
    pub(super) fn add(&self, more: f64) {
        let mut bits = self.0.load(Ordering::Relaxed);
        loop {
            let sum = (f64::from_bits(bits) + more).to_bits();
            match self.0.compare_exchange_weak(bits, sum, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => bits = newer,
            }
        }
    }

    pub(super) fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// A value that may be absent.
#[derive(Debug)]
pub(super) struct Gauge(AtomicU64);

impl Gauge {
    /// Creates a gauge without a value, which is represented as NaN.
    pub(super) fn absent() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }

    pub(super) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> Option<f64> {
        let value = f64::from_bits(self.0.load(Ordering::Relaxed));
        (!value.is_nan()).then_some(value)
    }
}

/// Upper bound of a bucket in seconds, as number and as label.
pub(super) type Bound = (f64, &'static str);

/// A histogram. Its count is the sum of the buckets, so that they cannot disagree.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [Bound],
    /// One bucket per bound, not cumulative, and one for values above all bounds.
    buckets: Box<[Counter]>,
    sum: Sum,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [Bound]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| Counter::default()).collect(),
            sum: Sum::default(),
        }
    }

    pub(super) fn observe(&self, seconds: f64) {
        let bucket = self.bounds.partition_point(|(bound, _)| *bound < seconds);
        self.buckets[bucket].add(1);
        self.sum.add(seconds);
    }

    /// Returns the cumulative buckets by the label of their bound, ending with `+Inf`.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = self.bounds.iter().map(|(_, label)| *label).chain(["+Inf"]);
        labels.zip(&self.buckets).scan(0, |total, (label, bucket)| {
            *total += bucket.value();
            Some((label, *total))
        })
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[(0.1, "0.1"), (1.0, "1")]);
        for seconds in [0.05, 0.1, 0.100_001, 1.0, 7.0] {
            histogram.observe(seconds);
        }
        let buckets: Vec<_> = histogram.cumulative().collect();
        assert_eq!(buckets, [("0.1", 2), ("1", 4), ("+Inf", 5)]);
        assert!((histogram.sum() - 8.250_001).abs() < 1e-9);
    }

    #[test]
    fn sum_of_several_threads_is_exact() {
        let sum = Sum::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| sum.add(0.5)));
            }
        });
        assert!((sum.value() - 20_000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn gauge_is_absent_until_set() {
        let gauge = Gauge::absent();
        assert_eq!(gauge.value(), None);
        gauge.set(0.0);
        assert_eq!(gauge.value(), Some(0.0));
    }
}
