//! Each step of a walk as a line: a verdict and a sentence, by the outcome of a run.

use std::{
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap};
use url::Url;

use crate::{
    config::{Probe, Provider, dns_server_name, duration},
    outcome::{
        AddressFailure, Balance, CertificateFailure, ComponentStatus, Detail, DnsServer, FailedAddress,
        Indicator, LookupFailure, Maintenance, Outcome, RateLimit, Reason, Record, rfc3339,
    },
};

/// Difference in seconds below which clocks agree: the Date header has a resolution of a second,
/// and the response took time.
const SAME_CLOCK: f64 = 2.0;

/// Difference in seconds from which on certificates may fail and resets are wrong.
const WRONG_CLOCK: f64 = 60.0;

/// Remaining validity below which a certificate should have been renewed.
const SHORT_CERTIFICATE: Duration = Duration::from_secs(14 * 86_400);

/// Result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Success.
    Ok,
    /// A finding that does not fail a probe today.
    Note,
    /// Failure.
    Failed,
    /// The step was not taken, or has no result.
    Skipped,
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// The run that it is based on. `None` if there was no run.
    pub(super) run: Option<(Arc<Probe>, Outcome)>,
}

impl Step {
    pub(super) fn new(name: &'static str, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { name, verdict, text: text.into(), run: None }
    }

    /// Adds the run that the step is based on.
    pub(super) fn of(self, probe: &Arc<Probe>, outcome: &Outcome) -> Self {
        Self { run: Some((Arc::clone(probe), outcome.clone())), ..self }
    }

    /// Returns whether the status page reports a maintenance in progress.
    pub(super) fn reports_maintenance(&self) -> bool {
        let page = self.run.as_ref().and_then(|(_, outcome)| outcome.status_page.as_ref());
        page.is_some_and(|page| page.in_maintenance() || page.indicator == Indicator::Maintenance)
    }

    /// Adds the run if the step failed.
    pub(super) fn of_failed(self, probe: &Arc<Probe>, outcome: &Outcome) -> Self {
        if self.verdict == Verdict::Failed { self.of(probe, outcome) } else { self }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", self.name)?;
        map.serialize_entry("verdict", &self.verdict)?;
        map.serialize_entry("text", &self.text)?;
        if let Some((probe, outcome)) = &self.run {
            map.serialize_entry("record", &Record { subject: probe.subject(), outcome })?;
        }
        map.end()
    }
}

/// Progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reached {
    /// It ended in the lookup.
    Lookup,
    /// It ended before there was a connection.
    Connection,
    /// It ended in the TLS handshake.
    Handshake,
    /// It reached the service.
    Service,
}

/// Returns the progress of a run, by its reason and the phase in which it ended.
pub(super) fn reached(provider: &Provider, outcome: &Outcome) -> Reached {
    let by_phase = || {
        if outcome.http_status.is_some() || !outcome.phases.processing.is_zero() {
            Reached::Service
        } else if !outcome.phases.tls.is_zero() {
            Reached::Handshake
        } else if !outcome.phases.connect.is_zero() {
            Reached::Connection
        } else {
            Reached::Lookup
        }
    };
    match outcome.reason {
        Reason::Dns => Reached::Lookup,
        Reason::Connect => Reached::Connection,
        Reason::Tls => Reached::Handshake,
        Reason::Proxy if outcome.dns.is_empty() && looked_up(provider).is_some() => Reached::Lookup,
        Reason::Proxy => Reached::Connection,
        Reason::Timeout | Reason::Internal => by_phase(),
        _ => Reached::Service,
    }
}

/// Returns the URL of the proxy, else of the service.
pub(super) fn next_hop(provider: &Provider) -> &Url {
    provider.proxy.as_ref().unwrap_or(&provider.base_url)
}

/// Returns the name in a URL. Returns `None` for an address, which is recognized by its text,
/// because every host of a URL with a scheme such as socks5 is parsed as a name.
pub(super) fn name_of(url: &Url) -> Option<&str> {
    url.host_str().filter(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err())
}

/// Returns the name that is looked up first: with socks5 that of the target, with other proxies
/// only that of the proxy. Returns `None` if there is no lookup.
pub(super) fn looked_up(provider: &Provider) -> Option<&str> {
    let by_hand = provider.proxy.as_ref().is_none_or(|proxy| proxy.scheme() == "socks5");
    let target = name_of(&provider.base_url).filter(|_| by_hand);
    target.or_else(|| name_of(next_hop(provider)))
}

