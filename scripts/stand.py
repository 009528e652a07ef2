"""A test stand: stub backends, the gateway in front of them, and how to look at both.

Everything listens on 127.0.0.1 on ports chosen by the system and is stopped by its process id.
"""

import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ports import reserve_ports

START_SECONDS_MAX = 20
CONFIG = """\
[server]
host = "127.0.0.1"
port = {port}
workers = {workers}
pin_workers = false
request_logging = false
{server}

[server.rate_limits]
{limits}

[proxy]
load_balancer = "{balancer}"
{proxy}

[logging]
level = "{level}"

{more}
"""
NO_LIMITS = """\
global_requests_per_minute = 0
per_ip_requests_per_minute = 0
health_requests_per_minute = 0
"""
ENDPOINT = """
[[discovery.static.endpoints]]
name = "{name}"
url = "http://127.0.0.1:{port}"
type = "openai-compatible"
check_interval = "{interval}"
check_timeout = "{patience}ms"
{own}
"""


class NotReady(Exception):
    """Something did not come up in time."""


def raise_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def wait_until(what, condition, seconds=START_SECONDS_MAX):
    limit = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > limit:
            raise NotReady(what)
        time.sleep(0.02)


def cpus():
    """One processor for the gateway and one for everything else; None when there is one only."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else None


def pinned(cpu, command):
    return command if cpu is None else ["taskset", "-c", str(cpu), *command]


def request(port, method, path, body=None, headers=None, timeout=5):
    """One exchange on a connection of its own: status, headers in lower case, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, fields, answer.read()
    finally:
        connection.close()


class Stub:
    """One stub backend on a port of its own, which it keeps when it is started again."""

    def __init__(self, stand, name, port):
        self.stand, self.name, self.port = stand, name, port
        self.record = stand.directory / f"{name}.record"
        self.record.touch()
        self.process = None

    def start(self):
        options = ["--listen", f"127.0.0.1:{self.port}", "--model", "stub-model"]
        if self.stand.with_records:
            options += ["--record", str(self.record)]
        command = [self.stand.loadtest, "stub", *options, *self.stand.stub_options]
        # Quietly: a stub that is started again may find its port still in use for a moment.
        def up():
            self.process = subprocess.Popen(
                pinned(self.stand.load_cpu, command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            line = self.process.stdout.readline()
            if not line.startswith(b"listening"):
                self.process.wait()
            return line
        wait_until(f"stub {self.name}", up)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def set_fault(self, **fields):
        status, _, _ = request(self.port, "POST", "/stub/fault", json.dumps(fields))
        assert status == 200, status

    def counters(self):
        return json.loads(request(self.port, "GET", "/stub/counters")[2])


class Stand:
    """The stubs and the gateway; a context manager that stops what it started."""

    def __init__(self, options, count, *, workers=1, records=False, stub_options=(), pin=False):
        raise_descriptor_limit()
        # What was started is stopped, too, when this is.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        self.loadtest, self.bin = str(options.loadtest_bin), str(options.bin)
        self.workers, self.with_records = workers, records
        self.stub_options = [str(option) for option in stub_options]
        self.gateway_cpu, self.load_cpu = (cpus() if pin else None) or (None, None)
        self.holder = tempfile.TemporaryDirectory(prefix="olla-stand-")
        self.directory = Path(self.holder.name)
        self.config = self.directory / "olla.toml"
        self.port, *ports = reserve_ports(count + 1)
        self.stubs = [Stub(self, f"b{number}", port) for number, port in enumerate(ports)]
        self.gateway = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def configure(self, *, stubs=None, server="", limits=NO_LIMITS, proxy="", level="warn",
                  balancer="least-connections", interval="1s", patience=500, more="",
                  extra_endpoints=(), own=lambda name: ""):
        """Writes the configuration file, with all stubs as endpoints unless told otherwise. `own`
        gives further keys of an endpoint."""
        stubs = self.stubs if stubs is None else stubs
        endpoints = [(stub.name, stub.port) for stub in stubs] + list(extra_endpoints)
        for name, port in endpoints:
            more += ENDPOINT.format(name=name, port=port, interval=interval, patience=patience,
                                    own=own(name))
        self.config.write_text(CONFIG.format(
            port=self.port, workers=self.workers, server=server, limits=limits, proxy=proxy,
            balancer=balancer, level=level, more=more))

    def start(self, **settings):
        """Starts the stubs, and the gateway as `configure` says."""
        for stub in self.stubs:
            stub.start()
        self.configure(**settings)
        command = pinned(self.gateway_cpu, [self.bin, "--config", str(self.config)])
        self.log = (self.directory / "olla.log").open("wb")
        self.gateway = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        wait_until("the gateway", self.is_ready)

    def is_ready(self):
        if self.gateway.poll() is not None:
            raise NotReady(f"the gateway ended:\n{self.log_tail()}")
        try:
            status = json.loads(request(self.port, "GET", "/internal/status/endpoints")[2])
        except (OSError, ValueError, http.client.HTTPException):
            return False
        healthy = [one for one in status.get("endpoints", []) if one.get("status") == "healthy"]
        return len(healthy) >= len(self.stubs)

    def metrics(self):
        """The samples of the page of metrics by name and labels, as they stand there."""
        text = request(self.port, "GET", "/internal/metrics")[2].decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def log_tail(self):
        return (self.directory / "olla.log").read_text(errors="replace")[-2000:]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/olla/proxy"

    def tool(self, name, *arguments, idle=False, **kwargs):
        """Starts a load tool. An idle one runs when nobody else wants the processor (SCHED_IDLE)."""
        command = [self.loadtest, name, *map(str, arguments)]
        if idle:
            command = ["chrt", "--idle", "0", *command]
        return subprocess.Popen(
            pinned(self.load_cpu, command), stdout=subprocess.DEVNULL, **kwargs)

    def is_alive(self):
        return self.gateway.poll() is None

    def sockets(self):
        """The gateway's sockets by inode. The list of all of the machine's would take far longer."""
        directory = f"/proc/{self.gateway.pid}/fd"
        links = set()
        for number in os.listdir(directory):
            try:
                links.add(os.readlink(f"{directory}/{number}"))
            except OSError:
                pass
        return {link for link in links if link.startswith("socket:")}

    def rss_kb(self):
        try:
            for line in Path(f"/proc/{self.gateway.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        except OSError:
            pass
        return 0

    def stop(self):
        for stub in self.stubs:
            if stub.process and stub.process.poll() is None:
                stub.signal(signal.SIGCONT)
                stub.kill()
        if self.gateway and self.gateway.poll() is None:
            self.gateway.terminate()
            try:
                self.gateway.wait(15)
            except subprocess.TimeoutExpired:
                self.gateway.kill()
                self.gateway.wait()
        self.holder.cleanup()


class RssWatch:
    """Samples the gateway's resident memory on a thread."""

    def __init__(self, stand):
        self.stand, self.peak = stand, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.before = self.stand.rss_kb()
        self.thread.start()
        return self

    def run(self):
        while not self.over.wait(0.03):
            self.peak = max(self.peak, self.stand.rss_kb())

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def table(rows, columns):
    """Text in columns, the first left, the others right."""
    cells = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = []
    for line in cells:
        first, *rest = zip(line, widths)
        lines.append("  ".join([first[0].ljust(first[1])] + [cell.rjust(width) for cell, width in rest]))
    return "\n".join(lines)


def add_binaries(parser):
    parser.add_argument("--bin", type=Path, required=True, help="the gateway")
    parser.add_argument("--loadtest-bin", type=Path, required=True, help="the load tools")
