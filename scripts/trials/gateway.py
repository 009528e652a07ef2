"""The gateway as a process: its configuration, its start, and what can be seen of it."""

import http.client
import json
import os
import re

from trials.process import NotReady, request, reserve_port, resident_bytes, wait_until

NO_LIMITS = """\
global_requests_per_minute = 0
per_ip_requests_per_minute = 0
health_requests_per_minute = 0
pages_per_second = 0
"""
# Never reached, but not off: the limiter is part of what is measured.
LIMITS_OUT_OF_REACH = """\
global_requests_per_minute = 1000000000
per_ip_requests_per_minute = 1000000000
pages_per_second = 1000000
burst_size = 100000000
"""


def server_config(port, more="", limits=NO_LIMITS):
    """The server section of a configuration; `more` may end with tables below it."""
    return f"""\
[server]
host = "127.0.0.1"
port = {port}
{more}
[server.rate_limits]
{limits}
"""


def endpoint_config(name, url, kind="openai-compatible", more=""):
    """An endpoint of a configuration, with further keys in `more`."""
    return f"""
[[discovery.static.endpoints]]
name = "{name}"
url = "{url}"
type = "{kind}"
{more}
"""


class Gateway:
    """The gateway's process and its address."""

    def __init__(self, processes, binary, name="olla", port=None):
        self.processes, self.binary, self.name = processes, binary, name
        self.port = port or reserve_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = processes.directory / f"{name}.toml"
        self.process = None
        # Of requests for its pages, such as an admin key.
        self.headers = {}

    def start(self, config, cpu=None, environment=None, **options):
        """Starts the gateway with this text as its configuration file."""
        self.config.write_text(config)
        command = [self.binary, "--config", self.config]
        # Variables of that form would change the configuration.
        own = {key: text for key, text in os.environ.items() if not key.startswith("OLLA_")}
        environment = own | (environment or {})
        self.process = self.processes.start(self.name, command, cpu=cpu, env=environment, **options)

    def wait_settled(self, models, seconds):
        """Waits until every endpoint is healthy; `models` has their names and, if it matters, how
        many models each lists. Returns what was seen."""
        seen = {}

        def is_settled():
            if not self.is_alive():
                status = self.process.returncode
                raise NotReady(f"the gateway ended with status {status}:\n{self.log_tail()}")
            seen.update(self.endpoints())
            return all(
                seen.get(name, ("", 0))[0] == "healthy" and count in (None, seen[name][1])
                for name, count in models.items()
            )

        try:
            wait_until("the endpoints are not settled", is_settled, seconds)
        except NotReady as error:
            raise NotReady(f"{error}: {seen}") from error
        return seen

    def page(self, path):
        """Status, headers and body of a page."""
        return request(self.port, "GET", path, headers=self.headers)

    def endpoints(self):
        """Status and number of models of each endpoint, by name; empty without a response."""
        try:
            page = json.loads(self.page("/internal/status/endpoints")[2])
            return {one["name"]: (one["status"], one["model_count"]) for one in page["endpoints"]}
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return {}

    def metrics(self):
        """The samples of the metrics page by name and labels."""
        text = self.page("/internal/metrics")[2].decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def metric(self, name):
        """The first sample with this name, whatever its labels; 0 without one."""
        page = self.metrics()
        return next((page[key] for key in page if re.sub(r"\{.*", "", key) == name), 0)

    def is_alive(self):
        return self.process.poll() is None

    def check_alive(self, failures):
        if not self.is_alive():
            failures.append(f"the gateway ended:\n{self.log_tail()}")

    def log_text(self):
        return self.processes.log(self.name).read_text(errors="replace")

    def log_tail(self):
        return self.processes.log_tail(self.name)

    def rss_kb(self):
        return resident_bytes(self.process) >> 10

    def sockets(self):
        """The gateway's sockets by inode. A list of all the machine's sockets takes far longer."""
        directory = f"/proc/{self.process.pid}/fd"
        links = set()
        for number in os.listdir(directory):
            try:
                links.add(os.readlink(f"{directory}/{number}"))
            except OSError:
                pass
        return {link for link in links if link.startswith("socket:")}
