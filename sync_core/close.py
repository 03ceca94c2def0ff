"""Close a run, by what it did or by what became of it, in one conditional write (R6, R7). The decisions are pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from sync_core.alert_delivery import owe
from sync_core.domain.alert import Audience, Condition, Finding, Notice, advance
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import (
    SOURCE_BEHIND,
    Outcome,
    PipelineRecord,
    RunError,
    RunRecord,
    RunResult,
    RunState,
    Seen,
    make_batch_id,
    make_run_key,
)
from sync_core.domain.watermark import Watermark
from sync_core.ports import Row, StateStore
from sync_core.update import update

Closing = tuple[PipelineRecord, tuple[Row, ...]]
"""A record and the rows that are written with it."""

_CLOSED_AS = {
    Outcome.SUCCEEDED: RunState.SUCCEEDED,
    Outcome.UNCHANGED: RunState.SUCCEEDED,
    Outcome.FAILED: RunState.FAILED,
    Outcome.CANCELLED: RunState.CANCELLED,
}

_MISMATCHES = ("staging.doubled",)
"""Error codes that say that rows read and rows staged differ."""


def take_result(
    record: PipelineRecord, run: RunRecord, result: RunResult, policy: Pipeline | None, now: datetime
) -> Closing:
    """R6b to R6f. The ledger's numbers count even when the run was closed as failed before.

    `policy` retries and alerts; None does neither (a run by hand).
    """
    record, result = _take_ledger(record, result), replace(result, facts=None)
    if not run.state.is_open:
        # R6e: an entry that was not counted yet, by a run presumed dead or by one executed again in its place.
        counts = result.counted_generation is not None and run.counted_generation is None
        if not counts and run.result is not None:
            return record, ()
        late = counts and run.state is not RunState.SUCCEEDED
        changed = replace(run, result=result, late_success=late, counted_generation=result.counted_generation)
        return record, () if changed == run else (changed,)
    lost = result.state is Outcome.SUPERSEDED and run.request_id is not None
    state = RunState.FAILED if lost else _CLOSED_AS.get(result.state, RunState.SUCCEEDED)
    run = replace(run, state=state, closed_at=now, result=result, counted_generation=result.counted_generation)
    if state is RunState.FAILED:
        return _give_up_or_retry(record, run, result.error or _superseded(run), policy, now)
    record = _clear(record, run)
    if state is RunState.SUCCEEDED:
        record = _note_success(record, result, now)
    return _tell(record, run, _success_findings(run, result), policy, now)


def fail_run(
    record: PipelineRecord,
    run: RunRecord,
    error: RunError,
    policy: Pipeline | None,
    now: datetime,
    state: RunState = RunState.FAILED,
) -> Closing:
    """R7 for a run that left no result. A closed run stays as it is."""
    if not run.state.is_open:
        return record, ()
    outcome = Outcome.CANCELLED if state is RunState.CANCELLED else Outcome.FAILED
    result = RunResult(
        run.pipeline_id, run.run_key, run.batch_id, run.kind, run.attempt, outcome, run.request_id,
        epoch=record.epoch, generation=record.generation, watermark=record.watermark, error=error, finished_at=now,
    )  # fmt: skip
    run = replace(run, state=state, closed_at=now, result=result)
    if state is RunState.CANCELLED:
        return _clear(record, run), (run,)
    return _give_up_or_retry(record, run, error, policy, now)


def engine_died(pipeline_id: str, reason: str) -> RunError:
    """The error of a run whose engine ended without a result."""
    return RunError(
        "engine.died",
        "retryable",
        f"Pipeline {pipeline_id}: {reason.rstrip('.')}.",
        "Run it again: what was committed is in the target's ledger and is not loaded twice.",
    )


def close_by_result(
    store: StateStore, run: RunRecord, result: RunResult, policy: Pipeline | None, now: datetime
) -> RunRecord | None:
    """Take in a result, any number of times. Returns the run as it then is."""

    def decide(record: PipelineRecord) -> Closing:
        return take_result(record, store.run(run.pipeline_id, run.run_key) or run, result, policy, now)

    update(store, run.pipeline_id, decide)
    return store.run(run.pipeline_id, run.run_key)


def fail(
    store: StateStore,
    pipeline_id: str,
    run_key: str,
    error: RunError,
    now: datetime,
    policy: Pipeline | None,
    state: RunState = RunState.FAILED,
) -> RunRecord | None:
    """Close an open run that left no result. Returns the run as it then is, None when there is none."""

    def decide(record: PipelineRecord) -> Closing:
        found = store.run(pipeline_id, run_key)
        return (record, ()) if found is None else fail_run(record, found, error, policy, now, state)

    update(store, pipeline_id, decide)
    return store.run(pipeline_id, run_key)


def with_notices(record: PipelineRecord, notices: tuple[Notice, ...]) -> PipelineRecord:
    """The record with the notices in its outbox (R6f)."""
    return replace(record, outbox=(*record.outbox, *map(owe, notices)))


def audience_of(pipeline: Pipeline) -> Audience:
    """Whom a pipeline's alerts are for."""
    return Audience(pipeline.owner, pipeline.channels)


