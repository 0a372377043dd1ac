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
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ServerOrderingStrategy},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::op::ResponseCode,
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::clock::{LookupFailure, mark};

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
pub(super) struct Marked(pub(super) Arc<Resolver>);

impl Resolve for Marked {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.current();
        Box::pin(async move {
            let begun = Instant::now();
            mark(|seen| seen.lookup = Some(begun));
            let answer = match resolver {
                Some(resolver) => lookup(&resolver, name.as_str()).await,
                None => Err(LookupFailure::NoServer),
            };
            let answered = Instant::now();
            mark(|seen| {
                seen.resolved = Some(answered);
                match &answer {
                    Ok(addresses) => seen.addresses.clone_from(addresses),
                    Err(failure) => seen.lookup_failure = Some(*failure),
                }
            });
            let addresses = answer.map_err(|_| Box::new(NoAddresses) as Box<dyn Error + Send + Sync>)?;
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
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
