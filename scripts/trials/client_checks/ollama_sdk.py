"""The checks with the official `ollama` package."""

import asyncio
import importlib.metadata

import ollama

from trials.checks import expect, refusal

VERSION = importlib.metadata.version("ollama")


def checks(target):
    """(name, check) pairs for a target; each check returns a remark or raises."""
    parts = Parts(target)
    yield "list", parts.list_models
    yield "show", parts.show
    yield "show, unknown model", parts.show_unknown
    yield "ps", parts.running
    yield "chat", parts.chat
    yield "chat, stream=True", parts.chat_stream
    yield "chat with tools", parts.tools
    yield "generate", parts.generate
    yield "generate, stream=True", parts.generate_stream
    yield "AsyncClient chat, stream=True", parts.async_stream
    yield "embed", parts.embed
    yield "chat, unknown model", parts.unknown_model
    yield "pull is refused", parts.pull


class Parts:
    def __init__(self, target):
        self.target = target
        self.model = target.model
        self.client = ollama.Client(host=target.url, timeout=60)
        self.messages = [{"role": "user", "content": "Say hello."}]

    def list_models(self):
        models = {model.model: model for model in self.client.list().models}
        expect(self.model in models, f"{self.model} is not among {sorted(models)}")
        model = models[self.model]
        expect(model.size, f"size is {model.size}")
        expect(model.modified_at, "no modified_at")
        expect(model.digest, "no digest")
        details = model.details
        return (
            f"{len(models)} models; {details.family}, {details.parameter_size}, "
            f"{details.quantization_level}"
        )

    def show(self):
        shown = self.client.show(self.model)
        expect(shown.modelinfo, "no model_info")
        expect(shown.details.family, "no family")
        return f"{shown.details.family}, {', '.join(shown.capabilities)}"

    def show_unknown(self):
        return self.refused(404, lambda: self.client.show("no-such-model"))

    def running(self):
        names = [model.model for model in self.client.ps().models]
        expect(names, "no running model")
        return ", ".join(names)

    def chat(self):
        response = self.client.chat(self.model, messages=self.messages)
        expect(response.message.content, "no text")
        expect(response.done, "not done")
        return repr(response.message.content)

    def chat_stream(self):
        events = list(self.client.chat(self.model, messages=self.messages, stream=True))
        return ended(events, "".join(event.message.content for event in events))

    def tools(self):
        def get_weather(city: str) -> str:
            """Tells the weather of a city.

            Args:
              city: its name
            """
            return f"rain in {city}"

        response = self.client.chat(self.model, messages=self.messages, tools=[get_weather])
        expect(response.message.tool_calls, "no tool call")
        function = response.message.tool_calls[0].function
        return f"{function.name} gives {get_weather(**function.arguments)!r}"

    def generate(self):
        response = self.client.generate(self.model, prompt="Once")
        expect(response.response, "no text")
        return repr(response.response)

    def generate_stream(self):
        events = list(self.client.generate(self.model, prompt="Once", stream=True))
        return ended(events, "".join(event.response for event in events))

    def async_stream(self):
        async def run():
            client = ollama.AsyncClient(host=self.target.url, timeout=60)
            response = await client.chat(self.model, messages=self.messages, stream=True)
            return [event async for event in response]

        events = asyncio.run(run())
        return ended(events, "".join(event.message.content for event in events))

    def embed(self):
        response = self.client.embed(self.model, input=["a", "b"])
        expect(len(response.embeddings) == 2, f"{len(response.embeddings)} embeddings")
        return f"2 of {len(response.embeddings[0])} numbers"

    def unknown_model(self):
        return self.refused(404, lambda: self.client.chat("no-such-model", messages=self.messages))

    def pull(self):
        return self.refused(501, lambda: self.client.pull("llama3.2"))

    def refused(self, status, ask):
        error = refusal(ollama.ResponseError, ask)
        expect(error.status_code == status, f"status {error.status_code}: {error.error}")
        return f"{error.status_code} {str(error.error)[:70]}"


def ended(events, text):
    expect(text, "no text")
    expect(events[-1].done, "the last event is not the end")
    expect(events[-1].eval_count, "no counts at the end")
    return f"{len(events)} events, {text!r}"
