"""The columns with the OpenAI Agents SDK, which speaks the Responses API."""

import asyncio

import agents
import openai
from program import (
    ADD,
    FAIL,
    HELLO,
    KEY,
    LOOK,
    MODEL,
    OPENAI,
    SECONDS_MAX,
    SLOW,
    fails,
    image_url,
    left,
    main,
    show,
)

client = openai.AsyncOpenAI(base_url=OPENAI, api_key=KEY, max_retries=0, timeout=SECONDS_MAX)
agents.set_tracing_disabled(True)


@agents.function_tool
def add(a: int, b: int) -> int:
    """Adds two integers."""
    return a + b


def agent(tools):
    model = agents.OpenAIResponsesModel(model=MODEL, openai_client=client)
    return agents.Agent(
        name="trial", instructions="Follow the script.", model=model, tools=list(tools)
    )


def run(given, tools=()):
    # Tools only where needed: a small real model calls one with arguments that are no JSON.
    return agents.Runner.run_sync(agent(tools), given).final_output


def chat():
    show(run(HELLO))


async def deltas(given):
    result = agents.Runner.run_streamed(agent(()), given)
    async for event in result.stream_events():
        data = getattr(event, "data", None)
        if getattr(data, "type", "") == "response.output_text.delta":
            yield data.delta


def stream():
    async def follow():
        async for delta in deltas(HELLO):
            show(delta)

    asyncio.run(follow())


def tools():
    show(run(ADD, [add]))


def images():
    parts = [
        {"type": "input_text", "text": LOOK},
        {"type": "input_image", "image_url": image_url(), "detail": "auto"},
    ]
    show(run([{"role": "user", "content": parts}]))


def error():
    fails(lambda: run(FAIL))


def cancel():
    async def follow():
        async for _ in deltas(SLOW):
            left()

    asyncio.run(follow())


if __name__ == "__main__":
    main(globals())
