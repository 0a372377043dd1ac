//! The simulator as a whole: listeners, threads, start and end.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use rustls::server::Acceptor;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Runtime,
    sync::{Semaphore, oneshot},
};
use tokio_rustls::LazyConfigAcceptor;

use super::{
    certificates::{Certificates, Greeting},
    fault::Kind,
    http1, http2,
    record::{Connection, Metered, Recorded, Recorder},
    scenario::{Scenario, Script},
    timer::{Clock, Timer},
};

/// Connections at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Connections that the system takes meanwhile, as far as it lets us (net.core.somaxconn). The standard library's 128
/// are fewer than come at once where hundreds of probes are due together; the others would try again a second later.
const BACKLOG: u32 = 4096;
/// After an error of the listener (no descriptors left), before it is asked again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a simulator is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where plain HTTP/1.1 is served; port 0: any free one.
    pub listen: SocketAddr,
    /// Where HTTPS is served; `None`: nowhere.
    pub tls_listen: Option<SocketAddr>,
    /// What goes wrong from the start.
    pub scenario: Scenario,
}

/// A running simulator. Dropping it ends it, with every connection.
pub struct Simulator {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    certificates: Arc<Certificates>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    // Ends after the thread whose pauses it keeps: fields are dropped in this order.
    _timer: Timer,
}

/// What every connection needs.
pub(super) struct Shared {
    pub(super) script: Mutex<Script>,
    pub(super) recorder: Recorder,
    pub(super) clock: Clock,
}

impl Simulator {
    /// Listens and serves, on threads of its own. The addresses are taken when this returns.
    pub fn start(options: Options) -> io::Result<Self> {
        let Options { listen, tls_listen, scenario } = options;
        let timer = Timer::start()?;
        let certificates = Arc::new(Certificates::create()?);
        let shared = Arc::new(Shared {
            script: Mutex::new(Script::begin(scenario)),
            recorder: Recorder::default(),
            clock: timer.clock(),
        });
        // Whoever's pause is over is woken by the timer's thread, from outside, and comes before new requests: by default
        // up to thirty of them would be answered first.
        let runtime =
            tokio::runtime::Builder::new_current_thread().global_queue_interval(1).enable_all().build()?;
        let (plain, tls) = {
            let _context = runtime.enter();
            (bind(listen)?, tls_listen.map(bind).transpose()?)
        };
        let address = plain.local_addr()?;
        let tls_address = tls.as_ref().map(TcpListener::local_addr).transpose()?;
        let (stop, stopped) = oneshot::channel();
        let thread = Builder::new().name("simulator".to_owned()).spawn({
            let (shared, certificates) = (Arc::clone(&shared), Arc::clone(&certificates));
            move || run(&runtime, plain, tls, certificates, &shared, stopped)
        })?;
        Ok(Self {
            address,
            tls_address,
            certificates,
            shared,
            stop: Some(stop),
            thread: Some(thread),
            _timer: timer,
        })
    }

    /// Where plain HTTP is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTPS is served, HTTP/1.1 and HTTP/2 by ALPN; `None`: nowhere.
    ///
    /// The certificate depends on the first label of the name that the client asks for: `expired`, `future`, `wrong` and
    /// `selfsigned` get what they say, `reset` a reset in the handshake, everybody else a good one for `localhost`,
    /// `127.0.0.1`, `::1`, `sim.test` and `*.sim.test`. The names of the special ones end in `.sim.test` or
    /// `.localhost`, which resolvers know without a zone.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// The private authority behind the certificates, made at start.
    pub fn ca_pem(&self) -> &str {
        self.certificates.ca_pem()
    }

    /// Plays another scenario from its beginning: its clock and its counts of calls start now.
    pub fn set_scenario(&self, scenario: Scenario) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Script::begin(scenario);
    }

    /// The requests so far, oldest first, at most the last 10,000.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorder.snapshot()
    }

    /// How many connections were accepted so far, also those without a request.
    pub fn connections(&self) -> u64 {
        self.shared.recorder.connections()
    }

    /// Ends every connection and thread, and returns when that is done; what was recorded stays.
    pub fn stop(&mut self) {
        // Both are gone where it has been stopped before; a panic of the thread has been reported by the panic hook.
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Listens; to be called within the runtime.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the other end of `stopped` is gone.
fn run(
    runtime: &Runtime,
    plain: TcpListener,
    tls: Option<TcpListener>,
    certificates: Arc<Certificates>,
    shared: &Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    runtime.block_on(async {
        let over_tls = async {
            match tls {
                Some(listener) => accept(listener, Some(certificates), &slots, shared).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped => {}
            () = accept(plain, None, &slots, shared) => {}
            () = over_tls => {}
        }
    });
}

async fn accept(
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    slots: &Arc<Semaphore>,
    shared: &Arc<Shared>,
) {
    // The semaphore is never closed, so that this ends with the runtime only.
    while let Ok(slot) = Arc::clone(slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Who comes next waits in the queue meanwhile, as with a server that is slow to accept.
        if let Some(pause) = pause(shared, Kind::SlowAccept) {
            shared.clock.until(Instant::now() + pause).await;
        }
        let connection = shared.recorder.connection();
        let (shared, certificates) = (Arc::clone(shared), certificates.clone());
        tokio::spawn(async move {
            // How a connection ended is the client's to judge.
            drop(serve(stream, connection, certificates, shared).await);
            drop(slot);
        });
    }
}

/// The scripted pause of a new connection in this respect.
fn pause(shared: &Shared, kind: Kind) -> Option<Duration> {
    let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
    script.of_connection(kind, Instant::now())?.parameters.pause
}

async fn serve(
    stream: TcpStream,
    connection: Arc<Connection>,
    certificates: Option<Arc<Certificates>>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    // Small writes would wait for acknowledgements otherwise, up to 40 ms.
    stream.set_nodelay(true)?;
    let stream = Metered::new(stream, Arc::clone(&connection));
    let Some(certificates) = certificates else {
        return http1::serve(stream, &connection, &shared).await;
    };
    if let Some(pause) = pause(&shared, Kind::SlowHandshake) {
        shared.clock.until(Instant::now() + pause).await;
    }
    let resets = {
        let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.of_connection(Kind::ResetHandshake, Instant::now()).is_some()
    };
    let handshake = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let config = match certificates.greet(handshake.client_hello().server_name()) {
        Greeting::Accept(config) if !resets => config,
        Greeting::Accept(_) | Greeting::Reset => {
            connection.reset_at_end();
            return Ok(());
        }
    };
    let stream = handshake.into_stream(config).await?;
    connection.tls_done();
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, connection, shared).await
    } else {
        http1::serve(stream, &connection, &shared).await
    }
}
