"""Maintenance of the audit tables: nothing is lost, nothing is copied twice, what is live stays."""

from __future__ import annotations

import io
import json
import re
import secrets
import sys
from collections.abc import Generator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_entry import wheel_tasks
from spark_entry.adapters.delta_table import DeltaTables
from spark_entry.audit import TABLES, Done, write_audit
from spark_entry.events import EVENTS
from spark_entry.ledger import LedgerEntry
from spark_entry.maintenance import ARCHIVE_AFTER_DAYS, Maintained, archive, archive_of, maintain
from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import AuditPlace, Outcome, RunKind, RunResult
from sync_core.domain.watermark import CursorType, Watermark
from tests.support.world import watch_events

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
TODAY = NOW.date()
DOCUMENT = Path(__file__).parents[2] / "docs/databricks.md"
# VACUUM lists files in as many tasks as this, 10,000 by default.
PARALLELISM = "spark.sql.sources.parallelPartitionDiscovery.parallelism"


@pytest.fixture
def audit(spark: SparkSession, lake: Path) -> DeltaTables:
    session = spark.newSession()
    session.conf.set(PARALLELISM, "2")
    return DeltaTables(Connection("audit", "databricks", path=str(lake)), session)


def write(
    spark: SparkSession, place: AuditPlace, *runs: tuple[str, int], now: datetime = NOW, generation: int = 1
) -> None:
    """One batch of runs, each as (run_key, days ago)."""
    done = [
        Done(
            RunResult(
                "orders", run_key, "-".join(key for key, _ in runs), RunKind.INCREMENTAL, 1, Outcome.SUCCEEDED,
                generation=generation, finished_at=NOW - timedelta(days=days),
            ),
            LedgerEntry(
                "orders", 0, generation, Watermark(CursorType.NUMBER, "1"), run_key, RunKind.INCREMENTAL, "f",
                committed_at=(NOW - timedelta(days=days)).isoformat(),
            ),
        )
        for run_key, days in runs
    ]  # fmt: skip
    write_audit(spark, place, "-".join(key for key, _ in runs), done, now, lambda text: text)


def kept(lake: Path) -> AuditPlace:
    """As a pipeline's batches write, except that nothing is deleted."""
    return AuditPlace(path=str(lake), kept_days=100_000)


def keys(tables: DeltaTables, name: str) -> list[str]:
    return [row.run_key for row in tables.sql(f"SELECT run_key FROM {tables.sql_of(name)} ORDER BY run_key").collect()]


def archive_all(tables: DeltaTables) -> dict[str, int]:
    return {name: archive(tables, name, TODAY - timedelta(days=ARCHIVE_AFTER_DAYS)) for name in TABLES}


def test_old_rows_are_copied_once_and_nothing_live_is_deleted(
    spark: SparkSession, lake: Path, audit: DeltaTables
) -> None:
    write(spark, kept(lake), ("a-old", 500), ("b-old", ARCHIVE_AFTER_DAYS + 1), ("c-edge", ARCHIVE_AFTER_DAYS))
    assert archive_all(audit) == dict.fromkeys(TABLES, 2)
    # A row that belongs to a day which has been archived already, and a column of a later release.
    write(spark, kept(lake), ("e-late", 500), ("d-new", 0))
    audit.sql(f"ALTER TABLE {audit.sql_of('sync_runs')} ADD COLUMNS (later STRING)")
    audit.sql(f"UPDATE {audit.sql_of('sync_runs')} SET later = 'x' WHERE run_key = 'e-late'").collect()
    assert archive_all(audit) == dict.fromkeys(TABLES, 1)
    assert archive_all(audit) == dict.fromkeys(TABLES, 0)
    for name in TABLES:
        assert keys(audit, archive_of(name)) == ["a-old", "b-old", "e-late"], name
        assert keys(audit, name) == ["a-old", "b-old", "c-edge", "d-new", "e-late"], name
    columns = ", ".join(TABLES["sync_runs"])
    same = f"SELECT {columns} FROM {{}} WHERE run_key IN ('a-old', 'b-old', 'e-late') ORDER BY run_key"
    live, archived = (
        audit.sql(same.format(audit.sql_of(name))).collect() for name in ("sync_runs", "sync_runs_archive")
    )
    assert archived == live
    later = audit.sql(f"SELECT run_key, later FROM {audit.sql_of('sync_runs_archive')}").collect()
    assert {row.run_key: row.later for row in later} == {"a-old": None, "b-old": None, "e-late": "x"}


