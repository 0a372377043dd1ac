//! A TCP socket that records when data arrived, by the kernel's clock, and bounds what a peer can
//! send.

use std::{
    fmt, io,
    io::IoSliceMut,
    net::UdpSocket,
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, TimestampingFlag, recvmsg, setsockopt,
    sockopt::{KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval, Timestamping},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::path::BoxedIo;
use crate::outcome::Clock;

/// Maximum number of bytes that one read takes: the task yields between reads, so a peer that
/// floods its connection cannot delay other runs.
const MAX_READ_BYTES: usize = 16 * 1024;

/// The same at the beginning of an exchange: segments that one read takes have the arrival time of
/// the last of them, and the head and the first tokens need their own.
const MAX_FIRST_READ_BYTES: usize = 2 * 1024;

/// Maximum number of bytes before the final response head, informational responses included.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// Maximum number of bytes of one exchange. A body of 4 MiB in chunks of one byte has six times as
/// many.
const MAX_EXCHANGE_BYTES: u64 = 32 * 1024 * 1024;

/// Maximum number of bytes outside an exchange: of handshakes, or of a connection that is idle.
const MAX_OTHER_BYTES: u64 = 1024 * 1024;

/// Maximum number of informational responses (1xx) before the final one. Go's `net/http` accepts 5.
const MAX_INFORMATIONAL: u32 = 16;

/// Size of the control message that carries three timestamps: a header of 16 bytes and three
/// `timespec`.
const CONTROL_BYTES: usize = 64;

/// Idle time before the kernel probes a kept connection, time between probes, and unanswered probes
/// that end it.
const KEEPALIVE_SECONDS: u32 = 15;
const KEEPALIVE_PROBES: u32 = 3;

/// Excessive input of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// Bytes or informational responses before the final response head.
    BeforeHead,
    /// Bytes of the exchange as a whole.
    Exchange,
}

/// Keeps the kernel's timestamping switched on.
///
/// The kernel switches it on when the first socket asks for it, a moment later, and off after the
/// last one: a process whose sockets come and go would get segments without a timestamp.
#[derive(Debug)]
pub(super) struct TimestampingGuard {
    _socket: Option<UdpSocket>,
}

impl TimestampingGuard {
    pub(super) fn new() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).ok();
        if let Some(socket) = &socket {
            // Without it arrival times are those of the process.
            let _ = setsockopt(socket, Timestamping, &timestamping());
        }
        Self { _socket: socket }
    }
}

fn timestamping() -> TimestampingFlag {
    TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
}

