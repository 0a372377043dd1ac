//! The connection that a warm probe keeps from one run to the next.
//!
//! Between the runs a task drives it: the end of the connection is seen when it comes, and HTTP/2
//! answers and sends pings. A reload begins with new targets, so that no connection outlives its
//! key.

use hyper::{
    HeaderMap,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use tokio::{select, sync::oneshot, task::JoinHandle};

use super::http::Http;
use crate::sync::Mutex;

/// The idle connection of a probe, if its last run left one.
#[derive(Default)]
pub(super) struct KeepAlive(Mutex<Option<Idle>>);

struct Idle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Option<Http>>,
}

impl KeepAlive {
    /// Takes the connection out. The flag is whether the last run left one; the connection is
    /// `None` if it has ended since.
    pub(super) async fn take(&self) -> (bool, Option<Http>) {
        let idle = self.0.lock().take();
        let Some(Idle { stop, task }) = idle else { return (false, None) };
        // Its task may have ended.
        let _ = stop.send(());
        (true, task.await.ok().flatten())
    }

    /// Keeps a connection whose last exchange is complete.
    pub(super) fn put(&self, mut http: Http) {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            select! {
                // The end of the connection first: it may have come just now.
                biased;
                () = http.idle() => return None,
                _ = &mut stopped => {}
            }
            Some(http).filter(Http::is_ready)
        });
        *self.0.lock() = Some(Idle { stop, task });
    }
}

/// Returns whether a connection is good for another request after a complete response (RFC 9112,
/// 9.3; an HTTP/2 connection outlives its requests).
pub(super) fn is_reusable(version: &str, headers: &HeaderMap) -> bool {
    let closes = || {
        headers.get_all(CONNECTION).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
        })
    };
    // A body without a length ends with the connection.
    let is_delimited = || headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    version == "2" || version == "1.1" && is_delimited() && !closes()
}
