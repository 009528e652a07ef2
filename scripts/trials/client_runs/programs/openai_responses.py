"""The columns with the package `openai` and its Responses API."""

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
    THINK,
    TURNS_MAX,
    fails,
    image_url,
    left,
    main,
    show,
)

client = openai.OpenAI(base_url=OPENAI, api_key=KEY, max_retries=0, timeout=SECONDS_MAX)
TOOLS = [{"type": "function", "name": "add", "description": DESCRIPTION, "parameters": PARAMETERS}]


def create(given, **more):
    return client.responses.create(model=MODEL, input=given, **more)


def models():
    show([model.id for model in client.models.list()])


def chat():
    first = create(HELLO)
    show(first.output_text)
    # The next turn builds on what the gateway kept.
    second = create("And once more.", previous_response_id=first.id)
    show(second.output_text)


def stream():
    for event in create(HELLO, stream=True):
        if event.type == "response.output_text.delta":
            show(event.delta)
    assert event.type == "response.completed", event
    assert event.response.usage.total_tokens, event


def thinking():
    made = create(THINK, reasoning={"summary": "auto"})
    thoughts = [item.summary[0].text for item in made.output if item.type == "reasoning"]
    show([thoughts, made.output_text])


def tools():
    items = [{"role": "user", "content": ADD}]
    for _ in range(TURNS_MAX):
        made = create(items, tools=TOOLS, store=False)
        items += made.output
        calls = [item for item in made.output if item.type == "function_call"]
        if not calls:
            return show(made.output_text)
        for call in calls:
            numbers = json.loads(call.arguments)
            output = str(numbers["a"] + numbers["b"])
            items.append(
                {"type": "function_call_output", "call_id": call.call_id, "output": output}
            )
    return None


def images():
    parts = [
        {"type": "input_text", "text": LOOK},
        {"type": "input_image", "image_url": image_url(), "detail": "auto"},
    ]
    show(create([{"role": "user", "content": parts}]).output_text)


def error():
    fails(lambda: create(FAIL))


def cancel():
    for event in create(SLOW, stream=True):
        if event.type == "response.output_text.delta":
            left()


if __name__ == "__main__":
    main(globals())
