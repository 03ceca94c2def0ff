"""What every StateStore does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import (
    Outcome,
    PendingRequest,
    PipelineRecord,
    Range,
    RunKind,
    RunRecord,
    RunResult,
    RunState,
    Seen,
)
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.ports import Conflict, StateStore
from sync_core.update import update

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FIVE = Watermark(CursorType.NUMBER, "5")


@pytest.fixture(params=["sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StateStore]:
    """Opens the same store each time, as another process would."""
    return {"sqlite": lambda: SqliteStore(tmp_path / "state")}[request.param]


def a_run(key: str, state: RunState = RunState.BEGUN, at: datetime = NOW, pipeline: str = "orders") -> RunRecord:
    run = RunRecord(key, pipeline, RunKind.INCREMENTAL, 1, state, "batch", at)
    if state.is_open:
        return run
    result = RunResult(pipeline, key, "batch", run.kind, 1, Outcome(state.value), finished_at=at)
    return replace(run, closed_at=at, result=result)


def test_a_pipeline_without_a_record_is_empty(open_store: Callable[[], StateStore]) -> None:
    stored = open_store().load("orders")
    assert stored.record == PipelineRecord("orders")
    assert stored.tag is None
    assert list(open_store().pipelines()) == []
    assert open_store().run("orders", "a") is None


def test_what_was_saved_is_read_by_another_process(open_store: Callable[[], StateStore]) -> None:
    record = PipelineRecord(
        "orders", 3, 4, FIVE, "a", NOW, (PendingRequest("r", RunKind.BACKFILL, Range(FIVE, None), NOW),), Seen(FIVE, NOW)
    )  # fmt: skip
    store = open_store()
    store.save(store.load("orders"), record, [a_run("a")])
    assert open_store().load("orders").record == record
    assert open_store().run("orders", "a") == a_run("a")
    assert list(open_store().pipelines()) == ["orders"]


@pytest.mark.parametrize("existing", [False, True])
def test_of_two_writers_one_gets_a_conflict_and_writes_nothing(
    open_store: Callable[[], StateStore], existing: bool
) -> None:
    one, two = open_store(), open_store()
    if existing:
        one.save(one.load("orders"), PipelineRecord("orders", epoch=9))
    first, second = one.load("orders"), two.load("orders")
    one.save(first, replace(first.record, generation=1), [a_run("a")])
    with pytest.raises(Conflict):
        two.save(second, replace(second.record, generation=2), [a_run("a", RunState.FAILED), a_run("b")])
    assert two.load("orders").record.generation == 1
    assert two.run("orders", "a") == a_run("a")
    assert two.run("orders", "b") is None


def test_a_write_of_a_run_alone_changes_the_tag(open_store: Callable[[], StateStore]) -> None:
    store = open_store()
    store.save(store.load("orders"), PipelineRecord("orders"))
    before = store.load("orders")
    store.save(before, before.record, [a_run("a")])
    assert store.load("orders").tag != before.tag


def test_many_writers_lose_nothing(open_store: Callable[[], StateStore]) -> None:
    def add(_: int) -> None:
        store = open_store()
        while True:
            try:
                update(store, "orders", lambda record: (replace(record, generation=record.generation + 1), ()))
            except Conflict:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert open_store().load("orders").record.generation == 40


def test_runs_come_newest_first(open_store: Callable[[], StateStore]) -> None:
    store = open_store()
    times = [NOW, NOW + timedelta(microseconds=1), NOW + timedelta(seconds=1), NOW - timedelta(days=1)]
    for number, at in enumerate(times):
        store.save(store.load("orders"), store.load("orders").record, [a_run(str(number), at=at)])
    store.save(store.load("other"), PipelineRecord("other"), [a_run("x", pipeline="other")])
    assert [run.run_key for run in store.runs("orders", 3)] == ["2", "1", "0"]


def test_retention_keeps_open_runs_and_the_last_success(open_store: Callable[[], StateStore]) -> None:
    store = open_store()
    states = [RunState.SUCCEEDED, RunState.SUCCEEDED, RunState.FAILED, RunState.LAUNCHED, RunState.CANCELLED]
    runs = [a_run(str(number), state, NOW + timedelta(number)) for number, state in enumerate(states)]
    store.save(store.load("orders"), PipelineRecord("orders"), runs)
    assert store.forget_runs("orders", NOW + timedelta(3)) == 2
    assert [run.run_key for run in store.runs("orders", 9)] == ["4", "3", "1"]
    assert store.last_success("orders") == runs[1]
    assert store.forget_runs("orders", NOW + timedelta(3)) == 0


def test_sqlite_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match=r"cannot be made.*--state"):
        SqliteStore(tmp_path / "file")


def test_sqlite_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("This is not a database at all. " * 99)
    with pytest.raises(PermanentError, match=r"damaged.*Delete the state folder"):
        SqliteStore(tmp_path)


def test_sqlite_a_body_that_is_not_what_was_written(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.save(store.load("orders"), PipelineRecord("orders"), [a_run("a")])
    for body in ("{", '{"epoch": "x", "pipeline_id": "orders"}'):
        with sqlite3.connect(tmp_path / "state.db") as database:
            database.execute("UPDATE records SET body = ?", (body,))
        database.close()
        with pytest.raises(PermanentError, match="damaged"):
            store.load("orders")


def test_sqlite_a_later_version(tmp_path: Path) -> None:
    SqliteStore(tmp_path)
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(PermanentError, match="later version of uds"):
        SqliteStore(tmp_path)


def test_sqlite_a_full_or_read_only_disk(tmp_path: Path) -> None:
    SqliteStore(tmp_path)
    (tmp_path / "state.db").unlink()
    (tmp_path / "state.db").mkdir()
    with pytest.raises(PermanentError, match=r"state.db cannot be used.*permissions"):
        SqliteStore(tmp_path)
