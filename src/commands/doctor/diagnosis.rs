//! The most likely cause by the steps, with the remedies and the commands to carry them out.

use std::io::ErrorKind;

use serde::Serialize;

use super::{
    places,
    steps::{
        Reached, Step, Verdict, certificate_failure, describe, host_and_port, looked_up, name_of, next_hop,
        reached,
    },
};
use crate::{
    api::Profile,
    config::{KeySource, Probe, Provider, quoted},
    outcome::{Api, CertificateFailure, Detail, Fault, Outcome, Reason},
    probe::curl,
};

/// Steps in the order in which a failure is diagnosed if several failed.
const DIAGNOSED_STEPS: [&str; 10] =
    ["dns", "tcp", "tls", "configuration", "key", "completion", "balance", "health", "models", "clock"];

/// The most likely cause, and its remedies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Diagnosis {
    /// Chapter of LangMart's guide to connection issues.
    pub(super) chapter: &'static str,
    pub(super) cause: String,
    /// Remedies, the most promising one first.
    pub(super) remedies: Vec<String>,
    /// Commands that show or repair the failure without the prober.
    pub(super) commands: Vec<String>,
}

/// Diagnoses a walk. Returns `None` if no step failed.
pub(super) fn diagnose(provider: &Provider, steps: &[Step]) -> Option<Diagnosis> {
    let failed =
        |name: &&str| steps.iter().find(|step| step.name == *name && step.verdict == Verdict::Failed);
    let step = DIAGNOSED_STEPS.iter().find_map(failed)?;
    Some(match (&step.run, step.name) {
        (Some((probe, outcome)), _) => {
            let diagnosis = of_run(probe, outcome);
            let known = matches!(outcome.fault, Fault::Gateway | Fault::Provider) && is_known(steps);
            if known {
                diagnosis
                    .remedy("the status page reports incidents or maintenance, see above: wait for their end")
            } else {
                diagnosis
            }
        }
        (None, "clock") => of_clock(&step.text),
        (None, _) => of_unread_key(provider),
    })
}

/// Returns whether the status page reports incidents or maintenance.
fn is_known(steps: &[Step]) -> bool {
    let is_read = |step: &Step| matches!(&step.run, Some((_, outcome)) if outcome.status_page.is_some());
    steps.iter().any(|step| step.name == "status" && step.verdict == Verdict::Note && is_read(step))
}

impl Diagnosis {
    fn new(chapter: &'static str, cause: impl Into<String>) -> Self {
        Self { chapter, cause: cause.into(), ..Self::default() }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }

    fn command(mut self, command: impl Into<Option<String>>) -> Self {
        self.commands.extend(command.into());
        self
    }
}

fn of_unread_key(provider: &Provider) -> Diagnosis {
    let source = provider.key.as_ref().map(|key| &key.source);
    let diagnosis =
        Diagnosis::new("Invalid API Key Errors", "the key cannot be read from the configured source");
    match source {
        Some(KeySource::Credential(_)) => diagnosis.remedy(
            "a systemd credential exists only inside the unit: the line on standard error passes it to this command",
        ),
        Some(KeySource::Env(name)) => diagnosis.remedy(format!(
            "set {name} in this shell; the daemon has an environment of its own, see its unit"
        )),
        Some(KeySource::File(path)) => diagnosis
            .remedy(
                "permit the user that runs this command to read the file; the warning above has the cause",
            )
            .command(format!("ls -l {}", quoted(&path.to_string_lossy()))),
        None => diagnosis,
    }
}

fn of_clock(text: &str) -> Diagnosis {
    Diagnosis::new("Network Connectivity Issues: SSL error", format!("the clocks differ: {text}"))
        .remedy("check the system time: enable time synchronization, and check that it reaches its servers")
        .remedy(
            "if other providers agree with this machine, the clock of the service, or of a cache before it, is wrong",
        )
        .command("timedatectl".to_owned())
        .command("sudo timedatectl set-ntp true".to_owned())
}

fn of_run(probe: &Probe, outcome: &Outcome) -> Diagnosis {
    let provider = &*probe.provider;
    let hint = &*outcome.hint;
    match (outcome.reason, reached(provider, outcome)) {
        (Reason::Internal, _) => {
            Diagnosis::new("none", format!("the prober itself failed: {}", describe(outcome))).remedy(hint)
        }
        (Reason::Proxy, _) => of_proxy(probe, outcome),
        (_, Reached::Lookup) => of_lookup(provider, outcome),
        (_, Reached::Connection) => of_connection(probe, outcome),
        (_, Reached::Handshake) => of_handshake(provider, outcome),
        (_, Reached::Service) => of_service(probe, outcome),
    }
}

fn of_proxy(probe: &Probe, outcome: &Outcome) -> Diagnosis {
    let provider = &*probe.provider;
    let proxy = host_and_port(next_hop(provider));
    let cause = format!("no connection through the proxy {proxy}: {}", describe(outcome));
    Diagnosis::new("Network Connectivity Issues: proxy issues", cause)
        .remedy(&*outcome.hint)
        .remedy(format!(
            "if none is needed: proxy = \"none\" under [provider.{}], which overrides the environment",
            provider.name
        ))
        .command(curl(probe))
}

