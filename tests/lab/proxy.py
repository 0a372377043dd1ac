"""A proxy for CONNECT that passes every byte on at once.

Common proxies let TCP delay small writes (Nagle), which costs clients a number of round trips that
depends on how they write.
usage: proxy.py LISTEN-ADDRESS PORT
"""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ended_connection_ignored() -> Iterator[None]:
    """Ignores errors of a connection that one side has closed."""
    with contextlib.suppress(OSError):
        yield


@ended_connection_ignored()
def relay(source: socket.socket, target: socket.socket) -> None:
    """Copies bytes until the source ends."""
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


@ended_connection_ignored()
def serve(client: socket.socket) -> None:
    """Serves one client."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(65536)
    host, port = head.split(b" ")[1].decode().rsplit(":", 1)
    target = socket.create_connection((host, int(port)))
    for end in (client, target):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    threading.Thread(target=relay, args=(target, client), daemon=True).start()
    relay(client, target)


listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
