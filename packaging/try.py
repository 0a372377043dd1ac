#!/usr/bin/env python3
"""Runs the demo with a real Prometheus and Alertmanager: an alert fires within two minutes.

    cargo build --release && packaging/try.py        from the repository; Ctrl-C ends it

It needs prometheus and alertmanager (Debian: prometheus, prometheus-alertmanager). The durations of
the rules are divided by --speed, so that minutes become seconds; `--speed 1` leaves them unchanged.
"""

import argparse
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Json = dict[str, Any]

HERE = pathlib.Path(__file__).resolve().parent
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def shortened(duration: str, speed: int) -> str:
    """Divides a duration of Prometheus or Alertmanager."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration)
    assert match, duration
    number, unit = match.groups()
    return f"{max(1, round(int(number) * UNITS[unit] * 1000 / speed))}ms"


def hastened(text: str, speed: int) -> str:
    """Divides all durations of rules, expressions or settings.

    These are ranges, steps, offsets, waits, intervals, and the numbers before the comment
    "# seconds".
    """
    if speed == 1:
        return text

    def of(match: re.Match[str]) -> str:
        return match[1] + re.sub(
            r"\d+(?:ms|[smhd])\b", lambda found: shortened(found[0], speed), match[2]
        )

    text = re.sub(r"()(\[[\dsmhd:]+\])", of, text)
    text = re.sub(r"(\boffset )(\d+[smhd])", of, text)
    text = re.sub(
        r"(\b(?:for|interval|group_wait|(?:group|repeat|scrape|evaluation)_interval): )"
        r"(\d+(?:ms|[smhd]))",
        of,
        text,
    )
    return re.sub(r"(\d+)( # seconds)", lambda match: f"{int(match[1]) / speed:g}{match[2]}", text)


def ask(address: str, path: str, **parameters: object) -> str:
    """Returns the answer of an HTTP API as text."""
    query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
    with urllib.request.urlopen(f"http://{address}{path}{query}", timeout=30) as response:
        return response.read().decode()


def wait_until(what: str, seconds: float, answers: Callable[[], T | None]) -> T:
    """Waits until a function returns something true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = answers()
            if answer:
                return answer
        except (OSError, urllib.error.URLError):
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


