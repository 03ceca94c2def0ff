"""What an operator does by hand: set a watermark (R8), pause, resume, cancel, run again. Each is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sync_core.close import Closing, fail_run
from sync_core.domain.errors import ConfigError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import (
    Operation,
    Pause,
    PipelineRecord,
    RunError,
    RunRecord,
    RunState,
    WatermarkChange,
)
from sync_core.domain.watermark import Watermark
from sync_core.ports import Conflict, Launcher, LaunchStatus, RunFolder, StateStore
from sync_core.request import Asked, ask
from sync_core.update import TRIES, update

KEPT_OPERATIONS = 20
"""Operations on a connection that its record keeps."""


def set_watermark(
    record: PipelineRecord, value: Watermark | None, who: str, reason: str, adopt: bool, now: datetime
) -> tuple[PipelineRecord, WatermarkChange]:
    """A new epoch, greater than any before, with this watermark: the next run starts from it whatever the ledger says.

    Needs no lock: a run that is under way keeps the old epoch, and its result is not taken.
    """
    epoch = max(record.epoch + 1, int(now.timestamp()))
    changed = replace(record, epoch=epoch, generation=0, watermark=value, seen=None, adopt=adopt)
    return changed, WatermarkChange(now, who, reason, record.watermark, value)


def parse_watermark(pipeline: Pipeline, value: str) -> Watermark:
    """A cursor value as people write it. Raises ConfigError when the pipeline has no cursor, or not of this kind."""
    if pipeline.cursor is None:
        raise ConfigError(
            "call.no_cursor",
            f"Pipeline {pipeline.pipeline_id} has no cursor, so it has no watermark.",
            f'To take over a filled target all the same: uds watermark reset {pipeline.pipeline_id} --adopt --reason "…".',
        )
    try:
        return Watermark.parse(pipeline.cursor.type, value)
    except ValueError as error:
        raise ConfigError("call.wrong", f"Pipeline {pipeline.pipeline_id}: {error}.") from error


def change_watermark(
    store: StateStore, pipeline_id: str, value: Watermark | None, who: str, reason: str, adopt: bool, now: datetime
) -> tuple[PipelineRecord, PipelineRecord]:
    """Set or (value None) reset the watermark. Returns the record before and after."""
    before = store.load(pipeline_id).record

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[WatermarkChange]]:
        nonlocal before
        before = record
        record, change = set_watermark(record, value, who, reason, adopt, now)
        return record, (change,)

    after, _ = update(store, pipeline_id, decide)
    return before, after


def pause_pipeline(store: StateStore, pipeline_id: str, who: str, reason: str, now: datetime) -> None:
    """Begin nothing until `resume_pipeline`. A run that is under way ends by itself."""
    _record(
        store,
        pipeline_id,
        Operation(now, who, reason, "pause"),
        lambda one: replace(one, paused=Pause(now, who, reason)),
    )


def resume_pipeline(store: StateStore, pipeline_id: str, who: str, reason: str, now: datetime) -> bool:
    """What is due or was asked for meanwhile begins with the next tick. Returns whether it was paused by hand."""
    was_paused = False

    def lift(record: PipelineRecord) -> PipelineRecord:
        nonlocal was_paused
        was_paused = record.paused is not None
        return replace(record, paused=None)

    _record(store, pipeline_id, Operation(now, who, reason, "resume"), lift)
    return was_paused


def pause_connection(store: StateStore, name: str, who: str, reason: str, now: datetime) -> None:
    """Begin and launch nothing that uses the connection."""
    _record_connection(store, name, Operation(now, who, reason, "pause"), Pause(now, who, reason))


def resume_connection(store: StateStore, name: str, who: str, reason: str, now: datetime) -> bool:
    """Its pipelines go on with the next tick. Returns whether it was paused."""
    return _record_connection(store, name, Operation(now, who, reason, "resume"), None) is not None


def cancel(
    store: StateStore,
    folder: RunFolder,
    launcher: Launcher,
    pipeline_id: str,
    who: str,
    reason: str,
    now: datetime,
) -> RunRecord:
    """Close the open run as cancelled, and its request with it, then stop what runs. Its neighbours go on.

    A commit that could not be stopped any more is in the ledger, and taken in when it is found (R6b).
    Raises ConfigError `run.none` when no run is open.
    """
    closed: RunRecord | None = None

    def decide(record: PipelineRecord) -> Closing:
        nonlocal closed
        run = store.run(pipeline_id, record.open_run) if record.open_run else None
        if run is None or not run.state.is_open:
            closed = None
            return record, ()
        error = RunError("run.cancelled", "permanent", f"Pipeline {pipeline_id}: cancelled by {who}: {reason}.")
        record, rows = fail_run(record, run, error, None, now, RunState.CANCELLED)
        closed = run
        return record, (*rows, Operation(now, who, reason, "cancel", run.run_key))

    update(store, pipeline_id, decide)
    if closed is None:
        raise ConfigError("run.none", f"Pipeline {pipeline_id} has no open run.", f"See uds history {pipeline_id}.")
    # One that is not known to be launched may be launched at this moment.
    if closed.launch_id is None or launcher.state(closed.launch_id).status is LaunchStatus.RUNNING:
        folder.ask_to_stop(closed.batch_id, closed.run_key)
    return store.run(pipeline_id, closed.run_key) or closed


def run_again(store: StateStore, pipeline_id: str, run_key: str | None, who: str, reason: str, now: datetime) -> Asked:
    """The same run once more, as a request of its own: the last one, or that of `run_key`.

    Raises ConfigError when there is none, or when it is open.
    """
    found = store.run(pipeline_id, run_key) if run_key else next(iter(store.runs(pipeline_id, 1)), None)
    if found is None:
        what = f"no run {run_key[:64]}" if run_key else "no run yet, so there is nothing to try again"
        raise ConfigError("run.none", f"Pipeline {pipeline_id} has {what}.", f"See uds history {pipeline_id}.")
    if found.state.is_open:
        raise ConfigError("run.open", f"Pipeline {pipeline_id}: that run is still open.", "Wait for it, or cancel it.")
    _record(store, pipeline_id, Operation(now, who, reason, "retry", found.run_key), lambda one: one)
    identity = f"retry {found.run_key[:16]} {now.isoformat()}"
    return ask(pipeline_id, identity, found.kind, found.range, requested=True, requested_by=who)


def _record(
    store: StateStore, pipeline_id: str, operation: Operation, change: Callable[[PipelineRecord], PipelineRecord]
) -> None:
    update(store, pipeline_id, lambda record: (change(record), (operation,)))


def _record_connection(store: StateStore, name: str, operation: Operation, paused: Pause | None) -> Pause | None:
    """Returns the pause that was there before."""
    for _ in range(TRIES):
        stored = store.load_connection(name)
        operations = (operation, *stored.record.operations)[:KEPT_OPERATIONS]
        try:
            store.save_connection(stored, replace(stored.record, paused=paused, operations=operations))
        except Conflict:
            continue
        return stored.record.paused
    raise Conflict(name)
