"""The dashboard of all services: is anything wrong now, whose fault is it, and since when?"""

from .failures import failing_now, firing_alerts
from .parts import (
    ALERTS,
    DOUBTFUL_IF_ANY,
    FAULTS,
    GENERATION,
    GREY,
    PROBE,
    PROBER,
    WRONG_IF_ANY,
    Json,
    bars,
    column,
    count,
    dashboard,
    fault_state,
    fault_states,
    gauges,
    lines,
    link,
    now,
    override,
    quantile,
    row,
    stat,
    states,
    steps,
    table,
    target,
    timeline,
    variables,
)

FIRST_TOKEN = "langmart_probe_time_to_first_token_seconds"
DURATION = "langmart_probe_duration_seconds"
PER_TOKEN = "langmart_probe_time_per_output_token_seconds"

# Colours of a fault where it is the name of a series.
FAULT_COLOURS = [
    override(name, color={"mode": "fixed", "fixedColor": color}, displayName=text)
    for name, text, color in FAULTS
]


def or_zero(expr: str) -> str:
    """Returns 0 if an expression has no result, unless there is no probe at all."""
    return f"sum({expr}) or 0 * count(langmart_probe_info{{{PROBE}}})"


def slowdown() -> str:
    """Returns the median of 15 minutes relative to that of the dashboard's time range."""
    by = "job, instance, probe, provider, model"
    selector = f"{PROBE},{GENERATION}"
    return (
        f"({quantile(0.5, DURATION, by, '15m', selector)})\n/\n"
        f"({quantile(0.5, DURATION, by, '$__range', selector)})"
    )


def state_now() -> list[Json]:
    """Returns the row of numbers at the top."""
    alerts = f'ALERTS{{{ALERTS},alertstate="firing",severity="%s"}}'
    return [
        stat(
            "Probes",
            "Result of each probe's last run.",
            [
                now(f"sum(langmart_probe_success{{{PROBE}}})", "working"),
                now(or_zero(f"1 - langmart_probe_success{{{PROBE}}}"), "failing"),
                now(
                    f"count(langmart_probe_info{{{PROBE}}})"
                    f" - (count(langmart_probe_success{{{PROBE}}}) or vector(0))",
                    "not run yet",
                ),
            ],
            6,
            thresholds=WRONG_IF_ANY,
            overrides=[
                override("working", thresholds=steps((None, GREY), (1, "green"))),
                override("not run yet", thresholds=steps((None, GREY))),
            ],
        ),
        stat(
            "Failing probes by responsible party",
            "Our side is the caller: key, credit, limits or the probe itself.",
            [
                now(
                    f'sum by (fault) (langmart_probe_last_run_fault{{{PROBE},fault="{name}"}})',
                    "{{fault}}",
                )
                for name, _, _ in reversed(FAULTS)
                if name != "none"
            ],
            8,
            thresholds=WRONG_IF_ANY,
            overrides=[
                override(name, displayName=text, thresholds=steps((None, "green"), (1, color)))
                for name, text, color in FAULTS
            ],
        ),
        stat(
            "Slower than usual",
            "Chat and stream probes whose median of 15 minutes is 1.3 times that of the range.",
            [now(or_zero(f"({slowdown()}) > bool 1.3"))],
            3,
            thresholds=DOUBTFUL_IF_ANY,
        ),
        stat(
            "Alerts firing",
            "Critical alerts page; a warning is a ticket.",
            [
                now(or_zero(alerts % "critical"), "critical"),
                now(or_zero(alerts % "warning"), "warning"),
            ],
            4,
            thresholds=WRONG_IF_ANY,
            overrides=[override("warning", thresholds=DOUBTFUL_IF_ANY)],
        ),
        stat(
            "Prober",
            "Offline: no service can be reached, so that its results do not count.",
            [
                now(
                    f"max by (instance) (2 * (langmart_prober_offline{{{PROBER}}} == 1)"
                    f" or up{{{PROBER}}})",
                    "{{instance}}",
                )
            ],
            3,
            mappings=states(("0", "down", "red"), ("1", "up", "green"), ("2", "offline", "orange")),
            thresholds=steps((None, GREY)),
            text="value",
        ),
    ]


