"""Notices reach their channels through the queue: real queue, real receivers, the test's clock (P25)."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.adapters.webhook_sink import WebhookSink
from sync_core.alert_delivery import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    QUEUE,
    TRIED_FOR,
    Delivery,
    addressees,
    backoff,
    decode,
    deliver,
    deliver_alert,
    encode,
    key_of,
    owe,
    pause_before,
)
from sync_core.domain.alert import Condition, Notice, Phase
from sync_core.domain.connection import Channel
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.ports import Message
from tests.support.alerts import AT, KEY, AlertQueue, Clock, notice, now, secrets, webhook
from tests.support.receiver import Answer, Receiver


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> AlertQueue:
    return AlertQueue(tmp_path, clock)


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def sink() -> Generator[ChannelSink]:
    opened = WebhookSink(secrets(KEY), "/test", now, 0.3)
    yield ChannelSink({"webhook": opened})
    opened.close()


@pytest.fixture
def channels(receiver: Receiver) -> dict[str, Channel]:
    """Two channels of one receiver, told apart by their path."""
    return {name: webhook(receiver.url(f"/{name}"), name) for name in ("ops", "team")}


class Worker:
    """Takes messages as the shell does: completed, or dead-lettered when they cannot be understood."""

    def __init__(self, queue: AlertQueue, sink: ChannelSink, channels: dict[str, Channel], clock: Clock) -> None:
        self.queue, self.sink, self.channels, self.clock = queue, sink, channels, clock

    def take(self) -> Message | None:
        """The next message is taken and handled, but not brought to an end."""
        message = self.queue.receive(QUEUE)
        if message is not None:
            deliver_alert(self.queue, self.sink, self.channels, message.body, self.clock())
        return message

    def work(self) -> int:
        """All that is due; returns how many messages."""
        done = 0
        while (message := self.take()) is not None:
            self.queue.complete(message)
            done += 1
        return done


@pytest.fixture
def worker(queue: AlertQueue, sink: ChannelSink, channels: dict[str, Channel], clock: Clock) -> Worker:
    return Worker(queue, sink, channels, clock)


def begin(queue: AlertQueue, sent: Notice) -> None:
    entry = owe(sent)
    queue.send(entry.queue, entry.body, entry.key)


def paths(receiver: Receiver) -> list[str]:
    return [received.path for received in receiver.received]


def ids(receiver: Receiver) -> set[str]:
    for received in receiver.received:
        Webhook(KEY).verify(received.body, dict(received.headers))
    return {received.headers["webhook-id"] for received in receiver.received}


def test_p25_every_channel_is_told_once(queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock) -> None:
    begin(queue, notice())
    begin(queue, notice())
    assert worker.work() == 1
    clock.pass_by(TRIED_FOR)
    assert worker.work() == 0
    assert paths(receiver) == ["/ops", "/team"]
    assert queue.dead_letters(QUEUE) == []


@pytest.mark.parametrize("answer", [Answer(500), Answer(429), Answer(503), Answer(hangs=True)])
def test_p25_a_channel_that_failed_is_told_again_alone(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock, answer: Answer
) -> None:
    receiver.answers = [answer, Answer(), answer]
    begin(queue, notice())
    worker.work()
    assert paths(receiver) == ["/ops", "/team"]
    clock.pass_by(backoff(1) - timedelta(seconds=1))
    assert worker.work() == 0
    clock.pass_by(timedelta(seconds=1))
    assert worker.work() == 1
    clock.pass_by(backoff(1))
    assert worker.work() == 0
    clock.pass_by(backoff(2) - backoff(1))
    assert worker.work() == 1
    clock.pass_by(TRIED_FOR)
    assert worker.work() == 0
    assert paths(receiver) == ["/ops", "/team", "/ops", "/ops"]
    assert ids(receiver) == {notice().notice_id}


def test_p25_channels_that_fail_wait_each_for_itself(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [Answer(503, {"Retry-After": "600"}), Answer(500)]
    begin(queue, notice())
    worker.work()
    clock.pass_by(backoff(1))
    worker.work()
    assert paths(receiver) == ["/ops", "/team", "/team"]
    clock.pass_by(timedelta(minutes=10) - backoff(1))
    worker.work()
    assert paths(receiver) == ["/ops", "/team", "/team", "/ops"]


def test_p25_a_receiver_that_is_down_for_two_days_loses_nothing(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    receiver.stop()
    sent = [notice(notice_id=f"{number:032x}") for number in range(3)]
    for one in sent:
        begin(queue, one)
    while clock() < AT + timedelta(days=2):
        worker.work()
        clock.pass_by(timedelta(minutes=30))
    receiver.start()
    clock.pass_by(LONGEST_PAUSE)
    worker.work()
    assert sorted(paths(receiver)) == ["/ops"] * 3 + ["/team"] * 3
    assert ids(receiver) == {one.notice_id for one in sent}
    clock.pass_by(TRIED_FOR)
    assert worker.work() == 0
    assert queue.dead_letters(QUEUE) == []


def test_p25_after_three_days_it_lies_with_the_dead_letters_and_can_be_sent_again(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    del worker.channels["team"]
    receiver.otherwise = Answer(500)
    begin(queue, notice())
    while not queue.dead_letters(QUEUE):
        worker.work()
        clock.pass_by(timedelta(minutes=10))
        assert clock() < AT + timedelta(days=4)
    assert clock() > AT + TRIED_FOR - LONGEST_PAUSE
    (dead,) = queue.dead_letters(QUEUE)
    assert "3 days" in dead.dead
    assert "answered 500" in dead.dead
    clock.pass_by(TRIED_FOR)
    assert worker.work() == 0
    # A person sends it again, the receiver is still away for a while: it has its three days anew.
    before = len(receiver.received)
    queue.send(QUEUE, dead.body, "again")
    worker.work()
    clock.pass_by(backoff(1))
    receiver.otherwise = Answer()
    assert worker.work() == 1
    assert len(receiver.received) == before + 2
    assert ids(receiver) == {notice().notice_id}


def test_a_channel_that_refuses_is_given_up_with_its_reason(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [Answer(404)]
    begin(queue, notice())
    worker.work()
    clock.pass_by(TRIED_FOR)
    assert worker.work() == 0
    assert paths(receiver) == ["/ops", "/team"]
    (dead,) = queue.dead_letters(QUEUE)
    assert dead.dead.startswith("ops: Alert channel ops: 127.0.0.1 answered 404.")
    assert "url" in dead.dead
    assert "alert.given_up" in caplog.text
    # Mended and sent again by a person, with a failure in between, right away: nothing is taken for a duplicate.
    receiver.answers = [Answer(500)]
    queue.send(QUEUE, dead.body, "again")
    worker.work()
    clock.pass_by(backoff(1))
    assert worker.work() == 1
    assert paths(receiver) == ["/ops", "/team", "/ops", "/ops"]


def test_a_retry_that_is_refused_and_sent_again_at_once_is_not_taken_for_a_duplicate(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    del worker.channels["team"]
    receiver.answers = [Answer(500), Answer(404)]
    begin(queue, notice())
    worker.work()
    clock.pass_by(backoff(1))
    worker.work()
    (dead,) = queue.dead_letters(QUEUE)
    receiver.answers = [Answer(500), Answer(404)]
    queue.send(QUEUE, dead.body, "again")
    worker.work()
    clock.pass_by(backoff(1))
    worker.work()
    assert len(receiver.received) == 4
    assert len(queue.dead_letters(QUEUE)) == 2


def test_a_notice_given_up_twice_by_a_message_taken_twice_is_one_dead_letter(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    receiver.otherwise = Answer(404)
    begin(queue, notice())
    worker.take()
    clock.pass_by(timedelta(minutes=1))
    worker.work()
    assert [dead.dead.partition(":")[0] for dead in queue.dead_letters(QUEUE)] == ["ops", "team"]


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


# Who is told.


def test_a_notice_goes_to_the_channels_it_names_and_to_no_other(
    queue: AlertQueue, worker: Worker, receiver: Receiver
) -> None:
    worker.channels["ops"] = replace(worker.channels["ops"], conditions=("stale",))
    begin(queue, notice(channels=("ops", "ops")))
    worker.work()
    assert paths(receiver) == ["/ops"]


def test_a_notice_that_names_none_goes_to_those_whose_conditions_match(
    queue: AlertQueue, worker: Worker, receiver: Receiver
) -> None:
    worker.channels["ops"] = replace(worker.channels["ops"], conditions=("stale", "dead_letters"))
    begin(queue, notice(condition=Condition.FAILED))
    worker.work()
    begin(queue, notice(notice_id="2", condition=Condition.STALE))
    worker.work()
    assert paths(receiver) == ["/team", "/ops", "/team"]


def test_a_channel_that_is_not_known_is_given_up_and_the_others_are_told(
    queue: AlertQueue, worker: Worker, receiver: Receiver
) -> None:
    begin(queue, notice(channels=("pager", "team")))
    worker.work()
    assert paths(receiver) == ["/team"]
    (dead,) = queue.dead_letters(QUEUE)
    assert "No alert channel is named pager." in dead.dead


def test_a_channel_that_is_removed_while_it_is_owed_is_given_up_aloud(
    queue: AlertQueue, worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [Answer(500)]
    begin(queue, notice())
    worker.work()
    del worker.channels["ops"]
    clock.pass_by(backoff(1))
    worker.work()
    assert paths(receiver) == ["/ops", "/team"]
    assert "No alert channel is named ops." in queue.dead_letters(QUEUE)[0].dead


@pytest.mark.parametrize("conditions", [None, ("stale",)])
def test_a_notice_that_nobody_gets_is_logged_in_one_structured_line(
    queue: AlertQueue, worker: Worker, receiver: Receiver, caplog: pytest.LogCaptureFixture, conditions: Any
) -> None:
    caplog.set_level(logging.INFO)
    if conditions is None:
        worker.channels.clear()
    else:
        worker.channels.update({n: replace(c, conditions=conditions) for n, c in worker.channels.items()})
    begin(queue, notice(message="Two\nlines"))
    assert worker.work() == 1
    (record,) = [record for record in caplog.records if record.name == "sync_core.alert_delivery"]
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    logged = json.loads(record.getMessage())
    assert logged["event"] == "alert.without_channel"
    assert logged["pipeline_id"] == "orders"
    assert logged["notice"]["message"] == "Two\nlines"
    assert receiver.received == []
    assert queue.dead_letters(QUEUE) == []


def test_what_became_of_each_channel_is_told_by_deliver(
    sink: ChannelSink, channels: dict[str, Channel], receiver: Receiver
) -> None:
    receiver.answers = [Answer(503), Answer()]
    told = deliver(notice(), channels, sink)
    assert told.taken == ("team",)
    assert list(told.owed) == ["ops"]
    assert dict(told.given_up) == {}
    told = deliver(notice(), channels, sink, ("ops",))
    assert told.taken == ("ops",)
    assert paths(receiver) == ["/ops", "/team", "/ops"]


def test_each_outcome_is_logged(
    queue: AlertQueue, worker: Worker, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.answers = [Answer(500)]
    begin(queue, notice())
    worker.work()
    lines = [json.loads(r.getMessage()) for r in caplog.records if r.name == "sync_core.alert_delivery"]
    assert sorted((line["event"], line["channel"]) for line in lines) == [
        ("alert.delayed", "ops"),
        ("alert.delivered", "team"),
    ]


# The message.

_times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
_names = st.text("abcdefgh-_", min_size=1, max_size=8)
_notices = st.builds(
    Notice,
    st.text(min_size=1),
    st.text(min_size=1),
    st.sampled_from(Condition),
    st.sampled_from(Phase),
    st.text(),
    st.text(),
    st.text(),
    _times,
    _times,
    st.integers(1, 10_000),
    st.none() | st.text(),
    st.lists(_names, max_size=3).map(tuple),
)
_deliveries = st.builds(
    Delivery,
    _notices,
    st.none() | st.lists(_names, max_size=3).map(tuple),
    st.integers(1, 1000),
    st.none() | _times,
    st.integers(1, 9),
)


@given(_deliveries)
def test_a_delivery_survives_its_encoding(delivery: Delivery) -> None:
    assert decode(encode(delivery)) == delivery


@given(_deliveries, _deliveries)
def test_a_key_is_that_of_one_notice_one_set_and_one_attempt(one: Delivery, other: Delivery) -> None:
    def facts(delivery: Delivery) -> Any:
        return delivery.notice.notice_id, sorted(delivery.owed or ()), delivery.attempt, delivery.round

    assert (key_of(one) == key_of(other)) == (facts(one) == facts(other))
    assert len(key_of(one)) <= 128
    assert key_of(replace(one, tried_since=AT)) == key_of(replace(one, tried_since=AT + TRIED_FOR))
    assert key_of(replace(one, attempt=one.attempt + 1)) != key_of(one)
    assert key_of(replace(one, round=one.round + 1)) != key_of(one)


_GOOD = json.loads(owe(notice()).body)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"notice": null}',
        json.dumps(_GOOD | {"attempt": 0}),
        json.dumps(_GOOD | {"attempt": "one"}),
        json.dumps(_GOOD | {"version": 2}),
        json.dumps(_GOOD | {"owed": 7}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"condition": "x" * 1_000_000}}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"at": "2026-01-01T00:00:00"}}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"at": 7}}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"channels": None}}),
        json.dumps(_GOOD | {"tried_since": "2026-01-01T00:00:00"}),
    ],
)
def test_p21_a_message_that_cannot_be_understood_is_refused_with_a_reason(
    worker: Worker, receiver: Receiver, body: str
) -> None:
    with pytest.raises(PermanentError, match=r"A message of sync-alerts") as raised:
        deliver_alert(worker.queue, worker.sink, worker.channels, body, AT)
    assert raised.value.remedy
    assert len(str(raised.value)) < 1000
    assert receiver.received == []


# The pauses.


@given(st.integers(-5, 10**9))
def test_pauses_grow_to_an_hour_and_stay(attempt: int) -> None:
    pause = backoff(attempt)
    assert FIRST_PAUSE <= pause <= LONGEST_PAUSE
    following = backoff(attempt + 1)
    assert following == (pause if attempt < 1 else min(LONGEST_PAUSE, 2 * pause))


@given(st.integers(2, 1000), st.none() | st.timedeltas(timedelta(), timedelta(days=1000)))
def test_a_receiver_can_ask_for_more_patience_but_not_for_more_than_an_hour(
    attempt: int, asked: timedelta | None
) -> None:
    pause = pause_before(attempt, RetryableError("x", "It is busy.", retry_after=asked))
    assert backoff(attempt - 1) <= pause <= LONGEST_PAUSE
    assert pause >= min(asked or timedelta(), LONGEST_PAUSE)


def test_addressees_of_a_notice() -> None:
    channels = {"a": webhook("", "a", ("failed",)), "b": webhook("", "b"), "c": webhook("", "c", ("stale",))}
    assert addressees(notice(), channels) == ("a", "b")
    assert addressees(notice(channels=("c", "x", "c")), channels) == ("c", "x")
    assert addressees(notice(), {}) == ()
