"""A receiver of alerts on loopback, which takes only what is signed by the Standard Webhooks convention."""

from __future__ import annotations

import base64
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_" + base64.b64encode(b"a signing secret of some length").decode()  # pragma: allowlist secret


class SignedReceiver(ThreadingHTTPServer):
    """`events` are the CloudEvents that were taken."""

    daemon_threads = True

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        received = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append(Webhook(SECRET).verify(body, dict(self.headers)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        super().__init__(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def wait_for(self, count: int, seconds: float = 60) -> list[tuple[str, str]]:
        """Type and subject of the events, once there are so many."""
        deadline = time.monotonic() + seconds
        while len(self.events) < count and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        return [(event["type"], event["subject"]) for event in self.events]
