"""Checks of what a person sees in the pictures: colours, numbers, absence."""

import re
import sys
from collections.abc import Iterator
from typing import Any

sys.dont_write_bytecode = True

from situations import Recorded  # noqa: E402

Json = dict[str, Any]

# Grafana's colours of the dark theme, as the items of a panel have them.
GREEN, RED, ORANGE, YELLOW, BLUE, PURPLE = (
    "#73bf69", "#f2495c", "#ff9830", "#fade2a", "#5794f2", "#b877d9",
)  # fmt: skip
GREY = "#8e8e8e"
ALARMING = (RED, ORANGE, YELLOW, PURPLE)

# Panels that have nothing to show while all is well or for a probe of another kind, and what they
# show then. Each other panel has data in every situation, except after a start.
EMPTY_BY_DESIGN = {
    "What fails now": "No probe reports a failure.",
    "Alerts and their runbooks": "No alert is firing.",
    "Failed runs by responsible party": "none recorded",
    "Failed runs by reason": "none recorded",
    "Error codes of the API": "none recorded",
    "Rate-limited runs by exceeded limit": "none recorded",
    "Skipped runs by cause": "none recorded",
    "Rechecks by result": "none recorded",
    "Lost lines and failed writes": "none recorded",
    "Task restarts": "none recorded",
    "Model shuts down in": "none announced",
    "Name servers": "no server configured",
    "Certificate expires in": "no TLS",
    "First token": "no stream",
    "Output speed, tokens per second": "no stream",
    "Streams held back": "no stream",
    "Requested model answers": "no run decided it",
    "Tokens per hour": "no generation check",
    "Cost per day, at the last hour's rate": "no generation check with a price",
    "Rate limit left": "none reported",
    "Balance": "none reported",
    "Slow runs": "no slow_after configured",
    "Status pages": "no status page",
}

# Fault, failing provider and colour of the situations in which something fails.
FAULTS = {
    "key-rejected": (
        ("our side", "anthropic", YELLOW, "auth_failed"),
        ("LangmartKeyRejected", "LangmartKeyRejected"),
    ),
    "gateway-down": (
        ("gateway", "langmart", RED, "unavailable"),
        ("LangmartProbeDown", "LangmartServiceUnavailable"),
    ),
}


class Seen:
    """What a person sees in a picture."""

    def __init__(self, seen: Json) -> None:
        """Indexes the panels by their titles."""
        self.panels: dict[str, Json] = {panel["title"]: panel for panel in seen["panels"]}

    def items(self, title: str) -> list[Json]:
        """Returns the values of a panel."""
        return self.panels[title]["items"]

    def values(self, title: str) -> dict[str, tuple[str, str]]:
        """Returns text and colour of each value of a panel, by its name."""
        return {
            item["item"]: (item["value"], item.get("color", "").lower())
            for item in self.items(title)
        }

    def rows(self, title: str) -> list[dict[str, tuple[str, str]]]:
        """Returns text and colour of each cell of a table, by the heading."""
        rows: dict[str, dict[str, tuple[str, str]]] = {}
        for item in self.items(title):
            if "row" in item:
                cell = (item["value"], item.get("color", "").lower())
                rows.setdefault(item["row"], {})[item["item"]] = cell
        return list(rows.values())


def check(job: str, dashboard: str, seen: Json, recorded: Recorded) -> Iterator[str]:
    """Yields what is wrong with a picture."""
    yield from seen["errors"]
    yield from layout(seen["panels"])
    picture = Seen(seen)
    yield from absence(picture, job)
    if dashboard == "overview":
        yield from numbers(picture, recorded.probes[job])
        yield from CHECKS[job](picture, job)
    if job == "all-well":
        for title, panel in picture.panels.items():
            for item in panel["items"]:
                if item.get("color", "").lower() in ALARMING and "sum" not in item:
                    yield f"{title}: {item['item']} {item['value']} is in {item['color']}"


