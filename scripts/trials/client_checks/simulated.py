"""A server that responds like an Ollama or an LM Studio, for dialects with no real server at hand.

It lists what the listing files of src/providers/fixtures hold, responds to every chat with the same
words, and streams one word an event. It has no /v1/messages: the gateway serves Anthropic clients
by translation.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["Simulated", " words,", " not", " thoughts."]
TEXT = "".join(WORDS)
CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}
TIME = "2026-01-02T03:04:05Z"
EMBEDDING = [0.25, -0.5, 1.0]


def start(kind, file):
    """Serves a listing file on a thread that ends with this process; returns the URL."""
    routes = {"ollama": ollama, "lm-studio": lm_studio}[kind]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.routes = routes(json.loads(file.read_text()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def ollama(listing):
    """The routes of an Ollama that has the models of `listing`."""
    models = {model["name"]: model for model in listing["models"]}

    def show(body):
        model = models[body.get("model") or body.get("name")]
        return {
            "license": "none",
            "modelfile": f"FROM {model['name']}",
            "template": "{{ .Prompt }}",
            "modified_at": model["modified_at"],
            "details": model["details"],
            "model_info": {"general.architecture": model["details"]["family"]},
            "capabilities": ["completion", "tools"],
        }

    def chat(body):
        name = models[body["model"]]["name"]
        if body.get("tools"):
            messages = [{"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]}]
        else:
            messages = [{"role": "assistant", "content": word} for word in WORDS]
        return native(body, name, [{"message": message} for message in messages])

    def generate(body):
        name = models[body["model"]]["name"]
        return native(body, name, [{"response": word} for word in WORDS])

    def embed(body):
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        return {"model": models[body["model"]]["name"], "embeddings": [EMBEDDING for _ in inputs]}

    loaded = next(iter(models.values()))
    running = {**loaded, "expires_at": TIME, "size_vram": loaded["size"], "context_length": 4096}
    return {
        ("GET", "/"): lambda _: "Ollama is running",
        ("GET", "/api/version"): lambda _: {"version": "0.12.0"},
        ("GET", "/api/tags"): lambda _: listing,
        ("GET", "/api/ps"): lambda _: {"models": [running]},
        ("POST", "/api/show"): show,
        ("POST", "/api/chat"): chat,
        ("POST", "/api/generate"): generate,
        ("POST", "/api/embed"): embed,
        **openai(models),
    }


def native(body, name, pieces):
    """Ollama's own response: lines, unless `stream` is false; `pieces` are its parts."""
    end = {"model": name, "created_at": TIME, "done": True, "done_reason": "stop"}
    counts = {"total_duration": 9, "prompt_eval_count": 5, "eval_count": len(pieces)}
    if body.get("stream", True):
        lines = [{"model": name, "created_at": TIME, "done": False, **piece} for piece in pieces]
        empty = {"message": {"role": "assistant", "content": ""}, "response": ""}
        key = next(iter(pieces[0]))
        return Stream("application/x-ndjson", [*lines, {**end, key: empty[key], **counts}], "")
    key = next(iter(pieces[0]))
    if key == "response":
        whole = "".join(piece[key] for piece in pieces)
    else:
        text = "".join(piece[key]["content"] for piece in pieces)
        whole = {**pieces[0][key], "content": text}
    return {**end, key: whole, **counts}


def lm_studio(listing):
    """The routes of an LM Studio that has the models of `listing`."""
    models = {model["id"]: model for model in listing["data"]}
    cards = [{"id": name, "object": "model", "owned_by": "organization_owner"} for name in models]
    one = {
        ("GET", f"/api/v0/models/{name}"): lambda _, model=model: model
        for name, model in models.items()
    }
    return {
        ("GET", "/v1/models"): lambda _: {"object": "list", "data": cards},
        ("GET", "/api/v0/models"): lambda _: listing,
        **one,
        **openai(models),
    }


def openai(models):
    """The OpenAI-compatible routes that both kinds have."""

    def frame(body, kind, choice, **more):
        model = body["model"]
        choice = {"index": 0, "finish_reason": None, **choice}
        head = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model}
        return {**head, "choices": [choice], **more}

    def chat(body):
        if body["model"] not in models:
            raise KeyError(body["model"])
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
        function = {"name": CALL["name"], "arguments": json.dumps(CALL["arguments"])}
        call = {"id": "call_1", "type": "function", "function": function}
        tools = bool(body.get("tools"))
        finish = "tool_calls" if tools else "stop"
        if not body.get("stream"):
            message = {"role": "assistant", "content": None if tools else TEXT}
            message |= {"tool_calls": [call]} if tools else {}
            choice = {"message": message, "finish_reason": finish}
            return frame(body, "chat.completion", choice, usage=usage)
        if tools:
            deltas = [{"role": "assistant", "tool_calls": [{"index": 0, **call}]}]
        else:
            deltas = [{"role": "assistant", "content": word} for word in WORDS]
        kind = "chat.completion.chunk"
        events = [frame(body, kind, {"delta": delta}) for delta in deltas]
        events.append(frame(body, kind, {"delta": {}, "finish_reason": finish}))
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({**frame(body, kind, {}, usage=usage), "choices": []})
        return Stream("text/event-stream", events, "data: ")

    def embeddings(body):
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [
            {"object": "embedding", "index": index, "embedding": EMBEDDING}
            for index in range(len(inputs))
        ]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return {"object": "list", "model": body["model"], "data": data, "usage": usage}

    return {("POST", "/v1/chat/completions"): chat, ("POST", "/v1/embeddings"): embeddings}


class Stream:
    """A response in pieces, each written on its own."""

    def __init__(self, content_type, values, prefix):
        self.content_type = content_type
        end = "\n\n" if prefix else "\n"
        self.pieces = [f"{prefix}{json.dumps(value)}{end}".encode() for value in values]
        if prefix:
            self.pieces.append(b"data: [DONE]\n\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route = self.server.routes.get((self.command, self.path.split("?")[0]))
        if route is None:
            self.send_whole(404, {"error": f"no route {self.command} {self.path}"})
            return
        try:
            response = route(json.loads(body) if body else {})
        except (KeyError, ValueError) as error:
            self.send_whole(404, {"error": f"model {error} not found"})
            return
        if isinstance(response, Stream):
            self.send_stream(response)
        else:
            self.send_whole(200, response)

    do_GET = do_HEAD = do_POST = do_DELETE = handle_request

    def send_whole(self, status, value):
        text = isinstance(value, str)
        data = value.encode() if text else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_stream(self, stream):
        self.send_response(200)
        self.send_header("Content-Type", stream.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in stream.pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass
