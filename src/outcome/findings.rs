//! Findings of a run besides its verdict: phases, rate limits, certificate, status page, balance.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::time::{in_record, seconds};

/// A phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Name lookup.
    Resolve,
    /// TCP connection, and a proxy's tunnel.
    Connect,
    /// TLS handshake with the target.
    Tls,
    /// Until the response headers.
    Processing,
    /// The rest of the body.
    Transfer,
}

/// The five consecutive phases of a run. One that was not reached is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Name lookup.
    pub resolve: Duration,
    /// TCP connection; through a proxy, the proxy's with its CONNECT.
    pub connect: Duration,
    /// TLS handshake with the target.
    pub tls: Duration,
    /// From handing the request to the connection until the response headers.
    pub processing: Duration,
    /// From the response headers until the last byte of the body.
    pub transfer: Duration,
}

impl Phases {
    /// The names, in order.
    pub const NAMES: [&'static str; 5] = ["resolve", "connect", "tls", "processing", "transfer"];

    /// Returns the durations, in the order of [`Phases::NAMES`].
    pub const fn durations(&self) -> [Duration; 5] {
        [self.resolve, self.connect, self.tls, self.processing, self.transfer]
    }

    /// Returns the sum of the phases.
    pub fn total(&self) -> Duration {
        self.durations().iter().sum()
    }

    /// Adds the phases of a further exchange of the run.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            resolve: self.resolve + other.resolve,
            connect: self.connect + other.connect,
            tls: self.tls + other.tls,
            processing: self.processing + other.processing,
            transfer: self.transfer + other.transfer,
        }
    }
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Self::NAMES.len()))?;
        for (name, duration) in Self::NAMES.iter().zip(self.durations()) {
            map.serialize_entry(name, &seconds(duration))?;
        }
        map.end()
    }
}

named! {
    /// Resource that a provider limits.
    Resource {
        /// Requests in a window.
        Requests = "requests",
        /// Tokens in a window.
        Tokens = "tokens",
        /// Input tokens in a window.
        InputTokens = "input_tokens",
        /// Output tokens in a window.
        OutputTokens = "output_tokens",
    }
}

/// A rate limit reported by the headers of a response.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RateLimit {
    /// The limited resource.
    pub resource: Resource,
    /// Maximum of a window. `None` if it was not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Remainder of the window. `None` if it was not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// Time at which the window is full again. `None` if it was not reported or its unit is
    /// ambiguous.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub reset: Option<SystemTime>,
}

impl RateLimit {
    /// Builds a limit. Returns `None` if neither the limit nor the remainder is known.
    pub fn from_figures(
        resource: Resource,
        limit: Option<u64>,
        remaining: Option<u64>,
        reset: Option<SystemTime>,
    ) -> Option<Self> {
        (limit.is_some() || remaining.is_some()).then_some(Self { resource, limit, remaining, reset })
    }
}

/// Findings of the handshake with the target, including one that failed on the certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tls {
    /// `1.2` or `1.3`. `None` if the handshake ended earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    /// Registered name of the cipher suite. `None` if the handshake failed, and for checks other
    /// than network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cipher: Option<&'static str>,
    /// Earliest expiry in the presented chain. `None` if none could be read.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub not_after: Option<SystemTime>,
}

named! {
    /// Limit that a rate-limited request exceeded.
    LimitedBy {
        /// Requests in a window.
        Requests = "requests",
        /// Tokens in a window, input and output together.
        Tokens = "tokens",
        /// Input tokens in a window.
        InputTokens = "input_tokens",
        /// Output tokens in a window.
        OutputTokens = "output_tokens",
        /// Requests in flight at the same time.
        Concurrency = "concurrency",
        /// Requests or tokens of a day.
        Day = "day",
        /// The response does not name the limit.
        Unknown = "unknown",
    }
}

impl From<Resource> for LimitedBy {
    fn from(resource: Resource) -> Self {
        match resource {
            Resource::Requests => Self::Requests,
            Resource::Tokens => Self::Tokens,
            Resource::InputTokens => Self::InputTokens,
            Resource::OutputTokens => Self::OutputTokens,
        }
    }
}

/// Arrival of the content of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StreamShape {
    /// Number of events with visible content.
    pub pieces: u64,
    /// Number of groups of events that arrived together.
    pub bursts: u64,
    /// Longest pause between bursts; zero if there is only one.
    #[serde(rename = "longest_gap_seconds", serialize_with = "in_record")]
    pub longest_gap: Duration,
}

named! {
    /// Overall indicator of a status page.
    Indicator {
        /// No incident.
        None = "none",
        /// Minor incident.
        Minor = "minor",
        /// Major incident.
        Major = "major",
        /// Critical incident.
        Critical = "critical",
        /// Announced maintenance.
        Maintenance = "maintenance",
        /// The page could not be read, or has an unknown indicator.
        Unknown = "unknown",
    }
}

named! {
    /// Status of a component of a status page.
    ComponentStatus {
        /// Operational.
        Operational = "operational",
        /// Degraded performance.
        DegradedPerformance = "degraded_performance",
        /// Partial outage.
        PartialOutage = "partial_outage",
        /// Outage.
        MajorOutage = "major_outage",
        /// Maintenance in progress.
        UnderMaintenance = "under_maintenance",
        /// The page could not be read, does not list it, or has an unknown status.
        Unknown = "unknown",
    }
}

/// Content of a status page. The names of components are from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusPage {
    /// Overall indicator.
    pub indicator: Indicator,
    /// Number of unresolved incidents. `None` if the page does not list incidents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_incidents: Option<u64>,
    /// The configured components, in the order of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub components: Vec<(String, ComponentStatus)>,
    /// Announced maintenance that is in progress, else the next one. `None` if none is announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
}

/// Serializes pairs as an object.
fn as_map<S: Serializer>(pairs: &[(String, ComponentStatus)], serializer: S) -> Result<S::Ok, S::Error> {
    pairs.iter().map(|(name, status)| (name, status)).collect::<BTreeMap<_, _>>().serialize(serializer)
}

/// An announced maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Maintenance {
    /// Announced start. `None` if the page names none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub start: Option<SystemTime>,
    /// Announced end. `None` if the page names none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub end: Option<SystemTime>,
    /// Whether it has begun and is not over.
    pub in_progress: bool,
}

impl StatusPage {
    /// Returns whether an announced maintenance is in progress.
    pub fn in_maintenance(&self) -> bool {
        self.maintenance.is_some_and(|maintenance| maintenance.in_progress)
    }
}

/// Balance of an account in US dollars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Balance {
    /// Balance; negative for a debt.
    pub usd: f64,
    /// Balance below which the service refuses requests. `None` if it is not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_usd: Option<f64>,
}

named! {
    /// Origin of the connection of a warm probe's run.
    ConnectionUse {
        /// New, because there was none.
        New = "new",
        /// The connection of the previous run.
        Reused = "reused",
        /// New, because that of the previous run had ended without a byte of a response.
        Replaced = "replaced",
    }
}

named! {
    /// Clock of the arrival times of a run.
    Clock {
        /// The kernel's receive timestamps.
        Kernel = "kernel",
        /// The clock of the process, because the kernel provided no timestamps.
        Process = "process",
    }
}
