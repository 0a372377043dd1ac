"""Hostile services: their answers for every API and check, by one `once --json`."""

import json
import re
import time

from harness import CANARY, KEY, Account, Place, Service, response

#: Each API with its checks and a model.
APIS = {
    "langmart": ("auth", "models", "chat", "stream"),
    "openai": ("auth", "models", "chat", "stream"),
    "anthropic": ("auth", "models", "chat", "stream"),
    "groq": ("auth", "models", "chat", "stream"),
    "google": ("auth", "models", "chat", "stream"),
    "openrouter": ("auth", "models", "chat", "stream"),
}

MAX_TOKENS = 32
#: More tokens than a short request and its answer can use.
PLAUSIBLE_TOKENS = 10_000


def usage(count: object) -> str:
    """Returns a completion that is valid in every dialect, with that usage."""
    number = json.dumps(count)
    fields = (
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "promptTokenCount",
        "candidatesTokenCount",
    )
    counts = "{" + ",".join(f'"{name}":{number}' for name in fields) + "}"
    text = '"choices":[{"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]'
    other = '"type":"message","content":[{"type":"text","text":"ok"}],"stop_reason":"end_turn"'
    google = '"candidates":[{"content":{"parts":[{"text":"ok"}]},"finishReason":"STOP"}]'
    return f'{{{text},{other},{google},"usage":{counts},"usageMetadata":{counts}}}'


