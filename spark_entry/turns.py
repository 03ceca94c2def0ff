"""Whose turn it is: at most so many jobs at once, and on each limited connection no more than it may serve."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Needs = Callable[[], Iterable[str]]
"""The connections that a job needs by now; asked again each time that turns are given."""


@dataclass(frozen=True)
class _Job:
    needs: Needs
    work: Callable[[], Any]
    future: Future[Any]


class Turns:
    """Runs jobs in threads of its own, in the order they came, those that must wait for a connection later.

    A job gets all its connections in one step or none, so that two jobs never wait for each other, and it occupies
    no thread while it waits. As a context it is left when every job is done.
    """

    def __init__(self, threads: int, limits: Mapping[str, int]) -> None:
        self._threads = threads
        self._limits = limits
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="uds-run")
        self._changing = threading.Lock()
        self._waiting: list[_Job] = []
        self._running = 0
        self._held: Counter[str] = Counter()
        self._idle = threading.Condition(self._changing)

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *_: object) -> None:
        with self._idle:
            self._idle.wait_for(lambda: not self._waiting and not self._running)
        self._pool.shutdown()

    def add[T](self, needs: Needs, work: Callable[[], T]) -> Future[T]:
        """Run `work` when its turn comes; the future holds what it returns or raises."""
        future: Future[T] = Future()
        with self._changing:
            self._waiting.append(_Job(needs, work, future))
        self.give()
        return future

    def give(self) -> None:
        """Let every job begin that can; to be called when the needs of one have changed."""
        with self._changing:
            for job in tuple(self._waiting):
                if self._running == self._threads:
                    return
                needed = frozenset(job.needs()) & self._limits.keys()
                if all(self._held[name] < self._limits[name] for name in needed):
                    self._waiting.remove(job)
                    self._running += 1
                    self._held.update(needed)
                    self._pool.submit(self._run, job, needed)

    def _run(self, job: _Job, held: frozenset[str]) -> None:
        try:
            result = job.work()
        except BaseException as error:
            outcome, raised = None, error
        else:
            outcome, raised = result, None
        with self._idle:
            self._running -= 1
            self._held.subtract(held)
            self._idle.notify_all()
        self.give()
        if raised is not None:
            job.future.set_exception(raised)
        else:
            job.future.set_result(outcome)
