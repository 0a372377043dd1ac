//! Histograms with classic and native buckets, and exemplars.

use std::{sync::MutexGuard, time::SystemTime};

use crate::sync::Mutex;

/// Upper bound of a classic bucket in seconds, as number and as label.
pub(super) type Bound = (f64, &'static str);

/// The finest resolution: a bucket ends at 2^(1/16), 1.044 times its start, so that any value in it
/// is less than 5 % off.
const FINEST_SCHEMA: i8 = 4;

/// Maximum number of native buckets that are not empty, sufficient for values from 1 ms to a minute
/// at the finest resolution. More of them halve the resolution.
const MAX_NATIVE_BUCKETS: usize = 256;

/// Upper bound of the zero bucket in seconds: 2^-20, which ends a bucket of every resolution.
pub(super) const ZERO_THRESHOLD: f64 = 1.0 / 1_048_576.0;

/// Maximum number of exemplars of a histogram. Of those of different buckets, the latest are kept.
const MAX_EXEMPLARS: usize = 4;

/// Name of the label of exemplars.
pub(super) const EXEMPLAR_LABEL: &str = "request_id";

/// Maximum length of names and values of an exemplar's labels in characters, by `OpenMetrics`.
const MAX_EXEMPLAR_CHARS: usize = 128;

/// A run as an example of the values of a bucket.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exemplar {
    /// The service's ID of the request.
    pub(super) request_id: Box<str>,
    /// In seconds.
    pub(super) value: f64,
    /// Start of the run, which finds its record.
    pub(super) time: SystemTime,
}

/// A histogram. Its count is the sum of the buckets, so that they cannot disagree.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [Bound],
    /// Time from which it counts.
    created: SystemTime,
    observations: Mutex<Observations>,
}

/// What a histogram has observed.
#[derive(Debug)]
struct Observations {
    /// One bucket per bound, not cumulative, and one for values above all bounds.
    classic: Vec<u64>,
    native: NativeBuckets,
    sum: f64,
    /// The bucket of each exemplar, and the exemplar; the latest last.
    exemplars: Vec<(usize, Exemplar)>,
}

/// A histogram at one moment: it takes no observation until this is dropped.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    bounds: &'static [Bound],
    pub(super) created: SystemTime,
    observations: MutexGuard<'a, Observations>,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [Bound]) -> Self {
        let observations = Observations {
            classic: vec![0; bounds.len() + 1],
            native: NativeBuckets::new(),
            sum: 0.0,
            exemplars: Vec::new(),
        };
        Self { bounds, created: SystemTime::now(), observations: Mutex::new(observations) }
    }

    /// Observes a value of a run that started at that time. An ID that is too long for an exemplar
    /// is omitted.
    pub(super) fn observe(&self, seconds: f64, time: SystemTime, request_id: Option<&str>) {
        let bucket = self.bounds.partition_point(|(bound, _)| *bound < seconds);
        let mut observations = self.observations.lock();
        observations.classic[bucket] += 1;
        observations.native.observe(seconds);
        observations.sum += seconds;
        let fits = |id: &&str| EXEMPLAR_LABEL.len() + id.chars().count() <= MAX_EXEMPLAR_CHARS;
        if let Some(id) = request_id.filter(fits) {
            let exemplars = &mut observations.exemplars;
            exemplars.retain(|(of, _)| *of != bucket);
            if exemplars.len() == MAX_EXEMPLARS {
                exemplars.remove(0);
            }
            exemplars.push((bucket, Exemplar { request_id: id.into(), value: seconds, time }));
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { bounds: self.bounds, created: self.created, observations: self.observations.lock() }
    }
}

/// A classic bucket.
#[derive(Debug, PartialEq)]
pub(super) struct Bucket<'a> {
    pub(super) bound: f64,
    /// The bound as a label.
    pub(super) label: &'static str,
    /// Number of values up to the bound.
    pub(super) cumulative: u64,
    pub(super) exemplar: Option<&'a Exemplar>,
}

