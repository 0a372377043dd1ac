//! Queries to single name servers: `dns_servers` of the network check, and why a lookup of the C
//! library failed.
//!
//! Nothing here decides whether a name has an address; [`super::resolver`] does.

use std::{
    fmt, fs,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RecordType},
    },
};
use tokio::task::JoinSet;

use super::{
    failure::is_local_shortage,
    resolver::{ResolveError, is_localhost},
};
use crate::{
    config::dns_server_name,
    outcome::{DnsServer, LookupFailure},
};

/// Maximum number of addresses of one answer that are recorded.
const MAX_ADDRESSES: usize = 16;

/// Name servers of resolv.conf that the C library reads (resolv.conf(5), MAXNS).
const MAX_SYSTEM_SERVERS: usize = 3;

/// Maximum size of a resolv.conf that is read.
const MAX_RESOLV_CONF_BYTES: u64 = 64 * 1024;

/// Timeout of a server's answer when the failure of a lookup is explained.
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(2);

/// A name server that is asked by itself.
#[derive(Clone)]
pub(super) struct NameServer {
    name: String,
    /// The resolver. `None` if none could be made for this server.
    resolver: Option<TokioResolver>,
}

impl fmt::Debug for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NameServer").field(&self.name).finish()
    }
}

impl NameServer {
    /// Creates a name server. `only_tcp` is the option `use-vc` of resolv.conf.
    pub(super) fn new(address: SocketAddr, only_tcp: bool) -> Self {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        if only_tcp {
            server.connections = vec![ConnectionConfig::tcp()];
        }
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // As the C library asks by default. Some servers refuse the option with FORMERR, and no
        // answer about an address needs it.
        options.edns0 = false;
        Self { name: dns_server_name(address), resolver: builder.build().ok() }
    }

    /// Returns whether an answer is this server's.
    pub(super) fn is(&self, answer: &DnsServer) -> bool {
        self.name == answer.server
    }

    /// Returns this server's answer for the name as written, not searched. A failure of either
    /// record type counts, by [`rank`], only if neither has an address.
    pub(super) async fn ask(&self, name: &str, deadline: Instant) -> DnsServer {
        let begun = Instant::now();
        let answer = match (&self.resolver, absolute(name)) {
            (Some(resolver), Some(name)) => {
                let in_time = async |kind| {
                    let records = records(resolver, &name, kind);
                    let answer = tokio::time::timeout_at(deadline.into(), records).await;
                    answer.unwrap_or(Err(LookupFailure::NoAnswer))
                };
                let (six, four) = tokio::join!(in_time(RecordType::AAAA), in_time(RecordType::A));
                combine(six, four)
            }
            (None, _) => Err(LookupFailure::NoServer),
            (_, None) => Err(LookupFailure::Garbled),
        };
        DnsServer { server: self.name.clone(), answer, duration: begun.elapsed() }
    }
}

/// Returns the name for a query. Labels may have any character, including underscores.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

type Records = Result<Vec<IpAddr>, LookupFailure>;

async fn records(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Records {
    let answer = resolver.lookup(name.clone(), kind).await.map_err(|error| lookup_failure(&error))?;
    let addresses: Vec<IpAddr> =
        answer.answers().iter().filter_map(|record| record.data.ip_addr()).take(MAX_ADDRESSES).collect();
    if addresses.is_empty() { Err(LookupFailure::NoAddress) } else { Ok(addresses) }
}

fn combine(six: Records, four: Records) -> Records {
    match (six, four) {
        (Ok(mut six), Ok(four)) => {
            six.extend(four);
            six.truncate(MAX_ADDRESSES);
            Ok(six)
        }
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(six), Err(four)) => Err(if rank(six) <= rank(four) { six } else { four }),
    }
}

/// Ranks failures by how well they explain a lookup, the best first: a server that could not answer
/// explains more than one that answered that there is nothing.
fn rank(failure: LookupFailure) -> u8 {
    match failure {
        LookupFailure::OutOfResources => 0,
        LookupFailure::NoAnswer => 1,
        LookupFailure::NoServer => 2,
        LookupFailure::Garbled => 3,
        LookupFailure::ServerFailure => 4,
        LookupFailure::Refused => 5,
        LookupFailure::NoSuchName => 6,
        LookupFailure::NoAddress => 7,
    }
}

