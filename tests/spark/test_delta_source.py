"""Delta tables as sources: the probe, filters on every cursor type, and the table's own versions."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pyspark.sql import SparkSession

from spark_entry.adapters.base import CURSOR_DIGITS
from spark_entry.adapters.databricks import DatabricksAdapter
from spark_entry.batch import Batch
from spark_entry.secrets import Secrets
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError, PermanentError
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, ReadOptions, Source, Target
from sync_core.domain.run import Manifest, Outcome, RunKind, RunOrder, RunResult
from sync_core.domain.watermark import CursorType, Watermark
from tests.spark.delta_tables import adapter

TYPES = "id int, at timestamp_ntz, z timestamp, day date, price decimal(12,3), name string, ratio double"


@pytest.fixture
def source(spark: SparkSession, lake: Path) -> DatabricksAdapter:
    made = adapter(spark, lake)
    made.spark.sql(f"CREATE TABLE {made.tables.sql_of('orders')} ({TYPES}) USING DELTA")
    return made


def insert(source: DatabricksAdapter, values: str) -> None:
    source.spark.sql(f"INSERT INTO {source.tables.sql_of('orders')} VALUES {values}")


def row(number: int, at: str, price: str = "1.5") -> str:
    return f"({number}, timestamp_ntz'{at}', timestamp'{at}', date'{at[:10]}', {price}, 'a', 1.0)"


def test_probe_and_filter(source: DatabricksAdapter) -> None:
    insert(
        source,
        f"{row(1, '2024-01-01 10:00:00.123456')}, {row(2, '9999-12-31 00:00:00', '99.125')}, "
        f"{row(3, '0001-01-01 00:00:00', '-7')}, (4, NULL, NULL, NULL, NULL, 'b', 2.0)",
    )
    relation = source.describe_source(Source("lake", table="orders"), {})
    assert relation.version == 1
    expected = {
        ("at", CursorType.TIMESTAMP): ("2024-01-01T10:00:00.123456", "9999-12-31T00:00:00", 1),
        ("z", CursorType.TIMESTAMP_TZ): ("2024-01-01T10:00:00.123456Z", "9999-12-31T00:00:00Z", 1),
        ("day", CursorType.DATE): ("2024-01-01", "9999-12-31", 1),
        ("price", CursorType.NUMBER): (None, "99.125", 0),
    }
    for (column, kind), (safe, highest, future) in expected.items():
        cursor = Cursor(column, kind)
        before = datetime.now(UTC)
        probe = source.probe_cursor(relation, cursor)
        assert before <= probe.clock <= datetime.now(UTC)
        assert probe.safe == (Watermark(kind, safe) if safe else None)
        assert probe.highest == Watermark(kind, highest)
        assert (probe.nulls, probe.future) == (1, future)
        mark = probe.safe or Watermark(kind, "1.5")
        assert found(source, cursor, mark, mark) == {1}
        assert found(source, cursor, mark, None) == {1, 2}
        assert found(source, cursor, None, mark, with_nulls=True) == {1, 3, 4}
    finer = Watermark(CursorType.TIMESTAMP, "2024-01-01T10:00:00.1234564")
    assert found(source, Cursor("at", CursorType.TIMESTAMP), finer, finer) == {1}
    finer = Watermark(CursorType.NUMBER, "1.50001")
    assert found(source, Cursor("price", CursorType.NUMBER), finer, finer) == {1}
    assert found(source, Cursor("id", CursorType.NUMBER), finer, Watermark(CursorType.NUMBER, "3")) == {1, 2, 3}


def found(
    source: DatabricksAdapter,
    cursor: Cursor,
    low: Watermark | None,
    high: Watermark | None,
    *,
    with_nulls: bool = False,
) -> set[int]:
    relation = source.describe_source(Source("lake", table="orders"), {})
    condition = source.get_incremental_filter(relation, cursor, low, high, with_nulls)
    plan = source.plan_read(relation, relation.columns, cursor, condition, ReadOptions())
    return {int(found["id"]) for found in source.read_data(plan).select("id").collect()}


def test_a_clock_in_the_zone_the_values_are_written_in(source: DatabricksAdapter) -> None:
    zone = "Pacific/Auckland"
    there = datetime.now(ZoneInfo(zone)).replace(tzinfo=None)
    insert(source, f"{row(1, str(there - timedelta(minutes=5)))}, {row(2, str(there + timedelta(minutes=5)))}")
    relation = source.describe_source(Source("lake", table="orders"), {})
    probe = source.probe_cursor(relation, Cursor("at", CursorType.TIMESTAMP, timezone=zone))
    assert probe.safe == Watermark.parse(CursorType.TIMESTAMP, str(there - timedelta(minutes=5)))
    assert probe.future == 1
    assert probe.daylight_saving
    in_utc = source.probe_cursor(relation, Cursor("at", CursorType.TIMESTAMP))
    assert (in_utc.safe, in_utc.future, in_utc.daylight_saving) == (None, 2, False)
    with pytest.raises(ConfigError, match="no time zone"):
        source.probe_cursor(relation, Cursor("at", CursorType.TIMESTAMP, timezone="Mars/Base"))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("name", CursorType.NUMBER),
        ("ratio", CursorType.NUMBER),
        ("z", CursorType.TIMESTAMP),
        ("day", CursorType.NUMBER),
    ],
)
def test_cursors_without_a_sure_order_are_refused(source: DatabricksAdapter, column: str, kind: CursorType) -> None:
    relation = source.describe_source(Source("lake", table="orders"), {})
    with pytest.raises(PermanentError) as raised:
        source.probe_cursor(relation, Cursor(column, kind))
    assert raised.value.code == "cursor.type"


def test_sources_that_are_not_there(source: DatabricksAdapter, lake: Path) -> None:
    (lake / "empty").mkdir()
    source.spark.sql("SELECT 1 AS id").write.parquet(str(lake / "parquet"))
    for name in ("missing", "empty", "parquet"):
        with pytest.raises(PermanentError) as raised:
            source.describe_source(Source("lake", table=name), {})
        assert raised.value.code == "source.missing"
        assert name in raised.value.message
    named = DatabricksAdapter(Connection("lake", "databricks"), source.spark, source.secret)
    for name in ("nowhere", "noschema.nowhere", "nocatalog.noschema.nowhere"):
        with pytest.raises(PermanentError) as raised:
            named.describe_source(Source("lake", table=name), {})
        assert raised.value.code == "source.missing"


def test_every_read_sees_the_version_that_was_described(source: DatabricksAdapter) -> None:
    insert(source, row(1, "2024-01-01 10:00:00"))
    relation = source.describe_source(Source("lake", table="orders"), {})
    insert(source, row(2, "2024-01-01 10:00:00"))
    plan = source.plan_read(relation, relation.columns, None, None, ReadOptions())
    assert plan.snapshot == "version 1"
    assert source.read_data(plan).count() == 1


Sync = Callable[..., RunResult]


@pytest.fixture
def sync(spark: SparkSession, lake: Path, monkeypatch: pytest.MonkeyPatch) -> Sync:
    """Run one pipeline whose cursor is the source's version, as the engine runs it."""
    last: dict[str, RunResult] = {}
    connections = {"lake": Connection("lake", "databricks", path=str(lake))}

    def run(mode: LoadMode, kind: RunKind = RunKind.INCREMENTAL) -> RunResult:
        keys = ("id",) if mode is LoadMode.MERGE else ()
        cursor = Cursor("", CursorType.VERSION)
        pipeline = Pipeline("copy", Source("lake", table="source"), Target("lake", "copy"), mode, cursor, keys)
        before = last.get("result")
        order = RunOrder(
            secrets.token_hex(32),
            pipeline,
            kind,
            attempt=1,
            epoch=before.epoch if before else 0,
            generation=before.generation if before else 0,
            watermark=before.watermark if before else None,
        )
        manifest = Manifest("batch", connections, (order,))
        done = Batch(spark, manifest, Secrets({}), lambda _result: None).run()[0]
        if done.state is not Outcome.FAILED:
            last["result"] = done
        return done

    return run


