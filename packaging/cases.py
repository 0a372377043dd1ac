"""Cases in which alerts must fire, and in which they must not.

generate.py writes them to prometheus/tests/alerts.test.yml. A probe is described by a string with a
letter for each run, from which its series are derived as the prober would export them. Samples are
one minute apart; minute 0 is the first scrape.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

# A sample: a number, `None` for no sample, "stale" for the end of the series.
Value = float | str | None

# A run's letter: reason and fault.
OUTCOMES = {
    ".": ("ok", "none"),
    "G": ("unavailable", "gateway"),
    "T": ("gateway_timeout", "gateway"),
    "O": ("overloaded", "provider"),
    "P": ("server_error", "provider"),
    "N": ("connect", "network"),
    "A": ("auth_failed", "caller"),
    "S": ("auth_failed", "provider"),
    "B": ("billing", "caller"),
    "R": ("rate_limited", "caller"),
    "M": ("model_not_found", "caller"),
    "I": ("internal", "prober"),
    "W": ("wrong_answer", "gateway"),
}
FAULTS = ["none", "network", "gateway", "provider", "caller", "prober"]
DOWN = {"gateway", "provider", "network"}


def selector(name: str, **labels: str) -> str:
    """Returns a series selector with these labels."""
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{inside}}}"


def notation(values: list[Value]) -> str:
    """Returns a series in promtool's notation, with arithmetic runs."""
    parts: list[str] = []
    at = 0
    while at < len(values):
        first = values[at]
        if not isinstance(first, (int, float)):
            length = 1
            while at + length < len(values) and values[at + length] == first:
                length += 1
            if first is not None:
                parts.append(str(first))
                at, length = at + 1, length - 1
            if length:
                parts.append(f"_x{length}")
            at += length
            continue
        length, step = 1, 0.0
        second = values[at + 1] if at + 1 < len(values) else None
        if isinstance(second, (int, float)):
            step = second - first
            while at + length < len(values) and values[at + length] == first + step * length:
                length += 1
        parts.append(
            f"{first:g}{'+' if step >= 0 else '-'}{abs(step):g}x{length - 1}"
            if length > 1
            else f"{first:g}"
        )
        at += length
    return " ".join(parts)


class Series:
    """The input of a case: series by selector, one value a minute."""

    def __init__(self, minutes: int) -> None:
        """Creates an input without series."""
        self.minutes = minutes
        self.series: dict[str, list[Value]] = {}

    def add(
        self, name: str, values: Value | Sequence[Value], instance: str = "a", **labels: str
    ) -> Self:
        """Adds a series; a single value is repeated."""
        key = selector(name, job="langmart-prober", instance=instance, **labels)
        if values is None or isinstance(values, (int, float, str)):
            values = [values]
        self.series[key] = [*values, *[values[-1]] * self.minutes][: self.minutes]
        return self

    def probe(
        self,
        runs: str,
        every: int = 1,
        begins: int = 0,
        name: str = "p",
        provider: str = "acme",
        check: str = "chat",
        model: str = "m",
        restart: int | None = None,
        instance: str = "a",
        slow: Sequence[int] = (),
        **more: str,
    ) -> Self:
        """Adds the series of a probe.

        It runs every so many minutes, from the minute in which it begins. At `restart` its counters
        start at 0. Further labels are those of its target.
        """
        labels = {
            "probe": name,
            "provider": provider,
            "check": check,
            "model": model,
            "instance": instance,
            **more,
        }
        names, rows = {}, []
        for pair in sorted(set(OUTCOMES.values()) - {("ok", "none")}):
            names[("langmart_probe_failures_total", ("reason", pair[0], "fault", pair[1]))] = pair
        runs_total, counts, last, same, down, slow_total = (
            0,
            dict.fromkeys(names.values(), 0),
            None,
            0,
            0,
            0,
        )
        for minute in range(self.minutes):
            if minute == restart:
                runs_total, counts, last, same, down, slow_total = (
                    0,
                    dict.fromkeys(counts, 0),
                    None,
                    0,
                    0,
                    0,
                )
            index, rest = divmod(minute - begins, every)
            if minute >= begins and rest == 0 and index < len(runs) and runs[index] != " ":
                outcome = OUTCOMES[runs[index]]
                runs_total += 1
                slow_total += index in slow
                if outcome[0] == "ok":
                    same, down = 0, 0
                else:
                    counts[outcome] += 1
                    same = same + 1 if last and last[:2] == outcome else 1
                    down = down + 1 if outcome[1] in DOWN and check != "status" else 0
                last = (*outcome, minute * 60)
            rows.append(
                (runs_total, dict(counts), last, same, down, slow_total)
                if minute >= begins
                else None
            )

        def put(metric: str, value: Callable[[Any], Value], **own: str) -> None:
            values = [None if row is None else value(row) for row in rows]
            if any(isinstance(entry, (int, float)) for entry in values):
                # A series that ends is marked as stale at the next scrape.
                for at in range(1, len(values)):
                    if values[at] is None and isinstance(values[at - 1], (int, float)):
                        values[at] = "stale"
                self.add(metric, values, **labels, **own)

        def failures(pair: tuple[str, str]) -> Callable[[Any], Value]:
            return lambda row: row[1][pair]

        def consecutive(pair: tuple[str, str]) -> Callable[[Any], Value]:
            return lambda row: row[3] if row[2] and row[2][:2] == pair else None

        def last_fault(fault: str) -> Callable[[Any], Value]:
            return lambda row: int(row[2][1] == fault) if row[2] else None

        put("langmart_probe_runs_total", lambda row: row[0])
        put("langmart_probe_slow_runs_total", lambda row: row[5])
        for pair in counts:
            put(
                "langmart_probe_failures_total",
                failures(pair),
                reason=pair[0],
                fault=pair[1],
            )
            put(
                "langmart_probe_consecutive_failures",
                consecutive(pair),
                reason=pair[0],
                fault=pair[1],
            )
        for fault in FAULTS:
            put(
                "langmart_probe_last_run_fault",
                last_fault(fault),
                fault=fault,
            )
        put("langmart_probe_consecutive_down_runs", lambda row: row[4] if row[2] else None)
        put("langmart_probe_last_run_timestamp_seconds", lambda row: row[2][2] if row[2] else None)
        put("langmart_probe_interval_seconds", lambda row: every * 60)
        return self

    def gap(self, begin: int, end: int, value: Value = None) -> Self:
        """Nothing is scraped in these minutes."""
        for values in self.series.values():
            values[begin:end] = [
                value if isinstance(entry, (int, float)) else entry for entry in values[begin:end]
            ]
        return self


