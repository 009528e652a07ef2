"""The gateway in front of two real llama.cpp servers, used with the official OpenAI client.

Starts the servers (see `scripts/run llama`) and the gateway, all on loopback, and checks what a
client of the gateway sees: models, chats, streams, refusals, disconnects in mid-stream. Each check
prints one line; the last line counts them. Exit status 1 if one fails.
"""

import concurrent.futures
import http.client
import json
import time
from collections import Counter
from urllib.parse import urlsplit

from trials import llama
from trials.checks import Checks, expect, print_log, refusal
from trials.gateway import Gateway, endpoint_config, server_config
from trials.llama import MODEL_NAME
from trials.process import STOP_SECONDS_MAX, get_json, wait_until

BINARIES = ("olla",)
SETTLE_SECONDS_MAX = 30
REQUEST_SECONDS_MAX = 60
# The whole program: far above what it needs on a slow machine, so that nothing hangs forever.
TOTAL_SECONDS_MAX = 600
# From the moment a client closes its connection until no backend computes for it.
ABANDONED_MS_MAX = 300
STREAM_TOKENS = 64
# A generation that is not stopped takes many seconds for these, and a slot's context holds them.
STORY_TOKENS = 1500
ENDPOINT_HEADER = "x-olla-endpoint"
# Checks without a pause would take the processor that the backend computes on.
PAUSE = 0.002


def add_arguments(parser):
    parser.add_argument(
        "--rounds", type=int, default=10, help="how often a client disconnects in mid-stream (10)"
    )


def run(options):
    llama.set_up()
    checks = Checks()
    return checks.run_all(
        TOTAL_SECONDS_MAX, lambda processes: check_all(options, checks, processes)
    )


def check_all(options, checks, processes):
    """Starts the backends and the gateway, and runs the checks."""
    instances = llama.start_instances(processes, 2)
    backends = {name: url for name, (url, _) in instances.items()}
    gateway = Gateway(processes, options.bin)
    endpoints = [endpoint_config(name, url, "llamacpp") for name, url in backends.items()]
    gateway.start("".join([server_config(gateway.port), *endpoints]))
    checks.run("both endpoints healthy, model listed", check_settled, gateway, backends)
    checks.run("list of models", check_models, gateway)
    checks.run("unified list of models", check_unified_models, gateway, backends)
    checks.run("chat", check_chat, gateway)
    checks.run("streamed chat", check_stream, gateway)
    checks.run("many chats reach both endpoints", check_spread, gateway, backends)
    checks.run("refused embeddings pass through", check_embeddings, gateway, backends)
    checks.run("refused chat passes through", check_bad_chat, gateway, backends)
    checks.run("unknown model", check_unknown_model, gateway)
    for number in range(1, options.rounds + 1):
        name = f"client disconnects in mid-stream, {number} of {options.rounds}"
        checks.run(name, check_leaves_stream, gateway, backends)
    checks.run("client disconnects before a whole response", check_leaves_whole, gateway, backends)
    checks.run("gateway serves after that", check_chat, gateway)
    checks.run("gateway stops", check_stops, gateway)
    if checks.failed:
        print_log(gateway)


# ---- The checks: each returns a remark, or raises ----


def check_settled(gateway, backends):
    begin = time.monotonic()
    gateway.wait_settled(dict.fromkeys(backends, 1), SETTLE_SECONDS_MAX)
    return f"after {time.monotonic() - begin:.2f} s"


def check_models(gateway):
    with client_of(gateway) as client:
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
    with client_of(gateway) as client:
        response = chat(client, "Say hello.", 8)
    # The server is told to ignore the end of the text, so the count is exact.
    tokens = response.usage.completion_tokens
    expect(tokens == 8, f"expected 8 tokens, got {tokens}")
    expect(response.model == MODEL_NAME, f"response by model {response.model}")
    return f"{tokens} tokens"


