//! What the parts of a resolution share: secrets, where to report, and what a probe has that does not say it itself.

use std::{cell::RefCell, collections::BTreeSet, ops::RangeInclusive, time::Duration};

use zeroize::Zeroizing;

use crate::config::{
    model::{KeySource, Probe},
    problem::{Place, Report},
    raw::Section,
    surroundings::{Keys, Surroundings, exposure},
};

/// How often a probe may run: a thousand of them each second are bearable, and a week is still a schedule.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);

/// How long a run may take.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);

/// What every part of a resolution needs.
pub(in crate::config) struct Context<'a> {
    pub(super) keys: Keys<'a>,
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) report: &'a Report,
    credentials: RefCell<BTreeSet<String>>,
}

impl<'a> Context<'a> {
    pub(in crate::config) fn new(
        keys: Keys<'a>,
        surroundings: &'a Surroundings<'a>,
        report: &'a Report,
    ) -> Self {
        Self { keys, surroundings, report, credentials: RefCell::default() }
    }

    /// The names of the credentials that were asked for.
    pub(in crate::config) fn into_credentials(self) -> Vec<String> {
        self.credentials.into_inner().into_iter().collect()
    }

    /// Whether what stands there is some provider's that nobody asked for, or none's at all.
    fn is_idle(&self, place: &Place) -> bool {
        let Keys::ReportedOf(providers) = self.keys else { return false };
        !providers.iter().any(|name| place.path.starts_with(&format!("provider.{name}.")))
    }

    /// Whether the secret of that place is read at all.
    pub(super) fn wants_secret(&self, place: &Place) -> bool {
        self.keys != Keys::Skipped && !self.is_idle(place)
    }

    /// A secret's text where it is wanted and can be had; what is wrong with it is reported, never shown.
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
        match (self.surroundings.secret(source), self.keys) {
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

/// How often and how long, for probes that do not say it themselves.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

impl Timing {
    /// The section's own interval and timeout, these where it has none.
    pub(super) fn overridden_by(self, section: &mut Section<'_>) -> Self {
        Self {
            interval: section.duration("interval", &INTERVALS).unwrap_or(self.interval),
            timeout: section.duration("timeout", &TIMEOUTS).unwrap_or(self.timeout),
        }
    }
}

/// `[defaults]`.
pub(super) struct Defaults {
    /// Of every check that generates nothing.
    pub(super) plain: Timing,
    /// `[defaults.generation]`.
    pub(super) generation: Timing,
}

/// A probe and where the file asks for it.
pub(super) struct Placed {
    pub(super) probe: Probe,
    pub(super) place: Place,
}
