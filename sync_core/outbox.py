"""Send what a record owes, then strike it out (R6f). A crash in between sends it twice, never not at all."""

from __future__ import annotations

from dataclasses import replace

from sync_core.domain.run import PipelineRecord
from sync_core.ports import Queue, StateStore
from sync_core.update import update


def flush_outbox(store: StateStore, queue: Queue, record: PipelineRecord) -> int:
    """Send every entry of the record's outbox. Returns how many."""
    if not record.outbox:
        return 0
    for entry in record.outbox:
        queue.send(entry.queue, entry.body, entry.key)
    sent = frozenset(entry.key for entry in record.outbox)

    def strike(found: PipelineRecord) -> tuple[PipelineRecord, tuple[()]]:
        return replace(found, outbox=tuple(entry for entry in found.outbox if entry.key not in sent)), ()

    update(store, record.pipeline_id, strike)
    return len(sent)
