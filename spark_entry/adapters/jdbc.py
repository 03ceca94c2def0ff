"""A database behind a JDBC driver. One more of them needs little more than a dialect, an address and a driver."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from pyspark.sql import DataFrame

from spark_entry.adapters.base import Column, ReadPlan, Relation, TargetState, WriteCounts, WriteRequest
from spark_entry.adapters.jdbc_catalog import TableName, find_table, name_new_table, native_of, read_columns
from spark_entry.adapters.jdbc_connection import DatabaseFailed, HeldConnection
from spark_entry.adapters.jdbc_faults import clean
from spark_entry.adapters.jdbc_ledger import Ledger
from spark_entry.adapters.jdbc_read import read_frame, select_statement
from spark_entry.adapters.jdbc_source import JdbcSource
from spark_entry.adapters.jdbc_staging import Staging, staging_prefix
from spark_entry.dialects.base import FaultKind
from spark_entry.dialects.character_sets import outside
from spark_entry.dialects.writing import LedgerTables, Load, Written
from spark_entry.ledger import LedgerEntry
from spark_entry.schema import unfit
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.pipeline import Cursor, Target
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import CursorType, Watermark

LOG = logging.getLogger("uds.engine")

_FETCH_SIZE = 10_000
_BINARY_CURSORS = (CursorType.ROWVERSION,)


class JdbcAdapter(JdbcSource):
    """Source and target. The target's rows and its ledger change in one transaction of one held connection (R14)."""

    def open_target(self) -> HeldConnection:
        """The held connection, which never waits for a lock for ever."""
        if self._held is None:
            connection = self.held
            for statement in self.dialect.session_setup:
                connection.execute(statement)
        return self.held

    def inspect_target(self, target: Target, pipeline_id: str) -> TargetState:
        with self.faults("target", target.table):
            connection = self.open_target()
            table = self._find(target)
            name = table or self._new_name(target)
            entry, recent = Ledger(connection, LedgerTables(self.dialect, name.schema)).read(pipeline_id)
            if table is None:
                return TargetState(exists=False, ledger=entry, recent=recent)
            relation = self.dialect.table(table.schema, table.name)
            return TargetState(
                exists=True,
                columns=self._columns(connection, table, target.table),
                has_rows=self._has_rows(relation),
                ledger=entry,
                recent=recent,
                object_id=connection.query(self.dialect.object_id(table.schema, table.name))[0][0],
            )

    def _columns(self, connection: HeldConnection, table: TableName, written: str) -> tuple[Column, ...]:
        """The target's columns, each with the character set that bounds its text."""
        relation = self.dialect.table(table.schema, table.name)
        columns = read_columns(connection, self.dialect, relation, written, {})
        query = self.dialect.character_sets(table.schema, table.name)
        bounds = {str(name): str(bound) for name, bound in connection.query(query) if bound} if query else {}
        return tuple(replace(column, character_set=bounds.get(column.name)) for column in columns)

    def read_ledger(self, target: Target, pipeline_id: str) -> tuple[LedgerEntry, ...]:
        """As the base says; over a new connection when the held one is lost, and the answer to a commit with it (R15)."""
        try:
            return super().read_ledger(target, pipeline_id)
        except RetryableError as error:
            if error.code != "database.unreachable":
                raise
        self.close()
        return super().read_ledger(target, pipeline_id)

    def create_statements(self, target: Target, columns: tuple[Column, ...], keys: tuple[str, ...]) -> tuple[str, ...]:
        with self.faults("target", target.table):
            name = self._new_name(target)
        parts = [
            f"{self.dialect.quote(column.name)} {self._native(column, key=column.name in keys)}"
            + (" NOT NULL" if column.name in keys else "")
            for column in columns
        ]
        if keys:
            parts.append(f"PRIMARY KEY ({self.dialect.names(keys)})")
        return (f"CREATE TABLE {self.dialect.table(name.schema, name.name)} ({', '.join(parts)})",)

    def evolve_statements(
        self, target: Target, added: tuple[Column, ...], widened: tuple[Column, ...]
    ) -> tuple[str, ...]:
        with self.faults("target", target.table):
            table = self._existing(target)
        additions = [self.dialect.add_column(table, column.name, self._native(column, key=False)) for column in added]
        wider = [
            self.dialect.widen_column(table, column.name, self._native(column, key=False), nullable=column.nullable)
            for column in widened
        ]
        return (*additions, *wider)

    def prepare_target(self, target: Target, pipeline_id: str, statements: tuple[str, ...]) -> None:
        with self.faults("target", target.table):
            connection = self.open_target()
            for statement in statements:
                connection.execute(statement)
            schema = self.find_target(target).schema
            Ledger(connection, LedgerTables(self.dialect, schema)).create()
            for leftover in connection.tables_like(schema, staging_prefix(pipeline_id)):
                self._drop(self.dialect.table(schema, leftover))

    def read_target(self, target: Target, state: TargetState, condition: str | None) -> DataFrame:
        with self.faults("target", target.table):
            relation = Relation(target.table, self._existing(target), state.columns)
        plan = ReadPlan(relation, state.columns, None, condition, (), _FETCH_SIZE, ())
        statement = select_statement(self.dialect, plan, None, "")
        properties = {**self.read_properties(), "driver": self.driver_class, "fetchsize": str(_FETCH_SIZE)}
        return read_frame(self.spark, self.dialect, self.url, plan, statement, properties, digits=False)

    def target_filter(
        self,
        state: TargetState,
        column: str,
        cursor: Cursor,
        low: Watermark | None,
        high: Watermark | None,
        with_nulls: bool,
    ) -> str | None:
        found = next(there for there in state.columns if there.name == column)
        self._require_order(found, cursor.type)
        return self.dialect.between(found.name, native_of(found), low, high, with_nulls)

    def kept(self, column: Column) -> str:
        native = native_of(column)
        if column.type in ("string", "binary"):
            return self._kept_text(column, self.dialect.kept(native))
        pattern = self.dialect.unfit(native) if column.type in ("timestamp", "timestamp_ntz") else None
        if pattern is None:
            return "{}"
        return f"CASE WHEN cast({{}} AS string) RLIKE '{pattern}' THEN {unfit(column, '{}')} ELSE {{}} END"

    def _kept_text(self, column: Column, kept: str) -> str:
        pattern = outside(column.character_set) if column.character_set else None
        if pattern is None:
            return kept
        column = replace(column, native=f"{column.native} in character set {column.character_set}")
        escaped = pattern.replace("\\", "\\\\")
        return f"CASE WHEN {{}} RLIKE '{escaped}' THEN {unfit(column, '{}')} ELSE {kept} END"

    def write_statements(self, request: WriteRequest) -> tuple[str, ...]:
        with self.faults("target", request.target.table):
            table = self._find(request.target) or self._new_name(request.target)
        load = self._load(request, table, Staging.name_of(request.entry.pipeline_id, request.execution))
        return self._statements(request, load)

    def write_data(self, request: WriteRequest) -> WriteCounts:
        with self.faults("target", request.target.table):
            connection = self.open_target()
            table = self._find(request.target)
        if table is None:
            raise RetryableError("target.missing", f"The target {request.target.table} disappeared during the run.", "")
        for attempt in (1, 2):
            name = Staging.name_of(request.entry.pipeline_id, request.execution, attempt)
            load = self._load(request, table, name)
            staging = Staging(self, connection, load)
            try:
                with self.faults("target", request.target.table), self._staging_of(table, name):
                    staging.create()
                    staging.fill(request.frame)
                expected = request.rows_expected()
                request.event("write.staged", rows=expected)
                with self.faults("target", request.target.table), self._staging_of(table, name):
                    ledger = Ledger(connection, LedgerTables(self.dialect, table.schema))
                    counts = self._commit(request, load, ledger, connection, expected)
                if counts is not None:
                    request.event("commit.done", generation=request.entry.generation)
                    return counts
            finally:
                self._drop(load.staging)
        raise RetryableError(
            "staging.doubled",
            f"The staging table of {request.target.table} held other rows than were read, twice: a Spark task was repeated.",
            "Turn spark.speculation off.",
        )

    @contextmanager
    def _staging_of(self, table: TableName, staging: str) -> Generator[None]:
        """Tell a staging table that a later run dropped from any other missing table (R14)."""
        try:
            yield
        except DatabaseFailed as error:
            gone = self._means(error) == "missing" and not self.held.tables(table.schema, (staging,))
            if not gone:
                raise
            raise RetryableError(
                "staging.gone",
                f"The staging table {staging} of {table} was dropped by a later run of this pipeline.",
                "Nothing was written; the later run goes on.",
            ) from error

    def _means(self, error: DatabaseFailed) -> FaultKind:
        return self.dialect.fault(error.fault.state, error.fault.vendor_code, error.fault.message)

    def _commit(
        self, request: WriteRequest, load: Load, ledger: Ledger, connection: HeldConnection, expected: int
    ) -> WriteCounts | None:
        """The one transaction; None when staging does not hold what was read, and everything is as before."""
        request.event("commit.started", generation=request.entry.generation)
        try:
            with connection.transaction():
                ledger.take(request.expected, request.entry)
                if int(connection.query(load.count_staging())[0][0] or 0) != expected:
                    raise _Doubled
                counts = self._move(request, load, connection)
                ledger.record(self._entry(request, load, counts))
        except _Doubled:
            return None
        return counts

    def _move(self, request: WriteRequest, load: Load, connection: HeldConnection) -> WriteCounts:
        if request.kind is RunKind.FULL_REFRESH:
            deleted = connection.execute(load.delete_all())
            return WriteCounts(inserted=self.insert(load, connection), deleted=deleted)
        if not load.keys:
            return WriteCounts(inserted=self.insert(load, connection))
        older, update = load.count_older(), load.update()
        left = int(connection.query(older)[0][0] or 0) if older else 0
        updated = connection.execute(update) if update else 0
        return WriteCounts(inserted=self.insert(load, connection), updated=updated, older=left)

    def insert(self, load: Load, connection: HeldConnection) -> int:
        """Put the new rows into the target; how many."""
        return connection.execute(load.insert())

    def _entry(self, request: WriteRequest, load: Load, counts: WriteCounts) -> LedgerEntry:
        return replace(
            request.entry,
            rows=counts.inserted + counts.updated,
            holds_rows=counts.inserted > 0 or self._has_rows(load.target),
            object_id=request.state.object_id,
        )

    def _statements(self, request: WriteRequest, load: Load) -> tuple[str, ...]:
        if request.kind is RunKind.FULL_REFRESH:
            return (load.delete_all(), load.insert())
        update = load.update() if load.keys else None
        return (update, load.insert()) if update else (load.insert(),)

    def _load(self, request: WriteRequest, table: TableName, staging: str) -> Load:
        there = {column.name.lower(): column for column in request.state.columns}
        columns = tuple(
            Written(
                name,
                native_of(there[name.lower()]) if name.lower() in there else self.dialect.native("", 0, 0),
                f"c{index}",
            )
            for index, name in enumerate(request.frame.columns)
        )
        by_name = {column.name: column for column in columns}
        cursor = by_name.get(request.cursor) if request.cursor else None
        if cursor is not None and request.keys and request.read_bound is not None and request.state.exists:
            self._require_order(there[cursor.name.lower()], request.read_bound.type)
        refresh = request.kind is RunKind.FULL_REFRESH
        return Load(
            self.dialect,
            self.dialect.table(table.schema, table.name),
            self.dialect.table(table.schema, staging),
            columns,
            () if refresh else tuple(by_name[key] for key in request.keys),
            cursor,
            request.read_bound if request.state.exists else None,
        )

    def _require_order(self, column: Column, kind: CursorType) -> None:
        """The target's type of the cursor must sort as the source's does."""
        native = native_of(column)
        possible = self.dialect.cursor_types(native)
        # A date may stand in a column of dates with time, as in every Oracle DATE.
        dated = kind is CursorType.DATE and CursorType.TIMESTAMP in possible
        if (
            kind in possible
            or dated
            or (kind in _BINARY_CURSORS and column.type == "binary" and native.name not in self.dialect.unordered)
        ):
            return
        raise PermanentError(
            "target.cursor",
            f"The target's column {column.name} is {column.native}, which does not sort as a cursor of type {kind.value}.",
            "Give the column a type that does, or leave the cursor as it is in the transformations.",
        )

    def _native(self, column: Column, *, key: bool) -> str:
        try:
            return self.dialect.column_type(column.type, native_of(column), key=key)
        except ValueError as error:
            raise PermanentError(
                "type.unsupported",
                f"{self.dialect.name} has no column type for {column.name}, which is {column.type}.",
                "Cast it in a transformation, for example to string, or drop it.",
            ) from error

    def _has_rows(self, relation: str) -> bool:
        statement = f"SELECT CASE WHEN EXISTS (SELECT 1 FROM {relation}) THEN 1 ELSE 0 END{self.dialect.dual}"
        return self.held.query(statement)[0][0] == "1"

    def find_target(self, target: Target) -> TableName:
        """The target's name, there or to be created."""
        return self._find(target) or self._new_name(target)

    def _find(self, target: Target) -> TableName | None:
        return find_table(self.held, target.table, self.connection.schema, self.connection.database)

    def _new_name(self, target: Target) -> TableName:
        return name_new_table(
            self.held, target.table, self.connection.schema, self.connection.database, self.dialect.fold
        )

    def _existing(self, target: Target) -> str:
        table = self._find(target) or self._new_name(target)
        return self.dialect.table(table.schema, table.name)

    def _drop(self, table: str) -> None:
        """Drop a staging table. What cannot be dropped now is the next run's to drop, and fails no run."""
        try:
            self.held.execute(f"DROP TABLE {table}")
        except DatabaseFailed as error:
            if self._means(error) != "missing":
                LOG.info("staging table %s stays until the next run: %s", table, clean(error.fault.message))


class _Doubled(Exception):
    """Staging holds other rows than were read."""
