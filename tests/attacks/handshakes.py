"""Hostile TLS: records without end, handshakes in crumbs, huge certificates, keys that change."""

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from floods import SECONDS, SECONDS_LONG, beside
from harness import (
    Account,
    Certificate,
    Listener,
    Place,
    Service,
    flooding,
    has_openssl,
    response,
    wait_for,
)

#: Of each run, and what it may take beyond that, in seconds.
TIMEOUT, SLACK = 3, 2
ALERT, HANDSHAKE, CHANGE_CIPHER_SPEC, DATA, HEARTBEAT = 21, 22, 20, 23, 24
MODELS = response('{"object":"list","data":[]}')

#: The random value by which a ServerHello asks for another key share (RFC 8446, 4.1.3).
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

Attack = Callable[[socket.socket], None]


def record(kind: int, payload: bytes) -> bytes:
    """Returns a record of TLS 1.2 and before."""
    return struct.pack(">BHH", kind, 0x0303, len(payload)) + payload


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Returns a handshake message, of which the length may be a lie."""
    return bytes([kind]) + (len(body) if length is None else length).to_bytes(3, "big") + body


def server_hello(hello: bytes, random: bytes, extensions: bytes) -> bytes:
    """Returns a ServerHello that answers a ClientHello."""
    session = hello[43 + 1 : 43 + 1 + hello[43]] if len(hello) > 43 else b""
    body = b"\x03\x03" + random + bytes([len(session)]) + session + b"\x13\x01\0"
    return record(HANDSHAKE, message(2, body + struct.pack(">H", len(extensions)) + extensions))


def retry(hello: bytes) -> bytes:
    """Returns a HelloRetryRequest for secp384r1 in TLS 1.3."""
    return server_hello(hello, RETRY, bytes.fromhex("002b00020304003300020018"))


def raw(once: bytes, without_end: bytes = b"") -> Attack:
    """Returns what reads a ClientHello and answers by these bytes."""
    return raw_by(lambda _: (once, without_end))


def raw_by(answer: Callable[[bytes], tuple[bytes, bytes]]) -> Attack:
    """Returns what reads a ClientHello and answers by bytes that depend on it."""

    def attack(stream: socket.socket) -> None:
        hello = stream.recv(65_536)
        once, without_end = answer(hello)
        stream.sendall(once)
        block = without_end * (65_536 // len(without_end) + 1) if without_end else b""
        while block:
            stream.sendall(block)
        threading.Event().wait(10)

    return attack


#: Bytes in the place of a handshake: what comes once, and what follows without end.
RAW: dict[str, tuple[bytes, bytes]] = {
    "silence": (b"", b""),
    "empty records": (b"", record(HANDSHAKE, b"")),
    "empty records of data": (b"", record(DATA, b"")),
    "warnings": (b"", record(ALERT, b"\x01\x5a")),
    "changes of the cipher": (b"", record(CHANGE_CIPHER_SPEC, b"\x01")),
    "data before the handshake": (b"", record(DATA, b"x" * 16_384)),
    "heartbeats": (b"", record(HEARTBEAT, b"\x01\x40\x00")),
    "HelloRequest": (b"", record(HANDSHAKE, message(0, b""))),
    "a message of 16 MiB": (
        record(HANDSHAKE, message(2, b"", 0xFFFFFF)),
        record(HANDSHAKE, b"x" * 16_384),
    ),
    "a message of 16 MiB in crumbs": (
        record(HANDSHAKE, message(2, b"", 0xFFFFFF)),
        record(HANDSHAKE, b"x"),
    ),
    "a record of 64 KiB": (struct.pack(">BHH", HANDSHAKE, 0x0303, 0xFFFF), b"x"),
    "a record of an unknown kind": (record(99, b"x" * 100), record(99, b"x" * 100)),
    "SSL 2": (b"\x80\x2e\x04\0\x01\0\x02", b"x"),
    "plain HTTP": (MODELS, b""),
    "its own words": (b"", b""),
    "unrecognized_name, fatal": (record(ALERT, b"\x02\x70"), b""),
    "half an alert": (record(ALERT, b"\x02"), b""),
    "two alerts in crumbs": (
        record(ALERT, b"\x01") + record(ALERT, b"\x5a"),
        record(ALERT, b"\x01"),
    ),
}


class Spoken:
    """The server's side of a handshake in memory, so that its records can be cut."""

    def __init__(self, context: ssl.SSLContext, stream: socket.socket) -> None:
        """Begins nothing yet."""
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def serve(self, send: Callable[[bytes], None]) -> None:
        """Shakes hands and answers one request; `send` gets what is to be sent."""
        self._until(self.tls.do_handshake, send)
        request = b""
        while b"\r\n\r\n" not in request:
            request += self._until(self.tls.read, send) or b""
        self.tls.write(MODELS)
        send(self.outgoing.read())
        with contextlib.suppress(OSError):
            self.stream.recv(1)

    def _until(
        self, step: Callable[[], bytes | None], send: Callable[[bytes], None]
    ) -> bytes | None:
        while True:
            try:
                done = step()
                send(self.outgoing.read())
                return done
            except ssl.SSLWantReadError:
                send(self.outgoing.read())
                received = self.stream.recv(65_536)
                if not received:
                    raise EOFError from None
                self.incoming.write(received)


