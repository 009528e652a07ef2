"""The programs that `compare` measures: how each is configured, started and observed.

All run under the same conditions: one worker, one processor, kept-alive connections to the stub,
bodies up to 2 MB in memory, events passed on at once, no access log except that of `olla`, which
is on by default. A setup can ask for more workers, which then run on all processors, and for TLS:
version 1.3 with one certificate. Nothing here measures.
"""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from trials.certificates import make_certificate
from trials.gateway import LIMITS_OUT_OF_REACH, endpoint_config, server_config
from trials.host import Failed, executable
from trials.process import (
    NotReady,
    Processes,
    cpu_seconds,
    raise_descriptor_limit,
    reserve_port,
    tree,
    wait_until,
)

CHAT_PATH = "/v1/chat/completions"
MODEL = "bench"

# client_body_buffer_size: without it, nginx writes bodies over 16 KB to a file.
NGINX = """\
{user}
daemon off;
worker_processes {workers};
worker_rlimit_nofile {files};
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log warn;
events {{ worker_connections {files}; }}
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
        listen 127.0.0.1:{port}{tls};
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
# proxies. http-no-delay: without it, HAProxy may hold events back to merge them. It counts two
# descriptors for each connection of a client.
HAPROXY = """\
global
    nbthread {workers}
    maxconn {clients}
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option http-no-delay
    http-reuse always
frontend gateway
    bind 127.0.0.1:{port}{tls}
    default_backend stub
backend stub
    server stub {stub} maxconn {clients}
"""

# Everything else has its default.
OLLA = """\
workers = {workers}
pin_workers = false
io_driver = "{driver}"
{tls}"""

# What each adds to listen with TLS. None is told to issue no tickets: each does what it does by
# default, and the load client uses none.
NGINX_TLS = """ ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3"""
HAPROXY_TLS = " ssl crt {both} ssl-min-ver TLSv1.3"
OLLA_TLS = """
[server.tls]
cert_file = "{certificate}"
key_file = "{key}"
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
# What the log costs: nginx and HAProxy write none.
QUIET = "olla-quiet"
NAMES = ["direct", "relay", "relay-epoll", "nginx", "haproxy", "olla", QUIET, "olla-epoll", *KEYED]
NAMES += [COUNTING, "olla-before"]
DEFAULT_NAMES = ["direct", "relay", "nginx", "haproxy", "olla", QUIET, "olla-epoll"]

# Descriptors that are for none of the connections: files, listeners, rings.
OTHER_FILES = 500


@dataclass(frozen=True)
class Setup:
    """What the targets of a fleet have in common."""

    tls: bool = False
    workers: int = 1


def clients_max():
    """The number of clients for which a proxy has descriptors, each with an upstream connection."""
    files = raise_descriptor_limit()
    return (files - OTHER_FILES) // 2 if files > 0 else 1_000_000


class Target:
    """A running program, or for `direct` none; chat requests go to `url`."""

    def __init__(self, name, url, process=None):
        self.name = name
        self.url = url
        self.process = process

    def cpu_seconds(self):
        return cpu_seconds(self.process) if self.process else 0.0

    def driver(self):
        """What the program waits for sockets with; empty for none."""
        if not self.process:
            return ""
        links = set()
        for pid in tree(self.process):
            for file in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    links.add(os.readlink(file))
                except OSError:
                    pass
        return "io_uring" if "anon_inode:[io_uring]" in links else "epoll"


class Fleet(Processes):
    """The stub and the targets in front of it; a context manager that stops them.

    `settings` has the binaries, the processors and the driver, as `compare` and `bench` set them.
    """

    def __init__(self, settings, setup=Setup()):
        super().__init__()
        self.settings = settings
        self.setup = setup
        # Several workers need several processors.
        self.target_cpu = settings.target_cpu if setup.workers == 1 else None
        self.files = {}
        self.targets = []

    def start_all(self, names):
        if self.setup.tls:
            certificate, key = make_certificate(self.directory, "server")
            both = self.directory / "both.pem"
            both.write_text(certificate.read_text() + key.read_text())
            self.files = {"certificate": certificate, "key": key, "both": both}
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
            process, address = self.start_tool(name, command, self.target_cpu)
            return Target(name, f"http://{address}{CHAT_PATH}", process)
        port = reserve_port()
        command = self.command(name, port)
        # Log lines on standard output are made and discarded: they are part of the cost.
        quiet = {"stdout": subprocess.DEVNULL}
        process = self.start(name, command, cpu=self.target_cpu, **quiet)
        scheme = "https" if self.setup.tls else "http"
        path = "/olla/openai" + CHAT_PATH if base == "olla" else CHAT_PATH
        target = Target(name, f"{scheme}://127.0.0.1:{port}{path}", process)
        self.wait_ready(target)
        return target

    def command(self, name, port):
        """Writes the configuration of a target and returns its command."""
        base = name.partition("-")[0]
        clients = clients_max()
        values = {"stub": self.stub, "port": port, "dir": self.directory, "clients": clients}
        values |= {"files": 2 * clients, "workers": self.setup.workers}
        tls = {"nginx": NGINX_TLS, "haproxy": HAPROXY_TLS, "olla": OLLA_TLS}[base]
        values["tls"] = tls.format(**self.files) if self.setup.tls else ""
        if base == "nginx":
            values["user"] = "user root;" if os.geteuid() == 0 else ""
            config = self.write(name, NGINX.format(**values))
            return [executable("nginx", "nginx"), "-p", self.directory, "-c", config]
        if base == "haproxy":
            config = self.write(name, HAPROXY.format(**values))
            return [executable("haproxy", "haproxy"), "-db", "-q", "-f", config]
        values["driver"] = "epoll" if name == "olla-epoll" else self.settings.gateway_driver
        server = OLLA.format(**values)
        if name == QUIET:
            server = "request_logging = false\n" + server
        text = server_config(port, server, LIMITS_OUT_OF_REACH)
        text += endpoint_config("stub", f"http://{self.stub}")
        if name == COUNTING:
            text += '\n[proxy]\nload_balancer = "least-connections"\n'
        if name in KEYED:
            keys = self.write(f"{name}-keys", keys_file(KEYED[name]))
            text += ACCESS.format(keys=keys)
        config = self.write(name, text)
        return [gateway_binary(name, self.settings), "--config", config]

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
