//! HTTP/2, based on hyper: the same replies, as far as frames allow.
//!
//! Faults below frames apply to the connection: a cut or a reset ends it with all its streams.
//! Garbage, which hyper cannot write, becomes an end without an answer.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    header::{HeaderName, HeaderValue},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use super::{
    answer::answer,
    exchange::{Action, Chunk, Ending, MAX_REQUEST_BODY, Reply, Request},
    record::{Connection, Entry},
    server::Shared,
};

/// Maximum number of requests in flight on one connection.
const MAX_STREAMS: u32 = 100;

/// Serves a connection until either side ends it.
pub(super) async fn serve<S>(stream: S, connection: Arc<Connection>, shared: Arc<Shared>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = Arc::new(Notify::new());
    let service = service_fn({
        let cut = Arc::clone(&cut);
        move |request| respond(request, Arc::clone(&connection), Arc::clone(&shared), Arc::clone(&cut))
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .auto_date_header(false)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // In this order: what was answered before the cut is written first.
        biased;
        result = served => result.map_err(io::Error::other),
        () = cut.notified() => Ok(()),
    }
}

async fn respond(
    request: hyper::Request<Incoming>,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    cut: Arc<Notify>,
) -> Result<Response<Paced>, Infallible> {
    let entry = shared.recorder.begin(&connection, Instant::now(), "2");
    let (parts, body) = request.into_parts();
    let is_head = parts.method == hyper::Method::HEAD;
    let headers = parts.headers.iter();
    let headers =
        headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let (method, target, headers) = (parts.method.to_string(), target.to_owned(), headers.collect());
    let Ok(body) = Limited::new(body, MAX_REQUEST_BODY).collect().await else {
        entry.lock().status = Some(413);
        let reply = Reply::new(413, "text/plain", "rejected by the simulator\n");
        return Ok(response(reply, false, Instant::now(), Delivery { connection, shared, cut, entry }));
    };
    let request = Request { method, target, headers, body: body.to_bytes() };
    let received = entry.received();
    match answer(&request, &shared.script, &entry) {
        Action::Reply(reply) => {
            let due = received + reply.delay;
            shared.clock.until(due).await;
            Ok(response(reply, is_head, due, Delivery { connection, shared, cut, entry }))
        }
        Action::Close { reset } => {
            if reset {
                connection.reset_at_end();
            }
            cut.notify_one();
            std::future::pending().await
        }
        Action::Garbage => {
            cut.notify_one();
            std::future::pending().await
        }
        Action::Stall => std::future::pending().await,
    }
}

/// Builds the response. `due` is when the head is due.
fn response(reply: Reply, is_head: bool, due: Instant, delivery: Delivery) -> Response<Paced> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let may_have_body = reply.may_have_body() && !is_head;
    let headers: Vec<_> = reply.headers.iter().filter_map(|(name, value)| field(name, value)).collect();
    let length = (!reply.is_chunked() && reply.may_have_body()).then(|| reply.content_length());
    let body = Paced {
        chunks: if may_have_body { reply.body.into() } else { VecDeque::new() },
        left: match reply.ending {
            Ending::CloseAfter(bytes) | Ending::ResetAfter(bytes) => Some(bytes),
            Ending::Complete | Ending::Silent | Ending::Endless => None,
        },
        ending: reply.ending,
        due,
        waiting: None,
        delivery,
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    if let Some(length) = length {
        response.headers_mut().entry(hyper::header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    response
}

/// Converts a header. Returns `None` if HTTP/2 cannot carry it (RFC 9113, section 8.2.2).
fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let of_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    let value = HeaderValue::from_str(value).ok()?;
    (!of_connection.contains(&name.as_str())).then_some((name, value))
}

/// Context of a body.
struct Delivery {
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    cut: Arc<Notify>,
    entry: Arc<Entry>,
}

/// A body with scripted pauses, which may cut the connection.
struct Paced {
    chunks: VecDeque<Chunk>,
    /// Number of bytes until the cut. `None` if there is no cut.
    left: Option<usize>,
    ending: Ending,
    /// Time at which the previous part was due.
    due: Instant,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    delivery: Delivery,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        } else if let Some(pause) =
            self.chunks.front().map(|chunk| chunk.pause).filter(|pause| !pause.is_zero())
        {
            self.due += pause;
            let due = self.due;
            let clock = self.delivery.shared.clock.clone();
            let mut waiting: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(async move { clock.until(due).await });
            if waiting.as_mut().poll(cx).is_pending() {
                self.waiting = Some(waiting);
                return Poll::Pending;
            }
        }
        if self.left == Some(0) {
            if matches!(self.ending, Ending::ResetAfter(_)) {
                self.delivery.connection.reset_at_end();
            }
            self.delivery.cut.notify_one();
            return Poll::Pending; // until the connection is dropped
        }
        let again = if self.ending == Ending::Endless && self.chunks.len() == 1 {
            self.chunks.front().cloned()
        } else {
            None
        };
        let Some(mut chunk) = again.or_else(|| self.chunks.pop_front()) else {
            if self.ending == Ending::Silent {
                return Poll::Pending;
            }
            self.delivery.entry.complete();
            return Poll::Ready(None);
        };
        if chunk.first_token {
            self.delivery.entry.first_token_follows();
        }
        if let Some(left) = self.left {
            chunk.bytes.truncate(left);
            self.left = Some(left - chunk.bytes.len());
        }
        Poll::Ready(Some(Ok(Frame::data(chunk.bytes))))
    }
}
