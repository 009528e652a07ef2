"""Memory, descriptors and counts of one process under moderate load for hours.

What runs
  Three stub backends, the gateway with two workers, and `olla-loadtest mixed` at a steady rate.
  Beside it a visitor who does what wears a process out: streams that the client leaves, translated
  streams, unknown models, malformed requests, pages and listings, bodies that never end; and every
  two minutes a backend is killed and started again.

Every 30 s it notes the resident memory, the open descriptors, the requests in flight, and the bytes
of request bodies held. The table shows them for each twelfth of the time.

Criteria, each with exit status 1
  no response is short, mixed up or overdue; from the second quarter to the last the median of the
  memory grows by at most 3 %, and that of the descriptors by at most 8; after the load nothing is
  in flight and no body is held.
"""

import itertools
import json
import os
import socket
import statistics
import time

from trials.gateway import NO_LIMITS
from trials.process import Repeating, request, wait_until
from trials.report import finish, outcomes, table
from trials.stand import MODEL, Stand

BINARIES = ("olla", "olla-loadtest")
SAMPLE_SECONDS = 30
RESTART_SECONDS = 120
ROWS = 12
BAD = {"short", "mixed-up", "overdue"}
CHAT = "/olla/proxy/v1/chat/completions"
IN_FLIGHT, HELD = "olla_active_connections", "olla_buffered_body_bytes"


def add_arguments(parser):
    parser.add_argument("--minutes", type=float, default=60, help="of load (60)")
    parser.add_argument("--rate", type=float, default=200, help="requests a second (200)")


def run(options):
    failures = []
    with Stand(options, 3, workers=2) as stand:
        stand.start_all(limits=NO_LIMITS)
        file = stand.directory / "outcomes"
        arguments = ["--url", f"{stand.url}/v1/chat/completions", "--model", MODEL]
        arguments += ["--rate", options.rate, "--duration", options.minutes * 60]
        load = stand.tool("mixed", *arguments, "--outcomes", file)
        with Samples(stand) as samples, Visitor(stand) as visitor, Restarts(stand) as restarts:
            while load.poll() is None and stand.gateway.is_alive():
                time.sleep(1)
        stand.gateway.check_alive(failures)
        if not failures:
            samples.check(failures)
            check_rest(stand, failures)
        print(table(samples.rows()))
        counts = {}
        for _, _, _, _, outcome in outcomes(file):
            counts[outcome] = counts.get(outcome, 0) + 1
        failures += [f"{counts[outcome]} responses {outcome}" for outcome in BAD & counts.keys()]
        print(f"outcomes: {dict(sorted(counts.items(), key=lambda pair: -pair[1]))}")
        print(f"{visitor.visits} visits, {restarts.done} restarts of a backend")
    return finish(failures)


def check_rest(stand, failures):
    """Waits until the gateway has nothing to do, and checks what it holds then."""

    def is_at_rest():
        page = stand.gateway.metrics()
        return page[IN_FLIGHT] == 0 and page.get(HELD, 0) == 0

    try:
        wait_until("the gateway is not at rest", is_at_rest, 60)
    except Exception as error:
        failures.append(str(error))


class Samples(Repeating):
    """What the process holds, over time."""

    def __init__(self, stand):
        super().__init__(SAMPLE_SECONDS)
        self.gateway = stand.gateway
        self.begin = time.monotonic()
        self.taken = []

    def step(self):
        page = self.gateway.metrics()
        descriptors = len(os.listdir(f"/proc/{self.gateway.process.pid}/fd"))
        self.taken.append(
            {
                "minutes": (time.monotonic() - self.begin) / 60,
                "rss_kb": self.gateway.rss_kb(),
                "descriptors": descriptors,
                "in_flight": page[IN_FLIGHT],
                "held": page.get(HELD, 0),
            }
        )

    def quarter(self, number, name):
        size = max(1, len(self.taken) // 4)
        return statistics.median(one[name] for one in self.taken[number * size :][:size])

    def check(self, failures):
        if len(self.taken) < 4:
            failures.append("too short: fewer than four samples")
            return
        rss = [self.quarter(number, "rss_kb") for number in (1, 3)]
        if rss[1] > 1.03 * rss[0]:
            failures.append(f"the memory grew from {rss[0]:.0f} to {rss[1]:.0f} KB")
        open_files = [self.quarter(number, "descriptors") for number in (1, 3)]
        if open_files[1] > open_files[0] + 8:
            failures.append(f"the descriptors grew from {open_files[0]} to {open_files[1]}")

    def rows(self):
        size = max(1, len(self.taken) // ROWS)
        parts = [self.taken[first:][:size] for first in range(0, len(self.taken), size)]
        rows = []
        for part in parts:
            row = {"minute": f"{part[0]['minutes']:.0f}"}
            for name in ("rss_kb", "descriptors", "in_flight", "held"):
                row[name] = f"{statistics.median(one[name] for one in part):.0f}"
            rows.append(row)
        return rows or [{"minute": "none"}]


class Restarts(Repeating):
    """Kills one backend after another and starts it again."""

    def __init__(self, stand):
        super().__init__(RESTART_SECONDS)
        self.stubs = itertools.cycle(stand.stubs)
        self.done = 0

    def step(self):
        stub = next(self.stubs)
        stub.kill()
        stub.start()
        self.done += 1


class Visitor(Repeating):
    """Does one thing after another that a gateway should survive for ever."""

    def __init__(self, stand):
        super().__init__(0.2)
        self.port = stand.gateway.port
        self.visits = 0
        self.kinds = itertools.cycle(
            [
                self.leave_stream,
                self.leave_body,
                self.translate,
                self.ask_for_nothing,
                self.send_nonsense,
                lambda: request(self.port, "GET", "/internal/status"),
                lambda: request(self.port, "GET", "/olla/models"),
                lambda: request(self.port, "GET", "/olla/ollama/api/tags"),
            ]
        )

    def step(self):
        try:
            next(self.kinds)()
        except (OSError, ValueError):
            # The outcome of a visit does not matter, only what it leaves behind.
            pass
        self.visits += 1

    def leave_stream(self):
        body = {"model": MODEL, "stream": True, "stub": {"events": 200, "gap_ms": 20}}
        with self.opened("POST", CHAT, json.dumps(body).encode()) as link:
            link.recv(2048)

    def leave_body(self):
        with self.opened("POST", CHAT, b'{"model":"' + b"x" * 5000, announced=50_000_000):
            pass

    def translate(self):
        body = {"model": MODEL, "stream": True, "max_tokens": 64}
        body["messages"] = [{"role": "user", "content": "Hello. " * 200}]
        request(self.port, "POST", "/olla/anthropic/v1/messages", json.dumps(body))

    def ask_for_nothing(self):
        body = {"model": f"no-such-model-{self.visits}", "messages": []}
        request(self.port, "POST", CHAT, json.dumps(body))

    def send_nonsense(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(b"GET /\x00 nonsense\r\n\r\n")
            link.recv(2048)

    def opened(self, method, path, body, announced=None):
        link = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        head = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {announced or len(body)}\r\n\r\n"
        link.sendall(head.encode() + body)
        return link
