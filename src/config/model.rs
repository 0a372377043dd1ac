//! What the operator asked for, checked and immutable: the rest of the program reads nothing else.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use url::Url;

use super::{
    certificate::{CertificateFiles, Stamp},
    secret::Secret,
};
use crate::outcome::{Api, Check, Side, Subject};

/// Where name servers listen (RFC 1035, 4.2).
pub(super) const DNS_PORT: u16 = 53;

/// A whole configuration. A reload makes a new one or changes nothing.
#[derive(Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[log]`.
    pub log: Log,
    /// `[schedule]`.
    pub schedule: Schedule,
    /// `[shard]`; `None`: the file has none, and all of its probes are this daemon's.
    pub shard: Option<Shard>,
    /// `[budget]`; `None`: the file has none. Of a shard, its part.
    pub budget: Option<Budget>,
    /// Where the state is kept over a restart; `None`: nowhere.
    pub state_directory: Option<PathBuf>,
    /// Every `[provider.NAME]`, by name.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Every probe, generated and written, by name in the order of the file.
    pub probes: Vec<Arc<Probe>>,
    /// Every `[[comparison]]`, in the order of the file.
    pub comparisons: Vec<Arc<Comparison>>,
    /// Every `[[pool]]`, in the order of the file.
    pub pools: Vec<Pool>,
    /// The system's trusted roots, read once a load.
    pub system_roots: Arc<Vec<CertificateDer<'static>>>,
}

/// `[server]`: the HTTP listener.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Names beside the listen address by which browsers may address it, in lower case.
    pub hostnames: Vec<String>,
    /// Certificate and key; `None`: plain HTTP.
    pub tls: Option<ServerTls>,
    /// Who may ask: the bcrypt hash of each user's password. Empty: everybody.
    pub users: BTreeMap<String, Secret>,
    /// Whether `/probe` may run chat and stream probes, which spend tokens.
    pub probe_generation: bool,
}

/// `tls` in `[server]`.
#[derive(Clone)]
pub struct ServerTls {
    /// Where they are.
    pub files: CertificateFiles,
    /// How the files looked before they were read.
    pub stamp: Stamp,
    /// What they hold; `None`: keys were not asked for, or this one could not be read and that was bearable.
    pub certified: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for ServerTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.files).finish()
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level or a tracing filter, known to parse.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether lines go to standard error.
    pub stderr: bool,
    /// Where `prober.log.*` and `results.jsonl.*` are written; `None`: no files.
    pub directory: Option<PathBuf>,
    /// When a new file begins.
    pub rotation: Rotation,
    /// How many files of each kind are kept, 2 or more.
    pub max_files: usize,
    /// Bytes beyond which the period's further lines are dropped and counted.
    pub max_file_size: u64,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// When a new log file begins, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// On the hour.
    Hourly,
    /// At midnight.
    Daily,
}

/// `[schedule]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Runs in flight, all providers.
    pub max_concurrent: usize,
    /// Runs in flight, one provider.
    pub max_concurrent_per_provider: usize,
    /// Ceiling for every wait that a provider asks for.
    pub max_backoff: Duration,
}

/// `[shard]`: which part of the file's probes is this daemon's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0 to `total` - 1.
    pub index: u32,
    /// How many daemons share the file, 1 or more.
    pub total: u32,
}

/// `[budget]`: what the generation checks may take of a UTC day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// In US dollars, above 0; `None`: no limit.
    pub daily_cost_usd: Option<f64>,
    /// Input and output together, 1 or more; `None`: no limit.
    pub daily_tokens: Option<u64>,
}

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
    /// The proxy's credentials, `user:password`; `None`: it is given none.
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

/// One probe: what to do, where, how often.
#[derive(Debug, PartialEq, Eq)]
pub struct Probe {
    /// Unique among all probes.
    pub name: String,
    /// The service that it addresses.
    pub provider: Arc<Provider>,
    /// What it does there.
    pub task: Task,
    /// The model; set for chat and stream, optional for models.
    pub model: Option<String>,
    /// From one due time to the next.
    pub interval: Duration,
    /// Bounds everything from the lookup to the last byte; at most the interval.
    pub timeout: Duration,
    /// Whether each run opens a connection of its own.
    pub connection: Connection,
    /// A success that took longer is slow: to the first token of a stream, else in all; `None`: none is.
    pub slow_after: Option<Duration>,
    /// Attempts between a failed run and the next due one; `None`: none.
    pub recheck: Option<Recheck>,
    /// The comparison that it is one side of, whose grid of due times is the gateway probe's; `None`: of none.
    pub comparison: Option<Arc<Comparison>>,
}

