"""What every Queue does, embedded and on Service Bus. SQLite's clock is the test's; the broker's is the real one."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync_core.adapters.service_bus_queue import ServiceBusQueue
from sync_core.adapters.sqlite_queue import DELIVERIES, DUPLICATE_WINDOW, SqliteQueue
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.ports import Message, Queue
from tests.support.service_bus import ServiceBusBroker

PATIENCE = 60.0
"""Seconds after which a condition that did not come true is a failure."""


def wait_for[Found](look: Callable[[], Found | None]) -> Found:
    """What `look` finds, however long it takes."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.05)
    return found


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


@dataclass(frozen=True)
class Case:
    """An implementation with queues whose lock and duplicate window are short where they take real time."""

    queue: Queue
    name: str
    other: str
    lock: timedelta
    window: timedelta
    pass_by: Callable[[timedelta], None]

    def receive(self) -> Message:
        return wait_for(lambda: self.queue.receive(self.name, self.lock))

    def bodies(self, count: int, name: str = "") -> list[str]:
        """The next messages, completed; there are no more of them now."""
        found: list[str] = []
        for _ in range(count):
            message = wait_for(lambda: self.queue.receive(name or self.name, self.lock))
            found.append(message.body)
            self.queue.complete(message)
        assert self.queue.receive(name or self.name) is None
        return found


def sqlite_case(folder: Path) -> Case:
    clock = Clock()
    SqliteStore(folder)

    def pass_by(span: timedelta) -> None:
        clock.time += span

    return Case(SqliteQueue(folder, clock), "runs", "other", timedelta(minutes=1), DUPLICATE_WINDOW, pass_by)


