"""Shared code of the attacks: results, the daemon as a process, a service with any answers."""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

KEY = "sk-attack-0123456789abcdefghij"
CANARY = "CANARY7f3a"
WAIT_TIMEOUT = 30.0
LISTEN = '[server]\nlisten = "127.0.0.1:0"\n'


class Account:
    """Number of attacks tried, and of those withstood."""

    def __init__(self) -> None:
        """Begins with nothing tried."""
        self.held = 0
        self.broken: list[str] = []
        self.skipped: list[str] = []

    def note(
        self, name: str, held: bool, figure: str, inputs: int = 1, lost: int | None = None
    ) -> None:
        """Prints the line of an attack.

        If it did not hold, `lost` of its inputs did not, or one.
        """
        broken = 0 if held else (lost or 1)
        self.held += inputs - broken
        self.broken += [name] * broken
        print(f"{'held    ' if held else 'NOT HELD'} {name}: {inputs} inputs, {figure}", flush=True)

    def skip(self, name: str, missing: str) -> None:
        """Prints that an attack cannot be made here."""
        self.skipped.append(name)
        print(f"SKIPPED: {name}: {missing} is missing", flush=True)

    def close(self) -> int:
        """Prints the count. Returns the exit status."""
        tried = self.held + len(self.broken)
        print(f"{tried} inputs tried, {self.held} held, {len(self.broken)} not held")
        return 1 if self.broken else 0


def wait_for(what: str, is_so: Callable[[], object], patience: float = WAIT_TIMEOUT) -> None:
    """Polls until a condition is true. Raises TimeoutError if it never is."""
    end = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience} s for {what}")
        time.sleep(0.02)


class Place:
    """A directory with the configuration and the files of the prober."""

    def __init__(self, prober: str, config: str = "") -> None:
        """Makes the directory and writes the configuration."""
        self.prober = prober
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="attack-"))
        self.write("config.toml", config)

    def write(self, name: str, text: str | bytes) -> pathlib.Path:
        """Writes a file as a whole, readable for its owner alone."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name("being-written")
        new.write_bytes(text if isinstance(text, bytes) else text.encode())
        new.chmod(0o600)
        new.rename(path)
        return path

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """Returns a minimal environment with a key."""
        return {"SIM_KEY": KEY, "PATH": os.environ.get("PATH", ""), **(more or {})}

    def run(
        self, *arguments: str, timeout: float = 120, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command to its end."""
        command = [
            self.prober,
            arguments[0],
            "--config",
            str(self.path / "config.toml"),
            *arguments[1:],
        ]
        return subprocess.run(
            command, env=self.environment(environment), capture_output=True, timeout=timeout
        )

    def close(self) -> None:
        """Removes the directory."""
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> "Place":
        """Returns the place itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the directory."""
        self.close()


