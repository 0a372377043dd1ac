//! The configuration as a whole, and its sections that occur once.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{pki_types::CertificateDer, sign::CertifiedKey};

use super::{Comparison, Pool, Probe, Provider};
use crate::config::{
    listener_certificate::{CertificateFiles, Stamp},
    secret::Secret,
};

/// A configuration. A reload replaces it as a whole or changes nothing.
#[derive(Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[log]`.
    pub log: Log,
    /// `[schedule]`.
    pub schedule: Schedule,
    /// `[shard]`. `None` means that all probes of the file belong to this daemon.
    pub shard: Option<Shard>,
    /// `[budget]`, if present; of a shard, its part.
    pub budget: Option<Budget>,
    /// Directory of the state that survives a restart. `None` disables it.
    pub state_directory: Option<PathBuf>,
    /// Every `[provider.NAME]`, by name.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// All probes, generated and explicit, in the order of the file.
    pub probes: Vec<Arc<Probe>>,
    /// Every `[[comparison]]`, in the order of the file.
    pub comparisons: Vec<Arc<Comparison>>,
    /// Every `[[pool]]`, in the order of the file.
    pub pools: Vec<Pool>,
    /// The system's trusted roots, read once per load.
    pub system_roots: Arc<Vec<CertificateDer<'static>>>,
}

/// `[server]`: the HTTP listener.
#[derive(Clone, Debug)]
pub struct Server {
    /// The listen address.
    pub listen: SocketAddr,
    /// Additional host names that browsers may use, in lower case.
    pub hostnames: Vec<String>,
    /// Certificate and key. `None` means plain HTTP.
    pub tls: Option<ServerTls>,
    /// The bcrypt hash of each user's password. Empty means no authentication.
    pub users: BTreeMap<String, Secret>,
    /// Whether clients may omit authentication on an address other than loopback.
    pub allow_unauthenticated: bool,
    /// Whether `/probe` may run chat and stream probes, which consume tokens.
    pub probe_generation: bool,
}

/// `tls` in `[server]`.
#[derive(Clone)]
pub struct ServerTls {
    /// The paths of the files.
    pub files: CertificateFiles,
    /// The stamp of the files before they were read.
    pub stamp: Stamp,
    /// The loaded certificate and key. `None` if keys are not read, or if an unreadable key is only
    /// a warning.
    pub certified: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for ServerTls {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.files).finish()
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level or a tracing filter, known to be valid.
    pub filter: String,
    /// The format of log lines.
    pub format: LogFormat,
    /// Whether to log to standard error.
    pub stderr: bool,
    /// Directory of `prober.log.*` and `results.jsonl.*`. `None` disables the files.
    pub directory: Option<PathBuf>,
    /// Interval of the rotation.
    pub rotation: Rotation,
    /// Number of retained files of each kind, 2 or more.
    pub max_files: usize,
    /// Maximum size of a file in bytes; further lines of the period are dropped and counted.
    pub max_file_size: u64,
    /// Whether files of earlier periods are compressed by gzip.
    pub compress: bool,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Rotation interval of log files, in UTC.
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
    /// Maximum number of runs in flight.
    pub max_concurrent: usize,
    /// Maximum number of runs in flight per provider.
    pub max_concurrent_per_provider: usize,
    /// Maximum wait that a provider may request.
    pub max_backoff: Duration,
}

/// `[shard]`: the part of the file's probes that belongs to this daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The index, from 0 to `total` - 1.
    pub index: u32,
    /// The number of daemons that share the file, 1 or more.
    pub total: u32,
}

/// `[budget]`: the daily limits of generation checks, per UTC day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Limit in US dollars, above 0. `None` means no limit.
    pub daily_cost_usd: Option<f64>,
    /// Limit of input and output tokens together, 1 or more. `None` means no limit.
    pub daily_tokens: Option<u64>,
}
