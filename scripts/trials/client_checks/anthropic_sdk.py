"""The checks with the official `anthropic` package."""

import asyncio
from typing import Literal

import anthropic
import pydantic

from trials.checks import expect, refusal

VERSION = anthropic.__version__

TOOL = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    },
}
# The package's methods have no `temperature` of their own any more.
EXACT = {"extra_body": {"temperature": 0}}
QUESTION = [{"role": "user", "content": "Weather in Paris?"}]


class Person(pydantic.BaseModel):
    name: str
    age: int


def checks(target):
    """(name, check) pairs for a target; each check returns a remark or raises."""
    parts = Parts(target)
    yield "models.list", parts.list_models
    yield "models.retrieve", parts.retrieve
    yield "messages.create", parts.message
    yield "messages.create, system and turns", parts.turns
    yield "raw response's headers", parts.headers
    yield "messages.create(stream=True)", parts.events
    yield "messages.stream()", parts.stream_helper
    yield "AsyncAnthropic messages.stream()", parts.async_stream
    yield "beta.messages.create", parts.beta
    yield "messages.count_tokens", parts.count_tokens
    if "tools" in target.can:
        yield "tool use and its result", parts.tools
    if "tool stream" in target.can:
        yield "messages.stream() with a tool", parts.tool_stream
        yield "beta.messages.tool_runner", parts.tool_runner
    if "schema" in target.can:
        yield "messages.parse", parts.parse
    yield "bad request is BadRequestError", parts.bad_request
    yield "unknown model is NotFoundError", parts.unknown_model