def layout(panels: list[Json]) -> Iterator[str]:
    """Yields the panels that overlap, and the texts that are cut off."""
    for index, panel in enumerate(panels):
        left, top, right, bottom = panel["box"]
        for other in panels[index + 1 :]:
            if left < other["box"][2] and other["box"][0] < right:
                if top < other["box"][3] and other["box"][1] < bottom:
                    yield f"{panel['title']} overlaps {other['title']}"
        for text in panel["cutOff"]:
            yield f"{panel['title']}: cut off: {text}"


def absence(picture: Seen, job: str) -> Iterator[str]:
    """Yields the panels that are empty though they should not be, or have the wrong words."""
    for title, panel in picture.panels.items():
        if panel["kind"] == "row":
            continue
        items = panel["items"]
        if not items:
            yield f"{title}: nothing is drawn"
        elif [item["item"] for item in items] == [""]:
            expected = {EMPTY_BY_DESIGN.get(title)}
            if job == "just-started":
                expected |= {"no data", "none recorded"}
            if items[0]["value"] not in expected:
                yield f"{title}: {items[0]['value']}"


def numbers(picture: Seen, probes: list[Json]) -> Iterator[str]:
    """Compares the numbers at the top with what the prober itself reports."""
    failing = [probe for probe in probes if probe.get("reason", "ok") != "ok"]
    unknown = [probe for probe in probes if "last_run" not in probe]
    working = len(probes) - len(failing) - len(unknown)
    faults = [probe["fault"] for probe in failing]
    expected = {
        "working": (str(working), GREEN if working else GREY),
        "failing": (str(len(failing)), RED if failing else GREEN),
        "not run yet": (str(len(unknown)), GREY),
    }
    yield from different("Probes", picture.values("Probes"), expected)
    parties = {
        name: (str(faults.count(fault)), color if fault in faults else GREEN)
        for name, fault, color in (
            ("gateway", "gateway", RED),
            ("provider", "provider", PURPLE),
            ("network", "network", ORANGE),
            ("our side", "caller", YELLOW),
            ("prober", "prober", BLUE),
        )
    }
    title = "Failing probes by responsible party"
    yield from different(title, picture.values(title), parties)
    named = sorted(row["Probe"][0] for row in picture.rows("What fails now"))
    if named != sorted(probe["probe"] for probe in failing):
        yield f"What fails now names {named}"


def different(title: str, found: object, expected: object) -> Iterator[str]:
    """Yields a line if what is found is not what is expected."""
    if found != expected:
        yield f"{title}: {found} instead of {expected}"


def well(picture: Seen, _: str) -> Iterator[str]:
    """Checks a picture in which nothing fails now."""
    yield from different("Prober", next(iter(picture.values("Prober").values())), ("up", GREEN))
    alerts = {"critical": ("0", GREEN), "warning": ("0", GREEN)}
    yield from different("Alerts firing", picture.values("Alerts firing"), alerts)
    yield from different("slower", picture.values("Slower than usual"), {"Value": ("0", GREEN)})
    for title in ("Availability of services, 3 days", "Error budget left of 30 days"):
        for name, (value, color) in picture.values(title).items():
            if color != GREEN:
                yield f"{title}: {name}: {value} is in {color}"
    yield from timeline(picture, {})


def failing(picture: Seen, job: str) -> Iterator[str]:
    """Checks a picture in which a service has failed for forty minutes."""
    (party, provider, color, reason), (alert, runbook) = FAULTS[job]
    rows = picture.rows("What fails now")
    if not rows:
        yield "What fails now is empty"
    for row in rows:
        values = {key: row[key] for key in ("Provider", "Fault", "Reason")}
        yield from different(
            row["Probe"][0],
            (values["Provider"][0], values["Fault"], values["Reason"][0]),
            (provider, (party, color), reason),
        )
        minutes = re.fullmatch(r"(\d+) mins?", row["For"][0])
        if not minutes or not 34 <= int(minutes[1]) <= 42:
            yield f"{row['Probe'][0]} fails for {row['For'][0]}"
        if not row["What to do"][0] or row["What to do"][0] in ("–", reason):
            yield f"{row['Probe'][0]}: no remedy"
    links = [link for cell in picture.panels["What fails now"]["cells"] for link in cell["links"]]
    for part in ("/d/langmart-prober-probe?", f"/runbooks/{runbook}.md", "/probes/"):
        if not any(part in link for link in links):
            yield f"What fails now has no link with {part}: {links}"
    firing = [row for row in picture.rows("Alerts and their runbooks") if row["Alert"][0] == alert]
    if not firing or {row["Severity"] for row in firing} != {("critical", RED)}:
        yield f"{alert} does not fire in red: {firing}"
    critical = picture.values("Alerts firing").get("critical", ("", ""))
    if critical[0] == "0" or critical[1] != RED:
        yield f"Alerts firing: {critical}"
    yield from timeline(picture, {provider: (party, color)})
    bars = picture.values("Failed runs by responsible party")
    if party not in bars:
        yield f"Failed runs by responsible party: {bars}"
    if not is_drawn(color, picture, "Failed runs by responsible party"):
        yield f"Failed runs by responsible party: no bar in {color}"
    down = party == "gateway"
    for name, (value, shown) in picture.values("Availability of services, 3 days").items():
        expected = RED if down and name.startswith(provider) else GREEN
        if shown != expected:
            yield f"Availability of services, 3 days: {name}: {value} is in {shown}"


