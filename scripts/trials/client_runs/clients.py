"""Every client of the trial: how it is installed and called, and what it can do.

A client is a program that runs with the addresses of a server in its environment. Its columns are
the names of what it is asked to do; a column that a client does not have is left out.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from trials.client_runs import agents
from trials.host import TARGET

CACHE = Path(os.environ.get("OLLA_CLIENTS_DIR", TARGET / "clients"))
PROGRAMS = Path(__file__).resolve().parent / "programs"
COLUMNS = ("models", "chat", "stream", "thinking", "tools", "images", "error", "cancel")
PLAIN = ("models", "chat", "stream", "tools", "images", "error", "cancel")


@dataclass
class Client:
    """A client and how the trial runs it."""

    name: str
    # The API that it speaks: openai, responses, anthropic or ollama.
    api: str
    # Where its packages are, and their names with versions.
    folder: str
    packages: tuple
    # Makes the command, the environment and what must be in the folder for one column.
    call: object
    columns: tuple = PLAIN
    # The package whose version the table shows.
    shown: str = ""
    # What is worth knowing beside the table.
    remarks: dict = field(default_factory=dict)

    @property
    def is_python(self):
        return self.folder.startswith("python-")

    @property
    def directory(self):
        return CACHE / self.folder

    @property
    def version(self):
        shown = self.shown or self.packages[0]
        mark = "==" if self.is_python else "@"
        return shown.rsplit(mark, 1)[-1]


def python(program):
    """A program in `programs/` for a library of Python; its argument is the column."""

    def call(client, column, _run):
        environment = {"PYTHONPATH": f"{client.directory}:{PROGRAMS}"}
        return [sys.executable, PROGRAMS / program, column], environment

    return call


def node(program, *arguments):
    """The same for a library of JavaScript; the programs find the packages by the variable."""

    def call(client, column, _run):
        environment = {"CLIENT_PACKAGES": str(client.directory)}
        return ["node", PROGRAMS / program, column, *arguments], environment

    return call


OPENAI, ANTHROPIC, OLLAMA = "openai==3.54.0", "anthropic==2.13.0", "ollama==0.6.3"
LIBRARIES = (OPENAI, ANTHROPIC, OLLAMA)
LANGCHAIN = ("langchain-openai==1.7.4", "langchain-ollama==1.1.0", "langchain-anthropic==1.7.10")
LLAMA_INDEX = ("llama-index-llms-openai-like==0.8.1", "llama-index-llms-ollama==0.11.0")
AGENTS_SDK = ("openai-agents==0.24.0",)
PYDANTIC = ("pydantic-ai-slim==2.68.0", "openai==3.57.0")
LLM = ("llm==0.36", "llm-ollama==0.19.1")
NODE_SDKS = (
    "openai@7.59.0",
    "ollama@0.6.4",
    "@anthropic-ai/sdk@1.14.0",
    "ai@7.0.173",
    "@ai-sdk/openai@4.0.118",
    "@ai-sdk/anthropic@4.0.105",
    "@ai-sdk/openai-compatible@3.0.92",
)
THINKS = (*PLAIN[:3], "thinking", *PLAIN[3:])


def libraries(name, api, program, columns=PLAIN, packages=LIBRARIES, folder="libraries", shown=""):
    return Client(name, api, f"python-{folder}", packages, python(program), columns, shown)


def javascript(name, api, program, *arguments, columns=PLAIN, shown=""):
    call = node(program, *arguments)
    return Client(name, api, "node-libraries", NODE_SDKS, call, columns, shown)


def agent(name, api, package, columns):
    """A command-line agent from npm, which `agents.py` knows how to call."""
    return Client(name, api, f"node-{name}", (package,), agents.CALLS[name], columns)


AGENT = ("chat", "tools", "error", "cancel")

CLIENTS = [
    libraries("openai", "openai", "openai_chat.py", shown=OPENAI),
    libraries("openai-responses", "responses", "openai_responses.py", THINKS, shown=OPENAI),
    libraries("anthropic", "anthropic", "anthropic_messages.py", THINKS, shown=ANTHROPIC),
    libraries("ollama", "ollama", "ollama_chat.py", THINKS, shown=OLLAMA),
    libraries(
        "home-assistant", "ollama", "home_assistant.py", ("models", "stream", "tools"), shown=OLLAMA
    ),
    libraries("open-webui", "ollama", "open_webui.py", PLAIN, shown=OLLAMA),
    libraries("vscode-copilot", "ollama", "vscode_copilot.py", PLAIN, shown=OPENAI),
    libraries("langchain-openai", "openai", "langchain_chat.py", PLAIN[1:], LANGCHAIN, "langchain"),
    libraries(
        "langchain-ollama",
        "ollama",
        "langchain_chat.py",
        PLAIN[1:],
        LANGCHAIN,
        "langchain",
        LANGCHAIN[1],
    ),
    libraries(
        "langchain-anthropic",
        "anthropic",
        "langchain_chat.py",
        PLAIN[1:],
        LANGCHAIN,
        "langchain",
        LANGCHAIN[2],
    ),
    libraries(
        "llamaindex-openai", "openai", "llama_index_chat.py", PLAIN[1:], LLAMA_INDEX, "llama-index"
    ),
    libraries(
        "llamaindex-ollama",
        "ollama",
        "llama_index_chat.py",
        PLAIN[1:],
        LLAMA_INDEX,
        "llama-index",
        LLAMA_INDEX[1],
    ),
    libraries(
        "openai-agents", "responses", "openai_agents.py", PLAIN[1:], AGENTS_SDK, "openai-agents"
    ),
    libraries("pydantic-ai", "openai", "pydantic_chat.py", PLAIN[1:], PYDANTIC, "pydantic-ai"),
    libraries(
        "pydantic-ai-responses", "responses", "pydantic_chat.py", PLAIN[1:], PYDANTIC, "pydantic-ai"
    ),
    javascript("openai-js", "openai", "openai.mjs"),
    javascript("openai-js-responses", "responses", "openai_responses.mjs"),
    javascript("anthropic-js", "anthropic", "anthropic.mjs", shown=NODE_SDKS[2]),
    javascript("ollama-js", "ollama", "ollama.mjs", shown=NODE_SDKS[1]),
    javascript(
        "vercel-ai", "openai", "vercel.mjs", "openai", columns=PLAIN[1:], shown=NODE_SDKS[3]
    ),
    javascript(
        "vercel-ai-responses",
        "responses",
        "vercel.mjs",
        "responses",
        columns=PLAIN[1:],
        shown=NODE_SDKS[3],
    ),
    javascript(
        "vercel-ai-anthropic",
        "anthropic",
        "vercel.mjs",
        "anthropic",
        columns=PLAIN[1:],
        shown=NODE_SDKS[3],
    ),
    Client("llm", "openai", "python-llm", LLM, agents.llm, ("chat", "stream", "error")),
    Client("llm-ollama", "ollama", "python-llm", LLM, agents.llm, (*PLAIN[:3], "error"), LLM[1]),
    Client("aider", "openai", "python-aider", ("aider-chat==0.86.2",), agents.aider, AGENT[:3]),
    agent("claude-code", "anthropic", "@anthropic-ai/claude-code@2.1.332", AGENT),
    agent("codex", "responses", "@openai/codex@0.171.0", AGENT),
    Client(
        "codex-patch",
        "responses",
        "node-codex",
        ("@openai/codex@0.171.0",),
        agents.CALLS["codex-patch"],
        ("chat", "tools"),
    ),
    agent("opencode", "openai", "opencode-ai@1.18.33", AGENT),
    agent("copilot-cli", "openai", "@github/copilot@1.0.102", AGENT),
    agent("cline", "openai", "cline@3.0.65", AGENT),
    agent("continue", "openai", "@continuedev/cli@1.5.47", AGENT),
]
