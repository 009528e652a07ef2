"""The columns with pydantic-ai, over chat completions or the Responses API."""

import asyncio
import os

from program import ADD, API, FAIL, HELLO, KEY, LOOK, MODEL, OPENAI, SLOW, fails, left, main, show
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=OPENAI, api_key=KEY)
kind = OpenAIResponsesModel if API == "responses" else OpenAIChatModel
model = kind(MODEL, provider=provider)
agent = Agent(model, instructions="Follow the script.", retries=0)
# Only where it is needed: a small real model calls a tool with arguments that are no JSON.
adding = Agent(model, instructions="Follow the script.", retries=0)


@adding.tool_plain
def add(a: int, b: int) -> int:
    """Adds two integers."""
    return a + b


def chat():
    show(agent.run_sync(HELLO).output)


async def follow(text, call):
    async with agent.run_stream(text) as result:
        async for delta in result.stream_text(delta=True, debounce_by=None):
            call(delta)


def stream():
    asyncio.run(follow(HELLO, show))


def tools():
    show(adding.run_sync(ADD).output)


def images():
    with open(os.environ["CLIENT_IMAGE"], "rb") as file:
        image = BinaryContent(data=file.read(), media_type="image/png")
    show(agent.run_sync([LOOK, image]).output)


def error():
    fails(lambda: agent.run_sync(FAIL))


def cancel():
    asyncio.run(follow(SLOW, lambda _: left()))


if __name__ == "__main__":
    main(globals())
