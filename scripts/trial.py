"""What the programs that try the gateway share: checks, and processes on loopback.

Every wait is for something that can be observed and has a bound; every process started is stopped
by its id.
"""

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from urllib.parse import urlsplit

from ports import reserve_port

START_SECONDS_MAX = 130
STOP_SECONDS_MAX = 15


# ---- checks ----


class Checks:
    """Runs checks, prints a line for each and counts them."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def run(self, name, check, *arguments):
        """Runs `check`, which returns a remark to print, or raises what went wrong.

        Returns whether it passed.
        """
        try:
            remark = check(*arguments)
        except Mismatch as mismatch:
            self.fail(name, mismatch)
        except Exception as error:
            # Whatever the client library raises is a finding about the gateway, with its origin.
            origin = traceback.extract_tb(error.__traceback__)[1:2]
            line = f" (line {origin[0].lineno})" if origin else ""
            self.fail(name, f"{type(error).__name__}: {error}{line}")
        else:
            self.passed += 1
            print(f"ok   {name}" + (f": {remark}" if remark else ""), flush=True)
            return True
        return False

    def fail(self, name, reason):
        self.failed += 1
        print(f"FAIL {name}: {reason}", flush=True)


class Mismatch(Exception):
    """A check found something else than it expected."""


class NotStarted(Exception):
    """The backends or the gateway did not start."""


class OutOfTime(BaseException):
    """The bound of the whole program has passed. No Exception: client libraries wrap those."""


def out_of_time(*_):
    raise OutOfTime


def expect(condition, message):
    """Raises Mismatch with `message` unless `condition` holds."""
    if not condition:
        raise Mismatch(message)


def run_trial(checks, seconds_max, body):
    """Calls `body(started, directory)` and stops the processes that it put into `started`.

    `directory` is temporary. Ends the program: status 0 if every check passed, else 1.
    """
    # Both said outright: SIGINT is ignored in what a shell script starts in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(seconds_max)
    started = []
    with tempfile.TemporaryDirectory(prefix="olla-trial-") as directory:
        try:
            body(started, Path(directory))
        except NotStarted as reason:
            checks.fail("start", reason)
        except OutOfTime:
            checks.fail("all of it", f"not done after {seconds_max} s")
        finally:
            # A second signal, or the alarm, must not cut the clearing up short.
            signal.alarm(0)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            for process in reversed(started):
                stop(process)
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


# ---- what is started ----


def spawn(started, command, **options):
    """Starts a process that `run_trial` will stop; a command that cannot be run is NotStarted."""
    try:
        # A session of its own: Ctrl-C reaches this program, which then stops the rest in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
    except OSError as error:
        raise NotStarted(f"{command[0]}: {error.strerror}") from error
    started.append(process)
    return process


def start_backends(script, instances, started):
    """Starts llama.cpp servers with the script real-llm.sh; returns their URLs by name."""
    command = [script, "run", "--instances", str(instances)]
    process = spawn(started, command, stdout=subprocess.PIPE)
    urls = {}
    text = b""
    deadline = time.monotonic() + START_SECONDS_MAX
    while len(urls) < instances:
        left = max(0.0, deadline - time.monotonic())
        # Read from the descriptor: a line that a buffered reader holds would not show in select.
        ready = select.select([process.stdout], [], [], left)[0]
        piece = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not piece:
            raise NotStarted("the backends are not ready")
        text += piece
        lines = [line.split() for line in text.decode().splitlines(keepends=True) if "\n" in line]
        urls = {words[1]: words[2] for words in lines if words[:1] == ["ready"]}
    return urls


class Gateway:
    """The gateway's process and its addresses."""

    def __init__(self, binary, config, directory, started, name="gateway", environment=None):
        """`config` is the configuration file less its server section."""
        self.port = reserve_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / f"{name}.log"
        file = directory / f"{name}.toml"
        file.write_text(server_config(self.port) + config)
        with open(self.log, "wb") as log:
            self.process = spawn(
                started,
                [binary, "--config", file],
                cwd=directory,
                env={**os.environ, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def print_log(self):
        """Shows the end of what the gateway wrote, for whoever looks for the cause."""
        lines = self.log.read_text(errors="replace").splitlines()
        print(f"---- last lines of {self.log.name}", *lines[-20:], "----", sep="\n", flush=True)


def server_config(port):
    """The server section: no rate limits, since all clients are one."""
    return f"""[server]
host = "127.0.0.1"
port = {port}

[server.rate_limits]
global_requests_per_minute = 0
per_ip_requests_per_minute = 0
health_requests_per_minute = 0
"""


def endpoint_config(name, url, kind):
    """An endpoint of the configuration; lines that follow belong to it."""
    return f"""
[[discovery.static.endpoints]]
name = "{name}"
url = "{url}"
type = "{kind}"
"""


def stop(process):
    """Asks the process to end, and ends it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---- what is asked ----


def get_json(url, path, headers=()):
    """The JSON document at `url` + `path`; raises ValueError for any status but 200."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    try:
        connection.request("GET", path, headers={"Connection": "close", **dict(headers)})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"GET {path}: status {answer.status}")
    return json.loads(body)


def wait_for(condition, seconds_max, message):
    """Waits until `condition()` holds; raises Mismatch with `message` after `seconds_max`."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        expect(time.monotonic() < deadline, f"{message} ({seconds_max} s)")
        # Looking without a pause would take the processor that the backend computes on.
        time.sleep(0.002)


def wait_settled(gateway, models, seconds_max):
    """Waits until every endpoint is healthy and lists as many models as `models` says by name."""
    begin = time.monotonic()
    seen = "nothing answered"
    while time.monotonic() - begin < seconds_max:
        status = gateway.process.poll()
        expect(status is None, f"the gateway ended with status {status}")
        try:
            endpoints = get_json(gateway.url, "/internal/status/endpoints")["endpoints"]
            seen = {item["name"]: (item["status"], item["model_count"]) for item in endpoints}
            if seen == {name: ("healthy", count) for name, count in models.items()}:
                return f"after {time.monotonic() - begin:.2f} s"
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            seen = repr(error)
        time.sleep(0.02)
    raise Mismatch(f"not so after {seconds_max} s: {seen}")
