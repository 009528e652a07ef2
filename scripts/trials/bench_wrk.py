"""Measures the gateway and the stub behind it with wrk.

Starts the stub LLM server and the gateway (one worker pinned to one processor; stub and wrk share
another), runs wrk for some seconds in each scenario, and prints requests a second, latency, and the
gateway's processor time for each request. Stops everything at the end; all ports are free ones.
`compare` measures other proxies beside the gateway.

Environment: IO_DRIVER   auto (default), io_uring or epoll

wrk is the Debian package of that name, which is installed when it is missing and you are root.
"""

import os
import subprocess
from pathlib import Path

from trials import bench
from trials.host import Failed, need
from trials.process import pinned
from trials.report import table

BINARIES = ("olla", "olla-loadtest")
# Connections and the size of bodies.
SCENARIOS = {
    "chat-1": (1, 300),
    "chat-64": (64, 300),
    "chat-256": (256, 300),
    "prompt-100k": (16, 100_000),
    "prompt-1m": (8, 1_000_000),
}
SCRIPT = Path(__file__).with_suffix(".lua")

add_arguments = bench.add_arguments


def run(options):
    wrk = need("wrk", "wrk")
    with bench.stub_and_gateway(options) as fleet:
        rows = [
            measure(wrk, options, fleet, target, name)
            for name in SCENARIOS
            for target in fleet.targets
        ]
    print(table(rows))
    return 0


def measure(wrk, options, fleet, target, name):
    connections, size = SCENARIOS[name]
    body = fleet.directory / "body.json"
    bench.write_body(body, size)
    command = [wrk, "-t1", f"-c{connections}", f"-d{options.seconds}s", "-s", SCRIPT, target.url]
    before = target.cpu_seconds()
    done = subprocess.run(
        pinned(options.load_cpu, command),
        env={**os.environ, "BENCH_BODY": str(body)},
        capture_output=True,
        text=True,
        timeout=options.seconds + 20,
        check=False,
    )
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("result ")]
    if not lines:
        raise Failed(f"wrk gave no result for {name}: {done.stderr.strip()}")
    requests, failures, duration_us, p50, p90, p99 = map(int, lines[0])
    return {
        "scenario": name,
        "to": bench.label(target),
        "requests/s": f"{requests * 1e6 / duration_us:.0f}",
        "p50_us": p50,
        "p90_us": p90,
        "p99_us": p99,
        "cpu_us/req": bench.cpu_us(target, before, requests),
        "failures": failures,
    }
