//! Remedies for failures and findings, after LangMart's guide.

use rustls::AlertDescription;

use crate::{
    config::{Probe, Task},
    outcome::{
        CertificateFailure, Check, Detail, Emptiness, Fault, HandshakeFailure, LimitedBy, Outcome, Phase,
        ProxyFailure, Reason,
    },
};

/// Returns the remedy for an outcome: by its detail, else by its findings, else by its reason.
/// Empty on a success without a finding.
pub(super) fn remedy(probe: &Probe, outcome: &Outcome) -> &'static str {
    if let Some(hint) = by_detail(probe, outcome) {
        return hint;
    }
    if probe.check() == Check::Status {
        return status_page(outcome.reason);
    }
    refined(probe, outcome).unwrap_or(outcome.reason.info().remedy)
}

/// Returns whether the request has no key. Headers and the query of the operator may have one.
fn is_keyless(probe: &Probe) -> bool {
    let sends_key = match &probe.task {
        Task::Http(request) => request.send_key || !request.headers.is_empty() || request.path.contains('?'),
        Task::Health | Task::Network | Task::Status(_) => false,
        _ => probe.provider.key.is_some(),
    };
    !sends_key && probe.provider.headers.is_empty()
}

/// Returns the remedy for a rejected request without a key.
fn without_key(check: Check) -> &'static str {
    match check {
        Check::Http => {
            "the request was sent without a key: set send_key = true in the probe, and api_key in the provider's section"
        }
        Check::Health => {
            "the request was sent without a key, as a health check is: set health_path to one that needs none, or use the auth check"
        }
        _ => "the request was sent without a key: set api_key in the provider's section",
    }
}

/// Returns the hint for an outcome of which fault, status, limits or findings narrow the cause.
fn refined(probe: &Probe, outcome: &Outcome) -> Option<&'static str> {
    let (api, check) = (probe.provider.api, probe.check());
    Some(match outcome.reason {
        Reason::Ok => finding(outcome),
        Reason::Dns | Reason::Timeout if answers_instead(outcome) => {
            "the system's resolver fails where another one answers: check /etc/resolv.conf, or use the other, such as 8.8.8.8"
        }
        // The name may be an internal one, which is no business of a public resolver.
        Reason::Dns if !probe.provider.is_on_own_host() => {
            "check /etc/resolv.conf and the name in base_url; ask a name server of the network that the name belongs to"
        }
        Reason::Timeout if is_slow_lookup(outcome) => {
            "DNS took most of the time: check the name servers and the search list of /etc/resolv.conf"
        }
        Reason::Timeout if outcome.fault == Fault::Network => {
            "packets are lost on the network path: check firewall and proxy of this machine, and the address of base_url"
        }
        Reason::Timeout if !check.generates() => {
            "the service is reached, but slow: check its status page; raise timeout if it is known to take longer"
        }
        Reason::GatewayTimeout if !check.generates() => {
            "a gateway or proxy gave up waiting for the service behind it: check the service's status page, and the gateway's log"
        }
        Reason::AuthFailed if outcome.fault == Fault::Provider => api.profile().stored_key_remedy,
        Reason::AuthFailed if is_keyless(probe) => without_key(check),
        Reason::AuthFailed => return api.profile().key_remedy,
        Reason::Billing if outcome.fault == Fault::Provider => {
            "the provider account behind the gateway has no credit or quota: top it up or switch the connection"
        }
        Reason::RateLimited if outcome.fault == Fault::Provider => {
            "the gateway's provider account is at its limit: add connections to a pool or raise the provider's tier"
        }
        Reason::RateLimited => match outcome.limited_by.unwrap_or(LimitedBy::Unknown) {
            LimitedBy::Unknown if outcome.retry_after.is_some() => return None,
            limit => rate_limited(limit),
        },
        Reason::Unavailable if matches!(outcome.http_status, Some(403 | 404 | 405 | 410)) => {
            "check base_url; if it is right, the service behind this address is gone: check its deployment or status page"
        }
        Reason::ServerError if outcome.request_id.is_none() => {
            "the service failed: check its status page; contact support with the timestamps"
        }
        Reason::Malformed if matches!(outcome.detail, Some(Detail::NotHttp)) => {
            "if base_url begins with http://, the port may expect TLS: write https://; else check what answers at this port"
        }
        Reason::InvalidRequest if check.generates() && matches!(outcome.http_status, Some(404 | 405)) => {
            "the service has nothing at this path: check base_url, which includes the version where the default has one, and chat_path; if both are right, check model"
        }
        Reason::InvalidRequest => return invalid_request(check),
        Reason::UnmetExpectation if outcome.model_match == Some(false) => ANOTHER_MODEL,
        _ => return None,
    })
}

