//! Looks at the files that others change while the daemon runs, beside the main loop: their file system can hang.

use std::{future::pending, mem, sync::Arc};

use tokio::{
    select,
    task::{JoinHandle, spawn_blocking},
};
use tracing::{info, warn};

use super::certificate::{Certificate, Looked};
use crate::probe::Resolver;

/// How many looks at certificates of earlier configurations may hang at a time, each on a thread of its own.
const MOST_ABANDONED: usize = 4;

/// One look at a time at the resolver's files, and one at the listener's certificate: neither holds up the other.
pub(super) struct Looks {
    resolver: Arc<Resolver>,
    resolver_files: Look<()>,
    certificate: Look<Option<Looked>>,
    /// Those that hung when the configuration changed, which may have the certificate elsewhere now.
    abandoned: Vec<JoinHandle<Option<Looked>>>,
}

/// Looks at the same files, one at a time.
struct Look<T> {
    files: &'static str,
    /// `None`: none is on its way.
    looking: Option<Looking<T>>,
}

struct Looking<T> {
    task: JoinHandle<T>,
    /// That it takes long was said.
    told: bool,
}

impl Looks {
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self {
            resolver,
            resolver_files: Look { files: "the resolver's", looking: None },
            certificate: Look { files: "the listener's certificate and key", looking: None },
            abandoned: Vec::new(),
        }
    }

    /// Begins a look at whatever is not waited for since the one before.
    pub(super) fn begin(&mut self, certificate: &Certificate) {
        let resolver = Arc::clone(&self.resolver);
        self.resolver_files.begin(move || resolver.refresh());
        if let Some(look) = certificate.look() {
            self.certificate.begin(|| Some(look()));
        }
    }

    /// Leaves a look alone that hangs over the certificate of the configuration before, unless too many do already.
    pub(super) fn follow_reload(&mut self) {
        self.abandoned.retain(|task| !task.is_finished());
        if self.abandoned.len() < MOST_ABANDONED
            && let Some(hanging) = self.certificate.looking.take_if(|looking| looking.told)
        {
            self.abandoned.push(hanging.task);
        }
    }

    /// Waits for the end of a look and says what it has found of the certificate, if it was one at that; never ends where
    /// no look is on its way.
    pub(super) async fn end(&mut self) -> Option<Looked> {
        select! {
            () = self.resolver_files.end() => None,
            found = self.certificate.end() => found,
        }
    }
}

impl<T: Default + Send + 'static> Look<T> {
    /// Begins another one, unless the one before still waits for a file.
    fn begin(&mut self, look: impl FnOnce() -> T + Send + 'static) {
        let Some(looking) = &mut self.looking else {
            self.looking = Some(Looking { task: spawn_blocking(look), told: false });
            return;
        };
        if !mem::replace(&mut looking.told, true) {
            warn!(files = self.files, "Files cannot be looked at, their file system hangs");
        }
    }

    /// What it has found.
    async fn end(&mut self) -> T {
        let Some(looking) = &mut self.looking else { return pending().await };
        // One that panicked has found nothing, which the log says.
        let found = (&mut looking.task).await.unwrap_or_default();
        if looking.told {
            info!(files = self.files, "Files are looked at again");
        }
        self.looking = None;
        found
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::mpsc};

    use super::*;
    use crate::config;

    /// What hangs as a file system would, until it is dropped.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce() -> Option<Looked> + Send) {
        let (release, hung) = mpsc::channel::<()>();
        let look = move || {
            // Its end is an error.
            hung.recv().err().and(None)
        };
        (release, look)
    }

    fn looks() -> (Looks, Certificate) {
        let certificate = Certificate::of(&config::Server {
            listen: ([127, 0, 0, 1], 0).into(),
            hostnames: Vec::new(),
            tls: None,
            users: BTreeMap::new(),
            probe_generation: false,
        });
        (Looks::new(Arc::new(Resolver::new())), certificate)
    }

    #[tokio::test]
    async fn a_file_that_hangs_holds_up_nothing_but_looks_at_itself() {
        let (mut looks, certificate) = looks();
        let (release, look) = hanging();
        looks.certificate.begin(look);
        // The resolver's files are looked at each time.
        for told in [false, true, true] {
            looks.begin(&certificate);
            assert!(looks.end().await.is_none());
            assert!(looks.resolver_files.looking.is_none());
            assert_eq!(looks.certificate.looking.as_ref().map(|looking| looking.told), Some(told));
            // As it would where the configuration had a certificate.
            looks.certificate.begin(|| unreachable!("the one before hangs"));
        }
        drop(release);
        assert!(looks.end().await.is_none());
        assert!(looks.certificate.looking.is_none());
    }

    #[tokio::test]
    async fn a_reload_leaves_few_looks_alone_that_hang() {
        let (mut looks, _) = looks();
        let mut releases = Vec::new();
        for reload in 0..=MOST_ABANDONED {
            let (release, look) = hanging();
            releases.push(release);
            looks.certificate.begin(look);
            looks.follow_reload();
            assert!(looks.certificate.looking.is_some(), "it is not known to hang");
            looks.certificate.begin(|| unreachable!("the one before hangs"));
            looks.follow_reload();
            assert_eq!(looks.certificate.looking.is_some(), reload == MOST_ABANDONED);
        }
        releases.clear();
        for task in &mut looks.abandoned {
            assert!(task.await.unwrap().is_none());
        }
        looks.follow_reload();
        assert!(looks.certificate.looking.is_none() && looks.abandoned.len() == 1);
    }
}
