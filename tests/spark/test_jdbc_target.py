"""JDBC databases as targets: one transaction, the fence, staging, newest wins."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_entry.adapters.base import Column
from spark_entry.adapters.jdbc_ledger import Ledger
from spark_entry.adapters.jdbc_staging import Staging, staging_prefix
from spark_entry.commit import Commit
from spark_entry.dialects.writing import LedgerTables
from sync_core.domain.errors import FenceLost, PermanentError, RetryableError
from sync_core.domain.pipeline import Target
from sync_core.domain.run import RunKind
from tests.spark.jdbc_databases import Database, Loader, columns_of

TRICKY = ("Order Id", 'say "x"', "select", "it's", "a]b", "a`b")


def orders(spark: SparkSession, *rows: tuple[int, str | None, str | None]) -> DataFrame:
    values = ", ".join(f"({key}, {text(name)}, CAST({text(at)} AS timestamp_ntz))" for key, name, at in rows)
    return spark.sql(f"SELECT * FROM VALUES {values} AS t(id, name, at)")


def text(value: str | None) -> str:
    return "CAST(NULL AS string)" if value is None else f"'{value}'"


@pytest.fixture
def loader(database: Database) -> Loader:
    return Loader(database.adapter(), Target("x", "orders"), cursor="at")


def names(loader: Loader) -> dict[int, object]:
    return {int(str(row[0])): row[1] for row in loader.held_rows()}


def test_first_load_creates_and_records(spark: SparkSession, loader: Loader) -> None:
    frame = orders(spark, (1, "a", "2024-01-01"), (2, "b", None))
    loader.create(frame, "id")
    counts = loader.load(frame, "id")
    assert (counts.inserted, counts.updated, counts.older) == (2, 0, 0)
    state = loader.adapter.inspect_target(loader.target, "orders")
    assert state.ledger is not None
    assert (state.ledger.generation, state.ledger.rows, state.ledger.holds_rows) == (1, 2, True)
    assert state.recent == (state.ledger,)
    assert state.has_rows
    assert state.same_object
    assert loader.events == ["write.staged", "commit.started", "commit.done"]
    assert loader.staging_tables() == []


def test_p03_merge_of_the_same_rows_changes_nothing(spark: SparkSession, loader: Loader) -> None:
    frame = orders(spark, (1, "a", "2024-01-01"), (2, None, None))
    loader.create(frame, "id")
    loader.load(frame, "id")
    again = loader.load(frame, "id")
    assert (again.inserted, again.updated, again.older) == (0, 0, 0)


def test_merge_updates_what_differs(spark: SparkSession, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    loader.load(orders(spark, (1, "a", "2024-01-01"), (2, "b", "2024-01-01"), (3, None, None)), "id")
    counts = loader.load(
        orders(spark, (1, "A", "2024-01-01"), (2, "b", "2024-01-02"), (3, "c", None), (4, "d", None)), "id"
    )
    assert (counts.inserted, counts.updated, counts.older) == (1, 3, 0)
    assert names(loader) == {1: "A", 2: "b", 3: "c", 4: "d"}


def test_p27_an_older_row_never_wins(spark: SparkSession, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    loader.load(orders(spark, (1, "new", "2024-02-02"), (2, "new", "2024-02-02"), (3, "none", None)), "id")
    counts = loader.load(orders(spark, (1, "old", "2024-02-01"), (2, "old", None), (3, "newer", "2024-01-01")), "id")
    assert (counts.inserted, counts.updated, counts.older) == (0, 1, 2)
    assert names(loader) == {1: "new", 2: "new", 3: "newer"}


def test_p28_a_future_date_that_was_corrected_is_replaced(spark: SparkSession, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    loader.load(orders(spark, (1, "typo", "9999-12-31 23:59:59.999999")), "id")
    assert loader.load(orders(spark, (1, "right", "2024-03-03")), "id").updated == 1
    assert names(loader) == {1: "right"}


def test_append_keeps_what_is_there(spark: SparkSession, loader: Loader) -> None:
    frame = orders(spark, (1, "a", "2024-01-01"))
    loader.create(frame)
    loader.load(frame)
    assert loader.load(frame).inserted == 1
    assert len(loader.held_rows()) == 2


def test_p15_full_refresh_replaces_in_the_same_transaction(spark: SparkSession, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    loader.load(orders(spark, (1, "a", None), (2, "b", None)), "id")
    counts = loader.load(orders(spark, (2, "B", None), (3, "C", None)), kind=RunKind.FULL_REFRESH)
    assert (counts.inserted, counts.deleted) == (2, 2)
    assert names(loader) == {2: "B", 3: "C"}
    # A refresh that fails half-way leaves the old rows.
    broken = orders(spark, (4, "x", None), (4, "x", None))
    with pytest.raises(RetryableError):
        loader.load(broken, kind=RunKind.FULL_REFRESH)
    assert names(loader) == {2: "B", 3: "C"}


def test_p05_the_second_of_two_runs_writes_nothing(spark: SparkSession, database: Database, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    other = Loader(database.adapter(), loader.target, "at")
    first, second = (
        loader.request(orders(spark, (1, "a", None)), "id"),
        other.request(orders(spark, (2, "b", None)), "id"),
    )
    loader.adapter.write_data(first)
    with pytest.raises(FenceLost):
        other.adapter.write_data(second)
    third, fourth = (
        loader.request(orders(spark, (3, "c", None)), "id"),
        other.request(orders(spark, (4, "d", None)), "id"),
    )
    other.adapter.write_data(fourth)
    with pytest.raises(FenceLost):
        loader.adapter.write_data(third)
    assert sorted(names(loader)) == [1, 4]
    assert loader.staging_tables() == []


def test_doubled_staging_is_staged_again_and_then_given_up(spark: SparkSession, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    with pytest.raises(RetryableError, match="other rows than were read"):
        loader.adapter.write_data(loader.request(orders(spark, (1, "a", None)), "id", rows=lambda rows: rows + 1))
    assert loader.events.count("write.staged") == 2
    assert loader.held_rows() == []
    answers = iter([7, 1])
    counts = loader.adapter.write_data(
        loader.request(orders(spark, (1, "a", None)), "id", rows=lambda _: next(answers))
    )
    assert counts.inserted == 1
    assert loader.staging_tables() == []


def test_p16_leftover_staging_is_dropped_by_the_next_run(
    spark: SparkSession, database: Database, loader: Loader
) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    mine, others = f"{staging_prefix('orders')}dead", f"{staging_prefix('another')}alive"
    for name in (mine, others):
        database.run(f"CREATE TABLE {database.name(name)} (a INTEGER)")
    loader.adapter.prepare_target(loader.target, "orders", ())
    assert loader.staging_tables() == [others]


def test_p16_a_failed_load_leaves_the_target_as_it_was(spark: SparkSession, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    loader.load(orders(spark, (1, "a", None)), "id")
    broken = orders(spark, (2, "b", None)).selectExpr("id", "raise_error('stop') AS name", "at")
    with pytest.raises(Exception, match="stop"):
        loader.load(broken.selectExpr("id", "CAST(name AS string) AS name", "at"), "id")
    assert names(loader) == {1: "a"}
    assert loader.staging_tables() == []
    state = loader.adapter.inspect_target(loader.target, "orders")
    assert state.ledger is not None
    assert state.ledger.generation == 1


def test_a_load_never_creates_its_staging_table(
    spark: SparkSession, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    request = loader.request(orders(spark, (1, "a", None)), "id")
    adapter = loader.adapter
    # A zombie: its staging table is dropped between its creation and its load.
    monkeypatch.setattr(Staging, "create", lambda _staging: None)
    with pytest.raises(RetryableError, match="was dropped by a later run"):
        adapter.write_data(request)
    assert loader.staging_tables() == []
    assert loader.held_rows() == []


def test_staging_dropped_before_the_commit_is_told(spark: SparkSession, database: Database, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    request = loader.request(orders(spark, (1, "a", None)), "id")
    name = database.name(f"{staging_prefix('orders')}{request.execution}")

    def drop_at(event: str, **_fields: object) -> None:
        if event == "write.staged":
            database.run(f"DROP TABLE {name}")

    with pytest.raises(RetryableError, match="was dropped by a later run"):
        loader.adapter.write_data(replace(request, event=drop_at))
    assert loader.held_rows() == []
    assert loader.load(orders(spark, (1, "a", None)), "id").inserted == 1


def test_ledger_keeps_the_last_hundred_runs(spark: SparkSession, loader: Loader) -> None:
    frame = orders(spark, (1, "a", None))
    loader.create(frame, "id")
    loader.load(frame, "id")
    connection = loader.adapter.open_target()
    schema = loader.adapter.connection.schema or connection.current_schema() or ""
    ledger = Ledger(connection, LedgerTables(loader.adapter.dialect, schema))
    entry, _ = ledger.read("orders")
    assert entry is not None
    for generation in range(2, 104):
        following = replace(entry, generation=generation, run_key=f"{generation:064}")
        with connection.transaction():
            ledger.take(entry, following)
            ledger.record(following)
        entry = following
    last, recent = ledger.read("orders")
    assert last == entry
    assert [run.generation for run in recent] == list(range(103, 3, -1))


def test_p18_identifiers_of_the_target_are_quoted(spark: SparkSession, database: Database) -> None:
    names = [name for name in TRICKY if database.kind != "oracle" or '"' not in name]
    columns = ", ".join("`" + name.replace("`", "``") + "`" for name in names)
    loader = Loader(database.adapter(), Target("x", '"My Orders; DROP TABLE x"'), cursor=None)
    values = ", ".join(f"'v{index}'" for index in range(len(names)))
    frame = spark.sql(f"SELECT * FROM VALUES ({values}) AS t({columns})")
    loader.create(frame, names[0])
    loader.load(frame, names[0])
    assert loader.load(frame, names[0]).updated == 0
    assert loader.load(frame.withColumn("select", F.lit("changed")), names[0]).updated == 1
    state = loader.adapter.inspect_target(loader.target, "orders")
    assert [column.name for column in state.columns] == names
    expected = ["changed" if name == "select" else f"v{index}" for index, name in enumerate(names)]
    assert loader.held_rows() == [tuple(expected)]


def test_evolution_adds_and_widens(spark: SparkSession, loader: Loader) -> None:
    loader.create(orders(spark, (1, "a", None)), "id")
    wide = spark.sql("SELECT 1 AS id, 'a' AS name, CAST(NULL AS timestamp_ntz) AS at, 'x' AS more, 1.5BD AS price")
    added = tuple(column for column in columns_of(wide) if column.name in ("more", "price"))
    widened = (Column("id", "bigint", "", nullable=False),)
    statements = loader.adapter.evolve_statements(loader.target, added, widened)
    loader.adapter.prepare_target(loader.target, "orders", statements)
    loader.load(wide.selectExpr("CAST(5000000000 AS bigint) AS id", "name", "at", "more", "price"), "id")
    assert [str(value) for value in loader.held_rows()[0]] == ["5000000000", "a", "None", "x", "1.5"]


def test_p05_what_another_run_has_created_meanwhile_is_tried_again(spark: SparkSession, loader: Loader) -> None:
    frame = orders(spark, (1, "a", None))
    loader.create(frame, "id")
    with pytest.raises(RetryableError) as raised:
        loader.create(frame, "id")
    assert raised.value.code == "target.conflict"
    statements = loader.adapter.evolve_statements(loader.target, (Column("more", "string", ""),), ())
    loader.adapter.prepare_target(loader.target, "orders", statements)
    with pytest.raises(RetryableError) as raised:
        loader.adapter.prepare_target(loader.target, "orders", statements)
    assert raised.value.code == "target.conflict"


def test_p17_characters_that_a_target_would_make_question_marks_of_stop_the_run(
    spark: SparkSession, database: Database
) -> None:
    """Kept as `?` they would differ from the source's rows for ever, and be appended by every run."""
    if database.kind == "postgresql":
        assert database.adapter().dialect.character_sets("public", "narrow") is None, "PostgreSQL refuses them itself"
        return
    type_of = "VARCHAR2(20)" if database.kind == "oracle" else "varchar(20)"
    database.run(f"CREATE TABLE {database.name('narrow')} ({database.adapter().dialect.quote('name')} {type_of})")
    adapter = database.adapter()
    target = Target("x", database.name("narrow"))
    frame = spark.sql("SELECT 'Ω' AS name UNION ALL SELECT 'café €' UNION ALL SELECT NULL")

    def kept() -> list[str | None]:
        (column,) = adapter.inspect_target(target, "orders").columns
        return [row[0] for row in frame.select(F.expr(adapter.kept(column).replace("{}", "name"))).collect()]

    assert kept() == ["Ω", "café €", None]
    if database.kind == "oracle":
        database.run(
            "CREATE OR REPLACE VIEW NLS_DATABASE_PARAMETERS AS SELECT 'NLS_CHARACTERSET' PARAMETER, 'WE8MSWIN1252' \"VALUE\""
        )
    else:
        database.run(f"COMMENT ON COLUMN {database.name('narrow')}.name IS 'SQL_Latin1_General_CP1_CI_AS'")
    with pytest.raises(PySparkException, match=r"in character set (WE8MSWIN)?1252, which cannot hold Ω"):
        kept()
    frame = frame.filter("name <> 'Ω'")
    assert kept() == ["café €"]