def findings() -> Json:
    """Returns the panel of what deserves attention although runs succeed."""
    return stat(
        "Findings about services",
        "They fail no run: another model answers, an intermediary holds streams back, the status"
        " page reports an incident or a maintenance, a model shuts down within 60 days, a"
        " certificate expires within 21 days, less than 10 % of a rate limit is left, probes back"
        " off.",
        [
            now(
                or_zero(f"langmart_probe_answered_model_match{{{PROBE}}} == bool 0"), "wrong model"
            ),
            now(or_zero(f"langmart_probe_stream_buffered{{{PROBE}}}"), "buffered stream"),
            now(
                or_zero(
                    f"langmart_probe_status_page_indicator{{{PROBE},"
                    'indicator=~"minor|major|critical"}'
                ),
                "incident",
            ),
            now(
                or_zero(f"langmart_probe_status_page_maintenance_in_progress{{{PROBE}}}"),
                "maintenance",
            ),
            now(
                or_zero(
                    f"langmart_probe_model_shutdown_timestamp_seconds{{{PROBE}}}"
                    " < bool time() + 60 * 86400"
                ),
                "model retires",
            ),
            now(
                or_zero(
                    "min by (provider)"
                    f" (langmart_probe_tls_certificate_not_after_timestamp_seconds{{{PROBE}}})"
                    " < bool time() + 21 * 86400"
                ),
                "certificate",
            ),
            now(
                or_zero(
                    f"min by (provider, resource) (langmart_probe_ratelimit_remaining{{{PROBE}}}"
                    f" / (langmart_probe_ratelimit_limit{{{PROBE}}} > 0)) < bool 0.1"
                ),
                "rate limit low",
            ),
            now(
                or_zero(f"langmart_probe_backoff_until_timestamp_seconds{{{PROBE}}} > bool time()"),
                "backing off",
            ),
        ],
        7,
        7,
        thresholds=DOUBTFUL_IF_ANY,
        colored="value",
        orientation="auto",
        size=26,
        names=12,
    )


def availability() -> list[Json]:
    """Returns the panels of availability."""
    budget = (
        "1 - sum by (provider)"
        f" (sum_over_time(langmart_probe:errors:increase1h{{{PROBE}}}[30d:1h]))\n"
        "/ (scalar(1 - langmart:slo_objective:ratio) * sum by (provider)"
        f' (30 * 86400 / langmart_probe_interval_seconds{{{PROBE},check!="status"}}))'
    )
    failed = f"1 - avg by (provider, model) (langmart_probe:availability_by_run:ratio1h{{{PROBE}}})"
    dashed = {"lineStyle": {"fill": "dash", "dash": [10, 10]}, "lineWidth": 2}
    return [
        gauges(
            "Availability of services, 3 days",
            "Share of runs without fault gateway, provider or network, excluding time offline; a"
            " rejected key or exhausted credit is our side's. Green from 99 %; the scale begins at"
            " 98 %.",
            [
                now(
                    "avg by (provider, model)"
                    f" (langmart_probe:availability_by_run:ratio3d{{{PROBE}}})",
                    "{{provider}} {{model}}",
                )
            ],
            11,
            9,
            unit="percentunit",
            min=0.98,
            max=1,
            decimals=2,
            thresholds=steps((None, "red"), (0.98, "orange"), (0.99, "green")),
        ),
        gauges(
            "Error budget left of 30 days",
            "Share left of the failures that the objective allows in 30 days; below zero it is"
            " overspent.",
            [now(budget, "{{provider}}")],
            5,
            9,
            unit="percentunit",
            min=0,
            max=1,
            decimals=0,
            thresholds=steps((None, "red"), (0, "orange"), (0.25, "green")),
        ),
        lines(
            "Failed share of an hour's runs",
            "Failures with fault gateway, provider or network, on a logarithmic scale; dashed: what"
            " the objective allows.",
            [
                target(failed, "{{provider}} {{model}}"),
                target("1 - langmart:slo_objective:ratio", "allowed"),
            ],
            8,
            9,
            "percentunit",
            min=0,
            max=1,
            legend=None,
            # The mark of the axis below zero.
            mappings=[
                {"type": "range", "options": {"from": -1, "to": -1e-9, "result": {"text": " "}}}
            ],
            custom={
                "scaleDistribution": {"type": "symlog", "log": 10, "linearThreshold": 0.001},
            },
            overrides=[
                override(
                    "allowed",
                    color={"mode": "fixed", "fixedColor": "text"},
                    **{f"custom_{key}": value for key, value in dashed.items()},
                )
            ],
        ),
    ]


def speed() -> list[Json]:
    """Returns the panels of speed."""
    by = "job, instance, probe, provider, model"
    of = f"{PROBE},{GENERATION}"

    def values(expr: str) -> Json:
        # Not those of probes that were removed.
        there = f"langmart_probe_info{{{of}}}"
        return target(f"({expr})\nand on (job, instance, probe) {there}", table=True)

    per_second = (
        f"sum by ({by}) (increase({PER_TOKEN}_count{{{of}}}[1h]))\n"
        f"/ (sum by ({by}) (increase({PER_TOKEN}_sum{{{of}}}[1h])) > 0)"
    )
    drill_down = (
        "/d/langmart-prober-probe?var-datasource=${datasource}&var-job=${__data.fields.job}"
        "&var-instance=${__data.fields.instance}&var-probe=${__value.raw}&${__url_time_range}"
    )
    service = "{{provider}} {{model}}"
    slow = steps((None, GREY), (0, "green"), (1.3, "orange"), (2, "red"))
    return [
        table(
            "Speed of chat and stream probes",
            "Medians of 15 minutes and 95th percentiles of an hour, of successful runs. Against"
            " usual: the duration's median of 15 minutes relative to that of the time range.",
            [
                values(quantile(0.5, DURATION, by, "15m", of)),
                values(quantile(0.95, DURATION, by, "1h", of)),
                values(slowdown()),
                values(quantile(0.5, FIRST_TOKEN, by, "15m", of)),
                values(quantile(0.95, FIRST_TOKEN, by, "1h", of)),
                values(per_second),
            ],
            24,
            8,
            [
                column("probe", "Probe", links=[link("Details of this probe", drill_down)]),
                column("provider", "Provider", 90),
                column("model", "Model", 205),
                column(
                    "Value #C", "Against usual", 115, unit="×", decimals=2, thresholds=slow,
                    custom_cellOptions={"type": "color-text"},
                ),
                column("Value #A", "Duration, median", 135, unit="s", decimals=2),
                column("Value #B", "Duration, 95 %", 120, unit="s", decimals=2),
                column("Value #D", "First token, median", 150, unit="s", decimals=2),
                column("Value #E", "First token, 95 %", 130, unit="s", decimals=2),
                column("Value #F", "Tokens per second", 140, unit="none", decimals=0),
                column("instance", "Prober", 135),
                override("job", custom_hidden=True, custom_hideFrom={"viz": True}),
            ],
            sort={"displayName": "Against usual", "desc": True},
        ),
        lines(
            "First token, median of an hour",
            "From handing the request to the connection to the first visible content.",
            [target(quantile(0.5, FIRST_TOKEN, "provider, model", "1h"), service)],
            8,
            9,
            "s",
        ),
        lines(
            "First token, 95th percentile of an hour",
            "From handing the request to the connection to the first visible content.",
            [target(quantile(0.95, FIRST_TOKEN, "provider, model", "1h"), service)],
            8,
            9,
            "s",
        ),
        gateway_overhead(8, 9),
    ]  # fmt: skip


