#!/usr/bin/env python3
"""Checks the compose file of the demo, and plays it without a registry.

    tests/package/compose.py check --prober PROGRAM
    tests/package/compose.py play PODMAN_ARGUMENT...

`check` compares the file with what it refers to. `play` starts its services in the namespaces that
tests/package/image has made: the prober's by podman, from the loaded image, with the options of the
file; Prometheus and Alertmanager are Debian's, with the mounted files at the same paths. It waits
until an alert of the demo's faults is in Alertmanager. Grafana is in no registry; its data source
is asked instead.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "packaging/compose/compose.yaml"
Service = dict[str, Any]


def services() -> dict[str, Service]:
    """Returns the services of the file, with the default of each variable."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    return yaml.safe_load(text)["services"]


def volumes(service: Service) -> Iterator[tuple[pathlib.Path, str]]:
    """Yields the source and the path in the container of each volume."""
    for volume in service.get("volumes", []):
        source, path, mode = volume.split(":")
        assert mode == "ro", f"{volume} is writable"
        yield (COMPOSE.parent / source).resolve(), path


def mounted(service: Service, path: str) -> pathlib.Path:
    """Returns the file that a container finds at a path."""
    for source, target in volumes(service):
        if path == target:
            return source
        if path.startswith(f"{target}/"):
            return source / path.removeprefix(f"{target}/")
    raise AssertionError(f"nothing is mounted at {path}")


def check(prober: str) -> None:
    """Compares the file with everything it refers to."""
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version
    found = services()
    for name, service in found.items():
        assert service["image"].startswith("docker.io/") or service["image"] == (
            f"localhost/langmart-prober:{version[1]}"
        ), service["image"]
        assert "latest" not in service["image"] and ":" in service["image"], service["image"]
        for source, _ in volumes(service):
            assert source.exists(), f"{name}: {source} is missing"
            assert source.is_relative_to(ROOT / "packaging"), f"{source} is not packaged"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to other machines"
        for other in service.get("depends_on", []):
            assert other in found, f"{name} depends on {other}"
    prometheus = yaml.safe_load(
        mounted(found["prometheus"], "/etc/prometheus/prometheus.yml").read_text()
    )
    for rules in prometheus["rule_files"]:
        assert mounted(found["prometheus"], rules).is_file(), rules
    targets = [
        target
        for job in prometheus["scrape_configs"] + prometheus["alerting"]["alertmanagers"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    for target in targets:
        host, port = target.split(":")
        assert f"127.0.0.1:{port}:{port}" in found[host]["ports"], target
    provider = "/etc/grafana/provisioning/dashboards/langmart-prober.yaml"
    provisioned = yaml.safe_load(mounted(found["grafana"], provider).read_text())
    directory = mounted(found["grafana"], provisioned["providers"][0]["options"]["path"])
    boards = [json.loads(path.read_text()) for path in directory.glob("*.json")]
    assert len(boards) == len({board["uid"] for board in boards}) == 3, directory
    configuration = mounted(found["prober"], "/etc/langmart-prober/config.toml")
    environment = {**os.environ, **found["prober"]["environment"]}
    command = [prober, "check-config", "--config", str(configuration)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    alertmanager = mounted(found["alertmanager"], "/etc/alertmanager/alertmanager.yml")
    subprocess.run(["amtool", "check-config", str(alertmanager)], check=True)
    if shutil.which("docker-compose"):
        subprocess.run(["docker-compose", "-f", str(COMPOSE), "config", "--quiet"], check=True)
    print(f"{len(found)} services, {len(targets)} targets, {len(boards)} dashboards")


def podman_run(podman: list[str], name: str, service: Service) -> list[str]:
    """Returns the command that starts a service by podman, with the options of the file."""
    command = [*podman, "run", "--rm", "--name", f"compose-{name}", "--network=host", "--no-hosts"]
    # The machine's own limits, which podman cannot raise here.
    command += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--cgroups=disabled"]
    command += ["--volume=/etc/hosts:/etc/hosts:ro"]
    command += ["--read-only"] if service.get("read_only") else []
    command += [f"--cap-drop={capability}" for capability in service.get("cap_drop", [])]
    options = [option.replace(":true", "") for option in service.get("security_opt", [])]
    command += [f"--security-opt={option}" for option in options]
    command += [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
    command += [f"--volume={source}:{path}:ro" for source, path in volumes(service)]
    return [*command, service["image"], *service.get("command", [])]


def ask(url: str) -> Any:
    """Returns the JSON of an HTTP API."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def alerts() -> list[str]:
    """Returns the names of the alerts in Alertmanager."""
    try:
        found = ask("http://alertmanager:9093/api/v2/alerts")
    except OSError:
        return []
    return sorted({alert["labels"]["alertname"] for alert in found})


def play(podman: list[str]) -> None:
    """Starts the services and waits for an alert."""
    found = services()
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        (directory / "hosts").write_text(
            "127.0.0.1 localhost " + " ".join(found) + "\n::1 localhost\n"
        )
        bind = ["mount", "--bind", str(directory / "hosts"), "/etc/hosts"]
        subprocess.run(bind, check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/etc/prometheus"], check=True)
        for source, path in volumes(found["prometheus"]):
            target = pathlib.Path(path)
            target.mkdir(parents=True) if source.is_dir() else target.touch()
            subprocess.run(["mount", "--bind", str(source), path], check=True)
        alertmanager = mounted(found["alertmanager"], "/etc/alertmanager/alertmanager.yml")
        commands = {name: podman_run(podman, name, found[name]) for name in ("simulator", "prober")}
        commands["prometheus"] = [
            "prometheus",
            "--config.file=/etc/prometheus/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
        ]
        commands["alertmanager"] = [
            "prometheus-alertmanager",
            f"--config.file={alertmanager}",
            f"--storage.path={directory}/silences",
            "--cluster.listen-address=",
        ]
        started = {}
        for name, command in commands.items():
            with open(directory / f"{name}.log", "wb") as log:
                started[name] = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for_alert(started, directory)
        finally:
            for process in reversed(started.values()):
                process.terminate()
            for process in started.values():
                process.wait(30)


def wait_for_alert(started: dict[str, "subprocess.Popen[bytes]"], logs: pathlib.Path) -> None:
    """Waits until the demo's outage is in Alertmanager, and prints what is there."""
    end = time.monotonic() + 480
    while "LangmartProbeDown" not in (seen := alerts()):
        for name, process in started.items():
            assert process.poll() is None, f"{name} ended:\n{(logs / f'{name}.log').read_text()}"
        if time.monotonic() > end:
            for log in sorted(logs.glob("*.log")):
                print(f"{log.name}:\n{log.read_text()[-3000:]}")
            raise TimeoutError(f"no alert within eight minutes, only {seen}")
        time.sleep(1)
    print("in Alertmanager: " + ", ".join(seen))
    source = yaml.safe_load((COMPOSE.parent / "datasource.yaml").read_text())["datasources"][0]
    answer = ask(f"{source['url']}/api/v1/query?query=count(langmart_probe_success)")
    assert answer["data"]["result"][0]["value"][1] == "7", answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="action", required=True)
    commands.add_parser("check").add_argument("--prober", required=True)
    commands.add_parser("play").add_argument("podman", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.action == "check":
        check(arguments.prober)
    else:
        play(arguments.podman)
    sys.exit(0)
