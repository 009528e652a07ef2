"""The calls that the Ollama provider of VS Code's Copilot makes.

It refuses servers below version 0.6.4, lists the tags, asks for each model's capabilities and
context length, and chats over OpenAI's API at the same address.
"""

import json
import os
import urllib.request

from program import MODEL, OLLAMA, main, show

# The chats are those of the package `openai` at `/v1` of the address.
os.environ["CLIENT_OPENAI"] = f"{OLLAMA}/v1"
import openai_chat


def request(path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    fields = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{OLLAMA}{path}", data, fields)
    with urllib.request.urlopen(asked, timeout=30) as response:
        return json.load(response)


def models():
    version = tuple(int(part) for part in request("/api/version")["version"].split("."))
    assert version >= (0, 6, 4), version
    names = [model["model"] for model in request("/api/tags")["models"]]
    shown = request("/api/show", {"model": MODEL})
    assert "tools" in shown["capabilities"], shown
    assert shown["model_info"]["general.architecture"], shown
    show(names)


chat = openai_chat.chat
stream = openai_chat.stream
tools = openai_chat.tools
images = openai_chat.images
error = openai_chat.error
cancel = openai_chat.cancel

if __name__ == "__main__":
    main(globals())
