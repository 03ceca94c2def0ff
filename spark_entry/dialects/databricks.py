"""SQL text of Databricks and of Spark with Delta Lake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from sync_core.domain.watermark import CursorType, Watermark

MAPPING = ("delta.columnMapping.mode", "name")
"""The table property under which Delta takes names with spaces and punctuation."""

_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_BIGINT = (-(2**63), 2**63 - 1)
_WIDE = Context(prec=120)
_TYPES = {
    CursorType.DATE: "date",
    CursorType.TIMESTAMP: "timestamp_ntz",
    CursorType.TIMESTAMP_TZ: "timestamp",
}


def quote(name: str) -> str:
    """One identifier, whatever characters it holds."""
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def cursor_type(column_type: str) -> CursorType | None:
    """The cursor type that a column of this Spark SQL type can be; None when its order cannot be relied on."""
    if column_type in _INTEGERS or column_type.startswith("decimal("):
        return CursorType.NUMBER
    return next((kind for kind, name in _TYPES.items() if name == column_type), None)


def literal(mark: Watermark, column_type: str, *, upwards: bool) -> str:
    """A literal of the column's type. Digits that the column cannot hold are rounded outwards: no row is left out."""
    if mark.type is CursorType.NUMBER:
        return _number(Decimal(mark.value), column_type, upwards=upwards)
    if mark.type is CursorType.ROWVERSION:
        return f"X'{mark.value[2:]}'"
    if mark.type is CursorType.VERSION:
        return mark.value
    value = mark.to_microsecond(upwards=upwards).value
    kind = column_type if column_type in _TYPES.values() else _TYPES[mark.type]
    return f"CAST('{value}' AS {kind.upper()})"


def _number(value: Decimal, column_type: str, *, upwards: bool) -> str:
    """A bare integer for integer columns, so that files are skipped by their statistics; else the shortest decimal."""
    scale = 0 if column_type in _INTEGERS else 38
    match = re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", column_type)
    if match:
        scale = int(match[2])
    if -int(value.as_tuple().exponent) > scale:
        value = value.quantize(
            Decimal(1).scaleb(-scale), rounding=ROUND_CEILING if upwards else ROUND_FLOOR, context=_WIDE
        )
    plain = f"{value:f}"
    if column_type in _INTEGERS and _BIGINT[0] < value <= _BIGINT[1]:
        return f"{int(value)}L"
    whole, _, fraction = plain.lstrip("-").partition(".")
    digits = min(38, max(1, len(whole.lstrip("0")) + len(fraction)))
    return f"CAST('{plain}' AS DECIMAL({digits},{min(digits, len(fraction))}))"


def between(
    column: str, column_type: str, low: Watermark | None, high: Watermark | None, *, with_nulls: bool
) -> str | None:
    """low <= column <= high, both inclusive; None when that is every row."""
    name = quote(column)
    parts = [f"{name} >= {literal(low, column_type, upwards=False)}"] if low is not None else []
    parts += [f"{name} <= {literal(high, column_type, upwards=True)}"] if high is not None else []
    if not parts:
        return None if with_nulls else f"{name} IS NOT NULL"
    condition = " AND ".join(parts)
    return f"({condition}) OR {name} IS NULL" if with_nulls else condition


def probe(table: str, column: str, kind: CursorType, settle_seconds: float, zone: str) -> str:
    """One scan: the safe value, the highest, NULLs, values later than the clock, and the clock in UTC.

    `zone` is the one that dates and timestamps without a zone are written in.
    """
    name = quote(column)
    clock = "current_timestamp()"
    if kind is not CursorType.TIMESTAMP_TZ:
        clock = f"convert_timezone('UTC', {text(zone)}, CAST(current_timestamp() AS TIMESTAMP_NTZ))"
    settled = f"{clock} - INTERVAL {round(settle_seconds * 1_000_000)} MICROSECOND"
    bound = f"CAST({settled} AS DATE)" if kind is CursorType.DATE else settled
    # Years before 1 and after 9999 have no place in a watermark: they wait, and are counted.
    known = f"{name} IS NOT NULL"
    if kind.is_temporal:
        low, high = (f"CAST('{day}' AS {_TYPES[kind].upper()})" for day in ("0001-01-01", "9999-12-31T23:59:59.999999"))
        known = (
            f"{name} BETWEEN {low} AND {high if kind is not CursorType.DATE else high.replace('T23:59:59.999999', '')}"
        )
    highest = f"CAST(MAX({name}) FILTER (WHERE {known}) AS STRING)"
    safe = f"CAST(MAX({name}) FILTER (WHERE {known} AND {name} <= {bound}) AS STRING)" if kind.is_temporal else "NULL"
    future = f"COUNT_IF({name} > {clock})" if kind.is_temporal else "0"
    return (
        f"SELECT {safe} AS safe, {highest} AS highest, COUNT_IF({name} IS NULL) AS nulls, "
        f"{future} AS future, CAST(CAST(current_timestamp() AS TIMESTAMP_NTZ) AS STRING) AS clock FROM {table}"
    )


