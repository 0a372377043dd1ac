"""The dashboard of single probes: why does this probe or provider fail, or is it slow?"""

from .failures import failing_now
from .overview import DURATION, FIRST_TOKEN, PER_TOKEN, gateway_overhead
from .parts import (
    GREY,
    PLAIN,
    PROBE,
    PROBER,
    Json,
    bars,
    count,
    dashboard,
    fault_state,
    fault_states,
    gauges,
    lines,
    now,
    painted,
    quantile,
    row,
    stat,
    states,
    steps,
    target,
    timeline,
    variables,
)

BY_PROBE = "{{probe}}"

# Colours of the phases, none of which means that something is wrong.
PHASES = [
    ("resolve", "#8ab8ff"),
    ("connect", "#3274d9"),
    ("tls", "#1f60c4"),
    ("processing", "#6ed0e0"),
    ("transfer", "#a352cc"),
]


def by_probe(function: str, metric: str) -> str:
    """Returns one value for each probe, of several probers the one that a function selects."""
    return f"{function} by (probe) ({metric}{{{PROBE}}})"


def state_now() -> list[Json]:
    """Returns the row of values at the top."""
    ago: Json = {"unit": "s", "decimals": 0, "colored": "value", "thresholds": PLAIN}
    return [
        stat(
            "State",
            "Fault of the last run.",
            [now(fault_state("probe"), BY_PROBE)],
            4,
            mappings=fault_states(),
            thresholds=steps((None, GREY)),
        ),
        stat(
            "Consecutive failures",
            "Up to the last run, with the same reason; 0 after a success.",
            [
                now(
                    f"max by (probe) (langmart_probe_consecutive_failures{{{PROBE}}}"
                    f" or 0 * langmart_probe_success{{{PROBE}}})",
                    BY_PROBE,
                )
            ],
            4,
            decimals=0,
            thresholds=steps((None, "green"), (1, "orange"), (3, "red")),
        ),
        stat(
            "HTTP status",
            "Of the last run; 0 without a response.",
            [now(by_probe("max", "langmart_probe_http_status_code"), BY_PROBE)],
            4,
            unit="none",
            decimals=0,
            mappings=states(("0", "none", GREY)),
            thresholds=steps((None, "green"), (300, "orange"), (400, "red")),
        ),
        stat(
            "Last success",
            "Time since the last successful run.",
            [
                now(
                    "min by (probe) (time() -"
                    f" langmart_probe_last_success_timestamp_seconds{{{PROBE}}})",
                    BY_PROBE,
                )
            ],
            4,
            noValue="never",
            **ago,
        ),
        stat(
            "Last run, ago",
            "Time since the start of the last finished run.",
            [
                now(
                    "min by (probe) (time() -"
                    f" langmart_probe_last_run_timestamp_seconds{{{PROBE}}})",
                    BY_PROBE,
                )
            ],
            4,
            noValue="never",
            **ago,
        ),
        stat(
            "Next run",
            "Time until the next scheduled run, backoff included.",
            [
                now(
                    "max by (probe) (clamp_min(langmart_probe_next_run_timestamp_seconds"
                    f"{{{PROBE}}} - time(), 0))",
                    BY_PROBE,
                )
            ],
            4,
            **ago,
        ),
    ]  # fmt: skip


