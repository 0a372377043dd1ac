//! `[provider.NAME]`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use reqwest::header::HeaderName;
use rustls::pki_types::CertificateDer;
use toml::de::DeValue;
use url::Url;
use zeroize::Zeroizing;

use super::{
    context::Context,
    http::{
        base_url, credentials, environment_proxy, headers, is_exposed, key_header, path, proxy, status_url,
    },
    shard::of_rate_limit,
    values::source,
};
use crate::{
    api::Profile,
    config::{
        environment::certificates,
        key,
        model::{DNS_PORT, Key, KeySource, Paths, Provider, Shard, StatusSource},
        problem::{Place, Report, not_one_of, shown},
        raw::{Section, wrong_type},
        secret::Secret,
        service::Usage,
    },
    outcome::{Api, Check},
};

/// Labels that the exporter or Prometheus sets.
const RESERVED_LABELS: [&str; 11] =
    ["probe", "provider", "check", "model", "host", "api", "connection", "instance", "job", "le", "quantile"];

/// Maximum number of labels of a provider, and maximum size of a value in bytes.
const MAX_LABELS: usize = 16;
const MAX_LABEL_BYTES: usize = 256;

/// Maximum number of components of a status page, and maximum size of a name in bytes.
const MAX_COMPONENTS: usize = 32;
const MAX_COMPONENT_BYTES: usize = 128;

/// Maximum number of name servers of a provider.
const MAX_DNS_SERVERS: usize = 8;

/// Maximum length of a provider's name in characters.
const MAX_NAME_CHARS: usize = 48;

/// Range of `requests_per_minute`.
const REQUESTS_PER_MINUTE: RangeInclusive<u32> = 1..=60_000;

/// A provider, with the facts about its section that its probes depend on.
pub(super) struct Draft {
    /// `None` if the API is unknown.
    pub(super) provider: Option<Arc<Provider>>,
    pub(super) place: Place,
    /// Place of `api_key`, present or not.
    pub(super) key_place: Place,
    /// Whether `api_key` is present, valid or not.
    pub(super) keyed: bool,
    /// Whether checks that require a key can run without one: a server of the operator's own may
    /// need none.
    pub(super) keyless: bool,
    /// Place of `requests_per_minute`, present or not.
    pub(super) pace_place: Place,
    /// Whether a probe uses it.
    pub(super) used: bool,
    /// Checks of `checks`, with their places.
    pub(super) checks: Vec<(Check, Place)>,
}

/// Reads the provider of a section. Reports problems, and replaces invalid values so that the rest
/// can be checked.
pub(super) fn provider(
    name: &str,
    mut section: Section<'_>,
    shard: Option<Shard>,
    context: &Context<'_>,
) -> Draft {
    let report = context.report;
    let place = section.place().clone();
    if !is_name(name, MAX_NAME_CHARS, |c| c == '-') {
        let message = format!("the name must be 1 to {MAX_NAME_CHARS} characters of a-z, 0-9 and hyphen");
        report.error(&place, message);
    }
    let api = api(name, &mut section);
    let checks = checks(&mut section, report);
    let profile = api.unwrap_or(Api::Langmart).profile();
    let (url, own_url) = url(&mut section, api, profile, report);
    let key = key(&mut section, context);
    check_key(key.as_ref(), api, &url, &mut section, report);
    let headers = headers(&section.section("headers"), context);
    let key_header = own_key_header(&mut section, &headers);
    let ignores_environment_proxy = section.has("proxy");
    let (proxy, environment_auth) = proxied(&mut section, &url, context);
    let proxy_auth = proxy_auth(&mut section, proxy.as_ref(), context).or(environment_auth);
    let dns_servers = dns_servers(&mut section, report);
    let (ca_file, ca_certificates) = ca_file(&mut section, context).unzip();
    let ca_certificates = ca_certificates.unwrap_or_default();
    let pace_place = section.place_of("requests_per_minute");
    let resolved = Provider {
        name: name.to_owned(),
        api: api.unwrap_or(Api::Openai),
        key_header,
        key,
        proxy,
        ignores_environment_proxy,
        proxy_auth,
        dns_servers,
        ca_file,
        ca_certificates,
        headers,
        labels: labels(&section.section("labels"), report),
        paths: paths(&mut section),
        status_source: status_source(&mut section, api, own_url, report),
        requests_per_minute: pace(&mut section, shard, report),
        base_url: url,
    };
    let (keyed, key_place) = (section.has("api_key"), section.place_of("api_key"));
    section.finish();
    Draft {
        pace_place,
        used: !checks.is_empty(),
        provider: api.map(|_| Arc::new(resolved)),
        place,
        key_place,
        keyed,
        keyless: api.is_some() && profile.may_be_keyless && own_url,
        checks,
    }
}

