"""Checks the metrics page of a gateway, the alert rules and their tests with promtool.

Without a URL it starts `olla demo` of target/debug (or of $OLLA_BIN) on a free port. promtool is
part of the Debian package prometheus, which is installed when it is missing and you are root.
"""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

from trials.host import ROOT, TARGET, Failed, need
from trials.process import NotReady, Processes, reserve_port, wait_until

START_SECONDS_MAX = 60
# Names that promtool would have chosen differently. They are Olla's, and its users' dashboards use
# them; every other complaint is an error.
INHERITED = re.compile(
    "|".join(
        [
            'olla_(endpoints|models)_total non-counter metrics should not have "_total" suffix',
            'olla_(endpoint|models?)_traffic_bytes counter metrics should have "_total" suffix',
            "olla_endpoint_models_count non-histogram and non-summary metrics should not have "
            '"_count" suffix',
            "olla_([a-z0-9]+_)*latency_ms metric names should not contain abbreviated units",
        ]
    )
)


def add_arguments(parser):
    text = "of a running gateway, such as http://gateway:40114"
    parser.add_argument("url", nargs="?", metavar="URL", help=text)


def run(options):
    promtool = need("promtool", "prometheus")
    with Processes() as processes:
        url = options.url or start_demo(processes)
        check_page(promtool, fetch(f"{url.rstrip('/')}/internal/metrics").decode())
    statuses = [
        subprocess.run([promtool, kind, "rules", ROOT / "docs" / "alerts" / name], check=False)
        for kind, name in (("check", "olla.rules.yml"), ("test", "olla.tests.yml"))
    ]
    return max(done.returncode for done in statuses)


def start_demo(processes):
    """Starts a demo with a sample for every metric; returns its URL."""
    binary = Path(os.environ.get("OLLA_BIN", TARGET / "debug" / "olla")).resolve()
    if not os.access(binary, os.X_OK):
        raise Failed(f"{binary} is missing; run cargo build, or set OLLA_BIN")
    port = reserve_port()
    demo = processes.start("demo", [binary, "demo", "--port", port])
    url = f"http://127.0.0.1:{port}"

    def is_ready():
        if demo.poll() is not None:
            raise NotReady(f"the demo ended:\n{processes.log_tail('demo')}")
        try:
            return fetch(f"{url}/internal/ready")
        except OSError:
            return False

    wait_until("the demo is not ready", is_ready, START_SECONDS_MAX)
    # A model has series after the first request for it.
    body = json.dumps({"model": "nomic-embed-text:latest", "input": "hello"}).encode()
    fetch(f"{url}/olla/proxy/v1/embeddings", body)
    return url


def fetch(url, body=None):
    headers = {"Content-Type": "application/json"} if body else {}
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read()


def check_page(promtool, page):
    series = sum(not line.startswith("#") for line in page.splitlines())
    if not series:
        raise Failed("the metrics page has no series")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=page,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # 0: fine; 3: readable, with complaints about style; everything else is not readable.
    if done.returncode not in (0, 3):
        raise Failed(f"{done.stdout}promtool cannot read the metrics page ({done.returncode})")
    complaints = done.stdout.splitlines()
    unknown = [line for line in complaints if not INHERITED.fullmatch(line)]
    if unknown:
        raise Failed("\n".join(["promtool complains about the metrics:", *unknown]))
    print(f"metrics: {series} series, {len(complaints)} inherited names")