@pytest.fixture
def table(spark: SparkSession, lake: Path) -> Callable[[str], None]:
    name = f"delta.`{lake}/source`"
    spark.sql(
        f"CREATE TABLE {name} (id int, name string) USING DELTA TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')"
    )
    spark.sql(f"INSERT INTO {name} VALUES (1, 'a'), (2, 'b')")
    return lambda statement: spark.sql(statement.replace("TABLE_NAME", name)) and None


def copied(spark: SparkSession, lake: Path) -> list[tuple[object, ...]]:
    return sorted(tuple(row) for row in spark.sql(f"SELECT * FROM delta.`{lake}/copy`").collect())


def test_versions_append_what_is_new_even_if_it_looks_the_same(
    spark: SparkSession, lake: Path, sync: Sync, table: Callable[[str], None]
) -> None:
    first = sync(LoadMode.INCREMENTAL)
    assert (first.error, first.state, first.watermark) == (None, Outcome.SUCCEEDED, Watermark(CursorType.VERSION, "1"))
    assert sync(LoadMode.INCREMENTAL).state is Outcome.UNCHANGED
    table("INSERT INTO TABLE_NAME VALUES (1, 'a')")
    table("OPTIMIZE TABLE_NAME")
    table("UPDATE TABLE_NAME SET name = 'B' WHERE id = 2")
    second = sync(LoadMode.INCREMENTAL)
    assert (second.error, second.rows.inserted, second.watermark) == (None, 2, Watermark(CursorType.VERSION, "4"))
    assert copied(spark, lake) == [(1, "a"), (1, "a"), (2, "B"), (2, "b")]
    assert sync(LoadMode.INCREMENTAL).state is Outcome.UNCHANGED


