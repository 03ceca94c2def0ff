"""The audit tables: a row a run, a row a commit, whatever happens to the batch; and never a failed run for their sake."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession

from spark_entry import audit
from spark_entry.audit import TABLES, Done, engine_version, write_audit
from spark_entry.batch import Batch
from spark_entry.ledger import LedgerEntry
from spark_entry.main import read_manifest
from spark_entry.secrets import Secrets
from sync_core.domain.pipeline import LoadMode, Pipeline, Source
from sync_core.domain.run import (
    Action,
    AuditPlace,
    Outcome,
    RowCounts,
    RunError,
    RunKind,
    RunOrder,
    RunResult,
    Seconds,
    Window,
    make_run_key,
)
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.launch import make_manifest
from tests.support.world import World

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MARK = Watermark(CursorType.TIMESTAMP_TZ, "2026-02-28T23:59:59.123456789Z")
DOCUMENT = Path(__file__).parents[2] / "docs/audit.md"


def result(
    run_key: str, finished: datetime = NOW, state: Outcome = Outcome.SUCCEEDED, name: str = "orders"
) -> RunResult:
    return RunResult(
        name, run_key, "batch", RunKind.BACKFILL, 2, state, "request", 7, 3, MARK,
        window=Window(None, MARK, MARK), rows=RowCounts(1, 2, 3, 4, 5, 6, 7, 8), counted_generation=3,
        seconds=Seconds(12.5, {"write": 10.25, "read": 1.0}), schema_changes=("column z is new",), notes=("it's 'so' \\ \n",),
        error=RunError("x.failed", "permanent", "pa55 was refused", "Change pa55.") if state is Outcome.FAILED else None,
        started_at=finished - timedelta(seconds=12.5), finished_at=finished,
    )  # fmt: skip


def entry(run_key: str, committed: datetime = NOW) -> LedgerEntry:
    return LedgerEntry("orders", 7, 3, MARK, run_key, RunKind.BACKFILL, "f", committed_at=committed.isoformat())


def write(
    spark: SparkSession, folder: Path, batch_id: str, *done: Done, now: datetime = NOW, kept_days: int = 400
) -> None:
    place = AuditPlace(path=str(folder), kept_days=kept_days)
    write_audit(spark, place, batch_id, done, now, lambda text: text.replace("pa55", "***"))


def rows(spark: SparkSession, folder: Path, table: str = "sync_runs") -> list[Row]:
    return spark.read.format("delta").load(str(folder / table)).orderBy("run_key").collect()


def test_each_column_holds_what_the_result_says(spark: SparkSession, lake: Path) -> None:
    failed = result("b", state=Outcome.FAILED)
    write(spark, lake, "batch", Done(result("a"), entry("a")), Done(replace(failed, window=None, watermark=None)))
    one, two = rows(spark, lake)
    clock = NOW.replace(tzinfo=None)
    assert one.asDict() == {
        "run_date": clock.date(), "pipeline_id": "orders", "run_key": "a", "batch_id": "batch", "kind": "backfill",
        "attempt": 2, "request_id": "request", "state": "succeeded", "epoch": 7, "generation": 3, "counted_generation": 3,
        "watermark_type": "timestamp_tz", "watermark": MARK.value, "window_low": None, "window_high": MARK.value,
        "window_read_bound": MARK.value, "rows_read": 1, "rows_inserted": 2, "rows_updated": 3, "rows_deleted": 4,
        "rows_null_cursor": 5, "rows_null_keys": 6, "rows_future": 7, "rows_older": 8, "seconds_total": 12.5,
        "seconds": {"write": 10.25, "read": 1.0}, "schema_changes": ["column z is new"], "notes": ["it's 'so' \\ \n"],
        "error_code": None, "error_kind": None, "error_message": None, "error_remedy": None,
        "started_at": clock - timedelta(seconds=12.5), "finished_at": clock, "engine_version": engine_version(),
    }  # fmt: skip
    assert (two.state, two.watermark, two.window_high, two.error_code) == ("failed", None, None, "x.failed")
    assert (two.error_message, two.error_remedy) == ("*** was refused", "Change ***.")
    (commit,) = rows(spark, lake, "sync_watermarks")
    assert commit.asDict() == {
        "commit_date": clock.date(), "pipeline_id": "orders", "epoch": 7, "generation": 3, "watermark_type": "timestamp_tz",
        "watermark": MARK.value, "run_key": "a", "committed_at": clock,
    }  # fmt: skip
    assert not [path for path in lake.rglob("*") if path.is_file() and b"pa55" in path.read_bytes()]


def test_p23_a_batch_executed_again_does_not_double_its_rows(spark: SparkSession, lake: Path) -> None:
    write(spark, lake, "one", Done(result("a"), entry("a")))
    write(spark, lake, "two", Done(result("b"), entry("b")))
    write(spark, lake, "one", Done(replace(result("a"), state=Outcome.UNCHANGED), entry("a")))
    for table in TABLES:
        assert [row.run_key for row in rows(spark, lake, table)] == ["a", "b"]


def test_batches_at_once_do_not_disturb_each_other_even_while_the_tables_are_made(
    spark: SparkSession, lake: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"batch-{number}" for number in range(4)]
    twice = [*names, *names[:2]]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: write(spark, lake, name, Done(result(name), entry(name))), twice))
    assert "could not be written" not in caplog.text
    for table in TABLES:
        assert [row.run_key for row in rows(spark, lake, table)] == names


def test_old_rows_are_deleted_once_a_day(spark: SparkSession, lake: Path) -> None:
    old = NOW - timedelta(days=401)
    write(
        spark,
        lake,
        "one",
        Done(result("old", old), entry("old", old)),
        Done(result("new"), entry("new")),
        kept_days=500,
    )
    write(spark, lake, "two", Done(result("kept", NOW - timedelta(days=400))), now=NOW)
    assert [row.run_key for row in rows(spark, lake)] == ["kept", "new"]
    assert [row.run_key for row in rows(spark, lake, "sync_watermarks")] == ["new"]
    write(spark, lake, "three", Done(result("old", old)), now=NOW + timedelta(hours=1))
    assert "old" in [row.run_key for row in rows(spark, lake)], "it is deleted by the next day's first batch"
    write(spark, lake, "four", now=NOW + timedelta(days=1))
    assert [row.run_key for row in rows(spark, lake)] == ["new"]
    history = spark.sql(f"DESCRIBE HISTORY delta.`{lake}/sync_runs`").select("operation").collect()
    assert [row.operation for row in history].count("DELETE") == 2


def test_a_column_of_a_later_release_is_added(spark: SparkSession, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = {name: kind for name, kind in audit.RUNS.items() if name != "engine_version"}
    with monkeypatch.context() as before:
        before.setattr(audit, "TABLES", {"sync_runs": older})
        write(spark, lake, "one", Done(result("a")))
    write(spark, lake, "two", Done(result("b")))
    assert [row.engine_version for row in rows(spark, lake)] == [None, engine_version()]


def batch(world: World, place: AuditPlace | None, *pipelines: Pipeline, action: Action = Action.RUN) -> list[RunResult]:
    """One batch as the engine's entry runs it; executed again when it is asked for again."""
    orders = [RunOrder(make_run_key(one.pipeline_id, "x", 1), one, RunKind.INCREMENTAL) for one in pipelines]
    manifest = replace(make_manifest(f"b-{action.value}", orders, world.connections, action), audit=place)
    path = Path(world.app().folder.write_manifest(manifest))
    return Batch(world.spark, read_manifest(path), Secrets(world.environment), lambda _: None).run()


