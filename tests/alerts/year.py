#!/usr/bin/env python3
"""Measures the error rate of the alerts: a year in simulation, evaluated by a real Prometheus.

    tests/year [--seed S] [--days N] [--only INCIDENT…] [--promtool P] [--prometheus P]

year_world.py simulates probers. promtool writes their samples, and the results of the recording
rules, into blocks; a Prometheus answers the expression of each alert for every minute. Only `for`
and the inhibition of alertmanager.yml are applied here. It prints a table, and fails if an incident
is missed, more than one page is false, or hard failures take more than three intervals in the
median.
"""

import argparse
import concurrent.futures
import functools
import json
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import yaml
from rules import groups, needed, reads
from year_world import BEGIN, DAY, INCIDENTS, WARM_UP, Incident, World

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGING = ROOT / "packaging"
# A block of promtool, in minutes, which is also below the 11,000 steps of a query.
BLOCK = 162 * 60
# The blocks have no marks for the end of a series. Groups of two minutes need this much.
LOOKBACK = "2m"
# A page is part of an incident until so many minutes after it.
AFTER = 15
PROBERS = ("1m", "5m")


def seconds(text: str) -> int:
    """Returns a duration of Prometheus in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(
        int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", text or "0s")
    )


def levels() -> list[list[dict[str, Any]]]:
    """Returns the recording rules that the alerts need, each level after those it reads."""
    alerts = [rule["expr"] for group in groups("alerts") for rule in group["rules"]]
    records = [
        {**rule, "interval": group["interval"]}
        for group in groups("rules")
        for rule in group["rules"]
    ]
    chosen = needed(alerts, records)
    found: list[list[dict[str, Any]]] = []
    left, known = [rule for rule in records if rule["record"] in chosen], set[str]()
    while left:
        now = [rule for rule in left if reads(rule["expr"], chosen) <= known]
        assert now, f"rules that read each other: {left}"
        found.append(now)
        left = [rule for rule in left if rule not in now]
        known |= {rule["record"] for rule in now} - {rule["record"] for rule in left}
    return found


class Database:
    """Blocks in a directory, and a Prometheus that answers queries about them."""

    def __init__(self, arguments: argparse.Namespace, directory: pathlib.Path) -> None:
        """Creates an empty database."""
        self.promtool, self.prometheus = arguments.promtool, arguments.prometheus
        self.directory, self.data = directory, directory / "data"
        self.server: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        (directory / "prometheus.yml").write_text("")
        # Blocks of samples and of rules overlap, which is no reason to rewrite them.
        option = "--no-storage.tsdb.allow-overlapping-compaction"
        known = subprocess.run(
            [self.prometheus, option, "--version"], capture_output=True, check=False
        )
        self.options = [option] if known.returncode == 0 else []

    def run(self, *command: str) -> None:
        """Runs promtool."""
        done = subprocess.run(
            [self.promtool, "tsdb", "create-blocks-from", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"promtool {command}: {done.stdout} {done.stderr}")

    def write(self, name: str, lines: dict[str, list[str]]) -> None:
        """Writes a block of samples, in OpenMetrics format."""
        path = self.directory / f"samples-{name}"
        with path.open("w") as file:
            for rows in lines.values():
                file.write("".join(rows))
            file.write("# EOF\n")
        self.run("openmetrics", "--quiet", "--max-block-duration=162h", str(path), str(self.data))
        path.unlink()

    def record(self, rules: list[dict[str, Any]], end: int) -> None:
        """Writes the results of recording rules."""
        parts = []
        for number in range(2):
            by_interval: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for rule in rules[number::2]:
                kept = {key: value for key, value in rule.items() if key != "interval"}
                by_interval["2m" if rule["interval"] == "2m" else "1m"].append(kept)
            path = self.directory / f"rules-{number}.yml"
            made = [
                {"name": interval, "interval": interval, "rules": some}
                for interval, some in by_interval.items()
            ]
            path.write_text(yaml.safe_dump({"groups": made}))
            out = self.directory / f"recorded-{number}"
            if made:
                parts.append((str(path), str(out)))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.backfill, *part, end) for part in parts]:
                done.result()
        self.stop()
        for _, written in parts:
            for block in pathlib.Path(written).iterdir():
                if block.is_dir():
                    block.rename(self.data / block.name)
            shutil.rmtree(written)
        self.start()

    def backfill(self, rules: str, out: str, end: int) -> None:
        """Evaluates a file of recording rules."""
        self.run(
            "rules", "--quiet", f"--url={self.url}", f"--start={BEGIN}", f"--end={end}",
            f"--output-dir={out}", "--max-block-duration=162h", rules,
        )  # fmt: skip

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        self.server = subprocess.Popen(
            [
                self.prometheus, f"--config.file={self.directory}/prometheus.yml",
                f"--storage.tsdb.path={self.data}", "--storage.tsdb.retention.time=100y",
                f"--web.listen-address={self.url[7:]}", f"--query.lookback-delta={LOOKBACK}",
                "--storage.tsdb.max-block-duration=162h", "--storage.tsdb.min-block-duration=162h",
                *self.options,
            ],
            stdout=subprocess.DEVNULL, stderr=(self.directory / "log").open("w"),
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=10).close()
                return
            except OSError:
                time.sleep(0.2)
        sys.exit(f"Prometheus does not start: {(self.directory / 'log').read_text()}")

    def stop(self) -> None:
        """Stops the server."""
        if self.server:
            self.server.terminate()
            self.server.wait()

    def ask(self, expression: str, begin: int, end: int) -> list[dict[str, Any]]:
        """Returns the answer of a query for every minute of a range."""
        query = {"query": expression, "start": begin, "end": end, "step": 60}
        data = urllib.parse.urlencode(query).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range", data, timeout=600) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


@dataclass
class Alert:
    """An alert that fired: its labels, and the first and last minute."""

    labels: dict[str, str]
    begin: int
    end: int


def fill(database: Database, world: World, number: int) -> None:
    """Writes the samples of one prober of the world."""
    prober = world.probers[number]
    lines: dict[str, list[str]] = defaultdict(list)
    for minute, samples in world.play(prober):
        tail = f" {BEGIN + 60 * minute}\n"
        for key, value in samples.items():
            lines[key].append(f"{key} {value}{tail}")
        if minute % BLOCK == BLOCK - 1 or minute == world.minutes - 1:
            database.write(prober.instance, lines)
            lines = defaultdict(list)


def fired(database: Database, rule: dict[str, Any], minutes: int) -> list[Alert]:
    """Returns the alerts of a rule, after its `for`."""
    active: dict[str, list[int]] = defaultdict(list)
    for begin in range(0, minutes, BLOCK):
        last = min(begin + BLOCK, minutes) - 1
        for one in database.ask(rule["expr"], BEGIN + 60 * begin, BEGIN + 60 * last):
            labels = {key: value for key, value in one["metric"].items() if key != "__name__"}
            named = labels | rule["labels"] | {"alertname": rule["alert"]}
            key = json.dumps(named, sort_keys=True)
            active[key] += [(int(float(stamp)) - BEGIN) // 60 for stamp, _ in one["values"]]
    wait, found = seconds(rule.get("for", "")) // 60, []
    for key, times in active.items():
        for first, last in spans(times):
            if last - first >= wait:
                found.append(Alert(json.loads(key), first + wait, last))
    return found


def spans(times: list[int]) -> list[tuple[int, int]]:
    """Returns the first and last of each run of consecutive minutes."""
    found: list[tuple[int, int]] = []
    for minute in times:
        if found and minute == found[-1][1] + 1:
            found[-1] = (found[-1][0], minute)
        else:
            found.append((minute, minute))
    return found


def matches(labels: dict[str, str], matchers: list[str]) -> bool:
    """Returns whether labels match matchers of Alertmanager."""
    for matcher in matchers:
        parsed = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher)
        assert parsed, matcher
        name, operator, value = parsed.groups()
        actual = labels.get(name, "")
        alike = bool(re.fullmatch(value, actual)) if "~" in operator else actual == value
        if alike == operator.startswith("!"):
            return False
    return True


def notified(alerts: list[Alert]) -> list[Alert]:
    """Returns the alerts that are not inhibited all the time, from when they notify."""
    text = (PACKAGING / "alertmanager/alertmanager.yml").read_text()
    rules = yaml.safe_load(text)["inhibit_rules"]
    found = []
    for alert in alerts:
        hidden = set[int]()
        for rule in rules:
            if not matches(alert.labels, rule["target_matchers"]):
                continue
            for other in alerts:
                equal = all(
                    alert.labels.get(name) == other.labels.get(name)
                    for name in rule.get("equal", [])
                )
                overlap = other.begin <= alert.end and other.end >= alert.begin
                if (
                    equal
                    and overlap
                    and other is not alert
                    and matches(other.labels, rule["source_matchers"])
                ):
                    hidden.update(
                        range(max(alert.begin, other.begin), min(alert.end, other.end) + 1)
                    )
        first = next((at for at in range(alert.begin, alert.end + 1) if at not in hidden), None)
        if first is not None:
            found.append(Alert(alert.labels, first, alert.end))
    return found


def interval_of(labels: dict[str, str]) -> str:
    """Returns whether an alert is about the probes of a minute or of five."""
    text = labels.get("probe", "") or labels.get("instance", "")
    return "5m" if text.endswith("5m") else "1m"


def report(world: World, alerts: list[Alert], seed: int) -> int:
    """Prints the tables, and returns the number of broken promises."""
    print(f"\nSeed {seed}, {world.minutes // DAY - WARM_UP} days.\n")
    print("| incident | alert | 1 minute | 5 minutes |\n|---|---|---|---|")
    missed, intervals = 0, []
    for incident in world.incidents:
        cells, names = [], set()
        for interval in PROBERS:
            found = [
                alert
                for alert in alerts
                if alert.labels["alertname"] in incident.found_by
                and interval_of(alert.labels) == interval
                and incident.begin <= alert.begin <= incident.end + AFTER
            ]
            first = min(found, key=lambda alert: alert.begin, default=None)
            if first is None:
                missed += 1
                cells.append("missed")
                continue
            names.add(first.labels["alertname"])
            took = first.begin - incident.begin
            cells.append(f"{took} min")
            if incident.hard:
                intervals.append(took / int(interval[0]))
        kind = " (hard)" if incident.hard else ""
        print(f"| {incident.name}{kind} | {', '.join(sorted(names))} | {' | '.join(cells)} |")
    false = [alert for alert in alerts if is_false(alert, world.incidents)]
    pages = [alert for alert in false if alert.labels["severity"] == "critical"]
    median = statistics.median(intervals) if intervals else 0.0
    print(
        f"\nMedian time to detect a hard failure: {median:.1f} probe intervals. Missed: {missed}."
    )
    print(f"False pages: {len(pages)}.")
    print("\n| ticket outside of an incident | number |\n|---|---|")
    tickets: dict[str, int] = defaultdict(int)
    for alert in false:
        if alert.labels["severity"] == "warning":
            tickets[f"{alert.labels['alertname']}, {interval_of(alert.labels)}"] += 1
    for name, count in sorted(tickets.items()):
        print(f"| {name} | {count} |")
    for alert in pages:
        print(f"false page at minute {alert.begin}, until {alert.end}: {alert.labels}")
    return missed + (median > 3) + (len(pages) > 1)


def is_false(alert: Alert, incidents: tuple[Incident, ...]) -> bool:
    """Returns whether no incident explains an alert of the year."""
    if alert.end < WARM_UP * DAY:
        return False
    during = [one for one in incidents if one.begin <= alert.begin <= one.end + AFTER]
    if alert.labels["severity"] == "critical":
        return not any(alert.labels["alertname"] in one.found_by + one.pages for one in during)
    # Windows of hours remember an incident for longer.
    return not any(one.begin <= alert.begin <= one.end + 3 * DAY for one in incidents)


def main() -> None:
    """Simulates, evaluates, reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--only", nargs="*", help="incidents to play; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="processes that write samples")
    parser.add_argument("--promtool", default="promtool")
    parser.add_argument("--prometheus", default="prometheus")
    arguments = parser.parse_args()
    chosen = tuple(one for one in INCIDENTS if not arguments.only or one.name in arguments.only)
    world = World(arguments.seed, arguments.days, chosen)
    started = time.monotonic()

    def progress(what: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as directory:
        database = Database(arguments, pathlib.Path(directory))
        with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as processes:
            probers = range(len(world.probers))
            list(processes.map(functools.partial(fill, database, world), probers))
        progress("samples written")
        database.start()
        try:
            for number, level in enumerate(levels(), 1):
                database.record(level, BEGIN + 60 * (world.minutes - 1))
                progress(f"recording rules, level {number}")
            rules = [rule for group in groups("alerts") for rule in group["rules"]]
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                found = pool.map(lambda rule: fired(database, rule, world.minutes), rules)
                alerts = [alert for some in found for alert in some]
            progress("alerts")
        finally:
            database.stop()
    sys.exit(1 if report(world, notified(alerts), arguments.seed) else 0)


if __name__ == "__main__":
    main()
