//! A call in any dialect: endpoint, method, key, body, model and response.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use serde_json::Value;
#[cfg(test)]
use serde_json::json;

use super::{
    SimulatedService, chunks, limits, openai, status_page,
    stream::{self, Events, Finish, Outline},
};
use crate::simulator::{
    exchange::{Reply, Request},
    fault::{Fault, Parameters},
    pace::Pace,
};

/// Names of a service.
pub(super) struct Facts {
    /// Name in scenarios.
    pub(super) name: &'static str,
    /// Path of its base URL.
    pub(super) prefix: &'static str,
    /// Path of its status page.
    pub(super) status_path: &'static str,
    /// Its models, except those of a scenario.
    pub(super) models: &'static [&'static str],
}

/// Behaviour of a service. The defaults are those of `OpenAI`, which most services imitate.
pub(super) trait Service: Sync {
    fn facts(&self) -> &'static Facts;

    /// Returns the status page; see [`status_page::status_page`].
    fn status_page(&self, incident: Option<&str>) -> Value {
        status_page::statuspage("API", incident)
    }

    /// Returns whether a requested model is the known one.
    fn is_model(&self, known: &str, model: &str) -> bool {
        known == model
    }

    /// Returns the key of a request.
    fn key<'a>(&self, request: &'a Request) -> Option<&'a str> {
        bearer(request)
    }

    /// Returns the model that a call names.
    fn model<'a>(&self, call: &'a Call<'_>) -> Option<&'a str> {
        call.body.as_ref()?.get("model")?.as_str()
    }

    /// Returns the maximum number of tokens of an answer. Returns `None` without a limit.
    fn max_tokens(&self, body: &Value) -> Option<u64> {
        body.get("max_completion_tokens").or(body.get("max_tokens"))?.as_u64()
    }

    /// Returns whether the model reasons before it answers.
    fn thinks(&self, call: &Call<'_>) -> bool {
        chunks::thinks(call)
    }

    /// Returns whether a call requests a stream.
    fn streams(&self, call: &Call<'_>) -> bool {
        call.body.as_ref().is_some_and(|body| body["stream"] == true)
    }

    /// Returns the name of the member of the body with the prompt.
    fn prompt(&self) -> &'static str {
        "messages"
    }

    /// Returns method and endpoint of a path. Returns `None` if it is unknown.
    fn endpoint(&self, path: &str) -> Option<(&'static str, Endpoint)> {
        openai::endpoint(path)
    }

    /// Returns whether an endpoint needs no key.
    fn is_public(&self, endpoint: Endpoint) -> bool {
        endpoint == Endpoint::Health
    }

    /// Returns whether responses, including errors, are arrays.
    fn answers_in_array(&self, _call: &Call<'_>) -> bool {
        false
    }

    /// Checks what only this service checks in a call.
    fn check(&self, _call: &Call<'_>) -> Result<(), Failure<'static>> {
        Ok(())
    }

    /// Checks what only this service checks in a request for a completion.
    fn check_chat(&self, _call: &Call<'_>, _model: &str, _body: &Value) -> Result<(), Failure<'static>> {
        Ok(())
    }

    /// Returns the body of a successful response.
    fn success(&self, endpoint: Endpoint, call: &Call<'_>) -> Value {
        openai::success(endpoint, call)
    }

    /// Returns status and body of an error.
    fn failure(&self, what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
        openai::failure(what, call, parameters)
    }

    /// Adds the headers of every response.
    fn dress(&self, _call: &Call<'_>, reply: Reply) -> Reply {
        reply
    }

    /// Adds the headers of its limits to a completion.
    fn with_limits(&self, reply: Reply) -> Reply {
        reply
    }

    /// Returns whether the refusal of a rate limit has no headers about it.
    fn hides_limit(&self, _variant: Option<&str>) -> bool {
        false
    }

    /// Returns the header of a wait. Returns `None` if it sends none.
    fn wait_header(&self, _variant: Option<&str>) -> Option<&'static str> {
        Some("Retry-After")
    }

    /// Adds the headers of the limit that was reached.
    fn with_reached_limit(&self, _wait: Duration, _variant: Option<&str>, reply: Reply) -> Reply {
        reply
    }

    /// Returns the usual wait in seconds of a failure other than a rate limit.
    fn usual_wait(&self, _what: Failure<'_>, _variant: Option<&str>) -> Option<u64> {
        None
    }

    /// Returns the events of a stream.
    fn events(&self, call: &Call<'_>, outline: &Outline<'_>) -> Events {
        chunks::events(call, outline)
    }

    /// Returns the comment between events.
    fn comment(&self) -> &'static str {
        "keep-alive"
    }

    /// Returns the content type of a stream of events.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// Returns the header of a stream besides its content type.
    fn stream_header(&self) -> Option<(&'static str, &'static str)> {
        Some(("Cache-Control", "no-cache"))
    }

    /// Returns a valid chat of the tests, with their key.
    #[cfg(test)]
    fn sample_chat(&self) -> SampleChat {
        SampleChat::of_openai(self.facts().models[0])
    }

    /// Returns the number of blocks after the last token in a stream of three tokens.
    #[cfg(test)]
    fn blocks_after_tokens(&self) -> usize {
        2
    }
}

