//! The verdict on a run: API, check and fault.

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
    /// failures are no information about the service or its network path.
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
    /// Returns whether a run with this fault shows the service to be down. Returns `None` if the
    /// prober failed, because nothing was requested then.
    pub const fn shows_downtime(self) -> Option<bool> {
        match self {
            Self::Prober => None,
            fault => Some(fault.is_downtime()),
        }
    }

    /// Returns whether a failure counts as downtime of the service. Failures of the caller and of
    /// the prober do not.
    pub const fn is_downtime(self) -> bool {
        matches!(self, Self::Gateway | Self::Provider | Self::Network)
    }
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
