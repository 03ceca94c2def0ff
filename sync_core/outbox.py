"""Send what a record owes, then strike it out (R6f), and send again what could not be carried out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sync_core.domain.run import PipelineRecord
from sync_core.ports import Queue, StateStore
from sync_core.update import update

LONGEST_WAIT = timedelta(hours=1)
"""At most so long does a message stay away, whatever a service asks for."""


def flush_outbox(store: StateStore, queue: Queue, record: PipelineRecord) -> int:
    """Send every entry of the record's outbox. Returns how many. A crash on the way sends it twice, never not at all."""
    if not record.outbox:
        return 0
    for entry in record.outbox:
        queue.send(entry.queue, entry.body, entry.key)
    sent = frozenset(entry.key for entry in record.outbox)

    def strike(found: PipelineRecord) -> tuple[PipelineRecord, tuple[()]]:
        return replace(found, outbox=tuple(entry for entry in found.outbox if entry.key not in sent)), ()

    update(store, record.pipeline_id, strike)
    return len(sent)


def send_again(queue: Queue, name: str, body: str, wait: timedelta | None, now: datetime) -> None:
    """Queue a message that could not be carried out once more: in 30 to 90 seconds, or that long after `wait`.

    Doubles of a minute are one, or each would breed more of them. The message is due in the middle of the minute that
    its key names: where it fails again the next minute has begun by any clock that is 30 seconds wrong at most.
    """
    minute = int((now + min(wait or timedelta(), LONGEST_WAIT)).timestamp()) // 60 + 1
    due = datetime.fromtimestamp(minute * 60 + 30, UTC)
    queue.send(name, body, f"{hashlib.sha256(body.encode()).hexdigest()}:{minute}", due - now)
