"""`uds up` as a process: schedule, request over HTTP, alert to a receiver, a second instance, SIGTERM, SIGKILL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync_core.adapters.sqlite_queue import SqliteQueue
from tests.support.signed_receiver import SECRET, SignedReceiver

CONFIG = """connections:
  shop: {{type: postgresql, host: db, database: shop, username: sync, secret_scope: kv, secret_key: shop}}
  lake: {{type: databricks, path: ./lake}}
channels:
  ops: {{type: webhook, url: "http://127.0.0.1:{port}/alerts", secret_scope: ops, secret_key: hook}}
"""
PIPELINES = """pipelines:
  - pipeline_id: orders
    source: {connection: shop, table: orders}
    target: {connection: lake, table: orders}
    mode: incremental
    cursor: {column: id, type: number}
    schedule: {every: 1d}
    retry: {attempts: 1}
  - pipeline_id: items
    source: {connection: shop, table: items}
    target: {connection: lake, table: items}
    mode: incremental
    cursor: {column: id, type: number}
    retry: {attempts: 1}
"""
ANSWER_SECONDS = 60


@pytest.fixture
def receiver() -> Generator[SignedReceiver]:
    with SignedReceiver() as server:
        yield server


class Up:
    """One `uds up` on the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sync_core.cli", "up", "--port", "0", "--tick", "0.2"],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "status at http://127.0.0.1:" in line, line + (folder / "up.log").read_text()
        self.http = httpx.Client(base_url=line.split("status at ")[1].split("/pipelines")[0], timeout=30)

    def pipeline(self, name: str) -> dict[str, Any]:
        return self.http.get(f"/pipelines/{name}").raise_for_status().json()

    def wait_for_state(self, name: str, state: str, runs: int = 1) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            found = self.pipeline(name)
            if len(found["runs"]) >= runs and found["runs"][0]["state"] == state and found["open_run"] is None:
                return found
            threading.Event().wait(0.05)
        raise AssertionError(f"{self.pipeline(name)}\n{(self.folder / 'up.log').read_text()}")

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=ANSWER_SECONDS)
        self.http.close()
        return output


