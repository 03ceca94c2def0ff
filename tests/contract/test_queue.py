"""What every Queue does. The clock is the test's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync_core.adapters.sqlite_queue import DELIVERIES, DUPLICATE_WINDOW, SqliteQueue
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.ports import Queue

LOCK = timedelta(minutes=1)


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def pass_by(self, time: timedelta) -> None:
        self.time += time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Queue:
    make: dict[str, Callable[[], Queue]] = {"sqlite": lambda: SqliteQueue(tmp_path, clock)}
    SqliteStore(tmp_path)
    return make[request.param]()


def bodies(queue: Queue, name: str = "runs") -> list[str]:
    found: list[str] = []
    while (message := queue.receive(name)) is not None:
        found.append(message.body)
        queue.complete(message)
    return found


def test_messages_come_in_order_each_to_its_queue(queue: Queue) -> None:
    for key in ("a", "b", "c"):
        queue.send("runs", key.upper(), key)
    queue.send("other", "X", "a")
    assert bodies(queue) == ["A", "B", "C"]
    assert bodies(queue, "other") == ["X"]
    assert queue.receive("runs") is None


def test_p21_a_key_sent_twice_is_delivered_once_even_after_its_end(queue: Queue, clock: Clock) -> None:
    queue.send("runs", "A", "a")
    queue.send("runs", "again", "a")
    assert bodies(queue) == ["A"]
    queue.send("runs", "again", "a")
    assert bodies(queue) == []
    clock.pass_by(DUPLICATE_WINDOW)
    queue.send("runs", "later", "a")
    assert bodies(queue) == ["later"]


def test_a_delayed_message_waits(queue: Queue, clock: Clock) -> None:
    queue.send("runs", "A", "a", timedelta(minutes=5))
    assert queue.receive("runs") is None
    clock.pass_by(timedelta(minutes=5))
    assert bodies(queue) == ["A"]


def test_a_received_message_is_hidden_until_its_lock_is_over(queue: Queue, clock: Clock) -> None:
    queue.send("runs", "A", "a")
    first = queue.receive("runs", LOCK)
    assert first is not None
    assert first.deliveries == 1
    assert queue.receive("runs", LOCK) is None
    clock.pass_by(LOCK)
    second = queue.receive("runs", LOCK)
    assert second is not None
    assert second.deliveries == 2
    queue.complete(first)
    queue.abandon(first)
    queue.dead_letter(first, "its receipt is void")
    assert queue.receive("runs") is None
    queue.complete(second)
    clock.pass_by(LOCK)
    assert queue.receive("runs") is None
    assert queue.dead_letters("runs") == []


def test_an_abandoned_message_comes_again_at_once(queue: Queue) -> None:
    queue.send("runs", "A", "a")
    message = queue.receive("runs")
    assert message is not None
    queue.abandon(message)
    assert bodies(queue) == ["A"]


def test_p21_a_message_is_dead_lettered_with_its_reason(queue: Queue, clock: Clock) -> None:
    queue.send("runs", "A", "a")
    message = queue.receive("runs")
    assert message is not None
    queue.dead_letter(message, "No pipeline is named x.")
    clock.pass_by(LOCK)
    assert queue.receive("runs") is None
    assert [(dead.key, dead.body, dead.dead) for dead in queue.dead_letters("runs")] == [
        ("a", "A", "No pipeline is named x.")
    ]


def test_a_message_that_nobody_can_end_is_dead_lettered(queue: Queue, clock: Clock) -> None:
    queue.send("runs", "A", "a")
    for _ in range(DELIVERIES):
        assert queue.receive("runs", LOCK) is not None
        clock.pass_by(LOCK)
    assert queue.receive("runs") is None
    assert "10 times" in queue.dead_letters("runs")[0].dead


def test_two_receivers_never_hold_the_same_message(queue: Queue) -> None:
    for number in range(30):
        queue.send("runs", str(number), str(number))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: queue.receive("runs"), range(40)))
    assert sorted(int(message.body) for message in found if message) == list(range(30))
