"""An issuer of tokens, by the openssl that the tests need as well."""

import base64
import json
import os
import subprocess
import time


class Issuer:
    NAME, AUDIENCE = "https://issuer.bench", "gateway"

    def __init__(self, folder):
        self.key, self.set = folder / "issuer.pem", folder / "jwks.json"
        openssl("genrsa", "-out", self.key, "2048")
        modulus = openssl("rsa", "-in", self.key, "-noout", "-modulus").decode()
        number = bytes.fromhex(modulus.strip().partition("=")[2])
        key = {"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256",
               "n": encoded(number), "e": "AQAB"}
        self.set.write_text(json.dumps({"keys": [key]}))
        self.tokens = {}

    def config(self):
        jwt = {"issuer": self.NAME, "audience": self.AUDIENCE, "jwks_file": str(self.set)}
        return {"mode": "jwt", "jwt": jwt}

    def token(self, subject):
        """Callers keep a token for minutes: one a subject."""
        if subject not in self.tokens:
            now = int(time.time())
            head = {"alg": "RS256", "kid": "one", "typ": "JWT"}
            claims = {"iss": self.NAME, "aud": self.AUDIENCE, "sub": subject,
                      "iat": now, "exp": now + 86_400}
            signed = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
            signature = openssl("dgst", "-sha256", "-sign", self.key, stdin=signed.encode())
            self.tokens[subject] = f"{signed}.{encoded(signature)}"
        return self.tokens[subject]


def random_key():
    return base64.b64encode(os.urandom(32)).decode() + "\n"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*words, stdin=None):
    command = ["openssl", *map(str, words)]
    return subprocess.run(
        command, check=True, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout
