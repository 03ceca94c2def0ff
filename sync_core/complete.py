"""Take in what the runs of a batch did: any number of times, by any caller, in any order (R6)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sync_core.close import close_by_result, engine_died, fail
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import RunError, RunRecord, RunState
from sync_core.messages import CompletionHint
from sync_core.outbox import flush_outbox
from sync_core.ports import Ending, Launcher, LaunchState, LaunchStatus, Queue, RunFolder, StateStore


def complete(
    store: StateStore,
    folder: RunFolder,
    launcher: Launcher,
    queue: Queue,
    pipelines: Mapping[str, Pipeline],
    hint: CompletionHint,
    now: datetime,
) -> list[RunRecord]:
    """What a hint says may have ended: every run of its batch is completed, or failed when the launch ended without it.

    Returns the runs as they then are; none when the hint is about a launch that is not ours.
    """
    batch_id = hint.batch_id or (launcher.batch_of(hint.launch_id) if hint.launch_id else None)
    manifest = folder.read_manifest(batch_id) if batch_id else None
    if batch_id is None or manifest is None:
        return []
    runs = [store.run(order.pipeline.pipeline_id, order.run_key) for order in manifest.runs]
    mine = [run for run in runs if run is not None and run.batch_id == batch_id]
    launch_id = hint.launch_id or next((run.launch_id for run in mine if run.launch_id), None)
    # Whether it has ended is asked before its results are: one that comes in between is not missed.
    state = launcher.state(launch_id) if launch_id else LaunchState(LaunchStatus.UNKNOWN)
    done: list[RunRecord] = []
    for run in mine:
        closed = complete_run(store, folder, run, pipelines.get(run.pipeline_id), now)
        if closed is not None and closed.state.is_open and state.status is LaunchStatus.ENDED:
            closed = fail_by_ending(store, closed, state, pipelines.get(run.pipeline_id), now)
        flush_outbox(store, queue, store.load(run.pipeline_id).record)
        done += [closed] if closed is not None else []
    return done


def complete_run(
    store: StateStore, folder: RunFolder, run: RunRecord, policy: Pipeline | None, now: datetime
) -> RunRecord | None:
    """Take in the result of a run if there is one. Returns the run as it then is.

    A result that cannot be understood fails the run: what it committed is in the ledger, for the next one to find.
    """
    try:
        result = folder.read_result(run.batch_id, run.run_key)
    except PermanentError as fault:
        if fault.code != "run_folder.unreadable":
            # It says nothing of the run that the folder is out of reach: whoever is in there goes on.
            raise
        error = RunError(fault.code, fault.kind, f"Pipeline {run.pipeline_id}: {fault.message}", fault.remedy)
        return fail(store, run.pipeline_id, run.run_key, error, now, policy)
    if result is None:
        return run
    return close_by_result(store, run, result, policy, now)


def fail_by_ending(
    store: StateStore, run: RunRecord, state: LaunchState, policy: Pipeline | None, now: datetime
) -> RunRecord | None:
    """Close a run whose launch ended without its result, as the ending says (R6a)."""
    error = engine_died(run.pipeline_id, state.reason or "its launch is not known any more")
    if state.ending is Ending.CANCELLED:
        return fail(store, run.pipeline_id, run.run_key, error, now, policy, RunState.CANCELLED)
    if state.ending is Ending.PERMANENT:
        remedy = "Mend what it names, then run it again: what was committed is not loaded twice."
        error = RunError("launch.failed", "permanent", error.message, remedy)
    return fail(store, run.pipeline_id, run.run_key, error, now, policy)
