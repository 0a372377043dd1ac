//! Renewal of the listener's certificate: its files are checked periodically, outside of the main
//! loop.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tracing::{error, info};

use crate::{
    config::{self, CertificateFiles, Stamp},
    server::ServerState,
};

/// The files of the listener's certificate, or `None` without TLS.
pub(super) struct Certificate(Option<WatchedFiles>);

#[derive(Clone)]
struct WatchedFiles {
    /// Compared by pointer: a reload creates others, even with the same names.
    files: Arc<CertificateFiles>,
    /// The stamp when the files were last read, successfully or not.
    read: Stamp,
    /// The stamp of the last check.
    seen: Stamp,
}

/// The result of a check.
pub(super) struct CheckResult {
    watched: WatchedFiles,
    /// A new certificate, or why it cannot be used. `None` if it is unchanged or has changed since
    /// the previous check.
    renewed: Option<Result<Arc<CertifiedKey>, String>>,
}

impl Certificate {
    /// Returns the certificate that this configuration has loaded.
    pub(super) fn new(server: &config::Server) -> Self {
        let watched = |tls: &config::ServerTls| WatchedFiles {
            files: Arc::new(tls.files.clone()),
            read: tls.stamp.clone(),
            seen: tls.stamp.clone(),
        };
        Self(server.tls.as_ref().map(watched))
    }

    /// Returns a check of the files, for a thread that may block. Returns `None` without TLS.
    pub(super) fn check(&self) -> Option<impl FnOnce() -> CheckResult + Send + use<>> {
        self.0.clone().map(|watched| || watched.check())
    }

    /// Applies the result of a check. An unusable certificate is logged once, and the previous one
    /// remains in use.
    pub(super) fn apply_check(&mut self, result: Option<CheckResult>, state: &ServerState) {
        let Some(CheckResult { watched, renewed }) = result else { return };
        let Some(known) = self.0.as_mut().filter(|known| Arc::ptr_eq(&known.files, &watched.files)) else {
            // A reload has loaded other files since.
            return;
        };
        *known = watched;
        match renewed {
            Some(Ok(certified)) => {
                state.set_certificate(certified);
                info!(file = %known.files.certificate.display(), "Listener certificate renewed");
            }
            Some(Err(problem)) => {
                error!(problem, "Renewed listener certificate rejected; the previous one remains in use");
            }
            None => {}
        }
    }
}

impl WatchedFiles {
    /// Reads the files if they differ from the loaded ones and have not changed since the previous
    /// check, because a renewal replaces one file after the other.
    fn check(mut self) -> CheckResult {
        let stamp = self.files.stamp();
        let settled = stamp == self.seen;
        self.seen = stamp.clone();
        let renewed = (settled && stamp != self.read).then(|| self.files.read());
        if renewed.is_some() {
            self.read = stamp;
        }
        CheckResult { watched: self, renewed }
    }
}