/// Returns the base URL, and whether it is another one than the API's default.
fn url(section: &mut Section<'_>, api: Option<Api>, profile: &Profile, report: &Report) -> (Url, bool) {
    let url = section.text("base_url", base_url);
    let default_url = api.map(|_| profile.default_url());
    let own_url = section.has("base_url") && url != default_url;
    let url = url.unwrap_or_else(|| profile.default_url());
    let url = if profile.drops_version && api.is_some() { without_version(url) } else { url };
    if let Some(api) = api {
        check_path(&url, api, section, report);
    }
    (url, own_url)
}

fn pace(section: &mut Section<'_>, shard: Option<Shard>, report: &Report) -> Option<u32> {
    let place = section.place_of("requests_per_minute");
    of_rate_limit(shard, section.number("requests_per_minute", &REQUESTS_PER_MINUTE), &place, report)
}

/// Warns of a base URL on the API's own host with another path, unless paths are configured.
fn check_path(url: &Url, api: Api, section: &Section<'_>, report: &Report) {
    const PATHS: [&str; 5] = ["health_path", "auth_path", "models_path", "chat_path", "balance_path"];
    let default = api.profile().default_url();
    let is_own = url.host_str() == default.host_str() && url.port_or_known_default() == Some(443);
    if is_own && url.path() != default.path() && !PATHS.iter().any(|key| section.has(key)) {
        let message = format!(
            "the API of {api} is not at this path of its host; use \"{}\", or remove base_url",
            default.as_str().trim_end_matches('/')
        );
        report.warning(&section.place_of("base_url"), message);
    }
}

/// Reports a key of another service, and a key that plain HTTP would expose.
fn check_key(key: Option<&Key>, api: Option<Api>, url: &Url, section: &mut Section<'_>, report: &Report) {
    let asked = key.zip(api.and_then(|api| asked_service(api, url)));
    if let Some(message) =
        asked.and_then(|(key, service)| key::wrong_service_warning(key.value.expose(), service))
    {
        report.warning(&section.place_of("api_key"), message);
    }
    let allowed = section.flag("allow_plain_http").unwrap_or(section.has("allow_plain_http"));
    if section.has("api_key") && is_exposed(url) && !allowed {
        let message = "is plain http, which shows the key to everyone on the way; \
                       use https, or set allow_plain_http = true";
        report.error(&section.place_of("base_url"), message);
    }
}

/// Returns whether a name is not too long and consists of lower-case letters, digits and the
/// characters that `mark` allows.
pub(super) fn is_name(name: &str, max_chars: usize, mark: impl Fn(char) -> bool) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || mark(c);
    (1..=max_chars).contains(&name.len()) && name.chars().all(fits)
}

fn api(name: &str, section: &mut Section<'_>) -> Option<Api> {
    let names: Vec<_> = Api::ALL.iter().map(|api| api.name()).collect();
    let written = section.text("api", |text| Api::from_name(text).ok_or_else(|| not_one_of(text, &names)));
    if section.has("api") {
        return written;
    }
    let own = Api::from_name(name);
    if own.is_none() {
        let message =
            format!("is missing, since the provider's name is no API's; allowed: {}", names.join(", "));
        section.problem("api", message);
    }
    own
}

/// Returns the API whose keys are used at this URL. Returns `None` if it is unknown: other services
/// imitate the dialect at other hosts.
fn asked_service(api: Api, url: &Url) -> Option<Api> {
    let by_host =
        Api::ALL.iter().find(|known| url.host_str().is_some_and(|host| known.profile().is_at(host)));
    by_host.copied().or(api.profile().keys_belong_to_api.then_some(api))
}

fn without_version(mut url: Url) -> Url {
    if let Some(path) = url.path().strip_suffix("/v1") {
        let path = path.trim_end_matches('/').to_owned();
        url.set_path(&path);
    }
    url
}

