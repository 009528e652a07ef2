#!/usr/bin/env python3
"""A new configuration again and again under a steady load, and what became of every request."""

import argparse
import json
import signal
import statistics
import sys
import time
from bisect import bisect_right
from collections import Counter

from stand import Stand, add_binaries, table, wait_until

HELP = """\
What runs
  Four stub backends, the gateway with two workers, `olla-loadtest mixed` (a steady rate of
  requests for an alias, 30 % of them short event streams), and `olla-loadtest sse` with streams
  that are open from before the first reload until after the last. Meanwhile one change after
  another, each with SIGHUP, evenly spread:

  fleet     endpoints go and others come; now and then all of them at once
  limits    rate limits (never reached), sizes, timeouts of the backends
  aliases   where the alias of the requests leads
  logging   the level
  all       all of it, the balancer and sticky sessions too
  wrong     a file that has to be refused; one after every tenth reload, beside their number

Columns
  taken     milliseconds from SIGHUP until the page of metrics counts the reload, worst of all
  requests  those due from this change to the next
  failed    of them, those whose answer was not whole
  p50, p99  milliseconds from when a request without a stream was due to its end

Criteria, each with its exit status 1
  every request and every stream is whole; every reload is counted as what it was; a wrong file
  leaves the endpoints as they were, and olla_config_last_reload_successful is 0 until the next.
"""

MODEL, ALIAS = "stub-model", "easy"
CHANGES = ["fleet", "limits", "aliases", "logging", "all"]
FLEETS = ["0123", "01", "23", "0123", "1", "012", "3"]
NO_LIMITS = [0, 50_000_000]
LEVELS = ["warn", "info", "error"]
BALANCERS = ["least-connections", "round-robin", "priority"]
TARGETS = [[MODEL], ["gone", MODEL], [MODEL, "gone"]]
WRONG = ["[proxy]\nload_balancer = 7\n", "this is no TOML", "[server]\nport = 70000\n"]
LAST = "olla_config_last_reload_successful"
TOTAL = 'olla_config_reloads_total{{result="{}"}}'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_binaries(parser)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--streams", type=int, default=50)
    options = parser.parse_args()
    with Stand(options, 4, workers=2) as stand:
        sys.exit(Run(stand, options).all())


class Change:
    def __init__(self, name, begin, taken):
        self.name, self.begin, self.taken = name, begin, taken


class Settings:
    """What is configured now; each change moves some of it on."""

    def __init__(self, stubs):
        self.stubs = stubs
        self.steps = Counter()

    def change(self, name):
        for part in ["fleet", "limits", "aliases", "logging"]:
            if name in (part, "all"):
                self.steps[part] += 1
        self.steps["all"] += name == "all"

    def of(self, part, values):
        return values[self.steps[part] % len(values)]

    def fleet(self):
        return [self.stubs[int(digit)] for digit in self.of("fleet", FLEETS)]

    def as_arguments(self):
        limits = self.steps["limits"]
        per_minute = self.of("limits", NO_LIMITS)
        sticky = "true" if self.steps["all"] % 2 else "false"
        return {
            "stubs": self.fleet(),
            "level": self.of("logging", LEVELS),
            "balancer": self.of("all", BALANCERS),
            "limits": f"per_ip_requests_per_minute = {per_minute}\n"
                      f"global_requests_per_minute = {per_minute}\nburst_size = 50000000\n",
            "server": f"[server.request_limits]\nmax_body_size = {1_000_000 + limits}\n",
            "proxy": f'read_timeout = "{60 + limits}s"\nsticky_sessions.enabled = {sticky}\n',
            "more": f"[model_aliases]\n{ALIAS} = {json.dumps(self.of('aliases', TARGETS))}\n",
        }


