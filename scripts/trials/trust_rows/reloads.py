"""Reloads that change what is trusted."""

import signal
import ssl
import subprocess
import tempfile
from pathlib import Path

from trials.process import NotReady, request, wait_until
from trials.trust_rows import CHAT, Backend, chat_with, gateway_over, named, need, row

REQUESTS = 10


def make_certificate(directory, name):
    """Makes a self-signed certificate for 127.0.0.1; returns its file and that of its key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    try:
        subprocess.run(
            [*command, "-out", certificate, "-keyout", key], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotReady(f"openssl made no certificate: {error}") from error
    return certificate, key


@row(
    18,
    "10 requests after a reload that trusts another certificate: sent on kept connections",
    before="10",
    bound=0,
    unit="",
)
def kept_after_reload(options):
    with tempfile.TemporaryDirectory(prefix="olla-trial-") as directory:
        trusted, key = make_certificate(Path(directory), "trusted")
        other, _ = make_certificate(Path(directory), "other")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(trusted, key)
        backend = Backend(named(["m"]), tls=tls)
        backend.more = f'tls.ca_file = "{trusted}"\n'
        with gateway_over(options, backend, workers=1) as gateway:
            status, _, _ = request(gateway.port, "POST", CHAT, chat_with("m"))
            need(status == 200, f"status {status} before the reload")
            before = len(backend.received)
            text = gateway.config.read_text().replace(str(trusted), str(other))
            gateway.config.write_text(text)
            gateway.process.send_signal(signal.SIGHUP)
            done = 'olla_config_reloads_total{result="success"}'
            wait_until("no reload", lambda: gateway.metrics().get(done), 10)
            for _ in range(REQUESTS):
                request(gateway.port, "POST", CHAT, chat_with("m"))
            return len(backend.received) - before
