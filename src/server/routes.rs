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
    header::{self, HeaderMap, HeaderName, HeaderValue},
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
    activity::{Activity, Work},
    demand::{self, RunRequest},
    encoding::{gzip, prefers_gzip},
    guard::{self, Place, Refusal},
    listener::Limits,
    pages::{Page, Pages},
    users::Rejection,
    waiting::Waiters,
};
use crate::{
    config,
    health::{Health, Readiness},
    history::{History, ProbeHistory},
    metrics::Metrics,
    page::{self, Filter, Listing, Prober, View},
};

const TEXT: &str = "text/plain; charset=utf-8";
const SAMPLES: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
/// On every response: only what is served here is loaded, nothing stands inline, and no other site embeds or reads it.
const PROTECTION: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];
/// What a browser asks its user for (RFC 7617, 2).
const CHALLENGE: &str = "Basic realm=\"langmart-prober\", charset=\"UTF-8\"";
/// When a client that was refused for lack of room may ask again.
const BUSY_RETRY_AFTER_SECONDS: &str = "5";
/// A write that takes longer is reported: the disk does not respond.
const BLOCKED_WRITE: Duration = Duration::from_secs(10);
/// Below the time that a connection has for a request.
const RELOAD_PATIENCE: Duration = Duration::from_secs(25);

/// Someone asks for a reload and waits.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Takes the result: the problems, one a line, where the configuration could not be loaded.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// Where wishes lead that requests can have. One that finds its channel full is refused.
#[derive(Debug)]
pub struct Wishes {
    /// To whoever reloads.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// To whoever runs probes.
    pub runs: mpsc::Sender<RunRequest>,
}

/// What the pages show and what requests can cause.
#[derive(Debug)]
pub struct State {
    metrics: Arc<Metrics>,
    history: Arc<History>,
    health: Arc<Health>,
    wishes: Wishes,
    access: RwLock<Access>,
}

impl State {
    /// `server` as configured.
    pub fn new(
        metrics: Arc<Metrics>,
        history: Arc<History>,
        health: Arc<Health>,
        wishes: Wishes,
        server: &config::Server,
    ) -> Self {
        Self { metrics, history, health, wishes, access: RwLock::new(Access::new(server, None)) }
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
    /// Requests that wait for a run of `/probe`, from all clients together: their connections are pinned.
    run_waiters: Arc<Waiters>,
    /// Requests that wait for a password to be checked.
    login_waiters: Arc<Waiters>,
    /// Requests that wait for a page to be rendered.
    page_waiters: Arc<Waiters>,
}

impl Site {
    pub(super) fn new(state: Arc<State>, address: SocketAddr, limits: &Limits) -> Self {
        Self {
            state,
            address,
            pages: Pages::default(),
            login_patience: limits.patience.login,
            run_waiters: Waiters::new(limits.connections),
            login_waiters: Waiters::new(limits.connections),
            page_waiters: Waiters::new(limits.connections),
        }
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
        let reply = match self.admit(&head, secure, work.activity()).await {
            Ok(()) => self.route(&head, &work, secure).await,
            Err(refused) => refused,
        };
        Ok(reply.into_response(work))
    }

    /// Users first: whoever is none learns nothing, not even which names are served.
    async fn admit(&self, head: &request::Parts, secure: bool, activity: &Activity) -> Result<(), Reply> {
        let Access { hostnames, users, .. } = self.state.access();
        if let Some(users) = users {
            let wait = || self.login_waiters.enter(activity.client());
            users.admit(&head.headers, self.login_patience, wait).await.map_err(rejected)?;
        }
        let default_port = if secure { 443 } else { 80 };
        let place = Place { listen: self.address, hostnames: &hostnames, default_port };
        guard::admit(head, &place).map_err(refused)
    }

