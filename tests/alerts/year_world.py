"""Simulates what probers would export in a year: usual noise, and scripted incidents.

Two probers watch the same gateway and provider, one every minute, the other every five minutes.
Three more probers, the vantage points, watch a third service with the same two probes. A step is a
minute; every series has a value or none in each minute.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

DAY = 1440
# Days before the year begins, in which the rules learn the usual speed.
WARM_UP = 15
# The first minute, as Unix time: a multiple of the 162 hours of a block.
BEGIN = 1767225600 // 583200 * 583200


@dataclass
class Incident:
    """A scripted incident, which begins at a minute and affects both probers alike."""

    name: str
    hours: float
    # Alerts of which one must report it.
    found_by: tuple[str, ...]
    # Whether every run fails, so that three intervals are enough to know.
    hard: bool = False
    # Further alerts that may page meanwhile.
    pages: tuple[str, ...] = ()
    begin: int = 0

    @property
    def end(self) -> int:
        """Returns the minute in which it is over."""
        return self.begin + round(self.hours * 60)


DOWN = ("LangmartProbeDown",)
BURNS = ("LangmartErrorBudgetBurnFast", "LangmartErrorBudgetBurn")
INCIDENTS = (
    Incident("key revoked", 4, ("LangmartKeyRejected",), True),
    Incident("provider slow by 1.3", 8, ("LangmartSlowFirstToken",)),
    Incident("stored key revoked", 4, ("LangmartStoredKeyRejected",), True, pages=DOWN),
    Incident("billing", 6, ("LangmartBilling",), True),
    Incident("gateway slow", 6, ("LangmartGatewayOverheadHigh", "LangmartSlowFirstToken")),
    Incident("429 storm", 3, ("LangmartRateLimited", "LangmartRateLimitedForLong"), True),
    Incident("regional DNS failure", 2, DOWN, True),
    Incident("half speed", 6, ("LangmartSlowOutput",)),
    Incident("gateway down", 1.5, DOWN, True),
    Incident("model swapped", 12, ("LangmartWrongModel",)),
    Incident("provider slow by 2", 6, ("LangmartSlowFirstToken",)),
    Incident(
        "wrong answers in 16 % of runs",
        12,
        ("LangmartWrongAnswer", *BURNS),
        pages=(*BURNS, *DOWN),
    ),
    Incident("buffering proxy", 24, ("LangmartStreamBuffered",)),
    Incident("status page late", 2, DOWN, True),
    Incident("prober offline", 1, ("LangmartProberOffline",), True),
    Incident("one of three probers blind", 8, ("LangmartQuorumNotReached",), True),
    Incident("disk hung", 2, ("LangmartProberWriterBlocked",), True),
    Incident("clock off", 6, ("LangmartProberClockSkew",)),
    Incident("quota reached", 8, ("LangmartRateLimitedForLong",), True),
    Incident("model retired", 24, ("LangmartProbeRefused",), True),
    Incident(
        "certificate expiry",
        24 * 15,
        ("LangmartCertificateEndsIn21Days",),
        pages=("LangmartCertificateExpiringSoon",),
    ),
)


def place(incidents: tuple[Incident, ...], days: int, chance: random.Random) -> None:
    """Spreads the incidents over the year, each in its own part of it."""
    part = days * DAY / max(1, len(incidents))
    begin = WARM_UP * DAY
    for number, incident in enumerate(incidents):
        room = max(0.0, part - incident.hours * 60 - 0.2 * part)
        incident.begin = begin + round(number * part + 0.1 * part + chance.random() * room)


@dataclass
class Run:
    """One run of a probe: its verdict and its findings."""

    reason: str = "ok"
    fault: str = "none"
    first_token: float = 0.0
    token: float = 0.0
    matches: bool = True
    buffered: bool = False
    # Seconds for which the service asks to wait.
    wait: float = 0.0


class Noise:
    """The background of a provider: slow hours, short 429s; all from one seed."""

    def __init__(self, seed: str, minutes: int) -> None:
        """Draws the year's events."""
        chance = random.Random(seed)
        years = minutes / (365 * DAY)
        self.slow = self.spans(chance, minutes, 20 * years, 30, 90, 1.2, 1.6)
        self.limited = self.spans(chance, minutes, 12 * years, 2, 5, 0.7, 0.7)

    @staticmethod
    def spans(
        chance: random.Random,
        minutes: int,
        count: float,
        low: int,
        high: int,
        least: float,
        most: float,
    ) -> dict[int, float]:
        """Returns a strength for each minute in events of random length."""
        found: dict[int, float] = {}
        for _ in range(round(count)):
            begin, length = chance.randrange(minutes), chance.randint(low, high)
            strength = chance.uniform(least, most)
            found.update(dict.fromkeys(range(begin, begin + length), strength))
        return found


