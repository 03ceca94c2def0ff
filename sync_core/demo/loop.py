"""The demo's `uds up`: the process, what is asked of it over HTTP, and the receiver of its alerts."""

from __future__ import annotations

import base64
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from sync_core.domain.codec import from_json
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import RunRecord

ANSWER_SECONDS = 300


class AlertReceiver:
    """Takes alerts at `url`, those that are signed with `secret`; the rest is refused. `events` are CloudEvents."""

    def __init__(self) -> None:
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()  # pragma: allowlist secret
        self.events: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="alerts", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, kind: str) -> dict[str, Any]:
        """The event of a type. Raises PermanentError when none comes."""
        return wait(
            lambda: next((event for event in self.events if event["type"] == kind), None), f"no alert {kind} came"
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                try:
                    receiver.events.append(Webhook(receiver.secret).verify(body, dict(self.headers)))
                except WebhookVerificationError:
                    self.send_response(401)
                else:
                    self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        return Handler


class Up:
    """`uds up` on the demo's folder, from entering to leaving."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)

    def __enter__(self) -> Self:
        places = ["--config", str(self._folder / "config"), "--state", str(self._folder / "state")]
        with (self._folder / "up.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sync_core.cli", "up", "--port", "0", "--tick", "0.5", *places],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        line = self._process.stdout.readline()
        if "http://" not in line:
            self._process.communicate()
            raise PermanentError("demo.failed", "uds up did not start.", f"Its log is {self._folder / 'up.log'}.")
        address = line.partition("http://")[2].partition("/")[0]
        self._client = httpx.Client(base_url=f"http://{address}", timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def last(self, pipeline: str) -> RunRecord | None:
        """The latest run, open or closed."""
        shown = self._client.get(f"/pipelines/{pipeline}", params={"runs": "1"}).raise_for_status().json()
        return from_json(RunRecord, shown["runs"][0]) if shown["runs"] else None

    def wait_for(self, pipeline: str, after: str) -> RunRecord:
        """The first run that closes after the run `after`."""

        def look() -> RunRecord | None:
            run = self.last(pipeline)
            return run if run is not None and run.run_key != after and not run.state.is_open else None

        return wait(look, f"{pipeline} did not come to its end")

    def request(self, identity: str, *pipelines: str) -> None:
        """As an upstream system asks."""
        self._post("/requests", {"request_id": identity, "pipelines": pipelines, "requested_by": "the demo"})

    def retry(self, pipeline: str, reason: str) -> None:
        """As an operator does."""
        self._post(f"/pipelines/{pipeline}/retry", {"reason": reason})

    def _post(self, path: str, document: Mapping[str, Any]) -> None:
        self._client.post(path, json=document).raise_for_status()


def wait[T](look: Callable[[], T | None], otherwise: str) -> T:
    """What `look` finds. Raises PermanentError when it finds nothing in time."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise PermanentError("demo.failed", f"The demo went wrong: {otherwise}.", "Please report it.")
