"""What limits admit, against what they allow.

Fifty clients of one name ask without a pause, first for everything that can happen to a request,
then for plain requests alone, while the gateway reads a changed configuration again and again. The
endpoints count what is in progress, reserved and used; a request is over for them when they send
its last byte, or when its client leaves.

Contract: docs/contract/access.md#7
"""

import concurrent.futures
import random
import time

from trials.access_rows import RELOADED, access_config, key_config, keyed_gateway, row
from trials.access_rows.asks import CHAT, MESSAGES, OLLAMA, RESPONSES, Act, Ask, Usage
from trials.access_rows.origin import World, crowd
from trials.process import NotReady, wait_until

CLIENTS = 50
MIXED_SECONDS, PLAIN_SECONDS = 1.8, 1.2
RELOAD_SECONDS = 0.4
REQUESTS, TOKENS, CONCURRENT = 300, 15_000, 7
LIMITS = {
    "requests_per_minute": REQUESTS,
    "tokens_per_minute": TOKENS,
    "tokens_per_day": TOKENS,
    "concurrent": CONCURRENT,
}
MEMBERS = 5


def policies():
    """A policy with each limit for a key, and one with each limit for its keys together."""
    own = {f"own-{name}": f"{name} = {value}" for name, value in LIMITS.items()}
    together = {
        f"all-{name}": f"[access.policies.all-{name}.together]\n{name} = {value}"
        for name, value in LIMITS.items()
    }
    return own | together


def keys():
    own = {f"key-{name}": f"own-{name}" for name in LIMITS}
    members = {f"m{number}-{name}": f"all-{name}" for name in LIMITS for number in range(MEMBERS)}
    return own | members


class Account:
    """What a name has had. Requests count one each where the limit is one of requests."""

    def __init__(self, limit, value):
        self.limit, self.value = limit, value
        self.rate = value / 60 if limit.endswith("_per_minute") else 0
        self.now = self.most = self.admitted = 0
        self.held = self.used = self.used_tokens = 0
        self.over = float("-inf")
        self.first_begun = self.first_ended = self.last_refused = None

    def weight(self, tokens):
        return 1 if self.limit == "requests_per_minute" else tokens

    def begin(self, ask):
        now = time.monotonic()
        self.now += 1
        self.admitted += 1
        self.most = max(self.most, self.now)
        self.held += self.weight(ask.estimate)
        allowed = self.value + self.rate * (now - self.first_begun)
        self.over = max(self.over, self.held + self.used - allowed)

    def end(self, ask):
        charge = ask.charge().tokens
        if self.first_ended is None:
            self.first_ended = time.monotonic()
        self.now -= 1
        self.held -= self.weight(ask.estimate)
        self.used += self.weight(charge)
        self.used_tokens += charge

    def refused(self, ask):
        self.last_refused = ask.begun

    def left(self):
        """What was left, at most, when a request was refused for the last time."""
        if self.last_refused is None or self.first_ended is None:
            raise NotReady(f"{self.limit}: no request was refused")
        elapsed = max(0, self.last_refused - self.first_ended)
        return self.value + self.rate * elapsed - self.used - self.held


def good(ask):
    """An act that uses exactly what is reserved."""
    return Act("stream" if ask.streamed else "whole", 3, Usage(ask.prompt, ask.output))


# All that can happen: how often, its name, fields of the request, and acts before the last one
# (none given: it is good).
KINDS = [
    (3, "plain", {}, []),
    (2, "streamed", {"streamed": True}, []),
    (1, "messages", {"path": MESSAGES, "translated": True}, []),
    (1, "ollama", {"path": OLLAMA, "translated": True}, []),
    (1, "responses", {"path": RESPONSES, "translated": True}, []),
    (1, "translated stream", {"path": MESSAGES, "translated": True, "streamed": True}, []),
    (1, "429", {}, [Act("status", status=429)]),
    (1, "503", {}, [Act("status", status=503)]),
    (1, "reset", {}, [Act("reset")]),
    (1, "unknown", {"model": "nowhere"}, []),
    (1, "left", {"streamed": True}, [Act("hold", 3), None]),
    (1, "left early", {"streamed": True}, [Act("mute"), None]),
    (1, "500", {}, [Act("status", status=500), None]),
    (1, "cut", {"streamed": True}, [Act("cut", 2), None]),
]
# Status and whether the response is whole, where it is not a whole 200.
ENDS = {"500": (500, True), "cut": (200, False), "unknown": (404, True)}


