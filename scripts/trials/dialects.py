"""What each dialect costs: translated beside passed through, and how soon a disconnect arrives.

Starts a gateway with one core in front of servers that respond at once, and measures its processor
time for a request of 1 KB, 100 KB and 1 MB and for an event of a stream, in every dialect, passed
through and translated. Beside the requests of 1 MB another process asks the same core for its
health, again and again: its slowest response shows how long the core is held. Then clients
disconnect before the response, after its first event and in mid-stream; the servers measure how
long after that their connection closes. Prints two tables; exit status 1 if a disconnect takes more
than the bound.
"""

import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from trials.cli import add_names, positive
from trials.gateway import Gateway, endpoint_config, server_config
from trials.process import NotReady, Processes, wait_until
from trials.report import percentile, table

BINARIES = ("olla",)
SIZES = {"1 KB": 1 << 10, "100 KB": 100 << 10, "1 MB": 1 << 20}
# Requests of each size in a round: enough for the clock of the processor time.
REQUESTS = {"1 KB": 200, "100 KB": 60, "1 MB": 20}
EVENTS = 1000
EVENT_GAP = 0.001
SETTLE_SECONDS_MAX = 30
# The contract's bound for the close of the server's connection (docs/contract/dialects.md#4).
LEFT_SECONDS_MAX = 1
WINDOWS = ("before", "first", "middle")
MIDDLE_EVENTS = 20


@dataclass
class Dialect:
    """An API: its path, and how a request and a server's own response look in it."""

    name: str
    path: str
    # The type of an endpoint that speaks it.
    native: str
    # Makes the body of a model, a text, and whether a stream is wanted.
    body: object
    # The path that such an endpoint gets, its whole response, and an event of its stream.
    native_path: str
    whole: dict
    event: bytes
    content_type: str = "text/event-stream"


def messages(text):
    return [{"role": "user", "content": text}]


def named_event(kind, **more):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
CHAT_EVENT = (
    b"data: %s\n\n"
    % json.dumps(
        {**CHUNK, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}
    ).encode()
)
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHAT_WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    ],
    "usage": USAGE,
}
DIALECTS = [
    Dialect(
        "openai-chat",
        "/olla/proxy/v1/chat/completions",
        "vllm",
        lambda model, text, stream: {"model": model, "messages": messages(text), "stream": stream},
        "/v1/chat/completions",
        CHAT_WHOLE,
        CHAT_EVENT,
    ),
    Dialect(
        "anthropic-messages",
        "/olla/anthropic/v1/messages",
        "vllm",
        lambda model, text, stream: {
            "model": model,
            "max_tokens": 9,
            "messages": messages(text),
            "stream": stream,
        },
        "/v1/messages",
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": "ok"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
        named_event("content_block_delta", index=0, delta={"type": "text_delta", "text": " word"}),
    ),
    Dialect(
        "openai-responses",
        "/olla/proxy/v1/responses",
        "vllm",
        lambda model, text, stream: {
            "model": model,
            "input": messages(text),
            "stream": stream,
            "store": False,
        },
        "/v1/responses",
        {"id": "resp_1", "object": "response", "status": "completed", "output": []},
        named_event(
            "response.output_text.delta",
            item_id="msg_1",
            output_index=0,
            content_index=0,
            delta=" word",
            sequence_number=9,
        ),
    ),
    Dialect(
        "ollama-native",
        "/olla/proxy/api/chat",
        "ollama",
        lambda model, text, stream: {"model": model, "messages": messages(text), "stream": stream},
        "/api/chat",
        {"model": "m", "message": {"role": "assistant", "content": "ok"}, "done": True},
        b'{"model":"m","message":{"role":"assistant","content":" word"},"done":false}\n',
        "application/x-ndjson",
    ),
]
# What speaks nothing but chat completions.
CHAT_ONLY = "lmdeploy"
# The name of its model tells what an endpoint is.
NATIVE, TRANSLATED = "native-{}", "chat-only"


def add_arguments(parser):
    names = [dialect.name for dialect in DIALECTS]
    add_names(parser, "--only", names, text="dialects, comma-separated; default: all of ")
    parser.add_argument("--rounds", type=positive(int), default=3, help="rounds of requests (3)")
    parser.add_argument(
        "--leaves", type=positive(int), default=40, help="disconnects in each window (40)"
    )


