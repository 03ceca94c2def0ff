"""An HTTP proxy on loopback in front of a real server: it loses answers, answers itself, or keeps silent, as told."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Which = Callable[[Request], bool]
Fault = Callable[[Request, "_Handler"], None]


def every(_: Request) -> bool:
    return True


@dataclass
class _Rule:
    which: Which
    times: int
    fault: Fault


@dataclass
class Proxy:
    """Forwards to `target` (scheme, host and port; a path is kept for `url`) and notes what it saw; a context manager.

    Each fault below strikes the next `times` requests it is for; the first rule that fits goes first.
    """

    target: str
    seen: list[Request] = field(default_factory=list[Request])
    _rules: list[_Rule] = field(default_factory=list[_Rule])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{urlsplit(self.target).path}"

    def lose_answers(
        self, times: int = 1, which: Which = every, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """The server does what is asked, `meanwhile` happens, and the connection breaks without an answer."""

        def fault(request: Request, handler: _Handler) -> None:
            handler.ask_server(request)
            meanwhile()
            handler.hang_up()

        self._rules.append(_Rule(which, times, fault))

    def answer(
        self,
        status: int,
        times: int = 1,
        which: Which = every,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """The server never hears of it."""
        self._rules.append(_Rule(which, times, lambda _, handler: handler.reply(status, headers or {}, body)))

    def keep_silent(self, times: int = 1, which: Which = every) -> None:
        """The server never hears of it, and no answer comes until the proxy ends."""

        def fault(_: Request, handler: _Handler) -> None:
            self._released.wait()
            handler.hang_up()

        self._rules.append(_Rule(which, times, fault))

    def heal(self) -> None:
        """Forget all faults."""
        self._rules.clear()

    def count(self, which: Which = every) -> int:
        return sum(map(which, self.seen))

    def handle(self, request: Request, handler: _Handler) -> None:
        with self._lock:
            self.seen.append(request)
            rule = next((rule for rule in self._rules if rule.times > 0 and rule.which(request)), None)
            if rule is not None:
                rule.times -= 1
        if rule is None:
            handler.reply(*handler.ask_server(request))
        else:
            rule.fault(request, handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: Proxy
    _upstream: http.client.HTTPConnection | None = None

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        try:
            self.owner.handle(request, self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_MERGE = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def ask_server(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        if self._upstream is None:
            self._upstream = http.client.HTTPConnection(urlsplit(self.owner.target).netloc)
        try:
            self._upstream.request(request.method, request.path, request.body, dict(request.headers))
            answer = self._upstream.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The server closed the kept connection in the meantime; it did not read this request.
            self._upstream.close()
            self._upstream.request(request.method, request.path, request.body, dict(request.headers))
            answer = self._upstream.getresponse()
        left_out = {"transfer-encoding", "content-length", "connection", "keep-alive"}
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in left_out}
        return answer.status, headers, answer.read()

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the test's output is the test's."""