class Daemon:
    """The running daemon. It is killed at the end."""

    def __init__(
        self,
        place: Place,
        environment: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Starts the daemon and waits until it is ready.

        `before` is called in the new process, ahead of the program. Raises RuntimeError if the
        daemon ends instead, TimeoutError if it does neither.
        """
        command = [place.prober, "run", "--config", str(place.path / "config.toml")]
        self.log = b""
        self.process = subprocess.Popen(
            command,
            env=place.environment(environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=before,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        wait_for(
            "the daemon to be ready",
            lambda: b"Daemon ready" in self.log or self.process.poll() is not None,
        )
        ready = re.search(rb"Daemon ready.*listen=([0-9.]+):([0-9]+)", self.log)
        if not ready:
            self.process.wait(WAIT_TIMEOUT)
            self.reader.join(WAIT_TIMEOUT)
            raise RuntimeError(
                f"it does not start ({self.process.returncode}): {self.log[-500:]!r}"
            )
        self.address = (ready[1].decode(), int(ready[2]))

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log += line

    def get(
        self,
        path: str,
        method: str = "GET",
        timeout: float = WAIT_TIMEOUT,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """Sends one request on a new connection."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def value(self, name: str, labels: str = "") -> float:
        """Returns the sum of a metric's samples with these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            if re.match(rf"{name}(\{{| )", line) and labels in line:
                total += float(line.rsplit(" ", 1)[1])
        return total

    def resident(self) -> float:
        """Returns the resident memory in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def is_well(self) -> bool:
        """Returns whether it runs, is healthy, and has not panicked."""
        return (
            self.process.poll() is None
            and self.get("/-/healthy")[0] == 200
            and b"Panicked" not in self.log
        )

    def reload(self) -> bool:
        """Reloads the configuration. Returns whether it was applied."""
        status, _ = self.get("/-/reload", "POST")
        return status == 200

    def stop(self) -> int:
        """Stops it as systemd does. Returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(WAIT_TIMEOUT)
        self.reader.join(WAIT_TIMEOUT)
        return status

    def kill(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.wait()
        self.reader.join(WAIT_TIMEOUT)

    def __enter__(self) -> "Daemon":
        """Returns the daemon itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kills the daemon if it still runs."""
        if self.process.poll() is None:
            self.kill()


class Service:
    """A server on loopback, whose answer depends on the first segment of the path."""

    def __init__(self) -> None:
        """Listens on a free port and serves from a thread."""
        self.answers: dict[str, bytes | Callable[[socket.socket], None]] = {}
        self.requests = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self._answer, args=(stream,), daemon=True).start()

    def _answer(self, stream: socket.socket) -> None:
        with contextlib.suppress(OSError), stream:
            stream.settimeout(WAIT_TIMEOUT)
            head = b""
            while b"\r\n\r\n" not in head:
                got = stream.recv(65536)
                if not got:
                    return
                head += got
            self.requests += 1
            name = head.split(b" ", 2)[1].split(b"/")[1].decode()
            answer = self.answers.get(
                name, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            if callable(answer):
                answer(stream)
            else:
                stream.sendall(answer)
            stream.shutdown(socket.SHUT_WR)
            # Unread data would reset the connection when it is closed, and drop the answer.
            while stream.recv(65536):
                pass


def response(
    body: bytes | str,
    status: str = "200 OK",
    headers: tuple[str, ...] = (),
    kind: str = "application/json",
) -> bytes:
    """An HTTP response as bytes."""
    body = body if isinstance(body, bytes) else body.encode()
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


@contextlib.contextmanager
def mounted(at: pathlib.Path, options: str) -> Iterator[None]:
    """A tmpfs, unmounted at the end."""
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=False)


def auth_probes(service: Service, number: int = 5, interval: str = "100ms") -> str:
    """Honest probes of a service that answers them well."""
    service.answers["good"] = response('{"object":"list","data":[]}')
    probes = "".join(
        f'[[probe]]\nname = "p{i}"\nprovider = "openai"\ncheck = "auth"\ninterval = "{interval}"\n'
        for i in range(number)
    )
    return (
        f'[provider.openai]\nbase_url = "http://127.0.0.1:{service.port}/good"\n'
        'api_key = { env = "SIM_KEY" }\n'
        f"checks = []\n{probes}"
    )


def is_root() -> bool:
    """Returns whether mounts are possible."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


class Listener:
    """A server on loopback that hands each connection to one attack, in a thread of its own."""

    def __init__(self, attack: Callable[[socket.socket], None]) -> None:
        """Listens on a free port and accepts from a thread."""
        self.attack = attack
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self._play, args=(stream,), daemon=True).start()

    def _play(self, stream: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, EOFError), stream:
            stream.settimeout(WAIT_TIMEOUT)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.attack(stream)


class Certificate:
    """A self-signed certificate for 127.0.0.1 and its key, as files in a directory."""

    def __init__(self, directory: pathlib.Path, name: str = "server", names: int = 0) -> None:
        """Makes both by openssl; `names` is the number of further names in it."""
        directory.mkdir(parents=True, exist_ok=True)
        self.chain, self.key = directory / f"{name}.pem", directory / f"{name}.key"
        settings = directory / f"{name}.cnf"
        alternatives = ",".join(
            ["IP:127.0.0.1"] + [f"DNS:n{number}.attack.test" for number in range(names)]
        )
        settings.write_text(
            "[req]\ndistinguished_name=d\nx509_extensions=e\nprompt=no\n"
            f"[d]\nCN=attack\n[e]\nsubjectAltName={alternatives}\n"
        )
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
        files = ["-config", settings, "-keyout", self.key, "-out", self.chain]
        subprocess.run([*command.split(), *map(str, files)], check=True, capture_output=True)

    def context(self) -> ssl.SSLContext:
        """Returns the settings of a server that has it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


def has_openssl() -> bool:
    """Whether certificates can be made."""
    return shutil.which("openssl") is not None


def flooding(name: str, base_url: str, number: int, check: str, more: str = "") -> str:
    """Returns a provider whose probes an attacker answers, each of them every two seconds."""
    model = 'model = "m"\n' if check in ("chat", "stream") else ""
    probes = "".join(
        f'[[probe]]\nname = "{name}{probe}"\nprovider = "{name}"\ncheck = "{check}"\n{model}'
        'interval = "2s"\ntimeout = "2s"\n'
        for probe in range(number)
    )
    return (
        f'[provider.{name}]\napi = "openai"\nbase_url = "{base_url}"\n'
        f'api_key = {{ env = "SIM_KEY" }}\nchecks = []\n{more}{probes}'
    )
