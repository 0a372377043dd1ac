//! How the listener may be reached, as the configuration in force has it: by which names, as whom, over TLS or not.

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

/// See the module. Replaced as a whole, so that no request meets half of a change.
#[derive(Clone)]
pub(super) struct Access {
    /// Names beside the listen address, in lower case.
    pub(super) hostnames: Arc<[String]>,
    /// `None`: everybody may ask.
    pub(super) users: Option<Arc<Users>>,
    /// `None`: plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Whether `/probe` may run chat and stream probes.
    pub(super) probe_generation: bool,
}

impl fmt::Debug for Access {
    /// Without the key of the certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Access").field(&self.hostnames).finish()
    }
}

impl Access {
    /// As configured. What was found out about passwords is kept from `before` where the users are the same, and TLS where
    /// the new configuration has none: from TLS to plain HTTP it takes a restart.
    pub(super) fn new(server: &config::Server, before: Option<&Self>) -> Self {
        let known = before.and_then(|before| before.users.clone()).filter(|users| users.are(&server.users));
        let certified = server.tls.as_ref().and_then(|tls| tls.certified.clone());
        Self {
            hostnames: server.hostnames.clone().into(),
            users: known.or_else(|| Users::new(&server.users)),
            tls: certified.map(acceptor).or_else(|| before?.tls.clone()),
            probe_generation: server.probe_generation,
        }
    }

    /// The same with another certificate.
    pub(super) fn certified(&self, certified: Arc<CertifiedKey>) -> Self {
        Self { tls: Some(acceptor(certified)), ..self.clone() }
    }
}

/// TLS 1.2 and 1.3 with rustls' suites, all of which have forward secrecy and authenticated encryption; HTTP/1.1 alone.
fn acceptor(certified: Arc<CertifiedKey>) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites for both")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config).into()
}
