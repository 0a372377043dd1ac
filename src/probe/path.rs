//! The path to a host: lookup, connection, proxy, TLS. Every check but the status page's takes it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::{
    dial::{DialError, Dialer},
    name_server::{ask_system_servers, explain},
    proxy::{Proxy, ProxyKind, server_name},
    resolver::{ResolveError, Resolver, literal},
    socket::{Meter, Socket},
    timeline::Timeline,
    tls::{Handshake, Tls, TlsError},
};
use crate::{
    config::Provider,
    outcome::{DnsServer, LookupFailure, Phase, ProxyFailure},
};

/// Error while preparing a provider's connections.
#[derive(Debug, thiserror::Error)]
#[error("provider {provider}: {cause}")]
pub struct PrepareError {
    provider: String,
    cause: String,
}

impl PrepareError {
    pub(super) fn new(provider: &Provider, cause: impl Into<String>) -> Self {
        Self { provider: provider.name.clone(), cause: cause.into() }
    }
}

/// A bidirectional stream of bytes.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Io for C {}

pub(super) type BoxedIo = Box<dyn Io>;

/// A host, its port, and whether it speaks TLS.
pub(super) struct Endpoint {
    /// As a URL has it: an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The name that its certificate must have. `None` if it does not speak TLS.
    pub(super) server_name: Option<ServerName<'static>>,
}

impl Endpoint {
    pub(super) fn new(url: &Url, provider: &Provider) -> Result<Self, PrepareError> {
        let error = |cause| PrepareError::new(provider, cause);
        let host = url.host_str().ok_or_else(|| error("a URL without a host"))?.to_owned();
        // The scheme's own port is the standard's for SOCKS (RFC 1928, 3).
        let port = url.port_or_known_default().or(url.scheme().starts_with("socks").then_some(1080));
        let port = port.ok_or_else(|| error("a URL without a port"))?;
        let tls = url.scheme() == "https";
        let name =
            tls.then(|| server_name(&host).ok_or_else(|| error("a host that no certificate can name")));
        Ok(Self { host, port, server_name: name.transpose()? })
    }

    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Returns the name to look up. Returns `None` if the host is an address.
    pub(super) fn name(&self) -> Option<&str> {
        literal(&self.host).is_none().then_some(&*self.host)
    }
}

/// Host of a step on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    Target,
    Proxy,
}

/// Cause of a missing connection.
#[derive(Debug)]
pub(super) enum PathError {
    Resolve(Hop, LookupFailure),
    Dial(Hop, DialError),
    Proxy(ProxyFailure),
    Tls(Hop, TlsError),
}

/// The path to a provider.
pub(super) struct Path {
    resolver: Resolver,
    pub(super) target: Endpoint,
    pub(super) proxy: Option<Proxy>,
    tls: Tls,
}

/// An open connection.
pub(super) struct Connection {
    pub(super) io: BoxedIo,
    pub(super) meter: Arc<Meter>,
    /// Whether HTTP/2 was agreed on (ALPN).
    pub(super) is_http2: bool,
    /// Whether it leads to a proxy that takes requests for the target.
    pub(super) absolute_form: bool,
    pub(super) remote_address: Option<SocketAddr>,
    /// The handshake. `None` without TLS.
    pub(super) handshake: Option<Arc<Handshake>>,
}

/// Findings of a run so far. They are kept outside the future that the deadline drops.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) timeline: Timeline,
    pub(super) deadline: Instant,
    /// The first lookup.
    pub(super) lookup: Option<Lookup>,
    pub(super) dialer: Dialer,
    pub(super) remote_address: Option<SocketAddr>,
    /// Whether a proxy has been asked for a tunnel, and has not answered.
    pub(super) tunnelling: bool,
    /// With the target.
    pub(super) handshake: Option<Arc<Handshake>>,
    pub(super) cipher: Option<&'static str>,
}

/// A lookup by the C library.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) hop: Hop,
    pub(super) answer: Result<Vec<IpAddr>, LookupFailure>,
    pub(super) duration: Duration,
    /// The answers of the name servers of resolv.conf, where the lookup failed or was slow.
    pub(super) servers: Vec<DnsServer>,
}

impl Trace {
    pub(super) fn new(deadline: Instant) -> Self {
        Self {
            timeline: Timeline::new(),
            deadline,
            lookup: None,
            dialer: Dialer::default(),
            remote_address: None,
            tunnelling: false,
            handshake: None,
            cipher: None,
        }
    }

    /// Returns the addresses of the first lookup.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.lookup.as_ref().and_then(|lookup| lookup.answer.clone().ok()).unwrap_or_default()
    }
}

impl Path {
    pub(super) fn new(provider: &Provider, tls: Tls, resolver: Resolver) -> Result<Self, PrepareError> {
        let proxy = provider.proxy.as_ref().map(|url| Proxy::new(url, provider, &tls)).transpose()?;
        Ok(Self { resolver, target: Endpoint::new(&provider.base_url, provider)?, proxy, tls })
    }

    /// Returns whether requests go to the proxy itself: plain http through an HTTP proxy has no
    /// tunnel (RFC 9112, 3.2.2).
    pub(super) fn is_untunnelled(&self) -> bool {
        self.target.server_name.is_none()
            && self.proxy.as_ref().is_some_and(|proxy| proxy.kind == ProxyKind::Http)
    }

