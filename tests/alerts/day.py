#!/usr/bin/env python3
"""A scripted working day of faults, played 120 times as fast: the alerts of a real Prometheus and the messages of a real
Alertmanager against the script. None may be missed, none may be false.

    tests/alerts/day.py --prober target/release/langmart-prober [--prometheus PROGRAM] [--report FILE]
"""

import argparse
import json
import pathlib
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "packaging"))
watch = __import__("try")

SPEED = 120
MODELS = {"langmart": "openai/gpt-4o-mini", "openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5-20251001",
          "groq": "llama-3.1-8b-instant", "google": "gemini-2.5-flash-lite", "openrouter": None}
# Another one for the stream, so that it alone can become slow.
STREAMED = "claude-streamed"
PATHS = {"langmart": "langmart", "openai": "openai/v1", "anthropic": "anthropic", "groq": "groq/openai/v1",
         "google": "google/v1beta", "openrouter": "openrouter/api/v1"}

# What goes wrong: from and until in hours, the rule, and the alerts it must raise with a label that tells which, by
# which hour after its beginning.
DOWN = [("LangmartProbeDown", 0.4), ("LangmartErrorBudgetBurnFast", 0.6), ("LangmartErrorBudgetBurn", 0.9)]


def down(probe):
    return [(name, {"probe": probe}, by) for name, by in DOWN]


FAULTS = [
    (0.5, 1.4, 'provider = "openai"\npath = "/chat"\nfault = "unavailable"',
     [("LangmartServiceUnavailable", {"provider": "openai"}, 0.5), *down("openai-chat")]),
    (0.6, 1.4, 'provider = "anthropic"\npath = "/models"\nfault = "auth_failed"',
     [("LangmartKeyRejected", {"provider": "anthropic"}, 0.4)]),
    (0.7, 1.9, 'provider = "groq"\npath = "/chat"\nfault = "rate_limited"\nretry_after = "1s"',
     [("LangmartRateLimited", {"provider": "groq"}, 1.0), ("LangmartRateLimitHeadroomLow", {"provider": "groq"}, 1.1)]),
    (0.8, 1.8, 'provider = "google"\npath = "enerateContent"\nfault = "overloaded"',
     [("LangmartOverloaded", {"provider": "google"}, 0.9), ("LangmartProbeDown", {"probe": "google-chat"}, 0.9)]),
    # Single failures, which nobody may hear of.
    (2.0, 2.015, 'provider = "openai"\npath = "/models"\nfault = "server_error"', []),
    (2.2, 2.215, 'provider = "langmart"\npath = "/health"\nfault = "unavailable"', []),
    (2.5, 3.4, 'provider = "langmart"\npath = "/chat"\nfault = "gateway_timeout"',
     [("LangmartGatewayTimeout", {"provider": "langmart"}, 0.5), *down("langmart-chat")]),
    (2.6, 3.6, 'path = "/status/anthropic"\nfault = "incident"\nvariant = "major"',
     [("LangmartStatusPageIncident", {"provider": "anthropic"}, 0.5)]),
    (2.7, 3.7, 'provider = "openai"\npath = "/chat"\nfault = "billing"',
     [("LangmartBilling", {"provider": "openai"}, 0.5)]),
    (4.5, 5.4, 'provider = "langmart"\npath = "/chat"\nfault = "provider_auth_failed"\nupstream = "openai"',
     [("LangmartStoredKeyRejected", {"provider": "langmart"}, 0.4), ("LangmartProbeDown", {"probe": "langmart-chat"}, 0.4)]),
    (4.6, 5.6, 'provider = "langmart"\npath = "/balance"\nfault = "low_balance"',
     [("LangmartBalanceLow", {"provider": "langmart"}, 0.7), ("LangmartBilling", {"provider": "langmart"}, 0.5)]),
    (4.7, 6.5, 'provider = "anthropic"\nmodel = "claude-streamed"\npace = { first_token = "1200ms" }',
     [("LangmartSlowFirstToken", {"probe": "anthropic-stream"}, 1.7)]),
]
# What the script does itself: an hour, and what must come of it.
RELOAD_BAD, RELOAD_GOOD, KILLED, STARTED, CUT, END = 6.6, 7.1, 7.4, 7.8, 8.2, 8.9
OWN = [
    (RELOAD_BAD, RELOAD_GOOD, [("LangmartProberReloadFailed", {}, 0.4)]),
    (KILLED, STARTED, [("LangmartProberDown", {}, 0.3), ("LangmartProberAbsent", {}, 0.4)]),
    (CUT, END, [("LangmartProberOffline", {}, 0.3)]),
]
# How long after the cause an alert may still fire, in hours: its window and some.
TAILS = {"LangmartErrorBudgetBurnFast": 0.3, "LangmartErrorBudgetBurn": 1.5, "LangmartErrorBudgetBurnSlow": 7,
         "LangmartSlowFirstToken": 1.5, "LangmartRateLimitHeadroomLow": 0.6, "LangmartServiceUnavailable": 0.5, "LangmartGatewayTimeout": 0.5, "LangmartOverloaded": 0.5}
