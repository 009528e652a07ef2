"""Checks the gateway in front of real llama.cpp servers with the official OpenAI client.

Started by try-real.sh. Each check prints one line; the last line counts them. Every wait is for
something that can be observed and has a bound; every process started is stopped by its id.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import openai

from real_llm import MODEL_NAME

START_SECONDS_MAX = 130
SETTLE_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
REQUEST_SECONDS_MAX = 60
# The whole program: far above what it needs on a slow machine, so that nothing hangs for ever.
TOTAL_SECONDS_MAX = 600
# From the moment a client closes its connection until no backend computes for it.
ABANDONED_MS_MAX = 300
STREAM_TOKENS = 64
# Enough that a generation nobody stops runs for many seconds, and less than a slot's context.
STORY_TOKENS = 1500
ENDPOINT_HEADER = "x-olla-endpoint"


def main():
    parser = argparse.ArgumentParser(prog="try-real.sh")
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--backends", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    # Both said outright: SIGINT is ignored in what a shell script starts in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TOTAL_SECONDS_MAX)
    with tempfile.TemporaryDirectory(prefix="olla-try-real-") as directory:
        try:
            passed, failed = try_all(options, Path(directory))
        except NotStarted as reason:
            print(f"FAIL start: {reason}")
            passed, failed = 0, 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def try_all(options, directory):
    """Starts everything, runs the checks and stops everything; returns (passed, failed)."""
    checks = Checks()
    started = []
    try:
        backends = start_backends(options.backends, started)
        gateway = Gateway(options.bin, backends, directory, started)
        checks.run("both endpoints healthy, model listed", wait_settled, gateway)
        checks.run("list of models", check_models, gateway)
        checks.run("unified list of models", check_unified_models, gateway, backends)
        checks.run("chat", check_chat, gateway)
        checks.run("streamed chat", check_stream, gateway)
        checks.run("many chats reach both endpoints", check_spread, gateway, backends)
        checks.run("refused embeddings pass through", check_embeddings, gateway, backends)
        checks.run("refused chat passes through", check_bad_chat, gateway, backends)
        checks.run("unknown model", check_unknown_model, gateway)
        for number in range(1, options.rounds + 1):
            name = f"client leaves mid-stream, {number} of {options.rounds}"
            checks.run(name, check_leaves_stream, gateway, backends)
        checks.run("client leaves a whole answer", check_leaves_answer, gateway, backends)
        checks.run("gateway serves after that", check_chat, gateway)
        checks.run("gateway stops", check_stops, gateway)
        if checks.failed:
            gateway.print_log()
    except OutOfTime:
        checks.fail("all of it", f"not done after {TOTAL_SECONDS_MAX} s")
    finally:
        # A second signal, or the alarm, must not cut the clearing up short.
        signal.alarm(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(started):
            stop(process)
    return checks.passed, checks.failed


class Checks:
    """Runs checks, prints a line for each and counts them."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def run(self, name, check, *arguments):
        """Runs `check`, which returns a remark to print, or raises what went wrong."""
        try:
            remark = check(*arguments)
        except Mismatch as mismatch:
            self.fail(name, mismatch)
        except Exception as error:
            # Whatever the client library raises is a finding about the gateway, with its origin.
            origin = traceback.extract_tb(error.__traceback__)[1:2]
            line = f" (line {origin[0].lineno})" if origin else ""
            self.fail(name, f"{type(error).__name__}: {error}{line}")
        else:
            self.passed += 1
            print(f"ok   {name}" + (f": {remark}" if remark else ""), flush=True)

    def fail(self, name, reason):
        self.failed += 1
        print(f"FAIL {name}: {reason}", flush=True)


class Mismatch(Exception):
    """A check found something else than it expected."""


class NotStarted(Exception):
    """The backends or the gateway did not start."""


class OutOfTime(BaseException):
    """The bound of the whole program has passed. No Exception: client libraries wrap those."""


def out_of_time(*_):
    raise OutOfTime


def expect(condition, message):
    """Raises Mismatch with `message` unless `condition` holds."""
    if not condition:
        raise Mismatch(message)


# ---- what is started ----


