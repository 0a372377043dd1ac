//! `[provider.NAME]`.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use reqwest::header::{HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use url::Url;

use crate::{config::secret::Secret, outcome::Api};

/// Standard port of DNS servers (RFC 1035, 4.2).
pub(in crate::config) const DNS_PORT: u16 = 53;

/// `[provider.NAME]`: a service to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// `NAME`.
    pub name: String,
    /// The API dialect of the service.
    pub api: Api,
    /// Without a trailing slash, query, fragment or userinfo; LangMart's without `/v1`.
    pub base_url: Url,
    /// The key and its source. `None` sends no key.
    pub key: Option<Key>,
    /// The header that carries the bare key instead of the API's own.
    pub key_header: Option<HeaderName>,
    /// The proxy as `SCHEME://host:port` without userinfo; the scheme is http, https, socks5 or
    /// socks5h. `None` connects directly.
    pub proxy: Option<Url>,
    /// Whether the proxy of the environment is not used either (`proxy = "none"`).
    pub ignores_environment_proxy: bool,
    /// The proxy's credentials `user:password`, from the file or from the URL of the environment's
    /// proxy. `None` if there are none.
    pub proxy_auth: Option<Key>,
    /// DNS servers that the network check queries in addition to the system's resolver.
    pub dns_servers: Vec<SocketAddr>,
    /// The file of `ca_certificates`.
    pub ca_file: Option<PathBuf>,
    /// Trusted in addition to the system's roots.
    pub ca_certificates: Vec<CertificateDer<'static>>,
    /// Headers of each request; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Labels of `langmart_probe_info`.
    pub labels: BTreeMap<String, String>,
    /// Paths that replace those of the API.
    pub paths: Paths,
    /// The provider's status page, if known.
    pub status_source: Option<StatusSource>,
    /// Maximum number of requests of its probes in any 60 seconds, at least 1; of a shard, its
    /// part. `None` disables the limit.
    pub requests_per_minute: Option<u32>,
}

impl Provider {
    /// Returns the host of the base URL, for labels and messages.
    pub fn host(&self) -> &str {
        self.base_url.host_str().expect("a base_url without a host is refused at load")
    }

    /// Returns whether the base URL is on the API's own host, and not on that of an imitator or a
    /// deployment.
    pub fn is_on_own_host(&self) -> bool {
        self.api.profile().is_at(self.host())
    }

    /// Returns user and password for the proxy, if it needs any.
    pub fn proxy_credentials(&self) -> Option<(&str, &str)> {
        self.proxy.as_ref()?;
        self.proxy_auth.as_ref()?.value.expose().split_once(':')
    }
}

/// Formats a DNS server for labels and records, without the standard port.
pub fn dns_server_name(server: SocketAddr) -> String {
    if server.port() == DNS_PORT { server.ip().to_string() } else { server.to_string() }
}

/// A provider's status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSource {
    /// URL of its `summary.json` or `incidents.json`: http or https, without userinfo and fragment.
    /// Requests to it contain neither the key nor the headers of the provider.
    pub url: Url,
    /// The components to report, by their names on the page, without duplicates.
    pub components: Vec<String>,
}

/// A key and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub value: Secret,
    /// The source of the key.
    pub source: KeySource,
}

/// The source of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file, which every reload reads again.
    File(PathBuf),
    /// A systemd credential, which changes only on restart.
    Credential(String),
}

impl fmt::Display for KeySource {
    /// Formats the source for messages: `environment variable LANGMART_API_KEY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

/// Paths that replace those of the API. Each begins with a slash and is appended to the base URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Path of the health check, for which only LangMart has a default.
    pub health: Option<String>,
    /// Path of the auth check.
    pub auth: Option<String>,
    /// Path of the models check.
    pub models: Option<String>,
    /// Path of the chat check.
    pub chat: Option<String>,
    /// Path of the balance check.
    pub balance: Option<String>,
}
