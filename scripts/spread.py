#!/usr/bin/env python3
"""Where requests go: balancers, sticky conversations, and how soon a backend learns that nobody waits."""

import argparse
import http.client
import json
import re
import socket
import statistics
import struct
import sys
import threading
import time
from collections import Counter

from ports import reserve_port
from stand import NotReady, Stand, add_binaries, request, table, wait_until

HELP = """\
Parts (--parts)
  balance   each balancer with 10,000 requests over 2, 5 and 20 endpoints of equal priority, one
            and two workers: the least and the most that an endpoint got, beside the ideal.
            Allowed: round-robin one request for each worker, least-connections 5 %, priority (a
            weighted choice by chance) five standard deviations. For least-connections the backends
            take 20 ms for an answer
  sticky    1,000 conversations of 10 turns over 5 backends on two workers, half of them told apart
            by a session header, half by their first messages; then one backend dies and 5 more
            turns follow. At least 99 % of later turns must be at the first turn's backend, the
            dead one's conversations move once and stay, the others do not move
  cancel    in each of four windows 200 clients leave, every other one with a reset: the time until
            the gateway has closed the backend's side (queued: its own side; nothing was sent to a
            backend then). p99 at most 100 ms, and the counter of left clients must know each
"""

HEADERS = {"Content-Type": "application/json"}
TOLERANCE = {"least-connections": lambda ideal, workers: 0.05 * ideal + workers,
             "round-robin": lambda ideal, workers: workers,
             "priority": lambda ideal, workers: 5 * ideal**0.5}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_binaries(parser)
    parser.add_argument("--parts", default="balance,sticky,cancel", help="comma-separated")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    failures = []
    for part in options.parts.split(","):
        {"balance": balance, "sticky": sticky, "cancel": cancel}[part](options, failures)
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{len(failures)} failures")
    sys.exit(1 if failures else 0)


def balance(options, failures):
    rows = []
    for workers in (1, 2):
        for count in (2, 5, 20):
            for name in TOLERANCE:
                with Stand(options, count, workers=workers) as stand:
                    stand.start(balancer=name)
                    row = spread(options, stand, name, failures)
                rows.append({"balancer": name, "endpoints": count, "workers": workers} | row)
    print(table(rows, list(rows[0])))


def spread(options, stand, name, failures):
    report = stand.directory / "chat.json"
    # Least-connections rightly gives less to a backend that the scheduler holds up. Where answers
    # take their time anyway, that is not what decides.
    delay = ["--stub", '{"delay_ms":20}'] if name == "least-connections" else []
    stand.tool("chat", "--url", f"{stand.url}/v1/chat/completions", "--model", "stub-model",
               "--requests", options.requests, "--connections", 80, "--json", report, *delay).wait()
    told = json.loads(report.read_text())
    counts = [stub.counters()["requests"]["/v1/chat/completions"] for stub in stand.stubs]
    ideal = options.requests / len(counts)
    worst = max(abs(count - ideal) for count in counts)
    what = f"{name}, {len(counts)} endpoints, {stand.workers} workers"
    if told["statuses"] != {"200": options.requests} or sum(counts) != options.requests:
        failures.append(f"{what}: {told['statuses']}, {told['failures']}, {sum(counts)} at backends")
    if worst > TOLERANCE[name](ideal, stand.workers):
        failures.append(f"{what}: {worst:.0f} requests beside the ideal")
    return {"ideal": f"{ideal:.0f}", "least": min(counts), "most": max(counts),
            "off by": f"{100 * worst / ideal:.2f} %"}


# ---- Sticky conversations ----------------------------------------------------------------------

CONVERSATIONS, TURNS, LATER_TURNS, THREADS = 1000, 10, 5, 16
STICKY = """\
[proxy.sticky_sessions]
enabled = true
"""


