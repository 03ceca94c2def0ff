"""Look for what is wrong though nothing failed: stale, long-running, silent, behind, dead letters (P25)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from sync_core.close import audience_of, with_notices
from sync_core.domain.alert import AlertRules, Audience, Condition, Finding, advance
from sync_core.domain.errors import SyncError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import PipelineRecord, RunRecord
from sync_core.domain.schedule import OnDemand
from sync_core.messages import QUEUES
from sync_core.outbox import flush_outbox
from sync_core.ports import Queue, Row, StateStore
from sync_core.update import update

CONTROL_PLANE = "$control-plane"
"""The record that alerts about the control plane itself go by; no pipeline can have this name."""

DRY_RUNS = 3
"""So many runs in a row must bring nothing before silence is compared with other weeks."""

BEHIND_FOR = timedelta(hours=1)
"""So long the source must lie behind the watermark: a replica catches up."""

Findings = Mapping[Condition, Finding | None]


def watch(
    store: StateStore,
    queue: Queue,
    pipelines: Mapping[str, Pipeline],
    paused: frozenset[str],
    now: datetime,
) -> int:
    """Open, repeat and close episodes of every pipeline, and send their notices. Returns how many were sent.

    One that cannot be written or told keeps no other from being looked at: the first such error is raised at the end.
    """
    sent = 0
    troubles: list[SyncError] = []
    for stored in store.load_many(sorted(pipelines)):
        record = stored.record
        pipeline = pipelines[record.pipeline_id]
        silent = record.pipeline_id in paused

        def look_at(found: PipelineRecord, pipeline: Pipeline = pipeline, silent: bool = silent) -> Findings:
            run = store.run(found.pipeline_id, found.open_run) if found.open_run else None
            return look(pipeline, found, run, silent, now)

        try:
            sent += _advance(store, queue, record, look_at, pipeline.alerts, audience_of(pipeline), now)
        except SyncError as error:
            troubles.append(error)

    def look_for_letters(_: PipelineRecord) -> Findings:
        return {Condition.DEAD_LETTERS: _dead(sum(len(queue.dead_letters(name)) for name in QUEUES))}

    record = store.load(CONTROL_PLANE).record
    sent += _advance(store, queue, record, look_for_letters, AlertRules(), Audience(), now)
    if troubles:
        raise troubles[0]
    return sent


def look(
    pipeline: Pipeline,
    record: PipelineRecord,
    run: RunRecord | None,
    paused: bool,
    now: datetime,
) -> Findings:
    """What holds for one pipeline now; None for what does not."""
    failed = _episode_opened(record)
    findings: dict[Condition, Finding | None] = {
        Condition.STALE: _stale(pipeline, record, paused, now),
        Condition.LONG_RUNNING: _long_running(pipeline, run, now),
        Condition.ZERO_ROWS: _zero_rows(pipeline, record, paused, now),
        Condition.SOURCE_BEHIND: _behind(pipeline, record, now),
    }
    if failed is not None and record.last_success_at is not None and record.last_success_at > failed:
        # A run by hand, which sends nothing itself, has succeeded since.
        findings |= {Condition.FAILED: None, Condition.RECONCILIATION: None}
    return findings


def _episode_opened(record: PipelineRecord) -> datetime | None:
    kinds = (Condition.FAILED, Condition.RECONCILIATION)
    return max((one.noticed_at for one in record.episodes if one.condition in kinds), default=None)


def _stale(pipeline: Pipeline, record: PipelineRecord, paused: bool, now: datetime) -> Finding | None:
    limit = pipeline.alerts.stale_after
    if limit is None or paused or isinstance(pipeline.schedule, OnDemand):
        return None
    # One that never succeeded is waited for since it first began.
    last = record.last_success_at or record.first_begun_at or now
    if now - last <= timedelta(seconds=limit):
        return None
    told = f"last succeeded {last:%Y-%m-%d %H:%M} UTC" if record.last_success_at else "has never succeeded"
    return Finding(
        Condition.STALE,
        f"Pipeline {pipeline.pipeline_id} {told}; it should every {_duration(limit)}.",
        f"Look at its runs: uds history {pipeline.pipeline_id}.",
    )


def _long_running(pipeline: Pipeline, run: RunRecord | None, now: datetime) -> Finding | None:
    limit = pipeline.alerts.max_duration
    if limit is None or run is None or run.launched_at is None or now - run.launched_at <= timedelta(seconds=limit):
        return None
    return Finding(
        Condition.LONG_RUNNING,
        f"Pipeline {pipeline.pipeline_id} has been running since {run.launched_at:%Y-%m-%d %H:%M} UTC, "
        f"longer than {_duration(limit)}.",
        f"Look at the launch {run.launch_id}, or cancel it: uds cancel {pipeline.pipeline_id} --reason WHY.",
    )


def _zero_rows(pipeline: Pipeline, record: PipelineRecord, paused: bool, now: datetime) -> Finding | None:
    start = record.dry_since
    if not pipeline.alerts.zero_rows or paused or start is None or record.dry_runs < DRY_RUNS:
        return None
    if not record.activity.usually_had_rows(start, now):
        return None
    return Finding(
        Condition.ZERO_ROWS,
        f"Pipeline {pipeline.pipeline_id} has brought no row in {record.dry_runs} runs since "
        f"{start:%Y-%m-%d %H:%M} UTC; at this time of the week it always did.",
        f"Look at the source, and at the filters: uds plan {pipeline.pipeline_id}.",
    )


def _behind(pipeline: Pipeline, record: PipelineRecord, now: datetime) -> Finding | None:
    if record.behind_since is None or now - record.behind_since <= BEHIND_FOR:
        return None
    mark = record.watermark.value if record.watermark else "none"
    return Finding(
        Condition.SOURCE_BEHIND,
        f"Pipeline {pipeline.pipeline_id}: the newest row of the source lies before the watermark {mark} since "
        f"{record.behind_since:%Y-%m-%d %H:%M} UTC: it was restored, or lost its newest rows.",
        f"When that is right, load it again: uds run {pipeline.pipeline_id} --full-refresh.",
    )


def _dead(letters: int) -> Finding | None:
    if letters == 0:
        return None
    what = "1 message was" if letters == 1 else f"{letters} messages were"
    return Finding(Condition.DEAD_LETTERS, f"{what} put aside and not carried out.", "Read why: uds dead-letters.")


def _advance(
    store: StateStore,
    queue: Queue,
    record: PipelineRecord,
    look_at: Callable[[PipelineRecord], Findings],
    rules: AlertRules,
    audience: Audience,
    now: datetime,
) -> int:
    """One conditional write when anything is to be told, looked at and decided anew on the record as it then is."""

    def decide(found: PipelineRecord) -> tuple[PipelineRecord, tuple[Row, ...]]:
        episodes, changed, notices = advance(
            found.pipeline_id, found.episodes, look_at(found), rules.repeat_every, audience, now
        )
        if not changed:
            return found, ()
        return with_notices(replace(found, episodes=episodes), notices), changed

    before = record
    if decide(record)[1]:
        before, _ = update(store, record.pipeline_id, decide)
    return flush_outbox(store, queue, before)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