class Webhook:
    """Receives notifications of Alertmanager."""

    def __init__(self, heard: Callable[[Json], None]) -> None:
        """Starts to listen on a free port."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Passes a message on."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                heard(json.loads(body))

            def log_message(self, *_: object) -> None:
                """Logs nothing."""
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Watchers:
    """Prometheus and Alertmanager with the shipped rules and example.

    They scrape the probers every `scrape` seconds, divided by `speed`.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        probers: list[str],
        speed: int,
        heard: Callable[[Json], None],
        prometheus: str = "prometheus",
        scrape: float = 15,
    ) -> None:
        """Starts both programs and waits until they are ready."""
        self.directory = pathlib.Path(directory)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.webhook = Webhook(heard)
        text = hastened((HERE / "alertmanager/alertmanager.yml").read_text(), speed)
        (self.directory / "alertmanager.yml").write_text(
            text.replace("127.0.0.1:9099", self.webhook.address)
        )
        for name in ("rules", "alerts"):
            text = (HERE / f"prometheus/langmart-prober.{name}.yml").read_text()
            (self.directory / f"{name}.yml").write_text(hastened(text, speed))
        # No faster than a busy machine can follow, and still two in the shortest range.
        scrape = max(0.25, scrape / speed)
        try:
            self.alertmanager = self.start(
                shutil.which("alertmanager") or "prometheus-alertmanager",
                f"--config.file={self.directory}/alertmanager.yml",
                f"--storage.path={self.directory}/silences",
                "--cluster.listen-address=",
            )
            (self.directory / "prometheus.yml").write_text(
                f"global: {{ scrape_interval: {scrape * 1000:.0f}ms, scrape_timeout:"
                f" {scrape * 1000:.0f}ms, evaluation_interval:"
                f" {hastened('interval: 30s', speed)[10:]} }}\nrule_files: [rules.yml,"
                " alerts.yml]\nalerting: { alertmanagers: [ { static_configs: [ { targets:"
                f" ['{self.alertmanager}'] }} ] }} ] }}\nscrape_configs: [ {{ job_name:"
                " langmart-prober, static_configs: [ { targets: %s } ] } ]\n" % json.dumps(probers)
            )
            self.prometheus = self.start(
                prometheus,
                f"--config.file={self.directory}/prometheus.yml",
                f"--storage.tsdb.path={self.directory}/data",
                f"--query.lookback-delta={max(3000, 300000 // speed)}ms",
                f"--rules.alert.resend-delay={max(500, 60000 // speed)}ms",
            )
        except BaseException:
            self.stop()
            raise

    def start(self, *command: str) -> str:
        """Starts one of the two on a free port; returns its address when it is ready."""
        log = self.directory / f"{len(self.processes)}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [*command, "--web.listen-address=127.0.0.1:0"], stdout=out, stderr=out
            )
        self.processes.append(process)

        def address() -> str | None:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended:\n{log.read_text()}")
            found = re.search(r'msg="Listening on".* address=(127\.0\.0\.1:\d+)\s', log.read_text())
            return found and found[1]

        found = wait_until(f"{command[0]} to listen", 60, address)
        wait_until(f"{found} to be ready", 60, lambda: ask(found, "/-/ready"))
        return found

    def query(self, expression: str) -> list[Json]:
        """Returns the result of an instant query."""
        return json.loads(ask(self.prometheus, "/api/v1/query", query=expression))["data"]["result"]

    def stop(self) -> None:
        """Ends both programs."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.webhook.server.shutdown()


def start_prober(
    program: str, directory: str | pathlib.Path, *arguments: str, **environment: str
) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a command of the prober that listens on a free port.

    Its log is written to the directory. Returns the process and its address.
    """
    log = pathlib.Path(directory) / f"{arguments[0]}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [program, *arguments], stdout=out, stderr=out, env={**os.environ, **environment}
        )

    def address() -> str | None:
        if process.poll() is not None:
            raise RuntimeError(f"{arguments[0]} ended:\n{log.read_text()}")
        ready = re.search(
            r"(?i:ready).*listen=(\S+)|http://(127\.0\.0\.1:\d+)/langmart", log.read_text()
        )
        return ready and (ready[1] or ready[2])

    try:
        return process, wait_until(f"{arguments[0]} to be ready", 60, address)
    except BaseException:
        process.kill()
        raise


def show(message: Json) -> None:
    """Prints a notification."""
    for alert in message["alerts"]:
        labels, notes = alert["labels"], alert["annotations"]
        print(
            f"[{time.strftime('%H:%M:%S')}] {alert['status'].upper()} {labels['alertname']}"
            f" ({labels['severity']}) to {message['receiver']}: {notes['summary']}"
        )
        if alert["status"] == "firing":
            print(
                f"           {notes['description']}\n           {notes['runbook_url']}", flush=True
            )


def main() -> None:
    """Runs the demo until it is interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speed", type=int, default=5)
    parser.add_argument("--prober", default=str(HERE.parent / "target/release/langmart-prober"))
    parser.add_argument("--seconds", type=int, default=0, help="ends after so many seconds")
    arguments = parser.parse_args()
    missing = [
        text
        for text, there in (
            ("prometheus is not installed: apt install prometheus", shutil.which("prometheus")),
            (
                "alertmanager is not installed: apt install prometheus-alertmanager",
                shutil.which("alertmanager") or shutil.which("prometheus-alertmanager"),
            ),
            (
                f"there is no {arguments.prober}: cargo build --release, or --prober FILE",
                os.access(arguments.prober, os.X_OK),
            ),
        )
        if not there
    ]
    if missing:
        sys.exit("\n".join(missing))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as directory:
        prober, address = start_prober(
            arguments.prober, directory, "demo", "--listen", "127.0.0.1:0"
        )
        try:
            watchers = Watchers(directory, [address], arguments.speed, show)
            try:
                print(
                    f"the prober     http://{address}/\nPrometheus    "
                    f" http://{watchers.prometheus}/alerts\nAlertmanager  "
                    f" http://{watchers.alertmanager}/\nAlerts follow. Press Ctrl-C to stop.",
                    flush=True,
                )
                time.sleep(arguments.seconds or 1e9)
            finally:
                watchers.stop()
        except KeyboardInterrupt:
            pass
        finally:
            prober.terminate()
            prober.wait()


if __name__ == "__main__":
    main()