# Name, series, and expectations: an alert, a minute, and the labels of those that fire.
Case = tuple[str, Series, tuple[Any, ...]]

CASES: list[Case] = []
# The alerts and the kinds of kinds.py that cases cover.
BY_HAND: set[tuple[str, str]] = set()


def case(name: str, series: Series, *expected: Any, kinds: Sequence[str] = ()) -> None:
    """Adds a case.

    Each expectation is an alert, a minute, and the labels of the alerts that fire then; without
    labels it is silent. Or it is an expression, a minute and its value. `kinds` are the kinds of
    kinds.py that the case covers for its alerts.
    """
    CASES.append((name, series, expected))
    BY_HAND.update((entry[0], kind) for entry in expected for kind in kinds)


def one(runs: str, **options: Any) -> Series:
    """Returns the series of one probe for as long as its runs last."""
    minutes = len(runs) * options.get("every", 1) + options.get("begins", 0)
    return Series(minutes).probe(runs, **options)


ME = {"probe": "p", "provider": "acme"}


def burns() -> None:
    """Cases of error budgets."""
    fast, medium, slow = (
        "LangmartErrorBudgetBurnFast",
        "LangmartErrorBudgetBurn",
        "LangmartErrorBudgetBurnSlow",
    )
    bad = "G." * 20
    case(
        "half of the runs fail: the budget burns, and the alert ends soon after the failures",
        one("." * 120 + bad + "." * 60),
        (fast, 119),
        (fast, 150, ME),
        (medium, 159, ME),
        (fast, 175),
    )
    case(
        "an outage that was reported as down causes no further alert when it ends",
        one("." * 120 + "G" * 30 + "." * 60),
        (fast, 145, ME),
        (medium, 149, ME),
        (fast, 151),
        (medium, 151),
        (fast, 154),
        (medium, 170),
        (slow, 151, ME),
    )
    case(
        "a single failure an hour is no burn",
        one(("." * 59 + "G") * 6),
        (fast, 350),
        (medium, 350),
        (slow, 350),
    )
    case(
        "thin traffic: three failures of four runs, far apart, are too few",
        one("." * 10 + "G" + " " * 20 + "G" + " " * 20 + "G" + " " * 10),
        (fast, 35),
        (fast, 60),
        (medium, 60),
    )
    case(
        "a new probe that fails twice and then works",
        one("GG" + "." * 60),
        (fast, 3),
        (fast, 30),
        (medium, 30),
    )
    case("a new probe that never works", one("G" * 30), (fast, 15, ME))
    case(
        "a restart while all is well",
        one("." * 120, restart=60),
        (fast, 62),
        (fast, 90),
        (medium, 90),
        (slow, 90),
    )
    case(
        "a restart during failures does not hide them",
        one("." * 60 + bad + bad, restart=80),
        (fast, 110, ME),
    )
    case("a restart with no success since", one("G" * 60, restart=30), (fast, 45, ME))
    case(
        "a gap between scrapes is no failure",
        one("." * 180).gap(60, 80),
        (fast, 85),
        (fast, 120),
        (medium, 120),
    )
    case(
        "a gap between scrapes during failures",
        one("." * 60 + "G" * 60).gap(75, 82),
        (fast, 90, ME),
    )
    case(
        "the caller's own faults burn nothing",
        one("." * 60 + "A" * 60 + "R" * 60),
        (fast, 110),
        (fast, 170),
        (medium, 170),
    )
    case(
        "runs that failed in the prober burn nothing",
        one("." * 60 + "I" * 60),
        (fast, 110),
        (medium, 110),
    )
    case(
        "a status page burns nothing",
        one("." * 60 + "N" * 60, check="status"),
        (fast, 110),
        (medium, 110),
    )
    case(
        "runs above a minute have the three in a row instead",
        one("." * 30 + "G." * 30, every=5),
        (fast, 250),
        (medium, 250),
    )
    case(
        "six percent for hours: the second window",
        one("." * 60 + ("G" + "." * 9) * 36),
        (fast, 400),
        (medium, 400, ME),
    )
    case(
        "a bit too fast for days: the third window",
        one(("G" + "." * 44) * 90),
        (fast, 4000),
        (medium, 4000),
        (slow, 4000, ME),
    )
    # The counters always increase in the same minute of five, between two ranges of that length.
    for phase in range(5):
        case(
            f"one in ten of the runs of every five minutes, in minute {phase} of these",
            one("....G....." * 6, every=5, begins=phase),
            ("round(20 * sum(langmart_probe:availability_by_run:ratio3d))", 300, 18.0),
        )
    offline = (
        Series(240)
        .probe("." * 60 + "N" * 60 + "." * 120)
        .add("langmart_prober_offline", [0] * 60 + [1] * 60 + [0] * 120)
    )
    case(
        "offline, the prober's own failures burn nothing",
        offline,
        (fast, 70),
        (fast, 100),
        (fast, 122),
        (fast, 130),
        (medium, 180),
    )
    mixed = (
        Series(240)
        .probe("." * 60 + "N" * 30 + "G" + "." * 149)
        .add("langmart_prober_offline", [0] * 60 + [1] * 30 + [0] * 150)
    )
    case(
        "a single failure after the prober was offline",
        mixed,
        (fast, 92),
        (fast, 97),
        (medium, 110),
    )
    spent = Series(240).probe("." * 60 + "G" * 30 + "." * 60 + "N" * 60 + "." * 30)
    spent.add("langmart_prober_offline", [0] * 152 + [1] * 58 + [0] * 30)
    case(
        "offline soon after an outage, the runs before it was noticed burn nothing",
        spent,
        (medium, 88, ME),
        (medium, 95),
        (medium, 165),
        (medium, 178),
        (medium, 185),
        (medium, 209),
        (medium, 217),
        (medium, 230),
    )
    two = Series(120).probe("." * 60 + "G" * 60).probe("." * 120, instance="b", name="q")
    case("two probers with other probes", two, (fast, 80, {**ME, "instance": "a"}))


