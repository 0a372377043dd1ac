"""Hostile clients of the listener: forged requests, and floods that exclude others."""

import base64
import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable

from harness import LISTEN, Account, Daemon, Place, Service, auth_probes

#: Number of honest scrapes during a flood.
SCRAPES = 10


def raw(daemon: Daemon, request: bytes, timeout: float = 10) -> int | None:
    """Sends bytes. Returns the status of the answer, or None if there is none."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(daemon.address, timeout=timeout) as stream,
    ):
        stream.sendall(request)
        stream.shutdown(socket.SHUT_WR)
        answer = stream.recv(64)
        if answer.startswith(b"HTTP/1.1 "):
            return int(answer[9:12])
    return None


def requests(host: str) -> dict[str, tuple[bytes, set[int | None]]]:
    """Returns requests and the permitted statuses of each."""
    refused: set[int | None] = {400, 403, 404, 405, 421, None}
    found: dict[str, tuple[bytes, set[int | None]]] = {}
    hosts = [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1:1",
        "[::1]",
        "",
        " ",
        "127.0.0.1@evil.example",
        "evil.example:80",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f.1",
        "LOCALHOST.",
        f"{host}.",
        f"{host}/",
        f"{host}\tx",
        f"{host},evil",
        "\xff",
        "a" * 1000,
    ]
    for index, name in enumerate(hosts):
        found[f"host-{index}"] = (
            f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("latin-1"),
            refused,
        )
        found[f"host-page-{index}"] = (
            f"GET /api/v1/results HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("latin-1"),
            refused,
        )
    found["host-none"] = (b"GET / HTTP/1.1\r\n\r\n", refused)
    found["host-two"] = (
        f"GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n".encode(),
        refused,
    )
    found["host-absolute"] = (
        f"GET http://evil.example/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(),
        refused,
    )
    origins = [
        "http://evil.example",
        "null",
        f"http://{host}.evil.example",
        "http://127.0.0.1:1",
        f"http://{host}, http://evil.example",
        "*",
        "file://",
        f"http://x@{host}",
    ]
    for index, origin in enumerate(origins):
        for path, method in (
            ("/", "GET"),
            ("/metrics", "GET"),
            ("/-/reload", "POST"),
            ("/probe?target=p0", "GET"),
        ):
            found[f"origin-{index}-{path}"] = (
                (
                    f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n"
                    "Content-Length: 0\r\n\r\n"
                ).encode(),
                refused,
            )
    for method in (
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "BREW",
        "get",
        "G\x00T",
        "G" * 5000,
    ):
        found[f"method-{method[:8]!r}"] = (
            f"{method} /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(),
            refused | {414, 431, 501},
        )
    for index, path in enumerate(
        (
            "/../etc/passwd",
            "/probes/../../etc/passwd",
            "/probes/%2e%2e",
            "/metrics/",
            "//metrics",
            "/METRICS",
            "/metrics%00",
            "/-/reload",
            "/probes/" + "a" * 5000,
            "/api/v1/results?limit=-1",
            "/api/v1/results?limit=99999999999",
            "/api/v1/results?since=%00",
            "/probe",
            "/probe?target=http://evil.example",
            "/probe?target=%1b%5b2J",
        )
    ):
        found[f"path-{index}"] = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(),
            refused | {414, 431},
        )
    sizes: set[int | None] = {400, 414, 431, None}
    found["line-huge"] = (b"GET /" + b"a" * 200_000, sizes)
    found["header-huge"] = (b"GET / HTTP/1.1\r\na: " + b"b" * 200_000, sizes)
    found["headers-many"] = (
        f"GET / HTTP/1.1\r\nHost: {host}\r\n".encode() + b"a: b\r\n" * 500 + b"\r\n",
        sizes,
    )
    wire = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"\r\n" * 5000,
        (
            f"POST /-/reload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n"
        ).encode(),
        f"POST /-/reload HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost : {host}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\n Host: {host}\r\n\r\n".encode(),
    ]
    for index, request in enumerate(wire):
        found[f"wire-{index}"] = (request, refused | {200, 413, 431, 501, 505})
    return found


def pretences(account: Account, daemon: Daemon) -> None:
    """Sends every request, on one connection each."""
    host = f"{daemon.address[0]}:{daemon.address[1]}"
    tried = requests(host)
    wrong = [
        f"{name}: {status}"
        for name, (request, allowed) in tried.items()
        if (status := raw(daemon, request)) not in allowed
    ]
    well = daemon.is_well()
    account.note(
        "requests that pretend",
        well and not wrong,
        f"{len(tried) - len(wrong)} refused" + "".join(f"; {what}" for what in wrong[:8]),
        len(tried),
        len(wrong) or None,
    )


def flood(
    account: Account,
    daemon: Daemon,
    name: str,
    attack: Callable[[threading.Event], None],
    threads: int = 4,
    headers: dict[str, str] | None = None,
) -> None:
    """Scrapes during a flood, with a retry if the connection was closed to make room."""
    stop = threading.Event()
    attackers = [threading.Thread(target=attack, args=(stop,), daemon=True) for _ in range(threads)]
    for attacker in attackers:
        attacker.start()
    time.sleep(0.5)
    served, worst = 0, 0.0
    for index in range(SCRAPES):
        begun = time.monotonic()
        path = ("/metrics", "/-/healthy")[index % 2]
        for _ in range(3):
            with contextlib.suppress(OSError, ValueError):
                if daemon.get(path, timeout=10, headers=headers)[0] == 200:
                    served += 1
                    break
        worst = max(worst, time.monotonic() - begun)
    stop.set()
    for attacker in attackers:
        attacker.join(15)
    with contextlib.suppress(OSError):
        daemon.get("/-/healthy", headers=headers)
    alive = daemon.process.poll() is None and b"Panicked" not in daemon.log
    account.note(
        name,
        alive and served == SCRAPES,
        f"{served} of {SCRAPES} honest scrapes, the slowest {worst * 1000:.0f} ms",
    )


def opening(
    daemon: Daemon, request: bytes, number: int, read: bool = False
) -> Callable[[threading.Event], None]:
    """Holds connections that send this and wait, and reopens closed ones."""

    def attack(stop: threading.Event) -> None:
        open_: list[socket.socket] = []
        while not stop.is_set():
            with contextlib.suppress(OSError):
                stream = socket.create_connection(daemon.address, timeout=1)
                stream.sendall(request.replace(b"RANDOM", str(random.random()).encode()))
                if read:
                    stream.settimeout(0.2)
                    stream.recv(4096)
                open_.append(stream)
            while len(open_) > number:
                open_.pop(0).close()
            if len(open_) == number:
                time.sleep(0.005)

    return attack


def run(prober: str, account: Account, long: bool) -> None:
    """Runs requests, then floods, then floods of waiting requests."""
    service = Service()
    hold = threading.Event()
    service.answers["hang"] = lambda stream: (hold.wait(60), None)[1]
    hanging = "".join(
        f'[[probe]]\nname = "hang{i}"\nprovider = "hang"\ncheck = "auth"\n'
        'interval = "1h"\ntimeout = "28s"\n'
        for i in range(140)
    )
    provider = (
        f'[provider.hang]\napi = "openai"\nbase_url = "http://127.0.0.1:{service.port}/hang"\n'
        'api_key = { env = "SIM_KEY" }\nchecks = []\n'
    )
    schedule = "[schedule]\nmax_concurrent = 200\nmax_concurrent_per_provider = 150\n"
    with (
        Place(prober, LISTEN + schedule + auth_probes(service) + provider + hanging) as place,
        Daemon(place) as daemon,
    ):
        host = f"{daemon.address[0]}:{daemon.address[1]}".encode()
        pretences(account, daemon)
        get = b"GET PATH HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        floods = {
            "slow heads": opening(daemon, b"GET / HTTP/1.1\r\nx: ", 60),
            "silent connections": opening(daemon, b"", 200),
            "pipelining": opening(daemon, get.replace(b"PATH", b"/metrics") * 500, 5),
            "nothing read": opening(daemon, get.replace(b"PATH", b"/metrics") * 20, 40),
            "nonsense": opening(daemon, b"nonsense\r\n\r\n", 20, True),
            "endless lines": opening(daemon, b"GET /" + b"a" * 1_000_000, 10),
            "pages of made-up names": opening(
                daemon, get.replace(b"PATH", b"/api/v1/results?limit=100&probe=RANDOM"), 40
            ),
            "pages of one name": opening(daemon, get.replace(b"PATH", b"/"), 40),
            "one hanging target": opening(daemon, get.replace(b"PATH", b"/probe?target=hang0"), 35),
            # Not in the report.
            "one hanging target by many names": opening(
                daemon, get.replace(b"PATH", b"/probe?target=hang1&x=RANDOM"), 35
            ),
            "heads of a hanging target": opening(
                daemon, get.replace(b"GET", b"HEAD").replace(b"PATH", b"/probe?target=hang2"), 35
            ),
            "bodies that never come": opening(
                daemon,
                b"POST /-/reload HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 99\r\n\r\n",
                35,
            ),
            "bodies that are awaited": opening(
                daemon,
                b"POST /-/reload HTTP/1.1\r\nHost: "
                + host
                + b"\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n",
                35,
            ),
        }
        for name, attack in floods.items():
            flood(account, daemon, f"flood: {name}", attack)
        targets = iter(range(140))

        def hundred(stop: threading.Event) -> None:
            streams = []
            with contextlib.suppress(OSError, StopIteration):
                while True:
                    stream = socket.create_connection(daemon.address, timeout=5)
                    stream.sendall(get.replace(b"PATH", b"/probe?target=hang%d" % next(targets)))
                    streams.append(stream)
            stop.wait(30)

        flood(account, daemon, "flood: 140 hanging targets", hundred, threads=1)
        reload = b"POST /-/reload HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 0\r\n\r\n"
        flood(account, daemon, "flood: reloads", opening(daemon, reload, 60))
        begun = time.monotonic()
        runs = daemon.value("langmart_probe_runs_total", 'probe="p0"')
        time.sleep(1)
        more = daemon.value("langmart_probe_runs_total", 'probe="p0"') - runs
        account.note(
            "honest probes after the floods",
            more >= 5,
            f"{more:.0f} runs of 10 in {time.monotonic() - begun:.1f} s, "
            f"{daemon.resident():.0f} MiB",
        )
        hold.set()
    logins(prober, account)


def logins(prober: str, account: Account) -> None:
    """Sends many wrong passwords, during requests of a cached and of a new user."""
    # Of "wonderland", at cost 8.
    hashed = "$2b$08$"
    with contextlib.suppress(ImportError):
        import crypt

        hashed = crypt.crypt("wonderland", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=2**8))
    if not hashed or len(hashed) != 60:
        account.skip("flood: wrong passwords", "crypt with bcrypt")
        return
    right = {"Authorization": "Basic " + base64.b64encode(b"alice:wonderland").decode()}
    with (
        Place(prober, LISTEN + f'basic_auth = {{ alice = "{hashed}" }}\n') as place,
        Daemon(place) as daemon,
    ):
        daemon.get("/metrics", headers=right)
        host = f"{daemon.address[0]}:{daemon.address[1]}".encode()

        def guess(stop: threading.Event) -> None:
            while not stop.is_set():
                wrong = base64.b64encode(b"alice:" + str(random.random()).encode())
                raw(
                    daemon,
                    b"GET / HTTP/1.1\r\nHost: "
                    + host
                    + b"\r\nAuthorization: Basic "
                    + wrong
                    + b"\r\n\r\n",
                )

        flood(account, daemon, "flood: wrong passwords", guess, threads=60, headers=right)
