//! Samples of the families that need more than a line in the table.

use std::{fmt::Write, time::SystemTime};

use super::{
    comparison::ComparisonSeries,
    families::flag,
    histogram::Histogram,
    page::Page,
    pool::PoolState,
    series::{Failures, Series},
    values::Counter,
};
use crate::{
    config::{Task, dns_server_name},
    outcome::{
        Check, ComponentStatus, DnsServer, Fault, Indicator, LimitedBy, Maintenance, PairVerdict, Phases,
        RateLimit, Reason, SkipCause, unix_seconds,
    },
};

/// Statuses that have a series before they occur, because alerts query their increase.
const INITIAL_STATUSES: [u16; 6] = [200, 401, 429, 503, 504, 529];

pub(super) fn last_run_fault(series: &Series, page: &mut Page<'_>) {
    let Some(last) = series.last() else { return };
    for &fault in Fault::ALL {
        page.each([fault.name()], flag(fault == last.fault));
    }
}

/// Writes the expected pairs from the start, and other pairs once they have occurred.
pub(super) fn failures(series: &Series, page: &mut Page<'_>) {
    for &reason in Reason::ALL {
        for &fault in Fault::ALL {
            let count = series.values.failures.of(reason, fault).value();
            if count > 0 || series.expected[Failures::index(reason, fault)] {
                page.each([reason.name(), fault.name()], count as f64);
            }
        }
    }
}

pub(super) fn consecutive_failures(series: &Series, page: &mut Page<'_>) {
    if let Some(last) = series.last().filter(|last| last.streak.same > 0) {
        page.each([last.reason.name(), last.fault.name()], last.streak.same as f64);
    }
}

pub(super) fn last_phases(series: &Series, page: &mut Page<'_>) {
    let Some(last) = series.last() else { return };
    for (name, duration) in Phases::NAMES.iter().zip(last.phases.durations()) {
        page.each([name], duration.as_secs_f64());
    }
}

pub(super) fn http_responses(series: &Series, page: &mut Page<'_>) {
    if series.probe().check() == Check::Network {
        return; // it sends no request
    }
    let mut code = String::new();
    for (status, count) in series.values.responses.iter() {
        code.clear();
        match status {
            Some(status) if count > 0 || INITIAL_STATUSES.contains(&status) => {
                write!(code, "{status}").expect("a String takes every write");
            }
            None if count > 0 => code.push_str("other"),
            Some(_) | None => continue,
        }
        page.each([&code], count as f64);
    }
}

pub(super) fn rate_limited(series: &Series, page: &mut Page<'_>) {
    if series.probe().check() != Check::Network {
        for (limit, count) in LimitedBy::ALL.iter().zip(&series.values.rate_limited) {
            page.each([limit.name()], count.value() as f64);
        }
    }
}

pub(super) fn skipped_runs(series: &Series, page: &mut Page<'_>) {
    for (cause, count) in SkipCause::ALL.iter().zip(&series.values.skipped) {
        page.each([cause.name()], count.value() as f64);
    }
}

pub(super) fn rate_limits(series: &Series, page: &mut Page<'_>, value: fn(&RateLimit) -> Option<f64>) {
    // Runs that report no limits, such as failed ones, may be between two runs that do.
    let max_age = series.probe().interval.saturating_mul(2);
    for limit in series.values.rate_limits(page.now, max_age) {
        if let Some(value) = value(&limit) {
            page.each([limit.resource.name()], value);
        }
    }
}

pub(super) fn of_stream(series: &Series, page: &mut Page<'_>, histogram: &Histogram) {
    if series.probe().check() == Check::Stream {
        page.histogram(histogram);
    }
}

/// Writes a counter of the checks that generate tokens.
pub(super) fn of_generation(series: &Series, page: &mut Page<'_>, counter: &Counter) {
    if series.probe().check().generates() {
        page.value(counter.value() as f64);
    }
}

pub(super) fn tokens(series: &Series, page: &mut Page<'_>) {
    if series.probe().check().generates() {
        page.each(["input"], series.values.input_tokens.value() as f64);
        page.each(["output"], series.values.output_tokens.value() as f64);
    }
}

/// Writes only servers that are still configured, because a reload may have followed the last run.
pub(super) fn dns_server_success(series: &Series, page: &mut Page<'_>) {
    let configured = series.probe().provider.dns_servers.iter().copied().map(dns_server_name);
    let names: Vec<String> = configured.chain([DnsServer::SYSTEM.to_owned()]).collect();
    for answer in series.values.dns_servers().iter().filter(|answer| names.contains(&answer.server)) {
        page.each([&answer.server], flag(answer.ok()));
    }
}

pub(super) fn status_page_indicator(series: &Series, page: &mut Page<'_>) {
    if let Task::Status(_) = series.probe().task {
        let current =
            series.values.status_page().as_ref().map_or(Indicator::Unknown, |status| status.indicator);
        for &indicator in Indicator::ALL {
            page.each([indicator.name()], flag(indicator == current));
        }
    }
}

/// Writes the configured components. After a reload, a new one is unknown until the next run.
pub(super) fn status_page_components(series: &Series, page: &mut Page<'_>) {
    let Task::Status(source) = &series.probe().task else { return };
    let status_page = series.values.status_page();
    let reported = |wanted: &String| {
        let components = &status_page.as_ref()?.components;
        components.iter().find(|(name, _)| name == wanted).map(|(_, status)| *status)
    };
    for name in &source.components {
        let current = reported(name).unwrap_or(ComponentStatus::Unknown);
        for &status in ComponentStatus::ALL {
            page.each([name, status.name()], flag(status == current));
        }
    }
}

pub(super) fn maintenance(
    series: &Series,
    page: &mut Page<'_>,
    time: fn(&Maintenance) -> Option<SystemTime>,
) {
    let announced = series.values.status_page().as_ref().and_then(|status| status.maintenance);
    page.value(announced.as_ref().and_then(time).map(unix_seconds));
}

pub(super) fn rechecks(series: &Series, page: &mut Page<'_>) {
    if series.probe().recheck.is_some() {
        for (result, count) in ["ok", "failed"].iter().zip(&series.values.rechecks) {
            page.each([result], count.value() as f64);
        }
    }
}

pub(super) fn verdicts(series: &ComparisonSeries, page: &mut Page<'_>) {
    for (verdict, counter) in PairVerdict::ALL.iter().zip(&series.values.verdicts) {
        page.each([verdict.name()], counter.value() as f64);
    }
}

pub(super) fn pool_members(pool: &PoolState, page: &mut Page<'_>) {
    for (state, count) in [("up", pool.up), ("down", pool.down), ("unknown", pool.unknown)] {
        page.each([state], f64::from(count));
    }
}

pub(super) fn pool_failures(pool: &PoolState, page: &mut Page<'_>) {
    for (probe, failures) in &pool.consecutive_failures {
        page.each([probe], *failures as f64);
    }
}
