"""Killed anywhere, an alert is delivered all the same, under the same id (P25)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.alert_delivery import (
    QUEUE,
    TRIED_FOR,
    backoff,
    deliver_alert,
    owe,
)
from sync_core.domain.connection import Channel
from sync_core.domain.errors import RetryableError
from sync_core.ports import Message
from tests.support.alert_worker import Worker, begin, ids, paths
from tests.support.alerts import AT, AlertQueue, Clock, notice, webhook
from tests.support.receiver import Answer, Receiver


def test_p25_killed_between_the_sink_and_the_end_of_the_message_it_is_delivered_again_with_the_same_id(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    begin(queue, notice())
    assert worker.take() is not None
    assert worker.work() == 0
    clock.pass_by(timedelta(minutes=1))
    assert worker.work() == 1
    assert paths(receiver) == ["/ops", "/team", "/ops", "/team"]
    assert ids(receiver) == {notice().notice_id}
    first, _, again, _ = receiver.received
    assert first.body == again.body


class Killed(BaseException):
    pass


class DyingQueue(AlertQueue):
    """Dies at its `dies_at`-th write, before or after it."""

    dies_at = 0
    after = False

    def _write(self, write: Any) -> None:
        self.dies_at -= 1
        if self.dies_at == 0 and not self.after:
            raise Killed
        write()
        if self.dies_at == 0:
            raise Killed

    def send(self, queue: str, body: str, key: str, delay: timedelta = timedelta()) -> None:
        self._write(lambda: AlertQueue.send(self, queue, body, key, delay))

    def reject(self, queue: str, body: str, key: str, reason: str) -> None:
        self._write(lambda: AlertQueue.reject(self, queue, body, key, reason))

    def complete(self, message: Message) -> None:
        self._write(lambda: AlertQueue.complete(self, message))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
def test_p25_killed_between_any_two_writes_the_end_is_the_same(
    tmp_path: Path, sink: ChannelSink, receiver: Receiver, clock: Clock, dies_at: int, after: bool
) -> None:
    """`a` takes it, `b` and `c` are busy at first, `d` refuses."""
    names = ("a", "b", "c", "d")
    channels = {name: webhook(receiver.url(f"/{name}"), name) for name in names}
    queue = DyingQueue(tmp_path, clock)
    begin(queue, notice())
    receiver.standing = {"/b": Answer(503), "/c": Answer(503), "/d": Answer(404)}
    queue.dies_at, queue.after = dies_at, after
    worker = Worker(queue, sink, channels, clock)
    with pytest.raises(Killed):
        worker.work()
    assert paths(receiver) == ["/a", "/b", "/c", "/d"]
    clock.pass_by(timedelta(minutes=1))
    worker.work()
    del receiver.standing["/b"], receiver.standing["/c"]
    while clock() < AT + timedelta(hours=2):
        worker.work()
        clock.pass_by(timedelta(seconds=30))
    assert {received.path for received in receiver.received if received.status == 204} == {"/a", "/b", "/c"}
    assert ids(receiver) == {notice().notice_id}
    assert [dead.dead.partition(":")[0] for dead in queue.dead_letters(QUEUE)] == ["d"]
    # The retries of a message that was taken twice are one.
    taken_again = 0 if dies_at == 4 and after else 1
    assert paths(receiver).count("/a") == 1 + taken_again
    assert [received.status for received in receiver.received if received.path == "/b"].count(204) == 1
    clock.pass_by(TRIED_FOR)
    assert worker.work() == 0


def test_two_workers_on_one_message_leave_one_retry(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [Answer(500), Answer(), Answer(500), Answer()]
    body = owe(notice()).body
    deliver_alert(queue, worker.sink, worker.channels, body, clock())
    deliver_alert(queue, worker.sink, worker.channels, body, clock() + timedelta(seconds=5))
    clock.pass_by(backoff(1))
    assert worker.work() == 1


def test_a_queue_that_cannot_be_written_leaves_the_message_as_it_was(
    tmp_path: Path, sink: ChannelSink, receiver: Receiver, channels: dict[str, Channel], clock: Clock
) -> None:
    class BrokenQueue(AlertQueue):
        def send(self, queue: str, body: str, key: str, delay: timedelta = timedelta()) -> None:
            raise RetryableError("queue.busy", "The queue is busy.")

    receiver.answers = [Answer(500)]
    with pytest.raises(RetryableError, match="queue is busy"):
        deliver_alert(BrokenQueue(tmp_path, clock), sink, channels, owe(notice()).body, clock())
