"""What one execution of a run knows: its order, both ends, and what it has learnt, for the report whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from spark_entry.adapters.base import DatabaseAdapter, ReadPlan, Relation
from spark_entry.ledger import LedgerEntry
from spark_entry.start import Start
from spark_entry.window import FixedWindow
from sync_core.domain.facts import ColumnFact, StepTime
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import RowCounts, RunOrder, RunPlan, Seen, Window


@dataclass
class Execution:
    """`name` is 16 hex characters, new for every execution; `now` is this machine's clock in UTC.

    `event` writes a log event, and raises when the run must stop. `committed` is the ledger's entry of this run.
    """

    order: RunOrder
    batch_id: str
    source: DatabaseAdapter
    target: DatabaseAdapter
    name: str
    now: Callable[[], datetime]
    event: Callable[..., None]
    window: Window | None = None
    seen: Seen | None = None
    rows: RowCounts = RowCounts()
    notes: list[str] = field(default_factory=list[str])
    schema_changes: tuple[str, ...] = ()
    steps: dict[str, float] = field(default_factory=dict[str, float])
    times: list[StepTime] = field(default_factory=list[StepTime])
    source_columns: tuple[ColumnFact, ...] = ()
    target_columns: tuple[ColumnFact, ...] = ()
    plan: RunPlan | None = None
    problems: tuple[str, ...] = ()
    committed: LedgerEntry | None = None

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Time one step, in seconds, and note when it was."""
        begun, started = time.monotonic(), self.now()
        try:
            yield
        finally:
            seconds = time.monotonic() - begun
            self.steps[name] = round(self.steps.get(name, 0.0) + seconds, 3)
            # A clock that is set meanwhile makes no step end before it begins.
            self.times.append(StepTime(name, started, started + timedelta(seconds=seconds)))


@dataclass(frozen=True)
class Planned:
    """All that is decided before the first row is read. `pipeline` spells its names as the source does."""

    pipeline: Pipeline
    begin: Start
    relation: Relation
    fixed: FixedWindow
    read: ReadPlan
