"""Evaluates the queries of a dashboard as Grafana does."""

import json
import re
import sys
import urllib.error
from typing import Any

sys.dont_write_bytecode = True

from situations import HOURS, watch  # noqa: E402

Json = dict[str, Any]

# `timeInterval` of the data source: the scrape interval, in seconds.
SCRAPE = 60
# Grafana's steps: up to each bound, in seconds, the step.
STEPS = [
    (7.5, 5), (12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120), (450, 300),
    (750, 600), (1050, 900), (1500, 1200), (2700, 1800),
]  # fmt: skip


def step_of(panel: Json, pixels: float) -> int:
    """Returns the step of a panel's range queries, in seconds."""
    raw = HOURS * 3600 / pixels
    rounded = next(step for bound, step in STEPS if raw < bound)
    least = {"5m": 300, None: SCRAPE}[panel.get("interval")]
    return max(least, rounded)


def interpolated(expr: str, job: str, probe: str, step: int) -> str:
    """Replaces the variables of a query."""
    for name, value in (
        ("$__rate_interval", f"{max(step + SCRAPE, 4 * SCRAPE)}s"),
        ("$__interval", f"{step}s"),
        ("$__range", f"{HOURS * 3600}s"),
        ("$job", job),
        ("$probe", probe),
    ):
        expr = expr.replace(name, value)
    expr = re.sub(r"\$(instance|provider|model)\b", ".*", expr)
    assert "$" not in expr, expr
    return expr


def legend(text: str, labels: dict[str, str]) -> str:
    """Returns the name of a series."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), text).strip()


class Evaluated:
    """The dashboards of one situation, with the results of their queries."""

    def __init__(self, address: str, end: float, job: str, probe: str) -> None:
        """Remembers where and of what to ask."""
        self.address, self.end, self.job, self.probe = address, end, job, probe
        self.errors: list[str] = []

    def ask(self, path: str, **parameters: object) -> list[Json]:
        """Returns the result of a query."""
        try:
            answer = json.loads(watch.ask(self.address, path, **parameters))
        except urllib.error.HTTPError as error:
            self.errors.append(f"{parameters['query']}: {error.read().decode()}")
            return []
        return answer["data"]["result"]

    def target(self, target: Json, step: int, probe: str) -> Json:
        """Returns the result of one query of a panel."""
        expr = interpolated(target["expr"], self.job, probe, step)
        series = []
        if target["instant"]:
            found = self.ask("/api/v1/query", query=expr, time=self.end)
            for result in found:
                series.append((result["metric"], [result["value"]]))
        else:
            start, end = (self.end - HOURS * 3600) // step * step, self.end // step * step
            found = self.ask("/api/v1/query_range", query=expr, start=start, end=end, step=step)
            for result in found:
                values = dict(result["values"])
                times = [start + step * index for index in range(int((end - start) / step) + 1)]
                series.append((result["metric"], [(at, values.get(at)) for at in times]))
        return {
            "refId": target["refId"],
            "format": target["format"],
            "series": [
                {
                    "labels": labels,
                    "name": legend(target["legendFormat"], labels),
                    "times": [round(at * 1000) for at, _ in samples],
                    "values": [
                        None if value in (None, "NaN") else float(value) for _, value in samples
                    ],
                }
                for labels, samples in series
            ],
        }

    def annotations(self, dashboard: Json) -> list[Json]:
        """Returns the marks on the time axis."""
        found = []
        for annotation in dashboard["annotations"]["list"]:
            expr = interpolated(annotation["expr"], self.job, ".*", 60)
            for result in self.ask(
                "/api/v1/query_range",
                query=expr,
                start=self.end - HOURS * 3600,
                end=self.end,
                step=60,
            ):
                values = result["values"]
                times = (
                    {float(value) / 1000 for _, value in values}
                    if annotation.get("useValueForTime")
                    else {float(values[0][0])}
                )
                name = legend(annotation["titleFormat"], result["metric"])
                found += [
                    {"time": time, "color": annotation["iconColor"], "name": name} for time in times
                ]
        return found

    def dashboard(self, dashboard: Json, width: int) -> Json:
        """Returns a dashboard with the results of its queries."""
        single = any(
            not variable["includeAll"]
            for variable in dashboard["templating"]["list"]
            if variable["name"] == "probe"
        )
        probe = self.probe if single else ".*"
        panels = []
        for panel in dashboard["panels"]:
            step = step_of(panel, width * panel["gridPos"]["w"] / 24)
            results = [self.target(target, step, probe) for target in panel.get("targets", [])]
            panels.append({**panel, "step": step, "results": results})
        return {
            "width": width,
            "from": self.end - HOURS * 3600,
            "to": self.end,
            "panels": panels,
            "annotations": self.annotations(dashboard),
        }
