"""Requests that must not reach a backend, or not that often."""

import contextlib
import itertools
import time

from trials.process import request, reserve_port
from trials.trust_rows import CHAT, Backend, chat_with, crowd, gateway_over, named, need, row

OPERATIONS = [
    *("/api/" + name for name in ("pull", "push", "create", "copy", "delete", "list")),
    *("/api/v1/models/" + name for name in ("load", "unload", "download")),
]
PREFIXES = [
    "",
    *(
        "/olla/" + name
        for name in ("proxy", "openai", "openai-compatible", "ollama", "lmstudio", "lm-studio")
    ),
]
SPELLINGS = [
    lambda path: path,
    lambda path: path + "/",
    lambda path: "/" + path.replace("/", "//"),
    lambda path: path.upper(),
    lambda path: path[:-1] + f"%{ord(path[-1]):02x}",
    lambda path: path.replace("/", "%2F", 2).replace("%2F", "/", 1),
    lambda path: "/x/.." + path,
    lambda path: "/team" + path,
    lambda path: path + "?insecure=true",
]


@row(
    6,
    "operations of model management under every prefix and spelling: reach a backend",
    before="900",
    bound=0,
    unit="",
)
def management_operations(options):
    backends = [Backend(named(["m"]), "lm-studio"), Backend([{"name": "m"}], "ollama")]
    with gateway_over(options, *backends) as gateway:
        request(gateway.port, "POST", CHAT, chat_with("m"))
        need(sum(len(backend.received) for backend in backends) == 1, "no chat reached a backend")
        for prefix in PREFIXES:
            for operation in OPERATIONS:
                for spelling in SPELLINGS:
                    for method in ("POST", "DELETE"):
                        path = prefix + spelling(operation)
                        request(gateway.port, method, path, '{"model":"m"}')
        return sum(len(backend.received) for backend in backends) - 1


@row(
    15,
    "one request to an endpoint that is the gateway: requests that arrive",
    before="1,492",
    bound=2,
    unit="",
)
def requests_in_a_circle(options):
    backend, port = Backend(named(["m"])), reserve_port()
    backend.more = (
        f'health_check_url = "{backend.url}/health"\nmodel_url = "{backend.url}/v1/models"\n'
        "preserve_path = true\n"
    )
    backend.url = f"http://127.0.0.1:{port}/olla/proxy"
    with gateway_over(options, backend, port=port, level="info") as gateway:
        with contextlib.suppress(OSError):
            request(port, "POST", "/olla/proxy/v1/circle", "{}", timeout=5)
        # The log may be written a moment after the response.
        time.sleep(0.5)
        lines = gateway.log_text().splitlines()
        return sum("Access log" in line and "/v1/circle" in line for line in lines)


DISCOVERY = """\
[model_registry.routing_strategy]
type = "discovery"
options.discovery_refresh_on_miss = true
"""


@row(
    19,
    "10 clients request unknown models for 5 s: listings that the endpoint is asked for, a second",
    before="250 /s",
    bound=3,
    unit="/s",
)
def unknown_models(options):
    backend, counter = Backend(named(["m"])), itertools.count()
    with gateway_over(options, backend, more=DISCOVERY) as gateway:

        def miss(_):
            body = chat_with(f"unknown-{next(counter)}")
            request(gateway.port, "POST", CHAT, body, timeout=20)

        before, begun = len(backend.listings), time.monotonic()
        with crowd(10, miss):
            time.sleep(5)
        return (len(backend.listings) - before) / (time.monotonic() - begun)