def test_versions_merge_the_last_change_of_each_key(
    spark: SparkSession, lake: Path, sync: Sync, table: Callable[[str], None]
) -> None:
    assert sync(LoadMode.MERGE).error is None
    table("UPDATE TABLE_NAME SET name = 'z first' WHERE id = 1")
    table("UPDATE TABLE_NAME SET name = 'a last' WHERE id = 1")
    table("INSERT INTO TABLE_NAME VALUES (3, 'c')")
    again = sync(LoadMode.MERGE)
    assert (again.error, again.rows.inserted, again.rows.updated) == (None, 1, 1)
    assert copied(spark, lake) == [(1, "a last"), (2, "b"), (3, "c")]
    table("ALTER TABLE TABLE_NAME SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'false')")
    table("INSERT INTO TABLE_NAME VALUES (4, 'd')")
    blind = sync(LoadMode.MERGE)
    assert blind.error is not None
    assert blind.error.code == "source.no_change_feed"
    assert "uds run copy --full-refresh" in blind.error.remedy
    refreshed = sync(LoadMode.MERGE, RunKind.FULL_REFRESH)
    assert (refreshed.error, len(copied(spark, lake))) == (None, 4)


def test_a_change_feed_across_renamed_columns_names_the_command_that_mends_it(
    spark: SparkSession, lake: Path, sync: Sync, table: Callable[[str], None]
) -> None:
    table("ALTER TABLE TABLE_NAME SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    assert sync(LoadMode.MERGE).error is None
    table("INSERT INTO TABLE_NAME VALUES (3, 'c')")
    table("ALTER TABLE TABLE_NAME RENAME COLUMN name TO title")
    table("INSERT INTO TABLE_NAME VALUES (4, 'd')")
    across = sync(LoadMode.MERGE)
    assert across.error is not None
    assert across.error.code == "source.columns_changed"
    assert "uds run copy --full-refresh" in across.error.remedy
    refreshed = sync(LoadMode.MERGE, RunKind.FULL_REFRESH)
    assert (refreshed.error, len(copied(spark, lake))) == (None, 4)


def test_a_change_feed_says_its_version(source: DatabricksAdapter) -> None:
    relation = source.describe_source(Source("lake", table="orders"), {})
    cursor = Cursor("", CursorType.VERSION)
    low, high = Watermark(CursorType.VERSION, "3"), Watermark(CursorType.VERSION, "5")
    condition = source.get_incremental_filter(relation, cursor, low, high, False)
    plan = source.plan_read(relation, relation.columns[:1], cursor, condition, ReadOptions())
    assert CURSOR_DIGITS in plan.statements[0]
    assert plan.statements[0].endswith(", 4, 5) WHERE _change_type IN ('insert', 'update_postimage')")