fn checks(section: &mut Section<'_>, report: &Report) -> Vec<(Check, Place)> {
    let by_name = |check: &&Check| !matches!(check, Check::Chat | Check::Stream | Check::Http);
    let names: Vec<_> = Check::ALL.iter().filter(by_name).map(|check| check.name()).collect();
    let known = |text: &str| Check::from_name(text).ok_or_else(|| not_one_of(text, &names));
    let mut checks: Vec<(Check, Place)> = Vec::new();
    for (check, place) in section.texts("checks", known) {
        if !by_name(&&check) {
            report.error(&place, format!("{check} needs more than a name; write it as a [[probe]]"));
        } else if checks.iter().any(|(other, _)| *other == check) {
            report.error(&place, format!("{check} is listed twice"));
        } else {
            checks.push((check, place));
        }
    }
    checks
}

/// Sources of a key, as they are written.
const KEY_SOURCES: &str = "{ env = \"VARIABLE\" }, { file = \"/path\" } or { credential = \"name\" }";

fn key(section: &mut Section<'_>, context: &Context<'_>) -> Option<Key> {
    let place = section.place_of("api_key");
    let value = section.value("api_key")?;
    match value {
        DeValue::Table(_) => {
            let source = source(Section::from_value(value, place.clone(), context.report), context.report)?;
            let text = context.secret(&source, &place, key::check).unwrap_or_default();
            return Some(Key { value: Secret::from(text), source });
        }
        DeValue::String(_) => {
            context.report.error(
                &place,
                format!("a key must not be in this file; write where it is kept: {KEY_SOURCES}"),
            );
        }
        _ => context.report.error(&place, wrong_type(KEY_SOURCES, value)),
    }
    None
}

fn own_key_header(section: &mut Section<'_>, headers: &[(HeaderName, impl Sized)]) -> Option<HeaderName> {
    let name = section.text("key_header", key_header)?;
    if !section.has("api_key") {
        section.problem("key_header", "there is no api_key to send in it");
    }
    if headers.iter().any(|(other, _)| *other == name) {
        section.problem("key_header", format!("{name} is among the headers too; remove it there"));
    }
    Some(name)
}

/// Returns the proxy of the section, or that of the environment with the credentials in its URL.
fn proxied(section: &mut Section<'_>, target: &Url, context: &Context<'_>) -> (Option<Url>, Option<Key>) {
    if section.has("proxy") {
        let written =
            section.text("proxy", |text| if text == "none" { Ok(None) } else { proxy(text).map(Some) });
        return (written.flatten(), None);
    }
    section.mark_known(&["proxy"]);
    let Some((variable, value)) = context.environment.proxy_for(target) else { return (None, None) };
    let text = Zeroizing::new(value.to_string_lossy().into_owned());
    match environment_proxy(&text) {
        Ok((url, auth)) => {
            let wanted = context.wants_secret(&section.place_of("proxy_auth"));
            let key = |auth: Zeroizing<String>| Key {
                value: Secret::from(if wanted { auth } else { Zeroizing::default() }),
                source: KeySource::Env(variable.to_owned()),
            };
            (Some(url), auth.map(key))
        }
        Err(message) => {
            section.problem("proxy", format!("the environment's {variable}: {message}"));
            (None, None)
        }
    }
}

/// Reads the credentials for the proxy. They have no effect without a proxy, which is only a
/// warning, because the proxy may depend on the environment.
fn proxy_auth(section: &mut Section<'_>, proxy: Option<&Url>, context: &Context<'_>) -> Option<Key> {
    let place = section.place_of("proxy_auth");
    let value = section.value("proxy_auth")?;
    if value.as_table().is_none() {
        let message = format!("must be where user:password of the proxy is kept: {KEY_SOURCES}");
        context.report.error(&place, message);
        return None;
    }
    let source = source(Section::from_value(value, place.clone(), context.report), context.report)?;
    let socks = proxy.is_some_and(|proxy| proxy.scheme().starts_with("socks"));
    let text = context.secret(&source, &place, |text| credentials(text, socks)).unwrap_or_default();
    if proxy.is_none() && !section.is_bad("proxy") {
        context.report.warning(&place, "there is no proxy to give it to; set proxy, or remove it");
    }
    Some(Key { value: Secret::from(text), source })
}

fn dns_servers(section: &mut Section<'_>, report: &Report) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for (server, place) in section.texts("dns_servers", dns_server) {
        if servers.contains(&server) {
            report.error(&place, "is listed twice");
        }
        servers.push(server);
    }
    if servers.len() > MAX_DNS_SERVERS {
        let message = format!("{} servers are too many; allowed: {MAX_DNS_SERVERS}", servers.len());
        section.problem("dns_servers", message);
    }
    servers
}

