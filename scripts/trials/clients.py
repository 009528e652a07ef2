"""Clients of every kind, libraries and agents, through the gateway to a chat server.

Installs clients from PyPI and npm, and runs each of them through a gateway in front of a scripted
server that speaks nothing but chat completions: what else a client speaks, the gateway translates.
The server calls tools in a loop of three turns, thinks, looks at an image, refuses, and streams
until the client disconnects. Then the clients that need no script chat with a real llama.cpp
server. Prints a line for each check, at the end a table: "ok", "FAIL", and "server" for what fails
straight against the server too. Exit status 1 if a check fails but for the last kind.

Needs Node 20 or newer with npm, and about 4 GB of disk: installs into target/clients (or
$OLLA_CLIENTS_DIR) what the chosen clients need, at their first run.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from trials import llama
from trials.checks import Checks, Mismatch, expect
from trials.cli import add_names
from trials.client_runs import plans, scripted
from trials.client_runs.clients import CACHE, CLIENTS, COLUMNS
from trials.gateway import Gateway, endpoint_config, server_config
from trials.host import npm_packages, python_packages
from trials.process import NotReady, wait_until
from trials.report import table

BINARIES = ("olla",)
NAMES = [client.name for client in CLIENTS]
TOTAL_SECONDS_MAX = 3600
RUN_SECONDS_MAX = 90
SETTLE_SECONDS_MAX = 30
# From the end of the client to the moment at which the server sees its connection closed.
LEFT_SECONDS_MAX = 1
# More requests than that for one refusal are a client that was told to try again. Claude Code sends
# six: it leaves out one after another of what a server may not know.
REFUSED_REQUESTS_MAX = 6
# The small model does not stop by itself.
PREDICT = 24
# Without a script, so that a real model can do it.
PLAIN_COLUMNS = ("models", "chat", "stream")


@dataclass
class Run:
    """One call of a client: the addresses that it gets, and the folders in which it works."""

    openai: str
    anthropic: str
    ollama: str
    model: str
    home: Path
    folder: Path
    # Commands to run before the client.
    before: list = field(default_factory=list)


def add_arguments(parser):
    add_names(parser, "--only", NAMES, text="clients, comma-separated; default: all of ")
    parser.add_argument(
        "--prefixes",
        action="store_true",
        help="call the gateway below /olla/, as with server.root_routes = false",
    )
    parser.add_argument(
        "--no-llama", action="store_true", help="leave out the real llama.cpp server"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print what each client printed and the server saw"
    )


def run(options):
    chosen = [client for client in CLIENTS if client.name in options.only]
    for client in chosen:
        install(client)
    if not options.no_llama:
        llama.set_up()
    checks = Matrix(options)
    return checks.run_all(TOTAL_SECONDS_MAX, lambda processes: checks.all(processes, chosen))


def install(client):
    if client.is_python:
        python_packages(client.directory, *client.packages)
        return
    # The packages of libraries must be found by their names from the folder.
    manifest = json.dumps({"name": "clients", "private": True, "type": "module"})
    npm_packages(client.directory, {"package.json": manifest}, "install", "-E", *client.packages)


class Matrix(Checks):
    """The checks, and the cell of the table for each."""

    def __init__(self, options):
        super().__init__()
        self.options = options
        self.cells = {}
        self.straight = []

    def all(self, processes, chosen):
        self.directory = processes.directory
        (self.directory / "image.png").write_bytes(scripted.make_png())
        self.server = scripted.Scripted()
        gateway = self.start(processes, "gateway", self.server.url, "lmdeploy")
        for client in chosen:
            for column in client.columns:
                self.cell(client, column, gateway)
        if not self.options.no_llama:
            url = llama.start_instances(processes, 1, more=["--predict", PREDICT])["llama-1"][0]
            real = self.start(processes, "gateway-real", url, "llamacpp")
            for client in chosen:
                if client.name not in TASK_ONLY:
                    self.real(client, real, url)
        self.print_table(chosen)

    def start(self, processes, name, url, kind):
        gateway = Gateway(processes, self.options.bin, name)
        aliases = f'[model_aliases]\n"{scripted.ALIAS}" = ["{scripted.MODEL}"]\n'
        config = server_config(gateway.port) + aliases
        gateway.start(config + endpoint_config("server", url, kind))
        gateway.wait_settled({"server": 1}, SETTLE_SECONDS_MAX)
        return gateway

    def cell(self, client, column, gateway):
        """Runs one column of a client, again straight against the server if it fails."""
        name = f"{client.name:<22} {column}"
        try:
            remark = self.check(client, column, self.addresses(gateway.url))
        except (Mismatch, NotReady) as reason:
            if client.api == "openai" and self.fails_straight(client, column):
                self.cells[client.name, column] = "server"
                self.straight.append(f"{client.name} {column}: {reason}")
                print(f"same {name}: fails straight against the server: {reason}", flush=True)
                return
            self.cells[client.name, column] = "FAIL"
            self.fail(name, reason)
        else:
            self.cells[client.name, column] = "ok"
            self.passed += 1
            print(f"ok   {name}: {remark}", flush=True)

    def fails_straight(self, client, column):
        url = self.server.url
        try:
            self.check(client, column, (f"{url}/v1", url, url))
        except (Mismatch, NotReady):
            return True
        return False

    def addresses(self, url):
        """The bases for the clients of OpenAI's, Anthropic's and Ollama's API."""
        if self.options.prefixes:
            return f"{url}/olla/proxy/v1", f"{url}/olla/anthropic", f"{url}/olla/proxy"
        return f"{url}/v1", url, url

    def check(self, client, column, addresses):
        """Calls a client for one column against the scripted server; returns a remark."""
        self.server.clear()
        begin = time.monotonic()
        process = self.begin(client, column, addresses, scripted.MODEL)
        try:
            if column == "cancel":
                return self.check_cancel(process)
            shown = process.finish(RUN_SECONDS_MAX)
            CHECKS[column](self.server, process, shown)
            expect(not self.server.problems, f"the server refused: {self.server.problems[:3]}")
        except Mismatch as reason:
            raise Mismatch(f"{reason}{process.explain()}{self.explain()}") from None
        finally:
            process.kill()
            if self.options.verbose:
                print(process.text(), self.explain(), flush=True)
        requests = len(self.server.bodies)
        return f"{requests} requests, {time.monotonic() - begin:.1f} s"

    def check_cancel(self, process):
        def is_settled():
            return self.server.begun or process.is_over()

        wait_until("the stream does not begin", is_settled, RUN_SECONDS_MAX)
        expect(self.server.begun, f"it ended with status {process.status}, without a stream")
        if process.client.name in CLIS:
            # As Ctrl-C at a terminal, or the end of a job.
            time.sleep(0.5)
            process.interrupt()
        process.finish(RUN_SECONDS_MAX)
        ended = time.monotonic()
        wait_until(
            "the server's connection stays open after the client",
            lambda: len(self.server.left) >= len(self.server.begun),
            LEFT_SECONDS_MAX,
        )
        late = max((self.server.left[-1] - ended) * 1000, 0)
        return f"the server saw it {late:.0f} ms after the client's end"

    def explain(self):
        bodies = self.server.bodies
        return f"\n     tools of the last request: {plans.shown(bodies[-1])}" if bodies else ""

    def begin(self, client, column, addresses, model):
        home = self.directory / f"{client.name}-{column}"
        shutil.rmtree(home, ignore_errors=True)
        folder = home / "work"
        folder.mkdir(parents=True)
        (folder / "greeting.txt").write_text(plans.BEFORE)
        one = Run(*addresses, model, home, folder)
        return Called(client, column, one, self.directory / "image.png")

    def real(self, client, gateway, server):
        """The same columns as far as a model without a script can do them."""
        for column in client.columns:
            if column not in PLAIN_COLUMNS:
                continue
            name = f"{client.name:<22} {column}, llama.cpp"
            try:
                remark = self.check_real(client, column, self.addresses(gateway.url))
            except (Mismatch, NotReady) as reason:
                # llama.cpp speaks all but Ollama's API.
                if client.api != "ollama" and self.fails_really_straight(client, column, server):
                    self.straight.append(f"{client.name} {column}, llama.cpp: {reason}")
                    print(f"same {name}: fails straight against the server: {reason}", flush=True)
                else:
                    self.fail(name, reason)
            else:
                self.passed += 1
                print(f"ok   {name}: {remark}", flush=True)

    def fails_really_straight(self, client, column, server):
        try:
            self.check_real(client, column, (f"{server}/v1", server, server))
        except (Mismatch, NotReady):
            return True
        return False

    def check_real(self, client, column, addresses):
        process = self.begin(client, column, addresses, llama.MODEL_NAME)
        try:
            shown = process.finish(RUN_SECONDS_MAX).strip()
            expect(process.status == 0, f"exit status {process.status}")
            expect(shown, "it printed nothing")
            if column == "models":
                expect(llama.MODEL_NAME in shown, f"no {llama.MODEL_NAME} in {shown}")
        except Mismatch as reason:
            raise Mismatch(f"{reason}{process.explain()}") from None
        finally:
            process.kill()
        return repr(shown[:40])

    def print_table(self, chosen):
        rows = []
        for client in chosen:
            row = {"client": client.name, "version": client.version, "API": client.api}
            for column in COLUMNS:
                row[column] = self.cells.get((client.name, column), "-")
            rows.append(row)
        print(f"\n{table(rows)}\n")
        for line in self.straight:
            print(f"fails straight against the server too: {line.splitlines()[0]}")


