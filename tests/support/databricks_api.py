"""A Databricks workspace on loopback for tests: Jobs API 2.2, Files API 2.0, and a managed identity that signs in to it.

It speaks the paths that the real databricks-sdk and azure-identity call. A job's task is a real process, `/Volumes/…` a
folder; failures of the service are scripted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.databricks_files import Answer, VolumeFiles, failure
from tests.support.databricks_jobs import JobRuns

DATABRICKS_RESOURCE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"

IDENTITY_HEADER = "the platform's header"

FOLDER = "/Volumes/main/uds/runs"


@dataclass
class Fault:
    """What happens to the next `times` requests whose path contains `path`; `before` or after they have been obeyed.

    Without a status the connection is closed: no answer. `cut` sends that many bytes of the answer alone. `stall` holds
    the answer back until the stand-in stops.
    """

    path: str
    times: int = 1
    status: int | None = None
    code: str = ""
    message: str = ""
    retry_after: int | None = None
    obeyed: bool = False
    cut: int | None = None
    stall: bool = False


class DatabricksApi:
    """Open from construction to `close`. `token` signs in, and so does what the managed identity endpoint gives."""

    def __init__(self, folder: Path, command: Sequence[str] = ()) -> None:
        self.token = "dapi-of-the-tests"
        self.files = VolumeFiles(folder)
        self.files.create_volume(FOLDER)
        self.jobs = JobRuns(folder / "logs", self.files.local, lambda: self.url)
        self.job_id = self.jobs.create_job(command)
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.signed_in: set[str] = {self.token}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        # Requests that stall are let go by `closing`; without these, closing would wait for them.
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.jobs.close()

    def fail(
        self, path: str, status: int, code: str = "", message: str = "", times: int = 1, retry_after: int = 0
    ) -> None:
        """Refuse the next requests with an error of the service; 429 and 503 say when to come again, in seconds."""
        header = retry_after if status in (429, 503) else None
        self._faults.append(Fault(path, times, status, code, message, header))

    def lose_answer(self, path: str, times: int = 1) -> None:
        """Obey the next requests, and close the connection without an answer."""
        self._faults.append(Fault(path, times, obeyed=True))

    def hold_answer(self, path: str, times: int = 1) -> None:
        """Obey the next requests, and let the client wait in vain."""
        self._faults.append(Fault(path, times, obeyed=True, stall=True))

    def cut_answer(self, path: str, length: int) -> None:
        """Send `length` bytes of the next answer and close the connection."""
        self._faults.append(Fault(path, cut=length, obeyed=True))

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def fault_for(self, path: str) -> Fault | None:
        with self._lock:
            fault = next((one for one in self._faults if one.path in path and one.times > 0), None)
            if fault:
                fault.times -= 1
            return fault

    def count(self, path: str) -> int:
        """How many requests had this in their path."""
        return sum(path in asked for _, asked, _ in self.requests)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, bearer: str) -> Answer:
        if path == "/.well-known/databricks-config":
            return 200, {"workspace_id": "1234", "oidc_endpoint": f"{self.url}/oidc"}
        if bearer not in self.signed_in:
            return failure(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type.")
        if path.startswith("/api/2.0/fs/"):
            kind, _, below = path.removeprefix("/api/2.0/fs/").partition("/")
            return self.files.answer(method, kind, f"/{below}", query, body)
        if (method, path) == ("POST", "/api/2.2/jobs/run-now"):
            return self.jobs.run_now(json.loads(body))
        if (method, path) == ("GET", "/api/2.2/jobs/runs/get"):
            return self.jobs.get(int(query["run_id"]))
        if (method, path) == ("POST", "/api/2.2/jobs/runs/cancel"):
            return self.jobs.cancel(int(json.loads(body)["run_id"]))
        return failure(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'")

    def give_token(self, query: dict[str, str], header: str) -> Answer:
        """The endpoint of a managed identity, as App Service and Functions have it (api-version 2019-08-01)."""
        if header != IDENTITY_HEADER or query.get("resource") != DATABRICKS_RESOURCE:
            return 400, {"statusCode": 400, "message": "No Managed Identity found for specified ClientId/ResourceId."}
        token = f"aad-{len(self.signed_in)}"
        self.signed_in.add(token)
        about = {"resource": DATABRICKS_RESOURCE, "token_type": "Bearer", "client_id": "x"}
        return 200, {"access_token": token, "expires_on": str(int(time.time()) + 3600), **about}


def _handler(api: DatabricksApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                # The client has given up waiting.
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing: failures are part of the tests."""

        def respond(self) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), dict(parse_qsl(url.query))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_json = (self.headers.get("Content-Type") or "").startswith("application/json")
            api.requests.append((self.command, path, json.loads(body) if is_json and body else {}))
            fault = api.fault_for(path)
            if fault is None or fault.obeyed:
                status, content = self.obey(path, query, body)
            else:
                status, content = failure(fault.status or 500, fault.code, fault.message)
            if fault and fault.stall:
                api.closing.wait()
            if fault and fault.obeyed and fault.cut is None:
                return
            self.send(status, content, fault)

        def obey(self, path: str, query: dict[str, str], body: bytes) -> Answer:
            if path == "/msi/token":
                return api.give_token(query, self.headers.get("X-IDENTITY-HEADER") or "")
            bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            return api.answer(self.command, path, query, body, bearer)

        def send(self, status: int, content: dict[str, Any] | bytes, fault: Fault | None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header(
                "Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json"
            )
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            if fault and fault.retry_after is not None:
                self.send_header("Retry-After", str(fault.retry_after))
            self.end_headers()
            self.wfile.write(data[: fault.cut] if fault and fault.cut is not None else data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = respond  # noqa: N815

    return Handler
