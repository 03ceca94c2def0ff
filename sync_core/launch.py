"""Launch a batch: the manifest once, the engine once, then each run is marked as launched (R5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sync_core.domain.connection import Connection
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import Action, Manifest, PipelineRecord, RunOrder, RunRecord, RunState
from sync_core.ports import Launcher, RunFolder, StateStore
from sync_core.update import update


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
    )


def make_manifest(
    batch_id: str, orders: Sequence[RunOrder], connections: Mapping[str, Connection], action: Action = Action.RUN
) -> Manifest:
    """The manifest of these runs with the connections that they use and no others."""
    used = {order.pipeline.source.connection for order in orders} | {
        order.pipeline.target.connection for order in orders
    }
    return Manifest(batch_id, {name: connections[name] for name in sorted(used)}, tuple(orders), action)


def launch_batch(
    store: StateStore,
    folder: RunFolder,
    launcher: Launcher,
    batch_id: str,
    runs: Sequence[RunRecord],
    pipelines: Mapping[str, Pipeline],
    connections: Mapping[str, Connection],
    now: datetime,
) -> str | None:
    """Launch the runs that are open and of this batch; None when there is none. Any number of calls launch once."""
    orders: list[RunOrder] = []
    for run in runs:
        found = store.run(run.pipeline_id, run.run_key)
        if found is None or not found.state.is_open or found.batch_id != batch_id:
            continue
        orders.append(make_order(pipelines[run.pipeline_id], found, store.load(run.pipeline_id).record))
    if not orders:
        return None
    manifest = folder.write_manifest(make_manifest(batch_id, orders, connections))
    launch_id = launcher.launch(batch_id, manifest)
    for order in orders:
        mark_launched(store, order.pipeline.pipeline_id, order.run_key, launch_id, now)
    return launch_id


def mark_launched(store: StateStore, pipeline_id: str, run_key: str, launch_id: str, now: datetime) -> None:
    """Record that a begun run was launched; a run that went on meanwhile stays as it is."""

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[RunRecord, ...]]:
        run = store.run(pipeline_id, run_key)
        if run is None or run.state is not RunState.BEGUN:
            return record, ()
        return record, (replace(run, state=RunState.LAUNCHED, launch_id=launch_id, launched_at=now),)

    update(store, pipeline_id, decide)
