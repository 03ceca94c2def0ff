"""What every AlertSink does: a real HTTP server receives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.adapters.apprise_sink import AppriseSink
from sync_core.adapters.webhook_sink import WebhookSink
from sync_core.domain.connection import Channel
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.ports import AlertSink
from tests.support.alerts import HIDDEN, KEY, REFERENCE, notice, secrets
from tests.support.receiver import Answer, Receiver

Pair = tuple[AlertSink, Channel]
ANSWER = 2.0
"""Seconds in which a receiver has to answer: each that hangs costs a test as long."""


@pytest.fixture(params=["webhook", "apprise"])
def pair(request: pytest.FixtureRequest, receiver: Receiver, open_webhook: Callable[..., WebhookSink]) -> Pair:
    """A sink, all through the one that dispatches, and a channel whose address holds a secret."""
    address = f"json://user:{HIDDEN}@127.0.0.1:{receiver.port}/{HIDDEN}/?+X-Token={HIDDEN}&rto={ANSWER}&-k={HIDDEN}"
    sink = ChannelSink(
        {"webhook": open_webhook(answer_seconds=ANSWER), "apprise": AppriseSink(secrets(address))},
    )
    url = receiver.url(f"/hook/{HIDDEN}?token={HIDDEN}")
    return sink, Channel("ops", request.param, url if request.param == "webhook" else None, REFERENCE)


def test_a_notice_is_taken(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    sink.deliver(channel, notice())
    assert len(receiver.received) == 1
    assert "SALES.ORDERS" in receiver.received[0].body.decode()


def test_a_receiver_that_is_down_is_reached_when_it_is_back(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    sink.deliver(channel, notice())
    receiver.stop()
    with pytest.raises(RetryableError):
        sink.deliver(channel, notice())
    receiver.start()
    sink.deliver(channel, notice())
    assert len(receiver.received) == 2


@pytest.mark.parametrize("answer", [Answer(500), Answer(503), Answer(429), Answer(hangs=True)])
def test_a_busy_receiver_is_asked_again(pair: Pair, receiver: Receiver, answer: Answer) -> None:
    sink, channel = pair
    receiver.answers = [answer]
    with pytest.raises(RetryableError, match="ops"):
        sink.deliver(channel, notice())
    sink.deliver(channel, notice())


@pytest.mark.parametrize(
    "answer", [Answer(200), Answer(500), Answer(404), Answer(302, {"Location": f"/{HIDDEN}"}), Answer(hangs=True), None]
)
def test_p26_no_part_of_an_address_is_told(
    pair: Pair,
    receiver: Receiver,
    answer: Answer | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sink, channel = pair
    caplog.set_level(1)
    if answer is None:
        receiver.stop()
    else:
        receiver.answers = [answer]
    told = ""
    try:
        sink.deliver(channel, notice())
    except SyncError as error:
        told = f"{error} {error.code} {error.__cause__!r} {error.__context__!r}"
    else:
        assert answer is not None
        assert answer.status == 200
    logging.getLogger("tests").warning("the log is looked at")
    printed = capfd.readouterr()
    assert "the log is looked at" in caplog.text
    for text in (told, caplog.text, printed.out, printed.err):
        assert HIDDEN not in text
        assert KEY not in text


def test_a_redirect_is_not_followed(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    receiver.answers = [Answer(307, {"Location": receiver.url("/elsewhere")})]
    with pytest.raises(SyncError):
        sink.deliver(channel, notice())
    assert len(receiver.received) == 1


def test_a_channel_without_a_secret_is_refused(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    with pytest.raises(PermanentError, match=r"ops.*secret_scope"):
        sink.deliver(replace(channel, secret=None), notice())
    assert receiver.received == []


def test_an_unknown_type_is_refused_with_those_that_are_known(pair: Pair) -> None:
    sink, channel = pair
    with pytest.raises(PermanentError, match=r"ops has the type 'pigeon'.*apprise, webhook"):
        sink.deliver(replace(channel, type="pigeon"), notice())
