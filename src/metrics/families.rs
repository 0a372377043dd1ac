//! The families of the probes' series: name, help, and what each series shows in it.

use std::{fmt::Write, time::SystemTime};

use super::{
    series::Series,
    text::{Header, Kind, Page},
};
use crate::{
    config::{Task, dns_server_name},
    outcome::{
        Check, ComponentStatus, DnsServer, Fault, Indicator, LimitedBy, Maintenance, Phases, RateLimit,
        Reason, SkipCause, unix_seconds,
    },
};

/// Statuses that have a series before they are seen, because alerts ask for their increase.
const STATUSES_FROM_THE_START: [u16; 6] = [200, 401, 429, 503, 504, 529];

/// One metric, for all probes.
pub(super) struct Family {
    pub(super) header: Header,
    /// Writes the samples of one probe: none where nothing is known yet.
    pub(super) write: fn(&Series, &mut Page),
}

const fn family(kind: Kind, name: &'static str, help: &'static str, write: fn(&Series, &mut Page)) -> Family {
    Family { header: Header { name, kind, help }, write }
}

/// Every metric of a probe, in the order of the page.
pub(super) const FAMILIES: &[Family] = &[
    family(
        Kind::Gauge,
        "langmart_probe_success",
        "Whether the last run succeeded. Absent before the first run.",
        |series, page| {
            if let Some(last) = series.last() {
                page.sample(&series.labels, flag(last.reason == Reason::Ok));
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_last_run_fault",
        "Whose part failed in the last run: one of them is 1. Absent before the first run.",
        last_run_fault,
    ),
    family(Kind::Counter, "langmart_probe_runs_total", "Finished runs.", |series, page| {
        page.sample(&series.labels, series.values.runs.value() as f64);
    }),
    family(
        Kind::Counter,
        "langmart_probe_failures_total",
        "Failed runs, by why they failed and whose part it was.",
        failures,
    ),
    family(
        Kind::Gauge,
        "langmart_probe_consecutive_down_runs",
        "Runs up to the last that failed with fault gateway, provider or network, 0 where the last did not. Absent before the first run.",
        |series, page| known(series, page, series.last().map(|last| last.streak.down as f64)),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_consecutive_failures",
        "Runs up to the last that failed for its reason and with its fault. Absent after a success.",
        consecutive_failures,
    ),
    family(
        Kind::Counter,
        "langmart_probe_slow_runs_total",
        "Successful runs that took longer than the probe's slow_after. Absent where it has none.",
        |series, page| {
            if series.probe().slow_after.is_some() {
                page.sample(&series.labels, series.values.slow_runs.value() as f64);
            }
        },
    ),
    family(
        Kind::Histogram,
        "langmart_probe_duration_seconds",
        "Durations of successful runs and of those that ended at our deadline.",
        |series, page| page.histogram(&series.labels, &series.values.duration),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_last_duration_seconds",
        "Duration of the last run, whatever its result.",
        |series, page| {
            if let Some(last) = series.last() {
                page.sample(&series.labels, last.duration.as_secs_f64());
            }
        },
    ),
    family(
        Kind::Counter,
        "langmart_probe_phase_seconds_total",
        "Time spent in each phase of all runs.",
        |series, page| {
            for (name, sum) in Phases::NAMES.iter().zip(&series.values.phases) {
                page.labelled(&series.labels, &[("phase", name)], sum.value());
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_last_phase_duration_seconds",
        "Time spent in each phase of the last run, 0 where it was not reached.",
        |series, page| {
            let Some(last) = series.last() else { return };
            for (name, duration) in Phases::NAMES.iter().zip(last.phases.durations()) {
                page.labelled(&series.labels, &[("phase", name)], duration.as_secs_f64());
            }
        },
    ),
    family(
        Kind::Counter,
        "langmart_probe_http_responses_total",
        "HTTP responses by status; unregistered ones share one series.",
        http_responses,
    ),
    family(
        Kind::Gauge,
        "langmart_probe_http_status_code",
        "HTTP status of the last run, 0 where there was no response.",
        |series, page| {
            if let Some(last) = series.last() {
                page.sample(&series.labels, f64::from(last.http_status.unwrap_or(0)));
            }
        },
    ),
    family(
        Kind::Counter,
        "langmart_probe_api_errors_total",
        "Errors by the code of the API, as far as it is a known one.",
        |series, page| {
            for (code, count) in &*series.values.error_codes() {
                page.labelled(&series.labels, &[("code", code)], *count as f64);
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_retry_after_seconds",
        "How long the service asked to wait in the last run, 0 where it did not.",
        |series, page| {
            let hint = series.last().and_then(|last| last.retry_after);
            page.sample(&series.labels, hint.unwrap_or(0.0));
        },
    ),
    family(
        Kind::Counter,
        "langmart_probe_retry_after_hints_total",
        "Runs in which the service asked to wait.",
        |series, page| page.sample(&series.labels, series.values.retry_after_hints.value() as f64),
    ),
    family(
        Kind::Counter,
        "langmart_probe_retry_after_hint_seconds_total",
        "Sum of the waits that the service asked for.",
        |series, page| page.sample(&series.labels, series.values.retry_after_seconds.value()),
    ),
    family(
        Kind::Counter,
        "langmart_probe_rate_limited_total",
        "Rate-limited runs, by the limit that they met.",
        |series, page| {
            if series.probe().check() == Check::Network {
                return;
            }
            for (limit, count) in LimitedBy::ALL.iter().zip(&series.values.rate_limited) {
                page.labelled(&series.labels, &[("limited_by", limit.name())], count.value() as f64);
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_reported_processing_seconds",
        "Processing time that the service itself reported in the last run. Absent if it reported none.",
        |series, page| known(series, page, series.values.reported_processing.value()),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_model_shutdown_timestamp_seconds",
        "Announced shutdown of the model. Absent if none is announced.",
        |series, page| known(series, page, series.values.model_shutdown.value()),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_answered_model_match",
        "Whether the requested model answered, 1 or 0, in the last run that could decide it. Absent before the first.",
        |series, page| known(series, page, series.values.model_match.value()),
    ),
    family(
        Kind::Counter,
        "langmart_probe_model_mismatches_total",
        "Runs in which another model than the requested one answered.",
        |series, page| {
            if series.probe().check().generates() {
                page.sample(&series.labels, series.values.model_mismatches.value() as f64);
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_backoff_until_timestamp_seconds",
        "Until when the probe waits because of rate limits or overload, 0 where it does not.",
        |series, page| {
            let until = series.values.backoff_until.value().filter(|until| *until > unix_seconds(page.now));
            page.sample(&series.labels, until.unwrap_or(0.0));
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_next_run_timestamp_seconds",
        "When the next run is due, waits included.",
        |series, page| known(series, page, series.values.next_run.value()),
    ),
    family(
        Kind::Counter,
        "langmart_probe_skipped_runs_total",
        "Due runs that did not take place, by cause.",
        |series, page| {
            for (cause, count) in SkipCause::ALL.iter().zip(&series.values.skipped) {
                page.labelled(&series.labels, &[("cause", cause.name())], count.value() as f64);
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_ratelimit_limit",
        "Maximum of a rate limit's window, as last reported; kept for two intervals.",
        |series, page| rate_limits(series, page, |limit| limit.limit.map(|limit| limit as f64)),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_ratelimit_remaining",
        "Remainder of a rate limit's window, as last reported; kept for two intervals.",
        |series, page| rate_limits(series, page, |limit| limit.remaining.map(|remaining| remaining as f64)),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_ratelimit_reset_timestamp_seconds",
        "Time at which a rate limit's window is full again, as last reported; kept for two intervals, also when it has passed.",
        |series, page| rate_limits(series, page, |limit| limit.reset.map(unix_seconds)),
    ),
    family(
        Kind::Histogram,
        "langmart_probe_time_to_first_token_seconds",
        "From handing the request to the connection until the first visible content of a stream.",
        |series, page| {
            if series.probe().check() == Check::Stream {
                page.histogram(&series.labels, &series.values.time_to_first_token);
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_last_time_to_first_token_seconds",
        "Time to first token of the last run. Absent where it had none.",
        |series, page| {
            let first = series.last().and_then(|last| last.time_to_first_token);
            known(series, page, first.map(|first| first.as_secs_f64()));
        },
    ),
    family(
        Kind::Histogram,
        "langmart_probe_time_per_output_token_seconds",
        "Average time between the visible tokens of a complete stream.",
        |series, page| {
            if series.probe().check() == Check::Stream {
                page.histogram(&series.labels, &series.values.time_per_output_token);
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_stream_buffered",
        "Whether an intermediary held the stream back, 1 or 0, in the last run that could decide it. Absent before the first.",
        |series, page| known(series, page, series.values.buffered.value()),
    ),
    family(
        Kind::Counter,
        "langmart_probe_buffered_streams_total",
        "Streams that an intermediary held back.",
        |series, page| {
            if series.probe().check() == Check::Stream {
                page.sample(&series.labels, series.values.buffered_streams.value() as f64);
            }
        },
    ),
    family(
        Kind::Counter,
        "langmart_probe_tokens_total",
        "Tokens spent, as the service counted them, or estimated where it did not.",
        tokens,
    ),
    family(
        Kind::Counter,
        "langmart_probe_cached_input_tokens_total",
        "Input tokens that the provider served from its prompt cache.",
        |series, page| {
            if series.probe().check().generates() {
                page.sample(&series.labels, series.values.cached_input_tokens.value() as f64);
            }
        },
    ),
    family(
        Kind::Counter,
        "langmart_probe_estimated_cost_usd_total",
        "What the tokens cost, by the price in the configuration. Absent without one.",
        |series, page| {
            if series.probe().chat().is_some_and(|chat| chat.price.is_some()) {
                page.sample(&series.labels, series.values.cost.value());
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_tls_certificate_not_after_timestamp_seconds",
        "Earliest end of validity in the certificate chain as presented last.",
        |series, page| known(series, page, series.values.certificate_not_after.value()),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_tls_info",
        "Always 1, with the TLS version and cipher suite that were agreed on last.",
        |series, page| {
            if let Some((version, cipher)) = series.values.tls() {
                page.labelled(&series.labels, &[("version", version), ("cipher", cipher)], 1.0);
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_dns_addresses",
        "Addresses that the system's resolver gave in the last run.",
        |series, page| {
            let addresses = |system: &DnsServer| system.answer.as_ref().map_or(0, Vec::len) as f64;
            let count = series.values.dns_servers().first().map(addresses);
            known(series, page, count);
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_dns_server_success",
        "Whether a name server gave an address in the last run.",
        dns_server_success,
    ),
    family(
        Kind::Gauge,
        "langmart_probe_clock_offset_seconds",
        "Our clock minus the server's Date header, good to a second.",
        |series, page| known(series, page, series.values.clock_offset.value()),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_status_page_indicator",
        "What the status page says of the whole: one of them is 1; unknown where the last run could not read it.",
        status_page_indicator,
    ),
    family(
        Kind::Gauge,
        "langmart_probe_status_page_open_incidents",
        "Incidents that the status page lists as not over. Absent where the last run could not read it.",
        |series, page| {
            let open = series.values.status_page().as_ref().and_then(|status| status.open_incidents);
            known(series, page, open.map(|open| open as f64));
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_status_page_maintenance_in_progress",
        "Whether an announced maintenance is in progress. Absent if the last run could not read the status page.",
        |series, page| {
            let in_progress =
                series.values.status_page().as_ref().map(|status| flag(status.in_maintenance()));
            known(series, page, in_progress);
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_status_page_maintenance_start_timestamp_seconds",
        "Start of the announced maintenance that is in progress, else of the next one. Absent if none is announced.",
        |series, page| maintenance(series, page, |maintenance| maintenance.start),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_status_page_maintenance_end_timestamp_seconds",
        "End of the announced maintenance that is in progress, else of the next one. Absent if none is announced.",
        |series, page| maintenance(series, page, |maintenance| maintenance.end),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_status_page_component",
        "What the status page says of a configured component: one of them is 1.",
        status_page_components,
    ),
    family(
        Kind::Gauge,
        "langmart_probe_balance_usd",
        "What is left on the account, as last told. Absent where it is unlimited or not in US dollars.",
        |series, page| known(series, page, series.values.balance().map(|balance| balance.usd)),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_balance_minimum_usd",
        "The balance below which the service refuses, as last told.",
        |series, page| known(series, page, series.values.balance().and_then(|balance| balance.minimum_usd)),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_last_run_timestamp_seconds",
        "When the last finished run began. Kept over a restart.",
        |series, page| known(series, page, series.values.last_run.value()),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_last_success_timestamp_seconds",
        "When the last successful run began. Absent before the first. Kept over a restart.",
        |series, page| known(series, page, series.values.last_success.value()),
    ),
    family(
        Kind::Gauge,
        "langmart_probe_interval_seconds",
        "From one due time to the next.",
        |series, page| page.sample(&series.labels, series.probe().interval.as_secs_f64()),
    ),
    family(Kind::Gauge, "langmart_probe_timeout_seconds", "The most that a run may take.", |series, page| {
        page.sample(&series.labels, series.probe().timeout.as_secs_f64());
    }),
    family(
        Kind::Counter,
        "langmart_probe_rechecks_total",
        "Extra attempts after failed runs, by result. Absent where the probe makes none.",
        |series, page| {
            if series.probe().recheck.is_some() {
                for (result, count) in ["ok", "failed"].iter().zip(&series.values.rechecks) {
                    page.labelled(&series.labels, &[("result", result)], count.value() as f64);
                }
            }
        },
    ),
    family(
        Kind::Gauge,
        "langmart_probe_info",
        "Always 1, with the host, the API, the kind of connection and the configured labels.",
        |series, page| page.sample(&series.info, 1.0),
    ),
];

fn last_run_fault(series: &Series, page: &mut Page) {
    let Some(last) = series.last() else { return };
    for &fault in Fault::ALL {
        page.labelled(&series.labels, &[("fault", fault.name())], flag(fault == last.fault));
    }
}

/// The expected pairs from the start, any other once it has occurred.
fn failures(series: &Series, page: &mut Page) {
    for &reason in Reason::ALL {
        for &fault in Fault::ALL {
            let count = series.values.failures.of(reason, fault).value();
            if count > 0 || series.expected.contains(&(reason, fault)) {
                let pair = [("reason", reason.name()), ("fault", fault.name())];
                page.labelled(&series.labels, &pair, count as f64);
            }
        }
    }
}

fn consecutive_failures(series: &Series, page: &mut Page) {
    if let Some(last) = series.last().filter(|last| last.streak.same > 0) {
        let labels = [("reason", last.reason.name()), ("fault", last.fault.name())];
        page.labelled(&series.labels, &labels, last.streak.same as f64);
    }
}

/// Of the servers that are configured now: a reload may have come since the last run.
fn dns_server_success(series: &Series, page: &mut Page) {
    let configured = series.probe().provider.dns_servers.iter().copied().map(dns_server_name);
    let names: Vec<String> = configured.chain([DnsServer::SYSTEM.to_owned()]).collect();
    for answer in series.values.dns_servers().iter().filter(|answer| names.contains(&answer.server)) {
        page.labelled(&series.labels, &[("server", &answer.server)], flag(answer.ok()));
    }
}

fn http_responses(series: &Series, page: &mut Page) {
    if series.probe().check() == Check::Network {
        return; // it has none to count
    }
    let mut code = String::new();
    for (status, count) in series.values.responses.iter() {
        code.clear();
        match status {
            Some(status) if count > 0 || STATUSES_FROM_THE_START.contains(&status) => {
                write!(code, "{status}").expect("a String takes every write");
            }
            None if count > 0 => code.push_str("other"),
            Some(_) | None => continue,
        }
        page.labelled(&series.labels, &[("code", &code)], count as f64);
    }
}

fn rate_limits(series: &Series, page: &mut Page, value: fn(&RateLimit) -> Option<f64>) {
    // The run in between may have failed without them.
    let longest = series.probe().interval.saturating_mul(2);
    for limit in series.values.rate_limits(page.now, longest) {
        if let Some(value) = value(&limit) {
            page.labelled(&series.labels, &[("resource", limit.resource.name())], value);
        }
    }
}

fn tokens(series: &Series, page: &mut Page) {
    if series.probe().check().generates() {
        let counts = [("input", &series.values.input_tokens), ("output", &series.values.output_tokens)];
        for (direction, count) in counts {
            page.labelled(&series.labels, &[("direction", direction)], count.value() as f64);
        }
    }
}

fn status_page_indicator(series: &Series, page: &mut Page) {
    if let Task::Status(_) = series.probe().task {
        let said = series.values.status_page().as_ref().map_or(Indicator::Unknown, |status| status.indicator);
        for &indicator in Indicator::ALL {
            page.labelled(&series.labels, &[("indicator", indicator.name())], flag(indicator == said));
        }
    }
}

/// By the configuration of now: a component that the last run was not asked for is unknown until the next.
fn status_page_components(series: &Series, page: &mut Page) {
    let Task::Status(source) = &series.probe().task else { return };
    let said = series.values.status_page();
    let told = |wanted: &String| {
        let components = &said.as_ref()?.components;
        components.iter().find(|(name, _)| name == wanted).map(|(_, status)| *status)
    };
    for name in &source.components {
        let said = told(name).unwrap_or(ComponentStatus::Unknown);
        for &status in ComponentStatus::ALL {
            let labels = [("component", name.as_str()), ("status", status.name())];
            page.labelled(&series.labels, &labels, flag(status == said));
        }
    }
}

fn maintenance(series: &Series, page: &mut Page, time: fn(&Maintenance) -> Option<SystemTime>) {
    let announced = series.values.status_page().as_ref().and_then(|status| status.maintenance);
    known(series, page, announced.as_ref().and_then(time).map(unix_seconds));
}

fn known(series: &Series, page: &mut Page, value: Option<f64>) {
    if let Some(value) = value {
        page.sample(&series.labels, value);
    }
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}
