//! APIs: one file for each, with all facts about it.
//!
//! Each file has a [`Profile`], which configuration, doctor, remedies, curl commands and the
//! reference page read, and a `Dialect`: requests, responses, errors and rate-limit headers. To
//! add an API, add its file, and its line in `entry`. This module does no I/O.
//!
//! Shared by the dialects:
//! - `answer_text`: the visible text of an answer, bounded.
//! - `body`: the error in a body; `words`: the meaning of its codes and messages.
//! - `gate`: the text from the network that may be passed on.
//! - `hints`: Retry-After and other times; `limits`: rate limits.

mod answer_text;
mod anthropic;
pub(crate) mod body;
pub(crate) mod gate;
mod google;
mod groq;
pub(crate) mod hints;
mod langmart;
pub(crate) mod limits;
mod openai;
mod openrouter;
mod profile;
pub(crate) mod words;

use std::{borrow::Cow, time::Duration};

use reqwest::header::HeaderMap;
use serde_json::Value;

pub(crate) use self::answer_text::AnswerText;
pub use self::profile::{ApiPaths, MaxTokensParameter, Profile};
use self::{body::ErrorBody, hints::Clocks};
use crate::outcome::{Api, Emptiness, RateLimit, Reason};

/// Returns the profile and the dialect of an API.
fn entry(api: Api) -> (&'static Profile, &'static dyn Dialect) {
    match api {
        Api::Langmart => (&langmart::PROFILE, &langmart::Langmart),
        Api::Openai => (&openai::PROFILE, &openai::Openai),
        Api::Anthropic => (&anthropic::PROFILE, &anthropic::Anthropic),
        Api::Groq => (&groq::PROFILE, &groq::Groq),
        Api::Google => (&google::PROFILE, &google::Google),
        Api::Openrouter => (&openrouter::PROFILE, &openrouter::Openrouter),
    }
}

impl Api {
    /// Returns the facts about the API.
    pub fn profile(self) -> &'static Profile {
        entry(self).0
    }
}

/// Returns whether a header, in lower case, carries the key of an API or of Azure.
pub(crate) fn is_key_header(name: &str) -> bool {
    name == "api-key" || Api::ALL.iter().any(|api| api.profile().key_header == name)
}

/// Returns the dialect of an API.
pub(crate) fn of(api: Api) -> &'static dyn Dialect {
    entry(api).1
}

/// A completion to request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChatRequest<'a> {
    pub(crate) api: Api,
    pub(crate) host: &'a str,
    pub(crate) model: &'a str,
    pub(crate) prompt: &'a str,
    pub(crate) max_tokens: u32,
    /// `None` if it follows from host and model.
    pub(crate) max_tokens_parameter: Option<MaxTokensParameter>,
    pub(crate) stream: bool,
    /// Whether a stream must report its tokens.
    pub(crate) include_usage: bool,
}

/// The protocol of an API. The defaults are `OpenAI`'s, which most others imitate.
pub(crate) trait Dialect: Sync {
    /// Returns the path of a completion, from the path of the profile.
    fn path_of(&self, template: &'static str, _model: &str) -> String {
        template.to_owned()
    }

    /// Returns the body of a request for a completion.
    fn chat_body(&self, request: &ChatRequest<'_>) -> Value {
        openai::chat_body(request)
    }

    /// Returns the account in the response to a balance request. Returns `None` if it is not a
    /// response of this API.
    fn account(&self, _answer: &Value) -> Option<Account> {
        None
    }

