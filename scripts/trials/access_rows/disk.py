"""State stores that cannot be written, are damaged, or are gone.

Contract: docs/contract/access.md#13
"""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time

from trials.access_rows import Keyed, access_config, keyed_gateway, row, run_olla, stored_usage
from trials.access_rows.asks import CHAT, Act, Ask, Usage
from trials.access_rows.origin import World, crowd
from trials.process import NotReady, request, wait_until

DOWN_SECONDS_MAX, UP_SECONDS_MAX = 10, 12
CLIENTS = 4
DISK_BYTES = 8 << 20
# The log stays below it, a state store does not.
FILE_BYTES = 96 << 10
OLD_ROWS = 60_000
UNAVAILABLE = "State store unavailable"
POLICY = {"daily": "tokens_per_day = 1000000000"}


class Stored:
    """A gateway with a store, and what it was asked."""

    def __init__(self, options, world, gateway, store):
        self.options, self.world, self.gateway, self.store = options, world, gateway, store
        # In front of commands that read the store.
        self.wrapper = ()
        self.requests = self.tokens = self.failed = 0
        self.secret = ""

    def begin(self, **start):
        more = access_config({"user": "daily"}, POLICY) + f'[state]\npath = "{self.store}"\n'
        self.gateway.begin(self.gateway.configure(self.world.origins, more), **start)

    def send(self, count):
        left = list(range(count))

        async def step(client, _):
            if not left:
                return False
            left.pop()
            ask = Ask(
                self.world.next_number(), "user", "m", CHAT, [Act("whole", usage=Usage(5, 3))]
            )
            status, _, _ = await client.send(ask)
            self.failed += status != 200
            self.requests += 1
            self.tokens += 8
            return True

        self.world.run(crowd(self.world, self.gateway.port, CLIENTS, step))

    def make_key(self, name):
        status, page = self.gateway.admin("POST", "/internal/keys", {"name": name})
        return status, page.get("key") or page["error"]["code"]

    def wait_stored(self, seconds=5):
        def is_there():
            _, total = stored_usage(self.options, self.store, self.wrapper)
            return total["requests"] == self.requests

        try:
            wait_until("not stored", is_there, seconds, 0.2)
        except NotReady:
            pass
        total = stored_usage(self.options, self.store, self.wrapper)[1]
        return total["requests"], total["prompt_tokens"] + total["completion_tokens"]


def before(stored):
    """Some requests and a key, all of it written."""
    stored.send(20)
    status, stored.secret = stored.make_key("early")
    if status != 201:
        raise NotReady(f"no key was made: {status} {stored.secret}")
    stored.wait_stored()


def while_down(shown, stored, what):
    """What holds while the store cannot be used."""
    gateway = stored.gateway
    stored.send(30)
    deadline = time.monotonic() + DOWN_SECONDS_MAX
    # Each write may be the one that fails.
    while gateway.state("up") == 1 and time.monotonic() < deadline:
        stored.send(5)
        time.sleep(0.2)
    shown.same(f"{what}: olla_state_up", gateway.state("up"), 0.0)
    stored.send(30)
    answer = stored.make_key("late")
    shown.same(f"{what}: making a key", answer, (503, "STATE_UNAVAILABLE"))
    head = {"Authorization": f"Bearer {stored.secret}"}
    status = request(gateway.port, "GET", "/olla/key", headers=head)[0]
    shown.same(f"{what}: a key that was made before", status, 200)
    lines = [line for line in gateway.log_text().splitlines() if UNAVAILABLE in line]
    errors = [line for line in lines if "ERROR" in line]
    shown.add(f"{what}: lines of level ERROR in the first minute", len(errors), 1, least=1)
    pending = int(gateway.state("pending_rows"))
    shown.add(f"{what}: rows that wait in memory", pending, 100_000, least=1)
    # A request that has ended counts within 100 ms.
    time.sleep(0.1)
    used = gateway.own("user")["used"]["tokens_per_day"]
    shown.same(f"{what}: tokens that the quota counts", used, stored.tokens)
    return errors


