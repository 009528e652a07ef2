"""Where requests go: balancers, sticky conversations, and how soon a disconnect reaches a backend.

Parts (--parts)
  balance   each balancer with 10,000 requests over 2, 5 and 20 endpoints of equal priority, one
            and two workers: the fewest and the most that an endpoint got, beside the ideal.
            Allowed: round-robin one request for each worker, least-connections 5 %, priority (a
            weighted random choice) five standard deviations. For least-connections the backends
            take 20 ms for a response
  sticky    1,000 conversations of 10 turns over 5 backends on two workers, half of them identified
            by a session header, half by their first messages; then one backend dies and 5 more
            turns follow. At least 99 % of later turns must go to the backend of the first turn,
            the conversations of the dead backend move once and stay, the others do not move
  cancel    in each of four windows 200 clients disconnect, every other one with a reset: the time
            until the gateway has closed the backend's side (queued: its own side; nothing was sent
            to a backend by then). p99 at most 100 ms, and the counter of client disconnects must
            count each
"""

import http.client
import json
import socket
import statistics
import struct
import threading
import time
from collections import Counter

from trials.cli import add_names
from trials.process import NotReady, reserve_port, wait_until
from trials.report import finish, percentile, table
from trials.stand import MODEL, Stand

BINARIES = ("olla", "olla-loadtest")
TOLERANCE = {
    "least-connections": lambda ideal, workers: 0.05 * ideal + workers,
    "round-robin": lambda ideal, workers: workers,
    "priority": lambda ideal, workers: 5 * ideal**0.5,
}


def add_arguments(parser):
    add_names(parser, "--parts", PARTS)
    parser.add_argument("--requests", type=int, default=10_000, help="of balance (10,000)")
    parser.add_argument("--conversations", type=int, default=1000, help="of sticky (1,000)")
    parser.add_argument("--trials", type=int, default=200, help="for each window of cancel (200)")


def run(options):
    failures = []
    for part in options.parts:
        PARTS[part](options, failures)
    return finish(failures)


def balance(options, failures):
    rows = []
    for workers in (1, 2):
        for count in (2, 5, 20):
            for name in TOLERANCE:
                with Stand(options, count, workers=workers) as stand:
                    stand.start_all(balancer=name)
                    row = balance_row(options, stand, name, failures)
                rows.append({"balancer": name, "endpoints": count, "workers": workers} | row)
    print(table(rows))


def balance_row(options, stand, name, failures):
    file = stand.directory / "chat.json"
    arguments = ["--url", f"{stand.url}/v1/chat/completions", "--model", MODEL]
    arguments += ["--requests", options.requests, "--connections", 80, "--json", file]
    if name == "least-connections":
        # It rightly gives less to a backend that the scheduler delays. Where responses take their
        # time anyway, such delays do not decide.
        arguments += ["--stub", '{"delay_ms":20}']
    stand.tool("chat", *arguments).wait()
    report = json.loads(file.read_text())
    counts = [stub.counters()["requests"]["/v1/chat/completions"] for stub in stand.stubs]
    ideal = options.requests / len(counts)
    worst = max(abs(count - ideal) for count in counts)
    what = f"{name}, {len(counts)} endpoints, {stand.workers} workers"
    if report["statuses"] != {"200": options.requests} or sum(counts) != options.requests:
        failures.append(
            f"{what}: {report['statuses']}, {report['failures']}, {sum(counts)} at backends"
        )
    if worst > TOLERANCE[name](ideal, stand.workers):
        failures.append(f"{what}: {worst:.0f} requests off the ideal")
    return {
        "ideal": f"{ideal:.0f}",
        "least": min(counts),
        "most": max(counts),
        "off by": f"{100 * worst / ideal:.2f} %",
    }


# ---- Sticky conversations ----

TURNS, LATER_TURNS, THREADS = 10, 5, 16
STICKY = """\
[proxy.sticky_sessions]
enabled = true
"""


