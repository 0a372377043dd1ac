//! The outages in memory: the same ledger as `report --incidents`, from the last runs of each
//! probe.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use maud::{Markup, html};

use super::{
    View,
    overview::time,
    words::{fault, span},
};
use crate::{
    history::{MAX_RUNS, ProbeHistory, Run},
    incidents::{FailedRequest, Ledger, Observed, Outage},
    outcome::{Outcome, rfc3339},
};

/// Maximum number of outages that are shown, the latest first.
const MAX_SHOWN: usize = 20;

/// Maximum number of probes that an outage lists by name.
const MAX_NAMES: usize = 12;

/// Shows the outages in memory.
pub(super) fn outages(view: &View<'_>) -> Markup {
    let outages = in_memory(view);
    html! {
        section #outages aria-labelledby="outages-title" {
            h2 #outages-title { "Outages" }
            @if outages.is_empty() {
                p.calm { "None in the last " (MAX_RUNS) " runs of each probe." }
            }
            @for outage in outages.iter().rev().take(MAX_SHOWN) { (write_outage(outage, view.now)) }
            p.note { "From the last " (MAX_RUNS) " runs of each probe, since the start of the daemon. For more, "
                "with the status page's admissions, availability by month, Markdown and CSV: "
                code { "langmart-prober report --incidents" } "." }
        }
    }
}

/// Returns the outages by start.
fn in_memory(view: &View<'_>) -> Vec<Outage> {
    let all = view.history.all();
    let snapshots: Vec<_> = all.values().map(|history| (history, history.snapshot().runs)).collect();
    let has_failed = |runs: &[Arc<Run>]| runs.iter().any(|run| run.is_downtime() == Some(true));
    let is_failing = |history: &ProbeHistory, runs: &[Arc<Run>]| {
        history.probe.check().addresses_service() && has_failed(runs)
    };
    // Most of the time there is nothing to sort.
    if !snapshots.iter().any(|(history, runs)| is_failing(history, runs)) {
        return Vec::new();
    }
    let pages: Vec<_> = all
        .values()
        .filter(|history| !history.probe.check().addresses_service())
        .map(|history| (history, history.whole()))
        .collect();
    let of_service = snapshots.iter().filter(|(history, runs)| is_failing(history, runs));
    let of_service: Vec<_> = of_service
        .flat_map(|(history, runs)| runs.iter().map(|run| (&***history, &**run, detail(run))))
        .collect();
    let of_service = of_service.iter().map(|(history, run, detail)| observed(history, run, detail));
    let of_pages = pages.iter().flat_map(|(history, runs)| runs.iter().map(|run| page_read(history, run)));
    let mut runs: Vec<_> = of_service.chain(of_pages).collect();
    runs.sort_by_key(|run| run.time);
    let mut ledger = Ledger::default();
    for run in &runs {
        ledger.add(run);
    }
    ledger.finish(view.now).outages
}

fn detail(run: &Run) -> String {
    let detail = run.failure.as_deref().and_then(|failure| failure.detail.as_ref());
    detail.map(ToString::to_string).unwrap_or_default()
}

fn observed<'a>(history: &'a ProbeHistory, run: &'a Run, detail: &'a str) -> Observed<'a> {
    let subject = history.probe.subject();
    let failure = run.failure.as_deref();
    Observed {
        time: run.time,
        probe: subject.probe,
        provider: subject.provider,
        check: subject.check,
        model: subject.model,
        reason: run.reason,
        fault: run.fault,
        offline: run.offline,
        detail,
        http_status: run.http_status(),
        error_code: failure.and_then(|failure| failure.error_code.as_deref()),
        upstream: failure.and_then(|failure| failure.upstream),
        request_id: failure.and_then(|failure| failure.request_id.as_deref()),
        retry_after: failure.and_then(|failure| failure.retry_after),
        comparison: None,
        status_page: None,
    }
}

