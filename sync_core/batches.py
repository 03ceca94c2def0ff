"""Runs that are launched together: packed by compute group, fixed when they are begun, sent by their id (R5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import batched

from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import make_batch_id
from sync_core.messages import RUNS, batch_message
from sync_core.ports import Queue

LARGEST = 50
"""Runs of one batch. Its message stays far below the 256 KB that a queue takes."""


@dataclass(frozen=True)
class Batch:
    """Runs, as (pipeline_id, run_key), of one compute group, and the `traceparent` that they share."""

    batch_id: str
    compute: str
    runs: tuple[tuple[str, str], ...]
    trace: str = ""


def pack(runs: Sequence[tuple[str, str]], pipelines: Mapping[str, Pipeline], largest: int = LARGEST) -> list[Batch]:
    """Batches of one compute group each; the same runs give the same batches."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for pipeline_id, run_key in sorted(set(runs)):
        groups.setdefault(pipelines[pipeline_id].compute, []).append((pipeline_id, run_key))
    return [
        Batch(make_batch_id([run_key for _, run_key in part]), compute, tuple(part))
        for compute, members in sorted(groups.items())
        for part in batched(members, largest)
    ]


def send_batch(queue: Queue, batch: Batch, again: str = "") -> None:
    """Queue it. `again` makes another message of it, where the queue would drop the first one's double (R9)."""
    key = f"{batch.batch_id}:{again}" if again else batch.batch_id
    queue.send(RUNS, batch_message(batch.batch_id, batch.runs, batch.trace), key)