    /// Reads one event of a stream.
    fn piece<'a>(&self, event: &'a Value) -> Piece<'a> {
        openai::piece(event)
    }

    /// Returns whether `[DONE]` ends a stream.
    fn ends_with_done(&self) -> bool {
        true
    }

    /// Returns whether the response to an auth request accepts the key.
    fn accepted(&self, answer: &Value) -> Acceptance {
        openai::accepted(answer)
    }

    /// Returns whether an ID in the model list is the configured model.
    fn is_model(&self, listed: &str, model: &str) -> bool {
        listed == model
    }

    /// Reads a completion.
    fn completion(&self, answer: &Value) -> Completion {
        openai::completion(answer)
    }

    /// Returns the model that a completion or an event of a stream names, not yet validated.
    fn answered_model<'a>(&self, answer: &'a Value) -> Option<&'a str> {
        answer.get("model")?.as_str()
    }

    /// Returns the status to classify: that of the response, unless the body names a more specific
    /// one.
    fn status(&self, status: u16, _error: &ErrorBody<'_>) -> u16 {
        status
    }

    /// Returns the reason that the body of this API states beyond the status. Returns `None` if it
    /// states none.
    fn reason(&self, _status: u16, _error: &ErrorBody<'_>) -> Option<Reason> {
        None
    }

    /// Returns the provider's error that a gateway includes in its own. Returns null if there is
    /// none.
    fn wrapped(&self, _error: &ErrorBody<'_>) -> Value {
        Value::Null
    }

    /// Returns the code of the error, not yet validated.
    fn error_code<'a>(&self, error: &ErrorBody<'a>) -> Option<&'a str> {
        openai::error_code(error)
    }

    /// Returns whether the limit of requests is a daily one.
    fn limits_requests_by_day(&self) -> bool {
        false
    }

    /// Returns whether errors use Google's terms, some of which mean a limit per minute where
    /// `OpenAI`'s mean exhausted credit.
    fn speaks_google(&self) -> bool {
        false
    }

    /// Returns the provider behind a gateway that the error names.
    fn upstream(&self, _error: &ErrorBody<'_>) -> Upstream {
        Upstream::default()
    }

    /// Returns whether an exhausted limit without Retry-After asks for a wait until its reset. This
    /// does not hold for `OpenAI`, whose reset is the time until the limit is full again.
    fn reset_is_a_wait(&self) -> bool {
        false
    }

    /// Returns the rate limits that the response reports.
    fn rate_limits(&self, headers: &HeaderMap, _error: &ErrorBody<'_>, clocks: &Clocks) -> Vec<RateLimit> {
        openai::rate_limits(headers, clocks)
    }

    /// Returns the headers that contain the request ID, the preferred one first.
    fn request_id_headers(&self) -> &'static [&'static str] {
        openai::REQUEST_ID_HEADERS
    }
}

/// Verdict on the key in the response to an auth request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// The key is valid.
    Accepted,
    /// The key is invalid.
    Rejected,
    /// It is not a response of this API.
    Unclear,
}

/// Account in the response to a balance request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Account {
    /// Spending has no limit that is reported.
    Unlimited,
    /// Remaining balance.
    Left {
        amount: f64,
        /// Balance below which the service refuses requests. `None` if it is not reported.
        minimum: Option<f64>,
        /// Whether both are US dollars.
        in_usd: bool,
    },
}

/// A parsed completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) content: Content,
    pub(crate) usage: Usage,
    /// Bytes of the answer including visible reasoning, from which its tokens are estimated.
    pub(crate) bytes: usize,
    /// The visible text.
    pub(crate) text: AnswerText,
}

/// Visible content of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// There is some.
    Visible,
    /// There is none, for this cause.
    Empty(Emptiness),
    /// The response is not a completion.
    Missing,
    /// The finish reason reports a failure of the service, with or without content.
    Failed,
}

impl Completion {
    /// Returns the result for a response that is not a completion.
    fn missing() -> Self {
        Self { content: Content::Missing, usage: Usage::default(), bytes: 0, text: AnswerText::default() }
    }
}

/// A parsed event of a stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Piece<'a> {
    /// Visible content; empty if there is none.
    pub(crate) text: Cow<'a, str>,
    /// Bytes of reasoning, which does not count as content.
    pub(crate) reasoning: usize,
    /// Set if something is in place of content: a refusal, a call of a tool.
    pub(crate) instead: Option<Emptiness>,
    /// Set if the content is complete: the cause, in case there was none. Counts or an error may
    /// follow.
    pub(crate) finish: Option<Emptiness>,
    /// Whether this is the last event.
    pub(crate) done: bool,
    /// Whether the answer failed, even if the event contains no error.
    pub(crate) failed: bool,
    pub(crate) usage: Usage,
}

/// Token counts of the whole answer so far. A count is `None` if it is not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Tokens of the prompt, including cached ones.
    pub(crate) input: Option<u64>,
    /// Tokens of the prompt that a prompt cache served.
    pub(crate) cached: Option<u64>,
    /// Tokens of the answer, including reasoning.
    pub(crate) output: Option<u64>,
    /// Tokens of the reasoning.
    pub(crate) reasoning: Option<u64>,
    /// Processing time reported by the service.
    pub(crate) processing: Option<Duration>,
}

/// Provider behind a gateway, named in an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Its name in the allowlist. `None` if none is named.
    pub(crate) name: Option<&'static str>,
    /// Whether the error is attributed to the provider.
    pub(crate) blamed: bool,
}

/// Returns the count in a header.
fn count(headers: &HeaderMap, name: &str) -> Option<u64> {
    hints::count(hints::text(headers, name)?)
}
