//! Status pages and LangMart's account: documents, fetched by a general HTTP client with the
//! resolver of the other checks. Redirects of a status page are followed.

use std::{
    future::pending,
    io,
    panic::resume_unwind,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use reqwest::{
    Client, Proxy, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT_ENCODING, HeaderMap, HeaderValue},
    redirect::{Attempt, Policy},
};
use tokio::{
    runtime::{self, Handle},
    time::timeout_at,
};

use super::{
    dial::DialError,
    exchange::Response,
    failure::{self, Failure, Route, find},
    name_server::{ask_system_servers, explain},
    path::{Hop, PathError, PrepareError},
    request::AGENT,
    resolver::{ResolveError, Resolver},
    tls::{Tls, TlsError},
    transcript::Recording,
};
use crate::{
    config::Provider,
    outcome::{Detail, Fault, LookupFailure, Phase, Phases, ProxyFailure, Reason},
};

/// Maximum number of redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// Maximum number of bytes of a page.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Fetches a document.
pub(super) struct Document {
    client: Client,
    url: Url,
    /// Headers of the request, which can have a key; none for a status page.
    headers: HeaderMap,
    route: Route,
    /// Whether a lookup is not answered.
    in_lookup: Arc<AtomicBool>,
}

/// Result of fetching a page.
pub(super) struct Fetched {
    /// The response. `None` if there was none.
    pub(super) response: Option<Response>,
    /// The failure. `None` if the response is complete.
    pub(super) failure: Option<Failure>,
    pub(super) phases: Phases,
    /// From the start until the response's head had arrived.
    pub(super) until_head: Duration,
}

impl Document {
    /// Prepares a document. With headers, which reach no other host, no redirect is followed.
    pub(super) fn new(
        provider: &Provider,
        url: Url,
        headers: HeaderMap,
        tls: &Tls,
        resolver: Resolver,
    ) -> Result<Self, PrepareError> {
        let error = |cause: &str| PrepareError::new(provider, cause);
        let in_lookup = Arc::new(AtomicBool::new(false));
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls.config())
            .dns_resolver(SystemResolver { resolver, in_lookup: in_lookup.clone() })
            .user_agent(AGENT)
            .pool_max_idle_per_host(0)
            .redirect(if headers.is_empty() { Policy::custom(redirect) } else { Policy::none() })
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy();
        if let Some(url) = &provider.proxy {
            // The cause would show the URL, in which the client keeps the credentials.
            let mut proxy = Proxy::all(url.clone()).map_err(|_| error("the proxy's URL cannot be used"))?;
            if let Some((user, password)) = provider.proxy_credentials() {
                proxy = proxy.basic_auth(user, password);
            }
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|_| error("no HTTP client can be built"))?;
        let route = Route { api: provider.api, proxied: provider.proxy.is_some() };
        Ok(Self { client, url, headers, route, in_lookup })
    }

    /// Fetches the page, on a thread of its own. `timeout` bounds everything.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        timeout: Duration,
        recording: Option<&mut Recording>,
    ) -> Fetched {
        let Some(thread) = document_thread().filter(|_| recording.is_none()) else {
            return self.fetch_here(timeout, recording).await;
        };
        let document = self.clone();
        let fetching = thread.spawn(async move { document.fetch_here(timeout, None).await });
        fetching.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }

    /// Fetches the page. Up to the head all time counts as processing, since the path to a page is
    /// not a property of the service.
    async fn fetch_here(&self, timeout: Duration, recording: Option<&mut Recording>) -> Fetched {
        self.in_lookup.store(false, Relaxed);
        let started = Instant::now();
        let deadline = started + timeout;
        let (mut response, mut head) = (None, None);
        let reading = self.read(&mut response, &mut head, recording);
        let ending = timeout_at(deadline.into(), reading).await;
        let ended = Instant::now();
        let failure = match ending {
            Ok(Ok(())) => None,
            Ok(Err(FetchError::TooLarge)) => {
                let detail = Detail::BodyExceeded(MAX_PAGE_BYTES >> 20);
                Some(Failure::new(Reason::Malformed, self.route.api.endpoint(), detail))
            }
            Ok(Err(FetchError::Client(error))) => Some(self.failure(&error)),
            Err(_) => {
                let phase = match head {
                    Some(_) => Phase::Transfer,
                    None if self.in_lookup.load(Relaxed) => Phase::Resolve,
                    None => Phase::Processing,
                };
                Some(failure::late(phase, timeout, self.route.api))
            }
        };
        let head = head.unwrap_or(ended);
        let until_head = head - started;
        let phases = Phases { processing: until_head, transfer: ended - head, ..Phases::default() };
        Fetched { response, failure, phases, until_head }
    }

    async fn read(
        &self,
        response: &mut Option<Response>,
        head: &mut Option<Instant>,
        mut recording: Option<&mut Recording>,
    ) -> Result<(), FetchError> {
        let request = self.client.get(self.url.clone()).headers(self.headers.clone());
        let identity = HeaderValue::from_static("identity");
        let mut incoming = request.header(ACCEPT_ENCODING, identity).send().await?;
        *head = Some(Instant::now());
        let response = response.insert(Response {
            status: incoming.status().as_u16(),
            version: if incoming.version() == reqwest::Version::HTTP_2 { "2" } else { "1.1" },
            headers: std::mem::take(incoming.headers_mut()),
            body: Vec::new(),
            remote_address: incoming.remote_addr(),
        });
        if let Some(recording) = &mut recording {
            recording.answered(response.status, response.version, &response.headers);
        }
        while let Some(chunk) = incoming.chunk().await? {
            if let Some(recording) = &mut recording {
                recording.received(&chunk);
            }
            if response.body.len() + chunk.len() > MAX_PAGE_BYTES {
                return Err(FetchError::TooLarge);
            }
            response.body.extend_from_slice(&chunk);
        }
        Ok(())
    }

    /// Returns the verdict on an error of the client, by the types in its chain.
    fn failure(&self, error: &reqwest::Error) -> Failure {
        let Self { route, url, .. } = self;
        let mut failure = if !error.is_connect() {
            failure::http(error, route.api, None)
        } else if let Some(LookupFailed(failure)) = find(error).next() {
            failure::path(&PathError::Resolve(Hop::Target, *failure), *route)
        } else if route.proxied {
            Failure::new(Reason::Proxy, Fault::Network, Detail::Proxy(ProxyFailure::NoConnection))
        } else if let Some(error) = find::<rustls::Error>(error).next() {
            failure::path(&PathError::Tls(Hop::Target, TlsError::from_rustls(error)), *route)
        } else {
            let error = find::<io::Error>(error).last();
            let code = error.and_then(io::Error::raw_os_error).map(io::Error::from_raw_os_error);
            let error = code.unwrap_or_else(|| error.map_or(io::ErrorKind::Other, io::Error::kind).into());
            failure::path(&PathError::Dial(Hop::Target, DialError::Io(error)), *route)
        };
        // The host that fails is not the configured one then.
        if error.url().is_some_and(|failed| failed != url) {
            failure.detail = Detail::AfterRedirect(Box::new(failure.detail));
        }
        failure
    }
}

