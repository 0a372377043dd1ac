"""A hostile machine: kills, stops, few descriptors, bad disks, clock steps."""

import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time

from harness import LISTEN, Account, Daemon, Place, Service, auth_probes, is_root, mounted, wait_for

#: Kills, in a short and in a long run.
KILLS = 8
KILLS_LONG = 100
RUNS = "langmart_probe_runs_total"
SPENT = "langmart_budget_spent_tokens"


def directories(place: Place) -> str:
    """Returns sections for state and logs."""
    return f'[state]\ndirectory = "{place.path}/state"\n[log]\ndirectory = "{place.path}/logs"\n'


def records(place: Place) -> tuple[int, int]:
    """Returns the numbers of complete and of incomplete records, except the last of a file."""
    whole = torn = 0
    for path in sorted(place.path.glob("logs/results.jsonl.*")):
        for line in path.read_bytes().splitlines():
            try:
                json.loads(line)
                whole += 1
            except ValueError:
                torn += 1
    return whole, torn


def kills(prober: str, account: Account, number: int) -> None:
    """Kills at random times: the state is valid, and at most the last line is incomplete."""
    service = Service()
    with Place(prober) as place:
        place.write("config.toml", LISTEN + directories(place) + auth_probes(service, 20))
        wrong = []
        for kill in range(number):
            daemon = Daemon(place)
            time.sleep(random.uniform(0.05, 0.6))
            daemon.kill()
            if b"State could not be restored" in daemon.log:
                wrong.append(f"kill {kill}: the state was lost")
            state = place.path / "state/state.json"
            with contextlib.suppress(FileNotFoundError):
                json.loads(state.read_bytes())
        whole, torn = records(place)
        held = not wrong and torn <= number
        account.note(
            "kill -9",
            held,
            f"{whole} whole records, {torn} torn" + "".join(f"; {what}" for what in wrong[:3]),
            number,
            len(wrong) or None,
        )


def stopped(prober: str, account: Account, seconds: int) -> None:
    """SIGSTOP: what was missed is skipped and counted, nothing fails, no burst follows."""
    service = Service()
    with Place(prober) as place:
        place.write("config.toml", LISTEN + auth_probes(service, 10, "1s"))
        with Daemon(place) as daemon:
            wait_for("runs", lambda: daemon.value(RUNS) > 5)
            before = service.requests
            daemon.process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            during = service.requests - before
            daemon.process.send_signal(signal.SIGCONT)
            wait_for("runs to continue", lambda: service.requests > before + during + 10)
            skipped, failed = (
                daemon.value("langmart_probe_skipped_runs_total"),
                daemon.value("langmart_probe_failures_total"),
            )
            due = seconds * 10
            held = daemon.is_well() and skipped >= due * 0.8 and failed == 0
            account.note(
                "SIGSTOP",
                held,
                f"{seconds} s, {skipped:.0f} of {due} due runs skipped, {failed:.0f} failed",
            )


def has_runs_beyond(daemon: Daemon, number: float) -> bool:
    """Returns whether there were more runs than that."""
    return daemon.value(RUNS) > number


def descriptors(prober: str, account: Account) -> None:
    """Too few descriptors: the prober blames itself, and recovers."""
    service = Service()
    for limit in (64, 24):
        with Place(prober) as place:
            place.write("config.toml", LISTEN + directories(place) + auth_probes(service, 40, "1s"))
            try:
                with Daemon(
                    place,
                    before=functools.partial(
                        resource.setrlimit, resource.RLIMIT_NOFILE, (limit, 4096)
                    ),
                ) as daemon:
                    held = []
                    with contextlib.suppress(OSError):
                        for _ in range(limit):
                            held.append(socket.create_connection(daemon.address, timeout=1))
                    time.sleep(1)
                    for stream in held:
                        stream.close()
                    wait_for("a page", lambda: daemon.get("/-/healthy")[0] == 200)
                    page = daemon.get("/metrics")[1].splitlines()
                    blamed = [
                        line
                        for line in page
                        if line.startswith("langmart_probe_failures_total")
                        and not line.endswith(" 0")
                        and 'fault="prober"' not in line
                    ]
                    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (4096, 4096))
                    runs = daemon.value(RUNS)
                    wait_for("recovery", functools.partial(has_runs_beyond, daemon, runs + 20))
                    reasons = {line.split('reason="')[1].split('"')[0] for line in blamed}
                    account.note(
                        f"{limit} descriptors",
                        daemon.is_well() and not blamed,
                        f"{len(blamed)} probes blame others {sorted(reasons)}; recovered",
                    )
            except (RuntimeError, TimeoutError) as error:
                account.note(f"{limit} descriptors", False, str(error)[:150])