def attacks() -> dict[str, bytes]:
    """Returns the answers of the services by the name of the attack."""
    bodies: dict[str, str | bytes] = {
        "empty": b"",
        "zero": b"\0" * 1000,
        "garbage": bytes(range(256)) * 20,
        "html": f"<script>alert('{CANARY}')</script>",
        "null": "null",
        "number": "1e400",
        "nan": "NaN",
        "true": "true",
        "string": json.dumps(CANARY),
        "list": "[]",
        "cut": '{"data":[{"id":"' + CANARY,
        "nested-lists": "[" * 60_000 + "]" * 60_000,
        "nested-objects": '{"a":' * 60_000 + "1" + "}" * 60_000,
        "lists-beside": "[" + "[],[]," * 50_000 + "[]]",
        "duplicates": "{" + '"error":1,' * 20_000 + '"error":2}',
        "long-name": '{"' + "a" * 1_000_000 + '":1}',
        "long-string": '{"data":"' + "x" * 3_000_000 + '"}',
        "beyond-the-limit": b" " * (4 * 1024 * 1024 + 1),
        "utf8-broken": b'{"data":["\xff\xfe\xc0\xaf"]}',
        "surrogate": '{"data":["\\ud800"]}',
        "bom": b'\xef\xbb\xbf{"data":[]}',
        "utf16": '{"data":[]}'.encode("utf-16"),
        "control": '{"a":"\x1b[2J\x07\r\n"}',
        "data-number": '{"data":1}',
        "choices-empty": '{"choices":[]}',
        "choices-null": '{"choices":[null]}',
        "content-number": '{"choices":[{"message":{"content":1}}]}',
        "sse-as-json": 'data: {"choices":[]}\n\n',
        "error-number": '{"error":1}',
        "error-list": '{"error":[]}',
        "id-huge": json.dumps({"data": [{"id": CANARY * 100_000}]}),
        "many-models": json.dumps({"data": [{"id": f"m{i}"} for i in range(50_000)]}),
        "negative": '{"data":{"limit":-1e308,"usage":1e308}}',
    }
    found = {f"body-{name}": response(body) for name, body in bodies.items()}
    evil = {
        "ansi": f"\x1b[31m{CANARY}",
        "newline": f"a\n{CANARY}: b",
        "markup": f"<b>{CANARY}</b>",
        "key": KEY,
        "long": CANARY * 10_000,
        "empty": "",
        "unicode": f"\u202e{CANARY}\u0000",
        "gateway": f"GATEWAY_{CANARY}",
        "provider": f"PROVIDER_{CANARY}_503",
        "number": 7,
        "object": {"a": CANARY},
    }
    for name, code in evil.items():
        error = {
            "error": {
                "code": code,
                "type": code,
                "message": f"{CANARY} {KEY}",
                "param": code,
                "metadata": {"provider_name": code},
            }
        }
        for status in ("400 Bad Request", "429 Too Many Requests", "503 Service Unavailable"):
            found[f"code-{name}-{status[:3]}"] = response(json.dumps(error), status)
        found[f"code-{name}-200"] = response(json.dumps(error))
    hints = [
        "-5",
        "1e30",
        "Infinity",
        "NaN",
        "9" * 60,
        "9999",
        "0",
        "",
        " ",
        "1, 2",
        "0x10",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Sat, 99 Foo 2026 99:99:99 GMT",
        "\t5",
        "5;q=1",
        "٣",
        CANARY,
    ]
    for index, hint in enumerate(hints):
        headers = (
            f"Retry-After: {hint}",
            f"retry-after-ms: {hint}",
            f"x-ratelimit-reset-requests: {hint}",
            f"anthropic-ratelimit-tokens-reset: {hint}",
        )
        found[f"hint-{index}"] = response("{}", "429 Too Many Requests", headers)
    for status in (
        "99 Low",
        "100 Continue",
        "199 X",
        "204 No Content",
        "299 X",
        "304 Not Modified",
        "306 X",
        "418 Teapot",
        "451 X",
        "499 X",
        "599 X",
        "600 X",
        "999 X",
        f"500 {CANARY}",
    ):
        found[f"status-{status[:3].strip()}"] = response("{}", status)
    raw = {
        "no-head": b"\r\n",
        "http09": b"hello",
        "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls": b"\x15\x03\x01\x00\x02\x02\x28",
        "half-head": b"HTTP/1.1 200 OK\r\nContent-",
        "length-huge": b"HTTP/1.1 200 OK\r\nContent-Length: 4611686018427387904\r\n\r\n{}",
        "length-negative": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "length-and-chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "chunk-huge": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"ffffffffffffffff\r\n{}",
        "chunk-bad": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "chunk-extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;"
        + b"x" * 200_000
        + b"\r\n{}\r\n0\r\n\r\n",
        "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"a: b\r\n" * 50_000,
        "many-headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000 + b"\r\n{}",
        "long-header": b"HTTP/1.1 200 OK\r\na: " + b"x" * 2_000_000 + b"\r\n\r\n{}",
        "header-control": b"HTTP/1.1 200 OK\r\nx-request-id: \x1b[2J\x00\r\n"
        b"Content-Length: 2\r\n\r\n{}",
        "request-id-key": response("{}", headers=(f"x-request-id: {KEY}",)),
        "request-id-long": response("{}", headers=("x-request-id: " + CANARY.lower() * 500,)),
        "redirect": response("", "302 Found", ("Location: http://127.0.0.1:9/" + CANARY,)),
        "gzip": response(b"\x1f\x8b\x08\x00" + b"\0" * 1000, headers=("Content-Encoding: gzip",)),
        "date": response("{}", headers=("Date: " + CANARY,)),
        "informational": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100 + response("{}"),
        "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "lf-only": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        "folded": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    }
    found |= {f"wire-{name}": answer for name, answer in raw.items()}
    events = {
        "no-data": "\n" * 100_000,
        "comments": ": x\n" * 100_000,
        "huge-event": "data: " + "x" * 600_000 + "\n\n",
        "tiny-events": "data: 1\n\n" * 50_000,
        "cut": 'data: {"choices":[{"delta":{"content":"' + CANARY,
        "error": f'data: {{"error":{{"message":"{CANARY} {KEY}","code":"{CANARY}"}}}}\n\n',
        "done-first": "data: [DONE]\n\n",
        "retry": "retry: 99999999999999999999\n\n",
        "nested": "data: " + "[" * 60_000 + "\n\n",
        "names": f"event: {CANARY}\ndata: {{}}\n\n" * 1000,
    }
    found |= {
        f"stream-{name}": response(text, kind="text/event-stream") for name, text in events.items()
    }
    counts: tuple[object, ...] = (
        100_000_000,
        10_000_000,
        2**63,
        2**64,
        -1,
        1.5,
        1e300,
        "9",
        None,
        True,
        [],
        {},
    )
    for count in counts:
        found[f"usage-{json.dumps(count)[:12]}"] = response(usage(count))
    # Not in the report: counts in places of their own, and counts that add up.
    for place in (
        '"prompt_tokens_details":{"cached_tokens":N}',
        '"total_tokens":N',
        '"cache_read_input_tokens":N,"cache_creation_input_tokens":N',
        '"completion_tokens_details":{"reasoning_tokens":N}',
        '"thoughtsTokenCount":N,"cachedContentTokenCount":N',
    ):
        counted = "{" + place.replace("N", "100000000") + "}"
        found[f"usage-{place[1:12]}"] = response(
            usage(1).replace("{}", "null")[:-1] + f',"usage":{counted}}}'
        )
    event = usage(9000).replace("message", "delta")
    found["usage-again-and-again"] = response(
        f"data: {event}\n\n" * 500 + "data: [DONE]\n\n", kind="text/event-stream"
    )
    return found


def run(prober: str, account: Account, long: bool) -> None:
    """Plays every attack on every check of every API, and judges the records."""
    service = Service()
    played = attacks()
    service.answers |= {f"a{index}": answer for index, answer in enumerate(played.values())}
    apis = APIS if long else {api: APIS[api] for api in ("openai", "anthropic", "google")}
    for api, checks in apis.items():
        asked = [check for check in checks if long or check != "models"]
        config = ""
        for index in range(len(played)):
            config += (
                f'[provider.a{index}]\napi = "{api}"\n'
                f'base_url = "http://127.0.0.1:{service.port}/a{index}"\n'
                'api_key = { env = "SIM_KEY" }\nchecks = []\n'
            )
            for check in asked:
                model = (
                    f'model = "m"\nmax_tokens = {MAX_TOKENS}\n'
                    "price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 1.0 }\n"
                )
                config += (
                    f'[[probe]]\nname = "a{index}-{check}"\nprovider = "a{index}"\n'
                    f'check = "{check}"\ntimeout = "5s"\n'
                )
                config += model if check in ("chat", "stream") else ""
        with Place(prober, config) as place:
            begun = time.monotonic()
            done = place.run("once", "--json", timeout=600)
            took = time.monotonic() - begun
        judge(
            account,
            api,
            list(played),
            asked,
            done.stdout,
            done.stderr,
            done.returncode,
            took,
        )


def judge(
    account: Account,
    api: str,
    names: list[str],
    checks: list[str],
    out: bytes,
    err: bytes,
    status: int,
    took: float,
) -> None:
    """Searches for forbidden output and for impossible verdicts."""
    wrong: list[str] = []
    text = (out + err).decode("utf-8", "replace")
    if KEY in text:
        wrong.append("the key is in the output")
    if CANARY.lower() in text.lower().replace("http://127.0.0.1", ""):
        wrong.append("the service's words are in the output")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", text):
        wrong.append("control characters are in the output")
    if "panicked" in text or "Panicked" in text or status not in (0, 1):
        wrong.append(f"it panicked, or ended with {status}")
    records = {}
    for line in out.splitlines():
        record = json.loads(line)
        records[record["probe"]] = record
    lost = 0
    for index, name in enumerate(names):
        for check in checks:
            record = records.get(f"a{index}-{check}")
            complaint = None if record else "no record"
            if record:
                complaint = verdict(name, record)
            if complaint:
                lost += 1
                wrong.append(f"{name} {check}: {complaint}")
    inputs = len(names) * len(checks)
    figure = f"{len(records)} records in {took:.1f} s" + "".join(f"; {what}" for what in wrong[:6])
    account.note(f"services of {api}", not wrong, figure, inputs, lost or None)


def verdict(name: str, record: dict[str, object]) -> str | None:
    """Returns what is wrong with the record of an attack, or None."""
    if record["reason"] == "internal":
        return "internal"
    if float(str(record["duration_seconds"])) > 6:
        return f"took {record['duration_seconds']} s beyond its timeout of 5 s"
    for member in ("input_tokens", "output_tokens"):
        if int(str(record.get(member, 0))) > PLAUSIBLE_TOKENS:
            return f"{member} of {record[member]} for a request of {MAX_TOKENS}"
    hint = float(str(record.get("retry_after_seconds", 0)))
    if not 0 <= hint < float("inf"):
        return f"retry_after_seconds of {hint}"
    harmless = (
        "usage-",
        "hint-",
        "wire-",
        "status-",
        "body-list",
        "body-many",
        "body-bom",
        "body-id",
        "body-duplicates",
        "body-lists",
        "stream-",
        "body-surrogate",
    )
    if (
        record["success"]
        and record["check"] in ("chat", "stream")
        and not name.startswith(harmless)
    ):
        return "success"
    return None