/// Formats `host:port`.
pub(super) fn host_and_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

/// Reports the configuration, and whether the key can be read here.
pub(super) fn configuration(provider: &Provider) -> Step {
    let (verdict, key) = match &provider.key {
        None => (Verdict::Ok, "no key".to_owned()),
        Some(key) if key.value.expose().is_empty() => {
            (Verdict::Failed, format!("the key cannot be read here from {}", key.source))
        }
        Some(key) => (Verdict::Ok, format!("key from {}", key.source)),
    };
    Step::new("configuration", verdict, format!("{} at {}, {key}", provider.api, provider.base_url))
}

/// Reports the proxy.
pub(super) fn proxy(provider: &Provider) -> Step {
    let Some(proxy) = &provider.proxy else { return Step::new("proxy", Verdict::Ok, "none") };
    let mut text = format!("{}://{}", proxy.scheme(), host_and_port(proxy));
    let Some(credentials) = &provider.proxy_auth else { return Step::new("proxy", Verdict::Ok, text) };
    if credentials.value.expose().is_empty() {
        let _ = write!(text, ", its credentials cannot be read here from {}", credentials.source);
        return Step::new("proxy", Verdict::Note, text);
    }
    let _ = write!(text, ", credentials from {}", credentials.source);
    Step::new("proxy", Verdict::Ok, text)
}

/// Reports the lookup and its name servers.
pub(super) fn dns(provider: &Provider, outcome: &Outcome, servers: &[DnsServer]) -> Step {
    let Some(name) = looked_up(provider) else {
        return Step::new("dns", Verdict::Skipped, "not needed for an address");
    };
    let named = |text: String| {
        let servers: Vec<String> = servers.iter().map(name_server).collect();
        if servers.is_empty() { text } else { format!("{text} (name servers: {})", servers.join("; ")) }
    };
    if reached(provider, outcome) == Reached::Lookup {
        return Step::new("dns", Verdict::Failed, named(format!("{name}: {}", describe(outcome))));
    }
    let took = milliseconds(outcome.phases.resolve);
    let text = named(format!("{name} is {}, in {took}", listed(&outcome.dns)));
    if let Some(remark) = outcome.detail.as_ref().filter(|_| outcome.success()) {
        return Step::new("dns", Verdict::Note, format!("{text}; {remark}"));
    }
    let verdict = if servers.iter().any(is_broken) { Verdict::Note } else { Verdict::Ok };
    Step::new("dns", verdict, text)
}

/// Describes a name server and its answer.
fn name_server(server: &DnsServer) -> String {
    let name = &server.server;
    match &server.answer {
        Ok(addresses) => format!(
            "{name} answers {}",
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
        ),
        Err(failure) => {
            let what = match failure {
                LookupFailure::NoSuchName => "answers NXDOMAIN",
                LookupFailure::NoAddress => "answers that there is no address",
                LookupFailure::ServerFailure => "failed with SERVFAIL",
                LookupFailure::Refused => "refused with REFUSED",
                LookupFailure::NoAnswer => "did not answer",
                LookupFailure::NoServer => "could not be reached",
                LookupFailure::Garbled => "sent an answer that could not be understood",
                LookupFailure::OutOfResources => "was not asked: the prober lacks resources",
            };
            format!("{name} {what}")
        }
    }
}

/// Returns whether a name server failed. One that does not know the name did not.
fn is_broken(server: &DnsServer) -> bool {
    matches!(&server.answer, Err(failure) if !matches!(failure, LookupFailure::NoSuchName | LookupFailure::NoAddress))
}

/// Reports the answers of the servers of `dns_servers`.
pub(super) fn other_name_servers(provider: &Provider, outcome: &Outcome) -> Vec<Step> {
    let configured: Vec<String> =
        provider.dns_servers.iter().map(|server| dns_server_name(*server)).collect();
    let servers = outcome.network.iter().flat_map(|network| &network.dns_servers);
    let others = servers.filter(|server| configured.contains(&server.server));
    let one = |server: &DnsServer| {
        let verdict = if server.ok() { Verdict::Ok } else { Verdict::Note };
        let text = format!("{}, in {}", name_server(server), milliseconds(server.duration));
        Step::new("name server", verdict, text)
    };
    others.map(one).collect()
}

