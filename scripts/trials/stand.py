"""A test stand: stub backends, the gateway in front of them, and the load tools."""

import http.client
import json
import subprocess
import sys

from trials.gateway import NO_LIMITS, Gateway, endpoint_config, server_config
from trials.process import (
    START_SECONDS_MAX,
    Processes,
    choose_cpus,
    request,
    reserve_ports,
    wait_until,
)

MODEL = "stub-model"


class Stub:
    """One stub backend on a port of its own, which it keeps when it is started again."""

    def __init__(self, stand, name, port):
        self.stand, self.name, self.port = stand, name, port
        self.record = stand.directory / f"{name}.record"
        self.record.touch()
        self.process = None
        self.control = None

    def start(self):
        self.control = None
        options = ["--listen", f"127.0.0.1:{self.port}", "--model", MODEL]
        if self.stand.with_records:
            options += ["--record", self.record]
        command = [self.stand.loadtest, "stub", *options, *self.stand.stub_options]

        # A stub that is started again may find its port still in use for a moment.
        def is_listening():
            self.process, address = self.stand.start_listening(
                self.name, command, cpu=self.stand.load_cpu
            )
            return address

        wait_until(f"stub {self.name} does not listen", is_listening)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def set_fault(self, **fields):
        # A stub that drops packets hears the end of that only on a connection from before.
        if self.control is None:
            self.control = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        self.control.request("POST", "/stub/fault", json.dumps(fields))
        response = self.control.getresponse()
        response.read()
        assert response.status == 200, response.status

    def counters(self):
        return json.loads(request(self.port, "GET", "/stub/counters")[2])


class Stand(Processes):
    """The stubs and the gateway; a context manager that stops what it started."""

    def __init__(self, options, count, *, workers=1, records=False, stub_options=(), pin=False):
        super().__init__()
        self.loadtest = options.loadtest_bin
        self.workers, self.with_records = workers, records
        self.stub_options = stub_options
        self.gateway_cpu, self.load_cpu = choose_cpus() if pin else (None, None)
        port, *ports = reserve_ports(count + 1)
        self.gateway = Gateway(self, options.bin, port=port)
        self.stubs = [Stub(self, f"b{number}", port) for number, port in enumerate(ports)]

    @property
    def url(self):
        return f"{self.gateway.url}/olla/proxy"

    def config(
        self,
        *,
        stubs=None,
        server="",
        limits=NO_LIMITS,
        proxy="",
        level="warn",
        balancer="least-connections",
        interval="1s",
        patience=500,
        more="",
        own=lambda name: "",
    ):
        """A configuration, with all stubs as endpoints by default. `own` gives further keys of an
        endpoint, `more` further sections."""
        own_server = f"workers = {self.workers}\npin_workers = false\nrequest_logging = false\n"
        checks = f'check_interval = "{interval}"\ncheck_timeout = "{patience}ms"\n'
        sections = [
            server_config(self.gateway.port, own_server + server, limits),
            f'[proxy]\nload_balancer = "{balancer}"\n{proxy}',
            f'[logging]\nlevel = "{level}"\n',
            more,
        ]
        sections += [
            endpoint_config(
                stub.name, f"http://127.0.0.1:{stub.port}", more=checks + own(stub.name)
            )
            for stub in (self.stubs if stubs is None else stubs)
        ]
        return "\n".join(sections)

    def start_all(self, **settings):
        """Starts the stubs, and the gateway with `config(**settings)`."""
        for stub in self.stubs:
            stub.start()
        self.gateway.start(self.config(**settings), cpu=self.gateway_cpu)
        names = dict.fromkeys(stub.name for stub in self.stubs)
        self.gateway.wait_settled(names, START_SECONDS_MAX)

    def tool(self, name, *arguments, idle=False):
        """Starts a load tool. An idle one (SCHED_IDLE) runs only on idle processors."""
        command = [self.loadtest, name, *arguments]
        if idle:
            command = ["chrt", "--idle", "0", *command]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": sys.stderr}
        return self.start(name, command, cpu=self.load_cpu, **quiet)
