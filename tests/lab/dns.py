"""A name server that answers every A query with one address, and every other one with nothing, a fixed time later.

usage: dns.py LISTEN-ADDRESS ANSWER-ADDRESS SECONDS
"""
import queue
import socket
import struct
import sys
import threading
import time

listen, answer, delay = sys.argv[1], socket.inet_aton(sys.argv[2]), float(sys.argv[3])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((listen, 53))
replies = queue.SimpleQueue()
print("ready", flush=True)


def send():
    while True:
        due, reply, client = replies.get()
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        server.sendto(reply, client)


def reply_to(query):
    end = query.index(b"\0", 12) + 5
    is_a = query[end - 4 : end - 2] == b"\0\1"
    head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_a), 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + answer if is_a else b""
    return head + query[12:end] + record


threading.Thread(target=send, daemon=True).start()
while True:
    query, client = server.recvfrom(4096)
    replies.put((time.monotonic() + delay, reply_to(query), client))