def season(minute: int) -> float:
    """Returns how busy the services are: by hour of the day, on weekends, and over the year."""
    hour = minute / 60 % 24
    weekend = 0.9 if minute // DAY % 7 >= 5 else 1.0
    drift = 1 + 0.1 * math.sin(minute / (90 * DAY) * 2 * math.pi)
    return weekend * drift * (1 + 0.3 * math.sin((hour - 9) / 24 * 2 * math.pi))


FAILURES = (
    ("server_error", "provider"),
    ("gateway_timeout", "provider"),
    ("rate_limited", "caller"),
    ("wrong_answer", "provider"),
)


SPEED = (
    "langmart_probe_time_to_first_token_seconds_count",
    "langmart_probe_time_per_output_token_seconds_sum",
    "langmart_probe_time_per_output_token_seconds_count",
)


class Probe:
    """A probe of one prober: when it runs, and what it exports."""

    def __init__(
        self, prober: "Prober", name: str, provider: str, every: int, gateway: bool
    ) -> None:
        """Creates a probe that has not run."""
        self.prober, self.name, self.provider, self.every = prober, name, provider, every
        self.gateway = gateway
        self.chance = random.Random(f"{prober.seed} {prober.instance} {name}")
        self.phase = self.chance.randrange(every)
        self.labels = f'probe="{name}",provider="{provider}",check="stream",model="m"'
        self.next = self.phase
        self.failed_waits = 0
        self.restart()

    def restart(self) -> None:
        """Forgets counters and the last run, as a restart does."""
        self.counters: dict[str, float] = {
            "langmart_probe_runs_total": 0,
            'langmart_probe_failures_total{reason="server_error",fault="provider"}': 0,
        }
        if not self.prober.vantage:
            self.counters |= dict.fromkeys(SPEED, 0.0)
        self.last: Run | None = None
        self.last_at = self.same = self.down = 0

    def usual(self, minute: int, noise: Noise) -> Run:
        """Returns a run without incidents."""
        chance = self.chance
        run = Run(token=0.02 * math.exp(chance.gauss(0, 0.12)) * season(minute) ** 0.5)
        run.first_token = (
            0.4 * season(minute) * noise.slow.get(minute, 1.0) * math.exp(chance.gauss(0, 0.25))
        )
        run.first_token += 0.05 * math.exp(chance.gauss(0, 0.3)) * self.gateway
        if chance.random() < 0.01:
            run.first_token *= chance.uniform(3, 6)
        if chance.random() < 0.001:
            run.reason, run.fault = chance.choice(FAILURES)
        elif chance.random() < noise.limited.get(minute, 0.0):
            run.reason, run.fault = "rate_limited", "caller"
        return run

    def advance(self, minute: int, noise: Noise, change: Callable[["Probe", Run], None]) -> bool:
        """Runs if it is due, and returns whether it did."""
        if minute < self.next:
            return False
        run = self.usual(minute, noise)
        change(self, run)
        self.finish(run, minute)
        waits = run.reason in ("rate_limited", "billing")
        self.failed_waits = self.failed_waits + 1 if waits else 0
        pause = (
            max(run.wait / 60, min(60, self.every * 2**self.failed_waits)) if waits else self.every
        )
        self.next = minute + math.ceil(pause / self.every) * self.every
        return True

    def finish(self, run: Run, minute: int) -> None:
        """Counts a run."""
        add = self.count
        add("langmart_probe_runs_total")
        if run.reason == "ok":
            self.same = self.down = 0
        if run.reason == "ok" and not self.prober.vantage:
            add("langmart_probe_time_to_first_token_seconds_count")
            if run.buffered:
                add("langmart_probe_buffered_streams_total")
            else:
                add("langmart_probe_time_per_output_token_seconds_sum", run.token)
                add("langmart_probe_time_per_output_token_seconds_count")
            if not run.matches:
                add("langmart_probe_model_mismatches_total")
        elif run.reason != "ok":
            add(f'langmart_probe_failures_total{{reason="{run.reason}",fault="{run.fault}"}}')
            alike = self.last and (self.last.reason, self.last.fault) == (run.reason, run.fault)
            self.same = self.same + 1 if alike else 1
            self.down = self.down + 1 if run.fault in ("gateway", "provider", "network") else 0
        self.last, self.last_at = run, minute

    def count(self, name: str, by: float = 1) -> None:
        """Adds to a counter."""
        self.counters[name] = self.counters.get(name, 0) + by

    def export(self) -> Iterator[tuple[str, float]]:
        """Yields names with labels, and values."""
        yield from self.counters.items()
        yield "langmart_probe_interval_seconds", 60 * self.every
        run = self.last
        if run is None:
            return
        yield 'langmart_probe_last_run_fault{fault="provider"}', int(run.fault == "provider")
        if run.fault in ("gateway", "network"):
            yield f'langmart_probe_last_run_fault{{fault="{run.fault}"}}', 1
        yield "langmart_probe_consecutive_down_runs", self.down
        if self.prober.vantage:
            return
        yield "langmart_probe_last_run_timestamp_seconds", BEGIN + 60 * self.last_at
        if run.reason == "ok":
            yield "langmart_probe_last_time_to_first_token_seconds", round(run.first_token, 4)
        else:
            verdict = f'{{reason="{run.reason}",fault="{run.fault}"}}'
            yield f"langmart_probe_consecutive_failures{verdict}", self.same
        if self.failed_waits:
            yield "langmart_probe_backoff_until_timestamp_seconds", BEGIN + 60 * self.next
        yield "langmart_probe_answered_model_match", int(run.matches)
        yield "langmart_probe_stream_buffered", int(run.buffered)


