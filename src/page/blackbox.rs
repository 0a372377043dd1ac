//! One run in the names of `blackbox_exporter`, so that dashboards and relabelling made for it work as they are.

use std::{fmt::Write, time::SystemTime};

use crate::{
    config::Probe,
    outcome::{Check, Outcome, Phases, SkipCause, unix_seconds},
};

/// What a request for a run comes to.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The probe that was asked for.
    pub probe: &'a Probe,
    /// The run.
    pub outcome: &'a Outcome,
    /// Why it is the last result and not a run of now; `None`: it is of now.
    pub waits: Option<SkipCause>,
    /// Whether to tell in words what happened, beside the metrics.
    pub debug: bool,
    /// The wall clock.
    pub now: SystemTime,
}

/// The answer in the text format 0.0.4.
pub fn answer(answer: &Answer<'_>) -> String {
    let mut text = String::new();
    if answer.debug {
        explain(&mut text, answer);
        text.push_str("\n\nMetrics that would have been returned:\n");
    }
    write_metrics(&mut text, answer);
    text
}

fn gauge(text: &mut String, name: &str, help: &str, samples: &[(String, f64)]) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn plain(text: &mut String, name: &str, help: &str, value: f64) {
    gauge(text, name, help, &[(String::new(), value)]);
}

fn write_metrics(text: &mut String, answer: &Answer<'_>) {
    let outcome = answer.outcome;
    plain(
        text,
        "probe_success",
        "Displays whether or not the probe was a success",
        f64::from(u8::from(outcome.success())),
    );
    let waits = answer.waits.map_or(0.0, |_| 1.0);
    plain(
        text,
        "langmart_prober_last_result_given",
        "Whether this is the last result, since the probe waits and was not run",
        waits,
    );
    let age = answer.now.duration_since(outcome.time + outcome.duration).unwrap_or_default();
    plain(text, "langmart_prober_result_age_seconds", "How long ago the run ended", age.as_secs_f64());
    plain(
        text,
        "probe_duration_seconds",
        "Returns how long the probe took to complete in seconds",
        outcome.duration.as_secs_f64(),
    );
    plain(
        text,
        "probe_dns_lookup_time_seconds",
        "Returns the time taken for probe dns lookup in seconds",
        outcome.phases.resolve.as_secs_f64(),
    );
    let protocol = outcome.remote_address.map(|address| if address.is_ipv6() { 6.0 } else { 4.0 });
    if let Some(protocol) = protocol {
        plain(text, "probe_ip_protocol", "Specifies whether probe ip protocol is IP4 or IP6", protocol);
    }
    if answer.probe.check() != Check::Network {
        write_http(text, answer.probe, outcome);
    }
    write_tls(text, outcome);
}

fn write_http(text: &mut String, probe: &Probe, outcome: &Outcome) {
    let phases: Vec<_> = Phases::NAMES
        .iter()
        .zip(outcome.phases.durations())
        .map(|(name, time)| (format!("{{phase=\"{name}\"}}"), time.as_secs_f64()))
        .collect();
    gauge(
        text,
        "probe_http_duration_seconds",
        "Duration of http request by phase, summed over all redirects",
        &phases,
    );
    let status = outcome.http_status.map_or(0.0, f64::from);
    plain(text, "probe_http_status_code", "Response HTTP status code", status);
    let version = outcome.http_version.and_then(|version| version.parse().ok()).unwrap_or(0.0);
    plain(text, "probe_http_version", "Returns the version of HTTP of the probe response", version);
    let ssl = f64::from(u8::from(probe.provider.base_url.scheme() == "https"));
    plain(text, "probe_http_ssl", "Indicates if SSL was used for the final redirect", ssl);
    plain(text, "probe_http_redirects", "The number of redirects", 0.0);
}

fn write_tls(text: &mut String, outcome: &Outcome) {
    let Some(tls) = outcome.tls else { return };
    if let Some(not_after) = tls.not_after {
        plain(
            text,
            "probe_ssl_earliest_cert_expiry",
            "Returns last SSL chain expiry in unixtime",
            unix_seconds(not_after),
        );
    }
    if let Some(version) = tls.version {
        let labels = format!("{{version=\"TLS {version}\"}}");
        gauge(
            text,
            "probe_tls_version_info",
            "Returns the TLS version used or NaN when unknown",
            &[(labels, 1.0)],
        );
    }
}

/// For a person: our own words only, no header and no body.
fn explain(text: &mut String, answer: &Answer<'_>) {
    let Answer { probe, outcome, waits, .. } = answer;
    let _ = writeln!(text, "Probe {}, check {} of {}.", probe.name, probe.check(), probe.provider.name);
    if let Some(cause) = waits {
        let _ = writeln!(text, "It was not run now, since it waits ({cause}): this is its last result.");
    }
    let _ = writeln!(text, "Reason {}, fault {}.", outcome.reason, outcome.fault);
    for (name, words) in [("Found", &*outcome.detail), ("What to do", outcome.hint)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{name}: {words}");
        }
    }
    for (name, phase) in Phases::NAMES.iter().zip(outcome.phases.durations()) {
        let _ = writeln!(text, "Phase {name}: {:.6} s", phase.as_secs_f64());
    }
}
