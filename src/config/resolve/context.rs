//! Shared inputs of a resolution: secrets, the report, and the default timing of probes.

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, TcpListener},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use crate::config::{
    environment::{Environment, Keys, exposure},
    model::{KeySource, Probe},
    problem::{Place, Report},
    raw::Section,
    service::{Service, Usage, first_free_port},
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
    unread: RefCell<Vec<KeySource>>,
}

impl<'a> Context<'a> {
    pub(in crate::config) fn new(
        keys: Keys<'a>,
        environment: &'a Environment<'a>,
        report: &'a Report,
    ) -> Self {
        Self { keys, environment, report, unread: RefCell::default() }
    }

    /// Returns the sources of secrets that could not be read.
    pub(in crate::config) fn into_unread(self) -> Vec<KeySource> {
        self.unread.into_inner()
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
        if self.is_idle(place) || self.keys == Keys::Skipped {
            return None;
        }
        if let Some(message) = exposure(source, self.service_group()) {
            self.report.error(place, message);
            return None;
        }
        if let KeySource::File(path) = source {
            self.check_readable(path, Usage::Key, place);
        }
        let read = match self.keys {
            Keys::ReportedFor(service) => {
                // Commands in the same shell, such as once, cannot read these.
                if !matches!(source, KeySource::File(_)) {
                    self.unread.borrow_mut().push(source.clone());
                }
                service.secret(source)
            }
            _ => self.environment.secret(source).map(Some),
        };
        match read {
            Ok(Some(text)) => match check(&text) {
                Ok(()) => return Some(text),
                Err(message) => self.report.error(place, message),
            },
            Ok(None) => {}
            Err(message) => {
                self.unread.borrow_mut().push(source.clone());
                if self.is_required(source) {
                    self.report.error(place, message);
                } else {
                    self.report.warning(place, message);
                }
            }
        }
        None
    }

    /// Returns whether a secret that cannot be read is an error. With [`Keys::Strict`] it is one if
    /// the daemon could not read it either. systemd hides credentials from `ExecReload=`, so that
    /// nothing is known about them there.
    fn is_required(&self, source: &KeySource) -> bool {
        match (self.keys, source) {
            (Keys::Required, _) | (Keys::Strict, KeySource::File(_)) => true,
            (Keys::Strict, KeySource::Env(_)) => self.environment.is_service(),
            _ => false,
        }
    }

    /// Returns the group of the service for which keys are reported.
    pub(super) fn service_group(&self) -> Option<&'a str> {
        match self.keys {
            Keys::ReportedFor(service) => Some(service.group()),
            _ => None,
        }
    }

    /// Warns of a file or listed directory that the service cannot read.
    pub(in crate::config) fn check_readable(&self, path: &Path, usage: Usage, place: &Place) {
        if let Keys::ReportedFor(service) = self.keys
            && let Some(message) = service.read_problem(path, usage)
        {
            self.report.warning(place, message);
        }
    }

    /// Reports a directory that the service, or this process, cannot write to.
    pub(super) fn check_writable(&self, directory: &Path, usage: Usage, place: &Place) {
        let of_service = |service: &Service| service.write_problem(directory, usage);
        self.check_access(place, of_service, || write_problem(directory));
    }

    /// Reports an address that the service, or this process, may not bind.
    pub(super) fn check_listen(&self, address: SocketAddr, place: &Place) {
        self.check_access(place, |service| service.listen_problem(address), || listen_problem(address));
    }

    /// Reports a problem of the service as a warning, or of this process as an error.
    fn check_access(
        &self,
        place: &Place,
        of_service: impl Fn(&Service) -> Option<String>,
        of_process: impl Fn() -> Option<String>,
    ) {
        match self.keys {
            Keys::ReportedFor(service) => {
                if let Some(message) = of_service(service) {
                    self.report.warning(place, message);
                }
            }
            Keys::Strict => {
                if let Some(message) = of_process() {
                    self.report.error(place, message);
                }
            }
            _ => {}
        }
    }
}

/// Returns why this process cannot write to a directory, which it creates if necessary.
fn write_problem(directory: &Path) -> Option<String> {
    let existing = directory.ancestors().find(|path| path.exists())?;
    let error = access(existing, Access::WRITE_OK | Access::EXEC_OK).err()?;
    let remedy = if error == rustix::io::Errno::ROFS {
        format!(
            "under systemd, add ReadWritePaths={} under [Service] with: systemctl edit langmart-prober",
            directory.display()
        )
    } else {
        "grant the prober's user the permission to write there".to_owned()
    };
    let error = io::Error::from(error);
    Some(format!("{} cannot be written: {error}; {remedy}", existing.display()))
}

/// Returns why this process may not bind an address. One that is in use is that of the daemon.
fn listen_problem(address: SocketAddr) -> Option<String> {
    let first = first_free_port();
    let needs_privilege = address.port() != 0 && address.port() < first;
    let error = needs_privilege.then(|| TcpListener::bind(address).err()).flatten()?;
    (error.kind() == io::ErrorKind::PermissionDenied).then(|| {
        format!(
            "\"{address}\" may not be bound by this user: {error}; use a port from {first}, such as 10429"
        )
    })
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
