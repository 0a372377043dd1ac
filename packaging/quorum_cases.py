"""Cases of several vantage points: how many must agree, and which of them have a vote."""

from typing import Any

from cases import Series, Value, case

# Alerts of one prober that the Quorum alerts replace where several have the probe.
ALONE = ["LangmartProbeDown", "LangmartErrorBudgetBurnFast", "LangmartErrorBudgetBurn"]
DOWN, BURN = "LangmartProbeDownQuorum", "LangmartErrorBudgetBurnQuorum"
TICKET = "LangmartQuorumNotReached"
GOOD, BAD = "." * 120, "." * 60 + "G" * 60
# Every other run fails: the budget burns, and nothing is down.
BURNS = "." * 60 + "G." * 30
P = {"probe": "p"}
COUNTER_FREE = ("thin traffic", "restart", "reload", "scrape gap", "counter reset", "new probe")


def fleet(*runs: str, **options: Any) -> Series:
    """Returns the series of a probe at several probers, called a, b, c."""
    series = Series(len(runs[0]) * options.get("every", 1))
    for instance, letters in zip("abc", runs, strict=False):
        series.probe(letters, instance=instance, **options)
    return series


def offline(series: Series, instance: str, begin: int, end: int) -> Series:
    """Makes a prober offline for some minutes."""
    values: list[Value] = [int(begin <= minute < end) for minute in range(series.minutes)]
    return series.add("langmart_prober_offline", values, instance=instance)


def silent(minute: int, *alerts: str) -> list[tuple[str, int]]:
    """Returns the expectation that alerts are silent at a minute."""
    return [(alert, minute) for alert in alerts]


def add_cases() -> None:
    """Adds all cases."""
    votes()
    absences()
    disturbances()


def votes() -> None:
    """Cases in which probers agree or do not."""
    everyone = (DOWN, BURN, TICKET, *ALONE)
    case(
        "one of three vantage points sees it: a ticket, and no page",
        fleet(BAD, GOOD, GOOD),
        *silent(59, *everyone),
        (TICKET, 75, P),
        *silent(75, DOWN, BURN, *ALONE),
        kinds=["several probers"],
    )
    case(
        "two of three vantage points see it: a page, and no ticket",
        fleet(BAD, BAD, GOOD),
        *silent(59, *everyone),
        (DOWN, 63, P),
        (DOWN, 80, P),
        (BURN, 80, P),
        *silent(80, TICKET, *ALONE),
        kinds=["fires", "several probers"],
    )
    case(
        "nothing happens at three vantage points", fleet(GOOD, GOOD, GOOD), *silent(100, *everyone)
    )
    case(
        "half of the runs fail at two of three vantage points",
        fleet(BURNS, BURNS, GOOD),
        (BURN, 90, P),
        *silent(90, DOWN, TICKET, *ALONE),
    )
    case(
        "half of the runs fail at one of three vantage points",
        fleet(BURNS, GOOD, GOOD),
        (TICKET, 95, P),
        *silent(95, DOWN, BURN, *ALONE),
    )
    series = Series(120)
    for instance, vantage, letters in (("a", "eu", BAD), ("b", "eu", BAD), ("c", "us", GOOD)):
        series.probe(letters, instance=instance, vantage=vantage)
    case(
        "two probers of one vantage point have one vote",
        series,
        (TICKET, 75, P),
        *silent(75, DOWN, BURN),
    )
    series = Series(120)
    for instance, vantage in (("a", "eu"), ("b", "us"), ("c", "asia")):
        series.probe(GOOD if vantage == "asia" else BAD, instance=instance, vantage=vantage)
    case("two of three by the label vantage", series, (DOWN, 75, P), *silent(75, TICKET, *ALONE))
    case(
        "two vantage points with other probes decide alone",
        Series(120).probe(BAD, instance="a").probe(BAD, instance="b", name="q"),
        *silent(75, DOWN, BURN, TICKET),
        ("LangmartProbeDown", 75, {"probe": "p"}, {"probe": "q"}),
    )


def absences() -> None:
    """Cases in which a prober has no vote."""
    network = "." * 60 + "N" * 60
    case(
        "an offline prober does not make up a quorum",
        offline(fleet(BAD, network, GOOD), "b", 61, 120),
        (TICKET, 80, P),
        *silent(80, DOWN, BURN, *ALONE),
    )
    case(
        "one prober sees it, the others are offline: no page by one alone",
        offline(offline(fleet(BAD, network, network), "b", 61, 120), "c", 61, 120),
        (TICKET, 80, P),
        *silent(80, DOWN, BURN, *ALONE),
    )
    case(
        "two see it, the third is offline",
        offline(fleet(BAD, BAD, network), "c", 61, 120),
        (DOWN, 80, P),
        *silent(80, TICKET, *ALONE),
    )
    absent = Series(120).probe("." * 60 + "G" * 10, instance="b").gap(70, 120, "stale")
    absent.probe(BAD, instance="a").probe(GOOD, instance="c")
    case(
        "an absent prober does not make up a quorum",
        absent,
        (DOWN, 69, P),
        (TICKET, 90, P),
        *silent(90, DOWN, *ALONE),
    )


def disturbances() -> None:
    """Cases of restarts, gaps, resets and removed probes."""
    for bad in (BAD, GOOD):
        for change in ("a restart", "a gap between scrapes"):
            series = fleet(bad, bad, bad, restart=80 if change == "a restart" else None)
            series.gap(80, 81 if change == "a restart" else 85, "stale")
            fires = [P] if bad == BAD else []
            case(
                f"{change} at three vantage points, {'failing' if fires else 'well'}",
                series,
                (DOWN, 100, *fires),
                (BURN, 110, *fires),
                *silent(110, TICKET),
                kinds=["calm", "restart", "scrape gap", "counter reset"],
            )
    case(
        "a new probe at three vantage points that never worked",
        fleet("G" * 40, "G" * 40, "G" * 40),
        (DOWN, 5, P),
        (BURN, 30, P),
        *silent(30, TICKET),
        kinds=["new probe"],
    )
    case(
        "a probe is removed from three vantage points",
        fleet(*[BAD + " " * 60] * 3).gap(120, 180, "stale"),
        (DOWN, 119, P),
        *silent(140, DOWN, BURN, TICKET),
        kinds=["reload"],
    )
    thin = "." * 5 + "G" + "." * 5
    case(
        "a single failure at each of three vantage points, every twenty minutes",
        fleet(thin, thin, thin, every=20),
        *(one for minute in (105, 125, 165) for one in silent(minute, DOWN, BURN, TICKET)),
        kinds=["thin traffic"],
    )
    for kind in ("fires", *COUNTER_FREE):
        case(
            f"one of three alone: {kind}",
            disturbed(kind),
            *silent(59, TICKET),
            *([(TICKET, 80, P)] if kind != "thin traffic" else silent(80, TICKET)),
            *silent(118, *([TICKET] if kind == "reload" else [])),
            kinds=["fires", "calm", *COUNTER_FREE],
        )


def disturbed(kind: str) -> Series:
    """Returns a probe that fails at one of three vantage points, with a disturbance."""
    letters = "." * 60 + "G." + "." * 58 if kind == "thin traffic" else BAD
    series = fleet(
        letters, GOOD, GOOD, restart=68 if kind in ("restart", "counter reset") else None
    )
    if kind == "scrape gap":
        series.gap(66, 71, "stale")
    if kind == "reload":
        series.gap(100, 120, "stale")
    return series
