"""The rows of `scripts/run trust`, and the backend and clients that they have in common."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from trials.gateway import NO_LIMITS, Gateway, endpoint_config, server_config
from trials.process import NotReady, Processes, request

ROWS = []
CHECK_SECONDS = 1
START_SECONDS_MAX = 30
LISTINGS = ("/v1/models", "/api/tags", "/api/v0/models", "/engines/v1/models", "/api/v1/models")
CHAT = "/olla/proxy/v1/chat/completions"
MESSAGES = "/olla/anthropic/v1/messages"
MB = 1 << 20
# A row that is over waits for no request.
END = 'shutdown_timeout = "1s"\n'


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


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Connections that break are what the rows are about."""


class Backend:
    """A backend with these models, as items of the listing of its kind.

    It counts health checks and listings, and keeps the path of each other request. `respond`, with
    the handler and the request's body, replaces its response to those.
    """

    def __init__(self, models, kind="vllm", respond=None, tls=None):
        self.kind, self.count, self.more = kind, len(models), ""
        key = "models" if kind == "ollama" else "data"
        listing = json.dumps({"object": "list", key: models}).encode()
        self.checks, self.listings, self.received = [], [], []
        self.chat = b'{"id":"c","object":"chat.completion","choices":[]}'
        respond = respond or (lambda handler, _: handler.reply(self.chat))
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                is_listing = self.path in LISTINGS
                (backend.listings if is_listing else backend.checks).append(time.monotonic())
                self.reply(listing if is_listing else b"{}")

            def do_POST(self):
                backend.received.append(self.path)
                respond(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            do_DELETE = do_POST

            def reply(self, body):
                self.begin("application/json", f"Content-Length: {len(body)}")
                self.wfile.write(body)

            def begin(self, content_type, *more):
                lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}", *more, "", ""]
                self.wfile.write("\r\n".join(lines).encode())

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}"
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


def chat_with(model, **more):
    """The body of a request for a chat."""
    message = {"role": "user", "content": "hi"}
    return json.dumps({"model": model, "max_tokens": 9, "messages": [message]} | more)


def post_head(path, length, more=""):
    """The head of a request as bytes, for clients that do not behave as an HTTP library does."""
    lines = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{more}"
    return f"{lines}Content-Length: {length}\r\n\r\n".encode()


def post_bytes(path, body):
    """A request as bytes."""
    return post_head(path, len(body)) + body.encode()


def connect(gateway, seconds=10, source="127.0.0.1"):
    """A connection to the gateway, from this address of the loopback network."""
    address = ("127.0.0.1", gateway.port)
    return socket.create_connection(address, seconds, source_address=(source, 0))


@contextlib.contextmanager
def gateway_over(
    options,
    *backends,
    workers=2,
    server="",
    limits=NO_LIMITS,
    more="",
    level="warn",
    check_seconds=CHECK_SECONDS,
    port=None,
    **start,
):
    """A gateway in front of these backends (`b0`, `b1`, ...), with all their models.

    `start` has further arguments of the gateway's start.
    """
    names = {f"b{number}": backend for number, backend in enumerate(backends)}
    own = f'check_interval = "{check_seconds}s"\ncheck_timeout = "{950 * check_seconds}ms"\n'
    try:
        with Processes() as processes:
            gateway = Gateway(processes, options.bin, port=port)
            # At other levels than this one the log is what a row looks at.
            logging = f"request_logging = {str(level != 'warn').lower()}\n"
            sections = [
                server_config(gateway.port, f"workers = {workers}\n{END}{logging}{server}", limits),
                f'[logging]\nlevel = "{level}"\n',
                more,
                *(
                    endpoint_config(name, backend.url, kind=backend.kind, more=own + backend.more)
                    for name, backend in names.items()
                ),
            ]
            gateway.start("\n".join(sections), **start)
            counts = {name: backend.count for name, backend in names.items()}
            gateway.wait_settled(counts, START_SECONDS_MAX)
            yield gateway
    finally:
        for backend in backends:
            backend.server.shutdown()
            backend.server.server_close()


def need(condition, what):
    """Without the condition a row has measured nothing."""
    if not condition:
        raise NotReady(what)


def slowest_chat(gateway, body, seconds, pause):
    """Sends one chat after another for some seconds; returns how long the slowest took, in ms."""
    slowest = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        request(gateway.port, "POST", CHAT, body, timeout=30)
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(pause)
    return slowest * 1000


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
