"""The command line with a fake engine: run, plan, validate --live, status, history, watermark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sync_core import cli
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.cli import context
from sync_core.domain.alert import Condition, Episode
from tests.support.fake_engine import Place

SECRET = "hunter2-of-the-shop"  # pragma: allowlist secret
CONNECTIONS = """
connections:
  shop: {type: postgresql, host: db, database: shop, username: sync, secret_scope: kv, secret_key: shop}
  lake: {type: databricks, path: ./lake}
"""
PIPELINES = """
defaults: {target: {connection: lake}, source: {connection: shop}}
pipelines:
  - {pipeline_id: orders, source: {table: orders}, target: {table: orders}, mode: incremental, merge_keys: [id],
     cursor: {column: id, type: number}}
  - {pipeline_id: items, source: {table: items}, target: {table: items}, mode: merge, merge_keys: [id],
     cursor: {column: at, type: timestamp}}
  - {pipeline_id: regions, source: {table: regions}, target: {table: regions}, mode: full_refresh}
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/connections.yml").write_text(CONNECTIONS)
    (tmp_path / "config/pipelines.yml").write_text(PIPELINES)
    engine = Path(__file__).parent.parent / "support/fake_engine.py"
    monkeypatch.setenv("UDS_ENGINE", f"{sys.executable} '{engine}'")
    monkeypatch.setenv("UDS_FAKE_PLACE", str(tmp_path))
    monkeypatch.setenv("UDS_SECRET_KV_SHOP", SECRET)
    monkeypatch.delenv("UDS_FAKE", raising=False)
    return tmp_path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says how the engine behaves from now on."""
    return lambda how: monkeypatch.setenv("UDS_FAKE", how)


def uds(capsys: Capture, *arguments: str) -> tuple[int, str]:
    """Exit status and all that was printed; never a traceback, never the secret."""
    status = cli.run_command_line(list(arguments))
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert "Traceback" not in text
    assert SECRET not in text
    return status, text


def uds_json(capsys: Capture, *arguments: str) -> tuple[int, Any]:
    status, text = uds(capsys, *arguments, "--json")
    return status, json.loads(text)


def in_another_process(*arguments: str) -> subprocess.Popen[str]:
    # Tests that a shell runs in its background ignore Ctrl-C, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "sync_core.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path) -> None:
    while not path.exists():
        threading.Event().wait(0.01)


# ---- run


def test_run_prints_a_line_a_pipeline(capsys: Capture) -> None:
    status, text = uds(capsys, "run", "orders", "items")
    assert status == 0, text
    assert "orders: succeeded in 0 ms: 3 read, 3 inserted; watermark 3" in text.splitlines()
    assert uds(capsys, "run", "orders")[1] == "orders: unchanged in 0 ms: 3 read; watermark 3\n"


def test_run_json_is_one_document_of_runs(capsys: Capture) -> None:
    status, document = uds_json(capsys, "run", "orders")
    assert status == 0
    assert list(document) == ["runs"]
    run = document["runs"][0]
    assert (run["pipeline_id"], run["state"], run["watermark"]) == (
        "orders",
        "succeeded",
        {"type": "number", "value": "3"},
    )


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("fail", "orders: failed: x is gone."),
        ("refuse", "orders: failed: There is no Java. Install Java 17. → Run it again: what was committed"),
        ("killed", "orders: failed: the engine was killed by SIGKILL; its log is "),
        ("exit", "the engine ended with exit status 3; its log is "),
        ("garbage", "cannot be read: RunResult.pipeline_id: missing. → Run it again: the target's ledger has it all."),
    ],
)
def test_a_run_that_fails_says_why_and_the_next_one_runs(
    capsys: Capture, engine: Callable[[str], None], how: str, expected: str
) -> None:
    engine(how)
    status, text = uds(capsys, "run", "orders")
    assert (status, expected in text) == (1, True), text
    status, document = uds_json(capsys, "history", "orders")
    assert [run["state"] for run in document["runs"]] == ["failed"]
    engine("")
    assert uds(capsys, "run", "orders")[0] == 0
    assert Place(Path.cwd()).target("orders")["rows"] == [1, 2, 3]


def test_a_request_that_lost_to_another_run_was_not_done(capsys: Capture, engine: Callable[[str], None]) -> None:
    engine("superseded")
    assert uds(capsys, "run", "orders")[0] == 0
    assert uds(capsys, "run", "orders", "--full-refresh")[0] == 1


def test_p04_killed_after_its_commit_the_next_run_finds_it(capsys: Capture, engine: Callable[[str], None]) -> None:
    engine("killed_after_commit")
    assert uds(capsys, "run", "orders")[0] == 1
    engine("")
    assert uds(capsys, "run", "orders")[1] == "orders: unchanged in 0 ms: 3 read; watermark 3\n"


def test_an_engine_that_cannot_be_started(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDS_ENGINE", "/nowhere/engine")
    status, text = uds(capsys, "run", "orders")
    assert status == 1
    assert "The engine /nowhere/engine cannot be started: No such file or directory." in text
    assert uds_json(capsys, "status")[1]["pipelines"][0]["state"] == "failed"


def test_an_engine_that_is_not_a_command(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDS_ENGINE", "'unclosed")
    status, text = uds(capsys, "status")
    assert (status, "UDS_ENGINE is not a command: No closing quotation." in text) == (2, True), text
    monkeypatch.setenv("UDS_ENGINE", " ")
    assert uds(capsys, "status")[0] == 0


def test_a_second_run_is_refused_and_its_neighbour_runs(
    capsys: Capture, engine: Callable[[str], None], folder: Path
) -> None:
    engine("wait")
    with in_another_process("run", "orders", "--json") as first:
        wait_for(folder / "waiting")
        engine("")
        status, document = uds_json(capsys, "run", "orders", "items")
        assert status == 1
        assert [run["pipeline_id"] for run in document["runs"]] == ["items"]
        assert document["refused"][0]["error"]["code"] == "run.alive"
        status, text = uds(capsys, "run", "orders")
        assert status == 1
        assert "Pipeline orders is running since 20" in text
        rows = uds_json(capsys, "status")[1]["pipelines"]
        assert [row["state"] for row in rows] == ["running", "succeeded", "never run"]
        (folder / "release").touch()
        assert first.stdout is not None
        assert json.loads(first.stdout.read())["runs"][0]["state"] == "succeeded"
        assert first.wait() == 0


def test_a_killed_uds_leaves_its_engine_and_a_later_run_takes_in_what_it_did(
    capsys: Capture, engine: Callable[[str], None], folder: Path
) -> None:
    engine("wait")
    with in_another_process("run", "orders") as first:
        wait_for(folder / "waiting")
        first.kill()
        first.wait()
    engine("")
    assert "is running since" in uds(capsys, "run", "orders")[1]
    (folder / "release").touch()
    while "is running since" in (text := uds(capsys, "run", "orders")[1]):
        threading.Event().wait(0.05)
    assert text == "orders: unchanged in 0 ms: 3 read; watermark 3\n"
    runs = uds_json(capsys, "history", "orders")[1]["runs"]
    assert [(run["state"], run["result"]["state"]) for run in runs] == [
        ("succeeded", "unchanged"),
        ("succeeded", "succeeded"),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("how", "state"), [("wait", "cancelled"), ("commits_when_stopped", "succeeded")])
def test_ctrl_c_and_sigterm_end_the_engine_and_close_the_run(
    capsys: Capture, engine: Callable[[str], None], folder: Path, how: str, state: str, number: signal.Signals
) -> None:
    engine(how)
    with in_another_process("run", "orders") as first:
        wait_for(folder / "waiting")
        first.send_signal(number)
        assert first.wait() == 130
        assert first.stderr is not None
        assert "Interrupted." in first.stderr.read()
    runs = uds_json(capsys, "history", "orders")[1]["runs"]
    assert [run["state"] for run in runs] == [state]
    row = uds_json(capsys, "status")[1]["pipelines"][0]
    assert (row["rows"] is None, row["seconds"] is None) == ((state == "cancelled"),) * 2
    assert ("0 ms" in uds(capsys, "history", "orders")[1]) is (state == "succeeded")
    pid = int(next(folder.glob(".uds/runs/*/engine.pid")).read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("command", [["run", "orders"], ["status"], ["history", "orders"], ["plan"]])
def test_a_state_folder_that_cannot_be_used(capsys: Capture, folder: Path, command: list[str]) -> None:
    (folder / "taken").write_text("")
    status, document = uds_json(capsys, *command, "--state", "taken")
    assert (status, document["error"]["code"]) == (1, "store.folder")
    (folder / ".uds").mkdir()
    (folder / ".uds/state.db").write_text("no database" * 99)
    status, text = uds(capsys, *command)
    assert (status, "is damaged" in text) == (1, True), text


# ---- plan and validate --live


def test_plan_shows_what_a_run_would_do_and_leaves_nothing(capsys: Capture, folder: Path) -> None:
    status, text = uds(capsys, "plan", "orders")
    assert status == 0
    assert text.splitlines() == [
        "orders (incremental)",
        "  window     5 … 9, both inclusive",
        "  watermark  5 after the run",
        "  parts      4, all of SCN 77",
        "  source",
        "    SELECT id",
        "    FROM x WHERE id >= 5 AND id <= 9",
        "  target",
        "    MERGE INTO y",
        "  column z is new",
    ]
    status, document = uds_json(capsys, "plan")
    assert [plan["pipeline_id"] for plan in document["plans"]] == ["orders", "items", "regions"]
    assert document["plans"][0]["plan"]["partitions"] == 4
    assert list((folder / ".uds/runs").iterdir()) == []
    assert uds_json(capsys, "history", "orders")[1]["runs"] == []


def test_plan_tells_errors_as_sentences(capsys: Capture, engine: Callable[[str], None], folder: Path) -> None:
    engine("fail")
    status, text = uds(capsys, "plan", "orders")
    assert (status, text) == (1, "orders (incremental)\n  the table x is missing. → Create it.\n")
    assert list((folder / ".uds/runs").iterdir()) == []
    engine("exit")
    status, text = uds(capsys, "plan", "orders")
    log = next((folder / ".uds/runs").glob("*/engine.log"))
    assert (status, f"its log is {log}" in text) == (1, True), text


def test_ctrl_c_in_a_plan_ends_the_engine(engine: Callable[[str], None], folder: Path) -> None:
    engine("stubborn")
    with in_another_process("plan", "orders") as planning:
        wait_for(folder / "waiting")
        pid = int(next(folder.glob(".uds/runs/*/engine.pid")).read_text())
        planning.send_signal(signal.SIGINT)
        (folder / "release").touch()
        assert planning.wait() == 130
    assert list((folder / ".uds/runs").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_validate_live_is_one_line_a_pipeline(capsys: Capture, engine: Callable[[str], None]) -> None:
    ready = [f"{name}: ready to run" for name in ("orders", "items", "regions")]
    status, text = uds(capsys, "validate", "--live")
    assert (status, text.splitlines()) == (0, ["2 connections, 3 pipelines: no faults.", *ready])
    for how in ("fail", "problems"):
        engine(how)
        status, text = uds(capsys, "validate", "--live")
        assert status == 1
        assert text.splitlines()[1] == "orders: the table x is missing. → Create it."
        status, document = uds_json(capsys, "validate", "--live")
        assert (status, len(document["live"])) == (1, 3)


def test_validate_live_stops_at_faults(capsys: Capture, folder: Path) -> None:
    (folder / "config/pipelines.yml").write_text("pipelines: 1")
    assert uds(capsys, "validate", "--live")[0] == 2
    assert not (folder / "started").exists()


# ---- status and history


def test_status_of_every_pipeline(capsys: Capture, engine: Callable[[str], None]) -> None:
    uds(capsys, "run", "orders")
    engine("fail")
    uds(capsys, "run", "items")
    status, text = uds(capsys, "status")
    assert status == 0
    lines = text.splitlines()
    assert lines[0].split() == ["pipeline", "state", "last", "sync", "rows", "took", "watermark", "lag"]
    assert lines[1].startswith("orders    succeeded  ")
    assert " ago " in lines[1]
    assert lines[2].startswith("items     failed     never")
    assert lines[3].startswith("regions   never run  never")
    assert lines[4] == "x is gone."
    row = uds_json(capsys, "status")[1]["pipelines"][0]
    assert (row["watermark"], row["lag_seconds"], row["rows"]["read"]) == ("3", None, 3)
    assert datetime.fromisoformat(row["last_sync"]).tzinfo is not None


def test_history_says_who_asked(
    capsys: Capture, engine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    uds(capsys, "run", "orders", "--full-refresh")
    assert uds_json(capsys, "history", "orders")[1]["runs"][0]["requested_by"] == "ada"
    assert "ada" in uds(capsys, "history", "orders")[1]


def test_status_tells_what_is_paused_and_what_is_wrong(capsys: Capture, folder: Path) -> None:
    uds(capsys, "run", "orders")
    uds(capsys, "pause", "orders", "--reason", "later")
    uds(capsys, "pause", "lake", "--connection", "--reason", "moved")
    text = uds(capsys, "status")[1]
    assert text.splitlines()[1].startswith("orders    succeeded, paused  ")
    assert text.splitlines()[2].startswith("items     never run, paused  ")
    uds(capsys, "resume", "lake", "--connection", "--reason", "back")
    store = SqliteStore(folder / ".uds")
    stored = store.load("items")
    then = datetime(2026, 1, 1, tzinfo=UTC)
    alert = Episode("items", Condition.STALE, "k", "Nothing came for 3 h.", then, then)
    store.save(stored, replace(stored.record, episodes=(alert,)))
    text = uds(capsys, "status")[1]
    assert text.splitlines()[2].startswith("items     never run          ")
    assert text.splitlines()[-1] == "Alert stale: Nothing came for 3 h."
    rows = uds_json(capsys, "status")[1]["pipelines"]
    assert [row["paused"] for row in rows] == [True, False, False]
    assert rows[1]["alerts"] == [{"condition": "stale", "message": "Nothing came for 3 h."}]


@pytest.mark.parametrize("what", [("orders",), ("lake", "--connection")])
def test_resume_says_whether_it_was_paused(capsys: Capture, folder: Path, what: tuple[str, ...]) -> None:
    resume = ("resume", *what, "--reason", "back")
    assert uds(capsys, *resume) == (0, f"{what[0]}: was not paused by hand.\n")
    assert uds_json(capsys, *resume)[1] == {"name": what[0], "done": "was not paused by hand"}
    uds(capsys, "pause", *what, "--reason", "later")
    assert uds(capsys, *resume) == (0, f"{what[0]}: resumed.\n")
    assert uds(capsys, *resume) == (0, f"{what[0]}: was not paused by hand.\n")


def test_what_is_not_there_to_try_again_or_to_send_again(capsys: Capture) -> None:
    status, text = uds(capsys, "retry", "orders", "--reason", "again")
    assert (status, text.splitlines()[0]) == (2, "Pipeline orders has no run yet, so there is nothing to try again.")
    assert uds(capsys, "retry", "orders", "--run", "f00", "--reason", "again")[1].startswith(
        "Pipeline orders has no run f00."
    )
    status, text = uds(capsys, "dead-letters", "--send-again", "erp-1")
    assert (status, text.splitlines()[0]) == (2, "erp-1 is not QUEUE/KEY.")


def test_history_is_newest_first_and_limited(capsys: Capture, engine: Callable[[str], None]) -> None:
    assert uds(capsys, "history", "orders")[1] == "orders has never run.\n"
    uds(capsys, "run", "orders")
    engine("fail")
    uds(capsys, "run", "orders", "--full-refresh")
    lines = uds(capsys, "history", "orders")[1].splitlines()
    assert [line.split()[2:4] for line in lines[1:]] == [["full_refresh", "failed"], ["incremental", "succeeded"]]
    assert "x is gone." in lines[1]
    assert "3 read, 3 inserted; watermark 3" in lines[2]
    assert len(uds_json(capsys, "history", "orders", "--limit", "1")[1]["runs"]) == 1


@pytest.mark.parametrize(
    "command",
    [["run", "ordres"], ["plan", "ordres"], ["history", "ordres"], ["watermark", "show", "ordres"]],
)
def test_an_unknown_pipeline_gets_the_nearest(capsys: Capture, command: list[str]) -> None:
    status, text = uds(capsys, *command)
    assert status == 2
    assert "ordres" in text
    assert "orders" in text


@pytest.mark.parametrize("command", [["history"], ["watermark", "show"], ["watermark", "reset", "--reason", "x"]])
def test_what_is_for_one_pipeline_refuses_several(capsys: Capture, command: list[str]) -> None:
    status, text = uds(capsys, *command, "*s")
    assert (status, text) == (2, "*s names 3 pipelines, and this is for one.\n→ Write one of orders, items, regions.\n")
    assert SqliteStore(Path(".uds")).changes("orders", 9) == []
    assert uds(capsys, *command, "ord*")[0] == 0


# ---- watermark


def test_watermark_set_show_reset(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "eve")
    uds(capsys, "run", "orders")
    status, text = uds(capsys, "watermark", "set", "orders", "-5.50", "--reason", "a test", "--adopt")
    assert status == 0
    assert text.splitlines() == [
        "orders: watermark 3 → watermark -5.5",
        "The next run starts from there, in a new epoch.",
    ]
    status, document = uds_json(capsys, "watermark", "reset", "orders", "--reason", "again")
    assert document == {
        "pipeline_id": "orders",
        "before": {"type": "number", "value": "-5.5"},
        "after": None,
    }
    lines = uds(capsys, "watermark", "show", "orders")[1].splitlines()
    assert lines[0].startswith("orders: no watermark, generation 0, epoch 1")
    assert lines[1].endswith("eve: watermark -5.5 → no watermark  (again)")
    assert lines[2].endswith("eve: watermark 3 → watermark -5.5  (a test)")
    shown = uds_json(capsys, "watermark", "show", "orders")[1]
    assert [change["who"] for change in shown["changes"]] == ["eve", "eve"]
    assert uds(capsys, "run", "orders")[0] == 0
    assert Place(Path.cwd()).target("orders")["rows"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["set", "orders", "soon", "--reason", "x"],
            "Pipeline orders: 'soon' is not a number; write it as 42 or -12.5.",
        ),
        (["set", "items", "31.1.2024", "--reason", "x"], "write it as 2024-01-31T23:59:59.123456"),
        (["set", "regions", "4", "--reason", "x"], "Pipeline regions has no cursor, so it has no watermark."),
        (["set", "orders", "4", "--reason", " "], "The reason is empty."),
        (["set", "orders", "4"], "--reason"),
        (["reset", "orders"], "--reason"),
    ],
)
def test_a_watermark_that_cannot_be_set(capsys: Capture, arguments: list[str], expected: str) -> None:
    status, text = uds(capsys, "watermark", *arguments)
    assert (status, expected in text) == (2, True), text
    assert SqliteStore(Path(".uds")).changes(arguments[1], 9) == []


def test_a_pipeline_without_cursor_can_be_reset_and_take_over_a_target(capsys: Capture) -> None:
    assert "uds watermark reset regions --adopt" in uds(capsys, "watermark", "set", "regions", "4", "--reason", "x")[1]
    status, text = uds(capsys, "watermark", "reset", "regions", "--adopt", "--reason", "x")
    assert (status, SqliteStore(Path(".uds")).load("regions").record.adopt) == (0, True)
    assert text.splitlines()[1] == "The next run starts from the beginning, in a new epoch."


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(context.getpass, "getuser", nobody)
    assert context.who() == f"user {os.getuid()}"


# ---- secrets


@pytest.mark.parametrize("how", ["", "fail", "refuse", "killed", "garbage"])
def test_p26_no_secret_in_any_file_or_output(
    capsys: Capture, engine: Callable[[str], None], folder: Path, how: str
) -> None:
    engine(how)
    for command in (["run", "orders"], ["plan"], ["validate", "--live"], ["status"], ["history", "orders"]):
        uds(capsys, *command)
        uds(capsys, *command, "--json")
    files = [path for path in (folder / ".uds").rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
