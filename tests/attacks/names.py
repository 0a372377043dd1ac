"""Hostile name servers: answers that loop, have wrong lengths or wrong senders, or never end."""

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness import Account, Place, is_root

ADDRESS = ("127.0.0.53", 53)
#: Of each run, and what it may take beyond that for the explanation of a failure, in seconds.
TIMEOUT, SLACK = 4, 4
A, CNAME, OPT, AAAA = 1, 5, 41, 28
POINTER = b"\xc0\x0c"
HERE = bytes([127, 0, 0, 1])

#: Verdicts on a name that has no address, and on one whose address has no listener.
LOST, FOUND = {"dns", "timeout"}, {"dns", "timeout", "connect"}


def name(text: str) -> bytes:
    """Returns a name as labels."""
    labels = text.encode("latin-1").split(b".")
    return b"".join(bytes([len(label)]) + label for label in labels if label) + b"\0"


def resource(
    owner: bytes, kind: int, data: bytes, ttl: int = 60, length: int | None = None
) -> bytes:
    """Returns a record, of which the length may be a lie."""
    size = len(data) if length is None else length
    return owner + struct.pack(">HHIH", kind, 1, ttl, size) + data


class Query:
    """A question, and what its answers are made of."""

    def __init__(self, data: bytes) -> None:
        """Reads the first question."""
        place = 12
        while data[place]:
            place += 1 + data[place]
        self.data = data
        self.end = place + 5
        self.kind = struct.unpack(">H", data[place + 1 : place + 3])[0]
        self.label = data[13 : 13 + data[12]].decode("latin-1").lower()

    def answer(
        self,
        *records: bytes,
        flags: int = 0x8180,
        count: int | None = None,
        ident: bytes | None = None,
        question: bytes | None = None,
        more: int = 0,
    ) -> bytes:
        """Returns an answer, every part of which may be a lie."""
        asked = self.data[12 : self.end] if question is None else question
        number = len(records) if count is None else count
        head = (self.data[:2] if ident is None else ident) + struct.pack(
            ">HHHHH", flags, 1, number & 0xFFFF, 0, more
        )
        return head + asked + b"".join(records)

    def address(self) -> bytes:
        """Returns a good record of the kind that is asked for."""
        return resource(POINTER, self.kind, HERE if self.kind == A else b"\0" * 15 + b"\x01")

    def other_id(self, offset: int) -> bytes:
        """Returns an identifier that is not this query's."""
        return struct.pack(">H", (int.from_bytes(self.data[:2], "big") + offset) & 0xFFFF)


Answers = Callable[[Query], list[bytes]]


def chain(query: Query, length: int) -> list[bytes]:
    """Aliases one after another, in one answer."""
    links = [resource(POINTER, CNAME, name("c0.attack.test"))]
    links += [
        resource(name(f"c{i}.attack.test"), CNAME, name(f"c{i + 1}.attack.test"))
        for i in range(length - 1)
    ]
    return [query.answer(*links)]


