//! The network check: the path to the host as the other checks take it, and no request.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout_at,
};

use super::{
    failure::{self, Failure, Route},
    name_server::{NameServer, ask_system_servers},
    path::{Connection, Hop, Path, PathError, Trace},
    run::path_findings,
    tls::TlsError,
};
use crate::{
    config::Provider,
    outcome::{Api, Detail, DnsServer, Fault, LookupFailure, Network, Outcome, Reason},
};

/// A lookup that took longer than this has the system's name servers asked one by one, to find the
/// one at fault.
const SLOW_LOOKUP: Duration = Duration::from_secs(1);

/// Wait for a server that asked for a client certificate to refuse the connection without one.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// A network probe made ready to run.
pub(super) struct NetworkCheck {
    api: Api,
    path: Path,
    name_servers: Arc<[NameServer]>,
}

impl NetworkCheck {
    pub(super) fn new(provider: &Provider, path: Path) -> Self {
        let name_servers =
            provider.dns_servers.iter().map(|server| NameServer::new(*server, false)).collect();
        Self { api: provider.api, path, name_servers }
    }

    /// Makes one attempt. `timeout` bounds everything but the queries that explain a lookup, which
    /// take at most a second more; neither they nor those to other name servers are part of the
    /// duration.
    pub(super) async fn run(&self, timeout: Duration) -> Outcome {
        let time = SystemTime::now();
        let deadline = Instant::now() + timeout;
        let mut trace = Trace::new(deadline);
        // In tasks of their own: the path to the target does not wait for them.
        let mut asked = self.ask_name_servers(deadline);
        let connected = timeout_at(deadline.into(), self.path.connect(&mut trace, false)).await;
        let phase = trace.timeline.phase();
        trace.timeline.end(Instant::now());
        let route = Route::new(self.api, &self.path);
        let failure = match connected {
            Ok(Ok(connection)) => {
                refusal(connection, deadline).await.map(|error| failure::path(&error, route))
            }
            Ok(Err(error)) => Some(failure::path(&error, route)),
            Err(_) => Some(failure::deadline(&trace, phase, timeout, route)),
        };
        let mut dns_servers: Vec<DnsServer> = self.system_answer(&trace).into_iter().collect();
        let system = self.answers_of_system_servers(&mut trace).await;
        // A server of both lists is asked as configured, and appears once.
        let is_configured = |server: &DnsServer| self.name_servers.iter().any(|other| other.is(server));
        dns_servers.extend(system.into_iter().filter(|server| !is_configured(server)));
        let mut others: Vec<Option<DnsServer>> = vec![None; self.name_servers.len()];
        while let Some(answer) = asked.join_next().await {
            // A task that failed has no answer.
            if let Ok((index, server)) = answer {
                others[index] = Some(server);
            }
        }
        dns_servers.extend(others.into_iter().flatten());
        let mut outcome = path_findings(time, trace);
        outcome.network = Some(Box::new(Network { dns_servers }));
        self.decide(&mut outcome, failure);
        outcome
    }

    /// Queries each of `dns_servers` for the name that the run looks up first.
    fn ask_name_servers(&self, deadline: Instant) -> JoinSet<(usize, DnsServer)> {
        let mut asked = JoinSet::new();
        let Some((_, name)) = self.path.first_lookup() else { return asked };
        for index in 0..self.name_servers.len() {
            let (servers, name) = (self.name_servers.clone(), name.to_owned());
            asked.spawn(async move { (index, servers[index].ask(&name, deadline).await) });
        }
        asked
    }

    /// Returns the answer of the C library. Returns `None` if nothing was looked up.
    fn system_answer(&self, trace: &Trace) -> Option<DnsServer> {
        self.path.first_lookup()?;
        let (answer, duration) = match &trace.lookup {
            Some(lookup) => (lookup.answer.clone(), lookup.duration),
            None => (Err(LookupFailure::NoAnswer), trace.timeline.phases().resolve),
        };
        Some(DnsServer { server: DnsServer::SYSTEM.to_owned(), answer, duration })
    }