class Prober:
    """A daemon with its probes; it restarts, and scrapes of it fail, now and then."""

    def __init__(self, seed: int, instance: str, minutes: int) -> None:
        """Draws the year's restarts and gaps."""
        self.seed, self.instance, self.probes = seed, instance, list[Probe]()
        self.vantage = len(instance) == 1
        self.keys: dict[tuple[str, str], str] = {}
        chance = random.Random(f"{seed} {instance}")
        years = minutes / (365 * DAY)
        self.restarts = {chance.randrange(minutes) for _ in range(round(24 * years))}
        self.unscraped, self.unseen = set[int](), set[int]()
        for _ in range(round(24 * years)):
            begin = chance.randrange(minutes)
            self.unscraped.update(range(begin, begin + chance.randint(1, 2)))
        for _ in range(round(12 * years)):
            begin = chance.randrange(minutes)
            self.unseen.update(range(begin, begin + chance.randint(1, 5)))
        # The prober's own uplink fails for one run.
        self.blips = {chance.randrange(minutes) for _ in range(round(12 * years))}
        self.started = 0
        self.pair: dict[str, float] = {}

    def compare(self, gateway: Run | None, direct: Run | None) -> None:
        """Counts a pair of runs."""
        if not gateway or not direct or not gateway.reason == direct.reason == "ok":
            return
        for name, value in (
            ("langmart_comparison_pairs_total", 1.0),
            ("langmart_comparison_gateway_seconds_total", gateway.first_token + 0.8),
            ("langmart_comparison_direct_seconds_total", direct.first_token + 0.8),
        ):
            self.pair[name] = self.pair.get(name, 0) + value


