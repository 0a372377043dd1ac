"""The dashboard of the prober itself: can its results be trusted?"""

from .parts import (
    GREY,
    PLAIN,
    PROBER,
    WRONG_IF_ANY,
    Json,
    bars,
    count,
    dashboard,
    gauges,
    lines,
    now,
    row,
    stat,
    states,
    steps,
    target,
    variables,
)

BY_INSTANCE = "{{instance}}"
OVERDUE = (
    f"timestamp(langmart_probe_next_run_timestamp_seconds{{{PROBER}}})"
    f" - langmart_probe_next_run_timestamp_seconds{{{PROBER}}}"
)


def state_now() -> list[Json]:
    """Returns the row of values at the top."""

    def recent(title: str, description: str, expr: str) -> Json:
        return stat(
            title,
            description,
            [now(f"round(sum by (instance) (increase({expr}[1h])))", BY_INSTANCE)],
            3,
            decimals=0,
            thresholds=WRONG_IF_ANY,
            text="value",
        )

    grey = steps((None, GREY))
    return [
        stat(
            "Scraped",
            "Whether Prometheus can scrape the prober.",
            [now(f"min by (instance) (up{{{PROBER}}})", BY_INSTANCE)],
            3,
            mappings=states(("0", "down", "red"), ("1", "up", "green")),
            thresholds=grey,
            text="value",
        ),
        stat(
            "Network",
            "Offline if the last run of every provider failed on the network. Absent with fewer"
            " than two providers.",
            [now(f"max by (instance) (langmart_prober_offline{{{PROBER}}})", BY_INSTANCE)],
            3,
            mappings=states(("0", "online", "green"), ("1", "offline", "red")),
            thresholds=grey,
            noValue="one provider",
            text="value",
        ),
        stat(
            "Last reload",
            "Failed: the file is invalid, and the previous configuration is in use.",
            [
                now(
                    "min by (instance)"
                    f" (langmart_prober_config_last_reload_successful{{{PROBER}}})",
                    BY_INSTANCE,
                )
            ],
            3,
            mappings=states(("0", "failed", "red"), ("1", "ok", "green")),
            thresholds=grey,
            text="value",
        ),
        stat(
            "Loaded, ago",
            "Time since the last successful load.",
            [
                now(
                    "min by (instance) (time() -"
                    " langmart_prober_config_last_reload_success_timestamp_seconds"
                    f"{{{PROBER}}})",
                    BY_INSTANCE,
                )
            ],
            3,
            unit="s",
            decimals=0,
            thresholds=PLAIN,
            colored="value",
            text="value",
        ),
        stat(
            "Running for",
            "Time since the process started.",
            [
                now(
                    f"min by (instance) (time() - process_start_time_seconds{{{PROBER}}})",
                    BY_INSTANCE,
                )
            ],
            3,
            unit="s",
            decimals=0,
            thresholds=PLAIN,
            colored="value",
            text="value",
        ),
        stat(
            "Version",
            "Version of the running program.",
            [
                now(
                    f"max by (instance, version) (langmart_prober_build_info{{{PROBER}}})",
                    "{{version}}",
                )
            ],
            3,
            thresholds=PLAIN,
            colored="value",
            text="name",
        ),
        recent(
            "Prober failures, 1 h",
            "Runs that failed for lack of descriptors, memory or local ports.",
            f'langmart_probe_failures_total{{{PROBER},fault="prober"}}',
        ),
        recent(
            "Lines lost, 1 h",
            "Lines of the log and the records that were dropped before they were written.",
            f"langmart_prober_log_lines_dropped_total{{{PROBER}}}",
        ),
    ]


def schedule() -> list[Json]:
    """Returns the panels of the schedule."""

    def lag(share: float) -> str:
        return (
            f"histogram_quantile({share}, sum by (instance, le)"
            f" (rate(langmart_prober_schedule_lag_seconds_bucket{{{PROBER}}}[$__rate_interval])))"
        )

    return [
        lines(
            "Runs per minute",
            "Finished runs, and those that failed for any reason.",
            [
                target(
                    "60 * sum by (instance)"
                    f" (rate(langmart_probe_runs_total{{{PROBER}}}[$__rate_interval]))",
                    BY_INSTANCE,
                ),
                target(
                    "60 * sum by (instance)"
                    f" (rate(langmart_probe_failures_total{{{PROBER}}}[$__rate_interval]))",
                    "{{instance}}: failed",
                ),
            ],
            unit="none",
            interval="5m",
        ),
        lines(
            "Schedule lag",
            "Delay between scheduled and actual start of a run.",
            [
                target(lag(0.5), "{{instance}}: median"),
                target(lag(0.99), "{{instance}}: 99 %"),
            ],
            unit="s",
        ),
        lines(
            "Most overdue run",
            "Time by which the next run of any probe is overdue; an alert reports stuck probes.",
            [target(f"max by (instance) (clamp_min({OVERDUE}, 0))", BY_INSTANCE)],
            unit="s",
        ),
        lines(
            "Runs in flight",
            "Limited by schedule.max_concurrent.",
            [target(f"langmart_prober_runs_in_flight{{{PROBER}}}", BY_INSTANCE)],
            decimals=0,
        ),
        bars(
            "Skipped runs by cause",
            "Scheduled runs that did not take place.",
            [
                target(
                    count("langmart_probe_skipped_runs_total", "instance, cause", PROBER),
                    "{{instance}}: {{cause}}",
                )
            ],
        ),
        bars(
            "Rechecks by result",
            "Attempts after a failure, outside the schedule.",
            [
                target(
                    count("langmart_probe_rechecks_total", "instance, result", PROBER),
                    "{{instance}}: {{result}}",
                )
            ],
        ),
    ]


