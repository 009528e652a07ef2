"""100,000 keys: memory, changes, and the requests beside them.

The keys stand in a file. The requests beside the changes come from a process of their own, one
after the other at a fixed pace, over connections to all cores; what counts is by how much the
slowest of a round with changes exceeds the slowest of the round before, without. The verdict is the
median of several such pairs. Times are those of a release build.

Contract: docs/contract/access.md#4.1, docs/contract/access.md#17
"""

import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from trials.access_rows import hash_of, keyed_gateway, row
from trials.access_rows.origin import World
from trials.process import MemoryWatch, NotReady, request, resident_bytes, wait_until
from trials.report import percentile

FEW = 1_000
# Left for keys that are no keys of the file: 100,000 is the most of all.
OTHERS = 100
USED = 20_000
SETTLE_SECONDS_MAX = 10
BYTES_MAX, PEAK_MB_MAX = 512, 64
CHANGE_MS_MAX, FILE_SECONDS_MAX, PAUSE_MS_MAX = 250, 2, 1
PAIRS, ROUND_SECONDS = 5, 3.0
# Refused keys are asked for until they are in force.
ACCESS = '[access]\nenabled = true\nkeys_file = "keys.toml"\nmax_refused_per_minute = 0\n'
MB = 1 << 20


def secret_of(number, version=0):
    return f"sk-{number:06d}-{version:04d}-0123456789"


class KeysFile:
    def __init__(self, path, count):
        self.path = path
        self.entries = [self.entry(number, 0) for number in range(count)]
        self.version = 0
        self.next = path.with_name("keys.next")
        path.write_text("".join(self.entries))

    @staticmethod
    def entry(number, version):
        return f'[[keys]]\nname = "k{number:06d}"\nhash = "{hash_of(secret_of(number, version))}"\n'

    def prepare(self):
        """Writes a file beside it in which the key in the middle has another secret."""
        self.version += 1
        number = len(self.entries) // 2
        self.entries[number] = self.entry(number, self.version)
        self.next.write_text("".join(self.entries))
        return secret_of(number, self.version)

    def change_one(self):
        """Puts that file into place; returns the new secret."""
        secret = self.prepare()
        self.next.rename(self.path)
        return secret


def status_of(gateway, secret):
    headers = {"Authorization": f"Bearer {secret}"}
    return request(gateway.port, "GET", "/olla/key", headers=headers)[0]


def until_live(gateway, secret, begun, seconds=60, pause=0.004):
    """Seconds from `begun` until a secret is accepted."""
    wait_until("the new key is not live", lambda: status_of(gateway, secret) == 200, seconds, pause)
    return time.monotonic() - begun


def started(options, world, gateway, count):
    """Starts a gateway with so many keys; their file."""
    directory = gateway.processes.directory
    keys = KeysFile(directory / "keys.toml", count)
    store = f'[state]\npath = "{directory / "state.db"}"\n'
    # One core, so that a processor is left for what changes keys.
    gateway.begin(gateway.configure(world.origins, ACCESS + store, workers=1))
    if status_of(gateway, secret_of(count - 1)) != 200:
        raise NotReady("the last key of the file is not live")
    return keys


def settled_bytes(gateway):
    """The resident memory when it has stopped falling."""
    lowest, since = resident_bytes(gateway.process), time.monotonic()
    end = since + SETTLE_SECONDS_MAX
    while time.monotonic() < min(end, since + 2):
        time.sleep(0.1)
        now = resident_bytes(gateway.process)
        if now < lowest:
            lowest, since = now, time.monotonic()
    return lowest


