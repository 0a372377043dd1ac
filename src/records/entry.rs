//! One record, parsed and validated.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, de::IgnoredAny};

use crate::outcome::{
    AddressFailure, Check, ComponentStatus, FailedAddress, Fault, Indicator, LimitedBy, Maintenance,
    PairVerdict, Phases, RateLimit, Reason, Resource, Side, StatusPage,
};

/// One record. Its strings are validated to be printable and short, because the files can be edited
/// and the strings reach a terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<'a> {
    /// Start of the run.
    pub time: SystemTime,
    /// The probe's name.
    pub probe: &'a str,
    /// The provider's name.
    pub provider: &'a str,
    /// The probe's check.
    pub check: Check,
    /// The model. `None` if the probe has none.
    pub model: Option<Cow<'a, str>>,
    /// Reason of the result.
    pub reason: Reason,
    /// Party responsible for the failure.
    pub fault: Fault,
    /// Details of the failure; empty if the reason is sufficient.
    pub detail: Cow<'a, str>,
    /// Remedy; empty on success.
    pub hint: Cow<'a, str>,
    /// HTTP status of the response. `None` if there was no response.
    pub http_status: Option<u16>,
    /// Error code of the service.
    pub error_code: Option<&'a str>,
    /// Provider named in a gateway's error.
    pub upstream: Option<&'a str>,
    /// Request ID assigned by the service.
    pub request_id: Option<&'a str>,
    /// Wait requested by the service, in seconds.
    pub retry_after: Option<f64>,
    /// Limit exceeded by a rate-limited run.
    pub limited_by: Option<LimitedBy>,
    /// Address of the connection. `None` if there was none.
    pub remote_address: Option<SocketAddr>,
    /// Addresses that could not be connected to, at most 8.
    pub failed_addresses: Vec<FailedAddress>,
    /// Rate limits reported by the response, at most 8.
    pub ratelimit: Vec<RateLimit>,
    /// Earliest expiry in the presented certificate chain. `None` if none is known.
    pub certificate_end: Option<SystemTime>,
    /// Local clock minus the service's, in seconds. `None` if the response has no Date.
    pub clock_offset: Option<f64>,
    /// Duration of the run.
    pub duration: Duration,
    /// Duration of each phase.
    pub phases: Phases,
    /// Content of the status page. `None` for other checks, and if the page could not be read.
    pub status_page: Option<StatusPage>,
    /// Whether the run was a recheck after a failure. Rechecks do not count for availability.
    pub recheck: bool,
    /// Whether the run failed while the prober itself was offline.
    pub offline: bool,
    /// Comparison that the run belongs to, its side, and the verdict if it completed the pair.
    pub comparison: Option<(&'a str, Side, Option<PairVerdict>)>,
}

/// Maximum duration of a run. A record with a longer one was not written by the prober.
const MAX_DURATION: Duration = Duration::from_secs(86_400);

/// Maximum number of failed addresses, and of rate limits, that are read of a record.
const MAX_ITEMS: usize = 8;

/// A string that may need escapes, such as a model with a quotation mark.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A record as written. Members that are not needed are omitted. Names need no escapes.
#[derive(Deserialize)]
struct Line<'a> {
    time: &'a str,
    probe: &'a str,
    provider: &'a str,
    check: &'a str,
    #[serde(borrow)]
    model: Option<Text<'a>>,
    reason: &'a str,
    fault: &'a str,
    #[serde(borrow, default)]
    detail: Cow<'a, str>,
    #[serde(borrow, default)]
    hint: Cow<'a, str>,
    http_status: Option<u16>,
    error_code: Option<&'a str>,
    upstream: Option<&'a str>,
    request_id: Option<&'a str>,
    retry_after_seconds: Option<f64>,
    limited_by: Option<&'a str>,
    remote_address: Option<&'a str>,
    #[serde(default)]
    failed_addresses: Vec<Address<'a>>,
    #[serde(default)]
    ratelimit: Vec<Allowance<'a>>,
    tls: Option<Handshake<'a>>,
    clock_offset_seconds: Option<f64>,
    duration_seconds: f64,
    #[serde(default)]
    phases: Seconds,
    status_page: Option<Page>,
    recheck: Option<IgnoredAny>,
    #[serde(default)]
    offline: bool,
    comparison: Option<&'a str>,
    side: Option<&'a str>,
    verdict: Option<&'a str>,
}

#[derive(Deserialize)]
struct Address<'a> {
    address: &'a str,
    error: &'a str,
}

#[derive(Deserialize)]
struct Allowance<'a> {
    resource: &'a str,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<&'a str>,
}

#[derive(Deserialize)]
struct Handshake<'a> {
    not_after: Option<&'a str>,
}

/// The phases in seconds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Seconds {
    resolve: f64,
    connect: f64,
    tls: f64,
    processing: f64,
    transfer: f64,
}

#[derive(Deserialize)]
struct Page {
    indicator: String,
    open_incidents: Option<u64>,
    #[serde(default)]
    components: BTreeMap<String, String>,
    maintenance: Option<Announcement>,
}

#[derive(Deserialize)]
struct Announcement {
    start: Option<String>,
    end: Option<String>,
    #[serde(default)]
    in_progress: bool,
}

