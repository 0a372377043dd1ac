//! The whole of a configuration, and its sections that are there once.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{pki_types::CertificateDer, sign::CertifiedKey};

use super::{Comparison, Pool, Probe, Provider};
use crate::config::{
    certificate::{CertificateFiles, Stamp},
    secret::Secret,
};

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
    /// Whether everybody may ask also on an address that is not loopback.
    pub allow_unauthenticated: bool,
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
