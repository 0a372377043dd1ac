//! One file an API family: its requests, its answers, its errors, its rate-limit headers. Pure.

mod anthropic;
mod google;
mod langmart;
mod openai;
mod openrouter;

use std::{borrow::Cow, time::Duration};

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::Value;

use super::{answer::AnswerText, body::ErrorBody, hints::Clocks};
use crate::{
    config::{Chat, Provider, Stream},
    outcome::{Api, RateLimit, Reason},
};

/// How an API family talks. The defaults are `OpenAI`'s ways, which most others imitate.
pub(super) trait Dialect: Sync {
    /// The header that carries the key, and what stands before the key in it.
    fn key_header(&self) -> (HeaderName, &'static str) {
        (reqwest::header::AUTHORIZATION, "Bearer ")
    }

    /// Sent with each request beside the key.
    fn fixed_headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The path of the call that tells whether the key is accepted, appended to the base URL.
    fn auth_path(&self) -> &'static str {
        "/models"
    }

    /// The path of the model list.
    fn models_path(&self) -> &'static str {
        "/models"
    }

    /// The path of a completion.
    fn chat_path(&self, _model: &str) -> String {
        "/chat/completions".to_owned()
    }

    /// The body of a completion that is not streamed.
    fn chat_body(&self, provider: &Provider, model: &str, chat: &Chat) -> Value {
        openai::chat_body(provider, model, chat)
    }

    /// The path of the call that tells what is left on the account; empty: there is none, and no probe asks for it.
    fn balance_path(&self) -> &'static str {
        ""
    }

    /// What the balance call's answer says; `None`: it is not this API's answer.
    fn account(&self, _answer: &Value) -> Option<Account> {
        None
    }

    /// The path of a completion that is streamed.
    fn stream_path(&self, model: &str) -> String {
        self.chat_path(model)
    }

    /// The body of a completion that is streamed.
    fn stream_body(&self, provider: &Provider, model: &str, stream: &Stream) -> Value {
        openai::stream_body(provider, model, stream)
    }

    /// What one event of a stream holds.
    fn piece<'a>(&self, event: &'a Value) -> Piece<'a> {
        openai::piece(event)
    }

    /// Whether `[DONE]` ends a stream.
    fn ends_with_done(&self) -> bool {
        true
    }

    /// What the auth call's answer says.
    fn accepted(&self, answer: &Value) -> Acceptance {
        openai::accepted(answer)
    }

    /// Whether a listed id is the configured model.
    fn is_model(&self, listed: &str, model: &str) -> bool {
        listed == model
    }

    /// What a completion holds.
    fn completion(&self, answer: &Value) -> Completion {
        openai::completion(answer)
    }

    /// Returns the model that a completion, or an event of a stream, names; before the gate.
    fn answered_model<'a>(&self, answer: &'a Value) -> Option<&'a str> {
        answer.get("model")?.as_str()
    }

    /// The status that the verdict goes by: the response's own, unless its body names one that says more.
    fn status(&self, status: u16, _error: &ErrorBody<'_>) -> u16 {
        status
    }

    /// What this API's body says beyond its status; `None`: nothing.
    fn reason(&self, _status: u16, _error: &ErrorBody<'_>) -> Option<Reason> {
        None
    }

    /// The body of the provider's own error that a gateway hands on inside its own; null: none.
    fn wrapped(&self, _error: &ErrorBody<'_>) -> Value {
        Value::Null
    }

    /// The error's own code, before the gate.
    fn error_code<'a>(&self, error: &ErrorBody<'a>) -> Option<&'a str> {
        openai::error_code(error)
    }

    /// Whether errors are in Google's words, which are those of a minute's limit where OpenAI's are about money.
    fn speaks_google(&self) -> bool {
        false
    }

    /// The provider behind a gateway that the error names.
    fn upstream(&self, _error: &ErrorBody<'_>) -> Upstream {
        Upstream::default()
    }

    /// Whether a reset is a wait, where nothing is left and no Retry-After is given: not so for `OpenAI`, whose reset is
    /// the time until the limit is full again.
    fn reset_is_a_wait(&self) -> bool {
        false
    }

    /// The limits that the response tells.
    fn rate_limits(&self, headers: &HeaderMap, _error: &ErrorBody<'_>, clocks: &Clocks) -> Vec<RateLimit> {
        openai::rate_limits(headers, clocks)
    }

    /// Headers that carry the request's id, the best first.
    fn request_id_headers(&self) -> &'static [&'static str] {
        openai::REQUEST_ID_HEADERS
    }
}

