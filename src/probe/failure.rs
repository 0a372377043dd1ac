//! The verdict on a run without a complete response: transport errors and deadlines, by their
//! types.

use std::{error::Error, io, time::Duration};

use super::{
    dial::DialError,
    http::HttpError,
    path::{Hop, Path, PathError, Trace},
    socket::Excess,
    tls::{Handshake, TlsError},
};
use crate::outcome::{
    Api, CertificateFailure, Detail, Fault, HandshakeFailure, LookupFailure, Outcome, Phase, Reason,
};

/// A run's verdict where the exchange is incomplete.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) fault: Fault,
    pub(super) detail: Detail,
}

impl Failure {
    pub(super) fn new(reason: Reason, fault: Fault, detail: Detail) -> Self {
        Self { reason, fault, detail }
    }

    /// Writes the verdict into the outcome of the run.
    pub(super) fn write_into(self, outcome: &mut Outcome) {
        let Self { reason, fault, detail } = self;
        (outcome.reason, outcome.fault, outcome.detail) = (reason, fault, Some(detail));
    }
}

/// Destination of a failed run.
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
        PathError::Resolve(_, failure @ LookupFailure::OutOfResources) => internal(Detail::Lookup(*failure)),
        PathError::Resolve(hop, failure) => lookup(*hop, *failure, route),
        PathError::Dial(_, DialError::Io(error)) | PathError::Tls(_, TlsError::Io(error))
            if is_local_shortage(error) =>
        {
            internal(shortage(error))
        }
        PathError::Dial(hop, error) => dial(*hop, error),
        PathError::Proxy(failure) => {
            Failure::new(Reason::Proxy, Fault::Network, Detail::Proxy(failure.clone()))
        }
        PathError::Tls(Hop::Proxy, error) => {
            let detail = Detail::ProxyTls(Box::new(tls(error, route.api).detail));
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
        return Failure::new(Reason::Disconnected, endpoint, Detail::TlsBroken);
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
        Excess::BeforeHead => Detail::HeadExceeded,
        Excess::Exchange => Detail::ExchangeExceeded,
    };
    Failure::new(Reason::Malformed, api.endpoint(), detail)
}

fn http1(error: &hyper::Error, endpoint: Fault) -> Failure {
    if error.is_parse_too_large() {
        return Failure::new(Reason::Malformed, endpoint, Detail::HeadersTooLarge);
    }
    if error.is_parse() {
        return Failure::new(Reason::Malformed, endpoint, Detail::NotHttp);
    }
    // hyper's decoder of chunks reports what it cannot read by these kinds.
    let undecodable =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
    if find::<io::Error>(error).any(undecodable) {
        return Failure::new(Reason::Malformed, endpoint, Detail::BrokenChunks);
    }
    disconnected(find::<io::Error>(error).last(), endpoint)
}

fn http2(error: &h2::Error, endpoint: Fault) -> Failure {
    if error.is_library() {
        // Our side ended the exchange over what the other had sent.
        return Failure::new(Reason::Malformed, endpoint, Detail::BrokenHttp2);
    }
    if let Some(code) = error.reason() {
        let detail =
            if error.is_go_away() { Detail::Http2Connection(code) } else { Detail::Http2Stream(code) };
        return Failure::new(Reason::Disconnected, endpoint, detail);
    }
    match error.get_io() {
        Some(error) => disconnected(Some(error), endpoint),
        // Neither the peer's, nor the library's, nor the connection's.
        None => internal(Detail::UnsendableRequest),
    }
}

/// Returns the verdict on a connection that ended early. Only a reset is one: h2 reports an orderly
/// end as a broken pipe, as Linux does a write after the peer's end.
fn disconnected(error: Option<&io::Error>, endpoint: Fault) -> Failure {
    let detail = match error.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset) => Detail::ConnectionReset,
        _ => Detail::ConnectionClosed,
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
    if trace.tunnelling {
        return Failure::new(Reason::Timeout, Fault::Network, Detail::LateTunnel(timeout));
    }
    late(phase, timeout, route.api)
}

/// Returns the verdict on a deadline that was met in a phase.
pub(super) fn late(phase: Phase, timeout: Duration, api: Api) -> Failure {
    let fault = match phase {
        Phase::Resolve | Phase::Connect | Phase::Tls => Fault::Network,
        Phase::Processing | Phase::Transfer => api.endpoint(),
    };
    Failure::new(Reason::Timeout, fault, Detail::Late(phase, timeout))
}

fn internal(detail: Detail) -> Failure {
    Failure::new(Reason::Internal, Fault::Prober, detail)
}

/// Returns whether the operating system refused this process something of its own: descriptors,
/// memory, local ports. The numbers are those of errno(3) on Linux: `ENOMEM`, `ENFILE`, `EMFILE`,
/// `EADDRNOTAVAIL`, `ENOBUFS`.
pub(super) fn is_local_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 99 | 105))
}

fn shortage(error: &io::Error) -> Detail {
    match error.raw_os_error() {
        Some(23 | 24) => Detail::OutOfDescriptors,
        Some(99) => Detail::OutOfPorts,
        _ => Detail::OutOfMemory,
    }
}

fn lookup(hop: Hop, failure: LookupFailure, route: Route) -> Failure {
    let detail = Detail::Lookup(failure);
    if !route.proxied {
        return Failure::new(Reason::Dns, Fault::Network, detail);
    }
    let detail = match hop {
        Hop::Proxy => Detail::ProxyLookup(Box::new(detail)),
        Hop::Target => Detail::TargetLookup(Box::new(detail)),
    };
    Failure::new(Reason::Proxy, Fault::Network, detail)
}

fn dial(hop: Hop, error: &DialError) -> Failure {
    let detail = match error {
        DialError::NoIpv6 => Detail::NoIpv6,
        DialError::Io(error) => Detail::Connection(error.kind()),
    };
    match hop {
        Hop::Proxy => Failure::new(Reason::Proxy, Fault::Network, Detail::ProxyConnection(Box::new(detail))),
        Hop::Target => Failure::new(Reason::Connect, Fault::Network, detail),
    }
}

fn tls(error: &TlsError, api: Api) -> Failure {
    let failure = match error {
        TlsError::Certificate(failure) => return certificate(*failure, api),
        TlsError::ClientCertificateRequired => return client_certificate_required(),
        TlsError::Handshake(failure) => *failure,
        TlsError::Io(_) => HandshakeFailure::Other,
    };
    Failure::new(Reason::Tls, Fault::Network, Detail::Handshake(failure))
}

fn client_certificate_required() -> Failure {
    Failure::new(Reason::Tls, Fault::Caller, Detail::ClientCertificateRequired)
}

fn certificate(failure: CertificateFailure, api: Api) -> Failure {
    let fault = match failure {
        CertificateFailure::Expired
        | CertificateFailure::WrongName
        | CertificateFailure::NoSubjectAltName => api.endpoint(),
        _ => Fault::Network,
    };
    Failure::new(Reason::Tls, fault, Detail::Certificate(failure))
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

    #[test]
    fn only_a_reset_is_reported_as_one() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionReset, Detail::ConnectionReset),
            (io::ErrorKind::BrokenPipe, Detail::ConnectionClosed),
            (io::ErrorKind::UnexpectedEof, Detail::ConnectionClosed),
        ] {
            let verdict = http(&io::Error::from(kind), Api::Openai, None);
            assert_eq!((verdict.reason, verdict.detail), (Reason::Disconnected, expected));
        }
    }

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
