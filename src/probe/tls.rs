//! TLS handshakes: full verification, and what the server presented, also where it was refused.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_cert::{
    Certificate, TbsCertificate, Version,
    der::{Decode, Reader, SliceReader},
    ext::pkix::{BasicConstraints, SubjectAltName},
    name::Name,
};

use crate::{
    outcome::{self, CertificateFailure, HandshakeFailure},
    sync::Mutex,
};

/// Maximum number of certificates of a presented chain that are read.
const MAX_CHAIN: usize = 16;

/// Cause of a missing TLS connection.
#[derive(Debug)]
pub(super) enum TlsError {
    Certificate(CertificateFailure),
    /// The server requires a client certificate.
    ClientCertificateRequired,
    Handshake(HandshakeFailure),
    /// An error of this machine.
    Io(io::Error),
}

/// Makes TLS connections for one provider.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    verifier: Verifier,
}

/// Findings of one handshake, whether it succeeded or not.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    state: Mutex<Presented>,
    client_certificate_requested: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Presented {
    /// Earliest end of validity in the chain.
    not_after: Option<SystemTime>,
    failure: Option<CertificateFailure>,
    /// Known once the server has signed.
    version: Option<&'static str>,
}

impl Handshake {
    fn presented(&self) -> Presented {
        *self.state.lock()
    }

    fn note(&self, note: impl FnOnce(&mut Presented)) {
        note(&mut self.state.lock());
    }

    /// Returns whether the server requested a client certificate.
    pub(super) fn client_certificate_requested(&self) -> bool {
        self.client_certificate_requested.load(Ordering::Relaxed)
    }

    /// Returns whether the first read after the handshake failed because the server requires a
    /// client certificate. `kind` is that of the I/O error, for cases in which the library's error
    /// is lost.
    pub(super) fn is_refusal(&self, error: Option<&Error>, kind: Option<io::ErrorKind>) -> bool {
        let by_alert = match error {
            Some(Error::AlertReceived(alert)) => refuses_client(*alert),
            Some(_) => false,
            None => kind == Some(io::ErrorKind::InvalidData),
        };
        self.client_certificate_requested() && by_alert
    }

    /// Returns the findings for the record. `cipher` is that of a successful handshake.
    pub(super) fn findings(&self, cipher: Option<&'static str>) -> outcome::Tls {
        let Presented { not_after, version, .. } = self.presented();
        outcome::Tls { version, cipher, not_after }
    }

    /// Returns why this handshake, or a read after it, failed.
    pub(super) fn error(&self, error: io::Error) -> TlsError {
        if let Some(failure) = self.presented().failure {
            return TlsError::Certificate(failure);
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert))
                if self.client_certificate_requested() && refuses_client(*alert) =>
            {
                TlsError::ClientCertificateRequired
            }
            Some(error) => TlsError::from_rustls(error),
            None => match error.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    TlsError::Handshake(HandshakeFailure::Reset)
                }
                io::ErrorKind::UnexpectedEof => TlsError::Handshake(HandshakeFailure::Closed),
                _ => TlsError::Io(error),
            },
        }
    }
}

impl TlsError {
    /// Returns the kind of an error of the library without the certificate.
    pub(super) fn from_rustls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(_) => Self::Certificate(certificate_failure(error, None)),
            Error::AlertReceived(_) => Self::Handshake(HandshakeFailure::Refused),
            Error::InvalidMessage(_) => Self::Handshake(HandshakeFailure::NotTls),
            Error::PeerIncompatible(_) => Self::Handshake(HandshakeFailure::NothingInCommon),
            _ => Self::Handshake(HandshakeFailure::Other),
        }
    }
}

/// Returns whether an alert after an empty certificate means that one is required (RFC 8446,
/// 4.4.2.4; RFC 5246, 7.4.6).
fn refuses_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::NoCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
    )
}