def disks(prober: str, account: Account) -> None:
    """Disks that are full or read-only, at the start or later, and one that is blocked."""
    service = Service()
    if not is_root():
        account.skip("disks", "root, to mount")
    else:
        for options in ("size=64k", "ro"):
            disk(prober, account, service, options, at_start=False)
        for options in ("size=4k", "ro"):
            disk(prober, account, service, options, at_start=True)
    for file, name in (("log", "prober.log"), ("results", "results.jsonl")):
        hanging(prober, account, service, file, name)


def disk(prober: str, account: Account, service: Service, options: str, *, at_start: bool) -> None:
    """A disk of the logs that takes nothing: lines are lost and counted, the probing continues."""
    name = f"disk with {options} {'at start' if at_start else 'later'}"
    with Place(prober) as place, contextlib.ExitStack() as mounts:
        place.write("config.toml", LISTEN + directories(place) + auth_probes(service, 20))
        logs = place.path / "logs"
        logs.mkdir()
        try:
            if at_start:
                mounts.enter_context(mounted(logs, options))
            with Daemon(place) as daemon:
                if not at_start:
                    mounts.enter_context(mounted(logs, options))

                def lost() -> float:
                    counters = ("write_errors", "lines_dropped")
                    names = [f"langmart_prober_log_{counter}_total" for counter in counters]
                    return sum(daemon.value(name, 'file="results"') for name in names)

                wait_for("records to be lost and counted", lambda: lost() > 5)
                runs = daemon.value(RUNS)
                wait_for("runs to continue", lambda: daemon.value(RUNS) > runs + 20)
                _, torn = records(place)
                figure = f"{lost():.0f} records lost and counted, {torn} torn"
                account.note(name, daemon.is_well() and torn == 0, figure)
        except (RuntimeError, TimeoutError) as error:
            account.note(name, False, str(error)[:150])


