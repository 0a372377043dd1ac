//! Builds the request of a probe, once at load: a run only copies it.

use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};

use super::dialect::{self, Dialect};
use crate::config::{Probe, Provider, Task};

/// Why a probe's request cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("probe {probe}: {what}")]
pub struct RequestError {
    probe: String,
    what: &'static str,
}

/// The request that each run of the probe sends; `None`: its check sends none.
pub(super) fn request(probe: &Probe) -> Result<Option<Request>, RequestError> {
    let error = |what| RequestError { probe: probe.name.clone(), what };
    let provider = &*probe.provider;
    let dialect = dialect::of(provider.api);
    let call = match Errand::of(probe, dialect) {
        Errand::None => return Ok(None),
        Errand::Elsewhere(url) => return Ok(Some(Request::new(Method::GET, url.clone()))),
        Errand::Call(call) => call,
    };
    let url = format!("{}{}", provider.base_url.as_str().trim_end_matches('/'), call.path);
    let url = Url::parse(&url).map_err(|_| error("its path and base_url make no URL"))?;
    let mut request = Request::new(call.method, url);
    let headers = request.headers_mut();
    for (name, value) in dialect.fixed_headers() {
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
        insert_key(headers, provider, dialect).map_err(error)?;
    }
    if let Some(body) = call.body {
        *request.body_mut() = Some(body.into());
    }
    Ok(Some(request))
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

/// What a probe sends.
enum Errand<'a> {
    /// No request.
    None,
    /// One to a status page, which gets neither key nor headers.
    Elsewhere(&'a Url),
    /// One to the service.
    Call(Call),
}

impl<'a> Errand<'a> {
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
        let model = probe.model.as_deref().unwrap_or_default();
        Self::Call(match &probe.task {
            Task::Network => return Self::None,
            Task::Status(source) => return Self::Elsewhere(&source.url),
            Task::Health => get(or(&paths.health, "/health"), false),
            Task::Auth => get(or(&paths.auth, dialect.auth_path()), true),
            Task::Models => get(or(&paths.models, dialect.models_path()), true),
            Task::Chat(chat) => {
                let body = dialect.chat_body(&probe.provider, model, chat).to_string();
                post(or(&paths.chat, &dialect.chat_path(model)), body)
            }
            Task::Stream(stream) => {
                let body = dialect.stream_body(&probe.provider, model, stream).to_string();
                post(or(&paths.chat, &dialect.stream_path(model)), body)
            }
            Task::Balance => get(or(&paths.balance, dialect.balance_path()), true),
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

fn insert_all(headers: &mut HeaderMap, more: &[(HeaderName, HeaderValue)]) {
    for (name, value) in more {
        headers.insert(name, value.clone());
    }
}

fn insert_key(
    headers: &mut HeaderMap,
    provider: &Provider,
    dialect: &dyn Dialect,
) -> Result<(), &'static str> {
    let Some(key) = &provider.key else { return Ok(()) };
    let (name, prefix) = match &provider.key_header {
        Some(name) => (name.clone(), ""),
        None => dialect.key_header(),
    };
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.value.expose()))
        .map_err(|_| "its key has characters that no header can carry")?;
    // Debug prints it as "Sensitive", and HTTP/2 keeps it out of the compression table.
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}
