//! The vocabulary that every part shares: APIs, checks, reasons, faults, the outcome of one run and its record.
//!
//! Everything here is a closed type, so that a label value or a word in a record can only be one of ours.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

/// Declares an enum with one fixed name for each variant, as configuration, labels and records spell it.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in configuration, labels and records.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

mod comparison;
mod demand;
mod network;

pub use self::{
    comparison::{Compared, Measure, Pair, PairVerdict, Side},
    demand::Demanded,
    network::{AddressFailure, DnsServer, FailedAddress, LookupFailure, Network},
};

named! {
    /// The dialects that a provider can speak.
    Api {
        /// LangMart's gateway.
        Langmart = "langmart",
        /// `OpenAI`, and whatever imitates it: Azure, Mistral, `DeepSeek`, vLLM.
        Openai = "openai",
        /// Anthropic's Messages API.
        Anthropic = "anthropic",
        /// Groq: `OpenAI`'s dialect with differences.
        Groq = "groq",
        /// The Gemini developer API.
        Google = "google",
        /// The `OpenRouter` gateway.
        Openrouter = "openrouter",
    }
}

impl Api {
    /// Whose fault it is when the addressed service fails: a gateway's or a provider's own.
    pub const fn endpoint(self) -> Fault {
        match self {
            Self::Langmart | Self::Openrouter => Fault::Gateway,
            Self::Openai | Self::Anthropic | Self::Groq | Self::Google => Fault::Provider,
        }
    }
}

named! {
    /// What a probe looks at.
    Check {
        /// The host resolves, accepts connections and has a good certificate.
        Network = "network",
        /// The health path answers, without a key.
        Health = "health",
        /// The key is accepted.
        Auth = "auth",
        /// The model list is well-formed and has the model.
        Models = "models",
        /// A short completion, not streamed.
        Chat = "chat",
        /// A short completion, streamed.
        Stream = "stream",
        /// What the provider's status page says.
        Status = "status",
        /// What is left on the account.
        Balance = "balance",
        /// A request and an expectation of the operator's own.
        Http = "http",
    }
}

impl Check {
    /// Whether a run spends tokens.
    pub const fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Stream)
    }

    /// Whether its runs address the service itself. A status page stands on another host, so that its failures say
    /// nothing of the service's availability nor of the way there.
    pub const fn addresses_service(self) -> bool {
        !matches!(self, Self::Status)
    }

    /// Whose part a failure is, where `fault` would be right if the service had been addressed. A status page that fails
    /// leaves unknown what it would say, and is never the gateway's or the provider's downtime: what is not the way there
    /// is a matter of the probe, whose page does not serve.
    pub const fn blame(self, fault: Fault) -> Fault {
        match fault {
            Fault::Gateway | Fault::Provider if !self.addresses_service() => Fault::Caller,
            fault => fault,
        }
    }
}

named! {
    /// Whose part failed.
    Fault {
        /// Nobody's: the run succeeded.
        None = "none",
        /// The way there: DNS, TCP, proxy, TLS trust.
        Network = "network",
        /// The gateway that was addressed.
        Gateway = "gateway",
        /// The LLM provider, addressed directly or behind a gateway.
        Provider = "provider",
        /// The operator's own key, credit, limits or probe.
        Caller = "caller",
        /// This daemon.
        Prober = "prober",
    }
}

named! {
    /// Why a run ended as it did.
    Reason {
        /// Success.
        Ok = "ok",
        /// No address for the name.
        Dns = "dns",
        /// No TCP connection: refused or unreachable.
        Connect = "connect",
        /// The proxy failed or wants credentials.
        Proxy = "proxy",
        /// The handshake or the certificate failed.
        Tls = "tls",
        /// Our own deadline passed.
        Timeout = "timeout",
        /// Closed or reset before the response was complete.
        Disconnected = "disconnected",
        /// The key is missing, wrong, expired or revoked.
        AuthFailed = "auth_failed",
        /// The key is good, what it asks for is forbidden.
        Permission = "permission",
        /// Credit, quota or spend limit: waiting does not heal it.
        Billing = "billing",
        /// Too much in too short a time: waiting heals it.
        RateLimited = "rate_limited",
        /// The service says that it has too much to do.
        Overloaded = "overloaded",
        /// Other 503.
        Unavailable = "unavailable",
        /// 504, 524, or 408 answered by the server.
        GatewayTimeout = "gateway_timeout",
        /// Other 5xx.
        ServerError = "server_error",
        /// Unknown or retired model, or one that the list lacks.
        ModelNotFound = "model_not_found",
        /// Other 4xx: the probe is wrong, not the service.
        InvalidRequest = "invalid_request",
        /// 3xx and whatever else.
        UnexpectedStatus = "unexpected_status",
        /// 2xx, but not what the API promises.
        Malformed = "malformed",
        /// 2xx with an error in the body.
        ErrorIn200 = "error_in_200",
        /// Completed without visible content.
        NoContent = "no_content",
        /// An error inside a stream that began well.
        StreamError = "stream_error",
        /// The bytes of a stream ended without its end mark.
        StreamTruncated = "stream_truncated",
        /// No byte of a stream for the probe's `stall_timeout`.
        StreamStalled = "stream_stalled",
        /// The operator's own expectation does not hold.
        UnmetExpectation = "unmet_expectation",
        /// The prober itself failed.
        Internal = "internal",
    }
}

