//! The verdict on a run without a complete response: transport errors and deadlines, by their
//! types.

use std::{borrow::Cow, error::Error, io, time::Duration};

use super::{
    dial::DialError,
    http::HttpError,
    path::{Hop, Path, PathError, Trace},
    proxy::ProxyError,
    socket::Excess,
    timeline::Phase,
    tls::{CertificateFailure, Handshake, TlsError},
};
use crate::outcome::{Api, Clue, Fault, LookupFailure, Outcome, Reason};

const MISUSE: &str = "the prober's own request cannot be sent over HTTP/2";
const CHECK_TLS: &str =
    "check proxies, firewalls and TLS inspection between here and the service, and that the port speaks TLS";
const CHECK_CLOCK: &str = "check this machine's clock: timedatectl";
const CHECK_NAME: &str =
    "base_url names a host that the certificate is not for: check it, and any proxy that intercepts TLS";
const CHECK_TRUST: &str =
    "update the CA certificates (apt install --reinstall ca-certificates), or set ca_file for a private CA";
const CHECK_CHAIN: &str = "for a private CA set ca_file; else have the server send its intermediate certificates, or update the CA certificates here";
const PROXY_EXCESS: &str =
    "the proxy's answer is too large: more than 64 KiB, or more than 16 informational responses";
const CHECK_PROXY_CREDENTIALS: &str =
    "give the proxy's user:password by proxy_auth in the provider's section, or correct it where it is kept";

/// A run's verdict where the exchange is incomplete.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) fault: Fault,
    /// Our own words.
    pub(super) detail: Cow<'static, str>,
    /// What to do about just this; empty where the reason's general remedy applies.
    pub(super) hint: &'static str,
    /// What the remedies of `doctor` depend on.
    pub(super) clue: Option<Clue>,
}

impl Failure {
    pub(super) fn new(reason: Reason, fault: Fault, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, fault, detail: detail.into(), hint: "", clue: None }
    }

    /// Writes the verdict into the outcome of the run.
    pub(super) fn write_into(self, outcome: &mut Outcome) {
        let Self { reason, fault, detail, hint, clue } = self;
        (outcome.reason, outcome.fault, outcome.detail) = (reason, fault, detail);
        (outcome.hint, outcome.clue) = (hint, clue);
    }

    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }
}

/// What a failing run was addressed to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) api: Api,
    /// Whether there is a proxy.
    pub(super) proxied: bool,
}

impl Route {
    pub(super) fn new(api: Api, path: &Path) -> Self {
        Self { api, proxied: path.proxy.is_some() }
    }
}

/// Returns the verdict on a connection that could not be made.
pub(super) fn path(error: &PathError, route: Route) -> Failure {
    match error {
        PathError::Resolve(_, LookupFailure::OutOfResources) => {
            internal("the prober lacks resources for lookups")
        }
        PathError::Resolve(hop, failure) => lookup(*hop, *failure, route),
        PathError::Dial(_, DialError::Io(error)) | PathError::Tls(_, TlsError::Io(error))
            if is_local_shortage(error) =>
        {
            internal(shortage(error))
        }
        PathError::Dial(hop, error) => dial(*hop, error),
        PathError::Proxy(error) => proxy(error),
        PathError::Tls(Hop::Proxy, error) => {
            let detail = format!("TLS with the proxy: {}", tls(error, route.api).detail);
            Failure::new(Reason::Proxy, Fault::Network, detail)
        }
        PathError::Tls(Hop::Target, error) => tls(error, route.api),
    }
}

/// Returns the verdict on an exchange that broke off. `handshake` is that of a TLS connection
/// without a response.
pub(super) fn http(error: &(dyn Error + 'static), api: Api, handshake: Option<&Handshake>) -> Failure {
    let endpoint = api.endpoint();
    if let Some(error) = find::<io::Error>(error).find(|error| is_local_shortage(error)) {
        return internal(shortage(error));
    }
    let tls = find::<rustls::Error>(error).next();
    // In TLS 1.3 the server's refusal comes after our part of the handshake (RFC 8446, 4.4.2.4).
    if handshake.is_some_and(|handshake| handshake.is_refusal(tls, error_kind(error))) {
        return client_certificate_required();
    }
    if tls.is_some() {
        let detail = "the TLS connection failed before the response was complete";
        return Failure::new(Reason::Disconnected, endpoint, detail);
    }
    if let Some(error) = find::<h2::Error>(error).next() {
        return http2(error, endpoint);
    }
    match find::<hyper::Error>(error).next() {
        Some(error) => http1(error, endpoint),
        None => disconnected(find::<io::Error>(error).last(), endpoint),
    }
}

/// Returns the kind of the innermost I/O error. h2's errors do not have it.
fn error_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    find::<io::Error>(error).last().map(io::Error::kind)
}