impl Snapshot<'_> {
    /// Returns the cumulative buckets, ending with `+Inf`.
    pub(super) fn buckets(&self) -> impl Iterator<Item = Bucket<'_>> {
        let bounds = self.bounds.iter().copied().chain([(f64::INFINITY, "+Inf")]);
        let Observations { classic, exemplars, .. } = &*self.observations;
        bounds.zip(classic).enumerate().scan(0, move |total, (index, ((bound, label), count))| {
            *total += count;
            let exemplar = exemplars.iter().find(|(of, _)| *of == index).map(|(_, exemplar)| exemplar);
            Some(Bucket { bound, label, cumulative: *total, exemplar })
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.observations.classic.iter().sum()
    }

    pub(super) fn sum(&self) -> f64 {
        self.observations.sum
    }

    pub(super) fn native(&self) -> &NativeBuckets {
        &self.observations.native
    }

    /// Returns the latest exemplar. Returns `None` if there is none.
    pub(super) fn latest_exemplar(&self) -> Option<&Exemplar> {
        self.observations.exemplars.last().map(|(_, exemplar)| exemplar)
    }
}

/// The buckets of a native histogram: bucket `i` ends at 2^(i / 2^schema), and starts where the
/// bucket before it ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NativeBuckets {
    pub(super) schema: i8,
    /// Number of values up to [`ZERO_THRESHOLD`].
    pub(super) zero: u64,
    /// Index and number of values of each bucket that is not empty, by index.
    pub(super) counts: Vec<(i16, u64)>,
}

impl NativeBuckets {
    fn new() -> Self {
        Self { schema: FINEST_SCHEMA, zero: 0, counts: Vec::new() }
    }

