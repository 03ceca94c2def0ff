"""One run of one pipeline: the protocol's steps in their order, each with its rule."""

from __future__ import annotations

from dataclasses import replace

from pyspark.sql import Observation
from pyspark.sql import functions as F

from spark_entry import load
from spark_entry.adapters.base import TargetState, WriteCounts
from spark_entry.commit import Commit
from spark_entry.difference import find_difference, require_unique_keys
from spark_entry.execution import Execution, Planned
from spark_entry.names import resolve_names
from spark_entry.schema import facts_of, plan_schema
from spark_entry.start import decide_start, own_entry
from spark_entry.window import fix_window
from sync_core.domain.errors import FenceLost
from sync_core.domain.pipeline import LoadMode
from sync_core.domain.run import Action, Outcome, RowCounts, RunPlan

LOOKS = 5
"""How often a target is looked at again whose rows and ledger do not fit each other."""


def execute(execution: Execution, action: Action) -> Outcome:
    """Run, plan or check one pipeline.

    Raises SyncError, or what Spark raised for the caller to translate; `execution` holds what was learnt until then.
    """
    target = execution.order.pipeline.target
    with execution.step("ledger"):
        state = look_at_target(execution)
    done = own_entry(execution.order, state.recent)
    if done is not None and action is Action.RUN:
        execution.notes.append("committed by an earlier execution; the count of rows is the ledger's")
        execution.rows = RowCounts(inserted=done.rows if done.run_key == execution.order.run_key else 0)
        return Outcome.SUCCEEDED
    planned = _plan(execution, state)
    if action is Action.CHECK:
        execution.problems = (
            *execution.source.check(execution.order.pipeline.source, None),
            *execution.target.check(None, target),
        )
    return _move(execution, state, planned, action)


def look_at_target(execution: Execution) -> TargetState:
    """The target as it is now; what another run's commit made of two states is looked at again."""
    pipeline = execution.order.pipeline
    state = execution.target.inspect_target(pipeline.target, pipeline.pipeline_id)
    # Not for ever: a table that others write to all the time may never be the same twice.
    for _ in range(LOOKS):
        if state.fits_ledger:
            break
        before, state = state, execution.target.inspect_target(pipeline.target, pipeline.pipeline_id)
        if state == before:
            break
    return state


def _plan(execution: Execution, state: TargetState) -> Planned:
    """R10 where to go on from, R11 the window, and the read."""
    pipeline = execution.order.pipeline
    begin = decide_start(execution.order, state)
    with execution.step("window"):
        relation = execution.source.describe_source(pipeline.source, pipeline.types)
        execution.source_columns = facts_of(relation.columns)
        pipeline = resolve_names(pipeline, relation)
        cursor = pipeline.cursor
        probe = execution.source.probe_cursor(relation, cursor) if cursor else None
        fixed = fix_window(pipeline, begin, probe, begin.seen, execution.order.range)
    window = execution.window = fixed.window
    execution.seen = fixed.seen
    execution.notes += fixed.notes
    execution.rows = RowCounts(null_cursor=probe.nulls, future=probe.future) if probe else RowCounts()
    execution.event(
        "window.fixed",
        low=window.low.value if window.low else None,
        high=window.high.value if window.high else None,
        read_bound=window.read_bound.value if window.read_bound else None,
    )
    with execution.step("plan"):
        columns = load.columns_to_read(pipeline, relation)
        condition = None
        if cursor is not None:
            condition = execution.source.get_incremental_filter(
                relation, cursor, window.low, window.read_bound, fixed.with_nulls
            )
        read = execution.source.plan_read(relation, columns, cursor, condition, pipeline.read)
    execution.event("read.planned", partitions=max(1, len(read.predicates)), snapshot=read.snapshot)
    return Planned(pipeline, begin, relation, fixed, read)


def _move(execution: Execution, state: TargetState, planned: Planned, action: Action) -> Outcome:
    """R12 to R14: read, transform, and commit rows and ledger in one step."""
    pipeline = planned.pipeline
    incoming = load.prepare(execution.source.read_data(planned.read), pipeline, planned.read)
    existing = state.columns if state.exists else incoming.columns
    schema = plan_schema(pipeline, incoming.columns, existing, state.ledger.columns if state.ledger else ())
    execution.schema_changes = schema.changes
    execution.target_columns = facts_of(schema.written)
    frame, doubled = incoming.frame, None
    if pipeline.mode is LoadMode.MERGE and not _rows_are_single(planned):
        doubled = Observation()
        frame = load.newest_of_each_key(frame, pipeline.target_keys, pipeline.target_cursor, doubled)
    commit = Commit(execution, planned, schema)
    frame = load.in_target_types(frame, schema, commit.kept(state))
    ddl = commit.ddl(state)
    if action is not Action.RUN:
        statements = ddl + execution.target.write_statements(commit.request(state, frame, Observation()))
        parts = max(1, len(planned.read.predicates))
        execution.plan = RunPlan(planned.read.statements, statements, parts, planned.read.snapshot)
        return Outcome.UNCHANGED
    with execution.step("prepare"):
        execution.target.prepare_target(pipeline.target, pipeline.pipeline_id, ddl)
        require_unique_keys(commit, state)
    with execution.step("compare"):
        difference = find_difference(commit, state, frame, execution.now())
    try:
        counts = WriteCounts()
        if not difference.unchanged:
            frame = difference.frame
            if ddl:
                before, state = state, _look_again(execution, state)
                frame = commit.in_new_columns(frame, before, state)
            written = Observation()
            frame = frame.observe(written, F.count(F.lit(1)).alias("rows"))
            with execution.step("write"):
                counts = execution.target.write_data(commit.request(state, frame, written))
        execution.rows = _count(execution, incoming, counts, doubled)
    finally:
        difference.release()
    return Outcome.UNCHANGED if difference.unchanged else Outcome.SUCCEEDED


def _rows_are_single(planned: Planned) -> bool:
    """Whether the source cannot give two rows of one key: parts that see different states read a moving row twice."""
    one_state = len(planned.read.predicates) <= 1 or planned.read.snapshot is not None
    return one_state and load.has_unique_key(planned.relation, planned.pipeline.merge_keys)


def _look_again(execution: Execution, before: TargetState) -> TargetState:
    """The target after its DDL; the ledger must still be the one that the window was fixed by."""
    pipeline = execution.order.pipeline
    after = execution.target.inspect_target(pipeline.target, pipeline.pipeline_id)
    if after.ledger != before.ledger:
        raise FenceLost(f"Pipeline {pipeline.pipeline_id}: another run committed first.")
    return after


def _count(
    execution: Execution, incoming: load.Incoming, counts: WriteCounts, doubled: Observation | None
) -> RowCounts:
    observed = {name: int(value or 0) for name, value in incoming.counts.get.items()}
    lost = observed.get("lost_digits", 0)
    if lost:
        execution.notes.append(f"{lost} values had digits below a microsecond; they were cut")
    left_out = int(doubled.get.get("doubled") or 0) if doubled is not None else 0
    if left_out:
        keys = ", ".join(execution.order.pipeline.merge_keys)
        execution.notes.append(f"{left_out} rows have the {keys} of a newer row, and were left out")
    return replace(
        execution.rows,
        read=observed["read"],
        null_keys=observed.get("null_keys", 0),
        inserted=counts.inserted,
        updated=counts.updated,
        deleted=counts.deleted,
        older=counts.older,
    )