def check_stream(gateway):
    begin = time.monotonic()
    at = []
    text = ""
    finish = None
    with client_of(gateway) as client:
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
        with client_of(gateway) as client:
            raw = client.chat.completions.with_raw_response
            response = chat_with(raw, f"Count to {number}.", 4)
            expect(response.parse().usage.completion_tokens == 4, "expected 4 tokens")
            return response.headers.get(ENDPOINT_HEADER)

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
    """Requests from a backend and the gateway what the server refuses; both must respond alike."""
    with openai_client(f"{next(iter(backends.values()))}/v1") as client:
        direct = api_error(client, ask)
    with client_of(gateway) as client:
        through = api_error(client, ask)
    for part in ("status_code", "text"):
        expected, got = getattr(direct.response, part), getattr(through.response, part)
        expect(got == expected, f"{part}: expected {expected}, got {got}")
    endpoint = through.response.headers.get(ENDPOINT_HEADER)
    expect(endpoint in backends, f"{ENDPOINT_HEADER} is {endpoint}")
    return f"{through.status_code} {through.body}"


def api_error(client, ask):
    """The error that the client library makes of the response."""
    import openai

    return refusal(openai.APIStatusError, lambda: ask(client))


def check_unknown_model(gateway):
    def ask(client):
        return client.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "hi"}]
        )

    with client_of(gateway) as client:
        error = api_error(client, ask)
    expect(error.status_code == 404, f"expected status 404, got {error.status_code}")
    expect(error.code == "MODEL_NOT_FOUND", f"expected MODEL_NOT_FOUND, got {error.body}")
    endpoint = error.response.headers.get(ENDPOINT_HEADER)
    expect(endpoint is None, f"expected no endpoint, got {endpoint}")
    return f"{error.status_code} {error.code}"


def check_leaves_stream(gateway, backends):
    """Closes a stream after a few events; no slot may stay busy."""
    wait_idle(backends)
    with client_of(gateway) as client:
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


def check_leaves_whole(gateway, backends):
    """Disconnects before a whole response; the gateway must close the backend's connection.

    The slot shows nothing here: llama.cpp notices that its client has disconnected only when it
    writes, which for a whole response is at the end. The state of its socket shows it.
    """
    wait_idle(backends)
    ports = {urlsplit(url).port for url in backends.values()}
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    body = chat_body("Write a story about the wind.", 4 * STREAM_TOKENS)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/olla/openai/v1/chat/completions", json.dumps(body), headers)
    missing = "the request did not reach a backend"
    wait_until(missing, lambda: busy_slots(backends), 10, PAUSE)
    begin = time.monotonic()
    connection.close()
    wait_until("the backend's connection is open", lambda: half_closed(ports), 10, PAUSE)
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


# ---- What the checks use ----


def client_of(gateway):
    """A client with connections of its own, which never repeats a request."""
    return openai_client(f"{gateway.url}/olla/openai/v1")


def openai_client(base_url):
    import openai

    return openai.OpenAI(
        base_url=base_url, api_key="none", max_retries=0, timeout=REQUEST_SECONDS_MAX
    )


def chat(client, prompt, tokens, stream=False):
    return chat_with(client.chat.completions, prompt, tokens, stream=stream)


def chat_with(completions, prompt, tokens, stream=False):
    """Requests exactly `tokens` tokens, the same ones each time."""
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


def busy_slots(backends):
    """(backend, slot) pairs that compute, by what the backends themselves report."""
    return [
        (name, slot["id"])
        for name, url in backends.items()
        for slot in get_json(url, "/slots")
        if slot["is_processing"]
    ]


def wait_idle(backends):
    wait_until("a slot stays busy", lambda: not busy_slots(backends), REQUEST_SECONDS_MAX, PAUSE)


def half_closed(ports):
    """Whether a server on one of `ports` has a connection whose client has closed (CLOSE_WAIT)."""
    close_wait = "08"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return any(int(row[1].split(":")[1], 16) in ports and row[3] == close_wait for row in rows)
