//! One outage.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{name::Name, run::Observed, span::Span};
use crate::outcome::{Check, Fault, PairVerdict, Reason, in_record};

/// Number of the first and of the last failed requests that are listed with their IDs.
const MAX_LISTED_REQUESTS: usize = 5;

/// Maximum number of kinds of failures that are listed.
const MAX_KINDS: usize = 16;

/// Maximum number of probes that are listed.
const MAX_PROBES: usize = 100;

/// Maximum number of comparisons that are listed.
const MAX_COMPARISONS: usize = 16;

/// A period in which probes of a provider failed by the same party's fault.
#[derive(Debug, Serialize)]
pub struct Outage {
    /// The provider's name.
    pub provider: Name,
    /// Party responsible for the failures.
    pub fault: Fault,
    /// Provider behind the gateway, named in the failures. `None` if none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Name>,
    /// Start of the first failed run.
    #[serde(serialize_with = "in_record")]
    pub start: SystemTime,
    /// Start of the last run before it that showed the service up. `None` if there was none: the
    /// outage may have begun earlier.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub last_up_before: Option<SystemTime>,
    /// Start of the run that showed the last probe up again. `None` if the outage continues.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub end: Option<SystemTime>,
    /// Whether a run showed the end. If not, there were no further runs, and `end` is the time up
    /// to which the last failed run counts.
    pub end_observed: bool,
    /// Time from start to end.
    #[serde(rename = "duration_seconds", serialize_with = "in_record")]
    pub duration: Duration,
    /// Time of it in which at least one probe was down. It is less if the service recovered in
    /// between.
    #[serde(rename = "down_seconds", serialize_with = "in_record")]
    pub down: Duration,
    /// Number of times that a probe failed again after one or two successes.
    pub relapses: u64,
    /// Affected models.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub models: BTreeSet<Name>,
    /// Affected probes, at most a hundred.
    pub probes: Vec<AffectedProbe>,
    /// Number of affected probes.
    pub probe_count: usize,
    /// Runs of the affected probes.
    pub runs: u64,
    /// Failed runs: the requests affected.
    pub failed_runs: u64,
    /// Kinds of failures, in the order of their first occurrence.
    pub reasons: Vec<FailureKind>,
    /// The first and the last failed requests.
    #[serde(serialize_with = "in_sequence")]
    requests: Requests,
    /// Incident on the provider's status page. `None` if no page is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_page: Option<StatusPageReport>,
    /// Announced maintenance during the outage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<Maintained>,
    /// Verdicts of comparisons with the other path, with their numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub comparisons: BTreeMap<Name, BTreeMap<PairVerdict, u64>>,
    /// Runs of the same probes from other vantage points.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vantage_points: Vec<Elsewhere>,
    /// Number of affected probes that have not recovered.
    #[serde(skip)]
    open_probes: usize,
    /// Whether a probe without a model is affected.
    #[serde(skip)]
    is_of_service: bool,
    #[serde(skip)]
    span: Span,
}

/// A probe of an outage.
#[derive(Clone, Debug, Serialize)]
pub struct AffectedProbe {
    /// The probe's name.
    pub probe: Name,
    /// The probe's check.
    pub check: Check,
    /// The model. `None` if the probe has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Name>,
    /// Start of its first failed run.
    #[serde(serialize_with = "in_record")]
    pub start: SystemTime,
    /// Start of the run that showed it up again. `None` if it is still down.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub end: Option<SystemTime>,
    /// Its failed runs.
    pub failed_runs: u64,
}

/// Failed runs with the same reason, code and status.
#[derive(Clone, Debug, Serialize)]
pub struct FailureKind {
    /// Reason of the result.
    pub reason: Reason,
    /// Error code of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<Box<str>>,
    /// HTTP status of the response. `None` if there was no response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Details of the last of them; empty if the reason is sufficient.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: Box<str>,
    /// The first run.
    #[serde(serialize_with = "in_record")]
    pub first: SystemTime,
    /// The last run.
    #[serde(serialize_with = "in_record")]
    pub last: SystemTime,
    /// Number of runs.
    pub runs: u64,
}

