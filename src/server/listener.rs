//! The listener's thread: accepts connections, bounds their number and their time, stops under a deadline.

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
    activity::{Activity, Patience, Watched},
    routes::{Site, State},
};
use crate::health::{Beat, GaveUp, Supervisor};

const BEAT: Duration = Duration::from_secs(1);
const BEAT_PATIENCE: Duration = Duration::from_secs(15);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
/// How long a thread is kept that must not be missed: for good, as far as clocks can count.
const A_YEAR: Duration = Duration::from_secs(365 * 86_400);
/// A request's head; more is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) patience: Patience,
    /// Connections at a time. One more takes the place of the one that has kept us waiting for longest.
    pub(super) connections: usize,
}

impl Limits {
    const DEFAULT: Self = Self {
        patience: Patience {
            head: Duration::from_secs(10),
            request: Duration::from_secs(30),
            // Above the usual scrape interval of a minute, so that Prometheus keeps its connection.
            idle: Duration::from_secs(90),
            // Within the usual scrape timeout of ten seconds, so that the reason reaches Prometheus.
            login: Duration::from_secs(5),
        },
        connections: 128,
    };
}

/// Takes the address, so that a problem with it is known before anything starts.
pub fn bind(listen: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A running listener. Dropped instead of stopped, it ends at once, in the middle of its responses.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<Duration>,
    ended: std_mpsc::Receiver<Result<(), GaveUp>>,
    restarts: Arc<AtomicU64>,
}

impl Server {
    /// Answers on a thread of its own from here on, and beats as the part `server`.
    pub fn start(listener: StdListener, state: Arc<State>) -> io::Result<Self> {
        Self::start_with(listener, state, Limits::DEFAULT)
    }

    pub(super) fn start_with(listener: StdListener, state: Arc<State>, limits: Limits) -> io::Result<Self> {
        // The blocking thread is for passwords, of which one is checked at a time. It is there from the start, and stays:
        // where no thread can be had later on, there must be one.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_keep_alive(A_YEAR)
            .build()?;
        drop(runtime.spawn_blocking(|| {}));
        let address = listener.local_addr()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, mut stopped) = oneshot::channel();
        let (end, ended) = std_mpsc::channel();
        let beat = state.health().part("server", BEAT_PATIENCE);
        let site = Arc::new(Site::new(state, address, &limits));
        let mut supervisor = Supervisor::new("server");
        let restarts = supervisor.restarts();
        thread::Builder::new().name("server".to_owned()).spawn(move || {
            let mut closing = None;
            let ended = supervisor.keep_alive(|| {
                let connections = Connections::new(Arc::clone(&site), limits);
                closing = Some(runtime.block_on(serve(&listener, connections, &beat, &mut stopped)));
            });
            drop(listener);
            if let Some((connections, patience)) = closing {
                runtime.block_on(connections.drain(patience));
            }
            // Nobody waits for it if the server was dropped instead of stopped.
            let _ = end.send(ended);
        })?;
        Ok(Self { address, stop, ended, restarts })
    }

    /// How often the listener was started again after a panic.
    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.restarts)
    }

    /// Why it has ended by itself; `None`: it lives.
    pub fn gave_up(&self) -> Option<GaveUp> {
        self.ended.try_recv().ok()?.err()
    }

    /// The address as bound, with the real port where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets what is under way end for that long, and returns by then. Blocks: not for a runtime's
    /// thread that has other things to do.
    pub fn stop(self, patience: Duration) {
        // Both fail only where the thread has ended already.
        let _ = self.stop.send(patience);
        let _ = self.ended.recv_timeout(patience + PAUSE_AFTER_ERROR);
    }
}

/// Until the order to stop: what is open then, and how long it may last.
async fn serve(
    listener: &TcpListener,
    mut connections: Connections,
    beat: &Beat,
    stopped: &mut oneshot::Receiver<Duration>,
) -> (Connections, Duration) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let patience = loop {
        tokio::select! {
            // Without an order to stop, the server was dropped: nothing is waited for.
            patience = &mut *stopped => break patience.unwrap_or_default(),
            _ = ticks.tick() => {
                beat.beat();
                connections.site.tidy();
            }
            Some(ended) = connections.tasks.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    error!("A connection's task panicked");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if mem::take(&mut failing) {
                        info!("Connections are accepted again");
                    }
                    connections.add(stream);
                    // Who was let in gets to speak before the next ones take its place.
                    yield_now().await;
                }
                Err(error) => {
                    if !mem::replace(&mut failing, true) {
                        warn!(%error, "Connections cannot be accepted, trying on");
                    }
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            },
        }
    };
    (connections, patience)
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
            debug!("A connection was closed, since all others are busy");
            return;
        }
        let activity = Activity::new(stream.peer_addr().ok().map(|peer| peer.ip()));
        let connection = connection(
            stream,
            Arc::clone(&activity),
            Arc::clone(&self.site),
            self.limits.patience,
            self.closing.subscribe(),
        );
        activity.belongs_to(self.tasks.spawn(connection));
        self.open.push(activity);
    }

    /// Closes the connection that has kept us waiting for longest; `false`: none does.
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

    async fn drain(mut self, patience: Duration) {
        self.closing.send_replace(true);
        let ended = timeout(patience, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            debug!("Connections were closed before their responses were complete");
        }
    }
}

/// One connection, from its acceptance until it ends, has taken too long, or the server closes.
async fn connection(
    stream: TcpStream,
    activity: Arc<Activity>,
    site: Arc<Site>,
    patience: Patience,
    closing: watch::Receiver<bool>,
) {
    let mut late = pin!(sleep_until(activity.deadline(&patience)));
    let mut talk = pin!(talk(stream, Arc::clone(&activity), site, closing));
    poll_fn(|cx| {
        if let Poll::Ready(ended) = talk.as_mut().poll(cx) {
            if let Err(error) = ended {
                debug!(error, "A connection ended early");
            }
            return Poll::Ready(());
        }
        // What the connection is doing may just have changed, and its deadline with it.
        late.as_mut().reset(activity.deadline(&patience));
        late.as_mut().poll(cx)
    })
    .await;
}

/// The connection as it would be if nobody looked at the time. An error is what a person at the log may know.
async fn talk(
    stream: TcpStream,
    activity: Arc<Activity>,
    site: Arc<Site>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), &'static str> {
    stream.set_nodelay(true).map_err(|_| "gone at once")?;
    let Some(tls) = site.tls() else {
        return answer(Watched::new(stream, Arc::clone(&activity)), false, activity, site, closing).await;
    };
    let stream = tokio::select! {
        stream = tls.accept(stream) => stream.map_err(|_| "no TLS handshake")?,
        _ = closing.wait_for(|closing| *closing) => return Ok(()),
    };
    answer(Watched::new(stream, Arc::clone(&activity)), true, activity, site, closing).await
}

/// Requests and answers; `secure`: over TLS.
async fn answer(
    stream: Watched<impl AsyncRead + AsyncWrite + Unpin>,
    secure: bool,
    activity: Arc<Activity>,
    site: Arc<Site>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), &'static str> {
    let service = service_fn(|request| Arc::clone(&site).answer(request, activity.request(), secure));
    // The timeouts are ours, see `Activity`: hyper's own for the head also ends connections kept alive.
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
    ended.map_err(|_| "not as HTTP/1.1 has it, or in the middle of a message")
}
