"""SQL text of Databricks and of Spark with Delta Lake."""

from __future__ import annotations

from collections.abc import Sequence

from sync_core.domain.watermark import CursorType, Watermark

_TYPES = {
    CursorType.DATE: "DATE",
    CursorType.TIMESTAMP: "TIMESTAMP_NTZ",
    CursorType.TIMESTAMP_TZ: "TIMESTAMP",
}


def quote(name: str) -> str:
    """One identifier, whatever characters it holds."""
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def literal(mark: Watermark, column_type: str, *, upwards: bool) -> str:
    """A literal of the column's type. Digits below a microsecond are rounded outwards, so that no row is left out."""
    if mark.type is CursorType.NUMBER:
        return f"CAST('{mark.value}' AS DECIMAL(38,{_scale(mark.value)}))"
    if mark.type is CursorType.ROWVERSION:
        return f"X'{mark.value[2:]}'"
    if mark.type is CursorType.VERSION:
        return mark.value
    value = mark.to_microsecond(upwards=upwards).value
    kind = column_type.upper() if column_type in ("date", "timestamp_ntz", "timestamp") else _TYPES[mark.type]
    return f"CAST('{value}' AS {kind})"


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


def create_table(table: str, columns: Sequence[tuple[str, str]]) -> str:
    """A Delta table; `columns` are (name, Spark SQL type)."""
    definitions = ", ".join(f"{quote(name)} {kind}" for name, kind in columns)
    return f"CREATE TABLE {table} ({definitions}) USING DELTA"


def add_columns(table: str, columns: Sequence[tuple[str, str]]) -> str:
    """Columns as (name, Spark SQL type)."""
    definitions = ", ".join(f"{quote(name)} {kind}" for name, kind in columns)
    return f"ALTER TABLE {table} ADD COLUMNS ({definitions})"


def set_property(table: str, name: str, value: str) -> str:
    """One table property."""
    return f"ALTER TABLE {table} SET TBLPROPERTIES ({text(name)} = {text(value)})"


def widen(table: str, column: str, kind: str) -> str:
    """Give a column a wider type; type widening must be on."""
    return f"ALTER TABLE {table} ALTER COLUMN {quote(column)} TYPE {kind}"


def merge(
    table: str, source: str, columns: Sequence[str], keys: Sequence[str], cursor: str | None, future: str | None
) -> str:
    """Update rows that differ and are not newer, insert the others (R14).

    `future` is the literal of the read bound: a target cursor above it is a future date that was corrected.
    """
    same = " AND ".join(f"t.{quote(key)} = s.{quote(key)}" for key in keys)
    others = [column for column in columns if column not in keys]
    assignments = ", ".join(f"t.{quote(column)} = s.{quote(column)}" for column in others)
    names = ", ".join(quote(column) for column in columns)
    values = ", ".join(f"s.{quote(column)}" for column in columns)
    lines = [f"MERGE INTO {table} AS t", f"USING {source} AS s", f"ON {same}"]
    if others:
        differs = " AND ".join(f"t.{quote(column)} <=> s.{quote(column)}" for column in others)
        guard = f" AND ({_not_older(cursor, future)})" if cursor and cursor in columns else ""
        lines.append(f"WHEN MATCHED AND NOT ({differs}){guard} THEN UPDATE SET {assignments}")
    lines.append(f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})")
    return "\n".join(lines)


def _not_older(cursor: str, future: str | None) -> str:
    name = quote(cursor)
    guard = f"t.{name} IS NULL OR s.{name} >= t.{name}"
    return f"{guard} OR t.{name} > {future}" if future else guard


def _scale(value: str) -> int:
    return min(38, len(value.partition(".")[2]))