@pytest.fixture(params=["sqlite", "service_bus"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Case]:
    if request.param == "sqlite":
        yield sqlite_case(tmp_path)
        return
    broker: ServiceBusBroker = request.getfixturevalue("service_bus")
    lock, window = timedelta(seconds=3), timedelta(seconds=10)
    settings = {"lock": lock.total_seconds(), "duplicate_window": window.total_seconds()}
    queue = ServiceBusQueue.for_local_server(broker.connection_string, timedelta(seconds=0.4))
    # Real time passes by itself: the tests wait for what it brings.
    yield Case(queue, broker.queue(**settings), broker.queue(**settings), lock, window, lambda _span: None)
    queue.close()


def test_messages_come_in_order_each_to_its_queue(case: Case) -> None:
    for key in ("a", "b", "c"):
        case.queue.send(case.name, key.upper(), key)
    case.queue.send(case.other, "X", "a")
    assert case.bodies(3) == ["A", "B", "C"]
    assert case.bodies(1, case.other) == ["X"]


def test_p21_a_key_sent_twice_is_delivered_once_even_after_its_end(case: Case) -> None:
    case.queue.send(case.name, "A", "a")
    case.queue.send(case.name, "again", "a")
    assert case.bodies(1) == ["A"]
    case.queue.send(case.name, "again", "a")
    assert case.queue.receive(case.name) is None
    case.pass_by(case.window)

    def sent_later() -> Message | None:
        case.queue.send(case.name, "later", "a")
        return case.queue.receive(case.name)

    later = wait_for(sent_later)
    assert (later.key, later.body) == ("a", "later")


def test_a_delayed_message_waits_and_is_delivered_once(case: Case) -> None:
    delay = case.lock
    case.queue.send(case.name, "A", "a", delay)
    case.queue.send(case.name, "A", "a", delay)
    case.queue.send(case.name, "B", "b")
    assert case.bodies(1) == ["B"]
    case.pass_by(delay)
    assert case.bodies(1) == ["A"]


def test_a_void_receipt_does_nothing(case: Case) -> None:
    case.queue.send(case.name, "A", "a")
    first = case.receive()
    assert (first.key, first.body, first.deliveries) == ("a", "A", 1)
    assert case.queue.receive(case.name) is None
    case.pass_by(case.lock)
    second = case.receive()
    assert second.deliveries == 2
    assert second.receipt != first.receipt
    for act in (
        case.queue.complete,
        case.queue.abandon,
        lambda one: case.queue.dead_letter(one, "its receipt is void"),
    ):
        act(first)
    assert case.queue.receive(case.name) is None
    assert case.queue.dead_letters(case.name) == []
    case.queue.complete(second)
    case.queue.complete(second)
    case.pass_by(case.lock)
    assert case.queue.receive(case.name) is None
    assert case.queue.dead_letters(case.name) == []


def test_a_message_stays_hidden_as_long_as_was_asked(case: Case) -> None:
    """On Service Bus: longer than the queue's own lock."""
    case.queue.send(case.name, "A", "a")
    asked = case.lock * 3
    started = datetime.now(UTC)
    message = wait_for(lambda: case.queue.receive(case.name, asked))
    case.pass_by(asked - timedelta(seconds=1))
    while datetime.now(UTC) < started + asked - timedelta(seconds=1) and isinstance(case.queue, ServiceBusQueue):
        assert case.queue.receive(case.name) is None
    case.queue.complete(message)
    case.pass_by(asked)
    assert case.queue.receive(case.name) is None


def test_an_abandoned_message_comes_again_at_once(case: Case) -> None:
    case.queue.send(case.name, "A", "a")
    case.queue.abandon(case.receive())
    message = case.receive()
    assert (message.body, message.deliveries) == ("A", 2)
    case.queue.complete(message)
    assert case.queue.receive(case.name) is None


def test_p21_a_message_is_dead_lettered_with_its_reason(case: Case) -> None:
    case.queue.send(case.name, "A", "a")
    case.queue.dead_letter(case.receive(), "No pipeline is named x.")
    case.pass_by(case.lock)
    assert case.queue.receive(case.name) is None
    dead = case.queue.dead_letters(case.name)
    assert [(one.queue, one.key, one.body, one.dead) for one in dead] == [
        (case.name, "a", "A", "No pipeline is named x.")
    ]
    assert case.queue.dead_letters(case.other) == []


def test_a_message_that_nobody_can_end_is_dead_lettered(case: Case) -> None:
    case.queue.send(case.name, "A", "a")
    for _ in range(DELIVERIES):
        case.queue.abandon(case.receive())
    assert case.queue.receive(case.name) is None
    assert [one.dead for one in case.queue.dead_letters(case.name)] == [
        "It was delivered 10 times and never brought to an end."
    ]


def test_p21_what_another_receiver_holds_is_rejected_once_for_each_key(case: Case) -> None:
    for name, body, key, reason in (
        (case.name, "{", "a", "The message is not JSON."),
        (case.name, "{", "a", "The message is not JSON."),
        (case.name, "[]", "b", "The message is not a JSON object."),
        (case.name, "x", "", "The message is not JSON."),
        (case.name, "y", "", "The message is not JSON."),
        (case.name, "y", "", "The message is not JSON."),
        (case.other, "{", "a", "It is wrong."),
    ):
        case.queue.reject(name, body, key, reason)
    dead = case.queue.dead_letters(case.name)
    assert [(one.queue, one.key, one.body, one.dead) for one in dead] == [
        (case.name, "a", "{", "The message is not JSON."),
        (case.name, "b", "[]", "The message is not a JSON object."),
        (case.name, "", "x", "The message is not JSON."),
        (case.name, "", "y", "The message is not JSON."),
    ]
    assert [one.dead for one in case.queue.dead_letters(case.other)] == ["It is wrong."]
    assert case.queue.receive(case.name) is None


def test_dead_letters_are_the_oldest_hundred_of_both_kinds(case: Case) -> None:
    case.queue.send(case.name, "first", "first")
    case.queue.dead_letter(case.receive(), "It is the first.")
    for number in range(105):
        case.queue.reject(case.name, str(number), f"key {number}", "It is wrong.")
    dead = case.queue.dead_letters(case.name)
    assert [one.body for one in dead] == ["first", *(str(number) for number in range(99))]


def test_what_was_put_aside_is_sent_again_and_nothing_else(case: Case) -> None:
    for key in ("a", "b"):
        case.queue.send(case.name, key.upper(), key)
    for _ in range(2):
        case.queue.dead_letter(case.receive(), "The channel is gone.")
    case.queue.reject(case.name, "C", "c", "The channel is gone.")
    case.queue.reject(case.other, "C", "c", "It is wrong.")
    assert case.queue.send_again(case.name, "b") == 1
    assert case.queue.send_again(case.name, "c") == 1
    assert sorted(case.bodies(2)) == ["B", "C"]
    assert case.queue.send_again(case.name, "b") == 0
    assert case.queue.send_again(case.name, "unknown") == 0
    assert [one.body for one in case.queue.dead_letters(case.name)] == ["A"]
    assert [one.dead for one in case.queue.dead_letters(case.other)] == ["It is wrong."]


def test_what_lies_beside_others_that_are_sent_again_is_never_lost(case: Case) -> None:
    """Service Bus hands out no message by its key: each call takes the others up too, and may do so ten times."""
    keys = [f"key {number}" for number in range(13)]
    for key in keys:
        case.queue.reject(case.name, key.upper(), key, "It is wrong.")
    for key in keys[1:]:
        assert case.queue.send_again(case.name, key) == 1
    assert [(one.key, one.dead) for one in case.queue.dead_letters(case.name)] == [("key 0", "It is wrong.")]
    assert case.queue.send_again(case.name, "key 0") == 1
    assert case.queue.dead_letters(case.name) == []
    assert sorted(case.bodies(13)) == sorted(key.upper() for key in keys)


def test_a_message_sent_again_may_be_put_aside_again(case: Case) -> None:
    case.queue.send(case.name, "A", "a")
    case.queue.dead_letter(case.receive(), "It is gone.")
    assert case.queue.send_again(case.name, "a") == 1
    again = case.receive()
    assert (again.body, again.deliveries) == ("A", 1)
    case.queue.dead_letter(again, "Still gone.")
    (dead,) = case.queue.dead_letters(case.name)
    assert (dead.body, dead.dead) == ("A", "Still gone.")
    assert case.queue.send_again(case.name, dead.key) == 1
    assert case.bodies(1) == ["A"]


def test_text_survives_and_long_keys_and_reasons_fit(case: Case) -> None:
    key, body = uuid.uuid4().hex * 4, '{"name": "Ærø 😀\\n"}'
    case.queue.send(case.name, body, key)
    message = case.receive()
    assert (message.key, message.body) == (key, body)
    case.queue.dead_letter(message, "It is wrong. " * 400)
    assert case.queue.dead_letters(case.name)[0].dead.startswith("It is wrong. It is wrong.")
    case.queue.reject(case.name, body, key + "2", "It is wrong. " * 400)
    assert case.queue.dead_letters(case.name)[1].dead.startswith("It is wrong. It is wrong.")


def test_two_receivers_never_hold_the_same_message(case: Case) -> None:
    for number in range(30):
        case.queue.send(case.name, str(number), str(number))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: case.queue.receive(case.name, timedelta(minutes=1)), range(36)))
    assert sorted(int(message.body) for message in found if message) == list(range(30))


def test_threads_share_one_queue(case: Case) -> None:
    def send(number: int) -> None:
        case.queue.send(case.name if number % 2 else case.other, str(number), str(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(40)))
    found = case.bodies(20) + case.bodies(20, case.other)
    assert sorted(int(body) for body in found) == list(range(40))
