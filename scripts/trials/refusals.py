"""What the official client libraries make of each refusal of a gateway with keys.

Runs the Python packages openai, anthropic and ollama and the JavaScript packages openai,
@anthropic-ai/sdk and ollama against two gateways in front of scripted servers. Each library meets
every refusal of docs/contract/access.md#8.2 that a client can meet, whole and streamed. The trial
checks the exception with its status, type, code and message, and how many requests the library
sends for one call. It checks that Retry-After says when the request would pass, that the library
waits as long, and that a quota does not make it wait for hours. Prints a line for each call, at the
end a table: how many requests a library sent for one call, or FAIL. Exit status 1 if a check fails.

Needs Node 20 or newer with npm, and about 400 MB of disk: installs into target/clients (or
$OLLA_CLIENTS_DIR) the packages that `scripts/run clients` uses too.
"""

import hashlib
import http.client
import json
import os
import queue
import re
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import ThreadingHTTPServer

from trials.checks import Checks, Mismatch, expect
from trials.cli import add_names
from trials.client_runs import scripted
from trials.client_runs.clients import CACHE, CLIENTS, PROGRAMS
from trials.client_runs.refused import (
    CALLS,
    EXCEPTIONS,
    GUARDED,
    MESSAGES_TYPES,
    PER_MINUTE,
    REFUSALS,
    TOKEN_KEYS,
)
from trials.clients import install
from trials.gateway import Gateway, endpoint_config, server_config
from trials.process import NotReady, request, reserve_port, stop, wait_until
from trials.report import table

BINARIES = ("olla",)
NAMES = ("openai", "openai-js", "anthropic", "anthropic-js", "ollama", "ollama-js")
TOTAL_SECONDS_MAX = 1800
SETTLE_SECONDS_MAX = 30
CALL_SECONDS_MAX = 60
# A library's run must not reach midnight (UTC), where quotas begin anew.
LIBRARY_SECONDS_MAX = 300
DAY_SECONDS = 86400
# Clocks of two processes, and a pause that a library rounds.
EARLY_SECONDS_MAX = 0.05
LATE_SECONDS_MAX = 2
# A Retry-After above it comes with `x-should-retry: false`.
RETRY_SECONDS_MAX = 60
WORDS = "TASK hello"
MESSAGES = [{"role": "user", "content": WORDS}]


def add_arguments(parser):
    add_names(parser, "--only", NAMES, text="libraries, comma-separated; default: all of ")


def run(options):
    known = {client.name: client for client in CLIENTS}
    chosen = [known[name] for name in NAMES if name in options.only]
    for client in chosen:
        install(client)
    checks = Matrix(options)
    return checks.run_all(TOTAL_SECONDS_MAX, lambda processes: checks.all(processes, chosen))


class Matrix(Checks):
    """The checks, and the cell of the table for each refusal and library."""

    def __init__(self, options):
        super().__init__()
        self.options = options
        self.cells = {}

    def all(self, processes, chosen):
        server = scripted.Scripted()
        guarded = start_guarded()
        for client in chosen:
            with Stage(processes, self.options.bin, client, server, guarded) as stage:
                for row in REFUSALS:
                    for call in row.calls:
                        if has(client, row, call):
                            self.cell(stage, row, call)
        self.print_table(chosen)

    def cell(self, stage, row, call):
        name = f"{stage.client.name:<13} {row.name}, {call}"
        counts = self.cells.setdefault((row.name, stage.client.name), [])
        passed = self.run(name, lambda: check(stage, row, call, counts))
        if not passed:
            counts.append("FAIL")

    def print_table(self, chosen):
        rows = []
        for row in REFUSALS:
            seen = row.seen(True)
            line = {
                "refusal": row.name,
                "statuses": ", ".join(map(str, seen)),
                "code": "-" if seen[-1] == 200 else row.code,
                "exception": EXCEPTIONS["openai"].get(seen[-1], "-"),
            }
            for client in chosen:
                counts = self.cells.get((row.name, client.name), [])
                kinds = dict.fromkeys(map(str, counts))
                line[client.name] = "FAIL" if "FAIL" in kinds else " or ".join(kinds) or "-"
            rows.append(line)
        versions = ", ".join(f"{client.name} {client.version}" for client in chosen)
        print(f"\n{table(rows)}\n\n{versions}")


