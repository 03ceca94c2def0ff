"""SQL text of the JDBC dialects: it parses, it quotes, and its literals hold what they were given."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from spark_entry.dialects.azure_sql import AzureSqlDialect
from spark_entry.dialects.base import Dialect
from spark_entry.dialects.carrier import NativeType
from spark_entry.dialects.oracle import OracleDialect
from spark_entry.dialects.postgresql import PostgresqlDialect
from spark_entry.dialects.writing import LedgerTables, Load, Written
from sync_core.domain.watermark import CursorType, Watermark

DIALECTS: dict[str, Dialect] = {"postgres": PostgresqlDialect(), "oracle": OracleDialect(), "tsql": AzureSqlDialect()}
CURSORS = [
    ("postgres", "timestamp", 0, CursorType.TIMESTAMP),
    ("postgres", "timestamptz", 0, CursorType.TIMESTAMP_TZ),
    ("postgres", "date", 0, CursorType.DATE),
    ("postgres", "int8", 0, CursorType.NUMBER),
    ("oracle", "DATE", 0, CursorType.TIMESTAMP),
    ("oracle", "TIMESTAMP", 9, CursorType.TIMESTAMP),
    ("oracle", "TIMESTAMP WITH TIME ZONE", 9, CursorType.TIMESTAMP_TZ),
    ("oracle", "NUMBER", 0, CursorType.NUMBER),
    ("tsql", "datetime", 0, CursorType.TIMESTAMP),
    ("tsql", "smalldatetime", 0, CursorType.TIMESTAMP),
    ("tsql", "datetime2", 7, CursorType.TIMESTAMP),
    ("tsql", "datetimeoffset", 7, CursorType.TIMESTAMP_TZ),
    ("tsql", "date", 0, CursorType.DATE),
    ("tsql", "bigint", 0, CursorType.NUMBER),
    ("tsql", "timestamp", 0, CursorType.ROWVERSION),
]
SAMPLES = {
    CursorType.DATE: "2024-01-31",
    CursorType.TIMESTAMP: "2024-01-31T23:59:59.123456789",
    CursorType.TIMESTAMP_TZ: "2024-01-31T22:59:59.123456789Z",
    CursorType.NUMBER: "-12345678901234567890123456789012345.678",
    CursorType.ROWVERSION: "0x00000000000007D1",
}
names = st.text(min_size=1, max_size=30).filter(lambda name: "\x00" not in name)
moments = st.datetimes().map(lambda moment: Watermark.parse(CursorType.TIMESTAMP, moment.isoformat()))


def parse(statement: str, dialect: str) -> exp.Expr:
    return sqlglot.parse_one(statement, dialect=dialect)


@pytest.mark.parametrize(("dialect", "native", "decimals", "kind"), CURSORS)
@pytest.mark.parametrize("offset", [None, -300, 60])
def test_probe_is_one_statement(dialect: str, native: str, decimals: int, kind: CursorType, offset: int | None) -> None:
    sql = DIALECTS[dialect]
    statement = sql.probe('"s"."t"', 'o"c', kind, NativeType(native, decimals), 30.5, offset, nullable=True)
    parsed = parse(statement, dialect)
    assert isinstance(parsed, exp.Select)
    assert len(parsed.expressions) == 6
    subqueries = list(parsed.find_all(exp.Subquery))
    assert len(subqueries) == (4 if kind.is_temporal else 2)


@pytest.mark.parametrize(("dialect", "native", "decimals", "kind"), CURSORS)
def test_filters_are_inclusive_and_know_null(dialect: str, native: str, decimals: int, kind: CursorType) -> None:
    sql, type_, value = DIALECTS[dialect], NativeType(native, decimals), Watermark(kind, SAMPLES[kind])
    assert sql.between("c", type_, None, None, with_nulls=True) is None
    assert sql.between("c", type_, None, None, with_nulls=False) == '"c" IS NOT NULL'
    both = sql.between("c", type_, value, value, with_nulls=False) or ""
    nulls = sql.between("c", type_, value, value, with_nulls=True) or ""
    for condition, expects_null in ((both, False), (nulls, True)):
        parsed = parse(f"SELECT 1 FROM t WHERE {condition}", dialect)
        assert parsed.find(exp.GTE) is not None
        assert parsed.find(exp.LTE) is not None
        assert (parsed.find(exp.Is) is not None) is expects_null


@given(name=names)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_p18_any_name_is_one_identifier(dialect: str, name: str) -> None:
    quoted = DIALECTS[dialect].quote(name)
    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', "").count('"') == 0
    assert quoted[1:-1].replace('""', '"') == name


@given(value=names)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_p18_any_text_is_one_literal(dialect: str, value: str) -> None:
    literal = DIALECTS[dialect].text(value)
    assert literal[1:-1].replace("''", "").count("'") == 0
    assert literal[1:-1].replace("''", "'") == value


@given(moment=moments)
def test_p08_p09_literals_hold_the_moment_in_iso_form(moment: Watermark) -> None:
    for dialect, native, decimals, kind in CURSORS:
        if kind is not CursorType.TIMESTAMP:
            continue
        literal = DIALECTS[dialect].literal(moment, NativeType(native, decimals))
        found = re.search(r"'(\d{4}-\d\d-\d\dT[\d:.]+)'", literal)
        assert found, literal
        held = Watermark.parse(CursorType.TIMESTAMP, found[1])
        # A type with fewer digits floors; it never moves the bound up.
        smallest = {"datetime": 10**6, "smalldatetime": 60 * 10**9}.get(native, 1000 if native != "DATE" else 10**9)
        assert 0 <= int(moment.order) - int(held.order) < smallest


def test_p08_digits_below_a_microsecond_stay_where_the_type_has_them() -> None:
    value = Watermark(CursorType.TIMESTAMP, "2024-01-31T23:59:59.123456789")
    assert ".123456789'" in DIALECTS["oracle"].literal(value, NativeType("TIMESTAMP", 9))
    assert ".1234567'" in DIALECTS["tsql"].literal(value, NativeType("datetime2", 7))
    assert ".123456'" in DIALECTS["postgres"].literal(value, NativeType("timestamp"))


def test_p09_literals_name_their_format() -> None:
    for dialect, native, decimals, kind in CURSORS:
        literal = DIALECTS[dialect].literal(Watermark(kind, SAMPLES[kind]), NativeType(native, decimals))
        if kind.is_temporal and dialect == "oracle":
            assert literal.startswith(("TO_DATE(", "TO_TIMESTAMP(", "TO_TIMESTAMP_TZ("))
            assert "YYYY-MM-DD" in literal
        elif kind.is_temporal and dialect == "tsql":
            assert literal.startswith("CONVERT(")
            assert kind is CursorType.DATE or re.search(r"\dT\d", literal)
        if kind is CursorType.NUMBER:
            assert literal == SAMPLES[kind]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("keys", [(), ("id",)])
@pytest.mark.parametrize("cursor", [None, "at"])
def test_write_statements_parse(dialect: str, keys: Sequence[str], cursor: str | None) -> None:
    sql = DIALECTS[dialect]
    moment = {"postgres": "timestamp", "oracle": "TIMESTAMP", "tsql": "datetime2"}[dialect]
    large = {"postgres": "json", "oracle": "CLOB", "tsql": "nvarchar"}[dialect]
    columns = (
        Written("id", NativeType("int"), "c0"),
        Written('say "x"', NativeType(large), "c1"),
        Written("at", NativeType(moment, 6), "c2"),
    )
    load = Load(
        sql, '"s"."t"', '"s"."stg"', columns,
        tuple(column for column in columns if column.name in keys),
        next((column for column in columns if column.name == cursor), None),
        Watermark(CursorType.TIMESTAMP, "2024-01-31T00:00:00"),
    )  # fmt: skip
    tables = LedgerTables(sql, "s")
    statements = [
        load.insert(), load.delete_all(), load.count_staging(), load.update() if keys else None, load.count_older(),
        *[statement for _, statement in tables.create()], tables.read(), tables.read_runs(), tables.begin(), tables.take(),
        tables.record(), tables.forget_run(), tables.add_run(), tables.prune_runs(),
    ]  # fmt: skip
    for statement in statements:
        if statement is not None:
            assert parse(statement.replace(" OVERRIDING SYSTEM VALUE", ""), dialect) is not None


def test_update_is_none_when_there_is_nothing_but_the_key() -> None:
    key = Written("id", NativeType("int4"), "c0")
    assert Load(DIALECTS["postgres"], "t", "s", (key,), (key,)).update() is None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_carried_type_has_a_column_type(dialect: str) -> None:
    sql = DIALECTS[dialect]
    kinds = ["boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "decimal(38,10)", "string", "binary"]
    for kind in (*kinds, "date", "timestamp", "timestamp_ntz"):
        for key in (True, False):
            column = sql.column_type(kind, NativeType(""), key=key)
            assert parse(f"CREATE TABLE t (a {column})", dialect) is not None
    with pytest.raises(ValueError, match="array"):
        sql.column_type("array<int>", NativeType(""), key=False)


SECURE = (
    "The driver could not establish a secure connection to SQL Server by using Secure Sockets Layer (SSL) encryption."
)


@pytest.mark.parametrize(
    ("dialect", "state", "code", "message", "kind"),
    [
        ("postgres", "28P01", 0, "password authentication failed", "sign_in"),
        ("postgres", "08001", 0, "Connection refused", "unreachable"),
        ("postgres", "42P01", 0, "relation does not exist", "missing"),
        ("postgres", "42501", 0, "permission denied", "denied"),
        ("postgres", "53100", 0, "could not extend file: No space left on device", "full"),
        ("postgres", "40P01", 0, "deadlock detected", "busy"),
        ("postgres", "55P03", 0, "canceling statement due to lock timeout", "busy"),
        ("postgres", "23505", 0, "duplicate key value", "duplicate"),
        ("postgres", "08006", 0, "SSL error: PKIX path building failed", "certificate"),
        ("postgres", "08004", 0, "The server does not support SSL.", "certificate"),
        ("postgres", "08006", 0, "SSL error: Connection reset", "unreachable"),
        ("postgres", "08006", 0, "SSL error: Read timed out", "unreachable"),
        ("postgres", "28000", 0, 'no pg_hba.conf entry for host "10.0.0.4", user "sync", SSL encryption', "sign_in"),
        ("postgres", "28000", 0, "connection requires a valid client certificate", "certificate"),
        ("postgres", "25006", 0, "cannot execute INSERT in a read-only transaction", "unreachable"),
        ("postgres", "72000", 0, "snapshot too old", "snapshot"),
        ("postgres", "53300", 0, "FATAL: sorry, too many clients already", "unreachable"),
        ("postgres", "57P05", 0, "FATAL: terminating connection due to idle-session timeout", "unreachable"),
        ("postgres", "42P07", 0, 'relation "orders" already exists', "exists"),
        ("postgres", "42701", 0, 'column "more" of relation "orders" already exists', "exists"),
        ("oracle", "66000", 12518, "ORA-12518: listener could not hand off client connection", "unreachable"),
        ("oracle", "66000", 12514, "ORA-12514: listener does not currently know of service requested", "unreachable"),
        ("oracle", "66000", 12599, "ORA-12599: TNS:cryptographic checksum mismatch", "unreachable"),
        ("oracle", "08000", 1109, "ORA-01109: database not open", "unreachable"),
        ("oracle", "72000", 4031, "ORA-04031: unable to allocate bytes of shared memory", "busy"),
        ("oracle", "66000", 20, "ORA-00020: maximum number of processes exceeded", "unreachable"),
        ("oracle", "60000", 28, "ORA-00028: your session has been killed", "unreachable"),
        ("oracle", "72000", 8103, "ORA-08103: object no longer exists", "snapshot"),
        ("oracle", "42000", 955, "ORA-00955: name is already used by an existing object", "exists"),
        ("oracle", "72000", 1430, "ORA-01430: column being added already exists in table", "exists"),
        ("tsql", "S0001", 40143, "The service has encountered an error processing your request", "unreachable"),
        ("tsql", "S0001", 8645, "A timeout occurred while waiting for memory resources", "busy"),
        ("tsql", "S0001", 2714, "There is already an object named 'orders' in the database", "exists"),
        ("tsql", "S0001", 2705, "Column names in each table must be unique", "exists"),
        ("oracle", "72000", 1017, "ORA-01017: invalid username/password", "sign_in"),
        ("oracle", "08006", 17002, "IO Error: The Network Adapter could not establish the connection", "unreachable"),
        ("oracle", "42000", 942, "ORA-00942: table or view does not exist", "missing"),
        ("oracle", "42000", 1031, "ORA-01031: insufficient privileges", "denied"),
        ("oracle", "72000", 1653, "ORA-01653: unable to extend table", "full"),
        ("oracle", "61000", 60, "ORA-00060: deadlock detected", "busy"),
        ("oracle", "23000", 1, "ORA-00001: unique constraint violated", "duplicate"),
        ("oracle", "72000", 1555, "ORA-01555: snapshot too old", "snapshot"),
        ("tsql", "S0001", 18456, "Login failed for user", "sign_in"),
        ("tsql", "08S01", 0, "The TCP/IP connection to the host has failed", "unreachable"),
        ("tsql", "08S01", 0, f'{SECURE} Error: "PKIX path building failed".', "certificate"),
        ("tsql", "08S01", 0, f'{SECURE} Error: "Connection reset".', "unreachable"),
        ("tsql", "08S01", 0, f'{SECURE} Error: "SQL Server did not return a response.".', "unreachable"),
        ("tsql", "08S01", 0, f"{SECURE} The server selected protocol version TLS10.", "certificate"),
        ("tsql", "S0001", 983, "Unable to access availability database 'sales'", "unreachable"),
        ("tsql", "S0001", 3906, "Failed to update database because the database is read-only.", "unreachable"),
        ("tsql", "S0001", 41302, "The current transaction attempted to update a record that has been updated", "busy"),
        ("tsql", "S0002", 208, "Invalid object name", "missing"),
        ("tsql", "S0005", 229, "The SELECT permission was denied", "denied"),
        ("tsql", "S0002", 1105, "Could not allocate space", "full"),
        ("tsql", "40001", 1205, "deadlock victim", "busy"),
        ("tsql", "23000", 2627, "Violation of PRIMARY KEY constraint", "duplicate"),
    ],
)
def test_faults_mean_what_they_mean(dialect: str, state: str, code: int, message: str, kind: str) -> None:
    assert DIALECTS[dialect].fault(state, code, message) == kind


@pytest.mark.parametrize(
    ("dialect", "native", "carried", "refused"),
    [
        ("oracle", "NUMBER(10,2)", "decimal(10,2)", False),
        ("oracle", "NUMBER(3,5)", "decimal(5,5)", False),
        ("oracle", "NUMBER(5,-2)", "decimal(7,0)", False),
        ("oracle", "NUMBER", "decimal(38,10)", False),
        ("oracle", "XMLTYPE", "string", True),
        ("oracle", "ROWID", "string", True),
        ("oracle", "CLOB", "string", False),
        ("oracle", "RAW(16)", "binary", False),
        ("tsql", "tinyint", "smallint", False),
        ("tsql", "money", "decimal(19,4)", False),
        ("tsql", "uniqueidentifier", "string", False),
        ("tsql", "timestamp", "binary", False),
        ("tsql", "datetimeoffset(7)", "timestamp", False),
        ("tsql", "geography", "string", True),
        ("tsql", "sql_variant", "string", True),
        ("postgres", "numeric(50,10)", "decimal(38,10)", False),
        ("postgres", "_int4", "string", True),
        ("postgres", "mood", "string", False),
    ],
)
def test_p17_types_are_carried_or_refused_by_name(dialect: str, native: str, carried: str, refused: bool) -> None:
    carrier = DIALECTS[dialect].carrier(NativeType.parse(native))
    assert (carrier.type, carrier.refused is not None) == (carried, refused)
    assert str(NativeType.parse(native)) == native


def test_a_rowversion_is_a_cursor_in_every_target() -> None:
    """Azure SQL's rowversion lands in a column of bytes, where R14 compares it."""
    mark = Watermark.parse(CursorType.ROWVERSION, SAMPLES[CursorType.ROWVERSION])
    assert PostgresqlDialect().literal(mark, NativeType("bytea")) == "decode('00000000000007D1', 'hex')"
    oracle = OracleDialect()
    assert oracle.column_type("binary", NativeType("timestamp"), key=False) == "RAW(8)"
    assert oracle.column_type("binary", NativeType("varbinary", 16), key=False) == "RAW(16)"
    assert oracle.column_type("binary", NativeType("varbinary"), key=False) == "BLOB"
    assert "BLOB" in oracle.unordered


