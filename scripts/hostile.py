#!/usr/bin/env python3
"""Hostile clients beside ordinary ones, and the verdict on the gateway between them and a backend."""

import argparse
import json
import re
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

from stand import RssWatch, Stand, add_binaries, table

HELP = """\
What runs
  A stub backend that records every request it gets, the gateway with one worker in front of it,
  an ordinary client with a fixed rate, and one attack after another (`olla-loadtest hostile`).
  The gateway has a processor of its own; the attackers share the other with the stub and the
  ordinary client and only run when these do not: what is measured is the gateway, not who waits
  for the attackers' processor.

Columns
  sent ... open   as `olla-loadtest hostile --help` says
  reached         requests of the attack that reached the backend; all must be well-formed
  RSS             resident memory of the gateway in MB: before, the most seen, two seconds after
  p50 p99         of the ordinary client in ms, counted from when a request was due

Criteria, each with its exit status 1
  the gateway lives and answers at the end; every request that reached the backend is one that the
  generator (or the ordinary client) sent whole and well-formed, once; memory stays below the
  buffer budget + 40 KB for each connection + 64 MB; every ordinary request is answered 200 and
  their p99 stays within twice the calm one (or below 2 ms: the scheduler's share on two cores).
"""

ATTACKS = ["slow-heads", "slow-bodies", "half-heads", "half-bodies", "endless-heads", "endless-chunks",
           "idle", "half-closed", "resets", "pipelined", "mutations"]
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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_binaries(parser)
    parser.add_argument("--attacks", default=",".join(ATTACKS), help="comma-separated")
    parser.add_argument("--seconds", type=float, default=7, help="for each attack at most")
    parser.add_argument("--rate", type=float, default=200, help="ordinary requests a second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with Stand(options, 1, records=True, pin=True) as stand:
        stand.start(server=SERVER, interval="2s")
        sys.exit(Run(stand, options).all())


class Run:
    def __init__(self, stand, options):
        self.stand, self.options = stand, options
        self.marks = stand.directory / "marks"
        self.record = stand.stubs[0].record
        self.failures = []
        self.seen = Counter()
        self.read_to = 0

    def all(self):
        rows = [self.calm("calm")]
        rows += [self.attack(name) for name in self.options.attacks.split(",")]
        rows.append(self.calm("calm again"))
        calm = max(rows[0]["p99"], rows[-1]["p99"])
        allowed = max(2 * calm, P99_FLOOR_MS)
        for row in rows:
            if row["p99"] > allowed:
                self.failures.append(f"{row['attack']}: ordinary p99 {row['p99']} ms, allowed {allowed:.2f}")
        if not self.stand.is_alive():
            self.failures.append(f"the gateway ended:\n{self.stand.log_tail()}")
        columns = ["attack", "sent", "refused", "answered", "closed", "open", "reached", "RSS", "p50", "p99"]
        print(table(rows, columns))
        for failure in self.failures:
            print(f"FAILED {failure}")
        print(f"{len(self.failures)} failures; seed {self.options.seed}")
        return 1 if self.failures else 0

    def ordinary(self, seconds):
        report = self.stand.directory / "ordinary.json"
        options = ["--url", f"{self.stand.url}/v1/embeddings", "--connections", 16, "--nonce",
                   "--rate", self.options.rate, "--duration", seconds, "--body-bytes", ORDINARY_BYTES,
                   "--timeout-ms", 4000, "--json", report]
        return self.stand.tool("chat", *options), report

    def calm(self, name):
        with RssWatch(self.stand) as watch:
            client, report = self.ordinary(self.options.seconds)
            client.wait()
        row = self.finish(name, report, watch)
        return {**dict.fromkeys(["sent", "refused", "answered", "closed", "open"], ""), **row}

    def attack(self, name):
        out = self.stand.directory / "attack.json"
        options = ["--url", f"{self.stand.url}/v1/chat/completions", "--attack", name,
                   "--seconds", self.options.seconds, "--seed", self.options.seed,
                   "--marks", self.marks, "--json", out]
        with RssWatch(self.stand) as watch:
            client, report = self.ordinary(self.options.seconds)
            self.stand.tool("hostile", *options, idle=True).wait()
            client.wait()
        found = json.loads(out.read_text())
        if found["unconnected"]:
            self.failures.append(f"{name}: {found['unconnected']} connections were not accepted")
        row = self.finish(name, report, watch, found)
        print(f"{name}: {found['statuses']}", file=sys.stderr)
        return {**row, **{key: found[key] for key in ("sent", "refused", "answered", "closed", "open")}}

    def finish(self, name, report, watch, found=None):
        """What the ordinary client, the memory and the record say."""
        time.sleep(2)
        after = self.stand.rss_kb()
        told = json.loads(report.read_text())
        if set(told["statuses"]) != {"200"} or told["failures"] or told["unsent"]:
            self.failures.append(
                f"{name}: ordinary statuses {told['statuses']}, failures {told['failures']}, "
                f"unsent {told['unsent']}")
        for key in ("nonces_wrong", "nonces_missing"):
            if told[key]:
                self.failures.append(f"{name}: ordinary {key} {told[key]}")
        connections = found["sent"] if found and name not in ("pipelined", "mutations", "resets") else 100
        bound = BUDGET_MB * 1024 + connections * CONNECTION_KB + BASE_MB * 1024
        # The allocator gives back what the attack before took when it is next used.
        if watch.peak > max(bound, watch.before):
            self.failures.append(f"{name}: {watch.peak >> 10} MB resident, bound {bound >> 10}")
        reached = self.judge(name)
        rss = "/".join(f"{kb / 1024:.0f}" for kb in (watch.before, watch.peak, after))
        latency = told["latency_us"] or {"p50": 0, "p99": 1e9}
        return {"attack": name, "reached": reached, "RSS": rss,
                "p50": round(latency["p50"] / 1000, 2), "p99": round(latency["p99"] / 1000, 2)}

    def judge(self, name):
        """Compares the record since the last look with what may have come."""
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
                    wrong.append(f"an ordinary request changed, or sent twice: {line.strip()}")
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
    """What a backend is to get for a target: the contract's section 3, as far as it is needed."""
    if "://" in target:
        parts = urlsplit(target)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
    path, mark, query = target.partition("?")
    path = re.sub("/+", "/", path)
    return path.removeprefix("/olla/proxy") + mark + query


if __name__ == "__main__":
    main()
