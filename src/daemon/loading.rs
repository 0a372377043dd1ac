//! Loads a configuration outside of the main loop, because a file system may block.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::{
    config::{self, Config, Environment, Keys, Loaded, Problem, Problems},
    logging::{Logging, LoggingChange},
    probe::{NetworkStack, Target},
    records::{Records, RecordsChange},
};

/// Timeout of a load. Shorter than that of an HTTP reload request, so that its client gets the
/// reason.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);

const LOAD_REMEDY: &str =
    "check the file systems of the configuration, its keys, its certificates and its logs";

/// The source of the configuration.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, which every reload reads again.
    File {
        /// Its path.
        path: PathBuf,
        /// Level of the log, instead of that of the file.
        log_level: Option<String>,
    },
    /// A text with its own environment and trusted roots, for `demo`.
    BuiltIn(String, fn(&str) -> Option<OsString>, Vec<CertificateDer<'static>>),
}

impl Source {
    /// Loads the configuration with its keys and certificates.
    pub(super) fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File { path, log_level } => {
                let mut loaded = config::load(path, Keys::Required, &Environment::from_process())?;
                if let Some(level) = log_level {
                    level.clone_into(&mut loaded.config.log.filter);
                }
                Ok(loaded)
            }
            Self::BuiltIn(text, variable, roots) => {
                let environment = Environment { variable, system_roots: &|| roots.clone() };
                config::parse(text, "built-in configuration", Keys::Required, &environment)
            }
        }
    }
}

/// A loaded configuration with everything that could fail already done.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) warnings: Vec<Problem>,
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) logging: LoggingChange,
    pub(super) records: RecordsChange,
}

/// The source of a load, and the parts that it prepares a change for.
#[derive(Clone)]
struct LoadContext {
    source: Source,
    logging: Arc<Logging>,
    records: Arc<Records>,
    network: Arc<NetworkStack>,
}

impl LoadContext {
    fn prepare(&self) -> Result<Prepared, String> {
        let Loaded { config, warnings, .. } = self.source.load().map_err(|problems| problems.to_string())?;
        let targets = Target::prepare(&config, &self.network).map_err(|error| error.to_string())?;
        let logging = self.logging.prepare_change(&config.log).map_err(|error| error.to_string())?;
        let records = self.records.prepare(&config.log).map_err(|error| error.to_string())?;
        Ok(Prepared { config, warnings, targets, logging, records })
    }
}

/// Loads configurations for reloads, one at a time.
pub(super) struct Loader {
    context: LoadContext,
    /// Held by a running load, even if it is blocked and was given up.
    turn: Arc<Semaphore>,
}

impl Loader {
    pub(super) fn new(
        source: Source,
        logging: Arc<Logging>,
        records: Arc<Records>,
        network: Arc<NetworkStack>,
    ) -> Self {
        Self { context: LoadContext { source, logging, records, network }, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Starts a load on a thread. The future returns the configuration or its problems, one per
    /// line, within [`LOAD_TIMEOUT`]. A later result is discarded.
    pub(super) fn begin(&self) -> impl Future<Output = Result<Prepared, String>> + use<> {
        let turn = Arc::clone(&self.turn).try_acquire_owned();
        let context = self.context.clone();
        async move {
            let Ok(turn) = turn else {
                return Err(format!("an earlier reload is still reading; {LOAD_REMEDY}"));
            };
            let load = spawn_blocking(move || {
                let _turn = turn;
                context.prepare()
            });
            match timeout(LOAD_TIMEOUT, load).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => {
                    Err("loading panicked; please report it with the lines \"Panicked\" of the log"
                        .to_owned())
                }
                Err(_) => Err(format!("reading took longer than {LOAD_TIMEOUT:?}; {LOAD_REMEDY}")),
            }
        }
    }
}