@pytest.mark.parametrize(
    ("dialect", "native", "decimals", "holds", "rounds"),
    [
        ("oracle", "DATE", 0, "2024-01-31 10:00:07", "2024-01-31 10:00:07.1"),
        ("oracle", "TIMESTAMP", 3, "2024-01-31 10:00:07.123", "2024-01-31 10:00:07.1234"),
        ("oracle", "TIMESTAMP", 9, "2024-01-31 10:00:07.123456", None),
        ("postgres", "timestamp", 0, "2024-01-31 10:00:07", "2024-01-31 10:00:07.5"),
        ("postgres", "timestamptz", 6, "2024-01-31 10:00:07.123456", None),
        ("tsql", "smalldatetime", 0, "2024-01-31 10:07:00", "2024-01-31 10:00:07"),
        ("tsql", "datetime", 0, "2024-01-31 10:00:07.127", "2024-01-31 10:00:07.125"),
        ("tsql", "datetime", 0, "2024-01-31 10:00:07.12", "2024-01-31 10:00:07.1234"),
        ("tsql", "datetime2", 7, "2024-01-31 10:00:07.123456", None),
        ("tsql", "date", 0, "2024-01-31 00:00:00", None),
    ],
)
def test_p17_moments_that_a_column_would_round(
    dialect: str, native: str, decimals: int, holds: str, rounds: str | None
) -> None:
    pattern = DIALECTS[dialect].unfit(NativeType(native, decimals))
    assert (pattern is None) is (rounds is None)
    if pattern is not None and rounds is not None:
        assert re.search(pattern, rounds)
        assert not re.search(pattern, holds)


@pytest.mark.parametrize(
    ("origin", "key", "column"),
    [
        (NativeType("varchar", 10), False, "nvarchar(20)"),
        (NativeType("VARCHAR2", 300), True, "nvarchar(450)"),
        (NativeType("bpchar", 2500), False, "nvarchar(max)"),
        (NativeType("nvarchar", 10), False, "nvarchar(10)"),
        (NativeType("text"), False, "nvarchar(max)"),
    ],
)
def test_p17_ten_emoji_of_a_varchar_10_fit_into_azure_sql(origin: NativeType, key: bool, column: str) -> None:
    """nvarchar counts halves of UTF-16, PostgreSQL and Oracle characters."""
    assert AzureSqlDialect().column_type("string", origin, key=key) == column
