"""SQL text for Databricks: literals of every type, rounded outwards where the column holds less."""

from __future__ import annotations

import re
from decimal import Context, Decimal

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from spark_entry.dialects import databricks as dialect
from sync_core.domain.watermark import CursorType, Watermark

names = st.text(min_size=1, max_size=30).filter(lambda name: "\x00" not in name)
numbers = st.decimals(min_value=-(10**20), max_value=10**20, allow_nan=False, allow_infinity=False, places=6)


def number(text: str) -> Watermark:
    return Watermark.parse(CursorType.NUMBER, text)


def value_of(literal: str) -> Decimal:
    match = re.search(r"-?\d+(\.\d+)?", literal)
    assert match is not None
    return Decimal(match[0])


@pytest.mark.parametrize(
    ("mark", "kind", "upwards", "expected"),
    [
        (number("42"), "bigint", True, "42L"),
        (number("-12.5"), "int", False, "-13L"),
        (number("-12.5"), "int", True, "-12L"),
        (number("99999999999999999999"), "bigint", True, "CAST('99999999999999999999' AS DECIMAL(20,0))"),
        (number("1.25"), "decimal(10,2)", True, "CAST('1.25' AS DECIMAL(3,2))"),
        (number("1.255"), "decimal(10,2)", True, "CAST('1.26' AS DECIMAL(3,2))"),
        (number("1.255"), "decimal(10,2)", False, "CAST('1.25' AS DECIMAL(3,2))"),
        (number("0.05"), "decimal(10,2)", False, "CAST('0.05' AS DECIMAL(2,2))"),
        (number("0"), "decimal(38,0)", False, "CAST('0' AS DECIMAL(1,0))"),
        (Watermark(CursorType.DATE, "2024-01-31"), "date", True, "CAST('2024-01-31' AS DATE)"),
        (Watermark(CursorType.TIMESTAMP, "2024-01-31T01:02:03.1234567"), "timestamp_ntz", True,
         "CAST('2024-01-31T01:02:03.123457' AS TIMESTAMP_NTZ)"),
        (Watermark(CursorType.TIMESTAMP, "2024-01-31T01:02:03.1234567"), "timestamp_ntz", False,
         "CAST('2024-01-31T01:02:03.123456' AS TIMESTAMP_NTZ)"),
        (Watermark(CursorType.TIMESTAMP_TZ, "9999-12-31T23:59:59.9999999Z"), "timestamp", True,
         "CAST('9999-12-31T23:59:59.999999Z' AS TIMESTAMP)"),
        (Watermark(CursorType.ROWVERSION, "0x00000000000007D1"), "binary", True, "X'00000000000007D1'"),
    ],
)  # fmt: skip
def test_literals(mark: Watermark, kind: str, upwards: bool, expected: str) -> None:
    assert dialect.literal(mark, kind, upwards=upwards) == expected


@given(numbers, st.sampled_from(["int", "bigint", "decimal(38,0)", "decimal(28,4)", "decimal(30,9)"]))
def test_numbers_are_rounded_outwards_by_less_than_a_step(value: Decimal, kind: str) -> None:
    mark = number(str(value))
    low = value_of(dialect.literal(mark, kind, upwards=False))
    high = value_of(dialect.literal(mark, kind, upwards=True))
    scale = int(kind.split(",")[1].rstrip(")")) if "," in kind else 0
    assert low <= value <= high
    assert high - low <= Decimal(1).scaleb(-scale)
    assert (low == high) == (Context(prec=120).remainder(value, Decimal(1).scaleb(-scale)) == 0)


@given(st.datetimes(), st.integers(0, 999))
def test_times_are_rounded_outwards_to_a_microsecond(moment: object, nanos: int) -> None:
    text = f"{moment.isoformat()}"  # type: ignore[attr-defined]
    text = (text if "." in text else text + ".000000") + f"{nanos:03d}"
    mark = Watermark.parse(CursorType.TIMESTAMP, text)
    ends = [dialect.literal(mark, "timestamp_ntz", upwards=upwards)[6:].partition("'")[0] for upwards in (False, True)]
    low, high = (Watermark.parse(CursorType.TIMESTAMP, end) for end in ends)
    assert low <= mark
    assert mark <= high or high.value.startswith("9999-12-31T23:59:59.999999")
    assert int(high.order) - int(low.order) in (0, 1000)


@given(names)
def test_identifiers_hold_what_they_are_given(name: str) -> None:
    quoted = dialect.quote(name)
    assert quoted[1:-1].replace("``", "`") == name


@given(names, names, st.booleans())
def test_merge_parses_with_any_names(key: str, other: str, guarded: bool) -> None:
    if key == other:
        return
    columns = {key: "int", other: "timestamp"}
    future = "CAST('2024-01-01' AS TIMESTAMP)" if guarded else None
    statement = dialect.merge("delta.`/x`", "s", columns, (key,), other if guarded else None, future)
    sqlglot.parse_one(statement, dialect="databricks")


@pytest.mark.parametrize(
    ("low", "high", "nulls", "expected"),
    [
        (None, None, True, None),
        (None, None, False, "`a` IS NOT NULL"),
        (number("1"), None, False, "`a` >= 1L"),
        (number("1"), number("2"), True, "(`a` >= 1L AND `a` <= 2L) OR `a` IS NULL"),
    ],
)
def test_windows(low: Watermark | None, high: Watermark | None, nulls: bool, expected: str | None) -> None:
    assert dialect.between("a", "int", low, high, with_nulls=nulls) == expected


@pytest.mark.parametrize(
    ("kind", "cursor"),
    [
        ("date", CursorType.DATE),
        ("timestamp_ntz", CursorType.TIMESTAMP),
        ("timestamp", CursorType.TIMESTAMP_TZ),
        ("bigint", CursorType.NUMBER),
        ("decimal(38,0)", CursorType.NUMBER),
        ("string", None),
        ("double", None),
        ("binary", None),
    ],
)
def test_which_columns_can_be_cursors(kind: str, cursor: CursorType | None) -> None:
    assert dialect.cursor_type(kind) is cursor


@pytest.mark.parametrize(
    "kind", [kind for kind in CursorType if kind not in (CursorType.VERSION, CursorType.ROWVERSION)]
)
def test_the_probe_is_one_statement(kind: CursorType) -> None:
    statement = dialect.probe("`t`", "o`c", kind, 30.5, "Europe/Oslo")
    assert statement.count("FROM `t`") == 1
    sqlglot.parse_one(statement, dialect="databricks")


def test_names_that_need_column_mapping() -> None:
    plain = dialect.create_table("t", [("a.b", "int")])
    assert "TBLPROPERTIES" not in plain
    assert "columnMapping" in dialect.create_table("t", [("a b", "int")])
