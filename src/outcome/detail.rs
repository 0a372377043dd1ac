//! Observations of a run beyond its reason, as types. Remedies and `doctor` match on them; the
//! sentences are output only.

use std::{fmt, io, time::Duration};

use rustls::AlertDescription;
use serde::{Serialize, Serializer};

use super::{LookupFailure, Phase};

/// Declares an enum with a sentence for each variant, which `Display` writes.
macro_rules! sentences {
    ($(#[$meta:meta])* $name:ident {
        $($variant:ident $(($($field:ident: $type:ty),+))? => $format:literal $(, $value:expr)*;)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(clippy::doc_markdown, reason = "the sentences are for terminals and records")]
        pub enum $name { $(#[doc = $format] $variant $(($($type),+))?,)+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant $(($($field),+))? => write!(f, $format $(, $value)*),)+
                }
            }
        }
    };
}

sentences! {
    /// Detail of a result.
    Detail {
        // The network path.
        Lookup(failure: LookupFailure) => "{}", lookup(*failure);
        ServerAnswers(server: Box<str>) => "{server} answers";
        PrivateAddress => "the name resolves to a private address";
        Connection(error: io::ErrorKind) => "{}", connection(*error);
        NoIpv6 => "no IPv6 on this machine, and the host has no other address";
        OnlyProxyReached => "only the proxy was reached: plain http goes through it without a tunnel";
        Proxy(failure: ProxyFailure) => "{failure}";
        ProxyLookup(failure: Box<Self>) => "looking up the proxy: {failure}";
        TargetLookup(failure: Box<Self>) => "looking up the target: {failure}";
        ProxyConnection(failure: Box<Self>) => "connecting to the proxy: {failure}";
        ProxyTls(failure: Box<Self>) => "TLS with the proxy: {failure}";
        Handshake(failure: HandshakeFailure) => "{failure}";
        ClientCertificateRequired => "the server requires a client certificate, which the prober does not send";
        Certificate(failure: CertificateFailure) => "{failure}";
        Late(phase: Phase, timeout: Duration) => "{} within {timeout:?}", unfinished(*phase);
        LateTunnel(timeout: Duration) => "the proxy was reached, but opened no tunnel within {timeout:?}";
        AfterRedirect(failure: Box<Self>) => "{failure}, after a redirect";
        With(parts: Box<(Self, Self)>) => "{}; {}", parts.0, parts.1;

        // The prober.
        OutOfDescriptors => "the prober is out of file descriptors";
        OutOfPorts => "the prober is out of local ports";
        OutOfMemory => "the prober is out of memory";
        UnsendableRequest => "the prober's own request cannot be sent over HTTP/2";
        Panicked => "the run panicked";
        ClassificationFailed => "the response could not be classified";
        SearchNotStarted => "the search for expect.body_regex did not start within the timeout: other searches occupy its threads";

        // HTTP.
        ConnectionReset => "the connection was reset before the response was complete";
        ConnectionClosed => "the connection was closed before the response was complete";
        TlsBroken => "the TLS connection failed before the response was complete";
        Http2Connection(code: h2::Reason) => "the server ended the HTTP/2 connection (GOAWAY) with {code:?} before the response was complete";
        Http2Stream(code: h2::Reason) => "the server ended the HTTP/2 stream (RST_STREAM) with {code:?} before the response was complete";
        BrokenHttp2 => "the response breaks HTTP/2, or its headers are too large";
        NotHttp => "the response is not HTTP";
        BrokenChunks => "the response's chunked encoding is broken";
        HeadersTooLarge => "the response's headers are too large";
        HeadExceeded => "the response's headers are too large: more than 64 KiB, or more than 16 informational responses";
        ExchangeExceeded => "the response has more than 32 MiB on the wire";
        BodyExceeded(mebibytes: usize) => "the response's body is larger than {mebibytes} MiB";
        Compressed(coding: &'static str) => "the body is compressed ({coding}), although the request accepts no coding";

        // Refusals.
        ProviderStatus(provider: u16, gateway: u16) => "the provider's {provider} behind the gateway's {gateway}";
        AboutMoney(status: u16) => "a {status} that is about money, not about time";
        AboutKey(status: u16) => "a {status} that is about the key";
        AboutLimit(status: u16) => "a {status} about a limit that resolves with time";
        AboutCapacity => "a 429 about the service's own capacity, not about our limits";
        NothingAtPath => "a router answers that nothing is at this path: the service is gone, or base_url is wrong";
        RequestAboveWindow => "this one request is larger than the limit of a whole window";
        RequestTooLarge => "the request is larger than what is accepted";
        PlainHttpToTls => "plain http, to a port that speaks TLS";
        RedirectToHttps => "a redirect to the same host by https";
        Redirect => "a redirect, which a probe does not follow";
        Intermediary(kind: Intermediary) => "{kind}";
        ProxyPage(status: u16) => "a {status} with an HTML page in place of the API's answer, and a proxy that could send one";
        NoAllowance => "the limit itself is 0: the plan has no allowance for this, and waiting does not help";
        DailyLimit => "a limit of the day is reached, not one of the minute";

        // Models.
        ModelRetired => "the model is retired";
        ModelShutDown => "the model is retired: its announced shutdown has passed";
        ModelListedAsRetired => "the model is in the list, as one that is retired";
        ModelNotListed => "the model is not in the list";
        NoModelList => "the answer has no model list";
        BrokenModelList => "the answer is not a well-formed model list";
        ModelsWithoutId => "no row of the model list has an id";

        // Answers.
        KeyReportedInvalid => "the response reports that the key is not valid";
        KeyNotReported => "the response does not report whether the key is valid";
        MoneyErrorIn200 => "a success status with an error about money in the body";
        ErrorIn200 => "a success status with an error in the body";
        HtmlAnswer => "an HTML page in place of the API's answer: a proxy, CDN or portal";
        EmptyBody => "an empty body in place of the API's answer";
        NotJson => "the body is not JSON, or too much of it";
        NotACompletion => "the answer is not a completion";
        FinishedByFailure => "the finish reason reports that the answer failed";
        Empty(cause: Emptiness) => "{cause}";
        MalformedUsage => "malformed usage: its counts are negative, fractional or above what the request allowed, so that the tokens are unknown";
        CachedPrompt => "answered from the provider's prompt cache, so that the first token came earlier than for a new prompt";
        NoOk => "the answer does not have the word \"ok\" that the prompt asks for";
        NoCount => "the answer does not have the numbers that the prompt asks for";

        // Streams.
        NotStreamed => "the whole answer at once in place of a stream, or no answer";
        EmptyStream => "an empty body in place of a stream";
        NotAStream => "the body is not an event stream";
        NotAStreamAndTooLarge => "the body is no stream, and too large";
        StreamTooLong => "the body is longer than max_tokens allow";
        EventTooLong => "a line or an event of the stream is longer than 512 KiB";
        EventNotJson => "an event of the stream is not JSON";
        EndedBeforeFirstByte => "the stream ended before its first byte";
        EndedWithoutContent => "the stream ended by its end mark, with neither content nor a finish reason";
        EndedBeforeContent => "the stream ended before any content";
        EndedAmidContent => "the stream ended amid its content, without its end mark";
        ErrorBeforeContent => "an error inside the stream, before any content";
        ErrorAfterContent => "an error inside the stream, after content had begun";
        SilentBeforeContent(time: Duration) => "no byte for {time:?}, before any content";
        SilentWhileReasoning(time: Duration) => "no byte for {time:?}, while the model reasoned";
        SilentAfterContent(time: Duration) => "no byte for {time:?}, after content had begun";

        // The operator's expectation.
        UnexpectedStatus(status: u16) => "the status {status} is not among those expected";
        BodyTooLargeForRegex(kibibytes: usize) => "the body of {kibibytes} KiB is too large for so complex an expect.body_regex";
        BodyDiffers => "expect.body_regex does not match the body";
        SearchTooSlow => "the search of the body for expect.body_regex was not over within the timeout";
        BodyTooLargeForJson(kibibytes: usize) => "expect.json is set, and the body is larger than {kibibytes} KiB";
        BodyNotJson => "expect.json is set, and the body is not JSON";
        JsonDiffers(pointer: Box<str>) => "expect.json: {pointer} has another value";
        JsonMissing(pointer: Box<str>) => "expect.json: the body has no {pointer}";
        NoModelName => "expect.model is set, and the answer names no model";
        ModelDiffers => "the model that answered does not match expect.model";
        AnswerTooLargeForRegex(kibibytes: usize) => "the answer of {kibibytes} KiB is too large for so complex an expect.answer_regex";
        AnswerDiffers => "expect.answer_regex does not match the answer";

        // Balances.
        NoBalance => "the response does not report the balance";
        UnlimitedBalance => "no limit is set, so there is no balance";
        ForeignBalance => "the balance is not in USD, so it is not reported";
        LowBalance => "the balance is below what the account needs";
        LowForeignBalance => "the balance is below what the account needs, and not in USD, so it is not reported";

        // Status pages.
        EmptyStatusPage => "an empty body in place of the status page's data";
        HtmlStatusPage => "an HTML page in place of the status page's data";
        NotAStatusPage => "the body is neither a Statuspage summary nor Google's list of incidents";
        UnknownIndicator => "the page's verdict is in a word that is not known";
        UnknownComponent => "a component is not on the page, or in a state that is not known";
        UnfollowedRedirect => "a redirect that is not followed: one too many, without an address, or away from https";
    }
}

sentences! {
    /// Failure of a proxy.
    ProxyFailure {
        Status(status: u16) => "the proxy answered CONNECT with {status}{}", connect_status(*status);
        CredentialsRequired(status: Option<u16>) => "the proxy requires credentials{}", parenthesised(*status);
        CredentialsRejected(status: Option<u16>) => "the proxy does not accept the credentials{}", parenthesised(*status);
        Excess => "the proxy's answer is too large: more than 64 KiB, or more than 16 informational responses";
        Closed => "the proxy closed the connection";
        Garbled => "the proxy's answer could not be understood";
        Unreachable(cause: io::ErrorKind) => "the proxy cannot reach the target: {}", connection(*cause);
        NoConnection => "the proxy made no connection";
        Forbidden => "the proxy does not allow the target";
        Failed => "the proxy failed, or does not support this kind of tunnel";
    }
}

sentences! {
    /// Failure of a TLS handshake, other than by the certificate.
    #[derive(Copy)]
    HandshakeFailure {
        NotTls => "handshake: the answer is not TLS";
        Refused(alert: AlertDescription) => "handshake: refused by the server ({})", alert_name(*alert);
        NothingInCommon => "handshake: no common version or cipher";
        Reset => "handshake: the connection was reset";
        Closed => "handshake: the connection was closed";
        Other => "handshake failed";
    }
}

sentences! {
    /// Cause for not accepting a server's certificate.
    #[derive(Copy)]
    CertificateFailure {
        Expired => "certificate expired";
        ExpiredAndUntrusted => "certificate expired, and of an untrusted issuer: usually that of a firewall or proxy that intercepts TLS";
        NotYetValid => "certificate not yet valid";
        WrongName => "certificate for a wrong name";
        NoSubjectAltName => "certificate for a wrong name: it has no subjectAltName, and the common name does not count";
        SelfSigned => "certificate of an untrusted issuer: it is self-signed";
        IncompleteChain => "certificate of an untrusted issuer: the server did not send its intermediate certificate";
        UnknownIssuer => "certificate of an untrusted issuer: its CA is not trusted here, or an intermediate certificate is missing";
        UntrustedRoot => "certificate of an untrusted issuer: its root is not trusted here";
        VersionOne => "certificate unusable for this server: it is of X.509 version 1, which names no host";
        Authority => "certificate unusable for this server: it is a certificate authority's (CA:TRUE)";
        ShortKey => "certificate unusable: an RSA key in its chain is shorter than 2048 bits";
        UnsupportedAlgorithm => "certificate unusable: a key or signature in its chain is of a kind that is not accepted, such as SHA-1";
        WrongPurpose => "certificate unusable: it is not for servers (extendedKeyUsage lacks serverAuth)";
        IssuerNotAuthority => "certificate unusable: an issuer in its chain is not a certificate authority (CA:FALSE)";
        NameConstraints => "certificate unusable: its CA may not issue certificates for this name (nameConstraints)";
        ChainTooLong => "certificate unusable: its chain is longer than a CA in it permits (pathLenConstraint)";
        CriticalExtension => "certificate unusable: it has a critical extension that is not supported";
        Malformed => "certificate unusable: a certificate in its chain is malformed";
        NoPrivateKey => "certificate unusable: the server's signature in the handshake is not by its key";
        Unusable => "certificate unusable for this server";
    }
}

sentences! {
    /// Response of something before the API, in its place.
    #[derive(Copy)]
    Intermediary {
        BasicAuthentication => "a proxy answers (Basic) in the API's place: it asks for a user and a password";
        Html => "an HTML page in place of the API's error: a proxy or CDN answers";
        Empty => "an empty body in place of the API's error: a proxy may answer";
        Text => "a plain text in place of the API's error: a proxy may answer";
    }
}

sentences! {
    /// Cause of an answer without content.
    #[derive(Copy)]
    Emptiness {
        MaxTokens => "max_tokens was used up before any visible content";
        MaxOutputTokens => "maxOutputTokens was used up before any visible content";
        ContextWindow => "the model's context window was used up before any visible content";
        Refusal => "the model refused";
        Filter => "the answer was filtered";
        BlockedPrompt => "the prompt was blocked";
        ToolCall => "a tool call in place of an answer";
        Unexplained => "the answer is empty, and nothing in it explains why";
    }
}

impl Detail {
    /// Adds a remark.
    #[must_use]
    pub fn with(self, remark: Self) -> Self {
        Self::With(Box::new((self, remark)))
    }

    /// Returns the failure without remarks.
    pub fn cause(&self) -> &Self {
        match self {
            Self::With(parts) => parts.0.cause(),
            Self::AfterRedirect(failure) => failure,
            cause => cause,
        }
    }

    /// Returns whether it has that remark.
    pub fn has_remark(&self, remark: &Self) -> bool {
        matches!(self, Self::With(parts) if parts.1 == *remark || parts.0.has_remark(remark))
    }

    /// Returns whether the model has been shut down.
    pub const fn is_retirement(&self) -> bool {
        matches!(self, Self::ModelRetired | Self::ModelShutDown | Self::ModelListedAsRetired)
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl CertificateFailure {
    /// Returns whether it depends on the clock.
    pub const fn is_about_time(self) -> bool {
        matches!(self, Self::Expired | Self::ExpiredAndUntrusted | Self::NotYetValid)
    }

    /// Returns whether the issuer is not trusted.
    pub const fn is_about_trust(self) -> bool {
        matches!(
            self,
            Self::ExpiredAndUntrusted
                | Self::SelfSigned
                | Self::IncompleteChain
                | Self::UnknownIssuer
                | Self::UntrustedRoot
        )
    }
}

const fn lookup(failure: LookupFailure) -> &'static str {
    match failure {
        LookupFailure::NoSuchName => "the name does not exist (NXDOMAIN)",
        LookupFailure::NoAddress => "the name has no address",
        LookupFailure::ServerFailure => "the name server failed (SERVFAIL)",
        LookupFailure::Refused => "the name server refused to answer (REFUSED)",
        LookupFailure::NoAnswer => "no name server answered",
        LookupFailure::NoServer => "no name server could be reached",
        LookupFailure::Garbled => "the name server's answer could not be understood",
        LookupFailure::OutOfResources => "the prober lacks resources for lookups",
    }
}

const fn connection(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::HostUnreachable => "host unreachable",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::TimedOut => "no answer to the connection attempt",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::PermissionDenied => "connection forbidden on this machine",
        _ => "no connection",
    }
}

/// Describes what a phase did not achieve.
const fn unfinished(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "the name lookup was not answered",
        Phase::Connect => "no connection was made",
        Phase::Tls => "the connection was made, but the peer did not complete the TLS handshake",
        Phase::Processing => "no response came",
        Phase::Transfer => "the response was not complete",
    }
}