def gateway_overhead(width: int, height: int) -> Json:
    """Returns the panel of the time that the gateway adds."""
    return lines(
        "Gateway overhead, mean of an hour",
        "Gateway minus direct, over pairs in which both succeeded.",
        [
            target(f"langmart_comparison:overhead_seconds:mean1h{{{PROBER}}}", "{{comparison}}"),
            target(
                f"langmart_comparison:first_token_overhead_seconds:mean1h{{{PROBER}}}",
                "{{comparison}}: first token",
            ),
        ],
        width,
        height,
        "s",
    )


def limits() -> list[Json]:
    """Returns the panels of limits, cost and pools."""
    return [
        gauges(
            "Rate limit left",
            "Smallest share left of each limit, as last reported.",
            [
                now(
                    f"min by (provider, resource) (langmart_probe_ratelimit_remaining{{{PROBE}}}"
                    f" / (langmart_probe_ratelimit_limit{{{PROBE}}} > 0))",
                    "{{provider}} {{resource}}",
                )
            ],
            12,
            7,
            unit="percentunit",
            min=0,
            max=1,
            decimals=0,
            thresholds=steps((None, "red"), (0.1, "orange"), (0.25, "green")),
            noValue="none reported",
        ),
        gauges(
            "Available share of pools",
            "Share of the pool's members that work, by weight.",
            [now(f"langmart_pool_available_ratio{{{PROBER}}}", "{{pool}}")],
            12,
            7,
            unit="percentunit",
            min=0,
            max=1,
            decimals=0,
            thresholds=steps((None, "red"), (0.5, "orange"), (1, "green")),
            noValue="no pool configured",
        ),
        lines(
            "Cost per day, at the last hour's rate",
            "Estimated from the configured prices, at the rate of the last hour.",
            [
                target(
                    "sum by (provider, model)"
                    f" (rate(langmart_probe_estimated_cost_usd_total{{{PROBE}}}[1h])) * 86400",
                    "{{provider}} {{model}}",
                )
            ],
            12,
            7,
            "currencyUSD",
        ),
        lines(
            "Input from the prompt cache",
            "Share of an hour's input tokens that the provider served from its cache.",
            [
                target(
                    "sum by (provider, model)"
                    f" (increase(langmart_probe_cached_input_tokens_total{{{PROBE}}}[1h]))\n"
                    "/ (sum by (provider, model) (increase(langmart_probe_tokens_total{"
                    f'{PROBE},direction="input"}}[1h])) > 0)',
                    "{{provider}} {{model}}",
                )
            ],
            12,
            7,
            "percentunit",
            max=1,
        ),
    ]


def overview(runbooks: str) -> Json:
    """Returns the dashboard of all services."""
    return dashboard(
        "langmart-prober-overview",
        "LLM services: overview",
        "Is anything wrong now, whose fault is it, and since when?",
        variables(),
        [
            *state_now(),
            failing_now(runbooks, 24, 8),
            firing_alerts(runbooks, 17, 7),
            findings(),
            timeline(
                "State by provider and model",
                "Most important fault of the last runs.",
                [target(fault_state("provider, model"), "{{provider}} {{model}}")],
                24,
                10,
                mappings=fault_states(),
                thresholds=steps((None, GREY)),
            ),
            bars(
                "Failed runs by responsible party",
                "Number of failed runs.",
                [target(count("langmart_probe_failures_total", "fault"), "{{fault}}")],
                24,
                6,
                overrides=FAULT_COLOURS,
            ),
            row("Availability"),
            *availability(),
            row("Speed"),
            *speed(),
            row("Limits, cost and pools"),
            *limits(),
        ],
    )
