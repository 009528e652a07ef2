"""A server of chat completions whose responses follow a script that the client's words choose.

It speaks nothing but OpenAI's chat completions, so that every other API in front of it is the
gateway's. The last `TASK name` in a message of the user chooses the script (TASKS). It refuses what
chat templates refuse, such as a second system message, and keeps what it saw: the bodies, what was
wrong with them, and when a client disconnected in mid-stream.
"""

import json
import re
import select
import socket
import struct
import threading
import time
import zlib
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from trials.client_runs import plans

MODEL = "scripted"
# Codex knows a model of this name and offers it its freeform tool apply_patch.
ALIAS = "gpt-5.5"
HELLO = "Hello from the script."
THOUGHT = "The script thinks first."
REFUSAL = "The script refuses this request."
IMAGE_SIZE = (16, 8)
IMAGE_COLOUR = (255, 128, 0)
IMAGE_SEEN = "An image of 16 by 8 pixels in #ff8000."
SUM = "The sum is 8."
WORD_PAUSE = 0.02
SLOW_PAUSE = 0.05
SLOW_SECONDS_MAX = 30
MARK = re.compile(r"TASK (\w+)")


class Scripted:
    """The server on a thread that ends with this process, and what it saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.clear()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.scripted = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def clear(self):
        """Forgets what it saw."""
        with self.lock:
            self.bodies = []
            self.problems = []
            self.begun = []
            self.left = []

    def keep(self, name, value):
        with self.lock:
            getattr(self, name).append(value)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        listing = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1}]}
        known = {"/v1/models": listing, "/health": {"status": "ok"}}
        path = self.path.split("?")[0]
        self.json(200 if path in known else 404, known.get(path, {"error": "no such route"}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        scripted = self.server.scripted
        if self.path.split("?")[0] != "/v1/chat/completions":
            scripted.keep("problems", f"POST {self.path}")
            return self.json(404, {"error": {"message": "no such route", "type": "not_found"}})
        scripted.keep("bodies", body)
        problem = refused_by_templates(body)
        if problem:
            scripted.keep("problems", problem)
            return self.json(500, error(problem, "server_error"))
        task, step = position(body["messages"])
        if task == "fail":
            return self.json(400, error(REFUSAL, "invalid_request_error"))
        if task == "slow":
            return self.slow(body)
        reply = TASKS.get(task, hello)(body, step)
        if body.get("stream"):
            return self.stream(body, chunks(reply))
        return self.json(200, whole(body, reply))

    def json(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, body, choices, **more):
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, **more}
        data = json.dumps({**chunk, "model": body["model"], "choices": choices})
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def stream(self, body, deltas):
        self.begin()
        for delta, finish in deltas:
            self.event(body, [{"index": 0, "delta": delta, "finish_reason": finish}])
            time.sleep(WORD_PAUSE)
        if (body.get("stream_options") or {}).get("include_usage"):
            self.event(body, [], usage=usage(9))
        self.wfile.write(b"data: [DONE]\n\n")

    def slow(self, body):
        """Words until the client disconnects; keeps when that was seen."""
        scripted = self.server.scripted
        scripted.keep("begun", time.monotonic())
        end = time.monotonic() + SLOW_SECONDS_MAX
        if not body.get("stream"):
            while time.monotonic() < end and not self.is_left():
                time.sleep(SLOW_PAUSE)
            return
        self.begin()
        try:
            while time.monotonic() < end:
                choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
                self.event(body, [choice])
                until = time.monotonic() + SLOW_PAUSE
                while time.monotonic() < until:
                    if self.is_left():
                        return
                    time.sleep(0.002)
        except OSError:
            scripted.keep("left", time.monotonic())
        return

    def is_left(self):
        readable = select.select([self.connection], [], [], 0)[0]
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            self.server.scripted.keep("left", time.monotonic())
            return True
        return False


# ---- What templates refuse ----


def refused_by_templates(body):
    """Why a strict chat template would refuse a conversation; None if it would not."""
    messages = body["messages"]
    if any(message["role"] in ("system", "developer") for message in messages[1:]):
        return "System message must be at the beginning."
    open_calls = set()
    for message in messages:
        role = message["role"]
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                return f"Tool result without its call: {message.get('tool_call_id')}"
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            return f"Calls without results: {sorted(open_calls)}"
        open_calls = {call["id"] for call in message.get("tool_calls") or []}
        if role == "assistant" and not open_calls and not message.get("content"):
            return "An assistant message has neither text nor calls."
    return None


def text_of(message):
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content or [])


def position(messages):
    """The task that the user's last mark names, and how many steps came after it."""
    place, task = max(
        (
            (place, marks[-1])
            for place, message in enumerate(messages)
            if message["role"] == "user" and (marks := MARK.findall(text_of(message)))
        ),
        default=(len(messages), "hello"),
    )
    return task, sum(message["role"] == "assistant" for message in messages[place:])