/// Times and counts of one connection's exchange, shared between the socket and the code that reads
/// the response.
///
/// All of it is used by one thread; the atomics only satisfy `Send`.
pub(super) struct Meter {
    epoch: Instant,
    /// Nanoseconds since `epoch`; 0: not yet.
    sent: AtomicU64,
    arrived: AtomicU64,
    received: AtomicU64,
    /// Bytes above TLS.
    plaintext: AtomicU64,
    /// `received` above this is an error.
    limit: AtomicU64,
    /// `received` when the task last let others have their turn.
    turn: AtomicU64,
    informational: AtomicU32,
    head_seen: AtomicBool,
    /// Whether reads need [`Meter::grant`]: not before the exchange begins.
    metered: AtomicBool,
    granted: AtomicBool,
    /// Whether data arrived whose time is the kernel's, and whether some arrived without one.
    stamped: AtomicBool,
    unstamped: AtomicBool,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

impl Meter {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            sent: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            received: AtomicU64::new(0),
            plaintext: AtomicU64::new(0),
            limit: AtomicU64::new(MAX_OTHER_BYTES),
            turn: AtomicU64::new(0),
            informational: AtomicU32::new(0),
            head_seen: AtomicBool::new(false),
            metered: AtomicBool::new(false),
            granted: AtomicBool::new(false),
            stamped: AtomicBool::new(false),
            unstamped: AtomicBool::new(false),
        }
    }

    /// Begins an exchange: the next write sends its request.
    pub(super) fn begin(&self) {
        self.sent.store(0, Relaxed);
        self.received.store(0, Relaxed);
        self.plaintext.store(0, Relaxed);
        self.turn.store(0, Relaxed);
        self.limit.store(MAX_HEAD_BYTES, Relaxed);
        self.informational.store(0, Relaxed);
        self.head_seen.store(false, Relaxed);
        self.metered.store(true, Relaxed);
        self.stamped.store(false, Relaxed);
        self.unstamped.store(false, Relaxed);
    }

    /// Records that the final response head has arrived.
    pub(super) fn note_head(&self) {
        self.head_seen.store(true, Relaxed);
        self.limit.store(MAX_EXCHANGE_BYTES, Relaxed);
    }

    /// Counts an informational response.
    pub(super) fn note_informational(&self) {
        if self.informational.fetch_add(1, Relaxed) >= MAX_INFORMATIONAL {
            self.limit.store(0, Relaxed);
        }
    }

    /// Ends an exchange: reads need no [`Meter::grant`] until the next one.
    pub(super) fn end(&self) {
        self.metered.store(false, Relaxed);
        self.received.store(0, Relaxed);
        self.turn.store(0, Relaxed);
        self.limit.store(MAX_OTHER_BYTES, Relaxed);
    }

    /// Returns whether a read is to wait for the next poll of the task: other runs have their turn,
    /// and in an exchange each read keeps its own arrival time.
    fn yields(&self) -> bool {
        if self.metered.load(Relaxed) { !self.granted.swap(false, Relaxed) } else { self.take_turn() }
    }

    /// Returns whether the task has taken in so much that other tasks, and what has arrived for
    /// them, come first now.
    pub(super) fn take_turn(&self) -> bool {
        let received = self.received.load(Relaxed);
        let due = received - self.turn.load(Relaxed) >= MAX_READ_BYTES as u64;
        if due {
            self.turn.store(received, Relaxed);
        }
        due
    }

    /// Permits one read. Called before each poll of the connection.
    pub(super) fn grant(&self) {
        self.granted.store(true, Relaxed);
    }

    /// Returns when the first byte of the request was handed to the kernel; `None` before.
    pub(super) fn sent(&self) -> Option<Instant> {
        let sent = self.sent.load(Relaxed);
        (sent > 0).then(|| self.epoch + Duration::from_nanos(sent))
    }

    /// Returns when the bytes that were read last had arrived.
    pub(super) fn arrived(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.arrived.load(Relaxed))
    }

    /// Returns whether no byte of HTTP has arrived since the exchange began. The end of a TLS
    /// connection has records of its own.
    pub(super) fn is_silent(&self) -> bool {
        self.plaintext.load(Relaxed) == 0
    }

    /// Returns the clock of the arrival times.
    pub(super) fn clock(&self) -> Clock {
        let kernel = self.stamped.load(Relaxed) && !self.unstamped.load(Relaxed);
        if kernel { Clock::Kernel } else { Clock::Process }
    }

    fn read_size(&self) -> usize {
        let begins = self.metered.load(Relaxed) && self.received.load(Relaxed) < MAX_READ_BYTES as u64;
        if begins { MAX_FIRST_READ_BYTES } else { MAX_READ_BYTES }
    }

    fn since_epoch(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn note_write(&self) {
        if self.sent.load(Relaxed) == 0 {
            self.sent.store(self.since_epoch(Instant::now()), Relaxed);
        }
    }

    /// Records the arrival of bytes that were read just now. `age`: how long ago the kernel
    /// received the last of them.
    fn note_read(&self, bytes: usize, age: Option<Duration>) {
        if bytes == 0 {
            return; // the end of the connection has no timestamp, and ends no phase
        }
        let now = Instant::now();
        let arrived = age.and_then(|age| now.checked_sub(age)).unwrap_or(now);
        let earliest = self.arrived.load(Relaxed).max(self.sent.load(Relaxed));
        self.arrived.store(self.since_epoch(arrived).max(earliest), Relaxed);
        self.received.fetch_add(bytes as u64, Relaxed);
        let stamps = if age.is_some() { &self.stamped } else { &self.unstamped };
        stamps.store(true, Relaxed);
    }

    fn check_limit(&self) -> io::Result<()> {
        if self.received.load(Relaxed) > self.limit.load(Relaxed) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// Returns what the peer sent too much of. Returns `None` if it did not. The libraries between
    /// the socket and the reader of the response pass on an error without its type.
    pub(super) fn excess(&self) -> Option<Excess> {
        let excess = if self.head_seen.load(Relaxed) { Excess::Exchange } else { Excess::BeforeHead };
        self.check_limit().is_err().then_some(excess)
    }
}

/// A connected TCP socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    control: [u8; CONTROL_BYTES],
    meter: Arc<Meter>,
    /// Error of a write to a peer that has left.
    write_error: Option<io::Error>,
}