/// Reports the connection to the service or proxy, and the addresses that failed.
pub(super) fn tcp(provider: &Provider, outcome: &Outcome) -> Step {
    let place = host_and_port(next_hop(provider));
    let failed = &outcome.failed_addresses;
    let named: Vec<String> =
        failed.iter().map(|failed| format!("{} ({})", failed.address, failed.error)).collect();
    if reached(provider, outcome) == Reached::Connection {
        let tried = if named.len() > 1 { format!("; tried {}", named.join(", ")) } else { String::new() };
        return Step::new("tcp", Verdict::Failed, format!("{place}: {}{tried}", describe(outcome)));
    }
    let to = outcome.remote_address.map_or(place, |address| address.to_string());
    let text = format!("connected to {to}, in {}", milliseconds(outcome.phases.connect));
    if failed.is_empty() {
        return Step::new("tcp", Verdict::Ok, text);
    }
    // Many machines have no IPv6.
    let usual =
        |failed: &FailedAddress| failed.address.is_ipv6() && failed.error == AddressFailure::Unreachable;
    let verdict = if failed.iter().all(usual) { Verdict::Ok } else { Verdict::Note };
    Step::new("tcp", verdict, format!("{text}; not to {}", named.join(", ")))
}

/// Reports the handshake with the service and its certificate.
pub(super) fn tls(provider: &Provider, outcome: &Outcome, now: SystemTime) -> Step {
    if provider.base_url.scheme() != "https" {
        return Step::new("tls", Verdict::Skipped, "none: base_url begins with http://");
    }
    let not_after = outcome.tls.and_then(|tls| tls.not_after);
    if reached(provider, outcome) == Reached::Handshake {
        let text = describe(outcome);
        let text = if certificate_failure(outcome).is_some_and(CertificateFailure::is_about_time) {
            let until = not_after.map_or_else(String::new, |end| format!("good until {}; ", rfc3339(end)));
            format!("{text} ({until}this machine's clock shows {})", rfc3339(now))
        } else {
            text
        };
        return Step::new("tls", Verdict::Failed, text);
    }
    let version = outcome.tls.and_then(|tls| tls.version).unwrap_or("of an unknown version");
    let mut text = format!("TLS {version}, in {}", milliseconds(outcome.phases.tls));
    let Some(end) = not_after else { return Step::new("tls", Verdict::Ok, text) };
    let _ = write!(text, ", certificates good until {}", rfc3339(end));
    if end.duration_since(now).unwrap_or_default() < SHORT_CERTIFICATE {
        text.push_str(", which is soon: the service should renew them");
        return Step::new("tls", Verdict::Note, text);
    }
    Step::new("tls", Verdict::Ok, text)
}

/// Reports the local clock in comparison with the Date header.
pub(super) fn clock(outcome: &Outcome) -> Step {
    let Some(offset) = outcome.clock_offset else {
        return Step::new("clock", Verdict::Skipped, "cannot be compared: the service sent no Date");
    };
    let verdict = match offset.abs() {
        off if off <= SAME_CLOCK => return Step::new("clock", Verdict::Ok, "agrees with the service's"),
        off if off < WRONG_CLOCK => Verdict::Note,
        _ => Verdict::Failed,
    };
    let side = if offset > 0.0 { "ahead of" } else { "behind" };
    Step::new("clock", verdict, format!("this machine's is {} {side} the service's", roughly(offset.abs())))
}

/// Reports the response to one call of any check.
pub(super) fn answer(name: &'static str, outcome: &Outcome) -> Step {
    let took = milliseconds(outcome.duration);
    if outcome.success() {
        let status = outcome.http_status.map_or_else(String::new, |status| format!("{status}, "));
        return Step::new(name, Verdict::Ok, format!("{status}in {took}"));
    }
    let status = outcome.http_status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let mut text = format!("{status}, {}", outcome.reason);
    if let Some(code) = &outcome.error_code {
        let _ = write!(text, ", code {code}");
    }
    if let Some(upstream) = outcome.upstream {
        let _ = write!(text, ", upstream {upstream}");
    }
    if let Some(detail) = &outcome.detail {
        let _ = write!(text, ": {detail}");
    }
    let _ = write!(text, ", in {took}");
    if let Some(seconds) = outcome.retry_after {
        let _ = write!(text, "; retry after {seconds} s");
    }
    if let Some(id) = &outcome.request_id {
        let _ = write!(text, "; request ID {id}");
    }
    Step::new(name, Verdict::Failed, text)
}