def slow(picture: Seen, _: str) -> Iterator[str]:
    """Checks a picture in which OpenAI has answered slowly for forty minutes."""
    value, color = picture.values("Slower than usual")["Value"]
    if value == "0" or color != ORANGE:
        yield f"Slower than usual: {value} in {color}"
    for row in picture.rows("Speed of chat and stream probes"):
        ratio, color = row["Against usual"]
        is_slow = color in (ORANGE, RED)
        if is_slow != (row["Provider"][0] == "openai") and ratio != "–":
            yield f"Speed: {row['Probe'][0]} {ratio} is in {color}"
    yield from timeline(picture, {})


def retired(picture: Seen, job: str) -> Iterator[str]:
    """Checks a picture in which a failing probe was removed forty minutes ago."""
    yield from well(without(picture, "State by provider and model"), job)
    old = [
        item for item in picture.items("State by provider and model") if "gpt-3.5" in item["item"]
    ]
    if [(item["value"], item["color"].lower()) for item in old] != [("our side", YELLOW)]:
        yield f"State by provider and model: {old}"
    for title in (
        "Probes",
        "What fails now",
        "Alerts and their runbooks",
        "Speed of chat and stream probes",
    ):
        if "retired" in picture.panels[title]["text"]:
            yield f"{title} has a probe that was removed"


def started(picture: Seen, _: str) -> Iterator[str]:
    """Checks a picture of a prober that started some minutes ago."""
    for name, (value, color) in picture.values("Availability of services, 3 days").items():
        if color == RED:
            yield f"Availability of services, 3 days: {name}: {value} is in {color}"
    known = {("ok", GREEN), ("not run yet", GREY)}
    for item in picture.items("State by provider and model"):
        if (item["value"], item.get("color", "").lower()) not in known:
            yield f"State by provider and model: {item}"


def without(picture: Seen, title: str) -> Seen:
    """Returns a picture in which one panel is all well."""
    panels = [
        {**panel, "items": []} if panel["title"] == title else panel
        for panel in picture.panels.values()
    ]
    return Seen({"panels": panels})


def timeline(picture: Seen, expected: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Checks the last state of each provider."""
    last = {}
    for item in picture.items("State by provider and model"):
        last[item["item"]] = (item["value"], item.get("color", "").lower())
    for name, state in last.items():
        want = expected.get(name.split()[0], ("ok", GREEN))
        yield from different(f"State by provider and model: {name}", state, want)


def is_drawn(color: str, picture: Seen, title: str) -> bool:
    """Returns whether a chart has a colour; a browser rounds what is transparent."""

    def parts(text: str) -> list[int]:
        return [int(text[at : at + 2], 16) for at in (1, 3, 5)]

    return any(
        all(abs(one - other) <= 3 for one, other in zip(parts(color), parts(found), strict=True))
        for found in picture.panels[title]["colors"]
    )


CHECKS = {
    "all-well": well,
    "key-rejected": failing,
    "gateway-down": failing,
    "provider-slow": slow,
    "just-started": started,
    "probe-retired": retired,
}
