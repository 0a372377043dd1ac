"""Hostile files: configurations, planted state and logs, bad reloads."""

import functools
import os
import subprocess

from harness import CANARY, KEY, LISTEN, Account, Daemon, Place, Service, auth_probes, wait_for

#: Maximum time to accept or reject a configuration, in seconds.
JUDGED_WITHIN = 20


def configurations() -> dict[str, bytes]:
    """Returns configurations that must be rejected."""
    provider = '[provider.openai]\napi_key = { env = "SIM_KEY" }\n'
    probe = '[[probe]]\nname = "p"\nprovider = "openai"\ncheck = "auth"\n'
    texts = {
        "garbage": "\x00\x01\x02",
        "unclosed": "[server",
        "unknown": "[nothing]\n",
        "nested": "a = " + "[" * 10_000,
        "dotted": "a" + ".a" * 10_000 + " = 1",
        "twice": "[server]\n[server]\n",
        "huge-string": f'[log]\nlevel = "{"x" * 3_000_000}"\n',
        "not-utf8": "",
        "listen-word": '[server]\nlisten = "evil"\n',
        "listen-everywhere": '[server]\nlisten = "0.0.0.0:0"\n',
        "listen-port": '[server]\nlisten = "127.0.0.1:99999"\n',
        "key-inline": f'[provider.openai]\napi_key = "{KEY}"\n',
        "key-in-url": f'[provider.openai]\nbase_url = "https://{KEY}@x.example"\n'
        'api_key = { env = "SIM_KEY" }\n',
        "key-directory": '[provider.openai]\napi_key = { file = "/" }\n',
        "key-endless": '[provider.openai]\napi_key = { file = "/dev/zero" }\n',
        "key-missing": '[provider.openai]\napi_key = { file = "/nonexistent" }\n',
        "key-no-env": '[provider.openai]\napi_key = { env = "NOT_SET" }\n',
        "key-random": '[provider.openai]\napi_key = { file = "/dev/urandom" }\n',
        "header-key": provider + f'headers = {{ authorization = "{KEY}" }}\n',
        "header-newline": provider + 'headers = { x = "a\\r\\nb: c" }\n',
        "header-host": provider + 'headers = { host = "x" }\n',
        "url-scheme": provider + 'base_url = "file:///etc/passwd"\n',
        "url-none": provider + 'base_url = "https://"\n',
        "url-plain": provider + 'base_url = "http://api.example"\n',
        "url-newline": provider + 'base_url = "https://x\\n.example"\n',
        "interval-zero": provider + probe + 'interval = "0s"\n',
        "interval-negative": provider + probe + 'interval = "-1s"\n',
        "interval-huge": provider + probe + 'interval = "99999999999999999999h"\n',
        "timeout-zero": provider + probe + 'timeout = "0s"\n',
        "name-path": provider + probe.replace('"p"', '"../../x"'),
        "name-markup": provider + probe.replace('"p"', '"<script>"'),
        "name-control": provider + probe.replace('"p"', '"\\u001b[2J"'),
        "name-empty": provider + probe.replace('"p"', '""'),
        "name-long": provider + probe.replace('"p"', f'"{"p" * 10_000}"'),
        "name-twice": provider + probe * 2,
        "no-provider": probe,
        "check-none": provider + probe.replace("auth", "evil"),
        "price-nan": provider + probe + "price = { input_usd_per_mtok = nan }\n",
        "regex-bad": provider
        + probe.replace("auth", "http")
        + 'path = "/"\nexpect = { body_regex = "(" }\n',
        "regex-huge": provider
        + probe.replace("auth", "http")
        + 'path = "/"\nexpect = { body_regex = "(((a{1000}){1000}){1000})" }\n',
        "ca-garbage": provider + 'ca_file = "/etc/passwd"\n',
        "ca-endless": provider + 'ca_file = "/dev/zero"\n',
        "proxy-scheme": provider + 'proxy = "gopher://x"\n',
        "budget-negative": "[budget]\ndaily_cost_usd = -1\n",
        "budget-nan": "[budget]\ndaily_cost_usd = nan\n",
        "rate-zero": provider + "requests_per_minute = 0\n",
        "concurrency-zero": "[schedule]\nmax_concurrent = 0\n",
        "files-zero": "[log]\nmax_files = 0\n",
        "level-bad": '[log]\nlevel = "a=b=c"\n',
        "shard-beyond": "[shard]\nindex = 3\ntotal = 2\n",
        "user-colon": '[server]\nbasic_auth = { "a:b" = "$2b$05$x" }\n',
        "user-plain": '[server]\nbasic_auth = { a = "password" }\n',
        "tls-missing": "[server]\n"
        'tls = { cert_file = "/nonexistent", key_file = "/nonexistent" }\n',
        "hostname-url": '[server]\nhostnames = ["https://x/"]\n',
    }
    found = {name: text.encode() for name, text in texts.items()}
    found["not-utf8"] = b'[log]\nlevel = "\xff\xfe"\n'
    return found


