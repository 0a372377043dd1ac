"""Shared code of the gateway tests: results, processes, the simulator, runs of the prober."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Record = dict[str, Any]

KEY = "sk-gateways-0123456789abcdef"
WRONG_KEY = "sk-gateways-wrong-0123456789"
START_TIMEOUT = 300.0
ONCE_TIMEOUT = 150.0
# The simulated service is never on it.
REFUSING_PORT = 1


class Checks:
    """Results of the checks, a line each."""

    def __init__(self) -> None:
        """Begins without a result."""
        self.passed = 0
        self.failures: list[str] = []

    def report(self, name: str, wrong: Iterable[str] = ()) -> None:
        """Prints the result of a check, which has failed if anything is wrong."""
        wrong, name = list(wrong), name.replace("-", "_")
        print(f"test gateways::{name} ... {'FAILED' if wrong else 'ok'}", flush=True)
        for line in wrong:
            print(f"    {line}", flush=True)
        if wrong:
            self.failures.append(f"gateways::{name}")
        else:
            self.passed += 1

    def skip(self, name: str, part: str) -> None:
        """Reports that a part of the machine is missing, which is a failure if CI is set."""
        if "CI" in os.environ:
            self.report(name, [f"missing here: {part}"])
            return
        print(f"SKIPPED: {name}: {part} is missing", flush=True)
        # tests/run subtracts skipped tests from those that passed, as Rust counts them.
        self.passed += 1

    def close(self) -> int:
        """Prints the count. Returns the exit status."""
        if self.failures:
            print("failures:", *(f"    {name}" for name in self.failures), sep="\n")
        word = "FAILED" if self.failures else "ok"
        print(f"test result: {word}. {self.passed} passed; {len(self.failures)} failed")
        return 1 if self.failures else 0


@dataclasses.dataclass(frozen=True)
class Place:
    """The prober, and a directory for files and logs."""

    prober: pathlib.Path
    path: pathlib.Path

    def write(self, name: str, text: str) -> pathlib.Path:
        """Writes a file, creating its directory."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def free_port() -> int:
    """Returns a port of loopback that is free at the moment, for programs that take no port 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def environment(place: Place, more: dict[str, str] | None = None) -> dict[str, str]:
    """Returns an environment without the machine's proxies and keys."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(place.path),
        **(more or {}),
    }


def program(name: str) -> str | None:
    """Returns the path of a program, also of those that only root has in the path."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@contextlib.contextmanager
def running(
    place: Place,
    name: str,
    command: list[str],
    is_ready: Callable[[str], bool],
    more: dict[str, str] | None = None,
) -> Iterator[None]:
    """Runs a program with its output in a file until it is ready, and ends it afterwards.

    `is_ready` is called with its output. Raises RuntimeError if it ends, or is not ready in time.
    """
    log = place.path / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(place, more),
            cwd=place.path,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not is_ready(log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> Callable[[str], bool]:
    """Returns a condition for `running`: the port accepts connections."""

    def accepts(_: str) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return accepts


def answers(url: str) -> Callable[[str], bool]:
    """Returns a condition for `running`: the URL is answered with success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def succeeds(_: str) -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError), opener.open(url, timeout=5):
            return True
        return False

    return succeeds


@contextlib.contextmanager
def simulator(place: Place, scenario: str) -> Iterator[int]:
    """Runs the simulator with a scenario. Yields its port."""
    path = place.write("scenario.toml", scenario)
    command = [str(place.prober), "simulate", "--listen", "127.0.0.1:0", "--scenario", str(path)]
    pattern = re.compile(r"langmart .*http://127\.0\.0\.1:([0-9]+)/")
    with running(place, "simulator", command, lambda output: bool(pattern.search(output))):
        found = pattern.search((place.path / "simulator.log").read_text())
        assert found
        yield int(found[1])


def has(text: str) -> re.Pattern[str]:
    """Returns what a member must match: it has this text."""
    return re.compile(re.escape(text))


def lacks(text: str) -> re.Pattern[str]:
    """Returns what a member must match: it lacks this text."""
    return re.compile(f"^(?!.*{re.escape(text)})")