/// Remedy if another model answers.
const ANOTHER_MODEL: &str = "another model answered than the one requested: check the gateway's fallbacks, aliases and routing rules, and the model's list of deprecations";

/// Remedy if a request is refused for its size.
const TOO_LARGE: &str = "the request is larger than the service, or a proxy before it, accepts: shorten the prompt, or raise the size limit there";

/// Remedy if a stream arrives in bursts.
const HELD_BACK: &str = "a proxy or gateway holds the stream back: with nginx set proxy_buffering off, or send X-Accel-Buffering: no with the response; with HAProxy set option http-no-delay; elsewhere switch off buffering, compression and response caching for text/event-stream";

/// Returns the hint for a success with a finding; empty without one.
fn finding(outcome: &Outcome) -> &'static str {
    if outcome.model_match == Some(false) {
        ANOTHER_MODEL
    } else if outcome.buffered == Some(true) {
        HELD_BACK
    } else {
        ""
    }
}

/// Returns the remedy of a failure whose detail narrows the cause.
fn by_detail(probe: &Probe, outcome: &Outcome) -> Option<&'static str> {
    let detail = outcome.detail.as_ref()?;
    let is_private = || detail.has_remark(&Detail::PrivateAddress);
    Some(match (detail.cause(), outcome.reason) {
        (_, Reason::Connect | Reason::Tls) if is_private() && !probe.provider.is_on_own_host() => {
            "the name resolves to a private address: check /etc/hosts and the resolver, unless that address is meant"
        }
        (_, Reason::Connect | Reason::Tls) if is_private() => {
            "the name resolves to a private address: check /etc/hosts and the resolver, ask another one: nslookup HOST 8.8.8.8"
        }
        (Detail::Certificate(failure), _) => certificate(*failure),
        (Detail::ClientCertificateRequired, _) => {
            "probe through a gateway or proxy that presents the client certificate, or exempt the prober"
        }
        (Detail::Handshake(failure), Reason::Tls) => handshake(*failure),
        (Detail::Proxy(ProxyFailure::CredentialsRequired(_) | ProxyFailure::CredentialsRejected(_)), _) => {
            "give the proxy's user:password by proxy_auth in the provider's section, or correct it where it is kept"
        }
        (Detail::OutOfPorts, _) => {
            "all local ports to this address are in use: widen net.ipv4.ip_local_port_range, and find the program whose connections are in TIME_WAIT: ss -tan"
        }
        (Detail::LateTunnel(_), _) => {
            "check the proxy's log, and whether it reaches the target and allows it"
        }
        (Detail::Late(Phase::Tls, _), _) if !is_slow_lookup(outcome) => {
            "the port is open, but TLS does not answer: check that the service is not blocked or overloaded, that the port speaks TLS, and what intercepts TLS or drops large packets (MTU) before it"
        }
        (Detail::Compressed(_), _) => {
            "have the service, or the proxy before it, honour Accept-Encoding: identity (RFC 9110, 12.5.3)"
        }
        (Detail::SearchTooSlow, _) => "simplify expect.body_regex, or set a longer timeout",
        (Detail::SearchNotStarted, _) => {
            "simplify the regular expressions of http probes, or lengthen their intervals"
        }
        (Detail::Intermediary(_), Reason::AuthFailed | Reason::Permission) => {
            "the answer is not the API's, which may never have seen the request: check base_url, and the requirements of a proxy, CDN or firewall before the API; if it is the API's answer, check the key"
        }
        (Detail::Intermediary(_), Reason::ServerError) => {
            "a proxy or load balancer before the service answers in its place: check its log, and the service's status page"
        }
        (detail, Reason::ModelNotFound) if detail.is_retirement() => {
            "the model has been retired: set model to its successor in the provider's list of deprecations"
        }
        (Detail::RequestTooLarge | Detail::RequestAboveWindow, _) => TOO_LARGE,
        (Detail::Intermediary(_), Reason::InvalidRequest) if outcome.http_status == Some(413) => TOO_LARGE,
        (Detail::PlainHttpToTls, _) => "write https:// in base_url: the port speaks TLS",
        (Detail::RedirectToHttps, _) => {
            "write https:// in base_url: the server redirects plain http there, and a probe follows no redirect"
        }
        (Detail::Empty(Emptiness::Unexplained), _) => {
            "the answer is empty, although it was neither cut off nor filtered: use another model or provider if this repeats"
        }
        (Detail::Empty(Emptiness::ToolCall), _) => {
            "the model called a tool that the request does not offer: change the prompt, or the gateway that adds tools"
        }
        _ => return None,
    })
}

