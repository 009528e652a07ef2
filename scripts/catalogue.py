#!/usr/bin/env python3
"""A catalogue of 200 endpoints with 500 models each: how long it takes, what it weighs, and whether
requests in flight notice when it changes."""

import argparse
import http.client
import json
import re
import signal
import statistics
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stand import NotReady, RssWatch, Stand, add_binaries, request, table, wait_until

HELP = """\
For each shape of names (--shapes: `same` names everywhere, `some` 20,000 different ones, `distinct`
ones only) one gateway is started in front of stub backends; their listings come from this program,
which changes one model of every endpoint at each refresh. Told for each:
  models       entries of the catalogue
  data         MB of listings as the endpoints send them
  builds       builds that changed models, by the gateway's own log lines, and the slowest
  rss          MB more than with empty listings: once all are read, after the refreshes, at the peak
  listing      median and p99 of GET /olla/models on one kept connection, and its MB
  chat p99     of a steady load without refreshes, and during them
  streams      that were open across refreshes: ended well / opened
  refreshes    seen during that load
The run fails when a stream or a request fails. Times are those of this machine, this program and
the stubs included.
"""

SHAPES = {"same": 500, "some": 20_000, "distinct": 100_000}
FAMILIES = ["llama3.1", "qwen2.5-coder", "gemma3", "mistral-small", "deepseek-r1", "phi4",
            "gpt-oss", "granite3.3", "nomic-embed-text", "llava"]
# What chat asks for; all endpoints list it.
CHAT_MODEL = "stub-model"
# Long enough that no round begins by itself.
NEVER = "24h"
REFRESH = "2s"
MB = 1 << 20


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_binaries(parser)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated")
    parser.add_argument("--endpoints", type=int, default=200)
    parser.add_argument("--models", type=int, default=500, help="of each endpoint")
    parser.add_argument("--refreshes", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=20, help="of load, with and without refreshes")
    options = parser.parse_args()
    rows, failures = [], []
    for shape in options.shapes.split(","):
        with Lister(options, SHAPES[shape]) as lister, Stand(options, options.endpoints) as stand:
            rows.append({"shape": shape} | measure(options, lister, stand, failures))
    print(table(rows, list(rows[0])))
    for failure in failures:
        print(f"FAILED {failure}")
    sys.exit(1 if failures else 0)


def measure(options, lister, stand, failures):
    stand.start(
        level="debug", interval="5s", patience=4000,
        more=f'[discovery.model_discovery]\ninterval = "{NEVER}"\n',
        own=lambda name: f'model_url = "http://127.0.0.1:{lister.port}/{name[1:]}"')
    rounds = Rounds(stand)
    empty_kb = stand.rss_kb()
    lister.fill()
    rounds.begin_every("1s")
    rounds.wait_for(lister)
    rounds.begin_every(NEVER)
    full_kb = settled_kb(stand)
    listing = listing_times(stand)
    calm = load(options, stand, failures)
    seen = lister.generation
    with Refreshing(lister, rounds):
        rough = load(options, stand, failures)
    seen = lister.generation - seen
    with RssWatch(stand) as watch:
        rounds.begin_every(REFRESH)
        for _ in range(options.refreshes):
            lister.change()
            rounds.wait_for(lister)
        rounds.begin_every(NEVER)
    builds = rounds.builds()
    return {
        "models": builds[-1][0],
        "data": f"{lister.data_bytes() / MB:.1f}",
        "builds": len(builds),
        "median ms": statistics.median(took for _, took in builds),
        "max ms": max(took for _, took in builds),
        "rss full": f"{(full_kb - empty_kb) / 1024:.0f}",
        "later": f"{(settled_kb(stand) - empty_kb) / 1024:.0f}",
        "peak": f"{(watch.peak - empty_kb) / 1024:.0f}",
        **listing,
        "chat p99 ms": f"{calm[0]:.1f} / {rough[0]:.1f}",
        "streams": rough[1],
        "refreshes": seen,
    }