impl Socket {
    /// Prepares a connected socket. With `keep`, the connection outlives its first exchange, so the
    /// kernel probes it while it is idle.
    ///
    /// The run's deadline ends a silent connection, not the kernel: there is no `TCP_USER_TIMEOUT`.
    pub(super) fn new(stream: TcpStream, keep: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        if keep {
            setsockopt(&stream, KeepAlive, &true)?;
            setsockopt(&stream, TcpKeepIdle, &KEEPALIVE_SECONDS)?;
            setsockopt(&stream, TcpKeepInterval, &KEEPALIVE_SECONDS)?;
            setsockopt(&stream, TcpKeepCount, &KEEPALIVE_PROBES)?;
        }
        // Where it is refused, each read is stamped by the process, which the meter records.
        let _ = setsockopt(&stream, Timestamping, &timestamping());
        Ok(Self { stream, control: [0; CONTROL_BYTES], meter: Arc::new(Meter::new()), write_error: None })
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// Reads what is there, with the age of its last byte by the kernel's clock.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
        let Self { stream, control, .. } = self;
        stream.try_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(buffer)];
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(control), MsgFlags::empty())?;
            let mut age = None;
            for control in message.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::ScmTimestampsns(stamps) = control {
                    let received = SystemTime::UNIX_EPOCH + Duration::from(stamps.system);
                    // Negative where the wall clock was set back meanwhile.
                    age = Some(SystemTime::now().duration_since(received).unwrap_or_default());
                }
            }
            Ok((message.bytes, age))
        })
    }

    /// Keeps the error of a write to a peer that has left, and reports success: the response may
    /// have arrived before, and what reads it meets the end of the connection next.
    fn defer_error(&mut self, length: usize, written: io::Result<usize>) -> io::Result<usize> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};

        written.or_else(|error| {
            if !matches!(error.kind(), BrokenPipe | ConnectionReset) {
                return Err(error);
            }
            self.write_error.get_or_insert(error);
            Ok(length)
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.meter.check_limit()?;
        if this.meter.yields() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            let size = buffer.remaining().min(this.meter.read_size());
            match this.receive(buffer.initialize_unfilled_to(size)) {
                Ok((bytes, age)) => {
                    if bytes == 0
                        && let Some(error) = this.write_error.take()
                    {
                        return Poll::Ready(Err(error));
                    }
                    this.meter.note_read(bytes, age);
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.meter.note_write();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.defer_error(bytes.len(), written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.meter.note_write();
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        let length = parts.iter().map(|part| part.len()).sum();
        Poll::Ready(self.defer_error(length, written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection above TLS, of which the meter counts the bytes that are read.
pub(super) struct Plaintext {
    io: BoxedIo,
    meter: Arc<Meter>,
}

impl Plaintext {
    pub(super) fn new(io: BoxedIo, meter: Arc<Meter>) -> Self {
        Self { io, meter }
    }
}

impl AsyncRead for Plaintext {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.meter.plaintext.fetch_add((buffer.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Plaintext {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn error_of_a_write_ends_the_reading_of_what_arrived_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Socket::new(stream, false).unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"answer").await.unwrap();
        peer.set_zero_linger().unwrap();
        drop(peer);
        for _ in 0..2 {
            assert_eq!(socket.write(b"request").await.unwrap(), 7);
        }
        let mut received = [0; 6];
        socket.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"answer");
        let error = socket.read(&mut received).await.unwrap_err();
        assert!(
            matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{error}"
        );
    }
}