def has(client, row, call):
    """Whether the package can make this call, and meets the refusal with it."""
    if client.api != "ollama":
        return call != "responses" or client.api == "openai"
    # The Python package refuses an empty name itself.
    is_possible = call != "responses" and not (call == "nameless" and client.is_python)
    return is_possible and not row.is_retried


def check(stage, row, call, counts):
    """Provokes a refusal, and compares what the library shows with the row; returns a remark."""
    key = stage.key(row, call)
    release = getattr(stage, row.prepare)(key) if row.prepare else None
    passes_in = getattr(stage, row.until)() if row.until else None
    try:
        result = stage.ask(row, call, row.credential or key.secret)
    finally:
        if release:
            release()
    statuses = [attempt["status"] for attempt in result["attempts"]]
    wanted = list(row.seen(stage.client.api != "ollama"))
    expect(statuses == wanted, f"responses were {statuses}, not {wanted}: {result}")
    check_pauses(result["attempts"])
    if passes_in is not None:
        asked = int(result["attempts"][0]["retry_after"])
        off = f"Retry-After is {asked}, and the request would pass in {passes_in:.1f} s"
        expect(abs(asked - passes_in) <= LATE_SECONDS_MAX, off)
    counts.append(len(statuses))
    waited = result["attempts"][-1]["at"] - result["attempts"][0]["at"]
    remark = f"{len(statuses)} requests in {waited:.1f} s" if len(statuses) > 1 else "1 request"
    if wanted[-1] == 200:
        expect("passed" in result, f"it failed: {result}")
        return f"{remark}, then {result['passed'][:40]!r}"
    expect("exception" in result, f"no exception: {result}")
    check_exception(stage.client.api, row, call, key, statuses[-1], result)
    return f"{result['exception']} {result['status']} {result.get('code') or ''}, {remark}"


def check_exception(api, row, call, key, status, result):
    expected = {"exception": EXCEPTIONS[api][status], "status": status}
    # The ollama packages show the message only.
    if api != "ollama":
        on_messages = api == "anthropic" and call in CALLS
        # As with access off, where the Messages routes have no codes.
        expected["code"] = None if on_messages and status == 404 else row.code
        expected["type"] = MESSAGES_TYPES[status] if on_messages else row.type
    shown = {name: result.get(name) for name in expected}
    expect(shown == expected, f"expected {expected}, got {shown}: {result['message']}")
    pattern = row.message.replace("NAME", f"'{re.escape(key.name)}'")
    pattern = pattern.replace("MODEL", re.escape(model_of(row, call)))
    found = re.search(pattern, result["message"])
    expect(found, f"expected the message {pattern}, got {result['message']}")


def check_pauses(attempts):
    """Retry-After is where it must be, comes with `x-should-retry` when it is long, and is kept."""
    for attempt in attempts:
        seconds = int(attempt["retry_after"] or 0)
        needs_it = attempt["status"] in (429, 503)
        expect(needs_it == (seconds > 0), f"Retry-After is {seconds} with {attempt['status']}")
        told = attempt["should_retry"]
        expected = "false" if seconds > RETRY_SECONDS_MAX else None
        expect(told == expected, f"Retry-After is {seconds}, and x-should-retry {told}")
    for before, after in zip(attempts, attempts[1:]):
        pause = after["at"] - before["at"]
        asked = int(before["retry_after"] or 0)
        late = pause - asked
        expect(late > -EARLY_SECONDS_MAX, f"after {pause:.2f} s instead of {asked}")
        expect(late < LATE_SECONDS_MAX, f"after {pause:.2f} s instead of {asked}")


def model_of(row, call):
    return f"{GUARDED}-{call}" if row.model == GUARDED else row.model


# ---- The stage of one library ----


@dataclass
class Key:
    """A key of the configuration; its name says for which refusal and call it is."""

    name: str
    secret: str
    fields: str

    def entry(self):
        digest = hashlib.sha256(self.secret.encode()).hexdigest()
        return f'[[access.keys]]\nname = "{self.name}"\nhash = "sha256:{digest}"\n{self.fields}\n'


