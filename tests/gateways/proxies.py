"""The prober behind nginx, HAProxy, Caddy and lighttpd: its verdict on each refusal and stream."""

import re
import subprocess
from typing import Any

import servers
from harness import (
    Case,
    Checks,
    Place,
    doctor,
    free_port,
    has,
    judge,
    lacks,
    listens,
    once,
    program,
    running,
)

MODEL = "gpt-4o-mini"
HTML, EMPTY, PLAIN = has("an HTML page"), has("an empty body"), has("a plain text")
OK = {"reason": "ok", "fault": "none", "detail": None}
# Refusals of a proxy. The API has not seen the key, so that no hint may mention it.
DENIED = {
    "reason": "permission",
    "fault": "caller",
    "http_status": 403,
    "hint": re.compile(r"(?i)^(?!.*the key is known).*proxy"),
}
BASIC = {
    "reason": "auth_failed",
    "fault": "caller",
    "http_status": 401,
    "detail": has("(Basic)"),
    "hint": re.compile(r"(?i)^(?!check the key).*proxy"),
}
LARGE = {
    "reason": "invalid_request",
    "fault": "caller",
    "http_status": 413,
    "hint": re.compile(r"(?i)^(?!.*max_tokens).*(size|shorten)"),
}
LIMITED = {
    "reason": "rate_limited",
    "fault": "caller",
    "http_status": 429,
    "limited_by": "unknown",
    "retry_after_seconds": None,
    "hint": lacks("wait as asked"),
}
GONE = {"reason": "unavailable", "fault": "provider", "http_status": 404}
SLOW = {"reason": "gateway_timeout", "fault": "provider", "http_status": 504}
BAD_GATEWAY = {
    "reason": "server_error",
    "fault": "provider",
    "http_status": 502,
    "hint": lacks("request I"),
}
UNAVAILABLE = {"reason": "unavailable", "fault": "provider", "http_status": 503}
DISCONNECTED = {"reason": "disconnected", "fault": "provider", "http_status": None}
MALFORMED = {"reason": "malformed", "fault": "provider", "http_status": 200}
TRUNCATED = {"reason": "stream_truncated", "fault": "provider"}
# The API's own answers, which no proxy here changes, by what the simulator plays.
PASSED_ON: dict[str, dict[str, Any]] = {
    "auth_failed": {"reason": "auth_failed", "fault": "caller", "error_code": "invalid_api_key"},
    "rate_limited; retry_after=30s": {
        "reason": "rate_limited",
        "limited_by": "requests",
        "retry_after_seconds": 30.0,
    },
    "billing": {"reason": "billing", "fault": "caller", "error_code": "insufficient_quota"},
    "overloaded": {"reason": "overloaded", "fault": "provider"},
    "unavailable": {**UNAVAILABLE, "detail": None},
    "cut_before_headers": {
        "reason": re.compile("server_error|disconnected|unavailable"),
        "fault": "provider",
    },
}
STREAMED_ON: dict[str, dict[str, Any]] = {
    "stream_truncated; variant=reset": TRUNCATED,
    "stream_error_mid": {"reason": "stream_error", "fault": "provider"},
    "stream_multibyte": {"reason": "wrong_answer", "fault": "provider"},
    "pace; answered_model=gpt-4o": {**OK, "answered_model": "gpt-4o"},
}
# Tokens from which on the prober decides whether a stream was held back.
DECIDED_TOKENS = 64
# A prompt that no limit of 1 KiB lets through.
LONG = "prompt_words = 500"


class Proxy:
    """A proxy before the simulator, and the cases behind it."""

    def __init__(self, name: str, port: int) -> None:
        """Begins without a case."""
        self.name, self.base = name, f"http://127.0.0.1:{port}"
        self.cases: list[Case] = []

    def add(self, path: str, expected: dict[str, Any], check: str = "chat", **more: Any) -> Case:
        """Adds the case that a path of the proxy is answered so."""
        fault = more.get("fault", "").split(";")[0].replace("_", "-")
        parts = [self.name, path, check, *([fault] if fault else [])]
        self.cases.append(plain("-".join(parts), f"{self.base}/{path}", expected, check, **more))
        return self.cases[-1]

    def add_common(self, path: str) -> None:
        """Adds what every proxy must pass on unchanged."""
        for check in ("chat", "stream", "auth", "models"):
            self.add(path, OK, check)
        for fault, expected in PASSED_ON.items():
            self.add(path, expected, fault=fault)
        for fault, expected in STREAMED_ON.items():
            self.add(path, expected, "stream", fault=fault)


def plain(name: str, url: str, expected: dict[str, Any], check: str, **more: Any) -> Case:
    """Returns the case of a check, with a model if it needs one."""
    model = MODEL if check in ("chat", "stream") else ""
    return Case(name, f"{url}/openai/v1", expected, check, model=model, **more)