def needs_mapping(name: str) -> bool:
    """Whether Delta takes this column name only under column mapping."""
    return any(character in " ,;{}()\n\t=" for character in name)


def create_table(table: str, columns: Sequence[tuple[str, str]]) -> str:
    """A Delta table; `columns` are (name, Spark SQL type)."""
    definitions = ", ".join(f"{quote(name)} {kind}" for name, kind in columns)
    mapped = any(needs_mapping(name) for name, _ in columns)
    properties = f" TBLPROPERTIES ({text(MAPPING[0])} = {text(MAPPING[1])})" if mapped else ""
    return f"CREATE TABLE {table} ({definitions}) USING DELTA{properties}"


def add_columns(table: str, columns: Sequence[tuple[str, str]]) -> str:
    """Columns added at the end; `columns` are (name, Spark SQL type)."""
    definitions = ", ".join(f"{quote(name)} {kind}" for name, kind in columns)
    return f"ALTER TABLE {table} ADD COLUMNS ({definitions})"


def set_property(table: str, name: str, value: str) -> str:
    """One table property."""
    return f"ALTER TABLE {table} SET TBLPROPERTIES ({text(name)} = {text(value)})"


def widen(table: str, column: str, kind: str) -> str:
    """A column's wider type; needs delta.enableTypeWidening."""
    return f"ALTER TABLE {table} ALTER COLUMN {quote(column)} TYPE {kind}"


def insert_overwrite(table: str, source: str, columns: Sequence[str]) -> str:
    """All rows anew in the table as it is; columns that are not named become NULL."""
    names = ", ".join(quote(column) for column in columns)
    return f"INSERT OVERWRITE TABLE {table} ({names}) SELECT {names} FROM {source}"


def merge(
    table: str, source: str, columns: Mapping[str, str], keys: Sequence[str], cursor: str | None, future: str | None
) -> str:
    """Update rows that differ and are not newer, insert the others (R14). `columns` are name to Spark SQL type.

    `future` is the literal of the read bound: a target cursor above it is a future date that was corrected.
    """
    same = " AND ".join(f"t.{quote(key)} = s.{quote(key)}" for key in keys)
    others = [column for column in columns if column not in keys]
    assignments = ", ".join(f"t.{quote(column)} = s.{quote(column)}" for column in others)
    names = ", ".join(quote(column) for column in columns)
    values = ", ".join(f"s.{quote(column)}" for column in columns)
    lines = [f"MERGE INTO {table} AS t", f"USING {source} AS s", f"ON {same}"]
    if others:
        equal = " AND ".join(_equal(column, columns[column]) for column in others)
        guard = f" AND ({_not_older(cursor, future)})" if cursor and cursor in columns else ""
        lines.append(f"WHEN MATCHED AND NOT ({equal}){guard} THEN UPDATE SET {assignments}")
    lines.append(f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})")
    return "\n".join(lines)


def _equal(column: str, kind: str) -> str:
    """NULL-safe equality; maps and variants have none of their own."""
    ours, theirs = f"t.{quote(column)}", f"s.{quote(column)}"
    if "map<" in kind or "variant" in kind:
        return f"to_json({ours}) <=> to_json({theirs})"
    return f"{ours} <=> {theirs}"


def _not_older(cursor: str, future: str | None) -> str:
    name = quote(cursor)
    guard = f"t.{name} IS NULL OR s.{name} >= t.{name}"
    return f"{guard} OR t.{name} > {future}" if future else guard
