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
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError,
    RootCertStore, SignatureScheme,
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
    der::{
        Decode, Reader, SliceReader,
        asn1::{ObjectIdentifier, UintRef},
    },
    ext::pkix::SubjectAltName,
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
                io::ErrorKind::ConnectionReset => TlsError::Handshake(HandshakeFailure::Reset),
                // A broken pipe is a write after the peer's orderly end.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                    TlsError::Handshake(HandshakeFailure::Closed)
                }
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
            Error::AlertReceived(alert) => Self::Handshake(HandshakeFailure::Refused(*alert)),
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

    /// Records the version of a handshake whose signature was checked, and why it is not accepted.
    fn note_signature(&self, version: &'static str, certificate: &CertificateDer<'_>, error: Option<&Error>) {
        let failure = error.and_then(|error| signature_failure(error, certificate));
        self.handshake.note(|presented| {
            (presented.version, presented.failure) = (Some(version), presented.failure.or(failure));
        });
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
        let classify = |error: &Error| certificate_failure(error, Some((end_entity, intermediates)));
        let mut failure = verdict.as_ref().err().map(classify);
        if failure == Some(CertificateFailure::Expired)
            && let Some(end) = decode(end_entity).as_ref().map(end_of)
        {
            // The validity is checked before the issuer: at the end of it only the issuer is left.
            let then = self.verify(end_entity, intermediates, server_name, UnixTime::since_unix_epoch(end));
            if then.is_err_and(|error| classify(&error).is_about_trust()) {
                failure = Some(CertificateFailure::ExpiredAndUntrusted);
            }
        }
        self.handshake.note(|presented| (presented.not_after, presented.failure) = (not_after, failure));
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let verdict = rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms);
        self.note_signature("1.2", cert, verdict.as_ref().err());
        verdict
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let verdict = rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms);
        self.note_signature("1.3", cert, verdict.as_ref().err());
        verdict
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A presented certificate, and the others that were sent with it.
type Chain<'a> = (&'a CertificateDer<'a>, &'a [CertificateDer<'a>]);

/// Classifies an invalid certificate. `chain` is the presented one, if it is available.
fn certificate_failure(error: &Error, chain: Option<Chain<'_>>) -> CertificateFailure {
    let Error::InvalidCertificate(error) = error else { return CertificateFailure::Unusable };
    let leaf = chain.and_then(|(end_entity, _)| decode(end_entity)).map(|leaf| leaf.tbs_certificate);
    match error {
        CertificateError::Other(_) if leaf.as_ref().is_some_and(|leaf| leaf.version == Version::V1) => {
            CertificateFailure::VersionOne
        }
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
        CertificateError::InvalidPurpose
        | CertificateError::InvalidPurposeContext { .. }
        | CertificateError::Other(_)
            if leaf.as_ref().is_some_and(is_self_issued) =>
        {
            CertificateFailure::SelfSigned
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            CertificateFailure::UnsupportedAlgorithm
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            CertificateFailure::WrongPurpose
        }
        CertificateError::BadEncoding => CertificateFailure::Malformed,
        // webpki's own errors, of which rustls has none: about the form of a certificate, not about
        // who issued it.
        CertificateError::Other(OtherError(error)) => {
            error.downcast_ref().map_or(CertificateFailure::Unusable, form_failure)
        }
        CertificateError::BadSignature if chain.is_some_and(|(_, sent)| sent.iter().any(has_short_key)) => {
            CertificateFailure::ShortKey
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            trust_failure(leaf.as_ref(), chain)
        }
        _ => CertificateFailure::Unusable,
    }
}

/// Returns why the issuer of a certificate is not trusted. A certificate with the name of a trusted
/// issuer that did not sign it has a bad signature.
fn trust_failure(leaf: Option<&TbsCertificate>, chain: Option<Chain<'_>>) -> CertificateFailure {
    match (leaf, chain) {
        (Some(leaf), _) if is_self_issued(leaf) => CertificateFailure::SelfSigned,
        (Some(leaf), Some((_, intermediates))) if !is_issuer_among(&leaf.issuer, intermediates) => {
            CertificateFailure::IncompleteChain
        }
        (_, Some((_, intermediates)))
            if intermediates.iter().filter_map(decode).any(|sent| is_self_issued(&sent.tbs_certificate)) =>
        {
            CertificateFailure::UntrustedRoot
        }
        _ => CertificateFailure::UnknownIssuer,
    }
}

/// Classifies an error about the form of a certificate.
fn form_failure(error: &webpki::Error) -> CertificateFailure {
    use webpki::Error;
    match error {
        Error::CaUsedAsEndEntity => CertificateFailure::Authority,
        Error::EndEntityUsedAsCa => CertificateFailure::IssuerNotAuthority,
        Error::EmptyEkuExtension => CertificateFailure::WrongPurpose,
        Error::NameConstraintViolation => CertificateFailure::NameConstraints,
        Error::PathLenConstraintViolated => CertificateFailure::ChainTooLong,
        Error::UnsupportedCriticalExtension => CertificateFailure::CriticalExtension,
        Error::ExtensionValueInvalid
        | Error::InvalidSerialNumber
        | Error::MalformedDnsIdentifier
        | Error::MalformedExtensions
        | Error::MalformedNameConstraint
        | Error::SignatureAlgorithmMismatch => CertificateFailure::Malformed,
        _ => CertificateFailure::Unusable,
    }
}

/// Returns why the certificate's key did not sign the handshake. Returns `None` if the failure is
/// not the certificate's.
fn signature_failure(error: &Error, certificate: &CertificateDer<'_>) -> Option<CertificateFailure> {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) if has_short_key(certificate) => {
            Some(CertificateFailure::ShortKey)
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => Some(CertificateFailure::NoPrivateKey),
        Error::InvalidCertificate(_) => Some(certificate_failure(error, Some((certificate, &[])))),
        _ => None,
    }
}

