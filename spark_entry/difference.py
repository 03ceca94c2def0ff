"""Which of the rows read are new to the target (R12), and whether anything is (R13)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_entry import load
from spark_entry.adapters.base import TargetState
from spark_entry.commit import Commit
from spark_entry.ledger import LedgerEntry
from spark_entry.schema import find
from spark_entry.transforms import quote
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import CursorType

LEDGER_RENEWAL = timedelta(days=7)
"""A ledger older than this is committed anew without rows, so that it never leaves Delta's history (R13)."""


@dataclass(frozen=True)
class Difference:
    """The rows still to be written, computed at most once more, and whether the target already is what they make it."""

    frame: DataFrame
    unchanged: bool
    persisted: bool = False

    def release(self) -> None:
        """Give up what was kept in memory."""
        if self.persisted:
            self.frame.unpersist()


def find_difference(commit: Commit, state: TargetState, frame: DataFrame, now: datetime) -> Difference:
    """Compare the rows read with those the target had in this window when the ledger was read.

    A merge is compared only when the watermark stands still: otherwise it commits anyway.
    """
    planned = commit.planned
    if not state.has_rows or planned.begin.kind is RunKind.FULL_REFRESH:
        return _settle(commit, state, Difference(frame, unchanged=False), now)
    still = _stands_still(commit, state)
    if commit.merge_keys and not still:
        return Difference(frame, unchanged=False)
    if not commit.merge_keys and _reads_changes_once(commit, state):
        return _settle(commit, state, Difference(frame, unchanged=False), now)
    there = _target_rows(commit, state)
    if not commit.merge_keys:
        columns = [column.name for column in commit.schema.written if find(state.columns, column.name)]
        frame = load.subtract(frame, there, commit.keys, commit.cursor, columns)
    return _settle(commit, state, Difference(frame, unchanged=False), now, there if commit.merge_keys else None)


def _reads_changes_once(commit: Commit, state: TargetState) -> bool:
    """Whether the rows are a change feed's after the ledger's version: none was ever read, and equal rows are new ones.

    After a reset, and in a backfill, they may have been read before and are compared like any others.
    """
    begin, cursor = commit.planned.begin, commit.planned.pipeline.cursor
    return (
        cursor is not None
        and cursor.type is CursorType.VERSION
        and begin.kind is RunKind.INCREMENTAL
        and state.ledger is not None
        and begin.epoch == state.ledger.epoch
        and commit.planned.fixed.window.low is not None
    )


def _settle(
    commit: Commit, state: TargetState, difference: Difference, now: datetime, there: DataFrame | None = None
) -> Difference:
    """Where the watermark stands still, look whether any row is left to write; the rows are kept, they are few."""
    if not _stands_still(commit, state):
        return difference
    kept = difference.frame.persist()
    new = kept if there is None else load.subtract(kept, there, (), None, kept.columns)
    unchanged = new.count() == 0 and not _renewal_is_due(state.ledger, now)
    return Difference(kept, unchanged, persisted=True)


def _stands_still(commit: Commit, state: TargetState) -> bool:
    """R13: same safe bound, same epoch, same columns. A full refresh or backfill always commits."""
    ledger, begin = state.ledger, commit.planned.begin
    return (
        ledger is not None
        and begin.kind is RunKind.INCREMENTAL
        and begin.epoch == ledger.epoch
        and commit.planned.fixed.window.high == ledger.watermark
        and not commit.ddl(state)
        and (not commit.merge_keys or ledger.keys == commit.merge_keys)
    )


def _target_rows(commit: Commit, state: TargetState) -> DataFrame:
    pipeline, fixed = commit.planned.pipeline, commit.planned.fixed
    target = commit.execution.target
    condition = None
    if commit.cursor is not None and pipeline.cursor is not None:
        low, high = fixed.window.low, fixed.window.read_bound
        condition = target.target_filter(state, commit.cursor, pipeline.cursor, low, high, fixed.with_nulls)
    there = target.read_target(pipeline.target, state, condition)
    written = [column for column in commit.schema.written if find(state.columns, column.name)]
    kept = commit.kept(state)
    return there.select(
        *[
            F.expr(kept(column).replace("{}", f"CAST({quote(column.name)} AS {column.type})")).alias(column.name)
            for column in written
        ]
    )


def _renewal_is_due(ledger: LedgerEntry | None, now: datetime) -> bool:
    if ledger is None or ledger.committed_at is None:
        return False
    return now - datetime.fromisoformat(ledger.committed_at) > LEDGER_RENEWAL


def require_unique_keys(commit: Commit, state: TargetState) -> None:
    """R10c: before the first merge into rows that another mode loaded, their keys must be unique."""
    keys = commit.merge_keys
    if not keys or not state.has_rows or (state.ledger is not None and state.ledger.keys == keys):
        return
    if commit.planned.begin.kind is RunKind.FULL_REFRESH:
        return
    pipeline = commit.planned.pipeline
    there = commit.execution.target.read_target(pipeline.target, state, None)
    groups = there.groupBy(*[there[quote(key)] for key in keys]).agg(F.count(F.lit(1)).alias("__uds_rows"))
    doubled = groups.filter("__uds_rows > 1").count()
    if doubled:
        raise PermanentError(
            "target.keys_not_unique",
            f"Pipeline {pipeline.pipeline_id}: {doubled} values of {', '.join(keys)} stand more than once in "
            f"{pipeline.target.table}; a merge needs them once.",
            f"Remove the doubled rows, or load the target again: uds run {pipeline.pipeline_id} --full-refresh.",
        )