def hanging(prober: str, account: Account, service: Service, file: str, name: str) -> None:
    """A full pipe in the place of a file: the write blocks, as on an unresponsive disk."""
    with Place(prober) as place:
        place.write("config.toml", LISTEN + directories(place) + auth_probes(service, 20))
        with Daemon(place) as daemon:
            found = lambda: list(place.path.glob(f"logs/{name}.*"))  # noqa: E731
            wait_for("the file", found)
            path = found()[0]
            path.rename(place.path / "moved")
            os.mkfifo(path)
            pipe = os.open(path, os.O_RDWR)
            os.set_blocking(pipe, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(pipe, b"x" * 4096)

            def seconds() -> float:
                metric = "langmart_prober_log_write_in_progress_seconds"
                return daemon.value(metric, f'file="{file}"')

            begun = time.monotonic()
            try:
                # The log writes a line after the next check of the file.
                time.sleep(1.1)
                daemon.reload()
                wait_for("the blocked write to be exported", lambda: seconds() > 15, 60)
                took = time.monotonic() - begun
                named = f"{file}: write blocked" in daemon.get("/-/healthy")[1]
                figure = f"seen after {took:.0f} s, /-/healthy names it: {named}"
                account.note(f"blocked disk of {file}", named and daemon.is_well(), figure)
            except TimeoutError:
                account.note(f"blocked disk of {file}", False, "not seen within a minute")
            finally:
                os.close(pipe)


def clocks(prober: str, account: Account) -> None:
    """A wall clock that is wrong for seconds, by a second to decades, in both directions."""
    if not shutil.which("faketime"):
        account.skip("clock jumps", "faketime")
        return
    command = ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    service = Service()
    day = 86_400
    for jump in (day, 366 * day, -day, -30 * day, 3600, -3600, 90, 40 * 365 * day):
        clock(prober, account, service, library, f"{jump:+} s for seconds", [f"{jump:+}"])
    # Not in the report.
    to_the_epoch = -int(time.time()) + 60
    for name, steps in {
        "60 times as fast for seconds": ["+0 x60"],
        "that runs backwards for seconds": [f"-{seconds}" for seconds in range(1, 30)],
        "of 1970": [f"{to_the_epoch:+}"],
        "that swings by a day": ["+1d", "-1d"] * 20,
        "that creeps ahead by hours": [f"+{hours}h" for hours in range(1, 30)],
        "across midnight and back": [f"{second:+}" for second in around_midnight()],
    }.items():
        clock(prober, account, service, library, name, steps)


def around_midnight() -> list[int]:
    """Returns offsets that set the clock before and after the end of the day, in turns."""
    left = 86_400 - int(time.time()) % 86_400
    return [left - 2, left + 2] * 6


def clock(
    prober: str, account: Account, service: Service, library: str, name: str, steps: list[str]
) -> None:
    """No run moves, no budget is freed, and the day of the budget is correct again."""
    chat = '[[probe]]\nname = "chat"\nprovider = "openai"\ncheck = "chat"\nmodel = "m"\n'
    budget = "[budget]\ndaily_tokens = 1000000\n"
    with Place(prober) as place:
        file = place.write("clock", "+0\n")
        probes = auth_probes(service, 5) + chat + 'interval = "500ms"\n'
        place.write("config.toml", LISTEN + directories(place) + budget + probes)
        environment = {
            "LD_PRELOAD": library,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
        }
        with Daemon(place, environment) as daemon:

            def spends() -> None:
                before = daemon.value(SPENT)
                wait_for("spending to continue", lambda: daemon.value(SPENT) > before, 10)

            def continues() -> None:
                before, begun = service.requests, time.monotonic()
                wait_for("runs to continue", lambda: service.requests > before + 50)
                if service.requests - before > 52 * (time.monotonic() - begun) + 60:
                    raise TimeoutError("there was a burst of runs")

            def keeps_the_day() -> bool:
                # A step of up to an hour may start the next day, which it then does not end.
                days = [time.strftime("%Y-%m-%d", time.gmtime(time.time() + s)) for s in (0, 3600)]
                state = (place.path / "state/state.json").read_text()
                return any(f'"day":"{day}"' in state for day in days)

            wrong = ""
            try:
                spends()
                for step in steps[:-1]:
                    place.write("clock", f"{step}\n")
                    time.sleep(0.1)
                for step in (steps[-1], "+0"):
                    place.write("clock", f"{step}\n")
                    continues()
                    spends()
                wait_for("the state to be of this day", keeps_the_day, 10)
            except TimeoutError as error:
                wrong = f"; {error}"
            figure = f"{daemon.value(SPENT):.0f} tokens of the day{wrong}"
            account.note(f"clock {name}", not wrong and daemon.is_well(), figure)


def signals(prober: str, account: Account, number: int) -> None:
    """Many SIGHUPs: it reloads, and nothing grows."""
    service = Service()
    with Place(prober) as place:
        place.write("config.toml", LISTEN + auth_probes(service))
        with Daemon(place) as daemon:
            wait_for("runs", lambda: daemon.value(RUNS) > 5)
            fds, memory = daemon.value("process_open_fds"), daemon.resident()
            for _ in range(number):
                daemon.process.send_signal(signal.SIGHUP)
                time.sleep(0.002)
            wait_for("the last reload", lambda: daemon.get("/-/ready")[0] == 200)
            more_fds, more = daemon.value("process_open_fds") - fds, daemon.resident() - memory
            account.note(
                "SIGHUP",
                daemon.is_well() and more_fds <= 4 and more < 32,
                f"{number} signals, {more_fds:+.0f} descriptors, {more:+.0f} MiB",
                number,
            )


def run(prober: str, account: Account, long: bool) -> None:
    """Runs all, from the quick to the slow."""
    kills(prober, account, KILLS_LONG if long else KILLS)
    stopped(prober, account, 60 if long else 4)
    signals(prober, account, 5000 if long else 300)
    descriptors(prober, account)
    disks(prober, account)
    clocks(prober, account)
