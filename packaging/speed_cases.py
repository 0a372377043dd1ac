"""Cases of the alerts that compare a service's speed with its own history."""

from collections.abc import Sequence

from cases import Series, Value, case

SLOW = {
    "LangmartSlowFirstToken": "stream",
    "LangmartSlowResponse": "chat",
    "LangmartSlowOutput": "stream",
    "LangmartGatewayOverheadHigh": "",
}
CHANGE = 76 * 60
END = CHANGE + 150
RESET = CHANGE + 90
# Runs are counted for the last hours only: promtool loads at most 10,000 samples for the windows of
# three days.
RUNS = CHANGE - 10 * 60


def counter(step: float, changed_step: float, reset: bool, gone: Sequence[int]) -> list[Value]:
    """Returns a counter that rises every minute, by another step after the change."""
    values: list[Value] = []
    total = 0.0
    for minute in range(END):
        total += changed_step if minute >= CHANGE else step
        total = 0.0 if reset and minute == RESET else total
        values.append("stale" if minute in gone else total)
    return values


def service(
    series: Series,
    instance: str,
    factor: float,
    every: int = 5,
    begins: int = 0,
    reset: bool = False,
    gone: Sequence[int] = (),
) -> None:
    """Adds a stream, a chat probe and a comparison whose times change by a factor."""
    usual, changed_rate = 1 / 5, 1 / every

    def put(name: str, values: list[Value], **labels: str) -> None:
        values[:begins] = [None] * begins
        series.add(name, values, instance=instance, **labels)

    def gauge(name: str, value: float, times: float, **labels: str) -> None:
        changed: list[Value] = [value * times] * (END - CHANGE)
        values = [value] * CHANGE + changed
        put(name, ["stale" if at in gone else one for at, one in enumerate(values)], **labels)

    def count(name: str, value: float, times: float, **labels: str) -> None:
        put(name, counter(usual * value, changed_rate * value * times, reset, gone), **labels)

    def runs(**labels: str) -> None:
        values = counter(usual, changed_rate, reset, gone)
        first = max(begins, RUNS)
        values[:first] = [None] * first
        series.add("langmart_probe_runs_total", values, instance=instance, **labels)

    stream = {"probe": f"s {instance}", "provider": "acme", "check": "stream", "model": "m"}
    chat = {**stream, "probe": f"c {instance}", "check": "chat"}
    for probe in (stream, chat):
        gauge("langmart_probe_interval_seconds", 300, 1, **probe)
    gauge("langmart_probe_last_time_to_first_token_seconds", 0.4, factor, **stream)
    count("langmart_probe_time_to_first_token_seconds_count", 1, 1, **stream)
    count("langmart_probe_time_per_output_token_seconds_count", 1, 1, **stream)
    count("langmart_probe_time_per_output_token_seconds_sum", 0.02, factor, **stream)
    gauge("langmart_probe_last_duration_seconds", 1.5, factor, **chat)
    gauge("langmart_probe_success", 1, 1, **chat)
    runs(**chat)
    count("langmart_comparison_pairs_total", 1, 1, comparison="c")
    count("langmart_comparison_gateway_seconds_total", 1.8, factor, comparison="c")
    count("langmart_comparison_direct_seconds_total", 1.5, 1, comparison="c")


def add_cases() -> None:
    """Adds all cases."""
    add_kinds()
    add_week()


def add_week() -> None:
    """Adds a case of services that differ on one day of each week, or did once."""
    day, hour = 24 * 60, 60
    days = [4 * day, 11 * day, 18 * day]
    end = days[-1] + 10 * hour
    change = end - 150
    series = Series(end)

    def stream(instance: str, usual: Sequence[float], changed: float) -> None:
        values: list[Value] = [0.4] * end
        for begin, factor in zip(days, usual, strict=True):
            values[begin : begin + 16 * hour] = [0.4 * factor] * min(16 * hour, end - begin)
        values[change:] = [0.4 * changed] * (end - change)
        labels = {"instance": instance, "probe": "s", "check": "stream"}
        series.add("langmart_probe_last_time_to_first_token_seconds", values, **labels)
        series.add("langmart_probe_interval_seconds", [300] * end, **labels)
        counted: list[Value] = [None if at < change - 600 else at // 5 for at in range(end)]
        series.add("langmart_probe_time_to_first_token_seconds_count", counted, **labels)

    stream("each week", (1.12, 1.12, 1.12), 1.2)
    stream("each week, now more", (1.12, 1.12, 1.12), 1.5)
    stream("never before", (1, 1, 1), 1.2)
    stream("last week only", (1, 1.12, 1), 1.2)
    stream("two weeks ago only", (1.12, 1, 1), 1.2)
    stream("faster last week", (1, 0.8, 1), 1.05)
    stream("faster two weeks ago", (0.8, 1, 1), 1.05)
    stream("faster each week", (0.8, 0.8, 1), 1.05)
    found = (
        "each week, now more",
        "never before",
        "last week only",
        "two weeks ago only",
        "faster each week",
    )
    case(
        "slower than at this hour, but not than on this day of the last two weeks",
        series,
        ("LangmartSlowFirstToken", change - 2),
        ("LangmartSlowFirstToken", end - 2, *({"instance": instance} for instance in found)),
    )


def add_kinds() -> None:
    """Adds the kinds of services, each on its own instance, by 1.3 slower and by 2.

    A service is measured for three days, and changes for the last two and a half hours.
    """
    series = Series(END)
    service(series, "slow", 1.3)
    service(series, "slow too", 2)
    service(series, "as ever", 1)
    service(series, "a little slower", 1.1)
    service(series, "faster", 0.5)
    service(series, "new", 2, begins=CHANGE)
    service(series, "restarted", 2, reset=True, gone=[RESET - 1])
    service(series, "restarted, as ever", 1, reset=True, gone=[RESET - 1])
    service(series, "reset", 2, reset=True)
    service(series, "gap", 2, gone=range(RESET, RESET + 5))
    service(series, "seldom", 2, every=150)
    service(series, "removed", 2, gone=range(END - 20, END))
    slow = ("slow", "slow too", "restarted", "reset", "gap")
    expected = [
        (alert, minute, *({"instance": instance} for instance in instances))
        for alert in SLOW
        for minute, instances in ((CHANGE - 2, ()), (END - 30, (*slow, "removed")), (END - 2, slow))
    ]
    kinds = (
        "fires/calm/thin traffic/restart/reload/scrape gap/counter reset/new probe/several probers"
    )
    case(
        "slower than at this hour of three days: by 1.3 within two hours",
        series,
        *expected,
        kinds=kinds.split("/"),
    )