def configured(prober: str, account: Account) -> None:
    """Runs the daemon with every configuration."""
    wrong = []
    tried = configurations()
    for name, text in tried.items():
        with Place(prober) as place:
            place.write("config.toml", text)
            try:
                done = place.run("run", timeout=JUDGED_WITHIN)
            except subprocess.TimeoutExpired:
                wrong.append(f"{name}: no end")
                continue
            output = (done.stdout + done.stderr).decode("utf-8", "replace")
            if done.returncode != 78:
                wrong.append(f"{name}: exit {done.returncode}")
            elif "panicked" in output or KEY in output or "\x1b" in output or len(output) > 100_000:
                wrong.append(f"{name}: {len(output)} characters, {output[:80]!r}")
    account.note(
        "configurations",
        not wrong,
        f"{len(tried) - len(wrong)} refused" + "".join(f"; {what}" for what in wrong[:8]),
        len(tried),
        len(wrong) or None,
    )


def states() -> dict[str, bytes]:
    """Returns states that no prober has written."""
    probe = '{"probe":"p0","provider":"openai","check":"auth"'
    texts = {
        "empty": "",
        "null": "null",
        "list": "[]",
        "cut": '{"version":1,"probes":[',
        "version": '{"version":2}',
        "version-negative": '{"version":-1,"probes":[]}',
        "nested": "[" * 100_000,
        "words": CANARY,
        "day-far": '{"version":1,"budget":{"day":"9999-12-31","spent_usd":1e308,'
        '"spent_tokens":18446744073709551615},"probes":[]}',
        "day-none": '{"version":1,"budget":{"day":"0000-99-99","spent_usd":1,'
        '"spent_tokens":1},"probes":[]}',
        "usd-negative": '{"version":1,"budget":{"day":"2026-01-01","spent_usd":-1e308,'
        '"spent_tokens":0},"probes":[]}',
        "usd-huge": '{"version":1,"budget":{"day":"2026-01-01","spent_usd":1e999,'
        '"spent_tokens":0},"probes":[]}',
        "wait-far": '{"version":1,"probes":['
        + probe
        + ',"backoff":{"until":"9999-12-31T00:00:00Z","step":18446744073709551615}}]}',
        "wait-past": '{"version":1,"probes":['
        + probe
        + ',"backoff":{"until":"0001-01-01T00:00:00Z","step":0}}]}',
        "run-future": '{"version":1,"probes":['
        + probe
        + ',"last_run":"9999-12-31T23:59:59Z","last_success":"9999-12-31T23:59:59Z"}]}',
        "time-words": '{"version":1,"probes":[' + probe + ',"last_run":"' + CANARY + '"}]}',
        "twice": '{"version":1,"probes":[' + probe + "}," + probe + "}]}",
        "others": '{"version":1,"probes":['
        + ",".join(f'{{"probe":"x{i}","provider":"y","check":"auth"}}' for i in range(50_000))
        + "]}",
        "huge": '{"version":1,"probes":[],"x":"' + "x" * (17 << 20) + '"}',
    }
    found = {name: text.encode() for name, text in texts.items()}
    return found | {
        "binary": bytes(range(256)) * 100,
        "bom": b'\xef\xbb\xbf{"version":1,"probes":[]}',
        "zeros": b"\0" * 4096,
    }


def has_run(daemon: Daemon) -> bool:
    """Returns whether any probe has run."""
    return daemon.value("langmart_probe_runs_total") > 0


