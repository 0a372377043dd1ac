"""Answers every A query with one address and other queries with none, after a fixed time.

A name whose first label is nxdomain, servfail, refused, empty, garbled or silent gets just that.

usage: dns.py LISTEN-ADDRESS ANSWER-ADDRESS SECONDS
"""

import queue
import socket
import struct
import sys
import threading
import time

CODES = {b"servfail": 2, b"nxdomain": 3, b"refused": 5}

listen, answer, delay = sys.argv[1], socket.inet_aton(sys.argv[2]), float(sys.argv[3])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((listen, 53))
replies: queue.SimpleQueue[tuple[float, bytes, tuple[str, int]]] = queue.SimpleQueue()
print("ready", flush=True)


def send() -> None:
    """Sends the queued replies when they are due."""
    while True:
        due, reply, client = replies.get()
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        server.sendto(reply, client)


def reply_to(query: bytes) -> bytes | None:
    """Returns the reply to a query, or `None` for no reply."""
    end = query.index(b"\0", 12) + 5
    label = query[13 : 13 + query[12]]
    if label == b"silent":
        return None
    code = CODES.get(label, 0)
    has_address = query[end - 4 : end - 2] == b"\0\1" and not code and label != b"empty"
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, int(has_address), 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + answer if has_address else b""
    message = head + query[12:end] + record
    return message[:7] if label == b"garbled" else message


threading.Thread(target=send, daemon=True).start()
while True:
    query, client = server.recvfrom(4096)
    reply = reply_to(query)
    if reply is not None:
        replies.put((time.monotonic() + delay, reply, client))