/// A valid chat of the tests.
#[cfg(test)]
pub(in crate::simulator) struct SampleChat {
    /// Path after the service's prefix.
    pub(in crate::simulator) path: String,
    /// The content type, the header with the key, and others that the service requires.
    pub(in crate::simulator) headers: &'static str,
    pub(in crate::simulator) body: Value,
}

#[cfg(test)]
impl SampleChat {
    /// Returns one in `OpenAI`'s dialect.
    pub(super) fn of_openai(model: &str) -> Self {
        Self {
            path: "/chat/completions".to_owned(),
            headers: "Content-Type: application/json\r\nAuthorization: Bearer sk-secret-canary\r\n",
            body: json!({
                "model": model, "max_tokens": 32,
                "messages": [{"role": "user", "content": "Type OK"}],
            }),
        }
    }
}

/// A request to a service.
pub(in crate::simulator) struct Call<'a> {
    pub(in crate::simulator) provider: SimulatedService,
    /// Path after the provider's prefix.
    pub(in crate::simulator) path: &'a str,
    pub(in crate::simulator) request: &'a Request,
    /// The key, without `Bearer`.
    pub(in crate::simulator) key: Option<&'a str>,
    /// The body. `None` if there is none or it is not JSON.
    pub(in crate::simulator) body: Option<Value>,
    /// Models that the scenario adds.
    pub(in crate::simulator) more_models: &'a [String],
    pub(in crate::simulator) pace: Pace,
    /// Tokens of the prompt that the prompt cache serves.
    pub(in crate::simulator) cached_tokens: usize,
    /// Tokens that are reported, but not generated.
    pub(in crate::simulator) surplus_tokens: usize,
    /// The number in its IDs.
    pub(super) number: u64,
    /// The only requested row of the model list.
    row: Option<&'a str>,
}

/// Endpoint of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Health,
    Validate,
    Balance,
    Key,
    Models,
    Chat,
}

/// Failure of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Failure<'a> {
    UnknownPath,
    WrongMethod,
    MissingKey,
    InvalidKey,
    /// The key that a gateway stores for the provider behind it is invalid.
    UpstreamKey,
    UnknownModel(&'a str),
    /// The request is invalid. `parameter` is named in dialects that name one.
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
    pub(in crate::simulator) fn new(provider: SimulatedService, path: &'a str, request: &'a Request) -> Self {
        let body = Some(&request.body).filter(|_| is_json(request));
        let body = body.and_then(|body| serde_json::from_slice(body).ok());
        let key = provider.service().key(request).filter(|key| !key.is_empty());
        Self {
            provider,
            path,
            request,
            key,
            body,
            more_models: &[],
            pace: Pace::default(),
            cached_tokens: 0,
            surplus_tokens: 0,
            number: request_number(),
            row: row(provider.service(), path),
        }
    }

    /// Returns the model that the path or the body names.
    pub(in crate::simulator) fn model(&self) -> Option<&str> {
        self.service().model(self)
    }

    /// Returns the model that the answer names.
    pub(super) fn answered_model(&self) -> Option<&str> {
        self.pace.answered_model.as_deref().or_else(|| self.model())
    }

    /// Returns whether the path or the body requests a stream.
    pub(in crate::simulator) fn streams(&self) -> bool {
        self.service().streams(self)
    }

    pub(super) fn service(&self) -> &'static dyn Service {
        self.provider.service()
    }

    /// Returns the maximum number of tokens of the answer. Returns `None` without a limit.
    pub(super) fn max_tokens(&self) -> Option<usize> {
        let tokens = self.service().max_tokens(self.body.as_ref()?)?;
        Some(usize::try_from(tokens).unwrap_or(usize::MAX))
    }

    /// Returns the visible content of the answer, token by token. A thought counts as one token.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut texts = self.pace.texts();
        texts.truncate(self.visible_tokens());
        texts
    }

    /// Returns the reported number of tokens of the answer, with those of its thoughts.
    pub(super) fn output_tokens(&self) -> usize {
        self.texts().len() + self.thoughts() + self.surplus_tokens
    }

    /// Returns the end of the answer.
    pub(super) fn finish(&self) -> Finish {
        if self.pace.texts().len() > self.visible_tokens() { Finish::Length } else { Finish::Stop }
    }

    /// Returns the number of tokens before the visible content.
    pub(super) fn thoughts(&self) -> usize {
        usize::from(self.service().thinks(self))
    }

    fn visible_tokens(&self) -> usize {
        self.max_tokens().map_or(usize::MAX, |tokens| tokens.saturating_sub(self.thoughts()))
    }

    /// Returns the models of the service, in the order of its list, or the requested one.
    pub(super) fn models(&self) -> Vec<&str> {
        let own = self.service().facts().models.iter().copied();
        let all = own.chain(self.more_models.iter().map(String::as_str));
        all.filter(|known| self.row.is_none_or(|row| self.service().is_model(known, row))).collect()
    }

    fn knows(&self, model: &str) -> bool {
        self.models().into_iter().any(|known| self.service().is_model(known, model))
    }

    /// Returns the tokens of the prompt, at four bytes each.
    pub(in crate::simulator) fn input_tokens(&self) -> usize {
        self.messages().map_or(0, |messages| 5 + text_length(messages).div_ceil(4))
    }

    /// Returns the prompt with its JSON.
    pub(in crate::simulator) fn prompt(&self) -> Option<String> {
        self.messages().map(Value::to_string)
    }

    fn messages(&self) -> Option<&Value> {
        Some(&self.body.as_ref()?[self.service().prompt()])
    }

    /// Returns the provider behind a gateway: of the fault, else of the first part of the model,
    /// else `OpenAI`.
    pub(super) fn upstream(&self, parameters: &Parameters) -> String {
        let of_model =
            || self.model().and_then(|model| model.split_once('/')).map(|(first, _)| first.to_owned());
        parameters.upstream.clone().or_else(of_model).unwrap_or_else(|| "openai".to_owned())
    }
}