@dataclasses.dataclass(frozen=True)
class Case:
    """A probe behind a gateway, and members of its record.

    A member is compared with a value, searched by a pattern (an absent member is empty text), or,
    for None, must be absent.
    """

    name: str
    url: str
    expected: dict[str, Any]
    check: str = "chat"
    api: str = "openai"
    model: str = ""
    key: str = KEY
    fault: str = ""
    """Value of the header that selects what the simulator plays."""
    probe: str = ""
    """Further lines of the probe."""
    provider: str = ""
    """Further lines of the provider."""

    @property
    def variable(self) -> str:
        """Returns the environment variable of the key."""
        return "KEY_OF_" + self.name.replace("-", "_").upper()

    def toml(self) -> str:
        """Returns the provider and the probe, both with the name of the case."""
        headers = f"headers = {{ x-simulate = {json.dumps(self.fault)} }}\n" if self.fault else ""
        model = f'model = "{self.model}"\n' if self.model else ""
        return (
            f'[provider.{self.name}]\napi = "{self.api}"\nbase_url = "{self.url}"\n'
            f'api_key = {{ env = "{self.variable}" }}\nchecks = []\nproxy = "none"\n'
            f"{headers}{self.provider}\n"
            f'[[probe]]\nname = "{self.name}"\nprovider = "{self.name}"\n'
            f'check = "{self.check}"\n{model}{self.probe}\n'
        )


def differences(record: Record, expected: dict[str, Any]) -> list[str]:
    """Returns how a record differs from the expected members."""
    wrong = []
    for name, value in expected.items():
        found = record.get(name)
        if isinstance(value, re.Pattern):
            right = bool(value.search("" if found is None else str(found)))
        else:
            right = found == value
        if not right:
            wanted = value.pattern if isinstance(value, re.Pattern) else value
            wrong.append(f"{name} is {found!r}, not {wanted!r}")
    return wrong


def once(place: Place, name: str, cases: list[Case], at_once: int = 64) -> dict[str, Record]:
    """Runs each case once, so many of them at the same time. Returns the records by name."""
    text = f"[schedule]\nmax_concurrent = {at_once}\n\n" + "\n".join(case.toml() for case in cases)
    path = place.write(f"{name}.toml", text)
    command = [str(place.prober), "once", "--config", str(path), "--json"]
    keys = {case.variable: case.key for case in cases}
    ran = subprocess.run(
        command, env=environment(place, keys), capture_output=True, text=True, timeout=ONCE_TIMEOUT
    )
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"once ended with {ran.returncode}: {ran.stderr[-2000:]}")
    records: list[Record] = [json.loads(line) for line in ran.stdout.splitlines()]
    with (place.path / f"{name}.jsonl").open("w") as file:
        file.write(ran.stdout)
    if any(key in ran.stdout + ran.stderr for key in keys.values()):
        raise RuntimeError("the key is in the output")
    return {record["probe"]: record for record in records}


def judge(checks: Checks, place: Place, name: str, cases: list[Case], at_once: int = 64) -> None:
    """Runs the cases and reports a check for each."""
    records = once(place, name, cases, at_once)
    for case in cases:
        record = records.get(case.name, {})
        wrong = differences(record, case.expected) if record else ["no record"]
        if wrong:
            kept = {
                name: record[name]
                for name in ("reason", "fault", "detail", "hint", "http_status", "error_code")
                if name in record
            }
            wrong.append(f"the record: {json.dumps(kept)}")
        checks.report(case.name, wrong)


def doctor(place: Place, name: str, cases: list[Case]) -> str:
    """Returns what the doctor prints about the providers of the cases."""
    path = place.write(f"{name}-doctor.toml", "\n".join(case.toml() for case in cases))
    command = [str(place.prober), "doctor", "--config", str(path)]
    keys = {case.variable: case.key for case in cases}
    ran = subprocess.run(
        command, env=environment(place, keys), capture_output=True, text=True, timeout=ONCE_TIMEOUT
    )
    (place.path / f"{name}-doctor.txt").write_text(ran.stdout + ran.stderr)
    return ran.stdout + ran.stderr
