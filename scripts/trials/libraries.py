"""The gateway between the official client libraries and several kinds of servers.

Starts real servers (llama.cpp's with a small model, LiteLLM's proxy in front of it), simulated ones
(Ollama, LM Studio) and two gateways in front of them, all on loopback, and checks what the Python
packages openai, anthropic and ollama and the JavaScript package @anthropic-ai/sdk see. Prints a
line for each check, at the end a table of the results by client and backend, and the model's
properties as llama.cpp and the gateway show them. Exit status 1 if a check fails.

Needs Node 18 or newer with npm, and about 2 GB of disk: installs the packages below target/ (or in
$OLLA_CLIENTS_DIR and $OLLA_REAL_LLM_DIR) at the first run.
"""

import importlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trials import llama
from trials.checks import Checks, expect, print_log
from trials.client_checks import simulated
from trials.gateway import Gateway, endpoint_config, server_config
from trials.host import ROOT, TARGET, npm_packages, python_packages, use_python_packages
from trials.llama import MODEL_NAME
from trials.process import NotReady, get_json, reserve_port, wait_until

BINARIES = ("olla",)
CACHE = Path(os.environ.get("OLLA_CLIENTS_DIR", TARGET / "clients"))
# The direct requirements, pinned. LiteLLM has a directory of its own: it wants other versions.
PACKAGES = ("anthropic==2.13.0", "ollama==0.6.3", "openai==3.54.0")
LITELLM = "litellm[proxy]==1.108.7"
SDK = "@anthropic-ai/sdk@1.13.0"
LIBRARIES = ("openai", "anthropic", "ollama")
SETTLE_SECONDS_MAX = 30
TOTAL_SECONDS_MAX = 900
NODE_SECONDS_MAX = 300
LITELLM_SECONDS_MAX = 130
FILES = Path(__file__).resolve().parent / "client_checks"
FIXTURES = ROOT / "src" / "providers" / "fixtures"
# LiteLLM's proxy serves only with a key, which the gateway has as the endpoint's `auth`.
LITELLM_KEY = "LITELLM_MASTER_KEY"
# Of litellm.yaml, which also uses the variable.
LITELLM_MODEL = "gemma3-by-litellm"
LITELLM_UPSTREAM = "LITELLM_UPSTREAM"


@dataclass
class Target:
    """An address of the gateway for a client library."""

    url: str
    backend: str
    model: str
    # native: an Anthropic request passes untouched; translated; or plain for other clients
    mode: str = "plain"
    # The features to check; the modules of the checks define the names.
    can: list = field(default_factory=list)


def add_arguments(parser):
    pass


def run(options):
    llama.set_up()
    python_packages(CACHE / "litellm", LITELLM)
    use_python_packages(CACHE / "python", *PACKAGES)
    npm_packages(CACHE / "node", {"package.json": '{"private": true}'}, "install", "-E", SDK)
    table = Table()
    return table.run_all(TOTAL_SECONDS_MAX, lambda processes: check_all(options, table, processes))


class Table(Checks):
    """Checks with a column for the client and one for the backend."""

    def __init__(self):
        super().__init__()
        self.cells = Counter()

    def row(self, client, target, name, check):
        where = target.backend if target.mode == "plain" else f"{target.backend} {target.mode}"
        passed = self.run(f"{client:<18} {where:<21} {name}", check)
        self.cells[client, where, passed] += 1

    def print_cells(self):
        print(f"\n{'client':<18} {'backend':<21} passed")
        for client, where in dict.fromkeys((client, where) for client, where, _ in self.cells):
            passed, failed = (self.cells[client, where, outcome] for outcome in (True, False))
            print(f"{client:<18} {where:<21} {passed} of {passed + failed}")
        print()


