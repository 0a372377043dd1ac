"""Hostile HTTP/2: frames without end, header lists that grow, windows that never open."""

import contextlib
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from floods import beside
from harness import (
    WAIT_TIMEOUT,
    Account,
    Certificate,
    Listener,
    Service,
    flooding,
    has_openssl,
)

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 6, 7, 8, 9, 0xFA
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
PREFACE = 24
#: Connections at a time.
CONNECTIONS = 4
SECONDS, SECONDS_LONG = 3, 20

#: `:status` 200 from the static table, 103 as a literal (RFC 7541).
OK, EARLY_HINTS = b"\x88", b"\x08\x03103"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns a frame (RFC 9113, section 4.1)."""
    length = len(payload)
    head = struct.pack(">BHBBI", length >> 16, length & 0xFFFF, kind, flags, stream)
    return head + payload


def setting(name: int, value: int) -> bytes:
    """Returns one setting."""
    return struct.pack(">HI", name, value)


def literal(name: bytes, value: bytes, indexed: bool = False) -> bytes:
    """Returns a header field as a literal, which the peer remembers if `indexed`."""
    return (b"\x40" if indexed else b"\x00") + number(len(name)) + name + number(len(value)) + value


def number(value: int) -> bytes:
    """Returns the length of a string as HPACK has it: with a prefix of seven bits."""
    if value < 127:
        return bytes([value])
    encoded, value = b"\x7f", value - 127
    while value >= 128:
        encoded, value = encoded + bytes([value % 128 + 128]), value // 128
    return encoded + bytes([value])


INITIAL_WINDOW, TABLE_SIZE, MAX_FRAME, MAX_STREAMS = 4, 1, 5, 3
HEAD = frame(HEADERS, END_HEADERS, 1, OK)
OPEN_HEAD = frame(HEADERS, 0, 1, OK)
BOMB = literal(b"a", b"b" * 4000, indexed=True) + b"\xbe" * 16_000

#: By name: the frames of SETTINGS that greet the client, what comes once, what follows without end.
ATTACKS: dict[str, tuple[bytes, bytes, bytes]] = {
    "SETTINGS": (b"", b"", frame(SETTINGS, 0, 0)),
    "SETTINGS that change the table": (
        b"",
        b"",
        frame(SETTINGS, 0, 0, setting(TABLE_SIZE, 0) + setting(TABLE_SIZE, 4096)),
    ),
    "SETTINGS that change the window": (
        b"",
        b"",
        frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW, 0) + setting(INITIAL_WINDOW, 2**31 - 1)),
    ),
    "SETTINGS of 2,700 values": (b"", b"", frame(SETTINGS, 0, 0, setting(MAX_STREAMS, 9) * 2700)),
    "acknowledged SETTINGS": (b"", b"", frame(SETTINGS, ACK, 0)),
    "PING": (b"", b"", frame(PING, 0, 0, b"8 bytes.")),
    "answered PING": (b"", b"", frame(PING, ACK, 0, b"8 bytes.")),
    "PRIORITY": (b"", b"", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    "PRIORITY of idle streams": (b"", b"", frame(PRIORITY, 0, 99, b"\0\0\0\0\x10")),
    "RST_STREAM": (b"", b"", frame(RST_STREAM, 0, 1, struct.pack(">I", 8))),
    "RST_STREAM after the head": (b"", HEAD, frame(RST_STREAM, 0, 1, struct.pack(">I", 0))),
    "WINDOW_UPDATE": (b"", b"", frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))),
    "WINDOW_UPDATE of the stream": (b"", b"", frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1))),
    "WINDOW_UPDATE of nothing": (b"", b"", frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0))),
    "WINDOW_UPDATE beyond 2^31": (
        b"",
        b"",
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
    ),
    "CONTINUATION": (b"", OPEN_HEAD, frame(CONTINUATION, 0, 1, literal(b"x-y", b"z" * 1000))),
    "empty CONTINUATION": (b"", OPEN_HEAD, frame(CONTINUATION, 0, 1)),
    "CONTINUATION of one field": (
        b"",
        frame(HEADERS, 0, 1, OK + b"\x00\x01x" + number(2**30)),
        frame(CONTINUATION, 0, 1, b"y" * 16_384),
    ),
    "header list of 64 MiB by reference": (b"", frame(HEADERS, END_HEADERS, 1, OK + BOMB), b""),
    "header list of 1 MiB": (
        b"",
        OPEN_HEAD
        + frame(CONTINUATION, 0, 1, literal(b"x-y", b"z" * 16_000)) * 64
        + frame(CONTINUATION, END_HEADERS, 1),
        b"",
    ),
    "10,000 header fields": (
        b"",
        OPEN_HEAD
        + frame(CONTINUATION, 0, 1, literal(b"x", b"y") * 1000) * 10
        + frame(CONTINUATION, END_HEADERS, 1),
        b"",
    ),
    "103 Early Hints": (b"", b"", frame(HEADERS, END_HEADERS, 1, EARLY_HINTS)),
    "103 of 16 KiB": (
        b"",
        b"",
        frame(HEADERS, END_HEADERS, 1, EARLY_HINTS + literal(b"x", b"y" * 16_000)),
    ),
    "heads of a response": (b"", b"", HEAD),
    "PUSH_PROMISE": (b"", b"", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02" + OK)),
    "HEADERS of streams that are not open": (b"", b"", frame(HEADERS, END_HEADERS, 2, OK)),
    "GOAWAY": (b"", b"", frame(GOAWAY, 0, 0, struct.pack(">II", 2**31 - 1, 0) + b"x" * 1000)),
    "unknown frames": (b"", b"", frame(UNKNOWN, 0xFF, 1, b"x" * 16)),
    "empty DATA": (b"", HEAD, frame(DATA, 0, 1)),
    "DATA of one byte": (b"", HEAD, frame(DATA, 0, 1, b":")),
    "padded DATA": (b"", HEAD, frame(DATA, PADDED, 1, b"\xff" + b"\0" * 255)),
    "DATA before the head": (b"", b"", frame(DATA, 0, 1, b"x")),
    "DATA beyond the window": (b"", HEAD, frame(DATA, 0, 1, b"x" * 16_384)),
    "frames larger than agreed": (b"", HEAD, frame(DATA, 0, 1, b"x" * 65_536)),
    "window of 0": (setting(INITIAL_WINDOW, 0), b"", b""),
    "window of 0, one byte at a time": (
        setting(INITIAL_WINDOW, 0),
        frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)) * 40,
        b"",
    ),
    "no stream allowed": (setting(MAX_STREAMS, 0), b"", b""),
    "frames of 16 MiB announced": (
        setting(MAX_FRAME, 2**24 - 1),
        b"\xff\xff\xff\0\0\0\0\0\x01",
        b"x",
    ),
}


def speaker(
    certificate: Certificate, greeting: bytes, once: bytes, without_end: bytes
) -> Callable[[socket.socket], None]:
    """Returns what speaks HTTP/2 with a client until its request has come, and then attacks it."""
    context = certificate.context()
    context.set_alpn_protocols(["h2"])
    block = without_end * (65_536 // len(without_end) + 1) if without_end else b""

    def attack(stream: socket.socket) -> None:
        with context.wrap_socket(stream, server_side=True) as wrapped:
            wrapped.sendall(frame(SETTINGS, 0, 0, greeting))
            await_request(wrapped, is_open=setting(MAX_STREAMS, 0) != greeting)
            wrapped.sendall(frame(SETTINGS, ACK, 0))
            # Discards what the client sends, so that the client is never blocked.
            below = socket.socket(fileno=os.dup(wrapped.fileno()))
            threading.Thread(target=discard, args=(below,), daemon=True).start()
            wrapped.sendall(once)
            while block:
                wrapped.sendall(block)
            threading.Event().wait(10)

    return attack


def discard(stream: socket.socket) -> None:
    """Reads to the end."""
    with contextlib.suppress(OSError), stream:
        # The descriptor is one that does not block, as TLS needs it.
        stream.settimeout(WAIT_TIMEOUT)
        while stream.recv(65_536):
            pass


def await_request(stream: socket.socket, is_open: bool) -> None:
    """Reads until the head of a request has come, or anything where no request may come."""
    received, place = b"", PREFACE
    while True:
        received += stream.recv(65_536)
        while len(received) >= place + 9:
            length = int.from_bytes(received[place : place + 3], "big")
            if received[place + 3] == HEADERS or not is_open:
                return
            place += 9 + length


def run(prober: str, account: Account, long: bool) -> None:
    """Each attack on several connections, while honest probes are watched."""
    if not has_openssl():
        account.skip("HTTP/2", "openssl")
        return
    seconds = SECONDS_LONG if long else SECONDS
    service = Service()
    with tempfile.TemporaryDirectory(prefix="attack-") as directory:
        certificate = Certificate(Path(directory))
        trust = f'ca_file = "{certificate.chain}"\n'
        for name, (greeting, once, without_end) in ATTACKS.items():
            listener = Listener(speaker(certificate, greeting, once, without_end))
            url = f"https://127.0.0.1:{listener.port}"
            flood = flooding("flood", url, CONNECTIONS // 2, "chat", trust)
            flood += flooding("stream", url, CONNECTIONS // 2, "stream", trust)
            beside(prober, account, service, f"HTTP/2: {name}", flood, seconds)
