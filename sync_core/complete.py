"""Take in what a run did: any number of times, by any caller, in any order (R6, R7)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sync_core.domain.errors import PermanentError
from sync_core.domain.run import (
    Outcome,
    PipelineRecord,
    RunError,
    RunRecord,
    RunResult,
    RunState,
    Seen,
)
from sync_core.domain.watermark import Watermark
from sync_core.ports import RunFolder, StateStore
from sync_core.update import update

_CLOSED_AS = {
    Outcome.SUCCEEDED: RunState.SUCCEEDED,
    Outcome.UNCHANGED: RunState.SUCCEEDED,
    Outcome.FAILED: RunState.FAILED,
    Outcome.CANCELLED: RunState.CANCELLED,
}


def take_result(
    record: PipelineRecord, run: RunRecord, result: RunResult, now: datetime
) -> tuple[PipelineRecord, RunRecord]:
    """R6b to R6e. The ledger's numbers count even when the run was closed as failed before."""
    if result.epoch > record.epoch:
        # The engine began an epoch by itself: what was seen before may be of another cursor.
        record = replace(record, seen=None)
    if (result.epoch, result.generation) > (record.epoch, record.generation):
        record = replace(
            record, epoch=result.epoch, generation=result.generation, watermark=result.watermark, adopt=False
        )
    if result.epoch == record.epoch:
        # A run from before a reset has seen a cursor that may be another one now.
        record = replace(record, seen=_keep_seen(record.seen, result.seen, record.watermark))
    if not run.state.is_open:
        # R6e: an entry that was not counted yet, by a run presumed dead or by one executed again in its place.
        counts = result.counted_generation is not None and run.counted_generation is None
        if not counts and run.result is not None:
            return record, run
        late = counts and run.state is not RunState.SUCCEEDED
        return record, replace(run, result=result, late_success=late, counted_generation=result.counted_generation)
    state = _CLOSED_AS.get(result.state, RunState.SUCCEEDED)
    if result.state is Outcome.SUPERSEDED and run.request_id is not None:
        state = RunState.FAILED
    run = replace(run, state=state, closed_at=now, result=result, counted_generation=result.counted_generation)
    return _clear(record, run), run


def fail_run(
    record: PipelineRecord, run: RunRecord, error: RunError, now: datetime, state: RunState = RunState.FAILED
) -> tuple[PipelineRecord, RunRecord]:
    """R7 for a run that left no result: closed, its request given up. A closed run stays as it is."""
    if not run.state.is_open:
        return record, run
    outcome = Outcome.CANCELLED if state is RunState.CANCELLED else Outcome.FAILED
    result = RunResult(
        run.pipeline_id, run.run_key, run.batch_id, run.kind, run.attempt, outcome, run.request_id,
        epoch=record.epoch, generation=record.generation, watermark=record.watermark, error=error, finished_at=now,
    )  # fmt: skip
    run = replace(run, state=state, closed_at=now, result=result)
    return _clear(record, run), run


def engine_died(pipeline_id: str, reason: str) -> RunError:
    """The error of a run whose engine ended without a result."""
    return RunError(
        "engine.died",
        "retryable",
        f"Pipeline {pipeline_id}: {reason.rstrip('.')}.",
        "Run it again: what was committed is in the target's ledger and is not loaded twice.",
    )


def _clear(record: PipelineRecord, run: RunRecord) -> PipelineRecord:
    pending = tuple(request for request in record.pending if request.request_id != run.request_id)
    open_run = None if record.open_run == run.run_key else record.open_run
    return replace(record, open_run=open_run, pending=pending)


def _keep_seen(kept: Seen | None, new: Seen | None, watermark: Watermark | None) -> Seen | None:
    """R6c: an unripe pair is kept; one at or below the watermark has served."""
    if new is None:
        return kept
    if kept is None or kept.value.type is not new.value.type:
        return new
    served = watermark is not None and watermark.type is kept.value.type and kept.value <= watermark
    return new if served else kept


def complete(store: StateStore, folder: RunFolder, pipeline_id: str, run_key: str, now: datetime) -> RunRecord | None:
    """Take in the result of a run if there is one. Returns the run as it then is, None when there is no such run.

    A result that cannot be understood fails the run: what it committed is in the ledger, for the next one to find.
    """
    run = store.run(pipeline_id, run_key)
    if run is None:
        return None
    try:
        result = folder.read_result(run.batch_id, run_key)
    except PermanentError as fault:
        error = RunError(fault.code, fault.kind, f"Pipeline {pipeline_id}: {fault.message}", fault.remedy)
        return fail(store, pipeline_id, run_key, error, now)
    if result is None:
        return run

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[RunRecord, ...]]:
        found = store.run(pipeline_id, run_key) or run
        record, changed = take_result(record, found, result, now)
        return record, () if changed == found else (changed,)

    update(store, pipeline_id, decide)
    return store.run(pipeline_id, run_key)


def fail(
    store: StateStore, pipeline_id: str, run_key: str, error: RunError, now: datetime, state: RunState = RunState.FAILED
) -> RunRecord | None:
    """Close an open run that left no result. Returns the run as it then is."""

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[RunRecord, ...]]:
        found = store.run(pipeline_id, run_key)
        if found is None:
            return record, ()
        record, changed = fail_run(record, found, error, now, state)
        return record, () if changed == found else (changed,)

    update(store, pipeline_id, decide)
    return store.run(pipeline_id, run_key)
