#!/usr/bin/env python3
"""Backends that fail in every way under a steady load, and what became of every single request."""

import argparse
import json
import signal
import sys
import threading
import time
from collections import Counter, defaultdict

from stand import Stand, add_binaries, table

HELP = """\
What runs
  Four stub backends that record what reaches them, the gateway with two workers, and
  `olla-loadtest mixed`: a steady rate of requests, 30 % of them event streams. One fault after
  another hits one backend after another, each for a part of its phase:

  kill      SIGKILL, and a new process on the same port at the end of the fault
  restart   SIGKILL, and a new process at once
  freeze    SIGSTOP, SIGCONT
  slow      first bytes 300 ms late
  500       answers with status 500, health checks too
  reset     RST before the first byte, health checks too
  cut       FIN in the middle of answers
  chunk     a broken chunk in the middle of answers
  silent    accepts, reads and never answers, health checks too

Columns
  whole ... one for each outcome (`olla-loadtest mixed --help`)
  settled   seconds from the fault's beginning to the end of the last request it spoilt; those that
            must wait for a timeout of the gateway included
  back      seconds from the fault's end until the backend that had it gets its share of the
            traffic again, at least half of it
  allowed   two check intervals, or what is longer: the wait that the health checks' backoff has
            reached by then (contract: balancing 11) and one interval

Criteria, each with its exit status 1
  every request ends; none of the answers that look whole is short or another's; no request that a
  backend had begun to answer is sent again; outside faults (and the time they need to settle)
  every answer is whole; traffic is back on every backend in the time allowed.
"""