/// A failed request, as a provider's support looks it up.
#[derive(Clone, Debug, Serialize)]
pub struct FailedRequest {
    /// Start of the run.
    #[serde(serialize_with = "in_record")]
    pub time: SystemTime,
    /// The probe's name.
    pub probe: Name,
    /// HTTP status of the response. `None` if there was no response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Request ID assigned by the service. `None` if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Box<str>>,
}

/// The first and the last failed requests; those with an ID are preferred.
#[derive(Clone, Debug, Default)]
struct Requests {
    first: Vec<FailedRequest>,
    last: VecDeque<FailedRequest>,
}

/// Report of an outage by the provider's status page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StatusPageReport {
    /// First run that saw an incident there. `None` if the page was read, but reported none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub first_admission: Option<SystemTime>,
    /// Time from the start of the outage to it; negative if the page was earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
}

/// An announced maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Maintained {
    /// Start.
    #[serde(serialize_with = "in_record")]
    pub start: SystemTime,
    /// End. `None` if none is announced.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub end: Option<SystemTime>,
}

/// Runs of the affected probes from another vantage point, during an outage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// Name of the vantage point.
    pub vantage: Name,
    /// Number of runs.
    pub runs: u64,
    /// Number of them that showed the service down.
    pub failed_runs: u64,
}

/// A failing probe, as its outage knows it.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) probe: &'a Name,
    pub(super) check: Check,
    pub(super) model: Option<&'a Name>,
    /// Last run that showed the service up. `None` if there was none.
    pub(super) last_up: Option<SystemTime>,
    /// Usual time between two runs; zero if it is not known.
    pub(super) interval: Duration,
}

impl Outage {
    /// Creates the outage that a failed run begins, without its probe.
    pub(super) fn new(provider: &Name, run: &Observed<'_>, last_up: Option<SystemTime>) -> Self {
        Self {
            provider: provider.clone(),
            fault: run.fault,
            upstream: run.upstream.map(Name::from),
            start: run.time,
            last_up_before: last_up,
            end: None,
            end_observed: false,
            duration: Duration::ZERO,
            down: Duration::ZERO,
            relapses: 0,
            models: BTreeSet::new(),
            probes: Vec::new(),
            probe_count: 0,
            runs: 0,
            failed_runs: 0,
            reasons: Vec::new(),
            requests: Requests::default(),
            status_page: None,
            maintenance: Vec::new(),
            comparisons: BTreeMap::new(),
            vantage_points: Vec::new(),
            open_probes: 0,
            is_of_service: false,
            span: Span::default(),
        }
    }

    /// Returns whether the failure of a further probe belongs to this outage: the same party of the
    /// same provider, and either the same model, or it began within an interval of the first one.
    pub(super) fn includes(&self, provider: &Name, subject: &Subject<'_>, run: &Observed<'_>) -> bool {
        let is_of_model = subject.model.map_or(self.is_of_service, |model| self.models.contains(model));
        let begins_together = subject.last_up.is_none_or(|last_up| last_up <= self.start + subject.interval);
        self.provider == *provider
            && self.fault == run.fault
            && self.upstream.as_deref() == run.upstream
            && (is_of_model || begins_together)
    }

    /// Adds a failing probe. Returns its index, or `None` if no more are listed.
    pub(super) fn join(&mut self, subject: &Subject<'_>, time: SystemTime) -> Option<usize> {
        match subject.model {
            Some(model) if self.models.len() < MAX_PROBES => {
                self.models.insert(model.clone());
            }
            Some(_) => {}
            None => self.is_of_service = true,
        }
        self.open_probes += 1;
        if let Some(again) = self.probes.iter().position(|known| known.probe == *subject.probe) {
            self.probes[again].end = None;
            return Some(again);
        }
        self.probe_count += 1;
        if self.probes.len() == MAX_PROBES {
            return None;
        }
        let (probe, model) = (subject.probe.clone(), subject.model.cloned());
        self.probes.push(AffectedProbe {
            probe,
            check: subject.check,
            model,
            start: time,
            end: None,
            failed_runs: 0,
        });
        Some(self.probes.len() - 1)
    }