    async fn route(&self, head: &request::Parts, work: &Work, secure: bool) -> Reply {
        let path = head.uri.path();
        if path == "/-/reload" {
            if head.method != Method::POST {
                return Reply::not_allowed("POST");
            }
            let _pinned = work.pin();
            return self.reload().await;
        }
        let Some(resource) = self.resource(path) else {
            return Reply::text(StatusCode::NOT_FOUND, "There is nothing here.\n");
        };
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Reply::not_allowed("GET, HEAD");
        }
        match resource {
            Resource::Healthy => self.healthy(),
            Resource::Ready => self.ready(),
            Resource::Page(name, content_type, render) => self.page(name, content_type, head, work, render),
            Resource::Probe(history) => {
                let render = |view: &View<'_>, _: &Metrics| page::detail(view, &history).into_bytes();
                self.page_in_turn(path, HTML, head, work, render).await
            }
            Resource::Json(listing) => self.json(listing, head, work).await,
            Resource::Run if head.method == Method::GET => self.run(head, work, secure).await,
            // To look at the head alone must not spend a run.
            Resource::Run => Reply::not_allowed("GET"),
        }
    }

    /// What is there; `None`: nothing.
    fn resource(&self, path: &str) -> Option<Resource> {
        Some(match path {
            "/" => Resource::Page("/", HTML, |view, _| page::overview(view).into_bytes()),
            "/metrics" => Resource::Page("/metrics", SAMPLES, |view, metrics| metrics.render(view.now)),
            "/style.css" => {
                Resource::Page("/style.css", "text/css; charset=utf-8", |_, _| page::STYLE.into())
            }
            "/page.js" => {
                Resource::Page("/page.js", "text/javascript; charset=utf-8", |_, _| page::SCRIPT.into())
            }
            "/icon.svg" => Resource::Page("/icon.svg", "image/svg+xml", |_, _| page::ICON.into()),
            "/api/v1/results" => Resource::Json(Listing::Results),
            "/api/v1/probes" => Resource::Json(Listing::Probes),
            "/probe" => Resource::Run,
            "/-/healthy" => Resource::Healthy,
            "/-/ready" => Resource::Ready,
            _ => {
                let all = self.state.history.all();
                Resource::Probe(Arc::clone(all.get(path.strip_prefix("/probes/")?)?))
            }
        })
    }

    /// A run of now, in the names of `blackbox_exporter`.
    async fn run(&self, head: &request::Parts, work: &Work, secure: bool) -> Reply {
        let State { history, wishes, .. } = &*self.state;
        let allowed = self.state.access().probe_generation;
        let Some(_place) = self.run_waiters.enter(None) else {
            return Reply::busy("Too many requests wait for runs already.\n");
        };
        let _pinned = work.pin();
        match demand::run(head, history, &wishes.runs, allowed, secure).await {
            Ok(answer) => Reply { content_type: SAMPLES, ..Reply::text(StatusCode::OK, answer) },
            Err((status, text)) => Reply::text(status, text),
        }
    }

    /// Records or probes, as the query asks.
    async fn json(&self, listing: Listing, head: &request::Parts, work: &Work) -> Reply {
        let filter = match Filter::parse(head.uri.query().unwrap_or_default(), listing) {
            Ok(filter) => filter,
            Err(error) => return Reply::text(StatusCode::BAD_REQUEST, format!("{error}.\n")),
        };
        // Readers who ask for the same in the same words share the answer.
        let name = head.uri.path_and_query().map_or("", |path| path.as_str());
        let render = match listing {
            Listing::Results => page::results,
            Listing::Probes => page::probes,
        };
        self.page_in_turn(name, JSON, head, work, |view, _| render(view, &filter)).await
    }