def when_back(shown, stored, what):
    """What holds when it can be used again."""
    took = stored.gateway.wait_state(1, UP_SECONDS_MAX)
    shown.add(f"{what}: back after", took, UP_SECONDS_MAX, "s")
    shown.same(f"{what}: making a key afterwards", stored.make_key("late")[0], 201)
    stored.send(10)
    seen = stored.wait_stored()
    shown.same(f"{what}: stored afterwards", seen, (stored.requests, stored.tokens))
    shown.add(f"{what}: requests of {stored.requests} that failed", stored.failed, 0)


def own_disk(directory):
    """The command that gives a process a small disk of its own at this place, if that can be."""
    directory.mkdir()
    names = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    mount = f"mount -t tmpfs -o size={DISK_BYTES} none '{directory}'"
    try:
        done = subprocess.run([*names, "sh", "-c", mount], capture_output=True, check=False)
    except OSError:
        return None
    return [*names, "sh", "-c", f'{mount} && exec "$0" "$@"'] if not done.returncode else None


class OnOwnDisk(Keyed):
    """A gateway that is started with a command in front of it."""

    wrapper = ()

    def start(self, config, cpu=None, environment=None, **options):
        self.config.write_text(config)
        own = {key: text for key, text in os.environ.items() if not key.startswith("OLLA_")}
        command = [*self.wrapper, self.binary, "--config", self.config]
        environment = own | (environment or {})
        self.process = self.processes.start(self.name, command, env=environment, **options)


def full(options, shown, world):
    with keyed_gateway(options) as plain:
        gateway = OnOwnDisk(plain.processes, options)
        disk = plain.processes.directory / "disk"
        gateway.wrapper = own_disk(disk)
        if gateway.wrapper is None:
            shown.remark("full disk", "not shown: no mount namespaces here")
            return
        stored = Stored(options, world, gateway, disk / "state.db")
        stored.begin()
        pid = gateway.process.pid
        seen = f"/proc/{pid}/root{disk}"
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        stored.wrapper = ["nsenter", "--target", str(pid), "--mount", *user]
        before(stored)
        with open(f"{seen}/filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass
        while_down(shown, stored, "full disk")
        os.unlink(f"{seen}/filler")
        when_back(shown, stored, "full disk")


def failing(options, shown, world):
    """Writes behind a place in a file fail, and with the error comes a signal."""
    with keyed_gateway(options) as gateway:
        stored = Stored(options, world, gateway, gateway.processes.directory / "state.db")
        stored.begin()
        before(stored)
        pid = gateway.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FILE_BYTES, hard))
        while_down(shown, stored, "failing writes")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        when_back(shown, stored, "failing writes")


def set_immutable(store, sign):
    files = [path for path in store.parent.glob("state.db*") if not path.name.endswith("-shm")]
    command = ["chattr", f"{sign}i", *files]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def read_only(options, shown, world):
    with keyed_gateway(options) as gateway:
        stored = Stored(options, world, gateway, gateway.processes.directory / "state.db")
        stored.begin()
        before(stored)
        if not shutil.which("chattr"):
            shown.remark("read-only file", "not shown: there is no chattr")
            return
        try:
            if not set_immutable(stored.store, "+"):
                shown.remark("read-only file", "not shown: chattr +i is not possible here")
                return
            while_down(shown, stored, "read-only file")
        finally:
            # The directory could not be removed otherwise.
            set_immutable(stored.store, "-")
        when_back(shown, stored, "read-only file")


