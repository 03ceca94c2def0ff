"""The routes on this machine's loopback, for `uds up`."""

from __future__ import annotations

import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from sync_core.web.routes import LARGEST_BODY, Answer, Request, Routes

LOG = logging.getLogger("uds.web")

OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""What a request may call this server. Another name is a page elsewhere that was led here (DNS rebinding)."""


def make_server(routes: Routes, port: int) -> ThreadingHTTPServer:
    """A server on 127.0.0.1; port 0 takes a free one. Raises OSError when the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            answer = self._refusal() or routes.answer(self._request())
            body = answer.text.encode()
            self.send_response(answer.status)
            self.send_header("content-type", f"{answer.content_type}; charset=utf-8")
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            if answer.status >= 400:
                # The body may not have been read: nothing after it can be understood.
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def _refusal(self) -> Answer | None:
            host = self.headers.get("host", "").rsplit(":", 1)[0]
            if host not in OWN_NAMES:
                return _error(403, "http.host", "This server answers to this machine alone.")
            length = self.headers.get("content-length", "0")
            if not length.isdigit():
                return _error(400, "http.length", "The request has no valid length.")
            if int(length) > LARGEST_BODY:
                return _error(413, "request.too_large", f"The body is larger than {LARGEST_BODY // 1024} KiB.")
            return None

        def _request(self) -> Request:
            address = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            return Request(self.command, address.path, dict(parse_qsl(address.query)), headers, body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            LOG.debug(format, *args)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message, "remedy": ""}})
