//! A failure as a section of the report.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
};

use super::{
    ledger::or_dash,
    markdown::{escaped, figure, length},
    summary::Failure,
};
use crate::{
    outcome::{Fault, LimitedBy, OTHER, Phases, RateLimit, Reason, Resource, rfc3339},
    probe::RequestSummary,
};

/// Number of addresses, and of statuses in a title, that are listed.
const MAX_LISTED: usize = 4;

/// Descriptions of the phases, in the order of [`Phases::NAMES`].
const PHASES: [&str; Phases::NAMES.len()] = [
    "looking up the name",
    "connecting",
    "in the TLS handshake",
    "waiting for the response",
    "receiving the response",
];

/// Writes the section of a failure.
pub(super) fn write_failure(failure: &Failure, text: &mut String) -> fmt::Result {
    writeln!(text, "## {}\n", title(failure))?;
    let (offline, count) = (failure.offline_runs, failure.count);
    writeln!(text, "- State: {}", state(failure))?;
    if offline > 0 {
        let runs =
            if count == 1 { "this run".to_owned() } else { format!("{offline} of these {count} runs") };
        let they = if offline == 1 { "it is" } else { "they are" };
        writeln!(text, "- While this machine was offline: {runs}; {they} no evidence about the service")?;
    }
    write_request(failure, text)?;
    let (first, last) = (rfc3339(failure.first), rfc3339(failure.last));
    if count == 1 {
        writeln!(text, "- Runs: 1, at {first}")?;
    } else {
        writeln!(text, "- Runs: {count}, the first at {first}, the last at {last}")?;
    }
    let statuses = failure.http_status.iter().map(|(status, runs)| format!("{status} ({runs})"));
    writeln!(text, "- HTTP status: {}", or_none(statuses, "none"))?;
    write_times(failure, text)?;
    write_limit(failure, text)?;
    if let Some(end) = failure.certificate_end.filter(|_| failure.reason == Reason::Tls) {
        writeln!(text, "- Certificate: a certificate of the chain is valid until {}", rfc3339(end))?;
    }
    let suggestion = if is_for_caller(failure) { suggestion(&failure.hint) } else { String::new() };
    for (title, content) in [("What happened", &failure.detail), ("Suggested to the caller", &suggestion)] {
        if !content.is_empty() {
            writeln!(text, "- {title}: {}", escaped(content))?;
        }
    }
    write_rechecks(failure, text)?;
    write_runs(failure, text)
}

/// Returns the reason, the statuses, the code and the responsible party.
fn title(failure: &Failure) -> String {
    let mut statuses: Vec<_> = failure.http_status.iter().collect();
    statuses.sort_by_key(|(_, runs)| std::cmp::Reverse(**runs));
    let statuses = statuses.iter().take(MAX_LISTED).map(|(status, _)| status.to_string());
    let mut title = format!("{}: {}", failure.reason, or_none(statuses, "no HTTP response"));
    if let Some(code) = &failure.error_code {
        let _ = write!(title, ", {}", code_in_words(code));
    }
    let _ = write!(title, ", responsible: {} (probe {})", responsible(failure), failure.probe);
    title
}

/// Returns an error code. One that is not documented is recorded as `other`.
fn code_in_words(code: &str) -> String {
    if code == OTHER { "an undocumented code, not shown".to_owned() } else { format!("code {code}") }
}

/// Returns the responsible party in words.
fn responsible(failure: &Failure) -> String {
    if failure.evident_runs() == 0 {
        return "this machine, which was offline".to_owned();
    }
    let gateway = failure.service.filter(|service| service.is_gateway).map(|service| service.name);
    let behind = |provider: &str| format!("{provider} behind {}", gateway.unwrap_or("the gateway"));
    match (failure.fault, failure.upstream.as_deref()) {
        // A provider is at fault for a key only if a gateway stores it.
        (Fault::Provider, upstream) if failure.reason == Reason::AuthFailed => {
            let owner = upstream.filter(|name| *name != OTHER).unwrap_or("a provider");
            format!("the key of {owner} that is stored in {}", gateway.unwrap_or("the gateway"))
        }
        (Fault::Provider, Some(OTHER)) => behind("a provider"),
        (Fault::Provider, Some(upstream)) => behind(upstream),
        (Fault::Provider, None) if gateway.is_some() => behind("a provider"),
        (Fault::Provider, None) => "the service".to_owned(),
        (Fault::Gateway, _) => "the gateway".to_owned(),
        (Fault::Caller, _) => "the caller".to_owned(),
        (Fault::Network, _) => "the network path".to_owned(),
        (Fault::Prober, _) => "the prober".to_owned(),
        (Fault::None, _) => "unknown".to_owned(),
    }
}