# Agents, which are stopped from outside; the programs of libraries leave by themselves.
CLIS = (
    "claude-code",
    "codex",
    "codex-patch",
    "opencode",
    "copilot-cli",
    "cline",
    "continue",
    "llm",
    "llm-ollama",
    "aider",
)
# Their prompts fill the context of the small model.
TASK_ONLY = (*CLIS, "home-assistant", "vscode-copilot")


class Called:
    """A client's process; it leads a session of its own, so that what it starts ends with it."""

    def __init__(self, client, column, one, image):
        self.client = client
        self.home = one.home
        self.output = one.home / "output"
        command, environment = client.call(client, column, one)
        own = {key: text for key, text in os.environ.items() if not key.startswith("OLLA_")}
        environment = {
            **own,
            "HOME": str(one.home),
            # Some programs trust this more than where they are.
            "PWD": str(one.folder),
            "XDG_CONFIG_HOME": str(one.home / "config"),
            "XDG_DATA_HOME": str(one.home / "data"),
            "XDG_CACHE_HOME": str(one.home / "cache"),
            "XDG_STATE_HOME": str(one.home / "state"),
            "CLIENT_OPENAI": one.openai,
            "CLIENT_ANTHROPIC": one.anthropic,
            "CLIENT_OLLAMA": one.ollama,
            "CLIENT_MODEL": one.model,
            "CLIENT_IMAGE": str(image),
            "CLIENT_API": client.api,
            "PYTHONPYCACHEPREFIX": str(CACHE / "pycache"),
            "CI": "1",
            "NO_COLOR": "1",
            "TERM": "dumb",
            **environment,
        }
        self.file = one.folder / "greeting.txt"
        options = {"cwd": one.folder, "env": environment, "stdin": subprocess.DEVNULL}
        with open(self.output, "wb") as output:
            options |= {"stdout": output, "stderr": subprocess.STDOUT}
            for each in one.before:
                each = [str(part) for part in each]
                subprocess.run(each, **options, timeout=RUN_SECONDS_MAX, check=False)
            command = [str(part) for part in command]
            self.process = subprocess.Popen(command, **options, start_new_session=True)

    @property
    def status(self):
        return self.process.returncode

    def is_over(self):
        return self.process.poll() is not None

    def text(self):
        return self.output.read_text(errors="replace")

    def finish(self, seconds):
        """Waits for the end; returns what was printed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Mismatch(f"it does not end within {seconds} s") from None
        return self.text()

    def interrupt(self):
        self.send(signal.SIGINT)
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.wait()
        # Cline leaves a daemon in a session of its own; it has the client's own home folder.
        home = f"HOME={self.home}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if home in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                pass

    def send(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def explain(self):
        lines = [line[:300] for line in self.text().splitlines() if line.strip()]
        return "".join(f"\n     | {line}" for line in lines[-8:])


# ---- What each column must show ----


def check_models(_server, process, shown):
    expect(process.status == 0, f"exit status {process.status}")
    expect(scripted.MODEL in shown, f"no model {scripted.MODEL}")


def check_chat(server, process, shown):
    expect(process.status == 0, f"exit status {process.status}")
    expect(scripted.HELLO in shown, f"no {scripted.HELLO!r}")
    expect(server.bodies, "the server saw no request")


def check_stream(_server, process, shown):
    expect(process.status == 0, f"exit status {process.status}")
    lines = [line for line in shown.splitlines() if line.strip()]
    words = "".join(shown.split())
    expect("".join(scripted.HELLO.split()) in words, f"no {scripted.HELLO!r}")
    is_library = process.client.name not in CLIS
    expect(not is_library or len(lines) >= 3, f"{len(lines)} pieces")


def check_thinking(_server, process, shown):
    check_chat(_server, process, shown)
    expect(scripted.THOUGHT in shown, f"no {scripted.THOUGHT!r}")


def check_tools(server, process, shown):
    expect(process.status == 0, f"exit status {process.status}")
    if process.client.name in CLIS:
        text = process.file.read_text()
        expect(text == plans.AFTER, f"the file has {text!r}")
        return
    expect("".join(scripted.SUM.split()) in "".join(shown.split()), f"no {scripted.SUM!r}")
    results = [one for one in server.bodies[-1]["messages"] if one["role"] == "tool"]
    expect(len(results) == 3, f"{len(results)} results of tools in the last request")


def check_images(_server, process, shown):
    expect(process.status == 0, f"exit status {process.status}")
    expect(scripted.IMAGE_SEEN in shown, f"no {scripted.IMAGE_SEEN!r}")


def check_error(server, process, shown):
    expect(scripted.REFUSAL in shown, f"no {scripted.REFUSAL!r}")
    refused = [one for one in server.bodies if scripted.position(one["messages"])[0] == "fail"]
    count = len(refused)
    expect(0 < count <= REFUSED_REQUESTS_MAX, f"{count} requests for one refusal")


CHECKS = {
    "models": check_models,
    "chat": check_chat,
    "stream": check_stream,
    "thinking": check_thinking,
    "tools": check_tools,
    "images": check_images,
    "error": check_error,
}