class Stage:
    """Two gateways and the process of a library, all begun anew: no limit is spent."""

    def __init__(self, processes, binary, client, server, guarded):
        self.client = client
        self.server = server
        self.admin = f"sk-{secrets.token_hex(16)}"
        wait_until("there is no new day", day_is_long, LIBRARY_SECONDS_MAX + 5, 1)
        self.keys = {
            (row.name, call): Key(f"{row.slug}-{call}", f"sk-{secrets.token_hex(16)}", row.key)
            for row in REFUSALS
            for call in row.calls
        }
        jwks = processes.directory / "jwks.json"
        jwks.write_text(json.dumps(TOKEN_KEYS))
        # Nothing listens there.
        closed = f'jwks_url = "http://127.0.0.1:{reserve_port()}/jwks"\n'
        issuers = {"main": f'jwks_file = "{jwks}"\n', "closed": closed}
        self.gateways = {}
        for name, issuer in issuers.items():
            gateway = Gateway(processes, binary, f"{client.name}-{name}")
            state = processes.directory / f"{client.name}-{name}.state"
            gateway.start(
                self.config(gateway.port, issuer, state, guarded),
                environment={"OLLA_ADMIN_KEY": self.admin},
            )
            self.gateways[name] = gateway
        for gateway in self.gateways.values():
            self.wait_settled(gateway)
        self.begin_library(processes)

    def config(self, port, issuer, state, guarded):
        limits = "max_refused_per_minute = 30\n" if "url" in issuer else ""
        return (
            server_config(port, "request_logging = false\n")
            + '[logging]\nlevel = "warn"\n[proxy]\nmodel_management = "forward"\n'
            + f'[access]\nenabled = true\nstate = {{ path = "{state}" }}\n{limits}'
            + f'[access.jwt]\nissuer = "joe"\naudience = "olla"\n{issuer}'
            + "".join(key.entry() for key in self.keys.values())
            + endpoint_config("server", self.server.url, "lmdeploy")
            + "".join(
                endpoint_config(f"{GUARDED}-{call}", f"{guarded}/{call}", "lmdeploy")
                for call in CALLS
            )
        )

    def wait_settled(self, gateway):
        """Waits until the models of all endpoints are listed."""
        wanted = {scripted.MODEL, *(f"{GUARDED}-{call}" for call in CALLS)}
        headers = {"Authorization": f"Bearer {self.admin}"}

        def is_settled():
            if not gateway.is_alive():
                raise NotReady(f"the gateway ended:\n{gateway.log_tail()}")
            try:
                page = json.loads(request(gateway.port, "GET", "/v1/models", headers=headers)[2])
                return wanted <= {model["id"] for model in page["data"]}
            except (OSError, ValueError, KeyError, http.client.HTTPException):
                return False

        wait_until("the models are not listed", is_settled, SETTLE_SECONDS_MAX)

    def begin_library(self, processes):
        client = self.client
        program = PROGRAMS / ("refusals.py" if client.is_python else "refusals.mjs")
        runner = sys.executable if client.is_python else "node"
        # OLLAMA_API_KEY would be a key of its own.
        own = {key: text for key, text in os.environ.items() if not key.startswith("OLLAMA_")}
        environment = {
            **own,
            "PYTHONPATH": str(client.directory),
            "PYTHONPYCACHEPREFIX": str(CACHE / "pycache"),
            "CLIENT_PACKAGES": str(client.directory),
        }
        self.process = processes.start(
            client.name,
            [runner, program, client.api],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.log = processes.log(client.name)
        self.lines = queue.Queue()
        threading.Thread(target=self.read_lines, daemon=True).start()

    def read_lines(self):
        for line in self.process.stdout:
            # Ollama's package prints remarks of its own.
            if line.startswith("{"):
                self.lines.put(line)
        self.lines.put("")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Stops the library and its gateways, so that the next ones run alone."""
        for process in (self.process, *(gateway.process for gateway in self.gateways.values())):
            stop(process)

    def key(self, row, call):
        return self.keys[row.name, call]

    def ask(self, row, call, credential):
        """Lets the library make one call; returns what came of it."""
        body = {
            "url": self.gateways[row.gateway].url,
            "key": credential,
            "call": call,
            "model": model_of(row, call),
            "words": WORDS,
            "tokens": row.tokens,
            "retries": row.retries,
        }
        try:
            self.process.stdin.write(json.dumps(body) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=CALL_SECONDS_MAX)
        except queue.Empty:
            raise Mismatch(f"the call does not end within {CALL_SECONDS_MAX} s") from None
        except OSError as error:
            raise NotReady(f"the program ended: {error}\n{self.log.read_text()[-500:]}") from error
        expect(line, f"the program ended:\n{self.log.read_text()[-500:]}")
        return json.loads(line)

    # ---- How limits are spent ----

    def send(self, gateway, secret, **more):
        """The status of one small request under a key."""
        body = json.dumps({"model": scripted.MODEL, "max_tokens": 1, "messages": MESSAGES, **more})
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        port = self.gateways[gateway].port
        return request(port, "POST", "/v1/chat/completions", body, headers)[0]

    def spend(self, gateway, secret, others):
        """Sends until the bucket is empty and has just given away what it got since: then it gives
        nothing for as long as possible. `others` is the status until then."""
        for _ in range(PER_MINUTE * 2):
            if self.send(gateway, secret) == 429:
                break
        else:
            raise Mismatch(f"no 429 after {PER_MINUTE * 2} requests")
        wait_until(f"no {others} after a 429", lambda: self.send(gateway, secret) == others, 10)

    def spend_requests(self, key):
        self.spend("main", key.secret, 200)

    def spend_wrong_keys(self, _key):
        self.spend("closed", "sk-nobody-has-this-key-either", 401)

    def spend_tokens(self, key):
        """The server reports 21 tokens for any request."""
        status = self.send("main", key.secret)
        expect(status == 200, f"the request before got {status}")

    def hold_request(self, key):
        """Begins a stream under the key that goes on until the returned function is called."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateways["main"].port, timeout=10)
        messages = [{"role": "user", "content": "TASK slow"}]
        body = {"model": scripted.MODEL, "max_tokens": 1, "messages": messages, "stream": True}
        headers = {"Authorization": f"Bearer {key.secret}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        expect(response.status == 200, f"the request before got {response.status}")

        def release():
            response.close()
            connection.close()

        return release

    # ---- When a request would pass ----

    @staticmethod
    def seconds_of_day():
        return DAY_SECONDS - time.time() % DAY_SECONDS

    @staticmethod
    def seconds_of_month():
        now = datetime.now(timezone.utc)
        # January is 1 in dates and 0 in the remainder: this is the month after.
        year, next_month = divmod(now.year * 12 + now.month, 12)
        return (datetime(year, next_month + 1, 1, tzinfo=timezone.utc) - now).total_seconds()

    def seconds_of_fetch(self):
        """Until the gateway tries again to fetch its issuer's keys, by its log."""

        def left():
            # A line that is being written is not whole.
            lines = self.gateways["closed"].log_text().split("\n")[:-1]
            fetches = [line for line in lines if '"Signing keys not fetched"' in line]
            if not fetches:
                return 0
            last = json.loads(fetches[-1])
            at = datetime.fromisoformat(last["timestamp"].replace("Z", "+00:00"))
            seconds = at.timestamp() + last["next_try_s"] - time.time()
            # Not while the next attempt is near.
            return seconds if seconds > LATE_SECONDS_MAX * 2 else 0

        return wait_until("there is no long pause between fetches", left, CALL_SECONDS_MAX)


def day_is_long():
    return Stage.seconds_of_day() > LIBRARY_SECONDS_MAX


# ---- Servers that refuse the gateway ----


class Guarded(scripted.Handler):
    """Lists one model, whose name is in the path, and refuses whatever is sent to it."""

    def do_GET(self):
        _, call, path = self.path.split("?")[0].split("/", 2)
        model = {"id": f"{GUARDED}-{call}", "object": "model", "created": 1}
        known = {"v1/models": {"object": "list", "data": [model]}, "health": {"status": "ok"}}
        self.json(200 if path in known else 404, known.get(path, {"error": "no such route"}))

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.json(401, scripted.error("Incorrect API key provided.", "invalid_request_error"))


def start_guarded():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