def start_backends(script, started):
    """Starts two llama.cpp servers; returns their URLs by name."""
    # A session of its own: Ctrl-C reaches this program, which then stops the rest in order.
    process = subprocess.Popen(
        [script, "run", "--instances", "2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    started.append(process)
    urls = {}
    text = b""
    deadline = time.monotonic() + START_SECONDS_MAX
    while len(urls) < 2:
        left = max(0.0, deadline - time.monotonic())
        # Read from the descriptor: a line that a buffered reader holds would not show in select.
        ready = select.select([process.stdout], [], [], left)[0]
        piece = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not piece:
            raise NotStarted("the backends are not ready")
        text += piece
        lines = [line.split() for line in text.decode().splitlines(keepends=True) if "\n" in line]
        urls = {words[1]: words[2] for words in lines if words[:1] == ["ready"]}
    return urls


class Gateway:
    """The gateway's process and its addresses."""

    def __init__(self, binary, backends, directory, started):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "gateway.log"
        config = directory / "gateway.toml"
        config.write_text(gateway_config(self.port, backends))
        try:
            with open(self.log, "wb") as log:
                self.process = subprocess.Popen(
                    [binary, "--config", config],
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise NotStarted(f"{binary}: {error.strerror}") from error
        started.append(self.process)

    def client(self):
        """An OpenAI client with connections of its own, which never repeats a request."""
        return openai_client(f"{self.url}/olla/openai/v1")

    def print_log(self):
        """Shows the end of what the gateway wrote, for whoever looks for the cause."""
        lines = self.log.read_text(errors="replace").splitlines()
        print("---- the gateway's last lines", *lines[-20:], "----", sep="\n", flush=True)


def gateway_config(port, backends):
    """The configuration file: the endpoints, and no rate limits, since all clients are one."""
    text = f"""[server]
host = "127.0.0.1"
port = {port}

[server.rate_limits]
global_requests_per_minute = 0
per_ip_requests_per_minute = 0
health_requests_per_minute = 0
"""
    for name, url in backends.items():
        text += f"""
[[discovery.static.endpoints]]
name = "{name}"
url = "{url}"
type = "llamacpp"
"""
    return text


def free_port():
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stop(process):
    """Asks the process to end, and ends it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---- the checks: each returns a remark, or raises ----


def wait_settled(gateway):
    """Waits until the first health checks and the first discovery are through."""
    begin = time.monotonic()
    seen = "nothing answered"
    while time.monotonic() - begin < SETTLE_SECONDS_MAX:
        status = gateway.process.poll()
        expect(status is None, f"the gateway ended with status {status}")
        try:
            endpoints = get_json(gateway.url, "/internal/status/endpoints")["endpoints"]
            models = get_json(gateway.url, "/olla/openai/v1/models")["data"]
            seen = [(item["name"], item["status"], item["model_count"]) for item in endpoints]
            healthy = [status == "healthy" and count == 1 for _, status, count in seen]
            if healthy == [True, True] and MODEL_NAME in [model["id"] for model in models]:
                return f"after {time.monotonic() - begin:.2f} s"
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            seen = repr(error)
        time.sleep(0.02)
    raise Mismatch(f"not so after {SETTLE_SECONDS_MAX} s: {seen}")


def check_models(gateway):
    with gateway.client() as client:
        names = [model.id for model in client.models.list()]
    expect(names == [MODEL_NAME], f"expected one model {MODEL_NAME}, got {names}")
    return MODEL_NAME


def check_unified_models(gateway, backends):
    models = get_json(gateway.url, "/olla/models")["data"]
    expect(len(models) == 1, f"expected one entry, got {[model['id'] for model in models]}")
    names = sorted(item["endpoint"] for item in models[0]["olla"]["availability"])
    expect(names == sorted(backends), f"expected availability on both endpoints, got {names}")
    return f"{models[0]['id']} on {', '.join(names)}"


def check_chat(gateway):
    with gateway.client() as client:
        answer = chat(client, "Say hello.", 8)
    # The server is told to ignore the end of the text, so the count is exact.
    tokens = answer.usage.completion_tokens
    expect(tokens == 8, f"expected 8 tokens, got {tokens}")
    expect(answer.model == MODEL_NAME, f"answered by model {answer.model}")
    return f"{tokens} tokens"


def check_stream(gateway):
    begin = time.monotonic()
    at = []
    text = ""
    finish = None
    with gateway.client() as client:
        for event in chat(client, "Write a story.", STREAM_TOKENS, stream=True):
            at.append(time.monotonic() - begin)
            for choice in event.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason
    expect(len(at) > 3, f"expected more than 3 events, got {len(at)}")
    expect(text, "no text arrived")
    expect(finish == "length", f"expected the stream to end by length, got {finish}")
    remark = f"{len(at)} events, first after {at[0]:.2f} s, last after {at[-1]:.2f} s"
    expect(at[0] < at[-1] / 2, f"events arrived together: {remark}")
    return remark


def check_spread(gateway, backends):
    def one(number):
        with gateway.client() as client:
            raw = client.chat.completions.with_raw_response
            answer = chat_with(raw, f"Count to {number}.", 4)
            expect(answer.parse().usage.completion_tokens == 4, "expected 4 tokens")
            return answer.headers.get(ENDPOINT_HEADER)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        spread = Counter(pool.map(one, range(12)))
    remark = ", ".join(f"{name} {count}" for name, count in sorted(spread.items(), key=str))
    expect(set(spread) == set(backends), f"expected both endpoints, got {remark}")
    return remark


def check_embeddings(gateway, backends):
    return same_refusal(
        gateway, backends, lambda client: client.embeddings.create(model=MODEL_NAME, input="hi")
    )


def check_bad_chat(gateway, backends):
    return same_refusal(
        gateway,
        backends,
        lambda client: client.chat.completions.create(model=MODEL_NAME, messages="no list"),
    )


def same_refusal(gateway, backends, ask):
    """Asks a backend and the gateway for what the server refuses; both must say the same."""
    with openai_client(f"{next(iter(backends.values()))}/v1") as client:
        direct = refusal(client, ask)
    with gateway.client() as client:
        through = refusal(client, ask)
    for part in ("status_code", "text"):
        expected, got = getattr(direct.response, part), getattr(through.response, part)
        expect(got == expected, f"{part}: expected {expected}, got {got}")
    endpoint = through.response.headers.get(ENDPOINT_HEADER)
    expect(endpoint in backends, f"{ENDPOINT_HEADER} is {endpoint}")
    return f"{through.status_code} {through.body}"


def refusal(client, ask):
    """The error that the client library makes of the answer."""
    try:
        answer = ask(client)
    except openai.APIStatusError as error:
        return error
    raise Mismatch(f"expected an error, got {answer}")


def check_unknown_model(gateway):
    def ask(client):
        return client.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "hi"}]
        )

    with gateway.client() as client:
        error = refusal(client, ask)
    expect(error.status_code == 404, f"expected status 404, got {error.status_code}")
    expect(error.code == "MODEL_NOT_FOUND", f"expected MODEL_NOT_FOUND, got {error.body}")
    endpoint = error.response.headers.get(ENDPOINT_HEADER)
    expect(endpoint is None, f"no endpoint was to be asked, but {endpoint} was")
    return f"{error.status_code} {error.code}"


def check_leaves_stream(gateway, backends):
    """Closes a stream after a few events; no slot may stay busy."""
    wait_idle(backends)
    with gateway.client() as client:
        stream = chat(client, "Write a long story about the sea.", STORY_TOKENS, stream=True)
        for _ in range(5):
            next(stream)
        expect(len(busy_slots(backends)) == 1, "expected one busy slot while the stream runs")
        begin = time.monotonic()
        stream.close()
    wait_idle(backends)
    took_ms = (time.monotonic() - begin) * 1000
    expect(took_ms < ABANDONED_MS_MAX, f"the slot was busy for {took_ms:.0f} ms more")
    return f"slot idle after {took_ms:.0f} ms"


def check_leaves_answer(gateway, backends):
    """Leaves before a whole answer; the gateway must close the backend's connection.

    The slot tells nothing here: llama.cpp notices that its client has gone only when it writes,
    and a whole answer it writes at the end. What can be seen is the state of its socket.
    """
    wait_idle(backends)
    ports = {urlsplit(url).port for url in backends.values()}
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    body = chat_body("Write a story about the wind.", 4 * STREAM_TOKENS)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/olla/openai/v1/chat/completions", json.dumps(body), headers)
    wait_for(lambda: busy_slots(backends), 10, "the request did not reach a backend")
    begin = time.monotonic()
    connection.close()
    wait_for(lambda: half_closed(ports), 10, "the backend's connection was not closed")
    took_ms = (time.monotonic() - begin) * 1000
    expect(busy_slots(backends), "the generation was over before the connection closed")
    expect(took_ms < ABANDONED_MS_MAX, f"the connection was open for {took_ms:.0f} ms more")
    wait_idle(backends)
    return f"backend's connection closed after {took_ms:.0f} ms"


def check_stops(gateway):
    begin = time.monotonic()
    gateway.process.terminate()
    status = gateway.process.wait(STOP_SECONDS_MAX)
    expect(status == 0, f"expected exit status 0, got {status}")
    return f"status 0 after {time.monotonic() - begin:.2f} s"


# ---- what the checks ask ----


def openai_client(base_url):
    return openai.OpenAI(
        base_url=base_url, api_key="none", max_retries=0, timeout=REQUEST_SECONDS_MAX
    )


def chat(client, prompt, tokens, stream=False):
    return chat_with(client.chat.completions, prompt, tokens, stream=stream)


def chat_with(completions, prompt, tokens, stream=False):
    """Asks for exactly `tokens` tokens, the same ones each time."""
    body = chat_body(prompt, tokens)
    extra = {"ignore_eos": body.pop("ignore_eos")}
    return completions.create(**body, stream=stream, extra_body=extra)


def chat_body(prompt, tokens):
    return {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def get_json(url, path):
    """The JSON document at `url` + `path`; raises ValueError for any status but 200."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"GET {path}: status {answer.status}")
    return json.loads(body)


def busy_slots(backends):
    """(backend, slot) pairs that compute, asked of the backends themselves."""
    return [
        (name, slot["id"])
        for name, url in backends.items()
        for slot in get_json(url, "/slots")
        if slot["is_processing"]
    ]


def wait_idle(backends):
    wait_for(lambda: not busy_slots(backends), REQUEST_SECONDS_MAX, "a slot stays busy")


def wait_for(condition, seconds_max, message):
    """Waits until `condition()` holds; raises Mismatch with `message` after `seconds_max`."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        expect(time.monotonic() < deadline, f"{message} ({seconds_max} s)")
        # Looking without a pause would take the processor that the backend computes on.
        time.sleep(0.002)


def half_closed(ports):
    """Whether a server on one of `ports` has a connection whose client has closed (CLOSE_WAIT)."""
    close_wait = "08"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return any(int(row[1].split(":")[1], 16) in ports and row[3] == close_wait for row in rows)


if __name__ == "__main__":
    main()
