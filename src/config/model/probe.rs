//! `[[probe]]`, and the probes that `checks` of a provider generates.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};

use super::{Comparison, ExpectedAnswer, ModelPattern, Provider, StatusSource};
use crate::{
    api::MaxTokensParameter,
    outcome::{Check, Subject},
};

/// A probe: its check, provider, model and timing.
#[derive(Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name, unique among all probes.
    pub name: String,
    /// The provider that it addresses.
    pub provider: Arc<Provider>,
    /// The check with its parameters.
    pub task: Task,
    /// The model. Required for chat and stream, optional for models.
    pub model: Option<String>,
    /// Date on which the model is announced to shut down, if configured.
    pub retires: Option<SystemTime>,
    /// Interval of the schedule slots.
    pub interval: Duration,
    /// Timeout of the whole run, from DNS lookup to the last byte; at most the interval.
    pub timeout: Duration,
    /// Whether each run opens its own connection.
    pub connection: Connection,
    /// A successful run counts as slow if it takes longer: to the first token of a stream,
    /// otherwise in total. `None` disables this.
    pub slow_after: Option<Duration>,
    /// Rechecks after a failed run, if configured.
    pub recheck: Option<Recheck>,
    /// The comparison of which this probe is one side, if any. Its schedule slots are those of the
    /// gateway probe.
    pub comparison: Option<Arc<Comparison>>,
}

impl Probe {
    /// Returns the check.
    pub fn check(&self) -> Check {
        match self.task {
            Task::Network => Check::Network,
            Task::Health => Check::Health,
            Task::Auth => Check::Auth,
            Task::Models => Check::Models,
            Task::Chat(_) => Check::Chat,
            Task::Stream(_) => Check::Stream,
            Task::Status(_) => Check::Status,
            Task::Balance => Check::Balance,
            Task::Http(_) => Check::Http,
        }
    }

    /// Returns whether the provider's `requests_per_minute` applies to runs of this probe. The
    /// network check sends no request, and the status page is on another host.
    pub fn is_rate_limited(&self) -> bool {
        !matches!(self.task, Task::Network | Task::Status(_))
    }

    /// Returns the probe name that determines the schedule slots: its own, or that of the
    /// comparison's gateway probe.
    pub fn slot_name(&self) -> &str {
        self.comparison.as_ref().map_or(&self.name, |comparison| &comparison.gateway)
    }

    /// Returns the completion request, if the check sends one.
    pub fn chat(&self) -> Option<&Chat> {
        match &self.task {
            Task::Chat(chat) | Task::Stream(Stream { chat, .. }) => Some(chat),
            Task::Network
            | Task::Health
            | Task::Auth
            | Task::Models
            | Task::Status(_)
            | Task::Balance
            | Task::Http(_) => None,
        }
    }

    /// Returns the target host, for labels and messages.
    pub fn host(&self) -> &str {
        match &self.task {
            Task::Status(source) => {
                source.url.host_str().expect("a status_url without a host is refused at load")
            }
            _ => self.provider.host(),
        }
    }

    /// Returns the subject of its records and series.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            probe: &self.name,
            provider: &self.provider.name,
            check: self.check(),
            model: self.model.as_deref(),
        }
    }
}

/// Use of connections across the runs of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The connection is closed: each run measures all phases.
    Cold,
    /// The connection is kept for the next run.
    Warm,
}

impl Connection {
    /// Returns the name in configuration and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Attempts after a run that failed for a transient reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// Wait from the end of the failed run to the first attempt.
    pub after: Duration,
    /// Increment of the wait with each further attempt.
    pub step: Duration,
    /// Maximum number of attempts, at least 1.
    pub times: u32,
}

impl Recheck {
    /// Returns the wait before attempt `number`, counted from 1.
    pub fn wait(&self, number: u32) -> Duration {
        self.after.saturating_add(self.step.saturating_mul(number.saturating_sub(1)))
    }

