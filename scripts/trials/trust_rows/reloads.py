"""Reloads that change what is trusted."""

import signal
import ssl
import tempfile
from pathlib import Path

from trials.certificates import make_certificate
from trials.process import request, wait_until
from trials.trust_rows import CHAT, Backend, chat_with, gateway_over, named, need, row

REQUESTS = 10


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
