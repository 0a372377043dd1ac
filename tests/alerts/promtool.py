#!/usr/bin/env python3
"""Runs the tests of the rules, packaging/prometheus/tests/, with the rules that each one needs.

    tests/alerts/promtool.py PROMTOOL

`promtool test rules FILE` evaluates all rules for each test of the file, which takes five times as
long.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections import defaultdict

import yaml
from rules import PROMETHEUS, Json, groups, name_of, needed

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parts(document: Json, known: list[Json]) -> list[tuple[Json, Json]]:
    """Splits a file of tests into parts that need the same rules: tests and rules of each."""
    rules = [rule for group in known for rule in group["rules"]]
    by_rules: dict[frozenset[str], list[Json]] = defaultdict(list)
    for test in document["tests"]:
        checked = json.dumps({key: value for key, value in test.items() if key != "input_series"})
        assert not re.search(r'ALERTS(?!{alertname=\\")', checked), f"may need any rule: {checked}"
        by_rules[frozenset(needed([checked], rules))].append(test)
    found = []
    for names, tests in by_rules.items():
        kept = [
            group | {"rules": chosen}
            for group in known
            if (chosen := [rule for rule in group["rules"] if name_of(rule) in names])
        ]
        order = [group["name"] for group in kept]
        found.append((document | {"tests": tests, "group_eval_order": order}, {"groups": kept}))
    return found


def main() -> None:
    """Runs the tests of all files; exits with 1 if one fails."""
    (promtool,) = sys.argv[1:]
    known = groups("rules") + groups("alerts")
    failed = 0
    for path in sorted(PROMETHEUS.glob("tests/*.test.yml")):
        document = yaml.load(path.read_text(), LOADER)  # noqa: S506
        split = parts(document, known)
        for tests, rules in split:
            with tempfile.TemporaryDirectory() as name:
                directory = pathlib.Path(name)
                (directory / "rules.yml").write_text(json.dumps(rules))
                tests["rule_files"] = ["rules.yml"]
                (directory / "test.yml").write_text(json.dumps(tests))
                # Alone: of several files, promtool 2.42 evaluates the last ones wrongly.
                command = [promtool, "test", "rules", str(directory / "test.yml")]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                failed += 1
                print(done.stdout, done.stderr, sep="\n")
        print(f"{path.name}: {len(document['tests'])} tests with {len(split)} sets of rules")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
