"""Further attacks of each kind that the reviews found, none of which is in their reports."""

import base64
import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

from harness import (
    KEY,
    LISTEN,
    Account,
    Daemon,
    Place,
    Service,
    auth_probes,
    is_root,
    wait_for,
)
from machine import RUNS, directories, has_runs_beyond
from names import is_isolated

#: An address that is not loopback's, on an interface that leads nowhere.
OPEN = "10.9.9.9"
#: Of the password below, by bcrypt.
HASH = "$2b$06$abcdefghijklmnopqrstuu9iE8GGYj0.Y8Dz1eenke86C6L58D3Ai"
LET_IN = {"Authorization": "Basic " + base64.b64encode(b"alice:wonderland").decode()}
#: An unused user ID.
NOBODY = 65534
SET_PIPE_SIZE = 1031


def weaker(prober: str, account: Account) -> None:
    """Reloads that would open a listener on an address that is not loopback's."""
    if not is_isolated():
        account.skip("reloads that weaken", "a namespace of its own")
        return
    subprocess.run(["ip", "address", "add", f"{OPEN}/32", "dev", "lo"], check=False)
    service = Service()
    users = f'basic_auth = {{ alice = "{HASH}" }}\n'
    server = f'[server]\nlisten = "{OPEN}:0"\n'
    attempts = {
        "no users": server,
        "a table of no users": server + "basic_auth = {}\n",
        "no users, another port": server.replace(":0", ":1"),
        "no users, every address": server.replace(OPEN, "0.0.0.0"),
        "no users, loopback of IPv6": server.replace(OPEN, "[::1]"),
        "no section": "",
        "a user without a hash": server + 'basic_auth = { alice = "" }\n',
        "a hash that is cut": server + f'basic_auth = {{ alice = "{HASH[:-1]}" }}\n',
    }
    wrong = []
    with Place(prober, server + users + auth_probes(service)) as place, Daemon(place) as daemon:
        for name, text in attempts.items():
            place.write("config.toml", text + auth_probes(service))
            status, _ = daemon.get("/-/reload", "POST", headers=LET_IN)
            without, _ = daemon.get("/metrics")
            within, page = daemon.get("/metrics", headers=LET_IN)
            refused = "langmart_prober_config_last_reload_successful 0" in page
            if status == 200 or without != 401 or within != 200 or not refused:
                wrong.append(f"{name}: reload {status}, without a password {without}")
        alive = daemon.process.poll() is None
    account.note(
        "reloads that weaken the listener",
        alive and not wrong,
        f"{len(attempts) - len(wrong)} refused" + "".join(f"; {what}" for what in wrong[:5]),
        len(attempts),
        len(wrong) or None,
    )


def emptier(prober: str, account: Account) -> None:
    """Reloads that would leave no probe."""
    service = Service()
    good = LISTEN + auth_probes(service)
    provider = good[: good.index("[[probe]]")]
    attempts = {
        "white space": " \n\t\n",
        "a byte order mark": "\ufeff",
        "a table without a member": "[defaults]\n",
        "a provider without checks": provider,
        "an array of no probes": "probe = []\n" + provider,
        "a shard that has none": good + "[shard]\nindex = 997\ntotal = 1000\n",
        "a file of zeros": "\0" * 4096,
    }
    wrong = []
    with Place(prober, good) as place, Daemon(place) as daemon:
        for name, text in attempts.items():
            place.write("config.toml", text)
            if daemon.reload():
                wrong.append(f"{name}: taken over")
        runs = daemon.value(RUNS)
        wait_for("runs to continue", lambda: daemon.value(RUNS) > runs + 5)
        well = daemon.is_well()
    account.note(
        "reloads that empty",
        well and not wrong,
        f"{len(attempts) - len(wrong)} refused" + "".join(f"; {what}" for what in wrong[:5]),
        len(attempts),
        len(wrong) or None,
    )