fn lookup_failure(error: &NetError) -> LookupFailure {
    match error {
        NetError::Timeout => LookupFailure::NoAnswer,
        NetError::NoConnections => LookupFailure::NoServer,
        NetError::Busy => LookupFailure::OutOfResources,
        NetError::Io(error) if is_local_shortage(error) => LookupFailure::OutOfResources,
        NetError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => LookupFailure::NoServer,
        NetError::Io(_) => LookupFailure::NoAnswer,
        NetError::Dns(DnsError::NoRecordsFound(none)) => response_failure(none.response_code),
        NetError::Dns(DnsError::ResponseCode(code)) => response_failure(*code),
        _ => LookupFailure::Garbled,
    }
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

/// Asks each name server of `/etc/resolv.conf` for the name, all at once, each for at most two
/// seconds. Names below `localhost` are not queried.
pub async fn ask_system_servers(name: &str, deadline: Instant) -> Vec<DnsServer> {
    if is_localhost(name) {
        return Vec::new();
    }
    // A blocked file must not delay the thread that times the runs.
    let deadline = deadline.min(Instant::now() + EXPLANATION_TIMEOUT);
    let reading = tokio::task::spawn_blocking(system_servers);
    let Ok(Ok(servers)) = tokio::time::timeout_at(deadline.into(), reading).await else { return Vec::new() };
    let mut queries = JoinSet::new();
    for (index, server) in servers.into_iter().enumerate() {
        let name = name.to_owned();
        queries.spawn(async move { (index, server.ask(&name, deadline).await) });
    }
    let mut answers: Vec<(usize, DnsServer)> = Vec::new();
    while let Some(answer) = queries.join_next().await {
        answers.extend(answer);
    }
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Returns why the lookup of a name failed, by what the C library returned and what its name
/// servers answer now.
///
/// Where some source answered that there is no address, a server that answers the same explains it,
/// regardless of the others; where no source could answer, the first by [`rank`] does.
pub(super) fn explain(error: ResolveError, servers: &[DnsServer]) -> LookupFailure {
    let failures = || servers.iter().filter_map(|server| server.answer.as_ref().err().copied());
    let is_negative =
        |failure: &LookupFailure| matches!(failure, LookupFailure::NoSuchName | LookupFailure::NoAddress);
    let first =
        |failures: &mut dyn Iterator<Item = LookupFailure>| failures.min_by_key(|failure| rank(*failure));
    match error {
        ResolveError::LocalShortage => LookupFailure::OutOfResources,
        ResolveError::NotFound => first(&mut failures().filter(is_negative))
            .or_else(|| first(&mut failures()))
            // All of them know the name: the C library asked elsewhere, by nsswitch.conf.
            .unwrap_or(LookupFailure::NoAddress),
        ResolveError::NoAnswer => {
            first(&mut failures().filter(|failure| !is_negative(failure))).unwrap_or(LookupFailure::NoAnswer)
        }
    }
}

fn system_servers() -> Vec<NameServer> {
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open("/etc/resolv.conf") {
        // What cannot be read is as if it were not there.
        let _ = file.take(MAX_RESOLV_CONF_BYTES).read_to_end(&mut text);
    }
    let (addresses, only_tcp) = parse_resolv_conf(&String::from_utf8_lossy(&text));
    addresses.into_iter().map(|address| NameServer::new(address, only_tcp)).collect()
}

/// Returns the name servers of a resolv.conf and whether `options use-vc` is set. Without a server
/// the C library asks this machine (resolv.conf(5)).
fn parse_resolv_conf(text: &str) -> (Vec<SocketAddr>, bool) {
    const DNS_PORT: u16 = 53;
    let mut addresses = Vec::new();
    let mut only_tcp = false;
    // A keyword that does not start its line is ignored.
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                // The scope of a link-local address is left to the routing table.
                let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
                addresses.extend(address);
            }
            Some("options") => only_tcp |= words.any(|word| word == "use-vc"),
            _ => {}
        }
    }
    addresses.truncate(MAX_SYSTEM_SERVERS);
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    (addresses.into_iter().map(|address| SocketAddr::new(address, DNS_PORT)).collect(), only_tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(answer: Records) -> DnsServer {
        DnsServer { server: "192.0.2.53".to_owned(), answer, duration: Duration::ZERO }
    }

    #[test]
    fn failures_that_answer_nothing_outrank_those_that_deny() {
        use LookupFailure::{NoAddress, NoAnswer, NoSuchName, Refused, ServerFailure};
        for (six, four, expected) in [
            (NoAddress, ServerFailure, ServerFailure),
            (NoAnswer, ServerFailure, NoAnswer),
            (NoSuchName, Refused, Refused),
            (NoAddress, NoSuchName, NoSuchName),
            (NoAddress, NoAddress, NoAddress),
        ] {
            assert_eq!(combine(Err(six), Err(four)), Err(expected));
            assert_eq!(combine(Err(four), Err(six)), Err(expected));
        }
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(combine(Err(NoAnswer), Ok(vec![address])), Ok(vec![address]));
    }

    #[test]
    fn explanation_follows_the_c_librarys_verdict() {
        use LookupFailure::{NoAnswer, NoSuchName, Refused, ServerFailure};
        let check = |error, answers: &[LookupFailure], expected| {
            let servers: Vec<_> = answers.iter().map(|failure| server(Err(*failure))).collect();
            assert_eq!(explain(error, &servers), expected, "{error:?} {answers:?}");
        };
        check(ResolveError::NotFound, &[NoAnswer, NoSuchName], NoSuchName);
        check(ResolveError::NotFound, &[ServerFailure], ServerFailure);
        check(ResolveError::NotFound, &[], LookupFailure::NoAddress);
        check(ResolveError::NoAnswer, &[NoSuchName, ServerFailure], ServerFailure);
        check(ResolveError::NoAnswer, &[Refused, NoAnswer], NoAnswer);
        check(ResolveError::NoAnswer, &[], NoAnswer);
        check(ResolveError::LocalShortage, &[NoSuchName], LookupFailure::OutOfResources);
    }

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let text = "# comment\nnameserver 192.0.2.1\nsearch .corp.test ..\nnameserver\tfe80::53%v0 # x\noptions ndots:2 use-vc\n\
                    \x20nameserver 192.0.2.2\nnameserver nonsense\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let (servers, only_tcp) = parse_resolv_conf(text);
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[fe80::53]:53", "192.0.2.3:53"]);
        assert!(only_tcp);
        assert_eq!(parse_resolv_conf(""), (vec!["127.0.0.1:53".parse().unwrap()], false));
    }
}