impl Probe {
    /// What it looks at.
    pub fn check(&self) -> Check {
        match self.task {
            Task::Network => Check::Network,
            Task::Health => Check::Health,
            Task::Auth => Check::Auth,
            Task::Models => Check::Models,
            Task::Chat(_) => Check::Chat,
            Task::Stream(_) => Check::Stream,
            Task::Status(_) => Check::Status,
            Task::Balance => Check::Balance,
            Task::Http(_) => Check::Http,
        }
    }

    /// Whether `requests_per_minute` of its provider counts its runs: those that send the service a request. The network
    /// check sends none, and the status page stands on another host.
    pub fn is_paced(&self) -> bool {
        !matches!(self.task, Task::Network | Task::Status(_))
    }

    /// The name that its grid of due times goes by: its own, or that of its comparison's gateway probe.
    pub fn grid(&self) -> &str {
        self.comparison.as_ref().map_or(&self.name, |comparison| &comparison.gateway)
    }

    /// What it asks a model; `None`: it asks none.
    pub fn chat(&self) -> Option<&Chat> {
        match &self.task {
            Task::Chat(chat) | Task::Stream(Stream { chat, .. }) => Some(chat),
            Task::Network
            | Task::Health
            | Task::Auth
            | Task::Models
            | Task::Status(_)
            | Task::Balance
            | Task::Http(_) => None,
        }
    }

    /// The host that it addresses, for labels and messages.
    pub fn host(&self) -> &str {
        match &self.task {
            Task::Status(source) => {
                source.url.host_str().expect("a status_url without a host is refused at load")
            }
            _ => self.provider.host(),
        }
    }

    /// Who its records and series are about.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            probe: &self.name,
            provider: &self.provider.name,
            check: self.check(),
            model: self.model.as_deref(),
        }
    }
}

/// What becomes of a probe's connection after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It is closed: each run measures the whole way.
    Cold,
    /// It is kept for the next run, as applications do.
    Warm,
}

impl Connection {
    /// The name in configuration and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Attempts after a run that failed for a reason which may pass within seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// From the end of the failed run to the first attempt.
    pub after: Duration,
    /// What each wait is longer than the one before it; zero: all are alike.
    pub step: Duration,
    /// How many attempts at most, at least 1.
    pub times: u32,
}

impl Recheck {
    /// The wait before attempt `number`, counted from 1.
    pub fn wait(&self, number: u32) -> Duration {
        self.after.saturating_add(self.step.saturating_mul(number.saturating_sub(1)))
    }

    /// All waits together.
    pub fn waits(&self) -> Duration {
        (1..=self.times).map(|number| self.wait(number)).fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// `[[comparison]]`: the same question by a gateway and directly, asked by two probes that run as a pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comparison {
    /// Unique among all comparisons.
    pub name: String,
    /// The probe that goes by the gateway. Both run at its due times.
    pub gateway: String,
    /// The probe that goes directly.
    pub direct: String,
}

impl Comparison {
    /// The probe that goes that way.
    pub fn probe(&self, side: Side) -> &str {
        match side {
            Side::Gateway => &self.gateway,
            Side::Direct => &self.direct,
        }
    }

    /// The way of one of its two probes.
    pub fn side(&self, probe: &str) -> Side {
        if probe == self.gateway { Side::Gateway } else { Side::Direct }
    }
}

/// `[[pool]]`: probes of services that can stand in for each other, as in a LangMart connection pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique among all pools.
    pub name: String,
    /// Its members, at least one.
    pub members: Vec<PoolMember>,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolMember {
    /// The probe that tells whether it is available; once in a pool.
    pub probe: String,
    /// Its share of the work, in relation to the others'; at least 1.
    pub weight: u32,
}

/// What a probe does, with what only that check needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Look up, connect and shake hands, without a request.
    Network,
    /// GET the health path.
    Health,
    /// GET what only a good key may see.
    Auth,
    /// GET the model list.
    Models,
    /// POST a short completion.
    Chat(Chat),
    /// POST a short completion whose answer is streamed.
    Stream(Stream),
    /// GET the provider's status page.
    Status(StatusSource),
    /// GET the account's balance.
    Balance,
    /// Whatever the operator wrote.
    Http(Box<HttpRequest>),
}