class Run:
    def __init__(self, stand, options):
        self.stand, self.options = stand, options
        self.settings = Settings(stand.stubs)
        self.failures = []
        self.counted = Counter()

    def all(self):
        self.stand.start(**self.settings.as_arguments())
        memory = self.stand.rss_kb()
        outcomes = self.stand.directory / "outcomes"
        reports = {name: self.stand.directory / f"{name}.json" for name in ("mixed", "sse")}
        url = f"{self.stand.url}/v1/chat/completions"
        seconds, gap = self.options.seconds, 100
        # They begin within a second and end after the last of the reloads.
        streams = self.stand.tool(
            "sse", "--url", url, "--model", MODEL, "--streams", self.options.streams, "--gap-ms", gap,
            "--events", int((seconds + 4) * 1000 / gap), "--json", reports["sse"])
        wait_until("the streams", self.streams_are_open)
        load = self.stand.tool(
            "mixed", "--url", url, "--model", ALIAS, "--rate", self.options.rate,
            "--duration", seconds, "--outcomes", outcomes, "--json", reports["mixed"])
        changes = self.reload_again_and_again(seconds)
        load.wait()
        open_at_end = streams.poll() is None
        streams.wait()
        told = {name: json.loads(path.read_text()) for name, path in reports.items()}
        rows = self.judge(changes, outcomes, told["mixed"])
        print(table(rows, list(rows[0])))
        self.judge_streams(told["sse"], streams.returncode, open_at_end)
        self.judge_counters()
        late = 100 * told["mixed"]["late"] / max(told["mixed"]["requests"], 1)
        print(f"{told['mixed']['requests']} requests, {late:.2f} % sent more than 50 ms late by the load itself")
        print(f"resident memory {memory} KB before, {self.stand.rss_kb()} KB after")
        for failure in self.failures:
            print(f"FAILED {failure}")
        print(f"{len(self.failures)} failures")
        return 1 if self.failures else 0

    def streams_are_open(self):
        return self.stand.metrics()["olla_active_connections"] >= self.options.streams

    def reload_again_and_again(self, seconds):
        """Reloads evenly over the time that the load lasts; each waits for the one before it."""
        gap = seconds / (self.options.reloads + 1)
        start = time.monotonic()
        changes = []
        for number in range(1, self.options.reloads + 1):
            time.sleep(max(0, start + number * gap - time.monotonic()))
            name = CHANGES[number % len(CHANGES)]
            self.settings.change(name)
            self.stand.configure(**self.settings.as_arguments())
            changes.append(self.reload(name, "success"))
            if number % 10 == 0:
                time.sleep(gap / 2)
                self.stand.config.write_text(WRONG[number // 10 % len(WRONG)])
                changes.append(self.reload("wrong", "failure"))
        return changes

    def reload(self, name, result):
        begin = time.monotonic()
        self.stand.gateway.send_signal(signal.SIGHUP)
        self.counted[result] += 1
        def is_counted():
            self.found = self.stand.metrics()
            return self.found[TOTAL.format(result)] == self.counted[result]
        wait_until(f"reload {self.counted.total()} ({name})", is_counted)
        taken = time.monotonic() - begin
        if self.found[LAST] != (result == "success"):
            self.failures.append(f"{name}: {LAST} is {self.found[LAST]:.0f}")
        if self.found["olla_endpoints_total"] != len(self.settings.fleet()):
            self.failures.append(f"{name}: {self.found['olla_endpoints_total']:.0f} endpoints")
        return Change(name, begin, taken)

    def judge(self, changes, outcomes, told):
        begins = [change.begin for change in changes]
        requests, latencies, bad = Counter(), {}, Counter()
        ended = 0
        for line in outcomes.read_text().splitlines():
            due, end, _, kind, outcome = line.split()
            ended += 1
            place = bisect_right(begins, int(due) / 1e9)
            name = changes[place - 1].name if place else "before"
            requests[name] += 1
            if outcome != "whole":
                bad[name] += 1
                self.failures.append(f"{name}: {line}")
            elif kind == "json":
                latencies.setdefault(name, []).append((int(end) - int(due)) / 1e6)
        if ended != told["requests"]:
            self.failures.append(f"{told['requests'] - ended} requests have no end")
        rows = []
        for name in ["before", *CHANGES, "wrong"]:
            taken = [1000 * change.taken for change in changes if change.name == name]
            cuts = statistics.quantiles(latencies.get(name, [0, 0]), n=100)
            rows.append({
                "change": name, "reloads": len(taken), "taken": f"{max(taken, default=0):.0f}",
                "requests": requests[name], "failed": bad[name],
                "p50": f"{cuts[49]:.2f}", "p99": f"{cuts[98]:.2f}"})
        return rows

    def judge_streams(self, told, status, open_at_end):
        if not open_at_end:
            self.failures.append("streams ended before the last reload")
        if status != 0 or told["streams_completed"] != self.options.streams:
            self.failures.append(f"streams: {json.dumps(told)}")
        print(f"{told['streams_completed']} of {told['streams_due']} long streams whole, "
              f"{told['events']} events, {told['lost']} lost")

    def judge_counters(self):
        found = self.stand.metrics()
        for result in ("success", "failure"):
            print(f"{TOTAL.format(result)} {found[TOTAL.format(result)]:.0f}, sent {self.counted[result]}")
        if found["olla_failures_total"]:
            self.failures.append(f"the gateway counts {found['olla_failures_total']:.0f} failures")
        if not self.stand.is_alive():
            self.failures.append(f"the gateway ended:\n{self.stand.log_tail()}")


if __name__ == "__main__":
    main()
