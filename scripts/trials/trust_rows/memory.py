"""Memory that clients hold, and what others wait for because of it."""

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

from trials.process import MemoryWatch, resident_bytes
from trials.trust_rows import (
    CHAT,
    MB,
    MESSAGES,
    Backend,
    chat_with,
    connect,
    gateway_over,
    named,
    need,
    post_bytes,
    post_head,
    row,
)

ANNOUNCED_BYTES = 100 * MB
NAME_BYTES = 9 * MB
COLLECTED_BYTES = 15 * MB


def budget(mb, more=""):
    return f'[server.request_limits]\nmax_buffered_bytes = "{mb}MB"\n{more}'


def all_at_once(step, count):
    """Calls `step(number)` on as many threads; failures of the connection are a result too."""

    def attempt(number):
        try:
            return step(number)
        except OSError:
            return None

    with ThreadPoolExecutor(min(count, 50)) as pool:
        return list(pool.map(attempt, range(count)))


def body_beside(options, sent_bytes, source):
    """What a body of 1 MB from this address needs, in ms, while three connections announce 100
    MB, of which they send these bytes as far as they are taken."""
    with (
        gateway_over(options, Backend(named(["m"])), server=budget(300)) as gateway,
        contextlib.ExitStack() as held,
    ):
        clients = [held.enter_context(connect(gateway, seconds=1)) for _ in range(3)]

        def announce(number):
            clients[number].sendall(post_head(CHAT, ANNOUNCED_BYTES) + bytes(sent_bytes))

        all_at_once(announce, len(clients))
        body = chat_with("m", user="x" * MB)
        begun = time.monotonic()
        with connect(gateway, seconds=20, source=source) as other:
            other.sendall(post_bytes(CHAT, body))
            line = other.recv(4096).split(b"\r\n")[0]
        need(b" 200 " in line, f"the other client got {line.decode()}")
        return (time.monotonic() - begun) * 1000


@row(
    4,
    "3 idle connections announce 100 MB: the body of another client needs",
    before="503",
    bound=1000,
    unit="ms",
)
def announced_bodies(options):
    return body_beside(options, 0, "127.0.0.1")


@row(
    4,
    "3 connections send 60 of 100 MB and pause: the body of another address needs",
    before="503",
    bound=1000,
    unit="ms",
)
def unfinished_bodies(options):
    return body_beside(options, 60 * MB, "127.0.0.2")


def unfinished_heads(options, server=""):
    """By how much 400 unfinished heads of 1 MB raise the resident memory, in MB."""
    line = b"X: " + b"x" * 4000 + b"\r\n"
    head = b"GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n" + line * (MB // len(line))
    with (
        gateway_over(options, Backend(named(["m"])), server=server) as gateway,
        contextlib.ExitStack() as held,
        MemoryWatch(gateway.process, 0.05) as watch,
    ):

        def send(_):
            held.enter_context(connect(gateway, seconds=0.5)).sendall(head)

        all_at_once(send, 400)
        time.sleep(0.2)
        return (watch.peak - watch.before) / MB


@row(
    5,
    "400 unfinished heads of 1 MB: resident memory grows by",
    before="439 MB",
    bound=160,
    unit="MB",
)
def large_heads(options):
    return unfinished_heads(options)


@row(
    5,
    "the same where heads of 2 MB are allowed and 64 MB may be buffered: it grows by",
    before="416 MB",
    bound=160,
    unit="MB",
)
def large_heads_allowed(options):
    return unfinished_heads(options, budget(64, f"max_header_size = {2 * MB}\n"))


FALLBACK = """\
[model_registry.routing_strategy]
type = "optimistic"
options.fallback_behavior = "all"
"""


def long_names(options, connections):
    """Names of 9 MB on these connections, which stay open: by how much the resident memory has
    grown, in MB, and the longest line in the head of a response, in bytes."""
    body = post_bytes(CHAT, json.dumps({"model": "m" * NAME_BYTES, "messages": []}))
    with (
        gateway_over(options, Backend(named(["m"])), more=FALLBACK) as gateway,
        contextlib.ExitStack() as held,
    ):
        before, longest = resident_bytes(gateway.process), 0
        for _ in range(connections):
            client = held.enter_context(connect(gateway))
            client.sendall(body)
            response = client.makefile("rb")
            while len(line := response.readline()) > 2:
                longest = max(longest, len(line))
        time.sleep(0.5)
        return (resident_bytes(gateway.process) - before) / MB, longest


@row(
    9,
    "40 idle connections sent model names of 9 MB: resident memory has grown by",
    before="415 MB",
    bound=160,
    unit="MB",
)
def names_in_memory(options):
    return long_names(options, 40)[0]


@row(
    9,
    "a model name of 9 MB: the longest header line of the response has",
    before="9.4 MB",
    bound=2048,
    unit="bytes",
)
def names_in_headers(options):
    return long_names(options, 1)[1]


@row(
    19,
    "24 responses of 15 MB are collected to be translated, 64 MB may be buffered: memory grows by",
    before="749 MB",
    bound=300,
    unit="MB",
)
def collected_responses(options):
    message = {"role": "assistant", "content": "x" * COLLECTED_BYTES}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    chat = json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode()
    backend = Backend(named(["m"]), kind="sglang", respond=lambda handler, _: handler.reply(chat))
    with (
        gateway_over(options, backend, server=budget(64)) as gateway,
        contextlib.ExitStack() as held,
        MemoryWatch(gateway.process, 0.05) as watch,
    ):
        for number in range(24):
            client = held.enter_context(connect(gateway, source=f"127.0.0.{number + 2}"))
            client.sendall(post_bytes(MESSAGES, chat_with("m")))
        time.sleep(6)
        need(backend.received, "no request reached the backend")
        return (watch.peak - watch.before) / MB
