"""The control plane's doors, watched: what each did becomes spans, measurements and events, and lineage that is owed.

The flows know nothing of it. Every change of a run goes through `StateStore.save`, once, so that is where it is seen.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, cast

from sync_core.batches import Batch
from sync_core.control_plane import ControlPlane
from sync_core.domain.errors import ConfigError
from sync_core.domain.facts import Facts
from sync_core.domain.run import PipelineRecord, RunRecord, RunResult
from sync_core.domain.trace import TraceContext, read_trace
from sync_core.lineage import LineageSink, Phase, deliver_lineage, owe
from sync_core.messages import QUEUES, RUNS, decode_batch
from sync_core.ports import Row, RunFolder, StateStore, Stored
from sync_core.request import Asked
from sync_core.telemetry import NONE, Attributes, Measurement, NoTelemetry, Telemetry
from sync_core.telemetry_runs import (
    Change,
    Site,
    Step,
    door_spans,
    event_of,
    measure_change,
    measure_records,
    run_spans,
    step_of,
)
from sync_core.watch import CONTROL_PLANE

LOG = logging.getLogger("uds.telemetry")

_NAMES = {"sync-requests": "request", "sync-runs": "launch", "sync-completions": "complete", "sync-alerts": "alert"}
"""Queue to the name of its door."""


@dataclass
class Door:
    """What happened while a door was open: changes of runs, facts of results that were read, records that were seen.

    `all_records`: also those that owe nothing.
    """

    all_records: bool = False
    changes: list[Change] = field(default_factory=list[Change])
    facts: dict[str, Facts | None] = field(default_factory=dict[str, "Facts | None"])
    records: dict[str, PipelineRecord] = field(default_factory=dict[str, PipelineRecord])

    def see(self, record: PipelineRecord) -> None:
        """Keep what is measured and owed, and no more: there may be 100,000."""
        name = record.pipeline_id
        if self.all_records or record.lineage or name in self.records:
            slim = PipelineRecord(name, watermark=record.watermark, episodes=record.episodes, lineage=record.lineage)
            self.records[name] = slim


_DOOR: ContextVar[Door | None] = ContextVar("uds_door", default=None)


class ObservedStore:
    """A StateStore that notes what is saved; with `owes`, what is saved owes lineage."""

    def __init__(self, store: StateStore, *, owes: bool) -> None:
        self._store = store
        self._owes = owes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def load_many(self, pipeline_ids: Sequence[str]) -> Iterator[Stored]:
        door = _DOOR.get()
        for stored in self._store.load_many(pipeline_ids):
            if door is not None:
                door.see(stored.record)
            yield stored

    def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
        door = _DOOR.get()
        runs = [row for row in rows if isinstance(row, RunRecord)]
        changes = [Change(step, run) for run in runs if (step := step_of(stored.record, run)) is not None]
        if self._owes:
            for change in changes:
                record = _owing(record, change)
        self._store.save(stored, record, rows)
        if door is not None:
            door.see(record)
            door.changes += changes


class ObservedFolder:
    """A RunFolder that notes the facts of the results that are read: the store does not keep them."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def read_result(self, batch_id: str, run_key: str) -> RunResult | None:
        result, door = self._folder.read_result(batch_id, run_key), _DOOR.get()
        if door is not None and result is not None:
            door.facts[run_key] = result.facts
        return result