def gone(options, shown, world):
    for what in ("deleted file", "replaced file"):
        with keyed_gateway(options) as gateway:
            stored = Stored(options, world, gateway, gateway.processes.directory / "state.db")
            stored.begin()
            before(stored)
            aside = stored.store.with_name("aside")
            stored.store.rename(aside)
            if what == "replaced file":
                shutil.copy(aside, stored.store)
            errors = while_down(shown, stored, what)
            is_named = all("state.db" in line for line in errors)
            shown.holds(f"{what}: the line names it", is_named)
            if what == "deleted file":
                shown.holds(f"{what}: no new one was made", not stored.store.exists())
            aside.rename(stored.store)
            when_back(shown, stored, what)


def damage(path):
    """Overwrites all pages but the first."""
    with open(path, "r+b") as file:
        size = os.path.getsize(path)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def damaged(options, shown, world):
    what = "damage while running"
    with keyed_gateway(options) as gateway:
        stored = Stored(options, world, gateway, gateway.processes.directory / "state.db")
        stored.begin()
        before(stored)
        end(gateway)
        with sqlite3.connect(stored.store) as store:
            rows = ((f"2026-01-{n % 28 + 1:02}", f"key{n}") for n in range(OLD_ROWS))
            store.executemany("INSERT INTO usage VALUES (?, ?, 'm', 'e', 1, 0, 1, 0, 1, 0.1)", rows)
        store.close()
        stored.begin()
        stored.send(10)
        damage(stored.store)
        # Whoever reads the old rows finds the damage.
        status, _ = gateway.admin("GET", "/internal/usage?since=2026-01-01&limit=10000")
        shown.remark(f"{what}: status of a report over the damaged rows", str(status))
        stored.requests = stored.tokens = 0
        errors = while_down_damaged(shown, stored, what)
        command = f"olla state check {stored.store}"
        shown.holds(f"{what}: the line names the command", any(command in line for line in errors))
        shown.add(f"{what}: requests that failed", stored.failed, 0)
        end(gateway)
        status, _, said = run_olla(options, "state", "check", stored.store)
        shown.same(f"{what}: status of olla state check", (status, said.count("\n")), (1, 1))
        at_start(options, shown, gateway, stored.store, "damaged pages at start")
        stored.store.write_bytes(b"these are notes and no database" * 400)
        at_start(options, shown, gateway, stored.store, "no database at start")


def while_down_damaged(shown, stored, what):
    """As `while_down`, without what was used: the day was counted by the process before, too."""
    gateway = stored.gateway
    for _ in range(10):
        stored.send(10)
        time.sleep(0.3)
        if gateway.state("up") == 0:
            break
    shown.same(f"{what}: olla_state_up", gateway.state("up"), 0.0)
    stored.send(30)
    answer = stored.make_key("late")
    shown.same(f"{what}: making a key", answer, (503, "STATE_UNAVAILABLE"))
    lines = gateway.log_text().splitlines()
    return [line for line in lines if UNAVAILABLE in line and "ERROR" in line]


def end(gateway):
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.wait(20)


def at_start(options, shown, gateway, store, what):
    """A start with this file is refused, and the file stays as it is."""
    for path in store.parent.glob("state.db-*"):
        path.unlink()
    content = store.read_bytes()
    environment = {**os.environ, **gateway.environment}
    try:
        done = subprocess.run(
            [options.bin, "--config", gateway.config],
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
            env=environment,
        )
        said = done.stdout + done.stderr
        shown.same(f"{what}: exit status", done.returncode, 1)
        is_said = "state.path" in said and str(store) in said
        shown.holds(f"{what}: said with state.path and the file", is_said, said[-300:])
    except subprocess.TimeoutExpired:
        shown.same(f"{what}: exit status", "it runs", 1)
    shown.holds(f"{what}: the file is as it was", store.read_bytes() == content)


@row(place=3, seconds_max=240)
def disk(options, shown):
    with World() as world:
        world.origin("e0", ["m"])
        for case in (full, failing, read_only, gone, damaged):
            try:
                case(options, shown, world)
            except (OSError, NotReady) as error:
                # The other cases have gateways of their own.
                shown.failures.append(f"disk: {case.__name__}: {type(error).__name__}: {error}")