    fn observe(&mut self, seconds: f64) {
        if seconds <= ZERO_THRESHOLD {
            self.zero += 1;
            return;
        }
        let index = (seconds.log2() * f64::from(self.schema).exp2()).ceil() as i16;
        match self.counts.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(place) => self.counts[place].1 += 1,
            Err(place) => self.counts.insert(place, (index, 1)),
        }
        while self.counts.len() > MAX_NATIVE_BUCKETS {
            self.halve_resolution();
        }
    }

    /// Merges each two buckets into one.
    fn halve_resolution(&mut self) {
        self.schema -= 1;
        for (index, _) in &mut self.counts {
            *index = (*index >> 1) + (*index & 1);
        }
        self.counts.dedup_by(|(index, more), (kept, count)| {
            let is_same = index == kept;
            *count += if is_same { *more } else { 0 };
            is_same
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn observed<'a>(histogram: &'a Histogram, values: &[f64]) -> Snapshot<'a> {
        for value in values {
            histogram.observe(*value, NOW, None);
        }
        histogram.snapshot()
    }

    #[test]
    fn bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[(0.1, "0.1"), (1.0, "1")]);
        let snapshot = observed(&histogram, &[0.05, 0.1, 0.100_001, 1.0, 7.0]);
        let buckets: Vec<_> = snapshot.buckets().map(|bucket| (bucket.label, bucket.cumulative)).collect();
        assert_eq!(buckets, [("0.1", 2), ("1", 4), ("+Inf", 5)]);
        assert!((snapshot.sum() - 8.250_001).abs() < 1e-9);
        assert_eq!(snapshot.count(), 5);
    }

    /// Returns the bounds of a native bucket.
    fn range(schema: i8, index: i16) -> (f64, f64) {
        let end = |index: i16| (f64::from(index) / f64::from(schema).exp2()).exp2();
        (end(index - 1), end(index))
    }

    #[test]
    fn native_bucket_contains_its_values_within_5_per_cent() {
        for step in 0..5000 {
            let value = 2e-6 * 1.004_f64.powi(step);
            let histogram = Histogram::new(&[]);
            let snapshot = observed(&histogram, &[value]);
            let [(index, 1)] = snapshot.native().counts[..] else { panic!("{snapshot:?}") };
            let (start, end) = range(snapshot.native().schema, index);
            assert!(start < value * (1.0 + 1e-12) && value <= end * (1.0 + 1e-12), "{value}: {start}, {end}");
            assert!(end / start < 1.05, "{start}, {end}");
        }
    }

    #[test]
    fn values_up_to_the_threshold_are_in_the_zero_bucket() {
        let values = [0.0, -0.0, -1.0, ZERO_THRESHOLD, ZERO_THRESHOLD * 1.000_001];
        let histogram = Histogram::new(&[]);
        let snapshot = observed(&histogram, &values);
        assert_eq!((snapshot.native().zero, snapshot.native().counts.as_slice()), (4, &[(-319, 1)][..]));
    }

    #[test]
    fn native_buckets_are_bounded_by_lower_resolution() {
        let histogram = Histogram::new(&[]);
        let values: Vec<f64> = (0..30_000).map(|step| 1e-6 * 1.000_9_f64.powi(step)).collect();
        for (index, value) in values.iter().enumerate() {
            let snapshot = observed(&histogram, &[*value]);
            let native = snapshot.native();
            assert!(native.counts.len() <= MAX_NATIVE_BUCKETS);
            assert_eq!(native.counts.iter().map(|(_, count)| count).sum::<u64>(), index as u64 + 1);
            assert!(native.counts.is_sorted_by(|(one, _), (other, _)| one < other));
        }
        let native = histogram.snapshot().native().clone();
        assert_eq!(native.schema, 2, "39 octaves fit with four buckets each");
        for (index, count) in native.counts {
            let (start, end) = range(native.schema, index);
            let expected = values.iter().filter(|value| start < **value && **value <= end).count();
            assert_eq!(count, expected as u64, "{start}, {end}");
        }
    }

    #[test]
    fn extreme_values_are_counted() {
        let values = [f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, 1e300, 5e-324];
        let histogram = Histogram::new(&[(1.0, "1")]);
        let snapshot = observed(&histogram, &values);
        let native = snapshot.native();
        assert_eq!(native.zero + native.counts.iter().map(|(_, count)| count).sum::<u64>(), 5);
        assert_eq!(snapshot.count(), 5);
    }

    #[test]
    fn latest_exemplars_of_few_buckets_are_kept() {
        let histogram =
            Histogram::new(&[(1.0, "1"), (2.0, "2"), (3.0, "3"), (4.0, "4"), (5.0, "5"), (6.0, "6")]);
        for (value, id) in
            [(0.5, "a"), (0.7, "b"), (1.5, "c"), (2.5, "d"), (3.5, "e"), (1.6, "f"), (4.5, "g")]
        {
            histogram.observe(value, NOW, Some(id));
        }
        let ids = |snapshot: &Snapshot<'_>| {
            let exemplars = snapshot.observations.exemplars.iter();
            exemplars.map(|(_, exemplar)| exemplar.request_id.to_string()).collect::<Vec<_>>()
        };
        let snapshot = histogram.snapshot();
        assert_eq!(ids(&snapshot), ["d", "e", "f", "g"]);
        for bucket in snapshot.buckets() {
            let expected = match bucket.label {
                "2" => Some("f"),
                "3" => Some("d"),
                "4" => Some("e"),
                "5" => Some("g"),
                _ => None,
            };
            assert_eq!(bucket.exemplar.map(|exemplar| &*exemplar.request_id), expected, "{bucket:?}");
        }
        drop(snapshot);
        // By OpenMetrics, at most 128 characters with the name.
        histogram.observe(5.5, NOW, Some(&"ü".repeat(118)));
        histogram.observe(5.5, NOW, Some(&"x".repeat(119)));
        assert_eq!(&*histogram.snapshot().latest_exemplar().unwrap().request_id, "ü".repeat(118));
    }
}
