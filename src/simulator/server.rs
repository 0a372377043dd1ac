//! The simulator: listeners, threads, start and stop.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
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
use crate::sync::Mutex;

/// Maximum number of connections; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Length of the listener's queue, limited by net.core.somaxconn. The standard library's 128 are
/// too few for hundreds of probes that connect at once; the others would retry a second later.
const BACKLOG: u32 = 4096;
/// Pause after an error of the listener, such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Options of a simulator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address for plain HTTP/1.1; with port 0 any free port.
    pub listen: SocketAddr,
    /// Address for HTTPS. `None` for no HTTPS.
    pub tls_listen: Option<SocketAddr>,
    /// Initial scenario.
    pub scenario: Scenario,
}

/// A running simulator. Dropping it stops it and ends every connection.
pub struct Simulator {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    certificates: Arc<Certificates>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    // Dropped after the thread that uses it, because fields are dropped in this order.
    _timer: Timer,
}

/// State shared by all connections.
pub(super) struct Shared {
    pub(super) script: Mutex<Script>,
    pub(super) recorder: Recorder,
    pub(super) clock: Clock,
}

impl Simulator {
    /// Starts listening and serving, on threads of its own. The addresses are bound when this
    /// returns.
    pub fn start(options: Options) -> io::Result<Self> {
        let Options { listen, tls_listen, scenario } = options;
        let timer = Timer::start()?;
        let certificates = Arc::new(Certificates::create()?);
        let shared = Arc::new(Shared {
            script: Mutex::new(Script::begin(scenario)),
            recorder: Recorder::default(),
            clock: timer.clock(),
        });
        // Tasks whose pause is over are woken by the timer's thread, from outside of the runtime,
        // and must run before new requests; by default up to thirty of those would run first.
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

    /// Returns the address for plain HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address for HTTPS, with HTTP/1.1 and HTTP/2 by ALPN. Returns `None` if it is not
    /// served.
    ///
    /// The certificate depends on the first label of the server name: `expired`, `future`, `wrong`
    /// and `selfsigned` get an invalid one of that kind, `reset` a reset during the handshake, and
    /// all others a valid one for `localhost`, `127.0.0.1`, `::1`, `sim.test` and `*.sim.test`.
    /// Special names end in `.sim.test` or `.localhost`, which resolvers know without a zone.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Returns the certificate of the private authority, created at the start.
    pub fn ca_pem(&self) -> &str {
        self.certificates.ca_pem()
    }

    /// Replaces the scenario. Its time and its counts of requests start now.
    pub fn set_scenario(&self, scenario: Scenario) {
        *self.shared.script.lock() = Script::begin(scenario);
    }

    /// Returns the requests so far, oldest first, at most the last 10,000.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorder.snapshot()
    }

    /// Returns the number of accepted connections, including those without a request.
    pub fn connections(&self) -> u64 {
        self.shared.recorder.connections()
    }

    /// Ends every connection and thread, and returns when that is done. The records remain.
    pub fn stop(&mut self) {
        // Both are gone after an earlier stop. A panic of the thread has been reported by the panic
        // hook.
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

/// Binds a listener. Must be called within the runtime.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the other end of `stopped` is dropped.
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
    // The semaphore is never closed, so this ends with the runtime only.
    while let Ok(slot) = Arc::clone(slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Later connections wait in the queue, as with a server that is slow to accept.
        if let Some(pause) = pause(shared, Kind::SlowAccept) {
            shared.clock.until(Instant::now() + pause).await;
        }
        let connection = shared.recorder.connection();
        let (shared, certificates) = (Arc::clone(shared), certificates.clone());
        tokio::spawn(async move {
            // The client judges how a connection ended.
            drop(serve(stream, connection, certificates, shared).await);
            drop(slot);
        });
    }
}

/// Returns the scripted pause of a new connection.
fn pause(shared: &Shared, kind: Kind) -> Option<Duration> {
    let mut script = shared.script.lock();
    script.for_connection(kind, Instant::now())?.parameters.pause
}

async fn serve(
    stream: TcpStream,
    connection: Arc<Connection>,
    certificates: Option<Arc<Certificates>>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    // Otherwise small writes would wait for acknowledgements, up to 40 ms.
    stream.set_nodelay(true)?;
    let stream = Metered::new(stream, Arc::clone(&connection));
    let Some(certificates) = certificates else {
        return http1::serve(stream, &connection, &shared).await;
    };
    if let Some(pause) = pause(&shared, Kind::SlowHandshake) {
        shared.clock.until(Instant::now() + pause).await;
    }
    let resets = {
        let mut script = shared.script.lock();
        script.for_connection(Kind::ResetHandshake, Instant::now()).is_some()
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
