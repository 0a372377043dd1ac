//! The listener's certificate as it is renewed: the files are looked at now and then, on the thread that may wait for them.

use tracing::{error, info};

use crate::{
    config::{self, CertificateFiles, Stamp},
    server::State,
};

/// Where the certificate is, and how it looked.
pub(super) struct Certificate(Option<Watched>);

struct Watched {
    files: CertificateFiles,
    /// When it was last read, well or ill.
    read: Stamp,
    /// The last time that it was looked at.
    seen: Stamp,
}

impl Certificate {
    /// The one that this configuration has read.
    pub(super) fn of(server: &config::Server) -> Self {
        let watched = |tls: &config::ServerTls| Watched {
            files: tls.files.clone(),
            read: tls.stamp.clone(),
            seen: tls.stamp.clone(),
        };
        Self(server.tls.as_ref().map(watched))
    }

    /// Takes the certificate over if it is another one and has been so since the last look: whoever renews it replaces
    /// one file after the other. A bad one is said once, and the one before stays.
    pub(super) fn look(&mut self, state: &State) {
        let Some(watched) = &mut self.0 else { return };
        let stamp = watched.files.stamp();
        let settled = stamp == watched.seen;
        watched.seen = stamp.clone();
        if !settled || stamp == watched.read {
            return;
        }
        watched.read = stamp;
        match watched.files.read() {
            Ok(certified) => {
                state.certify(certified);
                info!(file = %watched.files.certificate.display(), "Listener has a new certificate");
            }
            Err(problem) => {
                error!(problem, "Listener's new certificate cannot be used, the one before stays");
            }
        }
    }
}
