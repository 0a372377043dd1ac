//! The routes of the listener and their responses.

use std::{
    convert::Infallible,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderMap},
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
use tracing::warn;

use super::{
    accept::preferred_format,
    access::Access,
    activity::{ActiveRequest, Activity},
    encoding::{gzip, plain, prefers_gzip},
    guard::{self, Refusal, ServedHosts},
    listener::Limits,
    on_demand::{self, RunRequest},
    reply::{Body, Reply, ResponseBody},
    response_cache::{CachedResponse, ResponseCache},
    users::Rejection,
    waiting::Waiters,
};
use crate::{
    config,
    health::{Health, Readiness},
    history::{History, ProbeHistory},
    metrics::{Format, Metrics},
    page::{self, Filter, Listing, Prober, View},
    pieces::Pieces,
    sync::RwLock,
};

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
/// The challenge of basic authentication (RFC 7617, 2).
const CHALLENGE: &str = "Basic realm=\"langmart-prober\", charset=\"UTF-8\"";
/// Duration after which a write is reported as blocked.
const BLOCKED_WRITE_AFTER: Duration = Duration::from_secs(10);
/// Timeout of a reload, below that of a request.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(25);

/// A request for a reload.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Receives the result; the error lists the problems of the configuration, one per line.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// Channels to the daemon for requests that control it. A request is refused if its channel is
/// full.
#[derive(Debug)]
pub struct ControlHandles {
    /// To the main loop.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// To the scheduler.
    pub runs: mpsc::Sender<RunRequest>,
}

/// The state that requests read and change.
#[derive(Debug)]
pub struct ServerState {
    metrics: Arc<Metrics>,
    history: Arc<History>,
    health: Arc<Health>,
    control: ControlHandles,
    access: RwLock<Access>,
    /// Whether the refusal of a Host has been logged since the last configuration.
    host_refusal_logged: AtomicBool,
}

impl ServerState {
    /// Creates the state with the configuration of the listener.
    pub fn new(
        metrics: Arc<Metrics>,
        history: Arc<History>,
        health: Arc<Health>,
        control: ControlHandles,
        server: &config::Server,
    ) -> Self {
        let access = RwLock::new(Access::new(server, None));
        Self { metrics, history, health, control, access, host_refusal_logged: AtomicBool::new(false) }
    }

    /// Applies host names, users and TLS of a new configuration.
    pub fn reconfigure(&self, server: &config::Server) {
        let access = Access::new(server, Some(&self.access()));
        self.replace(access);
        self.host_refusal_logged.store(false, Ordering::Relaxed);
    }

    /// Sets the certificate of new connections.
    pub fn set_certificate(&self, certified: Arc<CertifiedKey>) {
        let access = self.access().with_certificate(certified);
        self.replace(access);
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    fn access(&self) -> Access {
        self.access.read().clone()
    }

    fn replace(&self, access: Access) {
        *self.access.write() = access;
    }

    /// Logs the first refusal of a Host, without its value, which is text from the network.
    fn log_host_refusal(&self, activity: &Activity) {
        if !self.host_refusal_logged.swap(true, Ordering::Relaxed) {
            let client = activity.client().map(|client| tracing::field::display(client.to_canonical()));
            warn!(
                client,
                "Request refused: its Host is neither the listen address nor in server.hostnames; add the name by \
                 which the client addresses the prober to server.hostnames"
            );
        }
    }
}

/// The state of one listener.
#[derive(Debug)]
pub(super) struct Site {
    state: Arc<ServerState>,
    address: SocketAddr,
    cache: ResponseCache,
    login_timeout: Duration,
    /// Requests that wait for a run of `/probe`, counted without regard to the client, because
    /// their connections are pinned.
    run_waiters: Arc<Waiters>,
    /// Requests that wait for a password check.
    login_waiters: Arc<Waiters>,
    /// Requests that wait for the rendering of a page.
    page_waiters: Arc<Waiters>,
}

impl Site {
    pub(super) fn new(state: Arc<ServerState>, address: SocketAddr, limits: &Limits) -> Self {
        Self {
            state,
            address,
            cache: ResponseCache::default(),
            login_timeout: limits.timeouts.login,
            run_waiters: Waiters::new(limits.connections),
            login_waiters: Waiters::new(limits.connections),
            page_waiters: Waiters::new(limits.connections),
        }
    }

    /// Returns the TLS acceptor for a new connection, or `None` for plain HTTP.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.state.access().tls
    }

    /// Frees memory. Called periodically.
    pub(super) fn remove_unused(&self) {
        self.cache.remove_unused();
    }

