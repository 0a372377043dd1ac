//! Records requests and the times of all writes, as a reference for the prober's measurements.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{api::SimulatedService, exchange::Request};
use crate::sync::Mutex;

/// Maximum number of recorded requests; the oldest are dropped.
const MAX_RECORDS: usize = 10_000;
/// Maximum number of recorded writes per request; later ones are not recorded.
const MAX_WRITES: usize = 4096;
/// Maximum length of a recorded path or query in bytes.
const MAX_TEXT: usize = 256;
/// Headers that carry keys, including Azure's.
const KEY_HEADERS: [&str; 4] = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];

/// A recorded request, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Number of the connection, counted from 1.
    pub connection: u64,
    /// Method.
    pub method: String,
    /// First 256 bytes of the path, without the query.
    pub path: String,
    /// First 256 bytes of the query, without a parameter `key`. `None` if there is no query.
    pub query: Option<String>,
    /// Service addressed by the path. `None` if there is none.
    pub provider: Option<SimulatedService>,
    /// Model named in path or body.
    pub model: Option<String>,
    /// Header in which a key was sent, in lower case. `None` if there was no key. The key itself is
    /// not recorded.
    pub key_header: Option<&'static str>,
    /// `1.0`, `1.1` or `2`.
    pub http_version: &'static str,
    /// Fault that was applied (or `respond` or `raw`). `None` if there was none.
    pub fault: Option<&'static str>,
    /// Status of the answer. `None` if there was no answer.
    pub status: Option<u16>,
    /// Time at which the connection was accepted.
    pub accepted: Instant,
    /// End of the TLS handshake. `None` without TLS.
    pub tls_done: Option<Instant>,
    /// Time at which the head of the request was complete.
    pub head_received: Instant,
    /// Time at which the request was complete, from which scripted pauses are measured. `None` if
    /// it never was.
    pub received: Option<Instant>,
    /// Writes to the socket since then, at most 4096. With TLS they count encrypted bytes. A write
    /// on an HTTP/2 connection belongs to every incomplete request.
    pub writes: Vec<Write>,
    /// Time just before the write that completed the first visible content of a stream (neither
    /// role nor reasoning); equal to `at` of one of the `writes` if it was recorded. On HTTP/2 it
    /// is the first write after the content was passed to the connection. `None` if there was no
    /// visible content.
    pub first_token: Option<Instant>,
    /// Time at which this side closed the connection. `None` if it is open.
    pub closed: Option<Instant>,
}

/// A write to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Time just before the call, so that no client can have received its bytes earlier.
    pub at: Instant,
    /// Number of bytes accepted by the socket.
    pub bytes: usize,
}

/// The last [`MAX_RECORDS`] requests of a simulator.
#[derive(Default)]
pub(super) struct Recorder {
    entries: Mutex<VecDeque<Arc<Entry>>>,
    connections: AtomicU64,
}

impl Recorder {
    /// Starts the record of a connection.
    pub(super) fn connection(&self) -> Arc<Connection> {
        Arc::new(Connection {
            id: self.connections.fetch_add(1, Ordering::Relaxed) + 1,
            accepted: Instant::now(),
            tls_done: OnceLock::new(),
            closed: OnceLock::new(),
            reset: AtomicBool::new(false),
            active: Mutex::default(),
        })
    }

    /// Returns the number of accepted connections.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Starts the record of a request. Later writes of the connection are recorded in it.
    pub(super) fn begin(
        &self,
        connection: &Arc<Connection>,
        received: Instant,
        version: &'static str,
    ) -> Arc<Entry> {
        let recorded = Recorded {
            connection: connection.id,
            method: String::new(),
            path: String::new(),
            query: None,
            provider: None,
            model: None,
            key_header: None,
            http_version: version,
            fault: None,
            status: None,
            accepted: connection.accepted,
            tls_done: connection.tls_done.get().copied(),
            head_received: received,
            received: None,
            writes: Vec::new(),
            first_token: None,
            closed: None,
        };
        let entry = Arc::new(Entry {
            connection: Arc::clone(connection),
            recorded: Mutex::new(recorded),
            complete: AtomicBool::new(false),
            first_token_next: AtomicBool::new(false),
        });
        let mut active = connection.active.lock();
        active.retain(|entry| !entry.is_over());
        active.push(Arc::clone(&entry));
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_RECORDS {
            entries.pop_front();
        }
        entries.push_back(Arc::clone(&entry));
        entry
    }

    pub(super) fn snapshot(&self) -> Vec<Recorded> {
        self.entries
            .lock()
            .iter()
            .map(|entry| Recorded { closed: entry.connection.closed.get().copied(), ..entry.lock().clone() })
            .collect()
    }
}

/// A request that is being or has been answered.
pub(super) struct Entry {
    connection: Arc<Connection>,
    recorded: Mutex<Recorded>,
    complete: AtomicBool,
    first_token_next: AtomicBool,
}

impl Entry {
    /// Marks the request as complete. Returns the time.
    pub(super) fn received(&self) -> Instant {
        *self.lock().received.insert(Instant::now())
    }

