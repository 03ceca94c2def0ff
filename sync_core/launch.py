"""Launch a batch: the manifest once, the engine once, then each run is marked as launched (R5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sync_core.close import fail
from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import (
    Action,
    AuditPlace,
    Holder,
    Manifest,
    PipelineRecord,
    RunError,
    RunOrder,
    RunRecord,
    RunState,
    make_batch_id,
)
from sync_core.messages import BatchMessage
from sync_core.ports import Conflict, Launcher, RunFolder, StateStore
from sync_core.update import TRIES, update


@dataclass(frozen=True)
class Stage:
    """Where batches are launched and looked up, and what they may be made of."""

    store: StateStore
    folder: RunFolder
    launcher: Launcher
    pipelines: Mapping[str, Pipeline]
    connections: Mapping[str, Connection]
    audit: AuditPlace | None = None


def make_order(pipeline: Pipeline, run: RunRecord, record: PipelineRecord) -> RunOrder:
    """One run of a manifest, with the store's cache of the ledger."""
    return RunOrder(
        run_key=run.run_key,
        pipeline=pipeline,
        kind=run.kind,
        attempt=run.attempt,
        request_id=run.request_id,
        range=run.range,
        epoch=record.epoch,
        generation=record.generation,
        watermark=record.watermark,
        seen=record.seen,
        adopt=record.adopt,
        trace=run.trace,
    )


def make_manifest(
    batch_id: str,
    orders: Sequence[RunOrder],
    connections: Mapping[str, Connection],
    action: Action = Action.RUN,
    audit: AuditPlace | None = None,
) -> Manifest:
    """The manifest of these runs with the connections that they use and no others."""
    used = sorted({name for order in orders for name in order.pipeline.connections})
    return Manifest(batch_id, {name: connections[name] for name in used}, tuple(orders), action, audit=audit)


def launch(stage: Stage, message: BatchMessage, now: datetime) -> str | None:
    """Launch what is still open of a queued batch. Returns the launch id, None when nothing was launched.

    What makes it impossible closes its runs as failed. Raises RetryableError where there is no room now, and
    `connection.paused` while a connection of theirs is.
    """
    known = [(name, run_key) for name, run_key in message.runs if name in stage.pipelines]
    for name, run_key in message.runs:
        if name not in stage.pipelines:
            fail(stage.store, name, run_key, _removed(name), now, None)
    for name in sorted({one for pipeline_id, _ in known for one in stage.pipelines[pipeline_id].connections}):
        if stage.store.load_connection(name).record.paused is not None:
            raise RetryableError("connection.paused", f"Connection {name} is paused.", "The batch waits.")
    try:
        return launch_batch(stage, message.batch_id, known, now)
    except PermanentError as error:
        for name, run_key in known:
            run = stage.store.run(name, run_key)
            if run is None or run.state is not RunState.BEGUN or run.batch_id != message.batch_id:
                # Another delivery launched it, or it is of another batch by now.
                continue
            cause = RunError(error.code, error.kind, f"Pipeline {name}: {error.message}", error.remedy)
            fail(stage.store, name, run_key, cause, now, stage.pipelines[name])
        return None


