"""Backends that fail in every way under a steady load, and the outcome of every request.

What runs
  Four stub backends that record what reaches them, the gateway with two workers, and
  `olla-loadtest mixed`: a steady rate of requests, 30 % of them event streams. One fault after
  another hits one backend after another, each for a part of its phase:

  kill      SIGKILL, and a new process on the same port at the end of the fault
  restart   SIGKILL, and a new process at once
  freeze    SIGSTOP, SIGCONT
  slow      first bytes 300 ms late
  500       responses with status 500, to health checks too
  reset     RST before the first byte, to health checks too
  cut       FIN in the middle of responses
  chunk     a broken chunk in the middle of responses
  silent    accepts, reads and never responds, to health checks neither
  drop      as if all packets were lost: no connection is established (the backlog is full), and
            those that are get no response
  busy      responds with 503 and 429 in turns, to health checks as always

Columns
  whole ... one for each outcome (`olla-loadtest mixed --help`)
  held      seconds that the fault lasted
  left      seconds from the beginning of the fault until the backend was left alone for a second
  settled   seconds from the beginning of the fault to the end of the last request it affected,
            including those that wait for a timeout of the gateway
  back      seconds from the end of the fault until its backend gets at least half of its share of
            the traffic again
  allowed   two check intervals (busy: the cool-down of 5 s) or, if longer, the wait that the
            backoff of health checks has reached by then (docs/contract/balancing.md#11) and one
            interval

Criteria, each with exit status 1
  every request ends; no response that looks whole is short or belongs to another request; no
  request that a backend had begun to respond to is sent again; outside faults (and the time they
  need to settle) every response is whole; traffic is back on every backend in the time allowed. No
  request fails that another backend could have served: under faults that leave time to notice them,
  only responses that had begun may break off. Repetitions for a status stay within the budget.
"""

import json
import signal
import time
from collections import Counter, defaultdict

from trials.cli import add_names
from trials.process import Repeating
from trials.report import finish, outcomes, print_late, table
from trials.stand import MODEL, Stand

BINARIES = ("olla", "olla-loadtest")

INTERVAL = 1.0
# Of an endpoint that responds with 503 or 429 and no Retry-After (docs/contract/balancing.md#9.1).
COOLDOWN = 5.0
HEADER_TIMEOUT = 10.0
READ_TIMEOUT = 2.0
PROXY = f"""\
connection_timeout = "1s"
response_header_timeout = "{HEADER_TIMEOUT:.0f}s"
read_timeout = "{READ_TIMEOUT:.0f}s"
"""
# Waits of the health checks in intervals, by consecutive failures from one on.
BACKOFF = [1, 2, 4, 8, 12]
BAD = {"short", "mixed-up", "overdue"}
FAULTS = [
    "kill",
    "restart",
    "freeze",
    "slow",
    "500",
    "reset",
    "cut",
    "chunk",
    "silent",
    "drop",
    "busy",
]
STUB_FAULTS = {
    "slow": {"delay_ms": 300},
    "500": {"fault": "status_500"},
    "reset": {"fault": "reset"},
    "cut": {"fault": "cut"},
    "chunk": {"fault": "bad_chunk"},
    "silent": {"fault": "hang"},
    "drop": {"fault": "drop"},
    "busy": {"fault": "busy"},
}
# The faults under which a health check finds nothing wrong.
UNSEEN = {"slow", "cut", "chunk", "restart", "busy"}
# What may become of a request under a fault that a request can be saved from.
SAVED = {
    "kill": {"broken"},
    "restart": {"broken"},
    "freeze": {"broken"},
    "slow": set(),
    "reset": set(),
    "silent": set(),
    "drop": {"broken"},
    "busy": set(),
}
# Two health checks notice a fault, each an interval after the last or at its time limit.
NOTICED_SECONDS = 4
BUDGET_PERCENT, BUDGET_FREE = 20, 10
BUDGET_SECONDS = 10


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=300, help="of load (default: 300)")
    parser.add_argument("--short", action="store_true", help="the same as --seconds 40")
    parser.add_argument("--rate", type=float, default=2000, help="requests a second (2000)")
    add_names(parser, "--faults", FAULTS)


def run(options):
    if options.short:
        options.seconds = 40
    with Stand(options, 4, workers=2, records=True) as stand:
        stand.start_all(proxy=PROXY, interval=f"{INTERVAL:.0f}s")
        return Chaos(stand, options).run()


