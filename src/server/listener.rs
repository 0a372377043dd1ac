//! The listener's thread: accepts connections, limits their number and duration, and stops within a
//! deadline.

use std::{
    future::poll_fn,
    io, mem,
    net::{SocketAddr, TcpListener as StdListener},
    pin::pin,
    sync::{Arc, atomic::AtomicU64, mpsc as std_mpsc},
    task::Poll,
    thread,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime,
    sync::{oneshot, watch},
    task::{JoinSet, yield_now},
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    activity::{Activity, Timeouts, TrackedStream},
    routes::{ServerState, Site},
};
use crate::health::{GaveUp, Heartbeat, Supervisor};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
const STUCK_AFTER: Duration = Duration::from_secs(15);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
/// Keep-alive of the blocking thread, practically unlimited.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(365 * 86_400);
/// Maximum size of the head of a request; the response to a larger one is 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) timeouts: Timeouts,
    /// Maximum number of connections. Another one replaces the one whose client has been idle for
    /// longest.
    pub(super) connections: usize,
}

impl Limits {
    const DEFAULT: Self = Self {
        timeouts: Timeouts {
            head: Duration::from_secs(10),
            request: Duration::from_secs(30),
            // Above the usual scrape interval of a minute, so that Prometheus can reuse its
            // connection.
            idle: Duration::from_secs(90),
            // Below the usual scrape timeout of ten seconds, so that the reason reaches Prometheus.
            login: Duration::from_secs(5),
        },
        connections: 128,
    };
}

/// Binds the address, so that errors occur before anything is started.
pub fn bind(listen: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A running listener. Dropping it closes all connections immediately.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: oneshot::Sender<Duration>,
    ended: std_mpsc::Receiver<Result<(), GaveUp>>,
    restarts: Arc<AtomicU64>,
}

impl HttpServer {
    /// Starts the thread of the listener, with the heartbeat `server`.
    pub fn start(listener: StdListener, state: Arc<ServerState>) -> io::Result<Self> {
        Self::start_with(listener, state, Limits::DEFAULT)
    }

    pub(super) fn start_with(
        listener: StdListener,
        state: Arc<ServerState>,
        limits: Limits,
    ) -> io::Result<Self> {
        // The blocking thread checks passwords, one at a time. It is started now and kept, because
        // a thread may not be available later.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_keep_alive(THREAD_KEEP_ALIVE)
            .build()?;
        drop(runtime.spawn_blocking(|| {}));
        let address = listener.local_addr()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, mut stopped) = oneshot::channel();
        let (end, ended) = std_mpsc::channel();
        let beat = state.health().part("server", STUCK_AFTER);
        let site = Arc::new(Site::new(state, address, &limits));
        let mut supervisor = Supervisor::new("server");
        let restarts = supervisor.restarts();
        thread::Builder::new().name("server".to_owned()).spawn(move || {
            let mut closing = None;
            let ended = supervisor.run_restarting(|| {
                let connections = Connections::new(Arc::clone(&site), limits);
                closing = Some(runtime.block_on(serve(&listener, connections, &beat, &mut stopped)));
            });
            drop(listener);
            if let Some((connections, timeout)) = closing {
                runtime.block_on(connections.drain(timeout));
            }
            // There is no receiver if the server was dropped.
            let _ = end.send(ended);
        })?;
        Ok(Self { address, stop, ended, restarts })
    }

    /// Returns the counter of restarts after panics.
    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.restarts)
    }

    /// Returns why the thread has given up, or `None` while it runs.
    pub fn gave_up(&self) -> Option<GaveUp> {
        self.ended.try_recv().ok()?.err()
    }

    /// Returns the bound address, with the actual port if port 0 was configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting connections, waits for requests in flight until the timeout, and returns.
    /// Blocks the calling thread.
    pub fn stop(self, timeout: Duration) {
        // Both fail only if the thread has already ended.
        let _ = self.stop.send(timeout);
        let _ = self.ended.recv_timeout(timeout + PAUSE_AFTER_ERROR);
    }
}