def budget() -> list[Json]:
    """Returns the panels of the daily budget."""
    used = steps((None, "green"), (0.8, "orange"), (1, "red"))
    return [
        gauges(
            "Daily budget used",
            "Share of the limits that generation checks have spent since midnight UTC.",
            [
                now(
                    f"max by (instance) (langmart_budget_spent_usd{{{PROBER}}}"
                    f" / langmart_budget_limit_usd{{{PROBER}}})",
                    "{{instance}}: cost",
                ),
                now(
                    f"max by (instance) (langmart_budget_spent_tokens{{{PROBER}}}"
                    f" / langmart_budget_limit_tokens{{{PROBER}}})",
                    "{{instance}}: tokens",
                ),
            ],
            8,
            8,
            unit="percentunit",
            min=0,
            max=1,
            decimals=1,
            thresholds=used,
            noValue="no limit configured",
        ),
        lines(
            "Cost since midnight UTC",
            "Spending of generation checks and its limit.",
            [
                target(f"langmart_budget_spent_usd{{{PROBER}}}", BY_INSTANCE),
                target(f"langmart_budget_limit_usd{{{PROBER}}}", "{{instance}}: limit"),
            ],
            unit="currencyUSD",
        ),
        lines(
            "Tokens since midnight UTC",
            "Tokens of generation checks and their limit.",
            [
                target(f"langmart_budget_spent_tokens{{{PROBER}}}", BY_INSTANCE),
                target(f"langmart_budget_limit_tokens{{{PROBER}}}", "{{instance}}: limit"),
            ],
        ),
    ]


def process() -> list[Json]:
    """Returns the panels of the process."""
    files = f"langmart_prober_log_lines_dropped_total{{{PROBER}}}"
    return [
        bars(
            "Lost lines and failed writes",
            "Of the log and the records.",
            [
                target(
                    f"round(sum by (instance, file) (increase({files}[$__rate_interval]))) > 0",
                    "{{instance}}: {{file}} lost",
                ),
                target(
                    count("langmart_prober_log_write_errors_total", "instance, file", PROBER),
                    "{{instance}}: {{file}} failed",
                ),
            ],
        ),
        bars(
            "Task restarts",
            "Parts that panicked: a bug; the log has the details.",
            [
                target(
                    count("langmart_prober_task_restarts_total", "instance, task", PROBER),
                    "{{instance}}: {{task}}",
                )
            ],
        ),
        lines(
            "Clock offset",
            "Local clock minus the services', median of the probes, accurate to one second.",
            [
                target(
                    "quantile by (instance) (0.5,"
                    f" langmart_probe_clock_offset_seconds{{{PROBER}}})",
                    BY_INSTANCE,
                )
            ],
            unit="s",
        ),
        lines(
            "CPU",
            "Share of one core.",
            [target(f"rate(process_cpu_seconds_total{{{PROBER}}}[$__rate_interval])", BY_INSTANCE)],
            6,
            unit="percentunit",
        ),
        lines(
            "Memory",
            "Resident memory.",
            [target(f"process_resident_memory_bytes{{{PROBER}}}", BY_INSTANCE)],
            6,
            unit="bytes",
        ),
        gauges(
            "File descriptors used",
            "Share of the limit.",
            [
                now(
                    f"process_open_fds{{{PROBER}}} / process_max_fds{{{PROBER}}}",
                    BY_INSTANCE,
                )
            ],
            6,
            8,
            unit="percentunit",
            min=0,
            max=1,
            decimals=1,
            thresholds=steps((None, "green"), (0.7, "orange"), (0.9, "red")),
        ),
        lines(
            "Scrape duration",
            "Of /metrics, as Prometheus measures it.",
            [target(f"scrape_duration_seconds{{{PROBER}}}", BY_INSTANCE)],
            6,
            unit="s",
        ),
    ]


def prober() -> Json:
    """Returns the dashboard of the prober itself."""
    return dashboard(
        "langmart-prober-self",
        "LLM services: the prober itself",
        "Can the prober's results be trusted?",
        variables(of_probes=False),
        [
            *state_now(),
            row("Schedule"),
            *schedule(),
            row("Budget"),
            *budget(),
            row("Process"),
            *process(),
        ],
    )