def downs() -> None:
    """Cases of LangmartProbeDown."""
    down = "LangmartProbeDown"
    case("one failed run does not page", one("." * 10 + "G" + "." * 10), (down, 11), (down, 12))
    case("two neither", one("." * 10 + "GG" + "." * 10), (down, 12), (down, 13))
    case(
        "three do, until a success",
        one("." * 10 + "GGGG" + "." * 10),
        (down, 11),
        (down, 13, {**ME, "fault": "gateway"}),
        (down, 16),
    )
    case(
        "three with different faults do",
        one("." * 10 + "GPN" + "N" * 10),
        (down, 13, {**ME, "fault": "network"}),
    )
    case(
        "three consecutive failures at five minutes",
        one("." * 4 + "GGG" + "." * 3, every=5),
        (down, 29),
        (down, 31, {**ME, "fault": "gateway"}),
        (down, 36),
    )
    case(
        "two consecutive failures at an hour", one(".GG" + ".", every=60), (down, 150), (down, 179)
    )
    case(
        "three consecutive failures at an hour",
        one(".GGG.", every=60),
        (down, 200, {**ME, "fault": "gateway"}),
    )
    case(
        "no success since the restart",
        one("G" * 20, restart=10),
        (down, 9, {**ME, "fault": "gateway"}),
        (down, 11),
        (down, 13, {**ME, "fault": "gateway"}),
    )
    case(
        "a gap between scrapes hides nothing",
        one("." * 10 + "G" * 20).gap(15, 18),
        (down, 17, {**ME, "fault": "gateway"}),
        (down, 19, {**ME, "fault": "gateway"}),
    )
    case("the caller's faults are no downtime", one("." * 10 + "A" * 20), (down, 25))
    case("neither is a status page", one("." * 10 + "N" * 20, check="status"), (down, 25))
    offline = (
        Series(60).probe("." * 10 + "N" * 20 + "." * 30).probe("..NNNN......", every=5, name="slow")
    )
    offline.add("langmart_prober_offline", [0] * 11 + [1] * 19 + [0] * 30)
    case(
        "offline, nothing is down, nor before the first run after it",
        offline,
        (down, 15),
        (down, 25),
        (down, 30),
        (down, 33),
    )
    back = Series(60).probe("." * 10 + "N" * 50)
    back.add("langmart_prober_offline", [0] * 11 + [1] * 19 + [0] * 30)
    case(
        "what is down after the prober was offline is down",
        back,
        (down, 28),
        (down, 33, {**ME, "fault": "network"}),
    )
    case(
        "a probe that was removed is not down",
        one("." * 10 + "G" * 5 + " " * 20).gap(15, 35, "stale"),
        (down, 14, {**ME, "fault": "gateway"}),
        (down, 17),
    )


