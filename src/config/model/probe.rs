//! `[[probe]]`, and the probes that `checks` of a provider generates.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};

use super::{Comparison, Provider, StatusSource};
use crate::outcome::{Check, Subject};

/// One probe: what to do, where, how often.
#[derive(Debug, PartialEq, Eq)]
pub struct Probe {
    /// Unique among all probes.
    pub name: String,
    /// The service that it addresses.
    pub provider: Arc<Provider>,
    /// What it does there.
    pub task: Task,
    /// The model; set for chat and stream, optional for models.
    pub model: Option<String>,
    /// From one due time to the next.
    pub interval: Duration,
    /// Bounds everything from the lookup to the last byte; at most the interval.
    pub timeout: Duration,
    /// Whether each run opens a connection of its own.
    pub connection: Connection,
    /// A success that took longer is slow: to the first token of a stream, else in all; `None`: none is.
    pub slow_after: Option<Duration>,
    /// Attempts between a failed run and the next due one; `None`: none.
    pub recheck: Option<Recheck>,
    /// The comparison that it is one side of, whose grid of due times is the gateway probe's; `None`: of none.
    pub comparison: Option<Arc<Comparison>>,
}

impl Probe {
    /// What it looks at.
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

    /// Whether `requests_per_minute` of its provider counts its runs: those that send the service a request. The network
    /// check sends none, and the status page stands on another host.
    pub fn is_paced(&self) -> bool {
        !matches!(self.task, Task::Network | Task::Status(_))
    }

    /// The name that its grid of due times goes by: its own, or that of its comparison's gateway probe.
    pub fn grid(&self) -> &str {
        self.comparison.as_ref().map_or(&self.name, |comparison| &comparison.gateway)
    }

    /// What it asks a model; `None`: it asks none.
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

    /// The host that it addresses, for labels and messages.
    pub fn host(&self) -> &str {
        match &self.task {
            Task::Status(source) => {
                source.url.host_str().expect("a status_url without a host is refused at load")
            }
            _ => self.provider.host(),
        }
    }

    /// Who its records and series are about.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            probe: &self.name,
            provider: &self.provider.name,
            check: self.check(),
            model: self.model.as_deref(),
        }
    }
}

/// What becomes of a probe's connection after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It is closed: each run measures the whole way.
    Cold,
    /// It is kept for the next run, as applications do.
    Warm,
}

impl Connection {
    /// The name in configuration and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Attempts after a run that failed for a reason which may pass within seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// From the end of the failed run to the first attempt.
    pub after: Duration,
    /// What each wait is longer than the one before it; zero: all are alike.
    pub step: Duration,
    /// How many attempts at most, at least 1.
    pub times: u32,
}

impl Recheck {
    /// The wait before attempt `number`, counted from 1.
    pub fn wait(&self, number: u32) -> Duration {
        self.after.saturating_add(self.step.saturating_mul(number.saturating_sub(1)))
    }

    /// All waits together.
    pub fn waits(&self) -> Duration {
        (1..=self.times).map(|number| self.wait(number)).fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// What a probe does, with what only that check needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Look up, connect and shake hands, without a request.
    Network,
    /// GET the health path.
    Health,
    /// GET what only a good key may see.
    Auth,
    /// GET the model list.
    Models,
    /// POST a short completion.
    Chat(Chat),
    /// POST a short completion whose answer is streamed.
    Stream(Stream),
    /// GET the provider's status page.
    Status(StatusSource),
    /// GET the account's balance.
    Balance,
    /// Whatever the operator wrote.
    Http(Box<HttpRequest>),
}

/// A short completion.
#[derive(Debug, PartialEq, Eq)]
pub struct Chat {
    /// The one message sent.
    pub prompt: String,
    /// The most tokens that may come back.
    pub max_tokens: u32,
    /// The member that carries `max_tokens`, where the API has a choice; `None`: by API and model family.
    pub max_tokens_parameter: Option<MaxTokensParameter>,
    /// What the model's tokens cost; `None`: that is not known.
    pub price: Option<Price>,
}

impl Chat {
    /// The size of the prompt, as `prompt_words` counts it.
    pub fn prompt_words(&self) -> usize {
        self.prompt.split_whitespace().count()
    }

    /// About how many tokens the prompt has, roles and marks included: right for English within some tenths.
    pub fn estimated_input_tokens(&self) -> u64 {
        const FRAME_TOKENS: u64 = 8;
        self.prompt.len().div_ceil(BYTES_PER_TOKEN) as u64 + FRAME_TOKENS
    }
}

/// What tokens cost, in US dollars a million.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Of the prompt; finite, 0 or more.
    pub input_usd_per_mtok: f64,
    /// Of the answer, reasoning included; finite, 0 or more.
    pub output_usd_per_mtok: f64,
}

impl Eq for Price {}

impl Price {
    /// What so many tokens cost, in US dollars.
    pub fn cost(&self, input_tokens: u64, output_tokens: u64) -> f64 {
        const MILLION: f64 = 1e6;
        let Self { input_usd_per_mtok, output_usd_per_mtok } = self;
        (input_tokens as f64 * input_usd_per_mtok + output_tokens as f64 * output_usd_per_mtok) / MILLION
    }
}

/// Bytes of a text for each of its tokens, which is about right for English.
pub const BYTES_PER_TOKEN: usize = 4;

/// A short completion, streamed.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream {
    /// What is asked.
    pub chat: Chat,
    /// Without a byte for so long, once the response has begun, the stream has failed.
    pub stall_timeout: Duration,
    /// Whether an OpenAI-compatible API is asked to count tokens at the end of the stream.
    pub include_usage: bool,
}

/// How an OpenAI-compatible API calls its token limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokensParameter {
    /// The old name, which reasoning models refuse.
    MaxTokens,
    /// The new name, which imitators may not know.
    MaxCompletionTokens,
}

/// A request of the operator's own and what its response must be.
#[derive(PartialEq, Eq)]
pub struct HttpRequest {
    /// GET by default.
    pub method: Method,
    /// Appended to the base URL; may carry a query.
    pub path: String,
    /// Sent as written; `None`: no body.
    pub body: Option<String>,
    /// Beside the provider's; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the provider's key goes along.
    pub send_key: bool,
    /// What must hold.
    pub expect: Expect,
}

impl fmt::Debug for HttpRequest {
    /// Without the body, which may hold credentials.
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

/// What the response of an `http` check must be. What is not written is not asked.
#[derive(Debug, Default)]
pub struct Expect {
    /// One of these; empty: any 2xx.
    pub status: Vec<u16>,
    /// Matches somewhere in the body.
    pub body_regex: Option<regex::bytes::Regex>,
    /// JSON pointers (RFC 6901) into the body, and the values there.
    pub json: Vec<(String, serde_json::Value)>,
}

impl PartialEq for Expect {
    fn eq(&self, other: &Self) -> bool {
        let pattern = |expect: &Self| expect.body_regex.as_ref().map(|regex| regex.as_str().to_owned());
        self.status == other.status && self.json == other.json && pattern(self) == pattern(other)
    }
}

impl Eq for Expect {}
