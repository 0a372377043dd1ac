"""Services with endless answers, next to honest ones on the same scheduling thread."""

import socket
import time
from collections.abc import Callable

from harness import (
    KEY,
    LISTEN,
    Account,
    Daemon,
    Listener,
    Place,
    Service,
    auth_probes,
    flooding,
    wait_for,
)

#: Connections at a time: the default for one provider.
CONNECTIONS = 8
SECONDS, SECONDS_LONG = 5, 30
#: Honest probes, each once a second, and the share of their runs that must have ended.
HONEST, SHARE = 10, 0.7
#: The share of them that a busy machine may make too late.
SKIPPED = 0.1
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
    # Not in the report.
    "102 Processing, slowly named": (b"", b"HTTP/1.1 102 " + b"p" * 4096 + b"\r\n\r\n"),
    "blank lines before the head": (b"", b"\r\n" * 20_000),
    "folded header": (OK + b"x-y: z\r\n", b" folded\r\n" * 5000),
    "chunk extension": (CHUNKED + b"1;", b"x=y;" * 16_384),
    "trailers": (CHUNKED + b"0\r\n", b"x-y: z\r\n" * 5000),
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
        url = f"http://127.0.0.1:{service.port}/flood{index}"
        flood = flooding("flood", url, CONNECTIONS, "stream")
        beside(prober, account, service, f"endless {name}", flood, seconds)
    pages(prober, account, service, seconds)


def pages(prober: str, account: Account, service: Service, seconds: int) -> None:
    """The floods that come before a head or in a body, by a status page and by a proxy."""
    for index, (begin, more) in enumerate(FLOODS.values()):
        service.answers[f"page{index}"] = without_end(begin, more)
    chosen = [name for name in FLOODS if begins_without_a_head(FLOODS[name][0])]
    place = f"http://127.0.0.1:{service.port}"
    flood = "".join(
        flooding(
            f"page{index}",
            f"{place}/page{index}",
            1,
            "status",
            f'status_url = "{place}/page{index}"\n',
        )
        for index, name in enumerate(FLOODS)
        if name in chosen
    )
    beside(prober, account, service, "endless status pages", flood, seconds, len(chosen))
    proxies = [Listener(without_end_after_a_head(*FLOODS[name])) for name in chosen]
    flood = "".join(
        flooding(
            f"proxy{index}",
            "https://attack.test",
            1,
            "auth",
            f'proxy = "http://127.0.0.1:{proxy.port}"\n',
        )
        for index, proxy in enumerate(proxies)
    )
    beside(prober, account, service, "endless answers to CONNECT", flood, seconds, len(chosen))


def begins_without_a_head(begin: bytes) -> bool:
    """Whether a flood comes before the head of the final response has ended."""
    return not begin.endswith(b"\r\n\r\n")


def without_end_after_a_head(begin: bytes, more: bytes) -> Callable[[socket.socket], None]:
    """Returns what reads a request and then plays a flood until the client leaves."""
    play = without_end(begin, more)

    def answer(stream: socket.socket) -> None:
        while b"\r\n\r\n" not in stream.recv(65536):
            pass
        play(stream)

    return answer


def beside(
    prober: str,
    account: Account,
    service: Service,
    name: str,
    flood: str,
    seconds: int,
    inputs: int = 1,
) -> None:
    """Plays what the providers of `flood` are answered with, beside honest probes."""
    config = LISTEN + auth_probes(service, HONEST, "1s") + flood
    with Place(prober, config) as place, Daemon(place) as daemon:
        watch(account, daemon, name, seconds, inputs)


def watch(account: Account, daemon: Daemon, name: str, seconds: int, inputs: int) -> None:
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
    held = well and runs >= SHARE * HONEST * seconds
    held = held and failed == 0 and skipped <= SKIPPED * runs
    held = held and peak - before < MEMORY
    ours = flooded_reasons(daemon)
    held = held and "internal" not in ours
    figure = f"{runs:.0f} honest runs, {failed:.0f} failed, {skipped:.0f} skipped"
    figure += f", {peak - before:+.0f} MiB; the attacked: {', '.join(sorted(ours)) or 'no failure'}"
    account.note(name, held, figure, inputs)


def flooded_reasons(daemon: Daemon) -> set[str]:
    """The reasons of the failed runs that were attacked."""
    found = set()
    for line in daemon.get("/metrics")[1].splitlines():
        if line.startswith("langmart_probe_failures_total") and not line.endswith(" 0"):
            if 'provider="openai"' not in line:
                found.add(line.split('reason="')[1].split('"')[0])
    return found