    /// Marks the next write as that of the first visible content.
    pub(super) fn first_token_follows(&self) {
        self.first_token_next.store(true, Ordering::Relaxed);
    }

    /// Returns whether only bytes that the socket has not yet accepted are missing.
    fn is_over(&self) -> bool {
        self.complete.load(Ordering::Relaxed) && !self.first_token_next.load(Ordering::Relaxed)
    }

    /// Records the properties of the request.
    pub(super) fn describe(&self, request: &Request) {
        let mut recorded = self.lock();
        recorded.method = shortened(&request.method);
        recorded.path = shortened(request.path());
        recorded.query = request.target.split_once('?').map(|(_, query)| {
            let shown: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("key=")).collect();
            shortened(&shown.join("&"))
        });
        recorded.key_header = KEY_HEADERS.into_iter().find(|name| request.header(name).is_some());
    }

    /// Marks the response as complete. On HTTP/2 its last bytes may still be unsent; their writes
    /// are recorded, too.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock()
    }
}

fn shortened(text: &str) -> String {
    text.chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= MAX_TEXT).then_some(c)
        })
        .collect()
}

/// Record of a connection.
pub(super) struct Connection {
    id: u64,
    accepted: Instant,
    tls_done: OnceLock<Instant>,
    closed: OnceLock<Instant>,
    reset: AtomicBool,
    active: Mutex<Vec<Arc<Entry>>>,
}

impl Connection {
    pub(super) fn tls_done(&self) {
        self.tls_done.get_or_init(Instant::now);
    }

    /// Makes the connection end with a reset.
    pub(super) fn reset_at_end(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    /// Detaches later writes from all requests.
    pub(super) fn flushed(&self) {
        self.active.lock().clear();
    }

    /// Performs and records a write. The records are locked meanwhile, so that every byte that a
    /// client has seen is recorded.
    fn note(&self, write: impl FnOnce() -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let active = self.active.lock();
        let mut records: Vec<_> = active.iter().map(|entry| (entry, entry.lock())).collect();
        let at = Instant::now();
        let result = write();
        if let Poll::Ready(Ok(bytes)) = result {
            for (entry, recorded) in &mut records {
                if entry.first_token_next.swap(false, Ordering::Relaxed) {
                    recorded.first_token = Some(at);
                }
                if recorded.writes.len() < MAX_WRITES {
                    recorded.writes.push(Write { at, bytes });
                }
            }
        }
        result
    }
}

/// A socket that records its writes and its end.
pub(super) struct Metered {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Metered {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if self.connection.reset.load(Ordering::Relaxed) {
            // If the peer was faster, there is no connection left to reset.
            drop(self.stream.set_zero_linger());
        }
        self.connection.closed.get_or_init(Instant::now);
        // Entries and connection refer to each other until here.
        self.connection.active.lock().clear();
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, connection } = &mut *self;
        connection.note(|| Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.closed.get_or_init(Instant::now);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_requests_are_dropped() {
        let recorder = Recorder::default();
        for number in 0..=MAX_RECORDS {
            let entry = recorder.begin(&recorder.connection(), Instant::now(), "1.1");
            entry.lock().path = number.to_string();
        }
        let records = recorder.snapshot();
        assert_eq!((records.len(), records[0].path.as_str()), (MAX_RECORDS, "1"));
    }

    #[test]
    fn writes_belong_to_open_requests_and_are_bounded() {
        let recorder = Recorder::default();
        let connection = recorder.connection();
        let write = || connection.note(|| Poll::Ready(Ok(1)));
        let first = recorder.begin(&connection, Instant::now(), "2");
        assert!(write().is_ready() && connection.note(|| Poll::Pending).is_pending());
        first.complete();
        assert!(write().is_ready(), "the last bytes of a response that is complete");
        let second = recorder.begin(&connection, Instant::now(), "2");
        for _ in 0..=MAX_WRITES {
            assert!(write().is_ready());
        }
        assert_eq!((first.lock().writes.len(), second.lock().writes.len()), (2, MAX_WRITES));
    }

    #[test]
    fn first_token_sent_after_completion_is_recorded() {
        let recorder = Recorder::default();
        let connection = recorder.connection();
        let first = recorder.begin(&connection, Instant::now(), "2");
        first.first_token_follows();
        first.complete();
        let second = recorder.begin(&connection, Instant::now(), "2");
        assert!(connection.note(|| Poll::Pending).is_pending() && first.lock().first_token.is_none());
        assert!(connection.note(|| Poll::Ready(Ok(1))).is_ready());
        let noted = first.lock().clone();
        assert_eq!(noted.first_token, Some(noted.writes[0].at));
        assert_eq!(second.lock().first_token, None);
    }

    #[test]
    fn long_text_is_truncated_between_characters() {
        assert_eq!(shortened(&"é".repeat(200)).len(), MAX_TEXT);
        assert_eq!(shortened(&format!("a{}", "é".repeat(200))).len(), MAX_TEXT - 1);
    }
}
