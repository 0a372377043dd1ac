//! Why a run had no complete response: transport errors and deadlines, told apart by the marks and the error's chain.

use std::{borrow::Cow, error::Error, io, time::Duration};

use super::clock::{CertificateFailure, LookupFailure, Seen};
use crate::{
    config::Provider,
    outcome::{Api, Fault, Reason},
};

/// A run's verdict where the exchange did not come to its end.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) fault: Fault,
    /// Our own words.
    pub(super) detail: Cow<'static, str>,
}

impl Failure {
    pub(super) fn new(reason: Reason, fault: Fault, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, fault, detail: detail.into() }
    }
}

/// What the failing run was addressed to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) api: Api,
    /// Whether a proxy stands between.
    pub(super) proxied: bool,
    /// Whether that proxy speaks TLS itself.
    pub(super) tls_proxy: bool,
    /// Whether that proxy is given credentials.
    pub(super) credentials: bool,
}

impl Route {
    /// The way to a provider.
    pub(super) fn to(provider: &Provider) -> Self {
        Self {
            api: provider.api,
            proxied: provider.proxy.is_some(),
            tls_proxy: provider.proxy.as_ref().is_some_and(|proxy| proxy.scheme() == "https"),
            credentials: provider.proxy_credentials().is_some(),
        }
    }
}

/// An error of whatever kind.
type Cause = dyn Error + 'static;

/// The verdict on an error of the HTTP client, or of the network check on its way.
pub(super) fn transport(error: &Cause, seen: &Seen, route: Route) -> Failure {
    let Route { api, proxied, .. } = route;
    let hidden = behind_socks(error);
    let causes = chain(error).filter_map(<dyn Error>::downcast_ref).chain(&hidden);
    if let Some(own) = causes.into_iter().find(|error| is_our_own(error)) {
        return Failure::new(Reason::Internal, Fault::Prober, own_trouble(own));
    }
    if let Some(failure) = seen.lookup_failure {
        return lookup(failure, proxied, seen.lookup_of_proxy);
    }
    if let Some(failure) = seen.proxy_certificate_failure {
        let detail = format!("TLS with the proxy: {}", certificate(failure, api).detail);
        return Failure::new(Reason::Proxy, Fault::Network, detail);
    }
    if let Some(failure) = seen.certificate_failure {
        return certificate(failure, api);
    }
    if seen.connected.is_some() {
        return broken_exchange(error, api);
    }
    if seen.handshake.is_some() {
        return Failure::new(Reason::Tls, Fault::Network, handshake(error));
    }
    if proxied {
        return Failure::new(Reason::Proxy, Fault::Network, proxy(error, route));
    }
    let detail = io_kind(error).map_or("no connection", connect);
    Failure::new(Reason::Connect, Fault::Network, detail)
}

/// The verdict on a run that our own deadline ended.
pub(super) fn deadline(seen: &Seen, headers: bool, timeout: Duration, api: Api) -> Failure {
    let (what, fault) = if headers {
        ("the response was not complete", api.endpoint())
    } else if seen.connected.is_some() {
        ("no response came", api.endpoint())
    } else if seen.handshake.is_some() {
        ("the TLS handshake was not over", Fault::Network)
    } else if seen.lookup.is_some() && seen.resolved.is_none() {
        ("the name lookup was not answered", Fault::Network)
    } else {
        ("no connection was made", Fault::Network)
    };
    Failure::new(Reason::Timeout, fault, format!("{what} within {timeout:?}"))
}

/// Whether the operating system refused us something of our own: descriptors, memory, local ports. The numbers are
/// those of errno(3) on Linux: `ENOMEM`, `ENFILE`, `EMFILE`, `EADDRNOTAVAIL`, `ENOBUFS`.
pub(super) fn is_our_own(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 99 | 105))
}

fn own_trouble(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(23 | 24) => "the prober is out of file descriptors",
        Some(99) => "the prober is out of local ports",
        _ => "the prober is out of memory",
    }
}

fn lookup(failure: LookupFailure, proxied: bool, of_proxy: bool) -> Failure {
    let detail = match failure {
        LookupFailure::NoSuchName => "the name does not exist (NXDOMAIN)",
        LookupFailure::NoAddress => "the name has no address",
        LookupFailure::ServerFailure => "the resolver failed (SERVFAIL)",
        LookupFailure::Refused => "the resolver refused to answer (REFUSED)",
        LookupFailure::NoAnswer => "no resolver answered",
        LookupFailure::NoServer => "no resolver could be asked",
        LookupFailure::Garbled => "the resolver's answer could not be understood",
        LookupFailure::OutOfResources => {
            return Failure::new(
                Reason::Internal,
                Fault::Prober,
                "the prober is out of resources for lookups",
            );
        }
    };
    if proxied {
        let whose = if of_proxy { "the proxy" } else { "the target" };
        return Failure::new(Reason::Proxy, Fault::Network, format!("looking up {whose}: {detail}"));
    }
    Failure::new(Reason::Dns, Fault::Network, detail)
}

