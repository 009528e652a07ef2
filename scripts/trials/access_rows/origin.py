"""Endpoints and clients that know of each other, on a thread with an event loop of its own."""

import asyncio
import concurrent.futures
import http.client
import json
import threading
import time

from trials.access_rows import bearer
from trials.access_rows.asks import NUMBER, events, whole
from trials.process import NotReady
from trials.trust_rows import LISTINGS

SECONDS_MAX = 20


class World:
    """A loop on a thread of its own, and the requests that are under way in it."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.asks = {}
        self.number = 0
        self.origins = []
        # Called with a request when an endpoint has it for the first time, and when it is over.
        self.on_arrival = self.on_end = lambda ask: None
        # Requests that endpoints got, by name of the endpoint, where they are kept.
        self.kept = None

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        for origin in self.origins:
            self.loop.call_soon_threadsafe(origin.server.close)

        def end():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_soon(self.loop.stop)

        self.loop.call_soon_threadsafe(end)
        self.thread.join(5)

    def begin(self, work):
        """Starts a coroutine in the loop; `result(seconds)` waits for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work, seconds=120):
        try:
            return self.begin(work).result(seconds)
        except concurrent.futures.TimeoutError as error:
            raise NotReady(f"the clients have not ended after {seconds} s") from error

    def origin(self, name, models, kind="openai-compatible", more='dialects = ["openai-chat"]\n'):
        """An endpoint that listens, with these models."""
        origin = Origin(self, name, models, kind, more)
        self.run(origin.listen())
        self.origins.append(origin)
        return origin

    def next_number(self):
        self.number += 1
        return self.number

    def arrived(self, ask):
        ask.received += 1
        if ask.received == 1:
            self.on_arrival(ask)

    def over(self, ask):
        """Nothing of it is in progress any more, as far as can be told from outside."""
        if not ask.is_over:
            ask.is_over, ask.ended = True, time.monotonic()
            if ask.received:
                self.on_end(ask)


class Origin:
    """An endpoint."""

    def __init__(self, world, name, models, kind, more):
        # Further lines of the heads of its responses.
        self.said = ""
        self.world, self.name, self.models, self.kind, self.more = world, name, models, kind, more
        key = "models" if kind == "ollama" else "data"
        items = [{"id": one, "name": one, "model": one, "object": "model"} for one in models]
        self.listing = json.dumps({"object": "list", key: items}).encode()

    async def listen(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.more += 'check_interval = "1s"\ncheck_timeout = "900ms"\n'

    async def serve(self, reader, writer):
        try:
            while await self.exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def exchange(self, reader, writer):
        """One request; returns whether the connection may have another."""
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n", 1)[0].decode()
        method, path, _ = line.split(" ", 2)
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 : lower.index(b"\r\n", at)]) if at >= 0 else 0
        body = await reader.readexactly(length) if length else b""
        if self.world.kept is not None:
            self.world.kept.append((self.name, head + body))
        found = NUMBER.search(body)
        if method == "GET" or not found:
            self.reply(writer, 200, self.listing if path in LISTINGS else b"{}")
            return True
        ask = self.world.asks.get(int(found[1]))
        if ask is None:
            self.reply(writer, 410, b'{"error":{"message":"no such request"}}')
            return True
        ask.endpoint = self.name
        self.world.arrived(ask)
        return await self.act(ask, path, reader, writer)

    async def act(self, ask, path, reader, writer):
        act = ask.act
        if ask.pause:
            await asyncio.sleep(ask.pause)
        is_last = ask.received >= len(ask.acts)
        if act.kind == "mute":
            await reader.read(1)
            return False
        if act.kind == "reset":
            writer.transport.abort()
            return False
        if act.kind in ("stream", "cut", "hold"):
            return await self.stream(ask, path, reader, writer)
        if act.status >= 400:
            payload = b'{"error":{"message":"not now","type":"error","code":"refused"}}'
        else:
            payload = whole(path, ask.model, act.usage)
        ask.payload = payload
        if is_last:
            self.world.over(ask)
        missing = 10 if act.kind == "short" else 0
        self.reply(writer, act.status, payload, missing)
        return not missing

    def reply(self, writer, status, body, missing=0):
        reason = http.client.responses.get(status, "Unknown")
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n{self.said}"
        writer.write(f"{head}Content-Length: {len(body) + missing}\r\n\r\n".encode() + body)

    async def stream(self, ask, path, reader, writer):
        act = ask.act
        first, pieces, last = events(path, ask.model, act.events, act.usage)
        kind = "application/x-ndjson" if path.endswith("/api/chat") else "text/event-stream"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        sent = first + pieces if act.kind in ("cut", "hold") else first + pieces + last
        ask.events_sent = len(sent) - sent.count(b"data: [DONE]\n\n")
        data = [b"%x\r\n%s\r\n" % (len(event), event) for event in sent]
        if act.kind == "hold":
            writer.write(head.encode() + b"".join(data))
            await reader.read(1)
            return False
        if act.kind == "stream":
            data.append(b"0\r\n\r\n")
        # A translated response may end with the last event, before the last chunk.
        end = len(data) - (2 if act.kind == "stream" else 1)
        writer.write(head.encode() + b"".join(data[:end]))
        # The end in a packet of its own, now and then.
        if ask.number % 4 == 0:
            await asyncio.sleep(0.001)
        self.world.over(ask)
        writer.write(b"".join(data[end:]))
        if act.kind == "cut":
            await writer.drain()
            return False
        return True


