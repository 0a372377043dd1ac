#!/usr/bin/env python3
"""Plays a scripted working day of faults, 120 times as fast.

Compares the alerts of a real Prometheus and the notifications of a real Alertmanager with the
script. None may be missed, none may be false.

    tests/alerts/day.py --prober PROGRAM [--prometheus PROGRAM] [--report FILE]
"""

import argparse
import ctypes
import email.utils
import functools
import json
import os
import pathlib
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "packaging"))
watch = __import__("try")
generate = __import__("generate")

Json = dict[str, Any]
Labels = dict[str, str]
# An alert, labels that identify it, the hour after the beginning by which it fires, and `True` if
# it must be inhibited.
Expected = tuple[str, Labels, float] | tuple[str, Labels, float, bool]
# A prober or `None` for all, beginning and end in hours, and the alerts that must fire.
Own = tuple[str | None, float, float, list[Expected]]
# Beginning and end in hours, and the alerts that must fire.
Cause = tuple[float, float, list[tuple[str, Labels, float, bool]]]
# The labels of an alert, and the first and last hour in which it fired.
Spell = tuple[Labels, float, float]

SPEED = 120
MODELS = {
    "langmart": "openai/gpt-4o-mini",
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5-20251001",
    "groq": "llama-3.1-8b-instant",
    "google": "gemini-2.5-flash-lite",
    "openrouter": None,
}
# Another one for the stream, so that it alone can become slow.
STREAMED = "claude-streamed"
PATHS = {
    "langmart": "langmart",
    "openai": "openai/v1",
    "anthropic": "anthropic",
    "groq": "groq/openai/v1",
    "google": "google/v1beta",
    "openrouter": "openrouter/api/v1",
}

# Faults of the services of three probers: beginning and end in hours, the rule, and the alerts that
# must fire.
DOWN = [
    ("LangmartProbeDown", 0.4),
    ("LangmartErrorBudgetBurnFast", 0.6),
    ("LangmartErrorBudgetBurn", 0.9),
]


def down(probe: str) -> list[Expected]:
    """Returns the alerts of a probe that is down for long."""
    return [(name, {"probe": probe}, by) for name, by in DOWN]


def is_down(probe: str) -> Expected:
    """Returns the alert of a probe that is down."""
    return ("LangmartProbeDown", {"probe": probe}, 0.5)


