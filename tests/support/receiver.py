"""A receiver of alerts: a real HTTP server on loopback that answers as it is told and keeps what it took."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int


@dataclass(frozen=True)
class Answer:
    """`hangs` waits until the receiver stops and never answers."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hangs: bool = False
    content: bytes = b""


class Receiver:
    """Answers each path as `standing` says, else by `answers` one after the other, else `otherwise`.

    Stops and starts on one port.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[Answer] = []
        self.otherwise = Answer()
        self.standing: dict[str, Answer] = {}
        self._released = threading.Event()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return self._port

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self._port}{path}"

    def start(self) -> None:
        self._serve(None)

    def start_tls(self, context: ssl.SSLContext) -> None:
        self._serve(context)

    def _serve(self, context: ssl.SSLContext | None) -> None:
        receiver = self
        self._released.clear()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                answer = receiver._choose(self.path)
                receiver.received.append(Received(self.path, dict(self.headers.items()), body, answer.status))
                if answer.hangs:
                    receiver._released.wait()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away, or does not trust the certificate, is a part of these tests."""

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _choose(self, path: str) -> Answer:
        if path in self.standing:
            return self.standing[path]
        return self.answers.pop(0) if self.answers else self.otherwise

    def stop(self) -> None:
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
