"""The rules of packaging/prometheus, and which of them an expression needs."""

import pathlib
import re
from collections.abc import Iterable, Set
from typing import Any

import yaml

Json = dict[str, Any]

PROMETHEUS = pathlib.Path(__file__).resolve().parents[2] / "packaging/prometheus"


def groups(name: str) -> list[Json]:
    """Returns the groups of a rule file."""
    text = (PROMETHEUS / f"langmart-prober.{name}.yml").read_text()
    found: list[Json] = yaml.safe_load(text)["groups"]
    return found


def name_of(rule: Json) -> str:
    """Returns the name of an alert or of the series that a rule records."""
    name: str = rule.get("record") or rule["alert"]
    return name


def reads(text: str, names: Set[str]) -> set[str]:
    """Returns which of the names a text mentions.

    `ALERTS` without a name of an alert would mention all of them.
    """
    assert not re.search(r'ALERTS(?!{alertname=")', text), text
    return set(re.findall(r"[A-Za-z_][\w:]*", text)) & names


def needed(texts: Iterable[str], rules: Iterable[Json]) -> set[str]:
    """Returns the names of the rules that texts mention, and of those that these rules read."""
    expressions: dict[str, list[str]] = {}
    for rule in rules:
        expressions.setdefault(name_of(rule), []).append(rule["expr"])
    found, left = set[str](), list(texts)
    while left:
        more = reads(left.pop(), expressions.keys() - found)
        found |= more
        left += [expression for name in more for expression in expressions[name]]
    return found
