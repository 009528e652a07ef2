"""Reloads of the configuration under a steady load, and the outcome of every request.

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
  wrong     a file that must be refused; one after every tenth reload, not counted in --reloads

Columns
  taken     milliseconds from SIGHUP until the metrics page counts the reload, the longest of all
  requests  the requests that were due between this change and the next
  failed    the requests among these that got no complete response
  p50, p99  milliseconds from when a request without a stream was due to its end

Criteria, each with exit status 1
  every request and every stream is whole; every reload is counted as what it was; a wrong file
  leaves the endpoints as they were, and olla_config_last_reload_successful is 0 until the next.
"""

import json
import signal
import time
from bisect import bisect_right
from collections import Counter

from trials.process import wait_until
from trials.report import finish, outcomes, percentile, print_late, table
from trials.stand import MODEL, Stand

BINARIES = ("olla", "olla-loadtest")
ALIAS = "easy"
CHANGES = ["fleet", "limits", "aliases", "logging", "all"]
FLEETS = ["0123", "01", "23", "0123", "1", "012", "3"]
RATE_LIMITS = [0, 50_000_000]
LEVELS = ["warn", "info", "error"]
BALANCERS = ["least-connections", "round-robin", "priority"]
TARGETS = [[MODEL], ["gone", MODEL], [MODEL, "gone"]]
WRONG = ["[proxy]\nload_balancer = 7\n", "this is no TOML", "[server]\nport = 70000\n"]
LAST = "olla_config_last_reload_successful"
TOTAL = 'olla_config_reloads_total{{result="{}"}}'


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=60, help="of load (60)")
    parser.add_argument("--reloads", type=int, default=50, help="evenly spread (50)")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second (1,000)")
    parser.add_argument("--streams", type=int, default=50, help="open all the time (50)")


def run(options):
    with Stand(options, 4, workers=2) as stand:
        return Reload(stand, options).run()


class Change:
    """A reload: its name, when it began, and how long the gateway took."""

    def __init__(self, name, begin, taken):
        self.name, self.begin, self.taken = name, begin, taken


class Settings:
    """The current configuration; each change moves a part of it on."""

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
        """The arguments of Stand.config."""
        limits = self.steps["limits"]
        per_minute = self.of("limits", RATE_LIMITS)
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


class Reload:
    def __init__(self, stand, options):
        self.stand, self.options = stand, options
        self.gateway = stand.gateway
        self.settings = Settings(stand.stubs)
        self.failures = []
        self.counted = Counter()

    def run(self):
        self.stand.start_all(**self.settings.as_arguments())
        memory = self.gateway.rss_kb()
        directory = self.stand.directory
        files = {name: directory / f"{name}.json" for name in ("mixed", "sse")}
        seconds, gap = self.options.seconds, 100
        url = ["--url", f"{self.stand.url}/v1/chat/completions"]
        # They begin within a second and end after the last of the reloads.
        arguments = ["--streams", self.options.streams, "--gap-ms", gap]
        arguments += ["--events", int((seconds + 4) * 1000 / gap), "--json", files["sse"]]
        streams = self.stand.tool("sse", *url, "--model", MODEL, *arguments)
        wait_until("the streams are not open", self.streams_are_open)
        arguments = ["--rate", self.options.rate, "--duration", seconds]
        arguments += ["--outcomes", directory / "outcomes", "--json", files["mixed"]]
        load = self.stand.tool("mixed", *url, "--model", ALIAS, *arguments)
        changes = self.reload_repeatedly(seconds)
        load.wait()
        open_at_end = streams.poll() is None
        streams.wait()
        reports = {name: json.loads(path.read_text()) for name, path in files.items()}
        print(table(self.check_outcomes(changes, directory / "outcomes", reports["mixed"])))
        self.check_streams(reports["sse"], streams.returncode, open_at_end)
        self.check_counters()
        print_late(reports["mixed"])
        print(f"resident memory {memory} KB before, {self.gateway.rss_kb()} KB after")
        return finish(self.failures)

    def streams_are_open(self):
        return self.gateway.metrics()["olla_active_connections"] >= self.options.streams

    def reload_repeatedly(self, seconds):
        """Reloads evenly over the time of the load; each waits for the one before it."""
        gap = seconds / (self.options.reloads + 1)
        start = time.monotonic()
        changes = []
        for number in range(1, self.options.reloads + 1):
            time.sleep(max(0, start + number * gap - time.monotonic()))
            name = CHANGES[number % len(CHANGES)]
            self.settings.change(name)
            text = self.stand.config(**self.settings.as_arguments())
            changes.append(self.reload(name, text, "success"))
            if number % 10 == 0:
                time.sleep(gap / 2)
                text = WRONG[number // 10 % len(WRONG)]
                changes.append(self.reload("wrong", text, "failure"))
        return changes

    def reload(self, name, text, result):
        self.gateway.config.write_text(text)
        begin = time.monotonic()
        self.gateway.process.send_signal(signal.SIGHUP)
        self.counted[result] += 1

        def is_counted():
            found = self.gateway.metrics()
            return found if found[TOTAL.format(result)] == self.counted[result] else None

        what = f"reload {self.counted.total()} ({name}) is not counted"
        found = wait_until(what, is_counted)
        taken = time.monotonic() - begin
        if found[LAST] != (result == "success"):
            self.failures.append(f"{name}: {LAST} is {found[LAST]:.0f}")
        if found["olla_endpoints_total"] != len(self.settings.fleet()):
            self.failures.append(f"{name}: {found['olla_endpoints_total']:.0f} endpoints")
        return Change(name, begin, taken)

    def check_outcomes(self, changes, file, report):
        """Assigns every request to the change before it; returns the rows of the table."""
        begins = [change.begin for change in changes]
        requests, latencies, bad = Counter(), {}, Counter()
        for due, end, nonce, kind, outcome in outcomes(file):
            place = bisect_right(begins, due)
            name = changes[place - 1].name if place else "before"
            requests[name] += 1
            if outcome != "whole":
                bad[name] += 1
                self.failures.append(f"{name}: {outcome}: {kind} {nonce}, due {due}, end {end}")
            elif kind == "json":
                latencies.setdefault(name, []).append((end - due) * 1000)
        if requests.total() != report["requests"]:
            self.failures.append(f"{report['requests'] - requests.total()} requests have no end")
        rows = []
        for name in ["before", *CHANGES, "wrong"]:
            taken = [1000 * change.taken for change in changes if change.name == name]
            rows.append(
                {
                    "change": name,
                    "reloads": len(taken),
                    "taken": f"{max(taken, default=0):.0f}",
                    "requests": requests[name],
                    "failed": bad[name],
                    "p50": f"{percentile(latencies.get(name), 50):.2f}",
                    "p99": f"{percentile(latencies.get(name), 99):.2f}",
                }
            )
        return rows

    def check_streams(self, report, status, open_at_end):
        if not open_at_end:
            self.failures.append("streams ended before the last reload")
        if status != 0 or report["streams_completed"] != self.options.streams:
            self.failures.append(f"streams: {json.dumps(report)}")
        print(
            f"{report['streams_completed']} of {report['streams_due']} long streams whole, "
            f"{report['events']} events, {report['lost']} lost"
        )

    def check_counters(self):
        found = self.gateway.metrics()
        for result in ("success", "failure"):
            name = TOTAL.format(result)
            print(f"{name} {found[name]:.0f}, sent {self.counted[result]}")
        if found["olla_failures_total"]:
            self.failures.append(f"the gateway counts {found['olla_failures_total']:.0f} failures")
        self.gateway.check_alive(self.failures)