/// Returns the verdict on a peer that sent too much.
pub(super) fn excess(excess: Excess, api: Api) -> Failure {
    let detail = match excess {
        Excess::BeforeHead => {
            "the response's headers are too large: more than 64 KiB, or more than 16 informational responses"
        }
        Excess::Exchange => "the response has more than 32 MiB on the wire",
    };
    Failure::new(Reason::Malformed, api.endpoint(), detail)
}

fn http1(error: &hyper::Error, endpoint: Fault) -> Failure {
    if error.is_parse_too_large() {
        return Failure::new(Reason::Malformed, endpoint, "the response's headers are too large");
    }
    if error.is_parse() {
        return Failure::new(Reason::Malformed, endpoint, "the response is not HTTP");
    }
    // hyper's decoder of chunks reports what it cannot read by these kinds.
    let undecodable =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
    if find::<io::Error>(error).any(undecodable) {
        return Failure::new(Reason::Malformed, endpoint, "the response's chunked encoding is broken");
    }
    disconnected(find::<io::Error>(error).last(), endpoint)
}

fn http2(error: &h2::Error, endpoint: Fault) -> Failure {
    if error.is_library() {
        // Our side ended the exchange over what the other had sent.
        let detail = "the response breaks HTTP/2, or its headers are too large";
        return Failure::new(Reason::Malformed, endpoint, detail);
    }
    if let Some(code) = error.reason() {
        let what = if error.is_go_away() { "connection (GOAWAY)" } else { "stream (RST_STREAM)" };
        let detail =
            format!("the server ended the HTTP/2 {what} with {code:?} before the response was complete");
        return Failure::new(Reason::Disconnected, endpoint, detail);
    }
    match error.get_io() {
        Some(error) => disconnected(Some(error), endpoint),
        // Neither the peer's, nor the library's, nor the connection's.
        None => internal(MISUSE),
    }
}

fn disconnected(error: Option<&io::Error>, endpoint: Fault) -> Failure {
    let detail = match error.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "the connection was reset before the response was complete"
        }
        _ => "the connection was closed before the response was complete",
    };
    Failure::new(Reason::Disconnected, endpoint, detail)
}

/// Returns whether an error is that of a connection which its server had closed while it was idle,
/// and no response was received. `silent` is true if no byte of one was, for HTTP/1.1.
pub(super) fn is_closed_while_idle(error: &HttpError, silent: bool) -> bool {
    match error {
        HttpError::One(_) => silent,
        // A stream gets a GOAWAY as its error only if the request was not processed (RFC 9113, 6.8
        // and 8.7).
        HttpError::Two(error) => {
            error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || error.is_go_away() && error.is_remote()
                || error.is_io()
        }
    }
}

/// Returns the verdict on a run that met its own deadline, by what it waited for.
pub(super) fn deadline(trace: &Trace, phase: Phase, timeout: Duration, route: Route) -> Failure {
    if let Some(lookup) = &trace.lookup
        && let Err(failure) = lookup.answer
    {
        return path(&PathError::Resolve(lookup.hop, failure), route);
    }
    late(phase, timeout, route.api)
}

/// Returns the verdict on a deadline that was met in a phase.
pub(super) fn late(phase: Phase, timeout: Duration, api: Api) -> Failure {
    let (what, fault) = match phase {
        Phase::Resolve => ("the name lookup was not answered", Fault::Network),
        Phase::Connect => ("no connection was made", Fault::Network),
        Phase::Tls => ("the TLS handshake was not over", Fault::Network),
        Phase::Processing => ("no response came", api.endpoint()),
        Phase::Transfer => ("the response was not complete", api.endpoint()),
    };
    Failure::new(Reason::Timeout, fault, format!("{what} within {timeout:?}"))
}