def run(options):
    chosen = [dialect for dialect in DIALECTS if dialect.name in options.only]
    failed = False
    with Processes() as processes:
        servers = {kind: Server(kind) for kind in (CHAT_ONLY, "vllm", "ollama")}
        gateway = start(processes, options.bin, servers)
        costs, leaves = [], []
        for dialect in chosen:
            for mode, model in modes(dialect):
                costs.append(cost(gateway, dialect, mode, model, options.rounds))
        print(f"\nprocessor time of the gateway, in microseconds\n\n{table(costs)}\n", flush=True)
        for dialect in chosen:
            for mode, model in modes(dialect):
                server = servers[CHAT_ONLY if mode == "translated" else dialect.native]
                row, is_late = left(gateway, server, dialect, (mode, model), options.leaves)
                leaves.append(row)
                failed |= is_late
        bound = LEFT_SECONDS_MAX * 1000
        print(f"milliseconds from a disconnect to the close at the server, bound {bound}\n")
        print(table(leaves))
    return 1 if failed else 0


def start(processes, binary, servers):
    gateway = Gateway(processes, binary)
    own = "workers = 1\nrequest_logging = false\n"
    config = server_config(gateway.port, own) + '[logging]\nlevel = "warn"\n'
    config += "".join(endpoint_config(kind, server.url, kind) for kind, server in servers.items())
    gateway.start(config)
    gateway.wait_settled(dict.fromkeys(servers, 1), SETTLE_SECONDS_MAX)
    return gateway


def modes(dialect):
    """The modes of a dialect, each with the model whose endpoint leads to it."""
    yield "passed", NATIVE.format(dialect.native)
    if dialect.name != "openai-chat":
        yield "translated", TRANSLATED


# ---- Servers ----


class Server:
    """A server of one type that responds at once, and sees when its clients disconnect."""

    def __init__(self, kind):
        self.model = TRANSLATED if kind == CHAT_ONLY else NATIVE.format(kind)
        self.silent = False
        self.begun, self.left = [], []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.server.mine = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.server.mine.model
        listings = {
            "/api/tags": {"models": [{"name": name, "model": name}]},
            "/v1/models": {"object": "list", "data": [{"id": name, "object": "model"}]},
        }
        self.reply(listings.get(self.path, {}))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = [dialect for dialect in DIALECTS if dialect.native_path == self.path]
        if not found or self.server.mine.model == TRANSLATED != json_model(body):
            return self.reply({"error": "no such route"}, 404)
        dialect = found[0]
        if self.server.mine.silent:
            return self.wait_for_end(time.monotonic() + 10)
        if b'"stream":true' not in body.replace(b'": ', b'":'):
            return self.reply(dialect.whole)
        self.begin(dialect.content_type, "Transfer-Encoding: chunked")
        return self.events(dialect.event)

    def events(self, event):
        """Events at a steady pace until the last one, or until the client disconnects."""
        chunk = b"%x\r\n%s\r\n" % (len(event), event)
        mine = self.server.mine
        due = time.monotonic()
        try:
            for number in range(EVENTS):
                self.wfile.write(chunk)
                if number == 0:
                    mine.begun.append(due)
                due += EVENT_GAP
                if self.wait_for_end(due, begins=False):
                    return
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            mine.left.append(time.monotonic())
            self.close_connection = True

    def wait_for_end(self, until, begins=True):
        """Waits until a moment; True if the client disconnected before."""
        mine = self.server.mine
        if begins:
            mine.begun.append(time.monotonic())
        while (remaining := until - time.monotonic()) > 0:
            if not select.select([self.connection], [], [], remaining)[0]:
                break
            with contextlib.suppress(OSError):
                if self.connection.recv(1, socket.MSG_PEEK):
                    return False
            mine.left.append(time.monotonic())
            self.close_connection = True
            return True
        return False

    def reply(self, document, status=200):
        body = json.dumps(document).encode()
        self.begin("application/json", f"Content-Length: {len(body)}", status=status)
        self.wfile.write(body)

    def begin(self, content_type, *more, status=200):
        lines = [f"HTTP/1.1 {status} OK", f"Content-Type: {content_type}", *more, "", ""]
        self.wfile.write("\r\n".join(lines).encode())


def json_model(body):
    """The model of a request; the field is the first of all bodies here."""
    return body.split(b'"', 4)[3].decode()


# ---- Costs ----