    /// Counts a failed run of a probe with that index, after that many successes which did not
    /// last.
    pub(super) fn add_failure(&mut self, probe: (&Name, Option<usize>), run: &Observed<'_>, successes: u64) {
        self.runs += 1 + successes;
        self.failed_runs += 1;
        self.relapses += u64::from(successes > 0);
        if let Some(affected) = probe.1.and_then(|index| self.probes.get_mut(index)) {
            affected.failed_runs += 1;
        }
        let same = |kind: &&mut FailureKind| {
            kind.reason == run.reason
                && kind.http_status == run.http_status
                && kind.error_code.as_deref() == run.error_code
        };
        let is_full = self.reasons.len() >= MAX_KINDS;
        match self.reasons.iter_mut().find(same) {
            Some(kind) => {
                kind.runs += 1;
                kind.last = run.time;
                if *kind.detail != *run.detail {
                    kind.detail = run.detail.into();
                }
            }
            None if !is_full => self.reasons.push(FailureKind {
                reason: run.reason,
                error_code: run.error_code.map(Into::into),
                http_status: run.http_status,
                detail: run.detail.into(),
                first: run.time,
                last: run.time,
                runs: 1,
            }),
            None => {}
        }
        self.requests.add(probe.0, run);
    }

    /// Begins downtime in the view of a probe.
    pub(super) fn enter(&mut self, at: SystemTime) {
        self.span.enter(at);
    }

    /// Ends downtime in the view of a probe.
    pub(super) fn leave(&mut self, at: SystemTime) {
        if let Some((since, until)) = self.span.leave(at) {
            self.down += until.duration_since(since).unwrap_or_default();
        }
    }

    /// Ends the outage for the probe with that index. Returns whether it was the last probe.
    pub(super) fn recover(&mut self, probe: Option<usize>, end: SystemTime, observed: bool) -> bool {
        if let Some(affected) = probe.and_then(|index| self.probes.get_mut(index)) {
            affected.end = Some(end);
        }
        if self.end.is_none_or(|known| known <= end) {
            (self.end, self.end_observed) = (Some(end), observed);
        }
        self.open_probes -= 1;
        self.open_probes == 0
    }

    /// Returns whether the last probe recovered before that time.
    pub(super) fn has_ended_before(&self, time: SystemTime) -> bool {
        self.open_probes == 0 && self.end.is_some_and(|end| end < time)
    }

    /// Counts a verdict of a comparison.
    pub(super) fn compare(&mut self, comparison: &Name, verdict: PairVerdict) {
        if self.comparisons.len() < MAX_COMPARISONS || self.comparisons.contains_key(comparison) {
            *self.comparisons.entry(comparison.clone()).or_default().entry(verdict).or_default() += 1;
        }
    }

    /// Computes the duration. An outage with a probe that is still down has no end.
    pub(super) fn complete(&mut self, now: SystemTime) {
        if self.open_probes > 0 {
            (self.end, self.end_observed) = (None, false);
        }
        self.duration = self.end.unwrap_or(now).duration_since(self.start).unwrap_or_default();
    }

    /// Returns whether this is the provider, or the one behind the gateway.
    pub(super) fn is_of(&self, provider: &str) -> bool {
        *self.provider == *provider || self.upstream.as_deref() == Some(provider)
    }

    /// Returns the listed failed requests, in order.
    pub fn requests(&self) -> impl Iterator<Item = &FailedRequest> {
        self.requests.first.iter().chain(&self.requests.last)
    }
}

impl Requests {
    fn add(&mut self, probe: &Name, run: &Observed<'_>) {
        let request = FailedRequest {
            time: run.time,
            probe: probe.clone(),
            http_status: run.http_status,
            request_id: run.request_id.map(Into::into),
        };
        if self.first.len() < MAX_LISTED_REQUESTS {
            self.first.push(request);
            return;
        }
        // Support finds a request by its ID.
        if request.request_id.is_none() && self.last.iter().any(|last| last.request_id.is_some()) {
            return;
        }
        if self.last.len() == MAX_LISTED_REQUESTS {
            self.last.pop_front();
        }
        self.last.push_back(request);
    }
}

fn in_sequence<S: Serializer>(requests: &Requests, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(requests.first.iter().chain(&requests.last))
}

impl StatusPageReport {
    /// Creates the report of an outage with that start.
    pub(super) fn new(start: SystemTime, first_admission: Option<SystemTime>) -> Self {
        let seconds = |time: SystemTime| crate::outcome::unix_seconds(time) as i64;
        let lag_seconds = first_admission.map(|at| seconds(at) - seconds(start));
        Self { first_admission, lag_seconds }
    }
}
