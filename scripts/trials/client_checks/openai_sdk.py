"""The checks with the official `openai` package."""

import asyncio
import json

import openai
import pydantic

from trials.checks import expect, refusal

VERSION = openai.__version__


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
        # The streaming helper parses the arguments of strict tools only.
        "strict": True,
    },
}


class Person(pydantic.BaseModel):
    name: str
    age: int


def checks(target):
    """(name, check) pairs for a target; each check returns a remark or raises."""
    parts = Parts(target)
    yield "models.list", parts.list_models
    if "retrieve" in target.can:
        yield "models.retrieve", parts.retrieve
    yield "chat.completions.create", parts.chat
    yield "chat, raw response's headers", parts.headers
    yield "chat, stream=True with usage", parts.stream
    yield "chat.completions.stream()", parts.stream_helper
    yield "AsyncOpenAI, stream=True", parts.async_stream
    if "tools" in target.can:
        yield "chat with tools", parts.tools
    if "tool stream" in target.can:
        yield "chat.completions.stream(tools=...)", parts.tool_stream
    if "schema" in target.can:
        yield "chat.completions.parse", parts.parse
    if "completions" in target.can:
        yield "completions.create", parts.completion
    if "responses" in target.can:
        yield "responses.create, stream=True", parts.response
    if "embeddings" in target.can:
        yield "embeddings.create", parts.embeddings
    yield "unknown model is NotFoundError", parts.unknown_model


class Parts:
    def __init__(self, target):
        self.target = target
        self.model = target.model
        self.client = openai.OpenAI(
            base_url=f"{target.url}/v1", api_key="none", max_retries=0, timeout=60
        )
        self.tools_body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "Weather in Paris?"}],
            "tools": [TOOL],
            "max_tokens": 200,
            "temperature": 0,
        }
        if "forced tools" in target.can:
            # A model as small as this one calls tools when it must, again and again.
            self.tools_body |= {"tool_choice": "required", "stop": ["},\n", "</tool_call>"]}

    def body(self, words="Say hello."):
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": 12,
            "temperature": 0,
        }

    def list_models(self):
        names = [model.id for model in self.client.models.list()]
        expect(self.model in names, f"{self.model} is not among {names}")
        return f"{len(names)} models"

    def retrieve(self):
        model = self.client.models.retrieve(self.model)
        expect(model.id == self.model, f"got {model.id}")

    def chat(self):
        response = self.client.chat.completions.create(**self.body())
        text = response.choices[0].message.content
        expect(text, "no text")
        expect(response.usage.completion_tokens > 0, f"usage is {response.usage}")
        return f"{text[:30]!r}, {response.usage.completion_tokens} tokens"

    def headers(self):
        raw = self.client.chat.completions.with_raw_response.create(**self.body())
        endpoint = raw.headers.get("x-olla-endpoint")
        expect(endpoint == self.target.backend, f"X-Olla-Endpoint is {endpoint}")
        model = raw.headers.get("x-olla-model")
        expect(model == self.model, f"X-Olla-Model is {model}")
        expect(raw.headers.get("x-olla-request-id"), "no X-Olla-Request-ID")
        return raw.headers.get("x-olla-response-time")

    def stream(self):
        options = {"include_usage": True}
        events = list(
            self.client.chat.completions.create(**self.body(), stream=True, stream_options=options)
        )
        text = "".join(choice.delta.content or "" for event in events for choice in event.choices)
        expect(text, "no text")
        usages = [event.usage for event in events if event.usage]
        expect(usages and usages[-1].completion_tokens > 0, f"usages: {usages}")
        finish = [choice.finish_reason for event in events for choice in event.choices]
        # LiteLLM adds a choice without a reason to the usage, after the end.
        finish = [reason for reason in finish if reason]
        expect(finish and finish[-1] in ("stop", "length"), f"ended by {finish}")
        return f"{len(events)} events"

    def stream_helper(self):
        kinds = set()
        # The helper takes an end by length for an error; a line of text ends by itself.
        body = self.body() | {"max_tokens": 60, "stop": ["\n"]}
        with self.client.chat.completions.stream(**body) as stream:
            for event in stream:
                kinds.add(event.type)
            final = stream.get_final_completion()
        expect("content.delta" in kinds, f"events were {sorted(kinds)}")
        text = final.choices[0].message.content
        expect(text, "no text at the end")
        return f"{text[:30]!r}"

    def async_stream(self):
        async def run():
            async with openai.AsyncOpenAI(
                base_url=f"{self.target.url}/v1", api_key="none", max_retries=0, timeout=60
            ) as client:
                events = await client.chat.completions.create(**self.body(), stream=True)
                return [event async for event in events]

        events = asyncio.run(run())
        expect(len(events) > 2, f"{len(events)} events")
        return f"{len(events)} events"

    def check_call(self, message):
        expect(message.tool_calls, f"no tool call, but {message.content!r}")
        call = message.tool_calls[0].function
        expect(call.name == "get_weather", f"called {call.name}")
        city = json.loads(call.arguments)["city"]
        expect(city == "Paris", f"arguments are {call.arguments}")
        return f"{len(message.tool_calls)} of {call.name}, first {call.arguments}"

    def tools(self):
        response = self.client.chat.completions.create(**self.tools_body)
        return self.check_call(response.choices[0].message)

    def tool_stream(self):
        with self.client.chat.completions.stream(**self.tools_body) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
        expect("tool_calls.function.arguments.done" in kinds, f"events were {set(kinds)}")
        call = final.choices[0].message.tool_calls[0].function
        expect(call.parsed_arguments == {"city": "Paris"}, f"parsed {call.parsed_arguments}")
        return f"{len(kinds)} events, {call.parsed_arguments!r}"

    def parse(self):
        body = self.body("A person, as JSON.") | {"max_tokens": 80}
        response = self.client.chat.completions.parse(**body, response_format=Person)
        person = response.choices[0].message.parsed
        expect(isinstance(person, Person), f"parsed {person!r}")
        return repr(person)

    def completion(self):
        response = self.client.completions.create(
            model=self.model, prompt="Once", max_tokens=8, temperature=0
        )
        expect(response.choices[0].text, "no text")
        return f"{response.choices[0].text[:30]!r}"

    def response(self):
        events = list(
            self.client.responses.create(
                model=self.model, input="Say hello.", max_output_tokens=12, stream=True
            )
        )
        expect(
            events[-1].type in ("response.completed", "response.incomplete"),
            f"ended by {events[-1].type}",
        )
        return f"{len(events)} events"

    def embeddings(self):
        response = self.client.embeddings.create(model=self.model, input=["a", "b"])
        expect(len(response.data) == 2, f"{len(response.data)} embeddings")
        return f"2 of {len(response.data[0].embedding)} numbers"

    def unknown_model(self):
        body = self.body() | {"model": "no-such-model"}
        create = self.client.chat.completions.create
        error = refusal(openai.NotFoundError, lambda: create(**body))
        expect(error.code == "MODEL_NOT_FOUND", f"code is {error.code}")
        return error.code