def callers() -> None:
    """Cases of keys, limits, credit and budget."""
    key, stored = "LangmartKeyRejected", "LangmartStoredKeyRejected"
    case(
        "our key is bad",
        one("." * 10 + "A" * 10 + "." * 5),
        (key, 11),
        (key, 12, {"provider": "acme"}),
        (key, 15, {"provider": "acme"}),
        (stored, 15),
        (key, 22),
    )
    case("one 401 is none", one("." * 10 + "A" + "." * 10), (key, 12), (key, 15))
    case(
        "the stored key is bad",
        one("." * 10 + "S" * 10),
        (key, 15),
        (stored, 15, {"provider": "acme", "model": "m"}),
    )
    case("401s among others are not a bad key", one("." * 10 + "AG" * 10), (key, 25))
    case(
        "a bad key from the start, and a restart",
        one("A" * 20, restart=10),
        (key, 5, {"provider": "acme"}),
        (key, 16, {"provider": "acme"}),
    )
    case(
        "credit is used up",
        one("." * 10 + "B B  B"),
        ("LangmartBilling", 11),
        ("LangmartBilling", 14, {"provider": "acme", "fault": "caller"}),
    )
    case(
        "one billing error",
        one("." * 10 + "B" + "." * 9),
        ("LangmartBilling", 12),
        ("LangmartBilling", 15),
    )
    case(
        "a model is gone",
        one("." * 10 + "M" * 20),
        ("LangmartProbeRefused", 11),
        ("LangmartProbeRefused", 12, {"probe": "p", "reason": "model_not_found"}),
        ("LangmartProbeRefused", 20, {"probe": "p", "reason": "model_not_found"}),
    )
    case("a model is gone once", one("." * 10 + "M" + "." * 20), ("LangmartProbeRefused", 20))
    limited = "LangmartRateLimited"
    case(
        "limited for long",
        one("." * 10 + "R" * 20 + "." * 5),
        (limited, 13),
        (limited, 20, {"provider": "acme", "fault": "caller"}),
        (limited, 32),
    )
    case("limited once, and again later", one(("." * 10 + "R") * 5), (limited, 22), (limited, 45))
    wait = "LangmartRateLimitedForLong"
    labels = {"probe": "p", "provider": "acme", "check": "chat", "model": "m"}
    until = "langmart_probe_backoff_until_timestamp_seconds"
    series = one("." * 10 + "R" + " " * 60).add(until, [0] * 10 + [3600 * 3] * 60, **labels)
    case(
        "asked to back off for hours",
        series,
        (wait, 9),
        (wait, 14, {"provider": "acme", "fault": "caller"}),
    )
    # Runs at minute 10, 30 and 50 each receive a hint.
    series = one("." * 10 + ("R" + " " * 19) * 3 + "." * 5).add(
        until, [0] * 10 + [1800] * 20 + [3000] * 20 + [4200] * 20 + [0] * 5, **labels
    )
    case(
        "asked to back off for twenty minutes, repeatedly",
        series,
        (wait, 9),
        *((wait, minute, {"provider": "acme"}) for minute in (14, 29, 33, 49, 68)),
        (wait, 72),
    )
    series = one("." * 10 + "R" + " " * 4 + "." * 10).add(
        until, [0] * 10 + [900] * 5 + [0] * 10, **labels
    )
    case("asked to back off for five minutes", series, (wait, 12), (wait, 14))
    headroom = "LangmartRateLimitHeadroomLow"
    limit = {**labels, "resource": "requests"}
    little = [{"provider": "acme", "resource": "requests"}]
    # A run every so many minutes, with its reading; "" is a failure without one, None no series.
    readings_by_case: list[tuple[str, int, Sequence[Value], list[dict[str, str]]]] = [
        ("little is left", 1, [50] * 30 + [4] * 60, little),
        ("little is left, as probes see it that run rarely", 30, [50, 4, 4], little),
        ("little is left now and then", 1, ([50] * 8 + [0]) * 10, []),
        ("what is left is not reported each time", 3, [50] + [4, ""] * 15, little),
        ("one reading that little is left, shown until the next", 60, [50, 4], []),
        ("one reading that little is left, and runs that fail", 15, [50, 50, 50, 4, "", ""], []),
        ("one reading that little is left, after a restart", 90, [None, 4], []),
        ("two readings that little is left, hours apart", 45, [4, 50, 50, 50, 50, 4], []),
    ]
    for name, every, readings, expected in readings_by_case:
        left: list[Value] = []
        succeeded: list[Value] = []
        for number, reading in enumerate(readings):
            failed = reading == ""
            left += [left[-1] if failed else reading] * every
            succeeded += [succeeded[-1] if failed else 60 * number * every] * every
        series = Series(len(left)).add("langmart_probe_ratelimit_remaining", left, **limit)
        series.add(
            "langmart_probe_ratelimit_limit",
            [None if value is None else 60 for value in left],
            **limit,
        )
        series.add("langmart_probe_last_success_timestamp_seconds", succeeded, **labels)
        case(name, series, (headroom, 5), (headroom, len(left) - 1, *expected))
    balance = {"probe": "b", "provider": "acme", "check": "balance", "model": ""}
    low = "LangmartBalanceLow"
    series = Series(60).add(
        "langmart_probe_balance_usd", [100 - 2 * minute for minute in range(60)], **balance
    )
    case("a falling balance", series, (low, 40), (low, 59, {"provider": "acme"}))
    series = (
        Series(60)
        .add("langmart_probe_balance_usd", 15, **balance)
        .add("langmart_probe_balance_minimum_usd", [1] * 20 + [10] * 40, **balance)
    )
    case(
        "a balance near the account's own minimum",
        series,
        (low, 19),
        (low, 31, {"provider": "acme"}),
    )
    budget = "LangmartBudgetUsedUp"
    series = (
        Series(60)
        .add("langmart_budget_spent_usd", [minute / 30 for minute in range(60)])
        .add("langmart_budget_limit_usd", 1)
    )
    case("the day's money is spent", series, (budget, 29), (budget, 31, {"instance": "a"}))
    series = (
        Series(60)
        .add("langmart_budget_spent_tokens", [minute * 100 for minute in range(60)])
        .add("langmart_budget_limit_tokens", 3000)
    )
    case("the day's tokens are spent", series, (budget, 29), (budget, 31, {"instance": "a"}))
    skipped = {**labels, "cause": "budget"}
    series = Series(120).add(
        "langmart_probe_skipped_runs_total",
        [0] * 30 + [1 + minute // 10 for minute in range(90)],
        **skipped,
    )
    series.add("langmart_budget_spent_usd", [0.95] * 90 + [0] * 30).add(
        "langmart_budget_limit_usd", 1
    )
    case(
        "runs are skipped for the budget, until midnight",
        series,
        (budget, 29),
        (budget, 33, {"instance": "a"}),
        (budget, 89, {"instance": "a"}),
        (budget, 91),
    )
    series = Series(240).add(
        "langmart_probe_skipped_runs_total", [0] * 10 + list(range(20)) + [20] * 210, **skipped
    )
    series.add(
        "langmart_budget_spent_usd", [0.95] * 30 + [minute / 200 for minute in range(210)]
    ).add("langmart_budget_limit_usd", 1)
    case(
        "skips of the previous day do not count",
        series,
        (budget, 20, {"instance": "a"}),
        (budget, 31),
        (budget, 140),
        (budget, 200),
    )
    case(
        "a restart is no skipped run",
        Series(60).add("langmart_probe_skipped_runs_total", [7] * 30 + [0] * 30, **skipped),
        (budget, 20),
        (budget, 35),
    )


def services() -> None:
    """Cases of services, comparisons, certificates, status pages and pools."""
    for letter, alert, fault in (
        ("G", "LangmartServiceUnavailable", "gateway"),
        ("T", "LangmartGatewayTimeout", "gateway"),
        ("O", "LangmartOverloaded", "provider"),
    ):
        me = {"provider": "acme", "fault": fault}
        case(
            f"{alert}: every other run",
            one("." * 30 + ("." + letter) * 15 + "." * 30),
            (alert, 32),
            (alert, 50, me),
            (alert, 85),
        )
        case(f"{alert}: one run", one("." * 30 + letter + "." * 30), (alert, 32), (alert, 40))
        case(f"{alert}: one in twenty", one(("." * 19 + letter) * 9), (alert, 170))
        case(
            f"{alert}: three consecutive failures at five minutes",
            one("...." + letter * 4 + ".", every=5),
            (alert, 28),
            (alert, 34, me),
            (alert, 44),
        )
        case(
            f"{alert}: a restart during failures",
            one("." * 30 + letter * 40, restart=50),
            (alert, 45, me),
            (alert, 60, me),
        )
        case(f"{alert}: a new probe", one(letter + "." * 20), (alert, 2), (alert, 10))
        case(f"{alert}: a gap between scrapes", one("." * 60).gap(20, 30), (alert, 31), (alert, 45))
    gateway, provider = "LangmartGatewayFault", "LangmartProviderFault"
    verdicts = "langmart_comparison_verdicts_total"

    def compared(bad: int, which: str) -> Series:
        series = Series(120).add(
            verdicts,
            [min(minute // 5, 6) + max(0, minute - 60) // 5 * (1 - bad) for minute in range(120)],
            comparison="c",
            verdict="ok",
        )
        return series.add(
            verdicts,
            [max(0, minute - 30) // 5 * bad for minute in range(120)],
            comparison="c",
            verdict=which,
        )

    case(
        "the gateway fails alone",
        compared(1, "gateway_fault"),
        (gateway, 40),
        (gateway, 60, {"comparison": "c"}),
        (provider, 60),
    )
    case(
        "the provider fails",
        compared(1, "provider_fault"),
        (provider, 40),
        (provider, 60, {"comparison": "c"}),
        (gateway, 60),
    )
    seldom, once = Series(360), Series(360)
    for which in ("gateway_fault", "provider_fault"):
        seldom.add(
            verdicts,
            [min(minute // 20, 6) for minute in range(360)],
            comparison=which,
            verdict="ok",
        )
        seldom.add(
            verdicts,
            [max(0, minute // 20 - 6) for minute in range(360)],
            comparison=which,
            verdict=which,
        )
        once.add(
            verdicts,
            [minute // 20 - minute // 100 for minute in range(360)],
            comparison=which,
            verdict="ok",
        )
        once.add(
            verdicts, [minute // 100 for minute in range(360)], comparison=which, verdict=which
        )
    case(
        "a pair in twenty minutes, and all fail",
        seldom,
        *(
            (name, minute, *expected)
            for name in (gateway, provider)
            for minute, expected in (
                (100, []),
                (165, []),
                (230, [{"comparison": f"{name[8:-5].lower()}_fault"}]),
            )
        ),
    )
    case(
        "a pair in twenty minutes, of which one in five fails",
        once,
        *(
            (name, minute)
            for name in (gateway, provider)
            for minute in (45, 101, 170, 205, 305, 350)
        ),
        kinds=["thin traffic"],
    )
    case("both sides succeed", compared(0, "gateway_fault"), (gateway, 60), (gateway, 110))
    certificate = {"probe": "n", "provider": "acme", "check": "network", "model": ""}
    for days, fires in (
        (30, []),
        (20, ["LangmartCertificateEndsIn21Days"]),
        (6, ["LangmartCertificateEndsIn21Days", "LangmartCertificateExpiringSoon"]),
    ):
        series = Series(30).add(
            "langmart_probe_tls_certificate_not_after_timestamp_seconds",
            days * 86400,
            **certificate,
        )
        names = ("LangmartCertificateEndsIn21Days", "LangmartCertificateExpiringSoon")
        case(
            f"a certificate for another {days} days",
            series,
            *((name, 20, *([{"provider": "acme"}] if name in fires else [])) for name in names),
        )
    page = {"probe": "s", "provider": "acme", "check": "status", "model": ""}
    incident = "LangmartStatusPageIncident"
    for indicator, expected in (
        ("major", [{"provider": "acme", "indicator": "major"}]),
        ("minor", []),
        ("maintenance", []),
    ):
        series = Series(60).add(
            "langmart_probe_status_page_indicator",
            [0] * 20 + [1] * 20 + [0] * 20,
            **page,
            indicator=indicator,
        )
        case(
            f"the status page reports {indicator}",
            series,
            (incident, 10),
            (incident, 30, *expected),
            (incident, 50),
        )
    series = Series(60).add(
        "langmart_probe_status_page_component",
        [0] * 20 + [1] * 40,
        **page,
        component="API",
        status="partial_outage",
    )
    case(
        "a configured component is unavailable",
        series,
        (incident, 10),
        (incident, 30, {"component": "API", "status": "partial_outage"}),
    )
    unreadable = "LangmartStatusPageUnreadable"
    case(
        "a status page cannot be read",
        one("." * 10 + "N" * 60, check="status"),
        (unreadable, 30),
        (unreadable, 50, {"provider": "acme"}),
    )
    case(
        "a status page could not be read for a while",
        one("." * 10 + "N" * 20 + "." * 40, check="status"),
        (unreadable, 29),
        (unreadable, 60),
    )
    series = one("." * 10 + "N" * 60, check="status").add(
        "langmart_prober_offline", [0] * 10 + [1] * 60
    )
    case("a status page cannot be read offline", series, (unreadable, 50))
    degraded, pool_down = "LangmartPoolDegraded", "LangmartPoolDown"
    for second, fires in ((".", []), ("G", [degraded])):
        series = pooled("." * 60, "." * 10 + second * 50)
        case(
            f"a member of a pool: {second}",
            series,
            *(
                (name, 55, *([{"pool": "chat"}] if name in fires else []))
                for name in (degraded, pool_down)
            ),
            (degraded, 20),
        )
    series = pooled("." * 10 + "G" * 50, "." * 10 + "P" * 50)
    case(
        "both members of a pool",
        series,
        (pool_down, 12),
        (pool_down, 15, {"pool": "chat"}),
        (pool_down, 55, {"pool": "chat"}),
        (degraded, 55),
    )
    series = pooled("..G" * 4, every=5)
    case(
        "a single failed run of the only member at five minutes",
        series,
        (pool_down, 14),
        (pool_down, 29),
        (degraded, 29),
        kinds=["thin traffic"],
    )
    series = pooled(".G..G.", every=60)
    case(
        "a single failed run of the only member at an hour",
        series,
        (pool_down, 70),
        (pool_down, 119),
        (degraded, 119),
        (pool_down, 299),
        kinds=["thin traffic"],
    )
    series = pooled(".GGG.", every=60)
    case(
        "three of the only member at an hour",
        series,
        (pool_down, 179),
        (pool_down, 184, {"pool": "chat"}),
        (pool_down, 241),
    )
    series = pooled("......", ".GGGG.", every=60)
    case(
        "three of one of two members at an hour",
        series,
        (degraded, 179),
        (degraded, 202, {"pool": "chat"}),
        (pool_down, 202),
        (degraded, 301),
    )
    for hours, refused in ((3, True), (0, False)):
        series = pooled("." * 10 + "R" + " " * 50, waits={10: hours * 3600})
        case(
            f"one refusal of the only member, and {hours} hours to wait",
            series,
            (pool_down, 9),
            (pool_down, 15, *([{"pool": "chat"}] if refused else [])),
        )
    series = pooled(("." * 10 + "G" * 5) * 4, "." * 60)
    case(
        "a few failed runs now and then of a pool",
        series,
        (degraded, 14),
        (degraded, 29),
        (degraded, 45),
    )


def pooled(*members: str, every: int = 1, waits: dict[int, int] | None = None) -> Series:
    """Returns the series of a pool of probes.

    A member that fails at a minute in `waits` is asked to back off for that many seconds.
    """
    series, rows = Series(len(members[0]) * every), []
    for number, runs in enumerate(members):
        name, row, until, failed, asked = f"m{number}", [], [], 0, 0
        for minute in range(series.minutes):
            index, rest = divmod(minute, every)
            if rest == 0 and runs[index] != " ":
                failed = 0 if runs[index] == "." else failed + 1
                asked = minute * 60 + (waits or {}).get(minute, 0) if failed else 0
            row.append(failed)
            until.append(asked)
        series.probe(runs, every=every, name=name).add(
            "langmart_pool_member_consecutive_failures", row, pool="chat", probe=name
        )
        series.add(
            "langmart_probe_backoff_until_timestamp_seconds",
            until,
            probe=name,
            provider="acme",
            check="chat",
            model="m",
        )
        rows.append(row)
    return series.add(
        "langmart_pool_available_ratio",
        [sum(not failed for failed in now) / len(now) for now in zip(*rows, strict=True)],
        pool="chat",
    )


def findings() -> None:
    """Cases of findings that are no failures, of wrong answers, and of maintenance."""
    model, buffered = "LangmartWrongModel", "LangmartStreamBuffered"
    probe = {"probe": "p", "provider": "acme", "check": "stream", "model": "m"}
    for alert, counter, name, found, enough in (
        (
            model,
            "langmart_probe_model_mismatches_total",
            "langmart_probe_answered_model_match",
            0,
            3,
        ),
        (buffered, "langmart_probe_buffered_streams_total", "langmart_probe_stream_buffered", 1, 2),
    ):
        for every in (1, 5, 60):
            for times in (enough - 1, enough):
                begin, end = 60, 60 + times * every
                series = Series(end + 90).add(
                    counter,
                    [
                        min(max(0, minute - begin) // every + (minute >= begin), times)
                        for minute in range(end + 90)
                    ],
                    **probe,
                )
                series.add(
                    name, [1 - found] * begin + [found] * (end - begin) + [1 - found] * 90, **probe
                )
                fires = [ME] if times == enough else []
                case(
                    f"{alert}: {times} runs, one in {every} minutes",
                    series,
                    (alert, begin - 1),
                    (alert, end - 1, *fires),
                    (alert, end + 80),
                    kinds=[] if fires else ["thin traffic"],
                )
    wrong = "LangmartWrongAnswer"
    case("one wrong answer in six", one("." * 30 + "W....." * 10), (wrong, 40), (wrong, 60, ME))
    case(
        "one wrong answer in six, every five minutes",
        one("." * 24 + "W....." * 4, every=5),
        (wrong, 149),
        (wrong, 190, ME),
    )
    case("one wrong answer in fifty", one(("." * 49 + "W") * 7), (wrong, 340))
    retires = "LangmartModelRetiresIn3Days"
    case(
        "a model is past its announced date",
        Series(60).add("langmart_probe_model_shutdown_timestamp_seconds", 1800, **probe),
        (retires, 20, {"provider": "acme"}),
        (retires, 40),
    )
    window = "langmart_probe_status_page_maintenance"
    page = {"probe": "s", "provider": "acme", "check": "status", "model": ""}
    series = (
        Series(180)
        .add(f"{window}_start_timestamp_seconds", 3600, **page)
        .add(f"{window}_end_timestamp_seconds", 7200, **page)
        .add(f"{window}_in_progress", [0] * 70 + [1] * 110, **page)
    )
    maintenance = "LangmartMaintenance"
    case(
        "a maintenance lasts longer than announced",
        series,
        (maintenance, 59),
        (maintenance, 60, {"provider": "acme"}),
        (maintenance, 119, {"provider": "acme"}),
        (maintenance, 120),
    )
    case(
        "a sharded prober without a probe is none, its fleet is",
        Series(60)
        .add("langmart_prober_build_info", 1, instance="empty", version="v")
        .add("langmart_prober_shard_info", 1, instance="empty", index="0", total="2")
        .add("langmart_prober_build_info", 1, instance="b", version="v")
        .add("langmart_probe_interval_seconds", [60] * 20 + ["stale"] + [None] * 39, **probe),
        ("LangmartProberNoProbes", 19, {"instance": "b"}),
        ("LangmartProberNoProbes", 50, {"instance": "b"}, {"instance": "empty"}),
    )


def probers() -> None:
    """Cases of the prober itself."""
    down, absent = "LangmartProberDown", "LangmartProberAbsent"
    build = {"version": "0.1.0", "revision": "r", "rustversion": "v"}
    series = (
        Series(40)
        .add("up", [1] * 10 + [0] * 20 + [1] * 10)
        .add("langmart_prober_build_info", [1] * 10 + ["stale"] * 20 + [1] * 10, **build)
    )
    case(
        "a prober is gone",
        series,
        (absent, 9),
        (absent, 15),
        (absent, 25, {}),
        (absent, 35),
        kinds=["fires", "calm"],
    )
    case(
        "a prober is gone: LangmartProberDown",
        series,
        (down, 9),
        (down, 12),
        (down, 16, {"instance": "a"}),
        (down, 35),
    )
    series = (
        Series(40)
        .add("up", [1] * 10 + [0] + [1] * 29)
        .add("langmart_prober_build_info", [1] * 10 + ["stale"] + [1] * 29, **build)
    )
    case(
        "a restart, one scrape missed",
        series,
        (absent, 12),
        (absent, 14),
        (absent, 30),
        kinds=["restart"],
    )
    series = Series(40).add("up", 0)
    case("a prober that never existed", series, (absent, 5), (absent, 20, {}), kinds=["new probe"])
    case("a prober that never existed: LangmartProberDown", series, (down, 5, {"instance": "a"}))
    series = (
        Series(40)
        .add("up", 1)
        .add("langmart_prober_build_info", 1, **build)
        .add("up", [1] * 10 + [0] * 30, instance="b")
    )
    series.add("langmart_prober_build_info", [1] * 10 + ["stale"] * 30, instance="b", **build)
    case(
        "one of two probers is gone", series, (absent, 12), (absent, 30), kinds=["several probers"]
    )
    case("one of two probers is gone: LangmartProberDown", series, (down, 20, {"instance": "b"}))
    probe = {"probe": "p", "provider": "acme", "check": "chat", "model": "m"}
    stuck = "LangmartProbeStuck"
    due = "langmart_probe_next_run_timestamp_seconds"
    every_minute = [60 * minute + 30 for minute in range(60)]
    series = (
        Series(60)
        .add(due, every_minute[:30] + [60 * 29 + 30] * 30, **probe)
        .add("langmart_probe_timeout_seconds", 30, **probe)
    )
    case("a probe is stuck", series, (stuck, 28), (stuck, 31), (stuck, 40, {"probe": "p"}))
    series = (
        Series(60)
        .add(due, every_minute, **probe)
        .add("langmart_probe_timeout_seconds", 30, **probe)
        .gap(20, 25)
    )
    case("a gap between scrapes is not stuck", series, (stuck, 23), (stuck, 24), (stuck, 26))
    series = (
        Series(60)
        .add(due, every_minute[:10] + [60 * 50] * 40 + every_minute[50:], **probe)
        .add("langmart_probe_timeout_seconds", 30, **probe)
    )
    case("backoff is not stuck", series, (stuck, 30), (stuck, 49))
    lags = "LangmartProberScheduleLagHigh"
    lag = "langmart_prober_schedule_lag_seconds"

    def lagging(share: float) -> Series:
        series = Series(60)
        for bound, part in (("0.01", 1 - share), ("5", 1), ("+Inf", 1)):
            series.add(f"{lag}_bucket", [10 * part * minute for minute in range(60)], le=bound)
        return series.add(f"{lag}_count", [10 * minute for minute in range(60)])

    case("runs start late", lagging(0.5), (lags, 5), (lags, 30, {"instance": "a"}))
    case("hardly any run starts late", lagging(0.001), (lags, 30))
    seldom = Series(90)
    for bound in ("0.01", "5", "+Inf"):
        seldom.add(
            f"{lag}_bucket", [0 if bound == "0.01" else minute for minute in range(90)], le=bound
        )
    case(
        "a run a minute, late",
        seldom.add(f"{lag}_count", list(range(90))),
        (lags, 30),
        (lags, 85),
        kinds=["thin traffic"],
    )
    clock = "LangmartProberClockSkew"
    series = Series(60)
    for name in ("p", "q", "r"):
        series.add(
            "langmart_probe_clock_offset_seconds", [0] * 20 + [-30] * 40, **{**probe, "probe": name}
        )
    case("the clock is off", series, (clock, 25), (clock, 35, {"instance": "a"}))
    series = Series(60)
    for name, offset in (("p", 600), ("q", 0), ("r", 1)):
        series.add("langmart_probe_clock_offset_seconds", offset, **{**probe, "probe": name})
    case("a service's clock is off", series, (clock, 40))
    skips = "LangmartProberSkipsRuns"
    for cause, fires in (("overrun", True), ("backoff", False), ("budget", False)):
        series = Series(90).add(
            "langmart_probe_runs_total", [minute // 2 for minute in range(90)], **probe
        )
        series.add(
            "langmart_probe_skipped_runs_total",
            [0] * 30 + [minute // 2 for minute in range(60)],
            **probe,
            cause=cause,
        )
        case(
            f"skipped: {cause}",
            series,
            (skips, 29),
            (skips, 70, *([{"cause": cause}] if fires else [])),
        )
    for every, fires in ((20, True), (60, False)):
        series = Series(480).add(
            "langmart_probe_runs_total",
            [minute // 10 - minute // every for minute in range(480)],
            **probe,
        )
        series.add(
            "langmart_probe_skipped_runs_total",
            [minute // every for minute in range(480)],
            **probe,
            cause="overrun",
        )
        case(
            f"due every ten minutes and skipped every {every}",
            series,
            (skips, 60),
            *((skips, minute, *([{"cause": "overrun"}] if fires else [])) for minute in (200, 470)),
            kinds=[] if fires else ["thin traffic"],
        )
    reload, lost = "LangmartProberReloadFailed", "LangmartProberLogWritesFailing"
    series = Series(60).add(
        "langmart_prober_config_last_reload_successful", [1] * 20 + [0] * 20 + [1] * 20
    )
    case("a reload failed", series, (reload, 22), (reload, 30, {"instance": "a"}), (reload, 45))
    case(
        "a reload is no failure of any probe",
        one("." * 60).add("langmart_prober_config_last_reload_successful", 1),
        (reload, 50),
        ("LangmartProbeDown", 50),
    )
    series = Series(60).add(
        "langmart_prober_log_write_errors_total", [0] * 20 + [1] * 40, file="results"
    )
    series.add("langmart_prober_log_lines_dropped_total", 0, file="results")
    case("lines are lost", series, (lost, 19), (lost, 22, {"file": "results"}), (lost, 50))
    blocked = "LangmartProberWriterBlocked"
    for file in ("log", "results", "state"):
        series = Series(60).add(
            "langmart_prober_log_write_in_progress_seconds",
            [0] * 20 + list(range(20, 1220, 60)) + [0] * 20,
            file=file,
        )
        case(
            f"the disk of {file} hangs",
            series,
            (blocked, 19),
            (blocked, 20, {"file": file}),
            (blocked, 39, {"file": file}),
            (blocked, 45),
        )
    series = Series(60).add(
        "langmart_prober_log_write_in_progress_seconds", [0, 9] * 30, file="log"
    )
    case("writes are slow", series, (blocked, 21), (blocked, 41))
    offline = "LangmartProberOffline"
    case(
        "offline",
        one("." * 20 + "N" * 20 + "." * 20).add(
            "langmart_prober_offline", [0] * 20 + [1] * 20 + [0] * 20
        ),
        (offline, 20),
        (offline, 22, {"instance": "a"}),
        (offline, 45),
    )
    case(
        "one failed run of each provider, every five minutes",
        one("..N..", every=5).add("langmart_prober_offline", [0] * 10 + [1] * 5 + [0] * 10),
        (offline, 12),
        (offline, 14),
    )
    failing, restarts = "LangmartProberFailing", "LangmartProberRestarts"
    case(
        "runs fail in the prober",
        one("." * 20 + "I" * 20),
        (failing, 21),
        (failing, 30, {"instance": "a"}),
    )
    case(
        "one run fails in the prober", one("." * 20 + "I" + "." * 20), (failing, 24), (failing, 30)
    )
    series = Series(60).add(
        "langmart_prober_task_restarts_total", [0] * 20 + [1] * 40, task="scheduler"
    )
    case(
        "a task was started again",
        series,
        ("LangmartProberTaskRestarts", 19),
        ("LangmartProberTaskRestarts", 22, {"task": "scheduler"}),
        ("LangmartProberTaskRestarts", 50),
    )
    starts = "process_start_time_seconds"
    for name, times, fires in (
        ("once", [5] * 20 + [1200] * 40, False),
        ("again and again", [5] * 20 + [1200] * 5 + [1500] * 5 + [1800] * 30, True),
    ):
        series = Series(60).add(starts, times).add("langmart_prober_build_info", 1, **build)
        case(
            f"started {name}",
            series,
            (restarts, 19),
            (restarts, 40, *([{"instance": "a"}] if fires else [])),
        )
    case(
        "another program is started again and again",
        Series(60).add(starts, [5, 6, 7, 8] * 15, instance="other"),
        (restarts, 40),
    )


def template_tests() -> Iterator[tuple[str, Series, int, str, dict[str, str], str, str]]:
    """Yields cases with the texts of alerts, which the other cases omit.

    Each has name, series, minute, alert, labels, summary and description.
    """
    me = {"probe": "p", "provider": "acme", "check": "chat", "model": "m"}
    series = (
        Series(30)
        .probe("." * 10 + "R" * 20)
        .add("langmart_probe_backoff_until_timestamp_seconds", 3000, **me)
    )
    yield (
        "rate limited, with the wait",
        series,
        20,
        "LangmartRateLimited",
        {"provider": "acme", "fault": "caller"},
        "acme is rate limiting the prober",
        (
            "Three consecutive runs received 429 or an equivalent. The prober backs off for another"
            " 30m 0s. Send fewer requests, spread them across the providers of a pool, or raise the"
            " tier."
        ),
    )
    for letter, fault, where in (
        ("N", "network", "on the network path: DNS, firewall, proxy or TLS"),
        ("G", "gateway", "at the gateway, LangMart or OpenRouter: check its status page"),
        ("P", "provider", "at the LLM provider: check its status page"),
    ):
        yield (
            f"down by the {fault}",
            Series(30).probe("." * 10 + letter * 20),
            20,
            "LangmartProbeDown",
            {**me, "fault": fault},
            f"p (acme, m) is down, fault: {fault}",
            (
                f"Three consecutive runs failed, the last {where}. Check the reason on the prober's"
                " page or in the drill-down, run `langmart-prober doctor acme`, and use an"
                " alternative meanwhile."
            ),
        )
    yield (
        "credit is used up",
        Series(30).probe("." * 10 + "B" * 20),
        20,
        "LangmartBilling",
        {"provider": "acme", "fault": "caller"},
        "acme: credit, quota or spending limit exhausted",
        (
            "Retrying will not help: add credit, raise the limit, or settle the bill. The account"
            " is the one of the key that the prober sends."
        ),
    )
    yield (
        "the stored key",
        Series(30).probe("." * 10 + "S" * 20),
        20,
        "LangmartStoredKeyRejected",
        {"provider": "acme", "model": "m", "fault": "provider"},
        "acme: the key stored there for m is rejected by the provider behind it",
        (
            "The key for the gateway is valid; the provider behind it rejects the key that is"
            " stored in the gateway. In the dashboard open Connections, edit the failing"
            " connection, enter a new provider key, and click Test."
        ),
    )
    page = {"probe": "s", "provider": "acme", "check": "status", "model": ""}
    for name, series, labels, shown in (
        (
            "an incident",
            Series(30).add("langmart_probe_status_page_indicator", 1, **page, indicator="major"),
            {"indicator": "major"},
            "major",
        ),
        (
            "a component",
            Series(30).add(
                "langmart_probe_status_page_component",
                1,
                **page,
                component="API",
                status="partial_outage",
            ),
            {"component": "API", "status": "partial_outage"},
            "API: partial_outage",
        ),
    ):
        yield (
            name,
            series,
            20,
            "LangmartStatusPageIncident",
            {"provider": "acme", "fault": "provider", **labels},
            "acme's status page announces an incident",
            f"It shows {shown}. Read it before you search for a cause on your side.",
        )


def quoted(text: str) -> str:
    """Returns a text as a JSON string, which YAML accepts."""
    return json.dumps(text, ensure_ascii=False)


def groups() -> list[str]:
    """Returns the names of the groups of rules, recording rules first."""
    rules = pathlib.Path(__file__).parent / "prometheus"
    texts = [(rules / f"langmart-prober.{name}.yml").read_text() for name in ("rules", "alerts")]
    return re.findall(r"^  - name: (\S+)$", "".join(texts), re.MULTILINE)


def tests(entries: list[Case], interval: str) -> str:
    """Returns a file of promtool with these cases."""
    out = (
        "# Generated by packaging/generate.py from packaging/cases.py: change it there.\n"
        "rule_files: [../langmart-prober.rules.yml, ../langmart-prober.alerts.yml]\n"
        f"evaluation_interval: {interval}\n"
        # Otherwise at random, and an alert before its recording rules finds their previous samples,
        # which an interval of five minutes makes too old.
        f"group_eval_order: [{', '.join(groups())}]\ntests:\n"
    )
    for name, series, expectations in entries:
        out += head(name, series) + "    promql_expr_test:\n"
        for alert, minute, *labels in expectations:
            if labels and isinstance(labels[0], float):
                sample = f"{{ labels: '{{}}', value: {labels[0]:g} }}"
                out += f"      - expr: {quoted(alert)}\n        eval_time: {minute}m\n"
                out += f"        exp_samples: [{sample}]\n"
                continue
            names = sorted({key for entry in labels for key in entry})
            by = f"count by ({', '.join(names)}) " if labels else ""
            firing = "(ALERTS{alertname=" + quoted(alert) + ',alertstate="firing"})'
            out += f"      - expr: {quoted(by + firing)}\n        eval_time: {minute}m\n"
            if labels:
                samples = [
                    f"{{ labels: {quoted(selector('', **entry))}, value: 1 }}" for entry in labels
                ]
                out += f"        exp_samples: [{', '.join(samples)}]\n"
    return out


def texts(severities: dict[str, str], runbooks: str) -> str:
    """Returns the cases that check the texts of alerts."""
    out = ""
    for name, series, minute, alert, labels, summary, description in template_tests():
        labels = {
            "job": "langmart-prober",
            "instance": "a",
            "severity": severities[alert],
            **labels,
        }
        out += (
            head(f"texts: {name}", series)
            + f"    alert_rule_test:\n      - alertname: {alert}\n        eval_time: {minute}m\n"
        )
        out += (
            f"        exp_alerts:\n          - exp_labels: {json.dumps(labels)}\n           "
            " exp_annotations:\n"
        )
        out += (
            f"              summary: {quoted(summary)}\n              description:"
            f" {quoted(description)}\n"
        )
        out += f"              runbook_url: {runbooks}/{alert}.md\n"
    return out


def head(name: str, series: Series) -> str:
    """Returns name and input of a case."""
    out = f"  - name: {quoted(name)}\n    interval: 1m\n    input_series:\n"
    for key, values in series.series.items():
        out += f"      - {{ series: {quoted(key)}, values: {quoted(notation(values))} }}\n"
    return out


for part in (burns, downs, callers, services, findings, probers):
    part()
