"""Certificates and bearer tokens, made with openssl."""

import base64
import json
import pathlib
import subprocess
import time


class Credentials:
    """A CA, a certificate of the gateway's, one of a client's, and a key that signs tokens."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self._openssl(
            *request, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test",
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
        self.server = self._certificate("server", "DNS:gateways.test,IP:127.0.0.1")
        self.client = self._certificate("client", "URI:spiffe://test/bot")
        self._openssl("genrsa", "-out", "token.key", "2048")
        modulus = self._openssl("rsa", "-in", "token.key", "-noout", "-modulus")
        number = bytes.fromhex(modulus.decode().strip().split("=")[1])
        key = {
            "kty": "RSA",
            "kid": "1",
            "use": "sig",
            "alg": "RS256",
            "n": _b64(number),
            "e": "AQAB",
        }
        self.key_set = folder / "jwks.json"
        self.key_set.write_text(json.dumps({"keys": [key]}))

    def token(
        self,
        name: str,
        *,
        audience: str = "participant-gateway",
        starts: int = 0,
        lasts: int = 600,
    ) -> pathlib.Path:
        """Write a token into a file; it starts and ends so many seconds from now."""
        now = int(time.time())
        claims = {
            "iss": "https://issuer.test",
            "aud": audience,
            "sub": "bot",
            "nbf": now + starts,
            "exp": now + lasts,
        }
        parts = [{"alg": "RS256", "kid": "1", "typ": "JWT"}, claims]
        signed = ".".join(_b64(json.dumps(part).encode()) for part in parts)
        unsigned = self.folder / "unsigned"
        unsigned.write_text(signed)
        signature = self._openssl("dgst", "-sha256", "-sign", "token.key", "unsigned")
        file = self.folder / name
        file.write_text(f"{signed}.{_b64(signature)}\n")
        return file

    def tls(self, *, mutual: bool = False) -> dict:
        """Return the config's `server.tls`."""
        cert, key = self.server
        client = {"client_ca_file": str(self.ca)} if mutual else {}
        return {"cert_file": str(cert), "key_file": str(key), **client}

    def jwt(self) -> dict:
        """Return the config's `identity`."""
        jwt = {
            "issuer": "https://issuer.test",
            "audience": "participant-gateway",
            "jwks_file": str(self.key_set),
        }
        return {"mode": "jwt", "jwt": jwt}

    def _certificate(self, name: str, names: str) -> tuple[pathlib.Path, pathlib.Path]:
        (self.folder / "ext").write_text(f"subjectAltName={names}\n")
        request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self._openssl(
            *request, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-out", f"{name}.pem", "-extfile", "ext",
        )  # fmt: skip
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _openssl(self, *line: str) -> bytes:
        return subprocess.run(
            ["openssl", *line], cwd=self.folder, check=True, capture_output=True
        ).stdout


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