class Stillness(Repeating):
    """Notes when this process, which has next to nothing to do, did not run for 0.3 s or more."""

    def __init__(self):
        super().__init__(0.05)
        self.found = []
        self.last = time.monotonic()

    def step(self):
        now = time.monotonic()
        if now - self.last > 0.35:
            self.found.append((self.last, now - self.last - 0.05))
        self.last = now


class Phase:
    """The time of one fault, or with no stub all the time outside faults."""

    def __init__(self, name, stub, begin):
        self.name, self.stub, self.begin, self.end = name, stub, begin, begin
        self.counts = Counter()
        self.settled = 0.0


class Chaos:
    def __init__(self, stand, options):
        self.stand, self.options = stand, options
        self.failures = []
        # When each request ended, by nonce.
        self.ends = {}
        # Outcomes other than whole outside faults, by the second the requests were due in.
        self.calm_faults = defaultdict(Counter)

    def run(self):
        file = self.stand.directory / "outcomes"
        report_file = self.stand.directory / "mixed.json"
        arguments = ["--url", f"{self.stand.url}/v1/chat/completions", "--model", MODEL]
        arguments += ["--rate", self.options.rate, "--duration", self.options.seconds]
        load = self.stand.tool("mixed", *arguments, "--outcomes", file, "--json", report_file)
        with Stillness() as stillness:
            phases = self.cause_faults()
            load.wait()
        report = json.loads(report_file.read_text())
        records = self.read_records()
        print(table(self.check_outcomes(phases, file, report, records)))
        self.check_repeats(records)
        self.check_budget(report)
        print_late(report)
        start = phases[0].begin
        for second, counts in sorted(self.calm_faults.items()):
            print(f"outside faults, {second - start:+.0f} s from the first: {dict(counts)}")
        for at, lasted in stillness.found:
            print(
                f"the machine did not run for {lasted:.2f} s, "
                f"{at - start:+.0f} s from the first fault"
            )
        self.stand.gateway.check_alive(self.failures)
        return finish(self.failures)

    def cause_faults(self):
        """Runs the phases and returns them; the times are those of the load's clock."""
        length = self.options.seconds / (len(self.options.faults) + 0.5)
        start = time.monotonic()
        phases = []
        for number, name in enumerate(self.options.faults):
            begin = start + length * (number + 0.25)
            time.sleep(max(0, begin - time.monotonic()))
            stub = self.stand.stubs[number % len(self.stand.stubs)]
            phase = Phase(name, stub, time.monotonic())
            self.begin_fault(name, stub)
            if name != "restart":
                time.sleep(max(0, phase.begin + 0.3 * length - time.monotonic()))
            phase.end = time.monotonic()
            self.end_fault(name, stub)
            phases.append(phase)
        return phases

    def begin_fault(self, name, stub):
        if name in ("kill", "restart"):
            stub.kill()
        elif name == "freeze":
            stub.signal(signal.SIGSTOP)
        else:
            stub.set_fault(**STUB_FAULTS[name])

    def end_fault(self, name, stub):
        if name in ("kill", "restart"):
            stub.start()
        elif name == "freeze":
            stub.signal(signal.SIGCONT)
        else:
            stub.set_fault()

    def read_records(self):
        """(seconds, kind, nonce, stub) of every arrival and every beginning of a response."""
        found = []
        for stub in self.stand.stubs:
            for line in stub.record.read_text().splitlines():
                kind, ns, *rest = line.split()
                if kind == "M":
                    self.failures.append(f"{stub.name} got bytes that are no request")
                elif kind in "AB" and rest[0] != "-":
                    found.append((int(ns) / 1e9, kind, rest[0], stub))
        found.sort(key=lambda entry: entry[0])
        return found

    def check_outcomes(self, phases, file, report, records):
        """Assigns every request to a phase; returns the rows of the table."""
        calm = Phase("calm", None, 0)
        for due, end, nonce, kind, outcome in outcomes(file):
            self.ends[nonce] = end
            # A fault affects what runs when it begins, and what begins before it has been noticed.
            hit = next((p for p in phases if end >= p.begin and due <= p.end + 2 * INTERVAL), calm)
            hit.counts[outcome] += 1
            if outcome in BAD:
                self.failures.append(f"{hit.name}: {outcome}: {kind} {nonce}, due {due}, end {end}")
            if outcome != "whole":
                hit.settled = max(hit.settled, end - hit.begin)
                if hit is calm:
                    self.calm_faults[int(due)][outcome] += 1
        ended = sum(phase.counts.total() for phase in [calm, *phases])
        if ended != report["requests"]:
            self.failures.append(f"{report['requests'] - ended} requests have no end")
        affected = calm.counts.total() - calm.counts["whole"]
        if affected:
            self.failures.append(f"{affected} requests outside faults were not whole")
        names = sorted({name for p in [calm, *phases] for name in p.counts} - {"whole"})
        rows = []
        for phase in [calm, *phases]:
            self.check_saved(phase)
            row = {"phase": phase.name, "whole": phase.counts["whole"]}
            row |= {name: phase.counts[name] or "" for name in names}
            rows.append(row | self.check_return(phase, records))
        return rows

    def check_saved(self, phase):
        """Checks that no request failed that another backend could have served."""
        if phase.name in SAVED and phase.end - phase.begin >= NOTICED_SECONDS:
            for outcome in phase.counts.keys() - SAVED[phase.name] - {"whole"}:
                self.failures.append(f"{phase.name}: {phase.counts[outcome]} requests {outcome}")

    def check_budget(self, report):
        """Checks how many requests were repeated because of a status."""
        page = self.stand.gateway.metrics()
        because = 'reason="status"'
        again = sum(page[name] for name in page if "olla_retries_total" in name and because in name)
        spans = self.options.seconds / BUDGET_SECONDS + 1
        allowed = BUDGET_FREE * spans + BUDGET_PERCENT / 100 * report["requests"]
        print(f"{again:.0f} repetitions for a status, {allowed:.0f} allowed")
        if again > allowed:
            self.failures.append(f"{again:.0f} repetitions for a status, {allowed:.0f} allowed")

    def check_return(self, phase, records):
        """Checks when the effects of a fault ended; returns the rest of its row."""
        if phase.stub is None:
            return dict.fromkeys(["held", "left", "settled", "back", "allowed"], "")
        held = phase.end - phase.begin
        back = self.time_until_back(phase, records)
        allowed = max(2 * INTERVAL, COOLDOWN if phase.name == "busy" else 0)
        if phase.name not in UNSEEN:
            passed, step = 0.0, 0
            while passed <= held:
                wait = BACKOFF[min(step, len(BACKOFF) - 1)] * INTERVAL
                passed, step = passed + wait, step + 1
            allowed = max(allowed, wait + INTERVAL)
        if back is None or back > allowed:
            self.failures.append(
                f"{phase.name}: traffic is back after {back} s, allowed {allowed} s"
            )
        if phase.settled > held + max(HEADER_TIMEOUT, READ_TIMEOUT) + 1:
            self.failures.append(f"{phase.name}: requests failed until {phase.settled:.1f} s")
        return {
            "held": f"{held:.1f}",
            "left": self.time_until_left(phase, records),
            "settled": f"{phase.settled:.2f}",
            "back": "never" if back is None else f"{back:.2f}",
            "allowed": f"{allowed:.0f}",
        }

    def time_until_left(self, phase, records):
        """Seconds until the backend got no request for a second, as text."""
        came = [
            at
            for at, kind, _, stub in records
            if kind == "A" and stub is phase.stub and phase.begin < at < phase.end
        ]
        last = phase.begin
        for at in [*came, phase.end]:
            if at - last >= 1:
                return f"{last - phase.begin:.2f}"
            last = at
        return "never"

    def time_until_back(self, phase, records):
        """Seconds until the backend has half of its share of the traffic, over a quarter of one."""
        window = 0.25
        enough = 0.5 * window * self.options.rate / len(self.stand.stubs)
        # A backend that was frozen wakes up to requests that ended long ago.
        came = [
            at
            for at, kind, nonce, stub in records
            if kind == "A" and stub is phase.stub and at > phase.end and self.ends[nonce] >= at
        ]
        need = max(1, int(enough))
        for first, last in zip(came, came[need - 1 :]):
            if last - first <= window:
                return first - phase.end
        return None

    def check_repeats(self, records):
        """Checks the requests that reached more than one backend."""
        begun, arrivals, bad = set(), Counter(), 0
        for _, kind, nonce, stub in records:
            if kind == "B":
                begun.add(nonce)
                continue
            arrivals[nonce] += 1
            if nonce in begun:
                bad += 1
                self.failures.append(
                    f"{nonce} was sent again, to {stub.name}, after a response had begun"
                )
        repeated = sum(count > 1 for count in arrivals.values())
        print(
            f"{repeated} requests reached two backends or more, "
            f"{bad} of them after a response had begun"
        )
