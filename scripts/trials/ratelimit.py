"""How exactly the rate limit per client holds, measured on the real program.

600 requests a minute and a burst of 50, on 1, 2 and 8 workers, with 1 and with 50 clients
(distinguished by the X-Forwarded-For of a trusted peer), each sending far more than it may. An
ideal bucket admits 50 and then 10 each second, from a client's first request to its last.

Criteria, each with exit status 1: the sum over all clients is within 2 % of the ideal, and no
client gets more than one lease (a 64th of the burst, at least one token) above its ideal.
"""

import re
import socket
import threading
import time
from collections import Counter

from trials.process import NotReady
from trials.report import finish, table
from trials.stand import Stand

BINARIES = ("olla", "olla-loadtest")
PER_MINUTE, BURST, LEASE = 600, 50, 1
CONNECTIONS, BATCH = 8, 16
LIMITS = f"""\
global_requests_per_minute = 0
per_ip_requests_per_minute = {PER_MINUTE}
health_requests_per_minute = 0
pages_per_second = 0
burst_size = {BURST}
trust_proxy_headers = true
trusted_proxy_cidrs = ["127.0.0.0/8"]
"""
BODY = '{"model":"stub-model","input":"x"}'


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=10, help="for each row (10)")


def run(options):
    rows, failures = [], []
    for workers in (1, 2, 8):
        for clients in (1, 50):
            with Stand(options, 1, workers=workers) as stand:
                stand.start_all(limits=LIMITS)
                rows.append(Row(stand, clients).fill(options.seconds, failures))
    print(table(rows))
    return finish(failures)


class Row:
    def __init__(self, stand, clients):
        self.stand, self.clients = stand, clients
        self.lock = threading.Lock()
        self.admitted, self.statuses = Counter(), Counter()
        self.first, self.last = {}, {}
        self.broken = []

    def fill(self, seconds, failures):
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self.send_until, args=(place * 7, end))
            for place in range(CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = PER_MINUTE / 60
        ideal = {name: BURST + rate * (self.last[name] - self.first[name]) for name in self.first}
        above = max(self.admitted[name] - ideal[name] for name in ideal)
        below = max(ideal[name] - self.admitted[name] for name in ideal)
        admitted, wanted = sum(self.admitted.values()), sum(ideal.values())
        off = 100 * (admitted - wanted) / wanted
        name = f"{self.stand.workers} workers, {self.clients} clients"
        failures += [f"{name}: {what}" for what in self.broken]
        if abs(off) > 2:
            failures.append(f"{name}: {off:+.2f} % off the ideal")
        if above > LEASE:
            failures.append(f"{name}: a client got {above:.2f} tokens above its ideal")
        if set(self.statuses) - {200, 429}:
            failures.append(f"{name}: statuses {dict(self.statuses)}")
        return {
            "workers": self.stand.workers,
            "clients": self.clients,
            "sent/s": f"{self.statuses.total() / seconds:.0f}",
            "admitted": admitted,
            "ideal": f"{wanted:.1f}",
            "off by": f"{off:+.2f} %",
            "most above": f"{above:+.2f}",
            "most below": f"{-below:+.2f}",
        }

    def send_until(self, turn, end):
        """Sends batches of requests until the end, the clients taking turns."""
        connection = socket.create_connection(("127.0.0.1", self.stand.gateway.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < end:
            names = [(turn + number) % self.clients for number in range(BATCH)]
            turn += BATCH
            begun = time.monotonic()
            connection.sendall(b"".join(self.request(name) for name in names))
            try:
                statuses = self.statuses_of_batch(connection)
            except NotReady as reason:
                self.broken.append(reason)
                break
            now = time.monotonic()
            with self.lock:
                for name, status in zip(names, statuses):
                    self.statuses[status] += 1
                    self.admitted[name] += status == 200
                    self.first[name] = min(self.first.get(name, begun), begun)
                    self.last[name] = max(self.last.get(name, now), now)
        connection.close()

    @staticmethod
    def request(name):
        return (
            f"POST /olla/proxy/v1/embeddings HTTP/1.1\r\nHost: x\r\n"
            f"X-Forwarded-For: 203.0.113.{name + 1}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
        ).encode()

    @staticmethod
    def statuses_of_batch(connection):
        """The statuses of one batch; responses come in order and all have a length."""
        data, statuses = b"", []
        while len(statuses) < BATCH:
            head, mark, rest = data.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: (\d+)", head, re.I) if mark else None
            if length and len(rest) >= int(length.group(1)):
                statuses.append(int(head[9:12]))
                data = rest[int(length.group(1)) :]
                continue
            piece = connection.recv(65536)
            if not piece:
                raise NotReady(f"the gateway closed the connection after {head[:200]!r}")
            data += piece
        return statuses
