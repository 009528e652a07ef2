"""Translated requests: those that take long, streams that break, turns to continue."""

import http.client
import json

from trials.process import request, wait_until
from trials.trust_rows import (
    MESSAGES,
    Backend,
    chat_with,
    crowd,
    gateway_over,
    named,
    need,
    row,
    slowest_chat,
)

SECONDS = 8
# A little less than the limit that messages had before.
BYTES = 10_400_000


@row(
    10,
    "10 MB of small blocks to translate, again and again: the slowest chat on the same core takes",
    before="360 ms",
    bound=100,
    unit="ms",
)
def chats_beside_translations(options):
    block = '{"type":"text","text":"x"}'
    blocks = ",".join([block] * (BYTES // (len(block) + 1)))
    message = f'{{"role":"user","content":[{blocks}]}}'
    large = f'{{"model":"m","max_tokens":9,"messages":[{message}]}}'
    chat = '{"model":"m","messages":[]}'
    with gateway_over(options, Backend(named(["m"]), kind="sglang"), workers=1) as gateway:

        def translate(_):
            request(gateway.port, "POST", MESSAGES, large, timeout=30)

        with crowd(1, translate):
            return slowest_chat(gateway, chat, SECONDS, pause=0.01)


# How streams break after their first event.
BROKEN = {
    "cut off": b"",
    "error": b'data: {"error":{"message":"out of memory"}}\n\n',
    "error event": b'event: error\ndata: {"detail":"out of memory"}\n\n',
}
REPEATED = 5
SUCCESS_RATE = 'olla_endpoint_success_rate_percent{endpoint="b0"}'
SUCCESSES = 'olla_model_successful_requests_total{model="m"}'


def after_broken_streams(options, sample):
    """A sample of the metrics after 15 translated streams that broke."""

    def respond(handler, body):
        how = json.loads(body)["messages"][0]["content"]
        text = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' + BROKEN[how]
        handler.begin("text/event-stream", "Transfer-Encoding: chunked")
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        handler.close_connection = True

    with gateway_over(options, Backend(named(["m"]), "sglang", respond)) as gateway:
        for how in [*BROKEN] * REPEATED:
            messages = [{"role": "user", "content": how}]
            body = chat_with("m", messages=messages, stream=True)
            try:
                request(gateway.port, "POST", MESSAGES, body)
            except (http.client.HTTPException, ConnectionError):
                # The client must see that the stream broke; how is not the subject here.
                pass
        attempts = 'olla_model_requests_total{model="m"}'
        count = REPEATED * len(BROKEN)
        wait_until("not all are counted", lambda: gateway.metrics().get(attempts) == count, 5)
        return gateway.metrics()[sample]


@row(
    13,
    "15 translated streams break: success rate of their endpoint",
    before="100 %",
    bound=0,
    unit="%",
)
def broken_streams_of_endpoint(options):
    return after_broken_streams(options, SUCCESS_RATE)


@row(
    13,
    "15 translated streams break: requests that count as successes of the model",
    before="5 of 15",
    bound=0,
    unit="of 15",
)
def broken_streams_of_model(options):
    return after_broken_streams(options, SUCCESSES)


# Translated to Chat Completions: the two that continue by themselves, the two that do when told,
# and others.
CONTINUE = ["llamacpp", "ollama"]
TOLD = ["vllm", "sglang"]
OTHERS = ["openai-compatible", "lm-studio", "litellm", "lmdeploy", "omlx", "vllm-mlx"]


@row(
    17,
    "turns of the assistant to continue, for 10 kinds of backend: arrive as finished turns",
    before="8 of 8",
    bound=0,
    unit="of 8",
)
def prefill_finished(options):
    arrived, finished = [], []

    def backend(kind):
        def respond(handler, body):
            sent = json.loads(body)
            arrived.append(kind)
            is_continued = sent.get("continue_final_message") and not sent["add_generation_prompt"]
            if kind not in CONTINUE and not is_continued:
                finished.append(kind)
            handler.reply(b'{"choices":[{"index":0,"message":{"content":"x"}}]}')

        names = [f"of-{kind}"]
        models = [{"name": name} for name in names] if kind == "ollama" else named(names)
        return Backend(models, kind, respond)

    kinds = CONTINUE + TOLD + OTHERS
    translated = "[translators.anthropic]\npassthrough_enabled = false\n"
    with gateway_over(options, *map(backend, kinds), more=translated) as gateway:
        for kind in kinds:
            turns = [("user", "Name a colour."), ("assistant", "The colour is")]
            messages = [{"role": role, "content": text} for role, text in turns]
            request(gateway.port, "POST", MESSAGES, chat_with(f"of-{kind}", messages=messages))
    need(len(arrived) > len(finished), "no turn to continue reached a backend")
    return len(finished)