def time() -> list[Json]:
    """Returns the panels of durations and speed."""
    points = {
        "matcher": {"id": "byRegexp", "options": ".*: last"},
        "properties": [
            {"id": "custom.drawStyle", "value": "points"},
            {"id": "custom.pointSize", "value": 4},
        ],
    }

    def percentiles(metric: str, last: str) -> list[Json]:
        return [
            target(quantile(0.5, metric, "probe", "1h"), "{{probe}}: median"),
            target(quantile(0.95, metric, "probe", "1h"), "{{probe}}: 95 %"),
            target(by_probe("max", last), "{{probe}}: last"),
        ]

    return [
        lines(
            "Duration",
            "Median and 95th percentile of an hour's successful runs and of those that hit the"
            " prober's deadline; points: single runs, failures included.",
            percentiles(DURATION, "langmart_probe_last_duration_seconds"),
            12,
            9,
            "s",
            overrides=[points],
        ),
        lines(
            "First token",
            "From handing the request to the connection to the first visible content of a stream.",
            percentiles(FIRST_TOKEN, "langmart_probe_last_time_to_first_token_seconds"),
            12,
            9,
            "s",
            noValue="no stream",
            overrides=[points],
        ),
        lines(
            "Phases of the last run",
            "Mean of the selected probes; the sum is the duration.",
            [
                target(
                    f"avg by (phase) (langmart_probe_last_phase_duration_seconds{{{PROBE}}})",
                    "{{phase}}",
                )
            ],
            8,
            9,
            "s",
            custom={"fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}},
            overrides=[painted(f"^{phase}$", color) for phase, color in PHASES],
        ),
        lines(
            "Output speed, tokens per second",
            "Mean of an hour, without the time to the first token.",
            [
                target(
                    f"sum by (probe) (increase({PER_TOKEN}_count{{{PROBE}}}[1h]))\n"
                    f"/ (sum by (probe) (increase({PER_TOKEN}_sum{{{PROBE}}}[1h])) > 0)",
                    BY_PROBE,
                )
            ],
            8,
            9,
            "none",
            noValue="no stream",
        ),
        lines(
            "Processing, measured and reported",
            "Time from the request to the response's headers, and what the service reports of it.",
            [
                target(
                    "max by (probe) (langmart_probe_last_phase_duration_seconds{"
                    f'{PROBE},phase="processing"}})',
                    "{{probe}}: measured",
                ),
                target(
                    by_probe("max", "langmart_probe_reported_processing_seconds"),
                    "{{probe}}: reported",
                ),
            ],
            8,
            9,
            "s",
        ),
    ]


def failures() -> list[Json]:
    """Returns the panels of failures."""
    return [
        bars(
            "Failed runs by reason",
            "Number of failed runs.",
            [
                target(
                    count("langmart_probe_failures_total", "reason, fault"),
                    "{{reason}} ({{fault}})",
                )
            ],
            12,
        ),
        bars(
            "Responses by HTTP status",
            "Number of responses.",
            [target(count("langmart_probe_http_responses_total", "code"), "{{code}}")],
            12,
            overrides=[painted("^2", "green"), painted("^3", "orange")],
        ),
        bars(
            "Error codes of the API",
            "As named by the bodies of failed responses; unknown codes are other.",
            [target(count("langmart_probe_api_errors_total", "code"), "{{code}}")],
        ),
        bars(
            "Rate-limited runs by exceeded limit",
            "Number of runs.",
            [target(count("langmart_probe_rate_limited_total", "limited_by"), "{{limited_by}}")],
        ),
        bars(
            "Skipped runs by cause",
            "Scheduled runs that did not take place.",
            [target(count("langmart_probe_skipped_runs_total", "cause"), "{{cause}}")],
        ),
    ]


def findings() -> list[Json]:
    """Returns the panels of models, streams and comparisons."""
    yes_no = [
        (
            "Requested model answers",
            "langmart_probe_answered_model_match",
            [("0", "another model", "orange"), ("1", "requested model", "green")],
            "Of the last run that could decide it.",
            "no run decided it",
        ),
        (
            "Streams held back",
            "langmart_probe_stream_buffered",
            [("0", "streamed", "green"), ("1", "buffered", "orange")],
            "Whether an intermediary collected the stream before it passed it on.",
            "no stream",
        ),
    ]
    return [
        *[
            timeline(
                title,
                description,
                [target(by_probe("max", metric), BY_PROBE)],
                8,
                7,
                mappings=states(*texts),
                thresholds=steps((None, GREY)),
                noValue=without,
            )
            for title, metric, texts, description, without in yes_no
        ],
        stat(
            "Model shuts down in",
            "Time until the announced shutdown of the model.",
            [
                now(
                    f"min by (model) (langmart_probe_model_shutdown_timestamp_seconds{{{PROBE}}}"
                    " - time())",
                    "{{model}}",
                )
            ],
            8,
            7,
            unit="s",
            decimals=0,
            noValue="none announced",
            thresholds=steps((None, "red"), (14 * 86400, "orange"), (60 * 86400, "green")),
        ),
        gateway_overhead(12, 8),
        bars(
            "Verdicts of comparisons",
            "Number of pairs of runs, by responsible party.",
            [
                target(
                    count("langmart_comparison_verdicts_total", "comparison, verdict", PROBER),
                    "{{comparison}}: {{verdict}}",
                )
            ],
            12,
            overrides=[
                painted(": ok$", "green"),
                painted(": provider_fault$", "purple"),
                painted(": inconclusive$", GREY),
            ],
        ),
    ]


def limits() -> list[Json]:
    """Returns the panels of limits and cost."""
    return [
        gauges(
            "Rate limit left",
            "Share left of each limit, as last reported.",
            [
                now(
                    "min by (probe, resource)"
                    f" (langmart_probe_ratelimit_remaining{{{PROBE}}}"
                    f" / (langmart_probe_ratelimit_limit{{{PROBE}}} > 0))",
                    "{{probe}} {{resource}}",
                )
            ],
            8,
            8,
            unit="percentunit",
            min=0,
            max=1,
            decimals=0,
            thresholds=steps((None, "red"), (0.1, "orange"), (0.25, "green")),
            noValue="none reported",
        ),
        lines(
            "Requested wait",
            "Retry-After or an equivalent of the last run, 0 if none.",
            [target(by_probe("max", "langmart_probe_retry_after_seconds"), BY_PROBE)],
            unit="s",
        ),
        lines(
            "Balance",
            "Balance of the account, as last reported.",
            [target(f"min by (provider) (langmart_probe_balance_usd{{{PROBE}}})", "{{provider}}")],
            unit="currencyUSD",
            noValue="none reported",
        ),
        lines(
            "Cost per day, at the last hour's rate",
            "Estimated from the configured prices, at the rate of the last hour.",
            [
                target(
                    "sum by (probe)"
                    f" (rate(langmart_probe_estimated_cost_usd_total{{{PROBE}}}[1h])) * 86400",
                    BY_PROBE,
                )
            ],
            unit="currencyUSD",
            noValue="no generation check with a price",
        ),
        lines(
            "Tokens per hour",
            "Consumed by the selected probes, by direction.",
            [
                target(
                    f"sum by (direction) (rate(langmart_probe_tokens_total{{{PROBE}}}[1h])) * 3600",
                    "{{direction}}",
                ),
                target(
                    f"sum (rate(langmart_probe_cached_input_tokens_total{{{PROBE}}}[1h])) * 3600",
                    "input from the prompt cache",
                ),
            ],
            noValue="no generation check",
        ),
        lines(
            "Slow runs",
            "Share of an hour's successful runs that took longer than the probe's slow_after.",
            [target(by_probe("max", "langmart_probe:slow_runs:ratio1h"), BY_PROBE)],
            unit="percentunit",
            max=1,
            noValue="no slow_after configured",
        ),
    ]


def network() -> list[Json]:
    """Returns the panels of certificates, name servers and status pages."""
    indicators = [
        ("0", "none", "green"),
        ("1", "minor", "yellow"),
        ("2", "maintenance", "blue"),
        ("3", "major", "orange"),
        ("4", "critical", "red"),
        ("5", "unknown", GREY),
    ]
    indicator = "\n  or ".join(
        f'{number} * (langmart_probe_status_page_indicator{{{PROBE},indicator="{name}"}} == 1)'
        for number, name, _ in indicators
    )
    return [
        stat(
            "Certificate expires in",
            "Time until the earliest certificate of the chain expires.",
            [
                now(
                    "min by (provider)"
                    f" (langmart_probe_tls_certificate_not_after_timestamp_seconds{{{PROBE}}}"
                    " - time())",
                    "{{provider}}",
                )
            ],
            8,
            7,
            unit="s",
            decimals=0,
            noValue="no TLS",
            thresholds=steps((None, "red"), (7 * 86400, "orange"), (21 * 86400, "green")),
        ),
        timeline(
            "Name servers",
            "Whether each server returned an address in the last run.",
            [
                target(
                    f"min by (provider, server) (langmart_probe_dns_server_success{{{PROBE}}})",
                    "{{provider}} {{server}}",
                )
            ],
            8,
            7,
            mappings=states(("0", "no address", "red"), ("1", "ok", "green")),
            thresholds=steps((None, GREY)),
            noValue="no server configured",
        ),
        timeline(
            "Status pages",
            "Overall indicator of each page.",
            [target(f"max by (provider) (\n  {indicator}\n)", "{{provider}}")],
            8,
            7,
            mappings=states(*indicators),
            thresholds=steps((None, GREY)),
            noValue="no status page",
        ),
    ]


def drill_down(runbooks: str) -> Json:
    """Returns the dashboard of single probes."""
    return dashboard(
        "langmart-prober-probe",
        "LLM services: one probe or provider",
        "Why does this probe fail, or why is it slow?",
        variables(all_probes=False),
        [
            *state_now(),
            failing_now(runbooks, 24, 5),
            timeline(
                "State over time",
                "Fault of each probe's last run.",
                [target(fault_state("probe"), BY_PROBE)],
                24,
                5,
                mappings=fault_states(),
                thresholds=steps((None, GREY)),
            ),
            row("Failures"),
            *failures(),
            row("Time"),
            *time(),
            row("Model, stream, gateway"),
            *findings(),
            row("Limits and cost"),
            *limits(),
            row("Network and status page"),
            *network(),
        ],
    )