def planted(prober: str, account: Account) -> None:
    """Plants states, and other file types in place of files, before a start."""
    service = Service()
    wrong = []
    plants: dict[str, bytes | str] = {
        **states(),
        "state is a pipe": "pipe",
        "state is a directory": "directory",
        "state is a link to itself": "loop",
        "state is a device": "device",
        "log is a directory": "log-directory",
        "log is a link to nowhere": "log-link",
    }
    for name, plant in plants.items():
        with Place(prober) as place:
            place.write(
                "config.toml",
                LISTEN
                + f'[state]\ndirectory = "{place.path}/state"\n'
                + f'[log]\ndirectory = "{place.path}/logs"\n'
                + auth_probes(service, 1),
            )
            for directory in ("state", "logs"):
                (place.path / directory).mkdir()
            state = place.path / "state/state.json"
            today = subprocess.run(
                ["date", "-u", "+%Y-%m-%d"], capture_output=True, text=True, check=True
            ).stdout.strip()
            log = place.path / f"logs/results.jsonl.{today}"
            if isinstance(plant, bytes):
                state.write_bytes(plant)
            elif plant == "pipe":
                os.mkfifo(state)
            elif plant == "directory":
                state.mkdir()
            elif plant == "loop":
                state.symlink_to(state)
            elif plant == "device":
                state.symlink_to("/dev/zero")
            elif plant == "log-directory":
                log.mkdir()
            else:
                log.symlink_to(place.path / "nowhere/file")
            try:
                with Daemon(place) as daemon:
                    patient = name != "wait-far"
                    if patient:
                        wait_for("a run", functools.partial(has_run, daemon))
                    if not daemon.is_well() or CANARY.encode() in daemon.log:
                        wrong.append(f"{name}: unwell")
                    status = daemon.stop()
                    if status:
                        wrong.append(f"{name}: exit {status}")
            except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                wrong.append(f"{name}: {str(error)[:150]}")
    account.note(
        "planted states and logs",
        not wrong,
        f"{len(plants) - len(wrong)} starts" + "".join(f"; {what}" for what in wrong[:8]),
        len(plants),
        len(wrong) or None,
    )


def reloads(prober: str, account: Account) -> None:
    """Reloads bad configurations: each is rejected, and the probes continue."""
    service = Service()
    wrong = []
    with Place(prober) as place:
        good = LISTEN + auth_probes(service)
        place.write("config.toml", good)
        bad = {
            "empty": b"",
            "comment": b"# nothing\n",
            "cut": good.encode()[: len(good) // 2 + 3],
            "no probe": LISTEN.encode(),
            **configurations(),
        }
        bad["everywhere"] = good.replace("127.0.0.1:0", "0.0.0.0:0", 1).encode()
        bad["log directory"] = good.encode() + b'[log]\ndirectory = "/proc/nowhere"\n'
        with Daemon(place) as daemon:
            for name, text in bad.items():
                place.write("config.toml", text)
                if daemon.reload():
                    wrong.append(f"{name}: taken over")
                    place.write("config.toml", good)
                    daemon.reload()
            for what in ("directory", "pipe", "gone"):
                (place.path / "config.toml").unlink()
                if what == "directory":
                    (place.path / "config.toml").mkdir()
                elif what == "pipe":
                    os.mkfifo(place.path / "config.toml")
                if daemon.reload():
                    wrong.append(f"{what}: taken over")
                if what == "directory":
                    (place.path / "config.toml").rmdir()
                elif what == "pipe":
                    # Ends a load that is blocked in opening it.
                    os.close(os.open(place.path / "config.toml", os.O_RDWR))
                if what != "gone" and not (place.path / "config.toml").exists():
                    (place.path / "config.toml").write_text("")
            place.write("config.toml", good)
            wait_for("a good reload", daemon.reload)
            runs = daemon.value("langmart_probe_runs_total")
            wait_for(
                "runs to continue", lambda: daemon.value("langmart_probe_runs_total") > runs + 5
            )
            if not daemon.is_well():
                wrong.append("unwell at the end")
    tried = len(bad) + 3
    account.note(
        "bad reloads",
        not wrong,
        f"{tried - len(wrong)} refused" + "".join(f"; {what}" for what in wrong[:8]),
        tried,
        len(wrong) or None,
    )


def run(prober: str, account: Account, long: bool) -> None:
    """Runs all of them, which is quick."""
    del long
    configured(prober, account)
    planted(prober, account)
    reloads(prober, account)