impl Reason {
    /// Whether a run of this check can end for this reason.
    const fn applies_to(self, check: Check) -> bool {
        if matches!(check, Check::Network) {
            return matches!(
                self,
                Self::Dns | Self::Connect | Self::Proxy | Self::Tls | Self::Timeout | Self::Internal
            );
        }
        match self {
            Self::Ok => false,
            Self::ModelNotFound => matches!(check, Check::Models | Check::Chat | Check::Stream | Check::Http),
            Self::ErrorIn200 => {
                matches!(check, Check::Auth | Check::Models | Check::Chat | Check::Stream | Check::Balance)
            }
            Self::NoContent => check.generates(),
            Self::StreamError | Self::StreamTruncated | Self::StreamStalled => matches!(check, Check::Stream),
            Self::UnmetExpectation => matches!(check, Check::Http),
            _ => true,
        }
    }

    /// Whose part this reason can be, for a service of this API. The first is the usual one.
    fn faults(self, api: Api) -> Vec<Fault> {
        let endpoint = api.endpoint();
        let mut faults = match self {
            Self::Ok => vec![Fault::None],
            Self::Dns | Self::Connect | Self::Proxy => vec![Fault::Network],
            Self::Tls | Self::Timeout => vec![Fault::Network, endpoint],
            Self::Internal => vec![Fault::Prober],
            Self::AuthFailed | Self::Permission | Self::Billing | Self::RateLimited => {
                vec![Fault::Caller]
            }
            Self::ModelNotFound | Self::InvalidRequest | Self::NoContent => vec![Fault::Caller],
            Self::Disconnected
            | Self::Overloaded
            | Self::Unavailable
            | Self::GatewayTimeout
            | Self::ServerError
            | Self::UnexpectedStatus
            | Self::Malformed
            | Self::ErrorIn200
            | Self::StreamError
            | Self::StreamTruncated
            | Self::StreamStalled
            | Self::UnmetExpectation => vec![endpoint],
        };
        if endpoint == Fault::Gateway && self.blames_named_upstream() {
            faults.push(Fault::Provider);
        }
        faults
    }

    /// Whether a body that names an upstream provider moves the blame to it: not where the probe itself is wrong,
    /// nor where there was no body to name one.
    pub const fn blames_named_upstream(self) -> bool {
        matches!(
            self,
            Self::AuthFailed
                | Self::Permission
                | Self::Billing
                | Self::RateLimited
                | Self::Overloaded
                | Self::Unavailable
                | Self::GatewayTimeout
                | Self::ServerError
                | Self::UnexpectedStatus
                | Self::ErrorIn200
                | Self::StreamError
        )
    }
}

/// Every way in which a run of this check against this API can fail, so that each has its counter from the start.
pub fn possible_failures(api: Api, check: Check) -> Vec<(Reason, Fault)> {
    let mut pairs = Vec::new();
    for &reason in Reason::ALL {
        if check == Check::Network && reason == Reason::Timeout {
            // It asks nothing of the endpoint that could take too long.
            pairs.push((reason, Fault::Network));
        } else if reason.applies_to(check) {
            pairs.extend(reason.faults(api).into_iter().map(|fault| (reason, check.blame(fault))));
        }
    }
    // Two faults of a reason can come to the same blame; they are neighbours.
    pairs.dedup();
    pairs
}

named! {
    /// Why a due run did not take place.
    SkipCause {
        /// The service asked to wait, or its limits do.
        Backoff = "backoff",
        /// The day's budget is spent.
        Budget = "budget",
        /// The provider's own pace holds it back.
        Pacing = "pacing",
        /// The run before it was not over.
        Overrun = "overrun",
        /// Too many runs in flight.
        Concurrency = "concurrency",
    }
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
}

impl Serialize for StatusPage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { indicator, open_incidents, components } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("indicator", indicator)?;
        optional(&mut map, "open_incidents", open_incidents.as_ref())?;
        if !components.is_empty() {
            let components: BTreeMap<_, _> = components.iter().map(|(name, status)| (name, status)).collect();
            map.serialize_entry("components", &components)?;
        }
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
        /// It was made, as the one of the run before was no longer good. Nothing had been sent on that.
        Replaced = "replaced",
    }
}