def test_p17_a_first_load_stops_at_what_the_new_table_cannot_hold(spark: SparkSession, database: Database) -> None:
    """The engine's own columns in an Oracle database of an older character set; the others' hold all of Unicode."""
    loader = Loader(database.adapter(), Target("x", "fresh"))
    frame = spark.sql("SELECT 1L AS id, 'Ω' AS name")
    before = loader.adapter.inspect_target(loader.target, "orders")
    loader.create(frame, "id")
    if database.kind == "oracle":
        database.run(
            "CREATE OR REPLACE VIEW NLS_DATABASE_PARAMETERS AS SELECT 'NLS_CHARACTERSET' PARAMETER, 'WE8MSWIN1252' \"VALUE\""
        )
    after = loader.adapter.inspect_target(loader.target, "orders")
    execution: Any = SimpleNamespace(target=loader.adapter)
    unused: Any = None
    checked = Commit(execution, unused, unused).in_new_columns(frame, before, after)
    if database.kind == "oracle":
        with pytest.raises(PySparkException, match="which cannot hold Ω"):
            checked.collect()
    else:
        assert [tuple(row) for row in checked.collect()] == [(1, "Ω")]


def test_a_cursor_that_would_sort_differently_is_refused(spark: SparkSession, database: Database) -> None:
    loader = Loader(database.adapter(), Target("x", "t"), cursor="at")
    frame = orders(spark, (1, "a", None)).selectExpr("id", "name", "CAST(at AS string) AS at")
    loader.create(frame, "id")
    with pytest.raises(PermanentError, match="does not sort"):
        loader.load(frame, "id")


def test_an_unreadable_ledger_is_an_error(spark: SparkSession, database: Database, loader: Loader) -> None:
    frame = orders(spark, (1, "a", None))
    loader.create(frame, "id")
    loader.load(frame, "id")
    database.run(f"UPDATE {database.name('uds_ledger')} SET entry = '{{}}'")
    with pytest.raises(PermanentError, match="cannot be read"):
        loader.adapter.inspect_target(loader.target, "orders")


def test_the_ledger_is_read_again_when_the_connection_is_lost(spark: SparkSession, postgresql: Database) -> None:
    """R15: the answer to a commit may be lost with its connection; what was committed is told all the same."""
    loader = Loader(postgresql.adapter(), Target("x", "orders"), cursor="at")
    frame = orders(spark, (1, "a", "2024-01-01"))
    loader.create(frame, "id")
    loader.load(frame, "id")
    session = loader.adapter.held.query("SELECT pg_backend_pid()")[0][0]
    postgresql.rows(f"SELECT pg_terminate_backend({session})")
    assert [entry.generation for entry in loader.adapter.read_ledger(loader.target, "orders")] == [1]
