"""The scenarios of `compare`, and how one target is measured in one of them.

Times are in microseconds, memory in bytes.
"""

import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field

from trials.process import (
    MemoryWatch,
    NotReady,
    get_json,
    pinned,
    proportional_bytes,
    stop,
    wait_until,
)
from trials.proxies import MODEL, QUIET, Setup, clients_max, with_key

PLAIN, TLS, TWO = Setup(), Setup(tls=True), Setup(workers=2)
BARE = frozenset({"direct", "relay", "relay-epoll"})
# Targets that differ from `olla` in what these scenarios do not depend on much.
VARIANTS = frozenset({QUIET, "olla-epoll"})
SMALL = ["--body-bytes", "300"]
MANY = ["--connections", "64", *SMALL]
STEADY, STEADY_SHARE = "chat-64-steady", 0.7
PEAK = "chat-64"
# As many as fit, at most and at least; with TLS the least, since each costs a handshake.
IDLE_MOST, IDLE_LEAST = 10_000, 3_000
STREAMS_MOST, STREAMS_LEAST = 5_000, 1_500
# A stream of the memory scenarios: events a second apart, so that all are open for a while.
SLOW = {"events": 4, "gap_ms": 1000, "ramp_ms": 1500}
SAMPLES, SAMPLE_PAUSE = 4, 0.2
# Before memory is read: freed memory is given back, and pages of work just done are cold.
SETTLE_SECONDS = 1.0
# From the end of the last stream to the reading of what is left.
AFTER_SECONDS = 2.0


@dataclass(frozen=True)
class Scenario:
    """One row of the comparison.

    `kind` is `load` (processor time and latency), `idle` or `streams` (memory); `tool` and
    `arguments` are those of the load client, `counted` is what processor time is divided by.
    The targets of `without` cannot take part; those of `spared` do only when they are asked for.
    """

    kind: str
    tool: str
    arguments: tuple
    counted: str
    setup: Setup = PLAIN
    without: frozenset = frozenset()
    spared: frozenset = frozenset()
    # In place of the option --seconds.
    seconds: float | None = None

    @property
    def is_memory(self):
        return self.kind != "load"

    def takes(self, target, asked_for):
        """Whether a target of this name takes part; `asked_for` are those of --targets."""
        return target not in self.without and (target in asked_for or target not in self.spared)


@dataclass
class Round:
    """What one round has found so far."""

    number: int
    # Requests a second in PEAK by target.
    peaks: dict = field(default_factory=dict)


def chat(*arguments, **more):
    return Scenario("load", "chat", arguments, "request", **more)


def sse(streams, gap_ms, *arguments, **more):
    arguments = ("--streams", streams, "--gap-ms", gap_ms, "--ramp-ms", 500, *arguments)
    return Scenario("load", "sse", arguments, "event", **more)


def memory(kind, setup):
    counted = {"idle": "connection", "streams": "stream"}[kind]
    return Scenario(kind, "", (), counted, setup, without=BARE, spared=VARIANTS)


# In this order; neighbours with the same setup share the processes, except those about memory.
SCENARIOS = {
    "idle": memory("idle", PLAIN),
    "streams": memory("streams", PLAIN),
    "tls-idle": memory("idle", TLS),
    "tls-streams": memory("streams", TLS),
    # Before the large bodies, which blur the memory of streams.
    "sse": sse(500, 50),
    "chat-1": chat("--connections", 1, *SMALL),
    "chat-64": chat(*MANY),
    STEADY: chat(*MANY, spared=BARE),
    "sse-100k": sse(10, 20, spared=BARE | VARIANTS, seconds=10),
    "prompt-100k": chat("--connections", 16, "--body-bytes", 100_000),
    "prompt-1m": chat("--connections", 8, "--body-bytes", 1_000_000),
    "tls-chat-64": chat(*MANY, setup=TLS, without=BARE),
    "tls-handshake": chat(
        "--connections", 16, *SMALL, "--header", "Connection: close", setup=TLS, without=BARE
    ),
    "two-workers": chat(*MANY, setup=TWO, without=BARE),
}
LONG_EVENT_BYTES = 100_000


def counts(settings):
    """How many connections and streams the memory scenarios hold, by name."""
    fit = clients_max()
    found = {}
    for name, scenario in SCENARIOS.items():
        if not scenario.is_memory:
            continue
        idle = scenario.kind == "idle"
        most, least = (IDLE_MOST, IDLE_LEAST) if idle else (STREAMS_MOST, STREAMS_LEAST)
        wanted = settings.idle if idle else settings.open_streams
        found[name] = min(wanted or (least if scenario.setup.tls else most), fit)
    return found


def fewer_than_wanted(found):
    """The scenarios that are smaller than they should be, for lack of descriptors or by option."""
    least = {"idle": IDLE_LEAST, "streams": STREAMS_LEAST}
    return [name for name, count in found.items() if count < least[SCENARIOS[name].kind]]


def measure(fleet, target, name, settings, this):
    """One scenario on one target: a sample, which has a `report` of the load client at least."""
    scenario = SCENARIOS[name]
    sample = {"round": this.number, "target": target.name, "scenario": name, "ok": False}
    try:
        if scenario.kind == "load":
            sample |= measure_load(target, name, settings, this)
        else:
            held = {"idle": measure_idle, "streams": measure_streams}[scenario.kind]
            sample |= held(fleet, target, settings.counts[name], settings)
    except NotReady as reason:
        sample["report"] = str(reason)
    return sample


# ---- Processor time and latency ----


