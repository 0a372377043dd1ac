//! One request and its response, bounded in time and size.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hyper::HeaderMap;
use tokio::time::{timeout, timeout_at};

use super::{
    failure::{self, Failure, Route},
    http::{Arriving, Http, HttpError, into_head},
    keep_alive::{KeepAlive, is_reusable},
    path::{Path, PathError, Trace},
    request::Prepared,
    stream::Listener,
    timeline::Timeline,
    transcript::Recording,
};
use crate::outcome::{Api, Clock, ConnectionUse, Detail, Phase, Reason};

/// Maximum number of bytes of a body that are read; a longer one is malformed.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Maximum wait for the rest of a body after a stream's end mark, so that its connection can
/// be kept.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// A response; the body may be incomplete.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) version: &'static str,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) remote_address: Option<SocketAddr>,
}

impl Response {
    /// Returns whether the status is a success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A request and its destination.
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) path: Path,
    pub(super) request: Prepared,
    /// The connection kept between runs. `None` if each run has a connection of its own.
    pub(super) keep_alive: Option<KeepAlive>,
}

/// Result of an exchange.
pub(super) struct Exchange {
    /// The response. `None` if there was none.
    pub(super) response: Option<Response>,
    /// The failure. `None` if the response is complete, or its error status decides.
    pub(super) failure: Option<Failure>,
    pub(super) trace: Trace,
    /// Time at which the request was handed to the kernel. `None` if it was not.
    pub(super) sent: Option<Instant>,
    /// Time at which the response head had arrived.
    pub(super) head: Option<Instant>,
    /// The clock of arrival times. `None` if there was no connection.
    pub(super) clock: Option<Clock>,
    /// Origin of the connection. `None` if the probe keeps none.
    pub(super) connection: Option<ConnectionUse>,
}

/// End of reading a body without an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is no more.
    Whole,
    /// No more is wanted.
    Enough,
    /// There is more than is read.
    Exceeded,
    /// No byte came for as long as the listener waits.
    Silent,
    /// The connection of a stream broke: one of the ways in which a stream ends too early.
    Broken,
}

/// Cause of a missing or incomplete response.
enum ExchangeError {
    Path(PathError),
    Http(HttpError),
}

impl From<PathError> for ExchangeError {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

impl From<HttpError> for ExchangeError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// An exchange under way. It is kept outside the future that the deadline drops.
struct Attempt<'a> {
    call: &'a Call,
    /// Takes the body of a success in the response's place.
    listener: Option<&'a mut Listener>,
    recording: Option<&'a mut Recording>,
    trace: Trace,
    http: Option<Http>,
    response: Option<Response>,
    body: Option<Arriving>,
    head: Option<Instant>,
    connection: Option<ConnectionUse>,
}

/// Sends a request once and reads the response. `timeout` bounds everything from the lookup to the
/// last byte.
pub(super) async fn exchange(
    call: &Call,
    timeout: Duration,
    listener: Option<&mut Listener>,
    recording: Option<&mut Recording>,
) -> Exchange {
    let deadline = Instant::now() + timeout;
    let mut attempt = Attempt {
        call,
        listener,
        recording,
        trace: Trace::new(deadline),
        http: None,
        response: None,
        body: None,
        head: None,
        connection: None,
    };
    let ending = timeout_at(deadline.into(), attempt.run()).await.ok();
    let (end, failure) = attempt.conclude(ending, timeout);
    let (sent, clock) = (attempt.http.as_ref().and_then(Http::sent), attempt.http.as_ref().map(Http::clock));
    attempt.keep_connection(end, failure.is_none()).await;
    let Attempt { trace, response, head, connection, .. } = attempt;
    Exchange { response, failure, trace, sent, head, clock, connection }
}

