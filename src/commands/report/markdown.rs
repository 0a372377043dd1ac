//! The report as Markdown that is readable as plain text and can be pasted into a ticket.

use std::fmt::Write as _;

use super::{
    account::write_accounts,
    damage::Damage,
    summary::{Failure, Summary},
};
use crate::outcome::rfc3339;

/// Formats the report as Markdown.
pub(super) fn markdown(summary: &Summary) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(summary, &mut text);
    text
}

fn write(summary: &Summary, text: &mut String) -> std::fmt::Result {
    let runs: u64 = summary.probes.values().map(|total| total.runs).sum();
    let failed: u64 = summary.probes.values().map(|total| total.runs - total.succeeded).sum();
    let failing = summary.probes.values().filter(|total| total.succeeded < total.runs).count();
    writeln!(text, "# Failures from {} to {}\n", rfc3339(summary.since), rfc3339(summary.until))?;
    writeln!(
        text,
        "{failed} of {runs} runs failed, of {failing} of {} probes. Recorded by langmart-prober {}.\n",
        summary.probes.len(),
        env!("CARGO_PKG_VERSION")
    )?;
    for failure in summary.failures() {
        write_failure(failure, text)?;
    }
    writeln!(text, "## Runs\n\n| probe | runs | succeeded | share |\n|---|---|---|---|")?;
    for total in summary.probes.values() {
        let share = share(total.succeeded, total.runs);
        writeln!(text, "| {} | {} | {} | {share} % |", total.probe, total.runs, total.succeeded)?;
    }
    write_accounts(&summary.account, text)?;
    write_damage(&summary.damage, text)
}

/// Writes what could not be read of the files.
pub(super) fn write_damage(damage: &Damage, text: &mut String) -> std::fmt::Result {
    damage.sentences().iter().try_for_each(|sentence| writeln!(text, "\n{sentence}"))
}

fn write_failure(failure: &Failure, text: &mut String) -> std::fmt::Result {
    write!(text, "## {}: {}, fault {}", failure.probe, failure.reason, failure.fault)?;
    if let Some(code) = &failure.error_code {
        write!(text, ", code {code}")?;
    }
    if let Some(upstream) = &failure.upstream {
        write!(text, ", upstream {upstream}")?;
    }
    write!(text, "\n\n- Probe: {} at provider {}", failure.check, failure.provider)?;
    if let Some(model) = &failure.model {
        write!(text, ", model `{}`", model.replace('`', "'"))?;
    }
    write_endpoint(failure, text)?;
    let (first, last) = (rfc3339(failure.first), rfc3339(failure.last));
    writeln!(text, "- Runs: {}, the first at {first}, the last at {last}", failure.count)?;
    let statuses: Vec<String> =
        failure.http_status.iter().map(|(status, runs)| format!("{status} ({runs})")).collect();
    let statuses = if statuses.is_empty() { "no response".to_owned() } else { statuses.join(", ") };
    writeln!(text, "- HTTP status: {statuses}")?;
    let [median, longest] =
        [failure.durations.median(), failure.durations.longest()].map(|d| figure(d.as_secs_f64()));
    writeln!(text, "- Duration: median {median} s, longest {longest} s")?;
    for (title, content) in [("What happened", &failure.detail), ("What to do", &failure.hint)] {
        if !content.is_empty() {
            writeln!(text, "- {title}: {}", escaped(content))?;
        }
    }
    writeln!(text, "\n| time | status | duration | request ID |\n|---|---|---|---|")?;
    for run in &failure.latest {
        let status = run.http_status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let (time, duration) = (rfc3339(run.time), figure(run.duration.as_secs_f64()));
        let id = run.request_id.as_deref().unwrap_or("-");
        writeln!(text, "| {time} | {status} | {duration} s | {id} |")?;
    }
    writeln!(text)
}

/// Writes where the requests went, and the limit that they exceeded.
fn write_endpoint(failure: &Failure, text: &mut String) -> std::fmt::Result {
    writeln!(text)?;
    if let Some(url) = &failure.base_url {
        write!(text, "- Endpoint: {url}")?;
        match failure.remote_address {
            Some(address) => writeln!(text, ", connected to {address}")?,
            None => writeln!(text, ", not connected")?,
        }
    }
    match (failure.limited_by, failure.retry_after) {
        (Some(limit), Some(wait)) => writeln!(text, "- Limit: {limit}; requested wait: {} s", figure(wait)),
        (Some(limit), None) => writeln!(text, "- Limit: {limit}"),
        (None, Some(wait)) => writeln!(text, "- Requested wait: {} s", figure(wait)),
        (None, None) => Ok(()),
    }
}

/// Formats seconds with three decimals, without trailing zeros.
pub(super) fn figure(seconds: f64) -> String {
    let text = format!("{seconds:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns a share in per cent with one decimal, rounded down.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    let share = (part as f64 * 1_000.0 / whole as f64).floor() / 10.0;
    if part == whole { 100.0 } else { share }
}

/// Escapes the characters that are markup in Markdown.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '`' | '<' | '|' | '*') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!((figure(0.0), figure(0.1234), figure(20.0)), ("0".into(), "0.123".into(), "20".into()));
        assert_eq!((share(9_999, 10_000), share(1, 1), share(0, 3)), (99.9, 100.0, 0.0));
    }
}
