"""Runs that must end before they are done: asked to stop by a file, over their time limit, or ended with the engine.

One thread a batch looks for all of them. What a run has in progress is interrupted: the Spark jobs of its session, and
statements by the adapters that hold connections. Between two of these it finds out by itself (`StopSignal.check`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pyspark.sql import SparkSession

from spark_entry.events import write_event
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.domain.run import RunOrder

LOG = logging.getLogger("uds.engine")

POLL_SECONDS = 2.0
"""How often requests are looked for, and a run that goes on in spite of one is interrupted again."""

REPORT_SECONDS = 60.0
"""How long a run that was stopped may take to read its ledger, before that is interrupted as well."""


class RunStopped(PermanentError):
    """Somebody asked for it: the run is cancelled, and nothing is to be done."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "run.stopped",
            f"Pipeline {name}: the run was stopped on request and committed nothing.",
            "Run it again when it is wanted: it goes on where the last committed run ended.",
        )


class EngineStopped(RetryableError):
    """The engine was told to end: the run is cancelled, and may be run again at once."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "engine.stopped",
            f"Pipeline {name}: the engine was told to end before the run had committed.",
            "Run it again: it goes on where the last committed run ended.",
        )


class RunTimeout(RetryableError):
    """It ran longer than its pipeline allows."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(
            "run.timeout",
            f"Pipeline {name}: the run reached its limit of {_duration(seconds)} (timeout) and was stopped.",
            "Raise timeout, or read the source in more partitions (read: partitions).",
        )


class Interruptible(Protocol):
    """What may be at work for a run in another thread."""

    def interrupt(self) -> None:
        """Make what is in progress fail soon. Never raises, may be called again."""
        ...


class StopSignal:
    """Whether one run must stop, and what is at work for it. `reason` never changes once it is set."""

    def __init__(self, order: RunOrder, batch_id: str = "") -> None:
        self.batch_id = batch_id
        self.run_key = order.run_key
        self.name = order.pipeline.pipeline_id
        self.asked = threading.Event()
        self.reason: SyncError | None = None
        self._limit = order.pipeline.timeout_seconds
        self._changing = threading.Lock()
        self._deadline: float | None = None
        self._spared_until = 0.0
        self._session: SparkSession | None = None
        self._workers: list[Interruptible] = []

    @contextmanager
    def running(self) -> Generator[None]:
        """The time limit counts, and what is attached may be interrupted, while the block lasts."""
        with self._changing:
            self._deadline = None if self._limit is None else time.monotonic() + self._limit
            self._spared_until = 0.0
        try:
            yield
        finally:
            with self._changing:
                self._session, self._deadline = None, None
                self._workers.clear()

    def attach(self, session: SparkSession) -> None:
        """The session that all Spark jobs of the run are started in, and no other's."""
        with self._changing:
            self._session = session

    def attach_worker(self, worker: Interruptible) -> None:
        """One more that may be at work for the run."""
        with self._changing:
            self._workers.append(worker)

    def check(self) -> None:
        """Raises the reason when the run must stop."""
        if self.reason is not None:
            raise self.reason

    def end(self) -> None:
        """The run has come to its end, one way or another: what follows reads the ledger, and is spared for a while."""
        with self._changing:
            self._deadline = None
            self._spared_until = time.monotonic() + REPORT_SECONDS

    def stop(self, reason: SyncError) -> None:
        """Ask the run to stop; the first reason stays."""
        with self._changing:
            self._take(reason)
        self.press()

    def press(self) -> None:
        """Stop a run that is over its limit; interrupt whatever a run that must stop has in progress."""
        with self._changing:
            now = time.monotonic()
            if self.reason is None and self._deadline is not None and now >= self._deadline:
                self._take(RunTimeout(self.name, self._limit or 0.0))
            if self.reason is None or now < self._spared_until:
                return
            # Within the lock: once `end` has returned, no interruption is on its way that would hit the report.
            try:
                for worker in self._workers:
                    worker.interrupt()
                if self._session is not None:
                    # Not interruptTag: a session's tags are those of the calling thread, from Spark 4.0 on.
                    self._session.interruptAll()
            except Exception:
                LOG.warning("what %s has in progress could not be interrupted", self.name, exc_info=True)

    def _take(self, reason: SyncError) -> None:
        if self.reason is None:
            self.reason = reason
            self.asked.set()
            write_event(
                "run.stopping", pipeline=self.name, run_key=self.run_key, batch_id=self.batch_id, code=reason.code
            )

    def seconds_left(self) -> float | None:
        """Until the time limit; None when there is none, or it has been seen to already."""
        with self._changing:
            if self._deadline is None or self.reason is not None:
                return None
            return max(0.0, self._deadline - time.monotonic())


class Stops:
    """Looks after the runs of one batch while it is open. `folder`: where a file named like a run asks it to stop."""

    def __init__(
        self, folder: Path | None, batch_id: str, orders: Iterable[RunOrder], on_change: Callable[[], None]
    ) -> None:
        self.signals: Mapping[str, StopSignal] = {order.run_key: StopSignal(order, batch_id) for order in orders}
        self._folder = folder
        self._on_change = on_change
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="uds-stops", daemon=True)

    def __enter__(self) -> Stops:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def stop_all(self) -> None:
        """The engine must end: every run stops."""
        for signal in self.signals.values():
            signal.stop(EngineStopped(signal.name))
        self._on_change()

    def look(self) -> None:
        """Take in the requests that are there, and see to it that runs which must stop do."""
        asked = requests(self._folder) if self._folder else frozenset[str]()
        before = sum(signal.asked.is_set() for signal in self.signals.values())
        for key, signal in self.signals.items():
            if key in asked and signal.reason is None:
                signal.stop(RunStopped(signal.name))
            else:
                signal.press()
        if sum(signal.asked.is_set() for signal in self.signals.values()) > before:
            self._on_change()

    def _watch(self) -> None:
        while not self._closing.wait(self._pause()):
            self.look()

    def _pause(self) -> float:
        left = [signal.seconds_left() for signal in self.signals.values()]
        return min([POLL_SECONDS, *[seconds for seconds in left if seconds is not None]])


def requests(folder: Path) -> frozenset[str]:
    """The run keys that are asked to stop in a batch's `stop` folder. One that cannot be read now is read next time."""
    try:
        return frozenset(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return frozenset()
    except OSError:
        LOG.warning("%s cannot be read", folder, exc_info=True)
        return frozenset()


def _duration(seconds: float) -> str:
    """`90 s`, `2 h 30 min`."""
    whole = round(seconds)
    if whole < 120:
        return f"{seconds:g} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes) + [f"{whole % 60} s"] * bool(whole % 60)
    return " ".join(parts)
