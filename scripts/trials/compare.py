"""Measures the gateway beside nginx, HAProxy and a bare byte relay, in one run on one machine.

What runs
  The stub LLM server and the load client (both `olla-loadtest`) are pinned to one processor, the
  targets, each with one worker, to another. All targets are up at the same time and take turns
  within each round, so that a machine that slows down does so for all; each round starts
  everything anew. The table has medians over the rounds.

Targets
  direct       no proxy: the stub itself, the reference for latency
  relay        a byte relay on io_uring that knows no HTTP: the lower bound (relay-epoll: on
               epoll)
  nginx        kept-alive upstream connections, no response buffering, bodies in memory
  haproxy      one thread, http-reuse always, http-no-delay
  olla         the gateway with its defaults, rate limits out of reach but on (olla-epoll: on
               epoll; olla-before: the program of --before, to measure a change; olla-key,
               olla-keys: with access on, one key and 100,000 of them, with every limit that a
               policy can set, out of reach; olla-least-connections: without predictions)

Scenarios (in this order, so that large bodies do not blur the memory of streams)
  sse          500 event streams, an event every 50 ms in each
  chat-1       one kept-alive connection, 0.3 KB each way
  chat-64      64 connections
  prompt-100k  16 connections, 100 KB prompts
  prompt-1m    8 connections, 1 MB prompts

Columns
  CPU          processor time of the target for each request or event: utime + stime of all its
               threads and child processes (/proc/PID/stat), in microseconds; an event's has its
               share of the stream's request
  x nginx      that, divided by nginx's in the same run
  added p50    median latency less that of `direct`
  RSS          VmRSS of the target's largest process: before the scenario, and the peak within it
  per stream   growth of RSS with all streams open, divided by their number
  For streams p50 and p99 are those of an event's delay, from the stub's sending to the client's
  receiving; `first` is from the moment the stream was due to its first event.

The load client is the crate's own: it takes no more processor time than wrk does, and it checks
every response. Compare columns of one run, not runs of different days. A target is marked if
any of its responses was wrong; its numbers mean little.

Writes raw.json, table.md and chart.svg into the output directory.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from trials import compare_report
from trials.cli import add_names, positive
from trials.host import ROOT, Failed, WrongUsage, executable, need, note
from trials.process import MemoryWatch, choose_cpus, pinned, raise_descriptor_limit
from trials.proxies import DEFAULT_NAMES, MODEL, NAMES, Fleet, check_available, with_key

BINARIES = ("olla", "olla-loadtest")
# name -> (tool, its arguments, what is counted)
SCENARIOS = {
    "sse": ("sse", ["--streams", "500", "--gap-ms", "50", "--ramp-ms", "500"], "event"),
    "chat-1": ("chat", ["--connections", "1", "--body-bytes", "300"], "request"),
    "chat-64": ("chat", ["--connections", "64", "--body-bytes", "300"], "request"),
    "prompt-100k": ("chat", ["--connections", "16", "--body-bytes", "100000"], "request"),
    "prompt-1m": ("chat", ["--connections", "8", "--body-bytes", "1000000"], "request"),
}
STREAMS = 500
GAP_MS = 50


def add_arguments(parser):
    out = ROOT / "loadtest" / "runs" / f"{time.strftime('%Y-%m-%d')}-{platform.node()}"
    text = f"default: {','.join(DEFAULT_NAMES)}; all: "
    add_names(parser, "--targets", NAMES, default=(), text=text)
    add_names(parser, "--scenarios", SCENARIOS)
    add = parser.add_argument
    add("--rounds", type=positive(int), default=3, help="default: 3")
    add("--seconds", type=positive(float), default=5, help="length of each measurement (5)")
    add("--out", type=Path, metavar="DIR", default=out, help="default: loadtest/runs/<date>-<host>")
    add("--before", type=Path, metavar="BIN", help="an earlier build, as the target olla-before")
    add("--target-cpu", type=int, help="processor of the targets (default: the first allowed)")
    add("--load-cpu", type=int, help="processor of stub and client (default: the second allowed)")
    drivers = ["auto", "io_uring", "epoll"]
    text = "server.io_driver of the target olla (default: auto)"
    add("--gateway-driver", choices=drivers, default="auto", help=text)


def run(settings):
    for name in ("nginx", "haproxy"):
        try:
            need(name, name)
        except Failed as reason:
            note(reason)
    if settings.before:
        settings.before = settings.before.resolve()
        settings.targets = settings.targets or [*DEFAULT_NAMES, "olla-before"]
    elif "olla-before" in settings.targets:
        raise WrongUsage("the target olla-before needs --before BIN")
    settings.scenarios = [name for name in SCENARIOS if name in settings.scenarios]
    settings.target_cpu, settings.load_cpu = choose_cpus(settings.target_cpu, settings.load_cpu)
    if 0 <= raise_descriptor_limit() < 4 * STREAMS:
        note(f"fewer than {4 * STREAMS} open files are allowed; streams will fail")
    names = available(settings)
    samples = []
    started = time.monotonic()
    for number in range(1, settings.rounds + 1):
        samples += one_round(number, names, settings)
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
        "scenarios": settings.scenarios,
        "medians": medians(samples),
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


def one_round(number, names, settings):
    samples = []
    with Fleet(settings) as fleet:
        fleet.start_all(names)
        for scenario in settings.scenarios:
            # Each round begins with another target, so that none is always the first.
            shift = number % len(fleet.targets)
            for target in fleet.targets[shift:] + fleet.targets[:shift]:
                sample = measure(target, scenario, settings)
                sample["round"] = number
                samples.append(sample)
                progress(sample, settings)
    return samples


def measure(target, scenario, settings):
    """One scenario on one target; times in microseconds, memory in bytes."""
    tool, options, _ = SCENARIOS[scenario]
    command = [settings.loadtest_bin, tool, "--url", target.url, "--model", MODEL, "--json", "-"]
    command += [*options, *with_key()]
    if tool == "sse":
        command += ["--events", max(2, round(settings.seconds * 1000 / GAP_MS))]
    else:
        command += ["--duration", settings.seconds, "--nonce"]
    before = target.cpu_seconds()
    began = time.monotonic()
    with (
        MemoryWatch(target.process, 0.1) as watch,
        subprocess.Popen(pinned(settings.load_cpu, command), stdout=subprocess.PIPE) as client,
    ):
        try:
            output, _ = client.communicate(timeout=settings.seconds + 60)
        except subprocess.TimeoutExpired:
            client.kill()
            output = b""
    spent = target.cpu_seconds() - before
    wall = time.monotonic() - began
    sample = {"target": target.name, "scenario": scenario, "ok": client.returncode == 0}
    if not output:
        sample["report"] = None
        return sample
    report = json.loads(output)
    sample["report"] = report
    sample.update(numbers(tool, report))
    sample["ok"] = sample["ok"] and not report["failures"] and set(report["statuses"]) == {"200"}
    if target.process:
        if sample["count"]:
            sample["cpu_us"] = spent * 1e6 / sample["count"]
        sample["cpu_share"] = spent / wall
        sample["rss_idle"] = watch.before
        sample["rss_load"] = watch.peak
        if tool == "sse":
            sample["per_stream"] = (watch.peak - watch.before) / STREAMS
    return sample


def numbers(tool, report):
    if tool == "sse":
        count, rate, times = report["events"], report["events_per_second"], report["delay_us"]
        first = report["first_event_us"] or {}
        more = {"first_p50": first.get("p50"), "first_p99": first.get("p99")}
    else:
        count, rate, times = report["answers"], report["answers_per_second"], report["latency_us"]
        more = {}
    times = times or {}
    return {"count": count, "rate": rate, "p50": times.get("p50"), "p99": times.get("p99"), **more}


def medians(samples):
    """For each scenario and target the median of each number, and the ratios between targets."""
    groups = {}
    for sample in samples:
        groups.setdefault(sample["scenario"], {}).setdefault(sample["target"], []).append(sample)
    result = {}
    for scenario, by_target in groups.items():
        rows = result[scenario] = {}
        for target, group in by_target.items():
            row = rows[target] = {"ok": all(sample["ok"] for sample in group)}
            keys = {key for sample in group for key in sample} - {"round", "report", "ok"}
            for key in keys:
                values = [s[key] for s in group if isinstance(s.get(key), (int, float))]
                if values:
                    row[key] = statistics.median(values)
        for row in rows.values():
            nginx, direct = rows.get("nginx", {}), rows.get("direct", {})
            if nginx.get("cpu_us") and "cpu_us" in row:
                row["to_nginx"] = row["cpu_us"] / nginx["cpu_us"]
            if "p50" in direct and "p50" in row:
                row["added_p50"] = row["p50"] - direct["p50"]
    return result


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
    cpu = f"{sample['cpu_us']:8.1f} us CPU" if "cpu_us" in sample else " " * 15
    rate = f"{sample['rate']:10.0f}/s" if "rate" in sample else "no report"
    mark = "" if sample["ok"] else "  NOT ALL CORRECT"
    where = f"round {sample['round']}/{settings.rounds} {sample['scenario']:<12}"
    print(f"{where} {sample['target']:<12}{rate} {cpu}{mark}", file=sys.stderr, flush=True)


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
