"""What one commit is made of: DDL before it, the rows and the ledger entry in it (R14, R16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from spark_entry import load
from spark_entry.adapters.base import Column, TargetState, WriteRequest
from spark_entry.execution import Execution, Planned
from spark_entry.ledger import LedgerEntry
from spark_entry.schema import SchemaPlan, find
from spark_entry.transforms import quote
from sync_core.domain.pipeline import LoadMode
from sync_core.domain.run import RunKind


@dataclass(frozen=True)
class Commit:
    """One run's commit, in the target's own spelling."""

    execution: Execution
    planned: Planned
    schema: SchemaPlan

    @property
    def keys(self) -> tuple[str, ...]:
        """The merge keys; in append mode they identify a row, in merge mode they decide what is updated."""
        return load.named(self.schema.written, self.planned.pipeline.target_keys)

    @property
    def merge_keys(self) -> tuple[str, ...]:
        return self.keys if self.planned.pipeline.mode is LoadMode.MERGE else ()

    @property
    def cursor(self) -> str | None:
        """The cursor's column; None when the target does not carry it."""
        name = self.planned.pipeline.target_cursor
        column = find(self.schema.written, name) if name else None
        return column.name if column else None

    def ddl(self, state: TargetState) -> tuple[str, ...]:
        """Statements that create the target or bring its columns up to date."""
        target = self.planned.pipeline.target
        if not state.exists:
            return self.execution.target.create_statements(target, self.schema.written, self.merge_keys)
        if self.schema.added or self.schema.widened:
            return self.execution.target.evolve_statements(target, self.schema.added, self.schema.widened)
        return ()

    def kept(self, state: TargetState) -> Callable[[Column], str]:
        """What the target makes of a column's values, where it has the column already."""
        there = {column.name for column in state.columns}
        return lambda column: self.execution.target.kept(column) if column.name in there else "{}"

    def in_new_columns(self, frame: DataFrame, before: TargetState, after: TargetState) -> DataFrame:
        """The frame as columns keep it that were created since `before`; a value that they cannot hold stops the run."""
        known = {column.name for column in before.columns}
        made = {column.name: self.execution.target.kept(column) for column in after.columns if column.name not in known}
        values = [made.get(name, "{}").replace("{}", quote(name)) for name in frame.columns]
        return frame.select(*[F.expr(value).alias(name) for value, name in zip(values, frame.columns, strict=True)])

    def request(self, state: TargetState, frame: DataFrame, written: Observation) -> WriteRequest:
        """`written` observes `rows` of the frame as the target computes it."""
        begin = self.planned.begin
        return WriteRequest(
            frame=frame,
            target=self.planned.pipeline.target,
            state=state,
            kind=begin.kind,
            keys=self.merge_keys,
            cursor=self.cursor,
            # What lies above a backfill's range is newer, not a future date that was corrected (P27).
            read_bound=None if begin.kind is RunKind.BACKFILL else self.planned.fixed.window.read_bound,
            expected=state.ledger,
            entry=self.entry(state),
            execution=self.execution.name,
            rows_expected=lambda: int(written.get["rows"]),
            event=self.execution.event,
        )

    def entry(self, state: TargetState) -> LedgerEntry:
        """The ledger after the commit. A backfill leaves its epoch and watermark as they are."""
        order, begin = self.execution.order, self.planned.begin
        epoch, watermark = begin.epoch, self.planned.fixed.window.high
        if begin.kind is RunKind.BACKFILL and state.ledger is not None:
            epoch, watermark = state.ledger.epoch, state.ledger.watermark
        return LedgerEntry(
            pipeline_id=order.pipeline.pipeline_id,
            epoch=epoch,
            generation=begin.generation + 1,
            watermark=watermark,
            run_key=order.run_key,
            kind=begin.kind,
            fingerprint=begin.fingerprint,
            request_id=order.request_id,
            keys=self.merge_keys,
            columns=tuple(column.name for column in self.schema.written),
            object_id=state.object_id,
            committed_at=self.execution.now().isoformat(),
        )
