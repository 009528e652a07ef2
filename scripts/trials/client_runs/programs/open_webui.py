"""The calls that Open WebUI makes to a connection of its kind Ollama, with HTTP alone.

It asks for the version and the tags, merges what several servers have by name, and forwards chats
as Ollama's lines; pictures and tools are in Ollama's form.
"""

import json
import os
import urllib.error
import urllib.request

from ollama_chat import TOOLS
from program import (
    ADD,
    FAIL,
    HELLO,
    LOOK,
    MODEL,
    OLLAMA,
    SLOW,
    TURNS_MAX,
    image_base64,
    left,
    main,
    show,
)


def request(path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    fields = {"Content-Type": "application/json", "X-OpenWebUI-User-Name": "trial"}
    return urllib.request.urlopen(
        urllib.request.Request(f"{OLLAMA}{path}", data, fields), timeout=30
    )


def lines(message, **more):
    messages = message if isinstance(message, list) else [message]
    body = {"model": MODEL, "messages": messages, "stream": True, "options": {}, **more}
    for line in request("/api/chat", body):
        yield json.loads(line)


def models():
    version = json.load(request("/api/version"))["version"]
    assert version.split(".")[0].isdigit(), version
    tags = json.load(request("/api/tags"))["models"]
    for model in tags:
        assert model["details"]["family"] is not None and model["digest"], model
    loaded = json.load(request("/api/ps"))["models"]
    show([[model["model"] for model in tags], len(loaded)])


def chat():
    body = {"model": MODEL, "messages": [{"role": "user", "content": HELLO}], "stream": False}
    show(json.load(request("/api/chat", body))["message"]["content"])


def stream():
    for line in lines({"role": "user", "content": HELLO}):
        if line["message"]["content"]:
            show(line["message"]["content"])
    assert line["done"] and line["eval_count"] and line["prompt_eval_count"], line


def tools():
    messages = [{"role": "user", "content": ADD}]
    for _ in range(TURNS_MAX):
        said, calls = "", []
        for line in lines(messages, tools=TOOLS):
            said += line["message"]["content"]
            calls += line["message"].get("tool_calls") or []
        messages.append({"role": "assistant", "content": said, "tool_calls": calls})
        if not calls:
            return show(said)
        for call in calls:
            numbers = call["function"]["arguments"]
            content = str(numbers["a"] + numbers["b"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
    return None


def images():
    message = {"role": "user", "content": LOOK, "images": [image_base64()]}
    show("".join(line["message"]["content"] for line in lines(message)))


def error():
    try:
        show([*lines({"role": "user", "content": FAIL})])
    except urllib.error.HTTPError as failure:
        show(f"{failure.code}: {json.load(failure)['error']}")


def cancel():
    for line in lines({"role": "user", "content": SLOW}):
        if line["message"]["content"]:
            left()


if __name__ == "__main__":
    assert os.environ["CLIENT_API"] == "ollama"
    main(globals())
