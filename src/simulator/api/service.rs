//! The way of every call, whatever its dialect: endpoint, method, key, body, model, answer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde_json::Value;

use super::{Provider, anthropic, google, langmart, limits, openai, openrouter, stream};
use crate::simulator::{
    exchange::{Reply, Request},
    fault::{Fault, Parameters},
    pace::Pace,
};

/// A request as the services see it.
pub(in crate::simulator) struct Call<'a> {
    pub(in crate::simulator) provider: Provider,
    /// Behind the provider's prefix.
    pub(in crate::simulator) path: &'a str,
    pub(in crate::simulator) request: &'a Request,
    /// The key, without `Bearer`.
    pub(in crate::simulator) key: Option<&'a str>,
    /// The body; `None`: none, or no JSON.
    pub(in crate::simulator) body: Option<Value>,
    /// What the scenario adds to the provider's models.
    pub(in crate::simulator) more_models: &'a [String],
    pub(in crate::simulator) pace: Pace,
    /// Tokens of the prompt that the prompt cache has.
    pub(in crate::simulator) cached_tokens: usize,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Health,
    Validate,
    Balance,
    Key,
    Models,
    Chat,
}

/// Why a service refuses, or cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Failure<'a> {
    UnknownPath,
    WrongMethod,
    MissingKey,
    InvalidKey,
    /// The key that a gateway holds for the provider behind it.
    UpstreamKey,
    UnknownModel(&'a str),
    /// `parameter` takes the blame where the dialect names one.
    Invalid {
        message: &'a str,
        parameter: Option<&'a str>,
        code: Option<&'a str>,
    },
    RateLimited,
    Billing,
    Unavailable,
    GatewayTimeout,
    Overloaded,
    ServerError,
}

impl<'a> Failure<'a> {
    pub(super) const fn invalid(message: &'a str) -> Self {
        Self::Invalid { message, parameter: None, code: None }
    }
}

impl<'a> Call<'a> {
    pub(in crate::simulator) fn new(provider: Provider, path: &'a str, request: &'a Request) -> Self {
        let body = Some(&request.body).filter(|_| is_json(request));
        let body = body.and_then(|body| serde_json::from_slice(body).ok());
        let key = key(provider, request);
        Self { provider, path, request, key, body, more_models: &[], pace: Pace::default(), cached_tokens: 0 }
    }

    /// The model that the path (Google) or the body names.
    pub(in crate::simulator) fn model(&self) -> Option<&str> {
        match self.provider {
            Provider::Google => google::model(self.path),
            _ => self.body.as_ref()?.get("model")?.as_str(),
        }
    }

    /// The model that the answer names.
    pub(super) fn answered_model(&self) -> Option<&str> {
        self.pace.answered_model.as_deref().or_else(|| self.model())
    }

    /// Whether a stream is asked for, by the path (Google) or the body.
    pub(in crate::simulator) fn streams(&self) -> bool {
        match self.provider {
            Provider::Google => google::streams(self.path),
            _ => self.body.as_ref().is_some_and(|body| body["stream"] == true),
        }
    }

    /// The tokens that an answer in one piece is said to have.
    pub(super) fn output_tokens(&self, habit: usize) -> usize {
        if self.pace.has_text() { self.pace.texts().len() } else { self.pace.tokens().unwrap_or(habit) }
    }

    /// Every model that the service has, in the order of its list.
    pub(super) fn models(&self) -> Vec<&str> {
        let own = self.provider.models().iter().copied();
        own.chain(self.more_models.iter().map(String::as_str)).collect()
    }

    /// Gateways take a model also with more in front (an owner's handle), LangMart also without its provider.
    fn knows(&self, model: &str) -> bool {
        self.models().into_iter().any(|known| match self.provider {
            Provider::Langmart => {
                known == model
                    || known.ends_with(&format!("/{model}"))
                    || model.ends_with(&format!("/{known}"))
            }
            _ => known == model,
        })
    }