def check_all(options, table, processes):
    """Starts the servers and two gateways, and runs the checks of every client."""
    key = "sk-" + secrets.token_hex(32)
    servers = start_servers(processes, key)
    endpoints = "".join(
        endpoint_config(name, server.url, server.kind, server.more)
        for name, server in servers.items()
    )
    variants = {
        "native": "",
        "translated": "[translators.anthropic]\npassthrough_enabled = false\n",
    }
    counts = {name: server.models for name, server in servers.items()}
    gateways = {}
    for name, text in variants.items():
        gateway = gateways[name] = Gateway(processes, options.bin, name)
        config = server_config(gateway.port) + text + endpoints
        gateway.start(config, environment={LITELLM_KEY: key})
        table.run(f"gateway {name}: every endpoint healthy and listed", settle, gateway, counts)
    native, translated = gateways["native"].url, gateways["translated"].url
    targets = {
        "openai": openai_targets(native),
        "anthropic": anthropic_targets(native, translated),
        "ollama": [Target(f"{native}/olla/ollama", "ollama", OLLAMA_MODEL)],
    }
    modules = {
        name: importlib.import_module(f"trials.client_checks.{name}_sdk") for name in LIBRARIES
    }
    for client, module in modules.items():
        for target in targets[client]:
            for name, check in module.checks(target):
                table.row(client, target, name, check)
    for target in targets["anthropic"]:
        check_javascript(table, target)
    llama_url = servers["llama-1"].url
    table.run("properties of llama.cpp's model", compare_properties, native, llama_url)
    table.print_cells()
    print_versions(modules)
    if table.failed:
        for gateway in gateways.values():
            print_log(gateway)


def settle(gateway, counts):
    begin = time.monotonic()
    gateway.wait_settled(counts, SETTLE_SECONDS_MAX)
    return f"after {time.monotonic() - begin:.2f} s"


# ---- Servers ----


@dataclass
class Server:
    """A backend: its address, its type, how many models it has, and more configuration."""

    url: str
    kind: str
    models: int
    more: str = ""


def start_servers(processes, key):
    """Starts every backend; returns them by name."""
    url = llama.start_instances(processes, 1)["llama-1"][0]
    # LiteLLM's `/health`, the path of its profile, sends a request to every model each time.
    more = (
        'health_check_url = "/health/liveness"\n'
        f'auth = {{ type = "bearer", token = "${{{LITELLM_KEY}}}" }}\n'
    )
    ollama = simulated.start("ollama", FIXTURES / "ollama.json")
    lm_studio = simulated.start("lm-studio", FIXTURES / "lmstudio.json")
    return {
        "llama-1": Server(url, "llamacpp", 1),
        "litellm": Server(start_litellm(processes, url, key), "litellm", 1, more),
        "ollama": Server(ollama, "ollama", 3),
        "lm-studio": Server(lm_studio, "lm-studio", 3),
    }


def start_litellm(processes, upstream, key):
    """Starts LiteLLM's proxy in front of a llama.cpp server; returns its URL."""
    port = reserve_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(CACHE / "litellm"),
        LITELLM_KEY: key,
        LITELLM_UPSTREAM: f"{upstream}/v1",
        # Its price list is to be the one of the package, not fetched.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [sys.executable, CACHE / "litellm" / "bin" / "litellm"]
    command += ["--config", FILES / "litellm.yaml", "--host", "127.0.0.1", "--port", port]
    process = processes.start("litellm", [*command, "--telemetry", "False"], env=environment)
    url = f"http://127.0.0.1:{port}"

    def is_ready():
        if process.poll() is not None:
            raise NotReady(f"LiteLLM's proxy ended:\n{processes.log_tail('litellm')}")
        try:
            return get_json(url, "/health/liveness")
        except (OSError, ValueError):
            return False

    try:
        wait_until("LiteLLM's proxy is not ready", is_ready, LITELLM_SECONDS_MAX, 0.1)
    except NotReady as error:
        raise NotReady(f"{error}\n{processes.log_tail('litellm')}") from error
    return url


# ---- Targets ----


OLLAMA_MODEL = "llama3.2:3b"
LM_STUDIO_MODEL = "meta-llama-3.1-8b-instruct"
LLAMA_CAN = ["tools", "forced tools", "tool stream", "schema", "completions", "responses"]


