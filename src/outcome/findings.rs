//! What a run finds beside its verdict: phases, rate limits, the certificate, the status page, the balance.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    record::optional,
    time::{rfc3339, seconds},
};

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

    /// The durations, in the order of [`Phases::NAMES`].
    pub const fn durations(&self) -> [Duration; 5] {
        [self.resolve, self.connect, self.tls, self.processing, self.transfer]
    }

    /// All of them.
    pub fn total(&self) -> Duration {
        self.durations().iter().sum()
    }

    /// Phase by phase, for a run that took several exchanges.
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
    /// What a provider limits.
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

/// One rate limit as the response's headers told it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// What is limited.
    pub resource: Resource,
    /// The most in a window; `None` where it was not told.
    pub limit: Option<u64>,
    /// What is left; `None` where it was not told.
    pub remaining: Option<u64>,
    /// When the window is full again; `None` where it was not told or its unit is ambiguous.
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

impl Serialize for RateLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { resource, limit, remaining, reset } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("resource", resource)?;
        if let Some(limit) = limit {
            map.serialize_entry("limit", limit)?;
        }
        if let Some(remaining) = remaining {
            map.serialize_entry("remaining", remaining)?;
        }
        if let Some(reset) = reset {
            map.serialize_entry("reset", &rfc3339(*reset))?;
        }
        map.end()
    }
}

/// What the handshake with the target showed, also where it failed on the certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tls {
    /// `1.2` or `1.3`; `None` where the handshake did not come so far.
    pub version: Option<&'static str>,
    /// The cipher suite by its registered name; `None` where the handshake failed, and for checks other than network.
    pub cipher: Option<&'static str>,
    /// The earliest end of validity in the chain as presented; `None` where none could be read.
    pub not_after: Option<SystemTime>,
}

impl Serialize for Tls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { version, cipher, not_after } = self;
        let mut map = serializer.serialize_map(None)?;
        if let Some(version) = version {
            map.serialize_entry("version", version)?;
        }
        if let Some(cipher) = cipher {
            map.serialize_entry("cipher", cipher)?;
        }
        if let Some(not_after) = not_after {
            map.serialize_entry("not_after", &rfc3339(*not_after))?;
        }
        map.end()
    }
}

named! {
    /// The limit that a rate-limited request has met.
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

/// A detail of a failure that changes its remedy. It is in no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clue {
    /// The error is not the API's: a proxy, a CDN or a router answered before it.
    Intermediary,
    /// The response redirects to the same host by `https`.
    RedirectToHttps,
    /// The request is larger than the service, or a proxy before it, accepts.
    RequestTooLarge,
    /// The completion is empty, and nothing in it says why.
    EmptyAnswer,
    /// The model called a tool, of which the request offers none.
    ToolCall,
    /// The model has been shut down.
    ModelRetired,
    /// No process listens on the port, or a firewall rejects the connection.
    ConnectionRefused,
    /// The certificate is not valid now.
    CertificateTime,
    /// The certificate's issuer is not trusted.
    UntrustedIssuer,
}

/// How the content of a stream arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamShape {
    /// Events with visible content.
    pub pieces: u64,
    /// Groups of content that arrived together.
    pub bursts: u64,
    /// Longest pause between bursts; zero if there is one burst.
    pub longest_gap: Duration,
}

impl Serialize for StreamShape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { pieces, bursts, longest_gap } = self;
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("pieces", pieces)?;
        map.serialize_entry("bursts", bursts)?;
        map.serialize_entry("longest_gap_seconds", &seconds(*longest_gap))?;
        map.end()
    }
}

named! {
    /// How bad things are, by a status page's own word.
    Indicator {
        /// Nothing is wrong.
        None = "none",
        /// Something small.
        Minor = "minor",
        /// Something large.
        Major = "major",
        /// The worst.
        Critical = "critical",
        /// Announced work.
        Maintenance = "maintenance",
        /// The page could not be read, or has a word that we do not know.
        Unknown = "unknown",
    }
}

named! {
    /// How a component of a status page is.
    ComponentStatus {
        /// It works.
        Operational = "operational",
        /// It works badly.
        DegradedPerformance = "degraded_performance",
        /// A part of it does not work.
        PartialOutage = "partial_outage",
        /// It does not work.
        MajorOutage = "major_outage",
        /// Announced work is done on it.
        UnderMaintenance = "under_maintenance",
        /// The page could not be read, does not have it, or has a word that we do not know.
        Unknown = "unknown",
    }
}

/// What a status page says. The words are ours; the names of components are the configuration's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPage {
    /// The page's verdict on all of it.
    pub indicator: Indicator,
    /// Incidents that are not over; `None` where the page does not list any.
    pub open_incidents: Option<u64>,
    /// The configured components, in the order of the configuration.
    pub components: Vec<(String, ComponentStatus)>,
    /// The announced maintenance that is in progress, else the next one; `None` if none is announced.
    pub maintenance: Option<Maintenance>,
}

/// An announced maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// Announced start; `None` if the page names none.
    pub start: Option<SystemTime>,
    /// Announced end; `None` if the page names none.
    pub end: Option<SystemTime>,
    /// Whether it has begun and is not over.
    pub in_progress: bool,
}

impl Serialize for Maintenance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { start, end, in_progress } = self;
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "start", start.map(rfc3339).as_ref())?;
        optional(&mut map, "end", end.map(rfc3339).as_ref())?;
        map.serialize_entry("in_progress", in_progress)?;
        map.end()
    }
}

impl StatusPage {
    /// Returns whether an announced maintenance is in progress.
    pub fn in_maintenance(&self) -> bool {
        self.maintenance.is_some_and(|maintenance| maintenance.in_progress)
    }
}

impl Serialize for StatusPage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { indicator, open_incidents, components, maintenance } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("indicator", indicator)?;
        optional(&mut map, "open_incidents", open_incidents.as_ref())?;
        if !components.is_empty() {
            let components: BTreeMap<_, _> = components.iter().map(|(name, status)| (name, status)).collect();
            map.serialize_entry("components", &components)?;
        }
        optional(&mut map, "maintenance", maintenance.as_ref())?;
        map.end()
    }
}

/// What is left on an account, in US dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// What is left; negative where the account owes.
    pub usd: f64,
    /// Below this the service refuses; `None` where it does not tell.
    pub minimum_usd: Option<f64>,
}

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { usd, minimum_usd } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("usd", usd)?;
        optional(&mut map, "minimum_usd", minimum_usd.as_ref())?;
        map.end()
    }
}

named! {
    /// Where the connection of a warm probe's run came from.
    ConnectionUse {
        /// It was made, as there was none.
        New = "new",
        /// It was the one of the run before.
        Reused = "reused",
        /// It was made, as the one of the run before had ended without a byte of a response.
        Replaced = "replaced",
    }
}

named! {
    /// The clock that the arrival times of a run were read from.
    Clock {
        /// The kernel's receive timestamps.
        Kernel = "kernel",
        /// The process's, since the kernel gave no timestamps.
        Process = "process",
    }
}
