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
    header::{self, HeaderName, HeaderValue},
    http::request,
};
use rustls::sign::CertifiedKey;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    access::Access,
    activity::Work,
    encoding::{gzip, prefers_gzip},
    guard::{self, Place, Refusal},
    landing,
    pages::{Page, Pages},
    users::Rejection,
};
use crate::{
    config,
    health::{Health, Readiness},
    metrics::Metrics,
};

const TEXT: &str = "text/plain; charset=utf-8";
const SAMPLES: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// What a browser asks its user for (RFC 7617, 2).
const CHALLENGE: &str = "Basic realm=\"langmart-prober\", charset=\"UTF-8\"";
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
    access: RwLock<Access>,
}

impl State {
    /// `reload` leads to whoever reloads; a request that finds it full is refused. `server` as configured.
    pub fn new(
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        reload: mpsc::Sender<ReloadRequest>,
        server: &config::Server,
    ) -> Self {
        Self { metrics, health, reload, access: RwLock::new(Access::new(server, None)) }
    }

    /// Takes over names, users and TLS of a new configuration.
    pub fn reconfigure(&self, server: &config::Server) {
        let access = Access::new(server, Some(&self.access()));
        self.replace(access);
    }

    /// Takes over a new certificate, which connections get from now on.
    pub fn certify(&self, certified: Arc<CertifiedKey>) {
        let access = self.access().certified(certified);
        self.replace(access);
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    fn access(&self) -> Access {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, access: Access) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
    }
}

/// The state as one listener serves it.
#[derive(Debug)]
pub(super) struct Site {
    state: Arc<State>,
    address: SocketAddr,
    pages: Pages,
    login_patience: Duration,
}

impl Site {
    pub(super) fn new(state: Arc<State>, address: SocketAddr, login_patience: Duration) -> Self {
        Self { state, address, pages: Pages::default(), login_patience }
    }

    /// What a new connection has to speak first; `None`: plain HTTP.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.state.access().tls
    }

    /// Now and then.
    pub(super) fn tidy(&self) {
        self.pages.tidy();
    }

    /// Answers a request; `work` lasts until the response has been taken, `secure` tells that it came over TLS. The body
    /// of a request means nothing here and is not read: hyper closes the connection behind the response where one does
    /// not end by itself.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        work: Work,
        secure: bool,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, _) = request.into_parts();
        let reply = match self.admit(&head, secure).await {
            Ok(()) => self.route(&head, &work).await,
            Err(refused) => refused,
        };
        Ok(reply.into_response(work))
    }

    /// Users first: whoever is none learns nothing, not even which names are served.
    async fn admit(&self, head: &request::Parts, secure: bool) -> Result<(), Reply> {
        let Access { hostnames, users, .. } = self.state.access();
        if let Some(users) = users {
            users.admit(&head.headers, self.login_patience).await.map_err(rejected)?;
        }
        let default_port = if secure { 443 } else { 80 };
        let place = Place { listen: self.address, hostnames: &hostnames, default_port };
        guard::admit(head, &place).map_err(refused)
    }

    async fn route(&self, head: &request::Parts, work: &Work) -> Reply {
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        let page = match head.uri.path() {
            "/-/reload" if head.method == Method::POST => {
                let _pinned = work.pin();
                return self.reload().await;
            }
            "/-/reload" => return Reply::not_allowed("POST"),
            page @ ("/" | "/metrics" | "/-/healthy" | "/-/ready") if reads => page,
            "/" | "/metrics" | "/-/healthy" | "/-/ready" => return Reply::not_allowed("GET, HEAD"),
            _ => return Reply::text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        };
        match page {
            "/metrics" => {
                self.page("/metrics", SAMPLES, head, work, |metrics| metrics.render(SystemTime::now()))
            }
            "/-/healthy" => self.healthy(),
            "/-/ready" => self.ready(),
            _ => self.page("/", HTML, head, work, |metrics| landing::page(metrics).into_bytes()),
        }
    }

    /// A page that can be large. Readers that ask for the same `name` at about the same time get the same one.
    fn page(
        &self,
        name: &'static str,
        content_type: &'static str,
        head: &request::Parts,
        work: &Work,
        render: impl FnOnce(&Metrics) -> Vec<u8>,
    ) -> Reply {
        let compressed = prefers_gzip(&head.headers);
        let page = self.pages.page(name, compressed, self.state.metrics.edition(), work.activity(), || {
            let page = render(&self.state.metrics);
            if compressed { gzip(&page) } else { page }
        });
        Reply { status: StatusCode::OK, content_type, header: None, body: Body::Page { page, compressed } }
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

fn rejected(rejection: Rejection) -> Reply {
    let text = match rejection {
        Rejection::Unknown => "Name and password of a user are needed.\n",
        Rejection::Busy => "Too many passwords wait to be checked: try again in some seconds.\n",
    };
    let challenge = (header::WWW_AUTHENTICATE, CHALLENGE);
    Reply { header: Some(challenge), ..Reply::text(StatusCode::UNAUTHORIZED, text) }
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
    /// One more than all have.
    header: Option<(HeaderName, &'static str)>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Text(String),
    Page { page: Arc<Page>, compressed: bool },
}

impl Reply {
    fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, header: None, body: Body::Text(text.into()) }
    }

    fn not_allowed(allow: &'static str) -> Self {
        let reply = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("Allowed here: {allow}.\n"));
        Self { header: Some((header::ALLOW, allow)), ..reply }
    }

    fn into_response(self, work: Work) -> Response<Full<Bytes>> {
        let Self { status, content_type, header, body } = self;
        let compressed = match &body {
            Body::Text(_) => None,
            Body::Page { compressed, .. } => Some(*compressed),
        };
        let mut response = Response::new(Full::new(Bytes::from_owner(Held { body, _work: work })));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(landing::POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if compressed.is_some() {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if compressed == Some(true) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A body with what must last until its last byte has been taken.
#[derive(Debug)]
struct Held {
    body: Body,
    _work: Work,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        match &self.body {
            Body::Text(text) => text.as_bytes(),
            Body::Page { page, .. } => (**page).as_ref(),
        }
    }
}
