"""Requests, what endpoints do with them, and what each is charged with.

A request has a number in its text, which every translation keeps, so that an endpoint knows what it
is to do with it. `acts` has an entry for each time that an endpoint receives it.

Contract: docs/contract/access.md#7
"""

import json
import math
import re
from dataclasses import dataclass

NUMBER = re.compile(rb"#(\d{7})#")
CHAT = "/olla/openai/v1/chat/completions"
COMPLETIONS = "/olla/openai/v1/completions"
EMBEDDINGS = "/olla/openai/v1/embeddings"
MESSAGES = "/olla/anthropic/v1/messages"
OLLAMA = "/api/chat"
RESPONSES = "/v1/responses"
# Bytes of text in an event, and of the whole.
PIECE = "abcdefgh"
WORDS = "some words of a response."


@dataclass(frozen=True)
class Usage:
    """What an endpoint reports: `prompt` includes `cached`. With `is_early`, each event has the
    figures so far."""

    prompt: int
    completion: int
    cached: int = 0
    is_early: bool = False

    @property
    def counts(self):
        """Whether it counts, and not as missing."""
        return all(0 <= one <= 10**9 for one in (self.prompt, self.completion, self.cached))


@dataclass(frozen=True)
class Act:
    """What an endpoint does: `kind` is one of

    whole   a response with a length            stream  events, and their end
    cut     events, and the end of the connection
    hold    events, and nothing more            mute    nothing at all
    status  this status                         reset   the connection is reset
    short   less than the length that it says
    """

    kind: str
    events: int = 0
    usage: Usage | None = None
    status: int = 200


@dataclass
class Charge:
    """Figures of the ledger."""

    requests: int = 0
    errors: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def add(self, other):
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def tokens(self):
        return self.prompt + self.completion