def sticky(options, failures):
    with Stand(options, 5, workers=2) as stand:
        stand.start(more=STICKY)
        homes = [[] for _ in range(CONVERSATIONS)]
        told = Counter()
        for turn in range(TURNS):
            take_turn(stand, homes, told, turn)
        stayed = sum(home == places[0] for places in homes for home in places[1:])
        share = 100 * stayed / (CONVERSATIONS * (TURNS - 1))
        first = Counter(places[0] for places in homes)
        print(f"sticky: {share:.2f} % of later turns at the first turn's backend; "
              f"conversations by backend {dict(sorted(first.items()))}; {dict(told)}")
        if share < 99:
            failures.append(f"sticky: only {share:.2f} % of later turns stayed")
        dead = stand.stubs[0]
        before = [places[-1] for places in homes]
        dead.kill()
        after = [[place] for place in before]
        told = Counter()
        for turn in range(TURNS, TURNS + LATER_TURNS):
            take_turn(stand, after, told, turn)
    moves = [sum(a != b for a, b in zip(places, places[1:])) for places in after]
    hers = [count for place, count in zip(before, moves) if place == dead.name]
    others = [count for place, count in zip(before, moves) if place != dead.name]
    print(f"sticky after a death: {len(hers)} conversations of the dead one moved {dict(Counter(hers))} times, "
          f"{len(others)} others {dict(Counter(others))} times; {dict(told)}")
    if any(count != 1 for count in hers):
        failures.append(f"sticky: conversations of a dead backend moved {dict(Counter(hers))} times")
    if any(others):
        failures.append(f"sticky: conversations of living backends moved {dict(Counter(others))} times")


def take_turn(stand, homes, told, turn):
    """One turn of every conversation, over connections that know nothing of conversations."""
    lock = threading.Lock()
    numbers = iter(range(CONVERSATIONS))

    def work():
        connection = http.client.HTTPConnection("127.0.0.1", stand.port, timeout=10)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return
            place, outcome = say(connection, number, turn)
            with lock:
                homes[number].append(place)
                told[outcome] += 1

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def say(connection, number, turn):
    messages = [{"role": "user", "content": f"Conversation {number}: " + "once upon a time " * 40}]
    messages += [{"role": "user", "content": f"turn {place}"} for place in range(turn)]
    headers = dict(HEADERS)
    if number % 2:
        headers["X-Olla-Session-ID"] = f"conversation-{number}"
    body = json.dumps({"model": "stub-model", "messages": messages})
    connection.request("POST", "/olla/proxy/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    answer.read()
    outcome = answer.getheader("X-Olla-Sticky-Session")
    if answer.status != 200:
        outcome = f"status {answer.status}"
    return answer.getheader("X-Olla-Endpoint"), outcome


# ---- Clients that leave --------------------------------------------------------------------------

CANCEL_SERVER = """\
[server.request_limits]
max_buffered_bytes = 1000000
"""
# An endpoint that is healthy and accepts no connection, the only one of its type; the model of the
# other windows is not its.
FULL = """
[[discovery.static.endpoints]]
name = "full"
url = "http://127.0.0.1:{port}"
type = "vllm"
health_check_url = "http://127.0.0.1:{stub}/health"
model_url = "http://127.0.0.1:{stub}/v1/models"
model_filter.exclude = ["stub-model"]
check_interval = "2s"
"""
LEFT_MS_MAX = 100.0


def cancel(options, failures):
    full_port = reserve_port()
    stub_options = ["--model", "full-model", "--events", 2000, "--gap-ms", 5]
    with FullListener(full_port), Stand(options, 1, records=True, stub_options=stub_options) as stand:
        more = FULL.format(port=full_port, stub=stand.stubs[0].port)
        stand.start(server=CANCEL_SERVER, more=more, interval="5s", patience=4000, proxy='connection_timeout = "30s"')
        windows = Windows(options, stand, full_port, failures)
        rows = [windows.trial(name) for name in ("streaming", "first byte", "connecting", "queued")]
    print(table(rows, list(rows[0])))


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
        while not self.fillers or self.is_taken(self.fillers[-1]):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)
            time.sleep(0.05)
        self.fillers.pop().close()

    @staticmethod
    def is_taken(filler):
        try:
            filler.getpeername()
        except OSError:
            return False
        return True

    def __exit__(self, *_):
        for one in [*self.fillers, self.listener]:
            one.close()


