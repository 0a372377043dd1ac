//! The commands that show a failure without the prober, and the pages where it is put right.

use url::Url;

use crate::{
    config::{Key, KeySource, Provider},
    outcome::{Api, Check},
};

/// Whose pages are the right ones for this provider; `None` where its dialect is likely imitated by somebody else.
pub(super) fn account(provider: &Provider) -> Option<Api> {
    let (base, ..) = auth_call(provider.api);
    let genuine = Url::parse(base).is_ok_and(|base| base.host_str() == Some(provider.host()));
    (genuine || !matches!(provider.api, Api::Openai | Api::Anthropic)).then_some(provider.api)
}

/// Where an account's keys are seen and made; `None`: in the gateway's own dashboard, which the remedy names.
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

/// Where an account's limits are seen and raised; `None`: there is no such page.
pub(super) fn limits_page(api: Api) -> Option<&'static str> {
    match api {
        Api::Langmart | Api::Openrouter => None,
        Api::Openai => Some("https://platform.openai.com/account/limits"),
        Api::Anthropic => Some("https://console.anthropic.com/settings/limits"),
        Api::Groq => Some("https://console.groq.com/settings/limits"),
        Api::Google => Some("https://console.cloud.google.com/apis/quotas"),
    }
}

/// Where a provider says how it is; `None`: no page is known.
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

/// The call that tells whether a key of this API is good.
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

/// curl's way to a provider's own key, which is stored in the gateway; `None`: we do not know the provider.
pub(super) fn direct_curl(upstream: &str) -> Option<String> {
    let api = Api::from_name(upstream)?;
    let (base, path, header) = auth_call(api);
    Some(curl(&format!("{base}{path}"), &format!("{header}THE_KEY"), api))
}

/// curl's way to do what the check does, with the key from where it is kept; `None` where the path is the operator's own,
/// which may hold a secret.
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

/// curl's option for the provider's proxy.
fn proxied(provider: &Provider) -> String {
    provider.proxy.as_ref().map_or_else(String::new, |proxy| format!(" -x \"{proxy}\""))
}

/// The key as a shell reads it from its place.
fn shell(key: &Key) -> String {
    match &key.source {
        KeySource::Env(name) => format!("${name}"),
        KeySource::File(path) => format!("$(cat '{}')", path.display()),
        KeySource::Credential(_) => "THE_KEY".to_owned(),
    }
}
