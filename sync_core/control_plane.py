"""The control plane's doors: three timers, four queues, and what people and upstream systems may ask over HTTP.

Each door reads the clock once and calls one flow. Functions and `uds up` both come through here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sync_core import operate
from sync_core.alert_delivery import deliver_alert
from sync_core.batches import Batch
from sync_core.complete import complete
from sync_core.domain.codec import to_json
from sync_core.domain.connection import Channel, Connection
from sync_core.domain.errors import ConfigError, RetryableError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import AuditPlace, PipelineRecord, Range, RunKind, RunRecord, RunState
from sync_core.domain.schedule import Cron, Every
from sync_core.domain.watermark import Watermark
from sync_core.due import next_slot
from sync_core.launch import Stage, launch
from sync_core.messages import (
    COMPLETIONS,
    QUEUES,
    REQUESTS,
    CompletionHint,
    SyncRequest,
    decode_batch,
    decode_completion,
    decode_request,
    encode,
)
from sync_core.outbox import send_again
from sync_core.ports import AlertSink, Launcher, Message, Queue, RunFolder, StateStore
from sync_core.reconcile import reconcile
from sync_core.request import Asked, ask, request
from sync_core.retention import Retention, forget
from sync_core.tick import paused_pipelines, tick
from sync_core.watch import watch

LOG = logging.getLogger("uds.control")

Select = Callable[[Sequence[str]], Sequence[Pipeline]]
"""Pipelines by id, glob and `tag:NAME`. Raises ConfigError that names the nearest."""


@dataclass(frozen=True)
class ControlPlane:
    """Ports, the configuration, and a clock."""

    store: StateStore
    queue: Queue
    folder: RunFolder
    launcher: Launcher
    sink: AlertSink
    pipelines: Mapping[str, Pipeline]
    connections: Mapping[str, Connection]
    channels: Mapping[str, Channel]
    select: Select
    now: Callable[[], datetime]
    retention: Retention = Retention()
    audit: AuditPlace | None = None

    # ---- timers

    def tick(self) -> list[Batch]:
        """Begin what is due."""
        return tick(self.store, self.queue, self.pipelines, self.connections, self.now())

    def reconcile(self) -> list[RunRecord]:
        """Find what was left behind."""
        return reconcile(self._stage(), self.queue, self.paused(), self.now())

    def watch(self) -> int:
        """Look for what is wrong though nothing failed."""
        return watch(self.store, self.queue, self.pipelines, self.paused(), self.now())

    def forget(self) -> None:
        """Delete what is older than it is kept."""
        forget(self.store, self.folder, self.retention, self.now())

    # ---- queues

    def handle(self, queue: str, body: str) -> None:
        """Carry out one message. Raises ConfigError when nobody ever can, which is for the dead letters (P21).

        What cannot be done now comes again later, as a message of its own: a queue counts its deliveries, within
        seconds where nothing holds it back, and would put it aside before the store or the workspace is back.
        """
        try:
            self._carry_out(queue, body)
        except RetryableError as error:
            LOG.warning("a message of %s comes again: %s", queue, error)
            send_again(self.queue, queue, body, error.retry_after, self.now())

    def _carry_out(self, queue: str, body: str) -> None:
        match queue:
            case "sync-requests":
                self._request(decode_request(body))
            case "sync-runs":
                launch(self._stage(), decode_batch(body), self.now())
            case "sync-completions":
                hint = decode_completion(body)
                complete(self.store, self.folder, self.launcher, self.queue, self.pipelines, hint, self.now())
            case "sync-alerts":
                deliver_alert(self.queue, self.sink, self.channels, body, self.now())
            case _:
                raise ConfigError("queue.unknown", f"No flow reads the queue {queue}.")

    # ---- what is asked for

    def submit(self, body: str, who: str | None = None) -> dict[str, Any]:
        """Check a request and queue it. Returns its id and the pipelines it names. Raises ConfigError (4xx).

        `who` is the caller whom a sign-in has proved; it stands whatever the body says.
        """
        asked = decode_request(body)
        asked = replace(asked, requested_by=who) if who is not None else asked
        names = [one.pipeline_id for one in self._asked(asked)]
        self.queue.send(REQUESTS, encode(asked), asked.request_id)
        return {"request_id": asked.request_id, "pipelines": names}

    def hint(self, launch_id: str) -> None:
        """A launch may have ended, says somebody whom nothing else is believed (a Databricks webhook)."""
        minute = int(self.now().timestamp()) // 60
        self.queue.send(COMPLETIONS, encode(CompletionHint(launch_id=launch_id)), f"launch {launch_id} {minute}")

    def cancel(self, pipeline_id: str, who: str, reason: str) -> RunRecord:
        """Stop the open run and give it up."""
        name = self.one(pipeline_id)
        return operate.cancel(self.store, self.folder, self.launcher, name, who, reason, self.now())

    def retry(self, pipeline_id: str, run_key: str | None, who: str, reason: str) -> Asked:
        """Run once more what a run was to do."""
        now = self.now()
        asked = operate.run_again(self.store, self.one(pipeline_id), run_key, who, reason, now)
        request(self.store, self.queue, [asked], self.pipelines, self.paused([asked.pipeline_id]), now)
        return asked

    def pause(self, name: str, who: str, reason: str, *, connection: bool = False) -> None:
        """Begin nothing more of a pipeline, or of all that use a connection."""
        if connection:
            operate.pause_connection(self.store, self._connection(name), who, reason, self.now())
        else:
            operate.pause_pipeline(self.store, self.one(name), who, reason, self.now())

    def resume(self, name: str, who: str, reason: str, *, connection: bool = False) -> bool:
        """Go on. Returns whether it was paused by hand."""
        if connection:
            return operate.resume_connection(self.store, self._connection(name), who, reason, self.now())
        return operate.resume_pipeline(self.store, self.one(name), who, reason, self.now())

    def change_watermark(
        self, pipeline_id: str, value: str | None, who: str, reason: str, *, adopt: bool = False
    ) -> tuple[PipelineRecord, PipelineRecord]:
        """Set the watermark, or reset it (None), for the next run to start from. Returns the record before and after."""
        name = self.one(pipeline_id)
        watermark = operate.parse_watermark(self.pipelines[name], value) if value is not None else None
        return operate.change_watermark(self.store, name, watermark, who, reason, adopt, self.now())

    def dead_letters(self) -> list[Message]:
        """What was put aside on every queue, with the reason of each."""
        return [message for queue in QUEUES for message in self.queue.dead_letters(queue)]

    def send_again(self, queue: str, key: str) -> int:
        """Give what was put aside back to its queue. Raises ConfigError when nothing is there under this key."""
        found = self.queue.send_again(queue, key) if queue in QUEUES else 0
        if not found:
            raise ConfigError(
                "dead_letter.none",
                f"No message of queue {queue[:100]} was put aside under key {key[:200]}.",
                "uds dead-letters shows those that were, each as QUEUE/KEY.",
            )
        return found

    # ---- what is shown

    def paused(self, names: Iterable[str] | None = None) -> frozenset[str]:
        """Of these pipelines, or of all, those that nothing is begun of."""
        looked_at = sorted(self.pipelines if names is None else set(names))
        records = {one.record.pipeline_id: one.record for one in self.store.load_many(looked_at)}
        pipelines = {name: self.pipelines[name] for name in looked_at}
        connections = {name for pipeline in pipelines.values() for name in pipeline.connections}
        return paused_pipelines(self.store, pipelines, records, connections)

    def running(self) -> Iterator[RunRecord]:
        """Runs that were launched and are open."""
        for stored in self.store.load_many(sorted(self.pipelines)):
            run = self.store.run(stored.record.pipeline_id, stored.record.open_run) if stored.record.open_run else None
            if run is not None and run.state is RunState.LAUNCHED:
                yield run

    def pipeline_status(self, pipeline_id: str, runs: int = 10) -> dict[str, Any]:
        """One pipeline's record and latest runs, as JSON takes it. Raises ConfigError for an unknown name."""
        name = self.one(pipeline_id)
        record = self.store.load(name).record
        return {
            **summary(record, self.pipelines[name], name in self.paused([name]), self.now()),
            "runs": [to_json(run) for run in self.store.runs(name, runs)],
            "operations": [to_json(one) for one in self.store.operations(name, runs)],
        }

    def all_status(self) -> dict[str, Any]:
        """Every pipeline, one line each."""
        records = {one.record.pipeline_id: one.record for one in self.store.load_many(sorted(self.pipelines))}
        paused = paused_pipelines(self.store, self.pipelines, records, self.connections)
        now = self.now()
        shown = [summary(record, self.pipelines[name], name in paused, now) for name, record in records.items()]
        return {"pipelines": shown}

    def run_status(self, pipeline_id: str, run_key: str) -> dict[str, Any]:
        """One run. Raises ConfigError when there is none."""
        run = self.store.run(self.one(pipeline_id), run_key)
        if run is None:
            raise ConfigError("run.none", f"Pipeline {pipeline_id} has no run {run_key[:64]}.", "See its runs.")
        return dict(to_json(run))

    # ---- within

    def _stage(self) -> Stage:
        return Stage(self.store, self.folder, self.launcher, self.pipelines, self.connections, self.audit)

    def _request(self, asked: SyncRequest) -> None:
        named = self._asked(asked)
        paused = self.paused(one.pipeline_id for one in named)
        request(self.store, self.queue, named, self.pipelines, paused, self.now())

    def _asked(self, asked: SyncRequest) -> list[Asked]:
        """One for each pipeline that the request names. Raises ConfigError."""
        return [
            replace(
                ask(one.pipeline_id, asked.request_id, asked.kind, _range(one, asked), requested=True),
                caller=asked.traceparent,
                requested_by=asked.requested_by,
            )
            for one in self.select(asked.pipelines)
        ]

    def one(self, name: str) -> str:
        """The id of a pipeline. Raises ConfigError that names the nearest when there is none."""
        if name not in self.pipelines:
            self.select([name])
            raise ConfigError("call.wrong", f"{name} is not the id of one pipeline.", "Name one.")
        return name

    def _connection(self, name: str) -> str:
        if name not in self.connections:
            raise ConfigError("connection.unknown", f"There is no connection {name}.", "See connections.yml.")
        return name


