"""The ledger over many requests of every kind, against what the endpoints sent.

Each request has a charge by the table of the contract, from what its last endpoint did and how many
events passed. The sums by key, model and endpoint must be those of `/internal/usage`, of the store
file and, by key, of the metrics.

Contract: docs/contract/access.md#7.2, docs/contract/access.md#13
"""

import collections
import random

from trials.access_rows import access_config, keyed_gateway, row, stored_usage
from trials.access_rows.asks import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    OLLAMA,
    RESPONSES,
    Act,
    Ask,
    Charge,
    Usage,
)
from trials.access_rows.origin import World, crowd
from trials.process import NotReady, wait_until

CLIENTS = 32
KEYS = [f"key{number}" for number in range(6)]
SHARED = ["m0", "m1", "m2"]
FIGURES = ("requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens")
CAME_WHOLE = (200, True)


def usage(chance):
    prompt = chance.randrange(1, 900)
    return Usage(prompt, chance.randrange(1, 400), chance.randrange(prompt))


def bare(chance):
    """Without cached tokens, which Ollama does not report."""
    return Usage(chance.randrange(1, 900), chance.randrange(1, 400))


def whole(chance):
    return [Act("whole", usage=usage(chance))]


def wrong(chance):
    return [Act("whole", usage=Usage(-chance.randrange(1, 9), 2_000_000_000))]


def wrong_stream(chance):
    return [Act("stream", chance.randrange(1, 9), wrong(chance)[0].usage)]


def early_stream(chance):
    return [Act("stream", 5, Usage(chance.randrange(1, 900), 77, is_early=True))]


def silent(_):
    return [Act("whole")]


def stream(chance):
    return [Act("stream", chance.randrange(1, 9), usage(chance))]


def silent_stream(chance):
    return [Act("stream", chance.randrange(1, 9))]


def cut(chance):
    return [Act("cut", chance.randrange(1, 9))]


def left(chance):
    return [Act("hold", chance.randrange(1, 9))]


def short(_):
    return [Act("short")]


def reported(kind):
    return lambda chance: [Act(kind, chance.randrange(1, 9), usage(chance))]


def left_early(_):
    return [Act("mute")]


def status(*codes):
    return lambda chance: [Act("status", status=chance.choice(codes))]


def after(act):
    return lambda chance: [act, Act("whole", usage=usage(chance))]


def both(first, second):
    return lambda chance: [*first(chance), *second(chance)]


PLAIN, STREAMED = {"path": CHAT}, {"path": CHAT, "streamed": True}
ANTHROPIC = {"path": MESSAGES, "model": "native"}
LOCAL = {"path": OLLAMA, "model": "local"}


def turned(path, streamed=False):
    """A request that is translated."""
    return {"path": path, "translated": True, "streamed": streamed}


