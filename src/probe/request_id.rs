//! The service's own id of a request, which its support asks for.

use super::exchange::Response;
use crate::{
    api::{Dialect, body::ErrorBody, gate},
    config::{Probe, Task},
};

/// Returns the service's id of the request, by its headers or its error, gated. `None` if there is
/// none, or if it echoes a secret.
pub(super) fn request_id(
    probe: &Probe,
    dialect: &dyn Dialect,
    response: &Response,
    error: &ErrorBody<'_>,
) -> Option<String> {
    let by_header = |name: &&str| gate::request_id(response.headers.get(*name)?.to_str().ok()?);
    dialect
        .request_id_headers()
        .iter()
        .find_map(by_header)
        .or_else(|| error.root_text("request_id").and_then(gate::request_id))
        .or_else(|| error.text("request_id").and_then(gate::request_id))
        // Google's, which sends no header with one.
        .or_else(|| error.root_text("responseId").and_then(gate::request_id))
        .filter(|id| !echoes_a_secret(probe, id))
}

/// Returns whether a service sends back a secret: a key has the form of an ID.
fn echoes_a_secret(probe: &Probe, id: &str) -> bool {
    /// Minimum size of a secret. Shorter values, such as a version or a flag, are not secret.
    const MIN_SECRET_BYTES: usize = 6;
    let provider = &probe.provider;
    let own = match &probe.task {
        Task::Http(request) => &request.headers[..],
        _ => &[],
    };
    let key = provider.key.iter().map(|key| key.value.expose());
    let headers = provider.headers.iter().chain(own).filter_map(|(_, value)| value.to_str().ok());
    let password = provider.proxy_credentials().map(|(_, password)| password);
    // Of `Token abc…` the last word is the secret.
    let mut words = key.chain(headers).chain(password).flat_map(str::split_whitespace);
    words.any(|secret| {
        secret.len() >= MIN_SECRET_BYTES
            && (id.contains(secret) || id.len() >= MIN_SECRET_BYTES && secret.contains(id))
    })
}
