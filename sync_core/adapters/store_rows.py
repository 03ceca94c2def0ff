"""What both state stores say of the rows beside a record: where they sort, which count as a success, when they closed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sync_core.domain.alert import Episode
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import Operation, Outcome, PipelineRecord, RunRecord, WatermarkChange
from sync_core.ports import Row


def check_rows(record: PipelineRecord, rows: Sequence[Row]) -> None:
    """Raise ValueError when a row is another pipeline's, or two changes begin one epoch."""
    if sum(isinstance(row, WatermarkChange) for row in rows) > 1:
        raise ValueError(f"two watermark changes of {record.pipeline_id} cannot be saved at once")
    for row in rows:
        if isinstance(row, RunRecord | Episode) and row.pipeline_id != record.pipeline_id:
            raise ValueError(f"a row of {row.pipeline_id} cannot be saved with the record of {record.pipeline_id}")


def encode(value: Any) -> str:
    """The JSON text that is stored; ASCII, so that one character is one unit of every length limit."""
    return json.dumps(to_json(value))


def decode[T](kind: type[T], body: str) -> T:
    """What was stored. Raises ValueError when the text is not what `encode` wrote."""
    try:
        return from_json(kind, json.loads(body))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def sortable(time: datetime) -> str:
    """UTC text whose order is the order of time, to the microsecond."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def succeeded(run: RunRecord) -> bool:
    """Whether the run's result says that the target has all of the source's rows (`last_success`)."""
    return run.result is not None and run.result.state in (Outcome.SUCCEEDED, Outcome.UNCHANGED)


def operation_key(operation: Operation) -> str:
    """Tells operations of one moment apart; the same one written twice is one."""
    return hashlib.sha256(encode(operation).encode()).hexdigest()[:16]


def epoch_taken(pipeline_id: str, epoch: int, change: WatermarkChange) -> PermanentError:
    """A change is kept for good: another one never takes its place."""
    return PermanentError(
        "store.epoch_taken",
        f"Epoch {epoch} of pipeline {pipeline_id} already has a watermark change; that of {change.who} was not saved.",
        "Set the watermark again: each change begins a new epoch.",
    )