#: By the first label of a name: the verdicts that are right, and the datagrams that answer.
ANSWERS: dict[str, tuple[set[str], Answers]] = {
    "silent": (LOST, lambda q: []),
    "cname-self": (LOST, lambda q: [q.answer(resource(POINTER, CNAME, POINTER))]),
    "cname-loop-a": (
        LOST,
        lambda q: [q.answer(resource(POINTER, CNAME, name("cname-loop-b.attack.test")))],
    ),
    "cname-loop-b": (
        LOST,
        lambda q: [q.answer(resource(POINTER, CNAME, name("cname-loop-a.attack.test")))],
    ),
    "cname-ring": (
        LOST,
        lambda q: [
            q.answer(
                resource(POINTER, CNAME, name("r1.attack.test")),
                resource(name("r1.attack.test"), CNAME, name("r2.attack.test")),
                resource(name("r2.attack.test"), CNAME, name("r1.attack.test")),
            )
        ],
    ),
    "cname-chain": (LOST, lambda q: chain(q, 300)),
    "cname-control": (
        LOST,
        lambda q: [q.answer(resource(POINTER, CNAME, name("\x1b[2J\n<b>.attack.test")))],
    ),
    "pointer-self": (FOUND, lambda q: [q.answer(resource(bytes([0xC0, q.end]), q.kind, HERE))]),
    "pointer-pair": (
        FOUND,
        lambda q: [
            q.answer(
                resource(POINTER, CNAME, bytes([1, 97, 0xC0, q.end + 14, 1, 98, 0xC0, q.end + 12]))
            )
        ],
    ),
    "pointer-ahead": (FOUND, lambda q: [q.answer(resource(b"\xff\xff", q.kind, HERE))]),
    "pointer-into-head": (FOUND, lambda q: [q.answer(resource(b"\xc0\x00", q.kind, HERE))]),
    "label-reserved": (FOUND, lambda q: [q.answer(resource(b"\x80x\0", q.kind, HERE))]),
    "label-long": (FOUND, lambda q: [q.answer(resource(b"\x3f" + b"x" * 10, q.kind, HERE))]),
    "name-long": (
        FOUND,
        lambda q: [
            q.answer(resource(b"\x3f" + b"x" * 63, CNAME, (b"\x3f" + b"x" * 63) * 8 + b"\0"))
        ],
    ),
    "id-wrong": (
        LOST,
        lambda q: [q.answer(q.address(), ident=q.other_id(i)) for i in range(1, 300)],
    ),
    "question-wrong": (
        LOST,
        lambda q: [q.answer(q.address(), question=name("x.test") + b"\0\x01\0\x01")],
    ),
    "question-none": (LOST, lambda q: [q.answer(q.address(), question=b"")]),
    # The C library looks at neither of these flags, as for every other program.
    "not-an-answer": (FOUND, lambda q: [q.answer(q.address(), flags=0x0100)]),
    "owner-wrong": (LOST, lambda q: [q.answer(resource(name("bank.test"), q.kind, HERE))]),
    "count-lies": (FOUND, lambda q: [q.answer(q.address(), count=65_535)]),
    "count-of-none": (LOST, lambda q: [q.answer(q.address(), count=0)]),
    "length-lies": (FOUND, lambda q: [q.answer(resource(POINTER, q.kind, HERE, length=65_535))]),
    "length-short": (FOUND, lambda q: [q.answer(resource(POINTER, q.kind, b""))]),
    "length-other": (FOUND, lambda q: [q.answer(resource(POINTER, q.kind, b"x" * 9))]),
    "ttl-negative": (FOUND, lambda q: [q.answer(resource(POINTER, q.kind, HERE, ttl=2**32 - 1))]),
    "many": (
        FOUND,
        lambda q: [
            q.answer(
                *[
                    resource(POINTER, q.kind, os.urandom(4 if q.kind == A else 16))
                    for _ in range(2000)
                ]
            )
        ],
    ),
    "options": (
        FOUND,
        lambda q: [q.answer(q.address(), *[resource(b"\0", OPT, b"")] * 50, count=1, more=50)],
    ),
    "truncated": (LOST, lambda q: [q.answer(flags=0x8380)]),
    "truncated-silent": (LOST, lambda q: [q.answer(flags=0x8380)]),
    "truncated-endless": (LOST, lambda q: [q.answer(flags=0x8380)]),
    "truncated-crumbs": (LOST, lambda q: [q.answer(flags=0x8380)]),
    "empty": (LOST, lambda q: [b""]),
    "one-byte": (LOST, lambda q: [b"x"]),
    "head-alone": (LOST, lambda q: [q.data[:2] + b"\x81\x80" + b"\0" * 8]),
    "garbage": (LOST, lambda q: [q.data[:2] + os.urandom(1000)]),
    "largest": (FOUND, lambda q: [q.answer(q.address()) + b"\0" * 65_000]),
    "flood": (
        FOUND,
        lambda q: [q.answer(q.address(), ident=q.other_id(1))] * 20_000 + [q.answer(q.address())],
    ),
    "code-unknown": (LOST, lambda q: [q.answer(flags=0x818F)]),
    "opcode-unknown": (FOUND, lambda q: [q.answer(q.address(), flags=0xF980)]),
    "forbidden-address": (
        FOUND,
        lambda q: [q.answer(resource(POINTER, q.kind, bytes(4 if q.kind == A else 16)))],
    ),
    "broadcast": (
        FOUND,
        lambda q: [q.answer(resource(POINTER, q.kind, b"\xff" * (4 if q.kind == A else 16)))],
    ),
}