/// Explains a proxy's answer to CONNECT.
const fn connect_status(status: u16) -> &'static str {
    match status {
        300..=399 => ": a redirect, as captive portals send it",
        403 => ": it does not allow the target",
        502..=504 => ": it cannot reach the target",
        511 => ": it requires a login to the network",
        _ => "",
    }
}

/// Names an alert (RFC 8446, 6; RFC 5246, 7.2), with its meaning if it narrows the cause.
const fn alert_name(alert: AlertDescription) -> &'static str {
    use AlertDescription as Alert;
    match alert {
        Alert::ProtocolVersion => "protocol_version: it has neither TLS 1.3 nor TLS 1.2",
        Alert::HandshakeFailure => "handshake_failure: usually no cipher, curve or signature in common",
        Alert::InsufficientSecurity => "insufficient_security: it requires stronger ciphers",
        Alert::UnrecognisedName => "unrecognized_name: it does not know the requested host",
        Alert::NoApplicationProtocol => "no_application_protocol: it has neither HTTP/2 nor HTTP/1.1",
        Alert::AccessDenied => "access_denied: it does not permit this client",
        Alert::InternalError => "internal_error: it failed itself",
        Alert::UserCanceled => "user_canceled: it ended the handshake",
        Alert::CloseNotify => "close_notify: it ended the handshake",
        Alert::UnexpectedMessage => "unexpected_message",
        Alert::BadRecordMac => "bad_record_mac",
        Alert::DecryptionFailed => "decryption_failed",
        Alert::RecordOverflow => "record_overflow",
        Alert::DecompressionFailure => "decompression_failure",
        Alert::NoCertificate => "no_certificate",
        Alert::BadCertificate => "bad_certificate",
        Alert::UnsupportedCertificate => "unsupported_certificate",
        Alert::CertificateRevoked => "certificate_revoked",
        Alert::CertificateExpired => "certificate_expired",
        Alert::CertificateUnknown => "certificate_unknown",
        Alert::IllegalParameter => "illegal_parameter",
        Alert::UnknownCA => "unknown_ca",
        Alert::DecodeError => "decode_error",
        Alert::DecryptError => "decrypt_error",
        Alert::ExportRestriction => "export_restriction",
        Alert::InappropriateFallback => "inappropriate_fallback",
        Alert::NoRenegotiation => "no_renegotiation",
        Alert::MissingExtension => "missing_extension",
        Alert::UnsupportedExtension => "unsupported_extension",
        Alert::CertificateUnobtainable => "certificate_unobtainable",
        Alert::BadCertificateStatusResponse => "bad_certificate_status_response",
        Alert::BadCertificateHashValue => "bad_certificate_hash_value",
        Alert::UnknownPSKIdentity => "unknown_psk_identity",
        Alert::CertificateRequired => "certificate_required",
        Alert::EncryptedClientHelloRequired => "ech_required",
        _ => "an alert that TLS does not define",
    }
}

fn parenthesised(status: Option<u16>) -> String {
    status.map_or_else(String::new, |status| format!(" ({status})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_the_failure_without_remarks() {
        let refused = Detail::Connection(io::ErrorKind::ConnectionRefused);
        let detail =
            refused.clone().with(Detail::ServerAnswers("8.8.8.8".into())).with(Detail::PrivateAddress);
        assert_eq!(detail.cause(), &refused);
        assert!(detail.has_remark(&Detail::PrivateAddress) && !refused.has_remark(&Detail::PrivateAddress));
        assert!(detail.has_remark(&Detail::ServerAnswers("8.8.8.8".into())));
        let text = "connection refused; 8.8.8.8 answers; the name resolves to a private address";
        assert_eq!(detail.to_string(), text);
        assert_eq!(Detail::AfterRedirect(Box::new(refused.clone())).cause(), &refused);
    }

    #[test]
    fn detail_is_serialized_as_its_sentence() {
        let detail = Detail::Late(Phase::Connect, Duration::from_millis(1500));
        assert_eq!(serde_json::to_string(&detail).unwrap(), "\"no connection was made within 1.5s\"");
    }
}