/// Returns whether a certificate has an RSA key of fewer than 2048 bits, by which no signature is
/// accepted.
fn has_short_key(certificate: &CertificateDer<'_>) -> bool {
    const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    const MIN_MODULUS_BYTES: usize = 2048 / 8;
    let Some(certificate) = decode(certificate) else { return false };
    let key = certificate.tbs_certificate.subject_public_key_info;
    // RSAPublicKey of RFC 8017, A.1.1: the modulus, then the exponent.
    let modulus = SliceReader::new(key.subject_public_key.raw_bytes()).and_then(|mut reader| {
        reader.sequence(|numbers| {
            let modulus = UintRef::decode(numbers)?.as_bytes().len();
            UintRef::decode(numbers)?;
            Ok(modulus)
        })
    });
    key.algorithm.oid == RSA && modulus.is_ok_and(|bytes| bytes < MIN_MODULUS_BYTES)
}

fn is_self_issued(certificate: &TbsCertificate) -> bool {
    certificate.issuer == certificate.subject
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
    SystemTime::UNIX_EPOCH.checked_add(end_of(&decode(certificate)?))
}

/// Returns the end of a certificate's validity since 1970, in whole seconds.
fn end_of(certificate: &Certificate) -> Duration {
    let end = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    Duration::from_secs(end.as_secs())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
        Issuer, KeyPair, NameConstraints, SigningKey,
    };
    use x509_cert::der::{
        Encode, Tag,
        asn1::{Any, BitString},
    };

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
            self.sign_changed(certificate, |certificate| {
                certificate.tbs_certificate.version = Version::V1;
                certificate.tbs_certificate.extensions = None;
            })
        }

        /// Changes a certificate, and signs it again.
        fn sign_changed(
            &self,
            certificate: &CertificateDer<'_>,
            change: impl FnOnce(&mut Certificate),
        ) -> CertificateDer<'static> {
            let mut certificate = decode(certificate).unwrap();
            change(&mut certificate);
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

    #[test]
    fn defect_of_a_certificate_is_named() {
        let root = Authority::new();
        let check = |leaf: &CertificateDer<'_>, sent: &[CertificateDer<'_>], expected| {
            assert_eq!(failure(&[&root.certificate], leaf, sent), Some(expected));
        };
        let issue = |change: &dyn Fn(&mut CertificateParams)| {
            let mut parameters = parameters("leaf", IsCa::NoCa);
            change(&mut parameters);
            parameters.signed_by(&KeyPair::generate().unwrap(), &root.issuer).unwrap().der().clone()
        };
        let for_clients = issue(&|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        check(&for_clients, &[], CertificateFailure::WrongPurpose);
        let critical = issue(&|leaf| {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            extension.set_criticality(true);
            leaf.custom_extensions = vec![extension];
        });
        check(&critical, &[], CertificateFailure::CriticalExtension);
        let leaf = root.issue(IsCa::NoCa);
        let sha_1 = root.sign_changed(&leaf, |leaf| {
            leaf.tbs_certificate.signature.oid = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");
            leaf.signature_algorithm = leaf.tbs_certificate.signature.clone();
        });
        check(&sha_1, &[], CertificateFailure::UnsupportedAlgorithm);

        let below = |is_ca, constraints| {
            let key = KeyPair::generate().unwrap();
            let mut parameters = parameters("intermediate", is_ca);
            parameters.name_constraints = constraints;
            let certificate = parameters.signed_by(&key, &root.issuer).unwrap().der().clone();
            let issuer = Issuer::new(parameters, key);
            let leaf = self::parameters("leaf", IsCa::NoCa);
            let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
            (leaf, [certificate])
        };
        let (leaf, sent) = below(IsCa::ExplicitNoCa, None);
        check(&leaf, &sent, CertificateFailure::IssuerNotAuthority);
        let elsewhere = vec![GeneralSubtree::DnsName("other.test".to_owned())];
        let constraints = NameConstraints { permitted_subtrees: elsewhere, excluded_subtrees: Vec::new() };
        let (leaf, sent) = below(IsCa::Ca(BasicConstraints::Unconstrained), Some(constraints));
        check(&leaf, &sent, CertificateFailure::NameConstraints);
    }

    #[test]
    fn expired_certificate_of_an_untrusted_issuer_is_both() {
        let root = Authority::new();
        let mut parameters = parameters("leaf", IsCa::NoCa);
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = parameters.signed_by(&key, &root.issuer).unwrap().der().clone();
        let alone = parameters.self_signed(&key).unwrap().der().clone();
        let (expired, both) = (CertificateFailure::Expired, CertificateFailure::ExpiredAndUntrusted);
        let stranger = &Authority::new().certificate;
        for (trusted, certificate, expected) in [
            (&root.certificate, &leaf, expired),
            (stranger, &leaf, both),
            (stranger, &alone, both),
            (&alone, &alone, expired),
        ] {
            assert_eq!(failure(&[trusted], certificate, &[]), Some(expected));
        }
    }

    #[test]
    fn handshake_signature_by_a_short_or_foreign_key_is_named() {
        let root = Authority::new();
        let leaf = root.issue(IsCa::NoCa);
        let with_modulus = |bits: usize| {
            // SEQUENCE { INTEGER modulus, INTEGER 65537 }; the modulus is odd, and its first bit 1.
            let modulus = [&[0x80][..], &vec![0; bits / 8 - 2], &[1]].concat();
            let modulus = UintRef::new(&modulus).unwrap().to_der().unwrap();
            let numbers = [&modulus[..], &[2, 3, 1, 0, 1]].concat();
            let key = Any::new(Tag::Sequence, numbers).unwrap().to_der().unwrap();
            root.sign_changed(&leaf, |leaf| {
                let info = &mut leaf.tbs_certificate.subject_public_key_info;
                info.algorithm.oid = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
                info.algorithm.parameters = Some(Any::null());
                info.subject_public_key = BitString::from_bytes(&key).unwrap();
            })
        };
        let invalid = Error::from(CertificateError::BadSignature);
        let short = with_modulus(1024);
        assert_eq!(failure(&[&root.certificate], &short, &[]), None, "its own key signs no certificate");
        for (certificate, expected) in [
            (&short, CertificateFailure::ShortKey),
            (&with_modulus(2040), CertificateFailure::ShortKey),
            (&with_modulus(2048), CertificateFailure::NoPrivateKey),
            (&leaf, CertificateFailure::NoPrivateKey),
        ] {
            assert_eq!(signature_failure(&invalid, certificate), Some(expected));
        }
    }
}