impl Attempt<'_> {
    async fn run(&mut self) -> Result<End, ExchangeError> {
        let keep_alive = self.call.keep_alive.as_ref();
        let mut made = ConnectionUse::New;
        if let Some(keep_alive) = keep_alive
            && let (true, kept) = keep_alive.take().await
        {
            made = ConnectionUse::Replaced;
            if let Some(http) = kept {
                self.connection = Some(ConnectionUse::Reused);
                match self.request(http).await {
                    Err(error) if self.is_replaceable(&error) => self.forget(),
                    ended => return ended,
                }
            }
        }
        self.connection = keep_alive.map(|_| made);
        let connection = self.call.path.connect(&mut self.trace, keep_alive.is_some()).await?;
        let http = Http::open(connection).await?;
        self.request(http).await
    }

    /// Returns whether a kept connection ended before the first byte of the response: its idle
    /// timeout crossed the request (RFC 9110, 9.2.2), which no client of this service would report.
    fn is_replaceable(&self, error: &ExchangeError) -> bool {
        let silent = self.http.as_ref().is_some_and(Http::is_silent);
        match error {
            ExchangeError::Http(error) => {
                self.response.is_none() && failure::is_closed_while_idle(error, silent)
            }
            ExchangeError::Path(_) => false,
        }
    }

    fn forget(&mut self) {
        self.trace.timeline = Timeline::new();
        self.trace.remote_address = None;
        self.http = None;
    }

    async fn request(&mut self, http: Http) -> Result<End, ExchangeError> {
        let http = self.http.insert(http);
        if let Some(recording) = &mut self.recording {
            recording.sent(&self.call.request);
        }
        self.trace.remote_address = http.remote_address;
        self.trace.timeline.begin(Phase::Processing, Instant::now());
        let response = http.send(self.call.request.to_request()).await?;
        let arrived = http.arrived();
        self.trace.timeline.restart(http.sent());
        self.trace.timeline.begin(Phase::Transfer, arrived);
        self.head = Some(arrived);
        let (status, version, headers, body) = into_head(response);
        if let Some(recording) = &mut self.recording {
            recording.answered(status, version, &headers);
        }
        let remote_address = http.remote_address;
        self.response = Some(Response { status, version, headers, body: Vec::new(), remote_address });
        self.body = Some(body);
        self.read_body().await
    }

    async fn read_body(&mut self) -> Result<End, ExchangeError> {
        let (Some(http), Some(body), Some(response)) = (&mut self.http, &mut self.body, &mut self.response)
        else {
            return Ok(End::Whole);
        };
        let mut listener = self.listener.as_deref_mut().filter(|_| response.is_success());
        loop {
            let chunk = match &listener {
                None => http.chunk(body).await,
                Some(listener) => {
                    let Ok(chunk) = timeout(listener.byte_timeout(Instant::now()), http.chunk(body)).await
                    else {
                        return Ok(End::Silent);
                    };
                    chunk
                }
            };
            let arrived = http.arrived();
            let chunk = match (chunk, &listener) {
                (Ok(Some(chunk)), _) => chunk,
                (Ok(None), _) => return Ok(End::Whole),
                (Err(_), Some(listener)) if listener.foreign().is_none() && http.excess().is_none() => {
                    return Ok(End::Broken);
                }
                (Err(error), _) => return Err(error.into()),
            };
            if let Some(recording) = &mut self.recording {
                recording.received(&chunk);
            }
            if let Some(listener) = &mut listener {
                if listener.receive(&chunk, arrived).is_break() {
                    return Ok(End::Enough);
                }
            } else if response.body.len() + chunk.len() > MAX_BODY_BYTES {
                return Ok(End::Exceeded);
            } else {
                response.body.extend_from_slice(&chunk);
            }
        }
    }

    /// Ends the run's time, and returns how the exchange ended and what failed. `ending` is `None`
    /// at the deadline.
    fn conclude(
        &mut self,
        ending: Option<Result<End, ExchangeError>>,
        timeout: Duration,
    ) -> (Option<End>, Option<Failure>) {
        let deadline = self.trace.deadline;
        let api = self.call.api;
        let phase = self.trace.timeline.phase();
        if self.head.is_none() {
            self.trace.timeline.restart(self.http.as_ref().and_then(Http::sent));
        }
        // Time after a complete answer was spent waiting for the last counts.
        let complete = self.listener.as_deref().and_then(Listener::complete_since);
        let arrived = match (&ending, &self.http) {
            (Some(Ok(End::Whole | End::Enough)), Some(http)) => Some(http.arrived()),
            _ => None,
        };
        let ended = complete.or(arrived).unwrap_or_else(Instant::now);
        self.trace.timeline.end(ended);
        let late = ended > deadline;
        let failure = match &ending {
            None | Some(Ok(End::Silent)) if complete.is_some() && !late => None,
            Some(Ok(End::Whole | End::Enough | End::Broken)) if !late => None,
            Some(Ok(End::Silent)) => {
                let silence = self.listener.as_deref().map(Listener::silence);
                silence.map(|detail| Failure::new(Reason::StreamStalled, api.endpoint(), detail))
            }
            Some(Ok(End::Exceeded)) if !late => {
                let detail = Detail::BodyExceeded(MAX_BODY_BYTES >> 20);
                Some(Failure::new(Reason::Malformed, api.endpoint(), detail))
            }
            Some(Err(error)) if !late => self.failure(error),
            _ => Some(failure::deadline(&self.trace, phase, timeout, self.route())),
        };
        (ending.and_then(Result::ok), failure)
    }

    fn route(&self) -> Route {
        Route::new(self.call.api, &self.call.path)
    }

    fn failure(&self, error: &ExchangeError) -> Option<Failure> {
        match error {
            ExchangeError::Path(error) => Some(failure::path(error, self.route())),
            // The error status has arrived, and decides.
            ExchangeError::Http(_)
                if self.response.as_ref().is_some_and(|response| !response.is_success()) =>
            {
                None
            }
            ExchangeError::Http(error) => {
                if let Some(excess) = self.http.as_ref().and_then(Http::excess) {
                    return Some(failure::excess(excess, self.call.api));
                }
                let handshake = self.http.as_ref().and_then(|http| http.handshake.as_deref());
                let first = self.response.is_none() && self.connection != Some(ConnectionUse::Reused);
                Some(failure::http(error, self.call.api, handshake.filter(|_| first)))
            }
        }
    }

    /// Keeps the connection for the next run, if the response on it is complete. The rest of a
    /// stream after its end mark is read first, which is no part of the run.
    async fn keep_connection(&mut self, end: Option<End>, succeeded: bool) {
        let (Some(keep_alive), Some(response)) = (&self.call.keep_alive, &self.response) else { return };
        if !succeeded || !is_reusable(response.version, &response.headers) {
            return;
        }
        let (Some(http), Some(body)) = (&mut self.http, &mut self.body) else { return };
        let complete = match end {
            Some(End::Whole) => true,
            Some(End::Enough) => {
                let drain = async { while let Ok(Some(_)) = http.chunk(body).await {} };
                timeout(DRAIN_TIMEOUT, drain).await.is_ok()
            }
            _ => false,
        };
        if complete && let Some(http) = self.http.take_if(|http| !http.has_ended()) {
            self.body = None;
            keep_alive.put(http);
        }
    }
}