def sticky(options, failures):
    with Stand(options, 5, workers=2) as stand:
        stand.start_all(more=STICKY)
        homes = [[] for _ in range(options.conversations)]
        outcomes = Counter()
        for turn in range(TURNS):
            take_turn(stand, homes, outcomes, turn)
        stayed = sum(home == places[0] for places in homes for home in places[1:])
        share = 100 * stayed / (len(homes) * (TURNS - 1))
        first = Counter(places[0] for places in homes)
        print(
            f"sticky: {share:.2f} % of later turns at the backend of the first turn; "
            f"conversations by backend {dict(sorted(first.items()))}; {dict(outcomes)}"
        )
        if share < 99:
            failures.append(f"sticky: only {share:.2f} % of later turns stayed")
        dead = stand.stubs[0]
        before = [places[-1] for places in homes]
        dead.kill()
        after = [[place] for place in before]
        outcomes = Counter()
        for turn in range(TURNS, TURNS + LATER_TURNS):
            take_turn(stand, after, outcomes, turn)
    moves = [sum(a != b for a, b in zip(places, places[1:])) for places in after]
    orphans = [count for place, count in zip(before, moves) if place == dead.name]
    others = [count for place, count in zip(before, moves) if place != dead.name]
    print(
        f"sticky after a death: {len(orphans)} conversations of the dead backend moved "
        f"{dict(Counter(orphans))} times, {len(others)} others {dict(Counter(others))} times; "
        f"{dict(outcomes)}"
    )
    if any(count != 1 for count in orphans):
        counts = dict(Counter(orphans))
        failures.append(f"sticky: conversations of a dead backend moved {counts} times")
    if any(others):
        counts = dict(Counter(others))
        failures.append(f"sticky: conversations of living backends moved {counts} times")


def take_turn(stand, homes, outcomes, turn):
    """One turn of every conversation, over connections that all conversations share."""
    lock = threading.Lock()
    numbers = iter(range(len(homes)))

    def work():
        connection = http.client.HTTPConnection("127.0.0.1", stand.gateway.port, timeout=10)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return
            place, outcome = converse(connection, number, turn)
            with lock:
                homes[number].append(place)
                outcomes[outcome] += 1

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def converse(connection, number, turn):
    """Sends one turn; returns the endpoint that served it and what became of its stickiness."""
    messages = [{"role": "user", "content": f"Conversation {number}: " + "once upon a time " * 40}]
    messages += [{"role": "user", "content": f"turn {place}"} for place in range(turn)]
    headers = {"Content-Type": "application/json"}
    if number % 2:
        headers["X-Olla-Session-ID"] = f"conversation-{number}"
    body = json.dumps({"model": MODEL, "messages": messages})
    connection.request("POST", "/olla/proxy/v1/chat/completions", body, headers)
    response = connection.getresponse()
    response.read()
    outcome = response.getheader("X-Olla-Sticky-Session")
    if response.status != 200:
        outcome = f"status {response.status}"
    return response.getheader("X-Olla-Endpoint"), outcome


# ---- Clients that disconnect ----

CANCEL_SERVER = """\
[server.request_limits]
max_buffered_bytes = 1000000
"""
# An endpoint that is healthy and accepts no connection, the only one of its type; it does not have
# the model of the other windows.
FULL = """
[[discovery.static.endpoints]]
name = "full"
url = "http://127.0.0.1:{port}"
type = "vllm"
health_check_url = "http://127.0.0.1:{stub}/health"
model_url = "http://127.0.0.1:{stub}/v1/models"
model_filter.exclude = ["{model}"]
check_interval = "2s"
"""
LEFT_MS_MAX = 100.0


def cancel(options, failures):
    full = reserve_port()
    stub_options = ["--model", "full-model", "--events", 2000, "--gap-ms", 5]
    with FullListener(full), Stand(options, 1, records=True, stub_options=stub_options) as stand:
        stand.start_all(
            server=CANCEL_SERVER,
            more=FULL.format(port=full, stub=stand.stubs[0].port, model=MODEL),
            interval="5s",
            patience=4000,
            proxy='connection_timeout = "30s"\n',
        )
        windows = Windows(options.trials, stand, failures)
        print(table([windows.row(name) for name in windows.kinds]))


class FullListener:
    """A listener whose queue is full: a connection to it is never made, and never refused."""

    def __init__(self, port):
        self.port = port

    def __enter__(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(0)
        self.fillers = []
        while not self.fillers or self.is_connected(self.fillers[-1]):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)
            time.sleep(0.05)
        self.fillers.pop().close()

    @staticmethod
    def is_connected(filler):
        try:
            filler.getpeername()
        except OSError:
            return False
        return True

    def __exit__(self, *_):
        for one in [*self.fillers, self.listener]:
            one.close()