    /// Tokens of the prompt, as a rule of thumb: four bytes make one.
    pub(in crate::simulator) fn input_tokens(&self) -> usize {
        self.messages().map_or(0, |messages| 5 + text_length(messages).div_ceil(4))
    }

    /// The prompt, with all that is around it.
    pub(in crate::simulator) fn prompt(&self) -> Option<String> {
        self.messages().map(Value::to_string)
    }

    fn messages(&self) -> Option<&Value> {
        let body = self.body.as_ref()?;
        Some(if self.provider == Provider::Google { &body["contents"] } else { &body["messages"] })
    }

    /// The provider behind a gateway: told by the fault, else by the model's first part, else `OpenAI`.
    pub(super) fn upstream(&self, parameters: &Parameters) -> String {
        let of_model =
            || self.model().and_then(|model| model.split_once('/')).map(|(first, _)| first.to_owned());
        parameters.upstream.clone().or_else(of_model).unwrap_or_else(|| "openai".to_owned())
    }
}

fn is_json(request: &Request) -> bool {
    request.header("content-type").is_some_and(|value| value.starts_with("application/json"))
}

fn key(provider: Provider, request: &Request) -> Option<&str> {
    let bearer = || request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = match provider {
        Provider::Anthropic => request.header("x-api-key"),
        Provider::Google => request.header("x-goog-api-key"),
        Provider::Openai => bearer().or_else(|| request.header("api-key")),
        Provider::Langmart | Provider::Groq | Provider::Openrouter => bearer(),
    };
    key.filter(|key| !key.is_empty())
}

/// The bytes of every string under `text` and `content`, so that the shapes of all dialects count alike.
fn text_length(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(text_length).sum(),
        Value::Object(members) => ["text", "content", "parts"]
            .into_iter()
            .filter_map(|name| members.get(name))
            .map(|value| value.as_str().map_or_else(|| text_length(value), str::len))
            .sum(),
        _ => 0,
    }
}

/// What the service answers in fair weather; a mistake of the caller's is refused as the service would refuse it.
pub(in crate::simulator) fn success(call: &Call<'_>) -> Reply {
    match check(call) {
        Ok(Endpoint::Chat) if call.streams() => streamed(call, None),
        Ok(endpoint) => {
            let mut body = match call.provider {
                Provider::Langmart => langmart::success(endpoint, call),
                Provider::Openai | Provider::Groq => openai::success(endpoint, call),
                Provider::Anthropic => anthropic::success(endpoint, call),
                Provider::Google => google::success(endpoint, call),
                Provider::Openrouter => openrouter::success(endpoint, call),
            };
            if endpoint != Endpoint::Chat {
                return dressed(call, Reply::json(200, &body), None);
            }
            if let Some(members) = body.as_object_mut().filter(|_| call.pace.usage == Some(false)) {
                members.retain(|name, _| name != "usage" && name != "usageMetadata");
            }
            let reply = limits::of_success(call.provider, dressed(call, Reply::json(200, &body), None));
            Reply { delay: call.pace.generation(), ..reply }
        }
        Err(refusal) => failure(refusal, call, &Parameters::default()),
    }
}

/// The stream under a fault of streams; a mistake of the caller's is refused as in fair weather.
pub(in crate::simulator) fn faulty_stream(fault: &Fault, call: &Call<'_>) -> Reply {
    match check(call) {
        Ok(_) => streamed(call, Some(fault)),
        Err(refusal) => failure(refusal, call, &Parameters::default()),
    }
}

fn streamed(call: &Call<'_>, fault: Option<&Fault>) -> Reply {
    limits::of_success(call.provider, dressed(call, stream::stream(call, fault), None))
}

