"""The rows of `scripts/run access`, and the gateways that they start."""

import contextlib
import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from trials.gateway import NO_LIMITS, Gateway, endpoint_config, server_config
from trials.process import NotReady, Processes, request, wait_until

ROWS = []
START_SECONDS_MAX = 30
ROOT = "sk-root-0123456789abcdef"
ADMIN = {"Authorization": f"Bearer {ROOT}"}
RELOADED = 'olla_config_reloads_total{result="success"}'
# Limits of requests do not take part; a status moves a request on as often as it is asked to.
SETTINGS = """\
[proxy]
load_balancer = "round-robin"
retry.cooldown = "0s"
retry.budget = 100
"""


@dataclass
class Row:
    """One row; `show(options, shown)` adds its lines."""

    name: str
    place: int
    seconds_max: int
    show: Callable


def row(place, seconds_max):
    """Marks a function `f(options, shown)` as a row."""

    def add(show):
        ROWS.append(Row(show.__name__, place, seconds_max, show))
        return show

    return add


def short(figure):
    return str(figure) if isinstance(figure, int) else f"{figure:.4g}"


class Shown:
    """The lines of the table, and what was not as it should be."""

    def __init__(self):
        self.lines, self.failures, self.row = [], [], ""

    def add(self, what, figure, bound, unit="", least=None):
        """A figure that must be at most `bound`, and at least `least` where that is given."""
        is_fine = figure <= bound and (least is None or figure >= least)
        said = short(bound)
        if least not in (None, bound):
            said = f"{short(least)} to {said}"
        self.put(what, f"{short(figure)} {unit}", f"{said} {unit}", is_fine)

    def same(self, what, figure, bound):
        """A figure that must be exactly this one."""
        self.put(what, f"{figure}", f"{bound}", figure == bound)

    def holds(self, what, is_so, otherwise=""):
        self.put(what, "yes" if is_so else f"no {otherwise}", "yes", is_so)

    def remark(self, what, text):
        """Something that is shown without a bound."""
        self.put(what, text, "", True)

    def put(self, what, figure, bound, is_fine):
        figure, bound = figure.strip(), bound.strip()
        # What has no figure is to the left, like the first column.
        self.lines.append({"row": f"{self.row:<9}  {what}", "figure": figure, "bound": bound})
        if not is_fine:
            self.failures.append(f"{self.row}: {what}: {figure}, expected {bound}")


def secret_of(name):
    return f"sk-{name}-0123456789abcdef"


def bearer(name):
    return {"Authorization": f"Bearer {secret_of(name)}"}


def hash_of(secret):
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def key_config(name, policy="default", more="", table="access.keys"):
    return (
        f'[[{table}]]\nname = "{name}"\nhash = "{hash_of(secret_of(name))}"\n'
        f'policy = "{policy}"\n{more}\n'
    )


def access_config(keys, policies, more=""):
    """The section `access`: `keys` has policies by name of a key, `policies` fields by name."""
    parts = ["[access]\nenabled = true\n", more]
    parts += [f"[access.policies.{name}]\n{fields}\n" for name, fields in policies.items()]
    parts += [key_config(name, policy) for name, policy in keys.items()]
    return "".join(parts)


def replace(path, text):
    """Writes a temporary file and renames it, so that readers never see half of it."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


class Keyed(Gateway):
    """A gateway whose pages require the key in OLLA_ADMIN_KEY."""

    def __init__(self, processes, options, **more):
        super().__init__(processes, options.bin, **more)
        self.headers = ADMIN
        self.environment = {"OLLA_ADMIN_KEY": ROOT}
        if options.driver:
            self.environment["OLLA_SERVER_IO_DRIVER"] = options.driver
        self.hosts = []

    def configure(self, hosts, more="", workers=2, level="warn"):
        """The text of a configuration with these endpoints."""
        self.hosts = hosts
        server = f'workers = {workers}\npin_workers = false\nshutdown_timeout = "2s"\n'
        logging = f"request_logging = {str(level != 'warn').lower()}\n"
        return "\n".join(
            [
                server_config(self.port, server + logging, NO_LIMITS),
                f'[logging]\nlevel = "{level}"\n',
                SETTINGS,
                more,
                *(endpoint_config(one.name, one.url, one.kind, one.more) for one in hosts),
            ]
        )

    def begin(self, config, **start):
        """Starts it, and waits until its endpoints are there."""
        self.start(config, environment=self.environment | start.pop("environment", {}), **start)
        self.wait_settled(dict.fromkeys(one.name for one in self.hosts), START_SECONDS_MAX)

    def reload(self, config):
        """Replaces the configuration and has it read."""
        replace(self.config, config)
        self.process.send_signal(signal.SIGHUP)

    def admin(self, method, path, body=None, timeout=10):
        """Status and JSON document of an admin route."""
        headers = ADMIN | ({} if body is None else {"Content-Type": "application/json"})
        text = None if body is None else json.dumps(body)
        status, _, data = request(self.port, method, path, text, headers, timeout)
        return status, json.loads(data) if data else None

    def own(self, name, secret=None):
        """What `/olla/key` says to a key."""
        headers = {"Authorization": f"Bearer {secret or secret_of(name)}"}
        status, _, body = request(self.port, "GET", "/olla/key", headers=headers)
        if status != 200:
            raise NotReady(f"GET /olla/key of {name}: status {status}, {body.decode()}")
        return json.loads(body)

    def usage(self, query="", group="key,model,endpoint"):
        """All rows of `/internal/usage`, and its total."""
        rows, after = [], ""
        while True:
            path = f"/internal/usage?limit=10000&group={group}{query}{after}"
            status, page = self.admin("GET", path)
            if status != 200:
                raise NotReady(f"GET {path}: status {status}, {page}")
            rows += page["rows"]
            if page["next"] is None:
                return rows, page["total"]
            after = f"&after={page['next']}"

    def state(self, name):
        """A sample `olla_state_NAME`."""
        return self.metrics().get(f"olla_state_{name}")

    def wait_state(self, value, seconds):
        """Waits until `olla_state_up` has this value; how long it took, in seconds."""
        begun = time.monotonic()
        what = f"olla_state_up is not {value}"
        wait_until(what, lambda: self.state("up") == value, seconds, 0.1)
        return time.monotonic() - begun


def run_olla(options, *arguments, wrapper=()):
    """Runs a command of the program, which may be wrapped into another: exit status, standard
    output and standard error."""
    done = subprocess.run(
        [*wrapper, options.bin, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"OLLA_ADMIN_KEY": ROOT},
    )
    return done.returncode, done.stdout, done.stderr


def stored_usage(options, store, wrapper=()):
    """The rows of a store, and their total."""
    command = ["usage", "--store", store, "--group", "key,model,endpoint", "--json"]
    status, out, err = run_olla(options, *command, wrapper=wrapper)
    if status:
        raise NotReady(f"olla usage --store: status {status}, {err}")
    page = json.loads(out)
    return page["rows"], page["total"]


@contextlib.contextmanager
def keyed_gateway(options, **more):
    """A gateway that has not been started, with a directory of its own."""
    with Processes() as processes:
        yield Keyed(processes, options, **more)