    /// Returns the answer of each of the system's name servers if the lookup failed, was slow or
    /// did not return.
    async fn answers_of_system_servers(&self, trace: &mut Trace) -> Vec<DnsServer> {
        let Some((_, name)) = self.path.first_lookup() else { return Vec::new() };
        match &mut trace.lookup {
            Some(lookup) if !lookup.servers.is_empty() => std::mem::take(&mut lookup.servers),
            Some(lookup) if lookup.duration < SLOW_LOOKUP => Vec::new(),
            _ => ask_system_servers(name, Instant::now() + REFUSAL_WAIT).await,
        }
    }

    /// Writes the verdict with further findings.
    fn decide(&self, outcome: &mut Outcome, failure: Option<Failure>) {
        let mut remarks = Vec::new();
        (outcome.reason, outcome.fault) = (Reason::Ok, Fault::None);
        if let Some(failure) = failure {
            failure.write_into(outcome);
            remarks.extend(outcome.detail.take());
        } else if self.path.is_untunnelled() {
            remarks.push(Detail::OnlyProxyReached);
        }
        if let Some(other) = outcome.network.as_ref().and_then(|network| network.answers_instead()) {
            remarks.push(Detail::ServerAnswers(other.into()));
        }
        let public = matches!(self.path.first_lookup(), Some((Hop::Target, name)) if !is_local(name));
        if public && outcome.dns.iter().copied().any(is_private) {
            remarks.push(Detail::PrivateAddress);
        }
        outcome.detail = remarks.into_iter().reduce(Detail::with);
    }
}

/// Returns why a server refuses a connection whose handshake is complete: in TLS 1.3 it does so for
/// want of a client certificate after our part (RFC 8446, 4.4.2.4). Then closes the connection as a
/// client does that leaves.
async fn refusal(connection: Connection, deadline: Instant) -> Option<PathError> {
    let Connection { mut io, handshake, .. } = connection;
    let wait = deadline.min(Instant::now() + REFUSAL_WAIT).into();
    if let Some(handshake) = handshake.filter(|handshake| handshake.client_certificate_requested())
        && let Ok(Err(error)) = timeout_at(wait, io.read_u8()).await
        && let error @ TlsError::ClientCertificateRequired = handshake.error(error)
    {
        return Some(PathError::Tls(Hop::Target, error));
    }
    let _ = timeout_at(wait, io.shutdown()).await;
    None
}

/// Returns whether a name belongs to the local network by its form: without a dot, or below a name
/// that cannot be registered (RFC 2606, 6761, 6762, 8375; ICANN's `internal`) or that private
/// networks commonly use.
fn is_local(host: &str) -> bool {
    const DOMAINS: [&str; 10] =
        ["corp", "home", "home.arpa", "internal", "intranet", "lan", "local", "localhost", "private", "test"];
    let host = host.trim_end_matches('.');
    let within = |domain: &&str| host.strip_suffix(*domain).is_some_and(|rest| rest.ends_with('.'));
    !host.contains('.') || DOMAINS.iter().any(within)
}

/// Returns whether an address is valid only on this machine or network.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_differ_from_public_ones() {
        for local in ["localhost", "gateway", "llm.lan", "a.b.home.arpa", "x.localhost.", "llm.internal"] {
            assert!(is_local(local), "{local}");
        }
        for public in ["api.openai.com", "local.example", "home.arpa.example", "api.notlan"] {
            assert!(!is_local(public), "{public}");
        }
    }

    #[test]
    fn private_addresses_differ_from_public_ones() {
        let private = ["10.0.0.1", "172.16.0.1", "127.0.0.1", "169.254.1.1", "0.0.0.0", "100.64.0.1"];
        for private in private.into_iter().chain(["::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"]) {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:4860:4860::8888", "::ffff:8.8.8.8"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