fn state(failure: &Failure) -> String {
    if failure.evident_runs() == 0 {
        return "unknown, because this machine was offline".to_owned();
    }
    match (failure.recovered_at, failure.failing_since, failure.last_success) {
        (Some(recovered), ..) => format!("recovered at {}", rfc3339(recovered)),
        (None, None, _) => "unknown".to_owned(),
        (None, Some(since), Some(success)) => {
            format!("failing since {}; last success at {}", rfc3339(since), rfc3339(success))
        }
        (None, Some(since), None) => format!("failing since {}; no success in this period", rfc3339(since)),
    }
}

/// Writes the request and where it went.
fn write_request(failure: &Failure, text: &mut String) -> fmt::Result {
    let Some(request) = &failure.request else {
        write!(text, "- Request: check {} of provider {}", failure.check, failure.provider)?;
        if let Some(model) = &failure.model {
            write!(text, ", model {}", escaped(model))?;
        }
        if let Some(url) = &failure.base_url {
            write!(text, ", at {}", escaped(url))?;
        }
        // Its addresses may be those of a proxy.
        return writeln!(text, "; the configuration has no such probe now");
    };
    writeln!(text, "- Request: {} (as configured now)", escaped(&request.to_string()))?;
    let is_proxied = is_proxied(failure, request);
    match failure.remote_address {
        Some(_) if is_proxied => writeln!(text, "- Connected through a proxy"),
        Some(address) => writeln!(text, "- Connected to: {address}"),
        None if !failure.http_status.is_empty() => Ok(()),
        None => writeln!(text, "- Not connected{}", tried(failure, request.port.filter(|_| !is_proxied))),
    }
}

/// Returns whether the connection was to a proxy. That of the service's environment may differ from
/// that of this command, so that a connection to another port than the URL's was not direct either.
fn is_proxied(failure: &Failure, request: &RequestSummary) -> bool {
    let port = failure.remote_address.map(|address| address.port());
    request.is_proxied
        || failure.reason == Reason::Proxy
        || port.is_some_and(|port| request.port != Some(port))
}

/// Returns the addresses that could not be connected to. Those of a proxy, which have no port here,
/// are not shown, because they belong to the caller's network.
fn tried(failure: &Failure, port: Option<u16>) -> String {
    let tried = failure.failed_addresses.iter().take(MAX_LISTED).map(|failed| {
        let service = |port| SocketAddr::new(failed.address, port).to_string();
        let address = port.map_or_else(|| "a proxy".to_owned(), service);
        format!("{address} ({})", in_words(failed.error.name()))
    });
    let tried = tried.collect::<Vec<_>>().join(", ");
    if tried.is_empty() { tried } else { format!(": tried {tried}") }
}

/// Writes the duration, and the phases that took at least a millisecond.
fn write_times(failure: &Failure, text: &mut String) -> fmt::Result {
    let durations = &failure.durations;
    let is_single = failure.latest.len() == 1;
    if !is_single {
        let (median, longest) = (length(durations.median()), length(durations.longest()));
        writeln!(text, "- Duration: median {median}, longest {longest}")?;
    }
    let phases = durations.median_phases();
    let phases = PHASES.iter().zip(phases).filter(|(_, duration)| duration.as_millis() > 0);
    let phases: Vec<String> =
        phases.map(|(phase, duration)| format!("{phase} {}", length(duration))).collect();
    if phases.is_empty() {
        return Ok(());
    }
    let median = if is_single { "" } else { " (median)" };
    writeln!(text, "- Time spent{median}: {}", phases.join(", "))
}

/// Writes the limit that was exceeded.
fn write_limit(failure: &Failure, text: &mut String) -> fmt::Result {
    let wait = failure.retry_after.map(figure);
    let Some(limited_by) = failure.limited_by else {
        return wait.map_or(Ok(()), |wait| writeln!(text, "- Requested wait: {wait} s"));
    };
    let mut parts = vec![in_words(limited_by.name())];
    let limits = failure.ratelimit.iter().filter(|limit| is_exceeded(limit, limited_by));
    match limits.map(figures).collect::<Vec<_>>().as_slice() {
        [(resource, figures)] if LimitedBy::from(*resource) == limited_by => parts[0] += figures,
        several => parts.extend(
            several.iter().map(|(resource, figures)| format!("{}{figures}", in_words(resource.name()))),
        ),
    }
    parts.extend(wait.map(|wait| format!("requested wait: {wait} s")));
    writeln!(text, "- Limit: {}", parts.join("; "))
}

