//! Looks at the files that others change while the daemon runs, beside the main loop: their file system can hang.

use std::{future::pending, mem, sync::Arc};

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{info, warn};

use super::certificate::{Certificate, Looked};
use crate::probe::Resolver;

/// One look at a time at the resolver's files and the listener's certificate.
pub(super) struct Looks {
    resolver: Arc<Resolver>,
    /// `None`: none is on its way.
    looking: Option<Looking>,
}

struct Looking {
    task: JoinHandle<Option<Looked>>,
    /// That it takes long was said.
    told: bool,
}

impl Looks {
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self { resolver, looking: None }
    }

    /// Begins a look, unless the one before still waits for a file.
    pub(super) fn begin(&mut self, certificate: &Certificate) {
        if let Some(looking) = &mut self.looking {
            if !mem::replace(&mut looking.told, true) {
                warn!(
                    "Resolver's files and the listener's certificate cannot be looked at, a file system hangs"
                );
            }
            return;
        }
        let (resolver, certificate) = (Arc::clone(&self.resolver), certificate.look());
        let task = spawn_blocking(move || {
            resolver.refresh();
            certificate.map(|look| look())
        });
        self.looking = Some(Looking { task, told: false });
    }

    /// Waits for the end of a look and says what it has found of the certificate, if there is one; never ends where no
    /// look is on its way.
    pub(super) async fn end(&mut self) -> Option<Looked> {
        let Some(looking) = &mut self.looking else { return pending().await };
        // One that panicked has found nothing, which the log says.
        let found = (&mut looking.task).await.unwrap_or_default();
        if looking.told {
            info!("Resolver's files and the listener's certificate are looked at again");
        }
        self.looking = None;
        found
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::mpsc, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::config;

    #[test]
    fn files_that_hang_hold_up_nobody_who_begins_a_look() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            // As a file system that hangs would, this keeps the look from its end.
            let (release, hung) = mpsc::channel::<()>();
            let hanging = spawn_blocking(move || hung.recv().is_err());
            let mut looks = Looks::new(Arc::new(Resolver::new()));
            let certificate = Certificate::of(&config::Server {
                listen: ([127, 0, 0, 1], 0).into(),
                hostnames: Vec::new(),
                tls: None,
                users: BTreeMap::new(),
                probe_generation: false,
            });
            for told in [false, true, true] {
                looks.begin(&certificate);
                assert_eq!(looks.looking.as_ref().map(|looking| looking.told), Some(told));
            }
            assert!(timeout(Duration::from_millis(1), looks.end()).await.is_err(), "it has an end");
            drop(release);
            assert!(hanging.await.unwrap());
            assert!(looks.end().await.is_none());
            // The next one is another.
            looks.begin(&certificate);
            assert!(looks.looking.is_some_and(|looking| !looking.told));
        });
    }
}