# Who burns the budget of a month in an hour overspends three days', too: allowed, not asked for.
BURNS = ("LangmartErrorBudgetBurnSlow", "LangmartErrorBudgetBurnFast", "LangmartErrorBudgetBurn")
# What the example holds back while its cause is told.
HELD_BACK = (*BURNS, "LangmartProberAbsent", "LangmartBalanceLow", "LangmartRateLimitHeadroomLow")
# The receiver of the example that hears of an alert.
RECEIVERS = {("caller", "critical"): "account-owners", ("caller", "warning"): "account-owners"}


def scenario():
    rules = [f'[[rule]]\nafter = "{begin * 3600 / SPEED:.3f}s"\nuntil = "{end * 3600 / SPEED:.3f}s"\n{rule}\n'
             for begin, end, rule, _ in FAULTS]
    return f'[models]\nanthropic = ["{STREAMED}"]\n' + "\n".join(rules)


def configuration(simulator):
    port = simulator.rsplit(":", 1)[1]
    # Every minute and every five minutes, as the rules see them.
    out = ('[server]\nlisten = "127.0.0.1:0"\n[schedule]\nmax_backoff = "2s"\n[defaults]\ninterval = "500ms"\n'
           '[defaults.generation]\ninterval = "500ms"\n')
    for name, model in MODELS.items():
        # Two hosts, without which nobody can tell that the prober is offline.
        host = "localhost" if name in ("groq", "google") else "127.0.0.1"
        checks = {"langmart": '"health", "auth", "balance"', "anthropic": '"auth", "status"'}.get(name, '"auth"')
        out += (f'[provider.{name}]\nbase_url = "http://{host}:{port}/{PATHS[name]}"\napi_key = {{ env = "DAY_KEY" }}\n'
                f'checks = [{checks}]\n')
        if name == "anthropic":
            out += f'status_url = "http://127.0.0.1:{port}/status/anthropic/api/v2/summary.json"\n'
        if model:
            out += f'[[probe]]\nname = "{name}-chat"\nprovider = "{name}"\ncheck = "chat"\nmodel = "{model}"\n'
    out += ('[[probe]]\nname = "anthropic-stream"\nprovider = "anthropic"\ncheck = "stream"\n'
            f'model = "{STREAMED}"\ninterval = "2500ms"\n')
    return out


class Day:
    def __init__(self, program, prometheus, directory):
        self.directory, self.program, self.messages = pathlib.Path(directory), program, []
        (self.directory / "day.toml").write_text(scenario())
        self.processes = []
        self.simulator, address = self.begin("simulate", "--listen", "127.0.0.1:0", "--scenario", f"{directory}/day.toml")
        self.dawn = time.time()
        self.config = self.directory / "config.toml"
        self.good = configuration(address)
        self.config.write_text(self.good)
        self.prober, listen = self.begin("run", "--config", str(self.config))
        # A restart comes back where Prometheus looks for it.
        self.good = self.good.replace("127.0.0.1:0", listen, 1)
        self.config.write_text(self.good)
        self.watchers = watch.Watchers(directory, listen, SPEED, self.hear, prometheus)
        try:
            # Prometheus takes up to 5 s until it knows its targets, which no factor shortens: ten minutes of this day. What
            # it says before is about itself.
            watch.wait_until("the first scrape", 30, lambda: self.watchers.query("langmart_prober_build_info"))
        except BaseException:
            self.stop()
            raise
        self.watched = time.time() + 1

    def begin(self, *arguments):
        process, address = watch.start_prober(self.program, self.directory, *arguments, DAY_KEY="sk-day-0123456789")
        self.processes.append(process)
        return process, address

    def hour(self, at=None):
        return ((at or time.time()) - self.dawn) * SPEED / 3600

    def hear(self, message):
        self.messages.append((self.hour(), message))

    def until(self, hour):
        time.sleep(max(0.0, self.dawn + hour * 3600 / SPEED - time.time()))

    def play(self):
        self.until(RELOAD_BAD)
        self.config.write_text(self.good + "nonsense = 1\n")
        self.prober.send_signal(signal.SIGHUP)
        self.until(RELOAD_GOOD)
        self.config.write_text(self.good)
        self.prober.send_signal(signal.SIGHUP)
        self.until(KILLED)
        self.prober.kill()
        self.prober.wait()
        self.until(STARTED)
        self.prober, _ = self.begin("run", "--config", str(self.config))
        self.until(CUT)
        self.simulator.kill()
        self.until(END)

    def fired(self):
        """Each alert that fired: labels, first and last hour of each spell."""
        answer = watch.ask(self.watchers.prometheus, "/api/v1/query_range", query='ALERTS{alertstate="firing"}',
                           start=self.watched, end=time.time(), step="0.1")
        spells = []
        for series in json.loads(answer)["data"]["result"]:
            labels, begin, last = series["metric"], None, None
            for at, _ in series["values"]:
                # A look every tenth of a second sees a gap of twenty minutes as one.
                if last is not None and at - last > 10:
                    spells.append((labels, self.hour(begin), self.hour(last)))
                    begin = None
                begin, last = begin or at, at
            spells.append((labels, self.hour(begin), self.hour(last)))
        return sorted(spells, key=lambda spell: spell[1])

    def stop(self):
        if hasattr(self, "watchers"):
            self.watchers.stop()
        for process in self.processes:
            process.kill()
            process.wait()