    /// Answers a request. `work` is held until the response has been sent; `secure` is true with
    /// TLS. The body of the request is not read; hyper closes the connection after the response if
    /// there is one.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        work: ActiveRequest,
        secure: bool,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let (head, _) = request.into_parts();
        let reply = match self.check_access(&head, secure, work.activity()).await {
            Ok(()) => self.route(&head, &work, secure).await,
            Err(refused) => refused,
        };
        Ok(reply.into_response(work))
    }

    /// Authenticates first, so that others learn nothing, not even the host names.
    async fn check_access(
        &self,
        head: &request::Parts,
        secure: bool,
        activity: &Activity,
    ) -> Result<(), Reply> {
        let Access { hostnames, users, .. } = self.state.access();
        let authenticated = users.is_some();
        if let Some(users) = users {
            let wait = || self.login_waiters.enter(activity.client());
            users.authenticate(&head.headers, self.login_timeout, wait).await.map_err(rejected)?;
        }
        let default_port = if secure { 443 } else { 80 };
        let hosts = ServedHosts { listen: self.address, hostnames: &hostnames, default_port };
        let checked = guard::check_request(head, &hosts, authenticated);
        if checked == Err(Refusal::ForeignHost) {
            self.state.log_host_refusal(activity);
        }
        checked.map_err(refused)
    }

    async fn route(&self, head: &request::Parts, work: &ActiveRequest, secure: bool) -> Reply {
        let path = head.uri.path();
        if path == "/-/reload" {
            if head.method != Method::POST {
                return Reply::not_allowed("POST");
            }
            let _pinned = work.pin();
            return self.reload().await;
        }
        let Some(resource) = self.resource(path) else {
            let text = if path.starts_with("/probes/") {
                "No probe has this name; the page / lists all.\n"
            } else {
                "Not found.\n"
            };
            return Reply::text(StatusCode::NOT_FOUND, text);
        };
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Reply::not_allowed("GET, HEAD");
        }
        match resource {
            Resource::Healthy => self.healthy(),
            Resource::Ready => self.ready(),
            Resource::Page(name, content_type, render) => self.page(name, content_type, head, work, render),
            Resource::Metrics => {
                let format = preferred_format(&head.headers);
                let name = format.content_type();
                let render = |view: &View<'_>, metrics: &Metrics, out: &mut dyn Write| {
                    metrics.render(view.now, format, out)
                };
                let reply = self.page(name, name, head, work, render);
                Reply { header: Some((header::VARY, "Accept, Accept-Encoding")), ..reply }
            }
            Resource::Probe(history) => {
                let render = |view: &View<'_>, _: &Metrics, out: &mut dyn Write| {
                    out.write_all(page::detail(view, &history).as_bytes())
                };
                self.throttled_page(path, HTML, head, work, render).await
            }
            Resource::Json(listing) => self.json(listing, head, work).await,
            Resource::Run if head.method == Method::GET => self.run(head, work, secure).await,
            // A HEAD request must not cause a run.
            Resource::Run => Reply::not_allowed("GET"),
        }
    }

    /// Returns the resource of a path.
    fn resource(&self, path: &str) -> Option<Resource> {
        Some(match path {
            "/" => Resource::Page("/", HTML, |view, _, out| out.write_all(page::overview(view).as_bytes())),
            "/metrics" => Resource::Metrics,
            "/style.css" => Resource::Page("/style.css", "text/css; charset=utf-8", |_, _, out| {
                out.write_all(page::STYLE.as_bytes())
            }),
            "/page.js" => Resource::Page("/page.js", "text/javascript; charset=utf-8", |_, _, out| {
                out.write_all(page::SCRIPT.as_bytes())
            }),
            "/icon.svg" => {
                Resource::Page("/icon.svg", "image/svg+xml", |_, _, out| out.write_all(page::ICON.as_bytes()))
            }
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

    /// Answers `/probe` with the metrics of a run.
    async fn run(&self, head: &request::Parts, work: &ActiveRequest, secure: bool) -> Reply {
        let ServerState { history, control, .. } = &*self.state;
        let allowed = self.state.access().probe_generation;
        let Some(_place) = self.run_waiters.enter(None) else {
            return Reply::busy("Too many requests are waiting for runs.\n");
        };
        let _pinned = work.pin();
        match on_demand::run(head, history, &control.runs, allowed, secure).await {
            Ok(answer) => {
                Reply { content_type: Format::Text.content_type(), ..Reply::text(StatusCode::OK, answer) }
            }
            Err((status, text)) => Reply::text(status, text),
        }
    }

    /// Answers with records or probes as JSON.
    async fn json(&self, listing: Listing, head: &request::Parts, work: &ActiveRequest) -> Reply {
        let filter = match Filter::parse(head.uri.query().unwrap_or_default(), listing) {
            Ok(filter) => filter,
            Err(error) => return Reply::text(StatusCode::BAD_REQUEST, format!("{error}.\n")),
        };
        // Requests with the same query share the response.
        let name = head.uri.path_and_query().map_or("", |path| path.as_str());
        let render = match listing {
            Listing::Results => page::results,
            Listing::Probes => page::probes,
        };
        self.throttled_page(name, JSON, head, work, |view, _, out| out.write_all(&render(view, &filter)))
            .await
    }

    /// Answers with a page from the cache, shared by requests for the same `name`.
    fn page(
        &self,
        name: &str,
        content_type: &'static str,
        head: &request::Parts,
        work: &ActiveRequest,
        render: impl FnOnce(&View<'_>, &Metrics, &mut dyn Write) -> io::Result<()>,
    ) -> Reply {
        let compressed = prefers_gzip(&head.headers);
        let edition = self.state.metrics.edition();
        let page = self.cache.get_or_render(
            name,
            compressed,
            edition,
            work.activity(),
            self.rendering(compressed, render),
        );
        page_reply(page, content_type, head, compressed)
    }

    /// Like [`Site::page`], for names that clients can choose.
    async fn throttled_page(
        &self,
        name: &str,
        content_type: &'static str,
        head: &request::Parts,
        work: &ActiveRequest,
        render: impl FnOnce(&View<'_>, &Metrics, &mut dyn Write) -> io::Result<()>,
    ) -> Reply {
        let compressed = prefers_gzip(&head.headers);
        let edition = self.state.metrics.edition();
        let render = self.rendering(compressed, render);
        let Some(_place) = self.page_waiters.enter(work.activity().client()) else {
            return Reply::busy("Too many of your requests are waiting for pages.\n");
        };
        match self.cache.get_or_render_throttled(name, compressed, edition, work.activity(), render).await {
            Some(page) => page_reply(page, content_type, head, compressed),
            None => Reply::busy("Too many large responses are being sent: try again in some seconds.\n"),
        }
    }

    fn rendering(
        &self,
        compressed: bool,
        render: impl FnOnce(&View<'_>, &Metrics, &mut dyn Write) -> io::Result<()>,
    ) -> impl FnOnce() -> Pieces {
        let ServerState { metrics, history, health, .. } = &*self.state;
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
            let write = |out: &mut dyn Write| render(&view, metrics, out);
            let written = if compressed { gzip(write) } else { plain(write) };
            written.expect("writing to memory fails only without memory")
        }
    }

    /// Reports blocked writes by file, which do not count as unhealthy, because probing continues.
    fn healthy(&self) -> Reply {
        match self.state.health.stuck(Instant::now()) {
            None => {
                let blocked = |(file, since): (&str, Duration)| {
                    let seconds = since.as_secs();
                    (since >= BLOCKED_WRITE_AFTER).then(|| format!("{file}: write blocked for {seconds} s\n"))
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
        match self.state.control.reload.try_send(ReloadRequest { answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Reply::busy("Another reload is already waiting.\n");
            }
            Err(TrySendError::Closed(_)) => return stopping(),
        }
        match timeout(RELOAD_TIMEOUT, result).await {
            Ok(Ok(Ok(()))) => Reply::text(StatusCode::OK, "The configuration was reloaded.\n"),
            Ok(Ok(Err(problems))) => {
                Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", problems.trim_end()))
            }
            Ok(Err(_)) => stopping(),
            Err(_) => Reply::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The reload is still running; its result will be in the log.\n",
            ),
        }
    }
}

/// The resource of a path.
enum Resource {
    Healthy,
    Ready,
    /// `/metrics`, in the format that the client prefers.
    Metrics,
    /// A page with its name, content type and renderer.
    Page(&'static str, &'static str, fn(&View<'_>, &Metrics, &mut dyn Write) -> io::Result<()>),
    Probe(Arc<ProbeHistory>),
    /// Records or probes as JSON.
    Json(Listing),
    /// An on-demand run.
    Run,
}

/// Answers with a page, or with 304 if the client has it.
fn page_reply(
    page: Arc<CachedResponse>,
    content_type: &'static str,
    head: &request::Parts,
    compressed: bool,
) -> Reply {
    let status =
        if has_current_copy(&head.headers, page.tag()) { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    Reply { status, content_type, header: None, body: Body::Page { page, compressed } }
}

/// Returns whether the client has the same bytes (RFC 9110, 13.1.2).
fn has_current_copy(headers: &HeaderMap, tag: &str) -> bool {
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
        Rejection::Busy => Reply::busy("Too many password checks are pending: try again in some seconds.\n"),
    }
}

fn refused(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::BadHost => {
            Reply::text(StatusCode::BAD_REQUEST, "The request must have one valid Host header.\n")
        }
        Refusal::ForeignHost => Reply::text(
            StatusCode::FORBIDDEN,
            "This Host is not allowed: add it to `hostnames` in [server] of the configuration.\n",
        ),
        Refusal::ForeignOrigin => Reply::text(
            StatusCode::FORBIDDEN,
            "This Origin is not allowed: add its host to `hostnames` in [server] of the configuration.\n",
        ),
    }
}
