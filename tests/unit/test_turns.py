"""Whose turn it is, with real threads."""

from __future__ import annotations

import threading

import pytest

from spark_entry.turns import Turns

WAIT = 30


class Busy:
    """Work that lasts until it is let go, and knows how many did the same at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self._changing = threading.Lock()
        self.now = self.most = 0

    def __call__(self) -> str:
        with self._changing:
            self.now += 1
            self.most = max(self.most, self.now)
        self.begun.release()
        assert self.go.wait(WAIT)
        with self._changing:
            self.now -= 1
        return "done"


def test_a_limited_connection_serves_no_more_than_it_may_and_keeps_no_other_waiting() -> None:
    limited, free = Busy(), Busy()
    with Turns(4, {"pg": 2}) as turns:
        futures = [turns.add(lambda: ("lake", "pg"), limited) for _ in range(6)]
        others = [turns.add(lambda: ("lake",), free) for _ in range(2)]
        for busy in (limited, limited, free, free):
            assert busy.begun.acquire(timeout=WAIT), "somebody waits in vain"
        assert limited.now == 2
        free.go.set()
        limited.go.set()
        assert {future.result(WAIT) for future in (*futures, *others)} == {"done"}
    assert limited.most == 2


def test_two_limited_connections_in_either_order_never_block_each_other() -> None:
    busy = Busy()
    busy.go.set()
    with Turns(8, {"a": 1, "b": 1}) as turns:
        futures = [turns.add(lambda i=i: ("a", "b") if i % 2 else ("b", "a"), busy) for i in range(200)]
        assert {future.result(WAIT) for future in futures} == {"done"}
    assert busy.most == 1


def test_no_more_jobs_at_once_than_threads() -> None:
    busy = Busy()
    with Turns(3, {}) as turns:
        futures = [turns.add(lambda: (), busy) for _ in range(9)]
        for _ in range(3):
            assert busy.begun.acquire(timeout=WAIT)
        busy.go.set()
        assert len([future.result(WAIT) for future in futures]) == 9
    assert busy.most == 3


def test_a_job_that_needs_less_by_now_gets_its_turn() -> None:
    busy, needs = Busy(), ["pg"]
    with Turns(4, {"pg": 1}) as turns:
        first = turns.add(lambda: ("pg",), busy)
        second = turns.add(lambda: tuple(needs), lambda: "second")
        assert busy.begun.acquire(timeout=WAIT)
        assert not second.done()
        needs.clear()
        turns.give()
        assert second.result(WAIT) == "second"
        busy.go.set()
        assert first.result(WAIT) == "done"


def test_what_a_job_raises_is_its_own_and_frees_its_connections() -> None:
    class Killed(BaseException):
        pass

    def fail() -> None:
        raise Killed

    with Turns(1, {"pg": 1}) as turns:
        failed = turns.add(lambda: ("pg",), fail)
        after = turns.add(lambda: ("pg",), lambda: "after")
        assert after.result(WAIT) == "after"
    with pytest.raises(Killed):
        failed.result(WAIT)
