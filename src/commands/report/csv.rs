//! The ledger as CSV (RFC 4180), for a spreadsheet.

use std::fmt::Display;

use super::incidents::Listing;
use crate::{
    incidents::{Outage, ProviderMonth},
    outcome::rfc3339,
};

/// Returns a line for each outage.
pub(super) fn outages(listing: &Listing) -> String {
    let header = "start,end,duration_seconds,down_seconds,provider,fault,upstream,models,probes,failed_runs,runs,relapses,\
                  reasons,error_codes,http_statuses,request_ids,status_page_first_admission,status_page_lag_seconds,\
                  maintenance,comparisons,vantage_points";
    table(header, listing.outages.iter().map(outage))
}

/// Returns a line for each provider and month.
pub(super) fn availability(listing: &Listing) -> String {
    let header = "provider,month,runs,failed_runs,offline_runs,available_ratio,downtime_minutes_network,\
                  downtime_minutes_gateway,downtime_minutes_provider";
    table(header, listing.availability.iter().map(month))
}

fn outage(outage: &Outage) -> Vec<String> {
    let admission = outage.status_page.and_then(|page| page.first_admission.zip(page.lag_seconds));
    let comparisons = outage.comparisons.iter().flat_map(|(name, verdicts)| {
        verdicts.iter().map(move |(verdict, pairs)| format!("{name}: {verdict} {pairs}"))
    });
    let maintenance = outage
        .maintenance
        .iter()
        .map(|window| format!("{}/{}", rfc3339(window.start), window.end.map(rfc3339).unwrap_or_default()));
    let elsewhere = outage.vantage_points.iter();
    let elsewhere = elsewhere.map(|seen| format!("{}: {} of {}", seen.vantage, seen.failed_runs, seen.runs));
    vec![
        rfc3339(outage.start),
        outage.end.map(rfc3339).unwrap_or_default(),
        outage.duration.as_secs().to_string(),
        outage.down.as_secs().to_string(),
        outage.provider.to_string(),
        outage.fault.to_string(),
        outage.upstream.as_ref().map(ToString::to_string).unwrap_or_default(),
        joined(outage.models.iter()),
        joined(outage.probes.iter().map(|affected| &affected.probe)),
        outage.failed_runs.to_string(),
        outage.runs.to_string(),
        outage.relapses.to_string(),
        distinct(outage.reasons.iter().map(|kind| kind.reason)),
        distinct(outage.reasons.iter().filter_map(|kind| kind.error_code.as_deref())),
        distinct(outage.reasons.iter().filter_map(|kind| kind.http_status)),
        joined(outage.requests().filter_map(|request| request.request_id.as_deref())),
        admission.map(|(time, _)| rfc3339(time)).unwrap_or_default(),
        admission.map(|(_, lag)| lag.to_string()).unwrap_or_default(),
        joined(maintenance),
        joined(comparisons),
        joined(elsewhere),
    ]
}

fn month(month: &ProviderMonth) -> Vec<String> {
    let downtime = month.downtime_minutes;
    vec![
        month.provider.to_string(),
        month.month.clone(),
        month.runs.to_string(),
        month.failed_runs.to_string(),
        month.offline_runs.to_string(),
        month.available_ratio.map(|ratio| ratio.to_string()).unwrap_or_default(),
        downtime.network.to_string(),
        downtime.gateway.to_string(),
        downtime.provider.to_string(),
    ]
}

/// Joins values in one cell.
fn joined(values: impl Iterator<Item = impl Display>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join("; ")
}

/// Joins values in one cell, each once.
fn distinct(values: impl Iterator<Item = impl Display>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for value in values.map(|value| value.to_string()) {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen.join("; ")
}

fn table(header: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("{header}\r\n");
    for row in rows {
        let cells: Vec<String> = row.iter().map(|value| cell(value)).collect();
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// Returns a cell. Text that a spreadsheet would take for a formula begins with an apostrophe;
/// negative numbers do not.
fn cell(value: &str) -> String {
    let is_formula = value.starts_with(['=', '+', '-', '@']) && value.parse::<f64>().is_err();
    let mark = if is_formula { "'" } else { "" };
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{mark}{}\"", value.replace('"', "\"\""))
    } else {
        format!("{mark}{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_is_quoted_and_never_a_formula() {
        for (value, expected) in [
            ("langmart", "langmart"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("@cf/meta", "'@cf/meta"),
            ("=1+1,2", "\"'=1+1,2\""),
            ("-30", "-30"),
            ("-x", "'-x"),
        ] {
            assert_eq!(cell(value), expected);
        }
    }
}