fn internal(detail: &'static str) -> Failure {
    Failure::new(Reason::Internal, Fault::Prober, detail)
}

/// Returns whether the operating system refused this process something of its own: descriptors,
/// memory, local ports. The numbers are those of errno(3) on Linux: `ENOMEM`, `ENFILE`, `EMFILE`,
/// `EADDRNOTAVAIL`, `ENOBUFS`.
pub(super) fn is_local_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 99 | 105))
}

fn shortage(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(23 | 24) => "the prober is out of file descriptors",
        Some(99) => "the prober is out of local ports",
        _ => "the prober is out of memory",
    }
}

fn lookup(hop: Hop, failure: LookupFailure, route: Route) -> Failure {
    let detail = match failure {
        LookupFailure::NoSuchName => "the name does not exist (NXDOMAIN)",
        LookupFailure::NoAddress => "the name has no address",
        LookupFailure::ServerFailure => "the name server failed (SERVFAIL)",
        LookupFailure::Refused => "the name server refused to answer (REFUSED)",
        LookupFailure::NoAnswer => "no name server answered",
        LookupFailure::NoServer => "no name server could be reached",
        LookupFailure::Garbled => "the name server's answer could not be understood",
        LookupFailure::OutOfResources => "the prober lacks resources for lookups",
    };
    if route.proxied {
        let host = if hop == Hop::Proxy { "the proxy" } else { "the target" };
        return Failure::new(Reason::Proxy, Fault::Network, format!("looking up {host}: {detail}"));
    }
    Failure::new(Reason::Dns, Fault::Network, detail)
}

fn dial(hop: Hop, error: &DialError) -> Failure {
    let detail = match error {
        DialError::NoIpv6 => "no IPv6 on this machine, and the host has no other address",
        DialError::Io(error) => connection(error.kind()),
    };
    if hop == Hop::Proxy {
        return Failure::new(Reason::Proxy, Fault::Network, format!("connecting to the proxy: {detail}"));
    }
    let refused = matches!(error, DialError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused);
    let clue = refused.then_some(Clue::ConnectionRefused);
    Failure { clue, ..Failure::new(Reason::Connect, Fault::Network, detail) }
}

fn connection(kind: io::ErrorKind) -> &'static str {
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

fn proxy(error: &ProxyError) -> Failure {
    let failure = |detail: Cow<'static, str>| Failure::new(Reason::Proxy, Fault::Network, detail);
    match error {
        ProxyError::Status(status) => {
            let what = match status {
                300..=399 => ": a redirect, as captive portals send it",
                403 => ": it does not allow the target",
                502..=504 => ": it cannot reach the target",
                511 => ": it requires a login to the network",
                _ => "",
            };
            failure(format!("the proxy answered CONNECT with {status}{what}").into())
        }
        ProxyError::Credentials { given, status } => {
            let what = if *given {
                "the proxy does not accept the credentials"
            } else {
                "the proxy requires credentials"
            };
            let detail = if *status { format!("{what} (407)").into() } else { what.into() };
            failure(detail).hint(CHECK_PROXY_CREDENTIALS)
        }
        ProxyError::Excess => failure(PROXY_EXCESS.into()),
        ProxyError::Closed => failure("the proxy closed the connection".into()),
        ProxyError::Garbled => failure("the proxy's answer could not be understood".into()),
        ProxyError::Unreachable(why) => failure(format!("the proxy cannot reach the target: {why}").into()),
        ProxyError::Forbidden => failure("the proxy does not allow the target".into()),
        ProxyError::Failed => failure("the proxy failed, or does not support this kind of tunnel".into()),
    }
}

pub(super) fn tls(error: &TlsError, api: Api) -> Failure {
    let failure = |detail| Failure::new(Reason::Tls, Fault::Network, detail).hint(CHECK_TLS);
    match error {
        TlsError::Certificate(failure) => certificate(*failure, api),
        TlsError::ClientCertificateRequired => client_certificate_required(),
        TlsError::NotTls => failure("handshake: the answer is not TLS"),
        TlsError::Refused => failure("handshake: refused by the server"),
        TlsError::NothingInCommon => failure("handshake: no common version or cipher"),
        TlsError::Reset => failure("handshake: the connection was reset"),
        TlsError::Closed => failure("handshake: the connection was closed"),
        TlsError::Io(_) | TlsError::Other => failure("handshake failed"),
    }
}

