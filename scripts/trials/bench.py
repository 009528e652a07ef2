"""What the benchmarks with other load generators share: the stub, the gateway and chat requests."""

import os
from contextlib import contextmanager

from trials.cli import positive
from trials.process import choose_cpus
from trials.proxies import MODEL, Fleet


def add_arguments(parser):
    parser.add_argument(
        "--seconds", type=positive(int), default=5, help="length of each measurement (5)"
    )


@contextmanager
def stub_and_gateway(options):
    """Starts both; yields the fleet with the targets `direct` and `olla`."""
    options.target_cpu, options.load_cpu = choose_cpus()
    options.gateway_driver = os.environ.get("IO_DRIVER", "auto")
    with Fleet(options) as fleet:
        fleet.start_all(["direct", "olla"])
        yield fleet


def label(target):
    return "gateway" if target.name == "olla" else target.name


def cpu_us(target, before, requests):
    """Processor time of the gateway for each request since `before`, as text."""
    if target.process is None:
        return "-"
    return f"{(target.cpu_seconds() - before) * 1e6 / max(requests, 1):.1f}"


def write_body(path, size, stream=False):
    """Writes a chat request of about this size in bytes."""
    head = f'{{"model":"{MODEL}","stream":{str(stream).lower()},"max_tokens":64,'
    head += '"messages":[{"role":"user","content":"'
    tail = '"}]}'
    text = 'Answer with \\"yes\\" or \\"no\\".\\n'
    room = max(0, size - len(head) - len(tail))
    path.write_text(head + text * (room // len(text)) + "." * (room % len(text)) + tail)
