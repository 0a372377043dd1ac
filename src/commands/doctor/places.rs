//! The curl commands that reproduce a failure, and the pages of each provider's console.

use url::Url;

use crate::{
    config::{Key, KeySource, Provider},
    outcome::{Api, Check},
};

/// Returns the API whose pages apply to this provider. Returns `None` if another service probably
/// imitates the API.
pub(super) fn account(provider: &Provider) -> Option<Api> {
    let (base, ..) = auth_call(provider.api);
    let genuine = Url::parse(base).is_ok_and(|base| base.host_str() == Some(provider.host()));
    (genuine || !matches!(provider.api, Api::Openai | Api::Anthropic)).then_some(provider.api)
}

/// Returns the page that lists an account's keys. Returns `None` for a gateway with its own
/// dashboard, which the remedy names.
pub(super) fn keys_page(api: Api) -> Option<&'static str> {
    Some(match api {
        Api::Langmart => return None,
        Api::Openai => "https://platform.openai.com/api-keys",
        Api::Anthropic => "https://console.anthropic.com/settings/keys",
        Api::Groq => "https://console.groq.com/keys",
        Api::Google => "https://aistudio.google.com/apikey",
        Api::Openrouter => "https://openrouter.ai/settings/keys",
    })
}

/// Returns the page that shows an account's limits. Returns `None` if there is no such page.
pub(super) fn limits_page(api: Api) -> Option<&'static str> {
    match api {
        Api::Langmart | Api::Openrouter => None,
        Api::Openai => Some("https://platform.openai.com/account/limits"),
        Api::Anthropic => Some("https://console.anthropic.com/settings/limits"),
        Api::Groq => Some("https://console.groq.com/settings/limits"),
        Api::Google => Some("https://console.cloud.google.com/apis/quotas"),
    }
}

/// Returns the provider's status page. Returns `None` if none is known.
pub(super) fn status_page(api: Api) -> Option<&'static str> {
    match api {
        Api::Langmart => None,
        Api::Openai => Some("https://status.openai.com"),
        Api::Anthropic => Some("https://status.anthropic.com"),
        Api::Groq => Some("https://groqstatus.com"),
        Api::Google => Some("https://status.cloud.google.com"),
        Api::Openrouter => Some("https://status.openrouter.ai"),
    }
}

/// Returns base URL, path and key header of the request that checks a key of this API.
fn auth_call(api: Api) -> (&'static str, &'static str, &'static str) {
    const BEARER: &str = "authorization: Bearer ";
    match api {
        Api::Langmart => ("https://api.langmart.ai", "/v1/auth/validate", BEARER),
        Api::Openai => ("https://api.openai.com/v1", "/models", BEARER),
        Api::Anthropic => ("https://api.anthropic.com", "/v1/models?limit=1", "x-api-key: "),
        Api::Groq => ("https://api.groq.com/openai/v1", "/models", BEARER),
        Api::Google => {
            ("https://generativelanguage.googleapis.com/v1beta", "/models?pageSize=1", "x-goog-api-key: ")
        }
        Api::Openrouter => ("https://openrouter.ai/api/v1", "/key", BEARER),
    }
}

/// Returns the curl command that checks a provider's own key, which is stored in the gateway.
/// Returns `None` if the provider is unknown.
pub(super) fn direct_curl(upstream: &str) -> Option<String> {
    let api = Api::from_name(upstream)?;
    let (base, path, header) = auth_call(api);
    Some(curl(&format!("{base}{path}"), &format!("{header}THE_KEY"), api))
}

/// Returns the curl command for a check, with the configured source of the key. Returns `None` if
/// the path was configured, because it may contain a secret.
pub(super) fn own_curl(provider: &Provider, check: Check) -> Option<String> {
    let (_, auth_path, header) = auth_call(provider.api);
    let base = provider.base_url.as_str().trim_end_matches('/');
    match check {
        Check::Auth if provider.paths.auth.is_none() => {
            let header = match &provider.key_header {
                Some(name) => format!("{name}: "),
                None => header.to_owned(),
            };
            let header = format!("{header}{}", provider.key.as_ref().map_or("THE_KEY".to_owned(), shell));
            Some(curl(&format!("{base}{auth_path}"), &header, provider.api) + &proxied(provider))
        }
        Check::Health if provider.api == Api::Langmart && provider.paths.health.is_none() => {
            Some(format!("curl -v \"{base}/health\"") + &proxied(provider))
        }
        _ => None,
    }
}

fn curl(url: &str, header: &str, api: Api) -> String {
    let version = if api == Api::Anthropic { " -H \"anthropic-version: 2026-10-21\"" } else { "" };
    format!("curl -i \"{url}\" -H \"{header}\"{version}")
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