impl Tls {
    /// Creates a configuration that trusts `roots` and each certificate of `own` itself, also if it
    /// is not that of a CA, as `curl --cacert` does.
    ///
    /// It offers HTTP/2 and HTTP/1.1, and never resumes a session: each run measures a whole
    /// handshake.
    pub(super) fn new(roots: &RootCertStore, own: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        // The first use seeds the generator, which takes up to 30 ms, here instead of in the first
        // run.
        provider.secure_random.fill(&mut [0; 32]).map_err(Error::from)?;
        let webpki = if roots.is_empty() {
            None // the builder refuses an empty store; nothing is trusted then
        } else {
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone());
            Some(builder.build().map_err(|error| Error::General(error.to_string()))?)
        };
        let verifier =
            Verifier { webpki, own: own.into(), provider: provider.clone(), handshake: Arc::default() };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.clone()))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// Returns the configuration without an application protocol, for a proxy that uses HTTP/1.1.
    pub(super) fn for_proxy(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols.clear();
        Self { config: Arc::new(config), verifier: self.verifier.clone() }
    }

    /// Returns the configuration for a library that makes its own connections.
    pub(super) fn config(&self) -> ClientConfig {
        ClientConfig::clone(&self.config)
    }

    /// Shakes hands. `handshake` is kept outside, since a deadline drops this future.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: ServerName<'static>,
        stream: S,
        handshake: &Arc<Handshake>,
    ) -> Result<TlsStream<S>, TlsError> {
        let mut config = ClientConfig::clone(&self.config);
        let verifier = Verifier { handshake: handshake.clone(), ..self.verifier.clone() };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        config.client_auth_cert_resolver = Arc::new(NoClientCertificate(handshake.clone()));
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| handshake.error(error))
    }
}

/// Has no client certificate, and records that the server asked for one.
#[derive(Debug)]
struct NoClientCertificate(Arc<Handshake>);

impl ResolvesClientCert for NoClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.client_certificate_requested.store(true, Ordering::Relaxed);
        None
    }

    // Without one this is not asked at all.
    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies as webpki does, and records the chain and the verdict.
#[derive(Clone, Debug)]
struct Verifier {
    /// Verifier by the roots. `None` if there are none.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    own: Arc<[CertificateDer<'static>]>,
    provider: Arc<CryptoProvider>,
    handshake: Arc<Handshake>,
}

impl Verifier {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.own.iter().any(|own| own == end_entity) {
            return verify_pinned(end_entity, server_name, now);
        }
        match &self.webpki {
            Some(webpki) => webpki.verify_server_cert(end_entity, intermediates, server_name, &[], now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

/// Verifies a certificate that the configuration names itself: its name and its validity, not its
/// issuer.
fn verify_pinned(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    let validity = decode(certificate).ok_or(CertificateError::BadEncoding)?.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    if now < validity.not_before.to_unix_duration() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(CertificateError::Expired.into());
    }
    Ok(ServerCertVerified::assertion())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).take(MAX_CHAIN);
        let not_after = chain.filter_map(not_after).min();
        let verdict = self.verify(end_entity, intermediates, server_name, now);
        let failure =
            verdict.as_ref().err().map(|error| certificate_failure(error, Some((end_entity, intermediates))));
        self.handshake.note(|presented| (presented.not_after, presented.failure) = (not_after, failure));
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.handshake.note(|presented| presented.version = Some("1.2"));
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.handshake.note(|presented| presented.version = Some("1.3"));
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Classifies an invalid certificate. `chain` is the presented one, if it is available.
fn certificate_failure(
    error: &Error,
    chain: Option<(&CertificateDer<'_>, &[CertificateDer<'_>])>,
) -> CertificateFailure {
    let Error::InvalidCertificate(error) = error else { return CertificateFailure::Unusable };
    let leaf = chain.and_then(|(end_entity, _)| decode(end_entity)).map(|leaf| leaf.tbs_certificate);
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFailure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateFailure::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => match leaf {
            Some(leaf) if matches!(leaf.get::<SubjectAltName>(), Ok(None)) => {
                CertificateFailure::NoSubjectAltName
            }
            _ => CertificateFailure::WrongName,
        },
        // webpki's own errors, of which rustls has none: about the form of a certificate, not about
        // who issued it. A self-signed certificate with the CA flag has one of them.
        CertificateError::Other(_) => match leaf {
            Some(leaf) if leaf.version == Version::V1 => CertificateFailure::VersionOne,
            Some(leaf) if leaf.issuer == leaf.subject => CertificateFailure::SelfSigned,
            Some(leaf) if is_authority(&leaf) => CertificateFailure::Authority,
            _ => CertificateFailure::Unusable,
        },
        // A certificate with the name of a trusted issuer that did not sign it has a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match (leaf, chain) {
            (Some(leaf), _) if leaf.issuer == leaf.subject => CertificateFailure::SelfSigned,
            (Some(leaf), Some((_, intermediates))) if !is_issuer_among(&leaf.issuer, intermediates) => {
                CertificateFailure::IncompleteChain
            }
            (_, Some((_, intermediates)))
                if intermediates.iter().filter_map(decode).any(|sent| is_self_issued(&sent)) =>
            {
                CertificateFailure::UntrustedRoot
            }
            _ => CertificateFailure::UnknownIssuer,
        },
        _ => CertificateFailure::Unusable,
    }
}

