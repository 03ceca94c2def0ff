"""A database behind a JDBC driver, as a source."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pyspark.sql import DataFrame, SparkSession

from spark_entry.adapters.access_tokens import expired
from spark_entry.adapters.base import SECRET, Column, CursorProbe, DatabaseAdapter, ReadPlan, Relation
from spark_entry.adapters.jdbc_catalog import TableName, find_table, native_of, nearest_table, read_columns
from spark_entry.adapters.jdbc_connection import DatabaseFailed, DatabaseFault, HeldConnection, connect, find_fault
from spark_entry.adapters.jdbc_faults import to_error
from spark_entry.adapters.jdbc_read import find_unreadable, read_frame, select_statement
from spark_entry.adapters.source_cursor import find_cursor, zone_of
from spark_entry.dialects.base import Dialect
from spark_entry.zones import has_summer_time, offset_minutes
from sync_core.domain.connection import Authentication, Connection
from sync_core.domain.errors import ConfigError, PermanentError, SyncError
from sync_core.domain.pipeline import Cursor, ReadOptions, Source
from sync_core.domain.watermark import CursorType, Watermark

CREDENTIALS_SECONDS = 300.0
"""How long a run uses the credentials that it has read. Every new connection of the driver and every Spark job begins
with credentials no older than this, so that a token that lasts an hour has most of it left."""

ROWS_PER_PART = 100_000
"""A part of a scan is worth its own connection from about here on."""


class JdbcSource(DatabaseAdapter):
    """The connection, and what a JDBC database does as a source."""

    dialect: ClassVar[Dialect]
    driver: ClassVar[str]
    default_port: ClassVar[int]

    def __init__(self, connection: Connection, spark: SparkSession, secret: SECRET) -> None:
        super().__init__(connection, spark, secret)
        self._held: HeldConnection | None = None
        self._snapshot: HeldConnection | None = None
        self._credentials: Mapping[str, str] | None = None
        self._credentials_read = 0.0
        self.clock: Callable[[], float] = time.monotonic
        self._from_a_bound: set[str] = set()

    # ---- the connection

    def get_credentials(self) -> Mapping[str, str]:
        if self.connection.auth is not Authentication.PASSWORD:
            raise ConfigError(
                "connection.auth",
                f"Connection {self.connection.name}: {self.dialect.name} cannot sign in with auth {self.connection.auth.value}.",
                "Use auth: password with username, secret_scope and secret_key.",
            )
        found = {"user": self.connection.username} if self.connection.username else {}
        reference = self.connection.secret
        return found | ({"password": self.secret(reference.scope, reference.key)} if reference else {})

    def driver_properties(self) -> Mapping[str, str]:
        """Properties of the driver that the connection's options may override."""
        return {}

    def write_properties(self) -> Mapping[str, str]:
        """Properties of the driver for loading staging tables."""
        return {}

    def read_properties(self) -> Mapping[str, str]:
        """All that Spark and the held connection need to sign in."""
        now = self.clock()
        if self._credentials is None or now - self._credentials_read >= CREDENTIALS_SECONDS:
            self._credentials, self._credentials_read = self.get_credentials(), now
            for name, value in self._credentials.items():
                if name != "user":
                    self.hide(value)
        given = {name: value for name, value in self.connection.options.items() if name not in ("url", "driver")}
        return {**self.driver_properties(), **given, **self._credentials}

    @property
    def url(self) -> str:
        return self.connection.options.get("url") or self.build_jdbc_url()

    @property
    def driver_class(self) -> str:
        return self.connection.options.get("driver") or self.driver

    def open(self) -> HeldConnection:
        """A connection of its own; the caller closes it."""
        read_before = self._credentials
        try:
            return connect(self.spark, self.driver_class, self.url, self.read_properties())
        except DatabaseFailed as error:
            fault = error.fault
            if read_before is None or self.dialect.fault(fault.state, fault.vendor_code, fault.message) != "sign_in":
                raise
        # The secret may have been rotated since this run read it.
        self._credentials = None
        return connect(self.spark, self.driver_class, self.url, self.read_properties())

    @property
    def held(self) -> HeldConnection:
        """The connection for probes and statements."""
        if self._held is None:
            self._held = self.open()
        return self._held

    def interrupt(self) -> None:
        for connection in (self._held, self._snapshot):
            if connection is not None:
                connection.interrupt()

    def close(self) -> None:
        self.end_snapshot()
        if self._held is not None:
            self._held.close()
            self._held = None

    def end_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    @contextmanager
    def faults(self, role: str, name: str) -> Generator[None]:
        """Errors of the database leave as SyncError, naming the object they are about."""
        try:
            yield
        except DatabaseFailed as error:
            raise self._to_error(error.fault, role, name) from error

    def _to_error(self, fault: DatabaseFault, role: str, name: str) -> SyncError:
        error = to_error(self.connection, self.dialect, fault, role, name)
        token = (self._credentials or {}).get("accessToken")
        if error.code != "database.sign_in" or token is None:
            return error
        return expired(self.connection, token, datetime.now(UTC)) or error

    def translate_error(self, error: BaseException) -> SyncError | None:
        unreadable = find_unreadable(str(error))
        if unreadable is not None:
            return unreadable
        fault = find_fault(error)
        return self._to_error(fault, "source", "the rows") if fault else None

    # ---- as a source

    def describe_source(self, source: Source, types: Mapping[str, str]) -> Relation:
        self.end_snapshot()
        overrides = {name.lower(): kind for name, kind in types.items()}
        if source.query is not None:
            # On a line of its own, or a comment at the query's end would swallow what follows.
            relation = f"({source.query.strip().rstrip(';')}\n) uds_query"
            with self.faults("source", "the query"):
                columns = read_columns(self.held, self.dialect, relation, "The query", overrides)
                return Relation("query", relation, columns, rows=self.estimate_rows(relation, None), is_query=True)
        written = source.table or ""
        with self.faults("source", written):
            table = find_table(self.held, written, self.connection.schema, self.connection.database)
            if table is None:
                raise PermanentError(
                    "source.missing",
                    f"Connection {self.connection.name} has no table {written}.",
                    nearest_table(self.held, written, self.connection.schema, self.connection.database),
                )
            relation = self.dialect.table(table.schema, table.name)
            columns = read_columns(self.held, self.dialect, relation, written, overrides)
            keys = self.unique_keys(table)
            return Relation(str(table), relation, columns, keys, self.estimate_rows(relation, table))

    def unique_keys(self, table: TableName) -> tuple[tuple[str, ...], ...]:
        """Column sets that the database keeps unique."""
        return self.held.unique_indexes(table.schema, table.name)

    def estimate_rows(self, relation: str, table: TableName | None) -> int | None:
        """The database's own estimate, without a scan."""
        return None

    def probe_cursor(self, relation: Relation, cursor: Cursor) -> CursorProbe:
        column = self._cursor_column(relation, cursor)
        zone = zone_of(cursor, self.connection)
        now = datetime.now(UTC)
        offset = round(offset_minutes(zone, now)) if zone is not None else None
        statement = self.probe_statement(relation, cursor, column, offset)
        with self.faults("source", relation.name):
            safe, highest, nulls, future, clock, own = self.held.query(statement)[0]
            if cursor.type is CursorType.NUMBER:
                # After the maximum: a statement's own clock stands still while it waits for a lock (R11b).
                clock = self.held.query(f"SELECT {self.dialect.clock_text()}{self.dialect.dual}")[0][0]
        if clock is None:
            raise PermanentError(
                "source.clock", f"Connection {self.connection.name}: the database's clock gave no time.", ""
            )
        return CursorProbe(
            self.parse_mark(cursor, safe),
            self.parse_mark(cursor, highest),
            int(nulls or 0),
            int(future or 0),
            datetime.fromisoformat(Watermark.parse(CursorType.TIMESTAMP_TZ, clock).value[:26].rstrip("Z") + "+00:00"),
            cursor.type is CursorType.TIMESTAMP and (has_summer_time(zone, now) if zone else _own_has(own, now)),
        )

    def probe_statement(self, relation: Relation, cursor: Cursor, column: Column, offset: int | None) -> str:
        native = native_of(column)
        return self.dialect.probe(
            relation.sql, column.name, cursor.type, native, cursor.settle_seconds, offset, nullable=column.nullable
        )

    def _cursor_column(self, relation: Relation, cursor: Cursor) -> Column:
        return find_cursor(relation, cursor, lambda column: self.dialect.cursor_types(native_of(column)))

    def parse_mark(self, cursor: Cursor, text: str | None) -> Watermark | None:
        """A cursor value from the text that `cursor_text` makes."""
        return Watermark.parse(cursor.type, text) if text is not None else None

    def get_incremental_filter(
        self, relation: Relation, cursor: Cursor, low: Watermark | None, high: Watermark | None, with_nulls: bool
    ) -> str | None:
        column = self._cursor_column(relation, cursor)
        condition = self.dialect.between(column.name, native_of(column), low, high, with_nulls)
        if condition is not None and low is not None and low.value != cursor.initial:
            self._from_a_bound.add(condition)
        return condition

    def plan_read(
        self,
        relation: Relation,
        columns: tuple[Column, ...],
        cursor: Cursor | None,
        condition: str | None,
        options: ReadOptions,
    ) -> ReadPlan:
        with self.faults("source", relation.name):
            parts = options.partitions or self._parts(relation, condition)
            predicates = self.split(relation, parts) if parts > 1 else ()
            snapshot = self.open_snapshot() if predicates else None
        plan = ReadPlan(relation, columns, cursor, condition, predicates, max(1, options.fetch_size), (), snapshot)
        inner = select_statement(self.dialect, plan, self.split_expression(relation), self.snapshot_clause(snapshot))
        statements = tuple(f"SELECT * FROM ({inner}) uds_rows WHERE {predicate}" for predicate in predicates)
        return replace(plan, statements=statements or (inner,))

    def _parts(self, relation: Relation, condition: str | None) -> int:
        rows = self.estimate_window(relation, condition)
        cores = self.spark.sparkContext.defaultParallelism
        return 1 if rows is None else max(1, min(cores, rows // ROWS_PER_PART))

    def estimate_window(self, relation: Relation, condition: str | None) -> int | None:
        """Rows that the condition leaves; None when unknown, which is read in one part."""
        return None if condition in self._from_a_bound else relation.rows

    def split_expression(self, relation: Relation) -> str | None:
        """What the parts are cut by; selected as `uds_part`, which predicates refer to."""
        return None

    def split(self, relation: Relation, parts: int) -> tuple[str, ...]:
        """Predicates over `uds_part`, disjoint and together every row, NULL included (P14); () when it cannot be split."""
        return ()

    def open_snapshot(self) -> str | None:
        """A token under which all parts see one state; None where there is no such thing."""
        return None

    def snapshot_clause(self, snapshot: str | None) -> str:
        """What stands after the table to read it as of the snapshot."""
        return ""

    def session_statement(self, plan: ReadPlan) -> str | None:
        """What each reading connection runs first."""
        return None

    def read_data(self, plan: ReadPlan) -> DataFrame:
        properties = {**self.read_properties(), "driver": self.driver_class, "fetchsize": str(plan.fetch_size)}
        first = self.session_statement(plan)
        if first is not None:
            properties["sessionInitStatement"] = first
        statement = select_statement(
            self.dialect,
            plan,
            self.split_expression(plan.relation) if plan.predicates else None,
            self.snapshot_clause(plan.snapshot),
        )
        try:
            return read_frame(self.spark, self.dialect, self.url, plan, statement, properties, digits=True)
        except Exception as error:
            translated = self.translate_error(error)
            if translated is None:
                raise
            raise translated from error

    def count_nulls(self, relation: Relation, columns: tuple[str, ...], condition: str | None) -> int:
        missing = " OR ".join(f"{self.dialect.quote(name)} IS NULL" for name in columns)
        where = f"({missing})" + (f" AND ({condition})" if condition else "")
        with self.faults("source", relation.name):
            return int(self.held.query(f"SELECT COUNT(*) FROM {relation.sql} WHERE {where}")[0][0] or 0)


def _own_has(own: str | None, now: datetime) -> bool:
    """The database names its zone, or only its offset: then any other than UTC may have daylight saving time."""
    if own is None or re.fullmatch(r"-?\d+", own):
        return own is not None and int(own) != 0
    try:
        return has_summer_time(ZoneInfo(own), now)
    except (ZoneInfoNotFoundError, ValueError):
        return True