class Windows:
    def __init__(self, options, stand, full_port, failures):
        self.options, self.stand, self.full_port, self.failures = options, stand, full_port, failures
        self.record = stand.stubs[0].record.open()
        # The start of a line whose end the stub is still writing: a read may fall between pages.
        self.unfinished = ""
        self.noted = {}

    def trial(self, name):
        ask = {"streaming": self.streaming, "first byte": self.first_byte,
               "connecting": self.connecting, "queued": self.queued}[name]
        before = self.left_clients()
        holder = self.hold_the_room() if name == "queued" else None
        taken = []
        for number in range(self.options.trials):
            nonce = f"{name.replace(' ', '-')}-{number}"
            try:
                taken.append(ask(nonce, reset=number % 2 == 1))
            except NotReady as missing:
                # The worst there is: a backend that nobody told. What was seen of it helps to say
                # whether it was that, or a machine that stood still.
                stub = self.stand.stubs[0]
                seen = [line for line in stub.record.read_text().splitlines() if f" {nonce} " in f"{line} "]
                counters = stub.counters()
                self.failures.append(
                    f"cancel, {name}: no {missing} within its time; noted then {seen}; in flight "
                    f"{counters['streams_in_flight']}, left {counters['streams_aborted']}; the gateway "
                    f"has {len(self.stand.sockets())} sockets")
        if holder:
            holder.close()
        counted = self.settled_count(before) - before
        taken.sort()
        p99 = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
        if p99 > LEFT_MS_MAX:
            self.failures.append(f"cancel, {name}: p99 {p99:.1f} ms")
        if counted != self.options.trials:
            self.failures.append(f"cancel, {name}: {self.options.trials} clients left, {counted} counted")
        return {"window": name, "trials": self.options.trials, "missed": self.options.trials - len(taken), "p50 ms": f"{statistics.median(taken):.2f}",
                "p99 ms": f"{p99:.2f}", "max ms": f"{taken[-1]:.2f}", "counted": counted}

    def left_clients(self):
        page = request(self.stand.port, "GET", "/internal/metrics")[2].decode()
        found = re.search(r"^olla_client_disconnects_total(?:\{.*\})? (\d+)", page, re.M)
        return int(found.group(1)) if found else 0

    def settled_count(self, before):
        """The counter once it has reached what is expected, or after two seconds."""
        limit = time.monotonic() + 2
        while self.left_clients() - before < self.options.trials and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(0.3)
        return self.left_clients()

    def send(self, nonce, path="proxy", model="stub-model", **fields):
        body = json.dumps({"model": model, "nonce": nonce} | fields, separators=(",", ":"))
        return self.send_raw(f"POST /olla/{path}/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                             f"Content-Type: application/json\r\nX-Olla-Window: {nonce}\r\n"
                             f"Content-Length: {len(body)}\r\n\r\n{body}")

    def send_raw(self, text):
        client = socket.create_connection(("127.0.0.1", self.stand.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(text.encode())
        return client

    def leave(self, client, reset):
        """Closes; the time just before that."""
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        at = time.monotonic_ns()
        client.close()
        return at

    def recorded(self, kind, nonce):
        """When the backend noted this."""
        def look():
            *lines, self.unfinished = (self.unfinished + self.record.read()).split("\n")
            for line in lines:
                seen, ns, *rest = line.split()
                self.noted[seen, rest[0] if rest else "-"] = int(ns)
            return self.noted.get((kind, nonce))
        return wait_until(f"the backend's note {kind} {nonce}", look, 10)

    def streaming(self, nonce, reset):
        client = self.send(nonce, stream=True)
        while b"data:" not in client.recv(65536):
            pass
        at = self.leave(client, reset)
        return (self.recorded("L", nonce) - at) / 1e6

    def first_byte(self, nonce, reset):
        client = self.send(nonce, stub={"fault": "hang"})
        self.recorded("A", nonce)
        at = self.leave(client, reset)
        return (self.recorded("L", nonce) - at) / 1e6

    def connecting(self, nonce, reset):
        before = self.stand.sockets()
        client = self.send(nonce, path="vllm", model="full-model")
        # The client's and the backend's.
        wait_until("a connection under way", lambda: len(self.stand.sockets() - before) >= 2, 5)
        return self.time_until_closed(client, before, reset)

    def hold_the_room(self):
        """A body that is announced and takes all the room there is for bodies."""
        client = self.half_a_body("holder", 999_000)
        time.sleep(0.2)
        return client

    def half_a_body(self, nonce, length):
        return self.send_raw(f"POST /olla/proxy/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                             f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                             f'{{"nonce":"{nonce}"' + " " * 5000)

    def queued(self, nonce, reset):
        before = self.stand.sockets()
        client = self.half_a_body(nonce, 500_000)
        wait_until("the connection", lambda: self.stand.sockets() - before, 5)
        time.sleep(0.01)
        return self.time_until_closed(client, before, reset)

    def time_until_closed(self, client, before, reset):
        """Milliseconds from the client's leaving until no socket of its request is left."""
        made = self.stand.sockets() - before
        at = self.leave(client, reset)
        limit = at + 35 * 10**9
        while self.stand.sockets() & made and time.monotonic_ns() < limit:
            time.sleep(0.0005)
        return (time.monotonic_ns() - at) / 1e6


if __name__ == "__main__":
    main()
