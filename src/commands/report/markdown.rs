//! The report as Markdown that is readable as plain text and can be pasted into a ticket.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use super::{
    account::write_accounts,
    damage::Damage,
    failure::write_failure,
    ledger::or_dash,
    summary::{Failure, Summary, Total},
};
use crate::{
    config::quoted,
    outcome::{Api, Fault, OTHER, Reason, rfc3339},
};

/// Formats the report as Markdown.
pub(super) fn markdown(summary: &Summary) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(summary, &mut text);
    text
}

fn write(summary: &Summary, text: &mut String) -> fmt::Result {
    let (since, until) = (rfc3339(summary.since), rfc3339(summary.until));
    writeln!(text, "# Failed requests from {since} to {until} (UTC)\n\n{}", overview(summary))?;
    for failure in summary.failures() {
        write_failure(failure, text)?;
    }
    write_totals(summary, text)?;
    write_accounts(&summary.account, text)?;
    write_damage(&summary.damage, text)?;
    write_form(summary, text)
}

/// Returns the first paragraph.
fn overview(summary: &Summary) -> String {
    let sum = |count: fn(&Total) -> u64| summary.probes.values().map(count).sum::<u64>();
    let (runs, offline) = (sum(|total| total.runs), sum(|total| total.offline_runs));
    let failed = runs - sum(|total| total.succeeded);
    let affected = summary.probes.values().filter(|total| total.succeeded < total.runs).count();
    let offline = match offline {
        0 => String::new(),
        runs => format!(", {runs} of them while this machine was offline"),
    };
    format!(
        "{failed} of {runs} runs failed{offline}; {affected} of {} probes affected. Recorded by \
         langmart-prober {}.{}\n",
        summary.probes.len(),
        env!("CARGO_PKG_VERSION"),
        summary.clock_offset.map(clock).unwrap_or_default()
    )
}

/// Returns how the clock differs from the service's, whose Date header has whole seconds.
fn clock(offset: f64) -> String {
    let order = if offset < 0.0 { "behind" } else { "ahead of" };
    if offset.abs() < 2.0 {
        " Its clock agrees with the service's within 2 s.".to_owned()
    } else {
        format!(" Its clock is {:.0} s {order} the service's.", offset.abs())
    }
}

fn write_totals(summary: &Summary, text: &mut String) -> fmt::Result {
    let is_offline = summary.probes.values().any(|total| total.offline_runs > 0);
    let (title, rule) = if is_offline { (" while offline |", "---|") } else { ("", "") };
    writeln!(
        text,
        "## Runs\n\n| probe | runs | succeeded |{title} share | mean duration of a success |\n|---|---|---|{rule}---|---|"
    )?;
    for total in summary.probes.values() {
        let Total { probe, runs, succeeded, offline_runs, .. } = total;
        let share = match runs - offline_runs {
            0 => "-".to_owned(),
            evident => format!("{} %", share(*succeeded, evident)),
        };
        let offline = if is_offline { format!(" {offline_runs} |") } else { String::new() };
        let mean = or_dash(total.mean_success.map(Duration::from_secs_f64).map(length));
        writeln!(text, "| {probe} | {runs} | {succeeded} |{offline} {share} | {mean} |")?;
    }
    Ok(())
}

/// Writes what support asks for and records do not have.
fn write_form(summary: &Summary, text: &mut String) -> fmt::Result {
    let failures = summary.failures();
    if failures.is_empty() {
        return Ok(());
    }
    let is_langmart = |failure: &&Failure| {
        failure.service.is_some_and(|service| service.name == Api::Langmart.profile().display_name)
    };
    let sends_key =
        |failure: &&Failure| failure.request.as_ref().is_none_or(|request| request.key_header.is_some());
    let has_connection = |failure: &&Failure| {
        is_langmart(failure) && failure.fault == Fault::Provider && failure.is_of_account()
    };
    let is_answered = |failure: &&Failure| !failure.http_status.is_empty();
    let is_unnamed = |failure: &&Failure| {
        let is_error = failure.http_status.keys().any(|status| *status >= 400);
        failure.request.is_some()
            && is_error
            && failure.error_code.as_deref().is_none_or(|code| code == OTHER)
    };
    let key = match failures.iter().all(is_langmart) {
        _ if !failures.iter().any(sends_key) => "",
        true => ", and name of the key under Settings > API Keys",
        false => ", and name of the key in the provider's console",
    };
    writeln!(
        text,
        "\n## To be completed before sending (never paste a key or its header)\n\n- Account{key}:"
    )?;
    if failures.iter().any(has_connection) {
        writeln!(
            text,
            "- Name of the connection or pool, owner of its provider key, result of its connection test:"
        )?;
    }
    if let Some(failure) = failures.iter().find(|failure| is_unnamed(failure)) {
        let probe = quoted(&failure.probe);
        writeln!(
            text,
            "- Full error, from the body that `langmart-prober once --verbose {probe}` prints, and the time of that run:"
        )?;
    }
    writeln!(text, "- Public source address, network and region; proxy, yes or no:")?;
    if failures.iter().any(|failure| failure.reason == Reason::Dns) {
        writeln!(text, "- Answer of another resolver for the same name, such as that of 8.8.8.8:")?;
    }
    if !failures.iter().all(is_answered) {
        writeln!(text, "- Other hosts reached from this machine, yes or no:")?;
    }
    writeln!(text, "- Other clients affected:\n- Already tried, with result:")
}

/// Writes what could not be read of the files.
pub(super) fn write_damage(damage: &Damage, text: &mut String) -> fmt::Result {
    damage.sentences().iter().try_for_each(|sentence| writeln!(text, "\n{sentence}"))
}

/// Formats seconds with three decimals, without trailing zeros.
pub(super) fn figure(seconds: f64) -> String {
    let text = format!("{seconds:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Formats a duration, of which records have microseconds and a report milliseconds.
pub(super) fn length(duration: Duration) -> String {
    if !duration.is_zero() && duration < Duration::from_millis(1) {
        "<0.001 s".to_owned()
    } else {
        format!("{} s", figure(duration.as_secs_f64()))
    }
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
        let durations = [0, 400, 1_000, 250_000].map(|us| length(Duration::from_micros(us)));
        assert_eq!(durations, ["0 s", "<0.001 s", "0.001 s", "0.25 s"]);
        assert_eq!((share(9_999, 10_000), share(1, 1), share(0, 3)), (99.9, 100.0, 0.0));
    }

    #[test]
    fn clock_is_compared_with_the_service() {
        assert_eq!(clock(-1.2), " Its clock agrees with the service's within 2 s.");
        assert_eq!(clock(-61.4), " Its clock is 61 s behind the service's.");
        assert_eq!(clock(2.6), " Its clock is 3 s ahead of the service's.");
    }
}
