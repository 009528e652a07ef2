"""Whether real llama.cpp servers find prompts in their caches, by balancer of the gateway.

Three servers (see `scripts/run llama`) keep the prompts of their slots. Conversations that grow,
and others that share one long system prompt, go through each column with fresh servers. The table
has, for the second and later turns of a conversation: the share of prompt tokens that a server had
in its cache, as it reports them, and the time to the first token. The servers and the gateway
share all processors, so compare columns and not times.

Checks: every response is whole, and least-time finds no smaller share of prompts in caches than
the other columns do, less 5 per cent of all tokens. Exit status 1 when one fails.
"""

import http.client
import json
import random
import statistics
import threading
import time

from trials import llama
from trials.cli import add_names
from trials.gateway import NO_LIMITS, Gateway, endpoint_config, server_config
from trials.host import note
from trials.llama import MODEL_NAME
from trials.process import Processes
from trials.report import finish, percentile, table
from trials.schedule_columns import BALANCERS, OLLA_PATH, missing

BINARIES = ("olla",)
SERVERS, SLOTS = 3, 4
# Conversations of each kind: how many, turns, words of the system prompt, words a turn.
KINDS = {"growing": (6, 6, 120, 60), "shared": (5, 4, 700, 25)}
OUTPUT_TOKENS = 16
PAUSE_SECONDS = 0.3
SETTLE_SECONDS_MAX = 30
REQUEST_SECONDS_MAX = 60
# No turn begins later.
COLUMN_SECONDS_MAX = 120
JUDGED, SLACK = "least-time", 0.05
WORDS = (
    "river stone paper window garden silver morning letter quiet market bridge forest captain "
    "yellow engine winter harbour music station orange mountain clock candle village"
)


def add_arguments(parser):
    add_names(parser, "--columns", BALANCERS)


def run(options):
    llama.set_up()
    rows, failures, shares = [], [], {}
    for column in options.columns:
        with Processes() as processes:
            reason = missing(column, options, processes.directory)
            if reason:
                note(f"without {column}: {reason}")
                continue
            turns = measure(column, options, processes)
        for kind in KINDS:
            of_kind = [turn for turn in turns if turn["kind"] == kind]
            later = [turn for turn in of_kind if turn["number"] > 0 and not turn["problem"]]
            problems = [turn["problem"] for turn in of_kind if turn["problem"]]
            failures += [f"{column}, {kind}: {problem}" for problem in problems]
            shares[column, kind] = share(later)
            rows.append(row(column, kind, of_kind, later, len(problems)))
    if rows:
        print(table(rows))
    for kind in KINDS:
        failures += worse(kind, shares)
    return finish(failures)


def worse(kind, shares):
    """Columns that find more in caches than the judged one does."""
    own = shares.get((JUDGED, kind))
    if own is None:
        return []
    others = {column: value for (column, of), value in shares.items() if of == kind}
    return [
        f"{kind}: {JUDGED} found {own:.2f} of prompts in caches, {column} {value:.2f}"
        for column, value in others.items()
        if value > own + SLACK
    ]


def share(turns):
    prompt = sum(turn["prompt"] for turn in turns)
    return sum(turn["cached"] for turn in turns) / max(prompt, 1)


def row(column, kind, turns, later, failed):
    first = [turn["first_ms"] for turn in turns if turn["number"] == 0 and not turn["problem"]]
    times = [turn["first_ms"] for turn in later]
    return {
        "column": column,
        "conversations": kind,
        "turns": len(turns),
        "failed": failed,
        "cached later": f"{share(later):.3f}",
        "prompt tokens": f"{statistics.mean([turn['prompt'] for turn in later] or [0]):.0f}",
        "first turn p50 ms": f"{statistics.median(first or [0]):.0f}",
        "later p50 ms": f"{statistics.median(times or [0]):.0f}",
        "later p90 ms": f"{percentile(times, 90):.0f}",
        "endpoints": len({turn["endpoint"] for turn in turns if not turn["problem"]}),
    }


def measure(column, options, processes):
    """All conversations through one column; returns their turns."""
    more = ["--slots", SLOTS, "--keep-prompts"]
    instances = llama.start_instances(processes, SERVERS, more=more)
    gateway = Gateway(processes, options.bin)
    balancer, sections = BALANCERS[column]
    config = [
        server_config(gateway.port, "workers = 1\npin_workers = false\n", NO_LIMITS),
        f'[proxy]\nload_balancer = "{balancer}"\n{sections}',
        '[logging]\nlevel = "warn"\n',
    ]
    config += [endpoint_config(name, url, "llamacpp") for name, (url, _) in instances.items()]
    gateway.start("\n".join(config))
    gateway.wait_settled(dict.fromkeys(instances, 1), SETTLE_SECONDS_MAX)
    until = time.monotonic() + COLUMN_SECONDS_MAX
    turns = []
    threads = [
        threading.Thread(target=converse, args=(gateway.port, kind, number, until, turns))
        for kind, (count, *_) in KINDS.items()
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return turns


def converse(port, kind, number, until, turns):
    """One conversation; appends what became of each turn."""
    _, count, system_words, user_words = KINDS[kind]
    chance = random.Random(f"{kind} {number}")
    # The same for all that share a prompt, and different for each that does not.
    prompt_of = random.Random(kind if kind == "shared" else f"{kind} {number}")
    messages = [{"role": "system", "content": words(prompt_of, system_words)}]
    for turn in range(count):
        time.sleep(chance.expovariate(1 / PAUSE_SECONDS))
        if time.monotonic() > until:
            return
        messages.append({"role": "user", "content": words(chance, user_words)})
        result = {"kind": kind, "number": turn, "problem": ""}
        try:
            result |= ask(port, messages)
        except (OSError, ValueError, KeyError, http.client.HTTPException) as problem:
            result["problem"] = f"turn {turn}: {type(problem).__name__}: {problem}"
        turns.append(result)
        if result["problem"]:
            return
        messages.append({"role": "assistant", "content": result["text"]})


def words(chance, count):
    return " ".join(chance.choices(WORDS.split(), k=count))


def ask(port, messages):
    """Sends one turn; ValueError unless a whole response comes."""
    body = {
        "model": MODEL_NAME,
        "messages": messages,
        "max_tokens": OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS_MAX)
    try:
        begun = time.monotonic()
        fields = {"Content-Type": "application/json"}
        connection.request("POST", OLLA_PATH, json.dumps(body), fields)
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"status {response.status}: {response.read(300)}")
        result = {"text": "", "endpoint": response.getheader("X-Olla-Endpoint")}
        for line in response:
            if line.startswith(b"data: {"):
                take(json.loads(line[6:]), result, begun)
    finally:
        connection.close()
    if "prompt" not in result or "first_ms" not in result:
        raise ValueError("a stream without text or usage")
    return result


def take(event, result, begun):
    for choice in event["choices"]:
        text = choice["delta"].get("content")
        if text:
            result.setdefault("first_ms", (time.monotonic() - begun) * 1000)
            result["text"] += text
    if event.get("usage"):
        usage = event["usage"]
        details = usage.get("prompt_tokens_details") or {}
        cached = event.get("timings", {}).get("cache_n", details.get("cached_tokens", 0))
        result |= {"prompt": usage["prompt_tokens"], "cached": cached}
