"""Pages and listings: readers and clients that leave."""

import http.client
import socket
import time

from trials.process import MemoryWatch
from trials.trust_rows import MB, Backend, body_of, crowd, gateway_over, named, row, slowest_chat

SECONDS = 8


def distinct(count):
    return named(f"family{number % 7}-{number}" for number in range(count))


def connections_to(gateway, count):
    return [http.client.HTTPConnection("127.0.0.1", gateway.port) for _ in range(count)]


def gap_under_readers(options, path, connections, models):
    """The longest time without a health check while clients read a page, in seconds."""
    backend = Backend(distinct(models))
    with gateway_over(options, backend) as gateway:
        clients = connections_to(gateway, connections)

        def read(number):
            clients[number].request("HEAD", path)
            clients[number].getresponse().read()

        with crowd(connections, read):
            begun = time.monotonic()
            time.sleep(SECONDS)
            return backend.longest_gap(begun)


@row(
    1,
    "200 connections read /internal/process: no health check for",
    before="12-20 s",
    bound=3,
    unit="s",
)
def readers_of_a_page(options):
    return gap_under_readers(options, "/internal/process", 200, 10)


@row(
    1,
    "100 connections read a listing of 12,000 models: no health check for",
    before="12-20 s",
    bound=3,
    unit="s",
)
def readers_of_a_listing(options):
    return gap_under_readers(options, "/olla/models?format=vllm", 100, 12_000)


def cased(number):
    """A capability of every model, in a spelling of its own for each number: each is rendered."""
    word = "completion"
    return "".join(c.upper() if number >> at & 1 else c for at, c in enumerate(word))


@row(
    3,
    "400 aborted requests for a listing of some MB: resident memory grows by",
    before="1,200 MB",
    bound=64,
    unit="MB",
)
def aborted_requests(options):
    with gateway_over(options, Backend(distinct(12_000))) as gateway:
        path = "/olla/models?format=vllm&capability="
        body_of(gateway, path + cased(0))
        with MemoryWatch(gateway.process, 0.05) as watch:
            for number in range(400):
                head = f"GET {path}{cased(number)} HTTP/1.1\r\nHost: h\r\n\r\n"
                with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                    client.sendall(head.encode())
            body_of(gateway, path + cased(1000))
        return (watch.peak - watch.before) / MB


@row(
    10,
    "50 connections read a listing of 9,800 models: the slowest chat takes",
    before="4,900 ms",
    bound=500,
    unit="ms",
)
def chats_beside_listings(options):
    with gateway_over(options, Backend(distinct(9_800))) as gateway:
        clients = connections_to(gateway, 50)

        def read(number):
            clients[number].request("HEAD", "/olla/models?format=vllm")
            clients[number].getresponse().read()

        body = '{"model":"family0-0","messages":[]}'
        with crowd(len(clients), read):
            return slowest_chat(gateway, body, SECONDS, pause=0.02)


@row(11, "6,000 names of one digest: the largest page has", before="355 MB", bound=8, unit="MB")
def names_of_one_model(options):
    names = [f"model-{number:04}" for number in range(6_000)]
    models = [{"name": name, "digest": "sha256:1", "size": 5} for name in names]
    pages = [
        "/internal/status/models?detailed=true&group=family",
        "/olla/models",
        "/olla/ollama/api/tags",
    ]
    with gateway_over(options, Backend(models, kind="ollama")) as gateway:
        sizes = [len(body_of(gateway, path)) for path in pages]
        return max(sizes) / MB