@pytest.fixture
def folder(tmp_path: Path, receiver: SignedReceiver, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/connections.yml").write_text(CONFIG.format(port=receiver.server_port))
    (tmp_path / "config/pipelines.yml").write_text(PIPELINES)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("UDS_WARM_ENGINE", f"{sys.executable} -m tests.support.fake_server")
    monkeypatch.setenv("UDS_FAKE_PLACE", str(tmp_path))
    monkeypatch.setenv("UDS_SECRET_OPS_HOOK", SECRET)
    monkeypatch.delenv("UDS_FAKE", raising=False)
    (tmp_path / "source").write_text("3")
    return tmp_path


@pytest.fixture
def up(folder: Path) -> Generator[Up]:
    started = Up(folder)
    yield started
    if started.process.poll() is None:
        started.end(signal.SIGKILL)


def test_a_schedule_and_a_request_are_carried_out_and_told(up: Up, folder: Path) -> None:
    scheduled = up.wait_for_state("orders", "succeeded")
    assert scheduled["runs"][0]["slot"] is not None
    assert scheduled["watermark"] == {"type": "number", "value": "3"}
    answer = up.http.post("/requests", json={"request_id": "r1", "pipelines": ["items"], "requested_by": "erp"})
    assert (answer.status_code, answer.json()) == (202, {"request_id": "r1", "pipelines": ["items"]})
    requested = up.wait_for_state("items", "succeeded")
    run = requested["runs"][0]
    assert run["request_id"] == "r1"
    assert up.http.get(f"/pipelines/items/runs/{run['run_key']}").json()["state"] == "succeeded"
    output = up.end()
    assert output.endswith("Stopped.\n")
    assert up.process.returncode == 0
    told = (folder / "up.log").read_text()
    assert re.search(r"^\d\d:\d\d:\d\d begun: orders$", told, re.MULTILINE)
    assert (
        len(re.findall(r"^[\d:]{8} orders: succeeded in .*: 3 read, 3 inserted; watermark 3$", told, re.MULTILINE)) == 1
    )
    assert len(re.findall(r"^[\d:]{8} items: succeeded in ", told, re.MULTILINE)) == 1


def test_p25_a_failure_is_told_signed_and_its_recovery_too(up: Up, folder: Path, receiver: SignedReceiver) -> None:
    up.wait_for_state("orders", "succeeded")
    (folder / "how").write_text("fail")
    up.http.post("/requests", json={"request_id": "r1", "pipelines": ["items"]}).raise_for_status()
    failed = up.wait_for_state("items", "failed")
    assert failed["alerts"][0]["condition"] == "failed"
    assert receiver.wait_for(1) == [("sync.alert.raised", "items")]
    while "an alert of items was delivered to ops" not in (folder / "up.log").read_text():
        threading.Event().wait(0.02)
    (folder / "how").write_text("")
    up.http.post("/pipelines/items/retry", json={"reason": "it is mended"}).raise_for_status()
    up.wait_for_state("items", "succeeded", runs=2)
    assert receiver.wait_for(2)[1] == ("sync.alert.recovered", "items")


def test_p04_killed_and_started_again_it_goes_on(up: Up, folder: Path) -> None:
    up.wait_for_state("orders", "succeeded")
    (folder / "how").write_text("wait")
    up.http.post("/requests", json={"request_id": "r1", "pipelines": ["items"]}).raise_for_status()
    while not (folder / "waiting").exists():
        threading.Event().wait(0.02)
    up.end(signal.SIGKILL)
    (folder / "how").write_text("")
    (folder / "release").touch()
    again = Up(folder)
    try:
        again.wait_for_state("items", "succeeded")
        assert json.loads((folder / "items.json").read_text())["rows"] == [1, 2, 3]
    finally:
        again.end()


def test_a_second_instance_on_one_state_is_refused(up: Up, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sync_core.cli", "up", "--port", "0"],
        cwd=folder, capture_output=True, text=True, timeout=ANSWER_SECONDS, env=os.environ, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Another uds up works on .uds" in done.stderr
    assert "Traceback" not in done.stderr


def test_pause_cancel_and_resume_over_http_are_recorded(up: Up, folder: Path) -> None:
    up.wait_for_state("orders", "succeeded")
    (folder / "how").write_text("wait")
    up.http.post("/requests", json={"request_id": "r1", "pipelines": ["items"]}).raise_for_status()
    while not (folder / "waiting").exists():
        threading.Event().wait(0.02)
    assert up.http.post("/pipelines/items/pause", json={"reason": "look into it"}).status_code == 200
    cancelled = up.http.post("/pipelines/items/cancel", json={"reason": "enough"})
    assert cancelled.json()["state"] == "cancelled"
    found = up.wait_for_state("items", "cancelled")
    assert found["paused"] is True
    assert [one["what"] for one in found["operations"]] == ["cancel", "pause"]
    assert up.http.post("/pipelines/items/resume", json={"reason": "done"}).status_code == 200
    assert up.pipeline("items")["paused"] is False


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "said"),
    [
        ("POST", "/requests", b"{", {}, 400, "not JSON"),
        ("POST", "/requests", b'{"request_id": "r", "pipelines": ["itmes"]}', {}, 404, "items"),
        ("POST", "/requests", b'{"request_id": "r", "pipelines": ["items"], "kind": "backfill"}', {}, 400, "backfill"),
        ("POST", "/requests", b"x" * 1_000_000, {}, 413, "256 KiB"),
        ("POST", "/requests", b"{}", {"content-type": "text/plain"}, 415, "application/json"),
        ("GET", "/pipelines/nope", b"", {}, 404, "nope"),
        ("GET", "/pipelines/items?runs=0", b"", {}, 400, "1 to 999"),
        ("GET", "/pipelines/items/runs/" + "0" * 64, b"", {}, 404, "no run"),
        ("GET", "/elsewhere", b"", {}, 404, "nothing at this path"),
        ("GET", "/requests", b"", {}, 405, "POST"),
        ("POST", "/pipelines/items/pause", b"{}", {}, 400, "reason"),
        ("POST", "/webhooks/databricks", b'{"run": {"run_id": 1}}', {}, 401, "sign in"),
        ("GET", "/pipelines", b"", {"host": "evil.example"}, 403, "this machine alone"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_answered_clearly(
    up: Up, method: str, path: str, content: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    sent = {"content-type": "application/json"} | headers
    answer = up.http.request(method, path, content=content, headers=sent)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert set(answer.json()["error"]) == {"code", "message", "remedy"}


def uds(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sync_core.cli", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=ANSWER_SECONDS, env=os.environ, check=False,
    )  # fmt: skip


def test_what_was_put_aside_is_shown_and_sent_again(up: Up, folder: Path) -> None:
    assert uds(folder, "dead-letters").stdout == "No message was put aside.\n"
    queue = SqliteQueue(folder / ".uds")
    queue.reject("sync-requests", '{"request_id": "r1", "pipelines": ["items"]}', "r1", "It came too early.")
    shown = uds(folder, "dead-letters")
    assert shown.stdout.splitlines()[:2] == ["sync-requests/r1", "  It came too early."]
    wrong = uds(folder, "dead-letters", "--send-again", "sync-requests/r2")
    assert (wrong.returncode, "put aside under key r2" in wrong.stderr) == (2, True)
    assert uds(folder, "dead-letters", "--send-again", "sync-requests/r1").stdout == "sync-requests/r1: sent again.\n"
    assert up.wait_for_state("items", "succeeded")["runs"][0]["request_id"] == "r1"
    assert queue.dead_letters("sync-requests") == []
