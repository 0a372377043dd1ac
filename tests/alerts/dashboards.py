#!/usr/bin/env python3
"""Checks that every query of the dashboards returns data, and that Grafana's types accept them.

    tests/alerts/dashboards.py --prober target/release/langmart-prober [--prometheus PROGRAM]

A Prometheus that scraped the demo answers the queries. The second check needs the Python package
grafana-foundation-sdk; without it, it prints SKIPPED.
"""

import argparse
import json
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))
watch = __import__("try")

Json = dict[str, Any]

SPEED = 360
# The demo writes no files, so that it has no lines to lose, and announces no shutdown of a model.
EMPTY = (
    "langmart_prober_log_lines_dropped_total",
    "langmart_prober_log_write_errors_total",
    "min by (model) (langmart_probe_model_shutdown_timestamp_seconds",
)
# Options of Grafana 11 and the Prometheus data source's own members of annotations. The types, of
# Grafana 10, do not have them.
NEWER = re.compile(
    r"\.annotations\.list\[\]\.(step|titleFormat|textFormat|useValueForTime)"
    r"|\.panels\[\]\.options\.(maxVizHeight|namePlacement|sizing)"
)


def queries(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Yields title and expression of each target and variable, with everything selected."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = re.sub(r"\$__(rate_interval|interval|range)", "15m", target["expr"])
            expression = re.sub(r"\$(job|instance|provider|model|probe)\b", ".*", expression)
            assert "$" not in expression, expression
            # What did not happen is not in the panel.
            expression = expression.removesuffix(" > 0")
            yield panel["title"], watch.hastened(expression, SPEED)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert match, variable
            metric = match[1]
            yield (
                f"${variable['name']}",
                re.sub(r'"\$\w+"', '".+"', metric).replace('model=~".+"', 'model=~".*"'),
            )


def parsed(dashboard: Json) -> list[str]:
    """Returns the paths of a dashboard that Grafana's types lose."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    back = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    return sorted(path for path in lost(dashboard, back, "") if not NEWER.fullmatch(path))


def lost(before: Any, after: Any, path: str) -> list[str]:
    """Returns the paths of what is in one JSON value and not in the other."""
    if isinstance(before, dict):
        if not isinstance(after, dict):
            return [path]
        return [
            entry
            for key, value in before.items()
            for entry in (
                lost(value, after[key], f"{path}.{key}")
                if key in after
                else []
                if value in ("", [], {}, None, False)
                else [f"{path}.{key}"]
            )
        ]
    if isinstance(before, list):
        if not isinstance(after, list) or len(before) != len(after):
            return [path]
        return [
            entry
            for one, other in zip(before, after, strict=True)
            for entry in lost(one, other, f"{path}[]")
        ]
    return [] if before == after else [path]


def main() -> None:
    """Prints every query without data; exits with 1 if there is one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prober", required=True)
    parser.add_argument("--prometheus", default="prometheus")
    arguments = parser.parse_args()
    dashboards = {
        path.name: json.loads(path.read_text())
        for path in sorted((ROOT / "packaging/grafana").glob("*.json"))
    }
    wrong = []
    try:
        for name, dashboard in dashboards.items():
            wrong += [f"{name}: Grafana's types do not know {path}" for path in parsed(dashboard)]
    except ImportError:
        print("SKIPPED: the Python package grafana-foundation-sdk is missing")
    with tempfile.TemporaryDirectory() as directory:
        prober, address = watch.start_prober(
            arguments.prober, directory, "demo", "--listen", "127.0.0.1:0"
        )
        try:
            watchers = watch.Watchers(
                directory, [address], SPEED, lambda message: None, arguments.prometheus
            )
            try:
                left = [
                    (name, *query)
                    for name, dashboard in dashboards.items()
                    for query in queries(dashboard)
                    if not any(metric in query[1] for metric in EMPTY)
                ]
                count, end = len(left), time.monotonic() + 90
                while left and time.monotonic() < end:
                    time.sleep(1)
                    # A value that is not a number is no data.
                    left = [
                        entry
                        for entry in left
                        if not any(
                            result["value"][1] != "NaN" for result in watchers.query(entry[2])
                        )
                    ]
                wrong += [
                    f"{name}: {title}: no data: {expression}" for name, title, expression in left
                ]
            finally:
                watchers.stop()
        finally:
            prober.terminate()
            prober.wait()
    for line in wrong:
        print(f"FAILED: {line}")
    print(f"{count - len(left)} of {count} queries return data")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
