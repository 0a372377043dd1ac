"""The tables of what fails now and of firing alerts."""

from .parts import ALERTS, FAULTS, PROBE, Json, column, hidden, link, states, table, target

# What to do about each reason. The prober's own page has more, for the single failure.
REMEDIES = {
    "dns": "Check the resolver and the host name",
    "connect": "Check firewall, routes and port",
    "proxy": "Check the proxy and its credentials",
    "tls": "Check certificate, trust store and clock",
    "timeout": "Check network and status page; raise the timeout",
    "disconnected": "Check proxies in between; contact the service",
    "auth_failed": "Replace the key: rejected or revoked",
    "permission": "Allow the key this model, region or address",
    "billing": "Add credit or raise the spending limit",
    "rate_limited": "Send fewer requests or raise the limit",
    "overloaded": "Wait, or use another model",
    "unavailable": "Check the status page; contact the service",
    "gateway_timeout": "Shorten the request or use a faster model",
    "server_error": "Check the status page; contact the service",
    "model_not_found": "Use a model that the service still offers",
    "invalid_request": "Correct the probe's configuration",
    "unexpected_status": "Check base_url and proxies in between",
    "malformed": "Check base_url and proxies in between",
    "error_in_200": "Contact the service with the request ID",
    "no_content": "Raise max_tokens or change the prompt",
    "wrong_answer": "Contact the service with the request ID",
    "stream_error": "Contact the service with the request ID",
    "stream_truncated": "Check proxies in between; contact the service",
    "stream_stalled": "Check proxies in between; contact the service",
    "unmet_expectation": "Compare the response with expect",
    "internal": "Raise the prober's limits: see its log",
}

# The runbook of each reason, if it is not LangmartProbeDown.
RUNBOOKS = {
    "auth_failed": "LangmartKeyRejected",
    "billing": "LangmartBilling",
    "permission|model_not_found|invalid_request|no_content": "LangmartProbeRefused",
    "rate_limited": "LangmartRateLimited",
    "unavailable": "LangmartServiceUnavailable",
    "gateway_timeout": "LangmartGatewayTimeout",
    "overloaded": "LangmartOverloaded",
    "internal": "LangmartProberFailing",
}

# Month, day and time of day, in the time zone of the browser.
TIME = "time:MMM D, HH:mm"

DRILL_DOWN = (
    "/d/langmart-prober-probe?var-datasource=${datasource}&var-job=$job"
    "&var-instance=${__data.fields.instance}&var-probe=${__data.fields.probe}&${__url_time_range}"
)
PROBER_PAGE = "http://${__data.fields.instance}/probes/${__data.fields.probe}"


def failing(selector: str = PROBE) -> str:
    """Returns the failing probes with the number of consecutive failures."""
    return f"langmart_probe_consecutive_failures{{{selector}}}"


def since(selector: str = PROBE) -> str:
    """Returns the time since which each probe fails.

    That is the run after its last success, or the first of its failures if it never succeeded.
    """
    on = "on (job, instance, probe)"
    return (
        f"(langmart_probe_last_success_timestamp_seconds{{{selector}}}"
        f" + langmart_probe_interval_seconds{{{selector}}}\n"
        f"  or {on} langmart_probe_last_run_timestamp_seconds{{{selector}}}"
        f" - {on} (max by (job, instance, probe) ({failing(selector)}) - 1)"
        f" * {on} langmart_probe_interval_seconds{{{selector}}})"
    )


def with_remedy(expr: str) -> str:
    """Adds the labels remedy and runbook to the failing probes."""
    expr = f'label_join({expr}, "remedy", "", "reason")'
    expr = f'label_replace({expr}, "runbook", "LangmartProbeDown", "", "")'
    for reason, name in RUNBOOKS.items():
        expr = f'label_replace({expr}, "runbook", "{name}", "reason", "{reason}")'
    return expr


def of_failing(value: str) -> str:
    """Returns a value of each failing probe, with the labels of its failure."""
    return with_remedy(f"{failing()} * 0 + on (job, instance, probe) group_left ()\n{value}\n")


def faults() -> list[Json]:
    """Returns text and colour of the label `fault`."""
    return states(*[(name, text, color) for name, text, color in FAULTS if name != "none"])


def failing_now(runbooks: str, width: int, height: int) -> Json:
    """Returns the table of the probes whose last run failed."""
    drill_down = [link("Details of this probe", DRILL_DOWN)]
    remedies = states(*[(reason, text, "text") for reason, text in REMEDIES.items()])
    runbook = link("Runbook", f"{runbooks}/${{__data.fields.runbook}}.md", new_tab=True)
    page = link("Page of the prober", PROBER_PAGE, new_tab=True)
    return table(
        "What fails now",
        "Probes whose last run failed. Probe: its details. What to do: the runbook. Prober: its own"
        " page of the probe.",
        [
            target(with_remedy(failing()), table=True),
            target(of_failing(f"{since()} * 1000"), table=True),
            target(of_failing(f"clamp_min(time() - {since()}, 0)"), table=True),
        ],
        width,
        height,
        [
            column("probe", "Probe", 180, links=drill_down),
            column("provider", "Provider", 90),
            column("model", "Model", 205),
            column(
                "fault", "Fault", 90, mappings=faults(),
                custom_cellOptions={"type": "color-background", "mode": "basic"},
            ),
            column("reason", "Reason", 135),
            column("Value #B", "Since", 115, unit=TIME),
            column("Value #C", "For", 75, unit="s", decimals=0),
            column("Value #A", "Failures", 75, unit="none", decimals=0),
            column("remedy", "What to do", mappings=remedies, links=[runbook]),
            column("instance", "Prober", 135, links=[page]),
            hidden("runbook"),
        ],
        noValue="No probe reports a failure.",
        sort={"displayName": "Since", "desc": False},
    )  # fmt: skip


def firing_alerts(runbooks: str, width: int, height: int) -> Json:
    """Returns the table of firing alerts."""
    since = (
        f"ALERTS_FOR_STATE{{{ALERTS}}} * 1000"
        f' + ignoring (alertstate) 0 * ALERTS{{{ALERTS},alertstate="firing"}}'
    )
    about = (
        f'label_join({since}, "about", " ", "probe", "provider", "model", "comparison", "pool",'
        ' "resource", "file", "task")'
    )
    runbook = link("Runbook", f"{runbooks}/${{__value.raw}}.md", new_tab=True)
    severities = states(
        ("critical", "critical", "red"), ("warning", "warning", "orange"), ("info", "info", "blue")
    )
    return table(
        "Alerts and their runbooks",
        "Alert: its runbook. Needs the alerting rules of packaging/prometheus.",
        [target(about, table=True)],
        width,
        height,
        [
            column(
                "severity", "Severity", 75, mappings=severities,
                custom_cellOptions={"type": "color-background", "mode": "basic"},
            ),
            column("alertname", "Alert", 220, links=[runbook]),
            column("fault", "Fault", 80, mappings=states(*[(n, t, "text") for n, t, _ in FAULTS])),
            column("about", "About"),
            column("Value", "Since", 115, unit=TIME),
            column("instance", "Prober", 135),
        ],
        noValue="No alert is firing.",
        sort={"displayName": "Severity", "desc": False},
    )  # fmt: skip
