"""Cases of each alert under restarts, gaps, resets and other disturbances.

generate.py writes them to prometheus/tests/kinds.test.yml, and the table of coverage to
prometheus/tests/README.md. An alert has a story: an hour of calm, then its cause. Each kind plays
all stories at once, each on an instance named after its alert. Some kinds are covered by cases.py,
with the argument `kinds`. A kind that does not apply to an alert is in NOT_SHOWN with the reason.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import quorum_cases
import speed_cases
from cases import BY_HAND, CASES, Series, Value, head, quoted, tests, texts

# Adds the series of an alert to an input: with or without its cause, on an instance.
Story = Callable[[Series, bool, str], None]

CALM, BREAK, END = 60, 80, 120

ALL = {
    "fires": "fires after an hour of its cause, and is silent in the hour before",
    "calm": "silent in two hours without its cause",
    "thin traffic": "silent if runs are rare and too few of them fail",
    "restart": (
        "fires if the prober restarts during the cause and has no success since; silent for a"
        " restart in calm"
    ),
    "reload": "ends when its probe or series is removed",
    "scrape gap": (
        "fires despite five minutes without a scrape during the cause; silent for a gap in calm"
    ),
    "counter reset": (
        "fires despite a reset between two scrapes during the cause; silent for a reset in calm"
    ),
    "new probe": "fires for a new probe that never worked; silent for a new probe that works",
    "several probers": "fires only for the two of three probers that see the cause",
}

PROBE = {"probe": "p", "provider": "acme", "check": "chat", "model": "m"}


def since(calm: Value, troubled: Value, bad: bool) -> list[Value]:
    """A value until the cause begins, and another from then on."""
    return [troubled if bad and minute >= CALM else calm for minute in range(END)]


def counted(bad: bool, every: int = 1) -> list[int]:
    """A counter that moves while the cause is there."""
    return [max(0, minute - CALM + 1) // every if bad else 0 for minute in range(END)]


def run(letter: str, **options: Any) -> Story:
    """Returns the story of a probe whose runs fail with a letter of cases.OUTCOMES."""

    def story(series: Series, bad: bool, instance: str) -> None:
        series.probe(
            "." * CALM + (letter if bad else ".") * (END - CALM),
            instance=instance,
            # Another probe per alert: several instances with the same probe are vantage points.
            **{"name": instance.split("/")[0], **options},
        )

    return story


def gauge(name: str, calm: Value, troubled: Value, **labels: str) -> Story:
    """Returns the story of a gauge that changes when the cause begins."""

    def story(series: Series, bad: bool, instance: str) -> None:
        series.add(name, since(calm, troubled, bad), instance=instance, **labels)

    return story


def together(*stories: Story) -> Story:
    """Returns a story of several."""

    def story(series: Series, bad: bool, instance: str) -> None:
        for part in stories:
            part(series, bad, instance)

    return story


def pooled(*fail: int) -> Story:
    """A pool of so many members, of which some fail."""

    def story(series: Series, bad: bool, instance: str) -> None:
        series.add(
            "langmart_pool_available_ratio",
            since(1, 1 - sum(fail) / len(fail), bad),
            instance=instance,
            pool="chat",
        )
        for number, fails in enumerate(fail):
            member = {**PROBE, "probe": f"m{number}", "instance": instance}
            series.add(
                "langmart_pool_member_consecutive_failures",
                counted(bad and bool(fails)),
                instance=instance,
                pool="chat",
                probe=f"m{number}",
            )
            series.add("langmart_probe_backoff_until_timestamp_seconds", 0, **member)
            series.add(
                "langmart_probe_last_run_timestamp_seconds",
                [60 * minute for minute in range(END)],
                **member,
            )
            series.add("langmart_probe_interval_seconds", 60, **member)

    return story


def lost(series: Series, bad: bool, instance: str) -> None:
    """A log whose writes fail."""
    series.add(
        "langmart_prober_log_write_errors_total", counted(bad), instance=instance, file="results"
    )
    series.add("langmart_prober_log_lines_dropped_total", 0, instance=instance, file="results")


def tasks(series: Series, bad: bool, instance: str) -> None:
    """A task that is restarted."""
    series.add(
        "langmart_prober_task_restarts_total", counted(bad), instance=instance, task="scheduler"
    )


def compared(verdict: str) -> Story:
    """Returns the story of a comparison with this verdict."""

    def story(series: Series, bad: bool, instance: str) -> None:
        name, pairs = "langmart_comparison_verdicts_total", [minute // 5 for minute in range(END)]
        good = pairs[CALM] if bad else END
        series.add(
            name,
            [min(pair, good) for pair in pairs],
            instance=instance,
            comparison="c",
            verdict="ok",
        )
        series.add(
            name,
            [max(0, pair - good) for pair in pairs],
            instance=instance,
            comparison="c",
            verdict=verdict,
        )

    return story


def lag(series: Series, bad: bool, instance: str) -> None:
    """Runs that start late."""
    late = [10 * count for count in counted(bad)]
    for bound in ("0.01", "5", "+Inf"):
        values = [
            10 * minute - (count if bound == "0.01" else 0) for minute, count in enumerate(late)
        ]
        series.add(
            "langmart_prober_schedule_lag_seconds_bucket", values, instance=instance, le=bound
        )
        if bound == "+Inf":
            series.add("langmart_prober_schedule_lag_seconds_count", values, instance=instance)


def skipped(series: Series, bad: bool, instance: str) -> None:
    """Runs that are skipped because of overruns."""
    misses = counted(bad, 2)
    series.add(
        "langmart_probe_runs_total",
        [minute - count for minute, count in enumerate(misses)],
        instance=instance,
        **PROBE,
    )
    series.add(
        "langmart_probe_skipped_runs_total", misses, instance=instance, **PROBE, cause="overrun"
    )


def succeeding(series: Series, bad: bool, instance: str) -> None:
    """A probe whose runs succeed every minute."""
    series.add(
        "langmart_probe_last_success_timestamp_seconds",
        [60 * minute for minute in range(END)],
        instance=instance,
        **PROBE,
    )


def stuck(series: Series, bad: bool, instance: str) -> None:
    """A probe whose next run stays in the past."""
    due = [60 * (min(minute, CALM) if bad else minute) + 30 for minute in range(END)]
    series.add("langmart_probe_next_run_timestamp_seconds", due, instance=instance, **PROBE)
    series.add("langmart_probe_timeout_seconds", 30, instance=instance, **PROBE)


def gone(series: Series, bad: bool, instance: str) -> None:
    """A prober that cannot be scraped."""
    series.add("up", since(1, 0, bad), instance=instance)
    series.add("langmart_prober_build_info", since(1, "stale", bad), instance=instance, version="v")


def restarting(series: Series, bad: bool, instance: str) -> None:
    """A prober that restarts every ten minutes."""
    series.add(
        "process_start_time_seconds",
        [5 + 600 * (count // 10) for count in counted(bad)],
        instance=instance,
    )
    series.add("langmart_prober_build_info", 1, instance=instance, version="v")


def idle(series: Series, bad: bool, instance: str) -> None:
    """A prober whose last probe is removed."""
    series.add("langmart_prober_build_info", 1, instance=instance, version="v")
    intervals: list[Value] = [60] * CALM
    if bad:
        intervals += ["stale", *[None] * (END - CALM - 1)]
    series.add("langmart_probe_interval_seconds", intervals, instance=instance, **PROBE)


def found(counter: str, gauge_name: str, calm: int, troubled: int) -> Story:
    """Returns the story of a finding: a counter of runs, and a gauge of the last one."""

    def story(series: Series, bad: bool, instance: str) -> None:
        series.add(counter, counted(bad, 5), instance=instance, **PROBE)
        series.add(gauge_name, since(calm, troubled, bad), instance=instance, **PROBE)

    return story


NOT_AFTER = "langmart_probe_tls_certificate_not_after_timestamp_seconds"
SHUTDOWN = "langmart_probe_model_shutdown_timestamp_seconds"
# What is about the reason of a probe's runs: the letter of its cause.
LETTERS = {
    "LangmartKeyRejected": "A",
    "LangmartStoredKeyRejected": "S",
    "LangmartBilling": "B",
    "LangmartProbeRefused": "M",
    "LangmartRateLimited": "R",
    "LangmartProbeDown": "G",
    "LangmartServiceUnavailable": "G",
    "LangmartGatewayTimeout": "T",
    "LangmartOverloaded": "O",
    "LangmartErrorBudgetBurnFast": "G",
    "LangmartErrorBudgetBurn": "G",
    "LangmartErrorBudgetBurnSlow": "G",
    "LangmartProberFailing": "I",
    "LangmartWrongAnswer": "W",
    "LangmartStatusPageUnreadable": "N",
}
STORIES = {
    **{alert: run(letter) for alert, letter in LETTERS.items()},
    "LangmartRateLimitedForLong": together(
        run("R"),
        gauge(
            "langmart_probe_backoff_until_timestamp_seconds",
            0,
            3600 * 5,
            **{**PROBE, "probe": "LangmartRateLimitedForLong"},
        ),
    ),
    "LangmartRateLimitHeadroomLow": together(
        gauge("langmart_probe_ratelimit_remaining", 50, 2, **PROBE, resource="requests"),
        gauge("langmart_probe_ratelimit_limit", 60, 60, **PROBE, resource="requests"),
        succeeding,
    ),
    "LangmartBalanceLow": gauge("langmart_probe_balance_usd", 100, 1, **PROBE),
    "LangmartBudgetUsedUp": together(
        gauge("langmart_budget_spent_usd", 0.2, 1), gauge("langmart_budget_limit_usd", 1, 1)
    ),
    "LangmartGatewayFault": compared("gateway_fault"),
    "LangmartProviderFault": compared("provider_fault"),
    "LangmartCertificateEndsIn21Days": gauge(NOT_AFTER, 90 * 86400, 20 * 86400, **PROBE),
    "LangmartCertificateExpiringSoon": gauge(NOT_AFTER, 90 * 86400, 6 * 86400, **PROBE),
    "LangmartStatusPageIncident": gauge(
        "langmart_probe_status_page_indicator", 0, 1, **PROBE, indicator="major"
    ),
    "LangmartStatusPageUnreadable": run("N", check="status"),
    "LangmartMaintenance": together(
        gauge("langmart_probe_status_page_maintenance_start_timestamp_seconds", 60, 60, **PROBE),
        gauge("langmart_probe_status_page_maintenance_end_timestamp_seconds", 90, 9e5, **PROBE),
    ),
    "LangmartWrongModel": found(
        "langmart_probe_model_mismatches_total", "langmart_probe_answered_model_match", 1, 0
    ),
    "LangmartStreamBuffered": found(
        "langmart_probe_buffered_streams_total", "langmart_probe_stream_buffered", 0, 1
    ),
    "LangmartModelRetiresIn60Days": gauge(SHUTDOWN, 90 * 86400, 50 * 86400, **PROBE),
    "LangmartModelRetiresIn14Days": gauge(SHUTDOWN, 90 * 86400, 12 * 86400, **PROBE),
    "LangmartModelRetiresIn3Days": gauge(SHUTDOWN, 90 * 86400, 2 * 86400, **PROBE),
    "LangmartPoolDegraded": pooled(1, 0),
    "LangmartPoolDown": pooled(1, 1),
    "LangmartProberDown": gone,
    "LangmartProbeStuck": stuck,
    "LangmartProberScheduleLagHigh": lag,
    "LangmartProberClockSkew": gauge("langmart_probe_clock_offset_seconds", 0, -30, **PROBE),
    "LangmartProberSkipsRuns": skipped,
    "LangmartProberReloadFailed": gauge("langmart_prober_config_last_reload_successful", 1, 0),
    "LangmartProberLogWritesFailing": lost,
    "LangmartProberNoProbes": idle,
    "LangmartProberWriterBlocked": gauge(
        "langmart_prober_log_write_in_progress_seconds", 0, 60, file="results"
    ),
    "LangmartProberOffline": together(gauge("langmart_prober_offline", 0, 1), run("N")),
    "LangmartProberTaskRestarts": tasks,
    "LangmartProberRestarts": restarting,
}
# Its instances hide each other, so that it has its cases by hand.
ALONE = "LangmartProberAbsent"
# Windows longer than a quarter of an hour, in minutes, for which an alert may fire after its series
# end.
WINDOWS = {
    "LangmartGatewayFault": 61,
    "LangmartProviderFault": 61,
    "LangmartProberSkipsRuns": 61,
    "LangmartProberRestarts": 61,
}

STATE = "the alert checks a state, not a share of runs"
ONE = "one event is enough, at any rate of runs"
GAUGE = "the alert uses no counter"
NO_PROBE = "the alert does not concern a probe"
NOT_SHOWN = {
    ("thin traffic", STATE): [
        "LangmartMaintenance",
        "LangmartModelRetiresIn60Days",
        "LangmartModelRetiresIn14Days",
        "LangmartModelRetiresIn3Days",
        "LangmartProberNoProbes",
        "LangmartProberWriterBlocked",
        "LangmartRateLimitHeadroomLow",
        "LangmartBalanceLow",
        "LangmartBudgetUsedUp",
        "LangmartCertificateEndsIn21Days",
        "LangmartCertificateExpiringSoon",
        "LangmartStatusPageIncident",
        "LangmartProbeStuck",
        "LangmartProberClockSkew",
        "LangmartProberDown",
        "LangmartProberAbsent",
        "LangmartProberReloadFailed",
        "LangmartProberOffline",
    ],
    ("thin traffic", ONE): [
        "LangmartRateLimitedForLong",
        "LangmartProberLogWritesFailing",
        "LangmartProberTaskRestarts",
        "LangmartProberRestarts",
    ],
    ("counter reset", GAUGE): [
        "LangmartMaintenance",
        "LangmartModelRetiresIn60Days",
        "LangmartModelRetiresIn14Days",
        "LangmartModelRetiresIn3Days",
        "LangmartProberNoProbes",
        "LangmartProberWriterBlocked",
        "LangmartKeyRejected",
        "LangmartStoredKeyRejected",
        "LangmartBilling",
        "LangmartProbeRefused",
        "LangmartRateLimited",
        "LangmartRateLimitedForLong",
        "LangmartRateLimitHeadroomLow",
        "LangmartBalanceLow",
        "LangmartProbeDown",
        "LangmartCertificateEndsIn21Days",
        "LangmartCertificateExpiringSoon",
        "LangmartStatusPageIncident",
        "LangmartStatusPageUnreadable",
        "LangmartPoolDegraded",
        "LangmartPoolDown",
        "LangmartProberDown",
        "LangmartProberAbsent",
        "LangmartProbeStuck",
        "LangmartProberClockSkew",
        "LangmartProberReloadFailed",
        "LangmartProberOffline",
        "LangmartProberRestarts",
    ],
    ("scrape gap", "this is the alert's own cause"): ["LangmartProberDown", "LangmartProberAbsent"],
    ("restart", "this is the alert's own cause"): ["LangmartProberRestarts"],
    ("new probe", NO_PROBE): ["LangmartProberRestarts", "LangmartProberNoProbes"],
    ("reload", NO_PROBE): [
        "LangmartProberNoProbes",
        "LangmartProberWriterBlocked",
        "LangmartProberAbsent",
        "LangmartProberDown",
        "LangmartProberRestarts",
        "LangmartProberOffline",
        "LangmartProberReloadFailed",
        "LangmartProberTaskRestarts",
        "LangmartProberLogWritesFailing",
        "LangmartProberScheduleLagHigh",
    ],
}
# Several probers with the same probe are vantage points, of which more than one must agree.
BY_HAND_ONLY = {(alert, "several probers"): "quorum_cases.py" for alert in quorum_cases.ALONE}
REASONS = {(alert, kind): why for (kind, why), alerts in NOT_SHOWN.items() for alert in alerts}


def documents(severities: dict[str, str], runbooks: str) -> dict[str, str]:
    """Returns the files for promtool and the table by name.

    Every alert must be covered in every kind, or be listed in NOT_SHOWN.
    """
    speed_cases.add_cases()
    quorum_cases.add_cases()
    played, covered = kinds()
    covered |= BY_HAND
    wanted = {(alert, kind) for alert in severities for kind in ALL}
    missing, needless = (
        wanted - covered - set(REASONS),
        set(REASONS) & covered | set(REASONS) - wanted,
    )
    assert not missing and not needless, (
        f"no case and no reason: {sorted(missing)}; a case or no alert, and a reason:"
        f" {sorted(needless)}"
    )
    # Those that take days are evaluated less often.
    long = [entry for entry in CASES if 1000 < entry[1].minutes < speed_cases.END]
    speed = [entry for entry in CASES if entry[1].minutes >= speed_cases.END]
    short = [entry for entry in CASES if entry[1].minutes <= 1000]
    return {
        "alerts.test.yml": tests(short, "1m") + texts(severities, runbooks),
        "days.test.yml": tests(long, "2m"),
        "speed.test.yml": tests(speed, "5m"),
        "kinds.test.yml": tests([], "1m") + "".join(played),
        "README.md": table(severities),
    }


def table(alerts: Iterable[str]) -> str:
    """Alerts by kinds."""
    out = (
        "<!-- Generated by packaging/generate.py from packaging/kinds.py: change it there. -->\n#"
        " Coverage of the alerts\n\n`promtool test rules FILE` runs the cases of a file. A number"
        " refers to the reason why a case does not apply.\n\n| kind | expectation |\n|---|---|\n"
    )
    out += "".join(f"| {kind} | {text} |\n" for kind, text in ALL.items())
    why = sorted(set(REASONS.values()))
    out += "\n| alert | " + " | ".join(ALL) + " |\n|---|" + "---|" * len(ALL) + "\n"
    for alert in alerts:
        marks = (
            f"({why.index(REASONS[alert, kind]) + 1})" if (alert, kind) in REASONS else "yes"
            for kind in ALL
        )
        out += f"| {alert} | {' | '.join(marks)} |\n"
    return out + "\n" + "".join(f"{number}. {text}\n" for number, text in enumerate(why, 1))


def kinds() -> tuple[list[str], set[tuple[str, str]]]:
    """Returns the texts of the cases, and the alerts and kinds that they cover."""
    cases: list[str] = []
    covered: set[tuple[str, str]] = set()

    def add(
        kind: str,
        name: str,
        make: Callable[[list[str]], Series],
        *moments: int,
        fires: Sequence[str] = (),
    ) -> None:
        alerts = [
            alert
            for alert in STORIES
            if (alert, kind) not in REASONS | BY_HAND_ONLY
            and (kind != "thin traffic" or alert in LETTERS)
        ]
        covered.update((alert, kind) for alert in alerts)
        cases.append(
            described(
                f"{kind}: {name}",
                make(alerts),
                [
                    (
                        alert,
                        minute
                        + (WINDOWS.get(alert, 17) if kind == "reload" and minute == END else 0),
                        fires if minute == END - 1 else (),
                    )
                    for alert in alerts
                    for minute in moments
                ],
            )
        )

    add(
        "fires",
        "after its cause",
        lambda alerts: played(alerts, True),
        20,
        CALM - 1,
        END - 1,
        fires=("",),
    )
    add("calm", "nothing happens", lambda alerts: played(alerts, False), 20, CALM + 5, END - 1)
    add(
        "thin traffic", "two failures, with a run every twenty minutes", rare, 65, 85, 125, 145, 165
    )
    for kind, change in (("restart", restarted), ("scrape gap", gapped), ("counter reset", reset)):
        add(
            kind,
            "during the cause",
            changed(change, True),
            CALM - 1,
            END - 1,
            fires=("",),
        )
        add(
            kind,
            "in calm",
            changed(change, False),
            *range(BREAK + 1, BREAK + 20, 3),
            END - 1,
        )
    add(
        "new probe",
        "never worked",
        lambda alerts: begun(played(alerts, True), CALM),
        CALM - 1,
        END - 1,
        fires=("",),
    )
    add(
        "new probe",
        "works",
        lambda alerts: begun(played(alerts, False), BREAK),
        *range(BREAK, BREAK + 20, 3),
        END - 1,
    )
    add(
        "several probers",
        "two of three",
        lambda alerts: played(
            alerts, False, "/c", played(alerts, True, "/b", played(alerts, True))
        ),
        END - 1,
        fires=("", "/b"),
    )
    add(
        "reload",
        "its probe or series is removed",
        lambda alerts: removed(played(alerts, True)),
        END - 1,
        END,
        fires=("",),
    )
    return cases, covered


def described(name: str, series: Series, moments: list[tuple[str, int, Sequence[str]]]) -> str:
    """Returns a case in promtool's notation.

    It checks for which instances of its own story each alert fires at a minute.
    """
    out = head(name, series) + "    promql_expr_test:\n"
    for alert, minute, fires in moments:
        firing = f'ALERTS{{alertname="{alert}",alertstate="firing",instance=~"{alert}(/.)?"}}'
        out += (
            f"      - expr: {quoted(f'count by (instance) ({firing})')}\n        eval_time:"
            f" {minute}m\n"
        )
        if fires:
            samples = ", ".join(
                f"{{ labels: '{{instance=\"{alert}{more}\"}}', value: 1 }}" for more in fires
            )
            out += f"        exp_samples: [{samples}]\n"
    return out


def played(alerts: list[str], bad: bool, more: str = "", series: Series | None = None) -> Series:
    """Plays the stories of alerts, each on an instance named after its alert."""
    series = series or Series(END)
    for alert in alerts:
        STORIES[alert](series, bad, alert + more)
    return series


def rare(alerts: list[str]) -> Series:
    """Plays probes with few runs, of which two fail."""
    series = Series(180)
    for alert in alerts:
        every = 1 if "Burn" in alert else 20
        letters = [LETTERS[alert] if minute in (60, 120) else "." for minute in range(0, 180, 20)]
        series.probe(
            (" " * (19 if every == 1 else 0)).join(letters),
            every=every,
            instance=alert,
            check="status" if "StatusPage" in alert else "chat",
        )
    return series


def counts(selector: str) -> bool:
    """Returns whether a series is a counter."""
    return selector.split("{")[0].endswith(("_total", "_bucket", "_count"))


def lowered(values: list[Value], less: Value) -> list[Value]:
    """Subtracts a value from those that are numbers."""
    assert isinstance(less, (int, float))
    return [value - less if isinstance(value, (int, float)) else value for value in values]


def changed(change: Callable[[Series], Series], bad: bool) -> Callable[[list[str]], Series]:
    """Returns a function that plays stories and changes them."""
    return lambda alerts: change(played(alerts, bad))


def reset(series: Series) -> Series:
    """Resets every counter between two scrapes."""
    for selector, values in series.series.items():
        if counts(selector):
            values[BREAK:] = lowered(values[BREAK:], values[BREAK - 1])
    return series


def restarted(series: Series) -> Series:
    """Misses a scrape and resets every counter."""
    for selector, values in series.series.items():
        if counts(selector) or "_consecutive_" in selector:
            values[BREAK:] = lowered(values[BREAK:], values[BREAK])
            if "_consecutive_" in selector:
                values[BREAK:] = [
                    max(value, 0) if isinstance(value, (int, float)) else value
                    for value in values[BREAK:]
                ]
    return series.gap(BREAK, BREAK + 1, "stale")


def gapped(series: Series) -> Series:
    """Removes five minutes of scrapes."""
    series.gap(BREAK, BREAK + 1, "stale")
    return series.gap(BREAK + 1, BREAK + 5)


def begun(series: Series, at: int) -> Series:
    """Removes every sample before a minute."""
    for selector, values in series.series.items():
        if counts(selector) and isinstance(values[at - 1], (int, float)):
            values[at:] = lowered(values[at:], values[at - 1])
        values[:at] = [None] * at
    return series


def removed(series: Series) -> Series:
    """Ends every series."""
    series.minutes = END + 70
    for values in series.series.values():
        values += ["stale"] + [None] * 69
    return series
