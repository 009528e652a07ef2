"""Tokens of an issuer whose key is a file, signed with Ed25519 by openssl."""

import base64
import json
import subprocess
import time

from trials.process import NotReady


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    ISSUER, AUDIENCE = "https://issuer.test", "olla"

    def __init__(self, directory):
        self.directory = directory
        self.key = directory / "issuer.pem"
        self.openssl("genpkey", "-algorithm", "ed25519", "-out", self.key)
        public = self.openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")
        key = {"kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "alg": "EdDSA"}
        # The last 32 bytes of RFC 8410's structure are the key.
        self.jwks = directory / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [key | {"x": encoded(public[-32:])}]}))

    @staticmethod
    def openssl(*arguments):
        try:
            done = subprocess.run(["openssl", *arguments], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotReady(f"openssl: {error}") from error
        return done.stdout

    def config(self, policy):
        return (
            f'[access.jwt]\nissuer = "{self.ISSUER}"\naudience = "{self.AUDIENCE}"\n'
            f'jwks_file = "{self.jwks}"\npolicy = "{policy}"\n'
        )

    def token(self, name, head=None, **claims):
        """A token of this name; `head` and `claims` replace what makes it valid."""
        head = {"alg": "EdDSA", "typ": "JWT", "kid": "one"} | (head or {})
        payload = {"iss": self.ISSUER, "aud": self.AUDIENCE, "sub": name}
        payload |= {"exp": int(time.time()) + 3600} | claims
        parts = [encoded(json.dumps(part).encode()) for part in (head, payload)]
        text = self.directory / "to-sign"
        text.write_bytes(".".join(parts).encode())
        signed = self.openssl("pkeyutl", "-sign", "-inkey", self.key, "-rawin", "-in", text)
        return ".".join([*parts, encoded(signed)])