/// Converts a run of a status check.
fn page_read<'a>(history: &'a ProbeHistory, outcome: &'a Outcome) -> Observed<'a> {
    let subject = history.probe.subject();
    Observed {
        time: outcome.time,
        probe: subject.probe,
        provider: subject.provider,
        check: subject.check,
        model: None,
        reason: outcome.reason,
        fault: outcome.fault,
        offline: outcome.offline,
        detail: "",
        http_status: outcome.http_status,
        error_code: None,
        upstream: None,
        request_id: None,
        retry_after: None,
        comparison: None,
        status_page: outcome.status_page.as_ref(),
    }
}

fn write_outage(outage: &Outage, now: SystemTime) -> Markup {
    let reason = outage.reasons.first().map(|kind| kind.reason.info().summary).unwrap_or_default();
    html! {
        details.outage {
            summary {
                (time(outage.start, now)) " UTC, " strong { (outage.provider) } " "
                span.reason { (reason) } ", " (span(outage.duration))
                @if outage.end.is_none() { ", continues" }
            }
            dl.facts {
                div { dt { "Fault" } dd { (fault(outage.fault)) @if let Some(upstream) = &outage.upstream { ", upstream " (upstream) } } }
                div { dt { "End" } dd {
                    @match outage.end {
                        None => "the outage continues",
                        Some(end) if outage.end_observed => { (time(end, now)) " UTC" }
                        Some(end) => { "unknown: no run after " (time(end, now)) " UTC" }
                    }
                } }
                div { dt { "Down for" } dd { (span(outage.down)) @if outage.relapses > 0 { ", relapses: " (outage.relapses) } } }
                div { dt { "Failed runs" } dd { (outage.failed_runs) " of " (outage.runs) } }
                @if let Some(page) = outage.status_page {
                    div { dt { "Status page" } dd { @match page.first_admission.zip(page.lag_seconds) {
                        Some((at, lag)) => {
                            "first incident seen at " (time(at, now)) " UTC, " (span(Duration::from_secs(lag.unsigned_abs())))
                            @if lag < 0 { " before" } @else { " after" } " the start"
                        }
                        None => "no incident",
                    } } }
                }
                @for window in &outage.maintenance {
                    div { dt { "Announced maintenance" } dd { (rfc3339(window.start)) @if let Some(end) = window.end { " to " (rfc3339(end)) } } }
                }
            }
            p.who {
                @for (number, affected) in outage.probes.iter().take(MAX_NAMES).enumerate() {
                    @if number > 0 { ", " }
                    a href={ "/probes/" (affected.probe) } { (affected.probe) }
                    @if let Some(model) = &affected.model { " · " (model) }
                }
                @if outage.probe_count > MAX_NAMES { " and " (outage.probe_count - MAX_NAMES) " more" }
            }
            (write_reasons(outage, now))
            (write_requests(outage.requests(), now))
        }
    }
}

fn write_reasons(outage: &Outage, now: SystemTime) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Reasons" {
            table {
                thead { tr { th scope="col" { "Reason" } th scope="col" { "Code" } th.n scope="col" { "Status" } th scope="col" { "First" } th scope="col" { "Last" } th.n scope="col" { "Runs" } } }
                tbody { @for kind in &outage.reasons {
                    tr {
                        td { (kind.reason.info().summary) @if !kind.detail.is_empty() { span.sub { (kind.detail) } } }
                        td { (kind.error_code.as_deref().unwrap_or("–")) }
                        td.n { (kind.http_status.map_or_else(|| "–".to_owned(), |status| status.to_string())) }
                        td { (time(kind.first, now)) }
                        td { (time(kind.last, now)) }
                        td.n { (kind.runs) }
                    }
                } }
            }
        }
    }
}

fn write_requests<'a>(requests: impl Iterator<Item = &'a FailedRequest>, now: SystemTime) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Failed requests" {
            table {
                thead { tr { th scope="col" { "Time" } th scope="col" { "Probe" } th scope="col" { "Request ID" } } }
                tbody { @for request in requests {
                    tr { td { (time(request.time, now)) } td { (request.probe) } td { (request.request_id.as_deref().unwrap_or("–")) } }
                } }
            }
        }
    }
}
