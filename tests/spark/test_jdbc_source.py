"""JDBC databases as sources: every row once, every value exact, nothing of the session."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import SparkSession

from spark_entry.adapters.base import CURSOR_DIGITS, LOST_DIGITS
from spark_entry.adapters.jdbc import JdbcAdapter
from sync_core.domain.errors import ConfigError, PermanentError, RetryableError
from sync_core.domain.pipeline import Cursor, ReadOptions, Source
from sync_core.domain.watermark import CursorType, Watermark
from tests.spark.jdbc_databases import Database, describe, read

MOMENTS = (
    "0001-01-01 00:00:00",
    "0001-01-01 00:00:00.000001",
    "1500-02-28 12:00:00",
    "1582-10-04 23:59:59.999999",
    "1582-10-10 01:02:03.4",
    "1582-10-15 00:00:00",
    "1883-11-18 12:03:58",
    "1900-01-01 00:00:00",
    "1969-12-31 23:59:59.999999",
    "2024-03-31 02:30:00.123456",
    "2024-10-27 02:30:00",
    "9999-12-31 23:59:59.999999",
)
TYPES = {
    "postgresql": ("timestamp", "timestamptz", "date"),
    "oracle": ("TIMESTAMP(6)", "TIMESTAMP(6) WITH TIME ZONE", "DATE"),
    "azure_sql": ("datetime2(7)", "datetimeoffset(7)", "date"),
}


def moments_table(database: Database, name: str = "moments") -> str:
    local, zoned, day = TYPES[database.kind]
    table = database.name(name)
    database.run(
        f"CREATE TABLE {table} (id integer PRIMARY KEY, c {local}, z {zoned}, d {day})",
        *[
            f"INSERT INTO {table} VALUES ({number}, TIMESTAMP '{value}', TIMESTAMP WITH TIME ZONE '{value}+00:00', DATE '{value[:10]}')"
            for number, value in enumerate(MOMENTS)
        ],
    )
    return name


def test_moments_from_year_1_to_9999_arrive_unchanged(database: Database) -> None:
    frame = read(database.adapter(), moments_table(database)).orderBy("id")
    rows = frame.selectExpr("CAST(c AS string)", "CAST(z AS string)", "CAST(d AS string)").collect()
    kinds = [field.dataType.simpleString() for field in frame.schema.fields]
    assert kinds[1:3] == ["timestamp_ntz", "timestamp"]
    for value, row in zip(MOMENTS, rows, strict=True):
        day = value[:10] + (" 00:00:00" if database.kind == "oracle" else "")
        assert tuple(row) == (value, value, day)


def test_p14_rows_without_a_key_or_with_null_are_read_once(database: Database) -> None:
    table = database.name("loose")
    database.run(
        f"CREATE TABLE {table} (a integer NOT NULL, b varchar(10), PRIMARY KEY (a))",
        *[
            f"INSERT INTO {table} VALUES ({number}, {'NULL' if number % 3 else repr(str(number))})"
            for number in range(50)
        ],
    )
    keys = describe(database.adapter(), "loose").unique_keys
    assert [[name.lower() for name in key] for key in keys] == [["a"]]
    for parts in (1, 2, 5):
        rows = read(database.adapter(), "loose", parts=parts).collect()
        assert sorted(row[0] for row in rows) == list(range(50))


def test_p14_ctid_ranges_hold_every_row(postgresql: Database) -> None:
    table = postgresql.name("big")
    postgresql.run(
        f"CREATE TABLE {table} AS SELECT nullif(i % 5, 0) AS k, i, repeat('x', 200) AS t FROM generate_series(1, 5000) i"
    )
    adapter = postgresql.adapter()
    relation = describe(adapter, "big")
    plan = adapter.plan_read(relation, relation.columns, None, None, ReadOptions(partitions=3))
    assert len(plan.predicates) == 3
    assert plan.snapshot is not None
    frame = adapter.read_data(plan)
    assert frame.rdd.getNumPartitions() == 3
    assert sorted(row[1] for row in frame.collect()) == list(range(1, 5001))


def test_parts_see_one_state(postgresql: Database) -> None:
    table = postgresql.name("moving")
    postgresql.run(f"CREATE TABLE {table} AS SELECT i, repeat('x', 200) AS t FROM generate_series(1, 2000) i")
    adapter = postgresql.adapter()
    relation = describe(adapter, "moving")
    plan = adapter.plan_read(relation, relation.columns, None, None, ReadOptions(partitions=2))
    frame = adapter.read_data(plan)
    postgresql.run(f"DELETE FROM {table} WHERE i % 2 = 0", f"INSERT INTO {table} VALUES (9999, 'late')")
    assert frame.count() == 2000
    adapter.describe_source(Source("x", table="moving"), {})
    assert read(adapter, "moving", parts=2).count() == 1001


def test_p18_tricky_names_and_values(database: Database) -> None:
    names = ["Order Id", "select", "it's", "a]b", "a`b", "%_x", *([] if database.kind == "oracle" else ['say "x"'])]
    adapter = database.adapter()
    table = database.name("My.Table")
    columns = ", ".join(f"{adapter.dialect.quote(name)} varchar(40)" for name in names)
    values = ", ".join(adapter.dialect.text(f"'; DROP TABLE x -- {name}") for name in names)
    database.run(f"CREATE TABLE {table} ({columns})", f"INSERT INTO {table} VALUES ({values})")
    frame = read(adapter, '"My.Table"')
    assert frame.columns == names
    assert tuple(frame.collect()[0]) == tuple(f"'; DROP TABLE x -- {name}" for name in names)
    assert adapter.count_nulls(describe(adapter, '"My.Table"'), tuple(names), None) == 0


def test_names_ignore_case_only_when_one_matches(postgresql: Database) -> None:
    for name in ("Orders", "ORDERS", "single"):
        postgresql.run(f"CREATE TABLE {postgresql.name(name)} (a integer)")
    adapter = postgresql.adapter()
    assert describe(adapter, "Orders").name.endswith(".Orders")
    assert describe(adapter, "SINGLE").name.endswith(".single")
    with pytest.raises(ConfigError, match="could be any of"):
        describe(adapter, "orders")
    with pytest.raises(PermanentError, match="Did you mean"):
        describe(adapter, "singel")


def probe(adapter: JdbcAdapter, table: str, cursor: Cursor) -> tuple[str | None, str | None, int, int]:
    relation = describe(adapter, table)
    found = adapter.probe_cursor(relation, cursor)
    assert abs(found.clock - datetime.now(UTC)) < timedelta(seconds=30)
    return found.safe and found.safe.value, found.highest and found.highest.value, found.nulls, found.future


def test_probe_of_timestamps_ignores_the_young_and_the_future(database: Database) -> None:
    local, zoned, _ = TYPES[database.kind]
    table = database.name("events")
    now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    old, young, future = now - timedelta(hours=1), now - timedelta(seconds=2), now + timedelta(hours=3)
    database.run(
        f"CREATE TABLE {table} (c {local}, z {zoned})",
        *[
            f"INSERT INTO {table} VALUES (TIMESTAMP '{value}', TIMESTAMP WITH TIME ZONE '{value}+00:00')"
            for value in (old, young, future)
        ],
        f"INSERT INTO {table} VALUES (NULL, NULL)",
    )
    adapter = database.adapter()
    assert probe(adapter, "events", Cursor("c", CursorType.TIMESTAMP, timezone="UTC")) == (
        old.isoformat(),
        future.isoformat(),
        1,
        1,
    )
    zoned_probe = probe(adapter, "events", Cursor("z", CursorType.TIMESTAMP_TZ))
    assert zoned_probe == (f"{old.isoformat()}Z", f"{future.isoformat()}Z", 1, 1)
    # Written in a zone east of UTC, 3 hours ahead are the past there.
    east = adapter.probe_cursor(describe(adapter, "events"), Cursor("c", CursorType.TIMESTAMP, timezone="Asia/Tokyo"))
    assert (east.safe, east.future, east.daylight_saving) == (east.highest, 0, False)
    west = adapter.probe_cursor(
        describe(adapter, "events"), Cursor("c", CursorType.TIMESTAMP, timezone="America/New_York")
    )
    assert (west.safe, west.future, west.daylight_saving) == (None, 3, True)


def test_p08_the_cursor_keeps_every_digit(database: Database) -> None:
    kind, digits = {"postgresql": ("timestamp", 6), "oracle": ("TIMESTAMP(9)", 9), "azure_sql": ("datetime2(7)", 7)}[
        database.kind
    ]
    table = database.name("precise")
    values = [f"2024-01-31T23:59:59.{'123456789'[: digits - 1]}{last}" for last in range(1, 6)]
    database.run(
        f"CREATE TABLE {table} (id integer PRIMARY KEY, c {kind}, n decimal(38,10))",
        *[
            f"INSERT INTO {table} VALUES ({number}, TIMESTAMP '{value.replace('T', ' ')}', {number - 2}.0000000001)"
            for number, value in enumerate(values)
        ],
    )
    adapter = database.adapter()
    relation = describe(adapter, "precise")
    cursor = Cursor("c", CursorType.TIMESTAMP)
    found = adapter.probe_cursor(relation, cursor)
    assert found.highest == Watermark.parse(CursorType.TIMESTAMP, values[-1])
    low, high = (Watermark.parse(CursorType.TIMESTAMP, values[index]) for index in (1, 3))
    condition = adapter.get_incremental_filter(relation, cursor, low, high, with_nulls=False)
    plan = adapter.plan_read(relation, relation.columns, cursor, condition, ReadOptions())
    rows = adapter.read_data(plan).orderBy("id").collect()
    assert [row["id" if "id" in row else "ID"] for row in rows] == [1, 2, 3]
    if digits > 6:
        assert [row[CURSOR_DIGITS] for row in rows] == [int(value[26:].ljust(3, "0")) for value in values[1:4]]
    number = Cursor("n", CursorType.NUMBER)
    highest = adapter.probe_cursor(relation, number).highest
    assert highest == Watermark(CursorType.NUMBER, "2.0000000001")
    negative = Watermark(CursorType.NUMBER, "-2.0000000001")
    condition = adapter.get_incremental_filter(
        relation, number, negative, Watermark(CursorType.NUMBER, "0.0000000001"), False
    )
    assert (
        adapter.read_data(adapter.plan_read(relation, relation.columns, number, condition, ReadOptions())).count() == 3
    )


def test_p08_rowversion(azure_sql: Database) -> None:
    table = azure_sql.name("versions")
    azure_sql.run(
        f"CREATE TABLE {table} (id int PRIMARY KEY, rv binary(8))",
        *[
            f"INSERT INTO {table} VALUES ({number}, CAST(NEXT VALUE FOR row_versions AS binary(8)))"
            for number in range(3)
        ],
    )
    adapter = azure_sql.adapter()
    relation = describe(adapter, "versions")
    cursor = Cursor("rv", CursorType.ROWVERSION)
    found = adapter.probe_cursor(relation, cursor)
    assert found.safe == found.highest == Watermark(CursorType.ROWVERSION, "0x00000000000007D3")
    low = Watermark(CursorType.ROWVERSION, "0x00000000000007D2")
    condition = adapter.get_incremental_filter(relation, cursor, low, found.safe, with_nulls=False)
    rows = adapter.read_data(adapter.plan_read(relation, relation.columns, cursor, condition, ReadOptions())).collect()
    assert sorted(row[0] for row in rows) == [1, 2]


def test_lost_digits_are_counted_beside_the_cursor(oracle: Database) -> None:
    table = oracle.name("LOSSY")
    oracle.run(
        f"CREATE TABLE {table} (id number(5) PRIMARY KEY, a timestamp(9), b timestamp(9))",
        f"INSERT INTO {table} VALUES (1, TIMESTAMP '2024-01-01 00:00:00.000001001', TIMESTAMP '2024-01-01 00:00:00.0000009')",
        f"INSERT INTO {table} VALUES (2, TIMESTAMP '2024-01-01 00:00:00.000001', NULL)",
    )
    assert [row[LOST_DIGITS] for row in read(oracle.adapter(), "lossy").orderBy("id").collect()] == [2, 0]


def test_p17_postgresql_types(postgresql: Database) -> None:
    table = postgresql.name("types")
    schema = postgresql.connection.schema
    postgresql.run(
        f"CREATE TYPE {schema}.mood AS ENUM ('sad', 'glad')",
        f"CREATE DOMAIN {schema}.price AS numeric(7,3)",
        f"CREATE TABLE {table} (i2 int2, i8 int8, n numeric, n38 numeric(38,10), small numeric(2,4), b bool, f4 real, f8 float8, "
        f"c char(3), u uuid, j json, jb jsonb, by bytea, m {schema}.mood, p {schema}.price, ip inet, o oid, t time, iv interval)",
        f"INSERT INTO {table} VALUES (-1, 9223372036854775807, 1234567890123456789012345678.0123456789, 1.5, 0.0012, true, 1.5, "
        "'NaN', 'ab', '00000000-0000-0000-0000-000000000001', '{\"a\":1}', '{\"b\":2}', '\\x00ff', 'glad', 1.234, '10.0.0.1', "
        "4294967295, '12:13:14.000001', '1 year 2 days 03:00')",
    )
    row = [str(value) for value in read(postgresql.adapter(), "types").collect()[0]]
    assert row == [
        "-1", "9223372036854775807", "1234567890123456789012345678.0123456789", "1.5000000000", "0.0012", "True", "1.5", "nan",
        "ab ", "00000000-0000-0000-0000-000000000001", '{"a":1}', '{"b": 2}', "b'\\x00\\xff'",
        "glad", "1.234", "10.0.0.1/32", "4294967295", "12:13:14.000001", "P1Y2DT3H",
    ]  # fmt: skip


def test_p17_what_does_not_fit_stops_the_run_or_is_refused(postgresql: Database) -> None:
    table = postgresql.name("odd")
    postgresql.run(
        f"CREATE TABLE {table} (n numeric, t timestamp, a int[], m money)",
        f"INSERT INTO {table} VALUES (1.00000000001, 'infinity', '{{1,2}}', 5)",
    )
    adapter = postgresql.adapter()
    relation = describe(adapter, "odd")
    assert [column.refused is not None for column in relation.columns] == [False, False, True, True]
    for index, column in enumerate(("n", "t")):
        plan = adapter.plan_read(relation, relation.columns[index : index + 1], None, None, ReadOptions())
        with pytest.raises(Exception, match="uds: column") as stopped:
            adapter.read_data(plan).collect()
        translated = adapter.translate_error(stopped.value)
        assert isinstance(translated, PermanentError)
        assert f"column {column}" in translated.message
    waived = describe(adapter, "odd", n="decimal(38,20)", a="string", T="string", m="DECIMAL(10, 2)")
    assert [column.refused for column in waived.columns] == [None] * 4
    rows = adapter.read_data(adapter.plan_read(waived, waived.columns, None, None, ReadOptions())).collect()
    assert [str(value) for value in rows[0]] == ["1.00000000001000000000", "infinity", "{1,2}", "5.00"]
    with pytest.raises(ConfigError, match="not a Spark SQL type"):
        describe(adapter, "odd", n="numbre")


def test_p17_oracle_number_without_precision(oracle: Database) -> None:
    table = oracle.name("NUMBERS")
    oracle.run(
        f"CREATE TABLE {table} (n number, i number(38), s number(5,2))",
        f"INSERT INTO {table} VALUES (1234567890123456789012345678.0123456789, 99999999999999999999999999999999999999, -1.25)",
        f"INSERT INTO {table} VALUES (-0.5, 0, 0)",
    )
    rows = {tuple(str(value) for value in row) for row in read(oracle.adapter(), "numbers").collect()}
    assert rows == {
        ("1234567890123456789012345678.0123456789", "99999999999999999999999999999999999999", "-1.25"),
        ("-0.5000000000", "0", "0.00"),
    }
    oracle.run(f"INSERT INTO {table} VALUES (0.00000000001, 0, 0)")
    with pytest.raises(Exception, match="uds: column N holds"):
        read(oracle.adapter(), "numbers").collect()


def test_p09_nothing_depends_on_the_zone_of_the_process(
    spark: SparkSession, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = moments_table(database)
    adapter = database.adapter()
    relation = describe(adapter, name)
    cursor = Cursor("c", CursorType.TIMESTAMP, timezone="UTC")
    before = adapter.probe_cursor(relation, cursor)
    monkeypatch.setitem(os.environ, "TZ", "America/New_York")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    after = database.adapter().probe_cursor(relation, cursor)
    assert (before.safe, before.highest, before.future) == (after.safe, after.highest, after.future)
    assert before.highest == Watermark(CursorType.TIMESTAMP, "9999-12-31T23:59:59.999999")


def test_queries_as_sources(database: Database) -> None:
    table = database.name("t")
    database.run(f"CREATE TABLE {table} (a integer, b integer)", f"INSERT INTO {table} VALUES (1, 2)")
    adapter = database.adapter()
    relation = adapter.describe_source(Source("x", query=f"SELECT a + b AS total FROM {table};"), {})
    assert relation.is_query
    plan = adapter.plan_read(relation, relation.columns, None, None, ReadOptions(partitions=4))
    assert [int(str(row[0])) for row in adapter.read_data(plan).collect()] == [3]
    with pytest.raises(PermanentError):
        adapter.describe_source(Source("x", query="SELECT nothing FROM nowhere"), {})


def test_faults_are_one_clear_sentence(postgresql: Database) -> None:
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:1 cannot be reached"):
        describe(postgresql.adapter(port=1), "t")
    with pytest.raises(PermanentError, match="the sign-in as nobody was refused") as refused:
        describe(postgresql.adapter(username="nobody"), "t")
    assert postgresql.password not in str(refused.value)
    with pytest.raises(PermanentError, match="has no table t"):
        describe(postgresql.adapter(), "t")
    with pytest.raises(PermanentError, match="not on Spark's class path"):
        describe(postgresql.adapter(options={"driver": "no.such.Driver"}), "t")
    postgresql.run(
        f"CREATE TABLE {postgresql.name('secret')} (a integer)",
        f"CREATE ROLE low_{postgresql.connection.schema} LOGIN PASSWORD '{postgresql.password}'",
        f"GRANT USAGE ON SCHEMA {postgresql.connection.schema} TO low_{postgresql.connection.schema}",
    )
    with pytest.raises(PermanentError, match="Grant SELECT on it"):
        describe(postgresql.adapter(username=f"low_{postgresql.connection.schema}"), "secret")


def test_a_cursor_of_another_type_is_refused_by_name(postgresql: Database) -> None:
    postgresql.run(f"CREATE TABLE {postgresql.name('t')} (a timestamptz, f float8)")
    adapter = postgresql.adapter()
    relation = describe(adapter, "t")
    with pytest.raises(PermanentError, match=r"Set cursor\.type to timestamp_tz"):
        adapter.probe_cursor(relation, Cursor("a", CursorType.TIMESTAMP))
    with pytest.raises(PermanentError, match="exact number column"):
        adapter.probe_cursor(relation, Cursor("f", CursorType.NUMBER))


def test_p01_a_number_is_dated_after_it_was_seen(postgresql: Database) -> None:
    """A probe that waits for a lock sees what was written meanwhile: its clock must not be older (R11b)."""
    postgresql.run(f"CREATE TABLE {postgresql.name('waits')} (id bigint)")
    adapter, other = postgresql.adapter(), postgresql.adapter()
    relation = describe(adapter, "waits")
    with ThreadPoolExecutor(1) as pool:
        with other.held.transaction():
            other.held.execute(f"LOCK TABLE {postgresql.name('waits')} IN ACCESS EXCLUSIVE MODE")
            waiting = pool.submit(adapter.probe_cursor, relation, Cursor("id", CursorType.NUMBER))
            time.sleep(1)
            other.held.execute(f"INSERT INTO {postgresql.name('waits')} VALUES (7)")
            written = other.held.query(
                "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
            )
        probe = waiting.result()
    assert probe.highest == Watermark(CursorType.NUMBER, "7")
    assert probe.clock >= datetime.fromisoformat(f"{written[0][0]}+00:00")
