//! The outages in memory: the same ledger as `report --incidents`, from the last runs of each
//! probe.

use std::{
    collections::BTreeSet,
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
    config::Probe,
    history::{MAX_RUNS, Run},
    incidents::{FailedRequest, Ledger, Observed, Outage, StatusPageReport},
    outcome::{Outcome, rfc3339},
};

/// Maximum number of outages that are shown, the latest first.
const MAX_SHOWN: usize = 20;

/// Maximum number of probes that an outage lists by name.
const MAX_NAMES: usize = 12;

/// Shows the outages of these runs of each probe.
pub(super) fn outages<'a>(
    view: &View<'_>,
    runs: impl Iterator<Item = (&'a Probe, &'a [Arc<Run>])>,
) -> Markup {
    let outages = in_memory(view, runs);
    html! {
        section #outages aria-labelledby="outages-title" {
            h2 #outages-title { "Outages" }
            @if outages.is_empty() {
                p.calm { "None in the last " (MAX_RUNS) " runs of each probe." }
            }
            @for outage in outages.iter().rev().take(MAX_SHOWN) { (write_outage(outage, view.now)) }
            p.note { "From the last " (MAX_RUNS) " runs of each probe, since the start of the daemon. For more, "
                "with what the status page reported, availability by month, Markdown and CSV: "
                code { "langmart-prober report --incidents" } "." }
        }
    }
}

/// A run by reference: of a check of the service, or of a status page.
#[derive(Clone, Copy)]
enum Source<'a> {
    Service(&'a Probe, &'a Run),
    Page(&'a Probe, &'a Outcome),
}

impl Source<'_> {
    fn time(self) -> SystemTime {
        match self {
            Self::Service(_, run) => run.time,
            Self::Page(_, outcome) => outcome.time,
        }
    }

    fn add_to(self, ledger: &mut Ledger) {
        match self {
            Self::Service(probe, run) => ledger.add(&observed(probe, run, &detail(run))),
            Self::Page(probe, outcome) => ledger.add(&page_read(probe, outcome)),
        }
    }
}

/// Returns the outages by start.
fn in_memory<'a>(view: &View<'_>, runs: impl Iterator<Item = (&'a Probe, &'a [Arc<Run>])>) -> Vec<Outage> {
    let has_failed = |runs: &[Arc<Run>]| runs.iter().any(|run| run.is_downtime() == Some(true));
    let of_service = runs.filter(|(probe, runs)| probe.check().addresses_service() && has_failed(runs));
    let mut sources: Vec<Source<'_>> = of_service
        .flat_map(|(probe, runs)| runs.iter().map(move |run| Source::Service(probe, run)))
        .collect();
    // Most of the time there is nothing to sort.
    if sources.is_empty() {
        return Vec::new();
    }
    let all = view.history.all();
    let of_pages = all.values().filter(|history| !history.probe.check().addresses_service());
    let pages: Vec<_> = of_pages.map(|history| (&*history.probe, history.whole())).collect();
    for (probe, reads) in &pages {
        sources.extend(reads.iter().map(|outcome| Source::Page(probe, outcome)));
    }
    sources.sort_by_key(|source| source.time());
    let mut ledger = Ledger::default();
    for source in sources {
        source.add_to(&mut ledger);
    }
    let mut outages = ledger.finish(view.now).outages;
    // An incident of the oldest read in memory may have been admitted before it.
    let oldest = |(_, reads): &(_, Vec<Arc<Outcome>>)| {
        reads.iter().find(|outcome| outcome.status_page.is_some()).map(|outcome| outcome.time)
    };
    let oldest: BTreeSet<SystemTime> = pages.iter().filter_map(oldest).collect();
    for outage in &mut outages {
        let is_known = |page: &StatusPageReport| page.first_admission.is_none_or(|at| !oldest.contains(&at));
        outage.status_page = outage.status_page.filter(is_known);
    }
    outages
}

fn detail(run: &Run) -> String {
    let detail = run.failure.as_deref().and_then(|failure| failure.detail.as_ref());
    detail.map(ToString::to_string).unwrap_or_default()
}

fn observed<'a>(probe: &'a Probe, run: &'a Run, detail: &'a str) -> Observed<'a> {
    let subject = probe.subject();
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
fn page_read<'a>(probe: &'a Probe, outcome: &'a Outcome) -> Observed<'a> {
    let subject = probe.subject();
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
