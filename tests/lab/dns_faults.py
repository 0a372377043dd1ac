"""A name server that treats every name the same way.

usage: dns_faults.py LISTEN-ADDRESS MODE [ANSWER-ADDRESS...]
MODE is ok, nxdomain, servfail, refused, empty, garbled, silent, or a number of seconds before a
valid answer.
"""

import ipaddress
import socket
import struct
import sys
import threading

CODES = {"servfail": 2, "nxdomain": 3, "refused": 5}
A, AAAA = 1, 28

listen, mode = sys.argv[1:3]
answers = [ipaddress.ip_address(answer) for answer in sys.argv[3:]]
delay = float(mode) if mode[0].isdigit() else 0.0
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((listen, 53))
print("ready", flush=True)


def reply(query: bytes, client: tuple[str, int]) -> None:
    """Sends the reply to a query."""
    end = query.index(b"\0", 12) + 5
    (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
    code = CODES.get(mode, 0)
    wanted = [answer for answer in answers if kind == (A if answer.version == 4 else AAAA)]
    if code or mode == "empty":
        wanted = []
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(wanted), 0, 0)
    records = (
        b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(answer.packed)) + answer.packed
        for answer in wanted
    )
    message = head + query[12:end] + b"".join(records)
    server.sendto(message[:7] if mode == "garbled" else message, client)


while True:
    query, client = server.recvfrom(4096)
    if mode != "silent":
        threading.Timer(delay, reply, (query, client)).start()