class World:
    """All probers, with the incidents of a year."""

    def __init__(self, seed: int, days: int, incidents: tuple[Incident, ...]) -> None:
        """Creates the probers, and draws all events.

        Each prober depends on the seed and its name alone, so that they can be played one by one.
        """
        self.minutes = (WARM_UP + days) * DAY
        self.incidents = incidents
        place(incidents, days, random.Random(f"{seed} incidents"))
        self.noise = {
            name: Noise(f"{seed} {name}", self.minutes) for name in ("langmart", "openai", "acme")
        }
        self.probers = list[Prober]()
        for every in (1, 5):
            prober = Prober(seed, f"{every}m", self.minutes)
            for provider in ("langmart", "openai"):
                gateway = provider == "langmart"
                prober.probes.append(
                    Probe(prober, f"{provider}-{every}m", f"{provider}-{every}m", every, gateway)
                )
            prober.probes[1].phase = prober.probes[1].next = prober.probes[0].phase
            self.probers.append(prober)
        for instance in ("a", "b", "c"):
            prober = Prober(seed, instance, self.minutes)
            prober.probes = [
                Probe(prober, f"acme-{every}m", "acme", every, False) for every in (1, 5)
            ]
            self.probers.append(prober)

    def play(self, prober: Prober) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields each minute with the samples of a prober."""
        for minute in range(self.minutes):
            current = [one for one in self.incidents if one.begin <= minute < one.end]
            samples: dict[str, float] = {}
            self.step(prober, minute, current, samples)
            yield minute, samples

    def step(
        self, prober: Prober, minute: int, current: list[Incident], samples: dict[str, float]
    ) -> None:
        """Advances a prober by a minute, and scrapes it."""
        if minute in prober.restarts:
            prober.started = minute
            prober.pair = {}
            for probe in prober.probes:
                probe.restart()
        blip = minute in prober.blips

        def change(probe: Probe, run: Run) -> None:
            for incident in current:
                affect(incident, minute, probe, run)
            if blip:
                run.reason, run.fault = "connect", "network"

        ran = False
        for probe in prober.probes:
            noise = self.noise[probe.provider.split("-")[0]]
            ran |= probe.advance(minute, noise, change)
        if ran and not prober.vantage:
            prober.compare(prober.probes[0].last, prober.probes[1].last)
        if minute not in prober.unseen:
            scrape(prober, minute, current, samples)


def affect(incident: Incident, minute: int, probe: Probe, run: Run) -> None:
    """Changes a run as an incident does."""
    service, name = probe.provider.split("-")[0], incident.name
    # Incidents of the prober's own network come first.
    if name == "one of three probers blind":
        if probe.prober.instance == "b":
            run.reason, run.fault = "connect", "network"
        return
    if service == "acme":
        return
    if name == "prober offline":
        run.reason, run.fault = "dns", "network"
        return
    verdicts = {
        "key revoked": ("langmart", "auth_failed", "caller"),
        "stored key revoked": ("langmart", "auth_failed", "provider"),
        "regional DNS failure": ("langmart", "dns", "network"),
        "gateway down": ("langmart", "unavailable", "gateway"),
        "billing": ("openai", "billing", "caller"),
        "429 storm": ("openai", "rate_limited", "caller"),
        "status page late": ("openai", "server_error", "provider"),
        "quota reached": ("openai", "rate_limited", "caller"),
        "model retired": ("openai", "model_not_found", "caller"),
    }
    if name in verdicts:
        if service == verdicts[name][0]:
            run.reason, run.fault = verdicts[name][1:]
            run.wait = 6 * 3600 if name == "quota reached" else 0
    elif name.startswith("provider slow by "):
        run.first_token *= float(name.split()[-1])
    elif name == "half speed":
        run.token *= 2
    elif service == "langmart":
        affect_gateway(name, probe, run)


def affect_gateway(name: str, probe: Probe, run: Run) -> None:
    """Changes a run through the gateway."""
    if name == "gateway slow":
        run.first_token += 1.0
    elif name == "model swapped":
        run.matches = False
    elif name == "buffering proxy":
        run.buffered = True
    elif name == "wrong answers in 16 % of runs" and probe.chance.random() < 0.16:
        run.reason, run.fault = "wrong_answer", "gateway"


def scrape(prober: Prober, minute: int, current: list[Incident], samples: dict[str, float]) -> None:
    """Adds the samples of a scrape."""
    target = f'job="langmart-prober",instance="{prober.instance}"'
    up = minute not in prober.unscraped and minute not in prober.restarts
    samples[f"up{{{target}}}"] = int(up)
    if not up:
        return

    def put(name: str, value: float, labels: str = "") -> None:
        key = prober.keys.get((name, labels))
        if key is None:
            base, _, more = name.partition("{")
            inside = ",".join(part for part in (target, labels, more.rstrip("}")) if part)
            key = prober.keys[name, labels] = f"{base}{{{inside}}}"
        samples[key] = value

    for probe in prober.probes:
        for name, value in probe.export():
            put(name, value, probe.labels)
    if prober.vantage:
        return
    put("langmart_prober_build_info", 1, 'version="v"')
    put("process_start_time_seconds", BEGIN + 60 * prober.started)
    for name, value in prober.pair.items():
        put(name, value, 'comparison="c"')
    runs = [probe.last for probe in prober.probes if probe.last]
    offline = len(runs) == 2 and all(run.fault == "network" for run in runs)
    put("langmart_prober_offline", int(offline))
    names = {incident.name: incident for incident in current}
    hung = names.get("disk hung")
    blocked = 60 * (minute - hung.begin) if hung else 0
    put("langmart_prober_log_write_in_progress_seconds", blocked, 'file="results"')
    labels = prober.probes[1].labels
    put("langmart_probe_clock_offset_seconds", -30 if "clock off" in names else 0, labels)
    expiry = names.get("certificate expiry")
    left = 21 * DAY - (minute - expiry.begin) if expiry else 60 * DAY
    not_after = BEGIN + 60 * (minute + left)
    put("langmart_probe_tls_certificate_not_after_timestamp_seconds", not_after, labels)
    late = names.get("status page late")
    announced = bool(late and minute >= late.begin + 40)
    put("langmart_probe_status_page_indicator", int(announced), f'{labels},indicator="major"')
