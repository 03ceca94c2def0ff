"""Delta tables as sources: by a cursor column, or by the versions of the table itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar
from zoneinfo import ZoneInfo

from pyspark.sql import DataFrame, SparkSession

from spark_entry.adapters.base import (
    CURSOR_DIGITS,
    SECRET,
    Column,
    CursorProbe,
    DatabaseAdapter,
    ReadPlan,
    Relation,
)
from spark_entry.adapters.delta_table import NO_DELTA, DeltaTables, columns_of, condition_of
from spark_entry.adapters.source_cursor import find_cursor, zone_of
from spark_entry.dialects import databricks as dialect
from spark_entry.zones import has_summer_time
from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError, SyncError
from sync_core.domain.pipeline import Cursor, ReadOptions, Source
from sync_core.domain.watermark import CursorType, Watermark

_VERSIONS = re.compile(r"_commit_version > (\d+) AND _commit_version <= (\d+)")


class DeltaSource(DatabaseAdapter):
    """The half of the adapter that reads. Every read of a run sees the version that `describe_source` found."""

    driver_package: ClassVar[str | None] = None

    def __init__(self, connection: Connection, spark: SparkSession, secret: SECRET) -> None:
        super().__init__(connection, spark, secret)
        self.tables = DeltaTables(connection, spark)

    def build_jdbc_url(self) -> str:
        return ""

    def get_credentials(self) -> Mapping[str, str]:
        return {}

    def translate_error(self, error: BaseException) -> SyncError | None:
        return self.tables.translate(error)

    def describe_source(self, source: Source, types: Mapping[str, str]) -> Relation:
        overrides = {name.lower(): kind for name, kind in types.items()}
        if source.query is not None:
            # On a line of its own, or a comment at the query's end would swallow what follows.
            sql = f"({source.query.strip().rstrip(';')}\n) AS uds_query"
            with self.tables.faults("source", "the query"):
                columns = columns_of(self.tables.sql(f"SELECT * FROM {sql}"), overrides)
            return Relation("query", sql, columns, is_query=True)
        name = source.table or ""
        table = self.tables.sql_of(name)
        with self.tables.faults("source", name):
            version = self._version(table)
            at = table if version is None else f"{table} VERSION AS OF {version}"
            return Relation(name, at, columns_of(self.tables.sql(f"SELECT * FROM {at}"), overrides), version=version)

    def _version(self, table: str) -> int | None:
        """None for a view or a table that is not Delta's: they are read as they are."""
        try:
            return self.tables.history(table, 1)[0].version
        except Exception as error:
            if condition_of(error) in NO_DELTA:
                return None
            raise

    def probe_cursor(self, relation: Relation, cursor: Cursor) -> CursorProbe:
        if cursor.type is CursorType.VERSION:
            if relation.version is None:
                raise PermanentError(
                    "cursor.type",
                    f"{relation.name} is no Delta table and has no versions.",
                    "Choose a cursor column.",
                )
            mark = Watermark(CursorType.VERSION, str(relation.version))
            return CursorProbe(mark, mark, 0, 0, datetime.now(UTC))
        column = find_cursor(relation, cursor, _cursor_types)
        zone = zone_of(cursor, self.connection) or ZoneInfo("UTC")
        statement = dialect.probe(relation.sql, column.name, cursor.type, cursor.settle_seconds, zone.key)
        with self.tables.faults("source", relation.name):
            row = self.tables.sql(statement).collect()[0]
        return CursorProbe(
            _mark(cursor.type, row["safe"]),
            _mark(cursor.type, row["highest"]),
            int(row["nulls"]),
            int(row["future"]),
            datetime.fromisoformat(row["clock"]).replace(tzinfo=UTC),
            daylight_saving=cursor.type is CursorType.TIMESTAMP and has_summer_time(zone, datetime.now(UTC)),
        )

    def get_incremental_filter(
        self, relation: Relation, cursor: Cursor, low: Watermark | None, high: Watermark | None, with_nulls: bool
    ) -> str | None:
        if cursor.type is CursorType.VERSION:
            # A commit is atomic: nothing arrives late in a version that was read, so the low end is exclusive.
            return f"_commit_version > {low.value} AND _commit_version <= {high.value}" if low and high else None
        column = find_cursor(relation, cursor, _cursor_types)
        return dialect.between(column.name, column.native, low, high, with_nulls=with_nulls)

    def plan_read(
        self,
        relation: Relation,
        columns: tuple[Column, ...],
        cursor: Cursor | None,
        condition: str | None,
        options: ReadOptions,
    ) -> ReadPlan:
        names = ", ".join(dialect.quote(column.name) for column in columns)
        source = relation.sql
        changes = _VERSIONS.fullmatch(condition or "")
        if changes:
            first, last = int(changes[1]) + 1, int(changes[2])
            names += f", _commit_version AS {CURSOR_DIGITS}"
            if first <= last:
                source = self._changes(relation.name, first, last)
                condition = "_change_type IN ('insert', 'update_postimage')"
            else:
                source, condition = f"(SELECT *, 0L AS _commit_version FROM {relation.sql})", "false"
        statement = f"SELECT {names} FROM {source}" + (f" WHERE {condition}" if condition else "")
        snapshot = f"version {relation.version}" if relation.version is not None else None
        return ReadPlan(relation, columns, cursor, condition, (), options.fetch_size, (statement,), snapshot)

    def _changes(self, name: str, first: int, last: int) -> str:
        """The change feed of a table between two versions, both inclusive."""
        path = self.tables.path_of(name)
        if path is not None:
            return f"table_changes_by_path({dialect.text(path)}, {first}, {last})"
        return f"table_changes({dialect.text(self.tables.sql_of(name))}, {first}, {last})"

    def read_data(self, plan: ReadPlan) -> DataFrame:
        with self.tables.faults("source", plan.relation.name):
            frame = self.tables.sql(plan.statements[0])
        wanted = {column.name: column.type for column in plan.columns}
        return frame.select(
            *[
                frame[dialect.quote(field.name)].cast(wanted[field.name]).alias(field.name)
                if wanted.get(field.name, field.dataType.simpleString()) != field.dataType.simpleString()
                else frame[dialect.quote(field.name)]
                for field in frame.schema.fields
            ]
        )

    def count_nulls(self, relation: Relation, columns: tuple[str, ...], condition: str | None) -> int:
        missing = " OR ".join(f"{dialect.quote(name)} IS NULL" for name in columns)
        with self.tables.faults("source", relation.name):
            row = self.tables.sql(f"SELECT COUNT(*) AS missing FROM {relation.sql} WHERE {missing}").collect()[0]
        return int(row["missing"])


def _cursor_types(column: Column) -> tuple[CursorType, ...]:
    found = dialect.cursor_type(column.native)
    return (found,) if found else ()


def _mark(kind: CursorType, text: str | None) -> Watermark | None:
    return Watermark.parse(kind, text) if text is not None else None