class NameServer:
    """Answers by the first label of each name, over UDP and TCP."""

    def __init__(self) -> None:
        """Binds both, and serves each from a thread."""
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(ADDRESS)
        self.tcp = socket.create_server(ADDRESS, backlog=256)
        threading.Thread(target=self._serve_udp, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            data, client = self.udp.recvfrom(4096)
            threading.Thread(target=self._answer, args=(data, client), daemon=True).start()

    def _answer(self, data: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError, IndexError, struct.error):
            query = Query(data)
            _, answers = ANSWERS.get(query.label, (LOST, lambda q: [q.answer(flags=0x8183)]))
            for datagram in answers(query):
                self.udp.sendto(datagram[:65_507], client)

    def _serve_tcp(self) -> None:
        while True:
            client, _ = self.tcp.accept()
            threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, IndexError, struct.error), client:
            client.settimeout(10)
            query = Query(client.recv(4096)[2:])
            if query.label == "truncated":
                answer = query.answer(flags=0x8380)
                client.sendall(struct.pack(">H", len(answer)) + answer)
            elif query.label == "truncated-endless":
                while True:
                    client.sendall(b"\xff\xff" + os.urandom(65_535))
            elif query.label == "truncated-crumbs":
                for byte in b"\xff\xff" + query.answer(query.address()) + b"\0" * 100:
                    client.sendall(bytes([byte]))
                    time.sleep(0.2)
            else:
                client.recv(1)


def is_isolated() -> bool:
    """Whether the network and /etc are this program's own (tests/attack)."""
    return is_root() and "ATTACK_ISOLATED" in os.environ and shutil.which("mount") is not None


def run(prober: str, account: Account, long: bool) -> None:
    """Every name by one `once`, for each verdict what is right."""
    del long
    if not is_isolated():
        account.skip("name servers", "a namespace of its own")
        return
    NameServer()
    names = list(ANSWERS)
    config = "[schedule]\nmax_concurrent = 100\n" + "".join(
        f'[provider.a{index}]\napi = "openai"\nbase_url = "http://{label}.attack.test:9"\n'
        'allow_plain_http = true\napi_key = { env = "SIM_KEY" }\nchecks = []\n'
        + "".join(
            f'[[probe]]\nname = "a{index}-{check}"\nprovider = "a{index}"\ncheck = "{check}"\n'
            f'timeout = "{TIMEOUT}s"\n'
            for check in ("network", "auth")
        )
        for index, label in enumerate(names)
    )
    with tempfile.TemporaryDirectory(prefix="attack-") as directory, Place(prober, config) as place:
        resolver = Path(directory) / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
        subprocess.run(["mount", "--bind", str(resolver), "/etc/resolv.conf"], check=True)
        try:
            done = place.run("once", "--json", timeout=120)
        finally:
            subprocess.run(["umount", "--lazy", "/etc/resolv.conf"], check=False)
    records = {record["probe"]: record for record in map(json.loads, done.stdout.splitlines())}
    printed = (done.stdout + done.stderr).decode("utf-8", "replace")
    for index, label in enumerate(names):
        pair = [records.get(f"a{index}-{check}") for check in ("network", "auth")]
        found = [record for record in pair if record]
        right = ANSWERS[label][0]
        held = len(found) == 2 and all(
            record["reason"] in right and record["duration_seconds"] <= TIMEOUT + SLACK
            for record in found
        )
        figure = ", ".join(
            f"{record['check']} {record['reason']} after {record['duration_seconds']:.2f} s"
            for record in found
        )
        account.note(f"DNS: {label}", held, figure or "no record", 2)
    clean = not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b]|panicked|<b>", printed)
    account.note(
        "DNS: words of the answers", clean and done.returncode == 1, f"{len(printed)} characters"
    )
