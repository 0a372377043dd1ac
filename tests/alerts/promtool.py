#!/usr/bin/env python3
"""Runs the tests of the rules, packaging/prometheus/tests/, with the rules that each one needs.

    tests/alerts/promtool.py PROMTOOL

`promtool test rules FILE` evaluates all rules for each test of the file, which takes five times as
long.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from collections import defaultdict

import yaml
from rules import PROMETHEUS, Json, groups, name_of, needed

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parts(document: Json, known: list[Json], every_rule: bool) -> list[tuple[Json, Json]]:
    """Splits a file of tests into parts that need the same rules: tests and rules of each."""
    rules = [rule for group in known for rule in group["rules"]]
    by_names: dict[frozenset[str], list[Json]] = defaultdict(list)
    for test in document["tests"]:
        texts = [one["expr"] for one in test.get("promql_expr_test", [])]
        texts += [one["alertname"] for one in test.get("alert_rule_test", [])]
        names = frozenset(map(name_of, rules) if every_rule else needed(texts, rules))
        by_names[names].append(test)
    found = []
    for names, tests in by_names.items():
        groups_kept = kept(names, known)
        order = [group["name"] for group in groups_kept]
        part = document | {"tests": tests, "group_eval_order": order}
        found.append((part, {"groups": groups_kept}))
    return found


def kept(names: frozenset[str], known: list[Json]) -> list[Json]:
    """Returns the groups with only the rules of these names."""
    found = []
    for group in known:
        rules = [rule for rule in group["rules"] if name_of(rule) in names]
        if rules:
            found.append(group | {"rules": rules})
    return found


def main() -> None:
    """Runs the tests of all files; exits with 1 if one fails."""
    (promtool,) = sys.argv[1:]
    known = groups("rules") + groups("alerts")
    failed = 0
    paths = sorted(PROMETHEUS.glob("tests/*.test.yml"))
    assert paths, "there are no tests"
    for path in paths:
        document = yaml.load(path.read_text(), LOADER)  # noqa: S506
        # So that each rule is evaluated at least once, by several probers.
        split = parts(document, known, every_rule=path.name.startswith("kinds"))
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
                print(path.name, done.stdout, done.stderr, sep="\n")
        print(f"{path.name}: {len(document['tests'])} tests with {len(split)} sets of rules")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
