#!/usr/bin/env python3
"""Measures the gateway beside nginx, HAProxy and a bare byte relay, in one run on one machine."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import compare_report
from compare_targets import DEFAULT_NAMES, NAMES, Fleet, Unavailable, check_available, executable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

HELP = """\
What runs
  The stub LLM server and the load client (both `olla-loadtest`) are pinned to one processor, the
  targets, each with one worker, to another. All targets are up at the same time and take turns
  within each round, so that a machine that gets slower does so for all; everything is started anew
  for each round. The table has medians over the rounds.

Targets
  direct       no proxy: the stub itself, the reference for latency
  relay        a byte relay on io_uring that knows no HTTP: the floor (relay-epoll: on epoll)
  nginx        kept-alive upstream connections, no response buffering, bodies in memory
  haproxy      one thread, http-reuse always, http-no-delay
  olla         the gateway with its defaults, rate limits out of reach but on (olla-epoll: on
               epoll; olla-before: the program of --before, to see what a change costs)

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
  RSS          VmRSS of the target's largest process: before the scenario, and the most seen in it
  per stream   growth of RSS with all streams open, divided by their number
  For streams p50 and p99 are those of an event's delay, from the stub's sending to the client's
  receiving; `first` is from the moment the stream was due to its first event.

The load client is the crate's own: it costs no more processor time than wrk does, and it checks
every answer. Compare columns of one run, not runs of different days. A target whose answers were
not all right is marked, and its figures mean little.

