//! The account of a provider in a month: availability and downtime.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;

use super::{name::Name, run::Observed, span::Span};
use crate::outcome::Fault;

/// The faults that count as downtime, from the lowest layer to the highest: a failure of one shows
/// that those before it work, and nothing about those behind it.
pub(super) const LAYERS: [Fault; 3] = [Fault::Network, Fault::Gateway, Fault::Provider];

/// Availability and downtime of a provider in a calendar month (UTC), as far as it lies in the
/// period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProviderMonth {
    /// The provider's name.
    pub provider: Name,
    /// The month, such as `2026-11`.
    pub month: String,
    /// Number of runs that address the service, without those while the prober was offline.
    pub runs: u64,
    /// Number of them with fault gateway, provider or network.
    pub failed_runs: u64,
    /// Number of runs that failed while the prober was offline.
    pub offline_runs: u64,
    /// Share of runs without fault gateway, provider or network. `None` if there was no run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_ratio: Option<f64>,
    /// Minutes in which at least one probe was down, by fault.
    pub downtime_minutes: Downtime,
}

/// Minutes by fault. Minutes of two faults can overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Downtime {
    /// The network path to the service.
    pub network: f64,
    /// The gateway.
    pub gateway: f64,
    /// The provider.
    pub provider: f64,
}

/// The account of one provider.
#[derive(Debug, Default)]
pub(super) struct Account {
    months: BTreeMap<Date, Counts>,
    down: [Span; LAYERS.len()],
}

#[derive(Debug, Default)]
struct Counts {
    runs: u64,
    failed_runs: u64,
    offline_runs: u64,
    downtime: [Duration; LAYERS.len()],
}

impl Account {
    /// Counts a run.
    pub(super) fn count(&mut self, run: &Observed<'_>) {
        let counts = self.months.entry(month(run.time)).or_default();
        if run.offline {
            counts.offline_runs += 1;
        } else {
            counts.runs += 1;
            counts.failed_runs += u64::from(run.fault.is_downtime());
        }
    }

    /// Begins downtime of a layer in the view of one probe.
    pub(super) fn enter(&mut self, layer: usize, at: SystemTime) {
        self.down[layer].enter(at);
    }

    /// Ends downtime of a layer in the view of one probe.
    pub(super) fn leave(&mut self, layer: usize, at: SystemTime) {
        if let Some((since, until)) = self.down[layer].leave(at) {
            self.add(layer, since, until);
        }
    }

    /// Adds a period to the months that it lies in.
    fn add(&mut self, layer: usize, mut since: SystemTime, until: SystemTime) {
        while since < until {
            let month = month(since);
            let end = begin_of_next(month).map_or(until, |next| next.min(until));
            let length = end.duration_since(since).unwrap_or_default();
            self.months.entry(month).or_default().downtime[layer] += length;
            if length.is_zero() {
                return;
            }
            since = end;
        }
    }

    /// Returns the months in order.
    pub(super) fn months(&self, provider: &Name) -> impl Iterator<Item = ProviderMonth> {
        self.months.iter().map(|(month, counts)| {
            let [network, gateway, in_provider] =
                counts.downtime.map(|downtime| (downtime.as_secs_f64() / 6.0).round() / 10.0);
            let available = counts.runs - counts.failed_runs;
            ProviderMonth {
                provider: provider.clone(),
                month: month.strftime("%Y-%m").to_string(),
                runs: counts.runs,
                failed_runs: counts.failed_runs,
                offline_runs: counts.offline_runs,
                available_ratio: (counts.runs > 0).then(|| available as f64 / counts.runs as f64),
                downtime_minutes: Downtime { network, gateway, provider: in_provider },
            }
        })
    }
}

/// Returns the first day of the month of a time in UTC.
fn month(time: SystemTime) -> Date {
    let timestamp = Timestamp::try_from(time).unwrap_or_default();
    timestamp.to_zoned(TimeZone::UTC).date().first_of_month()
}

/// Returns the begin of the next month. Returns `None` at the end of the calendar.
fn begin_of_next(month: Date) -> Option<SystemTime> {
    let next = month.last_of_month().tomorrow().ok()?;
    Some(next.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[test]
    fn downtime_is_divided_among_its_months() {
        let mut account = Account::default();
        account.enter(1, at("2026-10-31T23:50:00Z"));
        account.leave(1, at("2026-12-01T00:00:30Z"));
        let provider = Name::from("langmart");
        let months: Vec<_> =
            account.months(&provider).map(|m| (m.month, m.downtime_minutes.gateway)).collect();
        let expected = [("2026-10", 10.0), ("2026-11", 43_200.0), ("2026-12", 0.5)];
        assert_eq!(months, expected.map(|(month, minutes)| (month.to_owned(), minutes)));
    }
}
