"""Hostile clients beside ordinary ones: what reaches a backend, and what it costs the others.

What runs
  A stub backend that records every request it gets, the gateway with one worker in front of it,
  an ordinary client with a fixed rate, and one attack after another (`olla-loadtest hostile`).
  The gateway has a processor of its own; the attackers share the other with the stub and the
  ordinary client and run only when these do not: the trial measures the gateway, not the wait for
  the attackers' processor.

Columns
  sent ... open   as `olla-loadtest hostile --help` says
  reached         requests of the attack that reached the backend; all must be well-formed
  RSS             resident memory of the gateway in MB: before, the peak, and two seconds after
  p50 p99         of the ordinary client in ms, counted from when a request was due

Criteria, each with exit status 1
  the gateway runs and responds at the end; every request that reached the backend is one that the
  generator (or the ordinary client) sent whole and well-formed, once; memory stays below the
  buffer budget + 40 KB for each connection + 64 MB; every ordinary request gets status 200, and
  their p99 stays within twice that of calm phases (or below 2 ms: the effect of the scheduler on
  two cores).
"""

import json
import re
import time
from collections import Counter
from urllib.parse import urlsplit

from trials.cli import add_names
from trials.host import note
from trials.process import MemoryWatch
from trials.report import finish, table
from trials.stand import Stand

BINARIES = ("olla", "olla-loadtest")

ATTACKS = [
    "slow-heads",
    "slow-bodies",
    "half-heads",
    "half-bodies",
    "endless-heads",
    "endless-chunks",
    "idle",
    "half-closed",
    "resets",
    "pipelined",
    "mutations",
]
COUNTS = ["sent", "refused", "answered", "closed", "open"]
BUDGET_MB = 128
CONNECTION_KB = 40
BASE_MB = 64
P99_FLOOR_MS = 2.0
ORDINARY_BYTES = 300
SERVER = f"""\
read_header_timeout = "3s"
read_timeout = "5s"
idle_timeout = "5s"
[server.request_limits]
max_header_size = "64KB"
max_buffered_bytes = "{BUDGET_MB}MB"
"""
OWN_CHECKS = {("GET", "/v1/models"), ("GET", "/health"), ("GET", "/")}


def add_arguments(parser):
    add_names(parser, "--attacks", ATTACKS)
    parser.add_argument("--seconds", type=float, default=7, help="at most, for each attack (7)")
    parser.add_argument("--rate", type=float, default=200, help="ordinary requests a second (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the attackers' random numbers (1)")


def run(options):
    with Stand(options, 1, records=True, pin=True) as stand:
        stand.start_all(server=SERVER, interval="2s")
        return Hostile(stand, options).run()


