//! The probed server: a process that counts its connections.

use std::{
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rcgen::{CertifiedKey, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, Stream,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
    },
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::process::Running;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{\"status\":\"ok\"}";

/// State shared by the threads of the server.
#[derive(Default)]
struct Shared {
    /// Microseconds to wait before each answer.
    hold: AtomicU64,
    /// Connections since the last `take`.
    served: AtomicU64,
}

/// Runs the child: serves until standard input ends, with the commands `hold MICROSECONDS` and
/// `take`.
pub(crate) fn serve(ca_file: &Path) -> Result<(), Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    fs::write(ca_file, made.cert.pem())?;
    let classical = CryptoProvider {
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    };
    let shared = Arc::new(Shared::default());
    for provider in [None, Some(classical), Some(aws_lc_rs::default_provider())] {
        let tls = provider.map(|provider| tls(provider, &made)).transpose()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?);
        let shared = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &shared, tls.as_ref()));
    }
    for line in io::stdin().lock().lines() {
        let line = line?;
        if let Some(hold) = line.strip_prefix("hold ") {
            shared.hold.store(hold.parse()?, Ordering::Relaxed);
        } else {
            println!("{}", shared.served.swap(0, Ordering::Relaxed));
        }
    }
    Ok(())
}

fn tls(provider: CryptoProvider, made: &CertifiedKey<KeyPair>) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut tls = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.send_tls13_tickets = 0;
    Ok(Arc::new(tls))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<ServerConfig>>) {
    for stream in listener.incoming().flatten() {
        let (shared, tls) = (Arc::clone(shared), tls.cloned());
        // A client notices a broken connection itself; `network` sends no request.
        thread::spawn(move || {
            let _ = answer(stream, &shared, tls);
            shared.served.fetch_add(1, Ordering::Relaxed);
        });
    }
}

fn answer(
    mut socket: TcpStream,
    shared: &Shared,
    tls: Option<Arc<ServerConfig>>,
) -> Result<(), Box<dyn Error>> {
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(exchange(&mut socket, shared)?) };
    let mut connection = ServerConnection::new(tls)?;
    exchange(&mut Stream::new(&mut connection, &mut socket), shared)?;
    connection.send_close_notify();
    connection.write_tls(&mut socket)?;
    Ok(())
}

fn exchange(stream: &mut (impl Read + Write), shared: &Shared) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 || head.len() > 64 << 10 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
    }
    thread::sleep(Duration::from_micros(shared.hold.load(Ordering::Relaxed)));
    stream.write_all(ANSWER)?;
    stream.flush()
}

/// The server as the parent sees it.
pub(crate) struct Server {
    _running: Running,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) plain: SocketAddr,
    /// Address without post-quantum key exchange, so that the handshake is the same for all.
    pub(crate) tls: SocketAddr,
    /// Address with post-quantum key exchange, for clients that offer it.
    pub(crate) post_quantum: SocketAddr,
}

impl Server {
    pub(crate) fn start(ca_file: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(ca_file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start("the server", &mut command)?;
        let orders = running.child().stdin.take().ok_or("the server has no standard input")?;
        let answers = running.child().stdout.take().ok_or("the server has no standard output")?;
        let mut answers = BufReader::new(answers);
        let mut address = || -> Result<SocketAddr, Box<dyn Error>> {
            let mut line = String::new();
            answers.read_line(&mut line)?;
            Ok(line.trim().parse()?)
        };
        let (plain, tls, post_quantum) = (address()?, address()?, address()?);
        Ok(Self { _running: running, orders, answers, plain, tls, post_quantum })
    }

    /// Sets the delay of later answers.
    pub(crate) fn hold(&mut self, hold: Duration) -> io::Result<()> {
        writeln!(self.orders, "hold {}", hold.as_micros())
    }

    /// Returns the number of connections since this was last called.
    pub(crate) fn take(&mut self) -> Result<f64, Box<dyn Error>> {
        writeln!(self.orders, "take")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}
