"""A certificate authority made at test time, for servers on loopback that speak HTTPS."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._certificate = self._authority.issue_cert("127.0.0.1", "localhost")

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._certificate.configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    def write(self, path: Path) -> str:
        """The authority's certificate, for clients that take a file."""
        self._authority.cert_pem.write_to_path(str(path))
        return str(path)
