"""Clients that leave, vanish, or take nothing of their response."""

import json
import select
import time

from trials.process import wait_until
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
    row,
)

# More than the sockets of two connections hold.
STREAM_BYTES = 24 * MB
WAIT_SECONDS = 9


def events(kind):
    """An event stream of some MB in the dialect of a backend."""
    text = "x" * 8000
    if kind == "vllm":
        delta = {"type": "text_delta", "text": text}
        event = {"type": "content_block_delta", "index": 0, "delta": delta}
        name = "event: content_block_delta\n"
    else:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        event, name = {"object": "chat.completion.chunk", "choices": [choice]}, ""
    one = f"{name}data: {json.dumps(event)}\n\n".encode()
    return one * (STREAM_BYTES // len(one))


def stalled(options, kind):
    """Seconds until a client is disconnected that takes nothing of a stream of messages."""
    stream = events(kind)

    def respond(handler, _):
        handler.begin("text/event-stream", "Connection: close")
        handler.wfile.write(stream)
        handler.close_connection = True

    backend = Backend(named(["m"]), kind, respond)
    with (
        gateway_over(options, backend, server='stall_timeout = "2s"\n') as gateway,
        connect(gateway) as client,
    ):
        client.sendall(post_bytes(MESSAGES, chat_with("m", stream=True)))
        need(client.recv(1000).startswith(b"HTTP/1.1 200"), "no stream began")
        begun = time.monotonic()
        poll = select.poll()
        poll.register(client, 0)
        left = poll.poll(WAIT_SECONDS * 1000)
        need(left, f"the client is still connected after {WAIT_SECONDS} s")
        return time.monotonic() - begun


STALL = "a client takes nothing of a {} messages stream, stall_timeout is 2 s: disconnected after"


@row(8, STALL.format("translated"), before="never", bound=8, unit="s")
def stalled_translated_stream(options):
    return stalled(options, "sglang")


@row(8, STALL.format("passed"), before="never", bound=8, unit="s")
def stalled_passed_stream(options):
    return stalled(options, "vllm")


def seen_to_leave(options, begin):
    """Seconds until the backend sees that a client has left which sent a byte of a next request;
    the backend does `begin(handler)` before."""
    seen, asked = [], []

    def respond(handler, _):
        begin(handler)
        asked.append(True)
        handler.connection.settimeout(WAIT_SECONDS)
        try:
            handler.connection.recv(1)
        except TimeoutError:
            return
        except OSError:
            pass  # A reset says the same.
        seen.append(time.monotonic())
        handler.close_connection = True

    with gateway_over(options, Backend(named(["m"]), respond=respond)) as gateway:
        with connect(gateway) as client:
            client.sendall(post_bytes(CHAT, chat_with("m")))
            wait_until("the backend has no request", lambda: asked)
            client.sendall(b"G")
            time.sleep(0.2)
        left = time.monotonic()
        wait_until("the backend does not see it", lambda: seen, WAIT_SECONDS)
        return seen[0] - left


LEFT = "a client leaves {} after a stray byte: its backend sees it after"


@row(14, LEFT.format("before the response"), before="7.5 s", bound=4, unit="s")
def stray_byte_before_response(options):
    return seen_to_leave(options, lambda handler: None)


@row(14, LEFT.format("within the response"), before="7.5 s", bound=4, unit="s")
def stray_byte_within_response(options):
    def begin(handler):
        handler.begin("text/event-stream", "Connection: close")
        handler.wfile.write(b"data: {}\n\n")

    return seen_to_leave(options, begin)


# Of proc_net_tcp(5): states and timers of a connection.
ESTABLISHED = "01"
KEEP_ALIVE_TIMER = "02"


def probed(gateway):
    """Of each accepted connection of the gateway, whether TCP will probe it."""
    with open("/proc/net/tcp") as file:
        lines = [line.split() for line in file]
    return [
        fields[5].startswith(KEEP_ALIVE_TIMER)
        for fields in lines[1:]
        if fields[1].endswith(f":{gateway.port:04X}") and fields[3] == ESTABLISHED
    ]


@row(
    19,
    "20 idle clients: connections that TCP keep-alive does not probe",
    before="20 of 20",
    bound=0,
    unit="of 20",
)
def clients_not_probed(options):
    with gateway_over(options, Backend(named(["m"]))) as gateway:
        clients = [connect(gateway) for _ in range(20)]
        wait_until("the connections are not open", lambda: len(probed(gateway)) == len(clients), 5)
        time.sleep(0.5)
        not_probed = probed(gateway).count(False)
        for client in clients:
            client.close()
        return not_probed