class Lister:
    """Serves the listings of all endpoints. Nothing is listed until `fill`."""

    def __init__(self, options, names):
        self.endpoints, self.models, self.names = options.endpoints, options.models, names
        self.generation = None
        self.heads = [self.head(endpoint) for endpoint in range(options.endpoints)]
        lister = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = lister.body(int(self.path[1:]))
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                try:
                    self.end_headers()
                    self.wfile.write(body)
                except ConnectionError:
                    # The gateway was stopped, or has waited long enough.
                    pass

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def head(self, endpoint):
        """A listing but for its last model."""
        # One for chat and one that changes are everywhere.
        count = self.models - 2
        numbers = (number % self.names for number in range(endpoint * count, (endpoint + 1) * count))
        names = [f"{FAMILIES[n % len(FAMILIES)]}-{n:06}:{1 + n % 70}b-instruct" for n in numbers]
        items = [self.item(name) for name in [CHAT_MODEL, *names]]
        return '{"object":"list","data":[' + ",".join(items)

    @staticmethod
    def item(name):
        return json.dumps({"id": name, "object": "model", "created": 1700000000, "owned_by": "acme",
                           "root": name, "parent": None, "max_model_len": 32768})

    def fill(self):
        self.generation = 0

    def change(self):
        self.generation += 1

    def changing_name(self):
        return f"generation-{self.generation}"

    def body(self, endpoint):
        if self.generation is None:
            return b'{"data":[]}'
        return f"{self.heads[endpoint]},{self.item(self.changing_name())}]}}".encode()

    def data_bytes(self):
        return sum(len(self.body(endpoint)) for endpoint in range(self.endpoints))


class Rounds:
    """The gateway's rounds of discovery, and what its log says of them."""

    def __init__(self, stand):
        self.stand, self.interval = stand, NEVER

    def begin_every(self, interval):
        """Reloads with another interval."""
        text = self.stand.config.read_text()
        old, new = (f'[discovery.model_discovery]\ninterval = "{each}"'
                    for each in (self.interval, interval))
        assert old in text
        self.stand.config.write_text(text.replace(old, new))
        self.interval = interval
        self.stand.gateway.send_signal(signal.SIGHUP)

    def wait_for(self, lister):
        """Until every endpoint lists the newest generation."""
        target = f"/olla/models/{lister.changing_name()}"

        def is_there():
            status, _, body = request(self.stand.port, "GET", target)
            return status == 200 and len(json.loads(body)["endpoints"]) == lister.endpoints

        wait_until("a refresh", is_there, 120)

    def builds(self):
        """Entries and milliseconds of each build that changed models, once there were many."""
        lines = (self.stand.directory / "olla.log").read_text(errors="replace").splitlines()
        found = []
        for line in lines:
            if "Catalogue built" in line:
                number = lambda key: int(re.search(rf'\b{key}"?[:=]\s*"?(\d+)', line).group(1))
                if re.search(r'\bchanged"?[:=]\s*"?models', line):
                    found.append((number("models"), number("duration_ms"), number("listed")))
        full = max(listed for _, _, listed in found)
        return [(models, took) for models, took, listed in found if listed >= full * 0.99]


class Refreshing:
    """Changes all listings again and again, as soon as the last change has been seen."""

    def __init__(self, lister, rounds):
        self.lister, self.rounds = lister, rounds
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.rounds.begin_every(REFRESH)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            self.lister.change()
            self.rounds.wait_for(self.lister)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.rounds.begin_every(NEVER)


def settled_kb(stand):
    """Resident memory once it has stayed the same for a while: the least that was seen then."""
    lowest, since = stand.rss_kb(), time.monotonic()
    while time.monotonic() < since + 3:
        time.sleep(0.1)
        now = stand.rss_kb()
        if now < lowest * 0.99:
            lowest, since = now, time.monotonic()
    return lowest


def listing_times(stand):
    connection = http.client.HTTPConnection("127.0.0.1", stand.port, timeout=30)
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        connection.request("GET", "/olla/models")
        answer = connection.getresponse()
        body = answer.read()
        times.append((time.perf_counter() - begun) * 1000)
        if answer.status != 200:
            raise NotReady(f"/olla/models: {answer.status}")
    connection.close()
    times.sort()
    return {"listing ms": f"{statistics.median(times):.2f}", "p99": f"{times[197]:.2f}",
            "MB": f"{len(body) / MB:.2f}"}


def load(options, stand, failures):
    """Chat at a steady rate beside open streams: the p99 of the former, what became of the latter."""
    url, reports = f"{stand.url}/v1/chat/completions", []
    gap_ms = 100
    tools = [("chat", "--connections", 16, "--rate", 300, "--duration", options.seconds),
             ("sse", "--streams", 50, "--gap-ms", gap_ms, "--events", options.seconds * 1000 // gap_ms)]
    running = []
    for name, *arguments in tools:
        path = stand.directory / f"{name}.json"
        reports.append(path)
        running.append(stand.tool(name, "--url", url, "--model", CHAT_MODEL, *arguments,
                                  "--json", path))
    for (name, *_), process in zip(tools, running):
        if process.wait() != 0:
            failures.append(f"{name}: exit status {process.returncode}")
    chat, sse = (json.loads(path.read_text()) for path in reports)
    for report in (chat, sse):
        if report["failures"]:
            failures.append(f"{report['tool']}: {report['failures']}")
    return chat["latency_us"]["p99"] / 1000, f"{sse['streams_completed']}/{sse['streams_due']}"


if __name__ == "__main__":
    main()