def use(gateway, numbers, batch=50):
    """One request with each of these keys, many at a time on one connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as link:
        for start in range(0, len(numbers), batch):
            some = numbers[start : start + batch]
            heads = [
                f"GET /olla/key HTTP/1.1\r\nHost: h\r\nx-api-key: {secret_of(one)}\r\n\r\n"
                for one in some
            ]
            link.sendall("".join(heads).encode())
            data = b""
            while (count := data.count(b"HTTP/1.1 200")) < len(some) or not data.endswith(b"}"):
                piece = link.recv(1 << 20)
                if not piece or b"HTTP/1.1 4" in piece:
                    raise NotReady(f"a key of the file was refused, after {count} of {len(some)}")
                data += piece


def file_changes(gateway, keys, shown, few):
    """Changes of the file, found by the gateway and at a signal."""
    with MemoryWatch(gateway.process, 0.005) as watch:
        times = []
        for _ in range(3):
            secret = keys.change_one()
            times.append(until_live(gateway, secret, time.monotonic()))
        shown.add("one key of the file: in force after, slowest of 3", max(times), 2, "s")
        times = []
        for _ in range(3):
            # Behind its own look at the file, so that the signal is what it hears of.
            secret = keys.change_one()
            gateway.process.send_signal(signal.SIGHUP)
            times.append(1000 * until_live(gateway, secret, time.monotonic()))
        text = "one key of the file, read at a signal: in force after, median of 3"
        shown.add(text, statistics.median(times), CHANGE_MS_MAX, "ms")
        time.sleep(1)
    peak = (watch.peak - few) / MB
    shown.add("memory for all keys while one snapshot replaces another", peak, PEAK_MB_MAX, "MB")


def admin_changes(gateway, shown):
    """Changes by the admin API, which are in force when the response is there."""
    times, wrong = [], 0
    for number in range(5):
        name = f"made{number}"
        for method, path, body in (
            ("POST", "/internal/keys", {"name": name}),
            ("POST", f"/internal/keys/{name}/rotate", {}),
            ("DELETE", f"/internal/keys/{name}", None),
        ):
            begun = time.monotonic()
            status, page = gateway.admin(method, path, body, timeout=30)
            times.append(1000 * (time.monotonic() - begun))
            if status not in (200, 201, 204):
                raise NotReady(f"{method} {path}: {status} {page}")
            if page:
                live = page["key"]
            wrong += status_of(gateway, live) != (200 if page else 401)
    text = "one key by the admin API: in force after, median of 15"
    shown.add(text, statistics.median(times), CHANGE_MS_MAX, "ms")
    shown.add("one key by the admin API: slowest of 15", max(times), CHANGE_MS_MAX, "ms")
    shown.add("changes of 15 that were not in force with the response", wrong, 0)


def paced(gateway, secret, seconds):
    """Starts the process that sends requests at a pace."""
    program = Path(__file__).with_name("pace.py")
    command = [sys.executable, program, str(gateway.port), secret, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def latencies(process):
    """What it measured, in ms, in order."""
    out, _ = process.communicate(timeout=60)
    times = json.loads(out)
    if not times:
        raise NotReady("the paced requests have no response")
    return sorted(1000 * one for one in times)


def beside_changes(gateway, keys, shown):
    """The slowest of paced requests, without and with changes."""
    secret, excess, rounds = secret_of(0), [], {False: [], True: []}
    for pair in range(PAIRS):
        slowest = {}
        for with_changes in (False, True):
            if with_changes:
                changed = keys.prepare()
            process = paced(gateway, secret, ROUND_SECONDS)
            if with_changes:
                keys.next.rename(keys.path)
                until_live(gateway, changed, time.monotonic(), pause=0.05)
                name = f"paced{pair}"
                gateway.admin("POST", "/internal/keys", {"name": name}, timeout=30)
                gateway.admin("DELETE", f"/internal/keys/{name}", timeout=30)
            times = latencies(process)
            rounds[with_changes] += times
            slowest[with_changes] = times[-1]
        excess.append(slowest[True] - slowest[False])
    for with_changes, what in ((False, "without changes"), (True, "beside changes")):
        times = sorted(rounds[with_changes])
        text = f"{percentile(times, 50):.3f}, {percentile(times, 99.9):.2f}, {times[-1]:.2f} ms"
        count = len(times)
        shown.remark(f"{count} paced requests {what}: median, p99.9, slowest", text)
    text = f"paced requests: the slowest is slower beside changes, median of {PAIRS}"
    shown.add(text, statistics.median(excess), PAUSE_MS_MAX, "ms")


@row(place=6, seconds_max=240)
def scale(options, shown):
    with World() as world:
        world.origin("e0", ["m"])
        with keyed_gateway(options) as gateway:
            started(options, world, gateway, FEW)
            few = settled_bytes(gateway)
        with keyed_gateway(options) as gateway:
            begun = time.monotonic()
            count = options.keys - OTHERS
            keys = started(options, world, gateway, count)
            took = f"{time.monotonic() - begun:.2f} s"
            shown.remark(f"{count} keys: from start to the first request", took)
            all_of_them = settled_bytes(gateway)
            each = (all_of_them - few) / (count - FEW)
            shown.add("resident memory for a key", each, BYTES_MAX, "bytes")
            use(gateway, range(USED))
            used = each + (settled_bytes(gateway) - all_of_them) / USED
            shown.add("resident memory for a key that was used", used, BYTES_MAX, "bytes")
            admin_changes(gateway, shown)
            file_changes(gateway, keys, shown, few)
            beside_changes(gateway, keys, shown)
            later = (settled_bytes(gateway) - few) / (count - FEW)
            shown.remark("resident memory for a key after all changes", f"{later:.0f} bytes")
