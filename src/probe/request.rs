//! Builds the request of a probe, once at load: a run only copies it.

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
};

use hyper::{
    HeaderMap, Method, Request, Uri,
    body::Bytes,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
        USER_AGENT,
    },
};
use url::Url;

use crate::{
    api::{self, ChatRequest, Dialect},
    config::{Chat, PROMPT_NONCE, Probe, Provider, Task},
};

/// Error while building a probe's request.
#[derive(Debug, thiserror::Error)]
#[error("probe {probe}: {what}")]
pub struct RequestError {
    probe: String,
    what: &'static str,
}

/// The name under which the prober introduces itself.
pub(super) const AGENT: &str = concat!("langmart-prober/", env!("CARGO_PKG_VERSION"));

/// A request that is ready to be sent as often as needed.
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) url: Url,
    uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The digits of the prompt's nonce in the body. `None` if it has none.
    nonce: Option<Range<usize>>,
}

impl Prepared {
    fn new(
        method: Method,
        url: Url,
        error: impl Fn(&'static str) -> RequestError,
    ) -> Result<Self, RequestError> {
        let uri = url.as_str().split('#').next().unwrap_or_default().parse();
        let uri = uri.map_err(|_| error("its path and base_url make no URL"))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        // Without it a server may choose any coding (RFC 9110, 12.5.3).
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(Self { method, url, uri, headers, body: Bytes::new(), nonce: None })
    }

    /// Sets the body, with its length: HTTP/2 has no other mark of it that a proxy could translate
    /// (RFC 9110, 8.6).
    fn set_body(&mut self, body: Vec<u8>) {
        if !body.is_empty() || [Method::POST, Method::PUT, Method::PATCH].contains(&self.method) {
            self.headers.insert(CONTENT_LENGTH, body.len().into());
        }
        self.body = body.into();
    }

    /// Returns a copy to send, with a nonce of its own.
    pub(super) fn to_request(&self) -> Request<Bytes> {
        let body = match self.nonce.clone() {
            None => self.body.clone(),
            Some(nonce) => {
                let mut body = self.body.to_vec();
                // The state's keys are random, and differ from call to call.
                let random = RandomState::new().hash_one(self.body.len());
                body[nonce].copy_from_slice(format!("{random:016x}").as_bytes());
                body.into()
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(&self.headers);
        request
    }

    /// Adds the credentials for a proxy that takes the request in the target's place.
    pub(super) fn authorize_proxy(&mut self, value: HeaderValue) {
        self.headers.insert(PROXY_AUTHORIZATION, value);
    }
}

/// Returns the request of the probe's runs. Returns `None` if its check sends none.
pub(super) fn request(probe: &Probe) -> Result<Option<Prepared>, RequestError> {
    let error = |what| RequestError { probe: probe.name.clone(), what };
    let provider = &*probe.provider;
    let dialect = api::of(provider.api);
    let call = match RequestKind::of(probe, dialect) {
        RequestKind::None => return Ok(None),
        RequestKind::StatusPage(url) => return Prepared::new(Method::GET, url.clone(), error).map(Some),
        RequestKind::Call(call) => call,
    };
    let url = match call.path.strip_prefix("//") {
        Some(rest) => format!("{}/{rest}", provider.base_url.origin().ascii_serialization()),
        None => format!("{}{}", provider.base_url.as_str().trim_end_matches('/'), call.path),
    };
    let url = Url::parse(&url).map_err(|_| error("its path and base_url make no URL"))?;
    let mut request = Prepared::new(call.method, url, error)?;
    let headers = &mut request.headers;
    for (name, value) in provider.api.profile().fixed_headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if call.json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    insert_all(headers, &provider.headers);
    if let Task::Http(task) = &probe.task {
        insert_all(headers, &task.headers);
    }
    if call.key {
        insert_key(headers, provider).map_err(error)?;
    }
    request.set_body(call.body.unwrap_or_default());
    if probe.chat().is_some_and(|chat| chat.prompt.starts_with(PROMPT_NONCE)) {
        request.nonce = nonce(&request.body);
    }
    Ok(Some(request))
}

/// Finds the digits of the prompt's nonce.
fn nonce(body: &[u8]) -> Option<Range<usize>> {
    let digits = PROMPT_NONCE.trim_start_matches(|c: char| c != '0').len();
    let at = body.windows(PROMPT_NONCE.len()).position(|window| window == PROMPT_NONCE.as_bytes())?;
    let end = at + PROMPT_NONCE.len();
    Some(end - digits..end)
}

/// One call, before headers.
struct Call {
    method: Method,
    path: String,
    body: Option<Vec<u8>>,
    /// Whether the body is ours, and so JSON.
    json: bool,
    /// Whether the key goes along.
    key: bool,
}

/// Content of a probe's request.
enum RequestKind<'a> {
    /// No request.
    None,
    /// One to a status page, without the key and the provider's headers.
    StatusPage(&'a Url),
    /// One to the service.
    Call(Call),
}

impl<'a> RequestKind<'a> {
    fn of(probe: &'a Probe, dialect: &dyn Dialect) -> Self {
        let paths = &probe.provider.paths;
        let or = |own: &Option<String>, default: &str| own.clone().unwrap_or_else(|| default.to_owned());
        let get = |path, key| Call { method: Method::GET, path, body: None, json: false, key };
        let post = |path, body: String| Call {
            method: Method::POST,
            path,
            body: Some(body.into()),
            json: true,
            key: true,
        };
        let api = probe.provider.api.profile().paths;
        let model = probe.model.as_deref().unwrap_or_default();
        let chat = |template, chat: &Chat, stream, include_usage| {
            let request = ChatRequest {
                api: probe.provider.api,
                host: probe.provider.host(),
                model,
                prompt: &chat.prompt,
                max_tokens: chat.max_tokens,
                max_tokens_parameter: chat.max_tokens_parameter,
                stream,
                include_usage,
            };
            let path = or(&paths.chat, &dialect.path_of(template, model));
            post(path, dialect.chat_body(&request).to_string())
        };
        Self::Call(match &probe.task {
            Task::Network => return Self::None,
            Task::Status(source) => return Self::StatusPage(&source.url),
            Task::Health => get(or(&paths.health, api.health.unwrap_or_default()), false),
            Task::Auth => get(or(&paths.auth, api.auth), true),
            Task::Models => get(or(&paths.models, api.models), true),
            Task::Chat(task) => chat(api.chat, task, false, false),
            Task::Stream(task) => chat(api.stream, &task.chat, true, task.include_usage),
            Task::Balance => get(or(&paths.balance, api.balance.unwrap_or_default()), true),
            Task::Http(request) => Call {
                method: request.method.clone(),
                path: request.path.clone(),
                body: request.body.clone().map(Into::into),
                json: false,
                key: request.send_key,
            },
        })
    }
}

pub(super) fn insert_all(headers: &mut HeaderMap, more: &[(HeaderName, HeaderValue)]) {
    for (name, value) in more {
        headers.insert(name, value.clone());
    }
}

/// Returns the header of a provider's key, and what precedes the key in it.
pub(super) fn key_header(provider: &Provider) -> (HeaderName, &'static str) {
    let api = provider.api.profile();
    match &provider.key_header {
        Some(name) => (name.clone(), ""),
        None => (HeaderName::from_static(api.key_header), api.key_scheme),
    }
}

pub(super) fn insert_key(headers: &mut HeaderMap, provider: &Provider) -> Result<(), &'static str> {
    let Some(key) = &provider.key else { return Ok(()) };
    let (name, prefix) = key_header(provider);
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.value.expose()))
        .map_err(|_| "its key has characters that no header can carry")?;
    // Debug prints it as "Sensitive", and HTTP/2 keeps it out of the compression table.
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}
