//! Watches the listener's certificate, which others renew, beside the main loop: its file system can block.

use std::{future::pending, mem};

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{info, warn};

use super::certificate::{Certificate, Looked};

/// How many looks at certificates of earlier configurations may hang at a time, each on a thread of its own.
const MOST_ABANDONED: usize = 4;

const FILES: &str = "the listener's certificate and key";

/// One check of the listener's certificate at a time.
#[derive(Default)]
pub(super) struct Looks {
    /// `None`: none is running.
    looking: Option<Looking>,
    /// Those that hung when the configuration changed, which may have the certificate elsewhere now.
    abandoned: Vec<JoinHandle<Option<Looked>>>,
}

struct Looking {
    task: JoinHandle<Option<Looked>>,
    /// Whether its duration was reported.
    told: bool,
}

impl Looks {
    /// Begins a check, unless the one before is still blocked or there is no certificate.
    pub(super) fn begin(&mut self, certificate: &Certificate) {
        if let Some(look) = certificate.look() {
            self.begin_with(|| Some(look()));
        }
    }

    fn begin_with(&mut self, look: impl FnOnce() -> Option<Looked> + Send + 'static) {
        let Some(looking) = &mut self.looking else {
            self.looking = Some(Looking { task: spawn_blocking(look), told: false });
            return;
        };
        if !mem::replace(&mut looking.told, true) {
            warn!(files = FILES, "File check blocked; file system not responding");
        }
    }

    /// Abandons a blocked check of the previous configuration's certificate, unless too many are blocked already.
    pub(super) fn follow_reload(&mut self) {
        self.abandoned.retain(|task| !task.is_finished());
        if self.abandoned.len() < MOST_ABANDONED
            && let Some(blocked) = self.looking.take_if(|looking| looking.told)
        {
            self.abandoned.push(blocked.task);
        }
    }

    /// Waits for the end of the check and returns what it found; never ends if none is running.
    pub(super) async fn end(&mut self) -> Option<Looked> {
        let Some(looking) = &mut self.looking else { return pending().await };
        // One that panicked has found nothing, which the log reports.
        let found = (&mut looking.task).await.unwrap_or_default();
        if looking.told {
            info!(files = FILES, "File check succeeded again");
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

    fn certificate() -> Certificate {
        Certificate::of(&config::Server {
            listen: ([127, 0, 0, 1], 0).into(),
            hostnames: Vec::new(),
            tls: None,
            users: BTreeMap::new(),
            allow_unauthenticated: false,
            probe_generation: false,
        })
    }

    #[tokio::test]
    async fn blocked_check_is_the_only_one() {
        let (mut looks, certificate) = (Looks::default(), certificate());
        let (release, look) = hanging();
        looks.begin_with(look);
        for told in [false, true, true] {
            looks.begin(&certificate);
            assert_eq!(looks.looking.as_ref().map(|looking| looking.told), Some(told));
            // As it would where the configuration had a certificate.
            looks.begin_with(|| unreachable!("the one before is blocked"));
        }
        drop(release);
        assert!(looks.end().await.is_none());
        assert!(looks.looking.is_none());
    }

    #[tokio::test]
    async fn reload_abandons_few_blocked_checks() {
        let mut looks = Looks::default();
        let mut releases = Vec::new();
        for reload in 0..=MOST_ABANDONED {
            let (release, look) = hanging();
            releases.push(release);
            looks.begin_with(look);
            looks.follow_reload();
            assert!(looks.looking.is_some(), "it is not known to hang");
            looks.begin_with(|| unreachable!("the one before is blocked"));
            looks.follow_reload();
            assert_eq!(looks.looking.is_some(), reload == MOST_ABANDONED);
        }
        releases.clear();
        for task in &mut looks.abandoned {
            assert!(task.await.unwrap().is_none());
        }
        looks.follow_reload();
        assert!(looks.looking.is_none() && looks.abandoned.len() == 1);
    }
}
