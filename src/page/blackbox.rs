//! A run in the metric names of `blackbox_exporter`, so that dashboards and relabelling rules for
//! it can be used unchanged.

use std::{fmt::Write, time::SystemTime};

use crate::{
    config::Probe,
    outcome::{Check, Outcome, Phases, SkipCause, unix_seconds},
};

/// The result of an on-demand run.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The requested probe.
    pub probe: &'a Probe,
    /// The outcome of the run.
    pub outcome: &'a Outcome,
    /// Cause of returning the outcome of an earlier run. `None` if the run was made for this
    /// request.
    pub not_run: Option<SkipCause>,
    /// Whether to explain the result in words, in addition to the metrics.
    pub debug: bool,
    /// The current time.
    pub now: SystemTime,
}

/// Renders the response in the text format 0.0.4.
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
    let cached = answer.not_run.map_or(0.0, |_| 1.0);
    plain(
        text,
        "langmart_prober_result_cached",
        "Whether this is an earlier result, because the probe could not be run now",
        cached,
    );
    let age = answer.now.duration_since(outcome.time + outcome.duration).unwrap_or_default();
    plain(
        text,
        "langmart_prober_result_age_seconds",
        "Time since the end of the run, in seconds",
        age.as_secs_f64(),
    );
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

/// Explains the result to a person, without headers and bodies.
fn explain(text: &mut String, answer: &Answer<'_>) {
    let Answer { probe, outcome, not_run, .. } = answer;
    let _ = writeln!(text, "Probe {}, check {} of {}.", probe.name, probe.check(), probe.provider.name);
    if let Some(cause) = not_run {
        let _ = writeln!(text, "The probe was not run now, because of {cause}: this is its last result.");
    }
    let _ = writeln!(text, "Reason {}, fault {}.", outcome.reason, outcome.fault);
    if let Some(detail) = &outcome.detail {
        let _ = writeln!(text, "Detail: {detail}");
    }
    if !outcome.hint.is_empty() {
        let _ = writeln!(text, "What to do: {}", outcome.hint);
    }
    for (name, phase) in Phases::NAMES.iter().zip(outcome.phases.durations()) {
        let _ = writeln!(text, "Phase {name}: {:.6} s", phase.as_secs_f64());
    }
}