# Name, how often, fields of the request, acts, and the end that the client sees.
KINDS = [
    ("whole, usage", 10, PLAIN, whole, CAME_WHOLE),
    ("whole, none", 6, PLAIN, silent, CAME_WHOLE),
    ("stream, usage", 10, STREAMED, stream, CAME_WHOLE),
    ("stream, none", 6, STREAMED, silent_stream, CAME_WHOLE),
    ("stream, usage in each", 2, STREAMED, early_stream, CAME_WHOLE),
    ("whole, wrong usage", 1, PLAIN, wrong, CAME_WHOLE),
    ("stream, wrong usage", 1, STREAMED, wrong_stream, CAME_WHOLE),
    ("completions", 3, {"path": COMPLETIONS}, whole, CAME_WHOLE),
    ("completions, none", 2, {"path": COMPLETIONS}, silent, CAME_WHOLE),
    ("embeddings", 3, {"path": EMBEDDINGS}, whole, CAME_WHOLE),
    ("embeddings, none", 2, {"path": EMBEDDINGS}, silent, CAME_WHOLE),
    ("cut", 3, STREAMED, cut, (200, False)),
    ("left", 3, STREAMED, left, CAME_WHOLE),
    ("left early", 2, STREAMED, left_early, CAME_WHOLE),
    ("cut, whole", 2, PLAIN, short, (200, False)),
    ("400", 1, PLAIN, status(400), (400, True)),
    ("404", 1, PLAIN, status(404), (404, True)),
    ("422", 1, PLAIN, status(422), (422, True)),
    ("500", 1, PLAIN, status(500), (500, True)),
    ("429, then good", 2, PLAIN, after(Act("status", status=429)), CAME_WHOLE),
    ("503, then good", 2, PLAIN, after(Act("status", status=503)), CAME_WHOLE),
    ("reset, then good", 2, PLAIN, after(Act("reset")), CAME_WHOLE),
    ("529, then 500", 1, PLAIN, both(status(529), status(500)), (500, True)),
    ("503, then a stream", 1, STREAMED, both(status(503), silent_stream), CAME_WHOLE),
    ("messages to chat", 3, turned(MESSAGES), whole, CAME_WHOLE),
    ("messages to chat, none", 2, turned(MESSAGES), silent, CAME_WHOLE),
    ("messages to chat, stream", 3, turned(MESSAGES, True), stream, CAME_WHOLE),
    ("messages to chat, stream, none", 2, turned(MESSAGES, True), silent_stream, CAME_WHOLE),
    ("messages to chat, left early", 1, turned(MESSAGES, True), left_early, CAME_WHOLE),
    ("messages to chat, 422", 1, turned(MESSAGES), status(422), (422, True)),
    ("ollama to chat", 3, turned(OLLAMA), whole, CAME_WHOLE),
    ("ollama to chat, none", 1, turned(OLLAMA), silent, CAME_WHOLE),
    ("ollama to chat, stream", 3, turned(OLLAMA, True), stream, CAME_WHOLE),
    ("responses to chat", 3, turned(RESPONSES), whole, CAME_WHOLE),
    ("responses to chat, none", 1, turned(RESPONSES), silent, CAME_WHOLE),
    ("responses to chat, stream", 3, turned(RESPONSES, True), stream, CAME_WHOLE),
    ("messages", 3, ANTHROPIC, whole, CAME_WHOLE),
    ("messages, stream", 3, ANTHROPIC | {"streamed": True}, stream, CAME_WHOLE),
    ("messages, none", 1, ANTHROPIC, silent, CAME_WHOLE),
    ("messages, cut", 1, ANTHROPIC | {"streamed": True}, reported("cut"), CAME_WHOLE),
    ("messages, left", 1, ANTHROPIC | {"streamed": True}, reported("hold"), CAME_WHOLE),
    ("messages, 500", 1, ANTHROPIC, status(500), (500, True)),
    ("responses", 2, {"path": RESPONSES, "model": "native"}, whole, CAME_WHOLE),
    (
        "responses, stream",
        2,
        {"path": RESPONSES, "model": "native", "streamed": True},
        stream,
        CAME_WHOLE,
    ),
    ("ollama", 2, LOCAL, lambda chance: [Act("whole", usage=bare(chance))], CAME_WHOLE),
    (
        "ollama, stream",
        2,
        LOCAL | {"streamed": True},
        lambda chance: [Act("stream", 4, bare(chance))],
        CAME_WHOLE,
    ),
    ("ollama, stream, none", 1, LOCAL | {"streamed": True}, silent_stream, CAME_WHOLE),
    ("ollama, left", 1, LOCAL | {"streamed": True}, left, CAME_WHOLE),
]
WEIGHTS = [weight for _, weight, *_ in KINDS]


class Sums:
    """What was sent, and what it is charged with."""

    def __init__(self, world, requests):
        self.world, self.left = world, requests
        self.chance = random.Random(15)
        self.rows = collections.defaultdict(Charge)
        self.unexpected = collections.Counter()

    def make(self):
        name, _, more, acts, end = self.chance.choices(KINDS, WEIGHTS)[0]
        fields = {"model": self.chance.choice(SHARED), "key": self.chance.choice(KEYS)} | more
        ask = Ask(self.world.next_number(), acts=acts(self.chance), kind=name, **fields)
        return ask, end

    async def step(self, client, _):
        if self.left <= 0:
            return False
        self.left -= 1
        ask, end = self.make()
        status, code, is_whole = await client.send(ask)
        self.count(ask)
        if (status, is_whole) != end:
            self.unexpected[f"{ask.kind}: {status} {code}"] += 1
        return True

    def count(self, ask):
        if ask.received:
            self.rows[ask.key, ask.model, ask.endpoint].add(ask.charge())

    @property
    def total(self):
        total = Charge()
        for charge in self.rows.values():
            total.add(charge)
        return total


def figures(charge):
    return (charge.requests, charge.errors, charge.prompt, charge.cached, charge.completion)


def by_name(rows):
    return {
        (one["key"], one["model"], one["endpoint"]): tuple(one[name] for name in FIGURES)
        for one in rows
    }


def compare(shown, what, seen, want):
    """Adds a line: how many rows differ; and one for each figure whose sum does."""
    names = seen.keys() | want.keys()
    none = (0,) * len(FIGURES)
    wrong = [name for name in sorted(names) if seen.get(name, none) != want.get(name, none)]
    shown.add(f"{what}: rows of {len(want)} that differ", len(wrong), 0)
    for place, figure in enumerate(FIGURES):
        sums = [sum(row[place] for row in rows.values()) for rows in (seen, want)]
        shown.same(f"{what}: {figure.replace('_', ' ')}", *sums)


