"""A catalogue of 200 endpoints with 500 models each: time, memory, and requests during changes.

For each shape of names (--shapes: `same` names everywhere, `some` 20,000 different ones, `distinct`
ones only) one gateway is started in front of stub backends; their listings come from this program,
which changes one model of every endpoint at each refresh. The columns of each shape:
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

import http.client
import json
import re
import signal
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from trials.cli import add_names
from trials.process import MemoryWatch, NotReady, Repeating, request, wait_until
from trials.report import finish, percentile, table
from trials.stand import MODEL, Stand

BINARIES = ("olla", "olla-loadtest")
SHAPES = {"same": 500, "some": 20_000, "distinct": 100_000}
FAMILIES = [
    *("llama3.1", "qwen2.5-coder", "gemma3", "mistral-small", "deepseek-r1"),
    *("phi4", "gpt-oss", "granite3.3", "nomic-embed-text", "llava"),
]
# Long enough that no round begins by itself.
NEVER = "24h"
REFRESH = "2s"
MB = 1 << 20


def add_arguments(parser):
    add_names(parser, "--shapes", SHAPES)
    parser.add_argument("--endpoints", type=int, default=200, help="of the gateway (200)")
    parser.add_argument("--models", type=int, default=500, help="of each endpoint (500)")
    parser.add_argument("--refreshes", type=int, default=20, help="after the load (20)")
    parser.add_argument(
        "--seconds", type=int, default=20, help="of load, without and with refreshes (20)"
    )


def run(options):
    rows, failures = [], []
    for shape in options.shapes:
        with Lister(options, SHAPES[shape]) as lister, Stand(options, options.endpoints) as stand:
            rows.append({"shape": shape} | measure(options, lister, stand, failures))
    print(table(rows))
    return finish(failures)


def measure(options, lister, stand, failures):
    """Runs one shape; returns its row."""
    stand.start_all(
        level="debug",
        interval="5s",
        patience=4000,
        more=f'[discovery.model_discovery]\ninterval = "{NEVER}"\n',
        own=lambda name: f'model_url = "http://127.0.0.1:{lister.port}/{name[1:]}"\n',
    )
    rounds = Rounds(stand.gateway)
    empty_kb = stand.gateway.rss_kb()
    lister.generation = 0
    rounds.begin_every("1s")
    rounds.wait_for(lister)
    rounds.begin_every(NEVER)
    full_kb = settled_kb(stand.gateway)
    listing = listing_times(stand.gateway.port)
    calm_p99, _ = load(options, stand, failures)
    seen = lister.generation
    with Refreshing(lister, rounds):
        rough_p99, streams = load(options, stand, failures)
    seen = lister.generation - seen
    with MemoryWatch(stand.gateway.process, 0.03) as watch:
        rounds.begin_every(REFRESH)
        for _ in range(options.refreshes):
            lister.generation += 1
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
        "later": f"{(settled_kb(stand.gateway) - empty_kb) / 1024:.0f}",
        "peak": f"{(watch.peak / 1024 - empty_kb) / 1024:.0f}",
        **listing,
        "chat p99 ms": f"{calm_p99:.1f} / {rough_p99:.1f}",
        "streams": streams,
        "refreshes": seen,
    }


class Lister:
    """Serves the listings of all endpoints, which are empty until `generation` is set."""

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
        """A listing without its last model."""
        # Two models are everywhere: the one for chat, and the one that changes.
        count = self.models - 2
        numbers = (
            number % self.names for number in range(endpoint * count, (endpoint + 1) * count)
        )
        names = [f"{FAMILIES[n % len(FAMILIES)]}-{n:06}:{1 + n % 70}b-instruct" for n in numbers]
        items = [self.item(name) for name in [MODEL, *names]]
        return '{"object":"list","data":[' + ",".join(items)

    @staticmethod
    def item(name):
        card = {"id": name, "object": "model", "created": 1700000000, "owned_by": "acme"}
        return json.dumps(card | {"root": name, "parent": None, "max_model_len": 32768})

    def changing_name(self):
        return f"generation-{self.generation}"

    def body(self, endpoint):
        if self.generation is None:
            return b'{"data":[]}'
        return f"{self.heads[endpoint]},{self.item(self.changing_name())}]}}".encode()

    def data_bytes(self):
        return sum(len(self.body(endpoint)) for endpoint in range(self.endpoints))


class Rounds:
    """The gateway's rounds of discovery, and what its log says about them."""

    def __init__(self, gateway):
        self.gateway, self.interval = gateway, NEVER

    def begin_every(self, interval):
        """Reloads with another interval."""
        text = self.gateway.config.read_text()
        old, new = (
            f'[discovery.model_discovery]\ninterval = "{each}"'
            for each in (self.interval, interval)
        )
        assert old in text
        self.gateway.config.write_text(text.replace(old, new))
        self.interval = interval
        self.gateway.process.send_signal(signal.SIGHUP)

    def wait_for(self, lister):
        """Waits until every endpoint lists the newest generation."""
        target = f"/olla/models/{lister.changing_name()}"

        def is_there():
            status, _, body = request(self.gateway.port, "GET", target)
            return status == 200 and len(json.loads(body)["endpoints"]) == lister.endpoints

        wait_until("a refresh is not seen", is_there, 120)

    def builds(self):
        """Entries and milliseconds of each build that changed models, once there were many."""

        def number(line, key):
            return int(re.search(rf'\b{key}"?[:=]\s*"?(\d+)', line).group(1))

        found = [
            [number(line, key) for key in ("models", "duration_ms", "listed")]
            for line in self.gateway.log_text().splitlines()
            if "Catalogue built" in line and re.search(r'\bchanged"?[:=]\s*"?models', line)
        ]
        full = max(listed for _, _, listed in found)
        return [(models, took) for models, took, listed in found if listed >= full * 0.99]


