"""The columns with the package `anthropic`."""

import anthropic
from program import (
    ADD,
    ANTHROPIC,
    DESCRIPTION,
    FAIL,
    HELLO,
    KEY,
    LOOK,
    MODEL,
    PARAMETERS,
    SECONDS_MAX,
    SLOW,
    THINK,
    TURNS_MAX,
    fails,
    image_base64,
    left,
    main,
    show,
)

client = anthropic.Anthropic(base_url=ANTHROPIC, api_key=KEY, max_retries=0, timeout=SECONDS_MAX)
TOOLS = [{"name": "add", "description": DESCRIPTION, "input_schema": PARAMETERS}]


def body(content):
    return {
        "model": MODEL,
        "max_tokens": 200,
        "system": [{"type": "text", "text": "Follow the script."}],
        "messages": [{"role": "user", "content": content}],
    }


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def models():
    show([model.id for model in client.models.list()])


def chat():
    show(text_of(client.messages.create(**body(HELLO))))


def stream():
    with client.messages.stream(**body(HELLO)) as events:
        for text in events.text_stream:
            show(text)
        assert events.get_final_message().usage.output_tokens


def thinking():
    thinks = {"type": "enabled", "budget_tokens": 1024}
    message = client.messages.create(**body(THINK) | {"max_tokens": 2000}, thinking=thinks)
    thoughts = [block.thinking for block in message.content if block.type == "thinking"]
    show([thoughts, text_of(message)])


def tools():
    request = body(ADD)
    for _ in range(TURNS_MAX):
        message = client.messages.create(**request, tools=TOOLS)
        request["messages"].append({"role": "assistant", "content": message.content})
        uses = [block for block in message.content if block.type == "tool_use"]
        if not uses:
            return show(text_of(message))
        results = [
            {
                "type": "tool_result",
                "tool_use_id": use.id,
                "content": str(use.input["a"] + use.input["b"]),
            }
            for use in uses
        ]
        request["messages"].append({"role": "user", "content": results})
    return None


def images():
    source = {"type": "base64", "media_type": "image/png", "data": image_base64()}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": LOOK}]
    show(text_of(client.messages.create(**body(parts))))


def error():
    fails(lambda: client.messages.create(**body(FAIL)))


def cancel():
    with client.messages.stream(**body(SLOW)) as events:
        for _ in events.text_stream:
            left()


if __name__ == "__main__":
    main(globals())
