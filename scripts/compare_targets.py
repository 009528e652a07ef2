"""The programs that compare.py puts side by side: how each is configured, started and watched.

Every one gets the same chance: one worker, one processor, kept-alive connections to the stub,
bodies up to 2 MB in memory, events passed on at once, no access log. Nothing here measures.
"""

import os
import shutil
import signal
import subprocess
import time

from ports import reserve_port

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
CHAT_PATH = "/v1/chat/completions"

# client_body_buffer_size: without it nginx writes bodies over 16 KB to a file.
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
# proxies. http-no-delay: without it HAProxy may hold events back to merge them.
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

# The limits are out of reach but not off: the limiter is part of what is measured. Everything else
# is as it comes.
OLLA = """\
[server]
host = "127.0.0.1"
port = {port}
workers = 1
pin_workers = false
io_driver = "{driver}"

[server.rate_limits]
global_requests_per_minute = 1000000000
per_ip_requests_per_minute = 1000000000
burst_size = 100000000

[[discovery.static.endpoints]]
url = "http://{stub}"
name = "stub"
type = "openai-compatible"
"""

NAMES = ["direct", "relay", "relay-epoll", "nginx", "haproxy", "olla", "olla-epoll", "olla-before"]
DEFAULT_NAMES = ["direct", "relay", "nginx", "haproxy", "olla"]


class Unavailable(Exception):
    """A target cannot be started; the text says why."""


class Target:
    """A running program, or for `direct` none; `url` is where chat requests go."""

    def __init__(self, name, url, process=None):
        self.name = name
        self.url = url
        self.process = process

    def cpu_seconds(self):
        """Processor time so far of all threads of all processes (a worker is a child)."""
        ticks = 0
        for pid in self._pids():
            fields = _stat(pid)
            if fields:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / CLOCK_TICKS

    def resident_bytes(self):
        """VmRSS of the largest process. A sum would count twice what master and worker share."""
        return max((_vm_rss(pid) for pid in self._pids()), default=0)

    def stop(self):
        """Ends the processes; the children of one that had to be killed too."""
        if self.process is None:
            return
        pids = self._pids()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait(5)

    def _pids(self):
        if self.process is None:
            return []
        pids = [self.process.pid]
        for pid in pids:
            try:
                with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                    pids += [int(child) for child in file.read().split()]
            except OSError:
                pass
        return pids


class Fleet:
    """The stub and the targets in front of it, all started anew for each round."""

    def __init__(self, names, settings, directory):
        self.targets = []
        self.stub = None
        self._settings = settings
        self._dir = directory
        try:
            stub = [settings.loadtest_bin, "stub", "--model", "bench"]
            self.stub, self._stub_addr = self._start_listening("stub", stub, settings.load_cpu)
            for name in names:
                self.targets.append(self._start(name))
        except BaseException:
            self.stop()
            raise

    def stop(self):
        """Ends everything."""
        for target in self.targets:
            target.stop()
        if self.stub:
            self.stub.kill()
            self.stub.wait()

    def _start(self, name):
        if name == "direct":
            return Target(name, f"http://{self._stub_addr}{CHAT_PATH}")
        base, _, variant = name.partition("-")
        if base == "relay":
            driver = variant or "auto"
            command = [self._settings.loadtest_bin, "relay", "--to", self._stub_addr]
            command += ["--driver", driver]
            process, addr = self._start_listening(name, command, self._settings.target_cpu)
            return Target(name, f"http://{addr}{CHAT_PATH}", process)
        port = reserve_port()
        values = {"stub": self._stub_addr, "port": port, "dir": self._dir}
        if base == "nginx":
            values["user"] = "user root;" if os.geteuid() == 0 else ""
            config = self._write(name, "conf", NGINX.format(**values))
            command = [executable("nginx"), "-p", self._dir, "-c", config]
        elif base == "haproxy":
            config = self._write(name, "cfg", HAPROXY.format(**values))
            command = [executable("haproxy"), "-db", "-q", "-f", config]
        else:
            values["driver"] = "epoll" if variant == "epoll" else self._settings.gateway_driver
            config = self._write(name, "toml", OLLA.format(**values))
            command = [gateway_binary(name, self._settings), "--config", config]
        process = self._spawn(name, command, self._settings.target_cpu)
        path = "/olla/openai" + CHAT_PATH if base == "olla" else CHAT_PATH
        target = Target(name, f"http://127.0.0.1:{port}{path}", process)
        try:
            self._wait_ready(target)
        except BaseException:
            target.stop()
            raise
        return target

    def _wait_ready(self, target):
        """Until a first request is answered with 200."""
        probe = [self._settings.loadtest_bin, "chat", "--url", target.url, "--model", "bench"]
        probe += ["--connections", "1", "--requests", "1", "--nonce"]
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and target.process.poll() is None:
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise Unavailable(f"{target.name} does not answer: {self._last_words(target.name)}")

    def _start_listening(self, name, command, cpu):
        """Starts one of our tools, which tells its address in its first line."""
        process = self._spawn(name, command, cpu, stdout=subprocess.PIPE)
        line = process.stdout.readline().decode().strip()
        if not line.startswith("listening on "):
            process.kill()
            process.wait()
            raise Unavailable(f"{name} does not listen: {self._last_words(name)}")
        return process, line.removeprefix("listening on ")

    def _spawn(self, name, command, cpu, stdout=subprocess.DEVNULL):
        """Log lines on standard output are made and thrown away: they are part of the cost."""
        if cpu is not None:
            command = ["taskset", "-c", str(cpu), *command]
        with open(self._log(name), "wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log, cwd=self._dir
            )

    def _write(self, name, ending, text):
        path = os.path.join(self._dir, f"{name}.{ending}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _log(self, name):
        return os.path.join(self._dir, f"{name}.err")

    def _last_words(self, name):
        with open(self._log(name), encoding="utf-8", errors="replace") as log:
            return " / ".join(log.read().strip().splitlines()[-3:]) or "no message"


def executable(name):
    """The path of an installed program."""
    path = shutil.which(name)
    if not path:
        raise Unavailable(f"{name} is not installed (Debian: sudo apt-get install {name})")
    return path


def gateway_binary(name, settings):
    """The gateway's program for this target."""
    return settings.before if name == "olla-before" else settings.bin


def check_available(name, settings):
    """Raises Unavailable when the target's program is missing."""
    base = name.partition("-")[0]
    if base in ("nginx", "haproxy"):
        executable(base)
    if base == "olla" and not os.access(gateway_binary(name, settings), os.X_OK):
        raise Unavailable(f"{gateway_binary(name, settings)} is missing (cargo build --release)")


def _stat(pid):
    """The fields of /proc/PID/stat from the third on (proc(5)); the second may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def _vm_rss(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