def cut(data: bytes, size: int) -> bytes:
    """Returns the same records, those of a handshake in the clear cut into smaller ones."""
    found, place, is_clear = b"", 0, True
    while place < len(data):
        kind, _, length = struct.unpack(">BHH", data[place : place + 5])
        payload = data[place + 5 : place + 5 + length]
        is_clear = is_clear and kind != CHANGE_CIPHER_SPEC
        if kind == HANDSHAKE and is_clear:
            found += b"".join(
                record(kind, payload[start : start + size]) for start in range(0, length, size)
            )
        else:
            found += data[place : place + 5 + length]
        place += 5 + length
    return found


def fragmented(certificate: Certificate, size: int) -> Attack:
    """Returns a good server of TLS 1.2 whose handshake comes in records of that size."""
    context = certificate.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def attack(stream: socket.socket) -> None:
        Spoken(context, stream).serve(lambda data: stream.sendall(cut(data, size)))

    return attack


def dripping(certificate: Certificate) -> Attack:
    """Returns a good server of TLS 1.3 whose bytes come one by one."""
    context = certificate.context()

    def drip(stream: socket.socket, data: bytes) -> None:
        for byte in data:
            stream.sendall(bytes([byte]))

    def attack(stream: socket.socket) -> None:
        Spoken(context, stream).serve(lambda data: drip(stream, data))

    return attack


def good(context: ssl.SSLContext) -> Attack:
    """Returns a server that shakes hands with these settings and answers."""

    def attack(stream: socket.socket) -> None:
        Spoken(context, stream).serve(stream.sendall)

    return attack


def long_chain(certificate: Certificate, times: int, directory: Path) -> Attack:
    """Returns a server that sends its certificate so many times."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = directory / f"chain{times}.pem"
    chain.write_text(certificate.chain.read_text() * times)
    context.load_cert_chain(chain, certificate.key)
    return good(context)


def tickets(certificate: Certificate, number: int) -> Attack:
    """Returns a server that sends so many session tickets."""
    context = certificate.context()
    context.num_tickets = number
    return good(context)


def half_close(certificate: Certificate) -> Attack:
    """Returns a server that ends TLS, not TCP, in the place of an answer."""
    context = certificate.context()

    def attack(stream: socket.socket) -> None:
        with context.wrap_socket(stream, server_side=True) as wrapped:
            wrapped.recv(65_536)
            with contextlib.suppress(OSError):
                wrapped.settimeout(0.1)
                wrapped.unwrap()
            threading.Event().wait(10)

    return attack


def once(prober: str, account: Account, attacks: dict[str, Attack], trust: str) -> None:
    """Every attack by one `once`: each gets a verdict, in time, that is not the prober's own."""
    names = list(attacks)
    config = "".join(
        f'[provider.a{index}]\napi = "openai"\n'
        f'base_url = "https://127.0.0.1:{Listener(attacks[name]).port}"\n'
        f'api_key = {{ env = "SIM_KEY" }}\nchecks = []\n{trust}'
        + "".join(
            f'[[probe]]\nname = "a{index}-{check}"\nprovider = "a{index}"\ncheck = "{check}"\n'
            f'timeout = "{TIMEOUT}s"\n'
            for check in ("network", "auth")
        )
        for index, name in enumerate(names)
    )
    with Place(prober, config) as place:
        done = place.run("once", "--json", timeout=120)
    records = {record["probe"]: record for record in map(json.loads, done.stdout.splitlines())}
    for index, name in enumerate(names):
        pair = [records.get(f"a{index}-{check}") for check in ("network", "auth")]
        found = [record for record in pair if record]
        held = len(found) == 2 and all(
            record["reason"] != "internal" and record["duration_seconds"] <= TIMEOUT + SLACK
            for record in found
        )
        figure = ", ".join(
            f"{record['check']} {record['reason']} after {record['duration_seconds']:.2f} s"
            for record in found
        )
        account.note(f"TLS: {name}", held, figure or "no record", 2)


