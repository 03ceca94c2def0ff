"""The state store on one machine: SQLite, one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sync_core.adapters.sqlite_file import SqliteFile
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.run import PipelineRecord, RunRecord, RunState
from sync_core.ports import Conflict, Stored

_TABLES = """
CREATE TABLE IF NOT EXISTS records (
    pipeline_id TEXT PRIMARY KEY, tag INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    pipeline_id TEXT NOT NULL, run_key TEXT NOT NULL, created_at TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (pipeline_id, run_key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (pipeline_id, created_at);
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
            return Stored(from_json(PipelineRecord, json.loads(row[1])), str(row[0]))

    def save(self, stored: Stored, record: PipelineRecord, runs: Sequence[RunRecord] = ()) -> None:
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
            for run in runs:
                created = run.created_at.astimezone(UTC).isoformat(timespec="microseconds")
                values = (run.pipeline_id, run.run_key, created, json.dumps(to_json(run)))
                database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", values)

    def run(self, pipeline_id: str, run_key: str) -> RunRecord | None:
        statement = "SELECT body FROM runs WHERE pipeline_id = ? AND run_key = ?"
        with self._file.transaction() as database:
            row = database.execute(statement, (pipeline_id, run_key)).fetchone()
            return from_json(RunRecord, json.loads(row[0])) if row else None

    def runs(self, pipeline_id: str, limit: int) -> list[RunRecord]:
        statement = "SELECT body FROM runs WHERE pipeline_id = ? ORDER BY created_at DESC, run_key LIMIT ?"
        with self._file.transaction() as database:
            rows = database.execute(statement, (pipeline_id, limit)).fetchall()
            return [from_json(RunRecord, json.loads(row[0])) for row in rows]

    def pipelines(self) -> Iterator[str]:
        with self._file.transaction() as database:
            rows = database.execute("SELECT pipeline_id FROM records ORDER BY pipeline_id").fetchall()
        return iter([row[0] for row in rows])

    def forget_runs(self, pipeline_id: str, before: datetime) -> int:
        runs = self.runs(pipeline_id, -1)
        kept = next((run.run_key for run in runs if run.state is RunState.SUCCEEDED), None)
        old = [
            run.run_key
            for run in runs
            if not run.state.is_open and run.closed_at is not None and run.closed_at < before and run.run_key != kept
        ]
        with self._file.transaction() as database:
            for run_key in old:
                database.execute("DELETE FROM runs WHERE pipeline_id = ? AND run_key = ?", (pipeline_id, run_key))
        return len(old)
