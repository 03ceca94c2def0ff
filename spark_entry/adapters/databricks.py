"""Delta Lake, as catalog.schema.table on Databricks or as a folder: target and source."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import ClassVar
from zoneinfo import ZoneInfo

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, Row

from spark_entry.adapters.base import (
    CURSOR_DIGITS,
    Column,
    CursorProbe,
    DatabaseAdapter,
    ReadPlan,
    Relation,
    TargetState,
    WriteCounts,
    WriteRequest,
)
from spark_entry.adapters.delta_history import Past, PastCommit, read_past, to_commit
from spark_entry.dialects import databricks as dialect
from spark_entry.ledger import LedgerEntry
from sync_core.domain.errors import FenceLost, PermanentError, RetryableError, SyncError
from sync_core.domain.pipeline import Cursor, ReadOptions, Source, Target
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import CursorType, Watermark

RECENT_COMMITS = 20
"""Where the ledger is looked for first; the whole history only when it is not there."""

_MISSING = (
    "DELTA_TABLE_NOT_FOUND",
    "DELTA_MISSING_DELTA_TABLE",
    "DELTA_PATH_DOES_NOT_EXIST",
    "TABLE_OR_VIEW_NOT_FOUND",
)
_MISSING_TOO = (
    "PATH_NOT_FOUND",
    "SCHEMA_NOT_FOUND",
    "DELTA_PATH_NOT_FOUND",
    "NO_SUCH_CATALOG_EXCEPTION",
    "DELTA_TABLE_ONLY_OPERATION",
)
_VERSIONS = re.compile(r"_commit_version > (\d+) AND _commit_version <= (\d+)")
_TXN = ("spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion")
_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


class DatabricksAdapter(DatabaseAdapter):
    """The ledger is the userMetadata of the commit that holds the rows; Delta's transaction versions are the fence."""

    driver_package: ClassVar[str | None] = None

    def build_jdbc_url(self) -> str:
        return ""

    def get_credentials(self) -> Mapping[str, str]:
        return {}

    # ---- names

    def table_path(self, name: str) -> str | None:
        """The folder of a table when the connection is a folder, else None."""
        base = self.connection.path
        if base is None:
            return None
        if "://" not in base and not base.startswith("/Volumes/"):
            base = os.path.abspath(base)  # noqa: PTH100 - a lake may lie where pathlib has no words
        return "/".join([base.rstrip("/"), *_parts(name)])

    def table_sql(self, name: str) -> str:
        """The table as SQL names it; parts that are missing come from the connection."""
        path = self.table_path(name)
        if path is not None:
            return f"delta.{dialect.quote(path)}"
        parts = _parts(name)
        context = [self.connection.catalog, self.connection.schema]
        missing = 3 - len(parts)
        return ".".join(dialect.quote(part) for part in [*context[:missing], *parts] if part)

    # ---- as a source

    def describe_source(self, source: Source, types: Mapping[str, str]) -> Relation:
        overrides = {name.lower(): kind for name, kind in types.items()}
        if source.query is not None:
            sql = f"({source.query}) AS uds_query"
            with self._faults("source", "the query"):
                return Relation("query", sql, _columns(self._sql(f"SELECT * FROM {sql}"), overrides), is_query=True)
        name = source.table or ""
        table = self.table_sql(name)
        with self._faults("source", name):
            version = self._version(table)
            frame = self._sql(f"SELECT * FROM {table}")
        return Relation(name, f"{table} VERSION AS OF {version}", _columns(frame, overrides), version=version)

    def probe_cursor(self, relation: Relation, cursor: Cursor) -> CursorProbe:
        if cursor.type is CursorType.VERSION:
            mark = Watermark.parse(CursorType.VERSION, str(relation.version or 0))
            return CursorProbe(mark, mark, 0, 0, datetime.now(UTC))
        column = self._cursor_column(relation, cursor)
        name = dialect.quote(column.name)
        zone = cursor.timezone or self.connection.timezone or "UTC"
        clock = "current_timestamp()"
        if cursor.type is not CursorType.TIMESTAMP_TZ:
            clock = f"to_timestamp_ntz(convert_timezone('UTC', {dialect.text(zone)}, CAST(current_timestamp() AS TIMESTAMP_NTZ)))"
        settled = f"{clock} - INTERVAL {round(cursor.settle_seconds * 1_000_000)} MICROSECOND"
        bound = f"CAST({settled} AS DATE)" if cursor.type is CursorType.DATE else settled
        temporal = cursor.type.is_temporal
        with self._faults("source", relation.name):
            row = self._row(
                f"SELECT CAST(MAX({name}) {f'FILTER (WHERE {name} <= {bound})' if temporal else ''} AS STRING) AS safe, "
                f"CAST(MAX({name}) AS STRING) AS highest, COUNT_IF({name} IS NULL) AS nulls, "
                f"{f'COUNT_IF({name} > {clock})' if temporal else '0'} AS future, "
                f"CAST(current_timestamp() AS STRING) AS clock FROM {relation.sql}"
            )
        return CursorProbe(
            _mark(cursor.type, row["safe"]) if temporal else None,
            _mark(cursor.type, row["highest"]),
            int(row["nulls"]),
            int(row["future"]),
            datetime.fromisoformat(row["clock"]).replace(tzinfo=UTC),
            daylight_saving=cursor.type is CursorType.TIMESTAMP and _has_summer_time(zone),
        )

    def get_incremental_filter(
        self, relation: Relation, cursor: Cursor, low: Watermark | None, high: Watermark | None, with_nulls: bool
    ) -> str | None:
        if cursor.type is CursorType.VERSION:
            # A commit is atomic: nothing arrives late in a version that was read, so the low end is exclusive.
            return f"_commit_version > {low.value} AND _commit_version <= {high.value}" if low and high else None
        column = self._cursor_column(relation, cursor)
        return dialect.between(column.name, column.type, low, high, with_nulls=with_nulls)

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
            table = relation.sql.partition(" VERSION AS OF ")[0]
            source = f"{_changes_of(table, int(changes[1]) + 1, int(changes[2]))}"
            names += f", _commit_version AS {CURSOR_DIGITS}"
            condition = "_change_type IN ('insert', 'update_postimage')"
            if int(changes[1]) >= int(changes[2]):
                source, condition = f"(SELECT *, 0L AS _commit_version FROM {relation.sql})", "false"
        statement = f"SELECT {names} FROM {source}" + (f" WHERE {condition}" if condition else "")
        snapshot = f"version {relation.version}" if relation.version is not None else None
        return ReadPlan(relation, columns, cursor, condition, (), options.fetch_size, (statement,), snapshot)

    def read_data(self, plan: ReadPlan) -> DataFrame:
        with self._faults("source", plan.relation.name):
            frame = self._sql(plan.statements[0])
            wanted = {column.name: column.type for column in plan.columns}
            return frame.select(
                *[
                    frame[dialect.quote(name)].cast(wanted[name]).alias(name)
                    if name in wanted and frame.schema[name].dataType.simpleString() != wanted[name]
                    else frame[dialect.quote(name)]
                    for name in frame.columns
                ]
            )

    def count_nulls(self, relation: Relation, columns: tuple[str, ...], condition: str | None) -> int:
        missing = " OR ".join(f"{dialect.quote(name)} IS NULL" for name in columns)
        return int(self._row(f"SELECT COUNT(*) AS missing FROM {relation.sql} WHERE {missing}")["missing"])

    # ---- as a target

    def inspect_target(self, target: Target, pipeline_id: str) -> TargetState:
        table = self.table_sql(target.table)
        detail = self._detail(table, target.table)
        if detail is None:
            return TargetState(exists=False)
        if "delta.setTransactionRetentionDuration" in (detail["properties"] or {}):
            raise PermanentError(
                "target.retention",
                f"{target.table} has delta.setTransactionRetentionDuration, which lets Delta forget who wrote last.",
                f"ALTER TABLE {table} UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')",
            )
        with self._faults("target", target.table):
            past, version = self._past(table, pipeline_id)
            frame = self._sql(f"SELECT * FROM {table}")
            has_rows = bool(detail["numFiles"]) and frame.limit(1).count() > 0
        ledger = past.entries[0] if past.entries else None
        return TargetState(
            exists=True,
            columns=_columns(frame, {}),
            has_rows=has_rows,
            ledger=ledger,
            recent=past.entries,
            object_id=detail["id"],
            disturbed=past.disturbed,
            version=version,
        )

    def read_ledger(self, target: Target, pipeline_id: str) -> tuple[LedgerEntry, ...]:
        table = self.table_sql(target.table)
        try:
            return self._past(table, pipeline_id)[0].entries
        except AnalysisException as error:
            if error.getCondition() in (*_MISSING, *_MISSING_TOO):
                return ()
            raise

    def create_statements(self, target: Target, columns: tuple[Column, ...], keys: tuple[str, ...]) -> tuple[str, ...]:
        pairs = [(column.name, column.type) for column in columns]
        return (dialect.create_table(self.table_sql(target.table), pairs),)

    def evolve_statements(
        self, target: Target, added: tuple[Column, ...], widened: tuple[Column, ...]
    ) -> tuple[str, ...]:
        table = self.table_sql(target.table)
        statements: list[str] = []
        if any(column.type == "timestamp_ntz" for column in added):
            statements.append(dialect.set_property(table, "delta.feature.timestampNtz", "supported"))
        if added:
            statements.append(dialect.add_columns(table, [(column.name, column.type) for column in added]))
        if widened:
            statements.append(dialect.set_property(table, "delta.enableTypeWidening", "true"))
            statements += [dialect.widen(table, column.name, column.type) for column in widened]
        return tuple(statements)

    def prepare_target(self, target: Target, pipeline_id: str, statements: tuple[str, ...]) -> None:
        with self._faults("target", target.table):
            for statement in statements:
                self._sql(statement)

    def read_target(self, target: Target, state: TargetState, condition: str | None) -> DataFrame:
        table = f"{self.table_sql(target.table)} VERSION AS OF {state.version}"
        return self._sql(f"SELECT * FROM {table}" + (f" WHERE {condition}" if condition else ""))

    def target_filter(
        self,
        state: TargetState,
        column: str,
        cursor: Cursor,
        low: Watermark | None,
        high: Watermark | None,
        with_nulls: bool,
    ) -> str | None:
        kind = next(found.type for found in state.columns if found.name == column)
        return dialect.between(column, kind, low, high, with_nulls=with_nulls)

    def write_statements(self, request: WriteRequest) -> tuple[str, ...]:
        table = self.table_sql(request.target.table)
        if request.kind is RunKind.FULL_REFRESH:
            return (f"INSERT OVERWRITE {table} (all rows in one commit)",)
        if not request.keys:
            return (f"INSERT INTO {table} (rows that are not there yet, in one commit)",)
        return (self._merge_statement(request, "uds_rows"),)

    def write_data(self, request: WriteRequest) -> WriteCounts:
        table = self.table_sql(request.target.table)
        pipeline_id = request.entry.pipeline_id
        request.event("write.staged")
        self._require_fence(table, request)
        request.event("commit.started")
        try:
            self._write(table, request)
        except Exception as error:
            if self._lost(table, request):
                raise FenceLost(f"Pipeline {pipeline_id}: another run committed first.") from error
            conflict = "Concurrent" in str(error) or "DELTA_CONCURRENT" in str(error)
            if conflict:
                raise RetryableError(
                    "target.conflict",
                    f"Somebody else changed {request.target.table} at the same moment.",
                    "Run it again.",
                ) from error
            raise
        commit = self._own_commit(table, request)
        if commit is None:
            raise FenceLost(f"Pipeline {pipeline_id}: Delta has seen a later load than this one.")
        request.event("commit.done", version=commit.version)
        return WriteCounts(inserted=commit.inserted, updated=commit.updated)

    def translate_error(self, error: BaseException) -> SyncError | None:
        text = str(error)
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return PermanentError(
                "target.full", f"Connection {self.connection.name}: the disk is full.", "Make room, then run it again."
            )
        if "PERMISSION_DENIED" in text or "INSUFFICIENT_PERMISSIONS" in text or "AccessControlException" in text:
            return PermanentError(
                "database.denied",
                f"Connection {self.connection.name}: {text.splitlines()[0][:300]}",
                "Grant the run's principal what is named there.",
            )
        if isinstance(error, AnalysisException):
            return PermanentError(
                "delta.failed", f"Connection {self.connection.name}: {text.splitlines()[0][:300]}", ""
            )
        return None

    # ---- the commit

    def _write(self, table: str, request: WriteRequest) -> None:
        entry = request.entry
        identity = (f"uds/{entry.pipeline_id}", str(entry.generation))
        if request.keys and request.kind is not RunKind.FULL_REFRESH:
            view = f"uds_rows_{request.execution}"
            request.frame.createOrReplaceTempView(view)
            settings = dict(zip(_TXN, identity, strict=True)) | {_METADATA: entry.to_text()}
            try:
                # R16: for this one statement alone; a second one under the same version would be skipped in silence.
                for name, value in settings.items():
                    self.spark.conf.set(name, value)
                self._sql(self._merge_statement(request, view))
            finally:
                for name in settings:
                    self.spark.conf.unset(name)
                self.spark.catalog.dropTempView(view)
            return
        mode = "overwrite" if request.kind is RunKind.FULL_REFRESH else "append"
        writer = request.frame.write.format("delta").mode(mode).option("userMetadata", entry.to_text())
        writer = writer.option("txnAppId", identity[0]).option("txnVersion", identity[1])
        path = self.table_path(request.target.table)
        if path is not None:
            writer.save(path)
        else:
            writer.saveAsTable(table)

    def _merge_statement(self, request: WriteRequest, view: str) -> str:
        future = None
        if request.read_bound is not None and request.cursor is not None:
            kind = request.frame.schema[request.cursor].dataType.simpleString()
            future = dialect.literal(request.read_bound, kind, upwards=True)
        table = self.table_sql(request.target.table)
        return dialect.merge(table, view, request.frame.columns, request.keys, request.cursor, future)

    def _require_fence(self, table: str, request: WriteRequest) -> None:
        """R14: right before the write, ledger and table are the ones that the run was planned by."""
        detail = self._detail(table, request.target.table)
        if detail is None or detail["id"] != request.state.object_id or self._lost(table, request):
            raise FenceLost(f"Pipeline {request.entry.pipeline_id}: another run committed first.")

    def _lost(self, table: str, request: WriteRequest) -> bool:
        past, _ = self._past(table, request.entry.pipeline_id)
        found = past.entries[0] if past.entries else None
        return _identity(found) != _identity(request.expected)

    def _own_commit(self, table: str, request: WriteRequest) -> PastCommit | None:
        for commit in self._history(table, RECENT_COMMITS):
            entry = commit.entry(request.entry.pipeline_id)
            if entry is not None:
                return commit if _identity(entry) == _identity(request.entry) else None
        return None

    # ---- the table as it is

    def _sql(self, statement: str) -> DataFrame:
        return self.spark.sql(statement)  # pyright: ignore[reportUnknownMemberType] - pyspark leaves its **kwargs untyped

    def _past(self, table: str, pipeline_id: str) -> tuple[Past, int]:
        commits = self._history(table, RECENT_COMMITS)
        past = read_past(commits, pipeline_id)
        if not past.entries and len(commits) == RECENT_COMMITS:
            past = read_past(self._history(table, None), pipeline_id)
        return past, commits[0].version

    def _history(self, table: str, limit: int | None) -> list[PastCommit]:
        rows = self._sql(f"DESCRIBE HISTORY {table}" + (f" LIMIT {limit}" if limit else "")).collect()
        return [to_commit(row.asDict()) for row in rows]

    def _row(self, statement: str) -> Row:
        """The only row of an aggregate."""
        return self._sql(statement).collect()[0]

    def _cursor_column(self, relation: Relation, cursor: Cursor) -> Column:
        column = relation.column(cursor.column)
        if column is None:
            raise PermanentError(
                "column.missing", f"{relation.name} has no column {cursor.column}.", "Correct cursor.column."
            )
        return column

    def _version(self, table: str) -> int:
        return self._history(table, 1)[0].version

    def _detail(self, table: str, name: str) -> Row | None:
        try:
            row = self._sql(f"DESCRIBE DETAIL {table}").head()
        except AnalysisException as error:
            if error.getCondition() in (*_MISSING, *_MISSING_TOO):
                return None
            raise
        if row is None or row["format"] != "delta":
            raise PermanentError(
                "target.not_delta", f"{name} is there but is no Delta table.", "Give the pipeline another target table."
            )
        return row

    @contextmanager
    def _faults(self, role: str, name: str) -> Generator[None]:
        try:
            yield
        except AnalysisException as error:
            condition = error.getCondition() or ""
            if condition in (*_MISSING, *_MISSING_TOO) or "DELTA_MISSING" in condition:
                raise PermanentError(
                    f"{role}.missing",
                    f"Connection {self.connection.name} has no Delta table {name}.",
                    "Correct the name.",
                ) from error
            if "CHANGE_DATA" in condition or "CHANGE_TABLE_FEED" in condition:
                raise PermanentError(
                    "source.no_change_feed",
                    f"{name} does not keep a change feed for all the versions to read.",
                    f"ALTER TABLE {name} SET TBLPROPERTIES (delta.enableChangeDataFeed = true), then load it again in full.",
                ) from error
            translated = self.translate_error(error)
            if translated is None:
                raise
            raise translated from error
        except PySparkException as error:
            translated = self.translate_error(error)
            if translated is None:
                raise
            raise translated from error