def has(labels, name, wanted):
    return labels["alertname"] == name and all(labels.get(key) == value for key, value in wanted.items())


def judge(spells, messages):
    """The lines of the report, and what is wrong."""
    lines, wrong = [], []
    causes = [(begin, end, alerts) for begin, end, _, alerts in FAULTS] + OWN
    for begin, end, alerts in causes:
        for name, wanted, by in alerts:
            found = [spell for spell in spells if has(spell[0], name, wanted) and begin <= spell[1] <= begin + by]
            # A second fault of a probe can find its budget's alert still firing.
            found = found or [spell for spell in spells if has(spell[0], name, wanted) and spell[1] < begin < spell[2]]
            what = f"{name} {' '.join(wanted.values())}".strip()
            if not found:
                wrong.append(f"missed: {what}, for the fault at {begin:g} h")
                continue
            labels, first, last = found[0]
            after = f"after {max(0, (first - begin) * 60):3.0f} min"
            told = [message for message in messages if tells(message, labels)]
            lines.append(f"{begin:5.1f} h  {what:50} {after}, for {(last - first) * 60:4.0f} min, {'to ' + told[0][1]['receiver'] if told else 'inhibited'}")
            receiver = RECEIVERS.get((labels["fault"], labels["severity"]), "on-call" if labels["severity"] == "critical" else "channel")
            if any(message[1]["receiver"] != receiver for message in told):
                wrong.append(f"told to another than {receiver}: {what}")
            if not told and name not in HELD_BACK:
                wrong.append(f"never told: {what}")
    for labels, first, last in spells:
        if not any(allowed(labels, first, last, *cause) for cause in causes):
            shown = {key: labels[key] for key in ("probe", "provider", "fault", "cause") if key in labels}
            wrong.append(f"false: {labels['alertname']} {shown} from {first:.2f} to {last:.2f} h")
    for hour, message in messages:
        for alert in message["alerts"]:
            if not alert["annotations"].get("runbook_url", "").endswith(f"/{alert['labels']['alertname']}.md"):
                wrong.append(f"without its runbook: {alert}")
    return lines, wrong


def tells(message, labels):
    keys = ("alertname", "instance", "provider", "probe", "fault")
    return any(alert["status"] == "firing" and all(alert["labels"].get(key) == labels.get(key) for key in keys)
               for alert in message[1]["alerts"])


def allowed(labels, first, last, begin, end, alerts):
    name = labels["alertname"]
    wanted = [(entry, also) for entry, also, _ in alerts]
    downs = {also["probe"] for entry, also in wanted if entry == "LangmartProbeDown"}
    named = any(has(labels, entry, also) for entry, also in wanted) or (name in BURNS and labels["probe"] in downs)
    return named and begin <= first and last <= end + TAILS.get(name, 0.4)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prober", required=True)
    parser.add_argument("--prometheus", default="prometheus")
    parser.add_argument("--report")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        day = Day(arguments.prober, arguments.prometheus, directory)
        try:
            day.play()
            spells, messages = day.fired(), list(day.messages)
        finally:
            day.stop()
    lines, wrong = judge(spells, messages)
    print("\n".join(lines))
    if messages:
        print(f"{len(messages)} messages of Alertmanager; the first:\n{json.dumps(messages[0][1], indent=1)}")
    if arguments.report:
        pathlib.Path(arguments.report).write_text(json.dumps({"spells": spells, "messages": messages}, indent=1))
    for line in wrong:
        print(f"FAILED: {line}")
    print(f"{len(lines)} alerts fired as scripted, {sum(line.startswith('missed') for line in wrong)} missed, "
          f"{sum(line.startswith('false') for line in wrong)} false")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
