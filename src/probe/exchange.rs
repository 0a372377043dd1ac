//! Sends one request and reads one response, bounded in time and size.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Client, Request, Version, header::HeaderMap};

use super::{
    clock::{Marks, Seen, observed},
    failure::{self, Failure, Route},
    handover,
    stream::Listener,
    transcript,
};
use crate::outcome::Reason;

/// Bytes of a body that are read; a longer one is malformed.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A response as it came; the body may be incomplete.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) version: &'static str,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) remote_address: Option<SocketAddr>,
}

impl Response {
    /// Whether it claims to be what was asked for.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// How an exchange went.
#[derive(Debug)]
pub(super) struct Exchange {
    /// `None`: none came.
    pub(super) response: Option<Response>,
    /// `None`: the response is whole.
    pub(super) failure: Option<Failure>,
    pub(super) seen: Seen,
    pub(super) started: Instant,
    /// When the response's headers were there.
    pub(super) headers: Option<Instant>,
    pub(super) ended: Instant,
}

/// One attempt. `timeout` bounds everything from the lookup to the last byte. With a listener, the body of a success
/// goes there, and not into the response.
pub(super) async fn exchange(
    client: &Client,
    request: Request,
    timeout: Duration,
    route: Route,
    mut listener: Option<&mut Listener>,
) -> Exchange {
    let marks = Arc::new(Marks::new(route.tls_proxy));
    // Before the body becomes one that is not shown.
    transcript::sent(&request);
    let request = if listener.is_some() { handover::observed(request, &marks) } else { request };
    let mut progress = Progress::default();
    let started = Instant::now();
    let reading = observed(marks.clone(), progress.read(client, request, listener.as_deref_mut()));
    let ending = tokio::time::timeout(timeout, reading).await;
    let mut ended = Instant::now();
    let mut seen = marks.seen();
    if seen.dialled.is_none() {
        // The connection of the run before was there from the start.
        seen.connected = Some(started);
    }
    // What came after a complete answer was our own waiting for the last counts, or what nobody asked for.
    let over = listener.as_deref().and_then(Listener::complete_since);
    if let Some(over) = over {
        ended = over;
    }
    // By the clock, not by whether the deadline's timer was asked first: on a busy machine both are ready at once.
    let late = ended - started > timeout;
    let failure = match ending {
        Ok(Ok(End::Whole)) if !late => None,
        Ok(Ok(End::Silent)) | Err(_) if over.is_some() && !late => None,
        Ok(Ok(End::Silent)) if over.is_none() => Some(Failure::new(
            Reason::StreamStalled,
            route.api.endpoint(),
            listener.as_deref().map_or_else(String::new, Listener::silence),
        )),
        Ok(Ok(End::Exceeded)) if !late => Some(Failure::new(
            Reason::Malformed,
            route.api.endpoint(),
            format!("the response's body is larger than {} MiB", MAX_BODY >> 20),
        )),
        Ok(Err(error)) if !late => Some(failure::transport(&error, &seen, route)),
        _ => Some(failure::deadline(&seen, progress.headers.is_some(), timeout, route.api)),
    };
    let Progress { response, headers } = progress;
    Exchange { response, failure, seen, started, headers, ended }
}

/// What has come so far, kept outside the future that the deadline drops.
#[derive(Default)]
struct Progress {
    response: Option<Response>,
    headers: Option<Instant>,
}

/// How the reading of a body ended, where no error ended it.
enum End {
    /// There is no more, or no more is wanted.
    Whole,
    /// There is more than is read.
    Exceeded,
    /// No byte came for as long as the listener waits.
    Silent,
}

impl Progress {
    async fn read(
        &mut self,
        client: &Client,
        request: Request,
        listener: Option<&mut Listener>,
    ) -> Result<End, reqwest::Error> {
        let mut incoming = client.execute(request).await?;
        self.headers = Some(Instant::now());
        transcript::answered(&incoming);
        let response = self.response.insert(Response {
            status: incoming.status().as_u16(),
            version: version_name(incoming.version()),
            headers: std::mem::take(incoming.headers_mut()),
            body: Vec::new(),
            remote_address: incoming.remote_addr(),
        });
        if let Some(listener) = listener
            && response.is_success()
        {
            return listen(&mut incoming, listener).await;
        }
        while let Some(chunk) = incoming.chunk().await? {
            transcript::received(&chunk);
            if response.body.len() + chunk.len() > MAX_BODY {
                return Ok(End::Exceeded);
            }
            response.body.extend_from_slice(&chunk);
        }
        Ok(End::Whole)
    }
}

/// Reads a stream until the listener has heard enough.
async fn listen(incoming: &mut reqwest::Response, listener: &mut Listener) -> Result<End, reqwest::Error> {
    loop {
        let Ok(read) = tokio::time::timeout(listener.patience(Instant::now()), incoming.chunk()).await else {
            return Ok(End::Silent);
        };
        // Before anything else: the time of the first token is taken from it.
        let arrived = Instant::now();
        if let Ok(Some(chunk)) = &read {
            transcript::received(chunk);
        }
        match read {
            Ok(Some(chunk)) if listener.hear(&chunk, arrived).is_continue() => {}
            // A reset is but one of the ways in which a stream ends too early.
            Ok(_) => return Ok(End::Whole),
            Err(_) if listener.foreign().is_none() => return Ok(End::Whole),
            Err(error) => return Err(error),
        }
    }
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