fn of_lookup(provider: &Provider, outcome: &Outcome) -> Diagnosis {
    let name = looked_up(provider).unwrap_or_default();
    let word = quoted(name);
    let cause = format!("{name} has no address here: {}", describe(outcome));
    let diagnosis = Diagnosis::new("Network Connectivity Issues: DNS failure", cause)
        .remedy(&*outcome.hint)
        .command(format!("nslookup {word}"));
    // An internal name is no business of a public resolver.
    if provider.api.profile().is_at(name) {
        diagnosis.command(format!("nslookup {word} 8.8.8.8"))
    } else {
        diagnosis
    }
}

fn of_connection(probe: &Probe, outcome: &Outcome) -> Diagnosis {
    let provider = &*probe.provider;
    let place = host_and_port(next_hop(provider));
    let what = describe(outcome);
    let port = next_hop(provider).port_or_known_default().unwrap_or_default();
    let diagnosis = if matches!(outcome.cause(), Some(Detail::LateTunnel(_))) {
        let cause =
            format!("the proxy {place} does not reach {} ({what})", host_and_port(&provider.base_url));
        Diagnosis::new("Network Connectivity Issues: proxy issues", cause).remedy(&*outcome.hint)
    } else if outcome.reason == Reason::Timeout && provider.proxy.is_some() {
        let cause = format!("the proxy {place} does not answer ({what})");
        Diagnosis::new("Network Connectivity Issues: proxy issues", cause)
            .remedy(format!("check proxy under [provider.{}] or in the environment", provider.name))
    } else if outcome.reason == Reason::Timeout {
        let cause = format!(
            "packets to {place} are dropped by a firewall, or this network requires a proxy ({what})"
        );
        Diagnosis::new("Network Connectivity Issues: firewall blocking, proxy issues", cause)
            .remedy(format!("permit connections of this machine to port {port}"))
            .remedy(format!(
                "if a proxy is required: proxy = \"http://HOST:PORT\" under [provider.{}], or https_proxy in the \
                 environment",
                provider.name
            ))
    } else if outcome.cause() == Some(&Detail::Connection(ErrorKind::ConnectionRefused)) {
        let cause = format!("nothing listens on {place}, or a firewall rejects the connection ({what})");
        Diagnosis::new("Network Connectivity Issues: firewall blocking", cause).remedy(&*outcome.hint)
    } else {
        let cause = format!("this machine cannot reach {place} ({what})");
        Diagnosis::new("Network Connectivity Issues: firewall blocking", cause).remedy(&*outcome.hint)
    };
    diagnosis.command(curl(probe))
}

fn of_handshake(provider: &Provider, outcome: &Outcome) -> Diagnosis {
    let host = provider.host();
    let place = host_and_port(&provider.base_url);
    let what = describe(outcome);
    let cause = if outcome.reason == Reason::Timeout {
        format!("no TLS handshake is completed with {place} ({what})")
    } else {
        format!("no trusted connection to {place}: {what}")
    };
    let mut diagnosis =
        Diagnosis::new("Network Connectivity Issues: SSL error", cause).remedy(&*outcome.hint);
    let certificate = certificate_failure(outcome);
    if certificate.is_some_and(CertificateFailure::is_about_time) {
        diagnosis = diagnosis.command("timedatectl".to_owned());
    }
    let servername =
        if name_of(&provider.base_url).is_some() { format!(" -servername {host}") } else { String::new() };
    diagnosis = diagnosis.command(format!("openssl s_client -connect {place}{servername} </dev/null"));
    if certificate.is_some_and(CertificateFailure::is_about_trust) {
        diagnosis = diagnosis.command("sudo update-ca-certificates".to_owned());
    }
    diagnosis
}