class Parts:
    def __init__(self, target):
        self.target = target
        self.model = target.model
        self.client = anthropic.Anthropic(
            base_url=target.url, api_key="none", max_retries=0, timeout=60
        )
        self.tools_body = {"model": self.model, "max_tokens": 200, **EXACT, "tools": [TOOL]}
        if "forced tools" in target.can:
            # A model as small as this one calls tools when it must, again and again.
            self.tools_body["tool_choice"] = {"type": "any"}
            self.tools_body["stop_sequences"] = ["},\n", "</tool_call>"]

    def body(self, words="Say hello."):
        return {
            "model": self.model,
            "max_tokens": 12,
            **EXACT,
            "messages": [{"role": "user", "content": words}],
        }

    def list_models(self):
        names = [model.id for model in self.client.models.list()]
        expect(self.model in names, f"{self.model} is not among {names}")
        return f"{len(names)} models"

    def retrieve(self):
        model = self.client.models.retrieve(self.model)
        expect(model.id == self.model, f"got {model.id}")
        return f"{model.display_name}, {model.created_at:%Y-%m-%d}"

    def message(self):
        response = self.client.messages.create(**self.body())
        return whole(response)

    def turns(self):
        response = self.client.messages.create(
            model=self.model,
            max_tokens=8,
            **EXACT,
            system=[{"type": "text", "text": "Be short."}],
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "And now?"},
            ],
        )
        return whole(response)

    def headers(self):
        raw = self.client.messages.with_raw_response.create(**self.body())
        endpoint = raw.headers.get("x-olla-endpoint")
        expect(endpoint == self.target.backend, f"X-Olla-Endpoint is {endpoint}")
        mode = raw.headers.get("x-olla-mode")
        expected = "passthrough" if self.target.mode == "native" else None
        expect(mode == expected, f"X-Olla-Mode is {mode}, not {expected}")
        expect(raw.headers.get("request-id"), "no request-id")
        expect(raw.parse().content, "no content")
        return raw.headers.get("x-olla-response-time")

    def events(self):
        events = list(self.client.messages.create(**self.body(), stream=True))
        kinds = [event.type for event in events]
        once = [kind for index, kind in enumerate(kinds) if kind not in kinds[:index]]
        expected = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        expect([kind for kind in once if kind != "ping"] == expected, f"events were {once}")
        expect(events[-2].usage.output_tokens > 0, f"usage was {events[-2].usage}")
        return f"{len(events)} events"

    def stream_helper(self):
        with self.client.messages.stream(**self.body()) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        expect(text == final.content[0].text, f"{text!r} is not {final.content[0].text!r}")
        return whole(final)

    def async_stream(self):
        async def run():
            async with (
                anthropic.AsyncAnthropic(
                    base_url=self.target.url, api_key="none", max_retries=0, timeout=60
                ) as client,
                client.messages.stream(**self.body()) as stream,
            ):
                return await stream.get_final_message()

        return whole(asyncio.run(run()))

    def beta(self):
        response = self.client.beta.messages.create(**self.body(), betas=["some-beta-2026-01-01"])
        return whole(response)

    def count_tokens(self):
        body = {"model": self.model, "messages": QUESTION, "tools": [TOOL]}
        tokens = self.client.messages.count_tokens(**body).input_tokens
        expect(tokens > 10, f"{tokens} tokens")
        return f"{tokens} tokens"

    def tools(self):
        response = self.client.messages.create(**self.tools_body, messages=QUESTION)
        use = tool_use(response)
        messages = [
            *QUESTION,
            {"role": "assistant", "content": response.content},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Rain."}],
            },
        ]
        body = self.tools_body | {"tool_choice": {"type": "auto"}, "max_tokens": 24}
        final = self.client.messages.create(**body, messages=messages)
        expect(final.content, "no response to the tool's result")
        return f"{use.name}({use.input}), then {final.content[0].type}"

    def tool_stream(self):
        kinds = []
        with self.client.messages.stream(**self.tools_body, messages=QUESTION) as stream:
            for event in stream:
                kinds.append(event.type)
            final = stream.get_final_message()
        use = tool_use(final)
        expect("input_json" in kinds, f"events were {set(kinds)}")
        return f"{kinds.count('input_json')} pieces of {use.input}"

    def tool_runner(self):
        asked = []

        @anthropic.beta_tool
        def get_weather(city: Literal["Paris", "Rome"]) -> str:
            """Tells the weather of a city."""
            asked.append(city)
            return "Rain."

        body = self.tools_body | {"tools": [get_weather]}
        runner = self.client.beta.messages.tool_runner(**body, messages=QUESTION, max_iterations=2)
        responses = list(runner)
        expect(asked, "the tool was not called")
        return f"{len(responses)} responses, asked for {asked}"

    def parse(self):
        response = self.client.messages.parse(
            **(self.body("A person, as JSON.") | {"max_tokens": 80}), output_format=Person
        )
        expect(isinstance(response.parsed_output, Person), f"parsed {response.parsed_output!r}")
        return repr(response.parsed_output)

    def bad_request(self):
        body = self.body() | {"max_tokens": 0}
        error = refusal(anthropic.BadRequestError, lambda: self.client.messages.create(**body))
        expect(error.request_id, "no request id")
        return error.body["error"]["message"]

    def unknown_model(self):
        body = self.body() | {"model": "no-such-model"}
        error = refusal(anthropic.NotFoundError, lambda: self.client.messages.create(**body))
        kind = error.body["error"]["type"]
        expect(kind == "not_found_error", f"type is {kind}")
        return error.body["error"]["message"]


def whole(message):
    """Checks what every message must have; returns a remark about it."""
    expect(message.role == "assistant" and message.type == "message", f"got {message}")
    texts = [block.text for block in message.content if block.type == "text"]
    expect(texts and texts[0], f"no text in {message.content}")
    expect(message.stop_reason in ("end_turn", "max_tokens"), f"stopped by {message.stop_reason}")
    usage = message.usage
    expect(usage.output_tokens > 0, f"usage is {usage}")
    return f"{texts[0][:24]!r}, {usage.input_tokens}+{usage.output_tokens} tokens"


def tool_use(message):
    """The tool use of a message, checked."""
    uses = [block for block in message.content if block.type == "tool_use"]
    expect(uses, f"no tool use in {message.content}")
    expect(message.stop_reason == "tool_use", f"stopped by {message.stop_reason}")
    expect(uses[0].name == "get_weather", f"called {uses[0].name}")
    expect(isinstance(uses[0].input.get("city"), str), f"input is {uses[0].input}")
    expect(uses[0].id, "no id")
    return uses[0]