class Hostile:
    def __init__(self, stand, options):
        self.stand, self.options = stand, options
        self.gateway = stand.gateway
        self.marks = stand.directory / "marks"
        self.record = stand.stubs[0].record
        self.failures = []
        self.seen = Counter()
        self.read_to = 0

    def run(self):
        rows = [self.calm("calm")]
        rows += [self.attack(name) for name in self.options.attacks]
        rows.append(self.calm("calm again"))
        calm = max(rows[0]["p99"], rows[-1]["p99"])
        allowed = max(2 * calm, P99_FLOOR_MS)
        for row in rows:
            if row["p99"] > allowed:
                self.failures.append(
                    f"{row['attack']}: ordinary p99 {row['p99']} ms, allowed {allowed:.2f}"
                )
        self.gateway.check_alive(self.failures)
        print(table(rows))
        return finish(self.failures, f"; seed {self.options.seed}")

    def ordinary(self):
        """Starts the ordinary client; returns its process and the file of its report."""
        report = self.stand.directory / "ordinary.json"
        arguments = ["--url", f"{self.stand.url}/v1/embeddings", "--connections", 16, "--nonce"]
        arguments += ["--rate", self.options.rate, "--duration", self.options.seconds]
        arguments += ["--body-bytes", ORDINARY_BYTES, "--timeout-ms", 4000, "--json", report]
        return self.stand.tool("chat", *arguments), report

    def memory(self):
        return MemoryWatch(self.gateway.process, 0.03)

    def calm(self, name):
        with self.memory() as watch:
            client, report = self.ordinary()
            client.wait()
        return self.row(name, report, watch)

    def attack(self, name):
        file = self.stand.directory / "attack.json"
        arguments = ["--url", f"{self.stand.url}/v1/chat/completions", "--attack", name]
        arguments += ["--seconds", self.options.seconds, "--seed", self.options.seed]
        with self.memory() as watch:
            client, report = self.ordinary()
            self.stand.tool(
                "hostile", *arguments, "--marks", self.marks, "--json", file, idle=True
            ).wait()
            client.wait()
        found = json.loads(file.read_text())
        if found["unconnected"]:
            self.failures.append(f"{name}: {found['unconnected']} connections were not accepted")
        note(f"{name}: {found['statuses']}")
        return self.row(name, report, watch, found)

    def row(self, name, report, watch, found=None):
        """Checks the ordinary client, the memory and the record; returns the row of the table."""
        time.sleep(2)
        after = self.gateway.rss_kb() / 1024
        told = json.loads(report.read_text())
        if set(told["statuses"]) != {"200"} or told["failures"] or told["unsent"]:
            self.failures.append(
                f"{name}: ordinary statuses {told['statuses']}, failures {told['failures']}, "
                f"unsent {told['unsent']}"
            )
        for key in ("nonces_wrong", "nonces_missing"):
            if told[key]:
                self.failures.append(f"{name}: ordinary {key} {told[key]}")
        short_lived = name in ("pipelined", "mutations", "resets")
        connections = found["sent"] if found and not short_lived else 100
        bound = (BUDGET_MB + BASE_MB << 20) + connections * CONNECTION_KB * 1024
        # The allocator returns the memory of the attack before only when it is next used.
        if watch.peak > max(bound, watch.before):
            self.failures.append(f"{name}: {watch.peak >> 20} MB resident, bound {bound >> 20}")
        latency = told["latency_us"] or {"p50": 0, "p99": 1e9}
        return {
            "attack": name,
            **{key: found[key] if found else "" for key in COUNTS},
            "reached": self.check_record(name),
            "RSS": f"{watch.before / 2**20:.0f}/{watch.peak / 2**20:.0f}/{after:.0f}",
            "p50": round(latency["p50"] / 1000, 2),
            "p99": round(latency["p99"] / 1000, 2),
        }

    def check_record(self, name):
        """Checks the new part of the record; returns how many requests of the attack it has."""
        allowed = Counter()
        if self.marks.exists():
            for line in self.marks.read_text(errors="surrogateescape").split("\n"):
                if line:
                    nonce, rest = line.split(" ", 1)
                    target, length, digest = rest.rsplit(" ", 2)
                    allowed[nonce, path_of(target), int(length), digest] += 1
        with self.record.open(errors="surrogateescape") as record:
            record.seek(self.read_to)
            lines = record.readlines()
            self.read_to = record.tell()
        reached, wrong = 0, []
        for line in lines:
            kind, _, *rest = line.split()
            if kind == "M":
                wrong.append("bytes that are no request")
            if kind != "A":
                continue
            nonce, method, path, length, digest = rest
            if nonce == "-" and (method, path) in OWN_CHECKS and length == "0":
                continue
            if re.fullmatch("[0-9a-f]{16}", nonce) and path == "/v1/embeddings":
                self.seen[nonce] += 1
                if int(length) != ORDINARY_BYTES or self.seen[nonce] > 1:
                    wrong.append(f"an ordinary request was changed, or sent twice: {line.strip()}")
                continue
            reached += 1
            key = (nonce, path, int(length), digest)
            self.seen[key] += 1
            if self.seen[key] > allowed[key]:
                wrong.append(f"not one well-formed request: {line.strip()}")
        self.failures += [f"{name}: {what}" for what in wrong[:10]]
        if len(wrong) > 10:
            self.failures.append(f"{name}: and {len(wrong) - 10} more of these")
        return reached


def path_of(target):
    """The target that a backend must get: section 3 of the contract, as far as this needs it."""
    if "://" in target:
        parts = urlsplit(target)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
    path, mark, query = target.partition("?")
    path = re.sub("/+", "/", path)
    return path.removeprefix("/olla/proxy") + mark + query