Writes raw.json, table.md and chart.svg into the output directory.
"""

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


def main():
    settings = arguments()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < 4 * STREAMS:
        warn(f"only {hard} open files are allowed; streams will fail")
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


def arguments():
    parser = argparse.ArgumentParser(
        prog="compare.sh",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    target_dir = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    release = os.path.join(target_dir, "release")
    day_and_host = f"{time.strftime('%Y-%m-%d')}-{platform.node()}"
    add = parser.add_argument
    add(
        "--no-build", action="store_true", help="first argument only: take the binaries as they are"
    )
    add("--targets", type=comma_separated, metavar="A,B", help=f"of {', '.join(NAMES)}")
    add(
        "--scenarios",
        type=comma_separated,
        metavar="A,B",
        default=list(SCENARIOS),
        help="default: all",
    )
    add("--rounds", type=int, default=3, help="default: 3")
    add("--seconds", type=float, default=5, help="length of each measurement (default: 5)")
    add(
        "--out",
        metavar="DIR",
        default=os.path.join(ROOT, "loadtest", "runs", day_and_host),
        help="default: loadtest/runs/<date>-<host>",
    )
    add(
        "--gateway-driver",
        choices=["auto", "io_uring", "epoll"],
        default="auto",
        help="server.io_driver of the target olla (default: auto)",
    )
    add("--bin", default=os.path.join(release, "olla"), help="the gateway's binary")
    add("--before", metavar="BIN", help="an earlier build of it, as the target olla-before")
    add("--loadtest-bin", default=os.path.join(release, "olla-loadtest"), help="the load tools")
    add("--target-cpu", type=int, help="processor of the targets (default: the first allowed)")
    add("--load-cpu", type=int, help="processor of stub and client (default: the second allowed)")
    settings = parser.parse_args()
    for given, known in ((settings.targets or [], NAMES), (settings.scenarios, list(SCENARIOS))):
        for name in given:
            if name not in known:
                parser.error(f"{name} is not one of {', '.join(known)}")
    if settings.rounds < 1 or settings.seconds <= 0:
        parser.error("--rounds and --seconds must be above zero")
    if not os.access(settings.loadtest_bin, os.X_OK):
        parser.error(f"{settings.loadtest_bin} is missing (cargo build --release -p olla-loadtest)")
    settings.bin = os.path.abspath(settings.bin)
    if settings.before:
        settings.before = os.path.abspath(settings.before)
        settings.targets = settings.targets or [*DEFAULT_NAMES, "olla-before"]
    elif "olla-before" in (settings.targets or []):
        parser.error("olla-before needs --before BIN")
    settings.loadtest_bin = os.path.abspath(settings.loadtest_bin)
    settings.scenarios = [name for name in SCENARIOS if name in settings.scenarios]
    choose_cpus(settings)
    return settings


def comma_separated(text):
    return [part for part in text.split(",") if part]


def choose_cpus(settings):
    allowed = sorted(os.sched_getaffinity(0))
    if settings.target_cpu is None and len(allowed) > 1:
        settings.target_cpu = allowed[0]
    if settings.load_cpu is None and len(allowed) > 1:
        settings.load_cpu = next(cpu for cpu in allowed if cpu != settings.target_cpu)
    if settings.load_cpu is None:
        warn("there is one processor; the figures mix the targets with their load")


def available(settings):
    """The targets to measure: those asked for, or those of the defaults that can run here."""
    names = []
    for name in settings.targets or DEFAULT_NAMES:
        try:
            check_available(name, settings)
            names.append(name)
        except Unavailable as reason:
            if settings.targets:
                sys.exit(f"compare: {reason}")
            warn(f"without {name}: {reason}")
    return names


def one_round(number, names, settings):
    samples = []
    with tempfile.TemporaryDirectory(prefix="compare-") as directory:
        try:
            fleet = Fleet(names, settings, directory)
        except Unavailable as reason:
            sys.exit(f"compare: {reason}")
        try:
            for scenario in settings.scenarios:
                # Each round begins with another target, so that none is always the first.
                shift = number % len(fleet.targets)
                for target in fleet.targets[shift:] + fleet.targets[:shift]:
                    sample = measure(target, scenario, settings)
                    sample["round"] = number
                    samples.append(sample)
                    progress(sample, settings)
        finally:
            fleet.stop()
    return samples


def measure(target, scenario, settings):
    """One scenario on one target; times in microseconds, memory in bytes."""
    tool, options, _ = SCENARIOS[scenario]
    command = [settings.loadtest_bin, tool, "--url", target.url, "--model", "bench", "--json", "-"]
    command += options
    if tool == "sse":
        command += ["--events", str(max(2, round(settings.seconds * 1000 / GAP_MS)))]
    else:
        command += ["--duration", str(settings.seconds), "--nonce"]
    if settings.load_cpu is not None:
        command = ["taskset", "-c", str(settings.load_cpu), *command]
    idle = target.resident_bytes()
    before = target.cpu_seconds()
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        watcher = MemoryWatcher(target)
        try:
            output, _ = client.communicate(timeout=settings.seconds + 60)
        except subprocess.TimeoutExpired:
            client.kill()
            output = b""
        finally:
            peak = watcher.stop()
    spent = target.cpu_seconds() - before
    wall = time.monotonic() - began
    sample = {"target": target.name, "scenario": scenario, "ok": client.returncode == 0}
    if not output:
        sample["report"] = None
        return sample
    report = json.loads(output)
    sample["report"] = report
    sample.update(figures(tool, report))
    sample["ok"] = sample["ok"] and not report["failures"] and set(report["statuses"]) == {"200"}
    if target.process:
        if sample["count"]:
            sample["cpu_us"] = spent * 1e6 / sample["count"]
        sample["cpu_share"] = spent / wall
        sample["rss_idle"] = idle
        sample["rss_load"] = peak
        if tool == "sse":
            sample["per_stream"] = (peak - idle) / STREAMS
    return sample


def figures(tool, report):
    if tool == "sse":
        count, rate, times = report["events"], report["events_per_second"], report["delay_us"]
        first = report["first_event_us"] or {}
        more = {"first_p50": first.get("p50"), "first_p99": first.get("p99")}
    else:
        count, rate, times = report["answers"], report["answers_per_second"], report["latency_us"]
        more = {}
    times = times or {}
    return {"count": count, "rate": rate, "p50": times.get("p50"), "p99": times.get("p99"), **more}


class MemoryWatcher:
    """Looks at a target's memory ten times a second until it is stopped."""

    def __init__(self, target):
        self._target = target
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self):
        """The most that was seen, in bytes."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self):
        while not self._done.wait(0.1):
            self._peak = max(self._peak, self._target.resident_bytes())


def medians(samples):
    """For each scenario and target the median of each figure, and what is worked out from them."""
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
    """What the figures depend on."""
    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")),
                "",
            )
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
    """The first line that each program says about itself."""
    result = {}
    for name, flag in (("nginx", "-v"), ("haproxy", "-v"), ("olla", "--version")):
        try:
            path = settings.bin if name == "olla" else executable(name)
            ran = subprocess.run(
                [path, flag], capture_output=True, text=True, timeout=10, check=False
            )
            result[name] = (ran.stdout or ran.stderr).strip().splitlines()[0]
        except (Unavailable, OSError, subprocess.TimeoutExpired, IndexError):
            pass
    return result


def progress(sample, settings):
    cpu = f"{sample['cpu_us']:8.1f} us CPU" if "cpu_us" in sample else " " * 15
    rate = f"{sample['rate']:10.0f}/s" if "rate" in sample else "no report"
    note = "" if sample["ok"] else "  NOT ALL RIGHT"
    where = f"round {sample['round']}/{settings.rounds} {sample['scenario']:<12}"
    print(f"{where} {sample['target']:<12}{rate} {cpu}{note}", file=sys.stderr, flush=True)


def write(document, directory):
    os.makedirs(directory, exist_ok=True)
    files = {
        "raw.json": json.dumps(document, indent=1) + "\n",
        "table.md": compare_report.tables(document, SCENARIOS),
        "chart.svg": compare_report.chart(document),
    }
    for name, text in files.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)
    print(files["table.md"])
    print(f"written: {', '.join(files)} in {directory}")


def warn(text):
    print(f"compare: {text}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