def cpu_ns(process):
    """Processor time of all threads of a process (proc(5), schedstat)."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def encoded(dialect, model, size, stream=False):
    """A request of about this size: text as agents send it, with line ends and quotes."""
    line = 'let x = format!("{a}"); // a line of a file\n'
    text = line * max(1, size // len(json.dumps(line)))
    body = json.dumps(dialect.body(model, text, stream)).encode()
    head = [
        f"POST {dialect.path} HTTP/1.1",
        "Host: gateway",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


# Asks for the health page on one connection until its input ends; prints the times in ms.
PROBE = """
import select, socket, sys, time
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
times = []
while not select.select([sys.stdin], [], [], 0.0005)[0]:
    begin = time.monotonic()
    client.sendall(b"GET /internal/health HTTP/1.1\\r\\nHost: g\\r\\n\\r\\n")
    client.recv(65536)
    times.append((time.monotonic() - begin) * 1000)
times.sort()
print(times[len(times) * 99 // 100], times[-1])
"""


@contextlib.contextmanager
def probe(gateway, row):
    """Puts the 99th percentile and the slowest response of the probe into a row."""
    command = [sys.executable, "-c", PROBE, str(gateway.port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        yield
        printed = process.communicate("\n")[0].split()
    row["beside 1 MB, p99 ms"], row["worst ms"] = (f"{float(each):.1f}" for each in printed)


def cost(gateway, dialect, mode, model, rounds):
    row = {"dialect": dialect.name, "mode": mode}
    held = {}
    for name, size in SIZES.items():
        sent = encoded(dialect, model, size)
        took = []
        with connect(gateway) as client:
            exchange(client, sent)
            for _ in range(rounds):
                before = cpu_ns(gateway.process)
                for _ in range(REQUESTS[name]):
                    exchange(client, sent)
                took.append((cpu_ns(gateway.process) - before) / REQUESTS[name] / 1000)
            if size == max(SIZES.values()):
                with probe(gateway, held):
                    for _ in range(REQUESTS[name]):
                        exchange(client, sent)
        row[name] = f"{sorted(took)[len(took) // 2]:.0f}"
    took = []
    sent = encoded(dialect, model, 100, stream=True)
    with connect(gateway) as client:
        for _ in range(rounds):
            before = cpu_ns(gateway.process)
            exchange(client, sent)
            took.append((cpu_ns(gateway.process) - before) / EVENTS / 1000)
    row["event"] = f"{sorted(took)[len(took) // 2]:.1f}"
    return row | held


def connect(gateway):
    return socket.create_connection(("127.0.0.1", gateway.port), 30)


def exchange(client, sent):
    """Sends a request and reads the whole response, which must have status 200."""
    client.sendall(sent)
    received = b""
    while b"\r\n\r\n" not in received:
        received += more(client)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise NotReady(f"the gateway responded {head.splitlines()[0]!r}: {body[:300]!r}")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while not body.endswith(b"0\r\n\r\n"):
            body = body[-8:] + more(client)
        return
    length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += more(client)


def more(client):
    received = client.recv(1 << 16)
    if not received:
        raise NotReady("the gateway closed the connection")
    return received


# ---- Disconnects ----


def left(gateway, server, dialect, how, count):
    """The times of one dialect and mode, and whether one is beyond the bound."""
    mode, model = how
    row = {"dialect": dialect.name, "mode": mode}
    worst = 0
    sent = encoded(dialect, model, 100, stream=True)
    for window in WINDOWS:
        times = [leave(gateway, server, sent, window) * 1000 for _ in range(count)]
        worst = max(worst, *times)
        row[f"{window} p50"] = f"{percentile(times, 50):.1f}"
        row[f"{window} p99"] = f"{percentile(times, 99):.1f}"
    row["worst"] = f"{worst:.1f}"
    return row, worst > LEFT_SECONDS_MAX * 1000


def leave(gateway, server, sent, window):
    """Seconds from a client's close to that of the server's connection."""
    server.silent = window == "before"
    server.begun.clear()
    server.left.clear()
    with connect(gateway) as client:
        client.sendall(sent)
        wait_until("the server has no request", lambda: server.begun, pause=0.0005)
        seen = 0
        wanted = {"before": 0, "first": 1, "middle": MIDDLE_EVENTS}[window]
        while seen < wanted:
            seen += more(client).count(b"word")
        begin = time.monotonic()
    wait_until(
        "the server's connection stays open", lambda: server.left, LEFT_SECONDS_MAX * 5, 0.0005
    )
    return max(server.left[0] - begin, 0)
