//! Servers that answer every request with an endless flood, at the full speed of loopback.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rcgen::{CertifiedKey, KeyPair};
use rustix::process::setpriority_process;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// Size of each write in bytes, up to which the unit of the flood is repeated.
const WRITE_SIZE: usize = 64 << 10;

/// Length of the client preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE_LENGTH: usize = 24;

/// Length of the header of an HTTP/2 frame.
const FRAME_HEAD_LENGTH: usize = 9;

/// Types of HTTP/2 frames (RFC 9113, section 6), and one that is undefined.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xfa;

/// Flags of HTTP/2 frames.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
const CHUNKED_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const JSON_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"data\":[";

/// One kind of flood.
#[derive(Clone)]
pub struct Flood {
    pub name: &'static str,
    /// Whether it uses TLS and HTTP/2 instead of plain HTTP/1.1.
    pub http2: bool,
    /// Whether it is preceded by the head of a final response. Without one, a run can only end as
    /// malformed.
    pub has_head: bool,
    head: Vec<u8>,
    unit: Vec<u8>,
}

impl Flood {
    /// Returns every kind.
    pub fn all() -> Vec<Self> {
        let mut floods = http1();
        floods.extend(http2());
        floods
    }
}

fn http1() -> Vec<Flood> {
    let token = r#"data: {"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    let large_event = format!("data: [{}0]\n\n", "[],".repeat(150_000));
    [
        ("100 Continue", "", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("103 with headers", "", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-A: b\r\n\r\n"),
        ("header lines", "HTTP/1.1 200 OK\r\n", "x: y\r\n"),
        ("empty events", STREAM_HEAD, "data:{}\n\n"),
        ("comments", STREAM_HEAD, ":\n"),
        ("JSON events", STREAM_HEAD, &format!("{token}\n\n")),
        ("large JSON events", STREAM_HEAD, &large_event),
        ("tiny chunks", CHUNKED_HEAD, "3\r\n:\n\n\r\n"),
        ("JSON body", JSON_HEAD, "[],"),
    ]
    .map(|(name, head, unit)| Flood {
        name,
        http2: false,
        has_head: head.ends_with("\r\n\r\n") || head == JSON_HEAD,
        head: head.into(),
        unit: unit.into(),
    })
    .into()
}

fn http2() -> Vec<Flood> {
    // `:status: 103` as a literal, `:status: 200` from the static table (RFC 7541).
    let informational = frame(HEADERS, END_HEADERS, 1, b"\x08\x03103");
    let final_head = frame(HEADERS, END_HEADERS, 1, &[0x88]);
    let open_head = frame(HEADERS, 0, 1, &[0x88]);
    [
        ("h2 103", vec![], informational),
        ("h2 PRIORITY", vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("h2 PING", vec![], frame(PING, 0, 0, &[0; 8])),
        ("h2 SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        ("h2 WINDOW_UPDATE", vec![], frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("h2 unknown frames", vec![], frame(UNKNOWN, 0, 0, &[])),
        ("h2 CONTINUATION", open_head, frame(CONTINUATION, 0, 1, &[])),
        ("h2 empty DATA", final_head, frame(DATA, 0, 1, &[])),
    ]
    .map(|(name, head, unit)| Flood { name, http2: true, has_head: name == "h2 empty DATA", head, unit })
    .into()
}

/// Encodes an HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, stream.to_be_bytes().as_slice(), payload].concat()
}

/// A server that sends one flood, until the process ends.
pub struct FloodServer {
    pub address: SocketAddr,
    /// Certificate to trust, in PEM.
    pub ca_pem: String,
    sent: Arc<AtomicU64>,
}

impl FloodServer {
    /// Starts on a free port of loopback.
    pub fn start(flood: &Flood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (tls, ca_pem) = (flood.http2.then(|| server_config(&made)), made.cert.pem());
        let units = WRITE_SIZE.div_ceil(flood.unit.len());
        let (head, block) = (flood.head.clone(), flood.unit.repeat(units));
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, tls) = (socket.unwrap(), tls.clone());
                let (head, block, counter) = (head.clone(), block.clone(), Arc::clone(&counter));
                thread::spawn(move || {
                    // Low priority, because the attacker stands for another machine.
                    let _ = setpriority_process(None, 19);
                    // The flood ends with the client's connection.
                    let _ = match tls {
                        None => flood_http1(socket, &head, &block, &counter),
                        Some(tls) => flood_http2(socket, tls, &head, &block, &counter),
                    };
                });
            }
        });
        Self { address, ca_pem, sent }
    }

    /// Returns the number of bytes that clients have taken so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn server_config(made: &CertifiedKey<KeyPair>) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(tls)
}

fn flood_http1(mut socket: TcpStream, head: &[u8], block: &[u8], sent: &AtomicU64) -> io::Result<()> {
    if socket.read(&mut [0; 4096])? == 0 {
        return Ok(());
    }
    socket.write_all(head)?;
    pour(&mut socket, block, sent)
}

fn flood_http2(
    socket: TcpStream,
    tls: Arc<ServerConfig>,
    head: &[u8],
    block: &[u8],
    sent: &AtomicU64,
) -> io::Result<()> {
    let mut unread = socket.try_clone()?;
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    await_request(&mut stream)?;
    stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
    stream.write_all(head)?;
    // Replies of the client are taken and ignored, so that it is never blocked by them.
    thread::spawn(move || io::copy(&mut unread, &mut io::sink()));
    pour(&mut stream, block, sent)
}

/// Reads until the client has sent the headers of its request.
fn await_request(stream: &mut impl Read) -> io::Result<()> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    let mut next = PREFACE_LENGTH;
    loop {
        while let Some(&[high, middle, low, kind, ..]) = received.get(next..) {
            if kind == HEADERS {
                return Ok(());
            }
            let length = u32::from_be_bytes([0, high, middle, low]);
            next += FRAME_HEAD_LENGTH + length as usize;
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => received.extend_from_slice(&buffer[..read]),
        }
    }
}

fn pour(stream: &mut impl Write, block: &[u8], sent: &AtomicU64) -> io::Result<()> {
    loop {
        stream.write_all(block)?;
        sent.fetch_add(block.len() as u64, Ordering::Relaxed);
    }
}
