"""Checks the gateway with the official client libraries, in front of real servers.

Started by try-clients.sh. Prints a line for each check, and at the end a table of what passed by
client and backend, and one of what the servers say of themselves beside what the gateway shows.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clients import anthropic_checks, ollama_checks, openai_checks
from ports import reserve_port
from real_llm import MODEL_NAME
from trial import (
    START_SECONDS_MAX,
    Checks,
    Gateway,
    NotStarted,
    endpoint_config,
    expect,
    get_json,
    run_trial,
    spawn,
    start_backends,
    wait_settled,
)

SETTLE_SECONDS_MAX = 30
TOTAL_SECONDS_MAX = 900
NODE_SECONDS_MAX = 300
CLIENTS = Path(__file__).resolve().parent / "clients"
FIXTURES = CLIENTS.parent.parent / "src" / "providers" / "fixtures"
# LiteLLM's proxy refuses to serve without a key; the gateway has it as the endpoint's `auth`.
LITELLM_KEY = "LITELLM_MASTER_KEY"
# Of clients/litellm.yaml, which has the other end of the variable too.
LITELLM_MODEL = "gemma3-by-litellm"
LITELLM_UPSTREAM = "LITELLM_UPSTREAM"


@dataclass
class Target:
    """What a client library is pointed at."""

    url: str
    backend: str
    model: str
    # native: an Anthropic request passes untouched; translated; or plain for other clients
    mode: str = "plain"
    # What of it is worth asking: the checks' modules have the words.
    can: list = field(default_factory=list)


def main():
    parser = argparse.ArgumentParser(prog="try-clients.sh")
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--backends", type=Path, required=True)
    parser.add_argument("--litellm", type=Path, required=True)
    parser.add_argument("--node-packages", type=Path, required=True)
    options = parser.parse_args()
    table = Table()
    run_trial(table, TOTAL_SECONDS_MAX, lambda *place: try_all(options, table, *place))


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


def try_all(options, table, started, directory):
    """Starts the servers and two gateways, and runs the checks of every client."""
    servers = start_servers(options, started, directory)
    config, environment = gateway_config(servers)
    gateways = {
        name: Gateway(options.bin, text + config, directory, started, name, environment)
        for name, text in (
            ("native", ""),
            ("translated", "[translators.anthropic]\npassthrough_enabled = false\n"),
        )
    }
    counts = {name: server.models for name, server in servers.items()}
    for name, gateway in gateways.items():
        label = f"gateway {name}: every endpoint healthy and listed"
        table.run(label, wait_settled, gateway, counts, SETTLE_SECONDS_MAX)
    native, translated = gateways["native"].url, gateways["translated"].url
    modules = (
        (openai_checks, "openai", openai_targets(native)),
        (anthropic_checks, "anthropic", anthropic_targets(native, translated)),
        (ollama_checks, "ollama", [ollama_target(native)]),
    )
    for module, client, targets in modules:
        for target in targets:
            for name, check in module.checks(target):
                table.row(client, target, name, check)
    for target in anthropic_targets(native, translated):
        javascript(table, options.node_packages, target)
    table.run("facts of llama.cpp's model", compare_facts, native, servers["llama-1"].url)
    table.print_cells()
    print_versions(options)
    if table.failed:
        for gateway in gateways.values():
            gateway.print_log()


# ---- servers ----


@dataclass
class Server:
    """A backend: its address, its type, how many models it has, and more configuration."""

    url: str
    kind: str
    models: int
    more: str = ""


def start_servers(options, started, directory):
    """Starts every backend; returns them by name."""
    (name, url), = start_backends(options.backends, 1, started).items()
    # LiteLLM's `/health`, the path of its profile, asks every model for an answer each time.
    more = (
        'health_check_url = "/health/liveness"\n'
        f'auth = {{ type = "bearer", token = "${{{LITELLM_KEY}}}" }}\n'
    )
    return {
        name: Server(url, "llamacpp", 1),
        "litellm": Server(
            start_litellm(options.litellm, url, started, directory), "litellm", 1, more
        ),
        "ollama": Server(start_simulated("ollama", "ollama.json", started, directory), "ollama", 3),
        "lm-studio": Server(
            start_simulated("lm-studio", "lmstudio.json", started, directory), "lm-studio", 3
        ),
    }


def start_litellm(program, upstream, started, directory):
    """Starts LiteLLM's proxy in front of a llama.cpp server; returns its URL."""
    os.environ[LITELLM_KEY] = "sk-" + secrets.token_hex(32)
    port = reserve_port()
    # Its price list is to be the one of the package, not fetched.
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        LITELLM_UPSTREAM: f"{upstream}/v1",
    }
    command = [program, "--config", CLIENTS / "litellm.yaml", "--host", "127.0.0.1"]
    with open(directory / "litellm.log", "wb") as log:
        process = spawn(
            started,
            [*command, "--port", str(port), "--telemetry", "False"],
            cwd=directory,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get_json(url, "/health/liveness")
            return url
        except (OSError, ValueError):
            time.sleep(0.1)
    print((directory / "litellm.log").read_text(errors="replace")[-2000:], file=sys.stderr)
    raise NotStarted("LiteLLM's proxy is not ready")


def start_simulated(kind, listing, started, directory):
    """Starts a simulated server; returns its URL."""
    command = [sys.executable, CLIENTS / "simulated.py", "--kind", kind]
    with open(directory / f"simulated-{kind}.log", "wb") as log:
        process = spawn(
            started,
            [*command, "--listing", FIXTURES / listing],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    words = process.stdout.readline().decode().split()
    if words[:1] != ["ready"]:
        raise NotStarted(f"the simulated {kind} is not ready")
    return words[1]


def gateway_config(servers):
    """The endpoints of the configuration, and the environment that it refers to."""
    text = "".join(
        endpoint_config(name, server.url, server.kind) + server.more
        for name, server in servers.items()
    )
    return text, {LITELLM_KEY: os.environ[LITELLM_KEY]}


# ---- targets ----


OLLAMA_MODEL = "llama3.2:3b"
LM_STUDIO_MODEL = "meta-llama-3.1-8b-instruct"
LLAMA_CAN = ["tools", "forced tools", "tool stream", "schema", "completions", "responses"]


def openai_targets(gateway):
    return [
        Target(f"{gateway}/olla/openai", "llama-1", MODEL_NAME, can=LLAMA_CAN),
        Target(
            f"{gateway}/olla/litellm",
            "litellm",
            LITELLM_MODEL,
            can=["retrieve", *LLAMA_CAN],
        ),
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


def ollama_target(gateway):
    return Target(f"{gateway}/olla/ollama", "ollama", OLLAMA_MODEL)


def javascript(table, packages, target):
    """Runs the checks of the JavaScript library, which prints a line of JSON for each."""
    client = "@anthropic-ai/sdk"
    command = ["node", CLIENTS / "anthropic_checks.mjs", packages, json.dumps(asdict(target))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=NODE_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        table.fail(f"{client:<18} {target.backend}", error)
        return
    for line in done.stdout.splitlines():
        row = json.loads(line)

        def told(row=row):
            expect("failure" not in row, row.get("failure"))
            return row.get("remark")

        table.row(client, target, row["name"], told)
    if done.returncode:
        table.fail(f"{client:<18} {target.backend}", done.stderr.strip()[-500:])


# ---- what is shown of a model ----


def compare_facts(gateway, backend):
    """Shows what llama.cpp says of its model beside what the gateway shows; both must agree."""
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
    print(f"\n{'llama.cpp':<36} says, then what the gateway shows")
    for name, values in rows.items():
        print(f"{name:<36} {', '.join(map(str, values))}")
    shown = unified["olla"]
    print(f"{'not compared: llama.cpp':<36} n_ctx {meta.get('n_ctx')}, ftype {meta.get('ftype')},")
    print(f"{'':<36} n_ctx of /props {props['default_generation_settings']['n_ctx']}")
    print(f"{'not compared: the gateway':<36} {json.dumps(shown)}\n")
    for name, values in rows.items():
        expect(len(set(values)) == 1, f"{name}: {values}")


def size_text(size):
    """A size in bytes as the gateway writes it."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            break
        size /= 1024
    return f"{size:.2f} {unit}"


def print_versions(options):
    """The versions of everything that took part."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    package = options.node_packages / "node_modules" / "@anthropic-ai" / "sdk" / "package.json"
    parts = {
        "python": sys.version.split()[0],
        "openai": openai_checks.VERSION,
        "anthropic": anthropic_checks.VERSION,
        "ollama": ollama_checks.VERSION,
        "node": node.stdout.strip(),
        "@anthropic-ai/sdk": json.loads(package.read_text())["version"],
        "servers": os.environ.get("OLLA_SERVER_VERSIONS", ""),
    }
    print(", ".join(f"{name} {version}" for name, version in parts.items()))


if __name__ == "__main__":
    main()