def test_each_row_is_found_once_by_the_documented_query_before_and_after_the_engine_deletes(
    spark: SparkSession, lake: Path, audit: DeltaTables
) -> None:
    place = AuditPlace(path=str(lake))
    write(spark, kept(lake), ("a", 450), ("b", 401), ("c", 400), ("d", 380), ("e", 0))
    archive_all(audit)
    found = re.findall(r"```sql\n(SELECT \* FROM sync_runs\n.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (query,) = (re.sub(r"FROM (sync_\w+)", lambda match: f"FROM {audit.sql_of(match[1])}", text) for text in found)
    assert sorted(row.run_key for row in audit.sql(query).collect()) == ["a", "b", "c", "d", "e"]
    write(spark, place, ("f", 0))
    assert keys(audit, "sync_runs") == ["c", "d", "e", "f"], "the engine deleted what is too old"
    assert sorted(row.run_key for row in audit.sql(query).collect()) == ["a", "b", "c", "d", "e", "f"]


def test_small_files_become_one_except_of_days_that_the_engine_may_be_deleting(
    spark: SparkSession, lake: Path, audit: DeltaTables
) -> None:
    """Two writers of one file would be a conflict, and the engine's deletion would wait for the next batch."""
    assert maintain(audit, TODAY) == []
    for number in range(2):
        write(spark, kept(lake), (f"old-{number}", 401), (f"run-{number}", 0), generation=number)
    files = f"SELECT DISTINCT run_date, _metadata.file_path FROM {audit.sql_of('sync_runs')}"
    assert audit.sql(files).count() == 4
    assert maintain(audit, TODAY) == [Maintained(name, 2) for name in TABLES]
    found = [row.run_date for row in audit.sql(files).collect()]
    assert sorted(found) == [TODAY - timedelta(days=401)] * 2 + [TODAY]
    for name in ("sync_runs", "sync_runs_archive"):
        operations = [row.operation for row in audit.sql(f"DESCRIBE HISTORY {audit.sql_of(name)}").collect()]
        assert operations[:2] == ["VACUUM END", "VACUUM START"], name
    assert keys(audit, "sync_runs") == ["old-0", "old-1", "run-0", "run-1"]


def test_a_table_that_fails_is_named_and_the_other_is_maintained(
    spark: SparkSession, lake: Path, audit: DeltaTables
) -> None:
    write(spark, kept(lake), ("a", 500))
    (lake / "sync_runs_archive").write_text("no folder")
    with (
        watch_events() as events,
        pytest.raises(PermanentError, match=r"could not be maintained\. sync_runs: ") as raised,
    ):
        maintain(audit, TODAY)
    assert "sync_watermarks" not in raised.value.message
    assert keys(audit, "sync_watermarks_archive") == ["a"]
    assert [(name, fields["table"]) for name, fields in events.seen] == [
        ("maintenance.failed", "sync_runs"),
        ("maintenance.done", "sync_watermarks"),
    ]


@pytest.fixture
def schema(spark: SparkSession, tmp_path: Path) -> Generator[str]:
    name = f"audit_{secrets.token_hex(5)}"
    spark.sql(f"CREATE SCHEMA spark_catalog.{name} LOCATION '{tmp_path / 'audit'}'")
    spark.conf.set(PARALLELISM, "2")
    yield name
    spark.conf.unset(PARALLELISM)
    spark.sql(f"DROP SCHEMA spark_catalog.{name} CASCADE")


def test_the_task_maintains_the_tables_of_a_catalog_and_tells_what_it_did(
    spark: SparkSession, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = AuditPlace("spark_catalog", schema, kept_days=100_000)
    days = (datetime.now(UTC).date() - TODAY).days
    write(spark, place, ("old", ARCHIVE_AFTER_DAYS + 1 - days), ("new", -days))
    parameters = ["--catalog", "spark_catalog", "--schema", schema, "--archive-after-days", str(ARCHIVE_AFTER_DAYS)]
    monkeypatch.setattr(sys, "argv", ["uds-maintenance", *parameters])
    handlers, level, propagate = list(EVENTS.handlers), EVENTS.level, EVENTS.propagate
    try:
        with redirect_stdout(io.StringIO()) as shown:
            wheel_tasks.maintain()
    finally:
        EVENTS.handlers[:], EVENTS.propagate = handlers, propagate
        EVENTS.setLevel(level)
    told = [json.loads(line) for line in shown.getvalue().splitlines()]
    assert [(one["event"], one["table"], one["archived"]) for one in told] == [
        ("maintenance.done", name, 1) for name in TABLES
    ]
    assert [row.run_key for row in spark.table(f"spark_catalog.{schema}.sync_runs_archive").collect()] == ["old"]