def openai_targets(gateway):
    return [
        Target(f"{gateway}/olla/openai", "llama-1", MODEL_NAME, can=LLAMA_CAN),
        Target(f"{gateway}/olla/litellm", "litellm", LITELLM_MODEL, can=["retrieve", *LLAMA_CAN]),
        Target(
            f"{gateway}/olla/ollama",
            "ollama",
            OLLAMA_MODEL,
            can=["tools", "tool stream", "embeddings"],
        ),
        Target(
            f"{gateway}/olla/lmstudio",
            "lm-studio",
            LM_STUDIO_MODEL,
            can=["tools", "tool stream", "embeddings"],
        ),
    ]


def anthropic_targets(native, translated):
    llama = {"backend": "llama-1", "model": MODEL_NAME}
    can = ["tools", "forced tools", "tool stream"]
    litellm = {"backend": "litellm", "model": LITELLM_MODEL}
    return [
        Target(f"{native}/olla/anthropic", **llama, mode="native", can=can),
        Target(f"{translated}/olla/anthropic", **llama, mode="translated", can=[*can, "schema"]),
        Target(f"{native}/olla/anthropic", **litellm, mode="translated", can=[*can, "schema"]),
        # Simulated without /v1/messages, as before its version 0.14.
        Target(
            f"{native}/olla/anthropic",
            backend="ollama",
            model=OLLAMA_MODEL,
            mode="translated",
            can=["tools", "tool stream"],
        ),
    ]


def check_javascript(table, target):
    """Runs the checks of the JavaScript library, which prints a line of JSON for each."""
    client = "@anthropic-ai/sdk"
    command = ["node", FILES / "anthropic_checks.mjs", CACHE / "node", json.dumps(asdict(target))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=NODE_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        table.fail(f"{client:<18} {target.backend}", error)
        return
    for line in done.stdout.splitlines():
        row = json.loads(line)

        def outcome(row=row):
            expect("failure" not in row, row.get("failure"))
            return row.get("remark")

        table.row(client, target, row["name"], outcome)
    if done.returncode:
        table.fail(f"{client:<18} {target.backend}", done.stderr.strip()[-500:])


# ---- Properties of a model ----


def compare_properties(gateway, backend):
    """Prints the properties of the model by llama.cpp and by the gateway; both must agree."""
    card = get_json(backend, "/v1/models")["data"][0]
    meta = card["meta"]
    props = get_json(backend, "/props")
    detail = get_json(gateway, f"/olla/models/{MODEL_NAME}")
    unified = get_json(gateway, "/olla/models?endpoint=llama-1")["data"][0]
    own = get_json(gateway, "/olla/llamacpp/v1/models")["data"]
    rows = {
        "id": (card["id"], own[0]["id"], detail["id"]),
        "context the model was trained with": (
            meta["n_ctx_train"],
            detail.get("max_context_length"),
            unified["olla"].get("max_context_length"),
        ),
        "parameters": (meta["n_params"], detail["parameter_count"]),
        "size": (size_text(meta["size"]), detail["total_disk_size"]),
    }
    print(f"\n{'llama.cpp':<36} shows, then what the gateway shows")
    for name, values in rows.items():
        print(f"{name:<36} {', '.join(map(str, values))}")
    shown = unified["olla"]
    print(f"{'not compared: llama.cpp':<36} n_ctx {meta.get('n_ctx')}, ftype {meta.get('ftype')},")
    print(f"{'':<36} n_ctx of /props {props['default_generation_settings']['n_ctx']}")
    print(f"{'not compared: the gateway':<36} {json.dumps(shown)}\n")
    for name, values in rows.items():
        expect(len(set(values)) == 1, f"{name}: {values}")


def size_text(size):
    """A size in bytes as the gateway formats it."""
    units = ["B", "KB", "MB", "GB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.2f} {units[0]}"


def print_versions(modules):
    """Prints the versions of everything that took part."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    package = CACHE / "node" / "node_modules" / "@anthropic-ai" / "sdk" / "package.json"
    parts = {
        "python": sys.version.split()[0],
        **{name: module.VERSION for name, module in modules.items()},
        "node": node.stdout.strip(),
        "@anthropic-ai/sdk": json.loads(package.read_text())["version"],
        "servers": " ".join([LITELLM, *llama.PACKAGES[:2]]),
    }
    print(", ".join(f"{name} {version}" for name, version in parts.items()))
