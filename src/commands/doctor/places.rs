//! The curl commands that reproduce a failure, and the account whose pages apply to a provider.

use crate::{
    api::Profile,
    config::{Key, KeySource, Provider},
    outcome::{Api, Check},
};

/// Returns the API whose pages apply to this provider. Returns `None` if another service probably
/// imitates the API.
pub(super) fn account(provider: &Provider) -> Option<&'static Profile> {
    let profile = provider.api.profile();
    (profile.is_at(provider.host()) || !profile.is_imitated).then_some(profile)
}

/// Returns the curl command that checks a provider's own key, which is stored in the gateway.
/// Returns `None` if the provider is unknown.
pub(super) fn direct_curl(upstream: &str) -> Option<String> {
    let api = Api::from_name(upstream)?.profile();
    let header = format!("{}: {}THE_KEY", api.key_header, api.key_scheme);
    Some(curl(&format!("{}{}", api.base_url, api.paths.auth), &header, api))
}

/// Returns the curl command for a check, with the configured source of the key. Returns `None` if
/// the path was configured, because it may contain a secret.
pub(super) fn own_curl(provider: &Provider, check: Check) -> Option<String> {
    let api = provider.api.profile();
    let base = provider.base_url.as_str().trim_end_matches('/');
    match check {
        Check::Auth if provider.paths.auth.is_none() => {
            let header = match &provider.key_header {
                Some(name) => format!("{name}: "),
                None => format!("{}: {}", api.key_header, api.key_scheme),
            };
            let header = format!("{header}{}", provider.key.as_ref().map_or("THE_KEY".to_owned(), shell));
            Some(curl(&format!("{base}{}", api.paths.auth), &header, api) + &proxied(provider))
        }
        Check::Health if provider.paths.health.is_none() => {
            Some(format!("curl -v \"{base}{}\"", api.paths.health?) + &proxied(provider))
        }
        _ => None,
    }
}

fn curl(url: &str, header: &str, api: &Profile) -> String {
    let fixed = api.fixed_headers.iter().map(|(name, value)| format!(" -H \"{name}: {value}\""));
    format!("curl -i \"{url}\" -H \"{header}\"{}", fixed.collect::<String>())
}

/// Returns curl's option for the provider's proxy.
fn proxied(provider: &Provider) -> String {
    provider.proxy.as_ref().map_or_else(String::new, |proxy| format!(" -x \"{proxy}\""))
}

/// Returns the shell expression that reads the key.
fn shell(key: &Key) -> String {
    match &key.source {
        KeySource::Env(name) => format!("${name}"),
        KeySource::File(path) => format!("$(cat '{}')", path.display()),
        KeySource::Credential(_) => "THE_KEY".to_owned(),
    }
}
