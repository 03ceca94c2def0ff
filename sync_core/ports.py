"""What the flows need from the world. Each docstring says what must be true of every implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from sync_core.domain.alert import Episode, Notice
from sync_core.domain.connection import Channel, SecretReference
from sync_core.domain.errors import RetryableError
from sync_core.domain.run import (
    ConnectionRecord,
    Manifest,
    Operation,
    PipelineRecord,
    RunRecord,
    RunResult,
    WatermarkChange,
)

EventHandler = Callable[[dict[str, Any]], None]
"""Takes one structured event of the engine."""

Row = RunRecord | WatermarkChange | Episode | Operation
"""What lies beside a record in its partition."""


class Conflict(RetryableError):
    """The record changed since it was loaded: load it again and decide anew."""

    def __init__(self, name: str) -> None:
        super().__init__("store.conflict", f"The record of {name} was changed by somebody else at the same moment.")


@dataclass(frozen=True)
class Stored:
    """A pipeline's record with the tag of the version it was read at; tag None: it was never written."""

    record: PipelineRecord
    tag: str | None


@dataclass(frozen=True)
class StoredConnection:
    """A connection's record with the tag of the version it was read at; tag None: it was never written."""

    record: ConnectionRecord
    tag: str | None


class StateStore(Protocol):
    """Records with their runs, episodes, watermark changes and operations, one partition a pipeline.

    Raises RetryableError when the service behind it cannot answer now, PermanentError when a person must act.
    """

    def load(self, pipeline_id: str) -> Stored:
        """The record, or an empty one. Sees every write that was answered before."""
        ...

    def load_many(self, pipeline_ids: Sequence[str]) -> Iterator[Stored]:
        """`load` of each, in this order, many at a time: every flow over all pipelines reads by it."""
        ...

    def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
        """Write record and rows of ONE pipeline in one atomic step, only if the record still has `stored.tag`.

        Nothing is written otherwise, and Conflict is raised. Durable when it returns. A run replaces the one of its
        run_key, an episode the one of its episode_id; a change is kept for good under the epoch of `record`, which it
        begins, an operation under its time.
        """
        ...

    def run(self, pipeline_id: str, run_key: str) -> RunRecord | None:
        """One run, as the last `save` left it."""
        ...

    def runs(self, pipeline_id: str, limit: int) -> list[RunRecord]:
        """The latest runs, newest first."""
        ...

    def last_success(self, pipeline_id: str) -> RunRecord | None:
        """The newest run whose result is succeeded or unchanged, however many came after it."""
        ...

    def changes(self, pipeline_id: str, limit: int) -> list[WatermarkChange]:
        """The latest changes of the watermark by hand, newest first."""
        ...

    def episodes(self, pipeline_id: str, limit: int) -> list[Episode]:
        """The latest episodes by their beginning, newest first, open and closed."""
        ...

    def operations(self, pipeline_id: str, limit: int) -> list[Operation]:
        """What people did by hand, newest first."""
        ...

    def pipelines(self) -> Iterator[str]:
        """Every pipeline that has a record."""
        ...

    def forget_runs(self, pipeline_id: str, before: datetime) -> int:
        """Delete runs closed before a time, except the last success. Returns how many.

        Called after every run: costs what there is to delete, not what there is.
        """
        ...

    def forget_episodes(self, pipeline_id: str, before: datetime) -> int:
        """Delete episodes closed before a time. Returns how many."""
        ...

    def load_connection(self, name: str) -> StoredConnection:
        """A connection's record, or an empty one."""
        ...

    def save_connection(self, stored: StoredConnection, record: ConnectionRecord) -> None:
        """Write it only if it still has `stored.tag`; Conflict otherwise."""
        ...


class RunFolder(Protocol):
    """Where manifest and results of a batch meet the engine."""

    def write_manifest(self, manifest: Manifest) -> str:
        """Write it once; a second call leaves the first one's content. Returns the path as the engine sees it."""
        ...

    def read_manifest(self, batch_id: str) -> Manifest | None:
        """The manifest, None while there is none. Raises PermanentError when it cannot be understood."""
        ...

    def discard(self, batch_id: str) -> None:
        """Remove a batch that moved nothing: a plan or a check."""
        ...

    def read_result(self, batch_id: str, run_key: str) -> RunResult | None:
        """The result, None while there is none. Never a part of one.

        Raises PermanentError `run_folder.unreadable` when it cannot be understood.
        """
        ...

    def ask_to_stop(self, batch_id: str, run_key: str) -> None:
        """Leave a request for the engine to stop this run and go on with the others: it reads it within seconds."""
        ...

    def forget(self, before: datetime, kept: set[str]) -> int:
        """Delete batches last touched before a time, except those in `kept`. Returns how many."""
        ...


