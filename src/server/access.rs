//! The access configuration of the listener: host names, users and TLS.

use std::{fmt, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use super::users::Users;
use crate::config;

/// The access configuration. It is replaced as a whole, so that a request never uses a mixture of
/// two configurations.
#[derive(Clone)]
pub(super) struct Access {
    /// Host names in addition to the listen address, in lower case.
    pub(super) hostnames: Arc<[String]>,
    /// The users. `None` disables authentication.
    pub(super) users: Option<Arc<Users>>,
    /// The TLS configuration. `None` means plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Whether `/probe` may run chat and stream probes.
    pub(super) probe_generation: bool,
}

impl fmt::Debug for Access {
    /// Omits the key of the certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Access").field(&self.hostnames).finish()
    }
}

impl Access {
    /// Applies a configuration. Checked passwords are kept from `before` if the users are
    /// unchanged. TLS is kept if the new configuration has none, because a change to plain HTTP
    /// requires a restart.
    pub(super) fn new(server: &config::Server, before: Option<&Self>) -> Self {
        let known =
            before.and_then(|before| before.users.clone()).filter(|users| users.matches(&server.users));
        let certified = server.tls.as_ref().and_then(|tls| tls.certified.clone());
        Self {
            hostnames: server.hostnames.clone().into(),
            users: known.or_else(|| Users::new(&server.users)),
            tls: certified.map(acceptor).or_else(|| before?.tls.clone()),
            probe_generation: server.probe_generation,
        }
    }

    /// Returns the same configuration with another certificate.
    pub(super) fn with_certificate(&self, certified: Arc<CertifiedKey>) -> Self {
        Self { tls: Some(acceptor(certified)), ..self.clone() }
    }
}

/// Returns an acceptor for TLS 1.2 and 1.3 and HTTP/1.1. All suites of rustls have forward secrecy
/// and authenticated encryption.
fn acceptor(certified: Arc<CertifiedKey>) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites for both")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config).into()
}