/// What one run found. A failed run is data like any other.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When the run began, by the wall clock.
    pub time: SystemTime,
    /// Why it ended as it did.
    pub reason: Reason,
    /// Whose part failed.
    pub fault: Fault,
    /// What exactly happened, in our own words; empty where the reason says it all.
    pub detail: Cow<'static, str>,
    /// What to do about it, in our own words; empty on success.
    pub hint: &'static str,
    /// Status of the response; `None` without one.
    pub http_status: Option<u16>,
    /// `1.0`, `1.1` or `2`; `None` without a response.
    pub http_version: Option<&'static str>,
    /// The service's own code, gated: see `probe::gate`.
    pub error_code: Option<Cow<'static, str>>,
    /// The provider that a gateway's error names, gated.
    pub upstream: Option<&'static str>,
    /// The service's id of the request, gated.
    pub request_id: Option<String>,
    /// How long the service asks to wait, in seconds, as received; `None` where it does not ask or the run succeeded.
    pub retry_after: Option<f64>,
    /// From the start of the run to its end.
    pub duration: Duration,
    /// Where the duration went.
    pub phases: Phases,
    /// The address that the connection went to (a proxy's, where one is set).
    pub remote_address: Option<SocketAddr>,
    /// Limits told by the response.
    pub ratelimit: Vec<RateLimit>,
    /// What the TLS handshake showed; `None` without one.
    pub tls: Option<Tls>,
    /// What the lookup answered; empty without one.
    pub dns: Vec<IpAddr>,
    /// What only the network check finds; `None` for the others.
    pub network: Option<Box<Network>>,
    /// Our clock minus the server's Date header, in seconds, good to a second; `None` where it sent none.
    pub clock_offset: Option<f64>,
    /// From handing the request to the connection until the first visible content of a stream arrived; `None` where
    /// there was none, or no stream.
    pub time_to_first_token: Option<Duration>,
    /// The same until the first piece of reasoning; `None` where none was shown.
    pub time_to_first_reasoning: Option<Duration>,
    /// Between the visible tokens of a complete stream, on average; `None` where it cannot be told: fewer than two, or
    /// all of them in one piece.
    pub time_per_output_token: Option<Duration>,
    /// Tokens of the prompt, as the service counted them.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer, as the service counted them, reasoning included.
    pub output_tokens: Option<u64>,
    /// Whether one of the counts is our estimate, because the service told none.
    pub tokens_estimated: bool,
    /// What the tokens cost in US dollars, by the probe's price; `None` where it has none, or no tokens are known.
    pub estimated_cost_usd: Option<f64>,
    /// What the status page says; `None` for other checks, and where the page could not be read.
    pub status_page: Option<StatusPage>,
    /// What is left on the account; `None` where it was not told, is unlimited, or is not in US dollars.
    pub balance: Option<Balance>,
    /// Which attempt after a failed run this was, from 1 on; `None`: it was a run.
    pub recheck: Option<u32>,
    /// Where the connection of a probe that keeps it came from; `None`: each run of the probe has its own.
    pub connection: Option<ConnectionUse>,
    /// Whether it succeeded, but took longer than the probe's `slow_after`.
    pub slow: bool,
    /// The comparison that the run belongs to; `None`: to none, or it was run by hand.
    pub compared: Option<Box<Compared>>,
}

impl Outcome {
    /// An outcome with nothing but its verdict.
    pub fn new(time: SystemTime, reason: Reason, fault: Fault) -> Self {
        Self {
            time,
            reason,
            fault,
            detail: Cow::Borrowed(""),
            hint: "",
            http_status: None,
            http_version: None,
            error_code: None,
            upstream: None,
            request_id: None,
            retry_after: None,
            duration: Duration::ZERO,
            phases: Phases::default(),
            remote_address: None,
            ratelimit: Vec::new(),
            tls: None,
            dns: Vec::new(),
            network: None,
            clock_offset: None,
            time_to_first_token: None,
            time_to_first_reasoning: None,
            time_per_output_token: None,
            input_tokens: None,
            output_tokens: None,
            tokens_estimated: false,
            estimated_cost_usd: None,
            status_page: None,
            balance: None,
            recheck: None,
            connection: None,
            slow: false,
            compared: None,
        }
    }

    /// Whether the run succeeded.
    pub fn success(&self) -> bool {
        self.reason == Reason::Ok
    }
}

/// Who a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The probe's name.
    pub probe: &'a str,
    /// The provider's name.
    pub provider: &'a str,
    /// What is looked at.
    pub check: Check,
    /// The model, where the probe has one.
    pub model: Option<&'a str>,
}

