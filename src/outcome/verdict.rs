//! The verdict on a run: which check of which API, why it ended as it did, and whose part failed.

use std::fmt;

use serde::{Serialize, Serializer};

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
            // A required client certificate is the caller's.
            Self::Tls => vec![Fault::Network, endpoint, Fault::Caller],
            Self::Timeout => vec![Fault::Network, endpoint],
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
