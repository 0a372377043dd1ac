//! A bounded sample of the durations of a failure.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::outcome::{Phases, in_record};

/// Maximum number of durations in memory per failure.
const MAX_DURATIONS: usize = 512;

/// A bounded sample of durations: all of them at first, then every second one, every fourth, and so
/// on.
#[derive(Debug, Default)]
pub(super) struct Durations {
    sample: Vec<Sample>,
    /// One of so many durations is added to the sample; 0 means 1.
    stride: u64,
    count: u64,
    longest: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    total: Duration,
    /// In seconds. Single precision halves the memory.
    phases: [f32; Phases::NAMES.len()],
}

impl Durations {
    pub(super) fn add(&mut self, total: Duration, phases: &Phases) {
        self.longest = self.longest.max(total);
        if self.sample.len() == MAX_DURATIONS {
            let mut index = 0;
            self.sample.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = self.stride.max(1) * 2;
        }
        if self.count.is_multiple_of(self.stride.max(1)) {
            let phases = phases.durations().map(|phase| phase.as_secs_f32());
            self.sample.push(Sample { total, phases });
        }
        self.count += 1;
    }

    /// Returns the median of the sample, which is exact for up to [`MAX_DURATIONS`].
    pub(super) fn median(&self) -> Duration {
        self.median_of(|sample| sample.total)
    }

    /// Returns the median of each phase, in the order of [`Phases::NAMES`].
    pub(super) fn median_phases(&self) -> [Duration; Phases::NAMES.len()] {
        std::array::from_fn(|phase| self.median_of(|sample| Duration::from_secs_f32(sample.phases[phase])))
    }

    fn median_of(&self, value: impl Fn(&Sample) -> Duration) -> Duration {
        let mut sorted: Vec<Duration> = self.sample.iter().map(value).collect();
        sorted.sort_unstable();
        let middle = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let half = sorted.len() / 2;
        if sorted.len().is_multiple_of(2) {
            (middle(half.saturating_sub(1)) + middle(half)) / 2
        } else {
            middle(half)
        }
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }
}

impl Serialize for Durations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Form {
            #[serde(serialize_with = "in_record")]
            median: Duration,
            #[serde(serialize_with = "in_record")]
            max: Duration,
        }
        Form { median: self.median(), max: self.longest }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_exact_for_few_and_close_for_many() {
        let mut durations = Durations::default();
        assert_eq!(durations.median(), Duration::ZERO);
        for (milliseconds, median) in [(30, 30), (10, 20), (20, 20)] {
            durations.add(Duration::from_millis(milliseconds), &Phases::default());
            assert_eq!(durations.median(), Duration::from_millis(median));
        }
        let mut durations = Durations::default();
        for milliseconds in 1..=100_000 {
            durations.add(Duration::from_millis(milliseconds), &Phases::default());
            assert!(durations.sample.len() <= MAX_DURATIONS);
        }
        let median = durations.median().as_secs_f64();
        assert!((49.0..51.0).contains(&median), "{median}");
        assert_eq!(durations.longest(), Duration::from_secs(100));
    }
}