def measure_load(target, name, settings, this):
    scenario = SCENARIOS[name]
    seconds = scenario.seconds or settings.seconds
    options = list(scenario.arguments)
    if scenario.tool == "sse":
        gap_ms = options[options.index("--gap-ms") + 1]
        events = max(2, round(seconds * 1000 / gap_ms))
        options += ["--events", events]
        if name == "sse-100k":
            ask = {"events": events, "gap_ms": gap_ms, "event_bytes": LONG_EVENT_BYTES}
            options += ["--stub", json.dumps(ask)]
    else:
        options += ["--duration", seconds, "--nonce"]
    if name == STEADY:
        options += ["--rate", steady_rate(this)]
    before = target.cpu_seconds()
    began = time.monotonic()
    with MemoryWatch(target.process, 0.1) as watch:
        report, ended_well = run_client(settings, target, scenario.tool, options, seconds + 60)
    spent = target.cpu_seconds() - before
    wall = time.monotonic() - began
    sample = {"ok": False, "report": report}
    if not report:
        return sample
    sample |= numbers(scenario.tool, report)
    sample["ok"] = ended_well and is_whole(report)
    if target.process:
        if sample["count"]:
            sample["cpu_us"] = spent * 1e6 / sample["count"]
        sample["cpu_share"] = spent / wall
        sample["rss_idle"] = watch.before
        sample["rss_load"] = watch.peak
    if name == PEAK:
        this.peaks[target.name] = sample["rate"]
    return sample


def steady_rate(this):
    """The rate of STEADY, the same for all: a share of the least of the proxies' highest rates.

    So every target has the same work to do, and none more than it can.
    """
    peaks = [rate for target, rate in this.peaks.items() if target not in BARE]
    return round(STEADY_SHARE * min(peaks or this.peaks.values()), 1)


def client_command(settings, target, tool, options):
    """The command of a load client that reports on its standard output."""
    command = [settings.loadtest_bin, tool, "--url", target.url, "--model", MODEL, "--json", "-"]
    return pinned(settings.load_cpu, [*command, *options, *with_key()])


def run_client(settings, target, tool, options, seconds_max):
    """Runs a load client; its report, none without one, and whether it ended with status 0."""
    command = client_command(settings, target, tool, options)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        try:
            output, _ = client.communicate(timeout=seconds_max)
        except subprocess.TimeoutExpired:
            client.kill()
            output = b""
    return (json.loads(output) if output else None), client.returncode == 0


def is_whole(report):
    """Whether every request got what it should."""
    answered = not report["failures"] and set(report["statuses"]) == {"200"}
    return answered and not report.get("unsent")


def numbers(tool, report):
    if tool == "sse":
        count, rate, times = report["events"], report["events_per_second"], report["delay_us"]
        first = report["first_event_us"] or {}
        more = {"first_p50": first.get("p50"), "first_p99": first.get("p99")}
    else:
        count, rate, times = report["answers"], report["answers_per_second"], report["latency_us"]
        more = {}
    times = times or {}
    return {"count": count, "rate": rate, **more} | {
        name: times.get(name) for name in ("p50", "p99", "p999")
    }


# ---- Memory ----


def warm_up(settings, target):
    """Some requests and streams, so that code and tables are in memory, then a pause.

    There are far fewer at a time than will be held: what is measured is the first time that a
    process has so many.
    """
    chats = [*MANY, "--requests", 5000]
    streams = ["--streams", 64, "--events", 5, "--gap-ms", 20, "--ramp-ms", 100]
    for tool, options in (("chat", chats), ("sse", streams)):
        run_client(settings, target, tool, options, 60)
    time.sleep(SETTLE_SECONDS)


def memory_of(target):
    """The median of a few readings."""
    readings = []
    for _ in range(SAMPLES):
        readings.append(proportional_bytes(target.process))
        time.sleep(SAMPLE_PAUSE)
    return statistics.median(readings)


def measure_idle(_fleet, target, count, settings):
    warm_up(settings, target)
    before = memory_of(target)
    command = client_command(settings, target, "idle", ["--connections", count])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as client:
        try:
            # Every request has a time limit, so the line comes in any case.
            client.stdout.readline()
            time.sleep(SETTLE_SECONDS)
            held = memory_of(target)
            output, _ = client.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            client.kill()
            output = b""
    report = json.loads(output) if output else None
    ok = bool(report) and client.returncode == 0
    return {"ok": ok, "report": report, **growth(count, before, held)}


def measure_streams(fleet, target, count, settings):
    warm_up(settings, target)
    before = memory_of(target)
    options = ["--streams", count, "--timeout-ms", 20_000]
    for key, number in SLOW.items():
        options += [f"--{key.replace('_', '-')}", number]
    client = subprocess.Popen(
        client_command(settings, target, "sse", options), stdout=subprocess.PIPE
    )
    try:
        held = memory_while_open(fleet, target, count)
        output, _ = client.communicate(timeout=60)
    except subprocess.TimeoutExpired as error:
        raise NotReady("the streams do not end") from error
    finally:
        stop(client)
    time.sleep(AFTER_SECONDS)
    after = memory_of(target)
    report = json.loads(output) if output else None
    ok = bool(report) and client.returncode == 0 and is_whole(report)
    more = {"after": after, "after_share": after / before}
    return {"ok": ok, "report": report, **growth(count, before, held), **more}


def memory_while_open(fleet, target, count):
    """The memory while all streams are open, as the stub sees it before and after."""
    url = f"http://{fleet.stub}"

    def open_streams():
        return get_json(url, "/stub/counters")["streams_in_flight"]

    wait_until(f"never {count} streams at once", lambda: open_streams() >= count)
    held = memory_of(target)
    if open_streams() < count:
        raise NotReady("streams ended while memory was read")
    return held


def growth(count, before, held):
    return {"count": count, "before": before, "held": held, "each": (held - before) / count}
