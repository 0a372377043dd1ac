//! Tunnels: CONNECT over HTTP/1.1 (RFC 9110, 9.3.6) and SOCKS 5 (RFC 1928).

use std::{
    future::poll_fn,
    io::{self, Cursor},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::Empty;
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1,
    ext::on_informational,
    header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio_socks::{TargetAddr, tcp::Socks5Stream};
use url::Url;

use super::{
    path::{BoxedIo, Endpoint, PrepareError},
    request::AGENT,
    socket::Meter,
    tls::Tls,
};
use crate::{
    config::{Provider, Secret},
    outcome::ProxyFailure,
};

/// Maximum size of the head that a proxy answers CONNECT with, and of its number of headers.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;

/// A proxy of a provider.
pub(super) struct Proxy {
    pub(super) endpoint: Endpoint,
    pub(super) kind: ProxyKind,
    /// User and password.
    credentials: Option<(Secret, Secret)>,
    pub(super) tls: Tls,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyKind {
    /// CONNECT for https targets; requests for http targets go to the proxy itself.
    Http,
    /// SOCKS 5 with the address of the target.
    Socks,
    /// SOCKS 5 with the name of the target.
    SocksByName,
}

impl Proxy {
    pub(super) fn new(url: &Url, provider: &Provider, tls: &Tls) -> Result<Self, PrepareError> {
        let secret = |text: &str| Secret::new(text.to_owned());
        let credentials = provider.proxy_credentials();
        Ok(Self {
            endpoint: Endpoint::new(url, provider)?,
            kind: match url.scheme() {
                "socks5" => ProxyKind::Socks,
                "socks5h" => ProxyKind::SocksByName,
                _ => ProxyKind::Http,
            },
            credentials: credentials.map(|(user, password)| (secret(user), secret(password))),
            tls: tls.for_proxy(),
        })
    }

    /// Connects to a host through the proxy. `address` is that of the target, if this machine looks
    /// it up.
    pub(super) async fn tunnel(
        &self,
        io: BoxedIo,
        target: &Endpoint,
        address: Option<IpAddr>,
        meter: &Arc<Meter>,
    ) -> Result<BoxedIo, ProxyFailure> {
        if self.kind == ProxyKind::Http {
            meter.begin();
            let connected = self.connect(io, &target.authority(), meter).await;
            let excess = meter.excess();
            meter.end();
            return connected.map_err(|error| if excess.is_some() { ProxyFailure::Excess } else { error });
        }
        let name = target.host.trim_matches(['[', ']']);
        let target = match address.or_else(|| name.parse().ok()) {
            Some(address) => TargetAddr::Ip((address, target.port).into()),
            None => TargetAddr::Domain(name.into(), target.port),
        };
        let stream = match &self.credentials {
            None => Socks5Stream::connect_with_socket(io, target).await,
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(io, target, user.expose(), password.expose())
                    .await
            }
        };
        stream.map(Socks5Stream::into_inner).map_err(|error| self.socks_error(&error))
    }

    async fn connect(
        &self,
        io: BoxedIo,
        authority: &str,
        meter: &Arc<Meter>,
    ) -> Result<BoxedIo, ProxyFailure> {
        let (mut sender, mut connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| ProxyFailure::Closed)?;
        let mut request = Request::builder().method(Method::CONNECT).uri(authority).header(HOST, authority);
        request = request.header(USER_AGENT, AGENT);
        if let Some(value) = self.authorization() {
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        let mut request = request.body(Empty::<Bytes>::new()).map_err(|_| ProxyFailure::Failed)?;
        let counted = meter.clone();
        on_informational(&mut request, move |_| counted.note_informational());
        let mut answer = Box::pin(sender.send_request(request));
        let mut ended = false;
        let answer = poll_fn(|cx| {
            if !ended {
                meter.grant();
                ended = Pin::new(&mut connection).poll(cx).is_ready();
            }
            answer.as_mut().poll(cx)
        })
        .await;
        let answer = answer
            .map_err(|error| if error.is_parse() { ProxyFailure::Garbled } else { ProxyFailure::Closed })?;
        match answer.status().as_u16() {
            200..=299 => {}
            407 => return Err(credentials_failure(self.credentials.is_some(), Some(407))),
            status => return Err(ProxyFailure::Status(status)),
        }
        drop(answer);
        let parts = connection.into_parts();
        let io = parts.io.into_inner();
        if parts.read_buf.is_empty() {
            return Ok(io);
        }
        // What follows the head belongs to the tunnel.
        let (read, write) = tokio::io::split(io);
        Ok(Box::new(tokio::io::join(Cursor::new(parts.read_buf).chain(read), write)))
    }

    /// Returns the credentials for HTTP (RFC 7617). Returns `None` if there are none.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials.as_ref()?;
        let encoded = BASE64_STANDARD.encode(format!("{}:{}", user.expose(), password.expose()));
        let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn socks_error(&self, error: &tokio_socks::Error) -> ProxyFailure {
        use tokio_socks::Error;
        match error {
            Error::NoAcceptableAuthMethods
            | Error::AuthorizationRequired
            | Error::InvalidAuthValues(_)
            | Error::PasswordAuthFailure(_) => {
                credentials_failure(self.credentials.is_some(), None)
            }
            Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => ProxyFailure::Garbled,
            Error::Io(_) => ProxyFailure::Closed,
            Error::ConnectionRefused => ProxyFailure::Unreachable(io::ErrorKind::ConnectionRefused),
            Error::HostUnreachable => ProxyFailure::Unreachable(io::ErrorKind::HostUnreachable),
            Error::NetworkUnreachable => ProxyFailure::Unreachable(io::ErrorKind::NetworkUnreachable),
            Error::TtlExpired => ProxyFailure::Unreachable(io::ErrorKind::TimedOut),
            Error::ConnectionNotAllowedByRuleset => ProxyFailure::Forbidden,
            Error::InvalidResponseVersion
            | Error::InvalidReservedByte
            | Error::UnknownAddressType
            | Error::UnknownError
            // Also of a reply code that is not in RFC 1928.
            | Error::UnknownAuthMethod => ProxyFailure::Garbled,
            _ => ProxyFailure::Failed,
        }
    }
}

/// Returns the name that the certificate of a host must have.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()
}

/// Returns the failure of a proxy that asks for credentials. `given` is true if it was given some.
pub(super) const fn credentials_failure(given: bool, status: Option<u16>) -> ProxyFailure {
    if given { ProxyFailure::CredentialsRejected(status) } else { ProxyFailure::CredentialsRequired(status) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Key, KeySource, testing::provider},
        outcome::Api,
    };

    #[test]
    fn credentials_are_encoded_and_sensitive() {
        let mut provider = provider("p", Api::Openai, "https://api.example");
        provider.proxy = Some("http://proxy.example:3128".parse().unwrap());
        let value = Secret::new("Aladdin:open sesame".to_owned());
        provider.proxy_auth = Some(Key { value, source: KeySource::Env("PROXY_AUTH".to_owned()) });
        let tls = Tls::new(&rustls::RootCertStore::empty(), Vec::new()).unwrap();
        let proxy = Proxy::new(provider.proxy.as_ref().unwrap(), &provider, &tls).unwrap();
        let value = proxy.authorization().unwrap();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="); // the example of RFC 7617, 2
        assert_eq!(format!("{value:?}"), "Sensitive");
    }
}
