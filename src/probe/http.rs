//! HTTP/1.1 and HTTP/2 over one connection, which is driven in the task of the run that uses it.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    ext::on_informational,
    header::{HOST, HeaderValue},
    http::{response::Parts, uri::PathAndQuery},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::{
    path::{BoxedIo, Connection},
    socket::{Excess, Meter, Plaintext},
    tls::Handshake,
};
use crate::outcome::Clock;

/// Maximum size of a response's head over HTTP/1.1, and of its decoded headers over HTTP/2.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Maximum number of headers of a response.
const MAX_HEADERS: usize = 128;

/// Flow-control windows over HTTP/2: no body waits for our window updates.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Time between two pings of a kept HTTP/2 connection. One without an answer by the next ends it.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Error of an exchange.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(transparent)]
    One(#[from] hyper::Error),
    #[error(transparent)]
    Two(#[from] h2::Error),
}

/// An HTTP connection.
pub(super) struct Http {
    protocol: Protocol,
    meter: Arc<Meter>,
    /// Whether an HTTP/1.1 request names its target in whole, as a proxy needs it.
    absolute_form: bool,
    pub(super) remote_address: Option<SocketAddr>,
    /// The handshake. `None` without TLS.
    pub(super) handshake: Option<Arc<Handshake>>,
}

enum Protocol {
    One {
        sender: http1::SendRequest<Full<Bytes>>,
        driver: Driver<Box<http1::Connection<TokioIo<BoxedIo>, Full<Bytes>>>>,
    },
    Two {
        sender: h2::client::SendRequest<Bytes>,
        driver: Driver<Box<h2::client::Connection<BoxedIo, Bytes>>>,
        pings: Pings,
    },
}

/// The body of a response as it arrives.
pub(super) enum Arriving {
    One(Incoming),
    Two { stream: h2::RecvStream, upload: Upload },
}

/// Future of a connection, polled together with the code that waits for it.
struct Driver<C> {
    /// `None` once it has ended.
    connection: Option<C>,
}

impl<C: Future + Unpin> Driver<C> {
    fn new(connection: C) -> Self {
        Self { connection: Some(connection) }
    }

    fn has_ended(&self) -> bool {
        self.connection.is_none()
    }

    /// Polls the connection once, with one read at most. The end of one is dropped, since only that
    /// ends the streams of an HTTP/2 connection on which a write failed; its error reaches the code
    /// that waits for the response.
    fn poll(&mut self, meter: &Meter, cx: &mut Context<'_>) {
        meter.grant();
        self.connection.take_if(|connection| Pin::new(connection).poll(cx).is_ready());
    }

    /// Waits for `step`, while the connection is driven. What has arrived is taken before more is
    /// read.
    async fn drive<T>(&mut self, meter: &Meter, mut step: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|cx| {
            if let Poll::Ready(value) = step(cx) {
                return Poll::Ready(value);
            }
            self.poll(meter, cx);
            step(cx)
        })
        .await
    }
}

impl Http {
    /// Begins HTTP on a connection.
    pub(super) async fn open(connection: Connection) -> Result<Self, HttpError> {
        let Connection { io, meter, is_http2, absolute_form, remote_address, handshake } = connection;
        let io: BoxedIo = Box::new(Plaintext::new(io, meter.clone()));
        let protocol = if is_http2 {
            let (sender, mut connection) = h2::client::Builder::new()
                .enable_push(false)
                .initial_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .max_header_list_size(MAX_HEAD_BYTES as u32)
                .handshake(io)
                .await?;
            let pings = Pings::new(connection.ping_pong());
            Protocol::Two { sender, driver: Driver::new(Box::new(connection)), pings }
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(MAX_HEAD_BYTES)
                .max_headers(MAX_HEADERS)
                // RFC 9112, 5.2: a user agent replaces a fold by spaces.
                .allow_obsolete_multiline_headers_in_responses(true)
                .handshake(TokioIo::new(io))
                .await?;
            Protocol::One { sender, driver: Driver::new(Box::new(connection)) }
        };
        Ok(Self { protocol, meter, absolute_form, remote_address, handshake })
    }