/// The result record: one line of `results.jsonl` and of `once --json`. Members without a value are left out.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Whose run.
    pub subject: Subject<'a>,
    /// What it found.
    pub outcome: &'a Outcome,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Subject { probe, provider, check, model } = self.subject;
        // Taken apart in full, so that a new member of the outcome does not compile until it is written here.
        let Outcome {
            time,
            reason,
            fault,
            detail,
            hint,
            http_status,
            http_version,
            error_code,
            upstream,
            request_id,
            retry_after,
            duration,
            phases,
            remote_address,
            ratelimit,
            tls,
            dns,
            network,
            clock_offset,
            time_to_first_token,
            time_to_first_reasoning,
            time_per_output_token,
            input_tokens,
            output_tokens,
            tokens_estimated,
            estimated_cost_usd,
            status_page,
            balance,
            recheck,
            connection,
            slow,
            compared,
        } = self.outcome;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &rfc3339(*time))?;
        map.serialize_entry("probe", probe)?;
        map.serialize_entry("provider", provider)?;
        map.serialize_entry("check", &check)?;
        optional(&mut map, "model", model.as_ref())?;
        map.serialize_entry("success", &self.outcome.success())?;
        map.serialize_entry("reason", reason)?;
        map.serialize_entry("fault", fault)?;
        optional(&mut map, "detail", (!detail.is_empty()).then_some(detail))?;
        optional(&mut map, "hint", (!hint.is_empty()).then_some(hint))?;
        optional(&mut map, "http_status", http_status.as_ref())?;
        optional(&mut map, "http_version", http_version.as_ref())?;
        optional(&mut map, "error_code", error_code.as_ref())?;
        optional(&mut map, "upstream", upstream.as_ref())?;
        optional(&mut map, "request_id", request_id.as_ref())?;
        optional(&mut map, "retry_after_seconds", retry_after.as_ref())?;
        map.serialize_entry("duration_seconds", &seconds(*duration))?;
        map.serialize_entry("phases", phases)?;
        optional(&mut map, "remote_address", remote_address.as_ref())?;
        optional(&mut map, "ratelimit", (!ratelimit.is_empty()).then_some(ratelimit))?;
        optional(&mut map, "tls", tls.as_ref())?;
        optional(&mut map, "dns", (!dns.is_empty()).then_some(dns))?;
        if let Some(Network { dns_servers, failed_addresses }) = network.as_deref() {
            optional(&mut map, "dns_servers", (!dns_servers.is_empty()).then_some(dns_servers))?;
            optional(
                &mut map,
                "failed_addresses",
                (!failed_addresses.is_empty()).then_some(failed_addresses),
            )?;
        }
        optional(&mut map, "clock_offset_seconds", clock_offset.as_ref())?;
        let first_token = time_to_first_token.map(seconds);
        optional(&mut map, "time_to_first_token_seconds", first_token.as_ref())?;
        let first_reasoning = time_to_first_reasoning.map(seconds);
        optional(&mut map, "time_to_first_reasoning_seconds", first_reasoning.as_ref())?;
        let per_token = time_per_output_token.map(seconds);
        optional(&mut map, "time_per_output_token_seconds", per_token.as_ref())?;
        optional(&mut map, "input_tokens", input_tokens.as_ref())?;
        optional(&mut map, "output_tokens", output_tokens.as_ref())?;
        optional(&mut map, "tokens_estimated", tokens_estimated.then_some(&true))?;
        optional(&mut map, "estimated_cost_usd", estimated_cost_usd.as_ref())?;
        optional(&mut map, "status_page", status_page.as_ref())?;
        optional(&mut map, "balance", balance.as_ref())?;
        optional(&mut map, "recheck", recheck.as_ref())?;
        optional(&mut map, "connection", connection.as_ref())?;
        optional(&mut map, "slow", slow.then_some(&true))?;
        if let Some(Compared { comparison, side, pair }) = compared.as_deref() {
            map.serialize_entry("comparison", comparison)?;
            map.serialize_entry("side", side)?;
            optional(&mut map, "verdict", pair.map(|pair| pair.verdict()).as_ref())?;
        }
        map.end()
    }
}

fn optional<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &'static str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, value))
}

/// Seconds with microsecond precision, so that records stay readable.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// RFC 3339 in UTC, with milliseconds where there are any. A time that the calendar cannot hold is its nearest end.
pub fn rfc3339(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(if time < SystemTime::UNIX_EPOCH {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    if timestamp.subsec_nanosecond() / 1_000_000 == 0 {
        timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        timestamp.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }
}

/// Seconds since the Unix epoch, negative before it.
pub fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
