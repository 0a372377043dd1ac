"""Six scripted situations, and two hours of each in a Prometheus.

Each situation is a prober before a simulator with faults. All run at once, SPEED times faster than
usual: the intervals of the probes and the durations of the shipped rules are divided by SPEED. A
Prometheus scrapes the probers and evaluates the rules. Afterwards its samples are stretched: times
and intervals are multiplied by SPEED, latencies and counts stay. A second Prometheus has the
stretched samples; it answers the dashboards' queries as they are.
"""

import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))
watch = __import__("try")

SPEED = 60
HOURS = 2
SECONDS = HOURS * 3600 / SPEED
# When the fault of a situation begins: forty minutes before the end.
FAULT_AT = SECONDS - 40 * 60 / SPEED

PACE = """
[[rule]]
provider = "langmart"
pace = { extra = "40ms" }

[[rule]]
path = "/chat"
pace = { processing = "20ms", first_token = "250ms", token = "6ms", usage = true }

[[rule]]
pace = { processing = "20ms", first_token = "250ms", token = "6ms", usage = true }
"""

SCENARIOS = {
    "all-well": "",
    "key-rejected": f"""
[[rule]]
provider = "anthropic"
after = "{FAULT_AT:.0f}s"
fault = "auth_failed"
""",
    "gateway-down": f"""
[[rule]]
provider = "langmart"
after = "{FAULT_AT:.0f}s"
fault = "unavailable"
""",
    "provider-slow": f"""
[[rule]]
provider = "openai"
after = "{FAULT_AT:.0f}s"
pace = {{ processing = "20ms", first_token = "550ms", token = "12ms", usage = true }}
""",
    "just-started": "",
    "probe-retired": "",
}

CONFIGURATION = """
[server]
listen = "127.0.0.1:0"

[log]
stderr = true

[defaults]
interval = "2s"
timeout = "1900ms"

[defaults.generation]
interval = "5s"
timeout = "2400ms"

[budget]
daily_cost_usd = 100.0

[provider.langmart]
base_url = "http://SIMULATOR/langmart"
api_key = { env = "SITUATION_KEY" }
checks = ["health", "auth", "models", "balance"]

[provider.openai]
base_url = "https://SECURE/openai/v1"
api_key = { env = "SITUATION_KEY" }
ca_file = "CA_FILE"
checks = ["network", "auth"]

[provider.anthropic]
base_url = "http://SIMULATOR/anthropic"
api_key = { env = "SITUATION_KEY" }
checks = ["auth", "status"]
status_url = "http://SIMULATOR/status/anthropic/api/v2/summary.json"

[[probe]]
name = "langmart-gpt-4o-mini"
provider = "langmart"
check = "chat"
model = "openai/gpt-4o-mini"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "langmart-stream"
provider = "langmart"
check = "stream"
model = "openai/gpt-4o-mini"
workload = "speed"
interval = "5s"
timeout = "4800ms"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "openai-gpt-4o-mini"
provider = "openai"
check = "chat"
model = "gpt-4o-mini"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "openai-stream"
provider = "openai"
check = "stream"
model = "gpt-4o-mini"
workload = "speed"
interval = "5s"
timeout = "4800ms"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "anthropic-haiku"
provider = "anthropic"
check = "stream"
model = "claude-haiku-4-5-20251001"
price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 5.0 }

# Rare, so that it has not run where the prober has just started.
[[probe]]
name = "openai-rare"
provider = "openai"
check = "chat"
model = "gpt-4o-mini"
interval = "20m"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[comparison]]
name = "gpt-4o-mini"
gateway = "langmart-gpt-4o-mini"
direct = "openai-gpt-4o-mini"

[[pool]]
name = "chat"
members = [{ probe = "langmart-gpt-4o-mini" }, { probe = "openai-gpt-4o-mini" }]
"""

# A probe whose model does not exist, until a reload removes it.
RETIRED = """
[[probe]]
name = "openai-retired"
provider = "openai"
check = "chat"
model = "gpt-3.5-turbo-0301"
price = { input_usd_per_mtok = 0.5, output_usd_per_mtok = 1.5 }
"""

# Counters with a label of many values.
SPARSE = (
    "langmart_probe_failures_total",
    "langmart_probe_http_responses_total",
    "langmart_probe_rate_limited_total",
    "langmart_probe_skipped_runs_total",
)