    /// Returns the sum of all waits.
    pub fn waits(&self) -> Duration {
        (1..=self.times).map(|number| self.wait(number)).fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// The check of a probe with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// DNS lookup, connection and TLS handshake, without a request.
    Network,
    /// GET the health path.
    Health,
    /// GET a resource that requires a valid key.
    Auth,
    /// GET the model list.
    Models,
    /// POST a short completion.
    Chat(Chat),
    /// POST a short completion with a streamed response.
    Stream(Stream),
    /// GET the provider's status page.
    Status(StatusSource),
    /// GET the account's balance.
    Balance,
    /// A request defined by the operator.
    Http(Box<HttpRequest>),
}

/// The first word of a long prompt that no prompt cache shall answer. Each run replaces its digits.
pub const PROMPT_NONCE: &str = "run-0000000000000000";

/// A short completion.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// The only message of the request.
    pub prompt: String,
    /// Maximum number of output tokens.
    pub max_tokens: u32,
    /// The request member for `max_tokens`. `None` selects it by API and model family.
    pub max_tokens_parameter: Option<MaxTokensParameter>,
    /// Price of the model's tokens, if known.
    pub price: Option<Price>,
    /// Expected text of the answer.
    pub expected_answer: ExpectedAnswer,
    /// `expect.model`: what the name of the model that answers must be. `None` if any is accepted.
    pub expected_model: Option<ModelPattern>,
}

impl Chat {
    /// Returns the size of the prompt in words, as `prompt_words` counts it.
    pub fn prompt_words(&self) -> usize {
        self.prompt.split_whitespace().count()
    }

    /// Returns the estimated number of tokens of the prompt, framing included. For English the
    /// error is some tenths.
    pub fn estimated_input_tokens(&self) -> u64 {
        const FRAME_TOKENS: u64 = 8;
        self.prompt.len().div_ceil(BYTES_PER_TOKEN) as u64 + FRAME_TOKENS
    }
}

/// Price of tokens, in US dollars per million.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Price of the prompt; finite, 0 or more.
    pub input_usd_per_mtok: f64,
    /// Price of the part of the prompt that the provider's prompt cache served; finite, 0 or more.
    /// `None` if it is the same.
    pub cached_input_usd_per_mtok: Option<f64>,
    /// Price of the answer, reasoning included; finite, 0 or more.
    pub output_usd_per_mtok: f64,
}

impl Eq for Price {}

impl Price {
    /// Returns the price of these tokens, in US dollars. `cached_tokens` is the part of the input
    /// that a cache served.
    pub fn cost(&self, input_tokens: u64, cached_tokens: u64, output_tokens: u64) -> f64 {
        const MILLION: f64 = 1e6;
        let &Self { input_usd_per_mtok, cached_input_usd_per_mtok, output_usd_per_mtok } = self;
        let fresh = input_tokens.saturating_sub(cached_tokens) as f64 * input_usd_per_mtok;
        let cached =
            cached_tokens.min(input_tokens) as f64 * cached_input_usd_per_mtok.unwrap_or(input_usd_per_mtok);
        (fresh + cached + output_tokens as f64 * output_usd_per_mtok) / MILLION
    }
}

/// Bytes per token, a good approximation for English.
pub const BYTES_PER_TOKEN: usize = 4;

/// A short streamed completion.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream {
    /// The completion request.
    pub chat: Chat,
    /// Maximum time between two chunks of a response before the stream counts as failed.
    pub stall_timeout: Duration,
    /// Whether an OpenAI-compatible API is asked for token counts at the end of the stream.
    pub include_usage: bool,
}

/// A request defined by the operator and its expected response.
#[derive(PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, GET by default.
    pub method: Method,
    /// The path, which is appended to the base URL and may have a query.
    pub path: String,
    /// The body, if any, sent as written.
    pub body: Option<String>,
    /// Headers in addition to the provider's; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether to send the provider's key.
    pub send_key: bool,
    /// The expected response.
    pub expect: Expect,
}

impl fmt::Debug for HttpRequest {
    /// Omits the body, which may contain credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, body, headers, send_key, expect } = self;
        f.debug_struct("HttpRequest")
            .field("method", method)
            .field("path", path)
            .field("body_bytes", &body.as_ref().map(String::len))
            .field("headers", headers)
            .field("send_key", send_key)
            .field("expect", expect)
            .finish()
    }
}

/// The expected response of an `http` check. Unset conditions are not checked.
#[derive(Debug, Default)]
pub struct Expect {
    /// Allowed status codes; empty means any 2xx.
    pub status: Vec<u16>,
    /// A pattern that must match somewhere in the body.
    pub body_regex: Option<regex::bytes::Regex>,
    /// JSON pointers (RFC 6901) into the body, and the expected values.
    pub json: Vec<(String, serde_json::Value)>,
}

impl PartialEq for Expect {
    fn eq(&self, other: &Self) -> bool {
        let pattern = |expect: &Self| expect.body_regex.as_ref().map(|regex| regex.as_str().to_owned());
        self.status == other.status && self.json == other.json && pattern(self) == pattern(other)
    }
}

impl Eq for Expect {}