fn client_certificate_required() -> Failure {
    let detail = "the server requires a client certificate, which the prober does not send";
    Failure::new(Reason::Tls, Fault::Caller, detail)
        .hint("probe through a gateway or proxy that presents the client certificate, or exempt the prober")
}

fn certificate(failure: CertificateFailure, api: Api) -> Failure {
    let (detail, fault, hint) = match failure {
        CertificateFailure::Expired => (
            "certificate expired",
            api.endpoint(),
            "the service must renew its certificate; if others accept it, check this machine's clock",
        ),
        CertificateFailure::NotYetValid => ("certificate not yet valid", Fault::Network, CHECK_CLOCK),
        CertificateFailure::WrongName => ("certificate for a wrong name", api.endpoint(), CHECK_NAME),
        CertificateFailure::NoSubjectAltName => (
            "certificate for a wrong name: it has no subjectAltName, and the common name does not count",
            api.endpoint(),
            "have the certificate issued with the host as a DNS name in its subjectAltName (RFC 9525)",
        ),
        CertificateFailure::SelfSigned => {
            ("certificate of an untrusted issuer: it is self-signed", Fault::Network, CHECK_TRUST)
        }
        CertificateFailure::IncompleteChain => (
            "certificate of an untrusted issuer: the server did not send its intermediate certificate",
            Fault::Network,
            CHECK_CHAIN,
        ),
        CertificateFailure::UnknownIssuer => (
            "certificate of an untrusted issuer: its CA is not trusted here, or an intermediate certificate is missing",
            Fault::Network,
            CHECK_CHAIN,
        ),
        CertificateFailure::UntrustedRoot => {
            ("certificate of an untrusted issuer: its root is not trusted here", Fault::Network, CHECK_TRUST)
        }
        CertificateFailure::Unusable => ("certificate unusable for this server", Fault::Network, CHECK_TLS),
        CertificateFailure::VersionOne => (
            "certificate unusable for this server: it is of X.509 version 1, which names no host",
            Fault::Network,
            "have the certificate issued as X.509 version 3, with the host in its subjectAltName (RFC 9525)",
        ),
        CertificateFailure::Authority => (
            "certificate unusable for this server: it is a certificate authority's (CA:TRUE)",
            Fault::Network,
            "have the server's certificate issued without the CA flag, or set ca_file to this certificate itself",
        ),
    };
    let clue = match failure {
        CertificateFailure::Expired | CertificateFailure::NotYetValid => Some(Clue::CertificateTime),
        CertificateFailure::SelfSigned
        | CertificateFailure::IncompleteChain
        | CertificateFailure::UnknownIssuer
        | CertificateFailure::UntrustedRoot => Some(Clue::UntrustedIssuer),
        _ => None,
    };
    Failure { hint, clue, ..Failure::new(Reason::Tls, fault, detail) }
}

/// Returns the errors of one type in an error's chain.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a E> {
    chain(error).filter_map(<dyn Error>::downcast_ref)
}

/// Returns an error and its causes. `io::Error` hides what it wraps from `source`, so it is opened;
/// h2's errors hide theirs.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |error: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        if let Some(wrapper) = error.downcast_ref::<io::Error>() {
            return wrapper.get_ref().map(|inner| inner as &(dyn Error + 'static));
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.get_io().map(|inner| inner as &(dyn Error + 'static));
        }
        match error.downcast_ref::<HttpError>() {
            Some(HttpError::One(inner)) => Some(inner),
            Some(HttpError::Two(inner)) => Some(inner),
            None => error.source(),
        }
    };
    // No real chain is longer; a cycle would be one.
    std::iter::successors(Some(error), next).take(32)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[tokio::test]
    async fn request_that_http_2_cannot_carry_is_our_failure() {
        let (client, _server) = tokio::io::duplex(1024);
        let (mut sender, _connection) = h2::client::handshake(client).await.unwrap();
        let request = Request::get("https://api.corp.test/").header("proxy-connection", "close");
        let error = sender.send_request(request.body(()).unwrap(), true).unwrap_err();
        let verdict = http(&error, Api::Openai, None);
        assert_eq!((verdict.reason, verdict.fault), (Reason::Internal, Fault::Prober));
    }
}
