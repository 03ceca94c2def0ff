"""What is particular to the SQLite store: its file, and files of the version before."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sync_core.adapters.sqlite_queue import SqliteQueue
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import PipelineRecord, WatermarkChange
from sync_core.ports import Conflict
from tests.support.stores import FIVE, NOW, a_run, a_success, an_episode

VERSION_1 = """
CREATE TABLE records (pipeline_id TEXT PRIMARY KEY, tag INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    pipeline_id TEXT NOT NULL, run_key TEXT NOT NULL, created_at TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (pipeline_id, run_key)
) WITHOUT ROWID;
CREATE INDEX runs_by_time ON runs (pipeline_id, created_at);
CREATE TABLE changes (
    pipeline_id TEXT NOT NULL, epoch INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pipeline_id, epoch)
) WITHOUT ROWID;
INSERT INTO records VALUES ('orders', 7, '{"pipeline_id": "orders", "epoch": 1767323046, "generation": 2,
    "watermark": {"type": "number", "value": "5"}, "open_run": null, "last_slot": null, "pending": [], "seen": null,
    "outbox": [], "changes": [{"at": "2026-01-02T03:04:05+00:00", "who": "eve", "reason": "first", "before": null,
    "after": {"type": "number", "value": "5"}}], "adopt": false}');
INSERT INTO records VALUES ('plain', 1, '{"pipeline_id": "plain"}');
INSERT INTO changes VALUES ('orders', 1767323046, '{"at": "2026-01-02T03:04:06+00:00", "who": "adam",
    "reason": "second", "before": {"type": "number", "value": "5"}, "after": null}');
INSERT INTO runs VALUES ('orders', 'a', '2026-01-02T03:04:05.000000+00:00', '{"run_key": "a", "pipeline_id": "orders",
    "kind": "incremental", "attempt": 1, "state": "succeeded", "batch_id": "batch",
    "created_at": "2026-01-02T03:04:05+00:00", "closed_at": "2026-01-02T03:04:05+00:00", "result": {
    "pipeline_id": "orders", "run_key": "a", "batch_id": "batch", "kind": "incremental", "attempt": 1,
    "state": "succeeded", "watermark": {"type": "number", "value": "5"}, "finished_at": "2026-01-02T03:04:05+00:00"}}');
INSERT INTO runs VALUES ('orders', 'b', '2026-01-03T00:00:00.000000+00:00', '{"run_key": "b", "pipeline_id": "orders",
    "kind": "incremental", "attempt": 1, "state": "failed", "batch_id": "batch",
    "created_at": "2026-01-03T00:00:00+00:00", "closed_at": "2026-01-03T00:00:00+00:00"}');
PRAGMA user_version = 1;
"""


@contextmanager
def database(folder: Path) -> Generator[sqlite3.Connection]:
    folder.mkdir(exist_ok=True)
    with closing(sqlite3.connect(folder / "state.db")) as opened, opened:
        yield opened


@pytest.mark.parametrize("queue_first", [False, True])
def test_a_file_of_the_version_before_goes_on(tmp_path: Path, queue_first: bool) -> None:
    with database(tmp_path) as old:
        old.executescript(VERSION_1)
    if queue_first:
        SqliteQueue(tmp_path)
    store = SqliteStore(tmp_path)
    found = store.load("orders")
    for again in (store, SqliteStore(tmp_path)):
        assert again.load("orders") == found
        assert (found.record.epoch, found.record.generation, found.record.watermark) == (1767323046, 2, FIVE)
        assert found.tag == "7"
        assert [run.run_key for run in again.runs("orders", 9)] == ["b", "a"]
        assert again.last_success("orders") == a_success("a")
        first = WatermarkChange(NOW, "eve", "first", None, FIVE)
        assert again.changes("orders", 9)[1:] == [first]
        assert [change.who for change in again.changes("orders", 9)] == ["adam", "eve"]
        assert again.episodes("orders", 9) == again.operations("orders", 9) == []
    store.save(found, found.record, [an_episode("e")])
    assert SqliteStore(tmp_path).episodes("orders", 9) == [an_episode("e")]
    assert len(store.changes("orders", 9)) == 2
    assert list(store.pipelines()) == ["orders", "plain"]
    with database(tmp_path) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (2,)


def test_an_upgrade_that_is_cut_off_is_made_anew(tmp_path: Path) -> None:
    with database(tmp_path) as old:
        old.executescript(VERSION_1)
        old.execute("UPDATE runs SET body = '{' WHERE run_key = 'a'")
    with pytest.raises(PermanentError, match=r"state\.db"):
        SqliteStore(tmp_path)
    with database(tmp_path) as old:
        old.execute("DELETE FROM runs WHERE run_key = 'a'")
    assert [run.run_key for run in SqliteStore(tmp_path).runs("orders", 9)] == ["b"]
    assert len(SqliteStore(tmp_path).changes("orders", 9)) == 2


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path)
    with database(tmp_path) as new:
        new.execute("PRAGMA user_version = 99")
    with pytest.raises(PermanentError, match="later version of uds"):
        SqliteStore(tmp_path)


def test_many_records_take_few_statements(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    names = [f"p{number}" for number in range(2500)]
    with database(tmp_path) as opened:
        opened.executemany("INSERT INTO records VALUES (?, 1, ?)", [(n, f'{{"pipeline_id": "{n}"}}') for n in names])
    found = store.load_many([*names, "none"])
    first = next(found)
    # The next 999 are read already: what is written to them now comes with the tag of before, and conflicts.
    store.save(first, PipelineRecord("p0", epoch=1))
    store.save(store.load("p1"), PipelineRecord("p1", epoch=1))
    second = next(found)
    assert second.record.epoch == 0
    with pytest.raises(Conflict):
        store.save(second, second.record)
    assert [one.record.pipeline_id for one in found] == [*names[2:], "none"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match=r"cannot be made.*--state"):
        SqliteStore(tmp_path / "file")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("This is not a database at all. " * 99)
    with pytest.raises(PermanentError, match=r"damaged.*Delete the state folder"):
        SqliteStore(tmp_path)


def test_a_body_that_is_not_what_was_written(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.save(store.load("orders"), PipelineRecord("orders"), [a_run("a")])
    for body in ("{", '{"epoch": "x", "pipeline_id": "orders"}'):
        with database(tmp_path) as opened:
            opened.execute("UPDATE records SET body = ?", (body,))
        with pytest.raises(PermanentError, match="damaged"):
            store.load("orders")


def test_a_full_or_read_only_disk(tmp_path: Path) -> None:
    SqliteStore(tmp_path)
    (tmp_path / "state.db").unlink()
    (tmp_path / "state.db").mkdir()
    with pytest.raises(PermanentError, match=r"state.db cannot be used.*permissions"):
        SqliteStore(tmp_path)