class Client:
    """A client with a connection that it keeps."""

    def __init__(self, world, port):
        self.world, self.port = world, port
        self.reader = self.writer = None

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    async def send(self, ask):
        """Sends a request and reads its response: status (0: none), code of the error, and whether
        the response was whole."""
        self.world.asks[ask.number] = ask
        try:
            was_kept = self.writer is not None
            answer = await self.attempt(ask)
            # The gateway may have closed the connection after the last response.
            if not answer[0] and was_kept and not ask.received:
                answer = await self.attempt(ask)
            return answer
        finally:
            self.world.over(ask)
            self.world.asks.pop(ask.number, None)

    async def attempt(self, ask):
        try:
            return await asyncio.wait_for(self.exchange(ask), SECONDS_MAX)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            self.close()
            return 0, type(error).__name__, False

    async def exchange(self, ask):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        secret = f"Bearer {ask.secret}" if ask.secret else bearer(ask.key)["Authorization"]
        head = (
            f"POST {ask.path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            f"Authorization: {secret}\r\nContent-Length: {len(ask.body)}\r\n\r\n"
        )
        ask.begun = time.monotonic()
        self.writer.write(head.encode() + ask.body)
        if ask.acts[-1].kind == "mute":
            return await self.leave_early(ask)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if ask.acts[-1].kind == "hold" and status == 200:
            await self.read_events(ask)
            self.leave(ask)
            return status, "", True
        try:
            body = await self.read_body(head)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return status, "", False
        return status, "" if status == 200 else code_of(body), True

    def leave(self, ask):
        # What endpoints see of it comes later.
        self.world.over(ask)
        self.close()

    async def leave_early(self, ask):
        """Leaves when an endpoint has the request, or it was refused."""
        refused = asyncio.ensure_future(self.reader.readuntil(b"\r\n\r\n"))
        while ask.received < len(ask.acts):
            done, _ = await asyncio.wait([refused], timeout=0.002)
            if done:
                head = refused.result().lower()
                body = await self.read_body(head)
                return int(head[9:12]), code_of(body), True
        refused.cancel()
        self.leave(ask)
        return 200, "", True

    async def read_events(self, ask):
        """Reads until all events have come that the endpoint sent."""
        mark = b'"done":' if ask.endpoint.startswith("ollama") else b"data: "
        data = b""
        while not ask.events_sent or data.count(mark) < ask.events_sent:
            piece = await self.reader.read(65536)
            if not piece:
                raise asyncio.IncompleteReadError(data, None)
            data += piece

    async def read_body(self, head):
        at = head.find(b"content-length:")
        if at >= 0:
            return await self.reader.readexactly(int(head[at + 15 : head.index(b"\r\n", at)]))
        if b"transfer-encoding: chunked" not in head:
            self.close()
            return b""
        parts = []
        while length := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append((await self.reader.readexactly(length + 2))[:-2])
        await self.reader.readexactly(2)
        return b"".join(parts)


def code_of(body):
    """The code of an error in any dialect."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body[:80].decode(errors="replace")
    return error.get("code", "") if isinstance(error, dict) else error[:80]


async def crowd(world, port, count, step):
    """`count` clients; each calls `step(client, number)` until that returns false."""

    async def work(number):
        client = Client(world, port)
        try:
            while await step(client, number):
                pass
        finally:
            client.close()

    await asyncio.gather(*(work(number) for number in range(count)))