    /// A page that can be large. Readers that ask for the same `name` at about the same time get the same one.
    fn page(
        &self,
        name: &str,
        content_type: &'static str,
        head: &request::Parts,
        work: &Work,
        render: impl FnOnce(&View<'_>, &Metrics) -> Vec<u8>,
    ) -> Reply {
        let compressed = prefers_gzip(&head.headers);
        let edition = self.state.metrics.edition();
        let page =
            self.pages.page(name, compressed, edition, work.activity(), self.rendering(compressed, render));
        given(page, content_type, head, compressed)
    }

    /// The same, one of the many that requests can name.
    async fn page_in_turn(
        &self,
        name: &str,
        content_type: &'static str,
        head: &request::Parts,
        work: &Work,
        render: impl FnOnce(&View<'_>, &Metrics) -> Vec<u8>,
    ) -> Reply {
        let compressed = prefers_gzip(&head.headers);
        let edition = self.state.metrics.edition();
        let make = self.rendering(compressed, render);
        let Some(_place) = self.page_waiters.enter(work.activity().client()) else {
            return Reply::busy("Too many of your requests wait for pages already.\n");
        };
        match self.pages.page_in_turn(name, compressed, edition, work.activity(), make).await {
            Some(page) => given(page, content_type, head, compressed),
            None => Reply::busy("Too many large answers are on their way: ask again in some seconds.\n"),
        }
    }

    fn rendering(
        &self,
        compressed: bool,
        render: impl FnOnce(&View<'_>, &Metrics) -> Vec<u8>,
    ) -> impl FnOnce() -> Vec<u8> {
        let State { metrics, history, health, .. } = &*self.state;
        move || {
            let now = SystemTime::now();
            let prober = Prober {
                readiness: health.readiness().name(),
                stuck: health.stuck(Instant::now()),
                offline: metrics.offline(now),
                started: metrics.started(),
                own: metrics.own(),
            };
            let view = View { history, budget: metrics.budget(), prober, now };
            let page = render(&view, metrics);
            if compressed { gzip(&page) } else { page }
        }
    }

    /// A file that cannot be written does not end the probing, so it is named and does not count as unhealthy.
    fn healthy(&self) -> Reply {
        match self.state.health.stuck(Instant::now()) {
            None => {
                let blocked = |(file, since): (&str, Duration)| {
                    let seconds = since.as_secs();
                    (since >= BLOCKED_WRITE).then(|| format!("{file}: write blocked for {seconds} s\n"))
                };
                let writes = self.state.metrics.writes_in_progress();
                let blocked: String = writes.into_iter().filter_map(blocked).collect();
                Reply::text(StatusCode::OK, format!("healthy\n{blocked}"))
            }
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
        match self.state.wishes.reload.try_send(ReloadRequest { answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Reply::busy("Another reload is waiting already.\n");
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

/// What is behind a path.
enum Resource {
    Healthy,
    Ready,
    /// Name, content type, and how it is made.
    Page(&'static str, &'static str, fn(&View<'_>, &Metrics) -> Vec<u8>),
    Probe(Arc<ProbeHistory>),
    /// What scripts read.
    Json(Listing),
    /// A run of now.
    Run,
}

/// A page as an answer: its bytes, or that the client has them.
fn given(page: Arc<Page>, content_type: &'static str, head: &request::Parts, compressed: bool) -> Reply {
    let status = if is_known(&head.headers, page.tag()) { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    Reply { status, content_type, header: None, body: Body::Page { page, compressed } }
}

/// Whether the client has these bytes already (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

fn stopping() -> Reply {
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, "The daemon is stopping.\n")
}

fn rejected(rejection: Rejection) -> Reply {
    match rejection {
        Rejection::Unknown => Reply {
            header: Some((header::WWW_AUTHENTICATE, CHALLENGE)),
            ..Reply::text(StatusCode::UNAUTHORIZED, "Authentication required.\n")
        },
        Rejection::Busy => Reply::busy("Too many passwords wait to be checked: try again in some seconds.\n"),
    }
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

    /// Refuses a request for which there is no room now.
    fn busy(text: &'static str) -> Self {
        let reply = Self::text(StatusCode::SERVICE_UNAVAILABLE, text);
        Self { header: Some((header::RETRY_AFTER, BUSY_RETRY_AFTER_SECONDS)), ..reply }
    }

    fn not_allowed(allow: &'static str) -> Self {
        let reply = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("Allowed here: {allow}.\n"));
        Self { header: Some((header::ALLOW, allow)), ..reply }
    }

    fn into_response(self, work: Work) -> Response<Full<Bytes>> {
        let Self { status, content_type, header, body } = self;
        let (compressed, tag) = match &body {
            Body::Text(_) => (None, None),
            Body::Page { page, compressed } => (Some(*compressed), HeaderValue::from_str(page.tag()).ok()),
        };
        let body = if status == StatusCode::NOT_MODIFIED { Body::Text(String::new()) } else { body };
        let mut response = Response::new(Full::new(Bytes::from_owner(Held { body, _work: work })));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // Kept by nobody but the browser that asks, and asked for again each time.
        let caching = if tag.is_some() { "private, no-cache" } else { "no-store" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        for (name, value) in PROTECTION {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(tag) = tag {
            headers.insert(header::ETAG, tag);
        }
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
