"""The programs that `compare` measures: how each is configured, started and observed.

All run under the same conditions: one worker, one processor, kept-alive connections to the stub,
bodies up to 2 MB in memory, events passed on at once, no access log. Nothing here measures.
"""

import hashlib
import os
import subprocess

from trials.gateway import LIMITS_OUT_OF_REACH, endpoint_config, server_config
from trials.host import Failed, executable
from trials.process import (
    NotReady,
    Processes,
    cpu_seconds,
    reserve_port,
    resident_bytes,
    wait_until,
)

CHAT_PATH = "/v1/chat/completions"
MODEL = "bench"

# client_body_buffer_size: without it, nginx writes bodies over 16 KB to a file.
NGINX = """\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_max_body_size 100m;
    client_body_buffer_size 2m;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    upstream stub {{
        server {stub};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://stub;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
"""

# http-reuse always: any idle connection to the stub may carry any client's request, as in the other
# proxies. http-no-delay: without it, HAProxy may hold events back to merge them.
HAPROXY = """\
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option http-no-delay
    http-reuse always
frontend gateway
    bind 127.0.0.1:{port}
    default_backend stub
backend stub
    server stub {stub} maxconn 8192
"""

# Everything else has its default.
OLLA = """\
workers = 1
pin_workers = false
io_driver = "{driver}"
"""

# The key that all requests bring; only targets with access on look at it.
SECRET = "sk-compare-0123456789abcdef"
KEYED = {"olla-key": 1, "olla-keys": 100_000}
# Every limit that a policy can set, of each key and of all keys together, all out of reach.
ACCESS = """
[access]
enabled = true
keys_file = "{keys}"
[access.policies.limited]
models = ["*bench*"]
endpoints = ["st*"]
requests_per_minute = 1000000000
tokens_per_minute = 1000000000000
tokens_per_day = 1000000000000
tokens_per_month = 1000000000000
concurrent = 100000
max_prompt_tokens = 1000000000
max_output_tokens = 100000
[access.policies.limited.together]
requests_per_minute = 1000000000
tokens_per_minute = 1000000000000
tokens_per_day = 1000000000000
tokens_per_month = 1000000000000
concurrent = 100000
"""

# What scheduling costs: the default is least-time.
COUNTING = "olla-least-connections"
NAMES = ["direct", "relay", "relay-epoll", "nginx", "haproxy", "olla", "olla-epoll", *KEYED]
NAMES += [COUNTING, "olla-before"]
DEFAULT_NAMES = ["direct", "relay", "nginx", "haproxy", "olla"]


class Target:
    """A running program, or for `direct` none; chat requests go to `url`."""

    def __init__(self, name, url, process=None):
        self.name = name
        self.url = url
        self.process = process

    def cpu_seconds(self):
        return cpu_seconds(self.process) if self.process else 0.0

    def resident_bytes(self):
        return resident_bytes(self.process) if self.process else 0


class Fleet(Processes):
    """The stub and the targets in front of it; a context manager that stops them.

    `settings` has the binaries, the processors and the driver, as `compare` and `bench` set them.
    """

    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.targets = []

    def start_all(self, names):
        command = [self.settings.loadtest_bin, "stub", "--model", MODEL]
        self.stub = self.start_tool("stub", command, self.settings.load_cpu)[1]
        for name in names:
            self.targets.append(self.start_target(name))

    def start_target(self, name):
        if name == "direct":
            return Target(name, f"http://{self.stub}{CHAT_PATH}")
        base, _, variant = name.partition("-")
        if base == "relay":
            command = [self.settings.loadtest_bin, "relay", "--to", self.stub]
            command += ["--driver", variant or "auto"]
            process, address = self.start_tool(name, command, self.settings.target_cpu)
            return Target(name, f"http://{address}{CHAT_PATH}", process)
        port = reserve_port()
        values = {"stub": self.stub, "port": port, "dir": self.directory}
        if base == "nginx":
            values["user"] = "user root;" if os.geteuid() == 0 else ""
            config = self.write(name, NGINX.format(**values))
            command = [executable("nginx", "nginx"), "-p", self.directory, "-c", config]
        elif base == "haproxy":
            config = self.write(name, HAPROXY.format(**values))
            command = [executable("haproxy", "haproxy"), "-db", "-q", "-f", config]
        else:
            driver = "epoll" if variant == "epoll" else self.settings.gateway_driver
            server = server_config(port, OLLA.format(driver=driver), LIMITS_OUT_OF_REACH)
            text = server + endpoint_config("stub", f"http://{self.stub}")
            if name == COUNTING:
                text += '\n[proxy]\nload_balancer = "least-connections"\n'
            if name in KEYED:
                keys = self.write(f"{name}-keys", keys_file(KEYED[name]))
                text += ACCESS.format(keys=keys)
            config = self.write(name, text)
            command = [gateway_binary(name, self.settings), "--config", config]
        # Log lines on standard output are made and discarded: they are part of the cost.
        quiet = {"stdout": subprocess.DEVNULL}
        process = self.start(name, command, cpu=self.settings.target_cpu, **quiet)
        path = "/olla/openai" + CHAT_PATH if base == "olla" else CHAT_PATH
        target = Target(name, f"http://127.0.0.1:{port}{path}", process)
        self.wait_ready(target)
        return target

    def wait_ready(self, target):
        """Waits until a first request gets status 200."""
        probe = [self.settings.loadtest_bin, "chat", "--url", target.url, "--model", MODEL]
        probe += ["--connections", "1", "--requests", "1", "--nonce", *with_key()]

        def is_ready():
            if target.process.poll() is not None:
                raise NotReady(f"{target.name} ended: {self.last_lines(target.name)}")
            return subprocess.run(probe, capture_output=True, check=False).returncode == 0

        try:
            wait_until(f"{target.name} does not respond", is_ready, 15, 0.05)
        except NotReady as error:
            raise NotReady(f"{error}: {self.last_lines(target.name)}") from error

    def start_tool(self, name, command, cpu):
        process, address = self.start_listening(name, command, cpu=cpu)
        if not address:
            raise NotReady(f"{name} does not listen: {self.last_lines(name)}")
        return process, address

    def write(self, name, text):
        path = self.directory / f"{name}.conf"
        path.write_text(text)
        return path

    def last_lines(self, name):
        return " / ".join(self.log_tail(name).strip().splitlines()[-3:]) or "no message"


def with_key():
    """Arguments of the load client that send the key."""
    return ["--header", f"Authorization: Bearer {SECRET}"]


def keys_file(count):
    """So many keys, the last of which is that of requests."""
    secrets = [f"sk-other-{number:06d}-0123456789" for number in range(count - 1)] + [SECRET]
    hashes = (hashlib.sha256(secret.encode()).hexdigest() for secret in secrets)
    return "".join(
        f'[[keys]]\nname = "k{number:06d}"\nhash = "sha256:{each}"\npolicy = "limited"\n'
        for number, each in enumerate(hashes)
    )


def gateway_binary(name, settings):
    """The gateway's program for this target."""
    return settings.before if name == "olla-before" else settings.bin


def check_available(name, settings):
    """Raises Failed when the target's program is missing."""
    base = name.partition("-")[0]
    if base in ("nginx", "haproxy"):
        executable(base, base)
    if base == "olla" and not os.access(gateway_binary(name, settings), os.X_OK):
        raise Failed(f"{gateway_binary(name, settings)} is missing (cargo build --release)")