/// Parses the address of a name server. A name would require a lookup.
fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
    let server = bare.or_else(|_| text.parse::<SocketAddr>()).ok();
    server.filter(|server| server.port() != 0 && !server.ip().is_unspecified()).ok_or_else(|| {
        format!("{} is not a name server's address; write \"192.0.2.53\" or \"192.0.2.53:5353\"", shown(text))
    })
}

/// Returns the file of additional roots, and its certificates.
fn ca_file(
    section: &mut Section<'_>,
    context: &Context<'_>,
) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let place = section.place_of("ca_file");
    section.text("ca_file", |text| {
        let path = Path::new(text);
        if !path.is_absolute() {
            let message =
                format!("{} is not an absolute path; write one that begins with a slash", shown(text));
            return Err(message);
        }
        context.check_readable(path, Usage::Configuration, &place);
        let certificates = certificates(path).map_err(|message| format!("{} {message}", shown(text)))?;
        Ok((path.to_owned(), certificates))
    })
}

fn labels(section: &Section<'_>, report: &Report) -> BTreeMap<String, String> {
    let entries = section.entries();
    if entries.len() > MAX_LABELS {
        report
            .error(section.place(), format!("{} labels are too many; allowed: {MAX_LABELS}", entries.len()));
    }
    let mut labels = BTreeMap::new();
    for entry in entries {
        let Some(value) = entry.value.as_str() else {
            report.error(&entry.place, wrong_type("a string", entry.value));
            continue;
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if entry.key.is_empty()
            || entry.key.starts_with(|c: char| c.is_ascii_digit())
            || entry.key.starts_with("__")
            || !entry.key.chars().all(fits)
        {
            let message = "is not a label name; allowed: letters, digits and _, not first a digit or __";
            report.error(&entry.place, message);
        } else if RESERVED_LABELS.contains(&entry.key) {
            report
                .error(&entry.place, "is a label that the exporter or Prometheus sets; choose another name");
        } else if value.is_empty() || value.len() > MAX_LABEL_BYTES {
            report.error(&entry.place, format!("the value must have 1 to {MAX_LABEL_BYTES} bytes"));
        } else {
            labels.insert(entry.key.to_owned(), value.to_owned());
        }
    }
    labels
}

fn paths(section: &mut Section<'_>) -> Paths {
    Paths {
        health: section.text("health_path", path),
        auth: section.text("auth_path", path),
        models: section.text("models_path", path),
        chat: section.text("chat_path", path),
        balance: section.text("balance_path", path),
    }
}

/// Returns the configured status page, or that of the API if the base URL is its own.
fn status_source(
    section: &mut Section<'_>,
    api: Option<Api>,
    own_url: bool,
    report: &Report,
) -> Option<StatusSource> {
    let url = section.text("status_url", status_url);
    let components = components(section, report);
    if section.has("status_url") {
        // An invalid one is reported; any other lets the checks be verified.
        return Some(StatusSource {
            url: url.unwrap_or_else(|| Api::Langmart.profile().default_url()),
            components,
        });
    }
    let own = api.filter(|_| !own_url).and_then(|api| api.profile().status_data);
    let url = own.map(|url| Url::parse(url).expect("the status page of a profile is a URL"));
    if url.is_none() && api.is_some() && section.has("components") {
        section.problem("components", "there is no status page to find them on; set status_url");
    }
    Some(StatusSource { url: url?, components })
}

fn components(section: &mut Section<'_>, report: &Report) -> Vec<String> {
    let name = |text: &str| {
        let fits = (1..=MAX_COMPONENT_BYTES).contains(&text.len());
        if fits && text.trim() == text && !text.contains(char::is_control) {
            Ok(text.to_owned())
        } else {
            Err(format!("{} is not a component's name; write it as the page does", shown(text)))
        }
    };
    let mut components = Vec::new();
    for (name, place) in section.texts("components", name) {
        if components.contains(&name) {
            report.error(&place, format!("{} is listed twice", shown(&name)));
        } else {
            components.push(name);
        }
    }
    if components.len() > MAX_COMPONENTS {
        let message = format!("{} components are too many; allowed: {MAX_COMPONENTS}", components.len());
        section.problem("components", message);
    }
    components
}
