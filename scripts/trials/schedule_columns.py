"""The columns of `schedule`: each program is configured for a fleet and started in front of it."""

import http.client
import json
import subprocess

from trials.gateway import NO_LIMITS, Gateway, endpoint_config, server_config
from trials.process import NotReady, Processes, request, reserve_ports, wait_until

SETTLE_SECONDS_MAX = 30
OLLA_PATH = "/olla/openai/v1/chat/completions"
PATH = "/v1/chat/completions"
# The people say who they are in X-Forwarded-For.
LIMITS = f"""\
{NO_LIMITS}
trust_proxy_headers = true
trusted_proxy_cidrs = ["127.0.0.0/8"]
"""
STICKY = """\
[proxy.sticky_sessions]
enabled = true
key_sources = ["prefix_hash"]
"""
# Of each column of the gateway: the balancer, and more configuration.
BALANCERS = {
    "least-connections": ("least-connections", ""),
    "sticky": ("least-connections", STICKY),
    "least-time": ("least-time", ""),
}
# Of other programs: the binary below a virtual environment's bin, and its arguments.
OTHERS = {"smg": ("smg", ["launch"]), "vllm-router": ("vllm-router", [])}
NAMES = [*BALANCERS, *OTHERS]


class Fleet(Processes):
    """The engines of a scenario; a context that ends them and what runs in front of them."""

    def __init__(self, settings, scenario, seed):
        super().__init__()
        self.settings, self.scenario = settings, scenario
        self.addresses = self.directory / "engines.json"
        command = [settings.loadtest_bin, "fleet", "--scenario", scenario, "--seed", seed]
        command += ["--addresses", self.addresses]
        self.process, address = self.start_listening("fleet", command, cpu=settings.load_cpu)
        if not address:
            raise NotReady(f"the engines did not start:\n{self.log_tail('fleet')}")
        self.engines = json.loads(self.addresses.read_text())

    def start_column(self, name):
        """Starts the program of a column; returns its process, its port and the path of chats."""
        if name in BALANCERS:
            return self.start_olla(name)
        return self.start_other(name)

    def start_olla(self, name):
        balancer, more = BALANCERS[name]
        gateway = Gateway(self, self.settings.bin)
        sections = [
            server_config(gateway.port, "workers = 1\npin_workers = false\n", LIMITS),
            f'[proxy]\nload_balancer = "{balancer}"\n{more}',
            '[logging]\nlevel = "warn"\n',
        ]
        for engine in self.engines:
            own = 'check_interval = "5s"\n'
            # vLLM does not say how many requests it works on at a time.
            if balancer == "least-time" and engine["kind"] == "vllm":
                own += f"max_concurrent = {engine['slots']}\n"
            url = f"http://{engine['address']}"
            sections.append(endpoint_config(engine["name"], url, engine["kind"], own))
        gateway.start("\n".join(sections), cpu=self.settings.gateway_cpu)
        models = {engine["name"]: len(engine["models"]) for engine in self.engines}
        gateway.wait_settled(models, SETTLE_SECONDS_MAX)
        return gateway.process, gateway.port, OLLA_PATH

    def start_other(self, name):
        binary, arguments = OTHERS[name]
        port, metrics = reserve_ports(2)
        urls = [f"http://{engine['address']}" for engine in self.engines]
        command = [self.settings.venv / "bin" / binary, *arguments, "--host", "127.0.0.1"]
        command += ["--port", port, "--policy", "cache_aware", "--prometheus-port", metrics]
        command += ["--worker-urls", *urls]
        process = self.start(name, command, cpu=self.settings.gateway_cpu)
        model = self.engines[0]["models"][0]
        body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}

        def is_ready():
            if process.poll() is not None:
                raise NotReady(f"{name} ended:\n{self.log_tail(name)}")
            fields = {"Content-Type": "application/json"}
            try:
                return request(port, "POST", PATH, json.dumps(body), fields)[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_until(f"{name} does not serve", is_ready, SETTLE_SECONDS_MAX, 0.2)
        # Each engine is known, not only the first.
        for _ in range(4 * len(urls)):
            is_ready()
        return process, port, PATH


def missing(name, settings, directory):
    """Why a column cannot run here; empty when it can."""
    if name in OTHERS:
        if not settings.venv:
            return "it needs --venv"
        binary = settings.venv / "bin" / OTHERS[name][0]
        return "" if binary.exists() else f"{binary} is missing"
    balancer, more = BALANCERS[name]
    file = directory / "check.toml"
    file.write_text(f'[proxy]\nload_balancer = "{balancer}"\n{more}')
    command = [settings.bin, "check", "--config", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr or done.stdout).strip() if done.returncode else ""


def suits(name, engines):
    """Whether a column can run in front of these engines, as the scenario has them."""
    kinds = {engine["kind"] for engine in engines}
    models = {model for engine in engines for model in engine["models"]}
    return name in BALANCERS or (kinds == {"vllm"} and len(models) == 1)