/// Tells the endpoint, or what is wrong with the call.
fn check<'a>(call: &'a Call<'_>) -> Result<Endpoint, Failure<'a>> {
    let (method, endpoint) = match call.provider {
        Provider::Langmart => langmart::endpoint(call.path),
        Provider::Openai | Provider::Groq => openai::endpoint(call.path),
        Provider::Anthropic => anthropic::endpoint(call.path),
        Provider::Google => google::endpoint(call.path),
        Provider::Openrouter => openrouter::endpoint(call.path),
    }
    .ok_or(Failure::UnknownPath)?;
    if call.request.method != method && !(method == "GET" && call.request.method == "HEAD") {
        return Err(Failure::WrongMethod);
    }
    let is_public = endpoint == Endpoint::Health
        || (call.provider == Provider::Openrouter && endpoint == Endpoint::Models);
    if !is_public {
        match call.key {
            None => return Err(Failure::MissingKey),
            Some(key) if key.contains("invalid") => return Err(Failure::InvalidKey),
            Some(_) => {}
        }
    }
    if call.provider == Provider::Anthropic {
        anthropic::check_version(call)?;
    }
    if endpoint == Endpoint::Chat {
        check_chat(call)?;
    }
    Ok(endpoint)
}

fn check_chat<'a>(call: &'a Call<'_>) -> Result<(), Failure<'a>> {
    let body = call.body.as_ref().filter(|body| body.is_object());
    let body = body.ok_or(Failure::invalid("We could not parse the JSON body of your request."))?;
    let model = call.model().ok_or(Failure::invalid("you must provide a model parameter"))?;
    let prompt = if call.provider == Provider::Google { "contents" } else { "messages" };
    if body[prompt].as_array().is_none_or(Vec::is_empty) {
        return Err(Failure::Invalid {
            message: "The prompt is missing or empty.",
            parameter: Some(prompt),
            code: None,
        });
    }
    if !call.knows(model) {
        return Err(Failure::UnknownModel(model));
    }
    match call.provider {
        Provider::Anthropic => anthropic::check_chat(body),
        Provider::Openai | Provider::Langmart => openai::check_token_limit(model, body),
        Provider::Groq | Provider::Google | Provider::Openrouter => Ok(()),
    }
}

/// What the service answers when something is wrong, in its own words.
pub(in crate::simulator) fn failure(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> Reply {
    let (status, body) = match call.provider {
        Provider::Langmart => langmart::failure(what, call, parameters),
        Provider::Openai | Provider::Groq => openai::failure(what, call, parameters),
        Provider::Anthropic => anthropic::failure(what, parameters),
        Provider::Google => google::failure(what, call, parameters),
        Provider::Openrouter => openrouter::failure(what, call, parameters),
    };
    let body = if google::is_array(call) { Value::from(vec![body]) } else { body };
    let request_id = body.get("request_id").and_then(Value::as_str);
    let reply = dressed(call, Reply::json(status, &body), request_id);
    match what {
        Failure::WrongMethod => reply.with("Allow", "GET, POST"),
        Failure::RateLimited => limits::of_refusal(call.provider, parameters, reply),
        _ => limits::retry_after(what, call.provider, parameters, reply),
    }
}

/// A reply with the headers that the service puts on everything. `request_id`: the one that the body names.
fn dressed(call: &Call<'_>, reply: Reply, request_id: Option<&str>) -> Reply {
    let id = request_number();
    match call.provider {
        Provider::Openai => reply
            .with("openai-organization", "org-simulated")
            .with("openai-processing-ms", "1")
            .with("openai-version", "2020-10-01")
            .with("x-request-id", format!("req_{id:032x}")),
        Provider::Anthropic => {
            reply.with("request-id", request_id.map_or_else(anthropic::request_id, str::to_owned))
        }
        Provider::Groq => reply.with("x-request-id", format!("req_01simulated{id:014x}")),
        Provider::Google => {
            reply.with("Server", "scaffolding on HTTPServer2").with("Server-Timing", "gfet4t7; dur=1")
        }
        Provider::Openrouter if call.path == "/chat/completions" => {
            reply.with("X-Generation-Id", format!("gen-{}-{id:020x}", unix_seconds()))
        }
        Provider::Langmart | Provider::Openrouter => reply,
    }
}

/// Another number for each id, from 1, so that ids differ and runs repeat.
pub(super) fn request_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Now, in whole seconds since the Unix epoch.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