/// Diagnoses a response of the service, or of something before it.
fn of_service(probe: &Probe, outcome: &Outcome) -> Diagnosis {
    let provider = &*probe.provider;
    let api = provider.api;
    let who = party(provider, outcome);
    let hint = &*outcome.hint;
    match outcome.reason {
        Reason::AuthFailed if outcome.fault == Fault::Provider => of_stored_key(probe, outcome),
        Reason::AuthFailed | Reason::Permission
            if matches!(outcome.cause(), Some(Detail::Intermediary(_))) =>
        {
            let cause = format!("something before {who} refuses the call: {}", describe(outcome));
            Diagnosis::new("Network Connectivity Issues: proxy issues", cause).remedy(hint)
        }
        Reason::AuthFailed => of_own_key(probe, hint),
        Reason::Permission => {
            let cause = format!("{who} accepts the key, but does not permit the call");
            Diagnosis::new("Provider Connection Failures", cause).remedy(hint)
        }
        Reason::Billing => Diagnosis::new(
            "Provider Connection Failures: account issues; Billing Issues",
            format!("{who} refused the request for billing reasons: credit, quota or spend limit exhausted"),
        )
        .remedy(hint),
        Reason::RateLimited => {
            let cause = format!("{who} received more requests or tokens than its limits allow");
            let diagnosis = Diagnosis::new("Rate Limiting", cause).remedy(hint);
            let page = upstream(outcome).or(places::account(provider)).and_then(|api| api.limits_page);
            page.into_iter()
                .fold(diagnosis, |diagnosis, page| diagnosis.remedy(format!("limits and tiers: {page}")))
        }
        Reason::GatewayTimeout | Reason::Timeout => {
            let cause = match (outcome.reason, api.endpoint()) {
                (Reason::Timeout, _) => {
                    format!("{who} exceeded the timeout: {}", describe(outcome))
                }
                (_, Fault::Gateway) => format!("{who} gave up waiting for the provider behind it"),
                _ => format!("{who} gave up on the request"),
            };
            with_status_page(Diagnosis::new("Timeout Errors", cause).remedy(hint), provider, outcome)
        }
        Reason::Unavailable | Reason::Overloaded => of_no_capacity(probe, outcome),
        Reason::ModelNotFound | Reason::InvalidRequest | Reason::NoContent => {
            let cause =
                format!("{who} refuses the request of the {} check: {}", probe.check(), describe(outcome));
            Diagnosis::new("Still Having Issues", cause).remedy(hint)
        }
        _ => {
            let cause = format!("{who} does not answer as it should: {}", describe(outcome));
            let diagnosis = Diagnosis::new("Still Having Issues", cause).remedy(hint);
            let diagnosis = with_status_page(diagnosis, provider, outcome);
            let log = api.profile().error_log.into_iter();
            let diagnosis = log.fold(diagnosis, Diagnosis::remedy);
            diagnosis
                .command(format!("langmart-prober report --since 1h --provider {}", quoted(&provider.name)))
        }
    }
}

/// Diagnoses a service that is unavailable or overloaded.
fn of_no_capacity(probe: &Probe, outcome: &Outcome) -> Diagnosis {
    let provider = &*probe.provider;
    let who = party(provider, outcome);
    let cause = if outcome.reason == Reason::Overloaded {
        format!("{who} has no capacity left")
    } else {
        format!("{who} is in maintenance, overloaded, or not connected to its upstream services")
    };
    let diagnosis = Diagnosis::new("Gateway Unavailable", cause).remedy(&*outcome.hint);
    with_status_page(diagnosis, provider, outcome).command(curl(probe))
}

/// Diagnoses a rejected key of the configuration.
fn of_own_key(probe: &Probe, hint: &str) -> Diagnosis {
    let provider = &*probe.provider;
    let cause = "the key is wrong, incomplete, expired, revoked, or of another environment";
    let source = provider.key.as_ref().map(|key| key.source.to_string()).unwrap_or_default();
    let diagnosis =
        Diagnosis::new("Invalid API Key Errors", cause).remedy(format!("{hint}; it was read from {source}"));
    let page = places::account(provider).and_then(|api| api.keys_page).into_iter();
    page.fold(diagnosis, |diagnosis, page| diagnosis.remedy(format!("keys: {page}"))).command(curl(probe))
}

/// Diagnoses a rejected key that the gateway stores for a provider.
fn of_stored_key(probe: &Probe, outcome: &Outcome) -> Diagnosis {
    let provider = &*probe.provider;
    let whose = outcome.known_upstream().unwrap_or("the provider");
    let gateway = provider.api.profile().display_name;
    let cause = format!(
        "the configured key is valid; the key that {gateway} stores for {whose} is wrong, expired or revoked"
    );
    let diagnosis = Diagnosis::new("Provider Connection Failures", cause).remedy(&*outcome.hint);
    let upstream = outcome.upstream.and_then(|upstream| places::upstream_probe(probe, upstream));
    with_status_page(diagnosis, provider, outcome).command(upstream.map(|upstream| curl(&upstream)))
}

/// Returns the responsible service, for a sentence.
fn party(provider: &Provider, outcome: &Outcome) -> String {
    if outcome.fault != Fault::Provider || outcome.upstream.is_none() {
        return provider.name.clone();
    }
    let upstream = outcome.known_upstream().unwrap_or("a provider");
    format!("{upstream}, behind {},", provider.name)
}

fn upstream(outcome: &Outcome) -> Option<&'static Profile> {
    Some(outcome.upstream.and_then(Api::from_name)?.profile())
}

fn with_status_page(diagnosis: Diagnosis, provider: &Provider, outcome: &Outcome) -> Diagnosis {
    let page = upstream(outcome).or(places::account(provider)).and_then(|api| api.status_page);
    page.into_iter()
        .fold(diagnosis, |diagnosis, page| diagnosis.remedy(format!("incidents and maintenance: {page}")))
}
