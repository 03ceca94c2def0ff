"""Runs: what is asked, what is carried to the engine (manifest), what comes back (result), and their keys."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from sync_core.domain.activity import Activity
from sync_core.domain.alert import Episode
from sync_core.domain.connection import Connection
from sync_core.domain.facts import Facts
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.watermark import Watermark

CONTRACT_VERSION = 1
"""Version of manifest, result and ledger. An engine refuses a manifest newer than itself."""


SOURCE_BEHIND = "the source is behind the watermark"
"""The note of a result whose source was restored, or lost its newest rows (R11d)."""


class RunKind(StrEnum):
    """What a run loads."""

    INCREMENTAL = "incremental"
    FULL_REFRESH = "full_refresh"
    BACKFILL = "backfill"


class RunState(StrEnum):
    """A run's life in the store (R2)."""

    BEGUN = "begun"
    LAUNCHED = "launched"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        return self in (RunState.BEGUN, RunState.LAUNCHED)


class Outcome(StrEnum):
    """What one execution of a run came to, as the engine reports it."""

    SUCCEEDED = "succeeded"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What the engine is asked to do with a manifest."""

    RUN = "run"
    PLAN = "plan"
    CHECK = "check"


def make_run_key(pipeline_id: str, occasion: str, attempt: int) -> str:
    """64 hex characters that name one attempt at one slot or request of one pipeline."""
    return _digest(pipeline_id, occasion, str(attempt))


def make_batch_id(run_keys: list[str]) -> str:
    """64 hex characters that name a batch: message id, idempotency token and folder name in one (R5)."""
    return _digest(*sorted(run_keys))


def fingerprint(pipeline: Pipeline) -> str:
    """What the ledger's watermark is about: source, cursor and target (R10c). The mode is not part of it."""
    cursor = pipeline.cursor
    return _digest(
        pipeline.source.connection,
        pipeline.source.table or "",
        pipeline.source.query or "",
        cursor.column if cursor else "",
        cursor.type.value if cursor else "",
        pipeline.target.connection,
        pipeline.target.table,
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Range:
    """An inclusive range of cursor values for a backfill; an open end is None."""

    since: Watermark | None = None
    until: Watermark | None = None


@dataclass(frozen=True)
class Seen:
    """A number cursor's greatest value and when, on the source's clock, it was seen (R11b)."""

    value: Watermark
    at: datetime


@dataclass(frozen=True)
class RunOrder:
    """One run of a manifest: which pipeline, what kind, and the store's cache of the ledger. `trace` is its `traceparent`."""

    run_key: str
    pipeline: Pipeline
    kind: RunKind
    attempt: int = 1
    request_id: str | None = None
    range: Range | None = None
    epoch: int = 0
    generation: int = 0
    watermark: Watermark | None = None
    seen: Seen | None = None
    adopt: bool = False
    trace: str = ""


@dataclass(frozen=True)
class AuditPlace:
    """Where the engine keeps the tables `sync_runs` and `sync_watermarks`: in `catalog`.`schema`, or in the folder `path`.

    Rows older than `kept_days` are deleted.
    """

    catalog: str | None = None
    schema: str | None = None
    path: str | None = None
    kept_days: int = 400


@dataclass(frozen=True)
class Manifest:
    """All the engine needs for a batch. It holds references to secrets, never secrets. `audit` None: no audit rows."""

    batch_id: str
    connections: Mapping[str, Connection]
    runs: tuple[RunOrder, ...]
    action: Action = Action.RUN
    version: int = CONTRACT_VERSION
    audit: AuditPlace | None = None


@dataclass(frozen=True)
class Window:
    """The cursor values that a run reads, both ends included. `high` is the safe bound that becomes the watermark.

    `low` is the watermark less the look-back; None reads from the beginning. `read_bound` is what the read ends at.
    """

    low: Watermark | None
    high: Watermark | None
    read_bound: Watermark | None


@dataclass(frozen=True)
class RowCounts:
    """Rows of one run.

    `null_cursor` and `null_keys` count rows with a NULL there, `future` rows above the source's clock, `older` rows
    that were read but not written because the target's row is newer.
    """

    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    null_cursor: int = 0
    null_keys: int = 0
    future: int = 0
    older: int = 0


@dataclass(frozen=True)
class Seconds:
    """How long a run took, in all and by step (ledger, window, read, write, ...)."""

    total: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class RunError:
    """Why a run failed: `kind` is config, retryable, permanent or internal."""

    code: str
    kind: Literal["config", "retryable", "permanent", "internal"]
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class RunPlan:
    """What a run would do now: the exact statements, as `uds plan` shows them."""

    source_statements: tuple[str, ...]
    target_statements: tuple[str, ...]
    partitions: int
    snapshot: str | None = None


@dataclass(frozen=True)
class RunResult:
    """What a run did. Epoch, generation and watermark are the ledger's, read after the fact (R15).

    `counted_generation` is the generation whose ledger entry carries this run_key, None when it committed nothing.
    `plan` answers the action `plan`, `problems` the action `check`. `facts` stay in the run folder: the store leaves them out.
    """

    pipeline_id: str
    run_key: str
    batch_id: str
    kind: RunKind
    attempt: int
    state: Outcome
    request_id: str | None = None
    epoch: int = 0
    generation: int = 0
    watermark: Watermark | None = None
    seen: Seen | None = None
    window: Window | None = None
    rows: RowCounts = RowCounts()
    counted_generation: int | None = None
    seconds: Seconds = Seconds()
    schema_changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: RunError | None = None
    plan: RunPlan | None = None
    problems: tuple[RunError, ...] = ()
    started_at: datetime | None = None
    finished_at: datetime | None = None
    facts: Facts | None = None
    version: int = CONTRACT_VERSION


@dataclass(frozen=True)
class RunRecord:
    """A run as the store keeps it (R2).

    `occasion` is what made it: its slot, its request, or the successes it comes after. `not_before` is the end
    of the pause before a retry. `trace` is the `traceparent` of its batch or of its first attempt, `caller` that of
    whoever asked for it. `requested_by` names who asked, empty for a schedule.
    """

    run_key: str
    pipeline_id: str
    kind: RunKind
    attempt: int
    state: RunState
    batch_id: str
    created_at: datetime
    request_id: str | None = None
    occasion: str = ""
    range: Range | None = None
    launch_id: str | None = None
    launched_at: datetime | None = None
    slot: datetime | None = None
    not_before: datetime | None = None
    closed_at: datetime | None = None
    counted_generation: int | None = None
    result: RunResult | None = None
    late_success: bool = False
    trace: str = ""
    caller: str = ""
    requested_by: str = ""


@dataclass(frozen=True)
class PendingRequest:
    """A request that waits on the record for its run to succeed, or for the last attempt to fail (R7).

    `caller` is the `traceparent` that it is asked under, `requested_by` the name of who asks.
    """

    request_id: str
    kind: RunKind
    range: Range | None = None
    requested_at: datetime | None = None
    adopt: bool = False
    caller: str = ""
    requested_by: str = ""


@dataclass(frozen=True)
class WatermarkChange:
    """An operator's change of the watermark: who, when, why, and the value before (R8)."""

    at: datetime
    who: str
    reason: str
    before: Watermark | None
    after: Watermark | None


@dataclass(frozen=True)
class Pause:
    """Nothing is begun until somebody resumes it: who, when and why."""

    at: datetime
    who: str
    reason: str


@dataclass(frozen=True)
class Operation:
    """What a person did to a pipeline or connection by hand: pause, resume, cancel, retry."""

    at: datetime
    who: str
    reason: str
    what: str
    subject: str = ""


@dataclass(frozen=True)
class OutboxEntry:
    """A message that is owed: written with the record, sent after, then removed (R6f). `key` is its message id."""

    queue: str
    key: str
    body: str


@dataclass(frozen=True)
class PipelineRecord:
    """What the store knows of a pipeline (R1). Of the ledger it is a cache; a reset alone is newer here.

    `successes` counts the runs that succeeded, `consumed` those of other pipelines that this one has followed
    (schedule `after`). `lineage` names the events that are owed to the lineage receiver, oldest first. `dry_runs` successes in a row, the first at `dry_since`, brought no row; since `behind_since`
    the source's newest row lies before the watermark.
    """

    pipeline_id: str
    epoch: int = 0
    generation: int = 0
    watermark: Watermark | None = None
    open_run: str | None = None
    last_slot: datetime | None = None
    pending: tuple[PendingRequest, ...] = ()
    seen: Seen | None = None
    outbox: tuple[OutboxEntry, ...] = ()
    adopt: bool = False
    successes: int = 0
    consumed: Mapping[str, int] = field(default_factory=dict[str, int])
    first_begun_at: datetime | None = None
    last_success_at: datetime | None = None
    activity: Activity = Activity()
    dry_runs: int = 0
    dry_since: datetime | None = None
    behind_since: datetime | None = None
    episodes: tuple[Episode, ...] = ()
    paused: Pause | None = None
    lineage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holder:
    """A batch that reads or writes a connection: its runs, as (pipeline_id, run_key)."""

    batch_id: str
    runs: tuple[tuple[str, str], ...]
    weight: int


@dataclass(frozen=True)
class ConnectionRecord:
    """What the store knows of a connection: who holds a part of its `max_concurrent`, and whether it is paused."""

    name: str
    holders: tuple[Holder, ...] = ()
    paused: Pause | None = None
    operations: tuple[Operation, ...] = ()