@dataclass
class Ask:
    number: int
    key: str
    model: str
    path: str
    acts: list
    output: int = 12
    translated: bool = False
    streamed: bool = False
    pause: float = 0
    secret: str = ""
    kind: str = ""
    body: bytes = b""
    text: str = ""
    # Since it was sent:
    received: int = 0
    endpoint: str = ""
    payload: bytes = b""
    events_sent: int = 0
    is_over: bool = False
    begun: float = 0
    ended: float = 0

    def __post_init__(self):
        self.text = f"#{self.number:07d}# hello"
        self.body = json.dumps(self.fields(), separators=(",", ":")).encode()

    def fields(self):
        messages = [{"role": "user", "content": self.text}]
        fields = {"model": self.model}
        if self.path == OLLAMA:
            more = {"messages": messages, "options": {"num_predict": self.output}}
        elif self.path == RESPONSES:
            more = {"input": self.text, "max_output_tokens": self.output, "store": False}
        elif self.path == EMBEDDINGS:
            return fields | {"input": self.text}
        elif self.path == COMPLETIONS:
            more = {"prompt": self.text, "max_tokens": self.output}
        else:
            more = {"messages": messages, "max_tokens": self.output}
        return fields | more | {"stream": self.streamed}

    @property
    def prompt(self):
        """The estimate of its prompt."""
        return math.ceil(len(self.body) / 4)

    @property
    def estimate(self):
        """The tokens that are reserved for it."""
        return self.prompt + (0 if self.path == EMBEDDINGS else self.output)

    @property
    def act(self):
        """What the last endpoint did."""
        return self.acts[min(self.received, len(self.acts)) - 1]

    @property
    def leaves(self):
        """Whether the client leaves before the end."""
        return self.acts[-1].kind in ("hold", "mute")

    def charge(self):
        """What the contract says that it is charged with, when it has ended."""
        act, usage = self.act, self.act.usage
        usage = usage if usage and usage.counts else None
        is_cut = act.kind == "cut"
        if act.kind == "short":
            return Charge(1, 1, self.prompt)
        if act.kind == "reset" or act.status >= 400:
            return Charge(1, int(act.kind == "reset" or act.status >= 500))
        if act.kind == "mute":
            return Charge(1, 0, self.prompt)
        if act.kind in ("cut", "hold"):
            if usage:
                return Charge(1, int(is_cut), usage.prompt, usage.cached, self.events_sent)
            return Charge(1, int(is_cut), self.prompt, 0, self.events_sent)
        if usage:
            return Charge(1, 0, usage.prompt, usage.cached, usage.completion)
        if self.translated:
            text = len(WORDS) if act.kind == "whole" else len(PIECE) * act.events
            completion = max(1, text // 4) if text else 0
            return Charge(1, 0, max(1, len(self.text) // 4), 0, completion)
        if act.kind == "stream":
            return Charge(1, 0, self.prompt, 0, self.events_sent)
        if self.path == EMBEDDINGS:
            return Charge(1, 0, self.prompt)
        return Charge(1, 0, self.prompt, 0, math.ceil(len(self.payload) / 4))


# ---- What endpoints send ----


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def chat_usage(usage):
    fields = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }
    if usage.cached:
        fields["prompt_tokens_details"] = {"cached_tokens": usage.cached}
    return fields


def messages_usage(usage, completion):
    # A part of them was put into the cache.
    made = (usage.prompt - usage.cached) // 3
    return {
        "input_tokens": usage.prompt - usage.cached - made,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": made,
        "output_tokens": completion,
    }


def responses_usage(usage):
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    }


def whole(path, model, usage):
    """The body of a whole response to a request for this path of an endpoint."""
    if path.endswith("/messages"):
        block = {"type": "text", "text": WORDS}
        body = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
        body |= {"content": [block], "stop_reason": "end_turn", "stop_sequence": None}
        more = usage and messages_usage(usage, usage.completion)
    elif path.endswith("/responses"):
        part = {"type": "output_text", "text": WORDS, "annotations": []}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
        body = {"id": "resp_1", "object": "response", "status": "completed", "model": model}
        body |= {"output": [item]}
        more = usage and responses_usage(usage)
    elif path.endswith("/api/chat"):
        body = {"model": model, "message": {"role": "assistant", "content": WORDS}, "done": True}
        if usage:
            body |= {"prompt_eval_count": usage.prompt, "eval_count": usage.completion}
        more = None
    elif path.endswith("/embeddings"):
        item = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        body = {"object": "list", "model": model, "data": [item]}
        more = usage and chat_usage(usage)
    else:
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": model}
        choice = {"index": 0, "finish_reason": "stop"}
        if path.endswith("/chat/completions"):
            choice["message"] = {"role": "assistant", "content": WORDS}
        else:
            choice["text"] = WORDS
        body["choices"] = [choice]
        more = usage and chat_usage(usage)
    return compact(body | ({"usage": more} if more else {}))


def named(name, fields):
    """An event of a stream whose events have names."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), compact({"type": name} | fields))


def events(path, model, count, usage):
    """The events of a stream: those at its beginning, `count` pieces of text, and those that end
    it. Only what an endpoint knows then is in the first."""
    if path.endswith("/messages"):
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
        message |= {"content": [], "stop_reason": None, "stop_sequence": None}
        if usage:
            message["usage"] = messages_usage(usage, 1)
        delta = {"type": "text_delta", "text": PIECE}
        last = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}}
        if usage:
            last["usage"] = messages_usage(usage, usage.completion)
        block = {"index": 0, "content_block": {"type": "text", "text": ""}}
        return (
            [named("message_start", {"message": message}), named("content_block_start", block)],
            [named("content_block_delta", {"index": 0, "delta": delta})] * count,
            [
                named("content_block_stop", {"index": 0}),
                named("message_delta", last),
                named("message_stop", {}),
            ],
        )
    if path.endswith("/responses"):
        response = {"id": "resp_1", "object": "response", "model": model, "output": []}
        delta = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": PIECE}
        begun = response | {"status": "in_progress"}
        ended = response | {"status": "completed", "usage": usage and responses_usage(usage)}
        return (
            [named("response.created", {"response": begun})],
            [named("response.output_text.delta", delta)] * count,
            [named("response.completed", {"response": ended})],
        )
    if path.endswith("/api/chat"):
        line = {"model": model, "message": {"role": "assistant", "content": PIECE}, "done": False}
        last = {"model": model, "message": {"role": "assistant", "content": ""}, "done": True}
        last |= {"done_reason": "stop"}
        if usage:
            last |= {"prompt_eval_count": usage.prompt, "eval_count": usage.completion}
        return [], [compact(line) + b"\n"] * count, [compact(last) + b"\n"]
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
    choice = {"index": 0, "finish_reason": None}
    is_chat = path.endswith("/chat/completions")
    choice |= {"delta": {"content": PIECE}} if is_chat else {"text": PIECE}
    chunk_of_text = chunk | {"choices": [choice]}
    pieces = [b"data: %s\n\n" % compact(chunk_of_text)] * count
    if usage and usage.is_early:
        so_far = (chat_usage(Usage(usage.prompt, number + 1)) for number in range(count))
        pieces = [b"data: %s\n\n" % compact(chunk_of_text | {"usage": one}) for one in so_far]
    last = [b"data: [DONE]\n\n"]
    if usage:
        fields = chunk | {"choices": [], "usage": chat_usage(usage)}
        last.insert(0, b"data: %s\n\n" % compact(fields))
    return [], pieces, last