def check_nginx(checks: Checks, place: Place, simulator: int) -> None:
    """Checks what nginx passes on, refuses and holds back."""
    command = program("nginx")
    if not command:
        checks.skip("nginx", "nginx")
        return
    port = free_port()
    place.write("users", f"{servers.USER}:{{PLAIN}}{servers.PASSWORD}\n")
    config = place.write("nginx.conf", servers.nginx(place.path, port, simulator))
    proxy = Proxy("nginx", port)
    for path in ("ok", "modern", "off", "gzip"):
        proxy.add_common(path)
    denied = proxy.add("deny", {**DENIED, "detail": HTML}, "auth")
    basic = proxy.add("basic", BASIC, "auth")
    proxy.add("deny", {**DENIED, "detail": HTML})
    proxy.add("basic", BASIC, "stream")
    proxy.add("slow", {**SLOW, "detail": HTML}, fault="stall")
    proxy.add("large", {**LARGE, "detail": HTML}, probe=LONG)
    proxy.add("dead", {**BAD_GATEWAY, "detail": HTML})
    proxy.add("dead", {**BAD_GATEWAY, "detail": HTML}, "stream")
    proxy.add("pages", {**UNAVAILABLE, "detail": HTML}, fault="server_error")
    proxy.add("missing", GONE)
    proxy.add("missing", GONE, "models")
    https = {"reason": "unexpected_status", "http_status": 301, "hint": has("https://")}
    proxy.add("https", https)
    proxy.add("https", https, "models")
    proxy.add("silent", DISCONNECTED)
    proxy.add("silent", DISCONNECTED, "stream")
    proxy.add("refused", {"reason": "invalid_request", "detail": HTML})
    proxy.add("plain", {**UNAVAILABLE, "detail": re.compile("HTML|plain text")})
    for check in ("chat", "stream", "auth"):
        proxy.add("nothing", MALFORMED, check)
        proxy.add("portal", MALFORMED, check)
    started = [command, "-p", str(place.path), "-e", str(place.path / "nginx.error"), "-c",
               str(config)]  # fmt: skip
    with running(place, "nginx", started, listens(port)):
        judge(checks, place, "nginx", proxy.cases)
        limits(checks, place, proxy)
        silence(checks, place, "nginx", [denied, basic])
        streams(checks, place, port)


def limits(checks: Checks, place: Place, proxy: Proxy) -> None:
    """Checks the refusals of nginx' limit, which lets the first request of a minute through."""
    for path, expected in {
        "limit503": {**UNAVAILABLE, "detail": HTML},
        "limit429": {**LIMITED, "detail": HTML},
    }.items():
        case = plain(f"nginx-{path}", f"{proxy.base}/{path}", expected, "chat")
        once(place, f"{case.name}-first", [case])
        judge(checks, place, "nginx", [case])


def silence(checks: Checks, place: Place, name: str, cases: list[Case]) -> None:
    """Checks that the doctor claims nothing of a key that no API has seen."""
    text = doctor(place, name, cases)
    claims = ("knows the key", "the key is wrong", "the key is known")
    wrong = [f"the doctor claims: {claim}" for claim in claims if claim in text]
    if text.count("something before") != len(cases):
        wrong.append("the doctor does not name what stands before the API")
    checks.report(f"{name}::doctor_claims_nothing_of_the_key", wrong)


def streams(checks: Checks, place: Place, port: int) -> None:
    """Checks `buffered` by speed, length and size of nginx' buffers; each speed at its own time."""
    paths = ["off", "ok", *(f"b{size}" for size in servers.BUFFERS)]
    for speed, at_once in ((1000, 1), (100, 8), (20, 64)):
        cases = [
            speed_case(f"nginx-{path}-{tokens}-at-{speed}", f"http://127.0.0.1:{port}/{path}",
                       tokens, speed, None if tokens < DECIDED_TOKENS else path != "off")
            for path in paths for tokens in (5, DECIDED_TOKENS, 200, 500)
        ]  # fmt: skip
        judge(checks, place, f"nginx-at-{speed}", cases, at_once)


def speed_case(
    name: str, url: str, tokens: int, speed: int, buffered: bool | None, probe: str = ""
) -> Case:
    """Returns the case of a stream with so many tokens, at so many per second."""
    speeds: dict[str, Any] = {}
    if buffered:
        remedy = has("http-no-delay" if name.startswith("haproxy") else "X-Accel-Buffering")
        speeds = {"time_per_output_token_seconds": None, "hint": remedy}
    return plain(
        name,
        url,
        {**OK, "buffered": buffered, **speeds},
        "stream",
        fault=f"pace; first_token=100ms; tokens={tokens}; token={1000 // speed}ms",
        probe=f'max_tokens = {max(tokens, 16)}\ntimeout = "60s"\n{probe}',
    )


def check_haproxy(checks: Checks, place: Place, simulator: int) -> None:
    """Checks what HAProxy passes on and refuses."""
    command = program("haproxy")
    if not command:
        checks.skip("haproxy", "haproxy")
        return
    port = free_port()
    config = place.write("haproxy.cfg", servers.haproxy(port, simulator))
    proxy = Proxy("haproxy", port)
    for path in ("ok", "gzip"):
        proxy.add_common(path)
    denied = proxy.add("deny", {**DENIED, "detail": HTML}, "auth")
    basic = proxy.add("basic", BASIC, "auth")
    proxy.add("deny", {**DENIED, "detail": HTML}, "stream")
    proxy.add("basic", BASIC)
    proxy.add("slow", {**SLOW, "detail": HTML}, fault="stall")
    proxy.add("ok", {**BAD_GATEWAY, "detail": HTML}, fault="garbage")
    proxy.add("limit", {**LIMITED, "detail": HTML})
    proxy.add("large", {**LARGE, "detail": HTML}, probe=LONG)
    proxy.add("silent", DISCONNECTED)
    proxy.add("plain", {**UNAVAILABLE, "detail": PLAIN})
    for path in ("dead", "empty", "missing"):
        proxy.add(path, {**UNAVAILABLE, "detail": HTML})
    for check in ("chat", "stream"):
        proxy.add("nothing", MALFORMED, check)
    # By default it lets the kernel collect small pieces for up to 200 ms.
    for path, held_back in (("ok", True), ("delayless", False)):
        proxy.cases.append(
            speed_case(f"haproxy-{path}-speed", f"{proxy.base}/{path}", 100, 50, held_back)
        )
    with running(place, "haproxy", [command, "-db", "-f", str(config)], listens(port)):
        judge(checks, place, "haproxy", proxy.cases)
        silence(checks, place, "haproxy", [denied, basic])


def check_caddy(checks: Checks, place: Place, simulator: int) -> None:
    """Checks what Caddy passes on and refuses, with empty bodies."""
    command = program("caddy")
    if not command:
        checks.skip("caddy", "Caddy")
        return
    port, other_port = free_port(), free_port()
    version, hashed = (
        subprocess.run([command, *arguments], capture_output=True, text=True, check=True).stdout
        for arguments in (["version"], ["hash-password", "--plaintext", servers.PASSWORD])
    )
    text = servers.caddy(version, port, other_port, simulator, hashed.strip())
    config = place.write("Caddyfile", text)
    proxy = Proxy("caddy", port)
    for path in ("ok", "gzip"):
        proxy.add_common(path)
    denied = proxy.add("deny", {**DENIED, "detail": EMPTY}, "auth")
    basic = proxy.add("basic", BASIC, "auth")
    proxy.add("deny", {**DENIED, "detail": EMPTY})
    proxy.add("dead", {**BAD_GATEWAY, "detail": EMPTY})
    proxy.add("slow", {**SLOW, "detail": EMPTY}, fault="stall")
    proxy.add("gone", GONE)
    proxy.add("plain", {**UNAVAILABLE, "detail": PLAIN})
    proxy.add("large", LARGE)
    proxy.add("silent", DISCONNECTED)
    for check in ("chat", "auth", "stream"):
        proxy.add("missing", MALFORMED, check)
    for check in ("chat", "auth", "stream"):
        other = f"http://127.0.0.1:{other_port}"
        proxy.cases.append(plain(f"caddy-unknown-host-{check}", other, MALFORMED, check))
    proxy.cases.append(speed_case("caddy-speed", f"{proxy.base}/ok", 100, 50, False))
    started = [command, "run", "--config", str(config), "--adapter", "caddyfile"]
    with running(place, "caddy", started, listens(port)):
        judge(checks, place, "caddy", proxy.cases)
        silence(checks, place, "caddy", [denied, basic])


def check_lighttpd(checks: Checks, place: Place, simulator: int) -> None:
    """Checks what lighttpd passes on, refuses and, by default, holds back."""
    command = program("lighttpd")
    if not command:
        checks.skip("lighttpd", "lighttpd")
        return
    port = free_port()
    place.write("passwords", f"{servers.USER}:{servers.PASSWORD}\n")
    config = place.write("lighttpd.conf", servers.lighttpd(place.path, port, simulator))
    proxy = Proxy("lighttpd", port)
    proxy.add_common("ok")
    denied = proxy.add("deny", {**DENIED, "detail": HTML}, "auth")
    basic = proxy.add("basic", BASIC, "auth")
    proxy.add("large", {**LARGE, "detail": HTML}, probe=LONG)
    proxy.add("dead", {**UNAVAILABLE, "detail": HTML})
    proxy.add("missing", GONE, "models")
    proxy.cases += [
        speed_case("lighttpd-speed", f"{proxy.base}/ok", 100, 50, True),
        speed_case("lighttpd-streaming-speed", f"{proxy.base}/streaming", 100, 50, False),
    ]
    with running(place, "lighttpd", [command, "-D", "-f", str(config)], listens(port)):
        judge(checks, place, "lighttpd", proxy.cases)
        silence(checks, place, "lighttpd", [denied, basic])


def check(checks: Checks, place: Place, simulator: int) -> None:
    """Checks every proxy that is installed."""
    place.write("files/index.html", "<html>files</html>")
    for part in (check_haproxy, check_caddy, check_lighttpd, check_nginx):
        part(checks, place, simulator)