/// Accepts connections until the server is stopped. Returns the open connections and the time for
/// draining them.
async fn serve(
    listener: &TcpListener,
    mut connections: Connections,
    beat: &Heartbeat,
    stopped: &mut oneshot::Receiver<Duration>,
) -> (Connections, Duration) {
    let mut ticks = interval(HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let timeout = loop {
        tokio::select! {
            // The sender is gone if the server was dropped: the timeout is 0.
            timeout = &mut *stopped => break timeout.unwrap_or_default(),
            _ = ticks.tick() => {
                beat.beat();
                connections.site.remove_unused();
            }
            Some(ended) = connections.tasks.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    error!("Connection task panicked");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if mem::take(&mut failing) {
                        info!("Accepting connections again");
                    }
                    connections.add(stream);
                    // The new connection gets a chance to send its request before others can evict
                    // it.
                    yield_now().await;
                }
                Err(error) => {
                    if !mem::replace(&mut failing, true) {
                        warn!(%error, "Failed to accept connection; retrying");
                    }
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            },
        }
    };
    (connections, timeout)
}

/// The open connections.
struct Connections {
    site: Arc<Site>,
    limits: Limits,
    tasks: JoinSet<()>,
    open: Vec<Arc<Activity>>,
    closing: watch::Sender<bool>,
}

impl Connections {
    fn new(site: Arc<Site>, limits: Limits) -> Self {
        let (closing, _) = watch::channel(false);
        Self { site, limits, tasks: JoinSet::new(), open: Vec::new(), closing }
    }

    fn add(&mut self, stream: TcpStream) {
        self.open.retain(|activity| !activity.has_ended());
        if self.open.len() >= self.limits.connections && !self.evict() {
            debug!("Connection closed, because all others are busy");
            return;
        }
        let activity = Activity::new(stream.peer_addr().ok().map(|peer| peer.ip()));
        let connection = connection(
            stream,
            Arc::clone(&activity),
            Arc::clone(&self.site),
            self.limits.timeouts,
            self.closing.subscribe(),
        );
        activity.set_task(self.tasks.spawn(connection));
        self.open.push(activity);
    }

    /// Closes the connection whose client has been idle for longest. Returns whether there was one.
    fn evict(&mut self) -> bool {
        let waiting = self
            .open
            .iter()
            .enumerate()
            .filter_map(|(index, activity)| activity.waiting_since().map(|since| (since, index)));
        let Some((_, longest)) = waiting.min() else { return false };
        self.open.remove(longest).abort();
        true
    }

    async fn drain(mut self, timeout_after: Duration) {
        self.closing.send_replace(true);
        let ended = timeout(timeout_after, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            debug!("Connections closed before their responses were complete");
        }
    }
}

/// Serves one connection until it ends, times out, or the server stops.
async fn connection(
    stream: TcpStream,
    activity: Arc<Activity>,
    site: Arc<Site>,
    timeouts: Timeouts,
    closing: watch::Receiver<bool>,
) {
    let mut late = pin!(sleep_until(activity.deadline(&timeouts)));
    let mut served = pin!(handshake_and_serve(stream, Arc::clone(&activity), site, closing));
    poll_fn(|cx| {
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            if let Err(error) = ended {
                debug!(error, "Connection ended early");
            }
            return Poll::Ready(());
        }
        // The deadline depends on the activity, which may have changed.
        late.as_mut().reset(activity.deadline(&timeouts));
        late.as_mut().poll(cx)
    })
    .await;
}

/// Serves the connection without timeouts. The error is a text for the log.
async fn handshake_and_serve(
    stream: TcpStream,
    activity: Arc<Activity>,
    site: Arc<Site>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), &'static str> {
    stream.set_nodelay(true).map_err(|_| "disconnected immediately")?;
    let Some(tls) = site.tls() else {
        return serve_requests(
            TrackedStream::new(stream, Arc::clone(&activity)),
            false,
            activity,
            site,
            closing,
        )
        .await;
    };
    let stream = tokio::select! {
        stream = tls.accept(stream) => stream.map_err(|_| "TLS handshake failed")?,
        _ = closing.wait_for(|closing| *closing) => return Ok(()),
    };
    serve_requests(TrackedStream::new(stream, Arc::clone(&activity)), true, activity, site, closing).await
}

/// Serves the requests of a connection. `secure` is true with TLS.
async fn serve_requests(
    stream: TrackedStream<impl AsyncRead + AsyncWrite + Unpin>,
    secure: bool,
    activity: Arc<Activity>,
    site: Arc<Site>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), &'static str> {
    let service = service_fn(|request| Arc::clone(&site).answer(request, activity.request(), secure));
    // The timeouts of `Activity` apply: hyper's header timeout would also close idle connections.
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    ended.map_err(|_| "invalid HTTP/1.1, or closed within a message")
}
