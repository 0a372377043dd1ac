//! `[provider.NAME]`.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use reqwest::header::{HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use url::Url;

use crate::{config::secret::Secret, outcome::Api};

/// Where name servers listen (RFC 1035, 4.2).
pub(in crate::config) const DNS_PORT: u16 = 53;

/// `[provider.NAME]`: a service to probe.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// `NAME`.
    pub name: String,
    /// The dialect that it speaks.
    pub api: Api,
    /// Without a trailing slash in its path, query, fragment or userinfo; LangMart's without `/v1`.
    pub base_url: Url,
    /// The key, and where it comes from; `None`: no key is sent.
    pub key: Option<Key>,
    /// The header that carries the bare key instead of the API's own.
    pub key_header: Option<HeaderName>,
    /// The proxy, `SCHEME://host:port` without userinfo, of scheme http, https, socks5 or socks5h; `None`: direct.
    pub proxy: Option<Url>,
    /// The proxy's credentials, `user:password`, the file's or those in the URL of the environment's proxy. `None` if there
    /// are none.
    pub proxy_auth: Option<Key>,
    /// Name servers that the network check asks beside the system's resolver.
    pub dns_servers: Vec<SocketAddr>,
    /// Trusted beside the system's roots.
    pub ca_certificates: Vec<CertificateDer<'static>>,
    /// Sent with each request; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// On `langmart_probe_info`.
    pub labels: BTreeMap<String, String>,
    /// Paths in place of the API's own.
    pub paths: Paths,
    /// Where it says how it is; `None`: nowhere that is known.
    pub status_source: Option<StatusSource>,
    /// The most requests of its probes in any 60 seconds, at least 1; `None`: they are not paced. Of a shard, its
    /// part.
    pub requests_per_minute: Option<u32>,
}

impl Provider {
    /// The host of the base URL, for labels and messages.
    pub fn host(&self) -> &str {
        self.base_url.host_str().expect("a base_url without a host is refused at load")
    }

    /// User and password for the proxy; `None`: it is given none.
    pub fn proxy_credentials(&self) -> Option<(&str, &str)> {
        self.proxy.as_ref()?;
        self.proxy_auth.as_ref()?.value.expose().split_once(':')
    }
}

/// A name server as labels and records call it: without the port where that is the usual one.
pub fn dns_server_name(server: SocketAddr) -> String {
    if server.port() == DNS_PORT { server.ip().to_string() } else { server.to_string() }
}

/// A provider's status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSource {
    /// Its `summary.json` or `incidents.json`, http or https, without userinfo and fragment. No key and no header of the
    /// provider's goes there.
    pub url: Url,
    /// The components to tell of, by the page's names; each once.
    pub components: Vec<String>,
}

/// A key and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key itself.
    pub value: Secret,
    /// Where it was read.
    pub source: KeySource,
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file, read again at every reload.
    File(PathBuf),
    /// A systemd credential, changed only by a restart.
    Credential(String),
}

impl fmt::Display for KeySource {
    /// The place, for messages: `environment variable LANGMART_API_KEY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

/// Paths that replace the API's own. Each begins with a slash and is appended to the base URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Of the health check: the one that APIs other than LangMart lack.
    pub health: Option<String>,
    /// Of the auth check.
    pub auth: Option<String>,
    /// Of the models check.
    pub models: Option<String>,
    /// Of the chat check.
    pub chat: Option<String>,
    /// Of the balance check.
    pub balance: Option<String>,
}