/// A short completion.
#[derive(Debug, PartialEq, Eq)]
pub struct Chat {
    /// The one message sent.
    pub prompt: String,
    /// The most tokens that may come back.
    pub max_tokens: u32,
    /// The member that carries `max_tokens`, where the API has a choice; `None`: by API and model family.
    pub max_tokens_parameter: Option<MaxTokensParameter>,
    /// What the model's tokens cost; `None`: that is not known.
    pub price: Option<Price>,
}

impl Chat {
    /// The size of the prompt, as `prompt_words` counts it.
    pub fn prompt_words(&self) -> usize {
        self.prompt.split_whitespace().count()
    }

    /// About how many tokens the prompt has, roles and marks included: right for English within some tenths.
    pub fn estimated_input_tokens(&self) -> u64 {
        const FRAME_TOKENS: u64 = 8;
        self.prompt.len().div_ceil(BYTES_PER_TOKEN) as u64 + FRAME_TOKENS
    }
}

/// What tokens cost, in US dollars a million.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Of the prompt; finite, 0 or more.
    pub input_usd_per_mtok: f64,
    /// Of the answer, reasoning included; finite, 0 or more.
    pub output_usd_per_mtok: f64,
}

impl Eq for Price {}

impl Price {
    /// What so many tokens cost, in US dollars.
    pub fn cost(&self, input_tokens: u64, output_tokens: u64) -> f64 {
        const MILLION: f64 = 1e6;
        let Self { input_usd_per_mtok, output_usd_per_mtok } = self;
        (input_tokens as f64 * input_usd_per_mtok + output_tokens as f64 * output_usd_per_mtok) / MILLION
    }
}

/// Bytes of a text for each of its tokens, which is about right for English.
pub const BYTES_PER_TOKEN: usize = 4;

/// A short completion, streamed.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream {
    /// What is asked.
    pub chat: Chat,
    /// Without a byte for so long, once the response has begun, the stream has failed.
    pub stall_timeout: Duration,
    /// Whether an OpenAI-compatible API is asked to count tokens at the end of the stream.
    pub include_usage: bool,
}

/// How an OpenAI-compatible API calls its token limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokensParameter {
    /// The old name, which reasoning models refuse.
    MaxTokens,
    /// The new name, which imitators may not know.
    MaxCompletionTokens,
}

/// A request of the operator's own and what its response must be.
#[derive(PartialEq, Eq)]
pub struct HttpRequest {
    /// GET by default.
    pub method: Method,
    /// Appended to the base URL; may carry a query.
    pub path: String,
    /// Sent as written; `None`: no body.
    pub body: Option<String>,
    /// Beside the provider's; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the provider's key goes along.
    pub send_key: bool,
    /// What must hold.
    pub expect: Expect,
}

impl fmt::Debug for HttpRequest {
    /// Without the body, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, body, headers, send_key, expect } = self;
        f.debug_struct("HttpRequest")
            .field("method", method)
            .field("path", path)
            .field("body_bytes", &body.as_ref().map(String::len))
            .field("headers", headers)
            .field("send_key", send_key)
            .field("expect", expect)
            .finish()
    }
}

/// What the response of an `http` check must be. What is not written is not asked.
#[derive(Debug, Default)]
pub struct Expect {
    /// One of these; empty: any 2xx.
    pub status: Vec<u16>,
    /// Matches somewhere in the body.
    pub body_regex: Option<regex::bytes::Regex>,
    /// JSON pointers (RFC 6901) into the body, and the values there.
    pub json: Vec<(String, serde_json::Value)>,
}

impl PartialEq for Expect {
    fn eq(&self, other: &Self) -> bool {
        let pattern = |expect: &Self| expect.body_regex.as_ref().map(|regex| regex.as_str().to_owned());
        self.status == other.status && self.json == other.json && pattern(self) == pattern(other)
    }
}

impl Eq for Expect {}