/// Returns whether a reported limit is the one that was exceeded, or may be.
fn is_exceeded(limit: &RateLimit, limited_by: LimitedBy) -> bool {
    LimitedBy::from(limit.resource) == limited_by
        || limited_by == LimitedBy::Unknown && limit.remaining == Some(0)
}

/// Returns what is left of a limit, and when it is full again.
fn figures(limit: &RateLimit) -> (Resource, String) {
    let mut text = match (limit.remaining, limit.limit) {
        (Some(remaining), Some(limit)) => format!(", {remaining} of {limit} left"),
        (Some(remaining), None) => format!(", {remaining} left"),
        (None, Some(limit)) => format!(", {limit} per window"),
        (None, None) => String::new(),
    };
    if let Some(reset) = limit.reset {
        let _ = write!(text, ", full again at {}", rfc3339(reset));
    }
    (limit.resource, text)
}

/// Returns whether the remedy is for the caller. Of a service that fails, it is to wait or to use
/// another, which support need not read.
fn is_for_caller(failure: &Failure) -> bool {
    let service_fails = matches!(
        failure.reason,
        Reason::Unavailable | Reason::GatewayTimeout | Reason::Overloaded | Reason::ServerError
    );
    !(service_fails && matches!(failure.fault, Fault::Gateway | Fault::Provider))
}

/// Returns the remedy without its advice to contact support, who read this.
fn suggestion(hint: &str) -> String {
    let clauses = hint.split("; ").filter(|clause| !clause.contains("contact support"));
    let clauses = clauses.map(|clause| clause.split(", and report it").next().unwrap_or_default());
    clauses.collect::<Vec<_>>().join("; ")
}

fn write_rechecks(failure: &Failure, text: &mut String) -> fmt::Result {
    let runs = if failure.count == 1 { "run" } else { "runs" };
    let succeeded = match (failure.rechecks, failure.succeeded_rechecks) {
        (0, _) => return Ok(()),
        (_, 0) => "none succeeded".to_owned(),
        (1, 1) => "it succeeded".to_owned(),
        (_, some) => format!("{some} succeeded"),
    };
    writeln!(text, "- Rechecks: {} after the failed {runs}, {succeeded}", failure.rechecks)
}

/// Writes the table of the last runs. It has no column for request IDs if there are none.
fn write_runs(failure: &Failure, text: &mut String) -> fmt::Result {
    let has_ids = failure.latest.iter().any(|run| run.request_id.is_some());
    if !has_ids {
        let cause = match (failure.is_request_sent, failure.http_status.is_empty()) {
            (false, _) => "none, because no request was sent",
            (true, true) => {
                "none, because no response arrived; find these requests by time (UTC) and User-Agent"
            }
            (true, false) => "none in the responses; find these requests by time (UTC) and User-Agent",
        };
        writeln!(text, "- Request IDs: {cause}")?;
    }
    let (title, rule) = if has_ids { (" request ID |", "---|") } else { ("", "") };
    writeln!(text, "\n| start (UTC) | status | duration |{title}\n|---|---|---|{rule}")?;
    for run in &failure.latest {
        let (time, status, duration) = (rfc3339(run.time), or_dash(run.http_status), length(run.duration));
        let id = if has_ids { format!(" {} |", or_dash(run.request_id.as_deref())) } else { String::new() };
        writeln!(text, "| {time} | {status} | {duration} |{id}")?;
    }
    writeln!(text)
}

/// Returns a name of records as words.
fn in_words(name: &str) -> String {
    name.replace('_', " ")
}

/// Joins the items, or returns the text if there are none.
fn or_none(items: impl Iterator<Item = String>, none: &str) -> String {
    let items = items.collect::<Vec<_>>().join(", ");
    if items.is_empty() { none.to_owned() } else { items }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestion_does_not_name_support() {
        for (hint, expected) in [
            (
                "the service failed: check its status page; contact support with the timestamps",
                "the service failed: check its status page",
            ),
            ("if it repeats, contact support with the timestamps and request IDs", ""),
            ("use another model, and report it with the request ID", "use another model"),
            ("wait; send fewer requests", "wait; send fewer requests"),
        ] {
            assert_eq!(suggestion(hint), expected);
        }
        for reason in Reason::ALL {
            let text = suggestion(reason.info().remedy);
            assert!(!text.contains("support") && !text.contains("report it"), "{text}");
        }
    }
}
