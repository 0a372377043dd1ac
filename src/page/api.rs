//! JSON for scripts: recent records and the states of the probes, with filters.

use std::{cmp::Reverse, time::SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::{View, figures::Figures, state::Now, words};
use crate::{
    history::{MAX_RUNS, ProbeHistory, whole_per_probe},
    outcome::{Check, Fault, Reason, Record, rfc3339},
};

/// Default and maximum number of records in a response.
const DEFAULT_LIMIT: usize = 1000;
const MAX_LIMIT: usize = 10_000;

/// The resource of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Recent records: `/api/v1/results`.
    Results,
    /// The states of the probes: `/api/v1/probes`.
    Probes,
}

/// A filter of records or probes. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    probe: Option<String>,
    provider: Option<String>,
    check: Option<Check>,
    model: Option<String>,
    reason: Option<Reason>,
    fault: Option<Fault>,
    success: Option<bool>,
    since: Option<SystemTime>,
    limit: Option<usize>,
}

/// An invalid query.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct FilterError(String);

impl Filter {
    /// Parses the query of a request, percent-encoded, for one of the resources.
    pub fn parse(query: &str, listing: Listing) -> Result<Self, FilterError> {
        let of_runs = listing == Listing::Results;
        let mut filter = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = &*value;
            match &*name {
                "probe" => filter.probe = Some(value.to_owned()),
                "provider" => filter.provider = Some(value.to_owned()),
                "model" => filter.model = Some(value.to_owned()),
                "check" => {
                    filter.check =
                        Some(one_of("check", value, Check::from_name, &names(Check::ALL, Check::name))?);
                }
                "reason" if of_runs => {
                    filter.reason =
                        Some(one_of("reason", value, Reason::from_name, &names(Reason::ALL, Reason::name))?);
                }
                "fault" if of_runs => {
                    filter.fault =
                        Some(one_of("fault", value, Fault::from_name, &names(Fault::ALL, Fault::name))?);
                }
                "success" if of_runs => {
                    filter.success = Some(one_of("success", value, |text| text.parse().ok(), "true, false")?);
                }
                "since" if of_runs => {
                    let time = |text: &str| text.parse::<jiff::Timestamp>().ok().map(SystemTime::from);
                    filter.since = Some(one_of("since", value, time, "times such as 2026-11-22T08:00:00Z")?);
                }
                "limit" if of_runs => {
                    let limit =
                        |text: &str| text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    filter.limit = Some(one_of("limit", value, limit, "1 to 10000")?);
                }
                _ => {
                    let known = if of_runs { ", reason, fault, success, since, limit" } else { "" };
                    return Err(FilterError(format!(
                        "unknown parameter; known parameters: probe, provider, check, model{known}"
                    )));
                }
            }
        }
        Ok(filter)
    }

    fn matches_probe(&self, history: &ProbeHistory) -> bool {
        let subject = history.probe.subject();
        self.probe.as_deref().is_none_or(|probe| probe == subject.probe)
            && self.provider.as_deref().is_none_or(|provider| provider == subject.provider)
            && self.check.is_none_or(|check| check == subject.check)
            && self.model.as_deref().is_none_or(|model| Some(model) == subject.model)
    }
}

fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> String {
    all.iter().map(|value| name(*value)).collect::<Vec<_>>().join(", ")
}

fn one_of<T>(
    name: &str,
    value: &str,
    parse: impl Fn(&str) -> Option<T>,
    allowed: &str,
) -> Result<T, FilterError> {
    parse(value).ok_or_else(|| FilterError(format!("{name} must be one of {allowed}")))
}

#[derive(Serialize)]
struct Results<'a> {
    kept_per_probe: usize,
    results: Vec<Record<'a>>,
}

/// Returns the recent records as JSON, the latest first.
pub fn results(view: &View<'_>, filter: &Filter) -> Vec<u8> {
    let all = view.history.all();
    let kept: Vec<_> = all
        .values()
        .filter(|history| filter.matches_probe(history))
        .map(|history| (history.probe.subject(), history.whole()))
        .collect();
    let mut results: Vec<_> = kept
        .iter()
        .flat_map(|(subject, runs)| runs.iter().map(|outcome| Record { subject: *subject, outcome }))
        .filter(|Record { outcome, .. }| {
            filter.reason.is_none_or(|reason| reason == outcome.reason)
                && filter.fault.is_none_or(|fault| fault == outcome.fault)
                && filter.success.is_none_or(|success| success == outcome.success())
                && filter.since.is_none_or(|since| outcome.time >= since)
        })
        .collect();
    results.sort_by_key(|record| Reverse(record.outcome.time));
    results.truncate(filter.limit.unwrap_or(DEFAULT_LIMIT));
    bytes(&Results { kept_per_probe: whole_per_probe(all.len()), results })
}

/// Returns the probes with their states as JSON, by name.
pub fn probes(view: &View<'_>, filter: &Filter) -> Vec<u8> {
    let all = view.history.all();
    let probes: Vec<_> = all
        .values()
        .filter(|history| filter.matches_probe(history))
        .map(|history| probe(view, history))
        .collect();
    bytes(&json!({ "kept_per_probe": MAX_RUNS, "probes": probes }))
}

fn probe(view: &View<'_>, history: &ProbeHistory) -> Value {
    let probe = &history.probe;
    let kept = history.snapshot();
    let now = Now::new(probe, &kept, view.budget.as_ref(), view.now);
    let figures = Figures::new(&kept.runs);
    let last = kept.runs.last();
    let failure = last.and_then(|run| run.failure.as_deref());
    let seconds = |duration: Option<std::time::Duration>| duration.map(|duration| duration.as_secs_f64());
    let time = |time: Option<SystemTime>| time.map(rfc3339);
    let mut value = json!({
        "probe": probe.name,
        "provider": probe.provider.name,
        "api": probe.provider.api,
        "check": probe.check(),
        "model": probe.model,
        "interval": words::interval(probe.interval),
        "timeout": words::interval(probe.timeout),
        "state": now.state.name(),
        "reason": last.map(|run| run.reason),
        "fault": last.map(|run| run.fault),
        "hint": failure.map(|failure| &failure.hint),
        "failing_since": time(kept.failing_since),
        "waits_for": now.wait.map(|(cause, _)| cause),
        "waits_until": time(now.wait.map(|(_, until)| until)),
        "last_run": time(last.map(|run| run.time)),
        "next_run": time(kept.waiting.next_run),
        "runs_kept": kept.runs.len(),
        "p50_seconds": seconds(figures.p50),
        "p95_seconds": seconds(figures.p95),
        "time_to_first_token_p50_seconds": seconds(figures.first_token),
        "available_ratio": figures.availability,
    });
    // Unknown members are omitted, as in the records.
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    value
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("its keys are strings and its numbers finite or null");
    bytes.push(b'\n');
    bytes
}