def dumps(prober: str, account: Account) -> None:
    """The same user looks into each command while it holds keys, and has it dump its memory."""
    if not is_root() or not shutil.which("setpriv"):
        account.skip("dumps", "root with setpriv")
        return
    hold = threading.Event()
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    for command in ("run", "once", "doctor"):
        service = Service()
        service.answers["hang"] = lambda stream: (hold.wait(60), None)[1]
        # The timeout is the interval: so long do those wait that run once.
        config = LISTEN + auth_probes(service, 5, "10s").replace("/good", "/hang")
        with Place(prober, config) as place:
            # The other user may not be allowed to go where the program is.
            own = shutil.copy(prober, place.path / "prober")
            for path in (place.path, place.path / "config.toml"):
                os.chown(path, NOBODY, NOBODY)
            before = service.requests
            process = subprocess.Popen(
                [*become, str(own), command, "--config", str(place.path / "config.toml")],
                env=place.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=place.path,
            )
            try:
                wait_for("a request", functools.partial(has_asked, service, before))
                seen = [
                    name
                    for name in (
                        "environ",
                        "mem",
                        "maps",
                        "auxv",
                        "fd/0",
                        "cwd/config.toml",
                        "stack",
                    )
                    if reads(become, f"/proc/{process.pid}/{name}")
                ]
                process.send_signal(signal.SIGABRT)
                _, status = os.waitpid(process.pid, 0)
                process.returncode = -signal.SIGABRT
                dumped = os.WCOREDUMP(status)
            finally:
                process.kill()
            held = not seen and not dumped
            figure = f"read: {', '.join(seen) or 'nothing'}; core dumped: {dumped}"
            account.note(f"looks into {command}", held, figure, 8)
    hold.set()


def has_asked(service: Service, before: int) -> bool:
    """Whether a service was asked once more."""
    return service.requests > before


def reads(become: list[str], path: str) -> bool:
    """Whether the other user can read a file."""
    return subprocess.run([*become, "head", "-c1", path], capture_output=True).returncode == 0


def unread(prober: str, account: Account) -> None:
    """Leaves standard error unread: a pipe of one page."""
    service = Service()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = f'[server]\nlisten = "127.0.0.1:{port}"\n' + auth_probes(service, 20)
    with Place(prober, config) as place:
        reader, writer = os.pipe()
        fcntl.fcntl(writer, SET_PIPE_SIZE, 4096)
        command = [prober, "run", "--config", str(place.path / "config.toml")]
        process = subprocess.Popen(
            command, env=place.environment(), stdout=subprocess.DEVNULL, stderr=writer
        )
        try:
            wait_for("requests", lambda: service.requests > 20)
            for _ in range(200):
                process.send_signal(signal.SIGHUP)
                time.sleep(0.005)
            before = service.requests
            wait_for("requests to continue", lambda: service.requests > before + 200)
            process.send_signal(signal.SIGTERM)
            status = process.wait(30)
            figure = f"{service.requests} requests, exit {status}"
            account.note("standard error that is not read", status == 0, figure)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            account.note("standard error that is not read", False, str(error)[:150])
        finally:
            process.kill()
            process.wait()
            os.close(reader)
            os.close(writer)


def planted_pipes(prober: str, account: Account) -> None:
    """Pipes in the place of the day's files and of the new state, before the start."""
    service = Service()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for name in (f"logs/prober.log.{today}", f"logs/results.jsonl.{today}", "state/state.json.new"):
        with Place(prober) as place:
            place.write("config.toml", LISTEN + directories(place) + auth_probes(service, 5))
            (place.path / name).parent.mkdir(exist_ok=True)
            os.mkfifo(place.path / name)
            shown = name.split("/")[1].removesuffix(f".{today}")
            try:
                with Daemon(place) as daemon:
                    wait_for("runs", functools.partial(has_runs_beyond, daemon, 20))
                    status = daemon.is_well() and daemon.stop() == 0
                    account.note(f"a pipe for {shown}", status, "started, ran, stopped")
            except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                account.note(f"a pipe for {shown}", False, str(error)[:150])