@dataclass(frozen=True)
class ObservedControlPlane(ControlPlane):
    """A control plane that tells what its doors did. Whatever goes wrong with the telling, the doors do not see it."""

    telemetry: Telemetry = NoTelemetry()
    environment: str = ""
    lineage: LineageSink | None = None

    def tick(self) -> list[Batch]:
        with self._open("tick"):
            batches = super().tick()
            self._emit([Measurement("uds.ticks", 1, {"environment": self.environment})])
            return batches

    def reconcile(self) -> list[RunRecord]:
        with self._open("reconcile") as door:
            try:
                return super().reconcile()
            finally:
                self._deliver(door)

    def watch(self) -> int:
        with self._open("watch") as door:
            sent = super().watch()
            self._measure(door)
            return sent

    def handle(self, queue: str, body: str) -> None:
        under, ids = _message(queue, body)
        with self._open(_NAMES.get(queue, "unknown"), under, ids):
            super().handle(queue, body)

    def submit(self, body: str, who: str | None = None) -> dict[str, Any]:
        caller = self.telemetry.current()
        return super().submit(body if caller is None else _under(body, caller), who)

    def cancel(self, pipeline_id: str, who: str, reason: str) -> RunRecord:
        with self._open("cancel", ids={"pipeline_id": pipeline_id}):
            return super().cancel(pipeline_id, who, reason)

    def retry(self, pipeline_id: str, run_key: str | None, who: str, reason: str) -> Asked:
        with self._open("retry", ids={"pipeline_id": pipeline_id}):
            return super().retry(pipeline_id, run_key, who, reason)

    # ---- within

    @property
    def _site(self) -> Site:
        return Site(self.pipelines, self.connections, self.environment)

    @contextmanager
    def _open(self, name: str, under: TraceContext | None = None, ids: Attributes = NONE) -> Generator[Door]:
        door, started, caller = Door(name == "watch"), self.now(), self.telemetry.current()
        token = _DOOR.set(door)
        try:
            with self.telemetry.within(under, {"door": name, **ids}):
                yield door
        except Exception as error:
            self._tell(name, door, started, caller, under, error)
            raise
        else:
            self._tell(name, door, started, caller, under, None)
        finally:
            _DOOR.reset(token)

    def _tell(
        self,
        name: str,
        door: Door,
        started: datetime,
        caller: TraceContext | None,
        under: TraceContext | None,
        error: Exception | None,
    ) -> None:
        with _harmless():
            site, finished = self._site, self.now()
            spans = door_spans(name, door.changes, started, finished, site, caller, under, error)
            for change in door.changes:
                if change.step in (Step.CLOSED, Step.LATE):
                    spans += run_spans(change.run, door.facts.get(change.run.run_key), site)
            measured = [one for change in door.changes for one in measure_change(change, site)]
            self.telemetry.emit(spans, measured, [event_of(change, finished, site) for change in door.changes])

    def _emit(self, measurements: Sequence[Measurement]) -> None:
        with _harmless():
            self.telemetry.emit(measurements=measurements)

    def _measure(self, door: Door) -> None:
        if isinstance(self.telemetry, NoTelemetry):
            return
        with _harmless():
            letters = {name: len(self.queue.dead_letters(name)) for name in QUEUES}
            records = [*door.records.values(), self.store.load(CONTROL_PLANE).record]
            known = {record.pipeline_id: record for record in records}.values()
            self.telemetry.emit(measurements=measure_records(known, letters, self.now(), self._site))

    def _deliver(self, door: Door) -> None:
        if self.lineage is None:
            return
        with _harmless():
            owing = [record for record in door.records.values() if record.lineage]
            deliver_lineage(self.store, self.folder, self.lineage, owing, self.pipelines, self.connections, self.now)


def observe(
    plane: ControlPlane, telemetry: Telemetry, environment: str = "", lineage: LineageSink | None = None
) -> ControlPlane:
    """The same control plane, watched; the very same where nothing is to be told to anybody."""
    if isinstance(telemetry, NoTelemetry) and lineage is None:
        return plane
    parts = {part.name: getattr(plane, part.name) for part in fields(plane)}
    parts["store"] = cast("StateStore", ObservedStore(plane.store, owes=lineage is not None))
    parts["folder"] = cast("RunFolder", ObservedFolder(plane.folder))
    return ObservedControlPlane(**parts, telemetry=telemetry, environment=environment, lineage=lineage)


def _owing(record: PipelineRecord, change: Change) -> PipelineRecord:
    if change.step is Step.BEGUN:
        return owe(record, change.run.run_key, Phase.START)
    return owe(record, change.run.run_key, Phase.END) if change.step in (Step.CLOSED, Step.LATE) else record


def _message(queue: str, body: str) -> tuple[TraceContext | None, Attributes]:
    """The trace that a message carries, and what names it. What cannot be understood is the flow's to refuse."""
    if queue != RUNS:
        return None, NONE
    try:
        message = decode_batch(body)
    except ConfigError:
        return None, NONE
    return read_trace(message.trace), {"batch_id": message.batch_id}


def _under(body: str, caller: TraceContext) -> str:
    """A request, asked under the caller's trace unless it names one itself."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return (
        json.dumps({"traceparent": str(caller), **cast("dict[str, Any]", asked)}) if isinstance(asked, dict) else body
    )


@contextmanager
def _harmless() -> Generator[None]:
    """Telemetry that fails is told, and never fails what it is about."""
    try:
        yield
    except Exception:
        LOG.warning("telemetry failed", exc_info=True)