/// Returns whether a certificate has the CA flag (RFC 5280, 4.2.1.9).
fn is_authority(certificate: &TbsCertificate) -> bool {
    matches!(certificate.get::<BasicConstraints>(), Ok(Some((_, BasicConstraints { ca: true, .. }))))
}

fn is_self_issued(certificate: &Certificate) -> bool {
    certificate.tbs_certificate.issuer == certificate.tbs_certificate.subject
}

/// Returns whether one of the sent certificates is that of the issuer.
fn is_issuer_among(issuer: &Name, sent: &[CertificateDer<'_>]) -> bool {
    sent.iter().take(MAX_CHAIN).filter_map(decode).any(|sent| sent.tbs_certificate.subject == *issuer)
}

fn decode(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    let mut reader = SliceReader::new(certificate).ok()?;
    let certificate = Certificate::decode(&mut reader).ok()?;
    reader.finish(()).ok()?;
    Some(certificate)
}

/// Returns the end of a certificate's validity. Returns `None` if it cannot be read.
fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let seconds = decode(certificate)?.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SigningKey};
    use x509_cert::der::{Encode, asn1::BitString};

    use super::*;

    const NAME: &str = "api.corp.test";

    /// The authority `root`, which issues certificates.
    struct Authority {
        key: KeyPair,
        issuer: Issuer<'static, KeyPair>,
        certificate: CertificateDer<'static>,
    }

    fn parameters(common_name: &str, is_ca: IsCa) -> CertificateParams {
        let mut parameters = CertificateParams::new([NAME.to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        parameters.is_ca = is_ca;
        parameters
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let parameters = parameters("root", IsCa::Ca(BasicConstraints::Unconstrained));
            let certificate = parameters.self_signed(&key).unwrap().der().clone();
            let same_key = KeyPair::from_pem(&key.serialize_pem()).unwrap();
            Self { issuer: Issuer::new(parameters, same_key), key, certificate }
        }

        fn issue(&self, is_ca: IsCa) -> CertificateDer<'static> {
            let key = KeyPair::generate().unwrap();
            parameters("leaf", is_ca).signed_by(&key, &self.issuer).unwrap().der().clone()
        }

        /// Signs a certificate again, as one of version 1: without extensions.
        fn sign_version_1(&self, certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
            let mut certificate = decode(certificate).unwrap();
            certificate.tbs_certificate.version = Version::V1;
            certificate.tbs_certificate.extensions = None;
            let signature = self.key.sign(&certificate.tbs_certificate.to_der().unwrap()).unwrap();
            certificate.signature = BitString::from_bytes(&signature).unwrap();
            certificate.to_der().unwrap().into()
        }
    }

    /// Returns why a certificate is not accepted by a client that trusts these.
    fn failure(
        trusted: &[&CertificateDer<'static>],
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
    ) -> Option<CertificateFailure> {
        let mut roots = RootCertStore::empty();
        let trusted: Vec<_> = trusted.iter().map(|certificate| (*certificate).clone()).collect();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let tls = Tls::new(&roots, trusted).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let _ = tls.verifier.verify_server_cert(leaf, sent, &name, &[], UnixTime::now());
        tls.verifier.handshake.presented().failure
    }

    #[test]
    fn certificate_of_a_wrong_form_is_no_missing_intermediate() {
        let root = Authority::new();
        let stranger = Authority::new();
        let leaf = root.issue(IsCa::NoCa);
        let trusted = [&root.certificate];
        assert_eq!(failure(&trusted, &leaf, &[]), None);
        let old = root.sign_version_1(&leaf);
        let sent = [root.certificate.clone()];
        for sent in [&[][..], &sent] {
            assert_eq!(failure(&trusted, &old, sent), Some(CertificateFailure::VersionOne));
            assert_eq!(failure(&[&old], &old, sent), Some(CertificateFailure::VersionOne), "pinned");
            let old = root.sign_version_1(&root.certificate);
            assert_eq!(failure(&[&old], &old, sent), Some(CertificateFailure::VersionOne), "self-signed");
            let authority = root.issue(IsCa::Ca(BasicConstraints::Unconstrained));
            assert_eq!(failure(&trusted, &authority, sent), Some(CertificateFailure::Authority));
        }
        let unknown = stranger.issue(IsCa::NoCa);
        let other = Authority::new();
        assert_eq!(failure(&[], &stranger.certificate, &[]), Some(CertificateFailure::SelfSigned));
        assert_eq!(
            failure(&[&other.certificate], &unknown, &[]),
            Some(CertificateFailure::IncompleteChain),
            "a name that is trusted, and not signed by it"
        );
    }
}