    /// Sends a request and waits for the head of the final response. The request's URI is absolute,
    /// and it has no `Host`.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Bytes>,
    ) -> Result<Response<Arriving>, HttpError> {
        self.meter.begin();
        let meter = &*self.meter;
        let response = match &mut self.protocol {
            Protocol::One { sender, driver } => {
                driver.drive(meter, |cx| sender.poll_ready(cx)).await?;
                set_target(&mut request, self.absolute_form);
                let counted = self.meter.clone();
                on_informational(&mut request, move |_| counted.note_informational());
                let mut response = Box::pin(sender.send_request(request.map(Full::new)));
                let response = driver.drive(meter, |cx| response.as_mut().poll(cx)).await?;
                response.map(Arriving::One)
            }
            Protocol::Two { sender, driver, .. } => {
                let (parts, body) = request.into_parts();
                let request = Request::from_parts(parts, ());
                driver.drive(meter, |cx| sender.poll_ready(cx)).await?;
                let (mut response, stream) = sender.send_request(request, body.is_empty())?;
                let mut upload = Upload { stream, rest: body };
                let response = driver.drive(meter, |cx| {
                    // A response may come before the request is complete, as a refusal does.
                    if let Poll::Ready(response) = Pin::new(&mut response).poll(cx) {
                        return Poll::Ready(response);
                    }
                    upload.poll(cx);
                    Poll::Pending
                });
                let response = response.await?;
                response.map(|stream| Arriving::Two { stream, upload })
            }
        };
        self.meter.note_head();
        Ok(response)
    }

    /// Waits for the next piece of a body; `None` at its end.
    pub(super) async fn chunk(&mut self, body: &mut Arriving) -> Result<Option<Bytes>, HttpError> {
        if self.meter.take_turn() {
            tokio::task::yield_now().await;
        }
        let meter = &*self.meter;
        match (&mut self.protocol, body) {
            (Protocol::One { driver, .. }, Arriving::One(body)) => {
                driver.drive(meter, |cx| poll_data(body, cx)).await.transpose().map_err(HttpError::One)
            }
            (Protocol::Two { driver, .. }, Arriving::Two { stream, upload }) => {
                let data = driver.drive(meter, |cx| {
                    upload.poll(cx);
                    stream.poll_data(cx)
                });
                match data.await {
                    Some(Ok(data)) => {
                        // An error means that the stream is over, which the next poll reports.
                        let _ = stream.flow_control().release_capacity(data.len());
                        Ok(Some(data))
                    }
                    // The response is complete, and the rest of the request is not wanted (RFC
                    // 9113, 8.1).
                    Some(Err(error)) if error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                        Ok(None)
                    }
                    Some(Err(error)) => Err(error.into()),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// Drives an idle connection until it ends.
    pub(super) async fn idle(&mut self) {
        self.meter.end();
        let Self { protocol, meter, .. } = self;
        poll_fn(|cx| {
            let ended = match protocol {
                Protocol::One { driver, .. } => {
                    driver.poll(meter, cx);
                    driver.has_ended()
                }
                Protocol::Two { driver, pings, .. } => {
                    driver.poll(meter, cx);
                    driver.has_ended() || pings.poll(cx).is_ready()
                }
            };
            if ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Returns whether the next request can be sent: the one before it was written in whole.
    pub(super) fn is_ready(&self) -> bool {
        match &self.protocol {
            Protocol::One { sender, .. } => sender.is_ready(),
            Protocol::Two { .. } => true,
        }
    }

    /// Returns whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        match &self.protocol {
            Protocol::One { driver, .. } => driver.has_ended(),
            Protocol::Two { driver, .. } => driver.has_ended(),
        }
    }

    /// Returns the time at which the request was handed to the kernel. Returns `None` if it was
    /// not.
    pub(super) fn sent(&self) -> Option<Instant> {
        self.meter.sent()
    }

    /// Returns the arrival time of the bytes that were read last.
    pub(super) fn arrived(&self) -> Instant {
        self.meter.arrived()
    }

    /// Returns the clock of the arrival times.
    pub(super) fn clock(&self) -> Clock {
        self.meter.clock()
    }

    /// Returns what the peer sent too much of. Returns `None` if it did not.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.meter.excess()
    }

    /// Returns whether no byte of a response has arrived since the request was sent.
    pub(super) fn is_silent(&self) -> bool {
        self.meter.is_silent()
    }
}

/// Names the target as HTTP/1.1 needs it (RFC 9112, 3.2): in `Host`, and in the request line its
/// path, for a proxy all of it.
fn set_target<B>(request: &mut Request<B>, absolute_form: bool) {
    let uri = request.uri();
    let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    if !absolute_form {
        *request.uri_mut() = Uri::from(path);
    }
}

fn poll_data(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // Trailers are not used.
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// A request's body on its way over HTTP/2, as the peer's window permits.
pub(super) struct Upload {
    stream: h2::SendStream<Bytes>,
    rest: Bytes,
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) {
        while !self.rest.is_empty() {
            self.stream.reserve_capacity(self.rest.len());
            let Poll::Ready(Some(Ok(capacity))) = self.stream.poll_capacity(cx) else { return };
            let piece = self.rest.split_to(capacity.min(self.rest.len()));
            // The response has the error, if there is one.
            if self.stream.send_data(piece, self.rest.is_empty()).is_err() {
                self.rest.clear();
            }
        }
    }
}

/// Pings of an idle HTTP/2 connection (RFC 9113, 6.7).
struct Pings {
    handle: Option<h2::PingPong>,
    ticks: Option<Interval>,
    unanswered: bool,
}

impl Pings {
    fn new(handle: Option<h2::PingPong>) -> Self {
        Self { handle, ticks: None, unanswered: false }
    }

    /// Returns ready once a ping was not answered in time.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(handle) = &mut self.handle else { return Poll::Pending };
        let ticks = self.ticks.get_or_insert_with(|| {
            let mut ticks = interval_at((Instant::now() + PING_INTERVAL).into(), PING_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        while self.unanswered && handle.poll_pong(cx).is_ready() {
            self.unanswered = false;
        }
        while ticks.poll_tick(cx).is_ready() {
            if self.unanswered || handle.send_ping(h2::Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.unanswered = true;
            // Registers for the answer.
            let _ = handle.poll_pong(cx).map(|_| self.unanswered = false);
        }
        Poll::Pending
    }
}

/// Splits a response into head and body.
pub(super) fn into_head(response: Response<Arriving>) -> (u16, &'static str, HeaderMap, Arriving) {
    let (Parts { status, version, headers, .. }, body) = response.into_parts();
    let version = match version {
        hyper::Version::HTTP_09 => "0.9",
        hyper::Version::HTTP_10 => "1.0",
        hyper::Version::HTTP_2 => "2",
        hyper::Version::HTTP_3 => "3",
        _ => "1.1",
    };
    (status.as_u16(), version, headers, body)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::probe::socket::Socket;

    /// Empty SETTINGS (RFC 9113, 6.5), and the head of an unknown frame, which is to be ignored
    /// (4.1).
    const SETTINGS_AND_UNKNOWN: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\x08\0\xbb\0\0\0\0\0";
    const UNKNOWN_LENGTH: usize = 2048;

    /// The head of a 200, and DATA.
    const RESPONSE: &[u8] = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x02\0\0\0\0\0\x01{}";

    /// Opens HTTP/2 to a listener, without TLS.
    async fn open(listener: &TcpListener) -> Http {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = Socket::new(stream, false).unwrap();
        let meter = socket.meter();
        let connection = Connection {
            io: Box::new(socket),
            meter,
            is_http2: true,
            absolute_form: false,
            remote_address: None,
            handshake: None,
        };
        Http::open(connection).await.unwrap()
    }

    /// Answers the first request and resets the connection, in one turn of the runtime. The first
    /// read of the client ends before the response, and it can no longer acknowledge SETTINGS.
    async fn answer_and_reset(listener: &TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        while !received.windows(4).any(|bytes| bytes == b"\x01\x05\0\0") {
            stream.read_buf(&mut received).await.unwrap();
        }
        let answer = [SETTINGS_AND_UNKNOWN, &[0; UNKNOWN_LENGTH], RESPONSE].concat();
        stream.write_all(&answer).await.unwrap();
        stream.set_zero_linger().unwrap();
    }

    #[tokio::test]
    async fn response_before_a_reset_is_read_although_writing_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = async {
            let mut http = open(&listener).await;
            let request = Request::get("http://localhost/").body(Bytes::new()).unwrap();
            let (status, _, _, mut body) = into_head(http.send(request).await.unwrap());
            assert_eq!(status, 200);
            assert_eq!(http.chunk(&mut body).await.unwrap().as_deref(), Some(&b"{}"[..]));
            http.chunk(&mut body).await.unwrap_err();
        };
        tokio::join!(client, answer_and_reset(&listener));
    }
}