/// Reports the balance of the account.
pub(super) fn balance(outcome: &Outcome) -> Step {
    match (outcome.reason, outcome.balance) {
        (Reason::Ok | Reason::Billing, Some(Balance { usd, minimum_usd })) => {
            let minimum = minimum_usd.map_or_else(String::new, |usd| format!(", at least {usd} are needed"));
            let verdict = if outcome.success() { Verdict::Ok } else { Verdict::Failed };
            Step::new("balance", verdict, format!("{usd} USD{minimum}"))
        }
        (Reason::Ok, None) => Step::new("balance", Verdict::Ok, "without a limit, or not in USD"),
        (Reason::Billing, None) => answer("balance", outcome),
        _ => Step { verdict: Verdict::Note, ..answer("balance", outcome) },
    }
}

/// Reports the provider's status page, which is never a failure.
pub(super) fn status(outcome: &Outcome) -> Step {
    let Some(page) = &outcome.status_page else {
        let text = format!("the status page could not be read: {}", describe(outcome));
        return Step::new("status", Verdict::Note, text);
    };
    let incidents = match page.open_incidents {
        None => String::new(),
        Some(1) => ", 1 open incident".to_owned(),
        Some(incidents) => format!(", {incidents} open incidents"),
    };
    let mut text = format!("the page reports {}{incidents}", page.indicator);
    let ill = page.components.iter().filter(|(_, status)| *status != ComponentStatus::Operational);
    for (name, status) in ill.clone() {
        let _ = write!(text, ", {name}: {status}");
    }
    if let Some(Maintenance { start, end, in_progress }) = page.maintenance {
        text.push_str(if in_progress { ", maintenance in progress" } else { ", maintenance announced" });
        for (word, time) in [("from", start), ("until", end)] {
            let _ = time.map(|time| write!(text, " {word} {}", rfc3339(time)));
        }
    }
    let quiet = page.indicator == Indicator::None
        && page.open_incidents.unwrap_or(0) == 0
        && ill.count() == 0
        && !page.in_maintenance();
    Step::new("status", if quiet { Verdict::Ok } else { Verdict::Note }, text)
}

/// Reports the remaining rate limits, by the last response with any.
pub(super) fn limits(reported: &[RateLimit]) -> Step {
    if reported.is_empty() {
        return Step::new("limits", Verdict::Skipped, "not reported by these calls");
    }
    let one = |limit: &RateLimit| {
        let count = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let reset = limit.reset.map_or_else(String::new, |time| format!(", full again at {}", rfc3339(time)));
        format!("{}: {} of {} left{reset}", limit.resource, count(limit.remaining), count(limit.limit))
    };
    let text = reported.iter().map(one).collect::<Vec<_>>().join("; ");
    let exhausted = reported.iter().any(|limit| limit.remaining == Some(0));
    Step::new("limits", if exhausted { Verdict::Note } else { Verdict::Ok }, text)
}

/// Describes the result of a run.
pub(super) fn describe(outcome: &Outcome) -> String {
    outcome.detail.as_ref().map_or_else(|| outcome.reason.to_string(), ToString::to_string)
}

/// Returns why the certificate was not accepted. Returns `None` if it was, or was not received.
pub(super) fn certificate_failure(outcome: &Outcome) -> Option<CertificateFailure> {
    match outcome.cause()? {
        Detail::Certificate(failure) => Some(*failure),
        _ => None,
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    const SHOWN: usize = 4;
    let mut words: Vec<String> = addresses.iter().take(SHOWN).map(ToString::to_string).collect();
    match addresses.len() {
        0 => words.push("no server".to_owned()),
        more if more > SHOWN => words.push(format!("{} more", more - SHOWN)),
        _ => {}
    }
    words.join(", ")
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

/// Formats a duration to the second, and to the minute above an hour.
fn roughly(seconds: f64) -> String {
    let unit = if seconds < 3_600.0 { 1.0 } else { 60.0 };
    duration::format(Duration::try_from_secs_f64((seconds / unit).round() * unit).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests;
