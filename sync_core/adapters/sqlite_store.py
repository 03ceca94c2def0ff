"""The state store on one machine: SQLite, one file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import batched
from pathlib import Path

from sync_core.adapters.sqlite_file import SqliteFile
from sync_core.adapters.store_rows import check_rows, decode, encode, epoch_taken, operation_key, sortable, succeeded
from sync_core.domain.alert import Episode
from sync_core.domain.run import ConnectionRecord, Operation, PipelineRecord, RunRecord, WatermarkChange
from sync_core.ports import Conflict, Row, Stored, StoredConnection

LOADED_TOGETHER = 1000
"""How many records `load_many` reads by one statement."""

_TABLES = """
CREATE TABLE IF NOT EXISTS records (
    pipeline_id TEXT PRIMARY KEY, tag INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    pipeline_id TEXT NOT NULL, run_key TEXT NOT NULL, created_at TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (pipeline_id, run_key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (pipeline_id, created_at);
CREATE TABLE IF NOT EXISTS changes (
    pipeline_id TEXT NOT NULL, epoch INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pipeline_id, epoch)
) WITHOUT ROWID
"""

_ADDED_BY_VERSION_2 = """
CREATE TABLE episodes (
    pipeline_id TEXT NOT NULL, episode_id TEXT NOT NULL, opened_at TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (pipeline_id, episode_id)
) WITHOUT ROWID;
CREATE INDEX episodes_by_time ON episodes (pipeline_id, opened_at);
CREATE TABLE operations (
    pipeline_id TEXT NOT NULL, at TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (pipeline_id, at, key)
) WITHOUT ROWID;
CREATE TABLE connections (
    name TEXT PRIMARY KEY, tag INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE successes (
    pipeline_id TEXT NOT NULL, run_key TEXT NOT NULL, created_at TEXT NOT NULL, PRIMARY KEY (pipeline_id, run_key)
) WITHOUT ROWID;
CREATE INDEX successes_by_time ON successes (pipeline_id, created_at);
INSERT INTO successes SELECT pipeline_id, run_key, created_at FROM runs
    WHERE json_extract(body, '$.result.state') IN ('succeeded', 'unchanged');
-- Records once carried their changes. An epoch is the second of its change.
INSERT OR IGNORE INTO changes
    SELECT pipeline_id, CAST(strftime('%s', json_extract(change.value, '$.at')) AS INTEGER), change.value
    FROM records, json_each(records.body, '$.changes') AS change
"""

_LAST_SUCCESS = """
SELECT body FROM runs JOIN (
    SELECT pipeline_id, run_key FROM successes WHERE pipeline_id = ? ORDER BY created_at DESC, run_key LIMIT 1
) USING (pipeline_id, run_key)
"""


class SqliteStore:
    """A StateStore in `<folder>/state.db`."""

    def __init__(self, folder: Path) -> None:
        self._file = SqliteFile(folder, _TABLES)
        with self._file.transaction() as database:
            # The queue in the same file may have raised its version already.
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'successes'").fetchone() is None:
                for statement in _ADDED_BY_VERSION_2.split(";"):
                    database.execute(statement)

    def load(self, pipeline_id: str) -> Stored:
        return next(self.load_many([pipeline_id]))

    def load_many(self, pipeline_ids: Sequence[str]) -> Iterator[Stored]:
        statement = "SELECT pipeline_id, tag, body FROM records WHERE pipeline_id IN (SELECT value FROM json_each(?))"
        for some in batched(pipeline_ids, LOADED_TOGETHER):
            with self._file.transaction() as database:
                rows = database.execute(statement, (json.dumps(some),)).fetchall()
                found = {row[0]: Stored(decode(PipelineRecord, row[2]), str(row[1])) for row in rows}
            for pipeline_id in some:
                yield found.get(pipeline_id) or Stored(PipelineRecord(pipeline_id), None)

    def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
        check_rows(record, rows)
        with self._file.transaction() as database:
            _replace(database, "records", "pipeline_id", record.pipeline_id, stored.tag, encode(record))
            for row in rows:
                _put(database, record, row)

    def run(self, pipeline_id: str, run_key: str) -> RunRecord | None:
        found = self._bodies(
            RunRecord, "SELECT body FROM runs WHERE pipeline_id = ? AND run_key = ?", pipeline_id, run_key
        )
        return found[0] if found else None

    def runs(self, pipeline_id: str, limit: int) -> list[RunRecord]:
        statement = "SELECT body FROM runs WHERE pipeline_id = ? ORDER BY created_at DESC, run_key LIMIT ?"
        return self._bodies(RunRecord, statement, pipeline_id, limit)

    def last_success(self, pipeline_id: str) -> RunRecord | None:
        found = self._bodies(RunRecord, _LAST_SUCCESS, pipeline_id)
        return found[0] if found else None

    def changes(self, pipeline_id: str, limit: int) -> list[WatermarkChange]:
        statement = "SELECT body FROM changes WHERE pipeline_id = ? ORDER BY epoch DESC LIMIT ?"
        return self._bodies(WatermarkChange, statement, pipeline_id, limit)

    def episodes(self, pipeline_id: str, limit: int) -> list[Episode]:
        statement = "SELECT body FROM episodes WHERE pipeline_id = ? ORDER BY opened_at DESC, episode_id LIMIT ?"
        return self._bodies(Episode, statement, pipeline_id, limit)

    def operations(self, pipeline_id: str, limit: int) -> list[Operation]:
        statement = "SELECT body FROM operations WHERE pipeline_id = ? ORDER BY at DESC, key LIMIT ?"
        return self._bodies(Operation, statement, pipeline_id, limit)

    def pipelines(self) -> Iterator[str]:
        with self._file.transaction() as database:
            rows = database.execute("SELECT pipeline_id FROM records ORDER BY pipeline_id").fetchall()
        return iter([row[0] for row in rows])

    def forget_runs(self, pipeline_id: str, before: datetime) -> int:
        # No run is closed before it was created: the index finds all that may go.
        statement = "SELECT body FROM runs WHERE pipeline_id = ? AND created_at < ?"
        with self._file.transaction() as database:
            found = database.execute(statement, (pipeline_id, sortable(before))).fetchall()
            runs = [decode(RunRecord, row[0]) for row in found]
            success = database.execute(_LAST_SUCCESS, (pipeline_id,)).fetchone() if runs else None
            kept = decode(RunRecord, success[0]).run_key if success else None
            old = [
                (pipeline_id, run.run_key)
                for run in runs
                if run.closed_at is not None and run.closed_at < before and run.run_key != kept
            ]
            for table in ("runs", "successes"):
                database.executemany(f"DELETE FROM {table} WHERE pipeline_id = ? AND run_key = ?", old)
        return len(old)

    def forget_episodes(self, pipeline_id: str, before: datetime) -> int:
        # No episode is closed before it was opened: the index finds all that may go.
        statement = "SELECT body FROM episodes WHERE pipeline_id = ? AND opened_at < ?"
        with self._file.transaction() as database:
            found = database.execute(statement, (pipeline_id, sortable(before))).fetchall()
            episodes = [decode(Episode, row[0]) for row in found]
            old = [
                (pipeline_id, episode.episode_id)
                for episode in episodes
                if episode.closed_at is not None and episode.closed_at < before
            ]
            database.executemany("DELETE FROM episodes WHERE pipeline_id = ? AND episode_id = ?", old)
        return len(old)

    def load_connection(self, name: str) -> StoredConnection:
        with self._file.transaction() as database:
            row = database.execute("SELECT tag, body FROM connections WHERE name = ?", (name,)).fetchone()
            if row is None:
                return StoredConnection(ConnectionRecord(name), None)
            return StoredConnection(decode(ConnectionRecord, row[1]), str(row[0]))

    def save_connection(self, stored: StoredConnection, record: ConnectionRecord) -> None:
        with self._file.transaction() as database:
            _replace(database, "connections", "name", record.name, stored.tag, encode(record))

    def _bodies[T](self, kind: type[T], statement: str, *values: str | int) -> list[T]:
        with self._file.transaction() as database:
            return [decode(kind, row[0]) for row in database.execute(statement, values).fetchall()]


def _replace(database: sqlite3.Connection, table: str, key: str, name: str, tag: str | None, body: str) -> None:
    """Write one tagged row, only if it still has the tag. Raises Conflict."""
    if tag is None:
        statement = f"INSERT INTO {table} VALUES (?, 1, ?) ON CONFLICT DO NOTHING"
        changed = database.execute(statement, (name, body)).rowcount
    else:
        statement = f"UPDATE {table} SET tag = tag + 1, body = ? WHERE {key} = ? AND tag = ?"
        changed = database.execute(statement, (body, name, int(tag))).rowcount
    if changed != 1:
        raise Conflict(name)


def _put(database: sqlite3.Connection, record: PipelineRecord, row: Row) -> None:
    name, body = record.pipeline_id, encode(row)
    if isinstance(row, RunRecord):
        place = (name, row.run_key, sortable(row.created_at))
        database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", (*place, body))
        database.execute("DELETE FROM successes WHERE pipeline_id = ? AND run_key = ?", place[:2])
        if succeeded(row):
            database.execute("INSERT INTO successes VALUES (?, ?, ?)", place)
    elif isinstance(row, Episode):
        values = (name, row.episode_id, sortable(row.opened_at), body)
        database.execute("INSERT OR REPLACE INTO episodes VALUES (?, ?, ?, ?)", values)
    elif isinstance(row, Operation):
        values = (name, sortable(row.at), operation_key(row), body)
        database.execute("INSERT OR REPLACE INTO operations VALUES (?, ?, ?, ?)", values)
    else:
        statement = "INSERT INTO changes VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        if database.execute(statement, (name, record.epoch, body)).rowcount != 1:
            raise epoch_taken(name, record.epoch, row)