Json = dict[str, Any]


class Situation:
    """A simulator with its faults, and a prober."""

    def __init__(self, name: str, program: str, directory: pathlib.Path) -> None:
        """Starts the simulator."""
        self.name, self.program, self.directory = name, program, directory / name
        self.directory.mkdir()
        (self.directory / "scenario.toml").write_text(SCENARIOS[name] + PACE)
        self.processes: list[subprocess.Popen[bytes]] = []
        ca_file = self.directory / "ca.pem"
        process, plain = watch.start_prober(
            program, self.directory, "simulate", "--listen", "127.0.0.1:0", "--tls-listen",
            "127.0.0.1:0", "--ca-file", str(ca_file), "--scenario",
            str(self.directory / "scenario.toml"),
        )  # fmt: skip
        self.processes.append(process)
        secure = re.search(
            r"https://127\.0\.0\.1:(\d+)", (self.directory / "simulate.log").read_text()
        )
        assert secure, "the simulator prints no address for HTTPS"
        # Another host name than the others': with a single host, offline cannot be detected.
        self.text = (
            CONFIGURATION.replace("SIMULATOR", plain)
            .replace("SECURE", f"localhost:{secure[1]}")
            .replace("CA_FILE", str(ca_file))
        )
        self.file = self.directory / "config.toml"
        self.address = ""

    def start(self) -> None:
        """Starts the prober."""
        self.file.write_text(self.text + (RETIRED if self.name == "probe-retired" else ""))
        process, self.address = watch.start_prober(
            self.program, self.directory, "run", "--config", str(self.file),
            SITUATION_KEY="sk-situation",
        )  # fmt: skip
        self.processes.append(process)

    def retire(self) -> None:
        """Removes a probe by a reload."""
        self.file.write_text(self.text)
        self.processes[-1].send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Ends both programs."""
        for process in self.processes:
            process.kill()
            process.wait()


def wait_until(moment: float) -> None:
    """Waits until a time. Exits if it has passed, because the situations are then wrong."""
    left = moment - time.time()
    if left < 0:
        raise SystemExit(f"the machine is too slow for the situations: {-left:.1f} s late")
    time.sleep(left)


def used() -> set[str]:
    """Returns the metrics that the dashboards query."""
    texts = [path.read_text() for path in (ROOT / "packaging/grafana").glob("*.json")]
    return set(re.findall(r"\b(?:up|ALERTS|[a-z]+[_:])[a-zA-Z0-9_:]*", "".join(texts)))


def stretched(result: Json, end: float) -> Iterator[str]:
    """Yields the samples of a series as OpenMetrics, with times and values stretched."""
    labels = dict(result["metric"])
    metric = labels.pop("__name__")
    # Only some alerts are of no job; they are shown with every job.
    owner, _, probe = labels.get("probe", "").partition("/")
    if probe:
        labels = {"job": owner, **labels, "probe": probe}
    name = f"{metric}{{{','.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}"
    is_time = metric.endswith("timestamp_seconds") or metric in (
        "process_start_time_seconds",
        "ALERTS_FOR_STATE",
    )
    factor = {"langmart_probe_interval_seconds": SPEED}.get(metric, 1)
    for at, value in result["values"]:
        number = float(value) * factor
        # Times of the prober's own past and near future; a certificate's end stays.
        if is_time and number and abs(number - end) < 3600:
            number = end - (end - number) * SPEED
        if number == number:
            yield f"{name} {number!r} {end - (end - at) * SPEED:.3f}\n"


class Recorded:
    """The stretched samples of all situations, in a Prometheus."""

    def __init__(self, program: str, directory: pathlib.Path, prometheus: str) -> None:
        """Plays the situations, which takes two minutes."""
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        # What each prober reports at the end.
        self.probes: dict[str, list[Json]] = {}
        self.end = self.record(program, prometheus)
        self.blocks(prometheus)
        self.address = self.serve(prometheus)

    def record(self, program: str, prometheus: str) -> float:
        """Runs the situations; returns the time of their end."""
        situations = {name: Situation(name, program, self.directory) for name in SCENARIOS}
        targets = self.directory / "targets"
        targets.mkdir()

        def scrape(situation: Situation) -> None:
            situation.start()
            entry = [{"targets": [situation.address], "labels": {"job": situation.name}}]
            part = targets / f"{situation.name}.part"
            part.write_text(json.dumps(entry))
            part.rename(targets / f"{situation.name}.json")

        try:
            rules = []
            for name in ("rules", "alerts"):
                text = (ROOT / f"packaging/prometheus/langmart-prober.{name}.yml").read_text()
                (self.directory / f"{name}.yml").write_text(watch.hastened(text, SPEED))
                rules.append(f"{name}.yml")
            (self.directory / "prometheus.yml").write_text(
                "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n"
                f"rule_files: {json.dumps(rules)}\n"
                "scrape_configs: [ { job_name: situations, file_sd_configs: [ { files:"
                f" ['{targets}/*.json'], refresh_interval: 1s }} ], metric_relabel_configs:"
                # Otherwise the probers were six vantages of the same probes, which need a quorum.
                " [ { source_labels: [job, probe], regex: '(.+);(.+)', target_label: probe,"
                " replacement: $1/$2 } ] } ]\n"
            )
            began = time.time()
            for situation in situations.values():
                if situation.name != "just-started":
                    scrape(situation)
            address = self.start(prometheus, "recording", "--query.lookback-delta=5s")
            retire = threading.Timer(
                max(0, began + FAULT_AT - time.time()), situations["probe-retired"].retire
            )
            retire.start()
            # Eight minutes, stretched, before the end.
            wait_until(began + SECONDS - 8)
            scrape(situations["just-started"])
            wait_until(began + SECONDS)
            end = time.time()
            for name, situation in situations.items():
                self.probes[name] = json.loads(watch.ask(situation.address, "/api/v1/probes"))[
                    "probes"
                ]
            retire.join()
            self.rewrite(address, end)
            return end
        finally:
            self.stop()
            for situation in situations.values():
                situation.stop()

    def start(self, prometheus: str, name: str, *arguments: str) -> str:
        """Starts a Prometheus on a free port; returns its address."""
        log = self.directory / f"{name}.log"
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [
                    prometheus, f"--config.file={self.directory}/prometheus.yml",
                    f"--storage.tsdb.path={self.directory}/{name}",
                    "--web.listen-address=127.0.0.1:0", *arguments,
                ],
                stdout=out, stderr=out,
            )  # fmt: skip
        listening = r'msg="Listening on".* address=(127\.0\.0\.1:\d+)\s'
        found: re.Match[str] = watch.wait_until(
            f"{prometheus} to listen", 60, lambda: re.search(listening, log.read_text())
        )
        watch.wait_until("it to be ready", 60, lambda: watch.ask(found[1], "/-/ready"))
        return found[1]

    def rewrite(self, address: str, end: float) -> None:
        """Writes the stretched samples as text."""
        with open(self.directory / "samples.txt", "w") as out:
            found = watch.ask(address, "/api/v1/label/__name__/values")
            for metric in sorted(used().intersection(json.loads(found)["data"])):
                found = watch.ask(address, "/api/v1/query", query=f"{metric}[10m]", time=end)
                for result in json.loads(found)["data"]["result"]:
                    # Most combinations of probe and reason never occur; the dashboards show the
                    # zero of the prober's own failures.
                    occurs = float(result["values"][-1][1]) != 0
                    shown = result["metric"].get("fault") == "prober"
                    if occurs or shown or metric not in SPARSE:
                        out.writelines(stretched(result, end))
            out.write("# EOF\n")

    def blocks(self, prometheus: str) -> None:
        """Makes the stretched samples the storage of a second Prometheus."""
        promtool = shutil.which(prometheus.removesuffix("prometheus") + "promtool")
        assert promtool, "there is no promtool"
        command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
        paths = [str(self.directory / name) for name in ("samples.txt", "stretched")]
        subprocess.run([*command, *paths], check=True, stdout=subprocess.DEVNULL)

    def serve(self, prometheus: str) -> str:
        """Starts the second Prometheus, without targets and rules; returns its address."""
        (self.directory / "prometheus.yml").write_text("global: { scrape_interval: 1m }\n")
        return self.start(prometheus, "stretched", "--storage.tsdb.retention.time=10y")

    def stop(self) -> None:
        """Ends the Prometheus that runs."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None