def _take_ledger(record: PipelineRecord, result: RunResult) -> PipelineRecord:
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
    return record


def _keep_seen(kept: Seen | None, new: Seen | None, watermark: Watermark | None) -> Seen | None:
    """R6c: an unripe pair is kept; one at or below the watermark has served."""
    if new is None:
        return kept
    if kept is None or kept.value.type is not new.value.type:
        return new
    served = watermark is not None and watermark.type is kept.value.type and kept.value <= watermark
    return new if served else kept


def _clear(record: PipelineRecord, run: RunRecord) -> PipelineRecord:
    pending = tuple(request for request in record.pending if request.request_id != run.request_id)
    open_run = None if record.open_run == run.run_key else record.open_run
    return replace(record, open_run=open_run, pending=pending)


def _note_success(record: PipelineRecord, result: RunResult, now: datetime) -> PipelineRecord:
    rows = result.rows.inserted + result.rows.updated + result.rows.deleted
    record = replace(record, successes=record.successes + 1, last_success_at=now)
    behind = record.behind_since or now if SOURCE_BEHIND in result.notes else None
    if rows:
        active = record.activity.with_rows_at(now)
        return replace(record, activity=active, dry_runs=0, dry_since=None, behind_since=behind)
    return replace(record, dry_runs=record.dry_runs + 1, dry_since=record.dry_since or now, behind_since=behind)


def _give_up_or_retry(
    record: PipelineRecord, run: RunRecord, error: RunError, policy: Pipeline | None, now: datetime
) -> Closing:
    """R7: the next attempt begins in the same write, in a batch of its own, or the alert goes out."""
    if policy is not None and error.kind in ("retryable", "internal") and run.attempt < policy.retry.attempts:
        attempt = run.attempt + 1
        run_key = make_run_key(run.pipeline_id, run.occasion, attempt)
        again = RunRecord(
            run_key, run.pipeline_id, run.kind, attempt, RunState.BEGUN, make_batch_id([run_key]), now,
            request_id=run.request_id, occasion=run.occasion, range=run.range, slot=run.slot,
            not_before=now + timedelta(seconds=policy.retry.pause_after(run.attempt)), trace=run.trace, caller=run.caller,
            requested_by=run.requested_by,
        )  # fmt: skip
        return replace(record, open_run=run_key), (run, again)
    condition = Condition.RECONCILIATION if error.code in _MISMATCHES else Condition.FAILED
    attempts = f" It was tried {run.attempt} times." if run.attempt > 1 else ""
    finding = Finding(condition, f"{error.message}{attempts}", error.remedy, run.run_key)
    return _tell(_clear(record, run), run, {condition: finding}, policy, now)


def _success_findings(run: RunRecord, result: RunResult) -> Mapping[Condition, Finding | None]:
    if run.state is not RunState.SUCCEEDED:
        return {}
    findings: dict[Condition, Finding | None] = {Condition.FAILED: None, Condition.RECONCILIATION: None}
    if result.schema_changes:
        told = f"Pipeline {run.pipeline_id}: columns changed: {'; '.join(result.schema_changes)}."
        findings[Condition.SCHEMA_CHANGE] = Finding(
            Condition.SCHEMA_CHANGE, told, "Look whether those who read the target expect it.", run.run_key
        )
    return findings


def _tell(
    record: PipelineRecord,
    run: RunRecord,
    findings: Mapping[Condition, Finding | None],
    policy: Pipeline | None,
    now: datetime,
) -> Closing:
    if policy is None:
        return record, (run,)
    rules = policy.alerts
    wanted = {
        condition: finding
        for condition, finding in findings.items()
        if finding is None or (rules.schema_changes if condition is Condition.SCHEMA_CHANGE else rules.failed)
    }
    episodes, changed, notices = advance(
        record.pipeline_id, record.episodes, wanted, rules.repeat_every, audience_of(policy), now
    )
    return with_notices(replace(record, episodes=episodes), notices), (run, *changed)


def _superseded(run: RunRecord) -> RunError:
    return RunError(
        "request.superseded",
        "retryable",
        f"Pipeline {run.pipeline_id}: another run committed first, so the request was not carried out.",
        "It is tried again by the retry policy.",
    )