# The first sees the services.
SERVICES: list[tuple[float, float, str | None, list[Expected]]] = [
    (
        0.5,
        1.4,
        'provider = "openai"\npath = "/chat"\nfault = "unavailable"',
        [
            ("LangmartServiceUnavailable", {"provider": "openai"}, 0.5),
            *down("openai-chat"),
            ("LangmartErrorBudgetBurnSlow", {"probe": "openai-chat"}, 0.9),
        ],
    ),
    (
        0.6,
        1.4,
        'provider = "anthropic"\npath = "/models"\nfault = "auth_failed"',
        [("LangmartKeyRejected", {"provider": "anthropic"}, 0.4)],
    ),
    (
        0.7,
        1.9,
        'provider = "groq"\npath = "/chat"\nfault = "rate_limited"\nretry_after = "1s"',
        [
            ("LangmartRateLimited", {"provider": "groq"}, 1.0),
        ],
    ),
    (
        0.8,
        1.8,
        'provider = "google"\npath = "enerateContent"\nfault = "overloaded"',
        [
            ("LangmartOverloaded", {"provider": "google"}, 0.9),
            ("LangmartProbeDown", {"probe": "google-chat"}, 0.9),
        ],
    ),
    # Single failures, which must not cause a notification.
    (2.0, 2.015, 'provider = "openai"\npath = "/models"\nfault = "server_error"', []),
    (2.2, 2.215, 'provider = "langmart"\npath = "/health"\nfault = "unavailable"', []),
    (
        2.5,
        3.4,
        'provider = "langmart"\npath = "/chat"\nfault = "gateway_timeout"',
        [("LangmartGatewayTimeout", {"provider": "langmart"}, 0.5), *down("langmart-chat")],
    ),
    (
        2.6,
        3.6,
        'path = "/status/anthropic"\nfault = "incident"\nvariant = "major"',
        [("LangmartStatusPageIncident", {"provider": "anthropic"}, 0.5)],
    ),
    (
        2.7,
        3.7,
        'provider = "openai"\npath = "/chat"\nfault = "billing"',
        [("LangmartBilling", {"provider": "openai"}, 0.5)],
    ),
    (
        4.5,
        5.4,
        (
            'provider = "langmart"\npath = "/chat"\nfault = "provider_auth_failed"\nupstream ='
            ' "openai"'
        ),
        [
            ("LangmartStoredKeyRejected", {"provider": "langmart"}, 0.4),
            ("LangmartProbeDown", {"probe": "langmart-chat"}, 0.4),
        ],
    ),
    (
        4.6,
        5.6,
        'provider = "langmart"\npath = "/balance"\nfault = "low_balance"',
        [
            ("LangmartBalanceLow", {"provider": "langmart"}, 0.7),
            ("LangmartBilling", {"provider": "langmart"}, 0.5),
        ],
    ),
]
# The second prober compares a gateway with its provider, has a pool, and checks certificates and
# status pages.
GATEWAY = 'provider = "langmart"\npath = "/chat"\nfault = "unavailable"'
DIRECT = 'provider = "openai"\npath = "/chat"\nfault = "server_error"'
COMPARED: list[tuple[float, float, str | None, list[Expected]]] = [
    (
        0.5,
        1.3,
        GATEWAY,
        [
            ("LangmartGatewayFault", {"comparison": "c"}, 0.5),
            ("LangmartServiceUnavailable", {"provider": "langmart"}, 0.6),
            is_down("langmart-pair"),
        ],
    ),
    (
        1.0,
        1.8,
        (
            'provider = "anthropic"\npath = "/messages"\nrespond = { status = 400, body = '
            '\'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}\' }'
        ),
        [("LangmartProbeRefused", {"probe": "anthropic-pair"}, 0.5)],
    ),
    # One hint of an hour.
    (
        1.6,
        2.6,
        (
            'provider = "groq"\npath = "/chat"\ncalls = { to = 1 }\nfault ='
            ' "rate_limited"\nretry_after = "30s"'
        ),
        [
            ("LangmartRateLimitedForLong", {"provider": "groq"}, 0.3),
            ("LangmartPoolDegraded", {"pool": "pool"}, 0.7),
        ],
    ),
    (
        2.0,
        3.2,
        'path = "/status/anthropic"\nfault = "server_error"',
        [("LangmartStatusPageUnreadable", {"provider": "anthropic"}, 0.9)],
    ),
    # The provider fails on both paths; then occasionally; then again. The alert on the gateway is
    # inhibited meanwhile.
    (
        3.0,
        4.8,
        GATEWAY,
        [
            ("LangmartProviderFault", {"comparison": "c"}, 0.5),
            ("LangmartServiceUnavailable", {"provider": "langmart"}, 0.6),
            is_down("langmart-pair"),
            ("LangmartGatewayFault", {"comparison": "c"}, 1.5, True),
        ],
    ),
    (3.0, 3.7, DIRECT, []),
    (4.3, 4.8, DIRECT, []),
    (
        3.0,
        4.8,
        f"{DIRECT}\nprobability = 0.5",
        [is_down("openai-pair"), ("LangmartPoolDegraded", {"pool": "pool"}, 0.7)],
    ),
    (5.4, 6.2, DIRECT, [is_down("openai-pair"), ("LangmartPoolDown", {"pool": "pool"}, 0.5)]),
    (5.4, 6.2, 'provider = "groq"\npath = "/chat"\nfault = "server_error"', down("groq-pair")),
    # While the first prober is offline, which is unrelated to the second's.
    (
        8.3,
        8.9,
        'provider = "anthropic"\npath = "/messages"\nfault = "auth_failed"',
        [("LangmartKeyRejected", {"provider": "anthropic"}, 0.4)],
    ),
]
# The third has failures of its own; the services' clocks agree that its clock is wrong.
CLOCK = (3.0, 3.8)
FAULTS: dict[str, list[tuple[float, float, str | None, list[Expected]]]] = {
    "services": SERVICES,
    "compared": COMPARED,
    "troubled": [(*CLOCK, None, [("LangmartProberClockSkew", {}, 0.5)])],
}
# What the script does itself, to one prober or all: an hour, and what must come of it.
RELOAD_BAD, RELOAD_GOOD, KILLED, STARTED, CUT, END = 6.6, 7.1, 7.4, 7.8, 8.2, 8.9
FROZEN, THAWED = 6.65, 7.05
PACED, UNPACED, DISK, DISK_BACK, FULL, FREE, RESTARTS, CERTIFICATES, SPENT = (
    1.0,
    2.2,
    4.3,
    4.8,
    5.0,
    5.3,
    6.1,
    4.9,
    8.0,
)
STUCK: Own = ("troubled", FROZEN, THAWED, [("LangmartProbeStuck", {}, 0.35)])
OWN: list[Own] = [
    ("services", RELOAD_BAD, RELOAD_GOOD, [("LangmartProberReloadFailed", {}, 0.4)]),
    ("services", KILLED, STARTED, [("LangmartProberDown", {}, 0.3)]),
    ("compared", KILLED, STARTED, [("LangmartProberDown", {}, 0.3)]),
    ("troubled", KILLED, STARTED, [("LangmartProberDown", {}, 0.3)]),
    (None, KILLED, STARTED, [("LangmartProberAbsent", {}, 0.4)]),
    ("services", CUT, END, [("LangmartProberOffline", {}, 0.3)]),
    (
        "compared",
        CERTIFICATES,
        END,
        [
            ("LangmartCertificateEndsIn21Days", {"provider": "days20"}, 0.5),
            ("LangmartCertificateExpiringSoon", {"provider": "days5"}, 0.5),
            ("LangmartCertificateEndsIn21Days", {"provider": "days5"}, 0.5, True),
        ],
    ),
    (
        "troubled",
        PACED,
        UNPACED,
        [
            ("LangmartProberScheduleLagHigh", {}, 0.7),
            ("LangmartProberSkipsRuns", {"provider": "paced", "cause": "pacing"}, 0.7),
        ],
    ),
    ("troubled", DISK, DISK_BACK, [("LangmartProberLogWritesFailing", {}, 0.3)]),
    ("troubled", FULL, FREE, [("LangmartProberFailing", {}, 0.4)]),
    ("troubled", RESTARTS, RESTARTS + 0.4, [("LangmartProberRestarts", {}, 0.5)]),
    STUCK,
    ("troubled", SPENT, END, [("LangmartBudgetUsedUp", {}, 0.5)]),
]
# Alerts that a script cannot cause from outside; only promtool's cases cover them.
NOT_PLAYED = {
    "LangmartProberTaskRestarts": "needs a task that panics, which would be a bug",
    "LangmartRateLimitHeadroomLow": "needs two successes with little left, which no fault plays",
    "LangmartSlowFirstToken": "needs three days of history; tests/year plays it",
    "LangmartSlowResponse": "needs three days of history",
    "LangmartSlowOutput": "needs three days of history; tests/year plays it",
    "LangmartGatewayOverheadHigh": "needs three days of history; tests/year plays it",
    "LangmartProbeDownQuorum": "needs the same probe at several probers",
    "LangmartErrorBudgetBurnQuorum": "needs the same probe at several probers",
    "LangmartQuorumNotReached": "needs the same probe at several probers; tests/year plays it",
    "LangmartWrongModel": "tests/year plays it",
    "LangmartWrongAnswer": "tests/year plays it",
    "LangmartStreamBuffered": "tests/year plays it",
    "LangmartModelRetiresIn60Days": "compares days, which do not pass faster",
    "LangmartModelRetiresIn14Days": "compares days, which do not pass faster",
    "LangmartModelRetiresIn3Days": "compares days, which do not pass faster",
    "LangmartMaintenance": "compares times of the status page, which do not pass faster",
    "LangmartProberNoProbes": "a reload that removes every probe is refused",
    "LangmartProberWriterBlocked": "needs a blocked disk; tests/year plays it",
}
# How long after the cause an alert may still fire, in hours: its window and some.
TAILS = {
    "LangmartErrorBudgetBurnFast": 0.3,
    "LangmartErrorBudgetBurn": 1.5,
    "LangmartErrorBudgetBurnSlow": 7,
    "LangmartRateLimitHeadroomLow": 0.6,
    "LangmartServiceUnavailable": 0.5,
    "LangmartGatewayTimeout": 0.5,
    "LangmartOverloaded": 0.5,
    "LangmartGatewayFault": 1.1,
    "LangmartProviderFault": 1.1,
    "LangmartProberSkipsRuns": 1.1,
    "LangmartProberRestarts": 1.1,
}
BURNS = ("LangmartErrorBudgetBurnSlow", "LangmartErrorBudgetBurnFast", "LangmartErrorBudgetBurn")
# Alerts that may follow from another and are not required. Fast burning of the error budget
# implies slow burning. A prober that cannot open a socket may lose the connection of its scrapes. A
# response with a long hint also reports that no requests are left. A prober that was blocked has
# skipped runs, and starts some late.
FOLLOWS = {
    "LangmartProbeDown": BURNS,
    "LangmartProberFailing": ("LangmartProberDown",),
    "LangmartRateLimitedForLong": ("LangmartRateLimitHeadroomLow",),
    "LangmartProbeStuck": ("LangmartProberSkipsRuns", "LangmartProberScheduleLagHigh"),
}
# Alerts that the example inhibits while their cause is reported.
HELD_BACK = (*BURNS, "LangmartProberAbsent", "LangmartBalanceLow", "LangmartRateLimitHeadroomLow")
# The receiver of the example that hears of an alert.
RECEIVERS = {
    ("caller", "critical"): ("on-call", "account-owners"),
    ("caller", "warning"): ("account-owners",),
}
# Alerts on the account behind a stored key, whose fault is the provider's.
STORED = ("LangmartStoredKeyRejected", "LangmartBilling")


