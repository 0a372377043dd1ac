//! Formats the ledger as Markdown.

use std::{
    fmt::{self, Display, Write},
    time::Duration,
};

use super::{
    account::write_accounts,
    incidents::Listing,
    markdown::{escaped, figure, share, write_damage},
};
use crate::{
    config::duration,
    incidents::{MAX_OUTAGES, Outage, ProviderMonth, StatusPageReport},
    outcome::rfc3339,
};

/// Number of probes that an outage lists by name.
const MAX_NAMES: usize = 20;

/// Formats the ledger.
pub(super) fn markdown(listing: &Listing) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(listing, &mut text);
    text
}

fn write(listing: &Listing, text: &mut String) -> fmt::Result {
    let (since, until) = (rfc3339(listing.since), rfc3339(listing.until));
    let version = env!("CARGO_PKG_VERSION");
    writeln!(text, "# Outages from {since} to {until}\n")?;
    let count = listing.outages.len();
    let plural = if count == 1 { "outage" } else { "outages" };
    writeln!(text, "{count} {plural}. Recorded by langmart-prober {version}.")?;
    writeln!(text, "Failures with fault caller or prober are no outages of a service and are not listed.")?;
    if listing.omitted_outages > 0 {
        writeln!(text, "{} more after the first {MAX_OUTAGES} are not listed.", listing.omitted_outages)?;
    }
    if count > 0 {
        writeln!(
            text,
            "\n| # | start | duration | provider | fault | reason | failed runs |\n|---|---|---|---|---|---|---|"
        )?;
    }
    for (number, outage) in listing.outages.iter().enumerate() {
        let reason = outage.reasons.first().map(|kind| kind.reason.name()).unwrap_or_default();
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {reason} | {} of {} |",
            number + 1,
            rfc3339(outage.start),
            length(outage),
            outage.provider,
            outage.fault,
            outage.failed_runs,
            outage.runs
        )?;
    }
    for (number, outage) in listing.outages.iter().enumerate() {
        write_outage(number + 1, outage, text)?;
    }
    write_months(&listing.availability, text)?;
    write_accounts(&listing.account, text)?;
    write_damage(&listing.damage, text)
}

/// Returns the duration, or that the outage continues.
fn length(outage: &Outage) -> String {
    let length = seconds(outage.duration);
    if outage.end.is_none() { format!("{length}, continues") } else { length }
}

/// Formats a duration in whole seconds.
fn seconds(length: Duration) -> String {
    duration::format(Duration::from_secs(length.as_secs()))
}

fn write_outage(number: usize, outage: &Outage, text: &mut String) -> fmt::Result {
    write!(text, "\n## {number}. {}: fault {}", outage.provider, outage.fault)?;
    if let Some(upstream) = &outage.upstream {
        write!(text, ", upstream {upstream}")?;
    }
    writeln!(text, "\n\n- Start: {}", start(outage))?;
    writeln!(text, "- End: {}", end(outage))?;
    write!(text, "- Duration: {}, down for {} of it", seconds(outage.duration), seconds(outage.down))?;
    match outage.relapses {
        0 => writeln!(text)?,
        1 => writeln!(text, ", with 1 relapse after a short recovery")?,
        relapses => writeln!(text, ", with {relapses} relapses after short recoveries")?,
    }
    let names = outage
        .probes
        .iter()
        .take(MAX_NAMES)
        .map(|affected| format!("{} ({})", affected.probe, affected.check));
    let more = outage.probe_count.saturating_sub(MAX_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    writeln!(text, "- Probes: {}{more}", joined(names))?;
    if !outage.models.is_empty() {
        let models = outage.models.iter().map(|model| format!("`{}`", model.replace('`', "'")));
        writeln!(text, "- Models: {}", joined(models))?;
    }
    writeln!(text, "- Failed runs: {} of {}", outage.failed_runs, outage.runs)?;
    write_other_views(outage, text)?;
    write_reasons(outage, text)?;
    writeln!(text, "\n| time | probe | status | request ID |\n|---|---|---|---|")?;
    for request in outage.requests() {
        let status = or_dash(request.http_status);
        let id = request.request_id.as_deref().unwrap_or("-");
        writeln!(text, "| {} | {} | {status} | {id} |", rfc3339(request.time), request.probe)?;
    }
    Ok(())
}

fn start(outage: &Outage) -> String {
    let start = rfc3339(outage.start);
    match outage.last_up_before {
        Some(up) => format!("{start}, last success before it at {}", rfc3339(up)),
        None => format!("{start} or earlier: the records have no success before it"),
    }
}

fn end(outage: &Outage) -> String {
    match outage.end {
        None => "the outage continues".to_owned(),
        Some(end) if outage.end_observed => rfc3339(end),
        Some(end) => format!("unknown: no run after {}", rfc3339(end)),
    }
}

/// Writes what the status page, comparisons and other vantage points saw.
fn write_other_views(outage: &Outage, text: &mut String) -> fmt::Result {
    let page = match outage.status_page {
        None => "no status check of this provider".to_owned(),
        Some(StatusPageReport { first_admission: Some(at), lag_seconds: Some(lag) }) => {
            let distance = seconds(Duration::from_secs(lag.unsigned_abs()));
            let order = if lag < 0 { "before" } else { "after" };
            format!("first incident seen at {}, {distance} {order} the start", rfc3339(at))
        }
        Some(_) => "no incident".to_owned(),
    };
    writeln!(text, "- Status page: {page}")?;
    for window in &outage.maintenance {
        let end = window.end.map_or_else(|| "an unknown time".to_owned(), rfc3339);
        writeln!(text, "- Announced maintenance: from {} to {end}", rfc3339(window.start))?;
    }
    for (comparison, verdicts) in &outage.comparisons {
        let verdicts = verdicts.iter().map(|(verdict, pairs)| format!("{verdict} ({pairs})"));
        writeln!(text, "- Comparison {comparison}: {}", joined(verdicts))?;
    }
    for seen in &outage.vantage_points {
        let (vantage, failed, runs) = (&seen.vantage, seen.failed_runs, seen.runs);
        writeln!(text, "- Vantage point {vantage}: {failed} of {runs} runs failed")?;
    }
    Ok(())
}

fn write_reasons(outage: &Outage, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "\n| reason | code | status | first | last | runs | detail |\n|---|---|---|---|---|---|---|"
    )?;
    for kind in &outage.reasons {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            kind.reason,
            kind.error_code.as_deref().unwrap_or("-"),
            or_dash(kind.http_status),
            rfc3339(kind.first),
            rfc3339(kind.last),
            kind.runs,
            escaped(&kind.detail)
        )?;
    }
    Ok(())
}

fn write_months(months: &[ProviderMonth], text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "\n## Availability\n\nAvailable is the share of runs without fault gateway, provider or network. Minutes count \
         while at least one probe was down.\n\n\
         | provider | month | runs | available | network | gateway | provider | runs while offline |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    for month in months {
        let available = month.runs - month.failed_runs;
        let available =
            if month.runs == 0 { "-".to_owned() } else { format!("{} %", share(available, month.runs)) };
        let minutes = month.downtime_minutes;
        let [network, gateway, provider] = [minutes.network, minutes.gateway, minutes.provider]
            .map(|minutes| format!("{} min", figure(minutes)));
        writeln!(
            text,
            "| {} | {} | {} | {available} | {network} | {gateway} | {provider} | {} |",
            month.provider, month.month, month.runs, month.offline_runs
        )?;
    }
    Ok(())
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Formats a value, or a dash if there is none.
pub(super) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
