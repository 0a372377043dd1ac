//! Shared inputs of a resolution: secrets, the report, and the default timing of probes.

use std::{cell::RefCell, collections::BTreeSet, ops::RangeInclusive, time::Duration};

use zeroize::Zeroizing;

use crate::config::{
    environment::{Environment, Keys, exposure},
    model::{KeySource, Probe},
    problem::{Place, Report},
    raw::Section,
};

/// Range of intervals. A thousand probes at the minimum are supported; a week is still a schedule.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);

/// Range of timeouts.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);

/// The inputs of every part of a resolution.
pub(in crate::config) struct Context<'a> {
    pub(super) keys: Keys<'a>,
    pub(super) environment: &'a Environment<'a>,
    pub(super) report: &'a Report,
    credentials: RefCell<BTreeSet<String>>,
}

impl<'a> Context<'a> {
    pub(in crate::config) fn new(
        keys: Keys<'a>,
        environment: &'a Environment<'a>,
        report: &'a Report,
    ) -> Self {
        Self { keys, environment, report, credentials: RefCell::default() }
    }

    /// Returns the names of the credentials in the configuration.
    pub(in crate::config) fn into_credentials(self) -> Vec<String> {
        self.credentials.into_inner().into_iter().collect()
    }

    /// Returns whether the secret at that place is not needed, because only those of other
    /// providers were requested.
    fn is_idle(&self, place: &Place) -> bool {
        let Keys::ReportedOf(providers) = self.keys else { return false };
        !providers.iter().any(|name| place.path.starts_with(&format!("provider.{name}.")))
    }

    /// Returns whether the secret at that place is read.
    pub(super) fn wants_secret(&self, place: &Place) -> bool {
        self.keys != Keys::Skipped && !self.is_idle(place)
    }

    /// Reads and checks a secret, if it is needed. Problems are reported without its value.
    pub(super) fn secret(
        &self,
        source: &KeySource,
        place: &Place,
        check: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Option<Zeroizing<String>> {
        if self.is_idle(place) {
            return None;
        }
        let credential = match source {
            KeySource::Credential(name) => Some(name),
            KeySource::Env(_) | KeySource::File(_) => None,
        };
        self.credentials.borrow_mut().extend(credential.cloned());
        if self.keys == Keys::Skipped {
            return None;
        }
        if let Some(message) = exposure(source) {
            self.report.error(place, message);
            return None;
        }
        match (self.environment.secret(source), self.keys) {
            (Ok(text), _) => match check(&text) {
                Ok(()) => return Some(text),
                Err(message) => self.report.error(place, message),
            },
            (Err(message), Keys::Required) => self.report.error(place, message),
            (Err(message), _) => self.report.warning(place, message),
        }
        None
    }
}

/// Interval and timeout of a probe.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

impl Timing {
    /// Returns the interval and timeout of the section, with `self` as default.
    pub(super) fn overridden_by(self, section: &mut Section<'_>) -> Self {
        Self {
            interval: section.duration("interval", &INTERVALS).unwrap_or(self.interval),
            timeout: section.duration("timeout", &TIMEOUTS).unwrap_or(self.timeout),
        }
    }
}

/// `[defaults]`.
pub(super) struct Defaults {
    /// Timing of checks other than chat and stream.
    pub(super) plain: Timing,
    /// Timing of chat and stream, from `[defaults.generation]`.
    pub(super) generation: Timing,
}

/// A probe and its place in the file.
pub(super) struct Placed {
    pub(super) probe: Probe,
    pub(super) place: Place,
}
