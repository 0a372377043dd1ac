//! A run in compact form, as strips, charts and statistics need it.

use std::{
    borrow::Cow,
    num::NonZero,
    time::{Duration, SystemTime},
};

use crate::outcome::{Detail, Fault, Outcome, Phases, Reason};

/// Microseconds. The maximum of 71 minutes is longer than any timeout.
type Micros = u32;

/// A finished run.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, in a byte each")]
pub struct Run {
    /// Start of the run.
    pub time: SystemTime,
    /// Reason of the result.
    pub reason: Reason,
    /// Party responsible for the failure.
    pub fault: Fault,
    /// Whether it succeeded, but took longer than the probe's `slow_after`.
    pub slow: bool,
    /// Whether another model than the requested one answered.
    pub is_of_another_model: bool,
    /// Whether its stream was held back.
    pub buffered: bool,
    /// Whether it failed on the network while the prober itself was offline.
    pub offline: bool,
    status: Option<NonZero<u16>>,
    /// Details of a failure. `None` on success.
    pub failure: Option<Box<Failure>>,
    duration: Micros,
    phases: [Micros; Phases::NAMES.len()],
    first_token: Option<NonZero<Micros>>,
    per_token: Option<NonZero<Micros>>,
}

/// Details of a failed run.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Detail of the failure. `None` if the reason is sufficient.
    pub detail: Option<Detail>,
    /// Remedy.
    pub hint: Cow<'static, str>,
    /// Error code of the service, from the allowlist.
    pub error_code: Option<Cow<'static, str>>,
    /// Provider named in a gateway's error, from the allowlist.
    pub upstream: Option<&'static str>,
    /// Wait requested by the service, in seconds. `None` if it requested none.
    pub retry_after: Option<f64>,
    /// Request ID assigned by the service, which its support asks for.
    pub request_id: Option<Box<str>>,
}

impl Run {
    /// Converts an outcome.
    pub fn new(outcome: &Outcome) -> Self {
        let failure = (!outcome.success()).then(|| {
            Box::new(Failure {
                detail: outcome.detail.clone(),
                hint: outcome.hint.clone(),
                error_code: outcome.error_code.clone(),
                upstream: outcome.upstream,
                retry_after: outcome.retry_after,
                request_id: outcome.request_id.as_deref().map(Into::into),
            })
        });
        Self {
            time: outcome.time,
            reason: outcome.reason,
            fault: outcome.fault,
            slow: outcome.slow,
            is_of_another_model: outcome.model_match == Some(false),
            buffered: outcome.buffered == Some(true),
            offline: outcome.offline,
            status: outcome.http_status.and_then(NonZero::new),
            failure,
            duration: micros(outcome.duration),
            phases: outcome.phases.durations().map(micros),
            first_token: outcome.time_to_first_token.and_then(|time| NonZero::new(micros(time))),
            per_token: outcome.token_time().and_then(|time| NonZero::new(micros(time))),
        }
    }

    /// Returns the status of the response; `None` without one.
    pub fn http_status(&self) -> Option<u16> {
        self.status.map(NonZero::get)
    }

    /// Returns whether the run succeeded.
    pub fn success(&self) -> bool {
        self.reason == Reason::Ok
    }

    /// Returns whether the run counts as downtime of the service. Returns `None` if the prober
    /// itself was offline, because the run is then no evidence.
    pub fn is_downtime(&self) -> Option<bool> {
        (!self.offline).then_some(self.fault.is_downtime())
    }

    /// Returns the duration of the run.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration.into())
    }

    /// Returns the time spent in each phase, in the order of [`Phases::NAMES`].
    pub fn phases(&self) -> [Duration; Phases::NAMES.len()] {
        self.phases.map(|phase| Duration::from_micros(phase.into()))
    }

    /// Returns the time to the first visible content of a stream. Returns `None` if there was none.
    pub fn first_token(&self) -> Option<Duration> {
        self.first_token.map(|time| Duration::from_micros(time.get().into()))
    }

    /// Returns the mean time between the visible tokens of a stream. Returns `None` below 64
    /// tokens, and if the stream was held back.
    pub fn per_token(&self) -> Option<Duration> {
        self.per_token.map(|time| Duration::from_micros(time.get().into()))
    }
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_nanos().saturating_add(500) / 1000).unwrap_or(Micros::MAX)
}