def upcoming_slot(pipeline: Pipeline, paused: bool, now: datetime) -> datetime | None:
    """When its schedule makes it due next; None when it has no times of its own or is paused."""
    schedule = pipeline.schedule
    return next_slot(schedule, now) if isinstance(schedule, Cron | Every) and not paused else None


def summary(record: PipelineRecord, pipeline: Pipeline, paused: bool, now: datetime) -> dict[str, Any]:
    """What a status shows of a pipeline."""
    return {
        "pipeline_id": pipeline.pipeline_id,
        "schedule": to_json(pipeline.schedule),
        "paused": paused,
        "open_run": record.open_run,
        "watermark": to_json(record.watermark),
        "epoch": record.epoch,
        "generation": record.generation,
        "last_slot": to_json(record.last_slot),
        "next_slot": to_json(upcoming_slot(pipeline, paused, now)),
        "last_success_at": to_json(record.last_success_at),
        "pending": [one.request_id for one in record.pending],
        "alerts": [{"condition": one.condition.value, "message": one.message} for one in record.episodes],
        "owner": pipeline.owner,
    }


def _range(pipeline: Pipeline, asked: SyncRequest) -> Range | None:
    if asked.kind is not RunKind.BACKFILL:
        return None
    cursor = pipeline.cursor
    if cursor is None or not cursor.column:
        raise ConfigError(
            "request.no_cursor",
            f"Pipeline {pipeline.pipeline_id} has no cursor column, so it has no range to load.",
            "Give it a cursor, or ask for kind full_refresh.",
        )
    try:
        ends = [Watermark.parse(cursor.type, text) if text is not None else None for text in (asked.since, asked.until)]
    except ValueError as error:
        raise ConfigError("request.wrong", f"Pipeline {pipeline.pipeline_id}: {error}.", "Correct it.") from error
    since, until = ends
    if since is not None and until is not None and until < since:
        raise ConfigError("request.wrong", f"until {asked.until} lies before since {asked.since}.", "Swap them.")
    return Range(since, until)
