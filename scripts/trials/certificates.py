"""Certificates for servers on loopback, made by openssl."""

import subprocess

from trials.process import NotReady


def make_certificate(directory, name):
    """Makes a self-signed certificate for 127.0.0.1 with a P-256 key; returns its file and that of
    its key."""
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
