"""Processes, ports, processor time and HTTP requests, all on loopback.

Every wait is for something that can be observed and has a limit; every process is stopped by
its id.
"""

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from trials.host import note

START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 15
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

_held = []


class NotReady(Exception):
    """Something did not come up, or did not happen, in time."""


# ---- Ports and processors ----


def reserve_ports(count):
    """Distinct ports for listeners that set SO_REUSEADDR. Until this process ends, the system gives
    them to no other listener that asks for any free port, and to no connection."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    _held.extend(sockets)
    return [one.getsockname()[1] for one in sockets]


def reserve_port():
    """One such port."""
    return reserve_ports(1)[0]


def raise_descriptor_limit():
    """Allows as many open files as the system permits; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def choose_cpus(gateway_cpu=None, load_cpu=None):
    """One processor for what is measured and one for everything else, where there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) > 1 and shutil.which("taskset"):
        gateway_cpu = allowed[0] if gateway_cpu is None else gateway_cpu
        if load_cpu is None:
            load_cpu = next(cpu for cpu in allowed if cpu != gateway_cpu)
    if load_cpu is None:
        note("nothing is pinned; what is measured and its load share processors")
    return gateway_cpu, load_cpu


def pinned(cpu, command):
    command = [str(part) for part in command]
    return command if cpu is None else ["taskset", "-c", str(cpu), *command]


# ---- Waiting ----


def wait_until(what, condition, seconds=START_SECONDS_MAX, pause=0.02):
    """Waits until `condition()` holds and returns its value; NotReady after `seconds`."""
    limit = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > limit:
            raise NotReady(f"{what} (waited {seconds:g} s)")
        time.sleep(pause)


class Repeating:
    """Calls `step` on a thread, every `pause` seconds, while the context is open."""

    def __init__(self, pause=0):
        self.pause = pause
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def run(self):
        while not self.over.wait(self.pause):
            self.step()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class MemoryWatch(Repeating):
    """Samples the resident memory of a process in bytes (0 without one): `before` and `peak`."""

    def __init__(self, process, pause):
        super().__init__(pause)
        self.process = process
        self.before = self.peak = self.look()

    def look(self):
        return resident_bytes(self.process) if self.process else 0

    def step(self):
        self.peak = max(self.peak, self.look())


# ---- Processes ----


class Processes:
    """A temporary directory and the processes started in it; a context that ends both."""

    def __init__(self):
        self.holder = tempfile.TemporaryDirectory(prefix="olla-trial-")
        self.directory = Path(self.holder.name)
        self.started = []
        raise_descriptor_limit()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second signal must not interrupt the cleanup.
        signals = (signal.SIGINT, signal.SIGTERM)
        handlers = [signal.signal(number, signal.SIG_IGN) for number in signals]
        for process in reversed(self.started):
            stop(process)
        self.holder.cleanup()
        for number, handler in zip(signals, handlers):
            signal.signal(number, handler)

    def start(self, name, command, *, cpu=None, **options):
        """Starts a process, with its output in `NAME.log` unless `options` redirect it."""
        with open(self.log(name), "ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **options}
            options = {"cwd": self.directory, **options}
            try:
                # A process group of its own: Ctrl-C reaches this program, which stops the rest.
                process = subprocess.Popen(pinned(cpu, command), start_new_session=True, **options)
            except OSError as error:
                raise NotReady(f"{command[0]}: {error.strerror}") from error
        self.started.append(process)
        return process

    def start_listening(self, name, command, **options):
        """Starts a load tool that prints `listening on ADDRESS`; returns it and the address.

        The address is empty when the process ended instead.
        """
        process = self.start(name, command, stdout=subprocess.PIPE, **options)
        line = process.stdout.readline().decode().strip()
        if not line.startswith("listening on "):
            process.kill()
            process.wait()
            return process, ""
        return process, line.removeprefix("listening on ")

    def log(self, name):
        return self.directory / f"{name}.log"

    def log_tail(self, name, count=2000):
        """The end of what a process printed."""
        return self.log(name).read_text(errors="replace")[-count:]


def stop(process, seconds=STOP_SECONDS_MAX):
    """Terminates a process and, if it does not end in time, kills it and its children."""
    if process.poll() is not None:
        return
    pids = tree(process)
    process.terminate()
    # A stopped process gets the signal only when it goes on.
    process.send_signal(signal.SIGCONT)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()


def tree(process):
    """The ids of a process and all its descendants."""
    pids = [process.pid]
    for pid in pids:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            pids += [int(child) for child in children.split()]
        except OSError:
            pass
    return pids


def cpu_seconds(process):
    """Processor time so far of all threads of a process and its descendants (proc(5), stat)."""
    ticks = 0
    for pid in tree(process):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / CLOCK_TICKS


def resident_bytes(process):
    """VmRSS of the largest process of a tree; a sum would count shared memory twice."""
    largest = 0
    for pid in tree(process):
        try:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    largest = max(largest, int(line.split()[1]) * 1024)
        except OSError:
            pass
    return largest


def proportional_bytes(process):
    """Pss of a process and all its descendants: what they share is counted once (proc(5),
    smaps_rollup). Memory of the kernel, such as that of sockets and rings, is not in it."""
    total = 0
    for pid in tree(process):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


# ---- HTTP ----


def request(port, method, path, body=None, headers=None, timeout=5):
    """One exchange on a connection of its own: status, headers in lower case, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read()
    finally:
        connection.close()


def get_json(url, path):
    """The JSON document at `url` + `path`; ValueError for any status but 200."""
    status, _, body = request(urlsplit(url).port, "GET", path, headers={"Connection": "close"})
    if status != 200:
        raise ValueError(f"GET {path}: status {status}")
    return json.loads(body)
