"""Tables and columns as the database's own catalog has them, for names as people write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from pyspark.errors import PySparkException
from pyspark.sql.types import DataType

from spark_entry.adapters.base import Column
from spark_entry.adapters.jdbc_connection import HeldConnection, ResultColumn
from spark_entry.dialects.base import Dialect
from spark_entry.dialects.carrier import NativeType
from sync_core.domain.errors import ConfigError, PermanentError

_PART = re.compile(r'"((?:[^"]|"")*)"|\[((?:[^\]]|\]\])*)\]|`((?:[^`]|``)*)`|([^."\[`]+)')


@dataclass(frozen=True)
class TableName:
    """A table's schema and name, spelled as the database spells them."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def split_name(text: str) -> tuple[str, ...]:
    """The parts of `SCHEMA.TABLE`, each bare or in quotes of any of the databases. Raises ConfigError."""
    parts: list[str] = []
    position = 0
    while match := _PART.match(text, position):
        quoted, bracketed, ticked, bare = match.groups()
        if quoted is not None:
            parts.append(quoted.replace('""', '"'))
        elif bracketed is not None:
            parts.append(bracketed.replace("]]", "]"))
        elif ticked is not None:
            parts.append(ticked.replace("``", "`"))
        else:
            parts.append(bare.strip())
        position = match.end()
        if position == len(text):
            return tuple(parts)
        if text[position] != ".":
            break
        position += 1
    raise ConfigError(
        "table.name",
        f"{text!r} is not a table name.",
        'Write schema.table, with quotes around a part that holds a dot: "my.table".',
    )


def find_table(
    connection: HeldConnection, written: str, default_schema: str | None, database: str | None
) -> TableName | None:
    """The table of this exact name, else the only one that matches when case is ignored; None when there is none.

    Raises ConfigError when several match, or when the name asks for another database.
    """
    schema, name = _target_of(connection, written, default_schema, database)
    if schema is None:
        return None
    exact = connection.tables(schema, (name,))
    if exact:
        return TableName(*exact[0])
    found = set(connection.tables(schema.upper(), (name.upper(),))) | set(
        connection.tables(schema.lower(), (name.lower(),))
    )
    if not found:
        found = {pair for pair in _neighbours(connection, schema) if pair[1].lower() == name.lower()}
    if len(found) > 1:
        raise ConfigError(
            "table.ambiguous",
            f"{written} could be any of {', '.join('.'.join(pair) for pair in sorted(found))}.",
            "Write the name with its exact case.",
        )
    return TableName(*found.pop()) if found else None


def name_new_table(
    connection: HeldConnection,
    written: str,
    default_schema: str | None,
    database: str | None,
    fold: Callable[[str], str],
) -> TableName:
    """The name of a table that is to be created: quoted parts as they are, a bare name as the database would fold it."""
    schema, name = _target_of(connection, written, default_schema, database)
    if schema is None:
        raise ConfigError(
            "table.name", f"{written} names no schema, and the connection has none.", "Write schema.table."
        )
    quoted = written.rstrip()[-1:] in ('"', "]", "`")
    return TableName(_schema_as_it_is(connection, schema), name if quoted else fold(name))


def _schema_as_it_is(connection: HeldConnection, schema: str) -> str:
    known = connection.schemas()
    similar = [name for name in known if name.lower() == schema.lower()]
    return schema if schema in known or len(similar) != 1 else similar[0]


def nearest_table(connection: HeldConnection, written: str, default_schema: str | None, database: str | None) -> str:
    """A sentence that helps to find the table that is meant."""
    schema, name = _target_of(connection, written, default_schema, database)
    if schema is None:
        return "Write the schema too."
    names = {table.lower(): f"{owner}.{table}" for owner, table in _neighbours(connection, schema)}
    near = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"Did you mean {names[near[0]]}?" if near else f"The schema {schema} shows this user {len(names)} tables."


def read_columns(
    connection: HeldConnection, dialect: Dialect, relation: str, name: str, types: dict[str, str]
) -> tuple[Column, ...]:
    """The columns of whatever stands after FROM, with the types they are carried in."""
    described = connection.describe(f"SELECT * FROM {relation} WHERE 1 = 0")
    names = [column.name for column in described]
    doubled = sorted({column for column in names if names.count(column) > 1})
    if doubled:
        raise PermanentError(
            "source.columns",
            f"{name} has several columns named {', '.join(doubled)}.",
            "Give each its own name in the query.",
        )
    return tuple(_column(dialect, column, types.get(column.name.lower())) for column in described)


def _column(dialect: Dialect, described: ResultColumn, override: str | None) -> Column:
    native = dialect.native(described.type_name, described.precision, described.scale)
    carrier = dialect.carrier(native)
    if override is not None:
        return Column(described.name, _spark_type(described.name, override), str(native), described.nullable)
    return Column(described.name, carrier.type, str(native), described.nullable, carrier.refused, carrier.cuts_digits)


def _spark_type(column: str, text: str) -> str:
    try:
        return DataType.fromDDL(text).simpleString()
    except PySparkException as error:
        raise ConfigError(
            "type.unknown",
            f"types: {column}: {text!r} is not a Spark SQL type.",
            "Write for example decimal(38,10) or string.",
        ) from error


def native_of(column: Column) -> NativeType:
    """The database's own type of a column that `read_columns` described."""
    return NativeType.parse(column.native)


def _target_of(
    connection: HeldConnection, written: str, default_schema: str | None, database: str | None
) -> tuple[str | None, str]:
    parts = split_name(written)
    if len(parts) > 3 or (len(parts) == 3 and parts[0].lower() != (database or "").lower()):
        raise ConfigError(
            "table.name",
            f"{written} asks for a table outside of the connection's database.",
            "Write schema.table, and use a connection of its own for another database.",
        )
    schema = parts[len(parts) - 2] if len(parts) > 1 else default_schema or connection.current_schema()
    return schema, parts[len(parts) - 1]


def _neighbours(connection: HeldConnection, schema: str) -> list[tuple[str, str]]:
    spellings = dict.fromkeys((schema, schema.upper(), schema.lower()))
    return sorted({pair for spelling in spellings for pair in connection.tables(spelling, ())})
