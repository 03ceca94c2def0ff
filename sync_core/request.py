"""Ask a pipeline to run: one conditional write begins the run (R4), or leaves the request pending while another runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sync_core.batches import Batch, pack, send_batch
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import (
    PendingRequest,
    PipelineRecord,
    Range,
    RunKind,
    RunRecord,
    RunState,
    make_run_key,
)
from sync_core.domain.trace import begin_trace
from sync_core.ports import Queue, StateStore
from sync_core.update import update


@dataclass(frozen=True)
class Asked:
    """What is asked of one pipeline, and by what occasion: its slot, a request, the successes it follows.

    Of a request, `request_id` keeps it on the record until its run succeeds or the last attempt fails. `caller` is the
    `traceparent` it was asked under, `requested_by` the name of who asked.
    """

    pipeline_id: str
    run_key: str
    occasion: str
    kind: RunKind = RunKind.INCREMENTAL
    range: Range | None = None
    request_id: str | None = None
    slot: datetime | None = None
    consumed: Mapping[str, int] = field(default_factory=dict[str, int])
    caller: str = ""
    requested_by: str = ""


def ask(
    pipeline_id: str, identity: str, kind: RunKind, asked: Range | None, *, requested: bool, requested_by: str = ""
) -> Asked:
    """The first attempt of the request, or of the run by hand, that has this identity."""
    # No bare identity: upstream systems choose those of their requests, and may choose the text of a slot.
    occasion = f"{'request' if requested else 'run'} {identity}"
    run_key = make_run_key(pipeline_id, occasion, 1)
    request_id = identity if requested else None
    return Asked(pipeline_id, run_key, occasion, kind, asked, request_id, requested_by=requested_by)


def begin(record: PipelineRecord, asked: Asked, batch_id: str, now: datetime) -> tuple[PipelineRecord, RunRecord]:
    """The record with its open run, and the run. Raises RetryableError when a run is open, or this one is passed."""
    if record.open_run is not None:
        raise RetryableError(
            "run.open",
            f"Pipeline {asked.pipeline_id} has an open run.",
            f"Wait for it, or look at it: uds history {asked.pipeline_id}.",
        )
    if _is_passed(record, asked):
        raise RetryableError("run.passed", f"Pipeline {asked.pipeline_id} has gone past {asked.occasion} already.")
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
        slot=asked.slot,
        trace=begin_trace(batch_id),
        caller=asked.caller,
        requested_by=asked.requested_by,
    )
    record = keep_pending(record, asked, now)
    if asked.slot is not None and (record.last_slot is None or asked.slot > record.last_slot):
        record = replace(record, last_slot=asked.slot)
    return replace(
        record,
        open_run=asked.run_key,
        consumed={**record.consumed, **asked.consumed},
        first_begun_at=record.first_begun_at or now,
    ), run


def _is_passed(record: PipelineRecord, asked: Asked) -> bool:
    """Whether a later slot, or later successes, were begun since an instance decided on these: it was slow."""
    if asked.slot is not None:
        return record.last_slot is not None and asked.slot <= record.last_slot
    return any(count <= record.consumed.get(one, 0) for one, count in asked.consumed.items())


def keep_pending(record: PipelineRecord, asked: Asked, now: datetime) -> PipelineRecord:
    """The record with the request among those that wait."""
    if asked.request_id is None or any(one.request_id == asked.request_id for one in record.pending):
        return record
    request = PendingRequest(
        asked.request_id, asked.kind, asked.range, now, caller=asked.caller, requested_by=asked.requested_by
    )
    return replace(record, pending=(*record.pending, request))


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


def request(
    store: StateStore,
    queue: Queue,
    asked: Sequence[Asked],
    pipelines: Mapping[str, Pipeline],
    paused: frozenset[str],
    now: datetime,
) -> list[Batch]:
    """Take in a request of any number of pipelines: idle ones begin and are queued, for the others it stays pending.

    Any number of deliveries begin each pipeline once. `paused` pipelines keep the request until they are resumed. One
    that cannot take it keeps no other from its run; why not is raised at the end.
    """
    troubles: list[PermanentError] = []
    for one in asked:

        def decide(record: PipelineRecord, one: Asked = one) -> tuple[PipelineRecord, tuple[RunRecord, ...]]:
            known = store.run(one.pipeline_id, one.run_key) is not None
            return (record if known else keep_pending(record, one, now)), ()

        try:
            update(store, one.pipeline_id, decide)
        except PermanentError as error:
            troubles.append(error)
    idle = [one for one in asked if one.pipeline_id not in paused]
    batches = begin_batches(store, queue, idle, pipelines, now)
    if troubles:
        raise troubles[0]
    return batches


def begin_batches(
    store: StateStore, queue: Queue, asked: Sequence[Asked], pipelines: Mapping[str, Pipeline], now: datetime
) -> list[Batch]:
    """Begin what can begin, packed into batches, and send each batch (R4). A crash on the way is reconciled (R9).

    A record that cannot be written keeps no other pipeline from its due: the first such error is raised at the end.
    """
    troubles: list[PermanentError] = []
    wanted = {(one.pipeline_id, one.run_key): one for one in asked}
    sent: list[Batch] = []
    for packed in pack(list(wanted), pipelines):
        begun: list[tuple[str, str]] = []
        for pair in packed.runs:
            try:
                run = request_run(store, wanted[pair], packed.batch_id, now)
            except RetryableError:
                # An open run, or a writer that was first: the request is pending, the slot is still due.
                continue
            except PermanentError as error:
                troubles.append(error)
                continue
            if run.state is RunState.BEGUN and run.batch_id == packed.batch_id:
                begun.append(pair)
        if begun:
            batch = replace(packed, runs=tuple(begun), trace=begin_trace(packed.batch_id))
            send_batch(queue, batch)
            sent.append(batch)
    if troubles:
        raise troubles[0]
    return sent
