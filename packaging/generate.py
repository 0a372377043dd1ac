#!/usr/bin/env python3
"""Writes the tests of the alerting rules and the Grafana dashboards.

Their sources are cases.py, speed_cases.py, quorum_cases.py, kinds.py and dashboards/.

    packaging/generate.py                   writes them
    packaging/generate.py --check           fails if the files differ from what would be written
    packaging/generate.py --runbooks URL    sets another base of the runbooks' addresses

The rules themselves, prometheus/langmart-prober.*.yml, are written by hand.
"""

import argparse
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import dashboards  # noqa: E402
import kinds  # noqa: E402

RUNBOOKS = "https://github.com/langmartai/langmart-prober/blob/main/packaging/runbooks"
ALERTS = HERE / "prometheus/langmart-prober.alerts.yml"


def severities(rules: str) -> dict[str, str]:
    """Returns the severity of each alert, in the order of the file."""
    pattern = re.compile(r"^ +- alert: (\S+)$.*?^ +severity: (\S+)$", re.MULTILINE | re.DOTALL)
    return dict(pattern.findall(rules))


def files(runbooks: str) -> dict[pathlib.Path, str]:
    """Returns the generated files with their text."""
    rules = re.sub(
        r"(runbook_url: )\S+(/\w+\.md)$", rf"\1{runbooks}\2", ALERTS.read_text(), flags=re.MULTILINE
    )
    found = {ALERTS: rules}
    for name, text in kinds.documents(severities(rules), runbooks).items():
        found[HERE / "prometheus/tests" / name] = text
    for name, dashboard in dashboards.all_dashboards(runbooks).items():
        found[HERE / f"grafana/{name}.json"] = (
            json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"
        )
    return found


def main() -> None:
    """Writes or checks the files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--runbooks", default=RUNBOOKS)
    arguments = parser.parse_args()
    generated = files(arguments.runbooks.rstrip("/"))
    different = [
        path for path, text in generated.items() if not path.exists() or path.read_text() != text
    ]
    if not arguments.check:
        for path in different:
            path.write_text(generated[path])
    elif different:
        names = ", ".join(str(path.relative_to(HERE)) for path in different)
        sys.exit(f"not what generate.py writes: {names}")


if __name__ == "__main__":
    main()