/// Returns the model of a path below that of the model list.
fn row<'a>(service: &dyn Service, path: &'a str) -> Option<&'a str> {
    let (parent, model) = path.split_once("/models/")?;
    let is_below_list = service.endpoint(&format!("{parent}/models")) == Some(("GET", Endpoint::Models));
    (is_below_list && service.endpoint(path).is_none()).then_some(model)
}

fn is_json(request: &Request) -> bool {
    request.header("content-type").is_some_and(|value| value.starts_with("application/json"))
}

/// Returns the key in the Authorization header.
pub(super) fn bearer(request: &Request) -> Option<&str> {
    request.header("authorization").and_then(|value| value.strip_prefix("Bearer "))
}

/// Returns the bytes of all strings in `text` and `content`, so that all dialects are counted
/// alike.
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

/// Returns the response without faults. An invalid request is refused as the service would.
pub(in crate::simulator) fn success(call: &Call<'_>) -> Reply {
    match check(call) {
        Ok(Endpoint::Chat) if call.streams() => streamed(call, None),
        Ok(endpoint) => {
            let mut body = call.service().success(endpoint, call);
            if call.row.is_some() {
                body = ["data", "models"].iter().find_map(|list| body[*list].get(0)).cloned().unwrap_or(body);
            }
            if endpoint != Endpoint::Chat {
                return dressed(call, Reply::json(200, &body));
            }
            if let Some(members) = body.as_object_mut().filter(|_| call.pace.usage == Some(false)) {
                members.retain(|name, _| name != "usage" && name != "usageMetadata");
            }
            let reply = call.service().with_limits(dressed(call, Reply::json(200, &body)));
            Reply { delay: call.pace.generation(call.texts().len()), ..reply }
        }
        Err(refusal) => failure(refusal, call, &Parameters::default()),
    }
}

/// Returns the stream with a fault. An invalid request is refused as without the fault.
pub(in crate::simulator) fn faulty_stream(fault: &Fault, call: &Call<'_>) -> Reply {
    match check(call) {
        Ok(_) => streamed(call, Some(fault)),
        Err(refusal) => failure(refusal, call, &Parameters::default()),
    }
}

fn streamed(call: &Call<'_>, fault: Option<&Fault>) -> Reply {
    call.service().with_limits(dressed(call, stream::stream(call, fault)))
}

/// Returns the endpoint of a valid call.
fn check<'a>(call: &'a Call<'_>) -> Result<Endpoint, Failure<'a>> {
    let service = call.service();
    let of_row = call.row.map(|_| ("GET", Endpoint::Models));
    let (method, endpoint) = service.endpoint(call.path).or(of_row).ok_or(Failure::UnknownPath)?;
    if call.request.method != method && !(method == "GET" && call.request.method == "HEAD") {
        return Err(Failure::WrongMethod);
    }
    if !service.is_public(endpoint) {
        match call.key {
            None => return Err(Failure::MissingKey),
            Some(key) if key.contains("invalid") => return Err(Failure::InvalidKey),
            Some(_) => {}
        }
    }
    service.check(call)?;
    if let Some(model) = call.row.filter(|_| call.models().is_empty()) {
        return Err(Failure::UnknownModel(model));
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
    let prompt = call.service().prompt();
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
    call.service().check_chat(call, model, body)
}

/// Returns the response of the service to a failure.
pub(in crate::simulator) fn failure(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> Reply {
    let service = call.service();
    let (status, body) = service.failure(what, call, parameters);
    let body = if service.answers_in_array(call) { Value::from(vec![body]) } else { body };
    let reply = dressed(call, Reply::json(status, &body));
    match what {
        Failure::WrongMethod => reply.with("Allow", "GET, POST"),
        Failure::RateLimited => limits::of_refusal(service, parameters, reply),
        _ => limits::retry_after(what, service, parameters, reply),
    }
}

fn dressed(call: &Call<'_>, reply: Reply) -> Reply {
    call.service().dress(call, reply)
}

/// Returns consecutive numbers for IDs, so that IDs differ and runs are reproducible.
pub(super) fn request_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Returns the current time in whole seconds since the Unix epoch.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
