"""Measures the gateway beside nginx, HAProxy and a bare byte relay, in one run on one machine.

What runs
  The stub LLM server and the load client (both `olla-loadtest`) are pinned to one processor, the
  targets, each with one worker, to another. All targets are up at the same time and take turns
  within each round, each round beginning with another one, so that a machine that slows down does
  so for all; each round starts everything anew. Every number has its spread over the rounds.

Targets
  direct       no proxy: the stub itself, the reference for latency
  relay        a byte relay on io_uring that knows no HTTP: the lower bound (relay-epoll: on
               epoll)
  nginx        kept-alive upstream connections, no response buffering, bodies in memory, no log
  haproxy      one thread, http-reuse always, http-no-delay, no log
  olla         the gateway with its defaults, rate limits out of reach but on (olla-quiet: without
               request_logging; olla-epoll: on epoll; olla-before: the program of --before, to
               measure a change; olla-key, olla-keys: with access on, one key and 100,000 of them,
               with every limit that a policy can set, out of reach; olla-least-connections:
               without predictions)

Scenarios about memory (each in new processes; without direct and relay)
  idle         keep-alive connections after one request each: 10,000, or as many as the limit of
               open files allows
  streams      event streams open at once, an event a second in each: 5,000, or as many as fit
  tls-idle     idle with TLS: 3,000
  tls-streams  streams with TLS: 1,500

Scenarios about processor time and latency
  sse          500 event streams, an event every 50 ms in each
  chat-1       one kept-alive connection, 0.3 KB each way
  chat-64      64 connections
  chat-64-steady  the same at a steady rate, open loop: latency counts from the moment a request
               was due. The rate is the same for all targets of a round, 70 % of the least of the
               proxies' rates in chat-64 of that round: all have the same work to do, and none more
               than it can. At rates of their own, faster targets would have more to do
  sse-100k     10 event streams, an event of 100 KB every 20 ms in each; 10 s, whatever --seconds is
  prompt-100k  16 connections, 100 KB prompts
  prompt-1m    8 connections, 1 MB prompts
  tls-chat-64  chat-64 with TLS between client and target (from here on without direct and relay)
  tls-handshake  16 clients, each request on a connection of its own, with TLS
  two-workers  chat-64 with two workers, on all processors: the load shares one of them

  Some targets take part in some scenarios only when --targets names them, to save time: olla-quiet
  and olla-epoll in sse-100k and in those about memory, direct and relay in sse-100k and in
  chat-64-steady.

TLS
  Version 1.3, TLS_AES_128_GCM_SHA256, X25519, one certificate with a P-256 key. The client resumes
  no session, so every handshake is a whole one; every target issues tickets as it does by default.

Columns: the median of the rounds, and in brackets the least and the greatest
  CPU          processor time of the target for each request or event: utime + stime of all its
               threads and child processes (/proc/PID/stat), in microseconds; an event's has its
               share of the stream's request
  x nginx      the median of the ratios to nginx within each round
  added p50    median latency less that of `direct` in the same round
  RSS          VmRSS of the target's largest process: before the scenario, and the peak within it
  For streams p50 and p99 are those of an event's delay, from the stub's sending to the client's
  receiving; `first` is from the moment the stream was due to its first event.
  each         growth of memory divided by the number of connections or streams. Memory is Pss of
               all processes of the target (/proc/PID/smaps_rollup); kernel memory is not in it. The
               process has served 5,000 requests and 64 streams before, and has never had so many
               connections: first growth, not reuse. What a target allocates for all possible
               connections when it starts, as nginx does, is in `before`
  after        memory two seconds after the last stream has ended; `after/before` divides it by
               the memory before the first one

The load client is the crate's own: it takes no more processor time than wrk does, and it checks
every response. Compare columns of one run, not runs of different days. A target is marked if
any of its responses was wrong; its numbers mean little.

Writes raw.json, table.md and chart.svg into the output directory.
"""

import json
import os
import platform
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path

from trials import compare_report, compare_rows, compare_stats
from trials.cli import add_names, positive
from trials.compare_rows import PEAK, SCENARIOS, STEADY, Round, measure
from trials.host import ROOT, Failed, WrongUsage, executable, need, note
from trials.process import choose_cpus
from trials.proxies import DEFAULT_NAMES, NAMES, Fleet, check_available

BINARIES = ("olla", "olla-loadtest")


def add_arguments(parser):
    out = ROOT / "loadtest" / "runs" / f"{time.strftime('%Y-%m-%d')}-{platform.node()}"
    text = f"default: {','.join(DEFAULT_NAMES)}; all: "
    add_names(parser, "--targets", NAMES, default=(), text=text)
    add_names(parser, "--scenarios", SCENARIOS)
    add = parser.add_argument
    add("--rounds", type=positive(int), default=3, help="default: 3")
    add("--seconds", type=positive(float), default=2, help="length of each measurement (2)")
    text = "idle connections to hold, with and without TLS"
    add("--idle", type=positive(int), metavar="N", help=text)
    text = "streams to hold open, with and without TLS"
    add("--open-streams", type=positive(int), metavar="N", help=text)
    add("--out", type=Path, metavar="DIR", default=out, help="default: loadtest/runs/<date>-<host>")
    add("--before", type=Path, metavar="BIN", help="an earlier build, as the target olla-before")
    add("--target-cpu", type=int, help="processor of the targets (default: the first allowed)")
    add("--load-cpu", type=int, help="processor of stub and client (default: the second allowed)")
    drivers = ["auto", "io_uring", "epoll"]
    text = "server.io_driver of all targets olla but olla-epoll (default: auto)"
    add("--gateway-driver", choices=drivers, default="auto", help=text)