/// The dialect of an API.
pub(super) fn of(api: Api) -> &'static dyn Dialect {
    match api {
        Api::Langmart => &langmart::Langmart,
        Api::Openai | Api::Groq => &openai::Openai,
        Api::Anthropic => &anthropic::Anthropic,
        Api::Google => &google::Google,
        Api::Openrouter => &openrouter::Openrouter,
    }
}

/// What the answer to the auth call says of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// It is good.
    Accepted,
    /// It is not.
    Rejected,
    /// Not this API's answer.
    Unclear,
}

/// What the answer to the balance call says of the account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Account {
    /// Spending has no limit that could be told.
    Unlimited,
    /// So much is left.
    Left {
        amount: f64,
        /// Below this the service refuses; `None` where it does not tell.
        minimum: Option<f64>,
        /// Whether both are US dollars.
        in_usd: bool,
    },
}

/// What a completion holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) content: Content,
    pub(super) usage: Usage,
    /// Bytes of the answer, reasoning included as far as it is shown: its tokens are estimated from them.
    pub(super) bytes: usize,
    /// The visible text.
    pub(super) text: AnswerText,
}

/// What a person would see of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Something.
    Visible,
    /// Nothing; why.
    Empty(Emptiness),
    /// The answer is no completion.
    Missing,
    /// The finish reason says that the service failed, whatever content there is.
    Failed,
}

/// Why an answer has no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emptiness {
    /// `max_tokens`, by the name that the API has for it, was used up.
    Budget(&'static str),
    /// The prompt and the answer are more than the model can hold.
    ContextWindow,
    /// The model refused.
    Refusal,
    /// A filter took it away.
    Filter,
    /// The prompt was blocked.
    BlockedPrompt,
    /// The model called a tool, although the request offers none.
    ToolCall,
    /// The answer ended as if it were whole; nothing says why it is empty.
    Unexplained,
}

impl Emptiness {
    /// In our own words.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Budget("maxOutputTokens") => "maxOutputTokens was used up before any visible content",
            Self::Budget(_) => "max_tokens was used up before any visible content",
            Self::ContextWindow => "the model's context window was used up before any visible content",
            Self::Refusal => "the model refused",
            Self::Filter => "the answer was filtered",
            Self::BlockedPrompt => "the prompt was blocked",
            Self::ToolCall => "a tool call in place of an answer",
            Self::Unexplained => "the answer is empty, and nothing in it says why",
        }
    }
}

impl Completion {
    /// Not a completion.
    fn missing() -> Self {
        Self { content: Content::Missing, usage: Usage::default(), bytes: 0, text: AnswerText::default() }
    }
}

/// What one event of a stream holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Piece<'a> {
    /// Visible content; empty: none.
    pub(super) text: Cow<'a, str>,
    /// Bytes of reasoning, which is not content.
    pub(super) reasoning: usize,
    /// Whether the model refuses.
    pub(super) refused: bool,
    /// The content is complete; why there was none, if there was none. Counts or an error may follow.
    pub(super) finish: Option<Emptiness>,
    /// Nothing follows.
    pub(super) done: bool,
    /// The answer failed, although the event may have no error in it.
    pub(super) failed: bool,
    pub(super) usage: Usage,
}

/// Tokens as an event counts them: of the whole answer so far. `None`: it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the prompt, cached ones included.
    pub(super) input: Option<u64>,
    /// Of the prompt, those that a prompt cache served.
    pub(super) cached: Option<u64>,
    /// Of the answer, reasoning included.
    pub(super) output: Option<u64>,
    /// Of the reasoning.
    pub(super) reasoning: Option<u64>,
    /// How long the service says that it worked on the answer.
    pub(super) processing: Option<Duration>,
}

/// The provider behind a gateway, as an error names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Upstream {
    /// Our name for it; `None`: not named.
    pub(super) name: Option<&'static str>,
    /// Whether the error says that it is the provider's.
    pub(super) blamed: bool,
}

/// A header that holds a count.
fn count(headers: &HeaderMap, name: &str) -> Option<u64> {
    super::hints::count(super::hints::text(headers, name)?)
}