class Trial:
    """One limit on one gateway."""

    def __init__(self, world, gateway, limit, names, pause=0):
        self.world, self.gateway, self.names, self.pause = world, gateway, names, pause
        self.account = Account(limit, LIMITS[limit])
        self.unexpected = {}
        self.random = random.Random(limit)
        self.end = 0
        self.is_mixed = True

    def make(self, name):
        weights = [weight for weight, *_ in KINDS] if self.is_mixed else [1]
        _, kind, more, acts = self.random.choices(KINDS[: len(weights)], weights)[0]
        fields = {"path": CHAT, "model": "m", "key": name, "number": self.world.next_number()}
        ask = Ask(acts=[], **fields | more)
        ask.acts = [act for act in acts if act] + ([] if None in acts else [good(ask)])
        ask.pause = self.pause and self.random.uniform(0, self.pause)
        ask.kind = kind
        return ask

    async def step(self, client, number):
        if time.monotonic() >= self.end:
            return False
        if self.account.first_begun is None:
            # No bucket was less than full before.
            self.account.first_begun = time.monotonic()
        ask = self.make(self.names[number % len(self.names)])
        answer = await client.send(ask)
        self.note(ask, *answer)
        return True

    def note(self, ask, status, code, is_whole):
        if status == 429 and not ask.received:
            self.account.refused(ask)
        elif (status, is_whole) != ENDS.get(ask.kind, (200, True)):
            what = f"{ask.kind}: {status} {code}"
            self.unexpected[what] = self.unexpected.get(what, 0) + 1

    def run(self, configs):
        """Runs both parts, while the gateway reads one configuration after the other."""
        self.world.on_arrival, self.world.on_end = self.account.begin, self.account.end
        for self.is_mixed, seconds in ((True, MIXED_SECONDS), (False, PLAIN_SECONDS)):
            self.end = time.monotonic() + seconds
            work = self.world.begin(crowd(self.world, self.gateway.port, CLIENTS, self.step))
            while not work.done():
                self.gateway.reload(next(configs))
                concurrent.futures.wait([work], RELOAD_SECONDS)
            work.result()
        return self

    def settled(self, shown, where, own_name, together):
        """What `/olla/key` says when all have ended."""

        def seen():
            page = self.gateway.own(own_name)
            return page["together"]["used"] if together else page["used"]

        want = self.account.used_tokens
        try:
            wait_until(
                "not settled",
                lambda: (seen()["tokens_per_day"], seen()["concurrent"]) == (want, 0),
                2,
            )
        except NotReady:
            pass
        used = seen()
        shown.same(f"{where}: tokens of the day that /olla/key says", used["tokens_per_day"], want)
        shown.same(f"{where}: in progress afterwards", used["concurrent"], 0)
        if self.account.limit == "tokens_per_minute":
            gone = time.monotonic() - self.account.first_begun
            off = abs(used["tokens_per_minute"] - max(0, want - self.account.rate * gone))
            text = f"{where}: tokens of the minute that /olla/key says, off by"
            # What is refilled in the time that the first and the last request took.
            shown.add(text, off, 1 + self.account.rate * 0.1)


def fill(world, gateway, shown, where, names):
    """Takes all places at once: nothing has kept one."""
    arrived, release = [], []
    world.on_arrival, world.on_end = arrived.append, lambda ask: None

    async def hold(client, number):
        name = names[number % len(names)]
        fields = {"path": CHAT, "model": "m", "key": name, "number": world.next_number()}
        ask = Ask(acts=[Act("hold", 1)], streamed=True, **fields)
        ask.pause = 1.0
        status, _, _ = await client.send(ask)
        release.append(status)
        return False

    world.run(crowd(world, gateway.port, CONCURRENT + 1, hold))
    held = len(arrived)
    shown.add(f"{where}: places at once afterwards", held, CONCURRENT, least=CONCURRENT)
    wait_until("places are held", lambda: gateway.own(names[0])["used"]["concurrent"] == 0, 2)


def show_limit(world, gateway, shown, workers, limit, configs):
    for together in (False, True):
        names = [f"m{n}-{limit}" for n in range(MEMBERS)] if together else [f"key-{limit}"]
        kind = "together.concurrent" if together else "concurrent"
        name = f"together.{limit}" if together else limit
        where = f"{workers} workers, {name}"
        pause = 0.02 if limit == "concurrent" else 0
        trial = Trial(world, gateway, limit, names, pause).run(configs)
        account = trial.account
        if limit == "concurrent":
            what = f"{where}: in progress at a time, of {account.admitted} admitted"
            shown.add(what, account.most, CONCURRENT, least=CONCURRENT)
        else:
            largest = account.weight(Ask(0, names[0], "m", CHAT, []).estimate)
            what = f"{where}: above the allowed, of {account.admitted} admitted"
            shown.add(what, account.over, 0)
            shown.add(f"{where}: left when one was refused", account.left(), largest)
        trial.settled(shown, where, names[0], together)
        if limit == "concurrent":
            fill(world, gateway, shown, f"{workers} workers, {kind}", names)
        if trial.unexpected:
            shown.holds(f"{where}: no other responses", False, str(trial.unexpected))


@row(place=1, seconds_max=240)
def exactness(options, shown):
    for workers in (1, 2, 8):
        with World() as world, keyed_gateway(options) as gateway:
            hosts = [world.origin(f"e{number}", ["m"]) for number in range(3)]
            access = access_config(keys(), policies())

            def configs(gateway=gateway, hosts=hosts, access=access, workers=workers):
                number = 0
                while True:
                    number += 1
                    # Another key each time, so that all keys are built again.
                    more = access + key_config("other", more=f'note = "{number}"')
                    yield gateway.configure(hosts, more, workers)

            texts = configs()
            gateway.begin(next(texts))
            for limit in LIMITS:
                show_limit(world, gateway, shown, workers, limit, texts)
            reloads = gateway.metrics().get(RELOADED, 0)
            shown.add(f"{workers} workers: reloads meanwhile", reloads, 1000, least=8)