class Windows:
    """The moments at which a client disconnects; each returns how many ms the effect took."""

    def __init__(self, trials, stand, failures):
        self.trials, self.stand, self.failures = trials, stand, failures
        self.gateway = stand.gateway
        self.record = stand.stubs[0].record.open()
        # The start of a line whose end the stub is still writing: a read may fall between pages.
        self.unfinished = ""
        self.noted = {}
        self.kinds = {
            "streaming": self.streaming,
            "first byte": self.first_byte,
            "connecting": self.connecting,
            "queued": self.queued,
        }

    def row(self, name):
        before = self.disconnects()
        holder = self.take_all_room() if name == "queued" else None
        taken = []
        for number in range(self.trials):
            nonce = f"{name.replace(' ', '-')}-{number}"
            try:
                taken.append(self.kinds[name](nonce, reset=number % 2 == 1))
            except NotReady as missing:
                self.failures.append(f"cancel, {name}: {missing}; {self.evidence(nonce)}")
        if holder:
            holder.close()
        counted = self.settled_disconnects(before) - before
        p99 = percentile(taken, 99)
        if p99 > LEFT_MS_MAX:
            self.failures.append(f"cancel, {name}: p99 {p99:.1f} ms")
        if counted != self.trials:
            self.failures.append(f"cancel, {name}: {self.trials} disconnects, {counted} counted")
        return {
            "window": name,
            "trials": self.trials,
            "missed": self.trials - len(taken),
            "p50 ms": f"{statistics.median(taken or [0]):.2f}",
            "p99 ms": f"{p99:.2f}",
            "max ms": f"{max(taken, default=0):.2f}",
            "counted": counted,
        }

    def evidence(self, nonce):
        """What was seen of a request whose end the backend did not notice: it shows whether the
        gateway failed to close the connection, or the machine did not run."""
        stub = self.stand.stubs[0]
        seen = [line for line in stub.record.read_text().splitlines() if nonce in line.split()]
        counters = stub.counters()
        return (
            f"recorded by then {seen}; in flight {counters['streams_in_flight']}, aborted "
            f"{counters['streams_aborted']}; the gateway has {len(self.gateway.sockets())} sockets"
        )

    def disconnects(self):
        return int(self.gateway.metric("olla_client_disconnects_total"))

    def settled_disconnects(self, before):
        """The counter once it has reached the expected value, or after two seconds."""
        limit = time.monotonic() + 2
        while self.disconnects() - before < self.trials and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(0.3)
        return self.disconnects()

    def send(self, nonce, path="proxy", model=MODEL, **fields):
        body = json.dumps({"model": model, "nonce": nonce} | fields, separators=(",", ":"))
        return self.send_raw(body, len(body), path, f"X-Olla-Window: {nonce}\r\n")

    def send_raw(self, body, length, path="proxy", header=""):
        client = socket.create_connection(("127.0.0.1", self.gateway.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = (
            f"POST /olla/{path}/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: application/json\r\n{header}Content-Length: {length}\r\n\r\n"
        )
        client.sendall((head + body).encode())
        return client

    def disconnect(self, client, reset):
        """Closes the connection; returns the time just before that."""
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        at = time.monotonic_ns()
        client.close()
        return at

    def recorded(self, kind, nonce):
        """The time at which the backend recorded this."""

        def look():
            *lines, self.unfinished = (self.unfinished + self.record.read()).split("\n")
            for line in lines:
                seen, ns, *rest = line.split()
                self.noted[seen, rest[0] if rest else "-"] = int(ns)
            return self.noted.get((kind, nonce))

        return wait_until(f"the backend recorded no {kind} {nonce}", look, 10)

    def streaming(self, nonce, reset):
        client = self.send(nonce, stream=True)
        while b"data:" not in client.recv(65536):
            pass
        at = self.disconnect(client, reset)
        return (self.recorded("L", nonce) - at) / 1e6

    def first_byte(self, nonce, reset):
        client = self.send(nonce, stub={"fault": "hang"})
        self.recorded("A", nonce)
        at = self.disconnect(client, reset)
        return (self.recorded("L", nonce) - at) / 1e6

    def connecting(self, nonce, reset):
        before = self.gateway.sockets()
        client = self.send(nonce, path="vllm", model="full-model")
        # The client's and the backend's.
        wait_until("no connection attempt", lambda: len(self.gateway.sockets() - before) >= 2, 5)
        return self.time_until_closed(client, before, reset)

    def take_all_room(self):
        """Announces a body that takes all the room there is for bodies."""
        client = self.half_a_body("holder", 999_000)
        time.sleep(0.2)
        return client

    def half_a_body(self, nonce, length):
        return self.send_raw(f'{{"nonce":"{nonce}"' + " " * 5000, length)

    def queued(self, nonce, reset):
        before = self.gateway.sockets()
        client = self.half_a_body(nonce, 500_000)
        wait_until("no connection", lambda: self.gateway.sockets() - before, 5)
        time.sleep(0.01)
        return self.time_until_closed(client, before, reset)

    def time_until_closed(self, client, before, reset):
        """Milliseconds from the disconnect until no socket of the request is left."""
        made = self.gateway.sockets() - before
        at = self.disconnect(client, reset)
        limit = at + 35 * 10**9
        while self.gateway.sockets() & made and time.monotonic_ns() < limit:
            time.sleep(0.0005)
        return (time.monotonic_ns() - at) / 1e6


PARTS = {"balance": balance, "sticky": sticky, "cancel": cancel}
