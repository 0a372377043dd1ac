//! The verdict on a run: API, check, reason and fault.

use std::fmt;

use serde::{Serialize, Serializer};

named! {
    /// API dialects.
    Api {
        /// LangMart's gateway.
        Langmart = "langmart",
        /// `OpenAI` and compatible services: Azure, Mistral, `DeepSeek`, vLLM.
        Openai = "openai",
        /// Anthropic's Messages API.
        Anthropic = "anthropic",
        /// Groq: a variant of `OpenAI`'s dialect.
        Groq = "groq",
        /// The Gemini developer API.
        Google = "google",
        /// The `OpenRouter` gateway.
        Openrouter = "openrouter",
    }
}

impl Api {
    /// Returns the responsible party if the addressed service fails: the gateway or the provider.
    pub const fn endpoint(self) -> Fault {
        match self {
            Self::Langmart | Self::Openrouter => Fault::Gateway,
            Self::Openai | Self::Anthropic | Self::Groq | Self::Google => Fault::Provider,
        }
    }
}

named! {
    /// Type of a probe.
    Check {
        /// The host resolves, accepts connections and has a valid certificate.
        Network = "network",
        /// The health endpoint answers, without a key.
        Health = "health",
        /// The key is accepted.
        Auth = "auth",
        /// The model list is well-formed and contains the model.
        Models = "models",
        /// A short completion, not streamed.
        Chat = "chat",
        /// A short completion, streamed.
        Stream = "stream",
        /// Content of the provider's status page.
        Status = "status",
        /// Remaining balance of the account.
        Balance = "balance",
        /// A custom request with a custom expectation.
        Http = "http",
    }
}

impl Check {
    /// Returns whether a run consumes tokens.
    pub const fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Stream)
    }

    /// Returns whether runs address the service itself. A status page is on another host, so its
    /// failures say nothing about the service or its network path.
    pub const fn addresses_service(self) -> bool {
        !matches!(self, Self::Status)
    }

    /// Returns the responsible party of a failure, where `fault` is the party if the service had
    /// been addressed. A status page that fails is never downtime of the gateway or provider:
    /// unless the network failed, the caller has configured an unsuitable page.
    pub const fn blame(self, fault: Fault) -> Fault {
        match fault {
            Fault::Gateway | Fault::Provider if !self.addresses_service() => Fault::Caller,
            fault => fault,
        }
    }
}

named! {
    /// Party responsible for a failure.
    Fault {
        /// None: the run succeeded.
        None = "none",
        /// The network path: DNS, TCP, proxy, TLS trust.
        Network = "network",
        /// The addressed gateway.
        Gateway = "gateway",
        /// The LLM provider, addressed directly or behind a gateway.
        Provider = "provider",
        /// The operator's own key, credit, limits or probe.
        Caller = "caller",
        /// This daemon.
        Prober = "prober",
    }
}

impl Fault {
    /// Returns whether a failure counts as downtime of the service. Failures of the caller and of the
    /// prober do not.
    pub const fn is_downtime(self) -> bool {
        matches!(self, Self::Gateway | Self::Provider | Self::Network)
    }
}

named! {
    /// Reason of a result.
    Reason {
        /// Success.
        Ok = "ok",
        /// The name could not be resolved.
        Dns = "dns",
        /// The connection was refused, or the address is unreachable.
        Connect = "connect",
        /// The proxy failed or requires credentials.
        Proxy = "proxy",
        /// The handshake or the certificate failed.
        Tls = "tls",
        /// The probe's timeout passed.
        Timeout = "timeout",
        /// Closed or reset before the response was complete.
        Disconnected = "disconnected",
        /// The key is missing, wrong, expired or revoked.
        AuthFailed = "auth_failed",
        /// The key is valid, but not permitted to do this.
        Permission = "permission",
        /// Credit, quota or spend limit exhausted. Retrying does not help.
        Billing = "billing",
        /// Too many requests or tokens in a short time. Waiting helps.
        RateLimited = "rate_limited",
        /// The service reports that it is overloaded.
        Overloaded = "overloaded",
        /// Other 503.
        Unavailable = "unavailable",
        /// 504, 524, or 408 answered by the server.
        GatewayTimeout = "gateway_timeout",
        /// Other 5xx.
        ServerError = "server_error",
        /// Unknown or retired model, or one missing from the list.
        ModelNotFound = "model_not_found",
        /// Other 4xx. The probe is wrong, not the service.
        InvalidRequest = "invalid_request",
        /// 3xx and any other status.
        UnexpectedStatus = "unexpected_status",
        /// 2xx with a response that violates the API.
        Malformed = "malformed",
        /// 2xx with an error in the body.
        ErrorIn200 = "error_in_200",
        /// Completed without visible content.
        NoContent = "no_content",
        /// Completed, but the answer does not meet the built-in expectation.
        WrongAnswer = "wrong_answer",
        /// An error inside a stream that began successfully.
        StreamError = "stream_error",
        /// A stream ended without its end marker.
        StreamTruncated = "stream_truncated",
        /// No bytes of a stream for the probe's `stall_timeout`.
        StreamStalled = "stream_stalled",
        /// The custom expectation is not met.
        UnmetExpectation = "unmet_expectation",
        /// The prober itself failed.
        Internal = "internal",
    }
}

impl Reason {
    /// Returns whether a run of this check can end for this reason.
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
            Self::NoContent | Self::WrongAnswer => check.generates(),
            Self::StreamError | Self::StreamTruncated | Self::StreamStalled => matches!(check, Check::Stream),
            Self::UnmetExpectation => matches!(check, Check::Chat | Check::Stream | Check::Http),
            _ => true,
        }
    }

    /// Returns the possible responsible parties of this reason for a service of this API, the usual
    /// one first.
    fn faults(self, api: Api) -> Vec<Fault> {
        let endpoint = api.endpoint();
        let mut faults = match self {
            Self::Ok => vec![Fault::None],
            Self::Dns | Self::Connect | Self::Proxy => vec![Fault::Network],
            // A missing client certificate is the caller's fault.
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
            | Self::WrongAnswer
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

    /// Returns whether an upstream provider named in the body is responsible. It is not if the
    /// probe itself is wrong, or if there was no body.
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

/// Returns every possible failure of this check against this API, so that each has a counter from
/// the start.
pub fn possible_failures(api: Api, check: Check) -> Vec<(Reason, Fault)> {
    let mut pairs = Vec::new();
    for &reason in Reason::ALL {
        if check == Check::Network && reason == Reason::Timeout {
            // The network check sends no request that the endpoint could be slow to answer.
            pairs.push((reason, Fault::Network));
        } else if reason.applies_to(check) {
            pairs.extend(reason.faults(api).into_iter().map(|fault| (reason, check.blame(fault))));
        }
    }
    // Two faults of a reason can lead to the same party; they are adjacent.
    pairs.dedup();
    pairs
}

named! {
    /// Cause of a skipped run.
    SkipCause {
        /// The service asked to wait, or the backoff does.
        Backoff = "backoff",
        /// The daily budget is exhausted.
        Budget = "budget",
        /// The rate limit configured for the provider was reached.
        Pacing = "pacing",
        /// The previous run had not ended.
        Overrun = "overrun",
        /// Too many runs in flight.
        Concurrency = "concurrency",
    }
}