def test_a_batch_leaves_a_row_for_each_run_and_the_documented_questions_have_answers(world: World) -> None:
    world.orders((1, "a", "2024-01-01"))
    pipelines = [
        *world.pipelines(),
        replace(world.pipeline("delta"), pipeline_id="broken", source=Source("pg", "nothing")),
    ]
    place = AuditPlace(path=str(world.folder / "audit"))
    batch(world, place, *pipelines, action=Action.PLAN)
    assert not (world.folder / "audit").exists()
    first = {one.pipeline_id: one for one in batch(world, place, *pipelines)}
    batch(world, place, *pipelines)
    found = {row.pipeline_id: row for row in rows(world.spark, world.folder / "audit")}
    assert {name: row.state for name, row in found.items()} == {name: one.state.value for name, one in first.items()}
    assert len(found) == 3
    for pipeline in pipelines[:2]:
        row = found[pipeline.pipeline_id]
        assert (row.rows_read, row.rows_inserted, row.counted_generation) == (1, 1, 1)
    assert found["broken"].error_code == "source.missing"
    commits = rows(world.spark, world.folder / "audit", "sync_watermarks")
    assert {(row.pipeline_id, row.generation, row.watermark) for row in commits} == {
        (pipeline.pipeline_id, 1, "2024-01-01T00:00:00") for pipeline in pipelines[:2]
    }
    answers = [world.spark.sql(question).collect() for question in questions(world.folder / "audit")]
    last, moved, failed = answers
    assert {row.pipeline_id for row in last} == {pipeline.pipeline_id for pipeline in pipelines[:2]}
    assert {(row.pipeline_id, row.runs, row.rows_written) for row in moved} >= {(pipelines[0].pipeline_id, 1, 1)}
    assert [(row.pipeline_id, row.error_code, row.times) for row in failed] == [("broken", "source.missing", 1)]


def questions(folder: Path) -> list[str]:
    found = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 3
    return [re.sub(r"FROM (\w+)", lambda match: f"FROM delta.`{folder}/{match[1]}`", text) for text in found]


def test_every_column_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for table, columns in TABLES.items():
        section = text.partition(f"## `{table}`")[2].partition("\n## ")[0]
        documented = re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE)))
        assert documented == list(columns), table


def test_audit_rows_that_cannot_be_written_fail_no_run(world: World) -> None:
    world.orders((1, "a", "2024-01-01"))
    (world.folder / "audit").write_text("not a folder")
    (done,) = batch(world, AuditPlace(path=str(world.folder / "audit")), world.pipeline("delta", LoadMode.MERGE))
    assert (done.state, done.error) == (Outcome.SUCCEEDED, None)
    failed = [fields for name, fields in world.events.seen if name == "audit.failed"]
    assert [one["table"] for one in failed] == list(TABLES)
    assert all(one["message"] and one["code"] for one in failed), json.dumps(failed)
