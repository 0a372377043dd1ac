"""A name server that answers every A query with one address, and every other one with nothing, a fixed time later.

usage: dns.py LISTEN-ADDRESS ANSWER-ADDRESS SECONDS
"""
import socket
import struct
import sys
import threading

listen, answer, delay = sys.argv[1], socket.inet_aton(sys.argv[2]), float(sys.argv[3])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((listen, 53))
print("ready", flush=True)


def reply(query, client):
    end = query.index(b"\0", 12) + 5
    is_a = query[end - 4 : end - 2] == b"\0\1"
    head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_a), 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + answer if is_a else b""
    server.sendto(head + query[12:end] + record, client)


while True:
    query, client = server.recvfrom(4096)
    threading.Timer(delay, reply, (query, client)).start()