/// Returns the remedy for a handshake that failed.
fn handshake(failure: HandshakeFailure) -> &'static str {
    use AlertDescription as Alert;
    match failure {
        HandshakeFailure::Refused(Alert::UnrecognisedName) => {
            "check the host in base_url: the server has no certificate for it, or does not serve it"
        }
        HandshakeFailure::Refused(
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity,
        )
        | HandshakeFailure::NothingInCommon => {
            "the server, or what intercepts TLS before it, must support TLS 1.2 or 1.3 with AES-GCM or ChaCha20, and ECDHE over X25519, P-256 or P-384"
        }
        _ => Reason::Tls.info().remedy,
    }
}

/// Returns the remedy for a certificate that is not accepted.
fn certificate(failure: CertificateFailure) -> &'static str {
    match failure {
        CertificateFailure::Expired => {
            "the service must renew its certificate; if others accept it, check this machine's clock"
        }
        CertificateFailure::ExpiredAndUntrusted => {
            "check what intercepts TLS between here and the service; if the certificate is the service's own, it must be renewed, and ca_file set to its CA"
        }
        CertificateFailure::NotYetValid => "check this machine's clock: timedatectl",
        CertificateFailure::WrongName => {
            "base_url names a host that the certificate is not for: check it, and any proxy that intercepts TLS"
        }
        CertificateFailure::NoSubjectAltName => {
            "have the certificate issued with the host as a DNS name in its subjectAltName (RFC 9525)"
        }
        CertificateFailure::SelfSigned | CertificateFailure::UntrustedRoot => {
            "update the CA certificates (apt install --reinstall ca-certificates), or set ca_file for a private CA"
        }
        CertificateFailure::IncompleteChain | CertificateFailure::UnknownIssuer => {
            "for a private CA set ca_file; else have the server send its intermediate certificates, or update the CA certificates here"
        }
        CertificateFailure::VersionOne => {
            "have the certificate issued as X.509 version 3, with the host in its subjectAltName (RFC 9525)"
        }
        CertificateFailure::Authority => {
            "have the server's certificate issued without the CA flag, or set ca_file to this certificate itself"
        }
        CertificateFailure::ShortKey => {
            "the server's certificate must be reissued with a key of at least 2048 bits (RSA) or 256 bits (ECDSA), by a CA that has such a key"
        }
        CertificateFailure::UnsupportedAlgorithm => {
            "the server's certificate must be reissued with a common kind of key (RSA, P-256), and signatures by SHA-256 or better"
        }
        CertificateFailure::WrongPurpose => {
            "the server's certificate must be reissued for servers: serverAuth in its extendedKeyUsage"
        }
        CertificateFailure::IssuerNotAuthority => {
            "the server's certificate must be reissued by a CA: one of its issuers has a certificate without CA:TRUE"
        }
        CertificateFailure::NameConstraints => {
            "the server's certificate must be reissued by a CA that may issue for this host; check the host in base_url"
        }
        CertificateFailure::ChainTooLong => {
            "the server's certificate must be reissued by a CA with fewer CAs above it: one of them limits the length of the chain"
        }
        CertificateFailure::CriticalExtension | CertificateFailure::Malformed => {
            "the server's certificate must be reissued in the form of RFC 5280, without critical extensions of its own"
        }
        CertificateFailure::NoPrivateKey | CertificateFailure::Unusable => Reason::Tls.info().remedy,
    }
}

/// Returns the remedy for each limit.
fn rate_limited(limit: LimitedBy) -> &'static str {
    match limit {
        LimitedBy::Requests => {
            "too many requests in a window: send fewer, raise intervals, spread them over providers, or raise the tier"
        }
        LimitedBy::Tokens => {
            "too many tokens in a window: shorten prompts, lower max_tokens, send fewer requests, or raise the tier"
        }
        LimitedBy::InputTokens => {
            "too many input tokens in a window: shorten prompts, send fewer requests, or raise the tier"
        }
        LimitedBy::OutputTokens => {
            "too many output tokens in a window: lower max_tokens, send fewer requests, or raise the tier"
        }
        LimitedBy::Concurrency => {
            "too many requests at the same time: lower max_concurrent_per_provider, or raise the tier"
        }
        LimitedBy::Day => {
            "a limit of the day is reached: wait for the next day, raise intervals, or raise the tier"
        }
        LimitedBy::Unknown => {
            "a limit is reached that the service does not name: send fewer requests, spread them over providers, or raise the tier"
        }
    }
}

