"""The dashboards, which generate.py writes to grafana/*.json."""

from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
PROBE = 'job=~"$job",instance=~"$instance",provider=~"$provider",model=~"$model",probe=~"$probe"'
PROBER = 'job=~"$job",instance=~"$instance"'

# Label and colour of each fault in a state timeline.
FAULTS = [
    ("none", "ok", "green"),
    ("network", "network", "orange"),
    ("gateway", "gateway", "red"),
    ("provider", "provider", "purple"),
    ("caller", "caller", "blue"),
    ("prober", "prober", "#808080"),
]


def variable(name: str, query: str, regex_all: str = ".*") -> Json:
    """Returns a variable of a dashboard whose values come from a query."""
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": regex_all,
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def target(expr: str, legend: str, instant: bool | str = False) -> Json:
    """Returns a query of a panel."""
    return {
        "expr": expr,
        "legendFormat": legend,
        "datasource": DATASOURCE,
        "instant": instant,
        "range": not instant,
        "editorMode": "code",
        "format": "table" if instant == "table" else "time_series",
    }


def panel(
    kind: str,
    title: str,
    description: str,
    targets: list[Json],
    width: int = 12,
    height: int = 8,
    unit: str = "short",
    stacked: bool = False,
    options: Json | None = None,
    **defaults: Any,
) -> Json:
    """Returns a panel; its place is assigned by `dashboard`."""
    custom = {}
    if kind == "timeseries":
        custom = {
            "drawStyle": "line",
            "fillOpacity": 30 if stacked else 5,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        }
    for index, entry in enumerate(targets):
        entry["refId"] = chr(ord("A") + index)
        entry["instant"] = bool(entry["instant"])
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom, **defaults}, "overrides": []},
        "options": options or choices(kind),
        "size": (width, height),
    }