/// Returns the runtime of the thread that fetches pages. Returns `None` if it cannot
/// be started.
///
/// The client neither bounds what a server sends below HTTP nor yields while it reads it. On this
/// thread it cannot delay the probes.
fn document_thread() -> Option<&'static Handle> {
    static THREAD: OnceLock<Option<Handle>> = OnceLock::new();
    let start = || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        let run = move || runtime.block_on(pending::<()>());
        thread::Builder::new().name("status-pages".to_owned()).spawn(run).ok()?;
        Some(handle)
    };
    THREAD.get_or_init(start).as_ref()
}

/// Follows up to three redirects, never from https to http, and to no URL with credentials. The
/// client sends none of ours.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last();
    let followed = attempt.previous().len();
    if followed <= MAX_REDIRECTS && from.is_some_and(|from| may_follow(from, attempt.url())) {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

fn may_follow(from: &Url, target: &Url) -> bool {
    let secure = target.scheme() == "https" || target.scheme() == "http" && from.scheme() == "http";
    secure && target.username().is_empty() && target.password().is_none() && target.has_host()
}

enum FetchError {
    Client(reqwest::Error),
    TooLarge,
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Client(error)
    }
}

/// The name has no address, and why.
#[derive(Debug, thiserror::Error)]
#[error("no address")]
struct LookupFailed(LookupFailure);

/// Resolver of the client.
#[derive(Clone, Debug)]
struct SystemResolver {
    resolver: Resolver,
    in_lookup: Arc<AtomicBool>,
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        /// Maximum duration of the explanation of a failure.
        const EXPLANATION: Duration = Duration::from_secs(2);
        let Self { resolver, in_lookup } = self.clone();
        Box::pin(async move {
            in_lookup.store(true, Relaxed);
            let (answer, _) = resolver.resolve(name.as_str()).await;
            in_lookup.store(false, Relaxed);
            match answer {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err(error) => {
                    let servers = match error {
                        ResolveError::LocalShortage => Vec::new(),
                        _ => ask_system_servers(name.as_str(), Instant::now() + EXPLANATION).await,
                    };
                    Err(LookupFailed(explain(error, &servers)).into())
                }
            }
        })
    }
}
