//! Reads a configuration and makes ready whatever it asks for, beside the main loop: a file system may hang for ever.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::{
    config::{self, Config, Keys, Loaded, Problem, Problems, Surroundings},
    logging::{Logging, LoggingChange},
    probe::{NetworkStack, Target},
    records::{Records, RecordsChange},
};

/// How long a reload may read; below what a request for one waits for, so that it hears why.
const PATIENCE: Duration = Duration::from_secs(20);

const LOOK: &str =
    "look for a file system that hangs below the configuration, its keys, its certificates or its logs";

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read again at every reload.
    File(PathBuf),
    /// A text with an environment and trusted roots of its own, for `demo`.
    BuiltIn(String, fn(&str) -> Option<OsString>, Vec<CertificateDer<'static>>),
}

impl Source {
    /// Reads it, with the keys and certificates that it names.
    pub(super) fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File(path) => config::load(path, Keys::Required, &Surroundings::of_process()),
            Self::BuiltIn(text, variable, roots) => {
                let surroundings = Surroundings { variable, system_roots: &|| roots.clone() };
                config::parse(text, "built-in configuration", Keys::Required, &surroundings)
            }
        }
    }
}

/// A configuration of which nothing can fail any more.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) warnings: Vec<Problem>,
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) logging: LoggingChange,
    pub(super) records: RecordsChange,
}

/// What a load needs: where to read, and what to make ready for.
#[derive(Clone)]
struct Needs {
    source: Source,
    logging: Arc<Logging>,
    records: Arc<Records>,
    network: Arc<NetworkStack>,
}

impl Needs {
    fn prepare(&self) -> Result<Prepared, String> {
        let Loaded { config, warnings, .. } = self.source.load().map_err(|problems| problems.to_string())?;
        let targets = Target::prepare(&config, &self.network).map_err(|error| error.to_string())?;
        let logging = self.logging.prepare_change(&config.log).map_err(|error| error.to_string())?;
        let records = self.records.prepare(&config.log).map_err(|error| error.to_string())?;
        Ok(Prepared { config, warnings, targets, logging, records })
    }
}

/// Loads for the reloads, one at a time.
pub(super) struct Loader {
    needs: Needs,
    /// Held by a load, also by one that hangs and that nobody waits for any more.
    turn: Arc<Semaphore>,
}

impl Loader {
    pub(super) fn new(
        source: Source,
        logging: Arc<Logging>,
        records: Arc<Records>,
        network: Arc<NetworkStack>,
    ) -> Self {
        Self { needs: Needs { source, logging, records, network }, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Begins a load on a thread of its own. The future is its result, or the problems, one a line, and takes no longer
    /// than the patience: what comes later is dropped, without effect.
    pub(super) fn begin(&self) -> impl Future<Output = Result<Prepared, String>> + use<> {
        let turn = Arc::clone(&self.turn).try_acquire_owned();
        let needs = self.needs.clone();
        async move {
            let Ok(turn) = turn else { return Err(format!("an earlier reload still reads; {LOOK}")) };
            let load = spawn_blocking(move || {
                let _turn = turn;
                needs.prepare()
            });
            match timeout(PATIENCE, load).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("loading panicked, the log says where; please report it".to_owned()),
                Err(_) => Err(format!("reading took longer than {PATIENCE:?}; {LOOK}")),
            }
        }
    }
}
