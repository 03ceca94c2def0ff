"""Notices reach their channels through the queue: real queue, real receivers, the test's clock (P25)."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.alert_delivery import (
    LONGEST_PAUSE,
    QUEUE,
    TRIED_FOR,
    backoff,
    deliver,
)
from sync_core.domain.alert import Condition
from sync_core.domain.connection import Channel
from tests.support.alert_worker import Worker, begin, ids, paths
from tests.support.alerts import AT, AlertQueue, Clock, notice
from tests.support.receiver import Answer, Receiver


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


# Who is told.


def test_a_notice_goes_to_the_channels_it_names_and_to_no_other(
    queue: AlertQueue, worker: Worker, receiver: Receiver
) -> None:
    begin(queue, notice(channels=("ops", "ops")))
    worker.work()
    assert paths(receiver) == ["/ops"]


def test_a_channel_that_is_named_hears_of_its_conditions_alone(
    queue: AlertQueue, worker: Worker, receiver: Receiver
) -> None:
    worker.channels["ops"] = replace(worker.channels["ops"], conditions=("stale",))
    for number, condition in enumerate((Condition.FAILED, Condition.STALE)):
        begin(queue, notice(notice_id=str(number), channels=("ops", "team"), condition=condition))
        worker.work()
    assert paths(receiver) == ["/team", "/ops", "/team"]


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
