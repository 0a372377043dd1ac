"""Name servers, each with answers of its own for every name and record type.

The specification is a JSON object from an address to that server's zone:

    {"127.0.0.53": {"names": {"api.corp.test": {"A": ["127.0.0.1"], "AAAA": "servfail"}},
                    "default": "nxdomain", "udp": "answer", "delay": 0.0}}

The answer to a record type is a list of addresses, or one of nxdomain, servfail, refused, empty,
silent, garbled; a type that is missing is empty. `"CNAME": "other.name"` answers every type with
an alias and with what the other name has. `default` is for names that are not listed. `udp` is
answer (the default), silent or truncate; TCP always answers. With `"edns": false` a query with
EDNS is answered by FORMERR. Each query becomes a line `ADDRESS PROTOCOL NAME TYPE` of the log.

usage: zone.py SPECIFICATION LOG
"""

import ipaddress
import json
import pathlib
import socket
import struct
import sys
import threading
import time
from typing import Any

TYPES = {1: "A", 5: "CNAME", 28: "AAAA"}
CODES = {"servfail": 2, "nxdomain": 3, "refused": 5}
FORMERR = 1
CNAME = 5
TRUNCATED = 0x0200

Zone = dict[str, Any]


def encoded(name: str) -> bytes:
    """Returns a name as labels."""
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(query: bytes) -> tuple[str, str, int, int]:
    """Returns the name, the type as text and as number, and where the question ends."""
    labels, place = [], 12
    while query[place]:
        labels.append(query[place + 1 : place + 1 + query[place]].decode("latin-1"))
        place += 1 + query[place]
    (kind,) = struct.unpack(">H", query[place + 1 : place + 3])
    return ".".join(labels), TYPES.get(kind, str(kind)), kind, place + 5


def record(name: bytes, kind: int, data: bytes) -> bytes:
    """Returns a resource record of one minute."""
    return name + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def reply(zone: Zone, query: bytes) -> bytes | None:
    """Returns the answer to a query, or None where the server is silent."""
    name, text, kind, end = question(query)
    if not zone.get("edns", True) and query[10:12] != b"\0\0":
        return query[:2] + struct.pack(">HHHHH", 0x8180 | FORMERR, 1, 0, 0, 0) + query[12:end]
    names: dict[str, dict[str, Any]] = zone.get("names", {})
    default = zone.get("default", "nxdomain")
    entry = names.get(name.lower(), {"A": default, "AAAA": default})
    records, owner = b"", b"\xc0\x0c"
    count = 0
    while "CNAME" in entry:
        alias = encoded(entry["CNAME"])
        records += record(owner, CNAME, alias)
        count, owner = count + 1, alias
        entry = names.get(entry["CNAME"].lower(), {"A": default, "AAAA": default})
        if count > 8:
            entry = {}
    answer = entry.get(text, [])
    if answer == "silent":
        return None
    code = CODES.get(answer, 0) if isinstance(answer, str) else 0
    for address in answer if isinstance(answer, list) else []:
        records += record(owner, kind, ipaddress.ip_address(address).packed)
        count += 1
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, count, 0, 0)
    message = head + query[12:end] + records
    return message[:7] if answer == "garbled" else message


class Server:
    """One name server on UDP and TCP."""

    def __init__(self, address: str, zone: Zone, log: pathlib.Path, lock: threading.Lock) -> None:
        """Binds port 53 of the address and serves UDP and TCP, each from a thread."""
        self.address, self.zone, self.log, self.lock = address, zone, log, lock
        place = socket.getaddrinfo(address, 53, type=socket.SOCK_DGRAM)[0]
        self.udp = socket.socket(place[0], socket.SOCK_DGRAM)
        self.udp.bind(place[4])
        self.tcp = socket.socket(place[0], socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind(place[4])
        self.tcp.listen(64)
        threading.Thread(target=self.serve_udp, daemon=True).start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()

    def note(self, protocol: str, query: bytes) -> None:
        """Writes a query into the log."""
        name, text, _, _ = question(query)
        with self.lock, self.log.open("a", encoding="utf-8") as file:
            file.write(f"{self.address} {protocol} {name} {text}\n")

    def serve_udp(self) -> None:
        """Answers datagrams, each after the zone's delay."""
        while True:
            query, client = self.udp.recvfrom(4096)
            self.note("udp", query)
            message = reply(self.zone, query)
            manner = self.zone.get("udp", "answer")
            if message is None or manner == "silent":
                continue
            if manner == "truncate":
                _, _, _, end = question(query)
                head = query[:2] + struct.pack(">HHHHH", 0x8180 | TRUNCATED, 1, 0, 0, 0)
                message = head + query[12:end]
            delay = self.zone.get("delay", 0.0)
            if delay:
                threading.Timer(delay, self.udp.sendto, (message, client)).start()
            else:
                self.udp.sendto(message, client)

    def serve_tcp(self) -> None:
        """Accepts connections."""
        while True:
            client, _ = self.tcp.accept()
            threading.Thread(target=self.converse, args=(client,), daemon=True).start()

    def converse(self, client: socket.socket) -> None:
        """Answers the queries of one connection."""
        with client, client.makefile("rb") as stream:
            while len(length := stream.read(2)) == 2:
                query = stream.read(struct.unpack(">H", length)[0])
                self.note("tcp", query)
                message = reply(self.zone, query)
                if message is not None:
                    client.sendall(struct.pack(">H", len(message)) + message)


def main() -> None:
    """Starts the servers and waits for the end."""
    zones: dict[str, Zone] = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    log, lock = pathlib.Path(sys.argv[2]), threading.Lock()
    log.touch()
    for address, zone in zones.items():
        Server(address, zone, log, lock)
    print("ready", flush=True)
    while True:
        time.sleep(3600)


main()
