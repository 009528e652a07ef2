"""A machine that has run out of something."""

import contextlib
import http.client
import json
import os
import resource
import socket
import time

from trials.process import NotReady, wait_until
from trials.trust_rows import CHAT, Backend, chat_with, connect, gateway_over, named, row

BACKENDS = 3
DESCRIPTORS = 160
SECONDS = 6


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


@row(
    7,
    "out of file descriptors for six seconds: endpoints out of service",
    before="3 of 3",
    bound=0,
    unit="of 3",
)
def out_of_descriptors(options):
    backends = [Backend(named(["m"])) for _ in range(BACKENDS)]
    with (
        gateway_over(options, *backends, preexec_fn=few_descriptors, check_seconds=2) as gateway,
        contextlib.ExitStack() as held,
    ):
        # Connections from before the shortage.
        kept = [http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10) for _ in "ab"]
        for connection in kept:
            held.callback(connection.close)
            exchange(connection, "GET", "/internal/health")
        for _ in range(2 * DESCRIPTORS):
            with contextlib.suppress(socket.timeout):
                held.enter_context(connect(gateway, seconds=1))
        wait_until("descriptors are left", lambda: is_exhausted(gateway))
        worst, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            exchange(kept[0], "POST", CHAT, chat_with("m"))
            page = json.loads(exchange(kept[1], "GET", "/internal/status/endpoints"))
            worst = max(worst, sum(one["status"] != "healthy" for one in page["endpoints"]))
            time.sleep(0.1)
        return worst


def is_exhausted(gateway):
    """Whether no more is left than what accepting leaves to everything else."""
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd")) > DESCRIPTORS - 40


def exchange(connection, method, path, body=None):
    """The body of the response on this connection."""
    try:
        connection.request(method, path, body)
        return connection.getresponse().read()
    except http.client.HTTPException as error:
        raise NotReady(f"{method} {path}: {error!r}") from error
