//! A private certificate authority, created at each start, and valid and invalid server
//! certificates.

use std::{collections::BTreeMap, io, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// Certificates of the TLS port, by the first label of the requested server name.
pub(super) struct Certificates {
    ca_pem: String,
    good: Arc<ServerConfig>,
    special: BTreeMap<&'static str, Arc<ServerConfig>>,
}

/// Reaction to a `ClientHello`.
pub(super) enum Greeting {
    /// Continues the handshake with this configuration.
    Accept(Arc<ServerConfig>),
    /// Resets the connection during the handshake.
    Reset,
}

impl Certificates {
    pub(super) fn create() -> io::Result<Self> {
        Self::generate().map_err(|error| io::Error::other(format!("simulator certificates: {error}")))
    }

    fn generate() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "langmart-prober simulator");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let good = leaf(&["localhost", "127.0.0.1", "::1", "sim.test", "*.sim.test"])?;
        let mut expired = leaf(&["expired.sim.test", "expired.localhost"])?;
        expired.not_after = date_time_ymd(2020, 1, 1);
        let mut future = leaf(&["future.sim.test", "future.localhost"])?;
        future.not_before = date_time_ymd(2090, 1, 1);
        let wrong = leaf(&["another.example"])?;
        let selfsigned = leaf(&["selfsigned.sim.test", "selfsigned.localhost"])?;

        let mut special = BTreeMap::new();
        for (label, parameters) in [("expired", expired), ("future", future), ("wrong", wrong)] {
            special.insert(label, server_config(&parameters, Some(&issuer))?);
        }
        special.insert("selfsigned", server_config(&selfsigned, None)?);
        Ok(Self { ca_pem, good: server_config(&good, Some(&issuer))?, special })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Returns the reaction to a server name. Clients that connect to an IP address send none.
    pub(super) fn greet(&self, server_name: Option<&str>) -> Greeting {
        let label = server_name.and_then(|name| name.split('.').next()).unwrap_or_default();
        if label == "reset" {
            return Greeting::Reset;
        }
        Greeting::Accept(Arc::clone(self.special.get(label).unwrap_or(&self.good)))
    }
}

fn leaf(names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    // The defaults are the years 1975 and 4096, which no real certificate has.
    parameters.not_before = date_time_ymd(2019, 1, 1);
    parameters.not_after = date_time_ymd(2099, 1, 1);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

/// Builds a server configuration. Without an issuer the certificate is self-signed.
fn server_config(
    parameters: &CertificateParams,
    issuer: Option<&Issuer<'_, KeyPair>>,
) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let certificate = match issuer {
        Some(issuer) => parameters.signed_by(&key, issuer)?,
        None => parameters.self_signed(&key)?,
    };
    let chain = vec![CertificateDer::from(certificate)];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // The provider is explicit, because the process default is undefined if other crates bring
    // another one.
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