    /// Returns the name that a run looks up first, and its hop. Returns `None` if there is no
    /// lookup.
    pub(super) fn first_lookup(&self) -> Option<(Hop, &str)> {
        let target = self.target.name().map(|name| (Hop::Target, name));
        let Some(proxy) = &self.proxy else { return target };
        let of_proxy = proxy.endpoint.name().map(|name| (Hop::Proxy, name));
        if proxy.kind == ProxyKind::Socks { target.or(of_proxy) } else { of_proxy }
    }

    /// Opens a connection. `keep`: it outlives this run.
    pub(super) async fn connect(&self, trace: &mut Trace, keep: bool) -> Result<Connection, PathError> {
        let (io, meter) = match &self.proxy {
            None => self.dial(Hop::Target, &self.target, trace, keep).await?,
            Some(proxy) => self.connect_by_proxy(proxy, trace, keep).await?,
        };
        let remote_address = trace.remote_address;
        let Some(name) = self.target.server_name.clone() else {
            trace.timeline.end(Instant::now());
            let absolute_form = self.is_untunnelled();
            return Ok(Connection {
                io,
                meter,
                is_http2: false,
                absolute_form,
                remote_address,
                handshake: None,
            });
        };
        trace.timeline.begin(Phase::Tls, Instant::now());
        let handshake = trace.handshake.insert(Arc::default()).clone();
        let connected = self.tls.connect(name, io, &handshake).await;
        let stream = connected.map_err(|error| PathError::Tls(Hop::Target, error))?;
        trace.timeline.end(Instant::now());
        let session = stream.get_ref().1;
        trace.cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        Ok(Connection {
            io: Box::new(stream),
            meter,
            is_http2,
            absolute_form: false,
            remote_address,
            handshake: Some(handshake),
        })
    }

    async fn dial(
        &self,
        hop: Hop,
        to: &Endpoint,
        trace: &mut Trace,
        keep: bool,
    ) -> Result<(BoxedIo, Arc<Meter>), PathError> {
        let mut addresses = self.resolve(hop, to, trace).await?;
        for address in &mut addresses {
            address.set_port(to.port);
        }
        trace.timeline.begin(Phase::Connect, Instant::now());
        let stream = trace.dialer.dial(addresses).await.map_err(|error| PathError::Dial(hop, error))?;
        trace.remote_address = stream.peer_addr().ok();
        let socket = Socket::new(stream, keep).map_err(|error| PathError::Dial(hop, DialError::Io(error)))?;
        let meter = socket.meter();
        Ok((Box::new(socket), meter))
    }

    /// Returns the addresses of a host. A failed lookup is explained, which takes at most two
    /// seconds and is no part of the run's duration.
    async fn resolve(
        &self,
        hop: Hop,
        host: &Endpoint,
        trace: &mut Trace,
    ) -> Result<Vec<SocketAddr>, PathError> {
        let Some(name) = host.name() else {
            let address = literal(&host.host).expect("a host that is no name is an address");
            return Ok(vec![SocketAddr::new(address, host.port)]);
        };
        let begun = Instant::now();
        trace.timeline.begin(Phase::Resolve, begun);
        let (answer, returned) = self.resolver.resolve(name).await;
        trace.timeline.end(returned);
        let mut lookup =
            Lookup { hop, answer: Ok(Vec::new()), duration: returned - begun, servers: Vec::new() };
        match answer {
            Ok(addresses) => {
                lookup.answer = Ok(addresses.iter().map(SocketAddr::ip).collect());
                trace.lookup.get_or_insert(lookup);
                Ok(addresses)
            }
            Err(error) => {
                let deadline = trace.deadline;
                // The verdict stands even if the deadline passes during the explanation.
                lookup.answer = Err(explain(error, &[]));
                let lookup = trace.lookup.insert(lookup);
                if error != ResolveError::LocalShortage {
                    lookup.servers = ask_system_servers(name, deadline).await;
                }
                let failure = explain(error, &lookup.servers);
                lookup.answer = Err(failure);
                Err(PathError::Resolve(hop, failure))
            }
        }
    }

    async fn connect_by_proxy(
        &self,
        proxy: &Proxy,
        trace: &mut Trace,
        keep: bool,
    ) -> Result<(BoxedIo, Arc<Meter>), PathError> {
        let mut address = None;
        if proxy.kind == ProxyKind::Socks {
            // The proxy is given one address, as curl gives it.
            address = self.resolve(Hop::Target, &self.target, trace).await?.first().map(SocketAddr::ip);
        }
        let (mut io, meter) = self.dial(Hop::Proxy, &proxy.endpoint, trace, keep).await?;
        if let Some(name) = proxy.endpoint.server_name.clone() {
            let connected = proxy.tls.connect(name, io, &Arc::default()).await;
            io = Box::new(connected.map_err(|error| PathError::Tls(Hop::Proxy, error))?);
        }
        if !self.is_untunnelled() {
            trace.tunnelling = true;
            io = proxy.tunnel(io, &self.target, address, &meter).await.map_err(PathError::Proxy)?;
            trace.tunnelling = false;
        }
        Ok((io, meter))
    }
}

/// Returns the TLS configuration of a provider: the system's roots, and the certificates of its
/// `ca_file`.
pub(super) fn tls(
    provider: &Provider,
    system_roots: &[CertificateDer<'static>],
) -> Result<Tls, PrepareError> {
    let mut roots = RootCertStore::empty();
    // System stores hold certificates that cannot be parsed; the rest still counts.
    roots.add_parsable_certificates(system_roots.iter().chain(&provider.ca_certificates).cloned());
    Tls::new(&roots, provider.ca_certificates.clone())
        .map_err(|cause| PrepareError::new(provider, cause.to_string()))
}
