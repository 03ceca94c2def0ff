"""Begin what is due: from stored slots and successes, not from the time since the last tick (R4, P22)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from sync_core.batches import Batch
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import PipelineRecord, RunKind, make_run_key
from sync_core.domain.schedule import After, Cron, Every
from sync_core.due import due_slots
from sync_core.ports import Queue, StateStore
from sync_core.request import Asked, ask, begin_batches


def tick(
    store: StateStore, queue: Queue, pipelines: Mapping[str, Pipeline], connections: Iterable[str], now: datetime
) -> list[Batch]:
    """Begin and queue every due pipeline without an open run. Any number of calls begin each slot once."""
    records = {one.record.pipeline_id: one.record for one in store.load_many(sorted(pipelines))}
    paused = paused_pipelines(store, pipelines, records, connections)
    due = [
        asked
        for pipeline_id, pipeline in pipelines.items()
        if pipeline_id not in paused and (asked := due_run(pipeline, records, now)) is not None
    ]
    return begin_batches(store, queue, due, pipelines, now)


def due_run(pipeline: Pipeline, records: Mapping[str, PipelineRecord], now: datetime) -> Asked | None:
    """What the pipeline should run now, a pending request first; None when nothing is due or a run is open."""
    record = records[pipeline.pipeline_id]
    name, schedule = pipeline.pipeline_id, pipeline.schedule
    if record.open_run is not None:
        return None
    if record.pending:
        first = record.pending[0]
        asked = ask(name, first.request_id, first.kind, first.range, requested=True, requested_by=first.requested_by)
        return replace(asked, caller=first.caller)
    if isinstance(schedule, Cron | Every):
        slots = due_slots(schedule, record.last_slot, now)
        if not slots:
            return None
        occasion = f"slot {slots[0].isoformat()}"
        return Asked(name, make_run_key(name, occasion, 1), occasion, slot=slots[0])
    if isinstance(schedule, After):
        return _after(name, schedule, record, records)
    return None


def _after(name: str, schedule: After, record: PipelineRecord, records: Mapping[str, PipelineRecord]) -> Asked | None:
    """Due once each of them has succeeded since this one last began. The counts, not the clock, tell."""
    counts = {one: records[one].successes if one in records else 0 for one in schedule.pipelines}
    if not all(count > record.consumed.get(one, 0) for one, count in counts.items()):
        return None
    occasion = "after " + " ".join(f"{one}={count}" for one, count in sorted(counts.items()))
    return Asked(name, make_run_key(name, occasion, 1), occasion, RunKind.INCREMENTAL, consumed=counts)


def paused_pipelines(
    store: StateStore,
    pipelines: Mapping[str, Pipeline],
    records: Mapping[str, PipelineRecord],
    connections: Iterable[str],
) -> frozenset[str]:
    """Pipelines that must not begin: paused themselves, in the configuration or by hand, or by a connection of theirs."""
    closed = {name for name in connections if store.load_connection(name).record.paused is not None}
    return frozenset(
        name
        for name, pipeline in pipelines.items()
        if pipeline.paused
        or (name in records and records[name].paused is not None)
        or not closed.isdisjoint(pipeline.connections)
    )
