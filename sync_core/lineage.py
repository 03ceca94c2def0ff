"""Lineage that is owed, and its delivery: written with the run that it is about, sent after, struck out when taken.

The outbox pattern without a queue: what is owed is a name of 70 characters on the pipeline's record, for the event can
be made again from the run and its result at any time. So a receiver that is away blocks nothing, fills no queue and
makes no dead letters; the next round tries again. An event may be sent twice, then with the same run id, type and time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.facts import Facts
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import PipelineRecord, RunRecord
from sync_core.ports import RunFolder, StateStore
from sync_core.update import update

LONGEST = 100
"""Events that a record may owe. A receiver that is away for more loses the oldest, and the log says so."""

ROUND = timedelta(minutes=1)
"""How long one round sends, however slow the receiver is: far below the time that a timer has."""

RESTING = "lineage.resting"
"""The code of a receiver that is not asked for a while: it was away a moment ago, and that was told."""

LOG = logging.getLogger("uds.lineage")


class Phase(StrEnum):
    """Which event of a run."""

    START = "start"
    END = "end"


@dataclass(frozen=True)
class LineageEvent:
    """One event of a run, and all that it is made of: equal values tell the receiver the same."""

    phase: Phase
    run: RunRecord
    pipeline: Pipeline
    connections: Mapping[str, Connection]
    facts: Facts | None = None

    @property
    def ended(self) -> bool:
        """Whether it tells of the end of a run that has ended."""
        return self.phase is Phase.END and not self.run.state.is_open


class LineageSink(Protocol):
    """Delivers one event."""

    def send(self, event: LineageEvent) -> None:
        """Returns once the receiver took it. Raises RetryableError when it is away, PermanentError when it refuses."""
        ...


def owe(record: PipelineRecord, run_key: str, phase: Phase) -> PipelineRecord:
    """The record, owing one event more; an event that it owes already it owes once."""
    entry = f"{phase.value} {run_key}"
    if entry in record.lineage:
        return record
    owed = (*record.lineage, entry)
    if len(owed) > LONGEST:
        LOG.warning("pipeline %s owes more than %s lineage events: the oldest is lost", record.pipeline_id, LONGEST)
    return replace(record, lineage=owed[-LONGEST:])


def deliver_lineage(
    store: StateStore,
    folder: RunFolder,
    sink: LineageSink,
    records: Iterable[PipelineRecord],
    pipelines: Mapping[str, Pipeline],
    connections: Mapping[str, Connection],
    now: Callable[[], datetime],
) -> int:
    """Send what the records owe, in order, until the receiver is away or the round is over. Returns how many it took."""
    sent, end = 0, now() + ROUND
    for record in records:
        done: list[str] = []
        away: RetryableError | None = None
        for entry in record.lineage:
            if now() > end:
                break
            try:
                event = _event(store, folder, entry, record.pipeline_id, pipelines, connections)
                sent += _send(sink, event) if event is not None else 0
            except RetryableError as error:
                away = error
                break
            done.append(entry)
        _strike(store, record.pipeline_id, done)
        if away is not None:
            LOG.log(logging.DEBUG if away.code == RESTING else logging.WARNING, "lineage waits: %s", away)
            return sent
    return sent


def _event(
    store: StateStore,
    folder: RunFolder,
    entry: str,
    pipeline_id: str,
    pipelines: Mapping[str, Pipeline],
    connections: Mapping[str, Connection],
) -> LineageEvent | None:
    """What an entry stands for; None where there is nothing to tell any more: the run or the pipeline is gone."""
    phase, _, run_key = entry.partition(" ")
    run, pipeline = store.run(pipeline_id, run_key), pipelines.get(pipeline_id)
    if run is None or pipeline is None:
        return None
    try:
        result = folder.read_result(run.batch_id, run_key) if phase == Phase.END.value else None
    except PermanentError:
        result = None
    return LineageEvent(Phase(phase), run, pipeline, connections, result.facts if result else None)


def _send(sink: LineageSink, event: LineageEvent) -> int:
    """Send one. Returns how many the receiver took: none where it refused it for good."""
    try:
        sink.send(event)
    except PermanentError as error:
        LOG.warning("a lineage event of pipeline %s is dropped: %s", event.pipeline.pipeline_id, error)
        return 0
    return 1


def _strike(store: StateStore, pipeline_id: str, done: list[str]) -> None:
    if not done:
        return

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[()]]:
        return replace(record, lineage=tuple(entry for entry in record.lineage if entry not in done)), ()

    update(store, pipeline_id, decide)
