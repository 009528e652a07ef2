"""Requests that make a backend close its connection."""

import socket
import struct
import time

from trials.process import request
from trials.trust_rows import CHAT, MB, Backend, chat_with, gateway_over, named, need, row

BACKENDS = 3
REQUESTS = 12
# More than the sockets of a connection hold.
LARGE_BYTES = 8 * MB
READ_BYTES = 128 << 10


class Closing(Backend):
    """A backend that closes the connection of each request after its body, or resets it after
    `read_bytes` of the body."""

    def __init__(self, read_bytes=None):
        super().__init__(named(["m"]))
        backend = self

        def do_post(self):
            backend.received.append(self.path)
            self.close_connection = True
            if read_bytes is None:
                self.rfile.read(int(self.headers["Content-Length"]))
            else:
                self.rfile.read(read_bytes)
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        self.server.RequestHandlerClass.do_POST = do_post


class Outcome:
    """Of twelve requests in a row: the largest number of endpoints that were out of service, and
    the largest number of endpoints that got one of the requests."""

    def __init__(self, options, body, read_bytes=None, more=None):
        backends = [Closing(read_bytes) for _ in range(BACKENDS)]
        self.out_of_service = self.sends = 0
        with gateway_over(options, *backends, check_seconds=3) as self.gateway:
            for _ in range(REQUESTS):
                before = sum(len(backend.received) for backend in backends)
                request(self.gateway.port, "POST", CHAT, body, more or {}, timeout=20)
                now = sum(len(backend.received) for backend in backends)
                self.sends = max(self.sends, now - before)
                self.look()
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                time.sleep(0.1)
                self.look()
        need(self.sends, "no request reached a backend")

    def look(self):
        seen = self.gateway.endpoints()
        out = sum(status != "healthy" for status, _ in seen.values()) if seen else BACKENDS
        self.out_of_service = max(self.out_of_service, out)


def large():
    return chat_with("m", user="x" * LARGE_BYTES)


@row(
    2,
    "12 requests on which backends close: endpoints out of service",
    before="3 of 3",
    bound=0,
    unit="of 3",
)
def killers_out_of_service(options):
    return Outcome(options, chat_with("m")).out_of_service


@row(
    2,
    "12 requests on which backends close: endpoints that get one of them",
    before="3",
    bound=2,
    unit="",
)
def killers_sends(options):
    return Outcome(options, chat_with("m")).sends


@row(
    2,
    "12 requests whose head of 60 KB makes backends close: endpoints out of service",
    before="3 of 3",
    bound=0,
    unit="of 3",
)
def killers_by_head(options):
    more = {"X-Large": "x" * 60_000}
    return Outcome(options, chat_with("m"), more=more).out_of_service


@row(
    2,
    "12 bodies of 8 MB that backends reset within: endpoints out of service",
    before="3 of 3",
    bound=0,
    unit="of 3",
)
def resets_out_of_service(options):
    return Outcome(options, large(), READ_BYTES).out_of_service


@row(
    2,
    "12 bodies of 8 MB that backends reset within: endpoints that get one of them",
    before="3",
    bound=2,
    unit="",
)
def resets_sends(options):
    return Outcome(options, large(), READ_BYTES).sends