SLOW = """
#include <unistd.h>
#include <fcntl.h>
#include <stdlib.h>
static void hang(void) { if (access(getenv("HANG"), F_OK) == 0) sleep(120); }
int fsync(int fd) { (void)fd; hang(); return 0; }
int fdatasync(int fd) { (void)fd; hang(); return 0; }
"""


def syncs(prober: str, account: Account) -> None:
    """A disk that takes what is written and never confirms it."""
    if not shutil.which("cc"):
        account.skip("a disk that confirms nothing", "cc")
        return
    service = Service()
    with Place(prober) as place:
        source, library = place.write("slow.c", SLOW), place.path / "slow.so"
        build = ["cc", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(build, check=True, capture_output=True)
        place.write("config.toml", LISTEN + directories(place) + auth_probes(service, 20))
        environment = {"LD_PRELOAD": str(library), "HANG": str(place.path / "hang")}
        with Daemon(place, environment) as daemon:
            wait_for("a state", lambda: (place.path / "state/state.json").exists())
            place.write("hang", "")
            begun = time.monotonic()
            metric = "langmart_prober_log_write_in_progress_seconds"
            try:
                wait_for(
                    "the hang to be seen", lambda: daemon.value(metric, 'file="state"') > 15, 60
                )
                took = time.monotonic() - begun
                named = "state: write blocked" in daemon.get("/-/healthy")[1]
                runs = daemon.value(RUNS)
                wait_for("runs to continue", lambda: daemon.value(RUNS) > runs + 100)
                figure = f"seen after {took:.0f} s, /-/healthy names it: {named}"
                account.note("a disk that confirms nothing", named and daemon.is_well(), figure)
            except TimeoutError as error:
                account.note("a disk that confirms nothing", False, str(error)[:150])


def links(prober: str, account: Account) -> None:
    """Links and pipes in the places of files that are read or written."""
    service = Service()
    wrong = []
    with Place(prober) as place:
        base = LISTEN + directories(place) + auth_probes(service, 2)
        victim = place.write("victim", "untouched")
        for name, link in {
            "symbolic": lambda new: new.symlink_to(victim),
            "hard": lambda new: os.link(victim, new),
            "symbolic to a directory": lambda new: new.symlink_to(place.path),
        }.items():
            place.write("config.toml", base)
            shutil.rmtree(place.path / "state", ignore_errors=True)
            (place.path / "state").mkdir()
            link(place.path / "state/state.json.new")
            with Daemon(place) as daemon:
                wait_for("runs", functools.partial(has_runs_beyond, daemon, 5))
                daemon.stop()
            if victim.read_text() != "untouched":
                wrong.append(f"{name} link: the victim was written")
        for key, text in {
            "api_key": 'api_key = { file = "PIPE" }',
            "ca_file": 'api_key = { env = "SIM_KEY" }\nca_file = "PIPE"',
            "header": 'api_key = { env = "SIM_KEY" }\nheaders = { x-team = { file = "PIPE" } }',
        }.items():
            pipe = place.path / "pipe"
            with contextlib.suppress(FileExistsError):
                os.mkfifo(pipe, 0o600)
            text = text.replace("PIPE", str(pipe))
            text = f'{LISTEN}[provider.openai]\n{text}\nchecks = ["auth"]\n'
            place.write("config.toml", text)
            try:
                done = place.run("run", timeout=10)
                if done.returncode != 78 or KEY.encode() in done.stderr:
                    wrong.append(f"{key}: exit {done.returncode}")
            except subprocess.TimeoutExpired:
                wrong.append(f"{key}: the start hangs")
    account.note(
        "links and pipes",
        not wrong,
        f"{6 - len(wrong)} held" + "".join(f"; {what}" for what in wrong),
        6,
        len(wrong) or None,
    )


def run(prober: str, account: Account, long: bool) -> None:
    """Each kind in turn."""
    del long
    prober = str(pathlib.Path(prober).resolve())
    weaker(prober, account)
    emptier(prober, account)
    links(prober, account)
    dumps(prober, account)
    unread(prober, account)
    planted_pipes(prober, account)
    syncs(prober, account)