def _identity(entry: LedgerEntry | None) -> tuple[int, int, str] | None:
    return (entry.epoch, entry.generation, entry.run_key) if entry else None


def _parts(name: str) -> list[str]:
    """`silver.orders` as its parts; backticks keep a dot inside one part."""
    found = re.findall(r"`((?:[^`]|``)+)`|([^.`]+)", name)
    return [quoted.replace("``", "`") or plain for quoted, plain in found]


def _columns(frame: DataFrame, overrides: Mapping[str, str]) -> tuple[Column, ...]:
    return tuple(
        Column(
            field.name,
            overrides.get(field.name.lower(), field.dataType.simpleString()),
            field.dataType.simpleString(),
            field.nullable,
        )
        for field in frame.schema.fields
    )


def _mark(kind: CursorType, text: str | None) -> Watermark | None:
    return Watermark.parse(kind, text) if text is not None else None


def _has_summer_time(zone: str) -> bool:
    year = datetime.now(UTC).year
    winter, summer = (datetime(year, month, 1, tzinfo=ZoneInfo(zone)).utcoffset() for month in (1, 7))
    return winter != summer


def _changes_of(table: str, first: int, last: int) -> str:
    """The change feed of a table between two versions, both inclusive."""
    if table.startswith("delta."):
        path = table.removeprefix("delta.")[1:-1].replace("``", "`")
        return f"table_changes_by_path({dialect.text(path)}, {first}, {last})"
    return f"table_changes({dialect.text(table)}, {first}, {last})"
