"""A control plane whose engine runs in this process, on a clock of its own, and which can die at any of its writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_core.adapters.sqlite_queue import SqliteQueue
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.control_plane import ControlPlane
from sync_core.domain.alert import Notice
from sync_core.domain.connection import Channel, Connection
from sync_core.domain.errors import ConfigError, RetryableError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import Outcome, RunError, RunOrder, RunRecord, RunResult
from sync_core.domain.schedule import Every
from sync_core.loop import Loop
from sync_core.messages import QUEUES
from sync_core.ports import Message
from tests.support.fake_engine import Place
from tests.support.flows import CONNECTIONS, Crashes, Folder, InProcess, Store, pipeline

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOURLY = Every(3600)


def request_of(identity: str, *names: str, **more: Any) -> str:
    """The message that asks for these pipelines, orders if none is named."""
    return json.dumps({"request_id": identity, "pipelines": names or ["orders"], **more})


@dataclass
class Clock:
    time: datetime = START

    def __call__(self) -> datetime:
        return self.time

    def pass_by(self, **given: float) -> None:
        self.time += timedelta(**given)


class Queue(SqliteQueue):
    def __init__(self, folder: Path, now: Callable[[], datetime], on_write: Callable[[], None]) -> None:
        super().__init__(folder, now)
        self.on_write = on_write

    def send(self, queue: str, body: str, key: str, delay: timedelta = timedelta()) -> None:
        self.on_write()
        super().send(queue, body, key, delay)
        self.on_write()

    def complete(self, message: Message) -> None:
        self.on_write()
        super().complete(message)
        self.on_write()


@dataclass
class Sink:
    """Takes notices; `down` refuses them."""

    notices: list[Notice] = field(default_factory=list[Notice])
    down: bool = False

    def deliver(self, channel: Channel, notice: Notice) -> None:
        if self.down:
            raise RetryableError("channel.down", "Nobody answers.")
        self.notices.append(notice)

    def told(self) -> list[tuple[str, str]]:
        """Condition and phase of each notice, doubles left out."""
        return list({one.notice_id: (one.condition.value, one.phase.value) for one in self.notices}.values())


@dataclass
class Site:
    """One installation: its folder, its clock, its pipelines; `plane` is another process each time."""

    folder: Path
    pipelines: dict[str, Pipeline] = field(default_factory=lambda: {"orders": replace(pipeline(), schedule=HOURLY)})
    connections: Mapping[str, Connection] = field(default_factory=lambda: CONNECTIONS)
    channels: Mapping[str, Channel] = field(default_factory=lambda: {"ops": Channel("ops", "test")})
    clock: Clock = field(default_factory=Clock)
    sink: Sink = field(default_factory=Sink)
    launched: list[str] = field(default_factory=list[str])
    running: set[str] = field(default_factory=set[str])

    def plane(self, crash_at: int | None = None) -> ControlPlane:
        crashes = Crashes(crash_at)
        launcher = InProcess(Place(self.folder / "place", crashes), crashes, self.launched, self.running)
        return ControlPlane(
            store=Store(self.folder, crashes),
            queue=Queue(self.folder, self.clock, crashes),
            folder=Folder(self.folder / "runs", crashes),
            launcher=launcher,
            sink=self.sink,
            pipelines=self.pipelines,
            connections=self.connections,
            channels=self.channels,
            select=self.select,
            now=self.clock,
        )

    def select(self, names: Sequence[str]) -> list[Pipeline]:
        unknown = [name for name in names if name not in self.pipelines]
        if unknown:
            raise ConfigError("pipeline.unknown", f"No pipeline is named {unknown[0]}.", "Name one that there is.")
        return [self.pipelines[name] for name in names]

    @property
    def store(self) -> SqliteStore:
        return SqliteStore(self.folder)

    @property
    def place(self) -> Place:
        return Place(self.folder / "place")

    def has(self, rows: int) -> None:
        """Let the source hold the numbers up to `rows`."""
        self.place.folder.mkdir(parents=True, exist_ok=True)
        (self.place.folder / "source").write_text(str(rows))

    def runs(self, name: str = "orders") -> list[RunRecord]:
        """Oldest first."""
        return self.store.runs(name, -1)[::-1]

    def cycle(self, plane: ControlPlane | None = None, **passes: float) -> None:
        """One round of every timer, all messages handled, and then some time."""
        plane = plane or self.plane()
        plane.tick()
        plane.reconcile()
        plane.watch()
        while Loop(plane).drain():
            pass
        self.clock.pass_by(**(passes or {"minutes": 1}))

    def settle(self) -> None:
        """Rounds of fresh processes until every message has come to its end: more than locks and pauses last."""
        for _ in range(10):
            self.cycle(minutes=10)

    def dead_letters(self) -> list[str]:
        queue = SqliteQueue(self.folder, self.clock)
        return [message.dead for name in QUEUES for message in queue.dead_letters(name)]

    def check(self, name: str = "orders") -> None:
        """What holds when all has come to its end, whatever was before."""
        store = self.store
        record, target = store.load(name).record, self.place.target(name)
        runs = store.runs(name, -1)
        assert target["rows"] == list(range(1, self.place.source() + 1))
        assert (record.open_run, record.pending, record.outbox) == (None, (), ())
        assert (record.epoch, record.generation) == (target["epoch"], target["generation"])
        assert not any(run.state.is_open for run in runs)
        counted = [run.counted_generation for run in runs if run.counted_generation is not None]
        assert len(set(counted)) == len(counted)
        assert len(set(self.launched)) == len(self.launched), "a batch was launched twice"
        slots = [run.slot for run in runs if run.slot is not None and run.attempt == 1]
        assert len(set(slots)) == len(slots), "a slot was begun twice"


def fail_runs(monkeypatch: pytest.MonkeyPatch, kind: str = "retryable", only: str | None = None) -> list[bool]:
    """Let the engine fail every run, or those of one pipeline, while the list that is returned is not empty."""
    on, load = [True], Place.load

    def fail(self: Place, order: RunOrder, batch_id: str) -> RunResult:
        name = order.pipeline.pipeline_id
        if not on or only not in (None, name):
            return load(self, order, batch_id)
        error = RunError("source.gone", kind, f"Pipeline {name}: the source is gone.", "Bring it back.")  # type: ignore[arg-type]
        return RunResult(
            name, order.run_key, batch_id, order.kind, order.attempt, Outcome.FAILED, order.request_id, error=error
        )

    monkeypatch.setattr(Place, "load", fail)
    return on