def scenario(prober: str) -> str:
    """Returns the scenario of a prober's simulator."""
    parts = [
        f'[[rule]]\nafter = "{begin * 3600 / SPEED:.3f}s"\nuntil ='
        f' "{end * 3600 / SPEED:.3f}s"\n{rule}\n'
        for begin, end, rule, _ in FAULTS[prober]
        if rule
    ]
    if prober == "troubled":
        an_hour_ago = email.utils.formatdate(time.time() - 3600, usegmt=True)
        parts.append(
            f'[[rule]]\nafter = "{CLOCK[0] * 3600 / SPEED:.3f}s"\nuntil ='
            f' "{CLOCK[1] * 3600 / SPEED:.3f}s"\nrespond = {{ status = 200, headers = {{ Date ='
            f' "{an_hour_ago}" }}, body = "OK" }}\n'
        )
    return f'[models]\nanthropic = ["{STREAMED}"]\n' + "\n".join(parts)


def provider(name: str, port: str, host: str = "127.0.0.1", **more: Any) -> str:
    """Returns a provider of the simulator.

    Providers use two hosts, because the prober is offline only if more than one provider fails.
    """
    path = PATHS[more.get("api", name)]
    return (
        f'[provider.{name}]\nbase_url = "http://{host}:{port}/{path}"\napi_key = {{ env = "DAY_KEY"'
        " }\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    )


def chat(name: str, interval: str = "500ms", called: str = "chat") -> str:
    """Returns a chat probe of a provider.

    Probers with the same probe are vantage points, so that its name differs between them.
    """
    return (
        f'[[probe]]\nname = "{name}-{called}"\nprovider = "{name}"\ncheck = "chat"\nmodel ='
        f' "{MODELS[name]}"\ninterval = "{interval}"\ntimeout = "500ms"\n'
    )


# Every minute and every five minutes, as the rules see them.
HEAD = '[server]\nlisten = "127.0.0.1:0"\n'
MINUTES = '[defaults]\ninterval = "500ms"\n[defaults.generation]\ninterval = "500ms"\n'


def of_services(port: str, _: str) -> str:
    """Returns the configuration of the first prober."""
    out = HEAD + '[schedule]\nmax_backoff = "2s"\n' + MINUTES
    checks = {"langmart": ["health", "auth", "balance"], "anthropic": ["auth", "status"]}
    for name, model in MODELS.items():
        more = (
            {"status_url": f"http://127.0.0.1:{port}/status/anthropic/api/v2/summary.json"}
            if name == "anthropic"
            else {}
        )
        out += provider(
            name,
            port,
            "localhost" if name in ("groq", "google") else "127.0.0.1",
            checks=checks.get(name, ["auth"]),
            **more,
        )
        out += chat(name) if model else ""
    return (
        out
        + '[[probe]]\nname = "anthropic-stream"\nprovider = "anthropic"\ncheck = "stream"\nmodel ='
        f' "{STREAMED}"\ninterval = "2500ms"\n'
    )


def of_compared(port: str, _: str) -> str:
    """Returns the configuration of the second prober."""
    out = (
        HEAD
        + MINUTES
        + provider("langmart", port)
        + provider("openai", port)
        + provider("groq", port, "localhost")
    )
    out += provider(
        "anthropic",
        port,
        checks=["status"],
        status_url=f"http://127.0.0.1:{port}/status/anthropic/api/v2/summary.json",
    )
    # Both of a pair within one interval, on a busy machine, too.
    for name, interval in (
        ("langmart", "1s"),
        ("openai", "1s"),
        ("groq", "500ms"),
        ("anthropic", "500ms"),
    ):
        out += chat(name, interval, "pair")
    return (
        out + '[[comparison]]\nname = "c"\ngateway = "langmart-pair"\ndirect = "openai-pair"\n'
        '[[pool]]\nname = "pool"\nmembers = [{ probe = "openai-pair" }, { probe = "groq-pair" }]\n'
    )


def of_troubled(port: str, directory: str) -> str:
    """Returns the configuration of the third prober."""
    return (
        HEAD
        + f'[log]\ndirectory = "{directory}/logs"\n[budget]\ndaily_tokens = 200\n'
        + MINUTES
        + provider("langmart", port, checks=["health"])
        + provider("again", port, "localhost", api="langmart", checks=["health"])
    )


def paced(port: str) -> str:
    """Twice as many runs as its pace allows."""
    out = provider("paced", port, api="langmart", requests_per_minute=150)
    return out + "".join(
        f'[[probe]]\nname = "paced-{number}"\nprovider = "paced"\ncheck = "health"\ninterval ='
        ' "8s"\n'
        for number in range(40)
    )


CONFIGURATIONS = {"services": of_services, "compared": of_compared, "troubled": of_troubled}


class Hosts:
    """Hosts with certificates of their own CA that expire in that many days."""

    def __init__(self, directory: str, *days: int) -> None:
        """Issues the certificates and starts to listen."""
        self.ca, self.ports = f"{directory}/ca.pem", {}
        self.openssl(
            directory,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=day",
            "-days",
            "90",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        )
        for number in days:
            self.openssl(
                directory,
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                f"{number}.key",
                "-out",
                f"{number}.csr",
            )
            self.openssl(
                directory,
                "x509",
                "-req",
                "-in",
                f"{number}.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-copy_extensions",
                "copy",
                "-days",
                str(number),
                "-out",
                f"{number}.pem",
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"{directory}/{number}.pem", f"{directory}/{number}.key")
            listener = socket.create_server(("127.0.0.1", 0))
            self.ports[number] = listener.getsockname()[1]
            threading.Thread(target=self.serve, args=(listener, context), daemon=True).start()

    @staticmethod
    def openssl(directory: str, *arguments: str) -> None:
        """Runs openssl in a directory."""
        subprocess.run(
            ["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60
        )

    @staticmethod
    def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
        """Accepts connections and completes their handshakes."""
        while True:
            connection, _ = listener.accept()
            try:
                connection.settimeout(5)
                with context.wrap_socket(connection, server_side=True) as stream:
                    stream.recv(1)
            except OSError:
                pass

    def providers(self) -> str:
        """Returns a provider for each host."""
        return "".join(
            f'[provider.days{number}]\napi = "openai"\nbase_url ='
            f' "https://localhost:{port}"\nca_file = "{self.ca}"\nchecks = ["network"]\n'
            for number, port in self.ports.items()
        )


class Frozen:
    """The thread that times the probes, stopped as by a debugger.

    It is stopped while it waits for events and holds no locks. The rest of the process continues.
    ptrace(2) requires that the same thread freezes and thaws it.
    """

    CONTINUE, DETACH, SEIZE, INTERRUPT, ALL = 7, 17, 0x4206, 0x4207, 0x40000000
    # epoll_wait and epoll_pwait, here and on arm64.
    WAITS = {"232", "281", "22"}

    def __init__(self, process: int) -> None:
        """Stops the thread while it waits for events."""
        tasks = pathlib.Path(f"/proc/{process}/task")
        (self.thread,) = (
            task for task in tasks.iterdir() if (task / "comm").read_text() == "probes\n"
        )
        self.ptrace(self.SEIZE)
        self.stop()
        while (self.thread / "syscall").read_text().split()[0] not in self.WAITS:
            self.ptrace(self.CONTINUE)
            time.sleep(0.001)
            self.stop()

    def stop(self) -> None:
        """Interrupts the thread."""
        self.ptrace(self.INTERRUPT)
        os.waitpid(int(self.thread.name), self.ALL)

    def ptrace(self, request: int) -> None:
        """Sends a ptrace request to the thread."""
        library = ctypes.CDLL(None, use_errno=True)
        if library.ptrace(request, int(self.thread.name), None, None) != 0:
            raise OSError(
                ctypes.get_errno(), f"ptrace {request:#x}: {os.strerror(ctypes.get_errno())}"
            )

    def thaw(self) -> None:
        """Lets the thread continue."""
        self.ptrace(self.DETACH)


class Day:
    """The programs of the day, and what they reported."""

    def __init__(self, program: str, prometheus: str, directory: str) -> None:
        """Starts simulators, probers, Prometheus and Alertmanager."""
        self.directory, self.program = pathlib.Path(directory), program
        self.messages: list[tuple[float, Json]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.simulators: dict[str, subprocess.Popen[bytes]] = {}
        self.probers: dict[str, subprocess.Popen[bytes]] = {}
        # By prober: the simulator's port, the prober's address, its valid configuration.
        self.ports: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.good: dict[str, str] = {}
        self.hosts = Hosts(directory, 20, 5)
        self.frozen: Frozen | None = None
        self.dawn = time.time()
        for name in FAULTS:
            (self.directory / f"{name}.day").write_text(scenario(name))
            self.simulators[name], simulator = self.begin(
                name, "simulate", "--listen", "127.0.0.1:0", "--scenario", f"{directory}/{name}.day"
            )
            self.ports[name] = simulator.rsplit(":", 1)[1]
            self.write(name, CONFIGURATIONS[name](self.ports[name], directory))
            self.probers[name], self.addresses[name] = self.begin(
                name, "run", "--config", self.config(name)
            )
            # A restarted prober listens where Prometheus expects it.
            self.good[name] = (
                pathlib.Path(self.config(name))
                .read_text()
                .replace("127.0.0.1:0", self.addresses[name], 1)
            )
            self.write(name, self.good[name])
        # Once a minute, the least that the rules ask for, so that a busy machine keeps pace.
        self.watchers = watch.Watchers(
            directory, list(self.addresses.values()), SPEED, self.hear, prometheus, scrape=60
        )
        try:
            # Prometheus takes up to 5 s to discover its targets, at any speed: ten minutes of this
            # day. Its alerts before that concern itself.
            watch.wait_until(
                "the first scrapes",
                30,
                lambda: len(self.watchers.query("langmart_prober_build_info")) == len(FAULTS),
            )
        except BaseException:
            self.stop()
            raise
        self.watched = time.time() + 1

    def config(self, name: str) -> str:
        """Returns the path of a prober's configuration."""
        return str(self.directory / f"{name}.toml")

    def write(self, name: str, text: str) -> None:
        """Writes a prober's configuration."""
        pathlib.Path(self.config(name)).write_text(text)

    def begin(self, name: str, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
        """Starts a command of the prober; returns its process and address."""
        place = self.directory / name
        place.mkdir(exist_ok=True)
        process, address = watch.start_prober(
            self.program, place, *arguments, DAY_KEY="sk-day-0123456789"
        )
        self.processes.append(process)
        return process, address

    def hour(self, at: float | None = None) -> float:
        """Returns the hour of the day at a time, by default now."""
        return ((at or time.time()) - self.dawn) * SPEED / 3600

    def hear(self, message: Json) -> None:
        """Records a message of Alertmanager."""
        self.messages.append((self.hour(), message))

    def until(self, hour: float) -> None:
        """Waits until an hour of the day."""
        time.sleep(max(0.0, self.dawn + hour * 3600 / SPEED - time.time()))

    def play(self) -> None:
        """Plays the script."""
        troubled = self.good["troubled"]
        logs = self.directory / "logs"
        acts: list[tuple[float, Callable[[], object]]] = [
            (PACED, lambda: self.reload("troubled", troubled + paced(self.ports["troubled"]))),
            (UNPACED, lambda: self.reload("troubled", troubled)),
            (DISK, lambda: (logs.rename(self.directory / "away"), logs.write_text(""))),
            (DISK_BACK, self.restore_logs),
            (
                CERTIFICATES,
                lambda: self.reload("compared", self.good["compared"] + self.hosts.providers()),
            ),
            (FULL, lambda: self.descriptors(3)),
            (FREE, lambda: self.descriptors(1024)),
            *((RESTARTS + number / 10, lambda: self.restart("troubled")) for number in range(4)),
            (FROZEN, self.freeze),
            (THAWED, self.thaw),
            (RELOAD_BAD, lambda: self.reload("services", self.good["services"] + "nonsense = 1\n")),
            (RELOAD_GOOD, lambda: self.reload("services", self.good["services"])),
            *((KILLED, functools.partial(self.end, name)) for name in FAULTS),
            *((STARTED, functools.partial(self.start, name)) for name in FAULTS),
            (SPENT, lambda: self.reload("troubled", troubled + chat("langmart", called="spent"))),
            (CUT, lambda: self.simulators["services"].kill()),
            (END, lambda: None),
        ]
        for hour, act in sorted(acts, key=lambda entry: entry[0]):
            self.until(hour)
            act()

    def reload(self, name: str, text: str) -> None:
        """Reloads a prober with another configuration."""
        self.write(name, text)
        self.probers[name].send_signal(signal.SIGHUP)

    def end(self, name: str) -> None:
        """Kills a prober."""
        self.probers[name].kill()
        self.probers[name].wait()

    def start(self, name: str) -> None:
        """Starts a prober again."""
        self.probers[name], _ = self.begin(name, "run", "--config", self.config(name))

    def restart(self, name: str) -> None:
        """Kills a prober and starts it again."""
        self.end(name)
        self.start(name)

    def restore_logs(self) -> None:
        """Makes the directory of logs writable again."""
        logs = self.directory / "logs"
        logs.unlink()
        (self.directory / "away").rename(logs)

    def freeze(self) -> None:
        """Stops the third prober's probes thread, if permitted."""
        try:
            self.frozen = Frozen(self.probers["troubled"].pid)
        except PermissionError:
            OWN.remove(STUCK)
            NOT_PLAYED["LangmartProbeStuck"] = (
                "needs CAP_SYS_PTRACE, because the prober cannot be traced otherwise"
            )

    def thaw(self) -> None:
        """Lets the thread continue."""
        if self.frozen:
            self.frozen.thaw()

    def descriptors(self, most: int) -> None:
        """Limits the descriptors of the third prober.

        It can open no other, but scrapes continue on the existing connection.
        """
        _, hard = resource.prlimit(self.probers["troubled"].pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.probers["troubled"].pid, resource.RLIMIT_NOFILE, (most, hard))

    def causes(self) -> list[Cause]:
        """Returns beginning and end of each cause, and its alerts with identifying labels."""
        played: list[Own] = [
            (name, begin, end, alerts)
            for name, faults in FAULTS.items()
            for begin, end, _, alerts in faults
        ]
        return [
            (
                begin,
                end,
                [
                    (
                        alert,
                        {**wanted, "instance": self.addresses[name]} if name else wanted,
                        by,
                        bool(held),
                    )
                    for alert, wanted, by, *held in alerts
                ],
            )
            for name, begin, end, alerts in played + OWN
        ]

    def fired(self) -> list[Spell]:
        """Returns labels, first and last hour of each spell in which an alert fired."""
        answer = watch.ask(
            self.watchers.prometheus,
            "/api/v1/query_range",
            query='ALERTS{alertstate="firing"}',
            start=self.watched,
            end=time.time(),
            step="0.1",
        )
        spells = []
        for series in json.loads(answer)["data"]["result"]:
            labels, begin, last = series["metric"], None, None
            for at, _ in series["values"]:
                # A sample every tenth of a second sees a gap of twenty minutes as one.
                if last is not None and at - last > 10:
                    spells.append((labels, self.hour(begin), self.hour(last)))
                    begin = None
                begin, last = begin or at, at
            spells.append((labels, self.hour(begin), self.hour(last)))
        return sorted(spells, key=lambda spell: spell[1])

    def stop(self) -> None:
        """Ends every process."""
        if hasattr(self, "watchers"):
            self.watchers.stop()
        for process in self.processes:
            process.kill()
            process.wait()


def has(labels: Labels, name: str, wanted: Labels) -> bool:
    """Returns whether a firing alert has this name and these labels."""
    return labels["alertname"] == name and all(
        labels.get(key) == value for key, value in wanted.items()
    )


def judge(
    day: Day, spells: list[Spell], messages: list[tuple[float, Json]]
) -> tuple[list[str], list[str]]:
    """Returns the lines of the report, and the problems."""
    lines, wrong, causes = [], [], day.causes()
    names = {address: name for name, address in day.addresses.items()}
    for begin, _, alerts in causes:
        for name, wanted, by, held in alerts:
            found = [
                spell
                for spell in spells
                if has(spell[0], name, wanted) and begin <= spell[1] <= begin + by
            ]
            # A second fault of a probe can find its budget's alert still firing.
            found = found or [
                spell
                for spell in spells
                if has(spell[0], name, wanted) and spell[1] < begin < spell[2]
            ]
            what = (
                f"{name} {' '.join(names.get(value, value) for value in wanted.values())}".strip()
            )
            if not found:
                wrong.append(f"missed: {what}, for the fault at {begin:g} h")
                continue
            labels, first, last = found[0]
            after = f"after {max(0, (first - begin) * 60):3.0f} min"
            reports = [
                message
                for hour, message in messages
                if first - 0.1 <= hour <= last + 0.1 and reports_alert(message, labels)
            ]
            lines.append(
                f"{begin:5.1f} h  {what:60} {after}, for {(last - first) * 60:4.0f} min,"
                f" {'to ' + reports[0]['receiver'] if reports else 'inhibited'}"
            )
            receivers = RECEIVERS.get(
                ("caller" if name in STORED else labels["fault"], labels["severity"]),
                ("on-call" if labels["severity"] == "critical" else "channel",),
            )
            heard = {message["receiver"] for message in reports}
            if reports and heard != set(receivers):
                wrong.append(f"reported to {heard}, not to {receivers}: {what}")
            if not reports and not held and name not in HELD_BACK:
                wrong.append(f"never reported: {what}")
            if reports and held:
                wrong.append(f"reported, and not inhibited: {what}")
    for labels, first, last in spells:
        if not any(allowed(labels, first, last, *cause) for cause in causes):
            shown = {
                key: names.get(labels[key], labels[key])
                for key in ("instance", "probe", "provider", "pool", "fault", "cause")
                if key in labels
            }
            wrong.append(f"false: {labels['alertname']} {shown} from {first:.2f} to {last:.2f} h")
    for _, message in messages:
        for alert in message["alerts"]:
            if (
                not alert["annotations"]
                .get("runbook_url", "")
                .endswith(f"/{alert['labels']['alertname']}.md")
            ):
                wrong.append(f"without its runbook: {alert}")
    played = {name for _, _, alerts in causes for name, *_ in alerts}
    known = set(generate.severities(generate.ALERTS.read_text()))
    lines += [f"         {name:60} not played: {why}" for name, why in NOT_PLAYED.items()]
    wrong += [
        f"neither played nor excused: {name}" for name in sorted(known - played - set(NOT_PLAYED))
    ]
    wrong += [
        f"played, or no alert, and excused: {name}"
        for name in NOT_PLAYED
        if name in played or name not in known
    ]
    return lines, wrong


def reports_alert(message: Json, labels: Labels) -> bool:
    """Returns whether a message reports a firing alert with these labels."""
    keys = ("alertname", "instance", "provider", "probe", "fault", "comparison", "pool")
    return any(
        alert["status"] == "firing"
        and all(alert["labels"].get(key) == labels.get(key) for key in keys)
        for alert in message["alerts"]
    )


def allowed(
    labels: Labels,
    first: float,
    last: float,
    begin: float,
    end: float,
    alerts: list[tuple[str, Labels, float, bool]],
) -> bool:
    """Returns whether a cause explains that an alert fired."""
    name = labels["alertname"]

    def follows(entry: str, also: Labels) -> bool:
        return name in FOLLOWS.get(entry, ()) and has({**labels, "alertname": entry}, entry, also)

    named = any(has(labels, entry, also) or follows(entry, also) for entry, also, *_ in alerts)
    return named and begin <= first and last <= end + TAILS.get(name, 0.4)


def main() -> None:
    """Plays the day and prints the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prober", required=True)
    parser.add_argument("--prometheus", default="prometheus")
    parser.add_argument("--report")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        day = Day(arguments.prober, arguments.prometheus, directory)
        try:
            day.play()
            spells, messages = day.fired(), list(day.messages)
        finally:
            day.stop()
    lines, wrong = judge(day, spells, messages)
    print("\n".join(lines))
    if messages:
        print(
            f"{len(messages)} messages of Alertmanager; the"
            f" first:\n{json.dumps(messages[0][1], indent=1)}"
        )
    if arguments.report:
        pathlib.Path(arguments.report).write_text(
            json.dumps({"spells": spells, "messages": messages}, indent=1)
        )
    for line in wrong:
        print(f"FAILED: {line}")
    print(
        f"{len(lines) - len(NOT_PLAYED)} alerts fired as scripted,"
        f" {sum(line.startswith('missed') for line in wrong)} missed,"
        f" {sum(line.startswith('false') for line in wrong)} false"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
