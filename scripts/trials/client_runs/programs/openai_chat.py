"""The columns with the package `openai` and chat completions."""

import json

import openai
from program import (
    ADD,
    DESCRIPTION,
    FAIL,
    HELLO,
    KEY,
    LOOK,
    MODEL,
    OPENAI,
    PARAMETERS,
    SECONDS_MAX,
    SLOW,
    TURNS_MAX,
    fails,
    image_url,
    left,
    main,
    show,
)

client = openai.OpenAI(base_url=OPENAI, api_key=KEY, max_retries=0, timeout=SECONDS_MAX)
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": DESCRIPTION, "parameters": PARAMETERS},
    }
]


def create(content, **more):
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(model=MODEL, messages=messages, **more)


def models():
    show([model.id for model in client.models.list()])


def chat():
    show(create(HELLO).choices[0].message.content)


def stream():
    for chunk in create(HELLO, stream=True, stream_options={"include_usage": True}):
        if chunk.choices and chunk.choices[0].delta.content:
            show(chunk.choices[0].delta.content)
    assert chunk.usage.total_tokens, chunk


def tools():
    messages = [{"role": "user", "content": ADD}]
    for _ in range(TURNS_MAX):
        made = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        message = made.choices[0].message
        messages.append(message)
        if not message.tool_calls:
            return show(message.content)
        for call in message.tool_calls:
            numbers = json.loads(call.function.arguments)
            result = str(numbers["a"] + numbers["b"])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return None


def images():
    parts = [
        {"type": "text", "text": LOOK},
        {"type": "image_url", "image_url": {"url": image_url()}},
    ]
    show(create(parts).choices[0].message.content)


def error():
    fails(lambda: create(FAIL))


def cancel():
    for number, _ in enumerate(create(SLOW, stream=True)):
        if number == 3:
            left()


if __name__ == "__main__":
    main(globals())
