"""Delta tables as targets: the fence, what a merge may change, and names, types and places of every kind."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_entry.adapters.base import Column, WriteRequest
from spark_entry.adapters.databricks import DatabricksAdapter
from spark_entry.adapters.delta_table import APPEARING_PAUSE, DeltaTables
from sync_core.domain.connection import Connection
from sync_core.domain.errors import FenceLost, PermanentError, RetryableError
from sync_core.domain.pipeline import Cursor, Target
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import CursorType, Watermark
from tests.spark.delta_tables import Loader, adapter

CONFS = (
    "spark.databricks.delta.write.txnAppId",
    "spark.databricks.delta.write.txnVersion",
    "spark.databricks.delta.commitInfo.userMetadata",
)


@pytest.fixture
def loader(spark: SparkSession, lake: Path) -> Loader:
    return Loader(adapter(spark, lake))


def names(loader: Loader) -> dict[object, object]:
    return {row[0]: row[1] for row in loader.held()}


def test_a_merge_changes_what_differs_and_leaves_no_confs(loader: Loader) -> None:
    first = loader.rows((1, "a", "2024-01-01"), (2, None, None), (3, "c", "2024-01-01"))
    loader.create(first, "id")
    assert loader.load(first, "id").inserted == 3
    counts = loader.load(loader.rows((1, "A", "2024-01-01"), (2, None, None), (4, "d", None)), "id")
    assert (counts.inserted, counts.updated) == (1, 1)
    assert names(loader) == {1: "A", 2: None, 3: "c", 4: "d"}
    assert [loader.spark.conf.get(name, None) for name in CONFS] == [None, None, None]
    state = loader.state()
    assert state.ledger is not None
    assert (state.ledger.generation, state.ledger.rows, state.ledger.holds_rows) == (2, 2, True)
    assert state.same_object
    assert loader.events == ["write.staged", "commit.started", "commit.done"] * 2


def test_p27_newest_wins_null_is_oldest(loader: Loader) -> None:
    first = loader.rows((1, "new", "2024-02-02"), (2, "new", "2024-02-02"), (3, "none", None))
    loader.create(first, "id")
    loader.load(first, "id")
    counts = loader.load(loader.rows((1, "old", "2024-02-01"), (2, "old", None), (3, "newer", "2024-01-01")), "id")
    assert (counts.inserted, counts.updated) == (0, 1)
    assert names(loader) == {1: "new", 2: "new", 3: "newer"}


def test_p28_a_future_date_that_was_corrected_is_taken(loader: Loader) -> None:
    first = loader.rows((1, "typed wrongly", "2204-01-01"), (2, "kept", "2024-03-01"))
    loader.create(first, "id")
    loader.load(first, "id")
    bound = Watermark(CursorType.TIMESTAMP, "2024-06-01T00:00:00")
    correction = loader.rows((1, "corrected", "2024-01-01"), (2, "older", "2024-02-01"))
    assert loader.load(correction, "id", bound=bound).updated == 1
    assert names(loader) == {1: "corrected", 2: "kept"}


def test_a_failing_merge_leaves_nothing_behind(loader: Loader) -> None:
    first = loader.rows((1, "a", None))
    loader.create(first, "id")
    loader.load(first, "id")
    broken = first.withColumn("name", F.raise_error(F.lit("broken on purpose")).cast("string"))
    with pytest.raises(PySparkException, match="broken on purpose"):
        loader.load(broken, "id")
    assert [loader.spark.conf.get(name, None) for name in CONFS] == [None, None, None]
    assert loader.spark.catalog.listTables() == []
    state = loader.state()
    assert state.ledger is not None
    assert state.ledger.generation == 1


@pytest.mark.parametrize(
    ("keys", "kind"), [((), RunKind.INCREMENTAL), (("id",), RunKind.INCREMENTAL), ((), RunKind.FULL_REFRESH)]
)
def test_of_two_writers_one_commits(spark: SparkSession, lake: Path, keys: tuple[str, ...], kind: RunKind) -> None:
    loaders = [Loader(adapter(spark, lake)) for _ in range(2)]
    start = loaders[0].rows((0, "start", None))
    loaders[0].create(start, *keys)
    loaders[0].load(start, *keys)
    together = Barrier(2, timeout=60)

    def meet(name: str, **_fields: object) -> None:
        """Both have passed the look at the ledger: only Delta's own transaction version is left."""
        if name == "commit.started":
            together.wait()

    requests = [
        loader.request(loader.rows((0, f"by {number}", "2024-01-01")), *keys, kind=kind, event=meet)
        for number, loader in enumerate(loaders)
    ]

    def write(number: int) -> str:
        try:
            loaders[number].adapter.write_data(requests[number])
        except FenceLost:
            return "lost"
        return "committed"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(write, range(2)))
    assert sorted(outcomes) == ["committed", "lost"]
    state = loaders[0].state()
    assert state.ledger is not None
    assert state.ledger.generation == 2
    assert state.ledger.run_key == requests[outcomes.index("committed")].entry.run_key
    assert len(loaders[0].held()) == (1 if keys or kind is RunKind.FULL_REFRESH else 2)


