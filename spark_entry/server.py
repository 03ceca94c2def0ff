"""Batches in one process that stays: told by lines, locked, logged and ended as if each had a process of its own.

How rows are moved is the runner's; nothing here needs Spark.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from spark_entry.events import BatchFiles
from spark_entry.stops import requests

LOG = logging.getLogger("uds.engine")

AT_ONCE = 2
"""Batches that run at the same time; others wait for one of them."""

POLL_SECONDS = 0.5

LOG_KEPT = 1_048_576
"""Bytes of the process's log that are kept as the log of one batch: the last ones."""

_LINE = 65_536


class Runner(Protocol):
    """Runs batches."""

    def run(self, manifest: Path, lock: int, begun: Callable[[Callable[[], None]], None]) -> None:
        """Run one; returns when all results are written. Tells `begun` how to stop it, from any thread, at once.

        `lock` is the file descriptor that a process of its own, which outlives this one, must hold as well.
        """
        ...

    def is_well(self) -> bool:
        """Whether another batch can be run in this process."""
        ...


@dataclass
class Task:
    """A batch that was asked for. `lock` came with it; None: to be taken here."""

    manifest: Path
    lock: int | None
    stop: Callable[[], None] | None = None
    thread: threading.Thread | None = None

    @property
    def folder(self) -> Path:
        return self.manifest.parent


@dataclass
class Orders:
    """Lines of standard input: `{"manifest": path}`.

    Where it is a socket, a line with `"lock": true` brings the open `engine.lock` of the batch, held already, so that
    there is no moment at which nobody holds it.
    """

    descriptor: int
    ended: bool = False
    _rest: bytes = b""
    _locks: deque[int] = field(default_factory=deque[int])

    def read(self) -> list[Task]:
        """What has come, waiting for the first of it."""
        if stat.S_ISSOCK(os.fstat(self.descriptor).st_mode):
            with socket.socket(fileno=os.dup(self.descriptor)) as source:
                data, locks, _, _ = socket.recv_fds(source, _LINE, 32)
            for lock in locks:
                os.set_inheritable(lock, False)
            self._locks.extend(locks)
        else:
            data = os.read(self.descriptor, _LINE)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [task for task in map(self._task, lines) if task is not None]

    def _task(self, line: bytes) -> Task | None:
        try:
            order: dict[str, Any] = json.loads(line)
            return Task(Path(order["manifest"]), self._locks.popleft() if order.get("lock") else None)
        except (ValueError, KeyError, TypeError, IndexError):
            LOG.exception("this line is no order: %r", line[:500])
            return None


class Server:
    """Takes orders until they end, and answers each batch that is done with `{"done": batch_id}`.

    `log` is the file that this process's standard error goes to, None when nobody keeps it.
    """

    def __init__(self, runner: Runner, events: BatchFiles, answers: TextIO, log: Path | None) -> None:
        self._runner = runner
        self._events = events
        self._answers = answers
        self._log = log
        self._changing = threading.Lock()
        self._turns = threading.Semaphore(AT_ONCE)
        self._tasks: list[Task] = []
        self._ending = threading.Event()

    def end(self) -> None:
        """Begin no more batches, stop those that run, then return from `serve`. May be called by a signal's handler."""
        self._ending.set()

    def serve(self, descriptor: int) -> int:
        """Serve until standard input ends, or `end`. Returns the exit status: 1 when the runner is not well any more."""
        orders = Orders(descriptor)
        while not (orders.ended or self._ending.is_set() or not self._runner.is_well()):
            if select.select([descriptor], [], [], POLL_SECONDS)[0]:
                for task in orders.read():
                    self._begin(task)
        well = self._runner.is_well()
        if not well:
            LOG.error("Spark has died: the engine ends, and is started again for the next batch")
            self.end()
        while (running := self._running()) is not None:
            if self._ending.is_set():
                self._stop_all()
            running.join(POLL_SECONDS)
        return 0 if well else 1

    def _begin(self, task: Task) -> None:
        task.thread = threading.Thread(target=self._run, args=(task,), name=f"uds-batch-{task.folder.name[:12]}")
        with self._changing:
            self._tasks.append(task)
        task.thread.start()

    def _running(self) -> threading.Thread | None:
        with self._changing:
            return self._tasks[0].thread if self._tasks else None

    def _stop_all(self) -> None:
        with self._changing:
            stops = [task.stop for task in self._tasks if task.stop is not None]
        for stop in stops:
            stop()

    def _run(self, task: Task) -> None:
        lock = -1
        try:
            lock = take_lock(task.folder) if task.lock is None else task.lock
            has_turn = self._wait_for_turn(task)
            try:
                if has_turn is not None:
                    self._run_now(task, lock)
            finally:
                if has_turn:
                    self._turns.release()
        except Exception:
            LOG.exception("batch %s failed", task.folder.name)
        finally:
            if lock >= 0:
                os.close(lock)
            self._answer(task)
            with self._changing:
                self._tasks.remove(task)
                if not self._tasks and self._log is not None and self._log.exists():
                    # Each batch has its part; what is appended goes on from the beginning.
                    os.truncate(self._log, 0)

    def _answer(self, task: Task) -> None:
        with suppress(OSError), self._changing:
            # Whoever waited for the answer may be gone.
            self._answers.write(json.dumps({"done": task.folder.name}) + "\n")
            self._answers.flush()

    def _wait_for_turn(self, task: Task) -> bool | None:
        """True when it is this batch's turn, False when it needs none, None when there will be none any more."""
        while not self._turns.acquire(timeout=POLL_SECONDS):
            if self._ending.is_set():
                return None
            if is_asked_to_stop(task.manifest):
                return False
        if self._ending.is_set():
            self._turns.release()
            return None
        return True

    def _run_now(self, task: Task, lock: int) -> None:
        def begun(stop: Callable[[], None]) -> None:
            task.stop = stop
            if self._ending.is_set():
                stop()

        folder = task.folder
        with own_log(folder, self._log), self._events.writing(folder.name, folder / "events.jsonl"):
            try:
                self._runner.run(task.manifest, lock, begun)
            except Exception:
                # Within the batch's own log, where the cause of its end is looked for.
                LOG.exception("batch %s failed", folder.name)


def take_lock(folder: Path) -> int:
    """Hold the batch's `engine.lock`, as long as the descriptor is open. Raises BlockingIOError when it is running."""
    lock = os.open(folder / "engine.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def is_asked_to_stop(manifest: Path) -> bool:
    """Whether every run of a batch that has not begun is asked to stop: it can be answered at once."""
    asked = requests(manifest.parent / "stop")
    if not asked:
        return False
    try:
        return {str(run["run_key"]) for run in json.loads(manifest.read_text(encoding="utf-8"))["runs"]} <= asked
    except (OSError, ValueError, KeyError, TypeError):
        # Its own turn will tell what is wrong with it.
        return False


@contextmanager
def own_log(folder: Path, shared: Path | None) -> Generator[None]:
    """The batch's `engine.log`: the process's whole log while it runs and if it dies, its own part once it is done."""
    own = folder / "engine.log"
    if shared is None or not shared.exists():
        yield
        return
    begin = shared.stat().st_size
    with suppress(FileExistsError):
        own.hardlink_to(shared)
    try:
        yield
    finally:
        # Gone when nobody wants the process's log any more; then `own` is what is left of it.
        with suppress(FileNotFoundError), shared.open("rb") as file:
            file.seek(max(begin, shared.stat().st_size - LOG_KEPT))
            part = file.read()
            temporary = own.with_suffix(".tmp")
            temporary.write_bytes(part)
            temporary.replace(own)
