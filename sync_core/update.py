"""One change of one pipeline's record: load, decide, save; the only way that flows write (R4 to R8)."""

from __future__ import annotations

from collections.abc import Callable

from sync_core.domain.run import PipelineRecord
from sync_core.ports import Conflict, Row, StateStore

TRIES = 5
"""How often a decision is made anew when somebody else's write came first."""

Decision = Callable[[PipelineRecord], tuple[PipelineRecord, tuple[Row, ...]]]


def update(store: StateStore, pipeline_id: str, decide: Decision) -> tuple[PipelineRecord, tuple[Row, ...]]:
    """Load, decide, save; decide anew when somebody else's write came first."""
    for _ in range(TRIES):
        stored = store.load(pipeline_id)
        record, rows = decide(stored.record)
        if record == stored.record and not rows:
            return record, rows
        try:
            store.save(stored, record, rows)
        except Conflict:
            continue
        return record, rows
    raise Conflict(pipeline_id)
