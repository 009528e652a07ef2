"""Measures the gateway and the stub behind it with oha.

Starts the stub LLM server and the gateway (one worker pinned to one processor; stub and oha share
another), runs oha for some seconds in each scenario, and prints requests a second, latency, time to
the first byte, and the gateway's processor time for each request. Stops everything at the end; all
ports are free ones. `compare` measures other proxies beside the gateway.

chat-64      64 connections, each sending as soon as its response is there
chat-rate    2,000 requests a second on a schedule; latency counts from when a request was due
prompt-100k  16 connections, 100 KB prompts
streams-100  100 connections, event streams of 20 events in 0.4 s

Environment: IO_DRIVER   auto (default), io_uring or epoll

oha is installed with `cargo install oha --locked` when it is missing, which takes some minutes.
"""

import json
import os
import shutil
import subprocess

from trials import bench
from trials.host import Failed, cargo, note
from trials.process import pinned
from trials.report import table

BINARIES = ("olla", "olla-loadtest")
# Connections, the size of bodies, whether to stream, and further options.
SCENARIOS = {
    "chat-64": (64, 300, False, []),
    "chat-rate": (64, 300, False, ["-q", "2000", "--latency-correction"]),
    "prompt-100k": (16, 100_000, False, []),
    "streams-100": (100, 300, True, []),
}

add_arguments = bench.add_arguments


def run(options):
    cargo_bin = os.path.join(os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo")), "bin")
    os.environ["PATH"] += ":" + cargo_bin
    if not shutil.which("oha"):
        note("installing oha, which takes some minutes ...")
        cargo("install", "oha", "--locked")
    with bench.stub_and_gateway(options) as fleet:
        rows = [
            measure(options, fleet, target, name) for target in fleet.targets for name in SCENARIOS
        ]
    print(table(rows))
    return 0


def measure(options, fleet, target, name):
    connections, size, stream, more = SCENARIOS[name]
    body = fleet.directory / "body.json"
    bench.write_body(body, size, stream)
    command = ["oha", "--no-tui", "--output-format", "json", "--worker-threads", "1"]
    command += ["-z", f"{options.seconds}s", "-c", connections, "-m", "POST"]
    command += ["-T", "application/json", "-D", body, *more, target.url]
    before = target.cpu_seconds()
    done = subprocess.run(
        pinned(options.load_cpu, command),
        capture_output=True,
        text=True,
        timeout=options.seconds + 30,
        check=False,
    )
    if done.returncode:
        raise Failed(f"oha failed in {name}: {done.stderr.strip()}")
    report = json.loads(done.stdout)
    statuses = report["statusCodeDistribution"]
    responses = sum(statuses.values())
    # Requests cut off by the end of the time are no failures.
    errors = report["errorDistribution"]
    failures = sum(n for kind, n in errors.items() if kind != "aborted due to deadline")
    latency, first = report["latencyPercentiles"], report.get("firstBytePercentiles", {})
    return {
        "scenario": name,
        "to": bench.label(target),
        "requests/s": f"{responses / report['summary']['total']:.0f}",
        "p50_us": microseconds(latency, "p50"),
        "p99_us": microseconds(latency, "p99"),
        "ttfb_p50": microseconds(first, "p50"),
        "ttfb_p99": microseconds(first, "p99"),
        "cpu_us/req": bench.cpu_us(target, before, responses),
        "failures": failures + responses - statuses.get("200", 0),
    }


def microseconds(times, key):
    value = times.get(key)
    return "-" if value is None else f"{value * 1e6:.0f}"