def test_a_late_writer_is_stopped_before_it_writes(loader: Loader) -> None:
    frame = loader.rows((1, "a", None))
    loader.create(frame)
    late = loader.request(frame)
    loader.load(frame)
    with pytest.raises(FenceLost):
        loader.adapter.write_data(late)
    assert len(loader.held()) == 1


@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_load_that_delta_skips_in_silence_is_an_error(loader: Loader, keys: tuple[str, ...]) -> None:
    frame = loader.rows((1, "a", None))
    loader.create(frame, *keys)
    loader.adapter.write_data(loader.request(frame, *keys, generation=5))
    skipped = loader.request(loader.rows((2, "b", None)), *keys, generation=5)
    with pytest.raises(PermanentError) as raised:
        loader.adapter.write_data(skipped)
    assert raised.value.code == "ledger.skipped"
    assert len(loader.held()) == 1


def test_a_commit_whose_answer_was_lost_is_found(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = loader.rows((1, "a", None))
    loader.create(frame)
    write = loader.adapter._write

    def write_and_break(request: WriteRequest) -> None:
        write(request)
        raise RuntimeError("connection reset")

    monkeypatch.setattr(loader.adapter, "_write", write_and_break)
    assert loader.load(frame).inserted == 1


def test_p15_readers_of_a_full_refresh_see_old_or_new(loader: Loader) -> None:
    old = loader.spark.range(500).selectExpr("id", "'old' AS name", "CAST(NULL AS timestamp_ntz) AS at")
    loader.create(old)
    loader.load(old)
    ended = Event()
    seen: set[tuple[object, ...]] = set()

    def look() -> None:
        session = loader.spark.newSession()
        while not ended.is_set():
            rows = session.sql(f"SELECT name, COUNT(*) FROM {loader.table} GROUP BY name").collect()
            seen.add(tuple(sorted(tuple(row) for row in rows)))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            loader.load(old.selectExpr("id + 1 AS id", "'new' AS name", "at"), kind=RunKind.FULL_REFRESH)
        finally:
            ended.set()
        looking.result()
    assert seen <= {(("old", 500),), (("new", 500),)}
    assert {row[1] for row in loader.held()} == {"new"}


def test_columns_come_later_and_widen(loader: Loader) -> None:
    start = loader.spark.sql("SELECT 1 AS id, CAST(1.5 AS decimal(5,1)) AS price")
    loader.cursor = None
    loader.create(start, "id")
    loader.load(start, "id")
    loader.evolve(
        added=(Column("seen at", "timestamp_ntz", ""), Column("plain", "timestamp_ntz", "")),
        widened=(Column("id", "bigint", ""), Column("price", "decimal(9,3)", "")),
    )
    state = loader.state()
    assert state.ledger is not None
    assert {column.name: column.type for column in state.columns} == {
        "id": "bigint", "price": "decimal(9,3)", "seen at": "timestamp_ntz", "plain": "timestamp_ntz",
    }  # fmt: skip
    more = loader.spark.sql(
        "SELECT 9000000000L AS id, CAST(2.125 AS decimal(9,3)) AS price, timestamp_ntz'2024-01-01' AS `seen at`, "
        "CAST(NULL AS timestamp_ntz) AS plain"
    )
    assert loader.load(more, "id").inserted == 1
    after = loader.state()
    assert after.ledger is not None
    assert after.ledger.generation == 2
    assert {str(row[0]): str(row[1]) for row in loader.held()} == {"1": "1.500", "9000000000": "2.125"}


def test_p05_a_column_that_another_run_has_added_meanwhile_is_tried_again(loader: Loader) -> None:
    loader.create(loader.rows((1, "a", None)), "id")
    more = (Column("more", "string", ""),)
    statements = loader.adapter.evolve_statements(loader.target, more, ())
    loader.evolve(added=more)
    with pytest.raises(RetryableError) as raised:
        loader.adapter.prepare_target(loader.target, "orders", statements)
    assert raised.value.code == "target.conflict"


def test_the_first_and_the_last_year_survive(loader: Loader) -> None:
    frame = loader.spark.sql(
        "SELECT 1 AS id, date'0001-01-01' AS d, timestamp_ntz'0001-01-01 00:00:00' AS at, timestamp'0001-01-02 00:00:00' AS z "
        "UNION ALL SELECT 2, date'9999-12-31', timestamp_ntz'9999-12-31 23:59:59.999999', timestamp'9999-12-30 23:59:59.999999' "
        "UNION ALL SELECT 3, date'1582-10-10', timestamp_ntz'1582-10-10 00:00:00.000001', timestamp'1582-10-10 00:00:00'"
    )
    loader.create(frame, "id")
    loader.load(frame, "id")
    held = loader.adapter.read_target(loader.target, loader.state(), None)
    # As text: Python's own conversion of a moment in the year 1 fails.
    rows = held.selectExpr("CAST(d AS string)", "CAST(at AS string)", "CAST(z AS string)").collect()
    assert {tuple(row) for row in rows} == {
        ("0001-01-01", "0001-01-01 00:00:00", "0001-01-02 00:00:00"),
        ("9999-12-31", "9999-12-31 23:59:59.999999", "9999-12-30 23:59:59.999999"),
        ("1582-10-10", "1582-10-10 00:00:00.000001", "1582-10-10 00:00:00"),
    }


TRICKY = ("Order Id", "a.b", "back`tick", 'say "x"', "it's", "select", "ä=(1)")


@pytest.mark.parametrize("keys", [(), ("Order Id", "a.b")])
def test_p18_names_with_any_characters(spark: SparkSession, tmp_path: Path, keys: tuple[str, ...]) -> None:
    lake = tmp_path / "my la`ke. it's"
    loader = Loader(adapter(spark, lake), Target("lake", "`sil.ver`.`or``der s`"), cursor="it's")
    columns = ", ".join(
        f"CAST({number} AS bigint) AS `{name.replace('`', '``')}`" for number, name in enumerate(TRICKY)
    )
    frame = loader.spark.sql(f"SELECT {columns}")
    loader.create(frame, *keys)
    bound = Watermark(CursorType.NUMBER, "10")
    assert loader.load(frame, *keys, bound=bound).inserted == 1
    if keys:
        changed = frame.withColumn("select", F.lit(50).cast("bigint"))
        assert loader.load(changed, *keys, bound=bound).updated == 1
    state = loader.state()
    assert tuple(column.name for column in state.columns) == TRICKY
    low = Watermark(CursorType.NUMBER, "4")
    cursor = Cursor("it's", CursorType.NUMBER)
    condition = loader.adapter.target_filter(state, "it's", cursor, low, low, with_nulls=False)
    assert loader.adapter.read_target(loader.target, state, condition).count() == 1
    assert (lake / "sil.ver" / "or`der s" / "_delta_log").is_dir()


def test_p18_names_in_a_catalog(spark: SparkSession) -> None:
    connection = Connection("lake", "databricks", catalog="my cat", schema="it's")
    tables = DeltaTables(connection, spark)
    assert tables.sql_of("orders") == "`my cat`.`it's`.`orders`"
    assert tables.sql_of("`a.b`.`or``ders`") == "`my cat`.`a.b`.`or``ders`"
    assert tables.sql_of("x.y.z") == "`x`.`y`.`z`"


def test_tables_of_a_catalog(spark: SparkSession, lake: Path) -> None:
    connection = Connection("lake", "databricks", schema="uds_target_test")
    loader = Loader(DatabricksAdapter(connection, spark.newSession(), lambda _scope, _key: ""))
    loader.spark.sql(f"CREATE SCHEMA uds_target_test LOCATION '{lake}'")
    try:
        frame = loader.rows((1, "a", None))
        loader.create(frame)
        loader.load(frame)
        loader.load(frame, "id")
        loader.evolve(added=(Column("later", "int", ""),))
        before = loader.state()
        loader.load(frame.select("at", "id", "name"), kind=RunKind.FULL_REFRESH)
        state = loader.state()
        assert (state.object_id, state.columns) == (before.object_id, before.columns)
        assert [loader.spark.conf.get(name, None) for name in CONFS] == [None, None, None]
        ledger = state.ledger
        assert ledger is not None
        assert ledger.generation == 3
        assert loader.held() == [(1, "a", None, None)]
    finally:
        loader.spark.sql("DROP SCHEMA uds_target_test CASCADE")


def test_maps_are_compared(loader: Loader) -> None:
    loader.cursor = None
    frame = loader.spark.sql("SELECT 1 AS id, map('a', 1) AS m, named_struct('x', map('b', 2)) AS s")
    loader.create(frame, "id")
    loader.load(frame, "id")
    assert loader.load(frame, "id").updated == 0
    assert loader.load(frame.withColumn("m", F.expr("map('a', 2)")), "id").updated == 1


def test_places_without_a_delta_table(spark: SparkSession, lake: Path) -> None:
    loader = Loader(adapter(spark, lake))
    frame = loader.rows((1, "a", None))
    (lake / "empty").mkdir()
    frame.write.parquet(str(lake / "parquet"))
    for name in ("missing", "empty", "parquet"):
        loader.target = Target("lake", name)
        assert not loader.state().exists
        assert loader.adapter.read_ledger(loader.target, "orders") == ()
    with pytest.raises(PermanentError) as raised:
        loader.create(frame)
    assert raised.value.code == "target.not_delta"
    loader.target = Target("lake", "empty")
    loader.create(frame)
    assert loader.load(frame).inserted == 1


def test_a_table_that_another_is_about_to_create_is_not_taken_for_something_else(loader: Loader, lake: Path) -> None:
    """Who creates a table makes its folder before its first commit."""
    frame = loader.rows((1, "a", None))
    made = Loader(loader.adapter, Target("lake", "made"))
    made.create(frame)
    log = lake / loader.target.table / "_delta_log"
    log.mkdir(parents=True)
    (log / "half-written").touch()
    with ThreadPoolExecutor(1) as other:
        finished = other.submit(finish, lake / "made/_delta_log", log)
        with pytest.raises(RetryableError) as raised:
            loader.create(frame)
        finished.result()
    assert raised.value.code == "target.conflict"
    assert loader.load(frame).inserted == 1


def finish(made: Path, log: Path) -> None:
    time.sleep(APPEARING_PAUSE)
    shutil.copytree(made, log, dirs_exist_ok=True)
