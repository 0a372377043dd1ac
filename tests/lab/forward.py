"""Forwards frames between two interfaces after a fixed time: a network with a known round trip.

The kernel's own delay (tc netem) is not in every kernel.
usage: forward.py INTERFACE INTERFACE SECONDS
"""

import collections
import socket
import sys
import threading
import time

ALL_FRAMES = socket.htons(3)
OUTGOING = 4  # PACKET_OUTGOING: what we sent ourselves


def open_raw(interface: str) -> socket.socket:
    """Opens a raw socket on an interface."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ALL_FRAMES)
    raw.bind((interface, 0))
    return raw


def pump(source: socket.socket, target: socket.socket, delay: float) -> None:
    """Forwards every frame from one socket to the other, after a delay."""
    queue: collections.deque[tuple[float, bytes]] = collections.deque()
    arrived = threading.Condition()

    def send() -> None:
        while True:
            with arrived:
                while not queue:
                    arrived.wait()
                due, frame = queue.popleft()
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            target.send(frame)

    threading.Thread(target=send, daemon=True).start()
    while True:
        frame, address = source.recvfrom(65535)
        if address[2] != OUTGOING:
            with arrived:
                queue.append((time.monotonic() + delay, frame))
                arrived.notify()


left, right = open_raw(sys.argv[1]), open_raw(sys.argv[2])
threading.Thread(target=pump, args=(left, right, float(sys.argv[3])), daemon=True).start()
print("ready", flush=True)
pump(right, left, float(sys.argv[3]))
