//! The account whose pages apply to a provider, and the probe of the provider behind a gateway.

use std::sync::Arc;

use url::Url;

use super::plan::ProbeFactory;
use crate::{
    api::Profile,
    config::{Key, KeySource, Paths, Probe, Provider, Secret, Task},
    outcome::Api,
};

/// Returns the API whose pages apply to this provider. Returns `None` if another service probably
/// imitates the API.
pub(super) fn account(provider: &Provider) -> Option<&'static Profile> {
    let profile = provider.api.profile();
    (profile.is_at(provider.host()) || !profile.is_imitated).then_some(profile)
}

/// Returns a probe of an upstream provider's own key, which the gateway stores, for its curl
/// command. Returns `None` if the upstream is unknown.
pub(super) fn upstream_probe(gateway: &Probe, upstream: &str) -> Option<Arc<Probe>> {
    let api = Api::from_name(upstream)?;
    // Only the name of the variable is in the command.
    let key = Key { value: Secret::new("key".to_owned()), source: KeySource::Env("THE_KEY".to_owned()) };
    let provider = Arc::new(Provider {
        name: upstream.to_owned(),
        api,
        base_url: Url::parse(api.profile().base_url).ok()?,
        key: Some(key),
        key_header: None,
        headers: Vec::new(),
        paths: Paths::default(),
        ..Provider::clone(&gateway.provider)
    });
    Some(ProbeFactory { provider: &provider, timeout: gateway.timeout }.probe("auth", Task::Auth, None))
}