impl<'a> Entry<'a> {
    /// Parses one line. Returns `None` if it is not a record of this version.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line: Line<'a> = serde_json::from_slice(line).ok()?;
        line.is_printable().then(|| line.into_entry()).flatten()
    }
}

impl<'a> Line<'a> {
    /// Returns whether all strings may be printed.
    fn is_printable(&self) -> bool {
        let name = |text: &&str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
            (1..=128).contains(&text.len()) && text.bytes().all(fits)
        };
        let model =
            |Text(text): &Text<'_>| text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
        let sentence = |text: &Cow<'_, str>| text.len() <= 1_024 && !text.contains(|c: char| c.is_control());
        let codes = [self.error_code, self.upstream, self.request_id, self.comparison];
        [self.probe, self.provider].iter().all(name)
            && codes.iter().flatten().all(name)
            && self.model.iter().all(model)
            && [&self.detail, &self.hint].into_iter().all(sentence)
    }

    fn into_entry(self) -> Option<Entry<'a>> {
        let side = self.side.and_then(Side::from_name);
        let verdict = self.verdict.and_then(PairVerdict::from_name);
        Some(Entry {
            time: time(self.time)?,
            check: Check::from_name(self.check)?,
            reason: Reason::from_name(self.reason)?,
            fault: Fault::from_name(self.fault)?,
            duration: duration(self.duration_seconds)?,
            phases: self.phases.into_phases()?,
            probe: self.probe,
            provider: self.provider,
            model: self.model.map(|Text(model)| model),
            detail: self.detail,
            hint: self.hint,
            http_status: self.http_status,
            error_code: self.error_code,
            upstream: self.upstream,
            request_id: self.request_id,
            retry_after: self.retry_after_seconds.filter(|wait| (0.0..=1e8).contains(wait)),
            limited_by: self.limited_by.and_then(LimitedBy::from_name),
            remote_address: self.remote_address.and_then(|address| address.parse().ok()),
            failed_addresses: first(self.failed_addresses, Address::into_failed),
            ratelimit: first(self.ratelimit, Allowance::into_limit),
            certificate_end: self.tls.and_then(|handshake| time(handshake.not_after?)),
            clock_offset: self.clock_offset_seconds.filter(|offset| offset.abs() <= 1e10),
            status_page: self.status_page.map(Page::into_status_page),
            recheck: self.recheck.is_some(),
            offline: self.offline,
            comparison: self.comparison.zip(side).map(|(name, side)| (name, side, verdict)),
        })
    }
}

/// Returns the first items. Those of unknown names are left out.
fn first<A, B>(items: Vec<A>, convert: impl Fn(A) -> Option<B>) -> Vec<B> {
    items.into_iter().filter_map(convert).take(MAX_ITEMS).collect()
}

impl Address<'_> {
    fn into_failed(self) -> Option<FailedAddress> {
        let address: IpAddr = self.address.parse().ok()?;
        Some(FailedAddress { address, error: AddressFailure::from_name(self.error)? })
    }
}

impl Allowance<'_> {
    fn into_limit(self) -> Option<RateLimit> {
        let resource = Resource::from_name(self.resource)?;
        RateLimit::from_figures(resource, self.limit, self.remaining, self.reset.and_then(time))
    }
}

impl Seconds {
    fn into_phases(self) -> Option<Phases> {
        Some(Phases {
            resolve: duration(self.resolve)?,
            connect: duration(self.connect)?,
            tls: duration(self.tls)?,
            processing: duration(self.processing)?,
            transfer: duration(self.transfer)?,
        })
    }
}

impl Page {
    fn into_status_page(self) -> StatusPage {
        let status = |status: String| ComponentStatus::from_name(&status).unwrap_or(ComponentStatus::Unknown);
        StatusPage {
            indicator: Indicator::from_name(&self.indicator).unwrap_or(Indicator::Unknown),
            open_incidents: self.open_incidents,
            components: self.components.into_iter().map(|(name, word)| (name, status(word))).collect(),
            maintenance: self.maintenance.map(|announced| Maintenance {
                start: announced.start.as_deref().and_then(time),
                end: announced.end.as_deref().and_then(time),
                in_progress: announced.in_progress,
            }),
        }
    }
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= MAX_DURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_unknown_names_left_out() {
        let address = r#"{"address":"192.0.2.1","error":"refused"}"#;
        let addresses = vec![address; 2 * MAX_ITEMS].join(",");
        let line = format!(
            r#"{{"time":"2026-11-22T08:00:00Z","probe":"p","provider":"groq","check":"chat","reason":"dns",
            "fault":"network","duration_seconds":1,"clock_offset_seconds":-1.5,
            "failed_addresses":[{{"address":"192.0.2.1","error":"new"}},{addresses}],
            "ratelimit":[{{"resource":"new","limit":1}},{{"resource":"tokens","remaining":2}}]}}"#
        );
        let entry = Entry::parse(line.as_bytes()).unwrap();
        assert_eq!(entry.failed_addresses.len(), MAX_ITEMS);
        assert_eq!(entry.ratelimit.len(), 1);
        assert_eq!((entry.ratelimit[0].remaining, entry.clock_offset), (Some(2), Some(-1.5)));
        let negative = line.replace("\"clock", "\"phases\":{\"tls\":-1},\"clock");
        assert_eq!(Entry::parse(negative.as_bytes()), None);
    }
}
