//! The listener's certificate as it is renewed: its files are looked at now and then, beside the main loop.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tracing::{error, info};

use crate::{
    config::{self, CertificateFiles, Stamp},
    server::State,
};

/// Where the certificate is, and how it looked.
pub(super) struct Certificate(Option<Watched>);

#[derive(Clone)]
struct Watched {
    /// Of this configuration: a reload has others, even of the same names.
    files: Arc<CertificateFiles>,
    /// When it was last read, well or ill.
    read: Stamp,
    /// The last time that it was looked at.
    seen: Stamp,
}

/// What a look has found.
pub(super) struct Looked {
    watched: Watched,
    /// Another certificate, or what is wrong with it; `None`: it is the one before, or has changed just now.
    renewed: Option<Result<Arc<CertifiedKey>, String>>,
}

impl Certificate {
    /// The one that this configuration has read.
    pub(super) fn of(server: &config::Server) -> Self {
        let watched = |tls: &config::ServerTls| Watched {
            files: Arc::new(tls.files.clone()),
            read: tls.stamp.clone(),
            seen: tls.stamp.clone(),
        };
        Self(server.tls.as_ref().map(watched))
    }

    /// A look at the files, for a thread that may wait for them; `None`: there is no certificate.
    pub(super) fn look(&self) -> Option<impl FnOnce() -> Looked + Send + use<>> {
        self.0.clone().map(|watched| || watched.look())
    }

    /// Takes the certificate over that a look has found, if it has. A bad one is said once, and the one before stays.
    pub(super) fn take_over(&mut self, looked: Option<Looked>, state: &State) {
        let Some(Looked { watched, renewed }) = looked else { return };
        let Some(known) = self.0.as_mut().filter(|known| Arc::ptr_eq(&known.files, &watched.files)) else {
            // A reload has read what there is since.
            return;
        };
        *known = watched;
        match renewed {
            Some(Ok(certified)) => {
                state.certify(certified);
                info!(file = %known.files.certificate.display(), "Listener has a new certificate");
            }
            Some(Err(problem)) => {
                error!(problem, "Listener's new certificate cannot be used, the one before stays");
            }
            None => {}
        }
    }
}

impl Watched {
    /// Reads the files if they are others and have been so since the last look: whoever renews a certificate replaces one
    /// file after the other.
    fn look(mut self) -> Looked {
        let stamp = self.files.stamp();
        let settled = stamp == self.seen;
        self.seen = stamp.clone();
        let renewed = (settled && stamp != self.read).then(|| self.files.read());
        if renewed.is_some() {
            self.read = stamp;
        }
        Looked { watched: self, renewed }
    }
}