def minute_of(time: datetime) -> str:
    """Names the minute, for the key of a message that is sent again."""
    return str(int(time.timestamp()) // 60)


def launch_batch(stage: Stage, batch_id: str, runs: Sequence[tuple[str, str]], now: datetime) -> str | None:
    """Launch the runs that are open and of this batch; None when there is none. Any number of calls launch once.

    Raises RetryableError `launch.busy` while a connection has no room for it.
    """
    orders: list[RunOrder] = []
    launched: list[str | None] = []
    for name, run_key in runs:
        found = stage.store.run(name, run_key)
        if found is None or not found.state.is_open or found.batch_id != batch_id:
            continue
        if found.state is RunState.LAUNCHED:
            launched.append(found.launch_id)
        orders.append(make_order(stage.pipelines[name], found, stage.store.load(name).record))
    if len(launched) == len(orders):
        # Nothing is left to launch: another delivery did it, and recorded it.
        return launched[0] if launched else None
    used = sorted({name for order in orders for name in order.pipeline.connections})
    connections = {name: hold(stage.store, stage.connections[name], batch_id, orders) for name in used}
    manifest = stage.folder.write_manifest(make_manifest(batch_id, orders, connections, audit=stage.audit))
    orders = _of_manifest(stage, batch_id, orders)
    if not orders:
        return None
    launch_id = stage.launcher.launch(batch_id, manifest, orders[0].pipeline.compute)
    for order in orders:
        mark_launched(stage.store, order.pipeline.pipeline_id, order.run_key, launch_id, now)
    return launch_id


def _of_manifest(stage: Stage, batch_id: str, orders: Sequence[RunOrder]) -> list[RunOrder]:
    """The orders that the batch's manifest holds; the other runs get a batch of their own, which is sent by R9.

    A batch's id is made of all runs that were to begin. Where one of them could not and began later, by a message that
    came twice or an instance that was slow, the first ones' manifest is written and never changes.
    """
    written = stage.folder.read_manifest(batch_id)
    members = {order.run_key for order in written.runs} if written is not None else set[str]()
    for order in orders:
        if order.run_key not in members:
            _move(stage.store, order.pipeline.pipeline_id, order.run_key, batch_id)
    return [order for order in orders if order.run_key in members]


def _move(store: StateStore, pipeline_id: str, run_key: str, batch_id: str) -> None:
    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[RunRecord, ...]]:
        run = store.run(pipeline_id, run_key)
        if run is None or run.state is not RunState.BEGUN or run.batch_id != batch_id:
            return record, ()
        return record, (replace(run, batch_id=make_batch_id([run_key])),)

    update(store, pipeline_id, decide)


def mark_launched(store: StateStore, pipeline_id: str, run_key: str, launch_id: str, now: datetime) -> None:
    """Record that a begun run was launched; a run that went on meanwhile stays as it is."""

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[RunRecord, ...]]:
        run = store.run(pipeline_id, run_key)
        if run is None or run.state is not RunState.BEGUN:
            return record, ()
        return record, (replace(run, state=RunState.LAUNCHED, launch_id=launch_id, launched_at=now),)

    update(store, pipeline_id, decide)


def hold(store: StateStore, connection: Connection, batch_id: str, orders: Sequence[RunOrder]) -> Connection:
    """Take the batch's part of a connection's `max_concurrent`. Returns the connection limited to that part.

    Nothing is ever given back: a holder whose runs are all closed no longer counts, whatever crashed in between.
    Raises RetryableError `launch.busy` when there is no room.
    """
    limit = connection.max_concurrent
    if limit is None:
        return connection
    members = tuple(
        (order.pipeline.pipeline_id, order.run_key) for order in orders if connection.name in order.pipeline.connections
    )
    for _ in range(TRIES):
        stored = store.load_connection(connection.name)
        mine = next((one for one in stored.record.holders if one.batch_id == batch_id), None)
        if mine is not None:
            return replace(connection, max_concurrent=mine.weight)
        others = tuple(one for one in stored.record.holders if _is_open(store, one))
        room = limit - sum(one.weight for one in others)
        if room < 1:
            raise RetryableError(
                "launch.busy", f"Connection {connection.name} serves {limit} runs already.", "The batch waits."
            )
        holder = Holder(batch_id, members, min(room, len(members)))
        try:
            store.save_connection(stored, replace(stored.record, holders=(*others, holder)))
        except Conflict:
            continue
        return replace(connection, max_concurrent=holder.weight)
    raise Conflict(connection.name)


def _is_open(store: StateStore, holder: Holder) -> bool:
    runs = (store.run(pipeline_id, run_key) for pipeline_id, run_key in holder.runs)
    return any(run is not None and run.state.is_open and run.batch_id == holder.batch_id for run in runs)


def _removed(name: str) -> RunError:
    return RunError(
        "pipeline.removed",
        "permanent",
        f"Pipeline {name}: it is no longer in the configuration.",
        "Put it back, or ignore this: nothing was moved.",
    )
