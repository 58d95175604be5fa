"""Channels to the gateway, with the caller's identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio

if TYPE_CHECKING:
    from pathlib import Path

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Identity:
    """Who calls, and whom the caller trusts. Paths are of PEM files."""

    tenant: str | None = None
    """Sent as the header x-tenant-id. Only where something in front checks it."""
    token_file: Path | None = None
    """Holds a bearer token. It is read anew for each call, since it is rotated."""
    ca: Path | None = None
    """The CAs of the gateway's certificate. They switch TLS on."""
    cert: Path | None = None
    """A client certificate."""
    key: Path | None = None
    """The certificate's key."""

    def metadata(self) -> Metadata:
        """Return the metadata of one call.

        Over TLS the channel's call credentials send the token. They refuse a plaintext channel,
        so in a mesh, which encrypts by itself, the token goes here.
        """
        if self.token_file and not self.ca:
            return (("authorization", f"Bearer {_token(self.token_file)}"),)
        if self.tenant:
            return (("x-tenant-id", self.tenant),)
        return ()

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the channel's credentials, or None for plaintext."""
        if not self.ca:
            return None
        transport = grpc.ssl_channel_credentials(
            self.ca.read_bytes(),
            self.key.read_bytes() if self.key else None,
            self.cert.read_bytes() if self.cert else None,
        )
        if not self.token_file:
            return transport
        return grpc.composite_channel_credentials(
            transport, grpc.metadata_call_credentials(_Bearer(self.token_file))
        )


def channel(target: str, identity: Identity, service_config: str) -> grpc.Channel:
    """Open a channel. One channel serves a whole process: share it."""
    credentials = identity.credentials()
    options = _options(target, service_config)
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def aio_channel(target: str, identity: Identity, service_config: str) -> grpc.aio.Channel:
    """Open a channel for asyncio."""
    credentials = identity.credentials()
    options = _options(target, service_config)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


def _options(target: str, service_config: str) -> list[tuple[str, str]]:
    options = [("grpc.service_config", service_config)]
    if target.startswith(("ipv4:", "ipv6:")):
        # Without it the whole list of addresses becomes `:authority`, which the gateway's HTTP/2
        # library rejects.
        options.append(("grpc.default_authority", "participant-gateway"))
    return options


class _Bearer(grpc.AuthMetadataPlugin):
    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(
        self, _context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
    ) -> None:
        try:
            callback((("authorization", f"Bearer {_token(self._file)}"),), None)
        except OSError as error:
            callback((), error)


def _token(file: Path) -> str:
    return file.read_text().strip()
