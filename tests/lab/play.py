"""TCP and TLS servers that play scripted bytes, and log every request that they read.

The specification is a JSON array of listeners:

    {"at": "127.0.0.1:8080", "connections": [CONNECTION...], "tls": {...}, "h2": false,
     "name": "good", "drain": true}

The first connection follows the first script, and so on; the last script is repeated. A script is
an array of answers, one per request, of which the last is repeated. An answer is an array of
actions:

    "text"                           sends these bytes (latin-1)
    {"repeat": "text", "times": 3}   sends it so many times, without end if `times` is null
    {"pause": 0.1}                   waits, in seconds
    {"end": "close"}                 ends the connection; "reset" by RST; "hang" only reads on
    {"tunnel": true}                 connects to the target of the CONNECT request and relays
    {"frame": [TYPE, FLAGS, STREAM, "hexadecimal payload"], "times": 1}
                                     sends an HTTP/2 frame; STREAM is "this" or a number

With `"drain": false` a listener answers as soon as the head of a request is complete. `tls` has
the paths `chain` and `key`, and may have `client_ca`, `client_optional`, `version` ("1.1", "1.2",
"1.3"), `alpn`, `abrupt` for a connection that is closed as soon as the handshake fails, and
`alert`, the number of the alert that refuses every client. With `"h2": true` a request is what
HTTP/2 calls one; SETTINGS and PING are answered. Each request becomes a line of the log, a JSON
object with listener, connection, request and head.

usage: play.py SPECIFICATION LOG
"""

import contextlib
import json
import pathlib
import socket
import ssl
import struct
import sys
import threading
import time
from typing import Any

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
VERSIONS = {
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}

Action = Any


def framed(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Returns a frame of HTTP/2."""
    length = len(payload)
    head = struct.pack(">BHBBI", length >> 16, length & 0xFFFF, kind, flags, stream_id)
    return head + payload


class Ended(Exception):
    """The connection is over."""


class Connection:
    """One accepted connection."""

    def __init__(self, stream: socket.socket, spec: dict[str, Any]) -> None:
        """Holds the stream and its listener's specification; nothing is read yet."""
        self.stream, self.spec = stream, spec
        self.pending = b""
        self.stream_id = 0
        self.head = ""

    def more(self) -> None:
        """Reads what there is, or ends with the client."""
        data = self.stream.recv(65536)
        if not data:
            raise Ended
        self.pending += data

    def take(self, count: int) -> bytes:
        """Returns exactly so many bytes."""
        while len(self.pending) < count:
            self.more()
        taken, self.pending = self.pending[:count], self.pending[count:]
        return taken

    def request(self) -> str:
        """Reads one request and returns its head."""
        return self.request_2() if self.spec.get("h2") else self.request_1()

    def request_1(self) -> str:
        """Reads a request of HTTP/1.1."""
        while b"\r\n\r\n" not in self.pending:
            self.more()
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        lengths = [
            int(line.split(":")[1])
            for line in text.lower().splitlines()
            if line.startswith("content-length:")
        ]
        if lengths and self.spec.get("drain", True):
            self.take(lengths[0])
        return text

    def request_2(self) -> str:
        """Reads a request of HTTP/2, and answers what belongs to the connection."""
        while True:
            length, kind, flags = self.frame_head()
            stream_id = struct.unpack(">I", self.take(4))[0]
            payload = self.take(length)
            if kind == SETTINGS and not flags & ACK:
                self.frame(SETTINGS, ACK, 0, b"")
            if kind == PING and not flags & ACK:
                self.frame(PING, ACK, 0, payload)
            if kind == HEADERS:
                self.stream_id = stream_id
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return f"HTTP/2 stream {stream_id}"

    def frame_head(self) -> tuple[int, int, int]:
        """Returns length, type and flags of the next frame."""
        high, low, kind, flags = struct.unpack(">BHBB", self.take(5))
        return high << 16 | low, kind, flags

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Sends a frame."""
        self.stream.sendall(framed(kind, flags, stream_id, payload))

    def play(self, action: Action) -> None:
        """Plays one action."""
        if isinstance(action, str):
            self.stream.sendall(action.encode("latin-1"))
        elif "repeat" in action:
            self.repeat(action["repeat"].encode("latin-1"), action.get("times"))
        elif "pause" in action:
            time.sleep(action["pause"])
        elif "frame" in action:
            kind, flags, stream_id, payload = action["frame"]
            number = self.stream_id if stream_id == "this" else stream_id
            data = framed(kind, flags, number, bytes.fromhex(payload))
            self.repeat(data, action.get("times", 1))
        elif "tunnel" in action:
            self.tunnel()
        else:
            self.end(action["end"])

    def repeat(self, data: bytes, times: int | None) -> None:
        """Sends the same again and again, in large writes if without end."""
        if times is None:
            data *= max(1, 65536 // len(data))
        while times is None or times > 0:
            self.stream.sendall(data)
            times = None if times is None else times - 1

    def tunnel(self) -> None:
        """Relays to the target of the CONNECT request until one side ends."""
        host, port = self.head.split(" ")[1].rsplit(":", 1)
        target = socket.create_connection((host.strip("[]"), int(port)))
        target.sendall(self.pending)
        threading.Thread(target=relay, args=(target, self.stream), daemon=True).start()
        relay(self.stream, target)
        raise Ended

    def end(self, how: str) -> None:
        """Ends the connection that way."""
        while how == "hang":
            self.more()
        if how == "reset":
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Ended


def relay(source: socket.socket, target: socket.socket) -> None:
    """Copies bytes one way."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def nth(items: list[Any], index: int) -> Any:
    """Returns that item, or the last one."""
    return items[min(index, len(items) - 1)]


class Listener:
    """One listening socket with its scripts."""

    def __init__(self, spec: dict[str, Any], log: pathlib.Path, lock: threading.Lock) -> None:
        """Binds the address of the specification and accepts from a thread."""
        self.spec, self.log, self.lock = spec, log, lock
        host, port = spec["at"].rsplit(":", 1)
        family, _, _, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.bind(place)
        self.socket.listen(128)
        self.context = self.tls(spec["tls"]) if "tls" in spec else None
        threading.Thread(target=self.accept, daemon=True).start()

    @staticmethod
    def tls(spec: dict[str, Any]) -> ssl.SSLContext:
        """Returns the TLS side of a listener."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(spec["chain"], spec["key"])
        if version := VERSIONS.get(spec.get("version", "")):
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
        if "client_ca" in spec:
            context.load_verify_locations(spec["client_ca"])
            optional = spec.get("client_optional")
            context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        if "alpn" in spec:
            context.set_alpn_protocols(spec["alpn"])
        if "alert" in spec:
            context.sni_callback = lambda _stream, _name, _context: spec["alert"]
        return context

    def accept(self) -> None:
        """Accepts connections, each with a thread of its own."""
        number = 0
        while True:
            stream, _ = self.socket.accept()
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(stream, number), daemon=True).start()
            number += 1

    def serve(self, stream: socket.socket, number: int) -> None:
        """Plays the script of one connection."""
        try:
            with contextlib.suppress(Ended, OSError):
                if self.context:
                    stream = self.handshake(self.context, stream)
                self.converse(Connection(stream, self.spec), number)
        finally:
            stream.close()

    def handshake(self, context: ssl.SSLContext, stream: socket.socket) -> socket.socket:
        """Shakes hands; after a refusal the alert gets time to arrive."""
        wrapped = context.wrap_socket(stream, server_side=True, do_handshake_on_connect=False)
        try:
            wrapped.do_handshake()
        except ssl.SSLError as error:
            with socket.socket(fileno=wrapped.detach()) as raw:
                if not self.spec["tls"].get("abrupt"):
                    raw.shutdown(socket.SHUT_WR)
                    while raw.recv(65536):
                        pass
            raise Ended from error
        return wrapped

    def converse(self, connection: Connection, number: int) -> None:
        """Answers the requests of one connection."""
        script = nth(self.spec.get("connections", [[[]]]), number)
        if self.spec.get("h2"):
            if connection.take(len(PREFACE)) != PREFACE:
                raise Ended
            connection.frame(SETTINGS, 0, 0, b"")
        request = 0
        while True:
            connection.head = connection.request()
            self.note(number, request, connection.head)
            for action in nth(script, request):
                connection.play(action)
            request += 1

    def note(self, connection: int, request: int, head: str) -> None:
        """Writes a request into the log."""
        line = {
            "listener": self.spec.get("name", self.spec["at"]),
            "connection": connection,
            "request": request,
            "head": head,
        }
        with self.lock, self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main() -> None:
    """Starts the listeners and waits for the end."""
    specs = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    log, lock = pathlib.Path(sys.argv[2]), threading.Lock()
    log.touch()
    listeners = [Listener(spec, log, lock) for spec in specs]
    print("ready", len(listeners), flush=True)
    while True:
        time.sleep(3600)


main()
