//! One run as it is kept: what a strip, a chart and the record of the API need.

use std::{
    borrow::Cow,
    num::NonZero,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::outcome::{Fault, Outcome, Phases, Reason, Subject, rfc3339};

/// A microsecond is what the records tell; above 71 minutes a run is longer than any timeout.
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
    /// US dollars; `None`: not known.
    pub cost_usd: Option<f32>,
    /// Tokens of the prompt; `None`: not told.
    pub input_tokens: Option<u32>,
    /// Tokens of the answer; `None`: not told.
    pub output_tokens: Option<u32>,
    /// Whether we estimated any of these, since the service did not count it.
    pub tokens_estimated: bool,
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
        let tokens = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            time: outcome.time,
            reason: outcome.reason,
            fault: outcome.fault,
            slow: outcome.slow,
            offline: offline && outcome.fault == Fault::Network,
            http_status: outcome.http_status,
            cost_usd: outcome.estimated_cost_usd.map(|cost| cost as f32),
            input_tokens: outcome.input_tokens.map(tokens),
            output_tokens: outcome.output_tokens.map(tokens),
            tokens_estimated: outcome.tokens_estimated,
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

    /// The result record of the run, with those members that are kept.
    pub fn record<'a>(&'a self, subject: Subject<'a>) -> RunRecord<'a> {
        RunRecord { subject, run: self }
    }
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_nanos().saturating_add(500) / 1000).unwrap_or(Micros::MAX)
}

/// A run as the API tells it: the names are those of the result record, whose other members are not kept.
#[derive(Clone, Copy, Debug)]
pub struct RunRecord<'a> {
    subject: Subject<'a>,
    run: &'a Run,
}

impl Serialize for RunRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Subject { probe, provider, check, model } = self.subject;
        let run = self.run;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &rfc3339(run.time))?;
        map.serialize_entry("probe", probe)?;
        map.serialize_entry("provider", provider)?;
        map.serialize_entry("check", &check)?;
        optional(&mut map, "model", model)?;
        map.serialize_entry("success", &run.success())?;
        map.serialize_entry("reason", &run.reason)?;
        map.serialize_entry("fault", &run.fault)?;
        if let Some(Failure { detail, hint, .. }) = run.failure.as_deref() {
            optional(&mut map, "detail", (!detail.is_empty()).then_some(detail))?;
            optional(&mut map, "hint", (!hint.is_empty()).then_some(hint))?;
        }
        optional(&mut map, "http_status", run.http_status)?;
        if let Some(Failure { error_code, upstream, retry_after, request_id, .. }) = run.failure.as_deref() {
            optional(&mut map, "error_code", error_code.as_ref())?;
            optional(&mut map, "upstream", *upstream)?;
            optional(&mut map, "retry_after_seconds", *retry_after)?;
            optional(&mut map, "request_id", request_id.as_ref())?;
        }
        map.serialize_entry("duration_seconds", &seconds(run.duration))?;
        let phases: serde_json::Map<_, _> = Phases::NAMES
            .iter()
            .zip(run.phases)
            .map(|(name, time)| ((*name).to_owned(), seconds(time).into()))
            .collect();
        map.serialize_entry("phases", &phases)?;
        optional(&mut map, "time_to_first_token_seconds", run.first_token.map(|time| seconds(time.get())))?;
        optional(&mut map, "time_per_output_token_seconds", run.per_token.map(|time| seconds(time.get())))?;
        optional(&mut map, "input_tokens", run.input_tokens)?;
        optional(&mut map, "output_tokens", run.output_tokens)?;
        optional(&mut map, "tokens_estimated", run.tokens_estimated.then_some(true))?;
        optional(&mut map, "estimated_cost_usd", run.cost_usd)?;
        optional(&mut map, "slow", run.slow.then_some(true))?;
        map.end()
    }
}

fn optional<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &'static str,
    value: Option<T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

fn seconds(micros: Micros) -> f64 {
    f64::from(micros) / 1e6
}
