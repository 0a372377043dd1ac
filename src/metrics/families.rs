//! The table of every metric family on `/metrics`: name, type, labels, HELP text and samples.
//!
//! METRICS.md is generated from it. `samples` has the longer functions.

use super::{
    comparison::ComparisonSeries,
    own,
    page::{Header, Kind, Page},
    pool::PoolState,
    process::Process,
    registry::Prober,
    samples,
    series::Series,
};
use crate::{
    config::Budget,
    outcome::{Check, Phases, Reason, unix_seconds},
};

/// A metric family.
pub(super) struct Family {
    pub(super) header: Header,
    pub(super) samples: Samples,
}

/// The subjects of a family, and the function that writes the samples of one of them.
pub(super) enum Samples {
    Prober(fn(&Prober<'_>, &mut Page<'_>)),
    Probe(fn(&Series, &mut Page<'_>)),
    Comparison(fn(&ComparisonSeries, &mut Page<'_>)),
    Pool(fn(&PoolState, &mut Page<'_>)),
}
use Samples::{Comparison, Pool, Probe, Prober as Own};

impl Family {
    const fn new(kind: Kind, name: &'static str, help: &'static str, samples: Samples) -> Self {
        Self { header: Header { name, kind, labels: &[], help }, samples }
    }

    /// Sets the labels that its samples have in addition to those of their subject.
    const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.header.labels = labels;
        self
    }
}

const fn counter(name: &'static str, help: &'static str, samples: Samples) -> Family {
    Family::new(Kind::Counter, name, help, samples)
}

const fn gauge(name: &'static str, help: &'static str, samples: Samples) -> Family {
    Family::new(Kind::Gauge, name, help, samples)
}

const fn histogram(name: &'static str, help: &'static str, samples: Samples) -> Family {
    Family::new(Kind::Histogram, name, help, samples)
}

/// Every family, in the order of the page.
pub(super) const FAMILIES: &[Family] = &[
    gauge(
        "langmart_prober_build_info",
        "Build information. Value is always 1.",
        Own(|_, page| page.each(own::BUILD, 1.0)),
    )
    .by(&["version", "revision", "rustversion"]),
    gauge(
        "langmart_prober_config_last_reload_success_timestamp_seconds",
        "Unix time of the last successful configuration load.",
        Own(|prober, page| page.value(prober.own.reloaded().map_or(0.0, unix_seconds))),
    ),
    gauge(
        "langmart_prober_config_last_reload_successful",
        "Whether the last configuration load succeeded (1) or failed (0).",
        Own(|prober, page| page.value(flag(prober.own.reload_successful()))),
    ),
    gauge(
        "langmart_prober_runs_in_flight",
        "Number of probe runs currently in progress.",
        Own(|prober, page| page.value(prober.own.runs_in_flight() as f64)),
    ),
    histogram(
        "langmart_prober_schedule_lag_seconds",
        "Delay between the scheduled and the actual start of a run.",
        Own(|prober, page| page.histogram(&prober.own.lag)),
    ),
    counter(
        "langmart_prober_task_restarts_total",
        "Number of times a task was restarted after a failure.",
        Own(|prober, page| prober.own.each_task(|task, restarts| page.each([task], restarts as f64))),
    )
    .by(&["task"]),
    counter(
        "langmart_prober_log_lines_dropped_total",
        "Lines dropped before they were written, by file.",
        Own(|prober, page| prober.own.each_file(|file, counters| page.each([file], own::dropped(counters)))),
    )
    .by(&["file"]),
    counter(
        "langmart_prober_log_write_errors_total",
        "Failed writes, by file.",
        Own(|prober, page| prober.own.each_file(|file, counters| page.each([file], own::errors(counters)))),
    )
    .by(&["file"]),
    gauge(
        "langmart_prober_log_write_in_progress_seconds",
        "Duration of the write in progress, by file; 0 if there is none.",
        Own(|prober, page| {
            prober.own.each_file(|file, counters| {
                page.each([file], counters.clock.in_progress().as_secs_f64());
            });
        }),
    )
    .by(&["file"]),
    counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        Own(|_, page| page.value(Process::cpu_seconds())),
    ),
    gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        Own(|prober, page| page.value(unix_seconds(prober.started))),
    ),
    gauge(
        "process_threads",
        "Number of OS threads in the process.",
        Own(|prober, page| page.value(prober.process.as_ref().map(|process| process.threads as f64))),
    ),
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        Own(|prober, page| page.value(prober.process.as_ref().map(|process| process.virtual_bytes as f64))),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        Own(|prober, page| page.value(prober.process.as_ref().map(Process::resident_bytes))),
    ),
    gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        Own(|_, page| page.value(Process::open_files())),
    ),
    gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        Own(|_, page| page.value(Process::max_files())),
    ),
    gauge(
        "langmart_prober_offline",
        "1 if the last run of every provider failed on the network, which points at the prober's own connection. Absent with fewer than two providers.",
        Own(|prober, page| page.value(prober.offline.map(flag))),
    ),
    gauge(
        "langmart_budget_spent_usd",
        "Estimated cost of generation checks in the current UTC day, with runs in progress counted at their maximum.",
        Own(|prober, page| page.value(prober.budget.map(|budget| budget.spent_usd))),
    ),
    gauge(
        "langmart_budget_limit_usd",
        "Configured daily cost limit. Absent if there is none.",
        Own(|prober, page| page.value(prober.limits().and_then(|Budget { daily_cost_usd, .. }| daily_cost_usd))),
    ),
    gauge(
        "langmart_budget_spent_tokens",
        "Tokens of generation checks in the current UTC day, with runs in progress counted at their maximum.",
        Own(|prober, page| page.value(prober.budget.map(|budget| budget.spent_tokens as f64))),
    ),
    gauge(
        "langmart_budget_limit_tokens",
        "Configured daily token limit. Absent if there is none.",
        Own(|prober, page| {
            let tokens = prober.limits().and_then(|Budget { daily_tokens, .. }| daily_tokens);
            page.value(tokens.map(|tokens| tokens as f64));
        }),
    ),
    gauge(
        "langmart_probe_success",
        "Whether the last run succeeded. Absent before the first run.",
        Probe(|series, page| page.value(series.last().map(|last| flag(last.reason == Reason::Ok)))),
    ),
    gauge(
        "langmart_probe_last_run_fault",
        "Party responsible for the last failure (1 for the current fault, 0 otherwise). Absent before the first run.",
        Probe(samples::last_run_fault),
    )
    .by(&["fault"]),
    counter(
        "langmart_probe_runs_total",
        "Finished runs.",
        Probe(|series, page| page.value(series.values.runs.value() as f64)),
    ),
    counter(
        "langmart_probe_failures_total",
        "Failed runs, by reason and responsible party.",
        Probe(samples::failures),
    )
    .by(&["reason", "fault"]),
    gauge(
        "langmart_probe_consecutive_down_runs",
        "Consecutive runs up to the last that failed with fault gateway, provider or network, 0 if the last did not. Absent before the first run.",
        Probe(|series, page| page.value(series.last().map(|last| last.streak.down as f64))),
    ),
    gauge(
        "langmart_probe_consecutive_failures",
        "Consecutive runs up to the last that failed with its reason and fault. Absent after a success.",
        Probe(samples::consecutive_failures),
    )
    .by(&["reason", "fault"]),
    counter(
        "langmart_probe_slow_runs_total",
        "Successful runs that took longer than the probe's slow_after. Absent without slow_after.",
        Probe(|series, page| {
            page.value(series.probe().slow_after.map(|_| series.values.slow_runs.value() as f64));
        }),
    ),
    histogram(
        "langmart_probe_duration_seconds",
        "Duration of successful runs and of those that ended at the prober's deadline.",
        Probe(|series, page| page.histogram(&series.values.duration)),
    ),
    gauge(
        "langmart_probe_last_duration_seconds",
        "Duration of the last run, successful or not.",
        Probe(|series, page| page.value(series.last().map(|last| last.duration.as_secs_f64()))),
    ),
    counter(
        "langmart_probe_phase_seconds_total",
        "Time spent in each phase of all runs.",
        Probe(|series, page| {
            for (name, sum) in Phases::NAMES.iter().zip(&series.values.phases) {
                page.each([name], sum.value());
            }
        }),
    )
    .by(&["phase"]),
    gauge(
        "langmart_probe_last_phase_duration_seconds",
        "Time spent in each phase of the last run, 0 for phases that it did not reach.",
        Probe(samples::last_phases),
    )
    .by(&["phase"]),
    counter(
        "langmart_probe_http_responses_total",
        "HTTP responses, by status code; unregistered codes share one series.",
        Probe(samples::http_responses),
    )
    .by(&["code"]),
    gauge(
        "langmart_probe_http_status_code",
        "HTTP status code of the last run, 0 without a response.",
        Probe(|series, page| page.value(series.last().map(|last| last.http_status.unwrap_or(0).into()))),
    ),
    counter(
        "langmart_probe_api_errors_total",
        "Errors by the API's own error code; unknown codes share one series.",
        Probe(|series, page| {
            for (code, count) in series.values.error_codes() {
                page.each([&code], count as f64);
            }
        }),
    )
    .by(&["code"]),
    gauge(
        "langmart_probe_retry_after_seconds",
        "Wait that the service requested in the last run, 0 if none.",
        Probe(|series, page| page.value(series.last().and_then(|last| last.retry_after).unwrap_or(0.0))),
    ),
    counter(
        "langmart_probe_retry_after_hints_total",
        "Runs in which the service requested a wait.",
        Probe(|series, page| page.value(series.values.retry_after_hints.value() as f64)),
    ),
    counter(
        "langmart_probe_retry_after_hint_seconds_total",
        "Sum of the waits that the service requested.",
        Probe(|series, page| page.value(series.values.retry_after_seconds.value())),
    ),
    counter(
        "langmart_probe_rate_limited_total",
        "Rate-limited runs, by the limit that was exceeded.",
        Probe(samples::rate_limited),
    )
    .by(&["limited_by"]),
    gauge(
        "langmart_probe_reported_processing_seconds",
        "Processing time that the service itself reported in the last run. Absent if it reported none.",
        Probe(|series, page| page.value(series.values.reported_processing.value())),
    ),
    gauge(
        "langmart_probe_model_shutdown_timestamp_seconds",
        "Announced shutdown of the model. Absent if none is announced.",
        Probe(|series, page| page.value(series.values.model_shutdown.value())),
    ),
    gauge(
        "langmart_probe_answered_model_match",
        "Whether the requested model answered, 1 or 0, in the last run that could decide it. Absent before the first.",
        Probe(|series, page| page.value(series.values.model_match.value())),
    ),
    counter(
        "langmart_probe_model_mismatches_total",
        "Runs in which another model than the requested one answered.",
        Probe(|series, page| samples::of_generation(series, page, &series.values.model_mismatches)),
    ),
    gauge(
        "langmart_probe_backoff_until_timestamp_seconds",
        "End of the probe's backoff after a rate limit or overload, 0 if it does not back off.",
        Probe(|series, page| {
            let until = series.values.backoff_until.value();
            page.value(until.filter(|until| *until > unix_seconds(page.now)).unwrap_or(0.0));
        }),
    ),
    gauge(
        "langmart_probe_next_run_timestamp_seconds",
        "Time of the next scheduled run, backoff included.",
        Probe(|series, page| page.value(series.values.next_run.value())),
    ),
    counter(
        "langmart_probe_skipped_runs_total",
        "Scheduled runs that did not take place, by cause.",
        Probe(samples::skipped_runs),
    )
    .by(&["cause"]),
    gauge(
        "langmart_probe_ratelimit_limit",
        "Maximum of a rate limit's window, as last reported; kept for two intervals.",
        Probe(|series, page| samples::rate_limits(series, page, |limit| limit.limit.map(|limit| limit as f64))),
    )
    .by(&["resource"]),
    gauge(
        "langmart_probe_ratelimit_remaining",
        "Remainder of a rate limit's window, as last reported; kept for two intervals.",
        Probe(|series, page| samples::rate_limits(series, page, |limit| limit.remaining.map(|left| left as f64))),
    )
    .by(&["resource"]),
    gauge(
        "langmart_probe_ratelimit_reset_timestamp_seconds",
        "Time at which a rate limit's window is full again, as last reported; kept for two intervals, also when it has passed.",
        Probe(|series, page| samples::rate_limits(series, page, |limit| limit.reset.map(unix_seconds))),
    )
    .by(&["resource"]),
    histogram(
        "langmart_probe_time_to_first_token_seconds",
        "Time from handing the request to the connection until the first visible content of a stream.",
        Probe(|series, page| samples::of_stream(series, page, &series.values.time_to_first_token)),
    ),
    gauge(
        "langmart_probe_last_time_to_first_token_seconds",
        "Time to first token of the last run. Absent if it had none.",
        Probe(|series, page| {
            let first = series.last().and_then(|last| last.time_to_first_token);
            page.value(first.map(|first| first.as_secs_f64()));
        }),
    ),
    histogram(
        "langmart_probe_time_per_output_token_seconds",
        "Average time between the visible tokens of a complete stream.",
        Probe(|series, page| samples::of_stream(series, page, &series.values.time_per_output_token)),
    ),
    gauge(
        "langmart_probe_stream_buffered",
        "Whether an intermediary held the stream back, 1 or 0, in the last run that could decide it. Absent before the first.",
        Probe(|series, page| page.value(series.values.buffered.value())),
    ),
    counter(
        "langmart_probe_buffered_streams_total",
        "Streams that an intermediary held back.",
        Probe(|series, page| {
            let is_stream = series.probe().check() == Check::Stream;
            page.value(is_stream.then(|| series.values.buffered_streams.value() as f64));
        }),
    ),
    counter(
        "langmart_probe_tokens_total",
        "Tokens consumed, as counted by the service, or estimated if it does not report them.",
        Probe(samples::tokens),
    )
    .by(&["direction"]),
    counter(
        "langmart_probe_cached_input_tokens_total",
        "Input tokens that the provider served from its prompt cache.",
        Probe(|series, page| samples::of_generation(series, page, &series.values.cached_input_tokens)),
    ),
    counter(
        "langmart_probe_estimated_cost_usd_total",
        "Estimated cost of the tokens, by the configured price. Absent without a price.",
        Probe(|series, page| {
            let price = series.probe().chat().and_then(|chat| chat.price);
            page.value(price.map(|_| series.values.cost.value()));
        }),
    ),
    gauge(
        "langmart_probe_tls_certificate_not_after_timestamp_seconds",
        "Earliest expiry in the certificate chain that was presented last.",
        Probe(|series, page| page.value(series.values.certificate_not_after.value())),
    ),
    gauge(
        "langmart_probe_tls_info",
        "Always 1, with TLS version and cipher suite of the last handshake.",
        Probe(|series, page| {
            if let Some((version, cipher)) = series.values.tls() {
                page.each([version, cipher], 1.0);
            }
        }),
    )
    .by(&["version", "cipher"]),
    gauge(
        "langmart_probe_dns_addresses",
        "Addresses that the system's resolver returned in the last run.",
        Probe(|series, page| {
            let system = series.values.dns_servers().first().map(|system| system.answer.as_ref().map_or(0, Vec::len));
            page.value(system.map(|addresses| addresses as f64));
        }),
    ),
    gauge(
        "langmart_probe_dns_server_success",
        "Whether a name server returned an address in the last run.",
        Probe(samples::dns_server_success),
    )
    .by(&["server"]),
    gauge(
        "langmart_probe_clock_offset_seconds",
        "Local clock minus the server's Date header, accurate to one second.",
        Probe(|series, page| page.value(series.values.clock_offset.value())),
    ),
    gauge(
        "langmart_probe_status_page_indicator",
        "Overall indicator of the status page (1 for the current one, 0 otherwise); unknown if the last run could not read it.",
        Probe(samples::status_page_indicator),
    )
    .by(&["indicator"]),
    gauge(
        "langmart_probe_status_page_open_incidents",
        "Unresolved incidents on the status page. Absent if the last run could not read it.",
        Probe(|series, page| {
            let open = series.values.status_page().as_ref().and_then(|status| status.open_incidents);
            page.value(open.map(|open| open as f64));
        }),
    ),
    gauge(
        "langmart_probe_status_page_maintenance_in_progress",
        "Whether an announced maintenance is in progress. Absent if the last run could not read the status page.",
        Probe(|series, page| {
            let status_page = series.values.status_page();
            page.value(status_page.as_ref().map(|status| flag(status.in_maintenance())));
        }),
    ),
    gauge(
        "langmart_probe_status_page_maintenance_start_timestamp_seconds",
        "Start of the announced maintenance that is in progress, else of the next one. Absent if none is announced.",
        Probe(|series, page| samples::maintenance(series, page, |maintenance| maintenance.start)),
    ),
    gauge(
        "langmart_probe_status_page_maintenance_end_timestamp_seconds",
        "End of the announced maintenance that is in progress, else of the next one. Absent if none is announced.",
        Probe(|series, page| samples::maintenance(series, page, |maintenance| maintenance.end)),
    ),
    gauge(
        "langmart_probe_status_page_component",
        "Status of a configured component on the status page (1 for the current one, 0 otherwise).",
        Probe(samples::status_page_components),
    )
    .by(&["component", "status"]),
    gauge(
        "langmart_probe_balance_usd",
        "Balance of the account, as last reported. Absent if it is unlimited or not in US dollars.",
        Probe(|series, page| page.value(series.values.balance().map(|balance| balance.usd))),
    ),
    gauge(
        "langmart_probe_balance_minimum_usd",
        "Balance below which the service refuses requests, as last reported.",
        Probe(|series, page| page.value(series.values.balance().and_then(|balance| balance.minimum_usd))),
    ),
    gauge(
        "langmart_probe_last_run_timestamp_seconds",
        "Start of the last finished run. Kept across restarts.",
        Probe(|series, page| page.value(series.values.last_run.value())),
    ),
    gauge(
        "langmart_probe_last_success_timestamp_seconds",
        "Start of the last successful run. Absent before the first. Kept across restarts.",
        Probe(|series, page| page.value(series.values.last_success.value())),
    ),
    gauge(
        "langmart_probe_interval_seconds",
        "Configured probe interval.",
        Probe(|series, page| page.value(series.probe().interval.as_secs_f64())),
    ),
    gauge(
        "langmart_probe_timeout_seconds",
        "Configured probe timeout.",
        Probe(|series, page| page.value(series.probe().timeout.as_secs_f64())),
    ),
    counter(
        "langmart_probe_rechecks_total",
        "Additional attempts after failed runs, by result. Absent without recheck.",
        Probe(samples::rechecks),
    )
    .by(&["result"]),
    gauge(
        "langmart_probe_info",
        "Always 1, with host, API, kind of connection and the configured labels.",
        Probe(|series, page| page.info(&series.info)),
    )
    .by(&["host", "api", "connection"]),
    counter(
        "langmart_comparison_pairs_total",
        "Pairs of runs that both succeeded.",
        Comparison(|series, page| page.value(series.values.pairs.value() as f64)),
    ),
    counter(
        "langmart_comparison_gateway_seconds_total",
        "Total duration of runs through the gateway, over pairs that both succeeded.",
        Comparison(|series, page| page.value(series.values.gateway.duration.value())),
    ),
    counter(
        "langmart_comparison_direct_seconds_total",
        "Total duration of direct runs, over pairs that both succeeded.",
        Comparison(|series, page| page.value(series.values.direct.duration.value())),
    ),
    counter(
        "langmart_comparison_gateway_first_token_seconds_total",
        "Total time to first token through the gateway, over pairs that both succeeded.",
        Comparison(|series, page| page.value(series.first_token(&series.values.gateway))),
    ),
    counter(
        "langmart_comparison_direct_first_token_seconds_total",
        "Total time to first token of direct runs, over pairs that both succeeded.",
        Comparison(|series, page| page.value(series.first_token(&series.values.direct))),
    ),
    gauge(
        "langmart_comparison_last_overhead_seconds",
        "Duration through the gateway minus direct duration, of the last pair that both succeeded.",
        Comparison(|series, page| page.value(series.values.last_overhead.value())),
    ),
    counter(
        "langmart_comparison_verdicts_total",
        "Pairs of runs, by verdict on the responsible party.",
        Comparison(samples::verdicts),
    )
    .by(&["verdict"]),
    gauge(
        "langmart_pool_available_ratio",
        "Share of the pool's weight held by members whose last run succeeded, among members that have run. Absent before the first run.",
        Pool(|pool, page| page.value(pool.available_ratio())),
    ),
    gauge(
        "langmart_pool_members",
        "Members by state: up or down according to the last run, unknown before the first run.",
        Pool(samples::pool_members),
    )
    .by(&["state"]),
    gauge(
        "langmart_pool_member_consecutive_failures",
        "Consecutive failed runs of the member, up to the last run. Absent before the first run.",
        Pool(samples::pool_failures),
    )
    .by(&["probe"]),
    gauge(
        "langmart_prober_shard_info",
        "Index and total of this daemon's shard. Value is always 1. Absent without a shard.",
        Own(|prober, page| {
            if let Some([index, total]) = prober.shard.map(|shard| [shard.index, shard.total].map(|n| n.to_string())) {
                page.each([&index, &total], 1.0);
            }
        }),
    )
    .by(&["index", "total"]),
];

pub(super) fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}
