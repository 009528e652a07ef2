"""Requests that take long to translate."""

import time

from trials.process import request
from trials.trust_rows import Backend, crowd, gateway_over, named, row

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
            request(gateway.port, "POST", "/olla/anthropic/v1/messages", large, timeout=30)

        slowest = 0
        with crowd(1, translate):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                begun = time.monotonic()
                request(gateway.port, "POST", "/olla/proxy/v1/chat/completions", chat, timeout=30)
                slowest = max(slowest, time.monotonic() - begun)
                time.sleep(0.01)
        return slowest * 1000