def choices(kind: str) -> Json:
    """Returns the options of a kind of panel."""
    if kind == "timeseries":
        return {
            "legend": {
                "displayMode": "table",
                "placement": "right",
                "calcs": ["lastNotNull", "max"],
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "state-timeline":
        return {
            "mergeValues": True,
            "showValue": "never",
            "rowHeight": 0.9,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single"},
        }
    if kind in ("stat", "bargauge"):
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        own = (
            {"graphMode": "area", "colorMode": "value"}
            if kind == "stat"
            else {"displayMode": "basic"}
        )
        return {
            "reduceOptions": reduce,
            "orientation": "auto" if kind == "stat" else "horizontal",
            **own,
        }
    return {"showHeader": True}


def steps(*pairs: tuple[float | None, str]) -> Json:
    """Returns colours by value; the value of the first pair is None."""
    return {
        "mode": "absolute",
        "steps": [{"color": color, "value": value} for value, color in pairs],
    }


def row(title: str) -> Json:
    """Returns a row with a title."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "size": (24, 1)}


def dashboard(
    uid: str, title: str, description: str, variables: list[Json], panels: list[Json]
) -> Json:
    """Returns a dashboard with its panels placed from left to right."""
    x = y = tallest = 0
    placed = []
    for number, entry in enumerate(panels, 1):
        width, height = entry.pop("size")
        if x + width > 24:
            x, y, tallest = 0, y + tallest, 0
        placed.append({"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **entry})
        x, tallest = x + width, max(tallest, height)
    source = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "current": {},
    }
    link = {
        "title": "langmart-prober",
        "type": "dashboards",
        "tags": ["langmart-prober"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "icon": "external link",
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["langmart-prober"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "time": {"from": "now-6h", "to": "now"},
        "links": [link],
        "annotations": {"list": []},
        "templating": {"list": [source, *variables]},
        "panels": placed,
    }


def variables(of_probes: bool = True) -> list[Json]:
    """Returns the variables that select series."""
    found = [
        variable("job", "label_values(langmart_prober_build_info, job)"),
        variable("instance", 'label_values(langmart_prober_build_info{job=~"$job"}, instance)'),
    ]
    if of_probes:
        probes = 'job=~"$job",instance=~"$instance"'
        found += [
            variable("provider", f"label_values(langmart_probe_info{{{probes}}}, provider)"),
            variable(
                "model",
                f'label_values(langmart_probe_info{{{probes},provider=~"$provider"}}, model)',
            ),
            variable(
                "probe",
                f'label_values(langmart_probe_info{{{probes},provider=~"$provider",model=~"$model"}},'
                " probe)",
            ),
        ]
    return found


def fault_state(by: str) -> str:
    """Returns an expression for the fault of the last run, as a number."""
    parts = [
        f'{number} * (langmart_probe_last_run_fault{{{PROBE},fault="{name}"}} == 1)'
        for number, (name, _, _) in enumerate(FAULTS)
    ]
    return f"max by ({by}) (\n  " + "\n  or ".join(parts) + "\n)"


def fault_mapping() -> list[Json]:
    """Returns the names and colours of `fault_state`."""
    return [
        {
            "type": "value",
            "options": {
                str(number): {"text": text, "color": color, "index": number}
                for number, (_, text, color) in enumerate(FAULTS)
            },
        }
    ]


GOOD_SHARE: Json = {
    "min": 0,
    "max": 1,
    "thresholds": steps((None, "red"), (0.95, "orange"), (0.99, "green")),
}


def overview() -> Json:
    """Returns the dashboard of all services."""
    budget = (
        "1 - (1 - avg by (provider)"
        f" (avg_over_time(langmart_probe:availability_by_run:ratio1h{{{PROBE}}}[30d:1h])))\n/ on ()"
        " group_left () (1 - langmart:slo_objective:ratio)"
    )
    return dashboard(
        "langmart-prober-overview",
        "LLM services: overview",
        "Availability, failures and the responsible party.",
        variables(),
        [
            panel(
                "stat",
                "Probes whose last run failed",
                "By responsible party. Caller is your own key, credit, limit or probe.",
                [
                    target(
                        f"sum by (fault) (langmart_probe_last_run_fault{{{PROBE}}}) > -1",
                        "{{fault}}",
                    )
                ],
                12,
                5,
            ),
            panel(
                "stat",
                "Alerts firing",
                "Alerts of the prober's own rules.",
                [
                    target(
                        'count by (severity) (ALERTS{alertname=~"Langmart.*",alertstate="firing"})'
                        " or on () vector(0)",
                        "{{severity}}",
                    )
                ],
                6,
                5,
                thresholds=steps((None, "green"), (1, "red")),
            ),
            panel(
                "stat",
                "Probers offline",
                "1 if the prober is offline; its results about services do not count.",
                [
                    target(
                        f"max by (instance) (langmart_prober_offline{{{PROBER}}})", "{{instance}}"
                    )
                ],
                6,
                5,
                thresholds=steps((None, "green"), (1, "red")),
            ),
            panel(
                "state-timeline",
                "State by provider and model",
                "Worst fault of the last runs, from ok to prober.",
                [target(fault_state("provider, model"), "{{provider}} {{model}}")],
                24,
                10,
                mappings=fault_mapping(),
                thresholds=steps((None, "green")),
            ),
            panel(
                "state-timeline",
                "State by probe",
                "Fault of each probe's last run.",
                [target(fault_state("instance, probe"), "{{probe}} {{instance}}")],
                24,
                12,
                mappings=fault_mapping(),
                thresholds=steps((None, "green")),
            ),
            row("Availability"),
            panel(
                "bargauge",
                "Availability by run, 3 days",
                "Share of runs without fault gateway, provider or network, excluding time offline.",
                [
                    target(
                        "avg by (provider, model)"
                        f" (langmart_probe:availability_by_run:ratio3d{{{PROBE}}})",
                        "{{provider}} {{model}}",
                    )
                ],
                8,
                10,
                "percentunit",
                **GOOD_SHARE,
            ),
            panel(
                "bargauge",
                "Availability by time, 3 days",
                "Share of the time in which the last run found the service up.",
                [
                    target(
                        "avg by (provider, model)"
                        f" (langmart_probe:availability_by_time:ratio3d{{{PROBE}}})",
                        "{{provider}} {{model}}",
                    )
                ],
                8,
                10,
                "percentunit",
                **GOOD_SHARE,
            ),
            panel(
                "bargauge",
                "Error budget left, 30 days",
                "Share of the failures that the objective allows; below zero it is overspent.",
                [target(budget, "{{provider}}")],
                8,
                10,
                "percentunit",
                min=-1,
                max=1,
                thresholds=steps((None, "red"), (0, "orange"), (0.25, "green")),
            ),
            panel(
                "timeseries",
                "Availability by run, 1 hour",
                "Share of runs without fault gateway, provider or network, and the objective.",
                [
                    target(
                        "avg by (provider, model)"
                        f" (langmart_probe:availability_by_run:ratio1h{{{PROBE}}})",
                        "{{provider}} {{model}}",
                    ),
                    target("langmart:slo_objective:ratio", "objective"),
                ],
                12,
                9,
                "percentunit",
                max=1,
            ),
            panel(
                "timeseries",
                "Failures by fault",
                "Failed runs by responsible party.",
                [
                    target(
                        "sum by (fault)"
                        f" (increase(langmart_probe_failures_total{{{PROBE}}}[$__rate_interval]))",
                        "{{fault}}",
                    )
                ],
                12,
                9,
                stacked=True,
            ),
            row("Speed"),
            panel(
                "timeseries",
                "First token, median of an hour",
                "From handing the request to the connection to the first visible content.",
                [
                    target(
                        "max by (probe) (langmart_probe:time_to_first_token_seconds:quantile1h"
                        f'{{{PROBE},quantile="0.5"}})',
                        "{{probe}}",
                    )
                ],
                12,
                9,
                "s",
            ),
            panel(
                "timeseries",
                "Duration, 90th percentile of an hour",
                "Successful runs and runs that hit the prober's deadline.",
                [
                    target(
                        "max by (probe)"
                        f' (langmart_probe:duration_seconds:quantile1h{{{PROBE},quantile="0.9"}})',
                        "{{probe}}",
                    )
                ],
                12,
                9,
                "s",
            ),
            panel(
                "timeseries",
                "Pools",
                "Available share of each pool, by weight; langmart_pool_member_consecutive_failures"
                " identifies failing members.",
                [target(f"langmart_pool_available_ratio{{{PROBER}}}", "{{pool}} {{instance}}")],
                12,
                8,
                "percentunit",
                min=0,
                max=1,
            ),
            panel(
                "timeseries",
                "What the gateway adds, mean of an hour",
                "Gateway minus direct, over pairs in which both succeeded.",
                [
                    target(
                        f"langmart_comparison:overhead_seconds:mean1h{{{PROBER}}}",
                        "{{comparison}} {{instance}}",
                    )
                ],
                12,
                8,
                "s",
            ),
        ],
    )


def drill_down() -> Json:
    """Returns the dashboard of single probes."""
    rate = "$__rate_interval"
    per_run = (
        f"sum by (phase) (rate(langmart_probe_phase_seconds_total{{{PROBE}}}[{rate}]))\n/ ignoring"
        f" (phase) group_left ()\nsum (rate(langmart_probe_runs_total{{{PROBE}}}[{rate}]) > 0)"
    )

    def quantile(metric: str, share: float) -> str:
        return (
            f"histogram_quantile({share}, sum by (le, probe)"
            f" (rate({metric}_bucket{{{PROBE}}}[{rate}])))"
        )

    def each(metric: str, by: str, function: str = "increase") -> str:
        return f"sum by ({by}) ({function}({metric}{{{PROBE}}}[{rate}]))"

    return dashboard(
        "langmart-prober-probe",
        "LLM services: drill-down",
        "Everything about some probes.",
        variables(),
        [
            panel(
                "state-timeline",
                "State",
                "Fault of each probe's last run.",
                [target(fault_state("instance, probe"), "{{probe}} {{instance}}")],
                24,
                6,
                mappings=fault_mapping(),
                thresholds=steps((None, "green")),
            ),
            panel(
                "stat",
                "Consecutive failures",
                "Up to the last run, by reason.",
                [
                    target(
                        f"max by (probe, reason) (langmart_probe_consecutive_failures{{{PROBE}}})",
                        "{{probe}}: {{reason}}",
                    )
                ],
                12,
                5,
            ),
            panel(
                "stat",
                "Backoff left",
                "Time until the probe runs again, as requested by the service or by the prober's"
                " own backoff.",
                [
                    target(
                        "max by (probe)"
                        f" (clamp_min(langmart_probe_backoff_until_timestamp_seconds{{{PROBE}}} -"
                        " time(), 0))",
                        "{{probe}}",
                    )
                ],
                12,
                5,
                "s",
            ),
            row("Time"),
            panel(
                "timeseries",
                "Phases of a run",
                "Mean of all runs, stacked; the sum is the duration.",
                [target(per_run, "{{phase}}")],
                12,
                9,
                "s",
                stacked=True,
            ),
            panel(
                "timeseries",
                "Duration",
                "Successful runs and runs that hit the prober's deadline.",
                [
                    target(quantile("langmart_probe_duration_seconds", 0.5), "{{probe}} median"),
                    target(quantile("langmart_probe_duration_seconds", 0.9), "{{probe}} 90 %"),
                ],
                12,
                9,
                "s",
            ),
            panel(
                "timeseries",
                "First token",
                "From handing the request to the connection to the first visible content.",
                [
                    target(
                        quantile("langmart_probe_time_to_first_token_seconds", 0.5),
                        "{{probe}} median",
                    ),
                    target(
                        quantile("langmart_probe_time_to_first_token_seconds", 0.9),
                        "{{probe}} 90 %",
                    ),
                    target(
                        "max by (probe)"
                        f" (langmart_probe_last_time_to_first_token_seconds{{{PROBE}}})",
                        "{{probe}} last",
                    ),
                ],
                12,
                9,
                "s",
            ),
            panel(
                "timeseries",
                "Between tokens",
                "Mean time between the visible tokens of a stream.",
                [
                    target(
                        quantile("langmart_probe_time_per_output_token_seconds", 0.5),
                        "{{probe}} median",
                    )
                ],
                12,
                9,
                "s",
            ),
            panel(
                "timeseries",
                "Slow runs",
                "Share of the successes above the probe's slow_after, over an hour.",
                [
                    target(
                        f"max by (probe) (langmart_probe:slow_runs:ratio1h{{{PROBE}}})", "{{probe}}"
                    )
                ],
                12,
                8,
                "percentunit",
                min=0,
                max=1,
            ),
            panel(
                "timeseries",
                "Within bounds",
                "Share of the last hour's runs within 10 s, and of first tokens within 2 s.",
                [
                    target(
                        f"min by (probe) (langmart_probe:duration_within_10s:ratio1h{{{PROBE}}})",
                        "{{probe}} 10 s",
                    ),
                    target(
                        "min by (probe)"
                        f" (langmart_probe:time_to_first_token_within_2s:ratio1h{{{PROBE}}})",
                        "{{probe}} first token 2 s",
                    ),
                ],
                12,
                8,
                "percentunit",
                max=1,
            ),
            row("Failures"),
            panel(
                "timeseries",
                "Reasons",
                "Failed runs by reason and fault.",
                [
                    target(
                        each("langmart_probe_failures_total", "reason, fault") + " > 0",
                        "{{reason}} ({{fault}})",
                    )
                ],
                12,
                9,
                stacked=True,
            ),
            panel(
                "timeseries",
                "HTTP codes",
                "Responses by status.",
                [target(each("langmart_probe_http_responses_total", "code"), "{{code}}")],
                12,
                9,
                stacked=True,
            ),
            panel(
                "timeseries",
                "Error codes of the API",
                "As named by the bodies of failed responses; unknown codes are other.",
                [target(each("langmart_probe_api_errors_total", "code"), "{{code}}")],
                12,
                8,
                stacked=True,
            ),
            panel(
                "timeseries",
                "Skipped runs",
                "Scheduled runs that did not take place.",
                [target(each("langmart_probe_skipped_runs_total", "cause"), "{{cause}}")],
                12,
                8,
                stacked=True,
            ),
            row("Limits and cost"),
            panel(
                "timeseries",
                "Retry-After",
                "Wait requested by the service in the last run.",
                [
                    target(
                        f"max by (probe) (langmart_probe_retry_after_seconds{{{PROBE}}})",
                        "{{probe}}",
                    )
                ],
                8,
                8,
                "s",
            ),
            panel(
                "timeseries",
                "Headroom of rate limits",
                "Remaining share of each limit; an alert fires below 10 %.",
                [
                    target(
                        "min by (probe, resource)"
                        f" (langmart_probe:ratelimit_headroom:ratio{{{PROBE}}})",
                        "{{probe}} {{resource}}",
                    )
                ],
                8,
                8,
                "percentunit",
                min=0,
                max=1,
            ),
            panel(
                "timeseries",
                "Balance",
                "Balance of the account.",
                [
                    target(
                        f"min by (provider) (langmart_probe_balance_usd{{{PROBE}}})", "{{provider}}"
                    )
                ],
                8,
                8,
                "currencyUSD",
            ),
            panel(
                "timeseries",
                "Cost per day",
                "Estimated from the configured prices, at the current rate.",
                [
                    target(
                        "sum by (probe)"
                        f" (rate(langmart_probe_estimated_cost_usd_total{{{PROBE}}}[1h])) * 86400",
                        "{{probe}}",
                    )
                ],
                12,
                8,
                "currencyUSD",
            ),
            panel(
                "timeseries",
                "Tokens per hour",
                "Consumed by chat and stream probes, at the current rate.",
                [
                    target(
                        "sum by (probe, direction)"
                        f" (rate(langmart_probe_tokens_total{{{PROBE}}}[1h])) * 3600",
                        "{{probe}} {{direction}}",
                    )
                ],
                12,
                8,
            ),
            row("Gateway or provider"),
            panel(
                "timeseries",
                "What the gateway adds",
                "Gateway minus direct, mean of an hour: total time, and time to first token.",
                [
                    target(
                        f"langmart_comparison:overhead_seconds:mean1h{{{PROBER}}}", "{{comparison}}"
                    ),
                    target(
                        f"langmart_comparison:first_token_overhead_seconds:mean1h{{{PROBER}}}",
                        "{{comparison}} first token",
                    ),
                ],
                12,
                8,
                "s",
            ),
            panel(
                "timeseries",
                "Verdicts",
                "Verdicts of comparisons.",
                [
                    target(
                        "sum by (comparison, verdict)"
                        f" (increase(langmart_comparison_verdicts_total{{{PROBER}}}[{rate}]))",
                        "{{comparison}} {{verdict}}",
                    )
                ],
                12,
                8,
                stacked=True,
            ),
            row("Network"),
            panel(
                "timeseries",
                "Certificates",
                "Time until the earliest certificate of the chain expires.",
                [
                    target(
                        "min by (provider)"
                        f" (langmart_probe_tls_certificate_not_after_timestamp_seconds{{{PROBE}}})"
                        " - time()",
                        "{{provider}}",
                    )
                ],
                8,
                8,
                "s",
            ),
            panel(
                "timeseries",
                "Name servers",
                "1 if the server returned an address in the last run.",
                [
                    target(
                        f"min by (provider, server) (langmart_probe_dns_server_success{{{PROBE}}})",
                        "{{provider}} {{server}}",
                    )
                ],
                8,
                8,
                min=0,
                max=1,
            ),
            panel(
                "state-timeline",
                "Status pages",
                "Indicators other than none.",
                [
                    target(
                        "max by (provider, indicator)"
                        f' (langmart_probe_status_page_indicator{{{PROBE},indicator!="none"}})',
                        "{{provider}} {{indicator}}",
                    )
                ],
                8,
                8,
                thresholds=steps((None, "green"), (1, "red")),
            ),
        ],
    )


def prober() -> Json:
    """Returns the dashboard of the prober itself."""
    rate = "$__rate_interval"

    def lag(share: float) -> str:
        return (
            f"histogram_quantile({share}, sum by (instance, le)"
            f" (rate(langmart_prober_schedule_lag_seconds_bucket{{{PROBER}}}[{rate}])))"
        )

    def own(
        title: str,
        description: str,
        expr: str,
        legend: str = "{{instance}}",
        unit: str = "short",
        **more: Any,
    ) -> Json:
        return panel("timeseries", title, description, [target(expr, legend)], 8, 8, unit, **more)

    return dashboard(
        "langmart-prober-self",
        "LLM services: the prober itself",
        "Health of the prober: lag, skipped runs, lost lines, process.",
        variables(of_probes=False),
        [
            panel(
                "stat",
                "Up",
                "Whether Prometheus can scrape the prober.",
                [target(f"min by (instance) (up{{{PROBER}}})", "{{instance}}")],
                6,
                5,
                thresholds=steps((None, "red"), (1, "green")),
            ),
            panel(
                "stat",
                "Version",
                "Version of the running program.",
                [
                    target(
                        f"max by (instance, version) (langmart_prober_build_info{{{PROBER}}})",
                        "{{instance}} {{version}}",
                    )
                ],
                6,
                5,
                options={**choices("stat"), "textMode": "name"},
            ),
            panel(
                "stat",
                "Last reload successful",
                "0 if the file is invalid and the previous configuration is in use.",
                [
                    target(
                        f"langmart_prober_config_last_reload_successful{{{PROBER}}}", "{{instance}}"
                    )
                ],
                6,
                5,
                thresholds=steps((None, "red"), (1, "green")),
            ),
            panel(
                "stat",
                "Configuration loaded",
                "Time of the last successful load.",
                [
                    target(
                        f"langmart_prober_config_last_reload_success_timestamp_seconds{{{PROBER}}}"
                        " * 1000",
                        "{{instance}}",
                    )
                ],
                6,
                5,
                "dateTimeFromNow",
            ),
            own(
                "Runs",
                "Runs per second.",
                f"sum by (instance) (rate(langmart_probe_runs_total{{{PROBER}}}[{rate}]))",
            ),
            own(
                "Runs in flight",
                "Limited by schedule.max_concurrent.",
                f"langmart_prober_runs_in_flight{{{PROBER}}}",
            ),
            panel(
                "timeseries",
                "Lag",
                "Delay between scheduled and actual start of a run.",
                [target(lag(0.5), "{{instance}} median"), target(lag(0.99), "{{instance}} 99 %")],
                8,
                8,
                "s",
            ),
            own(
                "Overdue",
                "The most overdue next run; an alert reports stuck probes.",
                "max by (instance) (clamp_min(time() -"
                f" langmart_probe_next_run_timestamp_seconds{{{PROBER}}}, 0))",
                unit="s",
            ),
            own(
                "Skipped runs",
                "By cause.",
                "sum by (instance, cause)"
                f" (increase(langmart_probe_skipped_runs_total{{{PROBER}}}[{rate}]))",
                "{{instance}} {{cause}}",
                stacked=True,
            ),
            own(
                "Runs that failed in the prober",
                "Out of descriptors, memory or local ports.",
                "sum by (instance)"
                f' (increase(langmart_probe_failures_total{{{PROBER},fault="prober"}}[{rate}]))',
            ),
            own(
                "Lost lines",
                "Lines of log and records.",
                "sum by (instance, file)"
                f" (increase(langmart_prober_log_lines_dropped_total{{{PROBER}}}[{rate}]) +"
                f" increase(langmart_prober_log_write_errors_total{{{PROBER}}}[{rate}]))",
                "{{instance}} {{file}}",
            ),
            own(
                "Task restarts",
                "Parts that panicked: a bug; the log has the details.",
                "sum by (instance, task)"
                f" (increase(langmart_prober_task_restarts_total{{{PROBER}}}[{rate}]))",
                "{{instance}} {{task}}",
            ),
            own(
                "Rechecks",
                "Attempts after a failure, outside the schedule.",
                "sum by (instance, result)"
                f" (increase(langmart_probe_rechecks_total{{{PROBER}}}[{rate}]))",
                "{{instance}} {{result}}",
            ),
            own(
                "Clock",
                "Local clock minus the services', median of the probes.",
                f"quantile by (instance) (0.5, langmart_probe_clock_offset_seconds{{{PROBER}}})",
                unit="s",
            ),
            own(
                "Offline",
                "1 if the last runs of all providers failed on the network.",
                f"max by (instance) (langmart_prober_offline{{{PROBER}}})",
                min=0,
                max=1,
            ),
            panel(
                "timeseries",
                "Daily budget, cost",
                "Spending of generation probes and its limit until midnight UTC.",
                [
                    target(f"langmart_budget_spent_usd{{{PROBER}}}", "{{instance}} spent"),
                    target(f"langmart_budget_limit_usd{{{PROBER}}}", "{{instance}} limit"),
                ],
                8,
                8,
                "currencyUSD",
            ),
            panel(
                "timeseries",
                "Daily budget, tokens",
                "Tokens consumed by generation probes and their limit until midnight UTC.",
                [
                    target(f"langmart_budget_spent_tokens{{{PROBER}}}", "{{instance}} spent"),
                    target(f"langmart_budget_limit_tokens{{{PROBER}}}", "{{instance}} limit"),
                ],
                8,
                8,
            ),
            own("CPU", "Cores.", f"rate(process_cpu_seconds_total{{{PROBER}}}[{rate}])"),
            own(
                "Memory",
                "Resident memory.",
                f"process_resident_memory_bytes{{{PROBER}}}",
                unit="bytes",
            ),
            panel(
                "timeseries",
                "File descriptors",
                "Open descriptors and their limit.",
                [
                    target(f"process_open_fds{{{PROBER}}}", "{{instance}} open"),
                    target(f"process_max_fds{{{PROBER}}}", "{{instance}} limit"),
                ],
                8,
                8,
            ),
            own("Threads", "Threads of the process.", f"process_threads{{{PROBER}}}"),
            own(
                "Scrape",
                "Duration of a scrape of /metrics.",
                f"scrape_duration_seconds{{{PROBER}}}",
                unit="s",
            ),
        ],
    )


def all_dashboards() -> dict[str, Json]:
    """Returns every dashboard by the name of its file."""
    return {"overview": overview(), "drill-down": drill_down(), "prober": prober()}
