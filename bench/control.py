"""The control plane's own cost: a tick over many pipelines, and requests through the queue, on the embedded store.

Ten times the pipelines should cost ten times as much, no more: that ratio is the figure to watch.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sync_core.adapters.sqlite_queue import SqliteQueue
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, Source, Target
from sync_core.domain.run import PipelineRecord
from sync_core.domain.schedule import Cron, Every
from sync_core.domain.watermark import CursorType
from sync_core.tick import tick

NOW = datetime(2026, 1, 5, 12, 0, 30, tzinfo=UTC)
SCHEDULES = [Every(900), Every(3600), *(Cron(f"{minute} * * * *", "Europe/Oslo") for minute in range(48))]
MESSAGES = 2000
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it
"""A disk in memory where there is one: our own code is measured, not the disk."""


def pipelines(number: int) -> dict[str, Pipeline]:
    """Pipelines on fifty schedules."""
    cursor = Cursor("at", CursorType.TIMESTAMP)
    names = [f"p{index:06}" for index in range(number)]
    return {
        name: Pipeline(
            name, Source("pg", name), Target("lake", name), LoadMode.INCREMENTAL, cursor,
            schedule=SCHEDULES[index % len(SCHEDULES)],
        )
        for index, name in enumerate(names)
    }  # fmt: skip


def measure_tick(number: int) -> float:
    """Seconds of one tick that finds nothing due, which is what nearly every tick is."""
    folder = Path(tempfile.mkdtemp(prefix="uds-bench-", dir=MEMORY))
    try:
        known, store, queue = pipelines(number), SqliteStore(folder), SqliteQueue(folder, lambda: NOW)
        for name in known:
            store.save(store.load(name), PipelineRecord(name, last_slot=NOW + timedelta(hours=2)))
        best = min(_timed(known, store, queue) for _ in range(3))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return best


def _timed(known: dict[str, Pipeline], store: SqliteStore, queue: SqliteQueue) -> float:
    begun = time.perf_counter()
    found = tick(store, queue, known, (), NOW)
    seconds = time.perf_counter() - begun
    if found:
        raise RuntimeError("nothing was to be due")
    return seconds


def measure_queue() -> tuple[float, float]:
    """Messages a second through the queue, sent and handled, in two lots: the second must not be slower."""
    folder = Path(tempfile.mkdtemp(prefix="uds-bench-", dir=MEMORY))
    try:
        queue, rates = SqliteQueue(folder, lambda: NOW), list[float]()
        for lot in range(2):
            begun = time.perf_counter()
            for number in range(MESSAGES):
                queue.send("sync-requests", "{}", f"{lot} {number}")
            while (message := queue.receive("sync-requests")) is not None:
                queue.complete(message)
            rates.append(MESSAGES / (time.perf_counter() - begun))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rates[0], rates[1]


def main(small: int, factor: int) -> None:
    """Print the figures."""
    few, many = measure_tick(small), measure_tick(small * factor)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"tick: {small * factor:,} pipelines cost {many / few:.1f} × what {small:,} do "
        f"({few:.2f} s and {many:.2f} s here; {memory} MiB at most)",
        flush=True,
    )
    first, second = measure_queue()
    print(f"queue: the second {MESSAGES:,} messages take {first / second:.2f} × the first ({second:.0f} a second here)")
