"""The columns with the package `ollama`."""

import os

import ollama
from program import (
    ADD,
    DESCRIPTION,
    FAIL,
    HELLO,
    LOOK,
    MODEL,
    OLLAMA,
    PARAMETERS,
    SECONDS_MAX,
    SLOW,
    THINK,
    TURNS_MAX,
    fails,
    left,
    main,
    show,
)

client = ollama.Client(host=OLLAMA, timeout=SECONDS_MAX)
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": DESCRIPTION, "parameters": PARAMETERS},
    }
]


def ask(text, **more):
    images = more.pop("images", None)
    message = {"role": "user", "content": text} | ({"images": images} if images else {})
    return client.chat(MODEL, messages=[message], **more)


def models():
    show([model.model for model in client.list().models])
    shown = client.show(MODEL)
    assert shown.capabilities, shown
    client.ps()


def chat():
    show(ask(HELLO).message.content)
    show(client.generate(MODEL, prompt=HELLO).response)


def stream():
    for piece in ask(HELLO, stream=True):
        if piece.message.content:
            show(piece.message.content)
    assert piece.done and piece.eval_count, piece


def thinking():
    message = ask(THINK, think=True).message
    show([message.thinking, message.content])


def tools():
    messages = [{"role": "user", "content": ADD}]
    for _ in range(TURNS_MAX):
        message = client.chat(MODEL, messages=messages, tools=TOOLS).message
        messages.append(message)
        if not message.tool_calls:
            return show(message.content)
        for call in message.tool_calls:
            numbers = call.function.arguments
            result = str(numbers["a"] + numbers["b"])
            messages.append({"role": "tool", "tool_name": call.function.name, "content": result})
    return None


def images():
    show(ask(LOOK, images=[os.environ["CLIENT_IMAGE"]]).message.content)


def error():
    fails(lambda: ask(FAIL))


def cancel():
    for piece in ask(SLOW, stream=True):
        if piece.message.content:
            left()


if __name__ == "__main__":
    main(globals())
