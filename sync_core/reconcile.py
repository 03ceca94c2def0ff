"""Find what was left behind: outboxes, runs that were never launched, launches that ended unheard or run too long (R9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sync_core.batches import Batch, send_batch
from sync_core.close import fail
from sync_core.complete import complete_run, fail_by_ending
from sync_core.domain.errors import SyncError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import RunError, RunRecord, RunState
from sync_core.launch import Stage, minute_of
from sync_core.outbox import flush_outbox
from sync_core.ports import LaunchStatus, Queue, StateStore

UNHEARD = timedelta(minutes=2)
"""A begun run is sent again, and a launch looked up, after this long."""

GRACE = timedelta(minutes=5)
"""How long a run that was asked to stop at its timeout may take, before its whole launch is cancelled."""


def reconcile(stage: Stage, queue: Queue, paused: frozenset[str], now: datetime) -> list[RunRecord]:
    """Every open run is where it should be, or is brought there. Returns the runs that were closed.

    One launch that cannot be looked up, or one message that cannot be sent, keeps no other from its due: the first such
    error is raised at the end.
    """
    waiting: list[RunRecord] = []
    launched: list[RunRecord] = []
    troubles: list[SyncError] = []
    for run in open_runs(stage.store, queue, sorted({*stage.store.pipelines(), *stage.pipelines}), troubles):
        if run.state is RunState.LAUNCHED:
            launched.append(run)
        elif run.pipeline_id not in paused and now >= (run.not_before or run.created_at + UNHEARD):
            waiting.append(run)
    for batch in _batches(waiting):
        try:
            send_batch(queue, batch, again=minute_of(now))
        except SyncError as error:
            troubles.append(error)
    closed: list[RunRecord] = []
    for launch_id, runs in _by_launch(launched).items():
        try:
            closed += _look_up(stage, queue, launch_id, runs, now)
        except SyncError as error:
            troubles.append(error)
    if troubles:
        raise troubles[0]
    return closed


def open_runs(
    store: StateStore, queue: Queue, pipeline_ids: Sequence[str], troubles: list[SyncError]
) -> Iterable[RunRecord]:
    """The open run of each pipeline that has one; outboxes are sent on the way, or why not is added to `troubles`."""
    for stored in store.load_many(pipeline_ids):
        try:
            flush_outbox(store, queue, stored.record)
        except SyncError as error:
            troubles.append(error)
        if stored.record.open_run is not None:
            run = store.run(stored.record.pipeline_id, stored.record.open_run)
            if run is not None and run.state.is_open:
                yield run


def _batches(runs: Sequence[RunRecord]) -> list[Batch]:
    members: dict[str, list[tuple[str, str]]] = {}
    traces: dict[str, str] = {}
    for run in runs:
        members.setdefault(run.batch_id, []).append((run.pipeline_id, run.run_key))
        traces[run.batch_id] = run.trace
    return [Batch(one, "", tuple(sorted(found)), traces[one]) for one, found in sorted(members.items())]


def _by_launch(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    launches: dict[str, list[RunRecord]] = {}
    for run in runs:
        launches.setdefault(run.launch_id or run.batch_id, []).append(run)
    return launches


def _look_up(stage: Stage, queue: Queue, launch_id: str, runs: Sequence[RunRecord], now: datetime) -> list[RunRecord]:
    state = stage.launcher.state(launch_id)
    if state.status is LaunchStatus.RUNNING:
        _stop_overdue(stage, launch_id, runs, now)
    closed: list[RunRecord] = []
    # While the launch runs too: a run of a batch may be done long before its neighbours.
    for run in runs:
        policy = stage.pipelines.get(run.pipeline_id)
        found = complete_run(stage.store, stage.folder, run, policy, now)
        if found is not None and found.state.is_open and state.status is not LaunchStatus.RUNNING:
            overdue = _deadline(run, policy)
            if overdue is not None and now >= overdue:
                found = fail(stage.store, run.pipeline_id, run.run_key, timed_out(run, policy), now, policy)
            elif state.status is LaunchStatus.ENDED or now >= (run.launched_at or run.created_at) + UNHEARD:
                found = fail_by_ending(stage.store, found, state, policy, now)
        flush_outbox(stage.store, queue, stage.store.load(run.pipeline_id).record)
        if found is not None and not found.state.is_open:
            closed.append(found)
    return closed


def _stop_overdue(stage: Stage, launch_id: str, runs: Sequence[RunRecord], now: datetime) -> None:
    """The engine stops a run at its timeout by itself. One that it could not is asked to, then cancelled with its batch."""
    for run in runs:
        deadline = _deadline(run, stage.pipelines.get(run.pipeline_id))
        if deadline is None or now < deadline:
            continue
        if now >= deadline + GRACE:
            stage.launcher.cancel(launch_id)
            return
        stage.folder.ask_to_stop(run.batch_id, run.run_key)


def _deadline(run: RunRecord, policy: Pipeline | None) -> datetime | None:
    if policy is None or policy.timeout_seconds is None or run.launched_at is None:
        return None
    return run.launched_at + timedelta(seconds=policy.timeout_seconds)


def timed_out(run: RunRecord, policy: Pipeline | None) -> RunError:
    """The error of a run that was stopped at its timeout."""
    seconds = policy.timeout_seconds if policy and policy.timeout_seconds else 0
    return RunError(
        "run.timeout",
        "retryable",
        f"Pipeline {run.pipeline_id}: the run took longer than its timeout of {seconds:.0f} s and was stopped.",
        "Raise timeout, or read in more partitions.",
    )
