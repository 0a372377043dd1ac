//! TLS as a witness: full verification, and marks of when the handshake began, what was presented, what was wrong.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, NamedGroup, RootCertStore, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_cert::{
    Certificate,
    der::{Decode, Reader, SliceReader},
};

use super::clock::{CertificateFailure, mark};

/// Certificates of a presented chain that are looked at; longer chains are not seen in practice.
const MAX_CHAIN: usize = 16;

/// A TLS configuration that trusts these roots, offers HTTP/2 and HTTP/1.1, never resumes a session (each run shall
/// measure a whole handshake) and writes what it sees into the marks of the run.
pub(super) fn client_config(roots: &RootCertStore) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // The first draw seeds the generator, which takes up to 30 ms: not in the first run's handshake.
    provider.secure_random.fill(&mut [0; 32]).map_err(Error::from)?;
    let trust = if roots.is_empty() {
        None // the builder refuses an empty store; nothing is trusted then
    } else {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone());
        Some(builder.build().map_err(|error| Error::General(error.to_string()))?)
    };
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Witness { trust, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::store(Arc::new(HandshakeMark));
    Ok(config)
}

/// Verifies as webpki does, and notes the chain and the verdict.
#[derive(Debug)]
struct Witness {
    /// `None`: there are no roots, so nothing is trusted.
    trust: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let not_after =
            std::iter::once(end_entity).chain(intermediates).take(MAX_CHAIN).filter_map(not_after).min();
        let verdict = match &self.trust {
            Some(trust) => {
                trust.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        };
        mark(|seen| {
            let failure = verdict.as_ref().err().map(certificate_failure);
            if seen.handshake.is_some() {
                (seen.not_after, seen.certificate_failure) = (not_after, failure);
            } else {
                seen.proxy_certificate_failure = failure;
            }
        });
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        mark(|seen| seen.tls_version = seen.handshake.map(|_| "1.2"));
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        mark(|seen| seen.tls_version = seen.handshake.map(|_| "1.3"));
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificate_failure(error: &Error) -> CertificateFailure {
    let Error::InvalidCertificate(error) = error else { return CertificateFailure::Unusable };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFailure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateFailure::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFailure::WrongName
        }
        // webpki tells a self-signed certificate with the CA flag by an error of its own.
        CertificateError::UnknownIssuer | CertificateError::Other(_) => CertificateFailure::UntrustedIssuer,
        _ => CertificateFailure::Unusable,
    }
}

/// When this certificate's validity ends; `None` if it cannot be read.
fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let mut reader = SliceReader::new(certificate).ok()?;
    let certificate = Certificate::decode(&mut reader).ok()?;
    reader.finish(()).ok()?;
    let seconds = certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Remembers nothing, but is asked for a key-exchange hint just as each handshake begins: that is the mark. Through an
/// https proxy it is asked twice, first for the proxy's handshake, which counts as part of the connection.
#[derive(Debug)]
struct HandshakeMark;

impl ClientSessionStore for HandshakeMark {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        let now = Instant::now();
        mark(|seen| {
            if !std::mem::take(&mut seen.proxy_handshake_ahead) {
                seen.handshake = Some(now);
            }
        });
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}