# ---- The scripts: each makes text, thoughts and calls of a body and a step ----


def hello(_body, _step):
    return {"text": HELLO}


def think(_body, _step):
    return {"thoughts": THOUGHT, "text": HELLO}


def add(body, step):
    """Three additions, each with the result of the one before, as the client computed it."""
    if not body.get("tools"):
        return {"text": "There is no tool."}
    results = [text_of(one).strip() for one in body["messages"] if one["role"] == "tool"]
    latest = re.findall(r"-?\d+", results[-1]) if results else ["1"]
    if not latest:
        return {"text": f"The result is no number: {results[-1]}"}
    arguments = {"a": int(latest[-1]), "b": step + 2}
    # 1 + 2, + 3, + 2
    if step == 2:
        arguments["b"] = 2
    if step == 3:
        return {"text": f"The sum is {latest[-1]}."}
    name = next(name for name in plans.tool_names(body) if name.endswith("add"))
    return {"calls": [(name, arguments)]}


def look(body, _step):
    """Says what an image shows that reached the server."""
    parts = [
        part["image_url"]["url"]
        for message in body["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if part.get("type") == "image_url"
    ]
    if not parts:
        return {"text": "There is no image."}
    kind, data = parts[-1].split(",", 1)
    if kind != "data:image/png;base64":
        return {"text": f"The image has another form: {kind}"}
    (width, height), colour = read_png(b64decode(data))
    name = "".join(f"{part:02x}" for part in colour)
    return {"text": f"An image of {width} by {height} pixels in #{name}."}


def edit(body, step):
    """The steps by which an agent corrects a file, with the tools that it offers."""
    place = re.search(r"file (/\S+\.txt)", "\n".join(map(text_of, body["messages"])))
    steps = plans.steps(body, place.group(1) if place else "")
    if step < len(steps):
        return {"calls": [steps[step]]}
    return {"text": plans.DONE if steps else plans.as_text(place.group(1) if place else "")}


TASKS = {"hello": hello, "think": think, "add": add, "look": look, "edit": edit}


# ---- Forms of a reply ----


def pieces(text):
    return re.findall(r"\S+\s*", text)


def call(index, name, arguments):
    # Nine characters, as templates of Mistral's models want them.
    return {
        "index": index,
        "id": f"call{time.monotonic_ns() % 10**5:05}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }


def chunks(reply):
    yield {"role": "assistant", "content": ""}, None
    for piece in pieces(reply.get("thoughts", "")):
        yield {"reasoning_content": piece}, None
    for piece in pieces(reply.get("text", "")):
        yield {"content": piece}, None
    for index, (name, arguments) in enumerate(reply.get("calls", [])):
        made = call(index, name, arguments)
        text = made["function"].pop("arguments")
        yield {"tool_calls": [{**made, "function": {"name": name, "arguments": ""}}]}, None
        half = len(text) // 2
        for part in (text[:half], text[half:]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}, None
    yield {}, "tool_calls" if reply.get("calls") else "stop"


def whole(body, reply):
    message = {"role": "assistant", "content": reply.get("text")}
    if reply.get("thoughts"):
        message["reasoning_content"] = reply["thoughts"]
    if reply.get("calls"):
        calls = enumerate(reply["calls"])
        message["tool_calls"] = [call(index, name, arguments) for index, (name, arguments) in calls]
    finish = "tool_calls" if reply.get("calls") else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage(9),
    }


def usage(tokens):
    return {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}


def error(message, kind):
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


# ---- The image ----


def make_png():
    """The image that clients send: one colour."""
    width, height = IMAGE_SIZE

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(IMAGE_COLOUR) * width) * height
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def read_png(data):
    """Size and first colour of such an image."""
    size = struct.unpack(">II", data[16:24])
    length = struct.unpack(">I", data[33:37])[0]
    return size, tuple(zlib.decompress(data[41 : 41 + length])[1:4])
