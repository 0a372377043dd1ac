//! The network check: lookup, connection, proxy and TLS handshake as the other checks do them, and no request.

use std::{
    borrow::Cow,
    error::Error,
    future::{self, Ready},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::Uri;
use hyper_util::{
    client::legacy::connect::proxy::{SocksV5, Tunnel},
    rt::TokioIo,
};
use reqwest::{Url, header::HeaderValue};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tower::Service;

use super::{
    client::ClientError,
    clock::{self, Marks, Seen, mark, observed},
    dial::Dialled,
    failure::{self, Failure, Route},
    resolver::{NameServer, Resolver, literal},
};
use crate::{
    config::{Provider, Secret},
    outcome::{self, DnsServer, Fault, LookupFailure, Outcome, Reason, Tls},
};

/// What is said of a public name that leads to where only this network is.
pub(super) const PRIVATE_ADDRESS: &str = "the name resolves to a private address";

/// What is said where there is nothing of the target's to see without a request.
const UNTUNNELLED: &str = "only the proxy was reached: plain http goes through it without a tunnel";

/// What goes wrong on the way, of whatever kind; `failure` makes a verdict of it.
type Trouble = Box<dyn Error + Send + Sync>;

/// A connection, to the target or to whoever passes everything on to it.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

type BoxedConnection = Box<dyn Connection>;

/// A network probe made ready to run.
pub(super) struct Network {
    resolver: Arc<Resolver>,
    name_servers: Arc<[NameServer]>,
    route: Route,
    target: Endpoint,
    proxy: Option<Proxy>,
    tls: TlsConnector,
}

/// A host and how to speak to it.
struct Endpoint {
    /// As a URL has it: an IPv6 address in brackets.
    host: String,
    port: u16,
    /// Whom its certificate must be for; `None`: it does not speak TLS.
    server_name: Option<ServerName<'static>>,
}

struct Proxy {
    endpoint: Endpoint,
    kind: ProxyKind,
    /// User and password.
    credentials: Option<(Secret, Secret)>,
    /// For proxies that speak TLS: they speak HTTP/1.1 inside.
    tls: TlsConnector,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ProxyKind {
    /// Makes a tunnel when asked by CONNECT.
    Http,
    /// SOCKS 5, the target told by address.
    Socks,
    /// SOCKS 5, the target told by name.
    SocksByName,
}

impl Endpoint {
    fn of(url: &Url, provider: &Provider) -> Result<Self, ClientError> {
        let error = |cause| ClientError::new(provider, cause);
        let host = url.host_str().ok_or_else(|| error("a URL without a host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| error("a URL without a port"))?;
        let server_name = if url.scheme() == "https" {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
            Some(name.map_err(|_| error("a host that no certificate can be for"))?)
        } else {
            None
        };
        Ok(Self { host, port, server_name })
    }
}

impl Proxy {
    fn of(url: &Url, provider: &Provider, tls: &ClientConfig) -> Result<Self, ClientError> {
        let mut tls = tls.clone();
        tls.alpn_protocols.clear();
        let secret = |text: &str| Secret::new(text.to_owned());
        let credentials = provider.proxy_credentials();
        Ok(Self {
            endpoint: Endpoint::of(url, provider)?,
            kind: match url.scheme() {
                "socks5" => ProxyKind::Socks,
                "socks5h" => ProxyKind::SocksByName,
                _ => ProxyKind::Http,
            },
            credentials: credentials.map(|(user, password)| (secret(user), secret(password))),
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }
}

impl Network {
    pub(super) fn new(
        provider: &Provider,
        tls: ClientConfig,
        resolver: Arc<Resolver>,
    ) -> Result<Self, ClientError> {
        let proxy = provider.proxy.as_ref().map(|url| Proxy::of(url, provider, &tls)).transpose()?;
        Ok(Self {
            resolver,
            name_servers: provider.dns_servers.iter().copied().map(NameServer::new).collect(),
            route: Route::to(provider),
            target: Endpoint::of(&provider.base_url, provider)?,
            proxy,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// One attempt. `timeout` bounds everything, also what the other name servers take; those do not count in the
    /// duration, since the verdict does not wait for them.
    pub(super) async fn run(&self, timeout: Duration) -> Outcome {
        let marks = Arc::new(Marks::new(self.route.tls_proxy));
        let mut progress = Progress::default();
        let (time, started) = (SystemTime::now(), Instant::now());
        let deadline = started + timeout;
        // On tasks of their own: however long they take, the way to the target waits for none of them.
        let mut asked = self.ask_others(deadline);
        let way = observed(marks.clone(), self.go(&mut progress));
        let ending = tokio::time::timeout_at(deadline.into(), way).await;
        let seen = marks.seen();
        let ended = seen.connected.unwrap_or_else(Instant::now);
        let failure = match ending {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(failure::transport(&*error, &seen, self.route)),
            // A connection that stood before the deadline was in time, whatever closing it took.
            Err(_) if seen.connected.is_some() => None,
            Err(_) => Some(failure::deadline(&seen, false, timeout, self.route.api)),
        };
        let system = self.system(&seen, &progress, ended);
        let mut others: Vec<Option<DnsServer>> = vec![None; self.name_servers.len()];
        // A task that failed has no answer to show.
        while let Some(answer) = asked.join_next().await {
            if let Ok((index, server)) = answer {
                others[index] = Some(server);
            }
        }
        let mut outcome = facts(time, started, ended, &seen, progress);
        let network = outcome.network.get_or_insert_default();
        network.dns_servers = system.into_iter().chain(others.into_iter().flatten()).collect();
        self.decide(&mut outcome, failure);
        outcome
    }

    /// The name that the run looks up first; `None`: it looks none up.
    fn name(&self) -> Option<&str> {
        let target = (literal(&self.target.host).is_none()).then_some(&*self.target.host);
        let Some(proxy) = &self.proxy else { return target };
        let by_proxy = literal(&proxy.endpoint.host).is_none().then_some(&*proxy.endpoint.host);
        if proxy.kind == ProxyKind::Socks { target.or(by_proxy) } else { by_proxy }
    }

    /// Whether that is the target's name.
    fn looks_up_target(&self) -> bool {
        self.proxy.as_ref().is_none_or(|proxy| proxy.kind == ProxyKind::Socks)
            && literal(&self.target.host).is_none()
    }

    /// Asks each of the other name servers for that name, until the deadline.
    fn ask_others(&self, deadline: Instant) -> JoinSet<(usize, DnsServer)> {
        let mut asked = JoinSet::new();
        let Some(name) = self.name() else { return asked };
        for index in 0..self.name_servers.len() {
            let (servers, name) = (self.name_servers.clone(), name.to_owned());
            asked.spawn(async move { (index, servers[index].ask(&name, deadline).await) });
        }
        asked
    }

    /// What the system's resolver said of it.
    fn system(&self, seen: &Seen, progress: &Progress, ended: Instant) -> Option<DnsServer> {
        self.name()?;
        let unanswered = || {
            let begun = seen.lookup?;
            Some((Err(LookupFailure::NoAnswer), ended.saturating_duration_since(begun)))
        };
        let (answer, duration) = progress.lookup.clone().or_else(unanswered)?;
        Some(DnsServer { server: DnsServer::SYSTEM.to_owned(), answer, duration })
    }

    /// The way to the target, as far as the handshake.
    async fn go(&self, progress: &mut Progress) -> Result<(), Trouble> {
        let connection = match &self.proxy {
            None => self.connect(&self.target, false, progress).await?,
            Some(proxy) => self.pass(proxy, progress).await?,
        };
        let Some(name) = &self.target.server_name else {
            connected();
            return Ok(());
        };
        let mut stream = self.tls.connect(name.clone(), connection).await?;
        connected();
        progress.cipher =
            stream.get_ref().1.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        // So that the other end sees a client that leaves, not one that is lost.
        let _ = stream.shutdown().await;
        Ok(())
    }

    /// Looks a host up and connects to it.
    async fn connect(
        &self,
        to: &Endpoint,
        of_proxy: bool,
        progress: &mut Progress,
    ) -> Result<BoxedConnection, Trouble> {
        let addresses = self.look_up(&to.host, of_proxy, progress).await?;
        let stream = progress.dialled.dial(addresses, to.port).await?;
        stream.set_nodelay(true)?;
        progress.remote_address = stream.peer_addr().ok();
        Ok(Box::new(stream))
    }

    async fn look_up(
        &self,
        host: &str,
        of_proxy: bool,
        progress: &mut Progress,
    ) -> Result<Vec<IpAddr>, Trouble> {
        let begun = Instant::now();
        let answer = self.resolver.resolve(host, of_proxy).await;
        if literal(host).is_none() {
            progress.lookup.get_or_insert_with(|| (answer.clone(), begun.elapsed()));
        }
        // The marks say why.
        answer.map_err(|failure| failure.name().into())
    }

    /// Connects to the proxy and has it connect to the target.
    async fn pass(&self, proxy: &Proxy, progress: &mut Progress) -> Result<BoxedConnection, Trouble> {
        let mut host = Cow::Borrowed(&*self.target.host);
        if proxy.kind == ProxyKind::Socks {
            // As the other checks, it names but one address to the proxy.
            let address = self.look_up(&host, false, progress).await?.into_iter().next();
            host = address.map_or(host, |address| Cow::Owned(uri_host(address)));
        }
        let mut connection = self.connect(&proxy.endpoint, true, progress).await?;
        if let Some(name) = &proxy.endpoint.server_name {
            connection = Box::new(proxy.tls.connect(name.clone(), connection).await?);
        }
        if proxy.kind == ProxyKind::Http && self.target.server_name.is_none() {
            return Ok(connection);
        }
        // Both connectors want a URI and take host and port of it.
        let target: Uri = format!("https://{host}:{}", self.target.port).parse()?;
        let standing = Standing(Some(connection));
        let tunnel = if proxy.kind == ProxyKind::Http {
            let mut tunnel = Tunnel::new(target.clone(), standing);
            if let Some((user, password)) = &proxy.credentials {
                tunnel = tunnel.with_auth(basic(user, password)?);
            }
            tunnel.call(target).await?
        } else {
            let mut socks = SocksV5::new(target.clone(), standing);
            if let Some((user, password)) = &proxy.credentials {
                socks = socks.with_auth(user.expose().to_owned(), password.expose().to_owned());
            }
            socks.call(target).await?
        };
        Ok(tunnel.into_inner())
    }

    /// The verdict, with what else is worth knowing.
    fn decide(&self, outcome: &mut Outcome, failure: Option<Failure>) {
        let mut remarks: Vec<Cow<'static, str>> = Vec::new();
        (outcome.reason, outcome.fault) = (Reason::Ok, Fault::None);
        if let Some(Failure { reason, fault, detail }) = failure {
            (outcome.reason, outcome.fault) = (reason, fault);
            remarks.push(detail);
        } else if self.target.server_name.is_none()
            && self.proxy.as_ref().is_some_and(|proxy| proxy.kind == ProxyKind::Http)
        {
            remarks.push(UNTUNNELLED.into());
        }
        if let Some(other) = outcome.network.as_ref().and_then(|network| network.answers_instead()) {
            remarks.push(format!("{other} answers").into());
        }
        let public = self.looks_up_target() && !is_local(&self.target.host);
        if public && outcome.dns.iter().copied().any(is_private) {
            remarks.push(PRIVATE_ADDRESS.into());
        }
        outcome.detail = match <[_; 1]>::try_from(remarks) {
            Ok([remark]) => remark,
            Err(remarks) => remarks.join("; ").into(),
        };
    }
}

/// What has been found so far, kept outside the future that the deadline drops.
#[derive(Default)]
struct Progress {
    /// The answer to the first lookup, and how long it took.
    lookup: Option<(Result<Vec<IpAddr>, LookupFailure>, Duration)>,
    dialled: Dialled,
    remote_address: Option<SocketAddr>,
    cipher: Option<&'static str>,
}

/// What the way shows before any verdict.
fn facts(time: SystemTime, started: Instant, ended: Instant, seen: &Seen, progress: Progress) -> Outcome {
    let Progress { lookup: _, dialled, remote_address, cipher } = progress;
    let mut outcome = Outcome::new(time, Reason::Internal, Fault::Prober);
    outcome.duration = ended - started;
    outcome.phases = clock::phases(seen, started, None, ended);
    outcome.remote_address = remote_address;
    outcome.tls =
        seen.handshake.map(|_| Tls { version: seen.tls_version, cipher, not_after: seen.not_after });
    outcome.dns.clone_from(&seen.addresses);
    outcome.network =
        Some(Box::new(outcome::Network { dns_servers: Vec::new(), failed_addresses: dialled.into_failed() }));
    outcome
}

fn connected() {
    let now = Instant::now();
    mark(|seen| seen.connected = Some(now));
}

/// The credentials as CONNECT carries them (RFC 7617).
fn basic(user: &Secret, password: &Secret) -> Result<HeaderValue, Trouble> {
    let encoded = BASE64_STANDARD.encode(format!("{}:{}", user.expose(), password.expose()));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An address as the host of a URI.
fn uri_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Whether a name is by its looks one of the local network: without a dot, or under a name that nobody can register
/// (RFC 2606, 6761, 6762, 8375; ICANN's `internal`) or that private networks are fond of.
fn is_local(host: &str) -> bool {
    const DOMAINS: [&str; 10] =
        ["corp", "home", "home.arpa", "internal", "intranet", "lan", "local", "localhost", "private", "test"];
    let host = host.trim_end_matches('.');
    let within = |domain: &&str| host.strip_suffix(*domain).is_some_and(|rest| rest.ends_with('.'));
    !host.contains('.') || DOMAINS.iter().any(within)
}

/// Whether an address means something on this machine or network alone.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let shared = matches!(address.octets(), [100, 64..=127, ..]); // RFC 6598
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || shared
        }
        IpAddr::V6(address) => {
            address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_loopback()
                || address.is_unspecified()
        }
    }
}

/// Hands hyper-util's connectors the connection to the proxy, which stands already.
struct Standing(Option<BoxedConnection>);

impl Service<Uri> for Standing {
    type Response = TokioIo<BoxedConnection>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connection = self.0.take().map(TokioIo::new);
        future::ready(connection.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_told_from_public_ones() {
        for local in ["localhost", "gateway", "llm.lan", "a.b.home.arpa", "x.localhost.", "llm.internal"] {
            assert!(is_local(local), "{local}");
        }
        for public in ["api.openai.com", "local.example", "home.arpa.example", "api.notlan"] {
            assert!(!is_local(public), "{public}");
        }
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        let private = ["10.0.0.1", "172.16.0.1", "127.0.0.1", "169.254.1.1", "0.0.0.0", "100.64.0.1"];
        for private in private.into_iter().chain(["::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"]) {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:4860:4860::8888", "::ffff:8.8.8.8"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn credentials_are_encoded_and_not_shown() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let value = basic(&secret("Aladdin"), &secret("open sesame")).unwrap();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="); // the example of RFC 7617, 2
        assert_eq!(format!("{value:?}"), "Sensitive");
    }
}
