"""The smoke test as its job runs it: it passes where all is well, says what is not, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import secrets
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_entry import smoke_test, wheel_tasks
from spark_entry.events import EVENTS
from spark_entry.secrets import Secrets
from spark_entry.smoke_test import Place, move_rows, require_scope
from sync_core.domain.errors import PermanentError
from tests.support.world import Events, watch_events

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def place(spark: SparkSession, tmp_path: Path) -> Generator[Place]:
    """A schema and a folder, as the bundle makes them."""
    name = f"smoke_{secrets.token_hex(5)}"
    spark.sql(f"CREATE SCHEMA spark_catalog.{name} LOCATION '{tmp_path / 'audit'}'")
    yield Place("spark_catalog", name, tmp_path / "runs")
    spark.sql(f"DROP SCHEMA spark_catalog.{name} CASCADE")


@pytest.fixture
def events() -> Generator[Events]:
    with watch_events() as seen:
        yield seen


@contextmanager
def console() -> Generator[io.StringIO]:
    """Standard output as a Databricks task has it: an object without a descriptor."""
    handlers, level, propagate = list(EVENTS.handlers), EVENTS.level, EVENTS.propagate
    with redirect_stdout(io.StringIO()) as shown:
        yield shown
    EVENTS.handlers[:], EVENTS.propagate = handlers, propagate
    EVENTS.setLevel(level)


def tables(spark: SparkSession, place: Place) -> set[str]:
    return {row.tableName for row in spark.sql(f"SHOW TABLES IN {place.catalog}.{place.schema}").collect()}


def move(spark: SparkSession, place: Place) -> None:
    move_rows(spark, place, Secrets({}), NOW)


def test_the_task_passes_and_leaves_nothing_but_audit_rows(
    spark: SparkSession, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark.sql(f"CREATE TABLE {place.catalog}.{place.schema}.uds_smoke_20200101000000_abc_source (x INT) USING delta")
    spark.sql(f"CREATE TABLE {place.catalog}.{place.schema}.uds_smoke_99990101000000_abc_source (x INT) USING delta")
    parameters = ["--catalog", place.catalog, "--schema", place.schema, "--folder", str(place.folder)]
    monkeypatch.setattr(sys, "argv", ["uds-smoke-test", *parameters, "--secret-scope", ""])
    with console() as shown:
        wheel_tasks.smoke()
    told = [json.loads(line) for line in shown.getvalue().splitlines()]
    assert told[-1]["event"] == "smoke.passed"
    assert [one["state"] for one in told if one["event"] == "run.finished"] == ["succeeded", "succeeded", "unchanged"]
    assert tables(spark, place) == {"sync_runs", "sync_watermarks", "uds_smoke_99990101000000_abc_source"}
    assert list(place.folder.iterdir()) == []
    runs = spark.table(f"{place.catalog}.{place.schema}.sync_runs").collect()
    assert {(row.pipeline_id, row.rows_inserted, row.rows_updated) for row in runs} == {
        ("uds_smoke_test", 1000, 0),
        ("uds_smoke_test", 30, 20),
        ("uds_smoke_test", 0, 0),
    }


def test_everything_that_is_wrong_is_told_at_once(spark: SparkSession, place: Place, events: Events) -> None:
    """A row too many at the source, one spoilt in the target, and an audit table that the engine cannot write.

    The last fails no run, and nobody else would miss its rows.
    """
    spark.sql(f"CREATE TABLE {place.catalog}.{place.schema}.sync_runs (other INT) USING parquet")

    def spoil(event: str, fields: Mapping[str, Any]) -> None:
        ended = len([name for name, _ in events.seen if name == "batch.finished"])
        if event == "batch.finished" and ended == 1:
            (source,) = (name for name in tables(spark, place) if name.endswith("_source"))
            row = f"({smoke_test.ROWS + smoke_test.ADDED}, 'more', TIMESTAMP_NTZ '2024-02-03 00:00:00')"
            spark.sql(f"INSERT INTO {place.catalog}.{place.schema}.{source} VALUES {row}").collect()
        if event == "batch.finished" and ended == 3:
            (target,) = (name for name in tables(spark, place) if name.endswith("_target"))
            spark.sql(f"UPDATE {place.catalog}.{place.schema}.{target} SET name = 'spoilt' WHERE id = 500").collect()

    with events.listening(spoil), pytest.raises(PermanentError) as raised:
        move(spark, place)
    assert raised.value.code == "smoke.failed"
    for sentence in (
        "rows inserted by the second load must be 30, but is 31",
        "the watermark after the second load must be",
        "the number of rows missing in the target must be 0, but is 1",
        "the number of rows only in the target must be 0, but is 1",
        "the audit table sync_runs cannot be read",
    ):
        assert sentence in raised.value.message
    assert not [name for name in tables(spark, place) if name.startswith("uds_smoke_")]
    assert list(place.folder.iterdir()) == []


def test_a_load_that_fails_is_told_with_its_cause(spark: SparkSession, place: Place, events: Events) -> None:
    def drop_the_target(event: str, fields: Mapping[str, Any]) -> None:
        if event == "batch.finished" and [name for name, _ in events.seen].count(event) == 1:
            (target,) = (name for name in tables(spark, place) if name.endswith("_target"))
            spark.sql(f"DROP TABLE {place.catalog}.{place.schema}.{target}").collect()

    with events.listening(drop_the_target), pytest.raises(PermanentError, match=r"the second load failed: .* is gone"):
        move(spark, place)


def test_what_is_missing_is_named(spark: SparkSession, place: Place, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"The schema spark_catalog\.nowhere is not there"):
        move(spark, Place("spark_catalog", "nowhere", place.folder))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PermanentError, match=r"The run folder .*/file cannot be written: Not a directory\."):
        move(spark, Place(place.catalog, place.schema, tmp_path / "file"))
    assert tables(spark, place) == set()


def test_a_secret_scope_that_cannot_be_read_is_named() -> None:
    def refused(scope: str) -> object:
        raise RuntimeError(f"PERMISSION_DENIED: user does not have READ on scope {scope}")

    asked: list[str] = []
    require_scope("data-sync", asked.append)
    assert asked == ["data-sync"]
    with pytest.raises(PermanentError, match=r"The secret scope data-sync cannot be read .* put-acl data-sync"):
        require_scope("data-sync", refused)
