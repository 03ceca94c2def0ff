"""A key vault on loopback, over HTTPS as the SDK demands, and the endpoint where a managed identity gets its tokens.

It answers as Azure Key Vault does: a request without a token is challenged, then the token is checked; secrets have
versions; refusals carry the vault's error document.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.tls import Authority

RESOURCE = "https://vault.azure.net"


@dataclass(frozen=True)
class Refusal:
    """One answer other than the secret."""

    status: int
    inner_code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hangs: bool = False


class Vault:
    """`put` makes a new version; `refusals` are given to requests with a valid token, one after the other."""

    def __init__(self, authority: Authority) -> None:
        self.refusals: list[Refusal] = []
        self.reads: list[str] = []
        self.signs_in = True
        self.sign_ins = 0
        self.challenge = f'Bearer authorization="https://login.windows.net/tenant", resource="{RESOURCE}"'
        self._versions: dict[str, dict[str, str]] = {}
        self._tokens: set[str] = set()
        self._released = threading.Event()
        self._vault = _serve(self._answer_vault)
        self._vault.socket = authority.server_context().wrap_socket(
            self._vault.socket, server_side=True, do_handshake_on_connect=False
        )
        self._identity = _serve(self._answer_identity)
        self.identity_header = secrets.token_hex(8)

    def __enter__(self) -> Vault:
        for server in (self._vault, self._identity):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        for server in (self._vault, self._identity):
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._vault.server_port}"

    @property
    def identity_url(self) -> str:
        return f"http://127.0.0.1:{self._identity.server_port}/msi/token"

    def put(self, name: str, value: str) -> str:
        """Returns the id of the version, which is the newest."""
        version = secrets.token_hex(16)
        self._versions.setdefault(name, {})[version] = value
        return version

    def delete(self, name: str) -> None:
        del self._versions[name]

    def forget_tokens(self) -> None:
        """Every token that was given is refused from now on."""
        self._tokens.clear()

    def _answer_identity(self, handler: BaseHTTPRequestHandler) -> None:
        asked = parse_qs(urlsplit(handler.path).query)
        if handler.headers.get("X-IDENTITY-HEADER") != self.identity_header or asked.get("resource") != [RESOURCE]:
            _send(handler, 400, {"error": "invalid_request"})
        elif not self.signs_in:
            _send(handler, 400, {"error": "invalid_client", "error_description": "No such identity."})
        else:
            token = secrets.token_hex(16)
            self._tokens.add(token)
            self.sign_ins += 1
            answer = {"access_token": token, "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
            _send(handler, 200, answer | {"resource": RESOURCE})

    def _answer_vault(self, handler: BaseHTTPRequestHandler) -> None:
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in self._tokens:
            error = {
                "error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}
            }
            _send(handler, 401, error, {"WWW-Authenticate": self.challenge})
            return
        self.reads.append(handler.path)
        if self.refusals:
            refusal = self.refusals.pop(0)
            if refusal.hangs:
                self._released.wait()
                handler.close_connection = True
                return
            error = {"code": "Forbidden", "message": "It is refused.", "innererror": {"code": refusal.inner_code}}
            _send(handler, refusal.status, {"error": error}, refusal.headers)
            return
        _, kind, name, version = (*urlsplit(handler.path).path.split("/"), "", "")[:4]
        versions = self._versions.get(name, {})
        version = version or next(reversed(versions), "")
        if kind != "secrets" or version not in versions:
            message = f"A secret with (name/id) {name}/{version} was not found in this key vault."
            _send(handler, 404, {"error": {"code": "SecretNotFound", "message": message}})
            return
        attributes = {"enabled": True, "created": 1, "updated": 1}
        found = {"value": versions[version], "id": f"{self.url}/secrets/{name}/{version}", "attributes": attributes}
        _send(handler, 200, found)


def _send(
    handler: BaseHTTPRequestHandler, status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> None:
    body = json.dumps(content).encode()
    handler.send_response(status)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _serve(answer: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away, or does not trust the certificate, is a part of these tests."""

    return Server(("127.0.0.1", 0), Handler)