def commanded(
    prober: str,
    account: Account,
    certificate: Certificate,
    name: str,
    options: list[str],
    key: bytes,
) -> None:
    """Runs a server of openssl that changes keys or renegotiates repeatedly."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = ["-cert", str(certificate.chain), "-key", str(certificate.key)]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", *files, *options]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert server.stdin and server.stdout
    printed: list[bytes] = []
    commands, output = server.stdin, server.stdout

    def listen() -> None:
        for line in output:
            printed.append(line)

    def command_without_end() -> None:
        with contextlib.suppress(OSError, ValueError):
            while server.poll() is None:
                commands.write(key * 100)
                commands.flush()
                time.sleep(0.01)

    config = (
        f'[provider.openai]\nbase_url = "https://127.0.0.1:{port}"\n'
        f'api_key = {{ env = "SIM_KEY" }}\nchecks = []\nca_file = "{certificate.chain}"\n'
        '[[probe]]\nname = "p"\nprovider = "openai"\ncheck = "auth"\n'
        f'timeout = "{TIMEOUT}s"\n'
    )
    try:
        threading.Thread(target=listen, daemon=True).start()
        wait_for("openssl to listen", lambda: any(b"ACCEPT" in line for line in printed))
        threading.Thread(target=command_without_end, daemon=True).start()
        with Place(prober, config) as place:
            begun = time.monotonic()
            done = place.run("once", "--json", timeout=60)
            took = time.monotonic() - begun
        found = json.loads(done.stdout)
        held = found["reason"] != "internal" and took <= TIMEOUT + SLACK
        account.note(f"TLS: {name}", held, f"{found['reason']} after {took:.2f} s")
    finally:
        server.kill()
        server.wait()


def run(prober: str, account: Account, long: bool) -> None:
    """Verdicts first, then all endless ones at once beside honest probes."""
    if not has_openssl():
        account.skip("TLS", "openssl")
        return
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        directory = Path(name)
        certificate = Certificate(directory)
        attacks: dict[str, Attack] = {name: raw(*parts) for name, parts in RAW.items()}
        attacks["its own words"] = raw_by(lambda hello: (hello, hello))
        attacks["HelloRetryRequest without end"] = raw_by(
            lambda hello: (retry(hello), retry(hello))
        )
        attacks["ServerHello of zeros"] = raw_by(
            lambda hello: (server_hello(hello, b"\0" * 32, b""), b"")
        )
        attacks["extensions of 64 KiB"] = raw_by(
            lambda hello: (
                record(HANDSHAKE, message(2, b"\x03\x03" + b"\0" * 16_000, 65_000)),
                hello,
            )
        )
        attacks["handshake in records of 1 byte"] = fragmented(certificate, 1)
        attacks["handshake in records of 7 bytes"] = fragmented(certificate, 7)
        attacks["handshake byte by byte"] = dripping(certificate)
        for times in (16, 200, 2000):
            attacks[f"chain of {times} certificates"] = long_chain(certificate, times, directory)
        for names in (1000, 20_000):
            large = Certificate(directory, f"large{names}", names)
            attacks[f"certificate of {names} names"] = good(large.context())
        attacks["1,000 tickets"] = tickets(certificate, 1000)
        attacks["the end of TLS alone"] = half_close(certificate)
        trust = f'ca_file = "{certificate.chain}"\n'
        once(prober, account, attacks, trust)
        key_update = ["-tls1_3", "-num_tickets", "0"]
        commanded(prober, account, certificate, "KeyUpdate without end", key_update, b"k\n")
        commanded(prober, account, certificate, "KeyUpdate to be answered", key_update, b"K\n")
        old = ["-tls1_2", "-legacy_renegotiation"]
        commanded(prober, account, certificate, "renegotiation without end", old, b"r\n")
        commanded(prober, account, certificate, "renegotiation with a certificate", old, b"R\n")
        endless = [attack for name, attack in attacks.items() if RAW.get(name, (b"", b""))[1]]
        endless.append(attacks["HelloRetryRequest without end"])
        flood = "".join(
            flooding(f"tls{index}", f"https://127.0.0.1:{Listener(attack).port}", 1, check, trust)
            for index, attack in enumerate(endless)
            for check in (("network", "auth")[index % 2],)
        )
        seconds = SECONDS_LONG if long else SECONDS
        beside(prober, account, Service(), "TLS: all that end never", flood, seconds, len(endless))