/// Returns the remedy for a status page that cannot be read.
fn status_page(reason: Reason) -> &'static str {
    match reason {
        Reason::Ok => "",
        Reason::Internal => reason.info().remedy,
        Reason::Proxy => {
            "check proxy in the provider's section: address, port, credentials, and whether it allows the status page"
        }
        Reason::Dns | Reason::Connect | Reason::Tls | Reason::Timeout => {
            "the status page cannot be reached, which is no failure of the service: check status_url, DNS and firewall"
        }
        Reason::RateLimited => "too many requests for the status page: raise the interval",
        Reason::Disconnected
        | Reason::Overloaded
        | Reason::Unavailable
        | Reason::GatewayTimeout
        | Reason::ServerError => {
            "the status page itself fails, which is no failure of the service: see the other checks of the service"
        }
        _ => "check status_url: it must be a Statuspage summary.json, or Google's incidents.json",
    }
}

/// Returns whether a run spent most of its time in the name lookup.
fn is_slow_lookup(outcome: &Outcome) -> bool {
    outcome.phases.resolve > outcome.duration / 2
}

fn answers_instead(outcome: &Outcome) -> bool {
    outcome.network.as_ref().is_some_and(|network| network.answers_instead().is_some())
}

fn invalid_request(check: Check) -> Option<&'static str> {
    Some(match check {
        Check::Chat => {
            "the probe's request is refused: check model, length of the prompt, max_tokens and max_tokens_parameter"
        }
        Check::Stream => {
            "the probe's request is refused: check model, length of the prompt, max_tokens, max_tokens_parameter and include_usage"
        }
        Check::Http => "the probe's request is refused: check method, path, headers and body",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::{
        config::{Chat, Expect, HttpRequest, testing},
        outcome::Api,
    };

    fn hint(base_url: &str, task: Task, reason: Reason, detail: Option<Detail>) -> &'static str {
        let provider = Arc::new(testing::provider("langmart", Api::Langmart, base_url));
        let probe = testing::probe("probe", &provider, task);
        let outcome = Outcome { detail, ..Outcome::new(SystemTime::UNIX_EPOCH, reason, Fault::Caller) };
        remedy(&probe, &outcome)
    }

    #[test]
    fn public_resolver_is_for_the_own_host_only() {
        let private = || Some(Detail::Connection(std::io::ErrorKind::TimedOut).with(Detail::PrivateAddress));
        for (reason, detail) in [(Reason::Dns, None), (Reason::Connect, private())] {
            let own = hint("https://api.langmart.ai", Task::Health, reason, detail.clone());
            assert!(own.ends_with("nslookup HOST 8.8.8.8"), "{own}");
            let other = hint("https://llm.corp.internal", Task::Health, reason, detail);
            assert!(!other.contains("nslookup") && !other.is_empty(), "{other}");
        }
    }

    #[test]
    fn timeout_remedy_names_dns_only_if_the_lookup_was_slow() {
        let provider = Arc::new(testing::provider("p", Api::Openai, "https://api.corp.test"));
        let probe = testing::probe("probe", &provider, Task::Health);
        let hint = |phase: Phase, lookup: u64| {
            let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, Reason::Timeout, Fault::Network);
            outcome.detail = Some(Detail::Late(phase, Duration::from_secs(6)));
            outcome.duration = Duration::from_secs(6);
            outcome.phases.resolve = Duration::from_secs(lookup);
            remedy(&probe, &outcome)
        };
        for phase in [Phase::Resolve, Phase::Connect, Phase::Tls] {
            assert!(hint(phase, 5).contains("resolv.conf"), "{}", hint(phase, 5));
            let fast = hint(phase, 0);
            assert!(!fast.contains("DNS") && !fast.contains("resolv.conf"), "{fast}");
        }
        assert!(hint(Phase::Connect, 0).starts_with("packets are lost"));
        assert!(hint(Phase::Tls, 0).starts_with("the port is open"));
    }

    #[test]
    fn checks_that_generate_nothing_have_no_hint_about_generation() {
        let chat = || Task::Chat(Chat::default());
        for reason in [Reason::Timeout, Reason::GatewayTimeout] {
            for task in [Task::Health, Task::Auth, Task::Models, Task::Balance] {
                let text = hint("https://api.corp.test", task, reason, None);
                assert!(!text.contains("model") && !text.contains("smaller"), "{text}");
            }
            let text = hint("https://api.corp.test", chat(), reason, None);
            assert!(text.contains("model"), "{text}");
        }
    }

    #[test]
    fn rejected_request_without_key_has_its_own_remedy() {
        let request = HttpRequest {
            method: hyper::Method::GET,
            path: "/".to_owned(),
            body: None,
            headers: Vec::new(),
            send_key: false,
            expect: Expect::default(),
        };
        for task in [Task::Auth, Task::Health, Task::Http(Box::new(request))] {
            let text = hint("https://api.langmart.ai", task, Reason::AuthFailed, None);
            assert!(text.starts_with("the request was sent without a key"), "{text}");
        }
    }
}
