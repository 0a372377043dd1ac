//! Name lookups: real ones each run, by the system's configuration, bounded, cancellable, and told why they fail.

use std::{
    error::Error,
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::op::ResponseCode,
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::clock::{LookupFailure, mark};
use crate::{config::dns_server_name, outcome::DnsServer};

/// Addresses of one answer that are used and recorded.
const MAX_ADDRESSES: usize = 16;

/// Lookups under way at one server; more are refused as busy rather than queued without bound.
const MAX_ACTIVE: usize = 4096;

/// The files that say how names are looked up.
const SOURCES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Looks names up as `/etc/resolv.conf` and `/etc/hosts` say, without a cache.
pub struct Resolver(RwLock<Current>);

struct Current {
    /// `None`: no resolver could be made of what the system's files say.
    resolver: Option<Arc<TokioResolver>>,
    version: Version,
}

/// What the source files were when they were read.
type Version = [Option<(u64, i64, u64)>; 2];

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Reads the system's configuration.
    pub fn new() -> Self {
        Self(RwLock::new(Current::read(version())))
    }

    /// Reads the system's configuration again where its files have changed since: networks come and go while a daemon
    /// runs. Does file work, so not for the threads that time probes.
    pub fn refresh(&self) {
        let version = version();
        if self.0.read().unwrap_or_else(PoisonError::into_inner).version != version {
            let current = Current::read(version);
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = current;
        }
    }

    /// The addresses of a host, with the marks of a lookup unless it is an address itself. `of_proxy`: it is the proxy's.
    pub(super) async fn resolve(&self, host: &str, of_proxy: bool) -> Result<Vec<IpAddr>, LookupFailure> {
        if let Some(address) = literal(host) {
            return Ok(vec![address]);
        }
        let begun = Instant::now();
        mark(|seen| (seen.lookup, seen.resolved, seen.lookup_of_proxy) = (Some(begun), None, of_proxy));
        let answer = match self.current() {
            Some(resolver) => lookup(&resolver, host).await,
            None => Err(LookupFailure::NoServer),
        };
        let answered = Instant::now();
        mark(|seen| {
            seen.resolved = Some(answered);
            match &answer {
                Ok(addresses) if seen.addresses.is_empty() => seen.addresses.clone_from(addresses),
                Ok(_) => {}
                Err(failure) => seen.lookup_failure = Some(*failure),
            }
        });
        answer
    }

    fn current(&self) -> Option<Arc<TokioResolver>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).resolver.clone()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Current {
    fn read(version: Version) -> Self {
        // Without a server in resolv.conf the C library asks this machine (resolv.conf(5)), and still reads the hosts file.
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
            let here = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let config = ResolverConfig::from_name_servers(vec![here]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        });
        let options = builder.options_mut();
        options.cache_size = 0;
        options.max_active_requests = MAX_ACTIVE;
        // As the C library does, so that a lookup takes what the applications of this machine see: the first server
        // first, one at a time.
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.num_concurrent_reqs = 1;
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        Self { resolver: builder.build().ok().map(Arc::new), version }
    }
}

fn version() -> Version {
    SOURCES.map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.mtime_nsec() ^ metadata.mtime(), metadata.len()))
    })
}

/// Hands reqwest the lookups, with their marks.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    pub(super) resolver: Arc<Resolver>,
    /// The proxy's host, where there is one.
    pub(super) proxy: Option<Arc<str>>,
}

impl Resolve for Marked {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { resolver, proxy } = self.clone();
        Box::pin(async move {
            let of_proxy = proxy.as_deref() == Some(name.as_str());
            let answer = resolver.resolve(name.as_str(), of_proxy).await;
            let addresses = answer.map_err(|_| Box::new(NoAddresses) as Box<dyn Error + Send + Sync>)?;
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The address that a URL's host is, where it is none that must be looked up.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// A name server that is asked beside the system's resolver.
pub(super) struct NameServer {
    name: String,
    /// `None`: no resolver could be made for it.
    resolver: Option<TokioResolver>,
}

impl fmt::Debug for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NameServer").field(&self.name).finish()
    }
}

impl NameServer {
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        Self { name: dns_server_name(address), resolver: builder.build().ok() }
    }

    /// What this server says of the name, and no other source.
    pub(super) async fn ask(&self, name: &str, deadline: Instant) -> DnsServer {
        let begun = Instant::now();
        let absolute = format!("{}.", name.trim_end_matches('.'));
        let answer = match &self.resolver {
            Some(resolver) => tokio::time::timeout_at(deadline.into(), lookup(resolver, &absolute))
                .await
                .unwrap_or(Err(LookupFailure::NoAnswer)),
            None => Err(LookupFailure::NoServer),
        };
        DnsServer { server: self.name.clone(), answer, duration: begun.elapsed() }
    }
}

async fn lookup(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, LookupFailure> {
    let answer = resolver.lookup_ip(name).await.map_err(|error| failure(&error))?;
    let addresses: Vec<IpAddr> = answer.iter().take(MAX_ADDRESSES).collect();
    if addresses.is_empty() { Err(LookupFailure::NoAddress) } else { Ok(addresses) }
}

fn failure(error: &NetError) -> LookupFailure {
    match error {
        NetError::Timeout => LookupFailure::NoAnswer,
        NetError::NoConnections if lacks_sockets() => LookupFailure::OutOfResources,
        NetError::NoConnections => LookupFailure::NoServer,
        NetError::Busy => LookupFailure::OutOfResources,
        NetError::Io(error) if super::failure::is_our_own(error) => LookupFailure::OutOfResources,
        NetError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => LookupFailure::NoServer,
        NetError::Io(_) => LookupFailure::NoAnswer,
        NetError::Dns(DnsError::NoRecordsFound(none)) => response_failure(none.response_code),
        NetError::Dns(DnsError::ResponseCode(code)) => response_failure(*code),
        _ => LookupFailure::Garbled,
    }
}

/// Whether this process cannot have a socket now: hickory's second attempt hides why its first one had none.
fn lacks_sockets() -> bool {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).is_err_and(|error| super::failure::is_our_own(&error))
}

fn response_failure(code: ResponseCode) -> LookupFailure {
    match code {
        ResponseCode::NXDomain => LookupFailure::NoSuchName,
        ResponseCode::NoError => LookupFailure::NoAddress,
        ResponseCode::Refused => LookupFailure::Refused,
        ResponseCode::ServFail => LookupFailure::ServerFailure,
        _ => LookupFailure::Garbled,
    }
}

/// Stands in for the resolver's error, which names what was asked; the marks say why.
#[derive(Debug)]
struct NoAddresses;

impl fmt::Display for NoAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address")
    }
}

impl Error for NoAddresses {}
