"""The scan of a JDBC source as a Spark frame: one statement per part, every value exact."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_entry.adapters.base import CURSOR_DIGITS, LOST_DIGITS, Column, ReadPlan
from spark_entry.adapters.jdbc_catalog import native_of
from spark_entry.dialects.base import Carrier, Dialect
from sync_core.domain.errors import PermanentError

PART = "uds_part"
_LOST = "uds_lost"
_DIGITS = "uds_digits"
_UNREADABLE = re.compile(r"uds: column (?P<column>.+?) holds '(?P<value>.*?)', which does not fit (?P<type>[a-z_0-9(),]+)")


def select_statement(dialect: Dialect, plan: ReadPlan, part: str | None, as_of: str, *, digits: bool = True) -> str:
    """The source's SELECT. Columns are renamed c0, c1, ... so that no name has to survive Spark's own quoting (P18)."""
    names = {column.name: dialect.quote(column.name) for column in plan.columns}
    carriers = _carriers(dialect, plan)
    selected = [
        f"{carrier.select.replace('{}', names[column.name])} AS {dialect.quote(f'c{index}')}"
        for index, (column, carrier) in enumerate(zip(plan.columns, carriers, strict=True))
    ]
    if digits:
        selected += _digit_columns(dialect, plan, carriers)
    if part is not None and plan.predicates:
        selected.append(f"{part} AS {dialect.quote(PART)}")
    where = f" WHERE {plan.filter}" if plan.filter else ""
    return f"SELECT {', '.join(selected)} FROM {plan.relation.sql}{as_of}{where}"


def _digit_columns(dialect: Dialect, plan: ReadPlan, carriers: list[Carrier]) -> list[str]:
    """How many values of the row lose digits below a microsecond, and the cursor's own."""
    cursor = _cursor(plan)
    lost: list[str] = []
    own: list[str] = []
    for column, carrier in zip(plan.columns, carriers, strict=True):
        digits = carrier.digits.replace("{}", dialect.quote(column.name))
        if digits and column is cursor:
            own.append(f"{digits} AS {dialect.quote(_DIGITS)}")
        elif digits:
            lost.append(f"CASE WHEN {digits} > 0 THEN 1 ELSE 0 END")
    return [*([f"{' + '.join(lost)} AS {dialect.quote(_LOST)}"] if lost else []), *own]


def read_frame(
    spark: SparkSession, dialect: Dialect, url: str, plan: ReadPlan, statement: str, properties: Mapping[str, str]
) -> DataFrame:
    """The plan's columns in their carried types, then the engine's own columns."""
    carriers = _carriers(dialect, plan)
    wires = [f"c{index} {carrier.wire_type}" for index, carrier in enumerate(carriers)]
    own = {_LOST: "int", _DIGITS: "int"}
    present = [name for name in own if dialect.quote(name) in statement]
    reader = spark.read.option("customSchema", ", ".join(wires + [f"{name} {own[name]}" for name in present]))
    source = f"({statement}) uds_rows"
    if plan.predicates:
        raw = reader.jdbc(url, source, predicates=list(plan.predicates), properties=dict(properties))
    else:
        raw = reader.jdbc(url, source, properties=dict(properties))
    columns = [
        F.expr(_decoded(column, carrier, raw.columns[index])).alias(column.name)
        for index, (column, carrier) in enumerate(zip(plan.columns, carriers, strict=True))
    ]
    frame_names = {name.lower(): name for name in raw.columns}
    names = {_LOST: LOST_DIGITS, _DIGITS: CURSOR_DIGITS}
    return raw.select(*columns, *[F.col(frame_names[name]).alias(names[name]) for name in present])


def find_unreadable(message: str) -> PermanentError | None:
    """The error behind a value that stopped a scan."""
    match = _UNREADABLE.search(message)
    if match is None:
        return None
    return PermanentError(
        "value.unreadable",
        f"The column {match['column']} of the source holds {match['value']!r}, which does not fit {match['type']}.",
        f"Say under types: what {match['column']} may become (decimal with other digits, or string), filter the row out, or correct it.",
    )


def _carriers(dialect: Dialect, plan: ReadPlan) -> list[Carrier]:
    return [dialect.carrier(native_of(column)) for column in plan.columns]


def _cursor(plan: ReadPlan) -> Column | None:
    return plan.relation.column(plan.cursor.column) if plan.cursor and plan.cursor.column else None


def _decoded(column: Column, carrier: Carrier, name: str) -> str:
    """Spark SQL from what arrives to the carried type. A value that does not fit stops the run; it never becomes NULL."""
    arrived = f"`{name}`"
    kind, decode = carrier.type, carrier.decode
    if column.type != carrier.type:
        kind, decode = column.type, f"try_cast({{}} AS {column.type})"
    if not decode:
        return arrived
    label = column.name.replace("\\", "\\\\").replace("'", "\\'")
    stop = f"raise_error(concat('uds: column {label} holds \\'', left(cast({arrived} AS string), 40), '\\', which does not fit {kind}'))"
    decoded = decode.replace("{}", arrived)
    return f"coalesce({decoded}, CASE WHEN {arrived} IS NOT NULL THEN cast({stop} AS {kind}) END)"
