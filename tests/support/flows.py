"""An App whose engine runs in this process, and which can die before and after any of its writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.by_hand import App
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.connection import Connection
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, Source, Target
from sync_core.domain.run import Manifest, Outcome, PipelineRecord, RunKind, RunResult
from sync_core.domain.watermark import CursorType
from sync_core.ports import EventHandler, LaunchState, LaunchStatus, Row, Stored
from sync_core.retention import Retention
from tests.support.fake_engine import Place

CONNECTIONS = {name: Connection(name, "postgresql") for name in ("shop", "lake", "unused")}


class Crash(BaseException):
    """The process is gone: no handler of the product may see it."""


def pipeline(name: str = "orders") -> Pipeline:
    cursor = Cursor("id", CursorType.NUMBER)
    return Pipeline(name, Source("shop", "x"), Target("lake", name), LoadMode.INCREMENTAL, cursor)


@dataclass
class Crashes:
    """Counts what is written and dies at the write number `at`: even ones before it, odd ones after it."""

    at: int | None = None
    count: int = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            raise Crash


class Store(SqliteStore):
    def __init__(self, folder: Path, on_write: Callable[[], None]) -> None:
        super().__init__(folder)
        self.on_write = on_write

    def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
        self.on_write()
        super().save(stored, record, rows)
        self.on_write()


class Folder(LocalRunFolder):
    def __init__(self, folder: Path, on_write: Callable[[], None]) -> None:
        super().__init__(folder)
        self.on_write = on_write

    def write_manifest(self, manifest: Manifest) -> str:
        self.on_write()
        path = super().write_manifest(manifest)
        self.on_write()
        return path


@dataclass
class InProcess:
    """A Launcher whose engine has ended when `launch` returns; `crashes` kills both at once."""

    place: Place
    crashes: Callable[[], None] = lambda: None
    launched: list[str] = field(default_factory=list[str])
    running: set[str] = field(default_factory=set[str])
    on_follow: Callable[[], None] = lambda: None

    @contextmanager
    def reserve(self, batch_id: str) -> Generator[None]:
        self.running.add(batch_id)
        try:
            yield
        finally:
            self.running.discard(batch_id)

    def launch(self, batch_id: str, manifest: str, compute: str = "default") -> str:
        self.crashes()
        if batch_id not in self.launched:
            self.launched.append(batch_id)
            path = Path(manifest)
            for order in from_json(Manifest, json.loads(path.read_text())).runs:
                result = self.place.load(order, batch_id)
                self.place.write(path.parent / "results" / f"{order.run_key}.json", to_json(result))
        self.crashes()
        return batch_id

    def state(self, launch_id: str) -> LaunchState:
        if launch_id in self.running:
            return LaunchState(LaunchStatus.RUNNING)
        return LaunchState(LaunchStatus.ENDED, "the engine ended without a result")

    def batch_of(self, launch_id: str) -> str | None:
        return launch_id if launch_id in self.launched else None

    def follow(self, launch_id: str, on_event: EventHandler) -> LaunchState:
        self.on_follow()
        return LaunchState(LaunchStatus.ENDED, "the engine ended without a result")

    def cancel(self, launch_id: str) -> None:
        self.running.discard(launch_id)


@dataclass
class World:
    """One machine: its folder, and processes that are started on it one after the other."""

    folder: Path
    opened: int = 0

    def app(self, crash_at: int | None = None) -> tuple[App, Crashes]:
        """A new process."""
        self.opened += 1
        number, crashes = self.opened, Crashes(crash_at)
        ids = iter(range(10_000))
        return App(
            Store(self.folder, crashes),
            Folder(self.folder / "runs", crashes),
            InProcess(Place(self.folder / "place", crashes), crashes),
            Retention(),
            lambda: datetime.now(UTC),
            lambda: f"{number}-{next(ids)}",
        ), crashes

    @property
    def place(self) -> Place:
        return Place(self.folder / "place")

    def has(self, rows: int) -> None:
        """Let the source hold the numbers up to `rows`."""
        self.place.folder.mkdir(parents=True, exist_ok=True)
        (self.place.folder / "source").write_text(str(rows))

    def run(self, *names: str, crash_at: int | None = None, kind: RunKind = RunKind.INCREMENTAL) -> list[RunResult]:
        app, _ = self.app(crash_at)
        return app.run([pipeline(name) for name in names or ("orders",)], CONNECTIONS, lambda _: None, kind)[0]

    def check_settled(self, name: str = "orders") -> None:
        """What must hold once a run has come to its end, whatever was before."""
        store = SqliteStore(self.folder)
        record, target = store.load(name).record, self.place.target(name)
        runs = store.runs(name, -1)
        assert target["rows"] == list(range(1, self.place.source() + 1))
        assert record.open_run is None
        assert record.pending == ()
        assert (record.epoch, record.generation) == (target["epoch"], target["generation"])
        assert record.watermark is not None
        assert int(record.watermark.value) == target["watermark"]
        assert not any(run.state.is_open for run in runs)
        counted = [run.counted_generation for run in runs if run.counted_generation is not None]
        assert len(set(counted)) == len(counted)
        assert set(counted) <= set(target["entries"].values())


def outcomes(results: Sequence[RunResult]) -> list[Outcome]:
    return [result.state for result in results]


def nothing(_: dict[str, Any]) -> None:
    """Takes an event and forgets it."""
