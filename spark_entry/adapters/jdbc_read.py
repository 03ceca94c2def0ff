"""The scan of a JDBC source as a Spark frame: one statement per part, every value exact."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_entry.adapters.base import CURSOR_DIGITS, LOST_DIGITS, Column, ReadPlan
from spark_entry.adapters.jdbc_catalog import native_of
from spark_entry.dialects.base import Dialect
from spark_entry.dialects.carrier import LOST_NANOSECONDS, Carrier
from sync_core.domain.errors import PermanentError

PART = "uds_part"
_UNREADABLE = re.compile(
    r"\[USER_RAISED_EXCEPTION\] uds: column (?P<column>.+?) holds '(?P<value>.*?)', which does not fit (?P<type>[a-z_0-9(),]+)"
)


def select_statement(dialect: Dialect, plan: ReadPlan, part: str | None, as_of: str) -> str:
    """The source's SELECT. Columns are renamed c0, c1, ... so that no name has to survive Spark's own quoting (P18)."""
    selected = [
        f"{dialect.carrier(native_of(column)).select.replace('{}', dialect.quote(column.name))} AS {dialect.quote(f'c{index}')}"
        for index, column in enumerate(plan.columns)
    ]
    if part is not None and plan.predicates:
        selected.append(f"{part} AS {dialect.quote(PART)}")
    where = f" WHERE {plan.filter}" if plan.filter else ""
    return f"SELECT {', '.join(selected)} FROM {plan.relation.sql}{as_of}{where}"


def read_frame(
    spark: SparkSession,
    dialect: Dialect,
    url: str,
    plan: ReadPlan,
    statement: str,
    properties: Mapping[str, str],
    *,
    digits: bool,
) -> DataFrame:
    """The plan's columns in their carried types, then, with `digits`, the engine's own columns."""
    carriers = [dialect.carrier(native_of(column)) for column in plan.columns]
    reader = spark.read.option(
        "customSchema", ", ".join(f"c{index} {carrier.wire_type}" for index, carrier in enumerate(carriers))
    )
    source = f"({statement}) uds_rows"
    if plan.predicates:
        raw = reader.jdbc(url, source, predicates=list(plan.predicates), properties=dict(properties))
    else:
        raw = reader.jdbc(url, source, properties=dict(properties))
    columns = [
        F.expr(_decoded(column, carrier, f"`{raw.columns[index]}`")).alias(column.name)
        for index, (column, carrier) in enumerate(zip(plan.columns, carriers, strict=True))
    ]
    return raw.select(*columns, *(_digit_columns(plan, raw.columns) if digits else []))


def _digit_columns(plan: ReadPlan, arrived: list[str]) -> list[SparkColumn]:
    """How many values of the row lose digits below a microsecond, and the cursor's own."""
    cursor = plan.relation.column(plan.cursor.column) if plan.cursor and plan.cursor.column else None
    lost: list[str] = []
    own: list[SparkColumn] = []
    for column, name in zip(plan.columns, arrived, strict=False):
        if not column.cuts_digits:
            continue
        digits = LOST_NANOSECONDS.replace("{}", f"`{name}`")
        if cursor is not None and column.name == cursor.name:
            own.append(F.expr(digits).alias(CURSOR_DIGITS))
        else:
            lost.append(f"CASE WHEN {digits} > 0 THEN 1 ELSE 0 END")
    return [*([F.expr(" + ".join(lost)).alias(LOST_DIGITS)] if lost else []), *own]


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


def _decoded(column: Column, carrier: Carrier, arrived: str) -> str:
    """Spark SQL from what arrives to the carried type. A value that does not fit stops the run; it never becomes NULL."""
    kind, decode = carrier.type, carrier.decode
    if column.type != carrier.type:
        kind, decode = column.type, f"try_cast({{}} AS {column.type})"
    if not decode:
        return arrived
    label = column.name.replace("\\", "\\\\").replace("'", "\\'")
    stop = f"raise_error(concat('uds: column {label} holds \\'', left(cast({arrived} AS string), 40), '\\', which does not fit {kind}'))"
    decoded = decode.replace("{}", arrived)
    return f"coalesce({decoded}, CASE WHEN {arrived} IS NOT NULL THEN cast({stop} AS {kind}) END)"
