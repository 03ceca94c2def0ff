"""The state store on one machine: SQLite, one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sync_core.adapters.sqlite_file import SqliteFile
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.run import PipelineRecord, RunRecord, WatermarkChange
from sync_core.ports import Conflict, Row, Stored

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
) WITHOUT ROWID;
"""

_LAST_SUCCESS = """
SELECT body FROM runs WHERE pipeline_id = ? AND json_extract(body, '$.result.state') IN ('succeeded', 'unchanged')
ORDER BY created_at DESC LIMIT 1
"""


class SqliteStore:
    """A StateStore in `<folder>/state.db`."""

    def __init__(self, folder: Path) -> None:
        self._file = SqliteFile(folder, _TABLES)

    def load(self, pipeline_id: str) -> Stored:
        with self._file.transaction() as database:
            row = database.execute("SELECT tag, body FROM records WHERE pipeline_id = ?", (pipeline_id,)).fetchone()
            if row is None:
                return Stored(PipelineRecord(pipeline_id), None)
            return Stored(_decode(PipelineRecord, row[1]), str(row[0]))

    def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
        body = json.dumps(to_json(record))
        with self._file.transaction() as database:
            if stored.tag is None:
                statement = "INSERT INTO records VALUES (?, 1, ?) ON CONFLICT DO NOTHING"
                changed = database.execute(statement, (record.pipeline_id, body)).rowcount
            else:
                statement = "UPDATE records SET tag = tag + 1, body = ? WHERE pipeline_id = ? AND tag = ?"
                changed = database.execute(statement, (body, record.pipeline_id, int(stored.tag))).rowcount
            if changed != 1:
                raise Conflict(record.pipeline_id)
            for row in rows:
                text = json.dumps(to_json(row))
                if isinstance(row, WatermarkChange):
                    database.execute("INSERT INTO changes VALUES (?, ?, ?)", (record.pipeline_id, record.epoch, text))
                else:
                    values = (row.pipeline_id, row.run_key, _sortable(row.created_at), text)
                    database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", values)

    def run(self, pipeline_id: str, run_key: str) -> RunRecord | None:
        statement = "SELECT body FROM runs WHERE pipeline_id = ? AND run_key = ?"
        with self._file.transaction() as database:
            row = database.execute(statement, (pipeline_id, run_key)).fetchone()
            return _decode(RunRecord, row[0]) if row else None

    def runs(self, pipeline_id: str, limit: int) -> list[RunRecord]:
        statement = "SELECT body FROM runs WHERE pipeline_id = ? ORDER BY created_at DESC, run_key LIMIT ?"
        with self._file.transaction() as database:
            rows = database.execute(statement, (pipeline_id, limit)).fetchall()
            return [_decode(RunRecord, row[0]) for row in rows]

    def last_success(self, pipeline_id: str) -> RunRecord | None:
        with self._file.transaction() as database:
            row = database.execute(_LAST_SUCCESS, (pipeline_id,)).fetchone()
            return _decode(RunRecord, row[0]) if row else None

    def changes(self, pipeline_id: str, limit: int) -> list[WatermarkChange]:
        statement = "SELECT body FROM changes WHERE pipeline_id = ? ORDER BY epoch DESC LIMIT ?"
        with self._file.transaction() as database:
            rows = database.execute(statement, (pipeline_id, limit)).fetchall()
            return [_decode(WatermarkChange, row[0]) for row in rows]

    def pipelines(self) -> Iterator[str]:
        with self._file.transaction() as database:
            rows = database.execute("SELECT pipeline_id FROM records ORDER BY pipeline_id").fetchall()
        return iter([row[0] for row in rows])

    def forget_runs(self, pipeline_id: str, before: datetime) -> int:
        # No run is closed before it was created: the index finds all that may go.
        statement = "SELECT body FROM runs WHERE pipeline_id = ? AND created_at < ?"
        with self._file.transaction() as database:
            found = database.execute(statement, (pipeline_id, _sortable(before))).fetchall()
            runs = [_decode(RunRecord, row[0]) for row in found]
            success = database.execute(_LAST_SUCCESS, (pipeline_id,)).fetchone() if runs else None
            kept = _decode(RunRecord, success[0]).run_key if success else None
            old = [
                (pipeline_id, run.run_key)
                for run in runs
                if run.closed_at is not None and run.closed_at < before and run.run_key != kept
            ]
            database.executemany("DELETE FROM runs WHERE pipeline_id = ? AND run_key = ?", old)
        return len(old)


def _sortable(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _decode[T](kind: type[T], body: str) -> T:
    try:
        return from_json(kind, json.loads(body))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{kind.__name__}: {error}") from error