INTERVAL = 1.0
HEADER_TIMEOUT = 1.0
READ_TIMEOUT = 2.0
PROXY = f"""\
connection_timeout = "1s"
response_header_timeout = "{HEADER_TIMEOUT:.0f}s"
read_timeout = "{READ_TIMEOUT:.0f}s"
"""
# Waits of the health checks in intervals, by consecutive failures from one on.
BACKOFF = [1, 2, 4, 8, 12]
BAD = {"short", "mixed-up", "overdue"}
FAULTS = ["kill", "restart", "freeze", "slow", "500", "reset", "cut", "chunk", "silent"]
STUB_FAULTS = {
    "slow": {"delay_ms": 300}, "500": {"fault": "status_500"}, "reset": {"fault": "reset"},
    "cut": {"fault": "cut"}, "chunk": {"fault": "bad_chunk"}, "silent": {"fault": "hang"},
}
# The faults under which a health check finds nothing wrong.
UNSEEN = {"slow", "cut", "chunk", "restart"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_binaries(parser)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--short", action="store_true", help="40 seconds: for checks")
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--faults", default=",".join(FAULTS), help="comma-separated")
    options = parser.parse_args()
    if options.short:
        options.seconds = 40
    with Stand(options, 4, workers=2, records=True) as stand:
        stand.start(proxy=PROXY, interval=f"{INTERVAL:.0f}s")
        sys.exit(Run(stand, options).all())


class Stillness:
    """Notes when this process, which has next to nothing to do, was not run for 0.3 s or more."""

    def __init__(self):
        self.found = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def run(self):
        before = time.monotonic()
        while not self.over.wait(0.05):
            now = time.monotonic()
            if now - before > 0.35:
                self.found.append((before, now - before - 0.05))
            before = now

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Phase:
    def __init__(self, name, stub, begin):
        self.name, self.stub, self.begin, self.end = name, stub, begin, begin
        self.until = begin
        self.counts = Counter()
        self.settled = 0.0


class Run:
    def __init__(self, stand, options):
        self.stand, self.options = stand, options
        self.faults = options.faults.split(",")
        self.failures = []
        # When each request ended, by nonce.
        self.ends = {}
        # Outcomes but whole ones outside faults, by the second they were due in.
        self.spoilt_calm = defaultdict(Counter)

    def all(self):
        outcomes = self.stand.directory / "outcomes"
        report = self.stand.directory / "mixed.json"
        load = self.stand.tool(
            "mixed", "--url", f"{self.stand.url}/v1/chat/completions", "--model", "stub-model",
            "--rate", self.options.rate, "--duration", self.options.seconds,
            "--outcomes", outcomes, "--json", report)
        with Stillness() as stillness:
            phases = self.make_trouble()
            load.wait()
        told = json.loads(report.read_text())
        records = self.read_records()
        rows = self.judge(phases, outcomes, told, records)
        print(table(rows, list(rows[0])))
        self.judge_repeats(records)
        late = 100 * told["late"] / max(told["requests"], 1)
        print(f"{told['requests']} requests, {late:.2f} % sent more than 50 ms late by the load itself")
        start = phases[0].begin if phases else 0
        for second, counts in sorted(self.spoilt_calm.items()):
            print(f"outside faults, {second - start:+.0f} s from the first: {dict(counts)}")
        for at, lasted in stillness.found:
            print(f"the machine stood still for {lasted:.2f} s, {at - start:+.0f} s from the first fault")
        if not self.stand.is_alive():
            self.failures.append(f"the gateway ended:\n{self.stand.log_tail()}")
        for failure in self.failures:
            print(f"FAILED {failure}")
        print(f"{len(self.failures)} failures")
        return 1 if self.failures else 0

    def make_trouble(self):
        """Lives through the phases; the times are those of the load's clock."""
        length = self.options.seconds / (len(self.faults) + 0.5)
        start = time.monotonic()
        phases = []
        for number, name in enumerate(self.faults):
            begin = start + length * (number + 0.25)
            time.sleep(max(0, begin - time.monotonic()))
            stub = self.stand.stubs[number % len(self.stand.stubs)]
            phase = Phase(name, stub, time.monotonic())
            self.begin_fault(name, stub)
            if name != "restart":
                time.sleep(max(0, phase.begin + 0.3 * length - time.monotonic()))
            phase.end = time.monotonic()
            self.end_fault(name, stub)
            phase.until = begin + length
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
        """(seconds, kind, nonce, stub) of every arrival and every beginning of an answer."""
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

    def judge(self, phases, outcomes, told, records):
        calm = Phase("calm", None, 0)
        ended = 0
        patience = max(HEADER_TIMEOUT, READ_TIMEOUT) + 1
        for line in outcomes.read_text().splitlines():
            due, end, nonce, _, outcome = line.split()
            self.ends[nonce] = int(end) / 1e9
            due, end, ended = int(due) / 1e9, int(end) / 1e9, ended + 1
            # A fault spoils what runs when it begins, and what begins before it has been noticed.
            hit = next((p for p in phases if end >= p.begin and due <= p.end + 2 * INTERVAL), calm)
            hit.counts[outcome] += 1
            if hit is calm and outcome != "whole":
                self.spoilt_calm[int(due)][outcome] += 1
            if outcome in BAD:
                self.failures.append(f"{hit.name}: {line}")
            if outcome != "whole":
                hit.settled = max(hit.settled, end - hit.begin)
        if ended != told["requests"]:
            self.failures.append(f"{told['requests'] - ended} requests have no end")
        spoilt = calm.counts.total() - calm.counts["whole"]
        if spoilt:
            self.failures.append(f"{spoilt} requests outside faults were not whole")
        names = sorted({name for p in [calm, *phases] for name in p.counts} - {"whole"})
        rows = []
        for phase in [calm, *phases]:
            row = {"phase": phase.name, "whole": phase.counts["whole"]}
            row |= {name: phase.counts[name] or "" for name in names}
            rows.append(row | self.judge_return(phase, records, patience))
        return rows

    def judge_return(self, phase, records, patience):
        if phase.stub is None:
            return {"held": "", "settled": "", "back": "", "allowed": ""}
        held = phase.end - phase.begin
        back = self.time_until_back(phase, records)
        allowed = 2 * INTERVAL
        if phase.name not in UNSEEN:
            passed, step = 0.0, 0
            while passed <= held:
                wait = BACKOFF[min(step, len(BACKOFF) - 1)] * INTERVAL
                passed, step = passed + wait, step + 1
            allowed = max(allowed, wait + INTERVAL)
        if back is None or back > allowed:
            self.failures.append(f"{phase.name}: traffic is back after {back} s, allowed {allowed} s")
        if phase.settled > held + patience:
            self.failures.append(f"{phase.name}: requests were spoilt until {phase.settled:.1f} s")
        shown = "never" if back is None else f"{back:.2f}"
        return {"held": f"{held:.1f}", "settled": f"{phase.settled:.2f}", "back": shown,
                "allowed": f"{allowed:.0f}"}

    def time_until_back(self, phase, records):
        """Seconds until the backend has half of its share of the traffic, over a quarter of one."""
        window = 0.25
        enough = 0.5 * window * self.options.rate / len(self.stand.stubs)
        # What a frozen backend wakes up to are requests that have ended long ago.
        came = [at for at, kind, nonce, stub in records
                if kind == "A" and stub is phase.stub and at > phase.end and self.ends[nonce] >= at]
        need = max(1, int(enough))
        for first, last in zip(came, came[need - 1:]):
            if last - first <= window:
                return first - phase.end
        return None

    def judge_repeats(self, records):
        """What the backends saw twice."""
        begun, arrivals, bad = set(), defaultdict(int), 0
        for _, kind, nonce, stub in records:
            if kind == "B":
                begun.add(nonce)
                continue
            arrivals[nonce] += 1
            if nonce in begun:
                bad += 1
                self.failures.append(f"{nonce} sent again, to {stub.name}, after an answer had begun")
        repeated = sum(count > 1 for count in arrivals.values())
        print(f"{repeated} requests reached two backends or more, {bad} of them after an answer had begun")


if __name__ == "__main__":
    main()
