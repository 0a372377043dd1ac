"""Services with endless answers, next to honest ones on the same scheduling thread."""

import socket
import time
from collections.abc import Callable

from harness import KEY, LISTEN, Account, Daemon, Place, Service, auth_probes, wait_for

#: Connections at a time: the default for one provider.
CONNECTIONS = 8
SECONDS, SECONDS_LONG = 5, 30
#: Honest probes, each once a second, and the share of their runs that must have ended.
HONEST, SHARE = 10, 0.7
#: Resident memory of the daemon, in MiB, beyond what it had.
MEMORY = 64

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Returns the data as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


#: By name: the beginning of a response, and what follows it without end.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "103 Early Hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000),
    "header lines": (OK, b"x-y: z\r\n" * 5000),
    "header value": (OK + b"x-y: ", b"z" * 65536),
    "empty events": (CHUNKED, chunk(b"data:{}\n\n" * 5000)),
    "numbers as events": (CHUNKED, chunk(b"data: 1\n\n" * 5000)),
    "comments": (CHUNKED, chunk(b":\n" * 20000)),
    "large events": (CHUNKED, chunk(b"data: [" + b"[]," * 150_000 + b"[]]\n\n")),
    "tiny chunks": (CHUNKED, chunk(b"d") * 10_000),
    "one line": (CHUNKED, chunk(b"data: " * 10_000)),
    "brackets": (CHUNKED, chunk(b"[" * 65536)),
    "spaces": (OK + b"Content-Length: 99999999999\r\n\r\n", b" " * 65536),
}


def without_end(begin: bytes, more: bytes) -> Callable[[socket.socket], None]:
    """Returns a function that sends a flood until the client leaves."""

    def answer(stream: socket.socket) -> None:
        stream.sendall(begin)
        while True:
            stream.sendall(more)

    return answer


def run(prober: str, account: Account, long: bool) -> None:
    """Runs each flood on several connections, and measures honest probes."""
    seconds = SECONDS_LONG if long else SECONDS
    service = Service()
    for index, (name, (begin, more)) in enumerate(FLOODS.items()):
        service.answers[f"flood{index}"] = without_end(begin, more)
        flooding = (
            f'[provider.flood]\napi = "openai"\nbase_url = "http://127.0.0.1:{service.port}/flood{index}"\n'
            'api_key = { env = "SIM_KEY" }\nchecks = []\n'
        )
        for probe in range(CONNECTIONS):
            flooding += (
                f'[[probe]]\nname = "flood{probe}"\nprovider = "flood"\ncheck = "stream"\n'
                'model = "m"\ninterval = "2s"\ntimeout = "2s"\n'
            )
        with Place(prober, LISTEN + auth_probes(service, HONEST, "1s") + flooding) as place:
            with Daemon(place) as daemon:
                watch(account, daemon, name, seconds)


def watch(account: Account, daemon: Daemon, name: str, seconds: int) -> None:
    """Judges what the flood did to the honest probes and to the memory."""
    honest = 'provider="openai"'
    before = daemon.resident()
    peak, end = before, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        peak = max(peak, daemon.resident())
    wait_for("a page", lambda: daemon.get("/metrics")[0] == 200)
    runs = daemon.value("langmart_probe_runs_total", honest)
    failed = daemon.value("langmart_probe_failures_total", honest)
    skipped = daemon.value("langmart_probe_skipped_runs_total", honest)
    well = daemon.is_well() and KEY.encode() not in daemon.log
    held = well and runs >= SHARE * HONEST * seconds and failed == skipped == 0
    held = held and peak - before < MEMORY
    figure = f"{runs:.0f} honest runs, {failed:.0f} failed, {skipped:.0f} skipped"
    figure += f", {peak - before:+.0f} MiB"
    account.note(f"endless {name}", held, figure)
