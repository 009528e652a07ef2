"""The calls that Home Assistant's Ollama integration makes, with the package that it uses.

It lists the models when it is set up, and talks with tools in streams, with `keep_alive` and the
context length as options.
"""

import asyncio

import ollama
from ollama_chat import TOOLS
from program import ADD, HELLO, MODEL, OLLAMA, TURNS_MAX, main, show

OPTIONS = {"num_ctx": 8192}


async def converse(text, tools):
    client = ollama.AsyncClient(host=OLLAMA, timeout=30)
    messages = [
        ollama.Message(role="system", content="You are a voice assistant."),
        ollama.Message(role="user", content=text),
    ]
    for _ in range(TURNS_MAX):
        said, calls = "", []
        pieces = await client.chat(
            model=MODEL,
            messages=messages,
            tools=tools,
            stream=True,
            keep_alive="-1s",
            options=OPTIONS,
            think=False,
        )
        async for piece in pieces:
            if piece.message.content:
                show(piece.message.content)
            said += piece.message.content or ""
            calls += piece.message.tool_calls or []
        messages.append(ollama.Message(role="assistant", content=said, tool_calls=calls or None))
        if not calls:
            return
        for call in calls:
            numbers = call.function.arguments
            result = str(numbers["a"] + numbers["b"])
            messages.append(
                ollama.Message(role="tool", content=result, tool_name=call.function.name)
            )


def models():
    async def run():
        response = await ollama.AsyncClient(host=OLLAMA).list()
        show([model["model"] for model in response["models"]])

    asyncio.run(run())


def chat():
    asyncio.run(converse(HELLO, None))


stream = chat


def tools():
    asyncio.run(converse(ADD, TOOLS))


if __name__ == "__main__":
    main(globals())