def each_kind(world, gateway, shown):
    """Sends some requests of one kind after the other, so that a wrong charge has a name."""
    charged_wrongly = []
    for place, (name, _, more, acts, end) in enumerate(KINDS):
        key = f"kind{place}"
        chance, total, ends = random.Random(place), Charge(), []

        async def step(client, _, kind=(more, acts, key, chance, total, ends)):
            more, acts, key, chance, total, ends = kind
            for _ in range(3):
                fields = {"model": "m0", "key": key} | more
                ask = Ask(world.next_number(), acts=acts(chance), **fields)
                status, _, is_whole = await client.send(ask)
                ends.append((status, is_whole))
                total.add(ask.charge())
            return False

        world.run(crowd(world, gateway.port, 1, step))
        want, seen = figures(total), None

        def settled(key=key, want=want):
            rows, _ = gateway.usage(f"&key={key}")
            return sum(by_name(rows).get(name, (0,))[0] for name in by_name(rows)) == want[0]

        try:
            wait_until("not in the ledger", settled, 2)
        except NotReady:
            pass
        rows = by_name(gateway.usage(f"&key={key}")[0]).values()
        seen = tuple(sum(row[at] for row in rows) for at in range(len(FIGURES)))
        if seen != want or set(ends) != {end}:
            what = f"{name} ({', '.join(FIGURES)}): {seen}, expected {want}; {ends[0]}"
            charged_wrongly.append(what)
    what = f"kinds of requests, of {len(KINDS)}, that are charged wrongly"
    shown.add(what, len(charged_wrongly), 0)
    shown.failures += [f"sums: {what}" for what in charged_wrongly]


@row(place=4, seconds_max=420)
def sums(options, shown):
    with World() as world, keyed_gateway(options) as gateway:
        hosts = [world.origin(f"e{number}", SHARED) for number in range(3)]
        hosts.append(world.origin("native", ["native"], "vllm", ""))
        hosts.append(world.origin("ollama", ["local"], "ollama", ""))
        store = gateway.processes.directory / "state.db"
        names = KEYS + [f"kind{place}" for place in range(len(KINDS))]
        access = access_config(dict.fromkeys(names, "default"), {})
        gateway.begin(gateway.configure(hosts, f'{access}[state]\npath = "{store}"\n'))
        each_kind(world, gateway, shown)
        begun = Sums(world, options.requests)
        world.run(crowd(world, gateway.port, CLIENTS, begun.step), 400)
        shown.add("responses that were not as the endpoint sent them", begun.unexpected.total(), 0)
        shown.failures += [f"sums: {what}: {n}" for what, n in begun.unexpected.items()]
        mine = {name: charge for name, charge in begun.rows.items() if name[0] in KEYS}
        want = {name: figures(charge) for name, charge in mine.items()}
        requests = begun.total.requests

        def seen():
            return {k: v for k, v in by_name(gateway.usage()[0]).items() if k[0] in KEYS}

        def is_whole():
            return sum(row[0] for row in seen().values()) >= requests

        try:
            wait_until("not all in the ledger", is_whole, 5, 0.1)
        except NotReady as error:
            shown.failures.append(f"sums: {error}")
        compare(shown, "/internal/usage", seen(), want)
        samples = gateway.metrics()
        compare_metrics(shown, samples, begun)
        rejected = samples.get("olla_usage_rejected_total", 0)
        shown.holds("olla_usage_rejected_total counts wrong usage", rejected > 0)

        def stored():
            rows = by_name(stored_usage(options, store)[0])
            return {name: row for name, row in rows.items() if name[0] in KEYS}

        wait_until("not in the store", lambda: sum(r[0] for r in stored().values()) >= requests, 5)
        compare(shown, "olla usage --store", stored(), want)


def compare_metrics(shown, samples, begun):
    wrong = []
    for key in KEYS:
        total = Charge()
        for name, charge in begun.rows.items():
            if name[0] == key:
                total.add(charge)
        for name, want in (
            ("requests", total.requests),
            ("errors", total.errors),
            ("prompt_tokens", total.prompt),
            ("completion_tokens", total.completion),
        ):
            seen = samples.get(f'olla_key_{name}_total{{key="{key}"}}')
            if seen != want:
                wrong.append(f"olla_key_{name}_total of {key}: {seen}, expected {want}")
    shown.add(f"metrics: series of {4 * len(KEYS)} that differ", len(wrong), 0)
    shown.failures += [f"sums: {what}" for what in wrong]
