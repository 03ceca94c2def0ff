"""Ask a pipeline to run: one conditional write begins the run (R4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sync_core.domain.errors import RetryableError
from sync_core.domain.run import PendingRequest, PipelineRecord, Range, RunKind, RunRecord, RunState
from sync_core.ports import StateStore
from sync_core.update import update


@dataclass(frozen=True)
class Asked:
    """What is asked of one pipeline. A full refresh or backfill is a request of its own; an ordinary run is not."""

    pipeline_id: str
    run_key: str
    occasion: str
    kind: RunKind = RunKind.INCREMENTAL
    range: Range | None = None

    @property
    def request_id(self) -> str | None:
        return None if self.kind is RunKind.INCREMENTAL else self.occasion


def begin(record: PipelineRecord, asked: Asked, batch_id: str, now: datetime) -> tuple[PipelineRecord, RunRecord]:
    """The record with its open run, and the run. Raises RetryableError when a run is open."""
    if record.open_run is not None:
        raise RetryableError(
            "run.open",
            f"Pipeline {asked.pipeline_id} has an open run.",
            f"Wait for it, or look at it: uds history {asked.pipeline_id}.",
        )
    run = RunRecord(
        run_key=asked.run_key,
        pipeline_id=asked.pipeline_id,
        kind=asked.kind,
        attempt=1,
        state=RunState.BEGUN,
        batch_id=batch_id,
        created_at=now,
        request_id=asked.request_id,
        occasion=asked.occasion,
        range=asked.range,
    )
    pending = record.pending
    if asked.request_id is not None and all(request.request_id != asked.request_id for request in pending):
        pending += (PendingRequest(asked.request_id, asked.kind, asked.range, now),)
    return replace(record, open_run=asked.run_key, pending=pending), run


def request_run(store: StateStore, asked: Asked, batch_id: str, now: datetime) -> RunRecord:
    """Begin the run. A run of this key that there is already, open or closed, is never begun again (P21)."""
    begun: RunRecord | None = None

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[RunRecord, ...]]:
        nonlocal begun
        # Every write of a run changes its record's tag: what is found here is still true when `save` succeeds.
        begun = store.run(asked.pipeline_id, asked.run_key)
        if begun is not None:
            return record, ()
        record, begun = begin(record, asked, batch_id, now)
        return record, (begun,)

    update(store, asked.pipeline_id, decide)
    assert begun is not None  # noqa: S101  # decided at least once
    return begun