def run(settings):
    for name in ("nginx", "haproxy"):
        try:
            need(name, name)
        except Failed as reason:
            note(reason)
    settings.asked_for = frozenset(settings.targets)
    if settings.before:
        settings.before = settings.before.resolve()
        settings.targets = settings.targets or [*DEFAULT_NAMES, "olla-before"]
    elif "olla-before" in settings.targets:
        raise WrongUsage("the target olla-before needs --before BIN")
    settings.scenarios = [name for name in SCENARIOS if name in settings.scenarios]
    settings.target_cpu, settings.load_cpu = choose_cpus(settings.target_cpu, settings.load_cpu)
    settings.counts = compare_rows.counts(settings)
    small = compare_rows.fewer_than_wanted(settings.counts)
    if small:
        note(f"fewer connections than the goals are about: {', '.join(small)}")
    for name in settings.scenarios:
        if name in settings.counts:
            note(f"{name}: {settings.counts[name]:,} {SCENARIOS[name].counted}s")
    names = available(settings)
    samples, drivers = [], {}
    started = time.monotonic()
    for number in range(1, settings.rounds + 1):
        samples += one_round(number, names, settings, drivers)
    document = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine(settings),
        "options": {
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "gateway_driver": settings.gateway_driver,
        },
        "duration_s": round(time.monotonic() - started),
        "targets": names,
        "drivers": drivers,
        "scenarios": settings.scenarios,
        "counts": settings.counts,
        "results": compare_stats.results(samples),
        "goals": compare_stats.goals(samples, names),
        "epoll_to_io_uring": compare_stats.drivers(samples, drivers),
        "samples": samples,
    }
    write(document, settings.out)
    return 0


def available(settings):
    """The targets to measure: those requested, or those of the defaults that can run here."""
    names = []
    for name in settings.targets or DEFAULT_NAMES:
        try:
            check_available(name, settings)
            names.append(name)
        except Failed as reason:
            if settings.targets:
                raise
            note(f"without {name}: {reason}")
    return names


def one_round(number, names, settings, drivers):
    """The samples of a round; `drivers` gets what each target waits for sockets with."""
    this = Round(number)
    samples = []

    def own_processes(name):
        scenario = SCENARIOS[name]
        return scenario.setup, name if scenario.is_memory else ""

    for (setup, _), scenarios in groupby(settings.scenarios, own_processes):
        scenarios = list(scenarios)
        rows = [SCENARIOS[scenario] for scenario in scenarios]
        wanted = [
            name for name in names if any(row.takes(name, settings.asked_for) for row in rows)
        ]
        if not wanted:
            continue
        with Fleet(settings, setup) as fleet:
            fleet.start_all(wanted)
            drivers |= {target.name: target.driver() for target in fleet.targets if target.process}
            for scenario in scenarios:
                samples += in_turns(fleet, scenario, settings, this)
    return samples


def in_turns(fleet, scenario, settings, this):
    """One scenario on all targets; each round begins with another one."""
    row = SCENARIOS[scenario]
    targets = [target for target in fleet.targets if row.takes(target.name, settings.asked_for)]
    shift = this.number % max(len(targets), 1)
    targets = targets[shift:] + targets[:shift]
    if scenario == STEADY and not this.peaks:
        for target in targets:
            measure(fleet, target, PEAK, settings, this)
    samples = []
    for target in targets:
        sample = measure(fleet, target, scenario, settings, this)
        samples.append(sample)
        progress(sample, settings)
    return samples


def machine(settings):
    """What the numbers depend on."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        model = next(models, "")
    except OSError:
        pass
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "processor": model,
        "processors": len(os.sched_getaffinity(0)),
        "target_cpu": settings.target_cpu,
        "load_cpu": settings.load_cpu,
        "versions": versions(settings),
    }


def versions(settings):
    """The first line that each program prints about its version."""
    result = {}
    for name, flag in (("nginx", "-v"), ("haproxy", "-v"), ("olla", "--version")):
        try:
            path = settings.bin if name == "olla" else executable(name, name)
            ran = subprocess.run(
                [path, flag], capture_output=True, text=True, timeout=10, check=False
            )
            result[name] = (ran.stdout or ran.stderr).strip().splitlines()[0]
        except (Failed, OSError, subprocess.TimeoutExpired, IndexError):
            pass
    return result


def progress(sample, settings):
    mark = "" if sample["ok"] else "  NOT ALL CORRECT"
    where = f"round {sample['round']}/{settings.rounds} {sample['scenario']:<14}"
    if "each" in sample:
        numbers = f"{sample['each'] / 1024:10.1f} KB each"
    elif "rate" in sample:
        cpu = f"{sample['cpu_us']:8.1f} us CPU" if "cpu_us" in sample else ""
        numbers = f"{sample['rate']:10.0f}/s {cpu}"
    else:
        numbers = f"no report {sample['report'] or ''}"
    print(f"{where} {sample['target']:<12}{numbers}{mark}", file=sys.stderr, flush=True)


def write(document, directory):
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "raw.json": json.dumps(document, indent=1) + "\n",
        "table.md": compare_report.tables(document, SCENARIOS),
        "chart.svg": compare_report.chart(document),
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    print(files["table.md"])
    print(f"written: {', '.join(files)} in {directory}")
