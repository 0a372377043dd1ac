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

/// One attempt. `timeout` bounds everything from the lookup to the last byte.
pub(super) async fn exchange(client: &Client, request: Request, timeout: Duration, route: Route) -> Exchange {
    let marks = Arc::new(Marks::new(route.tls_proxy));
    let mut progress = Progress::default();
    let started = Instant::now();
    let reading = observed(marks.clone(), progress.read(client, request));
    let ending = tokio::time::timeout(timeout, reading).await;
    let ended = Instant::now();
    let seen = marks.seen();
    let failure = match ending {
        Ok(Ok(Size::Bounded)) => None,
        Ok(Ok(Size::Exceeded)) => Some(Failure::new(
            Reason::Malformed,
            route.api.endpoint(),
            format!("the response's body is larger than {} MiB", MAX_BODY >> 20),
        )),
        Ok(Err(error)) => Some(failure::transport(&error, &seen, route)),
        Err(_) => Some(failure::deadline(&seen, progress.headers.is_some(), timeout, route.api)),
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

enum Size {
    Bounded,
    Exceeded,
}

impl Progress {
    async fn read(&mut self, client: &Client, request: Request) -> Result<Size, reqwest::Error> {
        let mut incoming = client.execute(request).await?;
        self.headers = Some(Instant::now());
        let response = self.response.insert(Response {
            status: incoming.status().as_u16(),
            version: version_name(incoming.version()),
            headers: std::mem::take(incoming.headers_mut()),
            body: Vec::new(),
            remote_address: incoming.remote_addr(),
        });
        while let Some(chunk) = incoming.chunk().await? {
            if response.body.len() + chunk.len() > MAX_BODY {
                return Ok(Size::Exceeded);
            }
            response.body.extend_from_slice(&chunk);
        }
        Ok(Size::Bounded)
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