fn certificate(failure: CertificateFailure, api: Api) -> Failure {
    let (detail, fault) = match failure {
        CertificateFailure::Expired => ("certificate expired", api.endpoint()),
        CertificateFailure::NotYetValid => ("certificate not yet valid", Fault::Network),
        CertificateFailure::WrongName => ("certificate for a wrong name", api.endpoint()),
        CertificateFailure::UntrustedIssuer => ("certificate of an untrusted issuer", Fault::Network),
        CertificateFailure::Unusable => ("certificate unusable for this server", Fault::Network),
    };
    Failure::new(Reason::Tls, fault, detail)
}

fn handshake(error: &Cause) -> &'static str {
    for cause in chain(error) {
        match cause.downcast_ref() {
            Some(rustls::Error::InvalidMessage(_)) => return "handshake: the answer is not TLS",
            Some(rustls::Error::AlertReceived(_)) => return "handshake: refused by the server",
            Some(rustls::Error::PeerIncompatible(_)) => return "handshake: no common version or cipher",
            _ => {}
        }
    }
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "handshake: the connection was reset"
        }
        Some(io::ErrorKind::UnexpectedEof) => "handshake: the connection was closed",
        _ => "handshake failed",
    }
}

fn connect(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::HostUnreachable => "host unreachable",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::TimedOut => "no answer to the connection attempt",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::PermissionDenied => "connection forbidden on this machine",
        _ => "no connection",
    }
}

/// What SOCKS proxies complain of (RFC 1928, 6; RFC 1929, 2) by hyper-util's words, and ours.
const SOCKS_REFUSALS: [(&str, &str); 10] = [
    ("credentials not accepted", "the proxy does not accept the credentials"),
    ("connection refused", "the proxy cannot reach the target: connection refused"),
    ("host unreachable", "the proxy cannot reach the target: host unreachable"),
    ("network unreachable", "the proxy cannot reach the target: network unreachable"),
    ("ttl expired", "the proxy cannot reach the target: no answer"),
    ("connection not allowed", "the proxy does not allow the target"),
    ("general server failure", "the proxy failed"),
    ("command not supported", "the proxy makes no connections"),
    ("address type not supported", "the proxy does not know this kind of address"),
    ("failed parsing server response", "the proxy does not speak SOCKS 5"),
];

/// What went wrong between the start and the target's handshake.
fn proxy(error: &Cause, route: Route) -> Cow<'static, str> {
    // The errors of tunnels are private types: they show in their texts alone, and CONNECT's other statuses not at all.
    let said = |text: &str| chain(error).any(|cause| cause.to_string().contains(text));
    if said("authorization required") {
        return if route.credentials {
            "the proxy does not accept the credentials (407)".into()
        } else {
            "the proxy wants credentials (407)".into()
        };
    }
    if said("does not support user/pass authentication") {
        return if route.credentials {
            "the proxy takes no user and password".into()
        } else {
            "the proxy wants credentials".into()
        };
    }
    if chain(error).any(<dyn Error>::is::<rustls::Error>) {
        return format!("TLS with the proxy: {}", handshake(error)).into();
    }
    if let Some(kind) = behind_socks(error).map(|error| error.kind()).or_else(|| io_kind(error)) {
        return format!("connecting to the proxy: {}", connect(kind)).into();
    }
    if said("tunnel error: unexpected end of file") || said("SOCKS error: io error") {
        return "the proxy closed the connection".into();
    }
    let refusal = SOCKS_REFUSALS.iter().find(|(text, _)| said(&format!("SOCKS error: {text}")));
    refusal.map_or("the proxy refused the tunnel", |(_, detail)| detail).into()
}

/// The error of the connection to a SOCKS proxy: hyper-util's has no source, and shows it to Debug alone.
fn behind_socks(error: &Cause) -> Option<io::Error> {
    let wrapper = chain(error)
        .find(|cause| cause.to_string() == "SOCKS error: failed to create underlying connection")?;
    let text = format!("{wrapper:?}");
    let (_, rest) = text.split_once("code: ")?;
    let code = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(io::Error::from_raw_os_error(code))
}

/// The connection stood, but the response did not come to its end.
fn broken_exchange(error: &Cause, api: Api) -> Failure {
    for cause in chain(error) {
        if cause.downcast_ref().is_some_and(h2::Error::is_library) {
            // Our side of HTTP/2 ended the exchange over what the other had sent.
            let detail = "the response breaks HTTP/2, or its headers are too large";
            return Failure::new(Reason::Malformed, api.endpoint(), detail);
        }
        let Some(error) = cause.downcast_ref::<hyper::Error>() else { continue };
        if error.is_parse_too_large() {
            return Failure::new(Reason::Malformed, api.endpoint(), "the response's headers are too large");
        }
        if error.is_parse() {
            return Failure::new(Reason::Malformed, api.endpoint(), "the response is not HTTP");
        }
    }
    let detail = match io_kind(error) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "the connection was reset before the response was complete"
        }
        _ => "the connection was closed before the response was complete",
    };
    Failure::new(Reason::Disconnected, api.endpoint(), detail)
}

fn io_kind(error: &Cause) -> Option<io::ErrorKind> {
    // The innermost one: the outer ones are wrappers of kind `Other`.
    chain(error).filter_map(<dyn Error>::downcast_ref).map(io::Error::kind).last()
}

/// An error and its causes. `io::Error` hides what it wraps from `source`, so it is looked into.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |error: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>() {
            Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    };
    // No real chain is longer; a cycle would be one.
    std::iter::successors(Some(error), next).take(32)
}