class LaunchStatus(StrEnum):
    """What the launcher knows of a batch."""

    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


class Ending(StrEnum):
    """How a launch ended, for runs that left no result."""

    RETRYABLE = "retryable"
    PERMANENT = "permanent"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class LaunchState:
    """`reason` says in one sentence why an ended batch may have left no results, `ending` whether to try again."""

    status: LaunchStatus
    reason: str = ""
    ending: Ending = Ending.RETRYABLE


class Launcher(Protocol):
    """Starts the engine on a manifest."""

    def launch(self, batch_id: str, manifest: str, compute: str = "default") -> str:
        """Start it on a compute group. Any number of calls with one batch_id start it once, in all.

        Returns the launch id. Raises PermanentError or RetryableError when it cannot be started.
        """
        ...

    def state(self, launch_id: str) -> LaunchState:
        """UNKNOWN when there is no such launch. Raises RetryableError when that cannot be told now."""
        ...

    def batch_of(self, launch_id: str) -> str | None:
        """The batch that was launched under this id; None when it is not one of ours."""
        ...

    def cancel(self, launch_id: str) -> None:
        """Stop it. Returns when it was told; does nothing when it has ended."""
        ...


class LocalEngine(Launcher, Protocol):
    """A Launcher on this machine, whose caller waits for it. `cancel` returns when nothing can write any more."""

    def reserve(self, batch_id: str) -> AbstractContextManager[None]:
        """While it is open and its process lives, `state` says RUNNING: nobody takes a begun run for an abandoned one."""
        ...

    def follow(self, launch_id: str, on_event: EventHandler) -> LaunchState:
        """Wait until it has ended, handing over its events as they come."""
        ...


@dataclass(frozen=True)
class Message:
    """A message as one receiver holds it. `receipt` is void once another one has received it; `dead` is the reason."""

    queue: str
    key: str
    body: str
    deliveries: int
    receipt: str
    dead: str = ""


class Queue(Protocol):
    """Messages, each delivered at least once. Whoever receives must take the same message twice."""

    def send(self, queue: str, body: str, key: str, delay: timedelta = timedelta()) -> None:
        """Durable when it returns. Dropped in silence when the queue was sent this key a short time ago (P21)."""
        ...

    def receive(self, queue: str, lock: timedelta = timedelta(minutes=1)) -> Message | None:
        """The message that is due the longest, None when none is. Nobody else receives it until `lock` is over.

        A message that was received too often without an end is dead-lettered, never dropped.
        """
        ...

    def complete(self, message: Message) -> None:
        """It is done. Does nothing when the receipt is void; so do the next two."""
        ...

    def abandon(self, message: Message) -> None:
        """Let the next `receive` have it."""
        ...

    def dead_letter(self, message: Message, reason: str) -> None:
        """Put it aside, and say why in words that help to mend it."""
        ...

    def reject(self, queue: str, body: str, key: str, reason: str) -> None:
        """Put a message aside that another receiver holds (a Functions trigger) and will complete. Once for each key."""
        ...

    def dead_letters(self, queue: str) -> list[Message]:
        """What was put aside, oldest first, at most 100."""
        ...

    def send_again(self, queue: str, key: str) -> int:
        """Give what was put aside under this key back to its queue, as if it were new. Returns how many there were.

        Killed in it and called again, it may deliver one twice, and loses none.
        """
        ...


class Secrets(Protocol):
    """Resolves references where the control plane itself needs a secret: to sign alerts, to check a webhook."""

    def get(self, reference: SecretReference) -> str:
        """The value; never logged, never stored. Raises PermanentError that names the reference when it is not there."""
        ...

    def renew(self, reference: SecretReference) -> str:
        """As `get`, for one whose value was just refused: it may have been rotated, so a value that is kept is read anew.

        However often it is called, it must not flood the place where secrets lie.
        """
        ...


class AlertSink(Protocol):
    """Delivers a notice to one channel."""

    def deliver(self, channel: Channel, notice: Notice) -> None:
        """Returns once the receiver took it. Delivered again, it carries the same id.

        Raises RetryableError when the receiver is not to be reached or busy, PermanentError when it refuses.
        """
        ...
