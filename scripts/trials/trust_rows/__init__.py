"""The rows of `scripts/run trust`, and the backend and clients that they have in common."""

import contextlib
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable

from trials.gateway import NO_LIMITS, Gateway, endpoint_config, server_config
from trials.process import NotReady, Processes, request

ROWS = []
CHECK_SECONDS = 1
START_SECONDS_MAX = 30


@dataclass
class Row:
    """One row; `measure(options)` returns the figure, in `unit`."""

    name: str
    item: int
    attack: str
    before: str
    bound: float
    unit: str
    measure: Callable


def row(item, attack, *, before, bound, unit):
    """Marks a function `f(options)` that returns a figure as a row."""

    def add(measure):
        name = measure.__name__.replace("_", "-")
        ROWS.append(Row(name, item, attack, before, bound, unit, measure))
        return measure

    return add


class Backend:
    """A backend with these models, as items of the listing of its kind. Counts health checks."""

    def __init__(self, models, kind="vllm"):
        self.kind, self.count = kind, len(models)
        key = "models" if kind == "ollama" else "data"
        listing = json.dumps({"object": "list", key: models}).encode()
        self.checks = checks = []
        self.chat = b'{"id":"c","object":"chat.completion","choices":[]}'
        chat = self.chat

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                is_listing = self.path in ("/v1/models", "/api/tags")
                if not is_listing:
                    checks.append(time.monotonic())
                self.reply(listing if is_listing else b"{}")

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.reply(chat)

            def reply(self, body):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def longest_gap(self, since):
        """The longest time without a health check from `since` until now, in seconds."""
        now = time.monotonic()
        times = [since, *(at for at in list(self.checks) if since <= at <= now), now]
        return max(later - earlier for earlier, later in zip(times, times[1:]))


def body_of(gateway, path, seconds=60):
    """The body of a page, which must have status 200."""
    status, _, body = request(gateway.port, "GET", path, timeout=seconds)
    if status != 200:
        raise NotReady(f"GET {path}: status {status}")
    return body


def named(names):
    """Items of a listing in OpenAI's form."""
    return [{"id": name, "object": "model"} for name in names]


@contextlib.contextmanager
def gateway_over(options, backend, *, workers=2, server="", limits=NO_LIMITS, more=""):
    """A gateway in front of one backend, with all its models."""
    with Processes() as processes:
        gateway = Gateway(processes, options.bin)
        own = f'check_interval = "{CHECK_SECONDS}s"\ncheck_timeout = "950ms"\n'
        url = f"http://127.0.0.1:{backend.port}"
        sections = [
            server_config(
                gateway.port, f"workers = {workers}\nrequest_logging = false\n{server}", limits
            ),
            '[logging]\nlevel = "warn"\n',
            more,
            endpoint_config("b0", url, kind=backend.kind, more=own),
        ]
        gateway.start("\n".join(sections))
        gateway.wait_settled({"b0": backend.count}, START_SECONDS_MAX)
        try:
            yield gateway
        finally:
            backend.server.shutdown()


@contextlib.contextmanager
def crowd(count, step):
    """Calls `step(number)` again and again on `count` threads while the context is open."""
    over = threading.Event()

    def work(number):
        while not over.is_set():
            try:
                step(number)
            except OSError:
                over.wait(0.05)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
