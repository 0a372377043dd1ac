//! What is answered to which request.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    http::request,
};
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use super::{
    activity::Work,
    encoding::{gzip, prefers_gzip},
    guard::{self, Refusal},
    landing,
};
use crate::{
    health::{Health, Readiness},
    metrics::Metrics,
};

const TEXT: &str = "text/plain; charset=utf-8";
const SAMPLES: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// Pages of all probes in memory at a time, from the rendering until the last byte is taken: they can be large.
pub(super) const MAX_PAGES: usize = 4;
/// Below the time that a connection has for a request.
const RELOAD_PATIENCE: Duration = Duration::from_secs(25);

/// Someone asks for a reload and waits.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Takes the result: the problems, one a line, where the configuration could not be loaded.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// What the pages show and what requests can cause.
#[derive(Debug)]
pub struct State {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    reload: mpsc::Sender<ReloadRequest>,
    hostnames: RwLock<Arc<[String]>>,
}

impl State {
    /// `reload` leads to whoever reloads; a request that finds it full is refused. `hostnames` as configured.
    pub fn new(
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        reload: mpsc::Sender<ReloadRequest>,
        hostnames: &[String],
    ) -> Self {
        Self { metrics, health, reload, hostnames: RwLock::new(hostnames.into()) }
    }

    /// Takes over the names of a new configuration.
    pub fn rename(&self, hostnames: &[String]) {
        *self.hostnames.write().unwrap_or_else(PoisonError::into_inner) = hostnames.into();
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    fn hostnames(&self) -> Arc<[String]> {
        Arc::clone(&self.hostnames.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The state as one listener serves it.
#[derive(Debug)]
pub(super) struct Site {
    state: Arc<State>,
    address: SocketAddr,
    pages: Arc<Semaphore>,
    page_patience: Duration,
}

impl Site {
    pub(super) fn new(state: Arc<State>, address: SocketAddr, page_patience: Duration) -> Self {
        Self { state, address, pages: Arc::new(Semaphore::new(MAX_PAGES)), page_patience }
    }

    /// Answers a request; `work` lasts until the response has been taken. The body of a request means nothing here
    /// and is not read: hyper closes the connection behind the response where one does not end by itself.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        work: Work,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, _) = request.into_parts();
        let reply = match guard::admit(&head, self.address, &self.state.hostnames()) {
            Ok(()) => self.route(&head).await,
            Err(refusal) => refused(refusal),
        };
        Ok(reply.into_response(&head, work))
    }

    async fn route(&self, head: &request::Parts) -> Reply {
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        let page = match head.uri.path() {
            "/-/reload" if head.method == Method::POST => return self.reload().await,
            "/-/reload" => return Reply::not_allowed("POST"),
            page @ ("/" | "/metrics" | "/-/healthy" | "/-/ready") if reads => page,
            "/" | "/metrics" | "/-/healthy" | "/-/ready" => return Reply::not_allowed("GET, HEAD"),
            _ => return Reply::text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        };
        match page {
            "/metrics" => self.page(SAMPLES, |metrics| metrics.render(SystemTime::now())).await,
            "/-/healthy" => self.healthy(),
            "/-/ready" => self.ready(),
            _ => self.page(HTML, |metrics| landing::page(metrics).into_bytes()).await,
        }
    }

    async fn page(&self, content_type: &'static str, render: impl FnOnce(&Metrics) -> Vec<u8>) -> Reply {
        let turn = Arc::clone(&self.pages).acquire_owned();
        let Ok(Ok(permit)) = timeout(self.page_patience, turn).await else {
            return Reply::text(StatusCode::SERVICE_UNAVAILABLE, "Too many pages are still being sent.\n");
        };
        let permit = Some(permit);
        let body = render(&self.state.metrics);
        Reply { content_type, permit, compressible: true, ..Reply::new(StatusCode::OK, body) }
    }

    fn healthy(&self) -> Reply {
        match self.state.health.stuck(Instant::now()) {
            None => Reply::text(StatusCode::OK, "healthy\n"),
            Some(part) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{part} is stuck\n")),
        }
    }

    fn ready(&self) -> Reply {
        let readiness = self.state.health.readiness();
        let status = match readiness {
            Readiness::Ready => StatusCode::OK,
            Readiness::Starting | Readiness::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Reply::text(status, format!("{}\n", readiness.name()))
    }

    async fn reload(&self) -> Reply {
        let (answer, result) = oneshot::channel();
        match self.state.reload.try_send(ReloadRequest { answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Reply::text(StatusCode::SERVICE_UNAVAILABLE, "Another reload is waiting already.\n");
            }
            Err(TrySendError::Closed(_)) => return stopping(),
        }
        match timeout(RELOAD_PATIENCE, result).await {
            Ok(Ok(Ok(()))) => Reply::text(StatusCode::OK, "The configuration was reloaded.\n"),
            Ok(Ok(Err(problems))) => {
                Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", problems.trim_end()))
            }
            Ok(Err(_)) => stopping(),
            Err(_) => Reply::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The reload takes long: its result will be in the log.\n",
            ),
        }
    }
}

fn stopping() -> Reply {
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, "The daemon is stopping.\n")
}

fn refused(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::BadHost => Reply::text(StatusCode::BAD_REQUEST, "A request needs one valid Host header.\n"),
        Refusal::ForeignHost => Reply::text(
            StatusCode::FORBIDDEN,
            "This Host is not served: add its name to `hostnames` in [server] of the configuration.\n",
        ),
        Refusal::ForeignOrigin => Reply::text(
            StatusCode::FORBIDDEN,
            "This Origin is foreign: add its name to `hostnames` in [server] of the configuration.\n",
        ),
    }
}

/// A response before it is one.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    allow: Option<&'static str>,
    compressible: bool,
    permit: Option<OwnedSemaphorePermit>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: StatusCode, body: Vec<u8>) -> Self {
        Self { status, content_type: TEXT, allow: None, compressible: false, permit: None, body }
    }

    fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::new(status, text.into().into_bytes())
    }

    fn not_allowed(allow: &'static str) -> Self {
        let reply = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("Allowed here: {allow}.\n"));
        Self { allow: Some(allow), ..reply }
    }

    fn into_response(self, head: &request::Parts, work: Work) -> Response<Full<Bytes>> {
        let Self { status, content_type, allow, compressible, permit, mut body } = self;
        let compressed = compressible && prefers_gzip(&head.headers);
        if compressed {
            body = gzip(&body);
        }
        let bytes = Bytes::from_owner(Held { body, _permit: permit, _work: work });
        let mut response = Response::new(Full::new(bytes));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(landing::POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if compressible {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if compressed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(allow) = allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// A body with what must last until its last byte has been taken.
#[derive(Debug)]
struct Held {
    body: Vec<u8>,
    _permit: Option<OwnedSemaphorePermit>,
    _work: Work,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}