class Refreshing(Repeating):
    """Changes all listings repeatedly, each time as soon as the last change has been seen."""

    def __init__(self, lister, rounds):
        super().__init__()
        self.lister, self.rounds = lister, rounds

    def __enter__(self):
        self.rounds.begin_every(REFRESH)
        return super().__enter__()

    def step(self):
        self.lister.generation += 1
        self.rounds.wait_for(self.lister)

    def __exit__(self, *_):
        super().__exit__()
        self.rounds.begin_every(NEVER)


def settled_kb(gateway):
    """Resident memory once it has stayed the same for a while: the lowest value seen then."""
    lowest, since = gateway.rss_kb(), time.monotonic()
    while time.monotonic() < since + 3:
        time.sleep(0.1)
        now = gateway.rss_kb()
        if now < lowest * 0.99:
            lowest, since = now, time.monotonic()
    return lowest


def listing_times(port):
    """The columns about GET /olla/models."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        connection.request("GET", "/olla/models")
        response = connection.getresponse()
        body = response.read()
        times.append((time.perf_counter() - begun) * 1000)
        if response.status != 200:
            raise NotReady(f"/olla/models: status {response.status}")
    connection.close()
    return {
        "listing ms": f"{statistics.median(times):.2f}",
        "p99": f"{percentile(times, 99):.2f}",
        "MB": f"{len(body) / MB:.2f}",
    }


def load(options, stand, failures):
    """Chat at a steady rate beside open streams; returns the p99 of chat and how streams ended."""
    gap_ms = 100
    events = options.seconds * 1000 // gap_ms
    tools = {
        "chat": ["--connections", 16, "--rate", 300, "--duration", options.seconds],
        "sse": ["--streams", 50, "--gap-ms", gap_ms, "--events", events],
    }
    url = f"{stand.url}/v1/chat/completions"
    running = {}
    for name, arguments in tools.items():
        file = stand.directory / f"{name}.json"
        arguments = ["--url", url, "--model", MODEL, *arguments, "--json", file]
        running[name] = (stand.tool(name, *arguments), file)
    reports = {}
    for name, (process, file) in running.items():
        if process.wait() != 0:
            failures.append(f"{name}: exit status {process.returncode}")
        reports[name] = json.loads(file.read_text())
        if reports[name]["failures"]:
            failures.append(f"{name}: {reports[name]['failures']}")
    sse = reports["sse"]
    p99 = reports["chat"]["latency_us"]["p99"] / 1000
    return p99, f"{sse['streams_completed']}/{sse['streams_due']}"
