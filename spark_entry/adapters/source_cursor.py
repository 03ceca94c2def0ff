"""A pipeline's cursor as its source has it: the column, and the zone of its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from spark_entry.adapters.base import Column, Relation
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError, PermanentError
from sync_core.domain.pipeline import Cursor
from sync_core.domain.watermark import CursorType


def find_cursor(relation: Relation, cursor: Cursor, types: Callable[[Column], Sequence[CursorType]]) -> Column:
    """The cursor's column. `types` says which cursors a column can be; PermanentError where it cannot be this one."""
    column = relation.column(cursor.column)
    if column is None:
        raise PermanentError(
            "column.missing", f"{relation.name} has no column {cursor.column}.", "Correct cursor.column."
        )
    possible = types(column)
    if cursor.type not in possible:
        can = " or ".join(kind.value for kind in possible)
        raise PermanentError(
            "cursor.type",
            f"{relation.name}.{column.name} is {column.native}, which cannot be a cursor of type {cursor.type.value}.",
            f"Set cursor.type to {can}." if can else "Choose a date, timestamp or exact number column.",
        )
    return column


def zone_of(cursor: Cursor, connection: Connection) -> ZoneInfo | None:
    """The zone in which the configuration says that values without one are written; None where it says nothing."""
    name = cursor.timezone or connection.timezone
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError("timezone.unknown", f"{name!r} is no time zone.", "Write for example Europe/Oslo.") from error
