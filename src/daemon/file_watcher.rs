//! Watches the files of the listener's certificate outside of the main loop, because their file
//! system can block.

use std::{future::pending, mem};

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{info, warn};

use super::listener_certificate::{Certificate, CheckResult};

/// Maximum number of blocked checks of earlier configurations, each of which occupies a thread.
const MAX_ABANDONED_CHECKS: usize = 4;

const FILES: &str = "the listener's certificate and key";

/// One check of the listener's certificate at a time.
#[derive(Default)]
pub(super) struct FileWatcher {
    /// The running check, if any.
    running: Option<Running>,
    /// Blocked checks of earlier configurations, whose certificate may be in another place.
    abandoned: Vec<JoinHandle<Option<CheckResult>>>,
}

struct Running {
    task: JoinHandle<Option<CheckResult>>,
    /// Whether the log has reported that the check is blocked.
    reported: bool,
}

impl FileWatcher {
    /// Starts a check, unless the previous one is still blocked or there is no certificate.
    pub(super) fn begin(&mut self, certificate: &Certificate) {
        if let Some(check) = certificate.check() {
            self.begin_with(|| Some(check()));
        }
    }

    fn begin_with(&mut self, check: impl FnOnce() -> Option<CheckResult> + Send + 'static) {
        let Some(running) = &mut self.running else {
            self.running = Some(Running { task: spawn_blocking(check), reported: false });
            return;
        };
        if !mem::replace(&mut running.reported, true) {
            warn!(files = FILES, "File check blocked; file system not responding");
        }
    }

    /// Abandons a blocked check of the previous configuration's certificate, unless too many are
    /// blocked already.
    pub(super) fn follow_reload(&mut self) {
        self.abandoned.retain(|task| !task.is_finished());
        if self.abandoned.len() < MAX_ABANDONED_CHECKS
            && let Some(blocked) = self.running.take_if(|running| running.reported)
        {
            self.abandoned.push(blocked.task);
        }
    }

    /// Waits for the end of the check and returns its result. Never returns if none is running.
    pub(super) async fn end(&mut self) -> Option<CheckResult> {
        let Some(running) = &mut self.running else { return pending().await };
        // A check that panicked has no result; the panic is logged.
        let found = (&mut running.task).await.unwrap_or_default();
        if running.reported {
            info!(files = FILES, "File check succeeded again");
        }
        self.running = None;
        found
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::mpsc};

    use super::*;
    use crate::config;

    /// Returns a check that blocks until the sender is dropped.
    fn blocked_check() -> (mpsc::Sender<()>, impl FnOnce() -> Option<CheckResult> + Send) {
        let (release, blocked) = mpsc::channel::<()>();
        let check = move || blocked.recv().err().and(None);
        (release, check)
    }

    fn certificate() -> Certificate {
        Certificate::new(&config::Server {
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
        let (mut watcher, certificate) = (FileWatcher::default(), certificate());
        let (release, check) = blocked_check();
        watcher.begin_with(check);
        for reported in [false, true, true] {
            watcher.begin(&certificate);
            assert_eq!(watcher.running.as_ref().map(|running| running.reported), Some(reported));
            // As in a configuration with a certificate.
            watcher.begin_with(|| unreachable!("the previous check is blocked"));
        }
        drop(release);
        assert!(watcher.end().await.is_none());
        assert!(watcher.running.is_none());
    }

    #[tokio::test]
    async fn reload_abandons_few_blocked_checks() {
        let mut watcher = FileWatcher::default();
        let mut releases = Vec::new();
        for reload in 0..=MAX_ABANDONED_CHECKS {
            let (release, check) = blocked_check();
            releases.push(release);
            watcher.begin_with(check);
            watcher.follow_reload();
            assert!(watcher.running.is_some(), "not yet known to be blocked");
            watcher.begin_with(|| unreachable!("the previous check is blocked"));
            watcher.follow_reload();
            assert_eq!(watcher.running.is_some(), reload == MAX_ABANDONED_CHECKS);
        }
        releases.clear();
        for task in &mut watcher.abandoned {
            assert!(task.await.unwrap().is_none());
        }
        watcher.follow_reload();
        assert!(watcher.running.is_none() && watcher.abandoned.len() == 1);
    }
}
