//! One run as it is kept: what strips, charts and figures need.

use std::{
    borrow::Cow,
    num::NonZero,
    time::{Duration, SystemTime},
};

use crate::outcome::{Fault, Outcome, Phases, Reason};

/// Above 71 minutes a run is longer than any timeout.
type Micros = u32;

/// A finished run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// When it began.
    pub time: SystemTime,
    /// Why it ended as it did.
    pub reason: Reason,
    /// Whose part failed.
    pub fault: Fault,
    /// Whether it succeeded above the probe's `slow_after`.
    pub slow: bool,
    /// Whether it failed on the network while the prober itself was offline.
    pub offline: bool,
    /// Status of the response; `None` without one.
    pub http_status: Option<u16>,
    /// What only a failed run has; `None` on success.
    pub failure: Option<Box<Failure>>,
    duration: Micros,
    phases: [Micros; Phases::NAMES.len()],
    first_token: Option<NonZero<Micros>>,
    per_token: Option<NonZero<Micros>>,
}

/// Of a failed run.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What exactly happened, in our own words; empty where the reason says it all.
    pub detail: Cow<'static, str>,
    /// What to do about it, in our own words.
    pub hint: &'static str,
    /// The service's own code, gated.
    pub error_code: Option<Cow<'static, str>>,
    /// The provider that a gateway's error names, gated.
    pub upstream: Option<&'static str>,
    /// How long the service asks to wait, in seconds; `None` where it does not ask.
    pub retry_after: Option<f64>,
    /// The service's id of the request, gated: what a ticket needs.
    pub request_id: Option<Box<str>>,
}

impl Run {
    /// What is kept of an outcome that came while the prober itself was offline, or was not.
    pub fn of(outcome: &Outcome, offline: bool) -> Self {
        let failure = (!outcome.success()).then(|| {
            Box::new(Failure {
                detail: outcome.detail.clone(),
                hint: outcome.hint,
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
            offline: offline && outcome.fault == Fault::Network,
            http_status: outcome.http_status,
            failure,
            duration: micros(outcome.duration),
            phases: outcome.phases.durations().map(micros),
            first_token: outcome.time_to_first_token.and_then(|time| NonZero::new(micros(time))),
            per_token: outcome.time_per_output_token.and_then(|time| NonZero::new(micros(time))),
        }
    }

    /// Whether it succeeded.
    pub fn success(&self) -> bool {
        self.reason == Reason::Ok
    }

    /// Whether it counts against availability: caller and prober faults are not the service's downtime. `None`: it says
    /// nothing of it, since the prober itself was offline.
    pub fn is_downtime(&self) -> Option<bool> {
        let down = matches!(self.fault, Fault::Gateway | Fault::Provider | Fault::Network);
        (!self.offline).then_some(down)
    }

    /// From its start to its end.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration.into())
    }

    /// In the order of [`Phases::NAMES`].
    pub fn phases(&self) -> [Duration; Phases::NAMES.len()] {
        self.phases.map(|phase| Duration::from_micros(phase.into()))
    }

    /// Until the first visible content of a stream; `None` where there was none, or no stream.
    pub fn first_token(&self) -> Option<Duration> {
        self.first_token.map(|time| Duration::from_micros(time.get().into()))
    }

    /// Between the visible tokens of a stream, on average; `None` where it cannot be told.
    pub fn per_token(&self) -> Option<Duration> {
        self.per_token.map(|time| Duration::from_micros(time.get().into()))
    }
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_nanos().saturating_add(500) / 1000).unwrap_or(Micros::MAX)
}
