"""Delta Lake, as catalog.schema.table on Databricks or as a folder: target, and by its base class source."""

from __future__ import annotations

from dataclasses import replace

from pyspark.sql import DataFrame

from spark_entry.adapters.base import Column, TargetState, WriteCounts, WriteRequest
from spark_entry.adapters.delta_history import PastCommit, identity
from spark_entry.adapters.delta_source import DeltaSource
from spark_entry.adapters.delta_table import (
    RECENT_COMMITS,
    columns_of,
    condition_of,
    is_conflict,
    is_creation_conflict,
    is_missing,
    not_delta,
)
from spark_entry.dialects import databricks as dialect
from spark_entry.ledger import LedgerEntry
from sync_core.domain.errors import AGAIN, FenceLost, PermanentError, RetryableError
from sync_core.domain.pipeline import Cursor, Target
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import Watermark

_TXN = ("spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion")
_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


class DatabricksAdapter(DeltaSource):
    """The ledger is the userMetadata of the commit that holds the rows; Delta's transaction versions are the fence."""

    def inspect_target(self, target: Target, pipeline_id: str) -> TargetState:
        table = self.tables.sql_of(target.table)
        with self.tables.faults("target", target.table):
            detail = self.tables.detail(table, target.table)
            if detail is None:
                return TargetState(exists=False)
            if "delta.setTransactionRetentionDuration" in (detail["properties"] or {}):
                raise PermanentError(
                    "target.retention",
                    f"{target.table} has delta.setTransactionRetentionDuration, which lets Delta forget who wrote last.",
                    f"ALTER TABLE {table} UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')",
                )
            past, version = self.tables.past(table, pipeline_id)
            frame = self.tables.sql(f"SELECT * FROM {table} VERSION AS OF {version}")
            has_rows = bool(detail["numFiles"])
            if has_rows and past.ledger is None:
                # Delta keeps no file without rows, but one that others wrote without statistics may be empty.
                has_rows = frame.limit(1).count() > 0
        return TargetState(
            exists=True,
            columns=columns_of(frame, {}),
            has_rows=has_rows,
            ledger=past.ledger,
            recent=past.entries,
            object_id=detail["id"],
            disturbed=past.disturbed,
            version=version,
        )

    def read_ledger(self, target: Target, pipeline_id: str) -> tuple[LedgerEntry, ...]:
        try:
            return self.tables.past(self.tables.sql_of(target.table), pipeline_id)[0].entries
        except Exception as error:
            if is_missing(error):
                return ()
            raise

    def create_statements(self, target: Target, columns: tuple[Column, ...], keys: tuple[str, ...]) -> tuple[str, ...]:
        pairs = [(column.name, column.type) for column in columns]
        return (dialect.create_table(self.tables.sql_of(target.table), pairs),)

    def evolve_statements(
        self, target: Target, added: tuple[Column, ...], widened: tuple[Column, ...]
    ) -> tuple[str, ...]:
        table = self.tables.sql_of(target.table)
        statements: list[str] = []
        if any(dialect.needs_mapping(column.name) for column in added):
            statements.append(dialect.set_property(table, *dialect.MAPPING))
        if any("timestamp_ntz" in column.type for column in added):
            statements.append(dialect.set_property(table, "delta.feature.timestampNtz", "supported"))
        if added:
            statements.append(dialect.add_columns(table, [(column.name, column.type) for column in added]))
        if widened:
            statements.append(dialect.set_property(table, "delta.enableTypeWidening", "true"))
            statements += [dialect.widen(table, column.name, column.type) for column in widened]
        return tuple(statements)

    def prepare_target(self, target: Target, pipeline_id: str, statements: tuple[str, ...]) -> None:
        with self.tables.faults("target", target.table):
            for statement in statements:
                try:
                    self.tables.sql(statement)
                except Exception as error:
                    raise self._ddl_fault(target, error) from error

    def _ddl_fault(self, target: Target, error: Exception) -> Exception:
        if is_creation_conflict(error):
            if not self.tables.appears(target.table):
                return not_delta(target.table)
            return RetryableError("target.conflict", f"Somebody else created {target.table} at the same moment.", AGAIN)
        if is_conflict(error):
            return RetryableError("target.conflict", f"Somebody else changed {target.table} at the same moment.", AGAIN)
        return error

    def read_target(self, target: Target, state: TargetState, condition: str | None) -> DataFrame:
        table = f"{self.tables.sql_of(target.table)} VERSION AS OF {state.version}"
        with self.tables.faults("target", target.table):
            return self.tables.sql(f"SELECT * FROM {table}" + (f" WHERE {condition}" if condition else ""))

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
        table = self.tables.sql_of(request.target.table)
        if request.kind is RunKind.FULL_REFRESH:
            return (f"INSERT OVERWRITE {table} (all rows in one commit)",)
        if not request.keys:
            return (f"INSERT INTO {table} (rows that are not there yet, in one commit)",)
        return (self._merge_statement(request, "uds_rows"),)

    # ---- the commit

    def write_data(self, request: WriteRequest) -> WriteCounts:
        table = self.tables.sql_of(request.target.table)
        request.event("write.staged")
        self._require_fence(table, request)
        request.event("commit.started")
        try:
            self._write(request)
        except Exception as error:
            commit = self._after_failure(table, request, error)
        else:
            commit = self._own_commit(table, request)
            if commit is None:
                raise self._skipped(table, request)
        request.event("commit.done", version=commit.version)
        return WriteCounts(inserted=commit.inserted, updated=commit.updated)

    def _require_fence(self, table: str, request: WriteRequest) -> None:
        """R14: right before the write, ledger and table are the ones that the run was planned by.

        A ledger entry lies in one object's history alone, so the object is asked for only where there is none.
        """
        with self.tables.faults("target", request.target.table):
            lost = self._ledger_moved(table, request)
            if not lost and request.expected is None:
                detail = self.tables.detail(table, request.target.table)
                lost = detail is None or detail["id"] != request.state.object_id
        if lost:
            raise _fence_lost(request)

    def _write(self, request: WriteRequest) -> None:
        # What a full refresh leaves is known only after it: the count of its rows tells (PastCommit.entry).
        kept = request.state.has_rows and request.kind is not RunKind.FULL_REFRESH
        entry = replace(request.entry, object_id=request.state.object_id, holds_rows=kept)
        transaction = (f"uds/{entry.pipeline_id}", str(entry.generation))
        path = self.tables.path_of(request.target.table)
        refresh = request.kind is RunKind.FULL_REFRESH
        if (request.keys and not refresh) or (refresh and path is None):
            # saveAsTable in mode overwrite would replace the table itself, its properties with it.
            self._run(request, dict(zip(_TXN, transaction, strict=True)) | {_METADATA: entry.to_text()})
            return
        writer = request.frame.write.format("delta").mode("overwrite" if refresh else "append")
        writer = writer.option("userMetadata", entry.to_text())
        writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
        if path is not None:
            writer.save(path)
        else:
            writer.saveAsTable(self.tables.sql_of(request.target.table))

    def _run(self, request: WriteRequest, settings: dict[str, str]) -> None:
        view = f"uds_rows_{request.execution}"
        if request.kind is RunKind.FULL_REFRESH:
            table = self.tables.sql_of(request.target.table)
            statement = dialect.insert_overwrite(table, view, request.frame.columns)
        else:
            statement = self._merge_statement(request, view)
        request.frame.createOrReplaceTempView(view)
        try:
            # R16: for this one statement alone; a second one under the same version would be skipped in silence.
            for name, value in settings.items():
                self.spark.conf.set(name, value)
            self.tables.sql(statement)
        finally:
            for name in settings:
                self.spark.conf.unset(name)
            self.spark.catalog.dropTempView(view)

    def _merge_statement(self, request: WriteRequest, view: str) -> str:
        kinds = {field.name: field.dataType.simpleString() for field in request.frame.schema.fields}
        future = None
        if request.read_bound is not None and request.cursor is not None:
            future = dialect.literal(request.read_bound, kinds[request.cursor], upwards=True)
        table = self.tables.sql_of(request.target.table)
        return dialect.merge(table, view, kinds, request.keys, request.cursor, future)

    def _after_failure(self, table: str, request: WriteRequest, error: Exception) -> PastCommit:
        """The own commit, when only its answer was lost; else raises what the failure means."""
        if condition_of(error) == "DELTA_CONCURRENT_TRANSACTION" or "ConcurrentTransactionException" in str(error):
            raise _fence_lost(request) from error
        try:
            commit = self._own_commit(table, request)
            moved = self._ledger_moved(table, request)
        except Exception:
            # Whatever keeps the history from being read is what made the write fail.
            raise error from None
        if commit is not None:
            return commit
        if moved:
            raise _fence_lost(request) from error
        if is_conflict(error):
            raise RetryableError(
                "target.conflict", f"Somebody else changed {request.target.table} at the same moment.", AGAIN
            ) from error
        with self.tables.faults("target", request.target.table):
            raise error

    def _skipped(self, table: str, request: WriteRequest) -> Exception:
        """Delta wrote nothing: either another run was first, or the table knows a later load than its history shows."""
        if self._ledger_moved(table, request):
            return _fence_lost(request)
        name = request.entry.pipeline_id
        return PermanentError(
            "ledger.skipped",
            f"Pipeline {name}: Delta refused load {request.entry.generation} of {request.target.table} in silence: "
            "the table remembers a later one that its history no longer shows.",
            f"Drop the table, then load it again: uds run {name} --full-refresh.",
        )

    def _ledger_moved(self, table: str, request: WriteRequest) -> bool:
        past, _ = self.tables.past(table, request.entry.pipeline_id)
        return identity(past.ledger) != identity(request.expected)

    def _own_commit(self, table: str, request: WriteRequest) -> PastCommit | None:
        wanted = identity(request.entry)
        for limit in (RECENT_COMMITS, None):
            commits = self.tables.history(table, limit)
            for commit in commits:
                if commit.version <= (request.state.version or 0):
                    return None
                if identity(commit.entry(request.entry.pipeline_id)) == wanted:
                    return commit
            if len(commits) < RECENT_COMMITS:
                break
        return None


def _fence_lost(request: WriteRequest) -> FenceLost:
    return FenceLost(f"Pipeline {request.entry.pipeline_id}: another run committed first.")
